/* The options: one table (OPTION_LIST) gives each its name, type, default,
 * range, unit and help; the file, the environment, the flags, --help,
 * --print-config and the table of docs/operating.md come from it or are checked against
 * it. Adding one is a line here and its use. */
#ifndef OPTIONS_H
#define OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* X(member, type, default, least, most, unit, help)
 * type: TEXT, INTEGER, BOOLEAN, CHOICE (most is then "a|b|c"), JSON. The name
 * in the file is the member's, the flag has '-' for '_', the environment
 * variable is ATTENTIOND_ and capitals. */
#define OPTION_LIST(X)                                                                             \
  X(listen_address, TEXT, "127.0.0.1", 0, 0, "", "numeric address to listen on")                   \
  X(listen_port, INTEGER, "8080", 0, 65535, "", "port; 0 takes any free one")                      \
  X(port_file, TEXT, "", 0, 0, "", "file that gets the port, once listening")                      \
  X(insecure, BOOLEAN, "false", 0, 0, "", "allow an address beyond loopback without API keys")     \
  X(data_dir, TEXT, "./attentiond-data", 0, 0, "",                                                 \
    "folder of the durable store; empty keeps all in RAM")                                         \
  X(max_ram_bytes, INTEGER, "0", 0, 1125899906842624, "bytes",                                     \
    "RAM for all memories together; 0 sets no limit")                                              \
  X(max_memories, INTEGER, "10000", 1, 10000000, "", "memories there may be")                      \
  X(max_rows, INTEGER, "1000000000", 1, 1099511627776, "", "rows of a memory")                     \
  X(max_dim, INTEGER, "65536", 1, 1048576, "", "numbers of a key or a value")                      \
  X(threads, INTEGER, "0", 0, 1024, "", "workers that compute; 0 takes one per core")              \
  X(kernels, CHOICE, "auto", 0, "auto|portable|avx2|avx512|neon", "",                              \
    "instruction set to compute with; auto takes the best")                                        \
  X(huge_pages, BOOLEAN, "true", 0, 0, "",                                                         \
    "move memories that stay into huge pages, if the system has them")                             \
  X(io_threads, INTEGER, "2", 1, 64, "", "threads that read and write sockets")                    \
  X(max_connections, INTEGER, "1024", 1, 100000, "", "connections served at once")                 \
  X(max_queue, INTEGER, "1024", 1, 1000000, "", "requests that may wait for a worker")             \
  X(max_body_bytes, INTEGER, "268435456", 1024, 1099511627776, "bytes", "largest request body")    \
  X(max_reply_bytes, INTEGER, "268435456", 1024, 1099511627776, "bytes", "largest reply body")     \
  X(head_timeout, INTEGER, "10", 1, 3600, "s", "time for a whole request head")                    \
  X(body_timeout, INTEGER, "30", 1, 3600, "s",                                                     \
    "time for a body or a reply, besides 1 s per 64 KiB that passed")                              \
  X(idle_timeout, INTEGER, "60", 1, 3600, "s", "time a connection may idle between requests")      \
  X(request_timeout, INTEGER, "60", 1, 86400, "s",                                                 \
    "time for an answer, if the request has no timeout_ms")                                        \
  X(stop_timeout, INTEGER, "8", 1, 3600, "s", "time for requests under way after SIGTERM")         \
  X(log_level, CHOICE, "info", 0, "debug|info|warning|error", "", "least level that is logged")    \
  X(log_format, CHOICE, "json", 0, "json|text", "", "form of a log line")                          \
  X(memories, JSON, "[]", 0, 0, "", "memories to load at start")

struct options {
#define OPTION_TEXT(member)              char *member;
#define OPTION_INTEGER(member)           int64_t member;
#define OPTION_BOOLEAN(member)           bool member;
#define OPTION_CHOICE(member)            int member; /* index into the choices */
#define OPTION_JSON(member)              char *member;
#define OPTION_MEMBER(member, type, ...) OPTION_##type(member)
  OPTION_LIST(OPTION_MEMBER)
#undef OPTION_MEMBER
#undef OPTION_TEXT
#undef OPTION_INTEGER
#undef OPTION_BOOLEAN
#undef OPTION_CHOICE
#undef OPTION_JSON
  const char *restore_file; /* of --restore FILE: the argument itself; else NULL */
  char *config_folder;      /* of --config FILE, "" without: where relative paths start */
};

enum options_action {
  OPTIONS_RUN,
  OPTIONS_FAILED,       /* `error` has one clear line: exit 2 */
  OPTIONS_HELP,         /* --help, -h */
  OPTIONS_VERSION,      /* --version */
  OPTIONS_CHECK_CONFIG, /* --check-config: everything was valid */
  OPTIONS_PRINT_CONFIG, /* --print-config: as a JSON file that can be given back */
  OPTIONS_HEALTHCHECK,  /* --healthcheck: ask the running daemon, exit 0 or 1 */
  OPTIONS_RESTORE       /* --restore FILE: a backup becomes the store of data_dir */
};

/* Defaults, then the file named by --config, then the environment, then the
 * flags (--name value, --name=value; a boolean flag may stand alone): the later
 * wins. The strings in options are owned by it. */
enum options_action options_read(struct options *options, int argc, char **argv, char **environment,
                                 char *error, size_t error_size);
void options_free(struct options *options);

/* The word of the CHOICE option `name`, cut to `size`. */
void options_choice(const struct options *options, const char *name, char *word, size_t size);

/* To standard output. */
void options_print_help(void);
void options_print_config(const struct options *options);

#endif
