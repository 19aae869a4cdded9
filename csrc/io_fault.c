/*
 * The fault injector: a struct wal_io around another one that misbehaves as a test says.
 *
 * It ships with the extension and every log opened by path goes through it, so that what is
 * tested is what is packaged; unarmed it costs one load and one branch an operation. One rule at a
 * time for the whole process: the nth operation that matches a mask, or all from the nth on.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <time.h>
#include <unistd.h>

#include "hooks.h"
#include "io.h"
#include "log.h"

struct fault_io {
    struct wal_io io;
    struct wal_io *base;
};

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

void wal_fault_set(uint32_t op_mask, uint64_t nth, uint32_t sticky, uint32_t effect,
                   int64_t value) {
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

static uint64_t rule_serial(void) {
    pthread_mutex_lock(&rule_mutex);
    uint64_t value = rule.serial;
    pthread_mutex_unlock(&rule_mutex);
    return value;
}

/* A sleep that no signal shortens, as a stuck disk would have it; wal_fault_clear ends it. */
static void stall(int64_t milliseconds, uint64_t serial) {
    for (int64_t slept = 0; slept < milliseconds && rule_serial() == serial; slept += 5) {
        struct timespec left = {.tv_nsec = 5000000};
        while (nanosleep(&left, &left) != 0 && errno == EINTR) continue;
    }
}

enum decision { DO_IT, FAIL_IT, SHORTEN_IT, SKIP_IT };

/* Decide about one operation; *value is the errno or the byte count that goes with it. */
static enum decision decide(uint32_t op, int64_t *value) {
    if (!atomic_load_explicit(&armed, memory_order_relaxed)) return DO_IT;
    pthread_mutex_lock(&rule_mutex);
    int hit = 0;
    if ((rule.op_mask & op) != 0) {
        rule.count++;
        hit = rule.count == rule.nth || (rule.sticky != 0 && rule.count > rule.nth);
        rule.hits += (uint64_t)hit;
    }
    uint32_t effect = rule.effect;
    uint64_t serial = rule.serial;
    *value = rule.value;
    pthread_mutex_unlock(&rule_mutex);
    if (!hit) return DO_IT;
    switch (effect) {
        case WAL_FAULT_FAIL: return FAIL_IT;
        case WAL_FAULT_SHORT: return op == WAL_FAULT_WRITE ? SHORTEN_IT : DO_IT;
        case WAL_FAULT_STALL: stall(*value, serial); return DO_IT;
        case WAL_FAULT_SKIP: return SKIP_IT;
        case WAL_FAULT_KILL: (void)kill(getpid(), SIGKILL); return DO_IT;
        default: return DO_IT;
    }
}

static struct wal_io *base_of(struct wal_io *io) { return ((struct fault_io *)io)->base; }

/* The body of a verb that returns 0 when skipped. */
#define FAULTY(op, call)                  \
    int64_t value = 0;                    \
    switch (decide((op), &value)) {       \
        case FAIL_IT: return -(int)value; \
        case SKIP_IT: return 0;           \
        default: return (call);           \
    }

static int fault_open(struct wal_io *io, const char *name, unsigned flags) {
    int64_t value = 0;
    if (decide(WAL_FAULT_OPEN, &value) == FAIL_IT) return -(int)value;
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
    if (decide(WAL_FAULT_READ, &value) == FAIL_IT) return -value;
    return base_of(io)->ops->read(base_of(io), file, offset, data, bytes);
}

static int64_t fault_write(struct wal_io *io, int file, uint64_t offset, const struct iovec *parts,
                           int count) {
    int64_t value = 0;
    size_t whole = 0;
    for (int i = 0; i < count; i++) whole += parts[i].iov_len;
    switch (decide(WAL_FAULT_WRITE, &value)) {
        case FAIL_IT: return -value;
        case SKIP_IT: return (int64_t)whole;
        case SHORTEN_IT: {
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

static void fault_destroy(struct wal_io *io) {
    wal_io_destroy(base_of(io));
    wal_free(io);
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
    .destroy = fault_destroy,
};

int wal_io_fault_wrap(struct wal_io *base, struct wal_io **io) {
    struct fault_io *wrapper = wal_calloc(1, sizeof *wrapper);
    if (wrapper == NULL) return -ENOMEM;
    wrapper->io.ops = &fault_ops;
    wrapper->io.warnings = base->warnings;
    wrapper->base = base;
    *io = &wrapper->io;
    return 0;
}
