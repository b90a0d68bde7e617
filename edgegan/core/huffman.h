/* Huffman codes of limited length, for the deflate encoder. Not part of the public interface. */
#ifndef EDGEGAN_HUFFMAN_H
#define EDGEGAN_HUFFMAN_H

#include <stdint.h>

enum { HUFFMAN_SYMBOLS = 286 }; /* the most symbols of an alphabet */

/* Makes a code for symbols that occur so often, below 2^17 times in all: lengths[i] is 0 for one that does not occur,
 * and codes[i] is for put_code. Decoders differ on codes of less than two symbols: there are two. Returns the bits that
 * all occurrences take. symbols <= HUFFMAN_SYMBOLS, limit <= 15. */
uint32_t edgegan_huffman(const uint32_t *occurrences, unsigned symbols, unsigned limit, uint8_t *lengths,
                         uint32_t *codes);

/* The bits of a code for put_code: deflate sends a code's first bit first. length <= 16. */
uint32_t edgegan_huffman_code(uint32_t code, unsigned length);

#endif
