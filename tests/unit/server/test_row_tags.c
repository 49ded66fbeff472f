/* Ids and times of rows: random edits against a plain array, and what is shared. */
#include "engine/row_tags.h"

#include "unit.h"

enum { MOST = 6000, NAME = 24 };

struct plain {
  size_t count;
  struct item {
    char id[NAME]; /* "": none */
    int64_t expiry;
  } items[MOST];
};

static size_t plain_find(const struct plain *plain, const char *id) {
  for (size_t i = 0; i < plain->count; i++)
    if (strcmp(plain->items[i].id, id) == 0) return i;
  return SIZE_MAX;
}

static void check_find(const struct row_tags *tags, const struct plain *plain, uint64_t *state,
                       size_t count) {
  struct id_list *ids = id_list_create();
  size_t *rows = malloc(count * sizeof *rows);
  for (size_t i = 0; i < count; i++) {
    char name[NAME];
    if (plain->count > 0 && next_random(state) % 2)
      snprintf(name, sizeof name, "%s", plain->items[next_random(state) % plain->count].id);
    else
      snprintf(name, sizeof name, "missing-%zu", i);
    if (!*name) snprintf(name, sizeof name, "empty-%zu", i);
    ck_assert(id_list_append(ids, name, strlen(name)));
  }
  ck_assert(row_tags_find(tags, ids, rows));
  for (size_t i = 0; i < count; i++) {
    const size_t expected = plain_find(plain, id_list_get(ids, i, NULL));
    /* of an id that is asked for twice one answer will do */
    bool twice = false;
    for (size_t k = 0; k < count; k++)
      twice |= k != i && strcmp(id_list_get(ids, k, NULL), id_list_get(ids, i, NULL)) == 0;
    if (!twice || rows[i] != SIZE_MAX) ck_assert_uint_eq(rows[i], expected);
  }
  id_list_free(ids);
  free(rows);
}

static void check_expired(const struct row_tags *tags, const struct plain *plain, int64_t now) {
  size_t count, expected = 0;
  size_t *rows = row_tags_expired(tags, now, &count);
  ck_assert_ptr_nonnull(rows);
  for (size_t i = 0; i < plain->count; i++) {
    if (plain->items[i].expiry > now) continue;
    ck_assert_uint_lt(expected, count);
    ck_assert_uint_eq(rows[expected++], i);
  }
  ck_assert_uint_eq(count, expected);
  free(rows);
}

static void check_tags(const struct row_tags *tags, const struct plain *plain) {
  int64_t soonest = NEVER_EXPIRES;
  bool ids = false;
  for (size_t i = 0; i < plain->count; i++) {
    const struct item *item = &plain->items[i];
    size_t length = 0;
    const char *id = row_tags_id(tags, i, &length);
    ck_assert_str_eq(id ? id : "", item->id);
    ck_assert_uint_eq(length, strlen(item->id));
    ck_assert_int_eq(row_tags_expiry(tags, i), item->expiry);
    if (item->expiry < soonest) soonest = item->expiry;
    ids |= *item->id != '\0';
  }
  ck_assert_int_eq(row_tags_soonest(tags), soonest);
  ck_assert_int_eq(row_tags_have_ids(tags), ids);
  ck_assert(!tags || ids || soonest != NEVER_EXPIRES);
  ck_assert_ptr_null(row_tags_id(tags, plain->count, &(size_t){0}));
  if (tags) ck_assert_uint_eq(row_tags_rows(tags), plain->count);
}

/* An edit, and the same done to the array. */
struct edit {
  struct tags_edit tags;
  size_t removed[MOST], replaced[MOST];
  int64_t replaced_expiries[MOST], added_expiries[MOST];
};

static int64_t random_time(uint64_t *state) {
  return next_random(state) % 3 ? (int64_t)(next_random(state) % 1000) : NEVER_EXPIRES;
}

