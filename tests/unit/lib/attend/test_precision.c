/* Inputs made to break float32 arithmetic where it is used without care: every
 * case here is within the contract (scores within +-60, or a plain answer that
 * float64 gives), and adversarial to something. */
#include "random_trial.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* Products of large terms that cancel: q = (x, -x, ...) and keys close to
 * +-(y, y, ...). The scores are small, what they are made of is not. Odd
 * temperatures and scales, since x / T has to be rounded somewhere. */
START_TEST(test_cancelling_products) {
  static const char *const scores[] = {"dot", "scaled_dot", "bilinear", "cosine"};
  const size_t rounds = test_rounds(20000);
  for (size_t i = 0; i < rounds; i++) {
    rng r = rng_for_case(i);
    const size_t dim = 2 * rng_between(&r, 1, 8), rows = rng_between(&r, 2, 12);
    trial t = trial_new(i, (shape){rows, dim, 1, 2, 0}, scores[i % COUNT(scores)], "softmax");
    const double size = exp(rng_chance(&r, 0.5) ? rng_range(&r, 4.8, 6) : rng_range(&r, 0, 7)),
                 temperature = exp(rng_range(&r, -3, 3));
    const double y = exp(rng_range(&r, -3, 3)), x = size * temperature / y / (double)dim;
    for (size_t q = 0; q < 2; q++)
      for (size_t c = 0; c < dim; c++)
        t.queries[q * dim + c] = (float)((c % 2 ? -x : x) * (1 + 1e-7 * rng_normal(&r)));
    for (size_t row = 0; row < rows; row++) {
      const double sign = row % 2 ? -1 : 1;
      for (size_t c = 0; c < dim; c += 2) {
        t.keys[row * dim + c] = (float)(sign * y * (1 + 0.1 * rng_normal(&r)));
        t.keys[row * dim + c + 1] =
            t.keys[row * dim + c] * (float)(1 + rng_range(&r, -1, 1) / size);
      }
      t.values[row] = (float)sign;
    }
    trial_normalization_number(&t, "temperature", temperature);
    if (score_is(&t, "scaled_dot"))
      trial_number(&t, "scale", 1);
    else if (score_is(&t, "cosine"))
      trial_number(&t, "scale", size * temperature);
    else if (score_is(&t, "bilinear")) {
      float *w = trial_tensor(&t, "w", dim, dim);
      for (size_t c = 0; c < dim; c++)
        w[c * dim + c] = 1;
    }
    trial_prepare(&t);
    trial_check(&t, (asking){ATTN_WEIGHTS_FULL, 0, NULL});
    trial_free(&t);
  }
}
END_TEST

/* Two clusters of rows at almost the same, large distance from the query, with
 * opposite values: the answer hangs on the difference of two large exponents. */
START_TEST(test_equally_far_clusters) {
  static const char *const pairs[][2] = {
      {"gaussian", "sum"}, {"laplacian", "sum"}, {"euclidean", "softmax"}};
  const size_t rounds = test_rounds(20000);
  for (size_t i = 0; i < rounds; i++) {
    rng r = rng_for_case(100000 + i);
    const size_t dim = rng_between(&r, 2, 20), rows = 2 * rng_between(&r, 1, 8);
    trial t = trial_new(100000 + i, (shape){rows, dim, 1, 1, 0}, pairs[i % 3][0], pairs[i % 3][1]);
    const double most = i % 3 == 2 ? 4 : 7, far = exp(rng_range(&r, -2, 4));
    const double exponent =
        exp(rng_chance(&r, 0.5) ? rng_range(&r, 4, 4.6) : rng_range(&r, 0, most));
    fill_normal(&r, t.queries, dim, far);
    for (size_t row = 0; row < rows; row++) {
      double length = 0;
      for (size_t c = 0; c < dim; c++) {
        t.keys[row * dim + c] = (float)rng_normal(&r);
        length += (double)t.keys[row * dim + c] * (double)t.keys[row * dim + c];
      }
      const double reach = far * (1 + rng_normal(&r) / exponent) / sqrt(length);
      for (size_t c = 0; c < dim; c++)
        t.keys[row * dim + c] =
            (float)((double)t.queries[c] + reach * (double)t.keys[row * dim + c]);
      t.values[row] = row % 2 ? -1 : 1;
    }
    if (i % 3 == 0)
      trial_number(&t, "sigma", far / sqrt(2 * exponent));
    else
      trial_number(&t, i % 3 == 1 ? "sigma" : "scale",
                   i % 3 == 1 ? far / exponent : exponent / far);
    trial_prepare(&t);
    trial_check(&t, (asking){ATTN_WEIGHTS_FULL, 0, NULL});
    trial_free(&t);
  }
}
END_TEST

