/* The verbs of the I/O seam on a simulated disk. */
#include "simdisk.h"

#include "check.h"
#include "hooks.h"

struct sim_handle {
    struct wal_io io;
    struct sim_disk *disk;
};

struct sim_disk *sim_disk_of(struct wal_io *io) { return ((struct sim_handle *)io)->disk; }

/* The power is off: nothing can change any more, and the workload unwinds. */
bool sim_off(const struct sim_disk *disk) {
    return disk->cut_at != 0 && disk->events >= disk->cut_at;
}

static struct sim_open *slot_of(struct sim_disk *disk, int file) {
    CHECK(file >= 0 && file < SIM_OPEN_MAX && disk->open[file].inode != 0);
    return &disk->open[file];
}

static struct sim_file *open_file(struct sim_disk *disk, int file) {
    return sim_file(disk, slot_of(disk, file)->inode);
}

/* A file system counts whole files; what unlinked names still hold counts until they close. */
bool sim_space_for(const struct sim_disk *disk, uint64_t more) {
    if (disk->space_max == 0) return true;
    uint64_t used = 0;
    for (size_t i = 0; i < disk->file_count; i++) {
        const struct sim_file *file = disk->files[i];
        bool held = file->opens > 0;
        for (size_t n = 0; n < disk->names.count; n++) {
            if (disk->names.list[n].inode == file->inode) held = true;
        }
        if (held) used += file->bytes;
    }
    return used + more <= disk->space_max;
}

static int verb_open(struct wal_io *io, const char *name, unsigned flags) {
    struct sim_disk *disk = sim_disk_of(io);
    if (sim_off(disk)) return -EIO;
    CHECK(strlen(name) < SIM_NAME_BYTES && strchr(name, '/') == NULL);
    uint32_t inode = sim_lookup(disk, name);
    if (inode == 0 && (flags & WAL_IO_CREATE) == 0) return -ENOENT;
    if (inode != 0 && (flags & WAL_IO_CREATE) != 0) return -EEXIST;
    if (inode == 0) {
        struct sim_event event = {.kind = SIM_CREATE, .inode = disk->inode_next + 1};
        snprintf(event.from, sizeof(event.from), "%s", name);
        sim_record(disk, &event);
        inode = event.inode;
    }
    for (int i = 0; i < SIM_OPEN_MAX; i++) {
        if (disk->open[i].inode != 0) continue;
        struct sim_file *file = sim_file(disk, inode);
        disk->open[i] = (struct sim_open){
            .inode = inode, .errors_seen = file->errors, .flags = flags, .owner = io};
        file->opens++;
        return i;
    }
    return -EMFILE;
}

static int verb_close(struct wal_io *io, int file) {
    struct sim_disk *disk = sim_disk_of(io);
    struct sim_open *slot = slot_of(disk, file);
    CHECK(slot->owner == io);
    sim_file(disk, slot->inode)->opens--;
    slot->inode = 0;
    return 0;
}

static int verb_stat(struct wal_io *io, int file, struct wal_io_stat *stat) {
    struct sim_disk *disk = sim_disk_of(io);
    if (sim_off(disk)) return -EIO;
    const struct sim_file *found = open_file(disk, file);
    *stat = (struct wal_io_stat){
        .bytes = found->bytes, .inode = found->inode, .is_regular = 1, .is_ours = 1};
    return 0;
}

/* Of a lying sector the cache shows what was written, the device what it kept. */
static void read_sectors(const struct sim_file *file, uint64_t offset, uint8_t *data,
                         uint64_t bytes, bool uncached) {
    memcpy(data, file->cache + offset, (size_t)bytes);
    if (!uncached || file->pending_count == 0) return;
    for (uint64_t at = offset; at < offset + bytes;) {
        size_t sector = (size_t)(at / SIM_SECTOR_BYTES);
        size_t within = (size_t)(at % SIM_SECTOR_BYTES);
        size_t part = SIM_SECTOR_BYTES - within;
        if (part > offset + bytes - at) part = (size_t)(offset + bytes - at);
        const struct sim_sector *pending = file->pending[sector];
        if (pending != NULL && pending->count == 0) {
            memcpy(data + (at - offset), pending->data + within, part);
        }
        at += part;
    }
}

