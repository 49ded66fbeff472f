/* The two matrix products in float32, queries by keys and weights by values: nearly all
 * that a pass computes. A part of lib/kernels/kernels.c, which alone includes it. */
#ifndef ATTN_GEMM_F32_H
#define ATTN_GEMM_F32_H

#include "kernels/kernels.h"
#include "kernels/lanes.h"
#include "memory/panel.h"

/* ---- Prefetching ----
 *
 * With few queries the machine waits for memory, and the two products below alternate:
 * without help each begins with cold data. So while scores are computed the tile's
 * values are prefetched into the second-level cache, and during the product with the
 * values the next tile's keys are: a line for each line or two of work, which keeps the
 * memory bus busy at an even rate. Groups of queries that go through the same lines of
 * work divide the prefetching: each does one line of 2, 4 or 8. For memories that are
 * in a cache anyway the loops are compiled without. Measured: 1.3 to 1.7 times as fast
 * for up to 16 queries on memories beyond the caches.
 *
 * For few queries prefetching what the same loop reads next was rejected (no gain over
 * what the hardware does by itself). Addresses are integers here, because the last
 * ones may lie beyond the end; prefetching those does no harm. */
struct prefetcher {
  uintptr_t at;
  size_t step; /* bytes from one prefetch to the next; 0: nothing to do */
  size_t mask; /* SOME: prefetch with each line j of work that has j & mask == 0 */
};
enum prefetch_rate { PREFETCH_NEVER, PREFETCH_SOME, PREFETCH_EACH };
enum { SHARERS = 8 };

INLINE void prefetch_line(struct prefetcher *prefetcher) {
  __builtin_prefetch((const void *)prefetcher->at, 0, 2);
  prefetcher->at += prefetcher->step;
}

/* Divided among `groups` groups of queries, which go through the same lines of work. */
INLINE struct prefetcher prefetcher_shared(struct prefetcher prefetcher, size_t groups) {
  size_t sharers = 1;
  while (2 * sharers <= groups && sharers < SHARERS)
    sharers *= 2;
  prefetcher.mask = sharers - 1;
  return prefetcher;
}

/* Spread over `lines` lines of work, of which the first `done` are done. If that would be
 * more than a line for each, only the beginning is prefetched: a gap in the middle would
 * have to be waited for. */
INLINE struct prefetcher prefetcher_of(const struct attn_prefetch *prefetch, size_t lines,
                                       size_t done) {
  const size_t each = prefetch->bytes / lines, step = each < 64 ? each : 64;
  return (struct prefetcher){.at = (uintptr_t)prefetch->data + done * step, .step = step};
}

/* ---- Panels of keys ----
 * The micro-kernel takes MICRO_QUERIES queries and MICRO_PANELS panels through CHUNK
 * components: the sums stay in registers, a component is one or two loads and
 * MICRO_QUERIES broadcasts. Chunks are summed on their own and then added up, which keeps the
 * error of a product over 4096 components at that of a short one, and leaves
 * the part of a panel that is in use in the first-level cache.
 *
 * Smaller numbers are widened in registers for one query, which is bound by how
 * fast memory comes in, and for more once per chunk, into a buffer that stays in
 * the first-level cache. Either way the products are of the same float32 numbers,
 * so one query alone gets what it gets in a batch. */
enum { CHUNK = 128 };
enum { PANEL_VECS = ATTN_PANEL / LANES, MICRO_PANELS = LANES == 16 ? 2 : 1 };
/* As many queries as fit the registers, of which AVX-512 and NEON have 32. */
#if LANES == 16
enum { MICRO_QUERIES = 8 };
#define EACH_REST(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7)
#elif LANES == 8 || defined(ATTN_KERNEL_NEON)
enum { MICRO_QUERIES = 4 };
#define EACH_REST(X) X(1) X(2) X(3)
#else
enum { MICRO_QUERIES = 2 };
#define EACH_REST(X) X(1)
#endif
/* Few queries leave registers for more panels, whose sums are more chains that run at a time. */
enum { FEW_QUERIES = MICRO_QUERIES / 2, FEW_PANELS = 2 * MICRO_PANELS };
enum gemm_op { GEMM_PRODUCT, GEMM_DISTANCE2 };

/* A chunk of the panels of a micro-kernel, and all queries. */
struct gemm_args {
  const float *queries; /* `count`, dim apart */
  size_t count, dim;
  const void *panels;  /* numbers of some dtype, ... */
  const float *scales; /* ... theirs where it is int8 */
  size_t apart, chunk; /* components: from one panel to the next, and of each */
  float *scores;
  size_t stride;
  bool first;                   /* the first chunk: scores are set, not added to */
  struct prefetcher prefetcher; /* a line of work is a component of a panel */
};

