/* What is JSON and what is not, and how a fault is described. The verdicts are
 * written out here; tests/fuzz/fuzz_body.c has jansson for a second opinion. */
#include "codec/body.h"
#include "codec/json_string.h"
#include "codec/scan.h"
#include "unit.h"

/* scan_check() on a copy with nothing behind it, so that a sanitizer sees a
 * look past the end. */
static bool check(const char *text, size_t length, struct problem *problem) {
  char *copy = malloc(length ? length : 1);
  if (!copy) ck_abort_msg("out of memory");
  memcpy(copy, text, length);
  bool valid = scan_check(copy, length, problem);
  free(copy);
  return valid;
}

/* A reader has to come to the same verdict, whatever else it thinks of it. */
static bool body_calls_it_json(const char *text, size_t length) {
  struct attend_body body;
  struct problem problem;
  if (body_parse_attend(ATTEND_AD_HOC, text, length, &body, &problem)) {
    attend_body_free(&body);
    return true;
  }
  if (problem.code == PROBLEM_INTERNAL) ck_abort_msg("internal: %s", problem.detail);
  return problem.code != PROBLEM_INVALID_JSON;
}

static void judge(const char *text, size_t length, bool valid) {
  struct problem problem;
  if (check(text, length, &problem) != valid)
    ck_abort_msg("%.200s: %s", text, valid ? problem.detail : "is taken");
  if (!valid && problem.code != PROBLEM_INVALID_JSON) ck_abort_msg("%.200s: another code", text);
  if (body_calls_it_json(text, length) != valid) ck_abort_msg("%.200s: the reader differs", text);
}

/* By itself, and as the value of a member, an element, a row and a number. */
static void judge_everywhere(const char *text, size_t length, bool valid) {
  static const char *const places[][2] = {{"", ""},
                                          {" \n\t\r", " \n\t\r"},
                                          {"{\"x\":", "}"},
                                          {"{\"queries\":", "}"},
                                          {"{\"queries\":[", "]}"},
                                          {"{\"queries\":[[1,", "]]}"},
                                          {"{\"queries\":[[1],[", ",3]]}"},
                                          {"{\"score\":", "}"},
                                          {"{\"score\":{\"type\":\"gaussian\",\"sigma\":", "}}"},
                                          {"{\"score\":{\"type\":", "}}"},
                                          {"{\"score\":{\"w\":", ",\"type\":\"bilinear\"}}"},
                                          {"{\"weights\":", "}"},
                                          {"{\"weights\":{\"top\":", "}}"},
                                          {"[[[[", "]]]]"}};
  for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
    size_t before = strlen(places[i][0]), behind = strlen(places[i][1]);
    char *whole = malloc(before + length + behind + 1);
    if (!whole) ck_abort_msg("out of memory");
    memcpy(whole, places[i][0], before);
    memcpy(whole + before, text, length);
    memcpy(whole + before + length, places[i][1], behind + 1);
    judge(whole, before + length + behind, valid);
    free(whole);
  }
}

