/* The safetensors format, in and out. */
#include <inttypes.h>
#include <math.h>

#include "codec/safetensors.h"
#include "tensor_file.h"

/* ---- A caller of the reader ---- */

enum { TENSORS = 6, NUMBERS = 20000 };

struct received {
  size_t headers;
  struct tensor seen[TENSORS]; /* names cut off */
  char names[TENSORS][32];
  size_t tensor_count;
  float *numbers[TENSORS];
  size_t counts[TENSORS];
  char metadata[64];
  bool has_metadata;
  const char *skip;
  size_t data_bytes;
};

static struct received *current; /* the sink gets a place in it */

static bool receive(void *context, size_t first, const float *numbers, size_t count,
                    struct problem *problem) {
  (void)problem;
  size_t index = (size_t)((char(*)[32])context - current->names);
  ck_assert_uint_eq(first, current->counts[index]);
  ck_assert_uint_ge(count, 1);
  ck_assert_uint_le(first + count, current->seen[index].count);
  memcpy(current->numbers[index] + first, numbers, count * sizeof *numbers);
  current->counts[index] += count;
  return true;
}

static bool see_header(void *context, struct tensors_reader *reader, struct problem *problem) {
  struct received *received = context;
  const struct tensor *tensor;
  struct buffer text;
  received->headers++;
  received->data_bytes = tensors_data_bytes(reader);
  for (size_t i = 0; (tensor = tensors_at(reader, i)); i++) {
    ck_assert_uint_lt(i, TENSORS);
    ck_assert_ptr_eq(tensors_find(reader, tensor->name), tensor);
    received->seen[i] = *tensor;
    snprintf(received->names[i], sizeof received->names[i], "%s", tensor->name);
    received->numbers[i] = malloc((tensor->count + 1) * sizeof(float));
    received->tensor_count++;
    if (received->skip && strcmp(received->skip, tensor->name) == 0) continue;
    if (!tensors_deliver(reader, tensor, receive, received->names[i], problem)) return false;
  }
  ck_assert_ptr_null(tensors_find(reader, "nothing of that name"));
  buffer_init(&text, 0);
  received->has_metadata = tensors_metadata(reader, "request", &text);
  snprintf(received->metadata, sizeof received->metadata, "%s", buffer_text(&text));
  buffer_free(&text);
  return true;
}

static void release(struct received *received) {
  for (size_t i = 0; i < received->tensor_count; i++)
    free(received->numbers[i]);
}

/* Fed in pieces of that length, each a block of its own; the last one is what
 * is left. */
static bool read_pieces(const char *bytes, size_t count, size_t piece, const char *skip,
                        struct received *received, struct problem *problem) {
  *received = (struct received){.skip = skip};
  current = received;
  struct tensors_limits limits = {.header_bytes = 100000};
  struct tensors_reader *reader = tensors_create(&limits, see_header, received);
  ck_assert_ptr_nonnull(reader);
  bool read = true;
  for (size_t at = 0; read && at < count; at += piece) {
    size_t length = count - at < piece ? count - at : piece;
    char *copy = malloc(length);
    memcpy(copy, bytes + at, length);
    read = tensors_feed(reader, copy, length, problem);
    free(copy);
  }
  if (!read) {
    struct problem again;
    ck_assert(!tensors_feed(reader, "", 0, &again));
    ck_assert(!tensors_finish(reader, &again));
  }
  read = read && tensors_finish(reader, problem);
  tensors_free(reader);
  return read;
}

static void take(struct buffer *file, size_t piece, struct received *received) {
  struct problem problem;
  if (!read_pieces(file->data, file->length, piece, NULL, received, &problem))
    ck_abort_msg("%s: %s", problem.pointer, problem.detail);
  ck_assert_uint_eq(received->headers, 1);
}

/* Refused with that, however it is cut. */
static void refuse(const struct buffer *file, enum problem_code code, const char *pointer,
                   const char *detail) {
  for (size_t piece = 1; piece <= file->length + 1; piece += 1 + piece / 7) {
    struct received received;
    struct problem problem;
    if (read_pieces(file->data, file->length, piece, NULL, &received, &problem))
      ck_abort_msg("taken: expected %s", detail);
    ck_assert_int_eq(problem.code, code);
    if (strcmp(problem.pointer, pointer) != 0)
      ck_abort_msg("%s, not %s: %s", problem.pointer, pointer, problem.detail);
    if (!strstr(problem.detail, detail)) ck_abort_msg("%s, not %s", problem.detail, detail);
    release(&received);
  }
}

