/* The *trial*: one memory, one batch of queries, one score and one
 * normalization, answered by the library and by the oracle.
 *
 * The invariant: a trial is judged by the contract's bounds and by nothing
 * else. Where the contract leaves a query open (two scores within 1e-6 of a
 * tie that decides, a sum that cancels, scores far beyond +-60 without a clear
 * winner) only the sanity of the answer is checked; every other query must
 * meet the bound.
 *
 * Rejected: files of expected numbers. They go stale, and they can't be made
 * for shapes nobody thought of. */
#ifndef TESTS_UNIT_LIB_TRIAL_H
#define TESTS_UNIT_LIB_TRIAL_H

#include "support.h"

#include "oracle.h"

/* ---- Trials ----------------------------------------------------------------------- */

typedef struct shape {
  size_t rows, key_dim, value_dim, query_count;
  size_t query_dim; /* 0: as the keys */
} shape;

typedef struct trial {
  shape of;
  float *keys, *values, *queries;
  const char *score, *normalization;
  attn_argument score_args[3], normalization_args[2];
  size_t score_arg_count, normalization_arg_count;
  float *tensors[3];
  uint64_t index; /* of the case */
  char note[64];

  /* Made by trial_prepare(). */
  attn_snapshot *snapshot;
  attn_score *made_score;
  attn_normalization *made_normalization;
  double *outputs, *weights, *scores; /* the oracle's */
  double *distances;                  /* where the score is a function of them */
  double largest_value;
  struct verdict *verdicts; /* one a query */
} trial;

/* How a query's answer is to be judged. Unnormalized weights can be large, and
 * float32 holds them to a part of their size at best: the bounds grow with
 * them. For normalized ones they are those of the contract. */
typedef struct verdict {
  bool open; /* see the top */
  double weight_bound, output_bound;
} verdict;

static inline trial trial_new(uint64_t index, shape of, const char *score,
                              const char *normalization) {
  if (of.query_dim == 0) of.query_dim = of.key_dim;
  return (trial){.of = of,
                 .keys = floats_new(of.rows * of.key_dim),
                 .values = floats_new(of.rows * of.value_dim),
                 .queries = floats_new(of.query_count * of.query_dim),
                 .score = score,
                 .normalization = normalization,
                 .index = index};
}

/* Forgets what trial_prepare() made, so that the inputs can be changed. */
static inline void trial_reset(trial *t) {
  attn_snapshot_free(t->snapshot);
  attn_score_free(t->made_score);
  attn_normalization_free(t->made_normalization);
  free(t->outputs);
  free(t->weights);
  free(t->scores);
  free(t->distances);
  free(t->verdicts);
  t->snapshot = NULL;
  t->made_score = NULL;
  t->made_normalization = NULL;
  t->outputs = t->weights = t->scores = t->distances = NULL;
  t->verdicts = NULL;
}

static inline void trial_free(trial *t) {
  trial_reset(t);
  floats_free(t->keys);
  floats_free(t->values);
  floats_free(t->queries);
  for (size_t i = 0; i < 3; i++)
    floats_free(t->tensors[i]);
}

static inline void trial_number(trial *t, const char *name, double number) {
  t->score_args[t->score_arg_count++] = (attn_argument){.name = name, .number = number};
}

static inline float *trial_tensor(trial *t, const char *name, size_t rows, size_t cols) {
  float *data = floats_new(rows * cols);
  t->tensors[t->score_arg_count] = data;
  t->score_args[t->score_arg_count++] =
      (attn_argument){.name = name, .data = data, .rows = rows, .cols = cols};
  return data;
}

static inline void trial_normalization_number(trial *t, const char *name, double number) {
  t->normalization_args[t->normalization_arg_count++] =
      (attn_argument){.name = name, .number = number};
}

