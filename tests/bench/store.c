/* What durability costs: appends that are acknowledged when they are on the disk,
 * from one client and from many; a large import against a copy of the same file;
 * and how fast a store is read again.
 *
 * All files are in one folder beside the report, on the disk that the user builds
 * on. A copy counts with its fsync, an import until it is acknowledged. Pages that
 * the system still has to write from before are waited for first, so that no side
 * pays for the other. "Cold" is after the files were dropped from the page cache,
 * which needs no special right. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "batch.h"
#include "bench.h"
#include "codec/safetensors.h"
#include "load.h"
#include "process.h"
#include "upload.h"

enum { ROUNDS = 5, MANY_CLIENTS = 32, APPEND_DIM = 64, IMPORT_DIM = 768, COPY_BYTES = 1 << 20 };

struct site {
  const struct bench *bench;
  char folder[1024], data[1100], source[1100], copy[1100], database[1200];
  size_t bytes; /* of the import */
  struct server daemon;
};

static void fail(const char *what, const char *why) {
  fprintf(stderr, "bench: store: %s: %s\n", what, why);
  exit(EXIT_FAILURE);
}

static void must_not_fail(bool fine, const char *what) {
  if (!fine) fail(what, strerror(errno));
}

/* ---- Files ---- */

static int open_file(const char *path, int flags) {
  const int file = open(path, flags | O_CLOEXEC, 0600);
  must_not_fail(file >= 0, path);
  return file;
}

static size_t size_of(const char *path) {
  struct stat status;
  must_not_fail(stat(path, &status) == 0, path);
  return (size_t)status.st_size;
}

static void write_all(int file, const void *bytes, size_t count) {
  for (size_t done = 0; done < count;) {
    const ssize_t written = write(file, (const char *)bytes + done, count - done);
    must_not_fail(written > 0, "write");
    done += (size_t)written;
  }
}

/* safetensors of about site->bytes; the numbers repeat, which nothing here minds. */
static void write_source(struct site *site) {
  const size_t rows = site->bytes / (2 * IMPORT_DIM * sizeof(float));
  const struct tensor_outline tensors[] = {
      {.name = "keys", .dims = 2, .shape = {rows, IMPORT_DIM}},
      {.name = "values", .dims = 2, .shape = {rows, IMPORT_DIM}}};
  const struct tensors_outline outline = {.tensors = tensors, .tensor_count = 2};
  const size_t some = 1 << 20;
  float *numbers = new_normal(some, 53);
  struct buffer head;
  size_t bytes;
  buffer_init(&head, 0);
  if (!tensors_write_header(&head, &outline, &bytes)) must(ATTN_NO_MEMORY, "a header");
  const int file = open_file(site->source, O_WRONLY | O_CREAT | O_TRUNC);
  write_all(file, head.data, head.length);
  for (size_t left = bytes; left > 0;) {
    const size_t count = left < some * sizeof *numbers ? left : some * sizeof *numbers;
    write_all(file, numbers, count);
    left -= count;
  }
  close(file);
  site->bytes = head.length + bytes;
  buffer_free(&head);
  free(numbers);
}

/* As `cp` does it, then fsync. */
static double time_copy(const struct site *site) {
  sync();
  const double began = now_seconds();
  const int from = open_file(site->source, O_RDONLY);
  const int to = open_file(site->copy, O_WRONLY | O_CREAT | O_TRUNC);
  char *room = must_alloc(COPY_BYTES);
  for (ssize_t count; (count = read(from, room, COPY_BYTES)) > 0;)
    write_all(to, room, (size_t)count);
  must_not_fail(fsync(to) == 0, "fsync");
  close(from);
  close(to);
  const double seconds = now_seconds() - began;
  free(room);
  unlink(site->copy);
  return seconds;
}

static double time_reading(const char *path) {
  const double began = now_seconds();
  const int file = open_file(path, O_RDONLY);
  char *room = must_alloc(COPY_BYTES);
  while (read(file, room, COPY_BYTES) > 0) {
  }
  close(file);
  free(room);
  return now_seconds() - began;
}

static void make_cold(const char *path) {
  const int file = open_file(path, O_RDONLY);
  fsync(file);
  posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
  close(file);
}

static void remove_data(const struct site *site) {
  static const char *const names[] = {"store.db", "store.db-wal", "store.db-journal",
                                      "witness",  "lock",         "reserve"};
  char path[1200];
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    snprintf(path, sizeof path, "%s/%s", site->data, names[i]);
    unlink(path);
  }
  rmdir(site->data);
}

