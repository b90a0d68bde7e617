/* The kernels for any x86-64 processor. */
#include "kernels.h"

#if EDGEGAN_X86
#include <emmintrin.h>
#include <string.h>

#include "rounding.h"

enum { LANES = 4, COUNTERS = 2 };
typedef __m128i U;
typedef __m128 F;
typedef __m128i P; /* a counter's word in the low half of 64 bits; the high half is arbitrary */

static inline U u_load(const void *p) { return _mm_loadu_si128((const __m128i *)p); }
static inline void u_store(void *p, U a) { _mm_storeu_si128((__m128i *)p, a); }
static inline U u_set(uint32_t a) { return _mm_set1_epi32((int)a); }
static inline U u_and(U a, U b) { return _mm_and_si128(a, b); }
static inline U u_or(U a, U b) { return _mm_or_si128(a, b); }
static inline U u_xor(U a, U b) { return _mm_xor_si128(a, b); }
static inline U u_without(U a, U b) { return _mm_andnot_si128(b, a); }
static inline U u_add(U a, U b) { return _mm_add_epi32(a, b); }
static inline U u_sub(U a, U b) { return _mm_sub_epi32(a, b); }
static inline U u_shift_left(U a, int by) { return _mm_slli_epi32(a, by); }
static inline U u_shift_right(U a, int by) { return _mm_srli_epi32(a, by); }
static inline U u_sign(U a) { return _mm_srai_epi32(a, 31); }

static inline F f_load(const void *p) { return _mm_loadu_ps((const float *)p); }
static inline void f_store(void *p, F a) { _mm_storeu_ps((float *)p, a); }
static inline F f_set(float a) { return _mm_set1_ps(a); }
static inline F f_add(F a, F b) { return _mm_add_ps(a, b); }
static inline F f_sub(F a, F b) { return _mm_sub_ps(a, b); }
static inline F f_multiply(F a, F b) { return _mm_mul_ps(a, b); }
static inline F f_divide(F a, F b) { return _mm_div_ps(a, b); }
static inline U f_bits(F a) { return _mm_castps_si128(a); }

/* Of an integer with 24 significant bits. The conversion takes signed ones: the top bit is added after it. */
static inline F f_from(U a)
{
    const U top = u_and(u_sign(a), u_set(0x4F000000u)); /* 2^31 as a float's bits */
    return f_add(_mm_cvtepi32_ps(u_and(a, u_set(0x7FFFFFFFu))), _mm_castsi128_ps(top));
}

/* At most 255; what is negative or not a number stays negative. min(255, NaN) is NaN here, and converts to -2^31. */
static inline U f_round(F a)
{
    return _mm_cvtps_epi32(_mm_min_ps(f_set(255), a));
}

static inline U f_round_to_byte(F a)
{
    return _mm_cvtps_epi32(_mm_min_ps(_mm_max_ps(a, f_set(0)), f_set(255))); /* max(NaN, 0) is 0 here */
}

static inline void f_load_columns(const float table[][4], const uint32_t rows[LANES], F c[4])
{
    const F r0 = f_load(table[rows[0]]), r1 = f_load(table[rows[1]]);
    const F r2 = f_load(table[rows[2]]), r3 = f_load(table[rows[3]]);
    const F a = _mm_unpacklo_ps(r0, r1), b = _mm_unpacklo_ps(r2, r3);
    const F d = _mm_unpackhi_ps(r0, r1), e = _mm_unpackhi_ps(r2, r3);
    c[0] = _mm_movelh_ps(a, b);
    c[1] = _mm_movehl_ps(b, a);
    c[2] = _mm_movelh_ps(d, e);
    c[3] = _mm_movehl_ps(e, d);
}

/* Of integers that f_round gives: the packs saturate, negative ones become 0. */
static inline void u_store_bytes(uint8_t *p, U a, U b, U c, U d)
{
    u_store(p, _mm_packus_epi16(_mm_packs_epi32(a, b), _mm_packs_epi32(c, d)));
}

static inline U u_load_bytes(const uint8_t *p)
{
    int32_t bytes;
    memcpy(&bytes, p, 4);
    const U zero = u_set(0);
    return _mm_unpacklo_epi16(_mm_unpacklo_epi8(_mm_cvtsi32_si128(bytes), zero), zero);
}

/* The low 24 bits of each lane, side by side. */
static inline void u_store_24(uint8_t *p, U a)
{
    uint64_t lanes[2];
    u_store(lanes, a);
    for (int i = 0; i < 2; i++)
        lanes[i] = (lanes[i] & 0xFFFFFF) | (lanes[i] >> 32 << 24);
    const uint64_t first = lanes[0] | lanes[1] << 48, last = lanes[1] >> 16;
    memcpy(p, &first, 8);
    memcpy(p + 8, &last, 4);
}

static inline U u_load_24(const uint8_t *p)
{
    uint64_t first, last = 0;
    memcpy(&first, p, 8);
    memcpy(&last, p + 8, 4);
    last = last << 16 | first >> 48;
    const uint64_t lanes[2] = {(first & 0xFFFFFF) | (first << 8 & 0xFFFFFF00000000u),
                               (last & 0xFFFFFF) | (last << 8 & 0xFFFFFF00000000u)};
    return u_load(lanes);
}

static inline P p_set(uint32_t a) { return _mm_set1_epi64x((long long)a); }
static inline P p_xor(P a, P b, P c) { return _mm_xor_si128(_mm_xor_si128(a, b), c); }

static inline P p_load(const uint32_t *p)
{
    return _mm_set_epi64x((long long)p[1], (long long)p[0]);
}

static inline void p_load_halves(const uint64_t *p, P *low, P *high)
{
    *low = u_load(p);
    *high = _mm_srli_epi64(*low, 32);
}

static inline P p_multiply(P a, P b, P *high)
{
    const P product = _mm_mul_epu32(a, b);
    *high = _mm_srli_epi64(product, 32);
    return product;
}

static inline void p_store(uint32_t *p, P c0, P c1, P c2, P c3)
{
    const P low = p_set(0xFFFFFFFFu);
    const P c01 = u_or(u_and(c0, low), _mm_slli_epi64(c1, 32)), c23 = u_or(u_and(c2, low), _mm_slli_epi64(c3, 32));
    u_store(p, _mm_unpacklo_epi64(c01, c23));
    u_store(p + 4, _mm_unpackhi_epi64(c01, c23));
}

#include "kernels_simd.h"

const edgegan_kernels edgegan_kernels_sse2 = {"sse2", philox, narrow, normal, to_uint8, to_float};
#else
typedef int edgegan_no_sse2; /* C has no empty files */
#endif
