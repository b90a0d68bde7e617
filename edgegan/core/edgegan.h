/* The C core of edgegan: the noise contract. Plain C11, no Python.h, no allocation, no state, thread-safe.
 *
 * Every number is a pure function of its arguments, with the same bits on every processor:
 *
 * - Philox4x32-10 (Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011). Words
 *   4q .. 4q+3 of image `index` of `seed` are the output for the counter (q, stream, index low half, index
 *   high half) and the key (seed low half, seed high half); the counter is used as given, not incremented.
 * - A word u becomes the normal at the probability (u + 1/2) / 2^32 by a piecewise cubic, with integer
 *   operations and float + and * in a fixed order. It is monotone in u, antisymmetric (z(~u) = -z(u)), never
 *   0, within 1e-6 of the exact quantile for every u, and |z| < 6.34.
 *
 * Any change of these bits is a breaking change; tests/vectors/ has known answers in plain text.
 *
 * Compile without fast-math and without fused multiply-add: -ffp-contract=off for gcc and clang.
 */
#ifndef EDGEGAN_H
#define EDGEGAN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What the functions that can fail return. */
enum { EDGEGAN_OK = 0, EDGEGAN_ERROR_ARGUMENT = 1 };

/* Stream EDGEGAN_STREAM_NOISE_INPUT + k is for the model's input noise_k. */
enum {
    EDGEGAN_STREAM_LATENT = 0,
    EDGEGAN_STREAM_LABEL = 1,
    EDGEGAN_STREAM_TRAINING = 2,
    EDGEGAN_STREAM_NOISE_INPUT = 16
};

/* One block of Philox4x32-10. */
void edgegan_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

/* The normals of `count` words. */
void edgegan_normal_from_words(const uint32_t *words, size_t count, float *out);

/* In all below, the images are start .. start + n - 1, where start + n <= 2^64, and out is [n, dim], a row an
 * image, 1 <= dim < 2^34. The caller sees to it that n * dim elements fit in out. On an argument error out is
 * not touched. */

/* Raw words, uniform over 0 .. 2^32 - 1. */
int edgegan_words(uint64_t seed, uint64_t start, uint64_t n, uint64_t dim, uint32_t stream, uint32_t *out);

/* Normals; with a finite truncation t >= 0.001, normals conditioned on |z| <= t: one word is still one
 * element, mapped monotonically onto the words whose normals lie in [-t, t]. INFINITY, or any t > 6.4, means
 * no bound. */
int edgegan_normal(uint64_t seed, uint64_t start, uint64_t n, uint64_t dim, uint32_t stream, float truncation,
                   float *out);

/* Labels, uniform over 0 .. classes - 1, from word 0 of EDGEGAN_STREAM_LABEL: out is [n],
 * 1 <= classes <= 2^31. */
int edgegan_labels(uint64_t seed, uint64_t start, uint64_t n, uint32_t classes, int64_t *out);

/* The seed for one kind of a training run's randomness: words 2 purpose (its low half) and 2 purpose + 1 (its
 * high half) of image 0 of EDGEGAN_STREAM_TRAINING; purpose < 2^31. */
int edgegan_derive_seed(uint64_t seed, uint32_t purpose, uint64_t *out);

#ifdef __cplusplus
}
#endif
#endif
