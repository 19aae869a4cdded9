/*
 * The io_uring backend on a real directory: every kind of request, and every completion made to go
 * wrong.
 *
 * What must hold: a request that succeeded has all its bytes in the file; one whose sync failed
 * never succeeds; every request completes exactly once, however its entries came back. Two of the
 * core's mutants break that on purpose, and the checks here have to notice.
 */
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "ring_bench.h"
#include "ring_engine.h"

static uint64_t requests_checked;

/* ---- the ring by itself ---------------------------------------------------------------------- */

static void ring_opens_and_answers(void) {
    struct wal_ring ring;
    wal_backend_info info;
    wal_error error;
    wal_ring_options how = options();
    CHECK_EQ(wal_ring_open(&ring, &how, &info, &error), 0);
    CHECK_EQ(info.backend, WAL_BACKEND_IO_URING);
    CHECK_EQ(info.provider, WAL_RING_BUILTIN);
    CHECK_EQ(info.sq_entries, 64);
    CHECK_EQ(info.fallbacks, 0);
    CHECK(ring.params.cq_entries >= 2 * ring.params.sq_entries);
    struct uring_cqe *cqe = NULL;
    struct uring_timespec soon = {.nsec = 2000000};
    CHECK_EQ(ring.table->wait_cqes(ring.state, &cqe, 1, &soon, NULL), -ETIME);
    for (int i = 0; i < 64; i++) {
        struct uring_sqe *sqe = ring.table->get_sqe(ring.state);
        CHECK(sqe != NULL);
        *sqe = (struct uring_sqe){.opcode = URING_OP_NOP, .user_data = 100U + (unsigned)i};
    }
    CHECK(ring.table->get_sqe(ring.state) == NULL);
    CHECK_EQ(ring.table->submit(ring.state), 64);
    CHECK_EQ(ring.table->wait_cqes(ring.state, &cqe, 64, &soon, NULL), 0);
    CHECK_EQ(cqe->user_data, 100);
    struct uring_cqe *batch[64];
    CHECK_EQ(ring.table->peek_batch_cqe(ring.state, batch, 64), 64);
    CHECK_EQ(batch[63]->user_data, 163);
    ring.table->cq_advance(ring.state, 64);
    CHECK_EQ(ring.table->peek_batch_cqe(ring.state, batch, 64), 0);
    wal_ring_close(&ring);
}

static void completions_that_overflow_are_fetched(void) {
    struct wal_ring ring;
    wal_backend_info info;
    wal_ring_options how = options();
    CHECK_EQ(wal_ring_open(&ring, &how, &info, NULL), 0);
    unsigned total = 4 * ring.params.cq_entries, seen = 0;
    for (unsigned i = 0; i < total; i++) {
        struct uring_sqe *sqe = ring.table->get_sqe(ring.state);
        CHECK(sqe != NULL);
        *sqe = (struct uring_sqe){.opcode = URING_OP_NOP, .user_data = i};
        CHECK_EQ(ring.table->submit(ring.state), 1);
    }
    struct uring_cqe *batch[64];
    unsigned ready;
    while ((ready = ring.table->peek_batch_cqe(ring.state, batch, 64)) > 0) {
        for (unsigned i = 0; i < ready; i++) CHECK_EQ(batch[i]->user_data, seen + i);
        seen += ready;
        ring.table->cq_advance(ring.state, ready);
    }
    CHECK_EQ(seen, total);
    wal_ring_close(&ring);
}

static int given_back_in, register_calls;

/* A kernel that counts a closed ring's memory for a while. */
static int register_behind_a_close(void *state, const struct iovec *buffers, unsigned count) {
    (void)state, (void)buffers, (void)count;
    register_calls++;
    if (given_back_in == 0) return 0;
    (void)usleep((useconds_t)given_back_in);
    given_back_in = 0;
    return -ENOMEM;
}

static void close_a_ring(void) {
    struct wal_ring ring;
    wal_backend_info info;
    wal_ring_options how = options();
    CHECK_EQ(wal_ring_open(&ring, &how, &info, NULL), 0);
    wal_ring_close(&ring);
}

/* The worker that gives it back waits for a processor, as long as there are others before it. */
static void memory_of_a_closed_ring_is_waited_for(void) {
    struct wal_ring_table table = *wal_ring_builtin();
    struct wal_ring ring = {.table = &table, .fd = -1};
    struct iovec buffer = {.iov_base = memory, .iov_len = PAGE};
    table.register_buffers = register_behind_a_close;
    close_a_ring();
    given_back_in = 200000;
    CHECK_EQ(wal_ring_register_buffers(&ring, &buffer, 1), 0);
    CHECK_EQ(register_calls, 2);
}

