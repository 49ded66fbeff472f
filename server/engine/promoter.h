/* The huge-page promoter: when the rows of memories that stay are moved into huge pages. */
#ifndef ENGINE_PROMOTER_H
#define ENGINE_PROMOTER_H

#include "engine/registry.h"

/* The writer's thread's alone. Zeroed but for `registry` there is nothing to do. */
struct promoter {
  struct registry *registry; /* NULL: there never is */
  bool wanted;               /* since the last round began */
  bool going;                /* a round, which is at that block of that memory */
  size_t memory, block;
  double due; /* of the next step, in clock_seconds() */
};

/* There are rows that were not there before. */
void promoter_want(struct promoter *promoter);

/* Seconds until a step is due, 0 where it is; INFINITY where there is none. */
double promoter_wait(const struct promoter *promoter);

/* A step, a small one where somebody writes, who would wait for it. */
void promoter_run(struct promoter *promoter, bool busy);

#endif
