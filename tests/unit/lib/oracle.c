/* The oracle: every score and every normalization as a textbook prints it.
 * What it is for: the kernels of the library stream, tile, merge and mix
 * precisions, so a reader can't see at a glance that they compute the right
 * thing. Here a reader can: one small function per formula, plain loops,
 * float64 throughout over the caller's float32 numbers. The tests hold the
 * kernels against this file.
 * The invariant: nothing here calls or reads any part of the library, its tables of
 * names and defaults not excepted; it includes the public header's types alone. A mistake in those
 * would otherwise be made on both sides and seen by nobody.
 *
 * Three places are not the formula letter by letter, because the letter would
 * lose what float64 has:
 *  - gaussian and laplacian with `sum` work on the logarithm of the score. Far
 *    from every key the scores themselves are all 0, their ratios are not.
 *  - softmax, sparsemax and entmax15 first subtract the largest score. The
 *    result is the same for any constant, the rounding is not.
 *  - entmax15 updates its mean and its sum of squared deviations from row to
 *    row (Welford), since E[z^2] - E[z]^2 cancels.
 *
 * Rejected: long double (another width on every architecture), tables of
 * scores computed by matrix products (faster, but no longer the formula). */
#include "oracle.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct matrix {
  const float *data; /* NULL where none was given */
  size_t rows, cols;
} matrix;

/* Everything a formula may ask for, defaults filled in. */
typedef struct settings {
  double scale, sigma, radius, power, epsilon, temperature;
  size_t top_k; /* 0: no row is masked */
  matrix w, w_q, w_k, v;
} settings;

/* One query and one key. */
typedef struct pair {
  const float *q, *k;
  size_t dq, dk;
} pair;

/* ---- Scores ---------------------------------------------------------------- */

static double product(const float *a, const float *b, size_t n) {
  double sum = 0;
  for (size_t i = 0; i < n; i++)
    sum += (double)a[i] * (double)b[i];
  return sum;
}

static double squared_distance(const pair *p) {
  double sum = 0;
  for (size_t i = 0; i < p->dk; i++) {
    const double difference = (double)p->q[i] - (double)p->k[i];
    sum += difference * difference;
  }
  return sum;
}

static double distance(const pair *p) {
  return sqrt(squared_distance(p));
}

static double score_dot(const pair *p, const settings *s) {
  (void)s;
  return product(p->q, p->k, p->dk);
}

static double score_scaled_dot(const pair *p, const settings *s) {
  return s->scale * product(p->q, p->k, p->dk);
}

static double score_cosine(const pair *p, const settings *s) {
  const double norm_q = sqrt(product(p->q, p->q, p->dk));
  const double norm_k = sqrt(product(p->k, p->k, p->dk));
  if (norm_q == 0 || norm_k == 0) return 0;
  return s->scale * product(p->q, p->k, p->dk) / (norm_q * norm_k);
}

static double score_bilinear(const pair *p, const settings *s) {
  double sum = 0;
  for (size_t i = 0; i < p->dq; i++)
    sum += (double)p->q[i] * product(s->w.data + i * p->dk, p->k, p->dk);
  return sum;
}

static double score_additive(const pair *p, const settings *s) {
  double sum = 0;
  for (size_t h = 0; h < s->v.rows; h++) {
    const double from_q = product(s->w_q.data + h * p->dq, p->q, p->dq);
    const double from_k = product(s->w_k.data + h * p->dk, p->k, p->dk);
    sum += (double)s->v.data[h] * tanh(from_q + from_k);
  }
  return sum;
}

static double score_euclidean(const pair *p, const settings *s) {
  return -s->scale * distance(p);
}

static double log_gaussian(const pair *p, const settings *s) {
  return -squared_distance(p) / (2 * s->sigma * s->sigma);
}

static double score_gaussian(const pair *p, const settings *s) {
  return exp(log_gaussian(p, s));
}

static double log_laplacian(const pair *p, const settings *s) {
  return -distance(p) / s->sigma;
}

static double score_laplacian(const pair *p, const settings *s) {
  return exp(log_laplacian(p, s));
}

static double score_boxcar(const pair *p, const settings *s) {
  return distance(p) <= s->radius ? 1 : 0;
}

static double score_triangular(const pair *p, const settings *s) {
  return fmax(0, 1 - distance(p) / s->radius);
}

static double score_epanechnikov(const pair *p, const settings *s) {
  return fmax(0, 1 - squared_distance(p) / (s->radius * s->radius));
}

static double score_inverse_distance(const pair *p, const settings *s) {
  return 1 / (pow(distance(p), s->power) + s->epsilon);
}

