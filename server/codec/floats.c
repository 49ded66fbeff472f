/* The loops that every byte of a binary body goes through. They are written so
 * that compilers turn them into vector code at -O2 without being asked: inner
 * loops of a fixed length, no branches, no early exit. So whether a number is
 * finite is asked of a whole block, by its exponent bits, and which one it was
 * only once a block has said no.
 *
 * Halves are widened by a multiplication: their bits, moved into a float32's
 * place, are the number times 2^-112, subnormals included. */
#include "codec/floats.h"

#include <endian.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#define BLOCK    64
#define EXPONENT 0x7f800000u

_Static_assert(sizeof(float) == 4 && sizeof(double) == 8, "floats are IEEE 754");

size_t floats_bytes(enum floats_kind kind) {
  static const size_t bytes[] = {
      [FLOATS_NONE] = 0, [FLOATS_F32] = 4, [FLOATS_F64] = 8, [FLOATS_F16] = 2, [FLOATS_BF16] = 2};
  return bytes[kind];
}

static inline float from_bits(uint32_t bits) {
  float number;
  memcpy(&number, &bits, sizeof number);
  return number;
}

static inline uint32_t to_bits(float number) {
  uint32_t bits;
  memcpy(&bits, &number, sizeof bits);
  return bits;
}

static inline float of_f32(uint32_t bits) {
  return from_bits(le32toh(bits));
}

static inline double of_f64(uint64_t bits) {
  double number;
  bits = le64toh(bits);
  memcpy(&number, &bits, sizeof number);
  return number;
}

static inline float of_f16(uint16_t half) {
  const uint32_t bits = le16toh(half), magnitude = bits & 0x7fff;
  const uint32_t widened = to_bits(from_bits(magnitude << 13) * 0x1p112f);
  const uint32_t special = (magnitude >= 0x7c00) * (EXPONENT | (magnitude & 0x3ff) << 13);
  return from_bits(widened | special | (bits & 0x8000) << 16);
}

static inline float of_bf16(uint16_t half) {
  return from_bits((uint32_t)le16toh(half) << 16);
}

/* One loop for each kind. A block is copied to where it is aligned and of the
 * right type first; compilers see through that copy, but not through loads of
 * single numbers from bytes. */
#define DEFINE_CONVERT(name, type, convert)                                                        \
  static void name(const char *bytes, size_t count, float *restrict numbers) {                     \
    type raw[BLOCK];                                                                               \
    for (; count >= BLOCK; count -= BLOCK, bytes += sizeof raw, numbers += BLOCK) {                \
      memcpy(raw, bytes, sizeof raw);                                                              \
      for (size_t i = 0; i < BLOCK; i++)                                                           \
        numbers[i] = (float)convert(raw[i]);                                                       \
    }                                                                                              \
    memcpy(raw, bytes, count * sizeof *raw);                                                       \
    for (size_t i = 0; i < count; i++)                                                             \
      numbers[i] = (float)convert(raw[i]);                                                         \
  }

DEFINE_CONVERT(convert_f32, uint32_t, of_f32)
DEFINE_CONVERT(convert_f64, uint64_t, of_f64)
DEFINE_CONVERT(convert_f16, uint16_t, of_f16)
DEFINE_CONVERT(convert_bf16, uint16_t, of_bf16)

void floats_convert(enum floats_kind kind, const char *bytes, size_t count, float *numbers) {
  switch (kind) {
  case FLOATS_F32:
    convert_f32(bytes, count, numbers);
    break;
  case FLOATS_F64:
    convert_f64(bytes, count, numbers);
    break;
  case FLOATS_F16:
    convert_f16(bytes, count, numbers);
    break;
  case FLOATS_BF16:
    convert_bf16(bytes, count, numbers);
    break;
  case FLOATS_NONE:
    break;
  }
}

static inline uint32_t not_finite(float number) {
  return (to_bits(number) & EXPONENT) == EXPONENT;
}

static uint32_t block_not_finite(const float *numbers) {
  uint32_t any = 0;
  for (size_t i = 0; i < BLOCK; i++)
    any |= not_finite(numbers[i]);
  return any;
}

size_t floats_find_not_finite(const float *numbers, size_t count) {
  size_t at = 0;
  while (count - at >= BLOCK && !block_not_finite(numbers + at))
    at += BLOCK;
  while (at < count && !not_finite(numbers[at]))
    at++;
  return at;
}

bool floats_in_place(enum floats_kind kind, const char *bytes) {
  return kind == FLOATS_F32 && __BYTE_ORDER == __LITTLE_ENDIAN &&
         (uintptr_t)bytes % _Alignof(float) == 0;
}

bool floats_fault(enum floats_kind kind, const char *bytes, const char *pointer,
                  struct problem *problem) {
  double number;
  if (kind == FLOATS_F64) {
    uint64_t bits;
    memcpy(&bits, bytes, sizeof bits);
    number = of_f64(bits);
  } else {
    float converted;
    floats_convert(kind, bytes, 1, &converted);
    number = (double)converted;
  }
  if (isfinite(number))
    return problem_set(problem, PROBLEM_INVALID_NUMBER, pointer,
                       "expected a number within float32, got %.17g", number);
  return problem_set(problem, PROBLEM_INVALID_NUMBER, pointer, "expected a finite number, got %s",
                     isnan(number) ? "NaN"
                     : number > 0  ? "infinity"
                                   : "-infinity");
}
