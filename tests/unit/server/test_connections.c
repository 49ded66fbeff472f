/* The table of connections by itself: what counts as taken before libmicrohttpd has
 * opened it. The rest of it is tested through the server. */
#include "http/connections.h"

#include "unit.h"

static struct connections *create(void) {
  const struct connections_config config = {
      .rules = {.head_ms = 1000, .body_ms = 1000, .idle_ms = 1000}, .limit = 10};
  struct connections *connections = connections_create(&config);
  ck_assert_ptr_nonnull(connections);
  return connections;
}

START_TEST(test_what_comes_is_taken) {
  struct connections *connections = create();
  for (size_t i = 1; i <= 20; i++) {
    connections_expect(connections);
    ck_assert_uint_eq(connections_taken(connections), i);
  }
  connections_miss(connections);
  ck_assert_uint_eq(connections_taken(connections), 19);
  connections_free(connections);
}
END_TEST

/* libmicrohttpd drops a connection that it has no memory for, and tells nobody. */
START_TEST(test_what_does_not_come_is_forgotten) {
  struct connections *connections = create();
  connections_expect(connections);
  for (int i = 0; i < 30000 && connections_taken(connections) > 0; i++)
    usleep(1000);
  ck_assert_uint_eq(connections_taken(connections), 0);
  /* Should it come after all, nothing is counted twice. */
  connections_miss(connections);
  ck_assert_uint_eq(connections_taken(connections), 0);
  connections_free(connections);
  connections_free(NULL);
}
END_TEST

UNIT_MAIN("connections", test_what_comes_is_taken, test_what_does_not_come_is_forgotten)
