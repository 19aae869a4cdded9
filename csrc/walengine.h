/*
 * The C API of walengine: a write-ahead log on the local disk.
 *
 * This header is the contract between the C core, which owns every invariant (format, order,
 * durability, bounds), and its callers. Python's binding is generated from this very text, so it
 * holds declarations only: no macros that a caller needs, no inline code.
 *
 * Conventions
 *   - Functions return >= 0 for success and a negative code for failure: -errno of the system
 *     call that failed, or one of enum wal_status. *error, where not NULL, tells the rest.
 *   - Handles are opaque. Pointers to data are paired with a length; NULL goes with length 0 only.
 *   - Nothing is kept of a caller's memory after a call returns.
 *   - A writer is used by any number of threads at once. Closing wakes and waits for the calls
 *     in flight; wal_writer_free comes after all of them have returned.
 *   - LSNs are record numbers, dense, from 1. Offsets are bytes in a segment file.
 *   - After fork() the child's handles answer WAL_E_FORKED; their descriptors are closed.
 *
 * Waits. A call with WAL_INTERRUPTIBLE never sits in a sync, nor in any other slow step, for longer
 * than about 50 ms: it hands the step to the writer's own thread and returns WAL_E_AGAIN while that
 * is not done, having taken nothing (or what *taken says); the caller runs its signal handlers and
 * calls again. Writes into the page cache, and wal_writer_open and _reopen, it does itself.
 */
#ifndef WALENGINE_H
#define WALENGINE_H

#include <stddef.h>
#include <stdint.h>

enum wal_status {
    WAL_OK = 0,
    WAL_E_POISONED = -10001, /* a write or sync failed earlier; only reopen helps */
    WAL_E_FULL = -10002,     /* no space (or log_bytes_max); nothing of the call was taken */
    WAL_E_CORRUPT = -10003,  /* damage below what had been acknowledged */
    WAL_E_LOCKED = -10004,   /* another writer has the log open */
    WAL_E_CLOSED = -10005,
    WAL_E_FORKED = -10006,
    WAL_E_TOO_LARGE = -10007, /* the record exceeds record_bytes_max */
    WAL_E_UNSUPPORTED_FORMAT = -10008,
    WAL_E_UNSUPPORTED_FILESYSTEM = -10009,
    WAL_E_TRIMMED = -10010,       /* the LSN lies below the trim LSN, or was trimmed while read */
    WAL_E_LOG_TRUNCATED = -10011, /* the log was rewound below the reader */
    WAL_E_AGAIN = -10012,         /* WAL_INTERRUPTIBLE: not done yet, call again */
    WAL_E_INVALID = -10013,       /* an argument is out of its range; the message says which */
    WAL_E_NOT_A_LOG = -10014,     /* the path is no directory, or holds no log, or is not ours */
    WAL_E_UNSAFE = -10015,        /* permissions, owner, symlink, special file */
    WAL_E_NOT_FOUND = -10016,     /* no such log or no such LSN */
    WAL_E_NO_IO_URING = -10017,   /* backend IO_URING cannot work here; the message says why */
};

/* What open, recover and verify found at the end of the log (docs/DURABILITY.md has the table). */
enum wal_verdict {
    WAL_VERDICT_NEW = 0,      /* the log was created by this call, or never held a frame */
    WAL_VERDICT_CLEAN = 1,    /* sealed: the writer was closed */
    WAL_VERDICT_UNSEALED = 2, /* ends behind a whole frame: the writer was killed, or is at work */
    WAL_VERDICT_TORN = 3,     /* un-acknowledged bytes behind the end were dropped */
    WAL_VERDICT_CORRUPT = 4,  /* acknowledged bytes are damaged or missing */
};

