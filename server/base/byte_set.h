/* Sets of bytes, to tell in a few instructions where a text leaves one. strspn()
 * builds such a table anew in each call. */
#ifndef BASE_BYTE_SET_H
#define BASE_BYTE_SET_H

#include <stdbool.h>
#include <stddef.h>

/* true for the bytes that are in it; NUL never is. */
typedef bool byte_set[256];

/* The length of the text's beginning that consists of bytes of the set. */
static inline size_t byte_set_span(const byte_set set, const char *text) {
  size_t length = 0;
  while (set[(unsigned char)text[length]])
    length++;
  return length;
}

#endif
