/* The panel kernels of every instruction set that this CPU has, over every
 * dtype: each number is widened exactly, sums are right, and a query alone gets
 * the very bits that it gets in a batch.
 *
 * attn_init() takes the best variant, so that the others would never run here
 * through attn_attend(). */
#include "support.h"

#include <float.h>

#include "kernels/kernels.h"
#include "memory/snapshot.h"

enum { DTYPES = 4 };
#define COUNT(array) (sizeof(array) / sizeof *(array))

/* ---- All patterns ----
 * Products with 1, distances from 0 and sums of one row hold what was loaded. */

typedef struct patterns {
  struct attn_numbers numbers;
  size_t count;
  double *expected;
  char *data;
} patterns;

static patterns patterns_new(attn_dtype dtype) {
  const size_t count = dtype == ATTN_INT8 ? 256 : 65536;
  patterns made = {.numbers = {.dtype = dtype}, .count = count};
  made.expected = must_alloc(count, sizeof *made.expected);
  made.data = must_alloc(count + ATTN_PANEL, attn_dtype_bytes(dtype));
  made.numbers.data = made.data;
  for (size_t i = 0; i < count; i++) {
    const uint16_t half = (uint16_t)i;
    const int8_t byte = (int8_t)(i - 128);
    if (dtype == ATTN_INT8) {
      memcpy(made.data + i, &byte, 1);
      made.expected[i] = byte;
    } else {
      const float x = dtype == ATTN_F16 ? attn_f16_to_float(half) : attn_bf16_to_float(half);
      if (!isfinite(x)) continue; /* is never kept */
      memcpy(made.data + 2 * i, &half, sizeof half);
      made.expected[i] = (double)x;
    }
  }
  return made;
}

static void check_patterns(const patterns *p, const float *got, const char *what) {
  for (size_t i = 0; i < p->count; i++)
    ck_assert_msg((double)got[i] == p->expected[i], "%s: pattern %zx is %a, expected %a", what, i,
                  (double)got[i], p->expected[i]);
}

START_TEST(test_every_pattern) {
  static const attn_dtype dtypes[] = {ATTN_F16, ATTN_BF16, ATTN_INT8};
  static const float ones[3] = {1, 1, 1};
  const struct attn_kernels *kernels;
  for (size_t v = 0; (kernels = attn_kernels_at(v)) != NULL; v++)
    for (size_t d = 0; d < COUNT(dtypes); d++)
      for (size_t count = 1; count <= 3; count += 2) {
        patterns p = patterns_new(dtypes[d]);
        float *got = floats_new(count * p.count);
        const struct attn_panels panels = {.queries = ones,
                                           .count = count,
                                           .dim = 1,
                                           .keys = p.numbers,
                                           .panel_count = p.count / ATTN_PANEL};
        kernels->panels_dot(&panels, got, p.count);
        for (size_t q = 0; q < count; q++)
          check_patterns(&p, got + q * p.count, kernels->name);
        const struct attn_pv_args args = {.weights = ones,
                                          .count = count,
                                          .stride = 1,
                                          .values = p.numbers,
                                          .rows = 1,
                                          .dim = p.count};
        fill(got, count * p.count, NAN);
        kernels->gemm_pv(&args, got);
        for (size_t q = 0; q < count; q++)
          check_patterns(&p, got + q * p.count, kernels->name);
        floats_free(got);
        free(p.expected);
        free(p.data);
      }
}
END_TEST

/* int8: each row has its own scale in a distance. */
START_TEST(test_scales_in_distances) {
  static const float zeros[3] = {0, 0, 0};
  const struct attn_kernels *kernels;
  patterns p = patterns_new(ATTN_INT8);
  float *scales = floats_new(p.count), *got = floats_new(3 * p.count);
  for (size_t i = 0; i < p.count; i++)
    scales[i] = (float)exp2((double)(i % 40) - 20);
  p.numbers.scales = scales;
  for (size_t v = 0; (kernels = attn_kernels_at(v)) != NULL; v++)
    for (size_t count = 1; count <= 3; count += 2) {
      const struct attn_panels panels = {.queries = zeros,
                                         .count = count,
                                         .dim = 1,
                                         .keys = p.numbers,
                                         .panel_count = p.count / ATTN_PANEL};
      kernels->panels_distance2(&panels, got, p.count);
      for (size_t i = 0; i < count * p.count; i++) {
        const double x = p.expected[i % p.count] * (double)scales[i % p.count];
        ck_assert_msg((double)got[i] == x * x, "%s: row %zu: %a, expected %a", kernels->name,
                      i % p.count, (double)got[i], x * x);
      }
    }
  floats_free(scales);
  floats_free(got);
  free(p.expected);
  free(p.data);
}
END_TEST

