/* Counting, and Prometheus' text format 0.0.4.
 *
 * Threads: every number is an atomic that is added to with relaxed order,
 * nothing else changes after metrics_set_reader(). A scrape therefore sees
 * each number as of some moment during the scrape; within one histogram the
 * count is the sum of the very buckets printed, so that it never contradicts
 * them. Shards per thread were rejected: a request makes a handful of additions
 * beside the work of parsing, computing and printing.
 *
 * Sums of seconds are kept in whole nanoseconds, because integers add
 * atomically and without rounding; 64 bits hold centuries.
 *
 * Statuses come from PROBLEM_LIST and the few successes there are, so the
 * label can take no other value, whatever happens, and a scrape stays small. */
#include "observe/metrics.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "attention.h"
#include "base/problem.h"
#include "observe/process.h"

/* ---- The tables ---- */

#define KIND_COUNTER "counter"
#define KIND_GAUGE   "gauge"

static const struct {
  const char *name, *kind, *help;
} metric_infos[METRIC_COUNT] = {
#define METRIC_INFO(id, name, kind, help) [METRIC_##id] = {name, KIND_##kind, help},
    METRIC_LIST(METRIC_INFO)
#undef METRIC_INFO
};

static const struct {
  const char *name, *help;
} histogram_infos[HISTOGRAM_COUNT] = {
#define HISTOGRAM_INFO(id, name, help) [HISTOGRAM_##id] = {name, help},
    HISTOGRAM_LIST(HISTOGRAM_INFO)
#undef HISTOGRAM_INFO
};

/* Upper bounds in seconds. From a tenth of a millisecond, which a small
 * request takes, to the minute that no client waits out. */
#define BOUND_LIST(X)                                                                              \
  X(0.0001)                                                                                        \
  X(0.00025)                                                                                       \
  X(0.0005)                                                                                        \
  X(0.001)                                                                                         \
  X(0.0025)                                                                                        \
  X(0.005)                                                                                         \
  X(0.01)                                                                                          \
  X(0.025)                                                                                         \
  X(0.05)                                                                                          \
  X(0.1)                                                                                           \
  X(0.25)                                                                                          \
  X(0.5)                                                                                           \
  X(1)                                                                                             \
  X(2.5)                                                                                           \
  X(5)                                                                                             \
  X(10)                                                                                            \
  X(30)                                                                                            \
  X(60)

static const struct {
  double seconds;
  const char *text;
} bounds[] = {
#define BOUND(seconds) {seconds, #seconds},
    BOUND_LIST(BOUND)
#undef BOUND
};
#define BOUND_COUNT (sizeof bounds / sizeof bounds[0])

/* Problems share statuses; status_index() finds the first place of one, so the
 * later places stay at zero and are never printed. */
static const int statuses[] = {200, 201, 204, 304,
#define PROBLEM_STATUS(id, status, code, title) status,
                               PROBLEM_LIST(PROBLEM_STATUS)
#undef PROBLEM_STATUS
};
#define STATUS_COUNT (sizeof statuses / sizeof statuses[0])
#define STATUS_SLOTS (STATUS_COUNT + 1) /* the last is "other" */

static size_t status_index(int status) {
  size_t index = 0;
  while (index < STATUS_COUNT && statuses[index] != status)
    index++;
  return index;
}

/* ---- The numbers ---- */

struct histogram_state {
  atomic_uint_fast64_t buckets[BOUND_COUNT + 1]; /* not cumulated; the last is +Inf */
  atomic_uint_fast64_t nanoseconds;
};

struct reader {
  int64_t (*read)(void *context);
  void *context;
};

struct metrics {
  const char *const *routes;
  size_t route_count;
  struct reader readers[METRIC_COUNT];
  atomic_int_fast64_t values[METRIC_COUNT];
  struct histogram_state histograms[HISTOGRAM_COUNT];
  atomic_uint_fast64_t requests[]; /* (route_count + 1) x STATUS_SLOTS */
};

struct metrics *metrics_create(const char *const *routes, size_t route_count) {
  const size_t row = STATUS_SLOTS * sizeof(atomic_uint_fast64_t);
  if (route_count >= (SIZE_MAX - sizeof(struct metrics)) / row - 1) return NULL;
  struct metrics *metrics = calloc(1, sizeof *metrics + (route_count + 1) * row);
  if (metrics) {
    metrics->routes = routes;
    metrics->route_count = route_count;
  }
  return metrics;
}

void metrics_free(struct metrics *metrics) {
  free(metrics);
}

void metrics_set_reader(struct metrics *metrics, enum metric metric, int64_t (*read)(void *context),
                        void *context) {
  metrics->readers[metric] = (struct reader){read, context};
}

void metrics_add(struct metrics *metrics, enum metric metric, int64_t amount) {
  atomic_fetch_add_explicit(&metrics->values[metric], amount, memory_order_relaxed);
}

