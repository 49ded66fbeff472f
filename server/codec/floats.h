/* Numbers in binary form, to float32: what safetensors and .npy files have. */
#ifndef CODEC_FLOATS_H
#define CODEC_FLOATS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/problem.h"

/* Little-endian. FLOATS_NONE is every type that is no floating point. */
enum floats_kind { FLOATS_NONE, FLOATS_F32, FLOATS_F64, FLOATS_F16, FLOATS_BF16 };

/* Of one number; 0 for FLOATS_NONE. */
size_t floats_bytes(enum floats_kind kind);

/* Converts `count` numbers at `bytes`, of any alignment, rounding to nearest;
 * what is beyond float32 becomes infinite. */
void floats_convert(enum floats_kind kind, const char *bytes, size_t count, float *numbers);

/* The index of the first that is infinite or not a number; `count` where none is. */
size_t floats_find_not_finite(const float *numbers, size_t count);

/* Whether `bytes` can be read as float32 where they are, without converting. */
bool floats_in_place(enum floats_kind kind, const char *bytes);

/* PROBLEM_INVALID_NUMBER for the number at `bytes`; returns false. */
bool floats_fault(enum floats_kind kind, const char *bytes, const char *pointer,
                  struct problem *problem);

#endif
