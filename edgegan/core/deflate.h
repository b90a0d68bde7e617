/* A zlib stream (RFC 1950) of deflate blocks (RFC 1951), made from bytes that the caller puts into a sliding
 * window. Not part of the public interface. */
#ifndef EDGEGAN_DEFLATE_H
#define EDGEGAN_DEFLATE_H

#include <stddef.h>
#include <stdint.h>

#include "bits.h"

enum {
    DEFLATE_LITERALS = 286, /* symbols of the literal and length alphabet */
    DEFLATE_DISTANCES = 30,
    DEFLATE_MAX_MATCH = 258,
    DEFLATE_SLACK = 8       /* bytes behind the end of the stream that may be overwritten */
};

/* So many literals, then a match; the last sequence of a block has no match, and length 0. */
typedef struct {
    uint32_t literals;
    uint16_t length, distance_minus_1;
} deflate_sequence;

typedef struct {
    uint64_t left;         /* bytes to come that are not yet in a block */
    uint8_t *window;       /* up to 32 KiB of history, then the segment that becomes the next block */
    size_t history, used;  /* bytes of history; bytes of history and segment */
    uint32_t *table;       /* where in the stream a hash of 8 bytes was last seen */
    unsigned table_bits;
    uint32_t origin;       /* the position in the stream of window[0], modulo 2^32 */
    uint32_t adler;
    deflate_sequence *sequences;
    bit_writer writer;
    uint32_t literal_counts[DEFLATE_LITERALS], distance_counts[DEFLATE_DISTANCES];
    uint32_t literal_codes[DEFLATE_LITERALS], distance_codes[DEFLATE_DISTANCES];
    uint8_t lengths[DEFLATE_LITERALS + DEFLATE_DISTANCES + 8];
    int is_priced;         /* a small segment has no prices: whatever match is found pays */
    uint8_t prices[256];   /* what a literal costs, estimated, in eighths of a bit */
} deflate_stream;

/* The bytes of workspace for a stream of `total` bytes, at most 2^33. It does not grow beyond 256 KiB. */
size_t edgegan_deflate_workspace(uint64_t total);

/* The bytes of the longest stream that `total` bytes can become. The writer may touch DEFLATE_SLACK bytes more. */
uint64_t edgegan_deflate_bound(uint64_t total);

/* Begins a stream of exactly `total` bytes, at least 1. The workspace is aligned for uint64_t. */
deflate_stream *edgegan_deflate_begin(void *workspace, uint64_t total, uint8_t *out);

/* Where the next bytes go, and how many may be put there before the next call: at least 1. */
uint8_t *edgegan_deflate_room(deflate_stream *stream, size_t *room);

/* `count` bytes, at most the room, have been put there. */
void edgegan_deflate_put(deflate_stream *stream, size_t count);

/* Writes `size` bytes, at `from` in the window, as the next block; s->sequences say how. */
void edgegan_deflate_block(deflate_stream *s, const uint8_t *from, size_t size, size_t sequences, int final);

/* The end of the stream, after all of the bytes. */
uint8_t *edgegan_deflate_end(deflate_stream *stream);

#endif
