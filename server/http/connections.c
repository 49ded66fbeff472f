/* The table of open connections and the watchdog that ends late ones.
 *
 * libmicrohttpd tells when a connection opens and when it closes, and lets go of the
 * socket only after the second; so as long as a connection stands in this
 * table its descriptor is its own, and shutting it down under the table's lock
 * can not hit a stranger that got the number anew. A connection is never closed
 * from here: shutdown() makes libmicrohttpd's thread find it dead and close it
 * in its own time.
 *
 * The table also knows what a stop has to wait for (requests under way) and
 * what it has to end first (suspensions: libmicrohttpd aborts the process when
 * it is stopped with one left).
 *
 * Threads: `mutex` guards everything but `draining`, which is set under it and
 * read without. It is taken for a few assignments at each change of phase; an
 * atomic per connection was rejected, because "cut it unless a request just
 * began" and "suspend it unless the server stops" have to be one step. Lock
 * order: mutex, then the linger set's and libmicrohttpd's own (which it never
 * holds when it calls us). The log is written outside of it. The watchdog is the one thread that
 * ticks the linger set, and sleeps while there is nothing to watch. */
#include "http/connections.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>

#include "http/linger.h"

#define TICK_MS 100

/* When a stop begins, a request may be on its way: the first one of a new
 * connection, or the next one of a client that has just been answered. This
 * long they are waited for, and then answered with `Connection: close`. */
#define NEW_GRACE_MS  250
#define IDLE_GRACE_MS 100
#define DRAIN_TICK_MS 20

/* How long a connection counts that was handed to libmicrohttpd and is not open yet. It
 * says nothing of one that it has no memory for, which would else count for ever. */
#define COMING_MS 1000

/* Ended connections that one tick describes in the log; the rest is counted. */
#define MOST_LOGGED 16

struct connection {
  struct connection *next, *previous;
  struct MHD_Connection *mhd;
  int descriptor;
  int64_t opened;
  struct deadline deadline;
  bool admitted;
  bool fresh; /* no request was answered yet */
  bool suspended;
  bool lingers;
  bool cut; /* shut down from here */
};

struct connections {
  struct connections_config config;
  struct linger_set *linger;
  pthread_mutex_t mutex;
  pthread_cond_t wake;    /* for the watchdog */
  pthread_cond_t settled; /* for connections_drain() */
  pthread_t watchdog;
  struct connection *first;
  size_t coming;     /* accepted, but not opened yet */
  int64_t last_came; /* when the last of them was */
  size_t count, admitted, under_way;
  bool stopping; /* no suspension any more */
  bool finished; /* the watchdog ends */
  atomic_bool draining;
};

/* What the log needs to know of a connection that was ended. */
struct cut_note {
  enum phase phase;
  int64_t milliseconds;
  char peer[CONNECTION_PEER_MAX];
};

static struct timespec after_ms(int64_t milliseconds) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  time.tv_sec += (time_t)(milliseconds / 1000);
  time.tv_nsec += (long)(milliseconds % 1000) * 1000000;
  if (time.tv_nsec >= 1000000000) {
    time.tv_sec++;
    time.tv_nsec -= 1000000000;
  }
  return time;
}

static void cut(struct connection *connection) {
  connection->cut = true;
  shutdown(connection->descriptor, SHUT_RDWR);
}

void connection_peer(struct MHD_Connection *mhd, char *text, size_t size) {
  const union MHD_ConnectionInfo *info =
      MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
  const struct sockaddr *address = info ? info->client_addr : NULL;
  socklen_t length = address && address->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6)
                                                               : sizeof(struct sockaddr_in);
  if (!address || getnameinfo(address, length, text, (socklen_t)size, NULL, 0, NI_NUMERICHOST) != 0)
    text[0] = '\0';
}

