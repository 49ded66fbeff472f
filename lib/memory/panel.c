/* Moving rows into panels, out of them and between them.
 *
 * Putting rows into panels is a transposition, and taking them out is the same
 * one backwards, so both are made of one step: a square of numbers that fills
 * as many registers of 16 bytes as a register has numbers. It is transposed by
 * interleaving the first half of its registers with the second, as many times
 * as it takes. Numbers are moved without being looked at, so that one piece of
 * code serves float32, both halves and int8.
 *
 * A panel is walked in strips of components one cache line wide: rows whose
 * length is a power of two fall into the same few places of the cache, and 16
 * whole lines of them would push each other out before they were used up.
 *
 * What does not fill a square (a panel's few first or last rows, a row's last
 * components) is moved number by number. */
#include "memory/panel.h"

#include <math.h>
#include <string.h>

/* Numbers of rows from elsewhere, which need not be aligned, as what they are. */
typedef uint32_t number4 __attribute__((aligned(1), may_alias));
typedef uint16_t number2 __attribute__((aligned(1), may_alias));
typedef uint8_t number1 __attribute__((aligned(1), may_alias));

typedef uint32_t lanes4 __attribute__((vector_size(16)));
typedef uint16_t lanes2 __attribute__((vector_size(16)));
typedef uint8_t lanes1 __attribute__((vector_size(16)));

enum { STRIP_BYTES = 64, LANES_BYTES = 16 };

static size_t smaller(size_t a, size_t b) {
  return a < b ? a : b;
}

/* ---- Squares ---- */

#ifdef __clang__
#define SHUFFLE(mask, a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(mask, a, b, ...) __builtin_shuffle(a, b, (mask){__VA_ARGS__})
#endif

#define LOW4(a, b)  SHUFFLE(lanes4, a, b, 0, 4, 1, 5)
#define HIGH4(a, b) SHUFFLE(lanes4, a, b, 2, 6, 3, 7)
#define LOW2(a, b)  SHUFFLE(lanes2, a, b, 0, 8, 1, 9, 2, 10, 3, 11)
#define HIGH2(a, b) SHUFFLE(lanes2, a, b, 4, 12, 5, 13, 6, 14, 7, 15)
#define LOW1(a, b)  SHUFFLE(lanes1, a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
#define HIGH1(a, b)                                                                                \
  SHUFFLE(lanes1, a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)

/* One interleaving of n registers. */
#define ROUND(n, to, from, low, high)                                                              \
  _Pragma("GCC unroll 8") for (int i = 0; i < (n) / 2; i++) {                                      \
    (to)[2 * i] = low((from)[i], (from)[i + (n) / 2]);                                             \
    (to)[2 * i + 1] = high((from)[i], (from)[i + (n) / 2]);                                        \
  }

/* n rows of n numbers; strides are in numbers. */
#define DEFINE_SQUARE(name, number, lanes, n, rounds)                                              \
  static inline void name(number *to, size_t to_stride, const number *from, size_t from_stride) {  \
    lanes a[n], b[n];                                                                              \
    _Pragma("GCC unroll 16") for (size_t i = 0; i < (n); i++)                                      \
        memcpy(&a[i], from + i * from_stride, sizeof a[i]);                                        \
    rounds;                                                                                        \
    _Pragma("GCC unroll 16") for (size_t i = 0; i < (n); i++)                                      \
        memcpy(to + i * to_stride, &a[i], sizeof a[i]);                                            \
    (void)b;                                                                                       \
  }

#define TWICE(n, low, high) ROUND(n, b, a, low, high) ROUND(n, a, b, low, high)
DEFINE_SQUARE(square4, number4, lanes4, 4, TWICE(4, LOW4, HIGH4))
DEFINE_SQUARE(square1, number1, lanes1, 16, TWICE(16, LOW1, HIGH1) TWICE(16, LOW1, HIGH1))
/* Three rounds end in b. */
DEFINE_SQUARE(square2, number2, lanes2, 8,
              TWICE(8, LOW2, HIGH2) ROUND(8, b, a, LOW2, HIGH2) memcpy(a, b, sizeof a))

/* ---- Matrices ---- */

/* What is moved: to[c * to_stride + r] = from[r * from_stride + c]. */
struct move {
  void *to;
  const void *from;
  size_t to_stride, from_stride, rows, columns;
};

#define DEFINE_TRANSPOSE(name, number, square)                                                     \
  static void name(const struct move *move) {                                                      \
    enum { SIDE = LANES_BYTES / sizeof(number), STRIP = STRIP_BYTES / sizeof(number) };            \
    number *const to = move->to;                                                                   \
    const number *const from = move->from;                                                         \
    const size_t out = move->to_stride, in = move->from_stride;                                    \
    const size_t rows = move->rows / SIDE * SIDE, columns = move->columns / SIDE * SIDE;           \
    for (size_t top = 0; top < rows; top += STRIP)                                                 \
      for (size_t left = 0; left < columns; left += STRIP)                                         \
        for (size_t r = top; r < smaller(top + STRIP, rows); r += SIDE)                            \
          for (size_t c = left; c < smaller(left + STRIP, columns); c += SIDE)                     \
            square(to + c * out + r, out, from + r * in + c, in);                                  \
    for (size_t r = 0; r < move->rows; r++)                                                        \
      for (size_t c = r < rows ? columns : 0; c < move->columns; c++)                              \
        to[c * out + r] = from[r * in + c];                                                        \
  }

DEFINE_TRANSPOSE(transpose4, number4, square4)
DEFINE_TRANSPOSE(transpose2, number2, square2)
DEFINE_TRANSPOSE(transpose1, number1, square1)

