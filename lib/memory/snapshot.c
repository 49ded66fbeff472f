/* Snapshots: the rows of a memory at one moment, as a list of blocks.
 *
 * Blocks are immutable and counted, so a snapshot that differs from another in
 * a row shares all its blocks but one with it. Copying that one was preferred
 * to letting writers use the space behind the rows that readers see: that saves
 * a copy of about 1 MiB at the price of an ownership rule that every other
 * change would have to honour.
 *
 * The list itself is copied for each snapshot. A tree of blocks would share
 * most of that too, but 500 pointers for 1,000,000 rows of 64 are less than the
 * block beside them, and readers go through an array.
 *
 * Tiles, the unit of computing, never cross blocks; a block's capacity is a
 * multiple of the tile's rows, so full blocks leave no ragged tile. Blocks of
 * fewer rows may be anywhere in the list. */
#include "memory/snapshot.h"

#include <math.h>
#include <stdlib.h>

#include "attend/pool.h"

/* Numbers in the larger of a tile's two matrices: both fit the second-level
 * cache together, as float32. */
enum { TILE_NUMBERS = 1 << 16, TILE_ROWS_MAX = 512 };

/* ---- Life ---- */

attn_snapshot *attn_snapshot_like(const attn_snapshot *shape, size_t block_room) {
  attn_snapshot *made = calloc(1, sizeof *made);
  if (!made) return NULL;
  const size_t room = block_room > 0 ? block_room : 1;
  made->blocks = calloc(room, sizeof *made->blocks);
  made->firsts = calloc(room, sizeof *made->firsts);
  atomic_init(&made->references, 1);
  made->key_dim = shape->key_dim;
  made->value_dim = shape->value_dim;
  made->dtype = shape->dtype;
  made->tile_rows = shape->tile_rows;
  made->stats = attn_block_stats_empty;
  if (!made->blocks || !made->firsts) {
    attn_snapshot_free(made);
    return NULL;
  }
  return made;
}

void attn_snapshot_take(attn_snapshot *snapshot, struct attn_block *block) {
  snapshot->blocks[snapshot->block_count] = block;
  snapshot->firsts[snapshot->block_count++] = snapshot->rows;
  snapshot->rows += block->rows;
  attn_block_stats_merge(&snapshot->stats, &block->stats);
}

attn_status attn_snapshot_create(attn_snapshot **empty, size_t key_dim, size_t value_dim) {
  return attn_snapshot_create_typed(empty, key_dim, value_dim, ATTN_F32);
}

attn_status attn_snapshot_create_typed(attn_snapshot **empty, size_t key_dim, size_t value_dim,
                                       attn_dtype dtype) {
  if (!empty || key_dim < 1 || key_dim > ATTN_MAX_DIM || value_dim < 1 || value_dim > ATTN_MAX_DIM)
    return ATTN_BAD_ARGUMENT;
  if (!attn_dtype_info_at((size_t)dtype)) return ATTN_BAD_ARGUMENT;
  const size_t wider = key_dim > value_dim ? key_dim : value_dim;
  const attn_snapshot shape = {.key_dim = key_dim,
                               .value_dim = value_dim,
                               .dtype = dtype,
                               .tile_rows = attn_rows_for(TILE_NUMBERS, wider, TILE_ROWS_MAX)};
  attn_snapshot *made = attn_snapshot_like(&shape, 0);
  if (!made) return ATTN_NO_MEMORY;
  *empty = made;
  return ATTN_OK;
}

attn_status attn_snapshot_assemble(attn_snapshot **made, const attn_snapshot *shape,
                                   attn_block *const *blocks, size_t count) {
  if (!made || !shape || (count > 0 && !blocks)) return ATTN_BAD_ARGUMENT;
  size_t rows = 0;
  for (size_t b = 0; b < count; b++) {
    if (!blocks[b]) return ATTN_BAD_ARGUMENT;
    const struct attn_block_shape *of = &blocks[b]->shape;
    if (of->key_dim != shape->key_dim || of->value_dim != shape->value_dim ||
        of->dtype != shape->dtype)
      return ATTN_BAD_SHAPE;
    if (__builtin_add_overflow(rows, blocks[b]->rows, &rows)) return ATTN_TOO_LARGE;
  }
  attn_snapshot *assembled = attn_snapshot_like(shape, count);
  if (!assembled) return ATTN_NO_MEMORY;
  for (size_t b = 0; b < count; b++)
    attn_snapshot_take(assembled, attn_block_ref(blocks[b]));
  *made = assembled;
  return ATTN_OK;
}

attn_snapshot *attn_snapshot_ref(attn_snapshot *snapshot) {
  if (snapshot) atomic_fetch_add_explicit(&snapshot->references, 1, memory_order_relaxed);
  return snapshot;
}

void attn_snapshot_free(attn_snapshot *snapshot) {
  if (!snapshot || atomic_fetch_sub_explicit(&snapshot->references, 1, memory_order_acq_rel) > 1)
    return;
  for (size_t b = 0; b < snapshot->block_count; b++)
    attn_block_free(snapshot->blocks[b]);
  free(snapshot->blocks);
  free(snapshot->firsts);
  free(snapshot);
}

/* ---- What it is ---- */

