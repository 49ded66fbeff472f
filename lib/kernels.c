/* The hot loops, written once over vectors of ATTN_KERNEL_LANES floats (or half
 * as many doubles) and compiled once per instruction set.
 *
 * GCC's vector types were preferred to intrinsics, which would be three copies
 * of every loop, and to the auto-vectoriser, which leaves exp() and every
 * reduction scalar without -ffast-math.
 *
 * Errors (measured by tests/unit/lib): exp and tanh within 2 ulp and 1e-7. Sums
 * run in ATTN_KERNEL_LANES * 4 interleaved chains, which keeps the rounding of
 * a distance over 4096 components near 1e-7 of it. */
#include "kernels.h"

#include <math.h>

#include "lanes.h"

#define JOIN_(a, b) a##b
#define JOIN(a, b)  JOIN_(a, b)
#define TEXT_(a)    #a
#define TEXT(a)     TEXT_(a)

/* exp(x) for x <= 0. With n the whole number nearest to x/ln 2 and r what is
 * left, |r| <= ln2/2: the Taylor polynomial of degree 7 is off by at most
 * 0.3466^8/8! = 6e-9. ln 2 is split so that n*LN2_HIGH is exact. */
#define LOG2_E      1.44269504f
#define LN2_HIGH    0.693359375f
#define LN2_LOW     (-2.12194440e-4f)
#define ROUND_MAGIC 12582912.0f /* 1.5 * 2^23: adding it rounds to a whole number */
#define EXP_LEAST   (-87.0f)

static inline vec exp_vec(vec x) {
  const ivec vanishes = x < all(EXP_LEAST);
  x = select_vec(vanishes, all(EXP_LEAST), x); /* -infinity would make a NaN below */
  const vec shifted = x * LOG2_E + ROUND_MAGIC;
  const vec n = shifted - ROUND_MAGIC;
  vec r = x - n * LN2_HIGH;
  r = r - n * LN2_LOW;
  vec p = r * (1.0f / 5040) + (1.0f / 720);
  p = p * r + (1.0f / 120);
  p = p * r + (1.0f / 24);
  p = p * r + (1.0f / 6);
  p = p * r + 0.5f;
  p = p * (r * r) + r + 1.0f;
  const ivec exponent = ((ivec)shifted - (ivec)all(ROUND_MAGIC)) << 23;
  return select_vec(vanishes, all(0), (vec)((ivec)p + exponent));
}

/* tanh x: (1-e)/(1+e) with e = exp(-2|x|), and close to 0, where 1-e loses its
 * digits, the Taylor polynomial (next term below 2e-8 of x at 0.25). */
static inline vec tanh_vec(vec x) {
  const vec size = (vec)((ivec)x & 0x7fffffff);
  const vec e = exp_vec(size * -2.0f);
  const vec far = (vec)((ivec)((1.0f - e) / (1.0f + e)) | ((ivec)x & (ivec)all(-0.0f)));
  const vec x2 = x * x;
  vec p = x2 * (-1382.0f / 155925) + (62.0f / 2835);
  p = p * x2 - (17.0f / 315);
  p = p * x2 + (2.0f / 15);
  p = p * x2 - (1.0f / 3);
  const vec near = x + x * x2 * p;
  return select_vec(size < all(0.25f), near, far);
}

static float row_max(const float *scores, size_t n) {
  enum { CHAINS = 4 };
  vec most[CHAINS];
  for (size_t c = 0; c < CHAINS; c++)
    most[c] = all(-INFINITY);
  size_t i = 0;
  for (; i + CHAINS * LANES <= n; i += CHAINS * LANES)
    for (size_t c = 0; c < CHAINS; c++)
      most[c] = larger_vec(most[c], load(scores + i + c * LANES));
  for (; i + LANES <= n; i += LANES)
    most[0] = larger_vec(most[0], load(scores + i));
  most[1] = larger_vec(most[1], load_some(scores + i, n - i, -INFINITY));
  float lanes[LANES], best = -INFINITY;
  store(lanes, larger_vec(larger_vec(most[0], most[1]), larger_vec(most[2], most[3])));
  for (size_t l = 0; l < LANES; l++)
    best = lanes[l] > best ? lanes[l] : best;
  return best;
}

/* A block at a time: nearly always there is nothing above the threshold in it.
 * The threshold is rounded down, and the one score found is compared as it is. */
