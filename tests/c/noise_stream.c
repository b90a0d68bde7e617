/* The words of the noise contract as a raw stream of 32-bit words on stdout, for test suites of random numbers.
 *
 *     noise_stream images [MEBIBYTES]     seed 7, the latents' stream, rows of 512 words: image after image
 *     noise_stream seeds [MEBIBYTES]      the first 4 words of image 0 of seed 0, 1, 2, ...: seed after seed
 *
 * Without a size it ends when its reader does. The first is what a long run of samples draws from. The second would
 * show neighbouring seeds that resemble each other, which users type and which no test within one seed can see.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../edgegan/core/edgegan.h"

enum { IMAGES = 512, DIM = 512, COUNT = IMAGES * DIM, SEED_WORDS = 4 }; /* COUNT words are 1 MiB */

static uint32_t words[COUNT];

static edgegan_status next_images(uint64_t piece)
{
    return edgegan_words(7, piece * IMAGES, IMAGES, DIM, EDGEGAN_STREAM_LATENT, words, COUNT);
}

static edgegan_status next_seeds(uint64_t piece)
{
    edgegan_status status = EDGEGAN_OK;
    for (uint64_t i = 0; i < COUNT / SEED_WORDS && status == EDGEGAN_OK; i++)
        status = edgegan_words(piece * (COUNT / SEED_WORDS) + i, 0, 1, SEED_WORDS, EDGEGAN_STREAM_LATENT,
                               words + i * SEED_WORDS, SEED_WORDS);
    return status;
}

int main(int argc, char **argv)
{
    const int images = argc > 1 && strcmp(argv[1], "images") == 0;
    if (argc < 2 || (!images && strcmp(argv[1], "seeds") != 0)) {
        fprintf(stderr, "usage: noise_stream images|seeds [MEBIBYTES]\n");
        return 2;
    }
    const uint64_t pieces = argc > 2 ? strtoull(argv[2], NULL, 10) : UINT64_MAX;
    for (uint64_t piece = 0; piece < pieces; piece++) {
        if ((images ? next_images(piece) : next_seeds(piece)) != EDGEGAN_OK)
            return 1;
        if (fwrite(words, sizeof *words, COUNT, stdout) != COUNT)
            return 1;
    }
    return fflush(stdout) != 0;
}
