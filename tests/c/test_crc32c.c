/*
 * CRC32C: published vectors, then the implementation in use against the portable one, over every
 * length around its lane boundaries, at every alignment, and with every way to cut a buffer in two.
 */
#include "crc32c.h"

#include "check.h"

enum {
    LENGTH_MAX = 5000,
    LONG_BYTES = 100 * 1000,
    ALIGNMENTS = 16,
};

static uint8_t buffer[LONG_BYTES + ALIGNMENTS];

static void fill(uint64_t seed) {
    for (size_t i = 0; i < sizeof(buffer); i++) buffer[i] = (uint8_t)check_random(&seed);
}

/* RFC 3720, appendix B.4, and the check value of the CRC catalogue. */
static void known_vectors(void) {
    uint8_t bytes[32];
    CHECK_EQ_U64(wal_crc32c(0, "123456789", 9), 0xe3069283);
    CHECK_EQ_U64(wal_crc32c_portable(0, "123456789", 9), 0xe3069283);
    memset(bytes, 0, sizeof(bytes));
    CHECK_EQ_U64(wal_crc32c(0, bytes, sizeof(bytes)), 0x8a9136aa);
    memset(bytes, 0xff, sizeof(bytes));
    CHECK_EQ_U64(wal_crc32c(0, bytes, sizeof(bytes)), 0x62a8ab43);
    for (size_t i = 0; i < sizeof(bytes); i++) bytes[i] = (uint8_t)i;
    CHECK_EQ_U64(wal_crc32c(0, bytes, sizeof(bytes)), 0x46dd794e);
    CHECK_EQ_U64(wal_crc32c_portable(0, bytes, sizeof(bytes)), 0x46dd794e);
}

static void nothing_changes_nothing(void) {
    CHECK_EQ_U64(wal_crc32c(0, NULL, 0), 0);
    CHECK_EQ_U64(wal_crc32c(0x12345678, NULL, 0), 0x12345678);
    CHECK_EQ_U64(wal_crc32c_portable(0x12345678, NULL, 0), 0x12345678);
}

static void a_name_is_given(void) {
    const char *name = wal_crc32c_name();
    CHECK(strcmp(name, "sse4.2+pclmul") == 0 || strcmp(name, "armv8") == 0 ||
          strcmp(name, "slicing-by-8") == 0);
    printf("  in use: %s\n", name);
}

/* The table of shifts is used at every length up to three full lanes and a bit. */
static void every_length_and_alignment(void) {
    uint64_t compared = 0;
    fill(check_seed());
    for (size_t bytes = 0; bytes <= LENGTH_MAX; bytes++) {
        for (size_t skew = 0; skew < ALIGNMENTS; skew++) {
            uint32_t begin = (uint32_t)(bytes * 2654435761u);
            CHECK_EQ_U64(wal_crc32c(begin, buffer + skew, bytes),
                         wal_crc32c_portable(begin, buffer + skew, bytes));
            compared++;
        }
    }
    COUNT("lengths_and_alignments", compared);
}

/* Several passes of the lanes, and what is left over behind them. */
static void long_buffers(void) {
    uint64_t compared = 0;
    fill(check_seed() + 1);
    for (size_t bytes = LENGTH_MAX; bytes <= LONG_BYTES; bytes += 331) {
        CHECK_EQ_U64(wal_crc32c(0, buffer + bytes % ALIGNMENTS, bytes),
                     wal_crc32c_portable(0, buffer + bytes % ALIGNMENTS, bytes));
        compared++;
    }
    COUNT("long_buffers", compared);
}

/* crc(a + b) = crc continued over b from crc(a): frames are checked piece by piece. */
static void chaining(void) {
    enum { BYTES = 700 };
    fill(check_seed() + 2);
    uint32_t whole = wal_crc32c(0, buffer, BYTES);
    for (size_t cut = 0; cut <= BYTES; cut++) {
        uint32_t first = wal_crc32c(0, buffer, cut);
        CHECK_EQ_U64(wal_crc32c(first, buffer + cut, BYTES - cut), whole);
        CHECK_EQ_U64(wal_crc32c_portable(first, buffer + cut, BYTES - cut), whole);
    }
}

/* No single flipped bit goes unseen: the promise that every frame relies on. */
static void single_bit_flips(void) {
    enum { BYTES = 512 };
    fill(check_seed() + 3);
    uint32_t whole = wal_crc32c(0, buffer, BYTES);
    for (size_t bit = 0; bit < BYTES * 8; bit++) {
        buffer[bit / 8] ^= (uint8_t)(1u << bit % 8);
        CHECK(wal_crc32c(0, buffer, BYTES) != whole);
        buffer[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    CHECK_EQ_U64(wal_crc32c(0, buffer, BYTES), whole);
}

int main(void) {
    RUN(known_vectors);
    RUN(nothing_changes_nothing);
    RUN(a_name_is_given);
    RUN(every_length_and_alignment);
    RUN(long_buffers);
    RUN(chaining);
    RUN(single_bit_flips);
    return check_end();
}
