/*
 * Requests on a simulated disk: when a write begins, when it is whole, which one completes first.
 * What an event then does to the machine is simdisk.c's business; the rules are in simdisk.h.
 */
#include "check.h"
#include "simdisk.h"

enum { PART_BYTES = 4096 }; /* a write in several pieces is cut at multiples of this */

struct sim_request {
    struct wal_io_request request;
    const struct wal_io *owner;
    uint32_t id;
    uint32_t inode;
    uint32_t covers; /* what had returned when it was submitted */
    uint64_t sum;    /* of the data, then */
    size_t written;  /* of its bytes, so far */
};

static uint64_t sum_of(const struct wal_io_request *request) {
    const uint8_t *data = request->data;
    uint64_t sum = 0;
    for (size_t i = 0; i < request->bytes; i++) sum = (sum ^ data[i]) * 0x100000001b3u;
    return sum;
}

static bool chance(struct sim_disk *disk, uint64_t one_in) {
    return check_below(&disk->async_seed, one_in) == 0;
}

static void forget(struct sim_disk *disk, size_t i) {
    struct sim_file *file = sim_file(disk, disk->requests[i]->inode);
    if (file != NULL) file->opens--;
    free(disk->requests[i]);
    disk->request_count--;
    memmove(disk->requests + i, disk->requests + i + 1,
            (disk->request_count - i) * sizeof(disk->requests[0]));
}

static struct sim_event event_of(const struct sim_request *r, enum sim_kind kind) {
    return (struct sim_event){.kind = kind,
                              .inode = r->inode,
                              .offset = r->request.offset,
                              .bytes = r->request.bytes,
                              .covers = r->covers,
                              .request = r->id};
}

void sim_drop_requests(struct sim_disk *disk, const struct wal_io *io) {
    for (size_t i = 0; i < disk->request_count;) {
        const struct sim_request *r = disk->requests[i];
        if (io != NULL && r->owner != io) {
            i++;
            continue;
        }
        struct sim_event event = event_of(r, SIM_RETURNED);
        if (r->written > 0 && !sim_off(disk)) sim_record(disk, &event);
        forget(disk, i);
    }
}

/* ---- the write ------------------------------------------------------------------------------- */

/* The next piece of it; 0, or -ENOSPC. */
static int write_piece(struct sim_disk *disk, struct sim_request *r) {
    CHECK_EQ_U64(sum_of(&r->request), r->sum); /* the data is ours until completion */
    const struct sim_file *file = sim_file(disk, r->inode);
    const uint8_t *data = (const uint8_t *)r->request.data + r->written;
    size_t bytes = r->request.bytes - r->written;
    if (bytes > PART_BYTES && chance(disk, 4)) {
        bytes = PART_BYTES * (1 + (size_t)check_below(&disk->async_seed, (bytes - 1) / PART_BYTES));
    }
    uint64_t end = r->request.offset + r->written + bytes;
    if (end > file->bytes && !sim_space_for(disk, end - file->bytes)) return -ENOSPC;
    struct sim_event event = event_of(r, SIM_WRITE);
    bool zero = data[0] == 0 && memcmp(data, data + 1, bytes - 1) == 0;
    event.offset += r->written;
    event.bytes = bytes;
    event.data = zero ? NULL : (uint8_t *)(uintptr_t)data;
    event.strict = disk->strict;
    sim_record(disk, &event);
    r->written += bytes;
    return 0;
}

/* Time passes: some of what is in flight gets on. A full disk shows at the completion. */
static void progress(struct sim_disk *disk) {
    for (size_t i = 0; i < disk->request_count && !sim_off(disk); i++) {
        struct sim_request *r = disk->requests[i];
        if (r->written < r->request.bytes && chance(disk, 4)) (void)write_piece(disk, r);
    }
}

/* ---- the completion -------------------------------------------------------------------------- */

static int complete_durable(struct sim_disk *disk, const struct sim_request *r) {
    struct sim_event event = event_of(r, SIM_SYNC_RANGE);
    bool fails = sim_sync_fails(disk, true);
    if (fails) {
        event.kind = SIM_SYNC_FAILED;
        event.seed = disk->sync_fail_seed;
        disk->sync_failures++;
    }
    sim_record(disk, &event);
    return fails ? -EIO : 0;
}

static int complete_sync(struct sim_disk *disk, const struct sim_request *r) {
    struct sim_file *file = sim_file(disk, r->inode);
    struct sim_open *slot = &disk->open[r->request.file];
    struct sim_event event = event_of(r, SIM_SYNC);
    if (sim_sync_fails(disk, file->pending_count > 0)) {
        struct sim_event returned = event_of(r, SIM_RETURNED);
        if (r->request.bytes > 0) sim_record(disk, &returned);
        event = (struct sim_event){
            .kind = SIM_SYNC_FAILED, .inode = r->inode, .seed = disk->sync_fail_seed};
        file->errors++;
    }
    if (r->request.bytes == 0) event.request = 0;
    sim_record(disk, &event);
    if (slot->errors_seen == file->errors) return 0;
    slot->errors_seen = file->errors;
    disk->sync_failures++;
    return -EIO;
}

