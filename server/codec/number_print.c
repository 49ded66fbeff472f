/* The shortest text of a float32: Giulietti's Schubfach method ("The Schubfach
 * way to render doubles", 2020) with tables for 24 bits.
 *
 * A float v = c * 2^q is what every real number between the midpoints to its
 * neighbours reads back as (the midpoints belong to it where c is even). With k
 * the largest integer such that 10^k is no wider than that interval, one or
 * more multiples of 10^k lie inside, and at most one multiple of 10^(k+1). So
 * the shortest decimal is that one, or else the multiple of 10^k nearest to v:
 * two candidates each, no search and no loop.
 *
 * The interval is compared with the candidates in units of 10^k / 4, as
 * integers that carry in their last bit whether something was cut off. That
 * this decides every comparison rightly is not argued here but shown, over all
 * 2^32 floats, by tests/exhaustive/number_text.c.
 *
 * The digits found, the text is the shortest that JSON allows: 0.1 but 1e-3,
 * 1.2345678e-4 but 15e-8. Ties go to what is read most easily: plain digits, then
 * one digit before the point, then none behind it.
 *
 * Numbers come by the thousand, so the digits are found for LANES of them at
 * once: loops without a jump over plain arrays, which compilers turn into
 * vector code, once per instruction set. That is three times as fast as one by
 * one. Only where the characters go is decided number by number.
 *
 * printf("%.9g") was rejected: many times as slow, and it prints 0.1 as
 * 0.100000001; trying fewer digits first takes three times as long again. */
#include "codec/number.h"

#include <stdint.h>
#include <string.h>

#include "codec/number_powers.h"

#define LANES 16

/* What a loop over all lanes is made of. */
#define LANE_CODE static inline __attribute__((always_inline))

/* Of each number first.rest * 10^exponent: nine digits, the first one not 0
 * but where the number is. */
struct decimals {
  uint32_t first[LANES];
  uint32_t upper[LANES], lower[LANES]; /* four characters each, the first in the lowest byte */
  int32_t exponent[LANES];
};

/* A power of ten for each number, and how far to shift what it multiplies. */
struct powers {
  uint32_t high[LANES], low[LANES], shift[LANES];
};

/* The candidates are compared in units of 10^exponent / 4. floor(log10 2^q), or
 * floor(log10 (3/4 * 2^q)) for the narrower interval below a power of two; right
 * for every q a float can have. */
LANE_CODE void find_powers(const uint32_t *magnitudes, int count, int32_t *exponent,
                           struct powers *powers) {
  for (int i = 0; i < count; i++) {
    int biased = (int)(magnitudes[i] >> 23);
    int narrow = ((magnitudes[i] & 0x7fffff) == 0) & (biased > 1);
    int q = biased - 150 + (biased == 0);
    int k = (q * 1262611 - 524031 * narrow) >> 22;
    exponent[i] = k;
    powers->shift[i] = (uint32_t)(q + number_power_log2(-k) + 1);
  }
  for (int i = 0; i < count; i++) {
    uint64_t power = number_power(-exponent[i]) + 1; /* from below to above: see scale() */
    powers->high[i] = (uint32_t)(power >> 32);
    powers->low[i] = (uint32_t)power;
  }
}

/* power * quarters / 2^64; the last bit also says that the rest is more than
 * the table's own error, which is below one unit of power. */
LANE_CODE uint32_t scale(uint32_t high, uint32_t low, uint32_t quarters) {
  uint64_t product = (uint64_t)high * quarters + ((uint64_t)low * quarters >> 32);
  return (uint32_t)(product >> 32) | ((uint32_t)product > 1);
}

/* The digits; those of a multiple of 10 have one more in the exponent. Both pairs
 * of candidates are looked at and the choice is arithmetic. */
