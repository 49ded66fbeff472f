/* The options as people see them: --help in columns as wide as the table needs
 * them, --print-config as a file that says the same as all sources together
 * did. Both go straight to standard output through stdio; whoever calls flushes
 * it and sees whether that worked. */
#include <stdio.h>
#include <string.h>

#include "base/json_escape.h"
#include "options_table.h"

/* ---- --help ---- */

enum { PAGE = 100, GAP = 2 };

/* Prints words from column `indent` on, each line at most PAGE wide; the
 * cursor is at `column` to begin with. */
static void print_words(const char *text, int indent, int column) {
  while (*text) {
    int word = (int)strcspn(text, " ");
    if (column > indent && column + 1 + word > PAGE) {
      putchar('\n');
      column = 0;
    }
    int blanks = column < indent ? indent - column : column > indent;
    printf("%*s%.*s", blanks, "", word, text);
    column += blanks + word;
    text += word;
    text += strspn(text, " ");
  }
  putchar('\n');
}

static void default_text(const struct option_info *info, char *text, size_t size) {
  snprintf(text, size, "%s", *info->default_text ? info->default_text : "\"\"");
}

static void range_text(const struct option_info *info, char *text, size_t size) {
  text[0] = '\0';
  if (info->kind == OPTION_KIND_INTEGER)
    snprintf(text, size, "%lld to %lld%s%s", (long long)info->least, (long long)info->most,
             *info->unit ? " " : "", info->unit);
  else if (info->kind == OPTION_KIND_CHOICE)
    snprintf(text, size, "%s", info->choices);
  else if (info->kind == OPTION_KIND_BOOLEAN)
    snprintf(text, size, "true|false");
}

struct columns {
  int flag, standard, range; /* widths */
};

static void widen(int *width, const char *text) {
  if ((int)strlen(text) > *width) *width = (int)strlen(text);
}

static struct columns measure(void) {
  struct columns columns = {0, (int)strlen("default"), (int)strlen("range")};
  char text[128];
  for (size_t i = 0; i < OPTION_COUNT; i++) {
    option_spell(text, option_infos[i].name, OPTION_AS_FLAG);
    widen(&columns.flag, text);
    default_text(&option_infos[i], text, sizeof text);
    widen(&columns.standard, text);
    range_text(&option_infos[i], text, sizeof text);
    widen(&columns.range, text);
  }
  return columns;
}

static int print_cell(const char *text, int width) {
  return printf("%*s%-*s", GAP, "", width, text);
}

static void print_row(const struct columns *columns, const char *flag, const char *standard,
                      const char *range, const char *help) {
  int column = print_cell(flag, columns->flag);
  column += print_cell(standard, columns->standard);
  column += print_cell(range, columns->range);
  print_words(help, column + GAP, column);
}

static void print_action(const struct columns *columns, const char *flag, const char *help) {
  int column = print_cell(flag, columns->flag);
  print_words(help, column + GAP, column);
}

void options_print_help(void) {
  const struct columns columns = measure();
  char flag[OPTION_NAME_MAX], standard[128], range[128];
  print_words("Usage: attentiond [--NAME VALUE | --NAME=VALUE]...", 0, 0);
  putchar('\n');
  print_words("Every option can be given as a flag (--listen-port 8080), as an environment "
              "variable (" OPTION_ENVIRONMENT_PREFIX "LISTEN_PORT=8080) or as a member of the "
              "JSON file (\"listen_port\": 8080). Flags win over the environment, the "
              "environment wins over the file.",
              0, 0);
  putchar('\n');
  print_row(&columns, "", "default", "range", "meaning");
  for (size_t i = 0; i < OPTION_COUNT; i++) {
    option_spell(flag, option_infos[i].name, OPTION_AS_FLAG);
    default_text(&option_infos[i], standard, sizeof standard);
    range_text(&option_infos[i], range, sizeof range);
    print_row(&columns, flag, standard, range, option_infos[i].help);
  }
  putchar('\n');
  print_action(&columns, "--config FILE",
               "read the JSON file first; also " OPTION_ENVIRONMENT_PREFIX "CONFIG");
  print_action(&columns, "--restore FILE", "make a backup the store of data_dir and stop");
  for (size_t i = 0; i < ACTION_COUNT; i++) {
    option_spell(flag, action_infos[i].name, OPTION_AS_FLAG);
    print_action(&columns, flag, action_infos[i].help);
  }
}

/* ---- --print-config ---- */

static void print_string(const char *text, size_t length) {
  putchar('"');
  for (size_t at = 0; at < length;) {
    char escaped[JSON_ESCAPE_MAX];
    size_t written;
    at += json_escape_step(text + at, length - at, escaped, &written);
    fwrite(escaped, 1, written, stdout);
  }
  putchar('"');
}

static void print_choice(const struct option_info *info, const void *member) {
  size_t length;
  const char *word = option_choice(info, *(const int *)member, &length);
  print_string(word, length);
}

static void print_value(const struct options *options, const struct option_info *info) {
  const void *member = option_member(options, info);
  switch (info->kind) {
  case OPTION_KIND_TEXT:
    print_string(*(char *const *)member, strlen(*(char *const *)member));
    break;
  case OPTION_KIND_INTEGER:
    printf("%lld", (long long)*(const int64_t *)member);
    break;
  case OPTION_KIND_BOOLEAN:
    fputs(*(const bool *)member ? "true" : "false", stdout);
    break;
  case OPTION_KIND_CHOICE:
    print_choice(info, member);
    break;
  case OPTION_KIND_JSON:
    fputs(*(char *const *)member, stdout);
    break;
  }
}

void options_print_config(const struct options *options) {
  for (size_t i = 0; i < OPTION_COUNT; i++) {
    printf("%s  \"%s\": ", i == 0 ? "{\n" : ",\n", option_infos[i].name);
    print_value(options, &option_infos[i]);
  }
  fputs("\n}\n", stdout);
}
