/* The library as a whole: version, status texts, set-up.
 *
 * The choice of kernels is the one piece of global state. It is written by
 * attn_init() alone, before threads start, and never changed afterwards, so
 * readers need no synchronisation. */
#include <cblas.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "attention.h"
#include "kernels.h"

static const struct attn_kernels *chosen = &attn_kernels_portable;

const char *attn_version(void) {
  return ATTN_VERSION_STRING;
}

const char *attn_status_text(attn_status status) {
  static const char *const texts[] = {
#define STATUS_TEXT(name, text) text,
      ATTN_STATUS_LIST(STATUS_TEXT)
#undef STATUS_TEXT
  };
  const unsigned index = (unsigned)status;
  return index < ATTN_STATUS_COUNT ? texts[index] : "an unknown status";
}

const struct attn_kernels *attn_kernels(void) {
  return chosen;
}

const char *attn_kernels_name(void) {
  return chosen->name;
}

#if defined(__x86_64__)
/* Clang 14's __builtin_cpu_supports() doesn't know this one. */
static bool has_f16c(void) {
  unsigned a, b, c, d;
  return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}
#endif

void attn_init(void) {
  openblas_set_num_threads(1);
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw"))
    chosen = &attn_kernels_avx512;
  else if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c())
    chosen = &attn_kernels_avx2;
#endif
}
