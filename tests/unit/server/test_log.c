/* The log, as those see it who read it: jansson takes the JSON lines apart,
 * the text lines are compared as text, and several threads write into one pipe
 * that is mostly full. */
#include "observe/log.h"

#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <math.h>
#include <pthread.h>
#include <time.h>

#include "unit.h"

/* What `log_write` makes of one event, without its newline; to be freed. */
static char *line_of(enum log_format format, enum log_level level, const char *event,
                     const struct log_field *fields) {
  int scratch = open_scratch();
  struct log *log = log_create(scratch, LOG_DEBUG, format);
  ck_assert_ptr_nonnull(log);
  log_write(log, level, event, fields);
  log_free(log);
  char *text = read_scratch(scratch);
  close(scratch);
  size_t length = strlen(text);
  ck_assert_uint_gt(length, 0);
  ck_assert_uint_le(length, PIPE_BUF);
  ck_assert_ptr_eq(strchr(text, '\n'), text + length - 1);
  text[length - 1] = '\0';
  return text;
}

#define FIELDS(...) ((const struct log_field[]){__VA_ARGS__, {.key = NULL}})
#define NO_FIELDS   ((const struct log_field[]){{.key = NULL}})

static json_t *parse_line(const char *line) {
  json_t *object = json_loads(line, JSON_REJECT_DUPLICATES, NULL);
  ck_assert_msg(json_is_object(object), "%s", line);
  return object;
}

static const char *text_member(json_t *object, const char *name) {
  const char *text = json_string_value(json_object_get(object, name));
  ck_assert_ptr_nonnull(text);
  return text;
}

START_TEST(test_json_line) {
  char *line =
      line_of(LOG_JSON, LOG_INFO, "listening",
              FIELDS(log_text("address", "127.0.0.1"), log_integer("port", 8080),
                     log_integer("least", INT64_MIN), log_number("seconds", 0.00123456789),
                     log_number("nan", (double)NAN), log_number("inf", -HUGE_VAL),
                     log_boolean("yes", true), log_boolean("no", false), log_text("nothing", NULL),
                     log_text("empty", ""), log_text("odd", "a\n\"\\\x1b[31m\xff\xC2\x9B")));
  ck_assert_ptr_eq(strstr(line, "{\"time\":\""), line);
  json_t *object = parse_line(line);
  ck_assert_str_eq(text_member(object, "level"), "info");
  ck_assert_str_eq(text_member(object, "event"), "listening");
  ck_assert_str_eq(text_member(object, "address"), "127.0.0.1");
  ck_assert_int_eq(json_integer_value(json_object_get(object, "port")), 8080);
  ck_assert(json_integer_value(json_object_get(object, "least")) == INT64_MIN);
  ck_assert_double_eq(json_real_value(json_object_get(object, "seconds")), 0.00123457);
  ck_assert(json_is_null(json_object_get(object, "nan")));
  ck_assert(json_is_null(json_object_get(object, "inf")));
  ck_assert(json_is_true(json_object_get(object, "yes")));
  ck_assert(json_is_false(json_object_get(object, "no")));
  ck_assert(json_is_null(json_object_get(object, "nothing")));
  ck_assert_str_eq(text_member(object, "empty"), "");
  ck_assert_str_eq(text_member(object, "odd"), "a\n\"\\\x1b[31m\xEF\xBF\xBD\xC2\x9B");
  ck_assert_uint_eq(json_object_size(object), 14);
  /* Nothing that a terminal obeys is in the line itself. */
  for (const char *c = line; *c; c++)
    ck_assert((unsigned char)*c >= 0x20 && *c != 0x7F);
  ck_assert_ptr_null(strstr(line, "\xC2\x9B"));
  json_decref(object);
  free(line);
}
END_TEST

