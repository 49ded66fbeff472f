/* Timing, random data and the report.
 *
 * Medians of many short calls, because the machine may be shared: one call that
 * was interrupted must not count, and the luckiest one must not either. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "bench.h"

/* Large pages, where the system gives them on request: with small ones a sweep
 * over hundreds of megabytes measures the look-ups of pages too, and the
 * machine's ceilings would be set too low. */
void *must_alloc(size_t bytes) {
  const size_t large = (size_t)2 << 20, alignment = bytes >= large ? large : 64;
  const size_t rounded = (bytes + alignment - 1) / alignment * alignment;
  void *memory = aligned_alloc(alignment, rounded);
  if (!memory) {
    fprintf(stderr, "bench: not enough memory\n");
    exit(EXIT_FAILURE);
  }
  if (alignment == large) madvise(memory, rounded, MADV_HUGEPAGE);
  return memory;
}

void must(attn_status status, const char *what) {
  if (status == ATTN_OK) return;
  fprintf(stderr, "bench: %s: %s\n", what, attn_status_text(status));
  exit(EXIT_FAILURE);
}

double now_seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static int by_size(const void *a, const void *b) {
  const double left = *(const double *)a, right = *(const double *)b;
  return (left > right) - (left < right);
}

void sort_doubles(double *values, size_t count) {
  qsort(values, count, sizeof *values, by_size);
}

double median_of(double *values, size_t count) {
  sort_doubles(values, count);
  return values[count / 2];
}

enum { MOST_CALLS = 2001 };

/* Times at least `least` calls, after one that is not timed; how many. */
static size_t time_calls(double *times, void (*run)(void *context), void *context, size_t least,
                         double least_seconds) {
  run(context);
  const double start = now_seconds();
  size_t calls = 0;
  while (calls < least || (calls < MOST_CALLS && now_seconds() - start < least_seconds)) {
    const double before = now_seconds();
    run(context);
    times[calls++] = now_seconds() - before;
  }
  return calls;
}

double time_median(void (*run)(void *context), void *context, double least_seconds) {
  double times[MOST_CALLS];
  const size_t calls = time_calls(times, run, context, 5, least_seconds);
  return median_of(times, calls);
}

static double processor_seconds(void) {
  struct timespec spent;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &spent);
  return (double)spent.tv_sec + 1e-9 * (double)spent.tv_nsec;
}

struct turn_times time_turns(const struct turns *turns, void (*run)(void *context), void *context,
                             double seconds) {
  struct turn_times result;
  double times[MOST_CALLS];
  for (size_t round = 0; round < MOST_ROUNDS; round++) {
    turns_pass(turns);
    const double before = processor_seconds();
    const size_t calls = time_calls(times, run, context, 3, seconds / MOST_ROUNDS);
    result.processors[round] = (processor_seconds() - before) / (double)(calls + 1);
    sort_doubles(times, calls);
    result.clock[round] = times[calls / 4];
  }
  return result;
}

struct duel time_duel(const struct rivals *rivals, double seconds) {
  enum { ROUNDS = 9 };
  double ours[ROUNDS], theirs[ROUNDS], ratio[ROUNDS];
  for (size_t round = 0; round < ROUNDS; round++) {
    ours[round] = time_median(rivals->ours, rivals->context, seconds / (2 * ROUNDS));
    if (rivals->once) {
      const double before = now_seconds();
      rivals->theirs(rivals->context);
      theirs[round] = now_seconds() - before;
    } else {
      theirs[round] = time_median(rivals->theirs, rivals->context, seconds / (2 * ROUNDS));
    }
    ratio[round] = theirs[round] / ours[round];
  }
  return (struct duel){median_of(ours, ROUNDS), median_of(theirs, ROUNDS),
                       median_of(ratio, ROUNDS)};
}

bool bench_wants(const struct bench *bench, const char *name, const char *inputs) {
  char text[sizeof(struct figure)];
  snprintf(text, sizeof text, "%s%s%s", name, *inputs ? " " : "", inputs);
  return !bench->cases || regexec(bench->cases, text, 0, NULL, 0) == 0;
}

double bench_seconds(const struct bench *bench, double seconds) {
  return bench->quick ? seconds / 10 : seconds;
}

