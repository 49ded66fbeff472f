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
 * Memories are promoted to huge pages (lib/memory/huge_pages.c), as those that stay in a daemon
 * are, and what is read to measure the bandwidth lies in huge pages as well. */
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
    b = attn_snapshot_promote_huge_pages(memory, b, SIZE_MAX);
  attn_snapshot_free(empty);
  free(keys);
  free(values);
  return memory;
}

struct variant {
  const char *name, *score, *norm;
  attn_argument score_arg, norm_arg;
  attn_weights_mode mode;
  size_t top;
};

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

/* "100000 x 64, B = 2" */
struct inputs {
  char text[48];
};

static struct inputs inputs_of(struct case_shape shape, size_t batch) {
  struct inputs inputs;
  snprintf(inputs.text, sizeof inputs.text, "%zu x %zu, B = %zu", shape.rows, shape.dim, batch);
  return inputs;
}

static void add_case(struct report *report, const char *name, struct case_shape shape, size_t batch,
                     struct timed timed) {
  const struct inputs inputs = inputs_of(shape, batch);
  struct rates cached = timed.rates;
  cached.bandwidth = fmax(ceiling_cached_read(report, bytes_of(shape)), timed.rates.bandwidth);
  const double least = floor_of(shape, batch, &timed.rates);
  const double cached_ratio = floor_of(shape, batch, &cached) / timed.seconds;
  const struct {
    const char *what, *unit;
    double value;
  } figures[] = {{"ms", "ms", timed.seconds * 1e3},
                 {"read", "GB/s", timed.rates.bandwidth},
                 {"sgemm", "GFlop/s", timed.rates.flops},
                 {"floor_ratio", "floor/time", least / timed.seconds},
                 {"cached_floor_ratio", "floor/time", cached_ratio}};
  for (size_t i = 0; i < sizeof figures / sizeof *figures; i++) {
    char key[64];
    snprintf(key, sizeof key, "%s_%s", name, figures[i].what);
    report_add(report, key, inputs.text, figures[i].value, figures[i].unit);
  }
  printf("%-18s %8zu x %-4zu %5zu %7.1f %8.1f %10.3f %10.3f %7.2f %7.2f\n", name, shape.rows,
         shape.dim, batch, timed.rates.bandwidth, timed.rates.flops, timed.seconds * 1e3,
         least * 1e3, least / timed.seconds, cached_ratio);
  fflush(stdout);
}

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

/* Against another build: nothing but the times of the turns. */
static void report_turns(const struct bench *bench, const char *name, const char *inputs,
                         struct run *run) {
  char key[64];
  struct turn_times times = time_turns(bench->turns, attend, run, bench_seconds(bench, 1));
  for (size_t i = 0; i < MOST_ROUNDS; i++) {
    times.clock[i] *= 1e3;
    times.processors[i] *= 1e3;
  }
  snprintf(key, sizeof key, "%s_ms", name);
  report_rounds(bench->report, key, inputs, times.clock, MOST_ROUNDS, "ms");
  snprintf(key, sizeof key, "%s_cpu_ms", name);
  report_add_rounds(bench->report, key, inputs, times.processors, MOST_ROUNDS, "ms");
}

/* One memory, and the means over all of them. `ceilings` is NULL against another build. */
struct field {
  const struct bench *bench;
  struct ceilings *ceilings;
  struct case_shape shape;
  const attn_snapshot *memory;
  double logs, cached_logs, worst;
  size_t cases;
};

static void measure_case(const struct field *field, const struct variant *variant, size_t batch) {
  const struct bench *bench = field->bench;
  const struct inputs inputs = inputs_of(field->shape, batch);
  if (!bench_wants(bench, variant->name, inputs.text)) return;
  struct run run = new_run(bench, field->memory, batch, variant);
  if (bench->turns)
    report_turns(bench, variant->name, inputs.text, &run);
  else
    add_case(bench->report, variant->name, field->shape, batch,
             time_case(bench, field->ceilings, &run, field->shape, batch));
  free_run(&run);
}

static void add_to_means(struct field *field) {
  const double ratio = report_get(field->bench->report, "softmax_floor_ratio");
  field->logs += log(ratio);
  field->cached_logs += log(report_get(field->bench->report, "softmax_cached_floor_ratio"));
  field->worst = fmin(field->worst, ratio);
  field->cases++;
}

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
enum { OTHERS = sizeof others / sizeof *others };

/* What is measured on one memory, in this order; NULL beyond the last. */
static const struct variant *case_at(struct case_shape shape, size_t index, size_t *batch) {
  static const size_t other_batches[] = {1, 16, 64};
  const size_t plain_count = sizeof batches / sizeof *batches, other_count = 3;
  if (index < plain_count) {
    *batch = batches[index];
    return &plain;
  }
  index -= plain_count;
  if (shape.rows != 100000 || shape.dim != 128 || index >= OTHERS * other_count) return NULL;
  *batch = other_batches[index % other_count];
  return &others[index / other_count];
}

