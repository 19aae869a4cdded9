/*
 * Cursors: records in order, a block at a time.
 *
 * A block is some hundred or thousand records back to back with arrays of their lengths, so that
 * Python crosses into C once for all of them and can cut them with a C iterator. The obvious way
 * to spare a copy is to point to the records where the window has them, headers in between. But
 * the window moves on, a block that is handed over must not, and back to back records of one size
 * are an array as it stands. The copy, from cache to cache, takes a tenth of what reading takes.
 * A segment that a
 * cursor holds is pinned, and after every block its header is read again: another process may have
 * recycled the file under us, and then this block is not to be trusted.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "batch.h"
#include "crc32c.h"
#include "error.h"
#include "hooks.h"
#include "pins.h"
#include "reader.h"

struct wal_cursor {
    struct wal_reader *reader;
    uint64_t to_lsn;
    uint64_t next_lsn; /* of the next record to hand out */
    size_t at;         /* number of the segment in the chain */
    int file;          /* -1: the segment is not open */
    int is_pinned;
    int failed; /* for good */
    struct wal_window window;
    struct wal_walk walk;
    struct wal_spares *spares;
    struct wal_batch *batch; /* where the records of the block are; NULL: it was taken */
    uint64_t *starts;
    uint32_t *lengths;
    uint32_t *crcs;
    size_t room;
};

/* ---- from segment to segment ----------------------------------------------------------------- */

static const struct wal_segment *segment_of(const struct wal_cursor *cursor) {
    return &cursor->reader->chain.segments[cursor->at];
}

static struct wal_place place_of(const struct wal_cursor *cursor) {
    const struct wal_segment *segment = segment_of(cursor);
    return (struct wal_place){.file = segment->name,
                              .segment_id = segment->header.segment_id,
                              .offset = cursor->walk.offset,
                              .lsn = cursor->walk.lsn};
}

static void leave_segment(struct wal_cursor *cursor) {
    if (cursor->file < 0) return;
    const struct wal_disk_segment *header = &segment_of(cursor)->header;
    wal_io_close(cursor->reader->io, cursor->file);
    if (cursor->is_pinned) wal_unpin(header->log_uuid, header->segment_id);
    cursor->is_pinned = 0;
    cursor->file = -1;
}

/* Set the walk to the frame at offset, whose link we have no way to check. 1: done. */
static int jump(struct wal_cursor *cursor, uint64_t offset) {
    const char *at = NULL;
    struct wal_disk_frame frame;
    int64_t got = wal_window_get(&cursor->window, offset, WAL_FRAME_HEADER_BYTES, &at);
    if (got < WAL_FRAME_HEADER_BYTES) return 0;
    if (wal_frame_check_header(at, offset, &cursor->walk.context, &frame) != WAL_FRAME_OK) return 0;
    cursor->walk.offset = offset;
    cursor->walk.lsn = frame.first_lsn;
    cursor->walk.previous_crc = frame.previous_crc;
    return 1;
}

/* The last indexed frame at or before lsn; 0 where there is no usable INDEX. */
static uint64_t look_up(struct wal_cursor *cursor, uint64_t lsn) {
    const struct wal_segment *segment = segment_of(cursor);
    struct wal_disk_index_entry entry;
    const char *at = NULL;
    if (!segment->has_slot || segment->slot.index_offset >= cursor->walk.limit) return 0;
    uint64_t offset = segment->slot.index_offset;
    if (offset < segment->start_end || !jump(cursor, offset)) return 0;
    if (wal_walk_next(&cursor->walk) != WAL_STOP_NONE) return 0;
    const struct wal_disk_frame *frame = &cursor->walk.frame;
    at = cursor->walk.payload;
    if (frame->type != WAL_TYPE_INDEX || at == NULL) return 0;
    if (!wal_index_find(at, frame->payload_bytes, lsn, &entry)) return 0;
    if (!jump(cursor, entry.offset) || cursor->walk.lsn != entry.first_lsn) return 0;
    return entry.offset;
}

