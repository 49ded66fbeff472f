/* The worker pool.
 *
 * Work comes in two sizes. A *job* is one step of a request, run whole by one
 * worker. A *group* is the slices of a job that is large enough to be cut: the
 * worker that has the job publishes the group, runs slices itself, and idle
 * workers join in. Workers look for groups before jobs, so what was begun is
 * finished before something else is taken up.
 *
 * Jobs wait in order of their *due time*: when they came plus PATIENCE times
 * what they are expected to take. So a short job overtakes a long one that
 * waits, and no job waits for ever, since everything that comes later than its
 * due time stands behind it. First come, first served was rejected: one batch
 * over a large memory would hold up a thousand small requests.
 *
 * A long job that runs is also no obstacle: between two key blocks the library calls
 * pause(), and a job that is due and many times shorter is run right there, on
 * the same stack. Depth is bounded by that factor, and a job is let in only
 * while those before it have taken no more than half of the time, so that a
 * stream of short ones halves the speed of the long one and no more.
 *
 * One mutex owns the queue and the list of groups; it is held for a few
 * instructions, once per job and twice per helper and group. Slices are
 * claimed by an atomic counter without it, and pause() looks at `length` before
 * it takes it. A group lives on the stack of its owner, who leaves only when no
 * helper is inside: `helpers` is changed under the mutex, and a helper enters
 * only while the group is listed.
 *
 * A thread with nothing to do looks for work for as long as it takes to wake one
 * up before it sleeps, without the mutex and letting others run: waking up costs
 * as much as a whole small batch, and where a request was, the next is near.
 * `published` and `helpers` are changed under the mutex and compared under it
 * before a thread sleeps, so nothing is missed in between.
 *
 * Nothing can deadlock on a full pool: an owner never waits for a slice that
 * nobody runs, since it runs all unclaimed ones itself, and a helper that lets
 * a short job in comes back.
 *
 * A queue per worker with stealing was rejected: requests cost microseconds at
 * least, and one short critical section for each doesn't show beside that. */
#include "engine/workers.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/clock.h"
#include "engine/buffer_pool.h"

/* Seconds that a job may wait per second that it takes. */
#define PATIENCE 8.0
/* How long a thread that has nothing to do looks for something before it sleeps:
 * about what it takes to wake one up. */
#define LOOK_SECONDS 50e-6
/* How many times shorter a job has to be to be let in. */
#define MUCH_SHORTER 8.0

struct job {
  void (*run)(void *argument);
  void *argument;
  double seconds, due;
};

struct group {
  void (*task)(void *argument, size_t index);
  void *argument;
  size_t count;
  atomic_size_t unclaimed; /* the first slice nobody has claimed */
  double seconds;          /* of the job that it belongs to */
  atomic_uint helpers;     /* workers inside, without the owner */
  struct group *next;
};

struct workers {
  pthread_mutex_t mutex;
  pthread_cond_t work; /* a job or a group came, or `stopping` */
  pthread_cond_t left; /* a helper has left a group */
  struct job *queue;   /* a heap of max_queue, the first one due on top */
  atomic_size_t length;
  atomic_uint published; /* how often there was something new, the end too */
  size_t max_queue;
  struct group *groups; /* listed: may have unclaimed slices */
  unsigned running;     /* jobs that a worker has taken from the queue */
  bool stopping;
  unsigned thread_count; /* running */
  unsigned width;        /* for cutting work: as many as were asked for */
  pthread_t *threads;
  struct buffer_pool *buffers; /* of what the library computes in */
};

/* What this thread is doing: how long the job in hand is expected to take,
 * since when it has it, and how much of that others took that were let in. Only
 * the thread itself looks at it; pause() could not find it otherwise. */
struct occupation {
  double seconds, since, lent;
};
static _Thread_local struct occupation occupation;

/* ---- The queue, with the mutex held ---- */

static void heap_push(struct workers *workers, struct job job) {
  size_t hole = workers->length++;
  for (; hole > 0 && job.due < workers->queue[(hole - 1) / 2].due; hole = (hole - 1) / 2)
    workers->queue[hole] = workers->queue[(hole - 1) / 2];
  workers->queue[hole] = job;
}

