/*
 * Where does the log end? The decision table for the newest segment.
 *
 * Let p be the first position of the segment that is not the next valid frame. The facts:
 *
 *   slot    what the end slot says: none, an end before p, at p (sealed or not), past p
 *   at p    nothing of ours; a torn frame (ours, header or payload CRC wrong); a valid frame with
 *           the wrong LSN or link, or a valid CRC over nonsense (misplaced)
 *   behind  header-valid frames of this salt behind p: none, some, one that says that p was durable
 *   group   the last frames before p are an atomic group without its LAST
 *   file    whole, or shorter than its header says: a segment gets its name when its whole size is
 *           durable, and is cut only when its successor's START is, so no crash shortens the newest
 *
 *   case            slot      at p       behind   group   decision
 *   END_PAST        past p    any        any      any     corrupt: that end was synced once
 *   END_PAST        not sealed@p, and the file is short   corrupt: what was cut off is not known
 *   DURABLE_BEHIND  not past  any        durable  any     corrupt: those bytes were acknowledged
 *   MISPLACED       not past  misplaced  none/some any    corrupt: no crash makes one
 *   TORN_BEHIND     not past  not mispl. some     any     torn: from p on all is dropped
 *   TORN_FRAME      not past  torn       none     any     torn: the same
 *   ATOMIC_CUT      not past  nothing    none     open    torn: the group is dropped
 *   SEALED          sealed@p  nothing    none     whole   clean
 *   IDLE            idle@p    nothing    none     whole   the writer was idle when it ended
 *   OPEN            before/none nothing  none     whole   the writer was at work when it ended
 *
 * A torn end drops an open atomic group before p as well. Frames before p stay in every case.
 * The rows are checked top-down and are exhaustive: wal_decide has no other way out.
 */
#ifndef WALENGINE_RECOVER_H
#define WALENGINE_RECOVER_H

#include "index.h"
#include "scan.h"
#include "segment.h"
#include "walengine.h"

enum wal_slot_fact {
    WAL_SLOT_NONE,
    WAL_SLOT_BEFORE,
    WAL_SLOT_IDLE_AT,
    WAL_SLOT_SEALED_AT,
    WAL_SLOT_PAST
};
enum wal_at_fact { WAL_AT_NOTHING, WAL_AT_TORN, WAL_AT_MISPLACED };
enum wal_behind_fact { WAL_BEHIND_NONE, WAL_BEHIND_SOME, WAL_BEHIND_DURABLE };

struct wal_facts {
    enum wal_slot_fact slot;
    enum wal_at_fact at;
    enum wal_behind_fact behind;
    int group_open;
    int file_is_short;
};

enum wal_case wal_decide(const struct wal_facts *facts);
enum wal_verdict wal_verdict_of(enum wal_case decision);

/* The end of a segment, as recovery found it. */
struct wal_tail_end {
    enum wal_case decision;
    uint64_t offset; /* where the log ends, an open atomic group cut off */
    uint64_t damage; /* p itself */
    uint64_t next_lsn;
    uint32_t previous_crc; /* of the last frame that stays */
    int has_records;
    struct wal_behind behind;
    uint64_t dropped_frames;
    uint64_t dropped_records;
    uint64_t dropped_bytes;
};

/*
 * Walk the newest segment to its end and decide. live: the writer may be at work, so what looks
 * damaged is read again first. index (may be NULL) collects the sparse index of what stays.
 * 0, WAL_E_UNSUPPORTED_FORMAT, or a negative code if the disk failed: that is never "the end".
 */
int wal_recover_tail(struct wal_io *io, int file, struct wal_segment *segment, int live,
                     struct wal_index *index, struct wal_tail_end *end, uint64_t *bytes_scanned,
                     wal_error *error);

#endif
