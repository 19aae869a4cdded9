/*
 * Power loss: every workload of power_script.c, every prefix of its trace, every state that a cut
 * may leave there, recovered and judged against I1 to I5 (oracle.h). What a cut may do is in
 * simdisk.h. At least 20,000 distinct states at scale 1, and no violation.
 */
#include "check.h"
#include "power.h"

static void every_state_recovers(void) {
    struct power_options options = {
        .seed = check_seed(),
        .scale = check_scale(),
        .states_max = check_scaled(42000),
        .writer_every = 12,
        .nested_every = 300,
        .random_states = check_scaled(6),
        .subset_max = check_scaled(4),
    };
    struct power_result result;
    power_run(&options, &result);
    if (result.violations > 0) fprintf(stderr, "%s\n", result.first);
    CHECK_EQ(result.violations, 0);
    COUNT("workloads", result.workloads);
    COUNT("crash_points", result.steps);
    COUNT("crash_points_exhaustive", result.exhaustive_steps);
    COUNT("states", result.states);
    COUNT("states_in_recovery", result.nested_states);
    COUNT("states_continued", result.writer_checks);
    COUNT("kills", result.kills);
    COUNT("violations", result.violations);
    if (check_scale() >= 1.0) CHECK(result.states >= 20000);
}

int main(void) {
    RUN(every_state_recovers);
    return check_end();
}
