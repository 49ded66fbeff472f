/* .npy files: what numpy.save() writes, what it could have written, and what it
 * would not. */
#include <math.h>

#include "codec/npy.h"
#include "tensor_file.h"

/* ---- Files ---- */

/* Everything in front of the numbers, padded as NumPy does it. */
static struct buffer begin_npy(int version, const char *header) {
  struct buffer file;
  buffer_init(&file, 0);
  const size_t before = version == 1 ? 10 : 12;
  size_t length = strlen(header) + 1;
  length += (64 - (before + length) % 64) % 64;
  buffer_append(&file, "\x93NUMPY", 6);
  buffer_putc(&file, (char)version);
  buffer_putc(&file, 0);
  put_little(&file, length, version == 1 ? 2 : 4);
  buffer_puts(&file, header);
  while (file.length < before + length - 1)
    buffer_putc(&file, ' ');
  buffer_putc(&file, '\n');
  return file;
}

/* False with the error, the path cut off. */
static bool read_file(const struct buffer *bytes, bool column, struct matrix *matrix, char *error,
                      size_t error_size) {
  int descriptor = open_scratch();
  char path[64], whole[512];
  ck_assert_int_eq(write(descriptor, bytes->data, bytes->length), (ssize_t)bytes->length);
  snprintf(path, sizeof path, "/proc/self/fd/%d", descriptor);
  bool read = npy_read(path, column, matrix, whole, sizeof whole);
  close(descriptor);
  if (read) return true;
  ck_assert(strncmp(whole, path, strlen(path)) == 0);
  snprintf(error, error_size, "%s", whole + strlen(path));
  return false;
}

static struct matrix take(const struct buffer *file, bool column) {
  struct matrix matrix;
  char error[512];
  if (!read_file(file, column, &matrix, error, sizeof error)) ck_abort_msg("%s", error);
  return matrix;
}

static void refuse(struct buffer *file, bool column, const char *expected) {
  struct matrix matrix;
  char error[512];
  if (read_file(file, column, &matrix, error, sizeof error)) ck_abort_msg("taken: %s", expected);
  ck_assert_str_eq(error, expected);
  buffer_free(file);
}

/* ---- What is taken ---- */

static void put_number(struct buffer *file, const char *type, int number) {
  static const uint16_t halves[] = {0, 0x3c00, 0x4000, 0x4200, 0x4400, 0x4500, 0x4600, 0x4700};
  if (type[2] == '4') put_f32(file, (const float[]){(float)number}, 1);
  if (type[2] == '8') put_f64(file, number);
  if (type[2] == '2') put_little(file, halves[number % 8], 2);
}

/* Every version, type and order; shapes around the tiles of a transposition and
 * more than one chunk. */
START_TEST(test_shapes) {
  static const char *const types[] = {"<f4", "<f8", "<f2"};
  static const size_t shapes[][2] = {{1, 1},   {1, 7},   {7, 1},    {3, 4},    {31, 33},
                                     {32, 32}, {33, 65}, {100, 64}, {301, 150}};
  for (int version = 1; version <= 3; version++)
    for (size_t type = 0; type < 3; type++)
      for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++)
        for (int fortran = 0; fortran < 2; fortran++) {
          size_t rows = shapes[s][0], cols = shapes[s][1];
          char header[128];
          snprintf(header, sizeof header,
                   "{'descr': '%s', 'fortran_order': %s, 'shape': (%zu, %zu), }", types[type],
                   fortran ? "True" : "False", rows, cols);
          struct buffer file = begin_npy(version, header);
          for (size_t i = 0; i < rows * cols; i++) {
            size_t row = fortran ? i % rows : i / cols, col = fortran ? i / rows : i % cols;
            put_number(&file, types[type], (int)((row * 5 + col) % 8));
          }
          struct matrix matrix = take(&file, false);
          ck_assert_uint_eq(matrix.rows, rows);
          ck_assert_uint_eq(matrix.cols, cols);
          for (size_t i = 0; i < rows * cols; i++)
            ck_assert_float_eq(matrix.data[i], (float)((i / cols * 5 + i % cols) % 8));
          matrix_free(&matrix);
          buffer_free(&file);
        }
}
END_TEST

