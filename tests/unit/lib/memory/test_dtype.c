/* Smaller memories: numbers are rounded as they must be, and from then on the
 * memory is that of a caller who had given the rounded numbers.
 *
 * The rounding of f16 and bf16 is held against the list of all their numbers,
 * made here with ldexp() from what the formats say; that of int8 against its
 * bound. Answers are held against the oracle over the rows that
 * attn_snapshot_get_row() gives, so that what is left to judge is the
 * arithmetic, by the bounds that float32 has. */
#include "random_trial.h"

#include <float.h>

#include "memory/dtype.h"

enum { DTYPES = 4, PATTERNS = 1 << 16, SIGN = 1 << 15 };
#define COUNT(array) (sizeof(array) / sizeof *(array))

/* ---- The formats of 16 bits, by their definition ---- */

typedef struct format {
  attn_dtype dtype;
  int fraction_bits, bias;
  uint16_t infinity;
  uint16_t (*from_float)(float x);
  float (*to_float)(uint16_t bits);
} format;

static const format formats[] = {
    {ATTN_F16, 10, 15, 0x7c00, attn_f16_from_float, attn_f16_to_float},
    {ATTN_BF16, 7, 127, 0x7f80, attn_bf16_from_float, attn_bf16_to_float}};

/* The size of a pattern without a sign. That of infinity comes out as the
 * number that would be next, which is where rounding up to it leads. */
static double size_of(const format *f, unsigned pattern) {
  const int exponent = (int)(pattern >> f->fraction_bits);
  const unsigned one = 1u << f->fraction_bits, fraction = pattern & (one - 1);
  if (exponent == 0) return ldexp(fraction, 1 - f->bias - f->fraction_bits);
  return ldexp(one + fraction, exponent - f->bias - f->fraction_bits);
}

/* The sizes of all patterns up to infinity: they grow with the pattern. */
static double *sizes_new(const format *f) {
  double *sizes = must_alloc((size_t)f->infinity + 1, sizeof *sizes);
  for (unsigned pattern = 0; pattern <= f->infinity; pattern++)
    sizes[pattern] = size_of(f, pattern);
  return sizes;
}

/* The nearest pattern, the even one of two. */
static unsigned nearest(const format *f, const double *sizes, float x) {
  const double size = fabs((double)x);
  const unsigned sign = signbit(x) ? SIGN : 0;
  unsigned low = 0, high = f->infinity;
  if (size >= sizes[high]) return high | sign;
  while (high - low > 1) {
    const unsigned middle = (low + high) / 2;
    if (sizes[middle] <= size)
      low = middle;
    else
      high = middle;
  }
  const double below = size - sizes[low], above = sizes[high] - size;
  return (below < above || (below == above && low % 2 == 0) ? low : high) | sign;
}

START_TEST(test_every_pattern_is_read) {
  const format *f = &formats[_i];
  for (unsigned pattern = 0; pattern < PATTERNS; pattern++) {
    const unsigned size = pattern & (SIGN - 1);
    const float x = f->to_float((uint16_t)pattern);
    ck_assert_msg(!signbit(x) == !(pattern & SIGN), "%04x has the wrong sign", pattern);
    if (size > f->infinity)
      ck_assert_msg(isnan(x) && isnan(f->to_float(f->from_float(x))), "%04x is no NaN", pattern);
    else if (size == f->infinity)
      ck_assert_msg(isinf(x), "%04x is %g", pattern, (double)x);
    else
      ck_assert_msg(fabs((double)x) == size_of(f, size), "%04x is %g", pattern, (double)x);
    if (size <= f->infinity)
      ck_assert_msg(f->from_float(x) == pattern, "%04x becomes %04x", pattern, f->from_float(x));
  }
}
END_TEST

static void check_rounding(const format *f, const double *sizes, float x) {
  const unsigned expected = nearest(f, sizes, x), got = f->from_float(x);
  ck_assert_msg(got == expected, "%a becomes %04x, expected %04x", (double)x, got, expected);
}

