/* Which bodies are taken: the rule for Content-Type and Content-Encoding. */
#ifndef HTTP_CONTENT_H
#define HTTP_CONTENT_H

#include <stdbool.h>

#include "base/problem.h"

/* False with unsupported_media_type. Both are header values, "" where absent;
 * a missing type counts as JSON. */
bool content_check(const char *type, const char *encoding, struct problem *problem);

#endif
