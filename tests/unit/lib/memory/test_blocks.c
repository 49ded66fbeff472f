/* Blocks as bytes: the bytes are what the header says; what is read back
 * answers as what was written, to the bit; bytes that nothing was written as
 * are refused; and snapshots are put together from blocks of either kind. */
#include "table.h"

static const struct {
  size_t rows, dk, dv;
} sizes[] = {{1, 1, 1},     {17, 3, 5},    {500, 16, 8}, {1500, 40, 130},
             {60, 8200, 3}, {40, 2, 8200}, {33, 65, 33}, {2000, 8, 1}};

static void *encoded(const attn_snapshot *like, const attn_block *block, size_t *size) {
  *size = attn_block_encoded_size(like, block);
  uint8_t *bytes = must_alloc(*size + 1, 1);
  bytes[*size] = 0xa5;
  attn_block_encode(like, block, bytes);
  ck_assert_uint_eq(bytes[*size], 0xa5);
  return bytes;
}

/* ---- The bytes, by the header's words ---- */

/* A number as float32; the halves' tables are test_dtype's concern. */
static float number_at(attn_dtype dtype, const uint8_t *bytes, size_t index, float scale) {
  float wide;
  uint16_t half;
  memcpy(&half, bytes + index * 2 * (dtype == ATTN_F16 || dtype == ATTN_BF16), sizeof half);
  switch (dtype) {
  case ATTN_F16:
    return attn_f16_to_float(half);
  case ATTN_BF16:
    return attn_bf16_to_float(half);
  case ATTN_INT8:
    return scale * (float)((const int8_t *)bytes)[index];
  default:
    memcpy(&wide, bytes + index * sizeof wide, sizeof wide);
    return wide;
  }
}

/* Holds rows x dim numbers, and their scales, against floats. Returns what is
 * behind them. */
static const uint8_t *check_numbers(attn_dtype dtype, const uint8_t *bytes, size_t rows, size_t dim,
                                    const float *expected) {
  const uint8_t *scales = bytes + rows * dim * attn_dtype_info_at(dtype)->bytes;
  for (size_t row = 0; row < rows; row++) {
    float scale = 0;
    if (dtype == ATTN_INT8) memcpy(&scale, scales + row * sizeof scale, sizeof scale);
    size_t same = 0;
    for (size_t i = 0; i < dim; i++)
      same += number_at(dtype, bytes, row * dim + i, scale) == expected[row * dim + i];
    ck_assert_uint_eq(same, dim);
  }
  return scales + (dtype == ATTN_INT8 ? rows * sizeof(float) : 0);
}

static void check_bytes(const attn_snapshot *memory, const table *t) {
  for (size_t b = 0, first = 0; b < attn_snapshot_block_count(memory); b++) {
    const attn_block *block = attn_snapshot_block(memory, b);
    const size_t rows = attn_block_rows(block);
    size_t size;
    uint8_t *bytes = encoded(memory, block, &size);
    const attn_dtype dtype = attn_snapshot_dtype(memory);
    const uint8_t *values = check_numbers(dtype, bytes, rows, t->dk, t->keys + first * t->dk);
    ck_assert_ptr_eq(check_numbers(dtype, values, rows, t->dv, t->values + first * t->dv),
                     bytes + size);
    free(bytes);
    first += rows;
  }
}

/* ---- There and back ---- */

/* From an address that is aligned to nothing, and in a block of its own length. */
static attn_block *decoded(const attn_snapshot *like, const void *bytes, size_t size) {
  uint8_t *moved = must_alloc(size + 1, 1);
  memcpy(moved + 1, bytes, size);
  attn_block *block = NULL;
  CHECK_STATUS(ATTN_OK, attn_block_decode(&block, like, moved + 1, size));
  free(moved);
  return block;
}

