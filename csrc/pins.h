/*
 * Segments that a cursor of this process is reading. A pinned segment is not recycled but
 * unlinked: the cursor's descriptor keeps the old file alive, and nobody writes into it.
 */
#ifndef WALENGINE_PINS_H
#define WALENGINE_PINS_H

#include <stdint.h>

/* 1: pinned; 0: the table is full, and only the salt check protects the reader. */
int wal_pin(const uint8_t log_uuid[16], uint64_t segment_id);
void wal_unpin(const uint8_t log_uuid[16], uint64_t segment_id);
int wal_is_pinned(const uint8_t log_uuid[16], uint64_t segment_id);

/* A child inherits the table; its mutex must not be another thread's then. */
void wal_pins_before_fork(void);
void wal_pins_after_fork(void);

#endif
