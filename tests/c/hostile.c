/* Forged, flipped and foreign bytes; see hostile.h. */
#include "hostile.h"

#include <dirent.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"
#include "format.h"
#include "power.h"

enum { FRAMES_MAX = 256 };

struct view {
    struct sim_disk *disk;
    struct sim_file *file;
    struct wal_disk_segment header;
    uint64_t offsets[FRAMES_MAX]; /* of its frames */
    size_t count;
};

__attribute__((format(printf, 2, 3))) static void violated(struct hostile_result *result,
                                                           const char *format, ...) {
    if (result->violations++ > 0) return;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(result->first, sizeof(result->first), format, arguments);
    va_end(arguments);
}

/* ---- a second decoder, from the table in format.h -------------------------------------------- */

static uint32_t header_crc(const struct view *view, const struct wal_disk_frame *frame) {
    uint32_t crc = wal_crc32c(0, &view->header.salt, 8);
    return wal_crc32c(crc, (const char *)frame + 8, sizeof(*frame) - 8);
}

static void frame_read(const struct view *view, uint64_t offset, struct wal_disk_frame *frame) {
    CHECK(offset + sizeof(*frame) <= view->file->bytes);
    memcpy(frame, view->file->cache + offset, sizeof(*frame));
}

static bool frame_decodes(const struct view *view, uint64_t offset,
                          const struct wal_disk_frame *frame) {
    uint64_t end = offset + sizeof(*frame) + frame->payload_bytes;
    return frame->magic == WAL_FRAME_MAGIC && frame->own_offset == offset &&
           frame->salt_low == (uint32_t)view->header.salt && frame->zero == 0 &&
           frame->header_crc == header_crc(view, frame) && end <= view->file->bytes &&
           frame->payload_crc ==
               wal_crc32c(0, view->file->cache + offset + sizeof(*frame), frame->payload_bytes);
}

static uint64_t frame_end(const struct view *view, uint64_t offset,
                          const struct wal_disk_frame *frame) {
    uint64_t alignment =
        (frame->flags & WAL_FLAG_PADDED) != 0 ? view->header.commit_alignment : WAL_FRAME_ALIGNMENT;
    uint64_t end = offset + sizeof(*frame) + frame->payload_bytes;
    return (end + alignment - 1) / alignment * alignment;
}

/* The frames of one segment; what stands behind them is told by its magic. */
static void view_walk(struct view *view, struct hostile_result *result) {
    struct wal_disk_frame frame;
    uint64_t offset = WAL_FRAMES_OFFSET, lsn = 0;
    uint32_t previous = 0;
    view->count = 0;
    while (offset + sizeof(frame) <= view->file->bytes && view->count < FRAMES_MAX) {
        frame_read(view, offset, &frame);
        if (frame.magic != WAL_FRAME_MAGIC || frame.salt_low != (uint32_t)view->header.salt) break;
        bool first = offset == WAL_FRAMES_OFFSET;
        if (!frame_decodes(view, offset, &frame)) {
            violated(result, "the frame at %" PRIu64 " does not decode by the table", offset);
            return;
        }
        if (first != (frame.type == WAL_TYPE_START) || frame.previous_crc != previous ||
            (!first && frame.first_lsn != lsn)) {
            violated(result, "the frame at %" PRIu64 " does not follow the one before", offset);
        }
        lsn = frame.first_lsn + frame.record_count;
        previous = frame.header_crc;
        view->offsets[view->count++] = offset;
        offset = frame_end(view, offset, &frame);
    }
}

/* The newest segment of a disk, by the id in its header. */
static void view_newest(struct view *view, struct sim_disk *disk, struct hostile_result *result) {
    view->disk = disk;
    view->file = NULL;
    for (size_t i = 0; i < disk->names.count; i++) {
        if (strncmp(disk->names.list[i].text, "wal-", 4) != 0) continue;
        struct sim_file *file = sim_file(disk, disk->names.list[i].inode);
        struct wal_disk_segment header;
        struct wal_disk_frame start;
        memcpy(&header, file->cache, sizeof(header));
        memcpy(&start, file->cache + WAL_FRAMES_OFFSET, sizeof(start));
        bool started = start.magic == WAL_FRAME_MAGIC && start.salt_low == (uint32_t)header.salt;
        bool newer = view->file == NULL || header.segment_id > view->header.segment_id;
        if (!started || !newer) continue;
        view->file = file;
        view->header = header;
    }
    CHECK(view->file != NULL);
    view_walk(view, result);
}

