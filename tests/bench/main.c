/* `make bench`: the figures of docs/performance.md, as a table and as JSON.
 *
 *     bench REPORT.json [--threads N] [--part NAME,NAME...] [--case REGEX] [--quick]
 *           [--daemon PROGRAM] [--bare-server PROGRAM] [--turns FROM,TO]
 *
 * Everything that is compared is measured in one run, in turn. --case measures
 * what an extended regular expression finds in "NAME INPUTS", such as
 * 'softmax 100000 x 64, B = (1|2)$' or 'http_small'. --quick is for
 * seeing that the bench works: its figures mean nothing. With --turns the rival
 * is the bench of another build (turns.h, `make bench-compare`), and no other
 * is measured. */
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
  regex_t cases;
  struct turns turns;
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
  if (settings->bench.turns) turns_begin(settings->bench.turns);
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

static bool want_cases(struct settings *settings, const char *expression) {
  if (settings->bench.cases) return false;
  if (regcomp(&settings->cases, expression, REG_EXTENDED | REG_NOSUB) != 0) return false;
  settings->bench.cases = &settings->cases;
  return true;
}

static bool take_turns(struct settings *settings, const char *descriptors) {
  settings->bench.turns = &settings->turns;
  return turns_open(&settings->turns, descriptors);
}

static bool read_settings(struct settings *settings, int argc, char **argv) {
  static const struct option options[] = {{"threads", required_argument, NULL, 't'},
                                          {"part", required_argument, NULL, 'p'},
                                          {"quick", no_argument, NULL, 'q'},
                                          {"daemon", required_argument, NULL, 'd'},
                                          {"bare-server", required_argument, NULL, 'b'},
                                          {"case", required_argument, NULL, 'c'},
                                          {"turns", required_argument, NULL, 'u'},
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
    else if (!(option == 'p'   ? want_parts(settings, optarg)
               : option == 'c' ? want_cases(settings, optarg)
               : option == 'u' ? take_turns(settings, optarg)
                               : false))
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
            "       [--case REGEX] [--quick] [--daemon PROGRAM] [--bare-server PROGRAM]\n"
            "       [--turns FROM,TO]\n",
            argv[0]);
    return 2;
  }
  attn_init();
  codec_init();
  const bool done = run_all(&settings);
  if (settings.bench.cases) regfree(&settings.cases);
  return done ? EXIT_SUCCESS : EXIT_FAILURE;
}
