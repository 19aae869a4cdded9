/* The scripts of the power-loss suite: playing one, and the list of all. See power.h. */
#include "check.h"
#include "power.h"

/* ---- playing --------------------------------------------------------------------------------- */

static int batch(struct session *s, uint32_t length, uint32_t flags) {
    const uint32_t plain[3] = {length, 1, 0};
    const uint32_t atomic[3] = {length, length, length};
    return session_batch(s, (flags & WAL_ATOMIC) != 0 ? atomic : plain, 3, flags);
}

static int trim_keeping(struct session *s, uint64_t kept) {
    uint64_t end = s->oracle.last + 1;
    return session_trim(s, end > kept ? end - kept : 1);
}

static int restart(struct session *s, bool clean) {
    int result = 0;
    if (clean) result = session_close(s);
    if (!clean) session_kill(s);
    if (result < 0) return result;
    return session_open(s);
}

static int fill(struct session *s) {
    int result = session_append(s, 9000, 0);
    return result < 0 ? result : session_commit(s);
}

/* The caller of a durable batch is called away by a signal; what is in flight goes on. */
static int interrupted(struct session *s, uint32_t length) {
    s->disk->async_signal = 1;
    int result = batch(s, length, WAL_DURABLE | WAL_INTERRUPTIBLE);
    s->disk->async_signal = 0;
    return result;
}

/* The same to a commit that has waited for the sync before its own, and begun that. */
static int interrupted_commit(struct session *s) {
    s->disk->async_signal = 2;
    int result = session_commit_interruptible(s);
    s->disk->async_signal = 0;
    return result;
}

static int play_token(struct session *s, char letter, uint64_t number) {
    switch (letter) {
        case 'a': return session_append(s, number, 0);
        case 'A': return session_append(s, number, WAL_RECORD_CRC);
        case 'b': return batch(s, (uint32_t)number, 0);
        case 'B': return batch(s, (uint32_t)number, WAL_DURABLE);
        case 'i': return interrupted(s, (uint32_t)number);
        case 'j': return interrupted_commit(s);
        case 'g': return batch(s, (uint32_t)number, WAL_ATOMIC);
        case 'G': return batch(s, (uint32_t)number, WAL_ATOMIC | WAL_DURABLE);
        case 'f': return fill(s);
        case 'c': return session_commit(s);
        case 'm': return session_maintain(s);
        case 't': return trim_keeping(s, number);
        case 'T': return session_trim(s, s->oracle.last + 4);
        case 'x': return restart(s, true);
        case 'k': return restart(s, false);
        case 'r': return session_reopen(s);
        case 'n': session_set_mode(s, SESSION_PLAIN); return 0;
        case 's': session_set_mode(s, SESSION_STRICT); return 0;
        case 'u': session_set_mode(s, SESSION_RING); return 0;
        case 'v': session_set_mode(s, SESSION_RING_STRICT); return 0;
        case 'd': session_set_mode(s, SESSION_DIRECT); return 0;
        case 'e':
            s->disk->sync_fail_in = 1;
            s->disk->sync_fail_dirty = 1;
            s->disk->sync_fail_seed = check_random(&s->seed);
            return 0;
        default: CHECK(!"a letter of the script language"); return 0;
    }
}

int power_token(struct session *s, const char **at) {
    while (**at == ' ') (*at)++;
    if (**at == '\0') return 0;
    char letter = *(*at)++;
    uint64_t number = 0;
    while (**at >= '0' && **at <= '9') number = number * 10 + (uint64_t)(*(*at)++ - '0');
    return play_token(s, letter, number);
}

/* After the armed EIO the writer must be poisoned; reopen() is the way on, or a new process. */
static int recover_from_eio(struct session *s) {
    if (s->writer == NULL) return session_open(s);
    if (!s->poisoned) return 0;
    if (session_append(s, 5, 0) != WAL_E_POISONED || session_commit(s) != WAL_E_POISONED) {
        oracle_say(s->why, "I6: after EIO the writer goes on");
        return 0;
    }
    return session_reopen(s);
}

void power_play(struct session *s, const char *script) {
    if (session_open(s) < 0) {
        oracle_say(s->why, "first opening fails: %d %s", s->failed, s->error.message);
        return;
    }
    for (const char *at = script; *at != '\0' && s->why[0] == '\0';) {
        size_t column = (size_t)(at - script);
        uint64_t failures = s->disk->sync_failures;
        int result = power_token(s, &at);
        bool excused = s->disk->sync_failures != failures;
        if (excused) result = recover_from_eio(s);
        if (result < 0 && s->why[0] == '\0') {
            oracle_say(s->why, "a call fails with no fault in sight: column %zu: %d %s", column,
                       result, s->error.message);
        }
    }
}

/* ---- all of them ----------------------------------------------------------------------------- */

