/*
 * Room for the next frames: un-sealing the tail, beginning a segment, rotating, filling ahead.
 *
 * All of it is the leader's. While it is at work `rotating` keeps appends away from the tail; the
 * mutex is released during syncs, so that positions and statistics can still be read.
 *
 * The order in a rotation: the successor is prepared (its header and name are durable), INDEX is
 * written, the old segment is synced to its end, its end slot is written, and only then the
 * successor's START, which goes down with the successor's first group. If the power fails in
 * between, the old segment ends the log; if the slot is lost, START overrules it anyway.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "error.h"
#include "hooks.h"
#include "writer.h"

/* ---- is there room? -------------------------------------------------------------------------- */

static int fits_segment(const struct wal_writer *writer, uint64_t need) {
    uint64_t capacity = writer->tail.segment.header.segment_bytes;
    return writer->tail.offset + need + wal_index_reserve(writer, capacity) <= capacity;
}

static int fits_unsynced(const struct wal_writer *writer, uint64_t need) {
    uint64_t unsynced = writer->tail.unsynced_bytes;
    return unsynced == 0 || unsynced + need <= writer->options.unsynced_bytes_max;
}

static int room_now(const struct wal_writer *writer, uint64_t need) {
    return wal_tail_is_live(writer) && fits_segment(writer, need) && fits_unsynced(writer, need) &&
           writer->tail.offset + need <= writer->tail.frontier;
}

int wal_has_room(const struct wal_writer *writer, uint64_t need) {
    return !writer->rotating && room_now(writer, need);
}

/* ---- the next segment ------------------------------------------------------------------------ */

/* A segment for need bytes of frames: the configured size, or one of its own for a giant. */
static uint64_t segment_bytes_for(const struct wal_writer *writer, uint64_t need) {
    uint64_t standard = writer->options.segment_bytes;
    uint64_t start = wal_frame_bytes(writer, sizeof(struct wal_disk_start));
    uint64_t frames = WAL_FRAMES_OFFSET + start + need;
    if (frames + wal_index_reserve(writer, standard) <= standard) return standard;
    uint64_t bytes = wal_round_up(frames, WAL_BLOCK_BYTES);
    while (bytes < frames + wal_index_reserve(writer, bytes)) { /* the INDEX grows with the file */
        bytes = wal_round_up(frames + wal_index_reserve(writer, bytes), WAL_BLOCK_BYTES);
    }
    return bytes;
}

uint64_t wal_shared_payload_bytes(const struct wal_writer *writer) {
    uint64_t share = writer->options.segment_bytes / 4;
    return share < WAL_FRAME_PAYLOAD_MAX ? share : WAL_FRAME_PAYLOAD_MAX;
}

uint64_t wal_writer_record_bytes_max(const wal_writer *writer) {
    uint64_t fits = 0, too_large = writer->options.record_bytes_max + 1;
    while (too_large - fits > 1) {
        uint64_t bytes = fits + (too_large - fits) / 2;
        uint64_t need = wal_frame_bytes(writer, bytes + 8); /* with its CRC */
        *(wal_fits_log(writer, segment_bytes_for(writer, need)) ? &fits : &too_large) = bytes;
    }
    return fits;
}

static void wait_changed(struct wal_writer *writer) {
    pthread_cond_wait(&writer->changed, &writer->mutex);
}

/* Take the prepared segment, or make one now. */
static int next_segment(struct wal_writer *writer, uint64_t need, struct wal_prepared *next,
                        wal_error *error) {
    uint64_t bytes = segment_bytes_for(writer, need);
    while (writer->preparing || writer->prepared.fill_claimed) wait_changed(writer);
    if (bytes == writer->options.segment_bytes && writer->prepared.file >= 0) {
        *next = writer->prepared;
        writer->prepared.file = -1;
        return 0;
    }
    writer->preparing = 1;
    int result = wal_prepare(writer, bytes, next, error);
    writer->preparing = 0;
    wal_announce(writer);
    return result;
}

