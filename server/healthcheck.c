/* A health check by the daemon's own binary, so that an image needs no curl.
 *
 * It speaks just enough HTTP: one request with `Connection: close`, and the
 * status line of the reply. A daemon that listens on every address is asked on
 * loopback. */
#include "healthcheck.h"

#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

enum { PATIENCE_SECONDS = 5 };

static int connect_to(const char *address, uint16_t port) {
  if (strcmp(address, "0.0.0.0") == 0) address = "127.0.0.1";
  if (strcmp(address, "::") == 0) address = "::1";
  char service[8];
  snprintf(service, sizeof service, "%u", port);
  const struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
                                 .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV};
  struct addrinfo *found = NULL;
  if (getaddrinfo(address, service, &hints, &found) != 0) return -1;
  int descriptor = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (descriptor >= 0) {
    const struct timeval patience = {.tv_sec = PATIENCE_SECONDS};
    setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(descriptor, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    if (connect(descriptor, found->ai_addr, found->ai_addrlen) != 0) {
      close(descriptor);
      descriptor = -1;
    }
  }
  freeaddrinfo(found);
  return descriptor;
}

int healthcheck(const char *address, uint16_t port) {
  static const char request[] =
      "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
  static const char wanted[] = "HTTP/1.1 200";
  char reply[sizeof wanted] = "";
  const int descriptor = connect_to(address, port);
  if (descriptor >= 0) {
    size_t length = 0;
    ssize_t got = send(descriptor, request, sizeof request - 1, MSG_NOSIGNAL);
    while (got > 0 && length < sizeof reply - 1) {
      got = recv(descriptor, reply + length, sizeof reply - 1 - length, 0);
      if (got > 0) length += (size_t)got;
    }
    close(descriptor);
  }
  if (strcmp(reply, wanted) == 0) return 0;
  fprintf(stderr, "attentiond: no healthy daemon answers at %s port %u\n", address, port);
  return 1;
}
