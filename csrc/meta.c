/* META; meta.h says why it is written twice. */
#include "meta.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "crc32c.h"
#include "error.h"
#include "hooks.h"
#include "segment.h"

static const char META_NAME[] = "META";
static const char META_NEW_NAME[] = "META.new";

static uint32_t meta_crc(const struct wal_disk_meta *disk) {
    size_t from = offsetof(struct wal_disk_meta, format_version);
    return wal_crc32c(0, (const char *)disk + from, sizeof *disk - from);
}

static int is_valid(const struct wal_disk_meta *disk) {
    if (memcmp(disk->magic, WAL_META_MAGIC, sizeof disk->magic) != 0) return 0;
    if (disk->crc != meta_crc(disk)) return 0;
    return disk->owner_bytes <= WAL_OWNER_BYTES_MAX && disk->generation > 0 && disk->trim_lsn > 0;
}

static int choose(const char *bytes, struct wal_meta *meta, wal_error *error) {
    meta->slot = -1;
    meta->damaged_slots = 0;
    for (int slot = 0; slot < WAL_META_SLOTS; slot++) {
        struct wal_disk_meta disk;
        memcpy(&disk, bytes + slot * WAL_BLOCK_BYTES, sizeof disk);
        if (!is_valid(&disk)) {
            meta->damaged_slots++;
        } else if (meta->slot < 0 || disk.generation > meta->disk.generation) {
            meta->disk = disk;
            meta->slot = slot;
        }
    }
    if (meta->slot < 0) {
        return wal_fail(error, WAL_E_CORRUPT, WAL_IN_FILE(META_NAME),
                        "neither slot of META is valid");
    }
    if (meta->disk.format_version != WAL_FORMAT_VERSION) {
        return wal_fail(error, WAL_E_UNSUPPORTED_FORMAT, WAL_IN_FILE(META_NAME),
                        "META has format %u and this version reads %d; use a newer walengine",
                        meta->disk.format_version, WAL_FORMAT_VERSION);
    }
    return 1;
}

int wal_meta_load(struct wal_io *io, unsigned open_flags, struct wal_meta *meta, wal_error *error) {
    memset(meta, 0, sizeof *meta);
    int file = wal_io_open(io, META_NAME, open_flags);
    if (file == -ENOENT) return 0;
    if (file == WAL_E_UNSAFE) {
        return wal_fail(error, file, WAL_IN_FILE(META_NAME),
                        "META is not a regular file, or not this user's alone (another owner, a "
                        "hard link); restore it from a copy");
    }
    if (file < 0) return wal_fail_os(error, file, WAL_IN_FILE(META_NAME), "cannot open META");
    char *bytes = wal_aligned(WAL_BLOCK_BYTES, WAL_META_BYTES);
    if (bytes == NULL) {
        wal_io_close(io, file);
        return wal_fail(error, -ENOMEM, WAL_NOWHERE, "out of memory");
    }
    memset(bytes, 0, WAL_META_BYTES);
    int64_t got = wal_io_read(io, file, 0, bytes, WAL_META_BYTES);
    int result = got < 0 ? wal_fail_os(error, (int)got, WAL_IN_FILE(META_NAME), "cannot read META")
                         : choose(bytes, meta, error);
    wal_free(bytes);
    wal_io_close(io, file);
    return result;
}

static int write_slot(struct wal_io *io, int file, int slot, const struct wal_disk_meta *disk) {
    uint64_t offset = (uint64_t)slot * WAL_BLOCK_BYTES;
    return wal_write_block(io, file, offset, disk, sizeof *disk);
}

/* ENOMEM tells a caller that nothing was begun; of a sync it tells nothing of the kind. */
static int sync_slots(struct wal_io *io, int file) {
    int result = wal_io_sync(io, file);
    return result == -ENOMEM ? -EIO : result;
}

static void encode(struct wal_disk_meta *disk) {
    memcpy(disk->magic, WAL_META_MAGIC, sizeof disk->magic);
    disk->format_version = WAL_FORMAT_VERSION;
    disk->crc = meta_crc(disk);
}

int wal_meta_create(struct wal_io *io, struct wal_meta *meta, wal_error *error) {
    struct wal_place place = WAL_IN_FILE(META_NAME);
    meta->disk.generation = 1;
    encode(&meta->disk);
    int result = wal_io_unlink(io, META_NEW_NAME); /* left by a creation that was interrupted */
    if (result < 0 && result != -ENOENT) {
        return wal_fail_os(error, result, place, "cannot remove an unfinished META.new");
    }
    int file = wal_io_open(io, META_NEW_NAME, WAL_IO_WRITE | WAL_IO_CREATE);
    if (file < 0) return wal_fail_os(error, file, place, "cannot create META");
    result = write_slot(io, file, 0, &meta->disk);
    if (result == 0) result = write_slot(io, file, 1, &meta->disk);
    if (result == 0) result = wal_io_sync(io, file);
    wal_io_close(io, file);
    if (result == 0) result = wal_io_rename(io, META_NEW_NAME, META_NAME);
    if (result == 0) result = wal_io_sync_dir(io);
    if (result < 0) return wal_fail_os(error, result, place, "cannot make META durable");
    meta->slot = 0;
    return 0;
}

/*
 * A slot is damaged where only a part of a write arrived. Its first sector may be the one of a trim
 * that failed, checksum and all, that lacks nothing but the rest of the slot: and the next write
 * brings that rest, even if it fails too. Then a trim would be back that the log had been opened
 * without. So such a slot is first filled with what no valid one has in any sector, and synced.
 */
static int clear_slot(struct wal_io *io, int file, int slot) {
    char nothing[WAL_BLOCK_BYTES];
    memset(nothing, 0xff, sizeof nothing);
    uint64_t offset = (uint64_t)slot * WAL_BLOCK_BYTES;
    int result = wal_write_block(io, file, offset, nothing, sizeof nothing);
    return result == 0 ? sync_slots(io, file) : result;
}

int wal_meta_set_trim(struct wal_io *io, struct wal_meta *meta, uint64_t trim_lsn,
                      wal_error *error) {
    struct wal_place place = {.file = META_NAME, .lsn = trim_lsn};
    struct wal_disk_meta next = meta->disk;
    next.generation++;
    next.trim_lsn = trim_lsn;
    encode(&next);
    int file = wal_io_open(io, META_NAME, WAL_IO_WRITE);
    if (file < 0) return wal_fail_os(error, file, place, "cannot open META");
    int slot = 1 - meta->slot; /* the damaged one, if there is one */
    int result = 0;
    if (meta->damaged_slots > 0 && !WAL_MUTANT(D3_TORN_SLOT_REWRITTEN)) {
        result = clear_slot(io, file, slot);
    }
    if (result == 0) result = write_slot(io, file, slot, &next);
    if (result == 0) result = sync_slots(io, file);
    if (result == 0) {
        meta->disk = next;
        meta->damaged_slots = 0;
        WAL_FAIL_POINT("trim.meta_synced");
        (void)write_slot(io, file, meta->slot,
                         &next); /* a copy against rot; the first one counts */
        meta->slot = slot;
    }
    wal_io_close(io, file);
    return result < 0 ? wal_fail_os(error, result, place, "cannot write META") : 0;
}
