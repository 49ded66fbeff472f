/* Numbers at their edges: ties, duplicates, cancellation, the ends of the
 * float32 range, underflow, rows without mass. What is a plain number here is
 * worked out by hand in the comment next to it; the rest is the oracle's. */
#include "random_trial.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

static const char *const distance_scores[] = {"euclidean",       "gaussian",   "laplacian",
                                              "boxcar",          "triangular", "epanechnikov",
                                              "inverse_distance"};

/* Compares in every mode, or expects the refusal where float32 can't hold the
 * oracle's answer. An answer within a rounding of FLT_MAX may go either way. */
static void check_any(trial *t) {
  trial_prepare(t);
  double largest = 0;
  for (size_t i = 0; i < t->of.query_count * t->of.rows; i++)
    largest = fmax(largest, fabs(t->weights[i]));
  for (size_t i = 0; i < t->of.query_count * t->of.value_dim; i++)
    largest = fmax(largest, fabs(t->outputs[i]));
  if (largest <= (double)FLT_MAX) {
    trial_check_all(t, 3);
  } else if (largest > (double)FLT_MAX * 1.0001) {
    const asking how = {ATTN_WEIGHTS_FULL, 0, NULL};
    answer a = answer_new(t, &how);
    const attn_status status = trial_attend(t, &how, &a);
    if (status != ATTN_NOT_REPRESENTABLE) TRIAL_FAIL(t, "%s", attn_status_text(status));
    answer_free(&a);
  }
}

/* ---- Ties ---- */

/* Three distinct keys over many tiles; in every rank the lower row comes first. */
START_TEST(test_ties) {
  enum { ROWS = 700, DIM = 3, QUERIES = 4 };
  const size_t rounds = test_rounds(3);
  for (size_t i = 0; i < SCORE_COUNT * NORMALIZATION_COUNT * rounds; i++) {
    const char *score = score_names[i % SCORE_COUNT];
    const char *normalization = normalization_names[i / SCORE_COUNT % NORMALIZATION_COUNT];
    if (takes_other_query_dim(score)) continue;
    rng r = rng_for_case(100000 + i);
    trial t = trial_new(100000 + i, (shape){ROWS, DIM, 2, QUERIES, 0}, score, normalization);
    for (size_t row = 0; row < ROWS; row++)
      fill(t.keys + row * DIM, DIM, (float)rng_between(&r, 0, 2));
    fill_normal(&r, t.queries, QUERIES * DIM, 1);
    fill_normal(&r, t.values, ROWS * 2, 1);
    if (takes_top_k(normalization))
      trial_normalization_number(&t, "top_k", (double)rng_between(&r, 1, ROWS));
    trial_prepare(&t);
    trial_check_all(&t, rng_between(&r, 1, ROWS));
    trial_free(&t);
  }
}
END_TEST

static void expect_top(trial *t, size_t top, const attn_weight *expected, size_t count,
                       const attn_pool *pool) {
  const asking how = {ATTN_WEIGHTS_TOP, top, pool};
  answer a = answer_new(t, &how);
  CHECK_STATUS(ATTN_OK, trial_attend(t, &how, &a));
  if (a.largest_count[0] != count)
    TRIAL_FAIL(t, "%zu rows listed, expected %zu", a.largest_count[0], count);
  for (size_t i = 0; i < count; i++)
    if (a.largest[i].row != expected[i].row ||
        !(fabsf(a.largest[i].weight - expected[i].weight) <= 1e-5f))
      TRIAL_FAIL(t, "entry %zu is row %zu weight %.9g, expected row %zu weight %.9g", i,
                 a.largest[i].row, (double)a.largest[i].weight, expected[i].row,
                 (double)expected[i].weight);
  answer_free(&a);
}

/* One component; keys, values and one query as given. */
static trial line_trial(const char *score, const char *normalization, const float *keys,
                        size_t rows, float query) {
  trial t = trial_new(0, (shape){rows, 1, 1, 1, 0}, score, normalization);
  memcpy(t.keys, keys, rows * sizeof *keys);
  for (size_t i = 0; i < rows; i++)
    t.values[i] = (float)i;
  t.queries[0] = query;
  return t;
}

