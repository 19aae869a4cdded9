/*
 * The event loop's side of a writer: a descriptor that tells it to come, and a call that sees what
 * there is and never waits. Appends without waiting are append.c's, slow steps leader.c's.
 *
 * No news may be lost. All that such a call looks at changes under the mutex, which it holds from
 * its last look until it leaves, and every change after that raises the descriptor: wal_announce,
 * and for completions, which change nothing before they are reaped, the I/O seam's notify.
 */
#include <errno.h>

#include "error.h"
#include "writer.h"

int wal_writer_notify(wal_writer *writer, int fd, wal_error *error) {
    struct wal_call call = wal_call_begin(0, error);
    int result = wal_refuse_forked(writer, error);
    if (result < 0) return result;
    pthread_mutex_lock(&writer->mutex);
    result = wal_refuse_closed(writer, call.error);
    if (result == 0) result = wal_io_notify(writer->io, fd);
    if (result == 0) writer->notify_fd = fd;
    pthread_mutex_unlock(&writer->mutex);
    if (result >= 0 || result <= WAL_E_POISONED) return result;
    (void)wal_fail(error, WAL_E_NO_IO_URING, WAL_NOWHERE,
                   "the kernel refused to tell an eventfd about the ring's completions; use "
                   "backend='pwrite'");
    if (error != NULL) error->os_error = -result;
    return WAL_E_NO_IO_URING;
}

int wal_writer_poll(wal_writer *writer, uint64_t lsn, uint64_t *durable_lsn, wal_error *error) {
    struct wal_call call = wal_call_begin(WAL_NO_WAIT, error);
    *durable_lsn = 0;
    int result = wal_refuse_forked(writer, error);
    if (result < 0) return result;
    result = wal_enter(writer, &call);
    if (result < 0) {
        wal_position position;
        wal_writer_position(writer, &position);
        *durable_lsn = position.durable_lsn;
        return result;
    }
    writer->polling = 1;
    (void)wal_await(writer, &call);
    uint64_t last_lsn = writer->next_lsn - 1;
    result = wal_commit_until(writer, lsn < last_lsn ? lsn : last_lsn, &call);
    *durable_lsn = writer->durable_lsn;
    writer->polling = 0;
    return wal_leave(writer, result);
}
