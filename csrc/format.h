/*
 * Format 1 of the log on disk: every constant and every struct, and nothing else.
 *
 * A log is a directory:
 *
 *   LOCK                         held with flock by the one writer
 *   META                         two 4 KiB slots; the newest valid one wins (struct wal_disk_meta)
 *   wal-<segment_id:016x>.seg    segments (below)
 *   free-<n:016x>.seg            spares: space kept for segments to come, content without meaning
 *
 * A segment is
 *
 *   block 0   0 ..  4095   static header (struct wal_disk_segment), written once in a life
 *   block 1   4096 .. 8191 end slot (struct wal_disk_end); torn or stale, it is simply no evidence
 *   frames    8192 ..      START first, then DATA and INDEX, each 8-byte aligned, back to back
 *
 * A frame is a 64-byte header and a payload:
 *
 *   off size field
 *     0   4  magic            resync anchor
 *     4   4  header CRC       CRC32C(salt as 8 bytes LE, then bytes 8..64)
 *     8   4  payload length
 *    12   4  payload CRC      CRC32C(payload)
 *    16   8  first LSN        of the first record; the next record's LSN in a frame without records
 *    24   4  record count     LSNs are dense
 *    28   2  type             high bit: a reader that does not know it may skip the frame
 *    30   2  flags
 *    32   8  own offset       in the segment: misdirected and stale blocks
 *    40   8  durable LSN      when the frame was built: everything up to here was synced
 *    48   4  salt, low half   cheap reject of stale frames
 *    52   4  previous CRC     the previous frame's header CRC; 0 in START
 *    56   4  milliseconds     since the segment was created
 *    60   4  zero             checked
 *
 * Payload of DATA: the records back to back, then u32 end_offset[count], then, with RECORD_CRC,
 * u32 crc32c[count]. The end offsets count from the payload's begin and never decrease.
 * Payload of START: struct wal_disk_start.
 * Payload of INDEX: u32 count, u32 zero, then count times struct wal_disk_index_entry, ascending.
 *
 * The next frame begins at the next 8-byte boundary, or, behind a PADDED frame, at the next
 * multiple of the segment's commit alignment. The bytes between are zero.
 *
 * All integers are little-endian. Zero is never valid and never a sentinel: structure is told by
 * magic. docs/FORMAT.md says the same for people, with a worked example that a test decodes.
 */
#ifndef WALENGINE_FORMAT_H
#define WALENGINE_FORMAT_H

#include <stddef.h>
#include <stdint.h>

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "walengine maps its structs onto the disk and needs a little-endian machine"
#endif

enum {
    WAL_FORMAT_VERSION = 1,
    WAL_BLOCK_BYTES = 4096,
    WAL_HEADER_OFFSET = 0,
    WAL_END_SLOT_OFFSET = 4096,
    WAL_FRAMES_OFFSET = 8192,
    WAL_FRAME_ALIGNMENT = 8,
    WAL_FRAME_HEADER_BYTES = 64,
    WAL_FRAME_PAYLOAD_MAX = 1048576, /* unless one record is larger */
    WAL_META_SLOTS = 2,
    WAL_META_BYTES = 8192,
    WAL_OWNER_BYTES_MAX = 1024,
};

/* Magics, as the bytes stand on disk: "WFRM", "WEND", "WALENG1\0", "WALMETA1". */
#define WAL_FRAME_MAGIC UINT32_C(0x4D524657)
#define WAL_END_MAGIC UINT32_C(0x444E4557)
#define WAL_SEGMENT_MAGIC "WALENG1\0"
#define WAL_META_MAGIC "WALMETA1"

/* Frame types. */
#define WAL_TYPE_SKIPPABLE UINT16_C(0x8000)
#define WAL_TYPE_START UINT16_C(0x0001)
#define WAL_TYPE_DATA UINT16_C(0x0002)
#define WAL_TYPE_INDEX UINT16_C(0x8003)

/* Frame flags. An atomic group in one frame needs none: the frame is atomic by its CRC. */
#define WAL_FLAG_ATOMIC_FIRST UINT16_C(0x0001)
#define WAL_FLAG_ATOMIC_CONT UINT16_C(0x0002)
#define WAL_FLAG_ATOMIC_LAST UINT16_C(0x0004)
#define WAL_FLAG_RECORD_CRC UINT16_C(0x0008)
#define WAL_FLAG_PADDED UINT16_C(0x0010)
#define WAL_FLAGS_KNOWN UINT16_C(0x001F)
#define WAL_FLAGS_ATOMIC UINT16_C(0x0007)

