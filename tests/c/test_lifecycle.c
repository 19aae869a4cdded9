/*
 * The ends of things while something else is still on its way: cuts against trims, close against a
 * busy background, reopen against reopen, large records against small ones. Each test here is a
 * sequence that once went wrong, on a real directory with real threads; the fault injector holds
 * one operation back for as long as the sequence needs.
 */
#include <dirent.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"
#include "hooks.h"
#include "io.h"
#include "log.h"
#include "walengine.h"

static char directory[64];
static wal_error error;
static char zeros[4096];

static void make_directory(void) {
    const char *base = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    (void)snprintf(directory, sizeof directory, "%s/walengine-life-XXXXXX", base);
    CHECK(mkdtemp(directory) != NULL);
}

static void remove_directory(void) {
    char command[128];
    (void)snprintf(command, sizeof command, "rm -rf '%s'", directory);
    CHECK_EQ(system(command), 0);
}

static wal_options options(uint64_t segment_bytes) {
    wal_options options = {
        .segment_bytes = segment_bytes,
        .record_bytes_max = 64 << 20,
        .unsynced_bytes_max = 16 << 20,
        .commit_alignment = 8,
        .flags = WAL_CREATE,
    };
    return options;
}

static void succeeds(int result, const char *what) {
    if (result < 0) fprintf(stderr, "%s: %d %s\n", what, result, error.message);
    CHECK(result >= 0);
}

static wal_writer *open_writer(uint64_t segment_bytes) {
    wal_writer *writer = NULL;
    wal_report report;
    wal_options how = options(segment_bytes);
    succeeds(wal_writer_open(directory, &how, &writer, &report, &error), "open");
    return writer;
}

static void append(wal_writer *writer, uint32_t bytes, int times) {
    uint64_t lsn;
    for (int i = 0; i < times; i++) {
        succeeds(wal_writer_append(writer, zeros, bytes, 0, 0, &lsn, &error), "append");
    }
}

static void commit(wal_writer *writer) {
    succeeds(wal_writer_commit(writer, 0, 0, &error), "commit");
}

static uint64_t last_lsn(void) {
    wal_writer *writer = open_writer(65536);
    wal_position position;
    wal_writer_position(writer, &position);
    succeeds(wal_writer_close(writer, 0, &error), "close");
    wal_writer_free(writer);
    return position.last_lsn;
}

static uint64_t count_files(const char *prefix) {
    uint64_t count = 0;
    DIR *stream = opendir(directory);
    CHECK(stream != NULL);
    for (struct dirent *entry; (entry = readdir(stream)) != NULL;) {
        count += strncmp(entry->d_name, prefix, strlen(prefix)) == 0;
    }
    closedir(stream);
    return count;
}

/* Wait until the injector holds an operation back. */
static void wait_for_hit(void) {
    while (wal_fault_hits() == 0) (void)usleep(1000);
}

/* A cut that hangs in ftruncate must not land on the segment that its file has become. */
static void a_late_cut_hits_no_other_segment(void) {
    make_directory();
    wal_writer *writer = open_writer(65536);
    append(writer, 100, 3);
    commit(writer);
    wal_writer_free(writer); /* as if killed: the next life cuts this segment */
    writer = open_writer(65536);
    wal_fault_set(WAL_FAULT_TRUNCATE, 1, 0, WAL_FAULT_STALL, 60000);
    append(writer, 100, 1);
    commit(writer);
    wait_for_hit();
    succeeds(wal_writer_truncate_before(writer, 4, 0, &error), "trim");
    append(writer, 4000, 40); /* rotates: a spare would be taken by now */
    wal_position position;
    commit(writer);
    wal_writer_position(writer, &position);
    wal_fault_clear();
    wal_writer_free(writer);
    CHECK_EQ_U64(last_lsn(), position.durable_lsn);
    remove_directory();
}

