/* Every state that a power cut may leave, recovered and judged; see power.h. */
#include "power.h"

#include "check.h"

enum { AXES_MAX = 16384, EXHAUSTIVE_MAX = 729, EXHAUSTIVE_AXES_MAX = 6 };

struct power {
    const struct power_options *options;
    struct power_result *result;
    uint64_t *seen; /* hashes of states that were judged; open addressing, 0: free */
    uint64_t seen_capacity;
    uint64_t seen_count;
    uint64_t seed;

    /* The step under way. */
    const char *script;
    size_t step;
    size_t steps;
    enum session_mode mode;
    struct sim_disk *disk; /* replayed up to here */
    struct oracle oracle;  /* likewise */
    struct sim_axis *axes;
    uint32_t *choice;
    size_t axis_count;
    uint64_t files[SIM_FILES_MAX];
    bool nested;
};

/* ---- states seen ----------------------------------------------------------------------------- */

static bool seen_insert(struct power *p, uint64_t hash) {
    hash |= 1;
    uint64_t mask = p->seen_capacity - 1, i = hash & mask;
    for (; p->seen[i] != 0; i = (i + 1) & mask) {
        if (p->seen[i] == hash) return false;
    }
    p->seen[i] = hash;
    p->seen_count++;
    return true;
}

static void seen_reserve(struct power *p) {
    if (p->seen_count * 2 < p->seen_capacity) return;
    uint64_t *old = p->seen, before = p->seen_capacity;
    p->seen_capacity = before == 0 ? 1 << 16 : before * 2;
    p->seen = calloc((size_t)p->seen_capacity, sizeof(p->seen[0]));
    CHECK(p->seen != NULL);
    p->seen_count = 0;
    for (uint64_t i = 0; i < before; i++) {
        if (old[i] != 0) seen_insert(p, old[i]);
    }
    free(old);
}

struct power *power_new(const struct power_options *options, struct power_result *result) {
    struct power *p = calloc(1, sizeof(*p));
    CHECK(p != NULL);
    p->options = options;
    p->result = result;
    p->seed = options->seed;
    p->axes = calloc(2 * AXES_MAX, sizeof(p->axes[0])); /* the second half is for what is nested */
    p->choice = calloc(2 * AXES_MAX, sizeof(p->choice[0]));
    CHECK(p->axes != NULL && p->choice != NULL);
    *result = (struct power_result){0};
    return p;
}

void power_free(struct power *p) {
    free(p->seen);
    free(p->axes);
    free(p->choice);
    free(p);
}

bool power_enough(const struct power *p) {
    if (p->options->stop_at_first && p->result->violations > 0) return true;
    return p->options->states_max != 0 && p->result->states >= p->options->states_max;
}

static void violated(struct power *p, const char *where, const char *why) {
    struct power_result *result = p->result;
    if (result->violations++ > 0) return;
    result->states_at_first = result->states;
    int used = snprintf(result->first, sizeof(result->first),
                        "\"%s\" (%s), step %zu of %zu, %s: %s; choice", p->script,
                        session_mode_name(p->mode), p->step, p->steps, where, why);
    for (size_t i = 0; i < p->axis_count && used < (int)sizeof(result->first) - 40; i++) {
        if (p->choice[i] == 0) continue;
        used += snprintf(result->first + used, sizeof(result->first) - (size_t)used, " %u/%u.%u=%u",
                         p->axes[i].kind, p->axes[i].inode, p->axes[i].sector, p->choice[i]);
    }
}

/* ---- judging one state ----------------------------------------------------------------------- */

/* Recover with a writer, append, close, recover again: I4, I5. The disk is used up. */
static int judge_writer(struct power *p, struct sim_disk *disk, const struct oracle *oracle,
                        const struct oracle_found *found, bool killed, char *why) {
    struct session s;
    const uint32_t lengths[3] = {30, 0, 600};
    session_begin(&s, disk, NULL, p->mode, check_random(&p->seed));
    oracle_free(&s.oracle);
    oracle_copy(&s.oracle, oracle);
    if (!killed) s.oracle.handed = s.oracle.acked;
    p->result->writer_checks++;
    bool done = session_open(&s) >= 0;
    bool same = !done || found == NULL || found->none ||
                (s.report.last_lsn == found->last && s.report.first_lsn == found->first);
    if (!same) {
        oracle_say(s.why, "I5: the reader found %" PRIu64 " .. %" PRIu64 ", the writer .. %" PRIu64,
                   found->first, found->last, s.report.last_lsn);
    }
    done = done && session_append(&s, 100, 0) >= 0 && session_batch(&s, lengths, 3, 0) >= 0 &&
           session_commit(&s) >= 0 && session_maintain(&s) >= 0 && session_append(&s, 3, 0) >= 0 &&
           session_close(&s) >= 0;
    int result = 0;
    struct oracle_found after;
    if (s.why[0] != '\0') {
        result = oracle_say(why, "%.400s", s.why);
    } else if (!done) {
        result = oracle_say(why, "I5: the writer answers %d: %s", s.failed, s.error.message);
    } else if (oracle_check_disk(&s.oracle, disk, false, &after, s.why) != 0) {
        result = oracle_say(why, "I4: after recovery and 5 appends: %.400s", s.why);
    } else if (after.last != s.oracle.last || after.report.verdict != WAL_VERDICT_CLEAN) {
        result = oracle_say(why, "I4: closed at %" PRIu64 ", recovered to %" PRIu64 ", verdict %u",
                            s.oracle.last, after.last, after.report.verdict);
    }
    session_end(&s);
    return result;
}

