/* The writes that wait for the writer's thread. */
#ifndef ENGINE_WRITE_QUEUE_H
#define ENGINE_WRITE_QUEUE_H

#include <pthread.h>

#include "engine/writer.h"

struct write_queue {
  pthread_mutex_t mutex;
  pthread_cond_t changed;
  struct write *first, **last;
  bool ending;
};

void write_queue_init(struct write_queue *queue);
void write_queue_clear(struct write_queue *queue); /* when nobody waits */

/* ---- By any thread ---- */

/* False where the queue ends: then nothing happens to the write. */
bool write_queue_add(struct write_queue *queue, struct write *write);

/* Whoever sleeps in write_queue_take() looks again whether it should. */
void write_queue_wake(struct write_queue *queue);

/* No more writes are taken in. */
void write_queue_end(struct write_queue *queue);
bool write_queue_is_ending(struct write_queue *queue);

/* ---- The writer's thread's ---- */

/* How long it may sleep where nobody writes, in milliseconds: 0 where there is
 * something else to do, INT64_MAX for ever. Asked with the mutex held, and again
 * after each awakening. */
typedef int64_t write_queue_idle(void *context);

/* Those that wait, the oldest first, up to `most` of them; NULL where there is
 * something else to do, or, with *ended, where no more will come. */
struct write *write_queue_take(struct write_queue *queue, size_t most, write_queue_idle *idle_ms,
                               void *context, bool *ended);

#endif
