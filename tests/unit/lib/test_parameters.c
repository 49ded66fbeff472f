/* The tables of scores and normalizations, and the arguments they take and
 * refuse.
 *
 * The tables are written out a second time here, from the contract and not
 * from the library: a default that changes by accident changes answers. */
#include "support.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* ---- The tables ---- */

enum { ANY, POSITIVE, NOT_NEGATIVE, WHOLE, MATRIX, VECTOR };

typedef struct expected_param {
  const char *name;
  int range;
  double otherwise; /* the default */
} expected_param;

typedef struct expected_entry {
  const char *name, *normalization;
  expected_param params[3];
} expected_entry;

static const expected_entry scores[] = {
    {"dot", "softmax", {{NULL, 0, 0}}},
    {"scaled_dot", "softmax", {{"scale", ANY, NAN}}},
    {"cosine", "softmax", {{"scale", ANY, 1}}},
    {"bilinear", "softmax", {{"w", MATRIX, 0}}},
    {"additive", "softmax", {{"w_q", MATRIX, 0}, {"w_k", MATRIX, 0}, {"v", VECTOR, 0}}},
    {"euclidean", "softmax", {{"scale", ANY, 1}}},
    {"gaussian", "sum", {{"sigma", POSITIVE, 1}}},
    {"laplacian", "sum", {{"sigma", POSITIVE, 1}}},
    {"boxcar", "sum", {{"radius", POSITIVE, 1}}},
    {"triangular", "sum", {{"radius", POSITIVE, 1}}},
    {"epanechnikov", "sum", {{"radius", POSITIVE, 1}}},
    {"inverse_distance", "sum", {{"power", POSITIVE, 2}, {"epsilon", NOT_NEGATIVE, 1e-6}}},
    {"constant", "sum", {{NULL, 0, 0}}},
    {"exact", "sum", {{NULL, 0, 0}}},
};

static const expected_entry normalizations[] = {
    {"softmax", NULL, {{"temperature", POSITIVE, 1}, {"top_k", WHOLE, 0}}},
    {"sum", NULL, {{"top_k", WHOLE, 0}}},
    {"none", NULL, {{NULL, 0, 0}}},
    {"hardmax", NULL, {{NULL, 0, 0}}},
    {"sparsemax", NULL, {{"top_k", WHOLE, 0}}},
    {"entmax15", NULL, {{"top_k", WHOLE, 0}}},
    {"sigmoid", NULL, {{NULL, 0, 0}}},
};

static size_t expected_count(const expected_entry *entry) {
  size_t count = 0;
  while (count < COUNT(entry->params) && entry->params[count].name != NULL)
    count++;
  return count;
}

static void check_param(const char *owner, const attn_param_info *got, const expected_param *want) {
  static const attn_param_kind kinds[] = {
      [ANY] = ATTN_PARAM_NUMBER,          [POSITIVE] = ATTN_PARAM_NUMBER,
      [NOT_NEGATIVE] = ATTN_PARAM_NUMBER, [WHOLE] = ATTN_PARAM_COUNT,
      [MATRIX] = ATTN_PARAM_MATRIX,       [VECTOR] = ATTN_PARAM_VECTOR};
  const bool tensor = want->range == MATRIX || want->range == VECTOR;
  ck_assert_str_eq(got->name, want->name);
  ck_assert_msg(got->kind == kinds[want->range], "%s.%s has the wrong kind", owner, want->name);
  ck_assert_msg(got->required == tensor, "%s.%s: required", owner, want->name);
  ck_assert_msg(got->help != NULL && *got->help != '\0', "%s.%s has no help", owner, want->name);
  ck_assert_msg((*got->shape != '\0') == tensor, "%s.%s has the shape '%s'", owner, want->name,
                got->shape);
  ck_assert_msg((*got->default_text != '\0') == !tensor, "%s.%s has the default text '%s'", owner,
                want->name, got->default_text);
  if (tensor) return;
  ck_assert_msg(isnan(want->otherwise) ? isnan(got->default_value)
                                       : got->default_value == want->otherwise,
                "%s.%s: default %g", owner, want->name, got->default_value);
  if (want->range == POSITIVE) ck_assert(got->least == 0 && got->above_least);
  if (want->range == NOT_NEGATIVE) ck_assert(got->least == 0 && !got->above_least);
}

