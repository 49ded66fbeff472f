/* The options: every one from every source, the order of the sources, and one
 * line for every mistake. */
#include <jansson.h>

#include "observe/log.h"
#include "start.h"

/* The same value by flag (two ways), variable and file: what --print-config
 * then says. NULL where it was refused, which all four must agree on. */
static char *value_from_everywhere(const struct entry *entry, const char *value) {
  const char *name = entry->name;
  char flag[100], joined[300], variable[300], file[300], upper[100], error[4][600];
  char *config[4] = {NULL};
  spell(flag, "--", name, '-', false);
  snprintf(joined, sizeof joined, "%s=%s", flag, value);
  spell(upper, "ATTENTIOND_", name, '_', true);
  snprintf(variable, sizeof variable, "%s=%s", upper, value);
  snprintf(file, sizeof file, "{\"%s\": \"%s\"}", name, value);
  /* A boolean flag leaves a next argument alone that is no boolean. */
  bool apart = entry->kind != BOOLEAN;
  const struct start starts[4] = {{.arguments = {apart ? flag : joined, apart ? value : NULL}},
                                  {.arguments = {joined}},
                                  {.environment = {variable}},
                                  {.file = file}};
  for (int i = 0; i < 4; i++) {
    struct outcome *outcome = run(&starts[i]);
    if (outcome->action == OPTIONS_RUN)
      config[i] = printed_by(options_print_config, &outcome->options);
    else
      ck_assert_ptr_nonnull(strstr(outcome->error, name));
    strcpy(error[i], outcome->error);
    if (config[i])
      ck_assert_str_eq(config[i], config[0]);
    else if (i == 2)
      ck_assert_ptr_nonnull(strstr(error[i], upper));
    else if (i < 2)
      ck_assert_ptr_nonnull(strstr(error[i], flag));
    else
      ck_assert_ptr_nonnull(strstr(error[i], outcome->path));
    ck_assert((config[i] == NULL) == (config[0] == NULL));
    drop(outcome);
  }
  for (int i = 1; i < 4; i++)
    free(config[i]);
  return config[0];
}

static void expect_value(const struct entry *entry, const char *value, const char *json) {
  char *config = value_from_everywhere(entry, value);
  ck_assert_msg(config != NULL, "%s = %s was refused", entry->name, value);
  json_t *object = json_loads(config, JSON_REJECT_DUPLICATES, NULL);
  ck_assert_msg(json_is_object(object), "%s", config);
  char *seen = json_dumps(json_object_get(object, entry->name), JSON_ENCODE_ANY | JSON_COMPACT);
  ck_assert_str_eq(seen, json);
  free(seen);
  json_decref(object);
  free(config);
}

static void expect_refusal(const struct entry *entry, const char *value) {
  char *config = value_from_everywhere(entry, value);
  ck_assert_msg(config == NULL, "%s = %s was taken", entry->name, value);
}

static void check_integer(const struct entry *entry) {
  static const char *const wrong[] = {"",
                                      "x",
                                      "1x",
                                      " 1",
                                      "1 ",
                                      "+1",
                                      "1.0",
                                      "1e3",
                                      "0x10",
                                      "--1",
                                      "-",
                                      "99999999999999999999",
                                      "-99999999999999999999"};
  char text[40];
  long long least = atoll(entry->least), most = atoll(entry->most);
  expect_value(entry, entry->least, entry->least);
  expect_value(entry, entry->most, entry->most);
  for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
    if (strncmp(wrong[i], "--", 2) != 0) expect_refusal(entry, wrong[i]);
  snprintf(text, sizeof text, "%lld", least - 1);
  expect_refusal(entry, text);
  snprintf(text, sizeof text, "%lld", most + 1);
  expect_refusal(entry, text);
}

static void check_choice(const struct entry *entry) {
  char choices[100], quoted[100];
  snprintf(choices, sizeof choices, "%.*s", (int)strlen(entry->most) - 2, entry->most + 1);
  expect_refusal(entry, choices);
  for (char *rest, *choice = strtok_r(choices, "|", &rest); choice;
       choice = strtok_r(NULL, "|", &rest)) {
    snprintf(quoted, sizeof quoted, "\"%s\"", choice);
    expect_value(entry, choice, quoted);
    quoted[strlen(quoted) - 2] = '\0';
    expect_refusal(entry, quoted + 1);
  }
  expect_refusal(entry, "");
}

