/* What the parts of `make bench` share: timing, and a report that is printed
 * as a table and written as JSON. */
#ifndef BENCH_BENCH_H
#define BENCH_BENCH_H

#include <regex.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "attention.h"
#include "turns.h"

enum { MOST_ROUNDS = 9 };

/* One figure: its name, what was measured on, the value, its unit, and what it
 * should be ("" where nothing was promised). The rounds that the value is the
 * median of are written too, in their order: bench-compare pairs them. */
struct figure {
  char name[64], inputs[96], unit[24], goal[16];
  double value;
  double rounds[MOST_ROUNDS];
  size_t round_count;
};

struct report {
  struct figure *figures;
  size_t count, capacity;
};

void report_add(struct report *report, const char *name, const char *inputs, double value,
                const char *unit);
/* Adds a figure and prints it. */
void report_line(struct report *report, const char *name, const char *inputs, double value,
                 const char *unit);
/* The same for a ratio with a goal: ">= 0.6". */
void report_ratio(struct report *report, const char *name, const char *inputs, double value,
                  const char *goal);
/* The median of at most MOST_ROUNDS rounds. report_add_rounds() does not print. */
void report_rounds(struct report *report, const char *name, const char *inputs,
                   const double *rounds, size_t count, const char *unit);
void report_add_rounds(struct report *report, const char *name, const char *inputs,
                       const double *rounds, size_t count, const char *unit);
double report_get(const struct report *report, const char *name); /* the last one; 0 if none */
int report_write(const struct report *report, const char *path);  /* 0 when written */
void report_free(struct report *report);

/* Seconds of one call of run(context), the median of at least five calls and
 * of as many as fit `least_seconds`. */
double time_median(void (*run)(void *context), void *context, double least_seconds);
double now_seconds(void);
void sort_doubles(double *values, size_t count);
double median_of(double *values, size_t count); /* sorts them; count >= 1 */

/* Two ways to do the same, timed in turn, so that what else the machine does
 * meets both alike. Medians of the rounds, also of the rounds' ratios. */
struct rivals {
  void (*ours)(void *context), (*theirs)(void *context);
  void *context;
  bool once; /* theirs takes so long that one call a round has to do */
};
struct duel {
  double ours, theirs; /* seconds of one call */
  double ratio;        /* theirs / ours */
};
struct duel time_duel(const struct rivals *rivals, double seconds);

/* MOST_ROUNDS turns with another build's bench (turns.h): seconds of one call in
 * each, of the clock and of all processors. What interrupts a call only adds to
 * it, so that of a turn's calls the lower quartile counts. */
struct turn_times {
  double clock[MOST_ROUNDS], processors[MOST_ROUNDS];
};
struct turn_times time_turns(const struct turns *turns, void (*run)(void *context), void *context,
                             double seconds);

/* count floats, about normal, the same ones for the same seed. */
void fill_normal(float *data, size_t count, unsigned long long seed);
float *new_normal(size_t count, unsigned long long seed);

/* Prints and ends the program where a status is not ATTN_OK. */
void must(attn_status status, const char *what);
void *must_alloc(size_t bytes);

/* What every part is given. */
struct bench {
  struct report *report;
  const attn_pool *pool;
  bool quick;                       /* only to see that it runs: few cases, short, of no meaning */
  const struct turns *turns;        /* with another build's bench, which is the only rival then */
  const regex_t *cases;             /* the names and inputs to measure; NULL: all */
  const char *daemon, *bare_server; /* the programs that http and store start */
  const char *folder;               /* the report's: there is room for large files */
};

/* Whether a case is to be measured: one of these inputs, "" if the name says all. */
bool bench_wants(const struct bench *bench, const char *name, const char *inputs);

/* For how long to measure what deserves `seconds`. */
double bench_seconds(const struct bench *bench, double seconds);

/* What the machine can do. */
struct ceilings;
struct ceilings *ceilings_create(const struct bench *bench);
void ceilings_free(struct ceilings *ceilings);
void ceilings_measure(struct ceilings *ceilings); /* and reports */
/* Once what they are measured by: bytes read beyond the caches, multiplications and additions. */
double ceilings_read(struct ceilings *ceilings);
double ceilings_multiply(struct ceilings *ceilings);

/* GB/s at which the workers together read memory beyond the caches, and a
 * working set of that size again and again. As measured last. */
double ceiling_read(const struct report *report);
double ceiling_cached_read(const struct report *report, double bytes);

/* rows random pairs of dim components each. */
attn_snapshot *new_memory_of(size_t rows, size_t dim, attn_dtype dtype);
attn_snapshot *new_memory(size_t rows, size_t dim);

/* Seconds that the library takes for a batch, scaled_dot and softmax, no weights:
 * the median of what fits into `seconds`. */
double time_plain(const struct bench *bench, const attn_snapshot *memory, size_t batch,
                  double seconds);

/* The parts, in the order of the table. */
void bench_library(const struct bench *bench);
void bench_dtypes(const struct bench *bench);
void bench_number(const struct bench *bench);
void bench_http(const struct bench *bench);
void bench_store(const struct bench *bench);

#endif
