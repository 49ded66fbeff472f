/* Queries against panels of keys, and weighted sums of values: nearly all that a
 * pass computes. A part of lib/kernels.c, which alone includes it. */
#ifndef ATTN_PAIRS_H
#define ATTN_PAIRS_H

#include "kernels.h"
#include "lanes.h"

/* ---- Fetching ahead ----
 *
 * Few queries leave the machine waiting for memory, and the two loops below take
 * turns at it: without help each begins cold, and what comes in is never more
 * than it has just asked for. So while scores are computed the tile's values are
 * brought into the second-level cache, and while those are weighed the next
 * tile's keys are: a line for each line or two that is worked on, which keeps
 * memory busy all the time at an even pace. Groups of queries that meet the same
 * piece share the lines out: each fetches one of 2, 4 or 8. For memories that are
 * near anyway the loops are compiled without. Measured: 1.3 to 1.7 times as fast
 * for up to 16 queries on memories beyond the caches.
 *
 * For few queries fetching what is read next in the same loop was rejected (no gain
 * over what the hardware does by itself). Addresses are numbers here, because the
 * last ones may lie beyond the end; fetching those harms nothing. */
struct fetching {
  uintptr_t at;
  size_t step; /* bytes from one line to the next; 0: nothing to do */
  size_t mask; /* SOME: a line goes with each line j of work that has j & mask == 0 */
};
enum pace { NEVER, SOME, EACH };
enum { SHARERS = 8 };

INLINE void fetch(struct fetching *fetching) {
  __builtin_prefetch((const void *)fetching->at, 0, 2);
  fetching->at += fetching->step;
}

/* Among so many groups of queries, which go through the same lines of work. */
INLINE struct fetching shared_out(struct fetching fetching, size_t groups) {
  size_t sharers = 1;
  while (2 * sharers <= groups && sharers < SHARERS)
    sharers *= 2;
  fetching.mask = sharers - 1;
  return fetching;
}

/* Spread over so many lines of work, of which the first `done` are done. Where
 * that is more than a line for a line, only the beginning is fetched: nothing is
 * left out in the middle that a reader would have to wait for. */
INLINE struct fetching fetching_of(const struct attn_ahead *ahead, size_t lines, size_t done) {
  const size_t each = ahead->bytes / lines, step = each < 64 ? each : 64;
  return (struct fetching){.at = (uintptr_t)ahead->data + done * step, .step = step};
}

/* ---- Panels of keys ----
 *
 * A step takes MICRO queries and one or two panels through CHUNK components:
 * the sums stay in registers, a component is one or two loads and MICRO
 * broadcasts. Chunks are summed on their own and then added up, which keeps the
 * error of a product over 4096 components at that of a short one, and leaves
 * the part of a panel that is in use in the first-level cache.
 *
 * Smaller numbers are widened in registers for one query, which is bound by how
 * fast memory comes in, and for more once per chunk, into room that stays in
 * the first-level cache. Either way they meet queries as the same float32, so
 * one query alone gets what it gets in a batch. */
enum { PANEL = 16, CHUNK = 128 };
enum { PANEL_VECS = PANEL / LANES, WIDE_PANELS = LANES == 16 ? 2 : 1 };
/* As many queries as registers have room for: 32 of them with AVX-512 and NEON. */
#if LANES == 16
enum { MICRO = 8 };
#define EACH_REST(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7)
#elif LANES == 8 || defined(ATTN_KERNEL_NEON)
enum { MICRO = 4 };
#define EACH_REST(X) X(1) X(2) X(3)
#else
enum { MICRO = 2 };
#define EACH_REST(X) X(1)
#endif
/* Few queries have registers for more panels, and more sums to wait for at a time. */
enum { FEW_QUERIES = MICRO / 2, FEW_PANELS = 2 * WIDE_PANELS };
enum pair_op { PAIR_PRODUCT, PAIR_DISTANCE2 };

/* A chunk of some panels that are met together, and all queries. */
struct meeting {
  const float *queries; /* `count`, dim apart */
  size_t count, dim;
  const void *panels;  /* numbers of some dtype, ... */
  const float *scales; /* ... theirs where it is int8 */
  size_t apart, chunk; /* components: from one panel to the next, and of each */
  float *scores;
  size_t stride;
  bool first;               /* the first chunk: scores are set, not added to */
  struct fetching fetching; /* a line for each component of a panel */
};

