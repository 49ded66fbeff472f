/* Problems: the table's own consistency, cutting without breaking text, JSON
 * Pointers by the examples of RFC 6901, and the document as a parser sees it. */
#include "base/problem.h"

#include <ctype.h>
#include <jansson.h>

#include "base/utf8.h"
#include "unit.h"

START_TEST(test_table) {
  for (int code = 0; code < PROBLEM_COUNT; code++) {
    const struct problem_info *info = problem_info((enum problem_code)code);
    ck_assert_int_ge(info->status, 400);
    ck_assert_int_le(info->status, 599);
    ck_assert_uint_gt(strlen(info->title), 0);
    for (const char *c = info->code; *c; c++)
      ck_assert(islower((unsigned char)*c) || *c == '_');
    for (int other = 0; other < code; other++)
      ck_assert_str_ne(info->code, problem_info((enum problem_code)other)->code);
  }
  ck_assert_int_eq(problem_info(PROBLEM_OUT_OF_MEMORY)->status, 507);
}
END_TEST

START_TEST(test_set) {
  struct problem problem;
  ck_assert(!problem_set(&problem, PROBLEM_INVALID_TYPE, "/keys/1", "expected %s, got %d", "x", 3));
  ck_assert_int_eq(problem.code, PROBLEM_INVALID_TYPE);
  ck_assert_str_eq(problem.pointer, "/keys/1");
  ck_assert_str_eq(problem.detail, "expected x, got 3");
  /* From its own parts. */
  ck_assert(
      !problem_set(&problem, PROBLEM_INVALID_NUMBER, problem.pointer, "again: %s", problem.detail));
  ck_assert_str_eq(problem.pointer, "/keys/1");
  ck_assert_str_eq(problem.detail, "again: expected x, got 3");
  ck_assert(!problem_set(&problem, PROBLEM_INTERNAL, NULL, "%s", ""));
  ck_assert_str_eq(problem.pointer, "");
  ck_assert_str_eq(problem.detail, "");
}
END_TEST

START_TEST(test_detail_is_cut_between_characters) {
  /* A euro sign at every distance from the end. */
  for (int shift = 0; shift < 8; shift++) {
    char text[2 * PROBLEM_DETAIL_MAX] = "";
    size_t length = (size_t)(PROBLEM_DETAIL_MAX - 8 + shift);
    memset(text, 'a', length);
    strcpy(text + length, "\xE2\x82\xAC\xE2\x82\xAC");
    size_t whole = strlen(text);
    while (whole > PROBLEM_DETAIL_MAX - 1)
      whole -= whole > length ? 3 : 1;
    struct problem problem;
    problem_set(&problem, PROBLEM_INTERNAL, text, "%s", text);
    ck_assert_uint_eq(strlen(problem.detail), whole);
    ck_assert_mem_eq(problem.detail, text, whole);
    ck_assert_uint_eq(strlen(problem.pointer), PROBLEM_POINTER_MAX - 1);
  }
}
END_TEST

START_TEST(test_status_of_the_library) {
  static const struct {
    attn_status status;
    enum problem_code code;
  } expected[] = {
      {ATTN_NO_MEMORY, PROBLEM_OUT_OF_MEMORY},
      {ATTN_BAD_ARGUMENT, PROBLEM_INTERNAL},
      {ATTN_UNKNOWN_NAME, PROBLEM_INVALID_PARAMETER},
      {ATTN_BAD_PARAMETER, PROBLEM_INVALID_PARAMETER},
      {ATTN_BAD_SHAPE, PROBLEM_SHAPE_MISMATCH},
      {ATTN_EMPTY_MEMORY, PROBLEM_EMPTY_MEMORY},
      {ATTN_TOO_LARGE, PROBLEM_OUT_OF_MEMORY},
      {ATTN_NOT_FINITE, PROBLEM_INVALID_NUMBER},
      {ATTN_NOT_REPRESENTABLE, PROBLEM_NOT_REPRESENTABLE},
      {ATTN_CANCELLED, PROBLEM_NOT_READY},
  };
  for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++) {
    struct problem problem;
    ck_assert(!problem_set_status(&problem, expected[i].status, "/queries"));
    ck_assert_int_eq(problem.code, expected[i].code);
    ck_assert_str_eq(problem.detail, attn_status_text(expected[i].status));
    ck_assert_str_eq(problem.pointer, "/queries");
  }
  struct problem problem;
  problem_set_status(&problem, (attn_status)12345, "");
  ck_assert_int_eq(problem.code, PROBLEM_INTERNAL);
}
END_TEST