INLINE vec gemm_term(enum gemm_op op, vec sum, float query, vec key) {
  if (op == GEMM_PRODUCT) return plus_product(sum, key, all(query));
  const vec difference = key - query;
  return plus_product(sum, difference, difference);
}

/* What a micro-kernel is compiled for. */
struct gemm_kind {
  enum gemm_op op;
  attn_dtype dtype;
  size_t panels;
};

/* Component j of the keys of vector v. A sum of products can be multiplied by
 * the scale when it is done, a distance can't. */
INLINE vec load_key(struct gemm_kind kind, const struct gemm_args *args, size_t j, size_t v) {
  const size_t component = v / PANEL_VECS * args->apart + j, lane = v % PANEL_VECS * LANES;
  const vec key = load_numbers(kind.dtype, args->panels, component * ATTN_PANEL + lane);
  if (kind.dtype != ATTN_INT8 || kind.op == GEMM_PRODUCT) return key;
  return key * load(args->scales + v * LANES);
}

/* n queries from number `query` on. */
INLINE void micro_kernel(struct gemm_kind kind, enum prefetch_rate rate, size_t n,
                         const struct gemm_args *args, size_t query,
                         struct prefetcher *prefetcher) {
  const size_t vecs = kind.panels * PANEL_VECS;
  const float *queries = args->queries + query * args->dim;
  vec sum[MICRO_QUERIES][FEW_PANELS * PANEL_VECS];
  for (size_t q = 0; q < n; q++)
    for (size_t v = 0; v < vecs; v++)
      sum[q][v] = all(0);
  struct prefetcher line = *prefetcher;
  for (size_t j = 0; j < args->chunk; j++)
    for (size_t v = 0; v < vecs; v++) {
      const vec key = load_key(kind, args, j, v);
      if (rate == PREFETCH_EACH && v % PANEL_VECS == 0) prefetch_line(&line);
      if (rate == PREFETCH_SOME && v % PANEL_VECS == 0 && (j & line.mask) == 0)
        prefetch_line(&line);
      for (size_t q = 0; q < n; q++)
        sum[q][v] = gemm_term(kind.op, sum[q][v], queries[q * args->dim + j], key);
    }
  *prefetcher = line;
  for (size_t q = 0; q < n; q++)
    for (size_t v = 0; v < vecs; v++) {
      float *to = args->scores + (query + q) * args->stride + v * LANES;
      store(to, args->first ? sum[q][v] : load(to) + sum[q][v]);
    }
}

INLINE void gemm(struct gemm_kind kind, const struct gemm_args *args) {
  struct prefetcher prefetcher = prefetcher_shared(args->prefetcher, args->count / MICRO_QUERIES);
  const bool prefetch = prefetcher.step > 0, few = kind.panels > MICRO_PANELS;
  size_t q = 0;
  for (; !few && prefetch && q + MICRO_QUERIES <= args->count; q += MICRO_QUERIES)
    micro_kernel(kind, PREFETCH_SOME, MICRO_QUERIES, args, q, &prefetcher);
  for (; !few && q + MICRO_QUERIES <= args->count; q += MICRO_QUERIES)
    micro_kernel(kind, PREFETCH_NEVER, MICRO_QUERIES, args, q, &prefetcher);
#define REST(n)                                                                                    \
  case n:                                                                                          \
    if (few && n > FEW_QUERIES) break;                                                             \
    if (prefetch && q == 0)                                                                        \
      micro_kernel(kind, PREFETCH_EACH, n, args, q, &prefetcher);                                  \
    else                                                                                           \
      micro_kernel(kind, PREFETCH_NEVER, n, args, q, &prefetcher);                                 \
    break;
  switch (args->count - q) { EACH_REST(REST) }
#undef REST
}

/* Out of line, once for all dtypes that are widened. */
static __attribute__((noinline)) void gemm_widened(enum gemm_op op, size_t panels,
                                                   const struct gemm_args *args) {
  if (op == GEMM_PRODUCT && panels == 1)
    gemm((struct gemm_kind){GEMM_PRODUCT, ATTN_F32, 1}, args);
  else if (op == GEMM_PRODUCT)
    gemm((struct gemm_kind){GEMM_PRODUCT, ATTN_F32, 2}, args);
  else if (panels == 1)
    gemm((struct gemm_kind){GEMM_DISTANCE2, ATTN_F32, 1}, args);
  else
    gemm((struct gemm_kind){GEMM_DISTANCE2, ATTN_F32, 2}, args);
}

