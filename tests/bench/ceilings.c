/* The machine's own limits, in the same run and with the same threads as what
 * is held against them: how fast all workers together read memory, multiply
 * matrices with OpenBLAS, and take exponentials.
 *
 * On a shared machine they move by half within seconds, the bandwidth most of all. So
 * they are measured anew before each memory, and can be called by themselves, to be
 * timed in turn with a case that is bound by them. */
#include <cblas.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "kernels/kernels.h"

enum {
  READ_FLOATS = 64 << 20,
  CACHED_FLOATS = 8 << 20, /* read in one call where the set is smaller */
  GEMM_SIZE = 2048,
  EXP_FLOATS = 512,
  EXP_ROUNDS = 20000,
};

/* Working sets to read, by size. What a memory is held against is the last one,
 * well beyond the caches; the others tell what a memory that fits them could be
 * read at. */
static const struct read_set {
  const char *name, *inputs;
  size_t floats;
} read_sets[] = {{"ceiling_read_512k", "512 KiB again and again", 128 << 10},
                 {"ceiling_read_5m", "5 MiB again and again", 5 << 18},
                 {"ceiling_read", "256 MiB", READ_FLOATS}};
enum { READ_SETS = sizeof read_sets / sizeof *read_sets };

struct ceilings {
  const struct bench *bench;
  const attn_pool *pool;
  float *data;         /* READ_FLOATS, of which the first ... */
  size_t read_floats;  /* ... are shared out among the workers and read ... */
  size_t read_repeats; /* ... so many times */
  float *a, *b, *c;    /* GEMM_SIZE squared, c once per worker */
  double *sums;        /* per worker, so that nothing is optimised away */
};

typedef float wide __attribute__((vector_size(64)));

#if defined(__x86_64__)
#define WIDEST __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define WIDEST
#endif

/* Four sums fit the registers of every instruction set; with eight of them the
 * narrow ones would measure how fast they spill. */
WIDEST static double read_all(const float *floats, size_t count, size_t repeats) {
  const wide *data = (const wide *)(const void *)floats;
  wide a = {0}, b = {0}, c = {0}, d = {0};
  for (size_t round = 0; round < repeats; round++)
    for (size_t i = 0; i + 4 <= count / 16; i += 4) {
      a += data[i];
      b += data[i + 1];
      c += data[i + 2];
      d += data[i + 3];
    }
  return (double)(a[0] + b[0] + c[0] + d[0]);
}

static void read_slice(void *context, size_t index) {
  const struct ceilings *ceilings = context;
  const size_t share = ceilings->read_floats / ceilings->pool->workers / 64 * 64;
  ceilings->sums[index] += read_all(ceilings->data + index * share, share, ceilings->read_repeats);
}

static void gemm_slice(void *context, size_t index) {
  const struct ceilings *ceilings = context;
  cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, GEMM_SIZE, GEMM_SIZE, GEMM_SIZE, 1.0f,
              ceilings->a, GEMM_SIZE, ceilings->b, GEMM_SIZE, 0.0f,
              ceilings->c + index * GEMM_SIZE * GEMM_SIZE, GEMM_SIZE);
}

static void exp_slice(void *context, size_t index) {
  const struct ceilings *ceilings = context;
  const struct attn_kernels *kernels = attn_kernels();
  float scores[EXP_FLOATS];
  for (int round = 0; round < EXP_ROUNDS; round++) {
    memcpy(scores, ceilings->data, sizeof scores);
    ceilings->sums[index] += kernels->row_exp(scores, EXP_FLOATS, 4.0f);
  }
}

struct ceiling_run {
  struct ceilings *ceilings;
  void (*slice)(void *context, size_t index);
};

static void run_slices(void *context) {
  const struct ceiling_run *run = context;
  const attn_pool *pool = run->ceilings->pool;
  pool->run(pool->context, pool->workers, run->slice, run->ceilings);
}

static double seconds_of(struct ceilings *ceilings, void (*slice)(void *, size_t)) {
  struct ceiling_run run = {ceilings, slice};
  return time_median(run_slices, &run, bench_seconds(ceilings->bench, 0.4));
}

static double set_read(struct ceilings *ceilings, const struct read_set *set) {
  const bool cached = set->floats < CACHED_FLOATS;
  ceilings->read_floats = set->floats;
  ceilings->read_repeats = cached ? CACHED_FLOATS / set->floats : 1;
  return (double)set->floats * (double)ceilings->read_repeats * sizeof(float);
}

double ceilings_read(struct ceilings *ceilings) {
  const double bytes = set_read(ceilings, &read_sets[READ_SETS - 1]);
  struct ceiling_run run = {ceilings, read_slice};
  run_slices(&run);
  return bytes;
}

double ceiling_read(const struct report *report) {
  return report_get(report, read_sets[READ_SETS - 1].name);
}

double ceiling_cached_read(const struct report *report, double bytes) {
  size_t i = 0;
  while (i + 1 < READ_SETS && (double)read_sets[i].floats * sizeof(float) < bytes)
    i++;
  return report_get(report, read_sets[i].name);
}

double ceilings_multiply(struct ceilings *ceilings) {
  struct ceiling_run run = {ceilings, gemm_slice};
  run_slices(&run);
  return 2.0 * GEMM_SIZE * GEMM_SIZE * GEMM_SIZE * ceilings->pool->workers;
}

struct ceilings *ceilings_create(const struct bench *bench) {
  const size_t square = (size_t)GEMM_SIZE * GEMM_SIZE, workers = bench->pool->workers;
  struct ceilings *ceilings = must_alloc(sizeof *ceilings);
  *ceilings = (struct ceilings){.bench = bench,
                                .pool = bench->pool,
                                .data = new_normal(READ_FLOATS, 1),
                                .a = new_normal(square, 2),
                                .b = new_normal(square, 3),
                                .c = must_alloc(square * workers * sizeof(float)),
                                .sums = must_alloc(workers * sizeof(double))};
  memset(ceilings->sums, 0, workers * sizeof(double));
  return ceilings;
}

void ceilings_free(struct ceilings *ceilings) {
  free(ceilings->data);
  free(ceilings->a);
  free(ceilings->b);
  free(ceilings->c);
  free(ceilings->sums);
  free(ceilings);
}

void ceilings_measure(struct ceilings *ceilings) {
  struct report *report = ceilings->bench->report;
  const double workers = ceilings->pool->workers;
  const double cube = (double)GEMM_SIZE * GEMM_SIZE * GEMM_SIZE;
  for (size_t i = 0; i < READ_SETS; i++) {
    const double bytes = set_read(ceilings, &read_sets[i]);
    report_line(report, read_sets[i].name, read_sets[i].inputs,
                bytes / seconds_of(ceilings, read_slice) / 1e9, "GB/s");
  }
  report_line(report, "ceiling_sgemm", "2048 x 2048 x 2048 per worker",
              2 * cube * workers / seconds_of(ceilings, gemm_slice) / 1e9, "GFlop/s");
  report_line(report, "ceiling_exp", "rows of 512",
              workers * EXP_FLOATS * EXP_ROUNDS / seconds_of(ceilings, exp_slice) / 1e9, "Gexp/s");
}
