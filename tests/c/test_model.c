/*
 * Random histories over the simulated disk. WALENGINE_SEED repeats a run; the number in a failure's
 * message is the seed of its history, and WALENGINE_HISTORY runs that one alone.
 */
#include "model.h"

#include "check.h"

static void histories_hold(void) {
    struct model_result result = {0};
    uint64_t seed = check_seed();
    const char *one = getenv("WALENGINE_HISTORY");
    uint64_t count = one != NULL ? 1 : check_scaled(3000);
    for (uint64_t i = 0; i < count && result.violations == 0; i++) {
        uint64_t history = seed * 1000003 + i;
        if (one != NULL) history = strtoull(one, NULL, 0);
        model_history(history, &result);
    }
    if (result.violations > 0) fprintf(stderr, "%s\n", result.first);
    CHECK_EQ(result.violations, 0);
    COUNT("histories", result.histories);
    COUNT("openings", result.openings);
    COUNT("power_cuts", result.cuts);
    COUNT("power_cuts_in_recovery", result.cuts_in_recovery);
    COUNT("kills", result.kills);
    COUNT("failed_syncs", result.failed_syncs);
    COUNT("records", result.records);
    COUNT("violations", result.violations);
}

int main(void) {
    RUN(histories_hold);
    return check_end();
}
