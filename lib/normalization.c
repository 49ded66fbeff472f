/* The normalizations: one table, one line each.
 *
 * How a rule is computed falls into three families, and a new rule is a line
 * here plus its formula in the file of its family:
 *   fold.c    what can be folded tile by tile: softmax, sum, none, sigmoid
 *   select.c  what needs all scores first but gives weight to few rows:
 *             hardmax, sparsemax, entmax15, and whatever has a top_k */
#include "normalization.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* clang-format off */
#define TOP_K {.name = "top_k", .kind = ATTN_PARAM_COUNT, .least = 1, .default_value = 0, \
               .default_text = "all rows", .shape = "", \
               .help = "mask all but the k largest scores first; the lower row wins a tie"}
/* clang-format on */

static const attn_param_info softmax_params[] = {{.name = "temperature",
                                                  .kind = ATTN_PARAM_NUMBER,
                                                  .least = 0,
                                                  .above_least = true,
                                                  .default_value = 1,
                                                  .default_text = "1",
                                                  .shape = "",
                                                  .help = "beta = 1/temperature"},
                                                 TOP_K};
static const attn_param_info top_k_params[] = {TOP_K};

#define COUNT(array) (sizeof(array) / sizeof *(array))

static const struct norm_kind kinds[] = {
    {.info = {"softmax", "exp(beta a_i) / sum_j exp(beta a_j)", softmax_params,
              COUNT(softmax_params)},
     .rule = RULE_SOFTMAX},
    {.info = {"sum", "a_i / sum_j a_j", top_k_params, COUNT(top_k_params)}, .rule = RULE_SUM},
    {.info = {"none", "a_i", NULL, 0}, .rule = RULE_NONE},
    {.info = {"hardmax", "1 at the largest a_i, the first one on a tie, else 0", NULL, 0},
     .rule = RULE_HARDMAX},
    /* The threshold is at least max - 1, because the largest score alone must
     * not get more than the whole mass; for 1.5-entmax in a/2 likewise. */
    {.info = {"sparsemax", "projection of a onto the simplex", top_k_params, COUNT(top_k_params)},
     .rule = RULE_SPARSEMAX,
     .window = 1},
    {.info = {"entmax15", "1.5-entmax of a", top_k_params, COUNT(top_k_params)},
     .rule = RULE_ENTMAX15,
     .window = 2},
    {.info = {"sigmoid", "1 / (1 + exp(-a_i))", NULL, 0}, .rule = RULE_SIGMOID},
};

const attn_normalization_info *attn_normalization_info_at(size_t index) {
  return index < COUNT(kinds) ? &kinds[index].info : NULL;
}

static const struct norm_kind *find_kind(const char *name) {
  for (size_t i = 0; name && i < COUNT(kinds); i++)
    if (strcmp(kinds[i].info.name, name) == 0) return &kinds[i];
  return NULL;
}

const attn_normalization_info *attn_normalization_info_find(const char *name) {
  const struct norm_kind *kind = find_kind(name);
  return kind ? &kind->info : NULL;
}

/* The number of a parameter by name: the rules share `top_k` at different
 * places of their tables. */
static double number_of(const attn_normalization *norm, const char *name, double otherwise) {
  const attn_normalization_info *info = &norm->kind->info;
  for (size_t i = 0; i < info->param_count; i++)
    if (strcmp(info->params[i].name, name) == 0) return norm->params.number[i];
  return otherwise;
}

attn_status attn_normalization_create(attn_normalization **norm, const char *name,
                                      const attn_argument *args, size_t count, attn_fault *fault) {
  if (!norm || (count > 0 && !args))
    return attn_fault_set(fault, ATTN_BAD_ARGUMENT, "", "a pointer is missing");
  const struct norm_kind *kind = find_kind(name);
  if (!kind)
    return attn_fault_set(fault, ATTN_UNKNOWN_NAME, "", "there is no normalization of that name");
  attn_normalization *made = calloc(1, sizeof *made);
  if (!made) return attn_fault_set(fault, ATTN_NO_MEMORY, "", "out of memory");
  made->kind = kind;
  atomic_init(&made->references, 1);
  const attn_status status = attn_params_read(&made->params, kind->info.params,
                                              kind->info.param_count, args, count, fault);
  if (status != ATTN_OK) {
    attn_normalization_free(made);
    return status;
  }
  made->inverse_temperature = fmin(1.0 / number_of(made, "temperature", 1), DBL_MAX);
  made->top_k = (size_t)number_of(made, "top_k", 0);
  *norm = made;
  return ATTN_OK;
}

attn_normalization *attn_normalization_ref(attn_normalization *norm) {
  if (norm) atomic_fetch_add_explicit(&norm->references, 1, memory_order_relaxed);
  return norm;
}

void attn_normalization_free(attn_normalization *norm) {
  if (!norm || atomic_fetch_sub_explicit(&norm->references, 1, memory_order_acq_rel) > 1) return;
  attn_params_clear(&norm->params);
  free(norm);
}

const attn_normalization_info *attn_normalization_get_info(const attn_normalization *norm) {
  return &norm->kind->info;
}

attn_argument attn_normalization_get_argument(const attn_normalization *norm, size_t index) {
  return attn_params_get(&norm->params, norm->kind->info.params, norm->kind->info.param_count,
                         index);
}

bool attn_normalization_equal(const attn_normalization *a, const attn_normalization *b) {
  return a == b || (a->kind == b->kind && attn_params_equal(&a->params, &b->params));
}
