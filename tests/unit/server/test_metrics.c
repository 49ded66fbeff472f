/* The metrics through the eyes of a scraper (exposition.h): what was counted is
 * what is printed, in a form that nothing in it contradicts. */
#include "observe/metrics.h"

#include <fcntl.h>
#include <pthread.h>
#include <time.h>

#include "attention.h"
#include "base/problem.h"
#include "exposition.h"
#include "unit.h"

static const char *const routes[] = {"attend", "getMemory", "odd\"\\\nname"};
enum { ROUTES = sizeof routes / sizeof routes[0] };

static struct exposition *scrape(const struct metrics *metrics) {
  struct buffer buffer;
  buffer_init(&buffer, 0);
  metrics_write(metrics, &buffer);
  struct exposition *e = malloc(sizeof *e);
  ck_assert_ptr_nonnull(e);
  read_exposition(e, buffer_text(&buffer));
  ck_assert_msg(!e->fault, "line %zu: %s\n%s", e->fault_line, e->fault, buffer.data);
  buffer_free(&buffer);
  return e;
}

static void expect(const struct exposition *e, const char *series, double value) {
  double seen = series_value(e, series);
  ck_assert_msg(seen == value, "%s is %g, not %g", series, seen, value);
}

static size_t count_series(const struct exposition *e, const char *name) {
  size_t count = 0;
  for (size_t i = 0; i < e->sample_count; i++)
    count += strcmp(e->samples[i].name, name) == 0;
  return count;
}

/* The judge must be able to say no. */
START_TEST(test_the_reader_refuses_what_is_wrong) {
  static const char head[] = "# HELP a help\n# TYPE a gauge\n";
  static const char histogram[] = "# HELP h help\n# TYPE h histogram\n";
  static const struct {
    const char *head, *rest;
  } wrong[] = {
      {"", "a 1\n"},
      {"# TYPE a gauge\n", "a 1\n"},
      {"# HELP a help\n", "a 1\n"},
      {"# HELP a help\n", ""},
      {"# HELP a help\n# TYPE b gauge\n", ""},
      {"# HELP a help\n# TYPE a thing\n", ""},
      {"# HELP a help\n# TYPE a counter\n", ""},
      {"# HELP a_total help\n# TYPE a_total gauge\n", ""},
      {head, "a 1"},
      {head, "a\n"},
      {head, "a one\n"},
      {head, "a 1\n\n"},
      {head, "a 1\na 2\n"},
      {head, "b 1\n"},
      {head, "ab 1\n"},
      {head, "a{b=\"c\" 1\n"},
      {head, "a{b=c} 1\n"},
      {head, "a{b=\"\\x\"} 1\n"},
      {head, "a{1=\"c\"} 1\n"},
      {head, "# HELP a help\n# TYPE a gauge\n"},
      {"# HELP a_total help\n# TYPE a_total counter\n", "a_total -1\n"},
      {histogram, ""},
      {histogram, "h_bucket{le=\"1\"} 1\nh_sum 1\nh_count 1\n"},
      {histogram, "h_bucket{le=\"1\"} 2\nh_bucket{le=\"+Inf\"} 1\nh_sum 1\nh_count 1\n"},
      {histogram, "h_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 1\nh_sum 1\nh_count 2\n"},
      {histogram, "h_bucket{le=\"1\"} 1\nh_bucket{le=\"0.5\"} 1\nh_bucket{le=\"+Inf\"} 1\n"
                  "h_sum 1\nh_count 1\n"},
      {histogram, "h_bucket{le=\"+Inf\"} 1\nh_count 1\n"},
  };
  struct exposition *e = malloc(sizeof *e);
  for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
    char text[500];
    snprintf(text, sizeof text, "%s%s", wrong[i].head, wrong[i].rest);
    read_exposition(e, text);
    ck_assert_msg(e->fault != NULL, "%s", text);
  }
  read_exposition(e, "# HELP h help\n# TYPE h histogram\nh_bucket{le=\"0.5\"} 1\n"
                     "h_bucket{le=\"+Inf\"} 2\nh_sum 1.5\nh_count 2\n"
                     "# HELP a help\n# TYPE a gauge\na{b=\"\\\\\\\"\\n\",c=\"\"} -1e-3\na 2\n");
  ck_assert_ptr_null(e->fault);
  expect(e, "a", 2);
  free(e);
}
END_TEST

