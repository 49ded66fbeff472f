/* Queries through a score's matrix.
 *
 * Our loops multiply, because a query is to get the same bits whatever it is asked together
 * with, and they are not slower: a few columns of the matrix at a time are widened into a
 * panel, which all queries are multiplied by while the second-level cache has it. Measured on a
 * core of Zen 4 with m queries and n x n matrices, time of OpenBLAS 0.3.21 (and of the widening
 * that it needs) over ours:
 *
 *     n                  192    768    1536   3072   4608
 *     m = 1, AVX2        4.5    5.4    3.4    2.9    3.0
 *     m = 12             1.4    2.6    2.1    1.7    1.8
 *     m = 64             1.3    1.1    1.4    1.2    1.2
 *     m = 256            1.3    1.0    1.0    0.9    0.9
 *     m = 1, AVX-512     2.9    4.8    3.6    2.8    2.7
 *     m = 64             1.3    1.5    1.4    1.4    1.3
 *     m = 256            1.3    1.1    1.1    1.0    1.0
 *
 * OpenBLAS is best where we have no loops: it has products for the CPUs of many more
 * architectures than AVX2, AVX-512 and NEON, and is 3 to 4 times as fast as the portable
 * loops. So it multiplies where the portable kernels are in use. What it computes for a row
 * may depend on the place of the row and on how many there are, but its kernels for CPUs
 * without AVX-512 treat all rows of whole dozens alike, so rows of zeros are added. That
 * they do is looked at beforehand; where they do not, our loops go on.
 *
 * OpenBLAS works in a buffer (128 MiB of address space) for each thread that is in a call.
 * It maps one when it finds all others taken, and where the system refuses, it tries again
 * without end: a request would hang for ever. So buffers are mapped beforehand, by
 * attn_reserve_blas(), which asks the system first whether it would; without them our loops
 * do all. The two functions that OpenBLAS hands buffers out by are no part of its API, but
 * exported ever since; weak, so that a build of it without them does no harm. A lock around
 * one buffer was rejected: the read path takes none. So was an attempt to map as much just
 * before each call: what is free then may be gone a moment later.
 *
 * `reserved` is written by attn_reserve_blas() alone, before threads start. */
#include "attend/project.h"

#include <assert.h>
#include <cblas.h>
#include <string.h>
#include <sys/mman.h>

#include "attend/pool.h"
#include "kernels/kernels.h"
#include "memory/snapshot.h"

/* More than any build of OpenBLAS asks for a buffer, and as many as all have places for. */
#define BLAS_BUFFER ((size_t)256 << 20)
enum { BLAS_THREADS = 64 };

/* Rows that OpenBLAS computes alike. */
enum { BLAS_ROWS = 12 };

extern void *blas_memory_alloc(int unused) __attribute__((weak));
extern void blas_memory_free(void *buffer) __attribute__((weak));

static size_t reserved; /* buffers */

/* ---- OpenBLAS ---- */

static void multiply_blas(bool transposed, size_t rows, size_t dim, size_t inputs,
                          const double *queries, const double *matrix, double *outputs) {
  assert(rows % BLAS_ROWS == 0);
  cblas_dgemm(CblasRowMajor, CblasNoTrans, transposed ? CblasTrans : CblasNoTrans, (blasint)rows,
              (blasint)dim, (blasint)inputs, 1.0, queries, (blasint)inputs, matrix,
              (blasint)(transposed ? inputs : dim), 0.0, outputs, (blasint)dim);
}

static size_t whole_dozens(size_t rows) {
  return (rows + BLAS_ROWS - 1) / BLAS_ROWS * BLAS_ROWS;
}

/* Whether a row gets the same bits in any place of one dozen and of three. */
static bool rows_agree(bool transposed) {
  enum { MOST = 3 * BLAS_ROWS, INPUTS = 700, DIM = 70 };
  struct attn_arena arena = attn_arena_begin(NULL, 0);
  double *queries = attn_arena_alloc(&arena, MOST * INPUTS, sizeof *queries);
  double *matrix = attn_arena_alloc(&arena, INPUTS * DIM, sizeof *matrix);
  double *one = attn_arena_alloc(&arena, BLAS_ROWS * DIM, sizeof *one);
  double *three = attn_arena_alloc(&arena, MOST * DIM, sizeof *three);
  bool agree = queries && matrix && one && three;
  if (agree) {
    for (size_t i = 0; i < MOST * INPUTS; i++)
      queries[i] = 1.0 / (double)(3 + i % INPUTS);
    for (size_t i = 0; i < INPUTS * DIM; i++)
      matrix[i] = 1.0 / (double)(7 + i % 1001) - 0.01;
    multiply_blas(transposed, BLAS_ROWS, DIM, INPUTS, queries, matrix, one);
    multiply_blas(transposed, MOST, DIM, INPUTS, queries, matrix, three);
    for (size_t row = 0; row < MOST; row++)
      agree = agree && memcmp(three + row * DIM, one, DIM * sizeof *one) == 0 &&
              memcmp(one + row % BLAS_ROWS * DIM, one, DIM * sizeof *one) == 0;
  }
  attn_arena_end(&arena);
  return agree;
}

static bool can_map(size_t bytes) {
  void *probe = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (probe == MAP_FAILED) return false;
  munmap(probe, bytes);
  return true;
}

