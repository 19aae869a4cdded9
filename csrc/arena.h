/*
 * The memory that requests are written from: registered_buffers buffers, back to back, taken and
 * given back in order, as groups go to the device and come back acknowledged in order.
 *
 * A run is contiguous; one that would cross the end begins at the front again. A run for which
 * there is no room, or that is larger than all of it, has memory of its own.
 */
#ifndef WALENGINE_ARENA_H
#define WALENGINE_ARENA_H

#include <stddef.h>
#include <stdint.h>

struct wal_arena {
    char *memory; /* NULL: every run has memory of its own */
    size_t bytes;
    uint64_t taken; /* bytes ever taken, what was skipped at the end included */
    uint64_t given; /* bytes ever given back */
};

struct wal_run {
    char *data;
    size_t bytes;
    uint64_t arena_end; /* wal_arena.given once this run is back; 0: its memory is its own */
};

int wal_arena_init(struct wal_arena *arena, size_t bytes);
void wal_arena_free(struct wal_arena *arena);

/* Would a run of so many bytes come out of the arena right now? */
int wal_arena_has(const struct wal_arena *arena, size_t bytes);

/* Take a run, page aligned, its length rounded up to 4096; -ENOMEM. */
int wal_arena_take(struct wal_arena *arena, size_t bytes, struct wal_run *run);

/* Give runs back in the order in which they were taken. */
void wal_arena_give(struct wal_arena *arena, const struct wal_run *run);

#endif
