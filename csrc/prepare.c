/*
 * Segments ahead of time, and what becomes of them afterwards.
 *
 * A segment is made ready under a free- name and renamed when its new header is durable, so a wal-
 * name never stands for a file with an unreadable header. A spare's rename to its free- name is
 * made durable before its header is overwritten: else a crash could show the old name with the
 * new header.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "error.h"
#include "hooks.h"
#include "pins.h"
#include "writer.h"

uint64_t wal_fill_step_bytes(uint64_t offset) {
    uint64_t used = offset - WAL_FRAMES_OFFSET;
    if (used < WAL_FILL_STEP_BYTES_MIN) return WAL_FILL_STEP_BYTES_MIN;
    return used < WAL_FILL_STEP_BYTES_MAX ? used : WAL_FILL_STEP_BYTES_MAX;
}

unsigned wal_tail_open_flags(const struct wal_writer *writer) {
    return WAL_IO_WRITE | (writer->direct ? WAL_IO_DIRECT : 0);
}

/* ---- space ----------------------------------------------------------------------------------- */

static uint64_t log_bytes(const struct wal_writer *writer) {
    uint64_t bytes = 0;
    for (size_t i = 0; i < writer->closed_count; i++) bytes += writer->closed[i].file_bytes;
    if (writer->tail.file >= 0) bytes += writer->tail.segment.file_bytes;
    return bytes;
}

/*
 * Trimming never gives up the newest segment, and that may be as large as the largest that we make.
 * So one that is larger than usual may take half of the log: then there is always room once the
 * rest is trimmed.
 */
int wal_fits_log(const struct wal_writer *writer, uint64_t segment_bytes) {
    uint64_t limit = writer->options.log_bytes_max;
    if (limit == 0 || segment_bytes <= writer->options.segment_bytes) return 1;
    return segment_bytes <= limit / 2;
}

static int check_limit(const struct wal_writer *writer, uint64_t more, wal_error *error) {
    uint64_t limit = writer->options.log_bytes_max;
    uint64_t used = log_bytes(writer);
    if (!wal_fits_log(writer, more)) {
        return wal_fail(error, WAL_E_TOO_LARGE, WAL_NOWHERE,
                        "it needs a segment of %" PRIu64
                        " bytes, more than half of max_log_bytes, %" PRIu64,
                        more, limit);
    }
    if (limit == 0 || used + more <= limit) return 0;
    return wal_fail(error, WAL_E_FULL, WAL_NOWHERE,
                    "the log has %" PRIu64 " bytes and may have %" PRIu64
                    "; trim it, or raise max_log_bytes",
                    used, limit);
}

static int is_no_space(int result) { return result == -ENOSPC || result == -EDQUOT; }

static int tell(int result, const char *name, const char *what, uint64_t bytes, wal_error *error) {
    if (is_no_space(result)) {
        (void)wal_fail_os(error, result, WAL_IN_FILE(name), "%s of %" PRIu64 " bytes", what, bytes);
        if (error != NULL) error->code = WAL_E_FULL;
        return WAL_E_FULL;
    }
    return wal_fail_os(error, result, WAL_IN_FILE(name), "%s", what);
}

/* ---- making a segment ready ------------------------------------------------------------------ */

/* What wal_prepare works on with the mutex released. */
struct preparation {
    struct wal_io *io;
    unsigned flags; /* of opening */
    char spare[WAL_NAME_BYTES];
    int is_recycled;
    struct wal_prepared prepared;
};

/* A spare of this size from the pool; 1 found, 0 none. Others of a wrong size are dropped. */
static int take_spare(struct wal_writer *writer, uint64_t segment_bytes, struct preparation *work) {
    while (writer->spare_count > 0) {
        wal_spare_name(work->spare, writer->spares[--writer->spare_count]);
        int file = wal_io_open(work->io, work->spare, work->flags);
        if (file < 0) continue;
        struct wal_io_stat stat;
        if (wal_io_stat(work->io, file, &stat) == 0 && stat.bytes == segment_bytes &&
            stat.is_ours) {
            work->prepared.file = file;
            work->prepared.frontier =
                segment_bytes; /* its extents were written in its first life */
            work->is_recycled = 1;
            return 1;
        }
        wal_io_close(work->io, file);
        (void)wal_io_unlink(work->io, work->spare);
    }
    return 0;
}

