/*
 * How requests go through a ring.
 *
 * Attempts. What a request needs is issued as an attempt. A write with its sync is a chain, linked
 * with IOSQE_IO_LINK, so that the sync starts when the writes are whole, and is cancelled when one
 * is not. (HARDLINK would let it run, and succeed, behind a short write.) A sync counts only if
 * every write of its own attempt was whole and the kernel got the chain in one piece; else the rest
 * is written and a fresh sync follows. Durable writes (RWF_DSYNC) need no order among them.
 *
 * A failed sync is never done again: the kernel has marked the pages clean, and the second sync
 * would return 0 while the data is gone. -ECANCELED alone says that it did not run, behind a write
 * that was not whole, or because the thread that submitted it has exited with its workers. A write
 * to a direct file is not linked: its completion is work of the submitting task, and if that has
 * exited the linked sync comes back with another error, which would be taken for final.
 *
 * Memory. What the kernel was given is the kernel's until its completion is here: a request is not
 * done, however it failed, before all of its entries have come back. No more entries are with the
 * kernel than half the CQ has room for; the rest waits in the queue, repeats at its front.
 *
 * Waiting. At most one thread at a time is in the waiting role: it sits in wait_cqes without the
 * mutex, alone takes completions off the CQ, and books them for everybody. Others sleep until their
 * request is done or the role is free. Who leaves wakes one sleeper, if the role is free; that one
 * takes the role, or leaves and wakes the next: so while somebody sleeps somebody waits.
 */
#include "ring_engine.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "hooks.h"
#include "io_fault.h"
#include "ring_entries.h"
#include "walengine.h"

#ifdef __linux__

#include <sys/mman.h>

enum {
    TRIES_MAX = 1000,
    BATCH = 64,
    REQUESTS_PER_CHUNK = 16,
    SLICE_NS = 50000000,    /* how long a signal may go unnoticed by a sleeping reaper */
    PUT_OFF_NS = 1000000,   /* until a submit that the kernel put off is tried again */
    HELD_LOOK_NS = 2000000, /* between looks at completions held back by a fault */
    NO_LIMIT = -1,
};

struct wal_engine_chunk {
    struct wal_engine_chunk *next;
    struct wal_engine_request requests[REQUESTS_PER_CHUNK];
};

