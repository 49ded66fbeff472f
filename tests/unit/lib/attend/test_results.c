/* Answers as objects: their sizes, their arrays in one piece of memory, views of a part of
 * them. What is expected is written down from the header, array by array. */
#include <stddef.h>

#include "trial.h"

enum { ROWS = 30, KEY_DIM = 3, VALUE_DIM = 5, QUERIES = 8, TOP = 4 };

static const attn_weights_mode modes[] = {ATTN_WEIGHTS_NONE, ATTN_WEIGHTS_FULL, ATTN_WEIGHTS_TOP};

static trial make_trial(void) {
  rng r = rng_for_case(3);
  trial t = trial_new(3, (shape){ROWS, KEY_DIM, VALUE_DIM, QUERIES, 0}, "dot", "softmax");
  fill_normal(&r, t.keys, ROWS * KEY_DIM, 1);
  fill_normal(&r, t.values, ROWS * VALUE_DIM, 1);
  fill_normal(&r, t.queries, QUERIES * KEY_DIM, 1);
  trial_prepare(&t);
  return t;
}

START_TEST(test_sizes) {
  trial t = make_trial();
  for (size_t m = 0; m < 3; m++)
    for (size_t top = 1; top < 2 * ROWS; top += 7) {
      attn_request request = trial_request(&t, &(asking){modes[m], top, NULL});
      request.top = top;
      const attn_result result = attn_result_for(t.snapshot, &request);
      ck_assert_uint_eq(result.query_count, QUERIES);
      ck_assert_uint_eq(result.value_dim, VALUE_DIM);
      ck_assert_uint_eq(result.rows, m == 1 ? ROWS : 0);
      ck_assert_uint_eq(result.top, m != 2 ? 0 : top < ROWS ? top : ROWS);
      ck_assert_uint_eq(result.fault_query, ATTN_NO_QUERY);
      ck_assert_ptr_null(result.outputs);
      ck_assert_ptr_null(result.weights);
      ck_assert_ptr_null(result.largest);
      ck_assert_ptr_null(result.largest_count);
    }
  trial_free(&t);
}
END_TEST

static void check_same(const attn_result *a, const attn_result *b) {
  ck_assert_mem_eq(a->outputs, b->outputs, QUERIES * VALUE_DIM * sizeof(float));
  if (a->rows > 0) ck_assert_mem_eq(a->weights, b->weights, QUERIES * ROWS * sizeof(float));
  for (size_t q = 0; a->top > 0 && q < QUERIES; q++) {
    ck_assert_uint_eq(a->largest_count[q], b->largest_count[q]);
    for (size_t i = 0; i < a->largest_count[q]; i++) {
      ck_assert_uint_eq(a->largest[q * TOP + i].row, b->largest[q * TOP + i].row);
      ck_assert(a->largest[q * TOP + i].weight == b->largest[q * TOP + i].weight);
    }
  }
}

/* The bytes first .. first + count of memory belong to nobody else. */
static void claim(char *taken, const char *memory, size_t bytes, const void *array, size_t count) {
  const char *first = array;
  ck_assert(first >= memory && first + count <= memory + bytes);
  for (size_t i = 0; i < count; i++) {
    ck_assert(!taken[first - memory + (ptrdiff_t)i]);
    taken[first - memory + (ptrdiff_t)i] = 1;
  }
}

START_TEST(test_arrays_in_one_piece) {
  trial t = make_trial();
  for (size_t m = 0; m < 3; m++) {
    const asking how = {modes[m], TOP, NULL};
    const attn_request request = trial_request(&t, &how);
    attn_result result = attn_result_for(t.snapshot, &request);
    const size_t bytes = attn_result_bytes(&result);
    char *memory = must_alloc(bytes, 1), *taken = must_alloc(bytes, 1);
    attn_result_place(&result, memory);
    claim(taken, memory, bytes, result.outputs, QUERIES * VALUE_DIM * sizeof(float));
    ck_assert((result.weights != NULL) == (m == 1));
    ck_assert((result.largest != NULL) == (m == 2));
    ck_assert((result.largest_count != NULL) == (m == 2));
    if (m == 1) claim(taken, memory, bytes, result.weights, QUERIES * ROWS * sizeof(float));
    if (m == 2) {
      claim(taken, memory, bytes, result.largest, QUERIES * TOP * sizeof(attn_weight));
      claim(taken, memory, bytes, result.largest_count, QUERIES * sizeof(size_t));
      ck_assert_uint_eq((uintptr_t)result.largest % _Alignof(attn_weight), 0);
      ck_assert_uint_eq((uintptr_t)result.largest_count % _Alignof(size_t), 0);
    }
    CHECK_STATUS(ATTN_OK, attn_attend(t.snapshot, &request, &result, NULL));

    answer a = answer_new(&t, &how);
    const attn_result expected = trial_result(&t, &request, &a);
    CHECK_STATUS(ATTN_OK, trial_attend(&t, &how, &a));
    check_same(&expected, &result);
    answer_free(&a);
    free(memory);
    free(taken);
  }
  trial_free(&t);
}
END_TEST

