/* Streamed replies: every byte in its place, whatever pieces they are read in,
 * and a release for each stream, once, however its reply ends. */
#include "http_world.h"

#define LARGE ((size_t)40 << 20) /* more than the sockets' buffers take */

/* What the stream is like, and what became of all there were. */
static struct {
  size_t length, most; /* most: bytes that one read gives */
  size_t breaks_at;    /* 0: never */
  atomic_int opened, released, reads;
} seen;

/* The byte at a position: repeats after no power of two. */
static char byte_at(uint64_t at) {
  return (char)(at * 131 + at / 251);
}

static ssize_t read_bytes(void *context, uint64_t at, char *bytes, size_t room) {
  ck_assert_ptr_eq(context, &seen);
  ck_assert_uint_gt(room, 0);
  ck_assert_uint_lt(at, seen.length);
  ck_assert_uint_le(room, seen.length - at);
  seen.reads++;
  if (seen.breaks_at > 0 && at >= seen.breaks_at) return -1;
  size_t count = room < seen.most ? room : seen.most;
  if (at < seen.breaks_at && seen.breaks_at - at < count) count = (size_t)(seen.breaks_at - at);
  for (size_t i = 0; i < count; i++)
    bytes[i] = byte_at(at + i);
  return (ssize_t)count;
}

static void release(void *context) {
  ck_assert_ptr_eq(context, &seen);
  seen.released++;
}

static void open_stream(struct http_reply *reply) {
  seen.opened++;
  reply->content_type = "application/octet-stream";
  reply->stream = (struct http_stream){
      .length = seen.length, .read = read_bytes, .release = release, .context = &seen};
}

static void stream(void *api, const struct http_request *request, struct http_reply *reply) {
  struct world *world = api;
  (void)request;
  open_stream(reply);
  world->handled++;
}

static void think_again(void *api, const struct http_request *request, struct http_reply *reply) {
  struct problem problem;
  (void)api;
  (void)request;
  open_stream(reply);
  problem_set(&problem, PROBLEM_MEMORY_NOT_FOUND, "", "it went away meanwhile");
  http_reply_problem(reply, &problem);
}

static void outgrow(void *api, const struct http_request *request, struct http_reply *reply) {
  (void)api;
  (void)request;
  open_stream(reply);
  reply->body.limit = 1;
  buffer_puts(&reply->body, "12");
}

/* http_complete() from a thread that the handler starts, of a route without a
 * cost. */
static void *finish(void *context) {
  struct http_reply *reply = context;
  open_stream(reply);
  http_complete(reply);
  return NULL;
}

static void complete_later(void *api, const struct http_request *request,
                           struct http_reply *reply) {
  pthread_t thread;
  (void)api;
  (void)request;
  ck_assert_int_eq(pthread_create(&thread, NULL, finish, reply), 0);
  pthread_detach(thread);
}

static double cost(void *api, const struct http_request *request) {
  (void)api;
  (void)request;
  return 1;
}

#define ROUTE(p, h, o, ...)                                                                        \
  { .method = HTTP_GET, .pattern = p, .handler = h, .operation = o, __VA_ARGS__ }

static const struct http_media *const both_forms[] = {&http_json, &http_tensors, NULL};

static const struct http_route routes[] = {
    ROUTE("/stream", stream, "stream", .place = HTTP_ON_WORKER),
    /* a cost alone leaves the completion to the http side */
    ROUTE("/both", stream, "both", .place = HTTP_ON_WORKER, .cost = cost, .sends = both_forms),
    ROUTE("/at-once", stream, "atOnce", .place = HTTP_ON_IO),
    ROUTE("/later", complete_later, "later", .place = HTTP_ON_WORKER, .completes = true),
    ROUTE("/problem", think_again, "problem", .place = HTTP_ON_WORKER),
    ROUTE("/outgrows", outgrow, "outgrows", .place = HTTP_ON_WORKER),
};
#define ROUTES (sizeof routes / sizeof routes[0])
static const char *const operations[ROUTES] = {"stream", "both",    "atOnce",
                                               "later",  "problem", "outgrows"};

