/* Scores that are an entry of the table and nothing else: with a vector, a matrix, several of
 * them, a computed default, a map of the keys.
 *
 * The entries are those of score_kinds.h. Each is held against its formula in float64, over the
 * rows as the memory keeps them, in few dimensions and in 4096, where reading past a tensor
 * would be seen by AddressSanitizer. Which arithmetic served is asked of the library, so that
 * both are known to have been tested.
 *
 * An entry that does not say what becomes of its tensors has to be refused. */
#include "score_kinds.h"

#include "attend/arithmetic.h"

/* ---- One case ---- */

static bool same_name(const char *text, const char *name, size_t length) {
  return strlen(name) == length && memcmp(text, name, length) == 0;
}

static size_t size_named(const char *text, size_t length, struct sizes dim) {
  return same_name(text, "dq", length) ? dim.dq : same_name(text, "dk", length) ? dim.dk : OWN_DIM;
}

/* Tensors of the shapes that the entry declares, in guarded memory; those alone are given. */
static size_t make_tensors(rng *r, const struct example *example, struct sizes dim,
                           attn_argument *args) {
  const attn_score_info *info = &example->kind->info;
  size_t count = 0;
  for (size_t p = 0; p < info->param_count; p++) {
    const char *text = info->params[p].shape;
    if (!*text) continue;
    const size_t first = strcspn(text, ",");
    const bool matrix = info->params[p].kind == ATTN_PARAM_MATRIX;
    attn_argument *arg = &args[count++];
    *arg = (attn_argument){
        .name = info->params[p].name, .rows = size_named(text, first, dim), .cols = 1};
    if (matrix) arg->cols = size_named(text + first + 1, strlen(text + first + 1), dim);
    float *data = floats_new(arg->rows * arg->cols);
    const double wide = (double)(dim.dq > dim.dk ? dim.dq : dim.dk);
    fill_normal(r, data, arg->rows * arg->cols, example->size / sqrt(wide));
    arg->data = data;
  }
  return count;
}

struct subject {
  const struct example *example;
  struct sizes dim;
  attn_argument args[4];
  size_t arg_count;
  attn_score *score;
  attn_snapshot *memory;
  float *queries;
  size_t query_count;
  double *scores; /* query_count x rows, by the formula */
  double *values; /* rows x VALUE_DIM, as kept */
  char name[100];
};

enum { VALUE_DIM = 5 };

static attn_snapshot *make_memory(rng *r, size_t rows, size_t key_dim, attn_dtype dtype) {
  attn_snapshot *empty = NULL, *made = NULL;
  float *keys = floats_new(rows * key_dim), *values = floats_new(rows * VALUE_DIM);
  fill_normal(r, keys, rows * key_dim, 1);
  fill_normal(r, values, rows * VALUE_DIM, 1);
  memcpy(keys + key_dim, keys, key_dim * sizeof *keys); /* two equal keys */
  CHECK_STATUS(ATTN_OK, attn_snapshot_create_typed(&empty, key_dim, VALUE_DIM, dtype));
  CHECK_STATUS(ATTN_OK, attn_snapshot_append(&made, empty, keys, values, rows));
  attn_snapshot_free(empty);
  floats_free(keys);
  floats_free(values);
  return made;
}

static void compute_scores(struct subject *it) {
  const size_t rows = attn_snapshot_rows(it->memory);
  float *key = must_alloc(it->dim.dk, sizeof *key), value[VALUE_DIM];
  double *k = must_alloc(it->dim.dk, sizeof *k), *q = must_alloc(it->dim.dq, sizeof *q);
  it->scores = must_alloc(it->query_count * rows, sizeof *it->scores);
  it->values = must_alloc(rows * VALUE_DIM, sizeof *it->values);
  for (size_t row = 0; row < rows; row++) {
    CHECK_STATUS(ATTN_OK, attn_snapshot_get_row(it->memory, row, key, value));
    for (size_t i = 0; i < it->dim.dk; i++)
      k[i] = (double)key[i];
    for (size_t i = 0; i < VALUE_DIM; i++)
      it->values[row * VALUE_DIM + i] = (double)value[i];
    for (size_t n = 0; n < it->query_count; n++) {
      for (size_t i = 0; i < it->dim.dq; i++)
        q[i] = (double)it->queries[n * it->dim.dq + i];
      it->scores[n * rows + row] = it->example->formula(it->args, it->dim, q, k);
    }
  }
  free(key);
  free(k);
  free(q);
}