static inline double trial_get(const trial *t, const char *name, double otherwise) {
  for (size_t i = 0; i < t->score_arg_count; i++)
    if (strcmp(t->score_args[i].name, name) == 0) return t->score_args[i].number;
  for (size_t i = 0; i < t->normalization_arg_count; i++)
    if (strcmp(t->normalization_args[i].name, name) == 0) return t->normalization_args[i].number;
  return otherwise;
}

static inline bool score_is(const trial *t, const char *name) {
  return strcmp(t->score, name) == 0;
}

static inline bool normalization_is(const trial *t, const char *name) {
  return strcmp(t->normalization, name) == 0;
}

/* The case in one line. Returns `text`. */
static inline const char *trial_describe(const trial *t, char text[512]) {
  int n =
      snprintf(text, 512, "ATTN_TEST_SEED=%llu case %llu%s%s: %s(", (unsigned long long)test_seed(),
               (unsigned long long)t->index, *t->note ? " " : "", t->note, t->score);
  for (size_t i = 0; i < t->score_arg_count; i++) {
    const attn_argument *a = &t->score_args[i];
    if (a->data != NULL)
      n += snprintf(text + n, 512 - (size_t)n, " %s[%zu][%zu]", a->name, a->rows, a->cols);
    else
      n += snprintf(text + n, 512 - (size_t)n, " %s=%.17g", a->name, a->number);
  }
  n += snprintf(text + n, 512 - (size_t)n, ") %s(", t->normalization);
  for (size_t i = 0; i < t->normalization_arg_count; i++)
    n += snprintf(text + n, 512 - (size_t)n, " %s=%.17g", t->normalization_args[i].name,
                  t->normalization_args[i].number);
  snprintf(text + n, 512 - (size_t)n, ") rows %zu dk %zu dv %zu queries %zu dq %zu", t->of.rows,
           t->of.key_dim, t->of.value_dim, t->of.query_count, t->of.query_dim);
  return text;
}

#define TRIAL_FAIL(t, ...)                                                                         \
  do {                                                                                             \
    char case_[512], what_[256];                                                                   \
    snprintf(what_, sizeof what_, __VA_ARGS__);                                                    \
    ck_abort_msg("%s: %s", trial_describe((t), case_), what_);                                     \
  } while (0)

static inline attn_oracle_problem trial_problem(const trial *t) {
  return (attn_oracle_problem){.keys = t->keys,
                               .values = t->values,
                               .queries = t->queries,
                               .rows = t->of.rows,
                               .key_dim = t->of.key_dim,
                               .value_dim = t->of.value_dim,
                               .query_count = t->of.query_count,
                               .query_dim = t->of.query_dim,
                               .score = t->score,
                               .score_args = t->score_args,
                               .score_arg_count = t->score_arg_count,
                               .normalization = t->normalization,
                               .normalization_args = t->normalization_args,
                               .normalization_arg_count = t->normalization_arg_count};
}

/* ---- Which queries the contract leaves open ------------------------------------------ */

static inline int compare_descending(const void *left, const void *right) {
  const double a = *(const double *)left, b = *(const double *)right;
  return a > b ? -1 : a < b;
}

/* The numbers by which the rows of a query are ranked, the largest first. The
 * logarithm where there is one: it tells apart what exp() makes equal. */
static inline double *trial_ranking(const trial *t, size_t query) {
  const size_t rows = t->of.rows;
  double *ranking = must_alloc(rows, sizeof *ranking);
  const double sigma = trial_get(t, "sigma", 1);
  for (size_t i = 0; i < rows; i++) {
    const double score = t->scores[query * rows + i];
    const double d = t->distances != NULL ? t->distances[query * rows + i] : 0;
    ranking[i] = score_is(t, "gaussian")    ? -d * d / (2 * sigma * sigma)
                 : score_is(t, "laplacian") ? -d / sigma
                                            : score;
  }
  qsort(ranking, rows, sizeof *ranking, compare_descending);
  return ranking;
}