/* Go near lsn: by the INDEX, then from header to header. What is passed over is not verified. */
static void seek(struct wal_cursor *cursor, uint64_t lsn) {
    struct wal_walk begin = cursor->walk;
    uint64_t offset = look_up(cursor, lsn);
    if (offset < begin.offset || !jump(cursor, offset)) cursor->walk = begin;
    for (;;) {
        const char *at = NULL;
        struct wal_disk_frame frame;
        uint64_t here = cursor->walk.offset;
        if (here >= cursor->walk.limit) return;
        int64_t got = wal_window_get(&cursor->window, here, WAL_FRAME_HEADER_BYTES, &at);
        if (got < WAL_FRAME_HEADER_BYTES) return;
        if (wal_frame_check_header(at, here, &cursor->walk.context, &frame) != WAL_FRAME_OK) return;
        if (frame.first_lsn != cursor->walk.lsn) return;
        if (frame.first_lsn + frame.record_count > lsn) return;
        cursor->walk.offset = wal_frame_end(&frame, cursor->walk.context.alignment);
        cursor->walk.lsn += frame.record_count;
        cursor->walk.previous_crc = frame.header_crc;
    }
}

/* The end that recovery found is where the damage begins: SALVAGE looks at what lies behind it. */
static int salvages_behind_end(const struct wal_cursor *cursor) {
    const struct wal_chain *chain = &cursor->reader->chain;
    return cursor->reader->mode == WAL_RECOVERY_SALVAGE && cursor->at + 1 == chain->count &&
           wal_verdict_of(chain->end.decision) >= WAL_VERDICT_TORN;
}

static int enter_segment(struct wal_cursor *cursor, wal_error *error) {
    const struct wal_segment *segment = segment_of(cursor);
    const struct wal_disk_segment *header = &segment->header;
    cursor->is_pinned = wal_pin(header->log_uuid, header->segment_id);
    cursor->file = wal_reader_open_segment(cursor->reader, segment, error);
    if (cursor->file < 0) {
        int result = cursor->file;
        if (cursor->is_pinned) wal_unpin(header->log_uuid, header->segment_id);
        cursor->is_pinned = 0;
        cursor->file = -1;
        return result;
    }
    cursor->window.file = cursor->file;
    wal_window_forget(&cursor->window);
    wal_walk_begin(&cursor->walk, &cursor->window, segment);
    cursor->walk.limit = segment->end_offset;
    if (salvages_behind_end(cursor)) cursor->walk.limit = UINT64_MAX;
    if (cursor->next_lsn > segment->start.base_lsn) seek(cursor, cursor->next_lsn);
    return 0;
}

static size_t find_segment(const struct wal_chain *chain, uint64_t lsn) {
    size_t at = 0;
    while (at + 1 < chain->count && chain->segments[at + 1].start.base_lsn <= lsn) at++;
    return at;
}

int wal_cursor_open(wal_reader *reader, uint64_t from_lsn, uint64_t to_lsn, wal_cursor **out,
                    wal_error *error) {
    uint64_t first = wal_chain_first_lsn(&reader->chain);
    if (from_lsn != 0 && from_lsn < first) {
        return wal_fail(error, WAL_E_TRIMMED, (struct wal_place){.lsn = from_lsn},
                        "LSN %" PRIu64 " was trimmed; the log begins at LSN %" PRIu64, from_lsn,
                        first);
    }
    struct wal_cursor *cursor = wal_calloc(1, sizeof *cursor);
    if (cursor != NULL) cursor->spares = wal_spares_new();
    if (cursor == NULL || cursor->spares == NULL ||
        wal_window_open(&cursor->window, reader->io, -1) < 0) {
        if (cursor != NULL) wal_spares_leave(cursor->spares);
        wal_free(cursor);
        return wal_fail(error, -ENOMEM, WAL_NOWHERE, "out of memory");
    }
    cursor->reader = reader;
    atomic_fetch_add(&reader->users, 1);
    cursor->file = -1;
    cursor->window.step_bytes = WAL_WINDOW_STEP_BYTES;
    cursor->next_lsn = from_lsn != 0 ? from_lsn : first;
    cursor->to_lsn = to_lsn != 0 ? to_lsn : UINT64_MAX;
    cursor->at = find_segment(&reader->chain, cursor->next_lsn);
    *out = cursor;
    return 0;
}