START_TEST(test_score_table) {
  for (size_t i = 0; i < COUNT(scores); i++) {
    const attn_score_info *info = attn_score_info_at(i);
    ck_assert_ptr_nonnull(info);
    ck_assert_str_eq(info->name, scores[i].name);
    ck_assert_str_eq(info->normalization, scores[i].normalization);
    ck_assert(info->formula != NULL && *info->formula != '\0');
    ck_assert_uint_eq(info->param_count, expected_count(&scores[i]));
    for (size_t p = 0; p < info->param_count; p++)
      check_param(info->name, &info->params[p], &scores[i].params[p]);
    ck_assert_ptr_eq(attn_score_info_find(scores[i].name), info);
    ck_assert_ptr_nonnull(attn_normalization_info_find(info->normalization));
  }
  ck_assert_ptr_null(attn_score_info_at(COUNT(scores)));
  ck_assert_ptr_null(attn_score_info_at(SIZE_MAX));
  ck_assert_ptr_null(attn_score_info_find("nothing"));
  ck_assert_ptr_null(attn_score_info_find(""));
  ck_assert_ptr_null(attn_score_info_find("Dot"));
}
END_TEST

START_TEST(test_normalization_table) {
  for (size_t i = 0; i < COUNT(normalizations); i++) {
    const attn_normalization_info *info = attn_normalization_info_at(i);
    ck_assert_ptr_nonnull(info);
    ck_assert_str_eq(info->name, normalizations[i].name);
    ck_assert(info->formula != NULL && *info->formula != '\0');
    ck_assert_uint_eq(info->param_count, expected_count(&normalizations[i]));
    for (size_t p = 0; p < info->param_count; p++)
      check_param(info->name, &info->params[p], &normalizations[i].params[p]);
    ck_assert_ptr_eq(attn_normalization_info_find(normalizations[i].name), info);
  }
  ck_assert_ptr_null(attn_normalization_info_at(COUNT(normalizations)));
  ck_assert_ptr_null(attn_normalization_info_find("Softmax"));
}
END_TEST

START_TEST(test_texts) {
  for (int s = 0; s < ATTN_STATUS_COUNT; s++)
    ck_assert(*attn_status_text((attn_status)s) != '\0');
  ck_assert_str_eq(attn_status_text(ATTN_OK), "ok");
  ck_assert_ptr_nonnull(attn_status_text((attn_status)ATTN_STATUS_COUNT));
  ck_assert_ptr_nonnull(attn_status_text((attn_status)9999));
  ck_assert_str_eq(attn_version(), ATTN_VERSION_STRING);
  const char *kernels = attn_kernels_name();
  ck_assert(strcmp(kernels, "portable") == 0 || strcmp(kernels, "avx2") == 0 ||
            strcmp(kernels, "avx512") == 0);
}
END_TEST

/* ---- Creating ---- */

/* Neither is ever followed: they stand for "left untouched". */
static char untouched;
#define UNTOUCHED_SCORE         ((attn_score *)(void *)&untouched)
#define UNTOUCHED_NORMALIZATION ((attn_normalization *)(void *)&untouched)

static void refuse_score(attn_status expected, const char *name, const attn_argument *args,
                         size_t count, const char *parameter) {
  attn_score *score = UNTOUCHED_SCORE;
  attn_fault fault = {"", ""};
  const attn_status status = attn_score_create(&score, name, args, count, &fault);
  ck_assert_msg(status == expected, "%s: %s, number %.17g", name, attn_status_text(status),
                count > 0 ? args[0].number : 0);
  ck_assert_ptr_eq(score, UNTOUCHED_SCORE);
  ck_assert_msg(strcmp(fault.parameter, parameter) == 0, "%s names the parameter '%s', not '%s'",
                name, fault.parameter, parameter);
  ck_assert_msg(*fault.detail != '\0', "%s has no detail", name);
  ck_assert_int_eq(attn_score_create(&score, name, args, count, NULL), expected);
}

