/* The life of one request.
 *
 * libmicrohttpd calls with the request line, with the whole head, with each piece of
 * the body, when all has arrived, and when the reply is out or the connection
 * broke. Between those calls the request is in one of these states:
 *
 *   NEW        the request line is known, the head is not
 *   COLLECTING the head was fine, the body arrives
 *   REFUSED    the reply is made already; what is left of the body is dropped
 *   COMPUTING  suspended, a worker has it
 *   PUT_OFF    the handler has put its answer off
 *   ANSWERED   the reply is made
 *   SENT       the reply was handed over
 *
 * A reply can be handed over in two of the calls only. With the head, it ends
 * the connection, as the body after it will not be read; that is for what
 * can not wait (a head that is not sound, a body that is too long or is waited
 * for with 100-continue). At the end, it keeps the connection; so a refusal
 * with a short body before it swallows that body first. In the middle of a
 * body (it grew beyond the limit, or its upload refused it) there is no such
 * call: what is left is swallowed where it is short; where it is long, or nobody
 * knows how long, the socket is written to directly, at once.
 *
 * A connection with a chunked body ends with its reply: libmicrohttpd before
 * 1.0 takes a bare LF for the end of a chunk's first line, so a proxy may see
 * the body end elsewhere than it does.
 *
 * Small requests are run on the I/O thread that read them, and several together
 * cost it less than one by one. How many have come is not known before all are
 * read; so if a thread has had no rest since its last answer, a handler may
 * put its answer off. libmicrohttpd is then told nothing, and so calls again in
 * its next round, which comes at once; the first of these calls has all answered
 * that were put off meanwhile. To suspend them was rejected: it costs three system
 * calls for each.
 *
 * Threads: a request belongs to the libmicrohttpd thread that has its connection.
 * While it is COMPUTING it belongs to the worker, or to whom that passes it on,
 * until http_complete() hands it back by connections_resume(), its last step: the request may be
 * gone when that returns. The lock in there is what makes the worker's writes visible. */
#include "http/request.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>

#include "http/accept.h"
#include "http/content.h"
#include "http/head.h"
#include "http/intake.h"
#include "http/reply.h"
#include "http/router.h"
#include "http/server.h"

/* Far beyond what any route has use for. */
#define LONGEST_TARGET  8192
#define MOST_PARAMETERS 16

/* Ended requests that a thread keeps for the next ones, with the little memory they
 * have for bodies; and how long a target fits one of them. */
#define MOST_SPARE 64
#define SPARE_ROOM 256

/* A refused body up to this length is swallowed to keep the connection. */
#define SWALLOWED_BODY (64 << 10)

/* What may be left of a body that is refused in its middle, to wait for its end. */
#define SWALLOWED_REST (1 << 20)

/* Seconds; never reached. A resumed connection is read from before the handler is
 * called, and dropped where the client has closed its side meanwhile, although
 * it still waits for the answer. One with a timeout of its own is not: for it
 * the handler is called first. */
#define RESUME_TIMEOUT 1000000u

/* What suspending, waking a worker and resuming cost: requests that take less are
 * run on the I/O thread. Where nothing better is known, a request takes as long
 * as a worker needs to read its body. */
#define HANDOVER_SECONDS 40e-6
#define SECONDS_PER_BYTE 2e-9

/* A thread has had no rest if it began with another request so short a time before:
 * a client that gets an answer and asks again takes about as long, so what comes then
 * counts as having come together. Beyond that time the kernel is asked, at 0.3 us,
 * whether the thread has slept: on a slow or busy machine it may take longer from one
 * request to the next although all of them are there. */
#define NO_REST_SECONDS 50e-6

/* So many requests in a run without a rest are worth answering together; fewer cost
 * more rounds than they save. */
#define COMPANY 3

enum state { NEW, COLLECTING, REFUSED, COMPUTING, PUT_OFF, ANSWERED, SENT };

