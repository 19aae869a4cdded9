/*
 * A base for requests that records what it is asked to do, and obstructs; and shorthands. For the
 * suites about requests, each of which has its own: all is static here.
 */
#ifndef WALENGINE_TEST_PROBE_H
#define WALENGINE_TEST_PROBE_H

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "hooks.h"
#include "io_fault.h"
#include "io_posix.h"
#include "log.h"
#include "simdisk.h"

enum { MS = 1000000, CALLS_MAX = 4096, FILES = 4, ALL = 15, FILE_BYTES = 65536 };

static _Alignas(4096) char letters[26][16384];
static struct wal_io_completion completions[CALLS_MAX];

__attribute__((unused)) static struct wal_io_request request_of(enum wal_io_kind kind, int file,
                                                                uint64_t offset, char byte,
                                                                size_t bytes, uint64_t token) {
    memset(letters[byte - 'a'], byte, sizeof letters[0]);
    return (struct wal_io_request){.kind = kind,
                                   .file = file,
                                   .offset = offset,
                                   .data = letters[byte - 'a'],
                                   .bytes = bytes,
                                   .token = token};
}

__attribute__((unused)) static int submit_sync(struct wal_io *io, int file, uint64_t token) {
    struct wal_io_request request = {.kind = WAL_IO_SYNC, .file = file, .token = token};
    return wal_io_submit(io, &request);
}

__attribute__((unused)) static int submit_write(struct wal_io *io, enum wal_io_kind kind, int file,
                                                uint64_t offset, char byte, size_t bytes) {
    struct wal_io_request request = request_of(kind, file, offset, byte, bytes, (uint64_t)byte);
    return wal_io_submit(io, &request);
}

__attribute__((unused)) static void expect(struct wal_io *io, uint64_t token, int result,
                                           unsigned flags) {
    CHECK_EQ(wal_io_reap(io, completions, 1, -1, flags), 1);
    CHECK_EQ(completions[0].token, token);
    CHECK_EQ(completions[0].result, result);
}

__attribute__((unused)) static double ms_since(double begin) {
    return (check_seconds() - begin) * 1e3;
}

/* ---- a base that records and obstructs ------------------------------------------------------- */

struct call {
    char what; /* 'w', 's', 'd' */
    int file;
    uint64_t offset;
    size_t bytes;
    pthread_t thread;
};

static struct {
    struct wal_io io;
    pthread_mutex_t mutex;
    struct call calls[CALLS_MAX];
    int count;
    int at_once[FILES]; /* who is in a sync of this file */
    atomic_int gate;    /* syncs of these files wait, bit by bit */
    atomic_int waiting;
    int fail_sync; /* the next one, with this errno; once */
    int fail_write;
    size_t write_max; /* 0: all */
    int signals_open; /* a sync was done in a thread that takes signals */
    int destroyed;
    int closed;
} probe;

__attribute__((unused)) static int took(char what, int file, uint64_t offset, size_t bytes,
                                        int *fail) {
    pthread_mutex_lock(&probe.mutex);
    CHECK(probe.count < CALLS_MAX);
    probe.calls[probe.count++] = (struct call){what, file, offset, bytes, pthread_self()};
    int failure = *fail;
    *fail = 0;
    pthread_mutex_unlock(&probe.mutex);
    return failure;
}

__attribute__((unused)) static int64_t probe_write(struct wal_io *io, int file, uint64_t offset,
                                                   const struct iovec *parts, int count) {
    (void)io;
    CHECK_EQ(count, 1);
    size_t bytes = parts[0].iov_len;
    if (probe.write_max != 0 && bytes > probe.write_max) bytes = probe.write_max;
    int failure = took('w', file, offset, bytes, &probe.fail_write);
    return failure != 0 ? -failure : (int64_t)bytes;
}

__attribute__((unused)) static int64_t probe_write_durable(struct wal_io *io, int file,
                                                           uint64_t offset,
                                                           const struct iovec *parts, int count) {
    (void)io;
    CHECK_EQ(count, 1);
    size_t bytes = parts[0].iov_len;
    if (probe.write_max != 0 && bytes > probe.write_max) bytes = probe.write_max;
    int failure = took('d', file, offset, bytes, &probe.fail_write);
    return failure != 0 ? -failure : (int64_t)bytes;
}

__attribute__((unused)) static int probe_sync(struct wal_io *io, int file) {
    (void)io;
    sigset_t mask;
    CHECK_EQ(pthread_sigmask(SIG_SETMASK, NULL, &mask), 0);
    int failure = took('s', file, 0, 0, &probe.fail_sync);
    pthread_mutex_lock(&probe.mutex);
    if (!sigismember(&mask, SIGINT)) probe.signals_open++;
    CHECK_EQ(probe.at_once[file]++, 0);
    pthread_mutex_unlock(&probe.mutex);
    atomic_fetch_add(&probe.waiting, 1);
    while (atomic_load(&probe.gate) & 1 << file) (void)usleep(200);
    atomic_fetch_sub(&probe.waiting, 1);
    pthread_mutex_lock(&probe.mutex);
    probe.at_once[file]--;
    pthread_mutex_unlock(&probe.mutex);
    return -failure;
}

__attribute__((unused)) static int probe_close(struct wal_io *io, int file) {
    (void)io;
    pthread_mutex_lock(&probe.mutex);
    CHECK_EQ(probe.at_once[file], 0);
    probe.closed++;
    pthread_mutex_unlock(&probe.mutex);
    return 0;
}

__attribute__((unused)) static void probe_destroy(struct wal_io *io) {
    (void)io;
    probe.destroyed++;
}

static struct wal_io_ops probe_ops = {
    .write = probe_write, .sync = probe_sync, .close = probe_close, .destroy = probe_destroy};

__attribute__((unused)) static struct wal_io *probe_begin(void) {
    memset(&probe, 0, sizeof probe);
    CHECK_EQ(pthread_mutex_init(&probe.mutex, NULL), 0);
    probe_ops.write_durable = NULL;
    probe.io.ops = &probe_ops;
    return &probe.io;
}

__attribute__((unused)) static struct wal_io *probe_worker(void) {
    struct wal_io *io = NULL;
    CHECK_EQ(wal_io_worker_wrap(probe_begin(), &io), 0);
    return io;
}

__attribute__((unused)) static void expect_calls(const char *what) {
    char seen[CALLS_MAX + 1] = "";
    pthread_mutex_lock(&probe.mutex);
    for (int i = 0; i < probe.count; i++) seen[i] = probe.calls[i].what;
    pthread_mutex_unlock(&probe.mutex);
    CHECK_STR(seen, what);
}

__attribute__((unused)) static void wait_for(atomic_int *value, int wanted) {
    while (atomic_load(value) != wanted) (void)usleep(200);
}

#endif
