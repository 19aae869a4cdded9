/*
 * The files of the fsync bench: without a name, in the state that a row asks for, full of data that
 * no device can make smaller.
 *
 * A file is made with O_TMPFILE, so it never has a name. Where the filesystem has no such thing it
 * gets a name and loses it at once, before anything is written.
 *
 * O_DSYNC cannot be set on a file that is open, so such a file is prepared by writes that each sync
 * themselves: slower, and outside of what is measured. O_DIRECT can, and is set afterwards, because
 * a filesystem without it must not leave a file behind that it refused to open.
 */
#include "bench_sync.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "hooks.h"
#include "io_direct.h"

#ifdef __linux__
#include <linux/fs.h>
#endif

enum { BLOCK = 4096, STEP_BYTES = 1 << 20, NAME_TRIES = 8 };

/* splitmix64 (Steele, Lea, Flood 2014). */
static uint64_t mix(uint64_t value) {
    value += UINT64_C(0x9E3779B97F4A7C15);
    value = (value ^ (value >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    value = (value ^ (value >> 27)) * UINT64_C(0x94D049BB133111EB);
    return value ^ (value >> 31);
}

/* ---- data ------------------------------------------------------------------------------------ */

char *wal_bench_data(uint64_t seed, uint64_t bytes) {
    uint64_t whole = (bytes + BLOCK - 1) / BLOCK * BLOCK;
    char *data = wal_aligned(BLOCK, whole);
    if (data == NULL) return NULL;
    for (uint64_t at = 0; at < whole; at += sizeof seed) {
        uint64_t word = mix(seed + at);
        memcpy(data + at, &word, sizeof word);
    }
    return data;
}

void wal_bench_stamp(const struct wal_bench_run *run, char *data, uint64_t bytes, uint64_t offset) {
    for (uint64_t at = 0; at + sizeof offset <= bytes; at += BLOCK) {
        uint64_t stamp = mix(run->seed ^ (offset + at));
        memcpy(data + at, &stamp, sizeof stamp);
    }
}

/* ---- a file without a name ------------------------------------------------------------------- */

static int open_named(struct wal_bench_run *run, int flags) {
    int directory = run->bench->directory;
    for (int i = 0; i < NAME_TRIES; i++) {
        char name[64];
        (void)snprintf(name, sizeof name, ".walengine-bench-%016llx",
                       (unsigned long long)mix(run->seed + (uint64_t)i));
        int file = openat(directory, name, flags | O_CREAT | O_EXCL | O_NOFOLLOW, 0600);
        if (file < 0 && errno == EEXIST) continue;
        if (file < 0) return wal_bench_fail(run, -errno, "making a file");
        if (unlinkat(directory, name, 0) == 0) return file;
        int code = -errno;
        (void)close(file);
        return wal_bench_fail(run, code, "taking the name off a file");
    }
    return wal_bench_fail(run, -EEXIST, "making a file");
}

static int open_unnamed(struct wal_bench_run *run, int flags) {
#ifdef O_TMPFILE
    int file = openat(run->bench->directory, ".", flags | O_TMPFILE, 0600);
    if (file >= 0) {
        run->unnamed = 1;
        return file;
    }
    /* What filesystems and kernels without it answer; the rest is a real refusal. */
    if (errno != EOPNOTSUPP && errno != EISDIR && errno != ENOENT && errno != EINVAL) {
        return wal_bench_fail(run, -errno, "making a file");
    }
#endif
    return open_named(run, flags);
}

/* On btrfs as the log's own segments are: written in place. Elsewhere the flag does not exist. */
static void refuse_copy_on_write(int file) {
#ifdef FS_NOCOW_FL
    int flags = 0;
    if (ioctl(file, FS_IOC_GETFLAGS, &flags) != 0) return;
    flags |= FS_NOCOW_FL;
    (void)ioctl(file, FS_IOC_SETFLAGS, &flags);
#else
    (void)file;
#endif
}

int wal_bench_file_open(struct wal_bench_run *run) {
    uint32_t method = run->row->method;
    int flags = O_RDWR | O_CLOEXEC;
    if (method == WAL_BENCH_DSYNC || method == WAL_BENCH_DIRECT_DSYNC) flags |= O_DSYNC;
    int file = open_unnamed(run, flags);
    if (file < 0) return file;
    run->file = file;
    refuse_copy_on_write(file);
    return 0;
}

/* ---- its state ------------------------------------------------------------------------------- */

static int write_step(struct wal_bench_run *run, const char *data, uint64_t offset,
                      uint64_t bytes) {
    for (uint64_t done = 0; done < bytes;) {
        ssize_t wrote = pwrite(run->file, data + done, bytes - done, (off_t)(offset + done));
        if (wrote < 0 && errno == EINTR) continue;
        if (wrote < 0) return wal_bench_fail(run, -errno, "preparing the file: pwrite");
        if (wrote == 0) return wal_bench_fail(run, -ENOSPC, "preparing the file: pwrite");
        if ((fcntl(run->file, F_GETFL) & O_DSYNC) != 0) run->preparation_syncs++;
        done += (uint64_t)wrote;
    }
    return 0;
}

static int fill(struct wal_bench_run *run, uint64_t bytes) {
    char *data = wal_bench_data(mix(run->seed), STEP_BYTES);
    if (data == NULL) return wal_bench_fail(run, -ENOMEM, "memory to prepare the file");
    int is_zero = run->row->state == WAL_BENCH_ZERO_FILLED;
    if (is_zero) memset(data, 0, STEP_BYTES);
    int result = 0;
    for (uint64_t at = run->prepared; at < bytes && result == 0; at += STEP_BYTES) {
        uint64_t step = bytes - at < STEP_BYTES ? bytes - at : STEP_BYTES;
        if (!is_zero) wal_bench_stamp(run, data, step, at + 1);
        if (atomic_load(&run->bench->stopping)) break; /* no write that counts will begin */
        result = write_step(run, data, at, step);
    }
    wal_free(data);
    return result;
}

static int allocate(struct wal_bench_run *run, uint64_t bytes) {
#ifdef __linux__
    /* Not posix_fallocate: where there is no fallocate it would write. */
    if (fallocate(run->file, 0, 0, (off_t)bytes) == 0) return 0;
    return wal_bench_fail(run, -errno, "fallocate");
#else
    (void)bytes;
    return wal_bench_fail(run, -EOPNOTSUPP, "fallocate");
#endif
}

/* Preparing goes through the page cache: its steps end where no direct write has to. */
static int leave_direct(struct wal_bench_run *run) {
    if (!wal_bench_is_direct(run->row->method) || O_DIRECT == 0) return 0;
    int flags = fcntl(run->file, F_GETFL);
    if (flags >= 0 && fcntl(run->file, F_SETFL, flags & ~O_DIRECT) == 0) return 0;
    return wal_bench_fail(run, -errno, "fcntl without O_DIRECT");
}

int wal_bench_file_prepare(struct wal_bench_run *run, uint64_t bytes) {
    if (bytes <= run->prepared) return 0;
    int result = leave_direct(run);
    if (result == 0 && run->row->state == WAL_BENCH_FALLOCATED) result = allocate(run, bytes);
    if (result == 0 && run->row->state >= WAL_BENCH_ZERO_FILLED) result = fill(run, bytes);
    if (result < 0) return result;
    run->prepared = bytes;
    /* The file's metadata too: the first sync that counts must not pay for it. */
    if (fsync(run->file) != 0) return wal_bench_fail(run, -errno, "preparing the file: fsync");
    run->preparation_syncs++;
    return 0;
}

int wal_bench_file_ready(struct wal_bench_run *run) {
    if (!wal_bench_is_direct(run->row->method)) return 0;
#ifdef POSIX_FADV_DONTNEED
    (void)posix_fadvise(run->file, 0, 0, POSIX_FADV_DONTNEED);
#endif
    int result = wal_direct_enter(run->file);
    if (result == -EINVAL) result = -EOPNOTSUPP;
    return result < 0 ? wal_bench_fail(run, result, "setting O_DIRECT") : 0;
}

void wal_bench_file_close(struct wal_bench_run *run) {
    if (run->file < 0) return;
    /* Else its blocks are freed in the background, and the next row needs them. */
    int result = ftruncate(run->file, 0);
    (void)result;
    (void)close(run->file);
    run->file = -1;
}

void wal_bench_settle(struct wal_bench *bench) {
#ifdef __linux__
    (void)syncfs(bench->directory);
#else
    (void)bench;
    sync();
#endif
}