START_TEST(test_text_line) {
  char *line = line_of(
      LOG_TEXT, LOG_WARNING, "odd_values",
      FIELDS(log_text("address", "127.0.0.1"), log_integer("port", 8080),
             log_text("path", "/v1/memories/a-b_c.d"), log_text("two", "a b"),
             log_text("equals", "a=b"), log_text("quote", "\""), log_text("empty", ""),
             log_text("umlaut", "\xC3\xA4"), log_text("line", "x\ny"), log_number("third", 1.0 / 3),
             log_number("nan", (double)NAN), log_boolean("ok", true), log_text("nothing", NULL)));
  ck_assert_uint_gt(strlen(line), 25);
  ck_assert_str_eq(line + 24,
                   " warning odd_values address=127.0.0.1 port=8080 path=/v1/memories/a-b_c.d "
                   "two=\"a b\" equals=\"a=b\" quote=\"\\\"\" empty=\"\" umlaut=\"\xC3\xA4\" "
                   "line=\"x\\ny\" third=0.333333 nan=null ok=true nothing=null");
  free(line);
  line = line_of(LOG_TEXT, LOG_ERROR, "alone", NO_FIELDS);
  ck_assert_str_eq(line + 24, " error alone");
  free(line);
}
END_TEST

START_TEST(test_time_is_now_in_utc) {
  struct timespec before, after; /* time() may be some milliseconds late */
  clock_gettime(CLOCK_REALTIME, &before);
  char *line = line_of(LOG_TEXT, LOG_INFO, "tick", NO_FIELDS);
  clock_gettime(CLOCK_REALTIME, &after);
  struct tm utc = {0};
  const char *rest = strptime(line, "%Y-%m-%dT%H:%M:%S", &utc);
  ck_assert_ptr_eq(rest, line + 19);
  ck_assert_int_eq(rest[0], '.');
  ck_assert_uint_eq(strspn(rest + 1, "0123456789"), 3);
  ck_assert_int_eq(strncmp(rest + 4, "Z ", 2), 0);
  time_t logged = timegm(&utc);
  ck_assert(logged >= before.tv_sec && logged <= after.tv_sec);
  free(line);
}
END_TEST

START_TEST(test_levels) {
  static const char *const names[] = {"debug", "info", "warning", "error"};
  for (int least = LOG_DEBUG; least <= LOG_ERROR; least++) {
    int scratch = open_scratch();
    struct log *log = log_create(scratch, (enum log_level)least, LOG_JSON);
    char expected[200] = "", seen[200] = "";
    for (int level = LOG_DEBUG; level <= LOG_ERROR; level++) {
      ck_assert(log_wants(log, (enum log_level)level) == (level >= least));
      LOG(log, (enum log_level)level, "event", log_integer("n", level));
      LOG(log, (enum log_level)level, "bare");
      if (level >= least) strcat(strcat(expected, names[level]), names[level]);
    }
    log_free(log);
    char *text = read_scratch(scratch);
    close(scratch);
    for (char *rest, *line = strtok_r(text, "\n", &rest); line;
         line = strtok_r(NULL, "\n", &rest)) {
      json_t *object = parse_line(line);
      strcat(seen, text_member(object, "level"));
      json_decref(object);
    }
    ck_assert_str_eq(seen, expected);
    free(text);
  }
  ck_assert(!log_wants(NULL, LOG_ERROR));
  LOG(NULL, LOG_ERROR, "nowhere", log_text("a", "b"));
  log_free(NULL);
}
END_TEST

