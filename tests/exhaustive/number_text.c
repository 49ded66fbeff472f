/* All 2^32 floats through number_print(), numbers_print() and number_scan(), against
 * the C library, which knows nothing of them:
 *
 *  - what is printed is read back as the same bits, by number_scan() and by
 *    strtof();
 *  - no text of fewer digits is read back as them: the two candidates are the
 *    digits without the last one, rounded down and up, since a shorter decimal
 *    in the interval lies between those or beyond the interval's ends;
 *  - of the texts with as many digits it is the one nearest to the value, which
 *    is what printf() gives, wherever that one is read back as the value (next
 *    to a power of two the nearest one can lie on the narrow side, outside);
 *  - no form of these digits is shorter (looked at for every 64th).
 *
 * Then decimals made to be hard to read (halfway points, exact and barely
 * missed, cut short, far from the point), number_scan() against strtof().
 *
 *     number_text [stride]     1, the default, takes every float
 *
 * Exit code 0 where all agree, 1 at the first disagreement of a thread. */
#include <math.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codec/number.h"

#define THREADS       2
#define MAGNITUDES    0x7f800000u /* the finite ones */
#define HARD_DECIMALS 6000000     /* in each thread, with stride 1 */

struct job {
  uint32_t first, end; /* magnitudes */
  uint32_t stride;
  uint64_t seed;
  bool failed;
};

