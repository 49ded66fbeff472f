/* How work is cut, and handed to the threads of the caller's pool. */
#ifndef ATTN_POOL_H
#define ATTN_POOL_H

#include "attention.h"

/* Slices of work that is done query by query, if there is enough of it. */
enum { ATTN_SLICES = 8 };

/* Where piece number `index` begins when a total is cut into equal pieces. */
static inline size_t attn_cut(size_t total, size_t pieces, size_t index) {
  return (size_t)((unsigned __int128)total * index / pieces);
}

/* task(argument, 0) ... task(argument, count - 1), which may be at the same time;
 * the pool may be NULL. */
static inline void attn_pool_run(const attn_pool *pool, size_t count,
                                 void (*task)(void *argument, size_t index), void *argument) {
  if (pool && count > 1)
    pool->run(pool->context, count, task, argument);
  else
    for (size_t i = 0; i < count; i++)
      task(argument, i);
}

#endif
