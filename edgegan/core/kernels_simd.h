/* The kernels in terms of vector operations, which the including file defines for its instruction set:
 *
 *   U, F      LANES 32-bit integers, LANES floats          P   COUNTERS Philox counters' words
 *   u_*, f_*  what their names say, lane by lane           p_* the same for P
 *
 * kernels_scalar.c has the same steps with their reasons.
 */
#include <string.h>

static void philox(const uint32_t key[2], uint32_t stream, const uint32_t *q, const uint64_t *index, size_t blocks,
                   uint32_t *words)
{
    const P m0 = p_set(0xD2511F53u), m1 = p_set(0xCD9E8D57u);
    for (size_t i = 0; i < blocks; i += COUNTERS) {
        uint32_t k0 = key[0], k1 = key[1];
        P c0 = p_load(q + i), c1 = p_set(stream), c2, c3;
        p_load_halves(index + i, &c2, &c3);
        for (int round = 0; round < 10; round++) {
            P high0, high1;
            const P low0 = p_multiply(c0, m0, &high0), low1 = p_multiply(c2, m1, &high1);
            c0 = p_xor(high1, c1, p_set(k0));
            c1 = low1;
            c2 = p_xor(high0, c3, p_set(k1));
            c3 = low0;
            k0 += 0x9E3779B9u;
            k1 += 0xBB67AE85u;
        }
        p_store(words + 4 * i, c0, c1, c2, c3);
    }
}

static void narrow(uint32_t *words, size_t count, uint32_t low, uint32_t span)
{
    for (size_t i = 0; i < count; i++) /* compilers vectorise this themselves */
        words[i] = low + (uint32_t)((uint64_t)words[i] * span >> 32);
}

static void normal(const uint32_t *words, size_t count, float *out)
{
    for (size_t i = 0; i < count; i += LANES) {
        const U u = u_load(words + i);
        const U m = u_xor(u, u_sign(u)), v = u_or(u_add(m, m), u_set(1));
        const U bits = f_bits(f_from(u_without(v, u_shift_right(v, 24))));
        uint32_t rows[LANES];
        u_store(rows, u_sub(u_shift_right(bits, 19), u_set(127u << 4)));
        F c[4];
        f_load_columns(edgegan_normal_table, rows, c);
        const F x = f_multiply(f_from(u_and(bits, u_set(0x7FFFF))), f_set(1.0f / 524288.0f));
        F z = f_add(c[2], f_multiply(c[3], x));
        z = f_add(c[1], f_multiply(z, x));
        z = f_add(c[0], f_multiply(z, x));
        u_store((uint32_t *)(out + i), u_or(f_bits(z), u_without(u_set(0x80000000u), u)));
    }
}

static inline F brightness(const uint8_t *plane, size_t i)
{
    return f_add(f_multiply(f_load(plane + 4 * i), f_set(127.5f)), f_set(127.5f));
}

/* Each float of a channel as an integer 0 .. 255. */
static inline U quantised(const uint8_t *plane, size_t i)
{
    return f_round_to_byte(brightness(plane, i));
}

static inline F scaled(U byte)
{
    return f_sub(f_divide(f_from(byte), f_set(127.5f)), f_set(1.0f));
}

/* `width` is a multiple of 4 * LANES for grey pixels, of LANES for others. */
static void to_uint8_whole(const uint8_t *const planes[], size_t channels, size_t width, uint8_t *pixels)
{
    if (channels == 1)
        for (size_t i = 0; i < width; i += 4 * LANES)
            u_store_bytes(pixels + i, f_round(brightness(planes[0], i)), f_round(brightness(planes[0], i + LANES)),
                          f_round(brightness(planes[0], i + 2 * LANES)),
                          f_round(brightness(planes[0], i + 3 * LANES)));
    else
        for (size_t i = 0; i < width; i += LANES) {
            const U red = quantised(planes[0], i), green = quantised(planes[1], i), blue = quantised(planes[2], i);
            const U rgb = u_or(u_or(red, u_shift_left(green, 8)), u_shift_left(blue, 16));
            if (channels == 3)
                u_store_24(pixels + 3 * i, rgb);
            else
                u_store(pixels + 4 * i, u_or(rgb, u_shift_left(quantised(planes[3], i), 24)));
        }
}

/* `width` is a multiple of LANES. */
static void to_float_whole(const uint8_t *pixels, size_t channels, size_t width, uint8_t *const planes[])
{
    const U byte = u_set(255);
    for (size_t i = 0; i < width; i += LANES) {
        if (channels == 1) {
            f_store(planes[0] + 4 * i, scaled(u_load_bytes(pixels + i)));
            continue;
        }
        const U packed = channels == 3 ? u_load_24(pixels + 3 * i) : u_load(pixels + 4 * i);
        f_store(planes[0] + 4 * i, scaled(u_and(packed, byte)));
        f_store(planes[1] + 4 * i, scaled(u_and(u_shift_right(packed, 8), byte)));
        f_store(planes[2] + 4 * i, scaled(u_and(u_shift_right(packed, 16), byte)));
        if (channels == 4)
            f_store(planes[3] + 4 * i, scaled(u_shift_right(packed, 24)));
    }
}

enum { REST = 4 * LANES }; /* the last pixels of a row go through buffers of whole vectors */

static void to_uint8(const uint8_t *const planes[], size_t channels, size_t width, uint8_t *pixels)
{
    const size_t whole = width - width % (channels == 1 ? REST : LANES), rest = width - whole;
    to_uint8_whole(planes, channels, whole, pixels);
    if (rest > 0) {
        float floats[4][REST] = {{0}};
        uint8_t bytes[4 * REST];
        const uint8_t *padded[4];
        for (size_t k = 0; k < channels; k++) {
            memcpy(floats[k], planes[k] + 4 * whole, 4 * rest);
            padded[k] = (const uint8_t *)floats[k];
        }
        to_uint8_whole(padded, channels, channels == 1 ? REST : LANES, bytes);
        memcpy(pixels + channels * whole, bytes, channels * rest);
    }
}

static void to_float(const uint8_t *pixels, size_t channels, size_t width, uint8_t *const planes[])
{
    const size_t rest = width % LANES, whole = width - rest;
    to_float_whole(pixels, channels, whole, planes);
    if (rest > 0) {
        uint8_t bytes[4 * LANES] = {0};
        float floats[4][LANES];
        uint8_t *const padded[4] = {(uint8_t *)floats[0], (uint8_t *)floats[1], (uint8_t *)floats[2],
                                    (uint8_t *)floats[3]};
        memcpy(bytes, pixels + channels * whole, channels * rest);
        to_float_whole(bytes, channels, LANES, padded);
        for (size_t k = 0; k < channels; k++)
            memcpy(planes[k] + 4 * whole, floats[k], 4 * rest);
    }
}