/* Longer stories, one idea each, the cheap ones first; each in every mode. */
static const char *const stories[] = {
    "a0 a1 a511 a512 a700 c a3 x a5 c",   /* sizes around a sector, un-synced runs */
    "b600 c b40 b40 c A33 b7 c x b9 c",   /* batches, records with their own CRC */
    "a10 c x a10 x x a10 c x a1 k a1 c",  /* seal, un-seal, seal again */
    "k k a5 k k a6 c k x x k a7 c",       /* empty tails are bypassed */
    "a10 c k k k a10 c k k a10 c x",      /* kills in a row cost no segment */
    "a10 c t0 a10 c t0 x a10 t1 k a10 c", /* trims at the very end */
    "a10 a10 a10 T a10 c a20 c",          /* a trim asked for beyond the end */
    "a10 c a10 T a10 a10 c k a10 c",
    "a10 c a700 e c a20 c x a5 c",         /* EIO on the sync of a commit, then reopen() */
    "a10 c a900 a900 e c k a20 c k a20 c", /* and then a new process */
    "a10 c a100 e x a20 c",                /* EIO while closing */
    "a10 c x s a10 a10 c x n a10 a10 c x s a300 a10 c", /* alignments change between openings */
    "f f a100 c x s a50 c a50 c k n a60 c",
    "a10 c m a10 c m m x m a10 m c m k m a10 c", /* idle watermark and preparation */
    "r r a10 r a10 c r r x r a10 c",             /* reopen() of a healthy writer */
    "g500 c a10 g3000 g20 k g700 c x g5 c",      /* atomic groups in one frame */
    "f g9000 c a10 c g9000 k a5 c",              /* a group larger than the rest of a segment */
    "a100 a9000 m a9000 a9000 a1 k a1 c",        /* rotation over un-synced bytes, and a kill */
    "f f f f t1 m f f f t1 m f f c",             /* recycling: trimmed segments come back */
    "a9000 a9000 a9000 a9000 a9000 c",
    "f f f f m a10 c x a10 c", /* rotation with and without preparation */
    "f f f t1 f f t0 f f x f f f",
    "a300 c f f t1 m m f f t1 m m f f t1 m x f f",
    "f f e f f f e f m f c", /* EIO around rotation */
    "a1500 a1500 e c a1500 e c a1500 c k a9 c",
    "f f m m f m r f m t1 r m f",
    "a10 c f f k f f k t1 k f f t1 k a10 c",
    "a10 c g600000 c k a10 c",             /* an atomic group over several frames */
    "a40000 c a10 c x a40000 a10 k a10 c", /* a record larger than a segment */
    "b10 b600 b40 c b10 b10 b10 b10 c x",  /* groups in flight, as far as the mode has them */
    "b10 b10 b10 k b10 b10 x b10 b10 r b9 c",
    "B600 a10 B40 b7 B700 k B9 a1 c",         /* a write and its sync in one */
    "b9000 b9000 b9000 b9000 c b9000 k B9",   /* ... across a rotation */
    "b10 b10 e b10 b10 c k b10 c",            /* one of several in flight fails */
    "B9 i40 a7 a9 k i600 a1 b3 c i9 i9 a2 x", /* appends behind a write that is in flight */
    "i40 a7 j m a9 c i700 a1 j B9 c x",
    "b30 g3000 b30 g600 b30 c G3000 b5 k G7",
    "b10 c b20 b20 x d b20 b20 k u B20 b20 x s b9 k d b9 c", /* modes change between openings */
    "f f m b2000 b2000 b2000 m b2000 t1 m f b2000 c",
};

/* Tokens of the bounded-exhaustive sequences. */
static const char *const alphabet[] = {
    "a0", "a1", "a700", "a40000",   "b600 c", "g500", "c",     "f f",     "t1",   "t0",  "x",
    "k",  "m",  "r",    "e a800 c", "s x",    "n k",  "A3000", "b20 b20", "B600", "G40", "d k",
};
enum { LETTERS = sizeof(alphabet) / sizeof(alphabet[0]), BEFORE = 3 };

/* What the sequences begin with: an empty log, one in use, one that has rotated and trimmed. */
static const char *const before[BEFORE] = {"", "a600 c a30", "f f m f t1 m a30"};

static void sequence(struct power *power, const uint64_t *letters, int count, uint64_t start,
                     enum session_mode mode) {
    char script[256];
    int used = snprintf(script, sizeof(script), "%s ", before[start % BEFORE]);
    for (int i = 0; i < count; i++) {
        used += snprintf(script + used, sizeof(script) - (size_t)used, "%s ", alphabet[letters[i]]);
    }
    snprintf(script + used, sizeof(script) - (size_t)used, "a40 c");
    power_script(power, script, mode);
}

static bool wants(const struct power_options *options, int mode) {
    return options->modes == 0 || (options->modes >> mode & 1) != 0;
}

static enum session_mode any_mode(const struct power_options *options, uint64_t number) {
    int mode = (int)(number % SESSION_MODES);
    while (!wants(options, mode)) mode = (mode + 1) % SESSION_MODES;
    return (enum session_mode)mode;
}

void power_run(const struct power_options *options, struct power_result *result) {
    struct power *power = power_new(options, result);
    for (size_t i = 0; i < sizeof(stories) / sizeof(stories[0]); i++) {
        for (int mode = 0; mode < SESSION_MODES; mode++) {
            if (wants(options, mode)) power_script(power, stories[i], (enum session_mode)mode);
        }
    }
    /* Every pair of tokens once, in an order that a seed shuffles, then triples at random. */
    uint64_t seed = options->seed;
    uint64_t pairs = (uint64_t)LETTERS * LETTERS, step = 2 * check_below(&seed, pairs) + 1;
    while (step % 2 == 0 || step % 3 == 0) step++;
    for (uint64_t i = 0; i < pairs && !power_enough(power); i++) {
        uint64_t pair = i * step % pairs;
        const uint64_t letters[2] = {pair / LETTERS, pair % LETTERS};
        sequence(power, letters, 2, i, any_mode(options, i));
    }
    uint64_t triples = (uint64_t)(options->scale * 400.0);
    for (uint64_t i = 0; i < triples && !power_enough(power); i++) {
        const uint64_t letters[3] = {check_below(&seed, LETTERS), check_below(&seed, LETTERS),
                                     check_below(&seed, LETTERS)};
        uint64_t start = check_below(&seed, BEFORE);
        sequence(power, letters, 3, start, any_mode(options, check_below(&seed, SESSION_MODES)));
    }
    power_free(power);
}
