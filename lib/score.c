/* The score functions: one table, one line per score.
 *
 * A score is a *base* that a tile kernel computes for every pair (a product, a
 * distance, ...) and a function of that base. So a new kernel of the distance,
 * say, is one function and one entry here; attend.c and tile.c need not hear
 * of it. A new base is a case in tile.c. Tensors of a score are applied to the query, or to
 * each key, before the base: the entry names them, and their shapes say how (maps.c).
 *
 * The functions below are the float64 path. They have to stay finite for
 * every finite input: distances of float32 vectors reach 1e42, so ratios are
 * formed before they are squared, and a score beyond +-SCORE_LIMIT is held
 * there, where a sum over a whole memory of it times a value is still finite. */
#include "score.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SCORE_LIMIT 1e200

static double limit(double a) {
  return fmin(fmax(a, -SCORE_LIMIT), SCORE_LIMIT);
}

/* ---- Functions of the base ---- */

static double score_base_itself(double base, const double *number) {
  (void)number;
  return base;
}

static double score_scaled(double base, const double *number) {
  return limit(number[0] * base);
}

static double score_euclidean(double distance, const double *number) {
  return limit(-number[0] * distance);
}

static double log_gaussian(double distance, const double *number) {
  const double ratio = fmin(distance / number[0], 1e90);
  return -0.5 * ratio * ratio;
}

static double score_gaussian(double distance, const double *number) {
  return exp(log_gaussian(distance, number));
}

static double log_laplacian(double distance, const double *number) {
  return -fmin(distance / number[0], SCORE_LIMIT);
}

static double score_laplacian(double distance, const double *number) {
  return exp(log_laplacian(distance, number));
}

static double score_boxcar(double distance, const double *number) {
  return distance <= number[0] ? 1.0 : 0.0;
}

static double score_triangular(double distance, const double *number) {
  return fmax(0.0, 1.0 - distance / number[0]);
}

static double score_epanechnikov(double distance, const double *number) {
  const double ratio = distance / number[0];
  /* (1 - r)(1 + r), since 1 - r*r would lose what is left close to the edge */
  return ratio < 1.0 ? (1.0 - ratio) * (1.0 + ratio) : 0.0;
}

static double score_inverse_distance(double distance, const double *number) {
  return limit(1.0 / (pow(distance, number[0]) + number[1]));
}

/* ---- Coefficients of the float32 path ---- */

static double coefficient_one(const double *number, bool log) {
  (void)number;
  (void)log;
  return 1.0;
}

static double coefficient_scale(const double *number, bool log) {
  (void)log;
  return number[0];
}

static double coefficient_minus_scale(const double *number, bool log) {
  (void)log;
  return -number[0];
}

static double coefficient_gaussian(const double *number, bool log) {
  (void)log;
  return -0.5 / number[0] / number[0];
}

static double coefficient_laplacian(const double *number, bool log) {
  (void)log;
  return -1.0 / number[0];
}

/* ---- Parameters ---- */

#define NUMBER_ANY(name_, default_, text_, help_)                                                  \
  {                                                                                                \
    .name = name_, .kind = ATTN_PARAM_NUMBER, .least = -INFINITY, .default_value = default_,       \
    .default_text = text_, .shape = "", .help = help_                                              \
  }
#define NUMBER_POSITIVE(name_, default_, text_, help_)                                             \
  {                                                                                                \
    .name = name_, .kind = ATTN_PARAM_NUMBER, .least = 0, .above_least = true,                     \
    .default_value = default_, .default_text = text_, .shape = "", .help = help_                   \
  }
#define NUMBER_AT_LEAST_0(name_, default_, text_, help_)                                           \
  {                                                                                                \
    .name = name_, .kind = ATTN_PARAM_NUMBER, .least = 0, .default_value = default_,               \
    .default_text = text_, .shape = "", .help = help_                                              \
  }
#define TENSOR(kind_, name_, shape_, help_)                                                        \
  {                                                                                                \
    .name = name_, .kind = kind_, .required = true, .default_value = NAN, .default_text = "",      \
    .shape = shape_, .help = help_                                                                 \
  }

static const attn_param_info scaled_dot_params[] = {
    NUMBER_ANY("scale", NAN, "1/sqrt(dk)", "factor of the product")};
static const attn_param_info cosine_params[] = {
    NUMBER_ANY("scale", 1, "1", "factor of the cosine")};
static const attn_param_info euclidean_params[] = {
    NUMBER_ANY("scale", 1, "1", "factor of the distance")};
static const attn_param_info bandwidth_params[] = {
    NUMBER_POSITIVE("sigma", 1, "1", "bandwidth, in units of the distance")};
static const attn_param_info radius_params[] = {
    NUMBER_POSITIVE("radius", 1, "1", "distance at which the score ends")};
static const attn_param_info inverse_distance_params[] = {
    NUMBER_POSITIVE("power", 2, "2", "exponent of the distance"),
    NUMBER_AT_LEAST_0("epsilon", 1e-6, "1e-6", "what keeps the score finite at distance 0")};
