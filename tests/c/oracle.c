/* What a recovered log may hold; see oracle.h. */
#include "oracle.h"

#include <stdarg.h>

#include "check.h"
#include "format.h"

int oracle_say(char *why, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(why, ORACLE_WHY_BYTES, format, arguments);
    va_end(arguments);
    return -1;
}

/* ---- history --------------------------------------------------------------------------------- */

void oracle_init(struct oracle *oracle) { *oracle = (struct oracle){.trim = 1}; }

void oracle_free(struct oracle *oracle) {
    free(oracle->records);
    oracle->records = NULL;
}

void oracle_copy(struct oracle *copy, const struct oracle *oracle) {
    *copy = *oracle;
    copy->records = NULL;
    copy->capacity = oracle->last;
    if (oracle->last == 0) return;
    copy->records = malloc((size_t)oracle->last * sizeof(copy->records[0]));
    CHECK(copy->records != NULL);
    memcpy(copy->records, oracle->records, (size_t)oracle->last * sizeof(copy->records[0]));
}

static void append(struct oracle *oracle, const struct sim_mark *mark) {
    CHECK(mark->a == oracle->last + 1 && mark->a <= ORACLE_RECORDS_MAX);
    if (mark->a > oracle->capacity) {
        oracle->capacity = oracle->capacity * 2 + 64;
        oracle->records =
            realloc(oracle->records, (size_t)oracle->capacity * sizeof(oracle->records[0]));
        CHECK(oracle->records != NULL);
    }
    oracle->records[oracle->last++] = (struct oracle_record){
        .length = (uint32_t)mark->b,
        .incarnation = oracle->incarnation,
        .with_crc = (uint32_t)mark->c,
        .group_last = mark->d,
    };
}

static void opened(struct oracle *oracle, const struct sim_mark *mark) {
    CHECK(mark->a <= oracle->last);
    oracle->created = true;
    oracle->doubt = false;
    oracle->incarnation++;
    oracle->last = mark->a;
    oracle->acked = mark->a; /* recovery syncs what it then believes */
    oracle->handed = mark->a;
    oracle->trim = mark->b;
    oracle->trim_asked = 0;
}

void oracle_apply(struct oracle *oracle, const struct sim_mark *mark) {
    switch (mark->kind) {
        case ORACLE_APPEND: append(oracle, mark); break;
        case ORACLE_HANDED:
            if (!oracle->doubt) oracle->handed = mark->a;
            break;
        case ORACLE_ACK:
            if (mark->a > oracle->acked) oracle->acked = mark->a;
            break;
        case ORACLE_DROP:
            if (mark->a < oracle->last) oracle->last = mark->a;
            break;
        case ORACLE_DOUBT:
            oracle->doubt = true;
            oracle->handed = oracle->acked;
            break;
        case ORACLE_TRIM_ASK: oracle->trim_asked = mark->a; break;
        case ORACLE_TRIM_DONE:
            oracle->trim = mark->a;
            oracle->trim_asked = 0;
            break;
        case ORACLE_OPEN: opened(oracle, mark); break;
        default: CHECK(!"a known mark");
    }
}

uint64_t oracle_hash(const struct oracle *oracle) {
    uint64_t state = oracle->acked * 0x9e3779b97f4a7c15u ^ oracle->trim << 20 ^
                     oracle->trim_asked << 40 ^ (uint64_t)oracle->incarnation << 56 ^
                     (oracle->created ? 1u : 0u);
    return check_random(&state);
}

/* ---- content --------------------------------------------------------------------------------- */

/* Every fourth record is full of frame magics, so that a resync meets them. */
void oracle_content(uint64_t lsn, uint32_t incarnation, uint8_t *data, size_t length) {
    uint64_t state = lsn * 0x9e3779b97f4a7c15u ^ incarnation;
    for (size_t i = 0; i < length; i += 8) {
        uint64_t word = check_random(&state);
        if (lsn % 4 == 0 && i > 0) word = (word & ~UINT64_C(0xffffffff)) | WAL_FRAME_MAGIC;
        memcpy(data + i, &word, length - i < 8 ? length - i : 8);
    }
}

static int check_record(const struct oracle *oracle, uint64_t lsn, const char *data,
                        uint64_t length, const uint32_t *crc, char *why) {
    if (lsn == 0 || lsn > oracle->last) {
        return oracle_say(why, "I3: record %" PRIu64 " was never appended (last is %" PRIu64 ")",
                          lsn, oracle->last);
    }
    const struct oracle_record *record = &oracle->records[lsn - 1];
    if (length != record->length) {
        return oracle_say(why, "I3: record %" PRIu64 " has %" PRIu64 " bytes, appended were %u",
                          lsn, length, record->length);
    }
    uint8_t *expected = malloc((size_t)length + 8);
    CHECK(expected != NULL);
    oracle_content(lsn, record->incarnation, expected, (size_t)length);
    bool same = length == 0 || memcmp(expected, data, (size_t)length) == 0;
    free(expected);
    if (!same) {
        return oracle_say(why, "I3: record %" PRIu64 " of incarnation %u has other bytes", lsn,
                          record->incarnation);
    }
    if ((crc != NULL) != (record->with_crc != 0)) {
        return oracle_say(why, "I3: record %" PRIu64 " %s a CRC of its own", lsn,
                          crc != NULL ? "got" : "lost");
    }
    if (crc != NULL && *crc != wal_crc32c(0, data, (size_t)length)) {
        return oracle_say(why, "I3: record %" PRIu64 ": its own CRC is wrong", lsn);
    }
    return 0;
}

