/* Paths and methods against a route table: what fits, what the path's methods
 * are, which names pass. The names are judged by a list of bytes written down
 * here, one by one, from the contract. */
#include "http/router.h"

#include "http/head.h"
#include "unit.h"

static void no_handler(void *api, const struct http_request *request, struct http_reply *reply) {
  (void)api;
  (void)request;
  (void)reply;
}

#define ROUTE(m, p, o)                                                                             \
  { .method = m, .pattern = p, .handler = no_handler, .operation = o }

static const struct http_route routes[] = {
    ROUTE(HTTP_GET, "/", "root"),
    ROUTE(HTTP_GET, "/healthz", "health"),
    ROUTE(HTTP_GET, "/v1/memories", "list"),
    ROUTE(HTTP_GET, "/v1/memories/{name}", "get"),
    ROUTE(HTTP_PUT, "/v1/memories/{name}", "put"),
    ROUTE(HTTP_DELETE, "/v1/memories/{name}", "delete"),
    ROUTE(HTTP_PATCH, "/v1/things/{name}", "change"),
    ROUTE(HTTP_GET, "/v1/things/{name}", "look"),
    ROUTE(HTTP_POST, "/v1/memories/{name}/rows", "append"),
    ROUTE(HTTP_GET, "/v1/memories/{name}/rows", "rows"),
    ROUTE(HTTP_POST, "/v1/memories/{name}/attend", "attend"),
    ROUTE(HTTP_POST, "/v1/attend", "attendOnce"),
    ROUTE(HTTP_GET, "/v2/health/live", "live"),
    ROUTE(HTTP_GET, "/v2/{name}/live", "liveNamed"),
    ROUTE(HTTP_GET, "/v2/models/{name}/versions/{version}", "version"),
    ROUTE(HTTP_POST, "/v2/models/{name}/versions/{version}/infer", "inferVersion"),
    ROUTE(HTTP_POST, "/v2/models/{name}/infer", "infer"),
    ROUTE(HTTP_GET, "/v3/{a}/{b}", "pair"),
};
#define ROUTES (sizeof routes / sizeof routes[0])

static struct route_match match;
static struct problem problem;

static bool find(const char *method, const char *path) {
  memset(&match, 0xff, sizeof match);
  memset(&problem, 0, sizeof problem);
  return router_find(routes, ROUTES, method, path, &match, &problem);
}

static void expect_found(const char *method, const char *path, const char *operation,
                         const char *name) {
  ck_assert_msg(find(method, path), "%s %s: %s", method, path, problem.detail);
  ck_assert_str_eq(routes[match.index].operation, operation);
  ck_assert_str_eq(match.name, name);
  ck_assert_str_eq(match.second, "");
  ck_assert_str_eq(routes[match.pattern].pattern, routes[match.index].pattern);
}

static void expect_two(const char *method, const char *path, const char *operation,
                       const char *name, const char *second) {
  ck_assert_msg(find(method, path), "%s %s: %s", method, path, problem.detail);
  ck_assert_str_eq(routes[match.index].operation, operation);
  ck_assert_str_eq(match.name, name);
  ck_assert_str_eq(match.second, second);
}

static void expect_problem(const char *method, const char *path, enum problem_code code) {
  ck_assert_msg(!find(method, path), "%s %s was found", method, path);
  ck_assert_msg(problem.code == code, "%s %s: %s", method, path, problem_info(problem.code)->code);
  ck_assert_str_ne(problem.detail, "");
}

START_TEST(test_every_route_is_found) {
  expect_found("GET", "/", "root", "");
  expect_found("GET", "/healthz", "health", "");
  expect_found("GET", "/v1/memories", "list", "");
  expect_found("GET", "/v1/memories/cats", "get", "cats");
  expect_found("PUT", "/v1/memories/cats", "put", "cats");
  expect_found("DELETE", "/v1/memories/cats", "delete", "cats");
  expect_found("POST", "/v1/memories/cats/rows", "append", "cats");
  expect_found("GET", "/v1/memories/cats/rows", "rows", "cats");
  expect_found("POST", "/v1/memories/cats/attend", "attend", "cats");
  expect_found("POST", "/v1/attend", "attendOnce", "");
  expect_found("PATCH", "/v1/things/cats", "change", "cats");
  /* A name may read like a part of a path. */
  expect_found("GET", "/v1/memories/rows", "get", "rows");
  expect_found("GET", "/v1/memories/rows/rows", "rows", "rows");
}
END_TEST

