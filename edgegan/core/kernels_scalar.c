/* The kernels in plain C, for processors without a vector unit that rounds as IEEE 754 says, and the measure of
 * all others. */
#include "kernels.h"

#include <string.h>

#include "edgegan.h"
#include "rounding.h"

static void philox(const uint32_t key[2], uint32_t stream, const uint32_t *q, const uint64_t *index, size_t blocks,
                   uint32_t *words)
{
    for (size_t i = 0; i < blocks; i++) {
        const uint32_t counter[4] = {q[i], stream, (uint32_t)index[i], (uint32_t)(index[i] >> 32)};
        edgegan_philox(counter, key, words + 4 * i);
    }
}

static void narrow(uint32_t *words, size_t count, uint32_t low, uint32_t span)
{
    for (size_t i = 0; i < count; i++)
        words[i] = low + (uint32_t)((uint64_t)words[i] * span >> 32);
}

static float normal_of(uint32_t u)
{
    /* The tail probability is v / 2^33: the smaller of (u + 1/2) / 2^32 and one minus it, exactly. */
    const uint32_t v = 2 * (u ^ (0u - (u >> 31))) + 1;
    /* v cut to the 24 significant bits of a float. ~(v >> 24) clears the first bit that does not fit, so the
     * conversion rounds down. The float's exponent and next 4 bits are the row, its last 19 bits are x. */
    const float cut = (float)(v & ~(v >> 24));
    uint32_t bits;
    memcpy(&bits, &cut, sizeof bits);
    const float *c = edgegan_normal_table[(bits >> 19) - (127u << 4)];
    const float x = (float)(int32_t)(bits & 0x7FFFF) * (1.0f / 524288.0f);
    /* One operation a line: nothing to fuse or reorder. */
    float z = c[3] * x;
    z = c[2] + z;
    z = z * x;
    z = c[1] + z;
    z = z * x;
    z = c[0] + z;
    memcpy(&bits, &z, sizeof bits);
    bits |= ~u & 0x80000000u; /* z > 0 so far; the lower half of the words is its mirror */
    memcpy(&z, &bits, sizeof z);
    return z;
}

static void normal(const uint32_t *words, size_t count, float *out)
{
    for (size_t i = 0; i < count; i++)
        out[i] = normal_of(words[i]);
}

static uint8_t byte_of(float x)
{
    float v = x * 127.5f;
    v = v + 127.5f;
    v = v > 0.0f ? v : 0.0f; /* a NaN is not greater */
    v = v < 255.0f ? v : 255.0f;
    v = v + 12582912.0f; /* 1.5 * 2^23: its last bit is worth 1, so this rounds half to even */
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    return (uint8_t)bits;
}

static void to_uint8(const uint8_t *const planes[], size_t channels, size_t width, uint8_t *pixels)
{
    for (size_t k = 0; k < channels; k++)
        for (size_t i = 0; i < width; i++) {
            float x;
            memcpy(&x, planes[k] + i * sizeof x, sizeof x);
            pixels[i * channels + k] = byte_of(x);
        }
}

static void to_float(const uint8_t *pixels, size_t channels, size_t width, uint8_t *const planes[])
{
    for (size_t k = 0; k < channels; k++)
        for (size_t i = 0; i < width; i++) {
            float x = (float)pixels[i * channels + k] / 127.5f;
            x = x - 1.0f;
            memcpy(planes[k] + i * sizeof x, &x, sizeof x);
        }
}

const edgegan_kernels edgegan_kernels_scalar = {"scalar", philox, narrow, normal, to_uint8, to_float};
