/*
 * Requests for a backend that has only blocking calls: done by who reaps, or by one thread.
 *
 * Submit puts a request into a queue and wakes nobody. A reaper that may block takes the next one
 * out and does it itself, so that a durable append from an ordinary thread costs what its write and
 * its sync cost, and no change of threads. A reaper that a signal must be able to interrupt cannot
 * do that: a sync on a stuck disk returns when it likes. It hands the queue to the worker, a thread
 * that is begun for the first such reaper, and waits no longer than it is told to.
 *
 * The requests of one file are done one at a time, in the order of their submission. At most two
 * are being done at any moment, one by the reaper and one by the worker.
 *
 * A file that is closed takes its requests along: those not begun are cancelled, and the one that
 * the worker is at is waited for.
 *
 * Wake-ups. A thread that wakes and finds the mutex held goes to sleep again, and the second
 * wake-up costs as much as the first. So nobody signals with the mutex held.
 *
 * Fork. The child has no worker, and the mutex may have been somebody's: all that can be done with
 * the child's copy is to destroy it.
 */
#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <time.h>

#include "hooks.h"
#include "io.h"
#include "io_posix.h"
#include "log.h"

enum { NO_FILE = -1 };

struct worker_io {
    struct wal_io io;
    struct wal_io *base;
    uint64_t fork_generation;
    pthread_mutex_t mutex;   /* guards all below; never held during I/O, and taken last */
    pthread_cond_t posted;   /* for the worker: the queue is its, or the end */
    pthread_cond_t finished; /* for reap and close: the worker has done something */

    /* Owned here: submitted and not begun, oldest first; and done, and not reaped. */
    struct wal_io_request *queue;
    size_t queue_count;
    struct wal_io_completion *done;
    size_t done_count;
    size_t capacity;    /* of each */
    size_t under_way;   /* submitted and not reaped: what both must be able to take */
    int handed;         /* the worker may take from the queue */
    int reaper_file;    /* whose request the reaper is doing */
    int worker_file;    /* and the worker */
    int worker_idles;   /* waits for posted */
    int waiters;        /* for finished */
    int worker_started; /* worker is a thread that has to be joined */
    int stopping;
    int notify_fd; /* raised when the worker has done something; -1: nobody watches */
    pthread_t worker;
};

static struct worker_io *worker_of(struct wal_io *io) { return (struct worker_io *)io; }

/* ---- the queue: all with the mutex ----------------------------------------------------------- */

/* Room for one more request, wherever it will stand: nothing fails later for want of it. */
static int reserve(struct worker_io *w) {
    if (w->under_way < w->capacity) return 0;
    size_t capacity = w->capacity == 0 ? 16 : w->capacity * 2;
    struct wal_io_request *queue = wal_realloc(w->queue, capacity * sizeof *queue);
    if (queue == NULL) return -ENOMEM;
    w->queue = queue;
    struct wal_io_completion *done = wal_realloc(w->done, capacity * sizeof *done);
    if (done == NULL) return -ENOMEM;
    w->done = done;
    w->capacity = capacity;
    return 0;
}

/* The first request whose file nobody is busy with; its older ones have been taken before it. */
static size_t next(const struct worker_io *w) {
    size_t i = 0;
    while (i < w->queue_count &&
           (w->queue[i].file == w->reaper_file || w->queue[i].file == w->worker_file)) {
        i++;
    }
    return i;
}

static int take(struct worker_io *w, int *busy_file, struct wal_io_request *request) {
    assert(*busy_file == NO_FILE);
    size_t i = next(w);
    if (i == w->queue_count) return 0;
    *request = w->queue[i];
    *busy_file = request->file;
    w->queue_count--;
    memmove(w->queue + i, w->queue + i + 1, (w->queue_count - i) * sizeof *w->queue);
    if (w->queue_count == 0) w->handed = 0;
    return 1;
}

