/* Numbers that are parameters, not tensors: float64, as exact as the C library
 * reads them and whatever its locale, which is jansson's work. They are few, so
 * they may take their time. */
#include <jansson.h>

#include "codec/codec.h"
#include "codec/number.h"
#include "codec/scan.h"

void codec_init(void) {
  /* Otherwise the first object made does it, on whichever thread that is. */
  json_object_seed(0);
}

bool scan_double(struct scan *scan, double *value) {
  if (scan_kind(scan) != SCAN_NUMBER) return scan_wrong_type(scan, "a number");
  const char *start = scan->at;
  float narrow;
  if (number_scan(&scan->at, scan->end, &narrow) == NUMBER_MALFORMED) return false;
  size_t length = (size_t)(scan->at - start);
  json_error_t error = {0}; /* which jansson leaves as it is where there is no memory */
  json_t *number = json_loadb(start, length, JSON_DECODE_ANY | JSON_DECODE_INT_AS_REAL, &error);
  if (!number && json_error_code(&error) == json_error_numeric_overflow)
    return scan_fault(scan, PROBLEM_INVALID_NUMBER, "expected a number within float64, got %.*s",
                      length < 64 ? (int)length : 64, start);
  if (!number) return problem_set_status(scan->problem, ATTN_NO_MEMORY, scan->pointer);
  *value = json_real_value(number);
  json_decref(number);
  return true;
}
