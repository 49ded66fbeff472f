/* Blocks as bytes, and back.
 *
 * The bytes are the kept numbers, row by row, without a header: what they are
 * of is known to whoever keeps them, and their length says how many rows there
 * are. They are the same however the rows lie in RAM, so the panels may change
 * without what was kept becoming unreadable. Norms and stats are not kept:
 * they are computed when the block is read, as when it was first made.
 *
 * Bytes are not trusted. Everything that the arithmetic takes for granted is
 * checked here: a block that was decoded is one that could have been made from
 * float32 rows. */
#include <stdlib.h>
#include <string.h>

#include "memory/snapshot.h"

/* Where the parts of the bytes begin, and where they end. */
struct parts {
  size_t keys, key_scales, values, value_scales, end;
};

static struct parts parts_of(const struct attn_block_shape *shape, size_t rows) {
  const size_t bytes = attn_dtype_bytes(shape->dtype);
  const size_t scales = shape->dtype == ATTN_INT8 ? rows * sizeof(float) : 0;
  struct parts at = {.keys = 0};
  at.key_scales = at.keys + rows * shape->key_dim * bytes;
  at.values = at.key_scales + scales;
  at.value_scales = at.values + rows * shape->value_dim * bytes;
  at.end = at.value_scales + scales;
  return at;
}

size_t attn_block_encoded_size(const attn_snapshot *shape, const attn_block *block) {
  const struct attn_block_shape of = attn_snapshot_shape(shape);
  return parts_of(&of, block->rows).end;
}

void attn_block_encode(const attn_snapshot *shape, const attn_block *block, void *bytes) {
  const struct attn_block_shape of = attn_snapshot_shape(shape);
  const struct attn_panel_shape panels = attn_block_panels(&of);
  const struct parts at = parts_of(&of, block->rows);
  char *to = bytes;
  attn_panels_get(&panels, block->panels, 0, to + at.keys, block->rows);
  memcpy(to + at.values, block->values, at.value_scales - at.values);
  if (block->key_scales) {
    memcpy(to + at.key_scales, block->key_scales, at.values - at.key_scales);
    memcpy(to + at.value_scales, block->value_scales, at.end - at.value_scales);
  }
}

/* Into the block, whose scales are there already; numbers are checked first. */
static attn_status take_numbers(struct attn_block *block, const struct parts *at,
                                const char *from) {
  const struct attn_block_shape *shape = &block->shape;
  const struct attn_panel_shape panels = attn_block_panels(shape);
  const struct attn_numbers keys = {shape->dtype, from + at->keys, block->key_scales};
  const struct attn_numbers values = {shape->dtype, from + at->values, block->value_scales};
  attn_status status = attn_rows_check_kept(&keys, block->rows, shape->key_dim);
  if (status == ATTN_OK) status = attn_rows_check_kept(&values, block->rows, shape->value_dim);
  if (status != ATTN_OK) return status;
  attn_panels_put(&panels, block->panels, 0, keys.data, block->rows);
  memcpy(block->values, values.data, at->value_scales - at->values);
  const struct attn_numbers kept = attn_block_key(block, 0);
  attn_panels_norms(block->norms, &kept, shape->key_dim, 0, block->rows);
  attn_block_seal(block);
  return ATTN_OK;
}

attn_status attn_block_decode(attn_block **block, const attn_snapshot *shape, const void *bytes,
                              size_t size) {
  if (!block || !shape || (size > 0 && !bytes)) return ATTN_BAD_ARGUMENT;
  const struct attn_block_shape of = attn_snapshot_shape(shape);
  const size_t row_bytes = parts_of(&of, 1).end, rows = size / row_bytes;
  if (rows < 1 || size % row_bytes != 0 || rows > attn_block_capacity(&of)) return ATTN_BAD_SHAPE;
  struct attn_block *decoded = attn_block_create(&of, rows);
  if (!decoded) return ATTN_NO_MEMORY;
  attn_block_populate(decoded);
  const struct parts at = parts_of(&of, rows);
  const char *from = bytes;
  if (decoded->key_scales) {
    memcpy(decoded->key_scales, from + at.key_scales, at.values - at.key_scales);
    memcpy(decoded->value_scales, from + at.value_scales, at.end - at.value_scales);
  }
  const attn_status status = take_numbers(decoded, &at, from);
  if (status == ATTN_OK)
    *block = decoded;
  else
    attn_block_free(decoded);
  return status;
}
