/*
 * Fail the Nth operation, for every N until the workload no longer reaches it.
 *
 * Whatever fails, the oracle's invariants hold; a writer that may have lost data is poisoned and
 * stays so; one that met a full disk while preparing is not, and goes on once there is space; an
 * interrupted call (but a sync) is finished where it was interrupted; and after the fault is gone,
 * reopen() or the same call once more works.
 */
#include "io_errors.h"

#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"
#include "hooks.h"
#include "power.h"

/* Every kind of call, rotation, recycling, closing and both ways of opening. */
static const char *const workloads[] = {
    "b600 c a700 a0 c g500 c m f f f m f x a10 c k a5 c m x",
    "f f f m t1 f f m f f t1 m f f x f",
    "a40000 c a10 r a10 c t0 a10 c x a9 k",
    "b600 b40 b9 c B700 G500 b9000 b9000 b9000 B9 m x B10 b9 k",
};
enum { WORKLOADS = sizeof(workloads) / sizeof(workloads[0]), RETRIES_MAX = 4 };

/* Not effects of the injector: the simulated disk does them, once. */
enum { LIE = 1000, SHORT_BY_HALF, SHORT_BY_ONE };

struct fault {
    const char *name;
    uint32_t mask;
    uint32_t effect;
    int64_t value;
    bool hidden; /* once: no caller may notice */
    bool ring;   /* of a real ring's completions: there is none on the simulated disk */
};

static const struct fault faults[] = {
    {"EIO of a sync, and a lying cache", 0, LIE, 0, false, false},
    {"half a write", 0, SHORT_BY_HALF, 0, true, false},
    {"write of all but a byte", 0, SHORT_BY_ONE, 0, true, false},
    {"write of 1 byte", WAL_FAULT_WRITE, WAL_FAULT_SHORT, 1, true, false},
    {"EIO", WAL_FAULT_ALL, WAL_FAULT_FAIL, EIO, false, false},
    {"ENOSPC", WAL_FAULT_ALL, WAL_FAULT_FAIL, ENOSPC, false, false},
    {"no space to allocate", WAL_FAULT_ALLOCATE, WAL_FAULT_FAIL, ENOSPC, false, false},
    {"EIO of a sync", WAL_FAULT_SYNC, WAL_FAULT_FAIL, EIO, false, false},
    {"EINTR of a sync", WAL_FAULT_SYNC | WAL_FAULT_SYNC_DIR, WAL_FAULT_FAIL, EINTR, false, false},
    {"EINTR", WAL_FAULT_ALL & ~(uint32_t)(WAL_FAULT_SYNC | WAL_FAULT_SYNC_DIR), WAL_FAULT_FAIL,
     EINTR, true, false},
    {"EAGAIN", WAL_FAULT_READ | WAL_FAULT_WRITE, WAL_FAULT_FAIL, EAGAIN, true, false},
    {"write of 0 bytes", WAL_FAULT_WRITE, WAL_FAULT_SHORT, 0, false, false},
    {"write of 100 bytes", WAL_FAULT_WRITE, WAL_FAULT_SHORT, 100, true, false},
    {"write of 511 bytes", WAL_FAULT_WRITE, WAL_FAULT_SHORT, 511, true, false},
    {"write of 2048 bytes", WAL_FAULT_WRITE, WAL_FAULT_SHORT, 2048, true, false},
    {"write of 8191 bytes", WAL_FAULT_WRITE, WAL_FAULT_SHORT, 8191, true, false},
    {"EIO of a write's completion", WAL_FAULT_CQE_WRITE, WAL_FAULT_FAIL, EIO, false, true},
    {"EIO of a sync's completion", WAL_FAULT_CQE_SYNC, WAL_FAULT_FAIL, EIO, false, true},
    {"EINTR of a sync's completion", WAL_FAULT_CQE_SYNC, WAL_FAULT_FAIL, EINTR, false, true},
    {"a cancelled write", WAL_FAULT_CQE_WRITE, WAL_FAULT_FAIL, ECANCELED, true, true},
    {"a cancelled sync", WAL_FAULT_CQE_SYNC, WAL_FAULT_FAIL, ECANCELED, true, true},
    {"EAGAIN of a write's completion", WAL_FAULT_CQE_WRITE, WAL_FAULT_FAIL, EAGAIN, true, true},
    {"a completion of 0 bytes", WAL_FAULT_CQE_WRITE, WAL_FAULT_SHORT, 0, false, true},
    {"a completion of 100 bytes", WAL_FAULT_CQE_WRITE, WAL_FAULT_SHORT, 100, true, true},
    {"a completion of 4096 bytes", WAL_FAULT_CQE_WRITE, WAL_FAULT_SHORT, 4096, true, true},
    {"a late completion", WAL_FAULT_CQE_WRITE | WAL_FAULT_CQE_SYNC, WAL_FAULT_STALL, 20, true,
     true},
};
enum { FAULTS = sizeof(faults) / sizeof(faults[0]) };

