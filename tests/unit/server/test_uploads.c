/* Uploads: bodies that go to the route's own hands as they come. What arrives
 * there, what is refused when, and that every upload ends once: with its
 * handler or with a drop. */
#include "http_world.h"

#define THING        "/v1/things/"
#define MOST         8000000 /* bytes of a body */
#define LARGE        100000
#define REFUSED_FROM 100

/* The route's upload, and the counts of all there were. */
static struct {
  atomic_int begun, dropped, handled, late; /* late: pieces after a refusal */
  _Atomic uint64_t announced;
} seen;

struct upload {
  struct buffer bytes;
  bool picky; /* refuses what comes after the first REFUSED_FROM bytes */
  bool refused;
};

static bool begin(void *api, const struct http_request *request, uint64_t length, void **out,
                  struct problem *problem) {
  (void)api;
  seen.begun++;
  seen.announced = length;
  ck_assert_int_eq(request->method, HTTP_PATCH);
  ck_assert_str_eq(request->body, "");
  ck_assert_ptr_null(request->upload);
  if (strcmp(request->name, "collected") == 0) return true;
  if (strcmp(request->name, "unwanted") == 0)
    return problem_set(problem, PROBLEM_SHAPE_MISMATCH, "", "it is not wanted");
  struct upload *upload = calloc(1, sizeof *upload);
  ck_assert_ptr_nonnull(upload);
  buffer_init(&upload->bytes, 0);
  upload->picky = strcmp(request->name, "picky") == 0;
  *out = upload;
  return true;
}

static bool piece(void *context, const char *bytes, size_t count, struct problem *problem) {
  struct upload *upload = context;
  ck_assert_uint_gt(count, 0);
  if (upload->refused) seen.late++;
  buffer_append(&upload->bytes, bytes, count);
  if (upload->picky && upload->bytes.length > REFUSED_FROM) {
    upload->refused = true;
    return problem_set(problem, PROBLEM_INVALID_NUMBER, "/x", "it is not what was announced");
  }
  return true;
}

static void free_upload(struct upload *upload) {
  buffer_free(&upload->bytes);
  free(upload);
}

static void drop(void *context) {
  seen.dropped++;
  free_upload(context);
}

static const struct http_upload uploads = {.begin = begin, .piece = piece, .drop = drop};

/* Says how the body came, and sends it back. */
static void echo(void *api, const struct http_request *request, struct http_reply *reply) {
  (void)api;
  struct upload *upload = request->upload;
  reply->content_type = "text/plain";
  if (upload) {
    ck_assert_str_eq(request->body, "");
    ck_assert_uint_eq(request->body_length, 0);
    buffer_puts(&reply->body, "upload ");
    buffer_append(&reply->body, upload->bytes.data, upload->bytes.length);
    free_upload(upload);
  } else {
    buffer_puts(&reply->body, "body ");
    buffer_append(&reply->body, request->body, request->body_length);
  }
  seen.handled++;
}

static const struct http_media *const json[] = {&http_json, NULL};

static const struct http_route routes[] = {
    {.method = HTTP_PATCH,
     .pattern = THING "{name}",
     .handler = echo,
     .place = HTTP_ON_WORKER,
     .takes = json,
     .upload = &uploads,
     .operation = "change"},
};
static const char *const operations[] = {"change"};

static struct world *start_hasty_world(unsigned body_timeout_seconds) {
  const struct world_limits limits = {.max_body_bytes = MOST,
                                      .body_timeout_seconds = body_timeout_seconds};
  memset(&seen, 0, sizeof seen);
  return start_world_of(routes, operations, 1, &limits);
}

static struct world *start_world(void) {
  return start_hasty_world(3600);
}

static char *random_text(size_t length) {
  char *text = malloc(length + 1);
  uint64_t state = length;
  ck_assert_ptr_nonnull(text);
  for (size_t i = 0; i < length; i++)
    text[i] = (char)('!' + next_random(&state) % 90);
  text[length] = '\0';
  return text;
}

