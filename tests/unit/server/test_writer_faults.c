/* The writer where something runs out: the disk, or RAM. Whatever operation it is
 * that fails, a write has been done and is told so, or nothing of it has happened;
 * what readers see, what the budget counts and what is found after a restart is
 * what was acknowledged; and when there is room again writes work again.
 *
 * RAM: malloc() and its kin are this file's own, and the n-th call by any thread
 * but the test's returns NULL. Sanitizers bring their own, so there this part is
 * left out. */
#include <time.h>

#include "base/clock.h"
#include "writer_disk.h"

enum { OPS = 10 };

static struct store *open_layered(const char *directory) {
  struct store_options options = small_options();
  options.wal_bytes = 60000;
  return open_on_layer(directory, &options);
}

/* Writes the ops one behind the other without waiting, so that the writer takes
 * some of them together. Those that failed for want of room have not happened.
 * The number of those. */
static size_t run_together(struct world *world, struct world_model *model, uint64_t *state,
                           size_t count, enum problem_code scarce) {
  struct world_model planned;
  struct ticket *tickets[OPS];
  size_t failed = 0;
  model_init(&planned);
  planned.floor = model->floor;
  for (size_t i = 0; i < NAMES; i++) {
    struct row *rows = planned.memories[i].rows;
    memcpy(rows, model->memories[i].rows, ROWS_MOST * sizeof *rows);
    planned.memories[i] = model->memories[i];
    planned.memories[i].rows = rows;
  }
  for (size_t i = 0; i < count; i++) {
    struct op op = op_random(&planned, state);
    tickets[i] = ticket_create(world, &op);
    model_apply(&planned, &op);
    ck_assert(writer_submit(world->writer, &tickets[i]->write));
  }
  for (size_t i = 0; i < count; i++) {
    ticket_wait(tickets[i]);
    const struct write *write = &tickets[i]->write;
    if (write->failed && write->problem.code == scarce) {
      failed++;
    } else {
      struct op op = tickets[i]->op;
      model_apply(model, &op);
      ticket_check(tickets[i], &op);
    }
    ticket_free(tickets[i]);
  }
  model_free(&planned);
  return failed;
}

static size_t run_ops(struct world *world, struct world_model *model, uint64_t *state,
                      enum problem_code scarce) {
  return run_together(world, model, state, OPS, scarce);
}

/* ---- The disk ---- */

static void sweep_disk(bool for_ever) {
  static struct layer layer;
  char directory[200];
  size_t failed = 0;
  make_scratch(directory, sizeof directory);
  layer_install(&layer, "faulty");
  bool hit = true;
  for (long at = 1; hit && at < 400; at++) {
    struct world world = {.registry = NULL};
    struct world_model model;
    uint64_t state = 3;
    model_init(&model);
    empty_folder(directory);
    world_start(&world, open_layered(directory));
    for (int i = 0; i < 2; i++)
      ck_assert_uint_eq(run_ops(&world, &model, &state, PROBLEM_STORAGE_FULL), 0);
    fill_disk(&world, &layer, at, for_ever);
    for (int i = 0; i < 3; i++)
      failed += run_ops(&world, &model, &state, PROBLEM_STORAGE_FULL);
    check_world(&world, &model);
    hit = fill_disk(&world, &layer, 0, false);
    ck_assert_uint_eq(run_ops(&world, &model, &state, PROBLEM_STORAGE_FULL), 0);
    check_world(&world, &model);
    world_reload(&world, directory, open_layered, NULL);
    check_world(&world, &model);
    world_stop(&world);
    model_free(&model);
  }
  ck_assert(!hit);
  /* once: the store gives up its reserve, and the write is tried again */
  ck_assert_int_eq(failed > 5, for_ever);
  ck_assert(for_ever || failed == 0);
  layer_remove(&layer);
  remove_scratch(directory);
}

START_TEST(test_disk_full_once) {
  sweep_disk(false);
}
END_TEST

