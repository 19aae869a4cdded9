/*
 * Can the suites fail? Each mutant of hooks.h is switched on in turn, in a process of its own, and
 * the suite named for it must find a violation (or die of it: a sanitizer's report counts). With no
 * mutant all of them pass.
 */
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "hooks.h"
#include "hostile.h"
#include "io_errors.h"
#include "power.h"
#include "trims.h"

/* What a child says through the pipe. */
struct verdict {
    uint64_t violations;
    uint64_t tried; /* states, cases or histories until the first one */
    char first[512];
};

static char directory[] = "/tmp/walengine-mutants-XXXXXX";

static void power_suite(struct verdict *verdict, uint32_t modes) {
    struct power_options options = {
        .modes = modes,
        .seed = check_seed(),
        .states_max = 60000,
        .writer_every = 12,
        .nested_every = 300,
        .random_states = 6,
        .subset_max = 4,
        .stop_at_first = true,
    };
    struct power_result result;
    power_run(&options, &result);
    verdict->violations = result.violations;
    verdict->tried = result.states_at_first;
    snprintf(verdict->first, sizeof(verdict->first), "%.500s", result.first);
}

static void power_all(struct verdict *verdict) { power_suite(verdict, 0); }
static void power_ring(struct verdict *verdict) { power_suite(verdict, 1 << SESSION_RING); }
static void power_direct(struct verdict *verdict) { power_suite(verdict, 1 << SESSION_DIRECT); }

static void io_error_suite(struct verdict *verdict) {
    struct io_errors_options options = {.seed = check_seed(), .scale = 1, .stop_at_first = true};
    struct io_errors_result result;
    io_errors_run(&options, &result);
    verdict->violations = result.violations;
    verdict->tried = result.cases_at_first;
    snprintf(verdict->first, sizeof(verdict->first), "%.500s", result.first);
}

static void hostile_suite(struct verdict *verdict) {
    struct hostile_result result = {0};
    hostile_decode(&result);
    hostile_lock(directory, &result);
    hostile_flip(&result);
    hostile_forge(&result);
    verdict->violations = result.violations;
    verdict->tried = result.frames + result.forged + result.flipped;
    snprintf(verdict->first, sizeof(verdict->first), "%.500s", result.first);
}

static void trims_suite(struct verdict *verdict) {
    struct trims_result result;
    trims_run(check_seed(), 2000, &result);
    verdict->violations = result.violations;
    verdict->tried = result.histories;
    snprintf(verdict->first, sizeof(verdict->first), "%.500s", result.first);
}

struct suite {
    const char *name;
    void (*run)(struct verdict *verdict);
    bool searches; /* for seconds until it finds the mutant: not in make test-quick */
};
static const struct suite power = {"power_loss", power_all, false};
static const struct suite power_slow = {"power_loss", power_all, true};
static const struct suite ring = {"power_loss, ring", power_ring, false};
static const struct suite ring_slow = {"power_loss, ring", power_ring, true};
static const struct suite direct = {"power_loss, direct", power_direct, false};
static const struct suite io_errors = {"io_errors", io_error_suite, false};
static const struct suite hostile = {"hostile", hostile_suite, false};
static const struct suite trims = {"trims", trims_suite, false};

