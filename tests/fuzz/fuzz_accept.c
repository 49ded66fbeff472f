/* Any bytes as an Accept header. What must be true:
 *
 *  - where there are no quotes, the choice is that of a reader that is written
 *    here: it cuts at every comma and semicolon, and weighs with strtod();
 *  - letters in the other case, a range of another type, and ranges in another
 *    order change nothing. */
#include <ctype.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "fuzz.h"
#include "http/accept.h"

enum { MOST_BYTES = 4096, MOST_RANGES = MOST_BYTES };

/* ---- The same by simpler means ---- */

static char *trim(char *text) {
  text += strspn(text, " \t");
  size_t length = strlen(text);
  while (length > 0 && strchr(" \t", text[length - 1]))
    text[--length] = '\0';
  return text;
}

/* NAN where it is no weight. */
static double read_weight(const char *text) {
  const char *rest = text + 1;
  if ((*text != '0' && *text != '1') || strlen(text) > 5) return NAN;
  if (*rest && *rest != '.') return NAN;
  if (*rest && rest[1 + strspn(rest + 1, "0123456789")] != '\0') return NAN;
  const double weight = strtod(text, NULL);
  return weight <= 1 ? weight : NAN;
}

/* Of 0 to 3 kinds of ranges the best one that covers a type. */
struct best {
  int kind;
  double weight;
};

static void offer(struct best *best, int kind, double weight) {
  if (kind > best->kind || (kind == best->kind && weight > best->weight))
    *best = (struct best){kind, weight};
}

static void read_range(char *range, struct best *json, struct best *tensors) {
  const char *type = trim(strsep(&range, ";"));
  double weight = 1;
  while (range) {
    const char *parameter = trim(strsep(&range, ";"));
    if (strncasecmp(parameter, "q=", 2) == 0) weight = read_weight(parameter + 2);
  }
  if (isnan(weight)) return;
  const int family = strcasecmp(type, "application/*") == 0 ? 2 : strcmp(type, "*/*") == 0 ? 1 : 0;
  if (family > 0 || strcasecmp(type, "application/json") == 0)
    offer(json, family > 0 ? family : 3, weight);
  if (family > 0 || strcasecmp(type, "application/x-safetensors") == 0)
    offer(tensors, family > 0 ? family : 3, weight);
}

static bool prefers_tensors(const char *accept) {
  char text[MOST_BYTES + 1], *rest = text;
  struct best json = {0}, tensors = {0};
  strcpy(text, accept);
  while (rest)
    read_range(strsep(&rest, ","), &json, &tensors);
  if (tensors.weight > json.weight || tensors.weight < json.weight)
    return tensors.weight > json.weight;
  return tensors.weight > 0 && tensors.kind > json.kind;
}

/* ---- What changes nothing ---- */

static bool asks_for_tensors(const char *accept) {
  static const struct http_media *const forms[] = {&http_json, &http_tensors, NULL};
  return accept_choose(accept, forms) == &http_tensors;
}

static void check_case(const char *accept, bool expected) {
  char other[MOST_BYTES + 1];
  strcpy(other, accept);
  for (char *c = other; *c; c++)
    *c = (char)(islower((unsigned char)*c) ? toupper((unsigned char)*c)
                                           : tolower((unsigned char)*c));
  REQUIRE(asks_for_tensors(other) == expected);
}

/* Quotes that are closed, and no backslash, which could make another end of them. */
static bool is_closed(const char *accept) {
  size_t quotes = 0;
  for (const char *c = accept; *c; c++)
    quotes += *c == '"';
  return quotes % 2 == 0 && !strchr(accept, '\\');
}

static void check_another_type(const char *accept, bool expected) {
  char longer[MOST_BYTES + 64];
  snprintf(longer, sizeof longer, "text/html;level=\"1,*/*\", %s , a/b;q=0.3", accept);
  REQUIRE(asks_for_tensors(longer) == expected);
}

/* Commas within quotes are no ends of a range. */
static size_t cut_ranges(char *text, char *ranges[MOST_RANGES]) {
  size_t count = 1;
  bool quoted = false;
  ranges[0] = text;
  for (char *c = text; *c; c++) {
    quoted ^= *c == '"';
    if (*c != ',' || quoted) continue;
    *c = '\0';
    ranges[count++] = c + 1;
  }
  return count;
}

static void check_order(const char *accept, bool expected) {
  char text[MOST_BYTES + 1], reversed[MOST_BYTES + 2] = "";
  char *ranges[MOST_RANGES + 1], *end = reversed;
  strcpy(text, accept);
  for (size_t i = cut_ranges(text, ranges); i-- > 0;) {
    end = stpcpy(end, ranges[i]);
    *end++ = ',';
  }
  *end = '\0';
  REQUIRE(asks_for_tensors(reversed) == expected);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  char accept[MOST_BYTES + 1];
  if (size > MOST_BYTES) return 0;
  memcpy(accept, data, size);
  accept[size] = '\0'; /* the first NUL is the end */
  const bool tensors = asks_for_tensors(accept);
  if (!strchr(accept, '"')) REQUIRE(tensors == prefers_tensors(accept));
  check_case(accept, tensors);
  if (is_closed(accept)) {
    check_another_type(accept, tensors);
    check_order(accept, tensors);
  }
  return 0;
}