START_TEST(test_columns) {
  for (int fortran = 0; fortran < 2; fortran++) {
    struct buffer file =
        begin_npy(1, fortran ? "{'descr': '<f4', 'fortran_order': True, 'shape': (3,), }"
                             : "{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }");
    put_f32(&file, (const float[]){1, 2, 3}, 3);
    struct matrix matrix = take(&file, true);
    ck_assert_uint_eq(matrix.rows, 3);
    ck_assert_uint_eq(matrix.cols, 1);
    ck_assert_float_eq(matrix.data[2], 3);
    matrix_free(&matrix);
    refuse(&file, false, ": expected an array of two dimensions, got one of 1");
  }
}
END_TEST

/* Other ways to write the same literal. */
START_TEST(test_literals) {
  static const char *const headers[] = {
      "{'descr':'<f4','fortran_order':False,'shape':(1,2)}",
      "{\"shape\": (1L, 2L,), \"fortran_order\": False, \"descr\": \"<f4\"}",
      " { 'fortran_order' : False , 'descr' : '<f4' ,\t'shape' : ( 1 , 2 ) , } ",
      "{'descr': '<f4', 'fortran_order': False, 'shape': (01, 2), }",
  };
  for (size_t i = 0; i < sizeof headers / sizeof headers[0]; i++) {
    struct buffer file = begin_npy(1, headers[i]);
    put_f32(&file, (const float[]){1, 2}, 2);
    struct matrix matrix = take(&file, false);
    ck_assert_float_eq(matrix.data[1], 2);
    matrix_free(&matrix);
    buffer_free(&file);
  }
}
END_TEST

/* ---- What is refused ---- */

START_TEST(test_headers) {
  static const struct {
    const char *header, *error;
  } cases[] = {
      {"", "expected a header that begins with '{'"},
      {"[]", "expected a header that begins with '{'"},
      {"{}", "expected a header with descr, fortran_order and shape"},
      {"{'descr': '<f4', 'fortran_order': False}",
       "expected a header with descr, fortran_order and shape"},
      {"{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2)} x",
       "the header does not end with '}'"},
      {"{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2)",
       "the header is not that of an array"},
      {"{'descr': '<f4' 'fortran_order': False, 'shape': (1, 2)}",
       "the header is not that of an array"},
      {"{'descr' '<f4'}", "the header is not that of an array"},
      {"{descr: '<f4'}", "the header is not that of an array"},
      {"{'descr", "the header is not that of an array"},
      {"{'descr\\x': '<f4'}", "the header is not that of an array"},
      {"{'descr': '<f4', 'descr': '<f4'}", "the header has an unexpected 'descr'"},
      {"{'dtype': '<f4'}", "the header has an unexpected 'dtype'"},
      {"{'descr': '>f4'}", "expected numbers of '<f4', '<f8' or '<f2', got '>f4'"},
      {"{'descr': '<i4'}", "expected numbers of '<f4', '<f8' or '<f2', got '<i4'"},
      {"{'descr': '|O'}", "expected numbers of '<f4', '<f8' or '<f2', got '|O'"},
      {"{'descr': '|b1'}", "expected numbers of '<f4', '<f8' or '<f2', got '|b1'"},
      {"{'descr': [('x', '<f4')]}", "expected an array of numbers, got one of records"},
      {"{'descr': '<f4', 'fortran_order': 0}", "expected True or False as fortran_order"},
      {"{'shape': 3}", "expected the shape as a tuple"},
      {"{'shape': [3, 4]}", "expected the shape as a tuple"},
      {"{'shape': (3 4)}", "expected the shape as whole numbers"},
      {"{'shape': (3, -4)}", "expected the shape as whole numbers"},
      {"{'shape': (,)}", "expected the shape as whole numbers"},
      {"{'shape': (3", "expected the shape as whole numbers"},
      {"{'shape': (18446744073709551616, 1)}", "expected the shape as whole numbers"},
      {"{'descr': '<f4', 'fortran_order': False, 'shape': ()}",
       "expected an array of two dimensions, got one of 0"},
      {"{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2, 3)}",
       "expected an array of two dimensions, got one of 3"},
      {"{'descr': '<f4', 'fortran_order': False, 'shape': (0, 2)}",
       "the array has no numbers: 0 x 2"},
      {"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 0)}",
       "the array has no numbers: 2 x 0"},
      {"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 1048577)}",
       "a row has 1048577 numbers; at most 1048576 are possible"},
      {"{'descr': '<f4', 'fortran_order': False, 'shape': (18446744073709551615, 2)}",
       "the shape is beyond what can be addressed"},
      {"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 1000000)}",
       "the file ends within its numbers"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    char expected[512];
    struct buffer file = begin_npy(1 + (int)i % 3, cases[i].header);
    snprintf(expected, sizeof expected, ": %s", cases[i].error);
    refuse(&file, false, expected);
  }
}
END_TEST

START_TEST(test_bytes) {
  const char *header = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }";
  struct buffer whole = begin_npy(2, header);
  const size_t start = whole.length;
  put_f32(&whole, (const float[]){1, 2, 3, 4, 5, 6}, 6);
  for (size_t length = 0; length < whole.length; length++) {
    struct buffer part;
    buffer_init(&part, 0);
    buffer_append(&part, whole.data, length);
    refuse(&part, false,
           length < 8       ? ": it is no .npy file"
           : length < start ? ": the file ends within its header"
                            : ": the file ends within its numbers");
  }
  buffer_putc(&whole, 0);
  refuse(&whole, false, ": the file goes on behind its numbers");
  whole = begin_npy(4, header);
  refuse(&whole, false, ": expected version 1.0, 2.0 or 3.0 of the format, got 4.0");
  whole = begin_npy(1, header);
  whole.data[7] = 1;
  refuse(&whole, false, ": expected version 1.0, 2.0 or 3.0 of the format, got 1.1");
  whole = begin_npy(1, header);
  whole.data[0] = 'x';
  refuse(&whole, false, ": it is no .npy file");
  whole = begin_npy(1, header);
  whole.data[20] = '\0';
  refuse(&whole, false, ": the header has a NUL in it");
  whole = begin_npy(2, header);
  memcpy(whole.data + 8, "\xff\xff\xff\xff", 4);
  refuse(&whole, false, ": the header has 4294967295 bytes; at most 65536 are taken");
}
END_TEST

