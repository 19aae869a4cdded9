/* One segment file; segment.h says what belongs here. */
#include "segment.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "crc32c.h"
#include "error.h"
#include "hooks.h"

/* ---- names ----------------------------------------------------------------------------------- */

void wal_segment_name(char name[WAL_NAME_BYTES], uint64_t segment_id) {
    (void)snprintf(name, WAL_NAME_BYTES, "wal-%016" PRIx64 ".seg", segment_id);
}

void wal_spare_name(char name[WAL_NAME_BYTES], uint64_t number) {
    (void)snprintf(name, WAL_NAME_BYTES, "free-%016" PRIx64 ".seg", number);
}

static int parse_name(const char *name, const char *prefix, uint64_t *number) {
    size_t length = strlen(prefix);
    if (strncmp(name, prefix, length) != 0) return 0;
    uint64_t value = 0;
    for (int i = 0; i < 16; i++) {
        char c = name[length + (size_t)i];
        if (c >= '0' && c <= '9') {
            value = value << 4 | (uint64_t)(c - '0');
        } else if (c >= 'a' && c <= 'f') {
            value = value << 4 | (uint64_t)(c - 'a' + 10);
        } else {
            return 0;
        }
    }
    *number = value; /* 0 and the highest are nobody's: the next number must exist */
    return value != 0 && value != UINT64_MAX && strcmp(name + length + 16, ".seg") == 0;
}

int wal_parse_segment_name(const char *name, uint64_t *segment_id) {
    return parse_name(name, "wal-", segment_id);
}

int wal_parse_spare_name(const char *name, uint64_t *number) {
    return parse_name(name, "free-", number);
}

/* ---- header and end slot --------------------------------------------------------------------- */

static uint32_t segment_crc(const struct wal_disk_segment *header) {
    size_t from = offsetof(struct wal_disk_segment, format_version);
    return wal_crc32c(0, (const char *)header + from, sizeof *header - from);
}

void wal_segment_encode(struct wal_disk_segment *header) {
    memcpy(header->magic, WAL_SEGMENT_MAGIC, sizeof header->magic);
    header->format_version = WAL_FORMAT_VERSION;
    memset(header->zero, 0, sizeof header->zero);
    header->crc = segment_crc(header);
}

static uint32_t end_crc(const struct wal_disk_end *slot, uint64_t salt) {
    uint32_t crc = wal_crc32c(0, &salt, sizeof salt);
    return wal_crc32c(crc, (const char *)slot + 8, sizeof *slot - 8);
}

void wal_end_encode(struct wal_disk_end *slot, uint64_t salt) {
    slot->magic = WAL_END_MAGIC;
    slot->crc = end_crc(slot, salt);
}

int wal_end_check(const struct wal_disk_end *slot, uint64_t salt, uint64_t segment_id) {
    if (slot->magic != WAL_END_MAGIC || slot->crc != end_crc(slot, salt)) return 0;
    if (slot->segment_id != segment_id || slot->sealed > 1 || slot->zero != 0) return 0;
    return slot->end_offset >= WAL_FRAMES_OFFSET;
}

struct wal_frame_context wal_segment_context(const struct wal_segment *segment) {
    uint64_t bytes = segment->header.segment_bytes;
    return (struct wal_frame_context){
        .salt = segment->header.salt,
        .segment_bytes = segment->file_bytes < bytes ? segment->file_bytes : bytes,
        .payload_bytes_max = segment->header.payload_bytes_max,
        .alignment = segment->header.commit_alignment,
    };
}

/* ---- loading --------------------------------------------------------------------------------- */

static int check_header(const struct wal_segment *segment, uint64_t segment_id, wal_error *error) {
    const struct wal_disk_segment *header = &segment->header;
    struct wal_place place = {.file = segment->name, .segment_id = segment_id};
    if (memcmp(header->magic, WAL_SEGMENT_MAGIC, sizeof header->magic) != 0) {
        return wal_fail(error, WAL_E_CORRUPT, place, "the segment header has a wrong magic");
    }
    if (header->crc != segment_crc(header)) {
        return wal_fail(error, WAL_E_CORRUPT, place, "the segment header fails its checksum");
    }
    if (header->format_version != WAL_FORMAT_VERSION || header->required_features != 0) {
        return wal_fail(error, WAL_E_UNSUPPORTED_FORMAT, place,
                        "written in format %u with required features %#x, and this version reads "
                        "format %d without any; use a newer walengine",
                        header->format_version, header->required_features, WAL_FORMAT_VERSION);
    }
    if (header->segment_id != segment_id) {
        return wal_fail(error, WAL_E_CORRUPT, place,
                        "the header says segment %" PRIu64 " and the name another",
                        header->segment_id);
    }
    int alignment_ok = header->commit_alignment == WAL_FRAME_ALIGNMENT ||
                       header->commit_alignment == WAL_BLOCK_BYTES;
    int start_fits = header->segment_bytes >= WAL_FRAMES_OFFSET &&
                     header->payload_bytes_max >= sizeof(struct wal_disk_start);
    if (!alignment_ok || !start_fits) {
        return wal_fail(error, WAL_E_CORRUPT, place, "the segment header contradicts itself");
    }
    if (segment->file_bytes > header->segment_bytes) {
        return wal_fail(error, WAL_E_CORRUPT, place,
                        "the file has %" PRIu64 " bytes and its header allows %" PRIu64,
                        segment->file_bytes, header->segment_bytes);
    }
    return 0;
}

