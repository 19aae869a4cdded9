/* Status codes as text, and the filling of wal_error. */
#include "error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void fill(wal_error *error, int code, struct wal_place place, const char *format,
                 va_list arguments) {
    memset(error, 0, sizeof *error);
    error->code = code;
    error->segment_id = place.segment_id;
    error->offset = place.offset;
    error->lsn = place.lsn;
    if (place.file != NULL) {
        (void)snprintf(error->file, sizeof error->file, "%s", place.file);
    }
    (void)vsnprintf(error->message, sizeof error->message, format, arguments);
}

int wal_fail(wal_error *error, int code, struct wal_place place, const char *format, ...) {
    if (error == NULL) return code;
    va_list arguments;
    va_start(arguments, format);
    fill(error, code, place, format, arguments);
    va_end(arguments);
    return code;
}

int wal_fail_os(wal_error *error, int code, struct wal_place place, const char *format, ...) {
    if (error == NULL) return code;
    va_list arguments;
    va_start(arguments, format);
    fill(error, code, place, format, arguments);
    va_end(arguments);
    if (code > -4096) error->os_error = -code; /* below: one of ours, from below the seam */
    size_t used = strlen(error->message);
    (void)snprintf(error->message + used, sizeof error->message - used, ": %s",
                   wal_status_text(code));
    return code;
}

const char *wal_status_text(int code) {
    switch (code) {
        case WAL_OK: return "ok";
        case WAL_E_POISONED: return "the writer is poisoned by an earlier failure";
        case WAL_E_FULL: return "no space for the next record";
        case WAL_E_CORRUPT: return "acknowledged data is damaged";
        case WAL_E_LOCKED: return "another writer has the log open";
        case WAL_E_CLOSED: return "the writer is closed";
        case WAL_E_FORKED: return "the writer belongs to the parent process";
        case WAL_E_TOO_LARGE: return "the record is too large";
        case WAL_E_UNSUPPORTED_FORMAT: return "the log has a format this version does not know";
        case WAL_E_UNSUPPORTED_FILESYSTEM: return "the filesystem cannot keep the promises";
        case WAL_E_TRIMMED: return "the record was trimmed";
        case WAL_E_LOG_TRUNCATED: return "the log was rewound";
        case WAL_E_AGAIN: return "not done yet";
        case WAL_E_INVALID: return "invalid argument";
        case WAL_E_NOT_A_LOG: return "not a log";
        case WAL_E_UNSAFE: return "refused for safety";
        case WAL_E_NOT_FOUND: return "not found";
        default: return code < 0 && code > -4096 ? strerror(-code) : "unknown status";
    }
}
