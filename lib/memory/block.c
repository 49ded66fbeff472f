/* Blocks: rows side by side, in one allocation of about 1 MiB.
 *
 * A block is filled by the one who made it and is immutable from the moment it
 * is in a snapshot; it is counted, so snapshots share it. Because it never
 * grows it has space for its rows and no more: a small memory is small, and what
 * was removed from a large one is given back.
 * All that is derived from the rows (norms, stats) is computed here, in one
 * way, whether they were given as numbers, copied from another block or read
 * from bytes. So a block depends on its rows alone, and equal rows in equal
 * blocks give bit-equal answers.
 *
 * It knows its shape, which every snapshot knows too: 24 bytes beside a MiB buy
 * functions with a parameter less, and blocks that can be told to be of the
 * wrong shape when a snapshot is put together from them. */
#include "memory/block.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* Numbers in a block: enough to amortise its header, few enough to bound the
 * copy that changing a row makes. */
enum { BLOCK_NUMBERS = 1 << 18, BLOCK_ROWS_MAX = 1 << 14 };
enum { ALIGNMENT = 64 };

size_t attn_rows_for(size_t numbers, size_t row_numbers, size_t most) {
  size_t rows = ATTN_PANEL;
  while (rows * 2 <= most && rows * 2 * row_numbers <= numbers)
    rows *= 2;
  return rows;
}

size_t attn_block_capacity(const struct attn_block_shape *shape) {
  return attn_rows_for(BLOCK_NUMBERS, shape->key_dim + shape->value_dim, BLOCK_ROWS_MAX);
}

/* ---- Life ---- */

