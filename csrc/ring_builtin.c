/*
 * The built-in ring: io_uring by its system calls, for machines without liburing.
 *
 * Both queues live in memory shared with the kernel, as rings with a head and a tail that only
 * grow. Each index has one writer, and each is published with a release store after what it covers
 * and read with an acquire load before it:
 *
 *   SQ tail: written here, after the entries and the array that names them are filled in.
 *   SQ head: written by the kernel when it has copied an entry (SUBMIT_STABLE): the place is free.
 *   CQ tail: written by the kernel after the completion.
 *   CQ head: written here after the completion was read: the kernel may overwrite it.
 *
 * The array of the SQ is filled in once, place i naming entry i, and left alone.
 *
 * With SQPOLL the kernel's thread announces that it goes to sleep (NEED_WAKEUP) and then looks at
 * the tail once more; we store the tail and then look at the flag. Either must see the other's.
 * Release and acquire alone would let the load pass the store, and the entry would wait for a
 * thread that sleeps; so both are sequentially consistent here, which puts a full barrier between
 * them, and the kernel has one of its own. (A fence would do as well; ThreadSanitizer knows none.)
 *
 * Waiting touches only the CQ: another thread may submit meanwhile.
 */
#include <errno.h>
#include <string.h>

#include "ring.h"

#ifdef __linux__

#include <assert.h>
#include <sys/mman.h>
#include <unistd.h>

struct ring {
    int fd;
    uint32_t setup_flags;
    /* Submission. sqe_tail counts entries handed out, *sq_tail those the kernel may see. */
    uint32_t *sq_head;
    uint32_t *sq_tail;
    uint32_t *sq_flags;
    struct uring_sqe *sqes;
    uint32_t sq_entries;
    uint32_t sqe_tail;
    /* Completion. */
    uint32_t *cq_head;
    uint32_t *cq_tail;
    struct uring_cqe *cqes;
    uint32_t cq_entries;
    /* The mappings; cq_map is sq_map where the kernel has them in one. */
    void *sq_map;
    void *cq_map;
    size_t sq_bytes;
    size_t cq_bytes;
    size_t sqes_bytes;
};

_Static_assert(sizeof(struct ring) <= WAL_RING_STATE_BYTES, "the state block is too small");

enum { SIGMASK_BYTES = 8 }; /* the kernel's sigset_t, not the C library's */

static int builtin_setup(unsigned entries, struct uring_params *params) {
    long fd = syscall(URING_SYS_SETUP, entries, params);
    return fd < 0 ? -errno : (int)fd;
}

static int enter(const struct ring *r, unsigned submit, unsigned wait, unsigned flags,
                 const void *argument, size_t bytes) {
    long result = syscall(URING_SYS_ENTER, r->fd, submit, wait, flags, argument, bytes);
    return result < 0 ? -errno : (int)result;
}

static int do_register(const struct ring *r, unsigned what, const void *argument, unsigned count) {
    long result = syscall(URING_SYS_REGISTER, r->fd, what, argument, count);
    return result < 0 ? -errno : (int)result;
}

/* ---- the mappings ---------------------------------------------------------------------------- */

static void *map(int fd, size_t bytes, uint64_t offset) {
    void *memory =
        mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, (off_t)offset);
    return memory == MAP_FAILED ? NULL : memory;
}

static void unmap_all(struct ring *r) {
    if (r->sqes != NULL) (void)munmap(r->sqes, r->sqes_bytes);
    if (r->cq_map != NULL && r->cq_map != r->sq_map) (void)munmap(r->cq_map, r->cq_bytes);
    if (r->sq_map != NULL) (void)munmap(r->sq_map, r->sq_bytes);
}

static int map_all(struct ring *r, int fd, const struct uring_params *p) {
    r->sq_bytes = p->sq_off.array + p->sq_entries * sizeof(uint32_t);
    r->cq_bytes = p->cq_off.cqes + p->cq_entries * sizeof(struct uring_cqe);
    r->sqes_bytes = p->sq_entries * sizeof(struct uring_sqe);
    int single = (p->features & URING_FEAT_SINGLE_MMAP) != 0;
    if (single && r->cq_bytes > r->sq_bytes) r->sq_bytes = r->cq_bytes;
    r->sq_map = map(fd, r->sq_bytes, URING_OFF_SQ_RING);
    if (r->sq_map == NULL) return -errno;
    r->cq_map = single ? r->sq_map : map(fd, r->cq_bytes, URING_OFF_CQ_RING);
    if (r->cq_map == NULL) return -errno;
    r->sqes = map(fd, r->sqes_bytes, URING_OFF_SQES);
    return r->sqes == NULL ? -errno : 0;
}

