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
    file->pending = realloc(file->pending, after * sizeof(file->pending[0]));
    CHECK(file->cache != NULL && file->flags != NULL && file->pending != NULL);
    memset(file->cache + file->capacity, 0, (size_t)(capacity - file->capacity));
    memset(file->flags + before, 0, after - before);
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
    free(file->pending);
    free(file->sizes);
    free(file);
}

static void file_resize(struct sim_file *file, uint64_t bytes) {
    if (bytes == file->bytes) return;
    file_reserve(file, bytes);
    file->bytes = bytes;
    file->sizes = realloc(file->sizes, (file->size_count + 1) * sizeof(file->sizes[0]));
    CHECK(file->sizes != NULL);
    file->sizes[file->size_count++] = bytes;
}

/* The sector's cache content becomes `content`; its old content stays as what may come back. */
static void sector_write(struct sim_file *file, size_t sector, const uint8_t *content,
                         unsigned flags) {
    uint8_t *cache = file->cache + sector * SIM_SECTOR_BYTES;
    struct sim_sector *pending = file->pending[sector];
    bool same = memcmp(cache, content, SIM_SECTOR_BYTES) == 0;
    file->flags[sector] = (uint8_t)((file->flags[sector] & ~(unsigned)SIM_STRICT) | flags);
    if (pending == NULL && same) {
        file->flags[sector] |= SIM_DULL;
        return;
    }
    if (pending == NULL) {
        pending = calloc(1, sizeof(*pending));
        CHECK(pending != NULL);
        pending->capacity = 2;
        pending->data = malloc(2 * SIM_SECTOR_BYTES);
        CHECK(pending->data != NULL);
        memcpy(pending->data, cache, SIM_SECTOR_BYTES);
        file->pending[sector] = pending;
        file->pending_count++;
    } else if (same && pending->count > 0) {
        return;
    }
    if (pending->count + 1 == pending->capacity) {
        pending->capacity *= 2;
        pending->data = realloc(pending->data, (size_t)pending->capacity * SIM_SECTOR_BYTES);
        CHECK(pending->data != NULL);
    }
    pending->count++;
    memcpy(pending->data + (size_t)pending->count * SIM_SECTOR_BYTES, content, SIM_SECTOR_BYTES);
    memcpy(cache, content, SIM_SECTOR_BYTES);
}

/* data NULL: zeros. */
static void file_write(struct sim_file *file, uint64_t offset, const uint8_t *data, uint64_t bytes,
                       bool strict) {
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
        sector_write(file, sector, content, flags);
        at += part;
    }
}

static void file_truncate(struct sim_file *file, uint64_t bytes) {
    if (bytes < file->bytes) file_write(file, bytes, NULL, file->bytes - bytes, false);
    file_resize(file, bytes);
}

/* ---- syncs ----------------------------------------------------------------------------------- */

static void file_sync(struct sim_file *file) {
    for (size_t i = 0; i < file->capacity / SIM_SECTOR_BYTES; i++) {
        struct sim_sector *pending = file->pending[i];
        bool lies = pending != NULL && pending->count == 0;
        if (lies) continue; /* the cache calls it clean: this sync has nothing to write */
        if ((file->flags[i] & SIM_BYTES) != 0) file->flags[i] |= SIM_LIVE;
        file->flags[i] &= SIM_LIVE;
        sector_free(file, i);
    }
    file->durable_bytes = file->bytes;
    file->size_count = 0;
}

/* Each un-synced sector settles on one of its versions; what the cache shows stays as it is. */
static void file_sync_failed(const struct sim_disk *disk, struct sim_file *file, uint64_t seed) {
    struct sim_axis axis = {.kind = SIM_AXIS_SECTOR, .inode = file->inode};
    uint8_t kept[SIM_SECTOR_BYTES];
    for (size_t i = 0; i < file->capacity / SIM_SECTOR_BYTES; i++) {
        struct sim_sector *pending = file->pending[i];
        file->flags[i] = (uint8_t)(file->flags[i] & ~(SIM_DULL | SIM_BYTES));
        if (pending == NULL || pending->count == 0) continue;
        axis.sector = (uint32_t)i;
        sim_axis_options(disk, file, &axis);
        uint32_t choice = (uint32_t)check_below(&seed, axis.options);
        if (check_below(&seed, 5) < 2) choice = axis.newest;
        sim_axis_content(file, &axis, choice, check_random(&seed), kept);
        memcpy(pending->data, kept, SIM_SECTOR_BYTES);
        pending->count = 0;
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

void sim_apply(struct sim_disk *disk, const struct sim_event *event) {
    disk->events++;
    struct sim_file *file = NULL;
    if (event->kind != SIM_CREATE && event->kind != SIM_SYNC_DIR && event->kind != SIM_MARK) {
        file = sim_file(disk, event->inode);
        if (file == NULL) return; /* unlinked, and kept by a descriptor that no replay has */
    }
    switch (event->kind) {
        case SIM_WRITE:
            file_write(file, event->offset, event->data, event->bytes, event->strict);
            if (event->offset + event->bytes > file->bytes) {
                file_resize(file, event->offset + event->bytes);
            }
            break;
        case SIM_SYNC: file_sync(file); break;
        case SIM_SYNC_FAILED: file_sync_failed(disk, file, event->seed); break;
        case SIM_CREATE: create(disk, event); break;
        case SIM_RENAME: rename_file(disk, event); break;
        case SIM_UNLINK: name_change(disk, event, event->inode); break;
        case SIM_TRUNCATE: file_truncate(file, event->offset); break;
        case SIM_ALLOCATE:
            if (event->offset > file->bytes) file_resize(file, event->offset);
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

static void copy_pending(struct sim_file *copy, const struct sim_file *file) {
    copy->size_count = file->size_count;
    if (file->size_count > 0) {
        copy->sizes = malloc(file->size_count * sizeof(file->sizes[0]));
        CHECK(copy->sizes != NULL);
        memcpy(copy->sizes, file->sizes, file->size_count * sizeof(file->sizes[0]));
    }
    for (size_t i = 0; i < file->capacity / SIM_SECTOR_BYTES; i++) {
        if (file->pending[i] == NULL) continue;
        struct sim_sector *sector = malloc(sizeof(*sector));
        CHECK(sector != NULL);
        *sector = *file->pending[i];
        sector->data = malloc((size_t)sector->capacity * SIM_SECTOR_BYTES);
        CHECK(sector->data != NULL);
        memcpy(sector->data, file->pending[i]->data,
               ((size_t)sector->count + 1) * SIM_SECTOR_BYTES);
        copy->pending[i] = sector;
        copy->pending_count++;
    }
}

struct sim_disk *sim_copy(const struct sim_disk *disk) {
    struct sim_disk *copy = sim_new();
    for (size_t i = 0; i < disk->file_count; i++) {
        copy->files[i] = sim_file_copy(disk->files[i]);
        copy_pending(copy->files[i], disk->files[i]);
    }
    copy->file_count = disk->file_count;
    copy->inode_next = disk->inode_next;
    copy->names = disk->names;
    copy->durable_names = disk->durable_names;
    memcpy(copy->ops, disk->ops, sizeof(disk->ops));
    copy->op_count = disk->op_count;
    copy->strict = disk->strict;
    return copy;
}

void sim_kill(struct sim_disk *disk) {
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
