/*
 * A writer's life: open, recover, reopen, close; and the door that every call goes through.
 *
 * Opening recovers and writes nothing but what a new log needs: the first append does the rest, so
 * a full disk can still be opened, read and trimmed, and a writer that only opens costs nothing.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "error.h"
#include "hooks.h"
#include "io_posix.h"
#include "writer.h"

/* ---- the door -------------------------------------------------------------------------------- */

struct wal_call wal_call_begin(uint32_t flags, wal_error *error) {
    struct wal_call call = {.flags = flags, .error = error};
    if (flags & WAL_INTERRUPTIBLE) {
        call.deadline_ns = wal_monotonic_ns() + WAL_SLICE_MS * UINT64_C(1000000);
    }
    return call;
}

static int refuse_forked(const struct wal_writer *writer, wal_error *error) {
    if (writer->fork_generation == wal_fork_generation()) return 0;
    return wal_fail(error, WAL_E_FORKED, WAL_NOWHERE,
                    "this writer was opened before fork() and belongs to the parent process; open "
                    "the log anew, once the parent has closed it");
}

static int refuse_closed(const struct wal_writer *writer, wal_error *error) {
    if (writer->state == WAL_WRITER_OPEN) return 0;
    return wal_fail(error, WAL_E_CLOSED, WAL_NOWHERE, "the writer is closed");
}

int wal_enter(struct wal_writer *writer, struct wal_call *call) {
    int result = refuse_forked(writer, call->error);
    if (result < 0) return result;
    pthread_mutex_lock(&writer->mutex);
    result = refuse_closed(writer, call->error);
    if (result == 0 && writer->poisoned) result = wal_tell_poison(writer, call->error);
    if (result < 0) {
        pthread_mutex_unlock(&writer->mutex);
        return result;
    }
    writer->calls++;
    return 0;
}

int wal_leave(struct wal_writer *writer, int result) {
    writer->calls--;
    if (writer->calls == 0) pthread_cond_broadcast(&writer->changed);
    pthread_mutex_unlock(&writer->mutex);
    return result;
}

/* ---- options --------------------------------------------------------------------------------- */

static int refuse_option(wal_error *error, const char *what) {
    return wal_fail(error, WAL_E_INVALID, WAL_NOWHERE, "%s", what);
}

static int check_options(const wal_options *options, wal_error *error) {
    uint64_t segment = options->segment_bytes;
    if (segment < WAL_SEGMENT_BYTES_MIN || segment > UINT64_C(64) << 30 ||
        segment % WAL_BLOCK_BYTES != 0) {
        return refuse_option(error, "segment_bytes: a multiple of 4096 from 32 KiB to 64 GiB");
    }
    if (options->record_bytes_max == 0 || options->record_bytes_max > UINT32_MAX - 8) {
        return refuse_option(error, "record_bytes_max: from 1 to 4294967287");
    }
    if (options->commit_alignment != WAL_FRAME_ALIGNMENT &&
        options->commit_alignment != WAL_BLOCK_BYTES) {
        return refuse_option(error, "commit_alignment: 8 or 4096");
    }
    if (options->log_bytes_max != 0 && options->log_bytes_max < segment) {
        return refuse_option(error, "log_bytes_max: at least segment_bytes, or 0");
    }
    if (options->unsynced_bytes_max == 0) {
        return refuse_option(error, "unsynced_bytes_max: at least 1");
    }
    if (options->recovery_mode > WAL_RECOVERY_STRICT) {
        return refuse_option(error, "recovery_mode: a writer takes POINT_IN_TIME or STRICT");
    }
    if (options->owner != NULL && options->owner_bytes > WAL_OWNER_BYTES_MAX) {
        return refuse_option(error, "owner: at most 1024 bytes");
    }
    return 0;
}

static int check_owner(const struct wal_writer *writer, wal_error *error) {
    const struct wal_disk_meta *meta = &writer->meta.disk;
    if (writer->options.owner == NULL) return 0;
    if (meta->owner_bytes == writer->options.owner_bytes &&
        memcmp(meta->owner, writer->owner, meta->owner_bytes) == 0) {
        return 0;
    }
    if (meta->owner_bytes == 0) {
        return wal_fail(error, WAL_E_INVALID, WAL_IN_FILE("META"),
                        "the log was made without an owner; open it without one");
    }
    return wal_fail(error, WAL_E_INVALID, WAL_IN_FILE("META"),
                    "the log was made for the owner '%.*s'; open it with that one, or without",
                    (int)(meta->owner_bytes < 100 ? meta->owner_bytes : 100),
                    (const char *)meta->owner);
}