START_TEST(test_valid) {
  static const char *const texts[] = {"0",
                                      "-0",
                                      "1",
                                      "-1",
                                      "10",
                                      "1.0",
                                      "0.1",
                                      "1e1",
                                      "1E1",
                                      "1e+1",
                                      "1e-1",
                                      "1.5e300",
                                      "1e0009",
                                      "0e0",
                                      "0.0e-0",
                                      "1e99999",
                                      "-1e-99999",
                                      "123456789012345678901234567890",
                                      "\"\"",
                                      "\"a\"",
                                      "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"",
                                      "\"\\u0000\"",
                                      "\"\\u00e4\\u20AC\\uffff\"",
                                      "\"\\uD83D\\uDE00\"",
                                      "\"\\udbff\\udfff\"",
                                      "\"\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80\"",
                                      "\"\xef\xbb\xbf\"",
                                      "\"\x7f\"",
                                      "\"\xf4\x8f\xbf\xbf\"",
                                      "\"\xee\x80\x80\"",
                                      "\"// no /* comment\"",
                                      "\"[1,2\"",
                                      "true",
                                      "false",
                                      "null",
                                      "[]",
                                      "[ ]",
                                      "[\n]",
                                      "{}",
                                      "{ }",
                                      "[[]]",
                                      "[{}]",
                                      "[1]",
                                      "[1,2]",
                                      "[ 1 , 2 ]",
                                      "[null]",
                                      "[\"\"]",
                                      "{\"\":0}",
                                      "{\"a\":1,\"b\":2}",
                                      "{ \"a\" : [ 1 , { } ] }",
                                      "{\"a\":{\"a\":{\"a\":1}},\"b\":{\"a\":1}}",
                                      "{\"a\":1,\"A\":2}",
                                      "{\"a\":1,\"a \":2,\"\":3,\" \":4}",
                                      "{\"\\u0000\":1,\"\\u0000\\u0000\":2}",
                                      "[1,[2,[3,[4]]],5]",
                                      "{\"\\ud83d\\ude00\":1,\"\\ud83d\\ude01\":2}",
                                      "[true,false,null]",
                                      "[[1,2],[3,4]]",
                                      "{\"type\":\"dot\"}",
                                      "[\"\\\\\",\"\\\"\"]"};
  for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
    judge_everywhere(texts[i], strlen(texts[i]), true);
}
END_TEST