START_TEST(test_head_is_get) {
  expect_found("HEAD", "/healthz", "health", "");
  expect_found("HEAD", "/v1/memories/cats", "get", "cats");
  expect_problem("HEAD", "/v1/attend", PROBLEM_METHOD_NOT_ALLOWED);
}
END_TEST

START_TEST(test_the_first_pattern_wins) {
  expect_found("GET", "/v2/health/live", "live", "");
  expect_found("GET", "/v2/healthy/live", "liveNamed", "healthy");
}
END_TEST

START_TEST(test_two_placeholders) {
  expect_two("GET", "/v2/models/cats/versions/3", "version", "cats", "3");
  expect_two("HEAD", "/v2/models/cats/versions/3", "version", "cats", "3");
  expect_two("POST", "/v2/models/cats/versions/3/infer", "inferVersion", "cats", "3");
  expect_two("POST", "/v2/models/versions/versions/infer/infer", "inferVersion", "versions",
             "infer");
  expect_two("GET", "/v3/a/b", "pair", "a", "b");
  expect_found("POST", "/v2/models/cats/infer", "infer", "cats");
  const char *const paths[] = {"/v2/models/cats/versions",
                               "/v2/models/cats/versions/",
                               "/v2/models//versions/3",
                               "/v2/models/cats/versions/3/",
                               "/v2/models/cats/versions/3/4",
                               "/v2/models/cats/versions//infer",
                               "/v3/a",
                               "/v3/a/",
                               "/v3//b",
                               "/v3/a/b/c"};
  for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++)
    expect_problem("GET", paths[i], PROBLEM_NOT_FOUND);
}
END_TEST

/* Both are checked alike, and the route is known for log and metrics. */
START_TEST(test_second_names) {
  char path[400] = "/v3/a/";
  const size_t start = strlen(path);
  for (size_t length = 1; length <= 300; length++) {
    memset(path + start, 'n', length);
    if (length <= 128)
      expect_two("GET", path, "pair", "a", path + start);
    else
      expect_problem("GET", path, PROBLEM_INVALID_NAME);
  }
  const char *const bad[] = {"/v3/a/.", "/v3/a/..", "/v3/a/%41", "/v3/a/b c", "/v3/.a/b"};
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    expect_problem("GET", bad[i], PROBLEM_INVALID_NAME);
    ck_assert_str_eq(routes[match.index].operation, "pair");
  }
}
END_TEST

START_TEST(test_other_paths_are_not_found) {
  const char *const paths[] = {"",
                               "//",
                               "/healthz/",
                               "/healthz//",
                               "//healthz",
                               "/Healthz",
                               "/healthz.",
                               "/health",
                               "healthz",
                               "*",
                               "/v1",
                               "/v1/",
                               "/v1/memories/",
                               "/v1/memories//",
                               "/v1/memories//rows",
                               "/v1/memories/cats/",
                               "/v1/memories/cats/rows/",
                               "/v1/memories/cats/rows/1",
                               "/v1/memories/cats/row",
                               "/v1/memories/cats/rowsrows",
                               "/v1/memories/cats/dogs/rows",
                               "/v1/memories/{name}/x",
                               "/v1//attend",
                               "/v1/attend ",
                               "/%68ealthz"};
  for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
    expect_problem("GET", paths[i], PROBLEM_NOT_FOUND);
    ck_assert_uint_eq(match.index, ROUTES);
    ck_assert_uint_eq(match.pattern, ROUTES);
    ck_assert_str_eq(match.allow, "");
    ck_assert_msg(strstr(problem.detail, paths[i]), "the detail lacks the path %s", paths[i]);
  }
}
END_TEST

START_TEST(test_a_long_path_is_not_found) {
  char *path = malloc(100001);
  ck_assert_ptr_nonnull(path);
  memset(path, 'a', 100000);
  path[0] = '/';
  path[100000] = '\0';
  expect_problem("GET", path, PROBLEM_NOT_FOUND);
  free(path);
}
END_TEST

static void expect_allow(const char *method, const char *path, const char *allow) {
  expect_problem(method, path, PROBLEM_METHOD_NOT_ALLOWED);
  ck_assert_str_eq(match.allow, allow);
  ck_assert_uint_eq(match.index, ROUTES);
  ck_assert_uint_lt(match.pattern, ROUTES);
}

