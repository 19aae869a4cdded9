/*
 * A ring: io_uring's queues, driven by one of two providers through the same table of functions.
 *
 * The table has liburing's own signatures, so that C liburing's functions go into it as they are
 * (ring_liburing.c), and ours for machines without it (ring_builtin.c). The ring's state is opaque
 * to everybody but its provider. What goes through the queues is the kernel's ABI (uring_abi.h):
 * entries are filled in here, the same way for both.
 *
 * Threads. One thread at a time gets and submits entries, and one at a time waits and reaps; the
 * two may be different ones at the same moment. Who calls sees to that (io_uring.c).
 */
#ifndef WALENGINE_RING_H
#define WALENGINE_RING_H

#include <signal.h>
#include <stdint.h>
#include <sys/uio.h>

#include "uring_abi.h"
#include "walengine.h"

enum {
    WAL_RING_STATE_BYTES = 512, /* liburing 2.15's struct io_uring has 216 */
    WAL_RING_FILES = 64,        /* places for registered files */
};

#define WAL_RING_NEEDS_FILES                                                                       \
    "the kernel refused registered files, and without them direct writes could outlive the log's " \
    "lock; use direct_io=False"

struct wal_ring_table {
    const char *name;                                            /* "liburing" or "builtin" */
    int (*setup)(unsigned entries, struct uring_params *params); /* a descriptor */
    int (*queue_mmap)(int fd, struct uring_params *params, void *ring);
    void (*queue_exit)(void *ring); /* closes the descriptor too */
    int (*ring_dontfork)(void *ring);
    struct uring_sqe *(*get_sqe)(void *ring); /* NULL: the queue is full */
    int (*submit)(void *ring);
    int (*wait_cqes)(void *ring, struct uring_cqe **cqe, unsigned count,
                     struct uring_timespec *timeout, sigset_t *mask);
    unsigned (*peek_batch_cqe)(void *ring, struct uring_cqe **cqes, unsigned count);
    void (*cq_advance)(void *ring, unsigned count);
    int (*register_buffers)(void *ring, const struct iovec *buffers, unsigned count);
    int (*register_files)(void *ring, const int *files, unsigned count);
    int (*register_files_update)(void *ring, unsigned at, const int *files, unsigned count);
    int (*register_probe)(void *ring, struct uring_probe *probe, unsigned count);
    int (*register_eventfd)(void *ring, int fd);
    int (*unregister_eventfd)(void *ring);
};

struct wal_ring {
    const struct wal_ring_table *table;
    struct uring_params params; /* as the kernel filled them in */
    int fd;                     /* -1: not open */
    _Alignas(64) unsigned char state[WAL_RING_STATE_BYTES];
};

/* The provider's table, or NULL (AUTO: liburing if it is loaded). version may be NULL. */
const struct wal_ring_table *wal_ring_table(uint32_t provider, const char **version);
const struct wal_ring_table *wal_ring_builtin(void);
const struct wal_ring_table *wal_ring_liburing(const char **version); /* NULL: not loaded */

/*
 * Set a ring up as options ask, with less where the kernel refuses (info->fallbacks says what), and
 * prove that it works: features, opcodes, a NOP. WAL_E_NO_IO_URING with the reason and the remedy.
 */
int wal_ring_open(struct wal_ring *ring, const wal_ring_options *options, wal_backend_info *info,
                  wal_error *error);
void wal_ring_close(struct wal_ring *ring);

/* -EMFILE where the process may not open so many: liburing would raise its limit for it. */
int wal_ring_register_files(struct wal_ring *ring, const int *files, unsigned count);

/* Where there is no memory because a ring was closed just now, wait for it. */
int wal_ring_register_buffers(struct wal_ring *ring, const struct iovec *buffers, unsigned count);

#endif