/* The labelled cases of the decision table; recover.c has the table itself. */
enum wal_case {
    WAL_CASE_NEW = 0,            /* no frame was ever written */
    WAL_CASE_SEALED = 1,         /* the end slot says sealed at p, nothing behind */
    WAL_CASE_IDLE = 2,           /* the idle watermark says p, nothing behind */
    WAL_CASE_OPEN = 3,           /* nothing at p, nothing behind */
    WAL_CASE_TORN_FRAME = 4,     /* a frame begins at p and is not whole; nothing behind */
    WAL_CASE_TORN_BEHIND = 5,    /* frames behind p, none claims that p was durable */
    WAL_CASE_ATOMIC_CUT = 6,     /* the log ends in an atomic group without its LAST */
    WAL_CASE_END_PAST = 7,       /* corrupt: the end slot or the successor names an end past p */
    WAL_CASE_DURABLE_BEHIND = 8, /* corrupt: a frame behind p says that p had been durable */
    WAL_CASE_MISPLACED = 9,      /* corrupt: a valid frame at p with the wrong LSN or link */
    WAL_CASE_CHAIN_BROKEN = 10,  /* corrupt: a segment, its header or its START is missing */
    WAL_CASE_META_LOST = 11,     /* corrupt: frames and no META, or META and no segment */
};

/* What the next append will do (recovery itself writes nothing). */
enum wal_next_step {
    WAL_NEXT_CONTINUE = 0,    /* un-seal the tail and go on in it */
    WAL_NEXT_NEW_SEGMENT = 1, /* go on in a new segment that fixes the old one's end */
    WAL_NEXT_BYPASS = 2,      /* the same, and the empty tail becomes a spare */
};

enum wal_recovery_mode {
    WAL_RECOVERY_POINT_IN_TIME = 0, /* a torn end is dropped and reported; damage is an error */
    WAL_RECOVERY_STRICT = 1,        /* a torn end is an error too */
    WAL_RECOVERY_SALVAGE = 2, /* readers only: skip what is damaged, yield every valid frame */
};

/* Bits of wal_report.warnings. */
enum wal_warning {
    WAL_WARN_NOT_DURABLE_FS = 1, /* tmpfs: nothing survives power loss */
    WAL_WARN_UNTESTED_FS = 2,    /* overlayfs, ZFS, or one that was never tested */
    WAL_WARN_META_SLOT = 4,      /* one META slot is damaged; the other serves */
    WAL_WARN_COW = 8,            /* btrfs refused NOCOW: a full disk may poison the writer */
    WAL_WARN_DIRECT_READ = 16,   /* no O_DIRECT: recovery read after dropping the cache instead */
    WAL_WARN_DIRECT_WRITE = 32,  /* direct_io was asked for and is not used on this filesystem */
};

/* Flags of calls. */
enum wal_flag {
    WAL_RECORD_CRC = 1,    /* store the records' own CRC32C, as given by the caller */
    WAL_ATOMIC = 2,        /* after a crash all records of this call or none */
    WAL_DURABLE = 4,       /* return when the records are synced */
    WAL_INTERRUPTIBLE = 8, /* see "Waits" above */
    WAL_CREATE = 16,
    WAL_SHARED_DIR = 32,    /* accept a group- or world-writable directory */
    WAL_NO_THREADS = 64,    /* tests: no background thread; wal_writer_maintain does its steps */
    WAL_NO_IDLE_MARK = 128, /* no idle watermark (byte-for-byte comparisons) */
    WAL_NO_WAIT = 256,      /* of wal_writer_append_batch: see wal_writer_notify */
    WAL_LANE = 512,         /* append only while lanes are open; see wal_writer_lanes */
};

typedef struct wal_writer wal_writer;
typedef struct wal_reader wal_reader;
typedef struct wal_cursor wal_cursor;
typedef struct wal_readahead wal_readahead;

typedef struct wal_error {
    int32_t code;     /* the function's result once more */
    int32_t os_error; /* errno of the system call that failed, or 0 */
    uint64_t segment_id;
    uint64_t offset;
    uint64_t lsn;
    char file[64];     /* name inside the log's directory, or "" */
    char message[256]; /* one sentence; never bytes of a record */
} wal_error;

