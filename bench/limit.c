/*
 * The plain C loops that the engine is measured against: the same I/O without an engine.
 *
 *   limit sync DIRECTORY COUNT BYTES   pwrite of BYTES, then fdatasync, COUNT times one behind the
 *                                      other in a file of zeros that were written and synced first
 *   limit read FILE                    pread of the whole file past the page cache, 2 MiB at a time
 *   limit crc COUNT BYTES              copy BYTES and compute their CRC32C, COUNT times
 *   limit serve DIRECTORY BYTES        one loop for each line of standard input, until it ends:
 *
 *     sync COUNT                the loop of "limit sync", in a file that is kept
 *     direct COUNT              4096 bytes by pwritev2 with RWF_DSYNC to an O_DIRECT file
 *     ring COUNT                the write and its fdatasync as two linked entries of a ring
 *     ring-direct COUNT DEPTH   4096 bytes with RWF_DSYNC through a ring, DEPTH of them at a time
 *     bulk COUNT N              N bytes by pwrite, then fdatasync
 *     bulk-direct COUNT N       N bytes by pwritev2 with RWF_DSYNC to an O_DIRECT file
 *
 * Each prints one JSON object; "serve" one for each line, with every duration, so that a program
 * can run its own work and a loop by turns. All files are zero-filled first. BYTES is what the
 * engine writes for one record: a header of 64, the record, 4 for its end, rounded up to 8; so a
 * record of 256 is a frame of 328.
 *
 * The ring is used as well as can be: registered file and memory, and one system call that submits
 * and waits. What an engine with more than one thread needs besides is in none of these loops.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "crc32c.h"
#include "uring_abi.h"
#include "walengine.h"

enum { BLOCK = 4096, READ_BYTES = 2 * 1048576, WARM_UP = 50, COUNT_MAX = 10000000 };

static void check(int ok, const char *what) {
    if (ok) return;
    fprintf(stderr, "limit: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t now_ns(void) {
    struct timespec now;
    check(clock_gettime(CLOCK_MONOTONIC, &now) == 0, "clock_gettime");
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

static uint64_t number(const char *text, uint64_t max) {
    char *end = NULL;
    errno = 0;
    uint64_t value = strtoull(text, &end, 10);
    if (errno == 0 && end != text && *end == '\0' && value > 0 && value <= max) return value;
    fprintf(stderr, "limit: %s is not a number from 1 to %" PRIu64 "\n", text, max);
    exit(2);
}

static void *aligned(size_t bytes) {
    void *memory = NULL;
    int result = posix_memalign(&memory, BLOCK, bytes);
    errno = result;
    check(result == 0, "posix_memalign");
    memset(memory, 0x5A, bytes);
    return memory;
}

static int ascending(const void *left, const void *right) {
    uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return a < b ? -1 : a > b ? 1 : 0;
}

/* ---- sync ------------------------------------------------------------------------------------ */