static const attn_param_info bilinear_params[] = {
    TENSOR(ATTN_PARAM_MATRIX, "w", "dq,dk", "the form's matrix")};
static const attn_param_info additive_params[] = {
    TENSOR(ATTN_PARAM_MATRIX, "w_q", "h,dq", "projection of the query"),
    TENSOR(ATTN_PARAM_MATRIX, "w_k", "h,dk", "projection of the key"),
    TENSOR(ATTN_PARAM_VECTOR, "v", "h", "weights of the hidden units")};

/* Vaswani et al. 2017, eq. 1. */
static double default_scaled_dot(size_t index, size_t key_dim) {
  (void)index;
  return 1.0 / sqrt((double)key_dim);
}

#define COUNT(array) (sizeof(array) / sizeof *(array))
/* Does not compile if there are too many. */
#define PARAM_COUNT(params)                                                                        \
  (COUNT(params) * sizeof(char[COUNT(params) <= ATTN_PARAMS_MAX ? 1 : -1]))
#define INFO(name, formula, normalization, params)                                                 \
  { name, formula, normalization, params, PARAM_COUNT(params) }
#define INFO_BARE(name, formula, normalization)                                                    \
  { name, formula, normalization, NULL, 0 }

/* ---- The table ---- */

static const struct score_kind kinds[] = {
    {.info = INFO_BARE("dot", "q.k", "softmax"),
     .base = BASE_DOT,
     .score = score_base_itself,
     .f32 = SCORE_F32_LINEAR,
     .coefficient = coefficient_one},
    {.info = INFO("scaled_dot", "scale * q.k", "softmax", scaled_dot_params),
     .computed_default = default_scaled_dot,
     .base = BASE_DOT,
     .score = score_scaled,
     .f32 = SCORE_F32_LINEAR,
     .coefficient = coefficient_scale},
    {.info =
         INFO("cosine", "scale * q.k / (|q| |k|), 0 where a norm is 0", "softmax", cosine_params),
     .base = BASE_COSINE,
     .score = score_scaled,
     .f32 = SCORE_F32_LINEAR,
     .coefficient = coefficient_scale},
    {.info = INFO("bilinear", "q^T w k", "softmax", bilinear_params),
     .query_map = {"w"},
     .base = BASE_DOT,
     .score = score_base_itself,
     .f32 = SCORE_F32_LINEAR,
     .coefficient = coefficient_one},
    {.info = INFO("additive", "v . tanh(w_q q + w_k k)", "softmax", additive_params),
     .query_map = {"w_q"},
     .key_map = "w_k",
     .unit_weights = "v",
     .base = BASE_ADDITIVE,
     .score = score_base_itself,
     .f32 = SCORE_F32_LINEAR,
     .coefficient = coefficient_one},
    {.info = INFO("euclidean", "-scale * |q-k|", "softmax", euclidean_params),
     .base = BASE_DISTANCE,
     .score = score_euclidean,
     .f32 = SCORE_F32_DISTANCE,
     .coefficient = coefficient_minus_scale},
    {.info = INFO("gaussian", "exp(-|q-k|^2 / (2 sigma^2))", "sum", bandwidth_params),
     .base = BASE_DISTANCE,
     .score = score_gaussian,
     .log_score = log_gaussian,
     .f32_log = SCORE_F32_SQUARE,
     .coefficient = coefficient_gaussian},
    {.info = INFO("laplacian", "exp(-|q-k| / sigma)", "sum", bandwidth_params),
     .base = BASE_DISTANCE,
     .score = score_laplacian,
     .log_score = log_laplacian,
     .f32_log = SCORE_F32_DISTANCE,
     .coefficient = coefficient_laplacian},
    {.info = INFO("boxcar", "1 where |q-k| <= radius, else 0", "sum", radius_params),
     .base = BASE_DISTANCE,
     .score = score_boxcar},
    {.info = INFO("triangular", "max(0, 1 - |q-k|/radius)", "sum", radius_params),
     .base = BASE_DISTANCE,
     .score = score_triangular},
    {.info = INFO("epanechnikov", "max(0, 1 - |q-k|^2/radius^2)", "sum", radius_params),
     .base = BASE_DISTANCE,
     .score = score_epanechnikov},
    {.info =
         INFO("inverse_distance", "1 / (|q-k|^power + epsilon)", "sum", inverse_distance_params),
     .base = BASE_DISTANCE,
     .score = score_inverse_distance},
    {.info = INFO_BARE("constant", "1", "sum"), .base = BASE_ONE, .score = score_base_itself},
    {.info = INFO_BARE("exact", "1 where q = k, else 0", "sum"),
     .base = BASE_IDENTITY,
     .score = score_base_itself},
};

const attn_score_info *attn_score_info_at(size_t index) {
  return index < COUNT(kinds) ? &kinds[index].info : NULL;
}

static const struct score_kind *find_kind(const char *name) {
  for (size_t i = 0; name && i < COUNT(kinds); i++)
    if (strcmp(kinds[i].info.name, name) == 0) return &kinds[i];
  return NULL;
}

