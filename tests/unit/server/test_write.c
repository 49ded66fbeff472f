/* The writer: commas, escapes, numbers, and what happens where the buffer
 * ends. */
#include <math.h>

#include "codec/number.h"
#include "codec/scan.h"
#include "codec/write.h"
#include "unit.h"

static void check_json(struct buffer *out, const char *expected) {
  struct problem problem;
  ck_assert_str_eq(buffer_text(out), expected);
  ck_assert_msg(scan_check(out->data, out->length, &problem), "%s", problem.detail);
  buffer_clear(out);
}

START_TEST(test_commas) {
  struct buffer out;
  struct json_writer writer;
  buffer_init(&out, 0);
  json_begin(&writer, &out);
  json_open_object(&writer);
  json_name(&writer, "a");
  json_int64(&writer, 1);
  json_name(&writer, "b");
  json_open_array(&writer);
  json_open_array(&writer);
  json_close_array(&writer);
  json_open_object(&writer);
  json_close_object(&writer);
  json_text(&writer, "x");
  json_raw(&writer, "true");
  json_raw(&writer, "false");
  json_raw(&writer, "{\"r\":[]}");
  json_float(&writer, 0.5f);
  json_double(&writer, 0.5);
  json_close_array(&writer);
  json_name(&writer, "c");
  json_open_object(&writer);
  json_name(&writer, "d");
  json_floats(&writer, NULL, 0);
  json_name(&writer, "e");
  json_floats(&writer, (const float[]){1, 2}, 2);
  json_close_object(&writer);
  json_name(&writer, "f");
  json_text(&writer, "");
  json_close_object(&writer);
  check_json(&out, "{\"a\":1,\"b\":[[],{},\"x\",true,false,{\"r\":[]},0.5,0.5],\"c\":{\"d\":[],"
                   "\"e\":[1,2]},\"f\":\"\"}");
  buffer_free(&out);
}
END_TEST

START_TEST(test_strings) {
  struct buffer out;
  struct json_writer writer;
  buffer_init(&out, 0);
  json_begin(&writer, &out);
  json_open_array(&writer);
  json_chars(&writer, "a\0b", 3);
  json_text(&writer, "\"\\/\n\r\t\b\f\x01");
  json_text(&writer, "\xc3\xa4\xf0\x9f\x98\x80");
  json_text(&writer, "\xff|\xed\xa0\x80");
  json_close_array(&writer);
  check_json(&out,
             "[\"a\\u0000b\",\"\\\"\\\\/\\n\\r\\t\\b\\f\\u0001\",\"\xc3\xa4\xf0\x9f\x98\x80\","
             "\"\xef\xbf\xbd|\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"]");
  json_begin(&writer, &out);
  json_open_object(&writer);
  json_name(&writer, "a\"b");
  json_int64(&writer, 0);
  json_close_object(&writer);
  check_json(&out, "{\"a\\\"b\":0}");
  buffer_free(&out);
}
END_TEST

/* What jansson writes, between what the writer does. */
START_TEST(test_members) {
  struct buffer out;
  struct json_writer writer;
  buffer_init(&out, 0);
  json_begin(&writer, &out);
  json_open_object(&writer);
  json_members(&writer, "{s:s,s:{s:b,s:n},s:[i,I]}", "z", "\"\xc3\xa4\n", "a", "y", true, "b", "c",
               -1, (long long)INT64_MAX);
  json_name(&writer, "n");
  json_float(&writer, 0.1f);
  json_members(&writer, "{s:b}", "d", false);
  json_members(&writer, "{s:[s,{}]}", "e", "");
  json_close_object(&writer);
  check_json(&out, "{\"z\":\"\\\"\xc3\xa4\\n\",\"a\":{\"y\":true,\"b\":null},\"c\":[-1,"
                   "9223372036854775807],\"n\":0.1,\"d\":false,\"e\":[\"\",{}]}");
  buffer_free(&out);
}
END_TEST

START_TEST(test_integers) {
  struct buffer out;
  struct json_writer writer;
  buffer_init(&out, 0);
  json_begin(&writer, &out);
  json_open_array(&writer);
  json_int64(&writer, 0);
  json_int64(&writer, -1);
  json_int64(&writer, INT64_MAX);
  json_int64(&writer, INT64_MIN);
  json_close_array(&writer);
  check_json(&out, "[0,-1,9223372036854775807,-9223372036854775808]");
  buffer_free(&out);
}
END_TEST

