/*
 * Followers: threads that wait for a record of theirs to become durable while another one leads.
 *
 * The obvious way, one condition for all who wait, wakes each of them for each group, whosoever
 * records it held, and lets all of them fight for the mutex at once. So a follower sleeps on a
 * semaphore of its own. Who publishes a group takes those that it covers out of the list and wakes
 * the first few of them; every follower wakes the next one and goes home, without the mutex: it
 * has been counted out already. Hence they reach whatever their callers fight for next (Python's
 * global lock) one by one, while the mutex is free for those who come with new records.
 *
 * Followers do nothing by themselves. Who leaves the writer, or begins to wait in another way, has
 * to see that somebody is at work for those who stay: wal_hand_on calls one of them if not.
 *
 * Only calls without a deadline follow. A signal or a time limit ends the wait of the others, who
 * sleep on the condition `changed` and take part as before.
 */
#ifndef WALENGINE_FOLLOWERS_H
#define WALENGINE_FOLLOWERS_H

#include <stdint.h>

struct wal_writer;
struct wal_call;
struct wal_follower;

struct wal_followers {
    struct wal_follower *first; /* those who sleep, in the order they came */
    struct wal_follower *last;
    int called; /* one was called and has not got the mutex yet: it is at work for the others */
};

/* All with the writer's mutex held. */

/*
 * Sleep until lsn is durable, or one is called. 1: it is durable, the call is counted out, and the
 * mutex is not held any more. 0: look again, with the mutex.
 */
int wal_follow(struct wal_writer *writer, uint64_t lsn);

/* Send home, as successful, whoever waits for what is durable now. */
void wal_release_followers(struct wal_writer *writer);

/* Call one follower to work, if nobody is; all of them, if the writer is poisoned. */
void wal_hand_on(struct wal_writer *writer);

#endif