/* Texts of every length around the limit, of characters of every length. */
START_TEST(test_long_lines_are_cut_between_characters) {
  static const char *const units[] = {"a", "\"", "\x01", "\xC3\xA4", "\xF0\x9F\x98\x80", "\xFF"};
  char *text = malloc(4 * PIPE_BUF + 1);
  for (size_t unit = 0; unit < sizeof units / sizeof units[0]; unit++) {
    const size_t size = strlen(units[unit]);
    for (size_t count = 600; count<PIPE_BUF; count += count> 3900 ? 1 : 97) {
      for (size_t i = 0; i < count; i++)
        memcpy(text + i * size, units[unit], size + 1);
      char *line = line_of(
          LOG_JSON, LOG_INFO, "long",
          FIELDS(log_text("a", text), log_integer("b", 12345678901234), log_text("c", "last")));
      json_t *object = parse_line(line);
      bool cut = json_is_true(json_object_get(object, "truncated"));
      ck_assert(cut == !json_object_get(object, "c"));
      if (!cut)
        ck_assert_str_eq(text_member(object, "c"), "last");
      else
        ck_assert_uint_ge(strlen(line), PIPE_BUF - 100);
      const char *kept = text_member(object, "a");
      const char *wanted = *text == '\xFF' ? "\xEF\xBF\xBD" : units[unit];
      for (; *kept; kept += strlen(wanted))
        ck_assert_int_eq(strncmp(kept, wanted, strlen(wanted)), 0);
      json_decref(object);
      free(line);
      line =
          line_of(LOG_TEXT, LOG_INFO, "long", FIELDS(log_text("a", text), log_text("c", "last")));
      ck_assert((strstr(line, " truncated=true") != NULL) == (strstr(line, " c=last") == NULL));
      free(line);
    }
  }
  free(text);
}
END_TEST

/* ---- Threads ---- */
enum { WRITERS = 4, LINES = 400 };

struct writer {
  struct log *log;
  int number;
};

static void *write_lines(void *argument) {
  const struct writer *writer = argument;
  char filler[3000];
  for (int i = 0; i < LINES; i++) {
    size_t length = (size_t)(i * 131 + writer->number * 977) % sizeof filler;
    memset(filler, 'a' + writer->number, length);
    filler[length] = '\0';
    LOG(writer->log, LOG_INFO, "line", log_integer("writer", writer->number), log_integer("n", i),
        log_integer("length", (int64_t)length), log_text("filler", filler));
  }
  return NULL;
}

START_TEST(test_lines_of_threads_do_not_mix) {
  int ends[2];
  ck_assert_int_eq(pipe2(ends, O_CLOEXEC), 0);
  struct log *log = log_create(ends[1], LOG_INFO, LOG_JSON);
  pthread_t threads[WRITERS];
  struct writer writers[WRITERS];
  for (int i = 0; i < WRITERS; i++) {
    writers[i] = (struct writer){log, i};
    ck_assert_int_eq(pthread_create(&threads[i], NULL, write_lines, &writers[i]), 0);
  }
  FILE *reader = fdopen(ends[0], "r");
  char *line = NULL;
  size_t capacity = 0;
  int next[WRITERS] = {0};
  for (int i = 0; i < WRITERS * LINES; i++) {
    ck_assert_int_gt(getline(&line, &capacity, reader), 0);
    json_t *object = parse_line(line);
    int64_t writer = json_integer_value(json_object_get(object, "writer"));
    ck_assert_int_eq(json_integer_value(json_object_get(object, "n")), next[writer]++);
    const char *filler = text_member(object, "filler");
    ck_assert_int_eq((int64_t)strlen(filler),
                     json_integer_value(json_object_get(object, "length")));
    ck_assert_uint_eq(strspn(filler, (const char[]){(char)('a' + writer), '\0'}), strlen(filler));
    json_decref(object);
  }
  for (int i = 0; i < WRITERS; i++)
    pthread_join(threads[i], NULL);
  free(line);
  fclose(reader);
  close(ends[1]);
  log_free(log);
}
END_TEST

START_TEST(test_a_full_disk_is_survived) {
  int full = open("/dev/full", O_WRONLY | O_CLOEXEC);
  if (full < 0) return;
  struct log *log = log_create(full, LOG_INFO, LOG_JSON);
  LOG(log, LOG_ERROR, "lost", log_text("a", "b"));
  log_free(log);
  close(full);
}
END_TEST

UNIT_MAIN("log", test_json_line, test_text_line, test_time_is_now_in_utc, test_levels,
          test_long_lines_are_cut_between_characters, test_lines_of_threads_do_not_mix,
          test_a_full_disk_is_survived)
