/*
 * The io_uring backend of the I/O seam: requests and every sync of a file go through a ring; all
 * else is the base's, which is io_posix.c's. A small append is far cheaper by pwrite.
 *
 * Fork. The ring's descriptor is adopted by the base, whose atfork handler closes it in the child,
 * and its mappings are not inherited: a child would keep the ring, and the registered files with
 * it, alive after the parent's death. Destroying the io in the child frees memory and nothing else.
 */
#include "io_uring.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "error.h"
#include "hooks.h"
#include "io_posix.h"
#include "log.h"
#include "ring_engine.h"
#include "ring_liburing.h"

#ifdef __linux__

enum { PAGE_BYTES = 4096 };

struct uring_io {
    struct wal_io io;
    struct wal_io *base;
    uint64_t fork_generation;
    wal_backend_info info; /* the engine's mutex guards it */
    struct wal_engine engine;
};

static struct uring_io *uring_of(struct wal_io *io) { return (struct uring_io *)io; }

static struct wal_io *base_of(struct wal_io *io) { return uring_of(io)->base; }

/* ---- verbs that the ring does ---------------------------------------------------------------- */

/* A file is used by its descriptor: the table is full, or there is none. */
static void note_plain_file(struct uring_io *u) {
    u->info.fallbacks |= WAL_FALLBACK_FILES;
    if (u->info.reason[0] != '\0') return;
    (void)snprintf(u->info.reason, sizeof u->info.reason,
                   "more than %d files are open: some are not registered", WAL_RING_FILES);
}

static int uring_open(struct wal_io *io, const char *name, unsigned flags) {
    struct uring_io *u = uring_of(io);
    int file = u->base->ops->open(u->base, name, flags);
    wal_io_warn(io, wal_io_warnings(u->base)); /* opening is where they are found out */
    if (file < 0) return file;
    pthread_mutex_lock(&u->engine.mutex);
    int result = wal_engine_add_file(&u->engine, file, (flags & WAL_IO_WRITE) != 0,
                                     (flags & WAL_IO_DIRECT) != 0);
    if (result > 0) note_plain_file(u);
    pthread_mutex_unlock(&u->engine.mutex);
    if (result >= 0) return file;
    (void)u->base->ops->close(u->base, file);
    return result;
}

static int uring_close(struct wal_io *io, int file) {
    struct uring_io *u = uring_of(io);
    pthread_mutex_lock(&u->engine.mutex);
    wal_engine_remove_file(&u->engine, file);
    pthread_mutex_unlock(&u->engine.mutex);
    return u->base->ops->close(u->base, file);
}

static int uring_sync(struct wal_io *io, int file) {
    struct wal_io_request request = {.kind = WAL_IO_SYNC, .file = file};
    return wal_engine_perform(&uring_of(io)->engine, &request);
}

/* The first part only, and all of it; the caller comes back for the others. */
static int64_t uring_write_durable(struct wal_io *io, int file, uint64_t offset,
                                   const struct iovec *parts, int count) {
    if (count < 1 || parts[0].iov_len == 0) return -EOPNOTSUPP;
    uint64_t misaligned = offset | parts[0].iov_len | (uintptr_t)parts[0].iov_base;
    if (misaligned % PAGE_BYTES != 0) return -EOPNOTSUPP; /* base copies it to aligned memory */
    struct wal_io_request request = {.kind = WAL_IO_WRITE_DURABLE,
                                     .file = file,
                                     .offset = offset,
                                     .data = parts[0].iov_base,
                                     .bytes = parts[0].iov_len};
    int result = wal_engine_perform(&uring_of(io)->engine, &request);
    return result < 0 ? result : (int64_t)parts[0].iov_len;
}

static int uring_submit(struct wal_io *io, const struct wal_io_request *request) {
    return wal_engine_submit(&uring_of(io)->engine, request);
}

static int uring_reap(struct wal_io *io, struct wal_io_completion *completions, int max,
                      int64_t wait_ns, unsigned flags) {
    return wal_engine_reap(&uring_of(io)->engine, completions, max, wait_ns, flags);
}

static int uring_notify(struct wal_io *io, int fd) {
    return wal_engine_notify(&uring_of(io)->engine, fd);
}

