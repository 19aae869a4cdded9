/*
 * The writer's state, and who may touch what.
 *
 * One mutex guards everything below but the leader's own I/O. Appends hold it while they reserve
 * offsets and hand their frames to the operating system, so writes are issued in order. Slow steps
 * (rotate, un-seal, seal, trim) belong to the leader: whoever sets `leading` does one such step
 * with the mutex released during its I/O; all the others wait. A caller that must stay
 * interruptible (Python's main thread) never leads: it posts the step to the committer thread and
 * waits in slices.
 *
 * Commits are groups in flight (flight.h), begun under the mutex and waited for by anybody; appends
 * go on filling the next group meanwhile. Hence there is at most one sync of the tail at a time,
 * its result is published (or poisons) before the next begins, and durable_lsn only grows.
 *
 * The background thread prepares the next segment and zero-fills ahead, on descriptors of its own:
 * a writeback error is reported once per descriptor, so it cannot swallow what a commit must see.
 */
#ifndef WALENGINE_WRITER_H
#define WALENGINE_WRITER_H

#include <pthread.h>
#include <stdint.h>

#include "chain.h"
#include "clock.h"
#include "flight.h"
#include "followers.h"
#include "histogram.h"
#include "index.h"
#include "io.h"
#include "log.h"
#include "segment.h"
#include "walengine.h"

enum {
    WAL_SEGMENT_BYTES_MIN = 32768,
    WAL_FILL_STEP_BYTES_MAX = 4 * 1048576,
    WAL_FILL_STEP_BYTES_MIN = 65536,
    WAL_SPARES_MAX = 4,
    WAL_IDLE_MARK_MS = 20,
    WAL_SLICE_MS = 50,  /* how long an interruptible caller stays away from its signal handlers */
    WAL_RETRY_MS = 200, /* before the background tries again what failed */
    WAL_RING_BYTES_MAX = 1 << 30,
    WAL_RING_ENTRIES_MAX = 32768,
};

enum wal_writer_state { WAL_WRITER_OPEN, WAL_WRITER_CLOSING, WAL_WRITER_CLOSED };

/* The segment that frames go to. file < 0: the next append makes one. */
struct wal_tail {
    struct wal_segment segment;
    int file;
    uint64_t offset;   /* where the next frame goes */
    uint64_t frontier; /* below: written extents, the writer's; above: the filler's */
    int fill_claimed;  /* the background thread fills from the frontier on, or writes the slot */
    int fill_syncing;  /* ... and its sync is under way: what it will tell is not known yet */
    uint32_t previous_crc;
    int needs_unseal;
    uint64_t unsynced_bytes;
    uint64_t index_offset; /* of the newest INDEX frame, 0: none */
    struct wal_index index;
    struct wal_run run;  /* frames are being put together here; data NULL: they are not */
    uint64_t run_offset; /* where in the segment it begins */
};

/* A segment made ready ahead of time. file < 0: none. */
struct wal_prepared {
    struct wal_segment segment;
    int file;
    uint64_t frontier;
    int fill_claimed;
};

/* A segment to be given up once the START that follows it is durable. */
struct wal_release {
    char name[WAL_NAME_BYTES];
    uint64_t segment_id;
    uint64_t file_bytes;
    uint64_t cut_bytes;    /* > 0: keep it, cut to this size */
    int never_reuse;       /* it ended uncleanly: unlink it rather than make it a spare */
    uint64_t successor_id; /* released when a sync of this segment (or a later one) succeeded */
};

enum wal_step { WAL_STEP_NONE, WAL_STEP_ROOM, WAL_STEP_TRIM, WAL_STEP_SEAL };

/* What an interruptible caller asked the committer to do. */
struct wal_job {
    enum wal_step step;      /* NONE: there is nothing to do */
    enum wal_step last_step; /* what it was, or is */
    uint64_t argument;
    uint64_t ticket; /* counts jobs; done >= ticket: finished */
    uint64_t done;
    int result;
    wal_error error;
};

struct wal_writer {
    struct wal_io *io; /* owned */
    wal_options options;
    wal_backend_info info;      /* what the options came to; fixed once the writer is open */
    int direct;                 /* the tail's frames go past the page cache */
    int links;                  /* a write and its sync go down as one: there is a ring */
    uint64_t payload_bytes_max; /* of a frame with more than one record */
    char owner[WAL_OWNER_BYTES_MAX];
    uint64_t fork_generation;
    uint64_t test_counter; /* with test_seed: salts and clock readings so far */

    pthread_mutex_t mutex;
    pthread_cond_t changed; /* for callers that wait: anything below changed, look again */
    pthread_cond_t posted;  /* for the committer: a job, or the end */
    pthread_cond_t work;    /* for the background thread: something may be due, or the end */
    enum wal_writer_state state;
    int calls; /* in flight, close's own not counted */
    int leading;
    int rotating; /* the leader moves the tail: appends wait */
    int lanes;    /* open: appends with WAL_LANE are taken */
    int poisoned;
    wal_error poison;

