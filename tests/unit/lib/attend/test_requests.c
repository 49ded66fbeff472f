/* What attn_attend() refuses before it computes anything, and that a refusal
 * harms nobody: the same request, put right, is answered. */
#include <stddef.h>

#include "trial.h"

typedef struct ready {
  trial t;
  answer a;
  attn_request request;
  attn_result result;
} ready;

static ready ready_new(const char *score, attn_weights_mode mode) {
  rng r = rng_for_case(1);
  ready it = {.t = trial_new(1, (shape){30, 3, 2, 4, 0}, score, "softmax")};
  fill_normal(&r, it.t.keys, 30 * 3, 1);
  fill_normal(&r, it.t.values, 30 * 2, 1);
  fill_normal(&r, it.t.queries, 4 * 3, 1);
  trial_prepare(&it.t);
  const asking how = {mode, 3, NULL};
  it.a = answer_new(&it.t, &how);
  it.request = trial_request(&it.t, &how);
  it.result = trial_result(&it.t, &it.request, &it.a);
  return it;
}

static void ready_free(ready *it) {
  answer_free(&it->a);
  trial_free(&it->t);
}

static void check_refusal(const ready *it, attn_status expected, const attn_request *request,
                          attn_result *result) {
  attn_result right = it->result;
  CHECK_STATUS(expected, attn_attend(it->t.snapshot, request, result, NULL));
  CHECK_STATUS(ATTN_OK, attn_attend(it->t.snapshot, &it->request, &right, NULL));
}

static void refuse(const ready *it, attn_status expected, const attn_request *request) {
  attn_result result = it->result;
  check_refusal(it, expected, request, &result);
}

static void refuse_result(const ready *it, attn_status expected, attn_result result) {
  check_refusal(it, expected, &it->request, &result);
}

START_TEST(test_missing_pieces) {
  ready it = ready_new("dot", ATTN_WEIGHTS_FULL);
  attn_request bad = it.request;
  bad.queries = NULL;
  refuse(&it, ATTN_BAD_ARGUMENT, &bad);
  bad = it.request;
  bad.query_count = 0;
  refuse(&it, ATTN_BAD_ARGUMENT, &bad);
  bad = it.request;
  bad.score = NULL;
  refuse(&it, ATTN_BAD_ARGUMENT, &bad);
  bad = it.request;
  bad.normalization = NULL;
  refuse(&it, ATTN_BAD_ARGUMENT, &bad);
  attn_result missing = it.result;
  missing.outputs = NULL;
  refuse_result(&it, ATTN_BAD_ARGUMENT, missing);
  missing = it.result;
  missing.weights = NULL;
  refuse_result(&it, ATTN_BAD_ARGUMENT, missing);
  refuse(&it, ATTN_BAD_ARGUMENT, NULL);
  check_refusal(&it, ATTN_BAD_ARGUMENT, &it.request, NULL);
  CHECK_STATUS(ATTN_BAD_ARGUMENT, attn_attend(NULL, &it.request, &it.result, NULL));
  ready_free(&it);
}
END_TEST

START_TEST(test_missing_room_for_top) {
  ready it = ready_new("dot", ATTN_WEIGHTS_TOP);
  attn_request bad = it.request;
  bad.top = 0;
  refuse(&it, ATTN_BAD_ARGUMENT, &bad);
  attn_result missing = it.result;
  missing.largest = NULL;
  refuse_result(&it, ATTN_BAD_ARGUMENT, missing);
  missing = it.result;
  missing.largest_count = NULL;
  refuse_result(&it, ATTN_BAD_ARGUMENT, missing);
  ready_free(&it);
}
END_TEST

/* An answer of another size than what is asked, or to another question. */
START_TEST(test_results_of_other_sizes) {
  static const attn_weights_mode modes[] = {ATTN_WEIGHTS_NONE, ATTN_WEIGHTS_FULL, ATTN_WEIGHTS_TOP};
  for (size_t m = 0; m < 3; m++) {
    ready it = ready_new("dot", modes[m]);
    const size_t members[] = {offsetof(attn_result, query_count), offsetof(attn_result, value_dim),
                              offsetof(attn_result, rows), offsetof(attn_result, top)};
    for (size_t i = 0; i < 4; i++)
      for (int up = 0; up < 2; up++) {
        attn_result other = it.result;
        size_t *member = (size_t *)(void *)((char *)&other + members[i]);
        if (*member == 0 && !up) continue;
        *member += up ? 1 : SIZE_MAX;
        other.weights = other.weights != NULL ? other.weights : other.outputs;
        static attn_weight largest[1];
        static size_t count[1];
        other.largest = other.largest != NULL ? other.largest : largest;
        other.largest_count = other.largest_count != NULL ? other.largest_count : count;
        refuse_result(&it, ATTN_BAD_SHAPE, other);
      }
    ready other = ready_new("dot", modes[(m + 1) % 3]);
    refuse_result(&it, ATTN_BAD_SHAPE, other.result);
    ready_free(&other);
    ready_free(&it);
  }
}
END_TEST

