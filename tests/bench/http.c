/* The daemon over HTTP, against what it can be held to: a bare server on the
 * same library, the library's own time, itself with one client.
 *
 * The daemon and the bare server are processes of their own; the load client
 * runs in this one, on the cores that they need too. So the figures are those
 * of a machine that is client and server at once; the ratios compare two sides
 * that both pay for the client. What is compared is measured in turn, several
 * rounds of it, and the medians of the rounds count.
 *
 * Against another build's bench the rivals are left out, and a round ends where
 * the turn is passed on. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "batch.h"
#include "bench.h"
#include "load.h"
#include "process.h"
#include "upload.h"

enum {
  ROUNDS = 7,
  MANY_CLIENTS = 32,
  BATCH = 64,
  HEAVY_BATCH = 256,
  BATCH_ROWS = 10000,
  BATCH_DIM = 768
};

/* Of the daemon and of the bare server. */
#define IO_THREADS "2"

struct site {
  const struct bench *bench;
  struct server daemon;
};

/* ROUNDS figures of both sides, and their ratio round by round. */
struct rounds {
  double ours[ROUNDS], theirs[ROUNDS], ratio[ROUNDS];
};

static void set_round(struct rounds *rounds, size_t round, double ours, double theirs) {
  rounds->ours[round] = ours;
  rounds->theirs[round] = theirs;
  rounds->ratio[round] = ours / theirs;
}

/* Loads a server for about `seconds`, after a warm-up of a fifth of it. `cpu`, which may be
 * NULL, is what the server needed of the processors for one request, in seconds. */
static struct load_result load(const struct bench *bench, const struct server *server,
                               const struct buffer *request, unsigned connections, double seconds,
                               double *cpu) {
  struct load_result result;
  const double before = server_cpu(server);
  const struct load_plan plan = {.port = server->port,
                                 .request = request->data,
                                 .request_length = request->length,
                                 .connections = connections,
                                 .warm_up = bench_seconds(bench, seconds) / 5,
                                 .seconds = bench_seconds(bench, seconds)};
  if (!load_run(&plan, &result)) {
    fprintf(stderr, "bench: http: %s\n", result.fault);
    exit(EXIT_FAILURE);
  }
  if (cpu) *cpu = (server_cpu(server) - before) / (double)result.answered;
  return result;
}

/* ---- Small requests against a server that does nothing ---- */

static struct server start_bare(const struct bench *bench, size_t reply_bytes) {
  char bytes[24];
  snprintf(bytes, sizeof bytes, "%zu", reply_bytes);
  const char *const arguments[] = {"--reply-bytes", bytes, "--threads", IO_THREADS, NULL};
  return server_start(bench->bare_server, arguments);
}

/* What a side needs of the cores for one request tells more than its rate where
 * the machine is busy with other things. */
struct side {
  struct server server;
  double rate[ROUNDS], p50[ROUNDS], p99[ROUNDS], cpu[ROUNDS];
};

static void load_side(const struct bench *bench, struct side *side, const struct buffer *request,
                      size_t round) {
  double cpu;
  const struct load_result result = load(bench, &side->server, request, MANY_CLIENTS, 1.5, &cpu);
  side->cpu[round] = cpu * 1e6;
  side->rate[round] = result.rate;
  side->p50[round] = result.p50 * 1e3;
  side->p99[round] = result.p99 * 1e3;
}

static void report_side(const struct bench *bench, struct side *side, const char *name,
                        const char *inputs) {
  const struct {
    const char *what, *unit;
    double *rounds;
  } figures[] = {{"rate", "requests/s", side->rate},
                 {"p50", "ms", side->p50},
                 {"p99", "ms", side->p99},
                 {"cpu", "us/request", side->cpu}};
  for (size_t i = 0; i < sizeof figures / sizeof *figures; i++) {
    char key[64];
    snprintf(key, sizeof key, "%s_%s", name, figures[i].what);
    report_rounds(bench->report, key, inputs, figures[i].rounds, ROUNDS, figures[i].unit);
  }
}

