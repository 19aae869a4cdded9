/*
 * Threads on one writer: appends, commits, trims, positions and closing, all at once, on a real
 * directory with the background threads at work. Under ASan it finds what is freed too early,
 * under ThreadSanitizer (make tsan) what is touched without the mutex.
 *
 * Each story on every backend: system calls and the built-in ring, through the page cache and past
 * it, with durable batches (linked writes) among the appends.
 *
 * What must hold: every record that a commit acknowledged is there afterwards, each thread's
 * records stand in the order of its calls, and a call on a writer being closed either did its work
 * or says WAL_E_CLOSED.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "check.h"
#include "walengine.h"

enum { THREADS = 4, RECORD_BYTES_MAX = 3000 };

static const struct mode {
    const char *name;
    uint32_t backend;
    uint32_t direct_io;
    uint32_t kernel_poll;
} modes[] = {
    {"pwrite", WAL_BACKEND_PWRITE, 0, 0},   {"pwrite, direct", WAL_BACKEND_PWRITE, 1, 0},
    {"ring", WAL_BACKEND_IO_URING, 0, 0},   {"ring, direct", WAL_BACKEND_IO_URING, 1, 0},
    {"polled", WAL_BACKEND_IO_URING, 0, 1}, {"polled, direct", WAL_BACKEND_IO_URING, 1, 1},
};
enum { MODES = sizeof modes / sizeof modes[0] };

static const struct mode *mode = &modes[0];
static uint64_t records, closes;

struct shared {
    wal_writer *writer;
    atomic_int stop;
    int rounds; /* per thread; 0: until stop or closed */
    int interruptible;
};

struct worker {
    struct shared *shared;
    uint32_t number;
    uint32_t appended;
    uint32_t acknowledged; /* records of this thread known to be durable */
};

static char directory[64];

static void make_directory(void) {
    const char *base = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    (void)snprintf(directory, sizeof directory, "%s/walengine-threads-XXXXXX", base);
    CHECK(mkdtemp(directory) != NULL);
}

static void remove_directory(void) {
    char command[128];
    (void)snprintf(command, sizeof command, "rm -rf '%s'", directory);
    CHECK_EQ(system(command), 0);
}

static wal_options options(void) {
    wal_options options = {
        .segment_bytes = 65536,
        .record_bytes_max = 65536,
        .unsynced_bytes_max = 1 << 20,
        .commit_alignment = mode->direct_io ? 4096 : 8,
        .flags = WAL_CREATE,
        .ring = {.backend = mode->backend,
                 .provider = WAL_RING_BUILTIN,
                 .sq_entries = 64,
                 .kernel_poll = mode->kernel_poll,
                 .sq_poll_idle_ms = 1,
                 .max_inflight = 8,
                 .direct_io = mode->direct_io,
                 .registered_buffers = 8,
                 .buffer_bytes = 8192},
    };
    return options;
}

static wal_writer *open_writer(void) {
    wal_writer *writer = NULL;
    wal_report report;
    wal_error error;
    wal_options how = options();
    int result = wal_writer_open(directory, &how, &writer, &report, &error);
    if (result < 0) fprintf(stderr, "%s\n", error.message);
    CHECK_EQ(result, 0);
    return writer;
}

#define ROUNDS ((int)(800 * check_scale()) + 20)

/* Run a story in every mode that the machine has. */
static void in_every_mode(void (*story)(void)) {
    for (size_t i = 0; i < MODES; i++) {
        mode = &modes[i];
        wal_options how = options();
        wal_backend_info info;
        wal_error error;
        if (mode->backend == WAL_BACKEND_IO_URING && wal_ring_probe(&how.ring, &info, &error) < 0) {
            printf("    %s: skipped: %s\n", mode->name, error.message);
            CHECK(getenv("WALENGINE_REQUIRE_ALL") == NULL);
            continue;
        }
        story();
    }
}

