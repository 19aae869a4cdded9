/*
 * The fault injector: a struct wal_io around another one that misbehaves as a test says.
 *
 * It ships with the extension and every log opened by path goes through it, so that what is
 * tested is what is packaged; unarmed it costs one load and one branch an operation. One rule at a
 * time for the whole process: the nth operation that matches a mask, or all from the nth on.
 *
 * A request is one write (if it writes) and one sync, decided about in submit, in that order. A
 * stalled one is held back here without blocking anybody, and so is what comes after it for the
 * same file: reap hands them down when their time has come.
 */
#include "io_fault.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "hooks.h"
#include "io.h"
#include "log.h"

static atomic_int armed;
static pthread_mutex_t rule_mutex = PTHREAD_MUTEX_INITIALIZER;
static struct {
    uint32_t op_mask;
    uint32_t sticky;
    uint32_t effect;
    uint64_t nth;
    int64_t value;
    uint64_t count;
    uint64_t hits;
    uint64_t serial; /* a stalled operation goes on when this changes */
} rule;

/* What is held back asks for the rule again and again; a child must not find a thread at it. */
static void hold_rule(void) { pthread_mutex_lock(&rule_mutex); }

static void let_rule(void) { pthread_mutex_unlock(&rule_mutex); }

static void register_fork_handlers(void) { (void)pthread_atfork(hold_rule, let_rule, let_rule); }

void wal_fault_set(uint32_t op_mask, uint64_t nth, uint32_t sticky, uint32_t effect,
                   int64_t value) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    (void)pthread_once(&once, register_fork_handlers);
    pthread_mutex_lock(&rule_mutex);
    rule.op_mask = op_mask;
    rule.nth = nth == 0 ? 1 : nth;
    rule.sticky = sticky;
    rule.effect = effect;
    rule.value = value;
    rule.count = 0;
    rule.hits = 0;
    rule.serial++;
    pthread_mutex_unlock(&rule_mutex);
    atomic_store(&armed, 1);
}

void wal_fault_clear(void) {
    pthread_mutex_lock(&rule_mutex);
    atomic_store(&armed, 0);
    rule.op_mask = 0;
    rule.serial++;
    pthread_mutex_unlock(&rule_mutex);
}

uint64_t wal_fault_count(void) {
    pthread_mutex_lock(&rule_mutex);
    uint64_t value = rule.count;
    pthread_mutex_unlock(&rule_mutex);
    return value;
}

uint64_t wal_fault_hits(void) {
    pthread_mutex_lock(&rule_mutex);
    uint64_t value = rule.hits;
    pthread_mutex_unlock(&rule_mutex);
    return value;
}

uint64_t wal_fault_serial(void) {
    pthread_mutex_lock(&rule_mutex);
    uint64_t value = rule.serial;
    pthread_mutex_unlock(&rule_mutex);
    return value;
}

static int is_write(uint32_t op) { return op == WAL_FAULT_WRITE || op == WAL_FAULT_CQE_WRITE; }

static int is_armed(void) { return atomic_load_explicit(&armed, memory_order_relaxed); }

enum wal_fault_decision wal_fault_decide(uint32_t op, int64_t *value, uint64_t *serial) {
    if (!is_armed()) return WAL_FAULT_DO;
    pthread_mutex_lock(&rule_mutex);
    int hit = 0;
    if ((rule.op_mask & op) != 0) {
        rule.count++;
        hit = rule.count == rule.nth || (rule.sticky != 0 && rule.count > rule.nth);
        rule.hits += (uint64_t)hit;
    }
    uint32_t effect = rule.effect;
    *serial = rule.serial;
    *value = rule.value;
    pthread_mutex_unlock(&rule_mutex);
    if (!hit) return WAL_FAULT_DO;
    switch (effect) {
        case WAL_FAULT_FAIL: return WAL_FAULT_DO_FAIL;
        case WAL_FAULT_SHORT: return is_write(op) ? WAL_FAULT_DO_SHORT : WAL_FAULT_DO;
        case WAL_FAULT_STALL: return WAL_FAULT_DO_STALL;
        case WAL_FAULT_SKIP: return WAL_FAULT_DO_SKIP;
        case WAL_FAULT_KILL: (void)kill(getpid(), SIGKILL); return WAL_FAULT_DO;
        default: return WAL_FAULT_DO;
    }
}

