/*
 * The plain C loops that the engine is measured against: the same I/O without an engine.
 *
 *   limit sync DIRECTORY COUNT BYTES   pwrite of BYTES, then fdatasync, COUNT times one behind the
 *                                      other in a file of zeros that were written and synced first
 *   limit read FILE                    pread of the whole file past the page cache, 2 MiB at a time
 *   limit crc COUNT BYTES              copy BYTES and compute their CRC32C, COUNT times
 *
 * Each prints one JSON object. BYTES of "sync" is what the engine writes for one record: a header
 * of 64, the record, 4 for its end, rounded up to 8; so a record of 256 is a frame of 328.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "crc32c.h"
#include "walengine.h"

enum { BLOCK = 4096, READ_BYTES = 2 * 1048576, WARM_UP = 50, COUNT_MAX = 10000000 };

static void check(int ok, const char *what) {
    if (ok) return;
    fprintf(stderr, "limit: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t now_ns(void) {
    struct timespec now;
    check(clock_gettime(CLOCK_MONOTONIC, &now) == 0, "clock_gettime");
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

static uint64_t number(const char *text, uint64_t max) {
    char *end = NULL;
    errno = 0;
    uint64_t value = strtoull(text, &end, 10);
    if (errno == 0 && end != text && *end == '\0' && value > 0 && value <= max) return value;
    fprintf(stderr, "limit: %s is not a number from 1 to %" PRIu64 "\n", text, max);
    exit(2);
}

static void *aligned(size_t bytes) {
    void *memory = NULL;
    int result = posix_memalign(&memory, BLOCK, bytes);
    errno = result;
    check(result == 0, "posix_memalign");
    memset(memory, 0x5A, bytes);
    return memory;
}

static int ascending(const void *left, const void *right) {
    uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return a < b ? -1 : a > b ? 1 : 0;
}

/* ---- sync ------------------------------------------------------------------------------------ */

/* A file of zeros whose extents are written, as the engine's segments are ahead of the tail. */
static int make_zero_filled(const char *directory, uint64_t bytes) {
    static const char zeros[1 << 16];
    int at = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    check(at >= 0, directory);
    char name[64];
    snprintf(name, sizeof name, "limit-%ld.tmp", (long)getpid());
    int file = openat(at, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    check(file >= 0, name);
    check(unlinkat(at, name, 0) == 0, "unlinkat"); /* it goes with the process, however that ends */
    close(at);
    for (uint64_t offset = 0; offset < bytes; offset += sizeof zeros) {
        ssize_t wrote = pwrite(file, zeros, sizeof zeros, (off_t)offset);
        check(wrote == (ssize_t)sizeof zeros, "zero-filling");
    }
    check(fsync(file) == 0, "fsync");
    return file;
}

static uint64_t write_and_sync(int file, const char *frame, uint64_t bytes, uint64_t offset) {
    uint64_t begin = now_ns();
    ssize_t wrote = pwrite(file, frame, bytes, (off_t)offset);
    check(wrote == (ssize_t)bytes, "pwrite");
    check(fdatasync(file) == 0, "fdatasync");
    return now_ns() - begin;
}

static void run_sync(const char *directory, uint64_t count, uint64_t bytes) {
    char *frame = aligned(bytes);
    uint64_t *took = calloc(count, sizeof *took);
    check(took != NULL, "calloc");
    int file = make_zero_filled(directory, (count + WARM_UP) * bytes);
    uint64_t offset = 0;
    for (int i = 0; i < WARM_UP; i++, offset += bytes) write_and_sync(file, frame, bytes, offset);
    for (uint64_t i = 0; i < count; i++, offset += bytes) {
        took[i] = write_and_sync(file, frame, bytes, offset);
    }
    qsort(took, count, sizeof *took, ascending);
    printf("{\"count\": %" PRIu64 ", \"p50_us\": %.2f, \"p90_us\": %.2f, \"p99_us\": %.2f}\n",
           count, (double)took[count / 2] / 1e3, (double)took[count * 90 / 100] / 1e3,
           (double)took[count * 99 / 100] / 1e3);
    close(file);
    free(took);
    free(frame);
}

/* ---- read ------------------------------------------------------------------------------------ */

static void run_read(const char *path) {
    char *block = aligned(READ_BYTES);
    int file = open(path, O_RDONLY | O_CLOEXEC | O_DIRECT);
    check(file >= 0, path);
    uint64_t begin = now_ns(), total = 0;
    ssize_t got;
    while ((got = pread(file, block, READ_BYTES, (off_t)total)) > 0) total += (uint64_t)got;
    check(got == 0, "pread");
    printf("{\"bytes\": %" PRIu64 ", \"ms\": %.3f}\n", total, (double)(now_ns() - begin) / 1e6);
    close(file);
    free(block);
}

/* ---- crc ------------------------------------------------------------------------------------- */

static void run_crc(uint64_t count, uint64_t bytes) {
    enum { RING = 1 << 20 };
    char *source = aligned(bytes), *ring = aligned(RING);
    uint32_t sum = 0;
    uint64_t begin = now_ns(), offset = 0;
    for (uint64_t i = 0; i < count; i++) {
        if (offset + bytes > RING) offset = 0;
        memcpy(ring + offset, source, bytes);
        sum ^= wal_crc32c((uint32_t)i, ring + offset, bytes);
        offset += bytes;
    }
    double took_ns = (double)(now_ns() - begin);
    printf("{\"count\": %" PRIu64 ", \"ns\": %.2f, \"crc32c\": \"%s\", \"sum\": %" PRIu32 "}\n",
           count, took_ns / (double)count, wal_crc32c_name(), sum);
    free(source);
    free(ring);
}

int main(int count, char **arguments) {
    if (count == 5 && strcmp(arguments[1], "sync") == 0) {
        run_sync(arguments[2], number(arguments[3], COUNT_MAX), number(arguments[4], 1 << 20));
    } else if (count == 3 && strcmp(arguments[1], "read") == 0) {
        run_read(arguments[2]);
    } else if (count == 4 && strcmp(arguments[1], "crc") == 0) {
        run_crc(number(arguments[2], COUNT_MAX), number(arguments[3], 1 << 20));
    } else {
        fprintf(stderr, "usage: limit sync DIRECTORY COUNT BYTES | read FILE | crc COUNT BYTES\n");
        return 2;
    }
    return 0;
}
