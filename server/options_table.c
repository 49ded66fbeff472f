/* The table that OPTION_LIST makes, the spellings of its names, and the values
 * that its entries take. Everything here is the same for a file, a variable
 * and a flag; who said what, and in which order, is options.c's business. */
#include "options_table.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RANGE_TEXT(least, most)    0, 0, ""
#define RANGE_INTEGER(least, most) (least), (most), ""
#define RANGE_BOOLEAN(least, most) 0, 0, ""
#define RANGE_CHOICE(least, most)  0, 0, (most)
#define RANGE_JSON(least, most)    0, 0, ""

const struct option_info option_infos[OPTION_COUNT] = {
#define OPTION_INFO(member, type, default_text, least, most, unit, help)                           \
  {#member,                                                                                        \
   OPTION_KIND_##type,                                                                             \
   default_text,                                                                                   \
   RANGE_##type(least, most),                                                                      \
   unit,                                                                                           \
   help,                                                                                           \
   offsetof(struct options, member)},
    OPTION_LIST(OPTION_INFO)
#undef OPTION_INFO
};

const struct action_info action_infos[ACTION_COUNT] = {
    {"help", OPTIONS_HELP, "print this and stop; also -h"},
    {"version", OPTIONS_VERSION, "print the version and stop"},
    {"check_config", OPTIONS_CHECK_CONFIG, "check the configuration and stop"},
    {"print_config", OPTIONS_PRINT_CONFIG, "print the configuration in force as JSON and stop"},
    {"healthcheck", OPTIONS_HEALTHCHECK, "ask the running daemon; exit 0 if it is alive, else 1"},
};

/* ---- Names ---- */

/* "_", "-" and capitals: how a letter of a name is spelt. */
static char spell_letter(char letter, enum option_form form) {
  if (form == OPTION_IN_ENVIRONMENT) return (char)toupper((unsigned char)letter);
  return form == OPTION_AS_FLAG && letter == '_' ? '-' : letter;
}

static const char *prefix_of(enum option_form form) {
  switch (form) {
  case OPTION_IN_ENVIRONMENT:
    return OPTION_ENVIRONMENT_PREFIX;
  case OPTION_AS_FLAG:
    return "--";
  case OPTION_IN_FILE:
    break;
  }
  return "";
}

void option_spell(char spelt[OPTION_NAME_MAX], const char *name, enum option_form form) {
  size_t length = (size_t)snprintf(spelt, OPTION_NAME_MAX, "%s", prefix_of(form));
  for (; *name && length < OPTION_NAME_MAX - 1; name++)
    spelt[length++] = spell_letter(*name, form);
  spelt[length] = '\0';
}

static bool is_spelt(const char *name, const char *spelt, size_t length, enum option_form form) {
  char expected[OPTION_NAME_MAX];
  option_spell(expected, name, form);
  return strlen(expected) == length && memcmp(expected, spelt, length) == 0;
}

const struct option_info *option_find(const char *spelt, size_t length, enum option_form form) {
  for (size_t i = 0; i < OPTION_COUNT; i++)
    if (is_spelt(option_infos[i].name, spelt, length, form)) return &option_infos[i];
  return NULL;
}

const struct action_info *action_find(const char *spelt, size_t length) {
  if (length == 2 && memcmp(spelt, "-h", 2) == 0) return &action_infos[0];
  for (size_t i = 0; i < ACTION_COUNT; i++)
    if (is_spelt(action_infos[i].name, spelt, length, OPTION_AS_FLAG)) return &action_infos[i];
  return NULL;
}

/* ---- Suggestions ---- */

/* Levenshtein's distance: how many letters to put in, take out or change. Both
 * are shorter than OPTION_NAME_MAX. */
static size_t distance(const char *a, const char *b) {
  size_t row[OPTION_NAME_MAX];
  size_t length = strlen(b);
  for (size_t j = 0; j <= length; j++)
    row[j] = j;
  for (size_t i = 0; a[i]; i++) {
    size_t diagonal = row[0];
    row[0] = i + 1;
    for (size_t j = 0; j < length; j++) {
      size_t change = diagonal + (a[i] != b[j]);
      size_t gap = (row[j] < row[j + 1] ? row[j] : row[j + 1]) + 1;
      diagonal = row[j + 1];
      row[j + 1] = change < gap ? change : gap;
    }
  }
  return row[length];
}

struct search {
  char wanted[OPTION_NAME_MAX]; /* as a file would spell it */
  const char *nearest;
  size_t distance;
};

/* `--port` is seven letters away from listen_port and yet says enough: the last
 * word of a name is what it is about. */
static bool is_last_word(const char *word, const char *name) {
  const char *last = strrchr(name, '_');
  return last && strcmp(last + 1, word) == 0;
}