static size_t aligned(size_t bytes) {
  return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

/* Where the parts of a block begin, from its start, and where it ends. */
struct layout {
  size_t panels, values, key_scales, value_scales, norms, end;
};

static struct layout layout_of(const struct attn_block_shape *shape, size_t rows) {
  const size_t bytes = attn_dtype_bytes(shape->dtype), padded = attn_panel_rows(rows);
  const size_t scales = shape->dtype == ATTN_INT8 ? aligned(padded * sizeof(float)) : 0;
  struct layout at = {.panels = aligned(sizeof(struct attn_block))};
  at.values = at.panels + aligned(padded * shape->key_dim * bytes);
  at.key_scales = at.values + aligned((rows * shape->value_dim + ATTN_PANEL) * bytes);
  at.value_scales = at.key_scales + scales;
  at.norms = at.value_scales + scales;
  at.end = at.norms + aligned(padded * sizeof(double));
  return at;
}

size_t attn_block_bytes(const struct attn_block_shape *shape, size_t rows) {
  return layout_of(shape, rows).end;
}

struct attn_block *attn_block_create(const struct attn_block_shape *shape, size_t rows) {
  const struct layout at = layout_of(shape, rows);
  char *memory = aligned_alloc(ALIGNMENT, at.end);
  if (!memory) return NULL;
  struct attn_block *block = (struct attn_block *)(void *)memory;
  const bool scaled = at.value_scales > at.key_scales;
  *block = (struct attn_block){
      .rows = rows,
      .stats = attn_block_stats_empty,
      .shape = *shape,
      .panels = memory + at.panels,
      .values = memory + at.values,
      .key_scales = scaled ? (float *)(void *)(memory + at.key_scales) : NULL,
      .value_scales = scaled ? (float *)(void *)(memory + at.value_scales) : NULL,
      .norms = (double *)(void *)(memory + at.norms),
  };
  atomic_init(&block->references, 1);
  atomic_init(&block->promoted, false);
  const size_t bytes = attn_dtype_bytes(shape->dtype), whole = rows / ATTN_PANEL * ATTN_PANEL;
  if (whole < rows)
    memset(memory + at.panels + whole * shape->key_dim * bytes, 0,
           ATTN_PANEL * shape->key_dim * bytes);
  memset(memory + at.values + rows * shape->value_dim * bytes, 0, ATTN_PANEL * bytes);
  memset(memory + at.key_scales, 0, at.end - at.key_scales);
  return block;
}

/* A page at a time costs an exception for each 4 KiB: a seventh of the time of
 * reading a memory from a store was that. Measured against it: huge pages
 * (MADV_HUGEPAGE over all blocks side by side), which took more than twice as
 * long on a virtual machine that gives its free pages back to its host. */
static void populate(void *memory, size_t bytes) {
#ifdef MADV_POPULATE_WRITE
  enum { FEWEST_BYTES = 1 << 18 };
  const size_t page = (size_t)sysconf(_SC_PAGESIZE);
  const uintptr_t begin = (uintptr_t)memory, first = (begin + page - 1) / page * page,
                  end = (begin + bytes) / page * page;
  if (bytes < FEWEST_BYTES || end <= first) return;
  char *from = (char *)memory + (first - begin);
  (void)madvise(from, end - first, MADV_POPULATE_WRITE); /* or they come one by one */
#else
  (void)memory;
  (void)bytes;
#endif
}

void attn_block_populate(struct attn_block *block) {
  populate(block, attn_block_bytes(&block->shape, block->rows));
}

void attn_block_populate_keys(struct attn_block *block) {
  const size_t bytes = attn_dtype_bytes(block->shape.dtype);
  populate(block->panels, attn_panel_rows(block->rows) * block->shape.key_dim * bytes);
}

void attn_block_populate_values(struct attn_block *block) {
  const size_t bytes = attn_dtype_bytes(block->shape.dtype);
  populate(block->values, block->rows * block->shape.value_dim * bytes);
}

attn_block *attn_block_ref(attn_block *block) {
  if (block) atomic_fetch_add_explicit(&block->references, 1, memory_order_relaxed);
  return block;
}

void attn_block_free(attn_block *block) {
  if (block && atomic_fetch_sub_explicit(&block->references, 1, memory_order_acq_rel) == 1)
    free(block);
}

size_t attn_block_rows(const attn_block *block) {
  return block->rows;
}

/* ---- Numbers ---- */

static struct attn_numbers panels_of(const struct attn_block *block) {
  return (struct attn_numbers){block->shape.dtype, block->panels, block->key_scales};
}

struct attn_numbers attn_block_key(const struct attn_block *block, size_t row) {
  return attn_numbers_after(panels_of(block), row, attn_panel_place(row, 0, block->shape.key_dim));
}

struct attn_numbers attn_block_value(const struct attn_block *block, size_t row) {
  const struct attn_numbers values = {block->shape.dtype, block->values, block->value_scales};
  return attn_numbers_after(values, row, row * block->shape.value_dim);
}

static attn_status check_rows(attn_dtype dtype, const float *rows, size_t dim, size_t count) {
  return attn_row_check(dtype, rows, dim * count);
}

/* Rows that lie in one panel. Smaller numbers are rounded row by row and then
 * moved as float32 is; `rounded` has space for a panel of them. */
static void put_panel(struct attn_block *block, size_t row, const float *keys, size_t count,
                      char *rounded) {
  const struct attn_panel_shape panels = attn_block_panels(&block->shape);
  const void *kept = keys;
  if (rounded) {
    for (size_t r = 0; r < count; r++)
      attn_row_keep(block->shape.dtype, keys + r * panels.dim, panels.dim,
                    rounded + r * panels.dim * panels.bytes, 1,
                    block->key_scales ? block->key_scales + row + r : NULL);
    kept = rounded;
  }
  attn_panels_put(&panels, block->panels, row, kept, count);
  const struct attn_numbers numbers = panels_of(block);
  attn_panels_norms(block->norms + row, &numbers, panels.dim, row, count);
}

attn_status attn_block_put_keys(struct attn_block *block, size_t row, const float *keys,
                                size_t count) {
  const struct attn_panel_shape panels = attn_block_panels(&block->shape);
  char *rounded = NULL;
  if (block->shape.dtype != ATTN_F32) {
    rounded = malloc(ATTN_PANEL * panels.dim * panels.bytes);
    if (!rounded) return ATTN_NO_MEMORY;
  }
  attn_status status = ATTN_OK;
  for (size_t taken; count > 0; count -= taken, row += taken, keys += taken * panels.dim) {
    const size_t room = ATTN_PANEL - row % ATTN_PANEL;
    taken = count < room ? count : room;
    status = check_rows(block->shape.dtype, keys, panels.dim, taken);
    if (status != ATTN_OK) break;
    put_panel(block, row, keys, taken, rounded);
  }
  free(rounded);
  return status;
}

attn_status attn_block_put_values(struct attn_block *block, size_t row, const float *values,
                                  size_t count) {
  const size_t dim = block->shape.value_dim, row_bytes = dim * attn_dtype_bytes(block->shape.dtype);
  char *to = (char *)block->values + row * row_bytes;
  for (size_t r = 0; r < count; r++, values += dim, to += row_bytes) {
    const attn_status status = check_rows(block->shape.dtype, values, dim, 1);
    if (status != ATTN_OK) return status;
    attn_row_keep(block->shape.dtype, values, dim, to, 1,
                  block->value_scales ? block->value_scales + row + r : NULL);
  }
  return ATTN_OK;
}

void attn_block_copy(struct attn_block *to, size_t to_row, const struct attn_block *from,
                     size_t from_row, size_t count) {
  const struct attn_panel_shape panels = attn_block_panels(&to->shape);
  const size_t row_bytes = to->shape.value_dim * panels.bytes;
  attn_panels_copy(&panels, to->panels, to_row, from->panels, from_row, count);
  memcpy((char *)to->values + to_row * row_bytes, (const char *)from->values + from_row * row_bytes,
         count * row_bytes);
  memcpy(to->norms + to_row, from->norms + from_row, count * sizeof *to->norms);
  if (to->key_scales) {
    memcpy(to->key_scales + to_row, from->key_scales + from_row, count * sizeof(float));
    memcpy(to->value_scales + to_row, from->value_scales + from_row, count * sizeof(float));
  }
}

/* ---- Extents ---- */

const struct attn_block_stats attn_block_stats_empty = {.min_norm = INFINITY};

void attn_block_stats_merge(struct attn_block_stats *stats, const struct attn_block_stats *other) {
  if (other->max_norm > stats->max_norm) stats->max_norm = other->max_norm;
  if (other->min_norm < stats->min_norm) stats->min_norm = other->min_norm;
  if (other->max_value > stats->max_value) stats->max_value = other->max_value;
}

void attn_block_seal(struct attn_block *block) {
  struct attn_block_stats stats = attn_block_stats_empty;
  for (size_t r = 0; r < block->rows; r++) {
    const double norm = block->norms[r];
    if (norm > stats.max_norm) stats.max_norm = norm;
    if (norm > 0 && norm < stats.min_norm) stats.min_norm = norm;
  }
  const struct attn_numbers values = attn_block_value(block, 0);
  stats.max_value = attn_rows_largest(&values, block->rows, block->shape.value_dim);
  block->stats = stats;
}
