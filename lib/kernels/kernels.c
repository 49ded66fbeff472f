/* The hot loops, written once over vectors of ATTN_KERNEL_LANES floats (or half
 * as many doubles) and compiled once per instruction set.
 *
 * GCC's vector types were preferred to intrinsics, which would be three copies
 * of every loop, and to the auto-vectoriser, which leaves exp() and every
 * reduction scalar without -ffast-math. The two matrix products are in gemm_f32.h,
 * float64 is in f64.h; one object per instruction set has it all.
 *
 * A row's full vectors and its last numbers are computed by two loops, which have to
 * round alike, or equal keys would get unequal weights. So fused multiply-adds are
 * written as plus_product(). Left to the compiler (-ffp-contract=fast), one loop had them
 * and the other had not.
 *
 * Errors (measured by tests/unit/lib): exp and tanh within 2 ulp. Sums
 * run in ATTN_KERNEL_LANES * 4 interleaved chains, which keeps the rounding of
 * a distance over 4096 components near 1e-7 of it. */
#include "kernels/kernels.h"

#include <math.h>

#include "kernels/f64.h"
#include "kernels/gemm_f32.h"
#include "kernels/lanes.h"

#define JOIN_(a, b) a##b
#define JOIN(a, b)  JOIN_(a, b)
#define TEXT_(a)    #a
#define TEXT(a)     TEXT_(a)

/* exp(x) for x <= 0. Below EXP_LEAST something meaningless is computed, for -infinity a
 * NaN, and thrown away. */
#define ROUND_MAGIC 12582912.0f /* 1.5 * 2^23: adding it rounds to a whole number */
#define EXP_LEAST   (-87.0f)

#if LANES == 16
/* With n the whole number nearest to 32x/ln 2 and r/32 what is left, |r| <= 1/2, it is
 * 2^(n/32) 2^(r/32). The lowest 5 bits of n choose one of 32 powers, which are
 * in registers, and less what adding n to the exponent adds to the significand; the
 * polynomial of degree 2 is off by 5.4e-8 at most. 32/ln 2 is split, or r would lose its
 * digits where |x| is large. A fifth faster than what the others do. */
static const uint32_t exp_powers[2 * LANES] = {
    0x3f800000, 0x3f7ecd87, 0x3f7daac3, 0x3f7c980f, 0x3f7b95c2, 0x3f7aa43a, 0x3f79c3d3, 0x3f78f4f0,
    0x3f7837f0, 0x3f778d3a, 0x3f76f532, 0x3f767043, 0x3f75fed7, 0x3f75a15b, 0x3f75583f, 0x3f7523f6,
    0x3f7504f3, 0x3f74fbaf, 0x3f7508a4, 0x3f752c4d, 0x3f75672a, 0x3f75b9be, 0x3f76248c, 0x3f76a81e,
    0x3f7744fd, 0x3f77fbb8, 0x3f78ccdf, 0x3f79b907, 0x3f7ac0c7, 0x3f7be4ba, 0x3f7d257d, 0x3f7e83b3};

static inline vec exp_vec(vec x) {
  const vec shifted = plus_product(all(ROUND_MAGIC), x, all(0x1.715476p+5f));
  const vec n = shifted - ROUND_MAGIC;
  vec r = plus_product(-n, x, all(0x1.715476p+5f));
  r = plus_product(r, x, all(0x1.4ae0cp-21f));
  const uvec power = choose(exp_powers, (uvec)shifted) + ((uvec)shifted << 18);
  const vec p = plus_product(all(0x1.62e586p-6f), r, all(0x1.ebfdcp-13f)) * r;
  return kept_from(x, EXP_LEAST, plus_product((vec)power, (vec)power, p));
}
#else
/* With n the whole number nearest to x/ln 2 and r what is left, |r| <= ln2/2: the
 * polynomial of degree 6 that is 1 + r for small r and whose largest relative error
 * there is least is off by 3.2e-9. ln 2 is split so that n*LN2_HIGH is exact. */
#define LOG2_E   1.44269504f
#define LN2_HIGH 0.693359375f
#define LN2_LOW  (-2.12194440e-4f)

