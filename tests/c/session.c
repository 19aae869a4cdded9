/* A writer under observation; see session.h. */
#include "session.h"

#include "check.h"

static void mark(struct session *s, uint32_t kind, uint64_t a, uint64_t b, uint64_t c, uint64_t d) {
    struct sim_mark one = {.kind = kind, .a = a, .b = b, .c = c, .d = d};
    oracle_apply(&s->oracle, &one);
    if (s->disk != NULL) sim_mark(s->disk, one);
}

static void violation(struct session *s, const char *text, uint64_t a, uint64_t b) {
    if (s->why[0] != '\0') return;
    oracle_say(s->why, "%s (%" PRIu64 ", %" PRIu64 ")", text, a, b);
}

void session_set_mode(struct session *s, enum session_mode mode) {
    bool is_ring = mode >= SESSION_RING;
    s->mode = mode;
    s->options.commit_alignment = mode == SESSION_PLAIN || mode == SESSION_RING ? 8 : 4096;
    s->options.ring = (wal_ring_options){
        .backend = is_ring ? WAL_BACKEND_IO_URING : WAL_BACKEND_PWRITE,
        .provider = WAL_RING_BUILTIN,
        .sq_entries = 64,
        .max_inflight = 6,
        .direct_io = mode == SESSION_DIRECT,
        .registered_buffers = 5,
        .buffer_bytes = 8192,
    };
}

/* What the machine has to know before a process of this mode begins. */
static void tell_disk(struct session *s) {
    if (s->disk == NULL) return;
    s->disk->strict = s->options.commit_alignment == 4096;
    s->disk->async = s->mode >= SESSION_RING;
    s->disk->async_seed = check_random(&s->seed) | 1;
    s->disk->async_hold = 3;
}

const char *session_mode_name(enum session_mode mode) {
    static const char *const names[] = {"plain", "strict", "ring", "strict ring", "direct"};
    return names[mode];
}

void session_begin(struct session *s, struct sim_disk *disk, const char *path,
                   enum session_mode mode, uint64_t seed) {
    *s = (struct session){.disk = disk, .path = path, .seed = seed};
    oracle_init(&s->oracle);
    s->options = (wal_options){
        .segment_bytes = 32768,
        .record_bytes_max = 4u << 20,
        .unsynced_bytes_max = 64u << 20,
        .flags = WAL_CREATE | WAL_NO_THREADS,
    };
    session_set_mode(s, mode);
    if (disk != NULL) disk->strict = s->options.commit_alignment == 4096;
}

void session_end(struct session *s) {
    session_kill(s);
    oracle_free(&s->oracle);
}

/* A failed sync of the device may have cost what was handed over, whoever noticed it. */
static void doubt(struct session *s) {
    if (s->disk == NULL || s->disk->sync_failures == s->sync_failures) return;
    s->sync_failures = s->disk->sync_failures;
    mark(s, ORACLE_DOUBT, 0, 0, 0, 0);
}

/* ---- what every answer must agree with ------------------------------------------------------- */

static void check_poison(struct session *s, int result) {
    if (s->poisoned && result != WAL_E_POISONED) {
        violation(s, "I6: a poisoned writer answers other than its poison", (uint64_t)-result, 0);
    }
    if (result != WAL_E_POISONED) return;
    if (s->poison_error != 0 && s->error.os_error != s->poison_error) {
        violation(s, "I6: the poison changed its errno", (uint64_t)s->poison_error,
                  (uint64_t)s->error.os_error);
    }
    s->poison_error = s->error.os_error;
}

/* durable_lsn is a promise to everybody who reads it, whatever the call itself answered. */
static int observe(struct session *s, int result) {
    wal_position position = {0};
    wal_writer_position(s->writer, &position);
    check_poison(s, result);
    if (position.durable_lsn < s->oracle.acked) {
        violation(s, "I1: durable_lsn went back", s->oracle.acked, position.durable_lsn);
    }
    if (s->poisoned && position.durable_lsn > s->oracle.acked) {
        violation(s, "I6: durable_lsn moved on a poisoned writer", s->oracle.acked,
                  position.durable_lsn);
    }
    if (position.durable_lsn > position.last_lsn) {
        violation(s, "I2: durable_lsn beyond last_lsn", position.durable_lsn, position.last_lsn);
    }
    doubt(s);
    bool poisoned_now = position.poisoned != 0;
    if (s->poisoned && !poisoned_now) violation(s, "I6: the poison wore off", 0, 0);
    if (result == WAL_E_POISONED && !poisoned_now) violation(s, "I6: not marked poisoned", 0, 0);
    if (position.durable_lsn > s->oracle.acked) mark(s, ORACLE_ACK, position.durable_lsn, 0, 0, 0);
    if (poisoned_now && !s->poisoned) mark(s, ORACLE_DOUBT, 0, 0, 0, 0);
    s->poisoned = poisoned_now;
    if (result >= 0) return result;
    s->failed = result;
    bool taken_back = !s->poisoned && position.last_lsn < s->oracle.last;
    if (taken_back) mark(s, ORACLE_DROP, position.last_lsn, 0, 0, 0);
    return result;
}

