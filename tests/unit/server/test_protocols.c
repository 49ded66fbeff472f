/* A route of another protocol: its own media types, its own form of errors, two names in its
 * path. Whoever finds a fault, the router, the limits, the queue or the handler, the route says
 * how it looks; and other routes' replies on the same connection stay as they are. */
#include "http_world.h"

static const struct http_media octets = {.type = "application/octet-stream"};
static const struct http_media *const octets_or_json[] = {&octets, &http_json, NULL};
static const struct http_media *const json_or_octets[] = {&http_json, &octets, NULL};

static void write_error(struct buffer *body, const struct problem *problem) {
  buffer_printf(body, "{\"error\":\"%s\"}", problem_info(problem->code)->code);
}

static const struct http_error_format plain_errors = {"application/json", write_error};

static void outgrow(void *api, const struct http_request *request, struct http_reply *reply) {
  (void)api;
  (void)request;
  reply->body.limit = 4;
  reply->content_type = "text/plain";
  buffer_puts(&reply->body, "12345");
}

static void show(void *api, const struct http_request *request, struct http_reply *reply) {
  struct world *world = api;
  snprintf(world->name, sizeof world->name, "%s", request->name);
  snprintf(world->second, sizeof world->second, "%s", request->second);
  world->media = request->body_media;
  world->reply_media = request->reply_media;
  reply->content_type = "application/json";
  buffer_puts(&reply->body, "{}");
}

/* Refuses what the name says. */
static void infer(void *api, const struct http_request *request, struct http_reply *reply) {
  struct problem problem;
  if (strcmp(request->name, "refused") == 0) {
    problem_set(&problem, PROBLEM_SHAPE_MISMATCH, "/inputs", "it does not fit");
    http_reply_problem(reply, &problem);
    problem_set(&problem, PROBLEM_MEMORY_NOT_FOUND, "", "nor is it there"); /* the last counts */
    http_reply_problem(reply, &problem);
  } else if (strcmp(request->name, "outgrows") == 0) {
    outgrow(api, request, reply);
  } else {
    show(api, request, reply);
    reply->content_type = request->reply_media->type;
    reply->content_encoding = "gzip";
  }
}

static const struct http_route routes[] = {
    {.method = HTTP_POST,
     .pattern = "/v2/models/{name}/versions/{version}/infer",
     .handler = infer,
     .place = HTTP_ON_WORKER,
     .takes = octets_or_json,
     .sends = json_or_octets,
     .errors = &plain_errors,
     .operation = "infer"},
    {.method = HTTP_GET,
     .pattern = "/v1/things/{name}",
     .handler = show,
     .place = HTTP_ON_IO,
     .works_unready = true,
     .operation = "look"},
    {.method = HTTP_GET,
     .pattern = "/outgrows",
     .handler = outgrow,
     .place = HTTP_ON_WORKER,
     .operation = "outgrows"},
};
#define ROUTES (sizeof routes / sizeof routes[0])

static const char *const operations[ROUTES] = {"infer", "look", "outgrows"};

static const struct world_limits limits = {.max_body_bytes = 1000, .body_timeout_seconds = 30};

static struct world *start_world(void) {
  return start_world_of(routes, operations, ROUTES, &limits);
}

#define MODEL "/v2/models/cats/versions/3/infer"

static const char *infer_with(int descriptor, const char *path, const char *headers,
                              const char *body) {
  static char request[3000];
  snprintf(request, sizeof request,
           "POST %s HTTP/1.1\r\nHost: x\r\n%sContent-Length: %zu\r\n\r\n%s", path, headers,
           strlen(body), body);
  return ask(descriptor, request);
}

START_TEST(test_a_media_set_of_a_route) {
  struct world *world = start_world();
  int client = connect_to(world);
  const char *reply = infer_with(client, MODEL, "", "ab");
  expect(reply, "HTTP/1.1 200 ");
  expect(reply, "\r\nContent-Type: application/json\r\n");
  expect(reply, "\r\nContent-Encoding: gzip\r\n");
  expect(reply, "\r\nVary: Accept\r\n");
  ck_assert_str_eq(world->name, "cats");
  ck_assert_str_eq(world->second, "3");
  ck_assert_ptr_eq(world->media, &octets);
  ck_assert_ptr_eq(world->reply_media, &http_json);
  reply =
      infer_with(client, MODEL,
                 "Content-Type: application/json\r\nAccept: application/octet-stream\r\n", "ab");
  expect(reply, "\r\nContent-Type: application/octet-stream\r\n");
  ck_assert_ptr_eq(world->media, &http_json);
  ck_assert_ptr_eq(world->reply_media, &octets);
  reply = infer_with(client, MODEL, "Content-Type: application/x-safetensors\r\n", "ab");
  expect(reply, "HTTP/1.1 415 ");
  /* What one route's reply had does not stay for the next. */
  reply = ask(client, GET("/v1/things/cats"));
  expect(reply, "HTTP/1.1 200 ");
  ck_assert_ptr_null(strstr(reply, "Content-Encoding"));
  ck_assert_ptr_null(world->reply_media);
  close(client);
  free_world(world);
}
END_TEST

static void expect_plain_error(const char *reply, const char *status, const char *code) {
  char wanted[100];
  snprintf(wanted, sizeof wanted, "HTTP/1.1 %s ", status);
  expect(reply, wanted);
  expect(reply, "\r\nContent-Type: application/json\r\n");
  snprintf(wanted, sizeof wanted, "\r\n\r\n{\"error\":\"%s\"}", code);
  expect(reply, wanted);
  ck_assert_ptr_null(strstr(reply, "problem+json"));
}

/* Whoever finds the fault, the route says how it looks. */
START_TEST(test_errors_of_a_route) {
  struct world *world = start_world();
  int client = connect_to(world);
  char large[1500];
  memset(large, 'x', sizeof large - 1);
  large[sizeof large - 1] = '\0';
  expect_plain_error(infer_with(client, "/v2/models/refused/versions/3/infer", "", "a"), "404",
                     "memory_not_found");
  expect_plain_error(infer_with(client, "/v2/models/outgrows/versions/3/infer", "", "a"), "500",
                     "internal");
  expect_plain_error(infer_with(client, "/v2/models/cats/versions/.3/infer", "", "a"), "400",
                     "invalid_name");
  expect_plain_error(infer_with(client, MODEL, "Content-Type: text/plain\r\n", "a"), "415",
                     "unsupported_media_type");
  const char *reply = ask(client, GET(MODEL));
  expect_plain_error(reply, "405", "method_not_allowed");
  expect(reply, "\r\nAllow: POST\r\n");
  world->queue_full = true;
  reply = infer_with(client, MODEL, "", "a");
  expect_plain_error(reply, "503", "overloaded");
  expect(reply, "\r\nRetry-After: 1\r\n");
  world->queue_full = false;
  world->unready = true;
  expect_plain_error(infer_with(client, MODEL, "", "a"), "503", "not_ready");
  world->unready = false;
  /* Others' stay as they are. */
  expect(infer_with(client, "/v2/models/cats/infer", "", "a"), "application/problem+json");
  expect(ask(client, GET("/outgrows")), "application/problem+json");
  expect_plain_error(infer_with(client, MODEL, "", large), "413", "body_too_large");
  close(client);
  free_world(world);
}
END_TEST

UNIT_MAIN("protocols", test_a_media_set_of_a_route, test_errors_of_a_route)