/* Every number, every point half-way to the next, and their neighbours. */
START_TEST(test_rounding_to_nearest) {
  const format *f = &formats[_i];
  double *sizes = sizes_new(f);
  for (unsigned pattern = 0; pattern < f->infinity; pattern++) {
    const double middle = (sizes[pattern] + sizes[pattern + 1]) / 2;
    const float points[] = {(float)sizes[pattern], (float)middle};
    for (size_t p = 0; p < COUNT(points); p++)
      for (int sign = -1; sign <= 1; sign += 2) {
        const float x = (float)sign * points[p];
        check_rounding(f, sizes, x);
        check_rounding(f, sizes, nextafterf(x, INFINITY));
        check_rounding(f, sizes, nextafterf(x, -INFINITY));
      }
  }
  rng r = rng_for_case(1);
  for (size_t i = 0; i < test_rounds(200000); i++) {
    const uint32_t bits = (uint32_t)rng_bits(&r);
    float x;
    memcpy(&x, &bits, sizeof x);
    if (!isnan(x)) check_rounding(f, sizes, x);
  }
  check_rounding(f, sizes, FLT_MAX);
  check_rounding(f, sizes, INFINITY);
  check_rounding(f, sizes, -INFINITY);
  free(sizes);
}
END_TEST

/* ---- The table ---- */

START_TEST(test_table) {
  static const struct {
    const char *name;
    size_t bytes;
    double largest, relative, of_row;
  } expected[DTYPES] = {{"f32", 4, (double)FLT_MAX, 0, 0},
                        {"f16", 2, 65504, 1.0 / 2048, 0},
                        {"bf16", 2, 255 * 0x1p120, 1.0 / 256, 0},
                        {"int8", 1, (double)FLT_MAX, 0, 1.0 / 254}};
  for (size_t i = 0; i < DTYPES; i++) {
    const attn_dtype_info *info = attn_dtype_info_at(i);
    ck_assert_ptr_nonnull(info);
    ck_assert_uint_eq(info->dtype, i);
    ck_assert_str_eq(info->name, expected[i].name);
    ck_assert_uint_eq(info->bytes, expected[i].bytes);
    ck_assert(info->largest == expected[i].largest && info->relative == expected[i].relative &&
              info->of_row == expected[i].of_row);
    ck_assert(strlen(info->bound) > 0);
    ck_assert_ptr_eq(attn_dtype_info_find(expected[i].name), info);
  }
  ck_assert_ptr_null(attn_dtype_info_at(DTYPES));
  ck_assert_ptr_null(attn_dtype_info_find("F16"));
  ck_assert_ptr_null(attn_dtype_info_find(""));
  ck_assert_ptr_null(attn_dtype_info_find(NULL));
}
END_TEST

/* ---- What is kept of a row ---- */

typedef struct rows {
  size_t count, dk, dv;
  float *keys, *values;
} rows;

static rows rows_new(size_t count, size_t dk, size_t dv) {
  return (rows){count, dk, dv, floats_new(count * dk), floats_new(count * dv)};
}

static void rows_free(rows *of) {
  floats_free(of->keys);
  floats_free(of->values);
}

/* In pieces of up to `piece` rows. */
static attn_snapshot *memory_of(const rows *from, attn_dtype dtype, size_t piece) {
  attn_snapshot *memory = NULL;
  CHECK_STATUS(ATTN_OK, attn_snapshot_create_typed(&memory, from->dk, from->dv, dtype));
  ck_assert_uint_eq(attn_snapshot_dtype(memory), dtype);
  for (size_t done = 0; done < from->count; done += piece) {
    const size_t count = from->count - done < piece ? from->count - done : piece;
    attn_snapshot *base = memory;
    CHECK_STATUS(ATTN_OK, attn_snapshot_append(&memory, base, from->keys + done * from->dk,
                                               from->values + done * from->dv, count));
    attn_snapshot_free(base);
  }
  ck_assert_uint_eq(attn_snapshot_rows(memory), from->count);
  ck_assert_uint_eq(attn_snapshot_dtype(memory), dtype);
  return memory;
}

