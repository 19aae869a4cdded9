/*
 * libFuzzer: whole logs through recovery, the cursor and verification.
 *
 * Goal: nothing that stands in a log makes the core crash, hang, read out of bounds or hand out
 * records that are not dense. The input is an image (memory_io.h). Mutations would all die at the
 * first CRC, so the control byte can have them put right again: then what is tested lies behind.
 */
#include <assert.h>
#include <time.h>

#include "memory_io.h"
#include "walengine.h"

/* Bits of the control byte. */
enum {
    FIX_BLOCKS = 1, /* CRCs of META, segment headers and end slots */
    FIX_FRAMES = 2, /* salt, own offset and both CRCs of whatever begins with a frame's magic */
    FIX_LINKS = 4,  /* and the link to the frame before */
    SALVAGE = 8,
    STRICT = 16,
    FIX_SIZES = 32, /* the headers' segment size is the file's */
};

/* A reader that meets damage waits for a writer that may be at work. There is none: do not wait. */
int nanosleep(const struct timespec *wanted, struct timespec *left) {
    (void)wanted;
    (void)left;
    return 0;
}

static void fix_crc(char *at, size_t crc_offset, size_t from, size_t to, uint32_t begin) {
    uint32_t crc = wal_crc32c(begin, at + from, to - from);
    memcpy(at + crc_offset, &crc, sizeof crc);
}

static void fix_blocks(struct memory_io *memory, unsigned control) {
    for (size_t slot = 0; slot < WAL_META_SLOTS; slot++) {
        char *at = memory->data[0] + slot * WAL_BLOCK_BYTES;
        fix_crc(at, 8, 12, sizeof(struct wal_disk_meta), 0);
    }
    for (int i = 1; i < MEMORY_FILES; i++) {
        struct wal_disk_segment header;
        char *at = memory->data[i];
        memcpy(&header, at, sizeof header);
        if (control & FIX_SIZES) header.segment_bytes = memory->bytes[i];
        memcpy(at, &header, sizeof header);
        fix_crc(at, 8, 12, sizeof header, 0);
        uint32_t begin = wal_crc32c(0, &header.salt, sizeof header.salt);
        fix_crc(at + WAL_END_SLOT_OFFSET, 4, 8, sizeof(struct wal_disk_end), begin);
    }
}

/* Put one frame right in place; returns its header CRC. */
static uint32_t fix_frame(char *data, uint64_t offset, uint64_t size, uint64_t salt,
                          unsigned control, uint32_t link) {
    struct wal_disk_frame frame;
    memcpy(&frame, data + offset, sizeof frame);
    frame.salt_low = (uint32_t)salt;
    frame.own_offset = offset;
    uint64_t room = size - offset - sizeof frame;
    if (frame.payload_bytes <= room) {
        frame.payload_crc = wal_crc32c(0, data + offset + sizeof frame, frame.payload_bytes);
    }
    if (control & FIX_LINKS) frame.previous_crc = link;
    uint32_t begin = wal_crc32c(0, &salt, sizeof salt);
    frame.header_crc = wal_crc32c(begin, (const char *)&frame + 8, sizeof frame - 8);
    memcpy(data + offset, &frame, sizeof frame);
    return frame.header_crc;
}

static void fix_frames(struct memory_io *memory, unsigned control) {
    for (int i = 1; i < MEMORY_FILES; i++) {
        struct wal_disk_segment header;
        memcpy(&header, memory->data[i], sizeof header);
        uint32_t link = 0;
        uint64_t at = WAL_FRAMES_OFFSET;
        for (; at + WAL_FRAME_HEADER_BYTES <= memory->bytes[i]; at += WAL_FRAME_ALIGNMENT) {
            uint32_t magic;
            memcpy(&magic, memory->data[i] + at, sizeof magic);
            if (magic != WAL_FRAME_MAGIC) continue;
            link = fix_frame(memory->data[i], at, memory->bytes[i], header.salt, control, link);
        }
    }
}

/* Every record of a block lies inside it, and LSNs go on without a gap. */
static uint64_t check_block(const wal_block *block, uint64_t next_lsn, int may_skip) {
    assert(block->count > 0);
    assert(next_lsn == 0 || block->first_lsn == next_lsn ||
           (may_skip && block->first_lsn > next_lsn));
    uint64_t sum = 0;
    for (uint64_t i = 0; i < block->count; i++) {
        assert(block->starts[i] + block->lengths[i] <= block->data_bytes);
        for (uint64_t j = 0; j < block->lengths[i]; j++) {
            sum += (unsigned char)block->data[block->starts[i] + j];
        }
    }
    assert(sum <= 255 * block->data_bytes * block->count);
    return block->first_lsn + block->count;
}

static void scan(wal_reader *reader, uint64_t from, uint64_t to, int may_skip) {
    wal_cursor *cursor = NULL;
    wal_error error;
    if (wal_cursor_open(reader, from, to, &cursor, &error) < 0) return;
    wal_block block, taken = {.count = 0};
    uint64_t next_lsn = 0;
    for (int is_taken = 0;; is_taken = !is_taken) { /* every second one is kept for a while */
        int result = is_taken ? wal_cursor_take(cursor, &block, &error)
                              : wal_cursor_next(cursor, &block, &error);
        if (result <= 0) break;
        next_lsn = check_block(&block, next_lsn, may_skip);
        assert(to == 0 || next_lsn <= to + 1);
        if (!is_taken) continue;
        if (taken.count > 0) check_block(&taken, taken.first_lsn, may_skip);
        wal_block_free(taken.data);
        taken = block;
    }
    wal_cursor_close(cursor);
    if (taken.count > 0) check_block(&taken, taken.first_lsn, may_skip);
    wal_block_free(taken.data);
}

static void look_at(wal_reader *reader, const wal_report *report, int may_skip) {
    wal_error error;
    wal_segment_info info;
    wal_segment_check check;
    for (uint64_t i = 0; wal_reader_segment(reader, i, &info) >= 0; i++) {
        assert(i < MEMORY_FILES);
        (void)wal_reader_verify(reader, i, &check, &error);
    }
    scan(reader, 0, 0, may_skip);
    scan(reader, report->first_lsn + 1, report->last_lsn, may_skip);
    scan(reader, report->last_lsn, 0, may_skip);
}

/* Windows are 2 MiB: to quarantine them all would be most of the work. */
const char *__asan_default_options(void);
const char *__asan_default_options(void) {
    return "quarantine_size_mb=8:thread_local_quarantine_size_kb=64";
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size) {
    if (size == 0) return 0;
    unsigned control = input[0];
    struct memory_io *memory = memory_new();
    memory_patch(memory, input + 1, size - 1);
    if (control & FIX_BLOCKS) fix_blocks(memory, control);
    if (control & FIX_FRAMES) fix_frames(memory, control);
    uint32_t mode = control & SALVAGE  ? WAL_RECOVERY_SALVAGE
                    : control & STRICT ? WAL_RECOVERY_STRICT
                                       : WAL_RECOVERY_POINT_IN_TIME;
    wal_reader *reader = NULL;
    wal_report report;
    wal_error error;
    if (wal_reader_open_io(&memory->io, mode, &reader, &report, &error) < 0) return 0;
    look_at(reader, &report, mode == WAL_RECOVERY_SALVAGE);
    wal_reader_close(reader);
    return 0;
}