/* Every life that a kill ended owes one cut; none may wait for ever. */
static void cuts_of_earlier_lives_are_done(void) {
    make_directory();
    for (int life = 0; life < 12; life++) {
        wal_writer *writer = open_writer(1 << 20);
        append(writer, 100, 1);
        commit(writer);
        wal_writer_free(writer); /* before the background could cut the last life's */
    }
    wal_writer *writer = open_writer(1 << 20);
    append(writer, 100, 1);
    commit(writer);
    for (int i = 0; i < 200; i++) (void)wal_writer_maintain(writer);
    uint64_t bytes = 0;
    DIR *stream = opendir(directory);
    CHECK(stream != NULL);
    for (struct dirent *entry; (entry = readdir(stream)) != NULL;) {
        struct stat st;
        char path[400];
        (void)snprintf(path, sizeof path, "%s/%s", directory, entry->d_name);
        if (strncmp(entry->d_name, "wal-", 4) == 0 && stat(path, &st) == 0) {
            bytes += (uint64_t)st.st_size;
        }
    }
    closedir(stream);
    CHECK(bytes < 3 * (1 << 20));
    succeeds(wal_writer_close(writer, 0, &error), "close");
    wal_writer_free(writer);
    remove_directory();
}

/* The background hangs in a step for longer than one slice of an interruptible close. */
static void an_interruptible_close_comes_to_its_end(void) {
    make_directory();
    wal_writer *writer = open_writer(65536);
    wal_fault_set(WAL_FAULT_ALLOCATE, 1, 0, WAL_FAULT_STALL, 400);
    append(writer, 4000, 10); /* more than half: the next segment is prepared */
    wait_for_hit();
    int result, tries = 0;
    do {
        result = wal_writer_close(writer, WAL_INTERRUPTIBLE, &error);
        CHECK(++tries < 1000);
    } while (result == WAL_E_AGAIN);
    CHECK_EQ(result, 0);
    CHECK(tries > 1);
    wal_fault_clear();
    wal_writer_free(writer);
    CHECK_EQ_U64(last_lsn(), 10);
    remove_directory();
}

static void *reopen(void *argument) {
    wal_report report;
    CHECK_EQ(wal_writer_reopen(argument, &report, NULL), 0);
    CHECK(report.last_lsn >= 1); /* what was never acknowledged may have survived */
    return NULL;
}

static void *append_and_commit(void *argument) {
    uint64_t lsn;
    int result = wal_writer_append(argument, zeros, 10, 0, 0, &lsn, NULL);
    if (result == 0) result = wal_writer_commit(argument, 0, 0, NULL);
    CHECK(result == 0 || result == WAL_E_POISONED);
    return NULL;
}

/* Callers are inside, one of them at a sync that hangs, and two threads reopen at once. */
static void reopen_with(uint32_t effect, int64_t value) {
    make_directory();
    wal_writer *writer = open_writer(65536);
    append(writer, 10, 1);
    commit(writer);
    wal_fault_set(WAL_FAULT_SYNC, 1, 1, effect, value);
    pthread_t callers[3], healers[2];
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(pthread_create(&callers[i], NULL, append_and_commit, writer), 0);
    }
    wait_for_hit();
    if (effect == WAL_FAULT_FAIL) wal_fault_clear();
    for (int i = 0; i < 2; i++) {
        CHECK_EQ(pthread_create(&healers[i], NULL, reopen, writer), 0);
    }
    (void)usleep(20000);
    wal_fault_clear();
    for (int i = 0; i < 3; i++) CHECK_EQ(pthread_join(callers[i], NULL), 0);
    for (int i = 0; i < 2; i++) CHECK_EQ(pthread_join(healers[i], NULL), 0);
    append(writer, 10, 1);
    commit(writer);
    succeeds(wal_writer_close(writer, 0, &error), "close");
    wal_writer_free(writer);
    remove_directory();
}

static void two_threads_reopen_a_poisoned_writer(void) { reopen_with(WAL_FAULT_FAIL, EIO); }

static void two_threads_reopen_while_a_sync_hangs(void) { reopen_with(WAL_FAULT_STALL, 60000); }

