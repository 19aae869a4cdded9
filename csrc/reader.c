/*
 * Readers: a look at the chain as it stands, and the verification of its segments. No lock, no
 * write access; the cursors that hand out records are in cursor.c.
 */
#include "reader.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "error.h"
#include "hooks.h"
#include "log.h"

enum { OPEN_TRIES_MAX = 1000 };

/* ---- opening --------------------------------------------------------------------------------- */

static int load_once(struct wal_reader *reader, wal_error *error) {
    unsigned flags = WAL_LOAD_LIVE;
    if (reader->mode == WAL_RECOVERY_SALVAGE) flags |= WAL_LOAD_SALVAGE;
    int result = wal_chain_load(reader->io, flags, NULL, &reader->chain, error);
    if (result < 0) return result;
    const struct wal_chain *chain = &reader->chain;
    if (chain->has_meta || chain->count > 0 || wal_chain_is_damaged(chain)) return 0;
    wal_chain_free(&reader->chain);
    return wal_fail(error, WAL_E_NOT_FOUND, WAL_NOWHERE, "there is no log in this directory");
}

/* What one look at the log came to, to be compared with the next. */
struct look {
    int result;
    uint64_t generation; /* of META: every trim makes a new one */
    uint64_t highest_id;
    uint64_t damaged_id;
    uint64_t damaged_offset;
};

static struct look look_of(const struct wal_chain *chain, int result, const wal_error *error) {
    struct look look = {.result = result};
    wal_error damage = *error;
    if (result == 0) {
        look.result = wal_chain_damage(chain, &damage);
        look.generation = chain->meta.disk.generation;
        look.highest_id = chain->highest_id;
    }
    look.damaged_id = damage.segment_id;
    look.damaged_offset = damage.offset;
    return look;
}

static int is_same(const struct look *left, const struct look *right) {
    return left->result != -ENOENT && left->result == right->result &&
           left->generation == right->generation && left->highest_id == right->highest_id &&
           left->damaged_id == right->damaged_id && left->damaged_offset == right->damaged_offset;
}

/* Did the trim overtake us, so that what we found of the log is all gone? */
static int is_overtaken(const struct wal_chain *chain) {
    return chain->count > 0 && chain->trim_lsn > chain->end.next_lsn;
}

/*
 * A writer at work renames and recycles while we look, and what looks damaged may only have moved.
 * The obvious way, a number of tries, calls a log damaged whose writer is fast enough; so we look
 * until two looks in a row find the very same.
 */
