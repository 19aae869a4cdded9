/*
 * A simulated directory that remembers what a power cut may undo.
 *
 * struct sim_disk is the machine: files with a cache image (what reads see) and the device image
 * below it, un-synced sectors with every version that may have reached the medium, and names whose
 * changes are durable only after a directory sync. sim_io() gives a struct wal_io onto it; any
 * number of them share a disk, as processes share a filesystem.
 *
 * Every change goes through one event (a write, a sync, a rename, ...). With a trace attached the
 * events are kept, so that the machine after any prefix of the trace can be rebuilt, and sim_axes
 * and sim_cut turn it into every state that a power cut there may leave.
 *
 * What a power cut may do
 *   - A sector is 512 bytes and is the unit: each un-synced sector keeps its synced content or any
 *     version written since, independently of all others, whatever the order of the writes.
 *   - It may also read as garbage, where the design says that this harms nobody:
 *       . in a segment of commit alignment 4096 (strict sectors), and for every write made while
 *         the workload has set sim_disk.strict: always. No acknowledged sector is written again,
 *         so the assumption of a sector written whole or not at all is not needed.
 *       . under alignment 8 only where the sector holds no bytes that were synced in the file's
 *         present life: since its last rename, and by a write that was more than whole blocks of
 *         zeros. Sectors that do are assumed to be written whole or not at all ("powersafe
 *         overwrite").
 *       . in the header and end slot of a segment (the first 8 KiB) and in META: always. A header
 *         is synced before its name says wal-, an end slot that fails its CRC is no evidence, and
 *         META has a second slot.
 *   - A file's size is the synced one or any later one.
 *   - Un-synced changes of names are made in order up to some point (a journal), or, lenient, any
 *     subset of them, in order; one whose source is missing does not happen.
 *   - sync makes a file's bytes and size durable and no name; sync_dir all names and no byte.
 *   - A sync that fails leaves, per sector, an arbitrary choice of the above on the device; the
 *     cache keeps the newest content and calls it clean. Every other descriptor open then gets
 *     the same error once, from its own next sync; after that syncs succeed and change nothing.
 *     Only uncached reads show the device.
 *
 * Requests (sim_disk.async; else io.c does them in place)
 *   - A request's write reaches the cache in one piece or in several, at moments between submit and
 *     completion that the seed chooses; until then it is nowhere, and a process that dies before it
 *     has begun takes it along. (A ring cancels what it has not begun; what the kernel began is
 *     dirty in the cache, or on its way to the device, and stays.) Nobody else's sync covers it
 *     before it has completed, though a cut may show any subset of its sectors.
 *   - A sync, by request or by verb, covers the writes that had returned when it was asked for: of
 *     each sector the newest such version becomes the synced one, and versions of later or
 *     unfinished writes stay open above it. Content that the medium holds is never lost to a
 *     version older than that. A WRITE_SYNC's covers its own write too.
 *   - A WRITE_DURABLE makes durable its own sectors and nothing else: no other write's, and not
 *     the file's size.
 *   - A failing completion is -EIO. A WRITE_DURABLE's leaves a mix on its own sectors, and no other
 *     descriptor hears of it; any other is a failed sync as above, but for sectors on which another
 *     request is still at work.
 *   - The data of a request must not change, and its file must not be closed, before it has
 *     completed: both are checked. Who closes, and then the directory too, drops it.
 */
#ifndef WALENGINE_TEST_SIMDISK_H
#define WALENGINE_TEST_SIMDISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "io.h"

enum {
    SIM_SECTOR_BYTES = 512,
    SIM_FILES_MAX = 96,
    SIM_OPEN_MAX = 64,
    SIM_NAME_OPS_MAX = 64,
    SIM_NAME_BYTES = 64,
    SIM_EVENTS_MAX = 1 << 18, /* in one trace */
    SIM_REQUESTS_MAX = 64,    /* in flight, then -EBUSY */
};

enum sim_kind {
    SIM_WRITE = 1,
    SIM_SYNC,
    SIM_SYNC_FAILED, /* the device keeps a mix, the cache lies about it */
    SIM_CREATE,
    SIM_RENAME,
    SIM_UNLINK,
    SIM_TRUNCATE,
    SIM_ALLOCATE,
    SIM_SYNC_DIR,
    SIM_SYNC_RANGE, /* a WRITE_DURABLE has completed */
    SIM_RETURNED,   /* what a dropped request wrote is now a write like any other */
    SIM_MARK,       /* put in by the workload: an append, an acknowledgement, a trim, ... */
};

/* What a mark means is the workload's business (oracle.h). */
struct sim_mark {
    uint32_t kind;
    uint64_t a, b, c, d;
};

