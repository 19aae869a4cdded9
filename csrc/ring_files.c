/*
 * The registered file table: a writable file has a place in it, so that the kernel need not look a
 * descriptor up for every entry. A file that finds no place is used by its descriptor.
 *
 * The place of a file that is closed while requests name it is emptied when the last of them is
 * done: a linked entry looks its file up when it starts, and must not find another one there.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "hooks.h"
#include "ring_engine.h"

int wal_engine_register_files(struct wal_engine *e) {
    int none[WAL_RING_FILES];
    for (int i = 0; i < WAL_RING_FILES; i++) none[i] = -1;
    for (int i = 0; i < WAL_RING_FILES; i++) e->slots[i].file = -1;
    int result = wal_ring_register_files(&e->ring, none, WAL_RING_FILES);
    e->has_slots = result >= 0;
    return result < 0 ? result : 0;
}

/* Make room for a mark of this descriptor. */
static int grow(struct wal_engine *e, int file) {
    if (file < e->files_count) return 0;
    int count = file + 64;
    struct wal_engine_file *more = wal_realloc(e->files, (size_t)count * sizeof *more);
    if (more == NULL) return -ENOMEM;
    for (int i = e->files_count; i < count; i++) {
        more[i] = (struct wal_engine_file){.slot = -1};
    }
    e->files = more;
    e->files_count = count;
    return 0;
}

static int take_slot(struct wal_engine *e, int file) {
    if (!e->has_slots) return -1;
    for (int i = 0; i < WAL_RING_FILES; i++) {
        if (e->slots[i].file >= 0) continue;
        int result = e->ring.table->register_files_update(e->ring.state, (unsigned)i, &file, 1);
        if (result < 1) return -1;
        e->slots[i] = (struct wal_engine_slot){.file = file};
        return i;
    }
    return -1;
}

/* 0; 1: by its descriptor though it is writable; -ENOMEM. */
int wal_engine_add_file(struct wal_engine *e, int file, int is_writable, int is_direct) {
    assert(file >= 0);
    int result = grow(e, file);
    if (result < 0) return result;
    struct wal_engine_file *mark = &e->files[file];
    mark->slot = (int8_t)(is_writable ? take_slot(e, file) : -1);
    mark->is_direct = (uint8_t)(is_direct != 0);
    return is_writable && mark->slot < 0 ? 1 : 0;
}

static void empty_slot(struct wal_engine *e, int place) {
    int none = -1;
    struct wal_engine_slot *slot = &e->slots[place];
    /* If the kernel refuses, the place keeps the file open and is not used again. */
    if (e->ring.table->register_files_update(e->ring.state, (unsigned)place, &none, 1) == 1) {
        slot->file = -1;
    }
}

void wal_engine_remove_file(struct wal_engine *e, int file) {
    if (file < 0 || file >= e->files_count) return;
    int place = e->files[file].slot;
    e->files[file] = (struct wal_engine_file){.slot = -1};
    if (place < 0) return;
    if (e->slots[place].busy > 0) {
        e->slots[place].is_closed = 1;
    } else {
        empty_slot(e, place);
    }
}

void wal_engine_use_file(struct wal_engine *e, struct wal_engine_request *r) {
    r->slot = -1;
    if (r->file < 0 || r->file >= e->files_count) return;
    r->slot = e->files[r->file].slot;
    r->is_direct = e->files[r->file].is_direct;
    if (r->slot >= 0) e->slots[r->slot].busy++;
}

void wal_engine_leave_file(struct wal_engine *e, struct wal_engine_request *r) {
    if (r->slot < 0) return;
    struct wal_engine_slot *slot = &e->slots[r->slot];
    assert(slot->busy > 0);
    if (--slot->busy == 0 && slot->is_closed) empty_slot(e, r->slot);
}

/* Closing the ring alone would let the files go later, by a worker of the kernel. */
void wal_engine_clear_files(struct wal_engine *e) {
    for (int i = 0; e->has_slots && i < WAL_RING_FILES; i++) {
        if (e->slots[i].file >= 0) empty_slot(e, i);
    }
}
