/* Snapshots: what was appended comes back, old ones stay as they were, new
 * ones share what they can, and the last reference of many threads frees. */
#include "../heap.h"
#include "trial.h"

#include <pthread.h>
#include <stdatomic.h>

static attn_snapshot *make_empty(size_t dk, size_t dv) {
  attn_snapshot *empty = NULL;
  CHECK_STATUS(ATTN_OK, attn_snapshot_create(&empty, dk, dv));
  ck_assert_uint_eq(attn_snapshot_rows(empty), 0);
  return empty;
}

/* Takes the reference to `base`. */
static attn_snapshot *append(attn_snapshot *base, const float *keys, const float *values,
                             size_t rows) {
  attn_snapshot *grown = NULL;
  CHECK_STATUS(ATTN_OK, attn_snapshot_append(&grown, base, keys, values, rows));
  ck_assert_uint_eq(attn_snapshot_rows(grown), attn_snapshot_rows(base) + rows);
  attn_snapshot_free(base);
  return grown;
}

typedef struct table {
  size_t rows, dk, dv;
  float *keys, *values;
} table;

static table table_new(uint64_t index, size_t rows, size_t dk, size_t dv) {
  rng r = rng_for_case(index);
  const table made = {rows, dk, dv, floats_new(rows * dk), floats_new(rows * dv)};
  fill_normal(&r, made.keys, rows * dk, 1);
  fill_normal(&r, made.values, rows * dv, 1);
  return made;
}

static void table_free(table *t) {
  floats_free(t->keys);
  floats_free(t->values);
}

static void check_rows(const attn_snapshot *snapshot, const table *t, size_t first, size_t last) {
  float *key = floats_new(t->dk), *value = floats_new(t->dv);
  for (size_t row = first; row < last; row++) {
    CHECK_STATUS(ATTN_OK, attn_snapshot_get_row(snapshot, row, key, value));
    ck_assert_msg(memcmp(key, t->keys + row * t->dk, t->dk * sizeof *key) == 0 &&
                      memcmp(value, t->values + row * t->dv, t->dv * sizeof *value) == 0,
                  "row %zu of %zu (dk %zu, dv %zu) differs", row, t->rows, t->dk, t->dv);
  }
  ck_assert(floats_are_intact(key, t->dk) && floats_are_intact(value, t->dv));
  floats_free(key);
  floats_free(value);
}

static const struct {
  size_t rows, dk, dv, piece; /* the largest number of rows at once */
} growths[] = {{1, 1, 1, 1},        {700, 3, 5, 1},     {5000, 8, 1, 3000},
               {40000, 7, 9, 9000}, {300, 1500, 2, 40}, {90, 2, 9000, 33}};

static attn_snapshot *append_in_pieces(const table *t, size_t piece, rng *r) {
  attn_snapshot *memory = make_empty(t->dk, t->dv);
  for (size_t done = 0; done < t->rows;) {
    size_t count = rng_between(r, 0, piece);
    count = count < t->rows - done ? count : t->rows - done;
    memory = append(memory, t->keys + done * t->dk, t->values + done * t->dv, count);
    done += count;
  }
  return memory;
}

START_TEST(test_pieces_equal_the_whole) {
  for (size_t i = 0; i < sizeof growths / sizeof *growths; i++) {
    rng r = rng_for_case(100 + i);
    table t = table_new(i, growths[i].rows, growths[i].dk, growths[i].dv);
    attn_snapshot *pieces = append_in_pieces(&t, growths[i].piece, &r);
    attn_snapshot *whole = append(make_empty(t.dk, t.dv), t.keys, t.values, t.rows);
    check_rows(pieces, &t, 0, t.rows);
    check_rows(whole, &t, 0, t.rows);
    ck_assert_uint_eq(attn_snapshot_key_dim(pieces), t.dk);
    ck_assert_uint_eq(attn_snapshot_value_dim(pieces), t.dv);
    attn_snapshot_free(pieces);
    attn_snapshot_free(whole);
    table_free(&t);
  }
}
END_TEST

