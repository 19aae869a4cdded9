/* Groups in flight: begin, wait, settle in order; see flight.h. */
#include "flight.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "error.h"
#include "hooks.h"
#include "writer.h"

enum { REAP_MAX = 64 };

/* ---- the list -------------------------------------------------------------------------------- */

static struct wal_group *group_at(const struct wal_flight *flight, uint64_t number) {
    assert(number >= flight->first && number < flight->next);
    return &flight->groups[number % flight->room];
}

int wal_flight_reserve(struct wal_writer *writer) {
    struct wal_flight *flight = &writer->flight;
    if (flight->next - flight->first < flight->room) return 0;
    size_t room = flight->room == 0 ? 16 : flight->room * 2;
    struct wal_group *more = wal_calloc(room, sizeof *more);
    if (more == NULL) return -ENOMEM;
    for (uint64_t i = flight->first; i < flight->next; i++) more[i % room] = *group_at(flight, i);
    wal_free(flight->groups);
    flight->groups = more;
    flight->room = room;
    return 0;
}

int wal_flight_has_room(const struct wal_writer *writer, uint64_t bytes) {
    const struct wal_flight *flight = &writer->flight;
    if (flight->first == flight->next) return 1; /* larger than the arena: alone in flight */
    if (flight->next - flight->first >= writer->options.ring.max_inflight) return 0;
    return wal_arena_has(&flight->arena, bytes);
}

/* ---- what a group comes to ------------------------------------------------------------------- */

static void publish(struct wal_writer *writer, uint64_t lsn, uint64_t segment_id) {
    if (lsn < writer->durable_lsn) return;
    uint64_t records = lsn - writer->durable_lsn;
    writer->durable_lsn = lsn;
    writer->synced_segment_id = segment_id;
    writer->stats.group_records += records;
    writer->stats.records_durable += records;
    if (records > writer->stats.group_records_max) writer->stats.group_records_max = records;
    wal_release_followers(writer);
    wal_announce(writer);
}

static void settle_one(struct wal_writer *writer, const struct wal_group *group) {
    struct wal_tail *tail = &writer->tail;
    uint64_t now_ns = wal_monotonic_ns();
    writer->stats.syncs++;
    wal_histogram_record(&writer->sync_latency, now_ns - group->begun_ns);
    tail->unsynced_bytes -=
        group->bytes < tail->unsynced_bytes ? group->bytes : tail->unsynced_bytes;
    writer->last_activity_ns = now_ns;
    writer->idle_mark_due = tail->offset == group->end_offset;
    publish(writer, group->lsn, group->segment_id);
}

/*
 * While the filler's sync of the tail is under way nothing is published: a failed flush is told
 * only once, and it may be told to the filler (background.c).
 */
void wal_settle(struct wal_writer *writer) {
    struct wal_flight *flight = &writer->flight;
    int settled = 0;
    while (flight->first < flight->next) {
        struct wal_group *group = group_at(flight, flight->first);
        if (!group->is_done || writer->tail.fill_syncing) break;
        if (group->run.data != NULL) wal_arena_give(&flight->arena, &group->run);
        if (!writer->poisoned) settle_one(writer, group);
        flight->first++;
        settled = 1;
    }
    if (!settled) return;
    wal_announce(writer);
    wal_background_notice(writer);
}

static void take_completion(struct wal_writer *writer, const struct wal_io_completion *completion) {
    struct wal_flight *flight = &writer->flight;
    struct wal_group *group = group_at(flight, completion->token);
    assert(!group->is_done);
    WAL_FAIL_POINT("sync.after");
    group->is_done = 1;
    flight->undone--;
    if (WAL_MUTANT(D1_ACK_BEHIND_HOLE)) publish(writer, group->lsn, group->segment_id);
    if (completion->result == 0) return;
    const char *what = group->kind == WAL_IO_SYNC         ? "a sync failed"
                       : group->kind == WAL_IO_WRITE_SYNC ? "a write or its sync failed"
                                                          : "a synced write failed";
    (void)wal_poison(writer, completion->result, what, group->end_offset, NULL);
}

/* ---- begin ----------------------------------------------------------------------------------- */

static struct wal_group *push(struct wal_writer *writer, enum wal_io_kind kind) {
    struct wal_flight *flight = &writer->flight;
    assert(flight->next - flight->first < flight->room);
    flight->next++;
    flight->undone++;
    struct wal_group *group = group_at(flight, flight->next - 1);
    *group = (struct wal_group){
        .kind = kind,
        .end_offset = writer->tail.offset,
        .lsn = writer->next_lsn - 1,
        .segment_id = writer->tail.segment.header.segment_id,
        .begun_ns = wal_monotonic_ns(),
    };
    return group;
}

