/* Any bytes as a run of tags. What is read, written and read again is written the
 * same; its ids are found, and its rows expire when they say. */
#include <string.h>

#include "engine/row_tags.h"
#include "fuzz.h"

/* Of two rows with the same id either may be found. */
static void check_found(const struct row_tags *tags) {
  struct id_list *ids = id_list_create();
  for (size_t row = 0; row < row_tags_rows(tags); row++) {
    size_t length;
    const char *id = row_tags_id(tags, row, &length);
    if (id) REQUIRE(id_list_append(ids, id, length));
  }
  const size_t count = id_list_count(ids);
  size_t *rows = malloc((count + 1) * sizeof *rows);
  REQUIRE(rows && row_tags_find(tags, ids, rows));
  for (size_t i = 0; i < count; i++) {
    size_t length, other;
    const char *id = id_list_get(ids, i, &length);
    if (rows[i] == SIZE_MAX) {
      REQUIRE(id_list_find_duplicate(ids) < count);
      continue;
    }
    const char *found = row_tags_id(tags, rows[i], &other);
    REQUIRE(found && other == length && memcmp(found, id, length) == 0);
  }
  free(rows);
  id_list_free(ids);
}

static void check_expired(const struct row_tags *tags) {
  const int64_t now = row_tags_soonest(tags);
  size_t count, expected = 0;
  size_t *rows = row_tags_expired(tags, now, &count);
  REQUIRE(rows != NULL);
  for (size_t row = 0; row < row_tags_rows(tags); row++)
    expected += row_tags_expiry(tags, row) <= now;
  REQUIRE(count == expected && count > 0);
  free(rows);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct row_tags *tags = row_tags_create(), *again = row_tags_create();
  REQUIRE(tags && again);
  if (row_tags_decode_run(tags, data, size) == DECODED) {
    struct buffer bytes, same;
    buffer_init(&bytes, 0);
    buffer_init(&same, 0);
    tag_run_encode(row_tags_run(tags, 0), &bytes);
    REQUIRE(row_tags_decode_run(again, bytes.data, bytes.length) == DECODED);
    tag_run_encode(row_tags_run(again, 0), &same);
    REQUIRE(bytes.length == same.length && memcmp(bytes.data, same.data, same.length) == 0);
    check_found(tags);
    check_expired(tags);
    buffer_free(&bytes);
    buffer_free(&same);
  }
  row_tags_free(tags);
  row_tags_free(again);
  return 0;
}
