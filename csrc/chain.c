/* Loading the chain; chain.h has the rules. */
#include "chain.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "hooks.h"

/* What the directory lists, sorted. */
struct listing {
    struct wal_io_name *names;
    size_t name_count;
    uint64_t *ids; /* of wal- names, descending */
    size_t id_count;
};

struct loader {
    struct wal_io *io;
    unsigned flags;
    struct wal_index *index;
    struct wal_chain *chain;
    struct wal_segment *loaded; /* every readable wal- file, by descending id */
    size_t loaded_count;
    wal_error *error;
};

/* ---- the directory --------------------------------------------------------------------------- */

static int descending(const void *left, const void *right) {
    uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return a < b ? 1 : a > b ? -1 : 0;
}

static int refuse_special(const char *name, wal_error *error) {
    return wal_fail(error, WAL_E_UNSAFE, WAL_IN_FILE(name),
                    "not a regular file, or not this user's alone (another owner, a hard link); a "
                    "log holds nothing else under its own names, so move it away");
}

static int read_directory(struct loader *loader, struct listing *listing) {
    struct wal_chain *chain = loader->chain;
    int result = wal_io_list(loader->io, &listing->names, &listing->name_count);
    if (result < 0) {
        return wal_fail_os(loader->error, result, WAL_NOWHERE, "cannot list the log's directory");
    }
    size_t room = listing->name_count + 1;
    listing->ids = wal_calloc(room, sizeof *listing->ids);
    chain->spares = wal_calloc(room, sizeof *chain->spares);
    if (listing->ids == NULL || chain->spares == NULL) {
        return wal_fail(loader->error, -ENOMEM, WAL_NOWHERE, "out of memory");
    }
    for (size_t i = 0; i < listing->name_count; i++) {
        const struct wal_io_name *name = &listing->names[i];
        uint64_t number;
        if (wal_parse_segment_name(name->text, &number)) {
            if (!name->is_regular) return refuse_special(name->text, loader->error);
            listing->ids[listing->id_count++] = number;
        } else if (wal_parse_spare_name(name->text, &number)) {
            if (number > chain->highest_spare) chain->highest_spare = number;
            if (name->is_regular) chain->spares[chain->spare_count++] = number;
        }
    }
    qsort(listing->ids, listing->id_count, sizeof *listing->ids, descending);
    if (listing->id_count > 0) chain->highest_id = listing->ids[0];
    return 0;
}

/* ---- segments -------------------------------------------------------------------------------- */

/* Keep the first damage: it stands nearest to the log's end, where loading begins. */
static void note_damage(struct wal_chain *chain, enum wal_case decision, const wal_error *error) {
    if (chain->damage != WAL_CASE_NEW) return;
    chain->damage = decision;
    chain->damage_error = *error;
}

/* Make the file's pages what the device has: sync, then open past the cache. */
static int open_from_device(struct loader *loader, const char *name) {
    int file = wal_io_open(loader->io, name, WAL_IO_READ);
    if (file < 0) return file;
    int result = wal_io_sync(loader->io, file);
    if (result < 0) {
        wal_io_close(loader->io, file);
        return result;
    }
    if (WAL_MUTANT(F3_RECOVER_CACHED)) return file;
    wal_io_close(loader->io, file);
    return wal_io_open(loader->io, name, WAL_IO_READ | WAL_IO_UNCACHED);
}

static int open_segment(struct loader *loader, const char *name, int from_device) {
    struct wal_place place = WAL_IN_FILE(name);
    int file =
        from_device ? open_from_device(loader, name) : wal_io_open(loader->io, name, WAL_IO_READ);
    if (file == WAL_E_UNSAFE || file == -ELOOP) return refuse_special(name, loader->error);
    if (file < 0) return wal_fail_os(loader->error, file, place, "cannot open the segment");
    return file;
}

static int salvages(const struct loader *loader) { return (loader->flags & WAL_LOAD_SALVAGE) != 0; }

