/* The HTTP server with routes and workers of a suite's own, and clients that
 * speak to it over sockets.
 *
 * A suite starts a world over a route table of its own; the world is the api that
 * its handlers are given. */
#ifndef TESTS_UNIT_SERVER_HTTP_WORLD_H
#define TESTS_UNIT_SERVER_HTTP_WORLD_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <time.h>

#include "http/http.h"
#include "unit.h"

/* What a test decides, and what its handlers saw. */
struct world {
  struct metrics *metrics;
  struct http_server *server;
  atomic_bool unready, queue_full, lost, let_go;
  atomic_int handled, running;
  char name[200], second[200], query[200], accept[200], body[200], key[300];
  enum http_method method;
  const struct http_media *media, *reply_media;
};

struct job {
  struct world *world;
  void (*run)(void *argument);
  void *argument;
};

static inline void *work(void *context) {
  struct job job = *(struct job *)context;
  free(context);
  job.run(job.argument);
  job.world->running--;
  return NULL;
}

/* A thread for each request: the worst order of events there can be. */
static inline bool submit(void *context, void (*run)(void *argument), void *argument,
                          double seconds) {
  struct world *world = context;
  (void)seconds;
  if (world->queue_full) return false;
  if (world->lost) return true;
  struct job *job = malloc(sizeof *job);
  ck_assert_ptr_nonnull(job);
  *job = (struct job){world, run, argument};
  world->running++;
  pthread_t thread;
  ck_assert_int_eq(pthread_create(&thread, NULL, work, job), 0);
  pthread_detach(thread);
  return true;
}

static inline bool ready(void *context) {
  struct world *world = context;
  return !world->unready;
}

/* A handler that the test lets go. */
static inline void wait_until_let_go(void *api, const struct http_request *request,
                                     struct http_reply *reply) {
  struct world *world = api;
  (void)request;
  while (!world->let_go)
    usleep(1000);
  reply->content_type = "text/plain";
  buffer_puts(&reply->body, "let go");
  world->handled++;
}

/* What a suite may want otherwise. */
struct world_limits {
  size_t max_body_bytes;
  unsigned body_timeout_seconds;
  void (*answer_put_off)(void *api, void **put_off);
  unsigned io_threads, max_connections; /* 0: 2 and 50 */
};

static inline struct world *start_world_of(const struct http_route *routes,
                                           const char *const *operations, size_t count,
                                           const struct world_limits *limits) {
  struct world *world = calloc(1, sizeof *world);
  ck_assert_ptr_nonnull(world);
  world->metrics = metrics_create(operations, count);
  ck_assert_ptr_nonnull(world->metrics);
  const struct http_config config = {.address = "127.0.0.1",
                                     .io_threads = limits->io_threads ? limits->io_threads : 2,
                                     .max_connections =
                                         limits->max_connections ? limits->max_connections : 50,
                                     .max_body_bytes = limits->max_body_bytes,
                                     .head_timeout_seconds = 30,
                                     .body_timeout_seconds = limits->body_timeout_seconds,
                                     .idle_timeout_seconds = 30};
  const struct http_services services = {.routes = routes,
                                         .route_count = count,
                                         .api = world,
                                         .submit = submit,
                                         .submit_context = world,
                                         .answer_put_off = limits->answer_put_off,
                                         .ready = ready,
                                         .ready_context = world,
                                         .metrics = world->metrics};
  char error[200] = "";
  world->server = http_server_start(&config, &services, error, sizeof error);
  ck_assert_msg(world->server != NULL, "%s", error);
  ck_assert_uint_ne(http_server_port(world->server), 0);
  return world;
}

static inline void free_world(struct world *world) {
  while (world->running > 0)
    usleep(1000);
  http_server_stop(world->server);
  metrics_free(world->metrics);
  free(world);
}

