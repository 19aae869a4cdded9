/*
 * Blocks that are handed over, and blocks that are read ahead: what the caller gets is what the
 * cursor gives, in its order, whoever frees it and whenever; an end and an error stay.
 *
 * One log on a real directory serves all tests: records of 0 to 20,000 bytes in frames of all
 * sizes, some with a CRC of their own, and two that are larger than a reader's window.
 */
#include <pthread.h>
#include <stdbool.h>
#include <unistd.h>

#include "check.h"
#include "hooks.h"
#include "walengine.h"

enum { RECORDS = 6000, FIRST_LARGE = 1234, SECOND_LARGE = 4321, READERS = 4 };
enum { LARGE_BYTES = 3 << 20, SEGMENT_BYTES = 4 << 20, BLOCKS_MAX = 4096, BATCH_RECORDS = 64 };

static char directory[64];
static char contents[LARGE_BYTES + 256]; /* of a record: length_of(lsn) bytes from lsn % 256 on */
static wal_error error;

static uint32_t length_of(uint64_t lsn) {
    if (lsn == FIRST_LARGE || lsn == SECOND_LARGE) return LARGE_BYTES;
    if (lsn % 100 == 0) return 20000;
    return (uint32_t)(lsn * 2654435761u % 400);
}

static const char *contents_of(uint64_t lsn) { return contents + lsn % 256; }

static bool has_crc(uint64_t lsn) { return lsn % 1000 < 200; }

static void succeeds(int result, const char *what) {
    if (result < 0) fprintf(stderr, "%s: %d %s\n", what, result, error.message);
    CHECK(result >= 0);
}

/* ---- the log --------------------------------------------------------------------------------- */

/* Records from lsn on that go into one call; returns how many. */
static uint32_t append_some(wal_writer *writer, uint64_t lsn) {
    static char joined[BATCH_RECORDS * 20000 + LARGE_BYTES];
    uint32_t lengths[BATCH_RECORDS], crcs[BATCH_RECORDS], count = 0, taken;
    uint32_t most = lsn % 5 == 0 ? 1 : BATCH_RECORDS;
    uint64_t bytes = 0, first;
    for (; count < most && lsn + count <= RECORDS; count++) {
        uint64_t next = lsn + count;
        if (has_crc(next) != has_crc(lsn)) break;
        memcpy(joined + bytes, contents_of(next), length_of(next));
        crcs[count] = wal_crc32c(0, contents_of(next), length_of(next));
        lengths[count] = length_of(next);
        bytes += length_of(next);
    }
    succeeds(wal_writer_append_batch(writer, joined, lengths, crcs, count,
                                     has_crc(lsn) ? WAL_RECORD_CRC : 0, &first, &taken, &error),
             "append");
    CHECK_EQ_U64(taken, count);
    CHECK_EQ_U64(first, lsn);
    return count;
}

static void make_log(void) {
    const char *base = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    (void)snprintf(directory, sizeof directory, "%s/walengine-read-XXXXXX", base);
    CHECK(mkdtemp(directory) != NULL);
    for (size_t i = 0; i < sizeof contents; i++) contents[i] = (char)(i * 31 + i / 251);
    wal_options options = {
        .segment_bytes = SEGMENT_BYTES,
        .record_bytes_max = 64 << 20,
        .unsynced_bytes_max = 16 << 20,
        .commit_alignment = 8,
        .flags = WAL_CREATE,
    };
    wal_writer *writer = NULL;
    wal_report report;
    succeeds(wal_writer_open(directory, &options, &writer, &report, &error), "open");
    for (uint64_t lsn = 1; lsn <= RECORDS;) lsn += append_some(writer, lsn);
    succeeds(wal_writer_close(writer, 0, &error), "close");
    wal_writer_free(writer);
}

static void remove_log(void) {
    char command[128];
    (void)snprintf(command, sizeof command, "rm -rf '%s'", directory);
    CHECK_EQ(system(command), 0);
}

static wal_reader *open_reader(void) {
    wal_reader *reader = NULL;
    wal_report report;
    succeeds(wal_reader_open(directory, 0, &reader, &report, &error), "read");
    return reader;
}

/* Is every record of the block what was appended? Returns the LSN behind it. */
static uint64_t check_block(const wal_block *block, uint64_t next_lsn) {
    uint32_t shortest = UINT32_MAX, longest = 0;
    uint64_t at = 0;
    CHECK_EQ_U64(block->first_lsn, next_lsn);
    CHECK(block->count > 0);
    for (uint64_t i = 0; i < block->count; i++, next_lsn++) {
        uint32_t length = block->lengths[i];
        CHECK_EQ_U64(length, length_of(next_lsn));
        CHECK_EQ_U64(block->starts[i], at);
        CHECK(memcmp(block->data + at, contents_of(next_lsn), length) == 0);
        CHECK_EQ(block->crcs != NULL, has_crc(next_lsn));
        if (block->crcs != NULL) {
            CHECK_EQ_U64(block->crcs[i], wal_crc32c(0, block->data + at, length));
        }
        if (length < shortest) shortest = length;
        if (length > longest) longest = length;
        at += length;
    }
    CHECK_EQ_U64(at, block->data_bytes);
    CHECK_EQ_U64(block->length_min, shortest);
    CHECK_EQ_U64(block->length_max, longest);
    return next_lsn;
}