/* Some blocks through bytes, the others as they are. */
static attn_snapshot *carried(rng *r, const attn_snapshot *memory) {
  const size_t count = attn_snapshot_block_count(memory);
  attn_block **blocks = must_alloc(count, sizeof(attn_block *));
  attn_snapshot *made = NULL;
  for (size_t b = 0; b < count; b++) {
    attn_block *block = attn_snapshot_block(memory, b);
    if (b > 0 && rng_chance(r, 0.2)) {
      blocks[b] = attn_block_ref(block);
      continue;
    }
    size_t size, again_size;
    void *bytes = encoded(memory, block, &size);
    blocks[b] = decoded(memory, bytes, size);
    ck_assert_uint_eq(attn_block_rows(blocks[b]), attn_block_rows(block));
    void *again = encoded(memory, blocks[b], &again_size);
    ck_assert(size == again_size && memcmp(bytes, again, size) == 0);
    free(again);
    free(bytes);
  }
  CHECK_STATUS(ATTN_OK, attn_snapshot_assemble(&made, memory, blocks, count));
  for (size_t b = 0; b < count; b++) {
    ck_assert_ptr_eq(attn_snapshot_block(made, b), blocks[b]);
    attn_block_free(blocks[b]);
  }
  free(blocks);
  return made;
}

START_TEST(test_there_and_back) {
  const attn_dtype dtype = (attn_dtype)_i;
  for (size_t i = 0; i < COUNT(sizes); i++) {
    rng r = rng_for_case((uint64_t)_i * 100 + i);
    table t = table_random(&r, sizes[i].rows, sizes[i].dk, sizes[i].dv, dtype);
    attn_snapshot *memory = memory_of(&t, dtype);
    check_bytes(memory, &t);
    attn_snapshot *back = carried(&r, memory);
    check_rows(back, &t);
    check_stats(back, &t);
    ck_assert_uint_eq(attn_snapshot_bytes(back), attn_snapshot_bytes(memory));
    check_same_answers((uint64_t)_i * 100 + i, memory, back);
    /* And it goes on as the one that stayed. */
    const size_t row = t.rows / 2;
    const attn_edit edit = {.removed = &row,
                            .removed_count = 1,
                            .added_keys = t.keys,
                            .added_values = t.values,
                            .added_count = t.rows / 3 + 1};
    memory = edited(memory, &edit);
    back = edited(back, &edit);
    ck_assert(same_layout(memory, back));
    check_same_answers((uint64_t)_i * 100 + i, memory, back);
    attn_snapshot_free(memory);
    attn_snapshot_free(back);
    table_free(&t);
  }
}
END_TEST

/* Rows of any size that the dtype takes, down to the smallest ones. */
START_TEST(test_extremes_are_taken_back) {
  const attn_dtype dtype = (attn_dtype)_i;
  enum { ROWS = 300, DIM = 5 };
  rng r = rng_for_case(1000 + (uint64_t)_i);
  const double largest = attn_dtype_info_at(dtype)->largest;
  float *rows = floats_new(ROWS * DIM);
  for (size_t i = 0; i < ROWS * DIM; i++) {
    const double size = exp2(rng_range(&r, -150, log2(largest)));
    rows[i] = (float)(rng_chance(&r, 0.1) ? largest : fmin(size, largest));
    if (rng_chance(&r, 0.5)) rows[i] = -rows[i];
    if (rng_chance(&r, 0.2) || i / DIM % 10 == 0) rows[i] = i % 2 ? 0.0f : -0.0f;
    if (i / DIM % 10 == 1) rows[i] = (float)(rng_range(&r, 0, 300) * 0x1p-127);
    if (i / DIM % 10 == 2) rows[i] = i % 2 ? 0x1p-149f : 0;
  }
  const table given = {ROWS, DIM, DIM, rows, rows};
  attn_snapshot *memory = memory_of(&given, dtype), *back = carried(&r, memory);
  float kept[2][DIM];
  for (size_t row = 0; row < ROWS; row++) {
    CHECK_STATUS(ATTN_OK, attn_snapshot_get_row(memory, row, kept[0], NULL));
    CHECK_STATUS(ATTN_OK, attn_snapshot_get_row(back, row, kept[1], NULL));
    ck_assert(same_bits(kept[0], kept[1], DIM));
  }
  ck_assert_double_eq(memory->stats.max_norm, back->stats.max_norm);
  ck_assert_double_eq(memory->stats.min_norm, back->stats.min_norm);
  ck_assert_double_eq(memory->stats.max_value, back->stats.max_value);
  attn_snapshot_free(memory);
  attn_snapshot_free(back);
  floats_free(rows);
}
END_TEST

