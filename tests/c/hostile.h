/*
 * Bytes that no writer of ours put there, and a second opinion on those that ours did.
 * Shared by test_hostile.c and test_mutants.c.
 */
#ifndef WALENGINE_TEST_HOSTILE_H
#define WALENGINE_TEST_HOSTILE_H

#include "session.h"

struct hostile_result {
    uint64_t frames;   /* written by the core, decoded by the table in format.h */
    uint64_t forged;   /* frames with right CRCs and wrong numbers */
    uint64_t flipped;  /* single bits of frame headers */
    uint64_t reported; /* of the last two: refused, or ended before */
    uint64_t violations;
    char first[512];
};

/* Every frame that scripts leave behind agrees with format.h, byte for byte of its CRCs. */
void hostile_decode(struct hostile_result *result);

/* Frames whose CRCs are right and whose lengths, counts and end offsets lie. */
void hostile_forge(struct hostile_result *result);

/* Every bit of every frame header, one at a time. */
void hostile_flip(struct hostile_result *result);

/* Two writers in one real directory below `directory`: the second is refused, by name. */
void hostile_lock(const char *directory, struct hostile_result *result);

/* Remove the log that hostile_lock leaves behind where it dies half-way. */
void hostile_clean(const char *directory);

#endif
