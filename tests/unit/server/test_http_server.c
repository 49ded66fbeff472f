/* The HTTP server with handlers and workers of the test's own: what reaches a
 * handler, what becomes of its reply, and how a server stops with requests
 * under way or given up. The rest is in tests/http, over the wire. */
#include "http_world.h"

#define NAME_PATTERN "/v1/things/{name}"

static void show(void *api, const struct http_request *request, struct http_reply *reply) {
  struct world *world = api;
  snprintf(world->name, sizeof world->name, "%s", request->name);
  snprintf(world->query, sizeof world->query, "%s", request->query_string);
  snprintf(world->accept, sizeof world->accept, "%s", request->accept);
  snprintf(world->body, sizeof world->body, "%.*s", (int)request->body_length, request->body);
  snprintf(world->key, sizeof world->key, "%s", request->idempotency_key);
  world->method = request->method;
  world->media = request->body_media;
  world->reply_media = request->reply_media;
  ck_assert_ptr_null(request->upload);
  reply->status = 201;
  reply->content_type = "application/json";
  buffer_puts(&reply->body, "{\"shown\":true}");
  snprintf(reply->etag, sizeof reply->etag, "\"7\"");
  snprintf(reply->location, sizeof reply->location, "/v1/things/%s", request->name);
  world->handled++;
}

static void say_nothing(void *api, const struct http_request *request, struct http_reply *reply) {
  struct world *world = api;
  (void)request;
  reply->status = 204;
  world->handled++;
}

static void outgrow(void *api, const struct http_request *request, struct http_reply *reply) {
  (void)api;
  (void)request;
  reply->body.limit = 4;
  reply->content_type = "text/plain";
  buffer_puts(&reply->body, "12345");
}

static const struct http_media *const json[] = {&http_json, NULL};
static const struct http_media *const json_or_tensors[] = {&http_json, &http_tensors, NULL};

static const struct http_route routes[] = {
    {.method = HTTP_GET,
     .pattern = "/holds",
     .handler = wait_until_let_go,
     .place = HTTP_ON_IO,
     .operation = "holds"},
    {.method = HTTP_GET,
     .pattern = "/waits",
     .handler = wait_until_let_go,
     .place = HTTP_ON_WORKER,
     .operation = "waits"},
    {.method = HTTP_PUT,
     .pattern = NAME_PATTERN,
     .handler = show,
     .place = HTTP_ON_WORKER,
     .takes = json,
     .operation = "show"},
    {.method = HTTP_GET,
     .pattern = NAME_PATTERN,
     .handler = show,
     .place = HTTP_ON_IO,
     .works_unready = true,
     .operation = "look"},
    {.method = HTTP_PATCH,
     .pattern = NAME_PATTERN,
     .handler = show,
     .place = HTTP_ON_WORKER,
     .takes = json_or_tensors,
     .sends = json_or_tensors,
     .operation = "change"},
    {.method = HTTP_DELETE,
     .pattern = NAME_PATTERN,
     .handler = say_nothing,
     .place = HTTP_ON_WORKER,
     .operation = "nothing"},
    {.method = HTTP_GET,
     .pattern = "/outgrows",
     .handler = outgrow,
     .place = HTTP_ON_WORKER,
     .operation = "outgrows"},
};
#define ROUTES (sizeof routes / sizeof routes[0])

static const char *const operations[ROUTES] = {"holds",  "waits",   "show",    "look",
                                               "change", "nothing", "outgrows"};

static const struct world_limits limits = {.max_body_bytes = 1000, .body_timeout_seconds = 30};

static struct world *start_world(void) {
  return start_world_of(routes, operations, ROUTES, &limits);
}

START_TEST(test_handler_and_reply) {
  struct world *world = start_world();
  int client = connect_to(world);
  const char *reply = ask(client, "PUT /v1/things/cats?a=%41&b HTTP/1.1\r\nHost: x\r\n"
                                  "Accept: text/html\r\nAccept: */*;q=0.1\r\n"
                                  "Content-Length: 9\r\n\r\n{\"a\": 1}\n");
  expect(reply, "HTTP/1.1 201 ");
  expect(reply, "\r\nContent-Type: application/json\r\n");
  expect(reply, "\r\nETag: \"7\"\r\n");
  expect(reply, "\r\nLocation: /v1/things/cats\r\n");
  expect(reply, "\r\nCache-Control: no-cache\r\n");
  expect(reply, "\r\nX-Content-Type-Options: nosniff\r\n");
  expect(reply, "\r\nDate: ");
  expect(reply, "\r\n\r\n{\"shown\":true}");
  ck_assert_str_eq(world->name, "cats");
  ck_assert_str_eq(world->query, "a=%41&b");
  ck_assert_str_eq(world->accept, "text/html, */*;q=0.1");
  ck_assert_str_eq(world->body, "{\"a\": 1}\n");
  reply = ask(client, "DELETE /v1/things/cats HTTP/1.1\r\nHost: x\r\n\r\n");
  expect(reply, "HTTP/1.1 204 ");
  ck_assert_ptr_null(strstr(reply, "Content-"));
  close(client);
  free_world(world);
}
END_TEST