static struct job heap_pop(struct workers *workers) {
  struct job *heap = workers->queue;
  const struct job first = heap[0], last = heap[--workers->length];
  size_t hole = 0;
  for (size_t child; (child = 2 * hole + 1) < workers->length; hole = child) {
    if (child + 1 < workers->length && heap[child + 1].due < heap[child].due) child++;
    if (last.due <= heap[child].due) break;
    heap[hole] = heap[child];
  }
  heap[hole] = last;
  return first;
}

/* ---- Waiting ---- */

static void relax(void) {
  for (int i = 0; i < 16; i++) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
  }
}

/* Looks at *number for a while; true once it is not what it was. */
static bool changes_soon(const atomic_uint *number, unsigned was) {
  const double until = clock_seconds() + LOOK_SECONDS;
  do {
    for (int i = 0; i < 8; i++) {
      if (atomic_load_explicit(number, memory_order_relaxed) != was) return true;
      relax();
    }
    sched_yield();
  } while (clock_seconds() < until);
  return false;
}

/* With the mutex held: there is something new, for one worker or for all. */
static void publish(struct workers *workers, bool for_all) {
  atomic_fetch_add_explicit(&workers->published, 1, memory_order_relaxed);
  if (for_all)
    pthread_cond_broadcast(&workers->work);
  else
    pthread_cond_signal(&workers->work);
}

/* With the mutex held; returns with it held, when there may be work. */
static void wait_for_work(struct workers *workers) {
  const unsigned seen = atomic_load_explicit(&workers->published, memory_order_relaxed);
  pthread_mutex_unlock(&workers->mutex);
  changes_soon(&workers->published, seen);
  pthread_mutex_lock(&workers->mutex);
  if (atomic_load_explicit(&workers->published, memory_order_relaxed) == seen)
    pthread_cond_wait(&workers->work, &workers->mutex);
}

/* With the mutex held; returns with it held. */
static void wait_for_helpers(struct workers *workers, struct group *group) {
  while (group->helpers > 0) {
    const unsigned inside = group->helpers;
    pthread_mutex_unlock(&workers->mutex);
    const bool changed = changes_soon(&group->helpers, inside);
    pthread_mutex_lock(&workers->mutex);
    if (!changed && group->helpers > 0) pthread_cond_wait(&workers->left, &workers->mutex);
  }
}

/* ---- Running ---- */

static void run_job(const struct job *job) {
  const struct occupation before = occupation;
  occupation = (struct occupation){.seconds = job->seconds, .since = clock_seconds()};
  job->run(job->argument);
  occupation = before;
}

static void run_slices(struct group *group) {
  for (size_t i;
       (i = atomic_fetch_add_explicit(&group->unclaimed, 1, memory_order_relaxed)) < group->count;)
    group->task(group->argument, i);
}

/* With the mutex held; returns with it held. */
static void help(struct workers *workers, struct group *group) {
  group->helpers++;
  pthread_mutex_unlock(&workers->mutex);
  occupation = (struct occupation){.seconds = group->seconds, .since = clock_seconds()};
  run_slices(group);
  pthread_mutex_lock(&workers->mutex);
  if (--group->helpers == 0) pthread_cond_broadcast(&workers->left);
}

static struct group *group_with_work(struct workers *workers) {
  for (struct group *group = workers->groups; group; group = group->next)
    if (atomic_load_explicit(&group->unclaimed, memory_order_relaxed) < group->count) return group;
  return NULL;
}

static void *worker(void *context) {
  struct workers *workers = context;
  pthread_mutex_lock(&workers->mutex);
  for (;;) {
    struct group *group = group_with_work(workers);
    if (group) {
      help(workers, group);
    } else if (workers->length > 0) {
      const struct job job = heap_pop(workers);
      workers->running++;
      pthread_mutex_unlock(&workers->mutex);
      run_job(&job);
      pthread_mutex_lock(&workers->mutex);
      if (--workers->running == 0 && workers->stopping) publish(workers, true);
    } else if (workers->stopping && workers->running == 0) {
      break; /* not before: the last jobs may have slices to share */
    } else {
      wait_for_work(workers);
    }
  }
  pthread_mutex_unlock(&workers->mutex);
  return NULL;
}