/* The same answers, too: attending sees the cut into blocks, get_row may not. */
START_TEST(test_pieces_answer_like_the_whole) {
  static const char *const pairs[][2] = {
      {"dot", "softmax"}, {"gaussian", "sum"}, {"cosine", "sparsemax"}, {"euclidean", "hardmax"}};
  for (size_t i = 0; i < 12; i++) {
    rng r = rng_for_case(200 + i);
    trial t = trial_new(200 + i, (shape){rng_between(&r, 1, 3000), 6, 3, 5, 0}, pairs[i % 4][0],
                        pairs[i % 4][1]);
    fill_normal(&r, t.keys, t.of.rows * 6, 1);
    fill_normal(&r, t.values, t.of.rows * 3, 1);
    fill_normal(&r, t.queries, 5 * 6, 1);
    trial_prepare(&t);
    const table rows = {t.of.rows, 6, 3, t.keys, t.values};
    attn_snapshot_free(t.snapshot);
    t.snapshot = append_in_pieces(&rows, i < 6 ? 40 : 900, &r);
    trial_check_all(&t, 4);
    trial_free(&t);
  }
}
END_TEST

/* Growing from one base in two ways: neither sees the other, nor does the base. */
START_TEST(test_branches) {
  table t = table_new(300, 1000, 4, 4);
  table other = table_new(301, 1000, 4, 4);
  attn_snapshot *base = append(make_empty(4, 4), t.keys, t.values, 700);
  attn_snapshot *left = NULL, *right = NULL;
  CHECK_STATUS(ATTN_OK,
               attn_snapshot_append(&left, base, t.keys + 700 * 4, t.values + 700 * 4, 300));
  CHECK_STATUS(ATTN_OK, attn_snapshot_append(&right, base, other.keys, other.values, 10));
  ck_assert_uint_eq(attn_snapshot_rows(base), 700);
  check_rows(base, &t, 0, 700);
  check_rows(left, &t, 0, 1000);
  check_rows(right, &t, 0, 700);
  float key[4];
  CHECK_STATUS(ATTN_OK, attn_snapshot_get_row(right, 705, key, NULL));
  ck_assert_mem_eq(key, other.keys + 5 * 4, sizeof key);
  CHECK_STATUS(ATTN_BAD_ARGUMENT, attn_snapshot_get_row(base, 700, key, NULL));
  attn_snapshot_free(base);
  check_rows(left, &t, 0, 1000);
  attn_snapshot_free(left);
  check_rows(right, &t, 0, 700);
  attn_snapshot_free(right);
  table_free(&t);
  table_free(&other);
}
END_TEST

/* A hundred snapshots of a memory, each a row longer, must not cost a hundred
 * memories. */
START_TEST(test_sharing) {
  enum { ROWS = 60000, DIM = 32, SNAPSHOTS = 20 };
  table t = table_new(400, ROWS, DIM, DIM);
  const size_t before = heap_in_use();
  attn_snapshot *held[SNAPSHOTS + 1];
  held[0] = append(make_empty(DIM, DIM), t.keys, t.values, ROWS);
  const size_t cost = heap_in_use() - before, bytes = attn_snapshot_bytes(held[0]);
  ck_assert_uint_ge(bytes, (size_t)ROWS * DIM * 2 * sizeof(float));
  ck_assert_uint_le(bytes, (size_t)ROWS * DIM * 2 * sizeof(float) * 5 / 4);

  for (size_t i = 0; i < SNAPSHOTS; i++)
    CHECK_STATUS(ATTN_OK, attn_snapshot_append(&held[i + 1], held[i], t.keys, t.values, 1));
  ck_assert_uint_le(attn_snapshot_bytes(held[SNAPSHOTS]), bytes + bytes / 8);
  if (cost > bytes / 2) {
    const size_t all = heap_in_use() - before;
    ck_assert_msg(all < cost * 3, "%d snapshots hold %zu bytes, the first alone %zu", SNAPSHOTS + 1,
                  all, cost);
  }
  check_rows(held[0], &t, ROWS - 100, ROWS);
  check_rows(held[SNAPSHOTS], &t, 0, 100);
  for (size_t i = 0; i <= SNAPSHOTS; i++)
    attn_snapshot_free(held[i]);
  if (cost > bytes / 2)
    ck_assert_msg(heap_in_use() < before + bytes / 8, "%zu bytes were not given back",
                  heap_in_use() - before);
  table_free(&t);
}
END_TEST

