/* Any bytes as a .npy file; the first byte says whether one dimension is taken
 * for a column. What must be true of what is taken:
 *
 *  - its numbers are finite, and all bytes behind the header are theirs: count
 *    times 2, 4 or 8;
 *  - written again as NumPy writes float32 in C order, it reads as the same. */
#include <math.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/buffer.h"
#include "codec/npy.h"
#include "fuzz.h"

static bool read_bytes(const char *bytes, size_t count, bool column, struct matrix *matrix) {
  char path[64], error[512] = "";
  const int descriptor = memfd_create("array", MFD_CLOEXEC);
  REQUIRE(descriptor >= 0);
  REQUIRE(write(descriptor, bytes, count) == (ssize_t)count);
  snprintf(path, sizeof path, "/proc/self/fd/%d", descriptor);
  const bool read = npy_read(path, column, matrix, error, sizeof error);
  close(descriptor);
  REQUIRE(read || strncmp(error, path, strlen(path)) == 0);
  return read;
}

static size_t header_bytes(const uint8_t *bytes) {
  if (bytes[6] == 1) return 10 + (size_t)bytes[8] + ((size_t)bytes[9] << 8);
  return 12 + (size_t)bytes[8] + ((size_t)bytes[9] << 8) + ((size_t)bytes[10] << 16);
}

static void check_again(const struct matrix *matrix) {
  struct matrix again;
  struct buffer file;
  char header[128];
  const size_t count = matrix->rows * matrix->cols;
  const int length = snprintf(header, sizeof header,
                              "{'descr': '<f4', 'fortran_order': False, 'shape': (%zu, %zu), }\n",
                              matrix->rows, matrix->cols);
  buffer_init(&file, 0);
  buffer_append(&file, "\x93NUMPY\1\0", 8);
  buffer_putc(&file, (char)length);
  buffer_putc(&file, 0);
  buffer_puts(&file, header);
  REQUIRE(buffer_append(&file, matrix->data, count * sizeof(float)));
  REQUIRE(read_bytes(file.data, file.length, false, &again));
  REQUIRE(again.rows == matrix->rows && again.cols == matrix->cols);
  REQUIRE(memcmp(again.data, matrix->data, count * sizeof(float)) == 0);
  matrix_free(&again);
  buffer_free(&file);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct matrix matrix;
  if (size < 1) return 0;
  if (!read_bytes((const char *)data + 1, size - 1, data[0] == 'v', &matrix)) return 0;
  const size_t count = matrix.rows * matrix.cols, rest = size - 1 - header_bytes(data + 1);
  REQUIRE(count >= 1);
  REQUIRE(rest == 2 * count || rest == 4 * count || rest == 8 * count);
  for (size_t i = 0; i < count; i++)
    REQUIRE(isfinite(matrix.data[i]));
  check_again(&matrix);
  matrix_free(&matrix);
  return 0;
}
