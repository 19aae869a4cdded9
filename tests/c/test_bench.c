/*
 * The fsync bench: every method in every state, the files it makes, and everything that can fail.
 *
 * What must hold: a row that is whole counted as many syncs as it did; a failure is the row's
 * result and names itself; no descriptor, no name and no memory stays behind.
 */
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bench_sync.h"
#include "check.h"

enum { PAGE = 4096, FILE_BYTES = 1 << 20, ROW_US = 3000, LONG_US = 60000000 };

static char directory[64];
static wal_bench_result result;
static wal_error error;
static uint64_t rows_run;

static wal_bench_row row_of(uint32_t method, uint32_t state) {
    return (wal_bench_row){.method = method,
                           .state = state,
                           .write_bytes = PAGE,
                           .concurrency = 1,
                           .provider = WAL_RING_BUILTIN,
                           .duration_us = ROW_US,
                           .file_bytes_max = FILE_BYTES};
}

static int run(const wal_bench_row *row) {
    wal_bench *bench = NULL;
    CHECK_EQ(wal_bench_open(directory, &bench, &error), 0);
    int code = wal_bench_run(bench, row, &result, &error);
    wal_bench_close(bench);
    rows_run++;
    return code;
}

/* Entries of a directory, but for "." and "..". */
static int entries_of(const char *path) {
    DIR *open_directory = opendir(path);
    CHECK(open_directory != NULL);
    int count = 0;
    while (readdir(open_directory) != NULL) count++;
    closedir(open_directory);
    return count - 2;
}

static int has_direct(void) {
    wal_bench_row row = row_of(WAL_BENCH_DIRECT_DSYNC, WAL_BENCH_ZERO_FILLED);
    return run(&row) != -EOPNOTSUPP;
}

/* ---- what works ------------------------------------------------------------------------------ */

static void check_whole(const wal_bench_row *row) {
    CHECK(result.commits > 0);
    CHECK_EQ(result.bytes, result.commits * row->write_bytes);
    CHECK_EQ(result.latency.count, result.commits);
    CHECK(result.latency.p50_us <= result.latency.max_us);
    uint64_t in_buckets = 0;
    for (uint32_t i = 0; i < WAL_BENCH_BUCKETS; i++) in_buckets += result.buckets[i];
    CHECK_EQ(in_buckets, result.commits);
    if (row->method == WAL_BENCH_WRITE) {
        CHECK_EQ(result.syncs, 0);
    } else if (row->group) {
        CHECK(result.syncs > 0 && result.syncs <= result.commits);
    } else {
        CHECK_EQ(result.syncs, result.commits);
    }
}

static void every_method_in_every_state(void) {
    int direct = has_direct(), descriptors = entries_of("/proc/self/fd");
    for (uint32_t method = 0; method <= WAL_BENCH_RING_DIRECT; method++) {
        if (wal_bench_is_direct(method) && !direct) continue;
        for (uint32_t state = 0; state <= WAL_BENCH_RECYCLED; state++) {
            for (uint32_t at_once = 1; at_once <= 64; at_once *= 8) {
                wal_bench_row row = row_of(method, state);
                row.concurrency = at_once;
                CHECK_EQ(run(&row), 0);
                check_whole(&row);
            }
        }
    }
    CHECK_EQ(entries_of("/proc/self/fd"), descriptors);
    CHECK_EQ(entries_of(directory), 0);
}

static void one_sync_serves_a_group(void) {
    for (uint32_t method = WAL_BENCH_FDATASYNC; method <= WAL_BENCH_FSYNC; method++) {
        for (uint32_t at_once = 1; at_once <= 64; at_once *= 8) {
            wal_bench_row row = row_of(method, WAL_BENCH_RECYCLED);
            row.concurrency = at_once;
            row.group = 1;
            row.write_bytes = 300; /* of any size: neighbours share a page */
            CHECK_EQ(run(&row), 0);
            check_whole(&row);
        }
    }
}

