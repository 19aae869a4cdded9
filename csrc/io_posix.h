/*
 * What the pwrite backend tells about fork, and does at one for others: handles of an older
 * generation belong to the parent.
 */
#ifndef WALENGINE_IO_POSIX_H
#define WALENGINE_IO_POSIX_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif

#include <stdint.h>

/* Counts the forks that this process is the child of, since the library was loaded. */
uint64_t wal_fork_generation(void);

struct wal_io;

/*
 * A descriptor of somebody else that is to be closed in children like base's own: base is from
 * wal_io_posix_open, for a writer. Adopt and forget are called while forks are held, as is what
 * opens and closes the descriptor, so that no child can get it unseen. Neither closes it; adopt
 * answers -EMFILE where base has too many.
 */
void wal_io_posix_hold_forks(void);
void wal_io_posix_let_forks(void);
int wal_io_posix_adopt(struct wal_io *base, int fd);
void wal_io_posix_forget(struct wal_io *base, int fd);

/* The descriptor that holds the log's lock; -1: it is not taken. */
int wal_io_posix_lock_file(const struct wal_io *base);

#endif