static void refuse_normalization(attn_status expected, const char *name, const attn_argument *args,
                                 size_t count, const char *parameter) {
  attn_normalization *norm = UNTOUCHED_NORMALIZATION;
  attn_fault fault = {"", ""};
  const attn_status status = attn_normalization_create(&norm, name, args, count, &fault);
  ck_assert_msg(status == expected, "%s: %s, number %.17g", name, attn_status_text(status),
                count > 0 ? args[0].number : 0);
  ck_assert_ptr_eq(norm, UNTOUCHED_NORMALIZATION);
  ck_assert_msg(strcmp(fault.parameter, parameter) == 0, "%s names the parameter '%s', not '%s'",
                name, fault.parameter, parameter);
  ck_assert_msg(*fault.detail != '\0', "%s has no detail", name);
  ck_assert_int_eq(attn_normalization_create(&norm, name, args, count, NULL), expected);
}

static attn_score *make_score(const char *name, const attn_argument *args, size_t count) {
  attn_score *score = NULL;
  attn_fault fault = {"", ""};
  const attn_status status = attn_score_create(&score, name, args, count, &fault);
  ck_assert_msg(status == ATTN_OK, "%s refused: %s %s", name, fault.parameter, fault.detail);
  ck_assert_str_eq(attn_score_get_info(score)->name, name);
  return score;
}

static attn_normalization *make_normalization(const char *name, const attn_argument *args,
                                              size_t count) {
  attn_normalization *norm = NULL;
  CHECK_STATUS(ATTN_OK, attn_normalization_create(&norm, name, args, count, NULL));
  ck_assert_str_eq(attn_normalization_get_info(norm)->name, name);
  return norm;
}

static size_t bad_numbers(int range, double numbers[8]) {
  static const double common[] = {NAN, INFINITY, -INFINITY};
  static const double whole[] = {0, -1, 1.5, 0.999999999, -INFINITY};
  size_t count = 0;
  for (size_t i = 0; i < COUNT(common); i++)
    numbers[count++] = common[i];
  for (size_t i = 0; i < COUNT(whole) && range == WHOLE; i++)
    numbers[count++] = whole[i];
  if (range == POSITIVE || range == NOT_NEGATIVE) {
    numbers[count++] = -1;
    numbers[count++] = -5e-324;
  }
  if (range == POSITIVE) numbers[count++] = 0;
  return count;
}

START_TEST(test_numbers_out_of_range) {
  for (size_t i = 0; i < COUNT(scores) + COUNT(normalizations); i++) {
    const bool is_score = i < COUNT(scores);
    const expected_entry *entry = is_score ? &scores[i] : &normalizations[i - COUNT(scores)];
    for (size_t p = 0; p < expected_count(entry); p++) {
      const expected_param *param = &entry->params[p];
      if (param->range == MATRIX || param->range == VECTOR) continue;
      double numbers[8];
      const size_t count = bad_numbers(param->range, numbers);
      for (size_t n = 0; n < count; n++) {
        const attn_argument arg = {.name = param->name, .number = numbers[n]};
        (is_score ? refuse_score : refuse_normalization)(ATTN_BAD_PARAMETER, entry->name, &arg, 1,
                                                         param->name);
      }
    }
  }
}
END_TEST

START_TEST(test_numbers_in_range) {
  static const double numbers[] = {1e-300, 1e-6, 1, 3, 1e6, 1e300};
  for (size_t i = 0; i < COUNT(scores); i++)
    for (size_t n = 0; n < COUNT(numbers) && expected_count(&scores[i]) > 0; n++) {
      const expected_param *param = &scores[i].params[0];
      if (param->range == MATRIX) continue;
      const attn_argument arg = {.name = param->name, .number = numbers[n]};
      attn_score *score = make_score(scores[i].name, &arg, 1);
      const attn_argument got = attn_score_get_argument(score, 0, 7);
      ck_assert_str_eq(got.name, param->name);
      ck_assert(got.number == numbers[n]);
      attn_score_free(score);
    }
  const attn_argument args[] = {{.name = "top_k", .number = 5},
                                {.name = "temperature", .number = 0.25}};
  attn_normalization *norm = make_normalization("softmax", args, 2);
  ck_assert(attn_normalization_get_argument(norm, 0).number == 0.25);
  ck_assert(attn_normalization_get_argument(norm, 1).number == 5);
  attn_normalization_free(norm);
  const attn_argument scale = {.name = "scale", .number = -2};
  attn_score_free(make_score("cosine", &scale, 1));
}
END_TEST