/* ---- the log --------------------------------------------------------------------------------- */

static int check_bounds(const struct oracle *oracle, const struct oracle_found *found, bool killed,
                        char *why) {
    uint64_t promised = killed && oracle->handed > oracle->acked ? oracle->handed : oracle->acked;
    if (found->last < promised) {
        return oracle_say(why, "I1: recovered to %" PRIu64 ", %s was %" PRIu64, found->last,
                          promised == oracle->acked ? "acknowledged" : "handed over", promised);
    }
    if (found->last > oracle->last) {
        return oracle_say(why, "I3: recovered to %" PRIu64 ", appended were %" PRIu64, found->last,
                          oracle->last);
    }
    bool trim_known = found->first == oracle->trim ||
                      (oracle->trim_asked != 0 && found->first == oracle->trim_asked);
    if (!trim_known) {
        return oracle_say(why, "I2: begins at %" PRIu64 ", trimmed to %" PRIu64 ", asked %" PRIu64,
                          found->first, oracle->trim, oracle->trim_asked);
    }
    for (uint64_t lsn = found->last; lsn > 0 && lsn + 64 > found->last; lsn--) {
        uint64_t group_last = oracle->records[lsn - 1].group_last;
        if (group_last > found->last) {
            return oracle_say(why, "I2: ends at %" PRIu64 " inside the atomic group up to %" PRIu64,
                              found->last, group_last);
        }
    }
    return 0;
}

static int check_records(const struct oracle *oracle, wal_reader *reader, uint64_t from,
                         const struct oracle_found *found, char *why) {
    wal_cursor *cursor = NULL;
    wal_error error = {0};
    uint64_t next = from;
    int result = wal_cursor_open(reader, from, 0, &cursor, &error);
    if (result < 0) return oracle_say(why, "I1: no cursor: %d %s", result, error.message);
    wal_block block;
    while ((result = wal_cursor_take(cursor, &block, &error)) == 1) {
        if (block.first_lsn != next || block.count == 0) {
            result = oracle_say(why, "I2: record %" PRIu64 " comes where %" PRIu64 " was due",
                                block.first_lsn, next);
        }
        for (uint64_t i = 0; i < block.count && result == 1; i++) {
            const uint32_t *crc = block.crcs != NULL ? &block.crcs[i] : NULL;
            bool inside = block.starts[i] + block.lengths[i] <= block.data_bytes;
            if (!inside) {
                result = oracle_say(why, "I3: record %" PRIu64 " lies outside its block", next);
            } else if (check_record(oracle, next, block.data + block.starts[i], block.lengths[i],
                                    crc, why) != 0) {
                result = -1;
            }
            next++;
        }
        wal_block_free(block.data);
        if (result != 1) break;
    }
    if (result < -1) result = oracle_say(why, "I1: cursor fails: %d %s", result, error.message);
    wal_cursor_close(cursor);
    if (result == 0 && next != found->last + 1) {
        return oracle_say(why, "I2: the cursor ends before %" PRIu64 ", the report says %" PRIu64,
                          next, found->last);
    }
    return result;
}

int oracle_check_reader(const struct oracle *oracle, wal_reader *reader, const wal_report *report,
                        bool killed, struct oracle_found *found, char *why) {
    *found = (struct oracle_found){
        .first = report->first_lsn, .last = report->last_lsn, .report = *report};
    if (report->verdict == WAL_VERDICT_CORRUPT) {
        return oracle_say(
            why, "false corruption: %s at %s:%" PRIu64 " (evidence %" PRIu64 ", LSN %" PRIu64 ")",
            wal_case_text(report->decision), report->file, report->end_offset,
            report->evidence_offset, report->evidence_lsn);
    }
    if (check_bounds(oracle, found, killed, why) != 0) return -1;
    if (found->first > found->last) return 0;
    if (check_records(oracle, reader, found->first, found, why) != 0) return -1;
    uint64_t middle = found->first + (found->last - found->first) / 2;
    bool seek = middle > found->first && found->last % 4 == 0; /* costs as much again */
    return seek ? check_records(oracle, reader, middle, found, why) : 0;
}

int oracle_check_disk(const struct oracle *oracle, struct sim_disk *disk, bool killed,
                      struct oracle_found *found, char *why) {
    wal_reader *reader = NULL;
    wal_report report = {0};
    wal_error error = {0};
    *found = (struct oracle_found){0};
    int result =
        wal_reader_open_io(sim_io(disk), WAL_RECOVERY_POINT_IN_TIME, &reader, &report, &error);
    if (result < 0) {
        bool absent = result == WAL_E_NOT_FOUND || result == WAL_E_NOT_A_LOG;
        found->none = absent && !oracle->created && oracle->acked == 0;
        if (found->none) return 0;
        return oracle_say(why, "false corruption: the reader answers %d (%s, %s)", result,
                          wal_case_text(report.decision), error.message);
    }
    result = oracle_check_reader(oracle, reader, &report, killed, found, why);
    wal_reader_close(reader);
    return result;
}
