/* Vectors of ATTN_KERNEL_LANES floats, and how they are loaded: the vocabulary
 * of lib/kernels/kernels.c, which alone includes this, once per instruction set.
 *
 * Smaller numbers become float32 on their way into a register. That is done with
 * intrinsics, because GCC 12 takes __builtin_convertvector from small integers
 * apart, number by number; the portable variant has no instruction set to name,
 * and shuffles and shifts. All give the same bits for what can be kept. */
#ifndef ATTN_LANES_H
#define ATTN_LANES_H

#include <stdint.h>
#include <string.h>
#if ATTN_KERNEL_LANES > 4
#include <immintrin.h>
#elif defined(ATTN_KERNEL_NEON)
#include <arm_neon.h>
#endif

#include "memory/dtype.h"

#define LANES  ATTN_KERNEL_LANES
#define INLINE static inline __attribute__((always_inline))

typedef float vec __attribute__((vector_size(LANES * 4)));
typedef int32_t ivec __attribute__((vector_size(LANES * 4)));
typedef uint32_t uvec __attribute__((vector_size(LANES * 4)));
typedef float vec_unaligned __attribute__((vector_size(LANES * 4), aligned(4), may_alias));

/* Vectors that a reduction has under way, so that it doesn't wait for itself. */
enum { CHAINS = 4 };

static inline vec load(const float *from) {
  return *(const vec_unaligned *)(const void *)from;
}
static inline void store(float *to, vec v) {
  *(vec_unaligned *)(void *)to = v;
}
static inline vec all(float x) {
  return x - (vec){0};
}

/* The last n < LANES floats, the other lanes filled. */
static inline vec load_some(const float *from, size_t n, float fill) {
  float lanes[LANES];
  for (size_t i = 0; i < LANES; i++)
    lanes[i] = i < n ? from[i] : fill;
  return load(lanes);
}

static inline void store_some(float *to, vec v, size_t n) {
  float lanes[LANES];
  store(lanes, v);
  memcpy(to, lanes, n * sizeof *to);
}

static inline vec select_vec(ivec mask, vec yes, vec no) {
  return (vec)((mask & (ivec)yes) | (~mask & (ivec)no));
}

/* sum + a * b, rounded once wherever the instruction set can do that, and in every loop
 * alike: a query gets the same bits alone and in a batch, equal keys equal weights. */
INLINE vec plus_product(vec sum, vec a, vec b) {
#if LANES == 16
  return (vec)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)sum);
#elif LANES == 8
  return (vec)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)sum);
#elif defined(ATTN_KERNEL_NEON)
  return (vec)vfmaq_f32((float32x4_t)sum, (float32x4_t)a, (float32x4_t)b);
#else
  return sum + a * b;
#endif
}

/* GCC 12 makes three instructions of the first and takes the second apart, lane
 * by lane. The third has 0 in place of v where x is below the bound. */
#if LANES == 16
INLINE vec larger_vec(vec a, vec b) {
  return (vec)_mm512_max_ps((__m512)a, (__m512)b);
}
INLINE bool any_above(vec v, vec bound) {
  return _mm512_cmp_ps_mask((__m512)v, (__m512)bound, _CMP_GT_OQ) != 0;
}
INLINE vec kept_from(vec x, float bound, vec v) {
  const __mmask16 kept = _mm512_cmp_ps_mask((__m512)x, _mm512_set1_ps(bound), _CMP_GE_OQ);
  return (vec)_mm512_maskz_mov_ps(kept, (__m512)v);
}
#elif LANES == 8
INLINE vec larger_vec(vec a, vec b) {
  return (vec)_mm256_max_ps((__m256)a, (__m256)b);
}
INLINE bool any_above(vec v, vec bound) {
  return _mm256_movemask_ps(_mm256_cmp_ps((__m256)v, (__m256)bound, _CMP_GT_OQ)) != 0;
}
#elif defined(ATTN_KERNEL_NEON)
INLINE vec larger_vec(vec a, vec b) {
  return (vec)vmaxq_f32((float32x4_t)a, (float32x4_t)b);
}
INLINE bool any_above(vec v, vec bound) {
  return vmaxvq_u32(vcgtq_f32((float32x4_t)v, (float32x4_t)bound)) != 0;
}
#else
INLINE vec larger_vec(vec a, vec b) {
  return select_vec(a > b, a, b);
}
INLINE bool any_above(vec v, vec bound) {
  typedef int64_t longs __attribute__((vector_size(16)));
  const longs above = (longs)(v > bound);
  return (above[0] | above[1]) != 0;
}
#endif
#if LANES < 16
INLINE vec kept_from(vec x, float bound, vec v) {
  return (vec)((ivec)v & (x >= all(bound)));
}
#endif