/* ---- a new log ------------------------------------------------------------------------------- */

/* First segment durable, META last: a crash in between leaves a directory that holds no log yet. */
static int create_log(struct wal_writer *writer, const struct wal_chain *chain, wal_error *error) {
    struct wal_disk_meta *meta = &writer->meta.disk;
    memset(meta, 0, sizeof *meta);
    int result = 0;
    if (chain->other_count > 0) { /* of a creation that was interrupted: it is the same log */
        memcpy(meta->log_uuid, chain->others[0].segment.header.log_uuid, sizeof meta->log_uuid);
    } else {
        result = wal_random(writer, meta->log_uuid, sizeof meta->log_uuid);
    }
    if (result < 0) return wal_fail_os(error, result, WAL_NOWHERE, "cannot draw a UUID");
    meta->created_us = wal_clock_us(writer);
    meta->trim_lsn = 1;
    if (writer->options.owner != NULL) {
        meta->owner_bytes = writer->options.owner_bytes;
        memcpy(meta->owner, writer->owner, meta->owner_bytes);
    }
    if (writer->prepared.file < 0) {
        struct wal_prepared first;
        writer->preparing = 1;
        result = wal_prepare(writer, writer->options.segment_bytes, &first, error);
        writer->preparing = 0;
        if (result < 0) return result;
        writer->prepared = first;
    }
    return wal_meta_create(writer->io, &writer->meta, error);
}

/* ---- taking over what recovery found --------------------------------------------------------- */

static int can_continue(const struct wal_writer *writer, const struct wal_chain *chain) {
    if (chain->count == 0 || chain->end.decision != WAL_CASE_SEALED) return 0;
    const struct wal_segment *newest = &chain->segments[chain->count - 1];
    const struct wal_disk_segment *header = &newest->header;
    uint64_t payload_max = writer->options.record_bytes_max + 8;
    if (header->payload_bytes_max < payload_max) return 0;
    if (newest->file_bytes < header->segment_bytes) return 0; /* cut behind its seal: no room */
    if (WAL_MUTANT(F7_UNSEAL_ANY_ALIGNMENT)) return 1;
    return header->commit_alignment == writer->options.commit_alignment;
}

static int continue_tail(struct wal_writer *writer, const struct wal_chain *chain,
                         wal_error *error) {
    struct wal_tail *tail = &writer->tail;
    const struct wal_segment *newest = &chain->segments[chain->count - 1];
    struct wal_place place = {.file = newest->name, .segment_id = newest->header.segment_id};
    int file = wal_io_open(writer->io, newest->name, WAL_IO_WRITE);
    if (file < 0) return wal_fail_os(error, file, place, "cannot open the tail for writing");
    struct wal_io_stat stat;
    int result = wal_io_stat(writer->io, file, &stat);
    if (result == 0 && !stat.is_ours) {
        result =
            wal_fail(error, WAL_E_UNSAFE, place, "the segment has a second link or another owner");
    }
    if (result < 0) {
        wal_io_close(writer->io, file);
        return result;
    }
    tail->segment = *newest;
    tail->file = file;
    tail->offset = newest->end_offset;
    tail->frontier = wal_round_up(newest->end_offset, WAL_BLOCK_BYTES);
    tail->previous_crc = chain->end.previous_crc;
    tail->needs_unseal = 1;
    tail->index_offset = newest->slot.index_offset;
    return 0;
}

static int adopt_closed(struct wal_writer *writer, const struct wal_chain *chain, int continues) {
    size_t count = chain->count - (size_t)(continues && chain->count > 0);
    struct wal_segment *closed = wal_calloc(count + 16, sizeof *closed);
    if (closed == NULL) return -ENOMEM;
    if (count > 0) memcpy(closed, chain->segments, count * sizeof *closed);
    wal_free(writer->closed);
    writer->closed = closed;
    writer->closed_count = count;
    writer->closed_room = count + 16;
    writer->closed_crc = chain->end.previous_crc;
    writer->bypass_newest = !continues && count > 0 && !chain->end.has_records;
    writer->cut_newest = !continues && count > 0 && chain->end.decision != WAL_CASE_SEALED;
    return 0;
}