START_TEST(test_disk_full_for_ever) {
  sweep_disk(true);
}
END_TEST

static size_t rows_of(struct world *world) {
  struct memory *memory = registry_pin(world->registry, "memory-0");
  const size_t rows = attn_snapshot_rows(memory->snapshot);
  memory_free(memory);
  return rows;
}

/* A row that expires after the disk is full. On a busy machine it may do so before: then
 * another one, which has more time. Returns when it expires. */
static double append_and_fill(struct world *world, struct layer *layer) {
  for (int64_t ttl = 200;; ttl *= 4) {
    const double expires = clock_seconds() + (double)ttl / 1000;
    struct op op = {.kind = WRITE_ROWS, .only_version = -1, .scale = 1, .count = 1};
    struct ticket *ticket = ticket_create(world, &op);
    ticket->write.has_ttl = true;
    ticket->write.ttl_ms = ttl;
    ticket_run(world, ticket);
    ticket_free(ticket);
    usleep(50000); /* chores */
    fill_disk(world, layer, 1, true);
    if (clock_seconds() < expires) return expires;
    fill_disk(world, layer, 0, false);
    while (rows_of(world) > 1)
      usleep(1000);
  }
}

/* Rows whose time has come and that can't be removed for want of room: the writer
 * tries again later, and not all the time. */
START_TEST(test_expiry_without_room) {
  static struct layer layer;
  char directory[200];
  struct world world = {.registry = NULL};
  make_scratch(directory, sizeof directory);
  layer_install(&layer, "faulty");
  world_start(&world, open_layered(directory));
  struct op op = {.kind = WRITE_PUT, .only_version = -1, .scale = 1, .count = 1};
  struct ticket *ticket = ticket_create(&world, &op);
  ticket_run(&world, ticket);
  ticket_free(ticket);
  const double expires = append_and_fill(&world, &layer);
  while (clock_seconds() < expires)
    usleep(1000);
  const clock_t used = clock();
  const double start = clock_seconds();
  usleep(600000);
  ck_assert_double_lt((double)(clock() - used) / CLOCKS_PER_SEC, (clock_seconds() - start) / 3);
  ck_assert_uint_eq(rows_of(&world), 2);
  ck_assert(fill_disk(&world, &layer, 0, false));
  world_stop(&world);
  layer_remove(&layer);
  remove_scratch(directory);
}
END_TEST

/* ---- RAM ---- */

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define CAN_FAIL 1
#endif
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#undef CAN_FAIL
#endif
#endif

#ifdef CAN_FAIL

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *memory, size_t size);
void *__libc_memalign(size_t alignment, size_t size);
void __libc_free(void *memory);

static atomic_long countdown; /* the call that makes it 0 fails; 0: none does */
static atomic_long in_use;    /* pieces */
static _Thread_local bool spared;

static bool fails(void) {
  if (spared || atomic_load(&countdown) <= 0) return false;
  return atomic_fetch_sub(&countdown, 1) == 1;
}

static void *counted(void *memory) {
  if (memory) atomic_fetch_add(&in_use, 1);
  return memory;
}

__attribute__((visibility("default"))) void *malloc(size_t size) {
  return fails() ? NULL : counted(__libc_malloc(size));
}

__attribute__((visibility("default"))) void *calloc(size_t count, size_t size) {
  return fails() ? NULL : counted(__libc_calloc(count, size));
}

__attribute__((visibility("default"))) void *realloc(void *memory, size_t size) {
  if (fails()) return NULL;
  void *moved = __libc_realloc(memory, size);
  if (!memory) counted(moved);
  return moved;
}

__attribute__((visibility("default"))) void *aligned_alloc(size_t alignment, size_t size) {
  return fails() ? NULL : counted(__libc_memalign(alignment, size));
}

__attribute__((visibility("default"))) void free(void *memory) {
  if (memory) atomic_fetch_sub(&in_use, 1);
  __libc_free(memory);
}

