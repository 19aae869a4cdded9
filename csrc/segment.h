/*
 * One segment file: its name, its static header, its end slot and its START, as bytes and as facts.
 * Nothing here knows of other segments; the chain does.
 */
#ifndef WALENGINE_SEGMENT_H
#define WALENGINE_SEGMENT_H

#include <stddef.h>
#include <stdint.h>

#include "format.h"
#include "frame.h"
#include "io.h"
#include "walengine.h"

enum { WAL_NAME_BYTES = 64 };

/* What a segment says of itself, and, once the chain is known, where it ends. */
struct wal_segment {
    char name[WAL_NAME_BYTES];
    uint64_t file_bytes;
    struct wal_disk_segment header; /* checked */
    struct wal_disk_end slot;       /* valid only if has_slot */
    struct wal_disk_start start;    /* valid only if has_start */
    uint32_t start_crc;             /* header CRC of the START frame */
    uint64_t start_end;             /* where the first frame behind START begins */
    int has_slot;
    int has_start;
    /* Set by the chain: */
    uint64_t end_offset;
    uint64_t last_lsn;
    int is_sealed; /* its end slot says so, at its end */
    int in_chain;
};

/* Names: wal-<16 hex>.seg and free-<16 hex>.seg. Parsing returns 1 only for exactly such a name. */
void wal_segment_name(char name[WAL_NAME_BYTES], uint64_t segment_id);
void wal_spare_name(char name[WAL_NAME_BYTES], uint64_t number);
int wal_parse_segment_name(const char *name, uint64_t *segment_id);
int wal_parse_spare_name(const char *name, uint64_t *number);

void wal_segment_encode(struct wal_disk_segment *header); /* sets magic, version, crc */
void wal_end_encode(struct wal_disk_end *slot, uint64_t salt);

/* 1 where the slot is valid for this salt and segment; else it is no evidence of anything. */
int wal_end_check(const struct wal_disk_end *slot, uint64_t salt, uint64_t segment_id);

struct wal_frame_context wal_segment_context(const struct wal_segment *segment);

/*
 * Read header, end slot and START of an open file whose name claims segment_id. An unreadable or
 * foreign header is WAL_E_CORRUPT: no crash leaves one under a wal- name.
 */
int wal_segment_load(struct wal_io *io, int file, uint64_t segment_id, struct wal_segment *segment,
                     wal_error *error);

/* Has the file under an open descriptor become another segment since it was loaded? 1, 0, error. */
int wal_segment_changed(struct wal_io *io, int file, const struct wal_segment *segment);

/* Write a whole 4 KiB block whose first bytes are data and the rest zero. */
int wal_write_block(struct wal_io *io, int file, uint64_t offset, const void *data, size_t bytes);

#endif
