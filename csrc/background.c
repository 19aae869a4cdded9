/*
 * What is done ahead of time, off the commit path: the next segment, zero-filling, giving up
 * segments, the idle watermark. One step at a time, each decided under the mutex; its I/O runs
 * without it, on descriptors of its own. A failure here is tried again later (a release: by the
 * next life), and the commit path does without; only a failed sync of the tail itself poisons,
 * whoever asked for it.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>
#include <time.h>

#include "hooks.h"
#include "writer.h"

enum due { DUE_NOTHING, DUE_RELEASE, DUE_IDLE_MARK, DUE_PREPARE, DUE_FILL_TAIL, DUE_FILL_PREPARED };

/* ---- what is due ----------------------------------------------------------------------------- */

static int is_releasable(const struct wal_writer *writer, const struct wal_release *release) {
    return writer->synced_segment_id >= release->successor_id;
}

static int tail_is_at_rest(const struct wal_writer *writer) {
    return wal_tail_is_live(writer) && !writer->rotating;
}

static int idle_mark_is_due(const struct wal_writer *writer, uint64_t now_ns) {
    if (!writer->idle_mark_due || writer->leading || !tail_is_at_rest(writer)) return 0;
    if (writer->options.flags & (WAL_NO_IDLE_MARK)) return 0;
    if (writer->durable_lsn != writer->next_lsn - 1) return 0;
    if (writer->options.flags & WAL_NO_THREADS) return 1;
    return now_ns >= writer->last_activity_ns + WAL_IDLE_MARK_MS * UINT64_C(1000000);
}

static int preparation_is_due(const struct wal_writer *writer, uint64_t now_ns) {
    if (!tail_is_at_rest(writer) || writer->preparing || writer->prepared.file >= 0) return 0;
    if (now_ns < writer->retry_at_ns) return 0;
    return writer->tail.offset > writer->tail.segment.header.segment_bytes / 2;
}

static int tail_fill_is_due(const struct wal_writer *writer, uint64_t now_ns) {
    const struct wal_tail *tail = &writer->tail;
    if (!tail_is_at_rest(writer) || tail->fill_claimed || now_ns < writer->retry_at_ns) return 0;
    if (tail->frontier >= tail->segment.header.segment_bytes) return 0;
    return tail->frontier < tail->offset + wal_fill_step_bytes(tail->offset);
}

/*
 * One step of zeros is enough of a beginning; the rest is filled once it is the tail. A prepared
 * segment filled to its end would be read to its end by every open: it might have lost its START.
 */
static int prepared_fill_is_due(const struct wal_writer *writer, uint64_t now_ns) {
    const struct wal_prepared *prepared = &writer->prepared;
    if (prepared->file < 0 || prepared->fill_claimed || !tail_is_at_rest(writer)) return 0;
    if (now_ns < writer->retry_at_ns) return 0;
    uint64_t begin = WAL_FRAMES_OFFSET + WAL_FILL_STEP_BYTES_MAX;
    uint64_t end = prepared->segment.header.segment_bytes;
    return prepared->frontier < (begin < end ? begin : end);
}

static enum due what_is_due(const struct wal_writer *writer, size_t *release) {
    uint64_t now_ns = wal_monotonic_ns();
    if (writer->poisoned || writer->state != WAL_WRITER_OPEN) return DUE_NOTHING;
    if (idle_mark_is_due(writer, now_ns)) return DUE_IDLE_MARK;
    for (*release = 0; *release < writer->release_count; ++*release) {
        if (is_releasable(writer, &writer->releases[*release])) return DUE_RELEASE;
    }
    if (tail_fill_is_due(writer, now_ns)) return DUE_FILL_TAIL;
    if (preparation_is_due(writer, now_ns)) return DUE_PREPARE;
    if (prepared_fill_is_due(writer, now_ns)) return DUE_FILL_PREPARED;
    return DUE_NOTHING;
}

/* ---- the steps ------------------------------------------------------------------------------- */

static void note_failure(struct wal_writer *writer) {
    writer->stats.preparation_failures++;
    writer->retry_at_ns = wal_monotonic_ns() + WAL_RETRY_MS * UINT64_C(1000000);
}

static void release_one(struct wal_writer *writer, size_t at) {
    struct wal_release release = writer->releases[at];
    writer->releases[at] = writer->releases[--writer->release_count];
    if (wal_release_now(writer, &release) < 0) note_failure(writer);
}

