/* A .npy file is a few bytes of magic and version, a header that is a literal
 * of a Python dictionary, and the numbers:
 *
 *     \x93NUMPY 1 0 <length> {'descr': '<f4', 'fortran_order': False,
 *                             'shape': (3, 4), }   numbers
 *
 * Of Python's literals the header needs strings, two words and a tuple of whole
 * numbers, so that is what is read, with exactly the three members that the
 * format names. Anything else in it (a record, an object) is an array that could
 * not be a matrix of numbers anyway.
 *
 * The numbers are read by stream, and room is made for them as they come: what
 * the shape promises is believed only then. Those in Fortran order are the
 * transposed matrix in C order, and are turned around once all are there. */
#include "codec/npy.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "attention.h"
#include "base/problem.h"
#include "codec/file.h"
#include "codec/floats.h"

#define MAGIC            "\x93NUMPY"
#define HEADER_BYTES_MAX ((size_t)1 << 16)
#define CHUNK            ((size_t)64 << 10) /* whole numbers of every kind */
#define TILE             ((size_t)32)       /* of a transposition */

enum { DIMS_MAX = 2 };

struct npy {
  const char *path;
  FILE *file;
  char *error;
  size_t error_size;

  enum floats_kind kind;
  bool fortran;
  size_t dims, shape[DIMS_MAX];
  size_t rows, cols;
};

static bool fail(struct npy *npy, const char *format, ...) __attribute__((format(printf, 2, 3)));
static bool fail(struct npy *npy, const char *format, ...) {
  char why[256];
  va_list arguments;
  va_start(arguments, format);
  if (vsnprintf(why, sizeof why, format, arguments) < 0) why[0] = '\0';
  va_end(arguments);
  snprintf(npy->error, npy->error_size, "%s: %s", npy->path, why);
  return false;
}

/* ---- The header's literal ---- */

static const char *skip_space(const char *at) {
  return at + strspn(at, " \t\n");
}

/* Moves over the character, and the space before it. */
static bool take(const char **at, char c) {
  const char *here = skip_space(*at);
  if (*here != c || c == '\0') return false;
  *at = here + 1;
  return true;
}

/* 'text' or "text", without escapes; longer texts than fit are cut. */
static bool take_string(const char **at, char *text, size_t room) {
  *at = skip_space(*at);
  const char quote = **at;
  if (quote != '\'' && quote != '"') return false;
  const char *start = *at + 1, *end = strchr(start, quote);
  if (!end || memchr(start, '\\', (size_t)(end - start))) return false;
  snprintf(text, room, "%.*s", end - start < 100 ? (int)(end - start) : 100, start);
  *at = end + 1;
  return true;
}

static bool take_word(const char **at, const char *word) {
  *at = skip_space(*at);
  if (strncmp(*at, word, strlen(word)) != 0) return false;
  *at += strlen(word);
  return true;
}

/* Digits; Python 2 wrote an L behind them. */
static bool take_size(const char **at, size_t *size) {
  *at = skip_space(*at);
  const char *start = *at;
  *size = 0;
  for (; **at >= '0' && **at <= '9'; ++*at)
    if (__builtin_mul_overflow(*size, (size_t)10, size) ||
        __builtin_add_overflow(*size, (size_t)(**at - '0'), size))
      return false;
  const bool taken = *at > start;
  if (**at == 'L') ++*at;
  return taken;
}

/* (), (3,), (3, 4). */
static bool read_shape(struct npy *npy, const char **at) {
  if (!take(at, '(')) return fail(npy, "expected the shape as a tuple");
  npy->dims = 0;
  bool comma = true;
  while (!take(at, ')')) {
    size_t size;
    if (!comma || !take_size(at, &size)) return fail(npy, "expected the shape as whole numbers");
    if (npy->dims < DIMS_MAX) npy->shape[npy->dims] = size;
    npy->dims++;
    comma = take(at, ',');
  }
  return true;
}

static bool read_descr(struct npy *npy, const char **at) {
  static const struct {
    const char *name;
    enum floats_kind kind;
  } kinds[] = {{"<f4", FLOATS_F32}, {"<f8", FLOATS_F64}, {"<f2", FLOATS_F16}};
  char name[32];
  if (!take_string(at, name, sizeof name))
    return fail(npy, "expected an array of numbers, got one of records");
  for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
    if (strcmp(name, kinds[i].name) == 0) {
      npy->kind = kinds[i].kind;
      return true;
    }
  return fail(npy, "expected numbers of '<f4', '<f8' or '<f2', got '%s'", name);
}

static bool read_order(struct npy *npy, const char **at) {
  npy->fortran = take_word(at, "True");
  return npy->fortran || take_word(at, "False") ||
         fail(npy, "expected True or False as fortran_order");
}

static bool read_literal(struct npy *npy, const char *text) {
  static const struct {
    const char *name;
    bool (*read)(struct npy *npy, const char **at);
  } members[] = {{"descr", read_descr}, {"fortran_order", read_order}, {"shape", read_shape}};
  enum { COUNT = sizeof members / sizeof members[0] };
  unsigned seen = 0;
  bool comma = true;
  const char *at = text;
  if (!take(&at, '{')) return fail(npy, "expected a header that begins with '{'");
  while (!take(&at, '}')) {
    char name[32];
    size_t i = 0;
    if (!comma || !take_string(&at, name, sizeof name) || !take(&at, ':'))
      return fail(npy, "the header is not that of an array");
    while (i < COUNT && strcmp(members[i].name, name) != 0)
      i++;
    if (i == COUNT || seen >> i & 1) return fail(npy, "the header has an unexpected '%s'", name);
    if (!members[i].read(npy, &at)) return false;
    seen |= 1u << i;
    comma = take(&at, ',');
  }
  if (*skip_space(at) != '\0') return fail(npy, "the header does not end with '}'");
  return seen == (1u << COUNT) - 1 ||
         fail(npy, "expected a header with descr, fortran_order and shape");
}

