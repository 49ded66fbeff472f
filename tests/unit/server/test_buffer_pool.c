/* Buffers that go from request to request: a released one is used again, what is
 * kept is bounded, and no buffer is ever allocated twice at a time. */
#include "engine/buffer_pool.h"

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "unit.h"

enum { LEAST = 1 << 14, MUCH = 64 << 20 };

START_TEST(test_reused) {
  struct buffer_pool *pool = buffer_pool_create();
  void *first = buffer_pool_alloc(pool, LEAST), *second = buffer_pool_alloc(pool, 2 * LEAST);
  ck_assert_ptr_nonnull(first);
  ck_assert_ptr_nonnull(second);
  ck_assert_uint_eq((uintptr_t)first % 64, 0);
  ck_assert_uint_eq((uintptr_t)second % 64, 0);
  memset(first, 1, LEAST);
  memset(second, 2, 2 * LEAST);
  buffer_pool_release(pool, first, LEAST);
  buffer_pool_release(pool, second, 2 * LEAST);
  ck_assert_ptr_eq(buffer_pool_alloc(pool, 2 * LEAST), second);
  ck_assert_ptr_eq(buffer_pool_alloc(pool, LEAST), first);
  void *third = buffer_pool_alloc(pool, LEAST);
  ck_assert_ptr_ne(third, first);
  buffer_pool_release(pool, third, LEAST);
  buffer_pool_release(pool, first, LEAST);
  ck_assert_ptr_eq(buffer_pool_alloc(pool, LEAST), first); /* the one that is still warm */
  buffer_pool_release(pool, first, LEAST);
  buffer_pool_release(pool, second, 2 * LEAST);
  buffer_pool_free(pool);
}
END_TEST

/* However much came back; the sanitizers see that nothing is lost. */
START_TEST(test_bounded) {
  enum { BUFFER = 1 << 20, BUFFERS = MUCH / BUFFER };
  struct buffer_pool *pool = buffer_pool_create();
  char *buffers[BUFFERS];
  for (size_t i = 0; i < BUFFERS; i++) {
    buffers[i] = buffer_pool_alloc(pool, BUFFER);
    ck_assert_ptr_nonnull(buffers[i]);
  }
  ck_assert_uint_eq(buffer_pool_bytes(pool), 0);
  for (size_t i = 0; i < BUFFERS; i++)
    buffer_pool_release(pool, buffers[i], BUFFER);
  const size_t kept = buffer_pool_bytes(pool);
  ck_assert_uint_ge(kept, BUFFER);
  ck_assert_uint_le(kept, MUCH / 4);
  void *large = buffer_pool_alloc(pool, MUCH);
  ck_assert_ptr_nonnull(large);
  buffer_pool_release(pool, large, MUCH);
  ck_assert_uint_eq(buffer_pool_bytes(pool), kept);
  buffer_pool_free(pool);
  buffer_pool_free(NULL);
}
END_TEST

static void *borrow_often(void *argument) {
  struct buffer_pool *pool = argument;
  for (size_t i = 0; i < 20000; i++) {
    const size_t bytes = (size_t)LEAST << i % 3;
    char *buffer = buffer_pool_alloc(pool, bytes);
    if (!buffer) abort();
    memset(buffer, (int)i, 64);
    buffer[bytes - 1] = (char)i;
    for (size_t b = 0; b < 64; b++)
      if (buffer[b] != (char)i) abort(); /* somebody else has it too */
    buffer_pool_release(pool, buffer, bytes);
  }
  return NULL;
}

START_TEST(test_many_borrowers) {
  pthread_t threads[4];
  struct buffer_pool *pool = buffer_pool_create();
  for (size_t t = 0; t < 4; t++)
    ck_assert_int_eq(pthread_create(&threads[t], NULL, borrow_often, pool), 0);
  for (size_t t = 0; t < 4; t++)
    pthread_join(threads[t], NULL);
  buffer_pool_free(pool);
}
END_TEST

UNIT_MAIN("buffer_pool", test_reused, test_bounded, test_many_borrowers)