void fill_normal(float *data, size_t count, unsigned long long seed) {
  for (size_t i = 0; i < count; i++) {
    float sum = 0;
    for (int k = 0; k < 4; k++) { /* the sum of four uniform numbers, of variance 1 */
      seed = seed * 6364136223846793005ull + 1442695040888963407ull;
      sum += (float)(seed >> 40) * 0x1p-24f - 0.5f;
    }
    data[i] = sum * 1.7320508f;
  }
}

float *new_normal(size_t count, unsigned long long seed) {
  float *data = must_alloc(count * sizeof *data);
  fill_normal(data, count, seed);
  return data;
}

/* ---- The report ---- */

void report_add(struct report *report, const char *name, const char *inputs, double value,
                const char *unit) {
  if (report->count == report->capacity) {
    report->capacity = report->capacity > 0 ? 2 * report->capacity : 64;
    report->figures = realloc(report->figures, report->capacity * sizeof *report->figures);
    if (!report->figures) {
      fprintf(stderr, "bench: not enough memory\n");
      exit(EXIT_FAILURE);
    }
  }
  struct figure *figure = &report->figures[report->count++];
  snprintf(figure->name, sizeof figure->name, "%s", name);
  snprintf(figure->inputs, sizeof figure->inputs, "%s", inputs);
  snprintf(figure->unit, sizeof figure->unit, "%s", unit);
  figure->goal[0] = '\0';
  figure->value = value;
  figure->round_count = 0;
}

static void print_figure(const struct report *report) {
  const struct figure *figure = &report->figures[report->count - 1];
  printf("%-28s %10.4g %-10s %s", figure->name, figure->value, figure->unit, figure->inputs);
  printf("%s%s\n", *figure->goal ? "; goal " : "", figure->goal);
  fflush(stdout);
}

void report_line(struct report *report, const char *name, const char *inputs, double value,
                 const char *unit) {
  report_add(report, name, inputs, value, unit);
  print_figure(report);
}

void report_add_rounds(struct report *report, const char *name, const char *inputs,
                       const double *rounds, size_t count, const char *unit) {
  double sorted[MOST_ROUNDS];
  memcpy(sorted, rounds, count * sizeof *rounds);
  report_add(report, name, inputs, median_of(sorted, count), unit);
  struct figure *figure = &report->figures[report->count - 1];
  memcpy(figure->rounds, rounds, count * sizeof *rounds);
  figure->round_count = count;
}

void report_rounds(struct report *report, const char *name, const char *inputs,
                   const double *rounds, size_t count, const char *unit) {
  report_add_rounds(report, name, inputs, rounds, count, unit);
  print_figure(report);
}

void report_ratio(struct report *report, const char *name, const char *inputs, double value,
                  const char *goal) {
  report_add(report, name, inputs, value, "ratio");
  struct figure *figure = &report->figures[report->count - 1];
  snprintf(figure->goal, sizeof figure->goal, "%s", goal);
  print_figure(report);
}

double report_get(const struct report *report, const char *name) {
  for (size_t i = report->count; i-- > 0;)
    if (strcmp(report->figures[i].name, name) == 0) return report->figures[i].value;
  return 0;
}

static void write_rounds(FILE *file, const struct figure *figure) {
  for (size_t i = 0; i < figure->round_count; i++)
    fprintf(file, "%s%.6g", i > 0 ? ", " : ", \"rounds\": [", figure->rounds[i]);
  if (figure->round_count > 0) fprintf(file, "]");
}

int report_write(const struct report *report, const char *path) {
  FILE *file = fopen(path, "w");
  if (!file) return -1;
  fprintf(file, "[\n");
  for (size_t i = 0; i < report->count; i++) {
    const struct figure *figure = &report->figures[i];
    fprintf(file, "  {\"name\": \"%s\", \"inputs\": \"%s\", \"value\": %.6g, \"unit\": \"%s\"",
            figure->name, figure->inputs, figure->value, figure->unit);
    if (figure->goal[0]) fprintf(file, ", \"goal\": \"%s\"", figure->goal);
    write_rounds(file, figure);
    fprintf(file, "}%s\n", i + 1 < report->count ? "," : "");
  }
  fprintf(file, "]\n");
  return fclose(file);
}

void report_free(struct report *report) {
  free(report->figures);
  *report = (struct report){0};
}
