/* JSON, straight into the reply's buffer.
 *
 * The writer knows one thing: whether a comma is due. Whether brackets match is
 * the caller's affair, who wrote them two lines apart. A failure of the buffer
 * is sticky, so it is looked at once, at the end, by whoever owns the buffer.
 *
 * Every reply has to be valid JSON, whatever it was made of: text that is not
 * UTF-8 is replaced by json_escape(), and a number that JSON can't say becomes
 * null.
 *
 * json_members() leaves to jansson what is asked for now and then, the OpenAPI
 * document above all: a format shows its shape. All else stays with the writer:
 * four counts take it 0.15 us and jansson 0.98 (Zen 4), and jansson has no shortest
 * text for the numbers of META. */
#include "codec/write.h"

#include <assert.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json_escape.h"
#include "codec/floats.h"
#include "codec/number.h"

/* How many numbers are written between two looks at the buffer's room. */
#define RUN 64

void json_begin(struct json_writer *writer, struct buffer *out) {
  *writer = (struct json_writer){.out = out};
}

/* Before a value or a name. */
static void separate(struct json_writer *writer) {
  if (writer->comma) buffer_putc(writer->out, ',');
}

static void open_bracket(struct json_writer *writer, char bracket) {
  separate(writer);
  buffer_putc(writer->out, bracket);
  writer->comma = false;
}

static void close_bracket(struct json_writer *writer, char bracket) {
  buffer_putc(writer->out, bracket);
  writer->comma = true;
}

void json_open_object(struct json_writer *writer) {
  open_bracket(writer, '{');
}

void json_close_object(struct json_writer *writer) {
  close_bracket(writer, '}');
}

void json_open_array(struct json_writer *writer) {
  open_bracket(writer, '[');
}

void json_close_array(struct json_writer *writer) {
  close_bracket(writer, ']');
}

void json_chars(struct json_writer *writer, const char *text, size_t length) {
  separate(writer);
  buffer_putc(writer->out, '"');
  json_escape(writer->out, text, length);
  buffer_putc(writer->out, '"');
  writer->comma = true;
}

void json_text(struct json_writer *writer, const char *text) {
  json_chars(writer, text, strlen(text));
}

void json_name(struct json_writer *writer, const char *name) {
  json_text(writer, name);
  buffer_putc(writer->out, ':');
  writer->comma = false;
}

void json_raw(struct json_writer *writer, const char *json) {
  separate(writer);
  buffer_puts(writer->out, json);
  writer->comma = true;
}

static int append(const char *text, size_t length, void *out) {
  return buffer_append(out, text, length) ? 0 : -1;
}

void json_members(struct json_writer *writer, const char *format, ...) {
  json_error_t error;
  va_list arguments;
  va_start(arguments, format);
  json_t *object = json_vpack_ex(&error, 0, format, arguments);
  va_end(arguments);
  assert(object || json_error_code(&error) != json_error_invalid_format);
  separate(writer);
  if (json_dump_callback(object, append, writer->out, JSON_COMPACT | JSON_EMBED) != 0 &&
      writer->out->status == BUFFER_OK)
    writer->out->status = BUFFER_NO_MEMORY;
  json_decref(object);
  writer->comma = true;
}

void json_int64(struct json_writer *writer, int64_t value) {
  char text[24], *digit = text + sizeof text - 1;
  uint64_t left = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
  *digit = '\0';
  do
    *--digit = (char)('0' + left % 10);
  while ((left /= 10) > 0);
  if (value < 0) *--digit = '-';
  json_raw(writer, digit);
}

/* As JSON has it, whatever the locale: a point, and an exponent without '+' and
 * leading zeros. */
static void tidy(char *text) {
  char *to = text;
  for (const char *from = text; *from; from++) {
    *to++ = *from == ',' ? '.' : *from;
    if (*from != 'e') continue;
    if (from[1] == '-') *to++ = '-';
    from++;
    while (from[1] == '0')
      from++;
  }
  *to = '\0';
}

void json_double(struct json_writer *writer, double value) {
  if (!isfinite(value)) {
    json_raw(writer, "null");
    return;
  }
  char text[32];
  for (int digits = 15; digits <= 17; digits++) {
    snprintf(text, sizeof text, "%.*g", digits, value);
    if (strtod(text, NULL) == value) break;
  }
  tidy(text);
  json_raw(writer, text);
}

/* `value` at `text`, which has room for NUMBER_TEXT_MAX bytes. */
static inline size_t print_number(float value, char *text) {
  if (isfinite(value)) return number_print(value, text);
  memcpy(text, "null", 4);
  return 4;
}

void json_float(struct json_writer *writer, float value) {
  char text[NUMBER_TEXT_MAX];
  separate(writer);
  buffer_append(writer->out, text, print_number(value, text));
  writer->comma = true;
}

/* Up to RUN finite numbers. */
static void write_run(struct json_writer *writer, const float *values, size_t count) {
  separate(writer);
  char *start = buffer_reserve(writer->out, count * (NUMBER_TEXT_MAX + 1));
  if (start) buffer_advance(writer->out, numbers_print(values, count, start) - 1);
  writer->comma = true;
}

/* Asking for room for the longest texts must not make a buffer fail that the
 * texts as they are would fit. */
static bool has_room(const struct buffer *out, size_t count) {
  return out->limit == 0 || (out->limit - out->length) / (NUMBER_TEXT_MAX + 1) >= count;
}

void json_floats(struct json_writer *writer, const float *values, size_t count) {
  json_open_array(writer);
  for (size_t i = 0; i < count;) {
    const size_t run = count - i < RUN ? count - i : RUN;
    /* one more for the comma before them */
    if (has_room(writer->out, run + 1) && floats_find_not_finite(values + i, run) == run) {
      write_run(writer, values + i, run);
      i += run;
    } else {
      json_float(writer, values[i++]);
    }
  }
  json_close_array(writer);
}

void json_matrix(struct json_writer *writer, const float *values, size_t rows, size_t cols) {
  json_open_array(writer);
  for (size_t row = 0; row < rows; row++)
    json_floats(writer, values + row * cols, cols);
  json_close_array(writer);
}
