/* Content-Type and Content-Encoding of a request body.
 *
 * A body's type is accepted because it is in the route's set. A missing type stands for the
 * first form of the set: JSON, nearly always, and `curl --data-binary` users expect it to work. A
 * wrong one is refused, because guessing is how a form ends up parsed as something it is not
 * (and because a browser can send a form to another site's server, but not JSON without asking
 * first). */
#include "http/content.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

const struct http_media http_json = {"application/json", "+json", true};
const struct http_media http_tensors = {HTTP_TENSORS_TYPE, NULL, false};

struct span {
  const char *start;
  size_t length;
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

static bool has_suffix(struct span type, const char *text) {
  const size_t prefix = sizeof SUFFIXED_UNDER - 1, suffix = strlen(text);
  return type.length > prefix + suffix && strncasecmp(type.start, SUFFIXED_UNDER, prefix) == 0 &&
         strncasecmp(type.start + type.length - suffix, text, suffix) == 0;
}

/* NULL if it is none of them. */
static const struct http_media *find_media(struct span type,
                                           const struct http_media *const *takes) {
  for (; *takes; takes++)
    if (span_equals(type, (*takes)->type) ||
        ((*takes)->suffix && has_suffix(type, (*takes)->suffix)))
      return *takes;
  return NULL;
}

/* "application/json or application/x-safetensors" */
static void list_types(const struct http_media *const *takes, char *text, size_t size) {
  size_t used = 0;
  text[0] = '\0';
  for (size_t i = 0; takes[i] && used < size; i++)
    used += (size_t)snprintf(text + used, size - used, "%s%s", i > 0 ? " or " : "", takes[i]->type);
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

bool content_check(const char *type, const char *encoding, const struct http_media *const *takes,
                   const struct http_media **media, struct problem *problem) {
  *media = takes[0];
  struct span coding = trimmed(encoding, strlen(encoding));
  if (coding.length > 0 && !span_equals(coding, "identity"))
    return problem_set(problem, PROBLEM_UNSUPPORTED_MEDIA_TYPE, "",
                       "a body is taken without Content-Encoding, but this one has %.100s",
                       encoding);
  size_t length = strcspn(type, ";");
  struct span media_type = trimmed(type, length);
  if (media_type.length == 0 && type[length] == '\0') return true;
  const struct http_media *found = find_media(media_type, takes);
  if (!found) {
    char types[200];
    const bool form =
        takes[0] == &http_json && span_equals(media_type, "application/x-www-form-urlencoded");
    list_types(takes, types, sizeof types);
    return problem_set(
        problem, PROBLEM_UNSUPPORTED_MEDIA_TYPE, "",
        "the Content-Type of a body is %s, but this one is %.100s%s", types, type,
        form ? " (curl sends that unless told --json or -H 'Content-Type: application/json')" : "");
  }
  *media = found;
  if (found->utf8 && !charset_is_accepted(type + length))
    return problem_set(problem, PROBLEM_UNSUPPORTED_MEDIA_TYPE, "",
                       "the charset of a body is utf-8, but the Content-Type is %.100s", type);
  return true;
}