static int64_t verb_read(struct wal_io *io, int file, uint64_t offset, void *data, size_t bytes) {
    struct sim_disk *disk = sim_disk_of(io);
    if (sim_off(disk)) return -EIO;
    disk->calls++;
    if (disk->eintr_every != 0 && disk->calls % disk->eintr_every == 0) return -EINTR;
    const struct sim_open *slot = slot_of(disk, file);
    const struct sim_file *found = sim_file(disk, slot->inode);
    if (offset >= found->bytes || bytes == 0) return 0;
    uint64_t count = found->bytes - offset;
    if (count > bytes) count = bytes;
    if (disk->short_every != 0 && disk->calls % disk->short_every == 0) count = (count + 1) / 2;
    read_sectors(found, offset, data, count, (slot->flags & WAL_IO_UNCACHED) != 0);
    return (int64_t)count;
}

static size_t shortened(struct sim_disk *disk, size_t bytes) {
    if (disk->short_every != 0 && disk->calls % disk->short_every == 0) return (bytes + 1) / 2;
    if (disk->short_in == 0 || --disk->short_in > 0 || bytes < 2) return bytes;
    return disk->short_by_one ? bytes - 1 : bytes / 2;
}

static int64_t verb_write(struct wal_io *io, int file, uint64_t offset, const struct iovec *parts,
                          int count) {
    struct sim_disk *disk = sim_disk_of(io);
    if (sim_off(disk)) return -EIO;
    disk->calls++;
    if (disk->eintr_every != 0 && disk->calls % disk->eintr_every == 0) return -EINTR;
    const struct sim_open *slot = slot_of(disk, file);
    if ((slot->flags & (WAL_IO_WRITE | WAL_IO_CREATE)) == 0) return -EBADF;
    const struct sim_file *found = sim_file(disk, slot->inode);
    size_t bytes = 0;
    for (int i = 0; i < count; i++) bytes += parts[i].iov_len;
    if (bytes == 0) return 0;
    uint8_t *data = malloc(bytes);
    CHECK(data != NULL);
    size_t filled = 0;
    for (int i = 0; i < count; i++) {
        if (parts[i].iov_len > 0) memcpy(data + filled, parts[i].iov_base, parts[i].iov_len);
        filled += parts[i].iov_len;
    }
    bytes = shortened(disk, bytes);
    if (offset + bytes > found->bytes && !sim_space_for(disk, offset + bytes - found->bytes)) {
        free(data);
        return -ENOSPC;
    }
    bool zero = data[0] == 0 && memcmp(data, data + 1, bytes - 1) == 0;
    struct sim_event event = {.kind = SIM_WRITE,
                              .inode = slot->inode,
                              .offset = offset,
                              .bytes = bytes,
                              .data = zero ? NULL : data,
                              .strict = disk->strict};
    sim_record(disk, &event);
    free(data);
    return (int64_t)bytes;
}

bool sim_sync_fails(struct sim_disk *disk, bool dirty) {
    bool counts = disk->sync_fail_dirty == 0 || dirty;
    return disk->sync_fail_in != 0 && counts && --disk->sync_fail_in == 0;
}

static int verb_sync(struct wal_io *io, int file) {
    struct sim_disk *disk = sim_disk_of(io);
    if (sim_off(disk)) return -EIO;
    struct sim_open *slot = slot_of(disk, file);
    struct sim_file *found = sim_file(disk, slot->inode);
    struct sim_event event = {.kind = SIM_SYNC, .inode = found->inode, .covers = disk->stamp};
    if (sim_sync_fails(disk, found->pending_count > 0)) {
        event.kind = SIM_SYNC_FAILED;
        event.seed = disk->sync_fail_seed;
        found->errors++;
    }
    sim_record(disk, &event);
    if (slot->errors_seen == found->errors) return 0;
    slot->errors_seen = found->errors;
    disk->sync_failures++;
    return -EIO;
}

static int resize(struct wal_io *io, int file, uint64_t bytes, enum sim_kind kind) {
    struct sim_disk *disk = sim_disk_of(io);
    if (sim_off(disk)) return -EIO;
    const struct sim_file *found = open_file(disk, file);
    if (bytes > found->bytes && !sim_space_for(disk, bytes - found->bytes)) return -ENOSPC;
    struct sim_event event = {.kind = kind, .inode = found->inode, .offset = bytes};
    sim_record(disk, &event);
    return 0;
}

static int verb_allocate(struct wal_io *io, int file, uint64_t bytes) {
    return resize(io, file, bytes, SIM_ALLOCATE);
}

static int verb_truncate(struct wal_io *io, int file, uint64_t bytes) {
    return resize(io, file, bytes, SIM_TRUNCATE);
}

