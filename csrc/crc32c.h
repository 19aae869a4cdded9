/* CRC32C (Castagnoli); the public declarations are wal_crc32c and wal_crc32c_name. */
#ifndef WALENGINE_CRC32C_H
#define WALENGINE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

#include "walengine.h"

/* The portable implementation, always built: the others are checked against it. */
uint32_t wal_crc32c_portable(uint32_t crc, const void *data, size_t bytes);

#endif