/* A prepared segment whose id lies below the tail's can never be used: its space comes back. */
static void drop_overtaken(struct wal_writer *writer) {
    struct wal_prepared *prepared = &writer->prepared;
    if (prepared->file < 0) return;
    if (prepared->segment.header.segment_id > writer->tail.segment.header.segment_id) return;
    struct wal_release release = {
        .segment_id = prepared->segment.header.segment_id,
        .file_bytes = prepared->segment.file_bytes,
        .successor_id = writer->tail.segment.header.segment_id,
    };
    memcpy(release.name, prepared->segment.name, sizeof release.name);
    wal_io_close(writer->io, prepared->file);
    prepared->file = -1;
    (void)wal_release_later(writer, &release);
}

static struct wal_disk_start start_of(const struct wal_writer *writer) {
    struct wal_disk_start start = {.base_lsn = writer->next_lsn, .trim_lsn = writer->trim_lsn};
    if (writer->closed_count == 0) return start;
    const struct wal_segment *newest = &writer->closed[writer->closed_count - 1];
    if (writer->bypass_newest) {
        struct wal_disk_start copy = newest->start;
        copy.trim_lsn = writer->trim_lsn;
        assert(copy.base_lsn == writer->next_lsn);
        return copy;
    }
    start.predecessor_id = newest->header.segment_id;
    start.predecessor_last_lsn = newest->last_lsn;
    start.predecessor_end_offset = newest->end_offset;
    start.predecessor_crc = writer->closed_crc;
    return start;
}

/* What the new segment's START sets free, once it is durable: the bypassed tail, the torn end. */
static void release_predecessor(struct wal_writer *writer) {
    if (writer->closed_count == 0) return;
    struct wal_segment *newest = &writer->closed[writer->closed_count - 1];
    struct wal_release release = {
        .segment_id = newest->header.segment_id,
        .file_bytes = newest->file_bytes,
        .successor_id = writer->tail.segment.header.segment_id,
    };
    memcpy(release.name, newest->name, sizeof release.name);
    if (writer->bypass_newest) {
        writer->closed_count--;
        (void)wal_release_later(writer, &release);
    } else if (writer->cut_newest) {
        release.cut_bytes = wal_round_up(newest->end_offset, WAL_BLOCK_BYTES);
        if (release.cut_bytes < newest->file_bytes) (void)wal_release_later(writer, &release);
    }
    writer->bypass_newest = 0;
    writer->cut_newest = 0;
}

static int start_segment(struct wal_writer *writer, const struct wal_prepared *next,
                         wal_error *error) {
    struct wal_tail *tail = &writer->tail;
    struct wal_disk_start start = start_of(writer);
    assert(writer->flight.first == writer->flight.next || WAL_MUTANT(F8_ROTATE_NO_DRAIN));
    writer->claim_lsn = writer->durable_lsn;
    tail->segment = next->segment;
    tail->file = next->file;
    tail->offset = WAL_FRAMES_OFFSET;
    tail->frontier = next->frontier;
    tail->previous_crc = 0;
    tail->needs_unseal = 0;
    tail->unsynced_bytes = 0;
    tail->index_offset = 0;
    wal_index_reset(&tail->index);
    struct iovec part = {.iov_base = &start, .iov_len = sizeof start};
    struct wal_frame_body body = {
        .type = WAL_TYPE_START,
        .flags = writer->options.commit_alignment == WAL_BLOCK_BYTES ? WAL_FLAG_PADDED : 0,
        .parts = &part,
        .part_count = 1,
    };
    int result = wal_tail_put(writer, &body, error);
    if (result == -ENOMEM) result = wal_poison(writer, result, "out of memory", 0, error);
    if (result < 0) return result; /* a tail without a START takes no frames */
    tail->segment.start = start;
    tail->segment.has_start = 1;
    tail->segment.start_crc = tail->previous_crc;
    tail->segment.start_end = tail->offset;
    release_predecessor(writer);
    drop_overtaken(writer);
    return 0;
}

