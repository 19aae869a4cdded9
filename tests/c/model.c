/* Random histories; see model.h. */
#include "model.h"

#include "check.h"

enum { TOLD_MAX = 12, ROUNDS_MAX = 7, STEPS_MAX = 16, AXES_MAX = 8192 };

struct history {
    struct session session;
    struct model_result *result;
    uint64_t chance;
    char told[TOLD_MAX][40]; /* the latest steps, for the message */
    size_t told_count;
    bool killed; /* the machine went on since the last opening: what was handed over counts */
};

static uint64_t below(struct history *h, uint64_t limit) { return check_below(&h->chance, limit); }

static void tell(struct history *h, const char *text, uint64_t number) {
    snprintf(h->told[h->told_count++ % TOLD_MAX], sizeof(h->told[0]), "%s %" PRIu64, text, number);
}

static void violated(struct history *h, uint64_t seed, const char *why) {
    struct model_result *result = h->result;
    if (result->violations++ > 0) return;
    result->first_history = seed;
    int used = snprintf(result->first, sizeof(result->first), "history %" PRIu64 ": %.400s; after",
                        seed, why);
    size_t begin = h->told_count > TOLD_MAX ? h->told_count - TOLD_MAX : 0;
    for (size_t i = begin; i < h->told_count; i++) {
        used += snprintf(result->first + used, sizeof(result->first) - (size_t)used, ", %s",
                         h->told[i % TOLD_MAX]);
    }
}

/* ---- the power ------------------------------------------------------------------------------- */

/* Three kinds of cut: all that was un-synced arrives, none of it, or each piece as chance has. */
static void cut(struct history *h) {
    static struct sim_axis axes[AXES_MAX];
    static uint32_t choice[AXES_MAX];
    struct session *s = &h->session;
    size_t count = sim_axes(s->disk, axes, AXES_MAX, true);
    uint64_t mode = below(h, 6);
    for (size_t i = 0; i < count; i++) {
        choice[i] = mode == 0 ? axes[i].newest : 0;
        if (mode > 1 && below(h, 2) == 0) choice[i] = (uint32_t)below(h, axes[i].options);
    }
    struct sim_disk *after = sim_cut(s->disk, axes, choice, count, check_random(&h->chance));
    session_kill(s);
    sim_free(s->disk);
    s->disk = after;
    s->oracle.handed = s->oracle.acked;
    h->killed = false;
    h->result->cuts++;
    tell(h, "power cut of kind", mode);
}

/* The knobs of the disk that a new opening begins with. */
static void set_knobs(struct history *h) {
    struct sim_disk *disk = h->session.disk;
    disk->short_every = below(h, 4) == 0 ? 2 + below(h, 9) : 0;
    disk->eintr_every = below(h, 4) == 0 ? 2 + below(h, 9) : 0;
    disk->sync_fail_in = 0;
    disk->cut_at = 0;
}

/* Open, through cuts and failed syncs in the middle of it. */
static bool open_somehow(struct history *h) {
    struct session *s = &h->session;
    for (int tries = 0; tries < 5; tries++) {
        set_knobs(h);
        if (tries < 4 && below(h, 4) == 0) s->disk->cut_at = s->disk->events + 1 + below(h, 14);
        if (tries < 4 && below(h, 12) == 0) {
            s->disk->sync_fail_in = 1 + below(h, 2);
            s->disk->sync_fail_dirty = 1;
            s->disk->sync_fail_seed = check_random(&h->chance);
        }
        uint64_t failures = s->disk->sync_failures;
        uint64_t handed = s->oracle.handed;
        bool will_lie = s->disk->sync_fail_in != 0;
        if (will_lie) s->oracle.handed = s->oracle.acked;
        h->result->openings++;
        int result = session_open(s);
        bool off = s->disk->cut_at != 0 && s->disk->events >= s->disk->cut_at;
        bool lied = s->disk->sync_failures != failures;
        s->disk->cut_at = 0;
        s->disk->sync_fail_in = 0;
        if (result >= 0 && s->why[0] == '\0') return true;
        if (s->why[0] != '\0') return false;
        if (will_lie && !lied) s->oracle.handed = handed;
        if (lied) h->result->failed_syncs++;
        if (off) {
            h->result->cuts_in_recovery++;
            cut(h);
        } else if (!lied) {
            oracle_say(s->why, "opening fails: %d %.300s", result, s->error.message);
            return false;
        }
    }
    oracle_say(s->why, "opening fails five times: %d %.300s", s->failed, s->error.message);
    return false;
}

/* ---- steps ----------------------------------------------------------------------------------- */

static uint32_t length(struct history *h) {
    uint64_t kind = below(h, 20);
    if (kind == 0) return 0;
    if (kind == 1) return 33000 + (uint32_t)below(h, 9000);
    if (kind < 4) return 4000 + (uint32_t)below(h, 8000);
    return (uint32_t)below(h, 900);
}

static int batch(struct history *h, uint32_t flags) {
    uint32_t lengths[12], count = 1 + (uint32_t)below(h, 12);
    for (uint32_t i = 0; i < count; i++) lengths[i] = length(h) % 9000;
    bool giant = (flags & WAL_ATOMIC) != 0 && below(h, 250) == 0; /* more than one frame holds */
    for (uint32_t i = 0; giant && i < count; i++) lengths[i] += 300000;
    if (below(h, 4) == 0) flags |= WAL_RECORD_CRC;
    h->result->records += count;
    tell(h, (flags & WAL_ATOMIC) != 0 ? "atomic" : "batch", count);
    return session_batch(&h->session, lengths, count, flags);
}

