/* Servers as processes of their own.
 *
 * A server binds a free port and writes it to a file, in a folder that exists
 * for that moment alone. It is told to die with its parent, so that a bench
 * that ends early leaves none behind; that is why this is fork() and not
 * posix_spawn(), which can't say it. */
#include "process.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bench.h"

static void fail(const char *program, const char *what) {
  fprintf(stderr, "bench: %s: %s\n", program, what);
  exit(EXIT_FAILURE);
}

static void wait_a_little(void) {
  const struct timespec pause = {.tv_nsec = 5000000};
  nanosleep(&pause, NULL);
}

static pid_t spawn(const char *program, const char *const *arguments, const char *port_file) {
  const char *argv[SERVER_ARGUMENTS_MAX + 4];
  size_t count = 0;
  argv[count++] = program;
  for (size_t i = 0; arguments[i] && i < SERVER_ARGUMENTS_MAX; i++)
    argv[count++] = arguments[i];
  argv[count++] = "--port-file";
  argv[count++] = port_file;
  argv[count] = NULL;
  fflush(NULL);
  const pid_t pid = fork();
  if (pid != 0) return pid;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  execv(program, (char *const *)(uintptr_t)argv);
  _exit(127);
}

static bool read_port(const char *path, uint16_t *port) {
  FILE *file = fopen(path, "r");
  if (!file) return false;
  const bool read = fscanf(file, "%hu\n", port) == 1;
  fclose(file);
  return read;
}

static void wait_for_port(const char *program, const char *path, struct server *server) {
  const double deadline = now_seconds() + 30;
  while (!read_port(path, &server->port)) {
    if (waitpid(server->pid, NULL, WNOHANG) != 0) fail(program, "ended before it listened");
    if (now_seconds() > deadline) fail(program, "did not listen within 30 s");
    wait_a_little();
  }
}

struct server server_start(const char *program, const char *const *arguments) {
  char folder[1024], path[sizeof folder + 8];
  const char *temporary = getenv("TMPDIR");
  snprintf(folder, sizeof folder, "%s/attentiond-bench-XXXXXX", temporary ? temporary : P_tmpdir);
  if (!mkdtemp(folder)) fail(folder, strerror(errno));
  snprintf(path, sizeof path, "%s/port", folder);
  struct server server = {.pid = spawn(program, arguments, path)};
  if (server.pid < 0) fail(program, strerror(errno));
  wait_for_port(program, path, &server);
  unlink(path);
  rmdir(folder);
  return server;
}

double server_cpu(const struct server *server) {
  clockid_t clock;
  struct timespec spent = {0};
  if (clock_getcpuclockid(server->pid, &clock) == 0) clock_gettime(clock, &spent);
  return (double)spent.tv_sec + 1e-9 * (double)spent.tv_nsec;
}

void server_stop(struct server *server) {
  const double deadline = now_seconds() + 15;
  kill(server->pid, SIGTERM);
  while (waitpid(server->pid, NULL, WNOHANG) == 0) {
    if (now_seconds() > deadline) kill(server->pid, SIGKILL);
    wait_a_little();
  }
  server->pid = 0;
}