/* A preparation that fails again and again takes no space. */
static void failing_preparations_leave_nothing(void) {
    make_directory();
    wal_writer *writer = open_writer(65536);
    append(writer, 100, 1);
    commit(writer);
    wal_fault_set(WAL_FAULT_SYNC_DIR, 1, 1, WAL_FAULT_FAIL, EIO);
    append(writer, 4000, 10);
    while (wal_fault_hits() < 3) (void)usleep(10000);
    wal_fault_clear();
    CHECK(count_files("free-") + count_files("wal-") <= 3);
    append(writer, 4000, 30);
    commit(writer);
    succeeds(wal_writer_close(writer, 0, &error), "close");
    wal_writer_free(writer);
    CHECK_EQ_U64(last_lsn(), 41);
    remove_directory();
}

/* A CRC that does not match is refused whole; a large record between small ones is read. */
static void records_of_one_mebibyte_and_more(void) {
    static char large[1200000];
    uint64_t lsn;
    make_directory();
    wal_writer *writer = open_writer(8 << 20);
    memset(large, 7, sizeof large);
    uint32_t right = wal_crc32c(0, large, sizeof large);
    CHECK_EQ(wal_writer_append(writer, large, sizeof large, right ^ 1, WAL_RECORD_CRC, &lsn, NULL),
             WAL_E_INVALID);
    append(writer, 10, 1);
    succeeds(wal_writer_append(writer, large, sizeof large, 0, 0, &lsn, &error), "append");
    succeeds(wal_writer_append(writer, large, sizeof large, right, WAL_RECORD_CRC, &lsn, &error),
             "append");
    append(writer, 10, 1);
    succeeds(wal_writer_close(writer, 0, &error), "close");
    wal_writer_free(writer);

    wal_reader *reader;
    wal_report report;
    wal_cursor *cursor;
    wal_block block;
    uint64_t records = 0;
    succeeds(wal_reader_open(directory, 0, &reader, &report, &error), "read");
    succeeds(wal_cursor_open(reader, 0, 0, &cursor, &error), "cursor");
    while (wal_cursor_next(cursor, &block, &error) > 0) {
        for (uint64_t i = 0; i < block.count; i++, records++) {
            const char *record = block.data + block.starts[i];
            uint64_t bytes = block.lengths[i];
            CHECK_EQ_U64(bytes, records == 1 || records == 2 ? sizeof large : 10);
            CHECK(memcmp(record, bytes == 10 ? zeros : large, bytes) == 0);
        }
    }
    CHECK_EQ_U64(records, 4);
    wal_cursor_close(cursor);
    wal_reader_close(reader);
    remove_directory();
}

/* The log is gone, and reopen must not make a new one in its place. */
static void reopen_makes_no_fresh_log(void) {
    make_directory();
    wal_writer *writer = open_writer(65536);
    append(writer, 10, 1);
    commit(writer);
    char command[200];
    (void)snprintf(command, sizeof command, "rm '%s'/META '%s'/wal-*", directory, directory);
    CHECK_EQ(system(command), 0);
    CHECK_EQ(wal_writer_reopen(writer, NULL, NULL), WAL_E_CORRUPT);
    CHECK_EQ(wal_writer_commit(writer, 0, 0, NULL), WAL_E_POISONED);
    CHECK_EQ_U64(count_files("META"), 0);
    wal_writer_free(writer);
    remove_directory();
}

/* A directory whose filler cannot sync, while the leader's own sync takes long and succeeds. */
static struct wal_io_ops slow_ops;
static int (*real_sync)(struct wal_io *io, int file);
static pthread_t leader;
static atomic_int filler_fails, leader_is_in, filler_failed;

static void wait_until(atomic_int *flag) {
    for (int i = 0; i < 5000 && !atomic_load(flag); i++) (void)usleep(1000);
}