/* Sweeps: through the page cache by system calls (in both alignments), and the two ring modes. */
enum sweep { SWEEP_CALLS, SWEEP_RING, SWEEP_DIRECT, SWEEPS };

struct run {
    const struct io_errors_options *options;
    enum sweep sweep;
    struct io_errors_result *result;
    const struct fault *fault;
    uint64_t nth;
    bool sticky;
    bool allocations; /* the fault is a failing allocation */
    size_t workload;
    size_t column;
    struct session session;
};

static void violated(struct run *run, const char *why) {
    struct io_errors_result *result = run->result;
    if (result->violations++ > 0) return;
    result->cases_at_first = result->cases;
    snprintf(result->first, sizeof(result->first),
             "%s, number %" PRIu64 "%s, \"%s\" at column %zu (%s, %s): %s", run->fault->name,
             run->nth, run->sticky ? " and all later ones" : "", workloads[run->workload],
             run->column, session_mode_name(run->session.mode),
             run->session.disk != NULL ? "simulated disk" : "real directory", why);
}

/* ---- faults, of I/O or of allocation --------------------------------------------------------- */

static void arm(const struct run *run) {
    if (run->allocations) {
        (void)wal_alloc_fail(run->nth);
    } else if (run->fault->effect == LIE) {
        run->session.disk->sync_fail_in = run->nth;
        run->session.disk->sync_fail_seed = run->nth * 0x9e3779b97f4a7c15u;
    } else if (run->fault->effect >= LIE) {
        run->session.disk->short_in = run->nth;
        run->session.disk->short_by_one = run->fault->effect == SHORT_BY_ONE;
    } else {
        wal_fault_set(run->fault->mask, run->nth, run->sticky, run->fault->effect,
                      run->fault->value);
    }
}

static void disarm(const struct run *run) {
    if (run->allocations) (void)wal_alloc_fail(0);
    wal_fault_clear();
}

/* ---- one call that failed -------------------------------------------------------------------- */

static void check_failure(struct run *run, int result, char letter) {
    struct session *s = &run->session;
    run->result->failures++;
    if (run->fault->hidden && !run->sticky) {
        violated(run, "a passing fault came through");
    }
    bool full = run->fault->mask == WAL_FAULT_ALLOCATE;
    if (full && (s->poisoned || result == WAL_E_POISONED)) {
        violated(run, "a full disk met while preparing poisons");
    } else if (full && result != WAL_E_FULL) {
        violated(run, "a full disk met while preparing is not WAL_E_FULL");
    }
    bool sync = run->fault->mask == WAL_FAULT_SYNC && letter == 'c';
    if (sync && s->writer != NULL && !s->poisoned) {
        violated(run, "a failed sync of a commit does not poison");
    }
    if (!s->poisoned || s->writer == NULL) return;
    run->result->poisoned++;
    uint64_t acked = s->oracle.acked;
    for (int i = 0; i < 2; i++) {
        bool same = session_append(s, 5, 0) == WAL_E_POISONED &&
                    session_commit(s) == WAL_E_POISONED && session_trim(s, 2) == WAL_E_POISONED;
        if (!same) violated(run, "I6: a poisoned writer answers otherwise");
    }
    if (s->oracle.acked != acked) violated(run, "I6: acknowledged after the poison");
}

