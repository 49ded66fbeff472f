/* Promotion to huge pages: it ends, it is remembered with the blocks that snapshots share,
 * readers get the same rows and bits before, during and after it, and, if the system can,
 * most of a large memory is in huge pages then. */
#include "trial.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>

enum { ROWS = 40000, DIM = 64, STEP = 3 << 20, HUGE_PAGE = 2 << 20 };

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

static attn_snapshot *filled(size_t rows) {
  rng r = rng_for_case(rows);
  float *keys = floats_new(rows * DIM), *values = floats_new(rows * DIM);
  fill_normal(&r, keys, rows * DIM, 0.5);
  fill_normal(&r, values, rows * DIM, 1);
  attn_snapshot *empty = NULL, *made = NULL;
  CHECK_STATUS(ATTN_OK, attn_snapshot_create(&empty, DIM, DIM));
  CHECK_STATUS(ATTN_OK, attn_snapshot_append(&made, empty, keys, values, rows));
  attn_snapshot_free(empty);
  floats_free(keys);
  floats_free(values);
  return made;
}

/* In steps; how many it took. */
static size_t promote(const attn_snapshot *memory) {
  size_t steps = 0, next = 0;
  while (next < attn_snapshot_block_count(memory)) {
    const size_t begun = next;
    next = attn_snapshot_promote_huge_pages(memory, begun, STEP);
    ck_assert_uint_gt(next, begun);
    steps++;
  }
  ck_assert_uint_eq(next, attn_snapshot_block_count(memory));
  return steps;
}

/* ---- Answers ---- */

typedef struct asker {
  const attn_snapshot *memory;
  attn_score *score;
  attn_normalization *norm;
  float query[DIM], expected[DIM];
  atomic_bool stop;
  atomic_size_t answers, wrong;
} asker;

static void ask(asker *a, float *output) {
  const attn_request request = {.queries = a->query,
                                .query_count = 1,
                                .query_dim = DIM,
                                .score = a->score,
                                .normalization = a->norm,
                                .weights_mode = ATTN_WEIGHTS_NONE};
  attn_result result = attn_result_for(a->memory, &request);
  result.outputs = output;
  CHECK_STATUS(ATTN_OK, attn_attend(a->memory, &request, &result, NULL));
}

static void asker_init(asker *a, const attn_snapshot *memory) {
  rng r = rng_for_case(7);
  a->memory = memory;
  CHECK_STATUS(ATTN_OK, attn_score_create(&a->score, "scaled_dot", NULL, 0, NULL));
  CHECK_STATUS(ATTN_OK, attn_normalization_create(&a->norm, "softmax", NULL, 0, NULL));
  fill_normal(&r, a->query, DIM, 1);
  ask(a, a->expected);
}

static void asker_end(asker *a) {
  attn_score_free(a->score);
  attn_normalization_free(a->norm);
}

static void *go_on_asking(void *argument) {
  asker *a = argument;
  while (!atomic_load(&a->stop)) {
    float output[DIM];
    ask(a, output);
    if (memcmp(output, a->expected, sizeof output) != 0) atomic_fetch_add(&a->wrong, 1);
    atomic_fetch_add(&a->answers, 1);
  }
  return NULL;
}

START_TEST(test_readers_notice_nothing) {
  attn_snapshot *memory = filled(ROWS);
  asker a = {0};
  asker_init(&a, memory);
  pthread_t thread;
  ck_assert_int_eq(pthread_create(&thread, NULL, go_on_asking, &a), 0);
  while (atomic_load(&a.answers) == 0)
    sched_yield();
  ck_assert_uint_gt(promote(memory), 4);
  const size_t meanwhile = atomic_load(&a.answers);
  while (atomic_load(&a.answers) < meanwhile + 2)
    sched_yield();
  atomic_store(&a.stop, true);
  pthread_join(thread, NULL);
  ck_assert_uint_eq(a.wrong, 0);
  asker_end(&a);
  attn_snapshot_free(memory);
}
END_TEST

/* ---- What is promoted stays so ---- */

START_TEST(test_it_is_remembered) {
  const float key[DIM] = {1}, value[DIM] = {2};
  attn_snapshot *memory = filled(ROWS), *grown = NULL;
  const size_t blocks = attn_snapshot_block_count(memory);
  promote(memory);
  ck_assert_uint_eq(attn_snapshot_promote_huge_pages(memory, 0, 1), blocks);
  ck_assert_uint_eq(attn_snapshot_promote_huge_pages(memory, blocks, 1), blocks);
  ck_assert_uint_eq(attn_snapshot_promote_huge_pages(memory, SIZE_MAX, 1), blocks);
  /* Only the last block is another one. */
  CHECK_STATUS(ATTN_OK, attn_snapshot_append(&grown, memory, key, value, 1));
  ck_assert_uint_eq(promote(grown), 1);
  attn_snapshot_free(memory);
  attn_snapshot_free(grown);
}
END_TEST

START_TEST(test_nothing_to_promote) {
  attn_snapshot *empty = NULL, *small = filled(3);
  CHECK_STATUS(ATTN_OK, attn_snapshot_create(&empty, 2, 3));
  ck_assert_uint_eq(attn_snapshot_promote_huge_pages(NULL, 0, STEP), 0);
  ck_assert_uint_eq(attn_snapshot_promote_huge_pages(empty, 0, STEP), 0);
  ck_assert_uint_eq(attn_snapshot_promote_huge_pages(small, 0, 0), 1); /* there is always a step */
  ck_assert_uint_eq(attn_snapshot_promote_huge_pages(small, 0, STEP), 1);
  attn_snapshot_free(empty);
  attn_snapshot_free(small);
}
END_TEST

/* ---- Where it goes ---- */

static size_t bytes_in_huge_pages(void) {
  FILE *file = fopen("/proc/self/smaps_rollup", "re");
  char line[128];
  size_t kib = 0;
  while (file && fgets(line, sizeof line, file))
    if (sscanf(line, "AnonHugePages: %zu", &kib) == 1) break;
  if (file) fclose(file);
  return kib << 10;
}

static bool system_has_huge_pages(void) {
  const size_t length = 2 * HUGE_PAGE;
  const size_t before = bytes_in_huge_pages();
  char *room = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (room == MAP_FAILED) return false;
  memset(room, 1, length);
  const bool has =
      madvise(room, length, MADV_COLLAPSE) == 0 && bytes_in_huge_pages() >= before + HUGE_PAGE;
  munmap(room, length);
  return has;
}

/* Memory from a sanitizer's allocator lies apart. */
static bool allocator_is_plain(void) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  return false;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
  return false;
#endif
#endif
  return getenv("ATTENTIOND_WRAP") == NULL;
}

START_TEST(test_huge_pages) {
  if (!allocator_is_plain() || !system_has_huge_pages()) return;
  attn_snapshot *memory = filled(2 * ROWS);
  const size_t before = bytes_in_huge_pages();
  promote(memory);
  /* Some systems give them to every program, unasked. */
  if (before < attn_snapshot_bytes(memory) / 4)
    ck_assert_uint_gt(bytes_in_huge_pages(), before + attn_snapshot_bytes(memory) * 3 / 4);
  attn_snapshot_free(memory);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("huge_pages");
  add_test(suite, "huge pages", test_huge_pages); /* first, while there are none to be used again */
  add_test(suite, "readers notice nothing", test_readers_notice_nothing);
  add_test(suite, "it is remembered", test_it_is_remembered);
  add_test(suite, "nothing to promote", test_nothing_to_promote);
  return run_suite(suite);
}
