/* Servers that the bench starts, as processes of their own. */
#ifndef BENCH_PROCESS_H
#define BENCH_PROCESS_H

#include <stdint.h>
#include <sys/types.h>

struct server {
  pid_t pid;
  uint16_t port; /* on 127.0.0.1 */
};

enum { SERVER_ARGUMENTS_MAX = 24 };

/* Starts a program with the arguments (NULL at the end, without the program's
 * name) and --port-file FILE, and waits for that file. Ends the bench where it
 * does not come. The server dies with the thread that started it. */
struct server server_start(const char *program, const char *const *arguments);

/* What all its threads have spent of the cores' time so far, in seconds. */
double server_cpu(const struct server *server);

/* SIGTERM, and the wait for its end. */
void server_stop(struct server *server);

#endif