/* Whole tiles of rows so far away that float32 can't hold their exponents,
 * before, after or around a few near ones. */
START_TEST(test_unreachable_tiles) {
  static const char *const pairs[][2] = {
      {"gaussian", "sum"}, {"laplacian", "sum"}, {"euclidean", "softmax"}};
  static const double units[] = {1, 1e-3, 1e-6, 1e-9};
  static const double distances[] = {1e5, 1e10, 4e14, 1e18};
  enum { ROWS = 3000, NEAR = 20 };
  for (size_t i = 0; i < 3 * 3 * COUNT(units) * COUNT(distances); i++) {
    const double unit = units[i / 9 % COUNT(units)];
    const size_t first = (size_t[]){0, 1500, ROWS - NEAR}[i / 3 % 3];
    rng r = rng_for_case(200000 + i);
    trial t = trial_new(200000 + i, (shape){ROWS, 3, 2, 3, 0}, pairs[i % 3][0], pairs[i % 3][1]);
    fill_normal(&r, t.queries, 9, unit);
    for (size_t n = 0; n < ROWS * 3; n++) /* on the corners of a cube: none is near */
      t.keys[n] = (float)(distances[i / 9 / COUNT(units)] * (rng_chance(&r, 0.5) ? 1 : -1) *
                          rng_range(&r, 0.9, 1));
    fill_normal(&r, t.keys + first * 3, NEAR * 3, unit);
    fill_normal(&r, t.values, ROWS * 2, 1);
    trial_number(&t, i % 3 == 2 ? "scale" : "sigma", i % 3 == 2 ? 1 / unit : unit);
    trial_prepare(&t);
    trial_check_all(&t, 3);
    trial_free(&t);
  }
}
END_TEST

/* additive: hidden units beyond float32 that a tiny v brings back. */
START_TEST(test_saturated_units) {
  static const double magnitudes[] = {1e-30, 1e-10, 1, 1e5, 1e10, 1e25, 3e38};
  static const double lengths[] = {1e-42, 1e-30, 1e-10, 1, 10};
  const size_t rounds = test_rounds(1500);
  for (size_t i = 0; i < rounds; i++) {
    rng r = rng_for_case(300000 + i);
    trial t = trial_new(300000 + i, (shape){30, 5, 1, 2, 3}, "additive", "softmax");
    const bool chosen = rng_chance(&r, 0.2);
    const double of_keys = chosen ? 1e5 : magnitudes[rng_between(&r, 0, 4)];
    const double of_queries = magnitudes[rng_between(&r, 0, 4)];
    const double of_w[] = {magnitudes[rng_between(&r, 0, COUNT(magnitudes) - 1)],
                           chosen ? 3e38 : magnitudes[rng_between(&r, 0, COUNT(magnitudes) - 1)]};
    const double of_v = lengths[chosen ? 0 : rng_between(&r, 0, COUNT(lengths) - 1)];
    for (size_t n = 0; n < 30 * 5; n++)
      t.keys[n] = (float)rng_range(&r, -of_keys, of_keys);
    for (size_t n = 0; n < 2 * 3; n++)
      t.queries[n] = (float)rng_range(&r, -of_queries, of_queries);
    float *w_q = trial_tensor(&t, "w_q", 4, 3), *w_k = trial_tensor(&t, "w_k", 4, 5);
    float *v = trial_tensor(&t, "v", 4, 1);
    for (size_t n = 0; n < 4 * 3; n++)
      w_q[n] = (float)rng_range(&r, -of_w[0], of_w[0]);
    for (size_t n = 0; n < 4 * 5; n++)
      w_k[n] = (float)rng_range(&r, -of_w[1], of_w[1]);
    for (size_t n = 0; n < 4; n++)
      v[n] = (float)rng_range(&r, -of_v, of_v);
    for (size_t n = 0; n < 30; n++)
      t.values[n] = n % 2 ? -1 : 1;
    trial_prepare(&t);
    trial_check_all(&t, 3);
    trial_free(&t);
  }
}
END_TEST

