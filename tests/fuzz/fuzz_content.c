/* Any bytes as Content-Type and Content-Encoding, two lines. The first byte says
 * whether the route takes tensors. What must be true:
 *
 *  - what is taken, and as what, is what a reader says that is written here: it
 *    cuts at semicolons and compares with a list;
 *  - a refusal is a 415 with a sentence;
 *  - letters in the other case change nothing. */
#include <ctype.h>
#include <stdbool.h>
#include <string.h>

#include "fuzz.h"
#include "http/content.h"

enum { MOST_BYTES = 4096 };

static char *trim(char *text) {
  text += strspn(text, " \t");
  size_t length = strlen(text);
  while (length > 0 && strchr(" \t", text[length - 1]))
    text[--length] = '\0';
  return text;
}

/* application/SOMETHING+json */
static bool is_json_suffixed(const char *type) {
  const char *something = type + strlen("application/");
  const size_t length = strlen(type);
  return strncasecmp(type, "application/", strlen("application/")) == 0 &&
         length > strlen("application/+json") &&
         strcasecmp(type + length - strlen("+json"), "+json") == 0 && *something;
}

static bool is_other_charset(char *parameter) {
  char *value = strchr(parameter, '=');
  if (!value) return false;
  *value++ = '\0';
  value = trim(value);
  const size_t length = strlen(value);
  if (length >= 2 && value[0] == '"' && value[length - 1] == '"') {
    value[length - 1] = '\0';
    value++;
  }
  return strcasecmp(trim(parameter), "charset") == 0 && strcasecmp(value, "utf-8") != 0;
}

static bool is_taken(const char *type, const char *encoding, bool takes_tensors,
                     const struct http_media **media) {
  char types[MOST_BYTES + 1], encodings[MOST_BYTES + 1], *rest = types;
  strcpy(types, type);
  strcpy(encodings, encoding);
  *media = &http_json;
  const char *coding = trim(encodings);
  if (*coding && strcasecmp(coding, "identity") != 0) return false;
  const char *named = trim(strsep(&rest, ";"));
  if (*named == '\0' && !rest) return true;
  if (strcasecmp(named, "application/x-safetensors") == 0) {
    *media = &http_tensors;
    return takes_tensors;
  }
  bool taken = strcasecmp(named, "application/json") == 0 || is_json_suffixed(named);
  while (rest)
    taken = !is_other_charset(trim(strsep(&rest, ";"))) && taken;
  return taken;
}

static void swap_case(char *text) {
  for (; *text; text++)
    *text = (char)(islower((unsigned char)*text) ? toupper((unsigned char)*text)
                                                 : tolower((unsigned char)*text));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  char type[MOST_BYTES + 1];
  static const struct http_media *const json[] = {&http_json, NULL};
  static const struct http_media *const both[] = {&http_json, &http_tensors, NULL};
  const struct http_media *media, *expected;
  struct problem problem = {0};
  if (size < 1 || size > MOST_BYTES) return 0;
  const bool takes_tensors = data[0] == 't';
  memcpy(type, data + 1, size - 1);
  type[size - 1] = '\0';
  char *line = strchr(type, '\n');
  char *encoding = line ? line + 1 : type + strlen(type);
  if (line) *line = '\0';
  const struct http_media *const *set = takes_tensors ? both : json;
  const bool taken = content_check(type, encoding, set, &media, &problem);
  REQUIRE(taken == is_taken(type, encoding, takes_tensors, &expected));
  if (taken)
    REQUIRE(media == expected);
  else
    REQUIRE(problem.code == PROBLEM_UNSUPPORTED_MEDIA_TYPE && problem.detail[0] != '\0');
  swap_case(type);
  swap_case(encoding);
  REQUIRE(content_check(type, encoding, set, &media, &problem) == taken);
  return 0;
}
