/* Little-endian whatever the machine is: integers by shifts, which compilers
 * turn into plain stores. Floats go over whole on little-endian machines, the
 * only ones there are packages for that this is tested on; others take the
 * slow way. */
#include "base/bytes.h"

#include <stdlib.h>
#include <string.h>

#define IS_LITTLE (__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__)

void bytes_put_u8(struct buffer *out, uint8_t value) {
  buffer_append(out, &value, 1);
}

void bytes_put_u64(struct buffer *out, uint64_t value) {
  unsigned char bytes[8];
  bytes_store_u64(bytes, value);
  buffer_append(out, bytes, sizeof bytes);
}

void bytes_put_i64(struct buffer *out, int64_t value) {
  bytes_put_u64(out, (uint64_t)value);
}

void bytes_put_double(struct buffer *out, double value) {
  uint64_t bits;
  memcpy(&bits, &value, sizeof bits);
  bytes_put_u64(out, bits);
}

void bytes_put_floats(struct buffer *out, const float *values, size_t count) {
  if (count == 0) return;
  if (IS_LITTLE) {
    buffer_append(out, values, count * sizeof *values);
    return;
  }
  for (size_t i = 0; i < count; i++) {
    uint32_t bits;
    memcpy(&bits, &values[i], sizeof bits);
    const unsigned char bytes[4] = {(unsigned char)bits, (unsigned char)(bits >> 8),
                                    (unsigned char)(bits >> 16), (unsigned char)(bits >> 24)};
    buffer_append(out, bytes, sizeof bytes);
  }
}

void bytes_put_text(struct buffer *out, const char *text, size_t length) {
  bytes_put_u64(out, length);
  buffer_append(out, text, length);
}

struct byte_reader bytes_reader(const void *data, size_t size) {
  return (struct byte_reader){.at = data, .left = size};
}

const void *bytes_get_run(struct byte_reader *reader, size_t size) {
  if (reader->failed || size > reader->left) {
    reader->failed = true;
    return NULL;
  }
  const void *run = reader->at;
  reader->at += size;
  reader->left -= size;
  return run;
}

uint8_t bytes_get_u8(struct byte_reader *reader) {
  const unsigned char *byte = bytes_get_run(reader, 1);
  return byte ? *byte : 0;
}

uint64_t bytes_get_u64(struct byte_reader *reader) {
  const unsigned char *bytes = bytes_get_run(reader, 8);
  return bytes ? bytes_load_u64(bytes) : 0;
}

int64_t bytes_get_i64(struct byte_reader *reader) {
  return (int64_t)bytes_get_u64(reader);
}

double bytes_get_double(struct byte_reader *reader) {
  const uint64_t bits = bytes_get_u64(reader);
  double value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

size_t bytes_get_count(struct byte_reader *reader, size_t least_bytes) {
  const uint64_t count = bytes_get_u64(reader);
  if (!reader->failed && count <= reader->left / least_bytes) return (size_t)count;
  reader->failed = true;
  return 0;
}

const char *bytes_get_text(struct byte_reader *reader, size_t *length) {
  *length = bytes_get_count(reader, 1);
  return bytes_get_run(reader, *length);
}

void *bytes_room(struct byte_reader *reader, size_t size) {
  void *room = malloc(size > 0 ? size : 1);
  if (!room) reader->short_of_memory = true;
  return room;
}

bool bytes_get_floats(struct byte_reader *reader, float *values, size_t count) {
  if (count > SIZE_MAX / sizeof *values) reader->failed = true;
  const unsigned char *bytes = bytes_get_run(reader, count * sizeof *values);
  if (!bytes) return false;
  if (IS_LITTLE) {
    memcpy(values, bytes, count * sizeof *values);
    return true;
  }
  for (size_t i = 0; i < count; i++) {
    const unsigned char *b = bytes + 4 * i;
    const uint32_t bits =
        (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
    memcpy(&values[i], &bits, sizeof bits);
  }
  return true;
}

bool bytes_ended(const struct byte_reader *reader) {
  return !reader->failed && reader->left == 0;
}