static float float_of(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

static uint32_t bits_of(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

static bool disagree(const char *what, uint32_t bits, const char *text) {
  fprintf(stderr, "number_text: %s: 0x%08x, %.200s\n", what, bits, text);
  return false;
}

/* Digits and exponent of a text, whatever its form: value = digits * 10^exponent,
 * no zero at either end of the digits. */
struct decimal {
  char digits[24];
  int count, exponent;
};

static struct decimal decimal_of(const char *text) {
  struct decimal decimal = {.count = 0};
  bool behind_point = false;
  for (; *text && *text != 'e'; text++) {
    if (*text == '.') {
      behind_point = true;
      continue;
    }
    decimal.exponent -= behind_point;
    if (*text != '0' || decimal.count > 0) decimal.digits[decimal.count++] = *text;
  }
  if (*text == 'e') decimal.exponent += atoi(text + 1);
  while (decimal.count > 0 && decimal.digits[decimal.count - 1] == '0') {
    decimal.count--;
    decimal.exponent++;
  }
  decimal.digits[decimal.count] = '\0';
  return decimal;
}

/* The length of the shortest JSON number with these digits, found by writing
 * them with the point in every place. */
static size_t shortest_form(const struct decimal *decimal) {
  size_t best = SIZE_MAX;
  for (int behind = -12; behind <= 60; behind++) {
    int exponent = decimal->exponent + behind;
    int length = decimal->count;
    if (behind < 0) length += -behind; /* zeros behind the digits */
    if (behind > 0) length += 1;       /* the point */
    if (behind >= decimal->count) length += 1 + behind - decimal->count; /* zeros before */
    if (exponent != 0) length += snprintf(NULL, 0, "e%d", exponent);
    if ((size_t)length < best) best = (size_t)length;
  }
  return best;
}

/* Of as many digits, the nearest to the value is what printf() gives. */
static bool check_nearest(uint32_t bits, const char *text, const struct decimal *ours) {
  char other[64];
  snprintf(other, sizeof other, "%.*e", ours->count - 1, (double)float_of(bits));
  if (bits_of(strtof(other, NULL)) != bits) return true;
  struct decimal nearest = decimal_of(other);
  if (strcmp(nearest.digits, ours->digits) != 0 || nearest.exponent != ours->exponent)
    return disagree("not the nearest of as many digits", bits, text);
  return true;
}

/* The digits without the last one, rounded down and up. */
static bool check_fewer(uint32_t bits, const char *text, const struct decimal *ours) {
  int kept = ours->count - 1;
  if (kept == 0) return true;
  char other[48] = "0", *end = other + 1 + kept; /* the '0' is for a carry */
  memcpy(other + 1, ours->digits, (size_t)kept);
  sprintf(end, "e%d", ours->exponent + 1);
  if (bits_of(strtof(other, NULL)) == bits) return disagree("fewer digits do", bits, text);
  while (*--end == '9')
    *end = '0';
  ++*end;
  if (bits_of(strtof(other, NULL)) == bits) return disagree("fewer digits do", bits, text);
  return true;
}

static bool check_scan(const char *text, size_t length, uint32_t expected) {
  const char *at = text;
  float value = 0;
  enum number_status status = number_scan(&at, text + length, &value);
  bool infinite = (expected & 0x7fffffff) == MAGNITUDES;
  if (at != text + length || status != (infinite ? NUMBER_TOO_LARGE : NUMBER_OK) ||
      (!infinite && bits_of(value) != expected))
    return disagree("number_scan differs from strtof", expected, text);
  return true;
}

/* Both, printed by the code for many numbers. */
static bool check_together(uint32_t bits, const char *text) {
  const float both[2] = {float_of(bits), float_of(bits | 0x80000000)};
  char ours[2 * (NUMBER_TEXT_MAX + 1) + 1], expected[2 * sizeof ours];
  ours[numbers_print(both, 2, ours)] = '\0';
  snprintf(expected, sizeof expected, "%s,-%s,", text, text);
  return strcmp(ours, expected) == 0 || disagree("another text among others", bits, ours);
}

static bool check_float(uint32_t bits, bool forms) {
  char text[NUMBER_TEXT_MAX + 1], negative[NUMBER_TEXT_MAX + 1];
  size_t length = number_print(float_of(bits), text);
  text[length] = '\0';
  if (bits_of(strtof(text, NULL)) != bits) return disagree("strtof reads another", bits, text);
  if (!check_scan(text, length, bits)) return false;

  size_t negative_length = number_print(float_of(bits | 0x80000000), negative);
  negative[negative_length] = '\0';
  if (negative[0] != '-' || strcmp(negative + 1, text) != 0)
    return disagree("the negative has another text", bits, text);
  if (!check_together(bits, text)) return false;
  if (!check_scan(negative, negative_length, bits | 0x80000000)) return false;

  if (bits == 0) return length == 1;
  struct decimal decimal = decimal_of(text);
  if (forms && length != shortest_form(&decimal))
    return disagree("not the shortest form", bits, text);
  return check_nearest(bits, text, &decimal) && check_fewer(bits, text, &decimal);
}

/* ---- Decimals that are hard to read ---- */

static uint64_t next_random(uint64_t *state) { /* splitmix64 */
  uint64_t z = *state += 0x9e3779b97f4a7c15;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

static int below(uint64_t *state, int n) {
  return (int)(next_random(state) % (uint64_t)n);
}

static void random_decimal(uint64_t *state, char *text) {
  int before = below(state, 12), behind = below(state, 24);
  char *at = text;
  *at++ = before == 0 ? '0' : (char)('1' + below(state, 9));
  for (int i = 1; i < before; i++)
    *at++ = (char)('0' + below(state, 10));
  if (behind > 0) *at++ = '.';
  for (int i = 0; i < behind; i++)
    *at++ = (char)('0' + below(state, 10));
  sprintf(at, "e%d", below(state, 110) - 60);
}

/* Halfway between a random float and the next one, written exactly: both are
 * doubles, and 150 digits hold every such double. */
static void halfway(uint64_t *state, char *text) {
  uint32_t bits = (uint32_t)next_random(state) % MAGNITUDES;
  if (below(state, 4) == 0) bits %= 0x00ffffff; /* subnormals and their neighbours */
  double low = float_of(bits), high = bits + 1 < MAGNITUDES ? (double)float_of(bits + 1) : 0x1p128;
  sprintf(text, "%.150e", low + (high - low) / 2);
}

/* Drops the digits of d.ddde+x behind the first `digits` and puts `tail` there. */
static void cut(char *text, int digits, const char *tail) {
  char exponent[16], *e = strchr(text, 'e');
  snprintf(exponent, sizeof exponent, "%s", e);
  size_t end = (size_t)digits + 1;
  if (end > (size_t)(e - text)) end = (size_t)(e - text);
  sprintf(text + end, "%s%s", tail, exponent);
}

/* The last digit that is not 0 becomes one less, so that it is just below. */
static void lower_last_digit(char *text) {
  char *at = strchr(text, 'e') - 1;
  while (at > text && (*at == '0' || *at == '.'))
    at--;
  if (*at > '1' || at > text) *at -= 1;
}

static void far_from_the_point(uint64_t *state, char *text) {
  int zeros = below(state, 400);
  unsigned long digits = (unsigned long)(next_random(state) >> below(state, 64));
  if (below(state, 2))
    sprintf(text, "0.%0*d%lue%d", zeros + 1, 0, digits, zeros + below(state, 60));
  else
    sprintf(text, "%lu%0*de%d", digits ? digits : 1, zeros + 1, 0, -zeros - below(state, 70));
}

static void hard_decimal(uint64_t *state, char *text) {
  int kind = below(state, 8);
  if (kind == 0) {
    random_decimal(state, text);
  } else if (kind == 1) {
    far_from_the_point(state, text);
  } else {
    halfway(state, text);
    if (kind == 3) lower_last_digit(text);
    if (kind == 4) cut(text, 200, "00000000000000000000000000000000000000000010000");
    if (kind == 5) cut(text, 15 + below(state, 12), "");
    if (kind == 6) cut(text, 15 + below(state, 12), "1");
    if (kind == 7) cut(text, 100 + below(state, 40), "");
  }
}

static bool check_hard_decimals(uint64_t seed, uint32_t count) {
  char text[1024];
  for (uint32_t i = 0; i < count; i++) {
    hard_decimal(&seed, text);
    if (!check_scan(text, strlen(text), bits_of(strtof(text, NULL)))) return false;
  }
  return true;
}

/* ---- Threads: each has its own job and shares nothing ---- */

static void *run(void *argument) {
  struct job *job = argument;
  uint32_t turn = 0;
  for (uint64_t bits = job->first; bits < job->end && !job->failed; bits += job->stride)
    job->failed = !check_float((uint32_t)bits, turn++ % 64 == 0);
  if (!job->failed) job->failed = !check_hard_decimals(job->seed, HARD_DECIMALS / job->stride + 1);
  return NULL;
}

int main(int argc, char **argv) {
  unsigned long stride = argc > 1 ? strtoul(argv[1], NULL, 10) : 1;
  if (stride == 0 || stride > MAGNITUDES) {
    fprintf(stderr, "usage: number_text [stride]\n");
    return 1;
  }
  struct job jobs[THREADS];
  pthread_t threads[THREADS];
  bool failed = false;
  for (uint32_t i = 0; i < THREADS; i++) {
    /* Interleaved, since subnormals take longer: thread i has every other one. */
    jobs[i] = (struct job){.first = i * (uint32_t)stride,
                           .end = MAGNITUDES,
                           .stride = THREADS * (uint32_t)stride,
                           .seed = i + 1};
    if (pthread_create(&threads[i], NULL, run, &jobs[i]) != 0) {
      fprintf(stderr, "number_text: no thread\n");
      return 1;
    }
  }
  for (uint32_t i = 0; i < THREADS; i++) {
    pthread_join(threads[i], NULL);
    failed = failed || jobs[i].failed;
  }
  return failed;
}
