/*
 * From requests to entries: what a request needs next is cut into writes and a sync and put into
 * the SQ, as far as there is room. The rules are in ring_engine.c.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>
#include <time.h>

#include "io_fault.h"
#include "ring_engine.h"
#include "ring_entries.h"
#include "walengine.h"

#ifdef __linux__

enum { ENTRY_BYTES_MAX = 1 << 30 };

static void count(uint64_t *counter, uint64_t amount) {
    __atomic_fetch_add(counter, amount, __ATOMIC_RELAXED);
}

/* ---- from parts to entries ------------------------------------------------------------------- */

static struct wal_engine_entry *take_entry(struct wal_engine *e) {
    struct wal_engine_entry *entry = e->free_entries;
    assert(entry != NULL && e->free_count > 0);
    e->free_entries = entry->next;
    e->free_count--;
    return entry;
}

/* Entries in the SQ that the kernel has not taken. */
uint32_t wal_entries_unsent(const struct wal_engine *e) {
    return e->sq_given - __atomic_load_n(e->sq_head, __ATOMIC_ACQUIRE);
}

static unsigned room(const struct wal_engine *e) {
    unsigned in_sq = e->ring.params.sq_entries - wal_entries_unsent(e);
    unsigned in_flight = e->flight_max - e->flight;
    return in_sq < in_flight ? in_sq : in_flight;
}

/* The buffer that holds this address, or -1; *bytes is cut at its end, or at the memory's begin. */
static int buffer_of(const struct wal_engine *e, const char *data, size_t *bytes) {
    if (e->memory == NULL || data >= e->memory + e->memory_bytes) return -1;
    if (data < e->memory) {
        if (*bytes > (size_t)(e->memory - data)) *bytes = (size_t)(e->memory - data);
        return -1;
    }
    size_t at = (size_t)(data - e->memory);
    size_t left = e->buffer_bytes - at % e->buffer_bytes;
    if (*bytes > left) *bytes = left;
    return (int)(at / e->buffer_bytes);
}

/* How much of the data from here on goes into one entry. */
static size_t piece_at(const struct wal_engine *e, const struct wal_engine_request *r,
                       size_t from) {
    size_t bytes = r->bytes - from;
    if (bytes > ENTRY_BYTES_MAX) bytes = ENTRY_BYTES_MAX;
    (void)buffer_of(e, r->data + from, &bytes);
    assert(bytes > 0);
    return bytes;
}

/* New entries that the rest of r needs; not counted beyond limit. */
static unsigned pieces_left(const struct wal_engine *e, const struct wal_engine_request *r,
                            unsigned limit) {
    unsigned pieces = 0;
    for (size_t at = r->planned; at < r->bytes && pieces < limit; pieces++) {
        at += piece_at(e, r, at);
    }
    return pieces;
}

static unsigned repeats(const struct wal_engine_request *r) {
    unsigned total = 0;
    for (const struct wal_engine_entry *at = r->again; at != NULL; at = at->next) total++;
    return total;
}

/* The next write of r that is to be issued; NULL: there is none, or no entry for it. */
static struct wal_engine_entry *next_write(struct wal_engine *e, struct wal_engine_request *r) {
    struct wal_engine_entry *entry = r->again;
    if (entry != NULL) {
        r->again = entry->next;
        return entry;
    }
    if (r->planned == r->bytes || e->free_count == 0) return NULL;
    entry = take_entry(e);
    entry->request = r;
    entry->is_sync = 0;
    entry->from = r->planned;
    entry->bytes = piece_at(e, r, r->planned);
    r->planned += entry->bytes;
    return entry;
}

static void fill_write(const struct wal_engine *e, const struct wal_engine_entry *entry,
                       struct uring_sqe *sqe) {
    const struct wal_engine_request *r = entry->request;
    size_t bytes = entry->bytes;
    int buffer = buffer_of(e, r->data + entry->from, &bytes);
    assert(bytes == entry->bytes);
    sqe->opcode = buffer >= 0 ? URING_OP_WRITE_FIXED : URING_OP_WRITE;
    sqe->buf_index = (uint16_t)(buffer >= 0 ? buffer : 0);
    sqe->off = r->offset + entry->from;
    sqe->addr = (uintptr_t)(r->data + entry->from);
    sqe->len = (uint32_t)bytes;
    sqe->op_flags = r->kind == WAL_IO_WRITE_DURABLE ? URING_RWF_DSYNC : 0;
}

static void pretend(struct wal_engine_entry *entry, int64_t result) {
    entry->is_forced = 1;
    entry->forced = result;
}

static void become_nop(struct uring_sqe *sqe) {
    *sqe = (struct uring_sqe){.opcode = URING_OP_NOP,
                              .flags = sqe->flags & URING_SQE_LINK,
                              .fd = -1,
                              .user_data = sqe->user_data};
}

/*
 * A short write that is whole to the kernel, which goes on with the sync behind it. A direct write
 * cannot end inside a sector; there the last one is left out and said to be written in part.
 */
static void shorten(struct wal_engine_entry *entry, struct uring_sqe *sqe, int64_t value) {
    if (value >= (int64_t)sqe->len) return;
    uint32_t bytes = value > 0 ? (uint32_t)value : 0;
    sqe->len = bytes;
    if (!entry->request->is_direct) return;
    pretend(entry, bytes);
    sqe->len = bytes / WAL_ENGINE_SECTOR * WAL_ENGINE_SECTOR;
    if (sqe->len == 0) become_nop(sqe);
}