START_TEST(test_lower_row_wins) {
  const attn_pool pool = backwards_pool(4);
  enum { ROWS = 2000 };
  float *keys = floats_new(ROWS);
  fill(keys, ROWS, 1);
  keys[1500] = keys[700] = keys[1999] = 2;
  for (int pooled = 0; pooled < 2; pooled++) {
    const attn_pool *with = pooled ? &pool : NULL;
    trial t = line_trial("dot", "hardmax", keys, ROWS, 1);
    trial_prepare(&t);
    expect_top(&t, 5, (attn_weight[]){{700, 1}}, 1, with);
    trial_free(&t);

    /* Of the three largest two are kept, and 1/2 each. */
    t = line_trial("dot", "softmax", keys, ROWS, 1);
    trial_normalization_number(&t, "top_k", 2);
    trial_prepare(&t);
    expect_top(&t, 5, (attn_weight[]){{700, 0.5f}, {1500, 0.5f}}, 2, with);
    trial_free(&t);

    /* Five are kept: 3 of score 2 and the first two of score 1, total 8. */
    t = line_trial("dot", "sum", keys, ROWS, 1);
    trial_normalization_number(&t, "top_k", 5);
    trial_prepare(&t);
    expect_top(
        &t, 9,
        (attn_weight[]){{700, 0.25f}, {1500, 0.25f}, {1999, 0.25f}, {0, 0.125f}, {1, 0.125f}}, 5,
        with);
    expect_top(&t, 4, (attn_weight[]){{700, 0.25f}, {1500, 0.25f}, {1999, 0.25f}, {0, 0.125f}}, 4,
               with);
    trial_free(&t);

    t = line_trial("constant", "hardmax", keys, ROWS, 1);
    trial_prepare(&t);
    expect_top(&t, 2, (attn_weight[]){{0, 1}}, 1, with);
    trial_free(&t);

    t = line_trial("constant", "sum", keys, ROWS, 1);
    trial_prepare(&t);
    expect_top(&t, 3, (attn_weight[]){{0, 0.0005f}, {1, 0.0005f}, {2, 0.0005f}}, 3, with);
    trial_free(&t);
  }
  floats_free(keys);
}
END_TEST

/* Ties stay ties where the scores are far beyond +-60: 1/2 each. */
START_TEST(test_ties_of_huge_scores) {
  static const char *const normalizations[] = {"softmax", "sparsemax", "entmax15"};
  const float keys[] = {1e18f, -1, 1e18f, 3, 0};
  for (size_t n = 0; n < COUNT(normalizations); n++) {
    trial t = line_trial("dot", normalizations[n], keys, 5, 1e18f);
    trial_prepare(&t);
    expect_top(&t, 5, (attn_weight[]){{0, 0.5f}, {2, 0.5f}}, 2, NULL);
    trial_free(&t);
  }
}
END_TEST

/* ---- Cancellation ---- */

/* Rows that differ in the last digits only: |q|^2 + |k|^2 - 2q.k would lose
 * everything. */
START_TEST(test_near_duplicates) {
  static const double offsets[] = {1000, -30, 1e6};
  static const double noises[] = {1e-2, 1e-5, 4};
  static const size_t key_dims[] = {1, 2, 16, 100};
  const size_t total =
      COUNT(offsets) * COUNT(key_dims) * COUNT(distance_scores) * NORMALIZATION_COUNT;
  for (size_t i = 0; i < total; i++) {
    const size_t which = i % COUNT(offsets), dk = key_dims[i / 3 % 4];
    const char *score = distance_scores[i / 12 % COUNT(distance_scores)];
    const double unit = noises[which] * sqrt(2 * (double)dk);
    rng r = rng_for_case(200000 + i);
    trial t = trial_new(200000 + i, (shape){90, dk, 3, 5, 0}, score,
                        normalization_names[i / 12 / COUNT(distance_scores)]);
    fill_normal(&r, t.values, 90 * 3, 1);
    for (size_t j = 0; j < 90 * dk; j++)
      t.keys[j] = (float)(offsets[which] + noises[which] * rng_normal(&r));
    for (size_t j = 0; j < 5 * dk; j++)
      t.queries[j] = (float)(offsets[which] + noises[which] * rng_normal(&r));
    memcpy(t.queries, t.keys + 3 * dk, dk * sizeof(float));
    if (score_is(&t, "euclidean"))
      trial_number(&t, "scale", 3 / unit);
    else if (score_is(&t, "inverse_distance"))
      trial_number(&t, "epsilon", unit * unit / 10);
    else
      trial_number(&t, score_is(&t, "gaussian") || score_is(&t, "laplacian") ? "sigma" : "radius",
                   unit);
    check_any(&t);
    trial_free(&t);
  }
}
END_TEST

