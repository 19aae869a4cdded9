/*
 * The suites that let one operation fail, for every operation of a workload: I/O errors and
 * allocations. Shared by test_io_errors.c, test_oom.c and test_mutants.c.
 */
#ifndef WALENGINE_TEST_IO_ERRORS_H
#define WALENGINE_TEST_IO_ERRORS_H

#include "session.h"

struct io_errors_options {
    uint64_t seed;
    double scale;
    const char *directory; /* real files below it; NULL: the simulated disk */
    bool stop_at_first;
};

struct io_errors_result {
    uint64_t cases;    /* workloads run with a fault in them */
    uint64_t failures; /* calls that answered with an error */
    uint64_t poisoned; /* writers */
    uint64_t hidden;   /* faults that no caller saw */
    uint64_t violations;
    uint64_t cases_at_first;
    char first[1024];
};

void io_errors_run(const struct io_errors_options *options, struct io_errors_result *result);
void oom_run(const struct io_errors_options *options, struct io_errors_result *result);

#endif