static void measure_small(const struct site *site) {
  static const char inputs[] = "B = 1, 1,000 x 64, 32 connections";
  const struct bench *bench = site->bench;
  struct buffer request = batch_request("small", 1, 64);
  const size_t reply_bytes = load(bench, &site->daemon, &request, 1, 0.5, NULL).body_length;
  struct side ours = {.server = site->daemon}, bare = {0};
  double ratio[ROUNDS];
  if (!bench->turns) bare.server = start_bare(bench, reply_bytes);
  for (size_t round = 0; round < ROUNDS; round++) {
    turns_pass(bench->turns);
    load_side(bench, &ours, &request, round);
    if (bench->turns) continue;
    load_side(bench, &bare, &request, round);
    ratio[round] = ours.rate[round] / bare.rate[round];
  }
  buffer_free(&request);
  report_side(bench, &ours, "http_small", inputs);
  if (bench->turns) return;
  server_stop(&bare.server);
  report_side(bench, &bare, "http_bare", "a bare server, bodies of the same lengths");
  report_ratio(bench->report, "http_small_ratio", inputs, median_of(ratio, ROUNDS), ">= 0.6");
}

/* ---- A large batch against the library alone ---- */

static void measure_batch(const struct site *site) {
  static const char inputs[] = "64 queries, 10,000 x 768, one connection";
  const struct bench *bench = site->bench;
  struct report *report = bench->report;
  struct buffer request = batch_request("batch", BATCH, BATCH_DIM);
  attn_snapshot *memory = bench->turns ? NULL : new_memory(BATCH_ROWS, BATCH_DIM);
  struct rounds rounds;
  double cpu[ROUNDS];
  for (size_t round = 0; round < ROUNDS; round++) {
    turns_pass(bench->turns);
    const double whole = load(bench, &site->daemon, &request, 1, 1.0, &cpu[round]).p50 * 1e3;
    cpu[round] *= 1e3;
    set_round(&rounds, round, whole, memory ? time_plain(bench, memory, BATCH, 1.0) * 1e3 : 1);
  }
  buffer_free(&request);
  report_rounds(report, "http_batch_ms", inputs, rounds.ours, ROUNDS, "ms");
  report_rounds(report, "http_batch_cpu_ms", inputs, cpu, ROUNDS, "ms");
  if (!memory) return;
  attn_snapshot_free(memory);
  report_rounds(report, "http_batch_library_ms", "the library alone", rounds.theirs, ROUNDS, "ms");
  report_ratio(report, "http_batch_ratio", inputs, median_of(rounds.ratio, ROUNDS), "<= 1.35");
}

/* ---- Many clients against one ---- */

static void measure_many(const struct site *site) {
  static const char inputs[] = "one query each, 100,000 x 128";
  const struct bench *bench = site->bench;
  struct report *report = bench->report;
  struct buffer request = batch_request("many", 1, 128);
  struct rounds rounds;
  double cpu[ROUNDS];
  for (size_t round = 0; round < ROUNDS; round++) {
    turns_pass(bench->turns);
    const double many = load(bench, &site->daemon, &request, MANY_CLIENTS, 1.5, &cpu[round]).rate;
    set_round(&rounds, round, many, load(bench, &site->daemon, &request, 1, 1.5, NULL).rate);
    cpu[round] *= 1e6;
  }
  buffer_free(&request);
  report_rounds(report, "http_one_client_rate", inputs, rounds.theirs, ROUNDS, "requests/s");
  report_rounds(report, "http_32_clients_rate", inputs, rounds.ours, ROUNDS, "requests/s");
  report_rounds(report, "http_32_clients_cpu", inputs, cpu, ROUNDS, "us/request");
  report_ratio(report, "http_32_clients_ratio", inputs, median_of(rounds.ratio, ROUNDS), ">= 6");
}

/* ---- A small memory's requests beside a heavy neighbour's ---- */

struct neighbour {
  struct load_plan plan;
  struct load_result result;
  atomic_bool stop;
  bool done;
};