/* Allocated but never written sectors are holes here, and written zeros as well. */
static int64_t verb_next_data(struct wal_io *io, int file, uint64_t offset, uint64_t *end) {
    *end = UINT64_MAX;
    static const uint8_t zeros[SIM_SECTOR_BYTES];
    struct sim_disk *disk = sim_disk_of(io);
    if (sim_off(disk)) return -EIO;
    const struct sim_file *found = open_file(disk, file);
    for (uint64_t at = offset; at < found->bytes;
         at = (at / SIM_SECTOR_BYTES + 1) * SIM_SECTOR_BYTES) {
        size_t sector = (size_t)(at / SIM_SECTOR_BYTES);
        const uint8_t *cache = found->cache + sector * SIM_SECTOR_BYTES;
        if (found->pending[sector] != NULL || memcmp(cache, zeros, sizeof(zeros)) != 0) {
            return (int64_t)at;
        }
    }
    return (int64_t)found->bytes;
}

static int verb_rename(struct wal_io *io, const char *from, const char *to) {
    struct sim_disk *disk = sim_disk_of(io);
    if (sim_off(disk)) return -EIO;
    uint32_t inode = sim_lookup(disk, from);
    if (inode == 0) return -ENOENT;
    if (sim_lookup(disk, to) != 0) return -EEXIST;
    struct sim_event event = {.kind = SIM_RENAME, .inode = inode};
    snprintf(event.from, sizeof(event.from), "%s", from);
    snprintf(event.to, sizeof(event.to), "%s", to);
    sim_record(disk, &event);
    return 0;
}

static int verb_unlink(struct wal_io *io, const char *name) {
    struct sim_disk *disk = sim_disk_of(io);
    if (sim_off(disk)) return -EIO;
    uint32_t inode = sim_lookup(disk, name);
    if (inode == 0) return -ENOENT;
    struct sim_event event = {.kind = SIM_UNLINK, .inode = inode};
    snprintf(event.from, sizeof(event.from), "%s", name);
    sim_record(disk, &event);
    return 0;
}

static int verb_sync_dir(struct wal_io *io) {
    struct sim_disk *disk = sim_disk_of(io);
    if (sim_off(disk)) return -EIO;
    struct sim_event event = {.kind = SIM_SYNC_DIR};
    sim_record(disk, &event);
    return 0;
}

static int verb_list(struct wal_io *io, struct wal_io_name **names, size_t *count) {
    struct sim_disk *disk = sim_disk_of(io);
    if (sim_off(disk)) return -EIO;
    *count = 0;
    *names = wal_calloc(disk->names.count + 1, sizeof(**names));
    if (*names == NULL) return -ENOMEM;
    for (size_t i = 0; i < disk->names.count; i++) {
        memcpy((*names)[i].text, disk->names.list[i].text, SIM_NAME_BYTES);
        (*names)[i].is_regular = 1;
    }
    *count = disk->names.count;
    return 0;
}

static int verb_lock(struct wal_io *io, int64_t *holder_pid) {
    struct sim_disk *disk = sim_disk_of(io);
    if (sim_off(disk)) return -EIO;
    if (disk->lock_owner != NULL && disk->lock_owner != io) {
        *holder_pid = 0;
        return -EWOULDBLOCK;
    }
    disk->lock_owner = io;
    return 0;
}

static void verb_destroy(struct wal_io *io) {
    struct sim_disk *disk = sim_disk_of(io);
    sim_drop_requests(disk, io);
    for (size_t i = 0; i < SIM_OPEN_MAX; i++) {
        if (disk->open[i].inode != 0 && disk->open[i].owner == io) verb_close(io, (int)i);
    }
    if (disk->lock_owner == io) disk->lock_owner = NULL;
    free(io);
}

#define VERBS                                                                                     \
    .open = verb_open, .close = verb_close, .stat = verb_stat, .read = verb_read,                 \
    .write = verb_write, .sync = verb_sync, .allocate = verb_allocate, .truncate = verb_truncate, \
    .next_data = verb_next_data, .rename = verb_rename, .unlink = verb_unlink,                    \
    .sync_dir = verb_sync_dir, .list = verb_list, .lock = verb_lock, .destroy = verb_destroy

static const struct wal_io_ops blocking = {VERBS};
static const struct wal_io_ops async = {VERBS, .submit = sim_submit, .reap = sim_reap,
                                        .register_buffers = sim_register_buffers};

struct wal_io *sim_io(struct sim_disk *disk) {
    struct sim_handle *handle = calloc(1, sizeof(*handle));
    CHECK(handle != NULL);
    handle->io.ops = disk->async ? &async : &blocking;
    handle->disk = disk;
    return &handle->io;
}
