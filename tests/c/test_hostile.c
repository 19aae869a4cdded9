/* Forged and flipped bytes: reported or harmless, never a crash, never a record nobody appended. */
#include "hostile.h"

#include <unistd.h>

#include "check.h"

static struct hostile_result result;

static void passed(void) {
    if (result.violations > 0) fprintf(stderr, "%s\n", result.first);
    CHECK_EQ(result.violations, 0);
}

static void frames_decode_by_the_table(void) {
    hostile_decode(&result);
    passed();
    CHECK(result.frames > 20);
}

static void forged_lengths_are_refused(void) {
    hostile_forge(&result);
    passed();
}

static void flipped_bits_are_noticed(void) {
    hostile_flip(&result);
    passed();
}

static void the_second_writer_is_refused(void) {
    char directory[] = "/tmp/walengine-hostile-XXXXXX";
    CHECK(mkdtemp(directory) != NULL);
    hostile_lock(directory, &result);
    CHECK_EQ(rmdir(directory), 0);
    passed();
}

int main(void) {
    RUN(frames_decode_by_the_table);
    RUN(forged_lengths_are_refused);
    RUN(flipped_bits_are_noticed);
    RUN(the_second_writer_is_refused);
    COUNT("frames_decoded", result.frames);
    COUNT("frames_forged", result.forged);
    COUNT("bits_flipped", result.flipped);
    COUNT("reported", result.reported);
    return check_end();
}
