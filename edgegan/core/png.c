/* PNG files (PNG, third edition, W3C 2025); edgegan.h says what this promises. Rows are filtered straight into
 * the window of the zlib stream, so that memory does not depend on the size of the picture. */
#include "edgegan.h"

#include <string.h>

#include "checksums.h"
#include "deflate.h"

#ifndef EDGEGAN_IDAT_LIMIT /* a test can make it small */
#define EDGEGAN_IDAT_LIMIT 0x7FFFFFFF /* the most bytes of a chunk's data */
#endif

enum {
    SIGNATURE = 8,
    CHUNK = 12, /* length, type and CRC */
    HEADER = 13,
    MAX_KEYWORD = 79,
    MAX_TEXT = 1 << 24,
    PIECE = 1024 /* bytes of a row that are filtered at a time to compare filters */
};

typedef enum { NONE, SUB, UP, AVERAGE, PAETH, FILTERS } filter;

/* Chunks */

static void store32(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)(v >> 24);
    p[1] = (uint8_t)(v >> 16);
    p[2] = (uint8_t)(v >> 8);
    p[3] = (uint8_t)v;
}

/* Completes the chunk whose data is at chunk + 8, and returns where the next one begins. */
static uint8_t *end_chunk(uint8_t *chunk, const char *type, size_t size)
{
    store32(chunk, (uint32_t)size);
    memcpy(chunk + 4, type, 4);
    store32(chunk + 8 + size, edgegan_crc32(chunk + 4, size + 4));
    return chunk + CHUNK + size;
}

static uint8_t *put_header(uint8_t *file, size_t width, size_t height, size_t channels)
{
    static const uint8_t signature[SIGNATURE] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1A, '\n'};
    static const uint8_t colour_types[5] = {0, 0, 4, 2, 6};
    memcpy(file, signature, SIGNATURE);
    uint8_t *const chunk = file + SIGNATURE, *const data = chunk + 8;
    store32(data, (uint32_t)width);
    store32(data + 4, (uint32_t)height);
    data[8] = 8; /* bits a sample */
    data[9] = colour_types[channels];
    memset(data + 10, 0, 3); /* deflate, adaptive filters, not interlaced */
    return end_chunk(chunk, "IHDR", HEADER);
}

/* Text */

static int valid_keyword(const char *keyword)
{
    size_t n = 0;
    for (char last = ' '; keyword[n] != 0; last = keyword[n++])
        if (n == MAX_KEYWORD || keyword[n] < ' ' || keyword[n] > '~' || (keyword[n] == ' ' && last == ' '))
            return 0;
    return n > 0 && keyword[n - 1] != ' ';
}

/* The length of the UTF-8 character at p, or 0 if it is not valid (Unicode, table 3-7). */
static size_t character_length(const unsigned char *p)
{
    if (p[0] < 0x80)
        return 1;
    const size_t length = p[0] < 0xC2 ? 0 : p[0] < 0xE0 ? 2 : p[0] < 0xF0 ? 3 : p[0] < 0xF5 ? 4 : 0;
    const unsigned low = p[0] == 0xE0 ? 0xA0 : p[0] == 0xF0 ? 0x90 : 0x80;
    const unsigned high = p[0] == 0xED ? 0x9F : p[0] == 0xF4 ? 0x8F : 0xBF;
    if (length == 0 || p[1] < low || p[1] > high)
        return 0;
    for (size_t i = 2; i < length; i++)
        if ((p[i] & 0xC0) != 0x80)
            return 0;
    return length;
}

/* 0 if the text is not valid. */
static int measure_text(const char *text, size_t *size, int *ascii)
{
    const unsigned char *const p = (const unsigned char *)text;
    *ascii = 1;
    for (*size = 0; p[*size] != 0;) {
        const size_t length = character_length(p + *size);
        *ascii &= length == 1;
        *size += length;
        if (length == 0 || *size > MAX_TEXT)
            return 0;
    }
    return 1;
}

/* The bytes of the chunks of all texts. */
static edgegan_status text_size(const edgegan_text *texts, size_t count, uint64_t *sum)
{
    *sum = 0;
    if (count > 0 && texts == NULL)
        return EDGEGAN_ERROR_ARGUMENT;
    for (size_t i = 0; i < count; i++) {
        size_t size;
        int ascii;
        if (texts[i].keyword == NULL || texts[i].text == NULL || !valid_keyword(texts[i].keyword) ||
            !measure_text(texts[i].text, &size, &ascii))
            return EDGEGAN_ERROR_TEXT;
        *sum += CHUNK + strlen(texts[i].keyword) + (ascii ? 1 : 5) + size;
        if (*sum > SIZE_MAX / 2)
            return EDGEGAN_ERROR_OVERFLOW;
    }
    return EDGEGAN_OK;
}

static uint8_t *put_text(uint8_t *chunk, const edgegan_text *text)
{
    size_t size;
    int ascii;
    (void)measure_text(text->text, &size, &ascii);
    const size_t keyword = strlen(text->keyword), zeros = ascii ? 1 : 5;
    uint8_t *data = chunk + 8;
    memcpy(data, text->keyword, keyword);
    memset(data + keyword, 0, zeros); /* iTXt: not compressed, no language tag, no translated keyword */
    memcpy(data + keyword + zeros, text->text, size);
    return end_chunk(chunk, ascii ? "tEXt" : "iTXt", keyword + zeros + size);
}

