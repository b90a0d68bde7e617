/* CRC-32 and Adler-32 (RFC 1950, section 8.2; PNG, third edition, annex D). */
#include "checksums.h"

/* What a nibble contributes to the CRC that many bits later. A CRC is linear: the entry for a nibble is the
 * exclusive or of those for its bits. Nibbles, not bytes, keep the table at 1 KiB: a small picture finds it
 * cold in the cache, and a large one spends its time elsewhere. */
#define NIBBLE(a, b, c, d)                                                                                  \
    {0, a, b, (a) ^ (b), c, (a) ^ (c), (b) ^ (c), (a) ^ (b) ^ (c), d, (a) ^ (d), (b) ^ (d),                 \
     (a) ^ (b) ^ (d), (c) ^ (d), (a) ^ (c) ^ (d), (b) ^ (c) ^ (d), (a) ^ (b) ^ (c) ^ (d)}

/* Row i is for bits 4 i .. 4 i + 3 of the next 8 bytes. */
static const uint32_t crc_table[16][16] = {
    NIBBLE(0xCCAA009Eu, 0x4225077Du, 0x844A0EFAu, 0xD3E51BB5u),
    NIBBLE(0x7CBB312Bu, 0xF9766256u, 0x299DC2EDu, 0x533B85DAu),
    NIBBLE(0xA6770BB4u, 0x979F1129u, 0xF44F2413u, 0x33EF4E67u),
    NIBBLE(0x67DE9CCEu, 0xCFBD399Cu, 0x440B7579u, 0x8816EAF2u),
    NIBBLE(0xCB5CD3A5u, 0x4DC8A10Bu, 0x9B914216u, 0xEC53826Du),
    NIBBLE(0x03D6029Bu, 0x07AC0536u, 0x0F580A6Cu, 0x1EB014D8u),
    NIBBLE(0x3D6029B0u, 0x7AC05360u, 0xF580A6C0u, 0x30704BC1u),
    NIBBLE(0x60E09782u, 0xC1C12F04u, 0x58F35849u, 0xB1E6B092u),
    NIBBLE(0xB8BC6765u, 0xAA09C88Bu, 0x8F629757u, 0xC5B428EFu),
    NIBBLE(0x5019579Fu, 0xA032AF3Eu, 0x9B14583Du, 0xED59B63Bu),
    NIBBLE(0x01C26A37u, 0x0384D46Eu, 0x0709A8DCu, 0x0E1351B8u),
    NIBBLE(0x1C26A370u, 0x384D46E0u, 0x709A8DC0u, 0xE1351B80u),
    NIBBLE(0x191B3141u, 0x32366282u, 0x646CC504u, 0xC8D98A08u),
    NIBBLE(0x4AC21251u, 0x958424A2u, 0xF0794F05u, 0x3B83984Bu),
    NIBBLE(0x77073096u, 0xEE0E612Cu, 0x076DC419u, 0x0EDB8832u),
    NIBBLE(0x1DB71064u, 0x3B6E20C8u, 0x76DC4190u, 0xEDB88320u),
};

uint32_t edgegan_crc32(const uint8_t *data, size_t size)
{
    uint32_t crc = 0xFFFFFFFFu;
    for (; size >= 8; size -= 8, data += 8) {
        const uint32_t low = crc ^ ((uint32_t)data[0] | (uint32_t)data[1] << 8 | (uint32_t)data[2] << 16 |
                                    (uint32_t)data[3] << 24);
        crc = 0;
        for (int i = 0; i < 8; i++)
            crc ^= crc_table[i][low >> 4 * i & 15];
        for (int i = 0; i < 4; i++)
            crc ^= crc_table[8 + 2 * i][data[4 + i] & 15] ^ crc_table[9 + 2 * i][data[4 + i] >> 4];
    }
    for (; size > 0; size--, data++) {
        const uint32_t byte = (crc ^ *data) & 255;
        crc = crc >> 8 ^ crc_table[14][byte & 15] ^ crc_table[15][byte >> 4];
    }
    return ~crc;
}

enum {
    LANES = 16,
    GROUPS = 16, /* of LANES bytes in a block: the sums of sums, 255 * 16 * 17 / 2, still fit 16 bits */
    DEFER = 20   /* blocks without modulo: with them, second stays below 2^32 */
};

/* Adds a block to the two sums. Lanes have no dependence on each other, so that a compiler can vectorise. */
static void adler_block(const uint8_t *data, uint32_t *first, uint32_t *second)
{
    uint16_t sum[LANES] = {0}, sums[LANES] = {0};
    for (int group = 0; group < GROUPS; group++)
        for (int i = 0; i < LANES; i++) {
            sum[i] = (uint16_t)(sum[i] + data[group * LANES + i]);
            sums[i] = (uint16_t)(sums[i] + sum[i]);
        }
    uint32_t bytes = 0, weighted = 0;
    for (int i = 0; i < LANES; i++) {
        bytes += sum[i];
        weighted += LANES * (uint32_t)sums[i] - (uint32_t)i * sum[i];
    }
    *second += LANES * GROUPS * *first + weighted;
    *first += bytes;
}

uint32_t edgegan_adler32(uint32_t adler, const uint8_t *data, size_t size)
{
    enum { MODULUS = 65521, BLOCK = LANES * GROUPS };
    uint32_t first = adler & 0xFFFF, second = adler >> 16;
    while (size >= BLOCK) {
        size_t blocks = size / BLOCK < DEFER ? size / BLOCK : DEFER;
        size -= blocks * BLOCK;
        for (; blocks > 0; blocks--, data += BLOCK)
            adler_block(data, &first, &second);
        first %= MODULUS;
        second %= MODULUS;
    }
    for (; size > 0; size--, data++) {
        first += *data;
        second += first;
    }
    return second % MODULUS << 16 | first % MODULUS;
}
