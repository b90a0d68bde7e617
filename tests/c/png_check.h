/* A PNG reader that shares nothing with the writer: what the tests hold edgegan_png against. It reads bit by bit,
 * allocates freely, refuses what zlib and libpng refuse, and knows only the kinds of file that edgegan writes. */
#ifndef PNG_CHECK_H
#define PNG_CHECK_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../../edgegan/core/edgegan.h"

static uint32_t png_load32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static uint32_t png_crc(const uint8_t *bytes, size_t size)
{
    uint32_t crc = 0xFFFFFFFFu;
    for (size_t i = 0; i < size; i++) {
        crc ^= bytes[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320u : 0);
    }
    return ~crc;
}

/* Inflate (RFC 1950 and 1951) */

typedef struct {
    const uint8_t *in;
    size_t in_size, in_bit;
    uint8_t *out;
    size_t out_size, used, window;
    int bad;
} png_inflater;

typedef struct {
    unsigned counts[16]; /* codes of each length */
    uint16_t symbols[288]; /* in the order of their codes */
} png_code;

static unsigned png_bits(png_inflater *s, unsigned count)
{
    unsigned value = 0;
    for (unsigned i = 0; i < count; i++, s->in_bit++) {
        if (s->in_bit / 8 >= s->in_size) {
            s->bad = 1;
            return 0;
        }
        value |= (unsigned)(s->in[s->in_bit / 8] >> s->in_bit % 8 & 1) << i;
    }
    return value;
}

static void png_put(png_inflater *s, uint8_t byte)
{
    if (s->used == s->out_size)
        s->bad = 1;
    else
        s->out[s->used++] = byte;
}

/* 0 if the lengths are no prefix code; one that leaves codes unused may only have a single code, of one bit. */
static int png_make_code(png_code *code, const uint8_t *lengths, unsigned count)
{
    unsigned next[16] = {0}, longest = 0;
    int left = 1;
    memset(code, 0, sizeof *code);
    for (unsigned i = 0; i < count; i++) {
        code->counts[lengths[i]]++;
        longest = lengths[i] > longest ? lengths[i] : longest;
    }
    code->counts[0] = 0;
    for (unsigned length = 1; length < 16; length++) {
        left = 2 * left - (int)code->counts[length];
        if (left < 0)
            return 0;
        next[length] = next[length - 1] + code->counts[length - 1];
    }
    for (unsigned i = 0; i < count; i++)
        if (lengths[i] != 0)
            code->symbols[next[lengths[i]]++] = (uint16_t)i;
    return left == 0 || longest <= 1;
}

static unsigned png_symbol(png_inflater *s, const png_code *code)
{
    unsigned value = 0, first = 0, index = 0;
    for (unsigned length = 1; length < 16 && !s->bad; length++) {
        value |= png_bits(s, 1);
        if (value - first < code->counts[length])
            return code->symbols[index + value - first];
        index += code->counts[length];
        first = (first + code->counts[length]) << 1;
        value <<= 1;
    }
    s->bad = 1;
    return 0;
}

static void png_read_codes(png_inflater *s, png_code *literal, png_code *distance)
{
    static const uint8_t order[19] = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};
    uint8_t lengths[288 + 32] = {0};
    const unsigned literals = png_bits(s, 5) + 257, distances = png_bits(s, 5) + 1, precodes = png_bits(s, 4) + 4;
    for (unsigned i = 0; i < precodes; i++)
        lengths[order[i]] = (uint8_t)png_bits(s, 3);
    if (literals > 286 || distances > 30 || !png_make_code(literal, lengths, 19))
        s->bad = 1;
    memset(lengths, 0, sizeof lengths);
    for (unsigned i = 0; i < literals + distances && !s->bad;) {
        const unsigned symbol = png_symbol(s, literal);
        unsigned times = 1;
        uint8_t length = (uint8_t)symbol;
        if (symbol > 15) {
            s->bad |= symbol == 16 && i == 0;
            length = symbol == 16 && i > 0 ? lengths[i - 1] : 0;
            times = symbol == 16 ? 3 + png_bits(s, 2) : symbol == 17 ? 3 + png_bits(s, 3) : 11 + png_bits(s, 7);
        }
        for (; times > 0 && !s->bad; times--) {
            s->bad |= i == literals + distances;
            lengths[i++] = length;
        }
    }
    if (!s->bad)
        s->bad = lengths[256] == 0 || !png_make_code(literal, lengths, literals)
            || !png_make_code(distance, lengths + literals, distances);
}