static void random_edit(struct edit *edit, struct plain *plain, uint64_t *state, size_t *named) {
  const size_t before = plain->count;
  const bool times = next_random(state) % 2, ids = next_random(state) % 4 != 0;
  const uint64_t shape = next_random(state) % 8;
  const size_t odds = shape < 3 ? 2000 : shape < 6 ? 30 : 2;
  size_t left = 0;
  edit->tags = (struct tags_edit){.removed = edit->removed, .replaced = edit->replaced};
  for (size_t i = 0; i < before; i++) {
    const uint64_t choice = next_random(state) % (2 * odds);
    if (choice == 0) {
      edit->removed[edit->tags.removed_count++] = i;
      continue;
    }
    if (choice == 1) {
      const int64_t time = random_time(state);
      edit->replaced_expiries[edit->tags.replaced_count] = time;
      edit->replaced[edit->tags.replaced_count++] = i;
      plain->items[i].expiry = times ? time : NEVER_EXPIRES;
    }
    plain->items[left++] = plain->items[i];
  }
  plain->count = left;
  if (times) edit->tags.replaced_expiries = edit->replaced_expiries;
  const size_t room = MOST - left;
  size_t added = next_random(state) % (shape % 2 ? 3000 : 4);
  if (added > room) added = room;
  struct id_list *list = ids && added > 0 ? id_list_create() : NULL;
  for (size_t i = 0; i < added; i++) {
    struct item *item = &plain->items[plain->count++];
    *item = (struct item){.expiry = NEVER_EXPIRES};
    edit->added_expiries[i] = random_time(state);
    if (times) item->expiry = edit->added_expiries[i];
    if (list) {
      snprintf(item->id, NAME, "id-%zu", ++*named);
      ck_assert(id_list_append(list, item->id, strlen(item->id)));
    }
  }
  edit->tags.added_count = added;
  edit->tags.added_ids = list;
  if (times && added > 0) edit->tags.added_expiries = edit->added_expiries;
}

static struct row_tags *copy_of(const struct row_tags *tags) {
  struct row_tags *copy = row_tags_create();
  struct buffer bytes, again;
  buffer_init(&bytes, 0);
  buffer_init(&again, 0);
  for (size_t i = 0; i < row_tags_run_count(tags); i++) {
    buffer_clear(&bytes);
    buffer_clear(&again);
    tag_run_encode(row_tags_run(tags, i), &bytes);
    ck_assert_int_eq(row_tags_decode_run(copy, bytes.data, bytes.length), DECODED);
    tag_run_encode(row_tags_run(copy, i), &again);
    ck_assert_uint_eq(bytes.length, again.length);
    ck_assert_mem_eq(bytes.data, again.data, bytes.length);
  }
  buffer_free(&bytes);
  buffer_free(&again);
  return copy;
}

START_TEST(test_random_edits) {
  static struct edit edit;
  static struct plain plain;
  for (uint64_t seed = 1; seed <= 3; seed++) {
    uint64_t state = seed;
    size_t named = 0;
    struct row_tags *tags = NULL;
    plain.count = 0;
    for (int i = 0; i < 60; i++) {
      const size_t before = plain.count;
      struct row_tags *edited;
      random_edit(&edit, &plain, &state, &named);
      ck_assert(row_tags_edit(&edited, tags, before, &edit.tags));
      id_list_free((struct id_list *)(uintptr_t)edit.tags.added_ids);
      row_tags_free(tags);
      tags = edited;
      check_tags(tags, &plain);
      check_find(tags, &plain, &state, 2);
      check_find(tags, &plain, &state, 40);
      check_expired(tags, &plain, (int64_t)(next_random(&state) % 1000));
      if (!tags || i % 9) continue;
      struct row_tags *copy = copy_of(tags);
      check_tags(copy, &plain);
      check_find(copy, &plain, &state, 40);
      row_tags_free(tags);
      tags = copy;
    }
    row_tags_free(tags);
  }
}
END_TEST

/* ---- Cost ---- */

static struct row_tags *numbered(size_t rows) {
  struct id_list *ids = id_list_create();
  struct row_tags *tags;
  for (size_t i = 0; i < rows; i++) {
    char id[NAME];
    const int length = snprintf(id, sizeof id, "row-%zu", i);
    ck_assert(id_list_append(ids, id, (size_t)length));
  }
  ck_assert(
      row_tags_edit(&tags, NULL, 0, &(struct tags_edit){.added_count = rows, .added_ids = ids}));
  id_list_free(ids);
  return tags;
}

static size_t shared_runs(const struct row_tags *a, const struct row_tags *b) {
  size_t shared = 0;
  for (size_t i = 0; i < row_tags_run_count(a); i++)
    for (size_t k = 0; k < row_tags_run_count(b); k++)
      shared += row_tags_run(a, i) == row_tags_run(b, k);
  return shared;
}