/* Repeat a call that a real interruptible caller would repeat after its signal handlers. */
#define UNTIL_DONE(result, call) \
    do {                         \
        (result) = (call);       \
    } while ((result) == WAL_E_AGAIN)

static int append_one(struct worker *worker, uint32_t flags) {
    uint32_t record[RECORD_BYTES_MAX / 4];
    uint32_t bytes = 8 + (worker->appended * 97 + worker->number * 13) % (RECORD_BYTES_MAX - 8);
    memset(record, (int)worker->number, sizeof record);
    record[0] = worker->number;
    record[1] = worker->appended;
    wal_writer *writer = worker->shared->writer;
    uint64_t lsn = 0;
    uint32_t taken = 0;
    int result;
    int is_durable = worker->appended % 5 == 0;
    if (is_durable) flags |= WAL_DURABLE;
    do {
        result = is_durable ? wal_writer_append_batch(writer, record, &bytes, NULL, 1, flags, &lsn,
                                                      &taken, NULL)
                            : wal_writer_append(writer, record, bytes, 0, flags, &lsn, NULL);
    } while (result == WAL_E_AGAIN && lsn == 0);
    if (result == WAL_E_AGAIN) UNTIL_DONE(result, wal_writer_commit(writer, lsn, flags, NULL));
    if (result == 0) worker->appended++;
    if (result == 0 && is_durable) worker->acknowledged = worker->appended;
    return result;
}

static int commit_all(struct worker *worker, uint32_t flags) {
    uint32_t appended = worker->appended;
    int result;
    UNTIL_DONE(result, wal_writer_commit(worker->shared->writer, 0, flags, NULL));
    if (result == 0) worker->acknowledged = appended;
    return result;
}

static void *work(void *argument) {
    struct worker *worker = argument;
    struct shared *shared = worker->shared;
    uint32_t flags = shared->interruptible && worker->number == 0 ? WAL_INTERRUPTIBLE : 0;
    for (int i = 0; shared->rounds == 0 || i < shared->rounds; i++) {
        int result = append_one(worker, flags);
        if (result == 0 && i % 3 == 0) result = commit_all(worker, flags);
        if (result == WAL_E_CLOSED) break;
        CHECK_EQ(result, 0);
    }
    return NULL;
}

/* Trims far behind the end, and looks at positions and statistics. */
static void *disturb(void *argument) {
    struct shared *shared = argument;
    while (!atomic_load(&shared->stop)) {
        wal_position position;
        wal_stats stats;
        wal_writer_position(shared->writer, &position);
        wal_writer_stats(shared->writer, &stats);
        CHECK(position.durable_lsn <= position.last_lsn);
        CHECK(position.first_lsn <= position.last_lsn + 1);
        if (position.durable_lsn > 500) {
            int result =
                wal_writer_truncate_before(shared->writer, position.durable_lsn - 400, 0, NULL);
            if (result != WAL_E_CLOSED) CHECK_EQ(result, 0);
        }
        (void)usleep(500);
    }
    return NULL;
}

/* Read the log back: each thread's newest record that must be there, is; order is call order. */
static void check_log(const struct worker *workers) {
    wal_reader *reader = NULL;
    wal_report report;
    wal_cursor *cursor = NULL;
    wal_block block;
    uint32_t next[THREADS] = {0};
    int seen[THREADS] = {0};
    CHECK_EQ(wal_reader_open(directory, 0, &reader, &report, NULL), 0);
    CHECK(report.verdict == WAL_VERDICT_CLEAN);
    CHECK_EQ(wal_cursor_open(reader, 0, 0, &cursor, NULL), 0);
    int result;
    while ((result = wal_cursor_next(cursor, &block, NULL)) > 0) {
        for (uint64_t i = 0; i < block.count; i++) {
            uint32_t head[2];
            CHECK(block.lengths[i] >= sizeof head);
            memcpy(head, block.data + block.starts[i], sizeof head);
            CHECK(head[0] < THREADS);
            if (seen[head[0]]) CHECK_EQ(head[1], next[head[0]]);
            seen[head[0]] = 1;
            next[head[0]] = head[1] + 1;
        }
    }
    CHECK_EQ(result, 0);
    for (int i = 0; i < THREADS; i++) {
        if (seen[i]) CHECK(next[i] >= workers[i].acknowledged);
    }
    wal_cursor_close(cursor);
    wal_reader_close(reader);
}

