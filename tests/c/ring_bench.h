/*
 * What the suites of the io_uring backend share: a directory, a ring with registered memory and one
 * file, and requests to it.
 *
 * Where the machine refuses io_uring the suites are skipped and say so; with
 * WALENGINE_REQUIRE_ALL=1 that is a failure.
 */
#ifndef WALENGINE_TESTS_RING_BENCH_H
#define WALENGINE_TESTS_RING_BENCH_H

#include <fcntl.h>
#include <unistd.h>

#include "check.h"
#include "hooks.h"
#include "io.h"
#include "io_uring.h"
#include "log.h"
#include "ring.h"

enum { PAGE = 4096, BUFFER_BYTES = 65536, BUFFERS = 4, FILE_BYTES = 1 << 20, HOUR_MS = 3600000 };

static char directory[256];
static char *memory; /* BUFFERS * BUFFER_BYTES, registered */
static char *elsewhere;

__attribute__((unused)) static void make_directory(void) {
    const char *base = getenv("TMPDIR");
    (void)snprintf(directory, sizeof directory, "%s/walengine-ring-XXXXXX",
                   base != NULL && base[0] != '\0' ? base : "/tmp");
    CHECK(mkdtemp(directory) != NULL);
}

__attribute__((unused)) static void remove_directory(void) {
    char command[300];
    (void)snprintf(command, sizeof command, "rm -rf '%s'", directory);
    CHECK_EQ(system(command), 0);
}

__attribute__((unused)) static wal_ring_options options(void) {
    return (wal_ring_options){.backend = WAL_BACKEND_IO_URING,
                              .provider = WAL_RING_BUILTIN,
                              .sq_entries = 64,
                              .max_inflight = 4,
                              .registered_buffers = BUFFERS,
                              .buffer_bytes = BUFFER_BYTES};
}

struct bench {
    struct wal_io *io;
    int file;
    uint64_t token;
};

/* The io, and a file of FILE_BYTES opened with flags, or -errno of that. */
__attribute__((unused)) static int open_bench_with(struct bench *bench, const wal_ring_options *how,
                                                   unsigned flags) {
    wal_error error = {.code = 0};
    wal_backend_info info;
    struct wal_io *base = NULL;
    CHECK_EQ(wal_io_posix_open(directory, WAL_DIR_WRITER | WAL_DIR_CREATE, &base, &error), 0);
    int result = wal_io_uring_wrap(base, how, &bench->io, &info, &error);
    if (result < 0) {
        fprintf(stderr, "%s\n", error.message);
        check_failed(__FILE__, __LINE__, "wal_io_uring_wrap: %d", result);
    }
    (void)wal_io_unlink(bench->io, "data");
    bench->file = wal_io_open(bench->io, "data", flags | WAL_IO_WRITE | WAL_IO_CREATE);
    bench->token = 0;
    if (bench->file < 0) {
        wal_io_destroy(bench->io);
        return bench->file;
    }
    CHECK_EQ(wal_io_allocate(bench->io, bench->file, FILE_BYTES), 0);
    if (how->registered_buffers > 0) {
        (void)wal_io_register_buffers(bench->io, memory, BUFFER_BYTES, BUFFERS);
    }
    return 0;
}

__attribute__((unused)) static struct bench open_bench(void) {
    struct bench bench;
    wal_ring_options how = options();
    CHECK_EQ(open_bench_with(&bench, &how, 0), 0);
    return bench;
}

__attribute__((unused)) static void close_bench(struct bench *bench) {
    wal_io_close(bench->io, bench->file);
    wal_io_destroy(bench->io);
    CHECK_EQ(wal_open_files(), 0);
}

__attribute__((unused)) static void submit(struct bench *bench, enum wal_io_kind kind,
                                           uint64_t offset, const void *data, size_t bytes) {
    struct wal_io_request request = {.kind = kind,
                                     .file = bench->file,
                                     .offset = offset,
                                     .data = data,
                                     .bytes = bytes,
                                     .token = ++bench->token};
    CHECK_EQ(wal_io_submit(bench->io, &request), 0);
}

/* The one request under way: its result. */
__attribute__((unused)) static int finish(struct bench *bench) {
    struct wal_io_completion done;
    CHECK_EQ(wal_io_reap(bench->io, &done, 1, -1, WAL_IO_MAY_BLOCK), 1);
    CHECK_EQ(done.token, bench->token);
    return done.result;
}

__attribute__((unused)) static void fill(char *data, size_t bytes, unsigned seed) {
    for (size_t i = 0; i < bytes; i++) data[i] = (char)(1 + (i / 512 * 7 + seed) % 250);
}

/* Is it in the file? Read by a descriptor of our own. */
__attribute__((unused)) static int is_written(uint64_t offset, const char *data, size_t bytes) {
    char path[300];
    (void)snprintf(path, sizeof path, "%s/data", directory);
    int file = open(path, O_RDONLY);
    CHECK(file >= 0);
    char *got = malloc(bytes);
    CHECK(got != NULL);
    int same =
        pread(file, got, bytes, (off_t)offset) == (int64_t)bytes && memcmp(got, data, bytes) == 0;
    free(got);
    close(file);
    return same;
}

__attribute__((unused)) static uint64_t ring_op(struct bench *bench, enum wal_ring_op op) {
    struct wal_io_counters total;
    wal_io_count(bench->io, &total);
    CHECK_EQ(total.cqe_overflows, 0);
    CHECK_EQ(total.sq_dropped, 0);
    CHECK(total.ops_completed <= total.ops_submitted);
    return total.ring_ops[op];
}

/* Run the tests in a fresh directory: what main returns. */
__attribute__((unused)) static int run_suite(void (*run_all)(void)) {
    wal_backend_info info;
    wal_error error = {.code = 0};
    wal_ring_options how = options();
    if (wal_ring_probe(&how, &info, &error) < 0) {
        printf("  skipped: io_uring does not work here: %s\n", error.message);
        return getenv("WALENGINE_REQUIRE_ALL") != NULL ? 1 : 0;
    }
    make_directory();
    memory = aligned_alloc(PAGE, BUFFERS * BUFFER_BYTES);
    elsewhere = aligned_alloc(PAGE, BUFFERS * BUFFER_BYTES);
    CHECK(memory != NULL && elsewhere != NULL);
    run_all();
    free(memory);
    free(elsewhere);
    remove_directory();
    return check_end();
}

#endif