int64_t wal_engine_now_ns(void) {
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void count(uint64_t *counter, uint64_t amount) {
    __atomic_fetch_add(counter, amount, __ATOMIC_RELAXED);
}

/* ---- lists ----------------------------------------------------------------------------------- */

static void append(struct wal_engine_list *list, struct wal_engine_request *r) {
    r->next = NULL;
    if (list->last != NULL) {
        list->last->next = r;
    } else {
        list->first = r;
    }
    list->last = r;
}

static void prepend(struct wal_engine_list *list, struct wal_engine_request *r) {
    r->next = list->first;
    list->first = r;
    if (list->last == NULL) list->last = r;
}

static struct wal_engine_request *take_first(struct wal_engine_list *list) {
    struct wal_engine_request *r = list->first;
    if (r == NULL) return NULL;
    list->first = r->next;
    if (list->first == NULL) list->last = NULL;
    return r;
}

static void free_entry(struct wal_engine *e, struct wal_engine_entry *entry) {
    entry->next = e->free_entries;
    e->free_entries = entry;
    e->free_count++;
}

static int grow_requests(struct wal_engine *e) {
    struct wal_engine_chunk *chunk = wal_calloc(1, sizeof *chunk);
    if (chunk == NULL) return -ENOMEM;
    for (int i = 0; i < REQUESTS_PER_CHUNK; i++) {
        chunk->requests[i].next = e->free_requests;
        e->free_requests = &chunk->requests[i];
    }
    chunk->next = e->chunks;
    e->chunks = chunk;
    return 0;
}

/* ---- from completions to results ------------------------------------------------------------- */

/* r is done, and the kernel has nothing of it. */
static void finish(struct wal_engine *e, struct wal_engine_request *r, int result) {
    assert(r->outstanding == 0 && !r->is_queued && !r->is_finished);
    while (r->again != NULL) {
        struct wal_engine_entry *entry = r->again;
        r->again = entry->next;
        free_entry(e, entry);
    }
    wal_engine_leave_file(e, r);
    r->result = result;
    r->is_finished = 1;
    e->finished++;
    e->unfinished--;
    struct wal_engine_sleeper *sleeper = r->is_blocking ? r->sleeper : e->reaper;
    if (!r->is_blocking) append(&e->done, r);
    if (sleeper != NULL) pthread_cond_signal(&sleeper->wake);
}

static void enqueue_again(struct wal_engine *e, struct wal_engine_request *r) {
    r->is_queued = 1;
    prepend(&e->queue, r);
}

/*
 * All of r's entries have come back: is it done? A write of this attempt that was not whole is
 * among those to be repeated, and so the attempt's sync does not count.
 */
static void step(struct wal_engine *e, struct wal_engine_request *r) {
    assert(r->outstanding == 0 && !r->is_queued);
    int is_whole = r->again == NULL && r->planned == r->bytes;
    int is_synced = r->sync_is_done && r->chain_whole;
    if (WAL_MUTANT(M3_HARDLINK) && r->sync_is_done) is_whole = is_synced = 1;
    if (r->failure != 0) {
        finish(e, r, r->failure);
    } else if (is_whole && (is_synced || r->kind == WAL_IO_WRITE_DURABLE)) {
        finish(e, r, 0);
    } else {
        enqueue_again(e, r);
    }
}

static void fail(struct wal_engine_request *r, int result) {
    assert(result < 0);
    if (r->failure == 0) r->failure = result;
}

/* Not done, but may be tried again, within reason. */
static void try_again(struct wal_engine_request *r) {
    if (++r->tries > TRIES_MAX) fail(r, -EIO);
}

static void settle_write(struct wal_engine *e, struct wal_engine_entry *entry, int64_t result) {
    struct wal_engine_request *r = entry->request;
    if (result > 0) count(&e->counters->bytes_written, (uint64_t)result);
    if (result == (int64_t)entry->bytes) {
        r->tries = 0;
        free_entry(e, entry);
        return;
    }
    if (result > 0) {
        size_t done = (size_t)result;
        assert(done < entry->bytes);
        if (r->is_direct) done = done / WAL_ENGINE_SECTOR * WAL_ENGINE_SECTOR;
        entry->from += done;
        entry->bytes -= done;
        if (done > 0) r->tries = 0;
        try_again(r);
    } else if (result == -EINTR || result == -EAGAIN || result == -ECANCELED) {
        try_again(r);
    } else {
        fail(r, result == 0 ? -EIO : (int)result);
    }
    entry->next = r->again;
    r->again = entry;
}

static void settle_sync(struct wal_engine_request *r, int64_t result) {
    if (result == 0) {
        r->sync_is_done = 1;
    } else if (result == -ECANCELED) {
        try_again(r);
    } else if (WAL_MUTANT(M4_RETRY_SYNC) && !r->sync_was_repeated) {
        r->sync_was_repeated = 1;
    } else {
        fail(r, result < 0 ? (int)result : -EIO);
    }
}

static void settle(struct wal_engine *e, struct wal_engine_entry *entry) {
    struct wal_engine_request *r = entry->request;
    int64_t result = entry->is_forced ? entry->forced : entry->result;
    assert(r->outstanding > 0);
    r->outstanding--;
    if (entry->is_sync) {
        settle_sync(r, result);
    } else {
        settle_write(e, entry, result);
    }
    if (r->outstanding == 0 && !r->is_queued) step(e, r);
}

static void arrive(struct wal_engine *e, struct wal_engine_entry *entry, int32_t result) {
    assert(e->flight > 0);
    e->flight--;
    if (!entry->request->is_blocking) count(&e->counters->ops_completed, 1);
    entry->result = result;
    if (entry->is_held) {
        entry->next = e->held;
        e->held = entry;
    } else {
        settle(e, entry);
    }
}

/* Let go of the completions whose time has come. */
static void release_held(struct wal_engine *e) {
    struct wal_engine_entry *held = e->held;
    if (held == NULL) return;
    uint64_t serial = wal_fault_serial();
    int64_t now = wal_engine_now_ns();
    e->held = NULL;
    while (held != NULL) {
        struct wal_engine_entry *entry = held;
        held = entry->next;
        if (e->is_closing || serial != entry->held_serial || now >= entry->held_until_ns) {
            settle(e, entry);
        } else {
            entry->next = e->held;
            e->held = entry;
        }
    }
}

/* ---- submitting ------------------------------------------------------------------------------ */

/* The kernel will not have what is left in the SQ, ever: nothing is submitted any more. */
static void break_down(struct wal_engine *e, int os_error) {
    e->broken = os_error;
    e->must_submit = 0;
    uint32_t mask = e->ring.params.sq_entries - 1;
    for (uint32_t i = e->sq_given - wal_entries_unsent(e); i != e->sq_given; i++) {
        arrive(e, e->sq_order[i & mask], os_error);
    }
}

/* If the kernel stopped inside a chain, the rest of it will not wait for the first part. */
static void note_cut(struct wal_engine *e) {
    uint32_t left = wal_entries_unsent(e);
    if (left == 0) return;
    struct wal_engine_entry *next =
        e->sq_order[(e->sq_given - left) & (e->ring.params.sq_entries - 1)];
    if (next->is_inside_chain) next->request->chain_whole = 0;
}

static int is_sqpoll(const struct wal_engine *e) {
    return (e->ring.params.flags & URING_SETUP_SQPOLL) != 0;
}

/* With SQPOLL the kernel's thread takes all that one store of the tail shows it, chains whole. */
static void submit(struct wal_engine *e) {
    if (e->broken != 0) return;
    for (uint32_t left = wal_entries_unsent(e); left > 0;) {
        int result = e->ring.table->submit(e->ring.state);
        int is_short = result == -ENOMEM && ++e->put_offs < TRIES_MAX; /* of memory, for now */
        e->must_submit = result == -EBUSY || result == -EAGAIN || result == -EINTR || is_short;
        if (result >= 0) e->put_offs = 0;
        if (result < 0 && !e->must_submit) {
            break_down(e, result);
            return;
        }
        if (is_sqpoll(e)) return;
        note_cut(e);
        uint32_t still = wal_entries_unsent(e);
        if (result < 0 || still == left) {
            e->must_submit = still > 0;
            return;
        }
        left = still;
    }
}

/* Issue what waits, as far as there is room, and submit it. */
static void pump(struct wal_engine *e) {
    do {
        struct wal_engine_request *r;
        while ((r = e->queue.first) != NULL && wal_entries_issue(e, r)) {
            (void)take_first(&e->queue);
            r->is_queued = 0;
            if (r->outstanding == 0) step(e, r);
        }
        if (wal_entries_unsent(e) > 0) submit(e);
    } while (e->broken != 0 && e->queue.first != NULL);
}

/* ---- collecting, and the waiting role -------------------------------------------------------- */

/* By the thread in the role. Copied first: booking them may bring new entries into flight. */
static void collect(struct wal_engine *e) {
    const struct wal_ring_table *table = e->ring.table;
    struct uring_cqe *cqes[BATCH];
    struct uring_cqe copies[BATCH];
    unsigned ready;
    while ((ready = table->peek_batch_cqe(e->ring.state, cqes, BATCH)) > 0) {
        for (unsigned i = 0; i < ready; i++) copies[i] = *cqes[i];
        table->cq_advance(e->ring.state, ready);
        for (unsigned i = 0; i < ready; i++) {
            arrive(e, (struct wal_engine_entry *)(uintptr_t)copies[i].user_data, copies[i].res);
        }
    }
    release_held(e);
    if (e->queue.first != NULL || e->must_submit) pump(e);
}

/* The longest that the role may wait before there is something else to do. */
static int64_t limit_wait(const struct wal_engine *e, int64_t wait_ns) {
    int64_t limit = wait_ns;
    if (e->held != NULL && (limit < 0 || limit > HELD_LOOK_NS)) limit = HELD_LOOK_NS;
    if (e->must_submit && (limit < 0 || limit > PUT_OFF_NS)) limit = PUT_OFF_NS;
    return limit;
}

/* A lone request is done when all of its entries are back: no need to wake for each. */
static unsigned wanted_at_once(const struct wal_engine *e) {
    int is_lone = e->unfinished == 1 && e->queue.first == NULL && e->held == NULL;
    return is_lone && !e->must_submit && e->flight > 0 ? e->flight : 1;
}

/*
 * Take the role: collect, and if that finished no request wait for completions (wait_ns 0: do not;
 * negative: no limit). -EINTR: a signal came; another code: the ring is no more.
 */
static int serve(struct wal_engine *e, int64_t wait_ns) {
    assert(!e->role_is_taken);
    e->role_is_taken = 1;
    uint64_t finished = e->finished;
    int result = 0;
    collect(e);
    if (finished == e->finished && wait_ns != 0) {
        int64_t limit = limit_wait(e, wait_ns);
        struct uring_timespec timeout = {.sec = limit / 1000000000, .nsec = limit % 1000000000};
        unsigned wanted = wanted_at_once(e);
        struct uring_cqe *cqe;
        pthread_mutex_unlock(&e->mutex);
        result = e->ring.table->wait_cqes(e->ring.state, &cqe, wanted, limit < 0 ? NULL : &timeout,
                                          NULL);
        /* The ring itself fails: nothing will come. Who may be interrupted gets away. */
        int is_lost = result < 0 && result != -ETIME && result != -EINTR && result != -EAGAIN;
        if (is_lost) (void)nanosleep(&(struct timespec){.tv_nsec = PUT_OFF_NS}, NULL);
        pthread_mutex_lock(&e->mutex);
        collect(e);
        result = is_lost || result == -EINTR ? result : 0;
    }
    e->role_is_taken = 0;
    return result;
}

/*
 * Sleep until woken, for wait_ns at most (negative: no limit), while another has the role. 0, or
 * ETIMEDOUT.
 */
static int sleep_in(struct wal_engine *e, struct wal_engine_sleeper **place, int64_t wait_ns) {
    struct wal_engine_sleeper me = {.next = e->sleepers};
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&me.wake, &attributes);
    pthread_condattr_destroy(&attributes);
    if (me.next != NULL) me.next->previous = &me;
    e->sleepers = &me;
    *place = &me;
    int result = 0;
    if (wait_ns < 0) {
        pthread_cond_wait(&me.wake, &e->mutex);
    } else {
        int64_t until = wal_engine_now_ns() + wait_ns;
        struct timespec deadline = {.tv_sec = until / 1000000000, .tv_nsec = until % 1000000000};
        result = pthread_cond_timedwait(&me.wake, &e->mutex, &deadline);
    }
    *place = NULL;
    if (me.next != NULL) me.next->previous = me.previous;
    if (me.previous != NULL) {
        me.previous->next = me.next;
    } else {
        e->sleepers = me.next;
    }
    pthread_cond_destroy(&me.wake);
    return result;
}

