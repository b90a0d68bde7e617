/* The C core by itself, without Python: known answers, every instruction set against plain C, layouts, PNG files,
 * errors.
 *
 *     core_test FOLDER-OF-VECTORS [all]       `all` compares the normals of all 2^32 words
 *
 * For sanitizers and for processors that run under an emulator. Exit status 0 if all is well; what fails is named.
 * The digest that it prints is of bits that must not depend on the processor, and for which there are no vectors.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../edgegan/core/edgegan.h"
#include "../../edgegan/core/kernels.h"
#include "png_check.h"

static int passed, failed;

static void expect(int condition, const char *what)
{
    if (condition)
        passed++;
    else if (failed++ < 20)
        fprintf(stderr, "failed: %s\n", what);
}

static uint64_t digest = 0xCBF29CE484222325u; /* FNV-1a */

static void add_to_digest(const void *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++)
        digest = (digest ^ ((const uint8_t *)bytes)[i]) * 0x100000001B3u;
}

/* As 32-bit numbers, so that the order of bytes in memory does not matter. */
static void add_floats_to_digest(const float *floats, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, floats + i, 4);
        digest = (digest ^ bits) * 0x100000001B3u;
    }
}

static uint64_t random_state = 1;

static uint32_t random_word(void)
{
    random_state += 0x9E3779B97F4A7C15u; /* splitmix64 */
    uint64_t z = random_state;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return (uint32_t)(z >> 32);
}

static size_t random_below(size_t bound)
{
    return random_word() % bound;
}

static void fill(void *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++)
        ((uint8_t *)bytes)[i] = (uint8_t)random_word();
}

/* Known answers */

enum { MAX_ANSWERS = 8192, MAX_LINE = 1 << 17 };

static char line[MAX_LINE];
static uint32_t words[MAX_ANSWERS];
static float normals[MAX_ANSWERS];
static int64_t labels[MAX_ANSWERS];

static uint64_t number(char **text, int base)
{
    return strtoull(*text, text, base);
}

static void same_bits(char *answers, const uint32_t *got, size_t count)
{
    size_t right = 0;
    for (size_t i = 0; i < count; i++)
        right += number(&answers, 16) == got[i];
    expect(right == count && strspn(answers, " \n") == strlen(answers), line);
}

static void same_floats(char *answers, size_t count)
{
    memcpy(words, normals, count * sizeof *words);
    same_bits(answers, words, count);
}

static void noise_line(void)
{
    char *answers = strstr(line, " : "), *arguments = strchr(line, ' ');
    if (answers == NULL) {
        expect(0, line);
        return;
    }
    *answers = '\0';
    answers += 3;
    if (strncmp(line, "words ", 6) == 0 || strncmp(line, "normal ", 7) == 0) {
        const uint64_t seed = number(&arguments, 10), start = number(&arguments, 10);
        const uint32_t stream = (uint32_t)number(&arguments, 10);
        const uint64_t n = number(&arguments, 10), dim = number(&arguments, 10);
        const size_t count = (size_t)(n * dim);
        if (line[0] == 'w') {
            expect(edgegan_words(seed, start, n, dim, stream, words, count) == EDGEGAN_OK, line);
            same_bits(answers, words, count);
        } else {
            const float bound = strtof(arguments, NULL);
            expect(edgegan_normal(seed, start, n, dim, stream, bound, normals, count) == EDGEGAN_OK, line);
            same_floats(answers, count);
        }
    } else if (strncmp(line, "normal_from_words ", 18) == 0) {
        size_t count = 0;
        while (arguments[strspn(arguments, " ")] != '\0')
            words[count++] = (uint32_t)number(&arguments, 16);
        edgegan_normal_from_words(words, normals, count);
        same_floats(answers, count);
    } else if (strncmp(line, "labels ", 7) == 0) {
        const uint64_t seed = number(&arguments, 10), start = number(&arguments, 10), n = number(&arguments, 10);
        const uint32_t classes = (uint32_t)number(&arguments, 10);
        int right = edgegan_labels(seed, start, n, classes, labels, (size_t)n) == EDGEGAN_OK;
        for (uint64_t i = 0; i < n; i++)
            right &= (int64_t)number(&answers, 10) == labels[i];
        expect(right, line);
    } else if (strncmp(line, "derive_seed ", 12) == 0) {
        const uint64_t seed = number(&arguments, 10);
        uint64_t derived = 0;
        expect(edgegan_derive_seed(seed, (uint32_t)number(&arguments, 10), &derived) == EDGEGAN_OK, line);
        expect(derived == number(&answers, 16), line);
    } else if (strncmp(line, "lerp ", 5) == 0 || strncmp(line, "slerp ", 6) == 0) {
        const uint64_t seed = number(&arguments, 10), dim = number(&arguments, 10);
        static float ends[MAX_ANSWERS];
        double t[16];
        size_t count = 0;
        while (count < 16 && arguments[strspn(arguments, " ")] != '\0')
            t[count++] = strtod(arguments, &arguments);
        expect(edgegan_normal(seed, 0, 2, dim, 0, INFINITY, ends, (size_t)(2 * dim)) == EDGEGAN_OK, line);
        const size_t items = count * (size_t)dim;
        const edgegan_status status =
            line[0] == 'l' ? edgegan_lerp(ends, ends + dim, (size_t)dim, t, count, normals, items)
                           : edgegan_slerp(ends, ends + dim, (size_t)dim, t, count, normals, items);
        expect(status == EDGEGAN_OK, line);
        same_floats(answers, items);
    } else
        expect(0, line);
}

