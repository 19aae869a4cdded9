/* Does a trim that failed come back later? Random trims of META; see trims.h. */
#include "trims.h"

#include "check.h"

static void trims_hold(void) {
    struct trims_result result;
    trims_run(check_seed(), check_scaled(20000), &result);
    if (result.violations > 0) fprintf(stderr, "%s\n", result.first);
    CHECK_EQ(result.violations, 0);
    CHECK(result.damaged_slots > 0);
    COUNT("histories", result.histories);
    COUNT("trims", result.trims);
    COUNT("failed_syncs", result.failed_syncs);
    COUNT("power_cuts", result.power_cuts);
    COUNT("damaged_slots", result.damaged_slots);
    COUNT("violations", result.violations);
}

int main(void) {
    RUN(trims_hold);
    return check_end();
}
