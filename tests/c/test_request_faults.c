/*
 * Faults of requests: what io_fault.c makes of FAIL, SKIP, SHORT and STALL, over a base that
 * records, and over the simulated disk. And the decisions that a ring takes from it.
 */
#include "probe.h"

/* ---- io_fault.c, over the probe -------------------------------------------------------------- */

static struct wal_io *probe_faults(int through_worker) {
    struct wal_io *io = through_worker ? probe_worker() : probe_begin();
    CHECK_EQ(wal_io_fault_wrap(io, &io), 0);
    return io;
}

static void a_request_is_a_write_and_a_sync(void) {
    struct wal_io *io = probe_faults(1);
    wal_fault_set(WAL_FAULT_WRITE | WAL_FAULT_SYNC, 100, 0, WAL_FAULT_FAIL, EIO);
    CHECK_EQ(submit_write(io, WAL_IO_WRITE_SYNC, 0, 0, 'b', 10), 0);
    CHECK_EQ(wal_fault_count(), 2);
    CHECK_EQ(submit_write(io, WAL_IO_WRITE_DURABLE, 0, 0, 'b', 4096), 0);
    CHECK_EQ(wal_fault_count(), 4);
    CHECK_EQ(submit_sync(io, 0, 3), 0);
    CHECK_EQ(wal_fault_count(), 5);
    CHECK_EQ(wal_fault_hits(), 0);
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(wal_io_reap(io, completions, 1, -1, WAL_IO_MAY_BLOCK), 1);
    }
    expect_calls("wswss");
    wal_fault_set(WAL_FAULT_WRITE, 1, 0, WAL_FAULT_FAIL, EIO);
    CHECK_EQ(submit_sync(io, 0, 3), 0); /* writes nothing */
    CHECK_EQ(wal_fault_count(), 0);
    expect(io, 3, 0, WAL_IO_MAY_BLOCK);
    wal_fault_clear();
    wal_io_destroy(io);
}

static void a_failing_request_is_not_begun(void) {
    for (int through_worker = 0; through_worker < 2; through_worker++) {
        struct wal_io *io = probe_faults(through_worker);
        wal_fault_set(WAL_FAULT_WRITE, 1, 0, WAL_FAULT_FAIL, ENOSPC);
        CHECK_EQ(submit_write(io, WAL_IO_WRITE_SYNC, 0, 0, 'b', 10), 0);
        expect(io, 'b', -ENOSPC, WAL_IO_MAY_BLOCK);
        wal_fault_set(WAL_FAULT_SYNC, 2, 0, WAL_FAULT_FAIL, EIO);
        CHECK_EQ(submit_sync(io, 0, 1), 0);
        CHECK_EQ(submit_write(io, WAL_IO_WRITE_DURABLE, 0, 0, 'c', 4096), 0);
        wal_fault_clear(); /* decided is decided */
        expect(io, 'c', -EIO, WAL_IO_MAY_BLOCK);
        expect(io, 1, 0, WAL_IO_MAY_BLOCK);
        CHECK_EQ(wal_io_reap(io, completions, 1, -1, WAL_IO_MAY_BLOCK), 0);
        expect_calls("s");
        wal_io_destroy(io);
    }
}

static void a_skipped_request_succeeds(void) {
    struct wal_io *io = probe_faults(1);
    wal_fault_set(WAL_FAULT_SYNC, 1, 1, WAL_FAULT_SKIP, 0);
    CHECK_EQ(submit_sync(io, 0, 1), 0);
    expect(io, 1, 0, 0);
    expect_calls("");
    CHECK_EQ(submit_write(io, WAL_IO_WRITE_SYNC, 0, 0, 'b', 10), 0);
    expect(io, 'b', 0, 0);
    expect_calls("w"); /* the device lies; the cache does not */
    wal_fault_set(WAL_FAULT_WRITE, 1, 1, WAL_FAULT_SKIP, 0);
    CHECK_EQ(submit_write(io, WAL_IO_WRITE_SYNC, 0, 0, 'b', 10), 0);
    expect(io, 'b', 0, 0);
    expect_calls("ws");
    CHECK_EQ(submit_write(io, WAL_IO_WRITE_DURABLE, 0, 0, 'c', 4096), 0);
    expect(io, 'c', 0, 0);
    expect_calls("ws");
    wal_fault_clear();
    wal_io_destroy(io);
}

