/* Between a network's float NCHW and the uint8 NHWC of files and screens; edgegan.h has the exact rules. */
#include "edgegan.h"

#include <string.h>

#include "kernels.h"
#include "pixels.h"

enum { PIECE = 256 }; /* pixels that pass through buffers at once where a row is not laid out as kernels want it */

/* Whether kernels can read or write the rows of one image as they are: floats of a channel side by side, pixels too. */
static int is_plain(edgegan_shape shape, edgegan_strides floats, edgegan_strides bytes)
{
    return (shape.c == 1 || shape.c == 3 || shape.c == 4) && floats.w == 4 && (bytes.c == 1 || shape.c == 1)
        && bytes.w == (ptrdiff_t)shape.c;
}

/* Rows that follow each other without a gap are one long row; so are grey images. */
static edgegan_shape joined(edgegan_shape shape, edgegan_strides floats, edgegan_strides bytes)
{
    const ptrdiff_t w = (ptrdiff_t)shape.w, c = (ptrdiff_t)shape.c;
    if (floats.h == 4 * w && bytes.h == c * w) {
        shape.w *= shape.h;
        shape.h = 1;
        if (c == 1 && floats.n == 4 * (ptrdiff_t)shape.w && bytes.n == (ptrdiff_t)shape.w) {
            shape.w *= shape.n;
            shape.n = 1;
        }
    }
    return shape;
}

static void plain_to_uint8(const edgegan_kernels *kernels, edgegan_shape shape, const uint8_t *image,
                           edgegan_strides from, uint8_t *pixels, edgegan_strides to)
{
    for (size_t y = 0; y < shape.h; y++) {
        const uint8_t *planes[4];
        for (size_t k = 0; k < shape.c; k++)
            planes[k] = edgegan_at(image, (ptrdiff_t)y * from.h + (ptrdiff_t)k * from.c);
        kernels->to_uint8(planes, shape.c, shape.w, pixels + (ptrdiff_t)y * to.h);
    }
}

static void strided_to_uint8(const edgegan_kernels *kernels, edgegan_shape shape, const uint8_t *image,
                             edgegan_strides from, uint8_t *pixels, edgegan_strides to)
{
    uint8_t floats[4 * PIECE], bytes[PIECE];
    const uint8_t *const plane[1] = {floats};
    for (size_t k = 0; k < shape.c; k++)
        for (size_t y = 0; y < shape.h; y++)
            for (size_t x = 0; x < shape.w; x += PIECE) {
                const size_t count = shape.w - x < PIECE ? shape.w - x : PIECE;
                const ptrdiff_t first = (ptrdiff_t)k * from.c + (ptrdiff_t)y * from.h + (ptrdiff_t)x * from.w;
                for (size_t i = 0; i < count; i++)
                    memcpy(floats + 4 * i, edgegan_at(image, first + (ptrdiff_t)i * from.w), 4);
                kernels->to_uint8(plane, 1, count, bytes);
                const ptrdiff_t place = (ptrdiff_t)k * to.c + (ptrdiff_t)y * to.h + (ptrdiff_t)x * to.w;
                for (size_t i = 0; i < count; i++)
                    pixels[place + (ptrdiff_t)i * to.w] = bytes[i];
            }
}

/* Pixels stand at every zoom-th place of every zoom-th row: fill the places between. */
static void spread(edgegan_shape shape, uint8_t *pixels, edgegan_strides to, size_t zoom)
{
    for (size_t y = 0; y < shape.h; y++) {
        uint8_t *row = pixels + (ptrdiff_t)(y * zoom) * to.h;
        for (size_t x = 0; x < shape.w * zoom; x++)
            for (size_t k = 0; k < shape.c; k++) {
                const uint8_t value = row[(ptrdiff_t)(x - x % zoom) * to.w + (ptrdiff_t)k * to.c];
                for (size_t down = x % zoom == 0; down < zoom; down++)
                    row[(ptrdiff_t)down * to.h + (ptrdiff_t)x * to.w + (ptrdiff_t)k * to.c] = value;
            }
    }
}

