/*
 * The simulated disk: what each event does to the cache and to the device below it. The verbs of
 * the I/O seam are in simdisk_io.c, the power cut in simdisk_cut.c, the rules in simdisk.h.
 */
#include "simdisk.h"

#include "check.h"

/*
 * Under ASan the core's 2 MiB windows are mapped, and their shadow mapped anew, for each of tens of
 * thousands of recoveries: half of the suites' time. Clearing in place is cheaper, and a smaller
 * quarantine still catches what is used after it was freed.
 */
const char *__asan_default_options(void);
__attribute__((used)) const char *__asan_default_options(void) {
    return "clear_shadow_mmap_threshold=8388608:quarantine_size_mb=8";
}

/* ---- files ----------------------------------------------------------------------------------- */

struct sim_file *sim_file(const struct sim_disk *disk, uint32_t inode) {
    for (size_t i = 0; i < disk->file_count; i++) {
        if (disk->files[i]->inode == inode) return disk->files[i];
    }
    return NULL;
}

static struct sim_file *file_must(const struct sim_disk *disk, uint32_t inode) {
    struct sim_file *file = sim_file(disk, inode);
    CHECK(file != NULL);
    return file;
}

static void file_reserve(struct sim_file *file, uint64_t bytes) {
    if (bytes <= file->capacity) return;
    uint64_t capacity = (bytes + 4095) / 4096 * 4096;
    size_t before = (size_t)(file->capacity / SIM_SECTOR_BYTES);
    size_t after = (size_t)(capacity / SIM_SECTOR_BYTES);
    file->cache = realloc(file->cache, (size_t)capacity);
    file->flags = realloc(file->flags, after);
    file->written = realloc(file->written, after * sizeof(file->written[0]));
    file->pending = realloc(file->pending, after * sizeof(file->pending[0]));
    CHECK(file->cache != NULL && file->flags != NULL);
    CHECK(file->written != NULL && file->pending != NULL);
    memset(file->cache + file->capacity, 0, (size_t)(capacity - file->capacity));
    memset(file->flags + before, 0, after - before);
    memset(file->written + before, 0, (after - before) * sizeof(file->written[0]));
    memset(file->pending + before, 0, (after - before) * sizeof(file->pending[0]));
    file->capacity = capacity;
}

static void sector_free(struct sim_file *file, size_t sector) {
    struct sim_sector *pending = file->pending[sector];
    if (pending == NULL) return;
    free(pending->data);
    free(pending);
    file->pending[sector] = NULL;
    file->pending_count--;
}

static void file_free(struct sim_file *file) {
    for (size_t i = 0; i < file->capacity / SIM_SECTOR_BYTES; i++) sector_free(file, i);
    free(file->cache);
    free(file->flags);
    free(file->written);
    free(file->pending);
    free(file->sizes);
    free(file->size_stamps);
    free(file);
}

static void file_resize(struct sim_file *file, uint64_t bytes, uint32_t stamp) {
    if (bytes == file->bytes) return;
    file_reserve(file, bytes);
    file->bytes = bytes;
    size_t count = file->size_count + 1;
    file->sizes = realloc(file->sizes, count * sizeof(file->sizes[0]));
    file->size_stamps = realloc(file->size_stamps, count * sizeof(file->size_stamps[0]));
    CHECK(file->sizes != NULL && file->size_stamps != NULL);
    file->sizes[file->size_count] = bytes;
    file->size_stamps[file->size_count++] = stamp;
}

/* ---- sectors --------------------------------------------------------------------------------- */

static void sector_capacity(struct sim_sector *pending, uint32_t capacity) {
    uint8_t *data = malloc((size_t)capacity * (SIM_SECTOR_BYTES + sizeof(uint32_t)));
    CHECK(data != NULL);
    uint32_t *stamps = (uint32_t *)(void *)(data + (size_t)capacity * SIM_SECTOR_BYTES);
    if (pending->data != NULL) {
        size_t count = (size_t)pending->count + 1;
        memcpy(data, pending->data, count * SIM_SECTOR_BYTES);
        memcpy(stamps, pending->stamps, count * sizeof(stamps[0]));
        free(pending->data);
    }
    pending->data = data;
    pending->stamps = stamps;
    pending->capacity = capacity;
}