/* 1: completed; 0: the power went before it was. */
static int complete(struct sim_disk *disk, size_t i, struct wal_io_completion *completion) {
    struct sim_request *r = disk->requests[i];
    CHECK_EQ(disk->open[r->request.file].inode, r->inode); /* closed, and its number given away */
    int result = 0;
    while (result == 0 && r->written < r->request.bytes) {
        if (sim_off(disk)) return 0;
        result = write_piece(disk, r);
    }
    if (sim_off(disk)) return 0;
    CHECK_EQ_U64(sum_of(&r->request), r->sum);
    struct sim_event returned = event_of(r, SIM_RETURNED);
    if (result < 0) {
        if (r->written > 0) sim_record(disk, &returned);
    } else if (r->request.kind == WAL_IO_WRITE_DURABLE) {
        result = complete_durable(disk, r);
    } else {
        result = complete_sync(disk, r);
    }
    *completion = (struct wal_io_completion){.token = r->request.token, .result = result};
    forget(disk, i);
    return 1;
}

/* ---- the verbs ------------------------------------------------------------------------------- */

int sim_submit(struct wal_io *io, const struct wal_io_request *request) {
    struct sim_disk *disk = sim_disk_of(io);
    if (sim_off(disk)) return -EIO;
    CHECK(request->file >= 0 && request->file < SIM_OPEN_MAX);
    const struct sim_open *slot = &disk->open[request->file];
    CHECK(slot->inode != 0 && slot->owner == io);
    if (request->kind == WAL_IO_WRITE_DURABLE) {
        uint64_t both = request->offset | request->bytes | (uintptr_t)request->data;
        CHECK((slot->flags & WAL_IO_DIRECT) != 0 && both % 4096 == 0);
    }
    if (disk->request_count == SIM_REQUESTS_MAX) return -EBUSY;
    struct sim_request *r = calloc(1, sizeof(*r));
    CHECK(r != NULL);
    *r = (struct sim_request){.request = *request, .owner = io, .inode = slot->inode};
    if (request->kind == WAL_IO_SYNC) r->request.bytes = 0;
    r->id = (uint32_t)SIM_STAMP_MAX + ++disk->request_last;
    r->covers = disk->stamp;
    r->sum = sum_of(&r->request);
    disk->requests[disk->request_count++] = r;
    sim_file(disk, r->inode)->opens++; /* as the kernel's ring holds it */
    progress(disk);
    return 0;
}

/* One of io's requests: the oldest, or with async_hold any. */
static size_t pick(struct sim_disk *disk, const struct wal_io *io, size_t among) {
    size_t skip = disk->async_hold > 0 ? (size_t)check_below(&disk->async_seed, among) : 0;
    size_t i = 0;
    while (disk->requests[i]->owner != io || skip-- > 0) i++;
    return i;
}

int sim_reap(struct wal_io *io, struct wal_io_completion *completions, int max, int64_t wait_ns,
             unsigned flags) {
    struct sim_disk *disk = sim_disk_of(io);
    if (sim_off(disk)) return -EIO;
    size_t mine = 0;
    for (size_t i = 0; i < disk->request_count; i++) mine += disk->requests[i]->owner == io;
    if (mine == 0) return 0;
    bool may_signal = disk->async_signal > 0 && (flags & WAL_IO_MAY_BLOCK) == 0;
    if (may_signal && disk->async_signal == 1) return -EINTR;
    if (may_signal) disk->async_signal--;
    disk->calls++;
    if (disk->eintr_every != 0 && disk->calls % disk->eintr_every == 0) return -EINTR;
    progress(disk);
    bool late = wait_ns >= 0 && disk->async_hold > 0 && chance(disk, wait_ns == 0 ? 2 : 8);
    if (late) return 0;
    size_t held = (size_t)check_below(&disk->async_seed, (uint64_t)disk->async_hold + 1);
    int done = 0;
    while (done < max && mine > 0 && (done == 0 || mine > held)) {
        if (!complete(disk, pick(disk, io, mine), &completions[done])) break;
        done++;
        mine--;
    }
    return done > 0 ? done : -EIO; /* the power went in the middle */
}

int sim_register_buffers(struct wal_io *io, void *memory, size_t bytes, unsigned count) {
    (void)io;
    CHECK((uintptr_t)memory % 4096 == 0 && bytes % 4096 == 0 && count > 0);
    return 0;
}