struct request {
  struct http_server *server;
  struct io_thread *thread;
  struct connection *connection;
  struct MHD_Connection *mhd;
  enum state state;
  const char *place; /* of the target in libmicrohttpd's buffer, until the head was checked */
  char method[16];   /* cut where it is longer; for the log */
  bool head_only;    /* HEAD */
  struct head head;
  struct route_match match;
  struct http_request view; /* what the handler sees */
  bool counted;             /* as under way */
  bool close;               /* the reply is the connection's last */
  bool timeout_set;         /* to RESUME_TIMEOUT */
  uint64_t received, sent;  /* bytes of bodies */
  struct timespec began;
  /* From here on a spare one keeps what it has. */
  struct http_reply reply;
  struct intake intake; /* of the body */
  struct request *next; /* among the spare ones */
  size_t room;          /* for the target */
  char target[];        /* cut into path and query string */
};

static double seconds_since(const struct timespec *then) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)(now.tv_sec - then->tv_sec) + (double)(now.tv_nsec - then->tv_nsec) * 1e-9;
}

static const struct http_route *route_of(const struct request *request) {
  const struct http_services *services = &request->server->services;
  size_t index = request->match.index;
  return index < services->route_count ? &services->routes[index] : NULL;
}

/* Writes the reply past libmicrohttpd. That has sent nothing since the
 * connection's last reply but perhaps a whole `100 Continue`, so this comes at
 * the right place. */
static void write_reply(const struct http_reply *reply, struct MHD_Connection *mhd) {
  const union MHD_ConnectionInfo *info =
      MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD);
  if (info) reply_send_at_once(reply, info->connect_fd);
}

/* libmicrohttpd goes on to split the query string, and before 1.0 never calls again
 * when that takes more memory than it has. */
static bool target_is_bearable(const char *target) {
  size_t length = 0, parameters = 1;
  for (const char *c = target; *c; c++) {
    length++;
    if (*c == '&') parameters++;
  }
  return length <= LONGEST_TARGET && parameters <= MOST_PARAMETERS;
}

static void refuse_target(struct http_server *server, struct connection *connection,
                          struct MHD_Connection *mhd) {
  struct problem problem;
  struct http_reply reply;
  problem_set(&problem, PROBLEM_INVALID_REQUEST, "",
              "a request target has at most %d bytes and %d parameters", LONGEST_TARGET,
              MOST_PARAMETERS);
  reply_init(&reply);
  http_reply_problem(&reply, &problem);
  write_reply(&reply, mhd);
  metrics_request(server->services.metrics, server->services.route_count, reply.status);
  reply_free(&reply);
  connections_cut(server->connections, connection);
}

static struct request *allocate_request(size_t length) {
  const size_t room = length < SPARE_ROOM ? SPARE_ROOM : length + 1;
  struct request *request = calloc(1, sizeof *request + room);
  if (!request) return NULL;
  request->room = room;
  reply_init(&request->reply);
  intake_init(&request->intake, 0);
  return request;
}

static struct request *take_spare(struct io_thread *thread) {
  struct request *request = thread->spare;
  thread->spare = request->next;
  thread->spare_count--;
  memset(request, 0, offsetof(struct request, reply));
  return request;
}

static void free_request(struct request *request) {
  reply_free(&request->reply);
  intake_free(&request->intake);
  free(request);
}

/* Nothing of it is in use any more. */
static void put_away(struct io_thread *thread, struct request *request) {
  head_free(&request->head);
  intake_drop(&request->intake);
  reply_renew(&request->reply);
  if (request->room > SPARE_ROOM || thread->spare_count == MOST_SPARE) {
    free_request(request);
    return;
  }
  request->next = thread->spare;
  thread->spare = request;
  thread->spare_count++;
}

void requests_free_spare(struct io_thread *thread) {
  while (thread->spare)
    free_request(take_spare(thread));
}

static struct request *new_request(struct io_thread *thread, const char *target) {
  struct http_server *server = thread->server;
  const size_t length = strlen(target);
  struct request *request =
      length < SPARE_ROOM && thread->spare ? take_spare(thread) : allocate_request(length);
  if (!request) return NULL;
  memcpy(request->target, target, length + 1);
  request->server = server;
  request->thread = thread;
  request->place = target;
  request->match.index = server->services.route_count;
  head_init(&request->head);
  intake_renew(&request->intake, server->config.max_body_bytes);
  return request;
}

