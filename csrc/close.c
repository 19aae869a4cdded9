/*
 * The end of a writer: nobody inside, the tail sealed, threads gone, files and lock given back.
 *
 * An interruptible close that is not done answers WAL_E_AGAIN and goes on where it stood when it is
 * called again. Of several closers the first does the work; none returns before the lock is free.
 */

#include "error.h"
#include "io_posix.h"
#include "writer.h"

/* Wait until nobody is inside, the disk is not in somebody's hands, and the tail is sealed. */
static int wind_down(struct wal_writer *writer, struct wal_call *call) {
    while (writer->calls > 0 || writer->leading || writer->job.step != WAL_STEP_NONE) {
        int result = wal_wait(writer, call);
        if (result < 0) return result;
    }
    while (writer->flight.undone > 0 && !writer->flight.broken) { /* their memory is not ours yet */
        int result = wal_await(writer, call);
        if (result < 0) return result;
    }
    while (!writer->poisoned && writer->tail.file >= 0 && !writer->tail.needs_unseal) {
        int result = wal_lead(writer, WAL_STEP_SEAL, 0, call);
        if (result == WAL_E_AGAIN) return result;
        if (result < 0 && !writer->poisoned) { /* nothing was begun, and there is no later */
            (void)wal_poison(writer, result, "closing failed", writer->tail.offset, NULL);
        }
        if (result < 0) return 0; /* the poison tells */
    }
    return 0;
}

static int stop_threads(struct wal_writer *writer, struct wal_call *call) {
    writer->stopping = 1;
    pthread_cond_signal(&writer->posted);
    pthread_cond_signal(&writer->work);
    while (writer->threads_running > 0) {
        int result = wal_wait(writer, call);
        if (result < 0) return result;
    }
    return 0;
}

static void join_threads(struct wal_writer *writer) {
    if (writer->background_started) (void)pthread_join(writer->background, NULL);
    if (writer->committer_started) (void)pthread_join(writer->committer, NULL);
    writer->background_started = 0;
    writer->committer_started = 0;
}

/* Give files and lock back; what position and stats tell of a closed writer stays. */
static void let_go(struct wal_writer *writer) {
    writer->final_frame_bytes = wal_writer_frame_bytes(writer);
    wal_io_count(writer->io, &writer->final_counters);
    wal_io_destroy(writer->io); /* closes the files, once the kernel is done with them */
    writer->io = NULL;
    wal_flight_free(writer);
    wal_announce(writer);
}

int wal_writer_close(wal_writer *writer, uint32_t flags, wal_error *error) {
    int result = wal_refuse_forked(writer, error);
    if (result < 0) return result;
    struct wal_call call = wal_call_begin(flags, error);
    pthread_mutex_lock(&writer->mutex);
    if (writer->state == WAL_WRITER_CLOSED) { /* perhaps not done yet: the lock is what counts */
        while (writer->io != NULL) pthread_cond_wait(&writer->changed, &writer->mutex);
        pthread_mutex_unlock(&writer->mutex);
        return 0;
    }
    writer->state = WAL_WRITER_CLOSING;
    wal_announce(writer);
    result = wind_down(writer, &call);
    if (result == 0) result = stop_threads(writer, &call);
    if (result < 0) { /* not done: the caller comes back */
        pthread_mutex_unlock(&writer->mutex);
        return result;
    }
    int is_first = writer->state != WAL_WRITER_CLOSED; /* of several threads that close at once */
    writer->state = WAL_WRITER_CLOSED;
    if (writer->poisoned) result = wal_tell_poison(writer, error);
    pthread_mutex_unlock(&writer->mutex);
    if (is_first) join_threads(writer);
    pthread_mutex_lock(&writer->mutex);
    if (is_first) {
        let_go(writer);
    } else { /* nobody returns from close while the lock is still held */
        while (writer->io != NULL) pthread_cond_wait(&writer->changed, &writer->mutex);
    }
    pthread_mutex_unlock(&writer->mutex);
    return result;
}

void wal_writer_free(wal_writer *writer) {
    if (writer == NULL || writer->fork_generation != wal_fork_generation()) return;
    pthread_mutex_lock(&writer->mutex);
    struct wal_call call = wal_call_begin(0, NULL);
    (void)stop_threads(writer, &call);
    pthread_mutex_unlock(&writer->mutex);
    join_threads(writer);
    wal_writer_destroy(writer);
}
