/* What the suites of binary tensors share: files put together byte by byte, so
 * that also those can be made which no writer would write. */
#ifndef TESTS_UNIT_SERVER_TENSOR_FILE_H
#define TESTS_UNIT_SERVER_TENSOR_FILE_H

#include "base/buffer.h"
#include "unit.h"

static inline void put_little(struct buffer *out, uint64_t number, size_t bytes) {
  for (size_t i = 0; i < bytes; i++)
    ck_assert(buffer_putc(out, (char)(unsigned char)(number >> 8 * i)));
}

/* Starts a file with this header. */
static inline struct buffer begin_file(const char *header) {
  struct buffer file;
  buffer_init(&file, 0);
  put_little(&file, strlen(header), 8);
  ck_assert(buffer_puts(&file, header));
  return file;
}

static inline void put_f32(struct buffer *out, const float *numbers, size_t count) {
  for (size_t i = 0; i < count; i++) {
    uint32_t bits;
    memcpy(&bits, &numbers[i], sizeof bits);
    put_little(out, bits, 4);
  }
}

static inline void put_f64(struct buffer *out, double number) {
  uint64_t bits;
  memcpy(&bits, &number, sizeof bits);
  put_little(out, bits, 8);
}

#endif