static struct subject subject_new(const struct example *example, struct sizes dim, size_t rows,
                                  size_t query_count, attn_dtype dtype) {
  struct subject it = {.example = example, .dim = dim, .query_count = query_count};
  rng r = rng_for_case(dim.dq * 131 + dim.dk * 7 + (size_t)dtype);
  attn_fault fault = {"", ""};
  if (example->kind == &diagonal || example->kind == &anisotropic ||
      example->kind == &mahalanobis || example->kind == &mapped_cosine)
    it.dim.dq = dim.dk; /* no tensor of its own for the query */
  it.arg_count = make_tensors(&r, example, it.dim, it.args);
  const attn_status status =
      attn_score_create_kind(&it.score, example->kind, it.args, it.arg_count, &fault);
  ck_assert_msg(status == ATTN_OK, "%s: %s", example->kind->info.name, fault.detail);
  it.memory = make_memory(&r, rows, dim.dk, dtype);
  it.queries = floats_new(query_count * it.dim.dq);
  fill_normal(&r, it.queries, query_count * it.dim.dq, 1);
  snprintf(it.name, sizeof it.name, "%s %zu,%zu dtype %d", example->kind->info.name, it.dim.dq,
           it.dim.dk, (int)dtype);
  return it;
}

static void subject_free(struct subject *it) {
  attn_score_free(it->score);
  attn_snapshot_free(it->memory);
  floats_free(it->queries);
  for (size_t i = 0; i < it->arg_count; i++)
    floats_free((float *)(uintptr_t)it->args[i].data);
  free(it->scores);
  free(it->values);
}

/* ---- What is expected of the weights ---- */

/* The score and the row's place in the order of ties. */
static size_t rank_of(const double *scores, size_t rows, size_t row) {
  size_t before = 0;
  for (size_t i = 0; i < rows; i++)
    before += scores[i] > scores[row] || (scores[i] == scores[row] && i < row);
  return before;
}

/* Those of softmax, sum, none or hardmax over the `kept` best rows. */
static void expected_weights(const char *norm, const double *scores, size_t rows, size_t kept,
                             double *weights) {
  double max = -INFINITY, total = 0;
  for (size_t i = 0; i < rows; i++)
    max = fmax(max, scores[i]);
  for (size_t i = 0; i < rows; i++) {
    const size_t rank = kept < rows || strcmp(norm, "hardmax") == 0 ? rank_of(scores, rows, i) : 0;
    weights[i] = strcmp(norm, "softmax") == 0   ? exp(scores[i] - max)
                 : strcmp(norm, "hardmax") == 0 ? rank == 0
                                                : scores[i];
    if (rank >= kept) weights[i] = 0;
    total += weights[i];
  }
  for (size_t i = 0; i < rows; i++)
    if (strcmp(norm, "none") != 0) weights[i] /= total;
}

static void check_query(const struct subject *it, const char *norm, size_t kept, size_t query,
                        const float *outputs, const float *weights) {
  const size_t rows = attn_snapshot_rows(it->memory);
  double *expected = must_alloc(rows, sizeof *expected), largest = 0, scale = 1;
  expected_weights(norm, it->scores + query * rows, rows, kept, expected);
  for (size_t i = 0; i < rows * VALUE_DIM; i++)
    largest = fmax(largest, fabs(it->values[i]));
  for (size_t i = 0; i < rows && strcmp(norm, "none") == 0; i++)
    scale += fabs(expected[i]);
  for (size_t i = 0; i < rows; i++)
    ck_assert_msg(fabs((double)weights[i] - expected[i]) <= 1e-5 * scale,
                  "%s %s %zu: weight %zu of query %zu is %.9g, not %.9g", it->name, norm, kept, i,
                  query, (double)weights[i], expected[i]);
  ck_assert_msg(kept < rows || strcmp(norm, "hardmax") == 0 || weights[0] == weights[1],
                "%s %s: equal keys have unequal weights", it->name, norm);
  for (size_t c = 0; c < VALUE_DIM; c++) {
    double output = 0;
    for (size_t i = 0; i < rows; i++)
      output += expected[i] * it->values[i * VALUE_DIM + c];
    ck_assert_msg(fabs((double)outputs[c] - output) <= (1e-5 * largest + 1e-6) * scale,
                  "%s %s %zu: output %zu of query %zu is %.9g, not %.9g", it->name, norm, kept, c,
                  query, (double)outputs[c], output);
  }
  free(expected);
}

