/* Builders: whatever the pieces and their order, the outcome is that of one
 * append of all rows, to the bit; and RAM is taken for what has come, not for what was
 * announced. */
#include "../heap.h"
#include "table.h"

static attn_builder *builder_of(const attn_snapshot *like, size_t rows) {
  attn_builder *builder = NULL;
  CHECK_STATUS(ATTN_OK, attn_builder_create(&builder, like, rows));
  return builder;
}

/* All rows of one stream, in pieces that are given in any order, some twice: the
 * first time with other numbers. */
static void give(rng *r, attn_builder *builder, const table *t, bool keys, size_t most) {
  const size_t dim = keys ? t->dk : t->dv;
  attn_status (*put)(attn_builder *, size_t, size_t, const float *) =
      keys ? attn_builder_keys : attn_builder_values;
  const float *numbers = keys ? t->keys : t->values;
  size_t *cuts = must_alloc(t->rows + 1, sizeof *cuts), pieces = 0;
  while (cuts[pieces] < t->rows) {
    const size_t left = t->rows - cuts[pieces], count = rng_between(r, 1, most);
    cuts[pieces + 1] = cuts[pieces] + (count < left ? count : left);
    pieces++;
  }
  const size_t step = rng_chance(r, 0.5) ? 1 : pieces - 1, start = rng_between(r, 0, pieces - 1);
  for (size_t i = 0, p = start; i < pieces; i++, p = (p + (step ? step : 1)) % pieces) {
    const size_t first = cuts[p], count = cuts[p + 1] - first;
    if (rng_chance(r, 0.2)) {
      float *other = floats_new(count * dim);
      fill(other, count * dim, 1000);
      CHECK_STATUS(ATTN_OK, put(builder, first, count, other));
      floats_free(other);
    }
    CHECK_STATUS(ATTN_OK, put(builder, first, count, numbers + first * dim));
    CHECK_STATUS(ATTN_OK, put(builder, first, 0, NULL));
  }
  free(cuts);
}

static const struct {
  size_t rows, dk, dv, piece; /* the largest number of rows at once */
} orders[] = {{1, 1, 1, 1},         {37, 5, 3, 1},       {900, 16, 3, 40},
              {700, 130, 150, 512}, {5000, 8, 1, 3000},  {70, 3000, 20, 40},
              {33, 2, 9001, 7},     {40000, 7, 9, 9000}, {64, 33, 17, 64}};

START_TEST(test_like_an_append) {
  const attn_dtype dtype = (attn_dtype)_i;
  for (size_t i = 0; i < COUNT(orders); i++) {
    rng r = rng_for_case((uint64_t)_i * 100 + i);
    table t = table_random(&r, orders[i].rows, orders[i].dk, orders[i].dv, dtype);
    attn_snapshot *appended = memory_of(&t, dtype), *built = NULL, *again = NULL;
    attn_builder *builder = builder_of(appended, t.rows);
    const bool keys_first = rng_chance(&r, 0.5);
    give(&r, builder, &t, keys_first, orders[i].piece);
    CHECK_STATUS(ATTN_BAD_ARGUMENT, attn_builder_finish(builder, &built));
    give(&r, builder, &t, !keys_first, orders[i].piece);
    CHECK_STATUS(ATTN_OK, attn_builder_finish(builder, &built));
    check_rows(built, &t);
    check_stats(built, &t);
    ck_assert(same_layout(built, appended));
    ck_assert_uint_eq(attn_snapshot_bytes(built), attn_snapshot_bytes(appended));
    ck_assert_uint_eq(attn_snapshot_bytes(built), attn_snapshot_bytes_of(appended, t.rows));
    check_same_answers((uint64_t)_i * 100 + i, built, appended);
    /* What was published is not changed any more. */
    CHECK_STATUS(ATTN_BAD_ARGUMENT, attn_builder_keys(builder, 0, 1, t.keys));
    CHECK_STATUS(ATTN_BAD_ARGUMENT, attn_builder_values(builder, 0, 1, t.values));
    CHECK_STATUS(ATTN_OK, attn_builder_finish(builder, &again));
    attn_builder_free(builder);
    check_rows(again, &t);
    attn_snapshot_free(again);
    check_rows(built, &t);
    attn_snapshot_free(appended);
    attn_snapshot_free(built);
    table_free(&t);
  }
}
END_TEST

