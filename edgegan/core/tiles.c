/* Tiles of a large picture: from its pixels to a network's floats, mirrored at its borders, and from what the network
 * made of one tile over into what it made of the next; edgegan.h has the exact rules. */
#include "edgegan.h"

#include <string.h>

#include "pixels.h"
#include "rounding.h"

/* Neighbouring positions along one dimension whose pixels are neighbours too: forwards, backwards, or all the same. */
typedef struct {
    size_t first, count; /* the first pixel, and how many positions */
    ptrdiff_t step;
} stretch;

/* The stretch that begins at `position`, of a picture of `size` pixels mirrored at its first and last one, over and
 * over: 0 1 2 3 2 1 0 1 2 ... */
static stretch stretch_at(int64_t position, size_t size)
{
    if (size == 1) {
        const stretch same = {0, SIZE_MAX, 0};
        return same;
    }
    const int64_t last = (int64_t)size - 1, period = 2 * last;
    const int64_t phase = (position % period + period) % period;
    const stretch forwards = {(size_t)phase, (size_t)(last - phase + 1), 1};
    const stretch backwards = {(size_t)(period - phase), (size_t)(period - phase), -1};
    return phase <= last ? forwards : backwards;
}

static int is_position(ptrdiff_t x)
{
    return x >= -EDGEGAN_MAX_ELEMENTS && x <= EDGEGAN_MAX_ELEMENTS;
}

edgegan_status edgegan_tile(size_t height, size_t width, const void *pixels, edgegan_strides from, ptrdiff_t y,
                            ptrdiff_t x, edgegan_shape shape, void *images, edgegan_strides to)
{
    size_t total;
    if (height < 1 || height > EDGEGAN_MAX_ELEMENTS || width < 1 || width > EDGEGAN_MAX_ELEMENTS || !is_position(y)
        || !is_position(x))
        return EDGEGAN_ERROR_ARGUMENT;
    if (!edgegan_has_room(shape, 1, &total))
        return EDGEGAN_ERROR_OVERFLOW;
    if (total == 0)
        return EDGEGAN_OK;
    for (size_t i = 0, high; i < shape.h; i += high) {
        const stretch rows = stretch_at((int64_t)y + (int64_t)i, height);
        high = rows.count < shape.h - i ? rows.count : shape.h - i;
        for (size_t j = 0, wide; j < shape.w; j += wide) {
            const stretch columns = stretch_at((int64_t)x + (int64_t)j, width);
            wide = columns.count < shape.w - j ? columns.count : shape.w - j;
            const edgegan_shape part = {shape.n, shape.c, high, wide};
            const edgegan_strides apart = {from.n, from.c, from.h * rows.step, from.w * columns.step};
            const ptrdiff_t source = (ptrdiff_t)rows.first * from.h + (ptrdiff_t)columns.first * from.w;
            const ptrdiff_t place = (ptrdiff_t)i * to.h + (ptrdiff_t)j * to.w;
            (void)edgegan_to_float(part, edgegan_at(pixels, source), apart, (uint8_t *)images + place, to);
        }
    }
    return EDGEGAN_OK;
}

static void blend(const uint8_t *before, ptrdiff_t from, float weight, uint8_t *image, ptrdiff_t to, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        float a, b;
        memcpy(&a, before + (ptrdiff_t)i * from, sizeof a);
        memcpy(&b, image + (ptrdiff_t)i * to, sizeof b);
        /* One operation a line: nothing to fuse or reorder. */
        b = b - a;
        b = b * weight;
        b = a + b;
        memcpy(image + (ptrdiff_t)i * to, &b, sizeof b);
    }
}

edgegan_status edgegan_blend(edgegan_shape shape, const void *before, edgegan_strides from, const float *weights,
                             void *images, edgegan_strides to)
{
    size_t total;
    if (!edgegan_has_room(shape, 1, &total))
        return EDGEGAN_ERROR_OVERFLOW;
    if (total == 0)
        return EDGEGAN_OK;
    for (size_t n = 0; n < shape.n; n++)
        for (size_t c = 0; c < shape.c; c++)
            for (size_t y = 0; y < shape.h; y++) {
                const ptrdiff_t source = (ptrdiff_t)n * from.n + (ptrdiff_t)c * from.c + (ptrdiff_t)y * from.h;
                const ptrdiff_t place = (ptrdiff_t)n * to.n + (ptrdiff_t)c * to.c + (ptrdiff_t)y * to.h;
                uint8_t *row = (uint8_t *)images + place;
                if (from.w == 4 && to.w == 4) /* said once more with constants, which compilers make vectors of */
                    blend(edgegan_at(before, source), 4, weights[y], row, 4, shape.w);
                else
                    blend(edgegan_at(before, source), from.w, weights[y], row, to.w, shape.w);
            }
    return EDGEGAN_OK;
}
