/* What the io_uring backend tells beyond the seam. */
#ifndef WALENGINE_IO_URING_H
#define WALENGINE_IO_URING_H

#include "io.h"
#include "walengine.h"

/*
 * What the backend has come to be by now; io is what wal_io_uring_wrap made. registered_buffers and
 * more fallbacks are known once wal_io_register_buffers was called and files were opened.
 */
void wal_io_uring_info(struct wal_io *io, wal_backend_info *info);

#endif