static void judge_nested(struct power *p, struct sim_disk *state, const struct oracle *oracle,
                         const struct oracle_found *found);

static void judge(struct power *p, struct sim_disk *state, const struct oracle *oracle,
                  uint64_t hash) {
    char why[ORACLE_WHY_BYTES] = "";
    struct oracle_found found;
    const char *where = p->nested ? "cut in recovery" : "cut";
    p->result->states++;
    if (p->nested) p->result->nested_states++;
    if (oracle_check_disk(oracle, state, false, &found, why) != 0) {
        violated(p, where, why);
        return;
    }
    hash = check_random(&hash);
    bool deep = !p->nested && hash % p->options->nested_every == 0;
    if (deep) judge_nested(p, state, oracle, &found);
    if (deep || hash % p->options->writer_every != 0) return;
    if (judge_writer(p, state, oracle, &found, false, why) != 0) violated(p, where, why);
}

/* ---- the states of one step ------------------------------------------------------------------ */

static void try_choice(struct power *p) {
    if (power_enough(p)) return;
    seen_reserve(p);
    uint64_t garbage = p->step * 0x9e3779b97f4a7c15u;
    uint64_t hash = sim_cut_hash(p->disk, p->files, p->axes, p->choice, p->axis_count, garbage);
    hash ^= oracle_hash(&p->oracle);
    if (!seen_insert(p, hash)) return;
    struct sim_disk *state = sim_cut(p->disk, p->axes, p->choice, p->axis_count, garbage);
    judge(p, state, &p->oracle, hash);
    sim_free(state);
}

/* Product of all options, or a number above the limit. */
static uint64_t all_choices(const struct power *p) {
    uint64_t product = 1;
    for (size_t i = 0; i < p->axis_count && product <= EXHAUSTIVE_MAX; i++) {
        product *= p->axes[i].options;
    }
    return product;
}

static void try_all(struct power *p, uint64_t product) {
    for (uint64_t n = 0; n < product; n++) {
        uint64_t rest = n;
        for (size_t i = 0; i < p->axis_count; i++) {
            p->choice[i] = (uint32_t)(rest % p->axes[i].options);
            rest /= p->axes[i].options;
        }
        try_choice(p);
    }
}

static void set_all(struct power *p, bool kept) {
    for (size_t i = 0; i < p->axis_count; i++) p->choice[i] = kept ? p->axes[i].newest : 0;
}

/* Where the axes are too many: prefixes, suffixes, drop-one, keep-one, garble-one. */
static void try_regular(struct power *p) {
    size_t stride = p->axis_count / (size_t)p->options->subset_max + 1;
    size_t first = (size_t)check_below(&p->seed, stride);
    for (size_t one = first; one < p->axis_count; one += stride) {
        for (size_t i = 0; i < p->axis_count; i++) {
            p->choice[i] = i <= one ? p->axes[i].newest : 0;
        }
        try_choice(p);
        for (size_t i = 0; i < p->axis_count; i++) {
            p->choice[i] = i > one ? p->axes[i].newest : 0;
        }
        try_choice(p);
        for (uint32_t option = 0; option < p->axes[one].options && option < 8; option++) {
            set_all(p, true);
            p->choice[one] = option;
            try_choice(p);
            set_all(p, false);
            p->choice[one] = option;
            try_choice(p);
        }
    }
}

static void choose_randomly(struct power *p) {
    uint64_t bias = check_below(&p->seed, 4); /* of 4: how likely an axis keeps its newest */
    for (size_t i = 0; i < p->axis_count; i++) {
        uint32_t any = (uint32_t)check_below(&p->seed, p->axes[i].options);
        p->choice[i] = check_below(&p->seed, 4) < bias ? p->axes[i].newest : any;
    }
}