START_TEST(test_every_option_from_every_source) {
  for (size_t i = 0; i < ENTRIES; i++) {
    const struct entry *entry = &entries[i];
    switch (entry->kind) {
    case INTEGER:
      check_integer(entry);
      break;
    case CHOICE:
      check_choice(entry);
      break;
    case BOOLEAN:
      expect_value(entry, "true", "true");
      expect_value(entry, "1", "true");
      expect_value(entry, "false", "false");
      expect_value(entry, "0", "false");
      expect_refusal(entry, "yes");
      expect_refusal(entry, "");
      break;
    case JSON:
      expect_value(entry, "[]", "[]");
      expect_value(entry, "[1,{}]", "[1,{}]");
      break;
    case TEXT:
      if (strcmp(entry->name, "listen_address") == 0)
        expect_value(entry, "::1", "\"::1\"");
      else
        expect_value(entry, "a b/c", "\"a b/c\"");
      break;
    }
  }
}
END_TEST

/* The indices that the log's enums count on. */
START_TEST(test_choices_are_the_logs_enums) {
  static const char *const levels[] = {
      [LOG_DEBUG] = "debug", [LOG_INFO] = "info", [LOG_WARNING] = "warning", [LOG_ERROR] = "error"};
  static const char *const formats[] = {[LOG_JSON] = "json", [LOG_TEXT] = "text"};
  for (int i = 0; i < 4; i++) {
    struct outcome *outcome = RUN(.arguments = {"--log-level", levels[i]});
    ck_assert_int_eq(outcome->options.log_level, i);
    drop(outcome);
  }
  for (int i = 0; i < 2; i++) {
    struct outcome *outcome = RUN(.arguments = {"--log-format", formats[i]});
    ck_assert_int_eq(outcome->options.log_format, i);
    drop(outcome);
  }
}
END_TEST

START_TEST(test_the_later_source_wins) {
  static const char file[] = "{\"listen_port\": 1, \"io_threads\": 11, \"threads\": 21}";
  struct outcome *outcome =
      RUN(.arguments = {"--listen-port", "5", "--listen-port=3"},
          .environment = {"ATTENTIOND_LISTEN_PORT=2", "ATTENTIOND_IO_THREADS=12", "HOME=/"},
          .file = file);
  ck_assert_str_eq(outcome->error, "");
  ck_assert_int_eq(outcome->options.listen_port, 3);
  ck_assert_int_eq(outcome->options.io_threads, 12);
  ck_assert_int_eq(outcome->options.threads, 21);
  ck_assert_int_eq(outcome->options.max_queue, 1024);
  ck_assert_str_eq(outcome->options.config_folder, scratch_folder());
  drop(outcome);
}
END_TEST

START_TEST(test_where_the_file_is_named) {
  char path[PATH_ROOM], variable[PATH_ROOM + 40], joined[PATH_ROOM + 40];
  write_file("{\"listen_port\": 1}", path);
  snprintf(variable, sizeof variable, "ATTENTIOND_CONFIG=%s", path);
  snprintf(joined, sizeof joined, "--config=%s", path);
  const struct start starts[] = {
      {.environment = {variable}},
      {.arguments = {joined, "--threads=1"}},
      {.arguments = {"--threads=1", "--config", path, "--insecure"}},
      {.arguments = {joined}, .environment = {"ATTENTIOND_CONFIG=/nonexistent"}}};
  for (size_t i = 0; i < sizeof starts / sizeof starts[0]; i++) {
    struct outcome *outcome = run(&starts[i]);
    ck_assert_str_eq(outcome->error, "");
    ck_assert_int_eq(outcome->options.listen_port, 1);
    drop(outcome);
  }
  struct outcome *outcome = RUN(.arguments = {"--config="}, .environment = {variable});
  ck_assert_str_eq(outcome->error, "");
  ck_assert_int_eq(outcome->options.listen_port, 8080);
  drop(outcome);
  unlink(path);
  outcome = run(&starts[0]);
  ck_assert_int_eq(outcome->action, OPTIONS_FAILED);
  ck_assert_ptr_nonnull(strstr(outcome->error, path));
  drop(outcome);
}
END_TEST

