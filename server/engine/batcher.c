/* Dynamic batching.
 *
 * A pass over a large memory costs nearly the same for one query as for eight:
 * reading the memory is what takes time. So questions that wait for the same
 * snapshot under the same score and normalization are computed in one pass.
 *
 * Nothing waits in order to be batched. A question that finds the queue empty
 * is computed at once by the worker that has it. Otherwise it is listed as
 * pending and a job is queued for it, behind the requests that came before and
 * whose bodies have yet to be read; when a worker comes to that job it takes
 * the question together with all pending ones like it. The jobs of those find
 * nothing left to do. So batches grow by themselves as load grows, and there is
 * no delay to configure.
 *
 * Questions that take microseconds are not worth a worker: the thread that read
 * them answers them. Where it reads several in one go it puts them off until all
 * are read, and answers those that are alike together: a lone small query reads
 * the memory from the cache for itself, which takes twice the time of its
 * products. The list of those is the thread's own.
 *
 * The answers are the same to the last bit, because what the library computes
 * for a query doesn't depend on its batch (lib/attend/pass.c). Questions that want full
 * weights stay alone: their time goes into the weights, which are written
 * straight into the reply's memory.
 *
 * If a batch as a whole fails (an answer of one question is beyond float32, or
 * memory is short), its questions are computed one by one.
 *
 * Threads: `pending` is owned by `mutex`, which is held to link and unlink and
 * never together with another lock. A question that was unlinked belongs to the
 * worker that unlinked it, until it calls done(). */
#include "engine/batcher.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

/* Put off at the most: each takes microseconds, and the first one waits for all. */
enum { BATCH_QUERIES = 256, MOST_PUT_OFF = 32, SMALLEST_TRAY = 4096 };

struct batcher {
  struct workers *workers;
  bool (*hurry)(void *context);
  void *hurry_context;
  pthread_mutex_t mutex;
  struct question *pending, **pending_end; /* in order of arrival */
};

/* Multiplications that a core gets done in a second, rather less than it can:
 * what is expected to take long should. */
#define PAIRS_PER_SECOND 2e10

double batcher_cost(const attn_snapshot *snapshot, size_t query_count, size_t query_dim) {
  const double components = (double)query_dim + (double)attn_snapshot_value_dim(snapshot);
  return (double)query_count * (double)attn_snapshot_rows(snapshot) * components / PAIRS_PER_SECOND;
}

/* ---- Computing ---- */

/* Some questions that are computed together, and whether to give them up. */
struct batch {
  struct batcher *batcher;
  struct question *first;
  double deadline; /* the latest of all */
};

static bool gives_up(void *context) {
  const struct batch *batch = context;
  if (batch->batcher->hurry && batch->batcher->hurry(batch->batcher->hurry_context)) return true;
  return batch->deadline < INFINITY && clock_seconds() > batch->deadline;
}

static void finish(struct question *question, attn_status status, double now) {
  question->status = status;
  question->late = now > question->deadline;
  if (question->late) question->status = ATTN_CANCELLED;
  question->done(question);
}

static void compute_alone(struct batcher *batcher, struct question *question,
                          const attn_pool *pool) {
  struct batch batch = {batcher, question, question->deadline};
  attn_request request = question->request;
  request.cancelled = gives_up;
  request.cancel_context = &batch;
  const double start = clock_seconds();
  const attn_status status = attn_attend(question->snapshot, &request, &question->result, pool);
  const double end = clock_seconds();
  question->seconds = end - start;
  finish(question, status, end);
}

/* A batch's queries and its answer, side by side. The memory is the pool's: to have malloc()
 * look for some kilobytes makes it tidy up, and forget the small pieces that the next requests
 * will want. */
struct tray {
  const attn_pool *pool;
  void *room;
  size_t bytes;
  float *queries;
  attn_result result;
};

static void tray_free(const struct tray *tray) {
  if (tray->room) tray->pool->free(tray->pool->context, tray->room, tray->bytes);
}