/* Cuts that earlier lives owe: a segment that ended uncleanly is as long as what it holds. */
static int adopt_cuts(struct wal_writer *writer) {
    for (size_t i = 0; i + 1 < writer->closed_count + (writer->tail.file >= 0); i++) {
        const struct wal_segment *segment = &writer->closed[i];
        struct wal_release release = {
            .segment_id = segment->header.segment_id,
            .file_bytes = segment->file_bytes,
            .cut_bytes = wal_round_up(segment->end_offset, WAL_BLOCK_BYTES),
        };
        if (segment->is_sealed || release.cut_bytes >= segment->file_bytes) continue;
        memcpy(release.name, segment->name, sizeof release.name);
        int result = wal_release_later(writer, &release);
        if (result < 0) return result;
    }
    return 0;
}

/* At most WAL_SPARES_MAX spares are kept; what earlier lives left beyond that is given back. */
static int adopt_spares(struct wal_writer *writer, const struct wal_chain *chain) {
    for (size_t i = 0; i < chain->spare_count; i++) {
        if (writer->spare_count < WAL_SPARES_MAX) {
            writer->spares[writer->spare_count++] = chain->spares[i];
            continue;
        }
        struct wal_release release = {.segment_id = 0};
        wal_spare_name(release.name, chain->spares[i]);
        int result = wal_release_later(writer, &release);
        if (result < 0) return result;
    }
    return 0;
}

/* May a segment that an earlier life prepared serve as our next one? */
static int serves(const struct wal_writer *writer, const struct wal_chain *chain,
                  const struct wal_other *other) {
    const struct wal_disk_segment *header = &other->segment.header;
    uint64_t newest_id = chain->count > 0 ? chain->segments[chain->count - 1].header.segment_id : 0;
    if (!other->is_prepared || writer->prepared.file >= 0) return 0;
    if (header->segment_id <= newest_id) return 0;
    if (header->commit_alignment != writer->options.commit_alignment) return 0;
    if (header->segment_bytes != writer->options.segment_bytes) return 0;
    if (other->segment.file_bytes != header->segment_bytes) return 0;
    return header->payload_bytes_max >= writer->options.record_bytes_max + 8;
}

static void adopt_prepared(struct wal_writer *writer, const struct wal_other *other) {
    int file = wal_io_open(writer->io, other->segment.name, WAL_IO_WRITE);
    if (file < 0) return;
    struct wal_io_stat stat;
    if (wal_io_stat(writer->io, file, &stat) < 0 || !stat.is_ours) {
        wal_io_close(writer->io, file);
        return;
    }
    writer->prepared = (struct wal_prepared){
        .segment = other->segment, .file = file, .frontier = WAL_FRAMES_OFFSET};
}

/*
 * Orphans and prepared segments that do not serve become spares, once something of this life is
 * durable: recovery itself writes nothing, and an empty log keeps its only segment until then.
 */
static int adopt_others(struct wal_writer *writer, const struct wal_chain *chain) {
    uint64_t after =
        writer->tail.file >= 0 ? writer->tail.segment.header.segment_id : chain->highest_id + 1;
    for (size_t i = 0; i < chain->other_count; i++) {
        const struct wal_other *other = &chain->others[i];
        if (serves(writer, chain, other)) {
            adopt_prepared(writer, other);
            if (writer->prepared.file >= 0 && writer->tail.file < 0) {
                after = other->segment.header.segment_id;
            }
            continue;
        }
        struct wal_release release = {
            .segment_id = other->segment.header.segment_id,
            .file_bytes = other->segment.file_bytes,
        };
        memcpy(release.name, other->segment.name, sizeof release.name);
        int result = wal_release_later(writer, &release);
        if (result < 0) return result;
    }
    int result = adopt_cuts(writer);
    if (result == 0) result = adopt_spares(writer, chain);
    for (size_t i = 0; i < writer->release_count; i++) writer->releases[i].successor_id = after;
    return result;
}