START_TEST(test_allow_comes_from_the_table) {
  expect_allow("POST", "/healthz", "GET, HEAD");
  expect_allow("GET", "/v1/attend", "POST");
  expect_allow("POST", "/v1/memories/cats", "GET, HEAD, PUT, DELETE");
  expect_allow("PUT", "/v1/memories/cats/rows", "POST, GET, HEAD");
  expect_allow("OPTIONS", "/v1/memories", "GET, HEAD");
  expect_allow("PATCH", "/v1/memories/cats", "GET, HEAD, PUT, DELETE");
  expect_allow("PUT", "/v1/things/cats", "PATCH, GET, HEAD");
}
END_TEST

START_TEST(test_methods_are_exact) {
  const char *const methods[] = {"get",   "Get",     "GETS", "GE",   "",
                                 "TRACE", "CONNECT", "PRI",  "patch"};
  for (size_t i = 0; i < sizeof methods / sizeof methods[0]; i++)
    expect_allow(methods[i], "/healthz", "GET, HEAD");
}
END_TEST

/* The contract: A-Z a-z 0-9 . _ - */
static bool legal(int byte) {
  switch (byte) {
  case '.':
  case '_':
  case '-':
    return true;
  default:
    return (byte >= '0' && byte <= '9') || (byte >= 'A' && byte <= 'Z') ||
           (byte >= 'a' && byte <= 'z');
  }
}

START_TEST(test_every_byte_of_a_name) {
  for (int byte = 1; byte < 256; byte++) {
    if (byte == '/') continue;
    for (size_t place = 0; place < 3; place++) {
      char path[] = "/v1/memories/abc/rows";
      char *name = path + strlen("/v1/memories/");
      name[place] = (char)byte;
      bool expected = legal(byte) && !(byte == '.' && place == 0);
      if (expected) {
        char wanted[] = "abc";
        wanted[place] = (char)byte;
        expect_found("GET", path, "rows", wanted);
      } else {
        expect_problem("GET", path, PROBLEM_INVALID_NAME);
        ck_assert_str_eq(routes[match.index].operation, "rows");
      }
    }
  }
}
END_TEST

START_TEST(test_length_of_a_name) {
  for (size_t length = 1; length <= 300; length++) {
    char path[400] = "/v1/memories/";
    size_t start = strlen(path);
    memset(path + start, 'n', length);
    if (length <= 128)
      expect_found("GET", path, "get", path + start);
    else
      expect_problem("GET", path, PROBLEM_INVALID_NAME);
  }
}
END_TEST

START_TEST(test_dots) {
  expect_problem("GET", "/v1/memories/.", PROBLEM_INVALID_NAME);
  expect_problem("GET", "/v1/memories/..", PROBLEM_INVALID_NAME);
  expect_problem("GET", "/v1/memories/../rows", PROBLEM_INVALID_NAME);
  expect_problem("GET", "/v1/memories/%2e%2e/rows", PROBLEM_INVALID_NAME);
  expect_found("GET", "/v1/memories/a..b", "get", "a..b");
}
END_TEST

START_TEST(test_an_empty_table) {
  ck_assert(!router_find(routes, 0, "GET", "/", &match, &problem));
  ck_assert_int_eq(problem.code, PROBLEM_NOT_FOUND);
  ck_assert_uint_eq(match.index, 0);
}
END_TEST

static void expect_split(const char *target, const char *path, const char *query) {
  char copy[200];
  const char *found_path, *found_query;
  snprintf(copy, sizeof copy, "%s", target);
  head_split_target(copy, &found_path, &found_query);
  ck_assert_str_eq(found_path, path);
  ck_assert_str_eq(found_query, query);
}

START_TEST(test_targets) {
  expect_split("/a/b", "/a/b", "");
  expect_split("/a/b?", "/a/b", "");
  expect_split("/a/b?x=1&y=%20", "/a/b", "x=1&y=%20");
  expect_split("/a?b?c", "/a", "b?c");
  expect_split("?x", "", "x");
  expect_split("*", "*", "");
  expect_split("http://host/a/b?x=1", "/a/b", "x=1");
  expect_split("HTTP://host:80/a", "/a", "");
  expect_split("http://host", "/", "");
  expect_split("http://host?x=/y", "/", "x=/y");
  expect_split("https://host/a", "https://host/a", "");
}
END_TEST

UNIT_MAIN("router", test_every_route_is_found, test_head_is_get, test_the_first_pattern_wins,
          test_other_paths_are_not_found, test_a_long_path_is_not_found,
          test_allow_comes_from_the_table, test_methods_are_exact, test_every_byte_of_a_name,
          test_length_of_a_name, test_two_placeholders, test_second_names, test_dots,
          test_an_empty_table, test_targets)
