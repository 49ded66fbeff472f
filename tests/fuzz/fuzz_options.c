/* Any bytes as what the daemon is started with, line by line: a line that begins with
 * `a` is an argument, with `e` a variable of the environment; from one that begins
 * with `f`, all the rest is the configuration file. What must be true:
 *
 *  - a refusal is one line of valid UTF-8 without control characters;
 *  - what is taken is printed, by --print-config, as a file that gives the same again,
 *    and each number of it is within the limits of its option;
 *  - flags win over the environment: the last --name=value of an option is its value. */
#include <ctype.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/utf8.h"
#include "fuzz.h"
#include "options_table.h"

enum { MOST_BYTES = 4096, MOST_ITEMS = 64, ERROR_BYTES = 512 };

struct start {
  char text[MOST_BYTES + 1];
  char *arguments[MOST_ITEMS + 4], *variables[MOST_ITEMS + 1];
  int argument_count, variable_count;
  int file; /* in memory, and a path to it; -1: none */
  char path[64];
};

/* ---- The input ---- */

static void make_file(struct start *start, const char *text, size_t length) {
  start->file = memfd_create("config", MFD_CLOEXEC);
  REQUIRE(start->file >= 0 && write(start->file, text, length) == (ssize_t)length);
  snprintf(start->path, sizeof start->path, "--config=/proc/self/fd/%d", start->file);
  start->arguments[start->argument_count++] = start->path;
}

static void read_start(struct start *start, const uint8_t *data, size_t size) {
  static char program[] = "attentiond";
  *start = (struct start){.file = -1, .arguments = {program}, .argument_count = 1};
  memcpy(start->text, data, size);
  char *rest = start->text, *line;
  const char *end = start->text + size;
  while (rest && rest < end && *rest != 'f' && (line = strsep(&rest, "\n"))) {
    if (*line == 'a' && start->argument_count < MOST_ITEMS)
      start->arguments[start->argument_count++] = line + 1;
    else if (*line == 'e' && start->variable_count < MOST_ITEMS)
      start->variables[start->variable_count++] = line + 1;
  }
  if (rest && rest < end && *rest == 'f') make_file(start, rest + 1, (size_t)(end - rest - 1));
}

/* ---- What was read ---- */

static void check_refusal(const char *error) {
  const size_t length = strlen(error);
  REQUIRE(length >= 1 && length < ERROR_BYTES);
  for (size_t i = 0; i < length; i++)
    REQUIRE(!iscntrl((unsigned char)error[i]));
  REQUIRE(utf8_valid(error, length));
}

static void check_ranges(const struct options *options) {
  for (size_t i = 0; i < OPTION_COUNT; i++) {
    const struct option_info *info = &option_infos[i];
    const void *member = option_member(options, info);
    if (info->kind != OPTION_KIND_INTEGER) continue;
    REQUIRE(*(const int64_t *)member >= info->least && *(const int64_t *)member <= info->most);
  }
}

static bool same_text(const char *a, const char *b) {
  return strcmp(a, b) == 0;
}

/* Of what was printed, texts that are no UTF-8 have lost their odd bytes. */
static void check_same(const struct options *a, const struct options *b) {
  for (size_t i = 0; i < OPTION_COUNT; i++) {
    const struct option_info *info = &option_infos[i];
    const void *left = option_member(a, info), *right = option_member(b, info);
    switch (info->kind) {
    case OPTION_KIND_INTEGER:
      REQUIRE(*(const int64_t *)left == *(const int64_t *)right);
      break;
    case OPTION_KIND_BOOLEAN:
      REQUIRE(*(const bool *)left == *(const bool *)right);
      break;
    case OPTION_KIND_CHOICE:
      REQUIRE(*(const int *)left == *(const int *)right);
      break;
    case OPTION_KIND_TEXT:
      if (utf8_valid(*(char *const *)left, strlen(*(char *const *)left)))
        REQUIRE(same_text(*(char *const *)left, *(char *const *)right));
      break;
    case OPTION_KIND_JSON: /* what is no JSON is refused later: see preload_parse() */
      break;
    }
  }
}

