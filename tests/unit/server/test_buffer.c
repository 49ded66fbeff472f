/* The buffer, and the escaping and UTF-8 that go into it: exact limits, sticky
 * failure, and text judged by the Unicode standard's own examples, by decoding
 * the long way round, and by jansson. */
#include "base/buffer.h"

#include <jansson.h>

#include "base/json_escape.h"
#include "base/utf8.h"
#include "unit.h"

#define FFFD "\xEF\xBF\xBD"

START_TEST(test_grows_and_keeps_bytes) {
  struct buffer buffer;
  buffer_init(&buffer, 0);
  ck_assert_str_eq(buffer_text(&buffer), "");
  uint64_t seed = 1, again = 1;
  size_t total = 0;
  for (int round = 0; round < 2000; round++) {
    unsigned char bytes[300];
    size_t count = next_random(&seed) % sizeof bytes;
    for (size_t i = 0; i < count; i++)
      bytes[i] = (unsigned char)next_random(&seed);
    ck_assert(buffer_append(&buffer, bytes, count));
    total += count;
    ck_assert_uint_eq(buffer.length, total);
  }
  const unsigned char *at = (const unsigned char *)buffer.data;
  for (int round = 0; round < 2000; round++)
    for (size_t count = next_random(&again) % 300; count > 0; count--)
      ck_assert_uint_eq(*at++, (unsigned char)next_random(&again));
  buffer_free(&buffer);
  ck_assert_ptr_null(buffer.data);
  buffer_free(&buffer);
}
END_TEST

START_TEST(test_limit_is_exact_and_failure_sticks) {
  for (size_t limit = 1; limit < 600; limit += 7) {
    struct buffer buffer;
    buffer_init(&buffer, limit);
    for (size_t i = 0; i < limit; i++)
      ck_assert(buffer_putc(&buffer, 'a'));
    ck_assert_uint_eq(strlen(buffer_text(&buffer)), limit);
    ck_assert(!buffer_putc(&buffer, 'b'));
    ck_assert_int_eq(buffer.status, BUFFER_FULL);
    ck_assert_uint_eq(buffer.length, limit);
    ck_assert_str_eq(buffer_text(&buffer), "");
    ck_assert_ptr_null(buffer_reserve(&buffer, 0));
    buffer_clear(&buffer);
    ck_assert_int_eq(buffer.status, BUFFER_OK);
    ck_assert(buffer_puts(&buffer, "x"));
    ck_assert_str_eq(buffer_text(&buffer), "x");
    buffer_free(&buffer);
  }
}
END_TEST

START_TEST(test_an_append_is_whole_or_not_at_all) {
  struct buffer buffer;
  buffer_init(&buffer, 10);
  ck_assert(buffer_puts(&buffer, "1234567"));
  ck_assert(!buffer_puts(&buffer, "8901"));
  ck_assert(!buffer_puts(&buffer, "8"));
  ck_assert_uint_eq(buffer.length, 7);
  buffer_clear(&buffer);
  ck_assert(buffer_printf(&buffer, "%s-%d", "abcd", 12345));
  ck_assert_str_eq(buffer_text(&buffer), "abcd-12345");
  buffer_clear(&buffer);
  ck_assert(!buffer_printf(&buffer, "%s-%d", "abcd", 123456));
  ck_assert_int_eq(buffer.status, BUFFER_FULL);
  ck_assert_uint_eq(buffer.length, 0);
  buffer_free(&buffer);
}
END_TEST

START_TEST(test_renewed_it_keeps_little_memory) {
  struct buffer buffer;
  buffer_init(&buffer, 20);
  ck_assert(!buffer_append(&buffer, "123456789012345678901", 21));
  ck_assert(buffer_puts(&buffer, "") == false);
  buffer_renew(&buffer, 0, 1000);
  ck_assert(buffer_puts(&buffer, "123456789012345678901"));
  char *data = buffer.data;
  buffer_renew(&buffer, 5, 1000);
  ck_assert_ptr_eq(buffer.data, data);
  ck_assert_uint_eq(buffer.length, 0);
  ck_assert(!buffer_puts(&buffer, "123456"));
  ck_assert_int_eq(buffer.status, BUFFER_FULL);
  buffer_renew(&buffer, 0, buffer.capacity - 1);
  ck_assert_ptr_null(buffer.data);
  ck_assert_uint_eq(buffer.capacity, 0);
  ck_assert(buffer_puts(&buffer, "123456"));
  buffer_free(&buffer);
}
END_TEST

