/* Numbers and strings as bytes, for what is kept on a disk: little-endian, no
 * padding. The writing side is struct buffer, whose failure is sticky; so is the
 * reading side's: past the end everything reads as 0 and `failed` is set, and a
 * reader looks once, at its end. */
#ifndef BASE_BYTES_H
#define BASE_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"

/* One number, in eight bytes. */
static inline void bytes_store_u64(unsigned char *to, uint64_t value) {
  for (int i = 0; i < 8; i++)
    to[i] = (unsigned char)(value >> 8 * i);
}

static inline uint64_t bytes_load_u64(const unsigned char *from) {
  uint64_t value = 0;
  for (int i = 0; i < 8; i++)
    value |= (uint64_t)from[i] << 8 * i;
  return value;
}

void bytes_put_u8(struct buffer *out, uint8_t value);
void bytes_put_u64(struct buffer *out, uint64_t value);
void bytes_put_i64(struct buffer *out, int64_t value);
void bytes_put_double(struct buffer *out, double value);
void bytes_put_floats(struct buffer *out, const float *values, size_t count);
/* Its length, then its bytes. */
void bytes_put_text(struct buffer *out, const char *text, size_t length);

struct byte_reader {
  const unsigned char *at;
  size_t left;
  bool failed;
  bool short_of_memory; /* so that it is not taken for a fault of the bytes */
};

struct byte_reader bytes_reader(const void *data, size_t size);
uint8_t bytes_get_u8(struct byte_reader *reader);
uint64_t bytes_get_u64(struct byte_reader *reader);
int64_t bytes_get_i64(struct byte_reader *reader);
double bytes_get_double(struct byte_reader *reader);

/* A count of items of at least `least_bytes` each that still follow: a larger
 * one than could be there fails, so that it can size an allocation. */
size_t bytes_get_count(struct byte_reader *reader, size_t least_bytes);

/* The next bytes, in place; NULL where there are not so many. */
const void *bytes_get_run(struct byte_reader *reader, size_t size);
const char *bytes_get_text(struct byte_reader *reader, size_t *length);

/* Room for what is read, to be freed; never of 0 bytes. NULL: no memory. The size
 * has been held against `left` before. */
void *bytes_room(struct byte_reader *reader, size_t size);

/* Copies `count` numbers out; false where there are not so many. */
bool bytes_get_floats(struct byte_reader *reader, float *values, size_t count);

/* True where all was read and nothing failed. */
bool bytes_ended(const struct byte_reader *reader);

#endif
