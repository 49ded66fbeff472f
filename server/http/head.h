/* The checks of a request head, done once, before anything else looks at it. */
#ifndef HTTP_HEAD_H
#define HTTP_HEAD_H

#include <microhttpd.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/problem.h"

/* The request line. Method and version are where libmicrohttpd left them. It cuts
 * the target while it parses on, so that is a copy, made before; `place` is
 * where the original began. */
struct head_line {
  const char *method, *target, *place, *version;
};

/* The longest Idempotency-Key. */
#define HEAD_KEY_MAX 255

/* What the rest of the server wants to know of a head that passed. Texts are
 * "" where the header is absent and live as long as the request does. */
struct head {
  bool chunked;
  bool expects_continue; /* the client waits before it sends the body */
  uint64_t content_length;
  const char *content_type, *content_encoding, *accept, *if_match, *if_none_match;
  char idempotency_key[HEAD_KEY_MAX + 1];
  struct buffer accept_list; /* holds `accept` where the header came more than once */
};

/* A head without anything, for head_free() to be safe. */
void head_init(struct head *head);

/* False with the problem to answer. Whatever the problem is, where one request
 * ends and the next begins is then unknown: the connection has to end. Either
 * way head_free() is due. `head` was initialised. */
bool head_check(struct MHD_Connection *connection, const struct head_line *line, struct head *head,
                struct problem *problem);
void head_free(struct head *head);

static inline bool head_announces_body(const struct head *head) {
  return head->chunked || head->content_length > 0;
}

/* True where the running libmicrohttpd is one of those that take a bare LF for a
 * line's end, even in a chunked body. */
bool head_parser_is_lenient(void);

/* The path and the query string of a request target, cut in place. Takes the
 * absolute form, too (http://host/path), as HTTP/1.1 obliges a server to. */
void head_split_target(char *target, const char **path, const char **query_string);

#endif