/* Filters (PNG, section 9.2). Bytes only, and no value depends on the one before: compilers vectorise these. */

static uint8_t average(uint8_t a, uint8_t b)
{
    return (uint8_t)((a + b) >> 1);
}

static uint8_t paeth(uint8_t a, uint8_t b, uint8_t c)
{
    /* In bytes, since vectors hold more of them. pc is pa + pb, and so never the least, if a and b lie on the
     * same side of c, and else |pa - pb|. */
    const uint8_t pa = (uint8_t)((b > c ? b : c) - (b > c ? c : b));
    const uint8_t pb = (uint8_t)((a > c ? a : c) - (a > c ? c : a));
    const uint8_t least = pa < pb ? pa : pb, most = pa < pb ? pb : pa, pc = (uint8_t)(most - least);
    const uint8_t ab = pa <= pb ? a : b;
    return (((b > c) != (a > c)) & (pc < least)) != 0 ? c : ab;
}

/* Bytes first .. first + count - 1 of a row; up is the row above, and the filters that use it need it. */
static void filter_bytes(filter f, const uint8_t *row, const uint8_t *up, size_t bpp, size_t first,
                         size_t count, uint8_t *restrict out)
{
    const size_t end = first + count;
    for (; first < end && first < bpp; first++) {
        const uint8_t b = f == NONE || f == SUB ? 0 : f == AVERAGE ? up[first] >> 1 : up[first];
        *out++ = (uint8_t)(row[first] - b);
    }
    if (first == end)
        return;
    const size_t n = end - first;
    const uint8_t *const x = row + first, *const a = x - bpp;
    if (f == NONE) {
        memcpy(out, x, n);
    } else if (f == SUB) {
        for (size_t i = 0; i < n; i++)
            out[i] = (uint8_t)(x[i] - a[i]);
    } else {
        const uint8_t *const b = up + first, *const c = b - bpp;
        if (f == UP)
            for (size_t i = 0; i < n; i++)
                out[i] = (uint8_t)(x[i] - b[i]);
        else if (f == AVERAGE)
            for (size_t i = 0; i < n; i++)
                out[i] = (uint8_t)(x[i] - average(a[i], b[i]));
        else
            for (size_t i = 0; i < n; i++)
                out[i] = (uint8_t)(x[i] - paeth(a[i], b[i], c[i]));
    }
}

/* About the bits that a byte takes, in sixteenths: log2(1 + |v|), linear between 0, 1, 3, 7, 15 and 127. */
static uint8_t bits_for(uint8_t v)
{
    const uint8_t minus = (uint8_t)-v, m = v < minus ? v : minus;
    const uint8_t m1 = m < 1 ? m : 1, m3 = m < 3 ? m : 3, m7 = m < 7 ? m : 7, m15 = m < 15 ? m : 15;
    return (uint8_t)(8 * m1 + 4 * m3 + 2 * m7 + m15 + (m >> 1));
}

static uint32_t estimate(const uint8_t *piece, size_t n)
{
    enum { LANES = 16 }; /* each sums at most PIECE / LANES values, in 16 bits */
    uint16_t sums[LANES] = {0};
    uint32_t sum = 0;
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (size_t lane = 0; lane < LANES; lane++)
            sums[lane] = (uint16_t)(sums[lane] + bits_for(piece[i + lane]));
    for (; i < n; i++)
        sum += bits_for(piece[i]);
    for (size_t lane = 0; lane < LANES; lane++)
        sum += sums[lane];
    return sum;
}

static filter choose_filter(const uint8_t *row, const uint8_t *up, size_t bpp, size_t size)
{
    uint8_t piece[PIECE];
    uint64_t sums[FILTERS] = {0};
    const int filters = up == NULL ? UP : FILTERS;
    for (size_t i = 0; i < size; i += PIECE) {
        const size_t n = size - i < PIECE ? size - i : PIECE;
        for (int f = 0; f < filters; f++) {
            filter_bytes((filter)f, row, up, bpp, i, n, piece);
            sums[f] += estimate(piece, n);
        }
    }
    int best = 0;
    for (int f = 1; f < filters; f++)
        if (sums[f] < sums[best])
            best = f;
    return (filter)best;
}

/* Whether a picture, by a sample of its rows, is mostly nearly 0 or 255, and the rest does not repeat its left
 * neighbour. Digits on black are such: filters cost time and have nothing to gain. */