static int begin_segment(struct wal_writer *writer, uint64_t need, wal_error *error) {
    struct wal_prepared next;
    int result = wal_ensure_release_room(writer, 2);
    if (result < 0) return wal_fail(error, result, WAL_NOWHERE, "out of memory");
    result = next_segment(writer, need, &next, error);
    if (result < 0) return result;
    WAL_FAIL_POINT("rotate.prepared");
    return start_segment(writer, &next, error);
}

/* ---- rotation, sealing, un-sealing ----------------------------------------------------------- */

static int ensure_closed_room(struct wal_writer *writer) {
    if (writer->closed_count < writer->closed_room) return 0;
    size_t room = writer->closed_room == 0 ? 16 : writer->closed_room * 2;
    void *more = wal_realloc(writer->closed, room * sizeof *writer->closed);
    if (more == NULL) return -ENOMEM;
    writer->closed = more;
    writer->closed_room = room;
    return 0;
}

static void retire_tail(struct wal_writer *writer) {
    struct wal_tail *tail = &writer->tail;
    assert(writer->closed_count < writer->closed_room);
    tail->segment.end_offset = tail->offset;
    tail->segment.last_lsn = writer->next_lsn - 1;
    tail->segment.is_sealed = 1;
    writer->closed_crc = tail->previous_crc;
    writer->closed[writer->closed_count++] = tail->segment;
    wal_tail_close(writer);
}

static int rotate(struct wal_writer *writer, uint64_t need, wal_error *error) {
    struct wal_prepared next;
    uint64_t index_offset = 0;
    int result = ensure_closed_room(writer);
    if (result == 0) result = wal_ensure_release_room(writer, 2);
    if (result < 0) return wal_fail(error, result, WAL_NOWHERE, "out of memory");
    result = next_segment(writer, need, &next, error);
    if (result < 0) return result;
    while (writer->tail.fill_claimed) wait_changed(writer);
    result = WAL_MUTANT(F8_ROTATE_NO_DRAIN) ? 0 : wal_drain(writer, error);
    if (result == 0) result = wal_tail_put_index(writer, &index_offset, error);
    WAL_FAIL_POINT("rotate.index_written");
    if (!WAL_MUTANT(F8_ROTATE_NO_DRAIN)) {
        if (result == 0) result = wal_sync_tail(writer, error);
        WAL_FAIL_POINT("rotate.synced");
        if (result == 0) {
            uint64_t successor_id = next.segment.header.segment_id;
            result = wal_tail_write_slot(writer, 1, index_offset, successor_id, error);
        }
    }
    if (result < 0 && !writer->poisoned &&
        next.segment.file_bytes == writer->options.segment_bytes) {
        writer->prepared = next; /* out of memory: for the next try */
        return result;
    }
    if (result < 0) { /* reopen finds the prepared segment by its name */
        wal_io_close(writer->io, next.file);
        return result;
    }
    retire_tail(writer);
    WAL_FAIL_POINT("rotate.sealed");
    result = start_segment(writer, &next, error);
    WAL_FAIL_POINT("rotate.started");
    return result;
}

/* The leader's: a sync of the tail's file that publishes nothing. */
static int sync_file(struct wal_writer *writer, const char *failure, uint64_t offset,
                     wal_error *error) {
    int file = writer->tail.file;
    pthread_mutex_unlock(&writer->mutex);
    int result = wal_io_sync(writer->io, file);
    pthread_mutex_lock(&writer->mutex);
    return result < 0 ? wal_poison(writer, result, failure, offset, error) : 0;
}

static int sync_slot(struct wal_writer *writer, wal_error *error) {
    return sync_file(writer, "syncing the end slot failed", WAL_END_SLOT_OFFSET, error);
}

static int unseal(struct wal_writer *writer, wal_error *error) {
    int result = wal_tail_write_slot(writer, 0, writer->tail.index_offset, 0, error);
    if (result == 0) result = sync_slot(writer, error);
    WAL_FAIL_POINT("unseal.synced");
    if (result == 0) writer->tail.needs_unseal = 0;
    return result;
}

