/* Checksums of all that is stored: XXH3, 64 bits, which reads memory about as
 * fast as it comes.
 *
 * The invariant: a checksum covers what a record is (its kind, the memory it
 * belongs to, its number) as well as its bytes, so that a record which turns up
 * in the place of another is as wrong as one with a flipped bit. What it is goes
 * in as the seed, which leaves the payload a single run of bytes.
 *
 * CRC-32C was rejected: 32 bits are few for a store that may hold 10^5 chunks for
 * years, and without its own instruction it is slower. A keyed hash was rejected,
 * because this is about disks and not about attackers: who can write to the
 * folder can write a checksum too. */
#ifndef STORE_CHECKSUM_H
#define STORE_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

/* Inline, so that nothing is added to what the daemon runs on. */
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/bytes.h"

enum record_kind {
  RECORD_ROOT = 1,
  RECORD_HEAD,
  RECORD_CHUNK_LIST,
  RECORD_BASE,
  RECORD_CHUNK,
  RECORD_CHANGE,
  RECORD_WITNESS
};

/* `number`: of a chunk, or a version; 0 where neither makes sense. */
static inline uint64_t checksum(enum record_kind kind, int64_t id, int64_t number, const void *data,
                                size_t size) {
  unsigned char what[32];
  bytes_store_u64(what, (uint64_t)kind);
  bytes_store_u64(what + 8, (uint64_t)id);
  bytes_store_u64(what + 16, (uint64_t)number);
  bytes_store_u64(what + 24, (uint64_t)size);
  return XXH3_64bits_withSeed(data, size, XXH3_64bits(what, sizeof what));
}

#endif
