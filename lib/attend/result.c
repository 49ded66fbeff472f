/* The sizes of an answer, its arrays in one piece of memory, and views of a part of it.
 *
 * An answer is a set of arrays with so many items for each query. They are listed once, in
 * RESULT_ARRAYS; what an answer takes, where its arrays lie, what belongs to a query and what
 * is copied come from that list. A new thing to be told of each query is a member of
 * attn_result and a line here. The strictest alignment comes first.
 *
 * Rejected: an object that owns its memory. A server holds an answer against its limits
 * before it takes the memory, and a batch has its memory from a pool; a caller of C++ or
 * Python has arrays already. */
#include <string.h>

#include "attend/result.h"
#include "memory/snapshot.h"

/* X(type, name, items of a query) */
#define RESULT_ARRAYS(X)                                                                           \
  X(attn_weight, largest, result->top)                                                             \
  X(size_t, largest_count, result->top > 0 ? 1 : 0)                                                \
  X(float, outputs, result->value_dim)                                                             \
  X(float, weights, result->rows)

/* What malloc() gives, and more than any type needs. */
enum { ALIGNMENT = 16 };

attn_result attn_result_for(const attn_snapshot *snapshot, const attn_request *request) {
  const size_t rows = snapshot->rows, top = request->top < rows ? request->top : rows;
  return (attn_result){.query_count = request->query_count,
                       .value_dim = snapshot->value_dim,
                       .rows = request->weights_mode == ATTN_WEIGHTS_FULL ? rows : 0,
                       .top = request->weights_mode == ATTN_WEIGHTS_TOP ? top : 0,
                       .fault_query = ATTN_NO_QUERY};
}

/* Where the next array begins; SIZE_MAX if that can't be addressed. */
static size_t behind(size_t bytes, size_t count, size_t each, size_t size) {
  const size_t array = attn_size_times(attn_size_times(count, each), size);
  if (__builtin_add_overflow(bytes, array, &bytes) || bytes > SIZE_MAX - ALIGNMENT) return SIZE_MAX;
  return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

size_t attn_result_bytes(const attn_result *result) {
  size_t bytes = 0;
#define ADD_BYTES(type, name, each) bytes = behind(bytes, result->query_count, each, sizeof(type));
  RESULT_ARRAYS(ADD_BYTES)
#undef ADD_BYTES
  return bytes;
}

void attn_result_place(attn_result *result, void *memory) {
  size_t at = 0;
#define PLACE(type, name, each)                                                                    \
  result->name = (each) > 0 ? (type *)(void *)((char *)memory + at) : NULL;                        \
  at = behind(at, result->query_count, each, sizeof(type));
  RESULT_ARRAYS(PLACE)
#undef PLACE
}

attn_result attn_result_slice(const attn_result *result, size_t first, size_t count) {
  attn_result slice = *result;
  slice.query_count = count;
#define ADVANCE(type, name, each)                                                                  \
  if (slice.name) slice.name += first * (each);
  RESULT_ARRAYS(ADVANCE)
#undef ADVANCE
  const bool inside = result->fault_query >= first && result->fault_query - first < count;
  slice.fault_query = inside ? result->fault_query - first : ATTN_NO_QUERY;
  return slice;
}

void attn_result_copy(attn_result *to, const attn_result *result) {
#define COPY(type, name, each)                                                                     \
  if ((each) > 0) memcpy(to->name, result->name, result->query_count *(each) * sizeof(type));
  RESULT_ARRAYS(COPY)
#undef COPY
  to->fault_query = result->fault_query;
}

bool attn_result_has_room(const attn_result *result, const attn_result *asked) {
  return result->query_count == asked->query_count && result->value_dim == asked->value_dim &&
         result->rows == asked->rows && result->top == asked->top;
}

bool attn_result_has_arrays(const attn_result *result) {
  bool there = true;
#define IS_THERE(type, name, each) there = there && (result->name || (each) == 0);
  RESULT_ARRAYS(IS_THERE)
#undef IS_THERE
  return there;
}