static size_t row_skip(const float *scores, size_t n, double threshold) {
  float bound = (float)threshold;
  if ((double)bound > threshold) bound = nextafterf(bound, -INFINITY);
  size_t i = 0;
  while (i < n) {
    while (i + LANES <= n && !any_above(load(scores + i), all(bound)))
      i += LANES;
    const size_t end = i + LANES <= n ? i + LANES : n;
    for (; i < end; i++)
      if ((double)scores[i] > threshold) return i;
  }
  return n;
}

static double row_exp(float *scores, size_t n, float max) {
  vec sum = all(0);
  size_t i = 0;
  for (; i + LANES <= n; i += LANES) {
    const vec p = exp_vec(load(scores + i) - max);
    store(scores + i, p);
    sum += p;
  }
  if (i < n) {
    const vec p = exp_vec(load_some(scores + i, n - i, -INFINITY) - max);
    store_some(scores + i, p, n - i);
    sum += p;
  }
  return (double)sum_lanes(sum);
}

static void row_sqrt(float *scores, size_t n, float c) {
  for (size_t i = 0; i < n; i++)
    scores[i] = c * sqrtf(scores[i]);
}

static void row_times(float *scores, const float *factors, size_t n) {
  for (size_t i = 0; i < n; i++)
    scores[i] *= factors[i];
}

static void row_scale(float *scores, size_t n, float c) {
  for (size_t i = 0; i < n; i++)
    scores[i] *= c;
}

static void row_additive(float *scores, const float *hidden, size_t n, float query, float v,
                         bool first) {
  size_t i = 0;
  for (; i + LANES <= n; i += LANES) {
    const vec term = tanh_vec(load(hidden + i) + query) * v;
    store(scores + i, first ? term : load(scores + i) + term);
  }
  if (i < n) {
    const vec term = tanh_vec(load_some(hidden + i, n - i, 0) + query) * v;
    store_some(scores + i, first ? term : load_some(scores + i, n - i, 0) + term, n - i);
  }
}

/* function(dtype, ...) with the dtype a constant, so that its loops are its own. */
#define BY_DTYPE(dtype, function, ...)                                                             \
  switch (dtype) {                                                                                 \
  case ATTN_F32:                                                                                   \
    function(ATTN_F32, __VA_ARGS__);                                                               \
    break;                                                                                         \
  case ATTN_F16:                                                                                   \
    function(ATTN_F16, __VA_ARGS__);                                                               \
    break;                                                                                         \
  case ATTN_BF16:                                                                                  \
    function(ATTN_BF16, __VA_ARGS__);                                                              \
    break;                                                                                         \
  case ATTN_INT8:                                                                                  \
    function(ATTN_INT8, __VA_ARGS__);                                                              \
    break;                                                                                         \
  }

/* ---- Fetching ahead ----
 *
 * Few queries leave the machine waiting for memory, and the two loops below take
 * turns at it: without help each begins cold, and what comes in is never more
 * than it has just asked for. So while scores are computed the tile's values are
 * brought into the second-level cache, and while those are weighed the next
 * tile's keys are: a line for each line or two that is worked on, which keeps
 * memory busy all the time at an even pace. The first few queries that meet a
 * piece do it; the loops of the others, and of memories that are small enough to
 * be near anyway, are compiled without. Measured: 1.3 to 1.7 times as fast
 * for up to 16 queries on memories beyond the caches.
 *
 * Fetching both by what is read next in the same loop was rejected (no gain over
 * what the hardware does by itself). Addresses are numbers here, because the
 * last ones may lie beyond the end; fetching those harms nothing. */
struct fetching {
  uintptr_t at;
  size_t step; /* bytes from one line to the next; 0: nothing to do */
};

INLINE void fetch(struct fetching *fetching) {
  __builtin_prefetch((const void *)fetching->at, 0, 2);
  fetching->at += fetching->step;
}

/* Spread over so many lines of work, of which the first `done` are done. Where
 * that is more than a line for a line, only the beginning is fetched: nothing is
 * left out in the middle that a reader would have to wait for. */
INLINE struct fetching fetching_of(const struct attn_ahead *ahead, size_t lines, size_t done) {
  const size_t each = ahead->bytes / lines, step = each < 64 ? each : 64;
  return (struct fetching){(uintptr_t)ahead->data + done * step, step};
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
enum pair_op { PAIR_PRODUCT, PAIR_DISTANCE2 };

/* A chunk of one panel or two, and all queries. */
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
  if (op == PAIR_PRODUCT) return sum + key * query;
  const vec difference = key - query;
  return sum + difference * difference;
}

