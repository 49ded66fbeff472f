/* A *table*: what a snapshot should hold, as plain arrays of rows, for the
 * suites that change snapshots.
 *
 * The invariant: a table's numbers are as the dtype keeps them, so that they are
 * to be found in the snapshot bit by bit. They are rounded by a memory of their
 * own, a panel at a time; that this rounds rightly is test_dtype's concern. */
#ifndef TESTS_UNIT_LIB_TABLE_H
#define TESTS_UNIT_LIB_TABLE_H

#include "memory/snapshot.h"

#include "trial.h"

enum { DTYPES = 4 };
#define COUNT(array) (sizeof(array) / sizeof *(array))

/* Runs a test with each dtype as its index. */
static inline void add_dtype_test(Suite *suite, const char *name, const TTest *test) {
  TCase *tcase = tcase_create(name);
  tcase_set_timeout(tcase, 0);
  tcase_add_loop_test(tcase, test, 0, DTYPES);
  suite_add_tcase(suite, tcase);
}

typedef struct table {
  size_t rows, dk, dv;
  float *keys, *values;
} table;

static inline table table_empty(size_t dk, size_t dv) {
  return (table){0, dk, dv, floats_new(0), floats_new(0)};
}

static inline void table_free(table *t) {
  ck_assert(floats_are_intact(t->keys, t->rows * t->dk));
  ck_assert(floats_are_intact(t->values, t->rows * t->dv));
  floats_free(t->keys);
  floats_free(t->values);
}

static inline attn_snapshot *empty_memory(size_t dk, size_t dv, attn_dtype dtype) {
  attn_snapshot *empty = NULL;
  CHECK_STATUS(ATTN_OK, attn_snapshot_create_typed(&empty, dk, dv, dtype));
  return empty;
}

static inline attn_snapshot *memory_of(const table *t, attn_dtype dtype) {
  attn_snapshot *empty = empty_memory(t->dk, t->dv, dtype), *memory = NULL;
  CHECK_STATUS(ATTN_OK, attn_snapshot_append(&memory, empty, t->keys, t->values, t->rows));
  attn_snapshot_free(empty);
  return memory;
}

/* Takes the reference to `base`. */
static inline attn_snapshot *edited(attn_snapshot *base, const attn_edit *edit) {
  attn_snapshot *made = NULL;
  CHECK_STATUS(ATTN_OK, attn_snapshot_edit(&made, base, edit));
  attn_snapshot_free(base);
  return made;
}

/* Random rows, as the dtype keeps them; some keys and values are 0, some are
 * large. */
static inline table table_random(rng *r, size_t rows, size_t dk, size_t dv, attn_dtype dtype) {
  table t = {rows, dk, dv, floats_new(rows * dk), floats_new(rows * dv)};
  const double size = 1.7 / sqrt((double)dk);
  for (size_t i = 0; i < rows * dk; i++)
    t.keys[i] = (float)rng_range(r, -size, size);
  for (size_t i = 0; i < rows * dv; i++)
    t.values[i] = (float)rng_range(r, -1.7, 1.7);
  for (size_t row = 0; row < rows; row++) {
    if (rng_chance(r, 0.03)) fill(t.keys + row * dk, dk, 0);
    if (rng_chance(r, 0.03)) fill(t.values + row * dv, dv, 0);
    if (rng_chance(r, 0.03)) t.keys[row * dk + rng_between(r, 0, dk - 1)] *= 8;
    if (rng_chance(r, 0.03)) t.values[row * dv + rng_between(r, 0, dv - 1)] *= 8;
  }
  attn_snapshot *kept = memory_of(&t, dtype);
  for (size_t row = 0; row < rows; row++)
    CHECK_STATUS(ATTN_OK, attn_snapshot_get_row(kept, row, t.keys + row * dk, t.values + row * dv));
  attn_snapshot_free(kept);
  return t;
}

/* ---- What a snapshot must be like ---- */

static inline bool same_bits(const float *a, const float *b, size_t count) {
  return count == 0 || memcmp(a, b, count * sizeof *a) == 0;
}

static inline void check_rows(const attn_snapshot *snapshot, const table *t) {
  ck_assert_uint_eq(attn_snapshot_rows(snapshot), t->rows);
  float *key = floats_new(t->dk), *value = floats_new(t->dv);
  for (size_t row = 0; row < t->rows; row++) {
    CHECK_STATUS(ATTN_OK, attn_snapshot_get_row(snapshot, row, key, value));
    ck_assert_msg(same_bits(key, t->keys + row * t->dk, t->dk) &&
                      same_bits(value, t->values + row * t->dv, t->dv),
                  "row %zu of %zu (dk %zu, dv %zu) differs", row, t->rows, t->dk, t->dv);
  }
  ck_assert(floats_are_intact(key, t->dk) && floats_are_intact(value, t->dv));
  floats_free(key);
  floats_free(value);
}