enum wal_backend {
    WAL_BACKEND_AUTO = 0,     /* io_uring where it works, else pwrite */
    WAL_BACKEND_PWRITE = 1,   /* pwrite and fdatasync */
    WAL_BACKEND_IO_URING = 2, /* or fail with WAL_E_NO_IO_URING */
};

/* Whose functions drive the ring. */
enum wal_ring_provider {
    WAL_RING_AUTO = 0,     /* liburing where wal_ring_load found it, else builtin */
    WAL_RING_LIBURING = 1, /* C liburing */
    WAL_RING_BUILTIN = 2,  /* raw system calls */
};

/* What of the configuration is not in use, bits of wal_backend_info.fallbacks. */
enum wal_fallback {
    WAL_FALLBACK_NO_IO_URING = 1, /* AUTO came to pwrite */
    WAL_FALLBACK_KERNEL_POLL = 2, /* the kernel refused SQPOLL */
    WAL_FALLBACK_BUFFERS = 4,     /* buffers are not registered: RLIMIT_MEMLOCK, mostly */
    WAL_FALLBACK_FILES = 8,       /* files are not registered */
    WAL_FALLBACK_DIRECT = 16,     /* the filesystem has no O_DIRECT */
    WAL_FALLBACK_SQ_ENTRIES = 32, /* a smaller ring than asked for */
    WAL_FALLBACK_LIBURING = 64,   /* liburing is there and does not serve; the built-in does */
    WAL_FALLBACK_DIRECT_UNSYNCED = 128, /* nobody knows that the filesystem syncs direct writes */
};

/* What the ring is asked to be; see IoUringConfig for what each field does. */
typedef struct wal_ring_options {
    uint32_t backend;  /* enum wal_backend */
    uint32_t provider; /* enum wal_ring_provider */
    uint32_t sq_entries;
    uint32_t kernel_poll;
    uint32_t sq_poll_idle_ms;
    uint32_t max_inflight;
    uint32_t direct_io;
    uint32_t registered_buffers;
    uint64_t buffer_bytes; /* a multiple of 4096 */
} wal_ring_options;

/* What it came to be. */
typedef struct wal_backend_info {
    uint32_t backend;  /* PWRITE or IO_URING */
    uint32_t provider; /* LIBURING or BUILTIN; AUTO: there is no ring */
    uint32_t sq_entries;
    uint32_t kernel_poll;
    uint32_t max_inflight;
    uint32_t direct_io;
    uint32_t registered_buffers; /* 0: plain memory */
    uint32_t registered_files;
    uint32_t fallbacks; /* enum wal_fallback bits */
    int32_t os_error;   /* of the first of them that has one */
    char version[32];   /* of liburing, "2.15" */
    char reason[256];   /* the fallbacks in words; "" where there are none */
} wal_backend_info;

/* SQEs by opcode, and below them what flags some of them carried. */
enum wal_ring_op {
    WAL_RING_OP_NOP = 0,
    WAL_RING_OP_FSYNC = 1,
    WAL_RING_OP_WRITE = 2,
    WAL_RING_OP_WRITE_FIXED = 3,
    WAL_RING_OP_LINKED = 4, /* SQEs with IOSQE_IO_LINK */
    WAL_RING_OP_DSYNC = 5,  /* writes with RWF_DSYNC */
    WAL_RING_OP_COUNT = 6,
};

typedef struct wal_options {
    uint64_t segment_bytes;      /* multiple of 4096, from 32 KiB to 64 GiB */
    uint64_t record_bytes_max;   /* up to 2^32 - 9 */
    uint64_t log_bytes_max;      /* 0: no limit but the disk's */
    uint64_t unsynced_bytes_max; /* the writer syncs by itself there */
    uint32_t recovery_mode;      /* enum wal_recovery_mode, not SALVAGE */
    uint32_t commit_alignment;   /* 8; 4096: no acknowledged sector is ever written again */
    uint32_t flags;              /* WAL_CREATE | WAL_SHARED_DIR | WAL_NO_THREADS | ... */
    uint32_t owner_bytes;
    const char *owner;  /* NULL: no owner is asked for */
    uint64_t test_seed; /* tests: salts, UUID and clock from this seed; 0: the real ones */
    wal_ring_options ring;
} wal_options;

