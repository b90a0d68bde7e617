/* The inner loops, once for each instruction set. Private to the core: noise.c and pixels.c check arguments, cut
 * the work into pieces and call these. All sets give the same bits.
 *
 * kernels_simd.h holds the loops in terms of a few vector operations; kernels_avx512.c and its like define those
 * operations and include it. kernels_scalar.c is plain C.
 */
#ifndef EDGEGAN_KERNELS_H
#define EDGEGAN_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#if defined(__x86_64__) || defined(_M_X64)
#define EDGEGAN_X86 1
#if defined(__GNUC__)
#define EDGEGAN_X86_DISPATCH 1 /* functions for later processors beside those for any x86-64, chosen at run time */
#endif
#elif defined(__aarch64__) && defined(__ARM_NEON) && !defined(__AARCH64EB__)
#define EDGEGAN_NEON 1 /* every aarch64 processor has it; on 32-bit ARM it does not round as IEEE 754 says */
#endif

/* The largest vector has so many 32-bit lanes. philox and normal take counts that are multiples of it, so that
 * no kernel needs a loop for a rest. */
enum { EDGEGAN_LANES = 16 };

typedef struct {
    const char *name;

    /* Block i is Philox4x32-10 of (q[i], stream, index[i] low, index[i] high): words 4i .. 4i+3. */
    void (*philox)(const uint32_t key[2], uint32_t stream, const uint32_t *q, const uint64_t *index, size_t blocks,
                   uint32_t *words);

    /* The words mapped onto low .. 2^32 - 1 - low, in order: low + (word * span >> 32). */
    void (*narrow)(uint32_t *words, size_t count, uint32_t low, uint32_t span);

    /* The normals of words; see edgegan.h. */
    void (*normal)(const uint32_t *words, size_t count, float *out);

    /* One row of `width` pixels: planes[k], k < channels, are its float channels, of any alignment, and pixels
     * are its interleaved bytes. channels is 1, 3 or 4. */
    void (*to_uint8)(const uint8_t *const planes[], size_t channels, size_t width, uint8_t *pixels);
    void (*to_float)(const uint8_t *pixels, size_t channels, size_t width, uint8_t *const planes[]);
} edgegan_kernels;

extern const edgegan_kernels edgegan_kernels_scalar;
#if EDGEGAN_X86
extern const edgegan_kernels edgegan_kernels_sse2;
#endif
#if EDGEGAN_X86_DISPATCH
extern const edgegan_kernels edgegan_kernels_avx2, edgegan_kernels_avx512;
#endif
#if EDGEGAN_NEON
extern const edgegan_kernels edgegan_kernels_neon;
#endif

/* Those that this processor can run, the fastest first, into found[4]; how many. */
int edgegan_usable_kernels(const edgegan_kernels *found[4]);

const edgegan_kernels *edgegan_best_kernels(void);

/* Whether an x86-64 processor is known to add products of bytes in 32 bits at once, so that none overflows: for those
 * who run an int8 network. The core itself has no use for it. */
int edgegan_has_vnni(void);

/* The cubics of the inverse normal CDF; benchmarks/noise_table.py explains them. */
extern const float edgegan_normal_table[512][4];

#endif
