/*
 * CRC32C (Castagnoli) at the speed of the memory bus, three times over:
 *
 *   sse4.2+pclmul  three interleaved lanes of the crc32 instruction, folded by PCLMULQDQ
 *   armv8          the crc32c instructions
 *   slicing-by-8   tables; the reference that the other two are tested against
 *
 * The choice, and the tables, are made by a constructor, that is before any thread of ours can
 * exist: afterwards everything here is read only, so calls need neither a lock nor an atomic. The
 * instructions are asked for by target attributes, function by function, and not by -march: the
 * rest of the library has to run on a processor without them.
 *
 * Why three lanes. The crc32 instruction takes 8 bytes, a new one can begin each cycle, but its
 * result comes after three: one dependent chain runs at a third of the speed. So the buffer is cut
 * into three parts of k words each, with a CRC of its own, and one last word:
 *
 *   | lane 0: k words | lane 1: k words | lane 2: k words | last word | rest
 *
 * CRCs are polynomials over GF(2) modulo P, and a CRC followed by n words of other data counts as
 * crc * x^(64 n) mod P. Lane 0 is followed by 2 k + 1 words, lane 1 by k + 1. Multiplying is one
 * PCLMULQDQ with a constant; reducing modulo P is free, because the product can be xored into the
 * last word, whose crc32 instruction reduces it. That instruction multiplies by x^32, and the
 * product of two bit-reflected numbers is one bit short, so the constant is x^(64 n - 33) mod P.
 * The obvious way, lanes of a few fixed lengths, leaves long rests that run at a third of the
 * speed; a table of the constants for every n costs 4 KiB and leaves less than four words.
 */
#include "crc32c.h"

#include <assert.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_acle.h>
#if defined(__linux__)
#include <sys/auxv.h>
#endif
#endif

enum {
    CRC32C_POLYNOMIAL_REFLECTED = (int)0x82f63b78,
    WORD_BYTES = 8,
};

typedef uint32_t crc32c_function(uint32_t crc, const void *data, size_t bytes);

static uint32_t slicing_table[WORD_BYTES][256];
static crc32c_function *chosen_function = wal_crc32c_portable;
static const char *chosen_name = "slicing-by-8";

uint32_t wal_crc32c(uint32_t crc, const void *data, size_t bytes) {
    return chosen_function(crc, data, bytes);
}

const char *wal_crc32c_name(void) { return chosen_name; }

static inline uint64_t load_word(const uint8_t *bytes) {
    uint64_t word;
    memcpy(&word, bytes, sizeof(word));
    return word;
}

/* ---- slicing-by-8 ---------------------------------------------------------------------------- */

/* slicing_table[i][b]: what byte b contributes when i more bytes of the same word follow it. */
static void slicing_prepare(void) {
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++) {
            crc = (crc >> 1) ^ ((crc & 1) != 0 ? (uint32_t)CRC32C_POLYNOMIAL_REFLECTED : 0);
        }
        slicing_table[0][byte] = crc;
    }
    for (uint32_t byte = 0; byte < 256; byte++) {
        for (int i = 1; i < WORD_BYTES; i++) {
            uint32_t crc = slicing_table[i - 1][byte];
            slicing_table[i][byte] = (crc >> 8) ^ slicing_table[0][crc & 0xff];
        }
    }
}

uint32_t wal_crc32c_portable(uint32_t crc, const void *data, size_t bytes) {
    assert(data != NULL || bytes == 0);
    const uint8_t *at = data;
    crc = ~crc;
    for (; bytes >= WORD_BYTES; bytes -= WORD_BYTES, at += WORD_BYTES) {
        uint64_t word = load_word(at) ^ crc;
        /* Written out: as a loop, which gcc -O2 does not unroll, it runs at half the speed. */
        crc = slicing_table[7][word & 0xff] ^ slicing_table[6][(word >> 8) & 0xff] ^
              slicing_table[5][(word >> 16) & 0xff] ^ slicing_table[4][(word >> 24) & 0xff] ^
              slicing_table[3][(word >> 32) & 0xff] ^ slicing_table[2][(word >> 40) & 0xff] ^
              slicing_table[1][(word >> 48) & 0xff] ^ slicing_table[0][word >> 56];
    }
    for (; bytes > 0; bytes--, at++) crc = (crc >> 8) ^ slicing_table[0][(crc ^ *at) & 0xff];
    return ~crc;
}

/* ---- x86-64: SSE4.2 and PCLMULQDQ ------------------------------------------------------------ */

#if defined(__x86_64__)

