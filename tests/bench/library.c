/* The library against the roofline: time, floor and floor/time per case.
 *
 * floor = max(bytes of the memory, read once / bandwidth,
 *             flops / sgemm rate + exponentials / exp rate)
 *
 * The bandwidth is the one beyond the caches, since a memory that others share
 * the caches with has to come from there. A small one, asked again and again,
 * is in a cache since the last call and can be faster than that floor; the last
 * column holds it against the bandwidth of a working set of its size.
 *
 * A case and what bounds it, reading or multiplying, are timed in turn: on a machine that is
 * shared the bandwidth moves by half within seconds, and for a part of one two virtual
 * processors may be the two threads of one core, where all that computes takes twice as
 * long; ceilings that were measured before made ratios of 0.5 and 1.1 of the same times.
 *
 * Memories are settled (lib/settle.c), as those that stay in a daemon are, and what is read to
 * measure the bandwidth lies in huge pages as well. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"

struct case_shape {
  size_t rows, dim;
};

static const struct case_shape shapes[] = {{1000, 64},    {10000, 64},   {10000, 768},
                                           {100000, 128}, {100000, 768}, {500000, 64}};
static const size_t batches[] = {1, 2, 4, 8, 16, 32, 64, 256};
enum { MOST_BATCH = 256 };

struct run {
  const attn_snapshot *memory;
  attn_request request;
  attn_result result;
  void *arrays; /* of the result */
  attn_score *score;
  attn_normalization *norm;
  float *queries;
  const attn_pool *pool;
};

static void attend(void *context) {
  struct run *run = context;
  must(attn_attend(run->memory, &run->request, &run->result, run->pool), "attend");
}

attn_snapshot *new_memory(size_t rows, size_t dim) {
  return new_memory_of(rows, dim, ATTN_F32);
}

attn_snapshot *new_memory_of(size_t rows, size_t dim, attn_dtype dtype) {
  attn_snapshot *empty, *memory;
  float *keys = new_normal(rows * dim, 11);
  float *values = new_normal(rows * dim, 12);
  must(attn_snapshot_create_typed(&empty, dim, dim, dtype), "create");
  must(attn_snapshot_append(&memory, empty, keys, values, rows), "append");
  for (size_t b = 0; b < attn_snapshot_block_count(memory);)
    b = attn_snapshot_settle(memory, b, SIZE_MAX);
  attn_snapshot_free(empty);
  free(keys);
  free(values);
  return memory;
}

static double bytes_of(struct case_shape shape) {
  return 2.0 * (double)shape.rows * (double)shape.dim * sizeof(float);
}

/* GB/s of reading, GFlop/s, Gexp/s. */
struct rates {
  double bandwidth, flops, exps;
};

static double floor_of(struct case_shape shape, size_t batch, const struct rates *rates) {
  const double pairs = (double)batch * (double)shape.rows;
  const double flops = 4.0 * pairs * (double)shape.dim;
  return fmax(bytes_of(shape) / rates->bandwidth, flops / rates->flops + pairs / rates->exps) / 1e9;
}

static struct rates rates_of(const struct report *report) {
  return (struct rates){ceiling_read(report), report_get(report, "ceiling_sgemm"),
                        report_get(report, "ceiling_exp")};
}

/* What a case took, and what the machine could do at the same time. */
struct timed {
  double seconds;
  struct rates rates;
};

static void add_case(struct report *report, const char *name, struct case_shape shape, size_t batch,
                     struct timed timed) {
  char inputs[96], key[64];
  struct rates cached = timed.rates;
  cached.bandwidth = fmax(ceiling_cached_read(report, bytes_of(shape)), timed.rates.bandwidth);
  const double least = floor_of(shape, batch, &timed.rates);
  const double cached_ratio = floor_of(shape, batch, &cached) / timed.seconds;
  snprintf(inputs, sizeof inputs, "%zu x %zu, B = %zu", shape.rows, shape.dim, batch);
  snprintf(key, sizeof key, "%s_ms", name);
  report_add(report, key, inputs, timed.seconds * 1e3, "ms");
  snprintf(key, sizeof key, "%s_read", name);
  report_add(report, key, inputs, timed.rates.bandwidth, "GB/s");
  snprintf(key, sizeof key, "%s_sgemm", name);
  report_add(report, key, inputs, timed.rates.flops, "GFlop/s");
  snprintf(key, sizeof key, "%s_floor_ratio", name);
  report_add(report, key, inputs, least / timed.seconds, "floor/time");
  snprintf(key, sizeof key, "%s_cached_floor_ratio", name);
  report_add(report, key, inputs, cached_ratio, "floor/time");
  printf("%-18s %8zu x %-4zu %5zu %7.1f %8.1f %10.3f %10.3f %7.2f %7.2f\n", name, shape.rows,
         shape.dim, batch, timed.rates.bandwidth, timed.rates.flops, timed.seconds * 1e3,
         least * 1e3, least / timed.seconds, cached_ratio);
  fflush(stdout);
}

