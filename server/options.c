/* Where the options' values come from, and in which order.
 *
 * The flags are walked twice. The first walk only looks: for --config, which
 * may stand anywhere and has to be read before the other flags count, and for
 * --help and --version, which must work whatever the file and the environment
 * hold. The second walk sets. getopt_long was rejected: it prints messages of
 * its own, accepts abbreviations, which turn into errors when an option is
 * added, and would need the table in yet another form.
 *
 * Every fault becomes one line that names the option, who said it (flag,
 * variable, file), what was said and what would have been right. What was said
 * is shown escaped and cut: it may be anything. The file's name is shown as it is,
 * for whoever copies it, but for what is no text.
 *
 * Each value is checked when it is read, even if a later source replaces it;
 * rules about what the values mean look at the final ones. */
#include "options.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json_escape.h"
#include "base/utf8.h"
#include "codec/config_file.h"
#include "options_table.h"

struct reading {
  struct options *options;
  enum options_action action;
  const char *config; /* the file's name; NULL for none */
  char *error;
  size_t error_size;
};

/* Adds to the error's line. */
static void say(struct reading *reading, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void say(struct reading *reading, const char *format, ...) {
  size_t used = strnlen(reading->error, reading->error_size);
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(reading->error + used, reading->error_size - used, format, arguments);
  va_end(arguments);
}

static bool fail_no_memory(struct reading *reading) {
  say(reading, "out of memory");
  return false;
}

/* Foreign text as an error shows it: in quotes, escaped, not too long. */
struct shown {
  char text[80];
};

static struct shown show(const char *text, size_t length) {
  struct shown shown = {"\""};
  size_t used = 1;
  for (size_t at = 0; at < length;) {
    char escaped[JSON_ESCAPE_MAX];
    size_t written;
    at += json_escape_step(text + at, length - at, escaped, &written);
    if (used + written > sizeof shown.text - 5) {
      memcpy(shown.text + used, "...", 3);
      used += 3;
      break;
    }
    memcpy(shown.text + used, escaped, written);
    used += written;
  }
  shown.text[used] = '"';
  return shown;
}

/* ---- One value, one name ---- */

static bool set_option(struct reading *reading, const struct option_info *info, const char *value,
                       enum option_form form) {
  static const char *const sources[] = {"file", "environment variable", "flag"};
  bool no_memory;
  if (option_set(reading->options, info, value, &no_memory)) return true;
  if (no_memory) return fail_no_memory(reading);
  char expected[160], spelt[OPTION_NAME_MAX];
  option_describe(info, expected, sizeof expected);
  option_spell(spelt, info->name, form);
  const char *source = form == OPTION_IN_FILE ? reading->config : spelt;
  say(reading, "%s (%s %s): ", info->name, sources[form], source);
  say(reading, "expected %s, got %s", expected, show(value, strlen(value)).text);
  return false;
}

static bool fail_unknown(struct reading *reading, const char *spelt, size_t length,
                         enum option_form form) {
  static const char *const kinds[] = {"option", "environment variable", "flag"};
  if (form == OPTION_IN_FILE) say(reading, "%s: ", reading->config);
  say(reading, "unknown %s %s", kinds[form], show(spelt, length).text);
  const char *nearest = option_suggest(spelt, length, form);
  if (nearest) {
    char hint[OPTION_NAME_MAX];
    option_spell(hint, nearest, form);
    say(reading, "; did you mean %s?", hint);
  } else {
    say(reading, "; --help lists what there is");
  }
  return false;
}

static bool set_defaults(struct reading *reading) {
  memset(reading->options, 0, sizeof *reading->options);
  for (size_t i = 0; i < OPTION_COUNT; i++)
    if (!set_option(reading, &option_infos[i], option_infos[i].default_text, OPTION_AS_FLAG))
      return false;
  reading->options->config_folder = strdup("");
  return reading->options->config_folder || fail_no_memory(reading);
}

/* ---- Flags ---- */

static bool is_boolean_text(const char *text) {
  static const char *const texts[] = {"true", "false", "1", "0"};
  for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
    if (strcmp(text, texts[i]) == 0) return true;
  return false;
}

/* The value that belongs to a flag without '=': the next argument, which is
 * then passed over. NULL where there is none. */
static const char *next_value(bool boolean, char **argv, int argc, int *index) {
  const char *next = *index + 1 < argc ? argv[*index + 1] : NULL;
  if (boolean && !(next && is_boolean_text(next))) return "true";
  /* Whoever forgot a value would lose the flag that follows. */
  if (!next || strncmp(next, "--", 2) == 0) return NULL;
  ++*index;
  return next;
}

static bool take_action(struct reading *reading, const struct action_info *action,
                        const char *value) {
  char spelt[OPTION_NAME_MAX];
  reading->action = action->action;
  if (!value) return true;
  option_spell(spelt, action->name, OPTION_AS_FLAG);
  say(reading, "flag %s takes no value, got %s", spelt, show(value, strlen(value)).text);
  return false;
}

static bool fail_argument(struct reading *reading, const char *argument, size_t name_length) {
  if (strncmp(argument, "--", 2) == 0 && name_length > 2)
    return fail_unknown(reading, argument, name_length, OPTION_AS_FLAG);
  say(reading, "unexpected argument %s; --help lists what there is",
      show(argument, strlen(argument)).text);
  return false;
}

static bool is_flag(const char *flag, size_t length, const char *name) {
  return length == strlen(name) && memcmp(flag, name, length) == 0;
}

/* Handles the flag at argv[*index], and moves *index on to its value where
 * that is an argument of its own. */
static bool read_flag(struct reading *reading, char **argv, int argc, int *index, bool setting) {
  const char *flag = argv[*index];
  size_t length = strcspn(flag, "=");
  const char *value = flag[length] == '=' ? flag + length + 1 : NULL;
  const struct action_info *action = action_find(flag, length);
  if (action) return take_action(reading, action, value);
  const bool is_config = is_flag(flag, length, "--config");
  const bool is_restore = is_flag(flag, length, "--restore");
  const struct option_info *info = option_find(flag, length, OPTION_AS_FLAG);
  if (!is_config && !is_restore && !info) return fail_argument(reading, flag, length);
  if (!value) value = next_value(info && info->kind == OPTION_KIND_BOOLEAN, argv, argc, index);
  if (!value) {
    say(reading, "flag %s needs a value (one that begins with -- is given as %s=VALUE)", flag,
        flag);
    return false;
  }
  if (is_config) reading->config = value;
  if (is_restore) {
    reading->options->restore_file = value;
    reading->action = OPTIONS_RESTORE;
  }
  return !info || !setting || set_option(reading, info, value, OPTION_AS_FLAG);
}

static bool stops_early(enum options_action action) {
  return action == OPTIONS_HELP || action == OPTIONS_VERSION;
}

static bool read_flags(struct reading *reading, char **argv, int argc, bool setting) {
  for (int i = 1; i < argc && !stops_early(reading->action); i++)
    if (!read_flag(reading, argv, argc, &i, setting)) return false;
  return true;
}

/* ---- Environment ---- */

/* The value of ATTENTIOND_CONFIG where `variable` is that; else NULL. */
static const char *config_of(const char *variable) {
  static const char config[] = OPTION_ENVIRONMENT_PREFIX "CONFIG=";
  const size_t length = sizeof config - 1;
  return strncmp(variable, config, length) == 0 ? variable + length : NULL;
}

/* Kubernetes gives every container the addresses of the namespace's services;
 * a service named attentiond or attentiond-x puts ATTENTIOND_PORT=tcp://...,
 * ATTENTIOND_SERVICE_HOST, ATTENTIOND_PORT_8080_TCP_ADDR and the like there.
 * They are nobody's misspelling. */
static bool is_service_address(const char *variable, size_t name_length) {
  const char *end = variable + name_length;
  const char *service = memmem(variable, name_length, "_SERVICE_", 9);
  if (service && (strncmp(service + 9, "HOST=", 5) == 0 || strncmp(service + 9, "PORT", 4) == 0))
    return true;
  const char *port = memmem(variable, name_length, "_PORT", 5);
  if (!port) return false;
  if (port + 5 == end) return strstr(end, "://") != NULL;
  return port[5] == '_' && isdigit((unsigned char)port[6]);
}

static bool read_variable(struct reading *reading, const char *variable) {
  size_t length = strcspn(variable, "=");
  if (strncmp(variable, OPTION_ENVIRONMENT_PREFIX, strlen(OPTION_ENVIRONMENT_PREFIX)) != 0 ||
      variable[length] != '=' || config_of(variable))
    return true;
  const struct option_info *info = option_find(variable, length, OPTION_IN_ENVIRONMENT);
  if (info) return set_option(reading, info, variable + length + 1, OPTION_IN_ENVIRONMENT);
  return is_service_address(variable, length) ||
         fail_unknown(reading, variable, length, OPTION_IN_ENVIRONMENT);
}

static bool read_environment(struct reading *reading, char **environment) {
  for (; environment && *environment; environment++)
    if (!read_variable(reading, *environment)) return false;
  return true;
}

static const char *config_from_environment(char **environment) {
  const char *config = NULL;
  for (; environment && *environment && !config; environment++)
    config = config_of(*environment);
  return config;
}

/* ---- File ---- */

static bool set_from_file(void *context, const char *name, const char *value, char *error,
                          size_t error_size) {
  struct reading *reading = context;
  struct reading inner = *reading; /* the same, but with the callback's error */
  inner.error = error;
  inner.error_size = error_size;
  error[0] = '\0';
  const struct option_info *info = option_find(name, strlen(name), OPTION_IN_FILE);
  if (!info) return fail_unknown(&inner, name, strlen(name), OPTION_IN_FILE);
  return set_option(&inner, info, value, OPTION_IN_FILE);
}

static bool read_file(struct reading *reading) {
  const char *path = reading->config;
  if (!path || *path == '\0') return true;
  if (!config_file_read(path, set_from_file, reading, reading->error, reading->error_size))
    return false;
  const char *slash = strrchr(path, '/');
  size_t length = slash ? (size_t)(slash - path) : 0;
  if (slash == path) length = 1; /* the root keeps its slash */
  free(reading->options->config_folder);
  reading->options->config_folder = strndup(path, length);
  return reading->options->config_folder || fail_no_memory(reading);
}

/* ---- What the values mean together ---- */

static bool check_listen_address(struct reading *reading) {
  const char *address = reading->options->listen_address;
  struct in_addr four;
  struct in6_addr six;
  bool numeric = true, loopback = false;
  if (inet_pton(AF_INET, address, &four) == 1)
    loopback = ntohl(four.s_addr) >> 24 == 127;
  else if (inet_pton(AF_INET6, address, &six) == 1)
    loopback = IN6_IS_ADDR_LOOPBACK(&six);
  else
    numeric = false;
  if (loopback || (numeric && reading->options->insecure)) return true;
  say(reading, "listen_address: ");
  if (!numeric)
    say(reading, "expected a numeric address such as 127.0.0.1 or ::1, got %s",
        show(address, strlen(address)).text);
  else
    say(reading,
        "%s can be reached from other machines and this version has no API keys; "
        "say --insecure to allow it",
        address);
  return false;
}

static bool read_everything(struct reading *reading, int argc, char **argv, char **environment) {
  if (!set_defaults(reading) || !read_flags(reading, argv, argc, false)) return false;
  if (stops_early(reading->action)) return true;
  if (!reading->config) reading->config = config_from_environment(environment);
  return read_file(reading) && read_environment(reading, environment) &&
         read_flags(reading, argv, argc, true) && check_listen_address(reading);
}

/* One line of text, whatever a file is named: a question mark for each control
 * character and each byte of no character. */
static void make_line(char *text) {
  const size_t length = strlen(text);
  for (size_t at = 0, step; at < length; at += step) {
    bool valid;
    step = utf8_step(text + at, length - at, &valid);
    if (!valid || iscntrl((unsigned char)text[at])) memset(text + at, '?', step);
  }
}

enum options_action options_read(struct options *options, int argc, char **argv, char **environment,
                                 char *error, size_t error_size) {
  struct reading reading = {options, OPTIONS_RUN, NULL, error, error_size};
  if (error_size > 0) error[0] = '\0';
  if (read_everything(&reading, argc, argv, environment)) return reading.action;
  if (error_size > 0) make_line(error);
  return OPTIONS_FAILED;
}

void options_free(struct options *options) {
  for (size_t i = 0; i < OPTION_COUNT; i++) {
    char **text = option_member(options, &option_infos[i]);
    if (option_infos[i].kind == OPTION_KIND_TEXT || option_infos[i].kind == OPTION_KIND_JSON) {
      free(*text);
      *text = NULL;
    }
  }
  free(options->config_folder);
  options->config_folder = NULL;
}
