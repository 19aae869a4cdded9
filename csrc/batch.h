/*
 * Memory for the records of a block, which may outlive its cursor.
 *
 * A cursor puts records into such memory and either uses it again or lets its caller have it. What
 * comes back from a caller is kept as a spare of that cursor: fresh memory costs a page fault every
 * 4 KiB, as much as reading it does. Giving back takes no lock, so a forked child may do it too.
 */
#ifndef WALENGINE_BATCH_H
#define WALENGINE_BATCH_H

#include <stddef.h>
#include <stdint.h>

/*
 * What a usual block holds at most; all spares are of this size. A frame that is larger makes a
 * block of its own. Small enough for the processor's cache: who gets a block reads it again.
 */
enum { WAL_BATCH_RECORDS_MAX = 4096, WAL_BATCH_DATA_BYTES = 1 << 18 };

struct wal_spares; /* what came back, and who may still give something back */

struct wal_spares *wal_spares_new(void); /* NULL: out of memory */
void wal_spares_leave(struct wal_spares *spares);

struct wal_batch {
    struct wal_spares *spares;
    uint64_t capacity;
    char *bytes; /* capacity of them, behind this struct; by them the batch is given back */
};

/* Memory for some records of so many bytes, and their tables. NULL: out of memory. */
struct wal_batch *wal_batch_new(struct wal_spares *spares, uint64_t data_bytes, uint64_t records);

/* Is it what wal_batch_new would give for so many records of so many bytes? */
int wal_batch_is_fit(const struct wal_batch *batch, uint64_t data_bytes, uint64_t records);

/* Where in bytes the tables begin, behind so much data. */
uint64_t wal_batch_tables(uint64_t data_bytes);

void wal_batch_free(struct wal_batch *batch);

#endif
