/* The decision table, and the walk that finds its facts. recover.h has the table. */
#include "recover.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "error.h"
#include "hooks.h"

enum { LIVE_LOOKS_MAX = 64 };

/* ---- the table ------------------------------------------------------------------------------- */

enum wal_case wal_decide(const struct wal_facts *facts) {
    if (facts->slot == WAL_SLOT_PAST) return WAL_CASE_END_PAST;
    if (facts->file_is_short && facts->slot != WAL_SLOT_SEALED_AT) return WAL_CASE_END_PAST;
    if (facts->behind == WAL_BEHIND_DURABLE) return WAL_CASE_DURABLE_BEHIND;
    if (facts->at == WAL_AT_MISPLACED) return WAL_CASE_MISPLACED;
    if (facts->behind == WAL_BEHIND_SOME) return WAL_CASE_TORN_BEHIND;
    if (facts->at == WAL_AT_TORN) return WAL_CASE_TORN_FRAME;
    assert(facts->at == WAL_AT_NOTHING && facts->behind == WAL_BEHIND_NONE);
    if (facts->group_open) return WAL_CASE_ATOMIC_CUT;
    if (facts->slot == WAL_SLOT_SEALED_AT) return WAL_CASE_SEALED;
    if (facts->slot == WAL_SLOT_IDLE_AT) return WAL_CASE_IDLE;
    assert(facts->slot == WAL_SLOT_NONE || facts->slot == WAL_SLOT_BEFORE);
    return WAL_CASE_OPEN;
}

enum wal_verdict wal_verdict_of(enum wal_case decision) {
    switch (decision) {
        case WAL_CASE_NEW: return WAL_VERDICT_NEW;
        case WAL_CASE_SEALED: return WAL_VERDICT_CLEAN;
        case WAL_CASE_IDLE:
        case WAL_CASE_OPEN: return WAL_VERDICT_UNSEALED;
        case WAL_CASE_TORN_FRAME:
        case WAL_CASE_TORN_BEHIND:
        case WAL_CASE_ATOMIC_CUT: return WAL_VERDICT_TORN;
        case WAL_CASE_END_PAST:
        case WAL_CASE_DURABLE_BEHIND:
        case WAL_CASE_MISPLACED:
        case WAL_CASE_CHAIN_BROKEN:
        case WAL_CASE_META_LOST: return WAL_VERDICT_CORRUPT;
    }
    return WAL_VERDICT_CORRUPT;
}

const char *wal_case_text(uint32_t decision) {
    switch (decision) {
        case WAL_CASE_NEW: return "no frame was ever written";
        case WAL_CASE_SEALED: return "the segment is sealed at its end";
        case WAL_CASE_IDLE: return "the idle watermark stands at the end";
        case WAL_CASE_OPEN: return "the log ends behind a whole frame and nothing follows";
        case WAL_CASE_TORN_FRAME: return "the last frame is not whole";
        case WAL_CASE_TORN_BEHIND: return "un-acknowledged frames stand behind a gap";
        case WAL_CASE_ATOMIC_CUT: return "the last atomic group is not whole";
        case WAL_CASE_END_PAST: return "the log ends before the end that was recorded for it";
        case WAL_CASE_DURABLE_BEHIND:
            return "a later frame says that the damaged bytes were durable";
        case WAL_CASE_MISPLACED: return "a valid frame stands where another one belongs";
        case WAL_CASE_CHAIN_BROKEN: return "a segment of the chain is missing or unreadable";
        case WAL_CASE_META_LOST: return "META and the segments do not belong together";
        default: return "unknown case";
    }
}

/* ---- the walk to the end --------------------------------------------------------------------- */

/* Where the last frame ended that no open atomic group holds. */
struct safe_point {
    uint64_t offset;
    uint64_t lsn;
    uint32_t previous_crc;
};