void wal_cursor_close(wal_cursor *cursor) {
    if (cursor == NULL) return;
    leave_segment(cursor);
    wal_window_close(&cursor->window);
    wal_batch_free(cursor->batch);
    wal_spares_leave(cursor->spares);
    wal_free(cursor->starts);
    wal_free(cursor->lengths);
    wal_free(cursor->crcs);
    wal_reader_close(cursor->reader);
    wal_free(cursor);
}

/* ---- damage ---------------------------------------------------------------------------------- */

static int tell_damage(struct wal_cursor *cursor, wal_error *error) {
    struct wal_place place = place_of(cursor);
    int changed = wal_segment_changed(cursor->reader->io, cursor->file, segment_of(cursor));
    if (changed > 0) {
        return wal_fail(error, WAL_E_TRIMMED, place, "the segment was trimmed while it was read");
    }
    return wal_fail(error, WAL_E_CORRUPT, place,
                    "damaged at offset %" PRIu64 ", where LSN %" PRIu64
                    " belongs, before the end that the log records for this segment",
                    place.offset, place.lsn);
}

/*
 * SALVAGE: go on at the next header-valid frame that holds later records. 1: found, 0: none before
 * the limit. Holes are passed over; so is a block that the disk cannot read.
 */
static int resynchronise(struct wal_cursor *cursor) {
    struct wal_walk *walk = &cursor->walk;
    uint64_t end =
        walk->context.segment_bytes < walk->limit ? walk->context.segment_bytes : walk->limit;
    uint64_t offset = wal_round_up(walk->offset + 1, WAL_FRAME_ALIGNMENT);
    while (offset + WAL_FRAME_HEADER_BYTES <= end) {
        const char *at = NULL;
        struct wal_disk_frame frame;
        uint64_t data_end;
        int64_t data = wal_io_next_data(cursor->reader->io, cursor->file, offset, &data_end);
        uint64_t from = data > 0 ? (uint64_t)data / WAL_FRAME_ALIGNMENT * WAL_FRAME_ALIGNMENT : 0;
        if (from > offset) {
            offset = from;
            continue;
        }
        uint64_t want = WAL_FRAME_PAYLOAD_MAX;
        int64_t got = wal_window_get(&cursor->window, offset, want, &at);
        if (got < 0) { /* a block that cannot be read is somewhere in it: feel the way */
            want = WAL_FRAME_HEADER_BYTES;
            got = wal_window_get(&cursor->window, offset, want, &at);
        }
        if (got < 0) {
            offset = wal_round_up(offset + 1, WAL_BLOCK_BYTES);
            continue;
        }
        for (int64_t i = 0; i + WAL_FRAME_HEADER_BYTES <= got; i += WAL_FRAME_ALIGNMENT) {
            uint64_t here = offset + (uint64_t)i;
            if (wal_frame_check_header(at + i, here, &walk->context, &frame) != WAL_FRAME_OK) {
                continue;
            }
            if (frame.first_lsn >= walk->lsn) return jump(cursor, here);
        }
        if ((uint64_t)got < want) return 0;
        offset += want - WAL_FRAME_HEADER_BYTES + WAL_FRAME_ALIGNMENT;
    }
    return 0;
}

/* ---- blocks ---------------------------------------------------------------------------------- */