static void run_group(void *context, size_t count, void (*task)(void *argument, size_t index),
                      void *argument) {
  struct workers *workers = context;
  struct group group = {
      .task = task, .argument = argument, .count = count, .seconds = occupation.seconds};
  atomic_init(&group.unclaimed, 0);
  atomic_init(&group.helpers, 0);
  pthread_mutex_lock(&workers->mutex);
  group.next = workers->groups;
  workers->groups = &group;
  publish(workers, true);
  pthread_mutex_unlock(&workers->mutex);

  run_slices(&group);

  pthread_mutex_lock(&workers->mutex);
  struct group **link = &workers->groups;
  while (*link != &group)
    link = &(*link)->next;
  *link = group.next;
  wait_for_helpers(workers, &group);
  pthread_mutex_unlock(&workers->mutex);
}

static void let_in(void *context) {
  struct workers *workers = context;
  if (atomic_load_explicit(&workers->length, memory_order_relaxed) == 0) return;
  const double start = clock_seconds();
  if (occupation.lent > (start - occupation.since) / 2) return;
  struct job job = {0};
  pthread_mutex_lock(&workers->mutex);
  if (workers->length > 0 && workers->queue[0].seconds * MUCH_SHORTER <= occupation.seconds)
    job = heap_pop(workers);
  pthread_mutex_unlock(&workers->mutex);
  if (!job.run) return;
  run_job(&job);
  occupation.lent += clock_seconds() - start;
}

static void *pool_alloc(void *context, size_t bytes) {
  const struct workers *workers = context;
  return buffer_pool_alloc(workers->buffers, bytes);
}

static void pool_free(void *context, void *buffer, size_t bytes) {
  const struct workers *workers = context;
  buffer_pool_release(workers->buffers, buffer, bytes);
}

attn_pool workers_pool(struct workers *workers) {
  return (attn_pool){.workers = workers->width,
                     .run = run_group,
                     .pause = let_in,
                     .alloc = pool_alloc,
                     .free = pool_free,
                     .context = workers};
}

bool workers_submit(void *context, void (*run)(void *argument), void *argument, double seconds) {
  struct workers *workers = context;
  const struct job job = {.run = run,
                          .argument = argument,
                          .seconds = seconds,
                          .due = clock_seconds() + PATIENCE * seconds};
  pthread_mutex_lock(&workers->mutex);
  const bool room = workers->length < workers->max_queue && !workers->stopping;
  if (room) {
    heap_push(workers, job);
    publish(workers, false);
  }
  pthread_mutex_unlock(&workers->mutex);
  return room;
}

size_t workers_queue_length(struct workers *workers) {
  return atomic_load_explicit(&workers->length, memory_order_relaxed);
}

struct workers *workers_create(unsigned threads, size_t max_queue) {
  struct workers *workers = calloc(1, sizeof *workers);
  if (!workers) return NULL;
  pthread_mutex_init(&workers->mutex, NULL);
  pthread_cond_init(&workers->work, NULL);
  pthread_cond_init(&workers->left, NULL);
  workers->width = threads;
  workers->max_queue = max_queue;
  workers->queue = calloc(max_queue, sizeof *workers->queue);
  workers->threads = calloc(threads, sizeof *workers->threads);
  workers->buffers = buffer_pool_create();
  bool made = workers->queue && workers->threads && workers->buffers;
  while (made && workers->thread_count < threads) {
    made = pthread_create(&workers->threads[workers->thread_count], NULL, worker, workers) == 0;
    if (made) workers->thread_count++;
  }
  if (made) return workers;
  workers_free(workers);
  return NULL;
}

void workers_finish(struct workers *workers) {
  if (!workers) return;
  pthread_mutex_lock(&workers->mutex);
  workers->stopping = true;
  publish(workers, true);
  pthread_mutex_unlock(&workers->mutex);
  for (unsigned t = 0; t < workers->thread_count; t++)
    pthread_join(workers->threads[t], NULL);
  workers->thread_count = 0;
}

void workers_free(struct workers *workers) {
  if (!workers) return;
  workers_finish(workers);
  pthread_cond_destroy(&workers->left);
  pthread_cond_destroy(&workers->work);
  pthread_mutex_destroy(&workers->mutex);
  buffer_pool_free(workers->buffers);
  free(workers->threads);
  free(workers->queue);
  free(workers);
}