/* The stats are those of the rows and of nothing that was there before. */
static inline void check_stats(const attn_snapshot *snapshot, const table *t) {
  struct attn_block_stats stats = {.min_norm = INFINITY};
  for (size_t row = 0; row < t->rows; row++) {
    double sum = 0;
    for (size_t i = 0; i < t->dk; i++)
      sum += (double)t->keys[row * t->dk + i] * (double)t->keys[row * t->dk + i];
    stats.max_norm = fmax(stats.max_norm, sqrt(sum));
    if (sum > 0) stats.min_norm = fmin(stats.min_norm, sqrt(sum));
  }
  for (size_t i = 0; i < t->rows * t->dv; i++)
    stats.max_value = fmax(stats.max_value, fabs((double)t->values[i]));
  ck_assert_double_eq(snapshot->stats.max_norm, stats.max_norm);
  ck_assert(snapshot->stats.min_norm == stats.min_norm);
  ck_assert_double_eq(snapshot->stats.max_value, stats.max_value);
}

static inline bool same_layout(const attn_snapshot *a, const attn_snapshot *b) {
  if (attn_snapshot_block_count(a) != attn_snapshot_block_count(b)) return false;
  for (size_t i = 0; i < attn_snapshot_block_count(a); i++)
    if (attn_block_rows(attn_snapshot_block(a, i)) != attn_block_rows(attn_snapshot_block(b, i)))
      return false;
  return true;
}

/* ---- Answers ---- */

static const char *const table_pairs[][2] = {
    {"dot", "softmax"}, {"gaussian", "sum"}, {"cosine", "sparsemax"}, {"euclidean", "softmax"}};

/* By the oracle's measure: the table is asked, the snapshot answers. */
static inline void check_answers(uint64_t index, const attn_snapshot *snapshot, const table *t) {
  if (t->rows == 0) return;
  rng r = rng_for_case(index);
  const char *const *pair = table_pairs[index % COUNT(table_pairs)];
  trial asked = trial_new(index, (shape){t->rows, t->dk, t->dv, 3, 0}, pair[0], pair[1]);
  memcpy(asked.keys, t->keys, t->rows * t->dk * sizeof(float));
  memcpy(asked.values, t->values, t->rows * t->dv * sizeof(float));
  fill_normal(&r, asked.queries, 3 * t->dk, 1);
  trial_prepare(&asked);
  attn_snapshot_free(asked.snapshot);
  asked.snapshot = attn_snapshot_ref((attn_snapshot *)snapshot);
  trial_check_all(&asked, 4);
  trial_free(&asked);
}

/* Outputs and weights of both to the same queries, bit by bit. */
static inline void check_same_answers(uint64_t index, const attn_snapshot *a,
                                      const attn_snapshot *b) {
  enum { QUERIES = 3 };
  const size_t rows = attn_snapshot_rows(a), dk = attn_snapshot_key_dim(a);
  const size_t dv = attn_snapshot_value_dim(a);
  const attn_snapshot *const both[] = {a, b};
  ck_assert_uint_eq(attn_snapshot_rows(b), rows);
  if (rows == 0) return;
  rng r = rng_for_case(index);
  float *queries = floats_new(QUERIES * dk), *outputs[2], *weights[2];
  fill_normal(&r, queries, QUERIES * dk, 1);
  for (size_t p = 0; p < COUNT(table_pairs); p++) {
    attn_score *score = NULL;
    attn_normalization *norm = NULL;
    CHECK_STATUS(ATTN_OK, attn_score_create(&score, table_pairs[p][0], NULL, 0, NULL));
    CHECK_STATUS(ATTN_OK, attn_normalization_create(&norm, table_pairs[p][1], NULL, 0, NULL));
    for (size_t i = 0; i < 2; i++) {
      outputs[i] = floats_new(QUERIES * dv);
      weights[i] = floats_new(QUERIES * rows);
      const attn_request request = {.queries = queries,
                                    .query_count = QUERIES,
                                    .query_dim = dk,
                                    .score = score,
                                    .normalization = norm,
                                    .weights_mode = ATTN_WEIGHTS_FULL};
      attn_result result = attn_result_for(both[i], &request);
      result.outputs = outputs[i];
      result.weights = weights[i];
      CHECK_STATUS(ATTN_OK, attn_attend(both[i], &request, &result, NULL));
    }
    ck_assert_msg(same_bits(outputs[0], outputs[1], QUERIES * dv) &&
                      same_bits(weights[0], weights[1], QUERIES * rows),
                  "case %llu: %s and %s give other bits", (unsigned long long)index,
                  table_pairs[p][0], table_pairs[p][1]);
    for (size_t i = 0; i < 2; i++) {
      floats_free(outputs[i]);
      floats_free(weights[i]);
    }
    attn_score_free(score);
    attn_normalization_free(norm);
  }
  floats_free(queries);
}

#endif