START_TEST(test_absent_is_empty) {
  struct world *world = start_world();
  int client = connect_to(world);
  expect(ask(client, GET("/v1/things/cats")), "HTTP/1.1 201 ");
  ck_assert_str_eq(world->query, "");
  ck_assert_str_eq(world->accept, "");
  ck_assert_str_eq(world->body, "");
  close(client);
  free_world(world);
}
END_TEST

START_TEST(test_patch) {
  struct world *world = start_world();
  int client = connect_to(world);
  const char *reply = ask(client, "PATCH /v1/things/cats HTTP/1.1\r\nHost: x\r\n"
                                  "Content-Length: 9\r\n\r\n123456789");
  expect(reply, "HTTP/1.1 201 ");
  expect(reply, "\r\nVary: Accept\r\n");
  ck_assert_int_eq(world->method, HTTP_PATCH);
  ck_assert_str_eq(world->body, "123456789");
  reply = ask(client, "PATCH /waits HTTP/1.1\r\nHost: x\r\n\r\n");
  expect(reply, "HTTP/1.1 405 ");
  expect(reply, "\r\nAllow: GET, HEAD\r\n");
  reply = ask(client, "OPTIONS /v1/things/cats HTTP/1.1\r\nHost: x\r\n\r\n");
  expect(reply, "HTTP/1.1 405 ");
  expect(reply, "\r\nAllow: PUT, GET, HEAD, PATCH, DELETE\r\n");
  struct buffer text;
  buffer_init(&text, 0);
  metrics_write(world->metrics, &text);
  expect(buffer_text(&text), "operation=\"change\",status=\"201\"} 1\n");
  buffer_free(&text);
  close(client);
  free_world(world);
}
END_TEST

static const char *ask_with(int descriptor, const char *method, const char *headers) {
  static char request[1000];
  snprintf(request, sizeof request,
           "%s /v1/things/cats HTTP/1.1\r\nHost: x\r\n%sContent-Length: 2\r\n\r\n{}", method,
           headers);
  return ask(descriptor, request);
}

START_TEST(test_media) {
  struct world *world = start_world();
  int client = connect_to(world);
  expect(ask_with(client, "PATCH", ""), "HTTP/1.1 201 ");
  ck_assert_ptr_eq(world->media, &http_json);
  ck_assert_ptr_ne(world->reply_media, &http_tensors);
  expect(ask_with(client, "PATCH",
                  "Content-Type: application/x-safetensors; a=b\r\n"
                  "Accept: */*;q=0.5\r\nAccept: application/x-safetensors\r\n"),
         "HTTP/1.1 201 ");
  ck_assert_ptr_eq(world->media, &http_tensors);
  ck_assert_ptr_eq(world->reply_media, &http_tensors);
  /* A route that does neither. */
  const char *reply = ask_with(client, "PUT", "Accept: application/x-safetensors\r\n");
  expect(reply, "HTTP/1.1 201 ");
  ck_assert_ptr_null(strstr(reply, "Vary"));
  ck_assert_ptr_ne(world->reply_media, &http_tensors);
  ck_assert_str_eq(world->accept, "application/x-safetensors");
  expect(ask_with(client, "PUT", "Content-Type: application/x-safetensors\r\n"), "HTTP/1.1 415 ");
  expect(ask_with(client, "PATCH", "Content-Type: text/plain\r\n"),
         "application/json or application/x-safetensors");
  close(client);
  free_world(world);
}
END_TEST

static void expect_bad_key(struct world *world, const char *headers) {
  int client = connect_to(world);
  const char *reply = ask_with(client, "PUT", headers);
  expect(reply, "HTTP/1.1 400 ");
  expect(reply, "\"invalid_request\"");
  expect(reply, "Idempotency-Key");
  close(client);
}

