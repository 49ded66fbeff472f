/* Maps: from the shapes that a score's table entry declares to what is computed.
 *
 * A shape names its dimensions: "dq" is the query's, "dk" the key's, any other name ("h")
 * the score's own, and one name stands for one size wherever it comes. An entry says which
 * tensors a query and a key go through; what a tensor does follows from where the dimension
 * that goes in stands in its shape. With a query of "dq" numbers the tensor "dq,dk" is
 * q^T W, the tensor "h,dq" is W q, and a vector "dk" that meets "dk" numbers is a product
 * component by component. So dimensions, checks and faults need no code of each score, and
 * an entry whose chain does not end where the keys are, or that has a tensor which nothing
 * uses, is refused instead of being computed wrongly. (A square matrix "dk,dk" is x^T W.)
 *
 * Rejected: a function of each score that maps a query. It would have to repeat the shapes
 * in code, for the query, for the key, for the checks and for the faults; and a matrix
 * product of a whole batch, which is what large batches need, could not be told from it. */
#include "maps.h"

#include <string.h>

/* The name of a dimension within a shape. */
struct dim_name {
  const char *text;
  size_t length;
};

static struct dim_name named(const char *text) {
  return (struct dim_name){text, strlen(text)};
}

static bool same(struct dim_name a, struct dim_name b) {
  return a.length == b.length && memcmp(a.text, b.text, a.length) == 0;
}

static size_t dims_of(const attn_param_info *info) {
  return info->kind == ATTN_PARAM_VECTOR ? 1 : info->kind == ATTN_PARAM_MATRIX ? 2 : 0;
}

static struct dim_name dim_at(const attn_param_info *info, size_t index) {
  const char *text = info->shape;
  if (index > 0) text += strcspn(text, ",") + 1;
  return (struct dim_name){text, strcspn(text, ",")};
}

static size_t size_at(const struct attn_params *params, size_t param, size_t index) {
  return index == 0 ? params->rows[param] : params->cols[param];
}

static bool shape_is_sound(const attn_param_info *info) {
  size_t commas = 0;
  for (const char *c = info->shape; *c; c++)
    commas += *c == ',';
  const size_t dims = dims_of(info);
  if (dims == 0) return *info->shape == '\0';
  return commas + 1 == dims && dim_at(info, 0).length > 0 && dim_at(info, dims - 1).length > 0;
}

/* ---- What one name stands for ---- */

/* A dimension of a tensor. */
struct place {
  size_t param, index;
};

/* The first one of that name before the place `end`; false without one. */
static bool find_dim(const attn_score_info *info, struct dim_name name, struct place end,
                     struct place *found) {
  for (size_t p = 0; p < info->param_count && p <= end.param; p++)
    for (size_t i = 0; i < dims_of(&info->params[p]); i++) {
      if (p == end.param && i >= end.index) return false;
      if (!same(dim_at(&info->params[p], i), name)) continue;
      *found = (struct place){p, i};
      return true;
    }
  return false;
}

static const char *word_for(struct place place) {
  return place.index == 0 ? "rows" : "columns";
}

static attn_status check_size(const attn_score_info *info, const struct attn_params *params,
                              struct place place, attn_fault *fault) {
  struct place first;
  if (!find_dim(info, dim_at(&info->params[place.param], place.index), place, &first))
    return ATTN_OK;
  const size_t size = size_at(params, place.param, place.index);
  const size_t expected = size_at(params, first.param, first.index);
  if (size == expected) return ATTN_OK;
  const char *name = info->params[place.param].name, *word = word_for(place);
  const bool same_word = place.index == first.index;
  return attn_fault_set(fault, ATTN_BAD_PARAMETER, name, "%s has %zu %s, %s has %zu%s%s", name,
                        size, word, info->params[first.param].name, expected, same_word ? "" : " ",
                        same_word ? "" : word_for(first));
}

static attn_status check_sizes(const attn_score_info *info, const struct attn_params *params,
                               attn_fault *fault) {
  attn_status status = ATTN_OK;
  for (size_t p = 0; p < info->param_count && status == ATTN_OK; p++)
    for (size_t i = 0; i < dims_of(&info->params[p]) && status == ATTN_OK; i++)
      status = check_size(info, params, (struct place){p, i}, fault);
  return status;
}

/* Of the dimension of that name; 0 without one. */
static size_t size_of(const attn_score_info *info, const struct attn_params *params,
                      const char *name) {
  struct place found;
  const struct place end = {info->param_count, 0};
  return find_dim(info, named(name), end, &found) ? size_at(params, found.param, found.index) : 0;
}