/* A write that changes nothing is a version only if it is somebody's who will complete it. */
static bool needs_version(const struct sim_sector *pending, bool same, uint32_t stamp) {
    if (!same) return true;
    if (pending == NULL) return false;
    if (pending->count == 0) return true;
    return stamp > SIM_STAMP_MAX || pending->stamps[pending->count] > SIM_STAMP_MAX;
}

/* The sector's cache content becomes `content`; its old content stays as what may come back. */
static void sector_write(struct sim_file *file, size_t sector, const uint8_t *content,
                         unsigned flags, uint32_t stamp) {
    uint8_t *cache = file->cache + sector * SIM_SECTOR_BYTES;
    struct sim_sector *pending = file->pending[sector];
    struct sim_written *written = &file->written[sector];
    bool same = memcmp(cache, content, SIM_SECTOR_BYTES) == 0;
    bool first = (file->flags[sector] & SIM_BYTES) == 0 || stamp < written->bytes;
    if ((flags & SIM_BYTES) != 0 && first) written->bytes = stamp;
    written->last = stamp;
    file->flags[sector] = (uint8_t)((file->flags[sector] & ~(unsigned)SIM_STRICT) | flags);
    if (!needs_version(pending, same, stamp)) {
        if (pending == NULL) file->flags[sector] |= SIM_DULL;
        return;
    }
    if (pending == NULL) {
        pending = calloc(1, sizeof(*pending));
        CHECK(pending != NULL);
        sector_capacity(pending, 2);
        memcpy(pending->data, cache, SIM_SECTOR_BYTES);
        pending->stamps[0] = 0;
        file->pending[sector] = pending;
        file->pending_count++;
    }
    if (pending->count + 1 == pending->capacity) sector_capacity(pending, pending->capacity * 2);
    pending->count++;
    pending->stamps[pending->count] = stamp;
    memcpy(pending->data + (size_t)pending->count * SIM_SECTOR_BYTES, content, SIM_SECTOR_BYTES);
    memcpy(cache, content, SIM_SECTOR_BYTES);
}

/* Version k is what the device holds now; the versions above it stay open. */
static void sector_settle(struct sim_file *file, size_t sector, uint32_t k) {
    struct sim_sector *pending = file->pending[sector];
    if (k == 0) return;
    size_t kept = (size_t)(pending->count - k) + 1;
    memmove(pending->data, pending->data + (size_t)k * SIM_SECTOR_BYTES, kept * SIM_SECTOR_BYTES);
    memmove(pending->stamps, pending->stamps + k, kept * sizeof(pending->stamps[0]));
    pending->count -= k;
    if (pending->count == 0) sector_free(file, sector);
}

/* ---- writes ---------------------------------------------------------------------------------- */

/* data NULL: zeros. */
static void file_write(struct sim_file *file, uint64_t offset, const uint8_t *data, uint64_t bytes,
                       bool strict, uint32_t stamp) {
    bool fill = data == NULL && offset % 4096 == 0 && bytes % 4096 == 0;
    unsigned flags = (strict ? SIM_STRICT : 0u) | (fill ? 0u : SIM_BYTES);
    uint8_t content[SIM_SECTOR_BYTES];
    uint64_t end = offset + bytes;
    file_reserve(file, end);
    for (uint64_t at = offset; at < end;) {
        size_t sector = (size_t)(at / SIM_SECTOR_BYTES);
        size_t within = (size_t)(at % SIM_SECTOR_BYTES);
        size_t part = SIM_SECTOR_BYTES - within;
        if (part > end - at) part = (size_t)(end - at);
        memcpy(content, file->cache + sector * SIM_SECTOR_BYTES, SIM_SECTOR_BYTES);
        if (data != NULL) memcpy(content + within, data + (at - offset), part);
        if (data == NULL) memset(content + within, 0, part);
        sector_write(file, sector, content, flags, stamp);
        at += part;
    }
}

static void file_truncate(struct sim_file *file, uint64_t bytes, uint32_t stamp) {
    if (bytes < file->bytes) file_write(file, bytes, NULL, file->bytes - bytes, false, stamp);
    file_resize(file, bytes, stamp);
}

/* ---- syncs ----------------------------------------------------------------------------------- */

/* The newest version that such a sync brings to the device; 0: none. */
static uint32_t version_covered(const struct sim_sector *pending, uint32_t covers) {
    uint32_t k = pending->count;
    while (k > 0 && pending->stamps[k] > covers) k--;
    return k;
}