static void philox_line(void)
{
    char *at = line;
    uint32_t all[6], out[4];
    for (int i = 0; i < 6; i++)
        all[i] = (uint32_t)number(&at, 16);
    edgegan_philox(all, all + 4, out);
    same_bits(at, out, 4);
}

static void test_vectors(const char *folder, const char *name, void (*check)(void))
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "r");
    int lines = 0;
    while (file != NULL && fgets(line, sizeof line, file) != NULL)
        if (line[0] != '#' && line[0] != '\n') {
            check();
            lines++;
        }
    expect(lines > 20, path);
    if (file != NULL)
        fclose(file);
}

/* Every instruction set against plain C */

enum { MANY = 4096 };

static void test_noise_kernels(const edgegan_kernels *kernels)
{
    static uint32_t q[MANY / 4], expected[MANY], got[MANY];
    static uint64_t index[MANY / 4];
    static float a[MANY], b[MANY];
    const edgegan_kernels *scalar = &edgegan_kernels_scalar;
    for (int turn = 0; turn < 200; turn++) {
        const uint32_t key[2] = {random_word(), random_word()}, stream = random_word();
        fill(q, sizeof q);
        fill(index, sizeof index);
        scalar->philox(key, stream, q, index, MANY / 4, expected);
        kernels->philox(key, stream, q, index, MANY / 4, got);
        expect(memcmp(expected, got, sizeof got) == 0, "philox");
        scalar->normal(got, MANY, a);
        kernels->normal(got, MANY, b);
        expect(memcmp(a, b, sizeof a) == 0, "normal");
        const uint32_t low = random_word() >> 1;
        scalar->narrow(expected, MANY, low, 0u - 2 * low);
        kernels->narrow(got, MANY, low, 0u - 2 * low);
        expect(memcmp(expected, got, sizeof got) == 0, "narrow");
    }
}

static void test_all_words(const edgegan_kernels *kernels)
{
    static float a[MANY], b[MANY];
    int right = 1;
    for (uint32_t first = 0; first < 0xFFFFFFFFu - MANY + 1 && right; first += MANY) {
        for (uint32_t i = 0; i < MANY; i++)
            words[i] = first + i;
        edgegan_kernels_scalar.normal(words, MANY, a);
        kernels->normal(words, MANY, b);
        right = memcmp(a, b, sizeof a) == 0;
    }
    expect(right, "the normals of all words");
}

/* Floats that networks give, and every other one: any bits at all, and values on or beside a rounding's joint. */
static void fill_floats(uint8_t *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        float x = 0;
        const uint32_t bits = random_word();
        if (i % 3 == 0)
            x = (float)(int32_t)bits / 2147483648.0f * 1.2f;
        else if (i % 3 == 1)
            x = ((float)(bits % 512) / 2 - 127.5f) / 127.5f;
        else
            memcpy(&x, &bits, 4);
        memcpy(bytes + 4 * i, &x, 4);
    }
}

enum { WIDE = 300, ROOM = 4 * WIDE * 4 + 8 };

static void test_pixel_kernels(const edgegan_kernels *kernels)
{
    static uint8_t floats[ROOM], bytes[ROOM], expected[ROOM], got[ROOM];
    static const size_t channel_counts[3] = {1, 3, 4};
    for (int turn = 0; turn < 3000; turn++) {
        const size_t channels = channel_counts[turn % 3], width = random_below(WIDE + 1), shift = random_below(4);
        const uint8_t *from[4];
        uint8_t *planes[4];
        fill_floats(floats + shift, 4 * WIDE);
        for (size_t k = 0; k < channels; k++)
            from[k] = floats + shift + 4 * WIDE * k;
        memset(expected, 7, ROOM);
        memset(got, 7, ROOM);
        edgegan_kernels_scalar.to_uint8(from, channels, width, expected + shift);
        kernels->to_uint8(from, channels, width, got + shift);
        expect(memcmp(expected, got, ROOM) == 0, "to_uint8"); /* what lies beside the row, too */

        fill(bytes, ROOM);
        for (int which = 0; which < 2; which++) {
            uint8_t *floats_out = which ? got : expected;
            memset(floats_out, 7, ROOM);
            for (size_t k = 0; k < channels; k++)
                planes[k] = floats_out + shift + 4 * WIDE * k;
            (which ? kernels : &edgegan_kernels_scalar)->to_float(bytes + shift, channels, width, planes);
        }
        expect(memcmp(expected, got, ROOM) == 0, "to_float");
    }
}