/* Blocks can be had as they become whole, and are then left alone. */
START_TEST(test_blocks_before_the_end) {
  const attn_dtype dtype = (attn_dtype)_i;
  rng r = rng_for_case(700 + (uint64_t)_i);
  table t = table_random(&r, 9000, 20, 30, dtype);
  attn_snapshot *appended = memory_of(&t, dtype), *built = NULL;
  attn_builder *builder = builder_of(appended, t.rows);
  const size_t count = attn_snapshot_block_count(appended), rows = t.rows;
  attn_block *seen[64] = {NULL};
  size_t whole = 0, beyond = 0;
  ck_assert(count > 1 && count < COUNT(seen));
  ck_assert_uint_eq(attn_builder_block_count(builder), count);
  CHECK_STATUS(ATTN_OK, attn_builder_keys(builder, 0, rows, t.keys));
  for (size_t first = 0, taken; first < rows; first += taken) {
    const size_t piece = rng_between(&r, 1, 700);
    taken = piece < rows - first ? piece : rows - first;
    CHECK_STATUS(ATTN_OK, attn_builder_values(builder, first, taken, t.values + first * t.dv));
    while ((seen[whole] = attn_builder_block(builder, whole)))
      beyond += attn_block_rows(seen[whole++]);
    /* those that have all their rows, and no others */
    ck_assert_uint_le(beyond, first + taken);
    const attn_block *next = attn_snapshot_block(appended, whole);
    if (next) ck_assert_uint_gt(beyond + attn_block_rows(next), first + taken);
    if (whole == 0) continue;
    CHECK_STATUS(ATTN_BAD_ARGUMENT, attn_builder_keys(builder, beyond - 1, 1, t.keys));
    CHECK_STATUS(ATTN_BAD_ARGUMENT, attn_builder_values(builder, 0, 1, t.values));
  }
  ck_assert_uint_eq(whole, count);
  CHECK_STATUS(ATTN_OK, attn_builder_finish(builder, &built));
  for (size_t b = 0; b < count; b++)
    ck_assert_ptr_eq(seen[b], attn_snapshot_block(built, b));
  attn_builder_free(builder);
  check_rows(built, &t);
  check_stats(built, &t);
  check_same_answers(700 + (uint64_t)_i, built, appended);
  ck_assert_uint_eq(attn_builder_block_count(NULL), 0);
  ck_assert_ptr_null(attn_builder_block(NULL, 0));
  attn_snapshot_free(appended);
  attn_snapshot_free(built);
  table_free(&t);
}
END_TEST

/* ---- Both streams side by side ---- */

/* A piece of a stream, in a list that is gone through in a random order. */
typedef struct piece {
  bool keys;
  size_t first, rows;
} piece;

static size_t cut_into_pieces(rng *r, piece *pieces, const table *t, size_t most) {
  size_t count = 0;
  for (size_t stream = 0; stream < 2; stream++)
    for (size_t first = 0, rows; first < t->rows; first += rows) {
      rows = rng_between(r, 1, most);
      if (rows > t->rows - first) rows = t->rows - first;
      pieces[count++] = (piece){stream == 0, first, rows};
    }
  for (size_t i = count; i > 1; i--) {
    const size_t other = rng_between(r, 0, i - 1);
    const piece moved = pieces[i - 1];
    pieces[i - 1] = pieces[other];
    pieces[other] = moved;
  }
  return count;
}

static attn_status give_piece(attn_builder *builder, const table *t, const piece *p) {
  return p->keys ? attn_builder_keys(builder, p->first, p->rows, t->keys + p->first * t->dk)
                 : attn_builder_values(builder, p->first, p->rows, t->values + p->first * t->dv);
}

START_TEST(test_side_by_side) {
  const attn_dtype dtype = (attn_dtype)_i;
  for (size_t i = 0; i < COUNT(orders); i++) {
    const uint64_t number = 5000 + (uint64_t)_i * 100 + i;
    rng r = rng_for_case(number);
    table t = table_random(&r, orders[i].rows, orders[i].dk, orders[i].dv, dtype);
    attn_snapshot *appended = memory_of(&t, dtype), *built = NULL;
    attn_builder *builder = builder_of(appended, t.rows);
    piece *pieces = must_alloc(2 * t.rows, sizeof *pieces);
    const size_t count = cut_into_pieces(&r, pieces, &t, orders[i].piece);
    for (size_t p = 0; p < count; p++) {
      CHECK_STATUS(ATTN_BAD_ARGUMENT, attn_builder_finish(builder, &built));
      CHECK_STATUS(ATTN_OK, give_piece(builder, &t, &pieces[p]));
    }
    CHECK_STATUS(ATTN_OK, attn_builder_finish(builder, &built));
    check_rows(built, &t);
    check_stats(built, &t);
    ck_assert(same_layout(built, appended));
    check_same_answers(number, built, appended);
    free(pieces);
    attn_builder_free(builder);
    attn_snapshot_free(appended);
    attn_snapshot_free(built);
    table_free(&t);
  }
}
END_TEST