static void check_norm(const struct subject *it, const char *norm, size_t kept,
                       const attn_pool *pool) {
  const size_t rows = attn_snapshot_rows(it->memory);
  const attn_argument top_k = {.name = "top_k", .number = (double)kept};
  attn_normalization *made = NULL;
  CHECK_STATUS(ATTN_OK, attn_normalization_create(&made, norm, &top_k, kept < rows, NULL));
  float *outputs = floats_new(it->query_count * VALUE_DIM);
  float *weights = floats_new(it->query_count * rows);
  const attn_request request = {.queries = it->queries,
                                .query_count = it->query_count,
                                .query_dim = it->dim.dq,
                                .score = it->score,
                                .normalization = made,
                                .weights_mode = ATTN_WEIGHTS_FULL};
  attn_result result = attn_result_for(it->memory, &request);
  result.outputs = outputs;
  result.weights = weights;
  CHECK_STATUS(ATTN_OK, attn_attend(it->memory, &request, &result, pool));
  for (size_t q = 0; q < it->query_count; q++)
    check_query(it, norm, kept, q, outputs + q * VALUE_DIM, weights + q * rows);
  floats_free(outputs);
  floats_free(weights);
  attn_normalization_free(made);
}

/* How many of the queries float32 serves in a softmax. */
static size_t served_by_float32(const struct subject *it, bool select) {
  const struct attn_traits traits = {.soft = !select, .select = select, .beta = 1};
  const struct attn_arithmetic arithmetic = attn_arithmetic_of(it->memory, it->score, &traits);
  const struct attn_query_map map = {
      .score = it->score, .query_dim = it->dim.dq, .key_dim = it->dim.dk, .beta = 1, .f32 = true};
  if (!arithmetic.possible) return 0;
  struct attn_arena room = attn_arena_begin(NULL, 0);
  struct attn_queries mapped;
  size_t *which = must_alloc(it->query_count, sizeof *which), count = 0;
  for (size_t q = 0; q < it->query_count; q++)
    which[q] = q;
  CHECK_STATUS(ATTN_OK,
               attn_queries_map(&mapped, &room, &map, it->queries, which, it->query_count));
  struct attn_margin margin;
  for (size_t q = 0; q < it->query_count; q++)
    count += attn_arithmetic_fits(&arithmetic, mapped.norms[q], mapped.scaled_norm[q], &margin);
  attn_arena_end(&room);
  free(which);
  return count;
}

static void check_everything(struct subject *it) {
  const attn_pool pool = backwards_pool(3);
  const size_t rows = attn_snapshot_rows(it->memory);
  ck_assert_uint_eq(attn_score_query_dim(it->score, it->dim.dk), it->dim.dq);
  compute_scores(it);
  for (int pooled = 0; pooled < 2; pooled++) {
    const attn_pool *by = pooled ? &pool : NULL;
    check_norm(it, "softmax", rows, by);
    check_norm(it, "softmax", 3, by);
    check_norm(it, "hardmax", rows, by);
    check_norm(it, "none", rows, by);
    if (it->example->kind == &anisotropic) check_norm(it, "sum", rows, by);
  }
}

/* ---- Tests ---- */

static const struct sizes sizes[] = {{2, 2}, {3, 2}, {1, 4096}, {4095, 4096}, {4096, 2}};

/* A matrix of 4095 x 4096, which the formula goes through for every pair. */
static bool is_large(const struct example *example, struct sizes dim) {
  return example->kind == &moved && dim.dq > 3000 && dim.dk > 3000;
}

START_TEST(test_entries_against_their_formulas) {
  static const attn_dtype dtypes[] = {ATTN_F32, ATTN_F16, ATTN_INT8};
  for (size_t e = 0; e < COUNT(examples); e++)
    for (size_t s = 0; s < COUNT(sizes); s++)
      for (size_t d = 0; d < COUNT(dtypes); d++) {
        const bool large = is_large(&examples[e], sizes[s]);
        if (large && dtypes[d] != ATTN_F32) continue;
        struct subject it =
            subject_new(&examples[e], sizes[s], large ? 4 : 40, large ? 2 : 3, dtypes[d]);
        check_everything(&it);
        subject_free(&it);
      }
}
END_TEST