static void read_rows(const attn_snapshot *memory, rows *to) {
  for (size_t row = 0; row < to->count; row++)
    CHECK_STATUS(ATTN_OK, attn_snapshot_get_row(memory, row, to->keys + row * to->dk,
                                                to->values + row * to->dv));
}

static rows kept_of(const rows *from, attn_dtype dtype) {
  attn_snapshot *memory = memory_of(from, dtype, from->count);
  rows kept = rows_new(from->count, from->dk, from->dv);
  read_rows(memory, &kept);
  attn_snapshot_free(memory);
  return kept;
}

static bool same_rows(const rows *a, const rows *b) {
  return memcmp(a->keys, b->keys, a->count * a->dk * sizeof(float)) == 0 &&
         memcmp(a->values, b->values, a->count * a->dv * sizeof(float)) == 0;
}

/* Numbers of any size that the dtype takes, rows of zeros, of tiny numbers, of
 * sizes far apart. */
static void fill_any_size(rng *r, float *to, size_t count, size_t dim, attn_dtype dtype) {
  const double largest = attn_dtype_info_at(dtype)->largest, powers = log2(largest);
  for (size_t row = 0; row < count; row++) {
    const bool mixed = rng_chance(r, 0.2);
    double power = rng_range(r, -150, powers);
    for (size_t i = 0; i < dim; i++) {
      if (mixed) power = rng_range(r, -150, powers);
      const double x = rng_chance(r, 0.05) ? 0 : rng_range(r, -1, 1) * exp2(power);
      to[row * dim + i] = (float)x;
    }
    if (rng_chance(r, 0.1)) fill(to + row * dim, dim, 0);
    if (rng_chance(r, 0.1)) to[row * dim] = (float)(rng_chance(r, 0.5) ? largest : -largest);
  }
}

static void check_bound(const float *given, const float *kept, size_t dim, attn_dtype dtype) {
  const attn_dtype_info *info = attn_dtype_info_at(dtype);
  double most = 0;
  for (size_t i = 0; i < dim; i++)
    most = fmax(most, fabs((double)given[i]));
  for (size_t i = 0; i < dim; i++) {
    const double off = fabs((double)kept[i] - (double)given[i]);
    const double bound =
        info->relative * fabs((double)given[i]) + info->of_row * most + info->absolute;
    ck_assert_msg(off <= bound, "%s: %a is kept as %a in a row up to %a: off by %g, bound %g",
                  info->name, (double)given[i], (double)kept[i], most, off, bound);
    if (most == 0) ck_assert_msg(kept[i] == 0, "a zero became %g", (double)kept[i]);
  }
}

START_TEST(test_kept_within_the_bound) {
  const attn_dtype dtype = (attn_dtype)_i;
  for (size_t round = 0; round < test_rounds(12); round++) {
    rng r = rng_for_case(100 + 10 * round + (uint64_t)_i);
    rows given = rows_new(rng_between(&r, 1, 300), rng_between(&r, 1, 90), rng_between(&r, 1, 90));
    fill_any_size(&r, given.keys, given.count, given.dk, dtype);
    fill_any_size(&r, given.values, given.count, given.dv, dtype);
    rows kept = kept_of(&given, dtype);
    for (size_t row = 0; row < given.count; row++) {
      check_bound(given.keys + row * given.dk, kept.keys + row * given.dk, given.dk, dtype);
      check_bound(given.values + row * given.dv, kept.values + row * given.dv, given.dv, dtype);
    }
    if (dtype == ATTN_F32) ck_assert(same_rows(&given, &kept));
    /* What was read out and is put back doesn't change. */
    rows again = kept_of(&kept, dtype);
    ck_assert(same_rows(&kept, &again));
    rows_free(&again);
    rows_free(&kept);
    rows_free(&given);
  }
}
END_TEST