START_TEST(test_boolean_flags) {
  static const struct {
    struct start start;
    bool insecure;
  } cases[] = {{{.arguments = {"--insecure"}}, true},
               {{.arguments = {"--insecure=false"}}, false},
               {{.arguments = {"--insecure", "false"}}, false},
               {{.arguments = {"--insecure", "1", "--threads", "1"}}, true},
               {{.arguments = {"--insecure", "--threads", "1"}}, true},
               {{.arguments = {"--insecure=0", "--insecure"}}, true},
               {{.arguments = {"--insecure", "--insecure=0"}}, false},
               {{.environment = {"ATTENTIOND_INSECURE=true"}}, true},
               {{.file = "{\"insecure\": true}"}, true},
               {{.arguments = {"--insecure=false"}, .file = "{\"insecure\": true}"}, false}};
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    struct outcome *outcome = run(&cases[i].start);
    ck_assert_str_eq(outcome->error, "");
    ck_assert(outcome->options.insecure == cases[i].insecure);
    drop(outcome);
  }
}
END_TEST

START_TEST(test_actions) {
  static const struct {
    struct start start;
    enum options_action action;
  } cases[] = {
      {{.arguments = {"--help"}}, OPTIONS_HELP},
      {{.arguments = {"-h"}}, OPTIONS_HELP},
      {{.arguments = {"--version"}}, OPTIONS_VERSION},
      {{.arguments = {"--check-config", "--threads", "2"}}, OPTIONS_CHECK_CONFIG},
      {{.arguments = {"--threads", "2", "--print-config"}}, OPTIONS_PRINT_CONFIG},
      {{.arguments = {"--healthcheck"}}, OPTIONS_HEALTHCHECK},
      /* Help is there in every trouble but a misspelling before it. */
      {{.arguments = {"--help", "--nonsense"}}, OPTIONS_HELP},
      {{.arguments = {"--help"}, .environment = {"ATTENTIOND_NONSENSE=1"}}, OPTIONS_HELP},
      {{.arguments = {"--version"}, .file = "{"}, OPTIONS_VERSION},
      {{.arguments = {"--check-config"}, .file = "{"}, OPTIONS_FAILED},
      {{.arguments = {"--check-config", "--listen-port=x"}}, OPTIONS_FAILED},
      {{.arguments = {"--help=yes"}}, OPTIONS_FAILED},
      {{.arguments = {"--port-file", "-h"}}, OPTIONS_RUN},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    struct outcome *outcome = run(&cases[i].start);
    ck_assert_msg(outcome->action == cases[i].action, "%zu: %s", i, outcome->error);
    drop(outcome);
  }
}
END_TEST

