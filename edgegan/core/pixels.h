/* What pixels.c and tiles.c share. Private to the core. */
#ifndef EDGEGAN_PIXELS_H
#define EDGEGAN_PIXELS_H

#include "edgegan.h"

static inline const uint8_t *edgegan_at(const void *base, ptrdiff_t offset)
{
    return (const uint8_t *)base + offset;
}

/* Whether the elements of shape, each zoom x zoom times, are few enough for one call; *total says how many. */
static inline int edgegan_has_room(edgegan_shape shape, size_t zoom, size_t *total)
{
    const size_t sizes[] = {shape.n, shape.c, shape.h, shape.w, zoom, zoom};
    *total = 1;
    for (int i = 0; i < 6; i++)
        if (sizes[i] == 0) {
            *total = 0;
            return 1;
        }
    for (int i = 0; i < 6; i++) {
        if (sizes[i] > EDGEGAN_MAX_ELEMENTS / *total)
            return 0;
        *total *= sizes[i];
    }
    return 1;
}

#endif