/* Component j of the keys of vector v. A sum of products can be multiplied by
 * the scale when it is done, a distance can't. */
INLINE vec load_key(enum pair_op op, attn_dtype dtype, const struct meeting *meeting, size_t j,
                    size_t v) {
  const size_t component = v / PANEL_VECS * meeting->apart + j, lane = v % PANEL_VECS * LANES;
  const vec key = load_numbers(dtype, meeting->panels, component * PANEL + lane);
  if (dtype != ATTN_INT8 || op == PAIR_PRODUCT) return key;
  return key * load(meeting->scales + v * LANES);
}

INLINE void micro_step(enum pair_op op, attn_dtype dtype, bool ahead, size_t n, size_t panels,
                       const struct meeting *meeting, size_t query) {
  const float *queries = meeting->queries + query * meeting->dim;
  vec sum[MICRO][2 * PANEL_VECS];
  for (size_t q = 0; q < n; q++)
    for (size_t v = 0; v < panels * PANEL_VECS; v++)
      sum[q][v] = all(0);
  struct fetching fetching = meeting->fetching;
  for (size_t j = 0; j < meeting->chunk; j++)
    for (size_t v = 0; v < panels * PANEL_VECS; v++) {
      const vec key = load_key(op, dtype, meeting, j, v);
      if (ahead && v % PANEL_VECS == 0) fetch(&fetching);
      for (size_t q = 0; q < n; q++)
        sum[q][v] = pair_step(op, sum[q][v], queries[q * meeting->dim + j], key);
    }
  for (size_t q = 0; q < n; q++)
    for (size_t v = 0; v < panels * PANEL_VECS; v++) {
      float *to = meeting->scores + (query + q) * meeting->stride + v * LANES;
      store(to, meeting->first ? sum[q][v] : load(to) + sum[q][v]);
    }
}

INLINE void meet(enum pair_op op, attn_dtype dtype, size_t panels, const struct meeting *meeting) {
  const bool ahead = meeting->fetching.step > 0;
  size_t q = 0;
  if (ahead && meeting->count >= MICRO) {
    micro_step(op, dtype, true, MICRO, panels, meeting, q);
    q += MICRO;
  }
  for (; q + MICRO <= meeting->count; q += MICRO)
    micro_step(op, dtype, false, MICRO, panels, meeting, q);
#define REST(n)                                                                                    \
  case n:                                                                                          \
    if (ahead && q == 0)                                                                           \
      micro_step(op, dtype, true, n, panels, meeting, q);                                          \
    else                                                                                           \
      micro_step(op, dtype, false, n, panels, meeting, q);                                         \
    break;
  switch (meeting->count - q) { EACH_REST(REST) }
#undef REST
}

/* Out of line, once for all dtypes that are widened. */
static __attribute__((noinline)) void meet_widened(enum pair_op op, size_t panels,
                                                   const struct meeting *meeting) {
  if (op == PAIR_PRODUCT && panels == 1)
    meet(PAIR_PRODUCT, ATTN_F32, 1, meeting);
  else if (op == PAIR_PRODUCT)
    meet(PAIR_PRODUCT, ATTN_F32, 2, meeting);
  else if (panels == 1)
    meet(PAIR_DISTANCE2, ATTN_F32, 1, meeting);
  else
    meet(PAIR_DISTANCE2, ATTN_F32, 2, meeting);
}

INLINE void meet_chunk(enum pair_op op, attn_dtype dtype, size_t panels,
                       const struct meeting *meeting) {
  if (dtype == ATTN_F32) {
    meet(op, ATTN_F32, panels, meeting);
  } else if (meeting->count == 1) {
    micro_step(op, dtype, true, 1, panels, meeting, 0);
  } else {
    float widened[WIDE_PANELS * CHUNK * PANEL] __attribute__((aligned(64)));
    for (size_t v = 0; v < panels * PANEL_VECS; v++)
      for (size_t j = 0; j < meeting->chunk; j++)
        store(widened + (v / PANEL_VECS * meeting->chunk + j) * PANEL + v % PANEL_VECS * LANES,
              load_key(op, dtype, meeting, j, v));
    struct meeting wide = *meeting;
    wide.panels = widened;
    wide.apart = meeting->chunk;
    meet_widened(op, panels, &wide);
  }
}

