/* The simulated disk by itself: what a sync keeps, what a cut takes, what a failed sync hides. */
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "format.h"
#include "simdisk.h"

static struct sim_disk *disk;
static struct wal_io *io;
static struct sim_axis axes[64];
static uint32_t choice[64];

static void begin(void) {
    disk = sim_new();
    io = sim_io(disk);
}

static void end(void) {
    wal_io_destroy(io);
    sim_free(disk);
}

static int file_named(const char *name) {
    return wal_io_open(io, name, WAL_IO_WRITE | WAL_IO_CREATE);
}

static void put(int file, uint64_t offset, char byte, size_t bytes) {
    char data[4096];
    CHECK(bytes <= sizeof(data));
    memset(data, byte, bytes);
    struct iovec part = {.iov_base = data, .iov_len = bytes};
    CHECK_EQ(wal_io_write(io, file, offset, &part, 1), 0);
}

static char at(const struct sim_disk *which, const char *name, uint64_t offset) {
    const struct sim_file *file = sim_file(which, sim_lookup(which, name));
    CHECK(file != NULL);
    return (char)file->cache[offset];
}

/* A synced file "f" of one sector of 'a', with a durable name. */
static int synced_file(void) {
    int file = file_named("f");
    put(file, 0, 'a', 512);
    CHECK_EQ(wal_io_sync(io, file), 0);
    CHECK_EQ(wal_io_sync_dir(io), 0);
    return file;
}

static void a_sync_keeps_bytes_and_not_the_name(void) {
    begin();
    int file = file_named("f");
    put(file, 0, 'a', 512);
    CHECK_EQ(wal_io_sync(io, file), 0);
    CHECK_EQ(sim_axes(disk, axes, 64, false), 1);
    CHECK_EQ(axes[0].kind, SIM_AXIS_NAMES);
    struct sim_disk *after = sim_cut(disk, axes, (uint32_t[]){0}, 1, 1);
    CHECK_EQ(sim_lookup(after, "f"), 0);
    sim_free(after);
    after = sim_cut(disk, axes, (uint32_t[]){1}, 1, 1);
    CHECK_EQ(at(after, "f", 511), 'a');
    sim_free(after);
    end();
}

static void every_version_may_come_back(void) {
    begin();
    int file = synced_file();
    put(file, 100, 'b', 10);
    put(file, 100, 'c', 5);
    CHECK_EQ(sim_axes(disk, axes, 64, false), 1);
    CHECK_EQ(axes[0].newest, 2);
    CHECK_EQ(axes[0].options, 3); /* live bytes: no garbage */
    const char expected[] = {'a', 'b', 'c'};
    for (uint32_t i = 0; i < 3; i++) {
        struct sim_disk *after = sim_cut(disk, axes, &i, 1, 1);
        CHECK_EQ(at(after, "f", 102), expected[i]);
        CHECK_EQ(at(after, "f", 99), 'a');
        sim_free(after);
    }
    end();
}

static void garbage_follows_the_rules(void) {
    begin();
    int file = synced_file();
    put(file, 512, 'b', 512); /* a fresh sector */
    size_t count = sim_axes(disk, axes, 64, false);
    CHECK_EQ(count, 2);
    CHECK_EQ(axes[1].options, 3);
    CHECK_EQ(wal_io_sync(io, file), 0);
    put(file, 8192, 'x', 512); /* live from now on */
    CHECK_EQ(wal_io_sync(io, file), 0);
    put(file, 8192, 'y', 512);
    CHECK_EQ(sim_axes(disk, axes, 64, false), 1);
    CHECK_EQ(axes[0].options, 2);
    disk->strict = true;
    put(file, 8192, 'z', 512);
    CHECK_EQ(sim_axes(disk, axes, 64, false), 1);
    CHECK_EQ(axes[0].options, 4);
    CHECK_EQ(wal_io_sync(io, file), 0);
    disk->strict = false;
    CHECK_EQ(wal_io_rename(io, "f", "g"), 0); /* a new life: nothing in it is live */
    put(file, 8192, 'w', 512);
    count = sim_axes(disk, axes, 64, false);
    CHECK_EQ(count, 2);
    CHECK_EQ(axes[1].options, 3);
    end();
}

