/*
 * An event loop in C: appends without waiting, a descriptor that is raised, a call that sees what
 * is done. Alone, beside threads that append, commit and trim, on a full log, on a failing and on a
 * slow disk; on every backend, and under ThreadSanitizer (make tsan).
 *
 * What must hold: whenever something is still to be done the descriptor is raised sooner or later
 * (a loop that sleeps through the news fails here after PATIENCE_MS), and what the poll calls
 * durable is found again.
 */
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "check.h"
#include "walengine.h"

enum { PATIENCE_MS = 20000, RECORD_BYTES_MAX = 3000 };

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
static uint64_t records, bells, polls, chance;

/* ---- a log and a loop ------------------------------------------------------------------------ */

struct loop {
    wal_writer *writer;
    int bell;
    uint64_t handed; /* the last LSN that went down here */
    uint64_t durable;
};

static void make_directory(void) {
    const char *base = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    (void)snprintf(directory, sizeof directory, "%s/walengine-poll-XXXXXX", base);
    CHECK(mkdtemp(directory) != NULL);
}

static void remove_directory(void) {
    char command[128];
    (void)snprintf(command, sizeof command, "rm -rf '%s'", directory);
    CHECK_EQ(system(command), 0);
}

static struct loop open_loop(uint64_t log_bytes_max) {
    wal_options how = {
        .segment_bytes = 65536,
        .record_bytes_max = 65536,
        .log_bytes_max = log_bytes_max,
        .unsynced_bytes_max = 1 << 20,
        .commit_alignment = mode->direct_io ? 4096 : 8,
        .flags = WAL_CREATE,
        .ring = {.backend = mode->backend,
                 .provider = WAL_RING_BUILTIN,
                 .sq_entries = 64,
                 .max_inflight = 4,
                 .direct_io = mode->direct_io,
                 .registered_buffers = 8,
                 .buffer_bytes = 8192},
    };
    struct loop loop = {.bell = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)};
    wal_report report;
    wal_error error;
    CHECK(loop.bell >= 0);
    CHECK_EQ(wal_writer_open(directory, &how, &loop.writer, &report, &error), 0);
    CHECK_EQ(wal_writer_notify(loop.writer, loop.bell, &error), 0);
    loop.handed = loop.durable = report.last_lsn;
    return loop;
}

static void close_loop(struct loop *loop) {
    wal_error error;
    CHECK_EQ(wal_writer_notify(loop->writer, -1, &error), 0);
    CHECK_EQ(close(loop->bell), 0);
    CHECK_EQ(wal_writer_close(loop->writer, 0, &error), 0);
    wal_writer_free(loop->writer);
}

static void wait_for_bell(struct loop *loop) {
    struct pollfd watched = {.fd = loop->bell, .events = POLLIN};
    int result;
    do {
        result = poll(&watched, 1, PATIENCE_MS);
    } while (result < 0 && errno == EINTR);
    if (result == 0) {
        check_failed(__FILE__, __LINE__, "%s: the bell did not ring; durable is %llu of %llu",
                     mode->name, (unsigned long long)loop->durable,
                     (unsigned long long)loop->handed);
    }
    uint64_t rung;
    CHECK_EQ(read(loop->bell, &rung, sizeof rung), sizeof rung);
    bells++;
}

static int look(struct loop *loop, uint64_t lsn) {
    wal_error error;
    uint64_t before = loop->durable;
    int result = wal_writer_poll(loop->writer, lsn, &loop->durable, &error);
    CHECK(loop->durable >= before);
    CHECK(result != 0 || loop->durable >= lsn);
    polls++;
    return result;
}

static char bytes[RECORD_BYTES_MAX];

/* Hand over count records of these sizes; WAL_OK once all are down, else the failure. */
static int hand_over(struct loop *loop, uint32_t *lengths, uint32_t count, uint32_t flags) {
    static char joined[16 * RECORD_BYTES_MAX];
    uint32_t from = 0;
    while (from < count) {
        uint64_t first_lsn, at = 0;
        uint32_t taken;
        wal_error error;
        for (uint32_t i = from; i < count; at += lengths[i++])
            memcpy(joined + at, bytes, lengths[i]);
        int result =
            wal_writer_append_batch(loop->writer, joined, lengths + from, NULL, count - from,
                                    flags | WAL_NO_WAIT, &first_lsn, &taken, &error);
        if (taken > 0) loop->handed = first_lsn + taken - 1;
        from += taken;
        records += taken;
        if (result != 0 && result != WAL_E_AGAIN) return result;
        CHECK(result == WAL_E_AGAIN || from == count);
        if (from == count) break;
        wait_for_bell(loop);
        result = look(loop, 0);
        if (result < 0 && result != WAL_E_AGAIN) return result;
    }
    return WAL_OK;
}

