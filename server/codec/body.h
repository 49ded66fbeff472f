/* Bodies of requests, from bytes to structures.
 *
 * The text is read by a strict RFC 8259 scanner of our own (codec/scan.h) that
 * puts the numbers of tensors straight into float matrices. One table per kind
 * of body names its members, so that an unknown one is an error that names it.
 *
 * A binary body is the same with its tensors beside the JSON: the functions
 * that end in _with get them in a set, and put them where the members of their
 * names would be. There the JSON may not have tensors of its own, except as
 * parameters of a score. `tensors` may be NULL, and stays the caller's; what was
 * taken from it, it does not have any more. codec/tensor_body.h reads whole ones.
 *
 * Every function returns false with `problem` filled (pointer included) and
 * then leaves nothing to free. */
#ifndef CODEC_BODY_H
#define CODEC_BODY_H

#include <stdbool.h>
#include <stddef.h>

#include "attention.h"
#include "base/id_list.h"
#include "base/problem.h"
#include "codec/matrix.h"
#include "codec/tensor_set.h"

enum body_kind { BODY_MEMORY, BODY_ROWS, BODY_ATTEND_STORED, BODY_ATTEND_AD_HOC };

/* Whether a body of that kind takes a tensor of that name; if not, it is
 * PROBLEM_UNKNOWN_MEMBER at /NAME. */
bool body_check_tensor(enum body_kind kind, const char *name, struct problem *problem);

/* Looks for the member "dtype" alone: for who needs it before the rest can be
 * read. *dtype stays where there is none. */
bool body_peek_dtype(const char *text, size_t length, attn_dtype *dtype, struct problem *problem);

/* PUT /v1/memories/NAME, and a memory read from a JSON file.
 * Either keys and values (as many rows, at least 1) or key_dim and value_dim;
 * score and normalization are never NULL: what the body left out has its
 * default (scaled_dot, and the score's own normalization). Tensors, other than
 * JSON, may also have no rows but columns. */
struct memory_body {
  struct matrix keys, values;
  struct id_list *ids; /* NULL where none were given; distinct, one per row */
  size_t key_dim, value_dim;
  attn_score *score; /* fits key_dim */
  attn_normalization *normalization;
  attn_dtype dtype;   /* of the numbers in RAM; ATTN_F32 where none was given */
  double ttl_seconds; /* of rows, from when they were written; 0: they stay */
};
bool body_parse_memory(const char *text, size_t length, struct memory_body *body,
                       struct problem *problem);

/* The same, where somebody else has the last word on the score and the
 * normalization: what is not NULL here stands in for what the body says. The
 * references remain the caller's. */
struct memory_override {
  attn_score *score;
  attn_normalization *normalization;
};
bool body_parse_memory_as(const struct memory_override *override, const char *text, size_t length,
                          struct memory_body *body, struct problem *problem);
bool body_parse_memory_with(const struct memory_override *override, struct tensor_set *tensors,
                            const char *text, size_t length, struct memory_body *body,
                            struct problem *problem);
void memory_body_free(struct memory_body *body);

/* What body_parse_memory_as() does once all was read, for memories that come in
 * other forms: checks that the parts agree, derives the dimensions where there
 * are rows, and fills in score and normalization. */
bool memory_body_settle(struct memory_body *body, const struct memory_override *override,
                        struct problem *problem);

/* POST /v1/memories/NAME/rows: rows to append, or to put in the place of those
 * that have their ids. */
struct rows_body {
  struct matrix keys, values;
  struct id_list *ids; /* NULL where none were given; distinct, one per row */
  double ttl_seconds;  /* of these rows; 0: they stay */
  bool has_ttl;        /* else as the memory says */
};
bool body_parse_rows(const char *text, size_t length, struct rows_body *body,
                     struct problem *problem);
bool body_parse_rows_with(struct tensor_set *tensors, const char *text, size_t length,
                          struct rows_body *body, struct problem *problem);
void rows_body_free(struct rows_body *body);

/* What body_parse_rows() does once all was read. */
bool rows_body_settle(const struct rows_body *body, struct problem *problem);

/* DELETE /v1/memories/NAME/rows: the distinct ids, at least one. */
bool body_parse_removal(const char *text, size_t length, struct id_list **ids,
                        struct problem *problem);

/* PATCH /v1/memories/NAME: what is not NULL, or was given, is to change. */
struct settings_body {
  attn_score *score;
  attn_normalization *normalization;
  double ttl_seconds; /* 0: rows written from now on stay */
  bool has_ttl;
};
bool body_parse_settings(const char *text, size_t length, struct settings_body *body,
                         struct problem *problem);
void settings_body_free(struct settings_body *body);

/* POST .../attend. Score and normalization are NULL where the body has none;
 * keys and values are there for POST /v1/attend alone, which has to have them. */
struct attend_body {
  struct matrix queries;
  struct matrix keys, values;
  attn_score *score;
  attn_normalization *normalization;
  attn_weights_mode weights;
  size_t top;        /* where weights is ATTN_WEIGHTS_TOP */
  double timeout_ms; /* 0 where the body has none */
};
enum attend_kind { ATTEND_STORED, ATTEND_AD_HOC };
bool body_parse_attend(enum attend_kind kind, const char *text, size_t length,
                       struct attend_body *body, struct problem *problem);
bool body_parse_attend_with(enum attend_kind kind, struct tensor_set *tensors, const char *text,
                            size_t length, struct attend_body *body, struct problem *problem);
void attend_body_free(struct attend_body *body);

/* Whether the score's tensors fit keys of that dimension. */
bool body_check_score(const attn_score *score, size_t key_dim, struct problem *problem);

/* What a body that names only one of the two means: the normalization of a
 * score where none is given. Never NULL but for want of memory. */
attn_normalization *body_default_normalization(const attn_score *score);

#endif
