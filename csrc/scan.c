/* Windows, walks, and the look behind a tear; scan.h says what they promise. */
#include "scan.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "crc32c.h"
#include "hooks.h"

/* ---- the window ------------------------------------------------------------------------------ */

int wal_window_open(struct wal_window *window, struct wal_io *io, int file) {
    *window = (struct wal_window){.io = io, .file = file, .step_bytes = WAL_WINDOW_BYTES};
    window->bytes = wal_aligned(WAL_BLOCK_BYTES, WAL_WINDOW_BYTES);
    return window->bytes == NULL ? -ENOMEM : 0;
}

void wal_window_close(struct wal_window *window) {
    wal_free(window->bytes);
    window->bytes = NULL;
}

void wal_window_forget(struct wal_window *window) { window->filled = 0; }

/* Where shall the file's bytes from begin on go? Keep what the buffer holds, if it is near. */
static void make_way(struct wal_window *window, uint64_t begin, uint64_t want) {
    uint64_t end = window->begin + window->filled;
    if (begin < window->begin || begin > end || end % WAL_BLOCK_BYTES != 0) {
        window->begin = begin;
        window->filled = 0;
    } else if (begin + want + WAL_BLOCK_BYTES > window->begin + WAL_WINDOW_BYTES) {
        window->filled = end - begin;
        memmove(window->bytes, window->bytes + (begin - window->begin), window->filled);
        window->begin = begin;
    }
}

int64_t wal_window_get(struct wal_window *window, uint64_t offset, uint64_t want, const char **at) {
    assert(want <= WAL_FRAME_PAYLOAD_MAX + WAL_BLOCK_BYTES);
    uint64_t end = window->begin + window->filled;
    if (offset < window->begin || offset + want > end) {
        make_way(window, offset / WAL_BLOCK_BYTES * WAL_BLOCK_BYTES, want);
        end = window->begin + window->filled;
        uint64_t room = WAL_WINDOW_BYTES - window->filled;
        uint64_t bytes = wal_round_up(offset + want, WAL_BLOCK_BYTES) - end;
        if (bytes < window->step_bytes) bytes = window->step_bytes;
        if (bytes > room) bytes = room;
        char *into = window->bytes + window->filled;
        int64_t got = wal_io_read(window->io, window->file, end, into, bytes);
        uint64_t needed = wal_round_up(offset + want, WAL_BLOCK_BYTES) - end;
        if (got < 0 && needed < bytes) { /* what cannot be read may lie behind what is asked for */
            got = wal_io_read(window->io, window->file, end, into, needed);
        }
        if (got < 0) {
            window->filled = 0;
            return got;
        }
        window->filled += (uint64_t)got;
        window->read_bytes += (uint64_t)got;
        end = window->begin + window->filled;
    }
    if (offset >= end) return 0;
    *at = window->bytes + (offset - window->begin);
    return (int64_t)(end - offset < want ? end - offset : want);
}

/* ---- the walk -------------------------------------------------------------------------------- */

void wal_walk_begin(struct wal_walk *walk, struct wal_window *window,
                    const struct wal_segment *segment) {
    *walk = (struct wal_walk){
        .window = window,
        .context = wal_segment_context(segment),
        .offset = WAL_FRAMES_OFFSET,
        .lsn = segment->start.base_lsn,
        .limit = UINT64_MAX,
    };
}

/* Continue *crc over the file's bytes from..to, a piece at a time. 1, 0 (too short) or negative. */
static int crc_of_range(struct wal_walk *walk, uint64_t from, uint64_t to, uint32_t *crc) {
    while (from < to) {
        const char *piece = NULL;
        uint64_t want = to - from < WAL_FRAME_PAYLOAD_MAX ? to - from : WAL_FRAME_PAYLOAD_MAX;
        int64_t got = wal_window_get(walk->window, from, want, &piece);
        if (got < 0) return (int)got;
        if (got == 0) return 0;
        *crc = wal_crc32c(*crc, piece, (size_t)got);
        from += (uint64_t)got;
    }
    return 1;
}