/* A header and so many bytes of zeros. */
static void refuse_header(const char *header, size_t data, const char *pointer,
                          const char *detail) {
  struct buffer file = begin_file(header);
  for (size_t i = 0; i < data; i++)
    buffer_putc(&file, 0);
  refuse(&file, PROBLEM_INVALID_TENSORS, pointer, detail);
  buffer_free(&file);
}

/* ---- What is taken ---- */

START_TEST(test_one) {
  static const float numbers[] = {1, -0.0f, 0.1f, 3.4028235e38f, 1e-45f, -2.5f};
  struct buffer file =
      begin_file("{\"keys\":{\"shape\":[3,2],\"data_offsets\":[0,24],\"dtype\":\"F32\"},"
                 "\"__metadata__\":{\"format\":\"pt\",\"request\":\"{\\\"a\\\":\\u00e4}\"}}   ");
  put_f32(&file, numbers, 6);
  for (size_t piece = 1; piece <= file.length; piece++) {
    struct received received;
    take(&file, piece, &received);
    ck_assert_uint_eq(received.tensor_count, 1);
    ck_assert_str_eq(received.names[0], "keys");
    ck_assert_str_eq(received.seen[0].dtype, "F32");
    ck_assert_uint_eq(received.seen[0].dims, 2);
    ck_assert_uint_eq(received.seen[0].shape[0], 3);
    ck_assert_uint_eq(received.seen[0].shape[1], 2);
    ck_assert_uint_eq(received.data_bytes, 24);
    ck_assert_uint_eq(received.counts[0], 6);
    ck_assert(memcmp(received.numbers[0], numbers, sizeof numbers) == 0);
    ck_assert_str_eq(received.metadata, "{\"a\":\xc3\xa4}");
    release(&received);
  }
  buffer_free(&file);
}
END_TEST

START_TEST(test_order_and_empty) {
  struct buffer file =
      begin_file("{\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[8,12]},"
                 "\"empty\":{\"dtype\":\"I64\",\"shape\":[0,7],\"data_offsets\":[8,8]},"
                 "\"a\":{\"dtype\":\"F64\",\"shape\":[],\"data_offsets\":[0,8]}}");
  put_f64(&file, 0.1);
  put_f32(&file, (const float[]){7}, 1);
  struct received received;
  struct problem problem;
  for (size_t piece = 1; piece <= file.length; piece++) {
    ck_assert(read_pieces(file.data, file.length, piece, "empty", &received, &problem));
    ck_assert_uint_eq(received.tensor_count, 3);
    ck_assert_str_eq(received.names[0], "a");
    ck_assert_str_eq(received.names[1], "empty");
    ck_assert_str_eq(received.names[2], "b");
    ck_assert_uint_eq(received.seen[0].count, 1);
    ck_assert_uint_eq(received.seen[1].count, 0);
    ck_assert_float_eq(received.numbers[0][0], 0.1f);
    ck_assert_float_eq(received.numbers[2][0], 7);
    ck_assert(!received.has_metadata);
    release(&received);
  }
  buffer_free(&file);
}
END_TEST

START_TEST(test_nothing) {
  struct buffer file = begin_file("{}");
  struct received received;
  take(&file, 3, &received);
  ck_assert_uint_eq(received.tensor_count, 0);
  ck_assert_uint_eq(received.data_bytes, 0);
  buffer_free(&file);
  file = begin_file("{\"__metadata__\":{\"request\":\"\"}}");
  take(&file, 3, &received);
  ck_assert(received.has_metadata);
  ck_assert_str_eq(received.metadata, "");
  buffer_free(&file);
}
END_TEST