/* ---- Refused ---- */

static void check_refused(attn_status expected, const attn_snapshot *like, const void *bytes,
                          size_t size) {
  attn_block *block = NULL;
  void *exact = must_alloc(size, 1);
  if (size > 0) memcpy(exact, bytes, size);
  CHECK_STATUS(expected, attn_block_decode(&block, like, exact, size));
  ck_assert_ptr_null(block);
  free(exact);
}

START_TEST(test_lengths) {
  rng r = rng_for_case(2000);
  table t = table_random(&r, 60, 3, 4, (attn_dtype)_i);
  attn_snapshot *memory = memory_of(&t, (attn_dtype)_i);
  size_t size;
  uint8_t *bytes = encoded(memory, attn_snapshot_block(memory, 0), &size);
  const size_t row_bytes = size / 60;
  for (size_t length = 0; length < size; length++) {
    attn_block *block = NULL;
    if (length % row_bytes != 0 || length == 0)
      check_refused(ATTN_BAD_SHAPE, memory, bytes, length);
    else if (attn_block_decode(&block, memory, bytes, length) == ATTN_OK)
      ck_assert_uint_eq(attn_block_rows(block), length / row_bytes);
    attn_block_free(block);
  }
  free(bytes);

  /* A row more than a block takes. */
  const struct attn_block_shape of = attn_snapshot_shape(memory);
  const size_t capacity = attn_block_capacity(&of);
  uint8_t *zeros = must_alloc((capacity + 1) * row_bytes, 1);
  attn_block *full = NULL;
  CHECK_STATUS(ATTN_OK, attn_block_decode(&full, memory, zeros, capacity * row_bytes));
  ck_assert_uint_eq(attn_block_rows(full), capacity);
  attn_block_free(full);
  check_refused(ATTN_BAD_SHAPE, memory, zeros, (capacity + 1) * row_bytes);
  free(zeros);
  attn_snapshot_free(memory);
  table_free(&t);
}
END_TEST

/* Any number of a block becomes one that is not finite. */
START_TEST(test_not_finite) {
  static const uint32_t patterns[] = {0x7f800000, 0xff800000, 0x7fc00000, 0x7f800001, 0xffffffff};
  static const uint16_t f16_patterns[] = {0x7c00, 0xfc00, 0x7e00, 0x7c01, 0xffff};
  const attn_dtype dtype = (attn_dtype)_i;
  const size_t number = attn_dtype_info_at(dtype)->bytes;
  rng r = rng_for_case(3000);
  table t = table_random(&r, 21, 9, 11, dtype);
  attn_snapshot *memory = memory_of(&t, dtype);
  size_t size;
  uint8_t *bytes = encoded(memory, attn_snapshot_block(memory, 0), &size);
  uint8_t *spoilt = must_alloc(size, 1);
  const size_t keys = 21 * 9, step = dtype == ATTN_INT8 ? sizeof(float) : number;
  for (size_t i = 0; i < size / step; i++) {
    const size_t at = i * step;
    const uint32_t pattern = patterns[i % 5];
    memcpy(spoilt, bytes, size);
    if (dtype == ATTN_F16)
      memcpy(spoilt + at, &f16_patterns[i % 5], step);
    else if (dtype == ATTN_BF16)
      memcpy(spoilt + at, (const uint8_t *)&pattern + (i % 5 == 3 ? 0 : 2), step);
    else if (dtype == ATTN_F32)
      memcpy(spoilt + at, &pattern, step);
    if (dtype == ATTN_BF16 && i % 5 == 3) continue; /* cut to 16 bits it's another number */
    if (dtype != ATTN_INT8) check_refused(ATTN_NOT_FINITE, memory, spoilt, size);
  }
  for (size_t row = 0; dtype == ATTN_INT8 && row < 42; row++) { /* scales */
    const size_t at = row < 21 ? keys + row * 4 : keys + 21 * 4 + 21 * 11 + (row - 21) * 4;
    memcpy(spoilt, bytes, size);
    memcpy(spoilt + at, &patterns[row % 5], sizeof patterns[0]);
    check_refused(ATTN_NOT_FINITE, memory, spoilt, size);
  }
  free(spoilt);
  free(bytes);
  attn_snapshot_free(memory);
  table_free(&t);
}
END_TEST