/* ---- The daemon ---- */

static struct server start_daemon(const struct site *site) {
  const char *const arguments[] = {"--listen-port",    "0",           "--data-dir",
                                   site->data,         "--log-level", "warning",
                                   "--max-body-bytes", "4294967296",  NULL};
  return server_start(site->bench->daemon, arguments);
}

/* One request, with the rest of a file as its body where file >= 0; the status. */
static int exchange(uint16_t port, const char *head, int file, size_t bytes) {
  char reply[4096];
  const int peer = load_connect(port);
  must_not_fail(peer >= 0, "connect");
  must_not_fail(send(peer, head, strlen(head), MSG_NOSIGNAL) == (ssize_t)strlen(head), "send");
  while (file >= 0 && bytes > 0) {
    const ssize_t sent = sendfile(peer, file, NULL, bytes);
    must_not_fail(sent > 0, "sendfile");
    bytes -= (size_t)sent;
  }
  size_t length = 0;
  for (ssize_t count; length < sizeof reply - 1 &&
                      (count = recv(peer, reply + length, sizeof reply - 1 - length, 0)) > 0;)
    length += (size_t)count;
  reply[length] = '\0';
  close(peer);
  return length > 12 ? atoi(reply + 9) : 0;
}

static double time_import(const struct site *site) {
  char head[256];
  snprintf(head, sizeof head,
           "PUT /v1/memories/import HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
           "Content-Type: application/x-safetensors\r\nContent-Length: %zu\r\n\r\n",
           site->bytes);
  const int file = open_file(site->source, O_RDONLY);
  sync();
  const double began = now_seconds();
  const int status = exchange(site->daemon.port, head, file, site->bytes);
  const double seconds = now_seconds() - began;
  close(file);
  if (status != 201) fail("import", "the daemon did not answer 201");
  return seconds;
}

/* From the start of the process until it is ready. */
static double time_start(struct site *site) {
  static const char head[] = "GET /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n";
  const struct timespec pause = {.tv_nsec = 2000000};
  const double began = now_seconds();
  site->daemon = start_daemon(site);
  while (exchange(site->daemon.port, head, -1, 0) != 200)
    nanosleep(&pause, NULL);
  const double seconds = now_seconds() - began;
  server_stop(&site->daemon);
  return seconds;
}

/* ---- Appends ---- */

static struct buffer append_request(void) {
  struct buffer body, request;
  float *row = new_normal(APPEND_DIM, 37);
  buffer_init(&body, 0);
  buffer_init(&request, 0);
  buffer_printf(&body, "{\"keys\":");
  batch_print(&body, row, 1, APPEND_DIM);
  buffer_printf(&body, ",\"values\":");
  batch_print(&body, row, 1, APPEND_DIM);
  buffer_printf(&body, "}");
  buffer_printf(&request,
                "POST /v1/memories/appends/rows HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n",
                body.length);
  buffer_append(&request, body.data, body.length);
  must(request.status == BUFFER_OK ? ATTN_OK : ATTN_NO_MEMORY, "a request");
  buffer_free(&body);
  free(row);
  return request;
}

static struct load_result append_for(const struct site *site, const struct buffer *request,
                                     unsigned connections) {
  struct load_result result;
  const struct load_plan plan = {.port = site->daemon.port,
                                 .request = request->data,
                                 .request_length = request->length,
                                 .connections = connections,
                                 .warm_up = bench_seconds(site->bench, 0.3),
                                 .seconds = bench_seconds(site->bench, 1.5)};
  if (!load_run(&plan, &result)) fail("appends", result.fault);
  return result;
}

static void measure_appends(struct site *site) {
  static const char inputs[] = "1 row of 64 + 64 each, durable";
  struct report *report = site->bench->report;
  struct buffer request = append_request();
  double one[ROUNDS], many[ROUNDS], ratio[ROUNDS], p50[ROUNDS], cpu[ROUNDS];
  site->daemon = start_daemon(site);
  upload_memory(site->daemon.port, "appends", 1000, APPEND_DIM);
  for (size_t round = 0; round < ROUNDS; round++) {
    turns_pass(site->bench->turns);
    const struct load_result alone = append_for(site, &request, 1);
    one[round] = alone.rate;
    p50[round] = alone.p50 * 1e3;
    const double before = server_cpu(&site->daemon);
    const struct load_result together = append_for(site, &request, MANY_CLIENTS);
    cpu[round] = (server_cpu(&site->daemon) - before) / (double)together.answered * 1e6;
    many[round] = together.rate;
    ratio[round] = many[round] / one[round];
  }
  server_stop(&site->daemon);
  remove_data(site);
  buffer_free(&request);
  report_rounds(report, "append_one_client_p50", inputs, p50, ROUNDS, "ms");
  report_rounds(report, "append_one_client_rate", inputs, one, ROUNDS, "appends/s");
  report_rounds(report, "append_32_clients_rate", inputs, many, ROUNDS, "appends/s");
  report_rounds(report, "append_32_clients_cpu", inputs, cpu, ROUNDS, "us/request");
  report_ratio(report, "append_32_clients_ratio", inputs, median_of(ratio, ROUNDS), ">= 5");
}