struct variant {
  const char *name, *score, *norm;
  attn_argument score_arg, norm_arg;
  attn_weights_mode mode;
  size_t top;
};

static struct run new_run(const struct bench *bench, const attn_snapshot *memory, size_t batch,
                          const struct variant *variant) {
  const size_t dim = attn_snapshot_key_dim(memory);
  attn_score *score;
  attn_normalization *norm;
  must(attn_score_create(&score, variant->score, &variant->score_arg,
                         variant->score_arg.name != NULL, NULL),
       variant->score);
  must(attn_normalization_create(&norm, variant->norm, &variant->norm_arg,
                                 variant->norm_arg.name != NULL, NULL),
       variant->norm);
  float *queries = new_normal(batch * dim, 13);
  struct run run = {.memory = memory,
                    .pool = bench->pool,
                    .score = score,
                    .norm = norm,
                    .queries = queries,
                    .request = {.queries = queries,
                                .query_count = batch,
                                .query_dim = dim,
                                .score = score,
                                .normalization = norm,
                                .weights_mode = variant->mode,
                                .top = variant->top}};
  run.result = attn_result_for(memory, &run.request);
  run.arrays = must_alloc(attn_result_bytes(&run.result));
  attn_result_place(&run.result, run.arrays);
  return run;
}

static void free_run(struct run *run) {
  free(run->queries);
  free(run->arrays);
  attn_score_free(run->score);
  attn_normalization_free(run->norm);
}

static const struct variant plain = {.name = "softmax", .score = "scaled_dot", .norm = "softmax"};

double time_plain(const struct bench *bench, const attn_snapshot *memory, size_t batch,
                  double seconds) {
  struct run run = new_run(bench, memory, batch, &plain);
  const double median = time_median(attend, &run, bench_seconds(bench, seconds));
  free_run(&run);
  return median;
}

struct contest {
  struct run *run;
  struct ceilings *ceilings;
  double done; /* bytes or operations */
};

static void contest_attend(void *context) {
  const struct contest *contest = context;
  attend(contest->run);
}

static void contest_read(void *context) {
  struct contest *contest = context;
  contest->done = ceilings_read(contest->ceilings);
}

static void contest_multiply(void *context) {
  struct contest *contest = context;
  contest->done = ceilings_multiply(contest->ceilings);
}

static struct timed time_case(const struct bench *bench, struct ceilings *ceilings, struct run *run,
                              struct case_shape shape, size_t batch) {
  struct rates rates = rates_of(bench->report);
  const bool by_reading = floor_of(shape, batch, &rates) < 1.1 * floor_of(shape, 0, &rates);
  struct contest contest = {.run = run, .ceilings = ceilings};
  const struct rivals rivals = {.ours = contest_attend,
                                .theirs = by_reading ? contest_read : contest_multiply,
                                .context = &contest,
                                .once = !by_reading};
  const struct duel duel = time_duel(&rivals, bench_seconds(bench, 1));
  const double rate = contest.done / (duel.ratio * duel.ours) / 1e9;
  if (by_reading)
    rates.bandwidth = rate;
  else
    rates.flops = rate;
  return (struct timed){duel.ours, rates};
}

static void measure_case(const struct bench *bench, struct ceilings *ceilings,
                         const attn_snapshot *memory, struct case_shape shape, size_t batch,
                         const struct variant *variant) {
  struct run run = new_run(bench, memory, batch, variant);
  add_case(bench->report, variant->name, shape, batch,
           time_case(bench, ceilings, &run, shape, batch));
  free_run(&run);
}