START_TEST(test_fresh) {
  struct metrics *metrics = metrics_create(routes, ROUTES);
  struct exposition *e = scrape(metrics);
  ck_assert_uint_eq(count_series(e, "attentiond_requests_total"), 0);
#define EXPECT_ZERO(id, name, kind, help) expect(e, name, 0);
  METRIC_LIST(EXPECT_ZERO)
#define EXPECT_EMPTY(id, name, help)                                                               \
  expect(e, name "_count", 0);                                                                     \
  expect(e, name "_sum", 0);
  HISTOGRAM_LIST(EXPECT_EMPTY)
  char info[200];
  snprintf(info, sizeof info, "attentiond_build_info{version=\"%s\",kernels=\"%s\"}",
           attn_version(), attn_kernels_name());
  expect(e, info, 1);
  free(e);
  metrics_free(metrics);
  metrics_free(NULL);
}
END_TEST

static int64_t read_seven(void *context) {
  return 7 + *(int64_t *)context;
}

START_TEST(test_counters_gauges_and_readers) {
  struct metrics *metrics = metrics_create(routes, ROUTES);
  metrics_add(metrics, METRIC_QUERIES, 3);
  metrics_add(metrics, METRIC_QUERIES, (int64_t)1 << 40);
  metrics_add(metrics, METRIC_CONNECTIONS, 5);
  metrics_add(metrics, METRIC_CONNECTIONS, -2);
  int64_t context = 4;
  metrics_set_reader(metrics, METRIC_MEMORIES, read_seven, &context);
  struct exposition *e = scrape(metrics);
  expect(e, "attentiond_queries_total", 1099511627779.0);
  expect(e, "attentiond_connections", 3);
  expect(e, "attentiond_memories", 11);
  free(e);
  context = 5;
  e = scrape(metrics);
  expect(e, "attentiond_memories", 12);
  free(e);
  metrics_free(metrics);
}
END_TEST

START_TEST(test_requests) {
  struct metrics *metrics = metrics_create(routes, ROUTES);
  metrics_request(metrics, 0, 200);
  metrics_request(metrics, 0, 200);
  metrics_request(metrics, 0, 400);
  metrics_request(metrics, 1, 304);
  metrics_request(metrics, 2, 201);
  metrics_request(metrics, ROUTES, 404);
  metrics_request(metrics, 0, 418);
  metrics_request(metrics, 0, -1);
  struct exposition *e = scrape(metrics);
  expect(e, "attentiond_requests_total{operation=\"attend\",status=\"200\"}", 2);
  expect(e, "attentiond_requests_total{operation=\"attend\",status=\"400\"}", 1);
  expect(e, "attentiond_requests_total{operation=\"getMemory\",status=\"304\"}", 1);
  expect(e, "attentiond_requests_total{operation=\"odd\\\"\\\\\\nname\",status=\"201\"}", 1);
  expect(e, "attentiond_requests_total{operation=\"none\",status=\"404\"}", 1);
  expect(e, "attentiond_requests_total{operation=\"attend\",status=\"other\"}", 2);
  ck_assert_uint_eq(count_series(e, "attentiond_requests_total"), 6);
  free(e);
  metrics_free(metrics);
}
END_TEST

START_TEST(test_every_problem_has_its_status) {
  struct metrics *metrics = metrics_create(NULL, 0);
  for (int code = 0; code < PROBLEM_COUNT; code++)
    metrics_request(metrics, 0, problem_info((enum problem_code)code)->status);
  struct exposition *e = scrape(metrics);
  double total = 0;
  for (size_t i = 0; i < e->sample_count; i++)
    if (strcmp(e->samples[i].name, "attentiond_requests_total") == 0) {
      ck_assert_ptr_null(strstr(e->samples[i].series, "other"));
      total += e->samples[i].value;
    }
  ck_assert_double_eq(total, PROBLEM_COUNT);
  free(e);
  metrics_free(metrics);
}
END_TEST