    int notify_fd; /* raised with every broadcast of changed; -1: nobody watches */
    int polling;   /* by wal_writer_poll, which sees the news as it leaves */

    struct wal_meta meta;
    uint64_t trim_lsn;
    uint64_t next_lsn;
    uint64_t durable_lsn;
    uint64_t claim_lsn; /* durable when the call under way began: what its frames say of it */
    uint64_t synced_segment_id; /* the highest segment of which a sync succeeded */
    struct wal_segment *closed; /* the chain without the tail, oldest first */
    size_t closed_count;
    size_t closed_room;
    int bypass_newest; /* the newest closed segment holds no record: copy its predecessor record */
    int cut_newest;    /* it ended uncleanly: cut it to its end once its successor is durable */
    uint32_t closed_crc; /* header CRC of the last frame of the newest closed segment */
    struct wal_tail tail;
    struct wal_flight flight;
    struct wal_followers followers;

    /* Background: preparation and space. */
    struct wal_prepared prepared;
    int preparing; /* somebody makes the next segment: the others wait */
    uint64_t next_segment_id;
    uint64_t next_spare;
    uint64_t spares[WAL_SPARES_MAX];
    size_t spare_count;
    struct wal_release *releases;
    size_t release_count;
    size_t release_room;
    uint64_t last_activity_ns;
    uint64_t retry_at_ns;
    int idle_mark_due; /* a good sync, and nothing written since */
    pthread_t background;
    int background_started;
    int background_busy; /* in a step, perhaps with the mutex released */
    int background_paused;
    int background_waits; /* in wait_for_work */
    int background_timed; /* ... and wakes by itself in time for an idle watermark */
    pthread_t committer;
    int committer_started;
    int threads_running; /* of these two */
    int stopping;
    struct wal_job job;
    uint64_t left_ticket; /* of the job that an interruptible call left behind; 0: none */

    uint32_t *tables;  /* end offsets and CRCs of the frame being built */
    size_t table_room; /* in entries */
    wal_stats stats;   /* counters; the io's are added when asked */
    struct wal_histogram sync_latency;
    struct wal_io_counters final_counters; /* the io's, once it is gone */
    uint64_t final_frame_bytes;
    uint64_t reopens; /* that succeeded */
    wal_report last_report;
};

/* One call of the public API on its way through the writer. */
struct wal_call {
    uint32_t flags;       /* WAL_INTERRUPTIBLE: return WAL_E_AGAIN at the deadline */
    uint64_t deadline_ns; /* 0: wait for as long as it takes */
    wal_error *error;
};

/* ---- door.c ---------------------------------------------------------------------------------- */

/* Take the mutex: 0, or WAL_E_AGAIN where a stuck write holds it until the call's deadline. */
int wal_lock(struct wal_writer *writer, const struct wal_call *call);

/* Enter takes the mutex (only if it succeeds), leave gives it back. */
int wal_enter(struct wal_writer *writer, struct wal_call *call);
int wal_leave(struct wal_writer *writer, int result);
struct wal_call wal_call_begin(uint32_t flags, wal_error *error);
int wal_refuse_forked(const struct wal_writer *writer, wal_error *error);
int wal_refuse_closed(const struct wal_writer *writer, wal_error *error); /* the mutex held */
uint64_t wal_writer_frame_bytes(const struct wal_writer *writer);         /* the same */

/* ---- open.c, adopt.c ------------------------------------------------------------------------- */

/* Take over what recovery found; nothing is written. The mutex held. */
int wal_adopt(struct wal_writer *writer, const struct wal_chain *chain, wal_error *error);
void wal_writer_destroy(struct wal_writer *writer);

/* ---- backend.c ------------------------------------------------------------------------------- */

/*
 * Put the backend that options ask for around base (owned on success): a ring, or, where AUTO finds
 * none, threads. options->backend becomes what it is.
 */
int wal_backend_choose(struct wal_io *base, wal_ring_options *options, struct wal_io **engine,
                       wal_backend_info *info, wal_error *error);

/* Once the writer is open: what it came to, buffers and direct I/O included. */
void wal_backend_tell(struct wal_io *engine, const wal_backend_info *info,
                      struct wal_writer *writer);

/* ---- leader.c: all with the mutex held; they may release it in between ----------------------- */

/*
 * Do one slow step, or wait for whoever is at one. 0 means: look at your condition again. Else a
 * negative code: the step's failure, the poison, or WAL_E_AGAIN.
 */
int wal_lead(struct wal_writer *writer, enum wal_step step, uint64_t argument,
             struct wal_call *call);

/* Tell everybody who waits that something changed. */
void wal_announce(struct wal_writer *writer);

/* Wait until something changes (0), or the call's deadline passes (WAL_E_AGAIN). */
int wal_wait(struct wal_writer *writer, struct wal_call *call);

