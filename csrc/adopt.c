/*
 * Taking over what recovery found: which segment goes on, what is closed, what is owed.
 *
 * Nothing is written here. Orphans, spares beyond the pool and cuts that earlier lives owe are
 * noted as releases that wait until something of this life is durable.
 */
#include <errno.h>
#include <string.h>

#include "error.h"
#include "hooks.h"
#include "writer.h"

static int can_continue(const struct wal_writer *writer, const struct wal_chain *chain) {
    if (chain->count == 0 || chain->end.decision != WAL_CASE_SEALED) return 0;
    const struct wal_segment *newest = &chain->segments[chain->count - 1];
    const struct wal_disk_segment *header = &newest->header;
    uint64_t payload_max = writer->options.record_bytes_max + 8;
    if (header->payload_bytes_max < payload_max) return 0;
    if (newest->file_bytes < header->segment_bytes) return 0; /* cut behind its seal: no room */
    if (WAL_MUTANT(F7_UNSEAL_ANY_ALIGNMENT)) return 1;
    return header->commit_alignment == writer->options.commit_alignment;
}

static int continue_tail(struct wal_writer *writer, const struct wal_chain *chain,
                         wal_error *error) {
    struct wal_tail *tail = &writer->tail;
    const struct wal_segment *newest = &chain->segments[chain->count - 1];
    struct wal_place place = {.file = newest->name, .segment_id = newest->header.segment_id};
    int file = wal_io_open(writer->io, newest->name, wal_tail_open_flags(writer));
    if (file < 0) return wal_fail_os(error, file, place, "cannot open the tail for writing");
    struct wal_io_stat stat;
    int result = wal_io_stat(writer->io, file, &stat);
    if (result == 0 && !stat.is_ours) {
        result =
            wal_fail(error, WAL_E_UNSAFE, place, "the segment has a second link or another owner");
    }
    if (result < 0) {
        wal_io_close(writer->io, file);
        return result;
    }
    tail->segment = *newest;
    tail->file = file;
    tail->offset = newest->end_offset;
    tail->frontier = wal_round_up(newest->end_offset, WAL_BLOCK_BYTES);
    tail->previous_crc = chain->end.previous_crc;
    tail->needs_unseal = 1;
    tail->index_offset = newest->slot.index_offset;
    return 0;
}

static int adopt_closed(struct wal_writer *writer, const struct wal_chain *chain, int continues) {
    size_t count = chain->count - (size_t)(continues && chain->count > 0);
    struct wal_segment *closed = wal_calloc(count + 16, sizeof *closed);
    if (closed == NULL) return -ENOMEM;
    if (count > 0) memcpy(closed, chain->segments, count * sizeof *closed);
    wal_free(writer->closed);
    writer->closed = closed;
    writer->closed_count = count;
    writer->closed_room = count + 16;
    writer->closed_crc = chain->end.previous_crc;
    writer->bypass_newest = !continues && count > 0 && !chain->end.has_records;
    writer->cut_newest = !continues && count > 0 && chain->end.decision != WAL_CASE_SEALED;
    return 0;
}

/* Cuts that earlier lives owe: a segment that ended uncleanly is as long as what it holds. */
static int adopt_cuts(struct wal_writer *writer) {
    for (size_t i = 0; i + 1 < writer->closed_count + (writer->tail.file >= 0); i++) {
        const struct wal_segment *segment = &writer->closed[i];
        struct wal_release release = {
            .segment_id = segment->header.segment_id,
            .file_bytes = segment->file_bytes,
            .cut_bytes = wal_round_up(segment->end_offset, WAL_BLOCK_BYTES),
        };
        if (segment->is_sealed || release.cut_bytes >= segment->file_bytes) continue;
        memcpy(release.name, segment->name, sizeof release.name);
        int result = wal_release_later(writer, &release);
        if (result < 0) return result;
    }
    return 0;
}