/* True where a row within the first k and one beyond differ, but by no more
 * than `slack`: the decision is then within the error of the scores. */
static inline bool is_near_tie(const double *ranking, size_t rows, size_t k, double slack) {
  if (k >= rows) return false;
  size_t inside = k - 1, outside = k;
  if (ranking[inside] != ranking[outside]) return ranking[inside] - ranking[outside] <= slack;
  while (inside > 0 && ranking[inside] == ranking[k])
    inside--;
  while (outside + 1 < rows && ranking[outside] == ranking[k])
    outside++;
  return (ranking[inside] != ranking[k] && ranking[inside] - ranking[k] <= slack) ||
         (ranking[outside] != ranking[k] && ranking[k] - ranking[outside] <= slack);
}

static inline bool sum_cancels(const trial *t, size_t query) {
  double total = 0, absolute = 0;
  const size_t rows = t->of.rows;
  const bool masked = trial_get(t, "top_k", 0) > 0;
  for (size_t i = 0; i < rows; i++)
    if (!masked || t->weights[query * rows + i] != 0) {
      total += t->scores[query * rows + i];
      absolute += fabs(t->scores[query * rows + i]);
    }
  return fabs(total) < 1e-3 * absolute;
}

/* Outside of the +-60 of the contract only a clear winner is certain, be it one
 * row or several that tie exactly. */
static inline bool is_uncertain(const trial *t, const double *ranking) {
  if (normalization_is(t, "sum") || normalization_is(t, "none") || normalization_is(t, "hardmax") ||
      normalization_is(t, "sigmoid"))
    return false;
  if (t->distances != NULL) return false;
  const double temperature = trial_get(t, "temperature", 1);
  const size_t rows = t->of.rows;
  const double largest = fmax(fabs(ranking[0]), fabs(ranking[rows - 1]));
  size_t second = 0;
  while (second < rows && ranking[second] == ranking[0])
    second++;
  if (largest <= 60 * temperature || second == rows) return false;
  return !(ranking[0] - ranking[second] > 60 * temperature + 1e-5 * largest);
}

static inline bool trial_is_open(const trial *t, size_t query) {
  const size_t rows = t->of.rows;
  double *ranking = trial_ranking(t, query);
  const double first = ranking[0], largest = fmax(fabs(ranking[0]), fabs(ranking[rows - 1]));
  const double top_k = trial_get(t, "top_k", 0);
  bool open = is_uncertain(t, ranking);
  if (normalization_is(t, "hardmax")) {
    const double slack = t->distances != NULL ? 1e-6 * fmax(1, fabs(first)) : 1e-6 * fabs(first);
    open = open || is_near_tie(ranking, rows, 1, slack);
  }
  if (top_k > 0 && top_k < (double)rows)
    open = open || is_near_tie(ranking, rows, (size_t)top_k, 1e-6 * largest);
  if (normalization_is(t, "sum") && !score_is(t, "gaussian") && !score_is(t, "laplacian"))
    open = open || sum_cancels(t, query);
  if (score_is(t, "boxcar")) {
    const double radius = trial_get(t, "radius", 1);
    for (size_t i = 0; i < rows; i++)
      open = open || fabs(t->distances[query * rows + i] - radius) <= 1e-6 * radius;
  }
  free(ranking);
  return open;
}

static inline verdict trial_verdict(const trial *t, size_t query) {
  double largest = 1, total = 0;
  for (size_t i = 0; i < t->of.rows; i++) {
    const double weight = fabs(t->weights[query * t->of.rows + i]);
    largest = fmax(largest, weight);
    total += weight;
  }
  return (verdict){.open = trial_is_open(t, query),
                   .weight_bound = 1e-5 * largest,
                   .output_bound = (1e-5 * t->largest_value + 1e-6) * fmax(1, total)};
}

/* ---- Asking both --------------------------------------------------------- */