START_TEST(test_not_finite) {
  static const struct {
    const char *type;
    uint64_t bits;
    size_t bytes;
    const char *why;
  } cases[] = {
      {"<f4", 0x7fc00000, 4, "expected a finite number, got NaN"},
      {"<f4", 0xff800000, 4, "expected a finite number, got -infinity"},
      {"<f2", 0x7c00, 2, "expected a finite number, got infinity"},
      {"<f2", 0x7e00, 2, "expected a finite number, got NaN"},
      {"<f8", 0x7ff8000000000000, 8, "expected a finite number, got NaN"},
      {"<f8", 0x7ff0000000000000, 8, "expected a finite number, got infinity"},
      {"<f8", 0x7e37e43c8800759c, 8,
       "expected a number within float32, got 1.0000000000000001e+300"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
    for (int fortran = 0; fortran < 2; fortran++) {
      char header[128], expected[256];
      snprintf(header, sizeof header, "{'descr': '%s', 'fortran_order': %s, 'shape': (50, 3)}",
               cases[i].type, fortran ? "True" : "False");
      struct buffer file = begin_npy(1, header);
      for (size_t n = 0; n < 150; n++)
        put_little(&file, n == 101 ? cases[i].bits : 0, cases[i].bytes);
      snprintf(expected, sizeof expected, ": row %d, column %d (the first are 0): %s",
               fortran ? 1 : 33, 2, cases[i].why);
      refuse(&file, false, expected);
    }
}
END_TEST

START_TEST(test_no_file) {
  struct matrix matrix;
  char error[256];
  ck_assert(!npy_read("/nowhere/a.npy", false, &matrix, error, sizeof error));
  ck_assert_str_eq(error, "/nowhere/a.npy: No such file or directory");
  ck_assert(!npy_read("/", false, &matrix, error, sizeof error));
  ck_assert(!npy_read("/dev/zero", false, &matrix, error, sizeof error));
  ck_assert_str_eq(error, "/dev/zero: it is no .npy file");
}
END_TEST

UNIT_MAIN("npy", test_shapes, test_columns, test_literals, test_headers, test_bytes,
          test_not_finite, test_no_file)
