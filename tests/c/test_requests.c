/*
 * Requests without a ring: done in submit (io.c), by the reaper or by one thread (io_worker.c),
 * over a base that records and obstructs, and over a real directory.
 */
#include "probe.h"

/* ---- io.c: done in submit -------------------------------------------------------------------- */

static void without_submit_a_request_is_done_at_once(void) {
    struct wal_io *io = probe_begin();
    CHECK_EQ(submit_sync(io, 1, 11), 0);
    expect_calls("s");
    CHECK_EQ(submit_write(io, WAL_IO_WRITE_SYNC, 2, 64, 'b', 100), 0);
    expect_calls("sws");
    CHECK_EQ(probe.calls[1].file, 2);
    CHECK_EQ(probe.calls[1].offset, 64);
    CHECK_EQ(submit_write(io, WAL_IO_WRITE_DURABLE, 3, 4096, 'c', 4096), 0);
    expect_calls("swsws");
    CHECK_EQ(probe.calls[4].file, 3);
    expect(io, 11, 0, 0); /* first in, first out */
    expect(io, 'b', 0, 0);
    expect(io, 'c', 0, 0);
    CHECK_EQ(wal_io_reap(io, completions, 1, -1, 0), 0);
    CHECK_EQ(wal_io_register_buffers(io, letters, 4096, 1), 0);
    struct wal_io_counters total = {.bytes_read = 77};
    wal_io_count(io, &total);
    CHECK_EQ(total.ops_submitted, 5);
    CHECK_EQ(total.ops_completed, 5);
    CHECK_EQ(total.bytes_written, 4196);
    CHECK_EQ(total.bytes_read, 0);
}

static void completions_wait_within_a_limit(void) {
    struct wal_io *io = probe_begin();
    for (int i = 0; i < WAL_IO_DONE_MAX; i++) CHECK_EQ(submit_sync(io, 0, (uint64_t)i), 0);
    CHECK_EQ(submit_sync(io, 0, 1000), -EBUSY);
    CHECK_EQ(probe.count, WAL_IO_DONE_MAX);
    CHECK_EQ(wal_io_reap(io, completions, 3, 0, 0), 3);
    CHECK_EQ(completions[2].token, 2);
    CHECK_EQ(submit_sync(io, 0, 1000), 0);
    CHECK_EQ(wal_io_reap(io, completions, CALLS_MAX, 0, 0), WAL_IO_DONE_MAX - 2);
    CHECK_EQ(completions[0].token, 3);
    CHECK_EQ(completions[WAL_IO_DONE_MAX - 3].token, 1000);
}

static void writes_are_finished_and_syncs_are_final(void) {
    struct wal_io *io = probe_begin();
    probe.write_max = 60;
    probe.fail_write = EINTR;
    CHECK_EQ(submit_write(io, WAL_IO_WRITE_SYNC, 0, 0, 'b', 100), 0);
    expect_calls("wwws");
    CHECK_EQ(probe.calls[2].offset, 60);
    CHECK_EQ(probe.calls[2].bytes, 40);
    expect(io, 'b', 0, 0);
    probe.fail_sync = EINTR;
    CHECK_EQ(submit_sync(io, 0, 2), 0);
    expect(io, 2, -EINTR, 0);
    expect_calls("wwwss");
    probe.fail_write = ENOSPC;
    CHECK_EQ(submit_write(io, WAL_IO_WRITE_SYNC, 0, 0, 'b', 100), 0);
    expect(io, 'b', -ENOSPC, 0);
    expect_calls("wwwssw"); /* a sync of half a write would promise too much */
}

static void a_durable_write_needs_no_sync(void) {
    struct wal_io *io = probe_begin();
    probe_ops.write_durable = probe_write_durable;
    probe.write_max = 4096;
    CHECK_EQ(submit_write(io, WAL_IO_WRITE_DURABLE, 0, 4096, 'b', 8192), 0);
    expect(io, 'b', 0, 0);
    expect_calls("dd");
    CHECK_EQ(probe.calls[1].offset, 8192);
    probe.fail_write = EINTR; /* it may have been the sync's */
    CHECK_EQ(submit_write(io, WAL_IO_WRITE_DURABLE, 0, 4096, 'b', 8192), 0);
    expect(io, 'b', -EINTR, 0);
    expect_calls("ddd");
    probe.fail_write = EOPNOTSUPP;
    probe.write_max = 0;
    CHECK_EQ(submit_write(io, WAL_IO_WRITE_DURABLE, 0, 4096, 'b', 8192), 0);
    expect(io, 'b', 0, 0);
    expect_calls("ddddws");
}

