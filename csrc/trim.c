/*
 * truncate_before: forget records below an LSN, and take back whole segments.
 *
 * The order is what keeps it safe: sync, so that nothing un-durable is named; META durable; only
 * then segments go. Never the newest, and none whose successor is not durable.
 */
#include <errno.h>
#include <string.h>

#include "error.h"
#include "hooks.h"
#include "writer.h"

/* Base LSN of what follows closed segment number at; 0: it is the newest, nothing follows. */
static uint64_t successor_base(const struct wal_writer *writer, size_t at) {
    if (at + 1 < writer->closed_count) return writer->closed[at + 1].start.base_lsn;
    return writer->tail.file >= 0 ? writer->tail.segment.start.base_lsn : 0;
}

static size_t count_below(const struct wal_writer *writer, uint64_t lsn) {
    size_t count = 0;
    while (count < writer->closed_count) {
        uint64_t base = successor_base(writer, count);
        if (base == 0 || base > lsn) break;
        count++;
    }
    return count;
}

/* What was still to be cut is unlinked instead: a cut may be on its way to the same file. */
static void forget_pending(struct wal_writer *writer, uint64_t segment_id) {
    for (size_t i = 0; i < writer->release_count;) {
        if (writer->releases[i].segment_id == segment_id) {
            writer->releases[i] = writer->releases[--writer->release_count];
        } else {
            i++;
        }
    }
}

/* Take the oldest segments out of the chain, then give them up one by one, the oldest first. */
static void drop_oldest(struct wal_writer *writer, size_t count) {
    if (count == 0) return;
    struct wal_release *dropped = wal_calloc(count, sizeof *dropped);
    if (dropped == NULL) return; /* they stay in the chain, and go with the next trim */
    for (size_t i = 0; i < count; i++) {
        const struct wal_segment *segment = &writer->closed[i];
        dropped[i].segment_id = segment->header.segment_id;
        dropped[i].file_bytes = segment->file_bytes;
        dropped[i].never_reuse = !segment->is_sealed;
        memcpy(dropped[i].name, segment->name, sizeof dropped[i].name);
        forget_pending(writer, segment->header.segment_id);
    }
    writer->closed_count -= count;
    memmove(writer->closed, writer->closed + count, writer->closed_count * sizeof *writer->closed);
    for (size_t i = 0; i < count; i++) {
        (void)wal_release_now(writer, &dropped[i]); /* what stays behind is an orphan: harmless */
    }
    wal_free(dropped);
}

int wal_trim(struct wal_writer *writer, uint64_t lsn, wal_error *error) {
    int result = wal_sync_tail(writer, error);
    if (result < 0) return result;
    if (lsn > writer->durable_lsn + 1 && !WAL_MUTANT(F5_TRIM_AHEAD)) lsn = writer->durable_lsn + 1;
    if (lsn <= writer->trim_lsn) return 0;
    if (WAL_MUTANT(M9_UNLINK_BEFORE_META)) drop_oldest(writer, count_below(writer, lsn));
    struct wal_meta meta = writer->meta;
    pthread_mutex_unlock(&writer->mutex);
    WAL_FAIL_POINT("trim.before_meta");
    wal_error why = {.code = 0};
    result = wal_meta_set_trim(writer->io, &meta, lsn, &why);
    pthread_mutex_lock(&writer->mutex);
    if (result == -ENOMEM || result == -EMFILE || result == -ENFILE) {
        if (error != NULL) *error = why;
        return result; /* nothing was written */
    }
    if (result < 0) return wal_poison(writer, result, "writing META failed", 0, error);
    writer->meta = meta;
    writer->trim_lsn = lsn;
    drop_oldest(writer, count_below(writer, lsn));
    return 0;
}
