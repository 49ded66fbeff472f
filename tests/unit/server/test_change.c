/* Changes, receipts and bases: as bytes and back, applied against a model, and
 * replayed on what was read back, in whatever groups the writer had made. */
#include "base/bytes.h"
#include "engine/kept.h"

#include "store_model.h"

enum { KEY_DIM = 3, VALUE_DIM = 2, MOST = 3000 };

/* ---- Bytes ---- */

START_TEST(test_bytes) {
  struct buffer out;
  const float floats[] = {1, -0.0f, 3.5f};
  buffer_init(&out, 0);
  bytes_put_u8(&out, 200);
  bytes_put_u64(&out, 0x0102030405060708);
  bytes_put_i64(&out, INT64_MIN);
  bytes_put_double(&out, -0.5);
  bytes_put_floats(&out, floats, 3);
  bytes_put_text(&out, "ab", 2);
  bytes_put_text(&out, "", 0);
  static const unsigned char expected[] = {200, 8, 7, 6, 5, 4, 3, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0x80};
  ck_assert_mem_eq(out.data, expected, sizeof expected);
  ck_assert_uint_eq(out.length, 1 + 8 + 8 + 8 + 12 + 10 + 8);
  ck_assert_mem_eq(out.data + 25, "\0\0\x80\x3f\0\0\0\x80", 8);

  for (size_t size = 0; size <= out.length; size++) {
    struct byte_reader reader = bytes_reader(out.data, size);
    float read[3] = {0};
    size_t length = 0;
    const uint8_t byte = bytes_get_u8(&reader);
    const uint64_t word = bytes_get_u64(&reader);
    const int64_t number = bytes_get_i64(&reader);
    const double real = bytes_get_double(&reader);
    bytes_get_floats(&reader, read, 3);
    const char *text = bytes_get_text(&reader, &length);
    size_t none;
    const char *empty = bytes_get_text(&reader, &none);
    ck_assert_int_eq(bytes_ended(&reader), size == out.length);
    ck_assert_int_eq(reader.failed, size < out.length);
    if (size < out.length) continue;
    ck_assert_uint_eq(byte, 200);
    ck_assert_uint_eq(word, 0x0102030405060708);
    ck_assert_int_eq(number, INT64_MIN);
    ck_assert_double_eq(real, -0.5);
    ck_assert_mem_eq(read, floats, sizeof floats);
    ck_assert_uint_eq(length, 2);
    ck_assert_mem_eq(text, "ab", 2);
    ck_assert_ptr_nonnull(empty);
    ck_assert_uint_eq(none, 0);
  }
  struct byte_reader reader = bytes_reader("\3\0\0\0\0\0\0\0abc", 11);
  ck_assert_uint_eq(bytes_get_count(&reader, 2), 0);
  ck_assert(reader.failed);
  reader = bytes_reader("\3\0\0\0\0\0\0\0abc", 11);
  ck_assert_uint_eq(bytes_get_count(&reader, 1), 3);
  buffer_free(&out);
}
END_TEST

/* ---- Making changes ---- */

static float random_float(uint64_t *state) {
  return (float)(int32_t)next_random(state) / 65536;
}

static float *random_floats(uint64_t *state, size_t count) {
  float *numbers = malloc((count + 1) * sizeof *numbers);
  for (size_t i = 0; i < count; i++)
    numbers[i] = random_float(state);
  return numbers;
}

static int64_t *random_times(uint64_t *state, size_t count) {
  int64_t *times = malloc((count + 1) * sizeof *times);
  for (size_t i = 0; i < count; i++)
    times[i] = next_random(state) % 3 ? (int64_t)(next_random(state) % 100000) : NEVER_EXPIRES;
  return times;
}

static struct id_list *new_ids(size_t count, size_t *named) {
  struct id_list *ids = id_list_create();
  for (size_t i = 0; i < count; i++) {
    char id[24];
    const int length = snprintf(id, sizeof id, "id-%zu", ++*named);
    ck_assert(id_list_append(ids, id, (size_t)length));
  }
  return ids;
}