/* cosine of rows that all point the same way, and of rows of any length. */
START_TEST(test_cosine_of_any_length) {
  static const float lengths[] = {1, 1e18f, 1e-18f, 1e-30f, 1e30f};
  for (size_t i = 0; i < COUNT(lengths) * COUNT(lengths); i++) {
    rng r = rng_for_case(300000 + i);
    trial t = trial_new(300000 + i, (shape){40, 7, 2, 3, 0}, "cosine", "softmax");
    trial_number(&t, "scale", 20);
    fill_normal(&r, t.keys, 40 * 7, (double)lengths[i / COUNT(lengths)]);
    fill_normal(&r, t.queries, 3 * 7, (double)lengths[i % COUNT(lengths)]);
    fill_normal(&r, t.values, 40 * 2, 1);
    check_any(&t);
    for (size_t j = 0; j < 40 * 7; j++)
      t.keys[j] = (float)(1000 + rng_normal(&r));
    check_any(&t);
    trial_free(&t);
  }
}
END_TEST

/* ---- The ends of float32 ---- */

/* Uniform up to `magnitude`, which a normal deviate would exceed. */
static void fill_uniform(rng *r, float *data, size_t count, double magnitude) {
  for (size_t i = 0; i < count; i++)
    data[i] = (float)rng_range(r, -magnitude, magnitude);
}

START_TEST(test_magnitudes) {
  static const double magnitudes[] = {1, 1e18, 1e30, 3e38, 1e-18, 1e-30, 1e-42};
  const size_t kinds = COUNT(magnitudes);
  for (size_t i = 0; i < SCORE_COUNT * NORMALIZATION_COUNT * kinds * kinds; i++) {
    const double of_keys = magnitudes[i % kinds], of_queries = magnitudes[i / kinds % kinds];
    const char *score = score_names[i / kinds / kinds % SCORE_COUNT];
    const char *normalization = normalization_names[i / kinds / kinds / SCORE_COUNT];
    if (takes_other_query_dim(score)) continue;
    rng r = rng_for_case(400000 + i);
    trial t = trial_new(400000 + i, (shape){23, 5, 2, 3, 0}, score, normalization);
    fill_uniform(&r, t.keys, 23 * 5, of_keys);
    fill_uniform(&r, t.queries, 3 * 5, of_queries);
    fill_uniform(&r, t.values, 23 * 2, magnitudes[rng_between(&r, 0, kinds - 1)]);
    const double unit = fmax(of_keys, of_queries) * 3;
    if (rng_chance(&r, 0.7)) {
      if (score_is(&t, "gaussian") || score_is(&t, "laplacian"))
        trial_number(&t, "sigma", unit * rng_range(&r, 0.1, 1));
      else if (score_is(&t, "boxcar") || score_is(&t, "triangular") || score_is(&t, "epanechnikov"))
        trial_number(&t, "radius", unit);
      else if (score_is(&t, "euclidean"))
        trial_number(&t, "scale", 1 / unit);
    }
    check_any(&t);
    trial_free(&t);
  }
}
END_TEST

