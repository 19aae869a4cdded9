/* Batches and spares; batch.h says what for. */
#include "batch.h"

#include <stdatomic.h>
#include <string.h>

#include "frame.h"
#include "hooks.h"
#include "walengine.h"

/* While one batch is looked at the next one is read: two go round, the rest is for who lags. */
enum { SPARES_MAX = 4, CACHE_LINE_BYTES = 64, TABLE_BYTES = 8 + 4 + 4 };
enum { USUAL_BYTES = WAL_BATCH_DATA_BYTES + WAL_BATCH_RECORDS_MAX * TABLE_BYTES };

struct wal_spares {
    atomic_uint users; /* the cursor and every batch that is out */
    struct wal_batch *_Atomic places[SPARES_MAX];
};

struct wal_spares *wal_spares_new(void) {
    struct wal_spares *spares = wal_calloc(1, sizeof *spares);
    if (spares != NULL) atomic_init(&spares->users, 1);
    return spares;
}

static struct wal_batch *take_spare(struct wal_spares *spares) {
    for (int i = 0; i < SPARES_MAX; i++) {
        struct wal_batch *batch = atomic_exchange(&spares->places[i], NULL);
        if (batch != NULL) return batch;
    }
    return NULL;
}

void wal_spares_leave(struct wal_spares *spares) {
    if (spares == NULL || atomic_fetch_sub(&spares->users, 1) > 1) return;
    for (struct wal_batch *batch; (batch = take_spare(spares)) != NULL;) wal_free(batch);
    wal_free(spares);
}

/* ---- one batch ------------------------------------------------------------------------------- */

uint64_t wal_batch_tables(uint64_t data_bytes) { return wal_round_up(data_bytes, 8); }

static uint64_t bytes_for(uint64_t data_bytes, uint64_t records) {
    return wal_batch_tables(data_bytes) + records * TABLE_BYTES;
}

struct wal_batch *wal_batch_new(struct wal_spares *spares, uint64_t data_bytes, uint64_t records) {
    uint64_t capacity = bytes_for(data_bytes, records);
    struct wal_batch *batch = NULL;
    if (capacity <= USUAL_BYTES) {
        capacity = USUAL_BYTES;
        batch = take_spare(spares);
    }
    if (batch == NULL) batch = wal_aligned(CACHE_LINE_BYTES, CACHE_LINE_BYTES + capacity);
    if (batch == NULL) return NULL;
    *batch = (struct wal_batch){
        .spares = spares, .capacity = capacity, .bytes = (char *)batch + CACHE_LINE_BYTES};
    atomic_fetch_add(&spares->users, 1);
    return batch;
}

/* One larger than usual serves nobody else. */
int wal_batch_is_fit(const struct wal_batch *batch, uint64_t data_bytes, uint64_t records) {
    return batch->capacity == USUAL_BYTES && bytes_for(data_bytes, records) <= USUAL_BYTES;
}

static int keep_as_spare(struct wal_batch *batch) {
    if (batch->capacity != USUAL_BYTES) return 0;
    for (int i = 0; i < SPARES_MAX; i++) {
        struct wal_batch *nothing = NULL;
        if (atomic_compare_exchange_strong(&batch->spares->places[i], &nothing, batch)) return 1;
    }
    return 0;
}

void wal_batch_free(struct wal_batch *batch) {
    if (batch == NULL) return;
    struct wal_spares *spares = batch->spares;
    if (!keep_as_spare(batch)) wal_free(batch);
    wal_spares_leave(spares);
}

void wal_block_free(const char *data) {
    if (data == NULL) return;
    wal_batch_free((struct wal_batch *)(uintptr_t)(data - CACHE_LINE_BYTES));
}
