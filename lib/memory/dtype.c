/* Rounding to the smaller number types, and back.
 *
 * The invariant: what is kept is a float32 number, and keeping it once more
 * changes no bit. So all that is computed from a memory is what a caller would
 * get who had given the rounded numbers, and rows that were read out and put
 * back answer as before.
 *
 * For f16 and bf16 that is how they are. int8 takes care: q * scale has up to 7
 * bits more than the scale, so the scale has no more than 17 of float32's 24
 * and every product is exact. It is cut, not rounded: a step above max|row|/127
 * would make half of it more than the bound. Zero points were rejected: keys
 * and values are about as often negative as positive, and a scale alone can be
 * applied after a sum.
 *
 * These loops are scalar, and integer where C11 has no type: they serve rows
 * on their way in and out, and the float64 arithmetic. Float32 arithmetic, which
 * has to be fast, widens in lib/kernels/kernels.c. */
#include "memory/dtype.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* ---- The table ---- */

static const attn_dtype_info infos[] = {
#define DTYPE_INFO(id, name, bytes, largest, relative, of_row, absolute, bound)                    \
  [id] = {id, name, bytes, largest, relative, of_row, absolute, bound},
    ATTN_DTYPE_LIST(DTYPE_INFO)
#undef DTYPE_INFO
};
enum { COUNT = sizeof infos / sizeof *infos };

const attn_dtype_info *attn_dtype_info_at(size_t index) {
  return index < COUNT ? &infos[index] : NULL;
}

const attn_dtype_info *attn_dtype_info_find(const char *name) {
  for (size_t i = 0; name && i < COUNT; i++)
    if (strcmp(infos[i].name, name) == 0) return &infos[i];
  return NULL;
}

/* ---- Single numbers ---- */

static uint32_t bits_of(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}