/* Few values of opposite signs and any size of score, all scores and rules:
 * where weights are even, the output is as sensitive as it gets. */
START_TEST(test_opposite_values) {
  const size_t rounds = test_rounds(60);
  for (size_t i = 0; i < rounds * SCORE_COUNT * NORMALIZATION_COUNT; i++) {
    const char *score = score_names[i % SCORE_COUNT];
    rng r = rng_for_case(400000 + i);
    const shape of = {.rows = rng_between(&r, 2, 5),
                      .key_dim = rng_between(&r, 1, 40),
                      .value_dim = 1,
                      .query_count = 2,
                      .query_dim = takes_other_query_dim(score) ? rng_between(&r, 1, 9) : 0};
    trial t = trial_random(500000 + i, of, score,
                           normalization_names[i / SCORE_COUNT % NORMALIZATION_COUNT]);
    for (size_t row = 0; row < of.rows; row++)
      t.values[row] = row % 2 ? -1 : 1;
    trial_prepare(&t);
    trial_check(&t, (asking){ATTN_WEIGHTS_FULL, 0, NULL});
    trial_free(&t);
  }
}
END_TEST

/* ---- Equal rows tie, wherever they lie ---- */

/* The first row with the same key. */
static size_t kind_of(const trial *t, size_t row) {
  const size_t dim = t->of.key_dim;
  size_t first = 0;
  while (memcmp(t->keys + first * dim, t->keys + row * dim, dim * sizeof(float)) != 0)
    first++;
  return first;
}

/* Equal keys have equal weights, so a row may be listed only behind all lower
 * rows of the same key. `kinds` are few and among the first rows. */
static void check_order(const trial *t, size_t top, const attn_pool *pool) {
  const size_t rows = t->of.rows;
  const asking how = {ATTN_WEIGHTS_TOP, top, pool};
  answer a = answer_new(t, &how);
  size_t *next = must_alloc(rows, sizeof *next); /* of a kind: the row to come */
  CHECK_STATUS(ATTN_OK, trial_attend(t, &how, &a));
  for (size_t q = 0; q < t->of.query_count; q++) {
    for (size_t row = 0; row < rows; row++)
      next[row] = row;
    for (size_t i = 0; i < a.largest_count[q]; i++) {
      const size_t row = a.largest[q * top + i].row, kind = kind_of(t, row);
      if (row != next[kind])
        TRIAL_FAIL(t, "query %zu: entry %zu is row %zu (weight %.9g), but the equal row %zu %s", q,
                   i, row, (double)a.largest[q * top + i].weight, next[kind],
                   next[kind] < row ? "comes first" : "came before");
      do
        next[kind]++;
      while (next[kind] < rows && kind_of(t, next[kind]) != kind);
    }
  }
  free(next);
  answer_free(&a);
}

START_TEST(test_equal_rows_tie) {
  enum { KINDS = 3 };
  const attn_pool pool = backwards_pool(3);
  for (size_t i = 0; i < SCORE_COUNT * NORMALIZATION_COUNT * test_rounds(2); i++) {
    rng r = rng_for_case(600000 + i);
    const size_t rows = rng_between(&r, 100, 1400), dim = rng_between(&r, 2, 70);
    const char *score = score_names[i % SCORE_COUNT];
    const shape of = {rows, dim, 2, rng_between(&r, 1, 9), takes_other_query_dim(score) ? 5 : 0};
    trial t = trial_random(600000 + i, of, score,
                           normalization_names[i / SCORE_COUNT % NORMALIZATION_COUNT]);
    for (size_t row = KINDS; row < rows; row++)
      memcpy(t.keys + row * dim, t.keys + rng_between(&r, 0, KINDS - 1) * dim, dim * sizeof(float));
    trial_prepare(&t);
    check_order(&t, rng_between(&r, 1, 50), NULL);
    check_order(&t, rng_between(&r, 1, rows), &pool);
    trial_free(&t);
  }
}
END_TEST

int main(void) {
  Suite *suite = suite_create("precision");
  add_test(suite, "cancelling products", test_cancelling_products);
  add_test(suite, "equally far", test_equally_far_clusters);
  add_test(suite, "unreachable tiles", test_unreachable_tiles);
  add_test(suite, "saturated units", test_saturated_units);
  add_test(suite, "opposite values", test_opposite_values);
  add_test(suite, "equal rows tie", test_equal_rows_tie);
  return run_suite(suite);
}