/* ---- An import, and reading it again ---- */

struct loading {
  double load[ROUNDS], read[ROUNDS], ratio[ROUNDS]; /* GB/s */
};

static void load_round(struct site *site, struct loading *loading, size_t round, bool cold) {
  const double bytes = (double)size_of(site->database) / 1e9;
  if (cold)
    make_cold(site->database);
  else
    time_reading(site->database); /* an import leaves nothing of it in the cache */
  loading->read[round] = bytes / time_reading(site->database);
  if (cold) make_cold(site->database);
  loading->load[round] = bytes / time_start(site);
  loading->ratio[round] = loading->load[round] / loading->read[round];
}

static void report_loading(const struct site *site, struct loading *loading, const char *kind,
                           const char *inputs, size_t rounds) {
  struct report *report = site->bench->report;
  char name[64];
  snprintf(name, sizeof name, "load_%s", kind);
  report_rounds(report, name, inputs, loading->load, rounds, "GB/s");
  snprintf(name, sizeof name, "load_%s_read", kind);
  report_rounds(report, name, "reading the same file", loading->read, rounds, "GB/s");
  snprintf(name, sizeof name, "load_%s_ratio", kind);
  report_ratio(report, name, inputs, median_of(loading->ratio, rounds), ">= 0.5");
}

static void measure_import(struct site *site) {
  enum { IMPORTS = 3 };
  struct report *report = site->bench->report;
  struct loading warm, cold;
  double import[IMPORTS], cpu[IMPORTS], copy[IMPORTS], ratio[IMPORTS];
  char inputs[96];
  write_source(site);
  snprintf(inputs, sizeof inputs, "%.2f GB of safetensors, durable", (double)site->bytes / 1e9);
  for (size_t round = 0; round < IMPORTS; round++) {
    turns_pass(site->bench->turns);
    copy[round] = time_copy(site);
    site->daemon = start_daemon(site);
    import[round] = time_import(site);
    cpu[round] = server_cpu(&site->daemon); /* a start with nothing stored needs next to none */
    server_stop(&site->daemon);
    ratio[round] = copy[round] / import[round];
    load_round(site, &warm, round, false);
    load_round(site, &cold, round, true);
    remove_data(site);
  }
  unlink(site->source);
  report_rounds(report, "import_seconds", inputs, import, IMPORTS, "s");
  report_rounds(report, "import_cpu", inputs, cpu, IMPORTS, "s");
  report_rounds(report, "import_copy_seconds", "cp and fsync of the same file", copy, IMPORTS, "s");
  report_ratio(report, "import_ratio", inputs, median_of(ratio, IMPORTS), ">= 0.5");
  report_loading(site, &warm, "warm", "start until ready, cached file", IMPORTS);
  report_loading(site, &cold, "cold", "start until ready, file not cached", IMPORTS);
}

/* ---- The part ---- */

void bench_store(const struct bench *bench) {
  struct site site = {.bench = bench, .bytes = bench->quick ? (size_t)64 << 20 : 1000000000};
  snprintf(site.folder, sizeof site.folder, "%s/bench-store-XXXXXX", bench->folder);
  must_not_fail(mkdtemp(site.folder) != NULL, site.folder);
  snprintf(site.data, sizeof site.data, "%s/data", site.folder);
  snprintf(site.source, sizeof site.source, "%s/source.safetensors", site.folder);
  snprintf(site.copy, sizeof site.copy, "%s/copy", site.folder);
  snprintf(site.database, sizeof site.database, "%s/store.db", site.data);
  if (bench_wants(bench, "append", "")) measure_appends(&site);
  if (bench_wants(bench, "import", "")) measure_import(&site);
  rmdir(site.folder);
}
