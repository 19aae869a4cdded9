/* A small table of pinned segments; pins.h says what for. */
#include "pins.h"

#include <pthread.h>
#include <string.h>

enum { PINS_MAX = 256 };

struct pin {
    uint8_t log_uuid[16];
    uint64_t segment_id;
    uint64_t holders; /* 0: the place is free */
};

static pthread_mutex_t pins_mutex = PTHREAD_MUTEX_INITIALIZER;
static struct pin pins[PINS_MAX];

static struct pin *find(const uint8_t log_uuid[16], uint64_t segment_id) {
    for (int i = 0; i < PINS_MAX; i++) {
        struct pin *pin = &pins[i];
        if (pin->holders > 0 && pin->segment_id == segment_id &&
            memcmp(pin->log_uuid, log_uuid, 16) == 0) {
            return pin;
        }
    }
    return NULL;
}

static struct pin *find_free(void) {
    for (int i = 0; i < PINS_MAX; i++) {
        if (pins[i].holders == 0) return &pins[i];
    }
    return NULL;
}

int wal_pin(const uint8_t log_uuid[16], uint64_t segment_id) {
    pthread_mutex_lock(&pins_mutex);
    struct pin *pin = find(log_uuid, segment_id);
    if (pin == NULL && (pin = find_free()) != NULL) {
        memcpy(pin->log_uuid, log_uuid, 16);
        pin->segment_id = segment_id;
    }
    if (pin != NULL) pin->holders++;
    pthread_mutex_unlock(&pins_mutex);
    return pin != NULL;
}

void wal_unpin(const uint8_t log_uuid[16], uint64_t segment_id) {
    pthread_mutex_lock(&pins_mutex);
    struct pin *pin = find(log_uuid, segment_id);
    if (pin != NULL) pin->holders--;
    pthread_mutex_unlock(&pins_mutex);
}

int wal_is_pinned(const uint8_t log_uuid[16], uint64_t segment_id) {
    pthread_mutex_lock(&pins_mutex);
    int pinned = find(log_uuid, segment_id) != NULL;
    pthread_mutex_unlock(&pins_mutex);
    return pinned;
}

void wal_pins_before_fork(void) { pthread_mutex_lock(&pins_mutex); }

void wal_pins_after_fork(void) { pthread_mutex_unlock(&pins_mutex); }