/* START is valid or it is not there: what that means is the chain's question. */
static void take_start(struct wal_segment *segment, const char *bytes, size_t got) {
    const size_t whole = WAL_FRAME_HEADER_BYTES + sizeof segment->start;
    if (got < WAL_FRAMES_OFFSET + whole) return;
    const char *at = bytes + WAL_FRAMES_OFFSET;
    struct wal_frame_context context = wal_segment_context(segment);
    struct wal_disk_frame frame;
    if (wal_frame_check_header(at, WAL_FRAMES_OFFSET, &context, &frame) != WAL_FRAME_OK) return;
    if (frame.type != WAL_TYPE_START || frame.previous_crc != 0) return;
    if (frame.payload_bytes != sizeof segment->start) return;
    memcpy(&segment->start, at + WAL_FRAME_HEADER_BYTES, sizeof segment->start);
    if (wal_crc32c(0, &segment->start, sizeof segment->start) != frame.payload_crc) return;
    if (segment->start.base_lsn != frame.first_lsn || frame.first_lsn == 0) return;
    segment->start_crc = frame.header_crc;
    segment->start_end = wal_frame_end(&frame, segment->header.commit_alignment);
    segment->has_start = 1;
}

int wal_segment_load(struct wal_io *io, int file, uint64_t segment_id, struct wal_segment *segment,
                     wal_error *error) {
    struct wal_place place = {.file = segment->name, .segment_id = segment_id};
    struct wal_io_stat stat;
    int result = wal_io_stat(io, file, &stat);
    if (result < 0) return wal_fail_os(error, result, place, "cannot examine the segment");
    const size_t want = WAL_FRAMES_OFFSET + WAL_BLOCK_BYTES;
    char *bytes = wal_aligned(WAL_BLOCK_BYTES, want);
    if (bytes == NULL) return wal_fail(error, -ENOMEM, place, "out of memory");
    int64_t got = wal_io_read(io, file, 0, bytes, want);
    segment->file_bytes = stat.bytes;
    if (got < 0) {
        result = wal_fail_os(error, (int)got, place, "cannot read the segment header");
    } else if (got < WAL_FRAMES_OFFSET) {
        result = wal_fail(error, WAL_E_CORRUPT, place,
                          "the segment has %lld bytes, too few for its header", (long long)got);
    } else {
        memcpy(&segment->header, bytes, sizeof segment->header);
        result = check_header(segment, segment_id, error);
    }
    if (result == 0) {
        memcpy(&segment->slot, bytes + WAL_END_SLOT_OFFSET, sizeof segment->slot);
        segment->has_slot = wal_end_check(&segment->slot, segment->header.salt, segment_id);
        take_start(segment, bytes, (size_t)got);
    }
    wal_free(bytes);
    return result;
}

int wal_segment_changed(struct wal_io *io, int file, const struct wal_segment *segment) {
    struct wal_disk_segment now;
    int64_t got = wal_io_read(io, file, 0, &now, sizeof now);
    if (got < 0) return (int)got;
    if (got < (int64_t)sizeof now) return 1;
    return memcmp(&now, &segment->header, sizeof now) != 0;
}

int wal_write_block(struct wal_io *io, int file, uint64_t offset, const void *data, size_t bytes) {
    static const char zeros[WAL_BLOCK_BYTES];
    assert(bytes <= WAL_BLOCK_BYTES && offset % WAL_BLOCK_BYTES == 0);
    struct iovec parts[2] = {
        {.iov_base = (void *)(uintptr_t)data, .iov_len = bytes},
        {.iov_base = (void *)(uintptr_t)zeros, .iov_len = WAL_BLOCK_BYTES - bytes},
    };
    return wal_io_write(io, file, offset, parts, 2);
}
