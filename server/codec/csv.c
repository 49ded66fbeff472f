/* See csv.h. The file passes by line for line: what is kept is the line at hand
 * and the numbers that were asked for, so the size of the file does not matter
 * and that of a line has a limit.
 *
 * Reading numbers as liberally as spreadsheets do (1.000,5 or .5 or 1e3 as text)
 * was rejected: what is read here must be what would be read from JSON, or be a
 * fault. */
#include "codec/csv.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"
#include "base/utf8.h"
#include "codec/file.h"
#include "codec/number.h"

/* As many columns as a memory can have, at 32 bytes each. */
#define LINE_BYTES_MAX ((size_t)32 << 20)

/* A field as it stands in the line, with its quotes. */
struct field {
  const char *at;
  size_t length;
};

struct reader {
  const char *path;
  const struct csv_plan *plan;
  FILE *file;
  struct buffer line;
  size_t line_number;   /* from 1 */
  struct field *fields; /* of the line */
  size_t field_count, field_capacity;
  size_t first_count; /* fields of the first line; 0 before it */
  struct float_list keys, values;
  struct id_list *ids;
  size_t *lines; /* with ids: the line of each row, for faults that are found late */
  size_t line_capacity;
  size_t rows;
  char *error;
  size_t error_size;
};

/* ---- Faults ---- */

