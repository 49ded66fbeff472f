/* The cursor of scan.h. Nothing here recurses or allocates, whatever the text:
 * how deep a reader goes is the reader's own shape, and what it does not know it
 * refuses. The problem is filled by the first fault of meaning only; whether
 * the text is JSON at all is decided at the end, see scan_end().
 *
 * Walking a tree made by jansson was rejected for bodies: an array of empty arrays
 * takes three bytes of text and over a hundred of tree, so that clients would size
 * our memory; matrices take it 20 times as long; and it says neither which number
 * of a tree is too large, nor takes names with U+0000 in them. So the members are
 * found here, and single values are jansson's (scan_load.c). */
#include "codec/scan.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"
#include "codec/json_string.h"

void scan_begin(struct scan *scan, const char *text, size_t length, struct problem *problem) {
  *scan = (struct scan){.begin = text, .at = text, .end = text + length, .problem = problem};
  /* What remains where reading fails for bad syntax that scan_check() then does
   * not find: the two have to be of one opinion. */
  problem_set(problem, PROBLEM_INTERNAL, "", "the JSON could not be read");
}

bool scan_end(struct scan *scan, bool read) {
  if (read && scan_kind(scan) == SCAN_NOTHING && scan->at == scan->end) return true;
  if (!read && scan->problem->code == PROBLEM_INVALID_JSON) return false;
  struct problem invalid;
  if (!scan_check(scan->begin, (size_t)(scan->end - scan->begin), &invalid))
    *scan->problem = invalid;
  return false;
}

/* ---- Faults ---- */

bool scan_fault(struct scan *scan, enum problem_code code, const char *format, ...) {
  char detail[PROBLEM_DETAIL_MAX + 1];
  va_list arguments;
  va_start(arguments, format);
  if (vsnprintf(detail, sizeof detail, format, arguments) < 0) detail[0] = '\0';
  va_end(arguments);
  return problem_set(scan->problem, code, scan->pointer, "%s", detail);
}

bool scan_wrong_type(struct scan *scan, const char *expected) {
  enum scan_kind kind = scan_kind(scan);
  if (kind == SCAN_NOTHING) return false;
  return scan_fault(scan, PROBLEM_INVALID_TYPE, "expected %s, got %s", expected,
                    scan_kind_name(kind));
}

/* ---- Values ---- */

enum scan_kind scan_kind(struct scan *scan) {
  while (scan->at < scan->end &&
         (*scan->at == ' ' || *scan->at == '\n' || *scan->at == '\r' || *scan->at == '\t'))
    scan->at++;
  if (scan->at == scan->end) return SCAN_NOTHING;
  switch (*scan->at) {
  case '{':
    return SCAN_OBJECT;
  case '[':
    return SCAN_ARRAY;
  case '"':
    return SCAN_STRING;
  case 't':
  case 'f':
    return SCAN_BOOLEAN;
  case 'n':
    return SCAN_NULL;
  default:
    return *scan->at == '-' || (*scan->at >= '0' && *scan->at <= '9') ? SCAN_NUMBER : SCAN_NOTHING;
  }
}

const char *scan_kind_name(enum scan_kind kind) {
  static const char *const names[] = {
      [SCAN_NOTHING] = "nothing", [SCAN_OBJECT] = "an object", [SCAN_ARRAY] = "an array",
      [SCAN_STRING] = "a string", [SCAN_NUMBER] = "a number",  [SCAN_BOOLEAN] = "a boolean",
      [SCAN_NULL] = "null",
  };
  return names[kind];
}

bool scan_take(struct scan *scan, char c) {
  scan_kind(scan);
  if (scan->at == scan->end || *scan->at != c) return false;
  scan->at++;
  return true;
}

bool scan_string(struct scan *scan, char *bytes, size_t room, size_t *length) {
  if (scan_kind(scan) != SCAN_STRING) return scan_wrong_type(scan, "a string");
  return json_string_read(&scan->at, scan->end, bytes, room, length) == JSON_STRING_OK;
}

static void skip_string(struct scan *scan) {
  scan->at++;
  while (scan->at < scan->end && *scan->at != '"')
    scan->at += *scan->at == '\\' && scan->end - scan->at > 1 ? 2 : 1;
  if (scan->at < scan->end) scan->at++;
}

static void skip_nested(struct scan *scan) {
  size_t depth = 0;
  do {
    char c = *scan->at;
    if (c == '"') {
      skip_string(scan);
      continue;
    }
    if (c == '[' || c == '{') depth++;
    if (c == ']' || c == '}') depth--;
    scan->at++;
  } while (depth > 0 && scan->at < scan->end);
}

