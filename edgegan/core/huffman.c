/* Huffman codes of limited length (Huffman, "A method for the construction of minimum-redundancy codes", 1952), as
 * deflate wants them (RFC 1951, section 3.2.2). */
#include "huffman.h"

#include <string.h>

#include "bits.h"

/* Sorts by count: buckets by magnitude with 8 steps an octave, then insertion among near neighbours. keys are
 * count * 512 + symbol, so that there are no ties. */
static unsigned bucket(uint32_t key)
{
    return log2_eighths(key >> 9);
}

static void sort_keys(const uint32_t *keys, uint32_t *sorted, unsigned n)
{
    uint16_t starts[8 * 17] = {0}; /* counts are below 2^17 */
    for (unsigned i = 0; i < n; i++)
        starts[bucket(keys[i])]++;
    unsigned sum = 0;
    for (unsigned i = 0; i < sizeof starts / sizeof *starts && sum < n; i++) {
        const unsigned count = starts[i];
        starts[i] = (uint16_t)sum;
        sum += count;
    }
    for (unsigned i = 0; i < n; i++)
        sorted[starts[bucket(keys[i])]++] = keys[i];
    for (unsigned i = 1; i < n; i++) {
        const uint32_t key = sorted[i];
        unsigned j = i;
        for (; j > 0 && sorted[j - 1] > key; j--)
            sorted[j] = sorted[j - 1];
        sorted[j] = key;
    }
}

/* How many codes have each length in an optimal code for n >= 2 ascending weights without a limit, lengths
 * beyond `limit` counted there. Huffman's method with two queues: leaves in order, and nodes as made. */
static void count_lengths(const uint32_t *sorted, unsigned n, unsigned limit, unsigned *counts)
{
    uint32_t weights[HUFFMAN_SYMBOLS];
    uint16_t parents[HUFFMAN_SYMBOLS];
    uint8_t depths[HUFFMAN_SYMBOLS];
    unsigned leaf = 0, node = 0;
    uint8_t leaves[HUFFMAN_SYMBOLS]; /* children of a node that are leaves */
    for (unsigned made = 0; made < n - 1; made++) {
        weights[made] = 0;
        leaves[made] = 0;
        for (int child = 0; child < 2; child++) {
            if (leaf < n && (node == made || sorted[leaf] >> 9 <= weights[node])) {
                weights[made] += sorted[leaf++] >> 9;
                leaves[made]++;
            } else {
                weights[made] += weights[node];
                parents[node++] = (uint16_t)made;
            }
        }
    }
    memset(counts, 0, 16 * sizeof *counts);
    for (unsigned i = n - 1; i-- > 0;) {
        depths[i] = (uint8_t)(i == n - 2 ? 0 : depths[parents[i]] + 1);
        counts[depths[i] + 1u < limit ? depths[i] + 1u : limit] += leaves[i];
    }
}

/* Makes the counts those of a complete code again: too long codes, cut to the limit, take too much of it. To
 * move a code one down and put one of the longest beside it gives back one unit of the longest length. */
static void limit_lengths(unsigned *counts, unsigned limit)
{
    uint32_t taken = 0;
    for (unsigned length = 1; length <= limit; length++)
        taken += (uint32_t)counts[length] << (limit - length);
    for (; taken > (uint32_t)1 << limit; taken--) {
        unsigned length = limit - 1;
        while (counts[length] == 0)
            length--;
        counts[length]--;
        counts[length + 1] += 2;
        counts[limit]--;
    }
}

uint32_t edgegan_huffman_code(uint32_t code, unsigned length)
{
    code = (code & 0x5555) << 1 | (code >> 1 & 0x5555);
    code = (code & 0x3333) << 2 | (code >> 2 & 0x3333);
    code = (code & 0x0F0F) << 4 | (code >> 4 & 0x0F0F);
    code = (code & 0x00FF) << 8 | code >> 8;
    return code >> (16 - length) << 4 | length;
}

/* Codes for `used` symbols, ascending, in keys (RFC 1951, section 3.2.2). */
static void assign_codes(const uint8_t *lengths, const uint32_t *keys, unsigned used, const unsigned *counts,
                         uint32_t *codes)
{
    uint32_t next[16] = {0};
    for (unsigned length = 1; length < 15; length++)
        next[length + 1] = (next[length] + counts[length]) << 1;
    for (unsigned i = 0; i < used; i++) {
        const unsigned symbol = keys[i] & 511, length = lengths[symbol];
        codes[symbol] = edgegan_huffman_code(next[length]++, length);
    }
}

uint32_t edgegan_huffman(const uint32_t *occurrences, unsigned symbols, unsigned limit, uint8_t *lengths,
                         uint32_t *codes)
{
    uint32_t keys[HUFFMAN_SYMBOLS + 1], sorted[HUFFMAN_SYMBOLS], bits = 0;
    unsigned counts[16], n = 0;
    for (unsigned i = 0; i < symbols; i++) {
        keys[n] = occurrences[i] << 9 | i;
        n += occurrences[i] != 0;
    }
    if (n == 1) {
        const uint32_t only = keys[0];
        keys[0] = (only & 511) == 0 ? only : 1u << 9;
        keys[1] = (only & 511) == 0 ? 1u << 9 | 1 : only;
    } else if (n == 0) {
        keys[0] = 1u << 9;
        keys[1] = 1u << 9 | 1;
    }
    n = n < 2 ? 2 : n;
    sort_keys(keys, sorted, n);
    count_lengths(sorted, n, limit, counts);
    limit_lengths(counts, limit);
    memset(lengths, 0, symbols);
    const uint32_t *key = sorted;
    for (unsigned length = limit; length > 0; length--)
        for (unsigned k = counts[length]; k > 0; k--) {
            bits += (*key >> 9) * length;
            lengths[*key++ & 511] = (uint8_t)length;
        }
    memset(codes, 0, symbols * sizeof *codes);
    assign_codes(lengths, keys, n, counts, codes);
    return bits;
}