/* A payload that is larger than the window holds one record: check it and its own CRC in pieces. */
static int check_large_payload(struct wal_walk *walk) {
    const struct wal_disk_frame *frame = &walk->frame;
    int is_data = frame->type == WAL_TYPE_DATA;
    uint64_t begin = walk->offset + WAL_FRAME_HEADER_BYTES;
    uint64_t end = begin + frame->payload_bytes;
    uint64_t tables = is_data ? begin + wal_frame_record_bytes(frame) : end;
    uint32_t crc = 0;
    walk->payload = NULL;
    walk->large_is_malformed = 0;
    int whole = crc_of_range(walk, begin, tables, &crc);
    uint32_t record_crc = crc;
    if (whole == 1) whole = crc_of_range(walk, tables, end, &crc);
    if (whole != 1 || crc != frame->payload_crc) return whole < 0 ? whole : 0;
    if (!is_data || !(frame->flags & WAL_FLAG_RECORD_CRC)) return 1;
    const char *at = NULL;
    uint32_t stored;
    int64_t got = wal_window_get(walk->window, end - sizeof stored, sizeof stored, &at);
    if (got < (int64_t)sizeof stored) return got < 0 ? (int)got : 0;
    memcpy(&stored, at, sizeof stored);
    walk->large_is_malformed = stored != record_crc;
    return 1;
}

/* Payload CRC of the frame whose header has been checked. 1, 0 or a negative code. */
static int check_payload(struct wal_walk *walk) {
    if (walk->frame.payload_bytes > WAL_FRAME_PAYLOAD_MAX && !WAL_MUTANT(M10_LENGTH_TRUSTED)) {
        return check_large_payload(walk);
    }
    uint64_t whole = WAL_FRAME_HEADER_BYTES + walk->frame.payload_bytes;
    const char *at = NULL;
    int64_t got = WAL_MUTANT(M10_LENGTH_TRUSTED)
                      ? wal_window_get(walk->window, walk->offset, WAL_FRAME_HEADER_BYTES, &at)
                      : wal_window_get(walk->window, walk->offset, whole, &at);
    if (got < 0) return (int)got;
    if ((uint64_t)got < whole && !WAL_MUTANT(M10_LENGTH_TRUSTED)) return 0;
    walk->payload = at + WAL_FRAME_HEADER_BYTES;
    return wal_crc32c(0, walk->payload, walk->frame.payload_bytes) == walk->frame.payload_crc;
}

static int is_next(const struct wal_walk *walk) {
    if (walk->frame.first_lsn != walk->lsn) return 0;
    if (walk->frame.type == WAL_TYPE_START && walk->offset != WAL_FRAMES_OFFSET) return 0;
    return walk->frame.previous_crc == walk->previous_crc;
}

static int check_tables(const struct wal_walk *walk) {
    if (walk->payload != NULL) return wal_frame_check_records(&walk->frame, walk->payload);
    return !walk->large_is_malformed;
}

int wal_walk_next(struct wal_walk *walk) {
    if (walk->offset >= walk->limit) return WAL_STOP_LIMIT;
    if (walk->offset + WAL_FRAME_HEADER_BYTES > walk->context.segment_bytes) {
        return WAL_STOP_NOTHING;
    }
    const char *at = NULL;
    int64_t got = wal_window_get(walk->window, walk->offset, WAL_FRAME_HEADER_BYTES, &at);
    if (got < 0) return (int)got;
    if (got < WAL_FRAME_HEADER_BYTES) return WAL_STOP_NOTHING;
    switch (wal_frame_check_header(at, walk->offset, &walk->context, &walk->frame)) {
        case WAL_FRAME_NONE: return WAL_STOP_NOTHING;
        case WAL_FRAME_BROKEN: return WAL_STOP_BROKEN;
        case WAL_FRAME_UNSUPPORTED: return WAL_STOP_UNSUPPORTED;
        case WAL_FRAME_MALFORMED: return WAL_STOP_MALFORMED;
        case WAL_FRAME_OK: break;
    }
    int whole = check_payload(walk);
    if (whole < 0) return whole;
    if (!whole) return WAL_STOP_PAYLOAD;
    if (!is_next(walk)) return WAL_STOP_MISPLACED;
    if (!check_tables(walk)) return WAL_STOP_MALFORMED;
    walk->frame_end = wal_frame_end(&walk->frame, walk->context.alignment);
    if (walk->frame_end > walk->limit) return WAL_STOP_PAST_LIMIT;
    walk->offset = walk->frame_end;
    walk->lsn += walk->frame.record_count;
    walk->previous_crc = walk->frame.header_crc;
    return WAL_STOP_NONE;
}

/* ---- the look behind ------------------------------------------------------------------------- */

static void note_frame(const struct wal_disk_frame *frame, const struct wal_frame_context *context,
                       uint64_t lsn, struct wal_behind *behind) {
    behind->frames++;
    behind->records += frame->record_count;
    behind->last_end = wal_frame_end(frame, context->alignment);
    if (frame->durable_lsn >= lsn && behind->evidence_offset == 0) {
        behind->evidence_offset = frame->own_offset;
        behind->evidence_lsn = frame->durable_lsn;
    }
}

