/*
 * Reading a segment a block at a time.
 *
 * A window holds a stretch of a file in memory; it never grows by a length that stands in a file,
 * only by what the walk asks for after it has checked it. A walk goes from frame to frame and
 * stops at the first position that is not the next valid frame; it says why and judges nothing:
 * the decision table (recover.c) and the reader do.
 */
#ifndef WALENGINE_SCAN_H
#define WALENGINE_SCAN_H

#include <stdint.h>

#include "frame.h"
#include "io.h"
#include "segment.h"

/* Read at a time by whom works through a log: what is read is still in the cache when checked. */
enum { WAL_WINDOW_BYTES = 2 * 1048576, WAL_WINDOW_STEP_BYTES = 1 << 18 };

struct wal_window {
    struct wal_io *io;
    int file;
    char *bytes; /* WAL_WINDOW_BYTES, aligned for O_DIRECT */
    uint64_t begin;
    uint64_t filled;
    uint64_t step_bytes; /* how much to read at a time, unless more is asked for */
    uint64_t read_bytes; /* in all: for reports */
};

int wal_window_open(struct wal_window *window, struct wal_io *io, int file);
void wal_window_close(struct wal_window *window);
void wal_window_forget(struct wal_window *window); /* the file may have changed: read anew */

/*
 * Have up to want (<= 1 MiB + 4096) bytes at offset in memory. Returns how many there are, less
 * than want only at the end of the file, or a negative code; *at points to them.
 */
int64_t wal_window_get(struct wal_window *window, uint64_t offset, uint64_t want, const char **at);

enum wal_stop {
    WAL_STOP_NONE = 0,        /* not stopped: the frame is valid and the next one */
    WAL_STOP_LIMIT = 1,       /* the position is the limit */
    WAL_STOP_NOTHING = 2,     /* no frame of this segment begins here */
    WAL_STOP_BROKEN = 3,      /* a header of ours whose CRC is wrong */
    WAL_STOP_PAYLOAD = 4,     /* a valid header whose payload CRC is wrong */
    WAL_STOP_MISPLACED = 5,   /* a valid frame with the wrong LSN or link */
    WAL_STOP_MALFORMED = 6,   /* a valid CRC over nonsense: no writer and no crash makes one */
    WAL_STOP_UNSUPPORTED = 7, /* a newer version wrote it */
    WAL_STOP_PAST_LIMIT = 8,  /* a valid frame that reaches past the limit */
};

struct wal_walk {
    struct wal_window *window;
    struct wal_frame_context context;
    uint64_t offset; /* of the next frame */
    uint64_t lsn;    /* of the next record */
    uint32_t previous_crc;
    uint64_t limit; /* the segment ends here by its successor's word; UINT64_MAX: not known */
    /* The frame that the last step found. */
    struct wal_disk_frame frame;
    uint64_t frame_end;
    const char *payload;    /* NULL: larger than the window (one record); CRC already checked */
    int large_is_malformed; /* ... and its own record CRC was wrong */
};

/* Begin at START (lsn = its base), or anywhere that the caller knows offset, LSN and link of. */
void wal_walk_begin(struct wal_walk *walk, struct wal_window *window,
                    const struct wal_segment *segment);

/* One step: enum wal_stop, or a negative code if the disk failed. */
int wal_walk_next(struct wal_walk *walk);

/* What lies behind a position, as far as header-valid frames of this segment tell. */
struct wal_behind {
    uint64_t frames;
    uint64_t records;
    uint64_t last_end;        /* end of the last of them, 0: none */
    uint64_t evidence_offset; /* of the first frame that says durable LSN >= lsn, 0: none */
    uint64_t evidence_lsn;
};

/* Look at every 8-byte boundary from offset to the end of the segment. 0 or a negative code. */
int wal_look_behind(struct wal_window *window, const struct wal_frame_context *context,
                    uint64_t offset, uint64_t lsn, struct wal_behind *behind);

#endif
