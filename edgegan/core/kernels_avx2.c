/* The kernels for x86-64 processors with AVX2 (since 2013). */
#include "kernels.h"

#if EDGEGAN_X86_DISPATCH
#include <immintrin.h>
#include <string.h>

#include "rounding.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#else
#pragma GCC target("avx2")
#endif

enum { LANES = 8, COUNTERS = 4 };
typedef __m256i U;
typedef __m256 F;
typedef __m256i P; /* a counter's word in the low half of 64 bits; the high half is arbitrary */

static inline U u_load(const void *p) { return _mm256_loadu_si256((const __m256i *)p); }
static inline void u_store(void *p, U a) { _mm256_storeu_si256((__m256i *)p, a); }
static inline U u_set(uint32_t a) { return _mm256_set1_epi32((int)a); }
static inline U u_and(U a, U b) { return _mm256_and_si256(a, b); }
static inline U u_or(U a, U b) { return _mm256_or_si256(a, b); }
static inline U u_xor(U a, U b) { return _mm256_xor_si256(a, b); }
static inline U u_without(U a, U b) { return _mm256_andnot_si256(b, a); }
static inline U u_add(U a, U b) { return _mm256_add_epi32(a, b); }
static inline U u_sub(U a, U b) { return _mm256_sub_epi32(a, b); }
static inline U u_shift_left(U a, int by) { return _mm256_slli_epi32(a, by); }
static inline U u_shift_right(U a, int by) { return _mm256_srli_epi32(a, by); }
static inline U u_sign(U a) { return _mm256_srai_epi32(a, 31); }

static inline F f_load(const void *p) { return _mm256_loadu_ps((const float *)p); }
static inline void f_store(void *p, F a) { _mm256_storeu_ps((float *)p, a); }
static inline F f_set(float a) { return _mm256_set1_ps(a); }
static inline F f_add(F a, F b) { return _mm256_add_ps(a, b); }
static inline F f_sub(F a, F b) { return _mm256_sub_ps(a, b); }
static inline F f_multiply(F a, F b) { return _mm256_mul_ps(a, b); }
static inline F f_divide(F a, F b) { return _mm256_div_ps(a, b); }
static inline U f_bits(F a) { return _mm256_castps_si256(a); }

/* Of an integer with 24 significant bits. The conversion takes signed ones: the top bit is added after it. */
static inline F f_from(U a)
{
    const U top = u_and(u_sign(a), u_set(0x4F000000u)); /* 2^31 as a float's bits */
    return f_add(_mm256_cvtepi32_ps(u_and(a, u_set(0x7FFFFFFFu))), _mm256_castsi256_ps(top));
}

/* At most 255; what is negative or not a number stays negative. min(255, NaN) is NaN here, and converts to -2^31. */
static inline U f_round(F a)
{
    return _mm256_cvtps_epi32(_mm256_min_ps(f_set(255), a));
}

static inline U f_round_to_byte(F a)
{
    return _mm256_cvtps_epi32(_mm256_min_ps(_mm256_max_ps(a, f_set(0)), f_set(255))); /* max(NaN, 0) is 0 here */
}

static inline F f_load_rows(const float *low, const float *high)
{
    return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(low)), _mm_loadu_ps(high), 1);
}

static inline void f_load_columns(const float table[][4], const uint32_t rows[LANES], F c[4])
{
    const F r0 = f_load_rows(table[rows[0]], table[rows[4]]), r1 = f_load_rows(table[rows[1]], table[rows[5]]);
    const F r2 = f_load_rows(table[rows[2]], table[rows[6]]), r3 = f_load_rows(table[rows[3]], table[rows[7]]);
    const F a = _mm256_unpacklo_ps(r0, r1), b = _mm256_unpacklo_ps(r2, r3);
    const F d = _mm256_unpackhi_ps(r0, r1), e = _mm256_unpackhi_ps(r2, r3);
    c[0] = _mm256_shuffle_ps(a, b, 0x44);
    c[1] = _mm256_shuffle_ps(a, b, 0xEE);
    c[2] = _mm256_shuffle_ps(d, e, 0x44);
    c[3] = _mm256_shuffle_ps(d, e, 0xEE);
}

/* Of integers that f_round gives: the packs saturate, negative ones become 0. */
static inline void u_store_bytes(uint8_t *p, U a, U b, U c, U d)
{
    /* The packs work within halves of 128 bits; the permutation puts their groups of four back in order. */
    const U packed = _mm256_packus_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
    u_store(p, _mm256_permutevar8x32_epi32(packed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)));
}

static inline U u_load_bytes(const uint8_t *p)
{
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p));
}

/* The low 24 bits of each lane, side by side: first within halves, then the halves. */
static inline void u_store_24(uint8_t *p, U a)
{
    const __m128i keep = _mm_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1);
    const U halves = _mm256_shuffle_epi8(a, _mm256_broadcastsi128_si256(keep));
    const U whole = _mm256_permutevar8x32_epi32(halves, _mm256_setr_epi32(0, 1, 2, 4, 5, 6, 3, 7));
    _mm_storeu_si128((__m128i *)p, _mm256_castsi256_si128(whole));
    _mm_storel_epi64((__m128i *)(p + 16), _mm256_extracti128_si256(whole, 1));
}

static inline U u_load_24(const uint8_t *p)
{
    const __m128i spread = _mm_setr_epi8(0, 1, 2, -1, 3, 4, 5, -1, 6, 7, 8, -1, 9, 10, 11, -1);
    const __m128i first = _mm_loadu_si128((const __m128i *)p), last = _mm_loadl_epi64((const __m128i *)(p + 16));
    const U whole = _mm256_inserti128_si256(_mm256_castsi128_si256(first), last, 1);
    const U halves = _mm256_permutevar8x32_epi32(whole, _mm256_setr_epi32(0, 1, 2, 6, 3, 4, 5, 7));
    return _mm256_shuffle_epi8(halves, _mm256_broadcastsi128_si256(spread));
}

static inline P p_set(uint32_t a) { return _mm256_set1_epi64x((long long)a); }
static inline P p_xor(P a, P b, P c) { return _mm256_xor_si256(_mm256_xor_si256(a, b), c); }
static inline P p_load(const uint32_t *p) { return _mm256_cvtepu32_epi64(_mm_loadu_si128((const __m128i *)p)); }

static inline void p_load_halves(const uint64_t *p, P *low, P *high)
{
    *low = u_load(p);
    *high = _mm256_srli_epi64(*low, 32);
}

static inline P p_multiply(P a, P b, P *high)
{
    const P product = _mm256_mul_epu32(a, b);
    *high = _mm256_srli_epi64(product, 32);
    return product;
}

static inline void p_store(uint32_t *p, P c0, P c1, P c2, P c3)
{
    const P c01 = _mm256_blend_epi32(c0, _mm256_slli_epi64(c1, 32), 0xAA);
    const P c23 = _mm256_blend_epi32(c2, _mm256_slli_epi64(c3, 32), 0xAA);
    const P even = _mm256_unpacklo_epi64(c01, c23), odd = _mm256_unpackhi_epi64(c01, c23);
    u_store(p, _mm256_permute2x128_si256(even, odd, 0x20));
    u_store(p + 8, _mm256_permute2x128_si256(even, odd, 0x31));
}

#include "kernels_simd.h"

const edgegan_kernels edgegan_kernels_avx2 = {"avx2", philox, narrow, normal, to_uint8, to_float};

#if defined(__clang__)
#pragma clang attribute pop
#endif
#else
typedef int edgegan_no_avx2; /* C has no empty files */
#endif