static void what_never_fits_is_not_waited_for(void) {
    struct wal_ring_table table = *wal_ring_builtin();
    struct wal_ring ring = {.table = &table, .fd = -1};
    struct rlimit before, low;
    CHECK_EQ(getrlimit(RLIMIT_MEMLOCK, &before), 0);
    low = before;
    low.rlim_cur = 2 * PAGE;
    struct iovec buffers[] = {{memory, 2 * PAGE}, {memory, 1}};
    table.register_buffers = register_behind_a_close;
    close_a_ring();
    CHECK_EQ(setrlimit(RLIMIT_MEMLOCK, &low), 0);
    given_back_in = 1;
    register_calls = 0;
    CHECK_EQ(wal_ring_register_buffers(&ring, buffers, 2), -ENOMEM);
    CHECK_EQ(register_calls, 1);
    given_back_in = 1;
    CHECK_EQ(wal_ring_register_buffers(&ring, buffers, 1), 0);
    CHECK_EQ(setrlimit(RLIMIT_MEMLOCK, &before), 0);
}

static void probe_tells(void) {
    wal_backend_info info;
    wal_error error;
    wal_ring_options how = options();
    CHECK_EQ(wal_ring_probe(&how, &info, &error), 0);
    CHECK_EQ(info.backend, WAL_BACKEND_IO_URING);
    CHECK(info.registered_buffers == BUFFERS || (info.fallbacks & WAL_FALLBACK_BUFFERS));
    how.provider = WAL_RING_LIBURING; /* nobody has loaded it here */
    CHECK_EQ(wal_ring_probe(&how, &info, &error), WAL_E_NO_IO_URING);
    CHECK(strstr(error.message, "pip install 'walengine[liburing]'") != NULL);
    how.backend = WAL_BACKEND_AUTO;
    CHECK_EQ(wal_ring_probe(&how, &info, &error), 0);
    CHECK_EQ(info.backend, WAL_BACKEND_PWRITE);
    CHECK_EQ(info.fallbacks, WAL_FALLBACK_NO_IO_URING);
    uintptr_t functions[32];
    CHECK_EQ(wal_ring_functions(WAL_RING_BUILTIN, functions, 32), 15);
    CHECK_EQ(wal_ring_functions(WAL_RING_LIBURING, functions, 32), 0);
    CHECK_EQ(wal_open_files(), 0);
}

static void load_refuses_what_is_no_liburing(void) {
    wal_error error;
    CHECK_EQ(wal_ring_load(NULL, &error), WAL_E_NO_IO_URING);
    CHECK_EQ(wal_ring_load("", &error), WAL_E_NO_IO_URING);
    CHECK_EQ(wal_ring_load("libc.so.6", &error), WAL_E_NO_IO_URING);
    CHECK_EQ(wal_ring_load("/nowhere/liburing.so", &error), WAL_E_NO_IO_URING);
    CHECK_EQ(wal_ring_load("/etc/passwd", &error), WAL_E_NO_IO_URING);
    CHECK_EQ(wal_ring_load("/", &error), WAL_E_NO_IO_URING);
    CHECK(error.message[0] != '\0');
    CHECK_EQ(wal_ring_load("/", NULL), WAL_E_NO_IO_URING);
    const char *real = getenv("WALENGINE_LIBURING"); /* it wants Python: not loadable from here */
    if (real != NULL) CHECK_EQ(wal_ring_load(real, &error), WAL_E_NO_IO_URING);
}

/* ---- requests -------------------------------------------------------------------------------- */

