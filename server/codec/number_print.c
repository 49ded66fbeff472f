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
 * printf("%.9g") was rejected: six times as slow, and it prints 0.1 as
 * 0.100000001; trying fewer digits first takes three times as long again. */
#include "codec/number.h"

#include <stdint.h>
#include <string.h>

#include "codec/number_powers.h"

struct decimal {
  uint32_t digits; /* at most 9 of them, the last one not 0 */
  int exponent;    /* the value is digits * 10^exponent */
};

/* floor(log10 2^q), and floor(log10 (3/4 * 2^q)) for the narrower interval
 * below a power of two; right for every q a float can have. */
static int floor_log10(int q, bool three_quarters) {
  return (q * 1262611 - (three_quarters ? 524031 : 0)) >> 22;
}

/* power * quarters / 2^64; the last bit also says that the rest is more than
 * the table's own error, which is below one unit of power. */
static uint32_t scale(uint64_t power, uint32_t quarters) {
  unsigned __int128 product = (unsigned __int128)power * quarters;
  uint32_t rest = (uint32_t)(product >> 32);
  return (uint32_t)(product >> 64) | (rest > 1);
}

__attribute__((noinline)) static struct decimal without_zeros(uint32_t digits, int exponent) {
  while (digits % 10000 == 0) {
    digits /= 10000;
    exponent += 4;
  }
  if (digits % 100 == 0) {
    digits /= 100;
    exponent += 2;
  }
  if (digits % 10 == 0) {
    digits /= 10;
    exponent += 1;
  }
  return (struct decimal){digits, exponent};
}

/* `magnitude`: the bits of a finite float greater than 0. */
static struct decimal shortest(uint32_t magnitude) {
  uint32_t fraction = magnitude & 0x7fffff;
  int biased = (int)(magnitude >> 23);
  uint32_t c = biased ? fraction | 0x800000 : fraction;
  int q = (biased ? biased : 1) - 150;
  bool odd = c & 1;
  bool narrow_below = fraction == 0 && biased > 1;

  int k = floor_log10(q, narrow_below);
  int shift = q + number_power_log2(-k) + 1;
  uint64_t power = number_power(-k) + 1; /* from below to above: see scale() */
  uint32_t least = scale(power, (4 * c - 2 + narrow_below) << shift) + odd;
  uint32_t value = scale(power, (4 * c) << shift);
  uint32_t most = scale(power, (4 * c + 2) << shift) - odd;

  /* Both pairs of candidates are looked at and the choice is arithmetic: which
   * one it is changes from number to number, a jump would be foretold badly. */
  uint32_t unit = value / 4, ten = unit / 10;
  bool ten_down = (least <= 40 * ten) & (ten > 0);
  bool ten_up = 40 * ten + 40 <= most;
  bool down = least <= 4 * unit;
  bool up = 4 * unit + 4 <= most;
  bool nearer_up = value + (unit & 1) > 4 * unit + 2; /* halfway: to the even one */
  bool alike = down == up;
  uint32_t by_unit = unit + ((up & !alike) | (nearer_up & alike));
  uint32_t by_ten = ten + ten_up;
  uint32_t tens = ten_down != ten_up;
  uint32_t digits = by_unit ^ ((by_unit ^ by_ten) & -tens);
  k += (int)tens;
  return digits % 10 ? (struct decimal){digits, k} : without_zeros(digits, k);
}

static int count_digits(uint32_t n) {
  static const uint32_t powers[] = {0,      10,      100,      1000,      10000,
                                    100000, 1000000, 10000000, 100000000, 1000000000};
  int about = (32 - __builtin_clz(n)) * 1233 >> 12; /* the count, or one less */
  return about + (n >= powers[about]);
}

/* n < 10^8 as eight characters, the first one in the lowest byte: split into
 * two numbers of four digits, four of two, eight of one, each step on all
 * parts at once. */
static uint64_t eight_digits(uint32_t n) {
  uint64_t fours = n / 10000 + ((uint64_t)(n % 10000) << 32);
  uint64_t hundreds = ((fours * 10486) >> 20) & 0x0000007f0000007f;
  uint64_t twos = hundreds + ((fours - 100 * hundreds) << 16);
  uint64_t tens = ((twos * 103) >> 10) & 0x000f000f000f000f;
  return tens + ((twos - 10 * tens) << 8) + 0x3030303030303030;
}

static void put_bytes(char *at, uint64_t bytes) {
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
  bytes = __builtin_bswap64(bytes);
#endif
  memcpy(at, &bytes, sizeof bytes);
}

/* The `count` digits of n < 10^9; returns their end. Writes up to eight bytes
 * past the start in any case: NUMBER_TEXT_MAX has room for that wherever a
 * number's digits can start. */
static char *put_digits(char *at, uint32_t n, int count) {
  bool nine = count == 9;
  int dropped = nine ? 0 : 8 - count; /* leading zeros */
  *at = (char)('0' + n / 100000000);
  put_bytes(at + nine, eight_digits(n % 100000000) >> 8 * dropped);
  return at + count;
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

/* Makes room for a point before the last `behind` digits, at most 8. */
static char *put_point(char *end, int behind) {
  char *point = end - behind;
  memmove(point + 1, point, 8);
  *point = '.';
  return end + 1;
}

static int exponent_length(int exponent) {
  return 1 + (exponent < 0) + (exponent <= -10 || exponent >= 10 ? 2 : 1);
}

static char *put_decimal(char *at, struct decimal decimal) {
  int count = count_digits(decimal.digits);
  int exponent = decimal.exponent;
  int zeros = exponent >= 0 ? exponent : 0;                  /* behind the digits */
  int front = -exponent >= count ? 2 - exponent - count : 0; /* "0." and zeros */
  bool pointed = exponent < 0 && front == 0;
  int whole_length = exponent_length(exponent);
  if (front + zeros + pointed <= whole_length) {
    /* At most two zeros, or an exponent would be shorter. */
    memcpy(at, "0.00", 4);
    at = put_digits(at + front, decimal.digits, count);
    memcpy(at, "00", 2);
    /* To move the point behind the end where none is wanted, in place of this jump,
     * was measured: no gain. */
    return pointed ? put_point(at, -exponent) : at + zeros;
  }
  at = put_digits(at, decimal.digits, count);
  int scientific = exponent + count - 1;
  if (count == 1 || 1 + exponent_length(scientific) > whole_length)
    return put_exponent(at, exponent);
  return put_exponent(put_point(at, count - 1), scientific);
}

size_t number_print(float value, char *text) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  char *at = text;
  /* Written in any case: a jump on a sign would be foretold badly. */
  *at = '-';
  at += bits >> 31;
  uint32_t magnitude = bits & 0x7fffffff;
  if (magnitude == 0) {
    *at++ = '0';
    return (size_t)(at - text);
  }
  return (size_t)(put_decimal(at, shortest(magnitude)) - text);
}