/* So many that they are mapped in slices and answered in blocks. */
START_TEST(test_many_queries) {
  for (size_t e = 0; e < COUNT(examples); e++) {
    struct subject it = subject_new(&examples[e], (struct sizes){48, 40}, 90, 300, ATTN_F32);
    check_everything(&it);
    subject_free(&it);
  }
}
END_TEST

/* The suite is worth nothing if all of it went through one arithmetic. */
START_TEST(test_both_arithmetics_are_tested) {
  for (size_t e = 0; e < COUNT(examples); e++)
    for (size_t s = 0; s < COUNT(sizes); s++) {
      struct subject it = subject_new(&examples[e], sizes[s], 40, 4, ATTN_F32);
      const size_t expected = examples[e].float32 ? it.query_count : 0;
      ck_assert_msg(served_by_float32(&it, false) == expected, "%s", it.name);
      ck_assert_msg(served_by_float32(&it, true) == expected, "%s", it.name);
      subject_free(&it);
    }
}
END_TEST

/* A product too large for float32 in a softmax is computed in float64. */
START_TEST(test_beyond_float32) {
  for (size_t s = 0; s < COUNT(sizes); s++) {
    struct example large = examples[0];
    large.size = 40;
    struct subject it = subject_new(&large, sizes[s], 40, 4, ATTN_F32);
    if (sizes[s].dk > 2) ck_assert_uint_eq(served_by_float32(&it, false), 0);
    check_everything(&it);
    subject_free(&it);
  }
}
END_TEST

START_TEST(test_computed_default) {
  float numbers[6] = {1, 2, 3, 4, 5, 6};
  const attn_argument args[] = {{.name = "a", .data = numbers, .rows = 1, .cols = 3},
                                {.name = "b", .data = numbers, .rows = 2, .cols = 3},
                                {.name = "scale", .number = -3}};
  attn_score *score = NULL;
  CHECK_STATUS(ATTN_OK, attn_score_create_kind(&score, &low_rank, args, 2, NULL));
  ck_assert(attn_score_get_argument(score, 0, 2).number == 0.5);
  ck_assert_str_eq(attn_score_get_argument(score, 2, 2).name, "b");
  ck_assert(attn_score_get_argument(score, 2, 2).data[5] == 6);
  attn_score_free(score);
  CHECK_STATUS(ATTN_OK, attn_score_create_kind(&score, &low_rank, args, 3, NULL));
  ck_assert(attn_score_get_argument(score, 0, 2).number == -3);
  attn_score_free(score);
}
END_TEST

/* ---- Tensors that do not fit ---- */

static void refuse(const struct score_kind *kind, const attn_argument *args, size_t count,
                   attn_status expected, const char *parameter, const char *detail) {
  attn_score *score = NULL;
  attn_fault fault = {"", ""};
  CHECK_STATUS(expected, attn_score_create_kind(&score, kind, args, count, &fault));
  ck_assert_ptr_null(score);
  ck_assert_str_eq(fault.parameter, parameter);
  ck_assert_msg(strstr(fault.detail, detail) != NULL, "'%s' lacks '%s'", fault.detail, detail);
}

START_TEST(test_sizes_that_do_not_agree) {
  const float numbers[24] = {0};
  const attn_argument a = {.name = "a", .data = numbers, .rows = 4, .cols = 3};
  const attn_argument b = {.name = "b", .data = numbers, .rows = 2, .cols = 4};
  refuse(&low_rank, (attn_argument[]){a, b}, 2, ATTN_BAD_PARAMETER, "b",
         "b has 4 columns, a has 3");
  const attn_argument g = {.name = "g", .data = numbers, .rows = 5, .cols = 1};
  const attn_argument w_q = {.name = "w_q", .data = numbers, .rows = 3, .cols = 4};
  const attn_argument w_k = {.name = "w_k", .data = numbers, .rows = 2, .cols = 3};
  const attn_argument v = {.name = "v", .data = numbers, .rows = 3, .cols = 1};
  refuse(&gated, (attn_argument[]){g, w_q, w_k, v}, 4, ATTN_BAD_PARAMETER, "w_q",
         "w_q has 4 columns, g has 5 rows");
}
END_TEST

