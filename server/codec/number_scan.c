/* Reading a float32 from decimal text: the nearest one, ties to even.
 *
 * The first 19 significant digits become an integer w and the rest a power of
 * ten, so the number is w * 10^k, or between that and (w + 1) * 10^k where
 * digits were cut off. One multiplication of w with the first 64 bits of 10^k
 * encloses the number in an interval of a few units of the product's upper
 * word; float32 keeps 24 of those 64 bits. Unless the halfway point between two
 * floats lies in that interval, the answer is known, and it is exact: an
 * interval is a proof, where "accurate enough" would be a hope.
 *
 * What is left undecided (about one number in 2^38, and exact halfway points
 * with a negative k) goes to strtof(). It gets a copy without a point, which
 * makes it independent of the locale, and of at most 120 digits: a halfway
 * point has at most 113 significant digits, so of what follows it only matters
 * whether there is anything but zeros. That bounds the work on hostile text.
 *
 * Most numbers need not even that: where w and k are small, the product in double
 * is an interval as narrow, and converting it to float is one instruction.
 * Clinger's fast path, which asks for the product to be exact, was rejected: it
 * stops at 15 digits, while clients that widen float32 to float64 send 17.
 *
 * Also tried: reading 7 to 9 digits behind the point without a jump on how many,
 * from two words of eight. A tenth slower than the jumps that it saves. */
#include "codec/number.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codec/number_powers.h"

#define EXACT_DIGITS  19  /* that always fit 64 bits */
#define COPIED_DIGITS 120 /* that decide any comparison with a halfway point */

/* An exponent beyond this is beyond any text's power to make up for with
 * zeros: it stands for "more", so that long exponents can't overflow. */
#define EXPONENT_LIMIT ((int64_t)1 << 56)

#define MOST_POWER     38 /* 1 * 10^39 is too large */

/* In place of the bits of a float. */
#define INFINITE_BITS 0x7f800000u
#define UNDECIDED     0xffffffffu

/* Powers that double is near enough to: see quick_magnitude(). */
#define QUICK_POWER 22
static const double quick_powers[2 * QUICK_POWER + 1] = {
    1e-22, 1e-21, 1e-20, 1e-19, 1e-18, 1e-17, 1e-16, 1e-15, 1e-14, 1e-13, 1e-12, 1e-11,
    1e-10, 1e-9,  1e-8,  1e-7,  1e-6,  1e-5,  1e-4,  1e-3,  1e-2,  1e-1,  1e0,   1e1,
    1e2,   1e3,   1e4,   1e5,   1e6,   1e7,   1e8,   1e9,   1e10,  1e11,  1e12,  1e13,
    1e14,  1e15,  1e16,  1e17,  1e18,  1e19,  1e20,  1e21,  1e22};

static bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

/* The eight bytes at `at`, the first one lowest. */
static uint64_t load_eight(const char *at) {
  uint64_t bytes;
  memcpy(&bytes, at, sizeof bytes);
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
  bytes = __builtin_bswap64(bytes);
#endif
  return bytes;
}

/* Not 0 in the bytes that are no digits, up to the first of them: a byte is a digit
 * where its upper half is 3, and is 3 still when 6 is added. */
static uint64_t others(uint64_t bytes) {
  const uint64_t upper = 0xf0f0f0f0f0f0f0f0, threes = 0x3030303030303030;
  return ((bytes ^ threes) | ((bytes + 0x0606060606060606) ^ threes)) & upper;
}

/* The number that eight digits are: neighbours are joined to numbers of two
 * digits, of four, of eight. */
static uint32_t join_digits(uint64_t bytes) {
  bytes &= 0x0f0f0f0f0f0f0f0f;
  bytes = (bytes * 10 + (bytes >> 8)) & 0x00ff00ff00ff00ff;
  bytes = (bytes * 100 + (bytes >> 16)) & 0x0000ffff0000ffff;
  return (uint32_t)(bytes * 10000 + (bytes >> 32));
}