static int ensure_room(struct wal_cursor *cursor, size_t records) {
    if (records <= cursor->room) return 0;
    size_t room = cursor->room * 2 > records ? cursor->room * 2 : records;
    uint64_t *starts = wal_realloc(cursor->starts, room * sizeof *starts);
    if (starts != NULL) cursor->starts = starts;
    uint32_t *lengths =
        starts != NULL ? wal_realloc(cursor->lengths, room * sizeof *lengths) : NULL;
    if (lengths != NULL) cursor->lengths = lengths;
    uint32_t *crcs = lengths != NULL ? wal_realloc(cursor->crcs, room * sizeof *crcs) : NULL;
    if (crcs == NULL) return -ENOMEM;
    cursor->crcs = crcs;
    cursor->room = room;
    return 0;
}

/* Have memory for so many records of so many bytes; what the last block left there may go. */
static int ensure_batch(struct wal_cursor *cursor, uint64_t data_bytes, uint64_t records) {
    if (cursor->batch != NULL) {
        if (wal_batch_is_fit(cursor->batch, data_bytes, records)) return 0;
        wal_batch_free(cursor->batch);
    }
    cursor->batch = wal_batch_new(cursor->spares, data_bytes, records);
    return cursor->batch != NULL ? 0 : -ENOMEM;
}

/*
 * A record larger than the window: the walk has checked its CRC, now it is loaded whole, to where
 * its block has it.
 */
static int load_large(struct wal_cursor *cursor, wal_error *error) {
    const struct wal_disk_frame *frame = &cursor->walk.frame;
    struct wal_place place = place_of(cursor);
    if (ensure_batch(cursor, frame->payload_bytes, frame->record_count) < 0) {
        return wal_fail(error, -ENOMEM, place, "out of memory for a record of %u bytes",
                        frame->payload_bytes);
    }
    char *bytes = cursor->batch->bytes;
    uint64_t offset = frame->own_offset + WAL_FRAME_HEADER_BYTES;
    int64_t got =
        wal_io_read(cursor->reader->io, cursor->file, offset, bytes, frame->payload_bytes);
    if (got < 0) return wal_fail_os(error, (int)got, place, "cannot read the segment");
    int whole = got == (int64_t)frame->payload_bytes &&
                wal_crc32c(0, bytes, frame->payload_bytes) == frame->payload_crc &&
                wal_frame_check_records(frame, bytes);
    return whole ? 0 : tell_damage(cursor, error);
}

/* Which records of the walk's frame are wanted: from *first up to, not with, *end. */
static void wanted_records(const struct wal_cursor *cursor, uint32_t *first, uint32_t *end) {
    const struct wal_disk_frame *frame = &cursor->walk.frame;
    uint64_t last = segment_of(cursor)->last_lsn;
    if (salvages_behind_end(cursor)) last = UINT64_MAX;
    if (cursor->to_lsn < last) last = cursor->to_lsn;
    uint64_t below = cursor->next_lsn > frame->first_lsn ? cursor->next_lsn - frame->first_lsn : 0;
    uint64_t count = last >= frame->first_lsn ? last - frame->first_lsn + 1 : 0;
    *end = count < frame->record_count ? (uint32_t)count : frame->record_count;
    *first = below < *end ? (uint32_t)below : *end;
}

static uint32_t end_of_record(const char *ends, uint32_t record) {
    uint32_t end;
    memcpy(&end, ends + (uint64_t)record * 4, sizeof end);
    return end;
}

/* Describe the records first..end of the walk's frame, which go behind what the block holds. */
static void describe(struct wal_cursor *cursor, const char *payload, uint32_t first, uint32_t end,
                     wal_block *block) {
    const struct wal_disk_frame *frame = &cursor->walk.frame;
    const char *ends = payload + wal_frame_record_bytes(frame);
    uint32_t from = first > 0 ? end_of_record(ends, first - 1) : 0;
    uint64_t base = block->data_bytes;
    uint64_t *starts = cursor->starts + block->count;
    uint32_t *lengths = cursor->lengths + block->count;
    for (uint32_t i = first, at = from; i < end; i++) {
        uint32_t record_end = end_of_record(ends, i);
        uint32_t length = record_end - at;
        *starts++ = base + (at - from);
        *lengths++ = length;
        if (length < block->length_min) block->length_min = length;
        if (length > block->length_max) block->length_max = length;
        at = record_end;
    }
    if (frame->flags & WAL_FLAG_RECORD_CRC) {
        const char *crcs = ends + ((uint64_t)frame->record_count + first) * 4;
        memcpy(cursor->crcs + block->count, crcs, (uint64_t)(end - first) * 4);
    }
}