/* ---- blocks that are handed over ------------------------------------------------------------- */

/* All blocks at once, checked and given back, in turns, after cursor and reader are gone. */
static void a_block_outlives_its_cursor(void) {
    static wal_block blocks[BLOCKS_MAX];
    uint32_t count = 0;
    int result;
    wal_reader *reader = open_reader();
    wal_cursor *cursor = NULL;
    succeeds(wal_cursor_open(reader, 0, 0, &cursor, &error), "cursor");
    while ((result = wal_cursor_take(cursor, &blocks[count], &error)) == 1) {
        CHECK(++count < BLOCKS_MAX);
    }
    CHECK_EQ(result, 0);
    wal_cursor_close(cursor);
    wal_reader_close(reader);
    uint64_t next_lsn = 1;
    for (uint32_t i = 0; i < count; i++) next_lsn = check_block(&blocks[i], next_lsn);
    CHECK_EQ_U64(next_lsn, RECORDS + 1);
    for (uint32_t i = 0; i < count; i += 2) wal_block_free(blocks[i].data);
    for (uint32_t i = 1; i < count; i += 2) wal_block_free(blocks[i].data);
    wal_block_free(NULL);
}

/* Taken or only looked at, a cursor's blocks are the same; what was taken stays as it is. */
static void taking_and_looking_take_turns(void) {
    wal_reader *reader = open_reader();
    wal_cursor *cursor = NULL;
    wal_block block, kept = {.count = 0};
    uint64_t next_lsn = 1;
    succeeds(wal_cursor_open(reader, 0, 0, &cursor, &error), "cursor");
    for (int i = 0, more = 1; more; i++) {
        if (i % 3 == 0) {
            wal_block before = kept;
            more = wal_cursor_take(cursor, &block, &error);
            if (before.count > 0) (void)check_block(&before, before.first_lsn);
            wal_block_free(before.data);
            kept = block;
        } else {
            more = wal_cursor_next(cursor, &block, &error);
        }
        CHECK(more >= 0);
        if (more) next_lsn = check_block(&block, next_lsn);
    }
    if (kept.count > 0) wal_block_free(kept.data);
    CHECK_EQ_U64(next_lsn, RECORDS + 1);
    wal_cursor_close(cursor);
    wal_reader_close(reader);
}

/* ---- blocks that are read ahead -------------------------------------------------------------- */

struct hand { /* where one thread puts a block for another one to give it back */
    pthread_mutex_t mutex;
    const char *data;
};

/* The thread is started for a caller that spends its time elsewhere. */
static void be_away(void) { (void)nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL); }

/* Read from..to ahead; how many blocks, at most, says most. Returns the LSN behind the last one. */
static uint64_t read_ahead(wal_reader *reader, uint64_t from, uint64_t to, uint64_t most,
                           struct hand *hand) {
    wal_readahead *ahead = NULL;
    wal_block block;
    wal_error why;
    uint64_t next_lsn = from;
    int result = 1;
    CHECK_EQ(wal_readahead_open(reader, from, to, &ahead, &why), 0);
    for (uint64_t i = 0; i < most; i++) {
        if (i < 5) be_away();
        if ((result = wal_readahead_next(ahead, &block, &why)) != 1) break;
        next_lsn = check_block(&block, next_lsn);
        if (hand == NULL) {
            wal_block_free(block.data);
            continue;
        }
        pthread_mutex_lock(&hand->mutex);
        const char *others = hand->data;
        hand->data = block.data;
        pthread_mutex_unlock(&hand->mutex);
        wal_block_free(others);
    }
    CHECK(result >= 0);
    if (result == 0) CHECK_EQ(wal_readahead_next(ahead, &block, &why), 0); /* it stays the end */
    wal_readahead_close(ahead);
    return next_lsn;
}

static void ahead_is_the_same(void) {
    uint64_t random = check_seed();
    wal_reader *reader = open_reader();
    CHECK_EQ_U64(read_ahead(reader, 1, 0, UINT64_MAX, NULL), RECORDS + 1);
    for (int i = 0; i < 50; i++) {
        uint64_t from = 1 + check_below(&random, RECORDS);
        uint64_t to = from + check_below(&random, RECORDS);
        uint64_t end = to < RECORDS ? to + 1 : RECORDS + 1;
        CHECK_EQ_U64(read_ahead(reader, from, to, UINT64_MAX, NULL), end);
    }
    wal_reader_close(reader);
}

