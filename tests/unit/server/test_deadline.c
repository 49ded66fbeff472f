/* Deadlines over real sockets, with times that are made up: what each phase
 * allows, and what bytes that passed are worth. */
#include "http/deadline.h"

#include <arpa/inet.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "http/linger.h"
#include "unit.h"

#define KIB 1024

static const struct deadline_rules rules = {.head_ms = 1000, .body_ms = 2000, .idle_ms = 5000};

/* Two ends of one TCP connection. */
struct ends {
  int server, client;
};

static struct ends connect_ends(void) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t size = sizeof address;
  int listening = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  struct ends ends;
  ck_assert_int_ge(listening, 0);
  ck_assert_int_eq(bind(listening, (struct sockaddr *)&address, sizeof address), 0);
  ck_assert_int_eq(listen(listening, 1), 0);
  ck_assert_int_eq(getsockname(listening, (struct sockaddr *)&address, &size), 0);
  ends.client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  ck_assert_int_eq(connect(ends.client, (struct sockaddr *)&address, sizeof address), 0);
  ends.server = accept(listening, NULL, NULL);
  ck_assert_int_ge(ends.server, 0);
  close(listening);
  return ends;
}

static void close_ends(struct ends ends) {
  close(ends.client);
  close(ends.server);
}

/* Until the other end has acknowledged all; the last acknowledgement may be delayed. */
static void wait_until_acknowledged(int from) {
  int left = 1;
  for (int i = 0; i < 60000 && left > 0; i++) {
    ck_assert_int_eq(ioctl(from, SIOCOUTQ, &left), 0);
    if (left > 0) usleep(1000);
  }
  ck_assert_int_eq(left, 0);
}

/* Moves bytes from one end to the other, and waits until both have seen that. */
static void move(int from, int to, size_t count) {
  static char bytes[64 * KIB];
  for (size_t done = 0; done < count;) {
    size_t piece = count - done < sizeof bytes ? count - done : sizeof bytes;
    ck_assert_int_eq(send(from, bytes, piece, 0), (ssize_t)piece);
    ck_assert_int_eq(recv(to, bytes, piece, MSG_WAITALL), (ssize_t)piece);
    done += piece;
  }
  wait_until_acknowledged(from);
}

enum { AT_ONCE = 0, A_MINUTE = 60000 };

static bool is_ready(int descriptor, short events, int milliseconds) {
  struct pollfd watched = {.fd = descriptor, .events = events};
  return poll(&watched, 1, milliseconds) == 1;
}

static bool is_readable(int descriptor, int milliseconds) {
  return is_ready(descriptor, POLLIN, milliseconds);
}

START_TEST(test_head) {
  struct deadline deadline = {0};
  deadline_enter(&deadline, &rules, PHASE_HEAD, 10000, 0);
  ck_assert(!deadline_passed(&deadline, &rules, -1, 10999));
  /* The request line does not start it anew ... */
  deadline_enter(&deadline, &rules, PHASE_HEAD, 10500, 0);
  ck_assert(deadline_passed(&deadline, &rules, -1, 11000));
  /* ... but the next request does. */
  deadline_enter(&deadline, &rules, PHASE_IDLE, 20000, 0);
  deadline_enter(&deadline, &rules, PHASE_HEAD, 24000, 0);
  ck_assert(!deadline_passed(&deadline, &rules, -1, 24999));
  ck_assert(deadline_passed(&deadline, &rules, -1, 25000));
}
END_TEST

START_TEST(test_computing_takes_its_time) {
  struct deadline deadline = {0};
  deadline_enter(&deadline, &rules, PHASE_COMPUTING, 10000, 0);
  ck_assert(!deadline_passed(&deadline, &rules, -1, INT64_MAX - 1));
}
END_TEST

