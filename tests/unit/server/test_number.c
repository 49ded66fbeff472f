/* Numbers as text. tests/exhaustive/number_text.c has all floats and millions
 * of hard decimals; here are those that have a name, a sample of the rest, and
 * what that program can't see: the table of powers, faults, and that nothing is
 * read past the end. */
#include <math.h>

#include "codec/number.h"
#include "codec/number_powers.h"
#include "unit.h"

static float float_of(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

static uint32_t bits_of(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

/* ---- Printing ---- */

static void check_text(float value, const char *expected) {
  char text[NUMBER_TEXT_MAX + 1];
  size_t length = number_print(value, text);
  text[length] = '\0';
  ck_assert_str_eq(text, expected);
}

START_TEST(test_texts) {
  static const struct {
    float value;
    const char *text;
  } cases[] = {
      {0, "0"},
      {-0.0f, "-0"},
      {1, "1"},
      {-1, "-1"},
      {0.1f, "0.1"},
      {0.5f, "0.5"},
      {0.25f, "0.25"},
      {0.3f, "0.3"},
      {1.0f / 3, "0.33333334"},
      {10, "10"},
      {100, "100"},
      {1000, "1e3"},
      {1200, "1200"},
      {12000, "12e3"},
      {16777216, "16777216"},
      {33554432, "33554432"},
      {123456.7f, "123456.7"},
      {1e10f, "1e10"},
      {1.5e10f, "15e9"},
      {0.01f, "0.01"},
      {0.001f, "1e-3"},
      {0.0012f, "12e-4"},
      {0.01234f, "0.01234"},
      {0.001234f, "1234e-6"},
      {1.5e-7f, "15e-8"},
      {1.2345678e-4f, "1.2345678e-4"},
      {1.2345678e-20f, "12345678e-27"},
      {3.14159274f, "3.1415927"},
      {2.99792458e8f, "299792450"},
      {3.4028235e38f, "34028235e31"},
      {-3.4028235e38f, "-34028235e31"},
      {1.17549435e-38f, "11754944e-45"},
      {1.1754942e-38f, "11754942e-45"},
      {1e-45f, "1e-45"},
      {-1e-45f, "-1e-45"},
      {2.8e-45f, "3e-45"},
      {8388608.5f, "8388608"},
      {9.5367432e-7f, "9.536743e-7"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
    check_text(cases[i].value, cases[i].text);
}
END_TEST

/* 14 characters, the longest there is: a sign, 9 digits, e-dd. */
START_TEST(test_longest_text) {
  char text[NUMBER_TEXT_MAX + 1];
  size_t longest = 0;
  uint64_t state = 1;
  for (int i = 0; i < 2000000; i++) {
    size_t length =
        number_print(float_of((uint32_t)next_random(&state) % 0x7f800000u | 1u << 31), text);
    if (length > longest) longest = length;
  }
  ck_assert_uint_eq(longest, 14);
}
END_TEST

/* ---- Reading ---- */

static enum number_status scan(const char *text, size_t length, float *value, size_t *read) {
  /* In a block of its own, so that a sanitizer sees a look past the end. */
  char *copy = malloc(length ? length : 1);
  if (!copy) ck_abort_msg("out of memory");
  memcpy(copy, text, length);
  const char *at = copy;
  enum number_status status = number_scan(&at, copy + length, value);
  *read = (size_t)(at - copy);
  free(copy);
  return status;
}

static void check_reads_as_strtof(const char *text) {
  float value = 0, expected = strtof(text, NULL);
  size_t read, length = strlen(text);
  enum number_status status = scan(text, length, &value, &read);
  ck_assert_msg(read == length, "%.100s", text);
  if (isinf(expected)) {
    ck_assert_msg(status == NUMBER_TOO_LARGE, "%.100s", text);
  } else {
    ck_assert_msg(status == NUMBER_OK, "%.100s", text);
    ck_assert_msg(bits_of(value) == bits_of(expected), "%.100s: %a, not %a", text, (double)value,
                  (double)expected);
  }
}

START_TEST(test_decimals) {
  static const char *const texts[] = {
      "0", "-0", "0.0", "-0.0e-5", "0e999999999999999999999", "-0e-999999999999999999999", "1",
      "1e0", "1E+0", "1e-0", "1e0000000000000000000000000001", "123.456", "-123.456e7",
      /* halfway, to even: down, up; barely above and below */
      "16777217", "16777219", "16777217.0000000000000000000000000000001", "16777216.9999999999999",
      "8388608.5", "8388609.5", "4194304.25", "4194304.75", "1048576.0625", "1048576.1875",
      "8388608.50000000000000000000000000000000000000000000001",
      "8388608.49999999999999999999999999999999999999999999999",
      /* the same with more digits than are copied, and with zeros behind them */
      "8388608."
      "5000000000000000000000000000000000000000000000000000000000000000000000000000000000000"
      "00000000000000000000000000000000000000000000000000000000000000000000000000000001",
      "8388608."
      "5000000000000000000000000000000000000000000000000000000000000000000000000000000000000"
      "0000000000000000000000000000000000000000000000000000000000000000000000000000000100000",
      "8388608."
      "5000000000000000000000000000000000000000000000000000000000000000000000000000000000000"
      "00000000000000000000000000000000000000000000000000000000000000000000000000000000",
      "83886085000000000000000000000000000000000000000000000000000000000000000000000000000000000000"
      "0"
      "00000000000000000000000000000000000000000000000000000000000000000000000000000000e-161",
      /* the ends of the range */
      "3.4028234663852886e38", "3.4028235677973366e38",
      "3.40282356779733661637539395458142568447e38", "3.40282356779733661637539395458142568448e38",
      "340282346638528859811704183484516925440", "340282356779733661637539395458142568447",
      "340282356779733661637539395458142568448", "1e38", "1e39", "1e400", "1e-400", "1e308",
      "1e4294967296", "1e-4294967296", "1e99999999999999999999", "123e-99999999999999999999",
      "1.17549435e-38", "1.1754943508222875e-38", "1.1754942e-38", "1.1754942807573643e-38",
      "1.401298464324817e-45", "7.006492321624086e-46",
      "7.0064923216240853546186479164495806564013097093825788587853e-46",
      "7.0064923216240853546186479164495806564013097093825788587854e-46",
      "7.006492321624085354618647916449580656401309709382578858785341419448955413429303e-46",
      "1e-45", "1e-46", "2.1019476964872256e-45",
      "0.00000000000000000000000000000000000000000000140129846",
      /* what widened float32 looks like */
      "0.10000000149011612", "0.30000001192092896", "-0.3333333432674408", "1.0000000116860974e-07",
      "0.0010000000474974513", "16777216.0", "3.4028234663852886e+38",
      /* 19 digits fit, 20 do not; leading zeros and the point do not count */
      "9999999999999999999", "18446744073709551615", "18446744073709551616", "99999999999999999999",
      "0.0000000000000000001234567890123456789", "1234567890.1234567891",
      "12345678901234567890e-10", "0.00000000000000000000", "0.000000000000000000000000000000e38"};
  for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
    check_reads_as_strtof(texts[i]);
}
END_TEST

/* Zeros that an exponent makes up for, more than an int of digits' worth is not
 * needed to see whether counting is right. */
START_TEST(test_long_zeros) {
  enum { ZEROS = 100000 };
  char *text = malloc(ZEROS + 64);
  ck_assert_ptr_nonnull(text);
  memcpy(text, "0.", 2);
  memset(text + 2, '0', ZEROS);
  strcpy(text + 2 + ZEROS, "15e100001");
  check_reads_as_strtof(text);
  text[0] = '7';
  memset(text + 1, '0', ZEROS + 1);
  strcpy(text + 2 + ZEROS, "e-100001");
  check_reads_as_strtof(text);
  free(text);
}
END_TEST

START_TEST(test_faults) {
  static const struct {
    const char *text;
    size_t at;
  } cases[] = {{"", 0},          {"-", 1},    {"+1", 0},  {".5", 0},    {"-.5", 1},
               {"1.", 2},        {"1.e5", 2}, {"1e", 2},  {"1e+", 3},   {"1e-", 3},
               {"1.5e", 4},      {"x", 0},    {"--1", 1}, {"NaN", 0},   {"Infinity", 0},
               {"-Infinity", 1}, {"1.x", 2},  {"1ex", 2}, {"1e+-2", 3}, {"- 1", 1},
               {"\xd9\xa1", 0},  {"0.e1", 2}, {"-a", 1},  {"1.-5", 2}};
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    float value = 42;
    size_t read;
    ck_assert_int_eq(scan(cases[i].text, strlen(cases[i].text), &value, &read), NUMBER_MALFORMED);
    ck_assert_msg(read == cases[i].at, "%s: fault at %zu", cases[i].text, read);
    ck_assert(value == 42);
  }
}
END_TEST

/* Reads the longest number there is and leaves the rest. */
START_TEST(test_stops_behind_the_number) {
  static const struct {
    const char *text;
    size_t behind;
  } cases[] = {{"1,2", 1},        {"1.5]", 3},          {"01", 1},
               {"-01.5", 2},      {"1 2", 1},           {"1.5.5", 3},
               {"1e5e5", 3},      {"12a", 2},           {"0x10", 1},
               {"1e5.5", 3},      {"1-2", 1},           {"12345678,", 8},
               {"123456789]", 9}, {"0.12345678\n", 10}, {"0.1234567812345678}", 18},
               {"1:", 1},         {"12/", 2},           {"0.1\0012", 3}};
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    float value;
    size_t read;
    ck_assert_int_eq(scan(cases[i].text, strlen(cases[i].text), &value, &read), NUMBER_OK);
    ck_assert_msg(read == cases[i].behind, "%s: stopped at %zu", cases[i].text, read);
    ck_assert(bits_of(value) == bits_of(strtof(strndupa(cases[i].text, read), NULL)));
  }
}
END_TEST

/* Every byte value in each of the first places, where eight are taken at once:
 * only digits may be taken for digits. */
START_TEST(test_every_byte) {
  for (size_t place = 1; place < 18; place++)
    for (int byte = 0; byte < 256; byte++) {
      if ((byte >= '0' && byte <= '9') || byte == '.' || byte == 'e' || byte == 'E') continue;
      char text[] = "1234567891234567891";
      text[place] = (char)byte;
      float value;
      size_t read;
      ck_assert_int_eq(scan(text, strlen("1234567891234567891"), &value, &read), NUMBER_OK);
      ck_assert_uint_eq(read, place);
    }
}
END_TEST

/* ---- Both ---- */

/* Asserts once, if at all: Check notes every assertion that it passes. */
static void check_round_trip(uint32_t bits) {
  char text[NUMBER_TEXT_MAX + 1];
  size_t read, length = number_print(float_of(bits), text);
  text[length] = '\0';
  float value = 0;
  enum number_status status = scan(text, length, &value, &read);
  if (status != NUMBER_OK || read != length || bits_of(value) != bits)
    ck_abort_msg("%s read as 0x%08x, not 0x%08x", text, bits_of(value), bits);
  if (bits_of(strtof(text, NULL)) != bits) ck_abort_msg("%s for 0x%08x", text, bits);
}

START_TEST(test_round_trips) {
  for (uint64_t bits = 0; bits < 0x7f800000u; bits += 3331) {
    check_round_trip((uint32_t)bits);
    check_round_trip((uint32_t)bits | 1u << 31);
  }
}
END_TEST

/* Around every power of two, where the interval is not symmetric, and around
 * every power of ten. */
START_TEST(test_round_trips_at_edges) {
  for (uint32_t exponent = 0; exponent < 255; exponent++)
    for (int off = -50; off <= 50; off++) {
      int64_t bits = ((int64_t)exponent << 23) + off;
      if (bits >= 0) check_round_trip((uint32_t)bits);
    }
  for (int power = -45; power <= 38; power++)
    for (int off = -50; off <= 50; off++) {
      int64_t bits = (int64_t)bits_of((float)pow(10, power)) + off;
      if (bits >= 0 && bits < 0x7f800000) check_round_trip((uint32_t)bits);
    }
}
END_TEST

/* Many at a time, whatever stands beside what: each as it is alone. */
START_TEST(test_together) {
  enum { MOST = 70 };
  uint64_t state = 3;
  for (size_t count = 0; count <= MOST; count++) {
    float values[MOST] = {0};
    char text[MOST * (NUMBER_TEXT_MAX + 1)], expected[sizeof text], *end = expected;
    for (size_t i = 0; i < count; i++) {
      const uint32_t kind = (uint32_t)next_random(&state) % 4;
      uint32_t bits = (uint32_t)next_random(&state);
      if (kind == 0) bits &= 0x807fffff; /* subnormals */
      if (kind == 1) bits = (bits & 0x80ffffff) | 0x3f000000;
      values[i] = kind == 2 ? (float)(bits % 2001) - 1000 : float_of(bits);
      if (!isfinite(values[i])) values[i] = 0;
      end += number_print(values[i], end);
      *end++ = ',';
    }
    ck_assert_uint_eq(numbers_print(values, count, text), (size_t)(end - expected));
    ck_assert_int_eq(memcmp(text, expected, (size_t)(end - expected)), 0);
  }
}
END_TEST

/* No text of fewer digits, and of as many none that is nearer: what printf
 * gives where it reads back. */
START_TEST(test_fewest_digits) {
  uint64_t state = 2;
  for (int i = 0; i < 100000; i++) {
    float value = float_of((uint32_t)next_random(&state) % 0x7f800000u);
    char ours[NUMBER_TEXT_MAX + 1], theirs[32];
    ours[number_print(value, ours)] = '\0';
    int digits = 1;
    do
      snprintf(theirs, sizeof theirs, "%.*e", digits - 1, (double)value);
    while (strtof(theirs, NULL) != value && digits++ < 9);
    char normal[32];
    snprintf(normal, sizeof normal, "%.*e", digits - 1, strtod(ours, NULL));
    ck_assert_str_eq(normal, theirs);
    snprintf(normal, sizeof normal, "%.15e", strtod(ours, NULL));
    ck_assert_msg(strtod(normal, NULL) == strtod(theirs, NULL), "%s, %s", ours, theirs);
  }
}
END_TEST

/* ---- The table ---- */

/* A natural number in base 2^32, the lowest digit first. */
struct natural {
  uint32_t digits[16];
};

static void multiply_by_ten(struct natural *n) {
  uint64_t carry = 0;
  for (size_t i = 0; i < 16; i++) {
    carry += (uint64_t)n->digits[i] * 10;
    n->digits[i] = (uint32_t)carry;
    carry >>= 32;
  }
  ck_assert_uint_eq(carry, 0);
}

static int compare(const struct natural *a, const struct natural *b) {
  for (size_t i = 16; i-- > 0;)
    if (a->digits[i] != b->digits[i]) return a->digits[i] < b->digits[i] ? -1 : 1;
  return 0;
}

static void subtract(struct natural *a, const struct natural *b) {
  int64_t borrow = 0;
  for (size_t i = 0; i < 16; i++) {
    borrow += (int64_t)a->digits[i] - b->digits[i];
    a->digits[i] = (uint32_t)borrow;
    borrow >>= 32;
  }
}

static void twice(struct natural *n) {
  for (size_t i = 16; i-- > 0;)
    n->digits[i] = n->digits[i] << 1 | (i > 0 ? n->digits[i - 1] >> 31 : 0);
}

/* The first 64 binary digits of a / b, by long division; *log2 is the exponent
 * of the first one. */
static uint64_t divide(struct natural a, struct natural b, int *log2) {
  *log2 = 0;
  struct natural doubled = b;
  for (twice(&doubled); compare(&a, &doubled) >= 0; twice(&doubled)) {
    b = doubled;
    ++*log2;
  }
  for (; compare(&a, &b) < 0; twice(&a))
    --*log2;
  uint64_t quotient = 0;
  for (int i = 0; i < 64; i++, twice(&a)) {
    bool one = compare(&a, &b) >= 0;
    if (one) subtract(&a, &b);
    quotient = quotient << 1 | one;
  }
  return quotient;
}

START_TEST(test_powers) {
  const struct natural one = {{1}};
  struct natural power = one;
  for (int k = 0; k <= 65; k++) {
    int log2;
    if (k <= NUMBER_POWER_MOST) {
      ck_assert_uint_eq(divide(power, one, &log2), number_power(k));
      ck_assert_int_eq(log2, number_power_log2(k));
    }
    if (-k >= NUMBER_POWER_LEAST) {
      ck_assert_uint_eq(divide(one, power, &log2), number_power(-k));
      ck_assert_int_eq(log2, number_power_log2(-k));
    }
    multiply_by_ten(&power);
  }
}
END_TEST

UNIT_MAIN("number", test_texts, test_longest_text, test_decimals, test_long_zeros, test_faults,
          test_stops_behind_the_number, test_every_byte, test_round_trips,
          test_round_trips_at_edges, test_together, test_fewest_digits, test_powers)