/* To be called by every thread that leaves after having served or slept. */
static void pass_role(struct wal_engine *e) {
    if (!e->role_is_taken && e->sleepers != NULL) pthread_cond_signal(&e->sleepers->wake);
}

/*
 * The kernel raises the descriptor with every completion. Who comes then may find the role taken
 * and goes away again; so whoever collects for others in between raises it once more.
 */
static void wait_for(struct wal_engine *e, struct wal_engine_request *r) {
    while (!r->is_finished) {
        if (e->role_is_taken) {
            (void)sleep_in(e, &r->sleeper, NO_LIMIT);
        } else {
            (void)serve(e, NO_LIMIT);
            if (e->done.first != NULL) wal_raise(e->notify_fd);
        }
    }
    pass_role(e);
}

/* Until a request can be reaped: 0, also if there is nothing to wait for; -EINTR. */
static int wait_for_any(struct wal_engine *e, int64_t wait_ns, unsigned flags) {
    int64_t deadline = wait_ns > 0 ? wal_engine_now_ns() + wait_ns : 0;
    int result = 0;
    while (e->done.first == NULL && e->under_way > 0) {
        if (result == -EINTR && (flags & WAL_IO_MAY_BLOCK) == 0) break;
        if (result < 0 && result != -EINTR) break;
        int64_t left = wait_ns;
        if (wait_ns > 0 && (left = deadline - wal_engine_now_ns()) <= 0) break;
        if (!e->role_is_taken) {
            result = serve(e, left);
        } else if (wait_ns != 0) {
            int64_t slice = left < 0 || left > SLICE_NS ? SLICE_NS : left;
            /* No signal ends this sleep: behind a whole slice the caller looks for one. */
            result = sleep_in(e, &e->reaper, slice) != 0 && slice == SLICE_NS ? -EINTR : 0;
        }
        if (wait_ns == 0) break;
    }
    pass_role(e);
    if (e->done.first != NULL || (result == -EINTR && (flags & WAL_IO_MAY_BLOCK) != 0)) return 0;
    return result < 0 ? result : 0;
}

