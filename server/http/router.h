/* Finds the route of a request in the table that the api declares. */
#ifndef HTTP_ROUTER_H
#define HTTP_ROUTER_H

#include "http/http.h"

#define HTTP_NAME_MAX 128 /* bytes of what may stand for a {placeholder} */

struct route_match {
  size_t index;   /* into the table; its size where no route was found */
  size_t pattern; /* of a route with the path's pattern, whatever the method; else the size */
  char name[HTTP_NAME_MAX + 1];   /* what stood for the first placeholder, "" without one */
  char second[HTTP_NAME_MAX + 1]; /* and for the second */
  char allow[64];                 /* the methods of the path, where the method was wrong */
};

/* True where a route was found. Else `problem` is not_found,
 * method_not_allowed (and `allow` filled) or invalid_name (and `index` tells
 * the route, for log and metrics). `path` is without the query string. */
bool router_find(const struct http_route *routes, size_t count, const char *method,
                 const char *path, struct route_match *match, struct problem *problem);

/* The name of the method on the wire, for the route table's own users. */
const char *router_method_name(enum http_method method);

#endif
