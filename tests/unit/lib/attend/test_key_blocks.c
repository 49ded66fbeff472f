/* Key blocks: wide rows come in short tiles, several of which are scored before the weights
 * are multiplied by their values. Whatever blocks of memory the rows are in, the answer is the
 * oracle's, and a query gets the same bits alone and in a batch. */
#include "table.h"

enum { WIDTH = 700, ROWS = 1500, NARROW_ROWS = 4500, QUERIES = 70 };

/* Rows first .. end - 1 of a table, in blocks of their own. */
static size_t take_blocks(attn_block **blocks, const table *t, size_t first, size_t end,
                          attn_dtype dtype) {
  const table piece = {end - first, t->dk, t->dv, t->keys + first * t->dk,
                       t->values + first * t->dv};
  attn_snapshot *memory = memory_of(&piece, dtype);
  const size_t count = attn_snapshot_block_count(memory);
  for (size_t b = 0; b < count; b++)
    blocks[b] = attn_block_ref(attn_snapshot_block(memory, b));
  attn_snapshot_free(memory);
  return count;
}

/* The same rows in blocks that end anywhere, within panels too. */
static attn_snapshot *ragged(rng *r, const table *t, attn_dtype dtype) {
  attn_block **blocks = must_alloc(t->rows, sizeof(attn_block *));
  attn_snapshot *empty = empty_memory(t->dk, t->dv, dtype), *made = NULL;
  size_t count = 0;
  for (size_t row = 0, end; row < t->rows; row = end) {
    end = row + rng_between(r, 1, rng_chance(r, 0.3) ? 40 : 700);
    if (end > t->rows) end = t->rows;
    count += take_blocks(blocks + count, t, row, end, dtype);
  }
  CHECK_STATUS(ATTN_OK, attn_snapshot_assemble(&made, empty, blocks, count));
  ck_assert_uint_gt(count, 2);
  while (count > 0)
    attn_block_free(blocks[--count]);
  attn_snapshot_free(empty);
  free(blocks);
  return made;
}

static const char *const pairs[][2] = {{"scaled_dot", "softmax"},
                                       {"gaussian", "sum"},
                                       {"cosine", "softmax"},
                                       {"euclidean", "sparsemax"}};

START_TEST(test_by_the_oracle) {
  for (size_t i = 0; i < test_rounds(2) * COUNT(pairs); i++) {
    const uint64_t index = 60000 + i;
    rng r = rng_for_case(index + 5000);
    const shape of = {.rows = rng_between(&r, 600, ROWS),
                      .key_dim = rng_between(&r, 150, 400),
                      .value_dim = i % 2 == 0 ? rng_between(&r, 150, WIDTH) : WIDTH / 64 * 64,
                      .query_count = rng_between(&r, 17, QUERIES)};
    /* so small that float32 computes it */
    trial t = trial_new(index, of, pairs[i % COUNT(pairs)][0], pairs[i % COUNT(pairs)][1]);
    fill_normal(&r, t.keys, of.rows * of.key_dim, 1 / sqrt((double)of.key_dim));
    fill_normal(&r, t.queries, of.query_count * of.key_dim, 1 / sqrt((double)of.key_dim));
    fill_normal(&r, t.values, of.rows * of.value_dim, 1);
    trial_prepare(&t);
    trial_check_all(&t, 5);
    const table rows = {of.rows, of.key_dim, of.value_dim, t.keys, t.values};
    attn_snapshot_free(t.snapshot);
    t.snapshot = ragged(&r, &rows, ATTN_F32);
    trial_check_all(&t, 5);
    trial_free(&t);
  }
}
END_TEST

/* Asked together, and each by itself. */
static void check_company(const attn_snapshot *memory, const float *queries, attn_request request,
                          const attn_pool *pool) {
  const size_t dk = attn_snapshot_key_dim(memory), dv = attn_snapshot_value_dim(memory);
  const size_t rows = attn_snapshot_rows(memory);
  float *outputs = floats_new(QUERIES * dv), *alone = floats_new(dv);
  float *weights = floats_new(QUERIES * rows), *own = floats_new(rows);
  request.query_dim = dk;
  request.weights_mode = ATTN_WEIGHTS_FULL;
  request.queries = queries;
  request.query_count = QUERIES;
  attn_result together = attn_result_for(memory, &request);
  together.outputs = outputs;
  together.weights = weights;
  CHECK_STATUS(ATTN_OK, attn_attend(memory, &request, &together, pool));
  request.query_count = 1;
  attn_result result = attn_result_for(memory, &request);
  result.outputs = alone;
  result.weights = own;
  for (size_t q = 0; q < QUERIES; q++) {
    request.queries = queries + q * dk;
    CHECK_STATUS(ATTN_OK, attn_attend(memory, &request, &result, pool));
    ck_assert_msg(same_bits(alone, outputs + q * dv, dv), "query %zu: another output", q);
    ck_assert_msg(same_bits(own, weights + q * rows, rows), "query %zu: other weights", q);
  }
  floats_free(outputs);
  floats_free(alone);
  floats_free(weights);
  floats_free(own);
}

static void check_random_company(rng *r, const char *const pair[2], const table *t,
                                 attn_dtype dtype) {
  const attn_pool pool = backwards_pool(2);
  attn_snapshot *memory = ragged(r, t, dtype);
  float *queries = floats_new(QUERIES * t->dk);
  fill_normal(r, queries, QUERIES * t->dk, 1);
  attn_request request = {0};
  attn_score *score = NULL;
  attn_normalization *norm = NULL;
  CHECK_STATUS(ATTN_OK, attn_score_create(&score, pair[0], NULL, 0, NULL));
  CHECK_STATUS(ATTN_OK, attn_normalization_create(&norm, pair[1], NULL, 0, NULL));
  request.score = score;
  request.normalization = norm;
  check_company(memory, queries, request, NULL);
  check_company(memory, queries, request, &pool);
  attn_score_free(score);
  attn_normalization_free(norm);
  floats_free(queries);
  attn_snapshot_free(memory);
}

/* Of wide rows, several tiles at a time, and of narrow ones. */
START_TEST(test_alone_and_in_company) {
  const attn_dtype dtype = (attn_dtype)_i;
  for (size_t i = 0; i < 2 * COUNT(pairs); i++) {
    rng r = rng_for_case(70000 + (uint64_t)_i * 100 + i);
    const bool narrow = i >= COUNT(pairs);
    const size_t rows = narrow ? NARROW_ROWS : ROWS;
    const size_t dk = narrow ? rng_between(&r, 120, 128) : rng_between(&r, 150, 300);
    const size_t dv = narrow ? rng_between(&r, 120, 128) : rng_between(&r, 150, WIDTH);
    table t = table_random(&r, rows, dk, dv, dtype);
    check_random_company(&r, pairs[i % COUNT(pairs)], &t, dtype);
    table_free(&t);
  }
}
END_TEST

int main(void) {
  Suite *suite = suite_create("key_blocks");
  add_test(suite, "by the oracle", test_by_the_oracle);
  add_dtype_test(suite, "alone and in company", test_alone_and_in_company);
  return run_suite(suite);
}
