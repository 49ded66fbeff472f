/* What every suite of the library needs: one way to run, repeatable random
 * numbers, guarded arrays.
 *
 * The invariant: everything random follows from ATTN_TEST_SEED (1 where it is
 * not set) and the index of the case, so that what a message names can be run
 * again alone. ATTN_TEST_ROUNDS takes the place of the number of rounds that a
 * suite asks for. ATTN_TEST_KERNELS names the kernels that a suite is run on
 * (one that the CPU lacks leaves it nothing to test);
 * test_kernels.c takes every variant in turn by itself.
 *
 * Rejected: rand(), whose numbers differ from one C library to the next. */
#ifndef TESTS_UNIT_LIB_SUPPORT_H
#define TESTS_UNIT_LIB_SUPPORT_H

#include "attention.h"

#include "../assertions.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Running ----------------------------------------------------------------- */

static inline uint64_t environment_number(const char *name, uint64_t otherwise) {
  const char *text = getenv(name);
  return text != NULL && *text != '\0' ? strtoull(text, NULL, 10) : otherwise;
}

static inline uint64_t test_seed(void) {
  return environment_number("ATTN_TEST_SEED", 1);
}

static inline size_t test_rounds(size_t usual) {
  return (size_t)environment_number("ATTN_TEST_ROUNDS", usual);
}

/* In one process, so that sanitizers and debuggers see everything. */
static inline int run_suite(Suite *suite) {
  const char *kernels = getenv("ATTN_TEST_KERNELS");
  if (attn_init_with(kernels != NULL ? kernels : "auto") != ATTN_OK) {
    printf("this CPU can't run %s kernels: nothing to test\n", kernels);
    return EXIT_SUCCESS;
  }
  SRunner *runner = srunner_create(suite);
  srunner_set_fork_status(runner, getenv("CK_FORK") != NULL ? CK_FORK : CK_NOFORK);
  srunner_run_all(runner, CK_ENV);
  const int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

static inline void add_test(Suite *suite, const char *name, const TTest *test) {
  TCase *tcase = tcase_create(name);
  tcase_set_timeout(tcase, 0);
  tcase_add_test(tcase, test);
  suite_add_tcase(suite, tcase);
}

#define CHECK_STATUS(expected, call)                                                               \
  do {                                                                                             \
    const attn_status status_ = (call);                                                            \
    ck_assert_msg(status_ == (expected), "%s: %s (%d), expected %s", #call,                        \
                  attn_status_text(status_), (int)status_, #expected);                             \
  } while (0)

/* ---- Random numbers: splitmix64 ------------------------------------------------ */

typedef struct rng {
  uint64_t state;
} rng;

static inline uint64_t rng_bits(rng *r) {
  uint64_t z = r->state += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

/* A generator of its own for every case, so that one case can be run alone. */
static inline rng rng_for_case(uint64_t index) {
  rng r = {test_seed() * 0x2545f4914f6cdd1du + index};
  r.state = rng_bits(&r);
  return r;
}

static inline double rng_unit(rng *r) {
  return (double)(rng_bits(r) >> 11) * 0x1p-53;
}

static inline double rng_range(rng *r, double low, double high) {
  return low + (high - low) * rng_unit(r);
}

/* low to high, both included. */
static inline size_t rng_between(rng *r, size_t low, size_t high) {
  return low + (size_t)(rng_bits(r) % (high - low + 1));
}

static inline bool rng_chance(rng *r, double probability) {
  return rng_unit(r) < probability;
}

static inline double rng_normal(rng *r) {
  const double radius = sqrt(-2 * log(1 - rng_unit(r)));
  return radius * cos(6.283185307179586 * rng_unit(r));
}

/* ---- Guarded arrays --------------------------------------------------------------
 * Floats that are aligned to 4 bytes and no more, as a caller's may be, with a
 * guard on either side that floats_free() looks at. */
#define FLOATS_GUARD 0x7fc0dead

static inline void *must_alloc(size_t count, size_t size) {
  void *memory = calloc(count > 0 ? count : 1, size);
  if (memory == NULL) {
    fputs("the test is out of memory\n", stderr);
    abort();
  }
  return memory;
}

static inline float *floats_new(size_t count) {
  const uint32_t guard = FLOATS_GUARD;
  float *base = must_alloc(count + 2, sizeof *base);
  memcpy(base, &guard, sizeof guard);
  memcpy(base + count + 1, &guard, sizeof guard);
  return base + 1;
}

static inline bool floats_are_intact(const float *floats, size_t count) {
  uint32_t before, after;
  memcpy(&before, floats - 1, sizeof before);
  memcpy(&after, floats + count, sizeof after);
  return before == FLOATS_GUARD && after == FLOATS_GUARD;
}

static inline void floats_free(float *floats) {
  if (floats != NULL) free(floats - 1);
}

static inline void fill_normal(rng *r, float *data, size_t count, double deviation) {
  for (size_t i = 0; i < count; i++)
    data[i] = (float)(deviation * rng_normal(r));
}

static inline void fill(float *data, size_t count, float value) {
  for (size_t i = 0; i < count; i++)
    data[i] = value;
}

#endif
