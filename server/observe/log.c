/* The log's lines, built in a fixed array on the caller's stack and written
 * with one write(2).
 *
 * A line is at most PIPE_BUF bytes: up to there POSIX promises that what one
 * write puts into a pipe is not mixed with what another puts there, and under
 * a container runtime or systemd the log is a pipe or a socket. That is why no
 * lock is needed. A field that would make its line longer is cut between
 * characters, the fields after it are left out, and `truncated` is set.
 *
 * Nothing here allocates: "out of memory" must still reach the log. stdio was
 * rejected for its lock and its buffer, a writer thread with a queue because
 * the last lines before a crash are those that matter most.
 *
 * A line that can't be written (full disk, closed pipe) is lost: there is
 * nobody left to tell. A struct log never changes once it was made, so threads
 * share it freely. */
#include "observe/log.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/json_escape.h"

struct log {
  int descriptor;
  enum log_level least;
  enum log_format format;
};

struct log *log_create(int descriptor, enum log_level least, enum log_format format) {
  struct log *log = malloc(sizeof *log);
  if (log) *log = (struct log){descriptor, least, format};
  return log;
}

void log_free(struct log *log) {
  free(log);
}

bool log_wants(const struct log *log, enum log_level level) {
  return log && level >= log->least;
}

/* ---- A line under construction ---- */

static const char json_cut[] = ",\"truncated\":true";
static const char text_cut[] = " truncated=true";

/* What fields may fill; the rest is for a closing quote, the longer of the two
 * marks above, a brace and the newline. */
#define LINE_MAX_BYTES PIPE_BUF
#define LINE_ROOM      (LINE_MAX_BYTES - 1 - sizeof json_cut - 2)

struct line {
  size_t length;
  bool cut;
  char bytes[LINE_MAX_BYTES];
};

static bool put(struct line *line, const char *bytes, size_t count) {
  /* A closing quote may already stand past the room. */
  if (line->length > LINE_ROOM || count > LINE_ROOM - line->length) {
    line->cut = true;
    return false;
  }
  memcpy(line->bytes + line->length, bytes, count);
  line->length += count;
  return true;
}

static bool put_text(struct line *line, const char *text) {
  return put(line, text, strlen(text));
}

/* For the end of a line alone, which has room set aside. */
static void put_end(struct line *line, const char *text) {
  size_t count = strlen(text);
  memcpy(line->bytes + line->length, text, count);
  line->length += count;
}

static void put_quoted(struct line *line, const char *text) {
  size_t length = strlen(text);
  if (!put(line, "\"", 1)) return;
  for (size_t at = 0; at < length;) {
    char escaped[JSON_ESCAPE_MAX];
    size_t written;
    at += json_escape_step(text + at, length - at, escaped, &written);
    if (!put(line, escaped, written)) break;
  }
  put_end(line, "\"");
}

/* In the text format a value stands bare where no eye and no script could take
 * it for something else. */
static bool may_stand_bare(const char *text) {
  for (const char *c = text; *c; c++)
    if (*c <= ' ' || *c >= 0x7F || *c == '"' || *c == '\\' || *c == '=') return false;
  return *text != '\0';
}

static void put_value(struct line *line, const struct log_field *field, enum log_format format) {
  char number[40];
  switch (field->kind) {
  case LOG_FIELD_TEXT:
    if (!field->text)
      put_text(line, "null");
    else if (format == LOG_TEXT && may_stand_bare(field->text) &&
             strlen(field->text) <= LINE_ROOM - line->length)
      put_text(line, field->text);
    else
      put_quoted(line, field->text);
    break;
  case LOG_FIELD_INTEGER:
    snprintf(number, sizeof number, "%lld", (long long)field->integer);
    put_text(line, number);
    break;
  case LOG_FIELD_NUMBER:
    snprintf(number, sizeof number, "%.6g", field->number);
    put_text(line, isfinite(field->number) ? number : "null");
    break;
  case LOG_FIELD_BOOLEAN:
    put_text(line, field->integer ? "true" : "false");
    break;
  }
}

/* The key and the value, or nothing: a key without its value is no JSON. */
static void put_field(struct line *line, const struct log_field *field, enum log_format format) {
  const size_t start = line->length;
  const size_t least_value = field->kind == LOG_FIELD_TEXT ? 8 : 32;
  const bool json = format == LOG_JSON;
  bool fits = put_text(line, json ? ",\"" : " ") && put_text(line, field->key) &&
              put_text(line, json ? "\":" : "=");
  if (fits && LINE_ROOM - line->length >= least_value) {
    put_value(line, field, format);
  } else {
    line->length = start;
    line->cut = true;
  }
}

/* ---- The parts of every line ---- */

static const char *level_name(enum log_level level) {
  switch (level) {
  case LOG_DEBUG:
    return "debug";
  case LOG_INFO:
    return "info";
  case LOG_WARNING:
    return "warning";
  case LOG_ERROR:
    break;
  }
  return "error";
}

static void put_head(struct line *line, enum log_level level, const char *event,
                     enum log_format format) {
  struct timespec now = {0, 0};
  struct tm utc = {0};
  char time[64];
  clock_gettime(CLOCK_REALTIME, &now);
  gmtime_r(&now.tv_sec, &utc);
  size_t length = strftime(time, sizeof time, "%Y-%m-%dT%H:%M:%S", &utc);
  snprintf(time + length, sizeof time - length, ".%03dZ", (int)(now.tv_nsec / 1000000));
  bool json = format == LOG_JSON;
  put_text(line, json ? "{\"time\":\"" : "");
  put_text(line, time);
  put_text(line, json ? "\",\"level\":\"" : " ");
  put_text(line, level_name(level));
  put_text(line, json ? "\",\"event\":" : " ");
  if (json)
    put_quoted(line, event);
  else
    put_text(line, event);
}

void log_write(struct log *log, enum log_level level, const char *event,
               const struct log_field *fields) {
  if (!log_wants(log, level)) return;
  const int saved_errno = errno; /* a caller may log first and look at it then */
  struct line line;
  line.length = 0;
  line.cut = false;
  put_head(&line, level, event, log->format);
  for (const struct log_field *field = fields; field->key && !line.cut; field++)
    put_field(&line, field, log->format);
  if (line.cut) put_end(&line, log->format == LOG_JSON ? json_cut : text_cut);
  put_end(&line, log->format == LOG_JSON ? "}\n" : "\n");
  ssize_t written;
  do
    written = write(log->descriptor, line.bytes, line.length);
  while (written < 0 && errno == EINTR);
  errno = saved_errno;
}