/* ---- RAM ---- */

/* Of a full block. */
static size_t bytes_of_a_block(const attn_snapshot *like) {
  enum { ROWS = 1 << 14 }; /* a multiple of what a block has */
  attn_builder *builder = builder_of(like, ROWS);
  const size_t bytes = attn_snapshot_bytes_of(like, ROWS) / attn_builder_block_count(builder);
  attn_builder_free(builder);
  return bytes;
}

/* More rows than any address space has room for: none of them is asked for. */
START_TEST(test_a_claim_takes_nothing) {
  static const size_t dims[][2] = {{1, 1}, {64, 1}, {1, 64}, {3, 4096}, {65536, 2}, {4096, 4096}};
  for (size_t i = 0; i < COUNT(dims); i++) {
    const size_t dk = dims[i][0], dv = dims[i][1], rows = ((size_t)1 << 52) / (4 * (dk + dv));
    attn_snapshot *empty = empty_memory(dk, dv, (attn_dtype)_i), *made = NULL;
    float *numbers = must_alloc(2 * (dk > dv ? dk : dv), sizeof *numbers);
    attn_builder *builder = builder_of(empty, rows);
    ck_assert_uint_lt(attn_builder_bytes(builder), 1024);
    CHECK_STATUS(ATTN_OK, attn_builder_keys(builder, 0, 2, numbers));
    CHECK_STATUS(ATTN_OK, attn_builder_values(builder, 0, 2, numbers));
    ck_assert_uint_lt(attn_builder_bytes(builder), 8 << 20);
    CHECK_STATUS(ATTN_BAD_ARGUMENT, attn_builder_finish(builder, &made));
    ck_assert_ptr_null(attn_builder_block(builder, 0));
    ck_assert_ptr_null(attn_builder_block(builder, SIZE_MAX));
    attn_builder_free(builder);
    free(numbers);
    attn_snapshot_free(empty);
  }
  ck_assert_uint_eq(attn_builder_bytes(NULL), 0);
}
END_TEST

/* Rows in their order, in pieces. What the builder says to hold is in proportion to what it
 * was given, and is what malloc() has given out. */
static attn_snapshot *fill_in_order(const attn_snapshot *empty, const table *t, size_t order) {
  enum { KEYS_FIRST, VALUES_FIRST, IN_TURN, PIECE = 100 };
  const size_t slack = 2 * bytes_of_a_block(empty) + 16384, before = heap_in_use();
  attn_builder *builder = builder_of(empty, t->rows);
  attn_snapshot *made = NULL;
  size_t keys = 0, values = 0, given = 0; /* rows, rows, bytes */
  while (keys < t->rows || values < t->rows) {
    const bool turn = order == KEYS_FIRST || (order == IN_TURN && keys <= values);
    const bool key = keys < t->rows && (turn || values == t->rows);
    const size_t first = key ? keys : values, left = t->rows - first;
    const piece p = {key, first, left < PIECE ? left : PIECE};
    CHECK_STATUS(ATTN_OK, give_piece(builder, t, &p));
    *(key ? &keys : &values) += p.rows;
    given += p.rows * (key ? t->dk : t->dv) * sizeof(float);
    const size_t bytes = attn_builder_bytes(builder), heap = heap_in_use() - before;
    ck_assert_msg(bytes <= 10 * given + slack, "%zu x (%zu + %zu): %zu bytes for %zu", t->rows,
                  t->dk, t->dv, bytes, given);
    if (heap_in_use() > 0)
      ck_assert_msg(bytes <= heap + 4096 && heap <= bytes + bytes / 4 + 16384,
                    "%zu bytes, said to be %zu", heap, bytes);
  }
  CHECK_STATUS(ATTN_OK, attn_builder_finish(builder, &made));
  const size_t snapshot = attn_snapshot_bytes(made);
  ck_assert_uint_le(attn_builder_bytes(builder), snapshot + snapshot / 50 + 1024);
  attn_builder_free(builder);
  return made;
}

