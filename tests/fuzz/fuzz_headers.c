/*
 * libFuzzer: the decoders of single structures, each fed with raw bytes.
 *
 * Goal: no header, slot, table or name makes a decoder crash or read out of bounds, and what one
 * accepts keeps the limits that the others build on. The first byte chooses the decoder.
 */
#include <assert.h>

#include "frame.h"
#include "index.h"
#include "memory_io.h"
#include "meta.h"
#include "segment.h"
#include "walengine.h"

static void fix_crc(char *at, size_t crc_offset, size_t from, size_t to, uint32_t begin) {
    uint32_t crc = wal_crc32c(begin, at + from, to - from);
    memcpy(at + crc_offset, &crc, sizeof crc);
}

static void decode_meta(struct memory_io *memory, const uint8_t *input, size_t size) {
    size_t room = size < WAL_META_BYTES ? size : WAL_META_BYTES;
    memcpy(memory->data[0], input, room);
    memory->bytes[0] = size < WAL_META_BYTES ? size + 1 : WAL_META_BYTES;
    fix_crc(memory->data[0], 8, 12, sizeof(struct wal_disk_meta), 0);
    struct wal_meta meta;
    wal_error error;
    if (wal_meta_load(&memory->io, WAL_IO_READ, &meta, &error) == 1) {
        assert(meta.disk.owner_bytes <= WAL_OWNER_BYTES_MAX);
        assert(meta.disk.trim_lsn > 0 && meta.disk.generation > 0);
    }
}

static void decode_segment(struct memory_io *memory, const uint8_t *input, size_t size) {
    size_t room = size < MEMORY_FILE_BYTES ? size : MEMORY_FILE_BYTES;
    memcpy(memory->data[1], input, room < 128 ? room : 128);
    if (room > 128) memcpy(memory->data[1] + WAL_END_SLOT_OFFSET, input + 128, room - 128);
    memory->bytes[1] = WAL_FRAMES_OFFSET + WAL_BLOCK_BYTES;
    struct wal_disk_segment header;
    fix_crc(memory->data[1], 8, 12, sizeof header, 0);
    memcpy(&header, memory->data[1], sizeof header);
    uint32_t begin = wal_crc32c(0, &header.salt, sizeof header.salt);
    fix_crc(memory->data[1] + WAL_END_SLOT_OFFSET, 4, 8, sizeof(struct wal_disk_end), begin);
    struct wal_segment segment = {.name = "wal-0000000000000001.seg"};
    wal_error error;
    if (wal_segment_load(&memory->io, 1, 1, &segment, &error) == 0) {
        assert(segment.header.segment_id == 1);
        assert(!segment.has_slot || segment.slot.end_offset >= WAL_FRAMES_OFFSET);
        assert(wal_segment_changed(&memory->io, 1, &segment) == 0);
    }
}

/* A frame header, then its payload: all that is accepted lies inside of what there is. */
static void decode_frame(const uint8_t *input, size_t size) {
    struct wal_disk_frame frame, fixed;
    if (size < sizeof frame) return;
    memcpy(&fixed, input, sizeof fixed);
    const uint64_t salt = UINT64_C(0x1122334455667788);
    fixed.own_offset = WAL_FRAMES_OFFSET;
    uint32_t zero = fixed.zero;
    wal_frame_finish(&fixed, salt);
    if (zero != 0) fixed.header_crc ^= zero;
    struct wal_frame_context context = {
        .salt = salt,
        .segment_bytes = WAL_FRAMES_OFFSET + size,
        .payload_bytes_max = WAL_FRAME_PAYLOAD_MAX,
        .alignment = (input[0] & 1) ? WAL_BLOCK_BYTES : WAL_FRAME_ALIGNMENT,
    };
    enum wal_frame_state state =
        wal_frame_check_header(&fixed, WAL_FRAMES_OFFSET, &context, &frame);
    if (state != WAL_FRAME_OK) return;
    assert(wal_frame_end(&frame, context.alignment) <= context.segment_bytes);
    assert(sizeof frame + frame.payload_bytes <= size);
    (void)wal_frame_check_records(&frame, input + sizeof frame);
}

static void decode_index(const uint8_t *input, size_t size) {
    struct wal_disk_index_entry entry;
    if (size < 8) return;
    uint64_t lsn;
    memcpy(&lsn, input, sizeof lsn);
    if (wal_index_find(input + 8, size - 8, lsn, &entry)) assert(entry.first_lsn <= lsn);
}

static void decode_name(const uint8_t *input, size_t size) {
    char text[64] = {0}, again[WAL_NAME_BYTES];
    uint64_t number;
    memcpy(text, input, size < sizeof text - 1 ? size : sizeof text - 1);
    if (wal_parse_segment_name(text, &number)) {
        wal_segment_name(again, number);
        assert(strcmp(text, again) == 0);
    }
    if (wal_parse_spare_name(text, &number)) {
        wal_spare_name(again, number);
        assert(strcmp(text, again) == 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size) {
    if (size == 0) return 0;
    struct memory_io *memory = memory_new();
    switch (input[0] % 5) {
        case 0: decode_meta(memory, input + 1, size - 1); break;
        case 1: decode_segment(memory, input + 1, size - 1); break;
        case 2: decode_frame(input + 1, size - 1); break;
        case 3: decode_index(input + 1, size - 1); break;
        default: decode_name(input + 1, size - 1); break;
    }
    memory_destroy(&memory->io);
    return 0;
}