/* What the server does not take any more is no failure. */
static void send_bytes(int descriptor, const char *bytes, size_t count) {
  while (count > 0) {
    ssize_t sent = send(descriptor, bytes, count, MSG_NOSIGNAL);
    if (sent <= 0) return;
    bytes += sent;
    count -= (size_t)sent;
  }
}

static void send_head(int descriptor, const char *name, const char *headers) {
  char head[400];
  snprintf(head, sizeof head, "PATCH " THING "%s HTTP/1.1\r\nHost: x\r\n%s\r\n", name, headers);
  send_text(descriptor, head);
}

static void send_sized_head(int descriptor, const char *name, size_t length, const char *more) {
  char headers[200];
  snprintf(headers, sizeof headers, "Content-Length: %zu\r\n%s", length, more);
  send_head(descriptor, name, headers);
}

static void send_chunk(int descriptor, const char *bytes, size_t count) {
  char line[30];
  snprintf(line, sizeof line, "%zx\r\n", count);
  send_text(descriptor, line);
  send_bytes(descriptor, bytes, count);
  send_text(descriptor, "\r\n");
}

static void expect_answer(int descriptor, int status, const char *start, const char *rest) {
  struct answer answer = receive_answer(descriptor, false);
  ck_assert_msg(answer.status == status, "%s%s", answer.head, answer.body);
  ck_assert_uint_eq(answer.length, answer.announced);
  if (rest) {
    ck_assert_uint_eq(answer.length, strlen(start) + strlen(rest));
    ck_assert_int_eq(memcmp(answer.body, start, strlen(start)), 0);
    ck_assert_int_eq(memcmp(answer.body + strlen(start), rest, strlen(rest)), 0);
  } else {
    expect(answer.body, start);
  }
  free(answer.body);
}

static void expect_counts(int begun, int handled, int dropped) {
  wait_for_count(&seen.dropped, dropped);
  ck_assert_int_eq(seen.begun, begun);
  ck_assert_int_eq(seen.handled, handled);
  ck_assert_int_eq(seen.late, 0);
}

/* On one connection, one upload after the other. */
START_TEST(test_odd_pieces) {
  static const size_t sizes[] = {1, 7, 1000, 16384, LARGE};
  struct world *world = start_world();
  int client = connect_to(world);
  char *text = random_text(LARGE);
  for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
    size_t length = sizes[i] < 10 ? 2000 * sizes[i] : LARGE;
    char *part = strndup(text, length);
    send_sized_head(client, "cats", length, "");
    for (size_t at = 0; at < length; at += sizes[i])
      send_bytes(client, part + at, length - at < sizes[i] ? length - at : sizes[i]);
    expect_answer(client, 200, "upload ", part);
    ck_assert_uint_eq(seen.announced, length);
    free(part);
  }
  expect_counts(5, 5, 0);
  free(text);
  close(client);
  free_world(world);
}
END_TEST

START_TEST(test_chunked) {
  struct world *world = start_world();
  int client = connect_to(world);
  char *text = random_text(LARGE);
  send_head(client, "cats", "Transfer-Encoding: chunked\r\n");
  for (size_t at = 0, size = 1; at < LARGE; at += size, size = size * 3 + 1) {
    if (size > LARGE - at) size = LARGE - at;
    send_chunk(client, text + at, size);
  }
  send_text(client, "0\r\n\r\n");
  expect_answer(client, 200, "upload ", text);
  ck_assert(seen.announced == UINT64_MAX);
  expect_counts(1, 1, 0);
  free(text);
  close(client);
  free_world(world);
}
END_TEST

START_TEST(test_no_upload_after_all) {
  struct world *world = start_world();
  int client = connect_to(world);
  char *text = random_text(LARGE);
  send_sized_head(client, "collected", LARGE, "");
  send_bytes(client, text, LARGE);
  expect_answer(client, 200, "body ", text);
  expect_counts(1, 1, 0);
  free(text);
  close(client);
  free_world(world);
}
END_TEST

