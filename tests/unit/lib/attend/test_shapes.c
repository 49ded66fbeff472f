/* Shapes that are no multiple of anything: one row, one component, one query,
 * a row more or less than a power of two, thousands of components, hundreds of
 * queries. The kernels cut everything into tiles, and the ragged last tile is
 * where such code goes wrong. */
#include "random_trial.h"

static const size_t row_counts[] = {1, 2, 3, 15, 16, 17, 127, 129, 255, 257, 511, 513, 1000, 4097};
static const size_t dims[] = {1,  2,  3,  7,   8,   9,   15,  16,  17,   31,  33,
                              63, 64, 65, 100, 255, 256, 257, 768, 1000, 4096};
static const size_t query_counts[] = {1, 2, 3, 5, 6, 7, 8, 12, 13, 16, 31, 64, 65, 100, 300};
#define COUNT(array) (sizeof(array) / sizeof *(array))

/* The oracle's work per query and row, held to a limit by fewer queries. */
static const double work_limit = 1.5e7;

static size_t affordable(size_t queries, size_t rows, size_t dim) {
  const double most = work_limit / ((double)rows * (double)dim);
  return (double)queries <= most ? queries : most < 1 ? 1 : (size_t)most;
}

static void check_shape(uint64_t index, shape of, const char *score, const char *normalization) {
  trial t = trial_random(index, of, score, normalization);
  const attn_pool pool = backwards_pool(2);
  rng r = rng_for_case(index + 1);
  trial_prepare(&t);
  trial_check(&t, (asking){ATTN_WEIGHTS_FULL, 0, NULL});
  trial_check(&t, (asking){ATTN_WEIGHTS_NONE, 0, &pool});
  trial_check(&t, (asking){ATTN_WEIGHTS_TOP, rng_between(&r, 1, 20), &pool});
  trial_free(&t);
}

/* The cheap scores more often: `additive` costs the oracle h times as much. */
static const char *random_score(rng *r, shape *of) {
  const char *score = score_names[rng_between(r, 0, SCORE_COUNT - 1)];
  if (strcmp(score, "additive") == 0 && of->rows * of->key_dim > 20000) score = "gaussian";
  if (takes_other_query_dim(score)) {
    of->query_dim = dims[rng_between(r, 0, 15)];
    of->query_count = affordable(of->query_count, of->rows, of->query_dim * of->key_dim);
    if ((double)of->rows * (double)of->query_dim * (double)of->key_dim > work_limit)
      of->query_dim = 3;
  }
  return score;
}

START_TEST(test_row_counts) {
  const size_t rounds = test_rounds(3);
  for (size_t i = 0; i < COUNT(row_counts); i++)
    for (size_t round = 0; round < rounds * NORMALIZATION_COUNT; round++) {
      const uint64_t index = 1000000 + i * 10000 + 2 * round;
      rng r = rng_for_case(index + 5000);
      const size_t dk = dims[rng_between(&r, 0, 12)];
      const size_t batch = query_counts[rng_between(&r, 0, 7)];
      shape of = {.rows = row_counts[i],
                  .key_dim = dk,
                  .value_dim = dims[rng_between(&r, 0, 12)],
                  .query_count = affordable(batch, row_counts[i], dk * 12)};
      const char *score = random_score(&r, &of);
      check_shape(index, of, score, normalization_names[round % NORMALIZATION_COUNT]);
    }
}
END_TEST

START_TEST(test_key_dims) {
  const size_t rounds = test_rounds(4);
  for (size_t i = 0; i < COUNT(dims); i++)
    for (size_t round = 0; round < rounds * 2; round++) {
      const uint64_t index = 2000000 + i * 10000 + 2 * round;
      rng r = rng_for_case(index + 5000);
      const size_t rows = rng_between(&r, 1, dims[i] > 300 ? 150 : 600);
      const size_t batch = query_counts[rng_between(&r, 0, 10)];
      shape of = {.rows = rows,
                  .key_dim = dims[i],
                  .value_dim = rng_between(&r, 1, 5),
                  .query_count = affordable(batch, rows, dims[i] * 4)};
      const char *score = random_score(&r, &of);
      check_shape(index, of, score, normalization_names[rng_between(&r, 0, 6)]);
    }
}
END_TEST

START_TEST(test_value_dims) {
  for (size_t i = 0; i < COUNT(dims); i++)
    for (size_t n = 0; n < NORMALIZATION_COUNT; n++) {
      const uint64_t index = 3000000 + i * 10000 + 2 * n;
      rng r = rng_for_case(index + 5000);
      const size_t rows = rng_between(&r, 1, dims[i] > 300 ? 60 : 300);
      const size_t batch = query_counts[rng_between(&r, 0, 9)];
      shape of = {.rows = rows,
                  .key_dim = rng_between(&r, 1, 6),
                  .value_dim = dims[i],
                  .query_count = affordable(batch, rows, dims[i] * 4)};
      const char *score = random_score(&r, &of);
      check_shape(index, of, score, normalization_names[n]);
    }
}
END_TEST

START_TEST(test_query_counts) {
  const size_t rounds = test_rounds(2);
  for (size_t i = 0; i < COUNT(query_counts); i++)
    for (size_t round = 0; round < rounds * 3; round++) {
      const uint64_t index = 4000000 + i * 10000 + 2 * round;
      rng r = rng_for_case(index + 5000);
      shape of = {.rows = rng_between(&r, 1, 300),
                  .key_dim = rng_between(&r, 1, 20),
                  .value_dim = rng_between(&r, 1, 20),
                  .query_count = query_counts[i]};
      const char *score = score_names[rng_between(&r, 0, SCORE_COUNT - 1)];
      of.query_dim = takes_other_query_dim(score) ? rng_between(&r, 1, 12) : 0;
      check_shape(index, of, score, normalization_names[rng_between(&r, 0, 6)]);
    }
}
END_TEST

START_TEST(test_many_rows) {
  static const char *const pairs[][2] = {{"dot", "softmax"},    {"gaussian", "sum"},
                                         {"constant", "sum"},   {"euclidean", "entmax15"},
                                         {"cosine", "softmax"}, {"dot", "hardmax"}};
  for (size_t i = 0; i < COUNT(pairs); i++)
    check_shape(5000000 + 2 * i, (shape){100003, 8, 3, 2, 0}, pairs[i][0], pairs[i][1]);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("shapes");
  add_test(suite, "row counts", test_row_counts);
  add_test(suite, "key dims", test_key_dims);
  add_test(suite, "value dims", test_value_dims);
  add_test(suite, "query counts", test_query_counts);
  add_test(suite, "many rows", test_many_rows);
  return run_suite(suite);
}