static int append(struct history *h) {
    int result = 0;
    for (uint64_t n = 1 + below(h, 3); n > 0 && result >= 0; n--) {
        uint32_t bytes = length(h);
        tell(h, "append", bytes);
        h->result->records++;
        result = session_append(&h->session, bytes, below(h, 4) == 0 ? WAL_RECORD_CRC : 0);
    }
    return result;
}

static int trim(struct history *h) {
    const struct oracle *oracle = &h->session.oracle;
    uint64_t limit = oracle->last + 5;
    uint64_t lsn = oracle->trim + below(h, limit > oracle->trim ? limit - oracle->trim : 1);
    tell(h, "trim", lsn);
    return session_trim(&h->session, lsn);
}

static int step(struct history *h) {
    struct session *s = &h->session;
    uint64_t kind = below(h, 100);
    if (kind < 22) return append(h);
    if (kind < 50) {
        uint32_t flags = below(h, 3) == 0 ? WAL_ATOMIC : 0;
        if (below(h, 2) == 0) return batch(h, flags | WAL_DURABLE);
        int result = batch(h, flags);
        return result < 0 ? result : session_commit(s);
    }
    if (kind < 58) return batch(h, below(h, 3) == 0 ? WAL_ATOMIC : 0);
    if (kind < 64) {
        tell(h, "commit", 0);
        return session_commit(s);
    }
    if (kind < 78) {
        tell(h, "maintain", 0);
        return session_maintain(s);
    }
    if (kind < 88) return trim(h);
    if (kind < 92) {
        tell(h, "reopen", 0);
        return session_reopen(s);
    }
    tell(h, "arm EIO", 0);
    s->disk->sync_fail_in = 1 + below(h, 3);
    s->disk->sync_fail_dirty = 1;
    s->disk->sync_fail_seed = check_random(&h->chance);
    return 0;
}

/* A call failed: by the cut, by the failed sync, or (a violation) by nothing that we did. */
static void after_failure(struct history *h, int result, uint64_t failures, bool *off) {
    struct session *s = &h->session;
    *off = s->disk->cut_at != 0 && s->disk->events >= s->disk->cut_at;
    if (*off) return;
    if (s->disk->sync_failures == failures) {
        oracle_say(s->why, "a call fails with no fault in sight: %d %.300s", result,
                   s->error.message);
        return;
    }
    h->result->failed_syncs++;
    s->disk->sync_fail_in = 0;
    if (s->poisoned && session_append(s, 9, 0) != WAL_E_POISONED) {
        oracle_say(s->why, "I6: a poisoned writer appends");
    } else if (below(h, 2) == 0 && s->disk->cut_at == 0) {
        tell(h, "reopen after EIO", 0);
        if (session_reopen(s) < 0) {
            oracle_say(s->why, "reopen() fails: %.300s", s->error.message);
        }
    } else {
        tell(h, "process ends after EIO", 0);
        session_kill(s);
    }
}

/* One life of a writer; ends with the power, with the process, or in good order. */
static void live(struct history *h) {
    struct session *s = &h->session;
    bool off = false;
    if (below(h, 10) < 6) s->disk->cut_at = s->disk->events + 1 + below(h, 90);
    uint64_t failures = s->disk->sync_failures;
    for (uint64_t n = 1 + below(h, STEPS_MAX); n > 0 && !off && s->writer != NULL; n--) {
        int result = step(h);
        if (s->why[0] != '\0') return;
        if (result < 0) after_failure(h, result, failures, &off);
        if (s->why[0] != '\0') return;
    }
    uint64_t end = below(h, 3);
    if (!off && end == 0 && s->writer != NULL) {
        tell(h, "close", 0);
        s->disk->sync_fail_in = 0;
        int result = session_close(s);
        off = s->disk->cut_at != 0 && s->disk->events >= s->disk->cut_at;
        if (result < 0 && !off && s->disk->sync_failures == failures) {
            oracle_say(s->why, "close fails: %d %.300s", result, s->error.message);
        }
    } else if (!off && end == 1) {
        tell(h, "kill", 0);
        session_kill(s);
        h->result->kills++;
    } else {
        cut(h);
        off = false;
    }
    if (off) cut(h);
    s->disk->cut_at = 0;
}

/*
 * A reader reads the cache. While that lies, it may show records that a writer's recovery, which
 * reads the device, did not find; the next append sets their end. So it is only asked before.
 */
static bool readable(struct session *s, struct oracle_found *found) {
    if (sim_lies(s->disk)) return true;
    return oracle_check_disk(&s->oracle, s->disk, false, found, s->why) == 0;
}

void model_history(uint64_t seed, struct model_result *result) {
    struct history h = {.result = result, .chance = seed};
    struct session *s = &h.session;
    struct oracle_found found;
    session_begin(s, sim_new(), NULL, (enum session_mode)below(&h, SESSION_MODES), seed);
    result->histories++;
    for (uint64_t rounds = 3 + below(&h, ROUNDS_MAX - 2); rounds > 0; rounds--) {
        if (!open_somehow(&h)) break;
        live(&h);
        if (s->why[0] != '\0') break;
        session_kill(s);
        if (below(&h, 10) < 3) {
            session_set_mode(s, (enum session_mode)below(&h, SESSION_MODES));
            tell(&h, session_mode_name(s->mode), 0);
        }
        if (!readable(s, &found)) break;
    }
    if (s->why[0] == '\0' && open_somehow(&h)) {
        session_kill(s);
        (void)readable(s, &found);
    }
    if (s->why[0] != '\0') violated(&h, seed, s->why);
    struct sim_disk *disk = s->disk;
    session_end(s);
    sim_free(disk);
}