static const struct {
    enum wal_mutant mutant;
    const char *name;
    const struct suite *suite;
} mutants[] = {
    {WAL_MUTANT_M1_SKIP_SYNC, "M1 skip the sync", &power},
    {WAL_MUTANT_M2_ACK_BEFORE_SYNC, "M2 acknowledge before the sync", &io_errors},
    {WAL_MUTANT_M2_ACK_BEFORE_SYNC, "M2 the same, direct", &direct},
    {WAL_MUTANT_M2_ACK_BEFORE_SYNC, "M2 the same, linked", &ring},
    {WAL_MUTANT_M5_NO_SALT, "M5 no new salt", &power},
    {WAL_MUTANT_M6_NO_DIR_SYNC, "M6 no directory sync", &power},
    {WAL_MUTANT_M7_CRC_SKIPS_LSN, "M7 header CRC without LSN", &hostile},
    {WAL_MUTANT_M8_SHORT_WRITE_IS_FULL, "M8 a short write is whole", &io_errors},
    {WAL_MUTANT_M9_UNLINK_BEFORE_META, "M9 segments go before META", &power_slow},
    {WAL_MUTANT_M10_LENGTH_TRUSTED, "M10 lengths are trusted", &hostile},
    {WAL_MUTANT_M11_NO_HEADER_SYNC, "M11 header not synced", &power},
    {WAL_MUTANT_M12_NO_LOCK, "M12 no lock", &hostile},
    {WAL_MUTANT_D1_ACK_BEHIND_HOLE, "D1 acknowledge behind a hole", &direct},
    {WAL_MUTANT_D2_APPEND_BEHIND_FLYING, "D2 append behind a flying write", &ring_slow},
    {WAL_MUTANT_D3_TORN_SLOT_REWRITTEN, "D3 a torn slot of META is written over", &trims},
    {WAL_MUTANT_F1_APPEND_PLAIN, "F1 a direct write without DSYNC", &direct},
    {WAL_MUTANT_F2_APPEND_NOT_PADDED, "F2 append not padded", &power},
    {WAL_MUTANT_F3_RECOVER_CACHED, "F3 recovery reads the cache", &power},
    {WAL_MUTANT_F4_NAME_ORDER, "F4 the chain by names", &power},
    {WAL_MUTANT_F5_TRIM_AHEAD, "F5 trim beyond the end", &power},
    {WAL_MUTANT_F7_UNSEAL_ANY_ALIGNMENT, "F7 un-seal any alignment", &power},
    {WAL_MUTANT_F8_ROTATE_NO_DRAIN, "F8 rotation does not sync", &power},
    {WAL_MUTANT_F8_ROTATE_NO_DRAIN, "F8 the same, direct", &direct},
    {WAL_MUTANT_F9_SEAL_ONE_SYNC, "F9 seal and data in one sync", &power},
    {WAL_MUTANT_F10_NO_FREE_DIR_SYNC, "F10 spare used too early", &power},
};
enum { MUTANTS = sizeof(mutants) / sizeof(mutants[0]), CHILD_SECONDS_MAX = 300 };

/* Run a suite in a child; its noise is dropped. true: it found something, or died of it. */
static bool fails(const struct suite *suite, enum wal_mutant mutant, struct verdict *verdict) {
    int ends[2];
    *verdict = (struct verdict){0};
    CHECK_EQ(pipe(ends), 0);
    fflush(stdout);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
        (void)dup2(null, STDERR_FILENO);
        close(ends[0]);
        (void)alarm(CHILD_SECONDS_MAX);
        wal_mutant_now = mutant;
        suite->run(verdict);
        ssize_t written = write(ends[1], verdict, sizeof(*verdict));
        _exit(written == (ssize_t)sizeof(*verdict) ? 0 : 2);
    }
    close(ends[1]);
    ssize_t got = read(ends[0], verdict, sizeof(*verdict));
    close(ends[0]);
    int status = 0;
    CHECK_EQ(waitpid(child, &status, 0), child);
    hostile_clean(directory);
    if (got == (ssize_t)sizeof(*verdict)) return verdict->violations > 0;
    *verdict = (struct verdict){.violations = 1};
    snprintf(verdict->first, sizeof(verdict->first), "the process died of it (status 0x%x)",
             (unsigned)status);
    return true;
}

static void every_mutant_dies(void) {
    uint64_t tried = 0, killed = 0;
    for (size_t i = 0; i < MUTANTS; i++) {
        if (mutants[i].suite->searches && check_scale() < CHECK_SCALE_FULL) continue;
        tried++;
        struct verdict verdict;
        double begin = check_seconds();
        bool dead = fails(mutants[i].suite, mutants[i].mutant, &verdict);
        if (dead) killed++;
        printf("    %-31s %-18s %-8s after %6" PRIu64 " (%.1f s) %.160s\n", mutants[i].name,
               mutants[i].suite->name, dead ? "killed" : "SURVIVES", verdict.tried,
               check_seconds() - begin, verdict.first);
        fflush(stdout);
    }
    COUNT("mutants", tried);
    COUNT("killed", killed);
    CHECK_EQ(killed, tried);
}

/*
 * The same bodies with nothing switched on: what kills the mutants is no false alarm. (The other
 * two run in full as test programs of their own.)
 */
static void nothing_else_dies(void) {
    struct verdict verdict;
    bool failed = fails(&hostile, WAL_MUTANT_NONE, &verdict);
    if (failed) fprintf(stderr, "%s\n", verdict.first);
    CHECK(!failed);
}

int main(void) {
    (void)check_seed();
    CHECK(mkdtemp(directory) != NULL);
    RUN(every_mutant_dies);
    RUN(nothing_else_dies);
    CHECK_EQ(rmdir(directory), 0);
    return check_end();
}