static size_t run_scarce(const char *directory, long at, bool *hit) {
  struct world world = {.registry = NULL};
  struct world_model model;
  uint64_t state = 9;
  model_init(&model);
  if (directory) empty_folder(directory);
  world_start(&world, directory ? open_good(directory) : NULL);
  for (int i = 0; i < 3; i++)
    ck_assert_uint_eq(run_ops(&world, &model, &state, PROBLEM_OUT_OF_MEMORY), 0);
  atomic_store(&countdown, at);
  size_t failed = 0;
  failed += run_ops(&world, &model, &state, PROBLEM_OUT_OF_MEMORY);
  /* what fails in a batch is tried again alone, what fails alone is refused */
  for (int i = 0; i < OPS; i++)
    failed += run_together(&world, &model, &state, 1, PROBLEM_OUT_OF_MEMORY);
  *hit = atomic_load(&countdown) <= 0;
  atomic_store(&countdown, 0);
  check_world(&world, &model);
  ck_assert_uint_eq(run_ops(&world, &model, &state, PROBLEM_OUT_OF_MEMORY), 0);
  if (directory) {
    world_stop(&world);
    world_start(&world, open_good(directory));
  }
  check_world(&world, &model);
  world_stop(&world);
  model_free(&model);
  return failed;
}

static void sweep_ram(const char *directory, long step) {
  bool hit = true;
  size_t failed = 0;
  run_scarce(directory, 0, &hit); /* what libraries keep for good, they have now */
  const long before = atomic_load(&in_use);
  run_scarce(directory, 0, &hit);
  const long kept = atomic_load(&in_use) - before;
  hit = true;
  for (long at = 1; hit; at += step) {
    const long start = atomic_load(&in_use);
    failed += run_scarce(directory, at, &hit);
    ck_assert_msg(atomic_load(&in_use) - start <= kept + 2, "call %ld: %ld pieces are lost", at,
                  atomic_load(&in_use) - start - kept);
  }
  ck_assert_uint_gt(failed, 0);
}

START_TEST(test_ram_short) {
  spared = true;
  sweep_ram(NULL, 1);
}
END_TEST

START_TEST(test_ram_short_with_store) {
  char directory[200];
  spared = true;
  make_scratch(directory, sizeof directory);
  sweep_ram(directory, 7);
  remove_scratch(directory);
}
END_TEST

/* A start that finds too little RAM says so, and doesn't take it for damage. */
START_TEST(test_ram_short_at_start) {
  char directory[200];
  struct world world = {.registry = NULL};
  struct world_model model;
  uint64_t state = 12;
  spared = true;
  make_scratch(directory, sizeof directory);
  model_init(&model);
  world_start(&world, open_good(directory));
  for (int i = 0; i < 8; i++)
    run_ops(&world, &model, &state, PROBLEM_OUT_OF_MEMORY);
  world_stop(&world);
  bool hit = true;
  for (long at = 1; hit; at += 3) {
    struct writer_config config = {.max_memories = 100, .max_rows = 1000000};
    world.registry = registry_create();
    atomic_store(&world.budget.used, 0);
    config.registry = world.registry;
    config.budget = &world.budget;
    config.store = open_good(directory);
    atomic_store(&countdown, at);
    struct writer *writer = writer_create(&config);
    ck_assert_ptr_nonnull(writer);
    world.writer = writer;
    const bool loaded = writer_wait_loaded(writer);
    hit = atomic_load(&countdown) <= 0;
    atomic_store(&countdown, 0);
    if (loaded) check_world(&world, &model);
    ck_assert(loaded || hit);
    writer_free(writer);
    registry_free(world.registry);
  }
  model_free(&model);
  remove_scratch(directory);
}
END_TEST

#define RAM_TESTS , test_ram_short, test_ram_short_with_store, test_ram_short_at_start
#else
#define RAM_TESTS
#endif

UNIT_MAIN("writer_faults", test_disk_full_once, test_disk_full_for_ever,
          test_expiry_without_room RAM_TESTS)
