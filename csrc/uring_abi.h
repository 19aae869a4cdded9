/*
 * The kernel's io_uring interface, as far as this library uses it: system call numbers, what goes
 * through the queues, and the constants. Written down here, and not taken from the kernel's
 * headers, so that the core compiles alike with old headers, with musl, and where there is no Linux
 * at all. None of it can change: it is the kernel's ABI, and the assertions hold the layout to it.
 */
#ifndef WALENGINE_URING_ABI_H
#define WALENGINE_URING_ABI_H

#include <stddef.h>
#include <stdint.h>

/* The same numbers on every architecture but alpha. */
enum { URING_SYS_SETUP = 425, URING_SYS_ENTER = 426, URING_SYS_REGISTER = 427 };

/* ---- setup ----------------------------------------------------------------------------------- */

/* uring_params.flags */
enum {
    URING_SETUP_SQPOLL = 1U << 1, /* a kernel thread takes the entries */
    URING_SETUP_CQSIZE = 1U << 3, /* params.cq_entries counts */
};

/* uring_params.features */
enum {
    URING_FEAT_SINGLE_MMAP = 1U << 0,   /* both queues are in one mapping */
    URING_FEAT_NODROP = 1U << 1,        /* completions that do not fit are kept */
    URING_FEAT_SUBMIT_STABLE = 1U << 2, /* an entry may be reused once it is submitted */
    URING_FEAT_EXT_ARG = 1U << 8,       /* waiting takes a time limit (Linux 5.11) */
};

/* Where the queues begin, as offsets for mmap. */
#define URING_OFF_SQ_RING UINT64_C(0)
#define URING_OFF_CQ_RING UINT64_C(0x8000000)
#define URING_OFF_SQES UINT64_C(0x10000000)

struct uring_sq_offsets {
    uint32_t head;
    uint32_t tail;
    uint32_t ring_mask;
    uint32_t ring_entries;
    uint32_t flags;
    uint32_t dropped;
    uint32_t array;
    uint32_t resv1;
    uint64_t user_addr;
};

struct uring_cq_offsets {
    uint32_t head;
    uint32_t tail;
    uint32_t ring_mask;
    uint32_t ring_entries;
    uint32_t overflow;
    uint32_t cqes;
    uint32_t flags;
    uint32_t resv1;
    uint64_t user_addr;
};

struct uring_params {
    uint32_t sq_entries;
    uint32_t cq_entries;
    uint32_t flags;
    uint32_t sq_thread_cpu;
    uint32_t sq_thread_idle; /* milliseconds */
    uint32_t features;
    uint32_t wq_fd;
    uint32_t resv[3];
    struct uring_sq_offsets sq_off;
    struct uring_cq_offsets cq_off;
};

_Static_assert(sizeof(struct uring_sq_offsets) == 40, "io_sqring_offsets");
_Static_assert(sizeof(struct uring_cq_offsets) == 40, "io_cqring_offsets");
_Static_assert(sizeof(struct uring_params) == 120, "io_uring_params");
_Static_assert(offsetof(struct uring_params, features) == 20, "io_uring_params");
_Static_assert(offsetof(struct uring_params, sq_off) == 40, "io_uring_params");
_Static_assert(offsetof(struct uring_params, cq_off) == 80, "io_uring_params");

/* ---- submission ------------------------------------------------------------------------------ */

enum {
    URING_OP_NOP = 0,
    URING_OP_FSYNC = 3,
    URING_OP_WRITE_FIXED = 5, /* from a registered buffer */
    URING_OP_WRITE = 23,      /* Linux 5.6 */
};

/* uring_sqe.flags */
enum {
    URING_SQE_FIXED_FILE = 1U << 0, /* fd is a place in the registered table */
    URING_SQE_LINK = 1U << 2, /* the next entry starts after this one, and only if it is whole */
};

