/* The load client: one thread, epoll, keep-alive.
 *
 * It shares the cores with what it measures, so it has to be cheap. A thread
 * per connection was rejected: waking 32 threads costs more than all that one
 * does here. Each connection sends its next request as soon as the reply is
 * whole (a closed loop), so a slow server is asked less and never drowned.
 *
 * A reply's head is collected and read: status line and Content-Length. Of the
 * body only the length matters; the tests look at contents. */
#include "load.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "bench.h"

enum { HEAD_MAX = 4096, SCRATCH = 256 << 10, EVENTS = 64, LOOK_AROUND_MS = 10 };

/* So many requests have to be answered, if need be after the end, in so many
 * seconds more. */
enum { LEAST_REQUESTS = 5, MOST_OVERTIME = 60 };

struct connection {
  int descriptor;
  bool waits_to_send; /* the socket was full */
  size_t sent;        /* of the request */
  char head[HEAD_MAX + 1];
  size_t head_length;
  bool in_body;
  size_t body_length, body_left;
  double began;
};

struct load {
  const struct load_plan *plan;
  struct load_result *result;
  int epoll;
  struct connection *connections;
  char *scratch;
  double counted_from; /* the end of the warm-up */
  double *latencies;
  size_t capacity;
};

static bool fault(struct load *load, const char *what, const char *detail) {
  snprintf(load->result->fault, sizeof load->result->fault, "%s%s%.80s", what, *detail ? ": " : "",
           detail);
  return false;
}

/* ---- Sending ---- */

static bool watch(struct load *load, struct connection *connection, int operation) {
  struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};
  if (connection->waits_to_send) event.events |= EPOLLOUT;
  if (epoll_ctl(load->epoll, operation, connection->descriptor, &event) == 0) return true;
  return fault(load, "epoll", strerror(errno));
}

static bool send_more(struct load *load, struct connection *connection) {
  const struct load_plan *plan = load->plan;
  while (connection->sent < plan->request_length) {
    const ssize_t sent = send(connection->descriptor, plan->request + connection->sent,
                              plan->request_length - connection->sent, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN) return fault(load, "send", strerror(errno));
    if (sent < 0) break;
    connection->sent += (size_t)sent;
  }
  const bool waits = connection->sent < plan->request_length;
  if (waits == connection->waits_to_send) return true;
  connection->waits_to_send = waits;
  return watch(load, connection, EPOLL_CTL_MOD);
}

static bool send_next(struct load *load, struct connection *connection) {
  connection->sent = 0;
  connection->head_length = 0;
  connection->in_body = false;
  connection->began = now_seconds();
  return send_more(load, connection);
}

