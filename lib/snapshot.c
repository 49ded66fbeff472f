/* Snapshots: the rows of a memory at one moment.
 *
 * A snapshot is a list of blocks of about 1 MiB. Blocks are immutable once
 * they are published and counted, so a snapshot that grew by a row shares all
 * its blocks but the last with the one it grew from. Copying only the last
 * block was preferred to letting writers fill the room behind the rows that
 * readers see: that saves the copy (well below a millisecond) at the price of
 * an ownership rule that every later change (deletes, upserts) would have to
 * honour.
 *
 * Tiles, the unit of computing, never cross blocks; a block's capacity is a
 * multiple of the tile's rows, so full blocks leave no ragged tile. */
#include "snapshot.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Numbers in a block and in the larger of a tile's two matrices: the block
 * amortises its header and bounds the copy of an append, the tile of keys and
 * that of values fit the second-level cache together, as float32. */
enum { BLOCK_NUMBERS = 1 << 18, TILE_NUMBERS = 1 << 16, TILE_ROWS_MAX = 512, ROWS_MIN = 16 };
enum { ALIGNMENT = 64 };

static size_t rows_for(size_t numbers, size_t row_numbers, size_t most) {
  size_t rows = ROWS_MIN;
  while (rows * 2 <= most && rows * 2 * row_numbers <= numbers)
    rows *= 2;
  return rows;
}

