/* A libFuzzer target over all of edgegan.h; tests/test_core.py builds it with sanitizers and runs it.
 *
 * An input's first byte chooses a function, and the rest its arguments: valid ones, whose answers are compared with
 * what the header says, one element at a time, and ones that the function must refuse without touching anything.
 * Buffers are allocated to the byte, so that AddressSanitizer sees one byte too many.
 *
 * With EDGEGAN_FUZZ_PNG=FOLDER, one picture in 64 goes there as a PNG file, and its pixels beside it as
 * WIDTHxHEIGHTxCHANNELS-NUMBER.raw, for other readers of PNG.
 */
#include <math.h>
#include <stdio.h>

#include "png_check.h"

enum {
    MAX_ITEMS = 3000,
    MAX_PICTURE = 1 << 17, MAX_SMALL = 1 << 12, /* bytes */
    MAX_STRING = 100,
    KEPT_EVERY = 64,
    KEPT_MOST = 400
};

static void require(int condition, const char *what)
{
    if (condition)
        return;
    fprintf(stderr, "fuzz_core: %s\n", what);
    abort();
}

static void *bytes_of(size_t size)
{
    uint8_t *const memory = malloc(size);
    require(memory != NULL || size == 0, "no memory");
    if (size > 0)
        memset(memory, 0xA5, size);
    return memory;
}

static int is_untouched(const void *memory, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (((const uint8_t *)memory)[i] != 0xA5)
            return 0;
    return 1;
}

/* Arguments from the input; zeros behind its end. */

static const uint8_t *input;
static size_t input_left;

static uint64_t take(unsigned bytes)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < bytes; i++)
        if (input_left > 0) {
            value |= (uint64_t)*input++ << 8 * i;
            input_left--;
        }
    return value;
}

static size_t take_below(size_t bound)
{
    return (size_t)take(bound > 0xFFFF ? 4 : bound > 0xFF ? 2 : 1) % bound;
}

/* Any number, most often one beside a power of two or the end of a range. */
static uint64_t take_edge(void)
{
    const unsigned kind = (unsigned)take(1);
    const uint64_t near = kind & 1 ? take(1) : 0u - take(1), power = (uint64_t)1 << take(1) % 64;
    return kind & 2 ? take(8) : kind & 4 ? near : power + near;
}

