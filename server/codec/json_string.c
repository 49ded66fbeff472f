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

#include <ctype.h>
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
  static const unsigned char leads[] = {0, 0, 0xC0, 0xE0, 0xF0};
  const size_t count = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
  char bytes[4];
  for (size_t i = count; i-- > 1; code >>= 6)
    bytes[i] = (char)(0x80 | (code & 0x3F));
  bytes[0] = (char)(leads[count] | code);
  put(sink, bytes, count);
}

/* Four hexadecimal digits at `at`; UINT32_MAX where there are none. */
static uint32_t read_hex(const char *at, const char *end) {
  uint32_t code = 0;
  if (end - at < 4) return UINT32_MAX;
  for (int i = 0; i < 4; i++) {
    const int c = (unsigned char)at[i];
    if (!isxdigit(c)) return UINT32_MAX;
    code = code << 4 | (uint32_t)(c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
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

static enum json_string_fault read_escape(const char **text, const char *end, struct sink *sink) {
  static const char letters[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
  if (end - *text < 2) return JSON_STRING_OPEN;
  const char kind = (*text)[1];
  if (kind == 'u') return read_unicode(text, end, sink);
  const char *letter = kind ? strchr(letters, kind) : NULL;
  if (!letter) return JSON_STRING_ESCAPE;
  put(sink, &meant[letter - letters], 1);
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
