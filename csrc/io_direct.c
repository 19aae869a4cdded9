/* Reading and writing past the page cache, whatever the caller's memory looks like. */
#include "io_direct.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "hooks.h"

enum { BOUNCE_BYTES_MAX = 1 << 20 };

/*
 * WAL_IO_DIRECT: from here on the file is written past the page cache, or -EINVAL where that does
 * not go in steps of 4096 bytes. The flag is set on the open file: an open that was to create it
 * with O_DIRECT would fail and leave it behind.
 */
int wal_direct_enter(int file) {
    if (O_DIRECT == 0) return -EINVAL;
    int flags = fcntl(file, F_GETFL);
    return flags < 0 || fcntl(file, F_SETFL, flags | O_DIRECT) != 0 ? -errno : 0;
}

/*
 * Those that were tested, and those in memory, which sync nothing. Elsewhere nobody knows: FUSE
 * (virtiofs too) leaves out the sync of a write that completes later, as a ring's do (seen on Linux
 * 6.18); filesystems on top of others, such as overlayfs, are as good as what is below, which they
 * do not tell; network filesystems and 9p have ways of their own.
 */
int wal_direct_syncs_itself(unsigned long magic) {
    switch (magic & 0xFFFFFFFFUL) {
        case 0xEF53UL:     /* ext2, ext3, ext4 */
        case 0x58465342UL: /* xfs */
        case 0x9123683EUL: /* btrfs */
        case 0x01021994UL: /* tmpfs */
        case 0x858458F6UL: /* ramfs */ return 1;
        default: return 0;
    }
}

int wal_direct_leave(int file) {
    int flags = fcntl(file, F_GETFL);
    if (flags < 0 || fcntl(file, F_SETFL, flags & ~O_DIRECT) != 0) return -errno;
#ifdef POSIX_FADV_DONTNEED
    (void)posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
#endif
    return 0;
}

/* O_DIRECT wants offset, length and memory aligned: read around the wanted bytes and copy. */
int64_t wal_direct_read_unaligned(int file, uint64_t offset, void *data, size_t bytes) {
    uint64_t begin = offset / WAL_DIRECT_ALIGNMENT * WAL_DIRECT_ALIGNMENT;
    size_t skip = (size_t)(offset - begin);
    size_t whole =
        (skip + bytes + WAL_DIRECT_ALIGNMENT - 1) / WAL_DIRECT_ALIGNMENT * WAL_DIRECT_ALIGNMENT;
    char *around = wal_aligned(WAL_DIRECT_ALIGNMENT, whole);
    if (around == NULL) return -ENOMEM;
    int64_t got = pread(file, around, whole, (off_t)begin);
    if (got < 0) got = -errno;
    if (got > 0) {
        got = got <= (int64_t)skip ? 0 : got - (int64_t)skip;
        if (got > (int64_t)bytes) got = (int64_t)bytes;
        memcpy(data, around + skip, (size_t)got);
    }
    wal_free(around);
    return got;
}

/* The first bytes of parts. */
static void gather(char *to, size_t bytes, const struct iovec *parts) {
    for (size_t copied = 0; copied < bytes; parts++) {
        size_t more = parts->iov_len < bytes - copied ? parts->iov_len : bytes - copied;
        memcpy(to + copied, parts->iov_base, more);
        copied += more;
    }
}

/*
 * Write the sectors around the wanted bytes, from aligned memory. What else they hold is read
 * first: the rest of a short write may begin anywhere. Nobody else writes to them meanwhile.
 */
static int64_t write_unaligned(int file, uint64_t offset, const struct iovec *parts, size_t bytes) {
    uint64_t begin = offset / WAL_DIRECT_ALIGNMENT * WAL_DIRECT_ALIGNMENT;
    size_t skip = (size_t)(offset - begin);
    if (bytes > BOUNCE_BYTES_MAX - skip) bytes = BOUNCE_BYTES_MAX - skip;
    size_t whole =
        (skip + bytes + WAL_DIRECT_ALIGNMENT - 1) / WAL_DIRECT_ALIGNMENT * WAL_DIRECT_ALIGNMENT;
    char *copy = wal_aligned(WAL_DIRECT_ALIGNMENT, whole);
    if (copy == NULL) return -ENOMEM;
    int64_t done = 0;
    if (skip + bytes != whole || skip != 0) {
        memset(copy, 0, whole); /* behind the end of the file */
        done = pread(file, copy, whole, (off_t)begin);
    }
    if (done >= 0) {
        gather(copy + skip, bytes, parts);
        done = pwrite(file, copy, whole, (off_t)begin);
    }
    if (done < 0) done = -errno;
    wal_free(copy);
    if (done <= 0) return done;
    done = done <= (int64_t)skip ? 0 : done - (int64_t)skip;
    return done < (int64_t)bytes ? done : (int64_t)bytes;
}

/*
 * The memory of a direct write has to be aligned. If it is not, some filesystems refuse, and others
 * quietly write through the page cache.
 */
int64_t wal_direct_write(int file, uint64_t offset, const struct iovec *parts, int count) {
    uint64_t misaligned = offset;
    size_t bytes = 0;
    for (int i = 0; i < count; i++) {
        misaligned |= (uintptr_t)parts[i].iov_base | parts[i].iov_len;
        bytes += parts[i].iov_len;
    }
    if (misaligned % WAL_DIRECT_ALIGNMENT != 0) return write_unaligned(file, offset, parts, bytes);
    int64_t done = pwritev(file, parts, count, (off_t)offset);
    return done < 0 ? -errno : done;
}
