/* Filling a wal_error: the code, where it happened, and one sentence for the operator. */
#ifndef WALENGINE_ERROR_H
#define WALENGINE_ERROR_H

#include "walengine.h"

/* Where an error happened; zero and NULL mean "does not apply". */
struct wal_place {
    const char *file;
    uint64_t segment_id;
    uint64_t offset;
    uint64_t lsn;
};

/* Fill *error (may be NULL) and return code, so that callers write: return wal_fail(...). */
int wal_fail(wal_error *error, int code, struct wal_place place, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* The same for a failed system call: code is -errno and the text ends with what errno means. */
int wal_fail_os(wal_error *error, int code, struct wal_place place, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

#define WAL_NOWHERE ((struct wal_place){.file = NULL})
#define WAL_IN_FILE(name) ((struct wal_place){.file = (name)})

#endif
