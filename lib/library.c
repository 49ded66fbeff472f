/* The library as a whole: version, status texts, set-up.
 *
 * The choice of kernels is the one piece of global state but for the buffers of OpenBLAS
 * (project.c). It is written by
 * attn_init_with() alone, before threads start, and never changed afterwards, so
 * readers need no synchronisation. */
#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "attend/project.h"
#include "attention.h"
#include "kernels/kernels.h"

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

/* ---- Variants ---- */

static bool runs_anywhere(void) {
  return true;
}

#if defined(__x86_64__)
/* Clang 14's __builtin_cpu_supports() doesn't know f16c. */
static bool runs_avx2(void) {
  unsigned a, b, c, d;
  const bool f16c = __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
  __builtin_cpu_init();
  return f16c && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

static bool runs_avx512(void) {
  return runs_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw");
}
#endif

/* From the slowest to the fastest. */
static const struct variant {
  const struct attn_kernels *kernels;
  bool (*runs)(void);
} variants[] = {
    {&attn_kernels_portable, runs_anywhere},
#if defined(__x86_64__)
    {&attn_kernels_avx2, runs_avx2},
    {&attn_kernels_avx512, runs_avx512},
#elif defined(__aarch64__)
    {&attn_kernels_neon, runs_anywhere}, /* part of the base of the architecture */
#endif
};

const struct attn_kernels *attn_kernels_at(size_t index) {
  for (size_t i = 0; i < sizeof variants / sizeof *variants; i++)
    if (variants[i].runs() && index-- == 0) return variants[i].kernels;
  return NULL;
}

const char *attn_kernels_name_at(size_t index) {
  const struct attn_kernels *kernels = attn_kernels_at(index);
  return kernels ? kernels->name : NULL;
}

/* ---- Set-up ---- */

attn_status attn_init_with(const char *name) {
  if (!name) return ATTN_BAD_ARGUMENT;
  const bool any = strcmp(name, "auto") == 0;
  const struct attn_kernels *found = NULL;
  for (size_t i = 0; attn_kernels_at(i); i++)
    if (any || strcmp(attn_kernels_at(i)->name, name) == 0) found = attn_kernels_at(i);
  if (!found) return ATTN_UNKNOWN_NAME;
  attn_project_init();
  chosen = found;
  return ATTN_OK;
}

void attn_init(void) {
  attn_init_with("auto");
}
