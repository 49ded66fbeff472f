/* Start, drain and stop of the HTTP server.
 *
 * One thread accepts (listener.c), `io_threads` threads of libmicrohttpd read and
 * write sockets, one thread watches deadlines (connections.c); handlers that
 * need time run on the workers of whoever started us. libmicrohttpd is started
 * once per I/O thread, without a listening socket of its own and without its
 * thread pool, which does not go with that; connections are dealt out in turn.
 *
 * Two limits on connections, from the inside out: max_connections are served;
 * some more are accepted so that they can be told 503, and the rest waits in the
 * kernel. libmicrohttpd has to have no limit of its own: up to 0.9.75 the thread
 * that meets it goes on with a lock taken, and waits for itself for ever at the
 * next connection.
 *
 * Its timeout stays off: it would count inactivity in every phase alike, and
 * every phase has a deadline here (deadline.c).
 *
 * Threads: struct http_server is written before the threads start and after
 * they ended, but for next_thread, which is the accepting thread's, and what is
 * in the I/O threads' own structs. */
#include "http/server.h"

#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "http/head.h"
#include "http/request.h"

/* Heads and what libmicrohttpd keeps beside them have to fit; bodies are read in
 * pieces of about half of it, and all of it is wiped after each request. With 32 KiB
 * small requests take 3 % longer, with 16 KiB an upload takes 13 % longer. More than
 * 32 KiB would also come by mmap() and go by munmap() with every connection. */
#define CONNECTION_MEMORY (24 << 10)

/* Descriptors beside the connections': the store's, the log, lingering ones. */
#define OTHER_DESCRIPTORS 512

static unsigned most_open(const struct http_config *config) {
  return config->max_connections + config->max_connections / 8 + 64;
}

/* libmicrohttpd's messages are nearly all about what clients did. */
static void log_message(void *context, const char *format, va_list arguments) {
  struct http_server *server = context;
  if (!log_wants(server->services.log, LOG_DEBUG)) return;
  char text[512];
  int printed = vsnprintf(text, sizeof text, format, arguments);
  if (printed < 0) return;
  text[strcspn(text, "\n")] = '\0';
  LOG(server->services.log, LOG_DEBUG, "libmicrohttpd", log_text("message", text));
}

static void connection_changed(void *context, struct MHD_Connection *mhd, void **slot,
                               enum MHD_ConnectionNotificationCode what) {
  struct http_server *server = context;
  if (what == MHD_CONNECTION_NOTIFY_STARTED) {
    *slot = connections_open(server->connections, mhd);
  } else if (*slot) {
    connections_close(server->connections, *slot);
    *slot = NULL;
  }
}

/* Paths are taken as they come. */
static size_t leave_escaped(void *context, struct MHD_Connection *mhd, char *text) {
  (void)context;
  (void)mhd;
  return strlen(text);
}

static void accepted(void *context, int descriptor, const struct sockaddr *address,
                     socklen_t size) {
  struct http_server *server = context;
  struct MHD_Daemon *daemon = server->io_threads[server->next_thread++ % server->started].daemon;
  connections_expect(server->connections);
  if (MHD_add_connection(daemon, descriptor, address, size) != MHD_YES)
    connections_miss(server->connections);
}

static bool has_room(void *context) {
  struct http_server *server = context;
  return connections_taken(server->connections) < most_open(&server->config);
}

static struct MHD_Daemon *start_daemon(struct io_thread *thread) {
  struct http_server *server = thread->server;
  unsigned flags = MHD_USE_EPOLL_INTERNAL_THREAD | MHD_USE_NO_LISTEN_SOCKET | MHD_USE_ITC |
                   MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG;
  /* A lenient parser's only strictness is to hang up on what head.c answers. */
  int strictness = head_parser_is_lenient() ? 0 : 1;
  return MHD_start_daemon(flags, 0, NULL, NULL, request_step, thread, MHD_OPTION_EXTERNAL_LOGGER,
                          log_message, server, MHD_OPTION_STRICT_FOR_CLIENT, strictness,
                          MHD_OPTION_CONNECTION_LIMIT, UINT_MAX, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
                          (size_t)CONNECTION_MEMORY, MHD_OPTION_URI_LOG_CALLBACK, request_begin,
                          thread, MHD_OPTION_UNESCAPE_CALLBACK, leave_escaped, server,
                          MHD_OPTION_NOTIFY_COMPLETED, request_end, thread,
                          MHD_OPTION_NOTIFY_CONNECTION, connection_changed, server, MHD_OPTION_END);
}

/* The soft limit is raised as far as it may be and has to be. */
static void make_room_for_descriptors(const struct http_config *config, struct log *log) {
  struct rlimit limit;
  rlim_t wanted = (rlim_t)most_open(config) + OTHER_DESCRIPTORS;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= wanted) return;
  limit.rlim_cur = limit.rlim_max < wanted ? limit.rlim_max : wanted;
  if (setrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur < wanted)
    LOG(log, LOG_WARNING, "few_descriptors", log_integer("limit", (int64_t)limit.rlim_cur),
        log_integer("wanted", (int64_t)wanted),
        log_integer("max_connections", config->max_connections));
}

static bool start_threads(struct http_server *server) {
  const struct http_config *config = &server->config;
  const struct connections_config table = {
      .rules = {.head_ms = (int64_t)config->head_timeout_seconds * 1000,
                .body_ms = (int64_t)config->body_timeout_seconds * 1000,
                .idle_ms = (int64_t)config->idle_timeout_seconds * 1000},
      .limit = config->max_connections,
      .log = server->services.log,
      .metrics = server->services.metrics};
  server->connections = connections_create(&table);
  if (!server->connections) return false;
  server->io_threads = calloc(config->io_threads, sizeof *server->io_threads);
  if (!server->io_threads) return false;
  for (; server->started < config->io_threads; server->started++) {
    struct io_thread *thread = &server->io_threads[server->started];
    thread->server = server;
    thread->daemon = start_daemon(thread);
    if (!thread->daemon) return false;
  }
  const struct listener_client client = {
      .accepted = accepted, .has_room = has_room, .context = server, .log = server->services.log};
  return listener_start(server->listener, &client);
}

struct http_server *http_server_start(const struct http_config *config,
                                      const struct http_services *services, char *error,
                                      size_t error_size) {
  struct http_server *server = calloc(1, sizeof *server);
  if (!server) {
    snprintf(error, error_size, "no memory for the HTTP server");
    return NULL;
  }
  server->config = *config;
  server->services = *services;
  server->listener = listener_open(config->address, config->port, error, error_size);
  if (!server->listener) goto failed;
  make_room_for_descriptors(config, services->log);

  /* Signals are the main thread's. */
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  bool started = start_threads(server);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (started) return server;
  snprintf(error, error_size, "can not start the HTTP server's threads");

failed:
  http_server_stop(server);
  return NULL;
}

uint16_t http_server_port(const struct http_server *server) {
  return listener_port(server->listener);
}

bool http_server_drain(struct http_server *server, double seconds) {
  listener_stop(server->listener);
  return connections_drain(server->connections, seconds);
}

void http_server_stop(struct http_server *server) {
  if (!server) return;
  listener_free(server->listener);
  if (server->connections) connections_resume_all(server->connections);
  for (unsigned i = 0; i < server->started; i++) {
    MHD_stop_daemon(server->io_threads[i].daemon);
    requests_free_spare(&server->io_threads[i]);
  }
  free(server->io_threads);
  connections_free(server->connections);
  free(server);
}