/* Add the wanted records of the walk's frame to the block; a large one is where it belongs. */
static int take_frame(struct wal_cursor *cursor, wal_block *block) {
    const struct wal_disk_frame *frame = &cursor->walk.frame;
    int is_large = cursor->walk.payload == NULL;
    const char *payload = is_large ? cursor->batch->bytes : cursor->walk.payload;
    const char *ends = payload + wal_frame_record_bytes(frame);
    uint32_t first, end;
    wanted_records(cursor, &first, &end);
    if (first == end) return 0;
    if (ensure_room(cursor, (size_t)block->count + (end - first)) < 0) return -ENOMEM;
    uint32_t from = first > 0 ? end_of_record(ends, first - 1) : 0;
    uint32_t bytes = end_of_record(ends, end - 1) - from;
    if (block->count == 0) {
        if (!is_large && ensure_batch(cursor, bytes, end - first) < 0) return -ENOMEM;
        block->first_lsn = frame->first_lsn + first;
        block->length_min = UINT32_MAX;
    }
    describe(cursor, payload, first, end, block);
    if (!is_large) memcpy(cursor->batch->bytes + block->data_bytes, payload + from, bytes);
    block->data_bytes += bytes;
    block->count += end - first;
    cursor->next_lsn = block->first_lsn + block->count;
    return 0;
}

/* Does the next frame lie whole in what the window holds, and go into the same block? */
static int extends_block(struct wal_cursor *cursor, const wal_block *block, int has_crcs) {
    const struct wal_window *window = &cursor->window;
    uint64_t offset = cursor->walk.offset;
    uint64_t end = window->begin + window->filled;
    struct wal_disk_frame frame;
    if (offset >= cursor->walk.limit) return 0;
    if (offset < window->begin || offset + WAL_FRAME_HEADER_BYTES > end) return 0;
    const char *at = window->bytes + (offset - window->begin);
    if (wal_frame_check_header(at, offset, &cursor->walk.context, &frame) != WAL_FRAME_OK) return 0;
    if (frame.first_lsn != cursor->next_lsn || frame.type != WAL_TYPE_DATA) return 0;
    if (((frame.flags & WAL_FLAG_RECORD_CRC) != 0) != has_crcs) return 0;
    if (block->count + frame.record_count > WAL_BATCH_RECORDS_MAX) return 0;
    if (block->data_bytes + wal_frame_record_bytes(&frame) > WAL_BATCH_DATA_BYTES) return 0;
    return offset + WAL_FRAME_HEADER_BYTES + frame.payload_bytes <= end;
}

/* Frames of few records go into one block, so that it is worth its crossing into Python. */
static int gather_frames(struct wal_cursor *cursor, int has_crcs, wal_block *block) {
    int result = take_frame(cursor, block);
    while (result == 0 && block->count > 0 && extends_block(cursor, block, has_crcs)) {
        if (wal_walk_next(&cursor->walk) != WAL_STOP_NONE) break; /* the next call tells */
        result = take_frame(cursor, block);
    }
    return result;
}

static int fill_block(struct wal_cursor *cursor, wal_block *block, wal_error *error) {
    const struct wal_disk_frame *frame = &cursor->walk.frame;
    int has_crcs = (frame->flags & WAL_FLAG_RECORD_CRC) != 0;
    int result;
    if (cursor->walk.payload == NULL) {
        result = load_large(cursor, error);
        if (result < 0) {
            cursor->failed = result == -ENOMEM;
            return result;
        }
        result = take_frame(cursor, block);
    } else {
        result = gather_frames(cursor, has_crcs, block);
    }
    if (result < 0) {
        cursor->failed = 1; /* the walk has moved on: to go on would be to skip records */
        return wal_fail(error, result, place_of(cursor), "out of memory; open a new cursor");
    }
    if (block->count == 0) return 0;
    block->data = cursor->batch->bytes;
    block->starts = cursor->starts;
    block->lengths = cursor->lengths;
    block->crcs = has_crcs ? cursor->crcs : NULL;
    return 0;
}

