/* Few rows out of many, and the normalizations that give weight to few.
 *
 * hardmax, sparsemax, entmax15 and everything with a top_k need all scores
 * before the first weight is known, but only few rows matter. So the streaming
 * pass keeps candidates, and the rule sees those alone: the k best, or, for the
 * sparse rules, the rows within a fixed distance of the best (normalization.c
 * says why that is enough).
 *
 * A selection is a list and a threshold. Rows above the threshold are appended;
 * when the list is full it is narrowed: the k-th best is found by partition,
 * the threshold rises to it, and what lies below is dropped. A heap was
 * rejected: it does log k steps per accepted row, can't be asked "is any of
 * these 512 above the threshold" by vector compare, and has no place for rows
 * that float32 can't tell from the k-th. Those stay until their scores are
 * taken again in float64 (answer.c), so that what is decided is decided exactly.
 *
 * Where all scores are equal a sparse rule's list holds all rows; attend.c
 * bounds how many queries a pass has. */
#include "attend/select.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "memory/snapshot.h"

enum { CAPACITY_LEAST = 64 };

void attn_selection_init(struct attn_selection *selection, size_t most, double window,
                         struct attn_margin margin) {
  *selection = (struct attn_selection){
      .most = most, .window = window, .margin = margin, .threshold = -INFINITY};
}

void attn_selection_free(struct attn_selection *selection) {
  free(selection->items);
  selection->items = NULL;
  selection->count = selection->capacity = 0;
}

/* True where a comes before b in the order of ties. */
static bool before(const struct attn_candidate *a, const struct attn_candidate *b) {
  return a->score > b->score || (a->score == b->score && a->row < b->row);
}

/* ---- Narrowing ---- */

static void swap(struct attn_candidate *a, struct attn_candidate *b) {
  const struct attn_candidate held = *a;
  *a = *b;
  *b = held;
}

/* Hoare's selection: afterwards the `count` best stand in front. The pivot is
 * the median of three, because scores often come sorted. */
static void partition_best(struct attn_candidate *items, size_t length, size_t count) {
  size_t low = 0, high = length - 1;
  while (low < high) {
    const size_t middle = low + (high - low) / 2;
    if (before(&items[middle], &items[low])) swap(&items[middle], &items[low]);
    if (before(&items[high], &items[low])) swap(&items[high], &items[low]);
    if (before(&items[high], &items[middle])) swap(&items[high], &items[middle]);
    const struct attn_candidate pivot = items[middle];
    size_t i = low, j = high;
    for (;;) {
      while (before(&items[i], &pivot))
        i++;
      while (before(&pivot, &items[j]))
        j--;
      if (i >= j) break;
      swap(&items[i++], &items[j--]);
    }
    if (count <= j)
      high = j;
    else
      low = j + 1;
    if (low == count) return; /* all that is left to order lies behind them */
  }
}

/* Two scores whose true order float32 may have turned around are no further
 * apart than this, near `score`. */
static double doubt(const struct attn_selection *selection, double score) {
  return 2 * (selection->margin.absolute + selection->margin.relative * fabs(score));
}

static void drop_below(struct attn_selection *selection) {
  size_t kept = 0;
  for (size_t i = 0; i < selection->count; i++)
    if (selection->items[i].score > selection->threshold)
      selection->items[kept++] = selection->items[i];
  selection->count = kept;
}

static double best_of(const struct attn_candidate *items, size_t count) {
  double best = -INFINITY;
  for (size_t i = 0; i < count; i++)
    best = fmax(best, items[i].score);
  return best;
}

static double worst_of(const struct attn_candidate *items, size_t count) {
  double worst = INFINITY;
  for (size_t i = 0; i < count; i++)
    worst = fmin(worst, items[i].score);
  return worst;
}

void attn_selection_narrow(struct attn_selection *selection) {
  struct attn_candidate *items = selection->items;
  if (selection->most == 0) {
    const double best = best_of(items, selection->count);
    const double least = best - selection->window - doubt(selection, best - selection->window);
    /* Scores so large that the window vanishes beside them: the best alone. */
    selection->threshold = least < best ? least : nextafter(best, -INFINITY);
    drop_below(selection);
  } else if (selection->count > selection->most) {
    partition_best(items, selection->count, selection->most);
    const double worst = worst_of(items, selection->most);
    const double doubtful = doubt(selection, worst);
    selection->threshold = worst - doubtful;
    if (doubtful > 0)
      drop_below(selection);
    else
      selection->count = selection->most; /* the lower rows of a tie */
  }
}

static bool append(struct attn_selection *selection, struct attn_candidate candidate) {
  if (selection->count == selection->capacity) {
    if (selection->count > 0) attn_selection_narrow(selection);
    /* Still half full: grow, or every few rows would narrow it again. */
    if (selection->count * 2 >= selection->capacity) {
      size_t capacity = selection->capacity * 2;
      if (capacity == 0) {
        capacity = CAPACITY_LEAST;
        while (capacity < selection->most * 2 && capacity < SIZE_MAX / 4)
          capacity *= 2;
      }
      struct attn_candidate *grown =
          realloc(selection->items, attn_size_times(capacity, sizeof *grown));
      if (!grown) return false;
      selection->items = grown;
      selection->capacity = capacity;
    }
  }
  if (candidate.score > selection->threshold) selection->items[selection->count++] = candidate;
  return true;
}

/* ---- Offers ---- */

attn_status attn_selection_offer(struct attn_selection *selection, const double *scores,
                                 size_t count, size_t first, double sign) {
  for (size_t i = 0; i < count; i++) {
    const struct attn_candidate candidate = {.score = sign * scores[i], .row = first + i};
    if (candidate.score > selection->threshold && !append(selection, candidate))
      return ATTN_NO_MEMORY;
  }
  return ATTN_OK;
}

