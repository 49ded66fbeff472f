/* The tensors that a binary body has beside its JSON, until the reader of the
 * JSON takes them: "keys", "queries", "score.w". */
#ifndef CODEC_TENSOR_SET_H
#define CODEC_TENSOR_SET_H

#include <stdbool.h>
#include <stddef.h>

#include "base/problem.h"
#include "codec/matrix.h"
#include "codec/safetensors.h"

/* More than any body has members and any score has parameters. */
#define TENSOR_SET_MAX      16
#define TENSOR_SET_NAME_MAX 64

struct named_tensor {
  char name[TENSOR_SET_NAME_MAX];
  size_t dims;
  struct matrix matrix; /* of 2 dims; of 1, a column; data is NULL where the numbers go elsewhere */
  bool taken;

  struct float_list list; /* the numbers while they arrive */
  size_t count;           /* how many are to arrive */
};

struct tensor_set {
  struct named_tensor items[TENSOR_SET_MAX];
  size_t count;
};

void tensor_set_free(struct tensor_set *set);

/* One more, by its shape; NULL where the set is full or the name too long. */
struct named_tensor *tensor_set_add(struct tensor_set *set, const struct tensor *tensor);

/* Makes room for all numbers at once, for those that are known to be there;
 * without it room is made as they come. */
bool named_tensor_reserve(struct named_tensor *item, struct problem *problem);

/* A tensor_sink whose context is a struct named_tensor, and what ends it: then
 * the numbers are in the matrix. */
bool named_tensor_sink(void *item, size_t first, const float *numbers, size_t count,
                       struct problem *problem);
void named_tensor_settle(struct named_tensor *item);

/* Moves the matrix out and marks the tensor as taken. A tensor of another number
 * of dims, or with rows of no numbers, is PROBLEM_SHAPE_MISMATCH at /NAME. */
bool named_tensor_take(struct named_tensor *item, size_t dims, struct matrix *matrix,
                       struct problem *problem);

/* Fills the problem with a fault of that tensor, at /NAME; returns false. */
bool named_tensor_fault(const struct named_tensor *item, struct problem *problem,
                        enum problem_code code, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

#endif