/* The filler's sync fails while the leader is in its own, and tells only when that is through. */
static int sync_by_thread(struct wal_io *io, int file) {
    if (!atomic_load(&filler_fails)) return real_sync(io, file);
    if (pthread_equal(pthread_self(), leader)) {
        atomic_store(&leader_is_in, 1);
        wait_until(&filler_failed);
        return real_sync(io, file);
    }
    wait_until(&leader_is_in);
    atomic_store(&filler_failed, 1);
    (void)usleep(20000);
    return -EIO;
}

static void a_commit_waits_for_the_fillers_sync(void) {
    struct wal_io *io = NULL;
    wal_writer *writer = NULL;
    wal_report report;
    wal_options how = options(8 << 20);
    make_directory();
    leader = pthread_self();
    succeeds(wal_io_posix_open(directory, WAL_DIR_WRITER, &io, &error), "directory");
    slow_ops = *io->ops;
    real_sync = slow_ops.sync;
    slow_ops.sync = sync_by_thread;
    io->ops = &slow_ops;
    CHECK_EQ(wal_io_worker_wrap(io, &io), 0); /* as every log that is opened by its path */
    succeeds(wal_writer_open_io(io, &how, &writer, &report, &error), "open");
    append(writer, 1000, 1);
    commit(writer);
    (void)usleep(200000); /* what was due of filling is done */
    atomic_store(&filler_fails, 1);
    append(writer, 4000, 20); /* filling is due again */
    CHECK_EQ(wal_writer_commit(writer, 0, 0, NULL), WAL_E_POISONED);
    CHECK(atomic_load(&filler_failed));
    wal_position position;
    wal_writer_position(writer, &position);
    CHECK_EQ_U64(position.durable_lsn, 1);
    atomic_store(&filler_fails, 0);
    succeeds(wal_writer_reopen(writer, &report, &error), "reopen");
    CHECK_EQ_U64(report.last_lsn, 21);
    succeeds(wal_writer_close(writer, 0, &error), "close");
    wal_writer_free(writer);
    remove_directory();
}

static atomic_int disk_is_full;
static int (*real_allocate)(struct wal_io *io, int file, uint64_t bytes);

/* A slow disk takes longer to refuse than an interruptible caller waits at a time. */
static int refuse_slowly(struct wal_io *io, int file, uint64_t bytes) {
    if (!atomic_load(&disk_is_full)) return real_allocate(io, file, bytes);
    (void)usleep(80000);
    return -ENOSPC;
}

static int append_interruptibly(wal_writer *writer, uint32_t bytes) {
    uint64_t lsn;
    int result, tries = 0;
    do {
        result = wal_writer_append(writer, zeros, bytes, 0, WAL_INTERRUPTIBLE, &lsn, &error);
    } while (result == WAL_E_AGAIN && ++tries < 100);
    return result;
}

static void a_full_disk_is_told_however_slow_it_is(void) {
    struct wal_io *io = NULL;
    wal_writer *writer = NULL;
    wal_report report;
    wal_options how = options(65536);
    make_directory();
    succeeds(wal_io_posix_open(directory, WAL_DIR_WRITER, &io, &error), "directory");
    slow_ops = *io->ops;
    real_allocate = slow_ops.allocate;
    slow_ops.allocate = refuse_slowly;
    io->ops = &slow_ops;
    CHECK_EQ(wal_io_worker_wrap(io, &io), 0);
    succeeds(wal_writer_open_io(io, &how, &writer, &report, &error), "open");
    atomic_store(&disk_is_full, 1);
    int result, appended = 0;
    while ((result = append_interruptibly(writer, 4000)) == 0) appended++;
    CHECK_EQ(result, WAL_E_FULL);
    CHECK(appended > 0 && appended < 20);
    CHECK_EQ(append_interruptibly(writer, 4000), WAL_E_FULL);
    atomic_store(&disk_is_full, 0);
    for (int i = 0; i < 20; i++) CHECK_EQ(append_interruptibly(writer, 4000), 0);
    succeeds(wal_writer_close(writer, 0, &error), "close");
    wal_writer_free(writer);
    CHECK_EQ_U64(last_lsn(), (uint64_t)appended + 20);
    remove_directory();
}

