/* Memories that are stored while they arrive: what is given ahead of a write is
 * there when the write ends and no sooner, and what comes to nothing leaves
 * nothing, neither chunks nor RAM. */
#include <dirent.h>
#include <sys/stat.h>

#include "writer_disk.h"

#include "engine/arriving.h"

/* A block has 512 rows, which is a MiB. */
enum { WIDE = 256, BLOCKS = 12, ROWS = BLOCKS * 512 - 100, SLICE = 2 << 20 };

static struct memory *large_memory(const char *name) {
  float *numbers = malloc(ROWS * WIDE * sizeof *numbers);
  ck_assert_ptr_nonnull(numbers);
  for (size_t i = 0; i < ROWS * WIDE; i++)
    numbers[i] = (float)(i % 1000003);
  struct memory *memory = memory_of_rows(name, 1, numbers, numbers, ROWS, WIDE, WIDE,
                                         &(struct tags_edit){.added_count = ROWS});
  ck_assert_uint_eq(attn_snapshot_block_count(memory->snapshot), BLOCKS);
  free(numbers);
  return memory;
}

static struct ticket *put_of(const char *name, struct memory *memory, struct arriving *arriving) {
  struct ticket *ticket = ticket_of_memory(name, memory);
  ticket->write.arriving = arriving;
  return ticket;
}

static void give(struct arriving *arriving, const struct memory *memory, size_t first, size_t end) {
  for (size_t i = first; i < end; i++)
    arriving_give(arriving, attn_snapshot_block(memory->snapshot, i));
}

static void begin(struct world *world, struct store *store) {
  *world = (struct world){.arriving_slice = SLICE};
  world_start(world, store);
}

/* ---- What is on the disk ---- */

static void add_size(const char *path, const char *name, void *context) {
  struct stat status;
  (void)name;
  if (stat(path, &status) == 0) *(off_t *)context += status.st_size;
}

/* Until there are so many MiB, or nearly: the last block is not full. */
static void wait_for_megabytes(const char *directory, off_t megabytes) {
  for (int i = 0; i < 30000; i++) {
    off_t bytes = 0;
    each_file(directory, add_size, &bytes);
    if (bytes + (1 << 20) >= megabytes << 20) return;
    usleep(10000);
  }
  ck_abort_msg("nothing is stored on the way");
}

static int64_t count_chunks(const char *directory) {
  return count_left(directory, "SELECT count(*) FROM chunk");
}

static void check_large(struct world *world, const char *name, const struct memory *expected) {
  struct memory *memory = registry_pin(world->registry, name);
  ck_assert_ptr_nonnull(memory);
  ck_assert_ptr_null(memory->damaged);
  ck_assert_uint_eq(attn_snapshot_rows(memory->snapshot), ROWS);
  float *rows = malloc(4 * WIDE * sizeof *rows);
  for (size_t i = 0; i < ROWS; i += 7) {
    attn_snapshot_get_row(memory->snapshot, i, rows, rows + WIDE);
    attn_snapshot_get_row(expected->snapshot, i, rows + 2 * WIDE, rows + 3 * WIDE);
    ck_assert_mem_eq(rows, rows + 2 * WIDE, 2 * WIDE * sizeof *rows);
  }
  free(rows);
  memory_free(memory);
}

/* A small write: that the writer has done all that came before it. */
static void append_one(struct world *world, bool create) {
  struct op op = {.kind = create ? WRITE_PUT : WRITE_ROWS, .only_version = -1, .scale = 1};
  op.count = 1;
  struct ticket *ticket = ticket_create(world, &op);
  ticket_run(world, ticket);
  ck_assert(!ticket->write.failed);
  ticket_free(ticket);
}

static void add_time(const char *path, const char *name, void *context) {
  struct stat status;
  (void)name;
  if (stat(path, &status) == 0)
    *(int64_t *)context += status.st_mtim.tv_sec * 1000000000 + status.st_mtim.tv_nsec;
}