START_TEST(test_invalid) {
  static const char *const texts[] = {
      /* numbers */
      "01", "-01", "00", "-", "+1", ".5", "-.5", "1.", "1.e1", "1e", "1e+", "1E-", "0x10", "1_000",
      "1,5e", "NaN", "-NaN", "Infinity", "-Infinity", "inf", "1 000", "1.2.3", "1e1.5", "--1", "0-",
      "1a", "1\xd9\xa1", "012", "1.5f", "1e1e1", "- 1",
      /* words */
      "True", "FALSE", "nul", "nulll", "tru", "truefalse", "t", "f", "n", "none", "undefined",
      /* strings */
      "\"", "\"a", "\"\\\"", "'a'", "\"\\x41\"", "\"\\a\"", "\"\\0\"", "\"\\u\"", "\"\\u12\"",
      "\"\\u12g4\"", "\"\\U0041\"", "\"\\u+041\"", "\"\\ud800\"", "\"\\udc00\"", "\"\\ud800a\"",
      "\"\\ud800\\n\"", "\"\\ud800\\ud800\"", "\"\\udc00\\ud800\"", "\"\\ud800\\u0041\"",
      "\"\\ud83d\\ude0\"", "\"\\ud83d\\\"", "\"a\nb\"", "\"a\tb\"", "\"a\rb\"", "\"\x1f\"",
      "\"\x01\"", "\"\x80\"", "\"\xc0\x80\"", "\"\xc1\xbf\"", "\"\xe0\x80\x80\"",
      "\"\xe0\x9f\xbf\"", "\"\xed\xa0\x80\"", "\"\xed\xbf\xbf\"", "\"\xf0\x80\x80\x80\"",
      "\"\xf4\x90\x80\x80\"", "\"\xf5\x80\x80\x80\"", "\"\xff\"", "\"\xfe\"", "\"\xc3\"",
      "\"\xe2\x82\"", "\"\xf0\x9f\x98\"", "\"\xc3(\"", "\"\\", "\"\\\xc3\xa4\"", "\"a\"b",
      "\"a\" \"b\"",
      /* arrays */
      "[", "]", "[1", "[1,", "[,", "[,1]", "[1,]", "[1,,2]", "[1 2]", "[1;2]", "[1}", "[(1)]",
      "[\"a\"", "[1]]", "[[1]", "[1:2]", "[1,\n", "[*]", "[\"a\",", "[}",
      /* objects */
      "{", "}", "{\"a\"", "{\"a\":", "{\"a\":1", "{\"a\":1,", "{\"a\":1,}", "{,}", "{\"a\"}",
      "{\"a\" 1}", "{\"a\",1}", "{a:1}", "{'a':1}", "{1:1}", "{null:1}", "{\"a\"::1}",
      "{\"a\":1 \"b\":2}", "{\"a\":1;\"b\":2}", "{\"a\":1,,\"b\":2}", "{\"a\":1]", "{\"a\":}",
      "{:1}", "{[]:1}", "{\"a\":1}}", "{{\"a\":1}}", "{\"a\":1}x", "{\"a\":1},", "{\"a\\ud800\":1}",
      "{\"\xff\":1}", "{\"a\n\":1}",
      /* names twice */
      "{\"a\":1,\"a\":1}", "{\"a\":1,\"b\":2,\"a\":3}", "{\"\":1,\"\":1}",
      "{\"a\":1,\"\\u0061\":1}", "{\"\\u00e4\":1,\"\xc3\xa4\":1}",
      "{\"\\ud83d\\ude00\":1,\"\xf0\x9f\x98\x80\":1}", "{\"/\":1,\"\\/\":1}",
      "{\"x\":{\"a\":1,\"a\":1}}", "[[{\"a\":{\"b\":1,\"b\":1}}]]", "{\"\\u0000\":1,\"\\u0000\":2}",
      "{\"b\":{\"a\":1},\"a\":1,\"b\":1}",
      /* others */
      "", " ", "\n", "\xef\xbb\xbf",
      "\xef\xbb\xbf"
      "1",
      "\xef\xbb\xbf"
      "{}",
      "/**/1", "1/**/", "//\n1", "1 //", "#", "1;",
      "\x0b"
      "1",
      "1\x0c",
      "\xc2\xa0"
      "1",
      "1\xc2\xa0", "1 1", "[1] [2]", "\\u0031",
      "\xff\xfe"
      "1",
      "@", "<", "&", "\x1b"};
  for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
    const char *text = texts[i];
    /* Some are a fault by themselves and not in every place, so by themselves;
     * the others everywhere. */
    judge(text, strlen(text), false);
  }
  static const char *const everywhere[] = {"01",
                                           "-",
                                           "+1",
                                           ".5",
                                           "1.",
                                           "1e",
                                           "0x10",
                                           "NaN",
                                           "-Infinity",
                                           "nul",
                                           "True",
                                           "'a'",
                                           "\"\\x41\"",
                                           "\"\\ud800\"",
                                           "\"\\ud800\\u0041\"",
                                           "\"a\nb\"",
                                           "\"\xff\"",
                                           "\"\xed\xa0\x80\"",
                                           "[1 2]",
                                           "[1}",
                                           "[(1)]",
                                           "{a:1}",
                                           "{1:1}",
                                           "{\"a\" 1}",
                                           "{\"a\":1,\"a\":1}",
                                           "{\"a\":1,\"\\u0061\":1}",
                                           "{\"x\":{\"a\":1,\"a\":1}}",
                                           "{\"a\":}",
                                           "{\"a\":1 \"b\":2}",
                                           "1;",
                                           "\xc2\xa0"
                                           "1",
                                           "[*]",
                                           "[1,\"\x1f\"]",
                                           "\xef\xbb\xbf"
                                           "1",
                                           "1_0",
                                           "\x0b"
                                           "1"};
  for (size_t i = 0; i < sizeof everywhere / sizeof everywhere[0]; i++)
    judge_everywhere(everywhere[i], strlen(everywhere[i]), false);
}
END_TEST

START_TEST(test_nul_bytes) {
  static const struct {
    const char *text;
    size_t length;
  } cases[] = {{"\0", 1},
               {"1\0", 2},
               {"\0001", 2},
               {"\"\0\"", 3},
               {"\"a\0b\"", 5},
               {"[1,\0002]", 6},
               {"{\"\0\":1}", 7},
               {"tr\0e", 4},
               {"1\0002", 3},
               {"{}\0", 3},
               {"{\"timeout_ms\":1\0}", 18},
               {"{\"weights\":\"none\"\0}", 20},
               {"{\"weights\":{\"top\":1\0}}", 22}};
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
    judge(cases[i].text, cases[i].length, false);
}
END_TEST

