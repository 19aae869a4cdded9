/*
 * C liburing as the ring's provider: its functions, taken from a shared object by name.
 *
 * The object is the extension module of the PyPI package liburing, which has all of C liburing in
 * it and exports it. It is opened here as a plain shared object, never imported: its Python calls
 * hold the GIL while they wait. Its references to the interpreter are satisfied by the process that
 * we are in; in a process without Python it cannot be loaded, and that is reported like any other
 * failure. Once loaded it stays: rings of the process may be using it.
 */
#include <assert.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "error.h"
#include "ring.h"
#include "ring_liburing.h"

#ifdef __linux__

#include <dlfcn.h>

static pthread_mutex_t load_mutex = PTHREAD_MUTEX_INITIALIZER;
static struct wal_ring_table table; /* written before is_loaded is set, never after */
static char version[32];
static int is_loaded;

/* Every function of the table, and where its address goes. */
static const struct {
    const char *symbol;
    size_t place;
} symbols[] = {
    {"io_uring_setup", offsetof(struct wal_ring_table, setup)},
    {"io_uring_queue_mmap", offsetof(struct wal_ring_table, queue_mmap)},
    {"io_uring_queue_exit", offsetof(struct wal_ring_table, queue_exit)},
    {"io_uring_ring_dontfork", offsetof(struct wal_ring_table, ring_dontfork)},
    {"io_uring_get_sqe", offsetof(struct wal_ring_table, get_sqe)},
    {"io_uring_submit", offsetof(struct wal_ring_table, submit)},
    {"io_uring_wait_cqes", offsetof(struct wal_ring_table, wait_cqes)},
    {"io_uring_peek_batch_cqe", offsetof(struct wal_ring_table, peek_batch_cqe)},
    {"io_uring_cq_advance", offsetof(struct wal_ring_table, cq_advance)},
    {"io_uring_register_buffers", offsetof(struct wal_ring_table, register_buffers)},
    {"io_uring_register_files", offsetof(struct wal_ring_table, register_files)},
    {"io_uring_register_files_update", offsetof(struct wal_ring_table, register_files_update)},
    {"io_uring_register_probe", offsetof(struct wal_ring_table, register_probe)},
    {"io_uring_register_eventfd", offsetof(struct wal_ring_table, register_eventfd)},
    {"io_uring_unregister_eventfd", offsetof(struct wal_ring_table, unregister_eventfd)},
};

enum { SYMBOLS = sizeof symbols / sizeof symbols[0], LIBURING_MAJOR = 2 };

_Static_assert(sizeof(struct wal_ring_table) == (SYMBOLS + 1) * sizeof(void *),
               "a function of the table is not looked up");

static int missing(wal_error *error, const char *symbol) {
    return wal_fail(error, WAL_E_NO_IO_URING, WAL_NOWHERE,
                    "this liburing has no %s; pip install --upgrade 'walengine[liburing]'", symbol);
}

/* The version is asked for first: another major one has other structs. */
static int take_version(void *object, wal_error *error) {
    int (*ask[2])(void) = {NULL, NULL};
    static const char *const names[2] = {"io_uring_major_version", "io_uring_minor_version"};
    for (int i = 0; i < 2; i++) {
        void *address = dlsym(object, names[i]);
        if (address == NULL) return missing(error, names[i]);
        memcpy(&ask[i], &address, sizeof address); /* ISO C has no cast from data to function */
    }
    int major = ask[0](), minor = ask[1]();
    if (major != LIBURING_MAJOR) {
        return wal_fail(error, WAL_E_NO_IO_URING, WAL_NOWHERE,
                        "this is liburing %d.%d, and version 2 is needed; pip install --upgrade "
                        "'walengine[liburing]'",
                        major, minor);
    }
    (void)snprintf(version, sizeof version, "%d.%d", major, minor);
    return 0;
}

static int take_functions(void *object, wal_error *error) {
    struct wal_ring_table found = {.name = "liburing"};
    for (int i = 0; i < SYMBOLS; i++) {
        void *address = dlsym(object, symbols[i].symbol);
        if (address == NULL) return missing(error, symbols[i].symbol);
        memcpy((char *)&found + symbols[i].place, &address, sizeof address);
    }
    table = found;
    return 0;
}

static int load(const char *path, wal_error *error) {
    void *object = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (object == NULL) object = dlopen(path, RTLD_LAZY | RTLD_LOCAL);
    if (object == NULL) {
        const char *why = dlerror();
        return wal_fail(error, WAL_E_NO_IO_URING, WAL_NOWHERE, "cannot load liburing: %s",
                        why != NULL ? why : "unknown reason");
    }
    int result = take_version(object, error);
    if (result == 0) result = take_functions(object, error);
    if (result < 0) (void)dlclose(object);
    return result;
}

