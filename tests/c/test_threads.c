/*
 * Threads on one writer: appends, commits, trims, positions and closing, all at once, on a real
 * directory with the background threads at work. Under ASan it finds what is freed too early,
 * under ThreadSanitizer (make tsan) what is touched without the mutex.
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
        .commit_alignment = 8,
        .flags = WAL_CREATE,
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
    uint64_t lsn = 0;
    int result;
    UNTIL_DONE(result,
               wal_writer_append(worker->shared->writer, record, bytes, 0, flags, &lsn, NULL));
    if (result == 0) worker->appended++;
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

static void appends_commits_and_trims_at_once(void) {
    struct worker workers[THREADS];
    make_directory();
    struct shared shared = {.writer = open_writer(), .rounds = (int)(3000 * check_scale())};
    run_threads(&shared, workers, 0);
    check_log(workers);
    COUNT("records", (uint64_t)shared.rounds * THREADS);
    remove_directory();
}

static void an_interruptible_caller_among_them(void) {
    struct worker workers[THREADS];
    make_directory();
    struct shared shared = {
        .writer = open_writer(), .rounds = (int)(3000 * check_scale()), .interruptible = 1};
    run_threads(&shared, workers, 0);
    check_log(workers);
    remove_directory();
}

static void closing_under_them(void) {
    int rounds = (int)(10 * check_scale()) + 1;
    for (int i = 0; i < rounds; i++) {
        struct worker workers[THREADS];
        make_directory();
        struct shared shared = {.writer = open_writer(), .interruptible = i % 2};
        run_threads(&shared, workers, 1);
        check_log(workers);
        remove_directory();
    }
    COUNT("closes", (uint64_t)rounds);
}

static void two_closers(void) {
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

int main(void) {
    RUN(appends_commits_and_trims_at_once);
    RUN(an_interruptible_caller_among_them);
    RUN(closing_under_them);
    RUN(two_closers);
    CHECK_EQ(wal_open_files(), 0);
    return check_end();
}