/* A tensor that nobody asked for may have any dtype and any bytes. */
START_TEST(test_passed_over) {
  static const char *const dtypes[] = {"BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"};
  for (size_t i = 0; i < sizeof dtypes / sizeof dtypes[0]; i++) {
    char header[256];
    snprintf(header, sizeof header,
             "{\"x\":{\"dtype\":\"%s\",\"shape\":[5],\"data_offsets\":[0,5]},"
             "\"keys\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[5,9]}}",
             dtypes[i]);
    struct buffer file = begin_file(header);
    buffer_append(&file, "\xff\xff\xff\xff\xff", 5);
    put_f32(&file, (const float[]){3}, 1);
    struct received received;
    struct problem problem;
    for (size_t piece = 1; piece <= file.length; piece++) {
      ck_assert(read_pieces(file.data, file.length, piece, "x", &received, &problem));
      ck_assert_uint_eq(received.counts[0], 0);
      ck_assert_float_eq(received.numbers[1][0], 3);
      release(&received);
    }
    buffer_free(&file);
  }
}
END_TEST

/* ---- Dtypes ---- */

/* By the definition of the formats: sign, exponent, fraction. */
static double value_of(uint32_t bits, unsigned exponent_bits, unsigned fraction_bits) {
  uint32_t fraction = bits & ((1u << fraction_bits) - 1);
  uint32_t exponent = bits >> fraction_bits & ((1u << exponent_bits) - 1);
  int bias = (1 << (exponent_bits - 1)) - 1;
  double value = exponent == 0 ? ldexp((double)fraction, 1 - bias - (int)fraction_bits)
                               : ldexp((double)(fraction | 1u << fraction_bits),
                                       (int)exponent - bias - (int)fraction_bits);
  return bits >> (exponent_bits + fraction_bits) & 1 ? -value : value;
}

static void check_halves(enum floats_kind kind, unsigned exponent_bits, unsigned fraction_bits) {
  size_t finite = 0;
  for (uint32_t bits = 0; bits <= 0xffff; bits++) {
    char bytes[2] = {(char)(unsigned char)bits, (char)(unsigned char)(bits >> 8)};
    float number;
    floats_convert(kind, bytes, 1, &number);
    bool special =
        (bits >> fraction_bits & ((1u << exponent_bits) - 1)) == (1u << exponent_bits) - 1;
    ck_assert_int_eq(isfinite(number), !special);
    ck_assert_uint_eq(floats_find_not_finite(&number, 1), special ? 0 : 1);
    if (special) continue;
    finite++;
    double expected = value_of(bits, exponent_bits, fraction_bits);
    ck_assert((double)number == expected && !!signbit(number) == (bits >> 15 == 1));
  }
  ck_assert_uint_eq(finite, 65536 - (2u << fraction_bits));
}

START_TEST(test_all_halves) {
  check_halves(FLOATS_F16, 5, 10);
  check_halves(FLOATS_BF16, 8, 7);
}
END_TEST

static const struct {
  const char *name;
  size_t bytes;
} float_types[] = {{"F32", 4}, {"F64", 8}, {"F16", 2}, {"BF16", 2}};

/* Small whole numbers, exact in each dtype. */
static void put_whole(struct buffer *out, const char *dtype, int number) {
  float single = (float)number;
  uint32_t bits;
  memcpy(&bits, &single, sizeof bits);
  if (strcmp(dtype, "F32") == 0) put_little(out, bits, 4);
  if (strcmp(dtype, "F64") == 0) put_f64(out, number);
  if (strcmp(dtype, "BF16") == 0) put_little(out, bits >> 16, 2);
  if (strcmp(dtype, "F16") == 0) {
    int exponent;
    double fraction = frexp(fabs((double)number), &exponent);
    uint32_t half =
        number == 0 ? 0 : (uint32_t)(exponent + 14) << 10 | ((uint32_t)ldexp(fraction, 11) & 0x3ff);
    put_little(out, half | (number < 0 ? 0x8000u : 0), 2);
  }
}