INLINE void gemm_chunk(struct gemm_kind kind, const struct gemm_args *args) {
  if (kind.dtype == ATTN_F32) {
    gemm(kind, args);
  } else if (args->count == 1) {
    struct prefetcher prefetcher = args->prefetcher;
    micro_kernel(kind, PREFETCH_EACH, 1, args, 0, &prefetcher);
  } else {
    float widened[MICRO_PANELS * CHUNK * ATTN_PANEL] __attribute__((aligned(64)));
    for (size_t v = 0; v < kind.panels * PANEL_VECS; v++)
      for (size_t j = 0; j < args->chunk; j++)
        store(widened + (v / PANEL_VECS * args->chunk + j) * ATTN_PANEL + v % PANEL_VECS * LANES,
              load_key(kind, args, j, v));
    struct gemm_args copy = *args;
    copy.panels = widened;
    copy.apart = args->chunk;
    gemm_widened(kind.op, kind.panels, &copy);
  }
}

INLINE void panels_gemm(attn_dtype dtype, enum gemm_op op, const struct attn_panels *work,
                        float *scores, size_t stride) {
  const size_t components = work->panel_count * work->dim;
  for (size_t p = 0; p < work->panel_count;) {
    const size_t left = work->panel_count - p;
    const bool few = dtype == ATTN_F32 && work->count <= FEW_QUERIES && left >= FEW_PANELS;
    const size_t panels = few ? FEW_PANELS : left >= MICRO_PANELS ? MICRO_PANELS : 1;
    for (size_t from = 0; from < work->dim; from += CHUNK) {
      const struct attn_numbers keys =
          attn_numbers_after(work->keys, p * ATTN_PANEL, (p * work->dim + from) * ATTN_PANEL);
      const struct gemm_args args = {
          .queries = work->queries + from,
          .count = work->count,
          .dim = work->dim,
          .panels = keys.data,
          .scales = keys.scales,
          .apart = work->dim,
          .chunk = work->dim - from < CHUNK ? work->dim - from : CHUNK,
          .scores = scores + p * ATTN_PANEL,
          .stride = stride,
          .first = from == 0,
          .prefetcher = prefetcher_of(&work->prefetch, components, p * work->dim + from * panels)};
      if (few)
        gemm_chunk((struct gemm_kind){op, dtype, FEW_PANELS}, &args);
      else if (panels == 2)
        gemm_chunk((struct gemm_kind){op, dtype, 2}, &args);
      else
        gemm_chunk((struct gemm_kind){op, dtype, 1}, &args);
    }
    p += panels;
  }
}

static void panels_dot(const struct attn_panels *panels, float *scores, size_t stride) {
  BY_DTYPE(panels->keys.dtype, panels_gemm, GEMM_PRODUCT, panels, scores, stride)
}

static void panels_distance2(const struct attn_panels *panels, float *scores, size_t stride) {
  BY_DTYPE(panels->keys.dtype, panels_gemm, GEMM_DISTANCE2, panels, scores, stride)
}

/* ---- The weights times the values (P V) ----
 *
 * There are two ways, which add up the same terms in the same order and so give
 * the same bits. Columns: the mirror image of the panels, rows in the place of
 * components, with the sums of a few columns in registers. Rows: a few rows at a
 * time, all columns, with the sums in the cache. The first is the better one for
 * many queries; with wide rows it reads memory in jumps of a row, from page to page,
 * and the second one reads it in the order in which it lies.
 *
 * Rejected for many queries and wide rows: packing a column block first, as for
 * numbers that are widened (0.82 of the processor's peak in place of 0.93); tiles of
 * twice as many rows (no gain); 12 queries by 2 vectors (0.88: the compiler runs out
 * of registers for addresses) and 8 by 3 (0.92), where values in a cache reach 0.97;
 * unrolling further (no gain). */

enum { PV_VECS = LANES >= 8 ? 2 : 4 };
/* The micro-kernel may also be twice as wide and half as high: it needs as many
 * registers and reads a row in half as many jumps, but more calls go through the
 * same columns. It is the better one if those stay in the first-level cache
 * meanwhile, or one call is all. */
