/* The two checksums of a PNG file. Not part of the public interface. */
#ifndef EDGEGAN_CHECKSUMS_H
#define EDGEGAN_CHECKSUMS_H

#include <stddef.h>
#include <stdint.h>

/* CRC-32 of a chunk's type and data (PNG, third edition, annex D). */
uint32_t edgegan_crc32(const uint8_t *data, size_t size);

/* Adler-32 of a zlib stream (RFC 1950, section 8.2), carried on from adler, which starts as 1. */
uint32_t edgegan_adler32(uint32_t adler, const uint8_t *data, size_t size);

#endif