/* Builds the library's objects from the inputs as they are, and asks the oracle. */
static inline void trial_prepare(trial *t) {
  const size_t cells = t->of.query_count * t->of.rows;
  attn_snapshot *empty = NULL;
  attn_fault fault = {"", ""};
  trial_reset(t);
  if (attn_snapshot_create(&empty, t->of.key_dim, t->of.value_dim) != ATTN_OK ||
      attn_snapshot_append(&t->snapshot, empty, t->keys, t->values, t->of.rows) != ATTN_OK)
    TRIAL_FAIL(t, "the memory could not be made");
  attn_snapshot_free(empty);
  if (attn_score_create(&t->made_score, t->score, t->score_args, t->score_arg_count, &fault) !=
          ATTN_OK ||
      attn_normalization_create(&t->made_normalization, t->normalization, t->normalization_args,
                                t->normalization_arg_count, &fault) != ATTN_OK)
    TRIAL_FAIL(t, "refused (%s): %s", fault.parameter, fault.detail);

  t->outputs = must_alloc(t->of.query_count * t->of.value_dim, sizeof(double));
  t->weights = must_alloc(cells, sizeof(double));
  t->scores = must_alloc(cells, sizeof(double));
  attn_oracle_problem problem = trial_problem(t);
  if (attn_oracle_attend(&problem, t->outputs, t->weights, t->scores) != ATTN_OK)
    TRIAL_FAIL(t, "the oracle refuses");

  if (score_is(t, "gaussian") || score_is(t, "laplacian") || score_is(t, "boxcar")) {
    double *ignored_outputs = must_alloc(t->of.query_count * t->of.value_dim, sizeof(double));
    double *ignored_weights = must_alloc(cells, sizeof(double));
    t->distances = must_alloc(cells, sizeof(double));
    problem.score = "euclidean";
    problem.normalization = "none";
    problem.score_arg_count = problem.normalization_arg_count = 0;
    const attn_status status =
        attn_oracle_attend(&problem, ignored_outputs, ignored_weights, t->distances);
    free(ignored_outputs);
    free(ignored_weights);
    if (status != ATTN_OK) TRIAL_FAIL(t, "the oracle refuses");
    for (size_t i = 0; i < cells; i++)
      t->distances[i] = -t->distances[i];
  }
  t->largest_value = 0;
  for (size_t i = 0; i < t->of.rows * t->of.value_dim; i++)
    t->largest_value = fmax(t->largest_value, fabs((double)t->values[i]));
  t->verdicts = must_alloc(t->of.query_count, sizeof *t->verdicts);
  for (size_t q = 0; q < t->of.query_count; q++)
    t->verdicts[q] = trial_verdict(t, q);
}

/* ---- Judging an answer ------------------------------------------------------------------ */

typedef struct answer {
  float *outputs, *weights;
  attn_weight *largest;
  size_t *largest_count;
  size_t top;
} answer;

static inline void judge_outputs(const trial *t, const answer *a, size_t query) {
  const bool open = t->verdicts[query].open;
  const double bound = t->verdicts[query].output_bound;
  for (size_t c = 0; c < t->of.value_dim; c++) {
    const double got = (double)a->outputs[query * t->of.value_dim + c];
    const double expected = t->outputs[query * t->of.value_dim + c];
    if (!isfinite(got)) TRIAL_FAIL(t, "query %zu: output %zu is %g", query, c, got);
    if (!open && !(fabs(got - expected) <= bound))
      TRIAL_FAIL(t, "query %zu: output %zu is %.9g, expected %.9g, off by %.3g, bound %.3g", query,
                 c, got, expected, fabs(got - expected), bound);
  }
}