/* Goal: no block is leaked or freed twice, wherever the thread is when its reader goes away. */
static void ahead_is_given_up_anywhere(void) {
    uint64_t files = wal_open_files();
    for (uint64_t most = 0; most < 40; most++) {
        wal_reader *reader = open_reader();
        (void)read_ahead(reader, 1, 0, most, NULL);
        wal_reader_close(reader);
    }
    CHECK_EQ_U64(wal_open_files(), files);
}

struct job {
    wal_reader *reader;
    struct hand *hand;
    uint64_t from;
};

static void *run_job(void *argument) {
    const struct job *job = argument;
    for (int i = 0; i < 5; i++) {
        CHECK_EQ_U64(read_ahead(job->reader, job->from, 0, UINT64_MAX, job->hand), RECORDS + 1);
    }
    return NULL;
}

/* Several at once over one reader; each block is given back by another thread than its own. */
static void ahead_in_many_threads(void) {
    struct hand hand = {.mutex = PTHREAD_MUTEX_INITIALIZER};
    struct job jobs[READERS];
    pthread_t threads[READERS];
    wal_reader *reader = open_reader();
    for (int i = 0; i < READERS; i++) {
        jobs[i] = (struct job){.reader = reader, .hand = &hand, .from = 1 + 10 * (uint64_t)i};
        CHECK_EQ(pthread_create(&threads[i], NULL, run_job, &jobs[i]), 0);
    }
    for (int i = 0; i < READERS; i++) CHECK_EQ(pthread_join(threads[i], NULL), 0);
    wal_reader_close(reader);
    wal_block_free(hand.data);
    COUNT("records_read_ahead", READERS * 5 * RECORDS);
}

/* ---- what goes wrong ------------------------------------------------------------------------- */

/* Read all of it as a cursor gives it, or ahead; the result that ended it, and what came before. */
static int read_until(int is_ahead, uint64_t *next_lsn, wal_error *why) {
    wal_reader *reader = NULL;
    wal_report report;
    wal_cursor *cursor = NULL;
    wal_readahead *ahead = NULL;
    wal_block block;
    int result = wal_reader_open(directory, 0, &reader, &report, why);
    if (result < 0) return result;
    result = is_ahead ? wal_readahead_open(reader, 0, 0, &ahead, why)
                      : wal_cursor_open(reader, 0, 0, &cursor, why);
    for (int i = 0; result >= 0; i++) {
        if (is_ahead && i < 5) be_away();
        result = is_ahead ? wal_readahead_next(ahead, &block, why)
                          : wal_cursor_take(cursor, &block, why);
        if (result != 1) break;
        *next_lsn = check_block(&block, *next_lsn);
        wal_block_free(block.data);
    }
    if (result == -EIO && ahead != NULL) { /* who asks again is told again */
        CHECK_EQ(wal_readahead_next(ahead, &block, NULL), result);
    }
    wal_readahead_close(ahead);
    wal_cursor_close(cursor);
    wal_reader_close(reader);
    return result;
}

/* EIO at the nth read for good: after the records before it, the error with its errno. */
static uint64_t fail_each_read(int is_ahead) {
    uint64_t behind_records = 0;
    for (uint64_t nth = 1;; nth++) {
        wal_error why = {.code = 0};
        uint64_t next_lsn = 1;
        wal_fault_set(WAL_FAULT_READ, nth, 1, WAL_FAULT_FAIL, EIO);
        int result = read_until(is_ahead, &next_lsn, &why);
        bool failed = wal_fault_hits() > 0;
        wal_fault_clear();
        if (!failed) {
            CHECK_EQ(result, 0);
            CHECK_EQ_U64(next_lsn, RECORDS + 1);
            CHECK(behind_records > 20);
            return nth - 1;
        }
        CHECK_EQ(result, -EIO);
        CHECK_EQ(why.os_error, EIO);
        behind_records += next_lsn > 1;
    }
}

static void an_error_comes_in_its_place(void) {
    uint64_t cases = fail_each_read(0);
    CHECK_EQ_U64(fail_each_read(1), cases);
    COUNT("read_errors", 2 * cases);
}

/* Each allocation fails once, the thread's too. */
static void out_of_memory(void) {
    uint64_t cases = 0;
    for (uint64_t nth = 1;; nth++, cases++) {
        uint64_t next_lsn = 1;
        wal_error why = {.code = 0};
        (void)wal_alloc_fail(nth);
        int result = read_until(1, &next_lsn, &why);
        bool reached = wal_alloc_fail(0) >= nth;
        CHECK(result == -ENOMEM || (result == 0 && next_lsn == RECORDS + 1));
        if (!reached) break;
    }
    CHECK(cases > 10);
    COUNT("failed_allocations", cases);
}

int main(void) {
    make_log();
    RUN(a_block_outlives_its_cursor);
    RUN(taking_and_looking_take_turns);
    RUN(ahead_is_the_same);
    RUN(ahead_is_given_up_anywhere);
    RUN(ahead_in_many_threads);
    RUN(an_error_comes_in_its_place);
    RUN(out_of_memory);
    remove_log();
    return check_end();
}
