/*
 * One frame: building its header and checking it. Pure functions on bytes.
 *
 * A frame is valid at an offset of a segment if and only if
 *   (1) its magic, the low half of the salt and its own offset are right,
 *   (2) the header CRC, begun with the segment's whole salt, is right: only now a length is used,
 *   (3) the zero field is zero; type and flags are known (an unknown skippable type will do),
 *   (4) header and payload lie inside the segment, and the payload is no larger than the segment's
 *       header allows; more than 1 MiB holds exactly one record,
 *   (5) the payload CRC is right,
 *   (6) a DATA payload's end offsets ascend and end where the table begins; record CRCs match.
 * Whether it is the next frame (LSN, link) is the walk's question, not the frame's.
 */
#ifndef WALENGINE_FRAME_H
#define WALENGINE_FRAME_H

#include <stddef.h>
#include <stdint.h>

#include "format.h"

enum wal_frame_state {
    WAL_FRAME_NONE = 0,        /* nothing of this segment begins here */
    WAL_FRAME_BROKEN = 1,      /* claims to be ours, and its header CRC is wrong */
    WAL_FRAME_OK = 2,          /* (1) to (4) hold */
    WAL_FRAME_UNSUPPORTED = 3, /* (2) holds, and a newer version wrote it */
    WAL_FRAME_MALFORMED = 4,   /* (2) holds, and no writer builds such a frame */
};

/* What a frame is checked against. */
struct wal_frame_context {
    uint64_t salt;
    uint64_t segment_bytes; /* frames end at or before this */
    uint32_t payload_bytes_max;
    uint32_t alignment;
};

/* Check (1) to (4) of the 64 bytes that stand at offset; *frame gets a copy when (1) holds. */
enum wal_frame_state wal_frame_check_header(const void *bytes, uint64_t offset,
                                            const struct wal_frame_context *context,
                                            struct wal_disk_frame *frame);

/* Check (6) of a whole payload whose CRC was right: 1 or 0. */
int wal_frame_check_records(const struct wal_disk_frame *frame, const void *payload);

/* Where the next frame begins. */
uint64_t wal_frame_end(const struct wal_disk_frame *frame, uint32_t alignment);

/* Bytes of the records alone, without the tables behind them. */
uint64_t wal_frame_record_bytes(const struct wal_disk_frame *frame);

/* Bytes of the tables behind count records. */
uint64_t wal_frame_table_bytes(uint32_t count, int has_crcs);

/* Set magic, salt_low and header_crc of a frame whose other fields are final. */
void wal_frame_finish(struct wal_disk_frame *frame, uint64_t salt);

static inline uint64_t wal_round_up(uint64_t value, uint64_t alignment) {
    return (value + alignment - 1) / alignment * alignment;
}

#endif