static void consider(struct search *search, const char *name) {
  size_t away = distance(search->wanted, name);
  size_t near = strlen(search->wanted) / 3;
  if (near < 2) near = 2; /* two letters that changed places */
  if (is_last_word(search->wanted, name)) near = OPTION_NAME_MAX;
  if (away <= near && (!search->nearest || away < search->distance)) {
    search->nearest = name;
    search->distance = away;
  }
}

const char *option_suggest(const char *spelt, size_t length, enum option_form form) {
  struct search search = {.nearest = NULL};
  size_t skip = strlen(prefix_of(form));
  if (length <= skip || length - skip >= OPTION_NAME_MAX) return NULL;
  for (size_t i = skip; i < length; i++)
    search.wanted[i - skip] = spelt[i] == '-' ? '_' : (char)tolower((unsigned char)spelt[i]);
  search.wanted[length - skip] = '\0';
  for (size_t i = 0; i < OPTION_COUNT; i++)
    consider(&search, option_infos[i].name);
  if (form != OPTION_IN_FILE) consider(&search, "config");
  if (form == OPTION_AS_FLAG) consider(&search, "restore");
  for (size_t i = 0; i < ACTION_COUNT && form == OPTION_AS_FLAG; i++)
    consider(&search, action_infos[i].name);
  return search.nearest;
}

/* ---- Values ---- */

void *option_member(const struct options *options, const struct option_info *info) {
  return (char *)(uintptr_t)options + info->offset;
}

/* Plain digits with a sign at most: strtoll alone would also take blanks. */
static bool read_integer(const char *text, int64_t least, int64_t most, int64_t *value) {
  const char *digits = text + (*text == '-');
  if (*digits == '\0' || digits[strspn(digits, "0123456789")] != '\0') return false;
  errno = 0;
  long long number = strtoll(text, NULL, 10);
  *value = number;
  return errno == 0 && number >= least && number <= most;
}

static bool read_boolean(const char *text, bool *value) {
  *value = strcmp(text, "true") == 0 || strcmp(text, "1") == 0;
  return *value || strcmp(text, "false") == 0 || strcmp(text, "0") == 0;
}

static bool read_choice(const char *text, const char *choices, int *value) {
  size_t length = strlen(text);
  *value = 0;
  for (const char *choice = choices;; choice++, ++*value) {
    size_t end = strcspn(choice, "|");
    if (end == length && memcmp(choice, text, length) == 0) return true;
    choice += end;
    if (*choice == '\0') return false;
  }
}

const char *option_choice(const struct option_info *info, int index, size_t *length) {
  const char *word = info->choices;
  for (; index > 0; index--)
    word += strcspn(word, "|") + 1;
  *length = strcspn(word, "|");
  return word;
}

void options_choice(const struct options *options, const char *name, char *word, size_t size) {
  const struct option_info *info = option_find(name, strlen(name), OPTION_IN_FILE);
  size_t length;
  const char *choice = option_choice(info, *(const int *)option_member(options, info), &length);
  snprintf(word, size, "%.*s", (int)length, choice);
}

static bool set_text(char **member, const char *value, bool *no_memory) {
  char *copy = strdup(value);
  *no_memory = copy == NULL;
  if (!copy) return false;
  free(*member);
  *member = copy;
  return true;
}

bool option_set(struct options *options, const struct option_info *info, const char *value,
                bool *no_memory) {
  void *member = option_member(options, info);
  int64_t integer;
  bool boolean;
  int choice;
  *no_memory = false;
  switch (info->kind) {
  case OPTION_KIND_INTEGER:
    if (!read_integer(value, info->least, info->most, &integer)) return false;
    *(int64_t *)member = integer;
    return true;
  case OPTION_KIND_BOOLEAN:
    if (!read_boolean(value, &boolean)) return false;
    *(bool *)member = boolean;
    return true;
  case OPTION_KIND_CHOICE:
    if (!read_choice(value, info->choices, &choice)) return false;
    *(int *)member = choice;
    return true;
  case OPTION_KIND_TEXT:
  case OPTION_KIND_JSON:
    break;
  }
  return set_text(member, value, no_memory);
}

void option_describe(const struct option_info *info, char *text, size_t size) {
  switch (info->kind) {
  case OPTION_KIND_INTEGER:
    snprintf(text, size, "a whole number from %lld to %lld%s%s", (long long)info->least,
             (long long)info->most, *info->unit ? " " : "", info->unit);
    break;
  case OPTION_KIND_BOOLEAN:
    snprintf(text, size, "true or false");
    break;
  case OPTION_KIND_CHOICE:
    snprintf(text, size, "one of %s", info->choices);
    break;
  case OPTION_KIND_TEXT:
  case OPTION_KIND_JSON:
    snprintf(text, size, "text");
    break;
  }
}
