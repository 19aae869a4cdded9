/*
 * Appending: records become frames, frames go to the tail, commits make them durable.
 *
 * A frame takes records until it holds 1 MiB, or a quarter of a segment; a larger record has one
 * of its own. Under commit alignment 4096 every frame is padded, but for those inside an atomic
 * group: any thread may sync between two frames, and no acknowledged sector may be written again.
 * An atomic group is handed over while the mutex is held from first to last, so a sync covers it
 * whole or not at all.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "crc32c.h"
#include "error.h"
#include "hooks.h"
#include "writer.h"

struct batch {
    const char *joined;
    const uint32_t *lengths;
    const uint32_t *crcs; /* NULL: none */
    uint32_t count;
    uint32_t taken;
    uint32_t flags;
    uint64_t payload_bytes_max; /* of a frame with more than one record */
    uint64_t first_lsn;         /* 0 until the first frame is handed over */
};

/* How many of the next records go into one frame, and how many bytes they have. */
static uint32_t plan_frame(const struct batch *batch, uint32_t from, uint64_t *record_bytes,
                           uint64_t *payload_bytes) {
    uint64_t each = batch->crcs != NULL ? 8 : 4;
    uint64_t records = batch->lengths[from];
    uint32_t count = 1;
    while (from + count < batch->count) {
        uint64_t more = records + batch->lengths[from + count];
        if (more + (count + 1) * each > batch->payload_bytes_max) break;
        records = more;
        count++;
    }
    *record_bytes = records;
    *payload_bytes = records + count * each;
    return count;
}

/* Bytes of frames that must find room in one segment: the whole batch if it is atomic. */
static uint64_t plan_room(const struct wal_writer *writer, const struct batch *batch) {
    uint64_t record_bytes, payload_bytes, need = 0;
    uint32_t from = batch->taken;
    do {
        from += plan_frame(batch, from, &record_bytes, &payload_bytes);
        need += wal_frame_bytes(writer, payload_bytes);
    } while ((batch->flags & WAL_ATOMIC) && from < batch->count);
    return need;
}

static int out_of_memory(wal_error *error) {
    return wal_fail(error, -ENOMEM, WAL_NOWHERE, "out of memory; nothing more was appended");
}

static int ensure_tables(struct wal_writer *writer, uint32_t count) {
    size_t entries = (size_t)count * 2;
    if (entries <= writer->table_room) return 0;
    void *more = wal_realloc(writer->tables, entries * sizeof *writer->tables);
    if (more == NULL) return -ENOMEM;
    writer->tables = more;
    writer->table_room = entries;
    return 0;
}

static uint16_t frame_flags(const struct wal_writer *writer, const struct batch *batch,
                            uint32_t count, int is_single) {
    int is_first = batch->taken == 0, is_last = batch->taken + count == batch->count;
    int is_inside = (batch->flags & WAL_ATOMIC) && !is_last;
    unsigned flags = batch->crcs != NULL ? WAL_FLAG_RECORD_CRC : 0;
    if (batch->flags & WAL_ATOMIC && !(is_first && is_last)) {
        if (is_first) {
            flags |= WAL_FLAG_ATOMIC_FIRST;
        } else {
            flags |= is_last ? WAL_FLAG_ATOMIC_LAST : WAL_FLAG_ATOMIC_CONT;
        }
    }
    int padded = writer->options.commit_alignment == WAL_BLOCK_BYTES && !is_inside;
    int is_plain = WAL_MUTANT(F2_APPEND_NOT_PADDED) && is_single && !writer->direct;
    if (padded && !is_plain) flags |= WAL_FLAG_PADDED;
    return (uint16_t)flags;
}

/* Frame the next records and hand them over. Room has been made, and memory. */
static int put_records(struct wal_writer *writer, struct batch *batch, wal_error *error) {
    uint64_t record_bytes, payload_bytes;
    uint32_t count = plan_frame(batch, batch->taken, &record_bytes, &payload_bytes);
    uint64_t end = 0;
    for (uint32_t i = 0; i < count; i++) {
        end += batch->lengths[batch->taken + i];
        writer->tables[i] = (uint32_t)end;
    }
    uint32_t entries = count;
    if (batch->crcs != NULL) {
        memcpy(writer->tables + count, batch->crcs + batch->taken, count * sizeof *batch->crcs);
        entries *= 2;
    }
    struct iovec parts[2] = {
        {.iov_base = (void *)(uintptr_t)batch->joined, .iov_len = record_bytes},
        {.iov_base = writer->tables, .iov_len = entries * sizeof *writer->tables},
    };
    struct wal_frame_body body = {
        .type = WAL_TYPE_DATA,
        .flags = frame_flags(writer, batch, count, batch->count == 1),
        .record_count = count,
        .parts = parts,
        .part_count = 2,
    };
    uint64_t lsn = writer->next_lsn;
    int result = wal_tail_put(writer, &body, error);
    if (result < 0) return result;
    if (batch->taken == 0) batch->first_lsn = lsn;
    batch->joined += record_bytes;
    batch->taken += count;
    return 0;
}