static void finish(struct worker_io *w, int *busy_file, const struct wal_io_request *request,
                   int result) {
    assert(w->done_count < w->capacity && *busy_file == request->file);
    *busy_file = NO_FILE;
    w->done[w->done_count++] =
        (struct wal_io_completion){.token = request->token, .result = result};
}

static int take_done(struct worker_io *w, struct wal_io_completion *completions, int max) {
    size_t taken = w->done_count < (size_t)max ? w->done_count : (size_t)max;
    if (taken == 0) return 0;
    memcpy(completions, w->done, taken * sizeof *completions);
    w->done_count -= taken;
    w->under_way -= taken;
    memmove(w->done, w->done + taken, w->done_count * sizeof *w->done);
    return (int)taken;
}

/* Release the mutex, and only then wake: see above. */
static void unlock_and_wake_worker(struct worker_io *w) {
    int has_work = w->worker_idles && w->handed && next(w) < w->queue_count;
    if (has_work) w->worker_idles = 0; /* once is enough */
    pthread_mutex_unlock(&w->mutex);
    if (has_work) pthread_cond_signal(&w->posted);
}

static void unlock_and_wake_waiters(struct worker_io *w) {
    int waiters = w->waiters, fd = w->notify_fd;
    pthread_mutex_unlock(&w->mutex);
    if (waiters > 0) pthread_cond_broadcast(&w->finished);
    wal_raise(fd);
}

/* ---- the worker ------------------------------------------------------------------------------ */

static void *worker_main(void *argument) {
    struct worker_io *w = argument;
    struct wal_io_request request;
    pthread_mutex_lock(&w->mutex);
    while (!w->stopping) {
        if (!w->handed || !take(w, &w->worker_file, &request)) {
            w->worker_idles = 1;
            pthread_cond_wait(&w->posted, &w->mutex);
            w->worker_idles = 0;
            continue;
        }
        pthread_mutex_unlock(&w->mutex);
        int result = wal_io_perform(w->base, &request);
        pthread_mutex_lock(&w->mutex);
        finish(w, &w->worker_file, &request, result);
        unlock_and_wake_waiters(w);
        pthread_mutex_lock(&w->mutex);
    }
    pthread_mutex_unlock(&w->mutex);
    return NULL;
}

/* Signals are for the threads of the program that we are in. 0: there is no worker to be had. */
static int start(struct worker_io *w) {
    if (w->worker_started) return 1;
    sigset_t all, before;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    w->worker_started = pthread_create(&w->worker, NULL, worker_main, w) == 0;
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return w->worker_started;
}

/* ---- submit and reap ------------------------------------------------------------------------- */

static int worker_submit(struct wal_io *io, const struct wal_io_request *request) {
    struct worker_io *w = worker_of(io);
    pthread_mutex_lock(&w->mutex);
    int result = reserve(w);
    if (result == 0) {
        w->queue[w->queue_count++] = *request;
        w->under_way++;
    }
    pthread_mutex_unlock(&w->mutex);
    return result;
}

static struct timespec after_ns(int64_t wait_ns) {
    struct timespec until;
#ifdef __APPLE__
    (void)clock_gettime(CLOCK_REALTIME, &until);
#else
    (void)clock_gettime(CLOCK_MONOTONIC, &until);
#endif
    until.tv_sec += (time_t)(wait_ns / 1000000000);
    until.tv_nsec += (long)(wait_ns % 1000000000);
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    return until;
}

/* With the mutex, which is released in between. 0: the time is over. */
static int wait_finished(struct worker_io *w, int64_t wait_ns, const struct timespec *until) {
    unlock_and_wake_worker(w);
    pthread_mutex_lock(&w->mutex);
    int result = 0;
    w->waiters++;
    while (w->done_count == 0 && result != ETIMEDOUT) {
        result = wait_ns < 0 ? pthread_cond_wait(&w->finished, &w->mutex)
                             : pthread_cond_timedwait(&w->finished, &w->mutex, until);
    }
    w->waiters--;
    return w->done_count > 0;
}

