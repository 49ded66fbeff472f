/* Accept: which of JSON and tensors it prefers. The cases are worked out by
 * hand from RFC 9110, 12.4.2 and 12.5.1. */
#include "http/accept.h"

#include "unit.h"

static const struct http_media *const forms[] = {&http_json, &http_tensors, NULL};

#define T "application/x-safetensors"
#define J "application/json"

static void expect_json(const char *accept) {
  ck_assert_msg(accept_choose(accept, forms) == &http_json, "tensors for \"%s\"", accept);
}

static void expect_tensors(const char *accept) {
  ck_assert_msg(accept_choose(accept, forms) == &http_tensors, "JSON for \"%s\"", accept);
}

START_TEST(test_one_type) {
  expect_tensors(T);
  expect_tensors("  " T "\t");
  expect_tensors("Application/X-SafeTensors");
  expect_tensors(T ";q=0.001");
  expect_tensors(T ";version=1");
  expect_tensors(T " ; q=1");
  expect_json(J);
  expect_json("");
  expect_json(" ");
  expect_json("*/*");
  expect_json("application/*");
  expect_json(T ";q=0");
  expect_json(T ";q=0.000");
}
END_TEST

START_TEST(test_weights) {
  expect_tensors(T ", " J ";q=0.9");
  expect_tensors(J ";q=0.9," T);
  expect_tensors(T ";q=0.5, " J ";q=0.499");
  expect_tensors(J ";q=0, */*");
  expect_tensors("*/*;q=0.5, " J ";q=0.4");
  expect_tensors("application/*, " J ";q=0.2");
  expect_json(T ";q=0.5, " J ";q=0.501");
  expect_json(T ";q=0.9, */*");
  expect_json(T ";q=0, application/*");
  expect_json(T ";q=0, */*;q=0.1");
  expect_json(T ";q=0, " J ";q=0");
}
END_TEST

START_TEST(test_equal_weights) {
  expect_json(T ", " J);
  expect_json(J ", " T);
  expect_json(J ";q=0.3, " T ";q=0.3");
  expect_tensors(T ", */*");
  expect_tensors("*/*, " T);
  expect_tensors(T ";q=0.8, */*;q=0.8");
  expect_tensors(T ", application/*");
  expect_json(J ", */*");
  expect_json("application/*, */*");
}
END_TEST

static const struct http_media *chosen_of_four(const char *accept) {
  static const struct http_media table = {.type = "text/csv"}, octets = {.type = "image/x-raw"};
  static const struct http_media *const four[] = {&table, &http_json, &octets, &http_tensors, NULL};
  const struct http_media *chosen = accept_choose(accept, four);
  return chosen;
}

/* Of a set of the caller's own: the first one is what no preference means. */
START_TEST(test_another_set) {
  ck_assert_str_eq(chosen_of_four("")->type, "text/csv");
  ck_assert_str_eq(chosen_of_four("*/*")->type, "text/csv");
  ck_assert_str_eq(chosen_of_four("audio/mp3")->type, "text/csv");
  ck_assert_str_eq(chosen_of_four("text/*, */*")->type, "text/csv");
  ck_assert_str_eq(chosen_of_four("image/*, */*;q=0.9")->type, "image/x-raw");
  ck_assert_str_eq(chosen_of_four("image/*, */*")->type, "image/x-raw");
  ck_assert_str_eq(chosen_of_four("application/*")->type, J);
  ck_assert_str_eq(chosen_of_four(T ", application/*")->type, T);
  ck_assert_str_eq(chosen_of_four(T ";q=0.5, image/x-raw;q=0.6, text/csv;q=0.4")->type,
                   "image/x-raw");
  ck_assert_str_eq(chosen_of_four("text/csv;q=0, */*;q=0.1")->type, J);
  static const struct http_media *const one[] = {&http_tensors, NULL};
  ck_assert_ptr_eq(accept_choose(J, one), &http_tensors);
}
END_TEST

/* The most specific range decides, not the heaviest. */
START_TEST(test_specificity) {
  expect_tensors("*/*;q=0.1, " T ";q=0.5, application/*;q=0.2");
  expect_json("*/*;q=1, " T ";q=0.5, application/*;q=0.6");
  expect_json(T ";q=0.2, " J ";q=0.3, */*;q=1");
}
END_TEST

START_TEST(test_others_count_for_nothing) {
  expect_json("text/html, application/xhtml+xml, application/xml;q=0.9, */*;q=0.8");
  expect_json("text/html");
  expect_json("text/*");
  expect_json("application/vnd.api+json");
  expect_json("application/x-safetensors2");
  expect_json("x-" T);
  expect_json("*/x-safetensors");
  expect_json("*");
  expect_tensors("text/html, " T ";q=0.1");
}
END_TEST

START_TEST(test_odd_texts) {
  const char *const not_weights[] = {"",   "2",   "1.1", "1.001",  "0.1234", "-0",
                                     "+1", ".5",  "0.x", "x",      "0,5",    "0.5.1",
                                     "10", "0x1", "1 1", "1.0000", "NaN",    "\"1\""};
  for (size_t i = 0; i < sizeof not_weights / sizeof not_weights[0]; i++) {
    char accept[100];
    snprintf(accept, sizeof accept, T ";q=%s", not_weights[i]);
    expect_json(accept);
  }
  expect_tensors(T ";q=1."); /* the digits behind the point may be none */
  expect_tensors(",,, " T " ,,");
  expect_json(",");
  expect_json(";");
  expect_json(";q=1");
  expect_json(";;;,;;;");
  expect_tensors(T ";");
  expect_tensors(T ";;q=1;");
  expect_tensors(T ";Q=0.5, " J ";Q=0.4");
  /* Nothing within quotes ends anything. */
  expect_json("text/plain;a=\", " T "\"");
  expect_json("text/plain;a=\"\\\", " T "\"");
  expect_json("text/plain;a=\"" T);
  expect_tensors("text/plain;a=\"\\\\\", " T);
  expect_tensors(T ";a=\";q=0\"");
  expect_json("\"\\");
}
END_TEST

UNIT_MAIN("accept", test_one_type, test_weights, test_equal_weights, test_specificity,
          test_another_set, test_others_count_for_nothing, test_odd_texts)
