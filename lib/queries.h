/* Queries, mapped once into what every tile of keys is met with. */
#ifndef ATTN_QUERIES_H
#define ATTN_QUERIES_H

#include "room.h"
#include "score.h"
#include "snapshot.h"

/* Some queries of a request, ready for one of the two arithmetics. Their numbers
 * are in the room that they were mapped into. */
struct attn_queries {
  size_t count, dim;   /* dim: of the mapped queries */
  const size_t *which; /* their numbers in the request; the caller's */
  float *fast;         /* count x dim, when fast */
  double *exact;       /* count x dim, unless only the fast ones are wanted */
  double *norms;       /* count: of the exact ones */
  double *reach;       /* count: of the fast ones, which have factors in them */
};

struct attn_query_map {
  const attn_score *score;
  size_t query_dim, key_dim;
  double beta;      /* what the float32 path multiplies scores by */
  bool fast, exact; /* which are wanted */
  bool log;         /* the score's logarithm is */
};

/* Queries number which[0] ... which[count - 1]; ATTN_NO_MEMORY. */
attn_status attn_queries_map(struct attn_queries *mapped, struct attn_room *room,
                             const struct attn_query_map *map, const float *queries,
                             const size_t *which, size_t count);
/* Puts query `from` in the place of query `to`, which is not after it. */
void attn_queries_move(struct attn_queries *mapped, size_t from, size_t to);

#endif
