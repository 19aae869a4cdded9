/* Time and chance. With options.test_seed both come from a counter: files are repeatable. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "writer.h"

uint64_t wal_monotonic_ns(void) {
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
}

/* splitmix64 (Steele, Lea, Flood 2014): a good 64-bit value for every counter value. */
static uint64_t mix(uint64_t value) {
    value += UINT64_C(0x9E3779B97F4A7C15);
    value = (value ^ (value >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    value = (value ^ (value >> 27)) * UINT64_C(0x94D049BB133111EB);
    return value ^ (value >> 31);
}

uint64_t wal_clock_us(struct wal_writer *writer) {
    if (writer->options.test_seed != 0) {
        return UINT64_C(1700000000000000) + writer->stats.records_appended * 1000;
    }
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000U + (uint64_t)now.tv_nsec / 1000U;
}

int wal_random(struct wal_writer *writer, void *bytes, size_t count) {
    if (writer->options.test_seed != 0) {
        for (size_t done = 0; done < count; done += 8) {
            uint64_t value = mix(writer->options.test_seed + mix(writer->test_counter++));
            memcpy((char *)bytes + done, &value, count - done < 8 ? count - done : 8);
        }
        return 0;
    }
    int file = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
    if (file < 0) return -errno;
    int64_t got = read(file, bytes, count);
    (void)close(file);
    return got == (int64_t)count ? 0 : -EIO;
}
