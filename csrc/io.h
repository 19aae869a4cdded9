/*
 * The one seam for I/O. The log core reaches files through this table and nothing else, so that
 * any operation can be made to fail, tear, shorten or lie in a test.
 *
 * A struct wal_io stands for one directory: names are relative to it and never contain a slash.
 * Files are small integers (descriptors where there is a kernel behind). Every verb returns >= 0
 * or -errno, and none retries anything: finishing short writes and EINTR is io.c's business, above
 * the seam, where the tests reach it.
 *
 * Implementations: io_posix.c (pwrite, fdatasync), io_fault.c (wraps another one and misbehaves as
 * told), and the simulated disk of the test suites, which remembers what a power cut may undo.
 */
#ifndef WALENGINE_IO_H
#define WALENGINE_IO_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct wal_io;

struct wal_io_counters {
    uint64_t ops_submitted; /* system calls; on a ring, entries */
    uint64_t ops_completed;
    uint64_t bytes_written;
    uint64_t bytes_read;
    uint64_t ring_ops[6]; /* by enum wal_ring_op */
    uint64_t cqe_overflows;
    uint64_t sq_dropped;
};

/* Flags of open. */
enum {
    WAL_IO_READ = 1,
    WAL_IO_WRITE = 2,    /* read and write */
    WAL_IO_CREATE = 4,   /* must not exist yet (O_EXCL), mode 0600 */
    WAL_IO_UNCACHED = 8, /* reads come from the device: O_DIRECT, or the cache is dropped first */
    WAL_IO_DIRECT = 16,  /* writes go past the page cache; -EINVAL where the filesystem cannot,
                            -EOPNOTSUPP where their own sync is not known to reach the device */
};

/*
 * A request is what takes long: it makes bytes durable. It is begun by submit and done when reap
 * hands out its completion; in between, data is the backend's. Requests finish in any order.
 */
enum wal_io_kind {
    WAL_IO_SYNC = 1,          /* fdatasync: all writes to this file that have returned */
    WAL_IO_WRITE_SYNC = 2,    /* the write, then fdatasync once it is whole */
    WAL_IO_WRITE_DURABLE = 3, /* to a WAL_IO_DIRECT file: these bytes, and no others, are synced */
};

struct wal_io_request {
    enum wal_io_kind kind;
    int file;
    uint64_t offset; /* with bytes and data: multiples of 4096 for WRITE_DURABLE */
    const void *data;
    size_t bytes;
    uint64_t token; /* comes back with the completion */
};

struct wal_io_completion {
    uint64_t token;
    int result; /* 0: whole and durable; else -errno, final: nothing of it is retried */
};

/* Flags of reap. */
enum {
    WAL_IO_MAY_BLOCK = 1, /* the caller may sit in a sync itself: no signal has to interrupt it */
};

struct wal_io_stat {
    uint64_t bytes;
    uint64_t inode;
    uint32_t is_regular;
    uint32_t is_ours; /* owned by the effective user, one link */
};

struct wal_io_name {
    char text[64];       /* longer names are not ours and are left out */
    uint32_t is_regular; /* 0: a directory, symlink, FIFO, ... */
};

struct wal_io_ops {
    /* Open a file without following symlinks; the result is its descriptor. */
    int (*open)(struct wal_io *io, const char *name, unsigned flags);
    int (*close)(struct wal_io *io, int file);
    int (*stat)(struct wal_io *io, int file, struct wal_io_stat *stat);

    /* One pread / pwritev / fdatasync each; read and write return the bytes done, maybe fewer. */
    int64_t (*read)(struct wal_io *io, int file, uint64_t offset, void *data, size_t bytes);
    int64_t (*write)(struct wal_io *io, int file, uint64_t offset, const struct iovec *parts,
                     int count);
    int (*sync)(struct wal_io *io, int file);

    /*
     * One pwritev2 with RWF_DSYNC: the bytes done, and they are synced. Any failure is final, but
     * -EOPNOTSUPP: nothing was done, and write with sync has to serve. So it has where this is
     * NULL.
     */
    int64_t (*write_durable)(struct wal_io *io, int file, uint64_t offset,
                             const struct iovec *parts, int count);

    /* Reserve the first bytes of the file; they read as zeros. -ENOSPC belongs here. */
    int (*allocate)(struct wal_io *io, int file, uint64_t bytes);
    int (*truncate)(struct wal_io *io, int file, uint64_t bytes);

    /*
     * First offset >= offset that may hold data; the file's size where only holes follow. *end is
     * where that data ends, UINT64_MAX where nobody knows. Who asks is about to look at a file here
     * and there: nothing should be read ahead of it.
     */
    int64_t (*next_data)(struct wal_io *io, int file, uint64_t offset, uint64_t *end);

    /* Rename, never over an existing name (-EEXIST). */
    int (*rename)(struct wal_io *io, const char *from, const char *to);
    int (*unlink)(struct wal_io *io, const char *name);
    int (*sync_dir)(struct wal_io *io);