/* Every mistake in one line that holds these words. */
START_TEST(test_mistakes) {
  static const struct {
    struct start start;
    const char *words[5];
  } cases[] = {
      {{.arguments = {"--listen-port", "70000"}},
       {"listen_port", "flag --listen-port", "\"70000\"", "0 to 65535"}},
      {{.environment = {"ATTENTIOND_HEAD_TIMEOUT=0"}},
       {"head_timeout", "environment variable ATTENTIOND_HEAD_TIMEOUT", "\"0\"", "1 to 3600 s"}},
      {{.file = "{\"log_level\": \"loud\"}"},
       {"log_level", "test-options-", "\"loud\"", "debug|info|warning|error"}},
      {{.file = "{\"listen_port\": 8080.5}"}, {"listen_port", "8080.5"}},
      {{.arguments = {"--insecure=maybe"}}, {"insecure", "true or false", "maybe"}},
      {{.arguments = {"--listen-prot", "1"}}, {"\"--listen-prot\"", "mean --listen-port?"}},
      {{.arguments = {"--listen_port=1"}}, {"\"--listen_port\"", "mean --listen-port?"}},
      {{.arguments = {"--port", "1"}}, {"\"--port\"", "mean --listen-port?"}},
      {{.arguments = {"--thread", "1"}}, {"\"--thread\"", "mean --threads?"}},
      {{.arguments = {"--hlep"}}, {"\"--hlep\"", "mean --help?"}},
      {{.arguments = {"--confg=x"}}, {"\"--confg\"", "mean --config?"}},
      {{.arguments = {"--zzzzzz"}}, {"\"--zzzzzz\"", "--help lists"}},
      {{.environment = {"ATTENTIOND_LISTEN_PROT=1"}},
       {"\"ATTENTIOND_LISTEN_PROT\"", "mean ATTENTIOND_LISTEN_PORT?"}},
      {{.environment = {"ATTENTIOND_=1"}}, {"unknown environment variable"}},
      {{.environment = {"ATTENTIOND_LISTEN_PORTS=1"}}, {"mean ATTENTIOND_LISTEN_PORT?"}},
      {{.file = "{\"listen-port\": 1}"}, {"test-options-", "\"listen-port\"", "mean listen_port?"}},
      {{.file = "{\"config\": \"x\"}"}, {"unknown option \"config\""}},
      {{.arguments = {"8080"}}, {"unexpected argument \"8080\""}},
      {{.arguments = {"-p"}}, {"unexpected argument \"-p\""}},
      {{.arguments = {"--"}}, {"unexpected argument \"--\""}},
      {{.arguments = {"--=1"}}, {"unexpected argument \"--=1\""}},
      {{.arguments = {""}}, {"unexpected argument \"\""}},
      {{.arguments = {"--insecure", "maybe"}}, {"unexpected argument \"maybe\""}},
      {{.arguments = {"--listen-port"}}, {"--listen-port needs a value"}},
      {{.arguments = {"--port-file", "--insecure"}}, {"--port-file needs a value"}},
      {{.arguments = {"--config"}}, {"--config needs a value"}},
      {{.arguments = {"--listen-port", "1\n2\x1b\xff"}}, {"1\\n2\\u001b\xEF\xBF\xBD"}},
      {{.arguments = {"--config=/nonexistent/x.json"}}, {"/nonexistent/x.json"}},
      {{.arguments = {"--config=/nonexistent/\n\x1b\xff-x"}},
       {"/nonexistent/?"
        "?"
        "?-x: "}},
      {{.arguments = {"--restore"}}, {"--restore needs a value"}},
      {{.arguments = {"--listen-address", "localhost"}},
       {"listen_address", "numeric", "\"localhost\""}},
      {{.arguments = {"--listen-address", "0.0.0.0"}},
       {"listen_address", " 0.0.0.0 ", "--insecure"}},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    struct outcome *outcome = run(&cases[i].start);
    ck_assert_int_eq(outcome->action, OPTIONS_FAILED);
    for (size_t word = 0; cases[i].words[word]; word++)
      ck_assert_msg(strstr(outcome->error, cases[i].words[word]), "\"%s\" lacks \"%s\"",
                    outcome->error, cases[i].words[word]);
    drop(outcome);
  }
}
END_TEST

START_TEST(test_a_long_value_is_shown_cut) {
  char value[5000];
  memset(value, 'a', sizeof value - 1);
  value[sizeof value - 1] = '\0';
  struct outcome *outcome = RUN(.arguments = {"--listen-port", value});
  ck_assert_ptr_nonnull(strstr(outcome->error, "aaa...\""));
  drop(outcome);
  memcpy(value, "--", 2);
  outcome = RUN(.arguments = {value});
  ck_assert_ptr_nonnull(strstr(outcome->error, "aaa...\""));
  drop(outcome);
  char error[10];
  struct options options;
  char *argv[] = {value, value};
  ck_assert_int_eq(options_read(&options, 2, argv, NULL, error, sizeof error), OPTIONS_FAILED);
  ck_assert_uint_eq(strlen(error), sizeof error - 1);
  options_free(&options);
}
END_TEST