static int uring_register_buffers(struct wal_io *io, void *memory, size_t bytes, unsigned count) {
    struct uring_io *u = uring_of(io);
    assert(bytes % PAGE_BYTES == 0 && (uintptr_t)memory % PAGE_BYTES == 0);
    if (count == 0 || bytes == 0 || count > UINT16_MAX) return 0;
    struct iovec *parts = wal_calloc(count, sizeof *parts);
    if (parts == NULL) return -ENOMEM;
    for (unsigned i = 0; i < count; i++) {
        parts[i] = (struct iovec){.iov_base = (char *)memory + i * bytes, .iov_len = bytes};
    }
    struct wal_engine *e = &u->engine;
    pthread_mutex_lock(&e->mutex);
    assert(e->memory == NULL);
    int result = wal_ring_register_buffers(&e->ring, parts, count);
    if (result < 0) {
        wal_ring_explain_buffers(&u->info, -result);
    } else {
        e->memory = memory;
        e->buffer_bytes = bytes;
        e->memory_bytes = bytes * count;
        u->info.registered_buffers = count;
    }
    pthread_mutex_unlock(&e->mutex);
    wal_free(parts);
    return result < 0 ? result : 0;
}

static void uring_add_counters(struct wal_io *io, struct wal_io_counters *total) {
    struct uring_io *u = uring_of(io);
    wal_io_count(u->base, total);
    if (u->fork_generation != wal_fork_generation()) return; /* the rings are not mapped here */
    total->cqe_overflows += __atomic_load_n(u->engine.cq_overflow, __ATOMIC_RELAXED);
    total->sq_dropped += __atomic_load_n(u->engine.sq_dropped, __ATOMIC_RELAXED);
}

void wal_io_uring_info(struct wal_io *io, wal_backend_info *info) {
    struct uring_io *u = uring_of(io);
    pthread_mutex_lock(&u->engine.mutex);
    *info = u->info;
    pthread_mutex_unlock(&u->engine.mutex);
}

/* Between forget and the end of close the number must not be another file's, nor a child's. */
static void close_ring(struct uring_io *u) {
    wal_io_posix_hold_forks();
    wal_io_posix_forget(u->base, u->engine.ring.fd);
    wal_ring_close(&u->engine.ring);
    wal_io_posix_let_forks();
}

static void uring_destroy(struct wal_io *io) {
    struct uring_io *u = uring_of(io);
    if (u->fork_generation == wal_fork_generation()) {
        wal_engine_drain(&u->engine);
        wal_engine_remove_file(&u->engine, wal_io_posix_lock_file(u->base));
        close_ring(u);
    }
    wal_engine_free(&u->engine);
    wal_io_destroy(u->base);
    wal_free(u);
}

/* ---- verbs that the base does ---------------------------------------------------------------- */

static int uring_stat(struct wal_io *io, int file, struct wal_io_stat *stat) {
    return base_of(io)->ops->stat(base_of(io), file, stat);
}

static int64_t uring_read(struct wal_io *io, int file, uint64_t offset, void *data, size_t bytes) {
    return base_of(io)->ops->read(base_of(io), file, offset, data, bytes);
}

static int64_t uring_write(struct wal_io *io, int file, uint64_t offset, const struct iovec *parts,
                           int count) {
    return base_of(io)->ops->write(base_of(io), file, offset, parts, count);
}

static int uring_allocate(struct wal_io *io, int file, uint64_t bytes) {
    return base_of(io)->ops->allocate(base_of(io), file, bytes);
}

static int uring_truncate(struct wal_io *io, int file, uint64_t bytes) {
    return base_of(io)->ops->truncate(base_of(io), file, bytes);
}

static int64_t uring_next_data(struct wal_io *io, int file, uint64_t offset, uint64_t *end) {
    return base_of(io)->ops->next_data(base_of(io), file, offset, end);
}

static int uring_rename(struct wal_io *io, const char *from, const char *to) {
    return base_of(io)->ops->rename(base_of(io), from, to);
}

static int uring_unlink(struct wal_io *io, const char *name) {
    return base_of(io)->ops->unlink(base_of(io), name);
}

static int uring_sync_dir(struct wal_io *io) { return base_of(io)->ops->sync_dir(base_of(io)); }

static int uring_list(struct wal_io *io, struct wal_io_name **names, size_t *count) {
    return base_of(io)->ops->list(base_of(io), names, count);
}

/*
 * The ring holds the lock as well. A process that is killed does not wait for its direct writes: on
 * a slow disk they would still land when somebody else has taken the lock, recovered and gone on in
 * the same segment. The kernel keeps a ring's files until the ring has nothing in flight any more.
 */
