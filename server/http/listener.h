/* The listening socket and the thread that accepts from it. */
#ifndef HTTP_LISTENER_H
#define HTTP_LISTENER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "observe/log.h"

struct listener;

/* Listens on a numeric address. On failure returns NULL with a sentence. */
struct listener *listener_open(const char *address, uint16_t port, char *error, size_t error_size);
uint16_t listener_port(const struct listener *listener);

struct listener_client {
  /* Takes the connection over, and closes it where it can not serve it. */
  void (*accepted)(void *context, int descriptor, const struct sockaddr *address, socklen_t size);
  /* False while no further connection can be taken, not even to refuse it. */
  bool (*has_room)(void *context);
  void *context;
  struct log *log;
};

/* Begins to accept; false where no thread can be had. */
bool listener_start(struct listener *listener, const struct listener_client *client);

/* Accepts what waits already, then closes the socket. */
void listener_stop(struct listener *listener);

/* Stops where that was not done. Accepts NULL. */
void listener_free(struct listener *listener);

#endif