/* Tensors of random types and lengths, in pieces of random lengths. */
START_TEST(test_random_files) {
  uint64_t state = 7;
  for (int trial = 0; trial < 60; trial++) {
    struct buffer header, data;
    int *expected[TENSORS];
    size_t counts[TENSORS], count = 1 + next_random(&state) % TENSORS;
    buffer_init(&header, 0);
    buffer_init(&data, 0);
    for (size_t i = 0; i < count; i++) {
      size_t type = next_random(&state) % 4, begin = data.length;
      counts[i] = 1 + next_random(&state) % (trial % 10 == 0 ? NUMBERS : 50);
      expected[i] = malloc(counts[i] * sizeof *expected[i]);
      for (size_t n = 0; n < counts[i]; n++)
        put_whole(&data, float_types[type].name,
                  expected[i][n] = (int)(next_random(&state) % 257) - 128);
      buffer_printf(&header,
                    "%s\"%zu\":{\"dtype\":\"%s\",\"shape\":[%zu,1],\"data_offsets\":[%zu,%zu]}",
                    i ? "," : "{", i, float_types[type].name, counts[i], begin, data.length);
    }
    buffer_puts(&header, "}");
    struct buffer file = begin_file(buffer_text(&header));
    buffer_append(&file, data.data, data.length);
    for (int cut = 0; cut < 5; cut++) {
      struct received received;
      take(&file, cut == 0 ? file.length : 1 + next_random(&state) % (file.length / 3), &received);
      for (size_t i = 0; i < count; i++) {
        ck_assert_uint_eq(received.counts[i], counts[i]);
        for (size_t n = 0; n < counts[i]; n++)
          ck_assert_float_eq(received.numbers[i][n], (float)expected[i][n]);
      }
      release(&received);
    }
    for (size_t i = 0; i < count; i++)
      free(expected[i]);
    buffer_free(&file);
    buffer_free(&header);
    buffer_free(&data);
  }
}
END_TEST

static void refuse_number(const char *dtype, uint64_t bits, size_t bytes, const char *detail) {
  for (size_t place = 0; place < 150; place += 1 + place / 2) {
    char header[128], pointer[32];
    snprintf(header, sizeof header,
             "{\"keys\":{\"dtype\":\"%s\",\"shape\":[10,15],\"data_offsets\":[0,%zu]}}", dtype,
             150 * bytes);
    snprintf(pointer, sizeof pointer, "/keys/%zu/%zu", place / 15, place % 15);
    struct buffer file = begin_file(header);
    for (size_t i = 0; i < 150; i++)
      put_little(&file, i == place ? bits : 0, bytes);
    refuse(&file, PROBLEM_INVALID_NUMBER, pointer, detail);
    buffer_free(&file);
  }
}

START_TEST(test_not_finite) {
  refuse_number("F32", 0x7f800000, 4, "expected a finite number, got infinity");
  refuse_number("F32", 0xff800000, 4, "expected a finite number, got -infinity");
  refuse_number("F32", 0x7f800001, 4, "expected a finite number, got NaN");
  refuse_number("F32", 0xffc00000, 4, "expected a finite number, got NaN");
  refuse_number("F16", 0x7c00, 2, "expected a finite number, got infinity");
  refuse_number("F16", 0xfc00, 2, "expected a finite number, got -infinity");
  refuse_number("F16", 0x7e00, 2, "expected a finite number, got NaN");
  refuse_number("BF16", 0x7f80, 2, "expected a finite number, got infinity");
  refuse_number("BF16", 0xff80, 2, "expected a finite number, got -infinity");
  refuse_number("BF16", 0x7fc0, 2, "expected a finite number, got NaN");
  refuse_number("F64", 0x7ff0000000000000, 8, "expected a finite number, got infinity");
  refuse_number("F64", 0xfff0000000000000, 8, "expected a finite number, got -infinity");
  refuse_number("F64", 0x7ff0000000000001, 8, "expected a finite number, got NaN");
  refuse_number("F64", 0x7fe0000000000000, 8, "expected a number within float32, got 8.98");
  refuse_number("F64", 0x47effffff0000000, 8, "expected a number within float32, got 3.40");
}
END_TEST

/* The largest doubles that still round to a finite float32. */
START_TEST(test_edge_of_doubles) {
  struct buffer file =
      begin_file("{\"x\":{\"dtype\":\"F64\",\"shape\":[3],\"data_offsets\":[0,24]}}");
  put_f64(&file, nextafter(0x1.ffffffp127, 0));
  put_f64(&file, -0x1.fffffep127);
  put_f64(&file, 1e-300);
  struct received received;
  take(&file, 5, &received);
  ck_assert_float_eq(received.numbers[0][0], 0x1.fffffep127f);
  ck_assert_float_eq(received.numbers[0][1], -0x1.fffffep127f);
  ck_assert_float_eq(received.numbers[0][2], 0);
  release(&received);
  buffer_free(&file);
}
END_TEST