static void random_settings(struct change *change, uint64_t *state) {
  static const struct {
    const char *score, *norm;
  } names[] = {{"dot", "softmax"},      {"scaled_dot", "sum"},     {"bilinear", "hardmax"},
               {"additive", "softmax"}, {"gaussian", "sparsemax"}, {"inverse_distance", "none"}};
  const size_t at = next_random(state) % 6;
  float *w = random_floats(state, 4 * KEY_DIM), *v = random_floats(state, 4);
  const attn_argument bilinear[] = {{.name = "w", .rows = 2, .cols = KEY_DIM, .data = w}};
  const attn_argument additive[] = {{.name = "w_q", .rows = 4, .cols = 2, .data = w},
                                    {.name = "w_k", .rows = 4, .cols = KEY_DIM, .data = w},
                                    {.name = "v", .rows = 4, .cols = 1, .data = v}};
  const attn_argument temperature[] = {{.name = "temperature", .number = 0.25},
                                       {.name = "top_k", .number = 7}};
  const attn_argument *arguments = at == 2 ? bilinear : at == 3 ? additive : NULL;
  const size_t count = at == 2 ? 1 : at == 3 ? 3 : 0;
  attn_fault fault;
  ck_assert_msg(attn_score_create(&change->score, names[at].score, arguments, count, &fault) ==
                    ATTN_OK,
                "%s", names[at].score);
  const size_t norm_count = strcmp(names[at].norm, "softmax") == 0 ? next_random(state) % 3 : 0;
  ck_assert_int_eq(attn_normalization_create(&change->normalization, names[at].norm, temperature,
                                             norm_count, NULL),
                   ATTN_OK);
  change->settles = true;
  change->ttl_ms = (int64_t)(next_random(state) % 5000);
  free(w);
  free(v);
}

/* One whose pointers change_clear() frees. */
static struct change random_change(size_t rows, uint64_t *state, size_t *named) {
  struct change change = {.settles = false};
  attn_edit *edit = &change.rows;
  const uint64_t kind = next_random(state) % 8;
  if (kind == 0) {
    random_settings(&change, state);
    return change;
  }
  size_t *removed = malloc((rows + 1) * sizeof *removed);
  size_t *replaced = malloc((rows + 1) * sizeof *replaced);
  const uint64_t odds = next_random(state) % 2 ? 400 : 6;
  for (size_t i = 0; i < rows && kind <= 4; i++) {
    const uint64_t choice = next_random(state) % odds;
    if (choice == 0 && kind <= 3) removed[edit->removed_count++] = i;
    if (choice == 1 && kind >= 2) replaced[edit->replaced_count++] = i;
  }
  edit->removed = removed;
  edit->replaced = replaced;
  if (kind >= 3 && rows < MOST) edit->added_count = next_random(state) % 200;
  edit->replaced_keys = random_floats(state, edit->replaced_count * KEY_DIM);
  edit->replaced_values = random_floats(state, edit->replaced_count * VALUE_DIM);
  edit->added_keys = random_floats(state, edit->added_count * KEY_DIM);
  edit->added_values = random_floats(state, edit->added_count * VALUE_DIM);
  if (edit->added_count > 0 && next_random(state) % 4)
    change.added_ids = new_ids(edit->added_count, named);
  if (next_random(state) % 2) change.added_expiries = random_times(state, edit->added_count);
  if (next_random(state) % 2) change.replaced_expiries = random_times(state, edit->replaced_count);
  if (edit->added_count == 0) {
    free((void *)(uintptr_t)change.added_expiries);
    change.added_expiries = NULL;
  }
  if (next_random(state) % 3 == 0)
    change.receipt = (struct append_receipt){.key = strdup("a key"),
                                             .fingerprint = next_random(state),
                                             .version = 7,
                                             .rows = 8,
                                             .inserted = 9,
                                             .updated = 10};
  return change;
}

static struct memory *empty_memory(void) {
  struct memory parts = {.name = "m", .version = 1};
  ck_assert_int_eq(attn_score_create(&parts.score, "dot", NULL, 0, NULL), ATTN_OK);
  ck_assert_int_eq(attn_normalization_create(&parts.normalization, "softmax", NULL, 0, NULL),
                   ATTN_OK);
  ck_assert_int_eq(attn_snapshot_create(&parts.snapshot, KEY_DIM, VALUE_DIM), ATTN_OK);
  struct memory *memory = memory_create(&parts);
  attn_snapshot_free(parts.snapshot);
  attn_score_free(parts.score);
  attn_normalization_free(parts.normalization);
  return memory;
}

