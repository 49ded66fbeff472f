/* Queries, mapped once into what is scored against every tile of keys. */
#ifndef ATTN_QUERIES_H
#define ATTN_QUERIES_H

#include "attend/arena.h"
#include "memory/snapshot.h"
#include "score.h"

/* Some queries of a request, ready for one of the two arithmetics. Their numbers
 * are in the arena that they were mapped into. */
struct attn_queries {
  size_t count, dim;   /* dim: of the mapped queries */
  const size_t *which; /* their numbers in the request; the caller's */
  float *f32;          /* count x dim, for float32 */
  double *f64;         /* count x dim, unless only those of float32 are wanted */
  double *norms;       /* count: of the queries in float64 */
  double *scaled_norm; /* count: of those in float32, which have factors in them */
};

struct attn_query_map {
  const attn_score *score;
  size_t query_dim, key_dim;
  double beta;   /* what the float32 path multiplies scores by */
  bool f32, f64; /* which are wanted */
  bool log;      /* the score's logarithm is */
};

/* Queries number which[0] ... which[count - 1]; ATTN_NO_MEMORY. */
attn_status attn_queries_map(struct attn_queries *mapped, struct attn_arena *arena,
                             const struct attn_query_map *map, const float *queries,
                             const size_t *which, size_t count);
/* Puts query `from` in the place of query `to`, which is not after it. */
void attn_queries_move(struct attn_queries *mapped, size_t from, size_t to);

#endif
