/*
 * A latency histogram with a bounded relative error (HDR style): 32 linear sub-buckets per power
 * of two of nanoseconds, so a percentile is at most 1/32 above the true one. Fixed size, no
 * allocation; not thread-safe: its owner's mutex guards it.
 */
#ifndef WALENGINE_HISTOGRAM_H
#define WALENGINE_HISTOGRAM_H

#include <stdint.h>

#include "walengine.h"

enum { WAL_HISTOGRAM_SUB_BITS = 5, WAL_HISTOGRAM_BUCKETS = 60 * 32 };

struct wal_histogram {
    uint64_t count;
    uint64_t max_ns;
    uint64_t buckets[WAL_HISTOGRAM_BUCKETS];
};

void wal_histogram_record(struct wal_histogram *histogram, uint64_t latency_ns);
void wal_histogram_add(struct wal_histogram *histogram, const struct wal_histogram *more);
uint64_t wal_histogram_upper(uint32_t bucket); /* the largest value of a bucket */
void wal_histogram_summary(const struct wal_histogram *histogram, wal_latency *latency);

#endif