/* More than all of them is all of them. */
START_TEST(test_top_beyond_the_rows) {
  ready it = ready_new("dot", ATTN_WEIGHTS_FULL);
  trial_check(&it.t, (asking){ATTN_WEIGHTS_TOP, SIZE_MAX, NULL});
  ready_free(&it);
}
END_TEST

START_TEST(test_shapes_that_do_not_agree) {
  ready it = ready_new("dot", ATTN_WEIGHTS_NONE);
  attn_request bad = it.request;
  bad.query_dim = 2;
  refuse(&it, ATTN_BAD_SHAPE, &bad);
  bad.query_dim = 4;
  refuse(&it, ATTN_BAD_SHAPE, &bad);
  bad.query_dim = 0;
  refuse(&it, ATTN_BAD_SHAPE, &bad);

  /* A matrix for keys of 4 numbers, where there are 3. */
  const float w[12] = {0};
  const attn_argument arg = {.name = "w", .data = w, .rows = 3, .cols = 4};
  attn_score *bilinear = NULL;
  CHECK_STATUS(ATTN_OK, attn_score_create(&bilinear, "bilinear", &arg, 1, NULL));
  bad = it.request;
  bad.score = bilinear;
  refuse(&it, ATTN_BAD_SHAPE, &bad);
  attn_score_free(bilinear);
  ready_free(&it);
}
END_TEST

START_TEST(test_empty_memory) {
  ready it = ready_new("dot", ATTN_WEIGHTS_NONE);
  attn_snapshot *empty = NULL;
  CHECK_STATUS(ATTN_OK, attn_snapshot_create(&empty, 3, 2));
  CHECK_STATUS(ATTN_EMPTY_MEMORY, attn_attend(empty, &it.request, &it.result, NULL));
  attn_snapshot_free(empty);
  ready_free(&it);
}
END_TEST

START_TEST(test_queries_that_are_not_finite) {
  static const float wrong[] = {NAN, INFINITY, -INFINITY};
  static const char *const scores[] = {"dot", "constant", "exact", "gaussian", "cosine"};
  for (size_t s = 0; s < 5; s++)
    for (size_t i = 0; i < 3 * 4; i++) {
      ready it = ready_new(scores[s], ATTN_WEIGHTS_FULL);
      const size_t query = i / 3, place = query * 3 + i % 3;
      const float right = it.t.queries[place];
      it.t.queries[place] = wrong[i % 3];
      CHECK_STATUS(ATTN_NOT_FINITE, attn_attend(it.t.snapshot, &it.request, &it.result, NULL));
      ck_assert_uint_eq(it.result.fault_query, query);
      CHECK_STATUS(ATTN_NOT_FINITE, attn_attend(it.t.snapshot, &it.request, &it.result, NULL));
      it.t.queries[place] = right;
      CHECK_STATUS(ATTN_OK, attn_attend(it.t.snapshot, &it.request, &it.result, NULL));
      ck_assert_uint_eq(it.result.fault_query, ATTN_NO_QUERY);
      ready_free(&it);
    }
}
END_TEST

int main(void) {
  Suite *suite = suite_create("requests");
  add_test(suite, "missing pieces", test_missing_pieces);
  add_test(suite, "missing room for top", test_missing_room_for_top);
  add_test(suite, "results of other sizes", test_results_of_other_sizes);
  add_test(suite, "top beyond the rows", test_top_beyond_the_rows);
  add_test(suite, "shapes", test_shapes_that_do_not_agree);
  add_test(suite, "empty memory", test_empty_memory);
  add_test(suite, "not finite", test_queries_that_are_not_finite);
  return run_suite(suite);
}
