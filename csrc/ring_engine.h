/*
 * The engine: requests on one side, a ring on the other. It turns requests into entries, keeps the
 * books about what the kernel has, and tells from the completions which requests are done.
 *
 * One mutex guards all of it. Waiting is done without the mutex by one thread at a time, the one in
 * the waiting role; it collects for everybody (ring_engine.c).
 */
#ifndef WALENGINE_RING_ENGINE_H
#define WALENGINE_RING_ENGINE_H

#include <pthread.h>

#include "io.h"
#include "ring.h"

struct wal_engine_request;

/* One SQE: with the kernel, waiting to be issued again, or free. */
struct wal_engine_entry {
    struct wal_engine_entry *next;
    struct wal_engine_request *request;
    size_t from; /* the part of the request's data */
    size_t bytes;
    int32_t result;
    uint8_t is_sync;
    uint8_t is_inside_chain; /* linked to by the entry before it */
    uint8_t is_forced;       /* a fault: forced is the result, whatever the kernel says */
    uint8_t is_held;         /* a fault: the completion is held back */
    int64_t forced;
    int64_t held_until_ns;
    uint64_t held_serial;
};

/* A thread that sleeps until its request is done, or until the waiting role is free. */
struct wal_engine_sleeper {
    struct wal_engine_sleeper *next;
    struct wal_engine_sleeper *previous;
    pthread_cond_t wake;
};

struct wal_engine_request {
    struct wal_engine_request *next; /* in the queue, among the done, or among the free */
    enum wal_io_kind kind;
    int file;
    int slot; /* in the registered table, or -1 */
    int is_direct;
    uint64_t offset;
    const char *data;
    size_t bytes;
    uint64_t token;
    int is_blocking;                    /* a thread waits for it: it is on that thread's stack */
    struct wal_engine_sleeper *sleeper; /* that thread, while it sleeps */
    int is_finished;
    int result;
    /* Progress. */
    size_t planned;                 /* data up to here has been given to entries */
    struct wal_engine_entry *again; /* writes that came back short or not done */
    struct wal_engine_entry sync;
    unsigned outstanding; /* entries that have not come back */
    unsigned tries;       /* since the last byte of progress */
    int failure;          /* the first one, -errno */
    int is_queued;
    int in_portions; /* the writes are not linked to the sync, which follows when they are whole */
    /* The attempt that is under way: the entries issued together. */
    int chain_whole; /* the kernel got the chain in one piece */
    int sync_is_done;
    int sync_was_repeated; /* a mutant's */
};

struct wal_engine_slot {
    int file;      /* -1: empty */
    unsigned busy; /* requests that name this place */
    int is_closed; /* to be emptied when they are done */
};

struct wal_engine_file {
    int8_t slot;
    uint8_t is_direct;
};

struct wal_engine_list {
    struct wal_engine_request *first;
    struct wal_engine_request *last;
};

struct wal_engine {
    pthread_mutex_t mutex;
    struct wal_ring ring;
    struct wal_io_counters *counters;
    /* The kernel's rings, mapped once more, for reading only. */
    void *view;
    size_t view_bytes;
    const uint32_t *sq_head;
    const uint32_t *sq_dropped;
    const uint32_t *cq_overflow;
    /* Entries. */
    struct wal_engine_entry *entries;
    struct wal_engine_entry *free_entries;
    struct wal_engine_entry **sq_order; /* whose SQE stands at each place */
    unsigned free_count;
    unsigned flight; /* handed to the ring and not come back; at most flight_max */
    unsigned flight_max;
    unsigned chain_max;
    uint32_t sq_given;
    int must_submit; /* a submit was put off by the kernel */
    int broken;      /* -errno: submit failed for good */
    int is_closing;
    struct wal_engine_entry *held; /* completions held back by a fault */
    /* Requests. */
    struct wal_engine_list queue; /* waiting for room, or to go on; first come, first served */
    struct wal_engine_list done;
    struct wal_engine_request *free_requests;
    struct wal_engine_chunk *chunks; /* their memory */
    unsigned under_way;              /* submitted and not reaped */
    unsigned unfinished;             /* requests, those that a thread waits for included */
    unsigned put_offs;               /* in a row, for want of the kernel's memory */
    /* The waiting role. */
    int role_is_taken;
    uint64_t finished; /* counts requests */
    struct wal_engine_sleeper *sleepers;
    struct wal_engine_sleeper *reaper; /* among them */
    int notify_fd;                     /* -1: nobody watches */
    /* Registered memory and files. */
    const char *memory;
    size_t buffer_bytes;
    size_t memory_bytes;
    int has_slots;
    struct wal_engine_slot slots[WAL_RING_FILES];
    struct wal_engine_file *files; /* by descriptor */
    int files_count;
};

/* engine->ring is open; counters is where to count. 0 or -errno, and then nothing is left. */
int wal_engine_init(struct wal_engine *engine, struct wal_io_counters *counters,
                    unsigned max_inflight);

/* Wait for all that the kernel has; the ring may be closed then. Nobody else calls any more. */
void wal_engine_drain(struct wal_engine *engine);

/* Free the memory, after drain or, in a forked child, without it. */
void wal_engine_free(struct wal_engine *engine);

int wal_engine_submit(struct wal_engine *engine, const struct wal_io_request *request);
int wal_engine_reap(struct wal_engine *engine, struct wal_io_completion *completions, int max,
                    int64_t wait_ns, unsigned flags);

/* Raise fd when reap may find something, or has something to do; -1: no more. 0 or -errno. */
int wal_engine_notify(struct wal_engine *engine, int fd);

/* Do a request now; the calling thread waits for it. */
int wal_engine_perform(struct wal_engine *engine, const struct wal_io_request *request);

/* ring_files.c: the registered table; all under the mutex. */
int wal_engine_register_files(struct wal_engine *engine);
int wal_engine_add_file(struct wal_engine *engine, int file, int is_writable, int is_direct);
void wal_engine_remove_file(struct wal_engine *engine, int file);
void wal_engine_clear_files(struct wal_engine *engine);
void wal_engine_use_file(struct wal_engine *engine, struct wal_engine_request *request);
void wal_engine_leave_file(struct wal_engine *engine, struct wal_engine_request *request);

#endif