/* Get going again: with the fault gone this must work. */
static bool resume(struct run *run) {
    struct session *s = &run->session;
    if (run->sticky) disarm(run);
    for (int i = 0; i < RETRIES_MAX; i++) {
        int result = 0;
        if (s->writer == NULL) result = session_open(s);
        if (s->writer != NULL && s->poisoned) result = session_reopen(s);
        if (result >= 0) return true;
        disarm(run);
    }
    char why[ORACLE_WHY_BYTES];
    oracle_say(why, "with the fault gone: %d %.300s", s->failed, s->error.message);
    violated(run, why);
    return false;
}

static void play(struct run *run) {
    struct session *s = &run->session;
    const char *script = workloads[run->workload];
    if (session_open(s) < 0) {
        run->result->failures++;
        if (!resume(run)) return;
    }
    int again = 0;
    for (const char *at = script; *at != '\0' && s->why[0] == '\0';) {
        const char *begin = at;
        run->column = (size_t)(at - script);
        int result = power_token(s, &at);
        if (result >= 0) {
            again = 0;
            continue;
        }
        while (*begin == ' ') begin++;
        check_failure(run, result, *begin);
        bool was_closed = s->writer == NULL;
        if (!resume(run)) return;
        if (!was_closed && ++again < RETRIES_MAX) at = begin;
        if (again == RETRIES_MAX) {
            char why[ORACLE_WHY_BYTES];
            oracle_say(why, "the call keeps failing: %d %.300s", result, s->error.message);
            violated(run, why);
        }
    }
}

/* ---- what is left afterwards ----------------------------------------------------------------- */

static void check_machine(struct run *run) {
    struct session *s = &run->session;
    char why[ORACLE_WHY_BYTES];
    struct oracle_found found;
    for (size_t i = 0; i < SIM_OPEN_MAX; i++) {
        if (s->disk->open[i].inode != 0) {
            violated(run, "I8: a descriptor leaks");
            break;
        }
    }
    /* A failure that the process died before it saw: the cache may show what no recovery found. */
    bool lies = sim_lies(s->disk);
    if (!lies && oracle_check_disk(&s->oracle, s->disk, true, &found, why) != 0) violated(run, why);
    struct sim_disk *after = sim_cut(s->disk, NULL, NULL, 0, run->nth);
    if (oracle_check_disk(&s->oracle, after, false, &found, why) != 0) violated(run, why);
    sim_free(after);
}

static void check_directory(struct run *run) {
    struct session *s = &run->session;
    char why[ORACLE_WHY_BYTES];
    struct oracle_found found;
    wal_reader *reader = NULL;
    wal_report report = {0};
    wal_error error = {0};
    int result = wal_reader_open(s->path, WAL_RECOVERY_POINT_IN_TIME, &reader, &report, &error);
    if (result < 0) {
        oracle_say(why, "the reader answers %d: %s", result, error.message);
        violated(run, why);
        return;
    }
    result = oracle_check_reader(&s->oracle, reader, &report, true, &found, why);
    if (result != 0) violated(run, why);
    wal_reader_close(reader);
}

static void remove_directory(const char *path) {
    DIR *entries = opendir(path);
    if (entries == NULL) return;
    for (struct dirent *entry; (entry = readdir(entries)) != NULL;) {
        if (entry->d_name[0] == '.') continue;
        CHECK_EQ(unlinkat(dirfd(entries), entry->d_name, 0), 0);
    }
    closedir(entries);
    CHECK_EQ(rmdir(path), 0);
}

static enum session_mode mode_of(const struct run *run) {
    if (run->sweep == SWEEP_RING) return SESSION_RING;
    if (run->sweep == SWEEP_DIRECT) return SESSION_DIRECT;
    return run->nth % 2 == 0 ? SESSION_STRICT : SESSION_PLAIN;
}