static int is_zero(const char *bytes) {
    uint64_t words[8];
    memcpy(words, bytes, sizeof words);
    return (words[0] | words[1] | words[2] | words[3] | words[4] | words[5] | words[6] |
            words[7]) == 0;
}

/* Every 8-byte boundary of the count bytes that stand at offset, as far as a header fits. */
static void look_in(const char *bytes, uint64_t count, uint64_t offset,
                    const struct wal_frame_context *context, uint64_t lsn,
                    struct wal_behind *behind) {
    for (uint64_t i = 0; i + WAL_FRAME_HEADER_BYTES <= count; i += WAL_FRAME_ALIGNMENT) {
        if (is_zero(bytes + i)) { /* most of a tail is: nothing begins in these 64 bytes */
            i += WAL_FRAME_HEADER_BYTES - WAL_FRAME_ALIGNMENT;
            continue;
        }
        uint32_t magic;
        memcpy(&magic, bytes + i, sizeof magic);
        if (magic != WAL_FRAME_MAGIC) continue;
        struct wal_disk_frame frame;
        if (wal_frame_check_header(bytes + i, offset + i, context, &frame) != WAL_FRAME_OK)
            continue;
        note_frame(&frame, context, lsn, behind);
    }
}

/* Does something that looks like a header begin so near the end of these bytes that it is cut? */
static int ends_in_header(const char *bytes, uint64_t count) {
    uint64_t from = count < WAL_FRAME_HEADER_BYTES ? 0 : count - WAL_FRAME_HEADER_BYTES;
    from = wal_round_up(from + 1, WAL_FRAME_ALIGNMENT);
    for (uint64_t i = from; i + sizeof(uint32_t) <= count; i += WAL_FRAME_ALIGNMENT) {
        uint32_t magic;
        memcpy(&magic, bytes + i, sizeof magic);
        if (magic == WAL_FRAME_MAGIC) return 1;
    }
    return 0;
}

/*
 * Look at the data from offset to data_end, where a hole begins (or at a mebibyte of it). Nothing
 * of the hole is read unless a header may reach into it: what was read once, the kernel calls data.
 * Returns the bytes that are done, 0 at the end of the file.
 */
static int64_t look_at_data(struct wal_window *window, const struct wal_frame_context *context,
                            uint64_t offset, uint64_t data_end, uint64_t lsn,
                            struct wal_behind *behind) {
    uint64_t left = data_end - offset;
    uint64_t want = left < WAL_FRAME_PAYLOAD_MAX ? left : WAL_FRAME_PAYLOAD_MAX;
    const char *at = NULL;
    int64_t got = wal_window_get(window, offset, want, &at);
    if (got > 0 && ends_in_header(at, (uint64_t)got)) {
        got = wal_window_get(window, offset, want + WAL_FRAME_HEADER_BYTES, &at);
    }
    if (got <= 0) return got;
    if ((uint64_t)got < want) want = 0; /* the end of the file */
    uint64_t seen = want == 0 ? (uint64_t)got : want + WAL_FRAME_HEADER_BYTES - WAL_FRAME_ALIGNMENT;
    if (seen > (uint64_t)got) seen = (uint64_t)got;
    look_in(at, seen, offset, context, lsn, behind); /* what begins behind want is the next's */
    return (int64_t)want;
}

int wal_look_behind(struct wal_window *window, const struct wal_frame_context *context,
                    uint64_t offset, uint64_t lsn, struct wal_behind *behind) {
    *behind = (struct wal_behind){.frames = 0};
    window->step_bytes = WAL_BLOCK_BYTES; /* read what is asked for */
    uint64_t data_end = 0;
    offset = wal_round_up(offset, WAL_FRAME_ALIGNMENT);
    while (offset + WAL_FRAME_HEADER_BYTES <= context->segment_bytes) {
        if (offset >= data_end) {
            int64_t data = wal_io_next_data(window->io, window->file, offset, &data_end);
            if (data < 0) return (int)data;
            uint64_t from = (uint64_t)data / WAL_FRAME_ALIGNMENT * WAL_FRAME_ALIGNMENT;
            if (from > offset) offset = from;
            if (offset + WAL_FRAME_HEADER_BYTES > context->segment_bytes) break;
        }
        int64_t done = look_at_data(window, context, offset, data_end, lsn, behind);
        if (done < 0) return (int)done;
        if (done == 0) break;
        offset = wal_round_up(offset + (uint64_t)done, WAL_FRAME_ALIGNMENT);
    }
    return 0;
}
