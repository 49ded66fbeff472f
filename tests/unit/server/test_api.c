/* What the API's tables promise each other, and preconditions. */
#include "api/api.h"

#include "unit.h"

START_TEST(test_every_route_is_documented) {
  struct api api = {0};
  const struct http_request request = {0};
  struct http_reply reply = {.status = 200};
  api_openapi(&api, &request, &reply);
  const char *document = buffer_text(&reply.body);
  char wanted[256];
  for (size_t r = 0; r < api_route_count; r++) {
    snprintf(wanted, sizeof wanted, "\"%s\":{", api_routes[r].pattern);
    ck_assert_msg(strstr(document, wanted) != NULL, "no path %s", api_routes[r].pattern);
    snprintf(wanted, sizeof wanted, "\"operationId\":\"%s\"", api_routes[r].operation);
    ck_assert_msg(strstr(document, wanted) != NULL, "no operation %s", api_routes[r].operation);
    ck_assert_str_eq(api_operations()[r], api_routes[r].operation);
  }
  for (int code = 0; code < PROBLEM_COUNT; code++) {
    snprintf(wanted, sizeof wanted, "\"%s\"", problem_info((enum problem_code)code)->code);
    ck_assert_msg(strstr(document, wanted) != NULL, "no problem %s", wanted);
  }
  buffer_free(&reply.body);
}
END_TEST

START_TEST(test_routes_are_distinct) {
  for (size_t a = 0; a < api_route_count; a++)
    for (size_t b = a + 1; b < api_route_count; b++) {
      ck_assert_str_ne(api_routes[a].operation, api_routes[b].operation);
      ck_assert(api_routes[a].method != api_routes[b].method ||
                strcmp(api_routes[a].pattern, api_routes[b].pattern) != 0);
    }
}
END_TEST

static bool holds(const char *if_match, const char *if_none_match, int64_t version) {
  const struct http_request request = {.if_match = if_match, .if_none_match = if_none_match};
  return api_preconditions_hold(&request, version);
}

START_TEST(test_preconditions) {
  ck_assert(holds("", "", 0));
  ck_assert(holds("", "", 3));
  ck_assert(holds("*", "", 3));
  ck_assert(!holds("*", "", 0));
  ck_assert(holds("\"3\"", "", 3));
  ck_assert(!holds("\"3\"", "", 4));
  ck_assert(!holds("\"3\"", "", 0));
  ck_assert(!holds("\"3\"", "", 33));
  ck_assert(holds("\"1\", \"3\" ,\"7\"", "", 3));
  ck_assert(!holds("W/\"3\"", "", 3)); /* strong comparison */
  ck_assert(!holds("3", "", 3));
  ck_assert(holds("", "*", 0));
  ck_assert(!holds("", "*", 3));
  ck_assert(!holds("", "\"3\"", 3));
  ck_assert(!holds("", "W/\"3\"", 3)); /* weak comparison */
  ck_assert(holds("", "\"3\"", 4));
  ck_assert(!holds("\"3\"", "*", 3));
}
END_TEST

UNIT_MAIN("api", test_every_route_is_documented, test_routes_are_distinct, test_preconditions)
