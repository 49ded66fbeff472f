/* How long a connection may take for what it is at. */
#ifndef HTTP_DEADLINE_H
#define HTTP_DEADLINE_H

#include <stdbool.h>
#include <stdint.h>

/* What a connection is at. */
enum phase {
  PHASE_HEAD,      /* a request head arrives */
  PHASE_BODY,      /* a request body arrives */
  PHASE_COMPUTING, /* the server works: no deadline */
  PHASE_REPLY,     /* the client takes the reply */
  PHASE_IDLE       /* between two requests */
};

struct deadline_rules {
  int64_t head_ms, body_ms, idle_ms;
};

struct deadline {
  enum phase phase;
  int64_t since, due; /* milliseconds of CLOCK_MONOTONIC */
  bool looked;        /* at this phase, at least once: the baseline is known */
  uint64_t baseline;  /* bytes that had passed on the connection, or were counted already */
  uint64_t expected;  /* bytes the phase will still move at most */
  bool half_closed;   /* the client was seen to send no more, ever */
};

const char *phase_name(enum phase phase);

/* Milliseconds of CLOCK_MONOTONIC. */
int64_t deadline_now(void);

/* Starts a phase; `expected` matters for PHASE_BODY and PHASE_REPLY. A head that
 * goes on keeps its deadline. */
void deadline_enter(struct deadline *deadline, const struct deadline_rules *rules, enum phase phase,
                    int64_t now, uint64_t expected);

/* To be asked again and again, of the connection's socket. True where the
 * connection has to be ended. What moved enough meanwhile gets a later deadline
 * instead. */
bool deadline_passed(struct deadline *deadline, const struct deadline_rules *rules, int descriptor,
                     int64_t now);

#endif