void metrics_observe(struct metrics *metrics, enum histogram histogram, double seconds) {
  struct histogram_state *state = &metrics->histograms[histogram];
  /* Clocks can step back, and NaN must not become an integer. */
  if (!(seconds > 0)) seconds = 0;
  if (seconds > 1e9) seconds = 1e9;
  size_t bucket = 0;
  while (bucket < BOUND_COUNT && seconds > bounds[bucket].seconds)
    bucket++;
  atomic_fetch_add_explicit(&state->buckets[bucket], 1, memory_order_relaxed);
  atomic_fetch_add_explicit(&state->nanoseconds, (uint_fast64_t)(seconds * 1e9 + 0.5),
                            memory_order_relaxed);
}

void metrics_request(struct metrics *metrics, size_t route, int status) {
  if (route > metrics->route_count) route = metrics->route_count;
  atomic_fetch_add_explicit(&metrics->requests[route * STATUS_SLOTS + status_index(status)], 1,
                            memory_order_relaxed);
}

/* ---- Printing ---- */

static void write_head(struct buffer *out, const char *name, const char *kind, const char *help) {
  buffer_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind);
}

/* Label values escape three characters and nothing else. */
static void write_label(struct buffer *out, const char *name, const char *value) {
  buffer_printf(out, "%s=\"", name);
  for (const char *c = value; *c; c++) {
    if (*c == '\n') {
      buffer_puts(out, "\\n");
    } else {
      if (*c == '"' || *c == '\\') buffer_putc(out, '\\');
      buffer_putc(out, *c);
    }
  }
  buffer_putc(out, '"');
}

static void write_plain(const struct metrics *metrics, struct buffer *out) {
  for (size_t i = 0; i < METRIC_COUNT; i++) {
    const struct reader *reader = &metrics->readers[i];
    int64_t value = reader->read ? reader->read(reader->context)
                                 : atomic_load_explicit(&metrics->values[i], memory_order_relaxed);
    write_head(out, metric_infos[i].name, metric_infos[i].kind, metric_infos[i].help);
    buffer_printf(out, "%s %lld\n", metric_infos[i].name, (long long)value);
  }
}

static void write_requests(const struct metrics *metrics, struct buffer *out) {
  static const char name[] = "attentiond_requests_total";
  write_head(out, name, KIND_COUNTER, "Requests answered, by operation and status");
  for (size_t route = 0; route <= metrics->route_count; route++) {
    for (size_t slot = 0; slot < STATUS_SLOTS; slot++) {
      uint64_t count = atomic_load_explicit(&metrics->requests[route * STATUS_SLOTS + slot],
                                            memory_order_relaxed);
      if (count == 0) continue;
      buffer_printf(out, "%s{", name);
      write_label(out, "operation", route < metrics->route_count ? metrics->routes[route] : "none");
      if (slot < STATUS_COUNT)
        buffer_printf(out, ",status=\"%d\"", statuses[slot]);
      else
        buffer_puts(out, ",status=\"other\"");
      buffer_printf(out, "} %llu\n", (unsigned long long)count);
    }
  }
}

static void write_histogram(const struct histogram_state *state, const char *name,
                            struct buffer *out) {
  unsigned long long count = 0;
  for (size_t i = 0; i <= BOUND_COUNT; i++) {
    count += atomic_load_explicit(&state->buckets[i], memory_order_relaxed);
    buffer_printf(out, "%s_bucket{le=\"%s\"} %llu\n", name,
                  i < BOUND_COUNT ? bounds[i].text : "+Inf", count);
  }
  unsigned long long sum = atomic_load_explicit(&state->nanoseconds, memory_order_relaxed);
  buffer_printf(out, "%s_sum %llu.%09llu\n%s_count %llu\n", name, sum / 1000000000,
                sum % 1000000000, name, count);
}

static void write_build_info(struct buffer *out) {
  static const char name[] = "attentiond_build_info";
  write_head(out, name, KIND_GAUGE, "1, labelled by version and by the kernels in use");
  buffer_printf(out, "%s{", name);
  write_label(out, "version", attn_version());
  buffer_putc(out, ',');
  write_label(out, "kernels", attn_kernels_name());
  buffer_puts(out, "} 1\n");
}

static void write_process(struct buffer *out) {
  const struct process_usage usage = process_usage_read();
  const struct {
    const char *name, *kind, *help;
    double value;
    int decimals;
  } lines[] = {
      {"process_resident_memory_bytes", KIND_GAUGE, "Memory resident in RAM", usage.resident_bytes,
       0},
      {"process_cpu_seconds_total", KIND_COUNTER, "User and system time", usage.cpu_seconds, 6},
      {"process_open_fds", KIND_GAUGE, "Open file descriptors", usage.open_descriptors, 0},
      {"process_start_time_seconds", KIND_GAUGE, "When the process started, since 1970",
       usage.start_time, 2},
  };
  for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
    if (lines[i].value < 0) continue;
    write_head(out, lines[i].name, lines[i].kind, lines[i].help);
    buffer_printf(out, "%s %.*f\n", lines[i].name, lines[i].decimals, lines[i].value);
  }
}

void metrics_write(const struct metrics *metrics, struct buffer *out) {
  write_build_info(out);
  write_requests(metrics, out);
  for (size_t i = 0; i < HISTOGRAM_COUNT; i++) {
    write_head(out, histogram_infos[i].name, "histogram", histogram_infos[i].help);
    write_histogram(&metrics->histograms[i], histogram_infos[i].name, out);
  }
  write_plain(metrics, out);
  write_process(out);
}