static void every_kind_of_request_works(void) {
    struct bench bench = open_bench();
    fill(memory, 3 * PAGE, 1);
    fill(elsewhere, 3 * PAGE, 2);
    submit(&bench, WAL_IO_WRITE_SYNC, 0, memory, 3 * PAGE);
    CHECK_EQ(finish(&bench), 0);
    CHECK(is_written(0, memory, 3 * PAGE));
    int fixed = ring_op(&bench, WAL_RING_OP_WRITE_FIXED) == 1;
    CHECK_EQ(ring_op(&bench, WAL_RING_OP_WRITE), !fixed);
    CHECK_EQ(ring_op(&bench, WAL_RING_OP_FSYNC), 1);
    CHECK_EQ(ring_op(&bench, WAL_RING_OP_LINKED), 1);
    submit(&bench, WAL_IO_WRITE_SYNC, 100001, elsewhere + 1, 777);
    CHECK_EQ(finish(&bench), 0);
    CHECK(is_written(100001, elsewhere + 1, 777));
    CHECK_EQ(ring_op(&bench, WAL_RING_OP_WRITE), 1 + !fixed);
    submit(&bench, WAL_IO_SYNC, 0, NULL, 0);
    CHECK_EQ(finish(&bench), 0);
    CHECK_EQ(wal_io_sync(bench.io, bench.file), 0);
    CHECK_EQ(ring_op(&bench, WAL_RING_OP_FSYNC), 4);
    CHECK_EQ(ring_op(&bench, WAL_RING_OP_DSYNC), 0);
    CHECK_EQ(ring_op(&bench, WAL_RING_OP_LINKED), 2);
    struct wal_io_completion done;
    CHECK_EQ(wal_io_reap(bench.io, &done, 1, -1, 0), 0); /* nothing is under way */
    wal_backend_info info;
    wal_io_uring_info(bench.io, &info);
    CHECK_EQ(info.registered_buffers, fixed ? BUFFERS : 0);
    CHECK_EQ(info.registered_files, 64);
    close_bench(&bench);
}

static void direct_requests_work(void) {
    struct bench bench;
    wal_ring_options how = options();
    int result = open_bench_with(&bench, &how, WAL_IO_DIRECT);
    if (result == -EINVAL) {
        printf("  skipped: the filesystem of %s has no O_DIRECT\n", directory);
        CHECK(getenv("WALENGINE_REQUIRE_ALL") == NULL);
        return;
    }
    CHECK_EQ(result, 0);
    fill(memory, BUFFERS * BUFFER_BYTES, 3);
    submit(&bench, WAL_IO_WRITE_DURABLE, 0, memory + PAGE, 2 * BUFFER_BYTES);
    CHECK_EQ(finish(&bench), 0);
    CHECK(is_written(0, memory + PAGE, 2 * BUFFER_BYTES));
    CHECK_EQ(ring_op(&bench, WAL_RING_OP_DSYNC), 3);
    CHECK_EQ(ring_op(&bench, WAL_RING_OP_FSYNC), 0);
    submit(&bench, WAL_IO_WRITE_SYNC, 0, memory, PAGE);
    CHECK_EQ(finish(&bench), 0);
    CHECK_EQ(ring_op(&bench, WAL_RING_OP_FSYNC), 1);
    CHECK_EQ(ring_op(&bench, WAL_RING_OP_LINKED), 0);
    /* A plain write from memory that is not aligned is copied. */
    struct iovec parts[2] = {{elsewhere + 3, PAGE - 100}, {elsewhere + 9000, 100}};
    fill(elsewhere, 3 * PAGE, 4);
    CHECK_EQ(wal_io_write(bench.io, bench.file, 7 * PAGE, parts, 2), 0);
    CHECK(is_written(7 * PAGE, elsewhere + 3, PAGE - 100));
    CHECK(is_written(8 * PAGE - 100, elsewhere + 9000, 100));
    /* So is what begins and ends inside sectors, as a short write's rest; they keep theirs. */
    struct iovec odd_part = {elsewhere + 1, 2 * PAGE};
    CHECK_EQ(wal_io_write(bench.io, bench.file, 7 * PAGE + 10, &odd_part, 1), 0);
    CHECK(is_written(7 * PAGE, elsewhere + 3, 10));
    CHECK(is_written(7 * PAGE + 10, elsewhere + 1, 2 * PAGE));
    CHECK(is_written(9 * PAGE + 10, memory + 10 * PAGE + 10, PAGE - 10));
    struct iovec part = {memory, PAGE};
    CHECK_EQ(bench.io->ops->write_durable(bench.io, bench.file, 0, &part, 1), PAGE);
    CHECK_EQ(ring_op(&bench, WAL_RING_OP_DSYNC), 4);
    close_bench(&bench);
}

