/*
 * META alone under random trims: syncs that fail, power cuts, and whatever both leave in its slots.
 * Shared by test_trims.c and test_mutants.c.
 */
#ifndef WALENGINE_TEST_TRIMS_H
#define WALENGINE_TEST_TRIMS_H

#include <stdint.h>

struct trims_result {
    uint64_t histories;
    uint64_t trims;
    uint64_t failed_syncs;
    uint64_t power_cuts;
    uint64_t damaged_slots; /* met by a load */
    uint64_t violations;
    char first[512];
};

/*
 * So many histories, or up to the first violation. After each fault META has to say the last trim
 * that succeeded, or the one that failed; never one that failed before META was last read.
 */
void trims_run(uint64_t seed, uint64_t histories, struct trims_result *result);

#endif