static int uring_lock(struct wal_io *io, int64_t *holder_pid) {
    struct uring_io *u = uring_of(io);
    int result = u->base->ops->lock(u->base, holder_pid);
    if (result < 0) return result;
    pthread_mutex_lock(&u->engine.mutex);
    int added = wal_engine_add_file(&u->engine, wal_io_posix_lock_file(u->base), 1, 0);
    pthread_mutex_unlock(&u->engine.mutex);
    return added < 0 ? added : result;
}

static const struct wal_io_ops uring_ops = {
    .open = uring_open,
    .close = uring_close,
    .stat = uring_stat,
    .read = uring_read,
    .write = uring_write,
    .sync = uring_sync,
    .write_durable = uring_write_durable,
    .allocate = uring_allocate,
    .truncate = uring_truncate,
    .next_data = uring_next_data,
    .rename = uring_rename,
    .unlink = uring_unlink,
    .sync_dir = uring_sync_dir,
    .list = uring_list,
    .lock = uring_lock,
    .submit = uring_submit,
    .reap = uring_reap,
    .notify = uring_notify,
    .register_buffers = uring_register_buffers,
    .add_counters = uring_add_counters,
    .destroy = uring_destroy,
};

/* ---- making one ------------------------------------------------------------------------------ */

/* Open the ring and have base close it in children; no fork can come in between. */
static int open_ring(struct uring_io *u, const wal_ring_options *options, wal_backend_info *info,
                     wal_error *error) {
    struct wal_ring *ring = &u->engine.ring;
    wal_io_posix_hold_forks();
    int result = wal_ring_open(ring, options, info, error);
    if (result == 0) {
        result = wal_io_posix_adopt(u->base, ring->fd);
        if (result < 0) {
            wal_ring_close(ring);
            (void)wal_fail(error, result, WAL_NOWHERE, "too many files are open in this log");
        }
    }
    wal_io_posix_let_forks();
    return result;
}

static void register_files(struct uring_io *u) {
    int result = wal_engine_register_files(&u->engine);
    if (result == 0) {
        u->info.registered_files = WAL_RING_FILES;
        return;
    }
    u->info.fallbacks |= WAL_FALLBACK_FILES;
    if (u->info.os_error == 0) u->info.os_error = -result;
    if (u->info.reason[0] != '\0') return;
    (void)snprintf(u->info.reason, sizeof u->info.reason,
                   "the kernel refused registered files (%s); entries name descriptors",
                   strerror(-result));
}

int wal_io_uring_wrap(struct wal_io *base, const wal_ring_options *options, struct wal_io **io,
                      wal_backend_info *info, wal_error *error) {
    assert(base != NULL && options != NULL && io != NULL && info != NULL);
    struct uring_io *u = wal_calloc(1, sizeof *u);
    if (u == NULL) return wal_fail(error, -ENOMEM, WAL_NOWHERE, "out of memory");
    u->io.ops = &uring_ops;
    u->io.warnings = wal_io_warnings(base);
    u->base = base;
    u->fork_generation = wal_fork_generation();
    int result = open_ring(u, options, info, error);
    if (result == 0) {
        result = wal_engine_init(&u->engine, &u->io.counters, options->max_inflight);
        if (result < 0) {
            close_ring(u);
            (void)wal_fail(error, result, WAL_NOWHERE, "no memory for the ring's tables");
        }
    }
    if (result < 0) {
        wal_free(u);
        return result;
    }
    u->info = *info;
    register_files(u);
    if (options->direct_io && !u->engine.has_slots) { /* see uring_lock */
        int os_error = u->info.os_error;
        wal_engine_drain(&u->engine);
        close_ring(u);
        wal_engine_free(&u->engine);
        wal_free(u);
        (void)wal_fail(error, WAL_E_NO_IO_URING, WAL_NOWHERE, "%s", WAL_RING_NEEDS_FILES);
        if (error != NULL) error->os_error = os_error;
        return WAL_E_NO_IO_URING;
    }
    *info = u->info;
    *io = &u->io;
    return 0;
}

#else

void wal_io_uring_info(struct wal_io *io, wal_backend_info *info) {
    (void)io;
    memset(info, 0, sizeof *info);
}

int wal_io_uring_wrap(struct wal_io *base, const wal_ring_options *options, struct wal_io **io,
                      wal_backend_info *info, wal_error *error) {
    (void)base;
    (void)io;
    struct wal_ring ring;
    return wal_ring_open(&ring, options, info, error);
}

#endif