INLINE void panels_pairs(attn_dtype dtype, enum pair_op op, const struct attn_panels *work,
                         float *scores, size_t stride) {
  const size_t components = work->panel_count * work->dim;
  for (size_t p = 0; p < work->panel_count;) {
    const size_t together = p + WIDE_PANELS <= work->panel_count ? WIDE_PANELS : 1;
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
      if (together == 2)
        meet_chunk(op, dtype, 2, &meeting);
      else
        meet_chunk(op, dtype, 1, &meeting);
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
 * page, and the second one reads it as it lies. */

enum { VALUE_VECS = LANES == 16 ? 2 : LANES == 8 ? 2 : 4 };
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

INLINE void weigh_step(attn_dtype dtype, bool ahead, size_t n, size_t vecs,
                       const struct weighing *work, size_t q) {
  vec sum[MICRO][VALUE_VECS];
  const float *weights = work->weights + q * work->stride;
  struct fetching fetching = work->fetching;
  for (size_t i = 0; i < n; i++)
    for (size_t v = 0; v < vecs; v++)
      sum[i][v] = output_so_far(work, q + i, v);
  for (size_t r = 0; r < work->rows; r++)
    for (size_t v = 0; v < vecs; v++) {
      const vec value = load_numbers(dtype, work->values, r * work->dim + v * LANES);
      if (ahead) fetch(&fetching);
      for (size_t i = 0; i < n; i++)
        sum[i][v] += value * weights[i * work->stride + r];
    }
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
  const bool ahead = work->fetching.step > 0;
  size_t q = 0;
  if (ahead && work->count >= MICRO) {
    weigh_step(dtype, true, MICRO, vecs, work, q);
    q += MICRO;
  }
  for (; q + MICRO <= work->count; q += MICRO)
    weigh_step(dtype, false, MICRO, vecs, work, q);
#define REST(n)                                                                                    \
  case n:                                                                                          \
    if (ahead && q == 0)                                                                           \
      weigh_step(dtype, true, n, vecs, work, q);                                                   \
    else                                                                                           \
      weigh_step(dtype, false, n, vecs, work, q);                                                  \
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
    weigh_step(dtype, true, 1, vecs, work, 0);
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
                           .first = from == 0};
  const size_t wide = VALUE_VECS * LANES, calls = work->rows * row_vecs(work);
  for (; column < work->dim; column += block.width) {
    const size_t left = work->dim - column;
    block.values = attn_numbers_after(work->values, from, from * work->dim + column).data;
    block.outputs = outputs + column;
    block.fetching =
        fetching_of(&work->ahead, calls, from * row_vecs(work) + rows * (column / LANES));
    if (left >= wide) {
      block.width = wide;
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
      vec sum = from > 0 ? load(to) : all(0);
      for (size_t r = 0; r < n; r++)
        sum += value[r] * weights[r];
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

static void accumulate(double *sums, const float *terms, size_t n) {
  for (size_t i = 0; i < n; i++)
    sums[i] += (double)terms[i];
}

/* ---- float64 ---- */

enum { WIDE = LANES / 2, CHAINS = 4 };
typedef double wide __attribute__((vector_size(LANES * 4)));
typedef double wide_unaligned __attribute__((vector_size(LANES * 4), aligned(8), may_alias));

static inline wide load_wide(const double *from) {
  return *(const wide_unaligned *)(const void *)from;
}

static inline double sum_wide(const wide sum[CHAINS]) {
  const wide total = (sum[0] + sum[1]) + (sum[2] + sum[3]);
  double result = 0;
  for (size_t l = 0; l < WIDE; l++)
    result += total[l];
  return result;
}

static inline double dot_exact(const double *query, const double *key, size_t dim) {
  wide sum[CHAINS] = {{0}};
  size_t i = 0;
  for (; i + CHAINS * WIDE <= dim; i += CHAINS * WIDE)
    for (size_t c = 0; c < CHAINS; c++)
      sum[c] += load_wide(query + i + c * WIDE) * load_wide(key + i + c * WIDE);
  double rest = 0;
  for (; i < dim; i++)
    rest += query[i] * key[i];
  return sum_wide(sum) + rest;
}

static inline double distance_exact(const double *query, const double *key, size_t dim) {
  wide sum[CHAINS] = {{0}};
  size_t i = 0;
  for (; i + CHAINS * WIDE <= dim; i += CHAINS * WIDE)
    for (size_t c = 0; c < CHAINS; c++) {
      const wide d = load_wide(query + i + c * WIDE) - load_wide(key + i + c * WIDE);
      sum[c] += d * d;
    }
  double rest = 0;
  for (; i < dim; i++)
    rest += (query[i] - key[i]) * (query[i] - key[i]);
  return sqrt(sum_wide(sum) + rest);
}

typedef float half __attribute__((vector_size(LANES * 2)));
typedef float half_unaligned __attribute__((vector_size(LANES * 2), aligned(4), may_alias));

/* What is finite times 0 is 0, anything else NaN, and stays so in a sum. */
static bool row_finish(float *weights, size_t n, double factor) {
  float strange = 0;
  half sum = {0};
  size_t i = 0;
  for (; i + WIDE <= n; i += WIDE) {
    half_unaligned *at = (half_unaligned *)(void *)(weights + i);
    const half final =
        __builtin_convertvector(__builtin_convertvector((half)*at, wide) * factor, half);
    *at = final;
    sum += final * 0.0f;
  }
  for (; i < n; i++) {
    weights[i] = (float)((double)weights[i] * factor);
    strange += weights[i] * 0.0f;
  }
  for (size_t l = 0; l < WIDE; l++)
    strange += sum[l];
  return strange == 0;
}

INLINE void widen_vec(double *to, size_t stride, vec from, size_t n) {
  float lanes[LANES];
  store(lanes, from);
  for (size_t l = 0; l < n; l++)
    to[l * stride] = (double)lanes[l];
}

INLINE void keys_to_rows(attn_dtype dtype, double *to, const struct attn_numbers *keys, size_t rows,
                         size_t dim) {
  for (size_t row = 0; row < rows; row += LANES) {
    const size_t n = rows - row < LANES ? rows - row : LANES;
    const size_t place = row / PANEL * PANEL * dim + row % PANEL;
    for (size_t j = 0; j < dim; j++) {
      vec key = load_numbers(dtype, keys->data, place + j * PANEL);
      if (dtype == ATTN_INT8) key *= load(keys->scales + row);
      if (n == LANES)
        widen_vec(to + row * dim + j, dim, key, LANES);
      else
        widen_vec(to + row * dim + j, dim, key, n);
    }
  }
}

INLINE void values_to_rows(attn_dtype dtype, double *to, const struct attn_numbers *values,
                           size_t rows, size_t dim) {
  if (dtype != ATTN_INT8) { /* no row is unlike the others */
    dim *= rows;
    rows = 1;
  }
  for (size_t row = 0; row < rows; row++, to += dim)
    for (size_t i = 0; i < dim; i += LANES) {
      vec value = load_numbers(dtype, values->data, row * dim + i);
      if (dtype == ATTN_INT8) value *= values->scales[row];
      if (dim - i >= LANES)
        widen_vec(to + i, 1, value, LANES);
      else
        widen_vec(to + i, 1, value, dim - i);
    }
}

static void widen_keys(double *to, const struct attn_numbers *keys, size_t rows, size_t dim) {
  BY_DTYPE(keys->dtype, keys_to_rows, to, keys, rows, dim)
}

static void widen_values(double *to, const struct attn_numbers *values, size_t rows, size_t dim) {
  BY_DTYPE(values->dtype, values_to_rows, to, values, rows, dim)
}

static void row_dot_exact(double *scores, const double *query, const double *keys, size_t rows,
                          size_t dim) {
  for (size_t r = 0; r < rows; r++)
    scores[r] = dot_exact(query, keys + r * dim, dim);
}

static void row_distance_exact(double *scores, const double *query, const double *keys, size_t rows,
                               size_t dim) {
  for (size_t r = 0; r < rows; r++)
    scores[r] = distance_exact(query, keys + r * dim, dim);
}

const struct attn_kernels JOIN(attn_kernels_, ATTN_KERNEL_NAME) = {
    .name = TEXT(ATTN_KERNEL_NAME),
    .row_max = row_max,
    .row_skip = row_skip,
    .row_exp = row_exp,
    .row_sqrt = row_sqrt,
    .row_times = row_times,
    .row_scale = row_scale,
    .row_finish = row_finish,
    .row_additive = row_additive,
    .panels_dot = panels_dot,
    .panels_distance2 = panels_distance2,
    .weigh_values = weigh_values,
    .accumulate = accumulate,
    .widen_keys = widen_keys,
    .widen_values = widen_values,
    .row_dot_exact = row_dot_exact,
    .row_distance_exact = row_distance_exact,
};