/* ---- the verbs that block -------------------------------------------------------------------- */

/* A request that waits for its time, or for one before it. */
struct held {
    struct wal_io_request request;
    uint64_t until_ns; /* 0: not stalled itself */
    uint64_t serial;   /* of the rule that stalls it */
    int64_t first; /* so many bytes go down on their own, and then the request; -1: they do not */
    int unsynced;  /* a write whose sync is skipped */
};

struct fault_io {
    struct wal_io io;
    struct wal_io *base;
    pthread_mutex_t mutex; /* guards all below; the last to be taken, but for the base's own */
    atomic_int busy;       /* is there anything in the two lists? */
    atomic_int notify_fd;  /* raised while something is held back; -1: nobody watches */
    struct held *held;     /* in the order of submission */
    size_t held_count;
    struct wal_io_completion *done; /* that did not come from the base */
    size_t done_count;
    size_t capacity; /* of each list: both can take all that is here */
};

static struct fault_io *fault_of(struct wal_io *io) { return (struct fault_io *)io; }

/* A sleep that no signal shortens, as a stuck disk would have it; wal_fault_clear ends it. */
static void stall(int64_t milliseconds, uint64_t serial) {
    for (int64_t slept = 0; slept < milliseconds && wal_fault_serial() == serial; slept += 5) {
        struct timespec left = {.tv_nsec = 5000000};
        while (nanosleep(&left, &left) != 0 && errno == EINTR) continue;
    }
}

/* Decide about an operation that may block; *value is the errno or byte count that goes with it. */
static enum wal_fault_decision decide(uint32_t op, int64_t *value) {
    uint64_t serial = 0;
    enum wal_fault_decision decision = wal_fault_decide(op, value, &serial);
    if (decision != WAL_FAULT_DO_STALL) return decision;
    stall(*value, serial);
    return WAL_FAULT_DO;
}

static struct wal_io *base_of(struct wal_io *io) { return fault_of(io)->base; }

/* The body of a verb that returns 0 when skipped. */
#define FAULTY(op, call)                            \
    int64_t value = 0;                              \
    switch (decide((op), &value)) {                 \
        case WAL_FAULT_DO_FAIL: return -(int)value; \
        case WAL_FAULT_DO_SKIP: return 0;           \
        default: return (call);                     \
    }

static int fault_open(struct wal_io *io, const char *name, unsigned flags) {
    int64_t value = 0;
    if (decide(WAL_FAULT_OPEN, &value) == WAL_FAULT_DO_FAIL) return -(int)value;
    int file = base_of(io)->ops->open(base_of(io), name, flags);
    wal_io_warn(io, wal_io_warnings(base_of(io))); /* opening is where they are found out */
    return file;
}

static int fault_close(struct wal_io *io, int file) {
    return base_of(io)->ops->close(base_of(io), file);
}

static int fault_stat(struct wal_io *io, int file, struct wal_io_stat *stat) {
    return base_of(io)->ops->stat(base_of(io), file, stat);
}

static int64_t fault_read(struct wal_io *io, int file, uint64_t offset, void *data, size_t bytes) {
    int64_t value = 0;
    if (decide(WAL_FAULT_READ, &value) == WAL_FAULT_DO_FAIL) return -value;
    return base_of(io)->ops->read(base_of(io), file, offset, data, bytes);
}

static int64_t fault_write(struct wal_io *io, int file, uint64_t offset, const struct iovec *parts,
                           int count) {
    int64_t value = 0;
    size_t whole = 0;
    for (int i = 0; i < count; i++) whole += parts[i].iov_len;
    switch (decide(WAL_FAULT_WRITE, &value)) {
        case WAL_FAULT_DO_FAIL: return -value;
        case WAL_FAULT_DO_SKIP: return (int64_t)whole;
        case WAL_FAULT_DO_SHORT: {
            if (value <= 0) return 0;
            struct iovec part = parts[0];
            if ((size_t)value < part.iov_len) part.iov_len = (size_t)value;
            return base_of(io)->ops->write(base_of(io), file, offset, &part, 1);
        }
        default: return base_of(io)->ops->write(base_of(io), file, offset, parts, count);
    }
}

static int fault_sync(struct wal_io *io, int file) {
    FAULTY(WAL_FAULT_SYNC, base_of(io)->ops->sync(base_of(io), file))
}