/* The end of a segment was reached in good order: 1 go on in the next one, 0 the log ends here. */
static int end_of_segment(struct wal_cursor *cursor, wal_error *error) {
    const struct wal_chain *chain = &cursor->reader->chain;
    if (cursor->at + 1 < chain->count) {
        leave_segment(cursor);
        cursor->at++;
        return 1;
    }
    if (cursor->reader->mode == WAL_RECOVERY_SALVAGE) return 0;
    return wal_chain_is_damaged(chain) ? wal_chain_damage(chain, error) : 0;
}

static int stopped(struct wal_cursor *cursor, int stop, wal_error *error) {
    int salvages = cursor->reader->mode == WAL_RECOVERY_SALVAGE;
    if (stop < 0 && (stop != -EIO || !salvages)) {
        return wal_fail_os(error, stop, place_of(cursor), "cannot read the segment");
    }
    if (stop == WAL_STOP_LIMIT &&
        (salvages || wal_ends_as_recorded(&cursor->reader->chain, cursor->at, &cursor->walk))) {
        return end_of_segment(cursor, error);
    }
    if (!salvages) return tell_damage(cursor, error);
    return resynchronise(cursor) ? 1 : end_of_segment(cursor, error);
}

static int still_the_same(struct wal_cursor *cursor, wal_error *error) {
    int changed = wal_segment_changed(cursor->reader->io, cursor->file, segment_of(cursor));
    if (changed == 0) return 1;
    if (changed < 0) {
        return wal_fail_os(error, changed, place_of(cursor), "cannot read the segment header");
    }
    return wal_fail(error, WAL_E_TRIMMED, place_of(cursor),
                    "the segment was trimmed while it was read");
}

int wal_cursor_next(wal_cursor *cursor, wal_block *block, wal_error *error) {
    memset(block, 0, sizeof *block);
    const struct wal_chain *chain = &cursor->reader->chain;
    if (chain->count == 0) {
        return wal_chain_is_damaged(chain) ? wal_chain_damage(chain, error) : 0;
    }
    if (cursor->failed) return wal_fail(error, -ENOMEM, place_of(cursor), "this cursor failed");
    for (;;) {
        if (cursor->next_lsn > cursor->to_lsn) return 0;
        int result = cursor->file < 0 ? enter_segment(cursor, error) : 0;
        if (result < 0) return result;
        int stop = wal_walk_next(&cursor->walk);
        if (stop != WAL_STOP_NONE) {
            result = stopped(cursor, stop, error);
            if (result <= 0) return result;
            continue;
        }
        if (cursor->walk.frame.type != WAL_TYPE_DATA) continue;
        result = fill_block(cursor, block, error);
        if (result < 0) return result;
        if (block->count > 0) return still_the_same(cursor, error);
    }
}

int wal_cursor_take(wal_cursor *cursor, wal_block *block, wal_error *error) {
    int result = wal_cursor_next(cursor, block, error);
    if (result <= 0) return result;
    char *tables = cursor->batch->bytes + wal_batch_tables(block->data_bytes);
    uint64_t *starts = (uint64_t *)(void *)tables;
    uint32_t *lengths = (uint32_t *)(starts + block->count);
    uint32_t *crcs = block->crcs != NULL ? lengths + block->count : NULL;
    memcpy(starts, block->starts, block->count * sizeof *starts);
    memcpy(lengths, block->lengths, block->count * sizeof *lengths);
    if (crcs != NULL) memcpy(crcs, block->crcs, block->count * sizeof *crcs);
    block->starts = starts;
    block->lengths = lengths;
    block->crcs = crcs;
    cursor->batch = NULL; /* now the caller's */
    return 1;
}