/* The leader's: make everything written to the tail durable, and publish it. */
int wal_sync_tail(struct wal_writer *writer, wal_error *error);

/* Anybody's: wait until lsn is durable, syncing where nobody does; then leave as wal_leave does. */
int wal_commit_and_leave(struct wal_writer *writer, uint64_t lsn, struct wal_call *call);

/* The same for a call with a deadline, which stays. */
int wal_commit_until(struct wal_writer *writer, uint64_t lsn, struct wal_call *call);

/* A write or sync failed: from now on every call gets this error. Returns WAL_E_POISONED. */
int wal_poison(struct wal_writer *writer, int os_code, const char *what, uint64_t offset,
               wal_error *error);
int wal_tell_poison(const struct wal_writer *writer, wal_error *error);

/* ---- tail.c: frames and slots of the tail; the mutex held ------------------------------------ */

/* What a frame holds: records, and the tables that follow them. */
struct wal_frame_body {
    uint16_t type;
    uint16_t flags;
    uint32_t record_count;
    const struct iovec *parts;
    int part_count; /* at most 3 */
};

/* Can frames be put there, or does a segment have to be begun, or un-sealed, first? */
int wal_tail_is_live(const struct wal_writer *writer);

/*
 * Put the next frames, of so many bytes together, into one run that goes down as one request. With
 * direct I/O every frame is put so, and goes at the next PADDED one; else wal_tail_send sends them.
 */
int wal_tail_open_run(struct wal_writer *writer, uint64_t bytes);
int wal_tail_send(struct wal_writer *writer, enum wal_io_kind kind, wal_error *error);

int wal_tail_put(struct wal_writer *writer, const struct wal_frame_body *body, wal_error *error);
int wal_tail_put_index(struct wal_writer *writer, uint64_t *index_offset, wal_error *error);
/* sealed by a rotation: successor_id names the segment that follows; else 0. */
int wal_tail_put_slot(struct wal_writer *writer, int sealed, uint64_t index_offset,
                      uint64_t successor_id);
int wal_tail_write_slot(struct wal_writer *writer, int sealed, uint64_t index_offset,
                        uint64_t successor_id, wal_error *error);
void wal_tail_close(struct wal_writer *writer);

/* Bytes of a frame with such a payload, padding included; what INDEX may need at the end. */
uint64_t wal_frame_bytes(const struct wal_writer *writer, uint64_t payload_bytes);
uint64_t wal_index_reserve(const struct wal_writer *writer, uint64_t segment_bytes);

/* ---- room.c: the leader's; the mutex held ---------------------------------------------------- */

/*
 * The largest payload that several records share: they need no segment larger than usual, and
 * little of a segment's end is left for want of room.
 */
uint64_t wal_shared_payload_bytes(const struct wal_writer *writer);

/* Can need bytes of frames go to the tail right now? */
int wal_has_room(const struct wal_writer *writer, uint64_t need);
int wal_make_room(struct wal_writer *writer, uint64_t need, wal_error *error);
int wal_seal(struct wal_writer *writer, wal_error *error);

/* ---- prepare.c: segments ahead of time, and their end ---------------------------------------- */

/* How far ahead of offset the tail is to be zero-filled: a small log stays small. */
uint64_t wal_fill_step_bytes(uint64_t offset);

/* May a segment of this size be made, as far as log_bytes_max goes, at least in a trimmed log? */
int wal_fits_log(const struct wal_writer *writer, uint64_t segment_bytes);

/* How the tail's file, and what will be the tail, is opened. */
unsigned wal_tail_open_flags(const struct wal_writer *writer);

/* Make a segment of this size ready. The mutex is released meanwhile; writer->preparing guards. */
int wal_prepare(struct wal_writer *writer, uint64_t segment_bytes, struct wal_prepared *prepared,
                wal_error *error);
int wal_release_later(struct wal_writer *writer, const struct wal_release *release);
int wal_release_now(struct wal_writer *writer, const struct wal_release *release);
int wal_ensure_release_room(struct wal_writer *writer, size_t more);

/* ---- background.c ---------------------------------------------------------------------------- */

/* One due step with the mutex held: 1 did something, 0 nothing is due. */
int wal_maintain_step(struct wal_writer *writer);
int wal_background_start(struct wal_writer *writer);
void wal_background_notice(struct wal_writer *writer); /* after an append or a sync */
void wal_background_pause(struct wal_writer *writer);
void wal_background_resume(struct wal_writer *writer);

/* ---- trim.c ---------------------------------------------------------------------------------- */

int wal_trim(struct wal_writer *writer, uint64_t lsn, wal_error *error);

/* ---- clock.c: time and chance, or what a test puts in their place ---------------------------- */

uint64_t wal_clock_us(struct wal_writer *writer);
int wal_random(struct wal_writer *writer, void *bytes, size_t count);

#endif