int wal_seal(struct wal_writer *writer, wal_error *error) {
    if (writer->poisoned) return wal_tell_poison(writer, error);
    if (!wal_tail_is_live(writer)) return 0; /* nothing was appended: what was sealed still is */
    uint64_t index_offset = 0;
    writer->claim_lsn = writer->durable_lsn;
    while (writer->tail.fill_claimed) wait_changed(writer);
    if (WAL_MUTANT(F9_SEAL_ONE_SYNC)) {
        int slot = wal_tail_write_slot(writer, 1, 0, 0, error);
        if (slot == 0) slot = wal_sync_tail(writer, error);
        writer->tail.needs_unseal = 1; /* or closing would seal for ever */
        return slot;
    }
    int result = wal_drain(writer, error);
    if (result == 0) result = wal_tail_put_index(writer, &index_offset, error);
    if (result == 0) result = wal_sync_tail(writer, error);
    WAL_FAIL_POINT("seal.synced");
    if (result == 0) result = wal_tail_write_slot(writer, 1, index_offset, 0, error);
    if (result == 0) result = sync_slot(writer, error);
    if (result == 0) {
        writer->tail.needs_unseal = 1;
        writer->tail.index_offset = index_offset;
    }
    return result;
}

/* ---- filling ahead --------------------------------------------------------------------------- */

/*
 * Direct: frames sync themselves, and only them. Groups that finish meanwhile are published after
 * this sync, as beside the filler's (background.c): a failed flush is told only once.
 */
static int sync_zeros(struct wal_writer *writer, uint64_t from, wal_error *error) {
    writer->tail.fill_syncing = 1;
    int result = sync_file(writer, "syncing zeros failed", from, error);
    writer->tail.fill_syncing = 0;
    wal_settle(writer);
    return result;
}

/*
 * The writer caught up with the filler. The zeros go down through the tail's own descriptor with
 * the leader's sync: one owner for all syncs, and what was appended so far becomes durable too.
 */
static int fill_inline(struct wal_writer *writer, uint64_t need, wal_error *error) {
    struct wal_tail *tail = &writer->tail;
    while (tail->fill_claimed) {
        wait_changed(writer);
        if (room_now(writer, need)) return 0;
    }
    uint64_t from = tail->frontier;
    uint64_t to = tail->offset + need + wal_fill_step_bytes(tail->offset);
    to = wal_round_up(to, WAL_BLOCK_BYTES);
    if (to > tail->segment.header.segment_bytes) to = tail->segment.header.segment_bytes;
    int file = tail->file;
    pthread_mutex_unlock(&writer->mutex);
    int result = wal_io_write_zeros(writer->io, file, from, to - from);
    pthread_mutex_lock(&writer->mutex);
    if (result == -ENOSPC || result == -EDQUOT) {
        struct wal_place place = {.file = tail->segment.name, .offset = from};
        return wal_fail(error, WAL_E_FULL, place,
                        "no space for the next record; free some space and append again");
    }
    if (result < 0) return wal_poison(writer, result, "zero-filling failed", from, error);
    result = writer->direct ? sync_zeros(writer, from, error) : wal_sync_tail(writer, error);
    if (result == 0) tail->frontier = to;
    return result;
}

/* ---- the step -------------------------------------------------------------------------------- */

static int one_step(struct wal_writer *writer, uint64_t need, wal_error *error) {
    if (writer->poisoned) return wal_tell_poison(writer, error);
    if (writer->tail.file < 0) return begin_segment(writer, need, error);
    if (writer->tail.needs_unseal) return unseal(writer, error);
    if (!fits_segment(writer, need)) return rotate(writer, need, error);
    if (!fits_unsynced(writer, need)) return wal_sync_tail(writer, error);
    return fill_inline(writer, need, error);
}

int wal_make_room(struct wal_writer *writer, uint64_t need, wal_error *error) {
    int result = 0;
    writer->rotating = 1;
    while (result == 0 && !room_now(writer, need)) result = one_step(writer, need, error);
    writer->rotating = 0;
    wal_announce(writer);
    return result;
}