    /* All names that fit; *names is from wal_alloc.h's allocator and the caller's to free. */
    int (*list)(struct wal_io *io, struct wal_io_name **names, size_t *count);

    /* Take the directory's LOCK; -EWOULDBLOCK: *holder_pid has it (0: unknown). */
    int (*lock)(struct wal_io *io, int64_t *holder_pid);

    /*
     * Begin a request: 0, or -errno, and then nothing of it was begun. Never waits for the device.
     * NULL, with reap: io.c does each request in submit, with write and sync.
     */
    int (*submit)(struct wal_io *io, const struct wal_io_request *request);

    /*
     * Up to max completions; 0: there was none within wait_ns (0: just look; negative: no limit),
     * or nothing is under way; -EINTR: a signal came first. By one thread at a time.
     */
    int (*reap)(struct wal_io *io, struct wal_io_completion *completions, int max, int64_t wait_ns,
                unsigned flags);

    /*
     * The memory that requests will mostly come from: count buffers of bytes each, back to back,
     * page aligned, there until destroy. A failure costs speed only. NULL: nothing to be gained.
     */
    int (*register_buffers)(struct wal_io *io, void *memory, size_t bytes, unsigned count);

    /*
     * From now on raise fd (wal_raise) when reap might have something to hand out, or to do; -1: no
     * more. NULL: submit leaves nothing to wait for.
     */
    int (*notify)(struct wal_io *io, int fd);

    /* Add what the layers below have counted to *total, which is zero. NULL: there are none. */
    void (*add_counters)(struct wal_io *io, struct wal_io_counters *total);

    /* Close everything that is still open, let the lock go, free io. */
    void (*destroy)(struct wal_io *io);
};

enum { WAL_IO_DONE_MAX = 64 };

struct wal_io {
    const struct wal_io_ops *ops;
    struct wal_io_counters counters; /* of this layer, kept with atomic adds */
    uint32_t warnings;               /* enum wal_warning bits; wal_io_warn adds to them */
    /* Where the backend has no submit: completions that wait to be reaped. */
    struct wal_io_completion done[WAL_IO_DONE_MAX];
    int done_count;
};

/* Any thread may find something out while it opens a file. */
static inline void wal_io_warn(struct wal_io *io, uint32_t bits) {
    if (bits != 0) __atomic_fetch_or(&io->warnings, bits, __ATOMIC_RELAXED);
}

static inline uint32_t wal_io_warnings(struct wal_io *io) {
    return __atomic_load_n(&io->warnings, __ATOMIC_RELAXED);
}

/* ---- io.c: the verbs as the core calls them -------------------------------------------------- */

/* Write all of parts: finishes short writes, EINTR and EAGAIN; a write of 0 bytes is -EIO. */
int wal_io_write(struct wal_io *io, int file, uint64_t offset, const struct iovec *parts,
                 int count);

/* Write count zero bytes (a multiple of 4096 at a multiple of 4096). */
int wal_io_write_zeros(struct wal_io *io, int file, uint64_t offset, uint64_t count);

/* Read up to bytes; fewer only at the end of the file. Finishes short reads and EINTR. */
int64_t wal_io_read(struct wal_io *io, int file, uint64_t offset, void *data, size_t bytes);

/* One sync. Any failure is final: nothing is retried, EINTR included. */
int wal_io_sync(struct wal_io *io, int file);

/* Do a request here and now, with the verbs that block: its result. */
int wal_io_perform(struct wal_io *io, const struct wal_io_request *request);

/* Requests; see the verbs. Without submit at most WAL_IO_DONE_MAX are under way (-EBUSY). */
int wal_io_submit(struct wal_io *io, const struct wal_io_request *request);
int wal_io_reap(struct wal_io *io, struct wal_io_completion *completions, int max, int64_t wait_ns,
                unsigned flags);
int wal_io_register_buffers(struct wal_io *io, void *memory, size_t bytes, unsigned count);
int wal_io_notify(struct wal_io *io, int fd);

/* Write a u64 1 to fd, an eventfd or a pipe that does not block; -1: nobody is told. */
void wal_raise(int fd);

/* *total becomes the sum over io and all layers below it. */
void wal_io_count(struct wal_io *io, struct wal_io_counters *total);

int wal_io_open(struct wal_io *io, const char *name, unsigned flags);
void wal_io_close(struct wal_io *io, int file);
int wal_io_stat(struct wal_io *io, int file, struct wal_io_stat *stat);
int wal_io_allocate(struct wal_io *io, int file, uint64_t bytes);
int wal_io_truncate(struct wal_io *io, int file, uint64_t bytes);
int64_t wal_io_next_data(struct wal_io *io, int file, uint64_t offset, uint64_t *end);
int wal_io_rename(struct wal_io *io, const char *from, const char *to);
int wal_io_unlink(struct wal_io *io, const char *name);
int wal_io_sync_dir(struct wal_io *io);
int wal_io_list(struct wal_io *io, struct wal_io_name **names, size_t *count);
int wal_io_lock(struct wal_io *io, int64_t *holder_pid);
void wal_io_destroy(struct wal_io *io);

#endif
