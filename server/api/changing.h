/* A request that changes something, on its way through the writer. */
#ifndef API_CHANGING_H
#define API_CHANGING_H

#include "api/api.h"
#include "codec/body.h"
#include "engine/writer.h"

/* Made by a handler on a worker, answered on the writer's thread. What the
 * write points to is kept alive in here. */
struct changing {
  struct write write; /* first, so that one can be had from the other */
  struct api *api;
  const struct http_request *http;
  struct http_reply *reply;
  void (*answer)(struct changing *changing); /* fills the reply of a write that was done */
  struct rows_body rows;
  struct settings_body settings;
  char path[512]; /* of a backup */
};

/* NULL where memory is short: then the reply has been completed. */
struct changing *changing_create(struct api *api, const struct http_request *request,
                                 struct http_reply *reply, enum write_kind kind,
                                 void (*answer)(struct changing *changing));

/* Each of them is the end of the handler's business with it. */
void changing_submit(struct changing *changing);
void changing_refuse(struct changing *changing, const struct problem *problem);

#endif
