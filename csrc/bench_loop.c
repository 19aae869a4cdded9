/*
 * The bench's loops of system calls: one thread, or several on one file.
 *
 * Alone, or each for itself: claim a place, write it, sync, and again. As a group: each writes its
 * own place, and one sync serves everybody whose write had returned when it began. Whoever finds no
 * sync under way leads the next one; the others sleep. So databases commit, and so does the log.
 */
#include "bench_sync.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

#include "hooks.h"
#include "io_fault.h"

/* One thread. */
struct worker {
    struct wal_bench_run *run;
    char *data;
    struct wal_bench_tally tally;
    pthread_t thread;
};

/* ---- one write, one sync --------------------------------------------------------------------- */

/* pwrite, by the method; some of these are syncs as well. */
static ssize_t write_some(const struct wal_bench_run *run, const char *data, size_t bytes,
                          uint64_t offset) {
#if defined(__linux__) && defined(RWF_DSYNC)
    if (run->row->method == WAL_BENCH_RWF_DSYNC) {
        struct iovec part = {.iov_base = (void *)(uintptr_t)data, .iov_len = bytes};
        return pwritev2(run->file, &part, 1, (off_t)offset, RWF_DSYNC);
    }
#endif
    return pwrite(run->file, data, bytes, (off_t)offset);
}

/* What a test wants of this write. 1: it is done already, 0: go on, with *bytes; or -errno. */
static int misbehave(const struct wal_bench_run *run, size_t *bytes) {
    int64_t value = 0;
    uint64_t serial = 0;
    enum wal_fault_decision decision = wal_fault_decide(WAL_FAULT_WRITE, &value, &serial);
    if (decision == WAL_FAULT_DO && wal_bench_syncs_itself(run->row->method)) {
        decision = wal_fault_decide(WAL_FAULT_SYNC, &value, &serial);
    }
    switch (decision) {
        case WAL_FAULT_DO_FAIL: return -(int)value;
        case WAL_FAULT_DO_SKIP: return 1;
        case WAL_FAULT_DO_SHORT:
            if (value >= 0 && (size_t)value < *bytes) *bytes = (size_t)value;
            return 0;
        default: return 0;
    }
}

/* The whole write, short ones finished. */
static int write_all(struct worker *w, uint64_t offset) {
    const struct wal_bench_run *run = w->run;
    size_t whole = run->row->write_bytes;
    for (size_t done = 0; done < whole;) {
        size_t bytes = whole - done;
        int decided = misbehave(run, &bytes);
        if (decided < 0) return decided;
        if (wal_bench_syncs_itself(run->row->method)) w->tally.syncs++;
        if (decided > 0) return 0;
        ssize_t wrote = write_some(run, w->data + done, bytes, offset + done);
        if (wrote < 0 && errno == EINTR) continue;
        if (wrote < 0) return -errno;
        if (wrote == 0) return -ENOSPC; /* a disk that takes nothing and does not say why */
        done += (size_t)wrote;
    }
    return 0;
}

static int sync_once(const struct wal_bench_run *run) {
    int64_t value = 0;
    uint64_t serial = 0;
    enum wal_fault_decision decision = wal_fault_decide(WAL_FAULT_SYNC, &value, &serial);
    if (decision == WAL_FAULT_DO_FAIL) return -(int)value;
    if (decision == WAL_FAULT_DO_SKIP) return 0;
#ifdef F_FULLFSYNC
    return fcntl(run->file, F_FULLFSYNC) == 0 ? 0 : -errno; /* macOS */
#else
    int result = run->row->method == WAL_BENCH_FSYNC ? fsync(run->file) : fdatasync(run->file);
    return result == 0 ? 0 : -errno;
#endif
}

/* ---- commits --------------------------------------------------------------------------------- */

static int commit_alone(struct worker *w) {
    uint32_t method = w->run->row->method;
    if (method == WAL_BENCH_WRITE || wal_bench_syncs_itself(method)) return 0;
    w->tally.syncs++;
    return sync_once(w->run);
}