static void names_come_back_in_order_or_in_any_subset(void) {
    begin();
    int file = synced_file();
    wal_io_close(io, file);
    CHECK_EQ(wal_io_rename(io, "f", "g"), 0);
    file = file_named("f");
    CHECK_EQ(sim_axes(disk, axes, 64, false), 1);
    CHECK_EQ(axes[0].newest, 2);
    struct sim_disk *after = sim_cut(disk, axes, (uint32_t[]){1}, 1, 1);
    CHECK_EQ(sim_lookup(after, "f"), 0);
    CHECK(sim_lookup(after, "g") != 0);
    sim_free(after);
    after =
        sim_cut(disk, axes, (uint32_t[]){3 + 2}, 1, 1); /* subset {create}: f is there already */
    CHECK_EQ(at(after, "f", 0), 'a');
    CHECK_EQ(sim_lookup(after, "g"), 0);
    sim_free(after);
    end();
}

static void a_failed_sync_lies(void) {
    for (uint64_t seed = 1; seed < 40; seed++) {
        begin();
        int file = synced_file();
        disk->sync_fail_in = 1;
        disk->sync_fail_seed = seed;
        put(file, 0, 'b', 512);
        CHECK_EQ(wal_io_sync(io, file), -EIO);
        char device = at(disk, "f", 0);
        CHECK_EQ(device, 'b'); /* the cache */
        CHECK_EQ(wal_io_sync(io, file), 0);
        char byte = 0;
        CHECK_EQ(wal_io_read(io, file, 0, &byte, 1), 1);
        CHECK_EQ(byte, 'b');
        int raw = wal_io_open(io, "f", WAL_IO_READ | WAL_IO_UNCACHED);
        CHECK_EQ(wal_io_read(io, raw, 0, &byte, 1), 1);
        struct sim_disk *after = sim_cut(disk, axes, choice, 0, 1);
        CHECK_EQ(at(after, "f", 0), byte);
        CHECK(byte == 'a' || byte == 'b');
        sim_free(after);
        end();
    }
}

static void sizes_shrink_and_grow(void) {
    begin();
    int file = synced_file();
    CHECK_EQ(wal_io_allocate(io, file, 4096), 0);
    CHECK_EQ(sim_axes(disk, axes, 64, false), 1);
    CHECK_EQ(axes[0].kind, SIM_AXIS_SIZE);
    uint64_t data_end;
    CHECK_EQ(wal_io_next_data(io, file, 512, &data_end), 4096);
    CHECK_EQ(wal_io_truncate(io, file, 256), 0);
    CHECK_EQ(wal_io_sync(io, file), 0);
    CHECK_EQ(wal_io_allocate(io, file, 512), 0);
    CHECK_EQ(at(disk, "f", 300), 0);
    disk->space_max = 1024;
    CHECK_EQ(wal_io_allocate(io, file, 2048), -ENOSPC);
    end();
}

/* Replaying a trace makes the same machine, and the cheap hash tells machines apart. */
static void traces_repeat(void) {
    struct sim_trace trace = {0};
    begin();
    disk->trace = &trace;
    int file = synced_file();
    put(file, 200, 'b', 2000);
    CHECK_EQ(wal_io_rename(io, "f", "g"), 0);
    struct sim_disk *again = sim_new();
    for (size_t i = 0; i < trace.count; i++) sim_apply(again, &trace.events[i]);
    uint64_t files[SIM_FILES_MAX], seen[2];
    size_t count = sim_axes(again, axes, 64, true);
    CHECK_EQ(count, sim_axes(disk, axes, 64, true));
    memset(choice, 0, sizeof(choice));
    for (int kept = 0; kept < 2; kept++) {
        for (size_t i = 0; i < count; i++) choice[i] = kept == 1 ? axes[i].newest : 0;
        sim_hash_files(disk, files);
        seen[kept] = sim_cut_hash(disk, files, axes, choice, count, 3);
        sim_hash_files(again, files);
        CHECK(seen[kept] == sim_cut_hash(again, files, axes, choice, count, 3));
        struct sim_disk *after = sim_cut(again, axes, choice, count, 3);
        sim_hash_files(after, files);
        CHECK(seen[kept] == sim_cut_hash(after, files, axes, choice, 0, 3));
        sim_free(after);
    }
    CHECK(seen[0] != seen[1]);
    sim_free(again);
    sim_trace_clear(&trace);
    end();
}