static double score_constant(const pair *p, const settings *s) {
  (void)p;
  (void)s;
  return 1;
}

static double score_exact(const pair *p, const settings *s) {
  (void)s;
  for (size_t i = 0; i < p->dk; i++)
    if (p->q[i] != p->k[i]) return 0;
  return 1;
}

typedef double score_function(const pair *p, const settings *s);

typedef struct score_entry {
  const char *name;
  score_function *score;
  score_function *log_score; /* what `sum` uses in place of it, or NULL */
  const char *parameters[3]; /* all that the score can be told */
} score_entry;

static const score_entry score_table[] = {
    {"dot", score_dot, NULL, {NULL}},
    {"scaled_dot", score_scaled_dot, NULL, {"scale"}},
    {"cosine", score_cosine, NULL, {"scale"}},
    {"bilinear", score_bilinear, NULL, {"w"}},
    {"additive", score_additive, NULL, {"w_q", "w_k", "v"}},
    {"euclidean", score_euclidean, NULL, {"scale"}},
    {"gaussian", score_gaussian, log_gaussian, {"sigma"}},
    {"laplacian", score_laplacian, log_laplacian, {"sigma"}},
    {"boxcar", score_boxcar, NULL, {"radius"}},
    {"triangular", score_triangular, NULL, {"radius"}},
    {"epanechnikov", score_epanechnikov, NULL, {"radius"}},
    {"inverse_distance", score_inverse_distance, NULL, {"power", "epsilon"}},
    {"constant", score_constant, NULL, {NULL}},
    {"exact", score_exact, NULL, {NULL}},
};

/* ---- Normalizations ---------------------------------------------------------
 * Each turns n scores a into n weights b. Masked rows are not among the n.
 * `sorted` holds the same scores, the largest first; n is at least 1. */
typedef struct row_scores {
  const double *a, *sorted;
  size_t n;
} row_scores;

static void normalize_softmax(double *b, const row_scores *r, const settings *s) {
  double total = 0;
  for (size_t i = 0; i < r->n; i++) {
    b[i] = exp((r->a[i] - r->sorted[0]) / s->temperature);
    total += b[i];
  }
  for (size_t i = 0; i < r->n; i++)
    b[i] /= total;
}

static void normalize_sum(double *b, const row_scores *r, const settings *s) {
  (void)s;
  double total = 0;
  for (size_t i = 0; i < r->n; i++)
    total += r->a[i];
  for (size_t i = 0; i < r->n; i++)
    b[i] = total == 0 ? 0 : r->a[i] / total;
}

static void normalize_none(double *b, const row_scores *r, const settings *s) {
  (void)s;
  for (size_t i = 0; i < r->n; i++)
    b[i] = r->a[i];
}

static void normalize_hardmax(double *b, const row_scores *r, const settings *s) {
  (void)s;
  size_t best = 0;
  for (size_t i = 0; i < r->n; i++) {
    b[i] = 0;
    if (r->a[i] > r->a[best]) best = i;
  }
  b[best] = 1;
}

/* Martins & Astudillo 2016, algorithm 1: the support is the longest prefix of
 * the sorted scores z for which 1 + j z_j > z_1 + ... + z_j. */
static void normalize_sparsemax(double *b, const row_scores *r, const settings *s) {
  (void)s;
  double sum = 0, threshold = 0;
  for (size_t j = 1; j <= r->n; j++) {
    const double z = r->sorted[j - 1] - r->sorted[0];
    sum += z;
    if (1 + (double)j * z > sum)
      threshold = (sum - 1) / (double)j;
    else
      break;
  }
  for (size_t i = 0; i < r->n; i++)
    b[i] = fmax(0, r->a[i] - r->sorted[0] - threshold);
}

/* Peters, Niculae & Martins 2019, algorithm 2: with the scores halved, the
 * weights are [z - threshold]^2, and the support is the longest prefix whose
 * own threshold does not exceed its last member. */
static void normalize_entmax15(double *b, const row_scores *r, const settings *s) {
  (void)s;
  double mean = 0, deviations = 0, threshold = 0;
  for (size_t j = 1; j <= r->n; j++) {
    const double z = (r->sorted[j - 1] - r->sorted[0]) / 2;
    const double from_old_mean = z - mean;
    mean += from_old_mean / (double)j;
    deviations += from_old_mean * (z - mean);
    if (deviations > 1) break;
    const double candidate = mean - sqrt((1 - deviations) / (double)j);
    if (candidate > z) break;
    threshold = candidate;
  }
  for (size_t i = 0; i < r->n; i++) {
    const double above = fmax(0, (r->a[i] - r->sorted[0]) / 2 - threshold);
    b[i] = above * above;
  }
}