START_TEST(test_idempotency_key) {
  struct world *world = start_world();
  int client = connect_to(world);
  char longest[256], line[400];
  memset(longest, 'k', 255);
  longest[255] = '\0';
  expect(ask_with(client, "PUT", ""), "HTTP/1.1 201 ");
  ck_assert_str_eq(world->key, "");
  expect(ask_with(client, "PUT", "idempotency-key:  \"a!~\"\t \r\n"), "HTTP/1.1 201 ");
  ck_assert_str_eq(world->key, "\"a!~\"");
  snprintf(line, sizeof line, "Idempotency-Key: %s\r\n", longest);
  expect(ask_with(client, "PUT", line), "HTTP/1.1 201 ");
  ck_assert_str_eq(world->key, longest);
  close(client);
  snprintf(line, sizeof line, "Idempotency-Key: %sk\r\n", longest);
  expect_bad_key(world, line);
  expect_bad_key(world, "Idempotency-Key: a b\r\n");
  expect_bad_key(world, "Idempotency-Key: a\tb\r\n");
  expect_bad_key(world, "Idempotency-Key: a\x7f\r\n");
  expect_bad_key(world, "Idempotency-Key: \xc3\xa4\r\n");
  expect_bad_key(world, "Idempotency-Key:\r\n");
  expect_bad_key(world, "Idempotency-Key: a\r\nIdempotency-Key: a\r\n");
  free_world(world);
}
END_TEST

START_TEST(test_unready) {
  struct world *world = start_world();
  int client = connect_to(world);
  world->unready = true;
  const char *reply = ask(client, PUT("/v1/things/cats", "123456789"));
  expect(reply, "HTTP/1.1 503 ");
  expect(reply, "\"not_ready\"");
  expect(reply, "\r\nRetry-After: 1\r\n");
  expect(ask(client, GET("/v1/things/cats")), "HTTP/1.1 201 ");
  world->unready = false;
  expect(ask(client, PUT("/v1/things/cats", "123456789")), "HTTP/1.1 201 ");
  close(client);
  free_world(world);
}
END_TEST

START_TEST(test_full_queue) {
  struct world *world = start_world();
  int client = connect_to(world);
  for (int i = 0; i < 20; i++) {
    world->queue_full = true;
    const char *reply = ask(client, PUT("/v1/things/cats", "123456789"));
    expect(reply, "HTTP/1.1 503 ");
    expect(reply, "\"overloaded\"");
    expect(reply, "\r\nRetry-After: 1\r\n");
    world->queue_full = false;
    expect(ask(client, PUT("/v1/things/cats", "123456789")), "HTTP/1.1 201 ");
  }
  ck_assert_int_eq(world->handled, 20);
  close(client);
  free_world(world);
}
END_TEST

START_TEST(test_reply_that_outgrew_its_limit) {
  struct world *world = start_world();
  int client = connect_to(world);
  const char *reply = ask(client, GET("/outgrows"));
  expect(reply, "HTTP/1.1 500 ");
  expect(reply, "\r\nContent-Type: application/problem+json\r\n");
  expect(reply, "\"internal\"");
  close(client);
  free_world(world);
}
END_TEST

START_TEST(test_a_reply_made_a_problem) {
  struct http_reply reply = {.status = 200, .content_type = "text/plain", .etag = "\"1\""};
  struct problem problem;
  buffer_init(&reply.body, 0);
  buffer_puts(&reply.body, "what was there before");
  problem_set(&problem, PROBLEM_OVERLOADED, "", "too much of it");
  http_reply_problem(&reply, &problem);
  ck_assert_int_eq(reply.status, 503);
  ck_assert_uint_eq(reply.retry_after, 1);
  ck_assert_str_eq(reply.content_type, "application/problem+json");
  ck_assert_str_eq(reply.etag, "");
  expect(buffer_text(&reply.body), "\"detail\":\"too much of it\"");
  ck_assert_ptr_null(strstr(buffer_text(&reply.body), "before"));
  problem_set(&problem, PROBLEM_NOT_FOUND, "", "it is not there");
  http_reply_problem(&reply, &problem);
  ck_assert_int_eq(reply.status, 404);
  ck_assert_uint_eq(reply.retry_after, 0);
  buffer_free(&reply.body);
}
END_TEST

struct draining {
  struct world *world;
  bool drained;
};

static void *drain(void *context) {
  struct draining *draining = context;
  draining->drained = http_server_drain(draining->world->server, 60);
  return NULL;
}

START_TEST(test_drain_waits_for_requests_under_way) {
  struct world *world = start_world();
  int waiting = connect_to(world), idle = connect_to(world);
  static char text[4096];
  expect(ask(idle, GET("/v1/things/cats")), "HTTP/1.1 201 ");
  send_text(waiting, GET("/waits"));
  wait_for_under_way(world, 1);
  struct draining draining = {.world = world};
  pthread_t thread;
  ck_assert_int_eq(pthread_create(&thread, NULL, drain, &draining), 0);
  ck_assert(has_ended(idle));
  ck_assert_int_eq(world->handled, 1);
  world->let_go = true;
  const char *reply = receive(waiting, text, sizeof text);
  expect(reply, "\r\n\r\nlet go");
  expect(reply, "\r\nConnection: close\r\n");
  ck_assert(has_ended(waiting));
  pthread_join(thread, NULL);
  ck_assert(draining.drained);
  close(waiting);
  close(idle);
  free_world(world);
}
END_TEST

