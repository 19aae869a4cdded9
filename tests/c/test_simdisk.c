/* The simulated disk by itself: what a sync keeps, what a cut takes, what a failed sync hides. */
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

int main(void) {
    RUN(a_sync_keeps_bytes_and_not_the_name);
    RUN(every_version_may_come_back);
    RUN(garbage_follows_the_rules);
    RUN(names_come_back_in_order_or_in_any_subset);
    RUN(a_failed_sync_lies);
    RUN(sizes_shrink_and_grow);
    RUN(traces_repeat);
    return check_end();
}
