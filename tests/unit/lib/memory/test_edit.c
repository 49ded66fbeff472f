/* Edits: random sequences of them against plain arrays, for every dtype; what
 * becomes of the blocks; what is shared and what is given back. */
#include "table.h"

/* Shapes whose blocks take few rows, and two whose blocks take many: 32, 16, 16,
 * 512, 1024. */
static const struct {
  size_t dk, dv, steps;
} shapes[] = {{2100, 2000, 16}, {5, 8200, 20}, {8202, 2, 20}, {121, 142, 14}, {65, 100, 12}};

static size_t capacity_of(const attn_snapshot *snapshot) {
  const struct attn_block_shape of = attn_snapshot_shape(snapshot);
  return attn_block_capacity(&of);
}

/* ---- Random edits ---- */

/* An edit together with all it points to. */
typedef struct change {
  attn_edit edit;
  size_t *removed, *replaced;
  table replacing, added;
} change;

/* How likely a row is to be named; rows come in runs, or scattered. */
typedef struct mood {
  double remove, replace;
  size_t add;
  bool runs;
} mood;

static mood random_mood(rng *r, size_t capacity) {
  static const double chances[] = {0, 0, 0.02, 0.2, 0.6, 0.95};
  return (mood){chances[rng_between(r, 0, 5)], chances[rng_between(r, 0, 3)],
                rng_chance(r, 0.6) ? rng_between(r, 0, rng_chance(r, 0.5) ? 3 : capacity * 2) : 0,
                rng_chance(r, 0.5)};
}

static change change_random(rng *r, size_t rows, const attn_snapshot *like, const mood *m) {
  change c = {.removed = must_alloc(rows, sizeof(size_t)),
              .replaced = must_alloc(rows, sizeof(size_t))};
  double fate = rng_unit(r);
  for (size_t row = 0; row < rows; row++) {
    if (!m->runs || rng_chance(r, 0.1)) fate = rng_unit(r);
    if (fate < m->remove)
      c.removed[c.edit.removed_count++] = row;
    else if (fate < m->remove + m->replace)
      c.replaced[c.edit.replaced_count++] = row;
  }
  c.replacing = table_random(r, c.edit.replaced_count, like->key_dim, like->value_dim, like->dtype);
  c.added = table_random(r, m->add, like->key_dim, like->value_dim, like->dtype);
  c.edit.removed = c.removed;
  c.edit.replaced = c.replaced;
  c.edit.replaced_keys = c.replacing.keys;
  c.edit.replaced_values = c.replacing.values;
  c.edit.added_keys = c.added.keys;
  c.edit.added_values = c.added.values;
  c.edit.added_count = m->add;
  return c;
}

static void change_free(change *c) {
  free(c->removed);
  free(c->replaced);
  table_free(&c->replacing);
  table_free(&c->added);
}

/* ---- The same on arrays ---- */

static void take_row(table *to, const float *key, const float *value) {
  memcpy(to->keys + to->rows * to->dk, key, to->dk * sizeof *key);
  memcpy(to->values + to->rows * to->dv, value, to->dv * sizeof *value);
  to->rows++;
}

/* What becomes of each row: REMOVED, KEPT, or the number of the one in its place. */
enum { REMOVED = -1, KEPT = -2 };

static long *fates_of(const attn_edit *edit, size_t rows) {
  long *fates = must_alloc(rows, sizeof *fates);
  for (size_t row = 0; row < rows; row++)
    fates[row] = KEPT;
  for (size_t i = 0; i < edit->removed_count; i++)
    fates[edit->removed[i]] = REMOVED;
  for (size_t i = 0; i < edit->replaced_count; i++)
    fates[edit->replaced[i]] = (long)i;
  return fates;
}

static table table_edited(const table *base, const attn_edit *edit) {
  const size_t rows = base->rows - edit->removed_count + edit->added_count;
  const size_t dk = base->dk, dv = base->dv;
  table made = {0, dk, dv, floats_new(rows * dk), floats_new(rows * dv)};
  long *fates = fates_of(edit, base->rows);
  for (size_t row = 0; row < base->rows; row++) {
    const size_t from = fates[row] >= 0 ? (size_t)fates[row] : row;
    if (fates[row] == KEPT) take_row(&made, base->keys + from * dk, base->values + from * dv);
    if (fates[row] >= 0)
      take_row(&made, edit->replaced_keys + from * dk, edit->replaced_values + from * dv);
  }
  for (size_t i = 0; i < edit->added_count; i++)
    take_row(&made, edit->added_keys + i * dk, edit->added_values + i * dv);
  ck_assert_uint_eq(made.rows, rows);
  free(fates);
  return made;
}

