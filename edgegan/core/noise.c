/* The noise contract; edgegan.h says what it promises. edgegan/_pure.py is the same in NumPy, to the bit. */
#include "edgegan.h"

#include <math.h>
#include <string.h>

#include "kernels.h"
#include "normal_table.h"
#include "rounding.h"

enum { BLOCKS = 128, WORDS = 4 * BLOCKS }; /* what is drawn at once, on the stack; multiples of EDGEGAN_LANES */

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

static size_t rounded_up(size_t count)
{
    return (count + EDGEGAN_LANES - 1) / EDGEGAN_LANES * EDGEGAN_LANES;
}

/* The words of [n, dim], piece by piece in the order of memory. */
typedef struct {
    const edgegan_kernels *kernels;
    uint64_t seed, start, n, dim;
    uint32_t stream;
    uint64_t row, q; /* the next block */
} source;

/* Up to WORDS words; how many, 0 at the end. Rows of any length share a piece, so that short ones are as fast. */
static size_t next_words(source *s, uint32_t words[WORDS])
{
    const uint32_t key[2] = {(uint32_t)s->seed, (uint32_t)(s->seed >> 32)};
    const uint64_t row_blocks = (s->dim + 3) / 4;
    uint32_t q[BLOCKS];
    uint64_t index[BLOCKS];
    size_t blocks = 0;
    const uint64_t first = s->q;
    while (blocks < BLOCKS && s->row < s->n) {
        const uint64_t left = row_blocks - s->q;
        const size_t run = left < BLOCKS - blocks ? (size_t)left : BLOCKS - blocks;
        for (size_t i = 0; i < run; i++) {
            q[blocks + i] = (uint32_t)(s->q + i);
            index[blocks + i] = s->start + s->row;
        }
        blocks += run;
        s->q += run;
        if (s->q == row_blocks) {
            s->q = 0;
            s->row++;
        }
    }
    const size_t whole = rounded_up(blocks);
    for (size_t i = blocks; i < whole; i++)
        q[i] = 0, index[i] = 0;
    s->kernels->philox(key, s->stream, q, index, whole, words);
    if (s->dim % 4 == 0)
        return 4 * blocks;

    /* The last block of each row has words that nobody asked for: close up. */
    size_t count = 0;
    uint64_t at = first;
    for (size_t i = 0; i < blocks; i++) {
        const int is_last = at + 1 == row_blocks;
        const size_t used = is_last ? (size_t)(s->dim % 4) : 4;
        memmove(words + count, words + 4 * i, used * sizeof *words);
        count += used;
        at = is_last ? 0 : at + 1;
    }
    return count;
}

static edgegan_status check(uint64_t start, uint64_t n, uint64_t dim, size_t items, size_t item_size)
{
    if ((n > 0 && start > UINT64_MAX - (n - 1)) || dim < 1 || dim >= (uint64_t)1 << 34)
        return EDGEGAN_ERROR_ARGUMENT;
    if (n > SIZE_MAX / item_size / dim)
        return EDGEGAN_ERROR_OVERFLOW;
    return n * dim == items ? EDGEGAN_OK : EDGEGAN_ERROR_BUFFER;
}

edgegan_status edgegan_words(uint64_t seed, uint64_t start, uint64_t n, uint64_t dim, uint32_t stream,
                             uint32_t *out, size_t items)
{
    const edgegan_status status = check(start, n, dim, items, sizeof *out);
    if (status != EDGEGAN_OK)
        return status;
    source s = {edgegan_best_kernels(), seed, start, n, dim, stream, 0, 0};
    uint32_t words[WORDS];
    for (size_t count; (count = next_words(&s, words)) > 0; out += count)
        memcpy(out, words, count * sizeof *out);
    return EDGEGAN_OK;
}

/* The kernel takes whole vectors; the rest goes through one of its own. */
static void normals(const edgegan_kernels *kernels, const uint32_t *words, size_t count, float *out)
{
    const size_t rest = count % EDGEGAN_LANES, whole = count - rest;
    kernels->normal(words, whole, out);
    if (rest > 0) {
        uint32_t last_words[EDGEGAN_LANES] = {0};
        float last[EDGEGAN_LANES];
        memcpy(last_words, words + whole, rest * sizeof *words);
        kernels->normal(last_words, EDGEGAN_LANES, last);
        memcpy(out + whole, last, rest * sizeof *out);
    }
}

void edgegan_normal_from_words(const uint32_t *words, float *out, size_t items)
{
    normals(edgegan_best_kernels(), words, items, out);
}

/* The smallest word whose normal is >= -truncation. */
static uint32_t truncation_word(float truncation)
{
    uint32_t low = 0, high = 0x7FFFFFFFu; /* the normal of high is about -3.7e-8, within any truncation */
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        uint32_t words[EDGEGAN_LANES] = {middle};
        float z[EDGEGAN_LANES];
        edgegan_kernels_scalar.normal(words, 1, z);
        if (z[0] >= -truncation)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

edgegan_status edgegan_normal(uint64_t seed, uint64_t start, uint64_t n, uint64_t dim, uint32_t stream,
                              float truncation, float *out, size_t items)
{
    if (!(truncation >= 0.001f)) /* the negation also refuses NaN */
        return EDGEGAN_ERROR_ARGUMENT;
    const edgegan_status status = check(start, n, dim, items, sizeof *out);
    if (status != EDGEGAN_OK)
        return status;
    const uint32_t low = truncation > 6.4f ? 0 : truncation_word(truncation);
    source s = {edgegan_best_kernels(), seed, start, n, dim, stream, 0, 0};
    uint32_t words[WORDS];
    for (size_t count; (count = next_words(&s, words)) > 0; out += count) {
        if (low > 0)
            s.kernels->narrow(words, count, low, 0u - 2 * low);
        normals(s.kernels, words, count, out);
    }
    return EDGEGAN_OK;
}

edgegan_status edgegan_labels(uint64_t seed, uint64_t start, uint64_t n, uint32_t classes, int64_t *out,
                              size_t items)
{
    if (classes < 1 || classes > 0x80000000u)
        return EDGEGAN_ERROR_ARGUMENT;
    const edgegan_status status = check(start, n, 1, items, sizeof *out);
    if (status != EDGEGAN_OK)
        return status;
    source s = {edgegan_best_kernels(), seed, start, n, 1, EDGEGAN_STREAM_LABEL, 0, 0};
    uint32_t words[WORDS];
    for (size_t count; (count = next_words(&s, words)) > 0; out += count)
        for (size_t i = 0; i < count; i++)
            out[i] = (int64_t)((uint64_t)words[i] * classes >> 32);
    return EDGEGAN_OK;
}

edgegan_status edgegan_derive_seed(uint64_t seed, uint32_t purpose, uint64_t *out)
{
    if (purpose >= 0x80000000u)
        return EDGEGAN_ERROR_ARGUMENT;
    const uint32_t counter[4] = {purpose / 2, EDGEGAN_STREAM_TRAINING, 0, 0};
    const uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    uint32_t words[4];
    edgegan_philox(counter, key, words);
    const uint32_t *pair = words + purpose % 2 * 2;
    *out = (uint64_t)pair[1] << 32 | pair[0];
    return EDGEGAN_OK;
}
