/* Matrices from .npy files, the format of numpy.save(), versions 1.0 to 3.0:
 * https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html */
#ifndef CODEC_NPY_H
#define CODEC_NPY_H

#include <stdbool.h>
#include <stddef.h>

#include "codec/matrix.h"

/* Reads an array of two dimensions, or of one where `column` says that it
 * stands for a matrix of one column. Little-endian float32, float64 and float16,
 * in C or Fortran order; at least one number, all finite and within float32.
 * False with a sentence in `error` that begins with the path. */
bool npy_read(const char *path, bool column, struct matrix *matrix, char *error, size_t error_size);

#endif