/* A small memory is small: a service may hold thousands of them. */
START_TEST(test_small_memories_are_small) {
  const float row[4] = {1, 2, 3, 4};
  attn_snapshot *memory = append(make_empty(4, 4), row, row, 1);
  ck_assert_uint_le(attn_snapshot_bytes(memory), 8192);
  attn_snapshot_free(memory);
}
END_TEST

START_TEST(test_arguments) {
  attn_snapshot *out = NULL;
  const float row[2] = {1, 2};
  float key[2];
  CHECK_STATUS(ATTN_BAD_ARGUMENT, attn_snapshot_create(&out, 0, 1));
  CHECK_STATUS(ATTN_BAD_ARGUMENT, attn_snapshot_create(&out, 1, 0));
  CHECK_STATUS(ATTN_BAD_ARGUMENT, attn_snapshot_create(&out, ATTN_MAX_DIM + 1, 1));
  CHECK_STATUS(ATTN_BAD_ARGUMENT, attn_snapshot_create(&out, 1, ATTN_MAX_DIM + 1));
  CHECK_STATUS(ATTN_BAD_ARGUMENT, attn_snapshot_create(&out, SIZE_MAX, SIZE_MAX));
  CHECK_STATUS(ATTN_BAD_ARGUMENT, attn_snapshot_create(NULL, 1, 1));
  ck_assert_ptr_null(out);
  attn_snapshot_free(NULL);
  attn_snapshot_free(make_empty(ATTN_MAX_DIM, ATTN_MAX_DIM));

  attn_snapshot *base = make_empty(2, 2);
  CHECK_STATUS(ATTN_BAD_ARGUMENT, attn_snapshot_append(&out, base, NULL, row, 1));
  CHECK_STATUS(ATTN_BAD_ARGUMENT, attn_snapshot_append(&out, base, row, NULL, 1));
  CHECK_STATUS(ATTN_BAD_ARGUMENT, attn_snapshot_append(&out, NULL, row, row, 1));
  CHECK_STATUS(ATTN_BAD_ARGUMENT, attn_snapshot_append(NULL, base, row, row, 1));
  CHECK_STATUS(ATTN_TOO_LARGE, attn_snapshot_append(&out, base, row, row, SIZE_MAX));
  CHECK_STATUS(ATTN_TOO_LARGE, attn_snapshot_append(&out, base, row, row, SIZE_MAX / 8));
  CHECK_STATUS(ATTN_BAD_ARGUMENT, attn_snapshot_get_row(base, 0, key, key));
  CHECK_STATUS(ATTN_BAD_ARGUMENT, attn_snapshot_get_row(NULL, 0, key, key));
  ck_assert_ptr_null(out);
  base = append(base, row, row, 0);
  base = append(base, row, row, 1);
  CHECK_STATUS(ATTN_OK, attn_snapshot_get_row(base, 0, NULL, NULL));
  CHECK_STATUS(ATTN_OK, attn_snapshot_get_row(base, 0, NULL, key));
  ck_assert_mem_eq(key, row, sizeof key);
  CHECK_STATUS(ATTN_BAD_ARGUMENT, attn_snapshot_get_row(base, SIZE_MAX, key, key));
  attn_snapshot_free(base);
}
END_TEST

START_TEST(test_not_finite) {
  static const float wrong[] = {NAN, INFINITY, -INFINITY};
  for (size_t i = 0; i < 60; i++) {
    rng r = rng_for_case(500 + i);
    const size_t rows = rng_between(&r, 1, 3000);
    table good = table_new(600 + i, 100, 3, 5), bad = table_new(700 + i, rows, 3, 5);
    attn_snapshot *base = append(make_empty(3, 5), good.keys, good.values, 100), *out = NULL;
    if (i % 2 == 0)
      bad.keys[rng_between(&r, 0, rows * 3 - 1)] = wrong[i % 3];
    else
      bad.values[rng_between(&r, 0, rows * 5 - 1)] = wrong[i % 3];
    CHECK_STATUS(ATTN_NOT_FINITE, attn_snapshot_append(&out, base, bad.keys, bad.values, rows));
    ck_assert_ptr_null(out);
    ck_assert_uint_eq(attn_snapshot_rows(base), 100);
    check_rows(base, &good, 0, 100);
    base = append(base, good.keys, good.values, 100);
    check_rows(base, &good, 0, 100);
    attn_snapshot_free(base);
    table_free(&good);
    table_free(&bad);
  }
}
END_TEST

