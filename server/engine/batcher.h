/* Questions that wait for the same memory are computed together. */
#ifndef ENGINE_BATCHER_H
#define ENGINE_BATCHER_H

#include <stdbool.h>

#include "attention.h"
#include "engine/workers.h"

/* One request's batch of queries, from the moment its body was read. The asker
 * owns it and keeps it, and all it points to, until done() is called. */
struct question {
  const attn_snapshot *snapshot;
  attn_request request; /* everything but cancelled, cancel_context */
  attn_result result;   /* the answer, with arrays of the asker's */
  double deadline;      /* CLOCK_MONOTONIC seconds; INFINITY without one */
  /* Whether nobody waits for the answer any more; asked once a question that
   * had to wait comes to be computed. NULL: somebody does. */
  bool (*abandoned)(const struct question *question);
  /* Called once, on a worker, when the result is filled or status says why not. */
  void (*done)(struct question *question);

  attn_status status;
  bool late;         /* with ATTN_CANCELLED: the deadline has passed */
  double seconds;    /* that the library took for the batch it was part of */
  size_t companions; /* other questions in that batch */
  double cost;       /* expected seconds; set by batcher_ask() */
  struct question *next;
  size_t put_off; /* with those before it: see batcher_put_off() */
};

struct batcher;

/* `hurry`: true makes what computes give up (see attn_request.cancelled). */
struct batcher *batcher_create(struct workers *workers, bool (*hurry)(void *context),
                               void *hurry_context);
void batcher_free(struct batcher *batcher); /* accepts NULL; nothing may be waiting */

/* On a worker. Computes the question now, with others like it that wait, or
 * leaves it to wait for a worker. */
void batcher_ask(struct batcher *batcher, struct question *question);

/* On any thread, without the workers: for what is too small to be handed over.
 * Calls done() before it returns. */
void batcher_answer_here(struct batcher *batcher, struct question *question);

/* The same for a thread that expects more of them to come right away: keeps the
 * question in *list, the thread's own, until batcher_answer_put_off() is called
 * for it or the list has become long. Then the questions are answered, those that
 * are alike together. */
void batcher_put_off(struct batcher *batcher, struct question **list, struct question *question);
void batcher_answer_put_off(struct batcher *batcher, struct question **list);

/* Seconds of one core that a question of that size is expected to take. */
double batcher_cost(const attn_snapshot *snapshot, size_t query_count, size_t query_dim);

#endif