/* ---- logs to work on ------------------------------------------------------------------------- */

static struct sim_disk *play(struct session *s, const char *script, enum session_mode mode) {
    struct sim_disk *disk = sim_new();
    session_begin(s, disk, NULL, mode, 7);
    power_play(s, script);
    CHECK_STR(s->why, "");
    return disk;
}

static void finish(struct session *s, struct sim_disk *disk) {
    session_end(s);
    sim_free(disk);
}

void hostile_decode(struct hostile_result *result) {
    static const char *const scripts[] = {
        "a10 c b600 c A33 a0 c x a10 c",
        "f f f m f a10 c g500 c",
        "a700 a1 a0 c m a511 c",
    };
    for (size_t i = 0; i < 6; i++) {
        struct session s;
        struct view view;
        struct sim_disk *disk = play(&s, scripts[i % 3], i < 3 ? SESSION_PLAIN : SESSION_STRICT);
        view_newest(&view, disk, result);
        result->frames += view.count;
        if (view.count < 2) violated(result, "the newest segment shows %zu frames", view.count);
        finish(&s, disk);
    }
}

/* Flipped: what is read is what was appended, or damage is reported. Forged: it is well-formed. */
static void judge(const struct session *s, struct sim_disk *disk, struct hostile_result *result,
                  const char *what, bool forged) {
    char why[ORACLE_WHY_BYTES];
    struct oracle_found found;
    struct oracle oracle = s->oracle; /* shares the records, is not freed */
    wal_writer *writer = NULL;
    wal_reader *reader = NULL;
    wal_report report = {0};
    wal_error error = {0};
    /* A writer looks once; a reader looks again for a while before it believes in damage. */
    int opened = wal_writer_open_io(sim_io(disk), &s->options, &writer, &report, &error);
    if (opened < 0) {
        result->reported++;
        return;
    }
    wal_writer_free(writer);
    opened = wal_reader_open_io(sim_io(disk), WAL_RECOVERY_POINT_IN_TIME, &reader, &report, &error);
    if (opened < 0) {
        result->reported++;
        return;
    }
    if (report.verdict == WAL_VERDICT_CORRUPT) {
        result->reported++;
    } else if (oracle_check_reader(&oracle, reader, &report, false, &found, why) != 0) {
        /* Who computes CRCs may write any record he likes: they tell accidents, not attackers. */
        bool refused =
            forged ? strstr(why, "outside its block") == NULL : strstr(why, "cursor fails") != NULL;
        if (refused) result->reported++;
        if (!refused) violated(result, "%s: %.300s", what, why);
    }
    wal_reader_close(reader);
}

/* ---- forged frames --------------------------------------------------------------------------- */

static void forge_one(const struct session *s, struct sim_disk *disk, const char *what,
                      uint64_t offset, struct wal_disk_frame *frame, const uint8_t *payload,
                      size_t payload_bytes, struct hostile_result *result) {
    struct view view;
    struct sim_disk *copy = sim_copy(disk);
    struct hostile_result ignored = {0};
    view_newest(&view, copy, &ignored);
    if (payload != NULL) frame->payload_crc = wal_crc32c(0, payload, payload_bytes);
    frame->header_crc = header_crc(&view, frame);
    sim_damage(copy, view.file->inode, offset, frame, sizeof(*frame));
    if (payload != NULL) {
        sim_damage(copy, view.file->inode, offset + sizeof(*frame), payload, payload_bytes);
    }
    result->forged++;
    judge(s, copy, result, what, true);
    sim_free(copy);
}

/* Lengths that reach past the frame, the segment and the address space. */
static void forge_lengths(const struct session *s, struct sim_disk *disk, const struct view *view,
                          uint64_t offset, struct hostile_result *result) {
    const uint32_t lengths[] = {
        0,
        1,
        3,
        7,
        (uint32_t)(view->file->bytes - offset - 64),
        (uint32_t)(view->file->bytes - offset - 63),
        32768,
        1048576,
        1048577,
        0x7fffffff,
        0x80000000u,
        0xfffffff7u,
        0xffffffffu,
    };
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        struct wal_disk_frame frame;
        frame_read(view, offset, &frame);
        frame.payload_bytes = lengths[i];
        forge_one(s, disk, "forged payload length", offset, &frame, NULL, 0, result);
        frame_read(view, offset, &frame);
        frame.record_count = lengths[i];
        forge_one(s, disk, "forged record count", offset, &frame, NULL, 0, result);
    }
}