/* The tensors of bilinear and additive are inputs like any other. */
START_TEST(test_magnitudes_of_tensors) {
  static const double magnitudes[] = {1, 1e18, 3e38, 1e-30, 1e-42};
  const size_t kinds = COUNT(magnitudes);
  for (size_t i = 0; i < kinds * kinds * kinds * NORMALIZATION_COUNT; i++) {
    const double of_tensor = magnitudes[i % kinds], of_data = magnitudes[i / kinds % kinds];
    const double of_v = magnitudes[i / kinds / kinds % kinds];
    const char *normalization = normalization_names[i / kinds / kinds / kinds];
    for (int additive = 0; additive < 2; additive++) {
      rng r = rng_for_case(500000 + 2 * i + (uint64_t)additive);
      trial t = trial_new(500000 + 2 * i + (uint64_t)additive, (shape){19, 4, 2, 2, 3},
                          additive ? "additive" : "bilinear", normalization);
      fill_uniform(&r, t.keys, 19 * 4, of_data);
      fill_uniform(&r, t.queries, 2 * 3, additive ? of_data : of_v);
      fill_uniform(&r, t.values, 19 * 2, 1);
      if (additive) {
        fill_uniform(&r, trial_tensor(&t, "w_q", 6, 3), 6 * 3, of_tensor);
        fill_uniform(&r, trial_tensor(&t, "w_k", 6, 4), 6 * 4, of_tensor);
        fill_uniform(&r, trial_tensor(&t, "v", 6, 1), 6, of_v);
      } else {
        fill_uniform(&r, trial_tensor(&t, "w", 3, 4), 3 * 4, of_tensor);
      }
      check_any(&t);
      trial_free(&t);
    }
  }
}
END_TEST

/* A convex combination of float32 numbers is one, also next to FLT_MAX. */
START_TEST(test_convex_combinations_of_huge_values) {
  static const char *const normalizations[] = {"softmax", "sum", "sparsemax", "entmax15",
                                               "hardmax"};
  static const size_t rows[] = {1, 3, 7, 100, 1000};
  static const char *const scores[] = {"constant", "dot", "gaussian", "triangular"};
  for (size_t i = 0; i < COUNT(normalizations) * COUNT(rows) * COUNT(scores); i++) {
    const size_t m = rows[i / COUNT(normalizations) % COUNT(rows)];
    rng r = rng_for_case(600000 + i);
    trial t = trial_new(600000 + i, (shape){m, 4, 3, 9, 0},
                        scores[i / COUNT(normalizations) / COUNT(rows)],
                        normalizations[i % COUNT(normalizations)]);
    fill_uniform(&r, t.keys, m * 4, 0.4);
    fill_uniform(&r, t.queries, 9 * 4, 0.4);
    for (size_t q = 0; q < 9 * 4; q++)
      t.queries[q] = fabsf(t.queries[q]);
    if (score_is(&t, "dot")) /* nonnegative scores, so that `sum` is convex too */
      for (size_t j = 0; j < m * 4; j++)
        t.keys[j] = fabsf(t.keys[j]);
    fill(t.values, m * 3, FLT_MAX);
    for (size_t j = 0; j < m; j++) {
      t.values[j * 3 + 1] = -FLT_MAX;
      t.values[j * 3 + 2] = rng_chance(&r, 0.5) ? FLT_MAX : -3e38f;
    }
    trial_prepare(&t);
    trial_check_all(&t, 3);
    trial_free(&t);
  }
}
END_TEST

static void expect_refusal(trial *t, size_t bad_query) {
  static const attn_weights_mode modes[] = {ATTN_WEIGHTS_NONE, ATTN_WEIGHTS_FULL, ATTN_WEIGHTS_TOP};
  const attn_pool pool = backwards_pool(3);
  trial_prepare(t);
  for (size_t i = 0; i < COUNT(modes) * 2; i++) {
    const asking how = {modes[i / 2], 2, NULL};
    answer a = answer_new(t, &how);
    const attn_request request = trial_request(t, &how);
    attn_result result = trial_result(t, &request, &a);
    const attn_status status = attn_attend(t->snapshot, &request, &result, i % 2 ? &pool : NULL);
    if (status != ATTN_NOT_REPRESENTABLE || result.fault_query != bad_query)
      TRIAL_FAIL(t, "mode %d%s: %s, query %zu named, %zu is at fault", (int)how.mode,
                 i % 2 ? " pool" : "", attn_status_text(status), result.fault_query, bad_query);
    CHECK_STATUS(ATTN_NOT_REPRESENTABLE, attn_attend(t->snapshot, &request, &result, NULL));
    answer_free(&a);
  }
}

