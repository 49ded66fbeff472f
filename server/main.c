/* attentiond: the order in which things start and stop, and signals.
 *
 *   start   options, log, store, registry, workers, writer (which loads the
 *           store), listening, preloading, ready
 *   stop    on SIGTERM or SIGINT: not ready, no new connections, requests under
 *           way are answered, workers end, what was to be written is written,
 *           connections end, memories are freed, the store is closed
 *
 * The server listens before it has loaded, so that /readyz can say so.
 *
 * SIGTERM and SIGINT post a semaphore that the main thread waits on. Blocking
 * them and waiting with sigwait() was rejected: OpenBLAS starts threads while it
 * is being loaded, before main() can block anything, and a second signal that
 * meets one of those would end the process in the middle of its stop. */
#include <errno.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/api.h"
#include "base/clock.h"
#include "codec/codec.h"
#include "codec/config_file.h"
#include "healthcheck.h"
#include "options.h"

enum { EXIT_USAGE = 2, STOP_SECONDS = 9, LOADING_SECONDS = 1 };

/* Posted when it is time to stop. Global, because a signal handler can't be
 * told anything. */
static sem_t stop_wanted;

static void want_stop(int signal_number) {
  (void)signal_number;
  sem_post(&stop_wanted);
}

static void last_resort(int signal_number) {
  (void)signal_number;
  _exit(EXIT_SUCCESS);
}

static void handle_signals(void) {
  sem_init(&stop_wanted, 0, 0);
  const struct sigaction stopping = {.sa_handler = want_stop, .sa_flags = SA_RESTART};
  sigaction(SIGTERM, &stopping, NULL);
  sigaction(SIGINT, &stopping, NULL);
  signal(SIGALRM, last_resort);
  signal(SIGPIPE, SIG_IGN);
  signal(SIGXFSZ, SIG_IGN); /* a file that may not grow fails the write alone */
}

static void wait_for_stop(void) {
  while (sem_wait(&stop_wanted) != 0 && errno == EINTR) {
  }
}

/* What loading needs, on a worker. */
struct loading {
  struct api *api;
  struct preload_list list;
  struct log *log;
  bool failed;
};

static void load_memories(void *argument) {
  struct loading *loading = argument;
  char error[512] = "there is not enough memory for what is stored";
  if (writer_wait_loaded(loading->api->writer) &&
      api_preload(loading->api, &loading->list, loading->log, error, sizeof error)) {
    atomic_store(&loading->api->loaded, true);
    LOG(loading->log, LOG_INFO, "ready", log_integer("memories", api_count_memories(loading->api)));
    return;
  }
  if (atomic_load(&loading->api->stopping)) return;
  fprintf(stderr, "attentiond: %s\n", error);
  loading->failed = true;
  sem_post(&stop_wanted);
}

static unsigned cores(void) {
  cpu_set_t set;
  const int count = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
  return count > 0 ? (unsigned)count : 1;
}

/* Written whole or not at all, since others wait for it to appear. */
static bool write_port_file(const char *path, unsigned port) {
  if (!*path) return true;
  char temporary[4096];
  const int length = snprintf(temporary, sizeof temporary, "%s.%ld", path, (long)getpid());
  FILE *file = length > 0 && (size_t)length < sizeof temporary ? fopen(temporary, "we") : NULL;
  bool written = file && fprintf(file, "%u\n", port) > 0;
  if (file && fclose(file) != 0) written = false;
  if (written && rename(temporary, path) == 0) return true;
  fprintf(stderr, "attentiond: can't write the port file %s: %s\n", path, strerror(errno));
  return false;
}

/* Everything that runs, in the order of its making. */
struct daemon {
  const struct options *options;
  struct log *log;
  struct api api;
  struct http_server *server;
  struct loading loading;
};

static bool is_hurried(void *context) {
  const struct api *api = context;
  return atomic_load_explicit(&api->hurry, memory_order_relaxed);
}

/* Requests are computed by workers and by the threads that read them. */
static void reserve_blas(struct daemon *daemon, unsigned threads) {
  const attn_status status = attn_reserve_blas(threads + (size_t)daemon->options->io_threads);
  if (status != ATTN_OK)
    LOG(daemon->log, LOG_WARNING, "openblas_unused", log_text("reason", attn_status_text(status)));
}