static int fault_allocate(struct wal_io *io, int file, uint64_t bytes) {
    FAULTY(WAL_FAULT_ALLOCATE, base_of(io)->ops->allocate(base_of(io), file, bytes))
}

static int fault_truncate(struct wal_io *io, int file, uint64_t bytes) {
    FAULTY(WAL_FAULT_TRUNCATE, base_of(io)->ops->truncate(base_of(io), file, bytes))
}

static int64_t fault_next_data(struct wal_io *io, int file, uint64_t offset, uint64_t *end) {
    return base_of(io)->ops->next_data(base_of(io), file, offset, end);
}

static int fault_rename(struct wal_io *io, const char *from, const char *to) {
    FAULTY(WAL_FAULT_RENAME, base_of(io)->ops->rename(base_of(io), from, to))
}

static int fault_unlink(struct wal_io *io, const char *name) {
    FAULTY(WAL_FAULT_UNLINK, base_of(io)->ops->unlink(base_of(io), name))
}

static int fault_sync_dir(struct wal_io *io) {
    FAULTY(WAL_FAULT_SYNC_DIR, base_of(io)->ops->sync_dir(base_of(io)))
}

static int fault_list(struct wal_io *io, struct wal_io_name **names, size_t *count) {
    return base_of(io)->ops->list(base_of(io), names, count);
}

static int fault_lock(struct wal_io *io, int64_t *holder_pid) {
    return base_of(io)->ops->lock(base_of(io), holder_pid);
}

/* ---- requests -------------------------------------------------------------------------------- */

enum {
    STEP_NS = 5000000, /* how long reap sits while something is held back */
    PASSING_MAX = 1000,
};

/* Room for one more request in either list, so that nothing fails later for want of it. */
static int reserve(struct fault_io *f) {
    size_t total = f->held_count + f->done_count;
    if (total < f->capacity) return 0;
    size_t capacity = f->capacity == 0 ? 16 : f->capacity * 2;
    struct held *held = wal_realloc(f->held, capacity * sizeof *held);
    if (held == NULL) return -ENOMEM;
    f->held = held;
    struct wal_io_completion *done = wal_realloc(f->done, capacity * sizeof *done);
    if (done == NULL) return -ENOMEM;
    f->done = done;
    f->capacity = capacity;
    return 0;
}

static void finish(struct fault_io *f, const struct wal_io_request *request, int result) {
    assert(f->done_count < f->capacity);
    f->done[f->done_count++] =
        (struct wal_io_completion){.token = request->token, .result = result};
    atomic_store(&f->busy, 1);
}

static int write_now(struct fault_io *f, const struct wal_io_request *request, size_t bytes) {
    struct iovec part = {.iov_base = (void *)(uintptr_t)request->data, .iov_len = bytes};
    return wal_io_write(f->base, request->file, request->offset, &part, 1);
}

/*
 * A short write goes down in two parts. The first of a WRITE_DURABLE, which nothing else makes
 * durable, goes down once more with the second.
 */
static int write_first_part(struct fault_io *f, struct held *h) {
    struct wal_io_request *request = &h->request;
    size_t first = (size_t)h->first < request->bytes ? (size_t)h->first : request->bytes;
    if (first == 0) return -EIO; /* as of any write that does nothing */
    if (request->kind == WAL_IO_WRITE_DURABLE) {
        first -= first % 4096;
        return first == 0 ? 0 : write_now(f, request, first);
    }
    int result = write_now(f, request, first);
    request->offset += first;
    request->data = (const char *)request->data + first;
    request->bytes -= first;
    if (request->bytes == 0) request->kind = WAL_IO_SYNC;
    return result;
}

/* Its turn has come. -EBUSY: not yet. */
static int begin(struct fault_io *f, struct held *h) {
    int result = 0;
    if (h->unsynced) {
        finish(f, &h->request, write_now(f, &h->request, h->request.bytes));
        return 0;
    }
    if (h->first >= 0) result = write_first_part(f, h);
    h->first = -1;
    if (result == 0) return wal_io_submit(f->base, &h->request);
    finish(f, &h->request, result);
    return 0;
}