START_TEST(test_no_connection_while_draining) {
  struct world *world = start_world();
  struct sockaddr_in address = {.sin_family = AF_INET,
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                                .sin_port = htons(http_server_port(world->server))};
  ck_assert(http_server_drain(world->server, 60));
  int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  ck_assert_int_ne(connect(client, (struct sockaddr *)&address, sizeof address), 0);
  close(client);
  free_world(world);
}
END_TEST

/* Requests that no worker will ever finish: the drain gives up, the stop does
 * not hang or abort, and the clients are hung up on. */
START_TEST(test_stop_with_lost_requests) {
  struct world *world = start_world();
  world->lost = true;
  int clients[8];
  for (int i = 0; i < 8; i++) {
    clients[i] = connect_to(world);
    send_text(clients[i], PUT("/v1/things/cats", "123456789"));
  }
  wait_for_under_way(world, 8);
  ck_assert(!http_server_drain(world->server, 0.05));
  free_world(world);
  for (int i = 0; i < 8; i++) {
    ck_assert(has_ended(clients[i]));
    close(clients[i]);
  }
}
END_TEST

START_TEST(test_stop_without_drain) {
  for (int round = 0; round < 20; round++) {
    struct world *world = start_world();
    int idle = connect_to(world), half = connect_to(world), body = connect_to(world);
    send_text(half, "GET /v1/th");
    send_text(body, "PUT /v1/things/cats HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n123");
    if (round % 2) wait_for_under_way(world, 1);
    free_world(world);
    close(idle);
    close(half);
    close(body);
  }
}
END_TEST

/* More clients than are even refused one by one, all of them while the only thread that
 * could take them is busy. No more than the backlog is sure to hold: what is beyond it
 * tries again at doubling intervals. */
START_TEST(test_a_flood_while_the_thread_is_busy) {
  enum { FLOOD = 140 };
  struct world_limits narrow = limits;
  narrow.io_threads = narrow.max_connections = 1;
  struct world *world = start_world_of(routes, operations, ROUTES, &narrow);
  int holder = connect_to(world), clients[FLOOD];
  static char text[4096];
  send_text(holder, GET("/holds"));
  wait_for_under_way(world, 1);
  for (size_t i = 0; i < FLOOD; i++) {
    clients[i] = connect_to(world);
    send_text(clients[i], GET("/v1/things/cats"));
  }
  usleep(100000); /* they are accepted meanwhile, as far as they are */
  world->let_go = true;
  expect(receive(holder, text, sizeof text), "\r\n\r\nlet go");
  for (size_t i = 0; i < FLOOD; i++) {
    expect(receive(clients[i], text, sizeof text), "HTTP/1.1 503 ");
    close(clients[i]);
  }
  expect(ask(holder, GET("/v1/things/cats")), "HTTP/1.1 201 ");
  close(holder);
  free_world(world);
}
END_TEST

START_TEST(test_starts_that_fail) {
  struct world *world = start_world();
  const struct {
    const char *address;
    uint16_t port;
    const char *word;
  } cases[] = {{"127.0.0.1", http_server_port(world->server), "in use"},
               {"localhost", 0, "numeric"},
               {"127.1.1.1.1", 0, "numeric"},
               {"", 0, "numeric"},
               {"192.0.2.1", 0, "interface"}};
  const struct http_services services = {
      .routes = routes, .route_count = ROUTES, .ready = ready, .metrics = world->metrics};
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    const struct http_config config = {.address = cases[i].address,
                                       .port = cases[i].port,
                                       .io_threads = 1,
                                       .max_connections = 10,
                                       .max_body_bytes = 1000};
    char error[200] = "";
    ck_assert_ptr_null(http_server_start(&config, &services, error, sizeof error));
    expect(error, cases[i].word);
  }
  free_world(world);
  http_server_stop(NULL);
}
END_TEST

UNIT_MAIN("http_server", test_handler_and_reply, test_absent_is_empty, test_patch, test_media,
          test_idempotency_key, test_unready, test_full_queue, test_reply_that_outgrew_its_limit,
          test_a_reply_made_a_problem, test_drain_waits_for_requests_under_way,
          test_no_connection_while_draining, test_stop_with_lost_requests, test_stop_without_drain,
          test_a_flood_while_the_thread_is_busy, test_starts_that_fail)
