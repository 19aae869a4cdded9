/*
 * The power-loss suite's body, shared by test_power_loss.c and test_mutants.c.
 *
 * A workload is a short script. It runs once over a simulated disk, which records a trace; then
 * every prefix of the trace is a place where the power may go, and every state that a cut may
 * leave there is recovered and given to the oracle.
 *
 * Scripts: tokens of one letter and a number, blanks are ignored.
 *   aN  append N bytes              AN  the same, with the record's own CRC
 *   bN  append_batch of N, 1 and 0 bytes      BN  the same, durable (what flush_batch does)
 *   iN  the same, but a signal ends the wait and the batch stays in flight
 *   j   a commit that a signal ends once the sync before its own is done
 *   gN  an atomic batch of three records of N bytes      GN  the same, durable
 *   f   fill: a record of 9000 bytes and a commit; three of them rotate the smallest segment
 *   c   commit (sync)               m   the background steps that are due
 *   tN  truncate_before so that the last N records stay      T   far ahead of the end
 *   x   close and open              k   the process dies; open
 *   r   reopen()                    e   the next sync with something to write fails with EIO
 *   n s u v d  the mode from the next opening on: plain, strict, ring, strict ring, direct
 */
#ifndef WALENGINE_TEST_POWER_H
#define WALENGINE_TEST_POWER_H

#include "session.h"

struct power_options {
    uint64_t seed;
    double scale;
    uint64_t states_max;    /* stop after so many distinct states; 0: when the workloads end */
    uint64_t writer_every;  /* of how many states one is also opened for writing */
    uint64_t nested_every;  /* of how many states one has its own recovery cut at every I/O */
    uint64_t random_states; /* chosen at random where a step has too many to try them all */
    uint64_t subset_max;    /* there: how many prefixes, suffixes, ... of its sectors */
    uint32_t modes;         /* bits of enum session_mode; 0: all */
    bool stop_at_first;     /* violation */
};

struct power_result {
    uint64_t workloads;
    uint64_t steps;         /* prefixes of traces */
    uint64_t states;        /* distinct ones, nested included */
    uint64_t nested_states; /* cuts inside a recovery and the appends after it */
    uint64_t writer_checks;
    uint64_t kills; /* states where only the process died */
    uint64_t exhaustive_steps;
    uint64_t violations;
    uint64_t states_at_first;
    char first[1024]; /* the first violation: workload, step, choice, reason */
};

struct power; /* power.c */

/* Run every workload that the options call for. */
void power_run(const struct power_options *options, struct power_result *result);

/* Run one script; setup gives it a name in messages. */
void power_script(struct power *power, const char *script, enum session_mode mode);

struct power *power_new(const struct power_options *options, struct power_result *result);
void power_free(struct power *power);
bool power_enough(const struct power *power);

/* power_script.c: play a script once; session->why says what went wrong, if anything did. */
void power_play(struct session *session, const char *script);

/* Play the token at *at and move behind it; the result of the call that decided. */
int power_token(struct session *session, const char **at);

#endif
