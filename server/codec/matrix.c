/* See matrix.h. A list of floats for which memory is asked as the numbers come,
 * since how many there are is known only once they were read; counting them
 * first would be a second pass over the whole text. */
#include "codec/matrix.h"

#include <stdint.h>
#include <stdlib.h>

#define FIRST_CAPACITY 256

/* Room that is left at the end rather than given back: to cut it off costs more. */
#define SPARED 1024

void matrix_free(struct matrix *matrix) {
  free(matrix->data);
  *matrix = (struct matrix){0};
}

void float_list_free(struct float_list *list) {
  free(list->data);
  *list = (struct float_list){0};
}

bool float_list_grow(struct float_list *list, size_t bound) {
  size_t most = SIZE_MAX / sizeof(float);
  if (bound > most) bound = most;
  if (list->count >= bound) return false;
  size_t capacity = list->capacity <= bound / 2 ? list->capacity * 2 : bound;
  if (capacity < FIRST_CAPACITY) capacity = FIRST_CAPACITY < bound ? FIRST_CAPACITY : bound;
  float *data = realloc(list->data, capacity * sizeof *data);
  if (!data) return false;
  list->data = data;
  list->capacity = capacity;
  return true;
}

void matrix_take(struct matrix *matrix, struct float_list *list, size_t rows, size_t cols) {
  float *data = list->data;
  if (list->capacity - list->count > SPARED && list->count > 0) {
    float *fitting = realloc(data, list->count * sizeof *data);
    if (fitting) data = fitting;
  }
  *matrix = (struct matrix){data, rows, cols};
  *list = (struct float_list){0};
}