static uint32_t version_of(const struct sim_sector *pending, uint32_t request) {
    uint32_t k = pending->count;
    while (k > 0 && pending->stamps[k] != request) k--;
    return k;
}

/* Version k of the sector is durable, and so are the writes up to `covers` that made no version. */
static void sector_sync(struct sim_file *file, size_t sector, uint32_t k, uint32_t covers) {
    struct sim_written *written = &file->written[sector];
    uint8_t *flags = &file->flags[sector];
    if ((*flags & SIM_BYTES) != 0 && written->bytes <= covers) {
        *flags |= SIM_LIVE;
        written->bytes = written->last;
    }
    if (file->pending[sector] != NULL) sector_settle(file, sector, k);
    if (written->last <= covers) {
        *flags &= SIM_LIVE;
    } else if (file->pending[sector] == NULL) {
        *flags |= SIM_DULL;
    }
}

static void sizes_sync(struct sim_file *file, uint32_t covers) {
    size_t covered = file->size_count;
    while (covered > 0 && file->size_stamps[covered - 1] > covers) covered--;
    if (covered == 0) return;
    file->durable_bytes = file->sizes[covered - 1];
    file->size_count -= covered;
    memmove(file->sizes, file->sizes + covered, file->size_count * sizeof(file->sizes[0]));
    memmove(file->size_stamps, file->size_stamps + covered,
            file->size_count * sizeof(file->size_stamps[0]));
}

static void file_sync(struct sim_file *file, uint32_t covers) {
    for (size_t i = 0; i < file->capacity / SIM_SECTOR_BYTES; i++) {
        struct sim_sector *pending = file->pending[i];
        if (pending == NULL && (file->flags[i] & ~(unsigned)SIM_LIVE) == 0) continue;
        bool lies = pending != NULL && pending->count == 0;
        if (lies) continue; /* the cache calls it clean: this sync has nothing to write */
        sector_sync(file, i, pending != NULL ? version_covered(pending, covers) : 0, covers);
    }
    sizes_sync(file, covers);
}

/* The sectors that event's write touches; those of the whole file where it is no request's. */
static void sectors_of(const struct sim_file *file, const struct sim_event *event, size_t *first,
                       size_t *end) {
    *first = event->bytes == 0 ? 0 : (size_t)(event->offset / SIM_SECTOR_BYTES);
    *end = (size_t)(file->capacity / SIM_SECTOR_BYTES);
    uint64_t bound = event->offset + event->bytes + SIM_SECTOR_BYTES - 1;
    if (event->bytes > 0 && bound / SIM_SECTOR_BYTES < *end) {
        *end = (size_t)(bound / SIM_SECTOR_BYTES);
    }
}

static void restamp(uint32_t *stamp, uint32_t request, uint32_t now) {
    if (*stamp == request) *stamp = now;
}

/* The writes of a request are over: they returned at `now`. */
static void file_returned(struct sim_file *file, const struct sim_event *event, uint32_t now) {
    size_t i, end;
    for (size_t s = 0; s < file->size_count; s++) {
        restamp(&file->size_stamps[s], event->request, now);
    }
    for (sectors_of(file, event, &i, &end); i < end; i++) {
        struct sim_sector *pending = file->pending[i];
        restamp(&file->written[i].last, event->request, now);
        restamp(&file->written[i].bytes, event->request, now);
        for (uint32_t k = 1; pending != NULL && k <= pending->count; k++) {
            restamp(&pending->stamps[k], event->request, now);
        }
    }
}

/* Of each sector the request's own version, and nothing else. */
static void file_sync_range(struct sim_file *file, const struct sim_event *event, uint32_t now) {
    size_t i, end;
    for (sectors_of(file, event, &i, &end); i < end; i++) {
        struct sim_sector *pending = file->pending[i];
        uint32_t k = pending != NULL ? version_of(pending, event->request) : 0;
        struct sim_written *written = &file->written[i];
        bool own = written->last == event->request; /* then nothing of the sector is newer */
        if (own) *written = (struct sim_written){0};
        if (k > 0 || (own && pending == NULL)) sector_sync(file, i, k, 0);
    }
    file_returned(file, event, now);
}

