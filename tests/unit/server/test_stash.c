/* Memory that goes from request to request: what came back is lent again, what
 * is kept is bounded, and no piece is ever lent twice at a time. */
#include "engine/stash.h"

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "unit.h"

enum { LEAST = 1 << 14, MUCH = 64 << 20 };

START_TEST(test_lent_again) {
  struct stash *stash = stash_create();
  void *first = stash_lend(stash, LEAST), *second = stash_lend(stash, 2 * LEAST);
  ck_assert_ptr_nonnull(first);
  ck_assert_ptr_nonnull(second);
  ck_assert_uint_eq((uintptr_t)first % 64, 0);
  ck_assert_uint_eq((uintptr_t)second % 64, 0);
  memset(first, 1, LEAST);
  memset(second, 2, 2 * LEAST);
  stash_take_back(stash, first, LEAST);
  stash_take_back(stash, second, 2 * LEAST);
  ck_assert_ptr_eq(stash_lend(stash, 2 * LEAST), second);
  ck_assert_ptr_eq(stash_lend(stash, LEAST), first);
  void *third = stash_lend(stash, LEAST);
  ck_assert_ptr_ne(third, first);
  stash_take_back(stash, third, LEAST);
  stash_take_back(stash, first, LEAST);
  ck_assert_ptr_eq(stash_lend(stash, LEAST), first); /* the one that is still warm */
  stash_take_back(stash, first, LEAST);
  stash_take_back(stash, second, 2 * LEAST);
  stash_free(stash);
}
END_TEST

/* However much came back; the sanitizers see that nothing is lost. */
START_TEST(test_bounded) {
  enum { PIECE = 1 << 20, PIECES = MUCH / PIECE };
  struct stash *stash = stash_create();
  char *pieces[PIECES];
  for (size_t i = 0; i < PIECES; i++) {
    pieces[i] = stash_lend(stash, PIECE);
    ck_assert_ptr_nonnull(pieces[i]);
  }
  ck_assert_uint_eq(stash_kept(stash), 0);
  for (size_t i = 0; i < PIECES; i++)
    stash_take_back(stash, pieces[i], PIECE);
  const size_t kept = stash_kept(stash);
  ck_assert_uint_ge(kept, PIECE);
  ck_assert_uint_le(kept, MUCH / 4);
  void *large = stash_lend(stash, MUCH);
  ck_assert_ptr_nonnull(large);
  stash_take_back(stash, large, MUCH);
  ck_assert_uint_eq(stash_kept(stash), kept);
  stash_free(stash);
  stash_free(NULL);
}
END_TEST

static void *borrow_often(void *argument) {
  struct stash *stash = argument;
  for (size_t i = 0; i < 20000; i++) {
    const size_t bytes = (size_t)LEAST << i % 3;
    char *piece = stash_lend(stash, bytes);
    if (!piece) abort();
    memset(piece, (int)i, 64);
    piece[bytes - 1] = (char)i;
    for (size_t b = 0; b < 64; b++)
      if (piece[b] != (char)i) abort(); /* somebody else has it too */
    stash_take_back(stash, piece, bytes);
  }
  return NULL;
}

START_TEST(test_many_borrowers) {
  pthread_t threads[4];
  struct stash *stash = stash_create();
  for (size_t t = 0; t < 4; t++)
    ck_assert_int_eq(pthread_create(&threads[t], NULL, borrow_often, stash), 0);
  for (size_t t = 0; t < 4; t++)
    pthread_join(threads[t], NULL);
  stash_free(stash);
}
END_TEST

UNIT_MAIN("stash", test_lent_again, test_bounded, test_many_borrowers)