/* uring_sqe.op_flags of a write and of an fsync */
enum { URING_RWF_DSYNC = 1U << 1, URING_FSYNC_DATASYNC = 1U << 0 };

struct uring_sqe {
    uint8_t opcode;
    uint8_t flags;
    uint16_t ioprio;
    int32_t fd;
    uint64_t off;
    uint64_t addr;
    uint32_t len;
    uint32_t op_flags;
    uint64_t user_data;
    uint16_t buf_index;
    uint16_t personality;
    uint32_t file_index;
    uint64_t addr3;
    uint64_t pad;
};

_Static_assert(sizeof(struct uring_sqe) == 64, "io_uring_sqe");
_Static_assert(offsetof(struct uring_sqe, fd) == 4, "io_uring_sqe");
_Static_assert(offsetof(struct uring_sqe, addr) == 16, "io_uring_sqe");
_Static_assert(offsetof(struct uring_sqe, op_flags) == 28, "io_uring_sqe");
_Static_assert(offsetof(struct uring_sqe, user_data) == 32, "io_uring_sqe");
_Static_assert(offsetof(struct uring_sqe, buf_index) == 40, "io_uring_sqe");

/* The SQ ring's flags word. */
enum {
    URING_SQ_NEED_WAKEUP = 1U << 0, /* the kernel thread sleeps: enter with SQ_WAKEUP */
    URING_SQ_CQ_OVERFLOW = 1U << 1, /* completions wait in the kernel: enter with GETEVENTS */
    URING_SQ_TASKRUN = 1U << 2,     /* so does work of this task */
};

/* ---- completion ------------------------------------------------------------------------------ */

struct uring_cqe {
    uint64_t user_data;
    int32_t res; /* as the system call would have returned, or -errno */
    uint32_t flags;
};

_Static_assert(sizeof(struct uring_cqe) == 16, "io_uring_cqe");

/* Flags of enter. */
enum {
    URING_ENTER_GETEVENTS = 1U << 0,
    URING_ENTER_SQ_WAKEUP = 1U << 1,
    URING_ENTER_EXT_ARG = 1U << 3,
};

struct uring_timespec {
    int64_t sec;
    long long nsec; /* liburing's own struct has this type */
};

struct uring_getevents_arg {
    uint64_t sigmask;
    uint32_t sigmask_sz;
    uint32_t min_wait_usec;
    uint64_t ts;
};

_Static_assert(sizeof(struct uring_timespec) == 16, "__kernel_timespec");
_Static_assert(sizeof(struct uring_getevents_arg) == 24, "io_uring_getevents_arg");

/* ---- registration ---------------------------------------------------------------------------- */

enum {
    URING_REGISTER_BUFFERS = 0,
    URING_REGISTER_FILES = 2,
    URING_REGISTER_EVENTFD = 4,
    URING_UNREGISTER_EVENTFD = 5,
    URING_REGISTER_FILES_UPDATE = 6,
    URING_REGISTER_PROBE = 8,
};

struct uring_files_update {
    uint32_t offset;
    uint32_t resv;
    uint64_t fds; /* address of the descriptors; -1 empties a place */
};

enum { URING_OP_SUPPORTED = 1U << 0, URING_PROBE_OPS = 64 };

struct uring_probe_op {
    uint8_t op;
    uint8_t resv;
    uint16_t flags;
    uint32_t resv2;
};

/* The kernel's ends in a flexible array; this one has room for every opcode asked about. */
struct uring_probe {
    uint8_t last_op;
    uint8_t ops_len;
    uint16_t resv;
    uint32_t resv2[3];
    struct uring_probe_op ops[URING_PROBE_OPS];
};

_Static_assert(sizeof(struct uring_files_update) == 16, "io_uring_files_update");
_Static_assert(sizeof(struct uring_probe_op) == 8, "io_uring_probe_op");
_Static_assert(offsetof(struct uring_probe, ops) == 16, "io_uring_probe");

#endif