/* A file of zeros whose extents are written, as the engine's segments are ahead of the tail. */
static int make_zero_filled(const char *directory, uint64_t bytes) {
    static const char zeros[1 << 16];
    int at = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    check(at >= 0, directory);
    char name[64];
    snprintf(name, sizeof name, "limit-%ld.tmp", (long)getpid());
    int file = openat(at, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    check(file >= 0, name);
    check(unlinkat(at, name, 0) == 0, "unlinkat"); /* it goes with the process, however that ends */
    close(at);
    for (uint64_t offset = 0; offset < bytes; offset += sizeof zeros) {
        ssize_t wrote = pwrite(file, zeros, sizeof zeros, (off_t)offset);
        check(wrote == (ssize_t)sizeof zeros, "zero-filling");
    }
    check(fsync(file) == 0, "fsync");
    return file;
}

static uint64_t write_and_sync(int file, const char *frame, uint64_t bytes, uint64_t offset) {
    uint64_t begin = now_ns();
    ssize_t wrote = pwrite(file, frame, bytes, (off_t)offset);
    check(wrote == (ssize_t)bytes, "pwrite");
    check(fdatasync(file) == 0, "fdatasync");
    return now_ns() - begin;
}

static void run_sync(const char *directory, uint64_t count, uint64_t bytes) {
    char *frame = aligned(bytes);
    uint64_t *took = calloc(count, sizeof *took);
    check(took != NULL, "calloc");
    int file = make_zero_filled(directory, (count + WARM_UP) * bytes);
    uint64_t offset = 0;
    for (int i = 0; i < WARM_UP; i++, offset += bytes) write_and_sync(file, frame, bytes, offset);
    for (uint64_t i = 0; i < count; i++, offset += bytes) {
        took[i] = write_and_sync(file, frame, bytes, offset);
    }
    qsort(took, count, sizeof *took, ascending);
    printf("{\"count\": %" PRIu64 ", \"p50_us\": %.2f, \"p90_us\": %.2f, \"p99_us\": %.2f}\n",
           count, (double)took[count / 2] / 1e3, (double)took[count * 90 / 100] / 1e3,
           (double)took[count * 99 / 100] / 1e3);
    close(file);
    free(took);
    free(frame);
}

/* ---- serve: files ---------------------------------------------------------------------------- */

enum {
    FILE_BYTES = 16 * 1048576,
    BULK_BYTES = 256 * 1048576,
    DEPTH_MAX = 64,
    BUFFERED = 0, /* places in loop_files, and in the ring's table of files */
    DIRECT = 1,
};

/* A zero-filled file that a loop writes to from its begin to its end, and again. */
struct loop_file {
    int fd; /* -1: not made yet */
    uint64_t bytes;
    uint64_t next;
};

struct server {
    const char *directory;
    uint64_t frame_bytes;
    char *memory; /* DEPTH_MAX blocks */
    struct loop_file files[2];
    struct loop_file bulk[2];
    const char *problem; /* why the loop cannot be run here */
    uint64_t *took;
};

static uint64_t place_for(struct loop_file *file, uint64_t bytes) {
    if (file->next + bytes > file->bytes) file->next = 0;
    file->next += bytes;
    return file->next - bytes;
}

/* 0: this filesystem has no O_DIRECT. */
static int open_loop_file(struct server *s, struct loop_file *file, int is_direct, uint64_t bytes) {
    if (file->fd >= 0) return 1;
    int fd = make_zero_filled(s->directory, bytes);
    if (is_direct && fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_DIRECT) != 0) {
        close(fd);
        s->problem = "the filesystem has no O_DIRECT";
        return 0;
    }
    *file = (struct loop_file){.fd = fd, .bytes = bytes};
    return 1;
}

/* ---- serve: loops of system calls ------------------------------------------------------------ */

static void write_durably(const struct loop_file *file, char *data, uint64_t bytes,
                          uint64_t offset) {
    struct iovec part = {.iov_base = data, .iov_len = bytes};
    ssize_t wrote = pwritev2(file->fd, &part, 1, (off_t)offset, RWF_DSYNC);
    check(wrote == (ssize_t)bytes, "pwritev2");
}

static void loop_sync(struct server *s, uint64_t count) {
    struct loop_file *file = &s->files[BUFFERED];
    if (!open_loop_file(s, file, 0, FILE_BYTES)) return;
    for (uint64_t i = 0; i < count; i++) {
        uint64_t offset = place_for(file, s->frame_bytes);
        s->took[i] = write_and_sync(file->fd, s->memory, s->frame_bytes, offset);
    }
}

static void loop_direct(struct server *s, uint64_t count) {
    struct loop_file *file = &s->files[DIRECT];
    if (!open_loop_file(s, file, 1, FILE_BYTES)) return;
    for (uint64_t i = 0; i < count; i++) {
        uint64_t begin = now_ns();
        write_durably(file, s->memory, BLOCK, place_for(file, BLOCK));
        s->took[i] = now_ns() - begin;
    }
}

static void loop_bulk(struct server *s, uint64_t count, uint64_t bytes, int is_direct) {
    struct loop_file *file = &s->bulk[is_direct];
    if (!open_loop_file(s, file, is_direct, BULK_BYTES)) return;
    char *data = aligned(bytes);
    for (uint64_t i = 0; i < count; i++) {
        uint64_t offset = place_for(file, bytes), begin = now_ns();
        if (is_direct) {
            write_durably(file, data, bytes, offset);
            s->took[i] = now_ns() - begin;
        } else {
            s->took[i] = write_and_sync(file->fd, data, bytes, offset);
        }
    }
    free(data);
}