/* ---- opening and closing --------------------------------------------------------------------- */

/* An opening tells what it recovered; the reader's side of the oracle has its own check. */
static void opened(struct session *s) {
    wal_position position = {0};
    wal_writer_position(s->writer, &position);
    const wal_report *report = &s->report;
    uint64_t promised = s->oracle.handed > s->oracle.acked ? s->oracle.handed : s->oracle.acked;
    s->poisoned = false;
    s->poison_error = 0;
    if (s->disk != NULL) s->sync_failures = s->disk->sync_failures;
    if (position.last_lsn != report->last_lsn || position.first_lsn != report->first_lsn) {
        violation(s, "I5: report and position differ", report->last_lsn, position.last_lsn);
    }
    if (position.durable_lsn != position.last_lsn) {
        violation(s, "I1: an opened log is not durable to its end", position.durable_lsn,
                  position.last_lsn);
    }
    if (position.last_lsn < promised) {
        violation(s, "I1: opened to less than was promised", position.last_lsn, promised);
    }
    if (position.last_lsn > s->oracle.last) {
        violation(s, "I3: opened to more than was appended", position.last_lsn, s->oracle.last);
        return;
    }
    uint64_t asked = s->oracle.trim_asked;
    if (report->first_lsn != s->oracle.trim && (asked == 0 || report->first_lsn != asked)) {
        violation(s, "I2: opened with another first LSN", report->first_lsn, s->oracle.trim);
    }
    mark(s, ORACLE_OPEN, position.last_lsn, report->first_lsn, 0, 0);
}

int session_open(struct session *s) {
    CHECK(s->writer == NULL);
    s->openings++;
    uint64_t seed = s->seed * 1000003 + s->openings;
    s->options.test_seed = check_random(&seed) | 1;
    s->error = (wal_error){0};
    int result;
    tell_disk(s);
    if (s->disk == NULL) {
        result = wal_writer_open(s->path, &s->options, &s->writer, &s->report, &s->error);
    } else {
        struct wal_io *io = sim_io(s->disk);
        if (s->through_faults) CHECK_EQ(wal_io_fault_wrap(io, &io), 0);
        result = wal_writer_open_io(io, &s->options, &s->writer, &s->report, &s->error);
    }
    if (result < 0) {
        doubt(s);
        s->failed = result;
        s->writer = NULL;
        return result;
    }
    opened(s);
    return result;
}

int session_reopen(struct session *s) {
    s->error = (wal_error){0};
    int result = wal_writer_reopen(s->writer, &s->report, &s->error);
    if (result >= 0) {
        opened(s);
        return result;
    }
    doubt(s);
    s->failed = result;
    return result;
}

void session_kill(struct session *s) {
    if (s->writer == NULL) return;
    wal_writer_free(s->writer);
    s->writer = NULL;
    s->poisoned = false;
}

int session_close(struct session *s) {
    s->error = (wal_error){0};
    int result = wal_writer_close(s->writer, 0, &s->error);
    doubt(s);
    if (result < 0) s->failed = result;
    if (result >= 0) {
        if (s->poisoned) violation(s, "I6: a poisoned writer closed without a word", 0, 0);
        mark(s, ORACLE_ACK, s->oracle.last, 0, 0, 0);
    }
    wal_writer_free(s->writer);
    s->writer = NULL;
    s->poisoned = false;
    return result;
}

/* ---- records --------------------------------------------------------------------------------- */

int session_append(struct session *s, uint64_t length, uint32_t flags) {
    uint64_t lsn = 0, due = s->oracle.last + 1;
    uint8_t *data = malloc((size_t)length + 8);
    CHECK(data != NULL);
    oracle_content(due, s->oracle.incarnation, data, (size_t)length);
    uint32_t crc = wal_crc32c(0, data, (size_t)length);
    if (!s->poisoned) mark(s, ORACLE_APPEND, due, length, flags & WAL_RECORD_CRC, 0);
    s->error = (wal_error){0};
    int result = wal_writer_append(s->writer, data, length, crc, flags, &lsn, &s->error);
    free(data);
    result = observe(s, result);
    if (result < 0) return result;
    if (lsn != due) violation(s, "I2: append gave another LSN than was due", lsn, due);
    mark(s, ORACLE_HANDED, due, 0, 0, 0);
    return result;
}

