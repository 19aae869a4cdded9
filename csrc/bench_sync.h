/* What the parts of the fsync bench know of each other; bench_sync.c says how it works. */
#ifndef WALENGINE_BENCH_SYNC_H
#define WALENGINE_BENCH_SYNC_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <time.h>

#include "histogram.h"
#include "walengine.h"

struct wal_bench {
    int directory;
    atomic_int stopping;
};

/* What one thread measured. */
struct wal_bench_tally {
    struct wal_histogram latency;
    uint64_t syncs;
    uint64_t bytes;
    uint64_t first_ns; /* when its first commit began; 0: there was none */
    uint64_t last_ns;
};

/* One row under way. */
struct wal_bench_run {
    struct wal_bench *bench;
    const wal_bench_row *row;
    int file;
    int unnamed;
    uint64_t seed;     /* of the data written */
    uint64_t prepared; /* so far the file is in the row's state */
    uint64_t preparation_syncs;
    uint32_t provider;
    uint32_t registered;
    /* The phase: the warm-up, or what counts. */
    atomic_uint_fast64_t next; /* no write was begun from here on */
    uint64_t begin;            /* where the phase's first one goes */
    uint64_t end;              /* and none goes further than this */
    uint64_t duration_ns;
    uint64_t deadline_ns;
    /* The mutex guards the rest. */
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    uint64_t written; /* group: tickets, one for each write that has returned */
    uint64_t synced;  /* group: those up to here are durable */
    int syncing;      /* group: somebody leads */
    int code;         /* of the first failure; 0: none */
    wal_error error;
    atomic_int failed;
};

static inline uint64_t wal_bench_now_ns(void) {
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

/* A method that goes past the page cache, one whose writes sync themselves, one with a ring. */
int wal_bench_is_direct(uint32_t method);
int wal_bench_syncs_itself(uint32_t method);
int wal_bench_has_ring(uint32_t method);

/* What the loop needs is there: the phase's time begins. */
void wal_bench_start_clock(struct wal_bench_run *run);

/*
 * Claim the next piece of the file; 0: time or file is used up, or the run is to end. However late
 * it is, a phase has a first write.
 */
int wal_bench_claim(struct wal_bench_run *run, uint64_t *offset);

/* Note the first failure and end the run; returns code. */
int wal_bench_fail(struct wal_bench_run *run, int code, const char *what);

void wal_bench_record(struct wal_bench_tally *tally, uint64_t begun_ns, uint64_t ended_ns,
                      uint64_t bytes);

/* ---- bench_file.c ---------------------------------------------------------------------------- */

/* A file without a name, in the row's directory, opened as its method wants it. */
int wal_bench_file_open(struct wal_bench_run *run);

/* Bring the file into the row's state up to so many bytes, synced. */
int wal_bench_file_prepare(struct wal_bench_run *run, uint64_t bytes);

/* Past the page cache from here on, where the method wants it. */
int wal_bench_file_ready(struct wal_bench_run *run);

/* Let the file and its blocks go. */
void wal_bench_file_close(struct wal_bench_run *run);

/* Have the filesystem finish what it has put off, the release of blocks included. */
void wal_bench_settle(struct wal_bench *bench);

/* Memory for writes, aligned for O_DIRECT, full of what no device can compress. */
char *wal_bench_data(uint64_t seed, uint64_t bytes);

/* Make it differ from what was ever written to another offset. */
void wal_bench_stamp(const struct wal_bench_run *run, char *data, uint64_t bytes, uint64_t offset);

/* ---- the loops ------------------------------------------------------------------------------- */

/* bench_loop.c: by system calls, one thread or more. bench_ring.c: through a ring. */
int wal_bench_loop(struct wal_bench_run *run, struct wal_bench_tally *tally);
int wal_bench_ring(struct wal_bench_run *run, struct wal_bench_tally *tally);

#endif
