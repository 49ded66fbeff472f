/* OPTION_LIST as data, for options.c, which reads values into it, and
 * options_print.c, which shows it. Private to the two. */
#ifndef OPTIONS_TABLE_H
#define OPTIONS_TABLE_H

#include "options.h"

enum option_kind {
  OPTION_KIND_TEXT,
  OPTION_KIND_INTEGER,
  OPTION_KIND_BOOLEAN,
  OPTION_KIND_CHOICE,
  OPTION_KIND_JSON
};

struct option_info {
  const char *name; /* as the file has it */
  enum option_kind kind;
  const char *default_text;
  int64_t least, most; /* of an INTEGER */
  const char *choices; /* of a CHOICE, "a|b|c" */
  const char *unit, *help;
  size_t offset; /* of the member in struct options */
};

enum {
#define OPTION_INDEX(member, ...) OPTION_INDEX_##member,
  OPTION_LIST(OPTION_INDEX)
#undef OPTION_INDEX
      OPTION_COUNT
};
extern const struct option_info option_infos[OPTION_COUNT];

/* What a flag can ask for besides setting an option. */
struct action_info {
  const char *name; /* "print_config" */
  enum options_action action;
  const char *help;
};
enum { ACTION_COUNT = 5 };
extern const struct action_info action_infos[ACTION_COUNT];

/* One name, three spellings: listen_port, ATTENTIOND_LISTEN_PORT,
 * --listen-port. */
enum option_form { OPTION_IN_FILE, OPTION_IN_ENVIRONMENT, OPTION_AS_FLAG };

#define OPTION_NAME_MAX           64
#define OPTION_ENVIRONMENT_PREFIX "ATTENTIOND_"

void option_spell(char spelt[OPTION_NAME_MAX], const char *name, enum option_form form);

/* The option or action that is spelt so; NULL where there is none. */
const struct option_info *option_find(const char *spelt, size_t length, enum option_form form);
const struct action_info *action_find(const char *spelt, size_t length);

/* The name (not yet spelt) that somebody who wrote `spelt` probably meant;
 * NULL where nothing is near. */
const char *option_suggest(const char *spelt, size_t length, enum option_form form);

/* Reads `value` into the option's member. False where it is not one that the
 * option takes, or where memory for a copy is short (then *no_memory). */
bool option_set(struct options *options, const struct option_info *info, const char *value,
                bool *no_memory);

/* Word number `index` of a CHOICE, of that length: it ends at a '|'. */
const char *option_choice(const struct option_info *info, int index, size_t *length);

/* Where the option's member lies. */
void *option_member(const struct options *options, const struct option_info *info);

/* "a whole number from 1 to 3600 s", "true or false", ... */
void option_describe(const struct option_info *info, char *text, size_t size);

#endif