/* ---- Chains ---- */

/* A table entry while its chains are walked. */
struct walk {
  const attn_score_info *info;
  const struct attn_params *params;
  unsigned used; /* tensors so far, as bits */
};

/* The index of the tensor of that name; the count of parameters without one. */
static size_t use_tensor(struct walk *walk, const char *name) {
  size_t p = 0;
  while (p < walk->info->param_count && strcmp(walk->info->params[p].name, name) != 0)
    p++;
  if (p < walk->info->param_count) walk->used |= 1u << p;
  return p;
}

/* Takes the step of that tensor from the dimension *at to the next one. */
static bool take_step(struct walk *walk, const char *name, struct dim_name *at,
                      struct attn_map_step *step) {
  const size_t p = use_tensor(walk, name);
  if (p == walk->info->param_count) return false;
  const attn_param_info *tensor = &walk->info->params[p];
  const size_t dims = dims_of(tensor);
  *step = (struct attn_map_step){.tensor = walk->params->tensor[p],
                                 .rows = walk->params->rows[p],
                                 .cols = walk->params->cols[p]};
  if (dims > 0 && same(dim_at(tensor, 0), *at)) {
    step->op = dims == 1 ? MAP_TIMES : MAP_FROM_LEFT;
    *at = dim_at(tensor, dims - 1);
    return true;
  }
  if (dims < 2 || !same(dim_at(tensor, 1), *at)) return false;
  step->op = MAP_FROM_RIGHT;
  *at = dim_at(tensor, 0);
  return true;
}

static bool walk_all(struct walk *walk, const struct attn_map_names *names,
                     struct attn_maps *maps) {
  struct dim_name query = named(maps->query_dim > 0 ? "dq" : "dk"), key = named("dk");
  for (size_t s = 0; s < ATTN_QUERY_STEPS && names->query[s]; s++)
    if (!take_step(walk, names->query[s], &query, &maps->query[maps->query_steps++])) return false;
  maps->has_key = names->key != NULL;
  if (names->key && !take_step(walk, names->key, &key, &maps->key)) return false;
  if (!same(query, key)) return false;
  if (!names->unit_weights) return true;
  const size_t p = use_tensor(walk, names->unit_weights);
  if (p == walk->info->param_count || dims_of(&walk->info->params[p]) != 1) return false;
  maps->unit_weights = walk->params->tensor[p];
  return same(dim_at(&walk->info->params[p], 0), key);
}

static bool all_are_used(const struct walk *walk) {
  for (size_t p = 0; p < walk->info->param_count; p++)
    if (dims_of(&walk->info->params[p]) > 0 && !(walk->used >> p & 1)) return false;
  return true;
}

attn_status attn_maps_resolve(struct attn_maps *maps, const struct attn_map_names *names,
                              const attn_score_info *info, const struct attn_params *params,
                              attn_fault *fault) {
  bool sound = true;
  for (size_t p = 0; p < info->param_count; p++)
    sound = sound && shape_is_sound(&info->params[p]);
  *maps = (struct attn_maps){.query_dim = sound ? size_of(info, params, "dq") : 0,
                             .key_dim = sound ? size_of(info, params, "dk") : 0};
  struct walk walk = {.info = info, .params = params};
  if (!sound || !walk_all(&walk, names, maps) || !all_are_used(&walk))
    return attn_fault_set(fault, ATTN_BAD_ARGUMENT, "",
                          "the table does not say how %s uses its tensors", info->name);
  return check_sizes(info, params, fault);
}

attn_status attn_maps_check_keys(const struct attn_maps *maps, const attn_score_info *info,
                                 const struct attn_params *params, size_t key_dim,
                                 attn_fault *fault) {
  if (maps->key_dim == 0 || maps->key_dim == key_dim) return ATTN_OK;
  struct place at = {0, 0};
  find_dim(info, named("dk"), (struct place){info->param_count, 0}, &at);
  const attn_param_info *tensor = &info->params[at.param];
  const char *before = at.index > 0 ? "rows of " : "";
  const char *unit = at.index > 0 || dims_of(tensor) == 1 ? "numbers" : "rows";
  return attn_fault_set(fault, ATTN_BAD_SHAPE, tensor->name,
                        "%s has %s%zu %s, the keys have %zu components", tensor->name, before,
                        size_at(params, at.param, at.index), unit, key_dim);
}
