/*
 * The log as a whole: META, the chain of segments from the oldest kept to the newest, and what
 * else lies in the directory.
 *
 * The chain is followed back from the highest segment id with a valid START, by the predecessor
 * records, to the trim LSN. A successor's record overrules the end slot: nothing past its end
 * offset or its last LSN is log. Names only tell what to open, never what follows what.
 *
 * Loading decides nothing silently. What is wrong goes into `damage`: a writer refuses, a reader
 * yields what stands before it and then fails with it.
 */
#ifndef WALENGINE_CHAIN_H
#define WALENGINE_CHAIN_H

#include "index.h"
#include "io.h"
#include "meta.h"
#include "recover.h"
#include "segment.h"
#include "walengine.h"

/* A wal- file that is not in the chain: an orphan, or prepared for a next segment. */
struct wal_other {
    struct wal_segment segment;
    int is_prepared; /* no START, no frame of its own salt, no slot: may serve as it is */
};

struct wal_chain {
    struct wal_meta meta;
    int has_meta;
    uint64_t trim_lsn;
    struct wal_segment *segments; /* the chain, oldest first */
    size_t count;
    struct wal_other *others;
    size_t other_count;
    uint64_t *spares; /* numbers of free- files */
    size_t spare_count;
    uint64_t highest_id;     /* of any wal- name */
    uint64_t highest_spare;  /* of any free- name */
    struct wal_tail_end end; /* of the newest segment of the chain */
    enum wal_case damage;    /* WAL_CASE_NEW: none (the tail's own damage is in `end`) */
    wal_error damage_error;
    uint64_t bytes_scanned;
    uint32_t warnings;
};

enum {
    WAL_LOAD_DEVICE = 1,  /* a writer's load: sync first, then read past the page cache */
    WAL_LOAD_LIVE = 2,    /* a reader's load: the writer may be at work */
    WAL_LOAD_SALVAGE = 4, /* keep what stands on both sides of a missing segment */
};

/* index (may be NULL) collects the newest segment's sparse index. 0 or a negative code. */
int wal_chain_load(struct wal_io *io, unsigned flags, struct wal_index *index,
                   struct wal_chain *chain, wal_error *error);
void wal_chain_free(struct wal_chain *chain);

/* Is anything damaged, in the chain or at its end? */
int wal_chain_is_damaged(const struct wal_chain *chain);

/* Next LSN after the recovered end; first LSN kept. */
uint64_t wal_chain_next_lsn(const struct wal_chain *chain);
uint64_t wal_chain_first_lsn(const struct wal_chain *chain);

void wal_chain_report(const struct wal_chain *chain, wal_report *report);

/* Fill *error with the damage as an operator needs to read it; returns WAL_E_CORRUPT. */
int wal_chain_damage(const struct wal_chain *chain, wal_error *error);

#endif