struct sim_event {
    enum sim_kind kind;
    uint32_t inode;
    uint64_t offset; /* of a write or its request; the new size of truncate and allocate */
    uint64_t bytes;
    uint32_t covers;  /* of a sync: the stamp up to which writes become durable */
    uint32_t request; /* whose write or completion it is; 0: nobody's */
    uint8_t *data;    /* of a write, owned by the trace; NULL: zeros */
    uint64_t seed;    /* of a failed sync: which mix */
    bool strict;
    char from[SIM_NAME_BYTES]; /* create, rename, unlink */
    char to[SIM_NAME_BYTES];   /* rename */
    struct sim_mark mark;
};

struct sim_trace {
    struct sim_event *events;
    size_t count;
    size_t capacity;
};

/*
 * When a write returned: the number of its event. While the request that it belongs to is in flight
 * it is that request's id instead, which is greater than all of them.
 */
enum { SIM_STAMP_MAX = INT32_MAX };

/* A sector whose device content may differ from the cache: data holds count + 1 sectors. */
struct sim_sector {
    uint32_t count; /* versions written since the last sync; 0: the cache lies */
    uint32_t capacity;
    uint8_t *data;    /* [0] what is synced, [1 .. count] the versions, oldest first */
    uint32_t *stamps; /* of the versions, [0] unused; in the allocation of data */
};

/* When a sector was written, also where that made no new version. */
struct sim_written {
    uint32_t last;
    uint32_t bytes; /* with SIM_BYTES: the first of those writes */
};

enum sim_flag {
    SIM_LIVE = 1,   /* holds bytes that were synced since the file's last rename */
    SIM_DULL = 2,   /* written since the last sync, but with the bytes it had */
    SIM_STRICT = 4, /* the latest write was made under sim_disk.strict */
    SIM_BYTES = 8,  /* un-synced writes put more into it than zeros ahead of use */
};

struct sim_file {
    uint32_t inode;
    uint32_t opens;
    uint32_t errors;        /* failed syncs so far */
    uint64_t bytes;         /* as the cache sees it */
    uint64_t durable_bytes; /* synced size */
    uint64_t *sizes;        /* un-synced sizes since, oldest first */
    uint32_t *size_stamps;
    size_t size_count;
    uint64_t capacity; /* of the arrays below, in bytes of file */
    uint8_t *cache;
    uint8_t *flags;              /* per sector, enum sim_flag */
    struct sim_written *written; /* per sector */
    struct sim_sector **pending; /* per sector, NULL where clean */
    size_t pending_count;
};

struct sim_name {
    char text[SIM_NAME_BYTES];
    uint32_t inode;
};

struct sim_names {
    struct sim_name list[SIM_FILES_MAX];
    size_t count;
};

struct sim_name_op {
    enum sim_kind kind;
    uint32_t inode;
    char from[SIM_NAME_BYTES];
    char to[SIM_NAME_BYTES];
};

struct sim_open {
    uint32_t inode; /* 0: free */
    uint32_t errors_seen;
    unsigned flags;
    const void *owner;
};

struct sim_disk {
    struct sim_file *files[SIM_FILES_MAX];
    size_t file_count;
    uint32_t inode_next;
    struct sim_names names;         /* as the cache sees them */
    struct sim_names durable_names; /* as of the last sync_dir */
    struct sim_name_op ops[SIM_NAME_OPS_MAX];
    size_t op_count;
    struct sim_open open[SIM_OPEN_MAX];
    const void *lock_owner;
    struct sim_trace *trace;                        /* NULL: not recorded; never owned */
    uint32_t stamp;                                 /* of the latest event */
    uint32_t request_last;                          /* id */
    struct sim_request *requests[SIM_REQUESTS_MAX]; /* in flight, in order of submission */
    size_t request_count;

    /* Knobs of the workload. */
    bool strict;              /* writes from now on may become garbage until synced */
    uint64_t space_max;       /* bytes of all files together; 0: no limit */
    uint64_t sync_fail_in;    /* the nth sync from now fails with EIO, once; 0: none */
    uint64_t sync_fail_dirty; /* 1: only a sync that has something to write counts */
    uint64_t sync_fail_seed;  /* chooses what the device keeps then */
    uint64_t short_every;     /* every nth write does only half of its bytes; 0: none */
    uint64_t short_in;        /* the nth write from now is short, once; 0: none */
    bool short_by_one;        /* by one byte then, else by half */
    uint64_t eintr_every;     /* every nth read or write is interrupted before it begins */
    bool async;               /* sim_io offers requests from now on */
    uint64_t async_seed;      /* chooses when and in which order things happen to them */
    uint32_t async_hold;      /* a reap may leave so many in flight, and come late; 0: none */
    uint32_t async_signal;    /* a signal ends every reap from the nth on; 0: none comes */
    uint64_t cut_at;          /* every verb from this event on fails with EIO: a cut in mid-call */
    uint64_t events;          /* how many were applied */
    uint64_t calls;           /* reads and writes, for the two above */
    uint64_t sync_failures;
};

