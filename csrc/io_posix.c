/*
 * The pwrite backend of the I/O seam: one directory on a local filesystem.
 *
 * Security. Every name is opened relative to the directory's descriptor, without following
 * symlinks, and must be a regular file; a writer also wants it to be its own and to have one link.
 * New files are made with O_EXCL and mode 0600, a new directory with 0700.
 *
 * Reading past the page cache. After a failed fsync the cache shows what the device never got, to
 * the next process too. WAL_IO_UNCACHED therefore reads with O_DIRECT, and where the filesystem has
 * none, and on btrfs, after POSIX_FADV_DONTNEED.
 *
 * Fork. A child's inherited descriptors would keep the flock after the parent has died, so the
 * descriptors of every writer's directory are closed in the child, by an atfork handler that this
 * file owns. wal_fork_generation tells handles that they are on the wrong side.
 */
#include "io_posix.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#ifdef __linux__
#include <linux/fs.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#endif

#include "error.h"
#include "hooks.h"
#include "io.h"
#include "io_direct.h"
#include "log.h"
#include "pins.h"

enum {
    FILES_MAX = 1024, /* open at once in one directory: a writer needs five, a cursor one */
    DIRECT_FILES_MAX = 32,
    LOCK_TRIES = 25, /* every 20 ms: a ring can hold a descriptor after its process died */
};

struct posix_io {
    struct wal_io io;
    struct posix_io *next; /* in the registry, writers only */
    int is_writer;
    int is_btrfs;
    int syncs_direct; /* see wal_direct_syncs_itself */
    int directory;
    int lock;
    int files[FILES_MAX]; /* registry_mutex guards it; -1: free */
    int direct_count;
    int direct[DIRECT_FILES_MAX]; /* those of them that are WAL_IO_DIRECT; -1: free */
};

/* ---- descriptors, and what fork does to them ------------------------------------------------- */

static pthread_mutex_t registry_mutex = PTHREAD_MUTEX_INITIALIZER;
static struct posix_io *registry;
static atomic_uint_fast64_t open_files;
static atomic_uint_fast64_t fork_generation;

uint64_t wal_open_files(void) { return atomic_load(&open_files); }

uint64_t wal_fork_generation(void) { return atomic_load(&fork_generation); }

static void close_fd(int *file) {
    if (*file < 0) return;
    (void)close(*file);
    *file = -1;
    atomic_fetch_sub(&open_files, 1);
}

static void before_fork(void) {
    pthread_mutex_lock(&registry_mutex);
    wal_pins_before_fork();
}

static void after_fork_in_parent(void) {
    wal_pins_after_fork();
    pthread_mutex_unlock(&registry_mutex);
}

static void after_fork_in_child(void) {
    wal_pins_after_fork();
    atomic_fetch_add(&fork_generation, 1);
    for (struct posix_io *p = registry; p != NULL; p = p->next) {
        for (int i = 0; i < FILES_MAX; i++) close_fd(&p->files[i]);
        close_fd(&p->lock);
        close_fd(&p->directory);
    }
    registry = NULL; /* the parent's; this side has only the dead handles' memory */
    pthread_mutex_unlock(&registry_mutex);
}