void *request_begin(void *context, const char *target, struct MHD_Connection *mhd) {
  struct io_thread *thread = context;
  struct http_server *server = thread->server;
  const union MHD_ConnectionInfo *info =
      MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
  struct connection *connection = info ? info->socket_context : NULL;
  if (!connection || !target) return NULL;
  if (!target_is_bearable(target)) {
    refuse_target(server, connection, mhd);
    return NULL;
  }
  struct request *request = new_request(thread, target);
  if (!request) return NULL;
  request->connection = connection;
  request->mhd = mhd;
  connections_enter(server->connections, connection, PHASE_HEAD, 0);
  return request;
}

/* Connections with a timeout of their own are looked at in every round. */
static void forget_timeout(struct request *request) {
  if (request->timeout_set)
    MHD_set_connection_option(request->mhd, MHD_CONNECTION_OPTION_TIMEOUT, 0u);
  request->timeout_set = false;
}

/* Hands the reply over. MHD_NO, which ends the connection, where that fails. */
static enum MHD_Result send_reply(struct request *request) {
  struct http_server *server = request->server;
  const struct http_route *route = route_of(request);
  uint64_t length = reply_length(&request->reply);
  if (!connections_enter(server->connections, request->connection, PHASE_REPLY, length))
    return MHD_NO;
  if (connections_draining(server->connections)) request->close = true;
  forget_timeout(request);
  request->reply.varies = route && route->sends;
  if (!reply_queue(&request->reply, request->mhd, request->close)) return MHD_NO;
  request->state = SENT;
  request->sent = request->head_only ? 0 : length;
  return MHD_YES;
}

static void answer_problem(struct request *request, const struct problem *problem) {
  intake_drop(&request->intake);
  http_reply_problem(&request->reply, problem);
  if (problem->code == PROBLEM_METHOD_NOT_ALLOWED)
    memcpy(request->reply.allow, request->match.allow, sizeof request->reply.allow);
}

/* Answers to the head alone and ends the connection. */
static enum MHD_Result refuse_at_once(struct request *request, const struct problem *problem) {
  answer_problem(request, problem);
  request->close = true;
  connections_linger(request->server->connections, request->connection);
  return send_reply(request);
}

/* Answers a sound request that will not be done. */
static enum MHD_Result refuse(struct request *request, const struct problem *problem) {
  const struct head *head = &request->head;
  bool waits = head->expects_continue && head->content_length > 0;
  if (head->chunked || waits || head->content_length > SWALLOWED_BODY ||
      problem->code == PROBLEM_BODY_TOO_LARGE)
    return refuse_at_once(request, problem);
  answer_problem(request, problem);
  request->state = REFUSED;
  return MHD_YES;
}

static bool check_body(struct request *request, const struct http_route *route,
                       struct problem *problem) {
  const struct head *head = &request->head;
  uint64_t limit = request->server->config.max_body_bytes;
  if (route->takes) {
    if (!content_check(head->content_type, head->content_encoding, route->takes,
                       &request->view.body_media, problem))
      return false;
  } else if (head_announces_body(head)) {
    return problem_set(problem, PROBLEM_INVALID_REQUEST, "", "%s %s takes no body", request->method,
                       route->pattern);
  }
  if (head->content_length > limit)
    return problem_set(problem, PROBLEM_BODY_TOO_LARGE, "",
                       "a body has at most %llu bytes, but this one has %llu",
                       (unsigned long long)limit, (unsigned long long)head->content_length);
  return true;
}

/* Everything that can be said of the request before its body is there. */
static bool check_request(struct request *request, struct problem *problem) {
  const struct http_services *services = &request->server->services;
  const size_t count = services->route_count;
  const bool found = router_find(services->routes, count, request->method, request->view.path,
                                 &request->match, problem);
  const size_t pattern = request->match.pattern;
  if (pattern < count) request->reply.errors = services->routes[pattern].errors;
  if (!found) return false;
  const struct http_route *route = route_of(request);
  if (!route->works_unready && !services->ready(services->ready_context))
    return problem_set(problem, PROBLEM_NOT_READY, "", "the server is loading or stopping");
  return check_body(request, route, problem);
}