static void check_keys(const struct score_kind *kind, const attn_argument *args, size_t count,
                       size_t right_dim, const char *detail) {
  attn_score *score = NULL;
  attn_fault fault = {"", ""};
  CHECK_STATUS(ATTN_OK, attn_score_create_kind(&score, kind, args, count, NULL));
  ck_assert_uint_gt(attn_score_query_dim(score, right_dim), 0);
  CHECK_STATUS(ATTN_OK, attn_score_check_keys(score, right_dim, &fault));
  const size_t wrong[] = {1, right_dim - 1, right_dim + 1, 4096};
  for (size_t i = 0; i < COUNT(wrong); i++) {
    ck_assert_uint_eq(attn_score_query_dim(score, wrong[i]), 0);
    CHECK_STATUS(ATTN_BAD_SHAPE, attn_score_check_keys(score, wrong[i], &fault));
  }
  CHECK_STATUS(ATTN_BAD_SHAPE, attn_score_check_keys(score, 4096, NULL));
  ck_assert_str_eq(fault.detail, detail);
  attn_score_free(score);
}

/* A vector for keys of 3 numbers never meets keys of 4096. */
START_TEST(test_keys_that_do_not_fit) {
  const float numbers[24] = {0};
  const attn_argument vector = {.name = "w", .data = numbers, .rows = 3, .cols = 1};
  const attn_argument matrix = {.name = "w", .data = numbers, .rows = 2, .cols = 3};
  const attn_argument a = {.name = "a", .data = numbers, .rows = 4, .cols = 2};
  const attn_argument b = {.name = "b", .data = numbers, .rows = 3, .cols = 2};
  check_keys(&diagonal, &vector, 1, 3, "w has 3 numbers, the keys have 4096 components");
  check_keys(&mahalanobis, &matrix, 1, 3, "w has rows of 3 numbers, the keys have 4096 components");
  check_keys(&low_rank, (attn_argument[]){a, b}, 2, 3,
             "b has 3 rows, the keys have 4096 components");

  attn_score *score = NULL;
  attn_normalization *norm = NULL;
  rng r = rng_for_case(0);
  attn_snapshot *memory = make_memory(&r, 20, 4096, ATTN_F32);
  float *query = must_alloc(4096, sizeof *query), output[VALUE_DIM];
  CHECK_STATUS(ATTN_OK, attn_score_create_kind(&score, &diagonal, &vector, 1, NULL));
  CHECK_STATUS(ATTN_OK, attn_normalization_create(&norm, "softmax", NULL, 0, NULL));
  const attn_request request = {
      .queries = query, .query_count = 1, .query_dim = 4096, .score = score, .normalization = norm};
  attn_result result = attn_result_for(memory, &request);
  result.outputs = output;
  CHECK_STATUS(ATTN_BAD_SHAPE, attn_attend(memory, &request, &result, NULL));
  free(query);
  attn_snapshot_free(memory);
  attn_score_free(score);
  attn_normalization_free(norm);
}
END_TEST

/* ---- Entries that make no sense ---- */

START_TEST(test_entries_that_do_not_say_enough) {
  static const attn_param_info shapeless[] = {TENSOR(VECTOR, "w", "")};
  static const attn_param_info too_long[] = {TENSOR(VECTOR, "w", "dk,dk")};
  static const attn_param_info queries_alone[] = {TENSOR(MATRIX, "w", "h,dq")};
  static const attn_param_info no_default[] = {NUMBER("scale", NAN, "?")};
  static const attn_param_info optional[] = {
      {.name = "w", .kind = ATTN_PARAM_VECTOR, .default_value = NAN, .shape = "dk"}};
  static const attn_param_info many[ATTN_PARAMS_MAX + 1];
  const float numbers[4] = {1, 2, 3, 4};
  const attn_argument vector = {.name = "w", .data = numbers, .rows = 2, .cols = 1};
  const attn_argument matrix = {.name = "w", .data = numbers, .rows = 2, .cols = 2};
  struct score_kind bad = diagonal;

  bad.query_map[0] = NULL; /* what becomes of w? */
  refuse(&bad, &vector, 1, ATTN_BAD_ARGUMENT, "", "diagonal");
  bad.query_map[0] = "u"; /* there is no u */
  refuse(&bad, &vector, 1, ATTN_BAD_ARGUMENT, "", "diagonal");
  bad = diagonal;
  bad.unit_weights = "w"; /* a product has none */
  refuse(&bad, &vector, 1, ATTN_BAD_ARGUMENT, "", "diagonal");
  bad = gated;
  bad.unit_weights = NULL;
  refuse(&bad, NULL, 0, ATTN_BAD_ARGUMENT, "", "gated");
  bad = diagonal;
  bad.info.params = shapeless;
  refuse(&bad, &vector, 1, ATTN_BAD_ARGUMENT, "", "diagonal");
  bad.info.params = too_long;
  refuse(&bad, &vector, 1, ATTN_BAD_ARGUMENT, "", "diagonal");
  bad.info.params = optional;
  refuse(&bad, NULL, 0, ATTN_BAD_ARGUMENT, "", "diagonal");
  bad.info.params = queries_alone; /* the query ends in h, the keys stay in dk */
  refuse(&bad, &matrix, 1, ATTN_BAD_ARGUMENT, "", "diagonal");
  bad = mahalanobis;
  bad.key_map = NULL;
  refuse(&bad, &matrix, 1, ATTN_BAD_ARGUMENT, "", "mahalanobis");
  bad.query_map[0] = NULL;
  bad.key_map = "w";
  refuse(&bad, &matrix, 1, ATTN_BAD_ARGUMENT, "", "mahalanobis");
  bad = diagonal;
  bad.query_map[0] = NULL;
  bad.info.params = no_default;
  refuse(&bad, NULL, 0, ATTN_BAD_ARGUMENT, "", "diagonal");
  bad.info.params = many;
  bad.info.param_count = COUNT(many);
  refuse(&bad, NULL, 0, ATTN_BAD_ARGUMENT, "", "diagonal");
}
END_TEST

