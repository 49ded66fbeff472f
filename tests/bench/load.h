/* A load of HTTP requests on a server on this machine, and how it answers. */
#ifndef BENCH_LOAD_H
#define BENCH_LOAD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct load_plan {
  uint16_t port;       /* on 127.0.0.1 */
  const char *request; /* head and body, sent as they are */
  size_t request_length;
  unsigned connections;    /* kept alive; each has one request under way, always */
  double warm_up, seconds; /* requests that end in the warm-up do not count */
  size_t body_length;      /* of every reply; 0: any but none */
  const atomic_bool *stop; /* ends the load early; may be NULL */
};

struct load_result {
  size_t answered;       /* requests, in the warm-up too */
  size_t requests;       /* that were answered after it */
  double rate;           /* of them a second */
  double p50, p99, most; /* seconds from a request's first byte to its reply's last */
  size_t body_length;    /* of the last reply */
  char fault[160];
};

/* False with a sentence in `fault` where a connection broke, a reply was not
 * 200 or was not of the expected length, or nothing was answered though there
 * was no `stop`. */
bool load_run(const struct load_plan *plan, struct load_result *result);

/* A socket to a server on this machine; -1 with errno where there is none. */
int load_connect(uint16_t port);

#endif