static table table_copy(const table *t) {
  const attn_edit nothing = {0};
  return table_edited(t, &nothing);
}

/* ---- What holds after every edit ---- */

static bool names_row_within(const size_t *numbers, size_t count, size_t first, size_t end) {
  for (size_t i = 0; i < count; i++)
    if (numbers[i] >= first && numbers[i] < end) return true;
  return false;
}

static bool has_block(const attn_snapshot *snapshot, const attn_block *block) {
  for (size_t b = 0; b < attn_snapshot_block_count(snapshot); b++)
    if (attn_snapshot_block(snapshot, b) == block) return true;
  return false;
}

/* A block without a named row is shared, unless it is so small that it could be
 * joined with another, or has room for added rows. */
static void check_sharing(const attn_snapshot *base, const attn_snapshot *made,
                          const attn_edit *edit) {
  const size_t capacity = capacity_of(base);
  size_t first = 0;
  for (size_t b = 0; b < attn_snapshot_block_count(base); b++) {
    const attn_block *block = attn_snapshot_block(base, b);
    const size_t rows = attn_block_rows(block), end = first + rows;
    const bool named = names_row_within(edit->removed, edit->removed_count, first, end) ||
                       names_row_within(edit->replaced, edit->replaced_count, first, end);
    const bool small = edit->removed_count > 0 && rows <= capacity / 2;
    const bool grows = edit->added_count > 0 && rows < capacity;
    if (!named && !small && !grows)
      ck_assert_msg(has_block(made, block), "block %zu was copied", b);
    if (named) ck_assert_msg(!has_block(made, block), "block %zu was changed", b);
    first = end;
  }
}

/* No dust, and no more RAM than rows need: blocks are padded to panels. */
static void check_thrift(const attn_snapshot *snapshot) {
  const size_t capacity = capacity_of(snapshot), blocks = attn_snapshot_block_count(snapshot);
  const size_t number = attn_dtype_info_at(snapshot->dtype)->bytes;
  const size_t row_bytes = (snapshot->key_dim + snapshot->value_dim) * number + 16;
  size_t before = capacity;
  for (size_t b = 0; b < blocks; b++) {
    const size_t rows = attn_block_rows(attn_snapshot_block(snapshot, b));
    ck_assert(rows >= 1 && rows <= capacity);
    ck_assert_msg(before + rows > capacity / 2, "blocks of %zu and %zu rows", before, rows);
    before = rows;
  }
  const size_t padding = 15 * (snapshot->key_dim * number + 16) + 16 * number + 1024;
  ck_assert_uint_le(attn_snapshot_bytes(snapshot),
                    attn_snapshot_rows(snapshot) * row_bytes + blocks * padding + 1024);
}

/* ---- The suites ---- */

/* A twin with other numbers goes through the same edits: its blocks become the
 * same, because they depend on row numbers alone. */
