/* SipHash-2-4 (Aumasson & Bernstein 2012), a pseudo-random function made for
 * short strings. A fast hash with a random seed was rejected: a seed alone
 * does not help where the mixing is weak, and for several such hashes strings
 * are known that collide under every seed. */
#include "base/keyed_hash.h"

#include <endian.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/random.h>
#include <time.h>

struct state {
  uint64_t a, b, c, d;
};

static uint64_t rotate(uint64_t x, unsigned bits) {
  return x << bits | x >> (64 - bits);
}

static void mix(struct state *s, unsigned rounds) {
  for (unsigned round = 0; round < rounds; round++) {
    s->a += s->b;
    s->c += s->d;
    s->b = rotate(s->b, 13) ^ s->a;
    s->d = rotate(s->d, 16) ^ s->c;
    s->a = rotate(s->a, 32);
    s->c += s->b;
    s->a += s->d;
    s->b = rotate(s->b, 17) ^ s->c;
    s->d = rotate(s->d, 21) ^ s->a;
    s->c = rotate(s->c, 32);
  }
}

static void absorb(struct state *s, uint64_t word) {
  s->d ^= word;
  mix(s, 2);
  s->a ^= word;
}

/* Up to eight bytes as a little-endian number, on any machine. */
static uint64_t read_word(const unsigned char *bytes, size_t count) {
  uint64_t word = 0;
  memcpy(&word, bytes, count);
  return le64toh(word);
}

uint64_t keyed_hash(struct hash_key key, const void *bytes, size_t length) {
  const unsigned char *at = bytes;
  struct state s = {
      key.low ^ 0x736f6d6570736575,
      key.high ^ 0x646f72616e646f6d,
      key.low ^ 0x6c7967656e657261,
      key.high ^ 0x7465646279746573,
  };
  size_t rest = length;
  for (; rest >= 8; rest -= 8, at += 8)
    absorb(&s, read_word(at, 8));
  absorb(&s, read_word(at, rest) | (uint64_t)length << 56);
  s.c ^= 0xff;
  mix(&s, 4);
  return s.a ^ s.b ^ s.c ^ s.d;
}

struct hash_key hash_key_random(void) {
  struct hash_key key;
  if (getrandom(&key, sizeof key, 0) == (ssize_t)sizeof key) return key;
  /* A sandbox without getrandom(2): the kernel left 16 random bytes at exec;
   * the time makes keys differ within the process. */
  struct timespec now = {0, 0};
  const void *seed = (const void *)getauxval(AT_RANDOM);
  if (seed)
    memcpy(&key, seed, sizeof key);
  else
    key = (struct hash_key){(uint64_t)(uintptr_t)&key, 0};
  clock_gettime(CLOCK_MONOTONIC, &now);
  key.low = keyed_hash(key, &now, sizeof now);
  return key;
}