static void note_cut(const struct connection *connection, int64_t now, struct cut_note *note) {
  note->phase = connection->deadline.phase;
  note->milliseconds = now - connection->deadline.since;
  connection_peer(connection->mhd, note->peer, sizeof note->peer);
}

/* libmicrohttpd takes a read that did not fill its buffer for the last one until it is
 * woken again, and so misses the client's end where that came with the data. To shut
 * down the side that is closed anyway wakes it, and takes nothing from a request that
 * it has read and is about to begin, which to end the connection here did. Where it
 * was woken before that read, the next tick does so again. */
static void show_end(const struct connection *connection) {
  shutdown(connection->descriptor, SHUT_RD);
}

/* Ends what is late; describes the first ones. Under the mutex. */
static size_t sweep(struct connections *connections, struct cut_note *notes) {
  int64_t now = deadline_now();
  size_t ended = 0;
  for (struct connection *c = connections->first; c; c = c->next) {
    if (c->cut) continue;
    if (!deadline_passed(&c->deadline, &connections->config.rules, c->descriptor, now)) {
      if (c->deadline.phase == PHASE_IDLE && c->deadline.half_closed) show_end(c);
      continue;
    }
    if (c->deadline.phase != PHASE_IDLE) {
      if (ended < MOST_LOGGED) note_cut(c, now, &notes[ended]);
      ended++;
      /* before the cut, which the client sees at once */
      metrics_add(connections->config.metrics, METRIC_CONNECTIONS_TIMED_OUT, 1);
    }
    cut(c);
  }
  return ended;
}

static void report(struct connections *connections, const struct cut_note *notes, size_t ended) {
  for (size_t i = 0; i < ended && i < MOST_LOGGED; i++)
    LOG(connections->config.log, LOG_INFO, "connection_timed_out", log_text("peer", notes[i].peer),
        log_text("phase", phase_name(notes[i].phase)),
        log_number("seconds", (double)notes[i].milliseconds / 1000));
}

static void *watch(void *context) {
  struct connections *connections = context;
  struct cut_note notes[MOST_LOGGED];
  pthread_mutex_lock(&connections->mutex);
  while (!connections->finished) {
    if (!connections->first && !linger_any(connections->linger)) {
      pthread_cond_wait(&connections->wake, &connections->mutex);
    } else {
      struct timespec until = after_ms(TICK_MS);
      pthread_cond_timedwait(&connections->wake, &connections->mutex, &until);
    }
    size_t ended = sweep(connections, notes);
    pthread_mutex_unlock(&connections->mutex);
    if (ended > 0) report(connections, notes, ended);
    linger_tick(connections->linger, deadline_now());
    pthread_mutex_lock(&connections->mutex);
  }
  pthread_mutex_unlock(&connections->mutex);
  return NULL;
}

static bool init_condition(pthread_cond_t *condition) {
  pthread_condattr_t attributes;
  if (pthread_condattr_init(&attributes) != 0) return false;
  pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
  bool done = pthread_cond_init(condition, &attributes) == 0;
  pthread_condattr_destroy(&attributes);
  return done;
}

struct connections *connections_create(const struct connections_config *config) {
  struct connections *connections = calloc(1, sizeof *connections);
  if (!connections) return NULL;
  connections->config = *config;
  connections->linger = linger_create();
  if (!connections->linger) goto no_linger;
  if (pthread_mutex_init(&connections->mutex, NULL) != 0) goto no_mutex;
  if (!init_condition(&connections->wake)) goto no_wake;
  if (!init_condition(&connections->settled)) goto no_settled;
  if (pthread_create(&connections->watchdog, NULL, watch, connections) != 0) goto no_thread;
  return connections;

no_thread:
  pthread_cond_destroy(&connections->settled);
no_settled:
  pthread_cond_destroy(&connections->wake);
no_wake:
  pthread_mutex_destroy(&connections->mutex);
no_mutex:
  linger_free(connections->linger);
no_linger:
  free(connections);
  return NULL;
}