static size_t aligned(size_t bytes) {
  return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

/* ---- Blocks ---- */

/* Where the parts of a block begin, from its start, and where it ends. */
struct layout {
  size_t panels, values, key_scales, value_scales, norms, end;
};

static struct layout layout_of(const attn_snapshot *shape, size_t capacity) {
  const size_t bytes = attn_dtype_bytes(shape->dtype);
  const size_t scales = shape->dtype == ATTN_INT8 ? aligned(capacity * sizeof(float)) : 0;
  struct layout at = {.panels = aligned(sizeof(struct attn_block))};
  at.values = at.panels + aligned(capacity * shape->key_dim * bytes);
  at.key_scales = at.values + aligned((capacity * shape->value_dim + ATTN_PANEL) * bytes);
  at.value_scales = at.key_scales + scales;
  at.norms = at.value_scales + scales;
  at.end = at.norms + aligned(capacity * sizeof(double));
  return at;
}

static struct attn_block *block_create(const attn_snapshot *shape, size_t capacity) {
  const struct layout at = layout_of(shape, capacity);
  char *memory = aligned_alloc(ALIGNMENT, at.end);
  if (!memory) return NULL;
  struct attn_block *block = (struct attn_block *)(void *)memory;
  atomic_init(&block->references, 1);
  block->rows = 0;
  block->capacity = capacity;
  block->panels = memory + at.panels;
  block->values = memory + at.values;
  const bool scaled = at.value_scales > at.key_scales;
  block->key_scales = scaled ? (float *)(void *)(memory + at.key_scales) : NULL;
  block->value_scales = scaled ? (float *)(void *)(memory + at.value_scales) : NULL;
  block->norms = (double *)(void *)(memory + at.norms);
  const size_t bytes = attn_dtype_bytes(shape->dtype);
  memset((char *)block->values + capacity * shape->value_dim * bytes, 0, ATTN_PANEL * bytes);
  return block;
}

static struct attn_block *block_ref(struct attn_block *block) {
  atomic_fetch_add_explicit(&block->references, 1, memory_order_relaxed);
  return block;
}

static void block_free(struct attn_block *block) {
  if (block && atomic_fetch_sub_explicit(&block->references, 1, memory_order_acq_rel) == 1)
    free(block);
}

static struct attn_numbers numbers_of(attn_dtype dtype, const void *data, const float *scales) {
  return (struct attn_numbers){.dtype = dtype, .data = data, .scales = scales};
}

static struct attn_numbers key_of(const struct attn_block *block, const attn_snapshot *shape,
                                  size_t row) {
  return attn_numbers_after(numbers_of(shape->dtype, block->panels, block->key_scales), row,
                            attn_panel_place(row, 0, shape->key_dim));
}

static struct attn_numbers value_of(const struct attn_block *block, const attn_snapshot *shape,
                                    size_t row) {
  return attn_numbers_after(numbers_of(shape->dtype, block->values, block->value_scales), row,
                            row * shape->value_dim);
}

static double norm_of(const float *row, size_t dim) {
  double sum = 0;
  for (size_t i = 0; i < dim; i++)
    sum += (double)row[i] * row[i];
  return sqrt(sum);
}

/* One row into its panel; the first row of a panel clears the others, which
 * the kernels read before they are filled. */
static void keep_key(struct attn_block *block, const attn_snapshot *shape, size_t row,
                     const float *key) {
  const size_t bytes = attn_dtype_bytes(shape->dtype), dim = shape->key_dim;
  char *panel = (char *)block->panels + (row - row % ATTN_PANEL) * dim * bytes;
  float *scale = block->key_scales ? block->key_scales + row : NULL;
  if (row % ATTN_PANEL == 0) {
    memset(panel, 0, dim * ATTN_PANEL * bytes);
    if (scale) memset(scale, 0, ATTN_PANEL * sizeof *scale);
  }
  attn_row_keep(shape->dtype, key, dim, panel + row % ATTN_PANEL * bytes, ATTN_PANEL, scale);
}

static void keep_value(struct attn_block *block, const attn_snapshot *shape, size_t row,
                       const float *value) {
  char *to = (char *)block->values + row * shape->value_dim * attn_dtype_bytes(shape->dtype);
  attn_row_keep(shape->dtype, value, shape->value_dim, to, 1,
                block->value_scales ? block->value_scales + row : NULL);
}

/* What a row adds to the extent; key and value as they are kept. */
static double extend(struct attn_extent *extent, const attn_snapshot *shape, const float *key,
                     const float *value) {
  const double norm = norm_of(key, shape->key_dim);
  extent->max_norm = fmax(extent->max_norm, norm);
  if (norm > 0) extent->min_norm = fmin(extent->min_norm, norm);
  for (size_t i = 0; i < shape->value_dim; i++)
    extent->max_value = fmax(extent->max_value, fabs((double)value[i]));
  return norm;
}

/* Copies rows into the room behind those that are there. `kept` has room for a
 * key and a value, where they are not kept as they come. */
static attn_status block_fill(struct attn_block *block, attn_snapshot *owner, const float *keys,
                              const float *values, size_t rows, float *kept) {
  const size_t dk = owner->key_dim, dv = owner->value_dim;
  for (size_t r = 0; r < rows; r++) {
    const size_t row = block->rows + r;
    const float *key = keys + r * dk, *value = values + r * dv;
    attn_status status = attn_row_check(owner->dtype, key, dk);
    if (status == ATTN_OK) status = attn_row_check(owner->dtype, value, dv);
    if (status != ATTN_OK) return status;
    keep_key(block, owner, row, key);
    keep_value(block, owner, row, value);
    if (kept) {
      const struct attn_numbers key_kept = key_of(block, owner, row);
      const struct attn_numbers value_kept = value_of(block, owner, row);
      attn_row_floats(&key_kept, ATTN_PANEL, dk, kept);
      attn_row_floats(&value_kept, 1, dv, kept + dk);
      key = kept;
      value = kept + dk;
    }
    block->norms[row] = extend(&owner->extent, owner, key, value);
  }
  block->rows += rows;
  return ATTN_OK;
}

/* The same from another block, into an empty one; panels go over whole. */
static void block_copy(struct attn_block *to, const struct attn_block *from,
                       const attn_snapshot *shape, size_t rows) {
  if (rows == 0) return;
  const size_t padded = attn_panel_rows(rows), bytes = attn_dtype_bytes(shape->dtype);
  memcpy(to->panels, from->panels, padded * shape->key_dim * bytes);
  memcpy(to->values, from->values, rows * shape->value_dim * bytes);
  memcpy(to->norms, from->norms, rows * sizeof *to->norms);
  if (to->key_scales) {
    memcpy(to->key_scales, from->key_scales, padded * sizeof *to->key_scales);
    memcpy(to->value_scales, from->value_scales, rows * sizeof *to->value_scales);
  }
  to->rows = rows;
}

/* ---- Snapshots ---- */

static attn_snapshot *snapshot_like(const attn_snapshot *shape, size_t block_count) {
  attn_snapshot *made = calloc(1, sizeof *made);
  if (!made) return NULL;
  made->blocks = calloc(block_count > 0 ? block_count : 1, sizeof *made->blocks);
  if (!made->blocks) {
    free(made);
    return NULL;
  }
  atomic_init(&made->references, 1);
  made->key_dim = shape->key_dim;
  made->value_dim = shape->value_dim;
  made->dtype = shape->dtype;
  made->tile_rows = shape->tile_rows;
  made->extent = shape->extent;
  return made;
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
                               .tile_rows = rows_for(TILE_NUMBERS, wider, TILE_ROWS_MAX),
                               .extent = {.min_norm = INFINITY}};
  attn_snapshot *made = snapshot_like(&shape, 0);
  if (!made) return ATTN_NO_MEMORY;
  *empty = made;
  return ATTN_OK;
}

static size_t block_capacity(const attn_snapshot *snapshot) {
  return rows_for(BLOCK_NUMBERS, snapshot->key_dim + snapshot->value_dim, 1 << 14);
}

/* How large the last block has to be: small memories must not cost 1 MiB
 * each, so the last block grows by doubling up to the full capacity. */
static size_t last_capacity(size_t rows, size_t full) {
  size_t capacity = ROWS_MIN;
  while (capacity < rows && capacity < full)
    capacity *= 2;
  return capacity;
}

/* The rows that go on top: those of base's partly filled last block, which is
 * copied, and the new ones. */