/* ---- serve: loops through io_uring ----------------------------------------------------------- */

/* One thread's ring without anything around it: what the kernel's interface itself costs. */
struct ring {
    int fd; /* -1: not open */
    uint32_t mask;
    uint32_t cq_mask;
    uint32_t *sq_tail;
    uint32_t *cq_head;
    uint32_t *cq_tail;
    struct uring_sqe *sqes;
    struct uring_cqe *cqes;
    int fds[2];    /* of the files, by their places */
    int has_files; /* they are registered */
    int is_fixed;  /* the memory is registered */
    unsigned queued;
};

static struct ring ring = {.fd = -1};

static void *map_ring(size_t bytes, uint64_t offset) {
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring.fd,
                        (off_t)offset);
    check(memory != MAP_FAILED, "mmap of the ring");
    return memory;
}

static int open_ring(struct server *s) {
    if (ring.fd >= 0) return 1;
    struct uring_params p;
    memset(&p, 0, sizeof p);
    ring.fd = (int)syscall(URING_SYS_SETUP, 2 * DEPTH_MAX, &p);
    /* A filter may forbid any one of the three system calls. */
    int works = ring.fd >= 0 && (p.features & URING_FEAT_SINGLE_MMAP) != 0 &&
                syscall(URING_SYS_ENTER, ring.fd, 0, 0, 0, NULL, (size_t)0) == 0;
    if (!works) {
        if (ring.fd >= 0) close(ring.fd);
        ring.fd = -1;
        s->problem = "io_uring does not work here";
        return 0;
    }
    size_t sq = p.sq_off.array + p.sq_entries * sizeof(uint32_t);
    size_t cq = p.cq_off.cqes + p.cq_entries * sizeof(struct uring_cqe);
    char *both = map_ring(sq > cq ? sq : cq, URING_OFF_SQ_RING);
    ring.sqes = map_ring(p.sq_entries * sizeof(struct uring_sqe), URING_OFF_SQES);
    ring.mask = p.sq_entries - 1;
    ring.cq_mask = p.cq_entries - 1;
    ring.sq_tail = (uint32_t *)(void *)(both + p.sq_off.tail);
    ring.cq_head = (uint32_t *)(void *)(both + p.cq_off.head);
    ring.cq_tail = (uint32_t *)(void *)(both + p.cq_off.tail);
    ring.cqes = (struct uring_cqe *)(void *)(both + p.cq_off.cqes);
    uint32_t *array = (uint32_t *)(void *)(both + p.sq_off.array);
    for (uint32_t i = 0; i < p.sq_entries; i++) array[i] = i;
    struct iovec memory = {.iov_base = s->memory, .iov_len = DEPTH_MAX * BLOCK};
    long result = syscall(URING_SYS_REGISTER, ring.fd, URING_REGISTER_BUFFERS, &memory, 1);
    ring.is_fixed = result == 0; /* RLIMIT_MEMLOCK may forbid it */
    ring.fds[BUFFERED] = s->files[BUFFERED].fd;
    ring.fds[DIRECT] = s->files[DIRECT].fd;
    result = syscall(URING_SYS_REGISTER, ring.fd, URING_REGISTER_FILES, ring.fds, 2);
    ring.has_files = result == 0;
    return 1;
}

/* Both files first: the ring knows them by their places. */
static int open_ring_and_files(struct server *s) {
    int has_direct = open_loop_file(s, &s->files[DIRECT], 1, FILE_BYTES);
    s->problem = NULL; /* -1 is an empty place: the loop through the page cache needs only one */
    if (!open_loop_file(s, &s->files[BUFFERED], 0, FILE_BYTES)) return 0;
    return open_ring(s) ? 1 + has_direct : 0;
}

/* The next entry, to be filled in further; nobody sees it before enter. */
static struct uring_sqe *entry(uint8_t opcode, int place, uint64_t user_data) {
    struct uring_sqe *sqe = &ring.sqes[(*ring.sq_tail + ring.queued++) & ring.mask];
    *sqe = (struct uring_sqe){.opcode = opcode, .user_data = user_data};
    sqe->flags = ring.has_files ? URING_SQE_FIXED_FILE : 0;
    sqe->fd = ring.has_files ? place : ring.fds[place];
    return sqe;
}