static float float_of(uint32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

enum { F16_SIGN = 0x8000, F16_INFINITY = 0x7c00, F16_NAN = 0x7e00 };
#define F16_LEAST_NORMAL ((uint32_t)0x400)
#define F16_OVERFLOW     65520.0f              /* half-way from 65504 to 65536 */
#define F16_STEP         0x1p-24f              /* of the subnormals, below 2^-14 */
#define F16_EXPONENTS    ((uint32_t)112 << 23) /* float32's bias less f16's */

uint16_t attn_f16_from_float(float x) {
  const uint32_t sign = bits_of(x) >> 16 & F16_SIGN;
  const float size = fabsf(x);
  if (isnan(x)) return (uint16_t)(sign | F16_NAN);
  if (size >= F16_OVERFLOW) return (uint16_t)(sign | F16_INFINITY);
  /* Near 0.5 float32's own step is 2^-24, so the sum is rounded as it must be. */
  if (size < 0x1p-14f) return (uint16_t)(sign | (bits_of(size + 0.5f) - bits_of(0.5f)));
  const uint32_t bits = bits_of(size) - F16_EXPONENTS;
  return (uint16_t)(sign | (bits + 0xfff + (bits >> 13 & 1)) >> 13);
}

float attn_f16_to_float(uint16_t half) {
  const uint32_t sign = (uint32_t)(half & F16_SIGN) << 16, size = half & 0x7fff;
  uint32_t bits = (size << 13) + F16_EXPONENTS;
  if (size - F16_LEAST_NORMAL >= F16_INFINITY - F16_LEAST_NORMAL) /* on either side */
    bits = size < F16_INFINITY ? bits_of((float)size * F16_STEP) : bits + F16_EXPONENTS;
  return float_of(sign | bits);
}

uint16_t attn_bf16_from_float(float x) {
  const uint32_t bits = bits_of(x);
  if (isnan(x)) return (uint16_t)(bits >> 16 | 0x40);
  return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

float attn_bf16_to_float(uint16_t half) {
  return float_of((uint32_t)half << 16);
}

/* ---- Rows ---- */

#define INT8_MOST        127.0
#define INT8_SCALE_BITS  (~(uint64_t)0 << 36) /* leaves 17 bits of a significand */
#define INT8_SCALE_LEAST 0x1p-126             /* below, products would lose bits */

/* The largest of n patterns without their sign. Patterns of finite numbers are
 * ordered as the numbers' sizes are, and those of infinity and NaN are above
 * them: one pass that compares integers finds the largest number, and whether
 * all are finite. GCC makes no such loop of a scalar one at -O2. Two maxima,
 * since each waits for the one before. */
#define DEFINE_LARGEST_PATTERN(name, number, size_of)                                              \
  typedef number name##_lanes __attribute__((vector_size(16)));                                    \
  static inline name##_lanes name##_of(name##_lanes most, const void *from, size_t bytes) {        \
    typedef name##_lanes lanes;                                                                    \
    lanes next = {0};                                                                              \
    memcpy(&next, from, bytes);                                                                    \
    const lanes size = size_of(next), above = (lanes)(size > most);                                \
    return (size & above) | (most & ~above);                                                       \
  }                                                                                                \
  static uint32_t name(const void *data, size_t n) {                                               \
    const char *from = data, *const end = from + n * sizeof(number);                               \
    name##_lanes most = {0}, other = {0};                                                          \
    for (; end - from >= 32; from += 32) {                                                         \
      most = name##_of(most, from, 16);                                                            \
      other = name##_of(other, from + 16, 16);                                                     \
    }                                                                                              \
    for (; from < end; from += 16)                                                                 \
      most = name##_of(most, from, end - from < 16 ? (size_t)(end - from) : 16);                   \
    most = name##_of(most, &other, sizeof other);                                                  \
    number largest = 0;                                                                            \
    for (size_t l = 0; l < 16 / sizeof(number); l++)                                               \
      largest = most[l] > largest ? most[l] : largest;                                             \
    return (uint32_t)largest;                                                                      \
  }
#define SIZE4(v) ((v)&0x7fffffff)
#define SIZE2(v) ((v)&0x7fff)
#define SIZE1(v) (((v) ^ (lanes)((v) >= 0x80)) - (lanes)((v) >= 0x80)) /* 128 of -128 */
DEFINE_LARGEST_PATTERN(largest_pattern4, int32_t, SIZE4)
DEFINE_LARGEST_PATTERN(largest_pattern2, int16_t, SIZE2)
DEFINE_LARGEST_PATTERN(largest_pattern1, uint8_t, SIZE1)

enum { F32_INFINITY = 0x7f800000, BF16_INFINITY = 0x7f80 };

static double largest_of(const float *row, size_t n) {
  return (double)float_of(largest_pattern4(row, n));
}

attn_status attn_row_check(attn_dtype dtype, const float *row, size_t n) {
  const uint32_t pattern = largest_pattern4(row, n);
  if (pattern >= F32_INFINITY) return ATTN_NOT_FINITE;
  return (double)float_of(pattern) <= infos[dtype].largest ? ATTN_OK : ATTN_OUT_OF_RANGE;
}

static double int8_scale(const float *row, size_t n) {
  const double most = largest_of(row, n);
  if (most == 0) return 0;
  double scale = most / INT8_MOST;
  uint64_t bits;
  memcpy(&bits, &scale, sizeof bits);
  bits &= INT8_SCALE_BITS;
  memcpy(&scale, &bits, sizeof scale);
  return fmax(scale, INT8_SCALE_LEAST);
}

/* In float64, because a quotient rounded to float32 could come to lie on a tie.
 * The largest number is up to 127.002 scales, so it needs no clamp. */
static int8_t int8_of(float x, double scale) {
  return scale > 0 ? (int8_t)rint((double)x / scale) : (int8_t)0;
}

void attn_row_keep(attn_dtype dtype, const float *row, size_t n, void *to, size_t stride,
                   float *scale) {
#define KEEP(type, kept)                                                                           \
  for (size_t i = 0; i < n; i++)                                                                   \
  ((type *)to)[i * stride] = (kept)
  switch (dtype) {
  case ATTN_F32:
    if (stride == 1)
      memcpy(to, row, n * sizeof *row);
    else
      KEEP(float, row[i]);
    break;
  case ATTN_F16:
    KEEP(uint16_t, attn_f16_from_float(row[i]));
    break;
  case ATTN_BF16:
    KEEP(uint16_t, attn_bf16_from_float(row[i]));
    break;
  case ATTN_INT8: {
    const double exact = int8_scale(row, n);
    KEEP(int8_t, int8_of(row[i], exact));
    *scale = (float)exact;
    break;
  }
  }
#undef KEEP
}

#define DEFINE_GET(name, type)                                                                     \
  void name(const struct attn_numbers *from, size_t stride, size_t n, type *to) {                  \
    switch (from->dtype) {                                                                         \
    case ATTN_F32:                                                                                 \
      for (size_t i = 0; i < n; i++)                                                               \
        to[i] = (type)((const float *)from->data)[i * stride];                                     \
      break;                                                                                       \
    case ATTN_F16:                                                                                 \
      for (size_t i = 0; i < n; i++)                                                               \
        to[i] = (type)attn_f16_to_float(((const uint16_t *)from->data)[i * stride]);               \
      break;                                                                                       \
    case ATTN_BF16:                                                                                \
      for (size_t i = 0; i < n; i++)                                                               \
        to[i] = (type)attn_bf16_to_float(((const uint16_t *)from->data)[i * stride]);              \
      break;                                                                                       \
    case ATTN_INT8:                                                                                \
      for (size_t i = 0; i < n; i++)                                                               \
        to[i] = (type)*from->scales * (type)((const int8_t *)from->data)[i * stride];              \
      break;                                                                                       \
    }                                                                                              \
  }
DEFINE_GET(attn_row_floats, float)
DEFINE_GET(attn_row_doubles, double)

/* ---- Rows as they are kept ---- */

double attn_rows_largest(const struct attn_numbers *from, size_t rows, size_t n) {
  double most = 0;
  switch (from->dtype) {
  case ATTN_F32:
    return (double)float_of(largest_pattern4(from->data, rows * n));
  case ATTN_F16:
    return (double)attn_f16_to_float((uint16_t)largest_pattern2(from->data, rows * n));
  case ATTN_BF16:
    return (double)attn_bf16_to_float((uint16_t)largest_pattern2(from->data, rows * n));
  case ATTN_INT8:
    for (size_t r = 0; r < rows; r++)
      most = fmax(most, (double)from->scales[r] *
                            largest_pattern1((const int8_t *)from->data + r * n, n));
    break;
  }
  return most;
}

/* The scale is 0 for zeros alone, has its 17 bits, and makes the row's largest
 * number 127, unless it is as small as it may be. */
static attn_status check_int8(const int8_t *row, size_t n, float scale) {
  if (!isfinite(scale)) return ATTN_NOT_FINITE;
  const uint32_t most = largest_pattern1(row, n);
  if (most > INT8_MOST || signbit(scale)) return ATTN_OUT_OF_RANGE;
  if (scale == 0) return most == 0 ? ATTN_OK : ATTN_OUT_OF_RANGE;
  const double exact = (double)scale;
  uint64_t bits;
  memcpy(&bits, &exact, sizeof bits);
  const bool cut = (bits & ~INT8_SCALE_BITS) == 0;
  const bool in_range = exact >= INT8_SCALE_LEAST && exact * INT8_MOST <= infos[ATTN_INT8].largest;
  const bool fits = most == INT8_MOST || exact == INT8_SCALE_LEAST;
  return cut && in_range && fits ? ATTN_OK : ATTN_OUT_OF_RANGE;
}

attn_status attn_rows_check_kept(const struct attn_numbers *from, size_t rows, size_t n) {
  attn_status status = ATTN_OK;
  switch (from->dtype) {
  case ATTN_F32:
    return largest_pattern4(from->data, rows * n) < F32_INFINITY ? ATTN_OK : ATTN_NOT_FINITE;
  case ATTN_F16:
    return largest_pattern2(from->data, rows * n) < F16_INFINITY ? ATTN_OK : ATTN_NOT_FINITE;
  case ATTN_BF16:
    return largest_pattern2(from->data, rows * n) < BF16_INFINITY ? ATTN_OK : ATTN_NOT_FINITE;
  case ATTN_INT8:
    for (size_t r = 0; r < rows && status == ATTN_OK; r++)
      status = check_int8((const int8_t *)from->data + r * n, n, from->scales[r]);
    break;
  }
  return status;
}
