/*
 * The fsync bench: how long it takes to make a small write durable, by every method.
 *
 * A row is one method on a file in one state. It goes like this:
 *
 *   1. A file is made that has no name (bench_file.c), so that nothing stays behind, whatever ends
 *      the process.
 *   2. A short stretch of it is brought into the row's state. A warm-up writes that stretch and
 *      tells how fast this disk is.
 *   3. So much more is prepared as the row will need at that speed, twice over, within the row's
 *      limit. All of it is synced before the clock starts.
 *   4. The same loop as in the warm-up runs until the row's time is over or the file is used up:
 *      every place is written once, so that "growing" never means "written already".
 *
 * Nothing is assumed to work. A short write is finished, or fails the row where a ring cannot
 * finish it; every result is looked at; the first failure ends the row and is what it reports. The
 * fault injector of the log (io_fault.c) decides about each write and each sync, so that tests can
 * have a disk that lies.
 */
#include "bench_sync.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "error.h"
#include "hooks.h"

enum {
    WRITE_BYTES_MAX = 16 << 20,
    WARM_UP_COMMITS = 64,
    WARM_UP_BYTES_MAX = 16 << 20,
    WARM_UP_SHARE = 4, /* of the row's time, at most */
    MARGIN_BYTES = 8 << 20,
    ALIGNMENT = 4096,
};

_Static_assert((int)WAL_BENCH_BUCKETS == (int)WAL_HISTOGRAM_BUCKETS, "walengine.h has the number");

/* ---- methods --------------------------------------------------------------------------------- */

int wal_bench_is_direct(uint32_t method) {
    return method == WAL_BENCH_DIRECT_DSYNC || method == WAL_BENCH_RING_DIRECT;
}

int wal_bench_syncs_itself(uint32_t method) {
    return method == WAL_BENCH_DSYNC || method == WAL_BENCH_DIRECT_DSYNC ||
           method == WAL_BENCH_RWF_DSYNC || method == WAL_BENCH_RING_DIRECT;
}

int wal_bench_has_ring(uint32_t method) {
    return method == WAL_BENCH_RING_LINKED || method == WAL_BENCH_RING_DIRECT;
}

/* ---- what the loops share -------------------------------------------------------------------- */

static int is_ending(struct wal_bench_run *run) {
    return atomic_load_explicit(&run->failed, memory_order_relaxed) ||
           atomic_load_explicit(&run->bench->stopping, memory_order_relaxed);
}

void wal_bench_start_clock(struct wal_bench_run *run) {
    run->deadline_ns = wal_bench_now_ns() + run->duration_ns;
}

int wal_bench_claim(struct wal_bench_run *run, uint64_t *offset) {
    if (is_ending(run)) return 0;
    if (wal_bench_now_ns() >= run->deadline_ns && atomic_load(&run->next) > run->begin) return 0;
    uint64_t bytes = run->row->write_bytes;
    *offset = atomic_fetch_add(&run->next, bytes);
    return *offset + bytes <= run->end;
}

int wal_bench_fail(struct wal_bench_run *run, int code, const char *what) {
    assert(code < 0);
    pthread_mutex_lock(&run->mutex);
    if (run->code == 0) {
        run->code = wal_fail_os(&run->error, code, WAL_NOWHERE, "%s", what);
        atomic_store(&run->failed, 1);
        pthread_cond_broadcast(&run->changed);
    }
    pthread_mutex_unlock(&run->mutex);
    return code;
}

void wal_bench_record(struct wal_bench_tally *tally, uint64_t begun_ns, uint64_t ended_ns,
                      uint64_t bytes) {
    if (tally->first_ns == 0) tally->first_ns = begun_ns;
    if (ended_ns > tally->last_ns) tally->last_ns = ended_ns;
    tally->bytes += bytes;
    wal_histogram_record(&tally->latency, ended_ns - begun_ns);
}

/* ---- a row ----------------------------------------------------------------------------------- */

