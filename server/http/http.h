/* HTTP as the rest of the server sees it: requests, replies, routes. No file
 * outside this folder includes microhttpd.h, and none inside it knows what the
 * routes do. */
#ifndef HTTP_HTTP_H
#define HTTP_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/problem.h"
#include "observe/log.h"
#include "observe/metrics.h"

enum http_method { HTTP_GET, HTTP_PUT, HTTP_POST, HTTP_DELETE, HTTP_METHOD_COUNT };

/* A request whose head was checked and whose body, where the route takes one,
 * has arrived whole. Strings are NUL-terminated, never NULL ("" where absent),
 * and live as long as the request. */
struct http_request {
  enum http_method method; /* HEAD arrives as HTTP_GET, its body is left out on the wire */
  const char *path;
  const char *name;         /* what stood for {name} in the route's pattern */
  const char *query_string; /* after the '?', as it came */
  const char *content_type;
  const char *accept;
  const char *if_match;
  const char *if_none_match;
  const char *body;
  size_t body_length;
  double began; /* when the head was there: seconds of CLOCK_MONOTONIC */
  bool at_once; /* an ON_WORKER handler is run on the I/O thread, being cheap */
};

/* Filled by a handler. The http side adds Date, Content-Length, Connection. */
struct http_reply {
  int status;               /* 200 to begin with */
  const char *content_type; /* static text; NULL where there is no body */
  struct buffer body;       /* taken over by the http side */
  char etag[32];            /* "" or with its quotes */
  char location[192];       /* "" or a path */
  char allow[64];           /* "" or the methods */
  unsigned retry_after;     /* seconds; 0: none */
};

/* Makes the reply that problem: status, application/problem+json, the body,
 * Retry-After with 503. What the reply held before is dropped. */
void http_reply_problem(struct http_reply *reply, const struct problem *problem);

/* Whether the client has closed its side, which is taken to mean that nobody
 * waits for the reply. (One that only shut down its sending half looks the same;
 * so this is to be asked of requests that had to wait, not of all.) */
bool http_is_abandoned(const struct http_request *request);

typedef void http_handler(void *api, const struct http_request *request, struct http_reply *reply);

/* Expected seconds of one core; has to be cheap itself, as it runs on the I/O
 * thread. */
typedef double http_cost(void *api, const struct http_request *request);

/* For handlers of routes with a cost: the reply is ready. To be called exactly
 * once, by the handler or later by any thread; request and reply are
 * gone when it returns. */
void http_complete(struct http_reply *reply);

/* Where a handler runs. ON_IO: at once, on the thread that reads the socket,
 * so it must take microseconds. ON_WORKER: handed to http_services.submit
 * while the connection is suspended, unless its cost is less than that of
 * handing it over; then it is run at once as well. */
enum http_place { HTTP_ON_IO, HTTP_ON_WORKER };

struct http_route {
  enum http_method method;
  const char *pattern; /* "/v1/memories/{name}/attend"; {name} is one path segment */
  http_handler *handler;
  enum http_place place;
  http_cost *cost;       /* ON_WORKER; NULL: by the length of the body. A handler that has one
                            also completes its reply on its own: http_complete() */
  bool takes_body;       /* else a body is refused with 400 */
  bool works_unready;    /* answers although the server is loading or stopping */
  const char *operation; /* camelCase, for OpenAPI, log and metrics */
  const char *summary;   /* one sentence, for OpenAPI */
};

struct http_config {
  const char *address; /* numeric IPv4 or IPv6 */
  uint16_t port;       /* 0: any free one */
  unsigned io_threads;
  unsigned max_connections;
  size_t max_body_bytes;
  unsigned head_timeout_seconds; /* from accept, or the first idle moment, to a whole head */
  unsigned body_timeout_seconds; /* see http/deadline.c: slow bodies and slow readers */
  unsigned idle_timeout_seconds; /* keep-alive between requests */
};

struct http_services {
  const struct http_route *routes;
  size_t route_count;
  void *api; /* handed to every handler */
  /* Runs run(argument) on a worker, later; false where the queue is full. */
  bool (*submit)(void *context, void (*run)(void *argument), void *argument, double seconds);
  void *submit_context;
  /* False while loading or stopping: routes that do not work unready get 503. */
  bool (*ready)(void *context);
  void *ready_context;
  struct log *log;
  struct metrics *metrics;
};

struct http_server;

/* Starts listening. On failure returns NULL with a sentence in `error`. The
 * strings and tables in config and services must outlive the server. */
struct http_server *http_server_start(const struct http_config *config,
                                      const struct http_services *services, char *error,
                                      size_t error_size);
uint16_t http_server_port(const struct http_server *server);

/* First half of a stop: no new connection is accepted, replies say
 * `Connection: close`, idle connections end. Returns true once every request
 * under way was answered, false where that took longer than `seconds`. */
bool http_server_drain(struct http_server *server, double seconds);

/* Second half: ends what is left and frees everything. The workers must have
 * finished, or must never finish, the requests that were submitted. Accepts
 * NULL. */
void http_server_stop(struct http_server *server);

#endif