/* Each un-synced sector settles on one of its versions; what the cache shows stays as it is. */
static void file_sync_failed(const struct sim_disk *disk, struct sim_file *file,
                             const struct sim_event *event) {
    struct sim_axis axis = {.kind = SIM_AXIS_SECTOR, .inode = file->inode};
    uint8_t kept[SIM_SECTOR_BYTES];
    uint64_t seed = event->seed;
    size_t i, end;
    for (sectors_of(file, event, &i, &end); i < end; i++) {
        struct sim_sector *pending = file->pending[i];
        bool busy = pending != NULL && pending->stamps[pending->count] > SIM_STAMP_MAX;
        if (busy) continue; /* another request's: its own completion decides */
        file->flags[i] = (uint8_t)(file->flags[i] & ~(SIM_DULL | SIM_BYTES));
        if (pending == NULL || pending->count == 0) continue;
        axis.sector = (uint32_t)i;
        sim_axis_options(disk, file, &axis);
        uint32_t choice = (uint32_t)check_below(&seed, axis.options);
        if (check_below(&seed, 5) < 2) choice = axis.newest;
        sim_axis_content(file, &axis, choice, check_random(&seed), kept);
        memcpy(pending->data, kept, SIM_SECTOR_BYTES);
        pending->count = 0;
        pending->stamps[0] = 0;
        bool same = memcmp(kept, file->cache + i * SIM_SECTOR_BYTES, SIM_SECTOR_BYTES) == 0;
        if (same) sector_free(file, i);
    }
}

/* ---- names ----------------------------------------------------------------------------------- */

static size_t names_find(const struct sim_names *names, const char *text) {
    size_t i = 0;
    while (i < names->count && strcmp(names->list[i].text, text) != 0) i++;
    return i;
}

uint32_t sim_lookup(const struct sim_disk *disk, const char *name) {
    size_t i = names_find(&disk->names, name);
    return i < disk->names.count ? disk->names.list[i].inode : 0;
}

static void names_remove(struct sim_names *names, size_t i) {
    names->list[i] = names->list[--names->count];
}

static void names_add(struct sim_names *names, const char *text, uint32_t inode) {
    CHECK(names->count < SIM_FILES_MAX);
    struct sim_name *name = &names->list[names->count++];
    snprintf(name->text, sizeof(name->text), "%s", text);
    name->inode = inode;
}

/* Do op, unless its source is missing (another change that it needs never reached the disk). */
void sim_name_op_apply(struct sim_names *names, const struct sim_name_op *op) {
    size_t from = names_find(names, op->from);
    if (op->kind == SIM_CREATE) {
        if (from == names->count) names_add(names, op->from, op->inode);
        return;
    }
    if (from == names->count || names->list[from].inode != op->inode) return;
    names_remove(names, from);
    if (op->kind == SIM_RENAME && names_find(names, op->to) == names->count) {
        names_add(names, op->to, op->inode);
    }
}

static void name_change(struct sim_disk *disk, const struct sim_event *event, uint32_t inode) {
    CHECK(disk->op_count < SIM_NAME_OPS_MAX);
    struct sim_name_op *op = &disk->ops[disk->op_count++];
    *op = (struct sim_name_op){.kind = event->kind, .inode = inode};
    memcpy(op->from, event->from, sizeof(op->from));
    memcpy(op->to, event->to, sizeof(op->to));
    sim_name_op_apply(&disk->names, op);
}

static bool named(const struct sim_names *names, uint32_t inode) {
    for (size_t i = 0; i < names->count; i++) {
        if (names->list[i].inode == inode) return true;
    }
    return false;
}

/* Forget files that no name, present or possible, and no descriptor reaches. */
static void collect(struct sim_disk *disk) {
    for (size_t i = 0; i < disk->file_count;) {
        struct sim_file *file = disk->files[i];
        bool reachable = file->opens > 0 || named(&disk->names, file->inode) ||
                         named(&disk->durable_names, file->inode) || disk->op_count > 0;
        if (reachable) {
            i++;
            continue;
        }
        file_free(file);
        memmove(disk->files + i, disk->files + i + 1,
                (disk->file_count - i - 1) * sizeof(disk->files[0]));
        disk->file_count--;
    }
}

static void create(struct sim_disk *disk, const struct sim_event *event) {
    CHECK(disk->file_count < SIM_FILES_MAX);
    struct sim_file *file = calloc(1, sizeof(*file));
    CHECK(file != NULL);
    file->inode = ++disk->inode_next;
    CHECK_EQ(file->inode, event->inode);
    disk->files[disk->file_count++] = file;
    name_change(disk, event, file->inode);
}