/* Appends a run of digits, modulo 2^64; returns its end. Fewer than eight are moved
 * up behind zeros and joined like eight. */
static inline const char *read_digits(const char *at, const char *end, uint64_t *digits) {
  static const uint32_t powers[] = {1, 10, 100, 1000, 10000, 100000, 1000000, 10000000};
  uint64_t sum = *digits;
  for (; end - at >= 8; at += 8) {
    const uint64_t bytes = load_eight(at), odd = others(bytes);
    if (odd) {
      const int count = __builtin_ctzll(odd) / 8;
      if (count > 0) sum = sum * powers[count] + join_digits(bytes << (64 - 8 * count));
      *digits = sum;
      return at + count;
    }
    sum = sum * 100000000 + join_digits(bytes);
  }
  for (; at < end && is_digit(*at); at++)
    sum = sum * 10 + (uint64_t)(*at - '0');
  *digits = sum;
  return at;
}

/* Moves *text from the 'e' to behind the exponent and returns NULL; else the
 * place where a digit should be. */
__attribute__((noinline)) static const char *read_exponent(const char **text, const char *end,
                                                           int64_t *exponent) {
  const char *at = *text + 1;
  bool negative = at < end && *at == '-';
  if (at < end && (*at == '-' || *at == '+')) at++;
  const char *first = at;
  int64_t sum = 0;
  for (; at < end && is_digit(*at); at++)
    if (sum < EXPONENT_LIMIT) sum = sum * 10 + (*at - '0');
  if (at == first) return at;
  *exponent = negative ? -sum : sum;
  *text = at;
  return NULL;
}

/* The bits of the float nearest to the number; INFINITE_BITS where that is too
 * large; UNDECIDED where 64 bits of the power do not tell. digits > 0, and
 * power is in the table. */
static inline uint32_t nearest(uint64_t digits, int power, bool cut) {
  int zeros = __builtin_clzll(digits);
  unsigned __int128 product = (unsigned __int128)(digits << zeros) * number_power(power);
  uint64_t high = (uint64_t)(product >> 64);
  int exponent = number_power_log2(power) + 1 - zeros; /* the number is about high * 2^exponent */

  int shift = 39 + (int)(high >> 63); /* to 24 bits, fewer where the float is subnormal */
  if (exponent + shift < -149) shift = -149 - exponent;
  if (shift > 64) return 0; /* below high + 2 <= 2^(shift-1) */
  if (shift == 64) return UNDECIDED;
  uint64_t half = (uint64_t)1 << (shift - 1);
  uint64_t rest = high & (2 * half - 1);
  uint32_t mantissa = (uint32_t)(high >> shift);
  uint32_t up = rest > half;
  /* The number is below high + 2: less than one unit for what the product has
   * below its upper word, less than one for the power's error. Digits that
   * were cut add one unit of w, shifted by at most 4 zeros: 16. */
  uint64_t slack = cut ? 17 : 1;
  if (half - rest <= slack) {
    if (cut || power < 0 || power > NUMBER_POWER_EXACT) return UNDECIDED;
    if (rest == half) up = (uint64_t)product != 0 || (mantissa & 1);
  }
  /* Added, not or'ed: a carry of the mantissa runs into the exponent. */
  int biased = exponent + shift + 149;
  return biased > 254 ? INFINITE_BITS : ((uint32_t)biased << 23) + mantissa + up;
}

static inline uint32_t magnitude(uint64_t digits, int64_t power, bool cut) {
  if (digits == 0 || power < NUMBER_POWER_LEAST) return 0;
  if (power > MOST_POWER) return INFINITE_BITS;
  return nearest(digits, (int)power, cut);
}

/* digits * 10^power in double; digits < 2^53, |power| <= QUICK_POWER, so that it is
 * neither too large nor subnormal as a float. The conversion of the digits is
 * exact, the power and the product are off by half a unit in their last place at
 * most each, so the number is within 2 units of the result. UNDECIDED where a
 * halfway point between two floats may be as near. */