attn_status attn_reserve_blas(size_t threads) {
  void *buffers[BLAS_THREADS];
  size_t taken = 0;
  if (attn_kernels() != &attn_kernels_portable || threads <= reserved) return ATTN_OK;
  if (threads > BLAS_THREADS) return ATTN_TOO_LARGE;
  if (!blas_memory_alloc || !blas_memory_free) return ATTN_NO_MEMORY;
  while (taken < threads && can_map(BLAS_BUFFER))
    buffers[taken++] = blas_memory_alloc(0);
  for (size_t i = 0; i < taken; i++)
    blas_memory_free(buffers[i]);
  if (taken < threads) return ATTN_NO_MEMORY;
  if (rows_agree(false) && rows_agree(true)) reserved = threads;
  return ATTN_OK;
}

void attn_project_init(void) {
  openblas_set_num_threads(1);
}

static attn_status project_blas(const struct attn_projection *by, struct attn_arena *arena,
                                const double *queries, size_t count, double *outputs) {
  const size_t inputs = attn_projection_inputs(by), dim = attn_projection_outputs(by);
  const size_t rows = whole_dozens(count), numbers = attn_size_times(inputs, dim);
  double *matrix = attn_arena_alloc(arena, numbers, sizeof *matrix);
  double *from = attn_arena_alloc(arena, attn_size_times(rows, inputs), sizeof *from);
  double *to = attn_arena_alloc(arena, attn_size_times(rows, dim), sizeof *to);
  if (!matrix || !from || !to) return ATTN_NO_MEMORY;
  attn_kernels()->row_widen(matrix, by->matrix, numbers);
  memcpy(from, queries, count * inputs * sizeof *from);
  memset(from + count * inputs, 0, (rows - count) * inputs * sizeof *from);
  multiply_blas(by->transposed, rows, dim, inputs, from, matrix, to);
  memcpy(outputs, to, count * dim * sizeof *outputs);
  return ATTN_OK;
}

/* ---- Our loops ---- */

/* Columns and rows of a panel: whole blocks of every variant's gemm_f64(), and 96 KiB. */
enum { PANEL_COLUMNS = 48, PANEL_ROWS = 256 };

/* So many multiplications are worth several workers. */
enum { SHARED_LEAST = 1 << 20 };

struct product {
  const struct attn_projection *by;
  const double *queries;
  size_t count, slices;
  double *outputs;
  double *panels; /* one for each slice */
};

static void widen_panel(const struct attn_projection *by, size_t row, size_t rows, size_t column,
                        size_t columns, double *panel) {
  if (!by->transposed) {
    for (size_t r = 0; r < rows; r++)
      for (size_t c = 0; c < columns; c++)
        panel[r * columns + c] = (double)by->matrix[(row + r) * by->cols + column + c];
  } else {
    for (size_t c = 0; c < columns; c++)
      for (size_t r = 0; r < rows; r++)
        panel[r * columns + c] = (double)by->matrix[(column + c) * by->cols + row + r];
  }
}

static void multiply_columns(const struct product *product, size_t column, size_t columns,
                             double *panel) {
  const size_t inputs = attn_projection_inputs(product->by);
  const size_t dim = attn_projection_outputs(product->by);
  for (size_t q = 0; q < product->count; q++)
    memset(product->outputs + q * dim + column, 0, columns * sizeof *product->outputs);
  for (size_t row = 0; row < inputs; row += PANEL_ROWS) {
    const size_t rows = inputs - row < PANEL_ROWS ? inputs - row : PANEL_ROWS;
    const struct attn_gemm_f64 gemm = {.a = product->queries + row,
                                       .b = panel,
                                       .c = product->outputs + column,
                                       .m = product->count,
                                       .n = columns,
                                       .k = rows,
                                       .lda = inputs,
                                       .ldb = columns,
                                       .ldc = dim};
    widen_panel(product->by, row, rows, column, columns, panel);
    attn_kernels()->gemm_f64(&gemm);
  }
}

static void multiply_slice(void *argument, size_t slice) {
  const struct product *product = argument;
  const size_t dim = attn_projection_outputs(product->by);
  const size_t panels = (dim + PANEL_COLUMNS - 1) / PANEL_COLUMNS;
  const size_t end = attn_cut(panels, product->slices, slice + 1);
  for (size_t p = attn_cut(panels, product->slices, slice); p < end; p++) {
    const size_t column = p * PANEL_COLUMNS, left = dim - column;
    multiply_columns(product, column, left < PANEL_COLUMNS ? left : PANEL_COLUMNS,
                     product->panels + slice * PANEL_COLUMNS * PANEL_ROWS);
  }
}

static attn_status project_here(const struct attn_projection *by, struct attn_arena *arena,
                                const double *queries, size_t count, double *outputs) {
  const double work = (double)count * (double)by->rows * (double)by->cols;
  struct product product = {.by = by,
                            .queries = queries,
                            .count = count,
                            .slices = work >= SHARED_LEAST ? ATTN_SLICES : 1,
                            .outputs = outputs};
  product.panels =
      attn_arena_alloc(arena, product.slices * PANEL_COLUMNS * PANEL_ROWS, sizeof *product.panels);
  if (!product.panels) return ATTN_NO_MEMORY;
  attn_pool_run(arena->pool, product.slices, multiply_slice, &product);
  return ATTN_OK;
}

attn_status attn_project(const struct attn_projection *by, struct attn_arena *arena,
                         const double *queries, size_t count, double *outputs) {
  const bool blas = reserved > 0 && attn_kernels() == &attn_kernels_portable;
  return (blas ? project_blas : project_here)(by, arena, queries, count, outputs);
}
