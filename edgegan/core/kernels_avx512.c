/* The kernels for x86-64 processors with AVX-512 F and BW. */
#include "kernels.h"

#if EDGEGAN_X86_DISPATCH
#include <immintrin.h>
#include <string.h>

#include "rounding.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw")
#endif

enum { LANES = 16, COUNTERS = 8 };
typedef __m512i U;
typedef __m512 F;
typedef __m512i P; /* a counter's word in the low half of 64 bits; the high half is arbitrary */

static inline U u_load(const void *p) { return _mm512_loadu_si512(p); }
static inline void u_store(void *p, U a) { _mm512_storeu_si512(p, a); }
static inline U u_set(uint32_t a) { return _mm512_set1_epi32((int)a); }
static inline U u_and(U a, U b) { return _mm512_and_si512(a, b); }
static inline U u_or(U a, U b) { return _mm512_or_si512(a, b); }
static inline U u_xor(U a, U b) { return _mm512_xor_si512(a, b); }
static inline U u_without(U a, U b) { return _mm512_andnot_si512(b, a); }
static inline U u_add(U a, U b) { return _mm512_add_epi32(a, b); }
static inline U u_sub(U a, U b) { return _mm512_sub_epi32(a, b); }
static inline U u_shift_left(U a, unsigned by) { return _mm512_slli_epi32(a, by); }
static inline U u_shift_right(U a, unsigned by) { return _mm512_srli_epi32(a, by); }
static inline U u_sign(U a) { return _mm512_srai_epi32(a, 31); }

static inline F f_load(const void *p) { return _mm512_loadu_ps(p); }
static inline void f_store(void *p, F a) { _mm512_storeu_ps(p, a); }
static inline F f_set(float a) { return _mm512_set1_ps(a); }
static inline F f_add(F a, F b) { return _mm512_add_ps(a, b); }
static inline F f_sub(F a, F b) { return _mm512_sub_ps(a, b); }
static inline F f_multiply(F a, F b) { return _mm512_mul_ps(a, b); }
static inline F f_divide(F a, F b) { return _mm512_div_ps(a, b); }
static inline U f_bits(F a) { return _mm512_castps_si512(a); }
static inline F f_from(U a) { return _mm512_cvtepu32_ps(a); }

/* At most 255; what is negative or not a number stays negative. min(255, NaN) is NaN here, and converts to -2^31. */
static inline U f_round(F a)
{
    return _mm512_cvtps_epi32(_mm512_min_ps(f_set(255), a));
}

static inline U f_round_to_byte(F a)
{
    return _mm512_cvtps_epi32(_mm512_min_ps(_mm512_max_ps(a, f_set(0)), f_set(255))); /* max(NaN, 0) is 0 here */
}

/* Rows i, i + 4, i + 8, i + 12 of the 16. */
static inline F f_load_rows(const float table[][4], const uint32_t rows[LANES], int i)
{
    F four = _mm512_castps128_ps512(_mm_loadu_ps(table[rows[i]]));
    four = _mm512_insertf32x4(four, _mm_loadu_ps(table[rows[i + 4]]), 1);
    four = _mm512_insertf32x4(four, _mm_loadu_ps(table[rows[i + 8]]), 2);
    return _mm512_insertf32x4(four, _mm_loadu_ps(table[rows[i + 12]]), 3);
}

static inline void f_load_columns(const float table[][4], const uint32_t rows[LANES], F c[4])
{
    const F r0 = f_load_rows(table, rows, 0), r1 = f_load_rows(table, rows, 1);
    const F r2 = f_load_rows(table, rows, 2), r3 = f_load_rows(table, rows, 3);
    const F a = _mm512_unpacklo_ps(r0, r1), b = _mm512_unpacklo_ps(r2, r3);
    const F d = _mm512_unpackhi_ps(r0, r1), e = _mm512_unpackhi_ps(r2, r3);
    c[0] = _mm512_shuffle_ps(a, b, 0x44);
    c[1] = _mm512_shuffle_ps(a, b, 0xEE);
    c[2] = _mm512_shuffle_ps(d, e, 0x44);
    c[3] = _mm512_shuffle_ps(d, e, 0xEE);
}

/* Of integers that f_round gives: the packs saturate, negative ones become 0. */
static inline void u_store_bytes(uint8_t *p, U a, U b, U c, U d)
{
    const U order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    /* The packs work within quarters of 128 bits; the permutation puts their groups of four back in order. */
    const U packed = _mm512_packus_epi16(_mm512_packs_epi32(a, b), _mm512_packs_epi32(c, d));
    u_store(p, _mm512_permutexvar_epi32(order, packed));
}

static inline U u_load_bytes(const uint8_t *p)
{
    return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p));
}

/* The low 24 bits of each lane, side by side: first within quarters, then the quarters. */
static inline void u_store_24(uint8_t *p, U a)
{
    const __m128i keep = _mm_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1);
    const U order = _mm512_setr_epi32(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, 3, 7, 11, 15);
    const U quarters = _mm512_shuffle_epi8(a, _mm512_broadcast_i32x4(keep));
    _mm512_mask_storeu_epi32(p, 0x0FFF, _mm512_permutexvar_epi32(order, quarters));
}

static inline U u_load_24(const uint8_t *p)
{
    const __m128i spread = _mm_setr_epi8(0, 1, 2, -1, 3, 4, 5, -1, 6, 7, 8, -1, 9, 10, 11, -1);
    const U order = _mm512_setr_epi32(0, 1, 2, 12, 3, 4, 5, 13, 6, 7, 8, 14, 9, 10, 11, 15);
    const U quarters = _mm512_permutexvar_epi32(order, _mm512_maskz_loadu_epi32(0x0FFF, p));
    return _mm512_shuffle_epi8(quarters, _mm512_broadcast_i32x4(spread));
}

static inline P p_set(uint32_t a) { return _mm512_set1_epi64((long long)a); }
static inline P p_xor(P a, P b, P c) { return _mm512_ternarylogic_epi64(a, b, c, 0x96); }
static inline P p_load(const uint32_t *p) { return _mm512_cvtepu32_epi64(_mm256_loadu_si256((const __m256i *)p)); }

static inline void p_load_halves(const uint64_t *p, P *low, P *high)
{
    *low = u_load(p);
    *high = _mm512_srli_epi64(*low, 32);
}

static inline P p_multiply(P a, P b, P *high)
{
    const P product = _mm512_mul_epu32(a, b);
    *high = _mm512_srli_epi64(product, 32);
    return product;
}

static inline void p_store(uint32_t *p, P c0, P c1, P c2, P c3)
{
    const P c01 = _mm512_mask_blend_epi32(0xAAAA, c0, _mm512_slli_epi64(c1, 32));
    const P c23 = _mm512_mask_blend_epi32(0xAAAA, c2, _mm512_slli_epi64(c3, 32));
    u_store(p, _mm512_permutex2var_epi64(c01, _mm512_setr_epi64(0, 8, 1, 9, 2, 10, 3, 11), c23));
    u_store(p + 16, _mm512_permutex2var_epi64(c01, _mm512_setr_epi64(4, 12, 5, 13, 6, 14, 7, 15), c23));
}

#include "kernels_simd.h"

const edgegan_kernels edgegan_kernels_avx512 = {"avx512", philox, narrow, normal, to_uint8, to_float};

#if defined(__clang__)
#pragma clang attribute pop
#endif
#else
typedef int edgegan_no_avx512; /* C has no empty files */
#endif
