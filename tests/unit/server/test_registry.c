/* The registry: names, versions, conditions, and readers that never see a
 * memory which is half there or already freed. */
#include "engine/registry.h"

#include <pthread.h>
#include <stdatomic.h>

#include "unit.h"

/* One row whose key and value are `content`, which is the version too. */
static struct memory *memory_of(const char *name, float content) {
  attn_snapshot *empty, *filled;
  attn_score *score;
  attn_normalization *norm;
  ck_assert_int_eq(attn_snapshot_create(&empty, 1, 1), ATTN_OK);
  ck_assert_int_eq(attn_snapshot_append(&filled, empty, &content, &content, 1), ATTN_OK);
  ck_assert_int_eq(attn_score_create(&score, "dot", NULL, 0, NULL), ATTN_OK);
  ck_assert_int_eq(attn_normalization_create(&norm, "softmax", NULL, 0, NULL), ATTN_OK);
  struct memory *memory = memory_create(&(struct memory){.name = name,
                                                         .version = (int64_t)content,
                                                         .snapshot = filled,
                                                         .score = score,
                                                         .normalization = norm});
  ck_assert_ptr_nonnull(memory);
  attn_snapshot_free(empty);
  attn_snapshot_free(filled);
  attn_score_free(score);
  attn_normalization_free(norm);
  return memory;
}

static int64_t version_of(struct registry *registry, const char *name) {
  struct memory *memory = registry_pin(registry, name);
  const int64_t version = memory ? memory->version : 0;
  memory_free(memory);
  return version;
}

START_TEST(test_put_and_remove) {
  struct registry *registry = registry_create();
  ck_assert(registry_put(registry, memory_of("a", 1)));
  ck_assert_int_eq(version_of(registry, "a"), 1);
  ck_assert(registry_put(registry, memory_of("a", 2)));
  ck_assert_int_eq(version_of(registry, "a"), 2);
  ck_assert(registry_remove(registry, "a"));
  ck_assert_int_eq(version_of(registry, "a"), 0);
  ck_assert(registry_remove(registry, "a"));
  ck_assert(registry_put(registry, memory_of("a", 3)));
  ck_assert_int_eq(version_of(registry, "a"), 3);
  registry_free(registry);
}
END_TEST

START_TEST(test_list_is_sorted) {
  static const char *const names[] = {"m", "b", "z", "a", "k", "B", "0", "ab"};
  static const char *const sorted[] = {"0", "B", "a", "ab", "b", "k", "m", "z"};
  struct registry *registry = registry_create();
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    registry_put(registry, memory_of(names[i], 0));
  size_t count;
  struct memory **list = registry_list(registry, &count);
  ck_assert_uint_eq(count, sizeof sorted / sizeof *sorted);
  for (size_t i = 0; i < count; i++)
    ck_assert_str_eq(list[i]->name, sorted[i]);
  registry_list_free(list, count);
  registry_free(registry);
}
END_TEST

START_TEST(test_long_list) {
  struct registry *registry = registry_create();
  char name[16];
  for (int i = 0; i < 300; i++) {
    snprintf(name, sizeof name, "memory%d", i);
    registry_put(registry, memory_of(name, 0));
  }
  size_t count;
  struct memory **list = registry_list(registry, &count);
  ck_assert_uint_eq(count, 300);
  registry_list_free(list, count);
  registry_free(registry);
}
END_TEST

START_TEST(test_pinned_memory_outlives_its_deletion) {
  struct registry *registry = registry_create();
  registry_put(registry, memory_of("a", 7));
  struct memory *pinned = registry_pin(registry, "a");
  registry_remove(registry, "a");
  float value;
  ck_assert_int_eq(attn_snapshot_get_row(pinned->snapshot, 0, NULL, &value), ATTN_OK);
  ck_assert(value == 7);
  memory_free(pinned);
  registry_free(registry);
}
END_TEST

/* ---- Readers and writers at once ---- */

enum { READERS = 4, WRITES = 3000 };

struct traffic {
  struct registry *registry;
  atomic_bool over;
  atomic_int faults;
};

/* The writer stores its version's number as the row, so a reader can tell
 * whether what it pinned belongs together, and that versions never go back. */
static void *read_on(void *argument) {
  struct traffic *traffic = argument;
  int64_t last = 0;
  while (!atomic_load(&traffic->over)) {
    struct memory *memory = registry_pin(traffic->registry, "busy");
    if (!memory) continue;
    float value = -1;
    attn_snapshot_get_row(memory->snapshot, 0, NULL, &value);
    if (value != (float)memory->version || memory->version < last)
      atomic_fetch_add(&traffic->faults, 1);
    last = memory->version;
    memory_free(memory);
    size_t count;
    struct memory **list = registry_list(traffic->registry, &count);
    if (!list || count > 2) atomic_fetch_add(&traffic->faults, 1);
    registry_list_free(list, count);
  }
  return NULL;
}

START_TEST(test_readers_under_writes) {
  struct traffic traffic = {.registry = registry_create()};
  pthread_t readers[READERS];
  for (size_t i = 0; i < READERS; i++)
    pthread_create(&readers[i], NULL, read_on, &traffic);
  int64_t version = 0;
  for (int i = 0; i < WRITES; i++) {
    if (i % 7 == 6) {
      registry_remove(traffic.registry, "busy");
    } else {
      registry_put(traffic.registry, memory_of("busy", (float)++version));
    }
    if (i % 5 == 0) registry_put(traffic.registry, memory_of("other", 0));
  }
  atomic_store(&traffic.over, true);
  for (size_t i = 0; i < READERS; i++)
    pthread_join(readers[i], NULL);
  ck_assert_int_eq(atomic_load(&traffic.faults), 0);
  registry_free(traffic.registry);
  registry_free(NULL);
}
END_TEST

UNIT_MAIN("registry", test_put_and_remove, test_list_is_sorted, test_long_list,
          test_pinned_memory_outlives_its_deletion, test_readers_under_writes)