static int create_spare(struct preparation *work, uint64_t segment_bytes, wal_error *error) {
    int file = wal_io_open(work->io, work->spare, work->flags | WAL_IO_CREATE);
    if (file < 0) return tell(file, work->spare, "cannot create a segment", segment_bytes, error);
    int result = wal_io_allocate(work->io, file, segment_bytes);
    uint64_t fill = segment_bytes - WAL_FRAMES_OFFSET;
    if (fill > WAL_FILL_STEP_BYTES_MIN) fill = WAL_FILL_STEP_BYTES_MIN;
    if (result == 0) result = wal_io_write_zeros(work->io, file, WAL_FRAMES_OFFSET, fill);
    if (result < 0) {
        wal_io_close(work->io, file);
        (void)wal_io_unlink(work->io, work->spare);
        return tell(result, work->spare, "no space for a segment", segment_bytes, error);
    }
    work->prepared.file = file;
    work->prepared.frontier = WAL_FRAMES_OFFSET + fill;
    return 0;
}

static void keep_old_salt(const struct preparation *work, struct wal_disk_segment *header) {
    struct wal_disk_segment old;
    if (!WAL_MUTANT(M5_NO_SALT) || !work->is_recycled) return;
    if (wal_io_read(work->io, work->prepared.file, 0, &old, sizeof old) == (int64_t)sizeof old) {
        header->salt = old.salt;
    }
}

/* Header durable, then the name, then the name durable. */
static int christen(struct preparation *work, wal_error *error) {
    struct wal_segment *segment = &work->prepared.segment;
    const char *what = "cannot write a segment's header";
    int is_renamed = 0;
    keep_old_salt(work, &segment->header);
    wal_segment_encode(&segment->header);
    int file = work->prepared.file;
    int result = wal_write_block(work->io, file, WAL_HEADER_OFFSET, &segment->header,
                                 sizeof segment->header);
    if (result == 0 && !WAL_MUTANT(M11_NO_HEADER_SYNC)) result = wal_io_sync(work->io, file);
    WAL_FAIL_POINT("prepare.header_synced");
    if (result == 0) {
        what = "cannot rename a segment";
        result = wal_io_rename(work->io, work->spare, segment->name);
        is_renamed = result == 0;
    }
    WAL_FAIL_POINT("prepare.renamed");
    if (result == 0 && !WAL_MUTANT(M6_NO_DIR_SYNC)) {
        what = "cannot sync the log's directory";
        result = wal_io_sync_dir(work->io);
    }
    if (result == 0) return 0;
    /* Left behind, each new try would take more space. The name is ours only if we renamed. */
    wal_io_close(work->io, file);
    (void)wal_io_unlink(work->io, is_renamed ? segment->name : work->spare);
    return tell(result, segment->name, what, segment->header.segment_bytes, error);
}

/* The largest frame that this segment may hold: 1 MiB, one record, or its INDEX. */
static uint32_t payload_bytes_max(const struct wal_writer *writer, uint64_t segment_bytes) {
    uint64_t most = WAL_FRAME_PAYLOAD_MAX;
    uint64_t one_record = writer->options.record_bytes_max + 8;
    uint64_t index = wal_index_payload_bytes_max(segment_bytes);
    if (one_record > most) most = one_record;
    if (index > most) most = index;
    return (uint32_t)(most < UINT32_MAX ? most : UINT32_MAX);
}

static int begin_header(struct wal_writer *writer, uint64_t segment_bytes,
                        struct wal_segment *segment) {
    memset(segment, 0, sizeof *segment);
    struct wal_disk_segment *header = &segment->header;
    memcpy(header->log_uuid, writer->meta.disk.log_uuid, sizeof header->log_uuid);
    header->segment_id = writer->next_segment_id++;
    header->created_us = wal_clock_us(writer);
    header->segment_bytes = segment_bytes;
    header->commit_alignment = writer->options.commit_alignment;
    header->payload_bytes_max = payload_bytes_max(writer, segment_bytes);
    segment->file_bytes = segment_bytes;
    wal_segment_name(segment->name, header->segment_id);
    return wal_random(writer, &header->salt, sizeof header->salt);
}

