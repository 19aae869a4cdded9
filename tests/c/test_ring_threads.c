/*
 * The io_uring backend among threads and processes: several threads on one ring, threads that exit
 * with requests under way, forks, a kernel that refuses, and what is left behind.
 */
#include <dirent.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "ring_bench.h"

enum { BELL_PATIENCE_MS = 5000 };

/* ---- threads --------------------------------------------------------------------------------- */

struct crowd {
    struct bench *bench;
    atomic_int rounds;
    atomic_int results; /* syncs that failed */
};

static void *sync_often(void *argument) {
    struct crowd *crowd = argument;
    while (atomic_fetch_sub(&crowd->rounds, 1) > 0) {
        if (wal_io_sync(crowd->bench->io, crowd->bench->file) != 0) {
            atomic_fetch_add(&crowd->results, 1);
        }
    }
    return NULL;
}

static void threads_share_the_ring(void) {
    struct bench bench = open_bench();
    uint64_t rounds = check_scaled(3000);
    struct crowd crowd = {.bench = &bench};
    atomic_store(&crowd.rounds, (int)rounds);
    pthread_t threads[2];
    for (int i = 0; i < 2; i++) CHECK_EQ(pthread_create(&threads[i], NULL, sync_often, &crowd), 0);
    uint64_t reaped = 0;
    for (uint64_t i = 0; i < rounds; i++) {
        submit(&bench, i % 2 ? WAL_IO_SYNC : WAL_IO_WRITE_SYNC, i % 64 * PAGE, memory, 100);
        struct wal_io_completion done[4];
        int got;
        do {
            got = wal_io_reap(bench.io, done, 4, -1, i % 3 ? WAL_IO_MAY_BLOCK : 0);
        } while (got == -EINTR);
        CHECK(got > 0);
        for (int k = 0; k < got; k++) CHECK_EQ(done[k].result, 0);
        reaped += (uint64_t)got;
    }
    CHECK_EQ(reaped, rounds);
    for (int i = 0; i < 2; i++) CHECK_EQ(pthread_join(threads[i], NULL), 0);
    CHECK_EQ(atomic_load(&crowd.results), 0);
    CHECK_EQ(ring_op(&bench, WAL_RING_OP_FSYNC), 2 * rounds);
    COUNT("syncs_by_threads", 2 * rounds);
    close_bench(&bench);
}

/* Waits for one sync a round, and collects for whoever only looks. */
static void *sync_when_told(void *argument) {
    struct crowd *crowd = argument;
    for (int round = 1; atomic_load(&crowd->rounds) >= 0;) {
        if (atomic_load(&crowd->rounds) < round) {
            (void)sched_yield();
            continue;
        }
        CHECK_EQ(wal_io_sync(crowd->bench->io, crowd->bench->file), 0);
        atomic_store(&crowd->results, round++);
    }
    return NULL;
}

/*
 * A loop that only looks: another thread, who waits, collects its completion under its nose, and
 * the kernel rings for neither of them again.
 */
static void no_bell_is_lost_to_those_who_wait(void) {
    struct bench bench = open_bench();
    int rounds = (int)check_scaled(300), bell = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    struct crowd crowd = {.bench = &bench};
    CHECK_EQ(wal_io_notify(bench.io, bell), 0);
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, NULL, sync_when_told, &crowd), 0);
    for (int round = 1; round <= rounds; round++) {
        struct wal_io_completion done;
        uint64_t rung;
        atomic_store(&crowd.rounds, round);
        submit(&bench, WAL_IO_SYNC, 0, NULL, 0);
        while (wal_io_reap(bench.io, &done, 1, 0, 0) == 0) {
            struct pollfd watched = {.fd = bell, .events = POLLIN};
            CHECK_EQ(poll(&watched, 1, BELL_PATIENCE_MS), 1);
            CHECK_EQ(read(bell, &rung, sizeof rung), sizeof rung);
        }
        CHECK_EQ(done.result, 0);
        while (atomic_load(&crowd.results) < round) (void)sched_yield();
    }
    atomic_store(&crowd.rounds, -1);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK_EQ(wal_io_notify(bench.io, -1), 0);
    CHECK_EQ(close(bell), 0);
    close_bench(&bench);
}

/* The kernel's workers belong to the submitting thread: what they have not begun is cancelled. */
static void *submit_and_exit(void *argument) {
    struct bench *bench = argument;
    for (unsigned i = 0; i < 8; i++) {
        submit(bench, WAL_IO_WRITE_SYNC, i * BUFFER_BYTES / 2, memory + i * BUFFER_BYTES / 2,
               BUFFER_BYTES / 2);
    }
    return NULL;
}