START_TEST(test_ram_follows_rows) {
  static const struct {
    size_t rows, dk, dv;
    attn_dtype dtype;
  } shapes[] = {{60000, 6, 9, ATTN_F32}, {600, 1, 4000, ATTN_F32},   {600, 4000, 1, ATTN_INT8},
                {50000, 1, 1, ATTN_F16}, {8000, 8, 100, ATTN_BF16},  {8000, 100, 9, ATTN_F32},
                {40000, 1, 6, ATTN_F32}, {16000, 40, 24, ATTN_INT8}, {48, 20000, 3, ATTN_F32}};
  for (size_t i = 0; i < COUNT(shapes); i++) {
    rng r = rng_for_case(6000 + i);
    table t = table_random(&r, shapes[i].rows, shapes[i].dk, shapes[i].dv, shapes[i].dtype);
    attn_snapshot *empty = empty_memory(t.dk, t.dv, shapes[i].dtype);
    for (size_t order = 0; order < 3; order++) {
      attn_snapshot *made = fill_in_order(empty, &t, order);
      check_rows(made, &t);
      attn_snapshot_free(made);
    }
    attn_snapshot_free(empty);
    table_free(&t);
  }
}
END_TEST

/* One row of one stream is missing, whichever it is: no snapshot. */
START_TEST(test_every_row_is_needed) {
  enum { ROWS = 150 };
  rng r = rng_for_case(1000);
  table t = table_random(&r, ROWS, 3, 2, ATTN_F32);
  attn_snapshot *empty = empty_memory(3, 2, ATTN_F32), *made = NULL;
  for (size_t missing = 0; missing < ROWS; missing++)
    for (size_t stream = 0; stream < 2; stream++) {
      attn_builder *builder = builder_of(empty, ROWS);
      const size_t after = missing + 1, rest = ROWS - after;
      const size_t of_keys = stream ? 0 : 1, of_values = stream ? 1 : 0;
      CHECK_STATUS(ATTN_OK, attn_builder_keys(builder, after, rest, t.keys + after * 3));
      CHECK_STATUS(ATTN_OK, attn_builder_values(builder, after, rest, t.values + after * 2));
      CHECK_STATUS(ATTN_OK, attn_builder_keys(builder, 0, after - of_keys, t.keys));
      CHECK_STATUS(ATTN_OK, attn_builder_values(builder, 0, after - of_values, t.values));
      CHECK_STATUS(ATTN_BAD_ARGUMENT, attn_builder_finish(builder, &made));
      if (stream == 0)
        CHECK_STATUS(ATTN_OK, attn_builder_keys(builder, missing, 1, t.keys + missing * 3));
      else
        CHECK_STATUS(ATTN_OK, attn_builder_values(builder, missing, 1, t.values + missing * 2));
      CHECK_STATUS(ATTN_OK, attn_builder_finish(builder, &made));
      check_rows(made, &t);
      attn_snapshot_free(made);
      made = NULL;
      attn_builder_free(builder);
    }
  attn_snapshot_free(empty);
  table_free(&t);
}
END_TEST

/* A number that can't be kept is refused, and its row can be given once more. */
START_TEST(test_refused_numbers) {
  const attn_dtype dtype = (attn_dtype)_i;
  for (size_t i = 0; i < 40; i++) {
    rng r = rng_for_case(2000 + i);
    table t = table_random(&r, 200, 11, 6, dtype);
    attn_snapshot *empty = empty_memory(11, 6, dtype), *made = NULL;
    attn_builder *builder = builder_of(empty, t.rows);
    const bool large = i % 2 && dtype == ATTN_F16;
    float *number = i % 4 < 2 ? &t.keys[rng_between(&r, 0, t.rows * 11 - 1)]
                              : &t.values[rng_between(&r, 0, t.rows * 6 - 1)];
    const float right = *number;
    const attn_status expected = large ? ATTN_OUT_OF_RANGE : ATTN_NOT_FINITE;
    *number = large ? -65520.0f : i % 3 ? NAN : INFINITY;
    CHECK_STATUS(i % 4 < 2 ? expected : ATTN_OK, attn_builder_keys(builder, 0, t.rows, t.keys));
    CHECK_STATUS(i % 4 < 2 ? ATTN_OK : expected, attn_builder_values(builder, 0, t.rows, t.values));
    CHECK_STATUS(ATTN_BAD_ARGUMENT, attn_builder_finish(builder, &made));
    *number = right;
    CHECK_STATUS(ATTN_OK, attn_builder_keys(builder, 0, t.rows, t.keys));
    CHECK_STATUS(ATTN_OK, attn_builder_values(builder, 0, t.rows, t.values));
    CHECK_STATUS(ATTN_OK, attn_builder_finish(builder, &made));
    check_rows(made, &t);
    check_stats(made, &t);
    attn_snapshot_free(made);
    attn_builder_free(builder);
    attn_snapshot_free(empty);
    table_free(&t);
  }
}
END_TEST