static void run_threads(struct shared *shared, struct worker *workers, int close_under_them) {
    pthread_t threads[THREADS], disturber;
    for (uint32_t i = 0; i < THREADS; i++) {
        workers[i] = (struct worker){.shared = shared, .number = i};
        CHECK_EQ(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
    }
    CHECK_EQ(pthread_create(&disturber, NULL, disturb, shared), 0);
    int result = 0;
    if (close_under_them) {
        (void)usleep(30000);
        UNTIL_DONE(result, wal_writer_close(shared->writer, WAL_INTERRUPTIBLE, NULL));
        CHECK_EQ(result, 0);
    }
    for (int i = 0; i < THREADS; i++) CHECK_EQ(pthread_join(threads[i], NULL), 0);
    atomic_store(&shared->stop, 1);
    CHECK_EQ(pthread_join(disturber, NULL), 0);
    if (!close_under_them) CHECK_EQ(wal_writer_close(shared->writer, 0, NULL), 0);
    wal_writer_free(shared->writer);
}

static void appends_commits_and_trims_at_once_here(void) {
    struct worker workers[THREADS];
    make_directory();
    struct shared shared = {.writer = open_writer(), .rounds = ROUNDS};
    run_threads(&shared, workers, 0);
    check_log(workers);
    records += (uint64_t)shared.rounds * THREADS;
    remove_directory();
}

static void an_interruptible_caller_among_them_here(void) {
    struct worker workers[THREADS];
    make_directory();
    struct shared shared = {.writer = open_writer(), .rounds = ROUNDS, .interruptible = 1};
    run_threads(&shared, workers, 0);
    check_log(workers);
    remove_directory();
}

static void closing_under_them_here(void) {
    int rounds = (int)(4 * check_scale()) + 1;
    for (int i = 0; i < rounds; i++) {
        struct worker workers[THREADS];
        make_directory();
        struct shared shared = {.writer = open_writer(), .interruptible = i % 2};
        run_threads(&shared, workers, 1);
        check_log(workers);
        remove_directory();
    }
    closes += (uint64_t)rounds;
}

static void two_closers_here(void) {
    make_directory();
    struct shared shared = {.writer = open_writer()};
    struct worker worker = {.shared = &shared};
    CHECK_EQ(append_one(&worker, 0), 0);
    pthread_t other;
    CHECK_EQ(pthread_create(&other, NULL, disturb, &shared), 0);
    CHECK_EQ(wal_writer_close(shared.writer, 0, NULL), 0);
    CHECK_EQ(wal_writer_close(shared.writer, 0, NULL), 0);
    atomic_store(&shared.stop, 1);
    CHECK_EQ(pthread_join(other, NULL), 0);
    wal_writer_free(shared.writer);
    CHECK_EQ(wal_open_files(), 0);
    remove_directory();
}

static void appends_commits_and_trims_at_once(void) {
    in_every_mode(appends_commits_and_trims_at_once_here);
    COUNT("records", records);
}

static void an_interruptible_caller_among_them(void) {
    in_every_mode(an_interruptible_caller_among_them_here);
}

static void closing_under_them(void) {
    in_every_mode(closing_under_them_here);
    COUNT("closes", closes);
}

static void two_closers(void) { in_every_mode(two_closers_here); }

int main(void) {
    RUN(appends_commits_and_trims_at_once);
    RUN(an_interruptible_caller_among_them);
    RUN(closing_under_them);
    RUN(two_closers);
    CHECK_EQ(wal_open_files(), 0);
    return check_end();
}
