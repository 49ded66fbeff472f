/* Which form of a reply the client would rather have. */
#ifndef HTTP_ACCEPT_H
#define HTTP_ACCEPT_H

#include <stdbool.h>

/* True where the header value ("" where absent) ranks application/x-safetensors
 * above application/json: see accept.c. */
bool accept_prefers_tensors(const char *accept);

#endif
