/* The C core of edgegan: noise, pixels and PNG files for any program that runs a generator.
 *
 * Plain C11 without Python.h. No function allocates, keeps state, prints or starts a thread; all are
 * thread-safe. A function that can fail returns an edgegan_status, and on an error leaves its outputs as they
 * were. Every number is a pure function of its arguments, with the same bits on every processor and with
 * every instruction set; edgegan/_pure.py is the same in NumPy.
 *
 * Compile all .c files of this folder but _core.c, which is the Python module, and link with -lm:
 *
 *     cc -std=c11 -O3 -ffp-contract=off -c edgegan/core/[!_]*.c
 *
 * Not with -ffast-math. Fused multiply-adds would change bits: where a compiler makes them in spite of what the
 * sources ask for, edgegan_check() says so at run time. docs/core.md has an example.
 */
#ifndef EDGEGAN_H
#define EDGEGAN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum {
    EDGEGAN_OK = 0,
    EDGEGAN_ERROR_ARGUMENT,   /* an argument is outside the range that its function states */
    EDGEGAN_ERROR_OVERFLOW,   /* a product of sizes is beyond what one call, or memory, can hold */
    EDGEGAN_ERROR_BUFFER,     /* a buffer is not of the size that the arguments call for */
    EDGEGAN_ERROR_TEXT,       /* a text chunk's keyword or text is not valid */
    EDGEGAN_ERROR_ARITHMETIC  /* this build rounds in another way than the noise contract requires */
} edgegan_status;

/* What a status means, in one line of English without a full stop. */
const char *edgegan_message(edgegan_status status);

/* The instruction set that runs on this processor: "avx512", "avx2", "sse2", "neon" or "scalar". */
const char *edgegan_instruction_set(void);

/* EDGEGAN_OK if known answers come out right in this build, else EDGEGAN_ERROR_ARITHMETIC. Microseconds. */
edgegan_status edgegan_check(void);

/* Noise
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
 * The images are start .. start + n - 1, where start + n <= 2^64 (else EDGEGAN_ERROR_ARGUMENT), and out is
 * [n, dim], a row an image, 1 <= dim < 2^34. `items` is how many elements out has: it must be n * dim.
 */

/* Stream EDGEGAN_STREAM_NOISE_INPUT + k is for the model's input noise_k. */
enum {
    EDGEGAN_STREAM_LATENT = 0,
    EDGEGAN_STREAM_LABEL = 1,
    EDGEGAN_STREAM_TRAINING = 2,
    EDGEGAN_STREAM_NOISE_INPUT = 16
};

/* One block of Philox4x32-10. */
void edgegan_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

/* Raw words, uniform over 0 .. 2^32 - 1. */
edgegan_status edgegan_words(uint64_t seed, uint64_t start, uint64_t n, uint64_t dim, uint32_t stream,
                             uint32_t *out, size_t items);

/* Normals; with a finite truncation t >= 0.001, normals conditioned on |z| <= t: one word is still one
 * element, mapped monotonically onto the words whose normals lie in [-t, t]. INFINITY, or any t > 6.4, means
 * no bound. */
edgegan_status edgegan_normal(uint64_t seed, uint64_t start, uint64_t n, uint64_t dim, uint32_t stream,
                              float truncation, float *out, size_t items);

/* The normals of `items` words. */
void edgegan_normal_from_words(const uint32_t *words, float *out, size_t items);

/* Labels, uniform over 0 .. classes - 1, from word 0 of EDGEGAN_STREAM_LABEL: out is [n],
 * 1 <= classes <= 2^31. */
edgegan_status edgegan_labels(uint64_t seed, uint64_t start, uint64_t n, uint32_t classes, int64_t *out,
                              size_t items);

/* The seed for one kind of a training run's randomness: words 2 purpose (its low half) and 2 purpose + 1 (its
 * high half) of image 0 of EDGEGAN_STREAM_TRAINING; purpose < 2^31. */
edgegan_status edgegan_derive_seed(uint64_t seed, uint32_t purpose, uint64_t *out);

/* Between latents a and b, each [dim]: row i of out [count, dim] lies at t[i], 0 <= t[i] <= 1, on the straight
 * line (lerp) or on the arc (slerp: Shoemake, "Animating rotation with quaternion curves", SIGGRAPH 1985;
 * White, "Sampling generative networks", 2016), which keeps the length that normals have and generators
 * expect. t = 0 is a and t = 1 is b, exactly (a zero may lose its sign). Where the arc is not defined (a zero vector, or directions
 * within 1e-6 of equal or opposite) it is the line. Weights are computed in double, elements in float. */
