/* `make bench`: the figures of docs/performance.md, as a table and as JSON.
 *
 *     bench REPORT.json [--threads N] [--part NAME,NAME...] [--quick]
 *           [--daemon PROGRAM] [--bare-server PROGRAM]
 *
 * Everything that is compared is measured in one run, in turn. --quick is for
 * seeing that the bench works: its figures mean nothing. */
#include <getopt.h>
#include <libgen.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "codec/codec.h"
#include "engine/workers.h"

static const struct part {
  const char *name;
  void (*run)(const struct bench *bench);
} parts[] = {{"library", bench_library},
             {"dtypes", bench_dtypes},
             {"number", bench_number},
             {"http", bench_http},
             {"store", bench_store}};
enum { LIBRARY, DTYPES, NUMBER, HTTP, STORE, PART_COUNT };

struct settings {
  const char *report_path;
  unsigned threads;
  bool wanted[PART_COUNT];
  struct bench bench;
};

/* workers_pool() serves jobs of the pool; a bench is one job, of a length that
 * nothing else competes with. */
#define JOB_SECONDS 1.0

/* A load average above this is said. */
#define BUSY 0.5

static void run_parts(void *context) {
  const struct settings *settings = context;
  for (size_t i = 0; i < PART_COUNT; i++) {
    if (!settings->wanted[i]) continue;
    printf("\n-- %s\n", parts[i].name);
    parts[i].run(&settings->bench);
  }
}

static int cores(void) {
  cpu_set_t set;
  return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}

/* What the figures depend on beside the code. */
static void describe_run(const struct settings *settings, struct report *report) {
  char inputs[96];
  double load = 0;
  snprintf(inputs, sizeof inputs, "kernels %s%s", attn_kernels_name(),
           settings->bench.quick ? ", a quick run of no meaning" : "");
  report_line(report, "threads", inputs, settings->threads, "workers");
  report_line(report, "cores", "over HTTP client and servers share them", cores(), "cores");
  if (getloadavg(&load, 1) != 1) return;
  report_line(report, "load_average", "of the minute before", load, "processes");
  if (load > BUSY) printf("the machine is busy with something else: don't trust what follows\n");
}

static bool run_all(struct settings *settings) {
  struct report report = {0};
  struct workers *workers = workers_create(settings->threads, 1);
  if (!workers) return false;
  const attn_pool pool = workers_pool(workers);
  char *path = strdup(settings->report_path);
  if (!path) must(ATTN_NO_MEMORY, "a path");
  settings->bench.folder = dirname(path);
  settings->bench.report = &report;
  settings->bench.pool = &pool;
  describe_run(settings, &report);
  workers_submit(workers, run_parts, settings, JOB_SECONDS);
  workers_free(workers);
  const bool written = report_write(&report, settings->report_path) == 0;
  if (!written) fprintf(stderr, "bench: can't write %s\n", settings->report_path);
  report_free(&report);
  free(path);
  return written;
}

/* ---- The command line ---- */

static bool want_part(struct settings *settings, const char *name) {
  for (size_t i = 0; i < PART_COUNT; i++)
    if (strcmp(parts[i].name, name) == 0) return settings->wanted[i] = true;
  fprintf(stderr, "bench: there is no part \"%s\"\n", name);
  return false;
}

static bool want_parts(struct settings *settings, char *names) {
  memset(settings->wanted, 0, sizeof settings->wanted);
  char *rest = NULL;
  for (char *name = strtok_r(names, ",", &rest); name; name = strtok_r(NULL, ",", &rest))
    if (!want_part(settings, name)) return false;
  return true;
}

static bool read_settings(struct settings *settings, int argc, char **argv) {
  static const struct option options[] = {{"threads", required_argument, NULL, 't'},
                                          {"part", required_argument, NULL, 'p'},
                                          {"quick", no_argument, NULL, 'q'},
                                          {"daemon", required_argument, NULL, 'd'},
                                          {"bare-server", required_argument, NULL, 'b'},
                                          {NULL, 0, NULL, 0}};
  int option;
  while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
    if (option == 't')
      settings->threads = (unsigned)strtoul(optarg, NULL, 10);
    else if (option == 'q')
      settings->bench.quick = true;
    else if (option == 'd')
      settings->bench.daemon = optarg;
    else if (option == 'b')
      settings->bench.bare_server = optarg;
    else if (option != 'p' || !want_parts(settings, optarg))
      return false;
  }
  if (optind + 1 != argc || settings->threads < 1 || settings->threads > 1024) return false;
  settings->report_path = argv[optind];
  const bool programs = settings->bench.daemon && settings->bench.bare_server;
  const bool needed = settings->wanted[HTTP] || settings->wanted[STORE];
  if (needed && !programs)
    fprintf(stderr, "bench: the parts http and store need --daemon and --bare-server\n");
  return programs || !needed;
}

int main(int argc, char **argv) {
  struct settings settings = {.threads = (unsigned)cores()};
  for (size_t i = 0; i < PART_COUNT; i++)
    settings.wanted[i] = true;
  if (!read_settings(&settings, argc, argv)) {
    fprintf(stderr,
            "usage: %s REPORT.json [--threads N] [--part library,dtypes,number,http,store]\n"
            "       [--quick] [--daemon PROGRAM] [--bare-server PROGRAM]\n",
            argv[0]);
    return 2;
  }
  attn_init();
  codec_init();
  return run_all(&settings) ? EXIT_SUCCESS : EXIT_FAILURE;
}