INLINE vec pair_step(enum pair_op op, vec sum, float query, vec key) {
  if (op == PAIR_PRODUCT) return plus_product(sum, key, all(query));
  const vec difference = key - query;
  return plus_product(sum, difference, difference);
}

/* What a step is compiled for. */
struct pairing {
  enum pair_op op;
  attn_dtype dtype;
  size_t panels;
};

/* Component j of the keys of vector v. A sum of products can be multiplied by
 * the scale when it is done, a distance can't. */
INLINE vec load_key(struct pairing kind, const struct meeting *meeting, size_t j, size_t v) {
  const size_t component = v / PANEL_VECS * meeting->apart + j, lane = v % PANEL_VECS * LANES;
  const vec key = load_numbers(kind.dtype, meeting->panels, component * PANEL + lane);
  if (kind.dtype != ATTN_INT8 || kind.op == PAIR_PRODUCT) return key;
  return key * load(meeting->scales + v * LANES);
}

/* n queries from number `query` on. */
INLINE void micro_step(struct pairing kind, enum pace pace, size_t n, const struct meeting *meeting,
                       size_t query, struct fetching *fetching) {
  const size_t vecs = kind.panels * PANEL_VECS;
  const float *queries = meeting->queries + query * meeting->dim;
  vec sum[MICRO][FEW_PANELS * PANEL_VECS];
  for (size_t q = 0; q < n; q++)
    for (size_t v = 0; v < vecs; v++)
      sum[q][v] = all(0);
  struct fetching line = *fetching;
  for (size_t j = 0; j < meeting->chunk; j++)
    for (size_t v = 0; v < vecs; v++) {
      const vec key = load_key(kind, meeting, j, v);
      if (pace == EACH && v % PANEL_VECS == 0) fetch(&line);
      if (pace == SOME && v % PANEL_VECS == 0 && (j & line.mask) == 0) fetch(&line);
      for (size_t q = 0; q < n; q++)
        sum[q][v] = pair_step(kind.op, sum[q][v], queries[q * meeting->dim + j], key);
    }
  *fetching = line;
  for (size_t q = 0; q < n; q++)
    for (size_t v = 0; v < vecs; v++) {
      float *to = meeting->scores + (query + q) * meeting->stride + v * LANES;
      store(to, meeting->first ? sum[q][v] : load(to) + sum[q][v]);
    }
}

INLINE void meet(struct pairing kind, const struct meeting *meeting) {
  struct fetching fetching = shared_out(meeting->fetching, meeting->count / MICRO);
  const bool ahead = fetching.step > 0, few = kind.panels > WIDE_PANELS;
  size_t q = 0;
  for (; !few && ahead && q + MICRO <= meeting->count; q += MICRO)
    micro_step(kind, SOME, MICRO, meeting, q, &fetching);
  for (; !few && q + MICRO <= meeting->count; q += MICRO)
    micro_step(kind, NEVER, MICRO, meeting, q, &fetching);
#define REST(n)                                                                                    \
  case n:                                                                                          \
    if (few && n > FEW_QUERIES) break;                                                             \
    if (ahead && q == 0)                                                                           \
      micro_step(kind, EACH, n, meeting, q, &fetching);                                            \
    else                                                                                           \
      micro_step(kind, NEVER, n, meeting, q, &fetching);                                           \
    break;
  switch (meeting->count - q) { EACH_REST(REST) }
#undef REST
}

/* Out of line, once for all dtypes that are widened. */
static __attribute__((noinline)) void meet_widened(enum pair_op op, size_t panels,
                                                   const struct meeting *meeting) {
  if (op == PAIR_PRODUCT && panels == 1)
    meet((struct pairing){PAIR_PRODUCT, ATTN_F32, 1}, meeting);
  else if (op == PAIR_PRODUCT)
    meet((struct pairing){PAIR_PRODUCT, ATTN_F32, 2}, meeting);
  else if (panels == 1)
    meet((struct pairing){PAIR_DISTANCE2, ATTN_F32, 1}, meeting);
  else
    meet((struct pairing){PAIR_DISTANCE2, ATTN_F32, 2}, meeting);
}