int wal_prepare(struct wal_writer *writer, uint64_t segment_bytes, struct wal_prepared *prepared,
                wal_error *error) {
    struct preparation work = {.io = writer->io, .flags = wal_tail_open_flags(writer)};
    assert(writer->preparing);
    int result = check_limit(writer, segment_bytes, error);
    if (result < 0) return result;
    result = begin_header(writer, segment_bytes, &work.prepared.segment);
    if (result < 0) return wal_fail_os(error, result, WAL_NOWHERE, "cannot draw a salt");
    int found = take_spare(writer, segment_bytes, &work);
    if (!found) wal_spare_name(work.spare, writer->next_spare++);
    pthread_mutex_unlock(&writer->mutex);
    if (!found) result = create_spare(&work, segment_bytes, error);
    if (result == 0) result = christen(&work, error);
    pthread_mutex_lock(&writer->mutex);
    if (result < 0) return result;
    if (work.is_recycled) writer->stats.segments_recycled++;
    *prepared = work.prepared;
    return 0;
}

/* ---- giving segments up ---------------------------------------------------------------------- */

int wal_ensure_release_room(struct wal_writer *writer, size_t more) {
    if (writer->release_count + more <= writer->release_room) return 0;
    size_t room = (writer->release_count + more) * 2;
    void *grown = wal_realloc(writer->releases, room * sizeof *writer->releases);
    if (grown == NULL) return -ENOMEM;
    writer->releases = grown;
    writer->release_room = room;
    return 0;
}

int wal_release_later(struct wal_writer *writer, const struct wal_release *release) {
    int result = wal_ensure_release_room(writer, 1);
    if (result == 0) writer->releases[writer->release_count++] = *release;
    return result;
}

static int cut(struct wal_io *io, const struct wal_release *release) {
    int file = wal_io_open(io, release->name, WAL_IO_WRITE);
    if (file < 0) return file;
    int result = wal_io_truncate(io, file, release->cut_bytes);
    wal_io_close(io, file);
    return result;
}

static void note_cut(struct wal_writer *writer, const struct wal_release *release) {
    for (size_t i = 0; i < writer->closed_count; i++) {
        if (writer->closed[i].header.segment_id == release->segment_id) {
            writer->closed[i].file_bytes = release->cut_bytes;
        }
    }
}

static int recycle(struct wal_io *io, const struct wal_release *release, const char *spare) {
    int result = wal_io_rename(io, release->name, spare);
    if (result == 0 && !WAL_MUTANT(F10_NO_FREE_DIR_SYNC)) result = wal_io_sync_dir(io);
    WAL_FAIL_POINT("trim.renamed");
    return result;
}

int wal_release_now(struct wal_writer *writer, const struct wal_release *release) {
    char spare[WAL_NAME_BYTES];
    uint64_t number = writer->next_spare++;
    int reuse = release->cut_bytes == 0 && !release->never_reuse &&
                writer->spare_count < WAL_SPARES_MAX &&
                release->file_bytes == writer->options.segment_bytes &&
                !wal_is_pinned(writer->meta.disk.log_uuid, release->segment_id);
    wal_spare_name(spare, number);
    pthread_mutex_unlock(&writer->mutex);
    int result = 0;
    if (release->cut_bytes > 0) {
        result = cut(writer->io, release);
    } else if (reuse) {
        result = recycle(writer->io, release, spare);
    } else {
        result = wal_io_unlink(writer->io, release->name);
    }
    pthread_mutex_lock(&writer->mutex);
    if (result < 0) {
        writer->stats.preparation_failures++;
    } else if (release->cut_bytes > 0) {
        note_cut(writer, release);
    } else if (reuse && writer->spare_count < WAL_SPARES_MAX) {
        writer->spares[writer->spare_count++] = number;
    }
    return result;
}
