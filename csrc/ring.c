/*
 * Setting up a ring, whoever drives it, and finding out whether io_uring works here at all.
 *
 * Nothing is concluded from version numbers. Containers, sandboxes and administrators refuse
 * io_uring in part or altogether, so every answer comes from doing: the ring is set up, its
 * features and opcodes are looked at, a NOP goes through it. What is refused is explained in words,
 * with what the operator can do about it.
 */
#include "ring.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "error.h"
#include "ring_liburing.h"

#ifdef __linux__

#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum {
    SQ_ENTRIES_MIN = 64, /* a ring that does not fit memory is halved down to this */
    SQ_ENTRIES_MAX = 32768,
    CQ_ENTRIES_MAX = 65536,
    ANSWER_SECONDS = 5, /* a NOP that takes longer will not come */
    SCRATCH_BYTES = 4096,
    GIVEN_BACK_NS = 1000000000, /* when a closed ring's memory counts no more, on a busy machine */
    LOOK_NS = 2000000,
};

static const uint32_t features_needed =
    URING_FEAT_NODROP | URING_FEAT_SUBMIT_STABLE | URING_FEAT_EXT_ARG;

static int hidden_op = -1; /* a test's: an opcode that this kernel is said not to have */

void wal_ring_hide_op(int32_t opcode) { __atomic_store_n(&hidden_op, opcode, __ATOMIC_RELAXED); }

static int is_hidden(uint8_t opcode) {
    return __atomic_load_n(&hidden_op, __ATOMIC_RELAXED) == opcode;
}

/* ---- why not, in words ----------------------------------------------------------------------- */

/* kernel.io_uring_disabled; 0 also where the kernel does not have it. */
static int disabled_by_sysctl(void) {
    char digit = '0';
    int file = open("/proc/sys/kernel/io_uring_disabled", O_RDONLY | O_CLOEXEC);
    if (file < 0) return 0;
    if (read(file, &digit, 1) != 1) digit = '0';
    (void)close(file);
    return digit - '0';
}

static const char *reason_of(int os_error) {
    switch (os_error) {
        case EPERM:
        case EACCES:
            if (disabled_by_sysctl() != 0) {
                return "the sysctl kernel.io_uring_disabled forbids io_uring; set it to 0";
            }
            return "io_uring is forbidden by a seccomp filter, as in a container; allow "
                   "io_uring_setup, io_uring_enter and io_uring_register in its profile";
        case ENOSYS:
            return "this kernel has no io_uring: it is older than 5.11, built without it, or a "
                   "sandbox such as gVisor or qemu-user; run on Linux 5.11 or newer";
        case ENOMEM:
            return "no memory for the ring within RLIMIT_MEMLOCK; raise ulimit -l, or ask for "
                   "fewer sq_entries";
        case EMFILE:
        case ENFILE: return "too many open files for a ring's descriptor; raise ulimit -n";
        case ECANCELED:
            return "the kernel cancels what goes into the ring: it may start no more threads for "
                   "it (RLIMIT_NPROC); raise ulimit -u";
        case EINVAL:
            return "the kernel does not know this kind of ring; run on Linux 5.11 or newer";
        default: return strerror(os_error);
    }
}

/* os_error 0: it was not a system call that failed. */
static int refuse(wal_backend_info *info, wal_error *error, int os_error, const char *reason) {
    info->os_error = os_error;
    (void)snprintf(info->reason, sizeof info->reason, "%s", reason);
    (void)wal_fail(error, WAL_E_NO_IO_URING, WAL_NOWHERE, "%s", reason);
    if (error != NULL) error->os_error = os_error;
    return WAL_E_NO_IO_URING;
}

/* ---- setup ----------------------------------------------------------------------------------- */

static uint32_t power_of_two(uint32_t least, uint32_t most) {
    uint32_t entries = 1;
    while (entries < least && entries < most) entries *= 2;
    return entries;
}

/*
 * io_uring.c keeps no more entries with the kernel than half of the CQ, so it cannot overflow: it
 * has to have room for a full SQ, and for the groups in flight, a write and a sync each.
 */
static void fill_params(struct uring_params *params, const wal_ring_options *options,
                        uint32_t entries, uint32_t groups_max, int kernel_poll) {
    memset(params, 0, sizeof *params);
    uint64_t groups = 2 * (uint64_t)groups_max;
    uint32_t flight =
        groups > entries ? (uint32_t)(groups < CQ_ENTRIES_MAX ? groups : CQ_ENTRIES_MAX) : entries;
    params->flags = URING_SETUP_CQSIZE;
    params->cq_entries =
        power_of_two(flight > CQ_ENTRIES_MAX / 2 ? CQ_ENTRIES_MAX : 2 * flight, CQ_ENTRIES_MAX);
    if (!kernel_poll) return;
    params->flags |= URING_SETUP_SQPOLL;
    params->sq_thread_idle = options->sq_poll_idle_ms > 0 ? options->sq_poll_idle_ms : 1;
}