START_TEST(test_pointer_escapes) {
  static const struct {
    const char *name, *pointer;
  } examples[] = {/* RFC 6901, section 5 */
                  {"foo", "/foo"}, {"", "/"},        {"a/b", "/a~1b"},  {"c%d", "/c%d"},
                  {"e^f", "/e^f"}, {"g|h", "/g|h"},  {"i\\j", "/i\\j"}, {"k\"l", "/k\"l"},
                  {" ", "/ "},     {"m~n", "/m~0n"}, {"~1", "/~01"}};
  for (size_t i = 0; i < sizeof examples / sizeof examples[0]; i++) {
    char pointer[PROBLEM_POINTER_MAX] = "";
    pointer_push_name(pointer, examples[i].name, strlen(examples[i].name));
    ck_assert_str_eq(pointer, examples[i].pointer);
  }
  char pointer[PROBLEM_POINTER_MAX] = "";
  pointer_push_name(pointer, "queries", 7);
  pointer_push_index(pointer, 3);
  pointer_push_index(pointer, 17);
  pointer_push_name(pointer, "a\0b", 3);
  ck_assert_str_eq(pointer, "/queries/3/17/a\xEF\xBF\xBD"
                            "b");
}
END_TEST

/* Names of any length, on pointers of any length: whatever fits is the
 * beginning of the right pointer, is text, and breaks off within no escape. */
START_TEST(test_pointer_is_cut_between_characters) {
  static const char *const units[] = {
      "a", "~", "/", "\xC3\xA4", "\xE2\x82\xAC", "\xF0\x9F\x98\x80"};
  for (size_t unit = 0; unit < sizeof units / sizeof units[0]; unit++) {
    char name[1200] = "";
    for (int i = 0; i < 290; i++)
      strcat(name, units[unit]);
    for (size_t before = 0; before < PROBLEM_POINTER_MAX; before++) {
      char pointer[PROBLEM_POINTER_MAX + 8];
      memset(pointer, 'p', before);
      memset(pointer + before, 0, sizeof pointer - before);
      memset(pointer + PROBLEM_POINTER_MAX, '#', 8);
      pointer_push_name(pointer, name, strlen(name));
      size_t length = strlen(pointer);
      ck_assert_uint_lt(length, PROBLEM_POINTER_MAX);
      ck_assert_uint_ge(length + 4, PROBLEM_POINTER_MAX - 1);
      ck_assert(utf8_valid(pointer, length));
      ck_assert(length == 0 || pointer[length - 1] != '~');
      for (size_t i = 0; i < 8; i++)
        ck_assert_int_eq(pointer[PROBLEM_POINTER_MAX + i], '#');
    }
  }
}
END_TEST

START_TEST(test_index_is_whole_or_left_out) {
  for (size_t before = 240; before < PROBLEM_POINTER_MAX; before++) {
    char pointer[PROBLEM_POINTER_MAX];
    memset(pointer, 'p', before);
    pointer[before] = '\0';
    pointer_push_index(pointer, 1234567);
    if (before + 8 < PROBLEM_POINTER_MAX)
      ck_assert_str_eq(pointer + before, "/1234567");
    else
      ck_assert_uint_eq(strlen(pointer), before);
  }
}
END_TEST

START_TEST(test_document) {
  for (int code = 0; code < PROBLEM_COUNT; code++) {
    const struct problem_info *info = problem_info((enum problem_code)code);
    struct problem problem;
    problem_set(&problem, (enum problem_code)code, code % 2 ? "/a~1\"b" : "", "got \"%s\"\n",
                "\xFF");
    struct buffer buffer;
    buffer_init(&buffer, 0);
    problem_write(&buffer, &problem);
    json_t *document = json_loadb(buffer.data, buffer.length, JSON_REJECT_DUPLICATES, NULL);
    ck_assert_ptr_nonnull(document);
    char type[100];
    snprintf(type, sizeof type, "about:blank#%s", info->code);
    ck_assert_str_eq(json_string_value(json_object_get(document, "type")), type);
    ck_assert_str_eq(json_string_value(json_object_get(document, "title")), info->title);
    ck_assert_int_eq(json_integer_value(json_object_get(document, "status")), info->status);
    ck_assert_str_eq(json_string_value(json_object_get(document, "detail")),
                     "got \"\xEF\xBF\xBD\"\n");
    ck_assert_str_eq(json_string_value(json_object_get(document, "code")), info->code);
    if (code % 2)
      ck_assert_str_eq(json_string_value(json_object_get(document, "pointer")), "/a~1\"b");
    ck_assert_uint_eq(json_object_size(document), code % 2 ? 6 : 5);
    json_decref(document);
    buffer_free(&buffer);
  }
}
END_TEST

UNIT_MAIN("problem", test_table, test_set, test_detail_is_cut_between_characters,
          test_status_of_the_library, test_pointer_escapes, test_pointer_is_cut_between_characters,
          test_index_is_whole_or_left_out, test_document)