static inline void judge_weight(const trial *t, size_t query, size_t row, double got) {
  const double expected = t->weights[query * t->of.rows + row];
  const bool open = t->verdicts[query].open;
  const double bound = t->verdicts[query].weight_bound;
  if (!isfinite(got)) TRIAL_FAIL(t, "query %zu: weight %zu is %g", query, row, got);
  if (!open && !(fabs(got - expected) <= bound))
    TRIAL_FAIL(t, "query %zu: weight %zu is %.9g, expected %.9g, off by %.3g, bound %.3g", query,
               row, got, expected, fabs(got - expected), bound);
  if (normalization_is(t, "hardmax") && got != 0 && got != 1)
    TRIAL_FAIL(t, "query %zu: weight %zu is %g, neither 0 nor 1", query, row, got);
}

static inline void judge_weights(const trial *t, const answer *a, size_t query) {
  double total = 0;
  for (size_t i = 0; i < t->of.rows; i++) {
    const double weight = (double)a->weights[query * t->of.rows + i];
    judge_weight(t, query, i, weight);
    total += weight;
  }
  if (normalization_is(t, "softmax") || normalization_is(t, "sparsemax") ||
      normalization_is(t, "entmax15") || normalization_is(t, "hardmax"))
    if (!(fabs(total - 1) <= 1e-4)) TRIAL_FAIL(t, "query %zu: weights add to %.9g", query, total);
}

/* The list must be in order, free of zeros and of repetitions, and no row that
 * is not in it may be larger than its last entry. */
static inline void judge_largest(const trial *t, const answer *a, size_t query) {
  const size_t rows = t->of.rows, room = a->top < rows ? a->top : rows;
  const size_t count = a->largest_count[query];
  const attn_weight *list = a->largest + query * room;
  if (count > room)
    TRIAL_FAIL(t, "query %zu: %zu weights listed, room for %zu", query, count, room);
  bool *listed = must_alloc(rows, sizeof *listed);
  for (size_t i = 0; i < count; i++) {
    if (list[i].row >= rows || listed[list[i].row])
      TRIAL_FAIL(t, "query %zu: entry %zu is row %zu, again or past the end", query, i,
                 list[i].row);
    listed[list[i].row] = true;
    if (list[i].weight == 0) TRIAL_FAIL(t, "query %zu: entry %zu has weight 0", query, i);
    judge_weight(t, query, list[i].row, (double)list[i].weight);
    if (i > 0 && !(list[i - 1].weight > list[i].weight ||
                   (list[i - 1].weight == list[i].weight && list[i - 1].row < list[i].row)))
      TRIAL_FAIL(t, "query %zu: entries %zu and %zu are out of order (row %zu %.9g, row %zu %.9g)",
                 query, i - 1, i, list[i - 1].row, (double)list[i - 1].weight, list[i].row,
                 (double)list[i].weight);
  }
  /* Where there was room for more, what is missing must be 0; a negative
   * weight may be missing, since zeros come before it. */
  const double slack = 2 * t->verdicts[query].weight_bound;
  const double last = count == room ? (double)list[count - 1].weight : 0;
  for (size_t i = 0; !t->verdicts[query].open && i < rows; i++)
    if (!listed[i] && t->weights[query * rows + i] > last + slack)
      TRIAL_FAIL(t, "query %zu: row %zu of weight %.9g is not listed, %.9g is", query, i,
                 t->weights[query * rows + i], last);
  free(listed);
}

/* A pool for tests that need the cut into tasks but not the threads: runs
 * them here and now, the last one first. `context` is unused. */
static inline void run_backwards(void *context, size_t count, void (*task)(void *, size_t),
                                 void *argument) {
  (void)context;
  while (count > 0)
    task(argument, --count);
}

static inline attn_pool backwards_pool(unsigned workers) {
  return (attn_pool){.workers = workers, .run = run_backwards};
}

typedef struct asking {
  attn_weights_mode mode;
  size_t top;
  const attn_pool *pool; /* or NULL */
} asking;

