/* A set has fixed room, because the names in it are those that a table of ours
 * knows; a file with a thousand tensors is refused at the first unknown one.
 * The items do not move, so they can be the destinations of a reader. */
#include "codec/tensor_set.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void tensor_set_free(struct tensor_set *set) {
  for (size_t i = 0; i < set->count; i++) {
    matrix_free(&set->items[i].matrix);
    float_list_free(&set->items[i].list);
  }
  set->count = 0;
}

struct named_tensor *tensor_set_add(struct tensor_set *set, const struct tensor *tensor) {
  if (set->count == TENSOR_SET_MAX || strlen(tensor->name) >= TENSOR_SET_NAME_MAX) return NULL;
  struct named_tensor *item = &set->items[set->count++];
  *item = (struct named_tensor){.dims = tensor->dims, .count = tensor->count};
  strcpy(item->name, tensor->name);
  item->matrix.rows = tensor->dims > 0 ? tensor->shape[0] : 1;
  item->matrix.cols = tensor->dims > 1 ? tensor->shape[1] : 1;
  return item;
}

bool named_tensor_reserve(struct named_tensor *item, struct problem *problem) {
  if (item->count == 0) return true;
  item->list.data = calloc(item->count, sizeof *item->list.data);
  if (!item->list.data) return problem_set_status(problem, ATTN_NO_MEMORY, "");
  item->list.capacity = item->count;
  return true;
}

bool named_tensor_sink(void *context, size_t first, const float *numbers, size_t count,
                       struct problem *problem) {
  struct named_tensor *item = context;
  struct float_list *list = &item->list;
  while (list->capacity - first < count)
    if (!float_list_grow(list, item->count)) return problem_set_status(problem, ATTN_NO_MEMORY, "");
  memcpy(list->data + first, numbers, count * sizeof *numbers);
  list->count = first + count;
  return true;
}

void named_tensor_settle(struct named_tensor *item) {
  matrix_take(&item->matrix, &item->list, item->matrix.rows, item->matrix.cols);
}

bool named_tensor_take(struct named_tensor *item, size_t dims, struct matrix *matrix,
                       struct problem *problem) {
  if (item->dims != dims)
    return named_tensor_fault(item, problem, PROBLEM_SHAPE_MISMATCH,
                              "expected a tensor of %zu dimension%s, got %zu", dims,
                              dims == 1 ? "" : "s", item->dims);
  if (item->matrix.cols == 0)
    return named_tensor_fault(item, problem, PROBLEM_SHAPE_MISMATCH,
                              "expected at least one number in a row");
  *matrix = item->matrix;
  item->matrix = (struct matrix){0};
  item->taken = true;
  return true;
}

bool named_tensor_fault(const struct named_tensor *item, struct problem *problem,
                        enum problem_code code, const char *format, ...) {
  char detail[PROBLEM_DETAIL_MAX], pointer[PROBLEM_POINTER_MAX] = "";
  va_list arguments;
  va_start(arguments, format);
  if (vsnprintf(detail, sizeof detail, format, arguments) < 0) detail[0] = '\0';
  va_end(arguments);
  pointer_push_name(pointer, item->name, strlen(item->name));
  return problem_set(problem, code, pointer, "%s", detail);
}
