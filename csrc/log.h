/*
 * Entry points below the path-level API: the same writer and reader over any struct wal_io.
 * The path-level functions are these with io_posix.c's directory; the test suites use theirs.
 */
#ifndef WALENGINE_LOG_H
#define WALENGINE_LOG_H

#include "io.h"
#include "walengine.h"

/* Both take ownership of io: it is destroyed by close, or before a failing call returns. */
int wal_writer_open_io(struct wal_io *io, const wal_options *options, wal_writer **writer,
                       wal_report *report, wal_error *error);
int wal_reader_open_io(struct wal_io *io, uint32_t recovery_mode, wal_reader **reader,
                       wal_report *report, wal_error *error);

/* io_posix.c: open (with create: make, mode 0700, parent synced) the directory path. */
enum { WAL_DIR_WRITER = 1, WAL_DIR_CREATE = 2, WAL_DIR_SHARED = 4 };
int wal_io_posix_open(const char *path, unsigned flags, struct wal_io **io, wal_error *error);

/* io_worker.c: requests for a backend without a ring, done by who reaps or by one thread. */
int wal_io_worker_wrap(struct wal_io *base, struct wal_io **io);

/*
 * io_uring.c: requests and syncs through a ring; all else by base. *io owns base; on failure base
 * is still the caller's, *error and *info say why, and the result is WAL_E_NO_IO_URING or -ENOMEM.
 */
int wal_io_uring_wrap(struct wal_io *base, const wal_ring_options *options, struct wal_io **io,
                      wal_backend_info *info, wal_error *error);

/* io_fault.c: misbehave as wal_fault_set says, on top of base (owned). */
int wal_io_fault_wrap(struct wal_io *base, struct wal_io **io);

#endif
