/* Any bytes as a method, a blank and a path, against the API's own table. What must
 * be true, against a reader that is written here, which compares segment by segment:
 *
 *  - the route that is found has that method (HEAD being GET) and a pattern that
 *    fits; where none fits, it is 404; where one fits but the method does not, it is
 *    405 with the methods of the pattern, all of them and no other;
 *  - the name is the segment that stands for {name}, and one by the contract. */
#include <stdbool.h>
#include <string.h>

#include "api/api.h"
#include "fuzz.h"
#include "http/router.h"

enum { MOST_BYTES = 4096 };

static const char *const methods[HTTP_METHOD_COUNT] = {[HTTP_GET] = "GET",
                                                       [HTTP_PUT] = "PUT",
                                                       [HTTP_POST] = "POST",
                                                       [HTTP_PATCH] = "PATCH",
                                                       [HTTP_DELETE] = "DELETE"};

static bool same(const char *a, size_t a_length, const char *b, size_t b_length) {
  return a_length == b_length && memcmp(a, b, a_length) == 0;
}

/* Segment by segment; what stands for {name} is copied to `name`. */
static bool fits(const char *pattern, const char *path, char *name) {
  name[0] = '\0';
  for (;;) {
    const size_t wanted = strcspn(pattern, "/"), length = strcspn(path, "/");
    if (same(pattern, wanted, "{name}", 6) && length > 0)
      snprintf(name, MOST_BYTES, "%.*s", (int)length, path);
    else if (!same(pattern, wanted, path, length))
      return false;
    pattern += wanted;
    path += length;
    if (*pattern == '\0' || *path == '\0') return *pattern == *path;
    pattern++;
    path++;
  }
}

static bool is_name(const char *name) {
  return strlen(name) >= 1 && strlen(name) <= 128 && name[0] != '.' &&
         name[strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                           "0123456789._-")] == '\0';
}

static bool has_method(const struct http_route *route, const char *method) {
  return strcmp(methods[route->method], strcmp(method, "HEAD") == 0 ? "GET" : method) == 0;
}

/* Whether `method` is a word of the list. */
static bool is_listed(const char *allow, const char *method) {
  const char *found = strstr(allow, method);
  const size_t length = strlen(method);
  return found && (found == allow || found[-1] == ' ') &&
         (found[length] == '\0' || found[length] == ',');
}

static void check_allow(const char *allow, const char *pattern) {
  size_t listed = 0, words = 1;
  for (size_t i = 0; i < api_route_count; i++) {
    if (strcmp(api_routes[i].pattern, pattern) != 0) continue;
    REQUIRE(is_listed(allow, methods[api_routes[i].method]));
    listed += api_routes[i].method == HTTP_GET ? 2 : 1;
  }
  for (const char *c = allow; *c; c++)
    words += *c == ',';
  REQUIRE(words == listed);
}

/* Against the first pattern that fits, if any does. */
static void check_found(const char *method, const char *path, const char *pattern,
                        const char *name) {
  struct route_match match;
  struct problem problem = {0};
  const struct http_route *route = NULL;
  for (size_t i = 0; i < api_route_count && pattern && !route; i++)
    if (strcmp(api_routes[i].pattern, pattern) == 0 && has_method(&api_routes[i], method))
      route = &api_routes[i];
  if (router_find(api_routes, api_route_count, method, path, &match, &problem)) {
    REQUIRE(route == &api_routes[match.index]);
    REQUIRE(strcmp(match.name, name) == 0 && (name[0] == '\0' || is_name(name)));
    return;
  }
  REQUIRE(problem.detail[0] != '\0');
  if (!pattern) {
    REQUIRE(problem.code == PROBLEM_NOT_FOUND && match.index == api_route_count);
  } else if (!route) {
    REQUIRE(problem.code == PROBLEM_METHOD_NOT_ALLOWED && match.index == api_route_count);
    check_allow(match.allow, pattern);
  } else {
    REQUIRE(problem.code == PROBLEM_INVALID_NAME && name[0] != '\0' && !is_name(name));
    REQUIRE(route == &api_routes[match.index]);
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  char text[MOST_BYTES + 1], name[MOST_BYTES + 1];
  if (size > MOST_BYTES) return 0;
  memcpy(text, data, size);
  text[size] = '\0';
  char *blank = strchr(text, ' ');
  if (!blank) return 0;
  *blank = '\0';
  const char *path = blank + 1, *pattern = NULL;
  for (size_t i = 0; i < api_route_count && !pattern; i++)
    if (fits(api_routes[i].pattern, path, name)) pattern = api_routes[i].pattern;
  check_found(text, path, pattern, pattern ? name : "");
  return 0;
}