/* Where a fault of meaning comes first, a fault of syntax behind it counts. */
START_TEST(test_syntax_wins) {
  static const char *const texts[] = {
      "{\"queries\":[[\"a\"]],}",
      "{\"queries\":[[1e39,]]}",
      "{\"queries\":[[1],[2,3]],\"a\"}",
      "{\"queries\":[[1]],\"score\":{\"type\":\"dot\",\"type\":\"dot\"}}",
      "{\"queries\":[[1]],\"weights\":{\"top\":1,\"t\\u006fp\":1}}",
      "{\"nonsense\":[1,2}",
      "[1",
      "{\"weights\":7,\"x\":01}",
      "{\"queries\":[],\"queries\":[]}",
      "{\"score\":\"x\",\"y\":{\"a\":1,\"a\":2}}",
      "{\"queries\":[[1]],\"keys\":[[1]],\"values\":[[1]]} x"};
  for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
    judge(texts[i], strlen(texts[i]), false);
}
END_TEST

/* ---- How faults are described ---- */

static void check_fault(const char *text, const char *pointer, const char *detail) {
  struct problem problem;
  ck_assert(!check(text, strlen(text), &problem));
  ck_assert_int_eq(problem.code, PROBLEM_INVALID_JSON);
  ck_assert_str_eq(problem.pointer, pointer);
  ck_assert_str_eq(problem.detail, detail);
}

START_TEST(test_descriptions) {
  check_fault("{\"a\":[1,2,x]}", "/a/2", "line 1, column 11: expected a value, got 'x'");
  check_fault("{\n  \"a\": [\n    1 2\n", "/a/0", "line 3, column 7: expected ',' or ']', got '2'");
  check_fault("{\"a\":1 \"b\":2}", "/a", "line 1, column 8: expected ',' or '}', got '\"'");
  check_fault("[1", "/0", "line 1, column 3: expected ',' or ']', got the end of the text");
  check_fault("[1,", "/1", "line 1, column 4: expected a value, got the end of the text");
  check_fault("[1,]", "/1", "line 1, column 4: expected a value, got ']'");
  check_fault("{\"a\":{", "/a",
              "line 1, column 7: expected the name of a member, got the end of "
              "the text");
  check_fault("{\"a\" 1}", "/a", "line 1, column 6: expected ':', got '1'");
  check_fault("[1]\n]", "", "line 2, column 1: expected the end of the text, got ']'");
  check_fault("[01]", "/0", "line 1, column 3: a number has no leading zeros");
  check_fault("[1.]", "/0", "line 1, column 4: expected a digit, got ']'");
  check_fault("[NaN]", "/0", "line 1, column 2: expected a value (NaN and Infinity are not JSON)");
  check_fault("[tru\x01]", "/0",
              "line 1, column 5: expected true, false or null, got the byte 0x01");
  check_fault("\xef\xbb\xbf{}", "", "line 1, column 1: expected a value, got a byte order mark");
  check_fault("[\"\\ud800\"]", "/0", "line 1, column 3: half of a surrogate pair stands alone");
  check_fault("[\"a\tb\"]", "/0",
              "line 1, column 4: a control character in a string has to be escaped");
  check_fault("[\"\xff\"]", "/0", "line 1, column 3: a string is not UTF-8");
  check_fault("\"abc", "",
              "line 1, column 5: expected the '\"' that closes a string, got the end of "
              "the text");
  /* columns count characters */
  check_fault("[\"\xc3\xa4\xe2\x82\xac\", ?]", "/1", "line 1, column 8: expected a value, got '?'");
  check_fault("{\"a\":{\"b\":[0,{\"c/d\":1,\"c\\/d\":2}]}}", "/a/b/1/c~1d",
              "line 1, column 23: the object has a member of that name already");
}
END_TEST