typedef struct wal_report {
    uint32_t verdict;   /* enum wal_verdict */
    uint32_t decision;  /* enum wal_case */
    uint32_t next_step; /* enum wal_next_step */
    uint32_t warnings;  /* enum wal_warning bits */
    uint64_t first_lsn; /* of the oldest record kept; last_lsn + 1 where there is none */
    uint64_t last_lsn;
    uint64_t segments;   /* in the chain */
    uint64_t segment_id; /* the newest, or the damaged one */
    uint64_t end_offset; /* p: the end of the log, or where the damage begins, in that segment */
    uint64_t dropped_frames;  /* frames behind the end that were seen and dropped */
    uint64_t dropped_records; /* their records, as far as their headers tell */
    uint64_t dropped_bytes;   /* from the end to the last of them */
    uint64_t evidence_offset; /* corrupt: of the frame or the fact that shows it; else 0 */
    uint64_t evidence_lsn;    /* corrupt: this LSN had been durable; else 0 */
    uint64_t bytes_scanned;
    uint64_t duration_us;
    uint8_t log_uuid[16];
    uint32_t commit_alignment; /* of the newest segment */
    uint32_t owner_bytes;
    char owner[1024];
    char file[64]; /* of the newest, or the damaged, segment */
} wal_report;

typedef struct wal_position {
    uint64_t first_lsn;   /* last_lsn + 1 where the log is empty */
    uint64_t last_lsn;    /* handed over so far */
    uint64_t durable_lsn; /* everything up to here is synced */
    uint64_t frame_bytes; /* of the frames from first_lsn's segment to last_lsn */
    uint64_t poisoned;    /* 1: every further call is WAL_E_POISONED */
} wal_position;

/* Latencies in microseconds; a percentile is the upper bound of its bucket (within 1/32). */
typedef struct wal_latency {
    uint64_t count;
    double p50_us;
    double p90_us;
    double p99_us;
    double p999_us;
    double max_us;
} wal_latency;

typedef struct wal_stats {
    uint64_t ops_submitted; /* system calls (on a ring: entries) begun */
    uint64_t ops_completed;
    uint64_t bytes_written;
    uint64_t bytes_read;
    uint64_t cqe_overflows;
    uint64_t sq_dropped;
    uint64_t records_appended;
    uint64_t records_durable;
    uint64_t commits;       /* callers who asked for durability and got it */
    uint64_t syncs;         /* of the log's frames: group commits */
    uint64_t group_records; /* records made durable by those, for the mean */
    uint64_t group_records_max;
    uint64_t padding_bytes;
    uint64_t segments;
    uint64_t segments_recycled;
    uint64_t preparation_failures;
    uint64_t ring_ops[6]; /* by enum wal_ring_op */
    wal_latency sync_latency;
} wal_stats;

/* ---- the writer ------------------------------------------------------------------------------ */

/* Open the log at path for writing, creating it with WAL_CREATE; recover it; *report tells how. */
int wal_writer_open(const char *path, const wal_options *options, wal_writer **writer,
                    wal_report *report, wal_error *error);

/*
 * Append one record: hand it to the operating system. flags: RECORD_CRC, INTERRUPTIBLE, DURABLE,
 * LANE.
 * With direct_io in use nothing is handed over before it is synced, so DURABLE is implied.
 */
int wal_writer_append(wal_writer *writer, const void *data, uint64_t bytes, uint32_t record_crc,
                      uint32_t flags, uint64_t *lsn, wal_error *error);