static int adopt(struct wal_writer *writer, const struct wal_chain *chain, wal_error *error) {
    int continues = can_continue(writer, chain);
    writer->meta = chain->meta;
    writer->trim_lsn = chain->trim_lsn;
    writer->next_lsn = wal_chain_next_lsn(chain);
    writer->durable_lsn = writer->next_lsn - 1;
    writer->synced_segment_id = 0;
    writer->release_count = 0;
    writer->spare_count = 0;
    if (chain->highest_id >= writer->next_segment_id) {
        writer->next_segment_id = chain->highest_id + 1;
    }
    if (chain->highest_spare >= writer->next_spare) writer->next_spare = chain->highest_spare + 1;
    if (!continues) wal_index_reset(&writer->tail.index);
    int result = continues ? continue_tail(writer, chain, error) : 0;
    if (result < 0) return result;
    result = adopt_closed(writer, chain, continues);
    if (result == 0) result = adopt_others(writer, chain);
    return result < 0 ? wal_fail(error, result, WAL_NOWHERE, "out of memory") : 0;
}

/* ---- recovery -------------------------------------------------------------------------------- */

static int judge(const struct wal_writer *writer, const struct wal_chain *chain, wal_error *error) {
    if (wal_chain_is_damaged(chain)) return wal_chain_damage(chain, error);
    if (writer->options.recovery_mode == WAL_RECOVERY_STRICT &&
        wal_verdict_of(chain->end.decision) == WAL_VERDICT_TORN) {
        const struct wal_segment *newest = &chain->segments[chain->count - 1];
        struct wal_place place = {.file = newest->name,
                                  .segment_id = newest->header.segment_id,
                                  .offset = chain->end.damage,
                                  .lsn = chain->end.next_lsn};
        return wal_fail(error, WAL_E_CORRUPT, place,
                        "the log has a torn end (%s), and STRICT takes none; open it with "
                        "POINT_IN_TIME to drop it",
                        wal_case_text(chain->end.decision));
    }
    return 0;
}

/* A writer that recovers anew must find its own log: never a fresh one, never another. */
static int check_identity(const struct wal_writer *writer, const struct wal_chain *chain,
                          wal_error *error) {
    const struct wal_disk_meta *before = &writer->meta.disk;
    if (before->generation == 0) return 0; /* the first recovery of this writer */
    if (chain->has_meta &&
        memcmp(chain->meta.disk.log_uuid, before->log_uuid, sizeof before->log_uuid) == 0) {
        return 0;
    }
    return wal_fail(error, WAL_E_CORRUPT, WAL_IN_FILE("META"),
                    "the directory no longer holds this writer's log; restore it, then reopen");
}

static int recover(struct wal_writer *writer, wal_report *report, wal_error *error) {
    struct wal_chain chain;
    uint64_t begin = wal_monotonic_ns();
    wal_index_reset(&writer->tail.index);
    pthread_mutex_unlock(&writer->mutex); /* positions can be read; all else waits for the leader */
    int result = wal_chain_load(writer->io, WAL_LOAD_DEVICE, &writer->tail.index, &chain, error);
    pthread_mutex_lock(&writer->mutex);
    if (result < 0) return result;
    WAL_FAIL_POINT("recover.loaded");
    wal_report found;
    wal_chain_report(&chain, &found);
    result = judge(writer, &chain, error);
    if (result == 0) result = check_identity(writer, &chain, error);
    if (result == 0 && !chain.has_meta && (writer->options.flags & WAL_CREATE) == 0) {
        result = wal_fail(error, WAL_E_NOT_FOUND, WAL_NOWHERE,
                          "there is no log in this directory, and create is off");
    }
    if (result == 0) result = adopt(writer, &chain, error);
    WAL_FAIL_POINT("recover.adopted");
    if (result == 0 && !chain.has_meta) result = create_log(writer, &chain, error);
    if (result == 0) result = check_owner(writer, error);
    if (result == 0 && found.next_step == WAL_NEXT_CONTINUE && writer->tail.file < 0) {
        found.next_step = chain.end.has_records ? WAL_NEXT_NEW_SEGMENT : WAL_NEXT_BYPASS;
    }
    wal_chain_free(&chain);
    found.duration_us = (wal_monotonic_ns() - begin) / 1000;
    found.warnings |= wal_io_warnings(writer->io);
    if (report != NULL) *report = found;
    return result;
}