static void a_short_request_is_finished(void) {
    struct wal_io *io = probe_faults(1);
    wal_fault_set(WAL_FAULT_WRITE, 1, 0, WAL_FAULT_SHORT, 7);
    CHECK_EQ(submit_write(io, WAL_IO_WRITE_SYNC, 0, 100, 'b', 20), 0);
    expect(io, 'b', 0, WAL_IO_MAY_BLOCK);
    expect_calls("wws");
    CHECK_EQ(probe.calls[0].bytes, 7);
    CHECK_EQ(probe.calls[1].offset, 107);
    CHECK_EQ(probe.calls[1].bytes, 13);
    probe.count = 0;
    wal_fault_set(WAL_FAULT_WRITE, 1, 0, WAL_FAULT_SHORT, 5000);
    CHECK_EQ(submit_write(io, WAL_IO_WRITE_DURABLE, 0, 4096, 'c', 8192), 0);
    expect(io, 'c', 0, WAL_IO_MAY_BLOCK);
    expect_calls("wws");
    CHECK_EQ(probe.calls[0].bytes, 4096);
    CHECK_EQ(probe.calls[1].offset, 4096);
    CHECK_EQ(probe.calls[1].bytes, 8192);
    wal_fault_set(WAL_FAULT_WRITE, 1, 0, WAL_FAULT_SHORT, 0);
    CHECK_EQ(submit_write(io, WAL_IO_WRITE_SYNC, 0, 100, 'b', 20), 0);
    expect(io, 'b', -EIO, WAL_IO_MAY_BLOCK);
    wal_fault_set(WAL_FAULT_SYNC, 1, 0, WAL_FAULT_SHORT, 7);
    CHECK_EQ(submit_sync(io, 0, 1), 0); /* there is nothing to shorten */
    expect(io, 1, 0, WAL_IO_MAY_BLOCK);
    wal_fault_clear();
    wal_io_destroy(io);
}

/* ---- stalls ---------------------------------------------------------------------------------- */

static void a_stalled_request_holds_up_its_file_only(void) {
    struct wal_io *io = probe_faults(1);
    wal_fault_set(WAL_FAULT_SYNC, 1, 0, WAL_FAULT_STALL, 60);
    double begin = check_seconds();
    CHECK_EQ(submit_sync(io, 1, 1), 0);
    CHECK_EQ(submit_sync(io, 1, 2), 0);
    CHECK_EQ(submit_sync(io, 2, 3), 0);
    CHECK(ms_since(begin) < 40); /* submit waits for nobody */
    expect(io, 3, 0, WAL_IO_MAY_BLOCK);
    CHECK(ms_since(begin) < 40);
    CHECK_EQ(wal_io_reap(io, completions, 1, 0, 0), 0);
    CHECK_EQ(wal_io_reap(io, completions, 1, 10 * MS, 0), 0);
    CHECK(ms_since(begin) < 60);
    expect(io, 1, 0, 0);
    CHECK(ms_since(begin) >= 59);
    expect(io, 2, 0, 0);
    CHECK_EQ(wal_io_reap(io, completions, 1, -1, 0), 0);
    CHECK_EQ(probe.calls[0].file, 2);
    wal_fault_clear();
    wal_io_destroy(io);
}

static void *clear_later(void *ignored) {
    (void)ignored;
    (void)usleep(20000);
    wal_fault_clear();
    return NULL;
}

