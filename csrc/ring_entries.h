/* ring_entries.c, as ring_engine.c uses it; all under the engine's mutex. */
#ifndef WALENGINE_RING_ENTRIES_H
#define WALENGINE_RING_ENTRIES_H

#include "ring_engine.h"

enum { WAL_ENGINE_SECTOR = 4096 }; /* a direct write is whole ones */

/* Entries in the SQ that the kernel has not taken. */
uint32_t wal_entries_unsent(const struct wal_engine *engine);

/* Give the ring what request needs next. 1: all of it is out, or it has failed; 0: no room. */
int wal_entries_issue(struct wal_engine *engine, struct wal_engine_request *request);

int64_t wal_engine_now_ns(void);

#endif