/* Layouts: any strides against one element at a time */

typedef struct {
    uint8_t *memory;
    ptrdiff_t origin;
    edgegan_strides strides;
} buffer;

/* Memory for a shape whose dimensions lie in any order, each forwards or backwards, with gaps. */
static buffer random_layout(edgegan_shape shape, size_t item)
{
    const size_t sizes[4] = {shape.n, shape.c, shape.h, shape.w};
    ptrdiff_t strides[4];
    int order[4] = {0, 1, 2, 3};
    buffer b = {NULL, 0, {0, 0, 0, 0}};
    for (int i = 3; i > 0; i--) {
        const int j = (int)random_below((size_t)i + 1), swap = order[i];
        order[i] = order[j];
        order[j] = swap;
    }
    if (random_below(3) == 0) { /* the layouts that kernels take as they are */
        const int plain_floats[4] = {3, 2, 1, 0}, plain_bytes[4] = {1, 3, 2, 0};
        memcpy(order, item == 4 ? plain_floats : plain_bytes, sizeof order);
    }
    size_t span = item;
    for (int i = 0; i < 4; i++) {
        const int d = order[i];
        const size_t gap = random_below(4) ? 0 : random_below(3);
        strides[d] = (ptrdiff_t)(span + gap);
        span = (span + gap) * (sizes[d] > 0 ? sizes[d] : 1);
        if (random_below(4) == 0) {
            b.origin += strides[d] * (ptrdiff_t)(sizes[d] > 0 ? sizes[d] - 1 : 0);
            strides[d] = -strides[d];
        }
    }
    const edgegan_strides found = {strides[0], strides[1], strides[2], strides[3]};
    b.strides = found;
    b.memory = malloc(span); /* exactly what is needed, so that a sanitizer sees one byte too many */
    return b;
}

static uint8_t *element(const buffer *b, size_t n, size_t c, size_t h, size_t w)
{
    const edgegan_strides *s = &b->strides;
    return b->memory
        + (b->origin + (ptrdiff_t)n * s->n + (ptrdiff_t)c * s->c + (ptrdiff_t)h * s->h + (ptrdiff_t)w * s->w);
}

static void test_layouts(void)
{
    for (int turn = 0; turn < 2000; turn++) {
        const edgegan_shape shape = {1 + random_below(3), 1 + random_below(5), 1 + random_below(9),
                                     turn % 50 ? 1 + random_below(40) : 257 + random_below(400)};
        const size_t zoom = random_below(3) ? 1 : 1 + random_below(4);
        const edgegan_shape zoomed = {shape.n, shape.c, shape.h * zoom, shape.w * zoom};
        buffer floats = random_layout(shape, 4), bytes = random_layout(zoomed, 1), back = random_layout(shape, 4);
        for (size_t n = 0; n < shape.n; n++)
            for (size_t c = 0; c < shape.c; c++)
                for (size_t h = 0; h < shape.h; h++)
                    for (size_t w = 0; w < shape.w; w++)
                        fill_floats(element(&floats, n, c, h, w), 1);
        expect(edgegan_to_uint8(shape, floats.memory + floats.origin, floats.strides, bytes.memory + bytes.origin,
                                bytes.strides, zoom) == EDGEGAN_OK, "to_uint8 of a layout");
        const edgegan_strides apart = {bytes.strides.n, bytes.strides.c, bytes.strides.h * (ptrdiff_t)zoom,
                                       bytes.strides.w * (ptrdiff_t)zoom};
        expect(edgegan_to_float(shape, bytes.memory + bytes.origin, apart, back.memory + back.origin, back.strides)
                   == EDGEGAN_OK, "to_float of a layout");
        int right = 1;
        for (size_t n = 0; n < shape.n; n++)
            for (size_t c = 0; c < shape.c; c++)
                for (size_t h = 0; h < zoomed.h; h++)
                    for (size_t w = 0; w < zoomed.w; w++) {
                        uint8_t expected, expected_back[4];
                        uint8_t *planes[1] = {expected_back};
                        const uint8_t *const plane[1] = {element(&floats, n, c, h / zoom, w / zoom)};
                        edgegan_kernels_scalar.to_uint8(plane, 1, 1, &expected);
                        edgegan_kernels_scalar.to_float(&expected, 1, 1, planes);
                        right &= *element(&bytes, n, c, h, w) == expected;
                        right &= memcmp(element(&back, n, c, h / zoom, w / zoom), expected_back, 4) == 0;
                    }
        expect(right, "the elements of a layout");
        free(floats.memory);
        free(bytes.memory);
        free(back.memory);
    }
}

/* The pixel at a position of a row of `size` that goes on mirrored, found by walking. */
static size_t mirrored(int position, size_t size)
{
    int at = 0, step = 1;
    for (int i = 0; i < abs(position); i++) {
        if (size == 1)
            return 0;
        if (at + step < 0 || at + step >= (int)size)
            step = -step;
        at += step;
    }
    return (size_t)at;
}