int session_batch(struct session *s, const uint32_t *lengths, uint32_t count, uint32_t flags) {
    uint32_t crcs[SESSION_BATCH_MAX];
    uint64_t total = 0, at = 0, first = 0, due = s->oracle.last + 1;
    uint32_t taken = 0;
    CHECK(count > 0 && count <= SESSION_BATCH_MAX);
    for (uint32_t i = 0; i < count; i++) total += lengths[i];
    uint8_t *joined = malloc((size_t)total + 8);
    CHECK(joined != NULL);
    for (uint32_t i = 0; i < count; i++) {
        oracle_content(due + i, s->oracle.incarnation, joined + at, lengths[i]);
        crcs[i] = wal_crc32c(0, joined + at, lengths[i]);
        at += lengths[i];
        uint64_t group_last = (flags & WAL_ATOMIC) != 0 ? due + count - 1 : 0;
        if (!s->poisoned) {
            mark(s, ORACLE_APPEND, due + i, lengths[i], flags & WAL_RECORD_CRC, group_last);
        }
    }
    s->error = (wal_error){0};
    int result = wal_writer_append_batch(s->writer, joined, lengths, crcs, count, flags, &first,
                                         &taken, &s->error);
    free(joined);
    bool is_left = result == WAL_E_AGAIN && taken == count; /* and nobody waits for it */
    if (is_left) result = 0;
    result = observe(s, result);
    bool partly = (flags & WAL_ATOMIC) != 0 && taken != 0 && taken != count;
    if (partly) violation(s, "I2: an atomic batch was taken in part", taken, count);
    if (result < 0) return result;
    if (first != due) violation(s, "I2: a batch begins at another LSN than due", first, due);
    if (taken != count) violation(s, "I2: a batch succeeded and was not taken", taken, count);
    if (is_left) return result;
    if ((flags & WAL_DURABLE) != 0) {
        mark(s, ORACLE_ACK, due + count - 1, 0, 0, 0);
        observe(s, result);
    }
    /* Direct groups in flight are promised to nobody yet, not even across a kill. */
    if (s->mode != SESSION_DIRECT) mark(s, ORACLE_HANDED, due + count - 1, 0, 0, 0);
    return result;
}

/* ---- the rest -------------------------------------------------------------------------------- */

int session_commit(struct session *s) {
    s->error = (wal_error){0};
    int result = wal_writer_commit(s->writer, 0, 0, &s->error);
    if (result >= 0) mark(s, ORACLE_ACK, s->oracle.last, 0, 0, 0);
    return observe(s, result);
}

int session_commit_interruptible(struct session *s) {
    s->error = (wal_error){0};
    int result = wal_writer_commit(s->writer, 0, WAL_INTERRUPTIBLE, &s->error);
    return observe(s, result == WAL_E_AGAIN ? 0 : result);
}

int session_trim(struct session *s, uint64_t lsn) {
    uint64_t clamped = lsn < s->oracle.last + 1 ? lsn : s->oracle.last + 1;
    if (!s->poisoned && clamped > s->oracle.trim) mark(s, ORACLE_TRIM_ASK, clamped, 0, 0, 0);
    s->error = (wal_error){0};
    int result = wal_writer_truncate_before(s->writer, lsn, 0, &s->error);
    if (result >= 0 && s->oracle.trim_asked != 0) mark(s, ORACLE_TRIM_DONE, clamped, 0, 0, 0);
    return observe(s, result);
}

int session_maintain(struct session *s) {
    s->error = (wal_error){0};
    int result = wal_writer_maintain(s->writer);
    /* A failed preparation is counted and logged, and is nobody's error. */
    if (result < 0) s->error.code = result;
    wal_position position = {0};
    wal_writer_position(s->writer, &position);
    doubt(s);
    if (position.poisoned != 0 && !s->poisoned) mark(s, ORACLE_DOUBT, 0, 0, 0, 0);
    s->poisoned = position.poisoned != 0;
    if (position.durable_lsn > s->oracle.acked) mark(s, ORACLE_ACK, position.durable_lsn, 0, 0, 0);
    return result;
}