static int64_t closed_ns; /* when a ring of this process was closed last; 0: never */

static int64_t now_ns(void) {
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/*
 * The kernel gives the memory of a closed ring back a moment later, by a worker that waits for its
 * turn as others do, and until then it counts against RLIMIT_MEMLOCK. Refused behind a close: 1,
 * try again; 0: it is not for that, or so many bytes never fit.
 */
static int may_come(int result, uint64_t bytes) {
    struct rlimit limit;
    int64_t closed = __atomic_load_n(&closed_ns, __ATOMIC_RELAXED);
    if (result != -ENOMEM || closed == 0 || now_ns() - closed > GIVEN_BACK_NS) return 0;
    if (getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && bytes > limit.rlim_cur) return 0;
    (void)nanosleep(&(struct timespec){.tv_nsec = LOOK_NS}, NULL);
    return 1;
}

int wal_ring_register_files(struct wal_ring *ring, const int *files, unsigned count) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < count) return -EMFILE;
    return ring->table->register_files(ring->state, files, count);
}

int wal_ring_register_buffers(struct wal_ring *ring, const struct iovec *buffers, unsigned count) {
    uint64_t bytes = 0;
    for (unsigned i = 0; i < count; i++) bytes += buffers[i].iov_len;
    int result;
    do {
        result = ring->table->register_buffers(ring->state, buffers, count);
    } while (may_come(result, bytes));
    return result;
}

/* What the kernel counts for a ring, without its own few words. */
static uint64_t bytes_at_least(const struct uring_params *params, uint32_t entries) {
    return entries * (uint64_t)sizeof(struct uring_sqe) +
           params->cq_entries * (uint64_t)sizeof(struct uring_cqe);
}

/*
 * A descriptor, or -errno. Without memory the SQ shrinks, then the CQ (what is beyond waits in the
 * engine); refused otherwise, kernel_poll is given up. A ring without COOP_TASKRUN, DEFER_TASKRUN
 * and SINGLE_ISSUER: any thread submits, and another one may wait.
 */
static int setup(struct wal_ring *ring, const wal_ring_options *options, wal_backend_info *info) {
    uint32_t entries = power_of_two(options->sq_entries > 0 ? options->sq_entries : SQ_ENTRIES_MIN,
                                    SQ_ENTRIES_MAX);
    uint32_t groups_max = options->max_inflight;
    uint32_t fallbacks = 0;
    int first_error = 0;
    int kernel_poll = options->kernel_poll != 0;
    for (;;) {
        fill_params(&ring->params, options, entries, groups_max, kernel_poll);
        int fd = ring->table->setup(entries, &ring->params);
        if (fd >= 0) {
            info->fallbacks |= fallbacks;
            if (info->os_error == 0) info->os_error = first_error;
            info->kernel_poll = (uint32_t)kernel_poll;
            return fd;
        }
        if (may_come(fd, bytes_at_least(&ring->params, entries))) continue;
        if (first_error == 0) first_error = -fd;
        if (fd == -ENOMEM && entries > SQ_ENTRIES_MIN) {
            entries /= 2;
            fallbacks |= WAL_FALLBACK_SQ_ENTRIES;
        } else if (fd == -ENOMEM && groups_max > SQ_ENTRIES_MIN / 2) {
            groups_max /= 2;
            fallbacks |= WAL_FALLBACK_SQ_ENTRIES;
        } else if (kernel_poll && fd != -ENOSYS && fd != -EMFILE && fd != -ENFILE) {
            kernel_poll = 0;
            fallbacks |= WAL_FALLBACK_KERNEL_POLL;
        } else {
            return fd;
        }
    }
}

/* Map the ring. On failure the descriptor is closed. */
static int map_ring(struct wal_ring *ring, int fd) {
    int result = ring->table->queue_mmap(fd, &ring->params, ring->state);
    if (result < 0) {
        (void)close(fd);
        return result;
    }
    ring->fd = fd;
    if (ring->table != wal_ring_builtin() &&
        wal_ring_liburing_finish(ring->state, fd, &ring->params) < 0) {
        /* Its own exit would trust the same struct. The mappings stay; this happens once. */
        (void)close(fd);
        ring->fd = -1;
        return -EPROTO;
    }
    return 0;
}

