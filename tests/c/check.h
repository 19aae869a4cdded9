/*
 * What a C test program is made of: CHECK, CHECK_EQ, RUN, COUNT, a seeded generator and a scale.
 *
 * A test program is one file tests/c/test_<suite>.c with
 *
 *   static void adds_up(void) { CHECK_EQ(1 + 1, 2); }
 *
 *   int main(void) {
 *       RUN(adds_up);
 *       return check_end();
 *   }
 *
 * It is linked with the whole core, under the sanitizers. The first failure prints file, line and
 * both values and ends the program with 1; so does a sanitizer. WALENGINE_SEED repeats a run,
 * WALENGINE_SCALE multiplies its counts, WALENGINE_COUNTS names a file that COUNT appends to.
 */
#ifndef WALENGINE_TESTS_CHECK_H
#define WALENGINE_TESTS_CHECK_H

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define CHECK(condition)                                                      \
    do {                                                                      \
        if (!(condition)) check_failed(__FILE__, __LINE__, "%s", #condition); \
    } while (0)

/* Both sides are taken as signed 64-bit numbers; use CHECK_EQ_U64 where the highest bit counts. */
#define CHECK_EQ(actual, expected)                                                               \
    do {                                                                                         \
        long long check_a = (long long)(actual), check_e = (long long)(expected);                \
        if (check_a != check_e) {                                                                \
            check_failed(__FILE__, __LINE__, "%s is %lld, expected %s = %lld", #actual, check_a, \
                         #expected, check_e);                                                    \
        }                                                                                        \
    } while (0)

#define CHECK_EQ_U64(actual, expected)                                                        \
    do {                                                                                      \
        uint64_t check_a = (uint64_t)(actual), check_e = (uint64_t)(expected);                \
        if (check_a != check_e) {                                                             \
            check_failed(__FILE__, __LINE__, "%s is 0x%" PRIx64 ", expected %s = 0x%" PRIx64, \
                         #actual, check_a, #expected, check_e);                               \
        }                                                                                     \
    } while (0)

#define CHECK_STR(actual, expected)                                                             \
    do {                                                                                        \
        const char *check_a = (actual), *check_e = (expected);                                  \
        if (strcmp(check_a, check_e) != 0) {                                                    \
            check_failed(__FILE__, __LINE__, "%s is \"%s\", expected \"%s\"", #actual, check_a, \
                         check_e);                                                              \
        }                                                                                       \
    } while (0)

#define CHECK_BYTES(actual, expected, bytes)                                               \
    do {                                                                                   \
        const unsigned char *check_a = (const void *)(actual);                             \
        const unsigned char *check_e = (const void *)(expected);                           \
        for (size_t check_i = 0; check_i < (size_t)(bytes); check_i++) {                   \
            if (check_a[check_i] == check_e[check_i]) continue;                            \
            check_failed(__FILE__, __LINE__, "%s differs from %s at byte %zu: %02x, %02x", \
                         #actual, #expected, check_i, check_a[check_i], check_e[check_i]); \
        }                                                                                  \
    } while (0)

/* Run one test function and say how long it took. */
#define RUN(test) check_run(#test, test)

/* Report how much was tested: a line of output, and a line of JSON for the summary. */
#define COUNT(name, value) check_count(__FILE__, name, (uint64_t)(value))

static int check_tests_run;

__attribute__((noreturn, format(printf, 3, 4), unused)) static void check_failed(const char *file,
                                                                                 int line,
                                                                                 const char *format,
                                                                                 ...) {
    __builtin_va_list arguments;
    fflush(stdout);
    fprintf(stderr, "%s:%d: FAILED: ", file, line);
    __builtin_va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    __builtin_va_end(arguments);
    fprintf(stderr, "\n");
    exit(1);
}

static inline double check_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

__attribute__((unused)) static void check_run(const char *name, void (*test)(void)) {
    double begin = check_seconds();
    test();
    check_tests_run++;
    printf("  ok %s (%.2f s)\n", name, check_seconds() - begin);
    fflush(stdout);
}

/* The value main returns. A program that ran nothing must not look like one that passed. */
__attribute__((unused)) static int check_end(void) {
    if (check_tests_run == 0) fprintf(stderr, "no test was run\n");
    return check_tests_run > 0 ? 0 : 1;
}

/* "tests/c/test_power.c" -> "power" */
__attribute__((unused)) static void check_suite(const char *file, char *suite, size_t size) {
    const char *base = strrchr(file, '/');
    base = base != NULL ? base + 1 : file;
    if (strncmp(base, "test_", 5) == 0) base += 5;
    snprintf(suite, size, "%s", base);
    char *dot = strrchr(suite, '.');
    if (dot != NULL) *dot = '\0';
}

__attribute__((unused)) static void check_count(const char *file, const char *name,
                                                uint64_t value) {
    char suite[64];
    check_suite(file, suite, sizeof(suite));
    printf("count %s.%s = %" PRIu64 "\n", suite, name, value);
    fflush(stdout);
    const char *path = getenv("WALENGINE_COUNTS");
    if (path == NULL || path[0] == '\0') return;
    FILE *counts = fopen(path, "a");
    if (counts == NULL) check_failed(__FILE__, __LINE__, "%s: %s", path, strerror(errno));
    fprintf(counts, "{\"suite\": \"%s\", \"name\": \"%s\", \"value\": %" PRIu64 "}\n", suite, name,
            value);
    fclose(counts);
}

/* ---- chance --------------------------------------------------------------------------------- */

/* The seed of this run: WALENGINE_SEED, else the clock; printed, so that it can be repeated. */
__attribute__((unused)) static uint64_t check_seed(void) {
    static uint64_t seed;
    if (seed != 0) return seed;
    const char *text = getenv("WALENGINE_SEED");
    if (text != NULL && text[0] != '\0') {
        seed = strtoull(text, NULL, 0);
    } else {
        struct timespec now;
        clock_gettime(CLOCK_REALTIME, &now);
        seed = (uint64_t)now.tv_sec * 1000000007u ^ (uint64_t)now.tv_nsec;
    }
    if (seed == 0) seed = 1;
    printf("  seed %" PRIu64 " (repeat with WALENGINE_SEED=%" PRIu64 ")\n", seed, seed);
    fflush(stdout);
    return seed;
}

/* splitmix64: any state is a good one, so a seed plus a case number makes an independent stream. */
__attribute__((unused)) static uint64_t check_random(uint64_t *state) {
    *state += 0x9e3779b97f4a7c15u;
    uint64_t mixed = *state;
    mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9u;
    mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111ebu;
    return mixed ^ (mixed >> 31);
}

/* Uniform enough in 0 .. limit - 1. */
__attribute__((unused)) static uint64_t check_below(uint64_t *state, uint64_t limit) {
    return limit == 0 ? 0 : check_random(state) % limit;
}

/* ---- how much ------------------------------------------------------------------------------- */

/* Below this scale, in make test-quick, a suite samples what takes seconds, or leaves it out. */
#define CHECK_SCALE_FULL 0.5

__attribute__((unused)) static double check_scale(void) {
    const char *text = getenv("WALENGINE_SCALE");
    double scale = text != NULL && text[0] != '\0' ? strtod(text, NULL) : 1.0;
    return scale > 0.0 && isfinite(scale) ? scale : 1.0;
}

/* count, scaled by WALENGINE_SCALE; at least 1. */
__attribute__((unused)) static uint64_t check_scaled(uint64_t count) {
    double scaled = (double)count * check_scale();
    return scaled < 1.0 ? 1 : (uint64_t)scaled;
}

#endif
