/* Any bytes as a change. The first two choose the dimensions. What must be true:
 *
 *  - what is read, written and read again is written the same;
 *  - applied to a memory it is refused, or gives one with as many rows as it
 *    says, each finite and with the tags it says; the memory itself stays. */
#include <math.h>
#include <string.h>

#include "engine/change.h"
#include "fuzz.h"

enum { DIM_MAX = 8, ROWS = 20 };

static struct memory *make_memory(size_t key_dim, size_t value_dim) {
  static const float numbers[ROWS * DIM_MAX] = {1, 2, 3};
  struct memory parts = {.name = "m", .version = 1};
  attn_snapshot *empty = NULL;
  struct id_list *ids = id_list_create();
  for (size_t i = 0; i < ROWS; i++) {
    const char id[2] = {(char)('a' + i), '\0'};
    REQUIRE(id_list_append(ids, id, 1));
  }
  REQUIRE(attn_score_create(&parts.score, "dot", NULL, 0, NULL) == ATTN_OK);
  REQUIRE(attn_normalization_create(&parts.normalization, "softmax", NULL, 0, NULL) == ATTN_OK);
  REQUIRE(attn_snapshot_create(&empty, key_dim, value_dim) == ATTN_OK);
  REQUIRE(attn_snapshot_append(&parts.snapshot, empty, numbers, numbers, ROWS) == ATTN_OK);
  REQUIRE(row_tags_edit(&parts.tags, NULL, 0,
                        &(struct tags_edit){.added_count = ROWS, .added_ids = ids}));
  struct memory *memory = memory_create(&parts);
  REQUIRE(memory != NULL);
  attn_snapshot_free(empty);
  attn_snapshot_free(parts.snapshot);
  row_tags_free(parts.tags);
  attn_score_free(parts.score);
  attn_normalization_free(parts.normalization);
  id_list_free(ids);
  return memory;
}

static void check_rows(const struct memory *memory) {
  float key[DIM_MAX], value[DIM_MAX];
  const size_t rows = attn_snapshot_rows(memory->snapshot);
  REQUIRE(!memory->tags || row_tags_rows(memory->tags) == rows);
  for (size_t row = 0; row < rows; row++) {
    size_t length = 0;
    const char *id = row_tags_id(memory->tags, row, &length);
    REQUIRE(!id || (length > 0 && length <= ID_LENGTH_MAX && id[length] == '\0'));
    REQUIRE(row_tags_expiry(memory->tags, row) >= memory->soonest);
    REQUIRE(attn_snapshot_get_row(memory->snapshot, row, key, value) == ATTN_OK);
    for (size_t i = 0; i < attn_snapshot_key_dim(memory->snapshot); i++)
      REQUIRE(isfinite(key[i]));
  }
}

static void check_applied(const struct change *change, size_t key_dim, size_t value_dim) {
  struct memory *before = make_memory(key_dim, value_dim), *after = NULL;
  const attn_status status = change_apply(&after, before, change, 2);
  if (status == ATTN_OK) {
    REQUIRE(attn_snapshot_rows(after->snapshot) ==
            ROWS - change->rows.removed_count + change->rows.added_count);
    REQUIRE(after->version == 2);
    check_rows(after);
    memory_free(after);
  } else {
    REQUIRE(status == ATTN_BAD_ARGUMENT || status == ATTN_NOT_FINITE);
  }
  REQUIRE(attn_snapshot_rows(before->snapshot) == ROWS);
  check_rows(before);
  memory_free(before);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size < 2) return 0;
  const size_t key_dim = data[0] % DIM_MAX + 1u, value_dim = data[1] % DIM_MAX + 1u;
  struct change change, again;
  if (change_decode(&change, key_dim, value_dim, data + 2, size - 2) != ATTN_OK) return 0;
  struct buffer bytes, same;
  buffer_init(&bytes, 0);
  buffer_init(&same, 0);
  change_encode(&change, key_dim, value_dim, &bytes);
  REQUIRE(change_decode(&again, key_dim, value_dim, bytes.data, bytes.length) == ATTN_OK);
  change_encode(&again, key_dim, value_dim, &same);
  REQUIRE(bytes.length == same.length && memcmp(bytes.data, same.data, same.length) == 0);
  check_applied(&change, key_dim, value_dim);
  change_clear(&change);
  change_clear(&again);
  buffer_free(&bytes);
  buffer_free(&same);
  return 0;
}