/* ---- io_worker.c ----------------------------------------------------------------------------- */

static void a_reaper_that_may_block_does_it_itself(void) {
    struct wal_io *io = probe_worker();
    CHECK_EQ(submit_write(io, WAL_IO_WRITE_SYNC, 0, 0, 'b', 100), 0);
    CHECK_EQ(submit_sync(io, 1, 2), 0);
    CHECK_EQ(probe.count, 0);
    CHECK_EQ(wal_io_reap(io, completions, 1, 0, WAL_IO_MAY_BLOCK), 0); /* just looks */
    CHECK_EQ(probe.count, 0);
    expect(io, 'b', 0, WAL_IO_MAY_BLOCK);
    expect_calls("ws");
    expect(io, 2, 0, WAL_IO_MAY_BLOCK);
    CHECK_EQ(wal_io_reap(io, completions, 1, -1, WAL_IO_MAY_BLOCK), 0); /* nothing is under way */
    for (int i = 0; i < probe.count; i++)
        CHECK(pthread_equal(probe.calls[i].thread, pthread_self()));
    struct wal_io_counters total;
    wal_io_count(io, &total);
    CHECK_EQ(total.ops_submitted, 3);
    CHECK_EQ(total.bytes_written, 100);
    wal_io_destroy(io);
    CHECK_EQ(probe.destroyed, 1);
}

static void a_reaper_that_may_not_waits_for_the_worker(void) {
    struct wal_io *io = probe_worker();
    atomic_store(&probe.gate, ALL);
    CHECK_EQ(submit_sync(io, 1, 1), 0);
    CHECK_EQ(submit_sync(io, 1, 2), 0);
    for (int i = 0; i < 3; i++) {
        double begin = check_seconds();
        CHECK_EQ(wal_io_reap(io, completions, 1, 30 * MS, 0), 0);
        CHECK(ms_since(begin) >= 29 && ms_since(begin) < 300);
    }
    CHECK_EQ(wal_io_reap(io, completions, 1, 0, 0), 0);
    wait_for(&probe.waiting, 1);
    expect_calls("s"); /* one at a time */
    CHECK(!pthread_equal(probe.calls[0].thread, pthread_self()));
    CHECK_EQ(probe.signals_open, 0);
    atomic_store(&probe.gate, 0);
    expect(io, 1, 0, 0);
    expect(io, 2, 0, 0);
    CHECK_EQ(wal_io_reap(io, completions, 1, -1, 0), 0);
    wal_io_destroy(io);
}

static void looking_hands_over_too(void) {
    struct wal_io *io = probe_worker();
    CHECK_EQ(submit_sync(io, 1, 1), 0);
    while (wal_io_reap(io, completions, 1, 0, 0) == 0) (void)usleep(200);
    CHECK_EQ(completions[0].token, 1);
    wal_io_destroy(io);
}

static void *open_gate_later(void *ignored) {
    (void)ignored;
    (void)usleep(30000);
    atomic_store(&probe.gate, 0);
    return NULL;
}