/* Every number that has one is kept as its nearest. */
START_TEST(test_halves_are_kept_as_the_nearest) {
  for (size_t i = 0; i < COUNT(formats); i++) {
    const format *f = &formats[i];
    double *sizes = sizes_new(f);
    rng r = rng_for_case(700 + i);
    rows given = rows_new(500, 17, 33);
    fill_any_size(&r, given.keys, 500, 17, f->dtype);
    fill_any_size(&r, given.values, 500, 33, f->dtype);
    rows kept = kept_of(&given, f->dtype);
    for (size_t n = 0; n < 500 * 17; n++)
      ck_assert(kept.keys[n] == f->to_float((uint16_t)nearest(f, sizes, given.keys[n])));
    for (size_t n = 0; n < 500 * 33; n++)
      ck_assert(kept.values[n] == f->to_float((uint16_t)nearest(f, sizes, given.values[n])));
    free(sizes);
    rows_free(&kept);
    rows_free(&given);
  }
}
END_TEST

/* int8: whole multiples of one scale, up to 127, ties to even. */
START_TEST(test_int8_steps) {
  const float row[] = {127, -127, 1, 1.5f, 2.5f, -2.5f, 0.49f, 0};
  const float expected[] = {127, -127, 1, 2, 2, -2, 0, 0};
  int8_t kept[COUNT(row)];
  float scale = NAN, read[COUNT(row)];
  attn_row_keep(ATTN_INT8, row, COUNT(row), kept, 1, &scale);
  ck_assert(scale == 1);
  const struct attn_numbers from = {ATTN_INT8, kept, &scale};
  attn_row_floats(&from, 1, COUNT(row), read);
  ck_assert_mem_eq(read, expected, sizeof read);
  const float zeros[3] = {0, -0.0f, 0};
  attn_row_keep(ATTN_INT8, zeros, 3, kept, 1, &scale);
  ck_assert(scale == 0 && kept[0] == 0 && kept[1] == 0 && kept[2] == 0);
  for (size_t i = 0; i < test_rounds(100000); i++) {
    rng r = rng_for_case(800 + i);
    const float most = (float)exp2(rng_range(&r, -118, 127.9));
    attn_row_keep(ATTN_INT8, &most, 1, kept, 1, &scale);
    const double exact = (double)most / 127, step = (double)scale;
    ck_assert_msg(step <= exact && exact - step <= 0x1p-16 * exact && kept[0] == 127,
                  "%a is %d times %a", (double)most, kept[0], step);
    /* As near as can be to half-way between two steps. */
    const float near = (float)((0.5 + (double)rng_between(&r, 0, 126)) * step);
    const float pair[2] = {most, rng_chance(&r, 0.5) ? near : nextafterf(near, most)};
    attn_row_keep(ATTN_INT8, pair, 2, kept, 1, &scale);
    ck_assert_msg(fabs((double)pair[1] - kept[1] * step) <= step / 2, "%a is %d times %a",
                  (double)pair[1], kept[1], step);
  }
}
END_TEST

static void check_refused(attn_status expected, attn_dtype dtype, float number) {
  rng r = rng_for_case(900);
  rows good = rows_new(40, 3, 5);
  fill_normal(&r, good.keys, 40 * 3, 1);
  fill_normal(&r, good.values, 40 * 5, 1);
  attn_snapshot *base = memory_of(&good, dtype, 7), *grown = NULL;
  rows before = kept_of(&good, dtype), after = rows_new(40, 3, 5);
  for (int in_key = 0; in_key < 2; in_key++) {
    float *place = in_key ? good.keys + 20 * 3 + 1 : good.values + 39 * 5 + 4;
    const float held = *place;
    *place = number;
    CHECK_STATUS(expected, attn_snapshot_append(&grown, base, good.keys, good.values, 40));
    ck_assert((grown != NULL) == (expected == ATTN_OK));
    attn_snapshot_free(grown);
    grown = NULL;
    *place = held;
  }
  ck_assert_uint_eq(attn_snapshot_rows(base), 40);
  read_rows(base, &after);
  ck_assert(same_rows(&before, &after));
  attn_snapshot_free(base);
  rows_free(&good);
  rows_free(&before);
  rows_free(&after);
}