static void requests_outlive_their_thread(void) {
    struct bench bench = open_bench();
    int rounds = (int)check_scaled(100);
    uint64_t asked = 0;
    for (int round = 0; round < rounds; round++) {
        fill(memory, BUFFERS * BUFFER_BYTES, (unsigned)round);
        pthread_t thread;
        CHECK_EQ(pthread_create(&thread, NULL, submit_and_exit, &bench), 0);
        CHECK_EQ(pthread_join(thread, NULL), 0);
        asked += 8;
        for (int left = 8; left > 0; left--) {
            struct wal_io_completion done;
            CHECK_EQ(wal_io_reap(bench.io, &done, 1, -1, WAL_IO_MAY_BLOCK), 1);
            CHECK_EQ(done.result, 0);
        }
        CHECK(is_written(0, memory, BUFFERS * BUFFER_BYTES));
    }
    COUNT("syncs_repeated_for_exited_threads", ring_op(&bench, WAL_RING_OP_FSYNC) - asked);
    close_bench(&bench);
}

static void *sync_once(void *argument) {
    struct bench *bench = argument;
    usleep(20000); /* the other has the role by then */
    double begin = check_seconds();
    CHECK_EQ(wal_io_sync(bench->io, bench->file), 0);
    CHECK(check_seconds() - begin < 0.2);
    return NULL;
}

/* Whoever waits collects for others, and tells them at once. */
static void a_waiting_thread_serves_others(void) {
    struct bench bench = open_bench();
    struct wal_io_completion done;
    pthread_t thread;
    wal_fault_set(WAL_FAULT_CQE_SYNC, 1, 0, WAL_FAULT_STALL, HOUR_MS);
    submit(&bench, WAL_IO_SYNC, 0, NULL, 0);
    CHECK_EQ(pthread_create(&thread, NULL, sync_once, &bench), 0);
    CHECK_EQ(wal_io_reap(bench.io, &done, 1, 400000000, WAL_IO_MAY_BLOCK), 0);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    wal_fault_clear();
    CHECK_EQ(finish(&bench), 0);
    close_bench(&bench);
}

/* Who leaves the waiting role hands it on: the sleeper finds out by itself that it is done. */
static void a_sleeping_thread_takes_over(void) {
    struct bench bench = open_bench();
    struct wal_io_completion done;
    pthread_t thread;
    wal_fault_set(WAL_FAULT_CQE_SYNC, 1, 1, WAL_FAULT_STALL, HOUR_MS);
    submit(&bench, WAL_IO_SYNC, 0, NULL, 0);
    CHECK_EQ(pthread_create(&thread, NULL, sync_once, &bench), 0);
    CHECK_EQ(wal_io_reap(bench.io, &done, 1, 60000000, WAL_IO_MAY_BLOCK), 0);
    wal_fault_clear();
    CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK_EQ(finish(&bench), 0);
    close_bench(&bench);
}

/* What the kernel reads after destroy would be in the file. */
static void destroy_waits_for_the_kernel(void) {
    enum { PAGES = 200 };
    char path[300], page[PAGE];
    (void)snprintf(path, sizeof path, "%s/data", directory);
    for (int round = 0; round < 20; round++) {
        struct bench bench = open_bench();
        if (round % 2) wal_fault_set(WAL_FAULT_CQE_SYNC, 2, 0, WAL_FAULT_STALL, HOUR_MS);
        char *own = malloc(PAGES * PAGE);
        CHECK(own != NULL);
        memset(own, 1, PAGES * PAGE);
        for (unsigned i = 0; i < PAGES; i++) {
            submit(&bench, WAL_IO_WRITE_SYNC, i * PAGE, own + i * PAGE, PAGE);
        }
        if (round % 4 < 2) wal_io_close(bench.io, bench.file);
        wal_io_destroy(bench.io);
        memset(own, 2, PAGES * PAGE);
        wal_fault_clear();
        CHECK_EQ(wal_open_files(), 0);
        usleep(2000);
        int file = open(path, O_RDONLY);
        CHECK(file >= 0);
        while (read(file, page, PAGE) == PAGE) CHECK(page[0] != 2 && page[PAGE - 1] != 2);
        close(file);
        free(own);
    }
}