/* ---- the machine ----------------------------------------------------------------------------- */

struct sim_disk *sim_new(void);
void sim_free(struct sim_disk *disk);

/*
 * A copy of everything but open files, lock, knobs (strict excepted) and trace; so its processes
 * have died, and requests in flight with them.
 */
struct sim_disk *sim_copy(const struct sim_disk *disk);

/* A directory handle for the core; freed by its destroy verb. The disk outlives it. */
struct wal_io *sim_io(struct sim_disk *disk);

/* What the kernel does at a process's death: its files are closed, its lock and requests let go. */
void sim_kill(struct sim_disk *disk);

/* Redo one event of a trace on a disk made from the same beginning. */
void sim_apply(struct sim_disk *disk, const struct sim_event *event);

/* Apply an event and put a copy of it into the disk's trace, if it has one. */
void sim_record(struct sim_disk *disk, const struct sim_event *event);

/* Put a mark into the trace; without one this is nothing. */
void sim_mark(struct sim_disk *disk, struct sim_mark mark);

void sim_trace_clear(struct sim_trace *trace);

/* Direct access for tests: the inode of a name (0: none), and bytes of its cache and device. */
uint32_t sim_lookup(const struct sim_disk *disk, const char *name);
struct sim_file *sim_file(const struct sim_disk *disk, uint32_t inode);

/* Does the cache show anything that the device does not have and that no sync will bring there? */
bool sim_lies(const struct sim_disk *disk);

/* Overwrite bytes on the device and in the cache alike: damage. */
void sim_damage(struct sim_disk *disk, uint32_t inode, uint64_t offset, const void *data,
                size_t bytes);

/* ---- the power cut --------------------------------------------------------------------------- */

enum sim_axis_kind { SIM_AXIS_SECTOR = 1, SIM_AXIS_SIZE, SIM_AXIS_NAMES };

/*
 * One independent choice. Option 0 is "nothing of it reached the medium", option `newest` is "all
 * of it did"; the ones between are older versions (names: shorter prefixes), the ones above are
 * garbage (a sector), or lenient subsets (names). An axis with newest = 0 has garbage only: its
 * versions all equal what is synced.
 */
struct sim_axis {
    enum sim_axis_kind kind;
    uint32_t inode;
    uint32_t sector;
    uint32_t options;
    uint32_t newest;
};

/*
 * Fill axes with the choices open now; dull: with those of newest = 0 as well. What is beyond max
 * is left out, and so does not reach the medium.
 */
size_t sim_axes(const struct sim_disk *disk, struct sim_axis *axes, size_t max, bool dull);

/* The machine after a cut with choice[i] on axes[i] (0 where an axis is left out of the list). */
struct sim_disk *sim_cut(const struct sim_disk *disk, const struct sim_axis *axes,
                         const uint32_t *choice, size_t count, uint64_t garbage_seed);

/*
 * Equal for equal machines, without building one: sim_hash_files once for a disk (the hash of each
 * file's synced content, in the order of disk->files), then one sim_cut_hash for each choice.
 */
void sim_hash_files(const struct sim_disk *disk, uint64_t *files);
uint64_t sim_cut_hash(const struct sim_disk *disk, const uint64_t *files,
                      const struct sim_axis *axes, const uint32_t *choice, size_t count,
                      uint64_t garbage_seed);

/* ---- shared by simdisk*.c -------------------------------------------------------------------- */

/* simdisk_async.c: the verbs, and the end of io's requests (NULL: of all). */
int sim_submit(struct wal_io *io, const struct wal_io_request *request);
int sim_reap(struct wal_io *io, struct wal_io_completion *completions, int max, int64_t wait_ns,
             unsigned flags);
int sim_register_buffers(struct wal_io *io, void *memory, size_t bytes, unsigned count);
void sim_drop_requests(struct sim_disk *disk, const struct wal_io *io);

struct sim_disk *sim_disk_of(struct wal_io *io);
bool sim_off(const struct sim_disk *disk);
bool sim_space_for(const struct sim_disk *disk, uint64_t more);
bool sim_sync_fails(struct sim_disk *disk, bool dirty); /* the next one, and now? */

void sim_axis_options(const struct sim_disk *disk, const struct sim_file *file,
                      struct sim_axis *axis);
void sim_axis_content(const struct sim_file *file, const struct sim_axis *axis, uint32_t choice,
                      uint64_t seed, uint8_t *content);
void sim_name_op_apply(struct sim_names *names, const struct sim_name_op *op);
struct sim_file *sim_file_copy(const struct sim_file *file); /* without what is pending */

#endif