static void long_requests_are_split(void) {
    struct bench bench = open_bench();
    size_t all = BUFFERS * BUFFER_BYTES;
    fill(memory, all, 5);
    submit(&bench, WAL_IO_WRITE_SYNC, 5, memory + 5, all - 5);
    CHECK_EQ(finish(&bench), 0);
    CHECK(is_written(5, memory + 5, all - 5));
    if (ring_op(&bench, WAL_RING_OP_WRITE_FIXED) > 0) {
        CHECK_EQ(ring_op(&bench, WAL_RING_OP_WRITE_FIXED), BUFFERS);
        CHECK_EQ(ring_op(&bench, WAL_RING_OP_LINKED), BUFFERS);
    }
    CHECK_EQ(ring_op(&bench, WAL_RING_OP_FSYNC), 1);
    close_bench(&bench);
}

/* A ring of two places and buffers of a page: a chain is longer than the SQ. */
static void chains_longer_than_the_queue_work(void) {
    struct bench bench;
    wal_ring_options how = options();
    how.sq_entries = 2;
    how.max_inflight = 8;
    how.registered_buffers = 0;
    CHECK_EQ(open_bench_with(&bench, &how, 0), 0);
    enum { PAGES = 40 };
    int registered = wal_io_register_buffers(bench.io, memory, PAGE, PAGES) == 0;
    fill(memory, PAGES * PAGE, 6);
    submit(&bench, WAL_IO_WRITE_SYNC, 0, memory, PAGES * PAGE);
    CHECK_EQ(finish(&bench), 0);
    CHECK(is_written(0, memory, PAGES * PAGE));
    CHECK_EQ(ring_op(&bench, WAL_RING_OP_FSYNC), 1);
    if (registered) CHECK_EQ(ring_op(&bench, WAL_RING_OP_WRITE_FIXED), PAGES);
    close_bench(&bench);
}

static void more_requests_than_room_all_complete(void) {
    struct bench bench;
    wal_ring_options how = options();
    how.sq_entries = 4;
    CHECK_EQ(open_bench_with(&bench, &how, 0), 0);
    enum { REQUESTS = 200 };
    fill(memory, BUFFERS * BUFFER_BYTES, 7);
    for (unsigned i = 0; i < REQUESTS; i++) {
        submit(&bench, i % 3 == 2 ? WAL_IO_SYNC : WAL_IO_WRITE_SYNC, i * PAGE, memory + i * 512,
               PAGE);
    }
    unsigned char seen[REQUESTS + 1] = {0};
    for (int left = REQUESTS; left > 0;) {
        struct wal_io_completion done[16];
        int reaped = wal_io_reap(bench.io, done, 16, -1, WAL_IO_MAY_BLOCK);
        CHECK(reaped > 0);
        for (int i = 0; i < reaped; i++) {
            CHECK_EQ(done[i].result, 0);
            CHECK(done[i].token <= REQUESTS && seen[done[i].token]++ == 0);
        }
        left -= reaped;
    }
    for (unsigned i = 0; i < REQUESTS; i++) {
        if (i % 3 != 2) CHECK(is_written(i * PAGE, memory + i * 512, PAGE));
    }
    close_bench(&bench);
}

/* ---- completions that go wrong --------------------------------------------------------------- */

struct fault {
    const char *name;
    uint32_t effect;
    int64_t value;
    int write_fails; /* what a request has to answer if this befalls its write, or its sync */
    int sync_fails;
};

static const struct fault faults[] = {
    {"EIO", WAL_FAULT_FAIL, EIO, -EIO, -EIO},
    {"ENOSPC", WAL_FAULT_FAIL, ENOSPC, -ENOSPC, -ENOSPC},
    {"ECANCELED", WAL_FAULT_FAIL, ECANCELED, 0, 0},
    {"EINTR", WAL_FAULT_FAIL, EINTR, 0, -EINTR},
    {"EAGAIN", WAL_FAULT_FAIL, EAGAIN, 0, -EAGAIN},
    {"short by all but 1", WAL_FAULT_SHORT, 1, 0, 0},
    {"short by half", WAL_FAULT_SHORT, 2 * PAGE, 0, 0},
    {"short by 4096", WAL_FAULT_SHORT, 3 * PAGE, 0, 0},
    {"nothing written", WAL_FAULT_SHORT, 0, -EIO, 0},
    {"stalled", WAL_FAULT_STALL, 5, 0, 0},
    {"lost", WAL_FAULT_STALL, HOUR_MS, 0, 0},
    {"skipped", WAL_FAULT_SKIP, 0, 0, 0},
};