/* ---- requests -------------------------------------------------------------------------------- */

enum { FILE_BYTES = 65536, SEEDS = 60 };

static _Alignas(4096) char letters[26][16384]; /* letters[1] is full of 'b' */
static struct wal_io_completion completions[SIM_REQUESTS_MAX];

/* A file "f" of zeros, synced, with requests. */
static int begin_async(uint64_t seed, uint32_t hold) {
    for (int i = 0; i < 26; i++) memset(letters[i], 'a' + i, sizeof(letters[i]));
    disk = sim_new();
    disk->async = true;
    disk->async_seed = seed;
    disk->async_hold = hold;
    io = sim_io(disk);
    int file = wal_io_open(io, "f", WAL_IO_WRITE | WAL_IO_CREATE | WAL_IO_DIRECT);
    CHECK_EQ(wal_io_write_zeros(io, file, 0, FILE_BYTES), 0);
    CHECK_EQ(wal_io_sync(io, file), 0);
    CHECK_EQ(wal_io_sync_dir(io), 0);
    return file;
}

static int submit(enum wal_io_kind kind, int file, uint64_t offset, char byte, size_t bytes) {
    struct wal_io_request request = {.kind = kind,
                                     .file = file,
                                     .offset = offset,
                                     .data = letters[byte - 'a'],
                                     .bytes = bytes,
                                     .token = (uint64_t)byte};
    return wal_io_submit(io, &request);
}

static int reap(int max, int64_t wait_ns) {
    return wal_io_reap(io, completions, max, wait_ns, WAL_IO_MAY_BLOCK);
}

static void reap_one(char byte, int result) {
    CHECK_EQ(reap(1, -1), 1);
    CHECK_EQ(completions[0].token, byte);
    CHECK_EQ(completions[0].result, result);
}

/* The byte at offset after a cut that took everything it might take. */
static char least(uint64_t offset) {
    struct sim_disk *after = sim_cut(disk, axes, choice, 0, 1);
    char byte = at(after, "f", offset);
    sim_free(after);
    return byte;
}

static bool is_open(uint64_t offset) {
    size_t count = sim_axes(disk, axes, 64, true);
    for (size_t i = 0; i < count; i++) {
        bool sector = axes[i].kind == SIM_AXIS_SECTOR;
        if (sector && axes[i].sector == offset / SIM_SECTOR_BYTES) return true;
    }
    return false;
}

/* The point of WRITE_DURABLE: no other write, begun or returned, rides along. */
static void a_durable_write_keeps_itself_only(void) {
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        int file = begin_async(seed, 0);
        put(file, 0, 'p', 512);
        CHECK_EQ(submit(WAL_IO_WRITE_DURABLE, file, 4096, 'b', 8192), 0);
        CHECK_EQ(submit(WAL_IO_WRITE_DURABLE, file, 16384, 'c', 4096), 0);
        put(file, 32768, 'q', 512);
        CHECK_EQ(least(4096), 0);
        reap_one('b', 0);
        CHECK_EQ(least(4096), 'b');
        CHECK_EQ(least(4096 + 8191), 'b');
        CHECK(!is_open(4096) && !is_open(8192));
        CHECK_EQ(least(0), 0);
        CHECK_EQ(least(16384), 0);
        CHECK_EQ(least(32768), 0);
        reap_one('c', 0);
        CHECK_EQ(least(16384), 'c');
        CHECK_EQ(least(0), 0);
        CHECK_EQ(reap(1, -1), 0); /* nothing is under way */
        end();
    }
}

