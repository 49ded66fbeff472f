/* The attend request: a batch of queries to a memory, whatever protocol it came by.
 *
 *     protocol: decodes        struct attend_request          encodes, frees
 *         |                                                       ^
 *         v                                                       |
 *     attend_open_stored() ... attend_submit() -> batcher -> done(request, problem)
 *
 * A protocol fills in what is asked, opens the memory, submits, and is called back once, with
 * the answer or with the problem. It knows nothing of batches, deadlines or limits, and this
 * side nothing of JSON, tensors or HTTP. */
#ifndef ENGINE_ATTEND_H
#define ENGINE_ATTEND_H

#include <stdbool.h>
#include <stddef.h>

#include "base/problem.h"
#include "engine/batcher.h"
#include "engine/registry.h"
#include "observe/metrics.h"

/* What serves attend requests. The parts are the starter's; constant once requests come. */
struct attend_service {
  struct registry *registry;
  struct batcher *batcher;
  struct metrics *metrics;
  double timeout_seconds; /* of requests that name none */
  size_t max_reply_bytes;
};

/* The least bytes of a reply that an item of an answer takes, in a protocol's encoding: an
 * answer that can't fit the limit is refused before it is computed. */
struct attend_encoding {
  size_t number;  /* an output, a weight */
  size_t largest; /* a row with its weight */
};

struct attend_request {
  struct question question; /* first; the batcher's */

  /* What is asked: the asker fills it in before attend_submit(), and keeps what it points to
   * until done() is called. Score and normalization are references, which are the request's
   * from then on; NULL: those of the memory. */
  const float *queries; /* query_count x query_dim */
  size_t query_count, query_dim;
  attn_score *score;
  attn_normalization *normalization;
  attn_weights_mode weights;
  size_t top;             /* ATTN_WEIGHTS_TOP: how many, >= 1 */
  double began;           /* CLOCK_MONOTONIC seconds, ... */
  double timeout_seconds; /* ... from which the time counts; 0: the service's */
  const struct attend_encoding *encoding;

  /* Whether nobody waits for the answer any more; asked once a request that had to wait
   * comes to be computed. NULL: somebody does. */
  bool (*abandoned)(const struct attend_request *request);
  /* Once, on whichever thread has computed or refused it, perhaps before attend_submit()
   * returns. The answer is attend_result(); or the problem, unless that is NULL, says why
   * there is none. The request is the asker's again, to be freed. */
  void (*done)(struct attend_request *request, const struct problem *problem);

  /* What is asked of: attend_open_...(). */
  struct memory *memory; /* pinned; NULL: rows of the request's own */
  attn_snapshot *snapshot;

  const struct attend_service *service;
  void *arrays; /* of the answer */
};

/* The memory of that name, as it is now. False with the problem. */
bool attend_open_stored(struct attend_request *request, const struct attend_service *service,
                        const char *name, struct problem *problem);

/* Rows that came with the request, copied. It has to bring a score and a normalization. */
struct attend_rows {
  const float *keys, *values;
  size_t count, key_dim, value_dim;
};
bool attend_open_ad_hoc(struct attend_request *request, const struct attend_service *service,
                        const struct attend_rows *rows, struct problem *problem);

/* Where a request is computed. */
enum attend_executor {
  ATTEND_ON_WORKERS, /* submitted by a worker; waits if others are before it */
  ATTEND_INLINE,     /* on the calling thread, before attend_submit() returns */
  ATTEND_DEFERRED    /* kept in *deferred until attend_run_deferred(), if nothing is wrong */
};

/* `deferred` is the calling thread's own, NULL at first; it may be NULL itself with the other
 * executors. */
void attend_submit(struct attend_request *request, enum attend_executor executor, void **deferred);

/* Computes those that were deferred, together if they are alike. */
void attend_run_deferred(const struct attend_service *service, void **deferred);

/* For done(): the answer. */
static inline const attn_result *attend_result(const struct attend_request *request) {
  return &request->question.result;
}

/* Drops what the request owns; the struct itself is the asker's. */
void attend_request_clear(struct attend_request *request);

#endif
