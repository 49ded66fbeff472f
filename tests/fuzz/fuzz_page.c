/* Any bytes as the query string of a page of rows, of a memory with three. What must
 * be true, against a reader that is written here:
 *
 *  - offset and limit, each at most once, are whole numbers within their ranges, and
 *    there is no other parameter: then the page has the rows that they say;
 *  - anything else is 400 invalid_parameter. */
#include <stdbool.h>
#include <string.h>

#include "api/api.h"
#include "fuzz.h"

enum { MOST_BYTES = 4096, ROWS = 3 };

static struct memory *make_memory(void) {
  static const float numbers[ROWS] = {1, 2, 3};
  struct memory parts = {.name = "m", .version = 1};
  attn_snapshot *empty = NULL;
  REQUIRE(attn_score_create(&parts.score, "dot", NULL, 0, NULL) == ATTN_OK);
  REQUIRE(attn_normalization_create(&parts.normalization, "softmax", NULL, 0, NULL) == ATTN_OK);
  REQUIRE(attn_snapshot_create(&empty, 1, 1) == ATTN_OK);
  REQUIRE(attn_snapshot_append(&parts.snapshot, empty, numbers, numbers, ROWS) == ATTN_OK);
  struct memory *memory = memory_create(&parts);
  REQUIRE(memory != NULL);
  attn_snapshot_free(empty);
  attn_snapshot_free(parts.snapshot);
  attn_score_free(parts.score);
  attn_normalization_free(parts.normalization);
  return memory;
}

/* ---- What the query string says ---- */

/* Digits alone, without those that change nothing; false beyond `most`. */
static bool read_number(const char *text, const char *most, unsigned long long *number) {
  if (*text == '\0' || text[strspn(text, "0123456789")] != '\0') return false;
  text += strspn(text, "0");
  const size_t length = strlen(text), most_length = strlen(most);
  if (length > most_length || (length == most_length && strcmp(text, most) > 0)) return false;
  *number = strtoull(*text ? text : "0", NULL, 10);
  return true;
}

static bool read_page(char *query, unsigned long long *offset, unsigned long long *limit) {
  bool has_offset = false, has_limit = false;
  *offset = 0;
  *limit = 100;
  while (query) {
    char *value = strsep(&query, "&");
    if (*value == '\0') continue;
    const char *name = strsep(&value, "=");
    bool *seen = strcmp(name, "offset") == 0 ? &has_offset : &has_limit;
    if (*seen || !value || (seen == &has_limit && strcmp(name, "limit") != 0)) return false;
    *seen = true;
    if (seen == &has_offset && !read_number(value, "9007199254740992", offset)) return false;
    if (seen == &has_limit && (!read_number(value, "10000", limit) || *limit == 0)) return false;
  }
  return true;
}

/* ---- The page ---- */

static void check_page(const char *body, unsigned long long offset, unsigned long long limit) {
  for (unsigned long long row = 0; row < ROWS; row++) {
    char wanted[32];
    snprintf(wanted, sizeof wanted, "{\"row\":%llu,", row);
    REQUIRE((strstr(body, wanted) != NULL) == (row >= offset && row - offset < limit));
  }
  REQUIRE(strstr(body, "\"total\":3,") != NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  char query[MOST_BYTES + 1], copy[MOST_BYTES + 1];
  unsigned long long offset, limit;
  if (size > MOST_BYTES) return 0;
  memcpy(query, data, size);
  query[size] = '\0';
  strcpy(copy, query);
  struct api api = {.registry = registry_create(), .max_reply_bytes = 1 << 20};
  REQUIRE(api.registry && registry_put(api.registry, make_memory()));
  const struct http_request request = {.name = "m", .query_string = query, .if_none_match = ""};
  struct http_reply reply = {.status = 200};
  api_list_rows(&api, &request, &reply);
  const char *body = buffer_text(&reply.body);
  if (read_page(copy, &offset, &limit)) {
    REQUIRE(reply.status == 200);
    check_page(body, offset, limit);
  } else {
    REQUIRE(reply.status == 400 && strstr(body, "\"invalid_parameter\""));
  }
  buffer_free(&reply.body);
  registry_free(api.registry);
  return 0;
}
