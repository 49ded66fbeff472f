/* Content-Type and Content-Encoding: which bodies are taken. */
#include "http/content.h"

#include "unit.h"

static struct problem problem;
static const struct http_media *media;

static const struct http_media *const takes_json[] = {&http_json, NULL};
static const struct http_media *const takes_both[] = {&http_json, &http_tensors, NULL};

static void expect_taken(const char *type, const char *encoding) {
  ck_assert_msg(content_check(type, encoding, takes_json, &media, &problem), "\"%s\" \"%s\": %s",
                type, encoding, problem.detail);
}

static void expect_refused(const char *type, const char *encoding) {
  problem.code = PROBLEM_INTERNAL;
  ck_assert_msg(!content_check(type, encoding, takes_json, &media, &problem),
                "\"%s\" \"%s\" was taken", type, encoding);
  ck_assert_int_eq(problem.code, PROBLEM_UNSUPPORTED_MEDIA_TYPE);
  const char *came = *type ? type : encoding;
  ck_assert_msg(strstr(problem.detail, came), "the detail lacks %s: %s", came, problem.detail);
}

START_TEST(test_taken) {
  const char *const types[] = {"",
                               " ",
                               "application/json",
                               "Application/JSON",
                               " application/json\t",
                               "application/json;",
                               "application/json; charset=utf-8",
                               "application/json;charset=UTF-8",
                               "application/json ; charset = \"Utf-8\" ",
                               "application/json; profile=x; charset=utf-8; version=1",
                               "application/json; indent",
                               "application/json; mycharset=latin1",
                               "application/vnd.api+json",
                               "application/PROBLEM+JSON; charset=utf-8"};
  for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
    expect_taken(types[i], "");
}
END_TEST

START_TEST(test_refused) {
  const char *const types[] = {"text/plain",
                               "text/json",
                               "json",
                               ";",
                               "; charset=utf-8",
                               "application/jsonp",
                               "application/jso",
                               "application/json/x",
                               "application/json, application/json",
                               "application/+json",
                               "text/x+json",
                               "x+json",
                               "+json",
                               "application/octet-stream",
                               "application/x-www-form-urlencoded",
                               "multipart/form-data; boundary=application/json",
                               "application/json; charset=latin1",
                               "application/json; charset=",
                               "application/json; charset=\"utf-16\"",
                               "application/json; charset=utf-8; charset=utf-16",
                               "application/json;;charset=utf-7"};
  for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
    expect_refused(types[i], "");
}
END_TEST

START_TEST(test_the_form_tells_of_curl) {
  expect_refused("application/x-www-form-urlencoded; charset=utf-8", "");
  ck_assert_ptr_nonnull(strstr(problem.detail, "--json"));
  expect_refused("text/plain", "");
  ck_assert_ptr_null(strstr(problem.detail, "--json"));
}
END_TEST

START_TEST(test_encodings) {
  expect_taken("", "identity");
  expect_taken("application/json", " Identity ");
  expect_refused("", "gzip");
  expect_refused("", "deflate");
  expect_refused("", "identity, gzip");
  expect_refused("", "identit");
}
END_TEST

START_TEST(test_a_long_type_is_cut_in_the_detail) {
  char type[2000];
  memset(type, 'x', sizeof type - 1);
  type[sizeof type - 1] = '\0';
  ck_assert(!content_check(type, "", takes_json, &media, &problem));
  ck_assert_uint_lt(strlen(problem.detail), 300);
}
END_TEST

static bool check(const char *type, bool takes_tensors) {
  media = NULL;
  return content_check(type, "", takes_tensors ? takes_both : takes_json, &media, &problem);
}

START_TEST(test_tensors) {
  const char *const types[] = {"application/x-safetensors", " Application/X-Safetensors ",
                               "application/x-safetensors; version=1",
                               "application/x-safetensors;charset=binary"};
  for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
    ck_assert_msg(check(types[i], true), "%s: %s", types[i], problem.detail);
    ck_assert_ptr_eq(media, &http_tensors);
    expect_refused(types[i], "");
    ck_assert_ptr_null(strstr(problem.detail, "or application/x-safetensors"));
  }
  const char *const json[] = {"", "application/json", "application/x-safetensors+json"};
  for (size_t i = 0; i < sizeof json / sizeof json[0]; i++) {
    ck_assert(check(json[i], true));
    ck_assert_ptr_eq(media, &http_json);
  }
}
END_TEST

/* Another route's set: none of it is JSON, and the first one is what no type means. */
START_TEST(test_another_set) {
  static const struct http_media octets = {.type = "application/octet-stream"};
  static const struct http_media table = {.type = "text/csv", .suffix = "+csv", .utf8 = true};
  static const struct http_media *const set[] = {&octets, &table, NULL};
  ck_assert(content_check("", "", set, &media, &problem));
  ck_assert_ptr_eq(media, &octets);
  ck_assert(content_check("Application/Octet-Stream; charset=latin1", "", set, &media, &problem));
  ck_assert_ptr_eq(media, &octets);
  ck_assert(content_check("text/csv; charset=UTF-8", "", set, &media, &problem));
  ck_assert_ptr_eq(media, &table);
  ck_assert(content_check("application/x+csv", "", set, &media, &problem));
  ck_assert_ptr_eq(media, &table);
  const char *const types[] = {"application/json", "application/x-www-form-urlencoded",
                               "application/x+json", "text/csv; charset=latin1"};
  for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
    ck_assert(!content_check(types[i], "", set, &media, &problem));
    ck_assert_int_eq(problem.code, PROBLEM_UNSUPPORTED_MEDIA_TYPE);
    ck_assert_ptr_null(strstr(problem.detail, "curl"));
    if (i < 3)
      ck_assert_ptr_nonnull(
          strstr(problem.detail, "a body is application/octet-stream or text/csv, but"));
  }
}
END_TEST

START_TEST(test_both_types_are_named) {
  const char *const types[] = {"application/safetensors", "application/x-safetensorss",
                               "text/x-safetensors", "application/octet-stream"};
  for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
    ck_assert(!check(types[i], true));
    ck_assert_int_eq(problem.code, PROBLEM_UNSUPPORTED_MEDIA_TYPE);
    ck_assert_ptr_nonnull(strstr(problem.detail, "application/json or application/x-safetensors"));
  }
  ck_assert(!check("application/json; charset=latin1", true));
}
END_TEST

UNIT_MAIN("content", test_taken, test_refused, test_the_form_tells_of_curl, test_encodings,
          test_a_long_type_is_cut_in_the_detail, test_tensors, test_both_types_are_named,
          test_another_set)
