/* A hash of bytes that nobody outside can aim: under a random key, chosen
 * strings collide no more often than random ones do. For hash tables whose
 * keys come from clients. */
#ifndef BASE_KEYED_HASH_H
#define BASE_KEYED_HASH_H

#include <stddef.h>
#include <stdint.h>

struct hash_key {
  uint64_t low, high;
};

struct hash_key hash_key_random(void);
uint64_t keyed_hash(struct hash_key key, const void *bytes, size_t length);

#endif
