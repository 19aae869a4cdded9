/* Which backend a writer has, what of its configuration falls back, and how that is told. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "error.h"
#include "io_uring.h"
#include "writer.h"

static int choose_threads(struct wal_io *base, wal_ring_options *options, struct wal_io **engine,
                          wal_backend_info *info, wal_error *error) {
    options->backend = WAL_BACKEND_PWRITE;
    info->backend = WAL_BACKEND_PWRITE;
    info->provider = WAL_RING_AUTO;
    info->sq_entries = 0;
    info->kernel_poll = 0;
    info->registered_buffers = 0;
    info->registered_files = 0;
    int result = wal_io_worker_wrap(base, engine);
    return result < 0 ? wal_fail(error, result, WAL_NOWHERE, "out of memory") : 0;
}

int wal_backend_choose(struct wal_io *base, wal_ring_options *options, struct wal_io **engine,
                       wal_backend_info *info, wal_error *error) {
    memset(info, 0, sizeof *info);
    info->max_inflight = options->max_inflight;
    if (options->backend == WAL_BACKEND_PWRITE) {
        return choose_threads(base, options, engine, info, error);
    }
    wal_error why = {.code = 0};
    int result = wal_io_uring_wrap(base, options, engine, info, &why);
    if (result == 0) {
        options->backend = WAL_BACKEND_IO_URING;
        return 0;
    }
    int may_fall_back = result == WAL_E_NO_IO_URING || result == -ENOMEM;
    if (!may_fall_back || options->backend == WAL_BACKEND_IO_URING) {
        if (error != NULL) *error = why;
        return result;
    }
    info->fallbacks |= WAL_FALLBACK_NO_IO_URING;
    info->os_error = why.os_error;
    snprintf(info->reason, sizeof info->reason, "%s", why.message);
    return choose_threads(base, options, engine, info, error);
}

static void add_reason(wal_backend_info *info, const char *reason) {
    size_t used = strlen(info->reason);
    snprintf(info->reason + used, sizeof info->reason - used, "%s%s", used > 0 ? "; " : "", reason);
}

void wal_backend_tell(struct wal_io *engine, const wal_backend_info *info,
                      struct wal_writer *writer) {
    uint32_t fallbacks = writer->info.fallbacks;
    writer->info = *info;
    if (info->backend == WAL_BACKEND_IO_URING) wal_io_uring_info(engine, &writer->info);
    writer->info.backend = info->backend;
    writer->info.max_inflight = info->max_inflight;
    writer->info.direct_io = (uint32_t)writer->direct;
    writer->info.fallbacks |= fallbacks;
    if (fallbacks & WAL_FALLBACK_DIRECT) {
        add_reason(
            &writer->info,
            "direct_io: the filesystem has no O_DIRECT, so frames go through the page cache");
    }
    if (fallbacks & WAL_FALLBACK_DIRECT_UNSYNCED) {
        add_reason(&writer->info,
                   "direct_io: this filesystem may drop the sync of a direct write, so frames go "
                   "through the page cache; use ext4, xfs or btrfs");
    }
}