/* At most WAL_SPARES_MAX spares are kept; what earlier lives left beyond that is given back. */
static int adopt_spares(struct wal_writer *writer, const struct wal_chain *chain) {
    for (size_t i = 0; i < chain->spare_count; i++) {
        if (writer->spare_count < WAL_SPARES_MAX) {
            writer->spares[writer->spare_count++] = chain->spares[i];
            continue;
        }
        struct wal_release release = {.segment_id = 0};
        wal_spare_name(release.name, chain->spares[i]);
        int result = wal_release_later(writer, &release);
        if (result < 0) return result;
    }
    return 0;
}

/* May a segment that an earlier life prepared serve as our next one? */
static int serves(const struct wal_writer *writer, const struct wal_chain *chain,
                  const struct wal_other *other) {
    const struct wal_disk_segment *header = &other->segment.header;
    uint64_t newest_id = chain->count > 0 ? chain->segments[chain->count - 1].header.segment_id : 0;
    if (!other->is_prepared || writer->prepared.file >= 0) return 0;
    if (header->segment_id <= newest_id) return 0;
    if (header->commit_alignment != writer->options.commit_alignment) return 0;
    if (header->segment_bytes != writer->options.segment_bytes) return 0;
    if (other->segment.file_bytes != header->segment_bytes) return 0;
    return header->payload_bytes_max >= writer->options.record_bytes_max + 8;
}

static void adopt_prepared(struct wal_writer *writer, const struct wal_other *other) {
    int file = wal_io_open(writer->io, other->segment.name, wal_tail_open_flags(writer));
    if (file < 0) return;
    struct wal_io_stat stat;
    if (wal_io_stat(writer->io, file, &stat) < 0 || !stat.is_ours) {
        wal_io_close(writer->io, file);
        return;
    }
    writer->prepared = (struct wal_prepared){
        .segment = other->segment, .file = file, .frontier = WAL_FRAMES_OFFSET};
}

/*
 * Orphans and prepared segments that do not serve become spares, once something of this life is
 * durable: recovery itself writes nothing, and an empty log keeps its only segment until then.
 */
static int adopt_others(struct wal_writer *writer, const struct wal_chain *chain) {
    uint64_t after =
        writer->tail.file >= 0 ? writer->tail.segment.header.segment_id : chain->highest_id + 1;
    for (size_t i = 0; i < chain->other_count; i++) {
        const struct wal_other *other = &chain->others[i];
        if (serves(writer, chain, other)) {
            adopt_prepared(writer, other);
            if (writer->prepared.file >= 0 && writer->tail.file < 0) {
                after = other->segment.header.segment_id;
            }
            continue;
        }
        struct wal_release release = {
            .segment_id = other->segment.header.segment_id,
            .file_bytes = other->segment.file_bytes,
        };
        memcpy(release.name, other->segment.name, sizeof release.name);
        int result = wal_release_later(writer, &release);
        if (result < 0) return result;
    }
    int result = adopt_cuts(writer);
    if (result == 0) result = adopt_spares(writer, chain);
    for (size_t i = 0; i < writer->release_count; i++) writer->releases[i].successor_id = after;
    return result;
}

int wal_adopt(struct wal_writer *writer, const struct wal_chain *chain, wal_error *error) {
    int continues = can_continue(writer, chain);
    writer->meta = chain->meta;
    writer->trim_lsn = chain->trim_lsn;
    writer->next_lsn = wal_chain_next_lsn(chain);
    writer->durable_lsn = writer->next_lsn - 1;
    writer->claim_lsn = writer->durable_lsn;
    writer->synced_segment_id = 0;
    writer->release_count = 0;
    writer->spare_count = 0;
    if (chain->highest_id >= writer->next_segment_id) {
        writer->next_segment_id = chain->highest_id + 1;
    }
    if (chain->highest_spare >= writer->next_spare) writer->next_spare = chain->highest_spare + 1;
    if (!continues) wal_index_reset(&writer->tail.index);
    int result = continues ? continue_tail(writer, chain, error) : 0;
    if (result < 0) return result;
    result = adopt_closed(writer, chain, continues);
    if (result == 0) result = adopt_others(writer, chain);
    return result < 0 ? wal_fail(error, result, WAL_NOWHERE, "out of memory") : 0;
}
