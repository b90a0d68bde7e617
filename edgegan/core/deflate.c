/* Deflate (RFC 1951) in zlib's format (RFC 1950), for the filtered rows of a PNG file.
 *
 * The window holds 32 KiB of history and a segment; each segment becomes one block. A greedy parse takes a
 * match, a run of one byte or what a hash of 8 bytes finds, where it is cheaper than its literals;
 * deflate_block.c writes what it found. */
#include "deflate.h"

#include <string.h>

#include "checksums.h"

enum {
    HISTORY = 32768,
    SEGMENT = 32768,
    MIN_TABLE_BITS = 8,
    MAX_TABLE_BITS = 14,
    RUN = 5,    /* bytes, the least, of a run that is looked at */
    HASHED = 8, /* bytes that the hash of a position is of */
    PAD = 8     /* bytes behind the window that a match may read, but never covers */
};

static uint32_t hash(uint64_t bytes, unsigned shift)
{
    return (uint32_t)(bytes * 0x9E3779B97F4A7C15u >> shift);
}

/* How many bytes at a and at b are equal, at most limit. May read PAD bytes beyond the limit. */
static size_t equal_bytes(const uint8_t *a, const uint8_t *b, size_t limit)
{
    size_t n = 0;
    for (; n < limit; n += 8) {
        const uint64_t difference = load64(a + n) ^ load64(b + n);
        if (difference != 0) {
            n += low_zero_bytes(difference);
            break;
        }
    }
    return n < limit ? n : limit;
}

/* Estimates what literals cost from a sample of the segment, if it is large enough for one. */
static void estimate_prices(deflate_stream *s)
{
    enum { STEP = 7, SMALL = 2048, LEAST = 8 };
    const uint8_t *const segment = s->window + s->history;
    const size_t size = s->used - s->history;
    uint32_t counts[256] = {0};
    s->is_priced = size >= SMALL;
    if (!s->is_priced)
        return;
    for (size_t i = 0; i < size; i += STEP)
        counts[segment[i]]++;
    const unsigned all = log2_eighths((uint32_t)(size / STEP));
    for (int i = 0; i < 256; i++) {
        const unsigned part = log2_eighths(counts[i] + 1);
        s->prices[i] = (uint8_t)(all < part + LEAST ? LEAST : all - part);
    }
}

/* Whether a match takes fewer bits than its literals, about. */
static int pays(const deflate_stream *s, const uint8_t *literals, size_t length, uint32_t distance)
{
    enum { SURE = 48, SYMBOL = 6 * 8, NEXT = 1 * 8, FAR = 3 * 8 };
    if (length >= SURE)
        return 1;
    unsigned price = 0, cost = SYMBOL + 8 * log2_floor((uint32_t)length) - 8;
    cost += distance == 1 ? NEXT : FAR + 8 * log2_floor(distance);
    for (size_t i = 0; i < length; i++)
        price += s->prices[literals[i]];
    return price > cost;
}

/* The hash and a run look at so many bytes: shorter matches seldom pay among the cheap literals of filtered
 * rows, and to follow up each costs a mispredicted branch. */
static size_t find_sequences(deflate_stream *s)
{
    enum { PATIENCE = 2 };
    uint32_t *const table = s->table;
    const uint8_t *const window = s->window;
    const size_t end = s->used;
    const unsigned shift = 64 - s->table_bits;
    deflate_sequence *q = s->sequences;
    size_t anchor = s->history, p = anchor > 0 ? anchor : 1, misses = 0;
    while (p + HASHED <= end) {
        const uint8_t *const here = window + p;
        const uint64_t bytes = load64(here), run = bytes ^ (bytes << 8 | here[-1]);
        const uint32_t position = s->origin + (uint32_t)p;
        uint32_t *const slot = table + hash(bytes, shift), back = position - *slot;
        *slot = position;
        uint32_t distance;
        if (run << 8 * (HASHED - RUN) == 0) {
            distance = 1;
        } else if (back - 1 < HISTORY && back <= p && load64(here - back) == bytes) {
            distance = back;
        } else { /* the longer there was no match, the larger the steps */
            p += 1 + (misses++ >> PATIENCE);
            continue;
        }
        const size_t limit = end - p < DEFLATE_MAX_MATCH ? end - p : DEFLATE_MAX_MATCH;
        const size_t length = equal_bytes(here, here - distance, limit);
        if (s->is_priced && !pays(s, here, length, distance)) {
            p++;
            continue;
        }
        misses = 0;
        *q++ = (deflate_sequence){(uint32_t)(p - anchor), (uint16_t)length, (uint16_t)(distance - 1)};
        p += length;
        anchor = p;
    }
    *q++ = (deflate_sequence){(uint32_t)(end - anchor), 0, 0};
    return (size_t)(q - s->sequences);
}