static const char *problem_of(const wal_bench_row *row) {
    if (row->method > WAL_BENCH_RING_DIRECT) return "there is no such method";
    if (row->state > WAL_BENCH_RECYCLED) return "there is no such state of a file";
    if (row->write_bytes == 0 || row->write_bytes > WRITE_BYTES_MAX) {
        return "write_bytes must be from 1 to 16 MiB";
    }
    if (wal_bench_is_direct(row->method) && row->write_bytes % ALIGNMENT != 0) {
        return "write_bytes must be a multiple of 4096 past the page cache";
    }
    if (row->concurrency == 0 || row->concurrency > WAL_BENCH_CONCURRENCY_MAX) {
        return "concurrency must be from 1 to 64";
    }
    if (row->group && row->method != WAL_BENCH_FDATASYNC && row->method != WAL_BENCH_FSYNC) {
        return "a group shares an fdatasync or an fsync";
    }
    if (row->file_bytes_max < row->write_bytes) return "file_bytes_max has no room for a write";
    return NULL;
}

static uint64_t at_most(uint64_t value, uint64_t limit) { return value < limit ? value : limit; }

static uint64_t warm_up_bytes(const wal_bench_row *row) {
    uint64_t wanted = (uint64_t)row->write_bytes * WARM_UP_COMMITS;
    uint64_t rounds = (uint64_t)row->write_bytes * row->concurrency * 2;
    if (rounds > wanted) wanted = rounds;
    wanted = at_most(wanted, row->file_bytes_max / 2);
    wanted = at_most(wanted, WARM_UP_BYTES_MAX);
    /* A multiple of both, or the place of the first write that counts would not be aligned. */
    return wanted / row->write_bytes * row->write_bytes;
}

/* What the row will need at the warm-up's speed, twice over: a warm-up is short and may be slow. */
static uint64_t bytes_to_prepare(const struct wal_bench_run *run,
                                 const struct wal_bench_tally *warm_up) {
    const wal_bench_row *row = run->row;
    if (row->state == WAL_BENCH_GROWING) return row->file_bytes_max;
    uint64_t elapsed_ns = warm_up->last_ns - warm_up->first_ns;
    if (warm_up->latency.count == 0 || elapsed_ns == 0) return row->file_bytes_max;
    double rate = (double)warm_up->bytes / (double)elapsed_ns;
    double wanted = rate * (double)row->duration_us * 1000.0 * 2.0 + MARGIN_BYTES;
    if (wanted >= (double)row->file_bytes_max) return row->file_bytes_max;
    return at_most(run->prepared + (uint64_t)wanted, row->file_bytes_max);
}

static int run_phase(struct wal_bench_run *run, uint64_t end, uint64_t duration_ns,
                     struct wal_bench_tally *tally) {
    run->end = end;
    run->begin = atomic_load(&run->next);
    run->duration_ns = duration_ns;
    return wal_bench_has_ring(run->row->method) ? wal_bench_ring(run, tally)
                                                : wal_bench_loop(run, tally);
}

static int warm_up_and_measure(struct wal_bench_run *run, struct wal_bench_tally *warm_up,
                               struct wal_bench_tally *tally) {
    const wal_bench_row *row = run->row;
    uint64_t duration_ns = row->duration_us * 1000, begin = warm_up_bytes(row);
    int result = wal_bench_file_open(run);
    if (result == 0) result = wal_bench_file_prepare(run, begin);
    if (result == 0) result = wal_bench_file_ready(run);
    if (result == 0) result = run_phase(run, begin, duration_ns / WARM_UP_SHARE, warm_up);
    if (result == 0) result = wal_bench_file_prepare(run, bytes_to_prepare(run, warm_up));
    if (result == 0) result = wal_bench_file_ready(run);
    if (result < 0) return result;
    /* Growing goes on where the file ends; else what is left of the warm-up's stretch is let be. */
    if (row->state != WAL_BENCH_GROWING || atomic_load(&run->next) > begin) {
        atomic_store(&run->next, begin);
    }
    return run_phase(run, run->prepared, duration_ns, tally);
}