/* ---- Threads ----
 * `lock` guards `current`, as a registry of memories would; what a reader has
 * pinned it uses without a lock. */
typedef struct commons {
  pthread_mutex_t lock;
  attn_snapshot *current;
  const attn_score *score;
  const attn_normalization *normalization;
  atomic_bool done;
  atomic_size_t wrong;
} commons;

static attn_snapshot *pin(commons *c) {
  pthread_mutex_lock(&c->lock);
  attn_snapshot *pinned = attn_snapshot_ref(c->current);
  pthread_mutex_unlock(&c->lock);
  return pinned;
}

/* Row i has the value i, all keys are equal: the answer is the mean of the
 * rows that the pinned snapshot has, whatever is appended meanwhile. */
static void *read_on(void *argument) {
  commons *c = argument;
  while (!atomic_load(&c->done)) {
    attn_snapshot *pinned = pin(c);
    const size_t rows = attn_snapshot_rows(pinned);
    float output = NAN;
    const float query[2] = {1, 1};
    const attn_request request = {.queries = query,
                                  .query_count = 1,
                                  .query_dim = 2,
                                  .score = c->score,
                                  .normalization = c->normalization,
                                  .weights_mode = ATTN_WEIGHTS_NONE};
    attn_result result = attn_result_for(pinned, &request);
    result.outputs = &output;
    const attn_status status = attn_attend(pinned, &request, &result, NULL);
    const double mean = (double)(rows - 1) / 2;
    if (status != ATTN_OK || !(fabs((double)output - mean) <= 1e-5 * (double)rows + 1e-6))
      atomic_fetch_add(&c->wrong, 1);
    attn_snapshot_free(pinned);
  }
  return NULL;
}

START_TEST(test_threads) {
  enum { READERS = 4, APPENDS = 1500 };
  attn_score *score = NULL;
  attn_normalization *norm = NULL;
  const float key[2] = {1, 1}, zero = 0;
  commons c = {.current = append(make_empty(2, 1), key, &zero, 1)};
  pthread_mutex_init(&c.lock, NULL);
  CHECK_STATUS(ATTN_OK, attn_score_create(&score, "dot", NULL, 0, NULL));
  CHECK_STATUS(ATTN_OK, attn_normalization_create(&norm, "softmax", NULL, 0, NULL));
  c.score = score;
  c.normalization = norm;

  pthread_t readers[READERS];
  for (size_t i = 0; i < READERS; i++)
    ck_assert_int_eq(pthread_create(&readers[i], NULL, read_on, &c), 0);
  for (size_t i = 1; i <= APPENDS; i++) {
    const float value = (float)i;
    attn_snapshot *base = pin(&c), *grown = NULL;
    const attn_status status = attn_snapshot_append(&grown, base, key, &value, 1);
    if (status != ATTN_OK) {
      atomic_fetch_add(&c.wrong, 1);
      grown = attn_snapshot_ref(base);
    }
    pthread_mutex_lock(&c.lock);
    attn_snapshot *old = c.current;
    c.current = grown;
    pthread_mutex_unlock(&c.lock);
    attn_snapshot_free(old);
    attn_snapshot_free(base);
  }
  atomic_store(&c.done, true);
  for (size_t i = 0; i < READERS; i++)
    pthread_join(readers[i], NULL);
  ck_assert_uint_eq(atomic_load(&c.wrong), 0);
  ck_assert_uint_eq(attn_snapshot_rows(c.current), APPENDS + 1);
  attn_snapshot_free(c.current);
  attn_score_free(score);
  attn_normalization_free(norm);
  pthread_mutex_destroy(&c.lock);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("snapshot");
  add_test(suite, "pieces", test_pieces_equal_the_whole);
  add_test(suite, "answers of pieces", test_pieces_answer_like_the_whole);
  add_test(suite, "branches", test_branches);
  add_test(suite, "sharing", test_sharing);
  add_test(suite, "small memories", test_small_memories_are_small);
  add_test(suite, "arguments", test_arguments);
  add_test(suite, "not finite", test_not_finite);
  add_test(suite, "threads", test_threads);
  return run_suite(suite);
}
