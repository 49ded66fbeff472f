/* Checking and decoding, beside the reading.
 *
 * Reading is one thread's, because the store is. What comes then (the checksum,
 * the check of each number, the panels, the norms, and the pages of RAM that
 * the system has to clear) takes longer than the reading and needs nothing of
 * the store. So the one who reads fills a few buffers in turn, and these threads
 * empty them.
 *
 * The invariants: there are never more bytes under way than the buffers hold, one
 * for each thread and two more; and what is reported is what a single thread
 * would have met first, whoever found what first: blocks are taken in their
 * order, and of those that fail the one with the lowest index counts.
 *
 * The workers were rejected: they have requests to run by then, and their queue
 * has a limit that is about requests. These threads live as long as the loading.
 *
 * `mutex` owns everything here; a decoding that was taken belongs to who took it.
 * The functions are for one thread, the reader. */
#include "engine/decoders.h"

#include <pthread.h>
#include <stdlib.h>

struct decoders {
  pthread_mutex_t mutex;
  pthread_cond_t work;  /* one was submitted, or `ending` */
  pthread_cond_t freed; /* one is free again */
  struct decoding *slots, *free;
  struct decoding *first, **last; /* submitted */
  size_t slot_count, free_count;
  enum store_status status; /* of the block `failed` */
  size_t failed;
  bool ending;
  unsigned thread_count;
  pthread_t *threads;
};

static enum store_status decode(const struct decoding *decoding) {
  const struct buffer *bytes = &decoding->bytes;
  if (!store_chunk_is_sound(decoding->id, decoding->chunk, decoding->sum, bytes))
    return STORE_DAMAGED;
  const attn_status status =
      attn_block_decode(decoding->block, decoding->shape, bytes->data, bytes->length);
  return status == ATTN_OK ? STORE_OK : status == ATTN_NO_MEMORY ? STORE_NO_MEMORY : STORE_DAMAGED;
}

/* ---- With the mutex held ---- */

static void put_back(struct decoders *decoders, struct decoding *decoding) {
  decoding->next = decoders->free;
  decoders->free = decoding;
  decoders->free_count++;
  pthread_cond_signal(&decoders->freed);
}

/* Decodes the first that waits; lets go of the mutex meanwhile. */
static void take_one(struct decoders *decoders) {
  struct decoding *decoding = decoders->first;
  decoders->first = decoding->next;
  if (!decoders->first) decoders->last = &decoders->first;
  /* what comes behind a failure is of no use */
  const bool wanted = decoders->status == STORE_OK || decoding->index < decoders->failed;
  pthread_mutex_unlock(&decoders->mutex);
  const enum store_status status = wanted ? decode(decoding) : STORE_OK;
  pthread_mutex_lock(&decoders->mutex);
  if (status != STORE_OK && (decoders->status == STORE_OK || decoding->index < decoders->failed)) {
    decoders->status = status;
    decoders->failed = decoding->index;
  }
  put_back(decoders, decoding);
}

static void *run(void *context) {
  struct decoders *decoders = context;
  pthread_mutex_lock(&decoders->mutex);
  while (decoders->first || !decoders->ending) {
    if (decoders->first)
      take_one(decoders);
    else
      pthread_cond_wait(&decoders->work, &decoders->mutex);
  }
  pthread_mutex_unlock(&decoders->mutex);
  return NULL;
}

/* ---- The reader's ---- */

struct decoding *decoders_room(struct decoders *decoders) {
  pthread_mutex_lock(&decoders->mutex);
  while (!decoders->free) {
    if (decoders->thread_count == 0)
      take_one(decoders);
    else
      pthread_cond_wait(&decoders->freed, &decoders->mutex);
  }
  struct decoding *decoding = decoders->free;
  decoders->free = decoding->next;
  decoders->free_count--;
  pthread_mutex_unlock(&decoders->mutex);
  buffer_clear(&decoding->bytes);
  return decoding;
}

void decoders_submit(struct decoders *decoders, struct decoding *decoding) {
  decoding->next = NULL;
  pthread_mutex_lock(&decoders->mutex);
  *decoders->last = decoding;
  decoders->last = &decoding->next;
  pthread_cond_signal(&decoders->work);
  pthread_mutex_unlock(&decoders->mutex);
}

void decoders_give_back(struct decoders *decoders, struct decoding *decoding) {
  pthread_mutex_lock(&decoders->mutex);
  put_back(decoders, decoding);
  pthread_mutex_unlock(&decoders->mutex);
}

bool decoders_failed(struct decoders *decoders) {
  pthread_mutex_lock(&decoders->mutex);
  const bool failed = decoders->status != STORE_OK;
  pthread_mutex_unlock(&decoders->mutex);
  return failed;
}

/* The reader has nothing else to do now, so it helps. */
enum store_status decoders_finish(struct decoders *decoders) {
  pthread_mutex_lock(&decoders->mutex);
  while (decoders->free_count < decoders->slot_count) {
    if (decoders->first)
      take_one(decoders);
    else
      pthread_cond_wait(&decoders->freed, &decoders->mutex);
  }
  const enum store_status status = decoders->status;
  decoders->status = STORE_OK;
  pthread_mutex_unlock(&decoders->mutex);
  return status;
}

/* ---- Life ---- */

struct decoders *decoders_create(unsigned threads) {
  struct decoders *decoders = calloc(1, sizeof *decoders);
  if (!decoders) return NULL;
  pthread_mutex_init(&decoders->mutex, NULL);
  pthread_cond_init(&decoders->work, NULL);
  pthread_cond_init(&decoders->freed, NULL);
  decoders->last = &decoders->first;
  decoders->slots = calloc((size_t)threads + 2, sizeof *decoders->slots);
  decoders->threads = calloc((size_t)threads + 1, sizeof *decoders->threads);
  if (!decoders->slots || !decoders->threads) {
    decoders_free(decoders);
    return NULL;
  }
  while (decoders->thread_count < threads &&
         pthread_create(&decoders->threads[decoders->thread_count], NULL, run, decoders) == 0)
    decoders->thread_count++;
  decoders->slot_count = (size_t)decoders->thread_count + 2;
  for (size_t i = 0; i < decoders->slot_count; i++) {
    buffer_init(&decoders->slots[i].bytes, 0);
    decoders_give_back(decoders, &decoders->slots[i]);
  }
  return decoders;
}

void decoders_free(struct decoders *decoders) {
  if (!decoders) return;
  pthread_mutex_lock(&decoders->mutex);
  decoders->ending = true;
  pthread_cond_broadcast(&decoders->work);
  pthread_mutex_unlock(&decoders->mutex);
  for (unsigned i = 0; i < decoders->thread_count; i++)
    pthread_join(decoders->threads[i], NULL);
  for (size_t i = 0; i < decoders->slot_count; i++)
    buffer_free(&decoders->slots[i].bytes);
  pthread_cond_destroy(&decoders->freed);
  pthread_cond_destroy(&decoders->work);
  pthread_mutex_destroy(&decoders->mutex);
  free(decoders->threads);
  free(decoders->slots);
  free(decoders);
}
