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

static void drop_oldest(struct wal_writer *writer, size_t count) {
    for (size_t i = 0; i < count; i++) {
        const struct wal_segment *oldest = &writer->closed[0];
        struct wal_release release = {.segment_id = oldest->header.segment_id,
                                      .file_bytes = oldest->file_bytes};
        memcpy(release.name, oldest->name, sizeof release.name);
        memmove(writer->closed, writer->closed + 1, --writer->closed_count * sizeof *oldest);
        (void)wal_release_now(writer, &release); /* what stays behind is an orphan: harmless */
    }
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