/* A phase in which 200 KiB pass has 3 seconds more, and no more than that. */
static void check_transfer(enum phase phase, bool to_server) {
  struct ends ends = connect_ends();
  int from = to_server ? ends.client : ends.server, to = to_server ? ends.server : ends.client;
  struct deadline deadline = {0};
  move(from, to, 300 * KIB); /* of a former request: worth nothing */
  deadline_enter(&deadline, &rules, phase, 10000, 1000 * KIB);
  ck_assert(!deadline_passed(&deadline, &rules, ends.server, 11999));
  move(from, to, 200 * KIB);
  ck_assert(!deadline_passed(&deadline, &rules, ends.server, 12000));
  ck_assert(!deadline_passed(&deadline, &rules, ends.server, 14999));
  ck_assert(deadline_passed(&deadline, &rules, ends.server, 15000));
  close_ends(ends);
}

START_TEST(test_body) {
  check_transfer(PHASE_BODY, true);
}
END_TEST

START_TEST(test_reply) {
  check_transfer(PHASE_REPLY, false);
}
END_TEST

/* Ten megabytes at once are worth a minute, not 160 seconds; but whoever goes
 * on at 64 KiB/s may do so for ever. */
START_TEST(test_a_burst_buys_a_minute) {
  struct ends ends = connect_ends();
  struct deadline deadline = {0};
  deadline_enter(&deadline, &rules, PHASE_BODY, 10000, (uint64_t)1 << 40);
  ck_assert(!deadline_passed(&deadline, &rules, ends.server, 10000));
  move(ends.client, ends.server, 10240 * KIB);
  ck_assert(!deadline_passed(&deadline, &rules, ends.server, 12000));
  ck_assert(!deadline_passed(&deadline, &rules, ends.server, 71999));
  move(ends.client, ends.server, 60 * 64 * KIB);
  ck_assert(!deadline_passed(&deadline, &rules, ends.server, 72000));
  ck_assert(!deadline_passed(&deadline, &rules, ends.server, 131999));
  move(ends.client, ends.server, 96 * KIB);
  ck_assert(!deadline_passed(&deadline, &rules, ends.server, 132000));
  move(ends.client, ends.server, 32 * KIB); /* makes a second with the half one before */
  ck_assert(!deadline_passed(&deadline, &rules, ends.server, 133000));
  ck_assert(deadline_passed(&deadline, &rules, ends.server, 134000));
  close_ends(ends);
}
END_TEST

START_TEST(test_still_transfer) {
  struct ends ends = connect_ends();
  struct deadline deadline = {0};
  deadline_enter(&deadline, &rules, PHASE_REPLY, 10000, 1000 * KIB);
  move(ends.client, ends.server, 300 * KIB); /* the other way: worth nothing */
  ck_assert(deadline_passed(&deadline, &rules, ends.server, 12000));
  close_ends(ends);
}
END_TEST

START_TEST(test_where_the_kernel_is_silent) {
  struct deadline deadline = {0};
  deadline_enter(&deadline, &rules, PHASE_BODY, 10000, 128 * KIB);
  ck_assert(!deadline_passed(&deadline, &rules, -1, 13999));
  ck_assert(deadline_passed(&deadline, &rules, -1, 14000));
}
END_TEST

START_TEST(test_idle) {
  struct ends ends = connect_ends();
  struct deadline deadline = {0};
  move(ends.client, ends.server, 10);
  int64_t start = deadline_now() - rules.idle_ms; /* the idling began that long ago */
  deadline_enter(&deadline, &rules, PHASE_IDLE, start, 0);
  ck_assert(!deadline_passed(&deadline, &rules, ends.server, start + rules.idle_ms - 1));
  /* Something came while it idled, so a head has its time now. */
  int64_t now = deadline_now();
  ck_assert(!deadline_passed(&deadline, &rules, ends.server, now));
  ck_assert_int_eq(deadline.phase, PHASE_HEAD);
  ck_assert(!deadline_passed(&deadline, &rules, ends.server, now + rules.head_ms - 1));
  ck_assert(deadline_passed(&deadline, &rules, ends.server, now + rules.head_ms));
  /* Nothing came since the idling began. */
  usleep(200000);
  now = deadline_now();
  deadline_enter(&deadline, &rules, PHASE_IDLE, now - 100, 0);
  deadline.due = now;
  ck_assert(deadline_passed(&deadline, &rules, ends.server, now));
  close_ends(ends);
}
END_TEST