#if LANES == 16
/* Of 32 numbers those that the lowest bits of the lanes name. */
INLINE uvec choose(const uint32_t numbers[32], uvec which) {
  const __m512i low = _mm512_loadu_si512(numbers), high = _mm512_loadu_si512(numbers + 16);
  return (uvec)_mm512_permutex2var_epi32(low, (__m512i)which, high);
}
#endif

/* ---- All lanes into one, in the same order whatever there is in them ---- */

#define LANE(i, by) (((i) + (by)) % LANES)
#define FOUR(i, by) LANE(i, by), LANE((i) + 1, by), LANE((i) + 2, by), LANE((i) + 3, by)
#if LANES == 16
#define TURNED(v, by)                                                                              \
  __builtin_shufflevector(v, v, FOUR(0, by), FOUR(4, by), FOUR(8, by), FOUR(12, by))
#elif LANES == 8
#define TURNED(v, by) __builtin_shufflevector(v, v, FOUR(0, by), FOUR(4, by))
#else
#define TURNED(v, by) __builtin_shufflevector(v, v, FOUR(0, by))
#endif

INLINE float sum_lanes(vec v) {
#if LANES == 16
  v += TURNED(v, 8);
#endif
#if LANES >= 8
  v += TURNED(v, 4);
#endif
  v += TURNED(v, 2);
  return v[0] + v[1];
}

INLINE float largest_lane(vec v) {
#if LANES == 16
  v = larger_vec(v, TURNED(v, 8));
#endif
#if LANES >= 8
  v = larger_vec(v, TURNED(v, 4));
#endif
  v = larger_vec(v, TURNED(v, 2));
  return v[0] > v[1] ? v[0] : v[1];
}

/* ---- Smaller numbers: LANES of them as float32, an int8 without its scale ---- */

#if LANES == 16
INLINE vec widen_f16(const void *from) {
  return (vec)_mm512_cvtph_ps(_mm256_loadu_si256(from));
}
INLINE vec widen_bf16(const void *from) {
  return (vec)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(from)), 16);
}
INLINE vec widen_int8(const void *from) {
  return (vec)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from)));
}
#elif LANES == 8
INLINE vec widen_f16(const void *from) {
  return (vec)_mm256_cvtph_ps(_mm_loadu_si128(from));
}
INLINE vec widen_bf16(const void *from) {
  return (vec)_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(from)), 16);
}
INLINE vec widen_int8(const void *from) {
  return (vec)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(from)));
}
#elif defined(ATTN_KERNEL_NEON)
INLINE vec widen_f16(const void *from) {
  return (vec)vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(from)));
}
INLINE vec widen_bf16(const void *from) {
  return (vec)vshll_n_u16(vld1_u16(from), 16);
}
INLINE vec widen_int8(const void *from) {
  uint32_t four;
  memcpy(&four, from, sizeof four);
  const int16x8_t halves = vmovl_s8(vreinterpret_s8_u32(vdup_n_u32(four)));
  return (vec)vcvtq_f32_s32(vmovl_s16(vget_low_s16(halves)));
}
#else
typedef uint64_t pair __attribute__((vector_size(16)));
typedef uint16_t halves __attribute__((vector_size(16)));
typedef uint8_t bytes __attribute__((vector_size(16)));

/* Four halves, each twice in its lane. */
INLINE uvec spread(halves four) {
  return (uvec)__builtin_shufflevector(four, four, 0, 0, 1, 1, 2, 2, 3, 3);
}
INLINE uvec load_halves(const void *from) {
  uint64_t four;
  memcpy(&four, from, sizeof four);
  return spread((halves)(pair){four, 0});
}

/* The exponents differ by 112; a subnormal is its significand times 2^-24. */
INLINE vec widen_f16(const void *from) {
  const uvec lanes = load_halves(from), size = lanes & 0x7fff;
  const vec normal = (vec)((size << 13) + ((uint32_t)112 << 23));
  const vec subnormal = __builtin_convertvector((ivec)size, vec) * 0x1p-24f;
  const vec either = select_vec((ivec)size < 0x400, subnormal, normal);
  return (vec)((uvec)either | (lanes & 0x80000000));
}
INLINE vec widen_bf16(const void *from) {
  return (vec)(load_halves(from) & 0xffff0000);
}
INLINE vec widen_int8(const void *from) {
  uint32_t four;
  memcpy(&four, from, sizeof four);
  const bytes packed = (bytes)(uvec){four, 0, 0, 0};
  const halves twice = (halves)__builtin_shufflevector(packed, packed, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4,
                                                       5, 5, 6, 6, 7, 7);
  return __builtin_convertvector((ivec)spread(twice) >> 24, vec);
}
#endif

INLINE vec load_numbers(attn_dtype dtype, const void *data, size_t index) {
  switch (dtype) {
  case ATTN_F16:
    return widen_f16((const uint16_t *)data + index);
  case ATTN_BF16:
    return widen_bf16((const uint16_t *)data + index);
  case ATTN_INT8:
    return widen_int8((const int8_t *)data + index);
  default:
    return load((const float *)data + index);
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

#endif