static uint32_t *at(void *base, uint32_t offset) { return (uint32_t *)((char *)base + offset); }

static int builtin_queue_mmap(int fd, struct uring_params *p, void *state) {
    struct ring *r = state;
    memset(r, 0, sizeof *r);
    int result = map_all(r, fd, p);
    if (result < 0) {
        unmap_all(r);
        return result;
    }
    r->fd = fd;
    r->setup_flags = p->flags;
    r->sq_head = at(r->sq_map, p->sq_off.head);
    r->sq_tail = at(r->sq_map, p->sq_off.tail);
    r->sq_flags = at(r->sq_map, p->sq_off.flags);
    r->sq_entries = p->sq_entries;
    r->cq_head = at(r->cq_map, p->cq_off.head);
    r->cq_tail = at(r->cq_map, p->cq_off.tail);
    r->cq_entries = p->cq_entries;
    r->cqes = (struct uring_cqe *)(void *)at(r->cq_map, p->cq_off.cqes);
    uint32_t *array = at(r->sq_map, p->sq_off.array);
    for (uint32_t i = 0; i < r->sq_entries; i++) array[i] = i;
    return 0;
}

static void builtin_queue_exit(void *state) {
    struct ring *r = state;
    unmap_all(r);
    (void)close(r->fd);
}

/* A child must not have the mappings: they alone would keep the ring alive after its parent. */
static int builtin_ring_dontfork(void *state) {
    struct ring *r = state;
    if (madvise(r->sqes, r->sqes_bytes, MADV_DONTFORK) != 0) return -errno;
    if (madvise(r->sq_map, r->sq_bytes, MADV_DONTFORK) != 0) return -errno;
    if (r->cq_map == r->sq_map) return 0;
    return madvise(r->cq_map, r->cq_bytes, MADV_DONTFORK) == 0 ? 0 : -errno;
}

/* ---- submission ------------------------------------------------------------------------------ */

static struct uring_sqe *builtin_get_sqe(void *state) {
    struct ring *r = state;
    uint32_t head = __atomic_load_n(r->sq_head, __ATOMIC_ACQUIRE);
    if (r->sqe_tail - head >= r->sq_entries) return NULL;
    return &r->sqes[r->sqe_tail++ & (r->sq_entries - 1)];
}

/* The number submitted; with SQPOLL, of those that the kernel's thread has not taken yet. */
static int builtin_submit(void *state) {
    struct ring *r = state;
    int is_polled = (r->setup_flags & URING_SETUP_SQPOLL) != 0;
    if (is_polled) {
        (void)__atomic_exchange_n(r->sq_tail, r->sqe_tail, __ATOMIC_SEQ_CST);
    } else {
        __atomic_store_n(r->sq_tail, r->sqe_tail, __ATOMIC_RELEASE);
    }
    unsigned count = r->sqe_tail - __atomic_load_n(r->sq_head, __ATOMIC_ACQUIRE);
    assert(count <= r->sq_entries);
    if (count == 0) return 0;
    if (!is_polled) return enter(r, count, 0, 0, NULL, 0);
    uint32_t flags = __atomic_load_n(r->sq_flags, __ATOMIC_SEQ_CST);
    if ((flags & URING_SQ_NEED_WAKEUP) == 0) return (int)count;
    return enter(r, count, 0, URING_ENTER_SQ_WAKEUP, NULL, 0);
}

/* ---- completion ------------------------------------------------------------------------------ */

static unsigned available(const struct ring *r) {
    return __atomic_load_n(r->cq_tail, __ATOMIC_ACQUIRE) -
           __atomic_load_n(r->cq_head, __ATOMIC_RELAXED);
}