START_TEST(test_other_dtypes) {
  static const struct {
    const char *name;
    size_t bits;
  } types[] = {{"BOOL", 8}, {"U8", 8},   {"I8", 8},   {"U16", 16},    {"I16", 16},    {"U32", 32},
               {"I32", 32}, {"U64", 64}, {"I64", 64}, {"F8_E4M3", 8}, {"F8_E5M2", 8}, {"C64", 64}};
  for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
    char header[128], detail[128];
    snprintf(header, sizeof header,
             "{\"keys\":{\"dtype\":\"%s\",\"shape\":[2],\"data_offsets\":[0,%zu]}}", types[i].name,
             types[i].bits / 4);
    snprintf(detail, sizeof detail, "expected numbers of F32, F64, F16 or BF16, got %s",
             types[i].name);
    struct buffer file = begin_file(header);
    for (size_t n = 0; n < types[i].bits / 4; n++)
      buffer_putc(&file, 0);
    refuse(&file, PROBLEM_INVALID_TYPE, "/keys", detail);
    buffer_free(&file);
  }
}
END_TEST

/* ---- What is refused ---- */

#define TENSOR(name, dtype, shape, offsets)                                                        \
  "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"

START_TEST(test_malformed_headers) {
  static const struct {
    const char *header;
    size_t data;
    const char *pointer, *detail;
  } cases[] = {
      {" {}", 0, "", "begins with '{'"},
      {"[]", 0, "", "begins with '{'"},
      {"{", 0, "", "ends with '}'"},
      {"{}\n", 0, "", "ends with '}'"},
      {"{}x", 0, "", "ends with '}'"},
      {"{}{}", 0, "", "not valid JSON"},
      {"{\"a\"}", 0, "/a", "not valid JSON: line 1, column 5"},
      {"{\"\xff\":1}", 0, "", "not valid JSON"},
      {"{\"__metadata__\":{\"a\":\"\xc3(\"}}", 0, "/__metadata__/a", "not valid JSON"},
      {"{\"a\":1}", 0, "/a", "expected an object, got a number"},
      {"{\"a\":null}", 0, "/a", "expected an object, got null"},
      {"{\"__metadata__\":[]}", 0, "/__metadata__", "expected an object, got an array"},
      {"{\"__metadata__\":{\"a\":1}}", 0, "/__metadata__/a", "expected a string, got a number"},
      {"{\"__metadata__\":{\"a\":\"\",\"a\":\"\"}}", 0, "/__metadata__/a", "of that name already"},
      {"{\"__metadata__\":{},\"__metadata__\":{}}", 0, "/__metadata__", "of that name already"},
      {"{" TENSOR("a", "F32", "[1]", "[0,4]") "," TENSOR("a", "F32", "[1]", "[4,8]") "}", 8, "/a",
       "of that name already"},
      {"{" TENSOR("a", "F32", "[1]", "[0,4]") "," TENSOR("\\u0061", "F32", "[1]", "[4,8]") "}", 8,
       "/a", "of that name already"},
      {"{\"a\":{}}", 0, "/a/dtype", "a tensor needs \"dtype\""},
      {"{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, "/a/shape", "needs \"shape\""},
      {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, "/a/data_offsets", "needs \"data_offsets\""},
      {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"x\":1}}", 4, "/a/x",
       "a tensor takes \"dtype\", \"shape\", \"data_offsets\", not \"x\""},
      {"{" TENSOR("a", "f32", "[1]", "[0,4]") "}", 4, "/a/dtype", "no such dtype"},
      {"{" TENSOR("a", "F32\\u0000", "[1]", "[0,4]") "}", 4, "/a/dtype", "no such dtype"},
      {"{" TENSOR("a", "FLOAT32_IS_LONGER", "[1]", "[0,4]") "}", 4, "/a/dtype", "no such dtype"},
      {"{\"a\":{\"dtype\":7,\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "/a/dtype", "a string"},
      {"{" TENSOR("a", "F32", "1", "[0,4]") "}", 4, "/a/shape", "expected an array"},
      {"{" TENSOR("a", "F32", "[\"1\"]", "[0,4]") "}", 4, "/a/shape/0", "expected a whole number"},
      {"{" TENSOR("a", "F32", "[1.0]", "[0,4]") "}", 4, "/a/shape/0", "64 bits, got 1.0"},
      {"{" TENSOR("a", "F32", "[1e0]", "[0,4]") "}", 4, "/a/shape/0", "64 bits, got 1e0"},
      {"{" TENSOR("a", "F32", "[-1]", "[0,4]") "}", 4, "/a/shape/0", "64 bits, got -1"},
      {"{" TENSOR("a", "F32", "[18446744073709551616]", "[0,4]") "}", 4, "/a/shape/0", "64 bits"},
      {"{" TENSOR("a", "F32", "[18446744073709551615]", "[0,4]") "}", 4, "/a", "beyond what can"},
      {"{" TENSOR("a", "F32", "[4294967296,4294967296]", "[0,4]") "}", 4, "/a", "beyond what can"},
      {"{" TENSOR("a", "F32", "[4294967296,4294967296,0]", "[0,0]") "}", 0, "/a", "beyond what"},
      {"{" TENSOR("a", "F32", "[4611686018427387904]", "[0,0]") "}", 0, "/a", "beyond what can"},
      {"{" TENSOR("a", "F32", "[1,1,1,1,1,1,1,1,1]", "[0,4]") "}", 4, "/a/shape", "up to 8"},
      {"{" TENSOR("a", "F32", "[1]", "[0]") "}", 4, "/a/data_offsets", "expected [begin, end]"},
      {"{" TENSOR("a", "F32", "[1]", "[]") "}", 4, "/a/data_offsets", "expected [begin, end]"},
      {"{" TENSOR("a", "F32", "[1]", "[0,4,8]") "}", 4, "/a/data_offsets", "up to 2 numbers"},
      {"{" TENSOR("a", "F32", "[1]", "[4,0]") "}", 4, "/a/data_offsets", "not before the begin"},
      {"{" TENSOR("a", "F32", "[1]", "[0,5]") "}", 5, "/a", "need 4 bytes, its offsets have 5"},
      {"{" TENSOR("a", "F32", "[2]", "[0,4]") "}", 4, "/a", "need 8 bytes, its offsets have 4"},
      {"{" TENSOR("a", "F32", "[0]", "[0,4]") "}", 4, "/a", "need 0 bytes, its offsets have 4"},
      {"{" TENSOR("a", "F32", "[]", "[0,0]") "}", 0, "/a", "need 4 bytes, its offsets have 0"},
      {"{" TENSOR("a", "F4", "[3]", "[0,1]") "}", 1, "/a", "do not end with a whole byte"},
      {"{" TENSOR("a", "F32", "[1]", "[4,8]") "}", 8, "/a", "begin at byte 4; those of"},
      {"{" TENSOR("a", "F32", "[1]", "[0,4]") "," TENSOR("b", "F32", "[1]", "[8,12]") "}", 12, "/b",
       "begin at byte 8; those of the tensor before end at 4"},
      {"{" TENSOR("a", "F32", "[2]", "[0,8]") "," TENSOR("b", "F32", "[1]", "[4,8]") "}", 8, "/b",
       "begin at byte 4; those of the tensor before end at 8"},
      {"{" TENSOR("a", "F32", "[1]", "[0,4]") "," TENSOR("b", "F32", "[1]", "[0,4]") "}", 4, "/b",
       "begin at byte 0"},
      {"{" TENSOR("a", "F32", "[2]", "[0,8]") "," TENSOR("b", "F32", "[0]", "[4,4]") "}", 8, "/b",
       "begin at byte 4"},
      {"{" TENSOR("a", "F32", "[1]", "[18446744073709551612,18446744073709551615]") "}", 4, "/a",
       "need 4 bytes, its offsets have 3"},
      {"{" TENSOR("a\\u0000", "F32", "[1]", "[0,4]") "}", 4, "/a\xef\xbf\xbd", "U+0000"},
      {"{" TENSOR("a", "F32", "[1]", "[0,4]") "}", 3, "",
       "expected 4 bytes behind the header, got 3"},
      {"{" TENSOR("a", "F32", "[1]", "[0,4]") "}", 0, "",
       "expected 4 bytes behind the header, got 0"},
      {"{" TENSOR("a", "F32", "[1]", "[0,4]") "}", 5, "", "behind the header, got more"},
      {"{}", 1, "", "expected 0 bytes behind the header, got more"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
    refuse_header(cases[i].header, cases[i].data, cases[i].pointer, cases[i].detail);
}
END_TEST

START_TEST(test_lengths) {
  struct buffer file;
  buffer_init(&file, 0);
  for (size_t i = 0; i < 8; i++) {
    char detail[64];
    snprintf(detail, sizeof detail, "how long the header is, got %zu", i);
    if (i > 0) refuse(&file, PROBLEM_INVALID_TENSORS, "", detail);
    buffer_putc(&file, i == 0 ? 5 : 0);
  }
  refuse(&file, PROBLEM_INVALID_TENSORS, "", "a header of 5 bytes, got 0");
  buffer_puts(&file, "{");
  refuse(&file, PROBLEM_INVALID_TENSORS, "", "a header of 5 bytes, got 1");
  buffer_free(&file);
  static const uint64_t lengths[] = {0, 100001, (uint64_t)1 << 32, UINT64_MAX};
  for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
    char detail[64];
    snprintf(detail, sizeof detail, "a header of %" PRIu64 " bytes", lengths[i]);
    put_little(&file, lengths[i], 8);
    buffer_puts(&file, "{}");
    refuse(&file, PROBLEM_INVALID_TENSORS, "", detail);
    buffer_free(&file);
  }
  /* nothing at all */
  struct received received;
  struct problem problem;
  ck_assert(!read_pieces("", 0, 1, NULL, &received, &problem));
  ck_assert_int_eq(problem.code, PROBLEM_INVALID_TENSORS);
}
END_TEST

/* Any byte of a good file changed, and any part of it: taken or refused, and
 * never more numbers than there are. */
START_TEST(test_damaged) {
  struct buffer file = begin_file("{" TENSOR("keys", "F32", "[2,2]", "[0,16]") "," TENSOR(
      "values", "F16", "[2,1]", "[16,20]") ",\"__metadata__\":{\"request\":\"{}\"}}");
  for (size_t i = 0; i < 20; i++)
    buffer_putc(&file, 0);
  for (size_t at = 0; at < file.length; at++)
    for (int value = 0; value < 256; value += 5) {
      struct received received;
      struct problem problem;
      char kept = file.data[at];
      file.data[at] = (char)(unsigned char)value;
      read_pieces(file.data, file.length, 64, NULL, &received, &problem);
      release(&received);
      ck_assert(at + 1 == file.length ||
                !read_pieces(file.data, at, 64, NULL, &received, &problem));
      if (at + 1 != file.length) release(&received);
      file.data[at] = kept;
    }
  buffer_free(&file);
}
END_TEST

START_TEST(test_many_tensors) {
  struct buffer header;
  buffer_init(&header, 0);
  for (int i = 0; i < 1025; i++)
    buffer_printf(&header, "%s\"%d\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}",
                  i ? "," : "{", i);
  buffer_puts(&header, "}");
  refuse_header(buffer_text(&header), 0, "/1024", "more than 1024 tensors");
  buffer_clear(&header);
  buffer_puts(&header, "{\"");
  for (int i = 0; i < 256; i++)
    buffer_putc(&header, 'n');
  buffer_puts(&header, "\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}");
  struct buffer file = begin_file(buffer_text(&header));
  struct received received;
  struct problem problem;
  ck_assert(!read_pieces(file.data, file.length, 99, NULL, &received, &problem));
  ck_assert_ptr_nonnull(strstr(problem.detail, "longer than 255 bytes"));
  buffer_free(&file);
  buffer_free(&header);
}
END_TEST

/* ---- Writing ---- */

START_TEST(test_written) {
  static const struct tensor_outline tensors[] = {
      {"keys", 2, {3, 2}}, {"a \"name\"\n", 1, {1}}, {"none", 2, {0, 5}}, {"one", 0, {0}}};
  for (size_t length = 0; length < 20; length++) {
    const char *text = "{\"ids\":[\"\xc3\xa4\"],\"score\":\"dot\"}";
    size_t text_length = length == 0 ? strlen(text) : length - 1;
    const struct tensors_note notes[] = {
        {"reply", "x", 1}, {"request", length == 0 ? text : "aaaaaaaaaaaaaaaaaaaa", text_length}};
    const struct tensors_outline outline = {tensors, 4, notes, 2};
    struct buffer file;
    size_t bytes;
    buffer_init(&file, 0);
    ck_assert(tensors_write_header(&file, &outline, &bytes));
    ck_assert_uint_eq(bytes, 32);
    ck_assert_uint_eq(file.length % 8, 0);
    put_f32(&file, (const float[]){1, 2, 3, 4, 5, 6, 7, 8}, 8);
    struct received received;
    take(&file, 11, &received);
    ck_assert_uint_eq(received.tensor_count, 4);
    ck_assert_uint_eq(strlen(received.metadata), text_length);
    if (length == 0) ck_assert_str_eq(received.metadata, text);
    ck_assert_float_eq(received.numbers[0][5], 6);
    ck_assert_str_eq(received.names[1], "a \"name\"\n");
    ck_assert_float_eq(received.numbers[1][0], 7);
    ck_assert_float_eq(received.numbers[3][0], 8);
    release(&received);
    buffer_free(&file);
  }
}
END_TEST

START_TEST(test_written_to_the_byte) {
  static const struct tensor_outline tensors[] = {{"outputs", 2, {1, 2}}};
  const struct tensors_outline outline = {tensors, 1, NULL, 0};
  struct buffer file;
  buffer_init(&file, 0);
  buffer_puts(&file, "abc"); /* what was there stays */
  ck_assert(tensors_write_header(&file, &outline, NULL));
  const char *header = "{\"outputs\":{\"dtype\":\"F32\",\"shape\":[1,2],\"data_offsets\":[0,8]}}";
  ck_assert(memcmp(file.data, "abc\x40\0\0\0\0\0\0\0", 11) == 0);
  ck_assert(memcmp(file.data + 11, header, strlen(header)) == 0);
  ck_assert_uint_eq(file.length, 11 + 64);
  for (size_t i = 11 + strlen(header); i < file.length; i++)
    ck_assert_int_eq(file.data[i], ' ');
  buffer_free(&file);
}
END_TEST

START_TEST(test_not_written) {
  static const struct tensor_outline huge[] = {{"a", 2, {SIZE_MAX / 4, 2}}};
  static const struct tensor_outline two[] = {{"a", 1, {SIZE_MAX / 4}}, {"b", 1, {1}}};
  static const struct tensor_outline small[] = {{"a", 1, {1}}};
  struct buffer file;
  buffer_init(&file, 0);
  ck_assert(!tensors_write_header(&file, &(struct tensors_outline){huge, 1, NULL, 0}, NULL));
  buffer_clear(&file);
  ck_assert(!tensors_write_header(&file, &(struct tensors_outline){two, 2, NULL, 0}, NULL));
  buffer_free(&file);
  buffer_init(&file, 40);
  ck_assert(!tensors_write_header(&file, &(struct tensors_outline){small, 1, NULL, 0}, NULL));
  buffer_free(&file);
  char *text = malloc(TENSORS_HEADER_MAX);
  memset(text, 'x', TENSORS_HEADER_MAX);
  const struct tensors_note note = {"reply", text, TENSORS_HEADER_MAX};
  buffer_init(&file, 0);
  ck_assert(!tensors_write_header(&file, &(struct tensors_outline){small, 1, &note, 1}, NULL));
  buffer_free(&file);
  free(text);
}
END_TEST

UNIT_MAIN("safetensors", test_one, test_order_and_empty, test_nothing, test_passed_over,
          test_all_halves, test_random_files, test_not_finite, test_edge_of_doubles,
          test_other_dtypes, test_malformed_headers, test_lengths, test_damaged, test_many_tensors,
          test_written, test_written_to_the_byte, test_not_written)
