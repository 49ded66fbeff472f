/* What the options print: --help for eyes, --print-config for --config. */
#include <jansson.h>

#include "observe/log.h"
#include "start.h"

static void print_help(const struct options *options) {
  (void)options;
  options_print_help();
}

START_TEST(test_defaults) {
  struct outcome *outcome = RUN(.file = NULL);
  ck_assert_int_eq(outcome->action, OPTIONS_RUN);
  ck_assert_str_eq(outcome->options.listen_address, "127.0.0.1");
  ck_assert_int_eq(outcome->options.listen_port, 8080);
  ck_assert_str_eq(outcome->options.data_dir, "./attentiond-data");
  ck_assert(!outcome->options.insecure);
  ck_assert_int_eq(outcome->options.log_level, LOG_INFO);
  ck_assert_int_eq(outcome->options.log_format, LOG_JSON);
  ck_assert_str_eq(outcome->options.config_folder, "");
  char *config = printed_by(options_print_config, &outcome->options);
  json_t *object = json_loads(config, JSON_REJECT_DUPLICATES, NULL);
  ck_assert_uint_eq(json_object_size(object), ENTRIES);
  for (size_t i = 0; i < ENTRIES; i++) {
    json_t *value = json_object_get(object, entries[i].name);
    char *text = json_is_string(value) ? strdup(json_string_value(value))
                                       : json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
    ck_assert_str_eq(text, entries[i].standard);
    free(text);
  }
  json_decref(object);
  free(config);
  drop(outcome);
}
END_TEST

START_TEST(test_help) {
  char *help = printed_by(print_help, NULL);
  for (size_t i = 0; i < ENTRIES; i++) {
    char flag[100];
    spell(flag, "  --", entries[i].name, '-', false);
    const char *line = strstr(help, flag);
    ck_assert_msg(line != NULL, "no %s in:\n%s", flag, help);
    const char *end = strchr(line, '\n');
    const char *first_word = strstr(line, *entries[i].standard ? entries[i].standard : "\"\"");
    ck_assert(first_word && first_word < end);
    if (entries[i].kind == INTEGER) {
      char range[80];
      snprintf(range, sizeof range, "%s to %s", entries[i].least, entries[i].most);
      ck_assert(strstr(line, range) && strstr(line, range) < end);
    }
  }
  /* Wrapped or not, all the words are there in their order. */
  const char *at = help;
  for (size_t i = 0; i < ENTRIES; i++) {
    char words[200];
    snprintf(words, sizeof words, "%s", entries[i].help);
    for (char *rest, *word = strtok_r(words, " ", &rest); word; word = strtok_r(NULL, " ", &rest)) {
      at = strstr(at, word);
      ck_assert_ptr_nonnull(at);
    }
  }
  static const char *const others[] = {"ATTENTIOND_",  "--config FILE",  "--help",
                                       "--version",    "--check-config", "--print-config",
                                       "--healthcheck"};
  for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
    ck_assert_ptr_nonnull(strstr(help, others[i]));
  for (char *rest, *line = strtok_r(help, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
    ck_assert_uint_le(strlen(line), 100);
    ck_assert_int_ne(line[strlen(line) - 1], ' ');
  }
  free(help);
}
END_TEST

START_TEST(test_printed_config_can_be_given_back) {
  struct outcome *outcome =
      RUN(.arguments = {"--port-file", "a \"b\"\\\n\x01\xC3\xA4", "--memories",
                        "[{\"name\": \"x\", \"rows\": [1, 2]}]", "--insecure", "--log-level=debug",
                        "--max-body-bytes", "1099511627776", "--listen-address=::"});
  ck_assert_str_eq(outcome->error, "");
  char *config = printed_by(options_print_config, &outcome->options);
  struct outcome *again = RUN(.file = config);
  ck_assert_str_eq(again->error, "");
  char *config_again = printed_by(options_print_config, &again->options);
  json_t *first = json_loads(config, JSON_REJECT_DUPLICATES, NULL);
  json_t *second = json_loads(config_again, JSON_REJECT_DUPLICATES, NULL);
  ck_assert_ptr_nonnull(first);
  ck_assert(json_equal(first, second));
  ck_assert_str_eq(again->options.port_file, outcome->options.port_file);
  ck_assert_int_eq(again->options.max_body_bytes, 1099511627776);
  json_decref(first);
  json_decref(second);
  free(config);
  free(config_again);
  drop(outcome);
  drop(again);
}
END_TEST

UNIT_MAIN("options_print", test_defaults, test_help, test_printed_config_can_be_given_back)