/*
 * Append count records that stand back to back in joined. *taken says how many were handed over, in
 * order, also on failure. Where a call has to wait for room, another thread's records may come to
 * stand in its middle; with WAL_ATOMIC they never do, and it is all or none. crcs goes with
 * WAL_RECORD_CRC. With WAL_DURABLE the call returns when they are synced; WAL_E_AGAIN with *taken
 * == count then means: taken, and to be waited for with wal_writer_commit.
 */
int wal_writer_append_batch(wal_writer *writer, const void *joined, const uint32_t *lengths,
                            const uint32_t *crcs, uint32_t count, uint32_t flags,
                            uint64_t *first_lsn, uint32_t *taken, wal_error *error);

/*
 * Lanes. A caller that gives LSNs to records before it hands them over must know that nobody else
 * appends meanwhile; one that does not may let any number of threads append at once. So lanes are
 * opened and closed: with WAL_LANE an append is made while they are open, or is WAL_E_AGAIN and has
 * taken nothing. *last_lsn is told; once lanes are closed it stays the last one until the next
 * append without WAL_LANE. A writer begins with lanes closed. flags: INTERRUPTIBLE.
 */
int wal_writer_lanes(wal_writer *writer, uint32_t open, uint32_t flags, uint64_t *last_lsn);

/* Make everything up to lsn durable (0: everything appended so far). flags: INTERRUPTIBLE. */
int wal_writer_commit(wal_writer *writer, uint64_t lsn, uint32_t flags, wal_error *error);

/* The same, INTERRUPTIBLE in any case: WAL_E_AGAIN after timeout_ns at the latest. */
int wal_writer_commit_within(wal_writer *writer, uint64_t lsn, uint64_t timeout_ns, uint32_t flags,
                             wal_error *error);

/*
 * For an event loop, which must not wait: one thread that calls wal_writer_append_batch with
 * WAL_NO_WAIT, and wal_writer_poll, and watches fd in between.
 *
 * From here on fd is raised (a u64 1 is written to it: an eventfd, or the end of a pipe; neither
 * may block) whenever one of those calls might get further than it did; now and then for nothing.
 * fd stays the caller's, who calls again with -1 before closing it. WAL_E_NO_IO_URING: the kernel
 * does not tell a descriptor about this ring; pwrite has no such limit.
 *
 * With WAL_NO_WAIT an append hands over what there is room for and returns WAL_E_AGAIN if that is
 * not all, or, with WAL_DURABLE, if it is not synced yet; the rest is to be handed over when fd was
 * raised. It implies INTERRUPTIBLE. What became of a slow step is told to the next such call.
 */
int wal_writer_notify(wal_writer *writer, int fd, wal_error *error);

/*
 * Take note of what the device has finished and, if it is not at work, begin what is missing for
 * everything up to lsn to be durable. *durable_lsn says how far that is, also on failure. 0: as far
 * as lsn; WAL_E_AGAIN: not yet.
 */
int wal_writer_poll(wal_writer *writer, uint64_t lsn, uint64_t *durable_lsn, wal_error *error);

/* Sync, then drop records below lsn (clamped to durable_lsn + 1) and recycle whole segments. */
int wal_writer_truncate_before(wal_writer *writer, uint64_t lsn, uint32_t flags, wal_error *error);

/* Recover anew from what the device holds and go on; after poisoning, or at any time. */
int wal_writer_reopen(wal_writer *writer, wal_report *report, wal_error *error);

/* Sync, seal, release. The handle stays valid and answers WAL_E_CLOSED. flags: INTERRUPTIBLE. */
int wal_writer_close(wal_writer *writer, uint32_t flags, wal_error *error);

/* Give back the memory of a closed (or forked) writer; an open one is released without a sync. */
void wal_writer_free(wal_writer *writer);

/* The largest record taken: record_bytes_max, or less where log_bytes_max has no room for that. */
uint64_t wal_writer_record_bytes_max(const wal_writer *writer); /* fixed at open */

