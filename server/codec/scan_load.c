/* Values that are no tensors, by jansson: numbers are float64, as exact as the C
 * library reads them and whatever its locale. What is JSON, and where the value
 * ends, is for the scanner to say: jansson overlooks a NUL behind a value.
 *
 * Where memory is short jansson (2.14) goes on without those bytes of a string or
 * digits of a number that its buffer has no room for, and says nothing. So it
 * gets its memory from here, where a refusal is remembered. */
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "codec/codec.h"
#include "codec/json_string.h"
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

/* Moves over the value; false if it is not JSON. */
static bool pass(struct scan *scan, enum scan_kind kind) {
  const char *word;
  size_t length;
  float narrow;
  if (kind == SCAN_STRING)
    return json_string_read(&scan->at, scan->end, NULL, 0, NULL) == JSON_STRING_OK;
  if (kind == SCAN_NUMBER) return number_scan(&scan->at, scan->end, &narrow) != NUMBER_MALFORMED;
  return scan_skip(scan, &word, &length) && length == 4 && memcmp(word, "null", 4) == 0;
}

struct json_t *scan_load(struct scan *scan, enum scan_kind kind) {
  static const size_t flags = JSON_DECODE_ANY | JSON_DECODE_INT_AS_REAL | JSON_ALLOW_NUL;
  if (scan_kind(scan) != kind) {
    scan_wrong_type(scan, scan_kind_name(kind));
    return NULL;
  }
  const char *start = scan->at;
  if (!pass(scan, kind)) return NULL;
  const size_t length = (size_t)(scan->at - start);
  refused = false;
  json_t *value = json_loadb(start, length, flags, NULL);
  if (value && !refused) return value;
  json_decref(value);
  if (kind == SCAN_NUMBER && !refused)
    scan_fault(scan, PROBLEM_INVALID_NUMBER, "expected a number within float64, got %.*s",
               length < 64 ? (int)length : 64, start);
  else
    problem_set_status(scan->problem, ATTN_NO_MEMORY, scan->pointer);
  return NULL;
}

bool scan_is_word(const struct json_t *string, const char *word) {
  return json_string_length(string) == strlen(word) && strcmp(json_string_value(string), word) == 0;
}

bool scan_double(struct scan *scan, double *value) {
  json_t *number = scan_load(scan, SCAN_NUMBER);
  if (!number) return false;
  *value = json_real_value(number);
  json_decref(number);
  return true;
}

bool scan_whole(struct scan *scan, size_t least, size_t most, size_t *value) {
  double number;
  if (!scan_double(scan, &number)) return false;
  if (number < (double)least || number > (double)most || number != floor(number))
    return scan_fault(scan, PROBLEM_INVALID_PARAMETER,
                      "expected a whole number from %zu to %zu, got %.17g", least, most, number);
  *value = (size_t)number;
  return true;
}