enum { FAULTS = sizeof faults / sizeof faults[0], GROUP = 3, GROUP_BYTES = 4 * PAGE };

/* Reap GROUP requests; while one is lost the others come, and clearing the fault brings it back. */
static void reap_group(struct bench *bench, const struct fault *fault, int *results) {
    for (int left = GROUP; left > 0;) {
        struct wal_io_completion done;
        int is_lost = fault->value == HOUR_MS && wal_fault_hits() > 0 && left == 1;
        int reaped = wal_io_reap(bench->io, &done, 1, is_lost ? 2000000 : -1, WAL_IO_MAY_BLOCK);
        if (reaped == 0) {
            CHECK(is_lost);
            wal_fault_clear();
            continue;
        }
        CHECK_EQ(reaped, 1);
        results[(done.token - 1) % GROUP] = done.result;
        left--;
    }
}

/* GROUP requests at once, the nth completion of op faulty. Returns the violations seen. */
static int try_fault(struct bench *bench, uint32_t op, const struct fault *fault, uint64_t nth,
                     enum wal_io_kind kind, char *data) {
    int expected = op == WAL_FAULT_CQE_WRITE ? fault->write_fails : fault->sync_fails;
    int results[GROUP], failed = 0, violations = 0;
    CHECK_EQ(wal_io_truncate(bench->io, bench->file, 0), 0);
    CHECK_EQ(wal_io_allocate(bench->io, bench->file, FILE_BYTES), 0);
    bench->token = 0;
    wal_fault_set(op, nth, 0, fault->effect, fault->value);
    for (unsigned i = 0; i < GROUP; i++) {
        fill(data + i * GROUP_BYTES, GROUP_BYTES, 10 + i);
        submit(bench, kind, i * GROUP_BYTES, data + i * GROUP_BYTES, GROUP_BYTES);
    }
    reap_group(bench, fault, results);
    int hits = wal_fault_hits() > 0;
    wal_fault_clear();
    for (unsigned i = 0; i < GROUP; i++) {
        requests_checked++;
        if (results[i] != 0) {
            failed++;
            if (results[i] != expected) violations++;
        } else if (kind != WAL_IO_SYNC && fault->effect != WAL_FAULT_SKIP) {
            if (!is_written(i * GROUP_BYTES, data + i * GROUP_BYTES, GROUP_BYTES)) violations++;
        }
    }
    if (failed != (hits && expected != 0)) violations++;
    return violations;
}

/* All faults on the first few completions. The file is freshly opened for each. */
static int sweep(unsigned flags, enum wal_io_kind kind, char *data) {
    static const uint32_t ops[] = {WAL_FAULT_CQE_WRITE, WAL_FAULT_CQE_SYNC};
    struct bench bench;
    wal_ring_options how = options();
    if (open_bench_with(&bench, &how, flags) < 0) return 0;
    int violations = 0;
    for (int op = 0; op < 2; op++) {
        for (int i = 0; i < FAULTS; i++) {
            for (uint64_t nth = 1; nth <= GROUP + 1; nth++) {
                int found = try_fault(&bench, ops[op], &faults[i], nth, kind, data);
                if (found > 0 && wal_mutant_now == WAL_MUTANT_NONE) {
                    fprintf(stderr, "%s, %s number %d\n", faults[i].name,
                            op == 0 ? "write" : "sync", (int)nth);
                }
                violations += found;
            }
        }
    }
    close_bench(&bench);
    return violations;
}

/* The sync behind a short write does not count, even if the kernel let it run. */
static void a_short_write_has_a_fresh_sync(void) {
    struct bench bench = open_bench();
    fill(memory, 2 * PAGE, 1);
    wal_fault_set(WAL_FAULT_CQE_WRITE, 1, 0, WAL_FAULT_SHORT, PAGE);
    submit(&bench, WAL_IO_WRITE_SYNC, 0, memory, 2 * PAGE);
    CHECK_EQ(finish(&bench), 0);
    wal_fault_clear();
    CHECK_EQ(ring_op(&bench, WAL_RING_OP_FSYNC), 2);
    CHECK_EQ(ring_op(&bench, WAL_RING_OP_LINKED), 2);
    close_bench(&bench);
}

