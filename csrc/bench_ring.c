/*
 * The bench's loops through io_uring: one thread, and up to 64 commits in flight.
 *
 * A commit is a slot: its memory, and one or two entries. Linked, a write and an fdatasync behind
 * it, which the kernel begins when the write is whole; direct, one O_DIRECT write with RWF_DSYNC. A
 * slot that comes back is given the next place of the file, so that as many are in flight as the
 * row asks for.
 *
 * A linked sync covers its file, so with several pairs in flight each may make others' writes
 * durable too; what is counted for a commit is its own sync, as a caller would wait for it.
 */
#include "bench_sync.h"

#include <errno.h>
#include <string.h>

#include "hooks.h"
#include "io_fault.h"
#include "ring.h"

#ifdef __linux__

enum { ENTRIES_MIN = 8, BATCH = 32 };

struct slot {
    uint64_t begun_ns;
    int pending;       /* entries that have not come back */
    int forced[2];     /* a test's: the answer of the write, of the sync, is this one */
    int32_t result[2]; /* and here it is */
};

struct ring_loop {
    struct wal_bench_run *run;
    struct wal_bench_tally *tally;
    struct wal_ring ring;
    char *data; /* write_bytes for each slot */
    int is_fixed;
    int has_files;
    int is_linked;
    uint32_t in_flight; /* slots */
    uint32_t queued;    /* entries that the kernel has not been given yet */
    struct slot slots[WAL_BENCH_CONCURRENCY_MAX];
};

enum { WRITE = 0, SYNC = 1 };

/* ---- entries --------------------------------------------------------------------------------- */

static void pretend(struct slot *slot, int which, int32_t result) {
    slot->forced[which] = 1;
    slot->result[which] = result;
}

static void become_nop(struct uring_sqe *sqe) {
    *sqe = (struct uring_sqe){.opcode = URING_OP_NOP,
                              .flags = sqe->flags & URING_SQE_LINK,
                              .fd = -1,
                              .user_data = sqe->user_data};
}

/* What a test wants of this entry: as in the log's own ring (ring_entries.c). */
static void misbehave(struct ring_loop *l, struct slot *slot, int which, struct uring_sqe *sqe) {
    int64_t value = 0;
    uint64_t serial = 0;
    slot->forced[which] = 0;
    switch (wal_fault_decide(which == SYNC ? WAL_FAULT_CQE_SYNC : WAL_FAULT_CQE_WRITE, &value,
                             &serial)) {
        case WAL_FAULT_DO_FAIL: pretend(slot, which, -(int32_t)value); return;
        case WAL_FAULT_DO_SHORT: pretend(slot, which, (int32_t)value); return;
        case WAL_FAULT_DO_SKIP:
            pretend(slot, which, which == SYNC ? 0 : (int32_t)l->run->row->write_bytes);
            become_nop(sqe);
            return;
        default: return;
    }
}

/* The next entry; there is always room, since a slot has two at most. */
static struct uring_sqe *entry_for(struct ring_loop *l, uint32_t number, int which) {
    struct uring_sqe *sqe = l->ring.table->get_sqe(l->ring.state);
    if (sqe == NULL) return NULL;
    l->queued++;
    *sqe = (struct uring_sqe){.user_data = number * 2U + (uint32_t)which};
    sqe->fd = l->has_files ? 0 : l->run->file;
    sqe->flags = l->has_files ? URING_SQE_FIXED_FILE : 0;
    return sqe;
}

static int push_write(struct ring_loop *l, uint32_t number, uint64_t offset) {
    uint32_t bytes = l->run->row->write_bytes;
    struct uring_sqe *sqe = entry_for(l, number, WRITE);
    if (sqe == NULL) return -EBUSY;
    sqe->opcode = l->is_fixed ? URING_OP_WRITE_FIXED : URING_OP_WRITE;
    sqe->off = offset;
    sqe->addr = (uintptr_t)(l->data + (size_t)number * bytes);
    sqe->len = bytes;
    if (l->is_linked) {
        sqe->flags |= URING_SQE_LINK;
    } else {
        sqe->op_flags = URING_RWF_DSYNC;
        l->tally->syncs++;
    }
    misbehave(l, &l->slots[number], WRITE, sqe);
    return 0;
}

static int push_sync(struct ring_loop *l, uint32_t number) {
    struct uring_sqe *sqe = entry_for(l, number, SYNC);
    if (sqe == NULL) return -EBUSY;
    sqe->opcode = URING_OP_FSYNC;
    sqe->op_flags = URING_FSYNC_DATASYNC;
    l->tally->syncs++;
    misbehave(l, &l->slots[number], SYNC, sqe);
    return 0;
}

/* Begin the slot's next commit, if there is to be one. */
static void begin(struct ring_loop *l, uint32_t number) {
    struct slot *slot = &l->slots[number];
    uint32_t bytes = l->run->row->write_bytes;
    uint64_t offset;
    if (!wal_bench_claim(l->run, &offset)) return;
    wal_bench_stamp(l->run, l->data + (size_t)number * bytes, bytes, offset);
    slot->begun_ns = wal_bench_now_ns();
    int result = push_write(l, number, offset);
    if (result == 0) {
        slot->pending = 1;
        l->in_flight++;
    }
    if (result == 0 && l->is_linked) {
        result = push_sync(l, number);
        slot->pending += result == 0;
    }
    if (result < 0) (void)wal_bench_fail(l->run, result, "finding room in the ring");
}

