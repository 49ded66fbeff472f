/* Bodies that are collected: what has come is there whole, and the room for it follows what
 * has come, whatever was announced. */
#include "http/intake.h"

#include "unit.h"

#define MOST ((uint64_t)1 << 40)

static struct intake begin(uint64_t length) {
  struct intake intake;
  struct problem problem;
  const struct http_request head = {.body = ""};
  const struct intake_source source = {.request = &head, .length = length};
  intake_init(&intake, MOST);
  ck_assert(intake_begin(&intake, &source, &problem));
  return intake;
}

static void end(struct intake *intake) {
  intake_drop(intake);
  intake_free(intake);
}

START_TEST(test_nothing_for_an_announcement) {
  static const uint64_t lengths[] = {1, 5000, 1 << 20, 1 << 30, MOST, UINT64_MAX};
  for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
    struct intake intake = begin(lengths[i]);
    struct problem problem;
    ck_assert_uint_eq(intake.collected.capacity, 0);
    ck_assert(intake_piece(&intake, "x", 1, &problem));
    ck_assert_uint_le(intake.collected.capacity, 512);
    end(&intake);
  }
}
END_TEST

/* In pieces of any length; what was announced may be less or more than what comes. */
START_TEST(test_room_follows_what_has_come) {
  enum { BYTES = 1500000 };
  static const uint64_t lengths[] = {BYTES, BYTES / 3, UINT64_MAX, MOST, 0};
  char *bytes = malloc(BYTES);
  uint64_t state = 5;
  ck_assert_ptr_nonnull(bytes);
  for (size_t i = 0; i < BYTES; i++)
    bytes[i] = (char)(next_random(&state) >> 56);
  for (size_t most = 300; most <= BYTES; most *= 16)
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
      struct intake intake = begin(lengths[i]);
      struct problem problem;
      struct http_request view = {.body_length = 1};
      for (size_t at = 0, count; at < BYTES; at += count) {
        count = 1 + next_random(&state) % most;
        if (count > BYTES - at) count = BYTES - at;
        ck_assert(intake_piece(&intake, bytes + at, count, &problem));
        ck_assert_uint_le(intake.collected.capacity, 16 * (at + count) + 512);
        if (at + count > 1 << 20)
          ck_assert_uint_le(intake.collected.capacity, 2 * (at + count) + 512);
      }
      intake_show(&intake, &view);
      ck_assert_uint_eq(view.body_length, BYTES);
      ck_assert(memcmp(view.body, bytes, BYTES) == 0);
      end(&intake);
    }
  free(bytes);
}
END_TEST

/* A long body whose length was told moves a few times, however its pieces come. */
START_TEST(test_few_moves) {
  enum { BYTES = 1000000, PIECE = 16384 };
  static char piece[PIECE];
  struct intake intake = begin(BYTES);
  struct problem problem;
  size_t moves = 0, capacity = 0;
  for (size_t at = 0; at < BYTES; at += PIECE) {
    ck_assert(intake_piece(&intake, piece, BYTES - at < PIECE ? BYTES - at : PIECE, &problem));
    moves += intake.collected.capacity != capacity;
    capacity = intake.collected.capacity;
  }
  ck_assert_uint_le(moves, 3);
  end(&intake);
}
END_TEST

START_TEST(test_limit) {
  struct intake intake = begin(UINT64_MAX);
  struct problem problem;
  intake_renew(&intake, 100);
  char bytes[101] = {0};
  ck_assert(intake_piece(&intake, bytes, 60, &problem));
  ck_assert(!intake_piece(&intake, bytes, 41, &problem));
  ck_assert_int_eq(problem.code, PROBLEM_BODY_TOO_LARGE);
  ck_assert(intake_piece(&intake, bytes, 40, &problem));
  end(&intake);
}
END_TEST

UNIT_MAIN("intake", test_nothing_for_an_announcement, test_room_follows_what_has_come,
          test_few_moves, test_limit)
