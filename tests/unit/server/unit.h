/* What the server's suites share: running a suite, repeatable random numbers,
 * and descriptors whose bytes a test can read back.
 *
 * Suites run in one process, so that sanitizers and debuggers see everything;
 * CK_FORK in the environment gives each test its own. ATTN_TEST_KERNELS names the
 * kernels that a suite is run on; without it they are what they are before attn_init(). */
#ifndef TESTS_UNIT_SERVER_UNIT_H
#define TESTS_UNIT_SERVER_UNIT_H

#include "../assertions.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "attention.h"

/* Sanitizers abort on an allocation that can't succeed; the tests want the
 * NULL that the code has to handle. */
__attribute__((visibility("default"))) const char *__asan_default_options(void);
__attribute__((visibility("default"))) const char *__tsan_default_options(void);
const char *__asan_default_options(void) {
  return "allocator_may_return_null=1";
}
const char *__tsan_default_options(void) {
  return "allocator_may_return_null=1";
}

static inline int run_tests(const char *name, const TTest *const *tests, size_t count) {
  const char *kernels = getenv("ATTN_TEST_KERNELS");
  if (kernels && attn_init_with(kernels) != ATTN_OK) {
    printf("this CPU can't run %s kernels: nothing to test\n", kernels);
    return EXIT_SUCCESS;
  }
  Suite *suite = suite_create(name);
  for (size_t i = 0; i < count; i++) {
    TCase *tcase = tcase_create(tests[i]->name);
    tcase_set_timeout(tcase, 0);
    tcase_add_test(tcase, tests[i]);
    suite_add_tcase(suite, tcase);
  }
  SRunner *runner = srunner_create(suite);
  srunner_set_fork_status(runner, getenv("CK_FORK") ? CK_FORK : CK_NOFORK);
  srunner_run_all(runner, CK_ENV);
  int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* A main() for the tests named: UNIT_MAIN("buffer", test_a, test_b) */
#define UNIT_MAIN(name, ...)                                                                       \
  int main(void) {                                                                                 \
    const TTest *const tests[] = {__VA_ARGS__};                                                    \
    return run_tests(name, tests, sizeof tests / sizeof tests[0]);                                 \
  }

/* The next number of a sequence (splitmix64). */
static inline uint64_t next_random(uint64_t *state) {
  uint64_t x = *state += 0x9e3779b97f4a7c15;
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
  x = (x ^ x >> 27) * 0x94d049bb133111eb;
  return x ^ x >> 31;
}

/* A new file without a name, open for reading and writing. */
static inline int open_scratch(void) {
  FILE *file = tmpfile();
  ck_assert_ptr_nonnull(file);
  int descriptor = dup(fileno(file));
  ck_assert_int_ge(descriptor, 0);
  fclose(file);
  return descriptor;
}

/* All that was written to such a file, as a C string to be freed. */
static inline char *read_scratch(int descriptor) {
  off_t size = lseek(descriptor, 0, SEEK_END);
  ck_assert(size >= 0);
  char *text = malloc((size_t)size + 1);
  ck_assert_ptr_nonnull(text);
  ck_assert_int_eq(pread(descriptor, text, (size_t)size, 0), size);
  text[size] = '\0';
  return text;
}

#endif