/* A file closed under its requests keeps its place until they are done, and no longer. */
static void a_closed_file_is_not_mistaken(void) {
    struct bench bench = open_bench();
    fill(memory, PAGE, 1);
    for (int round = 0; round < 70; round++) {
        wal_fault_set(WAL_FAULT_CQE_SYNC, 1, 0, WAL_FAULT_STALL, HOUR_MS);
        submit(&bench, WAL_IO_WRITE_SYNC, 0, memory, PAGE);
        wal_io_close(bench.io, bench.file);
        bench.file = wal_io_open(bench.io, "other", WAL_IO_WRITE | WAL_IO_CREATE);
        CHECK(bench.file >= 0);
        wal_fault_clear();
        CHECK_EQ(finish(&bench), 0);
        struct wal_io_stat stat;
        CHECK_EQ(wal_io_stat(bench.io, bench.file, &stat), 0);
        CHECK_EQ(stat.bytes, 0);
        CHECK_EQ(wal_io_sync(bench.io, bench.file), 0);
        CHECK_EQ(wal_io_unlink(bench.io, "other"), 0);
    }
    wal_backend_info info;
    wal_io_uring_info(bench.io, &info);
    CHECK_EQ(info.fallbacks & WAL_FALLBACK_FILES, 0);
    close_bench(&bench);
}

static void files_beyond_the_table_work(void) {
    struct bench bench = open_bench();
    int files[80];
    char name[16];
    for (int i = 0; i < 80; i++) {
        (void)snprintf(name, sizeof name, "f%d", i);
        files[i] = wal_io_open(bench.io, name, WAL_IO_WRITE | WAL_IO_CREATE);
        CHECK(files[i] >= 0);
        CHECK_EQ(wal_io_sync(bench.io, files[i]), 0);
    }
    wal_backend_info info;
    wal_io_uring_info(bench.io, &info);
    CHECK_EQ(info.fallbacks & WAL_FALLBACK_FILES, WAL_FALLBACK_FILES);
    for (int i = 0; i < 80; i++) {
        (void)snprintf(name, sizeof name, "f%d", i);
        wal_io_close(bench.io, files[i]);
        CHECK_EQ(wal_io_unlink(bench.io, name), 0);
    }
    close_bench(&bench);
}

/* ---- processes ------------------------------------------------------------------------------- */

/* Descriptors of this process whose target holds text. */
static int descriptors_of(const char *text) {
    DIR *stream = opendir("/proc/self/fd");
    CHECK(stream != NULL);
    int found = 0;
    for (struct dirent *entry; (entry = readdir(stream)) != NULL;) {
        char target[300] = {0};
        if (readlinkat(dirfd(stream), entry->d_name, target, sizeof target - 1) < 0) continue;
        found += strstr(target, text) != NULL;
    }
    closedir(stream);
    return found;
}

static int maps_hold(const char *text) {
    FILE *maps = fopen("/proc/self/maps", "r");
    CHECK(maps != NULL);
    char line[512];
    int found = 0;
    while (fgets(line, sizeof line, maps) != NULL) found += strstr(line, text) != NULL;
    fclose(maps);
    return found;
}

static void a_child_has_no_ring(void) {
    struct bench bench = open_bench();
    CHECK_EQ(descriptors_of("io_uring"), 1);
    CHECK(maps_hold("io_uring") > 0);
    fill(memory, BUFFERS * BUFFER_BYTES, 1);
    for (unsigned i = 0; i < 40; i++) {
        submit(&bench, WAL_IO_WRITE_SYNC, i * PAGE, memory + i * PAGE, PAGE);
    }
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        int wrong = descriptors_of("io_uring") + maps_hold("io_uring") + descriptors_of(directory);
        wal_io_destroy(bench.io);
        _exit(wrong + (wal_open_files() != 0));
    }
    int status = 0;
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK(WIFEXITED(status));
    CHECK_EQ(WEXITSTATUS(status), 0);
    for (int left = 40; left > 0; left--) {
        struct wal_io_completion done;
        CHECK_EQ(wal_io_reap(bench.io, &done, 1, -1, WAL_IO_MAY_BLOCK), 1);
        CHECK_EQ(done.result, 0);
    }
    CHECK(is_written(0, memory, 40 * PAGE));
    close_bench(&bench);
    CHECK_EQ(descriptors_of("io_uring"), 0);
    CHECK_EQ(maps_hold("io_uring"), 0);
}

