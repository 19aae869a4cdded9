/*
 * The latency histogram: 32 linear sub-buckets in each power of two.
 *
 * Values below 32 ns have a bucket each. A larger value v with its highest bit at e lies in bucket
 *
 *   (e - 4) * 32 + the five bits of v below its highest
 *
 * which continues that row without a gap: 31 -> 31, 32 -> 32, ... 2^64 - 1 -> 60 * 32 - 1. A
 * bucket is 1/32 of its lower bound wide, so what a percentile overstates stays below 1/32.
 */
#include "histogram.h"

#include <assert.h>

enum { SUB_BUCKETS = 1 << WAL_HISTOGRAM_SUB_BITS };

_Static_assert((64 - WAL_HISTOGRAM_SUB_BITS + 1) * SUB_BUCKETS == WAL_HISTOGRAM_BUCKETS,
               "every 64-bit value has a bucket");

static uint32_t bucket_of(uint64_t value) {
    if (value < SUB_BUCKETS) return (uint32_t)value;
    uint32_t highest_bit = 63 - (uint32_t)__builtin_clzll(value);
    uint32_t shift = highest_bit - WAL_HISTOGRAM_SUB_BITS;
    uint32_t sub_bucket = (uint32_t)(value >> shift) & (SUB_BUCKETS - 1);
    return (shift + 1) * SUB_BUCKETS + sub_bucket;
}

uint64_t wal_histogram_upper(uint32_t bucket) {
    assert(bucket < WAL_HISTOGRAM_BUCKETS);
    if (bucket < SUB_BUCKETS) return bucket;
    uint32_t shift = bucket / SUB_BUCKETS - 1;
    uint64_t lower = (uint64_t)(SUB_BUCKETS + bucket % SUB_BUCKETS) << shift;
    return lower + (((uint64_t)1 << shift) - 1);
}

/* The smallest value that per_mille of all values do not exceed, as far as buckets tell. */
static double percentile_us(const struct wal_histogram *histogram, uint64_t per_mille) {
    assert(per_mille > 0 && per_mille < 1000);
    if (histogram->count == 0) return 0.0;
    /* rank = ceil(count * per_mille / 1000) without an overflow: between 1 and count. */
    uint64_t rank =
        histogram->count / 1000 * per_mille + (histogram->count % 1000 * per_mille + 999) / 1000;
    uint64_t seen = 0;
    for (uint32_t bucket = 0; bucket < WAL_HISTOGRAM_BUCKETS; bucket++) {
        seen += histogram->buckets[bucket];
        if (seen < rank) continue;
        uint64_t upper = wal_histogram_upper(bucket);
        return (double)(upper < histogram->max_ns ? upper : histogram->max_ns) / 1000.0;
    }
    return (double)histogram->max_ns / 1000.0;
}

void wal_histogram_record(struct wal_histogram *histogram, uint64_t latency_ns) {
    histogram->count++;
    histogram->buckets[bucket_of(latency_ns)]++;
    if (latency_ns > histogram->max_ns) histogram->max_ns = latency_ns;
}

void wal_histogram_add(struct wal_histogram *histogram, const struct wal_histogram *more) {
    histogram->count += more->count;
    for (uint32_t i = 0; i < WAL_HISTOGRAM_BUCKETS; i++) histogram->buckets[i] += more->buckets[i];
    if (more->max_ns > histogram->max_ns) histogram->max_ns = more->max_ns;
}

void wal_histogram_summary(const struct wal_histogram *histogram, wal_latency *latency) {
    latency->count = histogram->count;
    latency->p50_us = percentile_us(histogram, 500);
    latency->p90_us = percentile_us(histogram, 900);
    latency->p99_us = percentile_us(histogram, 990);
    latency->p999_us = percentile_us(histogram, 999);
    latency->max_us = (double)histogram->max_ns / 1000.0;
}
