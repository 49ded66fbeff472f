/* A float32 matrix that was read from text. */
#ifndef CODEC_MATRIX_H
#define CODEC_MATRIX_H

#include <stdbool.h>
#include <stddef.h>

/* rows x cols float32, row-major, owned; data is NULL where rows is 0. */
struct matrix {
  float *data;
  size_t rows, cols;
};

/* Forgets the numbers too; may be called again. */
void matrix_free(struct matrix *matrix);

/* Numbers that arrive one by one. Growing doubles, but never past `bound`,
 * which the reader derives from the length of the text that is left: so a text
 * can't ask for more memory than it has numbers. */
struct float_list {
  float *data;
  size_t count, capacity;
};

/* Room for one more, at least; false where memory is short. `bound` > count. */
bool float_list_grow(struct float_list *list, size_t bound);
void float_list_free(struct float_list *list);

/* Moves the numbers, rows * cols of them, into a matrix; gives back what was
 * too much. */
void matrix_take(struct matrix *matrix, struct float_list *list, size_t rows, size_t cols);

#endif
