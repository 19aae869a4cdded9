/* What readers and cursors share: the chain that was found, and who still uses it. */
#ifndef WALENGINE_READER_H
#define WALENGINE_READER_H

#include <stdatomic.h>
#include <stdint.h>

#include "chain.h"
#include "scan.h"
#include "walengine.h"

struct wal_reader {
    struct wal_io *io;
    struct wal_chain chain;
    uint32_t mode;
    atomic_uint users; /* the handle and every cursor; the last one out gives back the memory */
};

/* Open a segment of the chain; WAL_E_TRIMMED if its file is gone or has become another. */
int wal_reader_open_segment(struct wal_reader *reader, const struct wal_segment *segment,
                            wal_error *error);

/* Is the walk, at the segment's end, where the successor says that it ends, behind that frame? */
int wal_ends_as_recorded(const struct wal_chain *chain, size_t index, const struct wal_walk *walk);

#endif