START_TEST(test_printf_longer_than_the_room) {
  struct buffer buffer;
  buffer_init(&buffer, 0);
  char expected[5000] = "";
  size_t length = 0;
  for (int width = 1; length + (size_t)width < sizeof expected; width += 97) {
    ck_assert(buffer_printf(&buffer, "%*d", width, 7));
    memset(expected + length, ' ', (size_t)width);
    length += (size_t)width;
    expected[length - 1] = '7';
  }
  expected[length] = '\0';
  ck_assert_str_eq(buffer_text(&buffer), expected);
  buffer_free(&buffer);
}
END_TEST

START_TEST(test_reserve_and_advance) {
  struct buffer buffer;
  buffer_init(&buffer, 1000);
  char *room = buffer_reserve(&buffer, 1000);
  ck_assert_ptr_nonnull(room);
  memset(room, 'z', 1000);
  ck_assert_uint_eq(buffer.length, 0);
  buffer_advance(&buffer, 400);
  ck_assert_uint_eq(buffer.length, 400);
  ck_assert_ptr_eq(buffer_reserve(&buffer, 600), buffer.data + 400);
  ck_assert_ptr_null(buffer_reserve(&buffer, 601));
  buffer_free(&buffer);
}
END_TEST

START_TEST(test_sizes_that_can_not_be) {
  static const size_t counts[] = {SIZE_MAX, SIZE_MAX - 1, SIZE_MAX - 3, SIZE_MAX / 2 + 1};
  for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
    struct buffer buffer;
    buffer_init(&buffer, 0);
    ck_assert(buffer_puts(&buffer, "abc"));
    ck_assert_ptr_null(buffer_reserve(&buffer, counts[i]));
    ck_assert_int_eq(buffer.status, BUFFER_NO_MEMORY);
    ck_assert(!buffer_puts(&buffer, "d"));
    buffer_clear(&buffer);
    ck_assert(buffer_puts(&buffer, "d"));
    ck_assert_str_eq(buffer_text(&buffer), "d");
    buffer_free(&buffer);
  }
}
END_TEST

/* ---- UTF-8 ---- */

/* The code point by arithmetic, then held against the ranges; 0 bytes where
 * `text` does not start with a character. */
static size_t decode_the_long_way(const unsigned char *text, size_t length) {
  static const uint32_t least[5] = {0, 0, 0x80, 0x800, 0x10000};
  size_t count = text[0] < 0x80             ? 1
                 : (text[0] & 0xE0) == 0xC0 ? 2
                 : (text[0] & 0xF0) == 0xE0 ? 3
                 : (text[0] & 0xF8) == 0xF0 ? 4
                                            : 0;
  if (count == 0 || count > length) return 0;
  uint32_t code = count == 1 ? text[0] : text[0] & (0xFFu >> (count + 1));
  for (size_t i = 1; i < count; i++) {
    if ((text[i] & 0xC0) != 0x80) return 0;
    code = code << 6 | (text[i] & 0x3F);
  }
  bool allowed = code >= least[count] && code <= 0x10FFFF && (code < 0xD800 || code > 0xDFFF);
  return allowed ? count : 0;
}

START_TEST(test_utf8_step_knows_every_character) {
  static const unsigned char tails[] = {0x00, 0x41, 0x7F, 0x80, 0x8F, 0x90,
                                        0x9F, 0xA0, 0xBF, 0xC0, 0xFF};
  enum { TAILS = sizeof tails };
  for (unsigned lead = 0; lead < 256; lead++) {
    for (size_t mix = 0; mix < TAILS * TAILS * TAILS; mix++) {
      unsigned char text[4] = {(unsigned char)lead, tails[mix % TAILS], tails[mix / TAILS % TAILS],
                               tails[mix / TAILS / TAILS]};
      for (size_t length = 1; length <= 4; length++) {
        bool valid;
        size_t step = utf8_step((const char *)text, length, &valid);
        size_t expected = decode_the_long_way(text, length);
        ck_assert_msg(valid == (expected > 0), "%02x %02x %02x %02x", text[0], text[1], text[2],
                      text[3]);
        ck_assert_uint_ge(step, 1);
        ck_assert_uint_le(step, length);
        if (valid) ck_assert_uint_eq(step, expected);
      }
    }
  }
}
END_TEST

