/* Number text: reading and printing a batch's matrix as the daemon does it,
 * against jansson doing the same.
 *
 * The same is: reading ends with the floats in a matrix, so jansson's tree is
 * walked; printing starts from floats, so jansson's tree is built. Nine digits
 * are what a float32 needs to read back; beside jansson stands a bare loop of
 * snprintf("%.9g"), which is the least that the C library can be asked for. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "batch.h"
#include "bench.h"
#include "codec/body.h"

enum { QUERIES = 64, DIM = 768, NUMBERS = QUERIES * DIM };

struct number_run {
  const float *values;
  struct buffer body; /* an attend body with those values as its queries */
  float *walked;      /* what jansson read */
  char *text;         /* room for what snprintf prints */
};

static void fail(const char *what) {
  fprintf(stderr, "bench: number: %s\n", what);
  exit(EXIT_FAILURE);
}

/* ---- Reading ---- */

static void read_ours(void *context) {
  const struct number_run *run = context;
  struct attend_body body;
  struct problem problem;
  if (!body_parse_attend(ATTEND_STORED, run->body.data, run->body.length, &body, &problem))
    fail(problem.detail);
  attend_body_free(&body);
}

static void read_jansson(void *context) {
  const struct number_run *run = context;
  json_t *root = json_loadb(run->body.data, run->body.length, JSON_REJECT_DUPLICATES, NULL);
  const json_t *queries = json_object_get(root, "queries");
  if (json_array_size(queries) != QUERIES) fail("jansson read another batch");
  for (size_t q = 0; q < QUERIES; q++) {
    const json_t *query = json_array_get(queries, q);
    if (json_array_size(query) != DIM) fail("jansson read another query");
    for (size_t i = 0; i < DIM; i++)
      run->walked[q * DIM + i] = (float)json_number_value(json_array_get(query, i));
  }
  json_decref(root);
}

/* That both read the same, and what was printed. */
static void check_reading(struct number_run *run) {
  struct attend_body body;
  struct problem problem;
  read_jansson(run);
  if (!body_parse_attend(ATTEND_STORED, run->body.data, run->body.length, &body, &problem))
    fail(problem.detail);
  const size_t bytes = NUMBERS * sizeof(float);
  if (memcmp(body.queries.data, run->values, bytes) != 0) fail("reading changed a number");
  if (memcmp(run->walked, run->values, bytes) != 0) fail("jansson read another number");
  attend_body_free(&body);
}

/* ---- Printing ---- */

static void print_ours(void *context) {
  const struct number_run *run = context;
  struct buffer out;
  buffer_init(&out, 0);
  batch_print(&out, run->values, QUERIES, DIM);
  if (out.status != BUFFER_OK) fail("not enough memory");
  buffer_free(&out);
}

static void print_jansson(void *context) {
  const struct number_run *run = context;
  json_t *matrix = json_array();
  for (size_t q = 0; q < QUERIES; q++) {
    json_t *row = json_array();
    for (size_t i = 0; i < DIM; i++)
      json_array_append_new(row, json_real((double)run->values[q * DIM + i]));
    json_array_append_new(matrix, row);
  }
  char *text = json_dumps(matrix, JSON_COMPACT | JSON_REAL_PRECISION(9));
  if (!text) fail("not enough memory");
  free(text);
  json_decref(matrix);
}

static void print_printf(void *context) {
  const struct number_run *run = context;
  char *at = run->text;
  for (size_t i = 0; i < NUMBERS; i++)
    at += sprintf(at, "%.9g,", (double)run->values[i]);
}

/* ---- The part ---- */

/* Against another build: nothing but our own times. */
static void report_turns(const struct bench *bench, struct number_run *run, const char *name,
                         void (*ours)(void *context)) {
  struct turn_times times = time_turns(bench->turns, ours, run, bench_seconds(bench, 2.0));
  for (size_t i = 0; i < MOST_ROUNDS; i++)
    times.clock[i] *= 1e9 / NUMBERS;
  report_rounds(bench->report, name, "64 x 768, per number", times.clock, MOST_ROUNDS, "ns");
}

static struct duel compare(const struct bench *bench, struct number_run *run,
                           void (*ours)(void *context), void (*theirs)(void *context)) {
  const struct rivals rivals = {.ours = ours, .theirs = theirs, .context = run};
  return time_duel(&rivals, bench_seconds(bench, 4.0));
}

static void add_times(struct report *report, const char *what, const struct duel *duel,
                      const char *rival) {
  char name[64];
  snprintf(name, sizeof name, "number_%s_ns", what);
  report_line(report, name, "64 x 768, per number", duel->ours / NUMBERS * 1e9, "ns");
  snprintf(name, sizeof name, "number_%s_%s_ns", what, rival);
  report_line(report, name, "64 x 768, per number", duel->theirs / NUMBERS * 1e9, "ns");
}

static void measure_reading(const struct bench *bench, struct number_run *run) {
  if (bench->turns) {
    report_turns(bench, run, "number_read_ns", read_ours);
    return;
  }
  const struct duel reading = compare(bench, run, read_ours, read_jansson);
  add_times(bench->report, "read", &reading, "jansson");
  report_ratio(bench->report, "number_read_ratio", "64 x 768, jansson / ours", reading.ratio,
               ">= 15");
}

static void measure_printing(const struct bench *bench, struct number_run *run) {
  if (bench->turns) {
    report_turns(bench, run, "number_print_ns", print_ours);
    return;
  }
  const struct duel printing = compare(bench, run, print_ours, print_jansson);
  const struct duel plain = compare(bench, run, print_ours, print_printf);
  add_times(bench->report, "print", &printing, "jansson");
  report_line(bench->report, "number_print_printf_ns", "64 x 768, per number",
              plain.theirs / NUMBERS * 1e9, "ns");
  report_ratio(bench->report, "number_print_ratio", "64 x 768, jansson / ours", printing.ratio,
               ">= 10");
  report_line(bench->report, "number_print_printf_ratio", "64 x 768, snprintf %.9g / ours",
              plain.ratio, "ratio");
}

void bench_number(const struct bench *bench) {
  enum { MOST_TEXT = 32 }; /* of one number */
  float *values = new_normal(NUMBERS, 21);
  struct number_run run = {.values = values,
                           .walked = must_alloc(NUMBERS * sizeof(float)),
                           .text = must_alloc((size_t)NUMBERS * MOST_TEXT)};
  buffer_init(&run.body, 0);
  batch_body(&run.body, values, QUERIES, DIM);
  check_reading(&run);
  if (bench_wants(bench, "number_read", "")) measure_reading(bench, &run);
  if (bench_wants(bench, "number_print", "")) measure_printing(bench, &run);
  buffer_free(&run.body);
  free(run.text);
  free(run.walked);
  free(values);
}
