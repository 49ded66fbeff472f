/* What the tensors of a score do to queries and keys before their base is computed. */
#ifndef ATTN_MAPS_H
#define ATTN_MAPS_H

#include "params.h"

/* Tensors that a query may go through, one after the other. */
enum { ATTN_QUERY_STEPS = 2 };

/* How a tensor meets a vector x; the shape in the score's table decides. */
enum map_op {
  MAP_TIMES,      /* [n]: x_i w_i */
  MAP_FROM_LEFT,  /* [in][out]: x^T W */
  MAP_FROM_RIGHT, /* [out][in]: W x */
};

struct attn_map_step {
  enum map_op op;
  const float *tensor; /* rows x cols, the score's own */
  size_t rows, cols;
};

/* Of one score, whose parameters it points into. */
struct attn_maps {
  size_t query_dim; /* as the tensors have it; 0: the keys' */
  size_t key_dim;   /* likewise; 0: any */
  struct attn_map_step query[ATTN_QUERY_STEPS], key;
  size_t query_steps;
  bool has_key; /* keys are mapped, too */
  const float *unit_weights;
};

/* The names of the tensors, as they stand in an entry of the table of scores; NULL: none. */
struct attn_map_names {
  const char *const *query; /* ATTN_QUERY_STEPS */
  const char *key, *unit_weights;
};

/* ATTN_BAD_PARAMETER, with the fault, if the tensors do not agree with each other;
 * ATTN_BAD_ARGUMENT if the names and the shapes of the table make no sense, so that an
 * entry which does not say what becomes of a tensor is never computed with. */
attn_status attn_maps_resolve(struct attn_maps *maps, const struct attn_map_names *names,
                              const attn_score_info *info, const struct attn_params *params,
                              attn_fault *fault);

/* ATTN_BAD_SHAPE, with the fault, if keys of that dimension do not fit the tensors. */
attn_status attn_maps_check_keys(const struct attn_maps *maps, const attn_score_info *info,
                                 const struct attn_params *params, size_t key_dim,
                                 attn_fault *fault);

/* Numbers that come out of a step into which `in` go. */
static inline size_t attn_map_out(const struct attn_map_step *step, size_t in) {
  return step->op == MAP_TIMES ? in : step->op == MAP_FROM_LEFT ? step->cols : step->rows;
}

#endif
