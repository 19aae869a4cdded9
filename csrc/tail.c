/* Putting frames, the INDEX and the end slot into the tail. The writer's mutex is held. */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "crc32c.h"
#include "error.h"
#include "hooks.h"
#include "writer.h"

static const char zeros[WAL_BLOCK_BYTES];

uint64_t wal_frame_bytes(const struct wal_writer *writer, uint64_t payload_bytes) {
    return wal_round_up(WAL_FRAME_HEADER_BYTES + payload_bytes, writer->options.commit_alignment);
}

uint64_t wal_index_reserve(const struct wal_writer *writer, uint64_t segment_bytes) {
    return wal_frame_bytes(writer, wal_index_payload_bytes_max(segment_bytes));
}

static uint32_t milliseconds_since(const struct wal_segment *segment, uint64_t now_us) {
    uint64_t created_us = segment->header.created_us;
    uint64_t passed = now_us > created_us ? (now_us - created_us) / 1000 : 0; /* clocks step back */
    return passed < UINT32_MAX ? (uint32_t)passed : UINT32_MAX;
}

int wal_tail_is_live(const struct wal_writer *writer) {
    return writer->tail.file >= 0 && !writer->tail.needs_unseal;
}

/* ---- runs ------------------------------------------------------------------------------------ */

int wal_tail_open_run(struct wal_writer *writer, uint64_t bytes) {
    struct wal_tail *tail = &writer->tail;
    assert(tail->run.data == NULL);
    int result = wal_flight_reserve(writer);
    if (result == 0) result = wal_arena_take(&writer->flight.arena, (size_t)bytes, &tail->run);
    if (result < 0) tail->run.data = NULL;
    tail->run_offset = tail->offset;
    return result;
}

int wal_tail_send(struct wal_writer *writer, enum wal_io_kind kind, wal_error *error) {
    struct wal_tail *tail = &writer->tail;
    struct wal_run run = tail->run;
    uint64_t bytes = tail->offset - tail->run_offset;
    assert(run.data != NULL && bytes <= run.bytes);
    tail->run.data = NULL;
    return wal_begin_write(writer, kind, &run, tail->run_offset, bytes, error);
}

static void copy_to_run(struct wal_tail *tail, const struct iovec *parts, int count,
                        uint64_t bytes) {
    size_t at = (size_t)(tail->offset - tail->run_offset);
    assert(at + bytes <= tail->run.bytes);
    for (int i = 0; i < count; i++) {
        if (parts[i].iov_len > 0) memcpy(tail->run.data + at, parts[i].iov_base, parts[i].iov_len);
        at += parts[i].iov_len;
    }
}

/* ---- frames ---------------------------------------------------------------------------------- */

/* Into the run that is open, or through the page cache. */
static int hand_over(struct wal_writer *writer, const struct iovec *parts, int count,
                     uint64_t bytes, wal_error *error) {
    struct wal_tail *tail = &writer->tail;
    if (tail->run.data != NULL) {
        copy_to_run(tail, parts, count, bytes);
        return 0;
    }
    if (writer->flight.first != writer->flight.next && writer->links) {
        int result = wal_hand_over_flying(writer, error);
        if (result < 0) return result;
    }
    int result = wal_io_write(writer->io, tail->file, tail->offset, parts, count);
    return result < 0 ? wal_poison(writer, result, "a write failed", tail->offset, error) : 0;
}

static struct wal_disk_frame header_of(struct wal_writer *writer,
                                       const struct wal_frame_body *body) {
    const struct wal_tail *tail = &writer->tail;
    uint64_t before_this = writer->next_lsn - 1;
    struct wal_disk_frame frame = {
        .first_lsn = writer->next_lsn,
        .record_count = body->record_count,
        .type = body->type,
        .flags = body->flags,
        .own_offset = tail->offset,
        .durable_lsn = writer->claim_lsn < before_this ? writer->claim_lsn : before_this,
        .previous_crc = tail->previous_crc,
        .milliseconds = milliseconds_since(&tail->segment, wal_clock_us(writer)),
    };
    return frame;
}

static void move_on(struct wal_writer *writer, const struct wal_disk_frame *frame, uint64_t end,
                    uint64_t used) {
    struct wal_tail *tail = &writer->tail;
    if (frame->type == WAL_TYPE_DATA) wal_index_note(&tail->index, frame->first_lsn, tail->offset);
    tail->unsynced_bytes += end - tail->offset;
    tail->offset = end;
    if (end > tail->frontier) tail->frontier = wal_round_up(end, WAL_BLOCK_BYTES);
    tail->previous_crc = frame->header_crc;
    writer->next_lsn += frame->record_count;
    writer->stats.records_appended += frame->record_count;
    writer->stats.padding_bytes += end - used;
    writer->idle_mark_due = 0;
}

