/* What a program around a generator does with edgegan's C core: latents in, pictures out.
 *
 *     cc -O3 -o sheet examples/sheet.c edgegan/core/[!_]*.c -lm && ./sheet 7 sheet.png
 *
 * There is no network here: four pictures of plain noise stand for what yours would draw from the latents. They go
 * straight into the tiles of one sheet, each pixel 4 x 4, and the sheet into a PNG file that names its seed.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../edgegan/core/edgegan.h"

enum { SIDE = 32, CHANNELS = 3, DIM = CHANNELS * SIDE * SIDE, ZOOM = 4, COLUMNS = 2, ROWS = 2, N = ROWS * COLUMNS };
enum { TILE = SIDE * ZOOM, GAP = 2, PITCH = TILE + GAP, WIDTH = COLUMNS * PITCH + GAP, HEIGHT = ROWS * PITCH + GAP };

static float latents[N * DIM];
static uint8_t sheet[HEIGHT][WIDTH][CHANNELS];

static void must(edgegan_status status)
{
    if (status == EDGEGAN_OK)
        return;
    fprintf(stderr, "sheet: %s\n", edgegan_message(status));
    exit(1);
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: sheet SEED FILE.png\n");
        return 2;
    }
    must(edgegan_check()); /* once in a program's life: was this compiled as the noise contract requires? */
    must(edgegan_normal(strtoull(argv[1], NULL, 10), 0, N, DIM, EDGEGAN_STREAM_LATENT, INFINITY, latents, N * DIM));

    const float *images = latents; /* [N, CHANNELS, SIDE, SIDE] in about [-1, 1]: yours come from the network */

    memset(sheet, 255, sizeof sheet);
    const edgegan_shape one = {1, CHANNELS, SIDE, SIDE};
    const edgegan_strides from = {0, 4 * SIDE * SIDE, 4 * SIDE, 4}, to = {0, 1, WIDTH * CHANNELS, CHANNELS};
    for (int i = 0; i < N; i++) {
        uint8_t *tile = sheet[GAP + i / COLUMNS * PITCH][GAP + i % COLUMNS * PITCH];
        must(edgegan_to_uint8(one, images + i * DIM, from, tile, to, ZOOM));
    }

    const edgegan_text seed = {"seed", argv[1]};
    size_t workspace_size, file_size, written;
    must(edgegan_png_sizes(WIDTH, HEIGHT, CHANNELS, &seed, 1, &workspace_size, &file_size));
    void *workspace = malloc(workspace_size), *file = malloc(file_size);
    FILE *out = fopen(argv[2], "wb");
    if (workspace == NULL || file == NULL || out == NULL) {
        fprintf(stderr, "sheet: no memory, or %s cannot be written\n", argv[2]);
        return 1;
    }
    must(edgegan_png(sheet, WIDTH * CHANNELS, WIDTH, HEIGHT, CHANNELS, &seed, 1, workspace, workspace_size, file,
                     file_size, &written));
    const int whole = fwrite(file, 1, written, out) == written;
    free(workspace);
    free(file);
    return fclose(out) == 0 && whole ? 0 : 1;
}