/*
 * Un-synced on purpose: it costs the device nothing, and torn it is no evidence. It closes the gap
 * that damage to the last group would otherwise pass as "nothing was ever written there".
 */
static void mark_idle(struct wal_writer *writer) {
    writer->idle_mark_due = 0;
    writer->tail.fill_claimed = 1; /* the tail stays, and nobody else writes its slot */
    if (wal_tail_put_slot(writer, 0, 0, 0) < 0) writer->stats.preparation_failures++;
    writer->tail.fill_claimed = 0;
    wal_announce(writer);
}

static void prepare_next(struct wal_writer *writer) {
    struct wal_prepared prepared;
    writer->preparing = 1;
    int result = wal_prepare(writer, writer->options.segment_bytes, &prepared, NULL);
    writer->preparing = 0;
    if (result < 0) {
        note_failure(writer);
    } else {
        writer->prepared = prepared;
    }
    wal_announce(writer);
}

/*
 * Zeros through a descriptor of our own: a writeback error stays visible to the commits' one. A
 * failed flush of the device is told only once, though, and what it may have lost are the commits'
 * bytes too. So a failed sync of the tail poisons, and a commit whose own sync succeeded meanwhile
 * waits for ours before it acknowledges anything (fill_syncing). The mutex is held on entry and on
 * return, and released in between.
 */
static int fill(struct wal_writer *writer, const char *name, uint64_t from, uint64_t to,
                int *syncing) {
    struct wal_io *io = writer->io;
    unsigned flags = wal_tail_open_flags(writer);
    pthread_mutex_unlock(&writer->mutex);
    int file = wal_io_open(io, name, flags);
    int result = file < 0 ? file : wal_io_write_zeros(io, file, from, to - from);
    pthread_mutex_lock(&writer->mutex);
    if (result == 0) {
        *syncing = 1;
        pthread_mutex_unlock(&writer->mutex);
        result = wal_io_sync(io, file);
        pthread_mutex_lock(&writer->mutex);
    }
    wal_io_close(io, file);
    return result;
}

/* Claimed under the mutex; the frontier moves only when the zeros are written and synced. */
static void fill_one(struct wal_writer *writer, const char *segment_name, uint64_t segment_bytes,
                     uint64_t *frontier, int *claimed, uint64_t step) {
    char name[WAL_NAME_BYTES];
    uint64_t from = *frontier;
    uint64_t to = segment_bytes - from < step ? segment_bytes : from + step;
    int is_tail = frontier == &writer->tail.frontier, syncing = 0;
    memcpy(name, segment_name, sizeof name);
    *claimed = 1;
    int result = fill(writer, name, from, to, is_tail ? &writer->tail.fill_syncing : &syncing);
    *claimed = 0; /* nobody rotates, takes or closes a file that is claimed: it is still the same */
    if (result < 0 && is_tail && writer->tail.fill_syncing) {
        (void)wal_poison(writer, result, "syncing the tail's zeros failed", from, NULL);
    } else if (result < 0) {
        note_failure(writer);
    } else {
        assert(*frontier == from);
        *frontier = to;
    }
    if (is_tail) {
        writer->tail.fill_syncing = 0;
        wal_settle(writer); /* what waited for us */
    }
    wal_announce(writer);
    wal_hand_on(writer);
}

static void fill_tail(struct wal_writer *writer) {
    struct wal_tail *tail = &writer->tail;
    fill_one(writer, tail->segment.name, tail->segment.header.segment_bytes, &tail->frontier,
             &tail->fill_claimed, wal_fill_step_bytes(tail->offset));
}

static void fill_prepared(struct wal_writer *writer) {
    struct wal_prepared *prepared = &writer->prepared;
    fill_one(writer, prepared->segment.name, prepared->segment.header.segment_bytes,
             &prepared->frontier, &prepared->fill_claimed, WAL_FILL_STEP_BYTES_MAX);
}

int wal_maintain_step(struct wal_writer *writer) {
    size_t release = 0;
    enum due due = what_is_due(writer, &release);
    switch (due) {
        case DUE_NOTHING: return 0;
        case DUE_RELEASE: release_one(writer, release); break;
        case DUE_IDLE_MARK: mark_idle(writer); break;
        case DUE_PREPARE: prepare_next(writer); break;
        case DUE_FILL_TAIL: fill_tail(writer); break;
        case DUE_FILL_PREPARED: fill_prepared(writer); break;
    }
    return due == DUE_FILL_TAIL || due == DUE_FILL_PREPARED ? 2 : 1;
}