static int load(struct wal_reader *reader, wal_error *error) {
    struct look before = {.result = 0};
    wal_error why = {.code = 0};
    int result = 0;
    for (int tries = 0; tries < OPEN_TRIES_MAX; tries++) {
        result = load_once(reader, &why);
        int is_damage = result == WAL_E_CORRUPT || result == -ENOENT;
        if (result < 0 && !is_damage) break;
        if (result == 0 && !wal_chain_is_damaged(&reader->chain) && !is_overtaken(&reader->chain)) {
            break;
        }
        struct look now = look_of(&reader->chain, result, &why);
        if ((tries > 0 && is_same(&before, &now)) || tries + 1 == OPEN_TRIES_MAX) break;
        before = now;
        if (result == 0) wal_chain_free(&reader->chain);
        (void)nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    if (result < 0 && error != NULL) *error = why;
    return result;
}

static int judge(const struct wal_reader *reader, wal_error *error) {
    const struct wal_chain *chain = &reader->chain;
    if (reader->mode != WAL_RECOVERY_STRICT) return 0;
    if (wal_chain_is_damaged(chain)) return wal_chain_damage(chain, error);
    if (wal_verdict_of(chain->end.decision) != WAL_VERDICT_TORN) return 0;
    const struct wal_segment *newest = &chain->segments[chain->count - 1];
    struct wal_place place = {.file = newest->name,
                              .segment_id = newest->header.segment_id,
                              .offset = chain->end.damage,
                              .lsn = chain->end.next_lsn};
    return wal_fail(error, WAL_E_CORRUPT, place,
                    "the log has a torn end (%s), and STRICT takes none",
                    wal_case_text(chain->end.decision));
}

int wal_reader_open_io(struct wal_io *io, uint32_t recovery_mode, wal_reader **out,
                       wal_report *report, wal_error *error) {
    struct wal_reader *reader = wal_calloc(1, sizeof *reader);
    if (reader == NULL) {
        wal_io_destroy(io);
        return wal_fail(error, -ENOMEM, WAL_NOWHERE, "out of memory");
    }
    reader->io = io;
    reader->mode = recovery_mode;
    atomic_init(&reader->users, 1);
    struct timespec begin, end;
    (void)clock_gettime(CLOCK_MONOTONIC, &begin);
    int result = load(reader, error);
    (void)clock_gettime(CLOCK_MONOTONIC, &end);
    if (result == 0 && report != NULL) {
        wal_chain_report(&reader->chain, report);
        report->duration_us = (uint64_t)((end.tv_sec - begin.tv_sec) * 1000000 +
                                         (end.tv_nsec - begin.tv_nsec) / 1000);
    }
    if (result == 0) result = judge(reader, error);
    if (result < 0) {
        wal_reader_close(reader);
        return result;
    }
    *out = reader;
    return 0;
}

int wal_reader_open(const char *path, uint32_t recovery_mode, wal_reader **reader,
                    wal_report *report, wal_error *error) {
    struct wal_io *base = NULL, *io = NULL;
    int result = wal_io_posix_open(path, 0, &base, error);
    if (result < 0) return result;
    if (wal_io_fault_wrap(base, &io) < 0) {
        wal_io_destroy(base);
        return wal_fail(error, -ENOMEM, WAL_NOWHERE, "out of memory");
    }
    return wal_reader_open_io(io, recovery_mode, reader, report, error);
}

void wal_reader_close(wal_reader *reader) {
    if (reader == NULL || atomic_fetch_sub(&reader->users, 1) > 1) return;
    wal_chain_free(&reader->chain);
    wal_io_destroy(reader->io);
    wal_free(reader);
}

/* ---- segments -------------------------------------------------------------------------------- */

int wal_reader_segment(wal_reader *reader, uint64_t index, wal_segment_info *info) {
    if (index >= reader->chain.count) return WAL_E_NOT_FOUND;
    const struct wal_segment *segment = &reader->chain.segments[index];
    memset(info, 0, sizeof *info);
    info->segment_id = segment->header.segment_id;
    info->base_lsn = segment->start.base_lsn;
    info->last_lsn = segment->last_lsn;
    info->end_offset = segment->end_offset;
    info->file_bytes = segment->file_bytes;
    info->created_us = segment->header.created_us;
    info->commit_alignment = segment->header.commit_alignment;
    info->sealed = (uint32_t)segment->is_sealed | (uint32_t)(index + 1 < reader->chain.count);
    memcpy(info->file, segment->name, sizeof info->file);
    return 0;
}

int wal_reader_open_segment(struct wal_reader *reader, const struct wal_segment *segment,
                            wal_error *error) {
    struct wal_place place = {.file = segment->name, .segment_id = segment->header.segment_id};
    int file = wal_io_open(reader->io, segment->name, WAL_IO_READ);
    if (file == -ENOENT) {
        return wal_fail(error, WAL_E_TRIMMED, place, "the segment was trimmed while it was read");
    }
    if (file < 0) return wal_fail_os(error, file, place, "cannot open the segment");
    int changed = wal_segment_changed(reader->io, file, segment);
    if (changed == 0) return file;
    wal_io_close(reader->io, file);
    if (changed < 0) return wal_fail_os(error, changed, place, "cannot read the segment header");
    return wal_fail(error, WAL_E_TRIMMED, place, "the segment was trimmed while it was read");
}

/* Is the walk, at the segment's end, where the successor says that it ends, behind that frame? */
int wal_ends_as_recorded(const struct wal_chain *chain, size_t index, const struct wal_walk *walk) {
    if (index + 1 >= chain->count) return 1; /* the newest: recovery walked to its end itself */
    const struct wal_disk_start *start = &chain->segments[index + 1].start;
    return walk->lsn > start->predecessor_last_lsn && walk->previous_crc == start->predecessor_crc;
}

static int check_walk(const struct wal_chain *chain, size_t index, struct wal_walk *walk,
                      wal_segment_check *check) {
    for (;;) {
        uint64_t offset = walk->offset, lsn = walk->lsn;
        int stop = wal_walk_next(walk);
        if (stop < 0) return stop;
        if (stop == WAL_STOP_LIMIT && wal_ends_as_recorded(chain, index, walk)) return 0;
        if (stop != WAL_STOP_NONE) {
            check->damaged_offset = offset;
            check->damaged_lsn = lsn;
            return 1;
        }
        check->frames++;
        check->records += walk->frame.record_count;
        check->bytes += walk->frame_end - offset;
        if (walk->frame.flags & WAL_FLAG_RECORD_CRC) check->record_crcs += walk->frame.record_count;
    }
}

int wal_reader_verify(wal_reader *reader, uint64_t index, wal_segment_check *check,
                      wal_error *error) {
    if (index >= reader->chain.count) return WAL_E_NOT_FOUND;
    const struct wal_segment *segment = &reader->chain.segments[index];
    memset(check, 0, sizeof *check);
    int file = wal_reader_open_segment(reader, segment, error);
    if (file < 0) return file;
    struct wal_window window;
    if (wal_window_open(&window, reader->io, file) < 0) {
        wal_io_close(reader->io, file);
        return wal_fail(error, -ENOMEM, WAL_NOWHERE, "out of memory");
    }
    window.step_bytes = WAL_WINDOW_STEP_BYTES;
    struct wal_walk walk;
    wal_walk_begin(&walk, &window, segment);
    walk.limit = segment->end_offset;
    int result = check_walk(&reader->chain, (size_t)index, &walk, check);
    struct wal_place place = {
        .file = segment->name, .segment_id = segment->header.segment_id, .offset = walk.offset};
    if (result < 0) {
        (void)wal_fail_os(error, result, place, "cannot read the segment");
    } else if (result > 0 && wal_segment_changed(reader->io, file, segment) > 0) {
        result = wal_fail(error, WAL_E_TRIMMED, place, "the segment was trimmed while it was read");
    }
    wal_window_close(&window);
    wal_io_close(reader->io, file);
    return result;
}