static void run_sequence(uint64_t index, size_t of, attn_dtype dtype) {
  rng r = rng_for_case(index);
  const size_t dk = shapes[of].dk, dv = shapes[of].dv;
  attn_snapshot *memory = empty_memory(dk, dv, dtype), *twin = empty_memory(dk, dv, dtype);
  table expected = table_empty(dk, dv), old_rows = table_empty(dk, dv);
  attn_snapshot *old = attn_snapshot_ref(memory);
  for (size_t step = 0; step < shapes[of].steps; step++) {
    mood m = random_mood(&r, capacity_of(memory));
    if (step < 2) m = (mood){.add = capacity_of(memory) * 3 + 5};
    change c = change_random(&r, expected.rows, memory, &m);
    attn_snapshot *made = NULL;
    CHECK_STATUS(ATTN_OK, attn_snapshot_edit(&made, memory, &c.edit));
    table next = table_edited(&expected, &c.edit);
    check_rows(memory, &expected);
    check_rows(made, &next);
    check_stats(made, &next);
    check_sharing(memory, made, &c.edit);
    check_thrift(made);

    table other = table_random(&r, c.edit.replaced_count + c.edit.added_count, dk, dv, dtype);
    attn_edit same = c.edit;
    same.replaced_keys = other.keys;
    same.replaced_values = other.values;
    same.added_keys = other.keys + same.replaced_count * dk;
    same.added_values = other.values + same.replaced_count * dv;
    twin = edited(twin, &same);
    ck_assert(same_layout(made, twin));
    if (step % 4 == 3) check_answers(index * 100 + step, made, &next);

    attn_snapshot_free(memory);
    table_free(&expected);
    memory = made;
    expected = next;
    if (step == 4) {
      attn_snapshot_free(old);
      table_free(&old_rows);
      old = attn_snapshot_ref(memory);
      old_rows = table_copy(&expected);
    }
    table_free(&other);
    change_free(&c);
  }
  check_rows(old, &old_rows);
  check_stats(old, &old_rows);
  check_answers(index, old, &old_rows);
  attn_snapshot_free(old);
  attn_snapshot_free(memory);
  attn_snapshot_free(twin);
  table_free(&old_rows);
  table_free(&expected);
}

START_TEST(test_random_edits) {
  for (size_t of = 0; of < COUNT(shapes); of++)
    for (size_t round = 0; round < test_rounds(1); round++)
      run_sequence((uint64_t)_i * 1000 + of * 100 + round, of, (attn_dtype)_i);
}
END_TEST

/* ---- What becomes of blocks, by the rules ----
 * Blocks of at most 32 rows; 0 ends a list. */
static const struct {
  size_t rows[5], removed[5]; /* of each block: the last ones of it */
  size_t added;
  size_t expected[5];
} layouts[] = {
    {{10}, {0}, 30, {32, 8}},
    {{32, 10}, {0, 10}, 0, {32}},
    {{32, 10}, {0, 10}, 3, {32, 3}},
    {{32, 32}, {32, 32}, 0, {0}},
    {{32, 32}, {32, 32}, 33, {32, 1}},
    {{5, 32, 20}, {5, 0, 0}, 0, {32, 20}},
    {{8, 32, 8}, {0, 32, 0}, 0, {16}},            /* what was between them is gone */
    {{8, 32, 9}, {0, 32, 0}, 0, {8, 9}},          /* more than half a block together */
    {{8, 30, 10}, {0, 24, 0}, 0, {14, 10}},       /* with the one before */
    {{12, 30, 10}, {0, 24, 0}, 0, {12, 16}},      /* with the one behind */
    {{4, 30, 6, 20}, {0, 24, 0, 0}, 0, {16, 20}}, /* with both */
    {{10, 20, 20, 10}, {0, 20, 19, 0}, 0, {11, 10}},
    {{20, 12}, {4, 0}, 0, {16, 12}},
    {{20, 12}, {16, 0}, 20, {32, 4}},
    {{8, 8, 32, 20}, {0, 0, 0, 1}, 0, {8, 8, 32, 19}}, /* only where rows were removed */
    {{8, 8, 32, 20}, {0, 0, 0, 0}, 44, {8, 8, 32, 32, 32}},
    {{8, 8, 32, 20}, {0, 1, 0, 0}, 0, {15, 32, 20}},
};

/* A snapshot of blocks of these lengths; the rows are the table's. */
static attn_snapshot *memory_of_blocks(const table *t, const size_t rows[5]) {
  attn_snapshot *empty = empty_memory(t->dk, t->dv, ATTN_F32), *parts[5] = {NULL}, *made = NULL;
  attn_block *blocks[5];
  size_t count = 0, first = 0;
  for (; count < 5 && rows[count] > 0; first += rows[count++]) {
    CHECK_STATUS(ATTN_OK, attn_snapshot_append(&parts[count], empty, t->keys + first * t->dk,
                                               t->values + first * t->dv, rows[count]));
    blocks[count] = attn_snapshot_block(parts[count], 0);
  }
  CHECK_STATUS(ATTN_OK, attn_snapshot_assemble(&made, empty, blocks, count));
  for (size_t i = 0; i < count; i++)
    attn_snapshot_free(parts[i]);
  attn_snapshot_free(empty);
  return made;
}