#if LANES == 16
enum { WIDE_VECS = 4, WIDE_QUERIES = 4, WIDE_ROWS = 96 };
#elif LANES == 8
enum { WIDE_VECS = 4, WIDE_QUERIES = 2, WIDE_ROWS = 0 };
#else
enum { WIDE_VECS = PV_VECS, WIDE_QUERIES = MICRO_QUERIES, WIDE_ROWS = 0 };
#endif
enum { PV_ROWS_QUERIES = 4, PV_ROWS_DIM = 256, PV_ROWS_ABREAST = 8 };

/* Some rows of some columns, and all queries. The last components of a row are
 * loaded with what follows them, and only what is theirs is stored. */
struct pv_args {
  const float *weights; /* count x stride */
  size_t count, stride;
  const void *values; /* numbers of some dtype; scales are in the weights */
  size_t rows, dim;   /* dim: from one row to the next */
  float *outputs;
  size_t apart, width;          /* floats from one query's outputs to the next, and of each */
  bool first;                   /* the first rows: outputs are set, not added to */
  struct prefetcher prefetcher; /* a line of work is a vector of a row */
};

INLINE vec output_so_far(const struct pv_args *work, size_t q, size_t v) {
  const float *from = work->outputs + q * work->apart + v * LANES;
  const size_t left = work->width - v * LANES;
  return work->first ? all(0) : left >= LANES ? load(from) : load_some(from, left, 0);
}

INLINE void pv_micro_kernel(attn_dtype dtype, enum prefetch_rate rate, size_t n, size_t vecs,
                            const struct pv_args *work, size_t q, struct prefetcher *prefetcher) {
  vec sum[MICRO_QUERIES][WIDE_VECS];
  const float *weights = work->weights + q * work->stride;
  struct prefetcher line = *prefetcher;
  for (size_t i = 0; i < n; i++)
    for (size_t v = 0; v < vecs; v++)
      sum[i][v] = output_so_far(work, q + i, v);
  for (size_t r = 0; r < work->rows; r++)
    for (size_t v = 0; v < vecs; v++) {
      const vec value = load_numbers(dtype, work->values, r * work->dim + v * LANES);
      if (rate == PREFETCH_EACH) prefetch_line(&line);
      if (rate == PREFETCH_SOME && (r & line.mask) == 0) prefetch_line(&line);
      for (size_t i = 0; i < n; i++)
        sum[i][v] = plus_product(sum[i][v], value, all(weights[i * work->stride + r]));
    }
  *prefetcher = line;
  for (size_t i = 0; i < n; i++)
    for (size_t v = 0; v < vecs; v++) {
      float *to = work->outputs + (q + i) * work->apart + v * LANES;
      const size_t left = work->width - v * LANES;
      if (left >= LANES)
        store(to, sum[i][v]);
      else
        store_some(to, sum[i][v], left);
    }
}

INLINE void pv_column_block(attn_dtype dtype, size_t vecs, const struct pv_args *work) {
  const size_t height = vecs > PV_VECS ? WIDE_QUERIES : MICRO_QUERIES;
  struct prefetcher prefetcher = prefetcher_shared(work->prefetcher, work->count / height);
  const bool prefetch = prefetcher.step > 0;
  size_t q = 0;
  if (prefetch)
    for (; q + height <= work->count; q += height)
      pv_micro_kernel(dtype, PREFETCH_SOME, height, vecs, work, q, &prefetcher);
  for (; q + height <= work->count; q += height)
    pv_micro_kernel(dtype, PREFETCH_NEVER, height, vecs, work, q, &prefetcher);
#define REST(n)                                                                                    \
  case n:                                                                                          \
    if (n >= height) break;                                                                        \
    if (prefetch && q == 0)                                                                        \
      pv_micro_kernel(dtype, PREFETCH_EACH, n, vecs, work, q, &prefetcher);                        \
    else                                                                                           \
      pv_micro_kernel(dtype, PREFETCH_NEVER, n, vecs, work, q, &prefetcher);                       \
    break;
  switch (work->count - q) { EACH_REST(REST) }
#undef REST
}

/* float32 takes all rows at once. Smaller numbers are widened PV_ROWS rows at a time,
 * which fit the first-level cache as float32. */
enum { PV_ROWS = 128 };

static __attribute__((noinline)) void pv_widened(size_t vecs, const struct pv_args *work) {
  if (vecs == 1)
    pv_column_block(ATTN_F32, 1, work);
  else
    pv_column_block(ATTN_F32, PV_VECS, work);
}