INLINE void meet_chunk(struct pairing kind, const struct meeting *meeting) {
  if (kind.dtype == ATTN_F32) {
    meet(kind, meeting);
  } else if (meeting->count == 1) {
    struct fetching fetching = meeting->fetching;
    micro_step(kind, EACH, 1, meeting, 0, &fetching);
  } else {
    float widened[WIDE_PANELS * CHUNK * PANEL] __attribute__((aligned(64)));
    for (size_t v = 0; v < kind.panels * PANEL_VECS; v++)
      for (size_t j = 0; j < meeting->chunk; j++)
        store(widened + (v / PANEL_VECS * meeting->chunk + j) * PANEL + v % PANEL_VECS * LANES,
              load_key(kind, meeting, j, v));
    struct meeting wide = *meeting;
    wide.panels = widened;
    wide.apart = meeting->chunk;
    meet_widened(kind.op, kind.panels, &wide);
  }
}

INLINE void panels_pairs(attn_dtype dtype, enum pair_op op, const struct attn_panels *work,
                         float *scores, size_t stride) {
  const size_t components = work->panel_count * work->dim;
  for (size_t p = 0; p < work->panel_count;) {
    const size_t left = work->panel_count - p;
    const bool few = dtype == ATTN_F32 && work->count <= FEW_QUERIES && left >= FEW_PANELS;
    const size_t together = few ? FEW_PANELS : left >= WIDE_PANELS ? WIDE_PANELS : 1;
    for (size_t from = 0; from < work->dim; from += CHUNK) {
      const struct attn_numbers keys =
          attn_numbers_after(work->keys, p * PANEL, (p * work->dim + from) * PANEL);
      const struct meeting meeting = {
          .queries = work->queries + from,
          .count = work->count,
          .dim = work->dim,
          .panels = keys.data,
          .scales = keys.scales,
          .apart = work->dim,
          .chunk = work->dim - from < CHUNK ? work->dim - from : CHUNK,
          .scores = scores + p * PANEL,
          .stride = stride,
          .first = from == 0,
          .fetching = fetching_of(&work->ahead, components, p * work->dim + from * together)};
      if (few)
        meet_chunk((struct pairing){op, dtype, FEW_PANELS}, &meeting);
      else if (together == 2)
        meet_chunk((struct pairing){op, dtype, 2}, &meeting);
      else
        meet_chunk((struct pairing){op, dtype, 1}, &meeting);
    }
    p += together;
  }
}

static void panels_dot(const struct attn_panels *panels, float *scores, size_t stride) {
  BY_DTYPE(panels->keys.dtype, panels_pairs, PAIR_PRODUCT, panels, scores, stride)
}

static void panels_distance2(const struct attn_panels *panels, float *scores, size_t stride) {
  BY_DTYPE(panels->keys.dtype, panels_pairs, PAIR_DISTANCE2, panels, scores, stride)
}

/* ---- Weighted sums of values ----
 *
 * There are two ways, which add up the same terms in the same order and so give
 * the same bits. Columns: the mirror image of the panels, rows in the place of
 * components, with the sums of a few columns in registers. Rows: a few rows at a
 * time, all columns, with the sums in the cache. The first is the better one for
 * many queries; with wide rows it meets memory in jumps of a row, from page to
 * page, and the second one reads it as it lies.
 *
 * Rejected for many queries and wide rows: copying a strip of columns side by side
 * first, as for numbers that are widened (0.82 of the processor's peak in place of
 * 0.93); tiles of twice as many rows (no gain); 12 queries by 2 vectors (0.88, for the
 * compiler runs out of registers for addresses) and 8 by 3 (0.92), where what is near
 * is weighed at 0.97; unrolling further (no gain). */

enum { VALUE_VECS = LANES >= 8 ? 2 : 4 };
/* A step may also be twice as wide and half as high: it needs as many registers
 * and meets a row in half as many jumps, but more steps go through the same
 * columns. It is the better one where those stay in the first-level cache
 * meanwhile, or one step is all. */