int load_connect(uint16_t port) {
  const struct sockaddr_in address = {
      .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  const int on = 1, descriptor = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (descriptor < 0) return -1;
  setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  if (connect(descriptor, (const struct sockaddr *)&address, sizeof address) == 0)
    return descriptor;
  close(descriptor);
  return -1;
}

static bool open_connection(struct load *load, struct connection *connection) {
  connection->descriptor = load_connect(load->plan->port);
  if (connection->descriptor < 0) return fault(load, "connect", strerror(errno));
  fcntl(connection->descriptor, F_SETFL, O_NONBLOCK);
  return watch(load, connection, EPOLL_CTL_ADD) && send_next(load, connection);
}

/* ---- Receiving ---- */

static bool count_reply(struct load *load, const struct connection *connection) {
  struct load_result *result = load->result;
  const double now = now_seconds();
  result->body_length = connection->body_length;
  result->answered++;
  if (now < load->counted_from) return true;
  if (result->requests == load->capacity) {
    const size_t capacity = load->capacity > 0 ? 2 * load->capacity : 4096;
    double *latencies = realloc(load->latencies, capacity * sizeof *latencies);
    if (!latencies) return fault(load, "not enough memory", "");
    load->latencies = latencies;
    load->capacity = capacity;
  }
  load->latencies[result->requests++] = now - connection->began;
  return true;
}

/* Content-Length of a head that ends with an empty line; 0 where there is none. */
static size_t content_length(const char *head) {
  static const char name[] = "\r\nContent-Length:";
  for (const char *line = strstr(head, "\r\n"); line; line = strstr(line + 2, "\r\n"))
    if (strncasecmp(line, name, sizeof name - 1) == 0)
      return (size_t)strtoull(line + sizeof name - 1, NULL, 10);
  return 0;
}

static bool read_head(struct load *load, struct connection *connection) {
  static const char status[] = "HTTP/1.1 200 ";
  if (strncmp(connection->head, status, sizeof status - 1) != 0)
    return fault(load, "the reply is not 200", connection->head);
  const size_t length = content_length(connection->head), expected = load->plan->body_length;
  if (length == 0) return fault(load, "the reply has no body", connection->head);
  if (expected > 0 && length != expected)
    return fault(load, "the reply is not of the expected length", connection->head);
  connection->in_body = true;
  connection->body_length = connection->body_left = length;
  return true;
}

/* How many of the bytes belong to the head; in_body is set where it ended. */
static bool take_head(struct load *load, struct connection *connection, const char *bytes,
                      size_t *count) {
  const size_t before = connection->head_length, room = HEAD_MAX - before;
  const size_t copied = *count < room ? *count : room;
  memcpy(connection->head + before, bytes, copied);
  connection->head_length += copied;
  connection->head[connection->head_length] = '\0';
  char *end = strstr(connection->head, "\r\n\r\n");
  *count = copied;
  if (!end)
    return connection->head_length < HEAD_MAX || fault(load, "a reply's head is too long", "");
  end[2] = '\0';
  *count = (size_t)(end + 4 - connection->head) - before;
  return read_head(load, connection);
}

static bool take(struct load *load, struct connection *connection, const char *bytes,
                 size_t count) {
  if (!connection->in_body) {
    size_t used = count;
    if (!take_head(load, connection, bytes, &used)) return false;
    bytes += used;
    count -= used;
    if (!connection->in_body) return true;
  }
  if (count > connection->body_left) return fault(load, "more came than the reply", "");
  connection->body_left -= count;
  if (connection->body_left > 0) return true;
  return count_reply(load, connection) && send_next(load, connection);
}

static bool receive(struct load *load, struct connection *connection) {
  const ssize_t count = recv(connection->descriptor, load->scratch, SCRATCH, 0);
  if (count < 0) return errno == EAGAIN || fault(load, "recv", strerror(errno));
  if (count == 0) return fault(load, "the server closed a connection", "");
  return take(load, connection, load->scratch, (size_t)count);
}

/* ---- The run ---- */

static bool is_over(const struct load *load, double end) {
  if (load->plan->stop && atomic_load(load->plan->stop)) return true;
  const double overtime = load->result->requests < LEAST_REQUESTS ? MOST_OVERTIME : 0;
  return now_seconds() >= end + overtime;
}

static bool serve_events(struct load *load, double end) {
  struct epoll_event events[EVENTS];
  while (!is_over(load, end)) {
    const int count = epoll_wait(load->epoll, events, EVENTS, LOOK_AROUND_MS);
    if (count < 0 && errno != EINTR) return fault(load, "epoll_wait", strerror(errno));
    for (int i = 0; i < count; i++) {
      struct connection *connection = events[i].data.ptr;
      if (events[i].events & EPOLLOUT && !send_more(load, connection)) return false;
      if (events[i].events & ~(uint32_t)EPOLLOUT && !receive(load, connection)) return false;
    }
  }
  return true;
}

static bool sum_up(struct load *load, double seconds) {
  struct load_result *result = load->result;
  const size_t count = result->requests;
  if (count == 0) return load->plan->stop || fault(load, "nothing was answered in time", "");
  sort_doubles(load->latencies, count);
  result->rate = (double)count / seconds;
  result->p50 = load->latencies[count / 2];
  result->p99 = load->latencies[count - 1 - count / 100];
  result->most = load->latencies[count - 1];
  return true;
}

bool load_run(const struct load_plan *plan, struct load_result *result) {
  *result = (struct load_result){0};
  struct load load = {.plan = plan, .result = result, .epoll = epoll_create1(EPOLL_CLOEXEC)};
  bool done = false;
  unsigned opened = 0;
  load.connections = calloc(plan->connections, sizeof *load.connections);
  load.scratch = malloc(SCRATCH);
  if (!load.connections || !load.scratch || load.epoll < 0) {
    fault(&load, "not enough memory or descriptors", "");
    goto done;
  }
  load.counted_from = now_seconds() + plan->warm_up;
  while (opened < plan->connections)
    if (!open_connection(&load, &load.connections[opened++])) goto done;
  done = serve_events(&load, load.counted_from + plan->seconds) &&
         sum_up(&load, now_seconds() - load.counted_from);
done:
  for (unsigned i = 0; i < opened; i++)
    if (load.connections[i].descriptor >= 0) close(load.connections[i].descriptor);
  if (load.epoll >= 0) close(load.epoll);
  free(load.latencies);
  free(load.connections);
  free(load.scratch);
  return done;
}
