/* One decoder for everything that has to know where characters end: escaping,
 * validating and cutting agree on what is valid because they all ask here.
 *
 * Well-formed sequences differ from "lead byte, then continuation bytes" only
 * in the range of the second byte after E0, ED, F0 and F4, so the ranges are
 * tested and no code point is computed: nobody here needs its number. */
#include "base/utf8.h"

struct sequence {
  size_t length;             /* 0: not a lead byte */
  unsigned char least, most; /* of the second byte */
};

static struct sequence sequence_of(unsigned char lead) {
  if (lead < 0x80) return (struct sequence){1, 0, 0};
  if (lead < 0xC2) return (struct sequence){0, 0, 0};
  if (lead < 0xE0) return (struct sequence){2, 0x80, 0xBF};
  if (lead < 0xF0)
    return (struct sequence){3, lead == 0xE0 ? 0xA0 : 0x80, lead == 0xED ? 0x9F : 0xBF};
  if (lead < 0xF5)
    return (struct sequence){4, lead == 0xF0 ? 0x90 : 0x80, lead == 0xF4 ? 0x8F : 0xBF};
  return (struct sequence){0, 0, 0};
}

size_t utf8_step(const char *text, size_t length, bool *valid) {
  const unsigned char *bytes = (const unsigned char *)text;
  struct sequence sequence = sequence_of(bytes[0]);
  size_t seen = 1;
  while (seen < sequence.length && seen < length) {
    unsigned char least = seen == 1 ? sequence.least : 0x80;
    unsigned char most = seen == 1 ? sequence.most : 0xBF;
    if (bytes[seen] < least || bytes[seen] > most) break;
    seen++;
  }
  *valid = seen == sequence.length;
  return seen;
}

bool utf8_valid(const char *text, size_t length) {
  bool valid = true;
  for (size_t at = 0; at < length && valid;)
    at += utf8_step(text + at, length - at, &valid);
  return valid;
}

size_t utf8_whole(const char *text, size_t length) {
  /* Only the last three bytes can be the start of an unfinished character. */
  for (size_t back = 1; back <= 3 && back <= length; back++) {
    unsigned char byte = (unsigned char)text[length - back];
    if ((byte & 0xC0) == 0x80) continue;
    bool valid;
    bool unfinished =
        sequence_of(byte).length > back && utf8_step(text + length - back, back, &valid) == back;
    return unfinished ? length - back : length;
  }
  return length;
}
