/*
 * Random histories: appends, groups, syncs, trims, closing and opening, background steps, failed
 * syncs with lying pages, short writes, power cuts at any I/O and inside recovery.
 * Shared by test_model.c and test_mutants.c.
 */
#ifndef WALENGINE_TEST_MODEL_H
#define WALENGINE_TEST_MODEL_H

#include "session.h"

struct model_result {
    uint64_t histories;
    uint64_t openings;
    uint64_t cuts;
    uint64_t cuts_in_recovery;
    uint64_t kills;
    uint64_t failed_syncs;
    uint64_t records;
    uint64_t violations;
    uint64_t first_history; /* seed of the first violation */
    char first[1024];
};

/* One history; the same seed makes the same one. */
void model_history(uint64_t seed, struct model_result *result);

#endif
