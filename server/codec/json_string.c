/* One reader for all strings of a body, whether they are kept, compared or only
 * checked, so that there is one opinion on what is valid: RFC 8259, UTF-8
 * without surrogates, and \u escapes that stand for a character.
 *
 * It writes into room that the caller has, never more than that, and counts on
 * past its end: a string that is too long for its purpose can be refused with
 * its length and costs no memory. Unescaping in place was rejected: the text
 * belongs to the caller, and a failed request is read a second time to find out
 * what is wrong with it. */
#include "codec/json_string.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "base/utf8.h"

struct sink {
  char *bytes;
  size_t room, length;
};

static void put(struct sink *sink, const char *bytes, size_t count) {
  if (sink->length < sink->room) {
    size_t left = sink->room - sink->length;
    memcpy(sink->bytes + sink->length, bytes, count < left ? count : left);
  }
  sink->length += count;
}

static void put_code_point(struct sink *sink, uint32_t code) {
  char bytes[4];
  size_t count;
  if (code < 0x80) {
    bytes[0] = (char)code;
    count = 1;
  } else if (code < 0x800) {
    bytes[0] = (char)(0xC0 | code >> 6);
    bytes[1] = (char)(0x80 | (code & 0x3F));
    count = 2;
  } else if (code < 0x10000) {
    bytes[0] = (char)(0xE0 | code >> 12);
    bytes[1] = (char)(0x80 | (code >> 6 & 0x3F));
    bytes[2] = (char)(0x80 | (code & 0x3F));
    count = 3;
  } else {
    bytes[0] = (char)(0xF0 | code >> 18);
    bytes[1] = (char)(0x80 | (code >> 12 & 0x3F));
    bytes[2] = (char)(0x80 | (code >> 6 & 0x3F));
    bytes[3] = (char)(0x80 | (code & 0x3F));
    count = 4;
  }
  put(sink, bytes, count);
}

/* Four hexadecimal digits at `at`; UINT32_MAX where there are none. */
static uint32_t read_hex(const char *at, const char *end) {
  if (end - at < 4) return UINT32_MAX;
  uint32_t code = 0;
  for (int i = 0; i < 4; i++) {
    char c = at[i];
    uint32_t digit;
    if (c >= '0' && c <= '9')
      digit = (uint32_t)(c - '0');
    else if (c >= 'a' && c <= 'f')
      digit = (uint32_t)(c - 'a') + 10;
    else if (c >= 'A' && c <= 'F')
      digit = (uint32_t)(c - 'A') + 10;
    else
      return UINT32_MAX;
    code = code << 4 | digit;
  }
  return code;
}

/* *text is at the backslash of \uXXXX, and stays there on a fault. */
static enum json_string_fault read_unicode(const char **text, const char *end, struct sink *sink) {
  const char *at = *text + 2;
  uint32_t code = read_hex(at, end);
  if (code == UINT32_MAX) return JSON_STRING_ESCAPE;
  at += 4;
  if (code >= 0xD800 && code < 0xE000) {
    uint32_t low = UINT32_MAX;
    if (code < 0xDC00 && end - at >= 6 && at[0] == '\\' && at[1] == 'u')
      low = read_hex(at + 2, end);
    if (low < 0xDC00 || low >= 0xE000) return JSON_STRING_SURROGATE;
    code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
    at += 6;
  }
  put_code_point(sink, code);
  *text = at;
  return JSON_STRING_OK;
}

static char simple_escape(char c) {
  switch (c) {
  case '"':
  case '\\':
  case '/':
    return c;
  case 'b':
    return '\b';
  case 'f':
    return '\f';
  case 'n':
    return '\n';
  case 'r':
    return '\r';
  case 't':
    return '\t';
  default:
    return 0;
  }
}

static enum json_string_fault read_escape(const char **text, const char *end, struct sink *sink) {
  if (end - *text < 2) return JSON_STRING_OPEN;
  char kind = (*text)[1];
  if (kind == 'u') return read_unicode(text, end, sink);
  char meant = simple_escape(kind);
  if (!meant) return JSON_STRING_ESCAPE;
  put(sink, &meant, 1);
  *text += 2;
  return JSON_STRING_OK;
}

static enum json_string_fault read_multibyte(const char **text, const char *end,
                                             struct sink *sink) {
  if ((unsigned char)**text < 0x80) return JSON_STRING_CONTROL;
  bool valid;
  size_t count = utf8_step(*text, (size_t)(end - *text), &valid);
  if (!valid) return JSON_STRING_UTF8;
  put(sink, *text, count);
  *text += count;
  return JSON_STRING_OK;
}

static bool is_plain(char c) {
  return (unsigned char)c >= 0x20 && (unsigned char)c < 0x80 && c != '"' && c != '\\';
}

enum json_string_fault json_string_read(const char **text, const char *end, char *bytes,
                                        size_t room, size_t *length) {
  struct sink sink = {.bytes = bytes, .room = room};
  enum json_string_fault fault = JSON_STRING_OK;
  for (++*text; fault == JSON_STRING_OK;) {
    const char *run = *text;
    while (*text < end && is_plain(**text))
      ++*text;
    put(&sink, run, (size_t)(*text - run));
    if (*text == end) {
      fault = JSON_STRING_OPEN;
    } else if (**text == '"') {
      ++*text;
      break;
    } else {
      fault = **text == '\\' ? read_escape(text, end, &sink) : read_multibyte(text, end, &sink);
    }
  }
  if (length) *length = sink.length;
  return fault;
}