int wal_tail_put(struct wal_writer *writer, const struct wal_frame_body *body, wal_error *error) {
    struct wal_tail *tail = &writer->tail;
    struct wal_disk_frame frame = header_of(writer, body);
    struct iovec parts[5];
    assert(body->part_count <= 3);
    for (int i = 0; i < body->part_count; i++) {
        parts[1 + i] = body->parts[i];
        frame.payload_bytes += (uint32_t)body->parts[i].iov_len;
        frame.payload_crc =
            wal_crc32c(frame.payload_crc, body->parts[i].iov_base, body->parts[i].iov_len);
    }
    wal_frame_finish(&frame, tail->segment.header.salt);
    uint64_t end = wal_frame_end(&frame, writer->options.commit_alignment);
    uint64_t used = tail->offset + WAL_FRAME_HEADER_BYTES + frame.payload_bytes;
    assert(end <= tail->segment.header.segment_bytes && end - used < WAL_BLOCK_BYTES);
    if (writer->direct && tail->run.data == NULL) {
        int result = wal_tail_open_run(writer, end - tail->offset);
        if (result < 0) return wal_fail(error, result, WAL_NOWHERE, "out of memory");
    }
    parts[0] = (struct iovec){.iov_base = &frame, .iov_len = sizeof frame};
    parts[1 + body->part_count] =
        (struct iovec){.iov_base = (void *)(uintptr_t)zeros, .iov_len = end - used};
    int result = hand_over(writer, parts, body->part_count + 2, end - tail->offset, error);
    if (result < 0) return result;
    move_on(writer, &frame, end, used);
    int is_end_of_group = writer->direct && (body->flags & WAL_FLAG_PADDED) != 0;
    return is_end_of_group ? wal_tail_send(writer, WAL_IO_WRITE_DURABLE, error) : 0;
}

/* INDEX is for speed: without memory or entries the segment goes without one. */
int wal_tail_put_index(struct wal_writer *writer, uint64_t *index_offset, wal_error *error) {
    struct wal_tail *tail = &writer->tail;
    *index_offset = 0;
    if (tail->index.failed || tail->index.count == 0) return 0;
    uint64_t bytes = wal_index_payload_bytes(tail->index.count);
    if (bytes > tail->segment.header.payload_bytes_max) return 0;
    if (tail->offset + wal_frame_bytes(writer, bytes) > tail->segment.header.segment_bytes)
        return 0;
    void *payload = wal_malloc(bytes);
    if (payload == NULL) return 0;
    if (writer->direct && wal_tail_open_run(writer, wal_frame_bytes(writer, bytes)) < 0) {
        wal_free(payload);
        return 0;
    }
    wal_index_encode(&tail->index, payload);
    struct iovec part = {.iov_base = payload, .iov_len = bytes};
    struct wal_frame_body body = {
        .type = WAL_TYPE_INDEX,
        .flags = writer->options.commit_alignment == WAL_BLOCK_BYTES ? WAL_FLAG_PADDED : 0,
        .parts = &part,
        .part_count = 1,
    };
    *index_offset = tail->offset;
    int result = wal_tail_put(writer, &body, error);
    wal_free(payload);
    return result;
}

int wal_tail_put_slot(struct wal_writer *writer, int sealed, uint64_t index_offset,
                      uint64_t successor_id) {
    struct wal_tail *tail = &writer->tail;
    struct wal_disk_end slot = {
        .sealed = (uint32_t)sealed,
        .last_lsn = writer->next_lsn - 1,
        .end_offset = tail->offset,
        .index_offset = index_offset,
        .segment_id = tail->segment.header.segment_id,
        .successor_id = successor_id,
    };
    wal_end_encode(&slot, tail->segment.header.salt);
    int file = tail->file;
    pthread_mutex_unlock(&writer->mutex); /* with direct I/O it waits for the device */
    int result = wal_write_block(writer->io, file, WAL_END_SLOT_OFFSET, &slot, sizeof slot);
    pthread_mutex_lock(&writer->mutex);
    if (result < 0) return result;
    tail->segment.slot = slot;
    tail->segment.has_slot = 1;
    return 0;
}

int wal_tail_write_slot(struct wal_writer *writer, int sealed, uint64_t index_offset,
                        uint64_t successor_id, wal_error *error) {
    int result = wal_tail_put_slot(writer, sealed, index_offset, successor_id);
    if (result == 0) return 0;
    return wal_poison(writer, result, "writing the end slot failed", WAL_END_SLOT_OFFSET, error);
}

void wal_tail_close(struct wal_writer *writer) {
    wal_io_close(writer->io, writer->tail.file);
    writer->tail.file = -1;
    writer->tail.needs_unseal = 0;
    writer->tail.unsynced_bytes = 0;
    wal_index_reset(&writer->tail.index);
}
