/* Any bytes as text that goes into JSON: names, header values and paths come back in
 * problems and in the log. What must be true:
 *
 *  - utf8_valid() and jansson, which have nothing in common, agree;
 *  - what is escaped is a JSON string to jansson, and the same text, each byte that is
 *    in no valid character being in a U+FFFD;
 *  - step by step gives the same as at once;
 *  - text that is cut by utf8_whole() is valid if it was before, and loses at most
 *    three bytes. */
#include <jansson.h>
#include <stdbool.h>
#include <string.h>

#include "base/json_escape.h"
#include "base/utf8.h"
#include "fuzz.h"

static bool jansson_takes(const char *text, size_t length) {
  json_t *string = json_stringn(text, length);
  json_decref(string);
  return string != NULL;
}

/* The text with a U+FFFD in each place that jansson finds no character at. */
static void repair(struct buffer *out, const char *text, size_t length) {
  for (size_t at = 0; at < length;) {
    size_t step = 1;
    while (step <= 4 && (at + step > length || !jansson_takes(text + at, step)))
      step++;
    if (step <= 4) {
      buffer_append(out, text + at, step);
      at += step;
    } else {
      bool valid;
      step = utf8_step(text + at, length - at, &valid);
      REQUIRE(!valid && step >= 1 && step <= 3 && step <= length - at);
      buffer_puts(out, "\xEF\xBF\xBD");
      at += step;
    }
  }
}

static void check_string(const struct buffer *escaped, const struct buffer *wanted) {
  struct buffer quoted;
  buffer_init(&quoted, 0);
  buffer_putc(&quoted, '"');
  buffer_append(&quoted, escaped->data, escaped->length);
  buffer_putc(&quoted, '"');
  json_t *string = json_loadb(quoted.data, quoted.length, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
  REQUIRE(string && json_string_length(string) == wanted->length);
  REQUIRE(wanted->length == 0 ||
          memcmp(json_string_value(string), wanted->data, wanted->length) == 0);
  json_decref(string);
  buffer_free(&quoted);
}

static void check_steps(const char *text, size_t length, const struct buffer *escaped) {
  struct buffer steps;
  buffer_init(&steps, 0);
  for (size_t at = 0; at < length;) {
    char out[JSON_ESCAPE_MAX];
    size_t written;
    at += json_escape_step(text + at, length - at, out, &written);
    REQUIRE(at <= length && written >= 1 && written <= JSON_ESCAPE_MAX);
    buffer_append(&steps, out, written);
  }
  REQUIRE(steps.length == escaped->length);
  REQUIRE(steps.length == 0 || memcmp(steps.data, escaped->data, steps.length) == 0);
  buffer_free(&steps);
}

static void check_cuts(const char *text, size_t length) {
  for (size_t cut = 0; cut <= length && cut <= 64; cut++) {
    const size_t whole = utf8_whole(text, cut);
    REQUIRE(whole <= cut && cut - whole <= 3 && utf8_valid(text, whole));
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const char *text = (const char *)data;
  struct buffer escaped, wanted;
  buffer_init(&escaped, 0);
  buffer_init(&wanted, 0);
  const bool valid = utf8_valid(text, size);
  REQUIRE(valid == jansson_takes(text, size));
  REQUIRE(json_escape(&escaped, text, size));
  repair(&wanted, text, size);
  if (valid) REQUIRE(wanted.length == size);
  check_string(&escaped, &wanted);
  check_steps(text, size, &escaped);
  if (valid) check_cuts(text, size);
  buffer_free(&escaped);
  buffer_free(&wanted);
  return 0;
}