/* ---- Sums ---- */

/* Rows, as panels or one after the other, with what they stand for. */
typedef struct table {
  size_t count, dim;
  struct attn_numbers numbers;
  char *data;
  float *scales;
  double *f64; /* count x dim */
} table;

static table table_new(rng *r, attn_dtype dtype, size_t count, size_t dim, bool panels) {
  const size_t bytes = attn_dtype_bytes(dtype), padded = attn_panel_rows(count);
  table made = {.count = count, .dim = dim, .numbers = {.dtype = dtype}};
  made.data = must_alloc(panels ? padded * dim : count * dim + ATTN_PANEL, bytes);
  made.scales = floats_new(padded);
  made.f64 = must_alloc(count * dim, sizeof *made.f64);
  made.numbers.data = made.data;
  if (dtype == ATTN_INT8) made.numbers.scales = made.scales;
  float *row = floats_new(dim);
  for (size_t i = 0; i < count; i++) {
    const size_t first = panels ? attn_panel_place(i, 0, dim) : i * dim;
    const size_t stride = panels ? ATTN_PANEL : 1;
    fill_normal(r, row, dim, exp2(rng_range(r, -3, 3)));
    attn_row_keep(dtype, row, dim, made.data + first * bytes, stride, made.scales + i);
    const struct attn_numbers from = attn_numbers_after(made.numbers, i, first);
    attn_row_doubles(&from, stride, dim, made.f64 + i * dim);
  }
  floats_free(row);
  return made;
}

static void table_free(table *t) {
  free(t->data);
  floats_free(t->scales);
  free(t->f64);
}

/* In float64 they are what was kept, and nothing lies behind the last one. */
static void check_widened(void (*widen)(double *, const struct attn_numbers *, size_t, size_t),
                          const table *t) {
  double *f64 = must_alloc(t->count * t->dim, sizeof *f64);
  widen(f64, &t->numbers, t->count, t->dim);
  ck_assert(memcmp(f64, t->f64, t->count * t->dim * sizeof *f64) == 0);
  free(f64);
}

/* The bound that lib/attend/arithmetic.c goes by, times what is added up. */
static double slack(size_t n) {
  return (136.0 + (double)n / 128) * 0x1p-24;
}

static void check_pair(const table *keys, const float *query, size_t row, double product,
                       double distance2) {
  double sum = 0, sizes = 0, squares = 0;
  for (size_t i = 0; i < keys->dim; i++) {
    const double k = keys->f64[row * keys->dim + i], q = (double)query[i];
    sum += q * k;
    sizes += fabs(q * k);
    squares += (q - k) * (q - k);
  }
  ck_assert_msg(fabs(product - sum) <= slack(keys->dim) * sizes + 1e-30,
                "dim %zu, row %zu: product %.9g, expected %.9g", keys->dim, row, product, sum);
  ck_assert_msg(fabs(distance2 - squares) <= slack(keys->dim) * squares + 1e-30,
                "dim %zu, row %zu: distance^2 %.9g, expected %.9g", keys->dim, row, distance2,
                squares);
}

static void check_keys(const struct attn_kernels *kernels, rng *r, attn_dtype dtype) {
  static const size_t dims[] = {1, 2, 15, 64, 127, 128, 129, 300, 700};
  const size_t dim = dims[rng_between(r, 0, COUNT(dims) - 1)], count = rng_between(r, 1, 14);
  table keys = table_new(r, dtype, rng_between(r, 1, 90), dim, true);
  check_widened(kernels->widen_keys, &keys);
  const size_t stride = attn_panel_rows(keys.count) + ATTN_PANEL * rng_between(r, 0, 1);
  float *queries = floats_new(count * dim), *alone = floats_new(2 * stride);
  float *products = floats_new(count * stride), *distances = floats_new(count * stride);
  fill_normal(r, queries, count * dim, 1);
  struct attn_panels work = {.queries = queries,
                             .count = count,
                             .dim = dim,
                             .keys = keys.numbers,
                             .panel_count = attn_panel_rows(keys.count) / ATTN_PANEL};
  kernels->panels_dot(&work, products, stride);
  kernels->panels_distance2(&work, distances, stride);
  work.count = 1;
  for (size_t q = 0; q < count; q++) {
    work.queries = queries + q * dim;
    kernels->panels_dot(&work, alone, stride);
    kernels->panels_distance2(&work, alone + stride, stride);
    ck_assert(memcmp(alone, products + q * stride, keys.count * sizeof(float)) == 0);
    ck_assert(memcmp(alone + stride, distances + q * stride, keys.count * sizeof(float)) == 0);
    for (size_t row = 0; row < keys.count; row++) {
      const double scale = keys.numbers.scales ? (double)keys.scales[row] : 1;
      check_pair(&keys, work.queries, row, scale * (double)products[q * stride + row],
                 (double)distances[q * stride + row]);
    }
  }
  ck_assert(floats_are_intact(products, count * stride));
  ck_assert(floats_are_intact(distances, count * stride));
  floats_free(queries);
  floats_free(alone);
  floats_free(products);
  floats_free(distances);
  table_free(&keys);
}