static void test_tiles(void)
{
    random_state = 7; /* for the digest: how many instruction sets were tested until now depends on the processor */
    for (int turn = 0; turn < 1000; turn++) {
        const size_t count = 1 + random_below(3), channels = 1 + random_below(5); /* in this order */
        const size_t tall = 1 + random_below(20), broad = 1 + random_below(40);
        const size_t high = 1 + random_below(12), wide = 1 + random_below(30) + (turn % 50 ? 0 : 300);
        const edgegan_shape shape = {count, channels, tall, broad}, picture = {count, channels, high, wide};
        const int y = (int)random_below(60) - 30, x = (int)random_below(90) - 45;
        buffer bytes = random_layout(picture, 1), floats = random_layout(shape, 4), before = random_layout(shape, 4);
        float weights[20], blended[2];
        for (size_t n = 0; n < shape.n; n++)
            for (size_t c = 0; c < shape.c; c++)
                for (size_t h = 0; h < picture.h; h++)
                    for (size_t w = 0; w < picture.w; w++)
                        fill(element(&bytes, n, c, h, w), 1);
        expect(edgegan_tile(picture.h, picture.w, bytes.memory + bytes.origin, bytes.strides, y, x, shape,
                            floats.memory + floats.origin, floats.strides) == EDGEGAN_OK, "a tile");
        for (size_t h = 0; h < shape.h; h++)
            weights[h] = (float)random_below(1000) / 999;
        int right = 1;
        for (size_t n = 0; n < shape.n; n++)
            for (size_t c = 0; c < shape.c; c++)
                for (size_t h = 0; h < shape.h; h++)
                    for (size_t w = 0; w < shape.w; w++) {
                        uint8_t expected[4], *planes[1] = {expected};
                        const size_t row = mirrored(y + (int)h, picture.h), column = mirrored(x + (int)w, picture.w);
                        edgegan_kernels_scalar.to_float(element(&bytes, n, c, row, column), 1, 1, planes);
                        right &= memcmp(element(&floats, n, c, h, w), expected, 4) == 0;
                        const float from = (float)random_below(2001) / 1000 - 1;
                        memcpy(element(&before, n, c, h, w), &from, 4);
                    }
        expect(right, "the elements of a tile");
        buffer copy = floats;
        const size_t last = shape.h - 1;
        memcpy(blended, element(&floats, 0, 0, last, 0), 4);
        expect(edgegan_blend(shape, before.memory + before.origin, before.strides, weights,
                             copy.memory + copy.origin, copy.strides) == EDGEGAN_OK, "a blend");
        float from, got;
        memcpy(&from, element(&before, 0, 0, last, 0), 4);
        memcpy(&got, element(&floats, 0, 0, last, 0), 4);
        expect(fabsf(got - (from * (1 - weights[last]) + blended[0] * weights[last])) < 5e-7f, "what is blended");
        for (size_t n = 0; n < shape.n; n++)
            for (size_t c = 0; c < shape.c; c++)
                for (size_t h = 0; h < shape.h; h++)
                    for (size_t w = 0; w < shape.w; w++) {
                        memcpy(blended, element(&floats, n, c, h, w), 4);
                        add_floats_to_digest(blended, 1);
                    }
        free(bytes.memory);
        free(floats.memory);
        free(before.memory);
    }
}

static void test_interpolation(void)
{
    enum { DIM = 130, STEPS = 5 };
    float a[DIM], b[DIM], out[STEPS * DIM];
    const double t[STEPS] = {0, 0.25, 0.5, 0.75, 1};
    expect(edgegan_normal(1, 0, 1, DIM, 0, INFINITY, a, DIM) == EDGEGAN_OK, "a");
    expect(edgegan_normal(2, 0, 1, DIM, 0, INFINITY, b, DIM) == EDGEGAN_OK, "b");
    expect(edgegan_slerp(a, b, DIM, t, STEPS, out, STEPS * DIM) == EDGEGAN_OK, "slerp");
    expect(memcmp(out, a, sizeof a) == 0 && memcmp(out + 4 * DIM, b, sizeof b) == 0, "the ends of an arc");
    double dot = 0, aa = 0, bb = 0, middle = 0;
    for (int i = 0; i < DIM; i++) {
        const double x = a[i], y = b[i], z = out[2 * DIM + i];
        dot += x * y;
        aa += x * x;
        bb += y * y;
        middle += z * z;
    }
    /* Half way both weights are 1 / (2 cos(angle / 2)). */
    const double weight = 0.5 / cos(acos(dot / sqrt(aa * bb)) / 2);
    expect(fabs(middle / (weight * weight * (aa + bb + 2 * dot)) - 1) < 1e-6, "the middle of an arc");
    add_floats_to_digest(out, STEPS * DIM);
    expect(edgegan_lerp(a, b, DIM, t, STEPS, out, STEPS * DIM) == EDGEGAN_OK, "lerp");
    expect(memcmp(out, a, sizeof a) == 0 && memcmp(out + 4 * DIM, b, sizeof b) == 0, "the ends of a line");
    expect(fabsf(out[DIM + 3] - (0.75f * a[3] + 0.25f * b[3])) < 1e-6f, "a quarter of a line");

    /* Sharp and blunt angles, down to none; the arc cosine has a branch for each. */
    static const float times[] = {-4, -2, -1, 0, 0.5f, 1, 2, 4}; /* exact products: a fused addition is the same */
    for (size_t k = 0; k < sizeof times / sizeof *times; k++) {
        float c[DIM];
        for (int i = 0; i < DIM; i++)
            c[i] = times[k] * a[i] + (k % 4 == 3 ? 0 : b[i]);
        expect(edgegan_slerp(a, c, DIM, t, STEPS, out, STEPS * DIM) == EDGEGAN_OK, "slerp at an angle");
        expect(memcmp(out, a, sizeof a) == 0 && memcmp(out + 4 * DIM, c, sizeof c) == 0, "its ends");
        add_floats_to_digest(out, STEPS * DIM);
    }
}