static void rename_file(struct sim_disk *disk, const struct sim_event *event) {
    struct sim_file *file = file_must(disk, event->inode);
    name_change(disk, event, event->inode);
    for (size_t i = 0; i < file->capacity / SIM_SECTOR_BYTES; i++) {
        file->flags[i] = (uint8_t)(file->flags[i] & ~SIM_LIVE);
    }
}

/* ---- events ---------------------------------------------------------------------------------- */

static void write_event(struct sim_disk *disk, struct sim_file *file,
                        const struct sim_event *event) {
    uint32_t stamp = event->request != 0 ? event->request : disk->stamp;
    uint64_t end = event->offset + event->bytes;
    file_write(file, event->offset, event->data, event->bytes, event->strict, stamp);
    if (end > file->bytes) file_resize(file, end, stamp);
}

static void sync_event(struct sim_disk *disk, struct sim_file *file,
                       const struct sim_event *event) {
    if (event->kind == SIM_SYNC_RANGE) {
        file_sync_range(file, event, disk->stamp);
        return;
    }
    bool failed = event->kind == SIM_SYNC_FAILED;
    if (event->request != 0) file_returned(file, event, failed ? disk->stamp : event->covers);
    if (failed) {
        file_sync_failed(disk, file, event);
    } else {
        file_sync(file, event->covers);
    }
}

static bool is_of_a_file(const struct sim_event *event) {
    return event->kind != SIM_CREATE && event->kind != SIM_SYNC_DIR && event->kind != SIM_MARK;
}

void sim_apply(struct sim_disk *disk, const struct sim_event *event) {
    struct sim_file *file = NULL;
    disk->events++;
    if (event->kind != SIM_MARK) disk->stamp++;
    if (is_of_a_file(event)) {
        file = sim_file(disk, event->inode);
        if (file == NULL) return; /* unlinked, and kept by a descriptor that no replay has */
    }
    switch (event->kind) {
        case SIM_WRITE: write_event(disk, file, event); break;
        case SIM_SYNC:
        case SIM_SYNC_RANGE:
        case SIM_SYNC_FAILED: sync_event(disk, file, event); break;
        case SIM_RETURNED: file_returned(file, event, disk->stamp); break;
        case SIM_CREATE: create(disk, event); break;
        case SIM_RENAME: rename_file(disk, event); break;
        case SIM_UNLINK: name_change(disk, event, event->inode); break;
        case SIM_TRUNCATE: file_truncate(file, event->offset, disk->stamp); break;
        case SIM_ALLOCATE:
            if (event->offset > file->bytes) file_resize(file, event->offset, disk->stamp);
            break;
        case SIM_SYNC_DIR:
            disk->durable_names = disk->names;
            disk->op_count = 0;
            collect(disk);
            break;
        case SIM_MARK: break;
    }
}

void sim_record(struct sim_disk *disk, const struct sim_event *event) {
    struct sim_trace *trace = disk->trace;
    sim_apply(disk, event);
    if (trace == NULL) return;
    CHECK(trace->count < SIM_EVENTS_MAX); /* a core that loops must not eat the machine */
    if (trace->count == trace->capacity) {
        trace->capacity = trace->capacity == 0 ? 256 : trace->capacity * 2;
        trace->events = realloc(trace->events, trace->capacity * sizeof(trace->events[0]));
        CHECK(trace->events != NULL);
    }
    struct sim_event *copy = &trace->events[trace->count++];
    *copy = *event;
    if (event->data == NULL) return;
    copy->data = malloc((size_t)event->bytes);
    CHECK(copy->data != NULL);
    memcpy(copy->data, event->data, (size_t)event->bytes);
}

void sim_mark(struct sim_disk *disk, struct sim_mark mark) {
    if (disk->cut_at != 0 && disk->events >= disk->cut_at) return;
    struct sim_event event = {.kind = SIM_MARK, .mark = mark};
    uint64_t events = disk->events;
    sim_record(disk, &event);
    disk->events = events; /* a mark is no I/O: the counting of cuts does not see it */
}

void sim_trace_clear(struct sim_trace *trace) {
    for (size_t i = 0; i < trace->count; i++) free(trace->events[i].data);
    free(trace->events);
    *trace = (struct sim_trace){0};
}