START_TEST(test_kubernetes_may_name_its_services) {
  static const char *const variables[] = {"ATTENTIOND_SERVICE_HOST=10.0.0.1",
                                          "ATTENTIOND_SERVICE_PORT=8080",
                                          "ATTENTIOND_SERVICE_PORT_HTTP=8080",
                                          "ATTENTIOND_PORT=tcp://10.0.0.1:8080",
                                          "ATTENTIOND_PORT_8080_TCP=tcp://10.0.0.1:8080",
                                          "ATTENTIOND_PORT_8080_TCP_PROTO=tcp",
                                          "ATTENTIOND_PORT_8080_TCP_PORT=8080",
                                          "ATTENTIOND_PORT_8080_TCP_ADDR=10.0.0.1",
                                          "ATTENTIOND_BLUE_SERVICE_HOST=10.0.0.1",
                                          "ATTENTIOND_BLUE_PORT=udp://10.0.0.1:1",
                                          "ATTENTIOND",
                                          "ATTENTIONDX=1"};
  for (size_t i = 0; i < sizeof variables / sizeof variables[0]; i++) {
    struct outcome *outcome = RUN(.environment = {variables[i]});
    ck_assert_msg(outcome->action == OPTIONS_RUN, "%s", outcome->error);
    drop(outcome);
  }
  static const char *const mistakes[] = {"ATTENTIOND_PORT=8080", "ATTENTIOND_SERVICE=1",
                                         "ATTENTIOND_X=_SERVICE_PORT", "ATTENTIOND_PORT_X=1"};
  for (size_t i = 0; i < sizeof mistakes / sizeof mistakes[0]; i++) {
    struct outcome *outcome = RUN(.environment = {mistakes[i]});
    ck_assert_int_eq(outcome->action, OPTIONS_FAILED);
    drop(outcome);
  }
}
END_TEST

START_TEST(test_only_loopback_without_insecure) {
  static const struct {
    const char *address;
    bool loopback, numeric;
  } cases[] = {{"127.0.0.1", true, true},  {"127.255.1.2", true, true},
               {"::1", true, true},        {"0:0:0:0:0:0:0:1", true, true},
               {"0.0.0.0", false, true},   {"::", false, true},
               {"128.0.0.1", false, true}, {"192.168.1.2", false, true},
               {"::2", false, true},       {"::ffff:10.0.0.1", false, true},
               {"", false, false},         {"127.1", false, false},
               {"[::1]", false, false},    {"127.0.0.1:80", false, false},
               {"*", false, false}};
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    struct outcome *outcome = RUN(.arguments = {"--listen-address", cases[i].address});
    ck_assert((outcome->action == OPTIONS_RUN) == cases[i].loopback);
    drop(outcome);
    outcome = RUN(.arguments = {"--listen-address", cases[i].address, "--insecure"});
    ck_assert((outcome->action == OPTIONS_RUN) == cases[i].numeric);
    drop(outcome);
  }
}
END_TEST

/* Any arguments and variables at all: an answer, and nothing leaked. */
START_TEST(test_random_starts) {
  static const char *const words[] = {"--listen-port",
                                      "--listen-port=1",
                                      "8080",
                                      "--insecure",
                                      "false",
                                      "--config",
                                      "--config=",
                                      "--port-file",
                                      "x",
                                      "-h",
                                      "--help",
                                      "--",
                                      "",
                                      "--threads=-1",
                                      "--print-config",
                                      "--data-dir=",
                                      "--data-dir",
                                      "--memories",
                                      "[]",
                                      "--log-level",
                                      "info",
                                      "=",
                                      "--=",
                                      "-",
                                      "--insecure=",
                                      "--log-format=text"};
  static const char *const variables[] = {
      "ATTENTIOND_THREADS=1", "ATTENTIOND_THREADS=", "ATTENTIOND_THREADS",
      "ATTENTIOND_",          "ATTENTIOND_PORT_=",   "=",
      "ATTENTIOND_DATA_DIR=", "ATTENTIOND__PORT_"};
  uint64_t seed = 5;
  for (int round = 0; round < 20000; round++) {
    struct start start = {.file = NULL};
    for (uint64_t i = next_random(&seed) % 7; i > 0; i--)
      start.arguments[i - 1] = words[next_random(&seed) % (sizeof words / sizeof words[0])];
    for (uint64_t i = next_random(&seed) % 3; i > 0; i--)
      start.environment[i - 1] =
          variables[next_random(&seed) % (sizeof variables / sizeof variables[0])];
    drop(run(&start));
  }
}
END_TEST

UNIT_MAIN("options", test_choices_are_the_logs_enums, test_every_option_from_every_source,
          test_the_later_source_wins, test_where_the_file_is_named, test_boolean_flags,
          test_actions, test_mistakes, test_a_long_value_is_shown_cut,
          test_kubernetes_may_name_its_services, test_only_loopback_without_insecure,
          test_random_starts)
