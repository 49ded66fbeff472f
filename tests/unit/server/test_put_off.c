/* Answers that are put off by a handler of the test's own: requests that an I/O thread
 * finds together are answered together, whatever becomes of their clients, of the server,
 * and however slow the thread is. */
#include "http_world.h"

/* Clients enough that each of the two threads reads several requests in one go. */
enum { CROWD = 12 };

static const char *const crowd_names[CROWD] = {"a", "b", "c", "d", "e", "f",
                                               "g", "h", "i", "j", "k", "l"};

struct later {
  struct later *next;
  const struct http_request *request;
  struct http_reply *reply;
};

static atomic_int leaving = -1; /* the descriptor of a client that breaks off */
static atomic_bool dawdles;     /* the thread stays with the first one that is put off */
static atomic_int dawdling;
static atomic_bool slow; /* the thread is slow between two requests */

/* A body that is sent as a stream: it is released after its request has ended. */
static ssize_t read_text(void *context, uint64_t at, char *bytes, size_t room) {
  const char *text = context;
  const size_t left = strlen(text) - (size_t)at;
  const size_t count = left < room ? left : room;
  memcpy(bytes, text + at, count);
  return (ssize_t)count;
}

static double seconds_of(clockid_t clock) {
  struct timespec now;
  clock_gettime(clock, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void release_slowly(void *context) {
  const double end = seconds_of(CLOCK_THREAD_CPUTIME_ID) + 500e-6;
  while (seconds_of(CLOCK_THREAD_CPUTIME_ID) < end)
    ;
  free(context);
}

static void answer(struct http_reply *reply, const char *how, const char *name) {
  reply->content_type = "text/plain";
  buffer_printf(&reply->body, "%s %s", how, name);
  if (slow) {
    char *text = strdup(buffer_text(&reply->body));
    ck_assert_ptr_nonnull(text);
    reply->stream = (struct http_stream){strlen(text), read_text, release_slowly, text};
    buffer_clear(&reply->body);
  }
  http_complete(reply);
}

static void answer_later(void *api, void **put_off) {
  (void)api;
  struct later *later = *put_off;
  *put_off = NULL;
  for (struct later *next; later; later = next) {
    next = later->next;
    answer(later->reply, "together", later->request->name);
    free(later);
  }
}

static void break_off(int descriptor) {
  const struct linger at_once = {.l_onoff = 1};
  setsockopt(descriptor, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
  close(descriptor);
}

static void put_off(void *api, const struct http_request *request, struct http_reply *reply) {
  struct world *world = api;
  world->handled++;
  ck_assert(request->at_once);
  if (!request->put_off) {
    answer(reply, "alone", request->name);
    return;
  }
  struct later *later = malloc(sizeof *later);
  ck_assert_ptr_nonnull(later);
  *later = (struct later){*request->put_off, request, reply};
  *request->put_off = later;
  const int client = strcmp(request->name, "leaves") == 0 ? leaving : -1;
  if (client >= 0 && atomic_exchange(&leaving, -1) >= 0) break_off(client);
  if (dawdles) {
    dawdling++;
    usleep(50000);
  }
}

static double costs_nothing(void *api, const struct http_request *request) {
  (void)api;
  (void)request;
  return 0;
}

static const struct http_route routes[] = {
    {.method = HTTP_GET,
     .pattern = "/holds",
     .handler = wait_until_let_go,
     .place = HTTP_ON_IO,
     .operation = "holds"},
    {.method = HTTP_GET,
     .pattern = "/later/{name}",
     .handler = put_off,
     .cost = costs_nothing,
     .place = HTTP_ON_WORKER,
     .completes = true,
     .operation = "later"},
};
#define ROUTES (sizeof routes / sizeof routes[0])

static const char *const operations[ROUTES] = {"holds", "later"};

static struct world *start_world(void) {
  static const struct world_limits limits = {
      .max_body_bytes = 1000, .body_timeout_seconds = 30, .answer_put_off = answer_later};
  return start_world_of(routes, operations, ROUTES, &limits);
}

/* Holds both threads until the whole crowd has asked: connections are dealt out in
 * turn, so that each gets one that holds it. */
struct crowd {
  struct world *world;
  int holders[2], clients[CROWD];
};

static struct crowd gather(void) {
  struct crowd crowd = {.world = start_world()};
  for (size_t i = 0; i < 2; i++)
    crowd.holders[i] = connect_to(crowd.world);
  for (size_t i = 0; i < CROWD; i++)
    crowd.clients[i] = connect_to(crowd.world);
  return crowd;
}

static void ask_at_once(struct crowd *crowd, const char *const *names) {
  crowd->world->let_go = false;
  for (size_t i = 0; i < 2; i++)
    send_text(crowd->holders[i], GET("/holds"));
  wait_for_under_way(crowd->world, 2);
  for (size_t i = 0; i < CROWD; i++) {
    char request[100];
    snprintf(request, sizeof request, "GET /later/%s HTTP/1.1\r\nHost: x\r\n\r\n", names[i]);
    send_text(crowd->clients[i], request);
  }
  crowd->world->let_go = true;
}

/* How many were answered together; each has to be answered, with what is its own. */
static int take_answers(const struct crowd *crowd, const char *const *names) {
  int together = 0;
  for (size_t i = 0; i < CROWD; i++) {
    char text[1000], wanted[50];
    if (crowd->clients[i] < 0) continue;
    const char *reply = receive(crowd->clients[i], text, sizeof text);
    expect(reply, "HTTP/1.1 200 ");
    const bool later = strstr(reply, "\r\n\r\ntogether ") != NULL;
    snprintf(wanted, sizeof wanted, "\r\n\r\n%s %s", later ? "together" : "alone", names[i]);
    expect(reply, wanted);
    together += later;
  }
  for (size_t i = 0; i < 2; i++) {
    char text[1000];
    expect(receive(crowd->holders[i], text, sizeof text), "let go");
  }
  wait_for_under_way(crowd->world, 0);
  return together;
}

static void disperse(struct crowd *crowd) {
  for (size_t i = 0; i < 2; i++)
    close(crowd->holders[i]);
  for (size_t i = 0; i < CROWD; i++)
    if (crowd->clients[i] >= 0) close(crowd->clients[i]);
  free_world(crowd->world);
}

static void check_rounds(void) {
  enum { ALL_ROUNDS = 20 };
  struct crowd crowd = gather();
  int together = 0;
  for (int round = 0; round < ALL_ROUNDS; round++) {
    ask_at_once(&crowd, crowd_names);
    together += take_answers(&crowd, crowd_names);
    ck_assert_int_eq(crowd.world->handled, (round + 1) * (CROWD + 2));
  }
  /* All but the first ones of the first crowd; that the two threads have to wait for
   * each other may break off a run now and then. */
  ck_assert_int_ge(together, ALL_ROUNDS * CROWD / 2);
  disperse(&crowd);
}

START_TEST(test_answers_put_off) {
  check_rounds();
}
END_TEST

/* What counts as company is not how fast the machine is, but that the thread goes from
 * one request to the next. */
START_TEST(test_answers_put_off_by_a_slow_thread) {
  slow = true;
  check_rounds();
  slow = false;
}
END_TEST

START_TEST(test_a_lone_client_is_not_put_off) {
  struct world *world = start_world();
  int client = connect_to(world);
  for (int i = 0; i < 200; i++)
    expect(ask(client, GET("/later/me")), "\r\n\r\nalone me");
  close(client);
  free_world(world);
}
END_TEST

START_TEST(test_a_client_that_leaves_while_put_off) {
  int left = 0;
  for (int round = 0; round < 200 && left < 5; round++) {
    const size_t who = CROWD - 1 - (size_t)round % 4;
    const char *names[CROWD];
    memcpy(names, crowd_names, sizeof names);
    names[who] = "leaves";
    struct crowd crowd = gather();
    ask_at_once(&crowd, crowd_names);
    take_answers(&crowd, crowd_names);
    leaving = crowd.clients[who];
    ask_at_once(&crowd, names);
    while (crowd.world->handled < 2 * (CROWD + 2))
      usleep(1000);
    if (atomic_exchange(&leaving, -1) < 0) {
      crowd.clients[who] = -1;
      left++;
    }
    take_answers(&crowd, names);
    disperse(&crowd);
  }
  ck_assert_int_eq(left, 5);
}
END_TEST

START_TEST(test_stop_while_answers_are_put_off) {
  int stopped = 0;
  for (int round = 0; round < 200 && stopped < 3; round++) {
    struct crowd crowd = gather();
    ask_at_once(&crowd, crowd_names);
    take_answers(&crowd, crowd_names);
    dawdling = 0;
    dawdles = true;
    ask_at_once(&crowd, crowd_names);
    while (dawdling == 0 && crowd.world->handled < 2 * (CROWD + 2))
      usleep(100);
    stopped += dawdling > 0;
    for (size_t i = 0; i < 2; i++)
      close(crowd.holders[i]);
    free_world(crowd.world);
    dawdles = false;
    for (size_t i = 0; i < CROWD; i++)
      close(crowd.clients[i]);
  }
  ck_assert_int_eq(stopped, 3);
}
END_TEST

UNIT_MAIN("put_off", test_answers_put_off, test_answers_put_off_by_a_slow_thread,
          test_a_lone_client_is_not_put_off, test_a_client_that_leaves_while_put_off,
          test_stop_while_answers_are_put_off)