static struct world *start_hasty_world(size_t length, unsigned body_timeout_seconds) {
  const struct world_limits limits = {.max_body_bytes = 1000,
                                      .body_timeout_seconds = body_timeout_seconds};
  memset(&seen, 0, sizeof seen);
  seen.length = length;
  seen.most = SIZE_MAX;
  return start_world_of(routes, operations, ROUTES, &limits);
}

static struct world *start_world(size_t length) {
  return start_hasty_world(length, 3600);
}

#define GET_LINE(path) "GET " path " HTTP/1.1\r\nHost: x\r\n\r\n"

static struct answer get(int descriptor, const char *request) {
  send_text(descriptor, request);
  return receive_answer(descriptor, false);
}

static void check_bytes(const struct answer *answer, size_t length) {
  ck_assert_int_eq(answer->status, 200);
  ck_assert_uint_eq(answer->length, length);
  for (size_t i = 0; i < length; i++)
    if (answer->body[i] != byte_at(i)) ck_abort_msg("byte %zu is wrong", i);
}

static void expect_all_released(void) {
  wait_for_count(&seen.released, seen.opened);
  usleep(20000);
  ck_assert_int_eq(seen.released, seen.opened);
}

/* All on one connection. */
START_TEST(test_every_byte) {
  static const size_t lengths[] = {0, 1, 2, 65535, 65536, 262143, 262144, 262145, 1000003, 3000000};
  static const size_t most[] = {SIZE_MAX, 262143, 7777, 1};
  struct world *world = start_world(0);
  int client = connect_to(world), asked = 0;
  for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++)
    for (size_t j = 0; j < sizeof most / sizeof most[0]; j++) {
      if (most[j] == 1 && lengths[i] > 1000) continue;
      seen.length = lengths[i];
      seen.most = most[j];
      struct answer answer = get(client, GET_LINE("/stream"));
      ck_assert_uint_eq(answer.announced, lengths[i]);
      expect(answer.head, "\r\nContent-Length: ");
      ck_assert_ptr_null(strstr(answer.head, "chunked"));
      check_bytes(&answer, lengths[i]);
      free(answer.body);
      asked++;
    }
  expect_all_released();
  ck_assert_int_eq(seen.opened, asked);
  close(client);
  free_world(world);
}
END_TEST

START_TEST(test_every_way_to_a_reply) {
  static const char *const requests[] = {GET_LINE("/both"), GET_LINE("/at-once"),
                                         GET_LINE("/later")};
  struct world *world = start_world(300000);
  int client = connect_to(world);
  for (size_t i = 0; i < 3; i++) {
    struct answer answer = get(client, requests[i]);
    check_bytes(&answer, 300000);
    free(answer.body);
  }
  expect_all_released();
  ck_assert_int_eq(seen.opened, 3);
  close(client);
  free_world(world);
}
END_TEST

START_TEST(test_head) {
  struct world *world = start_world(LARGE);
  int client = connect_to(world);
  for (int i = 1; i <= 3; i++) {
    send_text(client, "HEAD /stream HTTP/1.1\r\nHost: x\r\n\r\n");
    struct answer answer = receive_answer(client, true);
    ck_assert_int_eq(answer.status, 200);
    ck_assert_uint_eq(answer.announced, LARGE);
    wait_for_count(&seen.released, i);
    ck_assert_int_eq(seen.reads, 0);
  }
  seen.length = 1000;
  struct answer answer = get(client, GET_LINE("/stream"));
  check_bytes(&answer, 1000);
  free(answer.body);
  expect_all_released();
  close(client);
  free_world(world);
}
END_TEST

