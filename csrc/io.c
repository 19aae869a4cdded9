/*
 * The verbs of the I/O seam as the core calls them: counted, and finished where the kernel
 * stopped half-way.
 *
 * Short writes, EINTR and EAGAIN of anything but a sync are no failures: the rest is done here. A
 * sync is different. After a failed sync the kernel has marked the pages clean, and the second
 * sync returns 0 while the data is gone; so whatever a sync returns is final, EINTR included.
 */
#include "io.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "hooks.h"
#include "walengine.h"

enum { WAL_IO_PARTS_MAX = 8, WAL_IO_RETRIES_MAX = 1000, WAL_IO_ZEROS_BYTES = 1 << 18 };

static void count(uint64_t *counter, uint64_t amount) {
    __atomic_fetch_add(counter, amount, __ATOMIC_RELAXED);
}

static int is_passing(int64_t result) { return result == -EINTR || result == -EAGAIN; }

/* Drop the first done bytes of parts; returns how many parts are left, shifted to the front. */
static int advance(struct iovec *parts, int total, size_t done) {
    int first = 0;
    while (first < total && done >= parts[first].iov_len) done -= parts[first++].iov_len;
    if (first < total) {
        parts[first].iov_base = (char *)parts[first].iov_base + done;
        parts[first].iov_len -= done;
    }
    memmove(parts, parts + first, (size_t)(total - first) * sizeof *parts);
    return total - first;
}

int wal_io_write(struct wal_io *io, int file, uint64_t offset, const struct iovec *parts,
                 int total) {
    struct iovec left[WAL_IO_PARTS_MAX];
    if (total > WAL_IO_PARTS_MAX) return -EINVAL;
    memcpy(left, parts, (size_t)total * sizeof *left);
    total = advance(left, total, 0);
    for (int tries = 0; total > 0; tries++) {
        count(&io->counters.ops_submitted, 1);
        int64_t done = io->ops->write(io, file, offset, left, total);
        count(&io->counters.ops_completed, 1);
        if (done == 0 || tries >= WAL_IO_RETRIES_MAX) return -EIO;
        if (is_passing(done)) continue;
        if (done < 0) return (int)done;
        count(&io->counters.bytes_written, (uint64_t)done);
        if (WAL_MUTANT(M8_SHORT_WRITE_IS_FULL)) return 0;
        offset += (uint64_t)done;
        total = advance(left, total, (size_t)done);
        tries = 0;
    }
    return 0;
}

int wal_io_write_zeros(struct wal_io *io, int file, uint64_t offset, uint64_t bytes) {
    static const _Alignas(4096) char zeros[WAL_IO_ZEROS_BYTES];
    while (bytes > 0) {
        struct iovec part = {.iov_base = (void *)(uintptr_t)zeros,
                             .iov_len = bytes < sizeof zeros ? (size_t)bytes : sizeof zeros};
        int result = wal_io_write(io, file, offset, &part, 1);
        if (result < 0) return result;
        offset += part.iov_len;
        bytes -= part.iov_len;
    }
    return 0;
}

int64_t wal_io_read(struct wal_io *io, int file, uint64_t offset, void *data, size_t bytes) {
    size_t done = 0;
    for (int tries = 0; done < bytes; tries++) {
        count(&io->counters.ops_submitted, 1);
        int64_t got = io->ops->read(io, file, offset + done, (char *)data + done, bytes - done);
        count(&io->counters.ops_completed, 1);
        if (tries >= WAL_IO_RETRIES_MAX) return -EIO;
        if (is_passing(got)) continue;
        if (got < 0) return got;
        if (got == 0) break;
        count(&io->counters.bytes_read, (uint64_t)got);
        done += (size_t)got;
        tries = 0;
    }
    return (int64_t)done;
}

int wal_io_sync(struct wal_io *io, int file) {
    count(&io->counters.ops_submitted, 1);
    int result = io->ops->sync(io, file);
    count(&io->counters.ops_completed, 1);
    return result;
}