START_TEST(test_no_body) {
  struct world *world = start_world();
  int client = connect_to(world);
  send_head(client, "cats", "");
  expect_answer(client, 200, "upload ", "");
  ck_assert_uint_eq(seen.announced, 0);
  expect_counts(1, 1, 0);
  close(client);
  free_world(world);
}
END_TEST

START_TEST(test_refused_with_the_head) {
  struct world *world = start_world();
  int client = connect_to(world);
  /* A short body is swallowed, and the connection goes on. */
  for (int i = 0; i < 3; i++) {
    send_sized_head(client, "unwanted", 5, "");
    send_text(client, "12345");
    expect_answer(client, 422, "\"shape_mismatch\"", NULL);
  }
  send_sized_head(client, "cats", 5, "");
  send_text(client, "12345");
  expect_answer(client, 200, "upload ", "12345");
  /* A long one is not waited for. */
  send_sized_head(client, "unwanted", LARGE, "");
  expect_answer(client, 422, "\"shape_mismatch\"", NULL);
  ck_assert(has_ended(client));
  expect_counts(5, 1, 0);
  close(client);
  free_world(world);
}
END_TEST

/* The client gets to know why, although it sends on and on. */
START_TEST(test_refused_in_the_middle) {
  static const size_t lengths[] = {200, 20000, LARGE, 1500000, MOST};
  struct world *world = start_world();
  char *text = random_text(MOST);
  for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
    int client = connect_to(world);
    send_sized_head(client, "picky", lengths[i], "");
    send_bytes(client, text, lengths[i]);
    expect_answer(client, 400, "\"invalid_number\"", NULL);
    expect_counts((int)i + 1, 0, (int)i + 1);
    close(client);
  }
  int client = connect_to(world);
  send_head(client, "picky", "Transfer-Encoding: chunked\r\n");
  send_chunk(client, text, REFUSED_FROM);
  send_chunk(client, text, LARGE);
  send_text(client, "0\r\n\r\n");
  expect_answer(client, 400, "\"invalid_number\"", NULL);
  expect_counts(6, 0, 6);
  close(client);
  free(text);
  free_world(world);
}
END_TEST

/* Where much is left of the body, or nobody knows how much, the client need not send it
 * to be answered. */
START_TEST(test_refused_at_once) {
  struct world *world = start_world();
  char *text = random_text(2 * REFUSED_FROM);
  for (int chunked = 0; chunked < 2; chunked++) {
    int client = connect_to(world);
    if (chunked) {
      send_head(client, "picky", "Transfer-Encoding: chunked\r\n");
      send_chunk(client, text, 2 * REFUSED_FROM);
    } else {
      send_sized_head(client, "picky", MOST, "");
      send_bytes(client, text, 2 * REFUSED_FROM);
    }
    expect_answer(client, 400, "\"invalid_number\"", NULL);
    ck_assert(has_ended(client));
    expect_counts(chunked + 1, 0, chunked + 1);
    close(client);
  }
  free(text);
  free_world(world);
}
END_TEST

START_TEST(test_too_large) {
  struct world *world = start_world();
  int client = connect_to(world);
  send_sized_head(client, "cats", MOST + 1, "");
  expect_answer(client, 413, "\"body_too_large\"", NULL);
  expect_counts(0, 0, 0);
  close(client);

  char *text = random_text(MOST + 1);
  client = connect_to(world);
  send_head(client, "cats", "Transfer-Encoding: chunked\r\n");
  send_chunk(client, text, MOST);
  send_chunk(client, text, 1);
  send_text(client, "0\r\n\r\n");
  expect_answer(client, 413, "\"body_too_large\"", NULL);
  expect_counts(1, 0, 1);
  close(client);

  client = connect_to(world);
  send_sized_head(client, "cats", MOST, "");
  text[MOST] = '\0';
  send_bytes(client, text, MOST);
  expect_answer(client, 200, "upload ", text);
  expect_counts(2, 1, 1);
  free(text);
  close(client);
  free_world(world);
}
END_TEST

