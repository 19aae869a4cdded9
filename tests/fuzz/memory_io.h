/*
 * A directory in memory behind the I/O seam, read-only: what the fuzzers give the core to read.
 *
 * An image is a control byte and a list of patches over files of zeros:
 *
 *   u8 control, then patches of { u8 file, u16 offset / 8, u16 length, length bytes }
 *
 * File 0 is META, file n is segment n. So a log of mostly zeros is a small input, and a mutation is
 * a small change of the log. A patch that does not fit ends the list.
 */
#ifndef WALENGINE_FUZZ_MEMORY_IO_H
#define WALENGINE_FUZZ_MEMORY_IO_H

#include <errno.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "format.h"
#include "hooks.h"
#include "io.h"
#include "log.h"

enum { MEMORY_FILES = 5, MEMORY_FILE_BYTES = 65536, MEMORY_PATCH_BYTES = 5 };

struct memory_io {
    struct wal_io io;
    uint64_t bytes[MEMORY_FILES]; /* 0: the file does not exist */
    char data[MEMORY_FILES][MEMORY_FILE_BYTES];
};

static const char *memory_name(int file, char name[64]) {
    if (file == 0) return "META";
    (void)snprintf(name, 64, "wal-%016x.seg", (unsigned)file);
    return name;
}

static int memory_open(struct wal_io *io, const char *name, unsigned flags) {
    const struct memory_io *memory = (const struct memory_io *)io;
    char own[64];
    if (flags & (WAL_IO_WRITE | WAL_IO_CREATE)) return -EROFS;
    for (int i = 0; i < MEMORY_FILES; i++) {
        if (memory->bytes[i] > 0 && strcmp(name, memory_name(i, own)) == 0) return i;
    }
    return -ENOENT;
}

static int memory_close(struct wal_io *io, int file) {
    (void)io;
    (void)file;
    return 0;
}

static int memory_stat(struct wal_io *io, int file, struct wal_io_stat *stat) {
    const struct memory_io *memory = (const struct memory_io *)io;
    *stat = (struct wal_io_stat){
        .bytes = memory->bytes[file], .inode = (uint64_t)file + 1, .is_regular = 1, .is_ours = 1};
    return 0;
}

static int64_t memory_read(struct wal_io *io, int file, uint64_t offset, void *data, size_t bytes) {
    const struct memory_io *memory = (const struct memory_io *)io;
    uint64_t size = memory->bytes[file];
    if (offset >= size) return 0;
    size_t count = size - offset < bytes ? (size_t)(size - offset) : bytes;
    memcpy(data, memory->data[file] + offset, count);
    return (int64_t)count;
}

static int64_t memory_next_data(struct wal_io *io, int file, uint64_t offset, uint64_t *end) {
    *end = UINT64_MAX;
    const struct memory_io *memory = (const struct memory_io *)io;
    return (int64_t)(offset < memory->bytes[file] ? offset : memory->bytes[file]);
}

static int memory_list(struct wal_io *io, struct wal_io_name **names, size_t *count) {
    const struct memory_io *memory = (const struct memory_io *)io;
    char own[64];
    *count = 0;
    *names = wal_calloc(MEMORY_FILES, sizeof **names);
    if (*names == NULL) return -ENOMEM;
    for (int i = 0; i < MEMORY_FILES; i++) {
        if (memory->bytes[i] == 0) continue;
        struct wal_io_name *name = &(*names)[(*count)++];
        (void)snprintf(name->text, sizeof name->text, "%s", memory_name(i, own));
        name->is_regular = 1;
    }
    return 0;
}

static void memory_destroy(struct wal_io *io) { free(io); }

/* Readers call these only. */
static const struct wal_io_ops memory_ops = {
    .open = memory_open,
    .close = memory_close,
    .stat = memory_stat,
    .read = memory_read,
    .next_data = memory_next_data,
    .list = memory_list,
    .destroy = memory_destroy,
};

static struct memory_io *memory_new(void) {
    struct memory_io *memory = calloc(1, sizeof *memory);
    if (memory == NULL) abort();
    memory->io.ops = &memory_ops;
    return memory;
}

static uint32_t memory_u16(const uint8_t *at) { return (uint32_t)at[0] | (uint32_t)at[1] << 8; }

/* Lay the patches over files of zeros; a file is as long as its last patch, in whole blocks. */
static inline void memory_patch(struct memory_io *memory, const uint8_t *input, size_t size) {
    while (size >= MEMORY_PATCH_BYTES) {
        unsigned file = input[0] % MEMORY_FILES;
        uint64_t offset = (uint64_t)memory_u16(input + 1) * 8;
        uint64_t length = memory_u16(input + 3);
        input += MEMORY_PATCH_BYTES;
        size -= MEMORY_PATCH_BYTES;
        if (length > size) length = size;
        if (offset + length > MEMORY_FILE_BYTES) return;
        memcpy(memory->data[file] + offset, input, length);
        uint64_t end = (offset + length + WAL_BLOCK_BYTES - 1) / WAL_BLOCK_BYTES * WAL_BLOCK_BYTES;
        if (end > memory->bytes[file]) memory->bytes[file] = end;
        input += length;
        size -= length;
    }
}

#endif