static inline uint32_t quick_magnitude(uint64_t digits, int64_t power) {
  const double product = (double)(int64_t)digits * quick_powers[power + QUICK_POWER];
  uint64_t bits;
  memcpy(&bits, &product, sizeof bits);
  const uint32_t below_float = (uint32_t)bits & 0x1fffffff; /* 29 bits more than a float has */
  const float rounded = (float)product;
  uint32_t magnitude_bits;
  memcpy(&magnitude_bits, &rounded, sizeof magnitude_bits);
  return below_float - (0x10000000 - 4) > 8 ? magnitude_bits : UNDECIDED;
}

/* The same for any number of digits: `first` to `last` is the text without sign
 * and exponent, a point among it, `digits` its value modulo 2^64 and `power`
 * that of the last digit. */
__attribute__((noinline)) static uint32_t long_magnitude(const char *first, const char *last,
                                                         uint64_t digits, int64_t power) {
  while (first < last && (*first == '0' || *first == '.'))
    first++;
  int64_t count = last - first;
  if (count > EXACT_DIGITS && memchr(first, '.', (size_t)count)) count--;
  if (count <= EXACT_DIGITS) return magnitude(digits, power, false);
  digits = 0;
  for (int taken = 0; taken < EXACT_DIGITS; first++) {
    if (*first == '.') continue;
    digits = digits * 10 + (uint64_t)(*first - '0');
    taken++;
  }
  return magnitude(digits, power + count - EXACT_DIGITS, true);
}

__attribute__((noinline, cold)) static uint32_t
magnitude_by_library(const char *first, const char *last, int64_t power) {
  char copy[COPIED_DIGITS + 40];
  int length = 0;
  bool rest = false;
  for (const char *at = first; at < last; at++) {
    if (*at == '.' || (*at == '0' && length == 0)) continue;
    if (length < COPIED_DIGITS) {
      copy[length++] = *at;
    } else {
      rest = rest || *at != '0';
      power++;
    }
  }
  if (rest) {
    copy[length++] = '1';
    power--;
  }
  snprintf(copy + length, sizeof copy - (size_t)length, "e%lld", (long long)power);
  float value = strtof(copy, NULL);
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

static enum number_status malformed(const char **text, const char *fault) {
  *text = fault;
  return NUMBER_MALFORMED;
}

enum number_status number_scan(const char **text, const char *end, float *value) {
  const char *at = *text;
  bool negative = at < end && *at == '-';
  at += negative;
  const char *first = at;
  uint64_t digits = 0; /* modulo 2^64 */
  int64_t power = 0;
  /* One digit and a point, which may well be 0 or not: without a jump on that,
   * as tensors are full of both. */
  if (end - at >= 2 && at[1] == '.' && is_digit(*at))
    digits = (uint64_t)(*at++ - '0');
  else if (at < end && *at == '0')
    at++;
  else
    at = read_digits(at, end, &digits);
  if (at == first) return malformed(text, at);
  if (at < end && *at == '.') {
    const char *fraction = at + 1;
    at = read_digits(fraction, end, &digits);
    if (at == fraction) return malformed(text, at);
    power = fraction - at;
  }
  const char *last = at;
  if (at < end && (*at == 'e' || *at == 'E')) {
    int64_t exponent;
    const char *fault = read_exponent(&at, end, &exponent);
    if (fault) return malformed(text, fault);
    power += exponent;
  }
  *text = at;

  uint32_t bits = UNDECIDED;
  const bool whole = last - first <= EXACT_DIGITS;
  if (whole && digits >> 53 == 0 && power >= -QUICK_POWER && power <= QUICK_POWER)
    bits = quick_magnitude(digits, power);
  if (bits == UNDECIDED)
    bits = whole ? magnitude(digits, power, false) : long_magnitude(first, last, digits, power);
  if (bits == UNDECIDED) bits = magnitude_by_library(first, last, power);
  if (bits >= INFINITE_BITS) return NUMBER_TOO_LARGE;
  bits |= (uint32_t)negative << 31;
  memcpy(value, &bits, sizeof bits);
  return NUMBER_OK;
}