/* ---- A memory as text, which two that are the same have in common ---- */

static void describe(const struct memory *memory, struct buffer *out) {
  const attn_snapshot *snapshot = memory->snapshot;
  buffer_clear(out);
  for (size_t i = 0; i < attn_snapshot_block_count(snapshot); i++) {
    const attn_block *block = attn_snapshot_block(snapshot, i);
    const size_t size = attn_block_encoded_size(snapshot, block);
    bytes_put_u64(out, size);
    char *room = buffer_reserve(out, size);
    attn_block_encode(snapshot, block, room);
    buffer_advance(out, size);
  }
  for (size_t row = 0; row < attn_snapshot_rows(snapshot); row++) {
    size_t length = 0;
    const char *id = row_tags_id(memory->tags, row, &length);
    bytes_put_text(out, id ? id : "", length);
    bytes_put_i64(out, row_tags_expiry(memory->tags, row));
  }
  settings_encode(memory->score, memory->normalization, memory->ttl_ms, KEY_DIM, out);
  ck_assert_int_eq(out->status, BUFFER_OK);
}

static void check_same(const struct memory *a, const struct memory *b) {
  struct buffer one, other;
  buffer_init(&one, 0);
  buffer_init(&other, 0);
  describe(a, &one);
  describe(b, &other);
  ck_assert_uint_eq(one.length, other.length);
  ck_assert_mem_eq(one.data, other.data, one.length);
  buffer_free(&one);
  buffer_free(&other);
}

static void encode(const struct change *change, struct buffer *out) {
  buffer_clear(out);
  change_encode(change, KEY_DIM, VALUE_DIM, out);
  ck_assert_int_eq(out->status, BUFFER_OK);
}

static struct memory *applied(struct memory *before, const struct change *change) {
  struct memory *after;
  ck_assert_int_eq(change_apply(&after, before, change, before->version + 1), ATTN_OK);
  memory_free(before);
  return after;
}

/* ---- Replay ---- */

/* The one memory gets the changes as they are made; the other what was read from
 * their bytes, and is now and then put together anew from its own blocks. */
static struct memory *reassembled(struct memory *memory) {
  struct memory parts = *memory;
  const size_t count = attn_snapshot_block_count(memory->snapshot);
  attn_block **blocks = calloc(count + 1, sizeof *blocks);
  for (size_t i = 0; i < count; i++) {
    attn_block *block = attn_snapshot_block(memory->snapshot, i);
    const size_t size = attn_block_encoded_size(memory->snapshot, block);
    void *bytes = malloc(size);
    attn_block_encode(memory->snapshot, block, bytes);
    ck_assert_int_eq(attn_block_decode(&blocks[i], memory->snapshot, bytes, size), ATTN_OK);
    free(bytes);
  }
  ck_assert_int_eq(attn_snapshot_assemble(&parts.snapshot, memory->snapshot, blocks, count),
                   ATTN_OK);
  for (size_t i = 0; i < count; i++)
    attn_block_free(blocks[i]);
  free(blocks);
  struct memory *made = memory_create(&parts);
  attn_snapshot_free(parts.snapshot);
  memory_free(memory);
  return made;
}

START_TEST(test_replay) {
  struct buffer bytes, again;
  buffer_init(&bytes, 0);
  buffer_init(&again, 0);
  for (uint64_t seed = 1; seed <= 5; seed++) {
    uint64_t state = seed;
    size_t named = 0;
    struct memory *live = empty_memory(), *replayed = empty_memory();
    for (int i = 0; i < 120; i++) {
      struct change read;
      struct change change = random_change(attn_snapshot_rows(live->snapshot), &state, &named);
      encode(&change, &bytes);
      ck_assert_int_eq(change_decode(&read, KEY_DIM, VALUE_DIM, bytes.data, bytes.length), ATTN_OK);
      encode(&read, &again);
      ck_assert_uint_eq(bytes.length, again.length);
      ck_assert_mem_eq(bytes.data, again.data, bytes.length);
      live = applied(live, &change);
      replayed = applied(replayed, &read);
      check_same(live, replayed);
      change_clear(&change);
      change_clear(&read);
      if (i % 11 == 0) replayed = reassembled(replayed);
    }
    memory_free(live);
    memory_free(replayed);
  }
  buffer_free(&bytes);
  buffer_free(&again);
}
END_TEST