int wal_writer_maintain(struct wal_writer *writer) {
    struct wal_call call = wal_call_begin(0, NULL);
    int result = wal_enter(writer, &call);
    if (result < 0) return result;
    int steps = 0; /* none while a leader, perhaps a reopen, has released the mutex */
    while (steps < 1000 && !writer->leading && wal_maintain_step(writer) > 0) steps++;
    return wal_leave(writer, steps);
}

/* ---- the thread ------------------------------------------------------------------------------ */

static void wait_until_ns(struct wal_writer *writer, uint64_t ns) {
    struct timespec until = {.tv_sec = (time_t)(ns / 1000000000U),
                             .tv_nsec = (long)(ns % 1000000000U)};
    (void)pthread_cond_timedwait(&writer->work, &writer->mutex, &until);
}

/* Filling beside commits doubles their p99; so it rests for as long as a step took. */
static void rest(struct wal_writer *writer, uint64_t began_ns) {
    uint64_t now_ns = wal_monotonic_ns();
    uint64_t until_ns = now_ns + (now_ns - began_ns);
    while (!writer->stopping && wal_monotonic_ns() < until_ns) wait_until_ns(writer, until_ns);
}

/*
 * Wait for something to be due. The idle watermark is a matter of time; so is trying again. All
 * else begins with an append or a sync, and wal_background_notice wakes us then.
 */
static void wait_for_work(struct wal_writer *writer) {
    writer->background_waits = 1;
    if (writer->idle_mark_due && tail_is_at_rest(writer)) {
        writer->background_timed = 1;
        uint64_t due_ns = writer->last_activity_ns + WAL_IDLE_MARK_MS * UINT64_C(1000000);
        uint64_t soon_ns = wal_monotonic_ns() + UINT64_C(5000000); /* a leader may be at work */
        wait_until_ns(writer, due_ns > soon_ns ? due_ns : soon_ns);
    } else if (wal_monotonic_ns() < writer->retry_at_ns) {
        wait_until_ns(writer, writer->retry_at_ns);
    } else {
        pthread_cond_wait(&writer->work, &writer->mutex);
    }
    writer->background_waits = 0;
    writer->background_timed = 0;
}

/*
 * Waking a thread costs a caller microseconds, so it is done only for work that is really there:
 * not for every append, and for an idle watermark only if no timer is running yet.
 */
void wal_background_notice(struct wal_writer *writer) {
    if (!writer->background_waits || writer->poisoned) return;
    int wants_timer = writer->idle_mark_due && !writer->background_timed &&
                      !(writer->options.flags & WAL_NO_IDLE_MARK);
    int has_release = writer->release_count > 0 && !writer->background_timed;
    int due = wants_timer || has_release;
    uint64_t now_ns = writer->retry_at_ns > 0 ? wal_monotonic_ns() : UINT64_MAX;
    if (!due) due = tail_fill_is_due(writer, now_ns) || preparation_is_due(writer, now_ns);
    if (due) pthread_cond_signal(&writer->work);
}

static void *background_main(void *argument) {
    struct wal_writer *writer = argument;
    pthread_mutex_lock(&writer->mutex);
    while (!writer->stopping) {
        int did = 0;
        uint64_t began_ns = wal_monotonic_ns();
        if (!writer->background_paused) {
            writer->background_busy = 1;
            did = wal_maintain_step(writer);
            writer->background_busy = 0;
            wal_announce(writer); /* for those who wait until we are not busy */
        }
        if (did == 2) rest(writer, began_ns);
        if (did == 0) wait_for_work(writer);
    }
    writer->threads_running--;
    wal_announce(writer);
    pthread_mutex_unlock(&writer->mutex);
    return NULL;
}

int wal_background_start(struct wal_writer *writer) {
    if (writer->options.flags & WAL_NO_THREADS) return 0;
    int result = pthread_create(&writer->background, NULL, background_main, writer);
    if (result != 0) return -result;
    writer->background_started = 1;
    writer->threads_running++;
    return 0;
}

void wal_background_pause(struct wal_writer *writer) {
    writer->background_paused = 1;
    while (writer->background_busy) pthread_cond_wait(&writer->changed, &writer->mutex);
}

void wal_background_resume(struct wal_writer *writer) {
    writer->background_paused = 0;
    pthread_cond_signal(&writer->work);
}
