/* Any bytes as If-Match and If-None-Match, two lines; the first byte is the version
 * of the memory, 0 for one that is not there. What must be true:
 *
 *  - lists that are sound (RFC 9110, 8.8.3 and 13.1) allow what a reader says that
 *    takes them apart by the grammar;
 *  - whatever the list: If-Match never lets a change of a memory pass that it
 *    doesn't name, in quotes or by a star, or that isn't there. */
#include <inttypes.h>
#include <stdbool.h>
#include <string.h>

#include "api/api.h"
#include "fuzz.h"

enum { MOST_BYTES = 4096 };

/* What a list names. */
struct names {
  bool sound;
  bool strong, weak; /* the version, by a tag of that kind */
  bool any;
};

static bool is_tag_byte(char c) {
  const unsigned char byte = (unsigned char)c;
  return byte == 0x21 || (byte >= 0x23 && byte <= 0x7e) || byte >= 0x80;
}

/* One tag: the text behind it, or NULL where there is none. */
static const char *read_tag(const char *text, const char *wanted, struct names *names) {
  const bool weak = strncmp(text, "W/", 2) == 0;
  text += weak ? 2 : 0;
  if (*text++ != '"') return NULL;
  const char *end = text;
  while (is_tag_byte(*end))
    end++;
  if (*end != '"') return NULL;
  if ((size_t)(end - text) == strlen(wanted) && memcmp(text, wanted, strlen(wanted)) == 0)
    *(weak ? &names->weak : &names->strong) = true;
  return end + 1;
}

static struct names read_list(const char *text, const char *wanted) {
  struct names names = {0};
  if (strcmp(text, "*") == 0) return (struct names){.sound = true, .any = true};
  for (bool first = true; *text; first = false) {
    text += strspn(text, " \t");
    if (!first) {
      if (*text != ',') return names;
      text++;
    }
    text += strspn(text, " \t,"); /* empty elements are passed over */
    if (*text && !(text = read_tag(text, wanted, &names))) return names;
    text += strspn(text, " \t");
  }
  names.sound = true;
  return names;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  char if_match[MOST_BYTES + 1], wanted[8], quoted[10];
  if (size < 1 || size > MOST_BYTES) return 0;
  const int64_t version = data[0] % 16;
  memcpy(if_match, data + 1, size - 1);
  if_match[size - 1] = '\0';
  char *line = strchr(if_match, '\n');
  const char *if_none_match = line ? line + 1 : "";
  if (line) *line = '\0';
  snprintf(wanted, sizeof wanted, "%" PRId64, version);
  snprintf(quoted, sizeof quoted, "\"%s\"", wanted);
  const struct http_request request = {.if_match = if_match, .if_none_match = if_none_match};
  const bool holds = api_preconditions_hold(&request, version);
  const struct names match = read_list(if_match, wanted);
  const struct names none = read_list(if_none_match, wanted);
  if (match.sound && none.sound) {
    const bool there = version > 0;
    const bool matches = *if_match == '\0' || (there && (match.any || match.strong));
    const bool differs = !there || !(none.any || none.strong || none.weak);
    REQUIRE(holds == (matches && differs));
  }
  if (none.sound)
    REQUIRE(api_is_known(&request, version) == (none.any || none.strong || none.weak));
  if (holds && *if_match)
    REQUIRE(version > 0 && (strchr(if_match, '*') || strstr(if_match, quoted)));
  return 0;
}