START_TEST(test_empty_body) {
  struct attend_body body;
  struct problem problem;
  ck_assert(!body_parse_attend(ATTEND_STORED, "", 0, &body, &problem));
  ck_assert_int_eq(problem.code, PROBLEM_INVALID_JSON);
  ck_assert_str_eq(problem.pointer, "");
  ck_assert_str_eq(problem.detail, "the body is empty; expected a JSON object");
  static const char *const others[] = {"1", "\"a\"", "[]", "null", "true", "[[1]]", " 1 "};
  for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
    ck_assert(!body_parse_attend(ATTEND_STORED, others[i], strlen(others[i]), &body, &problem));
    ck_assert_int_eq(problem.code, PROBLEM_INVALID_TYPE);
    ck_assert_str_eq(problem.pointer, "");
    ck_assert(strstr(problem.detail, "expected an object, got "));
  }
}
END_TEST

/* ---- Names ---- */

START_TEST(test_escaped_names) {
  struct memory_body body;
  struct problem problem;
  const char *text = "{\"\\u006beys\":[[1]],\"v\\u0061lues\":[[2]]}";
  ck_assert(body_parse_memory(text, strlen(text), &body, &problem));
  ck_assert(body.keys.data[0] == 1 && body.values.data[0] == 2);
  memory_body_free(&body);
  text = "{\"\\u006beys\":[[1]],\"values\":[[2]],\"keys\":[[1]]}";
  ck_assert(!body_parse_memory(text, strlen(text), &body, &problem));
  ck_assert_int_eq(problem.code, PROBLEM_INVALID_JSON);
  ck_assert_str_eq(problem.pointer, "/keys");
}
END_TEST

/* Many names, all different and then one twice, must not take quadratic time;
 * and there is a limit. */
START_TEST(test_many_names) {
  size_t room = (SCAN_NAMES_MAX + 2) * 16, count = 300000;
  char *text = malloc(room);
  ck_assert_ptr_nonnull(text);
  for (int twice = 0; twice < 2; twice++) {
    char *at = stpcpy(text, "{");
    for (size_t i = 0; i < count; i++)
      at += sprintf(at, "\"%zu\":0,", i);
    strcpy(at - 1, twice ? ",\"\\u0037\":0}" : "}");
    judge(text, strlen(text), !twice);
  }
  char *at = stpcpy(text, "[{");
  for (size_t i = 0; i <= SCAN_NAMES_MAX; i++)
    at += sprintf(at, "\"%zx\":0,", i);
  strcpy(at - 1, "}]");
  struct problem problem;
  ck_assert(!check(text, strlen(text), &problem));
  ck_assert(strstr(problem.detail, "too many members"));
  free(text);
}
END_TEST

START_TEST(test_long_strings) {
  size_t length = 3000000;
  char *text = malloc(length + 64);
  ck_assert_ptr_nonnull(text);
  /* as a name: unknown, and its pointer is cut */
  memcpy(text, "{\"", 2);
  memset(text + 2, 'n', length);
  strcpy(text + 2 + length, "\":[1]}");
  judge(text, strlen(text), true);
  struct attend_body body;
  struct problem problem;
  ck_assert(!body_parse_attend(ATTEND_STORED, text, strlen(text), &body, &problem));
  ck_assert_int_eq(problem.code, PROBLEM_UNKNOWN_MEMBER);
  ck_assert_uint_lt(strlen(problem.pointer), PROBLEM_POINTER_MAX);
  ck_assert(strncmp(problem.pointer, "/nnnn", 5) == 0);
  /* as a value */
  char *at = stpcpy(text, "{\"score\":\"");
  for (size_t i = 0; i < length / 6; i++)
    at = stpcpy(at, "\\u20ac");
  strcpy(at, "\"}");
  ck_assert(!body_parse_attend(ATTEND_STORED, text, strlen(text), &body, &problem));
  ck_assert_int_eq(problem.code, PROBLEM_UNKNOWN_SCORE);
  free(text);
}
END_TEST

/* ---- Depth ---- */