static void tell(const struct wal_bench_run *run, const struct wal_bench_tally *warm_up,
                 const struct wal_bench_tally *tally, wal_bench_result *result) {
    result->commits = tally->latency.count;
    result->syncs = tally->syncs;
    result->warm_up_commits = warm_up->latency.count;
    result->warm_up_syncs = warm_up->syncs;
    result->preparation_syncs = run->preparation_syncs;
    result->bytes = tally->bytes;
    result->elapsed_ns = tally->last_ns - tally->first_ns;
    result->stopped = atomic_load(&run->bench->stopping) != 0;
    result->unnamed = (uint32_t)run->unnamed;
    result->provider = run->provider;
    result->registered = run->registered;
    wal_histogram_summary(&tally->latency, &result->latency);
    memcpy(result->buckets, tally->latency.buckets, sizeof result->buckets);
}

static int run_row(struct wal_bench *bench, const wal_bench_row *row, wal_bench_result *result,
                   wal_error *error) {
    int code = -ENOMEM;
    struct wal_bench_run *run = wal_calloc(1, sizeof *run);
    struct wal_bench_tally *tallies = wal_calloc(2, sizeof *tallies);
    if (run == NULL || tallies == NULL) {
        (void)wal_fail_os(error, code, WAL_NOWHERE, "memory for the row");
    } else {
        run->bench = bench;
        run->row = row;
        run->file = -1;
        run->seed = wal_bench_now_ns() ^ ((uint64_t)getpid() << 32);
        pthread_mutex_init(&run->mutex, NULL);
        pthread_cond_init(&run->changed, NULL);
        code = warm_up_and_measure(run, &tallies[0], &tallies[1]);
        tell(run, &tallies[0], &tallies[1], result);
        if (code < 0 && error != NULL) *error = run->error;
        wal_bench_file_close(run);
        pthread_cond_destroy(&run->changed);
        pthread_mutex_destroy(&run->mutex);
    }
    wal_free(tallies);
    wal_free(run);
    return code;
}

/* ---- the API --------------------------------------------------------------------------------- */

int wal_bench_open(const char *directory, wal_bench **bench, wal_error *error) {
    assert(directory != NULL && bench != NULL);
    *bench = wal_calloc(1, sizeof **bench);
    if (*bench == NULL) return wal_fail_os(error, -ENOMEM, WAL_NOWHERE, "memory for the bench");
    (*bench)->directory = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if ((*bench)->directory >= 0) return 0;
    int code = wal_fail_os(error, -errno, WAL_NOWHERE, "opening the directory");
    wal_free(*bench);
    *bench = NULL;
    return code;
}

int wal_bench_run(wal_bench *bench, const wal_bench_row *row, wal_bench_result *result,
                  wal_error *error) {
    assert(bench != NULL && row != NULL && result != NULL);
    memset(result, 0, sizeof *result);
    const char *problem = problem_of(row);
    if (problem != NULL) return wal_fail(error, WAL_E_INVALID, WAL_NOWHERE, "%s", problem);
    int code = run_row(bench, row, result, error);
    if (code != -ENOSPC || atomic_load(&bench->stopping)) return code;
    /* xfs and btrfs give the last row's blocks back later, unless they are made to. */
    wal_bench_settle(bench);
    memset(result, 0, sizeof *result);
    return run_row(bench, row, result, error);
}

void wal_bench_stop(wal_bench *bench) { atomic_store(&bench->stopping, 1); }

void wal_bench_close(wal_bench *bench) {
    if (bench == NULL) return;
    (void)close(bench->directory);
    wal_free(bench);
}

double wal_bench_bucket_us(uint32_t bucket) {
    return bucket < WAL_HISTOGRAM_BUCKETS ? (double)wal_histogram_upper(bucket) / 1000.0 : 0.0;
}
