/* The judge of what is JSON: looks at a whole text, after reading it has failed
 * (or before, where speed does not matter), and says where its first fault is.
 *
 * One loop and a stack of frames in place of recursion: a frame knows where in
 * its array or object the loop is, which is all that a JSON Pointer needs.
 *
 * That no object has a name twice is seen when the object closes: the names of
 * all open objects lie on one stack, each as a hash under a random key (see
 * base/keyed_hash.h) and its place in the text, and those of the closing object
 * are sorted. A hash table per object was rejected: more memory, and nothing
 * gained in what is the path of failures. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/keyed_hash.h"
#include "codec/json_string.h"
#include "codec/number.h"
#include "codec/scan.h"

#define TEXT_OF(number)   #number
#define TEXT_OF_2(number) TEXT_OF(number)
#define DEPTH_TEXT        TEXT_OF_2(SCAN_DEPTH_MAX)

struct name {
  uint64_t hash;
  const char *at; /* its opening quote */
};

struct frame {
  bool object;
  size_t index;     /* of the element or member at hand */
  const char *name; /* of the member at hand, at its opening quote */
  size_t names;     /* how many lay on the stack before this object's */
};

struct check {
  const char *begin, *at, *end;
  struct frame frames[SCAN_DEPTH_MAX];
  size_t depth;
  struct name *names;
  size_t name_count, name_capacity;
  struct hash_key key; /* chosen with the first name */
  bool keyed;
  struct problem *problem;
};

/* ---- Saying where and what ---- */

/* The bytes that a string literal, known to be valid, stands for; to be freed. */
static char *literal_bytes(const char *at, const char *end, size_t *length) {
  const char *behind = at;
  json_string_read(&behind, end, NULL, 0, length);
  char *bytes = malloc(*length + 1);
  if (bytes) json_string_read(&at, end, bytes, *length, NULL);
  return bytes;
}

static void push_frame(char *pointer, const struct frame *frame, const char *end) {
  if (!frame->object) {
    pointer_push_index(pointer, frame->index);
  } else if (frame->name) {
    char name[PROBLEM_POINTER_MAX];
    size_t length;
    const char *at = frame->name;
    json_string_read(&at, end, name, sizeof name, &length);
    pointer_push_name(pointer, name, length < sizeof name ? length : sizeof name);
  }
}

static bool is_continuation(char c) {
  return ((unsigned char)c & 0xC0) == 0x80;
}

/* `what` is at check->at; line and column, in characters, count from 1. */
static bool fault(struct check *check, const char *what) {
  char pointer[PROBLEM_POINTER_MAX] = "";
  for (size_t i = 0; i < check->depth; i++)
    push_frame(pointer, &check->frames[i], check->end);
  size_t line = 1, column = 1;
  for (const char *at = check->begin; at < check->at; at++) {
    if (*at == '\n') {
      line++;
      column = 1;
    } else if (!is_continuation(*at)) {
      column++;
    }
  }
  return problem_set(check->problem, PROBLEM_INVALID_JSON, pointer, "line %zu, column %zu: %s",
                     line, column, what);
}

static bool expected(struct check *check, const char *what) {
  char text[128];
  unsigned char c = check->at < check->end ? (unsigned char)*check->at : 0;
  if (check->at == check->end)
    snprintf(text, sizeof text, "expected %s, got the end of the text", what);
  else if (c > 0x20 && c < 0x7F)
    snprintf(text, sizeof text, "expected %s, got '%c'", what, c);
  else
    snprintf(text, sizeof text, "expected %s, got the byte 0x%02X", what, c);
  return fault(check, text);
}

static bool no_memory(struct check *check) {
  return problem_set_status(check->problem, ATTN_NO_MEMORY, "");
}

/* ---- Scalars ---- */

static void skip_space(struct check *check) {
  while (check->at < check->end &&
         (*check->at == ' ' || *check->at == '\n' || *check->at == '\r' || *check->at == '\t'))
    check->at++;
}

static bool check_string(struct check *check) {
  switch (json_string_read(&check->at, check->end, NULL, 0, NULL)) {
  case JSON_STRING_OK:
    return true;
  case JSON_STRING_OPEN:
    return expected(check, "the '\"' that closes a string");
  case JSON_STRING_CONTROL:
    return fault(check, "a control character in a string has to be escaped");
  case JSON_STRING_ESCAPE:
    return fault(check, "a backslash in a string escapes one of \" \\ / b f n r t, or u and four "
                        "hexadecimal digits");
  case JSON_STRING_SURROGATE:
    return fault(check, "half of a surrogate pair stands alone");
  case JSON_STRING_UTF8:
    break;
  }
  return fault(check, "a string is not UTF-8");
}

static bool check_number(struct check *check) {
  float value;
  const char *start = check->at;
  if (number_scan(&check->at, check->end, &value) == NUMBER_MALFORMED)
    return expected(check, "a digit");
  const char *digits = start + (*start == '-');
  if (check->at == digits + 1 && *digits == '0' && check->at < check->end && *check->at >= '0' &&
      *check->at <= '9')
    return fault(check, "a number has no leading zeros");
  return true;
}

static bool check_word(struct check *check, const char *word) {
  for (; *word; word++, check->at++)
    if (check->at == check->end || *check->at != *word)
      return expected(check, "true, false or null");
  return true;
}

