/* Tensors in the safetensors format, in and out.
 *
 *     8 bytes    the header's length, little-endian
 *     header     JSON: {"__metadata__":{"name":"text",...},
 *                       "keys":{"dtype":"F32","shape":[3,2],"data_offsets":[0,24]},...}
 *     data       the numbers of all tensors, one after the other
 *
 * https://github.com/huggingface/safetensors has the rules, and they are kept
 * to the letter: a name comes once, offsets leave no hole and no overlap, a
 * tensor's bytes are those of its shape, nothing follows.
 *
 * Reading is by push, so that a body of gigabytes goes to where it belongs
 * piece by piece while it arrives:
 *
 *     tensors_create(&limits, on_header, context);
 *     tensors_feed(reader, bytes, count, &problem);   as often as bytes come
 *       on_header(context, reader, &problem)          once: looks at the tensors,
 *                                                     gives each a destination
 *       sink(context, first, numbers, count, ...)     runs of float32, in order
 *     tensors_finish(reader, &problem);               all has to have come
 *
 * Faults of the format are PROBLEM_INVALID_TENSORS, their pointer the place in
 * the header; a number that is not finite or beyond float32 is
 * PROBLEM_INVALID_NUMBER at /NAME/row/column. After a fault nothing more is
 * taken. */
#ifndef CODEC_SAFETENSORS_H
#define CODEC_SAFETENSORS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buffer.h"
#include "base/problem.h"
#include "codec/floats.h"

/* The reference reader takes no longer header. */
#define TENSORS_HEADER_MAX ((size_t)100000000)

#define TENSORS_MAX        1024
#define TENSOR_DIMS_MAX    8

/* ---- Reading ---- */

struct tensors_reader;

struct tensors_limits {
  size_t header_bytes; /* 0, or more than TENSORS_HEADER_MAX, stands for that */
};

typedef bool tensors_on_header(void *context, struct tensors_reader *reader,
                               struct problem *problem);

/* `count` >= 1 numbers, the first of which is element `first` of the tensor in
 * row-major order. The runs of a tensor come in order and leave nothing out. */
typedef bool tensor_sink(void *context, size_t first, const float *numbers, size_t count,
                         struct problem *problem);

/* NULL where memory is short. */
struct tensors_reader *tensors_create(const struct tensors_limits *limits,
                                      tensors_on_header *on_header, void *context);
void tensors_free(struct tensors_reader *reader);

bool tensors_feed(struct tensors_reader *reader, const char *bytes, size_t count,
                  struct problem *problem);
bool tensors_finish(struct tensors_reader *reader, struct problem *problem);

/* A tensor as the header has it. */
struct tensor {
  char *name;
  char dtype[16];        /* "F32" */
  enum floats_kind kind; /* FLOATS_NONE: not one that can be delivered */
  size_t dims;
  size_t shape[TENSOR_DIMS_MAX];
  size_t count;      /* of numbers, the product of the shape; 1 where dims is 0 */
  size_t begin, end; /* of its bytes in the data */

  tensor_sink *sink; /* the reader's */
  void *context;
};

/* The next ones are for on_header() and later. Tensors are in the order of
 * their data; NULL past the end, and where there is no such name. */
const struct tensor *tensors_at(const struct tensors_reader *reader, size_t index);
const struct tensor *tensors_find(const struct tensors_reader *reader, const char *name);

/* How many bytes follow the header, as it tells; and how many the header takes with
 * its length. */
size_t tensors_data_bytes(const struct tensors_reader *reader);
size_t tensors_head_bytes(const struct tensors_reader *reader);

/* Appends the text that __metadata__ has under that name; false where there is
 * none. Whether there was memory for it is buffer->status. For on_header()
 * alone: the header is let go behind it. */
bool tensors_metadata(const struct tensors_reader *reader, const char *name, struct buffer *text);

/* Where the numbers of a tensor are to go; those of a tensor for which this is
 * not called are passed over, unseen. Refuses what is no floating point
 * (PROBLEM_INVALID_TYPE). For on_header() alone. */
bool tensors_deliver(struct tensors_reader *reader, const struct tensor *tensor, tensor_sink *sink,
                     void *context, struct problem *problem);

/* Appends "/NAME/3/17", the place of an element, to a pointer. */
void tensor_push_place(char *pointer, const struct tensor *tensor, size_t element);

/* ---- Writing ---- */

struct tensor_outline {
  const char *name;
  size_t dims;
  size_t shape[TENSOR_DIMS_MAX];
};

/* An entry of __metadata__: UTF-8. */
struct tensors_note {
  const char *name;
  const char *text;
  size_t length;
};

struct tensors_outline {
  const struct tensor_outline *tensors;
  size_t tensor_count;
  const struct tensors_note *notes;
  size_t note_count;
};

/* Appends all that comes before the data, padded so that the data starts at a
 * multiple of 8 bytes from here. Then follow the float32 of the tensors, in this
 * order and little-endian. *data_bytes (unless NULL) is how many bytes those
 * are. False where the buffer failed, where the tensors are larger than can be
 * addressed, and where the header is longer than TENSORS_HEADER_MAX: then other
 * readers would refuse it too. */
bool tensors_write_header(struct buffer *out, const struct tensors_outline *outline,
                          size_t *data_bytes);

#endif
