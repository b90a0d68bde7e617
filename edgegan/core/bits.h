/* Bytes, bits and their writer, for the deflate encoder. Not part of the public interface. */
#ifndef EDGEGAN_BITS_H
#define EDGEGAN_BITS_H

#include <stdint.h>

#if defined(_MSC_VER)
#include <intrin.h>
#endif

/* Little-endian on every machine; compilers make one instruction of each. */

static inline uint32_t load32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline uint64_t load64(const uint8_t *p)
{
    return (uint64_t)load32(p) | (uint64_t)load32(p + 4) << 32;
}

static inline void store64(uint8_t *p, uint64_t v)
{
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
    p[2] = (uint8_t)(v >> 16);
    p[3] = (uint8_t)(v >> 24);
    p[4] = (uint8_t)(v >> 32);
    p[5] = (uint8_t)(v >> 40);
    p[6] = (uint8_t)(v >> 48);
    p[7] = (uint8_t)(v >> 56);
}

/* The index of the highest set bit; v > 0. */
static inline unsigned log2_floor(uint32_t v)
{
#if defined(__GNUC__)
    return (unsigned)(8 * sizeof(int)) - 1u - (unsigned)__builtin_clz(v);
#elif defined(_MSC_VER)
    unsigned long index;
    _BitScanReverse(&index, v);
    return (unsigned)index;
#else
    unsigned n = 0;
    for (unsigned step = 16; step > 0; step /= 2)
        if (v >> step != 0) {
            v >>= step;
            n += step;
        }
    return n;
#endif
}

/* 8 log2 v, with the logarithm linear between powers of two; v > 0. */
static inline unsigned log2_eighths(uint32_t v)
{
    const unsigned e = log2_floor(v);
    return 8 * e + (unsigned)((uint64_t)v << 3 >> e & 7);
}

/* How many of the lowest bytes are zero; v > 0. */
static inline unsigned low_zero_bytes(uint64_t v)
{
    const uint32_t half = (uint32_t)v != 0 ? (uint32_t)v : (uint32_t)(v >> 32);
    return ((uint32_t)v != 0 ? 0 : 4) + log2_floor(half & (0u - half)) / 8;
}

/* A stream of bits, the first one lowest in its byte. */
typedef struct {
    uint64_t bits;  /* not yet written, the next one lowest */
    unsigned count; /* of bits; below 8 between calls */
    uint8_t *out;
} bit_writer;

/* Flushes leave at most 7 bits; between two, put at most 56. */
static inline void put(bit_writer *w, uint32_t value, unsigned count)
{
    w->bits |= (uint64_t)value << w->count;
    w->count += count;
}

static inline void flush(bit_writer *w)
{
    store64(w->out, w->bits);
    w->out += w->count / 8;
    w->bits >>= w->count & 56;
    w->count &= 7;
}

/* A code is kept as its bits, to be put as they are, above 4 bits of its length. */
static inline void put_code(bit_writer *w, uint32_t code)
{
    put(w, code >> 4, code & 15);
}

#endif