/* One workload with one fault in it; false: the workload never came to the nth operation. */
static bool run_case(struct run *run) {
    char path[512] = "";
    uint64_t files_before = wal_open_files();
    struct sim_disk *disk = NULL;
    if (run->options->directory != NULL) {
        snprintf(path, sizeof(path), "%s/log", run->options->directory);
    } else {
        disk = sim_new();
    }
    session_begin(&run->session, disk, path, mode_of(run), run->options->seed + run->nth);
    struct session *s = &run->session;
    s->through_faults = !run->allocations;
    if (disk == NULL && run->nth % 4 < 2) s->options.flags &= ~(uint32_t)WAL_NO_THREADS;
    arm(run);
    run->result->cases++;
    uint64_t failures = run->result->failures;
    play(run);
    bool failed = run->result->failures > failures;
    bool reached = wal_fault_hits() > 0;
    if (run->allocations) reached = failed || wal_alloc_fail(0) >= run->nth;
    if (run->fault->effect >= LIE) reached = disk->sync_fail_in == 0 && disk->short_in == 0;
    disarm(run);
    if (!failed && reached) run->result->hidden++;
    if (failed && !reached) {
        violated(run, "a call fails with no fault in sight");
    }
    session_kill(s);
    if (s->why[0] != '\0') violated(run, s->why);
    if (disk != NULL) check_machine(run);
    if (disk == NULL) check_directory(run);
    if (wal_open_files() != files_before) violated(run, "I8: open files are left");
    session_end(s);
    sim_free(disk);
    if (path[0] != '\0') remove_directory(path);
    return reached;
}

static bool enough(const struct run *run) {
    return run->options->stop_at_first && run->result->violations > 0;
}

/* Fail the first operation, the second, ... until the workload ends before it. */
static void sweep(struct run *run, uint64_t *chance) {
    const struct fault *fault = run->fault;
    const struct io_errors_options *options = run->options;
    /* Byte by byte through a whole workload shows nothing new and takes long. */
    bool crawls = run->sticky && fault->effect == WAL_FAULT_SHORT && fault->value <= 1;
    bool waits = run->sticky && fault->effect == WAL_FAULT_STALL;
    bool simulated = fault->effect >= LIE;
    bool never = simulated && (run->sticky || options->directory != NULL);
    bool no_ring = fault->ring && (options->directory == NULL || run->sweep == SWEEP_CALLS);
    /* A cancelled or interrupted entry is begun anew: for ever, if every one is. */
    bool endless = fault->ring && fault->hidden && run->sticky;
    bool reached = !crawls && !waits && !never && !no_ring && !endless;
    for (run->nth = 1; reached && !enough(run); run->nth++) {
        reached = run_case(run);
        bool sampled = options->directory != NULL && options->scale < 10.0;
        uint64_t step = fault->ring ? 20 : 60;
        if (sampled) run->nth += step + check_below(chance, 4 * step);
        /* Lasting faults poison, on a ring as without: every other place says so at scale 1. */
        bool coarse = run->sticky && run->sweep != SWEEP_CALLS && options->scale < 3.0;
        if (coarse) run->nth += check_below(chance, 3);
        if (options->scale < CHECK_SCALE_FULL) run->nth += check_below(chance, 20);
    }
}

void io_errors_run(const struct io_errors_options *options, struct io_errors_result *result) {
    struct run run = {.options = options, .result = result};
    *result = (struct io_errors_result){0};
    uint64_t chance = options->seed;
    /* Real files are slow: make test-quick has one workload in four for each fault. */
    bool few = options->directory != NULL && options->scale < CHECK_SCALE_FULL;
    for (size_t f = 0; f < FAULTS; f++) {
        run.fault = &faults[f];
        for (run.workload = 0; run.workload < WORKLOADS; run.workload++) {
            if (few && check_below(&chance, WORKLOADS) != 0) continue;
            for (int i = 0; i < 2 * SWEEPS; i++) {
                run.sticky = i % 2 != 0;
                run.sweep = (enum sweep)(i / 2);
                sweep(&run, &chance);
            }
        }
    }
}

void oom_run(const struct io_errors_options *options, struct io_errors_result *result) {
    static const struct fault fault = {.name = "allocation"};
    struct run run = {.options = options, .result = result, .fault = &fault, .allocations = true};
    *result = (struct io_errors_result){0};
    for (run.workload = 0; run.workload < WORKLOADS; run.workload++) {
        for (int i = 0; i < SWEEPS; i++) {
            bool reached = true;
            run.sweep = (enum sweep)i;
            for (run.nth = 1; reached && !enough(&run); run.nth++) reached = run_case(&run);
        }
    }
}
