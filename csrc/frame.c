/* Frames as bytes; frame.h lists what makes one valid. */
#include "frame.h"

#include <assert.h>
#include <string.h>

#include "crc32c.h"
#include "hooks.h"

static uint32_t header_crc(const struct wal_disk_frame *frame, uint64_t salt) {
    struct wal_disk_frame covered = *frame;
    if (WAL_MUTANT(M7_CRC_SKIPS_LSN)) {
        covered.payload_bytes = 0;
        covered.first_lsn = 0;
    }
    uint32_t crc = wal_crc32c(0, &salt, sizeof salt);
    return wal_crc32c(crc, (const char *)&covered + 8, sizeof covered - 8);
}

uint64_t wal_frame_table_bytes(uint32_t count, int has_crcs) {
    return (uint64_t)count * (has_crcs ? 8 : 4);
}

uint64_t wal_frame_record_bytes(const struct wal_disk_frame *frame) {
    int has_crcs = (frame->flags & WAL_FLAG_RECORD_CRC) != 0;
    return frame->payload_bytes - wal_frame_table_bytes(frame->record_count, has_crcs);
}

uint64_t wal_frame_end(const struct wal_disk_frame *frame, uint32_t alignment) {
    uint64_t end = frame->own_offset + WAL_FRAME_HEADER_BYTES + frame->payload_bytes;
    int padded = (frame->flags & WAL_FLAG_PADDED) != 0;
    return wal_round_up(end, padded ? alignment : WAL_FRAME_ALIGNMENT);
}

void wal_frame_finish(struct wal_disk_frame *frame, uint64_t salt) {
    frame->magic = WAL_FRAME_MAGIC;
    frame->salt_low = (uint32_t)salt;
    frame->zero = 0;
    frame->header_crc = header_crc(frame, salt);
}

static int is_known(const struct wal_disk_frame *frame) {
    if (frame->type & WAL_TYPE_SKIPPABLE) return 1;
    if ((frame->flags & ~WAL_FLAGS_KNOWN) != 0) return 0;
    return frame->type == WAL_TYPE_START || frame->type == WAL_TYPE_DATA;
}

/* Do the counts agree with the type? A writer of this format builds no other frame. */
static int is_well_formed(const struct wal_disk_frame *frame) {
    int has_crcs = (frame->flags & WAL_FLAG_RECORD_CRC) != 0;
    if (frame->type == WAL_TYPE_DATA) {
        if (frame->record_count == 0) return 0;
        if (wal_frame_table_bytes(frame->record_count, has_crcs) > frame->payload_bytes) return 0;
        return frame->payload_bytes <= WAL_FRAME_PAYLOAD_MAX || frame->record_count == 1;
    }
    if (frame->type == WAL_TYPE_START) {
        return frame->record_count == 0 && frame->payload_bytes == sizeof(struct wal_disk_start);
    }
    return frame->record_count == 0; /* an INDEX, or a skippable frame of the future */
}

static int fits(const struct wal_disk_frame *frame, const struct wal_frame_context *context) {
    if (frame->payload_bytes > context->payload_bytes_max) return 0;
    return wal_frame_end(frame, context->alignment) <= context->segment_bytes;
}

enum wal_frame_state wal_frame_check_header(const void *bytes, uint64_t offset,
                                            const struct wal_frame_context *context,
                                            struct wal_disk_frame *frame) {
    memcpy(frame, bytes, sizeof *frame);
    if (frame->magic != WAL_FRAME_MAGIC) return WAL_FRAME_NONE;
    if (frame->salt_low != (uint32_t)context->salt) return WAL_FRAME_NONE;
    if (frame->own_offset != offset) return WAL_FRAME_NONE;
    if (frame->header_crc != header_crc(frame, context->salt)) return WAL_FRAME_BROKEN;
    if (!is_known(frame)) return WAL_FRAME_UNSUPPORTED;
    if (WAL_MUTANT(M10_LENGTH_TRUSTED)) return WAL_FRAME_OK;
    if (frame->zero != 0 || !is_well_formed(frame)) return WAL_FRAME_MALFORMED;
    return fits(frame, context) ? WAL_FRAME_OK : WAL_FRAME_MALFORMED;
}

static uint32_t load_u32(const char *at) {
    uint32_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

int wal_frame_check_records(const struct wal_disk_frame *frame, const void *payload) {
    if (frame->type != WAL_TYPE_DATA) return 1;
    uint64_t record_bytes = wal_frame_record_bytes(frame);
    const char *records = payload;
    const char *ends = records + record_bytes;
    const char *crcs = ends + (uint64_t)frame->record_count * 4;
    uint32_t begin = 0;
    for (uint32_t i = 0; i < frame->record_count; i++) {
        uint32_t end = load_u32(ends + (uint64_t)i * 4);
        if (end < begin || end > record_bytes) return 0;
        if (frame->flags & WAL_FLAG_RECORD_CRC) {
            uint32_t crc = load_u32(crcs + (uint64_t)i * 4);
            if (crc != wal_crc32c(0, records + begin, end - begin)) return 0;
        }
        begin = end;
    }
    return begin == record_bytes;
}