START_TEST(test_arguments) {
  attn_snapshot *empty = empty_memory(2, 3, ATTN_F32), *made = NULL;
  attn_builder *builder = NULL;
  const float numbers[30] = {0};
  CHECK_STATUS(ATTN_BAD_ARGUMENT, attn_builder_create(NULL, empty, 1));
  CHECK_STATUS(ATTN_BAD_ARGUMENT, attn_builder_create(&builder, NULL, 1));
  CHECK_STATUS(ATTN_BAD_ARGUMENT, attn_builder_create(&builder, empty, 0));
  CHECK_STATUS(ATTN_TOO_LARGE, attn_builder_create(&builder, empty, SIZE_MAX));
  CHECK_STATUS(ATTN_TOO_LARGE, attn_builder_create(&builder, empty, SIZE_MAX / 16));
  ck_assert_ptr_null(builder);
  ck_assert_uint_eq(attn_snapshot_bytes_of(empty, SIZE_MAX), SIZE_MAX);
  ck_assert_uint_lt(attn_snapshot_bytes_of(empty, 1), attn_snapshot_bytes_of(empty, 17));
  attn_builder_free(NULL);

  builder = builder_of(empty, 10);
  CHECK_STATUS(ATTN_BAD_ARGUMENT, attn_builder_keys(NULL, 0, 1, numbers));
  CHECK_STATUS(ATTN_BAD_ARGUMENT, attn_builder_keys(builder, 0, 1, NULL));
  CHECK_STATUS(ATTN_BAD_ARGUMENT, attn_builder_keys(builder, 0, 11, numbers));
  CHECK_STATUS(ATTN_BAD_ARGUMENT, attn_builder_keys(builder, 10, 1, numbers));
  CHECK_STATUS(ATTN_BAD_ARGUMENT, attn_builder_keys(builder, 11, 0, numbers));
  CHECK_STATUS(ATTN_BAD_ARGUMENT, attn_builder_values(NULL, 0, 1, numbers));
  CHECK_STATUS(ATTN_BAD_ARGUMENT, attn_builder_values(builder, 0, 1, NULL));
  CHECK_STATUS(ATTN_BAD_ARGUMENT, attn_builder_values(builder, 9, 2, numbers));
  CHECK_STATUS(ATTN_BAD_ARGUMENT, attn_builder_values(builder, SIZE_MAX, 2, numbers));
  CHECK_STATUS(ATTN_BAD_ARGUMENT, attn_builder_values(builder, 2, SIZE_MAX, numbers));
  CHECK_STATUS(ATTN_BAD_ARGUMENT, attn_builder_finish(builder, &made));
  CHECK_STATUS(ATTN_OK, attn_builder_keys(builder, 0, 10, numbers));
  CHECK_STATUS(ATTN_OK, attn_builder_values(builder, 0, 10, numbers));
  CHECK_STATUS(ATTN_BAD_ARGUMENT, attn_builder_finish(builder, NULL));
  CHECK_STATUS(ATTN_BAD_ARGUMENT, attn_builder_finish(NULL, &made));
  ck_assert_ptr_null(made);
  attn_builder_free(builder); /* full, but never finished */
  attn_snapshot_free(empty);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("builder");
  add_dtype_test(suite, "like an append", test_like_an_append);
  add_dtype_test(suite, "blocks before the end", test_blocks_before_the_end);
  add_dtype_test(suite, "side by side", test_side_by_side);
  add_dtype_test(suite, "a claim", test_a_claim_takes_nothing);
  add_test(suite, "RAM", test_ram_follows_rows);
  add_test(suite, "every row", test_every_row_is_needed);
  add_dtype_test(suite, "refused", test_refused_numbers);
  add_test(suite, "arguments", test_arguments);
  return run_suite(suite);
}