/* The mutex is held; it is not while the device works. */
static int lead(struct worker *w) {
    struct wal_bench_run *run = w->run;
    uint64_t covered = run->written;
    run->syncing = 1;
    pthread_mutex_unlock(&run->mutex);
    w->tally.syncs++;
    int result = sync_once(run);
    pthread_mutex_lock(&run->mutex);
    run->syncing = 0;
    if (result == 0 && covered > run->synced) run->synced = covered;
    pthread_cond_broadcast(&run->changed);
    return result;
}

static int commit_in_group(struct worker *w) {
    struct wal_bench_run *run = w->run;
    int result = 0;
    pthread_mutex_lock(&run->mutex);
    uint64_t ticket = ++run->written;
    while (result == 0 && run->synced < ticket) {
        if (run->code != 0) {
            result = run->code;
        } else if (run->syncing) {
            pthread_cond_wait(&run->changed, &run->mutex);
        } else {
            result = lead(w);
        }
    }
    pthread_mutex_unlock(&run->mutex);
    return result;
}

static void *work(void *argument) {
    struct worker *w = argument;
    struct wal_bench_run *run = w->run;
    uint64_t bytes = run->row->write_bytes, offset;
    while (wal_bench_claim(run, &offset)) {
        wal_bench_stamp(run, w->data, bytes, offset);
        uint64_t begun_ns = wal_bench_now_ns();
        int result = write_all(w, offset);
        if (result < 0) {
            (void)wal_bench_fail(run, result, "writing");
            break;
        }
        result = run->row->group ? commit_in_group(w) : commit_alone(w);
        if (result < 0) {
            (void)wal_bench_fail(run, result, "syncing");
            break;
        }
        wal_bench_record(&w->tally, begun_ns, wal_bench_now_ns(), bytes);
    }
    return NULL;
}

/* ---- threads --------------------------------------------------------------------------------- */

static void add(struct wal_bench_tally *tally, const struct wal_bench_tally *more) {
    wal_histogram_add(&tally->latency, &more->latency);
    tally->syncs += more->syncs;
    tally->bytes += more->bytes;
    if (more->last_ns > tally->last_ns) tally->last_ns = more->last_ns;
    if (more->first_ns == 0) return;
    if (tally->first_ns == 0 || more->first_ns < tally->first_ns) tally->first_ns = more->first_ns;
}

/* The calling thread is the first worker. */
static void run_workers(struct worker *workers, uint32_t count) {
    uint32_t started = 1;
    wal_bench_start_clock(workers[0].run);
    for (; started < count; started++) {
        int result = pthread_create(&workers[started].thread, NULL, work, &workers[started]);
        if (result == 0) continue;
        (void)wal_bench_fail(workers[0].run, -result, "starting a thread");
        break;
    }
    (void)work(&workers[0]);
    for (uint32_t i = 1; i < started; i++) (void)pthread_join(workers[i].thread, NULL);
}

int wal_bench_loop(struct wal_bench_run *run, struct wal_bench_tally *tally) {
    const wal_bench_row *row = run->row;
#if !defined(__linux__) || !defined(RWF_DSYNC)
    if (row->method == WAL_BENCH_RWF_DSYNC) return wal_bench_fail(run, -EOPNOTSUPP, "RWF_DSYNC");
#endif
    struct worker *workers = wal_calloc(row->concurrency, sizeof *workers);
    if (workers == NULL) return wal_bench_fail(run, -ENOMEM, "memory for the threads");
    for (uint32_t i = 0; i < row->concurrency; i++) {
        workers[i].run = run;
        workers[i].data = wal_bench_data(run->seed + i, row->write_bytes);
        if (workers[i].data == NULL) (void)wal_bench_fail(run, -ENOMEM, "memory for the writes");
    }
    if (run->code == 0) run_workers(workers, row->concurrency);
    for (uint32_t i = 0; i < row->concurrency; i++) {
        add(tally, &workers[i].tally);
        wal_free(workers[i].data);
    }
    wal_free(workers);
    return run->code;
}