/* float32 would compute something else. */
START_TEST(test_entries_whose_float32_form_does_not_fit) {
  const float numbers[2] = {1, 2};
  const attn_argument vector = {.name = "w", .data = numbers, .rows = 2, .cols = 1};
  struct score_kind bad = diagonal;
  bad.f32 = SCORE_F32_DISTANCE;
  refuse(&bad, &vector, 1, ATTN_BAD_ARGUMENT, "", "diagonal");
  bad = diagonal;
  bad.coefficient = NULL;
  refuse(&bad, &vector, 1, ATTN_BAD_ARGUMENT, "", "diagonal");
  bad = diagonal;
  bad.f32_log = SCORE_F32_LINEAR; /* of a logarithm that there is not */
  refuse(&bad, &vector, 1, ATTN_BAD_ARGUMENT, "", "diagonal");
  bad = anisotropic;
  bad.f32_log = SCORE_F32_LINEAR;
  refuse(&bad, &vector, 1, ATTN_BAD_ARGUMENT, "", "anisotropic");
  bad = diagonal;
  bad.score = NULL;
  refuse(&bad, &vector, 1, ATTN_BAD_ARGUMENT, "", "diagonal");
}
END_TEST

/* Every entry of the library says enough: with tensors of 2 for every dimension it can be made. */
START_TEST(test_the_library_s_own_entries) {
  const float numbers[4] = {1, 2, 3, 4};
  const attn_score_info *info;
  for (size_t i = 0; (info = attn_score_info_at(i)) != NULL; i++) {
    attn_argument args[ATTN_PARAMS_MAX];
    attn_score *score = NULL;
    attn_fault fault = {"", ""};
    size_t count = 0;
    ck_assert_uint_le(info->param_count, ATTN_PARAMS_MAX);
    for (size_t p = 0; p < info->param_count; p++)
      if (*info->params[p].shape)
        args[count++] = (attn_argument){.name = info->params[p].name,
                                        .data = numbers,
                                        .rows = 2,
                                        .cols = info->params[p].kind == ATTN_PARAM_MATRIX ? 2 : 1};
    const attn_status status = attn_score_create(&score, info->name, args, count, &fault);
    ck_assert_msg(status == ATTN_OK, "%s: %s", info->name, fault.detail);
    ck_assert_uint_eq(attn_score_query_dim(score, 2), 2);
    attn_score_free(score);
  }
}
END_TEST

int main(void) {
  Suite *suite = suite_create("score kinds");
  add_test(suite, "formulas", test_entries_against_their_formulas);
  add_test(suite, "many queries", test_many_queries);
  add_test(suite, "both arithmetics", test_both_arithmetics_are_tested);
  add_test(suite, "beyond float32", test_beyond_float32);
  add_test(suite, "computed default", test_computed_default);
  add_test(suite, "sizes", test_sizes_that_do_not_agree);
  add_test(suite, "keys", test_keys_that_do_not_fit);
  add_test(suite, "entries that make no sense", test_entries_that_do_not_say_enough);
  add_test(suite, "float32 forms that do not fit", test_entries_whose_float32_form_does_not_fit);
  add_test(suite, "the library's own", test_the_library_s_own_entries);
  return run_suite(suite);
}
