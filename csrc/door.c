/*
 * The door that every call of the writer goes through: is it ours (fork), is it open, is it sound?
 * And what can be seen through its window at any time: position and statistics.
 */
#include <errno.h>
#include <string.h>
#include <time.h>

#include "error.h"
#include "io_posix.h"
#include "writer.h"

/* ---- in and out ------------------------------------------------------------------------------ */

struct wal_call wal_call_begin(uint32_t flags, wal_error *error) {
    struct wal_call call = {.flags = flags, .error = error};
    if (flags & WAL_NO_WAIT) {
        call.flags |= WAL_INTERRUPTIBLE;
        call.deadline_ns = 1; /* long over */
    } else if (flags & WAL_INTERRUPTIBLE) {
        call.deadline_ns = wal_monotonic_ns() + WAL_SLICE_MS * UINT64_C(1000000);
    }
    return call;
}

int wal_refuse_forked(const struct wal_writer *writer, wal_error *error) {
    if (writer->fork_generation == wal_fork_generation()) return 0;
    return wal_fail(error, WAL_E_FORKED, WAL_NOWHERE,
                    "this writer was opened before fork() and belongs to the parent process; open "
                    "the log anew, once the parent has closed it");
}

int wal_refuse_closed(const struct wal_writer *writer, wal_error *error) {
    if (writer->state == WAL_WRITER_OPEN) return 0;
    return wal_fail(error, WAL_E_CLOSED, WAL_NOWHERE, "the writer is closed");
}

/*
 * A write into the page cache is done with the mutex held, and now and then the kernel keeps such a
 * write waiting. The clock of the wait can be set; then a slice is shorter or longer, once.
 */
int wal_lock(struct wal_writer *writer, const struct wal_call *call) {
    int must_wait = call->deadline_ns == 0 || (call->flags & WAL_NO_WAIT) != 0; /* or miss news */
    if (must_wait) return -pthread_mutex_lock(&writer->mutex);
    if (pthread_mutex_trylock(&writer->mutex) == 0) return 0;
#ifdef __APPLE__
    struct timespec pause = {.tv_nsec = 1000000};
    while (pthread_mutex_trylock(&writer->mutex) != 0) {
        if (wal_monotonic_ns() >= call->deadline_ns) return WAL_E_AGAIN;
        (void)nanosleep(&pause, NULL);
    }
    return 0;
#else
    struct timespec until;
    uint64_t now_ns = wal_monotonic_ns();
    uint64_t left_ns = now_ns < call->deadline_ns ? call->deadline_ns - now_ns : 0;
    (void)clock_gettime(CLOCK_REALTIME, &until);
    left_ns += (uint64_t)until.tv_nsec;
    until.tv_sec += (time_t)(left_ns / 1000000000U);
    until.tv_nsec = (long)(left_ns % 1000000000U);
    return pthread_mutex_timedlock(&writer->mutex, &until) == 0 ? 0 : WAL_E_AGAIN;
#endif
}

int wal_enter(struct wal_writer *writer, struct wal_call *call) {
    int result = wal_refuse_forked(writer, call->error);
    if (result == 0) result = wal_lock(writer, call);
    if (result < 0) return result;
    result = wal_refuse_closed(writer, call->error);
    if (result == 0 && writer->poisoned) result = wal_tell_poison(writer, call->error);
    if (result < 0) {
        pthread_mutex_unlock(&writer->mutex);
        return result;
    }
    writer->calls++;
    return 0;
}

int wal_leave(struct wal_writer *writer, int result) {
    writer->calls--;
    wal_hand_on(writer);
    if (writer->calls == 0) pthread_cond_broadcast(&writer->changed); /* for close and reopen */
    pthread_mutex_unlock(&writer->mutex);
    return result;
}

/* ---- the window ------------------------------------------------------------------------------ */

uint64_t wal_writer_frame_bytes(const struct wal_writer *writer) {
    if (writer->io == NULL) return writer->final_frame_bytes;
    uint64_t bytes = 0;
    for (size_t i = 0; i < writer->closed_count; i++) {
        bytes += writer->closed[i].end_offset - WAL_FRAMES_OFFSET;
    }
    if (writer->tail.file >= 0) bytes += writer->tail.offset - WAL_FRAMES_OFFSET;
    return bytes;
}

void wal_writer_position(wal_writer *writer, wal_position *position) {
    memset(position, 0, sizeof *position);
    if (wal_refuse_forked(writer, NULL) < 0) return;
    pthread_mutex_lock(&writer->mutex);
    position->first_lsn = writer->trim_lsn < writer->next_lsn ? writer->trim_lsn : writer->next_lsn;
    position->last_lsn = writer->next_lsn - 1;
    position->durable_lsn = writer->durable_lsn;
    position->frame_bytes = wal_writer_frame_bytes(writer);
    position->poisoned = (uint64_t)writer->poisoned;
    pthread_mutex_unlock(&writer->mutex);
}

void wal_writer_stats(wal_writer *writer, wal_stats *stats) {
    memset(stats, 0, sizeof *stats);
    if (wal_refuse_forked(writer, NULL) < 0) return;
    pthread_mutex_lock(&writer->mutex);
    *stats = writer->stats;
    wal_histogram_summary(&writer->sync_latency, &stats->sync_latency);
    stats->segments = writer->closed_count + (writer->tail.file >= 0);
    struct wal_io_counters counters = writer->final_counters;
    if (writer->io != NULL) wal_io_count(writer->io, &counters);
    stats->ops_submitted = counters.ops_submitted;
    stats->ops_completed = counters.ops_completed;
    stats->bytes_written = counters.bytes_written;
    stats->bytes_read = counters.bytes_read;
    stats->cqe_overflows = counters.cqe_overflows;
    stats->sq_dropped = counters.sq_dropped;
    memcpy(stats->ring_ops, counters.ring_ops, sizeof stats->ring_ops);
    pthread_mutex_unlock(&writer->mutex);
}

void wal_writer_backend(wal_writer *writer, wal_backend_info *info) { *info = writer->info; }
