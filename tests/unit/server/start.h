/* A start of the daemon, as far as its options go: arguments, environment and
 * file are made up, the process' own play no part. Names, kinds and ranges of
 * the options come from OPTION_LIST by the shortest way, so that the table
 * which the options are read with is not judged by itself. */
#ifndef TESTS_UNIT_SERVER_START_H
#define TESTS_UNIT_SERVER_START_H

#include <ctype.h>

#include "options.h"
#include "unit.h"

struct start {
  const char *arguments[12]; /* without the program's name */
  const char *environment[6];
  const char *file; /* content; NULL: no --config */
};

enum { PATH_ROOM = 200 };

struct outcome {
  enum options_action action;
  struct options options;
  char path[PATH_ROOM]; /* of the file */
  char error[600];
};

static inline const char *scratch_folder(void) {
  const char *folder = getenv("TMPDIR");
  return folder && *folder ? folder : P_tmpdir;
}

static inline void write_file(const char *content, char path[PATH_ROOM]) {
  snprintf(path, PATH_ROOM, "%s/test-options-XXXXXX", scratch_folder());
  int descriptor = mkstemp(path);
  ck_assert_int_ge(descriptor, 0);
  ck_assert_int_eq(write(descriptor, content, strlen(content)), (ssize_t)strlen(content));
  close(descriptor);
}

static inline struct outcome *run(const struct start *start) {
  struct outcome *outcome = calloc(1, sizeof *outcome);
  char *argv[20] = {strdup("attentiond")}, *environment[8] = {NULL};
  int argc = 1, variables = 0;
  for (; start->arguments[argc - 1]; argc++)
    argv[argc] = strdup(start->arguments[argc - 1]);
  for (; start->environment[variables]; variables++)
    environment[variables] = strdup(start->environment[variables]);
  if (start->file) {
    write_file(start->file, outcome->path);
    argv[argc++] = strdup("--config");
    argv[argc++] = strdup(outcome->path);
  }
  memset(outcome->error, '#', sizeof outcome->error);
  outcome->action = options_read(&outcome->options, argc, argv, environment, outcome->error,
                                 sizeof outcome->error);
  ck_assert_uint_lt(strnlen(outcome->error, sizeof outcome->error), sizeof outcome->error);
  ck_assert((outcome->action == OPTIONS_FAILED) == (outcome->error[0] != '\0'));
  for (const char *c = outcome->error; *c; c++)
    ck_assert((unsigned char)*c >= ' ' && *c != 0x7F);
  for (int i = 0; i < argc; i++)
    free(argv[i]);
  for (int i = 0; i < variables; i++)
    free(environment[i]);
  if (start->file) unlink(outcome->path);
  return outcome;
}

#define RUN(...) run(&(const struct start){__VA_ARGS__})

static inline void drop(struct outcome *outcome) {
  options_free(&outcome->options);
  free(outcome);
}

/* What a function prints to standard output; to be freed. */
static inline char *printed_by(void (*print)(const struct options *options),
                               const struct options *options) {
  int scratch = open_scratch();
  fflush(stdout);
  int kept = dup(STDOUT_FILENO);
  ck_assert_int_ge(dup2(scratch, STDOUT_FILENO), 0);
  print(options);
  fflush(stdout);
  dup2(kept, STDOUT_FILENO);
  close(kept);
  char *text = read_scratch(scratch);
  close(scratch);
  return text;
}

/* ---- Names and values of every option ---- */

enum kind { TEXT, INTEGER, BOOLEAN, CHOICE, JSON };

struct entry {
  const char *name;
  enum kind kind;
  const char *standard, *least, *most, *help;
};
static const struct entry entries[] = {
#define ENTRY(member, type, standard, least, most, unit, help)                                     \
  {#member, type, standard, #least, #most, help},
    OPTION_LIST(ENTRY)
#undef ENTRY
};
enum { ENTRIES = sizeof entries / sizeof entries[0] };

static inline void spell(char *out, const char *prefix, const char *name, char underscore,
                         bool capitals) {
  out += sprintf(out, "%s", prefix);
  for (; *name; name++)
    *out++ = *name == '_' ? underscore : capitals ? (char)toupper((unsigned char)*name) : *name;
  *out = '\0';
}

#endif
