/* What the parts of the ring know of each other and nobody else needs. */
#ifndef WALENGINE_RING_LIBURING_H
#define WALENGINE_RING_LIBURING_H

#include "ring.h"

/* Behind queue_mmap: complete liburing's ring. -1: its struct is not the one we know. */
int wal_ring_liburing_finish(void *state, int fd, const struct uring_params *params);

/* Buffers could not be registered: note it, with the remedy, in info. */
void wal_ring_explain_buffers(wal_backend_info *info, int os_error);

#endif