/* One int8 row, its key at fault or its value. */
static void check_int8(attn_status expected, const int8_t numbers[3], float scale) {
  attn_snapshot *like = empty_memory(3, 3, ATTN_INT8);
  const int8_t right[3] = {127, 0, -5};
  const float one = 1;
  for (size_t side = 0; side < 2; side++) {
    uint8_t bytes[14];
    memcpy(bytes, side ? right : numbers, 3);
    memcpy(bytes + 3, side ? &one : &scale, 4);
    memcpy(bytes + 7, side ? numbers : right, 3);
    memcpy(bytes + 10, side ? &scale : &one, 4);
    attn_block *block = NULL;
    CHECK_STATUS(expected, attn_block_decode(&block, like, bytes, sizeof bytes));
    attn_block_free(block);
  }
  attn_snapshot_free(like);
}

START_TEST(test_int8_rows) {
  const int8_t full[3] = {-127, 3, 4}, low[3] = {5, 0, 0}, none[3] = {0}, beyond[3] = {-128, 1, 1};
  check_int8(ATTN_OK, full, 1);
  check_int8(ATTN_OK, none, 0);
  check_int8(ATTN_OK, low, 0x1p-126f);
  check_int8(ATTN_OK, none, 0x1p-126f);
  check_int8(ATTN_OK, full, 0x1.0001p3f);
  check_int8(ATTN_OK, full, 0x1.0204p120f * 2);
  check_int8(ATTN_OUT_OF_RANGE, low, 1);
  check_int8(ATTN_OUT_OF_RANGE, none, 1);
  check_int8(ATTN_OUT_OF_RANGE, full, 0);
  check_int8(ATTN_OUT_OF_RANGE, low, 0);
  check_int8(ATTN_OUT_OF_RANGE, none, -0.0f);
  check_int8(ATTN_OUT_OF_RANGE, full, -1);
  check_int8(ATTN_OUT_OF_RANGE, beyond, 1);
  check_int8(ATTN_OUT_OF_RANGE, full, 0x1.00008p3f); /* 18 bits */
  check_int8(ATTN_OUT_OF_RANGE, full, 0x1p-127f);
  check_int8(ATTN_OUT_OF_RANGE, full, 0x1p-149f);
  check_int8(ATTN_OUT_OF_RANGE, full, 0x1p122f); /* 127 of them are no float32 */
}
END_TEST

/* Bytes without meaning: refused, or a block whose rows are finite and which is
 * written as it was read. */
START_TEST(test_any_bytes) {
  const attn_dtype dtype = (attn_dtype)_i;
  size_t taken = 0;
  for (size_t i = 0; i < test_rounds(3000); i++) {
    rng r = rng_for_case(4000 + i);
    attn_snapshot *like = empty_memory(rng_between(&r, 1, 9), rng_between(&r, 1, 9), dtype);
    const size_t size = rng_between(&r, 0, 700);
    uint8_t *bytes = must_alloc(size, 1);
    for (size_t b = 0; b < size; b++)
      bytes[b] = (uint8_t)(rng_bits(&r) & (i % 3 ? 0xff : 0x3b));
    attn_block *block = NULL;
    if (attn_block_decode(&block, like, bytes, size) == ATTN_OK) {
      size_t again_size;
      void *again = encoded(like, block, &again_size);
      ck_assert(again_size == size && memcmp(again, bytes, size) == 0);
      free(again);
      taken++;
    }
    attn_block_free(block);
    free(bytes);
    attn_snapshot_free(like);
  }
  if (dtype != ATTN_INT8) ck_assert_uint_gt(taken, 0);
}
END_TEST