/* Sizes are those of the questions' own matrices added up, which exist. */
static bool tray_create(struct tray *tray, const attn_pool *pool, const attn_snapshot *snapshot,
                        const attn_request *request) {
  *tray = (struct tray){
      .pool = pool, .bytes = SMALLEST_TRAY, .result = attn_result_for(snapshot, request)};
  const size_t answer = attn_result_bytes(&tray->result);
  const size_t queries = request->query_count * request->query_dim * sizeof *tray->queries;
  while (tray->bytes < answer + queries)
    tray->bytes *= 2;
  tray->room = pool->alloc(pool->context, tray->bytes);
  if (!tray->room) return false;
  attn_result_place(&tray->result, tray->room);
  tray->queries = (float *)(void *)((char *)tray->room + answer);
  return true;
}

static void tray_load(struct tray *tray, const struct question *first) {
  float *to = tray->queries;
  for (const struct question *q = first; q; q = q->next) {
    const size_t numbers = q->request.query_count * q->request.query_dim;
    memcpy(to, q->request.queries, numbers * sizeof *to);
    to += numbers;
  }
}

static void tray_unload(const struct tray *tray, struct question *question, size_t offset) {
  const attn_result own = attn_result_slice(&tray->result, offset, question->request.query_count);
  attn_result_copy(&question->result, &own);
}

/* True where all questions were answered. */
static bool compute_together(struct batcher *batcher, struct question *first, size_t count,
                             size_t questions, const attn_pool *pool) {
  struct tray tray;
  bool answered = false;
  attn_request request = first->request;
  request.query_count = count;
  if (!tray_create(&tray, pool, first->snapshot, &request)) goto done;
  tray_load(&tray, first);
  struct batch batch = {batcher, first, 0};
  for (const struct question *q = first; q; q = q->next)
    batch.deadline = fmax(batch.deadline, q->deadline);
  request.queries = tray.queries;
  request.cancelled = gives_up;
  request.cancel_context = &batch;
  const double start = clock_seconds();
  const attn_status status = attn_attend(first->snapshot, &request, &tray.result, pool);
  const double end = clock_seconds();
  answered = status == ATTN_OK || status == ATTN_CANCELLED;
  size_t offset = 0;
  for (struct question *q = first, *next; answered && q; q = next) {
    next = q->next;
    if (status == ATTN_OK) tray_unload(&tray, q, offset);
    offset += q->request.query_count;
    q->seconds = end - start;
    q->companions = questions - 1;
    finish(q, status, end);
  }
done:
  tray_free(&tray);
  return answered;
}

/* ---- Pending questions ---- */

static bool alike(const struct question *a, const struct question *b) {
  return a->snapshot == b->snapshot && a->request.weights_mode == b->request.weights_mode &&
         a->request.weights_mode != ATTN_WEIGHTS_FULL && a->request.top == b->request.top &&
         a->request.query_dim == b->request.query_dim &&
         attn_score_equal(a->request.score, b->request.score) &&
         attn_normalization_equal(a->request.normalization, b->request.normalization);
}

static bool is_pending(const struct batcher *batcher, const struct question *wanted) {
  for (const struct question *q = batcher->pending; q; q = q->next)
    if (q == wanted) return true;
  return false;
}

/* Unlinks `wanted` and others like it from the list that begins at *link, as a
 * list in the same order. Returns the end of what is left. */
static struct question **unlink_alike(struct question **link, const struct question *wanted,
                                      struct question **taken) {
  struct question **taken_end = taken;
  size_t queries = wanted->request.query_count;
  for (struct question *q; (q = *link);) {
    const size_t more = q == wanted ? 0 : q->request.query_count;
    if (q != wanted && (queries + more > BATCH_QUERIES || !alike(q, wanted))) {
      link = &q->next;
      continue;
    }
    *link = q->next;
    q->next = NULL;
    *taken_end = q;
    taken_end = &q->next;
    queries += more;
  }
  return link;
}

/* `wanted`, if it is still pending, and others like it, in order of arrival. */
static struct question *take(struct batcher *batcher, const struct question *wanted) {
  struct question *taken = NULL;
  pthread_mutex_lock(&batcher->mutex);
  if (is_pending(batcher, wanted))
    batcher->pending_end = unlink_alike(&batcher->pending, wanted, &taken);
  pthread_mutex_unlock(&batcher->mutex);
  return taken;
}

/* Drops those that nobody waits for any more, after they had to wait. */
static struct question *sift(struct question *questions) {
  struct question *kept = NULL, **end = &kept;
  const double now = clock_seconds();
  for (struct question *q = questions, *next; q; q = next) {
    next = q->next;
    q->next = NULL;
    if (now > q->deadline || (q->abandoned && q->abandoned(q))) {
      finish(q, ATTN_CANCELLED, now);
    } else {
      *end = q;
      end = &q->next;
    }
  }
  return kept;
}

