/*
 * A writer's beginnings: its options, a new log, recovery, and recovering again in place.
 *
 * Opening recovers and writes nothing but what a new log needs: the first append does the rest, so
 * a full disk can still be opened, read and trimmed, and a writer that only opens costs nothing.
 */
#include <errno.h>
#include <string.h>

#include "error.h"
#include "hooks.h"
#include "io_posix.h"
#include "writer.h"

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
    const wal_ring_options *ring = &options->ring;
    if (ring->direct_io && options->commit_alignment != WAL_BLOCK_BYTES) {
        return refuse_option(error, "direct_io: commit_alignment has to be 4096");
    }
    if (ring->buffer_bytes % WAL_BLOCK_BYTES != 0 || ring->buffer_bytes > WAL_RING_BYTES_MAX ||
        ring->registered_buffers * ring->buffer_bytes > WAL_RING_BYTES_MAX) {
        return refuse_option(error,
                             "registered_buffers x buffer_bytes: multiples of 4096 to 1 GiB");
    }
    if (ring->direct_io && (ring->max_inflight == 0 || ring->buffer_bytes == 0)) {
        return refuse_option(error, "direct_io: max_inflight and buffer_bytes of at least 1");
    }
    if (ring->max_inflight > WAL_RING_ENTRIES_MAX || ring->sq_entries > WAL_RING_ENTRIES_MAX) {
        return refuse_option(error, "sq_entries and max_inflight: at most 32768");
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
    if (result == 0) result = wal_adopt(writer, &chain, error);
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
        return wal_fail(
            error, WAL_E_LOCKED, WAL_IN_FILE("LOCK"),
            "process %lld has the log open, or its last writes are still under way; close it "
            "there first, or wait",
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
    writer->payload_bytes_max = wal_shared_payload_bytes(writer);
    writer->next_segment_id = 1;
    writer->next_spare = 1;
    writer->tail.file = -1;
    writer->prepared.file = -1;
    writer->notify_fd = -1;
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

void wal_writer_destroy(struct wal_writer *writer) {
    if (writer->io != NULL) {
        /* It waits for what the kernel has in its hands, and closes the files only then. */
        wal_io_destroy(writer->io);
        wal_flight_free(writer);
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

/*
 * Ask the filesystem by opening LOCK, which is there and is never written past the cache. Where it
 * has no O_DIRECT, or may drop a direct write's sync, frames go through the page cache, aligned as
 * they would have been.
 */
static void choose_direct(struct wal_writer *writer) {
    if (!writer->options.ring.direct_io) return;
    static const size_t page_bytes = WAL_BLOCK_BYTES;
    int file = wal_io_open(writer->io, "LOCK", WAL_IO_READ | WAL_IO_DIRECT);
    int64_t result = file;
    void *page = file >= 0 ? wal_aligned(page_bytes, page_bytes) : NULL;
    if (page != NULL) result = wal_io_read(writer->io, file, 0, page, page_bytes);
    wal_free(page);
    wal_io_close(writer->io, file);
    writer->direct = result != -EINVAL && result != -EOPNOTSUPP;
    if (writer->direct) return;
    writer->info.fallbacks |=
        result == -EINVAL ? WAL_FALLBACK_DIRECT : WAL_FALLBACK_DIRECT_UNSYNCED;
    wal_io_warn(writer->io, WAL_WARN_DIRECT_WRITE);
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
    if (result == 0) {
        choose_direct(writer);
        writer->links = options->ring.backend == WAL_BACKEND_IO_URING;
        result = wal_flight_init(writer);
        if (result < 0) (void)wal_fail(error, result, WAL_NOWHERE, "out of memory");
    }
    pthread_mutex_lock(&writer->mutex);
    if (result == 0) result = recover(writer, report, error);
    if (result == 0) {
        result = wal_background_start(writer);
        if (result < 0) (void)wal_fail_os(error, result, WAL_NOWHERE, "cannot start a thread");
    }
    pthread_mutex_unlock(&writer->mutex);
    if (result < 0) {
        wal_writer_destroy(writer);
        return result;
    }
    *out = writer;
    return 0;
}

int wal_writer_open(const char *path, const wal_options *options, wal_writer **writer,
                    wal_report *report, wal_error *error) {
    struct wal_io *base = NULL, *engine = NULL, *io = NULL;
    wal_options chosen = *options;
    wal_backend_info info;
    unsigned flags = WAL_DIR_WRITER;
    if (options->flags & WAL_CREATE) flags |= WAL_DIR_CREATE;
    if (options->flags & WAL_SHARED_DIR) flags |= WAL_DIR_SHARED;
    int result = check_options(options, error);
    if (result == 0) result = wal_io_posix_open(path, flags, &base, error);
    if (result < 0) return result;
    result = wal_backend_choose(base, &chosen.ring, &engine, &info, error);
    if (result < 0) {
        wal_io_destroy(base);
        return result;
    }
    if (wal_io_fault_wrap(engine, &io) < 0) {
        wal_io_destroy(engine);
        return wal_fail(error, -ENOMEM, WAL_NOWHERE, "out of memory");
    }
    result = wal_writer_open_io(io, &chosen, writer, report, error);
    if (result == 0) wal_backend_tell(engine, &info, *writer);
    return result;
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
    (void)wal_drain(writer, NULL); /* the device may yet change what recovery reads */
    if (writer->flight.broken) result = wal_tell_poison(writer, error); /* for ever: close it */
    if (result == 0) {
        wal_flight_reset(writer);
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
    int result = wal_refuse_forked(writer, error);
    if (result < 0) return result;
    pthread_mutex_lock(&writer->mutex);
    uint64_t asked = writer->reopens;
    wait_alone(writer);
    result = wal_refuse_closed(writer, error);
    if (result == 0 && (writer->reopens == asked || writer->poisoned)) {
        writer->leading = 1;
        writer->rotating = 1;
        result = recover_again(writer, &writer->last_report, error);
        writer->reopens += (uint64_t)(result == 0);
        writer->left_ticket = 0; /* what failed before is no news any more */
        writer->rotating = 0;
        writer->leading = 0;
        wal_announce(writer);
    }
    if (result == 0 && report != NULL) *report = writer->last_report;
    pthread_mutex_unlock(&writer->mutex);
    return result;
}