START_TEST(test_out_of_range) {
  for (int dtype = 0; dtype < DTYPES; dtype++) {
    const float largest = (float)attn_dtype_info_at((size_t)dtype)->largest;
    const float beyond = nextafterf(largest, INFINITY);
    check_refused(ATTN_OK, (attn_dtype)dtype, largest);
    check_refused(ATTN_OK, (attn_dtype)dtype, -largest);
    check_refused(ATTN_NOT_FINITE, (attn_dtype)dtype, NAN);
    check_refused(ATTN_NOT_FINITE, (attn_dtype)dtype, -INFINITY);
    if (isinf(beyond)) continue;
    check_refused(ATTN_OUT_OF_RANGE, (attn_dtype)dtype, beyond);
    check_refused(ATTN_OUT_OF_RANGE, (attn_dtype)dtype, -beyond);
    check_refused(ATTN_OUT_OF_RANGE, (attn_dtype)dtype, FLT_MAX);
  }
  attn_snapshot *none = NULL;
  CHECK_STATUS(ATTN_BAD_ARGUMENT, attn_snapshot_create_typed(&none, 3, 3, (attn_dtype)DTYPES));
  CHECK_STATUS(ATTN_BAD_ARGUMENT, attn_snapshot_create_typed(NULL, 3, 3, ATTN_F16));
  CHECK_STATUS(ATTN_BAD_ARGUMENT, attn_snapshot_create_typed(&none, 0, 3, ATTN_F16));
  ck_assert_ptr_null(none);
  CHECK_STATUS(ATTN_OK, attn_snapshot_create(&none, 3, 3));
  ck_assert_uint_eq(attn_snapshot_dtype(none), ATTN_F32);
  attn_snapshot_free(none);
}
END_TEST

START_TEST(test_pieces_and_bytes) {
  static const struct {
    size_t rows, dk, dv, piece;
  } growths[] = {{1, 1, 1, 1}, {333, 3, 5, 1}, {20000, 96, 32, 3000}, {90, 2, 9000, 33}};
  for (int dtype = 0; dtype < DTYPES; dtype++)
    for (size_t i = 0; i < COUNT(growths); i++) {
      rng r = rng_for_case(1000 + i);
      rows given = rows_new(growths[i].rows, growths[i].dk, growths[i].dv);
      fill_normal(&r, given.keys, given.count * given.dk, 1);
      fill_normal(&r, given.values, given.count * given.dv, 1);
      attn_snapshot *pieces = memory_of(&given, (attn_dtype)dtype, growths[i].piece);
      attn_snapshot *whole = memory_of(&given, (attn_dtype)dtype, given.count);
      rows of_pieces = rows_new(given.count, given.dk, given.dv);
      rows of_whole = rows_new(given.count, given.dk, given.dv);
      read_rows(pieces, &of_pieces);
      read_rows(whole, &of_whole);
      ck_assert(same_rows(&of_pieces, &of_whole));
      const double row_bytes =
          (double)((given.dk + given.dv) * attn_dtype_info_at((size_t)dtype)->bytes +
                   (dtype == ATTN_INT8 ? 2 * sizeof(float) : 0));
      const double least = row_bytes * (double)given.count;
      const double bytes = (double)attn_snapshot_bytes(pieces);
      ck_assert_msg(bytes >= least, "%g bytes for %g bytes of numbers", bytes, least);
      if (given.count > 10000)
        ck_assert_msg(bytes <= 1.15 * least, "%g bytes for %g bytes of numbers", bytes, least);
      attn_snapshot_free(pieces);
      attn_snapshot_free(whole);
      rows_free(&of_pieces);
      rows_free(&of_whole);
      rows_free(&given);
    }
}
END_TEST