START_TEST(test_expect) {
  struct world *world = start_world();
  int client = connect_to(world);
  for (int i = 0; i < 2; i++) {
    send_sized_head(client, "cats", 5, "Expect: 100-continue\r\n");
    struct answer interim = receive_answer(client, true);
    ck_assert_int_eq(interim.status, 100);
    send_text(client, "12345");
    expect_answer(client, 200, "upload ", "12345");
  }
  send_sized_head(client, "unwanted", 5, "Expect: 100-continue\r\n");
  expect_answer(client, 422, "\"shape_mismatch\"", NULL);
  ck_assert(has_ended(client));
  expect_counts(3, 2, 0);
  close(client);

  client = connect_to(world);
  send_head(client, "cats", "Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n");
  struct answer interim = receive_answer(client, true);
  ck_assert_int_eq(interim.status, 100);
  send_chunk(client, "123", 3);
  send_chunk(client, "45", 2);
  send_text(client, "0\r\n\r\n");
  expect_answer(client, 200, "upload ", "12345");
  expect_counts(4, 3, 0);
  close(client);
  free_world(world);
}
END_TEST

/* Of some the server learns by the deadline only: their end came with the data. */
START_TEST(test_clients_that_leave) {
  struct world *world = start_hasty_world(1);
  char *text = random_text(LARGE);
  for (int i = 0; i < 40; i++) {
    int client = connect_to(world);
    const struct linger reset = {.l_onoff = i % 2, .l_linger = 0};
    setsockopt(client, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    if (i % 3 == 0)
      send_head(client, "cats", "Transfer-Encoding: chunked\r\n");
    else
      send_sized_head(client, "cats", LARGE, "");
    for (int wait = 0; wait < 60000 && seen.begun <= i; wait++)
      usleep(1000);
    if (i % 3 == 0)
      send_chunk(client, text, (size_t)i * 2000 + 1);
    else
      send_bytes(client, text, (size_t)i * 2000);
    close(client);
  }
  expect_counts(40, 0, 40);
  free(text);
  free_world(world);
}
END_TEST

START_TEST(test_a_client_that_stands_still) {
  struct world *world = start_hasty_world(1);
  int client = connect_to(world);
  send_sized_head(client, "cats", LARGE, "");
  send_text(client, "12345");
  ck_assert(has_ended(client));
  expect_counts(1, 0, 1);
  close(client);
  free_world(world);
}
END_TEST

START_TEST(test_full_queue) {
  struct world *world = start_world();
  int client = connect_to(world);
  for (int i = 1; i <= 5; i++) {
    world->queue_full = true;
    send_sized_head(client, "cats", 5, "");
    send_text(client, "12345");
    expect_answer(client, 503, "\"overloaded\"", NULL);
    expect_counts(2 * i - 1, i - 1, i);
    world->queue_full = false;
    send_sized_head(client, "cats", 5, "");
    send_text(client, "12345");
    expect_answer(client, 200, "upload ", "12345");
  }
  expect_counts(10, 5, 5);
  close(client);
  free_world(world);
}
END_TEST

/* One upload in the middle, one that no worker ever takes up. */
START_TEST(test_stop) {
  struct world *world = start_world();
  world->lost = true;
  int half = connect_to(world), lost = connect_to(world);
  send_sized_head(half, "cats", LARGE, "");
  send_text(half, "12345");
  send_sized_head(lost, "cats", 5, "");
  send_text(lost, "12345");
  wait_for_under_way(world, 2);
  wait_for_count(&seen.begun, 2);
  free_world(world);
  ck_assert_int_eq(seen.dropped, 2);
  ck_assert_int_eq(seen.handled, 0);
  close(half);
  close(lost);
}
END_TEST

UNIT_MAIN("uploads", test_odd_pieces, test_chunked, test_no_upload_after_all, test_no_body,
          test_refused_with_the_head, test_refused_in_the_middle, test_refused_at_once,
          test_too_large, test_expect, test_clients_that_leave, test_a_client_that_stands_still,
          test_full_queue, test_stop)
