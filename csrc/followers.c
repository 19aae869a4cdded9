/* Followers: sleep, be sent home, be called to work; see followers.h. */
#include "followers.h"

#include <assert.h>
#include <errno.h>
#include <stddef.h>

#include "writer.h"

#ifdef __APPLE__
#include <dispatch/dispatch.h>
typedef dispatch_semaphore_t semaphore;
static void make(semaphore *wake) { *wake = dispatch_semaphore_create(0); }
static void sleep_on(semaphore *wake) {
    (void)dispatch_semaphore_wait(*wake, DISPATCH_TIME_FOREVER);
}
static void raise_up(semaphore *wake) { (void)dispatch_semaphore_signal(*wake); }
static void unmake(semaphore *wake) { dispatch_release(*wake); }
#else
#include <semaphore.h>
typedef sem_t semaphore;
static void make(semaphore *wake) { (void)sem_init(wake, 0, 0); }
static void sleep_on(semaphore *wake) {
    while (sem_wait(wake) != 0 && errno == EINTR) continue;
}
static void raise_up(semaphore *wake) { (void)sem_post(wake); }
static void unmake(semaphore *wake) { (void)sem_destroy(wake); }
#endif

/* So many threads go home side by side. */
enum { CHAINS = 2 };

/* On its thread's stack: not to be touched once that was woken. */
struct wal_follower {
    struct wal_follower *next; /* in the list; once it is released: whom to wake */
    uint64_t lsn;
    int is_durable;
    semaphore wake;
};

static void put(struct wal_followers *list, struct wal_follower *follower) {
    follower->next = NULL;
    if (list->last != NULL) {
        list->last->next = follower;
    } else {
        list->first = follower;
    }
    list->last = follower;
}

static struct wal_follower *take_first(struct wal_followers *list) {
    struct wal_follower *follower = list->first;
    list->first = follower->next;
    if (list->first == NULL) list->last = NULL;
    follower->next = NULL;
    return follower;
}

int wal_follow(struct wal_writer *writer, uint64_t lsn) {
    struct wal_follower me = {.lsn = lsn};
    make(&me.wake);
    put(&writer->followers, &me);
    wal_hand_on(writer);
    pthread_mutex_unlock(&writer->mutex);
    sleep_on(&me.wake);
    unmake(&me.wake);
    if (me.is_durable) {
        if (me.next != NULL) raise_up(&me.next->wake);
        return 1;
    }
    pthread_mutex_lock(&writer->mutex);
    writer->followers.called = 0;
    return 0;
}

void wal_release_followers(struct wal_writer *writer) {
    struct wal_followers stay = {.called = writer->followers.called};
    struct wal_followers chains[CHAINS] = {{.first = NULL}};
    size_t released = 0;
    while (writer->followers.first != NULL) {
        struct wal_follower *follower = take_first(&writer->followers);
        follower->is_durable = follower->lsn <= writer->durable_lsn;
        put(follower->is_durable ? &chains[released++ % CHAINS] : &stay, follower);
    }
    writer->followers = stay;
    assert((size_t)writer->calls >= released);
    writer->calls -= (int)released;
    writer->stats.commits += released;
    for (size_t i = 0; i < CHAINS && i < released; i++) raise_up(&chains[i].first->wake);
}

/* Is somebody at work who will see to the followers, or wakes them if they have to? */
static int is_attended(const struct wal_writer *writer) {
    const struct wal_flight *flight = &writer->flight;
    if (writer->followers.called) return 1;
    if (flight->undone > 0 && !flight->broken) return flight->reaping;
    if (flight->first != flight->next) return 1; /* the filler's sync: the background thread */
    return writer->leading || writer->job.step != WAL_STEP_NONE;
}

void wal_hand_on(struct wal_writer *writer) {
    struct wal_followers *list = &writer->followers;
    while (list->first != NULL && (writer->poisoned || !is_attended(writer))) {
        list->called = 1;
        raise_up(&take_first(list)->wake);
    }
}
