/*
 * The sparse index of a segment: the first DATA frame of every 64 KiB or so, LSN and offset.
 * The writer builds it as it goes and puts it into an INDEX frame when it seals the segment.
 */
#ifndef WALENGINE_INDEX_H
#define WALENGINE_INDEX_H

#include <stddef.h>
#include <stdint.h>

#include "format.h"

enum { WAL_INDEX_STRIDE_BYTES = 65536 };

struct wal_index {
    struct wal_disk_index_entry *entries;
    uint32_t count;
    uint32_t capacity;
    int failed; /* an allocation failed: the segment gets no INDEX, which readers tolerate */
};

void wal_index_reset(struct wal_index *index);
void wal_index_free(struct wal_index *index);

/* Note a DATA frame; only the first of each stride is kept. */
void wal_index_note(struct wal_index *index, uint64_t first_lsn, uint64_t offset);

/* Bytes of the payload that count entries make; and of the largest one a segment can need. */
uint64_t wal_index_payload_bytes(uint32_t count);
uint64_t wal_index_payload_bytes_max(uint64_t segment_bytes);

/* Write the payload (wal_index_payload_bytes of it). */
void wal_index_encode(const struct wal_index *index, void *payload);

/*
 * In an INDEX payload whose CRC was right, find the last entry at or before lsn. 1, or 0 where
 * there is none or the payload is not what an INDEX holds.
 */
int wal_index_find(const void *payload, uint64_t payload_bytes, uint64_t lsn,
                   struct wal_disk_index_entry *entry);

#endif