/* Every beginning of a change, and every change with one byte more, is refused. */
START_TEST(test_cut_changes) {
  struct buffer bytes;
  uint64_t state = 4;
  size_t named = 0;
  buffer_init(&bytes, 0);
  for (int i = 0; i < 30; i++) {
    struct change read, change = random_change(20, &state, &named);
    encode(&change, &bytes);
    buffer_putc(&bytes, '\0');
    for (size_t size = 0; size <= bytes.length; size++) {
      if (size == bytes.length - 1) continue;
      char *copy = malloc(size + 1);
      memcpy(copy, bytes.data, size);
      ck_assert_int_eq(change_decode(&read, KEY_DIM, VALUE_DIM, copy, size), ATTN_BAD_ARGUMENT);
      free(copy);
    }
    change_clear(&change);
  }
  buffer_free(&bytes);
}
END_TEST

/* Appends one by one, or in groups: the same blocks. */
START_TEST(test_grouped_appends) {
  uint64_t state = 8;
  enum { ROWS = 40000 };
  float *keys = random_floats(&state, ROWS * KEY_DIM),
        *values = random_floats(&state, ROWS * VALUE_DIM);
  struct memory *small = empty_memory(), *large = empty_memory();
  for (size_t at = 0; at < ROWS;) {
    size_t group = next_random(&state) % 3000 + 1;
    if (group > ROWS - at) group = ROWS - at;
    struct change change = {.rows = {.added_keys = keys + at * KEY_DIM,
                                     .added_values = values + at * VALUE_DIM,
                                     .added_count = group}};
    large = applied(large, &change);
    for (size_t done = 0; done < group;) {
      size_t part = next_random(&state) % 700 + 1;
      if (part > group - done) part = group - done;
      change.rows.added_keys = keys + (at + done) * KEY_DIM;
      change.rows.added_values = values + (at + done) * VALUE_DIM;
      change.rows.added_count = part;
      small = applied(small, &change);
      done += part;
    }
    at += group;
    check_same(small, large);
  }
  memory_free(small);
  memory_free(large);
  free(keys);
  free(values);
}
END_TEST

/* ---- Receipts ---- */

static void add(struct receipts *receipts, int number) {
  char key[16];
  snprintf(key, sizeof key, "key-%d", number);
  ck_assert(receipts_add(receipts, &(struct append_receipt){.key = key, .version = number}));
}

static int64_t found(const struct receipts *receipts, int number) {
  char key[16];
  snprintf(key, sizeof key, "key-%d", number);
  const struct append_receipt *receipt = receipts_find(receipts, key);
  return receipt ? receipt->version : -1;
}

START_TEST(test_receipts) {
  struct receipts receipts = {.count = 0};
  for (int i = 0; i < 10; i++)
    add(&receipts, i);
  ck_assert_int_eq(found(&receipts, 3), 3);
  ck_assert_int_eq(found(&receipts, 10), -1);

  /* a batch that fails leaves what there was, whatever it did */
  receipts_end(&receipts);
  ck_assert_int_eq(found(&receipts, 3), -1);
  add(&receipts, 20);
  ck_assert_int_eq(found(&receipts, 20), 20);
  receipts_restore(&receipts, 10);
  ck_assert_int_eq(found(&receipts, 3), 3);
  ck_assert_int_eq(found(&receipts, 20), -1);

  /* one that succeeds doesn't */
  receipts_end(&receipts);
  add(&receipts, 21);
  receipts_trim(&receipts);
  ck_assert_uint_eq(receipts.count, 1);
  ck_assert_int_eq(found(&receipts, 3), -1);
  ck_assert_int_eq(found(&receipts, 21), 21);

  for (int i = 100; i < 100 + RECEIPTS_KEPT; i++)
    add(&receipts, i);
  receipts_trim(&receipts);
  ck_assert_uint_eq(receipts.count, RECEIPTS_KEPT);
  ck_assert_int_eq(found(&receipts, 21), -1);
  ck_assert_int_eq(found(&receipts, 100), 100);
  receipts_clear(&receipts);
  ck_assert_uint_eq(receipts.count, 0);
}
END_TEST

