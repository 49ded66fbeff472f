/* The machine's own limits, in the same run and with the same threads as what
 * is held against them: how fast all workers together read memory, multiply
 * matrices with OpenBLAS, and take exponentials. */
#include <cblas.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "kernels.h"

enum {
  READ_FLOATS = 64 << 20,
  GEMM_SIZE = 2048,
  EXP_FLOATS = 512,
  EXP_ROUNDS = 20000,
};

struct ceilings {
  const attn_pool *pool;
  float *data;      /* READ_FLOATS, shared out among the workers */
  float *a, *b, *c; /* GEMM_SIZE squared, c once per worker */
  double *sums;     /* per worker, so that nothing is optimised away */
};

typedef float wide __attribute__((vector_size(64)));

static void read_slice(void *context, size_t index) {
  const struct ceilings *ceilings = context;
  const size_t share = READ_FLOATS / 16 / ceilings->pool->workers;
  const wide *data = (const wide *)(const void *)ceilings->data + index * share;
  wide sum[8] = {{0}};
  for (size_t i = 0; i + 8 <= share; i += 8)
    for (size_t chain = 0; chain < 8; chain++)
      sum[chain] += data[i + chain];
  for (size_t chain = 0; chain < 8; chain++)
    ceilings->sums[index] += (double)sum[chain][0];
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

static double seconds_of(const struct bench *bench, struct ceilings *ceilings,
                         void (*slice)(void *, size_t)) {
  struct ceiling_run run = {ceilings, slice};
  return time_median(run_slices, &run, bench_seconds(bench, 1.0));
}

void bench_ceilings(const struct bench *bench) {
  struct report *report = bench->report;
  const attn_pool *pool = bench->pool;
  const double workers = pool->workers;
  const size_t square = (size_t)GEMM_SIZE * GEMM_SIZE;
  struct ceilings ceilings = {.pool = pool,
                              .data = new_normal(READ_FLOATS, 1),
                              .a = new_normal(square, 2),
                              .b = new_normal(square, 3),
                              .c = must_alloc(square * pool->workers * sizeof(float)),
                              .sums = calloc(pool->workers, sizeof(double))};
  const double cube = (double)GEMM_SIZE * GEMM_SIZE * GEMM_SIZE;
  const double bytes = READ_FLOATS * sizeof(float);
  report_line(report, "ceiling_read", "256 MiB",
              bytes / seconds_of(bench, &ceilings, read_slice) / 1e9, "GB/s");
  report_line(report, "ceiling_sgemm", "2048 x 2048 x 2048 per worker",
              2 * cube * workers / seconds_of(bench, &ceilings, gemm_slice) / 1e9, "GFlop/s");
  report_line(report, "ceiling_exp", "rows of 512",
              workers * EXP_FLOATS * EXP_ROUNDS / seconds_of(bench, &ceilings, exp_slice) / 1e9,
              "Gexp/s");
  free(ceilings.data);
  free(ceilings.a);
  free(ceilings.b);
  free(ceilings.c);
  free(ceilings.sums);
}