/* What the worker has begun is waited for; another file's is not kept waiting. */
static void both_are_at_work(void) {
    struct wal_io *io = probe_worker();
    pthread_t opener;
    atomic_store(&probe.gate, ALL);
    CHECK_EQ(submit_sync(io, 1, 1), 0);
    CHECK_EQ(wal_io_reap(io, completions, 1, 5 * MS, 0), 0);
    wait_for(&probe.waiting, 1);
    CHECK_EQ(submit_sync(io, 1, 2), 0);
    CHECK_EQ(submit_write(io, WAL_IO_WRITE_SYNC, 2, 0, 'b', 10), 0);
    CHECK_EQ(pthread_create(&opener, NULL, open_gate_later, NULL), 0);
    /* It takes 'b', which overtakes the second of file 1, and waits at the gate as well. */
    CHECK(wal_io_reap(io, completions, 1, -1, WAL_IO_MAY_BLOCK) == 1);
    uint64_t seen = completions[0].token;
    CHECK(seen == 1 || seen == 'b');
    CHECK_EQ(pthread_join(opener, NULL), 0);
    CHECK_EQ(probe.calls[1].file, 2);
    CHECK(pthread_equal(probe.calls[1].thread, pthread_self()));
    expect(io, seen == 1 ? 'b' : 1, 0, WAL_IO_MAY_BLOCK);
    expect(io, 2, 0, WAL_IO_MAY_BLOCK);
    atomic_store(&probe.gate, ALL);
    CHECK_EQ(submit_sync(io, 1, 3), 0);
    CHECK_EQ(wal_io_reap(io, completions, 1, 5 * MS, 0), 0);
    wait_for(&probe.waiting, 1);
    CHECK_EQ(pthread_create(&opener, NULL, open_gate_later, NULL), 0);
    expect(io, 3, 0, WAL_IO_MAY_BLOCK); /* in the worker's hands */
    CHECK(!pthread_equal(probe.calls[probe.count - 1].thread, pthread_self()));
    CHECK_EQ(pthread_join(opener, NULL), 0);
    wal_io_destroy(io);
}

static void *open_gates_in_turn(void *ignored) {
    (void)ignored;
    wait_for(&probe.waiting, 2);
    atomic_store(&probe.gate, 1 << 1);
    (void)usleep(20000);
    atomic_store(&probe.gate, 0);
    return NULL;
}

/* The worker gets free while the reaper is at a file, and the next request is that file's. */
static void the_worker_keeps_off_the_reapers_file(void) {
    struct wal_io *io = probe_worker();
    pthread_t opener;
    atomic_store(&probe.gate, ALL);
    CHECK_EQ(submit_sync(io, 2, 1), 0);
    CHECK_EQ(wal_io_reap(io, completions, 1, 5 * MS, 0), 0);
    wait_for(&probe.waiting, 1);
    CHECK_EQ(submit_sync(io, 1, 2), 0);
    CHECK_EQ(submit_sync(io, 1, 3), 0);
    CHECK_EQ(wal_io_reap(io, completions, 1, 0, 0), 0); /* handed over, both of them */
    CHECK_EQ(pthread_create(&opener, NULL, open_gates_in_turn, NULL), 0);
    for (int left = 3; left > 0;) left -= wal_io_reap(io, completions, 3, -1, WAL_IO_MAY_BLOCK);
    CHECK_EQ(pthread_join(opener, NULL), 0);
    wal_io_destroy(io);
}

/* ---- many submitters ------------------------------------------------------------------------- */

enum { SUBMITTERS = 4, EACH = 200 };

struct submitter {
    struct wal_io *io;
    pthread_t thread;
    int number;
};

static void *submit_many(void *argument) {
    struct submitter *s = argument;
    for (int i = 0; i < EACH; i++) {
        struct wal_io_request request = {.kind = WAL_IO_WRITE_SYNC,
                                         .file = s->number,
                                         .offset = (uint64_t)i,
                                         .data = letters[0],
                                         .bytes = 1,
                                         .token = (uint64_t)(s->number * EACH + i)};
        CHECK_EQ(wal_io_submit(s->io, &request), 0);
        if (i % 16 == 0) (void)sched_yield();
    }
    return NULL;
}