static void a_row_ends_where_its_file_does(void) {
    wal_bench_row row = row_of(WAL_BENCH_WRITE, WAL_BENCH_GROWING);
    row.duration_us = LONG_US;
    CHECK_EQ(run(&row), 0);
    CHECK_EQ(result.warm_up_commits + result.commits, FILE_BYTES / PAGE);
}

/* ---- files ----------------------------------------------------------------------------------- */

/* A run by its parts, with its file open. */
static struct wal_bench_run *begin_run(const wal_bench_row *row, wal_bench *bench) {
    struct wal_bench_run *parts = calloc(1, sizeof *parts);
    CHECK(parts != NULL);
    parts->bench = bench;
    parts->row = row;
    parts->seed = 7;
    pthread_mutex_init(&parts->mutex, NULL);
    pthread_cond_init(&parts->changed, NULL);
    CHECK_EQ(wal_bench_file_open(parts), 0);
    CHECK_EQ(entries_of(directory), 0);
    return parts;
}

static void end_run(struct wal_bench_run *parts) {
    close(parts->file);
    pthread_cond_destroy(&parts->changed);
    pthread_mutex_destroy(&parts->mutex);
    free(parts);
}

static char *content_of(int file, uint64_t bytes) {
    char *content = malloc(bytes);
    CHECK(content != NULL);
    CHECK_EQ(pread(file, content, bytes, 0), bytes);
    return content;
}

static void check_distinct(const char *content, uint64_t blocks) {
    for (uint64_t a = 0; a < blocks; a++) {
        for (uint64_t b = 0; b < a; b++) {
            CHECK(memcmp(content + a * PAGE, content + b * PAGE, PAGE) != 0);
        }
    }
}

static void a_file_is_what_its_state_says(void) {
    enum { BLOCKS = 32, BYTES = BLOCKS * PAGE };
    wal_bench *bench = NULL;
    CHECK_EQ(wal_bench_open(directory, &bench, &error), 0);
    for (uint32_t state = 0; state <= WAL_BENCH_RECYCLED; state++) {
        wal_bench_row row = row_of(WAL_BENCH_FDATASYNC, state);
        struct wal_bench_run *parts = begin_run(&row, bench);
        CHECK_EQ(wal_bench_file_prepare(parts, BYTES / 2), 0);
        CHECK_EQ(wal_bench_file_prepare(parts, BYTES), 0);
        struct stat st;
        CHECK_EQ(fstat(parts->file, &st), 0);
        CHECK_EQ(st.st_size, state == WAL_BENCH_GROWING ? 0 : BYTES);
        CHECK_EQ(st.st_blocks >= BYTES / 512, state != WAL_BENCH_GROWING);
        if (state == WAL_BENCH_ZERO_FILLED) {
            char *zeros = calloc(1, BYTES), *content = content_of(parts->file, BYTES);
            CHECK_BYTES(content, zeros, BYTES);
            free(content);
            free(zeros);
        }
        if (state == WAL_BENCH_RECYCLED) {
            char *content = content_of(parts->file, BYTES);
            check_distinct(content, BLOCKS);
            free(content);
        }
        end_run(parts);
    }
    wal_bench_close(bench);
}

/* No write is all zeros or another's twin: a device could keep it in less, or not at all. */
static void what_is_written_cannot_be_made_smaller(void) {
    enum { BLOCKS = 64, BYTES = BLOCKS * PAGE };
    wal_bench_row row = row_of(WAL_BENCH_FDATASYNC, WAL_BENCH_ZERO_FILLED);
    row.concurrency = 4;
    row.write_bytes = 2 * PAGE;
    wal_bench *bench = NULL;
    CHECK_EQ(wal_bench_open(directory, &bench, &error), 0);
    struct wal_bench_run *parts = begin_run(&row, bench);
    struct wal_bench_tally *tally = calloc(1, sizeof *tally);
    CHECK_EQ(wal_bench_file_prepare(parts, BYTES), 0);
    parts->end = BYTES;
    parts->duration_ns = UINT64_C(60000000000);
    CHECK_EQ(wal_bench_loop(parts, tally), 0);
    CHECK_EQ(tally->latency.count, BLOCKS / 2);
    char *content = content_of(parts->file, BYTES);
    check_distinct(content, BLOCKS);
    unsigned used[256] = {0};
    for (uint64_t i = 0; i < BYTES; i++) used[(unsigned char)content[i]]++;
    for (int byte = 0; byte < 256; byte++)
        CHECK(used[byte] > BYTES / 512 && used[byte] < BYTES / 128);
    free(content);
    free(tally);
    end_run(parts);
    wal_bench_close(bench);
}

