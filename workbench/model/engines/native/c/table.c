/* The bf16 bits of value * 2^(scale - 127) for every scale and FP4 code: constants, so no rounding or flush-to-zero
 * mode of the program can touch them. */
#include "internal.h"

/* Codes 2 to 7 are 1.m * 2^(c/2 - 1), m the code's lowest bit: exponent field e, mantissa's upper bit at bit 6. */
#define EXPONENT(s, c) ((s) + ((c) >> 1) - 1)
#define MANTISSA(c) (((c) & 1) << 6)
#define NORMAL(s, c)                                                \
    (EXPONENT(s, c) > 254   ? 0x7F80 /* too large: inf */           \
     : EXPONENT(s, c) == 0 ? (0x80 | MANTISSA(c)) >> 1 /* subnormal: the leading one is explicit */ \
                            : (EXPONENT(s, c) << 7) | MANTISSA(c))
/* Code 1 is 0.5: 2^(s - 128), subnormal for s below 2. */
#define HALF(s) ((s) > 1 ? ((s) - 1) << 7 : (s) == 1 ? 0x40 : 0x20)
#define MAGNITUDE(s, c) ((s) == 255 ? 0x7FC0 : (c) == 0 ? 0 : (c) == 1 ? HALF(s) : NORMAL(s, c))

#define EIGHT(s, sign)                                                                                              \
    (sign) | MAGNITUDE(s, 0), (sign) | MAGNITUDE(s, 1), (sign) | MAGNITUDE(s, 2), (sign) | MAGNITUDE(s, 3),         \
        (sign) | MAGNITUDE(s, 4), (sign) | MAGNITUDE(s, 5), (sign) | MAGNITUDE(s, 6), (sign) | MAGNITUDE(s, 7)
#define ROW(s) {EIGHT(s, 0), EIGHT(s, 0x8000)},
#define ROWS_4(s) ROW(s) ROW((s) + 1) ROW((s) + 2) ROW((s) + 3)
#define ROWS_16(s) ROWS_4(s) ROWS_4((s) + 4) ROWS_4((s) + 8) ROWS_4((s) + 12)
#define ROWS_64(s) ROWS_16(s) ROWS_16((s) + 16) ROWS_16((s) + 32) ROWS_16((s) + 48)

const uint16_t wb_table[256][16] WB_ALIGNED64 = {ROWS_64(0) ROWS_64(64) ROWS_64(128) ROWS_64(192)};

/* The same, the low bytes of a scale's 16 values before their high bytes: as byte shuffles look them up. */
#define LOW(bits) ((bits) & 255)
#define HIGH(bits) ((bits) >> 8)
#define EIGHT_BYTES(s, sign, PART)                                                                              \
    PART((sign) | MAGNITUDE(s, 0)), PART((sign) | MAGNITUDE(s, 1)), PART((sign) | MAGNITUDE(s, 2)),             \
        PART((sign) | MAGNITUDE(s, 3)), PART((sign) | MAGNITUDE(s, 4)), PART((sign) | MAGNITUDE(s, 5)),         \
        PART((sign) | MAGNITUDE(s, 6)), PART((sign) | MAGNITUDE(s, 7))
#undef ROW
#define ROW(s)                                                                                               \
    {EIGHT_BYTES(s, 0, LOW), EIGHT_BYTES(s, 0x8000, LOW), EIGHT_BYTES(s, 0, HIGH), EIGHT_BYTES(s, 0x8000, HIGH)},

const uint8_t wb_byte_table[256][32] WB_ALIGNED64 = {ROWS_64(0) ROWS_64(64) ROWS_64(128) ROWS_64(192)};