static void a_stall_ends_with_its_rule(void) {
    for (int through_worker = 0; through_worker < 2; through_worker++) {
        struct wal_io *io = probe_faults(through_worker);
        pthread_t clearer;
        wal_fault_set(WAL_FAULT_WRITE, 1, 1, WAL_FAULT_STALL, 60000);
        CHECK_EQ(submit_write(io, WAL_IO_WRITE_SYNC, 1, 0, 'b', 10), 0);
        CHECK_EQ(submit_sync(io, 1, 2), 0);
        CHECK_EQ(pthread_create(&clearer, NULL, clear_later, NULL), 0);
        double begin = check_seconds();
        expect(io, 'b', 0, 0);
        CHECK(ms_since(begin) < 5000);
        CHECK_EQ(submit_sync(io, 1, 3), 0); /* no rule, and still behind */
        expect(io, 2, 0, 0);
        expect(io, 3, 0, 0);
        CHECK_EQ(pthread_join(clearer, NULL), 0);
        expect_calls("wsss");
        wal_io_destroy(io);
    }
}

static void what_comes_after_a_stall_stays_behind_it(void) {
    struct wal_io *io = probe_faults(1);
    wal_fault_set(WAL_FAULT_SYNC, 1, 0, WAL_FAULT_STALL, 60000);
    CHECK_EQ(submit_sync(io, 1, 1), 0);
    wal_fault_clear();
    CHECK_EQ(submit_sync(io, 1, 2), 0); /* no rule is set, and still */
    expect(io, 1, 0, WAL_IO_MAY_BLOCK);
    expect(io, 2, 0, WAL_IO_MAY_BLOCK);
    wal_io_destroy(io);
}

static void on_signal(int number) { (void)number; }

static void a_signal_ends_the_wait_for_a_stalled_request(void) {
    struct wal_io *io = probe_faults(1);
    struct sigaction action = {.sa_handler = on_signal}, before;
    CHECK_EQ(sigaction(SIGALRM, &action, &before), 0);
    wal_fault_set(WAL_FAULT_SYNC, 1, 0, WAL_FAULT_STALL, 60000);
    CHECK_EQ(submit_sync(io, 1, 1), 0);
    double begin = check_seconds();
    (void)ualarm(20000, 20000); /* again and again: the first may come before the wait */
    CHECK_EQ(wal_io_reap(io, completions, 1, -1, 0), -EINTR);
    CHECK(ms_since(begin) < 5000);
    (void)ualarm(10000, 0);
    CHECK_EQ(wal_io_reap(io, completions, 1, 50 * MS, WAL_IO_MAY_BLOCK), 0);
    CHECK_EQ(sigaction(SIGALRM, &before, NULL), 0);
    wal_io_destroy(io); /* held back, never begun, dropped */
    expect_calls("");
    wal_fault_clear();
}

static void decisions_for_a_ring(void) {
    int64_t value = 0;
    uint64_t serial = 0;
    wal_fault_set(WAL_FAULT_CQE_WRITE, 2, 0, WAL_FAULT_SHORT, 512);
    CHECK_EQ(wal_fault_decide(WAL_FAULT_CQE_WRITE, &value, &serial), WAL_FAULT_DO);
    CHECK_EQ(wal_fault_decide(WAL_FAULT_CQE_SYNC, &value, &serial), WAL_FAULT_DO);
    CHECK_EQ(wal_fault_decide(WAL_FAULT_CQE_WRITE, &value, &serial), WAL_FAULT_DO_SHORT);
    CHECK_EQ(value, 512);
    wal_fault_set(WAL_FAULT_CQE_SYNC, 1, 1, WAL_FAULT_STALL, 60000);
    double begin = check_seconds();
    CHECK_EQ(wal_fault_decide(WAL_FAULT_CQE_SYNC, &value, &serial), WAL_FAULT_DO_STALL);
    CHECK(ms_since(begin) < 5000);
    CHECK_EQ(serial, wal_fault_serial());
    wal_fault_clear();
    CHECK(serial != wal_fault_serial());
    CHECK_EQ(wal_fault_decide(WAL_FAULT_CQE_SYNC, &value, &serial), WAL_FAULT_DO);
    wal_fault_set(WAL_FAULT_ALL, 1, 1, WAL_FAULT_FAIL, EIO);
    CHECK_EQ(wal_fault_decide(WAL_FAULT_CQE_SYNC, &value, &serial), WAL_FAULT_DO);
    CHECK_EQ(wal_fault_decide(WAL_FAULT_SYNC, &value, &serial), WAL_FAULT_DO_FAIL);
    wal_fault_clear();
}