START_TEST(test_doubles) {
  static const struct {
    double value;
    const char *text;
  } cases[] = {{0, "0"},
               {-0.0, "-0"},
               {1, "1"},
               {0.1, "0.1"},
               {-2.5, "-2.5"},
               {100000, "100000"},
               {1e15, "1e15"},
               {1e100, "1e100"},
               {1e-7, "1e-7"},
               {1.5e-300, "1.5e-300"},
               {1e-5, "1e-5"},
               {0.0001, "0.0001"},
               {1.0 / 3, "0.3333333333333333"},
               {0.1 + 0.2, "0.30000000000000004"},
               {9007199254740993.0, "9007199254740992"},
               {1.7976931348623157e308, "1.7976931348623157e308"},
               {5e-324, "4.94065645841247e-324"},
               {NAN, "null"},
               {INFINITY, "null"},
               {-INFINITY, "null"}};
  struct buffer out;
  struct json_writer writer;
  buffer_init(&out, 0);
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    json_begin(&writer, &out);
    json_double(&writer, cases[i].value);
    if (isfinite(cases[i].value)) ck_assert(strtod(buffer_text(&out), NULL) == cases[i].value);
    check_json(&out, cases[i].text);
  }
  buffer_free(&out);
}
END_TEST

START_TEST(test_floats_that_json_lacks) {
  struct buffer out;
  struct json_writer writer;
  buffer_init(&out, 0);
  json_begin(&writer, &out);
  json_open_array(&writer);
  json_float(&writer, NAN);
  json_floats(&writer, (const float[]){1, INFINITY, -NAN, -INFINITY, 2}, 5);
  json_close_array(&writer);
  check_json(&out, "[null,[1,null,null,null,2]]");
  buffer_free(&out);
}
END_TEST

/* Number by number what json_float() writes, whatever the count. */
START_TEST(test_matrices) {
  enum { MOST = 400 };
  float values[MOST];
  uint64_t state = 3;
  for (size_t i = 0; i < MOST; i++) {
    uint32_t bits = (uint32_t)next_random(&state) % 0x7f800000u | (uint32_t)(i % 2) << 31;
    memcpy(&values[i], &bits, sizeof bits);
  }
  struct buffer out, expected;
  struct json_writer writer;
  buffer_init(&out, 0);
  buffer_init(&expected, 0);
  static const size_t shapes[][2] = {{0, 5},   {1, 1},   {1, 63}, {1, 64}, {1, 65},
                                     {1, 128}, {1, 129}, {7, 9},  {5, 0},  {4, 100}};
  for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
    size_t rows = shapes[i][0], cols = shapes[i][1];
    buffer_clear(&expected);
    buffer_puts(&expected, "[");
    for (size_t row = 0; row < rows; row++) {
      buffer_puts(&expected, row ? ",[" : "[");
      for (size_t col = 0; col < cols; col++) {
        char text[NUMBER_TEXT_MAX];
        if (col) buffer_putc(&expected, ',');
        buffer_append(&expected, text, number_print(values[row * cols + col], text));
      }
      buffer_puts(&expected, "]");
    }
    buffer_puts(&expected, "]");
    json_begin(&writer, &out);
    json_matrix(&writer, values, rows, cols);
    check_json(&out, buffer_text(&expected));
  }
  buffer_free(&out);
  buffer_free(&expected);
}
END_TEST

/* A limit that the text just fits is enough, one byte less is not. */
START_TEST(test_limits) {
  float values[300];
  for (size_t i = 0; i < 300; i++)
    values[i] = (float)i / 7;
  struct buffer whole;
  struct json_writer writer;
  buffer_init(&whole, 0);
  json_begin(&writer, &whole);
  json_matrix(&writer, values, 3, 100);
  for (size_t limit = 1; limit <= whole.length; limit++) {
    struct buffer out;
    buffer_init(&out, limit);
    json_begin(&writer, &out);
    json_matrix(&writer, values, 3, 100);
    ck_assert_int_eq(out.status, limit < whole.length ? BUFFER_FULL : BUFFER_OK);
    if (limit == whole.length) {
      ck_assert_uint_eq(out.length, whole.length);
      ck_assert(memcmp(out.data, whole.data, whole.length) == 0);
    }
    buffer_free(&out);
  }
  buffer_free(&whole);
}
END_TEST

START_TEST(test_limits_of_members) {
  static const char text[] = "{\"a\":\"bcd\"}";
  for (size_t limit = 1; limit < sizeof text; limit++) {
    struct buffer out;
    struct json_writer writer;
    buffer_init(&out, limit);
    json_begin(&writer, &out);
    json_open_object(&writer);
    json_members(&writer, "{s:s}", "a", "bcd");
    json_close_object(&writer);
    ck_assert_int_eq(out.status, limit < sizeof text - 1 ? BUFFER_FULL : BUFFER_OK);
    if (out.status == BUFFER_OK) ck_assert_str_eq(buffer_text(&out), text);
    buffer_free(&out);
  }
}
END_TEST

UNIT_MAIN("write", test_commas, test_strings, test_members, test_integers, test_doubles,
          test_floats_that_json_lacks, test_matrices, test_limits, test_limits_of_members)