START_TEST(test_arguments) {
  attn_snapshot *like = empty_memory(2, 2, ATTN_F32), *made = NULL;
  const float row[2] = {1, 2}, bytes[4] = {0};
  attn_block *block = NULL;
  CHECK_STATUS(ATTN_BAD_ARGUMENT, attn_block_decode(NULL, like, bytes, sizeof bytes));
  CHECK_STATUS(ATTN_BAD_ARGUMENT, attn_block_decode(&block, NULL, bytes, sizeof bytes));
  CHECK_STATUS(ATTN_BAD_ARGUMENT, attn_block_decode(&block, like, NULL, 16));
  CHECK_STATUS(ATTN_BAD_SHAPE, attn_block_decode(&block, like, NULL, 0));
  CHECK_STATUS(ATTN_BAD_SHAPE, attn_block_decode(&block, like, bytes, SIZE_MAX));
  CHECK_STATUS(ATTN_BAD_SHAPE, attn_block_decode(&block, like, bytes, SIZE_MAX / 16 * 16));
  ck_assert_ptr_null(block);
  attn_block_free(NULL);
  ck_assert_ptr_null(attn_block_ref(NULL));
  ck_assert_uint_eq(attn_snapshot_block_count(like), 0);
  ck_assert_ptr_null(attn_snapshot_block(like, 0));

  attn_snapshot *memory = NULL;
  CHECK_STATUS(ATTN_OK, attn_snapshot_append(&memory, like, row, row, 1));
  block = attn_block_ref(attn_snapshot_block(memory, 0));
  attn_snapshot_free(memory); /* the block outlives it */
  ck_assert_uint_eq(attn_block_rows(block), 1);
  attn_block *const blocks[] = {block, block}, *const none[] = {block, NULL};
  CHECK_STATUS(ATTN_BAD_ARGUMENT, attn_snapshot_assemble(NULL, like, blocks, 1));
  CHECK_STATUS(ATTN_BAD_ARGUMENT, attn_snapshot_assemble(&made, NULL, blocks, 1));
  CHECK_STATUS(ATTN_BAD_ARGUMENT, attn_snapshot_assemble(&made, like, NULL, 1));
  CHECK_STATUS(ATTN_BAD_ARGUMENT, attn_snapshot_assemble(&made, like, none, 2));
  const struct {
    size_t dk, dv;
    attn_dtype dtype;
  } others[] = {{3, 2, ATTN_F32}, {2, 1, ATTN_F32}, {2, 2, ATTN_INT8}};
  for (size_t i = 0; i < COUNT(others); i++) {
    attn_snapshot *other = empty_memory(others[i].dk, others[i].dv, others[i].dtype);
    CHECK_STATUS(ATTN_BAD_SHAPE, attn_snapshot_assemble(&made, other, blocks, 1));
    attn_snapshot_free(other);
  }
  ck_assert_ptr_null(made);
  CHECK_STATUS(ATTN_OK, attn_snapshot_assemble(&made, like, NULL, 0));
  ck_assert_uint_eq(attn_snapshot_rows(made), 0);
  attn_snapshot_free(made);
  CHECK_STATUS(ATTN_OK, attn_snapshot_assemble(&made, like, blocks, 2)); /* twice is fine */
  attn_block_free(block);
  ck_assert_uint_eq(attn_snapshot_rows(made), 2);
  float key[2];
  CHECK_STATUS(ATTN_OK, attn_snapshot_get_row(made, 1, key, NULL));
  ck_assert_mem_eq(key, row, sizeof row);
  attn_snapshot_free(made);
  attn_snapshot_free(like);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("blocks");
  add_dtype_test(suite, "there and back", test_there_and_back);
  add_dtype_test(suite, "extremes", test_extremes_are_taken_back);
  add_dtype_test(suite, "lengths", test_lengths);
  add_dtype_test(suite, "not finite", test_not_finite);
  add_test(suite, "int8 rows", test_int8_rows);
  add_dtype_test(suite, "any bytes", test_any_bytes);
  add_test(suite, "arguments", test_arguments);
  return run_suite(suite);
}