START_TEST(test_layouts) {
  rng r = rng_for_case(4000);
  table t = table_random(&r, 160, 2100, 2000, ATTN_F32);
  for (size_t i = 0; i < COUNT(layouts); i++) {
    attn_snapshot *memory = memory_of_blocks(&t, layouts[i].rows);
    ck_assert_uint_eq(capacity_of(memory), 32);
    table before = {attn_snapshot_rows(memory), t.dk, t.dv, t.keys, t.values};
    size_t removed[160], count = 0, end = 0;
    for (size_t b = 0; b < 5; b++) {
      end += layouts[i].rows[b];
      for (size_t row = end - layouts[i].removed[b]; row < end; row++)
        removed[count++] = row;
    }
    const attn_edit edit = {.removed = removed,
                            .removed_count = count,
                            .added_keys = t.keys,
                            .added_values = t.values,
                            .added_count = layouts[i].added};
    table after = table_edited(&before, &edit);
    memory = edited(memory, &edit);
    check_rows(memory, &after);
    check_stats(memory, &after);
    for (size_t b = 0; b < 5 && layouts[i].expected[b] > 0; b++)
      ck_assert_msg(b < attn_snapshot_block_count(memory) &&
                        attn_block_rows(attn_snapshot_block(memory, b)) == layouts[i].expected[b],
                    "layout %zu, block %zu", i, b);
    attn_snapshot_free(memory);
    table_free(&after);
  }
  table_free(&t);
}
END_TEST

/* Added in any pieces, rows come to lie in the same blocks, also behind blocks
 * that lost rows, and answers are the same to the bit. */
START_TEST(test_pieces_lie_like_the_whole) {
  const attn_dtype dtype = (attn_dtype)_i;
  for (size_t of = 0; of < COUNT(shapes); of++) {
    rng r = rng_for_case(5000 + of);
    const size_t dk = shapes[of].dk, dv = shapes[of].dv;
    attn_snapshot *empty = empty_memory(dk, dv, dtype);
    const size_t capacity = capacity_of(empty);
    table start = table_random(&r, capacity * 2 + 3, dk, dv, dtype);
    table more = table_random(&r, capacity * 2 + 7, dk, dv, dtype);
    change c = change_random(&r, start.rows, empty, &(mood){.remove = 0.6, .runs = true});
    attn_snapshot *base = edited(memory_of(&start, dtype), &c.edit), *whole = NULL;
    CHECK_STATUS(ATTN_OK, attn_snapshot_append(&whole, base, more.keys, more.values, more.rows));
    attn_snapshot *pieces = attn_snapshot_ref(base);
    for (size_t done = 0, count; done < more.rows; done += count) {
      count = rng_between(&r, 0, rng_chance(&r, 0.7) ? 20 : capacity);
      count = count < more.rows - done ? count : more.rows - done;
      pieces = edited(pieces, &(attn_edit){.added_keys = more.keys + done * dk,
                                           .added_values = more.values + done * dv,
                                           .added_count = count});
    }
    ck_assert(same_layout(pieces, whole));
    check_same_answers(5000 + of, pieces, whole);
    attn_snapshot_free(empty);
    attn_snapshot_free(base);
    attn_snapshot_free(whole);
    attn_snapshot_free(pieces);
    table_free(&start);
    table_free(&more);
    change_free(&c);
  }
}
END_TEST

