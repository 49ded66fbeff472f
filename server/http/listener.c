/* Listening and accepting, apart from libmicrohttpd.
 *
 * libmicrohttpd could own the socket, but then three things go wrong. To stop
 * accepting (MHD_quiesce_daemon) races with its own threads over the epoll
 * set, and the loser aborts the process. At its connection limit, or when
 * descriptors run out, it stops to listen until *that* thread's next
 * connection ends, and with none open it spins. And its threads race for each
 * new connection, so one of them may end up with most. So one thread accepts
 * here, deals the connections out, and knows when to stop.
 *
 * Threads: `stopping` and `wake` (an eventfd) are how listener_stop() reaches
 * the accepting thread; everything else is that thread's while it runs. */
#include "http/listener.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* How long to leave the socket alone when there is no room or no descriptor. */
#define PAUSE_MS 50

/* While descriptors are short, one line in the log per this many pauses. */
#define PAUSES_PER_LINE 200

struct listener {
  int descriptor, wake;
  uint16_t port;
  struct listener_client client;
  pthread_t thread;
  bool started;
  atomic_bool stopping;
  unsigned pauses; /* the accepting thread's */
};

static const char *reason(int error) {
  switch (error) {
  case EADDRINUSE:
    return "the address is in use by another program";
  case EADDRNOTAVAIL:
    return "no interface of this machine has that address";
  case EACCES:
    return "there is no permission for that port";
  default:
    return strerror(error);
  }
}

/* Errors go to errno. */
static int open_socket(const struct addrinfo *info) {
  int descriptor = socket(info->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (descriptor < 0) return -1;
  /* A restart must not wait until the last connections' sockets time out. */
  int yes = 1;
  setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  if (bind(descriptor, info->ai_addr, info->ai_addrlen) == 0 && listen(descriptor, SOMAXCONN) == 0)
    return descriptor;
  int error = errno;
  close(descriptor);
  errno = error;
  return -1;
}

static bool read_port(int descriptor, uint16_t *port) {
  struct sockaddr_storage address;
  socklen_t size = sizeof address;
  if (getsockname(descriptor, (struct sockaddr *)&address, &size) != 0) return false;
  if (address.ss_family == AF_INET6)
    *port = ntohs(((struct sockaddr_in6 *)&address)->sin6_port);
  else
    *port = ntohs(((struct sockaddr_in *)&address)->sin_port);
  return true;
}

struct listener *listener_open(const char *address, uint16_t port, char *error, size_t error_size) {
  struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE,
                           .ai_socktype = SOCK_STREAM};
  struct addrinfo *info = NULL;
  struct listener *listener = NULL;
  char service[8];
  snprintf(service, sizeof service, "%u", (unsigned)port);
  if (getaddrinfo(address, service, &hints, &info) != 0) {
    snprintf(error, error_size, "\"%s\" is not a numeric IPv4 or IPv6 address", address);
    return NULL;
  }
  listener = calloc(1, sizeof *listener);
  if (!listener) {
    snprintf(error, error_size, "no memory to listen");
    goto done;
  }
  listener->descriptor = open_socket(info);
  listener->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (listener->descriptor < 0 || listener->wake < 0 ||
      !read_port(listener->descriptor, &listener->port)) {
    snprintf(error, error_size, "can not listen on %s port %u: %s", address, (unsigned)port,
             reason(errno));
    listener_free(listener);
    listener = NULL;
  }
done:
  freeaddrinfo(info);
  return listener;
}

uint16_t listener_port(const struct listener *listener) {
  return listener->port;
}

/* Takes what waits. False where the socket should be left alone for a while. */
static bool accept_all(struct listener *listener) {
  const struct listener_client *client = &listener->client;
  while (client->has_room(client->context)) {
    struct sockaddr_storage address;
    socklen_t size = sizeof address;
    int descriptor = accept4(listener->descriptor, (struct sockaddr *)&address, &size,
                             SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (descriptor >= 0) {
      client->accepted(client->context, descriptor, (struct sockaddr *)&address, size);
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      return true;
    } else if (errno != EINTR && errno != ECONNABORTED) {
      /* Most likely descriptors are short: that is not cured by trying again. */
      if (listener->pauses++ % PAUSES_PER_LINE == 0)
        LOG(client->log, LOG_ERROR, "accept_failed", log_text("reason", strerror(errno)));
      return false;
    }
  }
  return false;
}

static void *accept_loop(void *context) {
  struct listener *listener = context;
  struct pollfd watched[2] = {{.fd = listener->wake, .events = POLLIN},
                              {.fd = listener->descriptor, .events = POLLIN}};
  bool open = true;
  while (!listener->stopping) {
    if (poll(watched, open ? 2 : 1, open ? -1 : PAUSE_MS) < 0 && errno != EINTR) break;
    open = accept_all(listener);
  }
  /* Whoever connected before the stop is owed an answer; nobody is to connect
   * between the last accept and the close. */
  listen(listener->descriptor, 0);
  accept_all(listener);
  close(listener->descriptor);
  listener->descriptor = -1;
  return NULL;
}

bool listener_start(struct listener *listener, const struct listener_client *client) {
  listener->client = *client;
  listener->started = pthread_create(&listener->thread, NULL, accept_loop, listener) == 0;
  return listener->started;
}

void listener_stop(struct listener *listener) {
  if (listener->started) {
    listener->stopping = true;
    uint64_t one = 1;
    ssize_t written = write(listener->wake, &one, sizeof one);
    (void)written; /* it can only fail where the count is high already */
    pthread_join(listener->thread, NULL);
    listener->started = false;
  }
}

void listener_free(struct listener *listener) {
  if (!listener) return;
  listener_stop(listener);
  if (listener->descriptor >= 0) close(listener->descriptor);
  if (listener->wake >= 0) close(listener->wake);
  free(listener);
}