/* The rows in two calls, the second accumulating, give the same bits. */
static void check_accumulate(const struct attn_kernels *kernels, rng *r,
                             const struct attn_pv_args *whole, const float *expected) {
  const size_t from = rng_between(r, 1, whole->rows - 1), size = whole->count * whole->dim;
  float *outputs = floats_new(size);
  struct attn_pv_args work = *whole;
  work.rows = from;
  kernels->gemm_pv(&work, outputs);
  work.rows = whole->rows - from;
  work.weights += from;
  work.values = attn_numbers_after(whole->values, from, from * whole->dim);
  work.accumulate = true;
  kernels->gemm_pv(&work, outputs);
  ck_assert(memcmp(outputs, expected, size * sizeof *outputs) == 0);
  ck_assert(floats_are_intact(outputs, size));
  floats_free(outputs);
}

static void check_values(const struct attn_kernels *kernels, rng *r, attn_dtype dtype) {
  const size_t count = rng_between(r, 1, 40);
  table values = table_new(r, dtype, rng_between(r, 1, 400), rng_between(r, 1, 400), false);
  check_widened(kernels->widen_values, &values);
  const size_t dim = values.dim, rows = values.count, stride = rows + rng_between(r, 0, 5);
  float *weights = floats_new(count * stride), *alone = floats_new(dim);
  float *outputs = floats_new(count * dim);
  for (size_t i = 0; i < count * stride; i++)
    weights[i] = (float)rng_unit(r);
  struct attn_pv_args work = {.weights = weights,
                              .count = count,
                              .stride = stride,
                              .values = values.numbers,
                              .rows = rows,
                              .dim = dim};
  fill(outputs, count * dim, NAN);
  kernels->gemm_pv(&work, outputs);
  if (rows > 1) check_accumulate(kernels, r, &work, outputs);
  work.count = 1;
  for (size_t q = 0; q < count; q++) {
    work.weights = weights + q * stride;
    kernels->gemm_pv(&work, alone);
    ck_assert(memcmp(alone, outputs + q * dim, dim * sizeof(float)) == 0);
    for (size_t c = 0; c < dim; c++) {
      double sum = 0, sizes = 0;
      for (size_t row = 0; row < rows; row++) {
        /* what is loaded is an int8 without its scale */
        const double scale = values.numbers.scales ? (double)values.scales[row] : 1;
        const double term = (double)work.weights[row] * values.f64[row * dim + c] / scale;
        sum += term;
        sizes += fabs(term);
      }
      ck_assert_msg(fabs((double)alone[c] - sum) <= ((double)rows + 8) * 0x1p-24 * sizes,
                    "%zu x %zu: output %zu is %.9g, expected %.9g", rows, dim, c, (double)alone[c],
                    sum);
    }
  }
  ck_assert(floats_are_intact(outputs, count * dim) && floats_are_intact(alone, dim));
  floats_free(weights);
  floats_free(alone);
  floats_free(outputs);
  table_free(&values);
}

START_TEST(test_sums) {
  const struct attn_kernels *kernels;
  for (size_t v = 0; (kernels = attn_kernels_at(v)) != NULL; v++)
    for (int dtype = 0; dtype < DTYPES; dtype++)
      for (size_t i = 0; i < test_rounds(60); i++) {
        rng r = rng_for_case(1000 * v + 100 * (uint64_t)dtype + i);
        check_keys(kernels, &r, (attn_dtype)dtype);
        check_values(kernels, &r, (attn_dtype)dtype);
      }
}
END_TEST

