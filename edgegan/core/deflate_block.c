/* One block of a deflate stream (RFC 1951), from the sequences that deflate.c found: with its own Huffman codes, with
 * the fixed ones or stored, whichever is smallest. Because of that choice no stream is longer than stored blocks. */
#include "deflate.h"

#include <string.h>

#include "huffman.h"

enum {
    MIN_MATCH = 3,
    MAX_MATCH = DEFLATE_MAX_MATCH,
    END_OF_BLOCK = 256,
    CODE_LENGTHS = 19,  /* symbols of the code length alphabet */
    LITERAL_LIMIT = 14, /* bits of a code: four of them and 7 bits left over fit a flush */
    DISTANCE_LIMIT = 15,
    CODE_LENGTH_LIMIT = 7,
    PAD = 8 /* bytes behind the lengths of codes that are read with them */
};

/* Matches as symbols: RFC 1951, section 3.2.5, whose tables are these formulas. */

typedef struct {
    unsigned symbol, extra_bits;
    uint32_t extra;
} match_symbol;

static match_symbol length_symbol(unsigned length)
{
    const unsigned l = length - MIN_MATCH;
    if (l < 8 || length == MAX_MATCH)
        return (match_symbol){length == MAX_MATCH ? 285 : 257 + l, 0, 0};
    const unsigned e = log2_floor(l) - 2;
    return (match_symbol){257 + 4 * e + (l >> e), e, l & ((1u << e) - 1)};
}

static match_symbol distance_symbol(unsigned distance_minus_1)
{
    if (distance_minus_1 < 4)
        return (match_symbol){distance_minus_1, 0, 0};
    const unsigned e = log2_floor(distance_minus_1) - 1;
    return (match_symbol){2 * e + (distance_minus_1 >> e), e, distance_minus_1 & ((1u << e) - 1)};
}

/* The lengths of a block's two codes (RFC 1951, section 3.2.7). */
typedef struct {
    unsigned literals, distances, code_lengths; /* how many lengths of each are sent */
    unsigned items;
    uint8_t item[DEFLATE_LITERALS + DEFLATE_DISTANCES];  /* a symbol of the code length alphabet */
    uint8_t extra[DEFLATE_LITERALS + DEFLATE_DISTANCES]; /* and the value of its extra bits */
    uint8_t lengths[CODE_LENGTHS];
    uint32_t codes[CODE_LENGTHS];
    uint32_t bits; /* of the whole header */
} header;

static unsigned item_bits(unsigned item)
{
    return item < 16 ? 0 : item == 16 ? 2 : item == 17 ? 3 : 7;
}

static const uint8_t code_length_order[CODE_LENGTHS] = {16, 17, 18, 0, 8,  7, 9,  6, 10, 5,
                                                        11, 4,  12, 3, 13, 2, 14, 1, 15};

/* 8 bytes behind the lengths are of none. */
static void run_lengths(header *h, const uint8_t *lengths, unsigned n, uint32_t *occurrences)
{
    for (unsigned i = 0; i < n;) {
        const uint8_t length = lengths[i];
        const uint64_t other = load64(lengths + i) ^ 0x0101010101010101u * length;
        unsigned run = other != 0 ? low_zero_bytes(other) : 8, item = length, extra = 0;
        while (run >= 8 && lengths[i + run] == length)
            run++;
        const int again = i > 0 && lengths[i - 1] == length; /* 16 repeats the length before it */
        if (length == 0 && run >= 3) {
            run = run < 138 ? run : 138;
            item = run < 11 ? 17 : 18;
            extra = run - (run < 11 ? 3 : 11);
        } else if (length != 0 && again && run >= 3) {
            run = run < 6 ? run : 6;
            item = 16;
            extra = run - 3;
        } else {
            run = 1;
        }
        h->item[h->items] = (uint8_t)item;
        h->extra[h->items++] = (uint8_t)extra;
        occurrences[item]++;
        i += run;
    }
}