static void normalize_sigmoid(double *b, const row_scores *r, const settings *s) {
  (void)s;
  for (size_t i = 0; i < r->n; i++)
    b[i] = 1 / (1 + exp(-r->a[i]));
}

typedef void normalize_function(double *b, const row_scores *r, const settings *s);

typedef struct normalization_entry {
  const char *name;
  normalize_function *normalize;
  bool takes_log; /* a score's logarithm is used where the score has one */
  const char *parameters[3];
} normalization_entry;

static const normalization_entry normalization_table[] = {
    {"softmax", normalize_softmax, false, {"temperature", "top_k"}},
    {"sum", normalize_sum, true, {"top_k"}},
    {"none", normalize_none, false, {NULL}},
    {"hardmax", normalize_hardmax, false, {NULL}},
    {"sparsemax", normalize_sparsemax, false, {"top_k"}},
    {"entmax15", normalize_entmax15, false, {"top_k"}},
    {"sigmoid", normalize_sigmoid, false, {NULL}},
};

/* ---- Settings --------------------------------------------------------------- */

static const score_entry *find_score(const char *name) {
  for (size_t i = 0; i < sizeof score_table / sizeof *score_table; i++)
    if (strcmp(score_table[i].name, name) == 0) return &score_table[i];
  return NULL;
}

static const normalization_entry *find_normalization(const char *name) {
  for (size_t i = 0; i < sizeof normalization_table / sizeof *normalization_table; i++)
    if (strcmp(normalization_table[i].name, name) == 0) return &normalization_table[i];
  return NULL;
}

static settings default_settings(const char *score, size_t key_dim) {
  settings s = {.scale = 1, .sigma = 1, .radius = 1, .power = 2, .epsilon = 1e-6, .temperature = 1};
  if (strcmp(score, "scaled_dot") == 0) s.scale = 1 / sqrt((double)key_dim);
  return s;
}

static bool is_listed(const char *const parameters[3], const char *name) {
  for (size_t i = 0; i < 3 && parameters[i] != NULL; i++)
    if (strcmp(parameters[i], name) == 0) return true;
  return false;
}

static void take_argument(settings *s, const attn_argument *a) {
  const struct {
    const char *name;
    double *place;
  } numbers[] = {{"scale", &s->scale}, {"sigma", &s->sigma},     {"radius", &s->radius},
                 {"power", &s->power}, {"epsilon", &s->epsilon}, {"temperature", &s->temperature}};
  const struct {
    const char *name;
    matrix *place;
  } tensors[] = {{"w", &s->w}, {"w_q", &s->w_q}, {"w_k", &s->w_k}, {"v", &s->v}};

  for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
    if (strcmp(numbers[i].name, a->name) == 0) *numbers[i].place = a->number;
  for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++)
    if (strcmp(tensors[i].name, a->name) == 0)
      *tensors[i].place = (matrix){a->data, a->rows, a->cols};
  if (strcmp(a->name, "top_k") == 0) s->top_k = (size_t)a->number;
}

static attn_status take_arguments(settings *s, const char *const parameters[3],
                                  const attn_argument *args, size_t count) {
  for (size_t i = 0; i < count; i++) {
    if (!is_listed(parameters, args[i].name)) return ATTN_UNKNOWN_NAME;
    take_argument(s, &args[i]);
  }
  return ATTN_OK;
}

static bool is_shaped(const matrix *m, size_t rows, size_t cols) {
  return m->data != NULL && m->rows == rows && m->cols == cols;
}

/* A tensor of the wrong shape would be read past its end. */
static attn_status check_shapes(const attn_oracle_problem *p, const score_entry *score,
                                const settings *s) {
  if (p->rows == 0) return ATTN_EMPTY_MEMORY;
  if (score->score == score_bilinear)
    return is_shaped(&s->w, p->query_dim, p->key_dim) ? ATTN_OK : ATTN_BAD_PARAMETER;
  if (score->score == score_additive) {
    const size_t hidden = s->v.rows;
    const bool fits = hidden > 0 && is_shaped(&s->v, hidden, 1) &&
                      is_shaped(&s->w_q, hidden, p->query_dim) &&
                      is_shaped(&s->w_k, hidden, p->key_dim);
    return fits ? ATTN_OK : ATTN_BAD_PARAMETER;
  }
  return p->query_dim == p->key_dim ? ATTN_OK : ATTN_BAD_SHAPE;
}

