/*
 * A writer under observation: each call is made, marked in the trace, told to the oracle, and its
 * answer is checked against what the API promises. Everything the suites do to a log goes through
 * here, over a simulated disk or over a real directory.
 *
 * A call that answers with an error is not yet a violation: session.failed keeps it, and the suite
 * decides whether its faults explain it. What no fault explains (an acknowledgement that goes
 * back, a poisoned writer that answers anything but the same poison) is written to session.why.
 */
#ifndef WALENGINE_TEST_SESSION_H
#define WALENGINE_TEST_SESSION_H

#include "oracle.h"

enum { SESSION_BATCH_MAX = 64 };

/* How the writer goes to the disk. */
enum session_mode {
    SESSION_PLAIN,  /* pwrite and fdatasync, commits aligned to 8 */
    SESSION_STRICT, /* ... to 4096 */
    SESSION_RING,   /* requests that finish when and in what order they like; linked writes */
    SESSION_RING_STRICT,
    SESSION_DIRECT, /* the same, past the page cache: groups in flight that sync themselves */
    SESSION_MODES
};

struct session {
    struct sim_disk *disk; /* NULL: the real directory at path */
    const char *path;
    struct oracle oracle;
    wal_options options;
    wal_writer *writer; /* NULL: closed */
    wal_report report;  /* of the last opening */
    wal_error error;    /* of the last failure */
    int failed;         /* result of the last failing call, 0: none failed */
    int poison_error;   /* os_error of the first WAL_E_POISONED since the opening; 0: none */
    bool poisoned;
    uint64_t sync_failures; /* of the disk, as far as they were told to the oracle */
    bool through_faults;    /* wrap the disk into the fault injector */
    enum session_mode mode; /* from the next opening on */
    uint64_t seed;
    uint64_t openings;
    char why[ORACLE_WHY_BYTES]; /* "": no violation */
};

void session_begin(struct session *session, struct sim_disk *disk, const char *path,
                   enum session_mode mode, uint64_t seed);
void session_set_mode(struct session *session, enum session_mode mode);
const char *session_mode_name(enum session_mode mode);
void session_end(struct session *session); /* kills what is still open */

/* All return the call's result; < 0 leaves it in session->failed as well. */
int session_open(struct session *session);
int session_append(struct session *session, uint64_t length, uint32_t flags);
int session_batch(struct session *session, const uint32_t *lengths, uint32_t count, uint32_t flags);
int session_commit(struct session *session);
int session_commit_interruptible(struct session *session); /* WAL_E_AGAIN counts as success */
int session_trim(struct session *session, uint64_t lsn);
int session_maintain(struct session *session);
int session_reopen(struct session *session);
int session_close(struct session *session);

/* The process dies: nothing is synced, the page cache stays. */
void session_kill(struct session *session);

#endif