/* ---- what fails ------------------------------------------------------------------------------ */

static uint32_t fault_of(uint32_t method, int of_sync) {
    if (method == WAL_BENCH_RING_LINKED && of_sync) return WAL_FAULT_CQE_SYNC;
    if (wal_bench_has_ring(method)) return WAL_FAULT_CQE_WRITE;
    return of_sync ? WAL_FAULT_SYNC : WAL_FAULT_WRITE;
}

static void a_failure_is_the_rows_result(void) {
    int direct = has_direct();
    for (uint32_t method = 0; method <= WAL_BENCH_RING_DIRECT; method++) {
        if (wal_bench_is_direct(method) && !direct) continue;
        for (int of_sync = 0; of_sync < 2; of_sync++) {
            if (method == WAL_BENCH_WRITE && of_sync) continue;
            for (uint32_t at_once = 1; at_once <= 16; at_once *= 16) {
                wal_bench_row row = row_of(method, WAL_BENCH_ZERO_FILLED);
                row.concurrency = at_once;
                row.group = at_once > 1 && method == WAL_BENCH_FDATASYNC;
                row.duration_us = LONG_US;
                wal_fault_set(fault_of(method, of_sync), 90, 1, WAL_FAULT_FAIL, EIO);
                int code = run(&row);
                wal_fault_clear();
                /* So few writes may leave a group no ninetieth sync. */
                if (code == 0) CHECK(row.group);
                if (code == 0) continue;
                CHECK_EQ(code, -EIO);
                CHECK_EQ(error.os_error, EIO);
                CHECK(strstr(error.message, "ing: Input/output error") != NULL);
            }
        }
    }
    CHECK_EQ(entries_of(directory), 0);
}

static void a_short_write_is_finished_or_fails_the_row(void) {
    wal_bench_row row = row_of(WAL_BENCH_FDATASYNC, WAL_BENCH_GROWING);
    wal_fault_set(WAL_FAULT_WRITE, 5, 1, WAL_FAULT_SHORT, 1000);
    CHECK_EQ(run(&row), 0);
    check_whole(&row);
    row.method = WAL_BENCH_DSYNC; /* here each part is a sync */
    CHECK_EQ(run(&row), 0);
    CHECK(result.syncs > result.commits);
    wal_fault_set(WAL_FAULT_CQE_WRITE, 5, 0, WAL_FAULT_SHORT, 1000);
    row.method = WAL_BENCH_RING_LINKED;
    row.duration_us = LONG_US; /* it ends at its fifth write, on a slow machine too */
    CHECK_EQ(run(&row), -EIO);
    CHECK(strstr(error.message, "short write") != NULL);
    wal_fault_clear();
}

/* A disk that lies is measured like any other: it is for others to wonder. */
static void a_sync_that_does_nothing_is_counted(void) {
    int direct = has_direct();
    wal_fault_set(WAL_FAULT_SYNC | WAL_FAULT_CQE_SYNC, 1, 1, WAL_FAULT_SKIP, 0);
    for (uint32_t method = WAL_BENCH_FDATASYNC; method <= WAL_BENCH_RING_LINKED; method++) {
        if (wal_bench_is_direct(method) && !direct) continue;
        wal_bench_row row = row_of(method, WAL_BENCH_ZERO_FILLED);
        CHECK_EQ(run(&row), 0);
        check_whole(&row);
        CHECK(wal_fault_hits() >= result.syncs);
    }
    wal_fault_clear();
}

static void *stop_soon(void *bench) {
    nanosleep(&(struct timespec){.tv_nsec = 30000000}, NULL);
    wal_bench_stop(bench);
    return NULL;
}