/* PNG files */

typedef enum { RANDOM, CONSTANT, GRADIENT, BACKGROUND, REPEATED, NOISY, CONTENTS, FAR } content;

/* What compresses in different ways: not at all, to nearly nothing, by filters, by codes, by matches, by both. */
static void draw(content kind, uint8_t *pixels, size_t size, size_t row_size)
{
    const size_t period = kind == FAR ? 32763 + random_below(12) : 1 + random_below(600); /* matches reach 32768 */
    const uint8_t value = (uint8_t)random_word();
    for (size_t i = 0; i < size; i++) {
        const uint8_t noise = (uint8_t)random_word(), slope = (uint8_t)(i % row_size + i / row_size);
        pixels[i] = kind == RANDOM ? noise
            : kind == CONSTANT     ? value
            : kind == GRADIENT     ? slope
            : kind == BACKGROUND   ? (uint8_t)(noise < 220 ? 0 : random_word())
            : kind == NOISY        ? (uint8_t)(slope + (noise & 3))
            : i < period           ? noise
                                   : pixels[i - period];
    }
}

/* Every buffer is allocated to the byte and not initialised: a sanitizer sees one too many, and one too early. */
static void test_picture(content kind, size_t width, size_t height, size_t channels, const edgegan_text *texts,
                         size_t text_count)
{
    const size_t row_size = width * channels, stride = row_size + (random_below(2) ? 0 : random_below(9));
    const size_t size = (height - 1) * stride + row_size;
    size_t workspace_size = 0, file_size = 0, written = 0, again = 0;
    expect(edgegan_png_sizes(width, height, channels, texts, text_count, &workspace_size, &file_size) == EDGEGAN_OK,
           "edgegan_png_sizes");
    uint8_t *const pixels = malloc(size), *const flipped = malloc(size), *const file = malloc(file_size);
    void *const workspace = malloc(workspace_size);
    if (pixels == NULL || flipped == NULL || file == NULL || workspace == NULL) {
        expect(0, "memory for a picture");
        exit(1);
    }
    draw(kind, pixels, size, stride);
    memset(flipped, 0, size);
    for (size_t y = 0; y < height; y++)
        memcpy(flipped + (height - 1 - y) * stride, pixels + y * stride, row_size);

    expect(edgegan_png(pixels, (ptrdiff_t)stride, width, height, channels, texts, text_count, workspace,
                       workspace_size, file, file_size, &written) == EDGEGAN_OK, "edgegan_png");
    expect(written <= file_size, "the size of a file");
    const char *wrong = png_check(file, written, pixels, (ptrdiff_t)stride, width, height, channels, texts,
                                  text_count);
    expect(wrong == NULL, wrong);
    add_to_digest(file, written);

    /* The same picture upside down, from the last row up, with other bytes in memory that is not initialised. */
    uint8_t *const second = malloc(file_size);
    if (second == NULL)
        exit(1);
    memset(workspace, 0xA5, workspace_size);
    expect(edgegan_png(flipped + (height - 1) * stride, -(ptrdiff_t)stride, width, height, channels, texts,
                       text_count, workspace, workspace_size, second, file_size, &again) == EDGEGAN_OK,
           "edgegan_png upwards");
    expect(again == written && memcmp(file, second, written) == 0, "the same file from rows upwards");

    /* A byte less is refused, and nothing is touched. */
    written = 5;
    memset(second, 0xA5, file_size);
    expect(edgegan_png(pixels, (ptrdiff_t)stride, width, height, channels, texts, text_count, workspace,
                       workspace_size - 1, second, file_size, &written) == EDGEGAN_ERROR_BUFFER, "a small workspace");
    expect(edgegan_png(pixels, (ptrdiff_t)stride, width, height, channels, texts, text_count, workspace,
                       workspace_size, second, file_size - 1, &written) == EDGEGAN_ERROR_BUFFER, "a small file");
    int untouched = written == 5;
    for (size_t i = 0; i < file_size; i++)
        untouched &= second[i] == 0xA5;
    expect(untouched, "a file refused");
    free(pixels);
    free(flipped);
    free(file);
    free(second);
    free(workspace);
}