struct tail_walk {
    struct wal_walk walk;
    struct safe_point safe;
    int group_open;
    uint64_t group_frames;
    int has_records;
    int safe_has_records; /* before the safe point */
    struct wal_index *index;
};

static struct safe_point point_of(const struct wal_walk *walk) {
    return (struct safe_point){walk->offset, walk->lsn, walk->previous_crc};
}

static void note_step(struct tail_walk *tail) {
    const struct wal_disk_frame *frame = &tail->walk.frame;
    if (frame->flags & WAL_FLAG_ATOMIC_FIRST) tail->group_open = 1;
    tail->group_frames = tail->group_open ? tail->group_frames + 1 : 0;
    if (frame->flags & WAL_FLAG_ATOMIC_LAST) tail->group_open = 0;
    if (!(frame->flags & WAL_FLAGS_ATOMIC) && frame->type == WAL_TYPE_DATA) tail->group_open = 0;
    if (frame->type == WAL_TYPE_DATA) {
        tail->has_records = 1;
        if (tail->index != NULL) {
            wal_index_note(tail->index, frame->first_lsn, frame->own_offset);
        }
    }
    if (!tail->group_open) {
        tail->group_frames = 0;
        tail->safe = point_of(&tail->walk);
        tail->safe_has_records = tail->has_records;
    }
}

/* Go on to the first position that is not the next valid frame; enum wal_stop or negative. */
static int walk_to_stop(struct tail_walk *tail) {
    for (;;) {
        int stop = wal_walk_next(&tail->walk);
        if (stop != WAL_STOP_NONE) return stop;
        note_step(tail);
    }
}

static enum wal_at_fact at_fact(int stop) {
    switch (stop) {
        case WAL_STOP_BROKEN:
        case WAL_STOP_PAYLOAD: return WAL_AT_TORN;
        case WAL_STOP_MISPLACED:
        case WAL_STOP_MALFORMED: return WAL_AT_MISPLACED;
        default: return WAL_AT_NOTHING;
    }
}

static enum wal_slot_fact slot_fact(const struct wal_segment *segment, uint64_t p) {
    if (!segment->has_slot) return WAL_SLOT_NONE;
    if (segment->slot.end_offset > p) return WAL_SLOT_PAST;
    if (segment->slot.end_offset < p) return WAL_SLOT_BEFORE;
    return segment->slot.sealed ? WAL_SLOT_SEALED_AT : WAL_SLOT_IDLE_AT;
}

static enum wal_behind_fact behind_fact(const struct wal_behind *behind) {
    if (behind->evidence_offset != 0) return WAL_BEHIND_DURABLE;
    return behind->frames > 0 ? WAL_BEHIND_SOME : WAL_BEHIND_NONE;
}

/* Find the facts at the stop. The frame at p itself is "at p", not "behind". */
static int find_facts(struct tail_walk *tail, int stop, const struct wal_segment *segment,
                      struct wal_behind *behind, struct wal_facts *facts) {
    uint64_t p = tail->walk.offset;
    struct wal_window *window = tail->walk.window;
    int result = wal_look_behind(window, &tail->walk.context, p + WAL_FRAME_ALIGNMENT,
                                 tail->walk.lsn, behind);
    if (result < 0) return result;
    *facts = (struct wal_facts){
        .slot = slot_fact(segment, p),
        .at = at_fact(stop),
        .behind = behind_fact(behind),
        .group_open = tail->group_open,
        .file_is_short = segment->file_bytes < segment->header.segment_bytes,
    };
    return 0;
}