START_TEST(test_defaults) {
  for (size_t i = 0; i < COUNT(scores); i++) {
    const size_t count = expected_count(&scores[i]);
    if (count > 0 && scores[i].params[0].range == MATRIX) continue;
    attn_score *score = make_score(scores[i].name, NULL, 0);
    for (size_t p = 0; p < count; p++) {
      const attn_argument got = attn_score_get_argument(score, p, 64);
      const double expected =
          isnan(scores[i].params[p].otherwise) ? 0.125 : scores[i].params[p].otherwise;
      ck_assert_str_eq(got.name, scores[i].params[p].name);
      ck_assert_msg(fabs(got.number - expected) <= 1e-12, "%s.%s is %.17g", scores[i].name,
                    got.name, got.number);
    }
    ck_assert_uint_eq(attn_score_query_dim(score, 64), 64);
    attn_score_free(score);
  }
  for (size_t i = 0; i < COUNT(normalizations); i++) {
    attn_normalization *norm = make_normalization(normalizations[i].name, NULL, 0);
    for (size_t p = 0; p < expected_count(&normalizations[i]); p++)
      ck_assert(attn_normalization_get_argument(norm, p).number ==
                normalizations[i].params[p].otherwise);
    attn_normalization_free(norm);
  }
}
END_TEST

START_TEST(test_unknown_names) {
  const attn_argument sigma = {.name = "sigma", .number = 1};
  const attn_argument top_k = {.name = "top_k", .number = 3};
  const attn_argument misspelt = {.name = "sigmas", .number = 1};
  refuse_score(ATTN_UNKNOWN_NAME, "no_such_score", NULL, 0, "");
  refuse_score(ATTN_UNKNOWN_NAME, "", NULL, 0, "");
  refuse_score(ATTN_UNKNOWN_NAME, "dot ", NULL, 0, "");
  refuse_score(ATTN_UNKNOWN_NAME, "softmax", NULL, 0, "");
  refuse_score(ATTN_UNKNOWN_NAME, "dot", &sigma, 1, "sigma");
  refuse_score(ATTN_UNKNOWN_NAME, "gaussian", &misspelt, 1, "sigmas");
  refuse_score(ATTN_UNKNOWN_NAME, "gaussian", &top_k, 1, "top_k");
  refuse_normalization(ATTN_UNKNOWN_NAME, "gaussian", NULL, 0, "");
  refuse_normalization(ATTN_UNKNOWN_NAME, "none", &top_k, 1, "top_k");
  refuse_normalization(ATTN_UNKNOWN_NAME, "hardmax", &top_k, 1, "top_k");
  refuse_normalization(ATTN_UNKNOWN_NAME, "sigmoid", &top_k, 1, "top_k");
  refuse_normalization(ATTN_UNKNOWN_NAME, "sum", &sigma, 1, "sigma");
  const attn_argument twice[] = {sigma, sigma};
  refuse_score(ATTN_BAD_PARAMETER, "gaussian", twice, 2, "sigma");
  /* A name longer than the fault has room for is cut, not run over. */
  char name[100];
  memset(name, 'x', sizeof name - 1);
  name[sizeof name - 1] = '\0';
  const attn_argument long_name = {.name = name, .number = 1};
  attn_score *score = NULL;
  attn_fault fault;
  CHECK_STATUS(ATTN_UNKNOWN_NAME, attn_score_create(&score, "dot", &long_name, 1, &fault));
  ck_assert_uint_lt(strlen(fault.parameter), sizeof fault.parameter);
  CHECK_STATUS(ATTN_UNKNOWN_NAME, attn_score_create(&score, name, NULL, 0, &fault));
}
END_TEST