/* Do one request in this thread. 0: the worker is at all of them. */
static int do_one(struct worker_io *w) {
    struct wal_io_request request;
    if (!take(w, &w->reaper_file, &request)) return 0;
    pthread_mutex_unlock(&w->mutex);
    int result = wal_io_perform(w->base, &request);
    pthread_mutex_lock(&w->mutex);
    finish(w, &w->reaper_file, &request, result);
    return 1;
}

static int worker_reap(struct wal_io *io, struct wal_io_completion *completions, int max,
                       int64_t wait_ns, unsigned flags) {
    struct worker_io *w = worker_of(io);
    pthread_mutex_lock(&w->mutex);
    if (w->done_count == 0 && w->under_way > 0) {
        int does_it = wait_ns != 0 && (flags & WAL_IO_MAY_BLOCK) != 0;
        int hands_it = (flags & WAL_IO_MAY_BLOCK) == 0 && w->queue_count > 0;
        /* No thread to be had: rather a wait that no signal ends than none at all. */
        if (hands_it && !start(w)) does_it = 1;
        if (hands_it && !does_it) w->handed = 1;
        int is_done = does_it && do_one(w);
        if (!is_done && wait_ns != 0) {
            struct timespec until = after_ns(wait_ns > 0 ? wait_ns : 0);
            (void)wait_finished(w, wait_ns, &until);
        }
    }
    int taken = take_done(w, completions, max);
    unlock_and_wake_worker(w);
    return taken;
}

static int worker_notify(struct wal_io *io, int fd) {
    struct worker_io *w = worker_of(io);
    pthread_mutex_lock(&w->mutex);
    w->notify_fd = fd;
    pthread_mutex_unlock(&w->mutex);
    return 0;
}

static void worker_add_counters(struct wal_io *io, struct wal_io_counters *total) {
    wal_io_count(worker_of(io)->base, total);
}

/*
 * The worker finishes what it has in hands. What nobody has begun is dropped: only a log that is
 * let go without a sync still has any, and nobody was told that it is durable.
 */
static void worker_destroy(struct wal_io *io) {
    struct worker_io *w = worker_of(io);
    if (wal_fork_generation() == w->fork_generation) {
        pthread_mutex_lock(&w->mutex);
        w->stopping = 1;
        pthread_mutex_unlock(&w->mutex);
        pthread_cond_signal(&w->posted);
        if (w->worker_started) (void)pthread_join(w->worker, NULL);
        assert(w->reaper_file == NO_FILE && w->worker_file == NO_FILE);
        (void)pthread_cond_destroy(&w->posted);
        (void)pthread_cond_destroy(&w->finished);
        (void)pthread_mutex_destroy(&w->mutex);
        wal_free(w->queue); /* in a child they may be half-way through a realloc of the parent's */
        wal_free(w->done);
    }
    wal_io_destroy(w->base);
    wal_free(w);
}

/* ---- all else is the base's ------------------------------------------------------------------ */

static struct wal_io *base_of(struct wal_io *io) { return worker_of(io)->base; }

static int worker_open(struct wal_io *io, const char *name, unsigned flags) {
    int file = base_of(io)->ops->open(base_of(io), name, flags);
    wal_io_warn(io, wal_io_warnings(base_of(io)));
    return file;
}

/* Its number may be another file's in a moment: nobody may come back to it. */
static void let_go_of(struct worker_io *w, int file) {
    pthread_mutex_lock(&w->mutex);
    size_t left = 0;
    for (size_t i = 0; i < w->queue_count; i++) {
        if (w->queue[i].file != file) {
            w->queue[left++] = w->queue[i];
            continue;
        }
        w->done[w->done_count++] =
            (struct wal_io_completion){.token = w->queue[i].token, .result = -ECANCELED};
    }
    w->queue_count = left;
    w->waiters++;
    while (w->worker_file == file) (void)pthread_cond_wait(&w->finished, &w->mutex);
    w->waiters--;
    unlock_and_wake_waiters(w);
}

