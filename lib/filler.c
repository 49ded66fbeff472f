/* Filling: a snapshot's blocks are made first, and its rows put into them as
 * they arrive.
 *
 * The blocks are those of a bulk append and each row goes where that would put
 * it, by the same code, so the outcome is the same to the bit. What has been
 * given is marked by a bit for each key and each value: streams may come in any
 * order, and a row that was forgotten must not be answered from.
 *
 * Growing block by block was rejected: keys come whole before the first value
 * does, so all room is needed anyway, and a lack of it is better known at once. */
#include <stdlib.h>

#include "snapshot.h"

/* Which rows were given, and how many were not yet. */
struct marks {
  uint64_t *bits;
  size_t left;
};

struct attn_filler {
  attn_snapshot *made; /* unpublished until it is finished */
  size_t capacity;     /* of a block */
  struct marks keys, values;
  bool finished;
};

enum { MARK_BITS = 64 };

static bool marks_create(struct marks *marks, size_t rows) {
  marks->bits = calloc(rows / MARK_BITS + 1, sizeof *marks->bits);
  marks->left = rows;
  return marks->bits;
}

static void mark(struct marks *marks, size_t first, size_t rows) {
  for (size_t row = first, taken; rows > 0; rows -= taken, row += taken) {
    const size_t place = row % MARK_BITS, room = MARK_BITS - place;
    taken = rows < room ? rows : room;
    const uint64_t ones = taken < MARK_BITS ? ((uint64_t)1 << taken) - 1 : ~(uint64_t)0;
    const uint64_t fresh = ones << place & ~marks->bits[row / MARK_BITS];
    marks->bits[row / MARK_BITS] |= fresh;
    marks->left -= (size_t)__builtin_popcountll(fresh);
  }
}

attn_status attn_filler_create(attn_filler **filler, const attn_snapshot *shape, size_t rows) {
  if (!filler || !shape || rows < 1) return ATTN_BAD_ARGUMENT;
  if (attn_snapshot_bytes_of(shape, rows) > SIZE_MAX / 4) return ATTN_TOO_LARGE;
  const struct attn_block_shape of = attn_snapshot_shape(shape);
  attn_filler *created = calloc(1, sizeof *created);
  if (!created) return ATTN_NO_MEMORY;
  created->capacity = attn_block_capacity(&of);
  created->made = attn_snapshot_like(shape, rows / created->capacity + 1);
  if (!created->made || !marks_create(&created->keys, rows) ||
      !marks_create(&created->values, rows))
    goto fail;
  while (created->made->rows < rows) {
    const size_t left = rows - created->made->rows;
    struct attn_block *block =
        attn_block_create(&of, left < created->capacity ? left : created->capacity);
    if (!block) goto fail;
    attn_snapshot_take(created->made, block);
  }
  *filler = created;
  return ATTN_OK;
fail:
  attn_filler_free(created);
  return ATTN_NO_MEMORY;
}

void attn_filler_free(attn_filler *filler) {
  if (!filler) return;
  attn_snapshot_free(filler->made);
  free(filler->keys.bits);
  free(filler->values.bits);
  free(filler);
}

typedef attn_status put_rows(struct attn_block *block, size_t row, const float *rows, size_t count);

static attn_status fill(attn_filler *filler, size_t first, size_t rows, const float *numbers,
                        struct marks *marks, size_t dim, put_rows *put) {
  const attn_snapshot *made = filler->made;
  if (filler->finished || first > made->rows || rows > made->rows - first) return ATTN_BAD_ARGUMENT;
  for (size_t row = first, left = rows, taken; left > 0; left -= taken, row += taken) {
    const size_t place = row % filler->capacity, room = filler->capacity - place;
    taken = left < room ? left : room;
    const attn_status status = put(made->blocks[row / filler->capacity], place, numbers, taken);
    if (status != ATTN_OK) return status;
    mark(marks, row, taken);
    numbers += taken * dim;
  }
  return ATTN_OK;
}

attn_status attn_filler_keys(attn_filler *filler, size_t first, size_t rows, const float *keys) {
  if (!filler || (rows > 0 && !keys)) return ATTN_BAD_ARGUMENT;
  return fill(filler, first, rows, keys, &filler->keys, filler->made->key_dim, attn_block_put_keys);
}

attn_status attn_filler_values(attn_filler *filler, size_t first, size_t rows,
                               const float *values) {
  if (!filler || (rows > 0 && !values)) return ATTN_BAD_ARGUMENT;
  return fill(filler, first, rows, values, &filler->values, filler->made->value_dim,
              attn_block_put_values);
}

attn_status attn_filler_finish(attn_filler *filler, attn_snapshot **made) {
  if (!filler || !made || filler->keys.left > 0 || filler->values.left > 0)
    return ATTN_BAD_ARGUMENT;
  if (!filler->finished)
    for (size_t b = 0; b < filler->made->block_count; b++) {
      attn_block_seal(filler->made->blocks[b]);
      attn_extent_unite(&filler->made->extent, &filler->made->blocks[b]->extent);
    }
  filler->finished = true;
  *made = attn_snapshot_ref(filler->made);
  return ATTN_OK;
}