/* ---- The header's bytes ---- */

/* Short of bytes, for whatever reason. */
static bool fail_short(struct npy *npy, const char *what) {
  if (ferror(npy->file)) return fail(npy, "it can't be read to its end");
  return fail(npy, "the file ends within %s", what);
}

/* The header's text, to be freed; NULL with the error filled. */
static char *read_text(struct npy *npy) {
  unsigned char head[12];
  if (fread(head, 1, 8, npy->file) < 8 || memcmp(head, MAGIC, 6) != 0) {
    fail(npy, "it is no .npy file");
    return NULL;
  }
  if (head[6] < 1 || head[6] > 3 || head[7] != 0) {
    fail(npy, "expected version 1.0, 2.0 or 3.0 of the format, got %d.%d", head[6], head[7]);
    return NULL;
  }
  const size_t bytes = head[6] == 1 ? 2 : 4;
  if (fread(head + 8, 1, bytes, npy->file) < bytes) {
    fail_short(npy, "its header");
    return NULL;
  }
  size_t length = 0;
  for (size_t i = bytes; i-- > 0;)
    length = length << 8 | head[8 + i];
  if (length > HEADER_BYTES_MAX) {
    fail(npy, "the header has %zu bytes; at most %zu are taken", length, HEADER_BYTES_MAX);
    return NULL;
  }
  char *text = malloc(length + 1);
  if (!text) {
    fail(npy, "out of memory");
    return NULL;
  }
  text[length] = '\0';
  const bool whole = fread(text, 1, length, npy->file) == length;
  if (whole && strlen(text) == length) return text;
  if (whole)
    fail(npy, "the header has a NUL in it");
  else
    fail_short(npy, "its header");
  free(text);
  return NULL;
}

static bool check_shape(struct npy *npy, bool column) {
  if (npy->dims != 2 && !(column && npy->dims == 1))
    return fail(npy, "expected an array of %s dimensions, got one of %zu",
                column ? "one or two" : "two", npy->dims);
  npy->rows = npy->shape[0];
  npy->cols = npy->dims == 2 ? npy->shape[1] : 1;
  if (npy->rows == 0 || npy->cols == 0)
    return fail(npy, "the array has no numbers: %zu x %zu", npy->rows, npy->cols);
  if (npy->cols > ATTN_MAX_DIM)
    return fail(npy, "a row has %zu numbers; at most %zu are possible", npy->cols, ATTN_MAX_DIM);
  return npy->rows <= SIZE_MAX / sizeof(double) / npy->cols ||
         fail(npy, "the shape is beyond what can be addressed");
}

static bool read_header(struct npy *npy, bool column) {
  char *text = read_text(npy);
  const bool read = text && read_literal(npy, text) && check_shape(npy, column);
  free(text);
  return read;
}

/* ---- Numbers ---- */

static bool fail_number(struct npy *npy, const char *bytes, size_t index) {
  struct problem problem;
  const size_t row = npy->fortran ? index % npy->rows : index / npy->cols;
  const size_t col = npy->fortran ? index / npy->rows : index % npy->cols;
  floats_fault(npy->kind, bytes, "", &problem);
  return fail(npy, "row %zu, column %zu (the first are 0): %s", row, col, problem.detail);
}

/* In the order of the file. */
static bool read_numbers(struct npy *npy, struct float_list *list) {
  const size_t size = floats_bytes(npy->kind), total = npy->rows * npy->cols;
  char chunk[CHUNK];
  while (list->count < total) {
    const size_t left = total - list->count;
    const size_t most = left < CHUNK / size ? left : CHUNK / size;
    const size_t count = fread(chunk, 1, most * size, npy->file) / size;
    if (count == 0) return fail_short(npy, "its numbers");
    while (list->capacity - list->count < count)
      if (!float_list_grow(list, total)) return fail(npy, "out of memory");
    float *numbers = list->data + list->count;
    floats_convert(npy->kind, chunk, count, numbers);
    const size_t fault = floats_find_not_finite(numbers, count);
    if (fault < count) return fail_number(npy, chunk + fault * size, list->count + fault);
    list->count += count;
  }
  if (getc(npy->file) != EOF) return fail(npy, "the file goes on behind its numbers");
  return !ferror(npy->file) || fail_short(npy, "its numbers");
}

/* [cols][rows] to [rows][cols], in tiles that stay in the cache. */
static bool turn(struct npy *npy, struct float_list *list) {
  const size_t rows = npy->rows, cols = npy->cols;
  float *turned = malloc(rows * cols * sizeof *turned);
  if (!turned) return fail(npy, "out of memory");
  for (size_t top = 0; top < rows; top += TILE)
    for (size_t left = 0; left < cols; left += TILE)
      for (size_t row = top; row < rows && row < top + TILE; row++)
        for (size_t col = left; col < cols && col < left + TILE; col++)
          turned[row * cols + col] = list->data[col * rows + row];
  free(list->data);
  list->data = turned;
  list->capacity = list->count;
  return true;
}

bool npy_read(const char *path, bool column, struct matrix *matrix, char *error,
              size_t error_size) {
  struct npy npy = {.path = path, .error = error, .error_size = error_size};
  struct float_list list = {0};
  npy.file = file_open(path, error, error_size);
  if (!npy.file) return false;
  const bool read = read_header(&npy, column) && read_numbers(&npy, &list) &&
                    (!npy.fortran || npy.cols == 1 || turn(&npy, &list));
  fclose(npy.file);
  if (read)
    matrix_take(matrix, &list, npy.rows, npy.cols);
  else
    float_list_free(&list);
  return read;
}