LANE_CODE void find_shortest(const uint32_t *magnitudes, int count, const struct powers *powers,
                             uint32_t *digits, int32_t *exponent) {
  for (int i = 0; i < count; i++) {
    uint32_t fraction = magnitudes[i] & 0x7fffff, biased = magnitudes[i] >> 23;
    uint32_t c = fraction | (uint32_t)(biased > 0) << 23;
    uint32_t odd = c & 1, narrow_below = (uint32_t)(fraction == 0) & (uint32_t)(biased > 1);
    uint32_t high = powers->high[i], low = powers->low[i], shift = powers->shift[i];
    uint32_t least = scale(high, low, (4 * c - 2 + narrow_below) << shift) + odd;
    uint32_t value = scale(high, low, (4 * c) << shift);
    uint32_t most = scale(high, low, (4 * c + 2) << shift) - odd;

    uint32_t unit = value / 4, ten = unit / 10;
    uint32_t ten_down = (uint32_t)(least <= 40 * ten) & (uint32_t)(ten > 0);
    uint32_t ten_up = 40 * ten + 40 <= most;
    uint32_t down = least <= 4 * unit, up = 4 * unit + 4 <= most;
    uint32_t nearer_up = value + (unit & 1) > 4 * unit + 2; /* halfway: to the even one */
    uint32_t alike = down == up;
    uint32_t by_unit = unit + ((up & ~alike) | (nearer_up & alike));
    uint32_t by_ten = ten + ten_up;
    uint32_t tens = ten_down ^ ten_up;
    digits[i] = by_unit ^ ((by_unit ^ by_ten) & -tens);
    exponent[i] += (int32_t)tens;
  }
}

/* n < 10^4 as four characters: split into two numbers of two digits, four of one,
 * each step on all parts at once. */
LANE_CODE uint32_t four_digits(uint32_t n) {
  uint32_t hundreds = n * 10486 >> 20;
  uint32_t twos = hundreds + ((n - 100 * hundreds) << 16);
  uint32_t tens = (twos * 103 >> 10) & 0x000f000f;
  return tens + ((twos - 10 * tens) << 8) + 0x30303030;
}

/* Moves the digits up to be nine and takes them apart; the exponent becomes that
 * of the first one. */
LANE_CODE void spread(const uint32_t *digits, int count, struct decimals *decimals) {
  for (int i = 0; i < count; i++) {
    uint32_t n = digits[i], some = n > 0, little;
    int32_t missing = 0;
    little = n < 100000;
    n *= 1 + 9999 * little;
    missing += 4 * (int32_t)little;
    little = n < 10000000;
    n *= 1 + 99 * little;
    missing += 2 * (int32_t)little;
    little = n < 10000000;
    n *= 1 + 99 * little;
    missing += 2 * (int32_t)little;
    little = n < 100000000;
    n *= 1 + 9 * little;
    missing += (int32_t)little;
    uint32_t first = n / 100000000, rest = n - 100000000 * first, upper = rest / 10000;
    decimals->first[i] = first;
    decimals->upper[i] = four_digits(upper);
    decimals->lower[i] = four_digits(rest - 10000 * upper);
    decimals->exponent[i] = (decimals->exponent[i] + 8 - missing) & -(int32_t)some;
  }
}

/* Of the bits of finite floats without their signs. */
LANE_CODE void find_decimals(const uint32_t *magnitudes, int count, struct decimals *decimals) {
  struct powers powers;
  uint32_t digits[LANES];
  find_powers(magnitudes, count, decimals->exponent, &powers);
  find_shortest(magnitudes, count, &powers, digits, decimals->exponent);
  spread(digits, count, decimals);
}

static void find_any(const uint32_t *magnitudes, struct decimals *decimals) {
  find_decimals(magnitudes, LANES, decimals);
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) static void find_avx2(const uint32_t *magnitudes,
                                                      struct decimals *decimals) {
  find_decimals(magnitudes, LANES, decimals);
}
#endif

static void find_all(const uint32_t *magnitudes, struct decimals *decimals) {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2")) {
    find_avx2(magnitudes, decimals);
    return;
  }
#endif
  find_any(magnitudes, decimals);
}

/* ---- Text ---- */

#define ZEROS 0x3030303030303030u

/* One of them. */
struct decimal {
  char first;
  uint64_t rest;
  int count; /* of the digits up to the last that is not 0 */
  int exponent;
};

static struct decimal decimal_at(const struct decimals *decimals, size_t i) {
  uint64_t rest = decimals->upper[i] | (uint64_t)decimals->lower[i] << 32, values = rest ^ ZEROS;
  int zeros = values ? __builtin_clzll(values) / 8 : 8;
  return (struct decimal){(char)('0' + decimals->first[i]), rest, 9 - zeros, decimals->exponent[i]};
}