/* ---- Tensors ---- */

START_TEST(test_tensors) {
  float w[15], nan_w[15];
  fill(w, 15, 0.5f);
  fill(nan_w, 15, 0.5f);
  nan_w[14] = NAN;
  refuse_score(ATTN_BAD_PARAMETER, "bilinear", NULL, 0, "w");
  const attn_argument bad[] = {{.name = "w", .number = 1},
                               {.name = "w", .data = NULL, .rows = 3, .cols = 5},
                               {.name = "w", .data = w, .rows = 0, .cols = 5},
                               {.name = "w", .data = w, .rows = 3, .cols = 0},
                               {.name = "w", .data = w, .rows = SIZE_MAX / 2, .cols = 4},
                               {.name = "w", .data = w, .rows = 1, .cols = SIZE_MAX}};
  for (size_t i = 0; i < COUNT(bad); i++)
    refuse_score(ATTN_BAD_PARAMETER, "bilinear", &bad[i], 1, "w");
  refuse_score(ATTN_NOT_FINITE, "bilinear",
               &(attn_argument){.name = "w", .data = nan_w, .rows = 3, .cols = 5}, 1, "w");

  const attn_argument good = {.name = "w", .data = w, .rows = 3, .cols = 5};
  attn_score *score = make_score("bilinear", &good, 1);
  ck_assert_uint_eq(attn_score_query_dim(score, 5), 3);
  ck_assert_uint_eq(attn_score_query_dim(score, 3), 0);
  w[0] = 7; /* the library has its own copy */
  const attn_argument got = attn_score_get_argument(score, 0, 5);
  ck_assert(got.rows == 3 && got.cols == 5 && got.data != NULL && got.data[0] == 0.5f);
  attn_score_free(score);
}
END_TEST

START_TEST(test_tensors_of_additive) {
  float data[64];
  fill(data, 64, 0.25f);
  const attn_argument w_q = {.name = "w_q", .data = data, .rows = 4, .cols = 3};
  const attn_argument w_k = {.name = "w_k", .data = data, .rows = 4, .cols = 5};
  const attn_argument v = {.name = "v", .data = data, .rows = 4, .cols = 1};
  refuse_score(ATTN_BAD_PARAMETER, "additive", (attn_argument[]){w_k, v}, 2, "w_q");
  refuse_score(ATTN_BAD_PARAMETER, "additive", (attn_argument[]){w_q, v}, 2, "w_k");
  refuse_score(ATTN_BAD_PARAMETER, "additive", (attn_argument[]){w_q, w_k}, 2, "v");
  attn_argument bad = w_k;
  bad.rows = 6;
  refuse_score(ATTN_BAD_PARAMETER, "additive", (attn_argument[]){w_q, bad, v}, 3, "w_k");
  bad = v;
  bad.rows = 3;
  refuse_score(ATTN_BAD_PARAMETER, "additive", (attn_argument[]){w_q, w_k, bad}, 3, "v");
  bad = v;
  bad.cols = 2;
  refuse_score(ATTN_BAD_PARAMETER, "additive", (attn_argument[]){w_q, w_k, bad}, 3, "v");

  /* In any order. */
  attn_score *score = make_score("additive", (attn_argument[]){v, w_k, w_q}, 3);
  ck_assert_uint_eq(attn_score_query_dim(score, 5), 3);
  ck_assert_uint_eq(attn_score_query_dim(score, 4), 0);
  ck_assert_str_eq(attn_score_get_argument(score, 2, 5).name, "v");
  ck_assert_uint_eq(attn_score_get_argument(score, 2, 5).rows, 4);
  attn_score_free(score);
}
END_TEST

/* ---- Equality and references ---- */