/* ---- over the simulated disk ----------------------------------------------------------------- */

/* The byte at offset of "f" after a cut that takes all it can. */
static char least(const struct sim_disk *disk, uint64_t offset) {
    struct sim_disk *after = sim_cut(disk, NULL, NULL, 0, 1);
    const struct sim_file *file = sim_file(after, sim_lookup(after, "f"));
    CHECK(file != NULL);
    char byte = (char)file->cache[offset];
    sim_free(after);
    return byte;
}

static int sim_begin(uint64_t seed, int async, struct sim_disk **disk, struct wal_io **io) {
    *disk = sim_new();
    (*disk)->async = async != 0;
    (*disk)->async_seed = seed;
    (*disk)->async_hold = seed % 3 == 0 ? 2 : 0;
    CHECK_EQ(wal_io_fault_wrap(sim_io(*disk), io), 0);
    int file = wal_io_open(*io, "f", WAL_IO_WRITE | WAL_IO_CREATE | WAL_IO_DIRECT);
    CHECK_EQ(wal_io_write_zeros(*io, file, 0, FILE_BYTES), 0);
    CHECK_EQ(wal_io_sync(*io, file), 0);
    CHECK_EQ(wal_io_sync_dir(*io), 0);
    return file;
}

/* Whatever a completion of 0 says is durable, but for a lying device. */
static void faults_over_the_simulated_disk(void) {
    const uint32_t effects[] = {WAL_FAULT_FAIL, WAL_FAULT_SHORT, WAL_FAULT_STALL, WAL_FAULT_SKIP};
    for (uint64_t seed = 0; seed < 240; seed++) {
        struct sim_disk *disk;
        struct wal_io *io;
        uint32_t effect = effects[seed % 4];
        uint32_t op = seed / 4 % 2 == 0 ? WAL_FAULT_WRITE : WAL_FAULT_SYNC;
        enum wal_io_kind kind = seed / 8 % 2 == 0 ? WAL_IO_WRITE_SYNC : WAL_IO_WRITE_DURABLE;
        int file = sim_begin(seed, seed / 16 % 3 != 0, &disk, &io);
        wal_fault_set(op, 2, 0, effect, effect == WAL_FAULT_SHORT ? 4097 : 5);
        for (char byte = 'b'; byte < 'e'; byte++) {
            uint64_t offset = (uint64_t)(byte - 'a') * 8192;
            CHECK_EQ(submit_write(io, kind, file, offset, byte, 8192), 0);
        }
        CHECK_EQ(wal_fault_hits(), 1);
        for (int left = 3; left > 0;) {
            int count = wal_io_reap(io, completions, 3, -1, WAL_IO_MAY_BLOCK);
            CHECK(count > 0);
            for (int i = 0; i < count; i++) {
                uint64_t token = completions[i].token, offset = (token - 'a') * 8192;
                int fails = effect == WAL_FAULT_FAIL && token == 'c';
                int lies = effect == WAL_FAULT_SKIP && token == 'c';
                CHECK_EQ(completions[i].result, fails ? -5 : 0);
                if (fails || lies) continue;
                CHECK_EQ(least(disk, offset), token);
                CHECK_EQ(least(disk, offset + 8191), token);
            }
            left -= count;
        }
        CHECK_EQ(wal_io_reap(io, completions, 3, -1, WAL_IO_MAY_BLOCK), 0);
        wal_fault_clear();
        wal_io_destroy(io);
        sim_free(disk);
    }
}

int main(void) {
    RUN(a_request_is_a_write_and_a_sync);
    RUN(a_failing_request_is_not_begun);
    RUN(a_skipped_request_succeeds);
    RUN(a_short_request_is_finished);
    RUN(a_stalled_request_holds_up_its_file_only);
    RUN(a_stall_ends_with_its_rule);
    RUN(what_comes_after_a_stall_stays_behind_it);
    RUN(a_signal_ends_the_wait_for_a_stalled_request);
    RUN(decisions_for_a_ring);
    RUN(faults_over_the_simulated_disk);
    return check_end();
}