/* ---- what others call ------------------------------------------------------------------------ */

static void begin(struct wal_engine *e, struct wal_engine_request *r,
                  const struct wal_io_request *asked) {
    memset(r, 0, sizeof *r);
    r->kind = asked->kind;
    r->file = asked->file;
    r->token = asked->token;
    if (asked->kind != WAL_IO_SYNC) {
        r->offset = asked->offset;
        r->data = asked->data;
        r->bytes = asked->bytes;
    }
    wal_engine_use_file(e, r);
    assert(!r->is_direct || ((r->offset | r->bytes | (uintptr_t)r->data) % WAL_ENGINE_SECTOR) == 0);
    r->is_queued = 1;
    e->unfinished++;
    append(&e->queue, r);
}

int wal_engine_submit(struct wal_engine *e, const struct wal_io_request *asked) {
    pthread_mutex_lock(&e->mutex);
    int result = e->free_requests == NULL ? grow_requests(e) : 0;
    if (result == 0 && e->broken != 0) result = e->broken;
    if (result == 0) {
        struct wal_engine_request *r = e->free_requests;
        e->free_requests = r->next;
        begin(e, r, asked);
        e->under_way++;
        pump(e);
    }
    pthread_mutex_unlock(&e->mutex);
    return result;
}

int wal_engine_reap(struct wal_engine *e, struct wal_io_completion *completions, int max,
                    int64_t wait_ns, unsigned flags) {
    pthread_mutex_lock(&e->mutex);
    int result = wait_for_any(e, wait_ns, flags);
    int reaped = 0;
    struct wal_engine_request *r;
    while (reaped < max && (r = take_first(&e->done)) != NULL) {
        completions[reaped++] = (struct wal_io_completion){.token = r->token, .result = r->result};
        r->next = e->free_requests;
        e->free_requests = r;
        e->under_way--;
    }
    /* The kernel raises nothing for what it put off, and a fault nothing for what it holds back. */
    if (wait_ns == 0 && (e->must_submit || e->held != NULL)) wal_raise(e->notify_fd);
    pthread_mutex_unlock(&e->mutex);
    return reaped > 0 ? reaped : result;
}