/* The device was told nothing: the group is done, and so is the writer. */
static int give_up(struct wal_writer *writer, struct wal_group *group, int code, wal_error *error) {
    group->is_done = 1;
    writer->flight.undone--;
    (void)wal_poison(writer, code, "a sync could not be begun", group->end_offset, error);
    wal_settle(writer);
    return WAL_E_POISONED;
}

int wal_begin_sync(struct wal_writer *writer, wal_error *error) {
    struct wal_tail *tail = &writer->tail;
    int result = wal_flight_reserve(writer);
    if (result < 0) return wal_fail(error, result, WAL_NOWHERE, "out of memory");
    struct wal_group *group = push(writer, WAL_IO_SYNC);
    group->bytes = tail->unsynced_bytes;
    if (WAL_MUTANT(M2_ACK_BEFORE_SYNC)) publish(writer, group->lsn, group->segment_id);
    WAL_FAIL_POINT("sync.before");
    struct wal_io_request request = {
        .kind = WAL_IO_SYNC, .file = tail->file, .token = writer->flight.next - 1};
    if (WAL_MUTANT(M1_SKIP_SYNC)) {
        take_completion(writer, &(struct wal_io_completion){.token = request.token});
        wal_settle(writer);
        return 0;
    }
    result = wal_io_submit(writer->io, &request);
    if (result == -ENOMEM) { /* nothing was begun, and nothing is lost */
        writer->flight.next--;
        writer->flight.undone--;
        return wal_fail(error, result, WAL_NOWHERE, "out of memory");
    }
    return result < 0 ? give_up(writer, group, result, error) : 0;
}

/* What mutant F1 does instead: the write, and the belief that it is durable. */
static int plain(struct wal_writer *writer, const struct wal_io_request *request) {
    struct iovec part = {.iov_base = (void *)(uintptr_t)request->data, .iov_len = request->bytes};
    (void)wal_io_write(writer->io, request->file, request->offset, &part, 1);
    take_completion(writer, &(struct wal_io_completion){.token = request->token});
    wal_settle(writer);
    return 0;
}

int wal_begin_write(struct wal_writer *writer, enum wal_io_kind kind, const struct wal_run *run,
                    uint64_t offset, uint64_t bytes, wal_error *error) {
    struct wal_group *group = push(writer, kind);
    group->run = *run;
    group->offset = offset;
    group->bytes = kind == WAL_IO_WRITE_SYNC ? writer->tail.unsynced_bytes : bytes;
    if (WAL_MUTANT(M2_ACK_BEFORE_SYNC)) publish(writer, group->lsn, group->segment_id);
    WAL_FAIL_POINT("sync.before");
    struct wal_io_request request = {
        .kind = kind,
        .file = writer->tail.file,
        .offset = offset,
        .data = run->data,
        .bytes = (size_t)bytes,
        .token = writer->flight.next - 1,
    };
    if (WAL_MUTANT(F1_APPEND_PLAIN) && kind == WAL_IO_WRITE_DURABLE) return plain(writer, &request);
    int result = wal_io_submit(writer->io, &request);
    return result < 0 ? give_up(writer, group, result, error) : 0;
}

int wal_flight_is_writing(const struct wal_writer *writer) {
    const struct wal_flight *flight = &writer->flight;
    if (writer->direct || writer->options.commit_alignment != WAL_BLOCK_BYTES) return 0;
    for (uint64_t i = flight->first; i < flight->next; i++) {
        const struct wal_group *group = group_at(flight, i);
        if (group->kind == WAL_IO_WRITE_SYNC && !group->is_done) return 1;
    }
    return 0;
}

/*
 * A linked write may still sit in a queue, and dies there with the process. Who appends behind it
 * promises that everything before is with the operating system; so the same bytes go to the same
 * place once more, through the page cache. It costs a copy, and only when two threads meet.
 */