/* The kernel's thread carries the number of the task that set the ring up. */
static int has_poll_thread(void) {
    DIR *stream = opendir("/proc/self/task");
    CHECK(stream != NULL);
    int found = 0;
    for (struct dirent *entry; (entry = readdir(stream)) != NULL;) {
        char path[300], name[32] = {0};
        (void)snprintf(path, sizeof path, "/proc/self/task/%s/comm", entry->d_name);
        FILE *comm = fopen(path, "r");
        if (comm == NULL) continue;
        if (fgets(name, sizeof name, comm) != NULL) found += strncmp(name, "iou-sqp-", 8) == 0;
        fclose(comm);
    }
    closedir(stream);
    return found;
}

static void kernel_poll_polls(void) {
    struct bench bench;
    wal_ring_options how = options();
    how.kernel_poll = 1;
    how.sq_poll_idle_ms = 1;
    CHECK_EQ(open_bench_with(&bench, &how, 0), 0);
    wal_backend_info info;
    wal_io_uring_info(bench.io, &info);
    if (info.fallbacks & WAL_FALLBACK_KERNEL_POLL) {
        printf("  skipped: %s\n", info.reason);
        CHECK(getenv("WALENGINE_REQUIRE_ALL") == NULL);
    } else {
        CHECK_EQ(has_poll_thread(), 1);
    }
    fill(memory, BUFFERS * BUFFER_BYTES, 1);
    for (unsigned i = 0; i < 300; i++) {
        if (i % 50 == 0) usleep(3000); /* it sleeps, and has to be woken */
        submit(&bench, WAL_IO_WRITE_SYNC, i % 60 * PAGE, memory + i % 60 * PAGE, PAGE);
        if (i % 3 == 0) CHECK_EQ(wal_io_sync(bench.io, bench.file), 0);
        if (i % 60 == 59) {
            for (int left = 60; left > 0; left--) {
                struct wal_io_completion done;
                CHECK_EQ(wal_io_reap(bench.io, &done, 1, -1, WAL_IO_MAY_BLOCK), 1);
                CHECK_EQ(done.result, 0);
            }
        }
    }
    CHECK(is_written(0, memory, 60 * PAGE));
    close_bench(&bench);
}

/* Every allocation of opening fails once: an error, and nothing is left open. */
static void opening_survives_without_memory(void) {
    for (uint64_t nth = 1; nth < 20; nth++) {
        wal_error error;
        wal_backend_info info;
        wal_ring_options how = options();
        struct wal_io *base = NULL, *io = NULL;
        CHECK_EQ(wal_io_posix_open(directory, WAL_DIR_WRITER, &base, &error), 0);
        (void)wal_alloc_fail(0);
        (void)wal_alloc_fail(nth);
        int result = wal_io_uring_wrap(base, &how, &io, &info, &error);
        uint64_t allocations = wal_alloc_fail(0);
        CHECK_EQ(result, allocations < nth ? 0 : -ENOMEM);
        if (result == 0) {
            (void)wal_alloc_fail(1);
            CHECK_EQ(wal_io_open(io, "none", WAL_IO_WRITE | WAL_IO_CREATE), -ENOMEM);
            (void)wal_alloc_fail(0);
            CHECK_EQ(wal_open_files(), 2); /* the directory and the ring */
        }
        wal_io_destroy(result == 0 ? io : base);
        CHECK_EQ(wal_open_files(), 0);
        CHECK_EQ(descriptors_of("io_uring"), 0);
        CHECK_EQ(maps_hold("io_uring"), 0);
        if (result == 0) return;
    }
    CHECK(0);
}

/* ---- refusals -------------------------------------------------------------------------------- */

/* From here on this process gets os_error for the system call, as from a container's profile. */
static void forbid(unsigned number, unsigned os_error) {
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | os_error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = 4, .filter = code};
    CHECK_EQ(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    CHECK_EQ(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
}

/* In a child: with the call forbidden, the probe fails and its message has the text. */
static void expect_refusal(unsigned number, unsigned os_error, const char *text) {
    fflush(stdout);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        wal_backend_info info;
        wal_error error;
        wal_ring_options how = options();
        forbid(number, os_error);
        CHECK_EQ(wal_ring_probe(&how, &info, &error), WAL_E_NO_IO_URING);
        if (strstr(error.message, text) == NULL) CHECK_STR(error.message, text);
        CHECK_STR(info.reason, error.message);
        CHECK_EQ(error.os_error, os_error);
        CHECK_EQ(descriptors_of("io_uring"), 0);
        how.backend = WAL_BACKEND_AUTO;
        CHECK_EQ(wal_ring_probe(&how, &info, &error), 0);
        CHECK_EQ(info.backend, WAL_BACKEND_PWRITE);
        CHECK_EQ(info.os_error, os_error);
        _exit(0);
    }
    int status = 0;
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK_EQ(status, 0);
}