int wal_engine_notify(struct wal_engine *e, int fd) {
    const struct wal_ring_table *table = e->ring.table;
    pthread_mutex_lock(&e->mutex);
    int result = 0;
    if (e->notify_fd >= 0) result = table->unregister_eventfd(e->ring.state);
    if (result >= 0) e->notify_fd = -1;
    if (result >= 0 && fd >= 0) result = table->register_eventfd(e->ring.state, fd);
    if (result >= 0) e->notify_fd = fd;
    pthread_mutex_unlock(&e->mutex);
    return result < 0 ? result : 0;
}

int wal_engine_perform(struct wal_engine *e, const struct wal_io_request *asked) {
    struct wal_engine_request r;
    pthread_mutex_lock(&e->mutex);
    begin(e, &r, asked);
    r.is_blocking = 1;
    pump(e);
    wait_for(e, &r);
    pthread_mutex_unlock(&e->mutex);
    return r.result;
}

/* ---- beginning and end ----------------------------------------------------------------------- */

static const uint32_t *at(const void *base, uint32_t offset) {
    return (const uint32_t *)((const char *)base + offset);
}

/* EXT_ARG, which ring.c insists on, is younger than SINGLE_MMAP: one mapping has both rings. */
static int map_view(struct wal_engine *e) {
    const struct uring_params *p = &e->ring.params;
    size_t sq = p->sq_off.array + p->sq_entries * sizeof(uint32_t);
    size_t cq = p->cq_off.cqes + p->cq_entries * sizeof(struct uring_cqe);
    e->view_bytes = sq > cq ? sq : cq;
    e->view = mmap(NULL, e->view_bytes, PROT_READ, MAP_SHARED, e->ring.fd, URING_OFF_SQ_RING);
    if (e->view == MAP_FAILED) {
        e->view = NULL;
        return -errno;
    }
    (void)madvise(e->view, e->view_bytes, MADV_DONTFORK);
    e->sq_head = at(e->view, p->sq_off.head);
    e->sq_dropped = at(e->view, p->sq_off.dropped);
    e->cq_overflow = at(e->view, p->cq_off.overflow);
    return 0;
}