static inline attn_request trial_request(const trial *t, const asking *how) {
  return (attn_request){.queries = t->queries,
                        .query_count = t->of.query_count,
                        .query_dim = t->of.query_dim,
                        .score = t->made_score,
                        .normalization = t->made_normalization,
                        .weights_mode = how->mode,
                        .top = how->mode == ATTN_WEIGHTS_TOP ? how->top : 0};
}

static inline attn_result trial_result(const trial *t, const attn_request *request,
                                       const answer *a) {
  attn_result result = attn_result_for(t->snapshot, request);
  result.outputs = a->outputs;
  result.weights = a->weights;
  result.largest = a->largest;
  result.largest_count = a->largest_count;
  return result;
}

static inline attn_status trial_attend(const trial *t, const asking *how, const answer *a) {
  const attn_request request = trial_request(t, how);
  attn_result result = trial_result(t, &request, a);
  return attn_attend(t->snapshot, &request, &result, how->pool);
}

/* Room for an answer, filled with what no answer may contain. */
static inline answer answer_new(const trial *t, const asking *how) {
  const size_t queries = t->of.query_count, rows = t->of.rows;
  const size_t room = how->top < rows ? how->top : rows;
  answer a = {.outputs = floats_new(queries * t->of.value_dim), .top = how->top};
  fill(a.outputs, queries * t->of.value_dim, NAN);
  if (how->mode == ATTN_WEIGHTS_FULL) {
    a.weights = floats_new(queries * rows);
    fill(a.weights, queries * rows, NAN);
  } else if (how->mode == ATTN_WEIGHTS_TOP) {
    a.largest = must_alloc(queries * room, sizeof *a.largest);
    a.largest_count = must_alloc(queries, sizeof *a.largest_count);
    for (size_t i = 0; i < queries * room; i++)
      a.largest[i] = (attn_weight){SIZE_MAX, NAN};
    for (size_t i = 0; i < queries; i++)
      a.largest_count[i] = SIZE_MAX;
  }
  return a;
}

static inline void answer_free(answer *a) {
  floats_free(a->outputs);
  floats_free(a->weights);
  free(a->largest);
  free(a->largest_count);
}

/* Holds an answer against the oracle's. Returns how many of the queries could
 * be compared in full. */
static inline size_t trial_judge(const trial *t, const answer *a) {
  if (!floats_are_intact(a->outputs, t->of.query_count * t->of.value_dim) ||
      (a->weights != NULL && !floats_are_intact(a->weights, t->of.query_count * t->of.rows)))
    TRIAL_FAIL(t, "wrote outside of the answer's room");
  size_t compared = 0;
  for (size_t q = 0; q < t->of.query_count; q++) {
    judge_outputs(t, a, q);
    if (a->weights != NULL) judge_weights(t, a, q);
    if (a->largest != NULL) judge_largest(t, a, q);
    compared += !t->verdicts[q].open;
  }
  return compared;
}

static inline size_t trial_check(const trial *t, asking how) {
  answer a = answer_new(t, &how);
  const attn_status status = trial_attend(t, &how, &a);
  if (status != ATTN_OK) TRIAL_FAIL(t, "attend: %s", attn_status_text(status));
  const size_t compared = trial_judge(t, &a);
  answer_free(&a);
  return compared;
}

/* All three modes, without a pool and with one. */
static inline size_t trial_check_all(trial *t, size_t top) {
  const attn_pool pool = backwards_pool(3);
  size_t compared = 0;
  const attn_weights_mode modes[] = {ATTN_WEIGHTS_NONE, ATTN_WEIGHTS_FULL, ATTN_WEIGHTS_TOP};
  for (size_t i = 0; i < 3; i++)
    for (int pooled = 0; pooled < 2; pooled++) {
      snprintf(t->note, sizeof t->note, "[mode %zu top %zu%s]", i, top, pooled ? " pool" : "");
      compared += trial_check(t, (asking){modes[i], top, pooled ? &pool : NULL});
    }
  *t->note = '\0';
  return compared;
}

#endif
