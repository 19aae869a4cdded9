/* The clock that waits and latencies are measured with. */
#ifndef WALENGINE_CLOCK_H
#define WALENGINE_CLOCK_H

#include <stdint.h>

uint64_t wal_monotonic_ns(void);

#endif
