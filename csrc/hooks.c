/* Test seams that ship: fail points, failing allocations, and the mutant switch. */
#include "hooks.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "walengine.h"

/* ---- fail points ----------------------------------------------------------------------------- */

const char *volatile wal_fail_point_name = NULL;

static char armed_name[64];
static atomic_uint_fast64_t armed_countdown;

void wal_fail_point_arm(const char *name, uint64_t nth) {
    wal_fail_point_name = NULL;
    if (name == NULL || name[0] == '\0' || strlen(name) >= sizeof armed_name) return;
    strcpy(armed_name, name);
    atomic_store(&armed_countdown, nth == 0 ? 1 : nth);
    wal_fail_point_name = armed_name;
}

void wal_fail_point_hit(const char *name) {
    if (strcmp(name, armed_name) != 0) return;
    if (atomic_fetch_sub(&armed_countdown, 1) == 1) (void)kill(getpid(), SIGKILL);
}

/* ---- allocations ----------------------------------------------------------------------------- */

static atomic_uint_fast64_t fail_at; /* 0: never */
static atomic_uint_fast64_t allocations;

uint64_t wal_alloc_fail(uint64_t nth) {
    atomic_store(&fail_at, nth);
    return atomic_exchange(&allocations, 0);
}

static int fails_now(void) {
    uint64_t number = atomic_fetch_add(&allocations, 1) + 1;
    return number == atomic_load(&fail_at);
}

void *wal_malloc(size_t bytes) { return fails_now() ? NULL : malloc(bytes); }

void *wal_calloc(size_t count, size_t bytes) { return fails_now() ? NULL : calloc(count, bytes); }

void *wal_realloc(void *memory, size_t bytes) {
    return fails_now() ? NULL : realloc(memory, bytes);
}

void *wal_aligned(size_t alignment, size_t bytes) {
    if (fails_now()) return NULL;
    void *memory = NULL;
    return posix_memalign(&memory, alignment, bytes) == 0 ? memory : NULL;
}

void wal_free(void *memory) { free(memory); }

/* ---- mutants --------------------------------------------------------------------------------- */

#ifdef WALENGINE_MUTANTS
enum wal_mutant wal_mutant_now = WAL_MUTANT_NONE;
#endif