/* ---- Attention --------------------------------------------------------------- */

typedef struct ranked {
  double score;
  size_t row;
} ranked;

/* The largest score first, the lower row first on a tie. */
static int compare_ranked(const void *left, const void *right) {
  const ranked *a = left, *b = right;
  if (a->score != b->score) return a->score > b->score ? -1 : 1;
  return a->row < b->row ? -1 : a->row > b->row;
}

/* Room for one query: its rows in order of rank, and those that were kept. */
typedef struct scratch {
  double *a, *kept, *sorted, *b;
  ranked *ranking;
} scratch;

/* Weights of one query from the scores in t->a: rank the rows, keep the top_k
 * first, normalize what was kept, leave 0 everywhere else. */
static void weigh(double *weights, const scratch *t, size_t rows,
                  const normalization_entry *normalization, const settings *s) {
  for (size_t i = 0; i < rows; i++) {
    t->ranking[i] = (ranked){t->a[i], i};
    weights[i] = 0;
  }
  qsort(t->ranking, rows, sizeof *t->ranking, compare_ranked);

  const size_t n = s->top_k == 0 || s->top_k > rows ? rows : s->top_k;
  for (size_t i = 0; i < n; i++)
    t->sorted[i] = t->ranking[i].score;
  /* Back into the order of the rows: the first n of the ranking are exactly
   * the rows that do not rank after its n-th entry. */
  const ranked last = t->ranking[n - 1];
  size_t count = 0;
  for (size_t i = 0; i < rows; i++)
    if (compare_ranked(&(ranked){t->a[i], i}, &last) <= 0) t->kept[count++] = t->a[i];
  normalization->normalize(t->b, &(row_scores){t->kept, t->sorted, n}, s);
  count = 0;
  for (size_t i = 0; i < rows; i++)
    if (compare_ranked(&(ranked){t->a[i], i}, &last) <= 0) weights[i] = t->b[count++];
}

static void combine(double *output, const double *weights, const float *values, size_t rows,
                    size_t value_dim) {
  for (size_t c = 0; c < value_dim; c++)
    output[c] = 0;
  for (size_t i = 0; i < rows; i++)
    for (size_t c = 0; c < value_dim; c++)
      output[c] += weights[i] * (double)values[i * value_dim + c];
}

attn_status attn_oracle_attend(const attn_oracle_problem *problem, double *outputs, double *weights,
                               double *scores) {
  const size_t rows = problem->rows;
  const score_entry *score = find_score(problem->score);
  const normalization_entry *normalization = find_normalization(problem->normalization);
  if (score == NULL || normalization == NULL) return ATTN_UNKNOWN_NAME;

  settings s = default_settings(problem->score, problem->key_dim);
  attn_status status =
      take_arguments(&s, score->parameters, problem->score_args, problem->score_arg_count);
  if (status == ATTN_OK)
    status = take_arguments(&s, normalization->parameters, problem->normalization_args,
                            problem->normalization_arg_count);
  if (status == ATTN_OK) status = check_shapes(problem, score, &s);
  if (status != ATTN_OK) return status;

  /* `sum` of a score that has a logarithm is the softmax of that logarithm. */
  const bool in_log_space = normalization->takes_log && score->log_score != NULL;
  if (in_log_space) normalization = find_normalization("softmax");

  /* calloc, because it checks the product of its arguments. */
  const scratch t = {.a = calloc(rows, sizeof(double)),
                     .kept = calloc(rows, sizeof(double)),
                     .sorted = calloc(rows, sizeof(double)),
                     .b = calloc(rows, sizeof(double)),
                     .ranking = calloc(rows, sizeof(ranked))};
  if (!t.a || !t.kept || !t.sorted || !t.b || !t.ranking) {
    status = ATTN_NO_MEMORY;
    goto done;
  }
  for (size_t q = 0; q < problem->query_count; q++) {
    for (size_t i = 0; i < rows; i++) {
      const pair p = {problem->queries + q * problem->query_dim,
                      problem->keys + i * problem->key_dim, problem->query_dim, problem->key_dim};
      t.a[i] = in_log_space ? score->log_score(&p, &s) : score->score(&p, &s);
      if (scores != NULL) scores[q * rows + i] = score->score(&p, &s);
    }
    weigh(weights + q * rows, &t, rows, normalization, &s);
    combine(outputs + q * problem->value_dim, weights + q * rows, problem->values, rows,
            problem->value_dim);
  }
done:
  free(t.a);
  free(t.kept);
  free(t.sorted);
  free(t.b);
  free(t.ranking);
  return status;
}
