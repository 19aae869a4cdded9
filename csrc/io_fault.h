/* What other backends take from the fault injector: its one rule, for what they do themselves. */
#ifndef WALENGINE_IO_FAULT_H
#define WALENGINE_IO_FAULT_H

#include <stdint.h>

enum wal_fault_decision {
    WAL_FAULT_DO,
    WAL_FAULT_DO_FAIL,  /* with -value */
    WAL_FAULT_DO_SHORT, /* value bytes only; WAL_FAULT_WRITE and WAL_FAULT_CQE_WRITE */
    WAL_FAULT_DO_SKIP,
    WAL_FAULT_DO_STALL, /* for value milliseconds, or until wal_fault_serial() is not *serial */
};

/*
 * Count one operation and decide about it. Never sleeps: a stall is the caller's to sit out. A kill
 * kills. While no rule is set it costs one load and one branch.
 */
enum wal_fault_decision wal_fault_decide(uint32_t op, int64_t *value, uint64_t *serial);

/* Changes whenever a rule is set or cleared. */
uint64_t wal_fault_serial(void);

#endif
