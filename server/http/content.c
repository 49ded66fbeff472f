/* Content-Type and Content-Encoding of a request body.
 *
 * A body type is accepted because it stands in `accepted`; to take another one
 * is a line there. Tensors are for the routes that take them. A missing type
 * counts as JSON, since nearly everything the server speaks is that and `curl --data-binary` users
 * expect it to work; a wrong one is refused, because guessing is how a form ends up parsed as
 * something it is not (and because a browser can send a form to another site's server, but not JSON
 * without asking first). */
#include "http/content.h"

#include <string.h>
#include <strings.h>

struct span {
  const char *start;
  size_t length;
};

enum type_match { WHOLE_TYPE, TYPE_SUFFIX };

/* Of a suffix ("+json") any type under application/ is meant. */
static const struct accepted_type {
  enum type_match match;
  const char *text;
  enum http_media media;
} accepted[] = {
    {WHOLE_TYPE, "application/json", HTTP_JSON},
    {TYPE_SUFFIX, "+json", HTTP_JSON},
    {WHOLE_TYPE, HTTP_TENSORS_TYPE, HTTP_TENSORS},
};

#define SUFFIXED_UNDER "application/"

static struct span trimmed(const char *start, size_t length) {
  while (length > 0 && (*start == ' ' || *start == '\t')) {
    start++;
    length--;
  }
  while (length > 0 && (start[length - 1] == ' ' || start[length - 1] == '\t'))
    length--;
  return (struct span){start, length};
}

static bool span_equals(struct span span, const char *text) {
  return span.length == strlen(text) && strncasecmp(span.start, text, span.length) == 0;
}

static bool type_matches(struct span type, const struct accepted_type *rule) {
  if (rule->match == WHOLE_TYPE) return span_equals(type, rule->text);
  const size_t prefix = sizeof SUFFIXED_UNDER - 1, suffix = strlen(rule->text);
  return type.length > prefix + suffix && strncasecmp(type.start, SUFFIXED_UNDER, prefix) == 0 &&
         strncasecmp(type.start + type.length - suffix, rule->text, suffix) == 0;
}

static bool type_is_accepted(struct span type, bool takes_tensors, enum http_media *media) {
  for (size_t i = 0; i < sizeof accepted / sizeof accepted[0]; i++) {
    if (!type_matches(type, &accepted[i])) continue;
    *media = accepted[i].media;
    return *media == HTTP_JSON || takes_tensors;
  }
  return false;
}

/* True where `parameters`, all that follows the first ';', names no charset
 * but UTF-8. A quoted value may hold ';', but a charset never does, so the
 * parameters can be cut there. */
static bool charset_is_accepted(const char *parameters) {
  while (*parameters) {
    size_t length = strcspn(parameters, ";");
    struct span parameter = trimmed(parameters, length);
    const char *equals = memchr(parameter.start, '=', parameter.length);
    if (equals) {
      size_t name_length = (size_t)(equals - parameter.start);
      struct span name = trimmed(parameter.start, name_length);
      struct span value = trimmed(equals + 1, parameter.length - name_length - 1);
      if (value.length >= 2 && value.start[0] == '"' && value.start[value.length - 1] == '"')
        value = (struct span){value.start + 1, value.length - 2};
      if (span_equals(name, "charset") && !span_equals(value, "utf-8")) return false;
    }
    parameters += length;
    if (*parameters == ';') parameters++;
  }
  return true;
}

bool content_check(const char *type, const char *encoding, bool takes_tensors,
                   enum http_media *media, struct problem *problem) {
  *media = HTTP_JSON;
  struct span coding = trimmed(encoding, strlen(encoding));
  if (coding.length > 0 && !span_equals(coding, "identity"))
    return problem_set(problem, PROBLEM_UNSUPPORTED_MEDIA_TYPE, "",
                       "a body is taken without Content-Encoding, but this one has %.100s",
                       encoding);
  size_t length = strcspn(type, ";");
  struct span media_type = trimmed(type, length);
  if (media_type.length == 0 && type[length] == '\0') return true;
  if (!type_is_accepted(media_type, takes_tensors, media)) {
    bool form = span_equals(media_type, "application/x-www-form-urlencoded");
    return problem_set(
        problem, PROBLEM_UNSUPPORTED_MEDIA_TYPE, "",
        "the Content-Type of a body is application/json%s, but this one is %.100s%s",
        takes_tensors ? " or " HTTP_TENSORS_TYPE : "", type,
        form ? " (curl sends that unless told --json or -H 'Content-Type: application/json')" : "");
  }
  if (*media == HTTP_JSON && !charset_is_accepted(type + length))
    return problem_set(problem, PROBLEM_UNSUPPORTED_MEDIA_TYPE, "",
                       "the charset of a body is utf-8, but the Content-Type is %.100s", type);
  return true;
}