void wal_writer_position(wal_writer *writer, wal_position *position);
void wal_writer_stats(wal_writer *writer, wal_stats *stats);
void wal_writer_backend(wal_writer *writer, wal_backend_info *info); /* fixed at open */

/* Do the background steps that are due: prepare a segment, zero-fill, mark idleness. Tests. */
int wal_writer_maintain(wal_writer *writer);

/* ---- readers: no lock, no write access ------------------------------------------------------- */

typedef struct wal_segment_info {
    uint64_t segment_id;
    uint64_t base_lsn;
    uint64_t last_lsn;
    uint64_t end_offset;
    uint64_t file_bytes;
    uint64_t created_us;
    uint32_t commit_alignment;
    uint32_t sealed;
    char file[64];
} wal_segment_info;

/*
 * Some records of one cursor. They stand back to back: record i is the lengths[i] bytes behind
 * record i - 1, which are also data[starts[i] .. starts[i] + lengths[i]). data and the arrays
 * belong to the cursor until its next call, or, after wal_cursor_take, to the caller.
 */
typedef struct wal_block {
    uint64_t first_lsn;
    uint64_t count;
    const char *data;
    uint64_t data_bytes;
    const uint64_t *starts;
    const uint32_t *lengths;
    const uint32_t *crcs; /* NULL: these records carry none */
    uint32_t length_min;  /* of these records */
    uint32_t length_max;
} wal_block;

typedef struct wal_segment_check {
    uint64_t frames;
    uint64_t records;
    uint64_t bytes;          /* of frames, headers and padding included */
    uint64_t record_crcs;    /* records whose own CRC32C was checked */
    uint64_t damaged_offset; /* of the first damage, 0: none */
    uint64_t damaged_lsn;    /* the LSN expected there */
} wal_segment_check;

/*
 * Look at the log at path without changing it. Damage at or behind the tail does not fail the
 * call: it is in *report, and a cursor yields everything before it and then fails.
 */
int wal_reader_open(const char *path, uint32_t recovery_mode, wal_reader **reader,
                    wal_report *report, wal_error *error);
void wal_reader_close(wal_reader *reader);

int wal_reader_segment(wal_reader *reader, uint64_t index, wal_segment_info *info);

/* Check every frame of segment number index; 0: whole, 1: damaged (*check says where). */
int wal_reader_verify(wal_reader *reader, uint64_t index, wal_segment_check *check,
                      wal_error *error);

/* Begin at from_lsn (0: the first record), end behind to_lsn (0: the last record). */
int wal_cursor_open(wal_reader *reader, uint64_t from_lsn, uint64_t to_lsn, wal_cursor **cursor,
                    wal_error *error);

/* 1: *block holds at least one record; 0: the end; negative: damage, or the disk failed. */
int wal_cursor_next(wal_cursor *cursor, wal_block *block, wal_error *error);

/*
 * The same, and the block is the caller's until wal_block_free(block->data), which may come later
 * than wal_cursor_close, from any thread. It is one piece of memory: data, and from the next
 * multiple of 8 on starts, lengths and crcs, one behind the other.
 */
int wal_cursor_take(wal_cursor *cursor, wal_block *block, wal_error *error);
void wal_block_free(const char *data);

/* A cursor keeps what it needs of its reader: the two are closed in any order, by any thread. */
void wal_cursor_close(wal_cursor *cursor);

/*
 * A cursor whose blocks are read ahead by a thread of its own, once that pays. For one caller at a
 * time. In a forked child, if the thread was started: WAL_E_FORKED.
 */
int wal_readahead_open(wal_reader *reader, uint64_t from_lsn, uint64_t to_lsn,
                       wal_readahead **ahead, wal_error *error);
int wal_readahead_next(wal_readahead *ahead, wal_block *block, wal_error *error); /* as take */
void wal_readahead_close(wal_readahead *ahead);

