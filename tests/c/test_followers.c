/*
 * Followers and lanes: many threads that append durable records at once, on a real directory with
 * the background threads at work, on every backend. Run under ASan, and under ThreadSanitizer too.
 *
 * What must hold: who is sent home finds its record durable; nobody sleeps for ever, whoever leads
 * goes away, be it by a signal, a poisoning or a close; a poisoning reaches everybody once; and
 * while lanes are closed the last LSN stands still.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "check.h"
#include "walengine.h"

enum { THREADS = 12 };

static const struct mode {
    const char *name;
    uint32_t backend;
    uint32_t direct_io;
} modes[] = {
    {"pwrite", WAL_BACKEND_PWRITE, 0},
    {"pwrite, direct", WAL_BACKEND_PWRITE, 1},
    {"ring", WAL_BACKEND_IO_URING, 0},
    {"ring, direct", WAL_BACKEND_IO_URING, 1},
};
enum { MODES = sizeof modes / sizeof modes[0] };

static const struct mode *mode = &modes[0];
static char directory[64];
static uint64_t records, refusals, poisonings;

struct shared {
    wal_writer *writer;
    int rounds; /* per thread; 0: until the writer says no */
    int in_lanes;
    int interruptible; /* thread 0 is */
    atomic_int stop;
    atomic_int working;
    atomic_int poisoned;
    atomic_int closed;
};

struct worker {
    pthread_t thread;
    struct shared *shared;
    uint32_t number;
    uint64_t last_lsn;
    uint64_t records;
    uint64_t refusals;
};

/* ---- a writer in a directory ----------------------------------------------------------------- */

static wal_options options(void) {
    wal_options options = {
        .segment_bytes = 1 << 18,
        .record_bytes_max = 65536,
        .unsynced_bytes_max = 1 << 20,
        .commit_alignment = mode->direct_io ? 4096 : 8,
        .flags = WAL_CREATE,
        .ring = {.backend = mode->backend,
                 .provider = WAL_RING_BUILTIN,
                 .sq_entries = 64,
                 .max_inflight = 8,
                 .direct_io = mode->direct_io,
                 .registered_buffers = 8,
                 .buffer_bytes = 8192},
    };
    return options;
}

static wal_writer *begin(void) {
    const char *base = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    wal_writer *writer = NULL;
    wal_report report;
    wal_error error;
    wal_options how = options();
    (void)snprintf(directory, sizeof directory, "%s/walengine-followers-XXXXXX", base);
    CHECK(mkdtemp(directory) != NULL);
    int result = wal_writer_open(directory, &how, &writer, &report, &error);
    if (result < 0) fprintf(stderr, "%s\n", error.message);
    CHECK_EQ(result, 0);
    return writer;
}

static void end(wal_writer *writer, int expected) {
    char command[128];
    CHECK_EQ(wal_writer_close(writer, 0, NULL), expected);
    wal_writer_free(writer);
    (void)snprintf(command, sizeof command, "rm -rf '%s'", directory);
    CHECK_EQ(system(command), 0);
}

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

static wal_position position_of(wal_writer *writer) {
    wal_position position;
    wal_writer_position(writer, &position);
    return position;
}

/* ---- threads that append --------------------------------------------------------------------- */

/* A signal handler would run between the two calls; the record is taken once, whatever happens. */
static int append_one(struct worker *worker, uint32_t flags, uint64_t *lsn) {
    char record[256];
    wal_writer *writer = worker->shared->writer;
    memset(record, (int)worker->number, sizeof record);
    *lsn = 0;
    int result = wal_writer_append(writer, record, sizeof record, 0, flags, lsn, NULL);
    while (result == WAL_E_AGAIN && *lsn != 0) {
        result = wal_writer_commit(writer, *lsn, flags & WAL_INTERRUPTIBLE, NULL);
    }
    return result;
}