static void register_fork_handlers(void) {
    (void)pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

/*
 * registry_mutex is held from the system call that makes a descriptor until it is remembered: a
 * fork in between would leave the child one that nobody closes.
 */
static int keep(struct posix_io *p, int file) {
    for (int i = 0; i < FILES_MAX; i++) {
        if (p->files[i] >= 0) continue;
        p->files[i] = file;
        atomic_fetch_add(&open_files, 1);
        return file;
    }
    return -EMFILE;
}

static int remember(struct posix_io *p, int file) {
    int result = keep(p, file);
    if (result < 0) (void)close(file);
    return result;
}

void wal_io_posix_hold_forks(void) { pthread_mutex_lock(&registry_mutex); }

void wal_io_posix_let_forks(void) { pthread_mutex_unlock(&registry_mutex); }

int wal_io_posix_adopt(struct wal_io *base, int fd) {
    int result = keep((struct posix_io *)base, fd);
    return result < 0 ? result : 0;
}

void wal_io_posix_forget(struct wal_io *base, int fd) {
    struct posix_io *p = (struct posix_io *)base;
    for (int i = 0; i < FILES_MAX; i++) {
        if (p->files[i] != fd) continue;
        p->files[i] = -1;
        atomic_fetch_sub(&open_files, 1);
    }
}

/*
 * The files that are written past the page cache. They are few; written under registry_mutex, read
 * without it by whoever writes to its own file.
 */
static int is_direct(const struct posix_io *p, int file) {
    if (__atomic_load_n(&p->direct_count, __ATOMIC_RELAXED) == 0) return 0;
    for (int i = 0; i < DIRECT_FILES_MAX; i++) {
        if (__atomic_load_n(&p->direct[i], __ATOMIC_RELAXED) == file) return 1;
    }
    return 0;
}

static int mark_direct(struct posix_io *p, int file) {
    for (int i = 0; i < DIRECT_FILES_MAX; i++) {
        if (p->direct[i] >= 0) continue;
        __atomic_store_n(&p->direct[i], file, __ATOMIC_RELAXED);
        __atomic_fetch_add(&p->direct_count, 1, __ATOMIC_RELAXED);
        return 0;
    }
    return -EMFILE;
}

static void unmark_direct(struct posix_io *p, int file) {
    for (int i = 0; i < DIRECT_FILES_MAX; i++) {
        if (p->direct[i] != file) continue;
        __atomic_store_n(&p->direct[i], -1, __ATOMIC_RELAXED);
        __atomic_fetch_sub(&p->direct_count, 1, __ATOMIC_RELAXED);
    }
}

static int posix_close(struct wal_io *io, int file) {
    struct posix_io *p = (struct posix_io *)io;
    pthread_mutex_lock(&registry_mutex);
    if (file >= 0) unmark_direct(p, file);
    for (int i = 0; i < FILES_MAX; i++) {
        if (p->files[i] == file) close_fd(&p->files[i]);
    }
    pthread_mutex_unlock(&registry_mutex);
    return 0;
}

/* ---- opening files --------------------------------------------------------------------------- */

static void refuse_copy_on_write(struct posix_io *p, int file) {
#ifdef FS_NOCOW_FL
    int flags = 0;
    if (!p->is_btrfs) return;
    if (ioctl(file, FS_IOC_GETFLAGS, &flags) != 0) return;
    flags |= FS_NOCOW_FL;
    if (ioctl(file, FS_IOC_SETFLAGS, &flags) != 0) wal_io_warn(&p->io, WAL_WARN_COW);
#else
    (void)p;
    (void)file;
#endif
}

/* btrfs answers direct reads from the page cache (seen on Linux 6.18), failed writes included. */
static int open_uncached(struct posix_io *p, const char *name, int flags) {
    int file = O_DIRECT != 0 ? openat(p->directory, name, flags | O_DIRECT) : -1;
    if (file < 0 && O_DIRECT != 0 && errno != EINVAL) return -1;
    int is_direct = file >= 0;
    if (!is_direct) file = openat(p->directory, name, flags);
    if (file < 0) return file;
    if (!is_direct) wal_io_warn(&p->io, WAL_WARN_DIRECT_READ);
#ifdef POSIX_FADV_DONTNEED
    if (!is_direct || p->is_btrfs) (void)posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
#endif
    return file;
}

/* A file that somebody else owns, or that has a second name, is written by others too. */
static int is_safe(const struct posix_io *p, const struct stat *st) {
    if (!S_ISREG(st->st_mode)) return 0;
    return !p->is_writer || (st->st_uid == geteuid() && st->st_nlink == 1);
}

/* O_NONBLOCK was for FIFOs. On a file some kernels let a ring's entries fail with EAGAIN for it. */
static void block(int file) {
    int flags = fcntl(file, F_GETFL);
    if (flags >= 0) (void)fcntl(file, F_SETFL, flags & ~O_NONBLOCK);
}

static int open_file(struct posix_io *p, const char *name, unsigned flags) {
    if ((flags & WAL_IO_DIRECT) && !p->syncs_direct) return -EOPNOTSUPP;
    int how = O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK; /* NONBLOCK: a FIFO must not hang us */
    how |= (flags & WAL_IO_WRITE) ? O_RDWR : O_RDONLY;
    if (flags & WAL_IO_CREATE) how |= O_CREAT | O_EXCL;
    int file = (flags & WAL_IO_UNCACHED) ? open_uncached(p, name, how)
                                         : openat(p->directory, name, how, 0600);
    if (file < 0) return -errno;
    struct stat st;
    if (fstat(file, &st) != 0 || !is_safe(p, &st)) {
        (void)close(file);
        return WAL_E_UNSAFE;
    }
    block(file);
    if (flags & WAL_IO_CREATE) {
        (void)fchmod(file, 0600); /* whatever the umask takes away */
        refuse_copy_on_write(p, file);
    }
    int result = (flags & WAL_IO_DIRECT) ? wal_direct_enter(file) : 0;
    if (result == 0 && (flags & WAL_IO_DIRECT)) result = mark_direct(p, file);
    if (result == 0) {
        result = remember(p, file);
        if (result < 0) unmark_direct(p, file);
        return result;
    }
    (void)close(file);
    if (flags & WAL_IO_CREATE) (void)unlinkat(p->directory, name, 0);
    return result;
}

static int posix_open(struct wal_io *io, const char *name, unsigned flags) {
    pthread_mutex_lock(&registry_mutex);
    int file = open_file((struct posix_io *)io, name, flags);
    pthread_mutex_unlock(&registry_mutex);
    return file;
}

static int posix_stat(struct wal_io *io, int file, struct wal_io_stat *out) {
    (void)io;
    struct stat st;
    if (fstat(file, &st) != 0) return -errno;
    out->bytes = (uint64_t)st.st_size;
    out->inode = (uint64_t)st.st_ino;
    out->is_regular = S_ISREG(st.st_mode) != 0;
    out->is_ours = st.st_uid == geteuid() && st.st_nlink == 1;
    return 0;
}

/* ---- reading --------------------------------------------------------------------------------- */

static int64_t posix_read(struct wal_io *io, int file, uint64_t offset, void *data, size_t bytes) {
    (void)io;
    int64_t got;
    if (O_DIRECT != 0 && (fcntl(file, F_GETFL) & O_DIRECT) != 0) {
        uint64_t misaligned = offset | bytes | (uintptr_t)data;
        if (misaligned % WAL_DIRECT_ALIGNMENT != 0) {
            got = wal_direct_read_unaligned(file, offset, data, bytes);
        } else {
            got = pread(file, data, bytes, (off_t)offset);
            if (got < 0) got = -errno;
        }
        if (got != -EINVAL) return got;
        int result = wal_direct_leave(file); /* a stricter alignment than 4 KiB: go round it */
        if (result < 0) return result;
    }
    got = pread(file, data, bytes, (off_t)offset);
    return got < 0 ? -errno : got;
}

/*
 * To the kernel, a page in the cache is data, even over an extent that was never written. A reader
 * that looked too far would turn holes into data, and every later look at the log would be longer.
 */
static int64_t posix_next_data(struct wal_io *io, int file, uint64_t offset, uint64_t *end) {
    (void)io;
    *end = UINT64_MAX;
#ifdef SEEK_DATA
    (void)posix_fadvise(file, 0, 0, POSIX_FADV_RANDOM);
    off_t at = lseek(file, (off_t)offset, SEEK_DATA);
    if (at >= 0) {
        off_t hole = lseek(file, at, SEEK_HOLE);
        if (hole > at) *end = (uint64_t)hole;
        return (int64_t)at;
    }
    if (errno == ENXIO) {
        struct stat st;
        if (fstat(file, &st) != 0) return -errno;
        return st.st_size > (off_t)offset ? (int64_t)st.st_size : (int64_t)offset;
    }
#else
    (void)file;
#endif
    return (int64_t)offset;
}

/* ---- writing --------------------------------------------------------------------------------- */

static int64_t posix_write(struct wal_io *io, int file, uint64_t offset, const struct iovec *parts,
                           int count) {
    if (is_direct((const struct posix_io *)io, file)) {
        return wal_direct_write(file, offset, parts, count);
    }
    int64_t done = count == 1 ? pwrite(file, parts[0].iov_base, parts[0].iov_len, (off_t)offset)
                              : pwritev(file, parts, count, (off_t)offset);
    return done < 0 ? -errno : done;
}

#if defined(__linux__) && defined(RWF_DSYNC)
static int64_t posix_write_durable(struct wal_io *io, int file, uint64_t offset,
                                   const struct iovec *parts, int count) {
    uint64_t misaligned = 0;
    for (int i = 0; i < count; i++) {
        misaligned |= (uintptr_t)parts[i].iov_base | parts[i].iov_len;
    }
    /* A write that is copied first is not worth a second way. */
    if (misaligned % WAL_DIRECT_ALIGNMENT != 0 && is_direct((const struct posix_io *)io, file)) {
        return -EOPNOTSUPP;
    }
    int64_t done = pwritev2(file, parts, count, (off_t)offset, RWF_DSYNC);
    if (done >= 0) return done;
    return errno == ENOSYS ? -EOPNOTSUPP : -errno;
}
#else
#define posix_write_durable NULL
#endif

static int posix_sync(struct wal_io *io, int file) {
    (void)io;
#ifdef F_FULLFSYNC
    return fcntl(file, F_FULLFSYNC) == 0 ? 0 : -errno; /* macOS: fsync stops at the drive's cache */
#else
    return fdatasync(file) == 0 ? 0 : -errno;
#endif
}

static int posix_allocate(struct wal_io *io, int file, uint64_t bytes) {
    (void)io;
#ifdef __linux__
    if (fallocate(file, 0, 0, (off_t)bytes) == 0) return 0;
    if (errno != EOPNOTSUPP) return -errno;
    return -posix_fallocate(file, 0, (off_t)bytes);
#else
    return ftruncate(file, (off_t)bytes) == 0 ? 0 : -errno;
#endif
}

static int posix_truncate(struct wal_io *io, int file, uint64_t bytes) {
    (void)io;
    return ftruncate(file, (off_t)bytes) == 0 ? 0 : -errno;
}

/* ---- names ----------------------------------------------------------------------------------- */

static int posix_rename(struct wal_io *io, const char *from, const char *to) {
    struct posix_io *p = (struct posix_io *)io;
#if defined(__linux__) && defined(SYS_renameat2) && defined(RENAME_NOREPLACE)
    long result = syscall(SYS_renameat2, p->directory, from, p->directory, to, RENAME_NOREPLACE);
    if (result == 0) return 0;
    if (errno != EINVAL && errno != ENOSYS) return -errno;
#endif
    struct stat st; /* we hold LOCK: nobody of ours creates the name in between */
    if (fstatat(p->directory, to, &st, AT_SYMLINK_NOFOLLOW) == 0) return -EEXIST;
    return renameat(p->directory, from, p->directory, to) == 0 ? 0 : -errno;
}

static int posix_unlink(struct wal_io *io, const char *name) {
    struct posix_io *p = (struct posix_io *)io;
    return unlinkat(p->directory, name, 0) == 0 ? 0 : -errno;
}

static int posix_sync_dir(struct wal_io *io) {
    struct posix_io *p = (struct posix_io *)io;
    return fsync(p->directory) == 0 ? 0 : -errno;
}

/* Room for one more name, in steps of 64. */
static int grow(struct wal_io_name **names, size_t count) {
    if (count % 64 != 0) return 0;
    struct wal_io_name *more = wal_realloc(*names, (count + 64) * sizeof *more);
    if (more == NULL) return -ENOMEM;
    *names = more;
    return 0;
}

static int is_regular_entry(int directory, const struct dirent *entry) {
    if (entry->d_type != DT_UNKNOWN) return entry->d_type == DT_REG;
    struct stat st;
    return fstatat(directory, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode);
}

static int posix_list(struct wal_io *io, struct wal_io_name **names, size_t *count) {
    struct posix_io *p = (struct posix_io *)io;
    *names = NULL;
    *count = 0;
    int again = openat(p->directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (again < 0) return -errno;
    DIR *stream = fdopendir(again);
    if (stream == NULL) {
        (void)close(again);
        return -ENOMEM;
    }
    int result = 0;
    errno = 0;
    for (struct dirent *entry; result == 0 && (entry = readdir(stream)) != NULL; errno = 0) {
        struct wal_io_name name = {.is_regular = 0};
        size_t length = strlen(entry->d_name);
        if (length >= sizeof name.text) continue;
        memcpy(name.text, entry->d_name, length + 1);
        name.is_regular = (uint32_t)is_regular_entry(p->directory, entry);
        result = grow(names, *count);
        if (result == 0) (*names)[(*count)++] = name;
    }
    if (result == 0 && errno != 0) result = -errno;
    (void)closedir(stream);
    if (result < 0) {
        wal_free(*names);
        *names = NULL;
    }
    return result;
}

/* ---- LOCK ------------------------------------------------------------------------------------ */

static int64_t read_holder(int file) {
    char text[32] = {0};
    if (pread(file, text, sizeof text - 1, 0) <= 0) return 0;
    long long pid = strtoll(text, NULL, 10);
    return pid > 0 ? (int64_t)pid : 0;
}

static int write_holder(int file) {
    char text[32];
    int length = snprintf(text, sizeof text, "%lld\n", (long long)getpid());
    if (ftruncate(file, 0) != 0) return -errno;
    return pwrite(file, text, (size_t)length, 0) == length ? 0 : -errno;
}

/* Is the file that we locked still the one under the name? Else somebody made a new LOCK. */
static int is_still_the_lock(const struct posix_io *p, int file) {
    struct stat ours, named;
    if (fstat(file, &ours) != 0) return 0;
    if (fstatat(p->directory, "LOCK", &named, AT_SYMLINK_NOFOLLOW) != 0) return 0;
    return ours.st_ino == named.st_ino && ours.st_dev == named.st_dev;
}

static int try_lock(struct posix_io *p, int64_t *holder_pid) {
    int how = O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK;
    int file = openat(p->directory, "LOCK", how, 0600);
    if (file < 0) return errno == ELOOP || errno == EISDIR ? WAL_E_UNSAFE : -errno;
    struct stat st;
    int result = 0;
    if (fstat(file, &st) != 0 || !is_safe(p, &st)) {
        result = WAL_E_UNSAFE;
    } else if (flock(file, LOCK_EX | LOCK_NB) != 0) {
        result = errno == EWOULDBLOCK ? -EWOULDBLOCK : -errno;
        *holder_pid = read_holder(file);
    } else if (!is_still_the_lock(p, file)) {
        result = -EWOULDBLOCK;
    }
    if (result == 0) (void)write_holder(file); /* a full disk: the lock holds without a pid too */
    if (result < 0) {
        (void)close(file);
        return result;
    }
    p->lock = file;
    atomic_fetch_add(&open_files, 1);
    return 0;
}

static int posix_lock(struct wal_io *io, int64_t *holder_pid) {
    struct posix_io *p = (struct posix_io *)io;
    int result = -EWOULDBLOCK;
    for (int tries = 0; tries < LOCK_TRIES && result == -EWOULDBLOCK; tries++) {
        if (tries > 0) (void)nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
        pthread_mutex_lock(&registry_mutex);
        result = try_lock(p, holder_pid);
        pthread_mutex_unlock(&registry_mutex);
    }
    return result;
}

int wal_io_posix_lock_file(const struct wal_io *base) {
    return ((const struct posix_io *)base)->lock;
}

static void posix_destroy(struct wal_io *io) {
    struct posix_io *p = (struct posix_io *)io;
    /* By its name: a ring may hold the open file for a moment longer than we do. */
    if (p->lock >= 0) (void)flock(p->lock, LOCK_UN);
    pthread_mutex_lock(&registry_mutex);
    for (struct posix_io **at = &registry; *at != NULL; at = &(*at)->next) {
        if (*at == p) {
            *at = p->next;
            break;
        }
    }
    for (int i = 0; i < FILES_MAX; i++) close_fd(&p->files[i]);
    close_fd(&p->lock);
    close_fd(&p->directory);
    pthread_mutex_unlock(&registry_mutex);
    wal_free(p);
}

/* ---- the directory --------------------------------------------------------------------------- */

static const struct wal_io_ops posix_ops = {
    .open = posix_open,
    .close = posix_close,
    .stat = posix_stat,
    .read = posix_read,
    .write = posix_write,
    .sync = posix_sync,
    .write_durable = posix_write_durable,
    .allocate = posix_allocate,
    .truncate = posix_truncate,
    .next_data = posix_next_data,
    .rename = posix_rename,
    .unlink = posix_unlink,
    .sync_dir = posix_sync_dir,
    .list = posix_list,
    .lock = posix_lock,
    .destroy = posix_destroy,
};

static int sync_parent(const char *path, wal_error *error) {
    size_t length = strlen(path);
    char *parent = wal_malloc(length + 4);
    if (parent == NULL) return wal_fail(error, -ENOMEM, WAL_NOWHERE, "out of memory");
    memcpy(parent, path, length + 1);
    while (length > 1 && parent[length - 1] == '/') parent[--length] = '\0';
    memcpy(parent + length, "/..", 4); /* through the directory itself: it exists by now */
    int file = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int result = file < 0 || fsync(file) != 0 ? -errno : 0;
    if (file >= 0) (void)close(file);
    wal_free(parent);
    if (result < 0) {
        return wal_fail_os(error, result, WAL_NOWHERE,
                           "cannot sync the directory above the log, so its name is not durable");
    }
    return 0;
}

/* Does the directory hold a log already? Then its own name has been made durable. */
static int holds_log(const char *path) {
    int directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0) return 0;
    struct stat st;
    int found = fstatat(directory, "META", &st, AT_SYMLINK_NOFOLLOW) == 0;
    (void)close(directory);
    return found;
}

/*
 * A directory that is there without a log may have been made a moment ago, by its owner or by a
 * writer that died before it could sync: its name is not known to be durable.
 */
static int make_directory(const char *path, wal_error *error) {
    if (mkdir(path, 0700) != 0) {
        if (errno != EEXIST) {
            return wal_fail_os(error, -errno, WAL_NOWHERE, "cannot create the log's directory");
        }
        struct stat st;
        if (stat(path, &st) != 0 || !S_ISDIR(st.st_mode) || holds_log(path)) return 0;
        int result = sync_parent(path, error);
        return result == -EACCES ? 0 : result; /* its owner made it, in a place we cannot open */
    }
    return sync_parent(path, error);
}

static int open_directory(const char *path, wal_error *error) {
    int directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory >= 0) return directory;
    if (errno == ENOTDIR) {
        return wal_fail(error, WAL_E_NOT_A_LOG, WAL_NOWHERE,
                        "this is a file, and a log is a directory; give another path");
    }
    if (errno == ENOENT) {
        return wal_fail(error, WAL_E_NOT_FOUND, WAL_NOWHERE, "there is no log at this path");
    }
    return wal_fail_os(error, -errno, WAL_NOWHERE, "cannot open the log's directory");
}