static void put_bytes(char *at, uint64_t bytes) {
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
  bytes = __builtin_bswap64(bytes);
#endif
  memcpy(at, &bytes, sizeof bytes);
}

/* The digits; returns their end. */
static char *put_digits(char *at, struct decimal decimal) {
  *at = decimal.first;
  put_bytes(at + 1, decimal.rest);
  return at + decimal.count;
}

static char *put_exponent(char *at, int exponent) {
  *at++ = 'e';
  if (exponent < 0) {
    *at++ = '-';
    exponent = -exponent;
  }
  if (exponent >= 10) *at++ = (char)('0' + exponent / 10);
  *at++ = (char)('0' + exponent % 10);
  return at;
}

static int exponent_length(int exponent) {
  return 1 + (exponent < 0) + (exponent <= -10 || exponent >= 10 ? 2 : 1);
}

/* The first digit, a point, the others. */
static char *put_pointed(char *at, struct decimal decimal) {
  *at = decimal.first;
  at[1] = '.';
  put_bytes(at + 2, decimal.rest);
  return at + decimal.count + (decimal.count > 1);
}

/* Numbers that are not plain: at least one zero too much before or behind. */
__attribute__((noinline)) static char *put_rare(char *at, struct decimal decimal) {
  int scientific = decimal.exponent, whole = scientific - decimal.count + 1;
  int whole_length = exponent_length(whole);
  if (scientific == -3 && whole_length == 4) { /* 0.00123456789, and not 123456789e-11 */
    memcpy(at, "0.00", 4);
    return put_digits(at + 4, decimal);
  }
  if (whole >= 0 && whole <= 2) { /* 1234567890 */
    put_digits(at, decimal);
    memcpy(at + 9, "00", 2);
    return at + scientific + 1;
  }
  if (decimal.count == 1 || 1 + exponent_length(scientific) > whole_length)
    return put_exponent(put_digits(at, decimal), whole);
  return put_exponent(put_pointed(at, decimal), scientific);
}

/* Everything is written and nothing read back, at places that are computed and
 * not jumped to: whether a number is less than 1 changes from one to the next. */
static inline char *put_decimal(char *at, struct decimal decimal) {
  int exponent = decimal.exponent, count = decimal.count;
  bool plain = exponent >= -2 && exponent < 8 && exponent - count < 2;
  if (!plain) return put_rare(at, decimal);
  int less = (int)((uint32_t)exponent >> 31); /* than 1 */
  int below = -exponent & -less, whole = exponent & (less - 1);
  memcpy(at, "0.0", 4);
  char *digits = at + below + less;
  *digits = decimal.first;
  put_bytes(digits + 1, decimal.rest);
  at[whole + 1] = '.';
  put_bytes(at + whole + below + 2, decimal.rest >> 8 * whole);
  int more = count - whole - 1;
  return digits + whole + 1 + (more > 0 ? more + 1 - less : 0);
}

/* Written in any case: a jump on a sign would be foretold badly. */
static char *put_sign(char *at, uint32_t bits) {
  *at = '-';
  return at + (bits >> 31);
}

size_t number_print(float value, char *text) {
  struct decimals decimals;
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  const uint32_t magnitude = bits & 0x7fffffff;
  find_decimals(&magnitude, 1, &decimals);
  return (size_t)(put_decimal(put_sign(text, bits), decimal_at(&decimals, 0)) - text);
}

size_t numbers_print(const float *values, size_t count, char *text) {
  char *at = text;
  for (size_t done = 0; done < count; done += LANES) {
    const size_t lanes = count - done < LANES ? count - done : LANES;
    uint32_t bits[LANES] = {0}, magnitudes[LANES];
    struct decimals decimals;
    memcpy(bits, values + done, lanes * sizeof *bits);
    for (size_t i = 0; i < LANES; i++)
      magnitudes[i] = bits[i] & 0x7fffffff;
    find_all(magnitudes, &decimals);
    for (size_t i = 0; i < lanes; i++) {
      at = put_decimal(put_sign(at, bits[i]), decimal_at(&decimals, i));
      *at++ = ',';
    }
  }
  return (size_t)(at - text);
}