START_TEST(test_untouched_runs_are_shared) {
  struct row_tags *tags = numbered(100000), *edited;
  const size_t runs = row_tags_run_count(tags), row = 50000;
  ck_assert_uint_le(runs, 100);
  const struct tags_edit edits[] = {{.removed = &row, .removed_count = 1},
                                    {.replaced = &row, .replaced_count = 1},
                                    {.added_count = 1}};
  for (size_t i = 0; i < 3; i++) {
    ck_assert(row_tags_edit(&edited, tags, 100000, &edits[i]));
    ck_assert_uint_ge(shared_runs(tags, edited), runs - 1);
    row_tags_free(edited);
  }
  row_tags_free(tags);
}
END_TEST

/* Rows appended one by one fill runs; of runs of which little is left few are. */
START_TEST(test_runs_stay_few) {
  struct row_tags *tags = NULL, *edited;
  for (size_t rows = 0; rows < 5000; rows++) {
    struct id_list *ids = id_list_create();
    char id[NAME];
    const int length = snprintf(id, sizeof id, "row-%zu", rows);
    ck_assert(id_list_append(ids, id, (size_t)length));
    ck_assert(row_tags_edit(&edited, tags, rows,
                            &(struct tags_edit){.added_count = 1, .added_ids = ids}));
    id_list_free(ids);
    row_tags_free(tags);
    tags = edited;
  }
  ck_assert_uint_eq(row_tags_run_count(tags), 5);
  row_tags_free(tags);

  /* from the first run to the last, each down to one row */
  enum { ROWS = 60 * 1024 };
  tags = numbered(ROWS);
  size_t rows = ROWS;
  size_t removed[1023];
  for (size_t left = 1; left <= 60; left++) {
    for (size_t i = 0; i < 1023; i++)
      removed[i] = left + i;
    ck_assert(row_tags_edit(&edited, tags, rows,
                            &(struct tags_edit){.removed = removed, .removed_count = 1023}));
    row_tags_free(tags);
    tags = edited;
    rows -= 1023;
  }
  ck_assert_uint_eq(row_tags_rows(tags), 60);
  ck_assert_uint_le(row_tags_run_count(tags), 2);
  for (size_t i = 0; i < 60; i++) {
    char id[NAME];
    size_t length;
    snprintf(id, sizeof id, "row-%zu", 1024 * i);
    ck_assert_str_eq(row_tags_id(tags, i, &length), id);
  }
  row_tags_free(tags);
}
END_TEST

START_TEST(test_bytes_grow_with_rows) {
  struct row_tags *few = numbered(1000), *many = numbered(10000);
  ck_assert_uint_eq(row_tags_bytes(NULL), 0);
  ck_assert_uint_gt(row_tags_bytes(few), 1000 * (4 + 4 + 8));
  ck_assert_uint_gt(row_tags_bytes(many), 9 * row_tags_bytes(few));
  ck_assert_uint_lt(row_tags_bytes(many), 10000 * 40);
  row_tags_free(few);
  row_tags_free(many);
}
END_TEST

START_TEST(test_what_is_no_run) {
  static const struct {
    size_t size;
    const char *bytes;
  } cases[] = {
      {0, ""},
      {7, "\1\0\0\0\0\0\0"},
      {8, "\0\0\0\0\0\0\0\0"},                     /* no rows */
      {8, "\1\0\0\0\0\0\0\0"},                     /* less than is announced */
      {9, "\1\0\0\0\0\0\0\0\4"},                   /* a flag there isn't */
      {10, "\1\0\0\0\0\0\0\0\0\0"},                /* more than is announced */
      {17, "\1\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0\0"},  /* an id of no bytes */
      {18, "\1\0\0\0\0\0\0\0\1\2\0\0\0\0\0\0\0a"}, /* an id that ends early */
      {9, "\xff\xff\xff\xff\xff\xff\xff\xff\0"},   /* more rows than there can be */
      {17, "\1\0\0\0\0\0\0\0\1\xff\xff\xff\xff\xff\xff\xff\xff"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct row_tags *tags = row_tags_create();
    ck_assert_int_eq(row_tags_decode_run(tags, cases[i].bytes, cases[i].size), NOT_A_RUN);
    ck_assert_uint_eq(row_tags_rows(tags), 0);
    row_tags_free(tags);
  }
}
END_TEST

UNIT_MAIN("row_tags", test_random_edits, test_untouched_runs_are_shared, test_runs_stay_few,
          test_bytes_grow_with_rows, test_what_is_no_run)
