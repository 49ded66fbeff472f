/* The configuration file's outermost object, member by member. What the members
 * mean is known to server/options.c alone, so values are handed on as text,
 * which is also how the environment and the flags give them. */
#include "codec/config_file.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"
#include "codec/file.h"
#include "codec/scan.h"

/* Matrices of scores can be written into the file; more than this is a mistake. */
#define CONFIG_BYTES_MAX ((size_t)64 << 20)

struct reading {
  struct scan scan;
  const char *path;
  bool (*set)(void *context, const char *name, const char *value, char *error, size_t error_size);
  void *context;
  char *error;
  size_t error_size;
};

static bool fail(struct reading *reading, const char *why) {
  snprintf(reading->error, reading->error_size, "%s: %s", reading->path, why);
  return false;
}

static bool fail_value(struct reading *reading, const char *name, const char *why) {
  snprintf(reading->error, reading->error_size, "%s: %s: %s", reading->path, name, why);
  return false;
}

/* The value at the scan as text that is the caller's to free: of a string what
 * is in it, of anything else its JSON as it stands there. NULL where there is no
 * memory for it or, with *nul, where a string has a NUL in it. */
static char *value_text(struct scan *scan, bool *nul) {
  const char *start;
  size_t length;
  if (scan_kind(scan) != SCAN_STRING)
    return scan_skip(scan, &start, &length) ? strndup(start, length) : NULL;
  json_t *string = scan_load(scan, SCAN_STRING);
  *nul = string && strlen(json_string_value(string)) != json_string_length(string);
  char *text = string && !*nul ? strdup(json_string_value(string)) : NULL;
  json_decref(string);
  return text;
}

static bool set_member(struct reading *reading, const struct scan_object *object) {
  if (object->name_length >= sizeof object->name || strlen(object->name) != object->name_length)
    return fail_value(reading, object->name, "there is no option of that name");
  if (scan_kind(&reading->scan) == SCAN_NULL)
    return fail_value(reading, object->name, "null is no value; leave the option out");
  bool nul = false;
  char *value = value_text(&reading->scan, &nul);
  if (nul) return fail_value(reading, object->name, "the text has a NUL in it");
  if (!value) return fail(reading, "out of memory");
  bool done =
      reading->set(reading->context, object->name, value, reading->error, reading->error_size);
  free(value);
  return done;
}

static bool set_members(struct reading *reading) {
  struct scan_object object = {.table = NULL};
  if (!scan_open(&reading->scan, '{')) return fail(reading, "expected an object of options");
  while (scan_member(&reading->scan, &object) >= 0)
    if (!set_member(reading, &object)) return false;
  return true;
}

bool config_file_read(const char *path,
                      bool (*set)(void *context, const char *name, const char *value, char *error,
                                  size_t error_size),
                      void *context, char *error, size_t error_size) {
  struct reading reading = {
      .path = path, .set = set, .context = context, .error = error, .error_size = error_size};
  struct problem problem;
  struct buffer text;
  buffer_init(&text, CONFIG_BYTES_MAX);
  bool done = file_read(path, &text, error, error_size);
  /* Checked first, so that nothing is set from a file with a fault. */
  if (done && !scan_check(text.data ? text.data : "", text.length, &problem))
    done = fail(&reading, problem.detail);
  if (done) {
    scan_begin(&reading.scan, text.data, text.length, &problem);
    done = set_members(&reading);
  }
  buffer_free(&text);
  return done;
}
