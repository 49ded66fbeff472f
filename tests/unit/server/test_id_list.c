/* Lists of ids: what goes in comes out, duplicates are found where a plain
 * double loop finds them, and threads may share a list. The hash is held
 * against the vectors that its authors published. */
#include "base/id_list.h"

#include <pthread.h>

#include "base/keyed_hash.h"
#include "unit.h"

START_TEST(test_hash_is_siphash) {
  unsigned char message[15];
  for (unsigned char i = 0; i < sizeof message; i++)
    message[i] = i;
  struct hash_key key = {0x0706050403020100, 0x0f0e0d0c0b0a0908};
  /* The paper's appendix A, and the first of the reference vectors. */
  ck_assert_uint_eq(keyed_hash(key, message, 15), 0xa129ca6149be45e5);
  ck_assert_uint_eq(keyed_hash(key, message, 0), 0x726fdb47dd0e0e31);
  struct hash_key a = hash_key_random(), b = hash_key_random();
  ck_assert(a.low != b.low && a.high != b.high);
}
END_TEST

START_TEST(test_empty) {
  ck_assert_uint_eq(id_list_count(NULL), 0);
  ck_assert_uint_eq(id_list_bytes(NULL), 0);
  ck_assert_ptr_null(id_list_ref(NULL));
  id_list_free(NULL);
  struct id_list *list = id_list_create();
  ck_assert_uint_eq(id_list_count(list), 0);
  ck_assert_uint_eq(id_list_find_duplicate(list), SIZE_MAX);
  ck_assert_uint_gt(id_list_bytes(list), 0);
  id_list_free(list);
}
END_TEST

START_TEST(test_keeps_ids_of_every_length) {
  char text[ID_LENGTH_MAX + 2];
  for (size_t i = 0; i < sizeof text; i++)
    text[i] = (char)(i * 7 + 1);
  struct id_list *list = id_list_create();
  ck_assert(!id_list_append(list, text, 0));
  ck_assert(!id_list_append(list, text, ID_LENGTH_MAX + 1));
  for (size_t length = 1; length <= ID_LENGTH_MAX; length++)
    ck_assert(id_list_append(list, text, length));
  ck_assert_uint_eq(id_list_count(list), ID_LENGTH_MAX);
  size_t total = 0;
  for (size_t i = 0; i < ID_LENGTH_MAX; i++) {
    size_t length;
    const char *id = id_list_get(list, i, &length);
    ck_assert_uint_eq(length, i + 1);
    ck_assert_mem_eq(id, text, length);
    ck_assert_int_eq(id[length], '\0');
    ck_assert_ptr_eq(id_list_get(list, i, NULL), id);
    total += length;
  }
  ck_assert_uint_ge(id_list_bytes(list), total);
  ck_assert_uint_eq(id_list_find_duplicate(list), SIZE_MAX);
  id_list_free(list);
}
END_TEST

static size_t find_by_double_loop(const struct id_list *list) {
  for (size_t later = 0; later < id_list_count(list); later++) {
    for (size_t first = 0; first < later; first++) {
      size_t a_length, b_length;
      const char *a = id_list_get(list, first, &a_length);
      const char *b = id_list_get(list, later, &b_length);
      if (a_length == b_length && memcmp(a, b, a_length) == 0) return later;
    }
  }
  return SIZE_MAX;
}

START_TEST(test_finds_the_duplicate_that_a_double_loop_finds) {
  uint64_t seed = 3;
  size_t found = 0;
  for (int round = 0; round < 3000; round++) {
    struct id_list *list = id_list_create();
    size_t count = next_random(&seed) % 60;
    /* Few letters and short ids: about half of the lists have a duplicate, and
     * many ids are another's beginning. NULs are bytes like others. */
    for (size_t i = 0; i < count; i++) {
      char id[10];
      size_t length = 1 + next_random(&seed) % sizeof id;
      for (size_t at = 0; at < length; at++)
        id[at] = "ab\0"[next_random(&seed) % 3];
      ck_assert(id_list_append(list, id, length));
    }
    size_t expected = find_by_double_loop(list);
    ck_assert_uint_eq(id_list_find_duplicate(list), expected);
    found += expected != SIZE_MAX;
    id_list_free(list);
  }
  ck_assert_uint_gt(found, 300);
  ck_assert_uint_lt(found, 2900);
}
END_TEST

START_TEST(test_many) {
  enum { COUNT = 200000 };
  struct id_list *list = id_list_create();
  char id[32];
  for (int i = 0; i < COUNT; i++)
    ck_assert(id_list_append(list, id, (size_t)snprintf(id, sizeof id, "row-%d", i)));
  ck_assert_uint_eq(id_list_find_duplicate(list), SIZE_MAX);
  for (int i = 0; i < COUNT; i += 997) {
    snprintf(id, sizeof id, "row-%d", i);
    ck_assert_str_eq(id_list_get(list, (size_t)i, NULL), id);
  }
  ck_assert(id_list_append(list, "row-150000", 10));
  ck_assert(id_list_append(list, "row-7", 5));
  ck_assert_uint_eq(id_list_find_duplicate(list), COUNT);
  id_list_free(list);
}
END_TEST

static void *use_and_drop(void *argument) {
  struct id_list *list = argument;
  for (int i = 0; i < 2000; i++) {
    struct id_list *mine = id_list_ref(list);
    ck_assert_str_eq(id_list_get(mine, 1, NULL), "beta");
    id_list_free(mine);
  }
  ck_assert_uint_eq(id_list_find_duplicate(list), SIZE_MAX);
  id_list_free(list);
  return NULL;
}

START_TEST(test_threads_share_a_list) {
  struct id_list *list = id_list_create();
  ck_assert(id_list_append(list, "alpha", 5));
  ck_assert(id_list_append(list, "beta", 4));
  pthread_t threads[4];
  for (int i = 0; i < 4; i++)
    ck_assert_int_eq(pthread_create(&threads[i], NULL, use_and_drop, id_list_ref(list)), 0);
  id_list_free(list);
  for (int i = 0; i < 4; i++)
    pthread_join(threads[i], NULL);
}
END_TEST

UNIT_MAIN("id_list", test_hash_is_siphash, test_empty, test_keeps_ids_of_every_length,
          test_finds_the_duplicate_that_a_double_loop_finds, test_many, test_threads_share_a_list)