static inline int connect_to(const struct world *world) {
  struct sockaddr_in address = {.sin_family = AF_INET,
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                                .sin_port = htons(http_server_port(world->server))};
  int descriptor = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  ck_assert_int_ge(descriptor, 0);
  const struct timeval limit = {.tv_sec = 60};
  setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  ck_assert_int_eq(connect(descriptor, (struct sockaddr *)&address, sizeof address), 0);
  return descriptor;
}

static inline void send_text(int descriptor, const char *text) {
  ck_assert_int_eq(send(descriptor, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
}

/* One whole reply, head and body; "" where the connection ended before. */
static inline const char *receive(int descriptor, char *text, size_t size) {
  size_t length = 0;
  text[0] = '\0';
  for (;;) {
    const char *end = strstr(text, "\r\n\r\n");
    const char *announced = strstr(text, "Content-Length: ");
    size_t body = end && announced && announced < end ? (size_t)atoi(announced + 16) : 0;
    if (end && length >= (size_t)(end + 4 - text) + body) return text;
    ssize_t got = recv(descriptor, text + length, size - 1 - length, 0);
    ck_assert_msg(got >= 0, "no reply after a minute");
    if (got == 0) return text[0] ? text : "";
    length += (size_t)got;
    text[length] = '\0';
  }
}

static inline const char *ask(int descriptor, const char *request) {
  static char text[4096];
  send_text(descriptor, request);
  return receive(descriptor, text, sizeof text);
}

static inline void expect(const char *reply, const char *wanted) {
  ck_assert_msg(strstr(reply, wanted) != NULL, "no \"%s\" in \"%s\"", wanted, reply);
}

static inline bool has_ended(int descriptor) {
  char byte;
  return recv(descriptor, &byte, 1, 0) == 0;
}

/* A reply whose body may be of any length and bytes. */
struct answer {
  int status;
  char head[2000];
  size_t announced; /* Content-Length */
  char *body;       /* to be freed */
  size_t length;    /* less than announced where the connection ended before */
};

/* The head is read byte by byte, so nothing of the next reply is taken. `bodiless`:
 * the request was a HEAD. */
static inline struct answer receive_answer(int descriptor, bool bodiless) {
  struct answer answer = {0};
  size_t used = 0;
  while (used < sizeof answer.head - 1 && !strstr(answer.head, "\r\n\r\n")) {
    if (recv(descriptor, answer.head + used, 1, 0) != 1) return answer;
    used++;
  }
  answer.status = atoi(answer.head + strlen("HTTP/1.1 "));
  const char *announced = strstr(answer.head, "Content-Length: ");
  if (announced) answer.announced = (size_t)strtoull(announced + 16, NULL, 10);
  if (bodiless) return answer;
  answer.body = malloc(answer.announced + 1);
  ck_assert_ptr_nonnull(answer.body);
  while (answer.length < answer.announced) {
    ssize_t got =
        recv(descriptor, answer.body + answer.length, answer.announced - answer.length, 0);
    if (got <= 0) break;
    answer.length += (size_t)got;
  }
  answer.body[answer.length] = '\0';
  return answer;
}

/* Waits for what another thread is about to do. */
static inline void wait_for_count(const atomic_int *count, int wanted) {
  for (int i = 0; i < 60000 && *count != wanted; i++)
    usleep(1000);
  ck_assert_int_eq(*count, wanted);
}

/* Until the number of handled or waiting requests is there. */
static inline void wait_for_under_way(struct world *world, int count) {
  for (int i = 0; i < 60000; i++) {
    struct buffer text;
    char line[100];
    buffer_init(&text, 0);
    metrics_write(world->metrics, &text);
    snprintf(line, sizeof line, "\nattentiond_requests_in_flight %d\n", count);
    bool there = strstr(buffer_text(&text), line) != NULL;
    buffer_free(&text);
    if (there) return;
    usleep(1000);
  }
  ck_abort_msg("%d requests did not get under way", count);
}

#define GET(path)       "GET " path " HTTP/1.1\r\nHost: x\r\n\r\n"
#define PUT(path, body) "PUT " path " HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n" body

#endif