static int until_durable(struct loop *loop, uint64_t lsn) {
    int result;
    while ((result = look(loop, lsn)) == WAL_E_AGAIN) wait_for_bell(loop);
    return result;
}

static uint64_t count_found(void) {
    wal_reader *reader = NULL;
    wal_cursor *cursor = NULL;
    wal_report report;
    wal_error error;
    wal_block block;
    uint64_t found = 0;
    CHECK_EQ(wal_reader_open(directory, WAL_RECOVERY_POINT_IN_TIME, &reader, &report, &error), 0);
    CHECK_EQ(wal_cursor_open(reader, 0, 0, &cursor, &error), 0);
    int result;
    while ((result = wal_cursor_next(cursor, &block, &error)) == 1) found += block.count;
    CHECK_EQ(result, 0);
    wal_cursor_close(cursor);
    wal_reader_close(reader);
    return found;
}

static void in_every_mode(void (*story)(void)) {
    for (size_t i = 0; i < MODES; i++) {
        mode = &modes[i];
        wal_ring_options ring = {.backend = mode->backend, .sq_entries = 64, .max_inflight = 4};
        wal_backend_info info;
        if (wal_ring_probe(&ring, &info, NULL) < 0) continue;
        make_directory();
        story();
        remove_directory();
    }
}

/* ---- stories --------------------------------------------------------------------------------- */

static void alone_one(void) {
    struct loop loop = open_loop(0);
    uint32_t rounds = (uint32_t)check_scaled(4000), lengths[16];
    for (uint32_t round = 0; round < rounds; round++) {
        uint32_t count = 1 + (uint32_t)check_below(&chance, 8);
        for (uint32_t i = 0; i < count; i++) {
            lengths[i] = (uint32_t)check_below(&chance, RECORD_BYTES_MAX);
        }
        uint32_t flags = check_below(&chance, 4) ? WAL_DURABLE : 0;
        if (check_below(&chance, 5) == 0) flags |= WAL_ATOMIC;
        CHECK_EQ(hand_over(&loop, lengths, count, flags), WAL_OK);
        /* Sometimes the next groups are begun while this one is at the device. */
        if (check_below(&chance, 3) == 0) CHECK_EQ(until_durable(&loop, loop.handed), WAL_OK);
    }
    CHECK_EQ(until_durable(&loop, loop.handed), WAL_OK);
    CHECK_EQ(loop.durable, loop.handed);
    uint64_t last = loop.handed;
    close_loop(&loop);
    CHECK_EQ(count_found(), last);
}

static void alone(void) { in_every_mode(alone_one); }

/* ---- beside threads -------------------------------------------------------------------------- */

struct beside {
    wal_writer *writer;
    atomic_int stop;
    atomic_int appended;
};

static void *append_and_commit(void *argument) {
    struct beside *beside = argument;
    wal_error error;
    while (!atomic_load(&beside->stop)) {
        uint64_t lsn;
        CHECK_EQ(wal_writer_append(beside->writer, bytes, 500, 0, WAL_DURABLE, &lsn, &error), 0);
        atomic_fetch_add(&beside->appended, 1);
    }
    return NULL;
}

static void *trim_and_sync(void *argument) {
    struct beside *beside = argument;
    wal_error error;
    while (!atomic_load(&beside->stop)) {
        wal_position position;
        wal_writer_position(beside->writer, &position);
        uint64_t keep = position.last_lsn > 50 ? position.last_lsn - 50 : 1;
        CHECK_EQ(wal_writer_truncate_before(beside->writer, keep, 0, &error), 0);
        CHECK_EQ(wal_writer_commit(beside->writer, 0, 0, &error), 0);
        (void)usleep(500);
    }
    return NULL;
}