edgegan_status edgegan_lerp(const float *a, const float *b, size_t dim, const double *t, size_t count,
                            float *out, size_t items);
edgegan_status edgegan_slerp(const float *a, const float *b, size_t dim, const double *t, size_t count,
                             float *out, size_t items);

/* Pixels
 *
 * A network's images are float NCHW with pixels in [-1, 1]; files and screens want uint8 NHWC. Buffers may be
 * laid out in any way and need no alignment: strides say, in bytes and of either sign, how far it is from one
 * element to the next along each dimension. A part of a larger picture, a tile of a grid for one, is such a
 * buffer. No call handles more than EDGEGAN_MAX_ELEMENTS elements (else EDGEGAN_ERROR_OVERFLOW).
 */
#define EDGEGAN_MAX_ELEMENTS 0x7FFFFFFF

typedef struct {
    size_t n, c, h, w;
} edgegan_shape;

typedef struct {
    ptrdiff_t n, c, h, w; /* bytes */
} edgegan_strides;

/* float -> uint8: v = x * 127.5 + 127.5, the product rounded to float before the sum, clamped to [0, 255] and
 * rounded half to even. Infinities clamp, NaN becomes 0. Each pixel becomes zoom x zoom pixels, 1 <= zoom <=
 * 65535: pixels is [n, h * zoom, w * zoom, c], and its strides are those from one written pixel to the next. */
edgegan_status edgegan_to_uint8(edgegan_shape shape, const void *images, edgegan_strides from, void *pixels,
                                edgegan_strides to, size_t zoom);

/* uint8 -> float: p / 127.5 - 1, both rounded to float: what edgegan_to_uint8 turns back into p. */
edgegan_status edgegan_to_float(edgegan_shape shape, const void *pixels, edgegan_strides from, void *images,
                                edgegan_strides to);

/* Tiles
 *
 * A large picture is translated in tiles that overlap. A tile is taken with edgegan_tile and given to the network; where
 * two results overlap, edgegan_blend leads from one over into the next; edgegan_to_uint8 turns what is done to pixels.
 */

/* uint8 -> float, as edgegan_to_float, of the shape.h x shape.w pixels from row y and column x on. They may lie outside
 * the picture, which is height x width and goes on mirrored at its first and last pixels, over and over (0 1 2 3 2 1 0
 * 1 ...). pixels is [n, height, width, c]; height and width are 1 .. EDGEGAN_MAX_ELEMENTS, y and x at most that far from
 * 0 (else EDGEGAN_ERROR_ARGUMENT). */
edgegan_status edgegan_tile(size_t height, size_t width, const void *pixels, edgegan_strides from, ptrdiff_t y,
                            ptrdiff_t x, edgegan_shape shape, void *images, edgegan_strides to);

/* images = before + (images - before) * weights[row], each step rounded to float: both are [n, c, h, w] of floats,
 * weights is [h]. To go from left to right instead, exchange h and w in the shape and in the strides. */
edgegan_status edgegan_blend(edgegan_shape shape, const void *before, edgegan_strides from, const float *weights,
                             void *images, edgegan_strides to);

/* PNG
 *
 * A whole file (PNG, third edition, W3C 2025; zlib and deflate, RFC 1950 and 1951) from 8-bit pixels: grey,
 * grey with alpha, RGB or RGBA by channels = 1, 2, 3, 4. The pixels of a row lie side by side; row_stride says,
 * in bytes and of either sign, how far it is to the next row. The same pixels and texts give the same file on
 * every processor.
 */

/* A text chunk: tEXt if all of it is ASCII, else iTXt. Both strings are UTF-8 and end with NUL. A keyword has
 * 1 to 79 printable ASCII characters without leading, trailing or doubled spaces; a text at most 2^24 bytes. */
typedef struct {
    const char *keyword, *text;
} edgegan_text;

/* The bytes that edgegan_png needs to work in, and those that the largest possible file takes. 1 <= width,
 * height < 2^31; the picture has at most EDGEGAN_MAX_ELEMENTS bytes. */
edgegan_status edgegan_png_sizes(size_t width, size_t height, size_t channels, const edgegan_text *texts,
                                 size_t text_count, size_t *workspace_size, size_t *file_size);

/* Writes the file; *written is its length. workspace needs no initialisation, but an alignment for uint64_t. */
edgegan_status edgegan_png(const void *pixels, ptrdiff_t row_stride, size_t width, size_t height,
                           size_t channels, const edgegan_text *texts, size_t text_count, void *workspace,
                           size_t workspace_size, uint8_t *file, size_t file_size, size_t *written);

#ifdef __cplusplus
}
#endif
#endif
