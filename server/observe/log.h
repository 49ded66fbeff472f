/* The log: one line per event, written whole with a single write(2), so that
 * lines of several threads never mix. Two formats: `json` (one object a line)
 * and `text` (for eyes). Safe from any thread; takes no lock. */
#ifndef OBSERVE_LOG_H
#define OBSERVE_LOG_H

#include <stdbool.h>
#include <stdint.h>

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARNING, LOG_ERROR };
enum log_format { LOG_JSON, LOG_TEXT };

struct log;

/* Writes to `descriptor`, which stays the caller's. NULL where memory is short. */
struct log *log_create(int descriptor, enum log_level least, enum log_format format);
void log_free(struct log *log);

bool log_wants(const struct log *log, enum log_level level); /* false for a NULL log */

struct log_field {
  const char *key; /* NULL ends a list of fields */
  enum { LOG_FIELD_TEXT, LOG_FIELD_INTEGER, LOG_FIELD_NUMBER, LOG_FIELD_BOOLEAN } kind;
  const char *text; /* any bytes; what is not UTF-8 is replaced, control characters escaped */
  int64_t integer;
  double number;
};

static inline struct log_field log_text(const char *key, const char *text) {
  return (struct log_field){.key = key, .kind = LOG_FIELD_TEXT, .text = text};
}
static inline struct log_field log_integer(const char *key, int64_t value) {
  return (struct log_field){.key = key, .kind = LOG_FIELD_INTEGER, .integer = value};
}
static inline struct log_field log_number(const char *key, double value) {
  return (struct log_field){.key = key, .kind = LOG_FIELD_NUMBER, .number = value};
}
static inline struct log_field log_boolean(const char *key, bool value) {
  return (struct log_field){.key = key, .kind = LOG_FIELD_BOOLEAN, .integer = value};
}

/* `event` is a snake_case word; time (RFC 3339, UTC, milliseconds) and level
 * are added. A NULL log writes nothing. */
void log_write(struct log *log, enum log_level level, const char *event,
               const struct log_field *fields);

/* LOG(log, LOG_INFO, "listening", log_text("address", a), log_integer("port", p)) */
#define LOG(log, level, ...) LOG_WITH_FIELDS(log, level, __VA_ARGS__, {.key = NULL})
#define LOG_WITH_FIELDS(log, level, event, ...)                                                    \
  log_write((log), (level), (event), (const struct log_field[]){__VA_ARGS__})

#endif