enum {
    LANES = 3,
    LANE_WORDS_MAX = 510, /* not 512: three lanes exactly 4 KiB apart would share cache sets */
    LANES_PAY_BYTES = 96, /* below, waiting for the multiply costs more than the lanes gain */
};

/* shift_by_words[n] = x^(64 n - 33) mod P, bit-reflected. */
static uint32_t shift_by_words[2 * LANE_WORDS_MAX + 2];

__attribute__((target("sse4.2"))) static void lanes_prepare(void) {
    const size_t count = sizeof(shift_by_words) / sizeof(shift_by_words[0]);
    shift_by_words[1] = 1; /* x^31: the lowest bit of a reflected CRC is its highest power */
    for (size_t n = 2; n < count; n++) {
        /* A crc32 instruction over a word of zeros multiplies by x^64. */
        shift_by_words[n] = (uint32_t)_mm_crc32_u64(shift_by_words[n - 1], 0);
    }
}

__attribute__((target("sse4.2,pclmul"))) static inline __m128i shifted(uint64_t crc, size_t words) {
    return _mm_clmulepi64_si128(_mm_cvtsi64_si128((long long)crc),
                                _mm_cvtsi32_si128((int)shift_by_words[words]), 0);
}

__attribute__((target("sse4.2,pclmul"))) static uint32_t crc32c_sse42(uint32_t crc,
                                                                      const void *data,
                                                                      size_t bytes) {
    assert(data != NULL || bytes == 0);
    const uint8_t *at = data;
    uint64_t lane0 = ~crc;
    while (bytes >= LANES_PAY_BYTES) {
        size_t words = (bytes / WORD_BYTES - 1) / LANES;
        if (words > LANE_WORDS_MAX) words = LANE_WORDS_MAX;
        const uint8_t *at1 = at + words * WORD_BYTES;
        const uint8_t *at2 = at1 + words * WORD_BYTES;
        const uint8_t *end = at1;
        uint64_t lane1 = 0, lane2 = 0;
        for (; at < end; at += WORD_BYTES, at1 += WORD_BYTES, at2 += WORD_BYTES) {
            lane0 = _mm_crc32_u64(lane0, load_word(at));
            lane1 = _mm_crc32_u64(lane1, load_word(at1));
            lane2 = _mm_crc32_u64(lane2, load_word(at2));
        }
        __m128i folded = _mm_xor_si128(shifted(lane0, 2 * words + 1), shifted(lane1, words + 1));
        lane0 = _mm_crc32_u64(lane2, load_word(at2) ^ (uint64_t)_mm_cvtsi128_si64(folded));
        at = at2 + WORD_BYTES;
        bytes -= (LANES * words + 1) * WORD_BYTES;
    }
    for (; bytes >= WORD_BYTES; bytes -= WORD_BYTES, at += WORD_BYTES) {
        lane0 = _mm_crc32_u64(lane0, load_word(at));
    }
    crc = (uint32_t)lane0;
    for (; bytes > 0; bytes--, at++) crc = _mm_crc32_u8(crc, *at);
    return ~crc;
}

#endif

/* ---- ARMv8 ----------------------------------------------------------------------------------- */

#if defined(__aarch64__)

#if defined(__clang__)
__attribute__((target("crc")))
#else
__attribute__((target("+crc")))
#endif
static uint32_t crc32c_armv8(uint32_t crc, const void *data, size_t bytes) {
    assert(data != NULL || bytes == 0);
    const uint8_t *at = data;
    crc = ~crc;
    for (; bytes >= WORD_BYTES; bytes -= WORD_BYTES, at += WORD_BYTES) {
        crc = __crc32cd(crc, load_word(at));
    }
    for (; bytes > 0; bytes--, at++) crc = __crc32cb(crc, *at);
    return ~crc;
}

static int armv8_has_crc(void) {
#if defined(__linux__)
    const unsigned long hwcap_crc32 = 1UL << 7; /* HWCAP_CRC32; not in every libc's headers */
    return (getauxval(AT_HWCAP) & hwcap_crc32) != 0;
#else
    return 1; /* every Apple processor of this architecture has it */
#endif
}

#endif

/* ---- the choice ------------------------------------------------------------------------------ */

__attribute__((constructor)) static void crc32c_choose(void) {
    slicing_prepare();
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul")) {
        lanes_prepare();
        chosen_function = crc32c_sse42;
        chosen_name = "sse4.2+pclmul";
    }
#elif defined(__aarch64__)
    if (armv8_has_crc()) {
        chosen_function = crc32c_armv8;
        chosen_name = "armv8";
    }
#endif
}