static inline vec exp_vec(vec x) {
  const vec shifted = plus_product(all(ROUND_MAGIC), x, all(LOG2_E));
  const vec n = shifted - ROUND_MAGIC;
  vec r = plus_product(x, n, all(-LN2_HIGH));
  r = plus_product(r, n, all(-LN2_LOW));
  vec p = plus_product(all(0x1.1239a2p-7f), r, all(0x1.6a4748p-10f));
  p = plus_product(all(0x1.5558b6p-5f), p, r);
  p = plus_product(all(0x1.555492p-3f), p, r);
  p = plus_product(all(0x1.fffffcp-2f), p, r);
  p = plus_product(all(1), p, r);
  p = plus_product(all(1), p, r);
  const uvec exponent = (uvec)shifted << 23; /* n is in the lowest bits; the others leave */
  return kept_from(x, EXP_LEAST, (vec)((uvec)p + exponent));
}
#endif

/* tanh x: (1-e)/(1+e) with e = exp(-2|x|), and close to 0, where 1-e loses its
 * digits, the Taylor polynomial (next term below 2e-8 of x at 0.25). */
static inline vec tanh_vec(vec x) {
  const vec size = (vec)((ivec)x & 0x7fffffff);
  const vec e = exp_vec(size * -2.0f);
  const vec far = (vec)((ivec)((1.0f - e) / (1.0f + e)) | ((ivec)x & (ivec)all(-0.0f)));
  const vec x2 = x * x;
  vec p = plus_product(all(62.0f / 2835), x2, all(-1382.0f / 155925));
  p = plus_product(all(-17.0f / 315), p, x2);
  p = plus_product(all(2.0f / 15), p, x2);
  p = plus_product(all(-1.0f / 3), p, x2);
  const vec near = plus_product(x, x * x2, p);
  return select_vec(size < all(0.25f), near, far);
}

static float row_max(const float *scores, size_t n) {
  vec most[CHAINS];
  for (size_t c = 0; c < CHAINS; c++)
    most[c] = all(-INFINITY);
  size_t i = 0;
  for (; i + CHAINS * LANES <= n; i += CHAINS * LANES)
    for (size_t c = 0; c < CHAINS; c++)
      most[c] = larger_vec(most[c], load(scores + i + c * LANES));
  for (; i + LANES <= n; i += LANES)
    most[0] = larger_vec(most[0], load(scores + i));
  if (i < n) most[1] = larger_vec(most[1], load_some(scores + i, n - i, -INFINITY));
  return largest_lane(larger_vec(larger_vec(most[0], most[1]), larger_vec(most[2], most[3])));
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

/* What is finite times 0 is 0, anything else NaN, and stays so in a sum. */
static bool all_finite(const float *numbers, size_t n) {
  vec strange[CHAINS] = {{0}};
  size_t i = 0;
  for (; i + CHAINS * LANES <= n; i += CHAINS * LANES)
    for (size_t c = 0; c < CHAINS; c++)
      strange[c] += load(numbers + i + c * LANES) * 0.0f;
  for (; i + LANES <= n; i += LANES)
    strange[0] += load(numbers + i) * 0.0f;
  if (i < n) strange[0] += load_some(numbers + i, n - i, 0) * 0.0f;
  return sum_lanes((strange[0] + strange[1]) + (strange[2] + strange[3])) == 0;
}

static void row_additive(float *scores, const float *hidden, size_t n, float query, float v,
                         bool first) {
  size_t i = 0;
  for (; i + LANES <= n; i += LANES) {
    const vec unit = tanh_vec(load(hidden + i) + query);
    store(scores + i, plus_product(first ? all(0) : load(scores + i), unit, all(v)));
  }
  if (i < n) {
    const vec unit = tanh_vec(load_some(hidden + i, n - i, 0) + query);
    const vec before = first ? all(0) : load_some(scores + i, n - i, 0);
    store_some(scores + i, plus_product(before, unit, all(v)), n - i);
  }
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
    .gemm_pv = gemm_pv,
    .row_fold = row_fold,
    .row_widen = row_widen,
    .row_narrow = row_narrow,
    .row_scale_f64 = row_scale_f64,
    .row_add_f64 = row_add_f64,
    .all_finite = all_finite,
    .widen_keys = widen_keys,
    .widen_values = widen_values,
    .gemm_f64 = gemm_f64,
    .row_dot_f64 = row_dot_f64,
    .row_distance_f64 = row_distance_f64,
};