/* ---- Answers, held against the oracle over what is kept ---- */

/* The memory is given the rows of the trial, the oracle what is kept of them. A
 * query that was equal to a key stays so. */
static void prepare_rounded(trial *t, attn_dtype dtype, size_t piece) {
  const size_t dk = t->of.key_dim, bytes = dk * sizeof(float);
  rows given = {t->of.rows, dk, t->of.value_dim, t->keys, t->values};
  const rows kept = kept_of(&given, dtype);
  for (size_t q = 0; t->of.query_dim == dk && q < t->of.query_count; q++)
    for (size_t row = 0; row < t->of.rows; row++)
      if (memcmp(t->queries + q * dk, t->keys + row * dk, bytes) == 0) {
        memcpy(t->queries + q * dk, kept.keys + row * dk, bytes);
        break;
      }
  t->keys = kept.keys;
  t->values = kept.values;
  trial_prepare(t);
  attn_snapshot_free(t->snapshot);
  t->snapshot = memory_of(&given, dtype, piece);
  rows_free(&given);
}

static const attn_dtype small_dtypes[] = {ATTN_F16, ATTN_BF16, ATTN_INT8};

START_TEST(test_every_pair) {
  const char *score = score_names[_i];
  for (size_t i = 0; i < COUNT(small_dtypes) * NORMALIZATION_COUNT * test_rounds(2); i++) {
    const attn_dtype dtype = small_dtypes[i % COUNT(small_dtypes)];
    rng r = rng_for_case(20000 + 1000 * (uint64_t)_i + i);
    const shape of = {.rows = rng_between(&r, 1, rng_chance(&r, 0.2) ? 1500 : 150),
                      .key_dim = rng_between(&r, 1, rng_chance(&r, 0.2) ? 300 : 40),
                      .value_dim = rng_between(&r, 1, 70),
                      .query_count = rng_chance(&r, 0.4) ? 1 : rng_between(&r, 2, 14),
                      .query_dim = takes_other_query_dim(score) ? rng_between(&r, 1, 9) : 0};
    trial t = trial_random(20000 + 1000 * (uint64_t)_i + i, of, score,
                           normalization_names[i / COUNT(small_dtypes) % NORMALIZATION_COUNT]);
    prepare_rounded(&t, dtype, rng_between(&r, 1, of.rows));
    trial_check_all(&t, rng_between(&r, 1, of.rows));
    trial_free(&t);
  }
}
END_TEST

/* Long rows and many of them: sums over chunks, tiles and key blocks. */
START_TEST(test_large_shapes) {
  static const char *const pairs[][2] = {
      {"scaled_dot", "softmax"}, {"gaussian", "sum"}, {"cosine", "entmax15"}, {"laplacian", "sum"}};
  static const shape shapes[] = {
      {700, 4096, 3, 2, 0}, {20000, 24, 100, 1, 0}, {3000, 65, 129, 9, 0}};
  for (size_t i = 0; i < COUNT(shapes) * COUNT(small_dtypes); i++) {
    const char *const *pair = pairs[i % COUNT(pairs)];
    trial t = trial_random(40000 + i, shapes[i % COUNT(shapes)], pair[0], pair[1]);
    prepare_rounded(&t, small_dtypes[i / COUNT(shapes)], t.of.rows);
    trial_check(&t, (asking){ATTN_WEIGHTS_FULL, 0, NULL});
    trial_free(&t);
  }
}
END_TEST

/* Rows of sizes far apart, so that scales and exponents are, too: each row has
 * its own, and none may be taken for another's. */