static int worker_close(struct wal_io *io, int file) {
    struct worker_io *w = worker_of(io);
    if (wal_fork_generation() == w->fork_generation) let_go_of(w, file);
    return base_of(io)->ops->close(base_of(io), file);
}

static int worker_stat(struct wal_io *io, int file, struct wal_io_stat *stat) {
    return base_of(io)->ops->stat(base_of(io), file, stat);
}

static int64_t worker_read(struct wal_io *io, int file, uint64_t offset, void *data, size_t bytes) {
    return base_of(io)->ops->read(base_of(io), file, offset, data, bytes);
}

static int64_t worker_write(struct wal_io *io, int file, uint64_t offset, const struct iovec *parts,
                            int count) {
    return base_of(io)->ops->write(base_of(io), file, offset, parts, count);
}

static int worker_sync(struct wal_io *io, int file) {
    return base_of(io)->ops->sync(base_of(io), file);
}

static int worker_allocate(struct wal_io *io, int file, uint64_t bytes) {
    return base_of(io)->ops->allocate(base_of(io), file, bytes);
}

static int worker_truncate(struct wal_io *io, int file, uint64_t bytes) {
    return base_of(io)->ops->truncate(base_of(io), file, bytes);
}

static int64_t worker_next_data(struct wal_io *io, int file, uint64_t offset, uint64_t *end) {
    return base_of(io)->ops->next_data(base_of(io), file, offset, end);
}

static int worker_rename(struct wal_io *io, const char *from, const char *to) {
    return base_of(io)->ops->rename(base_of(io), from, to);
}

static int worker_unlink(struct wal_io *io, const char *name) {
    return base_of(io)->ops->unlink(base_of(io), name);
}

static int worker_sync_dir(struct wal_io *io) { return base_of(io)->ops->sync_dir(base_of(io)); }

static int worker_list(struct wal_io *io, struct wal_io_name **names, size_t *count) {
    return base_of(io)->ops->list(base_of(io), names, count);
}

static int worker_lock(struct wal_io *io, int64_t *holder_pid) {
    return base_of(io)->ops->lock(base_of(io), holder_pid);
}

static const struct wal_io_ops worker_ops = {
    .open = worker_open,
    .close = worker_close,
    .stat = worker_stat,
    .read = worker_read,
    .write = worker_write,
    .sync = worker_sync,
    .allocate = worker_allocate,
    .truncate = worker_truncate,
    .next_data = worker_next_data,
    .rename = worker_rename,
    .unlink = worker_unlink,
    .sync_dir = worker_sync_dir,
    .list = worker_list,
    .lock = worker_lock,
    .submit = worker_submit,
    .reap = worker_reap,
    .notify = worker_notify,
    .add_counters = worker_add_counters,
    .destroy = worker_destroy,
};

int wal_io_worker_wrap(struct wal_io *base, struct wal_io **io) {
    assert(base->ops->submit == NULL);
    struct worker_io *w = wal_calloc(1, sizeof *w);
    if (w == NULL) return -ENOMEM;
    w->io.ops = &worker_ops;
    w->io.warnings = wal_io_warnings(base);
    w->base = base;
    w->fork_generation = wal_fork_generation();
    w->reaper_file = w->worker_file = NO_FILE;
    w->notify_fd = -1;
    if (reserve(w) < 0) { /* room for the first requests: a commit should not fail for memory */
        wal_free(w->queue);
        wal_free(w);
        return -ENOMEM;
    }
    pthread_condattr_t attributes;
    (void)pthread_condattr_init(&attributes);
#ifndef __APPLE__
    (void)pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
#endif
    (void)pthread_mutex_init(&w->mutex, NULL);
    (void)pthread_cond_init(&w->posted, &attributes);
    (void)pthread_cond_init(&w->finished, &attributes);
    (void)pthread_condattr_destroy(&attributes);
    *io = &w->io;
    return 0;
}