/* --print-config writes to stdout, which glibc lets us lend a stream of our own. */
static char *print(const struct options *options, size_t *length) {
  char *text = NULL;
  FILE *stream = open_memstream(&text, length), *output = stdout;
  REQUIRE(stream != NULL);
  stdout = stream;
  options_print_config(options);
  stdout = output;
  REQUIRE(fclose(stream) == 0);
  return text;
}

static bool has_json(const struct options *options) {
  return strcmp(options->memories, "[]") != 0;
}

static void check_printed(const struct options *options) {
  struct start again = {.file = -1, .arguments = {""}, .argument_count = 1};
  struct options same;
  size_t length;
  char error[ERROR_BYTES], *text = print(options, &length);
  make_file(&again, text, length);
  const enum options_action action =
      options_read(&same, again.argument_count, again.arguments, NULL, error, sizeof error);
  /* `memories` is printed as it came, which need not be JSON */
  if (!has_json(options)) REQUIRE(action == OPTIONS_RUN);
  if (action == OPTIONS_RUN) check_same(options, &same);
  options_free(&same);
  close(again.file);
  free(text);
}

/* ---- Flags win ---- */

/* --listen-port=1: the option's, and its value; NULL where it is none such. */
static const struct option_info *flag_of(const char *argument, const char **value) {
  char name[OPTION_NAME_MAX];
  const char *equals = strchr(argument, '=');
  if (strncmp(argument, "--", 2) != 0 || !equals) return NULL;
  if ((size_t)(equals - argument - 2) >= sizeof name) return NULL;
  size_t length = 0;
  for (const char *c = argument + 2; c < equals; c++) {
    if (*c == '_') return NULL;
    name[length++] = *c == '-' ? '_' : *c;
  }
  name[length] = '\0';
  *value = equals + 1;
  for (size_t i = 0; i < OPTION_COUNT; i++)
    if (strcmp(option_infos[i].name, name) == 0) return &option_infos[i];
  return NULL;
}

static void check_value(const struct options *options, const struct option_info *info,
                        const char *value) {
  const void *member = option_member(options, info);
  if (info->kind == OPTION_KIND_INTEGER)
    REQUIRE(*(const int64_t *)member == strtoll(value, NULL, 10));
  else if (info->kind == OPTION_KIND_BOOLEAN)
    REQUIRE(*(const bool *)member == (strcmp(value, "true") == 0 || strcmp(value, "1") == 0));
  else if (info->kind == OPTION_KIND_TEXT || info->kind == OPTION_KIND_JSON)
    REQUIRE(strcmp(*(char *const *)member, value) == 0);
}

/* Of arguments that are all like --name=value: in others one may be the value of the
 * one in front of it. */
static void check_flags(const struct options *options, const struct start *start) {
  for (int i = 1; i < start->argument_count; i++)
    if (!strchr(start->arguments[i], '=')) return;
  for (int i = 1; i < start->argument_count; i++) {
    const char *value, *later;
    const struct option_info *info = flag_of(start->arguments[i], &value);
    bool last = true;
    for (int j = i + 1; j < start->argument_count; j++)
      last = last && flag_of(start->arguments[j], &later) != info;
    if (info && last) check_value(options, info, value);
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct start start;
  struct options options;
  char error[ERROR_BYTES];
  if (size > MOST_BYTES) return 0;
  read_start(&start, data, size);
  const enum options_action action = options_read(&options, start.argument_count, start.arguments,
                                                  start.variables, error, sizeof error);
  if (action == OPTIONS_FAILED) {
    check_refusal(error);
  } else if (action != OPTIONS_HELP && action != OPTIONS_VERSION) {
    REQUIRE(error[0] == '\0');
    check_ranges(&options);
    check_flags(&options, &start);
    check_printed(&options);
  }
  options_free(&options);
  if (start.file >= 0) close(start.file);
  return 0;
}