/* All that the view has but the body. */
static void show_head(struct request *request, const struct http_route *route) {
  const struct head *head = &request->head;
  struct http_request *view = &request->view;
  view->method = route->method;
  view->name = request->match.name;
  view->second = request->match.second;
  view->content_type = head->content_type;
  view->accept = head->accept;
  view->if_match = head->if_match;
  view->if_none_match = head->if_none_match;
  view->idempotency_key = head->idempotency_key;
  if (route->sends) view->reply_media = accept_choose(head->accept, route->sends);
  view->body = "";
  view->began = (double)request->began.tv_sec + (double)request->began.tv_nsec * 1e-9;
}

/* Makes ready for the body, be there one or not. */
static enum MHD_Result expect_body(struct request *request) {
  const struct http_route *route = route_of(request);
  const struct head *head = &request->head;
  struct problem problem;
  show_head(request, route);
  const struct intake_source source = {.upload = route->upload,
                                       .api = request->server->services.api,
                                       .request = &request->view,
                                       .length = head->chunked ? UINT64_MAX : head->content_length};
  if (!intake_begin(&request->intake, &source, &problem)) return refuse(request, &problem);
  request->state = COLLECTING;
  return MHD_YES;
}

static void note_head(struct request *request, const char *method) {
  clock_gettime(CLOCK_MONOTONIC, &request->began);
  request->counted = true;
  metrics_add(request->server->services.metrics, METRIC_REQUESTS_IN_FLIGHT, 1);
  strncpy(request->method, method, sizeof request->method - 1);
  request->head_only = strcmp(method, "HEAD") == 0;
}

/* A connection beyond the limit gets its refusal, and goes. */
static enum MHD_Result refuse_connection(struct request *request) {
  struct problem problem;
  metrics_add(request->server->services.metrics, METRIC_CONNECTIONS_REFUSED, 1);
  problem_set(&problem, PROBLEM_OVERLOADED, "", "%u connections are open, which is the limit",
              request->server->config.max_connections);
  return refuse_at_once(request, &problem);
}

static enum MHD_Result take_head(struct request *request, const char *method, const char *version) {
  struct connections *connections = request->server->connections;
  struct head *head = &request->head;
  struct problem problem;
  note_head(request, method);
  const struct head_line line = {method, request->target, request->place, version};
  bool sound = head_check(request->mhd, &line, head, &problem);
  request->place = NULL;
  head_split_target(request->target, &request->view.path, &request->view.query_string);

  uint64_t expected = head->chunked ? request->server->config.max_body_bytes : head->content_length;
  enum phase phase = head_announces_body(head) ? PHASE_BODY : PHASE_COMPUTING;
  bool admitted;
  if (!connections_request_began(connections, request->connection, phase, expected, &admitted))
    return MHD_NO;
  if (!sound) return refuse_at_once(request, &problem);
  if (head->chunked && head_parser_is_lenient()) request->close = true;
  if (!admitted) return refuse_connection(request);
  if (!check_request(request, &problem)) return refuse(request, &problem);
  return expect_body(request);
}

/* In the middle of a body no reply can be handed over. */
static enum MHD_Result give_up(struct request *request) {
  write_reply(&request->reply, request->mhd);
  request->sent = request->reply.body.length;
  request->state = SENT;
  connections_linger(request->server->connections, request->connection);
  return MHD_NO;
}

/* Whether the client has much of its body left to send, as far as it has told. */
static bool has_much_left(const struct request *request) {
  const struct head *head = &request->head;
  return head->chunked || (head->content_length > request->received &&
                           head->content_length - request->received > SWALLOWED_REST);
}

static enum MHD_Result take_piece(struct request *request, const char *piece, size_t *length) {
  struct problem problem;
  size_t size = *length;
  *length = 0;
  request->received += size;
  if (request->state == COLLECTING && !intake_piece(&request->intake, piece, size, &problem)) {
    answer_problem(request, &problem);
    request->close = true;
    request->state = REFUSED;
  }
  return request->state == REFUSED && has_much_left(request) ? give_up(request) : MHD_YES;
}