static bool start(struct daemon *daemon) {
  const struct options *options = daemon->options;
  struct api *api = &daemon->api;
  char error[512];
  if (!preload_parse(options->memories, options->config_folder, &daemon->loading.list, error,
                     sizeof error)) {
    fprintf(stderr, "attentiond: %s\n", error);
    return false;
  }
  const unsigned threads = options->threads > 0 ? (unsigned)options->threads : cores();
  daemon->log = log_create(STDERR_FILENO, (enum log_level)options->log_level,
                           (enum log_format)options->log_format);
  reserve_blas(daemon, threads);
  struct store *store = NULL;
  if (*options->data_dir) {
    store = store_open(options->data_dir, error, sizeof error);
    if (!store) {
      fprintf(stderr, "attentiond: %s\n", error);
      return false;
    }
  }
  api->data_dir = options->data_dir;
  api->budget.limit = (size_t)options->max_ram_bytes;
  api->max_rows = (size_t)options->max_rows;
  api->max_dim = (size_t)options->max_dim;
  api->registry = registry_create();
  api->metrics = metrics_create(api_operations(), api_route_count);
  const struct writer_config writing = {.registry = api->registry,
                                        .budget = &api->budget,
                                        .store = store,
                                        .log = daemon->log,
                                        .metrics = api->metrics,
                                        .max_memories = (size_t)options->max_memories,
                                        .max_rows = api->max_rows,
                                        .threads = threads,
                                        .huge_pages = options->huge_pages};
  if (api->registry) api->writer = writer_create(&writing);
  if (!api->writer) store_close(store);
  api->workers = workers_create(threads, (size_t)options->max_queue);
  api->max_body_bytes = (size_t)options->max_body_bytes;
  api->max_reply_bytes = (size_t)options->max_reply_bytes;
  api->attend = (struct attend_service){.registry = api->registry,
                                        .batcher = batcher_create(api->workers, is_hurried, api),
                                        .metrics = api->metrics,
                                        .timeout_seconds = (double)options->request_timeout,
                                        .max_reply_bytes = api->max_reply_bytes};
  if (!daemon->log || !api->registry || !api->writer || !api->metrics || !api->workers ||
      !api->attend.batcher) {
    fprintf(stderr, "attentiond: not enough memory or threads to start\n");
    return false;
  }
  api_observe(api);

  const struct http_config config = {
      .address = options->listen_address,
      .port = (uint16_t)options->listen_port,
      .io_threads = (unsigned)options->io_threads,
      .max_connections = (unsigned)options->max_connections,
      .max_body_bytes = (size_t)options->max_body_bytes,
      .head_timeout_seconds = (unsigned)options->head_timeout,
      .body_timeout_seconds = (unsigned)options->body_timeout,
      .idle_timeout_seconds = (unsigned)options->idle_timeout,
  };
  const struct http_services services = {
      .routes = api_routes,
      .route_count = api_route_count,
      .api = api,
      .submit = workers_submit,
      .submit_context = api->workers,
      .answer_put_off = api_answer_put_off,
      .ready = api_is_loaded,
      .ready_context = api,
      .log = daemon->log,
      .metrics = api->metrics,
  };
  daemon->server = http_server_start(&config, &services, error, sizeof error);
  if (!daemon->server) {
    fprintf(stderr, "attentiond: %s\n", error);
    return false;
  }
  const unsigned port = http_server_port(daemon->server);
  LOG(daemon->log, LOG_INFO, "listening", log_text("address", options->listen_address),
      log_integer("port", port), log_integer("threads", threads),
      log_text("kernels", attn_kernels_name()), log_text("version", attn_version()));
  if (!write_port_file(options->port_file, port)) return false;

  daemon->loading.api = api;
  daemon->loading.log = daemon->log;
  return workers_submit(api->workers, load_memories, &daemon->loading, LOADING_SECONDS);
}

/* What can't be told to give up is not waited for: for the loading of a large
 * file a second, for what computes as long as a stop may take in all. */