static void many_submitters_keep_each_files_order(void) {
    struct wal_io *io = probe_worker();
    struct submitter submitters[SUBMITTERS];
    for (int i = 0; i < SUBMITTERS; i++) {
        submitters[i] = (struct submitter){.io = io, .number = i};
        CHECK_EQ(pthread_create(&submitters[i].thread, NULL, submit_many, &submitters[i]), 0);
    }
    uint64_t seed = check_seed();
    int left = SUBMITTERS * EACH, seen[SUBMITTERS * EACH] = {0};
    while (left > 0) {
        unsigned flags = check_below(&seed, 2) == 0 ? WAL_IO_MAY_BLOCK : 0;
        int count = wal_io_reap(io, completions, 8, (int64_t)check_below(&seed, 3) * MS, flags);
        CHECK(count >= 0);
        for (int i = 0; i < count; i++) CHECK_EQ(seen[completions[i].token]++, 0);
        left -= count;
    }
    for (int i = 0; i < SUBMITTERS; i++) CHECK_EQ(pthread_join(submitters[i].thread, NULL), 0);
    uint64_t next[FILES] = {0};
    for (int i = 0; i < probe.count; i++) {
        if (probe.calls[i].what == 'w')
            CHECK_EQ(probe.calls[i].offset, next[probe.calls[i].file]++);
    }
    CHECK_EQ(probe.count, 2 * SUBMITTERS * EACH);
    CHECK_EQ(wal_io_reap(io, completions, 1, -1, 0), 0);
    wal_io_destroy(io);
}

/* ---- the end of a worker --------------------------------------------------------------------- */

static void destroying_drops_what_nobody_began(void) {
    struct wal_io *io = probe_worker();
    pthread_t opener;
    atomic_store(&probe.gate, ALL);
    CHECK_EQ(submit_sync(io, 1, 1), 0);
    CHECK_EQ(wal_io_reap(io, completions, 1, 5 * MS, 0), 0);
    CHECK_EQ(submit_sync(io, 1, 2), 0);
    wait_for(&probe.waiting, 1);
    CHECK_EQ(pthread_create(&opener, NULL, open_gate_later, NULL), 0);
    wal_io_destroy(io);
    CHECK_EQ(atomic_load(&probe.gate), 0); /* it waited for the one at work */
    CHECK_EQ(atomic_load(&probe.waiting), 0);
    expect_calls("s");
    CHECK_EQ(probe.destroyed, 1);
    CHECK_EQ(pthread_join(opener, NULL), 0);
    wal_io_destroy(probe_worker()); /* one that never had a thread */
}

static void closing_takes_a_files_requests_along(void) {
    struct wal_io *io = probe_worker();
    pthread_t opener;
    atomic_store(&probe.gate, ALL);
    CHECK_EQ(submit_sync(io, 1, 1), 0);
    CHECK_EQ(wal_io_reap(io, completions, 1, 5 * MS, 0), 0);
    wait_for(&probe.waiting, 1);
    CHECK_EQ(submit_sync(io, 1, 2), 0);
    CHECK_EQ(submit_sync(io, 2, 3), 0);
    CHECK_EQ(pthread_create(&opener, NULL, open_gate_later, NULL), 0);
    wal_io_close(io, 1);
    CHECK_EQ(probe.closed, 1);
    CHECK_EQ(pthread_join(opener, NULL), 0);
    CHECK_EQ(wal_io_reap(io, completions, 3, -1, WAL_IO_MAY_BLOCK), 2);
    CHECK_EQ(completions[0].result + completions[1].result, -ECANCELED);
    CHECK_EQ(completions[0].token + completions[1].token, 3);
    expect(io, 3, 0, WAL_IO_MAY_BLOCK);
    expect_calls("ss");
    wal_io_destroy(io);
}

/* The first requests need no memory; one more than there is room for does. */
static void without_memory_nothing_is_begun(void) {
    enum { ROOM = 16 };
    for (uint64_t nth = 1; nth < 3; nth++) {
        struct wal_io *io = probe_worker();
        (void)wal_alloc_fail(nth);
        for (uint64_t i = 1; i <= ROOM; i++) CHECK_EQ(submit_sync(io, 1, i), 0);
        CHECK_EQ(submit_sync(io, 1, ROOM + 1), -ENOMEM);
        (void)wal_alloc_fail(0);
        for (uint64_t i = 1; i <= ROOM; i++) expect(io, i, 0, WAL_IO_MAY_BLOCK);
        CHECK_EQ(wal_io_reap(io, completions, 1, -1, WAL_IO_MAY_BLOCK), 0);
        CHECK_EQ(submit_sync(io, 1, ROOM + 2), 0);
        expect(io, ROOM + 2, 0, WAL_IO_MAY_BLOCK);
        wal_io_destroy(io);
    }
}

/* ---- over a real directory ------------------------------------------------------------------- */

static char directory[64];

