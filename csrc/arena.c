/* A circular allocator over the buffers of the ring; see arena.h. */
#include "arena.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "hooks.h"

enum { PAGE_BYTES = 4096 };

static size_t whole_pages(size_t bytes) {
    return (bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
}

int wal_arena_init(struct wal_arena *arena, size_t bytes) {
    assert(bytes % PAGE_BYTES == 0);
    *arena = (struct wal_arena){.bytes = bytes};
    if (bytes == 0) return 0;
    arena->memory = wal_aligned(PAGE_BYTES, bytes);
    return arena->memory == NULL ? -ENOMEM : 0;
}

void wal_arena_free(struct wal_arena *arena) {
    assert(arena->taken == arena->given);
    wal_free(arena->memory);
    *arena = (struct wal_arena){.memory = NULL};
}

/* How many bytes to skip so that a run of so many does not cross the end. */
static size_t skip_for(const struct wal_arena *arena, size_t bytes) {
    size_t at = (size_t)(arena->taken % arena->bytes);
    return arena->bytes - at < bytes ? arena->bytes - at : 0;
}

int wal_arena_has(const struct wal_arena *arena, size_t bytes) {
    bytes = whole_pages(bytes);
    if (arena->memory == NULL || bytes > arena->bytes) return 0;
    uint64_t used = arena->taken - arena->given;
    return used == 0 || used + skip_for(arena, bytes) + bytes <= arena->bytes;
}

int wal_arena_take(struct wal_arena *arena, size_t bytes, struct wal_run *run) {
    bytes = whole_pages(bytes);
    *run = (struct wal_run){.bytes = bytes};
    if (!wal_arena_has(arena, bytes)) {
        run->data = wal_aligned(PAGE_BYTES, bytes);
        return run->data == NULL ? -ENOMEM : 0;
    }
    if (arena->taken == arena->given) { /* empty: begin at the front, where the cache is warm */
        arena->taken = (arena->taken + arena->bytes - 1) / arena->bytes * arena->bytes;
        arena->given = arena->taken;
    }
    arena->taken += skip_for(arena, bytes);
    run->data = arena->memory + arena->taken % arena->bytes;
    arena->taken += bytes;
    run->arena_end = arena->taken;
    return 0;
}

void wal_arena_give(struct wal_arena *arena, const struct wal_run *run) {
    if (run->arena_end == 0) {
        wal_free(run->data);
        return;
    }
    assert(run->arena_end > arena->given && run->arena_end <= arena->taken);
    arena->given = run->arena_end;
}