static void png_fixed_codes(png_code *literal, png_code *distance)
{
    uint8_t lengths[288];
    for (unsigned i = 0; i < 288; i++)
        lengths[i] = i < 144 ? 8 : i < 256 ? 9 : i < 280 ? 7 : 8;
    (void)png_make_code(literal, lengths, 288);
    memset(lengths, 5, 32);
    (void)png_make_code(distance, lengths, 32);
}

static void png_read_block(png_inflater *s, unsigned type)
{
    png_code literal, distance;
    if (type == 0) {
        s->in_bit = (s->in_bit + 7) / 8 * 8;
        const unsigned size = png_bits(s, 16), complement = png_bits(s, 16);
        s->bad |= (size ^ complement) != 0xFFFF;
        for (unsigned i = 0; i < size && !s->bad; i++)
            png_put(s, (uint8_t)png_bits(s, 8));
        return;
    }
    if (type == 1)
        png_fixed_codes(&literal, &distance);
    else
        png_read_codes(s, &literal, &distance);
    while (!s->bad) {
        const unsigned symbol = png_symbol(s, &literal);
        if (symbol == 256 || s->bad)
            return;
        if (symbol < 256) {
            png_put(s, (uint8_t)symbol);
            continue;
        }
        unsigned length = symbol - 257 + 3, apart = 0;
        if (symbol == 285)
            length = 258;
        else if (symbol > 264) {
            const unsigned extra = (symbol - 261) / 4;
            length = ((4 + (symbol - 261) % 4) << extra) + 3 + png_bits(s, extra);
        }
        apart = png_symbol(s, &distance);
        s->bad |= symbol > 285 || apart > 29;
        if (apart > 3 && !s->bad) {
            const unsigned extra = apart / 2 - 1;
            apart = ((2 + apart % 2) << extra) + png_bits(s, extra);
        }
        apart++;
        s->bad |= apart > s->used || apart > s->window;
        for (; length > 0 && !s->bad; length--)
            png_put(s, s->out[s->used - apart]);
    }
}

/* Whether the stream is exactly one zlib stream of out_size bytes. */
static int png_inflate(const uint8_t *in, size_t in_size, uint8_t *out, size_t out_size)
{
    png_inflater s = {in, in_size, 0, out, out_size, 0, 0, 0};
    const unsigned method = png_bits(&s, 8), flags = png_bits(&s, 8);
    if (s.bad || (method & 15) != 8 || method >> 4 > 7 || (method << 8 | flags) % 31 != 0 || (flags & 32) != 0)
        return 0;
    s.window = (size_t)256 << (method >> 4);
    for (unsigned last = 0; !last && !s.bad;) {
        last = png_bits(&s, 1);
        const unsigned type = png_bits(&s, 2);
        s.bad |= type == 3;
        if (!s.bad)
            png_read_block(&s, type);
    }
    uint32_t a = 1, b = 0;
    for (size_t i = 0; i < s.used; i++) {
        a = (a + out[i]) % 65521;
        b = (b + a) % 65521;
    }
    const size_t at = (s.in_bit + 7) / 8;
    return !s.bad && s.used == out_size && in_size - at == 4 && png_load32(in + at) == (b << 16 | a);
}

/* Files */