/* Streams */

static size_t segment_size(uint64_t total)
{
    return total < SEGMENT ? (size_t)total : SEGMENT;
}

static size_t capacity_for(uint64_t total)
{
    return total < HISTORY + SEGMENT ? (size_t)total : HISTORY + SEGMENT;
}

static unsigned table_bits_for(uint64_t total)
{
    unsigned bits = MIN_TABLE_BITS;
    while (bits < MAX_TABLE_BITS && (uint64_t)1 << bits < total)
        bits++;
    return bits;
}

static size_t most_sequences(uint64_t total)
{
    return segment_size(total) / RUN + 1;
}

size_t edgegan_deflate_workspace(uint64_t total)
{
    return sizeof(deflate_stream) + ((size_t)1 << table_bits_for(total)) * sizeof(uint32_t) +
           most_sequences(total) * sizeof(deflate_sequence) + capacity_for(total) + PAD;
}

uint64_t edgegan_deflate_bound(uint64_t total)
{
    return 2 + total + 5 * (total / SEGMENT + 1) + 4;
}

deflate_stream *edgegan_deflate_begin(void *workspace, uint64_t total, uint8_t *out)
{
    deflate_stream *const s = workspace;
    s->left = total;
    s->history = s->used = 0;
    s->table_bits = table_bits_for(total);
    s->table = (uint32_t *)(s + 1);
    s->sequences = (deflate_sequence *)(s->table + ((size_t)1 << s->table_bits));
    s->window = (uint8_t *)(s->sequences + most_sequences(total));
    s->origin = 2 * HISTORY; /* so that the table's zeros are out of reach */
    s->adler = 1;
    memset(s->table, 0, ((size_t)1 << s->table_bits) * sizeof *s->table);
    out[0] = 0x78; /* deflate, with a window of 32 KiB; */
    out[1] = 0x5E; /* fast, no dictionary */
    s->writer = (bit_writer){0, 0, out + 2};
    return s;
}

uint8_t *edgegan_deflate_room(deflate_stream *s, size_t *room)
{
    *room = segment_size(s->left) - (s->used - s->history);
    return s->window + s->used;
}

/* The segment becomes a block, and its end the history of the next. */
static void end_segment(deflate_stream *s)
{
    const size_t size = s->used - s->history;
    s->left -= size;
    s->adler = edgegan_adler32(s->adler, s->window + s->history, size);
    memset(s->window + s->used, 0, PAD);
    estimate_prices(s);
    edgegan_deflate_block(s, s->window + s->history, size, find_sequences(s), s->left == 0);
    const size_t kept = s->used < HISTORY ? s->used : HISTORY, dropped = s->used - kept;
    memmove(s->window, s->window + dropped, kept);
    s->origin += (uint32_t)dropped;
    s->history = s->used = kept;
}

void edgegan_deflate_put(deflate_stream *s, size_t count)
{
    s->used += count;
    if (s->used - s->history == segment_size(s->left))
        end_segment(s);
}

uint8_t *edgegan_deflate_end(deflate_stream *s)
{
    bit_writer *const w = &s->writer;
    w->count = (w->count + 7) & ~7u;
    flush(w);
    for (int shift = 24; shift >= 0; shift -= 8)
        *w->out++ = (uint8_t)(s->adler >> shift);
    return w->out;
}