/* A child must not find another thread at it: it may open a log, and load for itself. */
static void hold_load(void) { pthread_mutex_lock(&load_mutex); }

static void let_load(void) { pthread_mutex_unlock(&load_mutex); }

static void register_fork_handlers(void) { (void)pthread_atfork(hold_load, let_load, let_load); }

int wal_ring_load(const char *path, wal_error *error) {
    /* dlopen takes NULL and "" for the program itself, and a bare name for a search. */
    if (path == NULL || strchr(path, '/') == NULL) {
        return wal_fail(error, WAL_E_NO_IO_URING, WAL_NOWHERE,
                        "liburing's shared object has to be named by its whole path");
    }
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    (void)pthread_once(&once, register_fork_handlers);
    pthread_mutex_lock(&load_mutex);
    int result = is_loaded ? 0 : load(path, error);
    if (result == 0) __atomic_store_n(&is_loaded, 1, __ATOMIC_RELEASE);
    pthread_mutex_unlock(&load_mutex);
    return result;
}

const struct wal_ring_table *wal_ring_liburing(const char **which) {
    if (!__atomic_load_n(&is_loaded, __ATOMIC_ACQUIRE)) return NULL;
    if (which != NULL) *which = version;
    return &table;
}

/* ---- what is left to do after io_uring_queue_mmap -------------------------------------------- */

/* struct io_uring, which is part of liburing 2's ABI (applications have it on their stacks). */
struct liburing_state {
    uint32_t *sq_head;
    uint32_t *sq_tail;
    uint32_t *unused_sq_mask;
    uint32_t *unused_sq_entries;
    uint32_t *sq_flags;
    uint32_t *sq_dropped;
    uint32_t *sq_array;
    struct uring_sqe *sqes;
    uint32_t sqe_head;
    uint32_t sqe_tail;
    size_t sq_bytes;
    char *sq_map;
    uint32_t sq_mask;
    uint32_t sq_entries;
    uint32_t sq_pad[2];
    uint32_t *cq_head;
    uint32_t *cq_tail;
    uint32_t *unused_cq_mask;
    uint32_t *unused_cq_entries;
    uint32_t *cq_flags;
    uint32_t *cq_overflow;
    struct uring_cqe *cqes;
    size_t cq_bytes;
    char *cq_map;
    uint32_t cq_mask;
    uint32_t cq_entries;
    uint32_t cq_pad[2];
    uint32_t flags;
    int32_t ring_fd;
    uint32_t features;
    int32_t enter_ring_fd;
    uint8_t int_flags;
    uint8_t pad[3];
    uint32_t pad2;
};

_Static_assert(sizeof(void *) != 8 || sizeof(struct liburing_state) == 216, "struct io_uring");
_Static_assert(sizeof(void *) != 8 || offsetof(struct liburing_state, cq_head) == 104, "its cq");
_Static_assert(sizeof(struct liburing_state) <= WAL_RING_STATE_BYTES, "the block is too small");

/*
 * io_uring_queue_mmap maps, and since liburing 2.4 nothing more: the descriptor, the features and
 * the SQ's array are filled in by io_uring_queue_init_params, which is of no use to us because it
 * also makes the descriptor. So we do the same here; and refuse a layout that is not the one above,
 * which shows in its pointers.
 */
int wal_ring_liburing_finish(void *state, int fd, const struct uring_params *params) {
    struct liburing_state *s = state;
    if (s->sq_map == NULL || s->cq_map == NULL || s->sqes == NULL) return -1;
    if ((char *)s->sq_head != s->sq_map + params->sq_off.head) return -1;
    if ((char *)s->sq_flags != s->sq_map + params->sq_off.flags) return -1;
    if ((char *)s->sq_array != s->sq_map + params->sq_off.array) return -1;
    if ((char *)s->cq_tail != s->cq_map + params->cq_off.tail) return -1;
    if ((char *)s->cqes != s->cq_map + params->cq_off.cqes) return -1;
    if (*s->unused_sq_entries != params->sq_entries) return -1;
    for (uint32_t i = 0; i < params->sq_entries; i++) s->sq_array[i] = i;
    s->flags = params->flags;
    s->features = params->features;
    s->ring_fd = fd;
    s->enter_ring_fd = fd;
    return 0;
}

#else

int wal_ring_load(const char *path, wal_error *error) {
    (void)path;
    return wal_fail(error, WAL_E_NO_IO_URING, WAL_NOWHERE, "io_uring exists on Linux only");
}

const struct wal_ring_table *wal_ring_liburing(const char **which) {
    (void)which;
    return NULL;
}

int wal_ring_liburing_finish(void *state, int fd, const struct uring_params *params) {
    (void)state;
    (void)fd;
    (void)params;
    return -1;
}

#endif