static int check_owner(int directory, unsigned flags, wal_error *error) {
    struct stat st;
    if (fstat(directory, &st) != 0) {
        return wal_fail_os(error, -errno, WAL_NOWHERE, "cannot examine the log's directory");
    }
    if (st.st_uid != geteuid()) {
        return wal_fail(error, WAL_E_UNSAFE, WAL_NOWHERE,
                        "the directory belongs to user %u, and this process is user %u; run the "
                        "writer as the directory's owner",
                        (unsigned)st.st_uid, (unsigned)geteuid());
    }
    if ((st.st_mode & 022) != 0 && (flags & WAL_DIR_SHARED) == 0) {
        return wal_fail(error, WAL_E_UNSAFE, WAL_NOWHERE,
                        "the directory is writable for group or others (mode %03o); chmod 700 it, "
                        "or allow a shared directory",
                        (unsigned)(st.st_mode & 0777));
    }
    return 0;
}

/* Which filesystem is it, and what follows. */
static int check_filesystem(struct posix_io *p, unsigned flags, wal_error *error) {
#ifdef __linux__
    struct statfs fs;
    if (fstatfs(p->directory, &fs) != 0) {
        return wal_fail_os(error, -errno, WAL_NOWHERE, "cannot examine the filesystem");
    }
    p->syncs_direct = wal_direct_syncs_itself((unsigned long)fs.f_type);
    switch ((unsigned long)fs.f_type & 0xFFFFFFFFUL) {
        case 0xEF53UL: /* ext2, ext3, ext4 */
        case 0x58465342UL: /* xfs */ break;
        case 0x9123683EUL: p->is_btrfs = 1; break;
        case 0x01021994UL: /* tmpfs */
        case 0x858458F6UL: /* ramfs */ wal_io_warn(&p->io, WAL_WARN_NOT_DURABLE_FS); break;
        case 0x6969UL:     /* NFS */
        case 0x517BUL:     /* SMB */
        case 0xFF534D42UL: /* CIFS */
        case 0xFE534D42UL: /* SMB2 */
            if ((flags & WAL_DIR_WRITER) == 0) break;
            return wal_fail(error, WAL_E_UNSUPPORTED_FILESYSTEM, WAL_NOWHERE,
                            "a network filesystem keeps neither the lock nor the order of writes; "
                            "put the log on a local disk");
        default: wal_io_warn(&p->io, WAL_WARN_UNTESTED_FS); break;
    }
#else
    (void)flags;
    (void)error;
    wal_io_warn(&p->io, WAL_WARN_UNTESTED_FS);
#endif
    return 0;
}