/* A write that was interrupted is begun again, by whoever does requests: below this seam. */
static enum wal_fault_decision decide_until_through(int64_t *value, uint64_t *serial) {
    for (int tries = 0; tries < PASSING_MAX; tries++) {
        enum wal_fault_decision decision = wal_fault_decide(WAL_FAULT_WRITE, value, serial);
        int passes = decision == WAL_FAULT_DO_FAIL && (*value == EINTR || *value == EAGAIN);
        if (!passes) return decision;
    }
    *value = EIO;
    return WAL_FAULT_DO_FAIL;
}

/* Decide about the write, if there is one; 1: that was all of the request. */
static int decide_write(struct fault_io *f, struct held *h) {
    if (h->request.kind == WAL_IO_SYNC) return 0;
    int64_t value = 0;
    switch (decide_until_through(&value, &h->serial)) {
        case WAL_FAULT_DO_FAIL: finish(f, &h->request, -(int)value); return 1;
        case WAL_FAULT_DO_SHORT: h->first = value < 0 ? 0 : value; return 0;
        case WAL_FAULT_DO_STALL:
            h->until_ns = wal_monotonic_ns() + (uint64_t)value * 1000000;
            return 0;
        case WAL_FAULT_DO_SKIP:
            if (h->request.kind == WAL_IO_WRITE_SYNC) {
                h->request.kind = WAL_IO_SYNC;
                return 0;
            }
            finish(f, &h->request, 0);
            return 1;
        default: return 0;
    }
}

/* The sync is counted whatever became of the write. */
static int decide_sync(struct fault_io *f, struct held *h, int is_over) {
    int64_t value = 0;
    switch (wal_fault_decide(WAL_FAULT_SYNC, &value, &h->serial)) {
        case WAL_FAULT_DO_FAIL:
            if (!is_over) finish(f, &h->request, -(int)value);
            return 1;
        case WAL_FAULT_DO_SKIP:
            h->unsynced = !is_over && h->request.bytes > 0 && h->request.kind != WAL_IO_SYNC;
            if (h->unsynced || is_over) return is_over;
            finish(f, &h->request, 0);
            return 1;
        case WAL_FAULT_DO_STALL: {
            uint64_t from = h->until_ns != 0 ? h->until_ns : wal_monotonic_ns();
            h->until_ns = from + (uint64_t)value * 1000000;
            return is_over;
        }
        default: return is_over;
    }
}

static int waits_behind(const struct fault_io *f, int file, size_t before) {
    for (size_t i = 0; i < before; i++) {
        if (f->held[i].request.file == file) return 1;
    }
    return 0;
}

static int submit_faulty(struct fault_io *f, const struct wal_io_request *request) {
    int result = reserve(f);
    if (result < 0) return result;
    struct held h = {.request = *request, .first = -1};
    int is_over = decide_write(f, &h);
    if (decide_sync(f, &h, is_over)) return 0;
    if (h.until_ns == 0 && !waits_behind(f, request->file, f->held_count)) return begin(f, &h);
    f->held[f->held_count++] = h;
    atomic_store(&f->busy, 1);
    return 0;
}

static int fault_submit(struct wal_io *io, const struct wal_io_request *request) {
    struct fault_io *f = fault_of(io);
    if ((is_armed() | atomic_load(&f->busy)) == 0) return wal_io_submit(f->base, request);
    pthread_mutex_lock(&f->mutex);
    int result = submit_faulty(f, request);
    pthread_mutex_unlock(&f->mutex);
    return result;
}

/* Hand down what has waited long enough, each file's requests in their order. */
static void release_due(struct fault_io *f) {
    uint64_t now = f->held_count > 0 ? wal_monotonic_ns() : 0;
    for (size_t i = 0; i < f->held_count;) {
        struct held *h = &f->held[i];
        int is_due = h->until_ns <= now || wal_fault_serial() != h->serial;
        int result = -EBUSY;
        if (is_due && !waits_behind(f, h->request.file, i)) result = begin(f, h);
        if (result == -EBUSY) {
            i++;
            continue;
        }
        if (result < 0) finish(f, &h->request, result);
        f->held_count--;
        memmove(f->held + i, f->held + i + 1, (f->held_count - i) * sizeof *f->held);
    }
}

/* What was finished here; *held says whether anything is still held back. */
static int take_done(struct fault_io *f, struct wal_io_completion *completions, int max,
                     int *held) {
    pthread_mutex_lock(&f->mutex);
    release_due(f);
    int taken = 0;
    while (taken < max && (size_t)taken < f->done_count) {
        completions[taken] = f->done[taken];
        taken++;
    }
    f->done_count -= (size_t)taken;
    if (taken > 0) memmove(f->done, f->done + taken, f->done_count * sizeof *f->done);
    *held = f->held_count > 0;
    atomic_store(&f->busy, *held || f->done_count > 0);
    pthread_mutex_unlock(&f->mutex);
    return taken;
}