/* ---- io_uring -------------------------------------------------------------------------------- */

/*
 * Take C liburing's functions from the shared object at path. Every symbol is looked up here: 0, or
 * WAL_E_NO_IO_URING and the name of what is missing. Calling it again changes nothing.
 */
int wal_ring_load(const char *path, wal_error *error);

/*
 * Does io_uring work in this process? Found out by doing: a ring is set up, a NOP and a write to a
 * file in memory go through it. *info is what a writer with these options would use.
 */
int wal_ring_probe(const wal_ring_options *options, wal_backend_info *info, wal_error *error);

/* Tests: the addresses in a provider's table; returns how many there are. */
uint64_t wal_ring_functions(uint32_t provider, uintptr_t *addresses, uint64_t max);

/* ---- measuring a disk (walengine bench fsync) ------------------------------------------------ */

/* How a small write is made durable. */
enum wal_bench_method {
    WAL_BENCH_WRITE = 0,        /* pwrite and no sync: what the others come on top of */
    WAL_BENCH_FDATASYNC = 1,    /* pwrite, fdatasync */
    WAL_BENCH_FSYNC = 2,        /* pwrite, fsync */
    WAL_BENCH_DSYNC = 3,        /* pwrite to a file opened with O_DSYNC */
    WAL_BENCH_DIRECT_DSYNC = 4, /* the same with O_DIRECT */
    WAL_BENCH_RWF_DSYNC = 5,    /* pwritev2 with RWF_DSYNC */
    WAL_BENCH_RING_LINKED = 6,  /* io_uring: a write linked to an fdatasync */
    WAL_BENCH_RING_DIRECT = 7,  /* io_uring: O_DIRECT writes with RWF_DSYNC */
};

/* What the file is like where it is written. */
enum wal_bench_state {
    WAL_BENCH_GROWING = 0,     /* its end: each write makes the file longer */
    WAL_BENCH_FALLOCATED = 1,  /* allocated, never written */
    WAL_BENCH_ZERO_FILLED = 2, /* zeros that were written and synced */
    WAL_BENCH_RECYCLED = 3,    /* other data that was written and synced */
};

enum { WAL_BENCH_CONCURRENCY_MAX = 64, WAL_BENCH_BUCKETS = 1920 };

/* One row: what is written, and how. Zero is no default; a field out of its range is INVALID. */
typedef struct wal_bench_row {
    uint32_t method;
    uint32_t state;
    uint32_t write_bytes; /* 1 to 16 MiB; past the page cache a multiple of 4096 */
    uint32_t concurrency; /* threads; on a ring writes in flight. Up to WAL_BENCH_CONCURRENCY_MAX */
    uint32_t group;       /* FDATASYNC, FSYNC: 1: one sync serves all threads that wait */
    uint32_t provider;    /* enum wal_ring_provider, for the methods with a ring */
    uint64_t duration_us; /* no write begins later */
    uint64_t file_bytes_max; /* the row ends early where its file would grow past this */
} wal_bench_row;

/* A commit is one write made durable; its latency is from the write's begin to the sync's end. */
typedef struct wal_bench_result {
    uint64_t commits;
    uint64_t syncs; /* fdatasync, fsync, or writes that sync themselves */
    uint64_t warm_up_commits;
    uint64_t warm_up_syncs;
    uint64_t preparation_syncs;
    uint64_t bytes;
    uint64_t elapsed_ns; /* from the first commit's begin to the last one's end */
    uint32_t stopped;    /* 1: by wal_bench_stop */
    uint32_t unnamed;    /* 1: the file never had a name (O_TMPFILE) */
    uint32_t provider;   /* LIBURING or BUILTIN; AUTO: there was no ring */
    uint32_t registered; /* 1: the ring's memory was registered */
    wal_latency latency;
    uint64_t buckets[1920]; /* commits by latency; wal_bench_bucket_us says how long */
} wal_bench_result;