/* ---- requests -------------------------------------------------------------------------------- */

/* What was written of it is synced already; the rest of a short write needs its own. */
static int write_durable(struct wal_io *io, const struct wal_io_request *request) {
    size_t done = 0;
    while (done < request->bytes) {
        struct iovec part = {.iov_base = (char *)(uintptr_t)request->data + done,
                             .iov_len = request->bytes - done};
        count(&io->counters.ops_submitted, 1);
        int64_t more = io->ops->write_durable(io, request->file, request->offset + done, &part, 1);
        count(&io->counters.ops_completed, 1);
        if (more <= 0) return more == 0 ? -EIO : (int)more;
        count(&io->counters.bytes_written, (uint64_t)more);
        done += (size_t)more;
    }
    return 0;
}

int wal_io_perform(struct wal_io *io, const struct wal_io_request *request) {
    if (request->kind == WAL_IO_WRITE_DURABLE && io->ops->write_durable != NULL) {
        int result = write_durable(io, request);
        if (result != -EOPNOTSUPP) return result;
    }
    if (request->kind != WAL_IO_SYNC) {
        struct iovec part = {.iov_base = (void *)(uintptr_t)request->data,
                             .iov_len = request->bytes};
        int result = wal_io_write(io, request->file, request->offset, &part, 1);
        if (result < 0) return result;
    }
    return wal_io_sync(io, request->file);
}

/*
 * A backend without submit: requests are done as they are submitted, and io->done keeps their
 * completions. A place there is taken first, so that nothing is done that could not be told.
 * done_mutex serves all of them: it is held for some loads and stores, never during I/O.
 */
enum { UNFINISHED = 1 }; /* as a result: the place is taken, the request is being done */

static pthread_mutex_t done_mutex = PTHREAD_MUTEX_INITIALIZER;

static int done_reserve(struct wal_io *io, uint64_t token) {
    pthread_mutex_lock(&done_mutex);
    int result = io->done_count < WAL_IO_DONE_MAX ? 0 : -EBUSY;
    if (result == 0) {
        io->done[io->done_count++] =
            (struct wal_io_completion){.token = token, .result = UNFINISHED};
    }
    pthread_mutex_unlock(&done_mutex);
    return result;
}

static void done_finish(struct wal_io *io, uint64_t token, int result) {
    pthread_mutex_lock(&done_mutex);
    int at = 0; /* of two with the same token either will do: nobody can tell them apart */
    while (io->done[at].token != token || io->done[at].result != UNFINISHED) at++;
    assert(at < io->done_count);
    io->done[at].result = result;
    pthread_mutex_unlock(&done_mutex);
}

static int done_take(struct wal_io *io, struct wal_io_completion *completions, int max) {
    pthread_mutex_lock(&done_mutex);
    int taken = 0, left = 0;
    for (int i = 0; i < io->done_count; i++) {
        if (taken < max && io->done[i].result != UNFINISHED) {
            completions[taken++] = io->done[i];
        } else {
            io->done[left++] = io->done[i];
        }
    }
    io->done_count = left;
    pthread_mutex_unlock(&done_mutex);
    return taken;
}

int wal_io_submit(struct wal_io *io, const struct wal_io_request *request) {
    assert(request->kind >= WAL_IO_SYNC && request->kind <= WAL_IO_WRITE_DURABLE);
    assert(request->kind == WAL_IO_SYNC || (request->data != NULL && request->bytes > 0));
    if (io->ops->submit != NULL) return io->ops->submit(io, request);
    int result = done_reserve(io, request->token);
    if (result < 0) return result;
    done_finish(io, request->token, wal_io_perform(io, request));
    return 0;
}

int wal_io_reap(struct wal_io *io, struct wal_io_completion *completions, int max, int64_t wait_ns,
                unsigned flags) {
    assert(max > 0);
    if (io->ops->reap != NULL) return io->ops->reap(io, completions, max, wait_ns, flags);
    return done_take(io, completions, max);
}