/* The same bytes once more are durable all the same: the second half of a short write. */
static void a_durable_write_of_what_is_there(void) {
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        int file = begin_async(seed, 0);
        put(file, 0, 'b', 512);
        CHECK_EQ(submit(WAL_IO_WRITE_DURABLE, file, 0, 'b', 4096), 0);
        CHECK_EQ(least(0), 0);
        reap_one('b', 0);
        CHECK_EQ(least(0), 'b');
        CHECK(!is_open(0) && !is_open(4095));
        end();
    }
}

/* A process lets its log go with requests under way: the file stays, until they are dropped. */
static void closed_with_requests_under_way(void) {
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        int file = begin_async(seed, 0);
        CHECK_EQ(submit(WAL_IO_WRITE_SYNC, file, 0, 'b', 8192), 0);
        wal_io_close(io, file);
        CHECK_EQ(wal_io_unlink(io, "f"), 0);
        CHECK_EQ(wal_io_sync_dir(io), 0);
        file = file_named("g");
        CHECK_EQ(submit(WAL_IO_WRITE_SYNC, file, 0, 'c', 8192), 0);
        wal_io_destroy(io);
        io = sim_io(disk);
        CHECK_EQ(wal_io_sync_dir(io), 0);
        CHECK_EQ(disk->file_count, 1);
        end();
    }
}

static void a_durable_write_keeps_no_size(void) {
    int file = begin_async(1, 0);
    CHECK_EQ(submit(WAL_IO_WRITE_DURABLE, file, FILE_BYTES, 'b', 4096), 0);
    reap_one('b', 0);
    CHECK_EQ(sim_axes(disk, axes, 64, false), 1);
    CHECK_EQ(axes[0].kind, SIM_AXIS_SIZE);
    CHECK_EQ(sim_file(disk, sim_lookup(disk, "f"))->durable_bytes, FILE_BYTES);
    CHECK_EQ(wal_io_sync(io, file), 0);
    CHECK_EQ(sim_axes(disk, axes, 64, false), 0);
    end();
}

static void a_sync_covers_what_had_returned(void) {
    int file = begin_async(1, 0);
    put(file, 0, 'o', 512);
    put(file, 0, 'p', 512);
    put(file, 1024, 'p', 512);
    CHECK_EQ(submit(WAL_IO_SYNC, file, 0, 's', 0), 0);
    put(file, 0, 'q', 512);
    put(file, 512, 'q', 512);
    put(file, 1024, 'p', 512); /* the same bytes: no version, and may be garbage */
    CHECK_EQ(wal_io_allocate(io, file, FILE_BYTES + 4096), 0);
    CHECK_EQ(least(0), 0);
    reap_one('s', 0);
    CHECK_EQ(least(0), 'p');
    CHECK_EQ(least(512), 0);
    CHECK_EQ(least(1024), 'p');
    CHECK(is_open(0) && is_open(512));
    CHECK_EQ(sim_axes(disk, axes, 64, false), 3);
    CHECK_EQ(axes[0].kind, SIM_AXIS_SIZE);
    CHECK_EQ(axes[1].newest, 1);
    CHECK((sim_file(disk, axes[0].inode)->flags[2] & SIM_DULL) != 0);
    CHECK((sim_file(disk, axes[0].inode)->flags[2] & SIM_LIVE) != 0);
    CHECK((sim_file(disk, axes[0].inode)->flags[1] & SIM_LIVE) == 0);
    CHECK_EQ(submit(WAL_IO_SYNC, file, 0, 't', 0), 0);
    reap_one('t', 0);
    CHECK_EQ(sim_axes(disk, axes, 64, true), 0);
    end();
}