START_TEST(test_not_representable) {
  /* A score of 1e60 as a weight. */
  trial t = trial_new(1, (shape){40, 3, 2, 8, 0}, "dot", "none");
  fill(t.keys, 40 * 3, 1e30f);
  fill(t.queries, 8 * 3, 1e-30f);
  fill(t.queries + 5 * 3, 3, 1e30f);
  fill(t.values, 40 * 2, 1);
  expect_refusal(&t, 5);
  trial_free(&t);

  /* Weights of 40, values of 3e38. */
  t = trial_new(2, (shape){1, 1, 1, 4, 0}, "dot", "none");
  t.keys[0] = 4;
  fill(t.queries, 4, 0.1f);
  t.queries[2] = 10;
  t.values[0] = 3e38f;
  expect_refusal(&t, 2);
  trial_free(&t);

  /* 2000 weights of 1/2, values of 1e36: 1e39. */
  t = trial_new(3, (shape){2000, 2, 2, 3, 0}, "dot", "sigmoid");
  fill(t.values, 2000 * 2, 1e36f);
  fill(t.keys, 2000 * 2, 1);
  fill(t.queries, 3 * 2, -60);
  fill(t.queries + 2, 2, 0);
  expect_refusal(&t, 1);
  trial_free(&t);
}
END_TEST

/* ---- Underflow ---- */

/* Far from every key, in units of sigma: the scores are all 0 in float64, the
 * answer is still the nearest keys' combination. */
START_TEST(test_far_queries) {
  static const struct {
    double away, sigma;
  } cases[] = {{1e4, 1e-3}, {1e5, 1e3}, {1e7, 1e4}, {100, 1}, {100, 10}, {1e30, 1e15}, {3, 1e-30}};
  for (size_t i = 0; i < COUNT(cases) * 6; i++) {
    rng r = rng_for_case(700000 + i);
    trial t =
        trial_new(700000 + i, (shape){300, 3, 2, 6, 0}, i % 2 ? "gaussian" : "laplacian", "sum");
    fill_normal(&r, t.keys, 300 * 3, 1);
    memcpy(t.keys + 100 * 3, t.keys, 100 * 3 * sizeof(float)); /* so that halves occur */
    fill_normal(&r, t.values, 300 * 2, 1);
    fill_normal(&r, t.queries, 6 * 3, 1);
    for (size_t q = 0; q < 6 * 3; q++)
      t.queries[q] += (float)cases[i / 6].away;
    trial_number(&t, "sigma", cases[i / 6].sigma);
    if (i % 3 == 1) trial_normalization_number(&t, "top_k", 5);
    trial_prepare(&t);
    trial_check_all(&t, 4);
    for (size_t j = 0; j < 6 * 300; j++)
      ck_assert(isfinite(t.weights[j]));
    trial_free(&t);
  }
}
END_TEST

START_TEST(test_temperatures) {
  static const double temperatures[] = {1e-310, 1e-45, 1e-30, 1e-6, 0.01, 100, 1e6, 1e30, 1e300};
  static const char *const scores[] = {"dot", "euclidean", "cosine", "gaussian",
                                       "inverse_distance"};
  for (size_t i = 0; i < COUNT(temperatures) * COUNT(scores); i++) {
    rng r = rng_for_case(800000 + i);
    trial t = trial_new(800000 + i, (shape){200, 4, 2, 5, 0}, scores[i % COUNT(scores)], "softmax");
    fill_normal(&r, t.keys, 200 * 4, 1);
    fill_normal(&r, t.queries, 5 * 4, 1);
    fill_normal(&r, t.values, 200 * 2, 1);
    trial_normalization_number(&t, "temperature", temperatures[i / COUNT(scores)]);
    trial_prepare(&t);
    /* Only the winner is certain where the temperature magnifies the error of
     * the scores; gaussian has no exemption of its own in trial_is_open(). */
    for (size_t q = 0; q < 5 && score_is(&t, "gaussian"); q++)
      t.verdicts[q].open = t.verdicts[q].open || temperatures[i / COUNT(scores)] < 0.01;
    trial_check_all(&t, 3);
    trial_free(&t);
  }
}
END_TEST

/* ---- No mass ---- */