static bool check_scalar(struct check *check) {
  char c = check->at < check->end ? *check->at : '\0';
  if (c == '-' || (c >= '0' && c <= '9')) return check_number(check);
  switch (c) {
  case '"':
    return check_string(check);
  case 't':
    return check_word(check, "true");
  case 'f':
    return check_word(check, "false");
  case 'n':
    return check_word(check, "null");
  case 'N':
  case 'I':
    return fault(check, "expected a value (NaN and Infinity are not JSON)");
  default:
    return expected(check, "a value");
  }
}

/* ---- Names ---- */

static bool push_name(struct check *check, const char *at) {
  if (check->name_count == SCAN_NAMES_MAX) return fault(check, "an object has too many members");
  if (check->name_count == check->name_capacity) {
    size_t capacity = check->name_capacity ? 2 * check->name_capacity : 64;
    struct name *names = realloc(check->names, capacity * sizeof *names);
    if (!names) return no_memory(check);
    check->names = names;
    check->name_capacity = capacity;
  }
  size_t length;
  char *bytes = literal_bytes(at, check->end, &length);
  if (!bytes) return no_memory(check);
  if (!check->keyed) check->key = hash_key_random();
  check->keyed = true;
  check->names[check->name_count++] = (struct name){keyed_hash(check->key, bytes, length), at};
  free(bytes);
  return true;
}

static int by_hash(const void *a, const void *b) {
  const struct name *left = a, *right = b;
  if (left->hash != right->hash) return left->hash < right->hash ? -1 : 1;
  return (left->at > right->at) - (left->at < right->at);
}

/* 1 where both literals stand for the same bytes, 0 where not, -1 where memory
 * is short. */
static int same_name(const struct check *check, const char *a, const char *b) {
  size_t a_length, b_length;
  char *a_bytes = literal_bytes(a, check->end, &a_length);
  char *b_bytes = literal_bytes(b, check->end, &b_length);
  int same = -1;
  if (a_bytes && b_bytes) same = a_length == b_length && memcmp(a_bytes, b_bytes, a_length) == 0;
  free(a_bytes);
  free(b_bytes);
  return same;
}

/* The closing object's names, which are taken off the stack. */
static bool check_names(struct check *check, struct frame *frame) {
  struct name *names = check->names + frame->names;
  size_t count = check->name_count - frame->names;
  check->name_count = frame->names;
  if (count < 2) return true;
  qsort(names, count, sizeof *names, by_hash);
  for (size_t i = 1; i < count; i++) {
    if (names[i].hash != names[i - 1].hash) continue;
    int same = same_name(check, names[i - 1].at, names[i].at);
    if (same < 0) return no_memory(check);
    if (same == 0) continue;
    check->at = frame->name = names[i].at;
    return fault(check, "the object has a member of that name already");
  }
  return true;
}

/* ---- The loop ---- */

static bool check_name(struct check *check) {
  struct frame *frame = &check->frames[check->depth - 1];
  frame->name = NULL;
  skip_space(check);
  const char *at = check->at;
  if (at == check->end || *at != '"') return expected(check, "the name of a member");
  if (!check_string(check) || !push_name(check, at)) return false;
  frame->name = at;
  skip_space(check);
  if (check->at == check->end || *check->at != ':') return expected(check, "':'");
  check->at++;
  return true;
}

/* Behind an opening bracket. *open tells whether a value is to follow. */
static bool open_frame(struct check *check, bool *open) {
  bool object = *check->at == '{';
  if (check->depth == SCAN_DEPTH_MAX) return fault(check, "nested deeper than " DEPTH_TEXT);
  check->at++;
  skip_space(check);
  *open = check->at == check->end || *check->at != (object ? '}' : ']');
  if (!*open) {
    check->at++;
    return true;
  }
  check->frames[check->depth++] = (struct frame){.object = object, .names = check->name_count};
  return !object || check_name(check);
}

/* Behind a value: closes what closes here, up to a comma or the end of all. */
static bool leave_value(struct check *check) {
  while (check->depth > 0) {
    struct frame *frame = &check->frames[check->depth - 1];
    skip_space(check);
    char c = check->at < check->end ? *check->at : '\0';
    if (c == ',') {
      check->at++;
      frame->index++;
      return !frame->object || check_name(check);
    }
    if (c != (frame->object ? '}' : ']'))
      return expected(check, frame->object ? "',' or '}'" : "',' or ']'");
    if (frame->object && !check_names(check, frame)) return false;
    check->at++;
    check->depth--;
  }
  return true;
}

static bool check_value(struct check *check) {
  do {
    skip_space(check);
    bool open = check->at < check->end && (*check->at == '{' || *check->at == '[');
    if (open ? !open_frame(check, &open) : !check_scalar(check)) return false;
    if (!open && !leave_value(check)) return false;
  } while (check->depth > 0);
  skip_space(check);
  return check->at == check->end || expected(check, "the end of the text");
}

bool scan_check(const char *text, size_t length, struct problem *problem) {
  if (length >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0)
    return problem_set(problem, PROBLEM_INVALID_JSON, "",
                       "line 1, column 1: expected a value, got a byte order mark");
  struct check check = {.begin = text, .at = text, .end = text + length, .problem = problem};
  bool valid = check_value(&check);
  free(check.names);
  return valid;
}
