/* The power cut: which choices are open on a simulated disk, and the machine that one leaves. */
#include "simdisk.h"

#include "check.h"
#include "format.h"

enum { NAME_LENIENT_MAX = 12 }; /* subsets of pending names offered beside the prefixes */

static bool has_prefix(const char *text, const char *prefix) {
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

static const char *name_of(const struct sim_disk *disk, uint32_t inode) {
    for (size_t i = 0; i < disk->names.count; i++) {
        if (disk->names.list[i].inode == inode) return disk->names.list[i].text;
    }
    return "";
}

/* The rules are in simdisk.h. */
static bool garbage_is_legal(const struct sim_disk *disk, const struct sim_file *file,
                             size_t sector) {
    if ((file->flags[sector] & SIM_STRICT) != 0 || (file->flags[sector] & SIM_LIVE) == 0) {
        return true;
    }
    const char *name = name_of(disk, file->inode);
    if (has_prefix(name, "META")) return true;
    if (!has_prefix(name, "wal-") && !has_prefix(name, "free-")) return false;
    if (sector < WAL_FRAMES_OFFSET / SIM_SECTOR_BYTES) return true;
    struct wal_disk_segment header;
    if (file->bytes < sizeof(header)) return false;
    memcpy(&header, file->cache, sizeof(header));
    return memcmp(header.magic, WAL_SEGMENT_MAGIC, sizeof(header.magic)) == 0 &&
           header.commit_alignment == WAL_BLOCK_BYTES;
}

void sim_axis_options(const struct sim_disk *disk, const struct sim_file *file,
                      struct sim_axis *axis) {
    const struct sim_sector *pending = file->pending[axis->sector];
    axis->newest = pending != NULL ? pending->count : 0;
    axis->options = axis->newest + 1;
    if (garbage_is_legal(disk, file, axis->sector)) axis->options++;
}

/*
 * Garbage is of two kinds: bytes that were never written, and a sector torn between two of its
 * versions, which is the one that looks right at a glance.
 */
static void garbage(const struct sim_file *file, const struct sim_axis *axis, uint64_t seed,
                    uint8_t *content) {
    const struct sim_sector *pending = file->pending[axis->sector];
    seed ^= ((uint64_t)axis->inode << 32 | axis->sector) * 0x9e3779b97f4a7c15u;
    bool torn = check_below(&seed, 2) == 1 && axis->newest > 0;
    if (torn) {
        size_t at = 8 * (1 + (size_t)check_below(&seed, SIM_SECTOR_BYTES / 8 - 1));
        const uint8_t *newest = pending->data + (size_t)axis->newest * SIM_SECTOR_BYTES;
        bool front = check_below(&seed, 2) == 1;
        memcpy(content, front ? newest : pending->data, SIM_SECTOR_BYTES);
        memcpy(content, front ? pending->data : newest, at);
        return;
    }
    for (size_t i = 0; i < SIM_SECTOR_BYTES; i += 8) {
        uint64_t word = check_random(&seed);
        memcpy(content + i, &word, sizeof(word));
    }
}

void sim_axis_content(const struct sim_file *file, const struct sim_axis *axis, uint32_t choice,
                      uint64_t seed, uint8_t *content) {
    const struct sim_sector *pending = file->pending[axis->sector];
    CHECK(choice < axis->options);
    if (choice > axis->newest) {
        garbage(file, axis, seed, content);
    } else if (pending != NULL) {
        memcpy(content, pending->data + (size_t)choice * SIM_SECTOR_BYTES, SIM_SECTOR_BYTES);
    } else {
        memcpy(content, file->cache + (size_t)axis->sector * SIM_SECTOR_BYTES, SIM_SECTOR_BYTES);
    }
}

size_t sim_axes(const struct sim_disk *disk, struct sim_axis *axes, size_t max, bool dull) {
    size_t count = 0;
    if (disk->op_count > 0) {
        size_t subsets = disk->op_count <= 3 ? (size_t)1 << disk->op_count : NAME_LENIENT_MAX;
        struct sim_axis axis = {.kind = SIM_AXIS_NAMES, .newest = (uint32_t)disk->op_count};
        axis.options = axis.newest + 1 + (disk->op_count > 1 ? (uint32_t)subsets : 0);
        CHECK(count < max);
        axes[count++] = axis;
    }
    for (size_t f = 0; f < disk->file_count; f++) {
        const struct sim_file *file = disk->files[f];
        struct sim_axis axis = {.kind = SIM_AXIS_SIZE, .inode = file->inode};
        axis.newest = (uint32_t)file->size_count;
        axis.options = axis.newest + 1;
        if (file->size_count > 0 && count < max) axes[count++] = axis;
        axis.kind = SIM_AXIS_SECTOR;
        for (size_t i = 0; i < file->capacity / SIM_SECTOR_BYTES; i++) {
            const struct sim_sector *pending = file->pending[i];
            bool written = pending != NULL && pending->count > 0;
            bool dull_one = pending == NULL && (file->flags[i] & SIM_DULL) != 0;
            if (!written && !(dull && dull_one)) continue;
            axis.sector = (uint32_t)i;
            sim_axis_options(disk, file, &axis);
            if (axis.options > 1 && count < max) axes[count++] = axis;
        }
    }
    return count;
}

/* ---- names ----------------------------------------------------------------------------------- */

/* Option 0 .. n: the first so many. Above: subset number option - n - 1 (of many: by its hash). */
static uint64_t name_mask(const struct sim_disk *disk, uint32_t choice) {
    uint64_t n = disk->op_count;
    if (choice <= n) return choice == 0 ? 0 : UINT64_MAX >> (64 - choice);
    uint64_t subset = choice - n - 1;
    return n <= 3 ? subset : check_random(&subset);
}

static void names_after(const struct sim_disk *disk, uint32_t choice, struct sim_names *names) {
    uint64_t mask = name_mask(disk, choice);
    *names = disk->durable_names;
    for (size_t i = 0; i < disk->op_count; i++) {
        if ((mask >> i & 1) != 0) sim_name_op_apply(names, &disk->ops[i]);
    }
}

static uint32_t names_choice(const struct sim_axis *axes, const uint32_t *choice, size_t count) {
    return count > 0 && axes[0].kind == SIM_AXIS_NAMES ? choice[0] : 0;
}

/* ---- the machine afterwards ------------------------------------------------------------------ */

/* What is synced, and nothing else: un-synced and lying sectors fall back. */
static void file_settle(struct sim_file *copy, const struct sim_file *file) {
    for (size_t i = 0; i < file->capacity / SIM_SECTOR_BYTES; i++) {
        bool live = (file->flags[i] & (SIM_LIVE | SIM_BYTES)) != 0; /* what arrived is synced now */
        copy->flags[i] = live ? SIM_LIVE : 0;
        if (file->pending[i] == NULL) continue;
        memcpy(copy->cache + i * SIM_SECTOR_BYTES, file->pending[i]->data, SIM_SECTOR_BYTES);
    }
    copy->bytes = file->durable_bytes;
}

static void file_cut_size(struct sim_file *file) {
    if (file->bytes < file->capacity) {
        memset(file->cache + file->bytes, 0, (size_t)(file->capacity - file->bytes));
    }
    file->durable_bytes = file->bytes;
}

struct sim_disk *sim_cut(const struct sim_disk *disk, const struct sim_axis *axes,
                         const uint32_t *choice, size_t count, uint64_t garbage_seed) {
    struct sim_disk *after = sim_new();
    names_after(disk, names_choice(axes, choice, count), &after->names);
    after->durable_names = after->names;
    after->inode_next = disk->inode_next;
    after->stamp = disk->stamp;
    after->strict = disk->strict;
    for (size_t f = 0; f < disk->file_count; f++) {
        bool kept = false;
        for (size_t i = 0; i < after->names.count; i++) {
            if (after->names.list[i].inode == disk->files[f]->inode) kept = true;
        }
        if (!kept) continue;
        struct sim_file *file = sim_file_copy(disk->files[f]);
        file_settle(file, disk->files[f]);
        after->files[after->file_count++] = file;
    }
    for (size_t i = 0; i < count; i++) {
        if (axes[i].kind == SIM_AXIS_NAMES || choice[i] == 0) continue;
        struct sim_file *file = sim_file(after, axes[i].inode);
        const struct sim_file *before = sim_file(disk, axes[i].inode);
        if (file == NULL) continue;
        if (axes[i].kind == SIM_AXIS_SIZE) {
            file->bytes = before->sizes[choice[i] - 1];
        } else {
            sim_axis_content(before, &axes[i], choice[i], garbage_seed,
                             file->cache + (size_t)axes[i].sector * SIM_SECTOR_BYTES);
        }
    }
    for (size_t f = 0; f < after->file_count; f++) file_cut_size(after->files[f]);
    return after;
}

/* ---- hashes ---------------------------------------------------------------------------------- */

static uint64_t mix(uint64_t a, uint64_t b) {
    uint64_t state = a ^ b * 0xd6e8feb86659fd93u;
    return check_random(&state);
}

/* Zeros hash to zero, so that a file's hash does not depend on how far it was filled. */
static uint64_t sector_hash(size_t sector, const uint8_t *content) {
    uint64_t hash = 0, any = 0;
    for (size_t i = 0; i < SIM_SECTOR_BYTES; i += 8) {
        uint64_t word;
        memcpy(&word, content + i, sizeof(word));
        any |= word;
        hash = (hash ^ word) * 0x9fb21c651e98df25u;
        hash ^= hash >> 29;
    }
    return any == 0 ? 0 : mix(hash, sector + 1);
}

void sim_hash_files(const struct sim_disk *disk, uint64_t *files) {
    for (size_t f = 0; f < disk->file_count; f++) {
        const struct sim_file *file = disk->files[f];
        files[f] = mix(file->durable_bytes, 77);
        for (size_t i = 0; i < file->capacity / SIM_SECTOR_BYTES; i++) {
            const uint8_t *content = file->cache + i * SIM_SECTOR_BYTES;
            if (file->pending[i] != NULL) content = file->pending[i]->data;
            files[f] ^= sector_hash(i, content);
        }
    }
}

static size_t file_index(const struct sim_disk *disk, uint32_t inode) {
    size_t f = 0;
    while (f < disk->file_count && disk->files[f]->inode != inode) f++;
    return f;
}

uint64_t sim_cut_hash(const struct sim_disk *disk, const uint64_t *files,
                      const struct sim_axis *axes, const uint32_t *choice, size_t count,
                      uint64_t garbage_seed) {
    uint64_t after[SIM_FILES_MAX];
    struct sim_names names;
    uint8_t content[SIM_SECTOR_BYTES];
    memcpy(after, files, disk->file_count * sizeof(after[0]));
    for (size_t i = 0; i < count; i++) {
        if (axes[i].kind == SIM_AXIS_NAMES || choice[i] == 0) continue;
        size_t f = file_index(disk, axes[i].inode);
        const struct sim_file *file = disk->files[f];
        if (axes[i].kind == SIM_AXIS_SIZE) {
            after[f] ^= mix(file->durable_bytes, 77) ^ mix(file->sizes[choice[i] - 1], 77);
            continue;
        }
        sim_axis_content(file, &axes[i], 0, 0, content);
        after[f] ^= sector_hash(axes[i].sector, content);
        sim_axis_content(file, &axes[i], choice[i], garbage_seed, content);
        after[f] ^= sector_hash(axes[i].sector, content);
    }
    names_after(disk, names_choice(axes, choice, count), &names);
    uint64_t hash = 0;
    for (size_t i = 0; i < names.count; i++) {
        uint64_t text = 0;
        for (const char *c = names.list[i].text; *c != '\0'; c++) {
            text = mix(text, (uint64_t)(unsigned char)*c);
        }
        size_t f = file_index(disk, names.list[i].inode);
        hash += mix(text, f < disk->file_count ? after[f] : 0);
    }
    return hash;
}
