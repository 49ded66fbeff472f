/* Numbers as a memory keeps them: float32, or something smaller. */
#ifndef ATTN_DTYPE_H
#define ATTN_DTYPE_H

#include "attention.h"

/* Kept numbers of one dtype. With int8 each row has a scale, and a number
 * stands for itself times its row's; without, `scales` is NULL. */
struct attn_numbers {
  attn_dtype dtype;
  const void *data;
  const float *scales;
};

static inline size_t attn_dtype_bytes(attn_dtype dtype) {
#define BYTES_OF(id, name, bytes, ...) bytes,
  static const unsigned char table[] = {ATTN_DTYPE_LIST(BYTES_OF)};
#undef BYTES_OF
  return table[dtype];
}

/* The same ones from `rows` rows and `count` numbers further on. */
static inline struct attn_numbers attn_numbers_after(struct attn_numbers from, size_t rows,
                                                     size_t count) {
  from.data = (const char *)from.data + count * attn_dtype_bytes(from.dtype);
  if (from.scales) from.scales += rows;
  return from;
}

/* ATTN_NOT_FINITE, ATTN_OUT_OF_RANGE, or ATTN_OK where all can be kept. */
attn_status attn_row_check(attn_dtype dtype, const float *row, size_t n);

/* Rounds a row that was checked to numbers `stride` apart; *scale is set where
 * the dtype has scales. */
void attn_row_keep(attn_dtype dtype, const float *row, size_t n, void *to, size_t stride,
                   float *scale);

/* The row that `from` starts with, as it was kept; each number is one of float32. */
void attn_row_floats(const struct attn_numbers *from, size_t stride, size_t n, float *to);
void attn_row_doubles(const struct attn_numbers *from, size_t stride, size_t n, double *to);

/* The largest |number| of rows side by side, as they were kept. */
double attn_rows_largest(const struct attn_numbers *from, size_t rows, size_t n);

/* Whether rows side by side, their numbers of any alignment, are such as
 * attn_row_keep() makes them: ATTN_NOT_FINITE, ATTN_OUT_OF_RANGE, ATTN_OK. */
attn_status attn_rows_check_kept(const struct attn_numbers *from, size_t rows, size_t n);

/* One number, to nearest, ties to even; infinity where it is beyond the range;
 * NaN stays NaN. */
uint16_t attn_f16_from_float(float x);
float attn_f16_to_float(uint16_t bits);
uint16_t attn_bf16_from_float(float x);
float attn_bf16_to_float(uint16_t bits);

#endif