INLINE void pv_block(attn_dtype dtype, size_t vecs, const struct pv_args *work) {
  if (dtype == ATTN_F32) {
    pv_column_block(ATTN_F32, vecs, work);
  } else if (work->count == 1) {
    struct prefetcher prefetcher = work->prefetcher;
    pv_micro_kernel(dtype, PREFETCH_EACH, 1, vecs, work, 0, &prefetcher);
  } else {
    float widened[PV_ROWS * PV_VECS * LANES] __attribute__((aligned(64)));
    for (size_t r = 0; r < work->rows; r++)
      for (size_t v = 0; v < vecs; v++)
        store(widened + (r * vecs + v) * LANES,
              load_numbers(dtype, work->values, r * work->dim + v * LANES));
    struct pv_args copy = *work;
    copy.values = widened;
    copy.dim = vecs * LANES;
    pv_widened(vecs, &copy);
  }
}

INLINE size_t row_vecs(const struct attn_pv_args *work) {
  return (work->dim + LANES - 1) / LANES;
}

/* Columns from `column` on. */
INLINE void pv_columns(attn_dtype dtype, const struct attn_pv_args *work, size_t from, size_t rows,
                       size_t column, float *outputs) {
  struct pv_args block = {.weights = work->weights + from,
                          .count = work->count,
                          .stride = work->stride,
                          .rows = rows,
                          .dim = work->dim,
                          .apart = work->dim,
                          .first = from == 0 && !work->accumulate};
  const bool may_be_wide = dtype == ATTN_F32 && (work->count <= WIDE_QUERIES || rows <= WIDE_ROWS);
  const size_t wide = WIDE_VECS * LANES, usual = PV_VECS * LANES;
  const size_t calls = work->rows * row_vecs(work);
  for (; column < work->dim; column += block.width) {
    const size_t left = work->dim - column;
    block.values = attn_numbers_after(work->values, from, from * work->dim + column).data;
    block.outputs = outputs + column;
    block.prefetcher =
        prefetcher_of(&work->prefetch, calls, from * row_vecs(work) + rows * (column / LANES));
    if (wide > usual && may_be_wide && left >= wide) {
      block.width = wide;
      pv_block(dtype, WIDE_VECS, &block);
    } else if (left >= usual) {
      block.width = usual;
      pv_block(dtype, PV_VECS, &block);
    } else {
      block.width = left < LANES ? left : LANES;
      pv_block(dtype, 1, &block);
    }
  }
}

/* n rows of all columns that fill a vector. */
INLINE void pv_rows(attn_dtype dtype, size_t n, const struct attn_pv_args *work, size_t from,
                    float *outputs) {
  const void *values = attn_numbers_after(work->values, from, from * work->dim).data;
  struct prefetcher prefetcher =
      prefetcher_of(&work->prefetch, work->rows * row_vecs(work), from * row_vecs(work));
  for (size_t column = 0; column + LANES <= work->dim; column += LANES) {
    vec value[PV_ROWS_ABREAST];
    for (size_t r = 0; r < n; r++)
      value[r] = load_numbers(dtype, values, r * work->dim + column);
    for (size_t r = 0; prefetcher.step > 0 && r < n; r++)
      prefetch_line(&prefetcher);
    for (size_t q = 0; q < work->count; q++) {
      const float *weights = work->weights + q * work->stride + from;
      float *to = outputs + q * work->dim + column;
      vec sum = from > 0 || work->accumulate ? load(to) : all(0);
      for (size_t r = 0; r < n; r++)
        sum = plus_product(sum, value[r], all(weights[r]));
      store(to, sum);
    }
  }
}

INLINE void pv(attn_dtype dtype, const struct attn_pv_args *work, float *outputs) {
  size_t done = 0; /* columns */
  if (work->count <= PV_ROWS_QUERIES && work->dim >= PV_ROWS_DIM) {
    size_t r = 0;
    for (; r + PV_ROWS_ABREAST <= work->rows; r += PV_ROWS_ABREAST)
      pv_rows(dtype, PV_ROWS_ABREAST, work, r, outputs);
    for (; r < work->rows; r++)
      pv_rows(dtype, 1, work, r, outputs);
    done = work->dim / LANES * LANES;
  }
  const size_t most = dtype == ATTN_F32 ? work->rows : PV_ROWS;
  for (size_t from = 0; from < work->rows && done < work->dim; from += most)
    pv_columns(dtype, work, from, work->rows - from < most ? work->rows - from : most, done,
               outputs);
}

static void gemm_pv(const struct attn_pv_args *work, float *outputs) {
  BY_DTYPE(work->values.dtype, pv, work, outputs)
}

#endif