static atomic_int trims, both_wait, follower_is_home, follower_came_first;
static int64_t (*real_write_durable)(struct wal_io *io, int file, uint64_t offset,
                                     const struct iovec *parts, int count);

static int64_t write_once_both_wait(struct wal_io *io, int file, uint64_t offset,
                                    const struct iovec *parts, int count) {
    if (atomic_load(&trims)) wait_until(&both_wait);
    return real_write_durable(io, file, offset, parts, count);
}

/* META's, which is slow. */
static int sync_behind_the_follower(struct wal_io *io, int file) {
    if (atomic_load(&trims)) {
        wait_until(&follower_is_home);
        atomic_store(&follower_came_first, atomic_load(&follower_is_home));
    }
    return real_sync(io, file);
}

static void *append_durable(void *argument) {
    uint64_t lsn;
    CHECK_EQ(wal_writer_append(argument, zeros, 100, 0, WAL_DURABLE, &lsn, NULL), 0);
    atomic_store(&follower_is_home, 1);
    return NULL;
}

static void *trim(void *argument) {
    CHECK_EQ(wal_writer_truncate_before(argument, 2, 0, NULL), 0);
    return NULL;
}

/* The leader reaps as long as its step needs it; behind that somebody else has to. */
static void nobody_waits_for_a_leader_who_reaps_no_more(void) {
    struct wal_io *io = NULL;
    wal_writer *writer = NULL;
    wal_report report;
    wal_position position = {.last_lsn = 0};
    wal_options how = options(1 << 20);
    pthread_t threads[2];
    uint32_t bytes = 100, taken;
    how.commit_alignment = 4096;
    how.flags |= WAL_NO_THREADS;
    how.ring = (wal_ring_options){
        .direct_io = 1, .max_inflight = 8, .registered_buffers = 8, .buffer_bytes = 8192};
    make_directory();
    succeeds(wal_io_posix_open(directory, WAL_DIR_WRITER, &io, &error), "directory");
    slow_ops = *io->ops;
    real_sync = slow_ops.sync;
    real_write_durable = slow_ops.write_durable;
    slow_ops.sync = sync_behind_the_follower;
    slow_ops.write_durable = write_once_both_wait;
    io->ops = &slow_ops;
    CHECK_EQ(wal_io_worker_wrap(io, &io), 0);
    succeeds(wal_writer_open_io(io, &how, &writer, &report, &error), "open");
    append(writer, 100, 1);
    CHECK_EQ(wal_writer_append_batch(writer, zeros, &bytes, NULL, 1, 0, NULL, &taken, &error), 0);
    atomic_store(&trims, 1);
    CHECK_EQ(pthread_create(&threads[0], NULL, trim, writer), 0);
    (void)usleep(20000); /* it is at the group that was begun */
    CHECK_EQ(pthread_create(&threads[1], NULL, append_durable, writer), 0);
    while (position.last_lsn < 3) wal_writer_position(writer, &position);
    (void)usleep(20000); /* and it follows */
    atomic_store(&both_wait, 1);
    for (int i = 0; i < 2; i++) CHECK_EQ(pthread_join(threads[i], NULL), 0);
    CHECK(atomic_load(&follower_came_first));
    atomic_store(&trims, 0);
    succeeds(wal_writer_close(writer, 0, &error), "close");
    wal_writer_free(writer);
    remove_directory();
}

static atomic_int ring_is_lost;
static int (*real_reap)(struct wal_io *io, struct wal_io_completion *completions, int max,
                        int64_t wait_ns, unsigned flags);

static int reap_or_fail(struct wal_io *io, struct wal_io_completion *completions, int max,
                        int64_t wait_ns, unsigned flags) {
    if (atomic_load(&ring_is_lost)) return -EIO;
    return real_reap(io, completions, max, wait_ns, flags);
}