struct wal_disk_frame {
    uint32_t magic;
    uint32_t header_crc;
    uint32_t payload_bytes;
    uint32_t payload_crc;
    uint64_t first_lsn;
    uint32_t record_count;
    uint16_t type;
    uint16_t flags;
    uint64_t own_offset;
    uint64_t durable_lsn;
    uint32_t salt_low;
    uint32_t previous_crc;
    uint32_t milliseconds;
    uint32_t zero;
};

/* Block 0. crc = CRC32C(bytes 12..128); the rest of the block is zero and not checked. */
struct wal_disk_segment {
    char magic[8];
    uint32_t crc;
    uint32_t format_version;
    uint32_t required_features; /* a set bit that a reader does not know: refuse */
    uint32_t optional_features; /* a set bit that a reader does not know: ignore */
    uint8_t log_uuid[16];
    uint64_t segment_id;    /* from 1, never reused */
    uint64_t salt;          /* random: what an earlier life of the file left behind fails it */
    uint64_t created_us;    /* since 1970, UTC */
    uint64_t segment_bytes; /* the file's size when it was prepared; frames never reach past it */
    uint32_t commit_alignment;  /* 8 or 4096 */
    uint32_t payload_bytes_max; /* no frame's payload is larger */
    uint8_t zero[48];
};

/* Block 1. crc = CRC32C(salt as 8 bytes LE, then bytes 8..64). */
struct wal_disk_end {
    uint32_t magic;
    uint32_t crc;
    uint32_t sealed; /* 1: nothing follows end_offset; 0: an idle watermark or an un-sealed tail */
    uint32_t zero;
    uint64_t last_lsn;
    uint64_t end_offset;
    uint64_t index_offset; /* of the newest INDEX frame, 0 where there is none */
    uint64_t segment_id;
    uint64_t successor_id; /* sealed by a rotation: the segment that follows; else 0 */
    uint64_t reserved;     /* zero */
};

/* START's payload. A log's first segment has no predecessor: those four fields are zero then. */
struct wal_disk_start {
    uint64_t base_lsn; /* LSN of the first record in this segment */
    uint64_t trim_lsn;
    uint64_t predecessor_id; /* 0: none */
    uint64_t predecessor_last_lsn;
    uint64_t predecessor_end_offset;
    uint32_t predecessor_crc; /* header CRC of the predecessor's last frame before its end */
    uint32_t zero;
};

struct wal_disk_index_entry {
    uint64_t first_lsn; /* of the DATA frame at offset */
    uint64_t offset;
};

/* A META slot. crc = CRC32C(bytes 12..1152); the rest of the slot's 4 KiB is zero, not checked. */
struct wal_disk_meta {
    char magic[8];
    uint32_t crc;
    uint32_t format_version;
    uint64_t generation; /* from 1 */
    uint8_t log_uuid[16];
    uint64_t created_us;
    uint64_t trim_lsn; /* from 1: records below are gone for readers */
    uint32_t owner_bytes;
    uint32_t zero;
    uint8_t reserved[64];
    uint8_t owner[WAL_OWNER_BYTES_MAX];
};

_Static_assert(sizeof(struct wal_disk_frame) == WAL_FRAME_HEADER_BYTES, "frame header");
_Static_assert(offsetof(struct wal_disk_frame, first_lsn) == 16, "first LSN");
_Static_assert(offsetof(struct wal_disk_frame, own_offset) == 32, "own offset");
_Static_assert(offsetof(struct wal_disk_frame, salt_low) == 48, "salt");
_Static_assert(offsetof(struct wal_disk_frame, zero) == 60, "zero");
_Static_assert(sizeof(struct wal_disk_segment) == 128, "segment header");
_Static_assert(offsetof(struct wal_disk_segment, log_uuid) == 24, "log UUID");
_Static_assert(offsetof(struct wal_disk_segment, segment_id) == 40, "segment id");
_Static_assert(offsetof(struct wal_disk_segment, commit_alignment) == 72, "alignment");
_Static_assert(sizeof(struct wal_disk_end) == 64, "end slot");
_Static_assert(offsetof(struct wal_disk_end, last_lsn) == 16, "last LSN");
_Static_assert(sizeof(struct wal_disk_start) == 48, "START payload");
_Static_assert(sizeof(struct wal_disk_index_entry) == 16, "INDEX entry");
_Static_assert(sizeof(struct wal_disk_meta) == 1152, "META slot");
_Static_assert(offsetof(struct wal_disk_meta, owner) == 128, "owner");

#endif
