/* Any bytes as a block. The first three choose the dtype and the dimensions.
 * What must be true:
 *
 *  - a length that is no whole number of rows, or of none, is refused, and so
 *    are numbers that are not finite, by their bits;
 *  - what is taken is written as it was read, byte by byte;
 *  - its rows are finite, a memory that is given them answers as the one that
 *    was read, bit by bit, and so do both when a row is taken away. */
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "attention.h"
#include "fuzz.h"

enum { DIM_MAX = 24 };

static attn_snapshot *make_empty(const uint8_t *head) {
  attn_snapshot *empty = NULL;
  REQUIRE(attn_snapshot_create_typed(&empty, head[1] % DIM_MAX + 1u, head[2] % DIM_MAX + 1u,
                                     (attn_dtype)(head[0] % 4)) == ATTN_OK);
  return empty;
}

static size_t row_bytes(const attn_snapshot *shape) {
  const attn_dtype dtype = attn_snapshot_dtype(shape);
  const size_t numbers = attn_snapshot_key_dim(shape) + attn_snapshot_value_dim(shape);
  return numbers * attn_dtype_info_at(dtype)->bytes + (dtype == ATTN_INT8 ? 8 : 0);
}

/* Of all dtypes but int8: the largest exponent is that of infinities and NaNs. */
static bool all_finite(attn_dtype dtype, const uint8_t *bytes, size_t size) {
  const size_t step = attn_dtype_info_at((size_t)dtype)->bytes;
  const uint32_t exponent = dtype == ATTN_F32 ? 0x7f800000 : dtype == ATTN_F16 ? 0x7c00 : 0x7f80;
  for (size_t i = 0; i < size; i += step) {
    uint32_t bits = 0;
    memcpy(&bits, bytes + i, step);
    if ((bits & exponent) == exponent) return false;
  }
  return true;
}

static void attend(const attn_snapshot *memory, const char *score_name, float output[DIM_MAX],
                   attn_status *status) {
  static const float query[DIM_MAX] = {1, -2, 3};
  attn_score *score = NULL;
  attn_normalization *norm = NULL;
  REQUIRE(attn_score_create(&score, score_name, NULL, 0, NULL) == ATTN_OK);
  REQUIRE(attn_normalization_create(&norm, "softmax", NULL, 0, NULL) == ATTN_OK);
  const attn_request request = {.queries = query,
                                .query_count = 1,
                                .query_dim = attn_snapshot_key_dim(memory),
                                .score = score,
                                .normalization = norm,
                                .weights_mode = ATTN_WEIGHTS_NONE};
  attn_result result = attn_result_for(memory, &request);
  result.outputs = output;
  *status = attn_attend(memory, &request, &result, NULL);
  attn_score_free(score);
  attn_normalization_free(norm);
}

static void check_same_answers(const attn_snapshot *a, const attn_snapshot *b) {
  static const char *const scores[] = {"dot", "cosine", "euclidean"};
  for (size_t i = 0; i < 3; i++) {
    float outputs[2][DIM_MAX] = {{0}};
    attn_status statuses[2];
    attend(a, scores[i], outputs[0], &statuses[0]);
    attend(b, scores[i], outputs[1], &statuses[1]);
    REQUIRE(statuses[0] == statuses[1]);
    if (statuses[0] == ATTN_OK) REQUIRE(memcmp(outputs[0], outputs[1], sizeof outputs[0]) == 0);
  }
}

/* The rows as floats, given to another memory. */
static attn_snapshot *rebuilt(const attn_snapshot *empty, const attn_snapshot *memory) {
  attn_snapshot *made = NULL;
  const size_t rows = attn_snapshot_rows(memory), dk = attn_snapshot_key_dim(memory);
  const size_t dv = attn_snapshot_value_dim(memory);
  float *keys = malloc(rows * dk * sizeof *keys), *values = malloc(rows * dv * sizeof *values);
  REQUIRE(keys && values);
  for (size_t row = 0; row < rows; row++)
    REQUIRE(attn_snapshot_get_row(memory, row, keys + row * dk, values + row * dv) == ATTN_OK);
  for (size_t i = 0; i < rows * dk; i++)
    REQUIRE(isfinite(keys[i]));
  for (size_t i = 0; i < rows * dv; i++)
    REQUIRE(isfinite(values[i]));
  REQUIRE(attn_snapshot_append(&made, empty, keys, values, rows) == ATTN_OK);
  free(keys);
  free(values);
  return made;
}

static attn_snapshot *without_first(attn_snapshot *memory) {
  attn_snapshot *made = NULL;
  const size_t first = 0;
  const attn_edit edit = {.removed = &first, .removed_count = 1};
  REQUIRE(attn_snapshot_edit(&made, memory, &edit) == ATTN_OK);
  attn_snapshot_free(memory);
  return made;
}

static void check_block(const attn_snapshot *empty, attn_block *block, const uint8_t *bytes,
                        size_t size) {
  REQUIRE(attn_block_rows(block) == size / row_bytes(empty));
  REQUIRE(attn_block_encoded_size(empty, block) == size);
  uint8_t *again = malloc(size);
  REQUIRE(again != NULL);
  attn_block_encode(empty, block, again);
  REQUIRE(memcmp(again, bytes, size) == 0);
  free(again);
  attn_snapshot *memory = NULL;
  REQUIRE(attn_snapshot_assemble(&memory, empty, &block, 1) == ATTN_OK);
  attn_snapshot *other = rebuilt(empty, memory);
  check_same_answers(memory, other);
  memory = without_first(memory);
  other = without_first(other);
  check_same_answers(memory, other);
  attn_snapshot_free(memory);
  attn_snapshot_free(other);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size < 3) return 0;
  attn_snapshot *empty = make_empty(data);
  const attn_dtype dtype = attn_snapshot_dtype(empty);
  const uint8_t *bytes = data + 3;
  attn_block *block = NULL;
  size -= 3;
  const attn_status status = attn_block_decode(&block, empty, bytes, size);
  REQUIRE((status == ATTN_OK) == (block != NULL));
  if (size == 0 || size % row_bytes(empty) != 0)
    REQUIRE(status == ATTN_BAD_SHAPE);
  else if (dtype != ATTN_INT8 && status != ATTN_BAD_SHAPE)
    REQUIRE(status == (all_finite(dtype, bytes, size) ? ATTN_OK : ATTN_NOT_FINITE));
  if (block) check_block(empty, block, bytes, size);
  attn_block_free(block);
  attn_snapshot_free(empty);
  return 0;
}