void bench_library(const struct bench *bench) {
  struct report *report = bench->report;
  static const struct variant others[] = {
      {.name = "softmax_full", .score = "scaled_dot", .norm = "softmax", .mode = ATTN_WEIGHTS_FULL},
      {.name = "softmax_top10",
       .score = "scaled_dot",
       .norm = "softmax",
       .mode = ATTN_WEIGHTS_TOP,
       .top = 10},
      {.name = "gaussian",
       .score = "gaussian",
       .norm = "sum",
       .score_arg = {.name = "sigma", .number = 4}},
      {.name = "cosine", .score = "cosine", .norm = "softmax"},
      {.name = "sparsemax", .score = "scaled_dot", .norm = "sparsemax"},
      {.name = "softmax_top_k32",
       .score = "scaled_dot",
       .norm = "softmax",
       .norm_arg = {.name = "top_k", .number = 32}},
  };
  struct ceilings *ceilings = ceilings_create(bench);
  double logs = 0, cached_logs = 0, worst = INFINITY;
  size_t cases = 0;
  const size_t shape_count = bench->quick ? 2 : sizeof shapes / sizeof *shapes;
  for (size_t s = 0; s < shape_count; s++) {
    ceilings_measure(ceilings);
    printf("\n%-18s %15s %5s %7s %8s %10s %10s %7s %7s\n", "case", "m x d", "B", "GB/s", "GFlop/s",
           "ms", "floor ms", "ratio", "cached");
    attn_snapshot *memory = new_memory(shapes[s].rows, shapes[s].dim);
    for (size_t b = 0; b < sizeof batches / sizeof *batches; b++) {
      measure_case(bench, ceilings, memory, shapes[s], batches[b], &plain);
      const double ratio = report_get(report, "softmax_floor_ratio");
      logs += log(ratio);
      cached_logs += log(report_get(report, "softmax_cached_floor_ratio"));
      worst = fmin(worst, ratio);
      cases++;
    }
    if (shapes[s].rows == 100000 && shapes[s].dim == 128)
      for (size_t v = 0; v < sizeof others / sizeof *others; v++)
        for (size_t batch = 1; batch <= 64; batch = batch == 1 ? 16 : batch * 4)
          measure_case(bench, ceilings, memory, shapes[s], batch, &others[v]);
    attn_snapshot_free(memory);
  }
  ceilings_free(ceilings);
  const double mean = exp(logs / (double)cases), cached_mean = exp(cached_logs / (double)cases);
  report_ratio(report, "softmax_floor_ratio_geomean", "all m x d and B", mean, ">= 0.8");
  report_ratio(report, "softmax_floor_ratio_worst", "all m x d and B", worst, ">= 0.55");
  report_line(report, "softmax_cached_ratio_geomean", "all m x d and B", cached_mean, "floor/time");
}

static int by_size(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return x < y ? -1 : x > y;
}

/* What the smaller types gain for one query, where reading the memory is all. */
void bench_dtypes(const struct bench *bench) {
  static const char *const goals[] = {
      [ATTN_F16] = ">= 1.6", [ATTN_BF16] = ">= 1.6", [ATTN_INT8] = ">= 2.4"};
  const struct case_shape shape = bench->quick ? shapes[0] : shapes[5];
  attn_snapshot *plain_memory = new_memory(shape.rows, shape.dim);
  for (size_t t = ATTN_F16; attn_dtype_info_at(t); t++) {
    const attn_dtype_info *info = attn_dtype_info_at(t);
    attn_snapshot *memory = new_memory_of(shape.rows, shape.dim, info->dtype);
    char name[48], inputs[64];
    double ratios[5];
    /* in turn, so that what else the machine does meets both */
    for (size_t round = 0; round < 5; round++) {
      const double wide = time_plain(bench, plain_memory, 1, 0.3);
      ratios[round] = wide / time_plain(bench, memory, 1, 0.3);
    }
    qsort(ratios, 5, sizeof *ratios, by_size);
    snprintf(name, sizeof name, "dtype_%s_ratio", info->name);
    snprintf(inputs, sizeof inputs, "B = 1, %zu x %zu, time of f32 / time", shape.rows, shape.dim);
    report_ratio(bench->report, name, inputs, ratios[2], goals[t]);
    attn_snapshot_free(memory);
  }
  attn_snapshot_free(plain_memory);
}
