/* The open connections: how many, what each is at, who has to go. */
#ifndef HTTP_CONNECTIONS_H
#define HTTP_CONNECTIONS_H

#include <microhttpd.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "http/deadline.h"
#include "observe/log.h"
#include "observe/metrics.h"

struct connections;
struct connection; /* one open connection */

struct connections_config {
  struct deadline_rules rules;
  size_t limit; /* connections that are served at once */
  struct log *log;
  struct metrics *metrics;
};

/* Starts the watchdog thread, too. NULL where memory or threads are short. */
struct connections *connections_create(const struct connections_config *config);
/* Every connection must have been closed. Accepts NULL. */
void connections_free(struct connections *connections);

/* A connection was accepted and is about to be handed to libmicrohttpd; or it
 * was not taken after all. */
void connections_expect(struct connections *connections);
void connections_miss(struct connections *connections);

/* From libmicrohttpd's notifications. connections_open() returns NULL where memory
 * is short; the socket is then shut already. */
struct connection *connections_open(struct connections *connections, struct MHD_Connection *mhd);
void connections_close(struct connections *connections, struct connection *connection);

/* The client's address without its port, "" where unknown. */
#define CONNECTION_PEER_MAX 64
void connection_peer(struct MHD_Connection *mhd, char *text, size_t size);

/* Open ones, served or not, and those that are about to be opened. */
size_t connections_taken(struct connections *connections);

/* False where the connection was cut already: nothing can be answered on it. */
bool connections_enter(struct connections *connections, struct connection *connection,
                       enum phase phase, uint64_t expected);

/* After its last reply, swallow what the client still sends before closing. */
void connections_linger(struct connections *connections, struct connection *connection);

/* Ends the connection at once, whatever it is at. */
void connections_cut(struct connections *connections, struct connection *connection);

/* Requests under way, from the head to the end of the reply. A request begins with
 * its connection entering that phase. `admitted`: whether the connection is one
 * of the `limit` that are served; asked anew with every request, so one that
 * waited gets a place that became free. False where it was cut already. */
bool connections_request_began(struct connections *connections, struct connection *connection,
                               enum phase phase, uint64_t expected, bool *admitted);
/* `idles`: the connection waits for the next one. */
void connections_request_ended(struct connections *connections, struct connection *connection,
                               bool idles);

/* Suspends the connection, from its own handler; false once the server stops,
 * and then nothing happened. */
bool connections_suspend(struct connections *connections, struct connection *connection);
/* Ends the suspension, from any thread. The connection may be gone on return. */
void connections_resume(struct connections *connections, struct connection *connection);

/* Stop, first half: idle connections end, once no request can be on its way.
 * True once no request is under way, false where that takes longer. */
bool connections_drain(struct connections *connections, double seconds);
bool connections_draining(struct connections *connections);

/* Stop, second half: no suspension starts any more, and all are ended. */
void connections_resume_all(struct connections *connections);

#endif