static void beside_threads_one(void) {
    struct loop loop = open_loop(0);
    struct beside beside = {.writer = loop.writer};
    pthread_t threads[3];
    CHECK_EQ(pthread_create(&threads[0], NULL, append_and_commit, &beside), 0);
    CHECK_EQ(pthread_create(&threads[1], NULL, append_and_commit, &beside), 0);
    CHECK_EQ(pthread_create(&threads[2], NULL, trim_and_sync, &beside), 0);
    uint32_t rounds = (uint32_t)check_scaled(2000), lengths[4] = {100, 0, 2000, 7};
    for (uint32_t round = 0; round < rounds; round++) {
        CHECK_EQ(hand_over(&loop, lengths, 4, round % 3 ? WAL_DURABLE : 0), WAL_OK);
        CHECK_EQ(until_durable(&loop, loop.handed), WAL_OK);
    }
    atomic_store(&beside.stop, 1);
    for (int i = 0; i < 3; i++) CHECK_EQ(pthread_join(threads[i], NULL), 0);
    CHECK(atomic_load(&beside.appended) > 0);
    close_loop(&loop);
}

static void beside_threads(void) { in_every_mode(beside_threads_one); }

/* ---- trouble --------------------------------------------------------------------------------- */

static void a_full_log_is_told_and_left_one(void) {
    struct loop loop = open_loop(3 * 65536);
    uint32_t length = RECORD_BYTES_MAX;
    wal_error error;
    int result;
    while ((result = hand_over(&loop, &length, 1, WAL_DURABLE)) == WAL_OK) continue;
    CHECK_EQ(result, WAL_E_FULL);
    CHECK_EQ(hand_over(&loop, &length, 1, WAL_DURABLE), WAL_E_FULL);
    /* The refusal was of that size: one that fits is not told so. */
    CHECK_EQ(until_durable(&loop, loop.handed), WAL_OK);
    CHECK_EQ(wal_writer_truncate_before(loop.writer, loop.handed, 0, &error), 0);
    CHECK_EQ(hand_over(&loop, &length, 1, WAL_DURABLE), WAL_OK);
    CHECK_EQ(until_durable(&loop, loop.handed), WAL_OK);
    close_loop(&loop);
}

static void a_full_log_is_told_and_left(void) { in_every_mode(a_full_log_is_told_and_left_one); }

static void a_failed_sync_poisons_one(void) {
    struct loop loop = open_loop(0);
    uint32_t length = 100;
    wal_error error;
    CHECK_EQ(hand_over(&loop, &length, 1, WAL_DURABLE), WAL_OK);
    CHECK_EQ(until_durable(&loop, loop.handed), WAL_OK);
    uint64_t safe = loop.durable;
    wal_fault_set(WAL_FAULT_SYNC, 1, 1, WAL_FAULT_FAIL, EIO);
    int result = hand_over(&loop, &length, 1, WAL_DURABLE);
    if (result == WAL_OK) result = until_durable(&loop, loop.handed);
    CHECK_EQ(result, WAL_E_POISONED);
    CHECK_EQ(look(&loop, 0), WAL_E_POISONED);
    CHECK_EQ(loop.durable, safe);
    wal_fault_clear();
    CHECK_EQ(wal_writer_notify(loop.writer, -1, &error), 0);
    CHECK_EQ(wal_writer_close(loop.writer, 0, &error), WAL_E_POISONED);
    wal_writer_free(loop.writer);
    CHECK_EQ(close(loop.bell), 0);
}

static void a_failed_sync_poisons(void) { in_every_mode(a_failed_sync_poisons_one); }

/* Nobody but the loop is there to notice that the time of what is held back is over. */
static void late_completions_ring_one(void) {
    struct loop loop = open_loop(0);
    uint32_t length = 100;
    static const uint32_t ops[2] = {WAL_FAULT_SYNC, WAL_FAULT_CQE_SYNC};
    for (int i = 0; i < 2; i++) {
        wal_fault_set(ops[i], 1, 0, WAL_FAULT_STALL, 30);
        CHECK_EQ(hand_over(&loop, &length, 1, WAL_DURABLE), WAL_OK);
        CHECK_EQ(until_durable(&loop, loop.handed), WAL_OK);
        wal_fault_clear();
    }
    /* The background's own syncs among them: its thread collects for the loop meanwhile. */
    length = RECORD_BYTES_MAX;
    for (uint64_t round = check_scaled(60); round > 0; round--) {
        wal_fault_set(WAL_FAULT_CQE_SYNC, 1 + check_below(&chance, 8), 0, WAL_FAULT_STALL, 8);
        for (int i = 0; i < 12; i++) {
            CHECK_EQ(hand_over(&loop, &length, 1, WAL_DURABLE), WAL_OK);
            CHECK_EQ(until_durable(&loop, loop.handed), WAL_OK);
        }
        wal_fault_clear();
    }
    close_loop(&loop);
}