void wal_ring_close(struct wal_ring *ring) {
    if (ring->fd < 0) return;
    ring->table->queue_exit(ring->state);
    ring->fd = -1;
    __atomic_store_n(&closed_ns, now_ns(), __ATOMIC_RELAXED);
}

/* ---- does it work ---------------------------------------------------------------------------- */

/* Put one entry through an otherwise idle ring: its result, or -errno. */
static int round_trip(struct wal_ring *ring, const struct uring_sqe *entry) {
    if (is_hidden(entry->opcode)) return -EINVAL;
    struct uring_sqe *sqe = ring->table->get_sqe(ring->state);
    if (sqe == NULL) return -EBUSY;
    *sqe = *entry;
    int result = ring->table->submit(ring->state);
    if (result < 0) return result;
    struct uring_timespec limit = {.sec = ANSWER_SECONDS};
    struct uring_cqe *cqe = NULL;
    do {
        result = ring->table->wait_cqes(ring->state, &cqe, 1, &limit, NULL);
    } while (result == -EINTR);
    if (result < 0 || cqe == NULL) return result < 0 ? result : -ETIME;
    result = cqe->user_data == entry->user_data ? cqe->res : -EPROTO;
    ring->table->cq_advance(ring->state, 1);
    return result;
}

/* A file that needs no disk: in memory, else one without a name in $TMPDIR. */
static int scratch_file(void) {
#ifdef SYS_memfd_create
    long file = syscall(SYS_memfd_create, "walengine-probe", 1U /* MFD_CLOEXEC */);
    if (file >= 0) return (int)file;
#endif
#ifdef O_TMPFILE
    const char *directory = getenv("TMPDIR");
    return open(directory != NULL ? directory : "/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
#else
    return -1;
#endif
}

/* A write and a sync, done; -EINVAL: the kernel does not know one of them. */
static int write_and_sync(struct wal_ring *ring) {
    static const char zeros[SCRATCH_BYTES];
    int file = scratch_file();
    if (file < 0) return 0; /* nothing to try it on: the opcodes were looked up */
    struct uring_sqe write = {.opcode = URING_OP_WRITE,
                              .fd = file,
                              .addr = (uintptr_t)zeros,
                              .len = SCRATCH_BYTES,
                              .user_data = 2};
    struct uring_sqe sync = {
        .opcode = URING_OP_FSYNC, .fd = file, .op_flags = URING_FSYNC_DATASYNC, .user_data = 3};
    int result = round_trip(ring, &write);
    if (result >= 0) result = result == SCRATCH_BYTES ? round_trip(ring, &sync) : -EIO;
    (void)close(file);
    return result;
}

/* Are the opcodes there? A seccomp filter may refuse to say: then using them will tell. */
static int check_opcodes(struct wal_ring *ring) {
    static const uint8_t needed[] = {URING_OP_NOP, URING_OP_FSYNC, URING_OP_WRITE,
                                     URING_OP_WRITE_FIXED};
    struct uring_probe probe;
    memset(&probe, 0, sizeof probe);
    if (ring->table->register_probe(ring->state, &probe, URING_PROBE_OPS) < 0) return 0;
    for (size_t i = 0; i < sizeof needed; i++) {
        if (needed[i] > probe.last_op || is_hidden(needed[i])) return -EINVAL;
        if ((probe.ops[needed[i]].flags & URING_OP_SUPPORTED) == 0) return -EINVAL;
    }
    return 0;
}

static int prove(struct wal_ring *ring, wal_backend_info *info, wal_error *error) {
    if ((ring->params.features & features_needed) != features_needed) {
        return refuse(info, error, 0,
                      "this kernel's io_uring is too old (it lacks EXT_ARG, NODROP or "
                      "SUBMIT_STABLE); run on Linux 5.11 or newer");
    }
    struct uring_sqe nop = {.opcode = URING_OP_NOP, .user_data = 1};
    int result = round_trip(ring, &nop);
    if (result == -ETIME) {
        return refuse(info, error, ETIME, "a NOP went into the ring and did not come back");
    }
    if (result < 0) return refuse(info, error, -result, reason_of(-result));
    result = check_opcodes(ring);
    if (result == 0) result = write_and_sync(ring);
    if (result == -EINVAL) {
        return refuse(info, error, EINVAL,
                      "this kernel's io_uring lacks WRITE, WRITE_FIXED or FSYNC, or a filter "
                      "forbids them; run on Linux 5.11 or newer");
    }
    return result < 0 ? refuse(info, error, -result, reason_of(-result)) : 0;
}

/* The fallbacks of the ring itself, in words; info->reason says nothing yet. */
static void describe_fallbacks(wal_backend_info *info) {
    if (info->fallbacks & WAL_FALLBACK_LIBURING) return; /* its reason stands there already */
    if (info->fallbacks & WAL_FALLBACK_KERNEL_POLL) {
        (void)snprintf(info->reason, sizeof info->reason,
                       "the kernel refused kernel_poll (%s); entries are submitted by system calls",
                       strerror(info->os_error));
    } else if (info->fallbacks & WAL_FALLBACK_SQ_ENTRIES) {
        (void)snprintf(info->reason, sizeof info->reason,
                       "the ring has %u sq_entries only: no memory for more within "
                       "RLIMIT_MEMLOCK; raise ulimit -l",
                       info->sq_entries);
    }
}

static int open_with(struct wal_ring *ring, uint32_t provider, const wal_ring_options *options,
                     wal_backend_info *info, wal_error *error) {
    const char *version = NULL;
    ring->table = wal_ring_table(provider, &version);
    ring->fd = -1;
    if (ring->table == NULL) {
        return refuse(info, error, 0,
                      "C liburing was asked for and is not loaded; pip install "
                      "'walengine[liburing]', or take the built-in ring");
    }
    int fd = setup(ring, options, info);
    int result = fd < 0 ? fd : map_ring(ring, fd);
    if (result < 0) {
        return refuse(info, error, -result,
                      result == -EPROTO ? "this liburing's struct io_uring has another layout; pip "
                                          "install --upgrade 'walengine[liburing]'"
                                        : reason_of(-result));
    }
    (void)ring->table->ring_dontfork(ring->state);
    result = prove(ring, info, error);
    if (result < 0) {
        wal_ring_close(ring);
        return result;
    }
    info->backend = WAL_BACKEND_IO_URING;
    info->provider = provider;
    info->sq_entries = ring->params.sq_entries;
    if (version != NULL) (void)snprintf(info->version, sizeof info->version, "%s", version);
    return 0;
}

int wal_ring_open(struct wal_ring *ring, const wal_ring_options *options, wal_backend_info *info,
                  wal_error *error) {
    assert(ring != NULL && options != NULL && info != NULL);
    memset(ring, 0, sizeof *ring);
    memset(info, 0, sizeof *info);
    info->max_inflight = options->max_inflight;
    info->direct_io = options->direct_io;
    uint32_t provider = options->provider;
    if (provider == WAL_RING_AUTO) {
        provider = wal_ring_liburing(NULL) != NULL ? WAL_RING_LIBURING : WAL_RING_BUILTIN;
    }
    int result = open_with(ring, provider, options, info, error);
    if (result < 0 && provider == WAL_RING_LIBURING && options->provider == WAL_RING_AUTO) {
        wal_backend_info second = {.max_inflight = options->max_inflight,
                                   .direct_io = options->direct_io,
                                   .fallbacks = WAL_FALLBACK_LIBURING,
                                   .os_error = info->os_error};
        (void)snprintf(second.reason, sizeof second.reason, "C liburing: %.200s", info->reason);
        result = open_with(ring, WAL_RING_BUILTIN, options, &second, error);
        *info = second;
    }
    if (result == 0) describe_fallbacks(info);
    return result;
}

/* ---- the whole answer ------------------------------------------------------------------------ */

/* Register buffers like a writer's and let them go with the ring. */
static void try_buffers(struct wal_ring *ring, const wal_ring_options *options,
                        wal_backend_info *info) {
    uint32_t count = options->registered_buffers;
    size_t bytes = (size_t)options->buffer_bytes;
    if (count == 0 || bytes == 0) return;
    int result = -ENOMEM;
    void *memory = mmap(NULL, count * bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    struct iovec *parts = calloc(count, sizeof *parts);
    if (memory != MAP_FAILED && parts != NULL) {
        for (uint32_t i = 0; i < count; i++) {
            parts[i] = (struct iovec){.iov_base = (char *)memory + i * bytes, .iov_len = bytes};
        }
        result = wal_ring_register_buffers(ring, parts, count);
    }
    if (result < 0) {
        wal_ring_explain_buffers(info, -result);
    } else {
        info->registered_buffers = count;
    }
    free(parts);
    if (memory != MAP_FAILED) (void)munmap(memory, count * bytes);
}

void wal_ring_explain_buffers(wal_backend_info *info, int os_error) {
    info->fallbacks |= WAL_FALLBACK_BUFFERS;
    info->registered_buffers = 0;
    if (info->os_error == 0) info->os_error = os_error;
    if (info->reason[0] != '\0') return;
    (void)snprintf(info->reason, sizeof info->reason, "buffers are not registered (%s)%s",
                   strerror(os_error),
                   os_error == ENOMEM
                       ? "; raise ulimit -l (RLIMIT_MEMLOCK), or ask for fewer or smaller buffers"
                       : "");
}

/* What a writer does without, and what it does not do without: direct writes, see io_uring.c. */
static int try_files(struct wal_ring *ring, const wal_ring_options *options, wal_backend_info *info,
                     wal_error *error) {
    int none[WAL_RING_FILES];
    for (int i = 0; i < WAL_RING_FILES; i++) none[i] = -1;
    int result = wal_ring_register_files(ring, none, WAL_RING_FILES);
    if (result >= 0) {
        info->registered_files = WAL_RING_FILES;
    } else if (options->direct_io) {
        return refuse(info, error, -result, WAL_RING_NEEDS_FILES);
    } else {
        info->fallbacks |= WAL_FALLBACK_FILES;
    }
    return 0;
}

int wal_ring_probe(const wal_ring_options *options, wal_backend_info *info, wal_error *error) {
    assert(options != NULL && info != NULL);
    struct wal_ring ring;
    if (options->backend == WAL_BACKEND_PWRITE) {
        memset(info, 0, sizeof *info);
        info->backend = WAL_BACKEND_PWRITE;
        return 0;
    }
    int result = wal_ring_open(&ring, options, info, error);
    if (result == 0) {
        try_buffers(&ring, options, info);
        result = try_files(&ring, options, info, error);
        wal_ring_close(&ring);
    }
    if (result == 0 || options->backend == WAL_BACKEND_IO_URING) return result;
    info->backend = WAL_BACKEND_PWRITE;
    info->provider = WAL_RING_AUTO;
    info->kernel_poll = 0;
    info->sq_entries = 0;
    info->fallbacks = WAL_FALLBACK_NO_IO_URING;
    return 0;
}

#else

void wal_ring_hide_op(int32_t opcode) { (void)opcode; }

int wal_ring_open(struct wal_ring *ring, const wal_ring_options *options, wal_backend_info *info,
                  wal_error *error) {
    (void)options;
    memset(info, 0, sizeof *info);
    ring->fd = -1;
    info->os_error = ENOSYS;
    (void)snprintf(info->reason, sizeof info->reason, "io_uring exists on Linux only");
    return wal_fail(error, WAL_E_NO_IO_URING, WAL_NOWHERE, "%s", info->reason);
}

void wal_ring_close(struct wal_ring *ring) { (void)ring; }

void wal_ring_explain_buffers(wal_backend_info *info, int os_error) {
    (void)info;
    (void)os_error;
}

int wal_ring_probe(const wal_ring_options *options, wal_backend_info *info, wal_error *error) {
    struct wal_ring ring;
    int result = wal_ring_open(&ring, options, info, error);
    info->backend = WAL_BACKEND_PWRITE;
    if (options->backend == WAL_BACKEND_IO_URING) return result;
    info->fallbacks = options->backend == WAL_BACKEND_AUTO ? WAL_FALLBACK_NO_IO_URING : 0;
    return 0;
}

#endif

/* ---- providers ------------------------------------------------------------------------------- */

const struct wal_ring_table *wal_ring_table(uint32_t provider, const char **version) {
    if (version != NULL) *version = NULL;
    const struct wal_ring_table *liburing =
        provider == WAL_RING_BUILTIN ? NULL : wal_ring_liburing(version);
    if (liburing != NULL || provider == WAL_RING_LIBURING) return liburing;
    return wal_ring_builtin();
}

uint64_t wal_ring_functions(uint32_t provider, uintptr_t *addresses, uint64_t max) {
    const struct wal_ring_table *table = wal_ring_table(provider, NULL);
    if (table == NULL) return 0;
    /* The table is a name and function pointers, and nothing else: ring_liburing.c asserts it. */
    enum { FUNCTIONS = sizeof *table / sizeof(void *) - 1 };
    uintptr_t words[FUNCTIONS + 1];
    memcpy(words, table, sizeof words);
    for (uint64_t i = 0; i < FUNCTIONS && i < max; i++) addresses[i] = words[i + 1];
    return FUNCTIONS;
}