size_t attn_snapshot_rows(const attn_snapshot *snapshot) {
  return snapshot->rows;
}
size_t attn_snapshot_key_dim(const attn_snapshot *snapshot) {
  return snapshot->key_dim;
}
size_t attn_snapshot_value_dim(const attn_snapshot *snapshot) {
  return snapshot->value_dim;
}
attn_dtype attn_snapshot_dtype(const attn_snapshot *snapshot) {
  return snapshot->dtype;
}
size_t attn_snapshot_block_count(const attn_snapshot *snapshot) {
  return snapshot->block_count;
}
attn_block *attn_snapshot_block(const attn_snapshot *snapshot, size_t index) {
  return index < snapshot->block_count ? snapshot->blocks[index] : NULL;
}

/* Of the snapshot itself and its lists. */
static size_t list_bytes(size_t block_count) {
  return sizeof(attn_snapshot) +
         block_count * (sizeof(((attn_snapshot *)0)->blocks[0]) + sizeof(size_t));
}

size_t attn_snapshot_bytes(const attn_snapshot *snapshot) {
  const struct attn_block_shape shape = attn_snapshot_shape(snapshot);
  size_t bytes = list_bytes(snapshot->block_count);
  for (size_t b = 0; b < snapshot->block_count; b++)
    bytes += attn_block_bytes(&shape, snapshot->blocks[b]->rows);
  return bytes;
}

size_t attn_snapshot_bytes_of(const attn_snapshot *shape, size_t rows) {
  const struct attn_block_shape of = attn_snapshot_shape(shape);
  const size_t capacity = attn_block_capacity(&of), full = rows / capacity, rest = rows % capacity;
  const size_t each = attn_block_bytes(&of, capacity) + list_bytes(1) - list_bytes(0);
  size_t bytes = list_bytes(rest > 0) + (rest > 0 ? attn_block_bytes(&of, rest) : 0), blocks;
  if (__builtin_mul_overflow(full, each, &blocks)) return SIZE_MAX;
  return __builtin_add_overflow(bytes, blocks, &bytes) ? SIZE_MAX : bytes;
}

bool attn_snapshot_can_address(const attn_snapshot *snapshot, size_t rows) {
  const size_t row_bytes = (snapshot->key_dim + snapshot->value_dim) * sizeof(float);
  return snapshot->rows <= SIZE_MAX / 4 && rows <= (SIZE_MAX / 4 - snapshot->rows) / row_bytes;
}

/* ---- Rows ---- */

static size_t block_of(const attn_snapshot *snapshot, size_t row) {
  size_t low = 0, high = snapshot->block_count;
  while (high - low > 1) {
    const size_t middle = low + (high - low) / 2;
    if (snapshot->firsts[middle] <= row)
      low = middle;
    else
      high = middle;
  }
  return low;
}

attn_status attn_snapshot_get_row(const attn_snapshot *snapshot, size_t row, float *key,
                                  float *value) {
  if (!snapshot || row >= snapshot->rows) return ATTN_BAD_ARGUMENT;
  const size_t b = block_of(snapshot, row);
  const size_t place = row - snapshot->firsts[b];
  const struct attn_numbers kept_key = attn_block_key(snapshot->blocks[b], place);
  const struct attn_numbers kept_value = attn_block_value(snapshot->blocks[b], place);
  if (key) attn_row_floats(&kept_key, ATTN_PANEL, snapshot->key_dim, key);
  if (value) attn_row_floats(&kept_value, 1, snapshot->value_dim, value);
  return ATTN_OK;
}

/* Where in block b: before it 0, and past its end behind it. */
static size_t split_begins(const attn_snapshot *snapshot, size_t b, size_t splits, size_t split) {
  const size_t row = attn_cut(snapshot->rows, splits, split), first = snapshot->firsts[b];
  return row <= first ? 0 : (row - first) / ATTN_PANEL * ATTN_PANEL;
}

struct attn_tile *attn_snapshot_tiles(const attn_snapshot *snapshot, size_t splits, size_t *count) {
  size_t needed = splits;
  for (size_t b = 0; b < snapshot->block_count; b++)
    needed += (snapshot->blocks[b]->rows + snapshot->tile_rows - 1) / snapshot->tile_rows;
  struct attn_tile *tiles = calloc(needed, sizeof *tiles);
  if (!tiles) return NULL;
  size_t t = 0, split = 0;
  for (size_t b = 0; b < snapshot->block_count; b++) {
    const struct attn_block *block = snapshot->blocks[b];
    for (size_t row = 0; row < block->rows; row += tiles[t++].rows) {
      while (split + 1 < splits && split_begins(snapshot, b, splits, split + 1) <= row)
        split++;
      size_t end = block->rows;
      if (end - row > snapshot->tile_rows) end = row + snapshot->tile_rows;
      const size_t next = split_begins(snapshot, b, splits, split + 1);
      if (split + 1 < splits && next < end) end = next;
      tiles[t] = (struct attn_tile){.keys = attn_block_key(block, row),
                                    .values = attn_block_value(block, row),
                                    .norms = block->norms + row,
                                    .rows = end - row,
                                    .first = snapshot->firsts[b] + row,
                                    .split = split};
    }
  }
  *count = t;
  return tiles;
}
