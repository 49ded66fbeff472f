/* Where the bytes of a request's body go. */
#ifndef HTTP_INTAKE_H
#define HTTP_INTAKE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"
#include "http/http.h"

struct intake {
  const struct http_upload *to; /* NULL: the body is collected */
  void *upload;
  bool pending; /* the upload is ours to drop */
  struct buffer collected;
  uint64_t limit, taken; /* bytes */
  uint64_t announced;    /* Content-Length; 0: none */
};

/* What an upload is begun with. */
struct intake_source {
  const struct http_upload *upload; /* the route's, or NULL */
  void *api;
  const struct http_request *request; /* its head */
  uint64_t length;                    /* of the body; UINT64_MAX: unknown */
};

void intake_init(struct intake *intake, uint64_t limit);

/* After intake_drop(): as new, for the next request. */
void intake_renew(struct intake *intake, uint64_t limit);

/* After intake_drop(): ends what that has kept. */
void intake_free(struct intake *intake);

/* Both false with a problem; then intake_drop() is due. */
bool intake_begin(struct intake *intake, const struct intake_source *source,
                  struct problem *problem);
bool intake_piece(struct intake *intake, const char *bytes, size_t count, struct problem *problem);

/* The body as the handler sees it: bytes or upload. */
void intake_show(const struct intake *intake, struct http_request *request);

/* The handler is about to be called: the upload is its own from here on. */
void intake_hand_over(struct intake *intake);

/* Ends what is there: the collected bytes, but for a little memory that may serve
 * for the next ones, and an upload that was not handed over. May be called again. */
void intake_drop(struct intake *intake);

#endif