static void *be_heavy(void *context) {
  struct neighbour *neighbour = context;
  neighbour->done = load_run(&neighbour->plan, &neighbour->result);
  return NULL;
}

static struct load_result load_beside(const struct site *site, const struct buffer *small,
                                      const struct buffer *heavy, double *batches) {
  struct neighbour neighbour = {.plan = {.port = site->daemon.port,
                                         .request = heavy->data,
                                         .request_length = heavy->length,
                                         .connections = 1,
                                         .seconds = 600,
                                         .stop = &neighbour.stop}};
  pthread_t thread;
  if (pthread_create(&thread, NULL, be_heavy, &neighbour) != 0) must(ATTN_NO_MEMORY, "a thread");
  const struct load_result result = load(site->bench, &site->daemon, small, 1, 5.0, NULL);
  atomic_store(&neighbour.stop, true);
  pthread_join(thread, NULL);
  if (!neighbour.done) fprintf(stderr, "bench: the neighbour: %s\n", neighbour.result.fault);
  *batches = neighbour.result.rate;
  return result;
}

static void measure_fairness(const struct site *site) {
  static const char inputs[] = "B = 1, 1,000 x 64, one connection";
  static const char beside[] = "beside batches of 256 on 500,000 x 64";
  const struct bench *bench = site->bench;
  struct report *report = bench->report;
  struct buffer small = batch_request("small", 1, 64);
  struct buffer heavy = batch_request("heavy", HEAVY_BATCH, 64);
  double batches[ROUNDS], p50[ROUNDS];
  struct rounds rounds;
  for (size_t round = 0; round < ROUNDS; round++) {
    turns_pass(bench->turns);
    const double alone = load(bench, &site->daemon, &small, 1, 1.0, NULL).p99 * 1e3;
    const struct load_result disturbed = load_beside(site, &small, &heavy, &batches[round]);
    set_round(&rounds, round, disturbed.p99 * 1e3, alone);
    p50[round] = disturbed.p50 * 1e3;
  }
  buffer_free(&small);
  buffer_free(&heavy);
  report_rounds(report, "http_alone_p99", inputs, rounds.theirs, ROUNDS, "ms");
  report_rounds(report, "http_beside_p50", beside, p50, ROUNDS, "ms");
  report_rounds(report, "http_beside_p99", beside, rounds.ours, ROUNDS, "ms");
  report_rounds(report, "http_beside_batches", beside, batches, ROUNDS, "batches/s");
  report_ratio(report, "http_beside_ratio", beside, median_of(rounds.ratio, ROUNDS), "<= 20");
}

/* ---- The part ---- */

static struct server start_daemon(const struct bench *bench) {
  char threads[24];
  snprintf(threads, sizeof threads, "%u", bench->pool->workers);
  const char *const arguments[] = {"--listen-port",
                                   "0",
                                   "--data-dir",
                                   "",
                                   "--threads",
                                   threads,
                                   "--io-threads",
                                   IO_THREADS,
                                   "--log-level",
                                   "warning",
                                   "--max-body-bytes",
                                   "4294967296",
                                   NULL};
  return server_start(bench->daemon, arguments);
}

void bench_http(const struct bench *bench) {
  static const struct {
    const char *name, *memory;
    size_t rows, dim;
    void (*measure)(const struct site *site);
  } cases[] = {{"http_small", "small", 1000, 64, measure_small},
               {"http_batch", "batch", BATCH_ROWS, BATCH_DIM, measure_batch},
               {"http_many", "many", 100000, 128, measure_many},
               {"http_beside", "heavy", 500000, 64, measure_fairness}};
  printf("client and servers share the cores\n");
  struct site site = {.bench = bench, .daemon = start_daemon(bench)};
  upload_memory(site.daemon.port, cases[0].memory, cases[0].rows, cases[0].dim);
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    if (!bench_wants(bench, cases[i].name, "")) continue;
    if (i > 0) upload_memory(site.daemon.port, cases[i].memory, cases[i].rows, cases[i].dim);
    cases[i].measure(&site);
  }
  server_stop(&site.daemon);
}
