/* The noise contract; edgegan.h says what it promises. edgegan/_pure.py is the same in NumPy, to the bit. */
#include "edgegan.h"

#include <float.h>
#include <string.h>

#include "normal_table.h"

#if defined(__FAST_MATH__) || (defined(FLT_EVAL_METHOD) && FLT_EVAL_METHOD != 0)
#error "the noise contract needs float arithmetic rounded after every operation: no -ffast-math, no x87"
#endif
#if defined(_MSC_VER)
#pragma fp_contract(off)
#elif defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#endif

enum { BLOCK = 512 }; /* words kept on the stack between Philox and the normals; a multiple of 4 */

void edgegan_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4])
{
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3], k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; round++) {
        const uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

/* Words first .. first + count - 1 of one image; first is a multiple of 4. */
static void image_words(uint64_t seed, uint64_t index, uint32_t stream, uint64_t first, size_t count,
                        uint32_t *out)
{
    const uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    uint32_t counter[4] = {(uint32_t)(first / 4), stream, (uint32_t)index, (uint32_t)(index >> 32)};
    size_t done = 0;
    for (; count - done >= 4; done += 4, counter[0]++)
        edgegan_philox(counter, key, out + done);
    if (done < count) {
        uint32_t rest[4];
        edgegan_philox(counter, key, rest);
        memcpy(out + done, rest, (count - done) * sizeof *out);
    }
}

static float normal_from_word(uint32_t u)
{
    /* The tail probability is v / 2^33: the smaller of (u + 1/2) / 2^32 and one minus it, exactly. */
    const uint32_t v = 2 * (u ^ (0u - (u >> 31))) + 1;
    /* v cut to the 24 significant bits of a float. ~(v >> 24) clears the first bit that does not fit, so the
     * conversion rounds down. The float's exponent and next 4 bits are the row, its last 19 bits are x. */
    const float cut = (float)(v & ~(v >> 24));
    uint32_t bits;
    memcpy(&bits, &cut, sizeof bits);
    const float *c = normal_table[(bits >> 19) - (127u << 4)];
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

void edgegan_normal_from_words(const uint32_t *words, size_t count, float *out)
{
    for (size_t i = 0; i < count; i++)
        out[i] = normal_from_word(words[i]);
}

/* The smallest word whose normal is >= -truncation. */
static uint32_t truncation_word(float truncation)
{
    if (normal_from_word(0) >= -truncation)
        return 0;
    uint32_t low = 0, high = 0x7FFFFFFFu; /* the normal of high is about -3.7e-8, within any truncation */
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        if (normal_from_word(middle) >= -truncation)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

static int valid_shape(uint64_t start, uint64_t n, uint64_t dim)
{
    return (n == 0 || start <= UINT64_MAX - (n - 1)) && dim >= 1 && dim < (uint64_t)1 << 34;
}

static size_t block_size(uint64_t left)
{
    return left < BLOCK ? (size_t)left : (size_t)BLOCK;
}

int edgegan_words(uint64_t seed, uint64_t start, uint64_t n, uint64_t dim, uint32_t stream, uint32_t *out)
{
    if (!valid_shape(start, n, dim))
        return EDGEGAN_ERROR_ARGUMENT;
    for (uint64_t row = 0; row < n; row++)
        for (uint64_t j = 0; j < dim; j += BLOCK) {
            const size_t count = block_size(dim - j);
            image_words(seed, start + row, stream, j, count, out);
            out += count;
        }
    return EDGEGAN_OK;
}

int edgegan_normal(uint64_t seed, uint64_t start, uint64_t n, uint64_t dim, uint32_t stream, float truncation,
                   float *out)
{
    if (!valid_shape(start, n, dim) || !(truncation >= 0.001f)) /* the negation also refuses NaN */
        return EDGEGAN_ERROR_ARGUMENT;
    const uint32_t low = truncation_word(truncation);
    const uint64_t span = ((uint64_t)1 << 32) - 2 * (uint64_t)low;
    uint32_t words[BLOCK];
    for (uint64_t row = 0; row < n; row++)
        for (uint64_t j = 0; j < dim; j += BLOCK) {
            const size_t count = block_size(dim - j);
            image_words(seed, start + row, stream, j, count, words);
            if (low > 0)
                for (size_t i = 0; i < count; i++)
                    words[i] = low + (uint32_t)((words[i] * span) >> 32);
            edgegan_normal_from_words(words, count, out);
            out += count;
        }
    return EDGEGAN_OK;
}

int edgegan_labels(uint64_t seed, uint64_t start, uint64_t n, uint32_t classes, int64_t *out)
{
    if (!valid_shape(start, n, 1) || classes < 1 || classes > 0x80000000u)
        return EDGEGAN_ERROR_ARGUMENT;
    for (uint64_t row = 0; row < n; row++) {
        uint32_t word;
        image_words(seed, start + row, EDGEGAN_STREAM_LABEL, 0, 1, &word);
        out[row] = (int64_t)(((uint64_t)word * classes) >> 32);
    }
    return EDGEGAN_OK;
}

int edgegan_derive_seed(uint64_t seed, uint32_t purpose, uint64_t *out)
{
    if (purpose >= 0x80000000u)
        return EDGEGAN_ERROR_ARGUMENT;
    uint32_t words[4];
    image_words(seed, 0, EDGEGAN_STREAM_TRAINING, purpose / 2 * (uint64_t)4, 4, words);
    const uint32_t *pair = words + purpose % 2 * 2;
    *out = (uint64_t)pair[1] << 32 | pair[0];
    return EDGEGAN_OK;
}
