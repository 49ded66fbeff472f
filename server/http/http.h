/* HTTP as the rest of the server sees it: requests, replies, routes. No file
 * outside this folder includes microhttpd.h, and none inside it knows what the
 * routes do. */
#ifndef HTTP_HTTP_H
#define HTTP_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/buffer.h"
#include "base/problem.h"
#include "observe/log.h"
#include "observe/metrics.h"

enum http_method { HTTP_GET, HTTP_PUT, HTTP_POST, HTTP_PATCH, HTTP_DELETE, HTTP_METHOD_COUNT };

/* A form that bodies and replies come in: a media type. What routes take and send are sets of
 * these, arrays that end with NULL, whose first one stands for a header that is absent or has
 * no preference. A form is known by its address. */
struct http_media {
  const char *type;   /* "application/json" */
  const char *suffix; /* "+json": any type under application/ that ends so is it, too; NULL: none */
  bool utf8;          /* it is text: a charset that is named has to be UTF-8 */
};
extern const struct http_media http_json, http_tensors;
#define HTTP_TENSORS_TYPE "application/x-safetensors"

/* How the errors of a protocol look. */
struct http_error_format {
  const char *content_type;
  void (*write)(struct buffer *body, const struct problem *problem);
};
extern const struct http_error_format http_problem_json; /* RFC 9457 */

/* A request whose head was checked and whose body, where the route takes one,
 * has arrived whole. Strings are NUL-terminated, never NULL ("" where absent),
 * and live as long as the request. */
struct http_request {
  enum http_method method; /* HEAD arrives as HTTP_GET, its body is left out on the wire */
  const char *path;
  const char *name;         /* what stood for the first {placeholder} of the route's pattern */
  const char *second;       /* and for its second one */
  const char *query_string; /* after the '?', as it came */
  const char *content_type;
  const char *accept;
  const char *if_match;
  const char *if_none_match;
  const char *idempotency_key;          /* 1 to 255 visible ASCII bytes, or "" */
  const struct http_media *body_media;  /* one of the route's `takes`, by Content-Type */
  const struct http_media *reply_media; /* one of its `sends`, by Accept; NULL without those */
  void *upload;     /* where the route's http_upload took the body; the handler's own */
  const char *body; /* "" where there is an upload */
  size_t body_length;
  double began; /* when the head was there: seconds of CLOCK_MONOTONIC */
  bool at_once; /* an ON_WORKER handler is run on the I/O thread, being cheap */
  /* With at_once, and not NULL: the handler may put its answer off. It leaves in
   * *put_off, which begins as NULL and is the I/O thread's own, what it takes to
   * answer later, beside what others left there, and returns. */
  void **put_off;
};

/* A reply's body that is read bit by bit while it is sent. */
struct http_stream {
  uint64_t length; /* known beforehand: it is the Content-Length */
  /* Fills bytes from position `at`; returns how many (1 .. room), or -1: the
   * connection is closed (the client sees a short body). On the I/O thread. */
  ssize_t (*read)(void *context, uint64_t at, char *bytes, size_t room);
  /* Once, when it is no longer needed, also where nothing was sent (HEAD). On
   * the I/O thread, on the handler's where a problem took the reply's place, or
   * on that which stops the server. */
  void (*release)(void *context);
  void *context;
};

/* Filled by a handler. The http side adds Date, Content-Length, Connection,
 * Cache-Control and Vary. */
struct http_reply {
  int status;                   /* 200 to begin with */
  const char *content_type;     /* static text; NULL where there is no body */
  const char *content_encoding; /* static text; NULL: none */
  struct buffer body;        /* empty, but may have memory already; taken over by the http side */
  struct http_stream stream; /* read != NULL: the body, in place of `body`; taken over as well */
  char etag[32];             /* "" or with its quotes */
  char location[192];        /* "" or a path */
  char allow[64];            /* "" or the methods */
  unsigned retry_after;      /* seconds; 0: none */
  /* Set by the http side: */
  bool varies;                            /* `Vary: Accept` */
  const struct http_error_format *errors; /* the route's; NULL: http_problem_json */
};

/* Makes the reply that problem: its status, the body as the route's errors look,
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

/* For handlers of routes that say `completes`: the reply is ready. To be called
 * exactly once, by the handler or later by any thread; request and reply are
 * gone when it returns. A handler that runs on the I/O thread (ON_IO, or
 * request->at_once) has to call it before it returns, unless it puts its answer
 * off. */
void http_complete(struct http_reply *reply);

/* Where a handler runs. ON_IO: at once, on the thread that reads the socket,
 * so it must take microseconds. ON_WORKER: handed to http_services.submit
 * while the connection is suspended, unless its cost is less than that of
 * handing it over; then it is run at once as well. */
enum http_place { HTTP_ON_IO, HTTP_ON_WORKER };

/* Where a body goes as it arrives, instead of into request->body. All are
 * called on the I/O thread (`drop` also on that which stops the server), so
 * they must take microseconds. */
struct http_upload {
  /* With the head, which is all of the request that is there; length:
   * Content-Length, or UINT64_MAX for a chunked body. NULL left in *upload:
   * collect the body as usual. False with a problem: refused. */
  bool (*begin)(void *api, const struct http_request *request, uint64_t length, void **upload,
                struct problem *problem);
  /* The next bytes; false with a problem: refused, the rest is dropped like
   * that of any refused body. */
  bool (*piece)(void *upload, const char *bytes, size_t count, struct problem *problem);
  /* The request ended before its handler was called: refused, timed out, or
   * broken. Otherwise the handler owns request->upload. */
  void (*drop)(void *upload);
};

struct http_route {
  enum http_method method;
  /* "/v1/memories/{name}/attend": {name}, and at most one more placeholder, is one segment */
  const char *pattern;
  http_handler *handler;
  enum http_place place;
  http_cost *cost; /* ON_WORKER; NULL: by the length of the body */
  bool completes;  /* the handler completes its reply on its own: http_complete() */
  const struct http_media *const *takes;  /* forms of the body, else 415; NULL: 400 for a body */
  const struct http_media *const *sends;  /* forms of the reply, where it has several */
  const struct http_error_format *errors; /* NULL: http_problem_json */
  bool works_unready;                     /* answers although the server is loading or stopping */
  const struct http_upload *upload;       /* of a route that takes a body; NULL: it is collected */
  const char *operation;                  /* camelCase, for OpenAPI, log and metrics */
  const char *summary;                    /* one sentence, for OpenAPI */
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
  /* Completes all that handlers have put off in *put_off, and leaves NULL there.
   * It is called on the same I/O thread as soon as that has read what else had
   * come (and at a stop on that which stops the server). */
  void (*answer_put_off)(void *api, void **put_off);
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