/* End offsets that go back, reach past the payload, or leave bytes over. */
static void forge_ends(const struct session *s, struct sim_disk *disk, const struct view *view,
                       uint64_t offset, struct hostile_result *result) {
    struct wal_disk_frame frame;
    uint8_t payload[4096];
    const uint32_t ends[] = {0, 1, 0x7fffffff, 0x80000000u, 0xfffffff0u, 0xffffffffu, 4096};
    frame_read(view, offset, &frame);
    if (frame.type != WAL_TYPE_DATA || frame.payload_bytes > sizeof(payload)) return;
    for (uint32_t record = 0; record < frame.record_count; record++) {
        for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
            size_t bytes = frame.payload_bytes;
            size_t crcs = (frame.flags & WAL_FLAG_RECORD_CRC) != 0 ? frame.record_count : 0;
            size_t table = bytes - 4 * (size_t)(frame.record_count - record) - 4 * crcs;
            struct wal_disk_frame lying = frame;
            memcpy(payload, view->file->cache + offset + sizeof(frame), bytes);
            if (memcmp(payload + table, &ends[i], 4) == 0) continue;
            memcpy(payload + table, &ends[i], 4);
            forge_one(s, disk, "forged end offset", offset, &lying, payload, bytes, result);
        }
    }
}

void hostile_forge(struct hostile_result *result) {
    struct session s;
    struct view view;
    struct sim_disk *disk = play(&s, "a10 c b600 c A33 c b9 c", SESSION_PLAIN);
    s.oracle.acked = 0; /* the forger may take everything away but must not add */
    view_newest(&view, disk, result);
    for (size_t i = 0; i < view.count; i++) {
        forge_lengths(&s, disk, &view, view.offsets[i], result);
        forge_ends(&s, disk, &view, view.offsets[i], result);
    }
    finish(&s, disk);
}

/* ---- flipped bits ---------------------------------------------------------------------------- */

void hostile_flip(struct hostile_result *result) {
    struct session s;
    struct view view;
    struct sim_disk *disk = play(&s, "a10 c b600 c A33 c g20 c x", SESSION_PLAIN);
    view_newest(&view, disk, result);
    for (size_t i = 0; i < view.count; i++) {
        for (size_t bit = 0; bit < sizeof(struct wal_disk_frame) * 8; bit++) {
            uint64_t offset = view.offsets[i] + bit / 8;
            struct sim_disk *copy = sim_copy(disk);
            uint8_t byte = (uint8_t)(view.file->cache[offset] ^ (1u << bit % 8));
            char what[64];
            sim_damage(copy, view.file->inode, offset, &byte, 1);
            snprintf(what, sizeof(what), "bit %zu of the frame at %" PRIu64, bit, view.offsets[i]);
            result->flipped++;
            judge(&s, copy, result, what, false);
            sim_free(copy);
        }
    }
    finish(&s, disk);
}

/* ---- the lock -------------------------------------------------------------------------------- */

static void remove_directory(const char *path) {
    DIR *entries = opendir(path);
    if (entries == NULL) return;
    for (struct dirent *entry; (entry = readdir(entries)) != NULL;) {
        if (entry->d_name[0] == '.') continue;
        CHECK_EQ(unlinkat(dirfd(entries), entry->d_name, 0), 0);
    }
    closedir(entries);
    CHECK_EQ(rmdir(path), 0);
}

void hostile_clean(const char *directory) {
    char path[512];
    snprintf(path, sizeof(path), "%s/locked", directory);
    remove_directory(path);
}

void hostile_lock(const char *directory, struct hostile_result *result) {
    char path[512];
    struct session first, second;
    snprintf(path, sizeof(path), "%s/locked", directory);
    session_begin(&first, NULL, path, SESSION_PLAIN, 1);
    session_begin(&second, NULL, path, SESSION_PLAIN, 2);
    CHECK_EQ(session_open(&first), 0);
    CHECK_EQ(session_append(&first, 10, 0), 0);
    int answer = session_open(&second);
    if (answer != WAL_E_LOCKED) violated(result, "the second writer is answered %d", answer);
    session_kill(&second);
    session_end(&second);
    CHECK_EQ(session_close(&first), 0);
    session_end(&first);
    hostile_clean(directory);
}
