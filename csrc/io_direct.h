/* O_DIRECT, for io_posix.c: the flag, and what it asks of memory, offsets and lengths. */
#ifndef WALENGINE_IO_DIRECT_H
#define WALENGINE_IO_DIRECT_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif

#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#ifndef O_DIRECT
#define O_DIRECT 0
#endif

enum { WAL_DIRECT_ALIGNMENT = 4096 };

/* Set the flag; -EINVAL where the filesystem has no O_DIRECT in steps of 4096 bytes. */
int wal_direct_enter(int file);

/*
 * Is a write past the page cache with RWF_DSYNC known to be synced when it completes, at once or
 * later? magic is what statfs says.
 */
int wal_direct_syncs_itself(unsigned long magic);

/* Take the flag off a file that is read, and drop its pages from the cache. */
int wal_direct_leave(int file);

/* A pread of any bytes from a file with the flag. */
int64_t wal_direct_read_unaligned(int file, uint64_t offset, void *data, size_t bytes);

/* A pwritev of any bytes to a file with the flag: the bytes done, maybe fewer. */
int64_t wal_direct_write(int file, uint64_t offset, const struct iovec *parts, int count);

#endif
