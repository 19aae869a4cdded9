/*
 * The oracle: what a log may hold, told from what was asked of it.
 *
 * A history learns from marks, in the order of the workload's trace: what was appended, what was
 * handed over and acknowledged, which trims were asked for and done, what each opening recovered.
 * A record's bytes follow from its LSN and its incarnation (how often the log had been opened), so
 * that an LSN given again after a crash never passes for the record that had it first.
 *
 * Invariants checked against a recovered log (reader and cursors, and a writer that opens it):
 *   I1 durability   every record whose acknowledgement was seen is there
 *   I2 prefix       records first .. m, no holes, in order; m >= the last acknowledged one; the
 *                   first is the trim LSN; an atomic group is there whole or not at all
 *   I3 integrity    every record is byte for byte what was appended under its LSN
 *   I4 no resurrection  recover, append k, close, recover: exactly the prefix and the k
 *   I5 idempotence  recovering twice finds the same; so does recovering after a crash at any I/O
 *                   of a recovery or of the first appends after it
 */
#ifndef WALENGINE_TEST_ORACLE_H
#define WALENGINE_TEST_ORACLE_H

#include "log.h"
#include "simdisk.h"

enum { ORACLE_RECORDS_MAX = 1 << 20, ORACLE_WHY_BYTES = 512 };

enum oracle_mark {
    ORACLE_APPEND = 1, /* a: LSN, b: length, c: WAL_RECORD_CRC, d: last LSN of its atomic group */
    ORACLE_HANDED,     /* a: everything up to here survives the death of the process */
    ORACLE_ACK,        /* a: everything up to here was acknowledged as durable */
    ORACLE_DROP,       /* a: a call failed having taken nothing; nothing above a was appended */
    ORACLE_DOUBT,      /* a sync failed: until the next opening only acknowledgements count */
    ORACLE_TRIM_ASK,   /* a: trim LSN asked for */
    ORACLE_TRIM_DONE,  /* a: and durable */
    ORACLE_OPEN,       /* a: last LSN recovered, b: trim LSN found */
};

struct oracle_record {
    uint32_t length;
    uint32_t incarnation;
    uint32_t with_crc;
    uint64_t group_last; /* 0: in no atomic group */
};

struct oracle {
    struct oracle_record *records; /* of LSN i + 1 */
    uint64_t last;                 /* of the newest record that may exist */
    uint64_t capacity;
    uint64_t handed;
    uint64_t acked;
    uint64_t trim;       /* durable trim LSN, from 1 */
    uint64_t trim_asked; /* 0: none under way */
    uint32_t incarnation;
    bool doubt;
    bool created; /* an opening has succeeded: the log exists from now on */
};

/* What a recovery found. */
struct oracle_found {
    bool none; /* no log there (legal until the first opening succeeded) */
    uint64_t first;
    uint64_t last;
    wal_report report;
};

void oracle_init(struct oracle *oracle);
void oracle_free(struct oracle *oracle);
void oracle_copy(struct oracle *copy, const struct oracle *oracle);
void oracle_apply(struct oracle *oracle, const struct sim_mark *mark);

/* Different where the same disk would be judged differently. */
uint64_t oracle_hash(const struct oracle *oracle);

/* The bytes of a record: length of them. */
void oracle_content(uint64_t lsn, uint32_t incarnation, uint8_t *data, size_t length);

/* Check what a reader made; killed: only the process died, so that what was handed over counts. */
int oracle_check_reader(const struct oracle *oracle, wal_reader *reader, const wal_report *report,
                        bool killed, struct oracle_found *found, char *why);

/* Open a reader on the disk and check it: I1 to I3. 0, or -1 with the reason in why. */
int oracle_check_disk(const struct oracle *oracle, struct sim_disk *disk, bool killed,
                      struct oracle_found *found, char *why);

/* Write a reason and return -1. */
int oracle_say(char *why, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