static void late_completions_ring(void) { in_every_mode(late_completions_ring_one); }

static void after_a_reopen_it_goes_on_one(void) {
    struct loop loop = open_loop(0);
    uint32_t length = 100;
    wal_report report;
    wal_error error;
    CHECK_EQ(hand_over(&loop, &length, 1, WAL_DURABLE), WAL_OK);
    CHECK_EQ(wal_writer_reopen(loop.writer, &report, &error), 0);
    loop.durable = report.last_lsn;
    CHECK_EQ(hand_over(&loop, &length, 1, WAL_DURABLE), WAL_OK);
    CHECK_EQ(until_durable(&loop, loop.handed), WAL_OK);
    close_loop(&loop);
}

static void after_a_reopen_it_goes_on(void) { in_every_mode(after_a_reopen_it_goes_on_one); }

static void a_closed_writer_says_so(void) {
    mode = &modes[0];
    make_directory();
    struct loop loop = open_loop(0);
    wal_error error;
    uint64_t durable;
    CHECK_EQ(wal_writer_close(loop.writer, 0, &error), 0);
    CHECK_EQ(wal_writer_poll(loop.writer, 0, &durable, &error), WAL_E_CLOSED);
    CHECK_EQ(wal_writer_notify(loop.writer, loop.bell, &error), WAL_E_CLOSED);
    CHECK_EQ(wal_writer_notify(loop.writer, -1, &error), 0); /* forgetting is always possible */
    wal_writer_free(loop.writer);
    CHECK_EQ(close(loop.bell), 0);
    remove_directory();
}

/*
 * Once notify has returned from -1 the number may be another file's: nothing may be written to it.
 * The worker raises the descriptor at the very moment at which the loop takes it away.
 */
static void nobody_elses_file_is_written_one(void) {
    struct loop loop = open_loop(0);
    char name[96];
    wal_error error;
    uint32_t length = 10, taken;
    uint64_t lsn;
    (void)snprintf(name, sizeof name, "%s/victim", directory);
    int victim = open(name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    CHECK(victim >= 0);
    for (uint64_t rounds = check_scaled(1000); rounds > 0; rounds--) {
        (void)wal_writer_append_batch(loop.writer, bytes, &length, NULL, 1,
                                      WAL_DURABLE | WAL_NO_WAIT, &lsn, &taken, &error);
        for (volatile uint64_t spin = check_below(&chance, 20000); spin > 0; spin--) continue;
        CHECK_EQ(wal_writer_notify(loop.writer, -1, &error), 0);
        CHECK_EQ(dup2(victim, loop.bell), loop.bell);
        CHECK_EQ(wal_writer_commit(loop.writer, 0, 0, &error), 0);
        CHECK_EQ(lseek(victim, 0, SEEK_END), 0);
        int bell = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        CHECK_EQ(dup2(bell, loop.bell), loop.bell);
        CHECK_EQ(close(bell), 0);
        CHECK_EQ(wal_writer_notify(loop.writer, loop.bell, &error), 0);
    }
    CHECK_EQ(close(victim), 0);
    close_loop(&loop);
}

static void nobody_elses_file_is_written(void) { in_every_mode(nobody_elses_file_is_written_one); }

int main(void) {
    chance = check_seed();
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (char)('a' + i % 26);
    RUN(alone);
    RUN(beside_threads);
    RUN(a_full_log_is_told_and_left);
    RUN(a_failed_sync_poisons);
    RUN(late_completions_ring);
    RUN(after_a_reopen_it_goes_on);
    RUN(a_closed_writer_says_so);
    RUN(nobody_elses_file_is_written);
    COUNT("records", records);
    COUNT("bells", bells);
    COUNT("polls", polls);
    return check_end();
}