START_TEST(test_utf8_whole) {
  static const char text[] = "a\xC3\xA4\xE2\x82\xAC\xF0\x9F\x98\x80z"; /* 1 2 3 4 1 bytes */
  static const size_t whole[] = {0, 1, 1, 3, 3, 3, 6, 6, 6, 6, 10, 11};
  for (size_t length = 0; length < sizeof text; length++)
    ck_assert_uint_eq(utf8_whole(text, length), whole[length]);
  /* Bytes that are no beginning of anything stay. */
  ck_assert_uint_eq(utf8_whole("a\x80", 2), 2);
  ck_assert_uint_eq(utf8_whole("\x80\x80\x80\x80", 4), 4);
  ck_assert_uint_eq(utf8_whole("a\xFF", 2), 2);
  ck_assert_uint_eq(utf8_whole("\xED\xA0", 2), 2);
  ck_assert(utf8_valid(text, sizeof text - 1));
  ck_assert(!utf8_valid(text, sizeof text - 3));
  ck_assert(utf8_valid("", 0));
}
END_TEST

/* ---- Escaping ---- */

static void check_escape(const char *text, size_t length, const char *expected) {
  struct buffer buffer;
  buffer_init(&buffer, 0);
  ck_assert(json_escape(&buffer, text, length));
  ck_assert_str_eq(buffer_text(&buffer), expected);
  buffer_free(&buffer);
}

START_TEST(test_escapes) {
  check_escape("", 0, "");
  check_escape("plain text /~", 13, "plain text /~");
  check_escape("\"\\\b\f\n\r\t", 7, "\\\"\\\\\\b\\f\\n\\r\\t");
  check_escape("\0\x01\x1f\x7f", 4, "\\u0000\\u0001\\u001f\\u007f");
  check_escape("\xC2\x80\xC2\x9B\xC2\x9F\xC2\xA0", 8, "\\u0080\\u009b\\u009f\xC2\xA0");
  check_escape("\xC3\xA4\xE2\x82\xAC\xF0\x9F\x98\x80", 9, "\xC3\xA4\xE2\x82\xAC\xF0\x9F\x98\x80");
}
END_TEST

/* The Unicode standard, section 3.9, tables 3-8 to 3-11. */
START_TEST(test_replaces_what_is_not_utf8) {
  check_escape("\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41", 9,
               FFFD FFFD FFFD FFFD FFFD FFFD FFFD FFFD "A");
  check_escape("\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41", 9,
               FFFD FFFD FFFD FFFD FFFD FFFD FFFD FFFD "A");
  check_escape("\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42", 9,
               FFFD FFFD FFFD FFFD FFFD "A" FFFD FFFD "B");
  check_escape("\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41", 9, FFFD FFFD FFFD FFFD "A");
}
END_TEST

START_TEST(test_a_parser_reads_back_what_was_escaped) {
  uint64_t seed = 7;
  for (int round = 0; round < 3000; round++) {
    char text[64];
    size_t length = 0;
    while (length < 60) {
      uint64_t dice = next_random(&seed);
      uint32_t code = (uint32_t)(dice >> 8) % (dice & 1 ? 0x100 : dice & 2 ? 0x3000 : 0x110000);
      if (code >= 0xD800 && code <= 0xDFFF) continue;
      if (code < 0x80) {
        text[length++] = (char)code;
      } else if (code < 0x800) {
        text[length++] = (char)(0xC0 | code >> 6);
        text[length++] = (char)(0x80 | (code & 0x3F));
      } else if (code < 0x10000) {
        text[length++] = (char)(0xE0 | code >> 12);
        text[length++] = (char)(0x80 | (code >> 6 & 0x3F));
        text[length++] = (char)(0x80 | (code & 0x3F));
      } else {
        text[length++] = (char)(0xF0 | code >> 18);
        text[length++] = (char)(0x80 | (code >> 12 & 0x3F));
        text[length++] = (char)(0x80 | (code >> 6 & 0x3F));
        text[length++] = (char)(0x80 | (code & 0x3F));
      }
    }
    ck_assert(utf8_valid(text, length));
    struct buffer buffer;
    buffer_init(&buffer, 0);
    buffer_putc(&buffer, '"');
    ck_assert(json_escape(&buffer, text, length));
    buffer_putc(&buffer, '"');
    json_t *parsed = json_loadb(buffer.data, buffer.length, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    ck_assert_ptr_nonnull(parsed);
    ck_assert_uint_eq(json_string_length(parsed), length);
    ck_assert_mem_eq(json_string_value(parsed), text, length);
    json_decref(parsed);
    buffer_free(&buffer);
  }
}
END_TEST

UNIT_MAIN("buffer", test_grows_and_keeps_bytes, test_limit_is_exact_and_failure_sticks,
          test_an_append_is_whole_or_not_at_all, test_renewed_it_keeps_little_memory,
          test_printf_longer_than_the_room, test_reserve_and_advance, test_sizes_that_can_not_be,
          test_utf8_step_knows_every_character, test_utf8_whole, test_escapes,
          test_replaces_what_is_not_utf8, test_a_parser_reads_back_what_was_escaped)