static void enter_registry(struct posix_io *p) {
    pthread_mutex_lock(&registry_mutex);
    p->next = registry;
    registry = p;
    pthread_mutex_unlock(&registry_mutex);
}

int wal_io_posix_open(const char *path, unsigned flags, struct wal_io **io, wal_error *error) {
    if (flags & WAL_DIR_CREATE) {
        int result = make_directory(path, error);
        if (result < 0) return result;
    }
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    (void)pthread_once(&once, register_fork_handlers); /* readers too: they hold the mutexes */
    int directory = open_directory(path, error);
    if (directory < 0) return directory;
    struct posix_io *p = wal_calloc(1, sizeof *p);
    if (p == NULL) {
        (void)close(directory);
        return wal_fail(error, -ENOMEM, WAL_NOWHERE, "out of memory");
    }
    atomic_fetch_add(&open_files, 1);
    p->io.ops = &posix_ops;
    p->directory = directory;
    p->lock = -1;
    p->is_writer = (flags & WAL_DIR_WRITER) != 0;
    for (int i = 0; i < FILES_MAX; i++) p->files[i] = -1;
    for (int i = 0; i < DIRECT_FILES_MAX; i++) p->direct[i] = -1;
    int result = p->is_writer ? check_owner(directory, flags, error) : 0;
    if (result == 0) result = check_filesystem(p, flags, error);
    if (result < 0) {
        wal_io_destroy(&p->io);
        return result;
    }
    if (p->is_writer) enter_registry(p);
    *io = &p->io;
    return 0;
}