/* ---- open ------------------------------------------------------------------------------------ */

static int take_lock(struct wal_writer *writer, wal_error *error) {
    int64_t holder_pid = 0;
    if (WAL_MUTANT(M12_NO_LOCK)) return 0;
    int result = wal_io_lock(writer->io, &holder_pid);
    if (result == -EWOULDBLOCK) {
        if (holder_pid == 0) {
            return wal_fail(error, WAL_E_LOCKED, WAL_IN_FILE("LOCK"),
                            "another writer has the log open; close it first");
        }
        return wal_fail(error, WAL_E_LOCKED, WAL_IN_FILE("LOCK"),
                        "process %lld has the log open; close it there first",
                        (long long)holder_pid);
    }
    if (result == WAL_E_UNSAFE) {
        return wal_fail(error, result, WAL_IN_FILE("LOCK"),
                        "LOCK is not a regular file with one link; move it away");
    }
    return result < 0 ? wal_fail_os(error, result, WAL_IN_FILE("LOCK"), "cannot take the lock") : 0;
}

static int make_writer(struct wal_io *io, const wal_options *options, struct wal_writer **made) {
    struct wal_writer *writer = wal_calloc(1, sizeof *writer);
    if (writer == NULL) return -ENOMEM;
    writer->io = io;
    writer->options = *options;
    if (options->owner != NULL && options->owner_bytes > 0) {
        memcpy(writer->owner, options->owner, options->owner_bytes);
    }
    writer->fork_generation = wal_fork_generation();
    writer->next_segment_id = 1;
    writer->next_spare = 1;
    writer->tail.file = -1;
    writer->prepared.file = -1;
    pthread_condattr_t attributes;
    (void)pthread_condattr_init(&attributes);
#ifndef __APPLE__
    (void)pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
#endif
    (void)pthread_mutex_init(&writer->mutex, NULL);
    (void)pthread_cond_init(&writer->changed, &attributes);
    (void)pthread_cond_init(&writer->posted, &attributes);
    (void)pthread_cond_init(&writer->work, &attributes);
    (void)pthread_condattr_destroy(&attributes);
    *made = writer;
    return 0;
}

static void release_files(struct wal_writer *writer) {
    wal_tail_close(writer);
    wal_io_close(writer->io, writer->prepared.file);
    writer->prepared.file = -1;
}

static void destroy(struct wal_writer *writer) {
    if (writer->io != NULL) {
        release_files(writer);
        wal_io_destroy(writer->io);
    }
    (void)pthread_cond_destroy(&writer->changed);
    (void)pthread_cond_destroy(&writer->posted);
    (void)pthread_cond_destroy(&writer->work);
    (void)pthread_mutex_destroy(&writer->mutex);
    wal_index_free(&writer->tail.index);
    wal_free(writer->closed);
    wal_free(writer->releases);
    wal_free(writer->tables);
    wal_free(writer);
}

int wal_writer_open_io(struct wal_io *io, const wal_options *options, wal_writer **out,
                       wal_report *report, wal_error *error) {
    struct wal_writer *writer = NULL;
    int result = check_options(options, error);
    if (result == 0 && make_writer(io, options, &writer) < 0) {
        result = wal_fail(error, -ENOMEM, WAL_NOWHERE, "out of memory");
    }
    if (result < 0) {
        wal_io_destroy(io);
        return result;
    }
    result = take_lock(writer, error);
    pthread_mutex_lock(&writer->mutex);
    if (result == 0) result = recover(writer, report, error);
    if (result == 0) {
        result = wal_background_start(writer);
        if (result < 0) (void)wal_fail_os(error, result, WAL_NOWHERE, "cannot start a thread");
    }
    pthread_mutex_unlock(&writer->mutex);
    if (result < 0) {
        destroy(writer);
        return result;
    }
    *out = writer;
    return 0;
}