/* The base returns at once where nothing is under way there: the rest of the step is slept. */
static int reap_step(struct fault_io *f, struct wal_io_completion *completions, int max,
                     uint64_t step_ns, unsigned flags) {
    uint64_t end = wal_monotonic_ns() + step_ns;
    int reaped = wal_io_reap(f->base, completions, max, (int64_t)step_ns, flags);
    uint64_t now = wal_monotonic_ns();
    if (reaped != 0 || now >= end) return reaped;
    struct timespec left = {.tv_nsec = (long)(end - now)};
    int is_cut_short = nanosleep(&left, NULL) != 0 && (flags & WAL_IO_MAY_BLOCK) == 0;
    return is_cut_short ? -EINTR : 0;
}

static int fault_reap(struct wal_io *io, struct wal_io_completion *completions, int max,
                      int64_t wait_ns, unsigned flags) {
    struct fault_io *f = fault_of(io);
    if ((is_armed() | atomic_load(&f->busy)) == 0) {
        return wal_io_reap(f->base, completions, max, wait_ns, flags);
    }
    uint64_t begun = wal_monotonic_ns();
    for (;;) {
        int held = 0;
        int taken = take_done(f, completions, max, &held);
        if (taken > 0) return taken;
        uint64_t spent = wal_monotonic_ns() - begun;
        int64_t left = wait_ns <= 0 ? wait_ns : wait_ns - (int64_t)spent;
        if (wait_ns > 0 && left < 0) left = 0;
        if (held && left == 0) wal_raise(atomic_load(&f->notify_fd)); /* nobody else will */
        if (!held || left == 0) return wal_io_reap(f->base, completions, max, left, flags);
        uint64_t step = left < 0 || left > STEP_NS ? STEP_NS : (uint64_t)left;
        taken = reap_step(f, completions, max, step, flags);
        if (taken != 0) return taken;
    }
}

static int fault_notify(struct wal_io *io, int fd) {
    struct fault_io *f = fault_of(io);
    int result = wal_io_notify(f->base, fd);
    if (result == 0) atomic_store(&f->notify_fd, fd);
    return result;
}

static int fault_register_buffers(struct wal_io *io, void *memory, size_t bytes, unsigned count) {
    return wal_io_register_buffers(base_of(io), memory, bytes, count);
}

static void fault_add_counters(struct wal_io *io, struct wal_io_counters *total) {
    wal_io_count(base_of(io), total);
}

/* ---- the wrapper ----------------------------------------------------------------------------- */

/* What is held back was never begun, and nobody will hear of it. */
static void fault_destroy(struct wal_io *io) {
    struct fault_io *f = fault_of(io);
    wal_io_destroy(f->base);
    (void)pthread_mutex_destroy(&f->mutex);
    wal_free(f->held);
    wal_free(f->done);
    wal_free(f);
}

static const struct wal_io_ops fault_ops = {
    .open = fault_open,
    .close = fault_close,
    .stat = fault_stat,
    .read = fault_read,
    .write = fault_write,
    .sync = fault_sync,
    .allocate = fault_allocate,
    .truncate = fault_truncate,
    .next_data = fault_next_data,
    .rename = fault_rename,
    .unlink = fault_unlink,
    .sync_dir = fault_sync_dir,
    .list = fault_list,
    .lock = fault_lock,
    .submit = fault_submit,
    .reap = fault_reap,
    .notify = fault_notify,
    .register_buffers = fault_register_buffers,
    .add_counters = fault_add_counters,
    .destroy = fault_destroy,
};

int wal_io_fault_wrap(struct wal_io *base, struct wal_io **io) {
    struct fault_io *wrapper = wal_calloc(1, sizeof *wrapper);
    if (wrapper == NULL) return -ENOMEM;
    wrapper->io.ops = &fault_ops;
    wrapper->io.warnings = base->warnings;
    wrapper->base = base;
    atomic_init(&wrapper->notify_fd, -1);
    (void)pthread_mutex_init(&wrapper->mutex, NULL);
    *io = &wrapper->io;
    return 0;
}