/*
 * Load one segment. A damaged one is noted and left out; so is, in a log at work, one that was
 * trimmed since the directory was listed.
 */
static int load_segment(struct loader *loader, uint64_t segment_id, int from_device) {
    struct wal_segment *segment = &loader->loaded[loader->loaded_count];
    memset(segment, 0, sizeof *segment);
    wal_segment_name(segment->name, segment_id);
    int file = open_segment(loader, segment->name, from_device);
    if (file == -ENOENT && (loader->flags & WAL_LOAD_LIVE)) return 0;
    if (file < 0) return file;
    wal_error error;
    int result = wal_segment_load(loader->io, file, segment_id, segment, &error);
    wal_io_close(loader->io, file);
    if (result == 0) {
        loader->loaded_count++;
    } else if (result == WAL_E_CORRUPT || (result == -EIO && salvages(loader))) {
        note_damage(loader->chain, WAL_CASE_CHAIN_BROKEN, &error);
        result = 0;
    } else if (loader->error != NULL) {
        *loader->error = error;
    }
    return result;
}

/* From the highest id down; everything from the newest START up is read from the device. */
static int load_segments(struct loader *loader, const struct listing *listing) {
    loader->loaded = wal_calloc(listing->id_count + 1, sizeof *loader->loaded);
    if (loader->loaded == NULL)
        return wal_fail(loader->error, -ENOMEM, WAL_NOWHERE, "out of memory");
    int from_device = (loader->flags & WAL_LOAD_DEVICE) != 0;
    for (size_t i = 0; i < listing->id_count; i++) {
        size_t before = loader->loaded_count;
        int result = load_segment(loader, listing->ids[i], from_device);
        if (result < 0) return result;
        if (loader->loaded_count > before && loader->loaded[before].has_start) from_device = 0;
    }
    return 0;
}