static void test_png(void)
{
    static const edgegan_text texts[] = {
        {"Title", "digits"}, {"Comment", ""}, {"a b", "two\nlines"},
        {"Author", "J\xC3\xBCrgen \xE2\x82\xAC \xF0\x9F\x98\x80"},
    };
    static const size_t sizes[][2] = {
        {1, 1}, {1, 300}, {300, 1}, {2, 2}, {28, 28}, {257, 5}, {1025, 3}, {40000, 2}, {3, 20000}, {200, 200},
    };
    random_state = 1; /* whatever came before: the digest is of these pictures */
    for (size_t channels = 1; channels <= 4; channels++)
        for (int kind = 0; kind < CONTENTS; kind++) {
            for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
                test_picture((content)kind, sizes[i][0], sizes[i][1], channels, texts, i % 5);
            for (int turn = 0; turn < 40; turn++) {
                const size_t width = 1 + random_below(40), height = 1 + random_below(40); /* in this order */
                test_picture((content)kind, width, height, channels, NULL, 0);
            }
        }
    for (int turn = 0; turn < 30; turn++)
        test_picture(FAR, 140000, 1, 1, NULL, 0);
    test_picture(NOISY, 700, 500, 3, texts, 4);
}

static edgegan_status status_of_text(const char *keyword, const char *text)
{
    const edgegan_text both = {keyword, text};
    size_t workspace_size = 5, file_size = 5, written = 5;
    uint64_t workspace = 5;
    uint8_t pixel = 0, file = 5;
    const edgegan_status status = edgegan_png_sizes(1, 1, 1, &both, 1, &workspace_size, &file_size);
    if (status != EDGEGAN_OK) {
        expect(workspace_size == 5 && file_size == 5, "a text refused leaves its outputs");
        expect(edgegan_png(&pixel, 1, 1, 1, 1, &both, 1, &workspace, sizeof workspace, &file, 1, &written) == status,
               "edgegan_png refuses what edgegan_png_sizes refuses");
        expect(written == 5 && file == 5 && workspace == 5, "a text refused leaves its file");
    }
    return status;
}

static void test_texts(void)
{
    char longest[81];
    memset(longest, 'k', sizeof longest);
    longest[80] = '\0';
    static const char *const good_keywords[] = {"k", "a b", "~!", "Creation Time"};
    static const char *const bad_keywords[] = {
        "", " ", " k", "k ", "a  b", "a\nb", "a\tb", "\x7F", "\xA0", "k\xC3\xA9",
    };
    static const char *const good_texts[] = {
        "", "a", "a\nb", "\xC2\x80", "\xDF\xBF", "\xE0\xA0\x80", "\xED\x9F\xBF", "\xEE\x80\x80", "\xEF\xBF\xBF",
        "\xF0\x90\x80\x80", "\xF4\x8F\xBF\xBF",
    };
    static const char *const bad_texts[] = { /* overlong, surrogates, beyond Unicode, cut short, out of place */
        "\x80", "\xBF", "\xC0\x80", "\xC1\xBF", "\xC3", "\xC3z", "\xE0\x9F\xBF", "\xE2\x82", "\xE2\x82z",
        "\xED\xA0\x80", "\xED\xBF\xBF", "\xF0\x8F\xBF\xBF", "\xF0\x9F\x98", "\xF4\x90\x80\x80", "\xF5\x80\x80\x80",
        "\xF8\x88\x80\x80\x80", "\xFE", "\xFF",
    };
    expect(status_of_text(longest, "") == EDGEGAN_ERROR_TEXT, "a keyword of 80 characters");
    expect(status_of_text(longest + 1, "") == EDGEGAN_OK, "a keyword of 79 characters");
    for (size_t i = 0; i < sizeof good_keywords / sizeof *good_keywords; i++)
        expect(status_of_text(good_keywords[i], "") == EDGEGAN_OK, good_keywords[i]);
    for (size_t i = 0; i < sizeof bad_keywords / sizeof *bad_keywords; i++)
        expect(status_of_text(bad_keywords[i], "") == EDGEGAN_ERROR_TEXT, "a bad keyword");
    for (size_t i = 0; i < sizeof good_texts / sizeof *good_texts; i++)
        expect(status_of_text("k", good_texts[i]) == EDGEGAN_OK, "a good text");
    for (size_t i = 0; i < sizeof bad_texts / sizeof *bad_texts; i++)
        expect(status_of_text("k", bad_texts[i]) == EDGEGAN_ERROR_TEXT, "a bad text");

    const size_t most = (size_t)1 << 24;
    char *const text = malloc(most + 2);
    if (text == NULL)
        exit(1);
    memset(text, 'a', most + 1);
    text[most + 1] = '\0';
    expect(status_of_text("k", text) == EDGEGAN_ERROR_TEXT, "a text of 2^24 + 1 bytes");
    expect(status_of_text("k", text + 1) == EDGEGAN_OK, "a text of 2^24 bytes");
    free(text);
}