static bool ends_word(char c) {
  return c == ',' || c == ']' || c == '}' || c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

bool scan_skip(struct scan *scan, const char **start, size_t *length) {
  enum scan_kind kind = scan_kind(scan);
  if (kind == SCAN_NOTHING) return false;
  *start = scan->at;
  if (kind == SCAN_STRING) {
    skip_string(scan);
  } else if (kind == SCAN_ARRAY || kind == SCAN_OBJECT) {
    skip_nested(scan);
  } else {
    while (scan->at < scan->end && !ends_word(*scan->at))
      scan->at++;
  }
  *length = (size_t)(scan->at - *start);
  return true;
}

/* ---- Arrays and objects ---- */

size_t scan_enter_index(struct scan *scan, size_t index) {
  size_t outer = strlen(scan->pointer);
  pointer_push_index(scan->pointer, index);
  return outer;
}

size_t scan_enter_name(struct scan *scan, const char *name) {
  size_t outer = strlen(scan->pointer);
  pointer_push_name(scan->pointer, name, strlen(name));
  return outer;
}

void scan_leave(struct scan *scan, size_t outer) {
  scan->pointer[outer] = '\0';
}

bool scan_open(struct scan *scan, char bracket) {
  if (scan_take(scan, bracket)) return true;
  return scan_wrong_type(scan, bracket == '{' ? "an object" : "an array");
}

int scan_element(struct scan *scan, size_t index) {
  if (scan_take(scan, ']')) return SCAN_CLOSED;
  if (index > 0 && !scan_take(scan, ',')) return SCAN_FAULT;
  return scan_kind(scan) == SCAN_NOTHING ? SCAN_FAULT : 1;
}

static int unknown_member(struct scan *scan, const struct scan_object *object) {
  const struct scan_table *table = object->table;
  char names[PROBLEM_DETAIL_MAX] = "";
  size_t length = 0;
  for (size_t i = 0; i < table->count && length < sizeof names; i++)
    length += (size_t)snprintf(names + length, sizeof names - length, "%s\"%s\"", i ? ", " : "",
                               table->fields[i].name);
  scan_fault(scan, PROBLEM_UNKNOWN_MEMBER, "%s takes %s, not \"%s\"", table->what, names,
             object->name);
  return SCAN_FAULT;
}

/* The name at the cursor, and the colon behind it. */
static bool read_name(struct scan *scan, struct scan_object *object) {
  size_t room = sizeof object->name - 1;
  if (scan_kind(scan) != SCAN_STRING) return false;
  if (json_string_read(&scan->at, scan->end, object->name, room, &object->name_length) !=
      JSON_STRING_OK)
    return false;
  size_t kept = object->name_length;
  if (kept > room) kept = utf8_whole(object->name, room);
  object->name[kept] = '\0';
  pointer_push_name(scan->pointer, object->name, kept);
  return scan_take(scan, ':');
}

bool scan_is_named(const struct scan_object *object, const char *name) {
  return strlen(name) == object->name_length &&
         memcmp(name, object->name, object->name_length) == 0;
}

static int find_field(struct scan *scan, struct scan_object *object) {
  const struct scan_table *table = object->table;
  size_t index = 0;
  while (index < table->count && !scan_is_named(object, table->fields[index].name))
    index++;
  if (index == table->count) return unknown_member(scan, object);
  const uint32_t bit = (uint32_t)1 << index;
  if (object->seen & bit) return SCAN_FAULT;
  object->seen |= bit;
  return (int)index;
}

int scan_member(struct scan *scan, struct scan_object *object) {
  bool first = !object->entered;
  if (first) object->outer = strlen(scan->pointer);
  object->entered = true;
  scan_leave(scan, object->outer);
  if (scan_take(scan, '}')) return SCAN_CLOSED;
  if (!first && !scan_take(scan, ',')) return SCAN_FAULT;
  if (!read_name(scan, object)) return SCAN_FAULT;
  return object->table ? find_field(scan, object) : 0;
}

int scan_find(struct scan *scan, const char *name) {
  struct scan_object object = {.table = NULL};
  const char *start;
  size_t length;
  int member;
  if (!scan_open(scan, '{')) return SCAN_FAULT;
  while ((member = scan_member(scan, &object)) == 0 && !scan_is_named(&object, name))
    if (!scan_skip(scan, &start, &length)) return SCAN_FAULT;
  return member;
}

bool scan_members(struct scan *scan, const struct scan_table *table, void *to, uint32_t *seen) {
  struct scan_object object = {.table = table};
  int member;
  if (!scan_open(scan, '{')) return false;
  while ((member = scan_member(scan, &object)) >= 0) {
    const struct scan_field *field = &table->fields[member];
    if (!field->read(scan, (char *)to + field->offset)) return false;
  }
  if (member != SCAN_CLOSED) return false;
  for (size_t i = 0; i < table->count; i++)
    if (table->fields[i].required && !(object.seen >> i & 1))
      return scan_missing(scan, table->what, table->fields[i].name);
  if (seen) *seen = object.seen;
  return true;
}

bool scan_missing(struct scan *scan, const char *what, const char *name) {
  scan_enter_name(scan, name);
  return scan_fault(scan, PROBLEM_MISSING_MEMBER, "%s needs \"%s\"", what, name);
}