const attn_score_info *attn_score_info_find(const char *name) {
  const struct score_kind *kind = find_kind(name);
  return kind ? &kind->info : NULL;
}

/* ---- Objects ---- */

static bool fast_fits(const struct score_kind *kind, enum score_f32 f32) {
  if (f32 == SCORE_F32_NONE) return true;
  if (!kind->coefficient) return false;
  const enum score_base base = kind->base;
  return f32 == SCORE_F32_LINEAR ? base == BASE_DOT || base == BASE_COSINE || base == BASE_ADDITIVE
                                 : base == BASE_DISTANCE;
}

/* An entry that would compile and be computed wrongly, or read past its tensors, is refused
 * here and in attn_maps_resolve(). */
static bool kind_is_sound(const struct score_kind *kind) {
  if (kind->info.param_count > ATTN_PARAMS_MAX || !kind->score) return false;
  if ((kind->base == BASE_ADDITIVE) != (kind->unit_weights != NULL)) return false;
  if (!fast_fits(kind, kind->f32) || !fast_fits(kind, kind->f32_log)) return false;
  if (kind->f32_log != SCORE_F32_NONE && !kind->log_score) return false;
  for (size_t i = 0; i < kind->info.param_count; i++) {
    const attn_param_info *param = &kind->info.params[i];
    const bool number = param->kind == ATTN_PARAM_NUMBER || param->kind == ATTN_PARAM_COUNT;
    if (number && !param->required && isnan(param->default_value) && !kind->computed_default)
      return false;
    if (!number && !param->required) return false;
  }
  return true;
}

attn_status attn_score_create_kind(attn_score **score, const struct score_kind *kind,
                                   const attn_argument *args, size_t count, attn_fault *fault) {
  if (!kind_is_sound(kind))
    return attn_fault_set(fault, ATTN_BAD_ARGUMENT, "", "the table does not say what %s is",
                          kind->info.name);
  attn_score *made = calloc(1, sizeof *made);
  if (!made) return attn_fault_set(fault, ATTN_NO_MEMORY, "", "out of memory");
  made->kind = kind;
  atomic_init(&made->references, 1);
  attn_status status = attn_params_read(&made->params, kind->info.params, kind->info.param_count,
                                        args, count, fault);
  const struct attn_map_names names = {kind->query_map, kind->key_map, kind->unit_weights};
  if (status == ATTN_OK)
    status = attn_maps_resolve(&made->maps, &names, &kind->info, &made->params, fault);
  if (status == ATTN_OK)
    *score = made;
  else
    attn_score_free(made);
  return status;
}

attn_status attn_score_create(attn_score **score, const char *name, const attn_argument *args,
                              size_t count, attn_fault *fault) {
  if (!score || (count > 0 && !args))
    return attn_fault_set(fault, ATTN_BAD_ARGUMENT, "", "a pointer is missing");
  const struct score_kind *kind = find_kind(name);
  if (!kind) return attn_fault_set(fault, ATTN_UNKNOWN_NAME, "", "there is no score of that name");
  return attn_score_create_kind(score, kind, args, count, fault);
}

attn_score *attn_score_ref(attn_score *score) {
  if (score) atomic_fetch_add_explicit(&score->references, 1, memory_order_relaxed);
  return score;
}

void attn_score_free(attn_score *score) {
  if (!score || atomic_fetch_sub_explicit(&score->references, 1, memory_order_acq_rel) > 1) return;
  attn_params_clear(&score->params);
  free(score);
}

const attn_score_info *attn_score_get_info(const attn_score *score) {
  return &score->kind->info;
}

void attn_score_numbers(const attn_score *score, size_t key_dim, double *numbers) {
  const struct score_kind *kind = score->kind;
  for (size_t i = 0; i < kind->info.param_count; i++) {
    const double number = score->params.number[i];
    const bool computed = isnan(number) && !kind->info.params[i].required;
    numbers[i] = computed ? kind->computed_default(i, key_dim) : number;
  }
}

attn_argument attn_score_get_argument(const attn_score *score, size_t index, size_t key_dim) {
  attn_argument argument = attn_params_get(&score->params, score->kind->info.params,
                                           score->kind->info.param_count, index);
  if (argument.name && !argument.data) {
    double numbers[ATTN_PARAMS_MAX];
    attn_score_numbers(score, key_dim, numbers);
    argument.number = numbers[index];
  }
  return argument;
}

attn_status attn_score_check_keys(const attn_score *score, size_t key_dim, attn_fault *fault) {
  return attn_maps_check_keys(&score->maps, &score->kind->info, &score->params, key_dim, fault);
}

size_t attn_score_query_dim(const attn_score *score, size_t key_dim) {
  const struct attn_maps *maps = &score->maps;
  if (maps->key_dim > 0 && maps->key_dim != key_dim) return 0;
  return maps->query_dim > 0 ? maps->query_dim : key_dim;
}

bool attn_score_equal(const attn_score *a, const attn_score *b) {
  return a == b || (a->kind == b->kind && attn_params_equal(&a->params, &b->params));
}