static void every_completion_can_go_wrong(void) {
    CHECK_EQ(sweep(0, WAL_IO_SYNC, memory), 0);
    CHECK_EQ(sweep(0, WAL_IO_WRITE_SYNC, memory), 0);
    CHECK_EQ(sweep(0, WAL_IO_WRITE_SYNC, elsewhere + 1), 0);
    CHECK_EQ(sweep(WAL_IO_DIRECT, WAL_IO_WRITE_DURABLE, memory), 0);
    CHECK_EQ(sweep(WAL_IO_DIRECT, WAL_IO_WRITE_SYNC, elsewhere), 0);
}

static void faults_that_do_not_end_are_given_up(void) {
    struct bench bench = open_bench();
    wal_fault_set(WAL_FAULT_CQE_WRITE, 1, 1, WAL_FAULT_FAIL, EAGAIN);
    submit(&bench, WAL_IO_WRITE_SYNC, 0, memory, PAGE);
    CHECK_EQ(finish(&bench), -EIO);
    wal_fault_set(WAL_FAULT_CQE_SYNC, 1, 1, WAL_FAULT_FAIL, ECANCELED);
    CHECK_EQ(wal_io_sync(bench.io, bench.file), -EIO);
    wal_fault_set(WAL_FAULT_CQE_WRITE, 1, 1, WAL_FAULT_SHORT, 10);
    fill(memory, PAGE, 9);
    submit(&bench, WAL_IO_WRITE_SYNC, 0, memory, PAGE);
    CHECK_EQ(finish(&bench), 0);
    wal_fault_clear();
    CHECK(is_written(0, memory, PAGE));
    close_bench(&bench);
}

/* ---- submits that go wrong ------------------------------------------------------------------- */

/* The built-in ring, but for submit, and an engine on it. */
struct odd_ring {
    struct wal_engine engine;
    struct wal_io_counters counters;
    struct wal_ring_table table;
    int file;
};

static struct odd_ring odd;
static uint32_t *odd_tail;
static int odd_errors[4], odd_calls;

static int submit_one(void *state) {
    (void)state;
    odd_calls++;
    __atomic_fetch_add(odd_tail, 1, __ATOMIC_RELEASE);
    return (int)syscall(URING_SYS_ENTER, odd.engine.ring.fd, 1, 0, 0, NULL, 0);
}

static int submit_or_fail(void *state) {
    int result = odd_calls < 4 ? odd_errors[odd_calls] : 0;
    odd_calls++;
    return result < 0 ? result : wal_ring_builtin()->submit(state);
}

static void open_odd(int (*how_to_submit)(void *)) {
    wal_ring_options how = options();
    wal_backend_info info;
    memset(&odd, 0, sizeof odd);
    odd_calls = 0;
    CHECK_EQ(wal_ring_open(&odd.engine.ring, &how, &info, NULL), 0);
    odd.table = *odd.engine.ring.table;
    odd.table.submit = how_to_submit;
    odd.engine.ring.table = &odd.table;
    CHECK_EQ(wal_engine_init(&odd.engine, &odd.counters, 4), 0);
    const struct uring_params *params = &odd.engine.ring.params;
    char *map = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, odd.engine.ring.fd, 0);
    CHECK(map != MAP_FAILED);
    odd_tail = (uint32_t *)(void *)(map + params->sq_off.tail);
    char path[300];
    (void)snprintf(path, sizeof path, "%s/data", directory);
    odd.file = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    CHECK(odd.file >= 0);
}

static int write_odd(void) {
    struct wal_io_request request = {
        .kind = WAL_IO_WRITE_SYNC, .file = odd.file, .data = memory, .bytes = 2 * PAGE};
    return wal_engine_perform(&odd.engine, &request);
}

static void close_odd(void) {
    wal_engine_drain(&odd.engine);
    wal_ring_close(&odd.engine.ring);
    wal_engine_free(&odd.engine);
    close(odd.file);
    munmap((void *)((uintptr_t)odd_tail / PAGE * PAGE), PAGE);
}

/* A chain that comes in parts is no chain: its sync may have run before the write. */
static void a_kernel_that_takes_entries_one_by_one(void) {
    open_odd(submit_one);
    fill(memory, 2 * PAGE, 1);
    CHECK_EQ(write_odd(), 0);
    CHECK(is_written(0, memory, 2 * PAGE));
    CHECK_EQ(odd_calls, 3); /* the write, its sync, and a sync that counts */
    CHECK_EQ(odd.counters.ring_ops[WAL_RING_OP_FSYNC], 2);
    close_odd();
}