#if LANES == 16
enum { WIDE_VECS = 4, WIDE_MICRO = 4, WIDE_ROWS = 96 };
#elif LANES == 8
enum { WIDE_VECS = 4, WIDE_MICRO = 2, WIDE_ROWS = 0 };
#else
enum { WIDE_VECS = VALUE_VECS, WIDE_MICRO = MICRO, WIDE_ROWS = 0 };
#endif
enum { ROWS_QUERIES = 4, ROWS_DIM = 256, ABREAST = 8 };

/* Some rows of some columns, and all queries. The last components of a row are
 * loaded with what follows them, and only what is theirs is stored. */
struct weighing {
  const float *weights; /* count x stride */
  size_t count, stride;
  const void *values; /* numbers of some dtype; scales are in the weights */
  size_t rows, dim;   /* dim: from one row to the next */
  float *outputs;
  size_t apart, width;      /* from one query's to the next, and how many are due */
  bool first;               /* the first rows: outputs are set, not added to */
  struct fetching fetching; /* a line for each vector of a row */
};

INLINE vec output_so_far(const struct weighing *work, size_t q, size_t v) {
  const float *from = work->outputs + q * work->apart + v * LANES;
  const size_t left = work->width - v * LANES;
  return work->first ? all(0) : left >= LANES ? load(from) : load_some(from, left, 0);
}

