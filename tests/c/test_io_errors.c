/*
 * Fail the Nth I/O of a workload, for every N, once and for good: over the simulated disk, which is
 * then also cut, and, sampled, over real files.
 */
#include "io_errors.h"

#include <unistd.h>

#include "check.h"

static void report(const struct io_errors_result *result) {
    if (result->violations > 0) fprintf(stderr, "%s\n", result->first);
    CHECK_EQ(result->violations, 0);
}

static void on_the_simulated_disk(void) {
    struct io_errors_options options = {.seed = check_seed(), .scale = check_scale()};
    struct io_errors_result result;
    io_errors_run(&options, &result);
    report(&result);
    COUNT("cases", result.cases);
    COUNT("failed_calls", result.failures);
    COUNT("poisoned_writers", result.poisoned);
    COUNT("faults_nobody_noticed", result.hidden);
}

static void on_real_files(void) {
    char directory[] = "/tmp/walengine-errors-XXXXXX";
    CHECK(mkdtemp(directory) != NULL);
    struct io_errors_options options = {
        .seed = check_seed(), .scale = check_scale(), .directory = directory};
    struct io_errors_result result;
    io_errors_run(&options, &result);
    report(&result);
    COUNT("real_cases", result.cases);
    COUNT("real_failed_calls", result.failures);
    CHECK_EQ(rmdir(directory), 0);
}

int main(void) {
    RUN(on_the_simulated_disk);
    RUN(on_real_files);
    return check_end();
}