int wal_hand_over_flying(struct wal_writer *writer, wal_error *error) {
    struct wal_flight *flight = &writer->flight;
    for (uint64_t i = flight->first; i < flight->next; i++) {
        struct wal_group *group = group_at(flight, i);
        if (group->kind != WAL_IO_WRITE_SYNC || group->is_done || group->is_handed) continue;
        if (WAL_MUTANT(D2_APPEND_BEHIND_FLYING)) continue;
        struct iovec part = {.iov_base = group->run.data,
                             .iov_len = (size_t)(group->end_offset - group->offset)};
        int result = wal_io_write(writer->io, writer->tail.file, group->offset, &part, 1);
        if (result < 0) return wal_poison(writer, result, "a write failed", group->offset, error);
        group->is_handed = 1;
    }
    return 0;
}

/* ---- wait ------------------------------------------------------------------------------------ */

static int64_t patience_ns(const struct wal_call *call) {
    if (call->deadline_ns == 0) return -1;
    uint64_t now_ns = wal_monotonic_ns();
    return now_ns < call->deadline_ns ? (int64_t)(call->deadline_ns - now_ns) : 0;
}

static int reap(struct wal_writer *writer, struct wal_call *call) {
    struct wal_flight *flight = &writer->flight;
    struct wal_io_completion completions[REAP_MAX];
    unsigned flags = call->flags & WAL_INTERRUPTIBLE ? 0 : WAL_IO_MAY_BLOCK;
    int64_t wait_ns = patience_ns(call);
    flight->reaping = 1;
    pthread_mutex_unlock(&writer->mutex);
    int count = wal_io_reap(writer->io, completions, REAP_MAX, wait_ns, flags);
    pthread_mutex_lock(&writer->mutex);
    flight->reaping = 0;
    for (int i = 0; i < count; i++) take_completion(writer, &completions[i]);
    wal_settle(writer);
    if (flight->undone > 0) wal_announce(writer); /* somebody else's turn */
    if (count < 0 && count != -EINTR) {
        flight->broken = count;
        (void)wal_poison(writer, count, "the ring failed", writer->tail.offset, NULL);
    }
    if (count > 0 || call->deadline_ns == 0 || flight->broken) return 0; /* look again */
    return count == -EINTR || wal_monotonic_ns() >= call->deadline_ns ? WAL_E_AGAIN : 0;
}

int wal_may_reap(const struct wal_writer *writer) {
    const struct wal_flight *flight = &writer->flight;
    return flight->undone > 0 && !flight->reaping && !flight->broken;
}

int wal_await(struct wal_writer *writer, struct wal_call *call) {
    return wal_may_reap(writer) ? reap(writer, call) : wal_wait(writer, call);
}

int wal_drain(struct wal_writer *writer, wal_error *error) {
    struct wal_flight *flight = &writer->flight;
    struct wal_call call = wal_call_begin(0, error);
    uint64_t until = flight->next;
    while (flight->first < until && !flight->broken) (void)wal_await(writer, &call);
    wal_hand_on(writer); /* what was begun meanwhile is for those who wait for it */
    return writer->poisoned ? wal_tell_poison(writer, error) : 0;
}

/* ---- beginning and end ----------------------------------------------------------------------- */

int wal_flight_init(struct wal_writer *writer) {
    const wal_ring_options *ring = &writer->options.ring;
    int result = wal_flight_reserve(writer); /* and a commit allocates no more */
    if (result < 0) return result;
    if (!writer->direct && !writer->links) return 0; /* writes go straight to the page cache */
    size_t buffer = (size_t)ring->buffer_bytes;
    result = wal_arena_init(&writer->flight.arena, buffer * ring->registered_buffers);
    if (result < 0) return result;
    /* A refusal costs speed and no promise; the ring says so in its own words. */
    (void)wal_io_register_buffers(writer->io, writer->flight.arena.memory, buffer,
                                  ring->registered_buffers);
    return 0;
}

void wal_flight_reset(struct wal_writer *writer) {
    struct wal_flight *flight = &writer->flight;
    for (; flight->first < flight->next; flight->first++) {
        struct wal_group *group = group_at(flight, flight->first);
        if (group->run.data != NULL) wal_arena_give(&flight->arena, &group->run);
    }
    if (writer->tail.run.data != NULL) { /* the youngest */
        wal_arena_give(&flight->arena, &writer->tail.run);
        writer->tail.run.data = NULL;
    }
    flight->undone = 0;
    flight->broken = 0;
}

void wal_flight_free(struct wal_writer *writer) {
    struct wal_flight *flight = &writer->flight;
    wal_flight_reset(writer);
    wal_arena_free(&flight->arena);
    wal_free(flight->groups);
    *flight = (struct wal_flight){.groups = NULL};
}
