/* What can go wrong with a request, said once: the stable code that clients
 * program against, the HTTP status and the title that go with it.
 *
 * Codec, engine and api describe a failure by filling a struct problem; only
 * the last step (problem_write) turns it into RFC 9457 JSON. */
#ifndef BASE_PROBLEM_H
#define BASE_PROBLEM_H

#include <stdbool.h>
#include <stddef.h>

#include "attention.h"
#include "base/buffer.h"

#define PROBLEM_LIST(X)                                                                            \
  X(INVALID_REQUEST, 400, "invalid_request", "The request head is malformed")                      \
  X(INVALID_JSON, 400, "invalid_json", "The body is not valid JSON")                               \
  X(INVALID_TENSORS, 400, "invalid_tensors", "The body is not valid safetensors")                  \
  X(INVALID_TYPE, 400, "invalid_type", "A value has the wrong JSON type")                          \
  X(INVALID_NUMBER, 400, "invalid_number", "A number is outside float32")                          \
  X(INVALID_PARAMETER, 400, "invalid_parameter", "A parameter is not acceptable")                  \
  X(INVALID_NAME, 400, "invalid_name", "The name of the memory is not acceptable")                 \
  X(INVALID_ID, 400, "invalid_id", "An id is not acceptable")                                      \
  X(DUPLICATE_ID, 400, "duplicate_id", "An id occurs twice")                                       \
  X(MISSING_MEMBER, 400, "missing_member", "A required member is missing")                         \
  X(UNKNOWN_MEMBER, 400, "unknown_member", "The body has a member that means nothing here")        \
  X(UNKNOWN_SCORE, 400, "unknown_score", "There is no such score")                                 \
  X(UNKNOWN_NORMALIZATION, 400, "unknown_normalization", "There is no such normalization")         \
  X(NOT_FOUND, 404, "not_found", "There is nothing at this path")                                  \
  X(MEMORY_NOT_FOUND, 404, "memory_not_found", "There is no memory of that name")                  \
  X(METHOD_NOT_ALLOWED, 405, "method_not_allowed", "The method does not apply to this path")       \
  X(KEY_REUSED, 409, "idempotency_key_reused", "The Idempotency-Key belongs to another append")    \
  X(NO_STORE, 409, "no_store", "Nothing is kept on a disk")                                        \
  X(PRECONDITION_FAILED, 412, "precondition_failed", "The memory is not in the expected state")    \
  X(BODY_TOO_LARGE, 413, "body_too_large", "The body is larger than the limit")                    \
  X(UNSUPPORTED_MEDIA_TYPE, 415, "unsupported_media_type", "The body's type is not supported")     \
  X(EXPECTATION_FAILED, 417, "expectation_failed", "The expectation can not be met")               \
  X(SHAPE_MISMATCH, 422, "shape_mismatch", "The shapes do not agree")                              \
  X(EMPTY_MEMORY, 422, "empty_memory", "The memory has no rows")                                   \
  X(REPLY_TOO_LARGE, 422, "reply_too_large", "The reply would be larger than the limit")           \
  X(NOT_REPRESENTABLE, 422, "not_representable", "A result is outside float32")                    \
  X(LIMIT_EXCEEDED, 422, "limit_exceeded", "A limit of this server is in the way")                 \
  X(INTERNAL, 500, "internal", "The server failed")                                                \
  X(MEMORY_DAMAGED, 500, "memory_damaged", "What is stored of the memory can't be read")           \
  X(UNSUPPORTED_TRANSFER_CODING, 501, "unsupported_transfer_coding",                               \
    "The transfer coding is not supported")                                                        \
  X(OVERLOADED, 503, "overloaded", "Too much is being asked at once")                              \
  X(NOT_READY, 503, "not_ready", "The server is not ready to serve")                               \
  X(STORE_FAILED, 503, "store_failed", "Nothing can be stored any more")                           \
  X(TIMEOUT, 504, "timeout", "The answer was not there in time")                                   \
  X(OUT_OF_MEMORY, 507, "out_of_memory", "There is not enough memory for this")                    \
  X(RAM_FULL, 507, "ram_full", "The RAM for memories is used up")                                  \
  X(STORAGE_FULL, 507, "storage_full", "The disk is full")                                         \
  X(TOO_MANY_MEMORIES, 507, "too_many_memories", "There are as many memories as there may be")

enum problem_code {
#define PROBLEM_ENUM(id, status, code, title) PROBLEM_##id,
  PROBLEM_LIST(PROBLEM_ENUM)
#undef PROBLEM_ENUM
      PROBLEM_COUNT
};

struct problem_info {
  int status;
  const char *code;
  const char *title;
};

const struct problem_info *problem_info(enum problem_code code);

#define PROBLEM_POINTER_MAX 256
#define PROBLEM_DETAIL_MAX  512

struct problem {
  enum problem_code code;
  char pointer[PROBLEM_POINTER_MAX]; /* RFC 6901; "" where no place is to blame */
  char detail[PROBLEM_DETAIL_MAX];   /* one sentence: what was expected, what came */
};

/* Fills `problem` and returns false, so that a check reads
 * `return problem_set(problem, PROBLEM_INVALID_TYPE, "/keys", "...")`.
 * The detail is cut at a whole UTF-8 character where it is too long. */
bool problem_set(struct problem *problem, enum problem_code code, const char *pointer,
                 const char *format, ...) __attribute__((format(printf, 4, 5)));

/* The same for what the library reports: the one mapping of attn_status. */
bool problem_set_status(struct problem *problem, attn_status status, const char *pointer);

/* Appends the RFC 9457 document. */
void problem_write(struct buffer *out, const struct problem *problem);

/* Appends "/" and the member name, escaped as RFC 6901 asks, to a pointer of
 * PROBLEM_POINTER_MAX bytes; a name that does not fit is cut. */
void pointer_push_name(char *pointer, const char *name, size_t length);
void pointer_push_index(char *pointer, size_t index);

#endif