int wal_writer_open(const char *path, const wal_options *options, wal_writer **writer,
                    wal_report *report, wal_error *error) {
    struct wal_io *base = NULL, *io = NULL;
    unsigned flags = WAL_DIR_WRITER;
    if (options->flags & WAL_CREATE) flags |= WAL_DIR_CREATE;
    if (options->flags & WAL_SHARED_DIR) flags |= WAL_DIR_SHARED;
    int result = check_options(options, error);
    if (result == 0) result = wal_io_posix_open(path, flags, &base, error);
    if (result < 0) return result;
    if (wal_io_fault_wrap(base, &io) < 0) {
        wal_io_destroy(base);
        return wal_fail(error, -ENOMEM, WAL_NOWHERE, "out of memory");
    }
    return wal_writer_open_io(io, options, writer, report, error);
}

/* ---- reopen ---------------------------------------------------------------------------------- */

/* Wait until no call is inside. Others who want to reopen wait too; they count as no calls. */
static void wait_alone(struct wal_writer *writer) {
    while (writer->calls > 0 || writer->leading || writer->job.step != WAL_STEP_NONE) {
        pthread_cond_wait(&writer->changed, &writer->mutex);
    }
}

/* Recover in place; the caller leads and nobody else is inside. */
static int recover_again(struct wal_writer *writer, wal_report *report, wal_error *error) {
    wal_background_pause(writer);
    int result = writer->poisoned ? 0 : wal_sync_tail(writer, error);
    if (result == 0) {
        release_files(writer);
        result = recover(writer, report, error);
        if (result == 0) {
            writer->poisoned = 0;
        } else if (!writer->poisoned) {
            (void)wal_poison(writer, result > -4096 ? result : -EIO, "reopening failed", 0, NULL);
        }
    }
    writer->idle_mark_due = 0;
    wal_background_resume(writer);
    return result;
}

/*
 * After a poison every thread tends to call this. Whoever comes second finds the writer healed, by
 * a reopen that began after it asked, and takes that one's report.
 */
int wal_writer_reopen(wal_writer *writer, wal_report *report, wal_error *error) {
    int result = refuse_forked(writer, error);
    if (result < 0) return result;
    pthread_mutex_lock(&writer->mutex);
    uint64_t asked = writer->reopens;
    wait_alone(writer);
    result = refuse_closed(writer, error);
    if (result == 0 && (writer->reopens == asked || writer->poisoned)) {
        writer->leading = 1;
        writer->rotating = 1;
        result = recover_again(writer, &writer->last_report, error);
        writer->reopens += (uint64_t)(result == 0);
        writer->rotating = 0;
        writer->leading = 0;
        pthread_cond_broadcast(&writer->changed);
    }
    if (result == 0 && report != NULL) *report = writer->last_report;
    pthread_mutex_unlock(&writer->mutex);
    return result;
}

/* ---- close ----------------------------------------------------------------------------------- */

/* Wait until nobody is inside, the disk is not in somebody's hands, and the tail is sealed. */
static int wind_down(struct wal_writer *writer, struct wal_call *call) {
    while (writer->calls > 0 || writer->leading || writer->job.step != WAL_STEP_NONE) {
        int result = wal_wait(writer, call);
        if (result < 0) return result;
    }
    while (!writer->poisoned && writer->tail.file >= 0 && !writer->tail.needs_unseal) {
        int result = wal_lead(writer, WAL_STEP_SEAL, 0, call);
        if (result < 0) return result == WAL_E_AGAIN ? result : 0; /* else the poison tells */
    }
    return 0;
}

static int stop_threads(struct wal_writer *writer, struct wal_call *call) {
    writer->stopping = 1;
    pthread_cond_signal(&writer->posted);
    pthread_cond_signal(&writer->work);
    while (writer->threads_running > 0) {
        int result = wal_wait(writer, call);
        if (result < 0) return result;
    }
    return 0;
}

static void join_threads(struct wal_writer *writer) {
    if (writer->background_started) (void)pthread_join(writer->background, NULL);
    if (writer->committer_started) (void)pthread_join(writer->committer, NULL);
    writer->background_started = 0;
    writer->committer_started = 0;
}

