/* The only place that knows how JSON escapes text: replies, problems, the log
 * and --print-config all come through here.
 *
 * Beyond what RFC 8259 asks (quote, backslash, U+0000 to U+001F) the other
 * control characters, U+007F to U+009F, are escaped as well: the log and error
 * lines are read in terminals, and U+009B starts a terminal command just as
 * ESC [ does. To a JSON parser both forms are the same.
 *
 * Nearly all text is plain ASCII, so json_escape() copies runs of plain bytes
 * at once and takes the careful step only in between. */
#include "base/json_escape.h"

#include <string.h>

#include "base/utf8.h"

static bool is_plain(char c) {
  unsigned char byte = (unsigned char)c;
  return byte >= 0x20 && byte < 0x7F && byte != '"' && byte != '\\';
}

static char short_escape(unsigned char byte) {
  switch (byte) {
  case '"':
  case '\\':
    return (char)byte;
  case '\b':
    return 'b';
  case '\f':
    return 'f';
  case '\n':
    return 'n';
  case '\r':
    return 'r';
  case '\t':
    return 't';
  default:
    return 0;
  }
}

static size_t put_control(unsigned char code, char out[JSON_ESCAPE_MAX]) {
  static const char digits[] = "0123456789abcdef";
  char letter = short_escape(code);
  out[0] = '\\';
  if (letter) {
    out[1] = letter;
    return 2;
  }
  memcpy(out + 1, "u00", 3);
  out[4] = digits[code >> 4];
  out[5] = digits[code & 15];
  return 6;
}

size_t json_escape_step(const char *text, size_t length, char out[JSON_ESCAPE_MAX],
                        size_t *written) {
  bool valid;
  size_t count = utf8_step(text, length, &valid);
  unsigned char first = (unsigned char)text[0];
  if (!valid) {
    memcpy(out, "\xEF\xBF\xBD", 3);
    *written = 3;
  } else if (count == 1 && !is_plain(text[0])) {
    *written = put_control(first, out);
  } else if (first == 0xC2 && (unsigned char)text[1] < 0xA0) {
    *written = put_control((unsigned char)text[1], out);
  } else {
    memcpy(out, text, count);
    *written = count;
  }
  return count;
}

bool json_escape(struct buffer *out, const char *text, size_t length) {
  size_t at = 0;
  while (at < length) {
    size_t run = at;
    while (run < length && is_plain(text[run]))
      run++;
    if (!buffer_append(out, text + at, run - at)) return false;
    at = run;
    if (at == length) break;
    char escaped[JSON_ESCAPE_MAX];
    size_t written;
    at += json_escape_step(text + at, length - at, escaped, &written);
    if (!buffer_append(out, escaped, written)) return false;
  }
  return out->status == BUFFER_OK;
}
