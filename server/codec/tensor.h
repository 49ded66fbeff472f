/* Nested arrays of numbers in a JSON text, straight into float32 matrices. */
#ifndef CODEC_TENSOR_H
#define CODEC_TENSOR_H

#include <stdbool.h>

#include "codec/matrix.h"
#include "codec/scan.h"

/* [[1,2],[3,4]]: at least one row, of at least one number, all as long. Faults
 * carry the place down to the number: PROBLEM_INVALID_TYPE, INVALID_NUMBER
 * (beyond float32), SHAPE_MISMATCH, OUT_OF_MEMORY. */
bool tensor_read_matrix(struct scan *scan, struct matrix *matrix);

/* [1,2,3], as a matrix of one column. */
bool tensor_read_vector(struct scan *scan, struct matrix *matrix);

#endif
