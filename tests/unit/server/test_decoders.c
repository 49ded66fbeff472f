/* Chunks that are decoded on threads: in every order of events each block is the
 * one that was written, and what is reported is what the first that is bad is. */
#include "engine/decoders.h"

#include "store/checksum.h"
#include "unit.h"

enum { DIM = 3, ROWS = 40, MOST = 60, ID = 7, THREADS = 3 };

struct world {
  attn_snapshot *shape;
  char *bytes[MOST]; /* of the blocks, as they are stored */
  size_t size;
  attn_block *blocks[MOST];
  struct decoders *decoders;
};

static void make_block(struct world *world, size_t index) {
  float keys[ROWS * DIM], values[ROWS * DIM];
  for (size_t i = 0; i < ROWS * DIM; i++) {
    keys[i] = (float)(index * 1000 + i);
    values[i] = -keys[i];
  }
  attn_snapshot *grown;
  ck_assert_int_eq(attn_snapshot_append(&grown, world->shape, keys, values, ROWS), ATTN_OK);
  ck_assert_uint_eq(attn_snapshot_block_count(grown), 1);
  const attn_block *block = attn_snapshot_block(grown, 0);
  world->size = attn_block_encoded_size(grown, block);
  world->bytes[index] = malloc(world->size);
  attn_block_encode(grown, block, world->bytes[index]);
  attn_snapshot_free(grown);
}

static void make_world(struct world *world, unsigned threads) {
  *world = (struct world){.decoders = decoders_create(threads)};
  ck_assert_ptr_nonnull(world->decoders);
  ck_assert_int_eq(attn_snapshot_create(&world->shape, DIM, DIM), ATTN_OK);
  for (size_t i = 0; i < MOST; i++)
    make_block(world, i);
}

static void end_world(struct world *world) {
  decoders_free(world->decoders);
  for (size_t i = 0; i < MOST; i++)
    free(world->bytes[i]);
  attn_snapshot_free(world->shape);
}

enum fault { NONE, FLIPPED, ANOTHER_CHUNK, CUT };

/* CUT is sound as far as the checksum knows, and no block. */
static void submit(struct world *world, size_t index, enum fault fault) {
  struct decoding *decoding = decoders_room(world->decoders);
  ck_assert_uint_eq(decoding->bytes.length, 0);
  const int64_t chunk = (int64_t)index + 1;
  const size_t size = world->size - (fault == CUT);
  ck_assert(buffer_append(&decoding->bytes, world->bytes[index], size));
  decoding->id = ID;
  decoding->chunk = chunk + (fault == ANOTHER_CHUNK);
  decoding->sum = checksum(RECORD_CHUNK, ID, chunk, world->bytes[index], size);
  if (fault == FLIPPED) decoding->bytes.data[index] ^= 1;
  decoding->index = index;
  decoding->shape = world->shape;
  decoding->block = &world->blocks[index];
  decoders_submit(world->decoders, decoding);
}

/* Blocks before `sound` have to be there. */
static void check_blocks(struct world *world, size_t sound) {
  char *bytes = malloc(world->size);
  for (size_t i = 0; i < MOST; i++) {
    ck_assert(i >= sound || world->blocks[i]);
    if (world->blocks[i]) {
      attn_block_encode(world->shape, world->blocks[i], bytes);
      ck_assert_mem_eq(bytes, world->bytes[i], world->size);
    }
    attn_block_free(world->blocks[i]);
    world->blocks[i] = NULL;
  }
  free(bytes);
}

static void run(unsigned threads) {
  struct world world;
  uint64_t state = threads + 1;
  make_world(&world, threads);
  for (int round = 0; round < 60; round++) {
    const size_t count = next_random(&state) % (MOST + 1), bad = next_random(&state) % MOST;
    const enum fault fault = (enum fault)(next_random(&state) % 4);
    for (size_t i = 0; i < count; i++)
      submit(&world, i, i == bad ? fault : NONE);
    const bool fails = fault != NONE && bad < count;
    ck_assert_int_eq(decoders_finish(world.decoders), fails ? STORE_DAMAGED : STORE_OK);
    ck_assert(!decoders_failed(world.decoders));
    if (fails) ck_assert_ptr_null(world.blocks[bad]);
    check_blocks(&world, fails ? bad : count);
  }
  end_world(&world);
}

START_TEST(test_with_threads) {
  run(THREADS);
}
END_TEST

START_TEST(test_without_threads) {
  run(0);
}
END_TEST

/* Those at hand without one being decoded: threads and two more. Given back they
 * are there again, and a run without a block is one. */
START_TEST(test_room_is_bounded_and_comes_back) {
  struct world world;
  struct decoding *taken[THREADS + 2];
  make_world(&world, THREADS);
  for (int round = 0; round < 3; round++) {
    for (size_t i = 0; i < THREADS + 2; i++) {
      taken[i] = decoders_room(world.decoders);
      for (size_t before = 0; before < i; before++)
        ck_assert_ptr_ne(taken[before], taken[i]);
    }
    for (size_t i = 0; i < THREADS + 2; i++)
      decoders_give_back(world.decoders, taken[i]);
    ck_assert_int_eq(decoders_finish(world.decoders), STORE_OK);
  }
  end_world(&world);
}
END_TEST

/* With a failure known, the reader learns of it before its run ends. */
START_TEST(test_failure_is_known_early) {
  struct world world;
  make_world(&world, THREADS);
  submit(&world, 0, FLIPPED);
  while (!decoders_failed(world.decoders))
    usleep(100);
  ck_assert_int_eq(decoders_finish(world.decoders), STORE_DAMAGED);
  check_blocks(&world, 0);
  end_world(&world);
}
END_TEST

UNIT_MAIN("decoders", test_with_threads, test_without_threads, test_room_is_bounded_and_comes_back,
          test_failure_is_known_early)