START_TEST(test_what_is_not_sent_is_released) {
  struct world *world = start_world(1000);
  int client = connect_to(world);
  struct answer answer = get(client, GET_LINE("/problem"));
  ck_assert_int_eq(answer.status, 404);
  expect(answer.body, "\"memory_not_found\"");
  free(answer.body);
  answer = get(client, GET_LINE("/outgrows"));
  ck_assert_int_eq(answer.status, 500);
  free(answer.body);
  ck_assert_int_eq(seen.opened, 2);
  ck_assert_int_eq(seen.released, 2);
  ck_assert_int_eq(seen.reads, 0);
  close(client);
  free_world(world);
}
END_TEST

START_TEST(test_clients_that_leave) {
  struct world *world = start_world(LARGE);
  char bytes[10000];
  for (int i = 0; i < 20; i++) {
    int client = connect_to(world);
    send_text(client, GET_LINE("/stream"));
    for (int j = 0; j < i % 4; j++)
      ck_assert_int_gt(recv(client, bytes, sizeof bytes, 0), 0);
    close(client);
  }
  wait_for_under_way(world, 0);
  expect_all_released();
  free_world(world);
}
END_TEST

/* The rule is about rate: who takes nothing is cut off after body_timeout, who
 * takes a megabyte a second is not, however long it takes. */
START_TEST(test_slow_readers) {
  struct world *world = start_hasty_world(LARGE, 1);
  int still = connect_to(world);
  send_text(still, GET_LINE("/stream"));
  wait_for_count(&seen.opened, 1);
  wait_for_count(&seen.released, 1);
  close(still);

  int steady = connect_to(world);
  static char bytes[100000];
  send_text(steady, GET_LINE("/stream"));
  for (int i = 0; i < 25; i++) {
    ck_assert_int_eq(recv(steady, bytes, sizeof bytes, MSG_WAITALL), sizeof bytes);
    usleep(100000);
  }
  size_t length = 25 * sizeof bytes;
  for (ssize_t got = 1; length < LARGE && got > 0; length += (size_t)got)
    got = recv(steady, bytes, sizeof bytes, 0);
  ck_assert_uint_ge(length, LARGE);
  close(steady);
  expect_all_released();
  free_world(world);
}
END_TEST

START_TEST(test_a_stream_that_breaks) {
  static const size_t places[] = {1, 1000, 262144, 300000};
  struct world *world = start_world(1000000);
  for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
    int client = connect_to(world);
    seen.breaks_at = places[i];
    struct answer answer = get(client, GET_LINE("/stream"));
    ck_assert_uint_eq(answer.announced, 1000000);
    ck_assert_uint_eq(answer.length, places[i]);
    free(answer.body);
    close(client);
    wait_for_count(&seen.released, (int)i + 1); /* its thread reads `seen` until then */
  }
  expect_all_released();
  ck_assert_int_eq(seen.opened, 4);
  free_world(world);
}
END_TEST

START_TEST(test_stop_in_mid_stream) {
  struct world *world = start_world(LARGE);
  int clients[4];
  for (int i = 0; i < 4; i++) {
    clients[i] = connect_to(world);
    send_text(clients[i], GET_LINE("/stream"));
  }
  wait_for_count(&seen.opened, 4);
  char byte;
  ck_assert_int_eq(recv(clients[0], &byte, 1, 0), 1);
  ck_assert(!http_server_drain(world->server, 0.05));
  free_world(world);
  ck_assert_int_eq(seen.released, 4);
  for (int i = 0; i < 4; i++)
    close(clients[i]);
}
END_TEST

START_TEST(test_vary) {
  struct world *world = start_world(10);
  int client = connect_to(world);
  struct answer answer = get(client, GET_LINE("/both"));
  expect(answer.head, "\r\nVary: Accept\r\n");
  free(answer.body);
  answer = get(client, GET_LINE("/stream"));
  ck_assert_ptr_null(strstr(answer.head, "Vary"));
  free(answer.body);
  close(client);
  free_world(world);
}
END_TEST

UNIT_MAIN("streams", test_every_byte, test_every_way_to_a_reply, test_head,
          test_what_is_not_sent_is_released, test_clients_that_leave, test_slow_readers,
          test_a_stream_that_breaks, test_stop_in_mid_stream, test_vary)
