/* The least that a server on libmicrohttpd can do: read the body of a POST and
 * answer with a constant. What the daemon's own work costs is measured against
 * it.
 *
 *     bare_server --port-file FILE --reply-bytes N --threads N
 *
 * It is built as the daemon's server is: one libmicrohttpd daemon per thread,
 * each with epoll and its own thread, and connections dealt out to them in
 * turn. The library's own thread pool was rejected, because its threads accept
 * what comes first to hand: with 32 connections one of them may get most. */
#include <arpa/inet.h>
#include <getopt.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { THREADS_MAX = 64, BACKLOG = 1024 };

struct bare_server {
  struct MHD_Daemon *daemons[THREADS_MAX];
  unsigned count;
  struct MHD_Response *reply;
};

/* A request's context: how much of the body came. */
static enum MHD_Result answer(void *context, struct MHD_Connection *connection, const char *url,
                              const char *method, const char *version, const char *piece,
                              size_t *piece_length, void **request) {
  (void)url;
  (void)method;
  (void)version;
  (void)piece;
  const struct bare_server *server = context;
  size_t *received = *request;
  if (!received) {
    *request = calloc(1, sizeof *received);
    return *request ? MHD_YES : MHD_NO;
  }
  if (*piece_length > 0) {
    *received += *piece_length;
    *piece_length = 0;
    return MHD_YES;
  }
  return MHD_queue_response(connection, *received > 0 ? 200 : 400, server->reply);
}

static void completed(void *context, struct MHD_Connection *connection, void **request,
                      enum MHD_RequestTerminationCode why) {
  (void)context;
  (void)connection;
  (void)why;
  free(*request);
  *request = NULL;
}

static bool make_reply(struct bare_server *server, size_t length) {
  char *body = malloc(length);
  if (!body) return false;
  memset(body, '1', length);
  server->reply = MHD_create_response_from_buffer(length, body, MHD_RESPMEM_MUST_FREE);
  return server->reply &&
         MHD_add_response_header(server->reply, "Content-Type", "application/json") == MHD_YES;
}

static bool start_threads(struct bare_server *server, unsigned threads) {
  const unsigned flags = MHD_USE_EPOLL_INTERNAL_THREAD | MHD_USE_NO_LISTEN_SOCKET | MHD_USE_ITC;
  while (server->count < threads) {
    struct MHD_Daemon *daemon =
        MHD_start_daemon(flags, 0, NULL, NULL, answer, server, MHD_OPTION_NOTIFY_COMPLETED,
                         completed, NULL, MHD_OPTION_END);
    if (!daemon) return false;
    server->daemons[server->count++] = daemon;
  }
  return true;
}

static int open_listener(uint16_t *port) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t size = sizeof address;
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (listener < 0) return -1;
  if (bind(listener, (const struct sockaddr *)&address, size) != 0 ||
      listen(listener, BACKLOG) != 0 ||
      getsockname(listener, (struct sockaddr *)&address, &size) != 0) {
    close(listener);
    return -1;
  }
  *port = ntohs(address.sin_port);
  return listener;
}

static bool write_port(const char *path, unsigned port) {
  FILE *file = fopen(path, "w");
  if (!file) return false;
  fprintf(file, "%u\n", port);
  return fclose(file) == 0;
}

/* Until a signal ends the process. */
static void deal_out(const struct bare_server *server, int listener) {
  for (unsigned next = 0;; next++) {
    struct sockaddr_in address;
    socklen_t size = sizeof address;
    const int descriptor =
        accept4(listener, (struct sockaddr *)&address, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (descriptor < 0) continue;
    MHD_add_connection(server->daemons[next % server->count], descriptor,
                       (const struct sockaddr *)&address, size);
  }
}

int main(int argc, char **argv) {
  static const struct option options[] = {{"port-file", required_argument, NULL, 'p'},
                                          {"reply-bytes", required_argument, NULL, 'r'},
                                          {"threads", required_argument, NULL, 't'},
                                          {NULL, 0, NULL, 0}};
  struct bare_server server = {.count = 0};
  const char *port_file = NULL;
  size_t length = 0;
  unsigned threads = 0;
  int option;
  while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
    if (option == 'p') port_file = optarg;
    if (option == 'r') length = (size_t)strtoull(optarg, NULL, 10);
    if (option == 't') threads = (unsigned)strtoul(optarg, NULL, 10);
  }
  if (!port_file || length == 0 || threads == 0 || threads > THREADS_MAX) {
    fprintf(stderr, "usage: %s --port-file FILE --reply-bytes N --threads N\n", argv[0]);
    return 2;
  }
  signal(SIGPIPE, SIG_IGN);
  uint16_t port;
  const int listener = open_listener(&port);
  if (listener < 0 || !make_reply(&server, length) || !start_threads(&server, threads) ||
      !write_port(port_file, port)) {
    fprintf(stderr, "bare_server: can't start\n");
    return EXIT_FAILURE;
  }
  deal_out(&server, listener);
}