static void try_step(struct power *p) {
    p->axis_count = sim_axes(p->disk, p->axes, AXES_MAX, false);
    sim_hash_files(p->disk, p->files);
    p->result->steps++;
    set_all(p, false);
    try_choice(p);
    set_all(p, true);
    try_choice(p);
    uint64_t product = all_choices(p);
    bool exhaustive = product <= EXHAUSTIVE_MAX && p->axis_count <= EXHAUSTIVE_AXES_MAX + 1;
    if (exhaustive) {
        try_all(p, product);
        p->result->exhaustive_steps++;
    } else {
        try_regular(p);
        for (uint64_t i = 0; i < p->options->random_states; i++) {
            choose_randomly(p);
            try_choice(p);
        }
    }
    /* Sectors rewritten with the bytes they had: they matter only as garbage, so now and then. */
    size_t without = p->axis_count;
    p->axis_count = sim_axes(p->disk, p->axes, AXES_MAX, true);
    if (p->axis_count > without) {
        set_all(p, true);
        for (size_t i = without; i < p->axis_count; i++) p->choice[i] = 1; /* garbage */
        try_choice(p);
        choose_randomly(p);
        try_choice(p);
    }
}

/* Two or three states of a step inside a recovery, deduplicated like all others. */
static void try_nested_step(struct power *p) {
    p->axis_count = sim_axes(p->disk, p->axes, AXES_MAX, false);
    sim_hash_files(p->disk, p->files);
    set_all(p, false);
    try_choice(p);
    set_all(p, true);
    try_choice(p);
    for (int i = 0; i < 3 && p->axis_count > 0; i++) {
        choose_randomly(p);
        try_choice(p);
    }
}

static void judge_nested(struct power *p, struct sim_disk *state, const struct oracle *oracle,
                         const struct oracle_found *found) {
    char why[ORACLE_WHY_BYTES] = "";
    struct sim_trace trace = {0};
    struct power inner = *p;
    struct sim_disk *begin = sim_copy(state);
    state->trace = &trace;
    if (judge_writer(p, state, oracle, found, false, why) != 0) violated(p, "recovery", why);
    state->trace = NULL;
    p->seed = check_random(&p->seed);
    inner.seed = p->seed;
    inner.nested = true;
    inner.disk = begin;
    inner.axes = p->axes + AXES_MAX;
    inner.choice = p->choice + AXES_MAX;
    oracle_copy(&inner.oracle, oracle);
    for (size_t i = 0; i < trace.count && !power_enough(p); i++) {
        sim_apply(begin, &trace.events[i]);
        if (trace.events[i].kind == SIM_MARK) oracle_apply(&inner.oracle, &trace.events[i].mark);
        try_nested_step(&inner);
    }
    p->seen = inner.seen;
    p->seen_capacity = inner.seen_capacity;
    p->seen_count = inner.seen_count;
    oracle_free(&inner.oracle);
    sim_free(begin);
    sim_trace_clear(&trace);
}

/* The process dies and the machine does not: what was handed over counts as well. */
static void try_kill(struct power *p) {
    char why[ORACLE_WHY_BYTES] = "";
    struct oracle_found found;
    struct sim_disk *state = sim_copy(p->disk);
    p->axis_count = 0;
    p->result->kills++;
    if (oracle_check_disk(&p->oracle, state, true, &found, why) != 0) {
        violated(p, "kill, reader", why);
    } else if (judge_writer(p, state, &p->oracle, NULL, true, why) != 0) {
        violated(p, "kill, writer", why);
    }
    sim_free(state);
}

/* ---- one workload ---------------------------------------------------------------------------- */

void power_script(struct power *p, const char *script, enum session_mode mode) {
    if (power_enough(p)) return;
    struct session s;
    struct sim_trace trace = {0};
    struct sim_disk *live = sim_new();
    p->script = script;
    p->mode = mode;
    p->step = p->steps = 0;
    p->axis_count = 0;
    p->result->workloads++;
    live->trace = &trace;
    session_begin(&s, live, NULL, p->mode, 1);
    power_play(&s, script);
    if (s.why[0] != '\0') violated(p, "while it ran", s.why);
    p->steps = trace.count;
    p->disk = sim_new();
    oracle_init(&p->oracle);
    for (p->step = 0; p->step < trace.count && !power_enough(p);) {
        const struct sim_event *event = &trace.events[p->step++];
        sim_apply(p->disk, event);
        if (event->kind == SIM_MARK) oracle_apply(&p->oracle, &event->mark);
        bool told_more = event->kind == SIM_MARK && event->mark.kind == ORACLE_APPEND;
        if (told_more) continue; /* nothing is judged more strictly than before */
        try_step(p);
        if (event->kind == SIM_MARK && event->mark.kind == ORACLE_HANDED) try_kill(p);
    }
    oracle_free(&p->oracle);
    sim_free(p->disk);
    session_end(&s);
    sim_free(live);
    sim_trace_clear(&trace);
}