/* ---- the machine ----------------------------------------------------------------------------- */

struct sim_disk *sim_new(void) {
    struct sim_disk *disk = calloc(1, sizeof(*disk));
    CHECK(disk != NULL);
    return disk;
}

void sim_free(struct sim_disk *disk) {
    if (disk == NULL) return;
    disk->trace = NULL;
    sim_drop_requests(disk, NULL);
    for (size_t i = 0; i < disk->file_count; i++) file_free(disk->files[i]);
    free(disk);
}

struct sim_file *sim_file_copy(const struct sim_file *file) {
    struct sim_file *copy = calloc(1, sizeof(*copy));
    CHECK(copy != NULL);
    copy->inode = file->inode;
    copy->durable_bytes = file->durable_bytes;
    file_reserve(copy, file->capacity);
    copy->bytes = file->bytes;
    if (file->capacity > 0) {
        memcpy(copy->cache, file->cache, (size_t)file->capacity);
        memcpy(copy->flags, file->flags, (size_t)(file->capacity / SIM_SECTOR_BYTES));
    }
    return copy;
}

static uint32_t returned(uint32_t stamp, uint32_t now) {
    return stamp > SIM_STAMP_MAX ? now : stamp;
}

/* What requests wrote is a write like any other there: their process is gone. */
static void copy_pending(struct sim_file *copy, const struct sim_file *file, uint32_t now) {
    for (size_t i = 0; i < file->size_count; i++) {
        copy->bytes = i == 0 ? file->durable_bytes : file->sizes[i - 1];
        file_resize(copy, file->sizes[i], returned(file->size_stamps[i], now));
    }
    copy->bytes = file->bytes;
    for (size_t i = 0; i < file->capacity / SIM_SECTOR_BYTES; i++) {
        copy->written[i].last = returned(file->written[i].last, now);
        copy->written[i].bytes = returned(file->written[i].bytes, now);
        if (file->pending[i] == NULL) continue;
        struct sim_sector *sector = calloc(1, sizeof(*sector));
        CHECK(sector != NULL);
        sector_capacity(sector, file->pending[i]->capacity);
        sector->count = file->pending[i]->count;
        memcpy(sector->data, file->pending[i]->data,
               ((size_t)sector->count + 1) * SIM_SECTOR_BYTES);
        for (uint32_t k = 0; k <= sector->count; k++) {
            sector->stamps[k] = returned(file->pending[i]->stamps[k], now);
        }
        copy->pending[i] = sector;
        copy->pending_count++;
    }
}

struct sim_disk *sim_copy(const struct sim_disk *disk) {
    struct sim_disk *copy = sim_new();
    for (size_t i = 0; i < disk->file_count; i++) {
        copy->files[i] = sim_file_copy(disk->files[i]);
        copy_pending(copy->files[i], disk->files[i], disk->stamp);
    }
    copy->file_count = disk->file_count;
    copy->inode_next = disk->inode_next;
    copy->stamp = disk->stamp;
    copy->names = disk->names;
    copy->durable_names = disk->durable_names;
    memcpy(copy->ops, disk->ops, sizeof(disk->ops));
    copy->op_count = disk->op_count;
    copy->strict = disk->strict;
    return copy;
}

void sim_kill(struct sim_disk *disk) {
    sim_drop_requests(disk, NULL);
    for (size_t i = 0; i < SIM_OPEN_MAX; i++) {
        if (disk->open[i].inode == 0) continue;
        file_must(disk, disk->open[i].inode)->opens--;
        disk->open[i].inode = 0;
    }
    disk->lock_owner = NULL;
}

bool sim_lies(const struct sim_disk *disk) {
    for (size_t f = 0; f < disk->file_count; f++) {
        const struct sim_file *file = disk->files[f];
        for (size_t i = 0; file->pending_count > 0 && i < file->capacity / SIM_SECTOR_BYTES; i++) {
            if (file->pending[i] != NULL && file->pending[i]->count == 0) return true;
        }
    }
    return false;
}

void sim_damage(struct sim_disk *disk, uint32_t inode, uint64_t offset, const void *data,
                size_t bytes) {
    struct sim_file *file = file_must(disk, inode);
    CHECK(file->pending_count == 0 && offset + bytes <= file->capacity);
    memcpy(file->cache + offset, data, bytes);
}
