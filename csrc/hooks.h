/*
 * Test seams that ship: fail points, failing allocations, and mutants.
 *
 * Fail points and allocation failures are in every build; disarmed, each costs one load of a
 * pointer or counter that is zero. Mutants are deliberate bugs that a test switches on to see that
 * a suite can fail; they exist only where WALENGINE_MUTANTS is defined (the C test programs) and
 * compile to nothing elsewhere.
 */
#ifndef WALENGINE_HOOKS_H
#define WALENGINE_HOOKS_H

#include <stddef.h>
#include <stdint.h>

/* ---- fail points: places where a kill is interesting ----------------------------------------- */

extern const char *volatile wal_fail_point_name; /* NULL: disarmed */
void wal_fail_point_hit(const char *name);

#define WAL_FAIL_POINT(name)                                       \
    do {                                                           \
        if (wal_fail_point_name != NULL) wal_fail_point_hit(name); \
    } while (0)

/* ---- allocations ----------------------------------------------------------------------------- */

void *wal_malloc(size_t bytes);
void *wal_calloc(size_t count, size_t bytes);
void *wal_realloc(void *memory, size_t bytes);
void *wal_aligned(size_t alignment, size_t bytes); /* release with wal_free */
void wal_free(void *memory);

/* ---- mutants --------------------------------------------------------------------------------- */

enum wal_mutant {
    WAL_MUTANT_NONE = 0,
    WAL_MUTANT_M1_SKIP_SYNC,           /* commit publishes without fdatasync */
    WAL_MUTANT_M2_ACK_BEFORE_SYNC,     /* durable_lsn moves when the sync is issued */
    WAL_MUTANT_M3_HARDLINK,            /* a chain's sync counts though its write was short */
    WAL_MUTANT_M4_RETRY_SYNC,          /* a failed sync is done again, and believed */
    WAL_MUTANT_M5_NO_SALT,             /* new segments keep their file's old salt */
    WAL_MUTANT_M6_NO_DIR_SYNC,         /* a segment's name is not synced after create / rename */
    WAL_MUTANT_M7_CRC_SKIPS_LSN,       /* the header CRC covers neither length nor LSN */
    WAL_MUTANT_M8_SHORT_WRITE_IS_FULL, /* a short write counts as a whole one */
    WAL_MUTANT_M9_UNLINK_BEFORE_META,  /* segments are dropped before META's trim is durable */
    WAL_MUTANT_M10_LENGTH_TRUSTED,     /* a length is used before it is checked */
    WAL_MUTANT_M11_NO_HEADER_SYNC,     /* a new segment is used before its header is synced */
    WAL_MUTANT_M12_NO_LOCK,            /* the lock is not taken */
    WAL_MUTANT_D1_ACK_BEHIND_HOLE,     /* direct: a finished group is published before older ones */
    WAL_MUTANT_D2_APPEND_BEHIND_FLYING, /* an append does not hand over a write still in flight */
    WAL_MUTANT_D3_TORN_SLOT_REWRITTEN,  /* a damaged slot of META is not cleared before its write */
    WAL_MUTANT_F1_APPEND_PLAIN,         /* direct: an immediate append is not RWF_DSYNC */
    WAL_MUTANT_F2_APPEND_NOT_PADDED,    /* strict sectors: an immediate append is not padded */
    WAL_MUTANT_F3_RECOVER_CACHED,       /* recovery believes the page cache */
    WAL_MUTANT_F4_NAME_ORDER,           /* the successor is the next name, not the chain's */
    WAL_MUTANT_F5_TRIM_AHEAD,           /* truncate_before is not clamped to durable_lsn + 1 */
    WAL_MUTANT_F7_UNSEAL_ANY_ALIGNMENT, /* a sealed tail is continued whatever its alignment */
    WAL_MUTANT_F8_ROTATE_NO_DRAIN,      /* rotation does not sync the old segment first */
    WAL_MUTANT_F9_SEAL_ONE_SYNC,        /* the seal goes down with the sync it should follow */
    WAL_MUTANT_F10_NO_FREE_DIR_SYNC,    /* a spare is used before its rename is durable */
};

#ifdef WALENGINE_MUTANTS
extern enum wal_mutant wal_mutant_now;
#define WAL_MUTANT(which) (wal_mutant_now == (WAL_MUTANT_##which))
#else
#define WAL_MUTANT(which) 0
#endif

#endif