/* Until nothing has been written for a while. Chores come when there is nothing else to
 * do. */
static void wait_for_chores(const char *directory) {
  int64_t before = 0;
  for (int still = 0; still < 35; still++) {
    int64_t now = 0;
    usleep(20000);
    each_file(directory, add_time, &now);
    if (now != before) still = 0;
    before = now;
  }
}

static void let_sweep(const char *directory, struct world *world, int64_t chunks) {
  wait_for_chores(directory);
  world_stop(world);
  ck_assert_int_eq(count_chunks(directory), chunks);
}

/* ---- Tests ---- */

static int64_t chunks_of_one(struct memory *memory) {
  char directory[200];
  make_scratch(directory, sizeof directory);
  struct world world;
  begin(&world, open_good(directory));
  struct ticket *put = put_of("large", memory_ref(memory), NULL);
  ticket_run(&world, put);
  ticket_free(put);
  world_stop(&world);
  const int64_t chunks = count_chunks(directory);
  remove_scratch(directory);
  return chunks;
}

/* Some of it comes while there are other writes, the rest with the write. */
START_TEST(test_stored_on_the_way) {
  char directory[200];
  struct memory *memory = large_memory("large");
  const int64_t chunks = chunks_of_one(memory);
  make_scratch(directory, sizeof directory);
  for (size_t given = 0; given <= BLOCKS; given += 3) {
    empty_folder(directory);
    struct world world;
    begin(&world, open_good(directory));
    struct arriving *arriving = writer_expect(world.writer, memory->snapshot, BLOCKS);
    ck_assert_ptr_nonnull(arriving);
    append_one(&world, true);
    for (size_t i = 0; i < given; i++) {
      give(arriving, memory, i, i + 1);
      append_one(&world, false);
    }
    wait_for_megabytes(directory, (off_t)given / 2 * 2);
    ck_assert_ptr_null(registry_pin(world.registry, "large"));
    struct ticket *put = put_of("large", memory_ref(memory), arriving);
    ticket_run(&world, put);
    ck_assert(!put->write.failed && put->write.created);
    ticket_free(put);
    check_large(&world, "large", memory);
    world_stop(&world);
    /* each block once, and that of the small memory */
    ck_assert_int_eq(count_chunks(directory), chunks + 1);
    begin(&world, open_good(directory));
    check_large(&world, "large", memory);
    world_stop(&world);
  }
  memory_free(memory);
  remove_scratch(directory);
}
END_TEST

/* The upload breaks off; or what it was for is refused in the end. */
START_TEST(test_comes_to_nothing) {
  char directory[200];
  struct memory *memory = large_memory("large");
  make_scratch(directory, sizeof directory);
  for (int refused = 0; refused < 2; refused++) {
    empty_folder(directory);
    struct world world;
    begin(&world, open_good(directory));
    struct arriving *arriving = writer_expect(world.writer, memory->snapshot, BLOCKS);
    struct arriving *empty = writer_expect(world.writer, memory->snapshot, BLOCKS);
    give(arriving, memory, 0, 9);
    if (!refused) {
      wait_for_megabytes(directory, 8);
      arriving_end(arriving);
    } else {
      struct ticket *put = put_of("large", memory_ref(memory), arriving);
      put->op.only_version = 7;
      ticket_run(&world, put);
      ck_assert_int_eq(put->write.problem.code, PROBLEM_PRECONDITION_FAILED);
      ticket_free(put);
    }
    arriving_end(empty);
    let_sweep(directory, &world, 0);
  }
  arriving_end(NULL);
  memory_free(memory);
  remove_scratch(directory);
}
END_TEST