static void transpose(const struct move *move, size_t bytes) {
  if (bytes == 4)
    transpose4(move);
  else if (bytes == 2)
    transpose2(move);
  else
    transpose1(move);
}

/* ---- Runs of rows ---- */

void attn_panels_put(const struct attn_panel_shape *shape, void *panels, size_t row,
                     const void *rows, size_t count) {
  const size_t dim = shape->dim, bytes = shape->bytes;
  const char *from = rows;
  for (size_t taken; count > 0; count -= taken, row += taken, from += taken * dim * bytes) {
    taken = smaller(ATTN_PANEL - row % ATTN_PANEL, count);
    const struct move move = {.to = (char *)panels + attn_panel_place(row, 0, dim) * bytes,
                              .to_stride = ATTN_PANEL,
                              .from = from,
                              .from_stride = dim,
                              .rows = taken,
                              .columns = dim};
    transpose(&move, bytes);
  }
}

void attn_panels_get(const struct attn_panel_shape *shape, const void *panels, size_t row,
                     void *rows, size_t count) {
  const size_t dim = shape->dim, bytes = shape->bytes;
  char *to = rows;
  for (size_t taken; count > 0; count -= taken, row += taken, to += taken * dim * bytes) {
    taken = smaller(ATTN_PANEL - row % ATTN_PANEL, count);
    const struct move move = {.to = to,
                              .to_stride = dim,
                              .from = (const char *)panels + attn_panel_place(row, 0, dim) * bytes,
                              .from_stride = ATTN_PANEL,
                              .rows = dim,
                              .columns = taken};
    transpose(&move, bytes);
  }
}

void attn_panels_copy(const struct attn_panel_shape *shape, void *to, size_t to_row,
                      const void *from, size_t from_row, size_t count) {
  const size_t line = ATTN_PANEL * shape->bytes;
  for (size_t taken; count > 0; count -= taken, to_row += taken, from_row += taken) {
    const size_t to_lane = to_row % ATTN_PANEL, from_lane = from_row % ATTN_PANEL;
    char *target = (char *)to + (to_row - to_lane) * shape->dim * shape->bytes;
    const char *source = (const char *)from + (from_row - from_lane) * shape->dim * shape->bytes;
    if (to_lane == 0 && from_lane == 0 && count >= ATTN_PANEL) {
      taken = count / ATTN_PANEL * ATTN_PANEL;
      memcpy(target, source, taken * shape->dim * shape->bytes);
      continue;
    }
    taken = smaller(ATTN_PANEL - (to_lane > from_lane ? to_lane : from_lane), count);
    for (size_t c = 0; c < shape->dim; c++)
      memcpy(target + c * line + to_lane * shape->bytes,
             source + c * line + from_lane * shape->bytes, taken * shape->bytes);
  }
}

/* ---- Norms ----
 * The rows of a panel side by side: each sum is one of a row alone, so it is
 * the same wherever the row lies, and 16 of them don't wait for each other. */

#define DEFINE_NORMS(name, type, widened)                                                          \
  static inline __attribute__((always_inline)) void name##_of(                                     \
      double *sums, const type *panel, const float *scales, size_t dim, size_t lanes) {            \
    double sum[ATTN_PANEL] = {0};                                                                  \
    for (size_t c = 0; c < dim; c++, panel += ATTN_PANEL)                                          \
      for (size_t l = 0; l < lanes; l++) {                                                         \
        const double x = (double)(widened);                                                        \
        sum[l] += x * x;                                                                           \
      }                                                                                            \
    for (size_t l = 0; l < lanes; l++)                                                             \
      sums[l] = sum[l];                                                                            \
    (void)scales;                                                                                  \
  }                                                                                                \
  static void name(double *sums, const type *panel, const float *scales, size_t dim,               \
                   size_t lanes) {                                                                 \
    size_t l = 0;                                                                                  \
    if (lanes == ATTN_PANEL) {                                                                     \
      name##_of(sums, panel, scales, dim, ATTN_PANEL);                                             \
      return;                                                                                      \
    }                                                                                              \
    for (; l + 4 <= lanes; l += 4)                                                                 \
      name##_of(sums + l, panel + l, scales ? scales + l : NULL, dim, 4);                          \
    for (; l < lanes; l++)                                                                         \
      name##_of(sums + l, panel + l, scales ? scales + l : NULL, dim, 1);                          \
  }

DEFINE_NORMS(norms_f32, float, panel[l])
DEFINE_NORMS(norms_f16, uint16_t, attn_f16_to_float(panel[l]))
DEFINE_NORMS(norms_bf16, uint16_t, attn_bf16_to_float(panel[l]))
DEFINE_NORMS(norms_int8, int8_t, scales[l] * (float)panel[l])

void attn_panels_norms(double *norms, const struct attn_numbers *panels, size_t dim, size_t row,
                       size_t count) {
  for (size_t taken; count > 0; count -= taken, row += taken, norms += taken) {
    taken = smaller(ATTN_PANEL - row % ATTN_PANEL, count);
    const struct attn_numbers from =
        attn_numbers_after(*panels, row, attn_panel_place(row, 0, dim));
    switch (from.dtype) {
    case ATTN_F32:
      norms_f32(norms, from.data, from.scales, dim, taken);
      break;
    case ATTN_F16:
      norms_f16(norms, from.data, from.scales, dim, taken);
      break;
    case ATTN_BF16:
      norms_bf16(norms, from.data, from.scales, dim, taken);
      break;
    case ATTN_INT8:
      norms_int8(norms, from.data, from.scales, dim, taken);
      break;
    }
    for (size_t i = 0; i < taken; i++)
      norms[i] = sqrt(norms[i]);
  }
}
