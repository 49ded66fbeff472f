/* A pool of buffers that go from request to request: free lists by size class.
 *
 * What attn_attend() needs while it computes is allocated in a few pieces, each a
 * power of two in size (lib/attend/arena.c), and so are a batch's buffers (batcher.c), which
 * may be smaller than the library's least piece. Released buffers are kept, the last
 * one on top because it is still in a cache, and allocated again for exactly that
 * size: sizes are few, so the next request of the kind finds its own. All that is kept
 * is bounded; beyond it a buffer goes back to the system.
 *
 * `mutex` owns everything; it is held for a look at some pointers. A pool per
 * thread was rejected: a request begins on one thread and its slices run on
 * others, and buffers would gather where they are not needed. */
#include "engine/buffer_pool.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

/* All that is kept, and one buffer, at most: in bytes. */
enum { KEPT_MOST = 16 << 20, BUFFER_MOST = 8 << 20, SIZES = 24, ALIGNED = 64 };

struct free_buffer {
  struct free_buffer *next;
};

struct buffer_pool {
  pthread_mutex_t mutex;
  struct free_buffer *kept[SIZES]; /* by the logarithm of their size */
  size_t bytes;                    /* of all that is kept */
};

static unsigned size_index(size_t bytes) {
  return 63U - (unsigned)__builtin_clzll((unsigned long long)bytes);
}

struct buffer_pool *buffer_pool_create(void) {
  struct buffer_pool *pool = calloc(1, sizeof *pool);
  if (pool) pthread_mutex_init(&pool->mutex, NULL);
  return pool;
}

void buffer_pool_free(struct buffer_pool *pool) {
  if (!pool) return;
  for (unsigned i = 0; i < SIZES; i++)
    while (pool->kept[i]) {
      struct free_buffer *buffer = pool->kept[i];
      pool->kept[i] = buffer->next;
      free(buffer);
    }
  pthread_mutex_destroy(&pool->mutex);
  free(pool);
}

void *buffer_pool_alloc(struct buffer_pool *pool, size_t bytes) {
  struct free_buffer *buffer = NULL;
  if (bytes <= BUFFER_MOST) {
    struct free_buffer **kept = &pool->kept[size_index(bytes)];
    pthread_mutex_lock(&pool->mutex);
    buffer = *kept;
    if (buffer) {
      *kept = buffer->next;
      pool->bytes -= bytes;
    }
    pthread_mutex_unlock(&pool->mutex);
  }
  return buffer ? (void *)buffer : aligned_alloc(ALIGNED, bytes);
}

void buffer_pool_release(struct buffer_pool *pool, void *buffer, size_t bytes) {
  bool keeps = false;
  if (bytes <= BUFFER_MOST) {
    struct free_buffer **kept = &pool->kept[size_index(bytes)], *top = buffer;
    pthread_mutex_lock(&pool->mutex);
    keeps = pool->bytes + bytes <= KEPT_MOST;
    if (keeps) {
      top->next = *kept;
      *kept = top;
      pool->bytes += bytes;
    }
    pthread_mutex_unlock(&pool->mutex);
  }
  if (!keeps) free(buffer);
}

size_t buffer_pool_bytes(struct buffer_pool *pool) {
  pthread_mutex_lock(&pool->mutex);
  const size_t bytes = pool->bytes;
  pthread_mutex_unlock(&pool->mutex);
  return bytes;
}