static struct request *request_of(const void *member, size_t offset) {
  return (struct request *)(void *)((char *)(uintptr_t)member - offset);
}

bool http_is_abandoned(const struct http_request *view) {
  const struct request *request = request_of(view, offsetof(struct request, view));
  const union MHD_ConnectionInfo *info =
      MHD_get_connection_info(request->mhd, MHD_CONNECTION_INFO_CONNECTION_FD);
  char byte;
  return info && recv(info->connect_fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

/* The handler is done with it: makes a whole of the reply. */
static void take_reply(struct request *request) {
  struct http_reply *reply = &request->reply;
  intake_drop(&request->intake);
  request->view.body = "";
  if (reply->body.status != BUFFER_OK) {
    struct problem problem;
    bool memory = reply->body.status == BUFFER_NO_MEMORY;
    problem_set(&problem, memory ? PROBLEM_OUT_OF_MEMORY : PROBLEM_INTERNAL, "",
                memory ? "no memory for the reply" : "the reply outgrew its limit");
    http_reply_problem(reply, &problem);
  }
}

void http_complete(struct http_reply *reply) {
  struct request *request = request_of(reply, offsetof(struct request, reply));
  struct connections *connections = request->server->connections;
  struct connection *connection = request->connection;
  bool suspended = request->state == COMPUTING;
  take_reply(request);
  request->state = ANSWERED;
  if (suspended) connections_resume(connections, connection);
}

static void call_handler(struct request *request) {
  const struct http_route *route = route_of(request);
  intake_hand_over(&request->intake);
  route->handler(request->server->services.api, &request->view, &request->reply);
  if (!route->completes) http_complete(&request->reply);
}

/* On a worker. */
static void compute(void *argument) {
  call_handler(argument);
}

static enum MHD_Result hand_to_worker(struct request *request, double seconds) {
  const struct http_services *services = &request->server->services;
  struct connections *connections = request->server->connections;
  /* What is run at once is over before the watchdog looks, and needs no phase for it. */
  if (!connections_enter(connections, request->connection, PHASE_COMPUTING, 0)) return MHD_NO;
  request->state = COMPUTING;
  MHD_set_connection_option(request->mhd, MHD_CONNECTION_OPTION_TIMEOUT, RESUME_TIMEOUT);
  request->timeout_set = true;
  /* Suspended first: a worker may be done before submit() returns, and then
   * the request is not ours any more. */
  if (!connections_suspend(connections, request->connection)) return MHD_NO;
  if (!services->submit(services->submit_context, compute, request, seconds)) {
    struct problem problem;
    problem_set(&problem, PROBLEM_OVERLOADED, "", "the queue of requests is full");
    answer_problem(request, &problem);
    request->state = ANSWERED;
    connections_resume(connections, request->connection);
  }
  return MHD_YES;
}

static double cost_of(const struct request *request, const struct http_route *route) {
  if (route->cost) return route->cost(request->server->services.api, &request->view);
  return HANDOVER_SECONDS + (double)request->received * SECONDS_PER_BYTE;
}

static void answer_put_off(struct io_thread *thread) {
  const struct http_services *services = &thread->server->services;
  services->answer_put_off(services->api, &thread->put_off);
}

/* How often this thread has gone to sleep; 0 if the kernel does not count that. */
static long times_slept(void) {
  struct rusage usage;
  return getrusage(RUSAGE_THREAD, &usage) == 0 ? usage.ru_nvcsw : 0;
}

/* Whether the thread has waited for the request that begins now. To be preempted is
 * no rest. A sleep that was too short to be looked at counts at the next look. With
 * answers put off there is no sleep: their round comes at once. */
static bool has_rested(struct io_thread *thread, double now) {
  if (thread->put_off || now - thread->busy <= NO_REST_SECONDS) return false;
  const long slept = times_slept();
  const bool rested = slept == 0 || slept != thread->slept;
  thread->slept = slept;
  return rested;
}

/* Whether its answer may be put off: only where others are likely to have come, too.
 * Requests of different connections that a thread reads without a rest are a run;
 * clients that wait for their answers make one run as long as the last. */
static bool has_company(const struct request *request) {
  struct io_thread *thread = request->thread;
  if (request->connection == thread->first_of_run || has_rested(thread, request->view.began)) {
    thread->first_of_run = request->connection;
    thread->last_run = thread->run;
    thread->run = 0;
  }
  thread->busy = request->view.began;
  thread->run++;
  return thread->put_off || thread->run >= COMPANY || thread->last_run >= COMPANY;
}

static enum MHD_Result run(struct request *request) {
  const struct http_route *route = route_of(request);
  intake_show(&request->intake, &request->view);
  if (route->place == HTTP_ON_WORKER) {
    double seconds = cost_of(request, route);
    if (seconds >= HANDOVER_SECONDS) return hand_to_worker(request, seconds);
    request->view.at_once = true;
    if (has_company(request)) request->view.put_off = &request->thread->put_off;
  }
  call_handler(request);
  if (request->state == ANSWERED) return send_reply(request);
  request->state = PUT_OFF;
  return MHD_YES;
}

static enum MHD_Result take_end(struct request *request) {
  switch (request->state) {
  case COLLECTING:
    return run(request);
  case REFUSED:
  case ANSWERED:
    return send_reply(request);
  case PUT_OFF: /* all that came with it has been read */
    answer_put_off(request->thread);
    return send_reply(request);
  case COMPUTING: /* the suspension was ended by a stop, not by the worker */
    return MHD_NO;
  case NEW:
  case SENT:
    break;
  }
  return MHD_YES;
}

enum MHD_Result request_step(void *context, struct MHD_Connection *mhd, const char *url,
                             const char *method, const char *version, const char *piece,
                             size_t *piece_length, void **slot) {
  (void)context;
  (void)mhd;
  (void)url; /* cut at a NUL; the target is what came */
  struct request *request = *slot;
  if (!request) return MHD_NO;
  if (request->state == NEW) return take_head(request, method, version);
  if (*piece_length > 0) return take_piece(request, piece, piece_length);
  return take_end(request);
}

static void log_request(const struct request *request, bool complete, double seconds) {
  struct log *log = request->server->services.log;
  if (!log_wants(log, LOG_DEBUG)) return;
  const struct http_route *route = route_of(request);
  char peer[CONNECTION_PEER_MAX];
  connection_peer(request->mhd, peer, sizeof peer);
  LOG(log, LOG_DEBUG, "request", log_text("method", request->method),
      log_text("path", request->view.path), log_text("operation", route ? route->operation : ""),
      log_integer("status", request->state == SENT ? request->reply.status : 0),
      log_number("seconds", seconds), log_integer("received", (int64_t)request->received),
      log_integer("sent", (int64_t)request->sent), log_boolean("complete", complete),
      log_text("peer", peer));
}

static void count_request(const struct request *request, double seconds) {
  struct metrics *metrics = request->server->services.metrics;
  metrics_add(metrics, METRIC_REQUESTS_IN_FLIGHT, -1);
  metrics_add(metrics, METRIC_RECEIVED_BYTES, (int64_t)request->received);
  if (request->state != SENT) return;
  metrics_add(metrics, METRIC_SENT_BYTES, (int64_t)request->sent);
  metrics_request(metrics, request->match.index, request->reply.status);
  metrics_observe(metrics, HISTOGRAM_REQUEST_SECONDS, seconds);
}

void request_end(void *context, struct MHD_Connection *mhd, void **slot,
                 enum MHD_RequestTerminationCode why) {
  (void)mhd;
  struct io_thread *thread = context;
  struct http_server *server = thread->server;
  struct request *request = *slot;
  if (!request) return;
  *slot = NULL;
  if (request->state == PUT_OFF) answer_put_off(thread); /* it holds what is ours */
  forget_timeout(request);
  bool complete = why == MHD_REQUEST_TERMINATED_COMPLETED_OK;
  if (request->counted) {
    double seconds = seconds_since(&request->began);
    thread->busy = request->view.began + seconds;
    count_request(request, seconds);
    log_request(request, complete, seconds);
    connections_request_ended(server->connections, request->connection,
                              complete && !request->close);
  }
  put_away(thread, request);
}