int wal_engine_init(struct wal_engine *e, struct wal_io_counters *counters, unsigned max_inflight) {
    e->counters = counters;
    e->notify_fd = -1;
    pthread_mutex_init(&e->mutex, NULL);
    uint32_t sq_entries = e->ring.params.sq_entries;
    e->flight_max = e->ring.params.cq_entries / 2;
    e->chain_max = sq_entries < e->flight_max ? sq_entries : e->flight_max;
    assert((sq_entries & (sq_entries - 1)) == 0 && e->flight_max > 0);
    e->entries = wal_calloc(e->flight_max, sizeof *e->entries);
    e->sq_order = wal_calloc(sq_entries, sizeof(struct wal_engine_entry *));
    int result = e->entries == NULL || e->sq_order == NULL ? -ENOMEM : map_view(e);
    for (unsigned made = 0; result == 0 && made <= max_inflight; made += REQUESTS_PER_CHUNK) {
        result = grow_requests(e);
    }
    if (result < 0) {
        if (e->view != NULL) (void)munmap(e->view, e->view_bytes);
        wal_engine_free(e);
        return result;
    }
    for (unsigned i = 0; i < e->flight_max; i++) free_entry(e, &e->entries[i]);
    e->sq_given = *e->sq_head; /* the NOP that proved the ring went through it, too */
    return 0;
}

void wal_engine_drain(struct wal_engine *e) {
    pthread_mutex_lock(&e->mutex);
    e->is_closing = 1;
    pump(e);
    while (e->flight > 0 || e->held != NULL) (void)serve(e, NO_LIMIT);
    assert(e->queue.first == NULL && e->sleepers == NULL);
    wal_engine_clear_files(e);
    pthread_mutex_unlock(&e->mutex);
    (void)munmap(e->view, e->view_bytes);
}

void wal_engine_free(struct wal_engine *e) {
    for (struct wal_engine_chunk *chunk = e->chunks; chunk != NULL;) {
        struct wal_engine_chunk *next = chunk->next;
        wal_free(chunk);
        chunk = next;
    }
    wal_free(e->entries);
    wal_free(e->sq_order);
    wal_free(e->files);
}

#endif