/* Ends while a slice is being stored; by chance, at any moment of it. */
START_TEST(test_ends_at_any_moment) {
  char directory[200];
  uint64_t state = 11;
  struct memory *memory = large_memory("large");
  make_scratch(directory, sizeof directory);
  struct world world;
  begin(&world, open_good(directory));
  for (int i = 0; i < 30; i++) {
    struct arriving *arriving = writer_expect(world.writer, memory->snapshot, BLOCKS);
    give(arriving, memory, 0, next_random(&state) % (BLOCKS + 1));
    usleep((useconds_t)(next_random(&state) % 8000));
    arriving_end(arriving);
  }
  let_sweep(directory, &world, 0);
  memory_free(memory);
  remove_scratch(directory);
}
END_TEST

/* The writer ends first, as in a stop that waits for no upload. */
START_TEST(test_writer_ends_first) {
  char directory[200];
  struct memory *memory = large_memory("large");
  make_scratch(directory, sizeof directory);
  struct world world;
  begin(&world, open_good(directory));
  struct arriving *ended = writer_expect(world.writer, memory->snapshot, BLOCKS);
  struct arriving *left = writer_expect(world.writer, memory->snapshot, BLOCKS);
  give(ended, memory, 0, 9);
  give(left, memory, 0, 5);
  wait_for_megabytes(directory, 10);
  writer_finish(world.writer);
  give(ended, memory, 9, BLOCKS);
  arriving_end(ended);
  give(left, memory, 5, BLOCKS);
  struct ticket *put = put_of("large", memory_ref(memory), left);
  ck_assert(!writer_submit(world.writer, &put->write));
  arriving_end(left);
  ticket_free(put);
  world_stop(&world);
  ck_assert_int_gt(count_chunks(directory), 0);
  store_close(open_good(directory));
  ck_assert_int_eq(count_chunks(directory), 0);
  memory_free(memory);
  remove_scratch(directory);
}
END_TEST

/* In RAM alone there is nothing to be ahead of. */
START_TEST(test_without_a_store) {
  struct memory *memory = large_memory("large");
  struct world world;
  begin(&world, NULL);
  ck_assert_ptr_null(writer_expect(world.writer, memory->snapshot, BLOCKS));
  world_stop(&world);
  memory_free(memory);
}
END_TEST

/* ---- A full disk ---- */

static struct store *open_faulty(const char *directory) {
  const struct store_options options = store_usual_options();
  return open_on_layer(directory, &options);
}

/* A slice that finds no room is nobody's failure, but the write's that finds none. */
START_TEST(test_full_disk) {
  static struct layer layer;
  char directory[200];
  struct memory *memory = large_memory("large");
  make_scratch(directory, sizeof directory);
  layer_install(&layer, "faulty");
  for (long at = 1; at < 400; at = at * 3 + 1)
    for (int for_ever = 0; for_ever < 2; for_ever++) {
      empty_folder(directory);
      struct world world;
      begin(&world, open_faulty(directory));
      struct arriving *arriving = writer_expect(world.writer, memory->snapshot, BLOCKS);
      fill_disk(&world, &layer, at, for_ever);
      give(arriving, memory, 0, 9);
      usleep(50000);
      struct ticket *put = put_of("large", memory_ref(memory), arriving);
      ticket_run(&world, put);
      if (put->write.failed) ck_assert_int_eq(put->write.problem.code, PROBLEM_STORAGE_FULL);
      if (at == 1 && for_ever) ck_assert(put->write.failed);
      if (at == 1 && !for_ever) ck_assert(!put->write.failed);
      fill_disk(&world, &layer, 0, false);
      if (put->write.failed) {
        struct ticket *again = put_of("large", memory_ref(memory), NULL);
        ticket_run(&world, again);
        ck_assert(!again->write.failed);
        ticket_free(again);
      }
      ticket_free(put);
      world_stop(&world);
      begin(&world, open_good(directory));
      check_large(&world, "large", memory);
      world_stop(&world);
    }
  layer_remove(&layer);
  memory_free(memory);
  remove_scratch(directory);
}
END_TEST

UNIT_MAIN("arriving", test_stored_on_the_way, test_comes_to_nothing, test_ends_at_any_moment,
          test_writer_ends_first, test_without_a_store, test_full_disk)
