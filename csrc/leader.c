/*
 * The leader: one slow step at a time, by whoever needs it first.
 *
 * The obvious way, every caller syncing for itself, is wrong twice: it costs a device flush each,
 * and with two syncs of one descriptor in flight a writeback error reaches only one of them while
 * the other returns 0. So one thread leads; the rest wait for what it publishes.
 *
 * A commit is no such step: it is a group in flight (flight.h), which anybody may begin and anybody
 * may wait for. A caller that a signal must be able to interrupt cannot sit in the others on a
 * stuck disk. It posts its step to the committer thread and waits in slices.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>
#include <time.h>

#include "error.h"
#include "hooks.h"
#include "writer.h"

/* ---- waiting --------------------------------------------------------------------------------- */

/*
 * An event loop is told through its descriptor. Not by its own call: that looks at the state as it
 * leaves, and raising the descriptor would only wake the loop once more for nothing.
 */
void wal_announce(struct wal_writer *writer) {
    pthread_cond_broadcast(&writer->changed);
    if (writer->notify_fd >= 0 && !writer->polling) wal_raise(writer->notify_fd);
}

int wal_wait(struct wal_writer *writer, struct wal_call *call) {
    /* The mutex stays taken: what the caller has just looked at is still so when it leaves. */
    if (call->flags & WAL_NO_WAIT) return WAL_E_AGAIN;
    wal_hand_on(writer); /* perhaps this thread has reaped so far */
    if (call->deadline_ns == 0) {
        pthread_cond_wait(&writer->changed, &writer->mutex);
        return 0;
    }
    struct timespec until = {.tv_sec = (time_t)(call->deadline_ns / 1000000000U),
                             .tv_nsec = (long)(call->deadline_ns % 1000000000U)};
    int result = pthread_cond_timedwait(&writer->changed, &writer->mutex, &until);
    return result == ETIMEDOUT ? WAL_E_AGAIN : 0;
}

/* ---- poison ---------------------------------------------------------------------------------- */

int wal_tell_poison(const struct wal_writer *writer, wal_error *error) {
    if (error != NULL) *error = writer->poison;
    return WAL_E_POISONED;
}

int wal_poison(struct wal_writer *writer, int os_code, const char *what, uint64_t offset,
               wal_error *error) {
    if (!writer->poisoned) {
        struct wal_place place = {.file = writer->tail.segment.name,
                                  .segment_id = writer->tail.segment.header.segment_id,
                                  .offset = offset,
                                  .lsn = writer->durable_lsn};
        (void)wal_fail_os(&writer->poison, os_code, place, "%s", what);
        writer->poison.code = WAL_E_POISONED;
        writer->poisoned = 1;
        writer->idle_mark_due = 0;
        wal_announce(writer);
        wal_hand_on(writer);
    }
    return wal_tell_poison(writer, error);
}

/* ---- the sync -------------------------------------------------------------------------------- */

int wal_sync_tail(struct wal_writer *writer, wal_error *error) {
    if (writer->poisoned) return wal_tell_poison(writer, error);
    if (!wal_tail_is_live(writer)) return 0;
    int result = wal_drain(writer, error);
    if (result < 0 || writer->direct) return result; /* direct: what is finished is synced */
    result = wal_begin_sync(writer, error);
    return result < 0 ? result : wal_drain(writer, error);
}

/*
 * Whoever finds no sync under way begins one, and it covers everybody who has appended by then. Who
 * comes while one is at the device waits for the next.
 */
static int commit(struct wal_writer *writer, uint64_t lsn, struct wal_call *call, int *has_left) {
    const struct wal_flight *flight = &writer->flight;
    int result = 0;
    while (result == 0 && writer->durable_lsn < lsn) {
        int is_idle = flight->first == flight->next;
        if (writer->poisoned) {
            result = wal_tell_poison(writer, call->error);
        } else if (is_idle && !writer->leading && writer->job.step == WAL_STEP_NONE) {
            result = wal_begin_sync(writer, call->error);
        } else if (wal_may_reap(writer) || call->deadline_ns != 0) {
            result = is_idle ? wal_wait(writer, call) : wal_await(writer, call);
        } else if (wal_follow(writer, lsn)) {
            *has_left = 1;
            return 0;
        }
    }
    return result;
}

int wal_commit_until(struct wal_writer *writer, uint64_t lsn, struct wal_call *call) {
    int has_left = 0;
    assert(call->deadline_ns != 0); /* it does not follow, and so does not leave */
    return commit(writer, lsn, call, &has_left);
}

