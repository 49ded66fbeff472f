/* Which form of a reply the client would rather have. */
#ifndef HTTP_ACCEPT_H
#define HTTP_ACCEPT_H

#include "http/http.h"

/* The one of the forms, at least one, that the header value ("" where absent) ranks highest;
 * the first one if it has no preference: see accept.c. */
const struct http_media *accept_choose(const char *accept, const struct http_media *const *forms);

#endif