/* ---- Exponentials, and the other loops over rows ---- */

START_TEST(test_rows) {
  const struct attn_kernels *kernels;
  for (size_t v = 0; (kernels = attn_kernels_at(v)) != NULL; v++)
    for (size_t n = 1; n <= 300; n += n < 40 ? 1 : 37) {
      rng r = rng_for_case(7000 + n);
      float *scores = floats_new(n), *got = floats_new(n), *factors = floats_new(n);
      fill_normal(&r, scores, n, n % 3 ? 4 : 60);
      fill_normal(&r, factors, n, 1);
      float most = -INFINITY;
      double sum = 0;
      for (size_t i = 0; i < n; i++)
        most = fmaxf(most, scores[i]);
      ck_assert(kernels->row_max(scores, n) == most);
      memcpy(got, scores, n * sizeof *got);
      const double total = kernels->row_exp(got, n, most);
      for (size_t i = 0; i < n; i++) {
        const double expected = exp((double)(scores[i] - most));
        sum += expected;
        ck_assert_msg(fabs((double)got[i] - expected) <= 2.5e-7 * expected + 2e-38,
                      "%s: exp(%a) is %a, expected %a", kernels->name, (double)(scores[i] - most),
                      (double)got[i], expected);
      }
      ck_assert(fabs(total - sum) <= 1e-6 * sum);
      float ends[] = {-INFINITY, most - 88, most};
      ck_assert(kernels->row_exp(ends, 3, most) == 1);
      ck_assert(ends[0] == 0 && ends[1] == 0 && ends[2] == 1);
      memcpy(got, scores, n * sizeof *got);
      kernels->row_times(got, factors, n);
      for (size_t i = 0; i < n; i++)
        ck_assert(got[i] == scores[i] * factors[i]);
      memcpy(got, scores, n * sizeof *got);
      kernels->row_scale(got, n, 0.75f);
      for (size_t i = 0; i < n; i++)
        ck_assert(got[i] == scores[i] * 0.75f);
      memcpy(got, scores, n * sizeof *got);
      ck_assert(kernels->row_finish(got, n, 1.0 / 3));
      for (size_t i = 0; i < n; i++)
        ck_assert(got[i] == (float)((double)scores[i] * (1.0 / 3)));
      got[n / 2] = 1;
      ck_assert(!kernels->row_finish(got, n, 1e39) && isinf(got[n / 2]));
      /* where the largest one stands, and nothing before it */
      const size_t at = kernels->row_skip(scores, n, (double)nextafterf(most, -INFINITY));
      ck_assert(at < n && scores[at] == most);
      ck_assert_uint_eq(kernels->row_skip(scores, n, (double)most), n);
      ck_assert(floats_are_intact(got, n));
      floats_free(scores);
      floats_free(got);
      floats_free(factors);
    }
}
END_TEST

/* Equal keys have equal weights: what a loop makes of a number may not depend on where that
 * stands in a row, in a full vector or among the last ones. */
START_TEST(test_places) {
  enum { MOST = 70 };
  const struct attn_kernels *kernels;
  for (size_t v = 0; (kernels = attn_kernels_at(v)) != NULL; v++)
    for (size_t i = 0; i < test_rounds(2000); i++) {
      rng r = rng_for_case(9000 + i);
      const size_t n = rng_between(&r, 1, MOST);
      const float hidden = (float)rng_normal(&r), query = (float)rng_normal(&r);
      const float weight = (float)rng_normal(&r), score = (float)rng_normal(&r);
      float *units = floats_new(n), *added = floats_new(n), *powers = floats_new(n);
      float *set = floats_new(n);
      fill(units, n, hidden);
      fill(added, n, score);
      fill(powers, n, -fabsf(score));
      kernels->row_additive(added, units, n, query, weight, false);
      kernels->row_additive(set, units, n, query, weight, true);
      kernels->row_exp(powers, n, 0.25f);
      kernels->row_sqrt(units, n, weight);
      const double term = (double)weight * tanh((double)hidden + (double)query);
      ck_assert(fabs((double)set[0] - term) <= 1e-6 * (1 + fabs(term)));
      for (size_t at = 1; at < n; at++) {
        ck_assert_msg(added[at] == added[0], "%s: %a at 0 is %a at %zu of %zu", kernels->name,
                      (double)added[0], (double)added[at], at, n);
        ck_assert(set[at] == set[0] && powers[at] == powers[0]);
        ck_assert(memcmp(&units[at], &units[0], sizeof *units) == 0);
      }
      floats_free(units);
      floats_free(added);
      floats_free(powers);
      floats_free(set);
    }
}
END_TEST

