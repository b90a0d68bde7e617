/* What a status means, and whether this build may be trusted. */
#include "edgegan.h"

#include <string.h>

const char *edgegan_message(edgegan_status status)
{
    switch (status) {
    case EDGEGAN_OK:
        return "done";
    case EDGEGAN_ERROR_ARGUMENT:
        return "an argument is outside its range";
    case EDGEGAN_ERROR_OVERFLOW:
        return "the sizes multiply to more than one call can hold";
    case EDGEGAN_ERROR_BUFFER:
        return "a buffer's size is not that of the numbers asked for";
    case EDGEGAN_ERROR_TEXT:
        return "a keyword or text is not valid in a PNG file";
    case EDGEGAN_ERROR_ARITHMETIC:
        return "this build rounds in another way than the noise contract requires: compile with -ffp-contract=off";
    }
    return "unknown status";
}

edgegan_status edgegan_check(void)
{
    enum { COUNT = 1024 };
    uint32_t words[COUNT];
    float normals[COUNT];
    uint64_t digest = 0xCBF29CE484222325u; /* FNV-1a */
    if (edgegan_words(7, 0, 1, COUNT, EDGEGAN_STREAM_LATENT, words, COUNT) != EDGEGAN_OK)
        return EDGEGAN_ERROR_ARITHMETIC;
    edgegan_normal_from_words(words, normals, COUNT);
    memcpy(words, normals, sizeof words);
    for (int i = 0; i < COUNT; i++)
        digest = (digest ^ words[i]) * 0x100000001B3u;
    return digest == 0x4D25B48B1EC63248u ? EDGEGAN_OK : EDGEGAN_ERROR_ARITHMETIC;
}