/* By request or by verb: a write that has not completed is nobody's to cover. */
static void no_sync_covers_a_write_in_flight(void) {
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        int file = begin_async(seed, 0);
        CHECK_EQ(submit(WAL_IO_SYNC, file, 0, 's', 0), 0);
        CHECK_EQ(submit(WAL_IO_WRITE_DURABLE, file, 4096, 'b', 8192), 0);
        reap_one('s', 0);
        CHECK_EQ(wal_io_sync(io, file), 0);
        CHECK_EQ(least(4096), 0);
        CHECK_EQ(least(8192), 0);
        reap_one('b', 0);
        CHECK_EQ(least(4096), 'b');
        CHECK_EQ(least(8192), 'b');
        end();
    }
}

static void a_write_sync_covers_itself_and_what_had_returned(void) {
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        int file = begin_async(seed, 0);
        put(file, 0, 'p', 512);
        CHECK_EQ(submit(WAL_IO_WRITE_SYNC, file, 700, 'b', 9000), 0);
        put(file, 20480, 'q', 512);
        reap_one('b', 0);
        CHECK_EQ(least(0), 'p');
        CHECK_EQ(least(700), 'b');
        CHECK_EQ(least(9699), 'b');
        CHECK_EQ(least(9700), 0);
        CHECK_EQ(least(20480), 0);
        CHECK(is_open(20480) && !is_open(700));
        end();
    }
}

/* Nothing, a part or all of it: and a later process's sync covers what is there. */
static void a_kill_takes_what_had_not_begun(void) {
    int seen[3] = {0};
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        int file = begin_async(seed, 0);
        CHECK_EQ(submit(WAL_IO_WRITE_SYNC, file, 0, 'b', 8192), 0);
        CHECK_EQ(submit(WAL_IO_SYNC, file, 0, 's', 0), 0);
        struct sim_disk *copy = sim_copy(disk);
        sim_kill(disk);
        bool first = at(disk, "f", 0) == 'b', last = at(disk, "f", 8191) == 'b';
        CHECK(first || !last);
        CHECK_EQ(at(copy, "f", 0), at(disk, "f", 0));
        seen[first + last]++;
        CHECK_EQ(least(0), 0);
        wal_io_destroy(io);
        sim_free(seed % 2 == 0 ? disk : copy);
        if (seed % 2 == 0) disk = copy;
        for (int i = 0; i < 2; i++) {
            io = sim_io(disk);
            file = wal_io_open(io, "f", WAL_IO_WRITE);
            CHECK_EQ(wal_io_sync(io, file), 0);
            CHECK_EQ(least(0), at(disk, "f", 0));
            CHECK_EQ(sim_axes(disk, axes, 64, true), 0);
            wal_io_destroy(io);
        }
        sim_free(disk);
    }
    CHECK(seen[0] > 0 && seen[1] > 0 && seen[2] > 0);
}

static void a_failed_durable_write_spoils_its_own_sectors(void) {
    int seen[2] = {0};
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        int file = begin_async(seed, 0);
        int other = wal_io_open(io, "f", WAL_IO_WRITE);
        disk->sync_fail_in = 1;
        disk->sync_fail_seed = seed;
        put(file, 16384, 'p', 512);
        CHECK_EQ(submit(WAL_IO_WRITE_DURABLE, file, 0, 'b', 4096), 0);
        reap_one('b', -EIO);
        CHECK_EQ(disk->sync_failures, 1);
        seen[least(0) == 'b']++;
        CHECK(!is_open(0) && is_open(16384));
        CHECK_EQ(wal_io_sync(io, other), 0);
        CHECK_EQ(least(16384), 'p');
        CHECK_EQ(submit(WAL_IO_WRITE_DURABLE, file, 0, 'c', 4096), 0);
        reap_one('c', 0);
        CHECK_EQ(least(0), 'c');
        end();
    }
    CHECK(seen[0] > 0 && seen[1] > 0);
}