/* One row of a large memory: what is not in its block is shared. */
START_TEST(test_one_row_of_many) {
  enum { ROWS = 100000, DIM = 32 };
  rng r = rng_for_case(6000);
  table t = table_random(&r, ROWS, DIM, DIM, ATTN_F32);
  attn_snapshot *base = memory_of(&t, ATTN_F32), *made = NULL;
  const size_t blocks = attn_snapshot_block_count(base), capacity = capacity_of(base);
  const float row[DIM] = {1, 2, 3};
  const size_t number = 3 * capacity + 5;
  const attn_edit edits[] = {
      {.added_keys = row, .added_values = row, .added_count = 1},
      {.replaced = &number, .replaced_count = 1, .replaced_keys = row, .replaced_values = row},
      {.removed = &number, .removed_count = 1}};
  const size_t changed[] = {blocks - 1, 3, 3};
  for (size_t e = 0; e < COUNT(edits); e++) {
    CHECK_STATUS(ATTN_OK, attn_snapshot_edit(&made, base, &edits[e]));
    ck_assert_uint_eq(attn_snapshot_block_count(made), blocks);
    for (size_t b = 0; b < blocks; b++)
      ck_assert_msg((attn_snapshot_block(made, b) == attn_snapshot_block(base, b)) ==
                        (b != changed[e]),
                    "edit %zu, block %zu", e, b);
    ck_assert_ptr_null(attn_snapshot_block(made, blocks));
    ck_assert(e == 2 || same_layout(made, base) || e == 0);
    attn_snapshot_free(made);
  }
  /* Nothing at all: a snapshot of the same blocks. */
  CHECK_STATUS(ATTN_OK, attn_snapshot_edit(&made, base, &(attn_edit){0}));
  for (size_t b = 0; b < blocks; b++)
    ck_assert_ptr_eq(attn_snapshot_block(made, b), attn_snapshot_block(base, b));
  attn_snapshot_free(made);
  check_rows(base, &t);
  attn_snapshot_free(base);
  table_free(&t);
}
END_TEST

/* All but a few rows go, one after the other and at once: so does their RAM. */
START_TEST(test_ram_is_given_back) {
  enum { ROWS = 3000, DIM = 128, LEFT = 10 };
  rng r = rng_for_case(7000);
  table t = table_random(&r, ROWS, DIM, DIM, (attn_dtype)_i);
  attn_snapshot *memory = memory_of(&t, (attn_dtype)_i);
  const size_t bytes = attn_snapshot_bytes(memory);
  ck_assert_uint_eq(bytes, attn_snapshot_bytes_of(memory, ROWS));
  for (size_t rows = ROWS; rows > LEFT; rows--) {
    const size_t row = rng_between(&r, 0, rows - 1);
    memory = edited(memory, &(attn_edit){.removed = &row, .removed_count = 1});
    if (rows % 100 == 0) check_thrift(memory);
  }
  check_thrift(memory);
  ck_assert_uint_eq(attn_snapshot_block_count(memory), 1);
  ck_assert_uint_le(attn_snapshot_bytes(memory), bytes / 50);
  size_t all[LEFT];
  for (size_t i = 0; i < LEFT; i++)
    all[i] = i;
  memory = edited(memory, &(attn_edit){.removed = all, .removed_count = LEFT});
  ck_assert_uint_eq(attn_snapshot_rows(memory), 0);
  ck_assert_uint_eq(attn_snapshot_block_count(memory), 0);
  ck_assert_uint_eq(attn_snapshot_bytes(memory), attn_snapshot_bytes_of(memory, 0));
  table none = table_empty(DIM, DIM);
  check_stats(memory, &none);
  memory = edited(
      memory, &(attn_edit){.added_keys = t.keys, .added_values = t.values, .added_count = ROWS});
  check_rows(memory, &t);
  attn_snapshot_free(memory);
  table_free(&t);
  table_free(&none);
}
END_TEST