int wal_io_register_buffers(struct wal_io *io, void *memory, size_t bytes, unsigned total) {
    if (io->ops->register_buffers == NULL) return 0;
    return io->ops->register_buffers(io, memory, bytes, total);
}

int wal_io_notify(struct wal_io *io, int fd) {
    return io->ops->notify == NULL ? 0 : io->ops->notify(io, fd);
}

/* A full pipe, or an eventfd at its limit, is raised already. */
void wal_raise(int fd) {
    static const uint64_t one = 1;
    if (fd < 0) return;
    ssize_t written;
    do {
        written = write(fd, &one, sizeof one);
    } while (written < 0 && errno == EINTR);
}

/* ---- what has been counted ------------------------------------------------------------------- */

static void add(uint64_t *total, uint64_t *counter) {
    *total += __atomic_load_n(counter, __ATOMIC_RELAXED);
}

void wal_io_count(struct wal_io *io, struct wal_io_counters *total) {
    *total = (struct wal_io_counters){0};
    if (io->ops->add_counters != NULL) io->ops->add_counters(io, total);
    struct wal_io_counters *own = &io->counters;
    add(&total->ops_submitted, &own->ops_submitted);
    add(&total->ops_completed, &own->ops_completed);
    add(&total->bytes_written, &own->bytes_written);
    add(&total->bytes_read, &own->bytes_read);
    for (int i = 0; i < WAL_RING_OP_COUNT; i++) add(&total->ring_ops[i], &own->ring_ops[i]);
    add(&total->cqe_overflows, &own->cqe_overflows);
    add(&total->sq_dropped, &own->sq_dropped);
}

/* ---- the other verbs ------------------------------------------------------------------------- */

/* Call a verb until it is through with EINTR and EAGAIN. */
#define FINISH(call)                                           \
    int64_t result = 0;                                        \
    for (int tries = 0; tries < WAL_IO_RETRIES_MAX; tries++) { \
        count(&io->counters.ops_submitted, 1);                 \
        result = (call);                                       \
        count(&io->counters.ops_completed, 1);                 \
        if (!is_passing(result)) break;                        \
    }

int wal_io_open(struct wal_io *io, const char *name, unsigned flags) {
    FINISH(io->ops->open(io, name, flags))
    return (int)result;
}

void wal_io_close(struct wal_io *io, int file) {
    if (file >= 0) (void)io->ops->close(io, file);
}

int wal_io_stat(struct wal_io *io, int file, struct wal_io_stat *stat) {
    return io->ops->stat(io, file, stat);
}

int wal_io_allocate(struct wal_io *io, int file, uint64_t bytes) {
    FINISH(io->ops->allocate(io, file, bytes))
    return (int)result;
}

int wal_io_truncate(struct wal_io *io, int file, uint64_t bytes) {
    FINISH(io->ops->truncate(io, file, bytes))
    return (int)result;
}

int64_t wal_io_next_data(struct wal_io *io, int file, uint64_t offset, uint64_t *end) {
    return io->ops->next_data(io, file, offset, end);
}

int wal_io_rename(struct wal_io *io, const char *from, const char *to) {
    FINISH(io->ops->rename(io, from, to))
    return (int)result;
}

int wal_io_unlink(struct wal_io *io, const char *name) {
    FINISH(io->ops->unlink(io, name))
    return (int)result;
}

int wal_io_sync_dir(struct wal_io *io) {
    count(&io->counters.ops_submitted, 1);
    int result = io->ops->sync_dir(io);
    count(&io->counters.ops_completed, 1);
    return result;
}

int wal_io_list(struct wal_io *io, struct wal_io_name **names, size_t *total) {
    return io->ops->list(io, names, total);
}

int wal_io_lock(struct wal_io *io, int64_t *holder_pid) { return io->ops->lock(io, holder_pid); }

void wal_io_destroy(struct wal_io *io) {
    if (io != NULL) io->ops->destroy(io);
}
