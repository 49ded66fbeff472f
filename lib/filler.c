/* Filling: a snapshot's blocks are made first, and its rows put into them as
 * they arrive.
 *
 * The blocks are those of a bulk append and each row goes where that would put
 * it, by the same code, so the outcome is the same to the bit. What has been
 * given is marked by a bit for each key and each value: streams may come in any
 * order, and a row that was forgotten must not be answered from.
 *
 * Growing block by block was rejected: keys come whole before the first value
 * does, so all room is needed anyway, and a lack of it is better known at once.
 *
 * Most of the time of filling is the kernel's, which has to find and clear the pages.
 * Tried: all blocks in one region of huge pages, which made importing 1 GB no faster
 * (3.4 s against 3.5) and the receiving slower in three rounds of five: on a machine
 * whose hypervisor takes back what is free, whole huge pages are just those that were
 * taken. Having the pages made with the blocks (MADV_POPULATE_WRITE) was faster, 2.7 s, but
 * would hold up for all of that time the thread that brings the first bytes.
 *
 * A block whose rows are all there can be had before the others are, by whoever
 * wants to keep it elsewhere meanwhile. Who has seen it may rely on it, on another
 * thread too: so it is sealed then, and its rows are refused afterwards. */
#include <stdlib.h>

#include "snapshot.h"

/* Of a block. */
struct filling {
  size_t missing; /* keys and values that were not given yet */
  bool sealed;
};

struct attn_filler {
  attn_snapshot *made;     /* unpublished until it is finished */
  size_t capacity;         /* of a block */
  uint64_t *keys, *values; /* which were given: a bit for each */
  struct filling *fillings;
  size_t missing; /* of all blocks */
  bool finished;
};

enum { MARK_BITS = 64 };

static uint64_t *marks_create(size_t rows) {
  return calloc(rows / MARK_BITS + 1, sizeof(uint64_t));
}

/* How many of the rows were not marked before. */
static size_t mark(uint64_t *marks, size_t first, size_t rows) {
  size_t count = 0;
  for (size_t row = first, taken; rows > 0; rows -= taken, row += taken) {
    const size_t place = row % MARK_BITS, room = MARK_BITS - place;
    taken = rows < room ? rows : room;
    const uint64_t ones = taken < MARK_BITS ? ((uint64_t)1 << taken) - 1 : ~(uint64_t)0;
    const uint64_t fresh = ones << place & ~marks[row / MARK_BITS];
    marks[row / MARK_BITS] |= fresh;
    count += (size_t)__builtin_popcountll(fresh);
  }
  return count;
}

attn_status attn_filler_create(attn_filler **filler, const attn_snapshot *shape, size_t rows) {
  if (!filler || !shape || rows < 1) return ATTN_BAD_ARGUMENT;
  if (attn_snapshot_bytes_of(shape, rows) > SIZE_MAX / 4) return ATTN_TOO_LARGE;
  const struct attn_block_shape of = attn_snapshot_shape(shape);
  attn_filler *created = calloc(1, sizeof *created);
  if (!created) return ATTN_NO_MEMORY;
  created->capacity = attn_block_capacity(&of);
  const size_t room = rows / created->capacity + 1;
  created->made = attn_snapshot_like(shape, room);
  created->keys = marks_create(rows);
  created->values = marks_create(rows);
  created->fillings = calloc(room, sizeof *created->fillings);
  if (!created->made || !created->keys || !created->values || !created->fillings) goto fail;
  while (created->made->rows < rows) {
    const size_t left = rows - created->made->rows;
    struct attn_block *block =
        attn_block_create(&of, left < created->capacity ? left : created->capacity);
    if (!block) goto fail;
    created->fillings[created->made->block_count].missing = 2 * block->rows;
    attn_snapshot_take(created->made, block);
  }
  created->missing = 2 * rows;
  *filler = created;
  return ATTN_OK;
fail:
  attn_filler_free(created);
  return ATTN_NO_MEMORY;
}

void attn_filler_free(attn_filler *filler) {
  if (!filler) return;
  attn_snapshot_free(filler->made);
  free(filler->keys);
  free(filler->values);
  free(filler->fillings);
  free(filler);
}

typedef attn_status put_rows(struct attn_block *block, size_t row, const float *rows, size_t count);

static attn_status fill(attn_filler *filler, size_t first, size_t rows, const float *numbers,
                        uint64_t *marks, size_t dim, put_rows *put) {
  const attn_snapshot *made = filler->made;
  if (filler->finished || first > made->rows || rows > made->rows - first) return ATTN_BAD_ARGUMENT;
  for (size_t row = first, left = rows, taken; left > 0; left -= taken, row += taken) {
    const size_t place = row % filler->capacity, room = filler->capacity - place;
    taken = left < room ? left : room;
    struct filling *filling = &filler->fillings[row / filler->capacity];
    if (filling->sealed) return ATTN_BAD_ARGUMENT;
    const attn_status status = put(made->blocks[row / filler->capacity], place, numbers, taken);
    if (status != ATTN_OK) return status;
    const size_t fresh = mark(marks, row, taken);
    filling->missing -= fresh;
    filler->missing -= fresh;
    numbers += taken * dim;
  }
  return ATTN_OK;
}

attn_status attn_filler_keys(attn_filler *filler, size_t first, size_t rows, const float *keys) {
  if (!filler || (rows > 0 && !keys)) return ATTN_BAD_ARGUMENT;
  return fill(filler, first, rows, keys, filler->keys, filler->made->key_dim, attn_block_put_keys);
}

attn_status attn_filler_values(attn_filler *filler, size_t first, size_t rows,
                               const float *values) {
  if (!filler || (rows > 0 && !values)) return ATTN_BAD_ARGUMENT;
  return fill(filler, first, rows, values, filler->values, filler->made->value_dim,
              attn_block_put_values);
}

static struct attn_block *seal(attn_filler *filler, size_t index) {
  struct attn_block *block = filler->made->blocks[index];
  if (!filler->fillings[index].sealed) attn_block_seal(block);
  filler->fillings[index].sealed = true;
  return block;
}

size_t attn_filler_block_count(const attn_filler *filler) {
  return filler ? filler->made->block_count : 0;
}

attn_block *attn_filler_block(attn_filler *filler, size_t index) {
  if (index >= attn_filler_block_count(filler) || filler->fillings[index].missing > 0) return NULL;
  return seal(filler, index);
}

attn_status attn_filler_finish(attn_filler *filler, attn_snapshot **made) {
  if (!filler || !made || filler->missing > 0) return ATTN_BAD_ARGUMENT;
  if (!filler->finished)
    for (size_t b = 0; b < filler->made->block_count; b++)
      attn_extent_unite(&filler->made->extent, &seal(filler, b)->extent);
  filler->finished = true;
  *made = attn_snapshot_ref(filler->made);
  return ATTN_OK;
}
