/* The writes that wait for the writer's thread.
 *
 * The thread takes all that is there at once, which is what makes a batch: there is
 * no delay in which others are waited for. It sleeps here too, since a write is what
 * mostly ends its sleep; for how long it may is its own affair, so it is asked, and
 * asked again when it was woken for something else.
 *
 * The invariant: a write that was added is taken, also where the end comes right
 * after it. That is why the list and the end have one mutex, and why taking says
 * whether the queue has ended: asked a moment later, a write could have come between.
 *
 * Writes are linked through `following`, so that adding one can't fail. There is no
 * limit of their number: each is that of a request, and connections have a limit.
 *
 * `mutex` owns everything here. Others may be taken while it is held, by what
 * idle_ms() asks; it is taken under none. */
#include "engine/write_queue.h"

#include <time.h>

void write_queue_init(struct write_queue *queue) {
  pthread_condattr_t attributes;
  *queue = (struct write_queue){.last = &queue->first};
  pthread_mutex_init(&queue->mutex, NULL);
  pthread_condattr_init(&attributes);
  pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
  pthread_cond_init(&queue->changed, &attributes);
  pthread_condattr_destroy(&attributes);
}

void write_queue_clear(struct write_queue *queue) {
  pthread_cond_destroy(&queue->changed);
  pthread_mutex_destroy(&queue->mutex);
}

/* ---- By any thread ---- */

bool write_queue_add(struct write_queue *queue, struct write *write) {
  pthread_mutex_lock(&queue->mutex);
  const bool taken = !queue->ending;
  if (taken) {
    write->next = NULL;
    *queue->last = write;
    queue->last = &write->next;
    pthread_cond_signal(&queue->changed);
  }
  pthread_mutex_unlock(&queue->mutex);
  return taken;
}

void write_queue_wake(struct write_queue *queue) {
  pthread_mutex_lock(&queue->mutex);
  pthread_cond_signal(&queue->changed);
  pthread_mutex_unlock(&queue->mutex);
}

void write_queue_end(struct write_queue *queue) {
  pthread_mutex_lock(&queue->mutex);
  queue->ending = true;
  pthread_cond_signal(&queue->changed);
  pthread_mutex_unlock(&queue->mutex);
}

bool write_queue_is_ending(struct write_queue *queue) {
  pthread_mutex_lock(&queue->mutex);
  const bool ending = queue->ending;
  pthread_mutex_unlock(&queue->mutex);
  return ending;
}

/* ---- The writer's thread's ---- */

/* With the mutex held, which is let go of meanwhile. */
static void sleep_for(struct write_queue *queue, int64_t ms) {
  if (ms == INT64_MAX) {
    pthread_cond_wait(&queue->changed, &queue->mutex);
    return;
  }
  struct timespec until;
  clock_gettime(CLOCK_MONOTONIC, &until);
  until.tv_nsec += ms % 1000 * 1000000;
  until.tv_sec += ms / 1000 + until.tv_nsec / 1000000000;
  until.tv_nsec %= 1000000000;
  pthread_cond_timedwait(&queue->changed, &queue->mutex, &until);
}

struct write *write_queue_take(struct write_queue *queue, size_t most, write_queue_idle *idle_ms,
                               void *context, bool *ended) {
  pthread_mutex_lock(&queue->mutex);
  for (int64_t ms; !queue->first && !queue->ending && (ms = idle_ms(context)) > 0;)
    sleep_for(queue, ms);
  struct write *first = queue->first, **at = &first;
  for (size_t count = 0; *at && count < most; count++)
    at = &(*at)->next;
  queue->first = *at;
  *at = NULL;
  if (!queue->first) queue->last = &queue->first;
  *ended = queue->ending && !first;
  pthread_mutex_unlock(&queue->mutex);
  return first;
}