START_TEST(test_sizes_beyond_what_can_be_addressed) {
  const size_t huge[] = {SIZE_MAX, SIZE_MAX / 2, SIZE_MAX / 4, SIZE_MAX / 8};
  for (size_t i = 0; i < 4; i++) {
    ck_assert_uint_eq(attn_result_bytes(&(attn_result){.query_count = 8, .rows = huge[i]}),
                      SIZE_MAX);
    ck_assert_uint_eq(attn_result_bytes(&(attn_result){.query_count = huge[i], .value_dim = 8}),
                      SIZE_MAX);
    ck_assert_uint_eq(attn_result_bytes(&(attn_result){.query_count = 8, .top = huge[i]}),
                      SIZE_MAX);
  }
  /* Each alone can be, not both. */
  const size_t half = SIZE_MAX / 2 / sizeof(float);
  ck_assert_uint_eq(
      attn_result_bytes(&(attn_result){.query_count = 1, .rows = half, .value_dim = half}),
      SIZE_MAX);
}
END_TEST

/* A view of some queries is where attending to those writes what belongs to them. */
START_TEST(test_slices) {
  trial t = make_trial();
  for (size_t m = 0; m < 3; m++) {
    attn_request request = trial_request(&t, &(asking){modes[m], TOP, NULL});
    attn_result whole = attn_result_for(t.snapshot, &request), parts = whole;
    const size_t bytes = attn_result_bytes(&whole);
    char *memory = must_alloc(bytes, 1), *other = must_alloc(bytes, 1);
    attn_result_place(&whole, memory);
    attn_result_place(&parts, other);
    CHECK_STATUS(ATTN_OK, attn_attend(t.snapshot, &request, &whole, NULL));
    for (size_t first = 0, count = 1; first < QUERIES; first += count++) {
      if (count > QUERIES - first) count = QUERIES - first;
      attn_result slice = attn_result_slice(&parts, first, count);
      ck_assert_uint_eq(slice.query_count, count);
      ck_assert_ptr_eq(slice.outputs, parts.outputs + first * VALUE_DIM);
      request.queries = t.queries + first * KEY_DIM;
      request.query_count = count;
      CHECK_STATUS(ATTN_OK, attn_attend(t.snapshot, &request, &slice, NULL));
    }
    check_same(&whole, &parts);

    attn_result copy = parts;
    memset(other, 0, bytes);
    for (size_t first = 0; first < QUERIES; first += 2) {
      attn_result to = attn_result_slice(&copy, first, 2);
      const attn_result from = attn_result_slice(&whole, first, 2);
      attn_result_copy(&to, &from);
    }
    check_same(&whole, &copy);
    free(memory);
    free(other);
  }
  trial_free(&t);
}
END_TEST

START_TEST(test_fault_in_a_slice) {
  const attn_result whole = {.query_count = 10, .value_dim = 1, .fault_query = 6};
  for (size_t first = 0; first < 10; first++)
    for (size_t count = 0; count <= 10 - first; count++) {
      const bool inside = first <= 6 && 6 < first + count;
      ck_assert_uint_eq(attn_result_slice(&whole, first, count).fault_query,
                        inside ? 6 - first : ATTN_NO_QUERY);
    }
  const attn_result sound = {.query_count = 10, .fault_query = ATTN_NO_QUERY};
  ck_assert_uint_eq(attn_result_slice(&sound, 0, 10).fault_query, ATTN_NO_QUERY);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("results");
  add_test(suite, "sizes", test_sizes);
  add_test(suite, "arrays in one piece", test_arrays_in_one_piece);
  add_test(suite, "beyond what can be addressed", test_sizes_beyond_what_can_be_addressed);
  add_test(suite, "slices", test_slices);
  add_test(suite, "fault in a slice", test_fault_in_a_slice);
  return run_suite(suite);
}