/* ---- completions ----------------------------------------------------------------------------- */

static void take(struct ring_loop *l, const struct uring_cqe *cqe, uint64_t now_ns) {
    uint32_t number = (uint32_t)(cqe->user_data / 2);
    int which = (int)(cqe->user_data % 2);
    struct slot *slot = &l->slots[number];
    int32_t whole = (int32_t)l->run->row->write_bytes;
    int32_t result = slot->forced[which] ? slot->result[which] : cqe->res;
    if (result < 0) {
        /* The sync of a write that failed is cancelled: the write's own answer comes first. */
        (void)wal_bench_fail(l->run, result, which == SYNC ? "syncing" : "writing");
    } else if (which == WRITE && result != whole) {
        (void)wal_bench_fail(l->run, -EIO, "a short write through the ring");
    }
    if (--slot->pending > 0) return;
    l->in_flight--;
    if (atomic_load(&l->run->failed)) return;
    wal_bench_record(l->tally, slot->begun_ns, now_ns, (uint64_t)whole);
    begin(l, number);
}

/* Everything that is there; the places are given back before new entries are submitted. */
static unsigned take_all(struct ring_loop *l) {
    struct uring_cqe *cqes[BATCH];
    unsigned count = l->ring.table->peek_batch_cqe(l->ring.state, cqes, BATCH);
    uint64_t now_ns = wal_bench_now_ns();
    for (unsigned i = 0; i < count; i++) take(l, cqes[i], now_ns);
    if (count > 0) l->ring.table->cq_advance(l->ring.state, count);
    return count;
}

/* All that is queued: the kernel may take less at a time, and would be waited for in vain. */
static int submit(struct ring_loop *l) {
    while (l->queued > 0) {
        int result = l->ring.table->submit(l->ring.state);
        if (result > 0) l->queued -= (uint32_t)result < l->queued ? (uint32_t)result : l->queued;
        if (result < 0 && result != -EINTR && result != -EAGAIN && result != -EBUSY) return result;
    }
    return 0;
}

/* A lone pair is waited for as a whole: the thread is woken once for it. */
static int wait_for_some(struct ring_loop *l) {
    unsigned wanted = l->run->row->concurrency == 1 ? (unsigned)l->slots[0].pending : 1;
    struct uring_cqe *cqe = NULL;
    int result;
    do {
        result = l->ring.table->wait_cqes(l->ring.state, &cqe, wanted, NULL, NULL);
    } while (result == -EINTR);
    return result < 0 ? result : 0;
}

/* Until nothing is in flight, whatever happens: the kernel reads our memory till then. */
static void go_round(struct ring_loop *l) {
    wal_bench_start_clock(l->run);
    for (uint32_t i = 0; i < l->run->row->concurrency; i++) begin(l, i);
    while (l->in_flight > 0) {
        int result = submit(l);
        if (result == 0) result = wait_for_some(l);
        if (result < 0) {
            (void)wal_bench_fail(l->run, result, "io_uring_enter");
            return;
        }
        while (take_all(l) == BATCH) continue;
    }
}

/* ---- the ring -------------------------------------------------------------------------------- */

static int open_ring(struct ring_loop *l) {
    const wal_bench_row *row = l->run->row;
    wal_ring_options options = {.backend = WAL_BACKEND_IO_URING,
                                .provider = row->provider,
                                .sq_entries = 2 * row->concurrency + ENTRIES_MIN,
                                .max_inflight = row->concurrency};
    wal_backend_info info;
    wal_error error;
    int result = wal_ring_open(&l->ring, &options, &info, &error);
    if (result < 0) {
        pthread_mutex_lock(&l->run->mutex);
        l->run->code = result;
        l->run->error = error; /* it has the reason and the remedy */
        pthread_mutex_unlock(&l->run->mutex);
        return result;
    }
    struct iovec memory = {.iov_base = l->data,
                           .iov_len = (size_t)row->concurrency * row->write_bytes};
    l->is_fixed = wal_ring_register_buffers(&l->ring, &memory, 1) >= 0;
    l->has_files = wal_ring_register_files(&l->ring, &l->run->file, 1) >= 0;
    l->run->provider = info.provider;
    l->run->registered = (uint32_t)l->is_fixed;
    return 0;
}

int wal_bench_ring(struct wal_bench_run *run, struct wal_bench_tally *tally) {
    const wal_bench_row *row = run->row;
    struct ring_loop *l = wal_calloc(1, sizeof *l);
    if (l == NULL) return wal_bench_fail(run, -ENOMEM, "memory for the ring");
    l->run = run;
    l->tally = tally;
    l->is_linked = row->method == WAL_BENCH_RING_LINKED;
    l->data = wal_bench_data(run->seed, (uint64_t)row->concurrency * row->write_bytes);
    if (l->data == NULL) {
        (void)wal_bench_fail(run, -ENOMEM, "memory for the writes");
    } else if (open_ring(l) == 0) {
        go_round(l);
        wal_ring_close(&l->ring);
    }
    /* A ring that broke may still have writes in flight, which read this memory: it stays. */
    if (l->in_flight == 0) wal_free(l->data);
    wal_free(l);
    return run->code;
}

#else

int wal_bench_ring(struct wal_bench_run *run, struct wal_bench_tally *tally) {
    (void)tally;
    return wal_bench_fail(run, WAL_E_NO_IO_URING, "io_uring exists on Linux only");
}

#endif