static void test_png_errors(void)
{
    static const size_t bad[][3] = {{0, 1, 1}, {1, 0, 1}, {1, 1, 0}, {1, 1, 5}, {0x80000000u, 1, 1},
                                    {1, 0x80000000u, 1}, {SIZE_MAX, 1, 1}, {1, SIZE_MAX, 1}, {1, 1, SIZE_MAX}};
    static const size_t large[][3] = {{0x7FFFFFFF, 1, 2}, {1, 0x7FFFFFFF, 2}, {0x7FFFFFFF, 0x7FFFFFFF, 4},
                                      {65536, 32768, 1}, {32768, 65536, 4}, {23171, 23171, 4}};
    size_t workspace_size = 5, file_size = 5;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        expect(edgegan_png_sizes(bad[i][0], bad[i][1], bad[i][2], NULL, 0, &workspace_size, &file_size)
                   == EDGEGAN_ERROR_ARGUMENT, "a size or a number of channels");
    for (size_t i = 0; i < sizeof large / sizeof *large; i++)
        expect(edgegan_png_sizes(large[i][0], large[i][1], large[i][2], NULL, 0, &workspace_size, &file_size)
                   == EDGEGAN_ERROR_OVERFLOW, "a picture beyond the limit");
    expect(workspace_size == 5 && file_size == 5, "an error leaves the sizes");
    const int fits = sizeof(size_t) > 4; /* the largest picture and its file do not fit into 32 bits of addresses */
    expect((edgegan_png_sizes(0x7FFFFFFF, 1, 1, NULL, 0, &workspace_size, &file_size) == EDGEGAN_OK) == fits,
           "the widest picture");
    expect((edgegan_png_sizes(1, 0x7FFFFFFF, 1, NULL, 0, &workspace_size, &file_size) == EDGEGAN_OK) == fits,
           "the highest picture");
    expect(!fits || file_size > 0xFFFFFFFFu, "room for a filter byte in every row");
}