START_TEST(test_zero_rows_of_cosine) {
  static const char *const normalizations[] = {"softmax", "none", "sum", "hardmax", "sigmoid"};
  for (size_t n = 0; n < COUNT(normalizations); n++) {
    rng r = rng_for_case(900000 + n);
    trial t = trial_new(900000 + n, (shape){60, 5, 2, 4, 0}, "cosine", normalizations[n]);
    fill_normal(&r, t.keys, 60 * 5, 1);
    for (size_t i = 0; i < 60; i += 7)
      fill(t.keys + i * 5, 5, i % 2 ? 0.0f : -0.0f);
    fill_normal(&r, t.queries, 4 * 5, 1);
    fill(t.queries + 5, 5, 0);
    fill_normal(&r, t.values, 60 * 2, 1);
    check_any(&t);
    fill(t.keys, 60 * 5, 0);
    check_any(&t);
    trial_free(&t);
  }
}
END_TEST

/* Nothing in reach of the odd queries; the even ones share the batch. */
START_TEST(test_no_mass) {
  static const char *const scores[] = {"boxcar", "triangular", "epanechnikov", "exact", "dot"};
  const attn_pool pool = backwards_pool(3);
  for (size_t i = 0; i < COUNT(scores) * 4; i++) {
    rng r = rng_for_case(1000000 + i);
    trial t = trial_new(1000000 + i, (shape){800, 2, 3, 6, 0}, scores[i % COUNT(scores)], "sum");
    fill_normal(&r, t.keys, 800 * 2, 0.2);
    fill_normal(&r, t.values, 800 * 3, 1);
    for (size_t q = 0; q < 6; q++) {
      memcpy(t.queries + q * 2, t.keys, 2 * sizeof(float));
      if (q % 2 == 1) fill(t.queries + q * 2, 2, score_is(&t, "dot") ? 0.0f : 50.0f);
    }
    if (i / COUNT(scores) % 2 == 1) trial_normalization_number(&t, "top_k", 7);
    trial_prepare(&t);
    trial_check_all(&t, 5);
    const attn_weights_mode mode = i % 2 ? ATTN_WEIGHTS_TOP : ATTN_WEIGHTS_FULL;
    const asking how = {mode, 5, &pool};
    answer a = answer_new(&t, &how);
    CHECK_STATUS(ATTN_OK, trial_attend(&t, &how, &a));
    for (size_t q = 1; q < 6; q += 2) {
      for (size_t c = 0; c < 3; c++)
        if (a.outputs[q * 3 + c] != 0) TRIAL_FAIL(&t, "query %zu has an output, but no mass", q);
      for (size_t row = 0; row < 800 && mode == ATTN_WEIGHTS_FULL; row++)
        if (a.weights[q * 800 + row] != 0) TRIAL_FAIL(&t, "query %zu has a weight, but no mass", q);
      if (mode == ATTN_WEIGHTS_TOP && a.largest_count[q] != 0)
        TRIAL_FAIL(&t, "query %zu has rows listed, but no mass", q);
    }
    answer_free(&a);
    trial_free(&t);
  }
}
END_TEST

/* ---- Signs ---- */

START_TEST(test_negative_totals) {
  /* Scores -1, -3, 2, -2; total -4. */
  const float keys[] = {-1, -3, 2, -2};
  trial t = line_trial("dot", "sum", keys, 4, 1);
  trial_prepare(&t);
  expect_top(&t, 4, (attn_weight[]){{1, 0.75f}, {3, 0.5f}, {0, 0.25f}, {2, -0.5f}}, 4, NULL);
  expect_top(&t, 2, (attn_weight[]){{1, 0.75f}, {3, 0.5f}}, 2, NULL);
  trial_free(&t);
  /* Kept are 2 and -1; total 1. */
  t = line_trial("dot", "sum", keys, 4, 1);
  trial_normalization_number(&t, "top_k", 2);
  trial_prepare(&t);
  expect_top(&t, 1, (attn_weight[]){{2, 2}}, 1, NULL);
  trial_free(&t);

  const char *const scores[] = {"dot", "euclidean", "cosine"};
  for (size_t i = 0; i < 30; i++) {
    rng r = rng_for_case(1100000 + i);
    t = trial_new(1100000 + i, (shape){600, 4, 2, 5, 0}, scores[i % 3], i < 15 ? "sum" : "none");
    fill_normal(&r, t.keys, 600 * 4, 1);
    fill_normal(&r, t.values, 600 * 2, 1);
    for (size_t q = 0; q < 5 * 4; q++) {
      t.queries[q] = (float)rng_range(&r, 0, 1);
      for (size_t j = 0; j < 100; j++)
        t.keys[j * 4 + q % 4] -= 0.5f;
    }
    trial_prepare(&t);
    trial_check_all(&t, rng_between(&r, 1, 605));
    trial_free(&t);
  }
}
END_TEST

