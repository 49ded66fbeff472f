/* The named memories in RAM.
 *
 * The registry is one sorted array, the *table*, which is never changed once it
 * is published: a writer makes a new one and swaps the pointer. Readers look a
 * name up in whatever table they find and take a reference on the memory. They
 * take no lock and never wait, whatever writers do.
 *
 * The one hard question is when a writer may drop the old table, since a reader
 * may have loaded the pointer and not yet taken its reference. Readers announce
 * themselves on one of two counters, the one that `phase` names; the writer
 * swaps the table, flips the phase and waits until the counter it turned away
 * from is 0, twice. One flip is not enough: a reader may have read the phase,
 * slept through the flip, and then announced itself on the counter that the
 * *next* writer won't look at first. After two, every reader that could have
 * seen the old table has left. A reader is inside for a binary search, so the
 * wait is a matter of nanoseconds, and new readers use the other counter, so
 * it ends however many come.
 *
 * Rejected: a read-write lock (readers write to its cache line, and a waiting
 * writer holds them up), hazard pointers (need registered threads), reference
 * counts alone (the race above).
 *
 * Owners: `table` and `phase` are written by the holder of `writers` alone.
 * There is no other lock in here. Versions are the maker's business
 * (engine/writer.c). */
#include "engine/registry.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

struct table {
  size_t count;
  struct memory *memories[]; /* sorted by name; a reference of each is held */
};

struct registry {
  _Atomic(struct table *) table;
  atomic_uint phase;
  atomic_size_t readers[2];
  pthread_mutex_t writers;
};

/* ---- Readers ---- */

static unsigned enter(struct registry *registry) {
  const unsigned side = atomic_load(&registry->phase) & 1;
  atomic_fetch_add(&registry->readers[side], 1);
  return side;
}

static void leave(struct registry *registry, unsigned side) {
  atomic_fetch_sub(&registry->readers[side], 1);
}

/* Where `name` is, or would have to be put. */
static bool find(const struct table *table, const char *name, size_t *place) {
  size_t low = 0, high = table->count;
  while (low < high) {
    const size_t middle = low + (high - low) / 2;
    const int order = strcmp(table->memories[middle]->name, name);
    if (order == 0) {
      *place = middle;
      return true;
    }
    if (order < 0)
      low = middle + 1;
    else
      high = middle;
  }
  *place = low;
  return false;
}

struct memory *registry_pin(struct registry *registry, const char *name) {
  const unsigned side = enter(registry);
  const struct table *table = atomic_load(&registry->table);
  size_t place;
  struct memory *memory = find(table, name, &place) ? memory_ref(table->memories[place]) : NULL;
  leave(registry, side);
  return memory;
}

struct memory *registry_find(struct registry *registry, const char *name, struct problem *problem) {
  struct memory *memory = registry_pin(registry, name);
  if (!memory) {
    problem_set(problem, PROBLEM_MEMORY_NOT_FOUND, "", "there is no memory named \"%s\"", name);
    return NULL;
  }
  if (memory->damaged) {
    problem_set(problem, PROBLEM_MEMORY_DAMAGED, "",
                "%s; replace or delete the memory, or restore a backup", memory->damaged);
    memory_free(memory);
    return NULL;
  }
  if (memory->soonest == NEVER_EXPIRES) return memory;
  struct memory *now = memory_at_time(memory, clock_wall_ms());
  memory_free(memory);
  if (!now) problem_set_status(problem, ATTN_NO_MEMORY, "");
  return now;
}

/* Memory is taken outside of the announced stretch, where a reader must not
 * dawdle; the table may have grown meanwhile, then once more. */
struct memory **registry_list(struct registry *registry, size_t *count) {
  struct memory **list = NULL;
  for (size_t room = 16;;) {
    struct memory **larger = realloc(list, room * sizeof(struct memory *));
    if (!larger) {
      free(list);
      return NULL;
    }
    list = larger;
    const unsigned side = enter(registry);
    const struct table *table = atomic_load(&registry->table);
    const size_t found = table->count;
    for (size_t i = 0; found <= room && i < found; i++)
      list[i] = memory_ref(table->memories[i]);
    leave(registry, side);
    if (found <= room) {
      *count = found;
      return list;
    }
    room = found + 16;
  }
}

void registry_list_free(struct memory **list, size_t count) {
  for (size_t i = 0; list && i < count; i++)
    memory_free(list[i]);
  free(list);
}

/* ---- Writers, with the mutex held ---- */

static void wait_for_readers(struct registry *registry) {
  for (int flips = 0; flips < 2; flips++) {
    const unsigned side = atomic_fetch_add(&registry->phase, 1) & 1;
    while (atomic_load(&registry->readers[side]) > 0)
      sched_yield();
  }
}

/* A table with `memory` (or, NULL, nothing) at `place` instead of `replaced`
 * (0 or 1) of the old one's. References move over with the pointers. */
static struct table *table_with(const struct table *old, size_t place, size_t replaced,
                                struct memory *memory) {
  const size_t count = old->count - replaced + (memory != NULL);
  struct table *made = malloc(sizeof *made + count * sizeof(struct memory *));
  if (!made) return NULL;
  made->count = count;
  memcpy(made->memories, old->memories, place * sizeof(struct memory *));
  if (memory) made->memories[place] = memory;
  memcpy(made->memories + place + (memory != NULL), old->memories + place + replaced,
         (old->count - place - replaced) * sizeof(struct memory *));
  return made;
}

static void publish(struct registry *registry, struct table *table) {
  struct table *old = atomic_exchange(&registry->table, table);
  wait_for_readers(registry);
  free(old);
}

/* The old version is freed outside of the lock: it may give gigabytes back. */
static bool change(struct registry *registry, const char *name, struct memory *memory) {
  pthread_mutex_lock(&registry->writers);
  const struct table *table = atomic_load(&registry->table);
  size_t place;
  struct memory *old = find(table, name, &place) ? table->memories[place] : NULL;
  struct table *made = old || memory ? table_with(table, place, old != NULL, memory) : NULL;
  if (made) publish(registry, made);
  pthread_mutex_unlock(&registry->writers);
  if (made) memory_free(old);
  return made != NULL || (!old && !memory);
}

bool registry_put(struct registry *registry, struct memory *memory) {
  return change(registry, memory->name, memory);
}

bool registry_remove(struct registry *registry, const char *name) {
  return change(registry, name, NULL);
}

/* ---- Life ---- */

struct registry *registry_create(void) {
  struct registry *registry = calloc(1, sizeof *registry);
  struct table *empty = calloc(1, sizeof *empty);
  if (!registry || !empty) {
    free(registry);
    free(empty);
    return NULL;
  }
  atomic_init(&registry->table, empty);
  pthread_mutex_init(&registry->writers, NULL);
  return registry;
}

void registry_free(struct registry *registry) {
  if (!registry) return;
  struct table *table = atomic_load(&registry->table);
  for (size_t i = 0; i < table->count; i++)
    memory_free(table->memories[i]);
  free(table);
  pthread_mutex_destroy(&registry->writers);
  free(registry);
}