void connections_free(struct connections *connections) {
  if (!connections) return;
  pthread_mutex_lock(&connections->mutex);
  connections->finished = true;
  pthread_cond_signal(&connections->wake);
  pthread_mutex_unlock(&connections->mutex);
  pthread_join(connections->watchdog, NULL);
  linger_free(connections->linger);
  pthread_cond_destroy(&connections->settled);
  pthread_cond_destroy(&connections->wake);
  pthread_mutex_destroy(&connections->mutex);
  free(connections);
}

void connections_expect(struct connections *connections) {
  int64_t now = deadline_now();
  pthread_mutex_lock(&connections->mutex);
  connections->coming++;
  connections->last_came = now;
  pthread_mutex_unlock(&connections->mutex);
}

void connections_miss(struct connections *connections) {
  pthread_mutex_lock(&connections->mutex);
  if (connections->coming > 0) connections->coming--;
  pthread_mutex_unlock(&connections->mutex);
}

struct connection *connections_open(struct connections *connections, struct MHD_Connection *mhd) {
  connections_miss(connections);
  const union MHD_ConnectionInfo *info =
      MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD);
  if (!info) return NULL;
  int descriptor = info->connect_fd;
  struct connection *connection = calloc(1, sizeof *connection);
  if (!connection) {
    shutdown(descriptor, SHUT_RDWR);
    return NULL;
  }
  int64_t now = deadline_now();
  connection->mhd = mhd;
  connection->descriptor = descriptor;
  connection->opened = now;
  connection->fresh = true;
  deadline_enter(&connection->deadline, &connections->config.rules, PHASE_HEAD, now, 0);

  pthread_mutex_lock(&connections->mutex);
  if (!connections->first) pthread_cond_signal(&connections->wake);
  connection->next = connections->first;
  if (connection->next) connection->next->previous = connection;
  connections->first = connection;
  connections->count++;
  if (connections->admitted < connections->config.limit) {
    connection->admitted = true;
    connections->admitted++;
  }
  pthread_mutex_unlock(&connections->mutex);
  metrics_add(connections->config.metrics, METRIC_CONNECTIONS, 1);
  return connection;
}

void connections_close(struct connections *connections, struct connection *connection) {
  pthread_mutex_lock(&connections->mutex);
  int unread = 0;
  bool reset =
      connection->lingers || (ioctl(connection->descriptor, FIONREAD, &unread) == 0 && unread > 0);
  if (reset && !connection->cut)
    linger_add(connections->linger, connection->descriptor, deadline_now());
  if (connection->previous)
    connection->previous->next = connection->next;
  else
    connections->first = connection->next;
  if (connection->next) connection->next->previous = connection->previous;
  connections->count--;
  if (connection->admitted) connections->admitted--;
  pthread_mutex_unlock(&connections->mutex);
  free(connection);
  metrics_add(connections->config.metrics, METRIC_CONNECTIONS, -1);
}

size_t connections_taken(struct connections *connections) {
  int64_t now = deadline_now();
  pthread_mutex_lock(&connections->mutex);
  if (now - connections->last_came >= COMING_MS) connections->coming = 0;
  size_t taken = connections->count + connections->coming;
  pthread_mutex_unlock(&connections->mutex);
  return taken;
}

/* Under the mutex. */
static void enter(struct connections *connections, struct connection *connection, enum phase phase,
                  int64_t now, uint64_t expected) {
  deadline_enter(&connection->deadline, &connections->config.rules, phase, now, expected);
  if (phase == PHASE_IDLE) connection->fresh = false;
}

bool connections_enter(struct connections *connections, struct connection *connection,
                       enum phase phase, uint64_t expected) {
  int64_t now = deadline_now();
  pthread_mutex_lock(&connections->mutex);
  enter(connections, connection, phase, now, expected);
  bool alive = !connection->cut;
  pthread_mutex_unlock(&connections->mutex);
  return alive;
}

