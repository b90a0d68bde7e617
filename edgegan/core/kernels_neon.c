/* The kernels for 64-bit ARM. */
#include "kernels.h"

#if EDGEGAN_NEON
#include <arm_neon.h>
#include <string.h>

#include "rounding.h"

enum { LANES = 4, COUNTERS = 4 };
typedef uint32x4_t U;
typedef float32x4_t F;
typedef uint32x4_t P;

static inline U u_load(const void *p) { return vreinterpretq_u32_u8(vld1q_u8((const uint8_t *)p)); }
static inline void u_store(void *p, U a) { vst1q_u8((uint8_t *)p, vreinterpretq_u8_u32(a)); }
static inline U u_set(uint32_t a) { return vdupq_n_u32(a); }
static inline U u_and(U a, U b) { return vandq_u32(a, b); }
static inline U u_or(U a, U b) { return vorrq_u32(a, b); }
static inline U u_xor(U a, U b) { return veorq_u32(a, b); }
static inline U u_without(U a, U b) { return vbicq_u32(a, b); }
static inline U u_add(U a, U b) { return vaddq_u32(a, b); }
static inline U u_sub(U a, U b) { return vsubq_u32(a, b); }
static inline U u_shift_left(U a, int by) { return vshlq_u32(a, vdupq_n_s32(by)); }
static inline U u_shift_right(U a, int by) { return vshlq_u32(a, vdupq_n_s32(-by)); }
static inline U u_sign(U a) { return vreinterpretq_u32_s32(vshrq_n_s32(vreinterpretq_s32_u32(a), 31)); }

static inline F f_load(const void *p) { return vreinterpretq_f32_u32(u_load(p)); }
static inline void f_store(void *p, F a) { u_store(p, vreinterpretq_u32_f32(a)); }
static inline F f_set(float a) { return vdupq_n_f32(a); }
static inline F f_add(F a, F b) { return vaddq_f32(a, b); }
static inline F f_sub(F a, F b) { return vsubq_f32(a, b); }
static inline F f_multiply(F a, F b) { return vmulq_f32(a, b); }
static inline F f_divide(F a, F b) { return vdivq_f32(a, b); }
static inline U f_bits(F a) { return vreinterpretq_u32_f32(a); }
static inline F f_from(U a) { return vcvtq_f32_u32(a); }

static inline U f_round_to_byte(F a)
{
    return vcvtnq_u32_f32(vminnmq_f32(vmaxnmq_f32(a, f_set(0)), f_set(255))); /* maxnm(NaN, 0) is 0 */
}

static inline U f_round(F a)
{
    return f_round_to_byte(a);
}

static inline void f_load_columns(const float table[][4], const uint32_t rows[LANES], F c[4])
{
    const F r0 = f_load(table[rows[0]]), r1 = f_load(table[rows[1]]);
    const F r2 = f_load(table[rows[2]]), r3 = f_load(table[rows[3]]);
    const float64x2_t a = vreinterpretq_f64_f32(vzip1q_f32(r0, r1)), b = vreinterpretq_f64_f32(vzip1q_f32(r2, r3));
    const float64x2_t d = vreinterpretq_f64_f32(vzip2q_f32(r0, r1)), e = vreinterpretq_f64_f32(vzip2q_f32(r2, r3));
    c[0] = vreinterpretq_f32_f64(vzip1q_f64(a, b));
    c[1] = vreinterpretq_f32_f64(vzip2q_f64(a, b));
    c[2] = vreinterpretq_f32_f64(vzip1q_f64(d, e));
    c[3] = vreinterpretq_f32_f64(vzip2q_f64(d, e));
}

static inline void u_store_bytes(uint8_t *p, U a, U b, U c, U d)
{
    const uint16x8_t low = vcombine_u16(vmovn_u32(a), vmovn_u32(b)), high = vcombine_u16(vmovn_u32(c), vmovn_u32(d));
    vst1q_u8(p, vcombine_u8(vmovn_u16(low), vmovn_u16(high)));
}

static inline U u_load_bytes(const uint8_t *p)
{
    uint32_t bytes;
    memcpy(&bytes, p, 4);
    return vmovl_u16(vget_low_u16(vmovl_u8(vcreate_u8(bytes))));
}

/* The low 24 bits of each lane, side by side. */
static inline void u_store_24(uint8_t *p, U a)
{
    static const uint8_t keep[16] = {0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, 255, 255, 255, 255};
    uint8_t packed[16];
    vst1q_u8(packed, vqtbl1q_u8(vreinterpretq_u8_u32(a), vld1q_u8(keep)));
    memcpy(p, packed, 12);
}

static inline U u_load_24(const uint8_t *p)
{
    static const uint8_t spread[16] = {0, 1, 2, 255, 3, 4, 5, 255, 6, 7, 8, 255, 9, 10, 11, 255};
    uint8_t packed[16] = {0};
    memcpy(packed, p, 12);
    return vreinterpretq_u32_u8(vqtbl1q_u8(vld1q_u8(packed), vld1q_u8(spread)));
}

static inline P p_set(uint32_t a) { return u_set(a); }
static inline P p_xor(P a, P b, P c) { return u_xor(u_xor(a, b), c); }
static inline P p_load(const uint32_t *p) { return u_load(p); }

static inline void p_load_halves(const uint64_t *p, P *low, P *high)
{
    const P first = u_load(p), second = u_load(p + 2);
    *low = vuzp1q_u32(first, second);
    *high = vuzp2q_u32(first, second);
}

static inline P p_multiply(P a, P b, P *high)
{
    const U first = vreinterpretq_u32_u64(vmull_u32(vget_low_u32(a), vget_low_u32(b)));
    const U second = vreinterpretq_u32_u64(vmull_high_u32(a, b));
    *high = vuzp2q_u32(first, second);
    return vuzp1q_u32(first, second);
}

static inline void p_store(uint32_t *p, P c0, P c1, P c2, P c3)
{
    const uint32x4x4_t blocks = {{c0, c1, c2, c3}};
    vst4q_u32(p, blocks);
}

#include "kernels_simd.h"

const edgegan_kernels edgegan_kernels_neon = {"neon", philox, narrow, normal, to_uint8, to_float};
#else
typedef int edgegan_no_neon; /* C has no empty files */
#endif