static struct uring_sqe *write_entry(int place, char *data, uint64_t bytes, uint64_t offset,
                                     uint64_t user_data) {
    struct uring_sqe *sqe =
        entry(ring.is_fixed ? URING_OP_WRITE_FIXED : URING_OP_WRITE, place, user_data);
    sqe->off = offset;
    sqe->addr = (uintptr_t)data;
    sqe->len = (uint32_t)bytes;
    return sqe;
}

/* Submit what is queued and wait for so many completions, in one system call. */
static void enter(unsigned wait) {
    __atomic_store_n(ring.sq_tail, *ring.sq_tail + ring.queued, __ATOMIC_RELEASE);
    long result = syscall(URING_SYS_ENTER, ring.fd, ring.queued, wait, URING_ENTER_GETEVENTS, NULL,
                          (size_t)0);
    check(result == (long)ring.queued, "io_uring_enter");
    ring.queued = 0;
}

/* The next completion: 0 if there is none. */
static int reap(uint64_t *user_data, int32_t *result) {
    uint32_t head = *ring.cq_head;
    if (head == __atomic_load_n(ring.cq_tail, __ATOMIC_ACQUIRE)) return 0;
    *user_data = ring.cqes[head & ring.cq_mask].user_data;
    *result = ring.cqes[head & ring.cq_mask].res;
    __atomic_store_n(ring.cq_head, head + 1, __ATOMIC_RELEASE);
    return 1;
}

/* A write and its sync, linked, one pair behind the other. */
static void loop_ring(struct server *s, uint64_t count) {
    if (!open_ring_and_files(s)) return;
    for (uint64_t i = 0; i < count; i++) {
        uint64_t offset = place_for(&s->files[BUFFERED], s->frame_bytes), begin = now_ns(), tag;
        int32_t result;
        write_entry(BUFFERED, s->memory, s->frame_bytes, offset, s->frame_bytes)->flags |=
            URING_SQE_LINK;
        entry(URING_OP_FSYNC, BUFFERED, 0)->op_flags = URING_FSYNC_DATASYNC;
        enter(2);
        for (int got = 0; got < 2; got++) {
            check(reap(&tag, &result), "two completions");
            errno = result < 0 ? -result : EIO;
            check(result == (int32_t)tag, "a linked write and its sync");
        }
        s->took[i] = now_ns() - begin;
    }
}

static void start_direct(struct server *s, uint64_t slot, uint64_t *begun) {
    uint64_t offset = place_for(&s->files[DIRECT], BLOCK);
    begun[slot] = now_ns();
    struct uring_sqe *sqe = write_entry(DIRECT, s->memory + slot * BLOCK, BLOCK, offset, slot);
    sqe->op_flags = URING_RWF_DSYNC;
}

/* Writes that sync themselves, depth at a time; each one's time is from its entry on. */
static void loop_ring_direct(struct server *s, uint64_t count, uint64_t depth) {
    uint64_t begun[DEPTH_MAX], started = 0, done = 0, slot;
    int32_t result;
    if (open_ring_and_files(s) < 2) {
        if (s->problem == NULL) s->problem = "the filesystem has no O_DIRECT";
        return;
    }
    for (; started < depth && started < count; started++) start_direct(s, started, begun);
    while (done < count) {
        enter(1);
        while (reap(&slot, &result)) {
            errno = result < 0 ? -result : EIO;
            check(result == BLOCK, "a direct write");
            s->took[done++] = now_ns() - begun[slot];
            if (started++ < count) start_direct(s, slot, begun);
        }
    }
}

/* ---- serve: one line, one loop, one answer --------------------------------------------------- */

static int run_loop(struct server *s, const char *name, uint64_t count, uint64_t extra) {
    if (strcmp(name, "sync") == 0) {
        loop_sync(s, count);
    } else if (strcmp(name, "direct") == 0) {
        loop_direct(s, count);
    } else if (strcmp(name, "ring") == 0) {
        loop_ring(s, count);
    } else if (strcmp(name, "ring-direct") == 0 && extra > 0 && extra <= DEPTH_MAX) {
        loop_ring_direct(s, count, extra);
    } else if (strcmp(name, "bulk") == 0 && extra > 0 && extra <= BULK_BYTES) {
        loop_bulk(s, count, extra, 0);
    } else if (strcmp(name, "bulk-direct") == 0 && extra > 0 && extra <= BULK_BYTES) {
        loop_bulk(s, count, extra, 1);
    } else {
        return 0;
    }
    return 1;
}

