/* Memory that goes from request to request.
 *
 * What attn_attend() needs while it computes is asked for in a few pieces, each a
 * power of two in size (lib/room.c), and so is a batch's room (batcher.c), which
 * may be smaller than the library's least piece. Those that come back are kept, the last one
 * on top because it is still in a cache, and lent again where exactly that size
 * is wanted: sizes are few, so the next request of the kind finds its own. All
 * that is kept is bounded; beyond it a piece goes back to the system.
 *
 * `mutex` owns everything; it is held for a look at some pointers. A stash per
 * thread was rejected: a request begins on one thread and its slices run on
 * others, and pieces would gather where they are not needed. */
#include "engine/stash.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

/* All that is kept, and one piece, at most: in bytes. */
enum { KEPT_MOST = 16 << 20, PIECE_MOST = 8 << 20, SIZES = 24, ALIGNED = 64 };

struct piece {
  struct piece *following;
};

struct stash {
  pthread_mutex_t mutex;
  struct piece *kept[SIZES]; /* by the logarithm of their size */
  size_t bytes;              /* of all that is kept */
};

static unsigned size_index(size_t bytes) {
  return 63U - (unsigned)__builtin_clzll((unsigned long long)bytes);
}

struct stash *stash_create(void) {
  struct stash *stash = calloc(1, sizeof *stash);
  if (stash) pthread_mutex_init(&stash->mutex, NULL);
  return stash;
}

void stash_free(struct stash *stash) {
  if (!stash) return;
  for (unsigned i = 0; i < SIZES; i++)
    while (stash->kept[i]) {
      struct piece *piece = stash->kept[i];
      stash->kept[i] = piece->following;
      free(piece);
    }
  pthread_mutex_destroy(&stash->mutex);
  free(stash);
}

void *stash_lend(struct stash *stash, size_t bytes) {
  struct piece *piece = NULL;
  if (bytes <= PIECE_MOST) {
    struct piece **kept = &stash->kept[size_index(bytes)];
    pthread_mutex_lock(&stash->mutex);
    piece = *kept;
    if (piece) {
      *kept = piece->following;
      stash->bytes -= bytes;
    }
    pthread_mutex_unlock(&stash->mutex);
  }
  return piece ? (void *)piece : aligned_alloc(ALIGNED, bytes);
}

void stash_take_back(struct stash *stash, void *piece, size_t bytes) {
  bool keeps = false;
  if (bytes <= PIECE_MOST) {
    struct piece **kept = &stash->kept[size_index(bytes)], *top = piece;
    pthread_mutex_lock(&stash->mutex);
    keeps = stash->bytes + bytes <= KEPT_MOST;
    if (keeps) {
      top->following = *kept;
      *kept = top;
      stash->bytes += bytes;
    }
    pthread_mutex_unlock(&stash->mutex);
  }
  if (!keeps) free(piece);
}

size_t stash_kept(struct stash *stash) {
  pthread_mutex_lock(&stash->mutex);
  const size_t bytes = stash->bytes;
  pthread_mutex_unlock(&stash->mutex);
  return bytes;
}
