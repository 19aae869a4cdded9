/*
 * Groups in flight: what was given to the device and is not yet known to be durable.
 *
 * Through the page cache a group is one sync, and there is at most one at a time: its result is
 * published, or poisons, before the next begins. With direct I/O a group is a write that syncs
 * itself, and up to max_inflight of them are under way; they finish in any order and are published
 * in theirs, so durable_lsn is the end of the contiguous finished prefix.
 *
 * Nobody owns a group: who submits it may go away (a signal, a time limit). Whoever waits for
 * something and finds nobody at the completions reaps them, for all.
 */
#ifndef WALENGINE_FLIGHT_H
#define WALENGINE_FLIGHT_H

#include "arena.h"
#include "io.h"

struct wal_group {
    enum wal_io_kind kind;
    struct wal_run run;  /* what is written; data NULL: nothing, it is a sync */
    uint64_t offset;     /* of the write */
    uint64_t end_offset; /* of the log when it was begun */
    uint64_t lsn;        /* durable once this group and all before it are done */
    uint64_t segment_id;
    uint64_t bytes; /* un-synced until then */
    uint64_t begun_ns;
    int is_done;
    int is_handed; /* its bytes went to the page cache by another way as well */
};

struct wal_flight {
    struct wal_arena arena;
    struct wal_group *groups; /* a ring of room places: number % room */
    size_t room;
    uint64_t first; /* numbers; first == next: nothing is in flight */
    uint64_t next;
    uint64_t undone; /* how many of them wait for their completion */
    int reaping;     /* somebody is at it, with the mutex released */
    int broken;      /* reaping failed: what is in flight will never be known */
};

struct wal_writer;
struct wal_call;
typedef struct wal_error wal_error;

/* All with the writer's mutex held. */

/* Room for one more group, so that beginning it cannot fail for want of memory. */
int wal_flight_reserve(struct wal_writer *writer);

/* Direct I/O: may a group of so many bytes begin now? */
int wal_flight_has_room(const struct wal_writer *writer, uint64_t bytes);

/*
 * Begin a group: a sync of the tail, or a write of bytes at offset, whose run is the group's from
 * here on. A failure poisons.
 */
int wal_begin_sync(struct wal_writer *writer, wal_error *error);
int wal_begin_write(struct wal_writer *writer, enum wal_io_kind kind, const struct wal_run *run,
                    uint64_t offset, uint64_t bytes, wal_error *error);

/*
 * Strict sectors: nothing may be put behind a write in flight, since handing it over again would
 * write sectors once more that may be acknowledged by then.
 */
int wal_flight_is_writing(const struct wal_writer *writer);

/* Write what a group in flight is still writing through the page cache now: it was handed over. */
int wal_hand_over_flying(struct wal_writer *writer, wal_error *error);

/* Is something in flight, and nobody at the completions? */
int wal_may_reap(const struct wal_writer *writer);

/*
 * Wait for something to change: 0, or WAL_E_AGAIN at the call's deadline or at a signal. The mutex
 * is released meanwhile.
 */
int wal_await(struct wal_writer *writer, struct wal_call *call);

/* Wait until every group that is in flight now is settled. The poison, if there is one. */
int wal_drain(struct wal_writer *writer, wal_error *error);

/* Publish the finished prefix; also when what held it back is over. */
void wal_settle(struct wal_writer *writer);

/* Memory for what will be in flight, as the options say; known to the ring if there is one. */
int wal_flight_init(struct wal_writer *writer);

/* Forget what is in flight: the device is done with it, or gone. */
void wal_flight_reset(struct wal_writer *writer);

/* The same, and give the memory back: once the I/O is destroyed. */
void wal_flight_free(struct wal_writer *writer);

#endif