/* ---- Decisions ---- */

START_TEST(test_exact_is_exact) {
  /* -0 equals 0; the next float does not, were it the smallest subnormal. */
  const float keys[] = {0, -0.0f, 1e-45f, 1e-38f};
  trial t = line_trial("exact", "sum", keys, 4, -0.0f);
  trial_prepare(&t);
  expect_top(&t, 4, (attn_weight[]){{0, 0.5f}, {1, 0.5f}}, 2, NULL);
  t.queries[0] = 1e-45f;
  expect_top(&t, 4, (attn_weight[]){{2, 1}}, 1, NULL);
  trial_free(&t);

  const float neighbours[] = {1, nextafterf(1, 2), nextafterf(1, 0), FLT_MAX,
                              nextafterf(FLT_MAX, 0)};
  for (size_t i = 0; i < COUNT(neighbours); i++) {
    t = line_trial("exact", "hardmax", neighbours, COUNT(neighbours), neighbours[i]);
    trial_prepare(&t);
    expect_top(&t, 4, (attn_weight[]){{i, 1}}, 1, NULL);
    trial_free(&t);
  }
}
END_TEST

/* A row at a distance of exactly the radius is within it: 3, 4 and 5. */
START_TEST(test_boxcar_includes_its_edge) {
  const float keys[] = {3, 4, 0, 0, -3, 4, 4, 4};
  trial t = trial_new(0, (shape){4, 2, 1, 1, 0}, "boxcar", "sum");
  memcpy(t.keys, keys, sizeof keys);
  trial_number(&t, "radius", 5);
  trial_prepare(&t);
  expect_top(&t, 4, (attn_weight[]){{0, 1 / 3.0f}, {1, 1 / 3.0f}, {2, 1 / 3.0f}}, 3, NULL);
  trial_free(&t);
}
END_TEST

/* epsilon = 0 makes inverse_distance interpolate: an equal key takes all. */
START_TEST(test_inverse_distance_without_epsilon) {
  const float keys[] = {1, 2, 3, 2};
  trial t = line_trial("inverse_distance", "sum", keys, 4, 2.5f);
  trial_number(&t, "epsilon", 0);
  trial_prepare(&t);
  trial_check_all(&t, 3);
  t.queries[0] = 2;
  expect_top(&t, 4, (attn_weight[]){{1, 0.5f}, {3, 0.5f}}, 2, NULL);
  trial_free(&t);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("numerics");
  add_test(suite, "ties", test_ties);
  add_test(suite, "lower row wins", test_lower_row_wins);
  add_test(suite, "ties of huge scores", test_ties_of_huge_scores);
  add_test(suite, "near duplicates", test_near_duplicates);
  add_test(suite, "cosine of any length", test_cosine_of_any_length);
  add_test(suite, "magnitudes", test_magnitudes);
  add_test(suite, "magnitudes of tensors", test_magnitudes_of_tensors);
  add_test(suite, "convex combinations", test_convex_combinations_of_huge_values);
  add_test(suite, "not representable", test_not_representable);
  add_test(suite, "far queries", test_far_queries);
  add_test(suite, "temperatures", test_temperatures);
  add_test(suite, "zero rows of cosine", test_zero_rows_of_cosine);
  add_test(suite, "no mass", test_no_mass);
  add_test(suite, "negative totals", test_negative_totals);
  add_test(suite, "exact", test_exact_is_exact);
  add_test(suite, "boxcar's edge", test_boxcar_includes_its_edge);
  add_test(suite, "epsilon 0", test_inverse_distance_without_epsilon);
  return run_suite(suite);
}