static void a_row_can_be_stopped(void) {
    for (uint32_t at_once = 1; at_once <= 16; at_once *= 16) {
        wal_bench *bench = NULL;
        pthread_t thread;
        wal_bench_row row = row_of(WAL_BENCH_RING_LINKED, WAL_BENCH_RECYCLED);
        row.concurrency = at_once;
        row.duration_us = LONG_US;
        row.file_bytes_max = UINT64_C(256) << 20;
        CHECK_EQ(wal_bench_open(directory, &bench, &error), 0);
        CHECK_EQ(pthread_create(&thread, NULL, stop_soon, bench), 0);
        CHECK_EQ(wal_bench_run(bench, &row, &result, &error), 0);
        CHECK_EQ(result.stopped, 1);
        pthread_join(thread, NULL);
        CHECK_EQ(wal_bench_run(bench, &row, &result, &error), 0);
        CHECK_EQ(result.commits, 0); /* no row begins any more */
        wal_bench_close(bench);
    }
}

static void a_row_that_means_nothing_is_refused(void) {
    wal_bench_row rows[9];
    for (int i = 0; i < 9; i++) rows[i] = row_of(WAL_BENCH_FDATASYNC, WAL_BENCH_GROWING);
    rows[0].method = WAL_BENCH_RING_DIRECT + 1;
    rows[1].state = WAL_BENCH_RECYCLED + 1;
    rows[2].write_bytes = 0;
    rows[3].write_bytes = (16 << 20) + 1;
    rows[4].concurrency = 0;
    rows[5].concurrency = WAL_BENCH_CONCURRENCY_MAX + 1;
    rows[6].group = 1;
    rows[6].method = WAL_BENCH_DSYNC;
    rows[7].file_bytes_max = PAGE - 1;
    rows[8].method = WAL_BENCH_RING_DIRECT;
    rows[8].write_bytes = 256;
    for (int i = 0; i < 9; i++) {
        CHECK_EQ(run(&rows[i]), WAL_E_INVALID);
        CHECK(error.message[0] != '\0');
    }
    wal_bench *bench = NULL;
    CHECK_EQ(wal_bench_open("/dev/null/nothing", &bench, &error), -ENOTDIR);
    CHECK(bench == NULL);
}

static void no_memory_is_an_error(void) {
    uint64_t failed = 0;
    for (uint32_t method = WAL_BENCH_FDATASYNC; method <= WAL_BENCH_RING_LINKED; method += 5) {
        for (uint64_t nth = 1, last = 1; nth <= last; nth++) {
            wal_bench_row row = row_of(method, WAL_BENCH_ZERO_FILLED);
            row.concurrency = 3;
            wal_bench *bench = NULL;
            CHECK_EQ(wal_bench_open(directory, &bench, &error), 0);
            (void)wal_alloc_fail(nth);
            int code = wal_bench_run(bench, &row, &result, &error);
            last = wal_alloc_fail(0) + 1;
            CHECK(code == 0 || code == -ENOMEM);
            failed += code == -ENOMEM;
            wal_bench_close(bench);
        }
    }
    CHECK(failed > 10);
    COUNT("failed allocations", failed);
}

int main(void) {
    const char *place = getenv("TMPDIR");
    snprintf(directory, sizeof directory, "%s/walengine-XXXXXX", place != NULL ? place : "/tmp");
    CHECK(mkdtemp(directory) != NULL);
    RUN(every_method_in_every_state);
    RUN(one_sync_serves_a_group);
    RUN(a_row_ends_where_its_file_does);
    RUN(a_file_is_what_its_state_says);
    RUN(what_is_written_cannot_be_made_smaller);
    RUN(a_failure_is_the_rows_result);
    RUN(a_short_write_is_finished_or_fails_the_row);
    RUN(a_sync_that_does_nothing_is_counted);
    RUN(a_row_can_be_stopped);
    RUN(a_row_that_means_nothing_is_refused);
    RUN(no_memory_is_an_error);
    COUNT("rows", rows_run);
    CHECK_EQ(rmdir(directory), 0);
    return check_end();
}