void connections_linger(struct connections *connections, struct connection *connection) {
  pthread_mutex_lock(&connections->mutex);
  connection->lingers = true;
  pthread_mutex_unlock(&connections->mutex);
}

void connections_cut(struct connections *connections, struct connection *connection) {
  pthread_mutex_lock(&connections->mutex);
  if (!connection->cut) cut(connection);
  pthread_mutex_unlock(&connections->mutex);
}

bool connections_request_began(struct connections *connections, struct connection *connection,
                               enum phase phase, uint64_t expected, bool *admitted) {
  int64_t now = deadline_now();
  pthread_mutex_lock(&connections->mutex);
  connections->under_way++;
  enter(connections, connection, phase, now, expected);
  if (!connection->admitted && connections->admitted < connections->config.limit) {
    connection->admitted = true;
    connections->admitted++;
  }
  *admitted = connection->admitted;
  bool alive = !connection->cut;
  pthread_mutex_unlock(&connections->mutex);
  return alive;
}

void connections_request_ended(struct connections *connections, struct connection *connection,
                               bool idles) {
  int64_t now = deadline_now();
  pthread_mutex_lock(&connections->mutex);
  if (--connections->under_way == 0) pthread_cond_signal(&connections->settled);
  if (idles) enter(connections, connection, PHASE_IDLE, now, 0);
  pthread_mutex_unlock(&connections->mutex);
}

bool connections_suspend(struct connections *connections, struct connection *connection) {
  pthread_mutex_lock(&connections->mutex);
  bool possible = !connections->stopping;
  if (possible) {
    MHD_suspend_connection(connection->mhd);
    connection->suspended = true;
  }
  pthread_mutex_unlock(&connections->mutex);
  return possible;
}

void connections_resume(struct connections *connections, struct connection *connection) {
  pthread_mutex_lock(&connections->mutex);
  if (connection->suspended) {
    connection->suspended = false;
    MHD_resume_connection(connection->mhd);
  }
  pthread_mutex_unlock(&connections->mutex);
}

void connections_resume_all(struct connections *connections) {
  pthread_mutex_lock(&connections->mutex);
  connections->stopping = true;
  for (struct connection *c = connections->first; c; c = c->next) {
    if (!c->suspended) continue;
    c->suspended = false;
    MHD_resume_connection(c->mhd);
  }
  pthread_mutex_unlock(&connections->mutex);
}

/* Ends the connections that have idled for long enough. True where none is
 * left that a request may be on its way on. */
static bool drain_idle(struct connections *connections, int64_t start) {
  int64_t now = deadline_now();
  bool quiet = connections->coming == 0 || now - start >= NEW_GRACE_MS;
  for (struct connection *c = connections->first; c; c = c->next) {
    if (c->cut) continue;
    if (c->deadline.phase == PHASE_IDLE) {
      if (now - c->deadline.since >= IDLE_GRACE_MS)
        cut(c);
      else
        quiet = false;
    } else if (c->fresh && c->deadline.phase == PHASE_HEAD && now - c->opened < NEW_GRACE_MS) {
      quiet = false;
    }
  }
  return quiet;
}

bool connections_drain(struct connections *connections, double seconds) {
  int64_t start = deadline_now(), end = start + (int64_t)(seconds * 1000);
  pthread_mutex_lock(&connections->mutex);
  connections->draining = true;
  while (!drain_idle(connections, start) || connections->under_way > 0) {
    int64_t left = end - deadline_now();
    if (left <= 0) break;
    struct timespec until = after_ms(left < DRAIN_TICK_MS ? left : DRAIN_TICK_MS);
    pthread_cond_timedwait(&connections->settled, &connections->mutex, &until);
  }
  bool settled = connections->under_way == 0;
  pthread_mutex_unlock(&connections->mutex);
  return settled;
}

bool connections_draining(struct connections *connections) {
  return connections->draining;
}
