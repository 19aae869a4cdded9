/* The latency histogram: percentiles against a sorted array, and the edges of its buckets. */
#include "histogram.h"

#include "check.h"

static struct wal_histogram histogram;
static wal_latency latency;

static void clear(void) { memset(&histogram, 0, sizeof(histogram)); }

/* A percentile may not understate, and may overstate by one bucket's width, which is 1/32. */
static void check_near(double percentile_us, uint64_t true_ns) {
    double true_us = (double)true_ns / 1000.0;
    if (percentile_us < true_us || percentile_us > true_us * (1.0 + 1.0 / 32)) {
        check_failed(__FILE__, __LINE__, "percentile %f us, true value %f us", percentile_us,
                     true_us);
    }
}

static void nothing_recorded(void) {
    clear();
    wal_histogram_summary(&histogram, &latency);
    CHECK_EQ(latency.count, 0);
    CHECK(latency.p50_us == 0.0 && latency.p999_us == 0.0 && latency.max_us == 0.0);
}

/* With one value every percentile is that value, exactly: the maximum bounds the bucket. */
static void one_value(void) {
    const uint64_t values[] = {0, 1, 31, 32, 33, 63, 64, 65, 999, 123456789, UINT64_MAX};
    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        clear();
        wal_histogram_record(&histogram, values[i]);
        wal_histogram_summary(&histogram, &latency);
        CHECK_EQ(latency.count, 1);
        CHECK(latency.p50_us == (double)values[i] / 1000.0);
        CHECK(latency.p999_us == latency.p50_us);
        CHECK(latency.max_us == latency.p50_us);
    }
}

/* Zero and the largest number: the first and the last bucket, and nothing outside of them. */
static void the_edges(void) {
    clear();
    wal_histogram_record(&histogram, 0);
    wal_histogram_record(&histogram, UINT64_MAX);
    CHECK_EQ(histogram.buckets[0], 1);
    CHECK_EQ(histogram.buckets[WAL_HISTOGRAM_BUCKETS - 1], 1);
    wal_histogram_summary(&histogram, &latency);
    CHECK(latency.p50_us == 0.0);
    CHECK(latency.p90_us == (double)UINT64_MAX / 1000.0);
}

/* Walking up through all powers of two, buckets never go down and never jump over one. */
static void buckets_are_in_order(void) {
    uint64_t bucket_before = 0;
    for (uint64_t value = 0; value < 100000; value++) {
        clear();
        wal_histogram_record(&histogram, value);
        uint64_t bucket = bucket_before;
        while (bucket < WAL_HISTOGRAM_BUCKETS && histogram.buckets[bucket] == 0) bucket++;
        CHECK(bucket <= bucket_before + 1);
        bucket_before = bucket;
    }
}

/* Small counts: the p-th percentile of n values is the ceil(p n)-th smallest. */
static void small_counts(void) {
    clear();
    wal_histogram_record(&histogram, 10);
    wal_histogram_record(&histogram, 20);
    wal_histogram_summary(&histogram, &latency);
    CHECK(latency.p50_us == 0.010);
    CHECK(latency.p90_us == 0.020);
    clear();
    for (uint64_t value = 1; value <= 10; value++) wal_histogram_record(&histogram, value);
    wal_histogram_summary(&histogram, &latency);
    CHECK(latency.p50_us == 0.005);
    CHECK(latency.p90_us == 0.009);
    CHECK(latency.p99_us == 0.010);
}

static int ascending(const void *left, const void *right) {
    uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return (a > b) - (a < b);
}

/* Random values over twelve powers of ten, like latencies with a long tail. */
static void percentiles_of_random_values(void) {
    enum { VALUES_MAX = 5000 };
    static uint64_t values[VALUES_MAX];
    uint64_t rounds = check_scaled(200);
    uint64_t state = check_seed();
    for (uint64_t round = 0; round < rounds; round++) {
        uint64_t count = 1 + check_below(&state, VALUES_MAX);
        clear();
        for (uint64_t i = 0; i < count; i++) {
            values[i] = check_random(&state) >> (24 + check_below(&state, 40));
            wal_histogram_record(&histogram, values[i]);
        }
        qsort(values, (size_t)count, sizeof(values[0]), ascending);
        wal_histogram_summary(&histogram, &latency);
        CHECK_EQ(latency.count, count);
        check_near(latency.p50_us, values[(count * 500 + 999) / 1000 - 1]);
        check_near(latency.p90_us, values[(count * 900 + 999) / 1000 - 1]);
        check_near(latency.p99_us, values[(count * 990 + 999) / 1000 - 1]);
        check_near(latency.p999_us, values[(count * 999 + 999) / 1000 - 1]);
        CHECK(latency.max_us == (double)values[count - 1] / 1000.0);
    }
    COUNT("random_distributions", rounds);
}

/* Two histograms added are the histogram of both; and a value's bucket ends at it or above it. */
static void histograms_add_up(void) {
    static struct wal_histogram parts[2], whole;
    uint64_t state = 11;
    memset(parts, 0, sizeof parts);
    memset(&whole, 0, sizeof whole);
    for (int i = 0; i < 1000; i++) {
        uint64_t value = check_random(&state) >> (20 + check_below(&state, 40));
        wal_histogram_record(&parts[i % 2], value);
        wal_histogram_record(&whole, value);
    }
    wal_histogram_add(&parts[0], &parts[1]);
    CHECK_BYTES(&parts[0], &whole, sizeof whole);
    for (uint32_t i = 1; i < WAL_HISTOGRAM_BUCKETS; i++) {
        CHECK(wal_histogram_upper(i) > wal_histogram_upper(i - 1));
    }
    CHECK_EQ_U64(wal_histogram_upper(WAL_HISTOGRAM_BUCKETS - 1), UINT64_MAX);
}

int main(void) {
    RUN(nothing_recorded);
    RUN(one_value);
    RUN(the_edges);
    RUN(buckets_are_in_order);
    RUN(small_counts);
    RUN(percentiles_of_random_values);
    RUN(histograms_add_up);
    return check_end();
}