START_TEST(test_equal) {
  float w[] = {1, 2, 3, 4, 5, 6}, other[] = {1, 2, 3, 4, 5, 7};
  const attn_argument one = {.name = "sigma", .number = 1}, two = {.name = "sigma", .number = 2};
  const attn_argument w23 = {.name = "w", .data = w, .rows = 2, .cols = 3};
  const attn_argument w32 = {.name = "w", .data = w, .rows = 3, .cols = 2};
  const attn_argument w23_other = {.name = "w", .data = other, .rows = 2, .cols = 3};
  const float copy[] = {1, 2, 3, 4, 5, 6};
  const attn_argument w23_copy = {.name = "w", .data = copy, .rows = 2, .cols = 3};
  const struct {
    const char *a_name, *b_name;
    const attn_argument *a, *b;
    bool equal;
  } cases[] = {{"gaussian", "gaussian", NULL, &one, true},
               {"gaussian", "gaussian", &two, &one, false},
               {"gaussian", "laplacian", &one, &one, false},
               {"bilinear", "bilinear", &w23, &w23_copy, true},
               {"bilinear", "bilinear", &w23, &w32, false},
               {"bilinear", "bilinear", &w23, &w23_other, false},
               {"dot", "dot", NULL, NULL, true},
               {"scaled_dot", "scaled_dot", NULL, NULL, true},
               {"dot", "scaled_dot", NULL, NULL, false}};
  for (size_t i = 0; i < COUNT(cases); i++) {
    attn_score *a = make_score(cases[i].a_name, cases[i].a, cases[i].a != NULL);
    attn_score *b = make_score(cases[i].b_name, cases[i].b, cases[i].b != NULL);
    ck_assert_msg(attn_score_equal(a, b) == cases[i].equal, "case %zu", i);
    ck_assert_msg(attn_score_equal(b, a) == cases[i].equal, "case %zu", i);
    ck_assert(attn_score_equal(a, a));
    attn_score_free(a);
    attn_score_free(b);
  }

  const attn_argument top = {.name = "top_k", .number = 3},
                      warm = {.name = "temperature", .number = 1};
  attn_normalization *plain = make_normalization("softmax", NULL, 0);
  attn_normalization *said = make_normalization("softmax", &warm, 1);
  attn_normalization *masked = make_normalization("softmax", &top, 1);
  attn_normalization *sum = make_normalization("sum", &top, 1);
  ck_assert(attn_normalization_equal(plain, said));
  ck_assert(!attn_normalization_equal(plain, masked));
  ck_assert(!attn_normalization_equal(masked, sum));
  ck_assert(attn_normalization_equal(sum, sum));
  attn_normalization_free(plain);
  attn_normalization_free(said);
  attn_normalization_free(masked);
  attn_normalization_free(sum);
}
END_TEST

START_TEST(test_references) {
  attn_score_free(NULL);
  attn_normalization_free(NULL);
  attn_score *score = make_score("gaussian", NULL, 0);
  ck_assert_ptr_eq(attn_score_ref(score), score);
  attn_score_free(score);
  ck_assert_str_eq(attn_score_get_info(score)->name, "gaussian");
  attn_score_free(score);
  attn_normalization *norm = make_normalization("sum", NULL, 0);
  ck_assert_ptr_eq(attn_normalization_ref(norm), norm);
  attn_normalization_free(norm);
  ck_assert_str_eq(attn_normalization_get_info(norm)->name, "sum");
  attn_normalization_free(norm);
  CHECK_STATUS(ATTN_BAD_ARGUMENT, attn_score_create(NULL, "dot", NULL, 0, NULL));
  CHECK_STATUS(ATTN_BAD_ARGUMENT, attn_normalization_create(NULL, "sum", NULL, 0, NULL));
}
END_TEST

int main(void) {
  Suite *suite = suite_create("parameters");
  add_test(suite, "score table", test_score_table);
  add_test(suite, "normalization table", test_normalization_table);
  add_test(suite, "texts", test_texts);
  add_test(suite, "numbers out of range", test_numbers_out_of_range);
  add_test(suite, "numbers in range", test_numbers_in_range);
  add_test(suite, "defaults", test_defaults);
  add_test(suite, "unknown names", test_unknown_names);
  add_test(suite, "tensors", test_tensors);
  add_test(suite, "tensors of additive", test_tensors_of_additive);
  add_test(suite, "equal", test_equal);
  add_test(suite, "references", test_references);
  return run_suite(suite);
}
