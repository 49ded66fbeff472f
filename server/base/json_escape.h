/* Text as it stands between the quotes of a JSON string. */
#ifndef BASE_JSON_ESCAPE_H
#define BASE_JSON_ESCAPE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buffer.h"

/* Appends the escaped text, without the quotes. What is not valid UTF-8 is
 * replaced by U+FFFD. False where the buffer has failed. */
bool json_escape(struct buffer *out, const char *text, size_t length);

/* The longest escape of one character. */
#define JSON_ESCAPE_MAX 6

/* The same for the first character of `text` (length >= 1), for writers that
 * must not allocate: writes its form to `out`, sets *written, and returns how
 * many bytes of `text` it stood for. */
size_t json_escape_step(const char *text, size_t length, char out[JSON_ESCAPE_MAX],
                        size_t *written);

#endif
