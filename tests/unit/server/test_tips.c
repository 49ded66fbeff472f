/* Tips by name and by time, against a plain array. */
#include "engine/tips.h"

#include "unit.h"

enum { NAMES = 300 };

static struct memory *memory_until(const char *name, int64_t soonest) {
  struct memory parts = {.name = name};
  const struct tags_edit tags = {.added_count = 1, .added_expiries = &soonest};
  ck_assert_int_eq(attn_snapshot_create(&parts.snapshot, 1, 1), ATTN_OK);
  ck_assert(row_tags_edit(&parts.tags, NULL, 0, &tags));
  struct memory *memory = memory_create(&parts);
  ck_assert_ptr_nonnull(memory);
  attn_snapshot_free(parts.snapshot);
  row_tags_free(parts.tags);
  return memory;
}

static void set_time(struct tips *tips, struct tip *tip, int64_t soonest) {
  memory_free(tip->published.memory);
  tip->published.memory = memory_until(tip->name, soonest);
  tips_schedule(tips, tip);
}

static int64_t soonest_of(const int64_t *times) {
  int64_t soonest = NEVER_EXPIRES;
  for (size_t i = 0; i < NAMES; i++)
    if (times[i] < soonest) soonest = times[i];
  return soonest;
}

/* times[i] is NEVER_EXPIRES also where there is no tip. */
START_TEST(test_names_and_times) {
  struct tips *tips = tips_create();
  uint64_t state = 6;
  int64_t times[NAMES];
  bool there[NAMES] = {false};
  for (size_t i = 0; i < NAMES; i++)
    times[i] = NEVER_EXPIRES;
  for (int step = 0; step < 20000; step++) {
    const size_t at = next_random(&state) % NAMES;
    char name[16];
    snprintf(name, sizeof name, "name-%zu", at);
    struct tip *tip = tips_find(tips, name);
    ck_assert_int_eq(tip != NULL, there[at]);
    const uint64_t choice = next_random(&state) % 8;
    if (choice == 0 && tip) {
      tips_drop(tips, tip);
      there[at] = false;
      times[at] = NEVER_EXPIRES;
    } else if (choice == 1) {
      const int64_t now = (int64_t)(next_random(&state) % 1000);
      struct tip *due = tips_take_due(tips, now);
      ck_assert_int_eq(due != NULL, soonest_of(times) <= now);
      if (!due) continue;
      const size_t of = strtoul(due->name + 5, NULL, 10);
      ck_assert_int_eq(times[of], soonest_of(times));
      times[of] = next_random(&state) % 2 ? NEVER_EXPIRES : times[of] + 100;
      set_time(tips, due, times[of]);
    } else {
      tip = tips_get(tips, name);
      ck_assert_ptr_nonnull(tip);
      ck_assert_str_eq(tip->name, name);
      there[at] = true;
      times[at] = next_random(&state) % 4 ? (int64_t)(next_random(&state) % 1000) : NEVER_EXPIRES;
      set_time(tips, tip, times[at]);
    }
    ck_assert_int_eq(tips_soonest(tips), soonest_of(times));
  }
  tips_free(tips);
  tips_free(NULL);
}
END_TEST

UNIT_MAIN("tips", test_names_and_times)
