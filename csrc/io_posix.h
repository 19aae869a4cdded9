/* What the pwrite backend tells about fork: handles of an older generation belong to the parent. */
#ifndef WALENGINE_IO_POSIX_H
#define WALENGINE_IO_POSIX_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif

#include <stdint.h>

/* Counts the forks that this process is the child of, since the library was loaded. */
uint64_t wal_fork_generation(void);

#endif
