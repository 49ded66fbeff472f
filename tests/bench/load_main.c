/* The load client as a program, for what is not written in C:
 *
 *     load --port N --request FILE [--connections N] [--warm-up S] [--seconds S]
 *
 * FILE holds one whole HTTP request. The result is a line of JSON. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/buffer.h"
#include "codec/file.h"
#include "load.h"

struct command {
  struct load_plan plan;
  const char *request_file;
};

static bool read_command(struct command *command, int argc, char **argv) {
  static const struct option options[] = {
      {"port", required_argument, NULL, 'p'},        {"request", required_argument, NULL, 'r'},
      {"connections", required_argument, NULL, 'c'}, {"warm-up", required_argument, NULL, 'w'},
      {"seconds", required_argument, NULL, 's'},     {NULL, 0, NULL, 0}};
  int option;
  while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
    if (option == 'p')
      command->plan.port = (uint16_t)strtoul(optarg, NULL, 10);
    else if (option == 'r')
      command->request_file = optarg;
    else if (option == 'c')
      command->plan.connections = (unsigned)strtoul(optarg, NULL, 10);
    else if (option == 'w')
      command->plan.warm_up = strtod(optarg, NULL);
    else if (option == 's')
      command->plan.seconds = strtod(optarg, NULL);
    else
      return false;
  }
  return optind == argc && command->plan.port > 0 && command->request_file &&
         command->plan.connections > 0 && command->plan.seconds > 0;
}

int main(int argc, char **argv) {
  struct command command = {.plan = {.connections = 1, .warm_up = 0.2, .seconds = 1}};
  struct load_result result;
  struct buffer request;
  char error[256];
  if (!read_command(&command, argc, argv)) {
    fprintf(stderr,
            "usage: %s --port N --request FILE [--connections N] [--warm-up S] [--seconds S]\n",
            argv[0]);
    return 2;
  }
  buffer_init(&request, 0);
  if (!file_read(command.request_file, &request, error, sizeof error)) {
    fprintf(stderr, "load: %s\n", error);
    return EXIT_FAILURE;
  }
  command.plan.request = request.data;
  command.plan.request_length = request.length;
  const bool done = load_run(&command.plan, &result);
  buffer_free(&request);
  if (!done) {
    fprintf(stderr, "load: %s\n", result.fault);
    return EXIT_FAILURE;
  }
  printf("{\"requests\": %zu, \"rate\": %.6g, \"p50\": %.6g, \"p99\": %.6g, \"most\": %.6g}\n",
         result.requests, result.rate, result.p50, result.p99, result.most);
  return EXIT_SUCCESS;
}