static void test_errors(void)
{
    uint32_t word = 5;
    float normal = 5, pair[2] = {1, 2};
    int64_t label = 5;
    uint64_t seed = 5;
    const double outside = 1.5, nan = NAN, half = 0.5;
    expect(edgegan_words(0, UINT64_MAX, 2, 1, 0, &word, 2) == EDGEGAN_ERROR_ARGUMENT, "past 2^64");
    expect(edgegan_words(0, 0, 1, 0, 0, &word, 0) == EDGEGAN_ERROR_ARGUMENT, "dim 0");
    expect(edgegan_words(0, 0, 1, 2, 0, &word, 1) == EDGEGAN_ERROR_BUFFER, "a small buffer");
    expect(edgegan_words(0, 0, UINT64_MAX / 4, 8, 0, &word, 1) == EDGEGAN_ERROR_OVERFLOW, "n * dim of 2^65");
    expect(edgegan_normal(0, 0, 1, 1, 0, NAN, &normal, 1) == EDGEGAN_ERROR_ARGUMENT, "truncation NaN");
    expect(edgegan_normal(0, 0, 1, 1, 0, 0, &normal, 1) == EDGEGAN_ERROR_ARGUMENT, "truncation 0");
    expect(edgegan_labels(0, 0, 1, 0, &label, 1) == EDGEGAN_ERROR_ARGUMENT, "no class");
    expect(edgegan_derive_seed(0, 1u << 31, &seed) == EDGEGAN_ERROR_ARGUMENT, "purpose");
    expect(edgegan_lerp(pair, pair, 1, &outside, 1, &normal, 1) == EDGEGAN_ERROR_ARGUMENT, "t of 1.5");
    expect(edgegan_slerp(pair, pair, 1, &nan, 1, &normal, 1) == EDGEGAN_ERROR_ARGUMENT, "t NaN");
    expect(edgegan_slerp(pair, pair, 2, &half, 1, &normal, 1) == EDGEGAN_ERROR_BUFFER, "a small buffer for slerp");
    expect(edgegan_lerp(pair, pair, 0, &half, 1, &normal, 0) == EDGEGAN_ERROR_ARGUMENT, "a latent of no elements");
    expect(edgegan_lerp(pair, pair, SIZE_MAX, &half, 1, &normal, 1) == EDGEGAN_ERROR_OVERFLOW, "dim of 2^64 - 1");
    expect(edgegan_normal(0, 0, 1, 2, 0, INFINITY, &normal, 1) == EDGEGAN_ERROR_BUFFER, "a small buffer of normals");
    expect(edgegan_labels(0, 0, 2, 3, &label, 1) == EDGEGAN_ERROR_BUFFER, "a small buffer of labels");
    expect(word == 5 && normal == 5 && label == 5 && seed == 5, "an error leaves its outputs");

    const edgegan_strides none = {0, 0, 0, 0};
    static const edgegan_shape beyond[] = {
        {1u << 30, 2, 1, 1}, {65536, 1, 65536, 1}, {65536, 65536, 65536, 65536}, {SIZE_MAX, SIZE_MAX, 1, 1},
        {1, 1, SIZE_MAX, 2}, {SIZE_MAX / 2 + 1, 2, 1, 1},
    };
    for (size_t i = 0; i < sizeof beyond / sizeof *beyond; i++) {
        expect(edgegan_to_uint8(beyond[i], NULL, none, NULL, none, 1) == EDGEGAN_ERROR_OVERFLOW, "to_uint8 beyond");
        expect(edgegan_to_float(beyond[i], NULL, none, NULL, none) == EDGEGAN_ERROR_OVERFLOW, "to_float beyond");
        expect(edgegan_tile(1, 1, NULL, none, 0, 0, beyond[i], NULL, none) == EDGEGAN_ERROR_OVERFLOW, "a tile beyond");
        expect(edgegan_blend(beyond[i], NULL, none, NULL, NULL, none) == EDGEGAN_ERROR_OVERFLOW, "blending beyond");
    }
    const edgegan_shape empty = {SIZE_MAX, 0, SIZE_MAX, 3}, one = {1, 1, 1, 1};
    const edgegan_shape wide = {0, 1, 1, SIZE_MAX / 4 + 1};
    const edgegan_strides plain = {4, 4, 4, 4}, bytes = {1, 1, 1, 1};
    expect(edgegan_to_uint8(wide, NULL, plain, NULL, bytes, 1) == EDGEGAN_OK, "no image of a huge width");
    expect(edgegan_to_float(wide, NULL, bytes, NULL, plain) == EDGEGAN_OK, "no image of a huge width");
    expect(edgegan_to_uint8(empty, NULL, none, NULL, none, 1) == EDGEGAN_OK, "nothing to do");
    expect(edgegan_to_float(empty, NULL, none, NULL, none) == EDGEGAN_OK, "nothing to do");
    expect(edgegan_tile(1, 1, NULL, none, 0, 0, empty, NULL, none) == EDGEGAN_OK, "nothing to take");
    expect(edgegan_blend(empty, NULL, none, NULL, NULL, none) == EDGEGAN_OK, "nothing to blend");
    static const size_t sides[][2] = {{0, 1}, {1, 0}, {0x80000000u, 1}, {1, SIZE_MAX}};
    for (size_t i = 0; i < sizeof sides / sizeof *sides; i++)
        expect(edgegan_tile(sides[i][0], sides[i][1], NULL, none, 0, 0, one, NULL, none) == EDGEGAN_ERROR_ARGUMENT,
               "a picture of no size, or too large");
#if PTRDIFF_MAX > 0x7FFFFFFF
    const ptrdiff_t far = (ptrdiff_t)0x7FFFFFFF + 1;
    expect(edgegan_tile(1, 1, NULL, none, far, 0, one, NULL, none) == EDGEGAN_ERROR_ARGUMENT, "a row too far");
    expect(edgegan_tile(1, 1, NULL, none, 0, -far, one, NULL, none) == EDGEGAN_ERROR_ARGUMENT, "a column too far");
#endif
    expect(edgegan_to_uint8(one, NULL, none, NULL, none, 0) == EDGEGAN_ERROR_ARGUMENT, "zoom 0");
    expect(edgegan_to_uint8(one, NULL, none, NULL, none, 65535) == EDGEGAN_ERROR_OVERFLOW, "zoom 65535");

    for (int status = EDGEGAN_OK; status <= EDGEGAN_ERROR_ARITHMETIC; status++)
        expect(strcmp(edgegan_message((edgegan_status)status), "unknown status") != 0, "a message for each status");
    const edgegan_kernels *found[4];
    (void)edgegan_usable_kernels(found);
    expect(strcmp(edgegan_instruction_set(), found[0]->name) == 0, "the instruction set that is used");
}

int main(int argc, char **argv)
{
    const edgegan_kernels *found[4];
    const int count = edgegan_usable_kernels(found);
    if (argc < 2) {
        fprintf(stderr, "usage: core_test FOLDER-OF-VECTORS [all]\n");
        return 2;
    }
    printf("instruction sets:");
    for (int i = 0; i < count; i++)
        printf(" %s", found[i]->name);
    printf("\n");
    expect(edgegan_check() == EDGEGAN_OK, "edgegan_check");
    test_vectors(argv[1], "philox.txt", philox_line);
    test_vectors(argv[1], "noise.txt", noise_line);
    for (int i = 0; i < count; i++) {
        test_noise_kernels(found[i]);
        test_pixel_kernels(found[i]);
        if (argc > 2 && i + 1 < count)
            test_all_words(found[i]);
    }
    test_layouts();
    test_tiles();
    test_interpolation();
    test_png();
    test_texts();
    test_png_errors();
    test_errors();
    printf("digest: %016" PRIx64 "\n", digest);
    printf("%d passed, %d failed\n", passed, failed);
    return failed > 0;
}
