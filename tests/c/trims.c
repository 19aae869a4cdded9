/* Random trims of META; see trims.h. */
#include "trims.h"

#include "check.h"
#include "meta.h"
#include "simdisk.h"

enum { STEPS_MAX = 24, AXES_MAX = 256 };

struct history {
    struct sim_disk *disk;
    struct wal_io *io;
    struct wal_meta meta;
    struct trims_result *result;
    uint64_t seed;
    uint64_t chance;
    uint64_t settled; /* what META said last, or what was made durable since */
    uint64_t asked;   /* by a trim that failed or was cut short; 0: none */
};

static uint64_t below(struct history *h, uint64_t limit) { return check_below(&h->chance, limit); }

static void violated(struct history *h, const char *what, uint64_t found) {
    if (h->result->violations++ > 0) return;
    snprintf(h->result->first, sizeof(h->result->first),
             "history %" PRIu64 ": %s: %" PRIu64 ", trimmed to %" PRIu64 ", asked %" PRIu64,
             h->seed, what, found, h->settled, h->asked);
}

static void begin(struct history *h) {
    wal_error error = {0};
    h->disk = sim_new();
    h->io = sim_io(h->disk);
    h->settled = h->meta.disk.trim_lsn = 1;
    h->meta.disk.owner_bytes = (uint32_t)below(h, 2) * (uint32_t)below(h, WAL_OWNER_BYTES_MAX + 1);
    memset(h->meta.disk.owner, 'o', h->meta.disk.owner_bytes);
    CHECK_EQ(wal_meta_create(h->io, &h->meta, &error), 0);
}

static void cut_power(struct history *h) {
    static struct sim_axis axes[AXES_MAX];
    uint32_t choice[AXES_MAX] = {0};
    size_t count = sim_axes(h->disk, axes, AXES_MAX, true);
    for (size_t i = 0; i < count; i++) choice[i] = (uint32_t)below(h, axes[i].options);
    struct sim_disk *after = sim_cut(h->disk, axes, choice, count, check_random(&h->chance));
    sim_kill(h->disk);
    wal_io_destroy(h->io);
    sim_free(h->disk);
    h->disk = after;
    h->io = sim_io(after);
    h->result->power_cuts++;
}

/* As a writer's recovery does it: sync, then read past the cache. */
static void load(struct history *h) {
    wal_error error = {0};
    int file = wal_io_open(h->io, "META", WAL_IO_READ);
    CHECK(file >= 0);
    int synced = wal_io_sync(h->io, file);
    wal_io_close(h->io, file);
    CHECK_EQ(synced, 0);
    int result = wal_meta_load(h->io, WAL_IO_READ | WAL_IO_UNCACHED, &h->meta, &error);
    if (result != 1) {
        violated(h, "META is lost", 0);
        return;
    }
    uint64_t found = h->meta.disk.trim_lsn;
    if (found != h->settled && found != h->asked) violated(h, "META has another trim LSN", found);
    h->result->damaged_slots += (uint64_t)h->meta.damaged_slots;
    h->settled = found;
    h->asked = 0;
}

/* One call; false: it failed, and the process that made it gives up. */
static bool trim(struct history *h) {
    wal_error error = {0};
    uint64_t lsn = h->settled + 1 + below(h, 20);
    if (below(h, 2) == 0) {
        h->disk->sync_fail_in = 1 + below(h, 2);
        h->disk->sync_fail_dirty = 1;
        h->disk->sync_fail_seed = check_random(&h->chance);
    }
    if (below(h, 4) == 0) h->disk->cut_at = h->disk->events + 1 + below(h, 5);
    uint64_t failures = h->disk->sync_failures;
    h->result->trims++;
    h->asked = lsn;
    int result = wal_meta_set_trim(h->io, &h->meta, lsn, &error);
    bool off = h->disk->cut_at != 0 && h->disk->events >= h->disk->cut_at;
    h->disk->sync_fail_in = 0;
    h->disk->cut_at = 0;
    h->result->failed_syncs += h->disk->sync_failures - failures;
    if (result == 0) {
        h->settled = lsn;
        h->asked = 0;
    } else if (!off && h->disk->sync_failures == failures) {
        violated(h, "a trim fails with no fault in sight", lsn);
    }
    if (off) cut_power(h);
    return result == 0 && !off;
}

static void run(uint64_t seed, struct trims_result *result) {
    struct history h = {.result = result, .seed = seed, .chance = seed};
    begin(&h);
    result->histories++;
    for (uint64_t n = 1 + below(&h, STEPS_MAX); n > 0 && result->violations == 0; n--) {
        bool goes_on = trim(&h);
        if (below(&h, 6) == 0) {
            cut_power(&h);
            goes_on = false;
        }
        if (!goes_on) load(&h);
    }
    sim_kill(h.disk);
    wal_io_destroy(h.io);
    sim_free(h.disk);
}

void trims_run(uint64_t seed, uint64_t histories, struct trims_result *result) {
    *result = (struct trims_result){0};
    for (uint64_t i = 0; i < histories && result->violations == 0; i++) {
        run(seed * 1000003 + i, result);
    }
}
