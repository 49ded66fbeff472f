/* Any bytes as a number: number_scan() takes what the grammar takes, to the
 * same place, and reads what strtof() reads, bit by bit. And the first four
 * bytes as a float: what is printed reads back as it. */
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "codec/number.h"
#include "fuzz.h"

static uint32_t bits_of(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

/* The grammar of RFC 8259 as an automaton, from its state to the next by one
 * byte. A dead end leaves the byte unread. */
enum state { START, MINUS, ZERO, WHOLE, POINT, FRACTION, EXPONENT, SIGN, POWER, DEAD_END };

static enum state step(enum state state, char c) {
  bool digit = c >= '0' && c <= '9', e = c == 'e' || c == 'E';
  switch (state) {
  case START:
    if (c == '-') return MINUS;
    /* fall through */
  case MINUS:
    return c == '0' ? ZERO : digit ? WHOLE : DEAD_END;
  case WHOLE:
    if (digit) return WHOLE;
    /* fall through */
  case ZERO:
    return c == '.' ? POINT : e ? EXPONENT : DEAD_END;
  case POINT:
    return digit ? FRACTION : DEAD_END;
  case FRACTION:
    return digit ? FRACTION : e ? EXPONENT : DEAD_END;
  case EXPONENT:
    if (c == '+' || c == '-') return SIGN;
    /* fall through */
  case SIGN:
  case POWER:
    return digit ? POWER : DEAD_END;
  case DEAD_END:
    break;
  }
  return DEAD_END;
}

/* Whether a number is there, and how far it goes or where its fault is. */
static bool grammar(const char *text, size_t length, size_t *at) {
  enum state state = START;
  for (*at = 0; *at < length; ++*at) {
    enum state next = step(state, text[*at]);
    if (next == DEAD_END) break;
    state = next;
  }
  return state == ZERO || state == WHOLE || state == FRACTION || state == POWER;
}

static void check_scan(const char *text, size_t length) {
  const char *at = text;
  float value = 0;
  enum number_status status = number_scan(&at, text + length, &value);
  size_t expected_at;
  bool expected = grammar(text, length, &expected_at);
  REQUIRE((status != NUMBER_MALFORMED) == expected);
  REQUIRE((size_t)(at - text) == expected_at);
  if (!expected) return;
  char *number = strndup(text, expected_at);
  REQUIRE(number != NULL);
  float reference = strtof(number, NULL);
  free(number);
  REQUIRE((status == NUMBER_TOO_LARGE) == (isinf(reference) != 0));
  if (status == NUMBER_OK) REQUIRE(bits_of(value) == bits_of(reference));
}

static void check_print(float value) {
  char text[NUMBER_TEXT_MAX + 1];
  size_t length = number_print(value, text), at;
  REQUIRE(length <= 14);
  REQUIRE(grammar(text, length, &at) && at == length);
  text[length] = '\0';
  REQUIRE(bits_of(strtof(text, NULL)) == bits_of(value));
  const char *end = text;
  float again = 0;
  REQUIRE(number_scan(&end, text + length, &again) == NUMBER_OK);
  REQUIRE(end == text + length && bits_of(again) == bits_of(value));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  check_scan((const char *)data, size);
  float value;
  if (size < sizeof value) return 0;
  memcpy(&value, data, sizeof value);
  if (isfinite(value)) check_print(value);
  return 0;
}