static uint64_t frame_bytes(const struct wal_writer *writer) {
    if (writer->io == NULL) return writer->final_frame_bytes;
    uint64_t bytes = 0;
    for (size_t i = 0; i < writer->closed_count; i++) {
        bytes += writer->closed[i].end_offset - WAL_FRAMES_OFFSET;
    }
    if (writer->tail.file >= 0) bytes += writer->tail.offset - WAL_FRAMES_OFFSET;
    return bytes;
}

/* Give files and lock back; what position and stats tell of a closed writer stays. */
static void let_go(struct wal_writer *writer) {
    writer->final_frame_bytes = frame_bytes(writer);
    writer->final_counters = writer->io->counters;
    release_files(writer);
    wal_io_destroy(writer->io);
    writer->io = NULL;
    pthread_cond_broadcast(&writer->changed);
}

int wal_writer_close(wal_writer *writer, uint32_t flags, wal_error *error) {
    int result = refuse_forked(writer, error);
    if (result < 0) return result;
    struct wal_call call = wal_call_begin(flags, error);
    pthread_mutex_lock(&writer->mutex);
    if (writer->state == WAL_WRITER_CLOSED) { /* perhaps not done yet: the lock is what counts */
        while (writer->io != NULL) pthread_cond_wait(&writer->changed, &writer->mutex);
        pthread_mutex_unlock(&writer->mutex);
        return 0;
    }
    writer->state = WAL_WRITER_CLOSING;
    pthread_cond_broadcast(&writer->changed);
    result = wind_down(writer, &call);
    if (result == 0) result = stop_threads(writer, &call);
    if (result < 0) { /* not done: the caller comes back */
        pthread_mutex_unlock(&writer->mutex);
        return result;
    }
    int is_first = writer->state != WAL_WRITER_CLOSED; /* of several threads that close at once */
    writer->state = WAL_WRITER_CLOSED;
    if (writer->poisoned) result = wal_tell_poison(writer, error);
    pthread_mutex_unlock(&writer->mutex);
    if (is_first) join_threads(writer);
    pthread_mutex_lock(&writer->mutex);
    if (is_first) {
        let_go(writer);
    } else { /* nobody returns from close while the lock is still held */
        while (writer->io != NULL) pthread_cond_wait(&writer->changed, &writer->mutex);
    }
    pthread_mutex_unlock(&writer->mutex);
    return result;
}

void wal_writer_free(wal_writer *writer) {
    if (writer == NULL || writer->fork_generation != wal_fork_generation()) return;
    pthread_mutex_lock(&writer->mutex);
    struct wal_call call = wal_call_begin(0, NULL);
    (void)stop_threads(writer, &call);
    pthread_mutex_unlock(&writer->mutex);
    join_threads(writer);
    destroy(writer);
}

/* ---- looking --------------------------------------------------------------------------------- */

void wal_writer_position(wal_writer *writer, wal_position *position) {
    memset(position, 0, sizeof *position);
    if (refuse_forked(writer, NULL) < 0) return;
    pthread_mutex_lock(&writer->mutex);
    position->first_lsn = writer->trim_lsn < writer->next_lsn ? writer->trim_lsn : writer->next_lsn;
    position->last_lsn = writer->next_lsn - 1;
    position->durable_lsn = writer->durable_lsn;
    position->frame_bytes = frame_bytes(writer);
    position->poisoned = (uint64_t)writer->poisoned;
    pthread_mutex_unlock(&writer->mutex);
}

void wal_writer_stats(wal_writer *writer, wal_stats *stats) {
    memset(stats, 0, sizeof *stats);
    if (refuse_forked(writer, NULL) < 0) return;
    pthread_mutex_lock(&writer->mutex);
    *stats = writer->stats;
    wal_histogram_summary(&writer->sync_latency, &stats->sync_latency);
    stats->segments = writer->closed_count + (writer->tail.file >= 0);
    const struct wal_io_counters *counters =
        writer->io != NULL ? &writer->io->counters : &writer->final_counters;
    stats->ops_submitted = __atomic_load_n(&counters->ops_submitted, __ATOMIC_RELAXED);
    stats->ops_completed = __atomic_load_n(&counters->ops_completed, __ATOMIC_RELAXED);
    stats->bytes_written = __atomic_load_n(&counters->bytes_written, __ATOMIC_RELAXED);
    stats->bytes_read = __atomic_load_n(&counters->bytes_read, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&writer->mutex);
}
