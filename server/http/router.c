/* Method and path against the route table.
 *
 * A pattern is literal text with at most two placeholders, {name} and another, each of which
 * stands for exactly one segment of at least one byte. A segment is taken as it came: nothing
 * is percent-decoded, because no byte of a legal name needs it, and a decoder
 * between the check of a path and its use is how "%2e%2e" and "%00" get in.
 * For the same reason nothing is normalised: a doubled or a trailing slash
 * makes another path.
 *
 * The first route whose pattern fits the path decides which pattern the path
 * belongs to, and the routes with that very pattern decide which methods it
 * has; so `405 Allow` can not disagree with the table. The scan is linear: a
 * few dozen routes cost less than the hash of the path would. */
#include "http/router.h"

#include <stdio.h>
#include <string.h>

#include "base/byte_set.h"

enum { PLACEHOLDERS = 2 };

static const byte_set name_bytes = {['A' ... 'Z'] = true, ['a' ... 'z'] = true,
                                    ['0' ... '9'] = true, ['.'] = true,
                                    ['_'] = true,         ['-'] = true};

static const char *const method_names[HTTP_METHOD_COUNT] = {[HTTP_GET] = "GET",
                                                            [HTTP_PUT] = "PUT",
                                                            [HTTP_POST] = "POST",
                                                            [HTTP_PATCH] = "PATCH",
                                                            [HTTP_DELETE] = "DELETE"};

const char *router_method_name(enum http_method method) {
  return method_names[method];
}

/* What stood for a placeholder; start is NULL if the pattern has it not. */
struct segment {
  const char *start;
  size_t length;
};

static bool pattern_fits(const char *pattern, const char *path, struct segment *segments) {
  size_t count = 0;
  for (size_t i = 0; i < PLACEHOLDERS; i++)
    segments[i] = (struct segment){NULL, 0};
  while (*pattern) {
    if (*pattern != '{') {
      if (*pattern++ != *path++) return false; /* here at the path's end, too */
      continue;
    }
    const size_t length = (size_t)(strchrnul(path, '/') - path);
    if (length == 0 || count == PLACEHOLDERS) return false;
    segments[count++] = (struct segment){path, length};
    path += length;
    pattern = strchrnul(pattern, '}');
    if (*pattern) pattern++;
  }
  return *path == '\0';
}

static bool name_check(const struct segment *name, const char *what, struct problem *problem) {
  size_t good = byte_set_span(name_bytes, name->start);
  if (good < name->length) {
    unsigned char bad = (unsigned char)name->start[good];
    return problem_set(problem, PROBLEM_INVALID_NAME, "",
                       "%s consists of A-Z a-z 0-9 . _ -, but its byte %zu is 0x%02x%s", what,
                       good + 1, bad, bad == '%' ? " ('%': names are not percent-decoded)" : "");
  }
  if (name->length > HTTP_NAME_MAX)
    return problem_set(problem, PROBLEM_INVALID_NAME, "",
                       "%s has at most %d bytes, but this one has %zu", what, HTTP_NAME_MAX,
                       name->length);
  if (name->start[0] == '.')
    return problem_set(problem, PROBLEM_INVALID_NAME, "", "%s does not start with '.'", what);
  return true;
}

static bool method_fits(const struct http_route *route, const char *method) {
  const char *wanted = strcmp(method, "HEAD") == 0 ? "GET" : method;
  return strcmp(method_names[route->method], wanted) == 0;
}

static void list_methods(const struct http_route *routes, size_t count, const char *pattern,
                         char *allow, size_t size) {
  size_t used = 0;
  allow[0] = '\0';
  for (size_t i = 0; i < count; i++) {
    if (strcmp(routes[i].pattern, pattern) != 0) continue;
    int printed =
        snprintf(allow + used, size - used, "%s%s%s", used ? ", " : "",
                 method_names[routes[i].method], routes[i].method == HTTP_GET ? ", HEAD" : "");
    if (printed < 0 || (size_t)printed >= size - used) return;
    used += (size_t)printed;
  }
}

/* The route of that method and of the pattern of the route `first`; `count` where the
 * path lacks it. */
static size_t find_method(const struct http_route *routes, size_t count, size_t first,
                          const char *method) {
  const char *pattern = routes[first].pattern;
  size_t i = first; /* the first one that has the pattern */
  while (i < count && !(method_fits(&routes[i], method) && strcmp(routes[i].pattern, pattern) == 0))
    i++;
  return i;
}

bool router_find(const struct http_route *routes, size_t count, const char *method,
                 const char *path, struct route_match *match, struct problem *problem) {
  struct segment segments[PLACEHOLDERS] = {{NULL, 0}};
  size_t first = 0;
  *match = (struct route_match){.index = count};
  while (first < count && !pattern_fits(routes[first].pattern, path, segments))
    first++;
  match->pattern = first;
  if (first == count)
    return problem_set(problem, PROBLEM_NOT_FOUND, "", "there is nothing at %.400s", path);

  const char *pattern = routes[first].pattern;
  match->index = find_method(routes, count, first, method);
  if (match->index == count) {
    list_methods(routes, count, pattern, match->allow, sizeof match->allow);
    return problem_set(problem, PROBLEM_METHOD_NOT_ALLOWED, "",
                       "%.300s takes %s, but the method is %.40s", path, match->allow, method);
  }
  static const char *const what[] = {"the name of a memory", "the second name of a path"};
  char *const kept[] = {match->name, match->second};
  for (size_t i = 0; i < PLACEHOLDERS && segments[i].start; i++) {
    if (!name_check(&segments[i], what[i], problem)) return false;
    memcpy(kept[i], segments[i].start, segments[i].length);
  }
  return true;
}
