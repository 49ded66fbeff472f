/* The metrics, declared once in METRIC_LIST: name, kind, help. /metrics prints
 * them in Prometheus' text format, and a test holds docs/operating.md and the Grafana
 * dashboard against the list.
 *
 * Counters are atomics that any thread adds to; gauges that mirror some other
 * owner's state are read when asked for, through callbacks set before start. */
#ifndef OBSERVE_METRICS_H
#define OBSERVE_METRICS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"

/* Counters and gauges without labels. */
#define METRIC_LIST(X)                                                                             \
  X(CONNECTIONS, "attentiond_connections", GAUGE, "Open connections")                              \
  X(CONNECTIONS_REFUSED, "attentiond_connections_refused_total", COUNTER,                          \
    "Requests refused because there were too many connections")                                    \
  X(CONNECTIONS_TIMED_OUT, "attentiond_connections_timed_out_total", COUNTER,                      \
    "Connections ended because a head, a body or a reply took too long")                           \
  X(REQUESTS_IN_FLIGHT, "attentiond_requests_in_flight", GAUGE, "Requests not yet answered")       \
  X(RECEIVED_BYTES, "attentiond_received_bytes_total", COUNTER, "Bytes of request bodies")         \
  X(SENT_BYTES, "attentiond_sent_bytes_total", COUNTER, "Bytes of reply bodies")                   \
  X(QUEUE_LENGTH, "attentiond_queue_length", GAUGE, "Requests waiting for a worker")               \
  X(MEMORIES, "attentiond_memories", GAUGE, "Memories held")                                       \
  X(MEMORY_ROWS, "attentiond_memory_rows", GAUGE, "Rows of all memories")                          \
  X(MEMORY_BYTES, "attentiond_memory_bytes", GAUGE, "Bytes of all memories' rows and ids")         \
  X(QUERIES, "attentiond_queries_total", COUNTER, "Queries answered")                              \
  X(BATCHED, "attentiond_batched_requests_total", COUNTER,                                         \
    "Requests that were computed together with others")                                            \
  X(SCORES, "attentiond_scores_total", COUNTER, "Pairs of query and key that were scored")         \
  X(WRITES, "attentiond_writes_total", COUNTER, "Changes that were made and acknowledged")         \
  X(WRITES_REFUSED, "attentiond_writes_refused_total", COUNTER, "Changes that were not made")      \
  X(FOLDS, "attentiond_folds_total", COUNTER, "Memories whose changes became chunks in the store") \
  X(STORE_FAILED, "attentiond_store_failed", GAUGE, "1 once nothing can be stored any more")

enum metric {
#define METRIC_ENUM(id, name, kind, help) METRIC_##id,
  METRIC_LIST(METRIC_ENUM)
#undef METRIC_ENUM
      METRIC_COUNT
};

/* Histograms of seconds. */
#define HISTOGRAM_LIST(X)                                                                          \
  X(REQUEST_SECONDS, "attentiond_request_seconds", "From the request head to the reply's end")     \
  X(ATTEND_SECONDS, "attentiond_attend_seconds", "The library's time for one batch of queries")    \
  X(COMMIT_SECONDS, "attentiond_commit_seconds",                                                   \
    "Of changes that are written together, until they are durable and published")

enum histogram {
#define HISTOGRAM_ENUM(id, name, help) HISTOGRAM_##id,
  HISTOGRAM_LIST(HISTOGRAM_ENUM)
#undef HISTOGRAM_ENUM
      HISTOGRAM_COUNT
};

struct metrics;

/* `routes`: the operation names that label attentiond_requests_total
 * {operation, status}; one more label, "none", stands for requests that met no
 * route. The names stay the caller's. */
struct metrics *metrics_create(const char *const *routes, size_t route_count);
void metrics_free(struct metrics *metrics);

void metrics_add(struct metrics *metrics, enum metric metric, int64_t amount);
void metrics_observe(struct metrics *metrics, enum histogram histogram, double seconds);

/* One finished request; `route` is its index, or route_count for none. */
void metrics_request(struct metrics *metrics, size_t route, int status);

/* `read` is called with `context` whenever the metric is printed. Before
 * threads start. */
void metrics_set_reader(struct metrics *metrics, enum metric metric, int64_t (*read)(void *context),
                        void *context);

/* Prometheus text 0.0.4, also with process_* (resident bytes, cpu seconds,
 * open descriptors, start time) and attentiond_build_info{version,kernels}. */
void metrics_write(const struct metrics *metrics, struct buffer *out);

#endif