static struct wal_io *open_directory(void) {
    struct wal_io *io = NULL;
    wal_error error;
    (void)snprintf(directory, sizeof directory, "/tmp/walengine-requests-XXXXXX");
    CHECK(mkdtemp(directory) != NULL);
    CHECK_EQ(wal_io_posix_open(directory, WAL_DIR_WRITER, &io, &error), 0);
    return io;
}

static void remove_directory(void) {
    char command[128];
    (void)snprintf(command, sizeof command, "rm -rf '%s'", directory);
    CHECK_EQ(system(command), 0);
    CHECK_EQ(wal_open_files(), 0);
}

static int new_file(struct wal_io *io, const char *name) {
    int file = wal_io_open(io, name, WAL_IO_WRITE | WAL_IO_CREATE);
    CHECK(file >= 0);
    CHECK_EQ(wal_io_write_zeros(io, file, 0, FILE_BYTES), 0);
    return file;
}

static char byte_at(struct wal_io *io, int file, uint64_t offset) {
    char byte = 0;
    CHECK_EQ(wal_io_read(io, file, offset, &byte, 1), 1);
    return byte;
}

static void requests_reach_files(void) {
    for (unsigned flags = 0; flags < 2; flags++) {
        struct wal_io *io = open_directory();
        CHECK_EQ(wal_io_worker_wrap(io, &io), 0);
        CHECK_EQ(wal_io_fault_wrap(io, &io), 0);
        int file = new_file(io, "f");
        CHECK_EQ(submit_write(io, WAL_IO_WRITE_SYNC, file, 100, 'b', 5000), 0);
        expect(io, 'b', 0, flags);
        CHECK_EQ(submit_write(io, WAL_IO_WRITE_DURABLE, file, 8192, 'c', 4096), 0);
        expect(io, 'c', 0, flags);
        CHECK_EQ(submit_sync(io, file, 3), 0);
        expect(io, 3, 0, flags);
        CHECK_EQ(byte_at(io, file, 99), 0);
        CHECK_EQ(byte_at(io, file, 5099), 'b');
        CHECK_EQ(byte_at(io, file, 8192), 'c');
        wal_io_close(io, file);
        CHECK_EQ(submit_sync(io, 1 << 20, 4), 0);
        expect(io, 4, -EBADF, flags);
        struct wal_io_counters total;
        wal_io_count(io, &total);
        CHECK(total.ops_submitted == total.ops_completed && total.ops_submitted > 4);
        CHECK_EQ(total.bytes_written, FILE_BYTES + 5000 + 4096);
        wal_io_destroy(io);
        remove_directory();
    }
}

/* The child has neither the worker nor the mutex: it only lets go. */
static void a_child_lets_go(void) {
    struct wal_io *io = open_directory();
    CHECK_EQ(wal_io_worker_wrap(io, &io), 0);
    int file = new_file(io, "f");
    CHECK_EQ(submit_sync(io, file, 1), 0);
    expect(io, 1, 0, 0); /* there is a worker */
    (void)usleep(20000); /* that waits for more by now: a condition the child must not touch */
    CHECK_EQ(submit_sync(io, file, 2), 0);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        (void)alarm(10);
        wal_io_close(io, file);
        wal_io_destroy(io);
        _exit(0);
    }
    int status = 0;
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK_EQ(status, 0);
    expect(io, 2, 0, 0);
    wal_io_destroy(io);
    remove_directory();
}

int main(void) {
    RUN(without_submit_a_request_is_done_at_once);
    RUN(completions_wait_within_a_limit);
    RUN(writes_are_finished_and_syncs_are_final);
    RUN(a_durable_write_needs_no_sync);
    RUN(a_reaper_that_may_block_does_it_itself);
    RUN(a_reaper_that_may_not_waits_for_the_worker);
    RUN(looking_hands_over_too);
    RUN(both_are_at_work);
    RUN(the_worker_keeps_off_the_reapers_file);
    RUN(many_submitters_keep_each_files_order);
    RUN(destroying_drops_what_nobody_began);
    RUN(closing_takes_a_files_requests_along);
    RUN(without_memory_nothing_is_begun);
    RUN(requests_reach_files);
    RUN(a_child_lets_go);
    return check_end();
}