static void refusals_are_explained(void) {
    expect_refusal(URING_SYS_SETUP, EPERM, "seccomp");
    expect_refusal(URING_SYS_SETUP, ENOSYS, "5.11");
    expect_refusal(URING_SYS_SETUP, ENOMEM, "ulimit -l");
    expect_refusal(URING_SYS_SETUP, EMFILE, "ulimit -n");
    expect_refusal(URING_SYS_ENTER, EPERM, "seccomp");
    expect_refusal(URING_SYS_ENTER, ENOSYS, "no io_uring");
}

/* In a child, which may give its rights away. */
static void in_child(void (*test)(void)) {
    fflush(stdout);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        test();
        exit(0);
    }
    int status = 0;
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK_EQ(status, 0);
}

/* Without io_uring_register and without memfd_create there is still a ring that works. */
static void work_unregistered(void) {
    forbid(URING_SYS_REGISTER, EPERM);
    forbid(SYS_memfd_create, EPERM);
    wal_backend_info info;
    wal_error error;
    wal_ring_options how = options();
    CHECK_EQ(wal_ring_probe(&how, &info, &error), 0);
    CHECK_EQ(info.fallbacks, WAL_FALLBACK_BUFFERS | WAL_FALLBACK_FILES);
    struct bench bench = open_bench();
    fill(memory, PAGE, 1);
    submit(&bench, WAL_IO_WRITE_SYNC, 0, memory, PAGE);
    CHECK_EQ(finish(&bench), 0);
    CHECK(is_written(0, memory, PAGE));
    CHECK_EQ(ring_op(&bench, WAL_RING_OP_WRITE), 1);
    wal_io_uring_info(bench.io, &info);
    CHECK_EQ(info.fallbacks, WAL_FALLBACK_BUFFERS | WAL_FALLBACK_FILES);
    CHECK_EQ(info.registered_buffers, 0);
    CHECK(info.reason[0] != '\0');
    close_bench(&bench);
}

/* Memory that may not be locked is written from without being registered. Root may always lock. */
static void work_without_locked_memory(void) {
    CHECK_EQ(chmod(directory, 0777), 0);
    struct rlimit little = {.rlim_cur = 16 * PAGE, .rlim_max = 16 * PAGE};
    CHECK_EQ(setrlimit(RLIMIT_MEMLOCK, &little), 0);
    if (geteuid() == 0) CHECK_EQ(setreuid(65534, 65534), 0);
    wal_backend_info info;
    wal_error error;
    wal_ring_options how = options();
    CHECK_EQ(wal_ring_probe(&how, &info, &error), 0);
    CHECK_EQ(info.fallbacks & WAL_FALLBACK_BUFFERS, WAL_FALLBACK_BUFFERS);
    CHECK_EQ(info.os_error, ENOMEM);
    CHECK(strstr(info.reason, "ulimit -l") != NULL);
    how.sq_entries = 4096; /* kernels that charge rings to the limit have no room for them */
    CHECK_EQ(wal_ring_probe(&how, &info, &error), 0);
    CHECK(info.sq_entries >= 64);
    CHECK_EQ((info.fallbacks & WAL_FALLBACK_SQ_ENTRIES) != 0, info.sq_entries < 4096);
    CHECK(strstr(info.reason, "ulimit -l") != NULL);
}

static void what_is_refused_in_part_is_done_without(void) {
    in_child(work_unregistered);
    in_child(work_without_locked_memory);
}

/* ---- all of it ------------------------------------------------------------------------------- */

static void run_all(void) {
    RUN(threads_share_the_ring);
    RUN(no_bell_is_lost_to_those_who_wait);
    RUN(a_waiting_thread_serves_others);
    RUN(a_sleeping_thread_takes_over);
    RUN(requests_outlive_their_thread);
    RUN(destroy_waits_for_the_kernel);
    RUN(a_closed_file_is_not_mistaken);
    RUN(files_beyond_the_table_work);
    RUN(a_child_has_no_ring);
    RUN(kernel_poll_polls);
    RUN(opening_survives_without_memory);
    RUN(refusals_are_explained);
    RUN(what_is_refused_in_part_is_done_without);
}

int main(void) { return run_suite(run_all); }
