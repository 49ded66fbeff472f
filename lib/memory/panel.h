/* Panels: how keys lie in a block. */
#ifndef ATTN_PANEL_H
#define ATTN_PANEL_H

#include "memory/dtype.h"

/* Panels of ATTN_PANEL rows, [rows/16][key_dim][16]: component j of 16
 * neighbouring keys is one load of the score kernel, and no request has to pack
 * anything. */
enum { ATTN_PANEL = 16 };

/* Where component `index` of row `row` lies, from the panels' start. */
static inline size_t attn_panel_place(size_t row, size_t index, size_t key_dim) {
  return (row / ATTN_PANEL * key_dim + index) * ATTN_PANEL + row % ATTN_PANEL;
}

/* Rows rounded up to whole panels. */
static inline size_t attn_panel_rows(size_t rows) {
  return (rows + ATTN_PANEL - 1) / ATTN_PANEL * ATTN_PANEL;
}

/* Panels of rows of `dim` numbers, `bytes` (4, 2 or 1) each, which are moved as
 * they are. */
struct attn_panel_shape {
  size_t dim, bytes;
};

/* Row-major rows, of any alignment, become the panels' rows row .. row + count -
 * 1, and the other way round. */
void attn_panels_put(const struct attn_panel_shape *shape, void *panels, size_t row,
                     const void *rows, size_t count);
void attn_panels_get(const struct attn_panel_shape *shape, const void *panels, size_t row,
                     void *rows, size_t count);

/* Rows from other panels, which need not begin at the same place of one. */
void attn_panels_copy(const struct attn_panel_shape *shape, void *to, size_t to_row,
                      const void *from, size_t from_row, size_t count);

/* norms[i] = |row `row` + i|, summed in float64 from the first component to the
 * last, whatever its place and its neighbours. */
void attn_panels_norms(double *norms, const struct attn_numbers *panels, size_t dim, size_t row,
                       size_t count);

#endif
