/* Which bodies are taken: the rule for Content-Type and Content-Encoding. */
#ifndef HTTP_CONTENT_H
#define HTTP_CONTENT_H

#include <stdbool.h>

#include "base/problem.h"
#include "http/http.h"

/* The form of the body, in `media`; false with unsupported_media_type. Both
 * are header values, "" where absent; a missing type counts as JSON. */
bool content_check(const char *type, const char *encoding, bool takes_tensors,
                   enum http_media *media, struct problem *problem);

#endif