/* A tile's worst case is that all of it is above the threshold. With a window
 * the tile's best may raise the threshold at once. */
attn_status attn_selection_offer_floats(struct attn_selection *selection, const float *scores,
                                        size_t count, size_t first,
                                        const struct attn_kernels *kernels) {
  const double best = (double)kernels->row_max(scores, count);
  if (!(best > selection->threshold)) return ATTN_OK;
  if (selection->most == 0) {
    const double least = best - selection->window;
    selection->threshold = fmax(selection->threshold, least - doubt(selection, least));
  }
  for (size_t i = 0; i < count; i++) {
    i += kernels->row_skip(scores + i, count - i, selection->threshold);
    if (i == count) break;
    const struct attn_candidate candidate = {.score = (double)scores[i], .row = first + i};
    if (!append(selection, candidate)) return ATTN_NO_MEMORY;
  }
  return ATTN_OK;
}

/* Ties are not in order of rows in here, so nothing is turned away at the
 * threshold itself before all are in. */
attn_status attn_selection_merge(struct attn_selection *into, const struct attn_selection *from) {
  const size_t total = into->count + from->count;
  if (from->count == 0) return ATTN_OK;
  if (total > into->capacity) {
    struct attn_candidate *grown = realloc(into->items, attn_size_times(total, sizeof *grown));
    if (!grown) return ATTN_NO_MEMORY;
    into->items = grown;
    into->capacity = total;
  }
  memcpy(into->items + into->count, from->items, from->count * sizeof *from->items);
  into->count = total;
  attn_selection_narrow(into);
  return ATTN_OK;
}

static int by_score(const void *a, const void *b) {
  const struct attn_candidate *left = a, *right = b;
  return before(left, right) ? -1 : before(right, left) ? 1 : 0;
}

void attn_selection_sort(struct attn_selection *selection) {
  selection->margin = (struct attn_margin){0};
  if (selection->count > 0) attn_selection_narrow(selection);
  if (selection->count > 1)
    qsort(selection->items, selection->count, sizeof *selection->items, by_score);
}

static int by_weight(const void *a, const void *b) {
  const struct attn_candidate *left = a, *right = b;
  const float first = (float)left->weight, second = (float)right->weight;
  if (first != second) return first > second ? -1 : 1;
  return left->row < right->row ? -1 : left->row > right->row;
}

void attn_candidates_order(struct attn_candidate *items, size_t count) {
  if (count > 1) qsort(items, count, sizeof *items, by_weight);
}

/* ---- The rules, over candidates sorted by score ---- */

static void weigh_softmax(struct attn_candidate *items, size_t count, double beta) {
  double total = 0;
  for (size_t i = 0; i < count; i++)
    total += items[i].weight = exp(beta * (items[i].score - items[0].score));
  for (size_t i = 0; i < count; i++)
    items[i].weight /= total;
}

static void weigh_sum(struct attn_candidate *items, size_t count) {
  double total = 0;
  for (size_t i = 0; i < count; i++)
    total += items[i].score;
  for (size_t i = 0; i < count; i++)
    items[i].weight = total != 0 ? items[i].score / total : 0;
}

/* Martins & Astudillo 2016, algorithm 1: the threshold tau for which the
 * positive parts of z - tau add up to 1. z is taken from the largest score, so
 * that scores of 1e30 keep their differences. */
static void weigh_sparsemax(struct attn_candidate *items, size_t count) {
  double sum = 0, tau = -1;
  for (size_t k = 0; k < count; k++) {
    const double z = items[k].score - items[0].score;
    if (1 + (double)(k + 1) * z <= sum + z) break;
    sum += z;
    tau = (sum - 1) / (double)(k + 1);
  }
  for (size_t i = 0; i < count; i++)
    items[i].weight = fmax(0, items[i].score - items[0].score - tau);
}

/* Peters, Niculae & Martins 2019, algorithm 2: with z = a/2, the threshold for
 * which the squares of the positive parts add up to 1. The spread is summed
 * around the running mean (Welford 1962): mean(z^2) - mean(z)^2 would cancel. */
static void weigh_entmax15(struct attn_candidate *items, size_t count) {
  double mean = 0, spread = 0, tau = -1;
  for (size_t k = 0; k < count; k++) {
    const double z = (items[k].score - items[0].score) / 2;
    const double n = (double)(k + 1), delta = z - mean;
    mean += delta / n;
    spread += delta * (z - mean);
    const double next = mean - sqrt(fmax(0, (1 - spread) / n));
    if (next > z) break;
    tau = next;
  }
  for (size_t i = 0; i < count; i++) {
    const double part = fmax(0, (items[i].score - items[0].score) / 2 - tau);
    items[i].weight = part * part;
  }
}

void attn_selection_weigh(struct attn_selection *selection, const attn_normalization *norm,
                          bool log) {
  struct attn_candidate *items = selection->items;
  const size_t count = selection->count;
  if (count == 0) return;
  switch (norm->kind->rule) {
  case RULE_SOFTMAX:
    weigh_softmax(items, count, norm->inverse_temperature);
    break;
  case RULE_SUM:
    if (log)
      weigh_softmax(items, count, 1);
    else
      weigh_sum(items, count);
    break;
  case RULE_SPARSEMAX:
    weigh_sparsemax(items, count);
    break;
  case RULE_ENTMAX15:
    weigh_entmax15(items, count);
    break;
  case RULE_HARDMAX:
  case RULE_NONE:
  case RULE_SIGMOID: /* neither of the last two is ever selected from */
    for (size_t i = 0; i < count; i++)
      items[i].weight = i == 0;
    break;
  }
}