static void check_wide_rows(const struct attn_kernels *kernels, rng *r, size_t n) {
  const double factor = rng_normal(r);
  float *floats = floats_new(n), *narrow = floats_new(n);
  double *f64 = must_alloc(n, sizeof *f64), *sums = must_alloc(n, sizeof *sums);
  fill_normal(r, floats, n, 3);
  kernels->row_widen(f64, floats, n);
  for (size_t i = 0; i < n; i++) {
    ck_assert(f64[i] == (double)floats[i]);
    sums[i] = 100 + (double)i;
  }
  kernels->row_narrow(narrow, f64, n, factor);
  for (size_t i = 0; i < n; i++)
    ck_assert(narrow[i] == (float)(factor * f64[i]));
  kernels->row_scale_f64(sums, n, factor);
  for (size_t i = 0; i < n; i++)
    ck_assert(sums[i] == factor * (100 + (double)i));
  kernels->row_add_f64(sums, f64, n, factor);
  for (size_t i = 0; i < n; i++) { /* in one rounding or two */
    const double expected = factor * (100 + (double)i) + factor * f64[i];
    ck_assert(fabs(sums[i] - expected) <= 1e-15 * fabs(factor) * (200 + (double)n));
  }
  ck_assert(floats_are_intact(narrow, n));
  floats_free(floats);
  floats_free(narrow);
  free(f64);
  free(sums);
}

/* One that is not finite is found wherever it stands. */
static void check_finite(const struct attn_kernels *kernels, rng *r, size_t n) {
  static const float strange[] = {INFINITY, -INFINITY, NAN};
  float *floats = floats_new(n);
  fill(floats, n, FLT_MAX);
  ck_assert(kernels->all_finite(floats, n));
  for (size_t i = 0; i < n; i++) {
    floats[i] = strange[rng_between(r, 0, COUNT(strange) - 1)];
    ck_assert(!kernels->all_finite(floats, n));
    floats[i] = -FLT_MAX;
  }
  ck_assert(kernels->all_finite(floats, n));
  floats_free(floats);
}

START_TEST(test_wide_rows) {
  const struct attn_kernels *kernels;
  for (size_t v = 0; (kernels = attn_kernels_at(v)) != NULL; v++)
    for (size_t n = 1; n <= 300; n += n < 140 ? 1 : 37) {
      rng r = rng_for_case(9000 + n);
      check_wide_rows(kernels, &r, n);
      check_finite(kernels, &r, n);
    }
}
END_TEST

/* ---- The choice ---- */

START_TEST(test_forced) {
  const char *before = attn_kernels_name(), *best = NULL;
  size_t known = 0;
  ck_assert_str_eq(attn_kernels_name_at(0), "portable");
  for (; attn_kernels_name_at(known); known++) {
    best = attn_kernels_name_at(known);
    CHECK_STATUS(ATTN_OK, attn_init_with(best));
    ck_assert_str_eq(attn_kernels_name(), best);
    ck_assert(attn_kernels() == attn_kernels_at(known));
  }
#if defined(__aarch64__)
  ck_assert_str_eq(best, "neon");
#endif
  CHECK_STATUS(ATTN_UNKNOWN_NAME, attn_init_with("sse9"));
  CHECK_STATUS(ATTN_UNKNOWN_NAME, attn_init_with(""));
  CHECK_STATUS(ATTN_BAD_ARGUMENT, attn_init_with(NULL));
  ck_assert_str_eq(attn_kernels_name(), best);
  CHECK_STATUS(ATTN_OK, attn_init_with("portable"));
  attn_init();
  ck_assert_str_eq(attn_kernels_name(), best);
  CHECK_STATUS(ATTN_OK, attn_init_with(before));
}
END_TEST

int main(void) {
  Suite *suite = suite_create("kernels");
  add_test(suite, "every pattern", test_every_pattern);
  add_test(suite, "scales", test_scales_in_distances);
  add_test(suite, "sums", test_sums);
  add_test(suite, "rows", test_rows);
  add_test(suite, "places", test_places);
  add_test(suite, "wide rows", test_wide_rows);
  add_test(suite, "forced", test_forced);
  return run_suite(suite);
}
