/* Numbers that are parameters, not tensors: float64, as exact as the C library
 * reads them and whatever its locale, which is jansson's work. They are few, so
 * they may take their time.
 *
 * Where memory is short jansson (2.14) goes on without those digits that its buffer
 * has no room for, and says nothing. So it gets its memory from here, where a
 * refusal is remembered. */
#include <jansson.h>
#include <stdlib.h>

#include "codec/codec.h"
#include "codec/number.h"
#include "codec/scan.h"

static _Thread_local bool refused;

static void *allocate(size_t size) {
  void *memory = malloc(size);
  if (!memory) refused = true;
  return memory;
}

void codec_init(void) {
  json_set_alloc_funcs(allocate, free);
  /* Otherwise the first object made does it, on whichever thread that is. */
  json_object_seed(0);
}

bool scan_double(struct scan *scan, double *value) {
  if (scan_kind(scan) != SCAN_NUMBER) return scan_wrong_type(scan, "a number");
  const char *start = scan->at;
  float narrow;
  if (number_scan(&scan->at, scan->end, &narrow) == NUMBER_MALFORMED) return false;
  size_t length = (size_t)(scan->at - start);
  refused = false;
  json_t *number = json_loadb(start, length, JSON_DECODE_ANY | JSON_DECODE_INT_AS_REAL, NULL);
  if (!number && !refused)
    return scan_fault(scan, PROBLEM_INVALID_NUMBER, "expected a number within float64, got %.*s",
                      length < 64 ? (int)length : 64, start);
  if (refused) {
    json_decref(number);
    return problem_set_status(scan->problem, ATTN_NO_MEMORY, scan->pointer);
  }
  *value = json_real_value(number);
  json_decref(number);
  return true;
}