START_TEST(test_rows_of_all_sizes) {
  static const char *const pairs[][2] = {{"cosine", "softmax"},     {"cosine", "sparsemax"},
                                         {"gaussian", "sum"},       {"euclidean", "hardmax"},
                                         {"scaled_dot", "softmax"}, {"additive", "softmax"}};
  for (size_t i = 0; i < COUNT(pairs) * COUNT(small_dtypes) * test_rounds(20); i++) {
    rng r = rng_for_case(50000 + i);
    const char *const *pair = pairs[i % COUNT(pairs)];
    const shape of = {rng_between(&r, 2, 200), rng_between(&r, 1, 30), 3, rng_between(&r, 1, 8),
                      takes_other_query_dim(pair[0]) ? 4 : 0};
    trial t = trial_random(50000 + i, of, pair[0], pair[1]);
    for (size_t row = 0; row < of.rows; row++) {
      const double size = exp2(rng_range(&r, -12, 0)), value_size = exp2(rng_range(&r, -12, 8));
      for (size_t c = 0; c < of.key_dim; c++)
        t.keys[row * of.key_dim + c] *= (float)size;
      for (size_t c = 0; c < of.value_dim; c++) { /* f16 ends at 65504 */
        float *value = &t.values[row * of.value_dim + c];
        *value = fminf(fmaxf(*value * (float)value_size, -6e4f), 6e4f);
      }
    }
    prepare_rounded(&t, small_dtypes[i / COUNT(pairs) % COUNT(small_dtypes)], of.rows);
    trial_check_all(&t, 3);
    trial_free(&t);
  }
}
END_TEST

/* Beyond float32 arithmetic: the float64 one reads the same rows. */
START_TEST(test_huge_numbers) {
  static const attn_dtype dtypes[] = {ATTN_BF16, ATTN_INT8};
  for (size_t i = 0; i < 2 * test_rounds(20); i++) {
    rng r = rng_for_case(60000 + i);
    trial t = trial_new(60000 + i, (shape){40, 7, 5, 3, 0}, "cosine", "softmax");
    fill_normal(&r, t.keys, 40 * 7, 1e25);
    fill_normal(&r, t.queries, 3 * 7, 1e-3);
    fill_normal(&r, t.values, 40 * 5, 1e36);
    prepare_rounded(&t, dtypes[i % 2], 9);
    trial_check_all(&t, 4);
    trial_free(&t);
  }
}
END_TEST

/* ---- Ties and batches ---- */

static answer ask(const trial *t, const asking *how) {
  answer a = answer_new(t, how);
  CHECK_STATUS(ATTN_OK, trial_attend(t, how, &a));
  return a;
}

/* Rows 3, 700 and 1500 hold the key that every query likes best. */
START_TEST(test_equal_rows_tie) {
  static const char *const pairs[][2] = {{"dot", "softmax"},      {"cosine", "hardmax"},
                                         {"cosine", "sparsemax"}, {"euclidean", "softmax"},
                                         {"gaussian", "sum"},     {"laplacian", "hardmax"}};
  static const size_t best[] = {3, 700, 1500};
  enum { ROWS = 1600, DIM = 37 };
  for (size_t i = 0; i < COUNT(pairs) * COUNT(small_dtypes) * test_rounds(2); i++) {
    rng r = rng_for_case(70000 + i);
    const char *const *pair = pairs[i % COUNT(pairs)];
    const size_t queries = rng_chance(&r, 0.5) ? 1 : 7;
    trial t = trial_new(70000 + i, (shape){ROWS, DIM, 2, queries, 0}, pair[0], pair[1]);
    fill_normal(&r, t.keys, (size_t)ROWS * DIM, 0.3);
    fill_normal(&r, t.values, ROWS * 2, 1);
    fill_normal(&r, t.keys + 3 * DIM, DIM, 2);
    for (size_t b = 1; b < COUNT(best); b++)
      memcpy(t.keys + best[b] * DIM, t.keys + 3 * DIM, DIM * sizeof(float));
    for (size_t q = 0; q < queries; q++)
      for (size_t c = 0; c < DIM; c++)
        t.queries[q * DIM + c] = t.keys[3 * DIM + c] + (float)(0.01 * rng_normal(&r));
    prepare_rounded(&t, small_dtypes[i / COUNT(pairs) % COUNT(small_dtypes)], 400);
    const asking how = {ATTN_WEIGHTS_TOP, COUNT(best), NULL};
    answer a = ask(&t, &how);
    const size_t listed = normalization_is(&t, "hardmax") ? 1 : COUNT(best);
    for (size_t q = 0; q < queries; q++) {
      ck_assert_uint_eq(a.largest_count[q], listed);
      for (size_t b = 0; b < listed; b++) {
        const attn_weight *entry = &a.largest[q * COUNT(best) + b];
        if (entry->row != best[b]) TRIAL_FAIL(&t, "entry %zu is row %zu", b, entry->row);
        if (entry->weight != a.largest[q * COUNT(best)].weight)
          TRIAL_FAIL(&t, "row %zu has another weight than row 3", entry->row);
      }
    }
    answer_free(&a);
    trial_free(&t);
  }
}
END_TEST