typedef struct wal_bench wal_bench;

/* Measure in this directory. Nothing is made in it before the first row. */
int wal_bench_open(const char *directory, wal_bench **bench, wal_error *error);

/*
 * Make a file for the row, bring it into its state, warm up, measure, and let the file go: it has
 * no name once it is open. One row at a time. -EOPNOTSUPP: this filesystem cannot do the row;
 * WAL_E_NO_IO_URING: there is no ring. On any failure *result says what was measured before it.
 */
int wal_bench_run(wal_bench *bench, const wal_bench_row *row, wal_bench_result *result,
                  wal_error *error);

/* End the row that is under way, from any thread: no further write begins. No row begins after. */
void wal_bench_stop(wal_bench *bench);
void wal_bench_close(wal_bench *bench);

/* The longest latency in a bucket, in microseconds. */
double wal_bench_bucket_us(uint32_t bucket);

/* ---- odds and ends --------------------------------------------------------------------------- */

/* CRC32C (Castagnoli) of bytes, continuing from crc (0 to begin). */
uint32_t wal_crc32c(uint32_t crc, const void *data, size_t bytes);

/* Name of the implementation in use: "sse4.2+pclmul", "armv8" or "slicing-by-8". */
const char *wal_crc32c_name(void);

const char *wal_status_text(int code);
const char *wal_case_text(uint32_t decision);

/* ---- test seams, in the shipped library so that what is tested is what is packaged ----------- */

enum wal_fault_op {
    WAL_FAULT_WRITE = 1,
    WAL_FAULT_SYNC = 2,
    WAL_FAULT_READ = 4,
    WAL_FAULT_OPEN = 8,
    WAL_FAULT_ALLOCATE = 16,
    WAL_FAULT_TRUNCATE = 32,
    WAL_FAULT_RENAME = 64,
    WAL_FAULT_UNLINK = 128,
    WAL_FAULT_SYNC_DIR = 256,
    WAL_FAULT_ALL = 511,
    WAL_FAULT_CQE_WRITE = 512, /* completions on a ring: what the kernel answers */
    WAL_FAULT_CQE_SYNC = 1024,
};

enum wal_fault_effect {
    WAL_FAULT_FAIL = 0,  /* return -value (an errno) and do nothing */
    WAL_FAULT_SHORT = 1, /* write value bytes only */
    WAL_FAULT_STALL = 2, /* sleep value milliseconds (until faults are cleared), then go on */
    WAL_FAULT_SKIP = 3,  /* do nothing and report success: a lying device */
    WAL_FAULT_KILL = 4,  /* SIGKILL this process before the operation */
};

/*
 * On CQE operations FAIL makes the completion's result -value, SHORT submits value bytes only,
 * STALL holds the completion back for value milliseconds (until faults are cleared), and SKIP lets
 * the entry through as a NOP: a success that did nothing.
 */

/*
 * Make the nth operation (from 1) that matches the mask of wal_fault_op misbehave, or, sticky, all
 * from the nth on. One rule at a time, for every log in this process. wal_fault_clear ends it.
 */
void wal_fault_set(uint32_t op_mask, uint64_t nth, uint32_t sticky, uint32_t effect, int64_t value);
void wal_fault_clear(void);
uint64_t wal_fault_count(void); /* operations matched by the mask since wal_fault_set */
uint64_t wal_fault_hits(void);  /* how many of them misbehaved */

/* SIGKILL this process when it passes the named fail point for the nth time. "" disarms. */
void wal_fail_point_arm(const char *name, uint64_t nth);

/* Fail the nth allocation from now on (0: none); the count since the last call is returned. */
uint64_t wal_alloc_fail(uint64_t nth);

/* Descriptors that writers and readers of this process hold open: to find leaks. */
uint64_t wal_open_files(void);

/* Rings set up from now on find an opcode of io_uring missing (by its number; -1: none). */
void wal_ring_hide_op(int32_t opcode);

#endif
