/* libattention behind three flat functions, for ctypes.
 *
 * The calling thread works too, with one worker less: what is compared calls
 * from its own thread as well, and a hand-over would count as computing. */
#include <stdlib.h>

#include "attention.h"
#include "engine/workers.h"

struct peer {
  struct workers *workers; /* NULL where the calling thread is all */
  attn_pool pool;
  attn_snapshot *memory;
  attn_score *score;
  attn_normalization *norm;
};

/* A memory of rows x dim keys and values; NULL where it can't be made. */
ATTN_PUBLIC struct peer *peer_create(const float *keys, const float *values, size_t rows,
                                     size_t dim, unsigned threads);
ATTN_PUBLIC void peer_free(struct peer *peer); /* accepts NULL */

/* scaled_dot and softmax; an attn_status. */
ATTN_PUBLIC int peer_attend(const struct peer *peer, const float *queries, size_t count,
                            float *outputs);

static attn_status fill(struct peer *peer, const float *keys, const float *values, size_t rows,
                        size_t dim) {
  attn_snapshot *empty = NULL;
  attn_status status = attn_score_create(&peer->score, "scaled_dot", NULL, 0, NULL);
  if (status == ATTN_OK) status = attn_normalization_create(&peer->norm, "softmax", NULL, 0, NULL);
  if (status == ATTN_OK) status = attn_snapshot_create(&empty, dim, dim);
  if (status == ATTN_OK) status = attn_snapshot_append(&peer->memory, empty, keys, values, rows);
  attn_snapshot_free(empty);
  for (size_t b = 0; status == ATTN_OK && b < attn_snapshot_block_count(peer->memory);)
    b = attn_snapshot_promote_huge_pages(peer->memory, b,
                                         SIZE_MAX); /* as the daemon does with what stays */
  return status;
}

static bool start_workers(struct peer *peer, unsigned threads) {
  if (threads < 2) return true;
  peer->workers = workers_create(threads - 1, 1);
  if (!peer->workers) return false;
  peer->pool = workers_pool(peer->workers);
  peer->pool.workers = threads;
  return true;
}

struct peer *peer_create(const float *keys, const float *values, size_t rows, size_t dim,
                         unsigned threads) {
  attn_init();
  struct peer *peer = calloc(1, sizeof *peer);
  if (peer && start_workers(peer, threads) && fill(peer, keys, values, rows, dim) == ATTN_OK)
    return peer;
  peer_free(peer);
  return NULL;
}

void peer_free(struct peer *peer) {
  if (!peer) return;
  workers_free(peer->workers);
  attn_snapshot_free(peer->memory);
  attn_score_free(peer->score);
  attn_normalization_free(peer->norm);
  free(peer);
}

int peer_attend(const struct peer *peer, const float *queries, size_t count, float *outputs) {
  const attn_request request = {.queries = queries,
                                .query_count = count,
                                .query_dim = attn_snapshot_key_dim(peer->memory),
                                .score = peer->score,
                                .normalization = peer->norm,
                                .weights_mode = ATTN_WEIGHTS_NONE};
  attn_result result = attn_result_for(peer->memory, &request);
  result.outputs = outputs;
  return (int)attn_attend(peer->memory, &request, &result, peer->workers ? &peer->pool : NULL);
}
