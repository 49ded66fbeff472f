/* Powers of ten for reading and printing float32: 10^k to 64 bits.
 *
 * number_power(k) is floor(10^k * 2^(63 - l)) where l = floor(log2 10^k): the
 * first 64 binary digits of 10^k, so that
 *
 *     power * 2^(l - 63) <= 10^k < (power + 1) * 2^(l - 63)
 *
 * and the left side is exact for k in 0..27, where 5^k fits 64 bits. */
#ifndef CODEC_NUMBER_POWERS_H
#define CODEC_NUMBER_POWERS_H

#include <stdint.h>

/* The range that float32 needs. Reading: 19 digits times 10^-66 are below half
 * of the smallest subnormal, 1 times 10^39 is beyond the largest float.
 * Printing: 10^-31 to 10^45. */
enum { NUMBER_POWER_LEAST = -65, NUMBER_POWER_MOST = 45, NUMBER_POWER_EXACT = 27 };

extern const uint64_t number_powers[NUMBER_POWER_MOST - NUMBER_POWER_LEAST + 1];

static inline uint64_t number_power(int k) {
  return number_powers[k - NUMBER_POWER_LEAST];
}

/* floor(log2 10^k): 217706 / 2^16 is close enough to log2 10 for |k| <= 350. */
static inline int number_power_log2(int k) {
  return (k * 217706) >> 16;
}

#endif