static bool fail(struct reader *reader, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static bool fail(struct reader *reader, const char *format, ...) {
  int length = snprintf(reader->error, reader->error_size, "%s: ", reader->path);
  if (length < 0 || (size_t)length >= reader->error_size) return false;
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(reader->error + length, reader->error_size - (size_t)length, format, arguments);
  va_end(arguments);
  return false;
}

/* What is wrong with a field, and the beginning of what it is. */
static bool fail_field(struct reader *reader, size_t column, const char *what) {
  const struct field *field = &reader->fields[column];
  size_t length = field->length <= 40 ? field->length : utf8_whole(field->at, 40);
  return fail(reader, "line %zu, column %zu (the first is 0): %s, got %.*s", reader->line_number,
              column, what, (int)length, field->at);
}

static bool fail_no_memory(struct reader *reader) {
  return fail(reader, "out of memory");
}

/* ---- Lines and fields ---- */

/* Twice the room; false where memory is short. */
static bool double_room(void **items, size_t *capacity, size_t size) {
  size_t larger = *capacity ? 2 * *capacity : 64;
  void *moved = realloc(*items, larger * size);
  if (!moved) return false;
  *items = moved;
  *capacity = larger;
  return true;
}

static bool push_field(struct reader *reader, const char *at, const char *end) {
  void *fields = reader->fields;
  bool room = reader->field_count < reader->field_capacity ||
              double_room(&fields, &reader->field_capacity, sizeof *reader->fields);
  reader->fields = fields;
  if (!room) return fail_no_memory(reader);
  reader->fields[reader->field_count++] = (struct field){at, (size_t)(end - at)};
  return true;
}

/* Behind the field that starts at `at`; NULL where its quotes are not closed, or
 * something stands behind them. */
static const char *field_end(const char *at, const char *end) {
  if (at == end || *at != '"') {
    const char *comma = memchr(at, ',', (size_t)(end - at));
    return comma ? comma : end;
  }
  for (at++; at < end; at++) {
    if (*at != '"') continue;
    if (end - at < 2 || at[1] != '"') break;
    at++;
  }
  if (at == end) return NULL;
  at++;
  return at == end || *at == ',' ? at : NULL;
}

static bool split(struct reader *reader) {
  const char *at = reader->line.data, *end = at + reader->line.length;
  reader->field_count = 0;
  for (;; at++) {
    const char *behind = field_end(at, end);
    if (!behind)
      return fail(reader, "line %zu, column %zu (the first is 0): quotes that do not match",
                  reader->line_number, reader->field_count);
    if (!push_field(reader, at, behind)) return false;
    at = behind;
    if (at == end) break;
  }
  if (reader->first_count == 0) reader->first_count = reader->field_count;
  if (reader->field_count == reader->first_count) return true;
  return fail(reader, "line %zu has %zu columns, the first line has %zu", reader->line_number,
              reader->field_count, reader->first_count);
}

/* The next line that is not empty, split. False at the end and on a fault. */
static bool next_line(struct reader *reader, bool *fault) {
  do {
    buffer_clear(&reader->line);
    if (!file_read_line(reader->file, reader->path, &reader->line, reader->error,
                        reader->error_size)) {
      *fault = reader->error[0] != '\0';
      return false;
    }
    if (reader->line_number++ == 0 && reader->line.length >= 3 &&
        memcmp(reader->line.data, "\xEF\xBB\xBF", 3) == 0) {
      /* The byte order mark that spreadsheets write is no part of the text. */
      reader->line.length -= 3;
      memmove(reader->line.data, reader->line.data + 3, reader->line.length);
    }
  } while (reader->line.length == 0);
  *fault = !split(reader);
  return !*fault;
}

/* ---- Fields ---- */

static bool is_space(char c) {
  return c == ' ' || c == '\t';
}

static bool field_number(const struct field *field, float *number) {
  const char *at = field->at, *end = at + field->length;
  if (at < end && *at == '"') {
    at++;
    end--;
  }
  while (at < end && is_space(*at))
    at++;
  while (at < end && is_space(end[-1]))
    end--;
  return number_scan(&at, end, number) == NUMBER_OK && at == end;
}

/* Copies the text without its quotes; false where it is longer than the room. */
static bool field_text(const struct field *field, char *text, size_t room, size_t *length) {
  const char *at = field->at, *end = at + field->length;
  bool quoted = at < end && *at == '"';
  if (quoted) {
    at++;
    end--;
  }
  for (*length = 0; at < end; at++) {
    if (*length == room) return false;
    text[(*length)++] = *at;
    if (quoted && *at == '"') at++;
  }
  return true;
}

static bool push_number(struct reader *reader, struct float_list *list, float number) {
  if (list->count == list->capacity && !float_list_grow(list, SIZE_MAX))
    return fail_no_memory(reader);
  list->data[list->count++] = number;
  return true;
}

static bool push_one_hot(struct reader *reader, const struct csv_columns *columns,
                         struct float_list *list, float number) {
  if (number < 0 || number >= (float)columns->one_hot || number != floorf(number)) {
    char what[80];
    snprintf(what, sizeof what, "expected a whole number from 0 to %zu", columns->one_hot - 1);
    return fail_field(reader, columns->first, what);
  }
  for (size_t i = 0; i < columns->one_hot; i++)
    if (!push_number(reader, list, i == (size_t)number ? 1 : 0)) return false;
  return true;
}

static bool push_columns(struct reader *reader, const struct csv_columns *columns,
                         struct float_list *list) {
  for (size_t column = columns->first; column < columns->end; column++) {
    if (column >= reader->field_count)
      return fail(reader, "line %zu has %zu columns, column %zu (the first is 0) is asked for",
                  reader->line_number, reader->field_count, column);
    float number;
    if (!field_number(&reader->fields[column], &number))
      return fail_field(reader, column, "expected a number within float32");
    if (columns->one_hot) return push_one_hot(reader, columns, list, number);
    number = (float)(number * columns->scale);
    if (!isfinite(number))
      return fail_field(reader, column, "expected a number within float32 once it is scaled");
    if (!push_number(reader, list, number)) return false;
  }
  return true;
}

static bool push_id(struct reader *reader) {
  size_t column = reader->plan->id_column, length;
  char id[ID_LENGTH_MAX];
  if (column >= reader->field_count)
    return fail(reader, "line %zu has %zu columns, column %zu (the first is 0) is asked for",
                reader->line_number, reader->field_count, column);
  if (!field_text(&reader->fields[column], id, sizeof id, &length) || length == 0 ||
      memchr(id, '\0', length) || !utf8_valid(id, length)) {
    char what[80];
    snprintf(what, sizeof what, "expected an id of 1 to %d bytes of UTF-8", ID_LENGTH_MAX);
    return fail_field(reader, column, what);
  }
  void *lines = reader->lines;
  bool room = reader->rows < reader->line_capacity ||
              double_room(&lines, &reader->line_capacity, sizeof *reader->lines);
  reader->lines = lines;
  if (!room || !id_list_append(reader->ids, id, length)) return fail_no_memory(reader);
  reader->lines[reader->rows] = reader->line_number;
  return true;
}

/* ---- Rows ---- */

/* Whether a field in the columns begins as a number does. A header has none
 * such; a line of bad numbers is no header, or it would be lost unnoticed. */
static bool any_number(const struct reader *reader, const struct csv_columns *columns) {
  for (size_t column = columns->first; column < columns->end && column < reader->field_count;
       column++) {
    const char *at = reader->fields[column].at, *end = at + reader->fields[column].length;
    while (at < end && (is_space(*at) || *at == '"'))
      at++;
    if (at < end && strchr("0123456789+-.", *at)) return true;
  }
  return false;
}

static bool read_row(struct reader *reader) {
  if (!push_columns(reader, &reader->plan->keys, &reader->keys) ||
      !push_columns(reader, &reader->plan->values, &reader->values) ||
      (reader->plan->has_ids && !push_id(reader)))
    return false;
  reader->rows++;
  return true;
}

static bool read_rows(struct reader *reader) {
  const struct csv_plan *plan = reader->plan;
  size_t row = 0; /* from 0, all that the file has */
  bool fault = false;
  for (bool first = true; row < plan->end_row && next_line(reader, &fault); first = false) {
    if (first && !any_number(reader, &plan->keys) && !any_number(reader, &plan->values)) continue;
    if (row >= plan->first_row && !read_row(reader)) return false;
    row++;
  }
  if (fault) return false;
  if (plan->end_row != SIZE_MAX && row < plan->end_row)
    return fail(reader, "the file has %zu rows; rows up to %zu are asked for", row, plan->end_row);
  if (reader->rows == 0) return fail(reader, "the file has no rows to read");
  return true;
}

static bool check_ids(struct reader *reader) {
  size_t index = id_list_find_duplicate(reader->ids);
  if (index == SIZE_MAX) return true;
  if (index == SIZE_MAX - 1) return fail_no_memory(reader);
  return fail(reader, "line %zu, column %zu (the first is 0): the id \"%s\" is there already",
              reader->lines[index], reader->plan->id_column, id_list_get(reader->ids, index, NULL));
}

static bool read_file(struct reader *reader) {
  reader->file = file_open(reader->path, reader->error, reader->error_size);
  if (!reader->file) return false;
  if (reader->plan->has_ids && !(reader->ids = id_list_create())) return fail_no_memory(reader);
  return read_rows(reader) && (!reader->ids || check_ids(reader));
}

static size_t width(const struct csv_columns *columns) {
  return columns->one_hot ? columns->one_hot : columns->end - columns->first;
}

bool csv_read(const char *path, const struct csv_plan *plan, struct csv_rows *rows, char *error,
              size_t error_size) {
  struct reader reader = {.path = path, .plan = plan, .error = error, .error_size = error_size};
  buffer_init(&reader.line, LINE_BYTES_MAX);
  bool read = read_file(&reader);
  if (read) {
    matrix_take(&rows->keys, &reader.keys, reader.rows, width(&plan->keys));
    matrix_take(&rows->values, &reader.values, reader.rows, width(&plan->values));
    rows->ids = reader.ids;
  } else {
    id_list_free(reader.ids);
  }
  float_list_free(&reader.keys);
  float_list_free(&reader.values);
  free(reader.lines);
  free(reader.fields);
  buffer_free(&reader.line);
  if (reader.file) fclose(reader.file);
  return read;
}
