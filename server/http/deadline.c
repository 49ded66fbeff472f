/* Deadlines of the phases a connection goes through.
 *
 * libmicrohttpd's own timeout counts inactivity, so a client that sends or
 * takes one byte a second holds its connection for ever. Here every phase has
 * a deadline from its start:
 *
 *   head       head_timeout, whole, however many bytes come
 *   body       body_timeout, and 1 s more for each 64 KiB that arrived
 *   computing  none: the server is at work, the client can not hurry it
 *   reply      body_timeout, and 1 s more for each 64 KiB the client took
 *   idle       idle_timeout until the first byte, then head_timeout
 *
 * So a body or a reply of any size passes at 64 KiB/s or more, and a client
 * that stands still is gone after little more than body_timeout. What bytes
 * buy is no fortune: at each look those since the last one count, for a minute
 * at most. Or who took a gigabyte in a second could hold the rest for hours.
 *
 * Nobody counts bytes on the way: the kernel does (TCP_INFO), and it is asked by
 * the watchdog, when it first looks at a phase and when a deadline is reached. To
 * ask when a phase starts was too dear: two calls for each request, under the
 * lock that all connections share, were a seventh of a small request. So what
 * passed before the first look, a tick after the start, buys nothing. Where the
 * kernel can not tell (an old kernel, an emulated one), the bytes that
 * were announced count as passed: the deadline is then later, never sooner,
 * than the rule says. */
#include "http/deadline.h"

#include <linux/tcp.h>
#include <netinet/in.h>
#include <stddef.h>
#include <sys/socket.h>
#include <time.h>

#define NEVER            INT64_MAX
#define BYTES_PER_SECOND 65536
#define MOST_EARNED      60 /* seconds */

/* TCP_CLOSE_WAIT of <netinet/tcp.h>, which does not go with <linux/tcp.h>: the
 * other side has closed, this one has not. */
#define STATE_CLOSE_WAIT 8

/* A byte that came within this time after the last reply is not told from the
 * former request's last byte. */
#define IDLE_SLACK_MS 50

const char *phase_name(enum phase phase) {
  static const char *const names[] = {[PHASE_HEAD] = "head",
                                      [PHASE_BODY] = "body",
                                      [PHASE_COMPUTING] = "computing",
                                      [PHASE_REPLY] = "reply",
                                      [PHASE_IDLE] = "idle"};
  return names[phase];
}

/* A few milliseconds late at most, and several times as cheap as the exact time,
 * which is more than anything here is worth. */
int64_t deadline_now(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
  return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* False where the kernel does not know the fields used here. */
static bool ask_kernel(int descriptor, struct tcp_info *info) {
  *info = (struct tcp_info){0};
  socklen_t size = sizeof *info;
  if (getsockopt(descriptor, IPPROTO_TCP, TCP_INFO, info, &size) != 0) return false;
  return size >= offsetof(struct tcp_info, tcpi_bytes_received) + sizeof info->tcpi_bytes_received;
}

/* The bytes that passed since the connection was opened, in the direction of
 * the phase; UINT64_MAX where that is unknown. Notes a half-closed client. */
static uint64_t bytes_passed(struct deadline *deadline, int descriptor) {
  struct tcp_info info;
  if (!ask_kernel(descriptor, &info)) return UINT64_MAX;
  if (info.tcpi_state == STATE_CLOSE_WAIT) deadline->half_closed = true;
  return deadline->phase == PHASE_BODY ? info.tcpi_bytes_received : info.tcpi_bytes_acked;
}

static void first_look(struct deadline *deadline, int descriptor) {
  deadline->looked = true;
  if (deadline->phase == PHASE_HEAD || deadline->phase == PHASE_COMPUTING) return;
  deadline->baseline = bytes_passed(deadline, descriptor);
}

void deadline_enter(struct deadline *deadline, const struct deadline_rules *rules, enum phase phase,
                    int64_t now, uint64_t expected) {
  if (phase == PHASE_HEAD && deadline->phase == PHASE_HEAD && deadline->due != 0) return;
  deadline->phase = phase;
  deadline->since = now;
  deadline->expected = expected;
  deadline->looked = false;
  switch (phase) {
  case PHASE_HEAD:
    deadline->due = now + rules->head_ms;
    break;
  case PHASE_BODY:
  case PHASE_REPLY:
    deadline->due = now + rules->body_ms;
    break;
  case PHASE_COMPUTING:
    deadline->due = NEVER;
    break;
  case PHASE_IDLE:
    deadline->due = now + rules->idle_ms;
    break;
  }
}

static bool transfer_is_late(struct deadline *deadline, int descriptor, int64_t now) {
  uint64_t passed = bytes_passed(deadline, descriptor);
  bool silent = passed == UINT64_MAX || deadline->baseline == UINT64_MAX;
  uint64_t moved = silent ? deadline->expected : passed - deadline->baseline;
  if (moved > deadline->expected) moved = deadline->expected;
  uint64_t earned = moved / BYTES_PER_SECOND;
  /* What is short of a second counts at the next look. */
  uint64_t counted = earned * BYTES_PER_SECOND;
  if (!silent && earned > MOST_EARNED) {
    earned = MOST_EARNED;
    counted = moved;
  }
  deadline->expected -= counted;
  if (!silent) deadline->baseline += counted;
  deadline->due += (int64_t)earned * 1000;
  return now >= deadline->due;
}

/* An idle connection whose next head has begun gets the time for a head. */
static bool idle_is_over(struct deadline *deadline, const struct deadline_rules *rules,
                         int descriptor, int64_t now) {
  struct tcp_info info;
  if (!ask_kernel(descriptor, &info)) return true;
  if ((int64_t)info.tcpi_last_data_recv + IDLE_SLACK_MS >= now - deadline->since) return true;
  deadline_enter(deadline, rules, PHASE_HEAD, now, 0);
  return false;
}

bool deadline_passed(struct deadline *deadline, const struct deadline_rules *rules, int descriptor,
                     int64_t now) {
  if (!deadline->looked) first_look(deadline, descriptor);
  if (now < deadline->due) return false;
  switch (deadline->phase) {
  case PHASE_BODY:
  case PHASE_REPLY:
    return transfer_is_late(deadline, descriptor, now);
  case PHASE_IDLE:
    return idle_is_over(deadline, rules, descriptor, now);
  case PHASE_HEAD:
    return true;
  case PHASE_COMPUTING:
    break;
  }
  return false;
}