/* ---- What is in the store ---- */

static void put_base(struct store *store, struct kept *kept, struct kept_place *place,
                     const struct memory *memory, const struct receipts *receipts) {
  bool complete;
  ck_assert_int_eq(store_begin(store), STORE_OK);
  ck_assert_int_eq(kept_store(kept, place, memory, SIZE_MAX, &complete), STORE_OK);
  ck_assert(complete);
  ck_assert_int_eq(kept_put_base(kept, place, memory, receipts), STORE_OK);
  ck_assert_int_eq(store_commit(store), STORE_OK);
  kept_settle(kept);
}

/* A base and the one after it, which shares what has not changed. */
START_TEST(test_bases) {
  char directory[200], error[300];
  make_scratch(directory, sizeof directory);
  struct store *store = store_open(directory, error, sizeof error);
  ck_assert_msg(store != NULL, "%s", error);
  uint64_t state = 2;
  size_t named = 0;
  enum { ROWS = 200000 };
  struct change fill = {.rows = {.added_keys = random_floats(&state, ROWS * KEY_DIM),
                                 .added_values = random_floats(&state, ROWS * VALUE_DIM),
                                 .added_count = ROWS},
                        .added_ids = new_ids(ROWS, &named)};
  struct memory *memory = applied(empty_memory(), &fill);
  struct receipts receipts = {.count = 0};
  add(&receipts, 1);
  add(&receipts, 9); /* of a version that is still to come */
  struct kept_place place = {.store = store, .id = store_new_id(store), .next_chunk = 1};
  struct kept *kept = kept_create(memory);
  ck_assert_uint_gt(kept_missing_bytes(kept, memory), ROWS * 20 - 1);
  put_base(store, kept, &place, memory, &receipts);
  ck_assert_uint_eq(kept_missing_bytes(kept, memory), 0);
  const int64_t first = place.next_chunk;

  const size_t row = 5;
  const struct change remove = {.rows = {.removed = &row, .removed_count = 1}};
  struct memory *after;
  ck_assert_int_eq(change_apply(&after, memory, &remove, 3), ATTN_OK);
  struct kept *followed = kept_follow(kept, after);
  ck_assert_uint_gt(kept_missing_bytes(followed, after), 0);
  ck_assert_uint_lt(kept_missing_bytes(followed, after), 3 << 20);
  put_base(store, followed, &place, after, &receipts);
  ck_assert_int_le(place.next_chunk, first + 6);

  struct buffer bytes;
  struct kept_base base;
  buffer_init(&bytes, 0);
  ck_assert_int_eq(store_read_base(store, place.id, &bytes), STORE_OK);
  ck_assert_int_eq(kept_base_decode(&base, bytes.data, bytes.length), ATTN_OK);
  ck_assert_uint_eq(attn_snapshot_key_dim(base.empty), KEY_DIM);
  ck_assert_uint_eq(base.blocks, attn_snapshot_block_count(after->snapshot));
  ck_assert_uint_eq(base.count - base.blocks, row_tags_run_count(after->tags));
  ck_assert(attn_score_equal(base.score, after->score));
  ck_assert_uint_eq(base.receipts.count, 1);
  kept_base_clear(&base);
  for (size_t size = 0; size < bytes.length; size += size < 300 ? 1 : 97)
    ck_assert_int_eq(kept_base_decode(&base, bytes.data, size), ATTN_BAD_ARGUMENT);
  buffer_free(&bytes);
  kept_free(kept);
  kept_free(followed);
  memory_free(memory);
  memory_free(after);
  receipts_clear(&receipts);
  change_clear(&fill);
  store_close(store);
  remove_scratch(directory);
}
END_TEST

UNIT_MAIN("change", test_bytes, test_replay, test_cut_changes, test_grouped_appends, test_receipts,
          test_bases)