static void a_kernel_that_puts_off_and_then_fails(void) {
    open_odd(submit_or_fail);
    odd_errors[0] = -EBUSY;
    odd_errors[1] = -EAGAIN;
    odd_errors[2] = 0;
    odd_errors[3] = -EBADF;
    fill(memory, 2 * PAGE, 2);
    CHECK_EQ(write_odd(), 0);
    CHECK(is_written(0, memory, 2 * PAGE));
    CHECK_EQ(odd_calls, 3);
    CHECK_EQ(write_odd(), -EBADF);
    CHECK_EQ(write_odd(), -EBADF); /* nothing is submitted any more */
    CHECK_EQ(odd_calls, 4);
    close_odd();
}

static void mutants_are_noticed(void) {
    wal_mutant_now = WAL_MUTANT_M3_HARDLINK;
    CHECK(sweep(0, WAL_IO_WRITE_SYNC, memory) > 0);
    wal_mutant_now = WAL_MUTANT_M4_RETRY_SYNC;
    CHECK(sweep(0, WAL_IO_SYNC, memory) > 0);
    CHECK(sweep(0, WAL_IO_WRITE_SYNC, memory) > 0);
    wal_mutant_now = WAL_MUTANT_NONE;
}

/* ---- waiting --------------------------------------------------------------------------------- */

static void a_wait_ends_when_it_should(void) {
    struct bench bench = open_bench();
    struct wal_io_completion done;
    wal_fault_set(WAL_FAULT_CQE_SYNC, 1, 0, WAL_FAULT_STALL, HOUR_MS);
    submit(&bench, WAL_IO_SYNC, 0, NULL, 0);
    CHECK_EQ(wal_io_reap(bench.io, &done, 1, 0, 0), 0);
    double begin = check_seconds();
    CHECK_EQ(wal_io_reap(bench.io, &done, 1, 30000000, WAL_IO_MAY_BLOCK), 0);
    CHECK(check_seconds() - begin >= 0.029);
    CHECK_EQ(wal_io_sync(bench.io, bench.file), 0); /* others are not held up */
    wal_fault_clear();
    CHECK_EQ(finish(&bench), 0);
    close_bench(&bench);
}

static void on_alarm(int number) { (void)number; }

static void signals_interrupt_a_reap(void) {
    struct bench bench = open_bench();
    struct wal_io_completion done;
    struct sigaction action = {.sa_handler = on_alarm};
    CHECK_EQ(sigaction(SIGALRM, &action, NULL), 0);
    wal_fault_set(WAL_FAULT_CQE_SYNC, 1, 0, WAL_FAULT_STALL, HOUR_MS);
    submit(&bench, WAL_IO_SYNC, 0, NULL, 0);
    CHECK_EQ(ualarm(20000, 0), 0);
    double begin = check_seconds();
    /* Held completions are looked at every 2 ms: a signal may come between two waits. */
    (void)ualarm(20000, 1000);
    CHECK_EQ(wal_io_reap(bench.io, &done, 1, -1, 0), -EINTR);
    CHECK(check_seconds() - begin < 2);
    CHECK_EQ(wal_io_reap(bench.io, &done, 1, 20000000, WAL_IO_MAY_BLOCK), 0);
    (void)ualarm(0, 0);
    wal_fault_clear();
    CHECK_EQ(finish(&bench), 0);
    close_bench(&bench);
}

/* ---- all of it ------------------------------------------------------------------------------- */

static void run_all(void) {
    RUN(ring_opens_and_answers);
    RUN(completions_that_overflow_are_fetched);
    RUN(memory_of_a_closed_ring_is_waited_for);
    RUN(what_never_fits_is_not_waited_for);
    RUN(probe_tells);
    RUN(every_kind_of_request_works);
    RUN(direct_requests_work);
    RUN(long_requests_are_split);
    RUN(chains_longer_than_the_queue_work);
    RUN(more_requests_than_room_all_complete);
    RUN(a_short_write_has_a_fresh_sync);
    RUN(every_completion_can_go_wrong);
    RUN(a_kernel_that_takes_entries_one_by_one);
    RUN(a_kernel_that_puts_off_and_then_fails);
    RUN(faults_that_do_not_end_are_given_up);
    RUN(mutants_are_noticed);
    RUN(a_wait_ends_when_it_should);
    RUN(signals_interrupt_a_reap);
    COUNT("requests_under_faults", requests_checked);
}

int main(void) {
    RUN(load_refuses_what_is_no_liburing);
    return run_suite(run_all);
}