static struct wal_segment *find_loaded(struct loader *loader, uint64_t segment_id) {
    for (size_t low = 0, high = loader->loaded_count; low < high;) {
        size_t middle = low + (high - low) / 2;
        uint64_t id = loader->loaded[middle].header.segment_id;
        if (id == segment_id) return &loader->loaded[middle];
        if (id > segment_id) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return NULL;
}

static struct wal_segment *highest_started(struct loader *loader, uint64_t below) {
    for (size_t i = 0; i < loader->loaded_count; i++) {
        struct wal_segment *segment = &loader->loaded[i];
        if (segment->has_start && segment->header.segment_id < below) return segment;
    }
    return NULL;
}

/* ---- the chain ------------------------------------------------------------------------------- */

/* Does the predecessor that a START names agree with the segment of that id? NULL: it does. */
static const char *disagreement(const struct wal_segment *segment,
                                const struct wal_segment *predecessor) {
    const struct wal_disk_start *start = &segment->start;
    if (predecessor == NULL || !predecessor->has_start) return "is missing or has no START";
    if (start->predecessor_last_lsn + 1 != start->base_lsn) return "is said to end at another LSN";
    if (predecessor->start.base_lsn > start->base_lsn) return "begins behind it";
    if (start->predecessor_end_offset < WAL_FRAMES_OFFSET) return "is said to end in its header";
    if (start->predecessor_end_offset > predecessor->file_bytes) return "is shorter than its end";
    return NULL;
}

static void break_chain(struct loader *loader, const struct wal_segment *segment,
                        const char *reason) {
    wal_error error;
    char name[WAL_NAME_BYTES];
    wal_segment_name(name, segment->start.predecessor_id);
    struct wal_place place = {.file = name,
                              .segment_id = segment->start.predecessor_id,
                              .offset = segment->start.predecessor_end_offset,
                              .lsn = segment->start.base_lsn - 1};
    (void)wal_fail(&error, WAL_E_CORRUPT, place,
                   "segment %" PRIu64 " follows segment %" PRIu64 ", which %s",
                   segment->header.segment_id, segment->start.predecessor_id, reason);
    note_damage(loader->chain, WAL_CASE_CHAIN_BROKEN, &error);
}

/* The predecessor of a segment; NULL: the chain ends there, or, with *broken, breaks. */
static struct wal_segment *step_back(struct loader *loader, struct wal_segment *segment,
                                     int *broken) {
    uint64_t id = segment->start.predecessor_id;
    *broken = 0;
    if (WAL_MUTANT(F4_NAME_ORDER)) return highest_started(loader, segment->header.segment_id);
    if (segment->start.base_lsn <= loader->chain->trim_lsn || id == 0) return NULL;
    struct wal_segment *predecessor =
        id < segment->header.segment_id ? find_loaded(loader, id) : NULL;
    const char *reason = disagreement(segment, predecessor);
    if (reason != NULL) {
        break_chain(loader, segment, reason);
        *broken = 1;
        return NULL;
    }
    predecessor->end_offset = segment->start.predecessor_end_offset;
    predecessor->last_lsn = segment->start.predecessor_last_lsn;
    predecessor->is_sealed = predecessor->has_slot && predecessor->slot.sealed &&
                             predecessor->slot.end_offset == predecessor->end_offset;
    return predecessor;
}

static void check_oldest(struct loader *loader, const struct wal_segment *oldest) {
    if (oldest->start.base_lsn <= loader->chain->trim_lsn) return;
    if (loader->chain->damage != WAL_CASE_NEW) return;
    wal_error error;
    struct wal_place place = {.file = oldest->name,
                              .segment_id = oldest->header.segment_id,
                              .lsn = oldest->start.base_lsn};
    (void)wal_fail(&error, WAL_E_CORRUPT, place,
                   "the oldest segment begins at LSN %" PRIu64 ", and the log at LSN %" PRIu64,
                   oldest->start.base_lsn, loader->chain->trim_lsn);
    note_damage(loader->chain, WAL_CASE_CHAIN_BROKEN, &error);
    if (loader->flags & WAL_LOAD_SALVAGE) return;
    loader->chain->count = 0; /* nothing stands before this damage */
}

/*
 * The chain broke behind `at`. What stands before the break is the chain that a reader gets: it
 * begins anew below the missing segment. SALVAGE keeps both sides; where the lower one ended is
 * not known then, but for the LSN that it cannot have reached.
 */
static struct wal_segment *cross_gap(struct loader *loader, const struct wal_segment *at,
                                     size_t *count) {
    struct wal_segment *below = highest_started(loader, at->start.predecessor_id);
    if (below != NULL && below->start.base_lsn >= at->start.base_lsn) below = NULL;
    if ((loader->flags & WAL_LOAD_SALVAGE) == 0) {
        *count = 0;
    } else if (below != NULL) {
        below->end_offset = below->file_bytes;
        below->last_lsn = at->start.base_lsn - 1;
    }
    return below;
}

/* Follow the chain back from the newest. */
static int link_chain(struct loader *loader) {
    struct wal_chain *chain = loader->chain;
    struct wal_segment *newest = highest_started(loader, UINT64_MAX);
    if (newest == NULL) return 0;
    if (newest->start.trim_lsn > chain->trim_lsn) chain->trim_lsn = newest->start.trim_lsn;
    struct wal_segment **order = wal_calloc(loader->loaded_count, sizeof *order);
    if (order == NULL) return wal_fail(loader->error, -ENOMEM, WAL_NOWHERE, "out of memory");
    size_t count = 0;
    for (struct wal_segment *at = newest; at != NULL;) {
        order[count++] = at;
        int broken = 0;
        struct wal_segment *previous = step_back(loader, at, &broken);
        at = broken ? cross_gap(loader, at, &count) : previous;
    }
    chain->segments = wal_calloc(count + 1, sizeof *chain->segments);
    if (chain->segments == NULL) {
        wal_free(order);
        return wal_fail(loader->error, -ENOMEM, WAL_NOWHERE, "out of memory");
    }
    for (size_t i = 0; i < count; i++) {
        order[count - 1 - i]->in_chain = 1;
        chain->segments[i] = *order[count - 1 - i];
    }
    chain->count = count;
    wal_free(order);
    if (count > 0) check_oldest(loader, &chain->segments[0]);
    return 0;
}

static int recover_newest(struct loader *loader) {
    struct wal_chain *chain = loader->chain;
    chain->end = (struct wal_tail_end){.decision = WAL_CASE_NEW, .next_lsn = chain->trim_lsn};
    if (chain->count == 0) return 0;
    struct wal_segment *newest = &chain->segments[chain->count - 1];
    int device = (loader->flags & WAL_LOAD_DEVICE) != 0;
    int file = open_segment(loader, newest->name, device);
    if (file < 0) return file;
    int result = wal_recover_tail(loader->io, file, newest, (loader->flags & WAL_LOAD_LIVE) != 0,
                                  loader->index, &chain->end, &chain->bytes_scanned, loader->error);
    wal_io_close(loader->io, file);
    if (result == -EIO && salvages(loader)) { /* the cursor finds its way through what is left */
        chain->end = (struct wal_tail_end){
            .decision = WAL_CASE_MISPLACED,
            .offset = newest->start_end,
            .damage = newest->start_end,
            .next_lsn = newest->start.base_lsn,
            .previous_crc = newest->start_crc,
        };
        result = 0;
    }
    newest->end_offset = chain->end.offset;
    newest->last_lsn = chain->end.next_lsn - 1;
    newest->is_sealed = chain->end.decision == WAL_CASE_SEALED;
    return result;
}

/*
 * A rotation seals the old segment with its successor's id. That one's name was durable before,
 * and no life gives it up until another segment follows: where it is missing, somebody took it.
 */
static void check_successor(struct loader *loader) {
    struct wal_chain *chain = loader->chain;
    if (chain->end.decision != WAL_CASE_SEALED) return;
    const struct wal_segment *newest = &chain->segments[chain->count - 1];
    uint64_t successor_id = newest->slot.successor_id;
    if (successor_id == 0 || find_loaded(loader, successor_id) != NULL) return;
    wal_error error;
    char name[WAL_NAME_BYTES];
    wal_segment_name(name, successor_id);
    struct wal_place place = {
        .file = name, .segment_id = successor_id, .lsn = newest->last_lsn + 1};
    (void)wal_fail(&error, WAL_E_CORRUPT, place,
                   "segment %" PRIu64 " was sealed for segment %" PRIu64 ", which is missing",
                   newest->header.segment_id, successor_id);
    note_damage(chain, WAL_CASE_CHAIN_BROKEN, &error);
}

/* ---- what is not in the chain ---------------------------------------------------------------- */

static void note_lost_start(struct wal_chain *chain, const struct wal_segment *segment,
                            uint64_t offset, uint64_t lsn) {
    wal_error error;
    struct wal_place place = {.file = segment->name,
                              .segment_id = segment->header.segment_id,
                              .offset = offset,
                              .lsn = lsn};
    (void)wal_fail(&error, WAL_E_CORRUPT, place,
                   "the segment's START is damaged, and offset %" PRIu64
                   " in it shows that LSN "
                   "%" PRIu64 " had been durable",
                   offset, lsn);
    note_damage(chain, WAL_CASE_CHAIN_BROKEN, &error);
}

/*
 * A wal- file without a valid START was prepared and never used, or its START was torn with the
 * first group: then nothing in it claims to have been durable. If something does, it is damage.
 */
static int examine_startless(struct loader *loader, struct wal_other *other) {
    struct wal_chain *chain = loader->chain;
    struct wal_segment *segment = &other->segment;
    uint64_t next_lsn = wal_chain_next_lsn(chain);
    int file = open_segment(loader, segment->name, 0);
    if (file < 0) return file;
    struct wal_window window;
    struct wal_behind behind = {.frames = 0};
    struct wal_frame_context context = wal_segment_context(segment);
    int result = wal_window_open(&window, loader->io, file);
    if (result == 0) {
        result = wal_look_behind(&window, &context, WAL_FRAMES_OFFSET, next_lsn, &behind);
        chain->bytes_scanned += window.read_bytes;
        wal_window_close(&window);
    }
    wal_io_close(loader->io, file);
    if (result < 0) {
        return wal_fail_os(loader->error, result, WAL_IN_FILE(segment->name),
                           "cannot read the segment");
    }
    other->is_prepared = behind.frames == 0 && !segment->has_slot;
    if (behind.evidence_offset != 0) {
        note_lost_start(chain, segment, behind.evidence_offset, behind.evidence_lsn);
    } else if (segment->has_slot && segment->slot.last_lsn >= next_lsn) {
        note_lost_start(chain, segment, WAL_END_SLOT_OFFSET, segment->slot.last_lsn);
    } else if (behind.frames > 0 && !chain->has_meta) {
        note_lost_start(chain, segment, behind.last_end, next_lsn);
    }
    return 0;
}

static int gather_others(struct loader *loader) {
    struct wal_chain *chain = loader->chain;
    chain->others = wal_calloc(loader->loaded_count + 1, sizeof *chain->others);
    if (chain->others == NULL)
        return wal_fail(loader->error, -ENOMEM, WAL_NOWHERE, "out of memory");
    for (size_t i = 0; i < loader->loaded_count; i++) {
        struct wal_segment *segment = &loader->loaded[i];
        if (segment->in_chain) continue;
        struct wal_other *other = &chain->others[chain->other_count++];
        other->segment = *segment;
        if (segment->has_start) continue;
        int result = examine_startless(loader, other);
        if (result == -EIO && salvages(loader)) result = 0; /* there is nothing to salvage in it */
        if (result < 0) return result;
    }
    return 0;
}

/* ---- META ------------------------------------------------------------------------------------ */

static int load_meta(struct loader *loader) {
    struct wal_chain *chain = loader->chain;
    unsigned open_flags = WAL_IO_READ;
    if (loader->flags & WAL_LOAD_DEVICE) {
        int file = open_from_device(loader, "META");
        if (file < 0 && file != -ENOENT && file != WAL_E_UNSAFE && file != -ELOOP) {
            return wal_fail_os(loader->error, file, WAL_IN_FILE("META"), "cannot sync META");
        }
        wal_io_close(loader->io, file);
        if (!WAL_MUTANT(F3_RECOVER_CACHED)) open_flags |= WAL_IO_UNCACHED;
    }
    wal_error error;
    int result = wal_meta_load(loader->io, open_flags, &chain->meta, &error);
    if (result == WAL_E_CORRUPT) {
        note_damage(chain, WAL_CASE_META_LOST, &error);
        chain->trim_lsn = 1;
        return 0;
    }
    if (result < 0) {
        if (loader->error != NULL) *loader->error = error;
        return result;
    }
    chain->has_meta = result == 1;
    chain->trim_lsn = chain->has_meta ? chain->meta.disk.trim_lsn : 1;
    if (chain->has_meta && chain->meta.damaged_slots > 0) chain->warnings |= WAL_WARN_META_SLOT;
    return 0;
}

/* Do META and the segments belong together? */
static void check_meta(struct loader *loader, const struct listing *listing) {
    struct wal_chain *chain = loader->chain;
    wal_error error;
    const char *wrong = NULL;
    if (chain->has_meta && listing->id_count == 0) {
        wrong =
            "META is there and no segment; restore the wal- files, or remove the whole directory";
    } else if (chain->has_meta && chain->count == 0 && chain->trim_lsn > 1) {
        wrong = "META says that records were trimmed, and no segment holds a frame";
    } else if (!chain->has_meta && chain->count > 0) {
        wrong = "there are frames and no META; restore META";
    }
    if (wrong != NULL) {
        (void)wal_fail(&error, WAL_E_CORRUPT, WAL_IN_FILE("META"), "%s", wrong);
        note_damage(chain, WAL_CASE_META_LOST, &error);
        return;
    }
    for (size_t i = 0; chain->has_meta && i < loader->loaded_count; i++) {
        const struct wal_segment *segment = &loader->loaded[i];
        if (memcmp(segment->header.log_uuid, chain->meta.disk.log_uuid, 16) == 0) continue;
        struct wal_place place = {.file = segment->name, .segment_id = segment->header.segment_id};
        (void)wal_fail(&error, WAL_E_CORRUPT, place, "the segment belongs to another log");
        note_damage(chain, WAL_CASE_CHAIN_BROKEN, &error);
    }
}

/* ---- loading --------------------------------------------------------------------------------- */

static int load_all(struct loader *loader, struct listing *listing) {
    if (loader->flags & WAL_LOAD_DEVICE) {
        int result = wal_io_sync_dir(loader->io);
        if (result < 0) {
            return wal_fail_os(loader->error, result, WAL_NOWHERE,
                               "cannot sync the log's directory");
        }
    }
    int result = read_directory(loader, listing);
    if (result == 0) result = load_meta(loader);
    if (result == 0) result = load_segments(loader, listing);
    /* Again: a segment that was gone had been trimmed, and META said so before it went. */
    if (result == 0 && (loader->flags & WAL_LOAD_LIVE) && loader->chain->damage == WAL_CASE_NEW) {
        result = load_meta(loader);
    }
    if (result == 0) result = link_chain(loader);
    if (result == 0) result = recover_newest(loader);
    if (result == 0) check_successor(loader);
    if (result == 0) result = gather_others(loader);
    if (result == 0) check_meta(loader, listing);
    return result;
}

int wal_chain_load(struct wal_io *io, unsigned flags, struct wal_index *index,
                   struct wal_chain *chain, wal_error *error) {
    memset(chain, 0, sizeof *chain);
    struct listing listing = {.names = NULL};
    struct loader loader = {
        .io = io, .flags = flags, .index = index, .chain = chain, .error = error};
    int result = load_all(&loader, &listing);
    chain->warnings |= wal_io_warnings(io);
    wal_free(listing.names);
    wal_free(listing.ids);
    wal_free(loader.loaded);
    if (result < 0) wal_chain_free(chain);
    return result;
}

void wal_chain_free(struct wal_chain *chain) {
    wal_free(chain->segments);
    wal_free(chain->others);
    wal_free(chain->spares);
    memset(chain, 0, sizeof *chain);
}

int wal_chain_is_damaged(const struct wal_chain *chain) {
    return chain->damage != WAL_CASE_NEW ||
           wal_verdict_of(chain->end.decision) == WAL_VERDICT_CORRUPT;
}

uint64_t wal_chain_next_lsn(const struct wal_chain *chain) { return chain->end.next_lsn; }

uint64_t wal_chain_first_lsn(const struct wal_chain *chain) {
    uint64_t first = chain->trim_lsn;
    if (chain->count > 0 && chain->segments[0].start.base_lsn > first) {
        first = chain->segments[0].start.base_lsn;
    }
    return first < chain->end.next_lsn ? first : chain->end.next_lsn;
}

/* ---- telling --------------------------------------------------------------------------------- */

static int slot_is_past(const struct wal_segment *newest, const struct wal_tail_end *end) {
    return newest->has_slot && newest->slot.end_offset > end->damage;
}

int wal_chain_damage(const struct wal_chain *chain, wal_error *error) {
    if (chain->damage != WAL_CASE_NEW) {
        if (error != NULL) *error = chain->damage_error;
        return WAL_E_CORRUPT;
    }
    const struct wal_segment *newest = &chain->segments[chain->count - 1];
    const struct wal_tail_end *end = &chain->end;
    struct wal_place place = {.file = newest->name,
                              .segment_id = newest->header.segment_id,
                              .offset = end->damage,
                              .lsn = end->next_lsn};
    if (end->decision == WAL_CASE_END_PAST && !slot_is_past(newest, end)) {
        return wal_fail(error, WAL_E_CORRUPT, place,
                        "the file was cut to %" PRIu64 " bytes, its header says %" PRIu64
                        ", and what stood behind offset %" PRIu64 " (LSN %" PRIu64 ") is not known",
                        newest->file_bytes, newest->header.segment_bytes, end->damage,
                        end->next_lsn);
    }
    uint64_t shown_by =
        end->decision == WAL_CASE_END_PAST ? newest->slot.end_offset : end->behind.evidence_offset;
    return wal_fail(error, WAL_E_CORRUPT, place,
                    "damaged at offset %" PRIu64 ", where LSN %" PRIu64
                    " belongs: %s (shown by "
                    "offset %" PRIu64 ")",
                    end->damage, end->next_lsn, wal_case_text(end->decision), shown_by);
}

static void report_damage(const struct wal_chain *chain, wal_report *report) {
    report->verdict = WAL_VERDICT_CORRUPT;
    if (chain->damage != WAL_CASE_NEW) {
        report->decision = chain->damage;
        report->segment_id = chain->damage_error.segment_id;
        report->end_offset = chain->damage_error.offset;
        report->evidence_lsn = chain->damage_error.lsn;
        memcpy(report->file, chain->damage_error.file, sizeof report->file);
        return;
    }
    report->end_offset = chain->end.damage;
    const struct wal_segment *newest = &chain->segments[chain->count - 1];
    if (chain->end.decision == WAL_CASE_END_PAST && !slot_is_past(newest, &chain->end)) {
        report->evidence_offset = newest->file_bytes;
    } else if (chain->end.decision == WAL_CASE_END_PAST) {
        report->evidence_offset = WAL_END_SLOT_OFFSET;
        report->evidence_lsn = newest->slot.last_lsn;
    } else {
        report->evidence_offset = chain->end.behind.evidence_offset;
        report->evidence_lsn = chain->end.behind.evidence_lsn;
    }
}

void wal_chain_report(const struct wal_chain *chain, wal_report *report) {
    const struct wal_tail_end *end = &chain->end;
    memset(report, 0, sizeof *report);
    report->decision = end->decision;
    report->verdict = wal_verdict_of(end->decision);
    report->warnings = chain->warnings;
    report->first_lsn = wal_chain_first_lsn(chain);
    report->last_lsn = end->next_lsn - 1;
    report->segments = chain->count;
    report->dropped_frames = end->dropped_frames;
    report->dropped_records = end->dropped_records;
    report->dropped_bytes = end->dropped_bytes;
    report->bytes_scanned = chain->bytes_scanned;
    report->next_step = WAL_NEXT_NEW_SEGMENT;
    if (chain->count > 0) {
        const struct wal_segment *newest = &chain->segments[chain->count - 1];
        report->segment_id = newest->header.segment_id;
        report->end_offset = end->offset;
        report->commit_alignment = newest->header.commit_alignment;
        memcpy(report->file, newest->name, sizeof report->file);
        if (!end->has_records) report->next_step = WAL_NEXT_BYPASS;
        if (end->decision == WAL_CASE_SEALED) report->next_step = WAL_NEXT_CONTINUE;
    }
    if (chain->has_meta) {
        memcpy(report->log_uuid, chain->meta.disk.log_uuid, sizeof report->log_uuid);
        report->owner_bytes = chain->meta.disk.owner_bytes;
        memcpy(report->owner, chain->meta.disk.owner, report->owner_bytes);
    }
    if (wal_chain_is_damaged(chain)) report_damage(chain, report);
}