/* Bit by bit the same, although one query alone widens in another place. */
START_TEST(test_alone_as_in_a_batch) {
  static const char *const pairs[][2] = {{"scaled_dot", "softmax"}, {"cosine", "softmax"},
                                         {"gaussian", "sum"},       {"euclidean", "softmax"},
                                         {"additive", "softmax"},   {"scaled_dot", "sparsemax"},
                                         {"laplacian", "hardmax"}};
  enum { QUERIES = 23 };
  for (size_t i = 0; i < COUNT(pairs) * DTYPES * test_rounds(1); i++) {
    rng r = rng_for_case(80000 + i);
    const char *const *pair = pairs[i % COUNT(pairs)];
    const shape of = {rng_between(&r, 1, 1300), rng_between(&r, 1, 300), rng_between(&r, 1, 70),
                      QUERIES, takes_other_query_dim(pair[0]) ? 5 : 0};
    trial t = trial_random(80000 + i, of, pair[0], pair[1]);
    prepare_rounded(&t, (attn_dtype)(i / COUNT(pairs) % DTYPES), of.rows);
    const asking how = {ATTN_WEIGHTS_FULL, 0, NULL};
    answer together = ask(&t, &how);
    float *const queries = t.queries;
    t.of.query_count = 1;
    for (size_t q = 0; q < QUERIES; q++) {
      t.queries = queries + q * t.of.query_dim;
      answer alone = ask(&t, &how);
      if (memcmp(alone.outputs, together.outputs + q * of.value_dim,
                 of.value_dim * sizeof(float)) != 0 ||
          memcmp(alone.weights, together.weights + q * of.rows, of.rows * sizeof(float)) != 0)
        TRIAL_FAIL(&t, "query %zu of the batch is answered differently", q);
      answer_free(&alone);
    }
    t.queries = queries;
    t.of.query_count = QUERIES;
    answer_free(&together);
    trial_free(&t);
  }
}
END_TEST

int main(void) {
  Suite *suite = suite_create("dtype");
  TCase *loops = tcase_create("loops");
  tcase_set_timeout(loops, 0);
  tcase_add_loop_test(loops, test_every_pattern_is_read, 0, COUNT(formats));
  tcase_add_loop_test(loops, test_rounding_to_nearest, 0, COUNT(formats));
  tcase_add_loop_test(loops, test_kept_within_the_bound, 0, DTYPES);
  tcase_add_loop_test(loops, test_every_pair, 0, SCORE_COUNT);
  suite_add_tcase(suite, loops);
  add_test(suite, "table", test_table);
  add_test(suite, "halves", test_halves_are_kept_as_the_nearest);
  add_test(suite, "int8", test_int8_steps);
  add_test(suite, "range", test_out_of_range);
  add_test(suite, "pieces and bytes", test_pieces_and_bytes);
  add_test(suite, "large shapes", test_large_shapes);
  add_test(suite, "all sizes", test_rows_of_all_sizes);
  add_test(suite, "huge", test_huge_numbers);
  add_test(suite, "ties", test_equal_rows_tie);
  add_test(suite, "batches", test_alone_as_in_a_batch);
  return run_suite(suite);
}