START_TEST(test_histogram) {
  struct metrics *metrics = metrics_create(routes, ROUTES);
  static const double seconds[] = {0, 0.0001, 0.00010001, 0.001, 0.0625, 1000.5, -1, (double)NAN};
  for (size_t i = 0; i < sizeof seconds / sizeof seconds[0]; i++)
    metrics_observe(metrics, HISTOGRAM_REQUEST_SECONDS, seconds[i]);
  struct exposition *e = scrape(metrics);
  expect(e, "attentiond_request_seconds_bucket{le=\"0.0001\"}", 4); /* 0, 0.0001, -1, NaN */
  expect(e, "attentiond_request_seconds_bucket{le=\"0.00025\"}", 5);
  expect(e, "attentiond_request_seconds_bucket{le=\"0.0005\"}", 5);
  expect(e, "attentiond_request_seconds_bucket{le=\"0.001\"}", 6);
  expect(e, "attentiond_request_seconds_bucket{le=\"0.05\"}", 6);
  expect(e, "attentiond_request_seconds_bucket{le=\"0.1\"}", 7);
  expect(e, "attentiond_request_seconds_bucket{le=\"60\"}", 7);
  expect(e, "attentiond_request_seconds_bucket{le=\"+Inf\"}", 8);
  expect(e, "attentiond_request_seconds_count", 8);
  expect(e, "attentiond_request_seconds_sum", 1000.56370001);
  expect(e, "attentiond_attend_seconds_count", 0);
  free(e);
  metrics_observe(metrics, HISTOGRAM_ATTEND_SECONDS, HUGE_VAL);
  e = scrape(metrics);
  expect(e, "attentiond_attend_seconds_count", 1);
  free(e);
  metrics_free(metrics);
}
END_TEST

START_TEST(test_process) {
  struct metrics *metrics = metrics_create(routes, ROUTES);
  struct exposition *before = scrape(metrics);
  int descriptor = open("/dev/null", O_RDONLY | O_CLOEXEC);
  clock_t start = clock();
  while (clock() - start < CLOCKS_PER_SEC / 20)
    ;
  struct exposition *after = scrape(metrics);
  double bytes = series_value(after, "process_resident_memory_bytes");
  ck_assert(bytes > 100e3);
  ck_assert_double_eq(series_value(after, "process_open_fds"),
                      series_value(before, "process_open_fds") + 1);
  double used = series_value(after, "process_cpu_seconds_total") -
                series_value(before, "process_cpu_seconds_total");
  ck_assert(used >= 0.04 && used < 60);
  double age = (double)time(NULL) - series_value(after, "process_start_time_seconds");
  ck_assert_msg(age > -2 && age < 3600, "%g", age);
  close(descriptor);
  free(before);
  free(after);
  metrics_free(metrics);
}
END_TEST

enum { THREADS = 4, ROUNDS = 20000 };

static void *count_things(void *argument) {
  struct metrics *metrics = argument;
  for (int i = 0; i < ROUNDS; i++) {
    metrics_add(metrics, METRIC_SCORES, 3);
    metrics_observe(metrics, HISTOGRAM_ATTEND_SECONDS, 0.5);
    metrics_request(metrics, 1, 200);
  }
  return NULL;
}

START_TEST(test_threads_lose_nothing) {
  struct metrics *metrics = metrics_create(routes, ROUTES);
  pthread_t threads[THREADS];
  for (int i = 0; i < THREADS; i++)
    ck_assert_int_eq(pthread_create(&threads[i], NULL, count_things, metrics), 0);
  for (int i = 0; i < 20; i++) /* whole in itself at any moment */
    free(scrape(metrics));
  for (int i = 0; i < THREADS; i++)
    pthread_join(threads[i], NULL);
  struct exposition *e = scrape(metrics);
  expect(e, "attentiond_scores_total", 3.0 * THREADS * ROUNDS);
  expect(e, "attentiond_attend_seconds_count", (double)THREADS * ROUNDS);
  expect(e, "attentiond_attend_seconds_sum", 0.5 * THREADS * ROUNDS);
  expect(e, "attentiond_requests_total{operation=\"getMemory\",status=\"200\"}",
         (double)THREADS * ROUNDS);
  free(e);
  metrics_free(metrics);
}
END_TEST

UNIT_MAIN("metrics", test_the_reader_refuses_what_is_wrong, test_fresh,
          test_counters_gauges_and_readers, test_requests, test_every_problem_has_its_status,
          test_histogram, test_process, test_threads_lose_nothing)
