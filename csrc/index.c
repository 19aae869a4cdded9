/* The sparse index; index.h says what for. */
#include "index.h"

#include <string.h>

#include "hooks.h"

enum { INDEX_HEADER_BYTES = 8 };

void wal_index_reset(struct wal_index *index) {
    index->count = 0;
    index->failed = 0;
}

void wal_index_free(struct wal_index *index) {
    wal_free(index->entries);
    *index = (struct wal_index){.entries = NULL};
}

static int has_room(struct wal_index *index) {
    if (index->count < index->capacity) return 1;
    uint32_t capacity = index->capacity == 0 ? 64 : index->capacity * 2;
    void *more = wal_realloc(index->entries, capacity * sizeof *index->entries);
    if (more == NULL) {
        index->failed = 1;
        return 0;
    }
    index->entries = more;
    index->capacity = capacity;
    return 1;
}

void wal_index_note(struct wal_index *index, uint64_t first_lsn, uint64_t offset) {
    if (index->failed) return;
    if (index->count > 0 &&
        offset - index->entries[index->count - 1].offset < WAL_INDEX_STRIDE_BYTES) {
        return;
    }
    if (!has_room(index)) return;
    index->entries[index->count++] =
        (struct wal_disk_index_entry){.first_lsn = first_lsn, .offset = offset};
}

uint64_t wal_index_payload_bytes(uint32_t count) {
    return INDEX_HEADER_BYTES + (uint64_t)count * sizeof(struct wal_disk_index_entry);
}

uint64_t wal_index_payload_bytes_max(uint64_t segment_bytes) {
    return wal_index_payload_bytes((uint32_t)(segment_bytes / WAL_INDEX_STRIDE_BYTES + 1));
}

void wal_index_encode(const struct wal_index *index, void *payload) {
    uint32_t header[2] = {index->count, 0};
    memcpy(payload, header, sizeof header);
    if (index->count == 0) return;
    memcpy((char *)payload + sizeof header, index->entries, index->count * sizeof *index->entries);
}

int wal_index_find(const void *payload, uint64_t payload_bytes, uint64_t lsn,
                   struct wal_disk_index_entry *entry) {
    uint32_t header[2];
    if (payload_bytes < sizeof header) return 0;
    memcpy(header, payload, sizeof header);
    if (wal_index_payload_bytes(header[0]) != payload_bytes) return 0;
    const char *entries = (const char *)payload + sizeof header;
    uint32_t low = 0, high = header[0]; /* entries[low - 1] is at or before lsn */
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        struct wal_disk_index_entry at;
        memcpy(&at, entries + (uint64_t)middle * sizeof at, sizeof at);
        if (at.first_lsn <= lsn) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    if (low == 0) return 0;
    memcpy(entry, entries + (uint64_t)(low - 1) * sizeof *entry, sizeof *entry);
    return 1;
}
