/* UTF-8, character by character, for whoever prints or cuts text that came
 * from outside. Strict as RFC 3629: no overlong forms, no surrogates, nothing
 * past U+10FFFF. */
#ifndef BASE_UTF8_H
#define BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>

/* The bytes of the first character of `text` (length >= 1): 1 to 4. Where it
 * is not valid, *valid is false and the count is that of the bytes which one
 * U+FFFD stands for (the "maximal subpart" of the Unicode standard, 3.9). */
size_t utf8_step(const char *text, size_t length, bool *valid);

bool utf8_valid(const char *text, size_t length);

/* What is left of `length` once a character that was cut off in its middle at
 * the end of `text` is taken away. */
size_t utf8_whole(const char *text, size_t length);

#endif