static void a_failed_sync_request_lies_but_for_writes_in_flight(void) {
    int lies = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        int file = begin_async(seed, 0);
        int other = wal_io_open(io, "f", WAL_IO_WRITE);
        disk->sync_fail_in = 1;
        disk->sync_fail_seed = seed;
        CHECK_EQ(submit(WAL_IO_WRITE_SYNC, file, 512, 'b', 512), 0);
        CHECK_EQ(submit(WAL_IO_WRITE_DURABLE, file, 4096, 'c', 4096), 0);
        reap_one('b', -EIO);
        CHECK_EQ(wal_io_sync(io, other), -EIO);
        CHECK_EQ(wal_io_sync(io, file), 0);
        CHECK_EQ(at(disk, "f", 512), 'b');
        lies += least(512) == 0;
        reap_one('c', 0);
        CHECK_EQ(least(4096), 'c');
        end();
    }
    CHECK(lies > 0);
}

static void completions_come_late_and_in_any_order(void) {
    int swapped = 0, late = 0, partial = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        int file = begin_async(seed, 3);
        uint32_t seen = 0;
        for (char byte = 'a'; byte < 'i'; byte++) {
            uint64_t offset = (uint64_t)(byte - 'a') * 4096;
            CHECK_EQ(submit(WAL_IO_WRITE_DURABLE, file, offset, byte, 4096), 0);
        }
        for (int last = 0, left = 8; left > 0;) {
            int count = reap(8, left % 2 == 0 ? 0 : 1000000);
            CHECK(count >= 0);
            if (count == 0) late++;
            if (count > 0 && count < left) partial++;
            left -= count;
            for (int i = 0; i < count; i++) {
                int token = (int)completions[i].token;
                CHECK((seen & 1u << (token - 'a')) == 0);
                seen |= 1u << (token - 'a');
                if (token < last) swapped++;
                last = token;
                CHECK_EQ(least((uint64_t)(token - 'a') * 4096), token);
            }
        }
        CHECK_EQ(seen, 255);
        end();
    }
    CHECK(swapped > 0 && late > 0 && partial > 0);
}

static void requests_run_into_limits(void) {
    int file = begin_async(1, 0);
    for (int i = 0; i < SIM_REQUESTS_MAX; i++) {
        CHECK_EQ(submit(WAL_IO_SYNC, file, 0, 's', 0), 0);
    }
    CHECK_EQ(submit(WAL_IO_SYNC, file, 0, 's', 0), -EBUSY);
    CHECK_EQ(reap(SIM_REQUESTS_MAX, -1), SIM_REQUESTS_MAX);
    disk->space_max = FILE_BYTES;
    CHECK_EQ(submit(WAL_IO_WRITE_SYNC, file, FILE_BYTES, 'b', 4096), 0);
    reap_one('b', -ENOSPC);
    disk->eintr_every = 1;
    CHECK_EQ(submit(WAL_IO_SYNC, file, 0, 's', 0), 0);
    CHECK_EQ(reap(1, -1), -EINTR);
    disk->eintr_every = 0;
    reap_one('s', 0);
    end();
}

/* The power goes at every event of a request's life. */
static void the_power_goes_in_the_middle(void) {
    int submitted = 0, reaped = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        for (uint64_t more = 1; more < 4; more++) {
            int file = begin_async(seed, 0);
            disk->cut_at = disk->events + more;
            put(file, 16384, 'p', 512);
            int result = submit(WAL_IO_WRITE_SYNC, file, 0, 'b', 8192);
            if (result == 0) result = submit(WAL_IO_WRITE_DURABLE, file, 8192, 'c', 4096);
            if (result == 0) result = reap(1, -1);
            CHECK(result == 1 || result == -EIO);
            if (more == 1) CHECK_EQ(result, -EIO);
            if (disk->events >= disk->cut_at) CHECK_EQ(reap(1, 0), -EIO);
            submitted += result == -EIO;
            reaped += result == 1;
            CHECK(disk->events <= disk->cut_at);
            if (result == 1) CHECK_EQ(least(8191), 'b');
            if (result != 1) CHECK_EQ(least(0), 0);
            CHECK_EQ(submit(WAL_IO_SYNC, file, 0, 's', 0), disk->events >= disk->cut_at ? -EIO : 0);
            disk->cut_at = 1; /* for good */
            wal_io_close(io, file);
            end();
        }
    }
    CHECK(submitted > 0 && reaped > 0);
}