/* A CRC that is wrong already would be acknowledged here and refused by every later open. */
static int check_batch(const struct wal_writer *writer, const struct batch *batch,
                       wal_error *error) {
    const char *record = batch->joined;
    for (uint32_t i = 0; i < batch->count; i++) {
        if (batch->lengths[i] > writer->options.record_bytes_max) {
            return wal_fail(error, WAL_E_TOO_LARGE, WAL_NOWHERE,
                            "a record of %u bytes is larger than record_bytes_max, %llu",
                            batch->lengths[i],
                            (unsigned long long)writer->options.record_bytes_max);
        }
        if (batch->crcs != NULL && batch->crcs[i] != wal_crc32c(0, record, batch->lengths[i])) {
            return wal_fail(error, WAL_E_INVALID, WAL_NOWHERE,
                            "record %u of this call does not match its CRC32C: it changed since "
                            "that was computed; nothing was appended",
                            i);
        }
        record += batch->lengths[i];
    }
    return 0;
}

/* Memory for the tables of every frame of an atomic group, so that none fails in its middle. */
static int reserve_for_group(struct wal_writer *writer, const struct batch *batch,
                             wal_error *error) {
    uint64_t record_bytes, payload_bytes;
    if (!(batch->flags & WAL_ATOMIC)) return 0;
    for (uint32_t from = 0; from < batch->count;) {
        uint32_t count = plan_frame(batch, from, &record_bytes, &payload_bytes);
        if (ensure_tables(writer, count) < 0) return out_of_memory(error);
        from += count;
    }
    return 0;
}

/* Do the next need bytes of frames go down as one write with its sync behind it? */
static int is_linked(const struct wal_writer *writer, const struct batch *batch, uint64_t need) {
    uint64_t record_bytes, payload_bytes;
    const struct wal_flight *flight = &writer->flight;
    if (!(batch->flags & WAL_DURABLE) || !writer->links || writer->direct) return 0;
    if (writer->leading || flight->first != flight->next) return 0; /* one sync at a time */
    uint32_t next = batch->taken + plan_frame(batch, batch->taken, &record_bytes, &payload_bytes);
    int is_last = next == batch->count;
    return (is_last || (batch->flags & WAL_ATOMIC)) && wal_arena_has(&flight->arena, need);
}

/* The next frame, or all of an atomic group, for which there is room. */
static int put_group(struct wal_writer *writer, struct batch *batch, uint64_t need,
                     wal_error *error) {
    uint64_t record_bytes, payload_bytes;
    uint32_t count = plan_frame(batch, batch->taken, &record_bytes, &payload_bytes);
    if (ensure_tables(writer, count) < 0) return out_of_memory(error);
    int linked = is_linked(writer, batch, need);
    if (linked || writer->direct) {
        int result = wal_tail_open_run(writer, need);
        if (result < 0 && writer->direct) return out_of_memory(error);
        linked = linked && result == 0;
    }
    int result;
    do {
        result = put_records(writer, batch, error);
    } while (result == 0 && (batch->flags & WAL_ATOMIC) && batch->taken < batch->count);
    if (result == 0 && linked) result = wal_tail_send(writer, WAL_IO_WRITE_SYNC, error);
    return result;
}

static int append_batch(struct wal_writer *writer, struct batch *batch, struct wal_call *call) {
    int result = reserve_for_group(writer, batch, call->error);
    writer->claim_lsn = writer->durable_lsn;
    while (result == 0 && batch->taken < batch->count) {
        uint64_t need = plan_room(writer, batch);
        if (writer->poisoned) return wal_tell_poison(writer, call->error);
        if ((batch->flags & WAL_LANE) && !writer->lanes) return WAL_E_AGAIN;
        if (!wal_has_room(writer, need)) {
            result = wal_lead(writer, WAL_STEP_ROOM, need, call);
        } else if (writer->direct ? !wal_flight_has_room(writer, need)
                                  : wal_flight_is_writing(writer)) {
            result = wal_await(writer, call);
        } else {
            result = put_group(writer, batch, need, call->error);
        }
    }
    if (result == 0 && (call->flags & WAL_INTERRUPTIBLE)) writer->left_ticket = 0; /* old news */
    wal_background_notice(writer);
    return result;
}