static void set_last_resort(const struct api *api, double began) {
  const double left = STOP_SECONDS - (clock_seconds() - began);
  alarm(atomic_load(&api->loaded) && left > 1 ? (unsigned)left : 1);
}

static void stop(struct daemon *daemon) {
  struct api *api = &daemon->api;
  const double began = clock_seconds();
  atomic_store(&api->stopping, true);
  if (daemon->server) {
    LOG(daemon->log, LOG_INFO, "stopping");
    if (!http_server_drain(daemon->server, (double)daemon->options->stop_timeout)) {
      LOG(daemon->log, LOG_WARNING, "stop_timeout",
          log_integer("seconds", daemon->options->stop_timeout));
      atomic_store(&api->hurry, true);
    }
  }
  set_last_resort(api, began);
  workers_finish(api->workers);
  writer_finish(api->writer);
  http_server_stop(daemon->server);
  batcher_free(api->attend.batcher);
  workers_free(api->workers);
  writer_free(api->writer);
  registry_free(api->registry);
  metrics_free(api->metrics);
  preload_free(&daemon->loading.list);
  if (daemon->server && *daemon->options->port_file) unlink(daemon->options->port_file);
  LOG(daemon->log, LOG_INFO, "stopped");
  log_free(daemon->log);
}

/* A configuration may be written for another machine, so that what this one
 * can't do is no fault of the configuration (--check-config), but of the start. */
static bool choose_kernels(const struct options *options) {
  char wanted[32], known[128] = "";
  options_choice(options, "kernels", wanted, sizeof wanted);
  if (attn_init_with(wanted) == ATTN_OK) return true;
  for (size_t i = 0; attn_kernels_name_at(i); i++) {
    const size_t used = strlen(known);
    snprintf(known + used, sizeof known - used, ", %s", attn_kernels_name_at(i));
  }
  fprintf(stderr, "attentiond: kernels: this CPU can't run \"%s\", only auto%s\n", wanted, known);
  return false;
}

static int run(const struct options *options) {
  handle_signals();
  if (!choose_kernels(options)) return EXIT_USAGE;
  struct daemon daemon = {.options = options};
  const bool started = start(&daemon);
  if (started) wait_for_stop();
  stop(&daemon);
  return started && !daemon.loading.failed ? EXIT_SUCCESS : EXIT_FAILURE;
}

static int check_config(const struct options *options) {
  char error[512];
  struct preload_list list;
  if (!preload_parse(options->memories, options->config_folder, &list, error, sizeof error)) {
    fprintf(stderr, "attentiond: %s\n", error);
    return EXIT_USAGE;
  }
  preload_free(&list);
  puts("the configuration is valid");
  return EXIT_SUCCESS;
}

static int restore(const struct options *options) {
  char error[512];
  if (*options->data_dir == '\0')
    fprintf(stderr, "attentiond: --restore needs a data_dir to restore to\n");
  else if (!store_restore(options->restore_file, options->data_dir, error, sizeof error))
    fprintf(stderr, "attentiond: %s\n", error);
  else
    return printf("restored %s to %s\n", options->restore_file, options->data_dir) > 0
               ? EXIT_SUCCESS
               : EXIT_FAILURE;
  return EXIT_FAILURE;
}

int main(int argc, char **argv) {
  struct options options;
  char error[512];
  int code = EXIT_SUCCESS;
  codec_init(); /* the configuration is read by it too */
  switch (options_read(&options, argc, argv, environ, error, sizeof error)) {
  case OPTIONS_FAILED:
    fprintf(stderr, "attentiond: %s\n", error);
    code = EXIT_USAGE;
    break;
  case OPTIONS_HELP:
    options_print_help();
    break;
  case OPTIONS_VERSION:
    printf("attentiond %s\n", attn_version());
    break;
  case OPTIONS_CHECK_CONFIG:
    code = check_config(&options);
    break;
  case OPTIONS_PRINT_CONFIG:
    options_print_config(&options);
    break;
  case OPTIONS_HEALTHCHECK:
    code = healthcheck(options.listen_address, (uint16_t)options.listen_port);
    break;
  case OPTIONS_RESTORE:
    code = restore(&options);
    break;
  case OPTIONS_RUN:
    code = run(&options);
    break;
  }
  options_free(&options);
  return code;
}