INLINE void weigh_step(attn_dtype dtype, enum pace pace, size_t n, size_t vecs,
                       const struct weighing *work, size_t q, struct fetching *fetching) {
  vec sum[MICRO][WIDE_VECS];
  const float *weights = work->weights + q * work->stride;
  struct fetching line = *fetching;
  for (size_t i = 0; i < n; i++)
    for (size_t v = 0; v < vecs; v++)
      sum[i][v] = output_so_far(work, q + i, v);
  for (size_t r = 0; r < work->rows; r++)
    for (size_t v = 0; v < vecs; v++) {
      const vec value = load_numbers(dtype, work->values, r * work->dim + v * LANES);
      if (pace == EACH) fetch(&line);
      if (pace == SOME && (r & line.mask) == 0) fetch(&line);
      for (size_t i = 0; i < n; i++)
        sum[i][v] = plus_product(sum[i][v], value, all(weights[i * work->stride + r]));
    }
  *fetching = line;
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

INLINE void weigh_column(attn_dtype dtype, size_t vecs, const struct weighing *work) {
  const size_t together = vecs > VALUE_VECS ? WIDE_MICRO : MICRO;
  struct fetching fetching = shared_out(work->fetching, work->count / together);
  const bool ahead = fetching.step > 0;
  size_t q = 0;
  if (ahead)
    for (; q + together <= work->count; q += together)
      weigh_step(dtype, SOME, together, vecs, work, q, &fetching);
  for (; q + together <= work->count; q += together)
    weigh_step(dtype, NEVER, together, vecs, work, q, &fetching);
#define REST(n)                                                                                    \
  case n:                                                                                          \
    if (n >= together) break;                                                                      \
    if (ahead && q == 0)                                                                           \
      weigh_step(dtype, EACH, n, vecs, work, q, &fetching);                                        \
    else                                                                                           \
      weigh_step(dtype, NEVER, n, vecs, work, q, &fetching);                                       \
    break;
  switch (work->count - q) { EACH_REST(REST) }
#undef REST
}

/* float32 takes all rows at once. What has to be widened goes in runs of rows
 * that fit the first-level cache as float32. */
enum { RUN = 128 };

static __attribute__((noinline)) void weigh_widened(size_t vecs, const struct weighing *work) {
  if (vecs == 1)
    weigh_column(ATTN_F32, 1, work);
  else
    weigh_column(ATTN_F32, VALUE_VECS, work);
}

INLINE void weigh_block(attn_dtype dtype, size_t vecs, const struct weighing *work) {
  if (dtype == ATTN_F32) {
    weigh_column(ATTN_F32, vecs, work);
  } else if (work->count == 1) {
    struct fetching fetching = work->fetching;
    weigh_step(dtype, EACH, 1, vecs, work, 0, &fetching);
  } else {
    float widened[RUN * VALUE_VECS * LANES] __attribute__((aligned(64)));
    for (size_t r = 0; r < work->rows; r++)
      for (size_t v = 0; v < vecs; v++)
        store(widened + (r * vecs + v) * LANES,
              load_numbers(dtype, work->values, r * work->dim + v * LANES));
    struct weighing wide = *work;
    wide.values = widened;
    wide.dim = vecs * LANES;
    weigh_widened(vecs, &wide);
  }
}

INLINE size_t row_vecs(const struct attn_weighing *work) {
  return (work->dim + LANES - 1) / LANES;
}

/* Columns from `column` on. */
INLINE void weigh_columns(attn_dtype dtype, const struct attn_weighing *work, size_t from,
                          size_t rows, size_t column, float *outputs) {
  struct weighing block = {.weights = work->weights + from,
                           .count = work->count,
                           .stride = work->stride,
                           .rows = rows,
                           .dim = work->dim,
                           .apart = work->dim,
                           .first = from == 0 && !work->onto};
  const bool may_be_wide = dtype == ATTN_F32 && (work->count <= WIDE_MICRO || rows <= WIDE_ROWS);
  const size_t wide = WIDE_VECS * LANES, usual = VALUE_VECS * LANES;
  const size_t calls = work->rows * row_vecs(work);
  for (; column < work->dim; column += block.width) {
    const size_t left = work->dim - column;
    block.values = attn_numbers_after(work->values, from, from * work->dim + column).data;
    block.outputs = outputs + column;
    block.fetching =
        fetching_of(&work->ahead, calls, from * row_vecs(work) + rows * (column / LANES));
    if (wide > usual && may_be_wide && left >= wide) {
      block.width = wide;
      weigh_block(dtype, WIDE_VECS, &block);
    } else if (left >= usual) {
      block.width = usual;
      weigh_block(dtype, VALUE_VECS, &block);
    } else {
      block.width = left < LANES ? left : LANES;
      weigh_block(dtype, 1, &block);
    }
  }
}

/* n rows of all columns that fill a vector. */
INLINE void weigh_rows(attn_dtype dtype, size_t n, const struct attn_weighing *work, size_t from,
                       float *outputs) {
  const void *values = attn_numbers_after(work->values, from, from * work->dim).data;
  struct fetching fetching =
      fetching_of(&work->ahead, work->rows * row_vecs(work), from * row_vecs(work));
  for (size_t column = 0; column + LANES <= work->dim; column += LANES) {
    vec value[ABREAST];
    for (size_t r = 0; r < n; r++)
      value[r] = load_numbers(dtype, values, r * work->dim + column);
    for (size_t r = 0; fetching.step > 0 && r < n; r++)
      fetch(&fetching);
    for (size_t q = 0; q < work->count; q++) {
      const float *weights = work->weights + q * work->stride + from;
      float *to = outputs + q * work->dim + column;
      vec sum = from > 0 || work->onto ? load(to) : all(0);
      for (size_t r = 0; r < n; r++)
        sum = plus_product(sum, value[r], all(weights[r]));
      store(to, sum);
    }
  }
}

INLINE void weigh(attn_dtype dtype, const struct attn_weighing *work, float *outputs) {
  size_t done = 0; /* columns */
  if (work->count <= ROWS_QUERIES && work->dim >= ROWS_DIM) {
    size_t r = 0;
    for (; r + ABREAST <= work->rows; r += ABREAST)
      weigh_rows(dtype, ABREAST, work, r, outputs);
    for (; r < work->rows; r++)
      weigh_rows(dtype, 1, work, r, outputs);
    done = work->dim / LANES * LANES;
  }
  const size_t most = dtype == ATTN_F32 ? work->rows : RUN;
  for (size_t from = 0; from < work->rows && done < work->dim; from += most)
    weigh_columns(dtype, work, from, work->rows - from < most ? work->rows - from : most, done,
                  outputs);
}

static void weigh_values(const struct attn_weighing *work, float *outputs) {
  BY_DTYPE(work->values.dtype, weigh, work, outputs)
}

#endif