static void fill_end(const struct tail_walk *tail, int stop, const struct wal_behind *behind,
                     enum wal_case decision, struct wal_tail_end *end) {
    const struct wal_walk *walk = &tail->walk;
    *end = (struct wal_tail_end){
        .decision = decision,
        .offset = tail->safe.offset,
        .damage = walk->offset,
        .next_lsn = tail->safe.lsn,
        .previous_crc = tail->safe.previous_crc,
        .has_records = tail->safe_has_records,
        .behind = *behind,
        .dropped_frames = behind->frames + tail->group_frames,
        .dropped_records = behind->records + (walk->lsn - tail->safe.lsn),
    };
    uint64_t last = walk->offset;
    if (stop == WAL_STOP_PAYLOAD) { /* a frame whose header we can read, and not its payload */
        end->dropped_frames++;
        end->dropped_records += walk->frame.record_count;
        last = wal_frame_end(&walk->frame, walk->context.alignment);
    }
    if (stop == WAL_STOP_BROKEN) { /* a frame began here; how long it was, nobody knows */
        end->dropped_frames++;
        last += WAL_FRAME_HEADER_BYTES;
    }
    if (behind->last_end > last) last = behind->last_end;
    end->dropped_bytes = last - tail->safe.offset;
}

/*
 * A writer at work may have moved on between our reads of p and of what lies behind it: read p
 * again, and the slot. What is still wrong then, with nothing gained, is wrong.
 */
static int look_again(struct tail_walk *tail, struct wal_io *io, int file,
                      struct wal_segment *segment, int *moved, wal_error *error) {
    uint64_t before = tail->walk.offset;
    wal_window_forget(tail->walk.window);
    struct wal_segment now = *segment;
    now.has_slot = 0;
    int result = wal_segment_load(io, file, segment->header.segment_id, &now, error);
    if (result < 0) return result;
    int slot_moved = memcmp(&now.slot, &segment->slot, sizeof now.slot) != 0;
    segment->slot = now.slot;
    segment->has_slot = now.has_slot;
    int stop = walk_to_stop(tail);
    *moved = tail->walk.offset != before || slot_moved;
    return stop;
}

static int walk_and_decide(struct tail_walk *tail, struct wal_io *io, int file,
                           struct wal_segment *segment, int live, struct wal_tail_end *end,
                           wal_error *error) {
    struct wal_place place = {.file = segment->name, .segment_id = segment->header.segment_id};
    struct wal_behind behind;
    struct wal_facts facts;
    int stop = walk_to_stop(tail);
    for (int looks = 0;; looks++) {
        int result = stop < 0 ? stop : find_facts(tail, stop, segment, &behind, &facts);
        if (result < 0) {
            place.offset = tail->walk.offset;
            return wal_fail_os(error, result, place, "cannot read the newest segment");
        }
        if (stop == WAL_STOP_UNSUPPORTED) {
            place.offset = tail->walk.offset;
            return wal_fail(error, WAL_E_UNSUPPORTED_FORMAT, place,
                            "a frame has type %#x and flags %#x, which this version does not know; "
                            "use a newer walengine",
                            tail->walk.frame.type, tail->walk.frame.flags);
        }
        enum wal_case decision = wal_decide(&facts);
        fill_end(tail, stop, &behind, decision, end);
        int is_damage = wal_verdict_of(decision) == WAL_VERDICT_CORRUPT;
        if (!live || !is_damage || looks >= LIVE_LOOKS_MAX) return 0;
        int moved = 0;
        stop = look_again(tail, io, file, segment, &moved, error);
        if (stop < 0) return stop;
        if (!moved && looks > 0) return 0;
    }
}

int wal_recover_tail(struct wal_io *io, int file, struct wal_segment *segment, int live,
                     struct wal_index *index, struct wal_tail_end *end, uint64_t *bytes_scanned,
                     wal_error *error) {
    struct wal_window window;
    if (wal_window_open(&window, io, file) < 0) {
        return wal_fail(error, -ENOMEM, WAL_NOWHERE, "out of memory");
    }
    struct tail_walk tail = {.index = index};
    wal_walk_begin(&tail.walk, &window, segment);
    tail.safe = point_of(&tail.walk);
    int result = walk_and_decide(&tail, io, file, segment, live, end, error);
    *bytes_scanned += window.read_bytes;
    wal_window_close(&window);
    return result;
}