int wal_commit_and_leave(struct wal_writer *writer, uint64_t lsn, struct wal_call *call) {
    int has_left = 0;
    int result = commit(writer, lsn, call, &has_left);
    if (has_left) return 0;
    if (result == 0 && (call->flags & WAL_NO_WAIT) == 0) writer->stats.commits++;
    return wal_leave(writer, result);
}

/* ---- steps ----------------------------------------------------------------------------------- */

static int run_step(struct wal_writer *writer, enum wal_step step, uint64_t argument,
                    wal_error *error) {
    assert(writer->leading);
    switch (step) {
        case WAL_STEP_ROOM: return wal_make_room(writer, argument, error);
        case WAL_STEP_TRIM: return wal_trim(writer, argument, error);
        case WAL_STEP_SEAL: return wal_seal(writer, error);
        case WAL_STEP_NONE: break;
    }
    return 0;
}

static int lead_now(struct wal_writer *writer, enum wal_step step, uint64_t argument,
                    wal_error *error) {
    writer->leading = 1;
    wal_hand_on(writer);
    int result = run_step(writer, step, argument, error);
    writer->leading = 0;
    wal_announce(writer);
    if (writer->job.step != WAL_STEP_NONE) pthread_cond_signal(&writer->posted);
    return result;
}

/* ---- the committer --------------------------------------------------------------------------- */

static void *committer_main(void *argument) {
    struct wal_writer *writer = argument;
    struct wal_job *job = &writer->job;
    pthread_mutex_lock(&writer->mutex);
    for (;;) {
        while (!writer->stopping && (job->step == WAL_STEP_NONE || writer->leading)) {
            pthread_cond_wait(&writer->posted, &writer->mutex);
        }
        if (writer->stopping) break;
        wal_error error = {.code = 0}; /* job->error is being read while we are at work */
        job->result = lead_now(writer, job->step, job->argument, &error);
        job->error = error;
        job->step = WAL_STEP_NONE;
        job->done = job->ticket;
        wal_announce(writer);
        wal_hand_on(writer);
    }
    writer->threads_running--;
    wal_announce(writer);
    pthread_mutex_unlock(&writer->mutex);
    return NULL;
}

static int has_committer(struct wal_writer *writer) {
    if ((writer->options.flags & WAL_NO_THREADS) || writer->stopping) return 0;
    if (writer->committer_started) return 1;
    if (pthread_create(&writer->committer, NULL, committer_main, writer) != 0) return 0;
    writer->committer_started = 1;
    writer->threads_running++;
    return 1;
}

/* The outcome of a job that is done; of one that was overtaken nobody knows any more. */
static int outcome(const struct wal_job *job, uint64_t ticket, struct wal_call *call) {
    if (job->done != ticket || job->result == 0) return 0;
    if (call->error != NULL) *call->error = job->error;
    return job->result;
}

static int post(struct wal_writer *writer, enum wal_step step, uint64_t argument,
                struct wal_call *call) {
    struct wal_job *job = &writer->job;
    job->step = job->last_step = step;
    job->argument = argument;
    uint64_t ticket = ++job->ticket;
    pthread_cond_signal(&writer->posted);
    while (job->done < ticket) {
        int result = wal_wait(writer, call);
        if (result < 0 && job->done < ticket) {
            writer->left_ticket = ticket;
            return result;
        }
    }
    return outcome(job, ticket, call);
}

/*
 * What became of the job that such a call left behind; 0 where there was none. Else the call that
 * comes back would begin the same anew, and never learn of a failure that takes longer than it may
 * wait.
 */
static int left_outcome(struct wal_writer *writer, enum wal_step step, uint64_t argument,
                        struct wal_call *call) {
    const struct wal_job *job = &writer->job;
    uint64_t ticket = writer->left_ticket;
    if ((call->flags & WAL_INTERRUPTIBLE) == 0 || ticket == 0 || job->done < ticket) return 0;
    writer->left_ticket = 0;
    /* More may have been staged meanwhile: what is refused less is refused more. */
    int is_same = job->last_step == step && job->argument <= argument;
    return is_same ? outcome(job, ticket, call) : 0;
}

int wal_lead(struct wal_writer *writer, enum wal_step step, uint64_t argument,
             struct wal_call *call) {
    if (writer->poisoned) return wal_tell_poison(writer, call->error);
    int result = left_outcome(writer, step, argument, call);
    if (result < 0) return result;
    if (writer->leading || writer->job.step != WAL_STEP_NONE) return wal_wait(writer, call);
    if ((call->flags & WAL_INTERRUPTIBLE) && has_committer(writer)) {
        return post(writer, step, argument, call);
    }
    return lead_now(writer, step, argument, call->error);
}
