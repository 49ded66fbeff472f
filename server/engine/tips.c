/* A hash table by name, and a heap by time.
 *
 * A batch touches a few memories of perhaps ten thousand, so nothing that is
 * done for each batch may go through all of them. The table chains tips through
 * themselves; the heap has those that have a row which expires, the soonest at
 * its root, and each tip knows its place in it.
 *
 * What can fail for want of memory is done when a tip is made: so a row's time is
 * never forgotten. A table that can't grow has longer chains, which is all.
 *
 * Threads: the writer's alone. */
#include "engine/tips.h"

#include <stdlib.h>
#include <string.h>

#include "base/keyed_hash.h"

enum { FEWEST_CHAINS = 64 };

struct tips {
  struct hash_key key;
  struct tip **chains; /* a power of two of them */
  size_t chain_count, count;
  struct tip **heap; /* room for all tips */
  size_t heap_count, heap_room;
};

struct tips *tips_create(void) {
  struct tips *tips = calloc(1, sizeof *tips);
  if (!tips) return NULL;
  tips->key = hash_key_random();
  tips->chain_count = FEWEST_CHAINS;
  tips->chains = calloc(FEWEST_CHAINS, sizeof(struct tip *));
  if (tips->chains) return tips;
  free(tips);
  return NULL;
}

void tips_free(struct tips *tips) {
  if (!tips) return;
  for (size_t i = 0; i < tips->chain_count; i++)
    while (tips->chains[i]) {
      struct tip *tip = tips->chains[i];
      tips->chains[i] = tip->next;
      tip_free(tip);
    }
  free(tips->chains);
  free(tips->heap);
  free(tips);
}

/* ---- By name ---- */

/* Where the chain leads to the tip of that name, or ends. */
static struct tip **place_of(struct tips *tips, const char *name) {
  const uint64_t hash = keyed_hash(tips->key, name, strlen(name));
  struct tip **at = &tips->chains[hash & (tips->chain_count - 1)];
  while (*at && strcmp((*at)->name, name) != 0)
    at = &(*at)->next;
  return at;
}

struct tip *tips_find(struct tips *tips, const char *name) {
  return *place_of(tips, name);
}

static void grow_table(struct tips *tips) {
  struct tip **old = tips->chains;
  const size_t old_count = tips->chain_count;
  struct tip **chains = calloc(2 * old_count, sizeof(struct tip *));
  if (!chains) return;
  tips->chains = chains;
  tips->chain_count = 2 * old_count;
  for (size_t i = 0; i < old_count; i++)
    while (old[i]) {
      struct tip *tip = old[i];
      old[i] = tip->next;
      tip->next = NULL;
      *place_of(tips, tip->name) = tip;
    }
  free(old);
}

static bool grow_heap(struct tips *tips) {
  const size_t room = tips->heap_room > 0 ? 2 * tips->heap_room : FEWEST_CHAINS;
  struct tip **heap = realloc(tips->heap, room * sizeof(struct tip *));
  if (!heap) return false;
  tips->heap = heap;
  tips->heap_room = room;
  return true;
}

struct tip *tips_get(struct tips *tips, const char *name) {
  struct tip *tip = tips_find(tips, name);
  if (tip) return tip;
  if (tips->count == tips->heap_room && !grow_heap(tips)) return NULL;
  if (tips->count == tips->chain_count) grow_table(tips);
  tip = tip_create(name);
  if (!tip) return NULL;
  *place_of(tips, name) = tip;
  tips->count++;
  return tip;
}

/* ---- By time ---- */

static int64_t time_of(const struct tip *tip) {
  return tip->published.memory ? tip->published.memory->soonest : NEVER_EXPIRES;
}

/* Places in the heap count from 1, so that 0 is none. */
static void set(struct tips *tips, size_t place, struct tip *tip) {
  tips->heap[place - 1] = tip;
  tip->heap_place = place;
}

static struct tip *get(const struct tips *tips, size_t place) {
  return tips->heap[place - 1];
}

static void rise(struct tips *tips, size_t place, struct tip *tip) {
  for (; place > 1 && time_of(get(tips, place / 2)) > time_of(tip); place /= 2)
    set(tips, place, get(tips, place / 2));
  set(tips, place, tip);
}

static void sink(struct tips *tips, size_t place, struct tip *tip) {
  for (size_t below = 2 * place; below <= tips->heap_count; below = 2 * place) {
    if (below < tips->heap_count && time_of(get(tips, below + 1)) < time_of(get(tips, below)))
      below++;
    if (time_of(get(tips, below)) >= time_of(tip)) break;
    set(tips, place, get(tips, below));
    place = below;
  }
  rise(tips, place, tip);
}

static void leave_heap(struct tips *tips, struct tip *tip) {
  const size_t place = tip->heap_place;
  if (place == 0) return;
  struct tip *last = get(tips, tips->heap_count--);
  tip->heap_place = 0;
  if (last != tip) sink(tips, place, last);
}

void tips_schedule(struct tips *tips, struct tip *tip) {
  if (time_of(tip) == NEVER_EXPIRES)
    leave_heap(tips, tip);
  else
    sink(tips, tip->heap_place > 0 ? tip->heap_place : ++tips->heap_count, tip);
}

void tips_drop(struct tips *tips, struct tip *tip) {
  leave_heap(tips, tip);
  *place_of(tips, tip->name) = tip->next;
  tips->count--;
  tip_free(tip);
}

int64_t tips_soonest(const struct tips *tips) {
  return tips->heap_count > 0 ? time_of(get(tips, 1)) : NEVER_EXPIRES;
}

struct tip *tips_take_due(struct tips *tips, int64_t now) {
  if (tips_soonest(tips) > now) return NULL;
  struct tip *tip = get(tips, 1);
  leave_heap(tips, tip);
  return tip;
}