static float take_float(void)
{
    const uint32_t bits = (uint32_t)take(4);
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

/* Noise */

static void check_normal(float z, uint32_t word, float truncation)
{
    float expected;
    edgegan_normal_from_words(&word, &expected, 1);
    if (truncation > 6.4f)
        require(memcmp(&z, &expected, 4) == 0, "a normal is that of its word");
    else
        require(fabsf(z) <= truncation && z != 0, "a normal is within its bound");
}

static void fuzz_noise(unsigned kind)
{
    const uint64_t seed = take_edge(), start = take_edge();
    uint64_t n = take(1) & 1 ? take_below(60) : take_edge(), dim = take(1) & 1 ? take_below(600) : take_edge();
    const uint32_t stream = kind == 2 ? EDGEGAN_STREAM_LABEL : (uint32_t)take_edge();
    const uint32_t classes = (uint32_t)(take(1) & 1 ? take_edge() : take_below(1000));
    const float truncation = take(1) & 1 ? take_float() : (float)take(2) / 1000;
    const size_t item = kind == 2 ? sizeof(int64_t) : 4;
    if (kind == 2)
        dim = 1;
    int valid = (n == 0 || start <= UINT64_MAX - (n - 1)) && dim >= 1 && dim < (uint64_t)1 << 34;
    if (kind == 1)
        valid &= truncation >= 0.001f;
    if (kind == 2)
        valid &= classes >= 1 && classes <= 0x80000000u;
    const unsigned __int128 product = (unsigned __int128)n * dim;
    size_t items = product <= MAX_ITEMS ? (size_t)product : 0;
    if (product > MAX_ITEMS || take(1) % 8 == 0) {
        const size_t other = take(1) & 1 ? (size_t)product : (size_t)take_edge();
        if (product <= SIZE_MAX && other == product)
            return; /* right, and too much for this test */
        items = other;
        valid = 0;
    }
    const size_t size = valid ? items * item : 64;
    void *const out = bytes_of(size);
    const edgegan_status status = kind == 0 ? edgegan_words(seed, start, n, dim, stream, out, items)
        : kind == 1 ? edgegan_normal(seed, start, n, dim, stream, truncation, out, items)
                    : edgegan_labels(seed, start, n, classes, out, items);
    require((status == EDGEGAN_OK) == valid, "noise: valid arguments, and no others, are taken");
    require(valid || is_untouched(out, size), "noise: an error leaves its output");
    const uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    for (size_t at = 0; valid && at < items; at++) {
        const uint64_t index = start + at / dim;
        const uint32_t q = (uint32_t)(at % dim / 4);
        const uint32_t counter[4] = {q, stream, (uint32_t)index, (uint32_t)(index >> 32)};
        uint32_t block[4];
        edgegan_philox(counter, key, block);
        const uint32_t word = block[at % dim % 4];
        if (kind == 0)
            require(((uint32_t *)out)[at] == word, "a word is where the contract says");
        else if (kind == 1)
            check_normal(((float *)out)[at], word, truncation);
        else
            require(((int64_t *)out)[at] == (int64_t)((uint64_t)word * classes >> 32), "a label is its word, scaled");
    }
    free(out);
}

static void fuzz_normal_from_words(void)
{
    const size_t count = take_below(200);
    uint32_t *const words = bytes_of(count * 4);
    float *const out = bytes_of(count * 4);
    for (size_t i = 0; i < count; i++)
        words[i] = (uint32_t)take(4);
    edgegan_normal_from_words(words, out, count);
    for (size_t i = 0; i < count; i++) {
        const uint32_t mirror = ~words[i];
        float z;
        edgegan_normal_from_words(&mirror, &z, 1);
        require(z == -out[i] && (z > 0) == (words[i] < 0x80000000u) && fabsf(z) < 6.34f, "a normal has its mirror");
    }
    free(words);
    free(out);
}

static void fuzz_derive_seed(void)
{
    const uint64_t seed = take_edge();
    const uint32_t purpose = (uint32_t)take_edge();
    uint64_t derived = 5;
    const edgegan_status status = edgegan_derive_seed(seed, purpose, &derived);
    require((status == EDGEGAN_OK) == (purpose < 0x80000000u), "a seed's purpose");
    if (status != EDGEGAN_OK) {
        require(derived == 5, "a purpose refused leaves its output");
        return;
    }
    const uint32_t counter[4] = {purpose / 2, EDGEGAN_STREAM_TRAINING, 0, 0};
    const uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    uint32_t block[4];
    edgegan_philox(counter, key, block);
    const uint32_t *const pair = block + purpose % 2 * 2;
    require(derived == ((uint64_t)pair[1] << 32 | pair[0]), "a seed's words");
}

static void fuzz_interpolation(int arc)
{
    const size_t room = take_below(70), count = take_below(9);
    const size_t dim = take(1) % 8 < 7 ? room : (size_t)take_edge();
    const size_t items = take(1) % 8 < 7 ? count * dim : (size_t)take_edge();
    const int fits = dim >= 1 && (unsigned __int128)dim * count == items;
    if (fits && dim > room)
        return; /* right, and too much for these buffers */
    const int style = (int)take(1);
    float *const a = bytes_of(room * 4), *const b = bytes_of(room * 4);
    double *const t = bytes_of(count * sizeof(double));
    const size_t size = fits ? items * 4 : 64;
    float *const out = bytes_of(size);
    int valid = fits;
    for (size_t i = 0; i < room; i++) {
        a[i] = take_float();
        b[i] = style % 8 == 0 ? a[i] : style % 8 == 1 ? -a[i] : take_float();
    }
    for (size_t i = 0; i < count; i++) {
        const uint64_t bits = take(8);
        t[i] = (double)(bits & 0xFFFF) / 65535;
        if (style & 128)
            memcpy(t + i, &bits, 8);
        valid &= t[i] >= 0 && t[i] <= 1;
    }
    const edgegan_status status = (arc ? edgegan_slerp : edgegan_lerp)(a, b, dim, t, count, out, items);
    require((status == EDGEGAN_OK) == valid, "interpolation: valid arguments, and no others, are taken");
    require(valid || is_untouched(out, size), "interpolation: an error leaves its output");
    for (size_t i = 0; valid && i < count; i++)
        for (size_t j = 0; j < dim; j++) {
            const float end = t[i] == 0 ? a[j] : b[j], got = out[i * dim + j];
            const int finite = isfinite(a[j]) && isfinite(b[j]);
            if (finite && (t[i] == 0 || t[i] == 1))
                require(got == end, "the ends are a and b");
            else if (finite && !arc)
                require(got >= fminf(a[j], b[j]) - fmaxf(fabsf(a[j]), fabsf(b[j])) * 1e-6f - 1e-38f
                            && got <= fmaxf(a[j], b[j]) + fmaxf(fabsf(a[j]), fabsf(b[j])) * 1e-6f + 1e-38f,
                        "a line stays between its ends");
        }
    free(a), free(b), free(t), free(out);
}

/* Pixels */

typedef struct {
    uint8_t *memory;
    size_t span;
    ptrdiff_t origin;
    edgegan_strides strides;
} buffer;

/* Dimensions in any order, forwards or backwards, with gaps. One of size 1 may have any stride; one that is only read,
 * none at all. */
static buffer take_layout(edgegan_shape shape, size_t item, int read_only)
{
    const size_t sizes[4] = {shape.n, shape.c, shape.h, shape.w};
    ptrdiff_t strides[4];
    int order[4] = {0, 1, 2, 3};
    buffer b = {NULL, item, 0, {0, 0, 0, 0}};
    const unsigned style = (unsigned)take(1);
    for (int i = 3; i > 0; i--) {
        const int j = style & 1 ? (int)take_below((size_t)i + 1) : i, swap = order[i];
        order[i] = order[j];
        order[j] = swap;
    }
    if (style & 2) { /* the layouts that kernels take as they are */
        const int plain_floats[4] = {3, 2, 1, 0}, plain_bytes[4] = {1, 3, 2, 0};
        memcpy(order, item == 4 ? plain_floats : plain_bytes, sizeof order);
    }
    for (int i = 0; i < 4; i++) {
        const int d = order[i];
        if (style & 4 && sizes[d] == 1) {
            strides[d] = (ptrdiff_t)take_edge();
            continue;
        }
        if (style & 8 && read_only && take(1) % 4 == 0) {
            strides[d] = 0;
            continue;
        }
        strides[d] = (ptrdiff_t)(b.span + (style & 16 ? take_below(4) : 0));
        b.span = (size_t)strides[d] * (sizes[d] - 1) + b.span;
        if (style & 32 && take(1) & 1) {
            b.origin += strides[d] * (ptrdiff_t)(sizes[d] - 1);
            strides[d] = -strides[d];
        }
    }
    const edgegan_strides found = {strides[0], strides[1], strides[2], strides[3]};
    b.strides = found;
    b.memory = bytes_of(b.span);
    return b;
}

static uint8_t *element(const buffer *b, size_t n, size_t c, size_t h, size_t w)
{
    const edgegan_strides *s = &b->strides;
    return b->memory
        + (b->origin + (ptrdiff_t)n * s->n + (ptrdiff_t)c * s->c + (ptrdiff_t)h * s->h + (ptrdiff_t)w * s->w);
}

static uint8_t pixel_of(float x)
{
    const volatile float product = x * 127.5f; /* rounded by itself */
    const float v = product + 127.5f;
    return isnan(v) || v <= 0 ? 0 : v >= 255 ? 255 : (uint8_t)nearbyintf(v);
}

static void fuzz_pixels(int backwards)
{
    edgegan_shape shape = {1 + take_below(3), 1 + take_below(5), 1 + take_below(6), 1 + take_below(40)};
    const size_t zoom = backwards || take(1) & 1 ? 1 : 1 + take_below(4);
    if (take(1) % 16 == 0)
        shape.w = 250 + take_below(20); /* across the pieces in which rows are done */
    const edgegan_shape zoomed = {shape.n, shape.c, shape.h * zoom, shape.w * zoom};
    buffer floats = take_layout(shape, 4, !backwards), bytes = take_layout(zoomed, 1, backwards);
    const uint32_t seed = (uint32_t)take(4);
    if (backwards)
        for (size_t i = 0; i < bytes.span; i++)
            bytes.memory[i] = (uint8_t)(input_left > 0 ? take(1) : (seed + i) * 2654435761u >> 24);
    else
        for (size_t i = 0; i + 4 <= floats.span; i += 4) {
            const float x = input_left > 3 ? take_float() : (float)((seed + i) * 2654435761u) / 2147483648.0f - 1;
            memcpy(floats.memory + i, &x, 4);
        }
    uint8_t *const first_float = floats.memory + floats.origin, *const first_byte = bytes.memory + bytes.origin;
    const edgegan_status status = backwards
        ? edgegan_to_float(shape, first_byte, bytes.strides, first_float, floats.strides)
        : edgegan_to_uint8(shape, first_float, floats.strides, first_byte, bytes.strides, zoom);
    require(status == EDGEGAN_OK, "pixels: any layout is taken");
    for (size_t n = 0; n < shape.n; n++)
        for (size_t c = 0; c < shape.c; c++)
            for (size_t h = 0; h < zoomed.h; h++)
                for (size_t w = 0; w < zoomed.w; w++) {
                    const uint8_t p = *element(&bytes, n, c, h, w);
                    float x;
                    memcpy(&x, element(&floats, n, c, h / zoom, w / zoom), 4);
                    if (backwards)
                        require(x == (float)p / 127.5f - 1 && pixel_of(x) == p, "a float is that of its pixel");
                    else
                        require(p == pixel_of(x), "a pixel is that of its float");
                }
    free(floats.memory);
    free(bytes.memory);
}

/* The pixel at a position of a row of `size` that goes on mirrored. */
static size_t mirrored(int64_t position, size_t size)
{
    const int64_t period = size > 1 ? 2 * ((int64_t)size - 1) : 1, phase = (position % period + period) % period;
    return (size_t)(phase < (int64_t)size ? phase : period - phase);
}

static void fuzz_tile(void)
{
    const edgegan_shape shape = {1 + take_below(3), 1 + take_below(5), 1 + take_below(20), 1 + take_below(40)};
    const edgegan_shape picture = {shape.n, shape.c, 1 + take_below(10), 1 + take_below(300)};
    const int far = take(1) % 8 == 0; /* anywhere that is allowed, or not */
    const int64_t y = far ? (int64_t)take(8) : (int64_t)take_below(100) - 50;
    const int64_t x = far ? (int64_t)take(5) - 0x80000000ll : (int64_t)take_below(1000) - 500;
    buffer bytes = take_layout(picture, 1, 1), floats = take_layout(shape, 4, 0);
    const uint32_t seed = (uint32_t)take(4);
    for (size_t i = 0; i < bytes.span; i++)
        bytes.memory[i] = (uint8_t)((seed + i) * 2654435761u >> 24);
    memset(floats.memory, 7, floats.span);
    const edgegan_status status = edgegan_tile(picture.h, picture.w, bytes.memory + bytes.origin, bytes.strides,
                                               (ptrdiff_t)y, (ptrdiff_t)x, shape, floats.memory + floats.origin,
                                               floats.strides);
    const int valid = y >= -0x7FFFFFFF && y <= 0x7FFFFFFF && x >= -0x7FFFFFFF && x <= 0x7FFFFFFF;
    require((status == EDGEGAN_OK) == valid, "a tile: valid positions, and no others, are taken");
    for (size_t i = 0; !valid && i < floats.span; i++)
        require(floats.memory[i] == 7, "a tile: an error leaves its output");
    for (size_t n = 0; valid && n < shape.n; n++)
        for (size_t c = 0; c < shape.c; c++)
            for (size_t h = 0; h < shape.h; h++)
                for (size_t w = 0; w < shape.w; w++) {
                    float got;
                    memcpy(&got, element(&floats, n, c, h, w), 4);
                    const uint8_t p = *element(&bytes, n, c, mirrored(y + (int64_t)h, picture.h),
                                               mirrored(x + (int64_t)w, picture.w));
                    require(got == (float)p / 127.5f - 1, "a tile: each float is that of its pixel");
                }
    free(floats.memory);
    free(bytes.memory);
}

static void fuzz_blend(void)
{
    const edgegan_shape shape = {1 + take_below(3), 1 + take_below(5), 1 + take_below(20), 1 + take_below(40)};
    buffer before = take_layout(shape, 4, 1), images = take_layout(shape, 4, 0);
    float weights[21];
    for (size_t h = 0; h < shape.h; h++)
        weights[h] = take_float();
    for (size_t i = 0; i + 4 <= before.span; i += 4) {
        const float value = take_float();
        memcpy(before.memory + i, &value, 4);
    }
    for (size_t i = 0; i + 4 <= images.span; i += 4) {
        const float value = take_float();
        memcpy(images.memory + i, &value, 4);
    }
    uint8_t *const old = bytes_of(images.span);
    memcpy(old, images.memory, images.span);
    require(edgegan_blend(shape, before.memory + before.origin, before.strides, weights, images.memory + images.origin,
                          images.strides) == EDGEGAN_OK, "a blend: any layout is taken");
    for (size_t n = 0; n < shape.n; n++)
        for (size_t c = 0; c < shape.c; c++)
            for (size_t h = 0; h < shape.h; h++)
                for (size_t w = 0; w < shape.w; w++) {
                    const uint8_t *const place = element(&images, n, c, h, w);
                    float a, b, got;
                    memcpy(&a, element(&before, n, c, h, w), 4);
                    memcpy(&b, old + (place - images.memory), 4);
                    memcpy(&got, place, 4);
                    const volatile float apart = b - a, part = apart * weights[h]; /* each rounded by itself */
                    const float expected = a + part;
                    require(got == expected || (isnan(got) && isnan(expected)), "a blend: each step is rounded");
                }
    free(old);
    free(images.memory);
    free(before.memory);
}

/* Shapes of any size, with buffers that do not exist: nothing may be touched. */
static void fuzz_shapes(void)
{
    const edgegan_shape shape = {(size_t)take_edge(), (size_t)take_edge(), (size_t)take_edge(), (size_t)take_edge()};
    const edgegan_strides strides = {(ptrdiff_t)take(8), (ptrdiff_t)take(8), (ptrdiff_t)take(8), (ptrdiff_t)take(8)};
    const size_t zoom = (size_t)take_edge(), sizes[] = {shape.n, shape.c, shape.h, shape.w, zoom, zoom};
    int empty = 0, too_much = 0, too_much_unzoomed = 0;
    unsigned __int128 product = 1;
    for (int i = 0; i < 6; i++) {
        product = product > EDGEGAN_MAX_ELEMENTS ? product : product * sizes[i];
        too_much = product > EDGEGAN_MAX_ELEMENTS;
        if (i < 4) {
            empty |= sizes[i] == 0;
            too_much_unzoomed = too_much;
        }
    }
    const int zoom_valid = zoom >= 1 && zoom <= 65535;
    if (!zoom_valid)
        require(edgegan_to_uint8(shape, NULL, strides, NULL, strides, zoom) == EDGEGAN_ERROR_ARGUMENT, "zoom");
    else if (empty || too_much)
        require(edgegan_to_uint8(shape, NULL, strides, NULL, strides, zoom)
                    == (empty ? EDGEGAN_OK : EDGEGAN_ERROR_OVERFLOW), "to_uint8: too much, or nothing to do");
    if (empty || too_much_unzoomed)
        require(edgegan_to_float(shape, NULL, strides, NULL, strides) == (empty ? EDGEGAN_OK : EDGEGAN_ERROR_OVERFLOW),
                "to_float: too much, or nothing to do");
    if (empty || too_much_unzoomed) {
        const edgegan_status expected = empty ? EDGEGAN_OK : EDGEGAN_ERROR_OVERFLOW;
        require(edgegan_tile(1, 1, NULL, strides, 0, 0, shape, NULL, strides) == expected, "a tile: too much, or none");
        require(edgegan_blend(shape, NULL, strides, NULL, NULL, strides) == expected, "a blend: too much, or nothing");
    }
}

/* PNG */

static int keyword_is_valid(const char *keyword)
{
    const size_t length = strlen(keyword);
    if (length < 1 || length > 79 || keyword[0] == ' ' || keyword[length - 1] == ' ' || strstr(keyword, "  ") != NULL)
        return 0;
    for (size_t i = 0; i < length; i++)
        if ((uint8_t)keyword[i] < 32 || (uint8_t)keyword[i] > 126)
            return 0;
    return 1;
}

/* By the code points: a sequence is valid if its number needs its length and is a Unicode scalar value. */
static int text_is_valid(const char *text)
{
    static const uint32_t least[5] = {0, 0, 0x80, 0x800, 0x10000};
    for (const uint8_t *p = (const uint8_t *)text; *p != 0;) {
        const size_t length = *p < 0x80 ? 1 : *p >> 5 == 6 ? 2 : *p >> 4 == 14 ? 3 : *p >> 3 == 30 ? 4 : 0;
        if (length == 0)
            return 0;
        uint32_t point = length == 1 ? *p : *p & (0x7Fu >> length);
        for (size_t i = 1; i < length; i++) {
            if (p[i] >> 6 != 2)
                return 0;
            point = point << 6 | (p[i] & 63);
        }
        if (point < least[length] || point > 0x10FFFF || (point >= 0xD800 && point <= 0xDFFF))
            return 0;
        p += length;
    }
    return 1;
}

static char *take_string(void)
{
    const unsigned style = (unsigned)take(1);
    const size_t length = take_below(style & 1 ? MAX_STRING : 12);
    char *const string = bytes_of(length + 1);
    for (size_t i = 0; i < length; i++) {
        string[i] = (char)take(1);
        if (style & 2)
            string[i] = (char)(' ' + (uint8_t)string[i] % 95);
    }
    string[length] = '\0';
    return string;
}

static void draw(uint8_t *pixels, size_t size)
{
    const unsigned style = (unsigned)take(1);
    const size_t period = style & 8 ? 32700 + take_below(100) : 1 + take_below(300); /* matches reach 32768 */
    uint32_t state = (uint32_t)take(4);
    for (size_t i = 0; i < size; i++) {
        state = state * 1664525u + 1013904223u;
        const uint8_t noise = (uint8_t)(state >> 24);
        switch (style % 8) {
        case 0:
            pixels[i] = noise;
            break;
        case 1:
            pixels[i] = (uint8_t)state & 1 ? 0 : 255;
            break;
        case 2:
            pixels[i] = noise < 230 ? 0 : (uint8_t)(state >> 16);
            break;
        case 3:
            pixels[i] = (uint8_t)(i / period + (noise & 1));
            break;
        case 4: /* repetitions with rare errors */
            pixels[i] = i < period ? noise : (uint8_t)(pixels[i - period] + (state >> 20 == 0));
            break;
        case 5:
            pixels[i] = input_left > 0 ? (uint8_t)take(1) : 7;
            break;
        case 6: /* the input, repeated */
            pixels[i] = input_left > 0 ? (uint8_t)take(1) : i < period ? 0 : pixels[i - period];
            break;
        default: /* counts of values that are powers of two or Fibonacci-like: the longest codes */
            pixels[i] = (uint8_t)(state == 0 ? 31 : __builtin_clz(state));
        }
    }
}

static void keep(const uint8_t *file, size_t size, const uint8_t *pixels, ptrdiff_t stride, size_t width,
                 size_t height, size_t channels)
{
    static unsigned seen;
    const char *const folder = getenv("EDGEGAN_FUZZ_PNG");
    if (folder == NULL || seen++ % KEPT_EVERY != 0 || seen > KEPT_EVERY * KEPT_MOST)
        return;
    char path[4096];
    for (int raw = 0; raw < 2; raw++) {
        snprintf(path, sizeof path, "%s/%zux%zux%zu-%u.%s", folder, width, height, channels, seen / KEPT_EVERY,
                 raw ? "raw" : "png");
        FILE *const out = fopen(path, "wb");
        require(out != NULL, "a folder to keep files in");
        if (raw)
            for (size_t y = 0; y < height; y++)
                fwrite(pixels + (ptrdiff_t)y * stride, 1, width * channels, out);
        else
            fwrite(file, 1, size, out);
        fclose(out);
    }
}

static void fuzz_png(void)
{
    const unsigned style = (unsigned)take(1);
    const size_t channels = 1 + take_below(4);
    const size_t most = (take(1) % 8 == 7 ? MAX_PICTURE : MAX_SMALL) / channels; /* large ones take long to check */
    const size_t width = 1 + take_below(style & 1 ? most : 64), rows = most / width;
    const size_t height = 1 + take_below(style & 2 || rows < 64 ? rows : 64), row_size = width * channels;
    const size_t stride = row_size + (style & 4 ? take_below(9) : 0), size = stride * (height - 1) + row_size;
    const size_t text_count = style & 8 ? take_below(4) : 0;
    edgegan_text texts[3];
    int valid = 1;
    for (size_t i = 0; i < text_count; i++) {
        texts[i].keyword = take_string();
        texts[i].text = take_string();
        valid &= keyword_is_valid(texts[i].keyword) && text_is_valid(texts[i].text);
    }
    size_t workspace_size = 5, file_size = 5, written = 5;
    const edgegan_status sizes_status =
        edgegan_png_sizes(width, height, channels, texts, text_count, &workspace_size, &file_size);
    require(sizes_status == (valid ? EDGEGAN_OK : EDGEGAN_ERROR_TEXT), "png: valid texts, and no others, are taken");
    require(valid || (workspace_size == 5 && file_size == 5), "png: an error leaves the sizes");
    if (valid) {
        uint8_t *const pixels = bytes_of(size), *const file = bytes_of(file_size);
        void *const workspace = bytes_of(workspace_size);
        draw(pixels, size);
        const int upwards = style & 16 && height > 1;
        const uint8_t *const first = pixels + (upwards ? stride * (height - 1) : 0);
        const ptrdiff_t step = upwards ? -(ptrdiff_t)stride : (ptrdiff_t)stride;
        const unsigned small = style >> 5;
        if (small == 1 || small == 2) {
            const size_t less = 1 + take_below(small == 1 ? file_size : workspace_size);
            require(edgegan_png(first, step, width, height, channels, texts, text_count, workspace,
                                workspace_size - (small == 2 ? less : 0), file, file_size - (small == 1 ? less : 0),
                                &written) == EDGEGAN_ERROR_BUFFER, "png: a small buffer is refused");
            require(written == 5 && is_untouched(file, file_size), "png: a small buffer is left as it was");
        } else {
            require(edgegan_png(first, step, width, height, channels, texts, text_count, workspace, workspace_size,
                                file, file_size, &written) == EDGEGAN_OK && written <= file_size, "png: a file");
            const char *const wrong = png_check(file, written, first, step, width, height, channels, texts, text_count);
            require(wrong == NULL, wrong);
            keep(file, written, first, step, width, height, channels);
        }
        free(pixels);
        free(file);
        free(workspace);
    }
    for (size_t i = 0; i < text_count; i++) {
        free((void *)(uintptr_t)texts[i].keyword);
        free((void *)(uintptr_t)texts[i].text);
    }
}

/* Pictures of any size that no buffer holds. */
static void fuzz_png_sizes(void)
{
    const size_t width = (size_t)take_edge(), height = (size_t)take_edge();
    const size_t channels = (size_t)(take(1) % 4 ? take_below(6) : take_edge());
    size_t workspace_size = 5, file_size = 5, written = 5;
    const int in_range = width >= 1 && width <= 0x7FFFFFFF && height >= 1 && height <= 0x7FFFFFFF && channels >= 1
        && channels <= 4;
    const int valid = in_range && (unsigned __int128)width * height * channels <= EDGEGAN_MAX_ELEMENTS;
    const edgegan_status status = edgegan_png_sizes(width, height, channels, NULL, 0, &workspace_size, &file_size);
    require(status == (valid ? EDGEGAN_OK : in_range ? EDGEGAN_ERROR_OVERFLOW : EDGEGAN_ERROR_ARGUMENT), "png: sizes");
    require(!valid || (file_size > (width * channels + 1) * height && workspace_size <= 1 << 18),
            "png: room for a file that does not compress, and little to work in");
    uint64_t workspace = 5;
    uint8_t pixel = 5, file = 5;
    require(edgegan_png(&pixel, 1, width, height, channels, NULL, 0, &workspace, sizeof workspace, &file, 1, &written)
                == (valid ? EDGEGAN_ERROR_BUFFER : status), "png: a buffer of a byte");
    require(workspace == 5 && file == 5 && written == 5 && (valid || (workspace_size == 5 && file_size == 5)),
            "png: an error leaves its outputs");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    input = data;
    input_left = size;
    const unsigned choice = (unsigned)take(1) % 18;
    if (choice < 3)
        fuzz_noise(choice);
    else if (choice == 3)
        fuzz_normal_from_words();
    else if (choice == 4)
        fuzz_derive_seed();
    else if (choice < 7)
        fuzz_interpolation(choice == 5);
    else if (choice < 9)
        fuzz_pixels(choice == 7);
    else if (choice == 9)
        fuzz_shapes();
    else if (choice == 10)
        fuzz_png_sizes();
    else if (choice == 11) {
        const int status = (int)take(2) - 1000;
        require(edgegan_message((edgegan_status)status)[0] != '\0', "a message");
        require(edgegan_instruction_set()[0] != '\0' && edgegan_check() == EDGEGAN_OK, "edgegan_check");
    } else if (choice == 12)
        fuzz_tile();
    else if (choice == 13)
        fuzz_blend();
    else
        fuzz_png();
    return 0;
}
