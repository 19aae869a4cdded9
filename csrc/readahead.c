/*
 * Reading ahead: a thread takes the blocks of a cursor while the caller looks at those before.
 *
 * To read and check a block takes about as long as to make its records into objects, and the two
 * need nothing of each other. The caller gets what the cursor gives, in its order, and the end or
 * the error comes behind the last block. A few blocks wait at most, so memory is bounded; then the
 * thread sleeps until half of them are taken: to wake it for each one would cost more.
 *
 * The obvious way is to start the thread at once. But a cursor may be opened for one record. And a
 * caller that takes blocks faster than they can be read only waits for the thread: a block that
 * comes from another processor's cache costs half as much as one that is read. So the caller reads
 * itself until it is seen to spend its time elsewhere, and where there is one processor, always.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "clock.h"
#include "error.h"
#include "hooks.h"
#include "io_posix.h"
#include "walengine.h"

enum { OWN_BLOCKS_MIN = 4, WAITING_MAX = 4 };

struct step {
    int result; /* of wal_cursor_take; <= 0: the last step */
    wal_block block;
    wal_error error;
};

struct wal_readahead {
    wal_cursor *cursor; /* the thread's, once it has been started */
    uint64_t fork_generation;
    unsigned own_blocks; /* that the caller has read itself */
    uint64_t reading_ns; /* what it took, and how long the caller was away in between */
    uint64_t away_ns;
    uint64_t left_ns; /* when it went away */
    int may_start;    /* there is a second processor, and no thread was refused */
    int has_thread;
    pthread_t thread;
    pthread_mutex_t mutex; /* of all below */
    pthread_cond_t changed;
    int is_closing;
    unsigned first, waiting;
    struct step steps[WAITING_MAX]; /* a ring */
};

int wal_readahead_open(wal_reader *reader, uint64_t from_lsn, uint64_t to_lsn, wal_readahead **out,
                       wal_error *error) {
    struct wal_readahead *ahead = wal_calloc(1, sizeof *ahead);
    if (ahead == NULL) return wal_fail(error, -ENOMEM, WAL_NOWHERE, "out of memory");
    int result = wal_cursor_open(reader, from_lsn, to_lsn, &ahead->cursor, error);
    if (result < 0) {
        wal_free(ahead);
        return result;
    }
    ahead->fork_generation = wal_fork_generation();
    ahead->may_start = sysconf(_SC_NPROCESSORS_ONLN) > 1;
    (void)pthread_mutex_init(&ahead->mutex, NULL);
    (void)pthread_cond_init(&ahead->changed, NULL);
    *out = ahead;
    return 0;
}

/* ---- the thread ------------------------------------------------------------------------------ */

/* Put a step behind those that wait, when there is room. 0: nobody will take it. */
static int put(struct wal_readahead *ahead, const struct step *step) {
    pthread_mutex_lock(&ahead->mutex);
    if (ahead->waiting == WAITING_MAX) {
        while (ahead->waiting > WAITING_MAX / 2 && !ahead->is_closing) {
            pthread_cond_wait(&ahead->changed, &ahead->mutex);
        }
    }
    int goes_on = !ahead->is_closing;
    if (goes_on) {
        ahead->steps[(ahead->first + ahead->waiting) % WAITING_MAX] = *step;
        if (ahead->waiting++ == 0) pthread_cond_signal(&ahead->changed);
    }
    pthread_mutex_unlock(&ahead->mutex);
    return goes_on;
}

static void *readahead_main(void *argument) {
    struct wal_readahead *ahead = argument;
    struct step step;
    do {
        step.error.code = 0;
        step.result = wal_cursor_take(ahead->cursor, &step.block, &step.error);
        if (!put(ahead, &step)) {
            if (step.result > 0) wal_block_free(step.block.data);
            break;
        }
    } while (step.result > 0);
    return NULL;
}

/* Signals are for the program's own threads. Where no thread can be had, the caller goes on. */
static void start(struct wal_readahead *ahead) {
    sigset_t all, before;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    ahead->has_thread = pthread_create(&ahead->thread, NULL, readahead_main, ahead) == 0;
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    ahead->may_start = 0;
}

/* ---- the caller ------------------------------------------------------------------------------ */

/* The oldest step that waits; an end or an error stays, so that asking again gives it again. */
static int take_waiting(struct wal_readahead *ahead, wal_block *block, wal_error *error) {
    pthread_mutex_lock(&ahead->mutex);
    while (ahead->waiting == 0) pthread_cond_wait(&ahead->changed, &ahead->mutex);
    const struct step *step = &ahead->steps[ahead->first];
    int result = step->result;
    *block = step->block;
    if (result < 0 && error != NULL) *error = step->error;
    if (result > 0) {
        ahead->first = (ahead->first + 1) % WAITING_MAX;
        if (--ahead->waiting == WAITING_MAX / 2) pthread_cond_signal(&ahead->changed);
    }
    pthread_mutex_unlock(&ahead->mutex);
    return result;
}

static int is_forked(const struct wal_readahead *ahead) {
    return ahead->has_thread && ahead->fork_generation != wal_fork_generation();
}

/* Does the thread pay? Once the caller is away for half as long as the reading takes. */
static int pays(const struct wal_readahead *ahead) {
    return ahead->may_start && ahead->own_blocks >= OWN_BLOCKS_MIN &&
           ahead->away_ns >= ahead->reading_ns / 2;
}

static int read_itself(struct wal_readahead *ahead, uint64_t begin_ns, wal_block *block,
                       wal_error *error) {
    int result = wal_cursor_take(ahead->cursor, block, error);
    ahead->left_ns = wal_monotonic_ns();
    ahead->reading_ns += ahead->left_ns - begin_ns;
    ahead->own_blocks++;
    return result;
}

int wal_readahead_next(wal_readahead *ahead, wal_block *block, wal_error *error) {
    if (is_forked(ahead)) {
        return wal_fail(error, WAL_E_FORKED, WAL_NOWHERE,
                        "this iterator was begun before fork() and its thread is the parent's; "
                        "begin a new one");
    }
    if (ahead->has_thread) return take_waiting(ahead, block, error);
    uint64_t begin_ns = wal_monotonic_ns();
    if (ahead->own_blocks > 0) ahead->away_ns += begin_ns - ahead->left_ns;
    if (pays(ahead)) start(ahead);
    if (ahead->has_thread) return take_waiting(ahead, block, error);
    return read_itself(ahead, begin_ns, block, error);
}

void wal_readahead_close(wal_readahead *ahead) {
    if (ahead == NULL || is_forked(ahead)) return; /* the child cannot know what the thread did */
    if (ahead->has_thread) {
        pthread_mutex_lock(&ahead->mutex);
        ahead->is_closing = 1;
        pthread_cond_signal(&ahead->changed);
        pthread_mutex_unlock(&ahead->mutex);
        (void)pthread_join(ahead->thread, NULL);
    }
    for (; ahead->waiting > 0; ahead->waiting--, ahead->first = (ahead->first + 1) % WAITING_MAX) {
        const struct step *step = &ahead->steps[ahead->first];
        if (step->result > 0) wal_block_free(step->block.data);
    }
    wal_cursor_close(ahead->cursor);
    (void)pthread_cond_destroy(&ahead->changed);
    (void)pthread_mutex_destroy(&ahead->mutex);
    wal_free(ahead);
}