/* A client that sends no more is seen to, and loses no time by that: requests that
 * it sent before may not have begun yet. */
START_TEST(test_half_closed_client) {
  struct ends ends = connect_ends();
  struct deadline deadline = {0};
  deadline_enter(&deadline, &rules, PHASE_REPLY, 10000, 1000 * KIB);
  deadline_enter(&deadline, &rules, PHASE_IDLE, 11000, 0);
  ck_assert(!deadline_passed(&deadline, &rules, ends.server, 11000));
  ck_assert(!deadline.half_closed);
  shutdown(ends.client, SHUT_WR);
  ck_assert(is_readable(ends.server, A_MINUTE)); /* the end */
  deadline_enter(&deadline, &rules, PHASE_REPLY, 20000, 1000 * KIB);
  deadline_enter(&deadline, &rules, PHASE_IDLE, 22000, 0);
  ck_assert(!deadline_passed(&deadline, &rules, ends.server, 22000));
  ck_assert(deadline.half_closed);
  ck_assert(!deadline_passed(&deadline, &rules, ends.server, 22000 + rules.idle_ms - 1));
  close_ends(ends);
}
END_TEST

/* The client goes on sending after the server closed, and still reads what the
 * server said before. */
START_TEST(test_linger) {
  static char bytes[256 * KIB];
  struct linger_set *set = linger_create();
  ck_assert_ptr_nonnull(set);
  struct ends ends = connect_ends();
  ck_assert_int_eq(send(ends.client, bytes, 1000, 0), 1000);
  ck_assert_int_eq(send(ends.server, "no", 2, 0), 2);
  ck_assert(!linger_any(set));
  linger_add(set, ends.server, 10000);
  shutdown(ends.server, SHUT_WR);
  close(ends.server);
  ck_assert(linger_any(set));
  for (int64_t now = 10000; now < 12000; now += 100) {
    for (int i = 0; i < 60000 && !is_ready(ends.client, POLLOUT, 1); i++)
      linger_tick(set, now);
    ck_assert_int_gt(send(ends.client, bytes, sizeof bytes, MSG_DONTWAIT | MSG_NOSIGNAL), 0);
    linger_tick(set, now);
  }
  ck_assert_int_eq(recv(ends.client, bytes, sizeof bytes, 0), 2);
  ck_assert_int_eq(recv(ends.client, bytes, sizeof bytes, 0), 0);
  ck_assert(linger_any(set));
  close(ends.client);
  for (int i = 0; i < 60000 && linger_any(set); i++) {
    linger_tick(set, 12000);
    usleep(1000);
  }
  ck_assert(!linger_any(set));
  linger_free(set);
}
END_TEST

START_TEST(test_linger_ends) {
  struct linger_set *set = linger_create();
  ck_assert_ptr_nonnull(set);
  struct ends ends[3];
  for (size_t i = 0; i < 3; i++) {
    ends[i] = connect_ends();
    linger_add(set, ends[i].server, 1000 * (int64_t)i);
    close(ends[i].server);
  }
  linger_tick(set, 3000);
  ck_assert(is_readable(ends[0].client, A_MINUTE)); /* closed: its time was up */
  ck_assert(!is_readable(ends[1].client, AT_ONCE));
  linger_free(set);
  ck_assert(is_readable(ends[2].client, A_MINUTE));
  for (size_t i = 0; i < 3; i++)
    close(ends[i].client);
  linger_free(NULL);
}
END_TEST

UNIT_MAIN("deadline", test_head, test_computing_takes_its_time, test_body, test_reply,
          test_a_burst_buys_a_minute, test_still_transfer, test_where_the_kernel_is_silent,
          test_idle, test_half_closed_client, test_linger, test_linger_ends)