static void *work(void *argument) {
    struct worker *worker = argument;
    struct shared *shared = worker->shared;
    uint32_t flags = WAL_DURABLE | (shared->in_lanes ? WAL_LANE : 0);
    if (shared->interruptible && worker->number == 0) flags |= WAL_INTERRUPTIBLE;
    (void)atomic_fetch_add(&shared->working, 1);
    for (int i = 0; shared->rounds == 0 || i < shared->rounds; i++) {
        uint64_t lsn;
        int result = append_one(worker, flags, &lsn);
        if (result == WAL_E_AGAIN) {
            worker->refusals++;
            if (atomic_load(&shared->stop)) break;
            (void)usleep(100);
            continue;
        }
        if (result == WAL_E_POISONED) (void)atomic_fetch_add(&shared->poisoned, 1);
        if (result == WAL_E_CLOSED) (void)atomic_fetch_add(&shared->closed, 1);
        if (result < 0) break;
        CHECK(lsn > worker->last_lsn);
        CHECK(position_of(shared->writer).durable_lsn >= lsn);
        worker->last_lsn = lsn;
        worker->records++;
        if (atomic_load(&shared->stop)) break;
    }
    return NULL;
}

static void start(struct shared *shared, struct worker *workers) {
    for (uint32_t i = 0; i < THREADS; i++) {
        workers[i] = (struct worker){.shared = shared, .number = i};
        CHECK_EQ(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
    }
}

static uint64_t join(struct worker *workers) {
    uint64_t all = 0;
    for (int i = 0; i < THREADS; i++) {
        CHECK_EQ(pthread_join(workers[i].thread, NULL), 0);
        all += workers[i].records;
        refusals += workers[i].refusals;
    }
    records += all;
    return all;
}

/* Every thread has appended, and the disk is stuck: all but who leads sleep. */
static void wait_until_all_wait(struct shared *shared) {
    while (atomic_load(&shared->working) < THREADS) (void)usleep(100);
    uint64_t last = 0, before;
    do {
        before = last;
        (void)usleep(20000);
        last = position_of(shared->writer).last_lsn;
    } while (last == 0 || last != before);
}

/* ---- stories --------------------------------------------------------------------------------- */

static void each_is_durable_when_it_goes_home_here(void) {
    struct worker workers[THREADS];
    struct shared shared = {.writer = begin(), .rounds = (int)(300 * check_scale()) + 20};
    start(&shared, workers);
    uint64_t all = join(workers);
    CHECK_EQ(all, (uint64_t)shared.rounds * THREADS);
    wal_stats stats;
    wal_writer_stats(shared.writer, &stats);
    CHECK_EQ(stats.commits, all);
    CHECK_EQ(stats.records_durable, all);
    CHECK_EQ(position_of(shared.writer).durable_lsn, all);
    end(shared.writer, 0);
}

/* A sync takes 5 ms: groups are as large as they get, and one thread takes part in slices. */
static void one_of_them_can_be_interrupted_here(void) {
    struct worker workers[THREADS];
    struct shared shared = {
        .writer = begin(), .rounds = (int)(20 * check_scale()) + 5, .interruptible = 1};
    wal_fault_set(WAL_FAULT_SYNC, 1, 1, WAL_FAULT_STALL, 1);
    start(&shared, workers);
    CHECK_EQ(join(workers), (uint64_t)shared.rounds * THREADS);
    wal_fault_clear();
    end(shared.writer, 0);
}

/* Longer than a slice, so that an interruptible leader goes away and comes back, and in between
 * nobody but a follower can take its place. */
static void a_stuck_disk_keeps_nobody_asleep_here(void) {
    struct worker workers[THREADS];
    struct shared shared = {.writer = begin(), .rounds = 1, .interruptible = 1};
    wal_fault_set(WAL_FAULT_SYNC | WAL_FAULT_CQE_SYNC | WAL_FAULT_CQE_WRITE, 1, 1, WAL_FAULT_STALL,
                  60000);
    start(&shared, workers);
    wait_until_all_wait(&shared);
    wal_fault_clear();
    CHECK_EQ(join(workers), THREADS);
    end(shared.writer, 0);
}

static void a_poisoning_reaches_everybody_once_here(void) {
    struct worker workers[THREADS];
    struct shared shared = {.writer = begin(), .rounds = 1};
    uint32_t syncs = WAL_FAULT_SYNC | WAL_FAULT_CQE_SYNC | WAL_FAULT_CQE_WRITE;
    wal_fault_set(syncs, 1, 1, WAL_FAULT_STALL, 60000);
    start(&shared, workers);
    wait_until_all_wait(&shared);
    wal_fault_set(syncs, 1, 1, WAL_FAULT_FAIL, EIO);
    uint64_t durable = join(workers);
    wal_fault_clear();
    /* What was stalled goes on when the rule changes, and is good; what comes behind it fails. */
    CHECK_EQ(durable, position_of(shared.writer).durable_lsn);
    CHECK_EQ(durable + (uint64_t)atomic_load(&shared.poisoned), THREADS);
    poisonings += (uint64_t)atomic_load(&shared.poisoned);
    end(shared.writer, atomic_load(&shared.poisoned) > 0 ? WAL_E_POISONED : 0);
}

static void closing_sends_everybody_home_here(void) {
    struct worker workers[THREADS];
    struct shared shared = {.writer = begin()};
    start(&shared, workers);
    (void)usleep(20000);
    CHECK_EQ(wal_writer_close(shared.writer, 0, NULL), 0);
    uint64_t all = join(workers);
    CHECK_EQ(atomic_load(&shared.closed), THREADS);
    CHECK_EQ(position_of(shared.writer).last_lsn, all);
    end(shared.writer, 0);
}

/* While lanes are closed the one who closed them appends, and knows each LSN beforehand. */
static void closed_lanes_let_nobody_in_here(void) {
    struct worker workers[THREADS];
    struct shared shared = {.writer = begin(), .in_lanes = 1};
    int rounds = (int)(100 * check_scale()) + 10;
    uint64_t lsn, mine = 0;
    CHECK_EQ(wal_writer_append(shared.writer, "x", 1, 0, WAL_LANE, &lsn, NULL), WAL_E_AGAIN);
    CHECK_EQ(lsn, 0);
    start(&shared, workers);
    for (int i = 0; i < rounds; i++) {
        uint64_t last;
        CHECK_EQ(wal_writer_lanes(shared.writer, 1, 0, &last), 0);
        (void)usleep(300);
        uint32_t flags = i % 2 ? WAL_INTERRUPTIBLE : 0;
        while (wal_writer_lanes(shared.writer, 0, flags, &last) == WAL_E_AGAIN) refusals++;
        for (int k = 0; k < 3; k++) {
            CHECK_EQ(position_of(shared.writer).last_lsn, last);
            CHECK_EQ(wal_writer_append(shared.writer, "x", 1, 0, 0, &lsn, NULL), 0);
            CHECK_EQ(lsn, ++last);
            mine++;
        }
    }
    atomic_store(&shared.stop, 1);
    CHECK_EQ(wal_writer_lanes(shared.writer, 1, 0, &lsn), 0);
    uint64_t theirs = join(workers);
    CHECK_EQ(position_of(shared.writer).last_lsn, theirs + mine);
    end(shared.writer, 0);
}

static void each_is_durable_when_it_goes_home(void) {
    in_every_mode(each_is_durable_when_it_goes_home_here);
}

static void one_of_them_can_be_interrupted(void) {
    in_every_mode(one_of_them_can_be_interrupted_here);
}

static void a_stuck_disk_keeps_nobody_asleep(void) {
    in_every_mode(a_stuck_disk_keeps_nobody_asleep_here);
}

static void a_poisoning_reaches_everybody_once(void) {
    in_every_mode(a_poisoning_reaches_everybody_once_here);
    CHECK(poisonings > 0);
    COUNT("poisonings told", poisonings);
}

static void closing_sends_everybody_home(void) { in_every_mode(closing_sends_everybody_home_here); }

static void closed_lanes_let_nobody_in(void) {
    in_every_mode(closed_lanes_let_nobody_in_here);
    CHECK(refusals > 0);
    COUNT("durable records", records);
}

int main(void) {
    RUN(each_is_durable_when_it_goes_home);
    RUN(one_of_them_can_be_interrupted);
    RUN(a_stuck_disk_keeps_nobody_asleep);
    RUN(a_poisoning_reaches_everybody_once);
    RUN(closing_sends_everybody_home);
    RUN(closed_lanes_let_nobody_in);
    CHECK_EQ(wal_open_files(), 0);
    return check_end();
}