START_TEST(test_arguments) {
  const float rows[8] = {1, 2, 3, 4, 5, 6, 7, 8};
  attn_snapshot *empty = empty_memory(2, 2, ATTN_F32), *base = NULL, *out = NULL;
  CHECK_STATUS(ATTN_OK, attn_snapshot_append(&base, empty, rows, rows, 4));
  const size_t descending[] = {2, 1}, twice[] = {1, 1}, beyond[] = {1, 4}, one[] = {1},
               last[] = {0, 3}, three[] = {0, 1, 2}, huge[] = {SIZE_MAX};
  const attn_edit wrong[] = {
      {.removed = descending, .removed_count = 2},
      {.removed = twice, .removed_count = 2},
      {.removed = beyond, .removed_count = 2},
      {.removed = huge, .removed_count = 1},
      {.removed = NULL, .removed_count = 1},
      {.replaced = descending, .replaced_count = 2, .replaced_keys = rows, .replaced_values = rows},
      {.replaced = twice, .replaced_count = 2, .replaced_keys = rows, .replaced_values = rows},
      {.replaced = beyond, .replaced_count = 2, .replaced_keys = rows, .replaced_values = rows},
      {.replaced = NULL, .replaced_count = 1, .replaced_keys = rows, .replaced_values = rows},
      {.replaced = one, .replaced_count = 1, .replaced_keys = NULL, .replaced_values = rows},
      {.replaced = one, .replaced_count = 1, .replaced_keys = rows, .replaced_values = NULL},
      {.removed = three,
       .removed_count = 3,
       .replaced = one,
       .replaced_count = 1,
       .replaced_keys = rows,
       .replaced_values = rows},
      {.removed = last,
       .removed_count = 2,
       .replaced = last + 1,
       .replaced_count = 1,
       .replaced_keys = rows,
       .replaced_values = rows},
      {.added_keys = NULL, .added_values = rows, .added_count = 1},
      {.added_keys = rows, .added_values = NULL, .added_count = 1}};
  for (size_t i = 0; i < COUNT(wrong); i++)
    CHECK_STATUS(ATTN_BAD_ARGUMENT, attn_snapshot_edit(&out, base, &wrong[i]));
  const attn_edit nothing = {0};
  CHECK_STATUS(ATTN_BAD_ARGUMENT, attn_snapshot_edit(NULL, base, &nothing));
  CHECK_STATUS(ATTN_BAD_ARGUMENT, attn_snapshot_edit(&out, NULL, &nothing));
  CHECK_STATUS(ATTN_BAD_ARGUMENT, attn_snapshot_edit(&out, base, NULL));
  CHECK_STATUS(ATTN_BAD_ARGUMENT,
               attn_snapshot_edit(&out, empty, &(attn_edit){.removed = last, .removed_count = 1}));
  CHECK_STATUS(ATTN_TOO_LARGE, attn_snapshot_edit(&out, base,
                                                  &(attn_edit){.added_keys = rows,
                                                               .added_values = rows,
                                                               .added_count = SIZE_MAX}));
  ck_assert_ptr_null(out);
  CHECK_STATUS(ATTN_OK, attn_snapshot_edit(&out, empty, &nothing));
  ck_assert_uint_eq(attn_snapshot_rows(out), 0);
  attn_snapshot_free(out);
  attn_snapshot_free(base);
  attn_snapshot_free(empty);
}
END_TEST

/* A number that can't be kept, anywhere among the new rows: no snapshot. */
START_TEST(test_refused_numbers) {
  const attn_dtype dtype = (attn_dtype)_i;
  for (size_t i = 0; i < 40; i++) {
    rng r = rng_for_case(8000 + i);
    table t = table_random(&r, 700, 90, 500, dtype);
    attn_snapshot *base = memory_of(&t, dtype), *out = NULL;
    change c = change_random(&r, t.rows, base, &(mood){.remove = 0.1, .replace = 0.1, .add = 300});
    table *fresh = i % 2 ? &c.added : &c.replacing;
    const bool in_keys = i / 2 % 2, large = i % 3 == 0 && dtype == ATTN_F16;
    float *numbers = in_keys ? fresh->keys : fresh->values;
    const size_t count = fresh->rows * (in_keys ? fresh->dk : fresh->dv);
    numbers[rng_between(&r, 0, count - 1)] = large ? 65520.0f : i % 5 < 3 ? NAN : -INFINITY;
    CHECK_STATUS(large ? ATTN_OUT_OF_RANGE : ATTN_NOT_FINITE,
                 attn_snapshot_edit(&out, base, &c.edit));
    ck_assert_ptr_null(out);
    check_rows(base, &t);
    attn_snapshot_free(base);
    change_free(&c);
    table_free(&t);
  }
}
END_TEST

int main(void) {
  Suite *suite = suite_create("edit");
  add_dtype_test(suite, "random", test_random_edits);
  add_test(suite, "layouts", test_layouts);
  add_dtype_test(suite, "pieces", test_pieces_lie_like_the_whole);
  add_test(suite, "one row", test_one_row_of_many);
  add_dtype_test(suite, "given back", test_ram_is_given_back);
  add_test(suite, "arguments", test_arguments);
  add_dtype_test(suite, "refused", test_refused_numbers);
  return run_suite(suite);
}