/* Completions that did not fit are moved to the CQ by an enter, and by nothing else. */
static int must_fetch(const struct ring *r) {
    uint32_t flags = __atomic_load_n(r->sq_flags, __ATOMIC_RELAXED);
    return (flags & (URING_SQ_CQ_OVERFLOW | URING_SQ_TASKRUN)) != 0;
}

static struct uring_cqe *cqe_at(const struct ring *r, unsigned i) {
    uint32_t head = __atomic_load_n(r->cq_head, __ATOMIC_RELAXED);
    return &r->cqes[(head + i) & (r->cq_entries - 1)];
}

static int builtin_wait_cqes(void *state, struct uring_cqe **cqe, unsigned count,
                             struct uring_timespec *timeout, sigset_t *mask) {
    const struct ring *r = state;
    struct uring_getevents_arg argument = {
        .sigmask = (uintptr_t)mask,
        .sigmask_sz = SIGMASK_BYTES,
        .ts = (uintptr_t)timeout,
    };
    unsigned flags = URING_ENTER_GETEVENTS | URING_ENTER_EXT_ARG;
    *cqe = NULL;
    /* -ETIME and -EINTR count for less than what is there. */
    int result = 0;
    while (available(r) < count) {
        if (result < 0) return result;
        result = enter(r, 0, count, flags, &argument, sizeof argument);
    }
    if (count > 0) *cqe = cqe_at(r, 0);
    return 0;
}

static unsigned builtin_peek_batch_cqe(void *state, struct uring_cqe **cqes, unsigned count) {
    const struct ring *r = state;
    unsigned ready = available(r);
    if (ready == 0 && must_fetch(r)) {
        (void)enter(r, 0, 0, URING_ENTER_GETEVENTS, NULL, 0);
        ready = available(r);
    }
    if (ready > count) ready = count;
    for (unsigned i = 0; i < ready; i++) cqes[i] = cqe_at(r, i);
    return ready;
}

static void builtin_cq_advance(void *state, unsigned count) {
    const struct ring *r = state;
    assert(count <= available(r));
    uint32_t head = __atomic_load_n(r->cq_head, __ATOMIC_RELAXED);
    __atomic_store_n(r->cq_head, head + count, __ATOMIC_RELEASE);
}

/* ---- registration ---------------------------------------------------------------------------- */

static int builtin_register_buffers(void *state, const struct iovec *buffers, unsigned count) {
    return do_register(state, URING_REGISTER_BUFFERS, buffers, count);
}

static int builtin_register_files(void *state, const int *files, unsigned count) {
    return do_register(state, URING_REGISTER_FILES, files, count);
}

static int builtin_register_files_update(void *state, unsigned place, const int *files,
                                         unsigned count) {
    struct uring_files_update update = {.offset = place, .fds = (uintptr_t)files};
    return do_register(state, URING_REGISTER_FILES_UPDATE, &update, count);
}

static int builtin_register_probe(void *state, struct uring_probe *probe, unsigned count) {
    return do_register(state, URING_REGISTER_PROBE, probe, count);
}

static int builtin_register_eventfd(void *state, int fd) {
    return do_register(state, URING_REGISTER_EVENTFD, &fd, 1);
}

static int builtin_unregister_eventfd(void *state) {
    return do_register(state, URING_UNREGISTER_EVENTFD, NULL, 0);
}

static const struct wal_ring_table table = {
    .name = "builtin",
    .setup = builtin_setup,
    .queue_mmap = builtin_queue_mmap,
    .queue_exit = builtin_queue_exit,
    .ring_dontfork = builtin_ring_dontfork,
    .get_sqe = builtin_get_sqe,
    .submit = builtin_submit,
    .wait_cqes = builtin_wait_cqes,
    .peek_batch_cqe = builtin_peek_batch_cqe,
    .cq_advance = builtin_cq_advance,
    .register_buffers = builtin_register_buffers,
    .register_files = builtin_register_files,
    .register_files_update = builtin_register_files_update,
    .register_probe = builtin_register_probe,
    .register_eventfd = builtin_register_eventfd,
    .unregister_eventfd = builtin_unregister_eventfd,
};

const struct wal_ring_table *wal_ring_builtin(void) { return &table; }

#else

const struct wal_ring_table *wal_ring_builtin(void) { return NULL; }

#endif