/* What a test wants to go wrong with this entry. */
static void misbehave(struct wal_engine_entry *entry, struct uring_sqe *sqe) {
    int64_t value = 0;
    uint64_t serial = 0;
    entry->is_forced = 0;
    entry->is_held = 0;
    uint32_t op = entry->is_sync ? WAL_FAULT_CQE_SYNC : WAL_FAULT_CQE_WRITE;
    switch (wal_fault_decide(op, &value, &serial)) {
        case WAL_FAULT_DO: return;
        case WAL_FAULT_DO_FAIL: pretend(entry, -value); return;
        case WAL_FAULT_DO_SHORT:
            if (!entry->is_sync) shorten(entry, sqe, value);
            return;
        case WAL_FAULT_DO_SKIP:
            pretend(entry, entry->is_sync ? 0 : (int64_t)entry->bytes);
            become_nop(sqe);
            return;
        case WAL_FAULT_DO_STALL:
            entry->is_held = 1;
            entry->held_serial = serial;
            entry->held_until_ns =
                value > INT64_MAX / 2000000 ? INT64_MAX : wal_engine_now_ns() + value * 1000000;
            return;
    }
}

/* A blocking sync is a verb, and counted as one by who called it. */
static void count_entry(struct wal_engine *e, const struct wal_engine_request *r,
                        const struct uring_sqe *sqe) {
    uint64_t *ops = e->counters->ring_ops;
    if (!r->is_blocking) count(&e->counters->ops_submitted, 1);
    switch (sqe->opcode) {
        case URING_OP_FSYNC: count(&ops[WAL_RING_OP_FSYNC], 1); break;
        case URING_OP_WRITE: count(&ops[WAL_RING_OP_WRITE], 1); break;
        case URING_OP_WRITE_FIXED: count(&ops[WAL_RING_OP_WRITE_FIXED], 1); break;
        default: count(&ops[WAL_RING_OP_NOP], 1); return;
    }
    if (sqe->flags & URING_SQE_LINK) count(&ops[WAL_RING_OP_LINKED], 1);
    if (sqe->opcode != URING_OP_FSYNC && sqe->op_flags != 0) count(&ops[WAL_RING_OP_DSYNC], 1);
}

/* Put entry into the SQ; there is room. */
static void push(struct wal_engine *e, struct wal_engine_entry *entry, int links, int is_linked) {
    struct wal_engine_request *r = entry->request;
    struct uring_sqe *sqe = e->ring.table->get_sqe(e->ring.state);
    assert(sqe != NULL);
    memset(sqe, 0, sizeof *sqe);
    sqe->fd = r->slot >= 0 ? r->slot : r->file;
    sqe->flags =
        (uint8_t)((r->slot >= 0 ? URING_SQE_FIXED_FILE : 0) | (links ? URING_SQE_LINK : 0));
    sqe->user_data = (uintptr_t)entry;
    if (entry->is_sync) {
        sqe->opcode = URING_OP_FSYNC;
        sqe->op_flags = URING_FSYNC_DATASYNC;
    } else {
        fill_write(e, entry, sqe);
    }
    entry->is_inside_chain = (uint8_t)(is_linked != 0);
    misbehave(entry, sqe);
    count_entry(e, r, sqe);
    e->sq_order[e->sq_given++ & (e->ring.params.sq_entries - 1)] = entry;
    e->flight++;
    r->outstanding++;
}

static void begin_attempt(struct wal_engine_request *r) {
    r->chain_whole = 1;
    r->sync_is_done = 0;
}

static int issue_sync(struct wal_engine *e, struct wal_engine_request *r, int is_linked) {
    if (!is_linked) {
        if (r->outstanding > 0 || room(e) == 0) return 0;
        begin_attempt(r);
    }
    r->sync.request = r;
    r->sync.is_sync = 1;
    push(e, &r->sync, 0, is_linked);
    return 1;
}

/* A chain goes out whole or not at all: submitted in two parts it is two chains. */
static int issue_chain(struct wal_engine *e, struct wal_engine_request *r, unsigned writes) {
    assert(r->outstanding == 0);
    unsigned repeated = repeats(r);
    if (room(e) < writes + 1 || e->free_count < writes - repeated) return 0;
    begin_attempt(r);
    for (unsigned i = 0; i < writes; i++) push(e, next_write(e, r), 1, i > 0);
    return issue_sync(e, r, 1);
}

static int issue_portion(struct wal_engine *e, struct wal_engine_request *r) {
    struct wal_engine_entry *entry;
    r->in_portions = 1;
    while (room(e) > 0 && (entry = next_write(e, r)) != NULL) push(e, entry, 0, 0);
    return r->again == NULL && r->planned == r->bytes;
}

/* Give the ring what r needs next. 1: all of it is out, or r has failed; 0: there was no room. */
int wal_entries_issue(struct wal_engine *e, struct wal_engine_request *r) {
    if (r->failure == 0) r->failure = e->is_closing ? -ECANCELED : e->broken;
    if (r->failure != 0) return 1;
    unsigned writes = repeats(r);
    writes += pieces_left(e, r, e->chain_max);
    assert(writes > 0 || r->kind != WAL_IO_WRITE_DURABLE);
    if (writes == 0) return issue_sync(e, r, 0);
    int is_chain = r->kind == WAL_IO_WRITE_SYNC && !r->is_direct && !r->in_portions;
    if (is_chain && writes + 1 <= e->chain_max) return issue_chain(e, r, writes);
    return issue_portion(e, r);
}

#endif