/* Undoes the filters in place (PNG, section 9.2); 0 if there is no such filter. */
static int png_unfilter(uint8_t *rows, size_t row_size, size_t height, size_t channels)
{
    for (size_t y = 0; y < height; y++) {
        uint8_t *const row = rows + y * (row_size + 1) + 1, *const up = row - (row_size + 1);
        if (row[-1] > 4)
            return 0;
        for (size_t i = 0; i < row_size; i++) {
            const int a = i < channels ? 0 : row[i - channels], b = y == 0 ? 0 : up[i];
            const int c = i < channels || y == 0 ? 0 : up[i - channels], p = a + b - c;
            const int pa = abs(p - a), pb = abs(p - b), pc = abs(p - c);
            const int paeth = pa <= pb && pa <= pc ? a : pb <= pc ? b : c;
            const int guesses[5] = {0, a, b, (a + b) / 2, paeth};
            row[i] = (uint8_t)(row[i] + guesses[row[-1]]);
        }
    }
    return 1;
}

static int png_is_text(const uint8_t *data, size_t size, const edgegan_text *text, int international)
{
    const size_t keyword = strlen(text->keyword), zeros = international ? 5 : 1, length = strlen(text->text);
    static const uint8_t none[5];
    int ascii = 1;
    for (size_t i = 0; i < length; i++)
        ascii &= (text->text[i] & 0x80) == 0;
    return ascii != international && size == keyword + zeros + length && memcmp(data, text->keyword, keyword) == 0
        && memcmp(data + keyword, none, zeros) == 0 && memcmp(data + keyword + zeros, text->text, length) == 0;
}

/* NULL if the file is what edgegan_png promises for its arguments, else what is wrong with it. */
static const char *png_check(const uint8_t *file, size_t size, const uint8_t *pixels, ptrdiff_t row_stride,
                             size_t width, size_t height, size_t channels, const edgegan_text *texts,
                             size_t text_count)
{
    static const uint8_t signature[8] = {0x89, 0x50, 0x4E, 0x47, 0x0D, 0x0A, 0x1A, 0x0A};
    static const uint8_t colours[5] = {0, 0, 4, 2, 6};
    const size_t row_size = width * channels, total = (row_size + 1) * height;
    size_t stream_size = 0, text = 0, chunks = 0, at = 8;
    int ended = 0;
    if (size < 8 || memcmp(file, signature, 8) != 0)
        return "signature";
    uint8_t *const stream = malloc(size), *const rows = malloc(total);
    const char *wrong = stream == NULL || rows == NULL ? "no memory" : NULL;
    for (; at < size && wrong == NULL; chunks++) {
        if (ended || size - at < 12 || png_load32(file + at) > size - at - 12) {
            wrong = "the length of a chunk";
            break;
        }
        const size_t length = png_load32(file + at);
        const uint8_t *const type = file + at + 4, *const data = type + 4;
        if (png_load32(data + length) != png_crc(type, length + 4))
            wrong = "the CRC of a chunk";
        if ((memcmp(type, "IHDR", 4) == 0) != (chunks == 0))
            wrong = "IHDR is not the first chunk";
        else if (chunks == 0) {
            if (length != 13 || png_load32(data) != width || png_load32(data + 4) != height || data[8] != 8
                || data[9] != colours[channels] || data[10] != 0 || data[11] != 0 || data[12] != 0)
                wrong = "IHDR";
        } else if (memcmp(type, "tEXt", 4) == 0 || memcmp(type, "iTXt", 4) == 0) {
            if (stream_size > 0 || text == text_count || !png_is_text(data, length, texts + text, type[0] == 'i'))
                wrong = "a text chunk";
            text++;
        } else if (memcmp(type, "IDAT", 4) == 0) {
            memcpy(stream + stream_size, data, length);
            stream_size += length;
        } else if (memcmp(type, "IEND", 4) == 0 && length == 0)
            ended = 1;
        else
            wrong = "the type of a chunk";
        at += 12 + length;
    }
    if (wrong == NULL && (!ended || text != text_count))
        wrong = "a chunk is missing";
    if (wrong == NULL && !png_inflate(stream, stream_size, rows, total))
        wrong = "the zlib stream";
    if (wrong == NULL && !png_unfilter(rows, row_size, height, channels))
        wrong = "a filter";
    for (size_t y = 0; y < height && wrong == NULL; y++)
        if (memcmp(rows + y * (row_size + 1) + 1, pixels + (ptrdiff_t)y * row_stride, row_size) != 0)
            wrong = "the pixels";
    free(stream);
    free(rows);
    return wrong;
}

#endif