/* Packs the lengths of the distance code behind those of the literal code that are used. */
static void make_header(header *h, uint8_t *lengths)
{
    uint32_t occurrences[CODE_LENGTHS] = {0};
    h->literals = DEFLATE_LITERALS;
    while (lengths[h->literals - 1] == 0)
        h->literals--;
    h->distances = DEFLATE_DISTANCES;
    while (lengths[DEFLATE_LITERALS + h->distances - 1] == 0)
        h->distances--;
    memmove(lengths + h->literals, lengths + DEFLATE_LITERALS, h->distances);
    memset(lengths + h->literals + h->distances, 0xFF, PAD);
    h->items = 0;
    run_lengths(h, lengths, h->literals + h->distances, occurrences);
    edgegan_huffman(occurrences, CODE_LENGTHS, CODE_LENGTH_LIMIT, h->lengths, h->codes);
    h->code_lengths = CODE_LENGTHS;
    while (h->lengths[code_length_order[h->code_lengths - 1]] == 0)
        h->code_lengths--;
    h->bits = 17 + 3 * h->code_lengths;
    for (unsigned i = 0; i < CODE_LENGTHS; i++)
        h->bits += occurrences[i] * (h->lengths[i] + item_bits(i));
}

static void put_header(bit_writer *w, const header *h)
{
    put(w, h->literals - 257, 5);
    put(w, h->distances - 1, 5);
    put(w, h->code_lengths - 4, 4);
    flush(w);
    for (unsigned i = 0; i < h->code_lengths; i++) {
        put(w, h->lengths[code_length_order[i]], 3);
        if (i % 16 == 15)
            flush(w);
    }
    flush(w);
    for (unsigned i = 0; i < h->items; i++) {
        put_code(w, h->codes[h->item[i]]);
        put(w, h->extra[i], item_bits(h->item[i]));
        if (i % 4 == 3) /* an item has at most 14 bits */
            flush(w);
    }
    flush(w);
}

/* Blocks */

static void tally(deflate_stream *s, const uint8_t *from, size_t sequences)
{
    uint32_t *const literals = s->literal_counts, *const distances = s->distance_counts;
    memset(literals, 0, sizeof s->literal_counts);
    memset(distances, 0, sizeof s->distance_counts);
    for (const deflate_sequence *q = s->sequences, *end = q + sequences; q < end; q++) {
        for (const uint8_t *stop = from + q->literals; from < stop; from++)
            literals[*from]++;
        if (q->length != 0) {
            literals[length_symbol(q->length).symbol]++;
            distances[distance_symbol(q->distance_minus_1).symbol]++;
            from += q->length;
        }
    }
    literals[END_OF_BLOCK] = 1;
}

/* The bits that lengths and distances have beside their codes. */
static uint32_t extra_bits(const deflate_stream *s)
{
    uint32_t bits = 0;
    for (unsigned i = 265; i < 285; i++)
        bits += s->literal_counts[i] * ((i - 261) / 4);
    for (unsigned i = 4; i < DEFLATE_DISTANCES; i++)
        bits += s->distance_counts[i] * (i / 2 - 1);
    return bits;
}

/* RFC 1951, section 3.2.6. */
static unsigned fixed_length(unsigned literal)
{
    return literal < 144 ? 8 : literal < 256 ? 9 : literal < 280 ? 7 : 8;
}

static uint32_t sum_of(const uint32_t *counts, unsigned first, unsigned end)
{
    uint32_t sum = 0;
    for (unsigned i = first; i < end; i++)
        sum += counts[i];
    return sum;
}

static uint32_t fixed_bits(const deflate_stream *s)
{
    const uint32_t *const counts = s->literal_counts;
    return 8 * sum_of(counts, 0, DEFLATE_LITERALS) + sum_of(counts, 144, 256) - sum_of(counts, 256, 280)
        + 5 * sum_of(s->distance_counts, 0, DEFLATE_DISTANCES);
}