static int mostly_background(const uint8_t *pixels, ptrdiff_t row_stride, size_t height, size_t bpp,
                             size_t size)
{
    enum { SAMPLE = 1 << 16, NEAR = 8 };
    const size_t step = 3 + height / 32, n = size < SAMPLE ? size : SAMPLE;
    uint64_t extremes = 0, repeats = 0, seen = 0;
    for (size_t y = step / 2; y < height; y += step) {
        const uint8_t *const row = pixels + (ptrdiff_t)y * row_stride;
        uint32_t extreme = 0, repeat = 0;
        for (size_t i = bpp; i < n; i++) {
            const uint8_t near = (uint8_t)(row[i] + NEAR) < 2 * NEAR;
            extreme += near;
            repeat += (uint8_t)((near ^ 1) & (row[i] == row[i - bpp]));
        }
        extremes += extreme;
        repeats += repeat;
        seen += n - bpp;
    }
    return 2 * extremes > seen && 4 * repeats <= seen - extremes;
}

static void put_row(deflate_stream *stream, filter f, const uint8_t *row, const uint8_t *up, size_t bpp,
                    size_t size)
{
    size_t room;
    *edgegan_deflate_room(stream, &room) = (uint8_t)f;
    edgegan_deflate_put(stream, 1);
    for (size_t done = 0; done < size;) {
        uint8_t *const out = edgegan_deflate_room(stream, &room);
        const size_t n = size - done < room ? size - done : room;
        filter_bytes(f, row, up, bpp, done, n, out);
        edgegan_deflate_put(stream, n);
        done += n;
    }
}

/* Files */

/* The stream as chunks. All but rare pictures are one; in the others the later parts move to make place. */
static uint8_t *put_data(uint8_t *chunk, uint64_t size)
{
    for (uint64_t part = (size - 1) / EDGEGAN_IDAT_LIMIT; part > 0; part--) {
        const uint64_t start = part * EDGEGAN_IDAT_LIMIT;
        uint8_t *const to = chunk + (size_t)(start + part * CHUNK);
        const size_t n = size - start < EDGEGAN_IDAT_LIMIT ? (size_t)(size - start) : EDGEGAN_IDAT_LIMIT;
        memmove(to + 8, chunk + 8 + (size_t)start, n);
    }
    while (size > 0) {
        const size_t n = size < EDGEGAN_IDAT_LIMIT ? (size_t)size : EDGEGAN_IDAT_LIMIT;
        chunk = end_chunk(chunk, "IDAT", n);
        size -= n;
    }
    return chunk;
}

edgegan_status edgegan_png_sizes(size_t width, size_t height, size_t channels, const edgegan_text *texts,
                                 size_t text_count, size_t *workspace_size, size_t *file_size)
{
    const size_t most = 0x7FFFFFFF;
    uint64_t text;
    if (width < 1 || width > most || height < 1 || height > most || channels < 1 || channels > 4 ||
        workspace_size == NULL || file_size == NULL)
        return EDGEGAN_ERROR_ARGUMENT;
    if ((uint64_t)width * channels > EDGEGAN_MAX_ELEMENTS / height)
        return EDGEGAN_ERROR_OVERFLOW;
    const edgegan_status status = text_size(texts, text_count, &text);
    if (status != EDGEGAN_OK)
        return status;
    const uint64_t total = (uint64_t)(width * channels + 1) * height, data = edgegan_deflate_bound(total);
    const uint64_t chunks = data + CHUNK * ((data - 1) / EDGEGAN_IDAT_LIMIT + 1);
    const uint64_t file = SIGNATURE + CHUNK + HEADER + text + chunks + CHUNK;
    if (file > SIZE_MAX / 2)
        return EDGEGAN_ERROR_OVERFLOW;
    *workspace_size = edgegan_deflate_workspace(total);
    *file_size = (size_t)file;
    return EDGEGAN_OK;
}

edgegan_status edgegan_png(const void *pixels, ptrdiff_t row_stride, size_t width, size_t height,
                           size_t channels, const edgegan_text *texts, size_t text_count, void *workspace,
                           size_t workspace_size, uint8_t *file, size_t file_size, size_t *written)
{
    size_t workspace_needed, file_needed;
    if (pixels == NULL || workspace == NULL || file == NULL || written == NULL)
        return EDGEGAN_ERROR_ARGUMENT;
    const edgegan_status status =
        edgegan_png_sizes(width, height, channels, texts, text_count, &workspace_needed, &file_needed);
    if (status != EDGEGAN_OK)
        return status;
    if (workspace_size < workspace_needed || file_size < file_needed)
        return EDGEGAN_ERROR_BUFFER;

    uint8_t *chunk = put_header(file, width, height, channels);
    for (size_t i = 0; i < text_count; i++)
        chunk = put_text(chunk, texts + i);
    const size_t size = width * channels;
    const uint8_t *row = pixels, *up = NULL;
    deflate_stream *const stream = edgegan_deflate_begin(workspace, (uint64_t)(size + 1) * height, chunk + 8);
    const int unfiltered = mostly_background(row, row_stride, height, channels, size);
    for (size_t y = 0; y < height; y++) {
        const filter f = unfiltered ? NONE : choose_filter(row, up, channels, size);
        put_row(stream, f, row, up, channels, size);
        up = row;
        if (y + 1 < height)
            row += row_stride;
    }
    chunk = put_data(chunk, (uint64_t)(edgegan_deflate_end(stream) - (chunk + 8)));
    *written = (size_t)(end_chunk(chunk, "IEND", 0) - file);
    return EDGEGAN_OK;
}
