/* Binary bodies: tensors in the safetensors format, and under the key "request"
 * of __metadata__ the rest as the JSON that a body without tensors has. What they
 * are read into is that of codec/body.h; members go through the same tables.
 * Other keys of __metadata__ are nobody's affair.
 *
 * A body that is in memory is read by one call. One that arrives in pieces goes
 * through a struct tensor_upload, and its keys and values, if the caller has a
 * destination for them, go there row by row and are never held here.
 *
 * A header that tells of more numbers than the body has bytes for, or may have, is refused
 * before anything else is done with it: PROBLEM_INVALID_TENSORS, or
 * PROBLEM_BODY_TOO_LARGE. */
#ifndef CODEC_TENSOR_BODY_H
#define CODEC_TENSOR_BODY_H

#include <stdint.h>

#include "codec/body.h"

/* The `request` and the `reply` of __metadata__. */
#define TENSORS_REQUEST "request"
#define TENSORS_REPLY   "reply"

/* As the functions of codec/body.h: false with the problem filled, and then
 * nothing to free. */
bool tensor_body_parse_memory(const struct memory_override *override, const char *bytes,
                              size_t count, struct memory_body *body, struct problem *problem);
bool tensor_body_parse_rows(const char *bytes, size_t count, struct rows_body *body,
                            struct problem *problem);
bool tensor_body_parse_attend(enum attend_kind kind, const char *bytes, size_t count,
                              struct attend_body *body, struct problem *problem);

/* ---- In pieces ---- */

/* Where keys and values go: whole rows, each kind from row 0 on, in order and
 * leaving nothing out. Which of the two kinds comes first is up to the body.
 * All return false with the problem filled to refuse. */
struct tensor_rows_sink {
  /* Called once, before the rows, where the body has tensors of keys and values;
   * they have as many rows, which may be 0 for a memory. */
  bool (*open)(void *context, size_t rows, size_t key_dim, size_t value_dim, attn_dtype dtype,
               struct problem *problem);
  bool (*keys)(void *context, size_t first_row, size_t rows, const float *numbers,
               struct problem *problem);
  bool (*values)(void *context, size_t first_row, size_t rows, const float *numbers,
                 struct problem *problem);
  void *context;
};

struct tensor_upload_options {
  enum body_kind kind;
  struct memory_override override;     /* for BODY_MEMORY; has to stay as it is */
  size_t header_bytes;                 /* of the header, at most; see struct tensors_limits */
  size_t held_bytes;                   /* of the numbers held here, as float32, at most; 0: any */
  uint64_t body_bytes;                 /* that the body has; 0: not known */
  uint64_t most_bytes;                 /* that it may have, where that is not known; 0: any */
  bool whole;                          /* body_bytes are there already and come in one piece */
  const struct tensor_rows_sink *rows; /* NULL: keys and values are held here too */
};

struct tensor_upload;

/* NULL where memory is short. What the sink's pointer points to is copied. */
struct tensor_upload *tensor_upload_create(const struct tensor_upload_options *options);
void tensor_upload_free(struct tensor_upload *upload);

bool tensor_upload_feed(struct tensor_upload *upload, const char *bytes, size_t count,
                        struct problem *problem);

/* All has come. By the kind of the body; what is filled is then the caller's.
 * Where a sink took keys and values, their matrices have rows and columns but no
 * data. Once only. */
bool tensor_upload_finish_memory(struct tensor_upload *upload, struct memory_body *body,
                                 struct problem *problem);
bool tensor_upload_finish_rows(struct tensor_upload *upload, struct rows_body *body,
                               struct problem *problem);
bool tensor_upload_finish_attend(struct tensor_upload *upload, struct attend_body *body,
                                 struct problem *problem);

#endif