static void fixed_codes(deflate_stream *s)
{
    for (unsigned i = 0; i < DEFLATE_LITERALS; i++) {
        const unsigned length = fixed_length(i);
        const unsigned code = i < 144   ? 0x30 + i
                              : i < 256 ? 0x190 + i - 144
                              : i < 280 ? i - 256
                                        : 0xC0 + i - 280;
        s->literal_codes[i] = edgegan_huffman_code(code, length);
    }
    for (unsigned i = 0; i < DEFLATE_DISTANCES; i++)
        s->distance_codes[i] = edgegan_huffman_code(i, 5);
}

/* Whether the fixed codes will do for a small block: a header takes some 60 bytes, and its codes most of the
 * time. At most 9 bits a literal and 31 a match, they take less than 5/8 of a stored block. */
static int fixed_will_do(const deflate_stream *s, size_t size, size_t sequences)
{
    enum { SMALL = 1024 };
    size_t literals = 0;
    if (size > SMALL)
        return 0;
    for (size_t i = 0; i < sequences; i++)
        literals += s->sequences[i].literals;
    return 9 * literals + 31 * sequences < 5 * size;
}

static void put_sequences(deflate_stream *s, const uint8_t *from, size_t sequences)
{
    const uint32_t *const literals = s->literal_codes;
    bit_writer w = s->writer;
    for (const deflate_sequence *q = s->sequences, *end = q + sequences; q < end; q++) {
        const uint8_t *const stop = from + q->literals;
        for (; stop - from >= 4; from += 4) {
            put_code(&w, literals[from[0]]);
            put_code(&w, literals[from[1]]);
            put_code(&w, literals[from[2]]);
            put_code(&w, literals[from[3]]);
            flush(&w);
        }
        for (; from < stop; from++)
            put_code(&w, literals[*from]);
        flush(&w);
        if (q->length != 0) {
            const match_symbol length = length_symbol(q->length);
            const match_symbol distance = distance_symbol(q->distance_minus_1);
            put_code(&w, literals[length.symbol]);
            put(&w, length.extra, length.extra_bits);
            put_code(&w, s->distance_codes[distance.symbol]);
            put(&w, distance.extra, distance.extra_bits);
            flush(&w);
            from += q->length;
        }
    }
    put_code(&w, literals[END_OF_BLOCK]);
    flush(&w);
    s->writer = w;
}

static void put_stored(bit_writer *w, const uint8_t *from, size_t size)
{
    w->count = (w->count + 7) & ~7u;
    put(w, (uint32_t)size, 16);
    put(w, ~(uint32_t)size & 0xFFFF, 16);
    flush(w);
    memcpy(w->out, from, size);
    w->out += size;
}

void edgegan_deflate_block(deflate_stream *s, const uint8_t *from, size_t size, size_t sequences, int final)
{
    enum { STORED, FIXED, DYNAMIC } type = FIXED;
    header h;
    if (!fixed_will_do(s, size, sequences)) {
        tally(s, from, sequences);
        const size_t before = s->writer.count + 3;
        const uint32_t stored = (uint32_t)(((before + 7) / 8 + 4 + size) * 8 - before);
        const uint32_t extra = extra_bits(s), fixed = extra + fixed_bits(s);
        uint32_t dynamic = extra;
        dynamic += edgegan_huffman(s->literal_counts, DEFLATE_LITERALS, LITERAL_LIMIT, s->lengths, s->literal_codes);
        dynamic += edgegan_huffman(s->distance_counts, DEFLATE_DISTANCES, DISTANCE_LIMIT,
                              s->lengths + DEFLATE_LITERALS, s->distance_codes);
        make_header(&h, s->lengths);
        dynamic += h.bits;
        type = stored <= fixed && stored <= dynamic ? STORED : fixed <= dynamic ? FIXED : DYNAMIC;
    }
    put(&s->writer, (unsigned)final | (unsigned)type << 1, 3);
    if (type == STORED) {
        put_stored(&s->writer, from, size);
        return;
    }
    flush(&s->writer);
    if (type == FIXED)
        fixed_codes(s);
    else
        put_header(&s->writer, &h);
    put_sequences(s, from, sequences);
}