edgegan_status edgegan_to_uint8(edgegan_shape shape, const void *images, edgegan_strides from, void *pixels,
                                edgegan_strides to, size_t zoom)
{
    size_t total;
    if (zoom < 1 || zoom > 65535)
        return EDGEGAN_ERROR_ARGUMENT;
    if (!edgegan_has_room(shape, zoom, &total))
        return EDGEGAN_ERROR_OVERFLOW;
    if (total == 0)
        return EDGEGAN_OK;
    const ptrdiff_t apart = (ptrdiff_t)zoom;
    const edgegan_strides places = {to.n, to.c, to.h * apart, to.w * apart};
    const edgegan_kernels *kernels = edgegan_best_kernels();
    const int plain = is_plain(shape, from, places);
    if (plain && zoom == 1)
        shape = joined(shape, from, to);
    for (size_t i = 0; i < shape.n; i++) {
        const uint8_t *image = edgegan_at(images, (ptrdiff_t)i * from.n);
        uint8_t *picture = (uint8_t *)pixels + (ptrdiff_t)i * to.n;
        if (plain)
            plain_to_uint8(kernels, shape, image, from, picture, places);
        else
            strided_to_uint8(kernels, shape, image, from, picture, places);
        if (zoom > 1)
            spread(shape, picture, to, zoom);
    }
    return EDGEGAN_OK;
}

static void plain_to_float(const edgegan_kernels *kernels, edgegan_shape shape, const uint8_t *pixels,
                           edgegan_strides from, uint8_t *image, edgegan_strides to)
{
    for (size_t y = 0; y < shape.h; y++) {
        uint8_t *planes[4];
        for (size_t k = 0; k < shape.c; k++)
            planes[k] = image + ((ptrdiff_t)y * to.h + (ptrdiff_t)k * to.c);
        kernels->to_float(pixels + (ptrdiff_t)y * from.h, shape.c, shape.w, planes);
    }
}

static void strided_to_float(const edgegan_kernels *kernels, edgegan_shape shape, const uint8_t *pixels,
                             edgegan_strides from, uint8_t *image, edgegan_strides to)
{
    uint8_t floats[4 * PIECE], bytes[PIECE];
    uint8_t *const plane[1] = {floats};
    for (size_t k = 0; k < shape.c; k++)
        for (size_t y = 0; y < shape.h; y++)
            for (size_t x = 0; x < shape.w; x += PIECE) {
                const size_t count = shape.w - x < PIECE ? shape.w - x : PIECE;
                const ptrdiff_t first = (ptrdiff_t)k * from.c + (ptrdiff_t)y * from.h + (ptrdiff_t)x * from.w;
                for (size_t i = 0; i < count; i++)
                    bytes[i] = *edgegan_at(pixels, first + (ptrdiff_t)i * from.w);
                kernels->to_float(bytes, 1, count, plane);
                const ptrdiff_t place = (ptrdiff_t)k * to.c + (ptrdiff_t)y * to.h + (ptrdiff_t)x * to.w;
                for (size_t i = 0; i < count; i++)
                    memcpy(image + (place + (ptrdiff_t)i * to.w), floats + 4 * i, 4);
            }
}

edgegan_status edgegan_to_float(edgegan_shape shape, const void *pixels, edgegan_strides from, void *images,
                                edgegan_strides to)
{
    size_t total;
    if (!edgegan_has_room(shape, 1, &total))
        return EDGEGAN_ERROR_OVERFLOW;
    if (total == 0)
        return EDGEGAN_OK;
    const edgegan_kernels *kernels = edgegan_best_kernels();
    const int plain = is_plain(shape, to, from);
    if (plain)
        shape = joined(shape, to, from);
    for (size_t i = 0; i < shape.n; i++) {
        const uint8_t *picture = edgegan_at(pixels, (ptrdiff_t)i * from.n);
        uint8_t *image = (uint8_t *)images + (ptrdiff_t)i * to.n;
        if (plain)
            plain_to_float(kernels, shape, picture, from, image, to);
        else
            strided_to_float(kernels, shape, picture, from, image, to);
    }
    return EDGEGAN_OK;
}