/* No completion will come, and no bell ring: the look that finds out has to say so itself. */
static void a_ring_that_fails_is_told_at_once(void) {
    struct wal_io *io = NULL;
    wal_writer *writer = NULL;
    wal_report report;
    uint64_t durable;
    wal_options how = options(65536);
    make_directory();
    how.flags |= WAL_NO_THREADS;
    succeeds(wal_io_posix_open(directory, WAL_DIR_WRITER, &io, &error), "directory");
    CHECK_EQ(wal_io_worker_wrap(io, &io), 0);
    slow_ops = *io->ops;
    real_reap = slow_ops.reap;
    slow_ops.reap = reap_or_fail;
    io->ops = &slow_ops;
    succeeds(wal_writer_open_io(io, &how, &writer, &report, &error), "open");
    append(writer, 100, 1);
    atomic_store(&ring_is_lost, 1);
    CHECK_EQ(wal_writer_poll(writer, 1, &durable, &error), WAL_E_POISONED);
    CHECK_EQ(error.os_error, EIO);
    CHECK_EQ_U64(durable, 0);
    atomic_store(&ring_is_lost, 0);
    CHECK_EQ(wal_writer_close(writer, 0, &error), WAL_E_POISONED);
    wal_writer_free(writer);
    remove_directory();
}

/* Whatever the errno: what was written may have arrived, and only recovery finds out. */
static void a_failed_sync_of_meta_poisons(void) {
    wal_writer *writer = NULL;
    wal_report report;
    wal_options how = options(65536);
    make_directory();
    how.flags |= WAL_NO_THREADS;
    succeeds(wal_writer_open(directory, &how, &writer, &report, &error), "open");
    append(writer, 100, 3);
    commit(writer);
    wal_fault_set(WAL_FAULT_SYNC, 2, 0, WAL_FAULT_FAIL, ENOMEM); /* behind the tail's */
    CHECK_EQ(wal_writer_truncate_before(writer, 2, 0, &error), WAL_E_POISONED);
    wal_fault_clear();
    succeeds(wal_writer_reopen(writer, &report, &error), "reopen");
    CHECK(report.first_lsn == 1 || report.first_lsn == 2);
    succeeds(wal_writer_close(writer, 0, &error), "close");
    wal_writer_free(writer);
    remove_directory();
}

/* A file stands under the next segment's name: it is somebody's, and it stays. */
static void a_foreign_file_is_not_removed(void) {
    char path[128];
    make_directory();
    wal_writer *writer = open_writer(65536);
    append(writer, 100, 1);
    commit(writer);
    (void)snprintf(path, sizeof path, "%s/wal-0000000000000002.seg", directory);
    FILE *file = fopen(path, "w");
    CHECK(file != NULL && fputs("precious", file) > 0 && fclose(file) == 0);
    uint64_t lsn;
    for (int i = 0; i < 40; i++) (void)wal_writer_append(writer, zeros, 4000, 0, 0, &lsn, NULL);
    CHECK_EQ(access(path, F_OK), 0);
    (void)wal_writer_close(writer, 0, NULL);
    wal_writer_free(writer);
    remove_directory();
}

int main(void) {
    RUN(a_commit_waits_for_the_fillers_sync);
    RUN(a_full_disk_is_told_however_slow_it_is);
    RUN(nobody_waits_for_a_leader_who_reaps_no_more);
    RUN(a_ring_that_fails_is_told_at_once);
    RUN(a_failed_sync_of_meta_poisons);
    RUN(a_foreign_file_is_not_removed);
    RUN(a_late_cut_hits_no_other_segment);
    RUN(cuts_of_earlier_lives_are_done);
    RUN(an_interruptible_close_comes_to_its_end);
    RUN(two_threads_reopen_a_poisoned_writer);
    RUN(two_threads_reopen_while_a_sync_hangs);
    RUN(failing_preparations_leave_nothing);
    RUN(records_of_one_mebibyte_and_more);
    RUN(reopen_makes_no_fresh_log);
    CHECK_EQ(wal_open_files(), 0);
    return check_end();
}