static void answer_with(struct batcher *batcher, struct question *questions,
                        const attn_pool *pool) {
  size_t count = 0, number = 0;
  for (const struct question *q = questions; q; q = q->next, number++)
    count += q->request.query_count;
  if (number > 1 && compute_together(batcher, questions, count, number, pool)) return;
  for (struct question *q = questions, *next; q; q = next) {
    next = q->next;
    compute_alone(batcher, q, pool);
  }
}

static void answer(struct batcher *batcher, struct question *questions) {
  const attn_pool pool = workers_pool(batcher->workers);
  answer_with(batcher, questions, &pool);
}

/* The job of a question. The question may be answered, and gone, when the job
 * comes to run, so it is only ever compared with those that are pending. */
struct asked {
  struct batcher *batcher;
  const struct question *question;
};

static void run_asked(void *argument) {
  const struct asked asked = *(struct asked *)argument;
  free(argument);
  struct question *questions = sift(take(asked.batcher, asked.question));
  if (questions) answer(asked.batcher, questions);
}

/* ---- Asking ---- */

/* False where it can't wait. */
static bool enqueue(struct batcher *batcher, struct question *question) {
  struct asked *asked = malloc(sizeof *asked);
  if (!asked) return false;
  *asked = (struct asked){batcher, question};
  pthread_mutex_lock(&batcher->mutex);
  *batcher->pending_end = question;
  batcher->pending_end = &question->next;
  pthread_mutex_unlock(&batcher->mutex);
  if (workers_submit(batcher->workers, run_asked, asked, question->cost)) return true;
  free(asked);
  struct question *taken = take(batcher, question);
  if (taken) answer(batcher, taken); /* the queue is full, but this one was let in */
  return true;
}

void batcher_ask(struct batcher *batcher, struct question *question) {
  question->next = NULL;
  question->cost =
      batcher_cost(question->snapshot, question->request.query_count, question->request.query_dim);
  if (workers_queue_length(batcher->workers) == 0 || !enqueue(batcher, question))
    answer(batcher, question);
}

/* As many workers as the pool has, so that the rows are cut alike and the answer
 * is the same to the last bit, but all on the calling thread. */
static void run_here(void *context, size_t count, void (*task)(void *argument, size_t index),
                     void *argument) {
  (void)context;
  for (size_t i = 0; i < count; i++)
    task(argument, i);
}

static attn_pool pool_here(const struct batcher *batcher) {
  attn_pool here = workers_pool(batcher->workers);
  here.run = run_here;
  here.pause = NULL;
  return here;
}

void batcher_answer_here(struct batcher *batcher, struct question *question) {
  const attn_pool here = pool_here(batcher);
  compute_alone(batcher, question, &here);
}

/* The list is in reverse order of arrival, so that its first one knows its length. */
void batcher_put_off(struct batcher *batcher, struct question **list, struct question *question) {
  question->next = *list;
  question->put_off = *list ? (*list)->put_off + 1 : 1;
  *list = question;
  if (question->put_off == MOST_PUT_OFF) batcher_answer_put_off(batcher, list);
}

void batcher_answer_put_off(struct batcher *batcher, struct question **list) {
  const attn_pool here = pool_here(batcher);
  struct question *questions = NULL;
  for (struct question *q = *list, *next; q; q = next) {
    next = q->next;
    q->next = questions;
    questions = q;
  }
  *list = NULL;
  while (questions) {
    struct question *taken = NULL;
    unlink_alike(&questions, questions, &taken);
    answer_with(batcher, taken, &here);
  }
}

struct batcher *batcher_create(struct workers *workers, bool (*hurry)(void *context),
                               void *hurry_context) {
  struct batcher *batcher = calloc(1, sizeof *batcher);
  if (!batcher) return NULL;
  batcher->workers = workers;
  batcher->hurry = hurry;
  batcher->hurry_context = hurry_context;
  batcher->pending_end = &batcher->pending;
  pthread_mutex_init(&batcher->mutex, NULL);
  return batcher;
}

void batcher_free(struct batcher *batcher) {
  if (!batcher) return;
  pthread_mutex_destroy(&batcher->mutex);
  free(batcher);
}