int wal_writer_append_batch(wal_writer *writer, const void *joined, const uint32_t *lengths,
                            const uint32_t *crcs, uint32_t count, uint32_t flags,
                            uint64_t *first_lsn, uint32_t *taken, wal_error *error) {
    struct batch batch = {
        .joined = joined,
        .lengths = lengths,
        .crcs = flags & WAL_RECORD_CRC ? crcs : NULL,
        .count = count,
        .flags = flags,
        .payload_bytes_max = writer->payload_bytes_max,
    };
    *taken = 0;
    if ((flags & WAL_RECORD_CRC) && crcs == NULL && count > 0) {
        return wal_fail(error, WAL_E_INVALID, WAL_NOWHERE, "RECORD_CRC wants the records' CRCs");
    }
    struct wal_call call = wal_call_begin(flags, error);
    int result = check_batch(writer, &batch, error);
    if (result == 0) result = wal_enter(writer, &call);
    if (result < 0) return result;
    result = append_batch(writer, &batch, &call);
    if (result == 0 && (flags & WAL_DURABLE) && count > 0) {
        result = wal_commit_and_leave(writer, batch.first_lsn + count - 1, &call);
    } else {
        result = wal_leave(writer, result);
    }
    /* All or none: a write that failed in the middle poisoned the writer, and the group is void. */
    int is_void = result < 0 && batch.taken < count && (flags & WAL_ATOMIC);
    *taken = is_void ? 0 : batch.taken;
    if (first_lsn != NULL) *first_lsn = batch.first_lsn;
    return result;
}

int wal_writer_append(wal_writer *writer, const void *data, uint64_t bytes, uint32_t record_crc,
                      uint32_t flags, uint64_t *lsn, wal_error *error) {
    if (bytes > UINT32_MAX - 8) {
        return wal_fail(error, WAL_E_TOO_LARGE, WAL_NOWHERE,
                        "a record of %llu bytes is larger than the format allows, 4294967287",
                        (unsigned long long)bytes);
    }
    uint32_t length = (uint32_t)bytes, taken = 0;
    flags &= ~(uint32_t)WAL_ATOMIC;
    if (writer->direct) flags |= WAL_DURABLE;
    return wal_writer_append_batch(writer, data, &length, &record_crc, 1, flags, lsn, &taken,
                                   error);
}

int wal_writer_lanes(wal_writer *writer, uint32_t open, uint32_t flags, uint64_t *last_lsn) {
    struct wal_call call = wal_call_begin(flags, NULL);
    *last_lsn = 0;
    int result = wal_refuse_forked(writer, NULL);
    if (result == 0) result = wal_lock(writer, &call);
    if (result < 0) return result;
    writer->lanes = open != 0;
    *last_lsn = writer->next_lsn - 1;
    pthread_mutex_unlock(&writer->mutex);
    return 0;
}

/* ---- commits --------------------------------------------------------------------------------- */

static int commit(struct wal_writer *writer, uint64_t lsn, struct wal_call *call) {
    int result = wal_enter(writer, call);
    if (result < 0) return result;
    uint64_t last_lsn = writer->next_lsn - 1;
    if (lsn > last_lsn) {
        result = wal_fail(call->error, WAL_E_INVALID, (struct wal_place){.lsn = lsn},
                          "LSN %llu was not appended yet; the last one is %llu",
                          (unsigned long long)lsn, (unsigned long long)last_lsn);
        return wal_leave(writer, result);
    }
    return wal_commit_and_leave(writer, lsn == 0 ? last_lsn : lsn, call);
}

int wal_writer_commit(wal_writer *writer, uint64_t lsn, uint32_t flags, wal_error *error) {
    struct wal_call call = wal_call_begin(flags, error);
    return commit(writer, lsn, &call);
}

int wal_writer_commit_within(wal_writer *writer, uint64_t lsn, uint64_t timeout_ns, uint32_t flags,
                             wal_error *error) {
    struct wal_call call = wal_call_begin(flags | WAL_INTERRUPTIBLE, error);
    uint64_t now_ns = wal_monotonic_ns(); /* perhaps long behind begin's: no slice is left then */
    uint64_t slice_ns = call.deadline_ns > now_ns ? call.deadline_ns - now_ns : 0;
    if (timeout_ns < slice_ns) call.deadline_ns = now_ns + timeout_ns;
    return commit(writer, lsn, &call);
}

int wal_writer_truncate_before(wal_writer *writer, uint64_t lsn, uint32_t flags, wal_error *error) {
    struct wal_call call = wal_call_begin(flags, error);
    int result = wal_enter(writer, &call);
    if (result < 0) return result;
    uint64_t last_lsn = writer->next_lsn - 1;
    uint64_t target = lsn <= last_lsn ? lsn : last_lsn + 1;
    /* The step syncs first, also where there is nothing left to trim. */
    while (result == 0 && (writer->durable_lsn < last_lsn || writer->trim_lsn < target)) {
        result = wal_lead(writer, WAL_STEP_TRIM, WAL_MUTANT(F5_TRIM_AHEAD) ? lsn : target, &call);
    }
    return wal_leave(writer, result);
}
