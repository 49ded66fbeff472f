/* Problems: filling them, and their one form on the wire.
 *
 * A struct problem has fixed room and no owner, because it is filled where
 * things already went wrong, memory among them: describing a failure must not
 * be able to fail. The price is that details and pointers are cut; they are
 * cut between characters, never within an escape or an index, so what is left
 * is still text, and still the beginning of the right pointer. */
#include "base/problem.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/json_escape.h"
#include "base/utf8.h"

static const struct problem_info infos[PROBLEM_COUNT] = {
#define PROBLEM_INFO(id, status, code, title) [PROBLEM_##id] = {status, code, title},
    PROBLEM_LIST(PROBLEM_INFO)
#undef PROBLEM_INFO
};

/* The one mapping of what the library reports. A status of the library that
 * has no line here is an undeclared name below; a line too many trips the
 * assertion. The api checks shapes and arguments before it calls the library,
 * so ATTN_BAD_ARGUMENT (and ATTN_OK, which is no failure) means a fault of
 * ours. */
#define STATUS_LIST(X)                                                                             \
  X(ATTN_OK, INTERNAL)                                                                             \
  X(ATTN_NO_MEMORY, OUT_OF_MEMORY)                                                                 \
  X(ATTN_BAD_ARGUMENT, INTERNAL)                                                                   \
  X(ATTN_UNKNOWN_NAME, INVALID_PARAMETER)                                                          \
  X(ATTN_BAD_PARAMETER, INVALID_PARAMETER)                                                         \
  X(ATTN_BAD_SHAPE, SHAPE_MISMATCH)                                                                \
  X(ATTN_EMPTY_MEMORY, EMPTY_MEMORY)                                                               \
  X(ATTN_TOO_LARGE, OUT_OF_MEMORY)                                                                 \
  X(ATTN_NOT_FINITE, INVALID_NUMBER)                                                               \
  X(ATTN_OUT_OF_RANGE, INVALID_NUMBER)                                                             \
  X(ATTN_NOT_REPRESENTABLE, NOT_REPRESENTABLE)                                                     \
  X(ATTN_CANCELLED, NOT_READY)

enum {
#define STATUS_CODE(status, code) CODE_OF_##status = PROBLEM_##code,
  STATUS_LIST(STATUS_CODE)
#undef STATUS_CODE
};

enum {
#define STATUS_LINE(status, code) LINE_OF_##status,
  STATUS_LIST(STATUS_LINE)
#undef STATUS_LINE
      STATUS_LINES
};
_Static_assert((int)STATUS_LINES == (int)ATTN_STATUS_COUNT, "one line for each attn_status");

static const enum problem_code code_of_status[ATTN_STATUS_COUNT] = {
#define CODE_OF_STATUS(status, text) [status] = (enum problem_code)CODE_OF_##status,
    ATTN_STATUS_LIST(CODE_OF_STATUS)
#undef CODE_OF_STATUS
};

const struct problem_info *problem_info(enum problem_code code) {
  return &infos[code < PROBLEM_COUNT ? code : PROBLEM_INTERNAL];
}

/* Copies as much as there is room for, whole characters only. `from` may lie
 * within `to`. */
static void copy_text(char *to, size_t room, const char *from) {
  size_t length = strlen(from);
  if (length >= room) length = utf8_whole(from, room - 1);
  memmove(to, from, length);
  to[length] = '\0';
}

bool problem_set(struct problem *problem, enum problem_code code, const char *pointer,
                 const char *format, ...) {
  /* One byte more than is kept tells a text that fits from one that was cut;
   * and the arguments may be parts of `problem` itself. */
  char detail[PROBLEM_DETAIL_MAX + 1];
  va_list arguments;
  va_start(arguments, format);
  if (vsnprintf(detail, sizeof detail, format, arguments) < 0) detail[0] = '\0';
  va_end(arguments);
  problem->code = code;
  copy_text(problem->pointer, sizeof problem->pointer, pointer ? pointer : "");
  copy_text(problem->detail, sizeof problem->detail, detail);
  return false;
}

bool problem_set_status(struct problem *problem, attn_status status, const char *pointer) {
  enum problem_code code =
      (unsigned)status < ATTN_STATUS_COUNT ? code_of_status[status] : PROBLEM_INTERNAL;
  return problem_set(problem, code, pointer, "%s", attn_status_text(status));
}

static void write_member(struct buffer *out, const char *name, const char *text) {
  buffer_printf(out, ",\"%s\":\"", name);
  json_escape(out, text, strlen(text));
  buffer_putc(out, '"');
}

void problem_write(struct buffer *out, const struct problem *problem) {
  const struct problem_info *info = problem_info(problem->code);
  buffer_printf(out, "{\"type\":\"about:blank#%s\"", info->code);
  write_member(out, "title", info->title);
  buffer_printf(out, ",\"status\":%d", info->status);
  write_member(out, "detail", problem->detail);
  write_member(out, "code", info->code);
  if (problem->pointer[0] != '\0') write_member(out, "pointer", problem->pointer);
  buffer_putc(out, '}');
}

/* The form that one character of a name has in a pointer; its length. A NUL
 * would end the pointer, so U+FFFD stands for it. */
static size_t pointer_form(const char *character, size_t count, const char **form) {
  switch (*character) {
  case '~':
    *form = "~0";
    return 2;
  case '/':
    *form = "~1";
    return 2;
  case '\0':
    *form = "\xEF\xBF\xBD";
    return 3;
  default:
    *form = character;
    return count;
  }
}

void pointer_push_name(char *pointer, const char *name, size_t length) {
  size_t end = strlen(pointer);
  if (end + 1 >= PROBLEM_POINTER_MAX) return;
  pointer[end++] = '/';
  for (size_t at = 0; at < length;) {
    bool valid;
    size_t count = utf8_step(name + at, length - at, &valid);
    const char *form;
    size_t form_length = pointer_form(name + at, count, &form);
    if (form_length >= PROBLEM_POINTER_MAX - end) break;
    memcpy(pointer + end, form, form_length);
    end += form_length;
    at += count;
  }
  pointer[end] = '\0';
}

void pointer_push_index(char *pointer, size_t index) {
  char token[32];
  int length = snprintf(token, sizeof token, "/%zu", index);
  size_t end = strlen(pointer);
  /* Half an index would blame another place, so it is all or nothing. */
  if (length > 0 && (size_t)length < PROBLEM_POINTER_MAX - end)
    memcpy(pointer + end, token, (size_t)length + 1);
}