static attn_status grow(attn_snapshot *made, const attn_snapshot *base, const float *keys,
                        const float *values, size_t rows) {
  const size_t full = block_capacity(made);
  const struct attn_block *tail =
      base->block_count > 0 ? base->blocks[base->block_count - 1] : NULL;
  const size_t tail_rows = tail && tail->rows < full ? tail->rows : 0;
  const size_t shared = base->block_count - (tail_rows > 0);
  for (size_t b = 0; b < shared; b++) {
    made->blocks[made->block_count++] = block_ref(base->blocks[b]);
    made->rows += base->blocks[b]->rows;
  }

  attn_status status = ATTN_OK;
  float *kept = NULL;
  if (made->dtype != ATTN_F32) {
    kept = malloc((made->key_dim + made->value_dim) * sizeof *kept);
    if (!kept) return ATTN_NO_MEMORY;
  }
  size_t copied = tail_rows;
  for (size_t done = 0; status == ATTN_OK && (copied > 0 || done < rows);) {
    struct attn_block *block = block_create(made, last_capacity(copied + rows - done, full));
    if (!block) {
      status = ATTN_NO_MEMORY;
      break;
    }
    made->blocks[made->block_count++] = block;
    block_copy(block, tail, made, copied);
    copied = 0;
    const size_t room = block->capacity - block->rows;
    const size_t count = rows - done < room ? rows - done : room;
    if (count > 0)
      status = block_fill(block, made, keys + done * made->key_dim, values + done * made->value_dim,
                          count, kept);
    done += count;
    made->rows += block->rows;
  }
  free(kept);
  return status;
}

attn_status attn_snapshot_append(attn_snapshot **grown, const attn_snapshot *base,
                                 const float *keys, const float *values, size_t rows) {
  if (!grown || !base || (rows > 0 && (!keys || !values))) return ATTN_BAD_ARGUMENT;
  const size_t row_bytes = (base->key_dim + base->value_dim) * sizeof(float);
  if (rows > (SIZE_MAX / 4 - base->rows) / row_bytes) return ATTN_TOO_LARGE;
  const size_t block_count = base->block_count + rows / block_capacity(base) + 2;
  attn_snapshot *made = snapshot_like(base, block_count);
  if (!made) return ATTN_NO_MEMORY;
  const attn_status status = grow(made, base, keys, values, rows);
  if (status == ATTN_OK)
    *grown = made;
  else
    attn_snapshot_free(made);
  return status;
}

attn_snapshot *attn_snapshot_ref(attn_snapshot *snapshot) {
  if (snapshot) atomic_fetch_add_explicit(&snapshot->references, 1, memory_order_relaxed);
  return snapshot;
}

void attn_snapshot_free(attn_snapshot *snapshot) {
  if (!snapshot || atomic_fetch_sub_explicit(&snapshot->references, 1, memory_order_acq_rel) > 1)
    return;
  for (size_t b = 0; b < snapshot->block_count; b++)
    block_free(snapshot->blocks[b]);
  free(snapshot->blocks);
  free(snapshot);
}

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

size_t attn_snapshot_bytes(const attn_snapshot *snapshot) {
  size_t bytes = sizeof *snapshot + snapshot->block_count * sizeof *snapshot->blocks;
  for (size_t b = 0; b < snapshot->block_count; b++)
    bytes += layout_of(snapshot, snapshot->blocks[b]->capacity).end;
  return bytes;
}

attn_status attn_snapshot_get_row(const attn_snapshot *snapshot, size_t row, float *key,
                                  float *value) {
  if (!snapshot || row >= snapshot->rows) return ATTN_BAD_ARGUMENT;
  size_t b = 0;
  while (row >= snapshot->blocks[b]->rows)
    row -= snapshot->blocks[b++]->rows;
  const struct attn_block *block = snapshot->blocks[b];
  const struct attn_numbers kept_key = key_of(block, snapshot, row);
  const struct attn_numbers kept_value = value_of(block, snapshot, row);
  if (key) attn_row_floats(&kept_key, ATTN_PANEL, snapshot->key_dim, key);
  if (value) attn_row_floats(&kept_value, 1, snapshot->value_dim, value);
  return ATTN_OK;
}

struct attn_tile *attn_snapshot_tiles(const attn_snapshot *snapshot, size_t *count) {
  size_t needed = 0;
  for (size_t b = 0; b < snapshot->block_count; b++)
    needed += (snapshot->blocks[b]->rows + snapshot->tile_rows - 1) / snapshot->tile_rows;
  struct attn_tile *tiles = calloc(needed > 0 ? needed : 1, sizeof *tiles);
  if (!tiles) return NULL;
  size_t t = 0, first = 0;
  for (size_t b = 0; b < snapshot->block_count; b++) {
    const struct attn_block *block = snapshot->blocks[b];
    for (size_t row = 0; row < block->rows; row += snapshot->tile_rows, t++) {
      const size_t left = block->rows - row;
      tiles[t] = (struct attn_tile){.keys = key_of(block, snapshot, row),
                                    .values = value_of(block, snapshot, row),
                                    .norms = block->norms + row,
                                    .rows = left < snapshot->tile_rows ? left : snapshot->tile_rows,
                                    .first = first + row};
    }
    first += block->rows;
  }
  *count = t;
  return tiles;
}