static void answer(const struct server *s, uint64_t count, uint64_t wall_ns) {
    if (s->problem != NULL) {
        printf("{\"error\": \"%s\"}\n", s->problem);
    } else {
        printf("{\"wall_ns\": %" PRIu64 ", \"ns\": [", wall_ns);
        for (uint64_t i = 0; i < count; i++) printf("%s%" PRIu64, i ? "," : "", s->took[i]);
        printf("]}\n");
    }
    check(fflush(stdout) == 0, "writing the answer");
}

static void run_serve(const char *directory, uint64_t frame_bytes) {
    struct server s = {.directory = directory, .frame_bytes = frame_bytes};
    char line[128], name[32];
    s.memory = aligned(DEPTH_MAX * BLOCK);
    for (int i = 0; i < 2; i++) s.files[i].fd = s.bulk[i].fd = -1;
    while (fgets(line, sizeof line, stdin) != NULL) {
        uint64_t count = 0, extra = 0;
        int words = sscanf(line, "%31s %" SCNu64 " %" SCNu64, name, &count, &extra);
        check(words >= 2 && count > 0 && count <= COUNT_MAX, "a line: LOOP COUNT [N]");
        s.took = calloc(count, sizeof *s.took);
        check(s.took != NULL, "calloc");
        s.problem = NULL;
        uint64_t begin = now_ns();
        if (!run_loop(&s, name, count, extra)) s.problem = "there is no such loop";
        answer(&s, count, now_ns() - begin);
        free(s.took);
    }
    free(s.memory);
}

/* ---- read ------------------------------------------------------------------------------------ */

static void run_read(const char *path) {
    char *block = aligned(READ_BYTES);
    int file = open(path, O_RDONLY | O_CLOEXEC | O_DIRECT);
    check(file >= 0, path);
    uint64_t begin = now_ns(), total = 0;
    ssize_t got;
    while ((got = pread(file, block, READ_BYTES, (off_t)total)) > 0) total += (uint64_t)got;
    check(got == 0, "pread");
    printf("{\"bytes\": %" PRIu64 ", \"ms\": %.3f}\n", total, (double)(now_ns() - begin) / 1e6);
    close(file);
    free(block);
}

/* ---- crc ------------------------------------------------------------------------------------- */

static void run_crc(uint64_t count, uint64_t bytes) {
    enum { RING = 1 << 20 };
    char *source = aligned(bytes), *ring = aligned(RING);
    uint32_t sum = 0;
    uint64_t begin = now_ns(), offset = 0;
    for (uint64_t i = 0; i < count; i++) {
        if (offset + bytes > RING) offset = 0;
        memcpy(ring + offset, source, bytes);
        sum ^= wal_crc32c((uint32_t)i, ring + offset, bytes);
        offset += bytes;
    }
    double took_ns = (double)(now_ns() - begin);
    printf("{\"count\": %" PRIu64 ", \"ns\": %.2f, \"crc32c\": \"%s\", \"sum\": %" PRIu32 "}\n",
           count, took_ns / (double)count, wal_crc32c_name(), sum);
    free(source);
    free(ring);
}

int main(int count, char **arguments) {
    if (count == 5 && strcmp(arguments[1], "sync") == 0) {
        run_sync(arguments[2], number(arguments[3], COUNT_MAX), number(arguments[4], 1 << 20));
    } else if (count == 4 && strcmp(arguments[1], "serve") == 0) {
        run_serve(arguments[2], number(arguments[3], BLOCK));
    } else if (count == 3 && strcmp(arguments[1], "read") == 0) {
        run_read(arguments[2]);
    } else if (count == 4 && strcmp(arguments[1], "crc") == 0) {
        run_crc(number(arguments[2], COUNT_MAX), number(arguments[3], 1 << 20));
    } else {
        fprintf(stderr,
                "usage: limit sync DIRECTORY COUNT BYTES | serve DIRECTORY BYTES | "
                "read FILE | crc COUNT BYTES\n");
        return 2;
    }
    return 0;
}