static bool wants_shape(const struct bench *bench, struct case_shape shape) {
  size_t batch;
  for (size_t i = 0;; i++) {
    const struct variant *variant = case_at(shape, i, &batch);
    if (!variant) return false;
    if (bench_wants(bench, variant->name, inputs_of(shape, batch).text)) return true;
  }
}

static void measure_shape(struct field *field) {
  if (field->ceilings) {
    ceilings_measure(field->ceilings);
    printf("\n%-18s %15s %5s %7s %8s %10s %10s %7s %7s\n", "case", "m x d", "B", "GB/s", "GFlop/s",
           "ms", "floor ms", "ratio", "cached");
  }
  attn_snapshot *memory = new_memory(field->shape.rows, field->shape.dim);
  field->memory = memory;
  const struct variant *variant;
  size_t batch;
  for (size_t i = 0; (variant = case_at(field->shape, i, &batch)); i++) {
    measure_case(field, variant, batch);
    if (variant == &plain && field->ceilings) add_to_means(field);
  }
  attn_snapshot_free(memory);
}

static void report_means(const struct field *field) {
  static const char inputs[] = "all m x d and B";
  struct report *report = field->bench->report;
  const double cases = (double)field->cases;
  report_ratio(report, "softmax_floor_ratio_geomean", inputs, exp(field->logs / cases), ">= 0.8");
  report_ratio(report, "softmax_floor_ratio_worst", inputs, field->worst, ">= 0.55");
  report_line(report, "softmax_cached_ratio_geomean", inputs, exp(field->cached_logs / cases),
              "floor/time");
}

void bench_library(const struct bench *bench) {
  const size_t shape_count = bench->quick ? 2 : sizeof shapes / sizeof *shapes;
  struct field field = {
      .bench = bench, .ceilings = bench->turns ? NULL : ceilings_create(bench), .worst = INFINITY};
  for (size_t s = 0; s < shape_count; s++) {
    field.shape = shapes[s];
    if (wants_shape(bench, shapes[s])) measure_shape(&field);
  }
  if (!field.ceilings) return;
  ceilings_free(field.ceilings);
  /* of some cases they would say nothing */
  if (!bench->cases) report_means(&field);
}

static void time_dtype(const struct bench *bench, struct case_shape shape,
                       const attn_dtype_info *info) {
  char name[48];
  attn_snapshot *memory = new_memory_of(shape.rows, shape.dim, info->dtype);
  struct run run = new_run(bench, memory, 1, &plain);
  snprintf(name, sizeof name, "dtype_%s", info->name);
  report_turns(bench, name, inputs_of(shape, 1).text, &run);
  free_run(&run);
  attn_snapshot_free(memory);
}

static void compare_dtype(const struct bench *bench, struct case_shape shape,
                          const attn_snapshot *plain_memory, const attn_dtype_info *info) {
  static const char *const goals[] = {
      [ATTN_F16] = ">= 1.6", [ATTN_BF16] = ">= 1.6", [ATTN_INT8] = ">= 2.4"};
  attn_snapshot *memory = new_memory_of(shape.rows, shape.dim, info->dtype);
  char name[48], inputs[64];
  double ratios[5];
  /* in turn, so that what else the machine does meets both */
  for (size_t round = 0; round < 5; round++) {
    const double wide = time_plain(bench, plain_memory, 1, 0.3);
    ratios[round] = wide / time_plain(bench, memory, 1, 0.3);
  }
  snprintf(name, sizeof name, "dtype_%s_ratio", info->name);
  snprintf(inputs, sizeof inputs, "B = 1, %zu x %zu, time of f32 / time", shape.rows, shape.dim);
  report_ratio(bench->report, name, inputs, median_of(ratios, 5), goals[info->dtype]);
  attn_snapshot_free(memory);
}

/* What the smaller types gain for one query, where reading the memory is all. */
void bench_dtypes(const struct bench *bench) {
  const struct case_shape shape = bench->quick ? shapes[0] : shapes[5];
  attn_snapshot *plain_memory = bench->turns ? NULL : new_memory(shape.rows, shape.dim);
  const attn_dtype_info *info;
  for (size_t t = ATTN_F16; (info = attn_dtype_info_at(t)); t++) {
    char name[48];
    snprintf(name, sizeof name, "dtype_%s", info->name);
    if (!bench_wants(bench, name, inputs_of(shape, 1).text)) continue;
    if (bench->turns)
      time_dtype(bench, shape, info);
    else
      compare_dtype(bench, shape, plain_memory, info);
  }
  if (plain_memory) attn_snapshot_free(plain_memory);
}
