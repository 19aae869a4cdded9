/* Fail the Nth allocation, for every N: a clean error, nothing leaked, nothing lost. */
#include "check.h"
#include "hooks.h"
#include "io_errors.h"

static void writers(void) {
    struct io_errors_options options = {.seed = check_seed(), .scale = check_scale()};
    struct io_errors_result result;
    oom_run(&options, &result);
    if (result.violations > 0) fprintf(stderr, "%s\n", result.first);
    CHECK_EQ(result.violations, 0);
    COUNT("cases", result.cases);
    COUNT("failed_calls", result.failures);
}

/* Read everything; what fails must fail with ENOMEM, and what is read must be right. */
static int read_all(const struct session *s, bool verify, uint64_t *records) {
    wal_reader *reader = NULL;
    wal_cursor *cursor = NULL;
    wal_report report;
    wal_error error;
    wal_block block;
    int result =
        wal_reader_open_io(sim_io(s->disk), WAL_RECOVERY_POINT_IN_TIME, &reader, &report, &error);
    if (result < 0) return result;
    wal_segment_check check;
    for (uint64_t i = 0; verify && result >= 0 && i < report.segments; i++) {
        result = wal_reader_verify(reader, i, &check, &error);
    }
    if (result >= 0) result = wal_cursor_open(reader, 0, 0, &cursor, &error);
    if (result >= 0) {
        while ((result = wal_cursor_next(cursor, &block, &error)) == 1) *records += block.count;
        wal_cursor_close(cursor);
    }
    wal_reader_close(reader);
    return result;
}

static void readers(void) {
    struct session s;
    uint64_t cases = 0;
    session_begin(&s, sim_new(), NULL, SESSION_PLAIN, 3);
    CHECK_EQ(session_open(&s), 0);
    for (int i = 0; i < 9; i++) CHECK_EQ(session_append(&s, 9000, 0), 0);
    CHECK_EQ(session_close(&s), 0);
    for (uint64_t nth = 1;; nth++, cases++) {
        uint64_t records = 0;
        (void)wal_alloc_fail(nth);
        int result = read_all(&s, true, &records);
        bool reached = wal_alloc_fail(0) >= nth;
        if (!reached) {
            CHECK_EQ(result, 0);
            CHECK_EQ(records, 9);
            break;
        }
        CHECK(result == -ENOMEM || (result == 0 && records == 9));
    }
    CHECK(cases > 2);
    COUNT("reader_cases", cases);
    struct sim_disk *disk = s.disk;
    session_end(&s);
    sim_free(disk);
}

int main(void) {
    RUN(writers);
    RUN(readers);
    return check_end();
}