static char *nested(size_t depth, bool objects) {
  char *text = malloc(depth * 7 + 8), *at = text;
  if (!text) ck_abort_msg("out of memory");
  for (size_t i = 0; i < depth; i++)
    at = stpcpy(at, objects && i + 1 < depth ? "{\"a\":" : objects ? "{" : "[");
  for (size_t i = 0; i < depth; i++)
    *at++ = objects ? '}' : ']';
  *at = '\0';
  return text;
}

START_TEST(test_depth) {
  for (int objects = 0; objects < 2; objects++) {
    char *text = nested(SCAN_DEPTH_MAX, objects);
    judge(text, strlen(text), true);
    free(text);
    static const size_t depths[] = {SCAN_DEPTH_MAX + 1, 10000, 1000000};
    for (size_t i = 0; i < sizeof depths / sizeof depths[0]; i++) {
      text = nested(depths[i], objects);
      judge(text, strlen(text), false);
      struct problem problem;
      ck_assert(!check(text, strlen(text), &problem));
      ck_assert(strstr(problem.detail, "nested deeper than 64"));
      free(text);
    }
  }
  /* opening brackets alone, where tensors are read */
  char *text = malloc(200064);
  ck_assert_ptr_nonnull(text);
  char *at = stpcpy(text, "{\"score\":{\"w\":");
  memset(at, '[', 200000);
  at[200000] = '\0';
  judge(text, strlen(text), false);
  free(text);
}
END_TEST

/* ---- Strings ---- */

START_TEST(test_string_room) {
  const char *literal = "\"ab\\u20acc\"x", *at = literal, *end = literal + strlen(literal);
  char bytes[8] = "-------";
  size_t length;
  ck_assert_int_eq(json_string_read(&at, end, bytes, 4, &length), JSON_STRING_OK);
  ck_assert_uint_eq(length, 6);
  ck_assert_str_eq(bytes, "ab\xe2\x82---");
  ck_assert_str_eq(at, "x");
  at = literal;
  ck_assert_int_eq(json_string_read(&at, end, bytes, sizeof bytes, NULL), JSON_STRING_OK);
  ck_assert(memcmp(bytes,
                   "ab\xe2\x82\xac"
                   "c-",
                   8) == 0);
}
END_TEST

/* Every code point, escaped and not, is read as its UTF-8. */
START_TEST(test_every_code_point) {
  for (uint32_t code = 1; code < 0x110000; code += code < 0x3000 ? 1 : 61) {
    if (code >= 0xd800 && code < 0xe000) continue;
    char escaped[32], plain[8] = "";
    if (code < 0x10000)
      sprintf(escaped, "\"\\u%04x\"", code);
    else
      sprintf(escaped, "\"\\u%04X\\u%04X\"", 0xd800 + ((code - 0x10000) >> 10),
              0xdc00 + ((code - 0x10000) & 0x3ff));
    size_t count = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (size_t i = count; i-- > 1;)
      plain[i] = (char)(0x80 | (code >> 6 * (count - 1 - i) & 0x3f));
    plain[0] = (char)(count == 1 ? code : (0xf00u >> count & 0xf0) | code >> 6 * (count - 1));
    char bytes[8] = "";
    size_t length;
    const char *at = escaped;
    if (json_string_read(&at, escaped + strlen(escaped), bytes, 8, &length) != JSON_STRING_OK ||
        length != count || memcmp(bytes, plain, count) != 0)
      ck_abort_msg("U+%04X escaped", code);
    if (code < 0x20 || code == '"' || code == '\\') continue;
    char literal[16];
    sprintf(literal, "\"%s\"", plain);
    at = literal;
    if (json_string_read(&at, literal + strlen(literal), bytes, 8, &length) != JSON_STRING_OK ||
        length != count || memcmp(bytes, plain, count) != 0)
      ck_abort_msg("U+%04X plain", code);
  }
}
END_TEST

UNIT_MAIN("scan", test_valid, test_invalid, test_nul_bytes, test_syntax_wins, test_descriptions,
          test_empty_body, test_escaped_names, test_many_names, test_long_strings, test_depth,
          test_string_room, test_every_code_point)
