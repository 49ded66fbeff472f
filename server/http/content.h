/* Which bodies are taken: the rule for Content-Type and Content-Encoding. */
#ifndef HTTP_CONTENT_H
#define HTTP_CONTENT_H

#include <stdbool.h>

#include "base/problem.h"
#include "http/http.h"

/* Which one of the forms that are taken the body has, in `media`; false with
 * unsupported_media_type. Type and encoding are header values, "" where absent; a missing type
 * stands for the first form. */
bool content_check(const char *type, const char *encoding, const struct http_media *const *takes,
                   const struct http_media **media, struct problem *problem);

#endif
