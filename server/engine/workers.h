/* The worker pool: threads that run requests, and help each other with the slices of a large
 * one. */
#ifndef ENGINE_WORKERS_H
#define ENGINE_WORKERS_H

#include <stdbool.h>
#include <stddef.h>

#include "attention.h"

struct workers;

/* `threads` >= 1; at most `max_queue` jobs wait. NULL where threads or memory
 * are short. */
struct workers *workers_create(unsigned threads, size_t max_queue);

/* Finishes what is queued and ends the threads; later submissions are refused.
 * By one thread only. Both accept NULL. */
void workers_finish(struct workers *workers);
void workers_free(struct workers *workers);

/* Queues run(argument), which is expected to take that many seconds of one
 * core; false where the queue is full. `context` is the struct workers (so that
 * it fits callbacks). */
bool workers_submit(void *context, void (*run)(void *argument), void *argument, double seconds);

size_t workers_queue_length(struct workers *workers);

/* For attn_attend() on one of the workers: slices are run by the caller and by
 * whichever workers are idle, and between key blocks a short job may be let in. */
attn_pool workers_pool(struct workers *workers);

#endif
