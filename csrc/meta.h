/*
 * META: two 4 KiB slots with the log's identity and trim LSN; the newest valid slot wins.
 *
 * An update writes the older slot, syncs, and then writes the other one too, un-synced: the second
 * copy is for bit rot, the first for crashes. So after a clean life both slots say the same, and
 * one flipped bit in either costs nothing. A slot that was found damaged is cleared, and synced,
 * before it is written again (meta.c says why).
 */
#ifndef WALENGINE_META_H
#define WALENGINE_META_H

#include "format.h"
#include "io.h"
#include "walengine.h"

struct wal_meta {
    struct wal_disk_meta disk; /* the newest valid slot */
    int slot;                  /* which one that is */
    int damaged_slots;         /* slots that fail their checksum: torn by a crash, or rotten */
};

/* 1: read; 0: there is no META; WAL_E_CORRUPT: there is one and neither slot is valid. */
int wal_meta_load(struct wal_io *io, unsigned open_flags, struct wal_meta *meta, wal_error *error);

/* Make META durable for the first time: written under another name, synced, renamed, synced. */
int wal_meta_create(struct wal_io *io, struct wal_meta *meta, wal_error *error);

/* Make a new trim LSN durable. On failure *meta is as before. */
int wal_meta_set_trim(struct wal_io *io, struct wal_meta *meta, uint64_t trim_lsn,
                      wal_error *error);

#endif