static void traces_with_requests_repeat(void) {
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct sim_trace trace = {0};
        disk = NULL;
        int file = begin_async(seed, 2);
        struct sim_disk *again = sim_copy(disk);
        disk->trace = &trace;
        for (char byte = 'a'; byte < 'i'; byte++) {
            uint64_t offset = (uint64_t)(byte - 'a') * 4096;
            enum wal_io_kind kind = byte % 2 == 0 ? WAL_IO_WRITE_SYNC : WAL_IO_WRITE_DURABLE;
            put(file, offset + FILE_BYTES / 2, byte, 100);
            CHECK_EQ(submit(kind, file, offset, byte, 4096), 0);
            if (byte % 3 == 0) CHECK(reap(4, 1000) >= 0);
        }
        sim_kill(disk);
        for (size_t i = 0; i < trace.count; i++) sim_apply(again, &trace.events[i]);
        size_t count = sim_axes(disk, axes, 64, true);
        uint64_t files[SIM_FILES_MAX], hash = 0;
        for (int kept = 0; kept < 2; kept++) {
            for (size_t i = 0; i < count; i++) choice[i] = kept == 1 ? axes[i].newest : 0;
            sim_hash_files(disk, files);
            hash = sim_cut_hash(disk, files, axes, choice, count, 3);
            sim_hash_files(again, files);
            CHECK(hash == sim_cut_hash(again, files, axes, choice, count, 3));
        }
        memset(choice, 0, sizeof(choice));
        CHECK_EQ(sim_axes(again, axes, 64, true), count);
        CHECK_EQ(again->stamp, disk->stamp);
        sim_free(again);
        end();
        sim_trace_clear(&trace);
    }
}

/* Mistakes of the caller: each ends the program, so each has its own. */
static void expect_death(int mistake) {
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        if (freopen("/dev/null", "w", stderr) == NULL) _exit(7);
        int file = begin_async(1, 0);
        (void)submit(WAL_IO_WRITE_DURABLE, file, mistake == 2 ? 512 : 0, 'b', 4096);
        if (mistake == 0) letters[1][17] = 'X';
        if (mistake == 1) wal_io_close(io, file);
        (void)reap(1, -1);
        _exit(0);
    }
    int status = 0;
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == (mistake == 3 ? 0 : 1));
}

static void mistakes_are_caught(void) {
    for (int mistake = 0; mistake < 4; mistake++) expect_death(mistake);
}

int main(void) {
    RUN(a_sync_keeps_bytes_and_not_the_name);
    RUN(every_version_may_come_back);
    RUN(garbage_follows_the_rules);
    RUN(names_come_back_in_order_or_in_any_subset);
    RUN(a_failed_sync_lies);
    RUN(sizes_shrink_and_grow);
    RUN(traces_repeat);
    RUN(a_durable_write_keeps_itself_only);
    RUN(a_durable_write_of_what_is_there);
    RUN(closed_with_requests_under_way);
    RUN(a_durable_write_keeps_no_size);
    RUN(a_sync_covers_what_had_returned);
    RUN(no_sync_covers_a_write_in_flight);
    RUN(a_write_sync_covers_itself_and_what_had_returned);
    RUN(a_kill_takes_what_had_not_begun);
    RUN(a_failed_durable_write_spoils_its_own_sectors);
    RUN(a_failed_sync_request_lies_but_for_writes_in_flight);
    RUN(completions_come_late_and_in_any_order);
    RUN(requests_run_into_limits);
    RUN(the_power_goes_in_the_middle);
    RUN(traces_with_requests_repeat);
    RUN(mistakes_are_caught);
    return check_end();
}
