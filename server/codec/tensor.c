/* The hot loop of reading: nearly all bytes of a body are numbers of tensors,
 * and each is looked at once, here, on its way into the matrix. A matrix never
 * has room for more numbers than the text that is left can hold: a number takes
 * two bytes at least, with what separates it from the next one. */
#include "codec/tensor.h"

#include <stdint.h>

#include "codec/number.h"

static inline const char *skip_space(const char *at, const char *end) {
  while (at < end && (*at == ' ' || *at == '\n' || *at == '\r' || *at == '\t'))
    at++;
  return at;
}

/* Row and column are put into the pointer when there is a fault, not before:
 * writing them out takes as long as reading a few numbers. */
#define NO_ROW SIZE_MAX

static struct scan *at_row(struct scan *scan, size_t row) {
  if (row != NO_ROW) scan_enter_index(scan, row);
  return scan;
}

/* The number at scan->at could not be read. */
static bool number_fault(struct scan *scan, enum number_status status, const char *behind) {
  if (status == NUMBER_TOO_LARGE) {
    int length = behind - scan->at < 64 ? (int)(behind - scan->at) : 64;
    return scan_fault(scan, PROBLEM_INVALID_NUMBER, "expected a number within float32, got %.*s",
                      length, scan->at);
  }
  if (scan_kind(scan) == SCAN_NUMBER) return false;
  return scan_wrong_type(scan, "a number");
}

/* Appends the numbers of [n,n,...] to the list. */
static bool read_numbers(struct scan *scan, struct float_list *list, size_t row) {
  if (scan_kind(scan) != SCAN_ARRAY)
    return scan_wrong_type(at_row(scan, row), "an array of numbers");
  const char *end = scan->end, *at = skip_space(scan->at + 1, end);
  size_t before = list->count;
  if (at < end && *at == ']') {
    scan->at = at + 1;
    return true;
  }
  for (;; at++) {
    at = scan->at = skip_space(at, end);
    if (list->count == list->capacity &&
        !float_list_grow(list, list->count + (size_t)(end - at) / 2 + 1))
      return problem_set_status(scan->problem, ATTN_NO_MEMORY, scan->pointer);
    enum number_status status = number_scan(&at, end, &list->data[list->count]);
    if (status != NUMBER_OK) {
      scan_enter_index(at_row(scan, row), list->count - before);
      return number_fault(scan, status, at);
    }
    list->count++;
    at = skip_space(at, end);
    if (at == end || *at != ',') break;
  }
  scan->at = at;
  return scan_take(scan, ']');
}

/* Row number `row` of a matrix whose first row, once it was read, has *cols. */
static bool read_row(struct scan *scan, struct float_list *list, size_t row, size_t *cols) {
  size_t before = list->count;
  if (!read_numbers(scan, list, row)) return false;
  size_t count = list->count - before;
  if (row == 0) *cols = count;
  if (count != *cols)
    return scan_fault(at_row(scan, row), PROBLEM_SHAPE_MISMATCH,
                      "row %zu has %zu numbers, row 0 has %zu", row, count, *cols);
  if (count == 0)
    return scan_fault(at_row(scan, row), PROBLEM_SHAPE_MISMATCH,
                      "expected at least one number in a row");
  return true;
}

static bool read_rows(struct scan *scan, struct float_list *list, size_t *rows, size_t *cols) {
  *rows = *cols = 0;
  if (scan_kind(scan) != SCAN_ARRAY)
    return scan_wrong_type(scan, "an array of rows, each an array of numbers");
  scan_open(scan, '[');
  int more;
  while ((more = scan_element(scan, *rows)) > 0) {
    if (!read_row(scan, list, *rows, cols)) return false;
    ++*rows;
  }
  if (more == SCAN_FAULT) return false;
  if (*rows == 0) return scan_fault(scan, PROBLEM_SHAPE_MISMATCH, "expected at least one row");
  return true;
}

bool tensor_read_matrix(struct scan *scan, struct matrix *matrix) {
  struct float_list list = {0};
  size_t rows, cols;
  bool read = read_rows(scan, &list, &rows, &cols);
  if (read)
    matrix_take(matrix, &list, rows, cols);
  else
    float_list_free(&list);
  return read;
}

bool tensor_read_vector(struct scan *scan, struct matrix *matrix) {
  struct float_list list = {0};
  bool read = read_numbers(scan, &list, NO_ROW);
  if (read && list.count == 0)
    read = scan_fault(scan, PROBLEM_SHAPE_MISMATCH, "expected at least one number");
  if (read)
    matrix_take(matrix, &list, list.count, 1);
  else
    float_list_free(&list);
  return read;
}
