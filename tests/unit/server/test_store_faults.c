/* Every operation of a sequence of writes that changes a file fails once: for the
 * one time or for ever after, as an I/O error, for want of room, or with the end
 * of the process. Then the store is opened again without faults, and has exactly
 * what was acknowledged; where the error left it open, it may have the write
 * under way, whole. */
#include <sys/wait.h>

#include "store_vfs.h"

enum { TRANSACTIONS = 11 };

struct outcome {
  bool direct;                /* both of SQLite's ways were taken */
  struct model before, after; /* acknowledged; with the write under way */
  enum store_status last;     /* of the first transaction that didn't succeed */
  size_t acknowledged;
};

static struct store *open_layered(const char *directory) {
  struct store_options options = small_options();
  options.vfs = "faulty";
  options.wal_bytes = 60000;
  options.bulk_bytes = 1;
  char error[512] = "";
  return store_open_with(directory, &options, error, sizeof error);
}

static void write_all(const char *directory, struct outcome *outcome, int report) {
  struct store *store = open_layered(directory);
  uint64_t state = 5;
  outcome->last = STORE_OK;
  for (int i = 0; store && i < TRANSACTIONS; i++) {
    uint64_t again = state;
    enum store_status status = random_transaction(store, &outcome->before, &state, &outcome->after);
    if (store->direct) outcome->direct = true;
    if (report >= 0 && status == STORE_OK) REQUIRE(write(report, "+", 1) == 1);
    if (status == STORE_OK) {
      outcome->acknowledged++;
      outcome->after = outcome->before;
    } else if (status == STORE_FAILED) {
      REQUIRE(store_failure(store) != NULL);
      REQUIRE(store_begin(store) == STORE_FAILED);
      outcome->last = status;
      break;
    } else {
      REQUIRE(status == STORE_FULL);
      REQUIRE(store_failure(store) == NULL);
      outcome->after = outcome->before; /* nothing of it has happened */
      outcome->last = status;
      if (i % 2) state = again;
    }
    bool more;
    if (i % 3 == 2) store_sweep(store, 4000, &more);
  }
  store_close(store);
}

static void check_outcome(const char *directory, const struct outcome *outcome, long at) {
  struct store *store = open_good(directory);
  uint64_t digest;
  ck_assert_int_eq(store_digest(store, &digest), STORE_OK);
  ck_assert_msg(digest == model_digest(&outcome->before) || digest == model_digest(&outcome->after),
                "operation %ld: not what was acknowledged (%zu transactions, status %d)", at,
                outcome->acknowledged, (int)outcome->last);
  store_close(store);
}

/* Fails each operation in turn, until there are no more. */
static long sweep_faults(enum fault fault, bool for_ever) {
  static struct layer layer;
  char directory[200];
  make_scratch(directory, sizeof directory);
  layer_install(&layer, "faulty");
  long at = 1;
  for (bool hit = true; hit; at++) {
    empty_folder(directory);
    struct outcome outcome = {.before = {.largest = 6000, .next_id = 1}};
    outcome.after = outcome.before;
    layer.fault = fault;
    layer.fault_at = at;
    layer.for_ever = for_ever;
    layer.hit = false;
    write_all(directory, &outcome, -1);
    hit = layer.hit;
    layer.fault = FAULT_NONE;
    check_outcome(directory, &outcome, at);
    if (!hit) {
      ck_assert_uint_eq(outcome.acknowledged, TRANSACTIONS);
      ck_assert(outcome.direct);
    }
  }
  layer_remove(&layer);
  remove_scratch(directory);
  return at;
}

START_TEST(test_io_error_once) {
  ck_assert_int_gt(sweep_faults(FAULT_IO, false), 200);
}
END_TEST

START_TEST(test_io_error_for_ever) {
  ck_assert_int_gt(sweep_faults(FAULT_IO, true), 200);
}
END_TEST

START_TEST(test_full_once) {
  ck_assert_int_gt(sweep_faults(FAULT_FULL, false), 150);
}
END_TEST

START_TEST(test_full_for_ever) {
  ck_assert_int_gt(sweep_faults(FAULT_FULL, true), 150);
}
END_TEST

/* What a child that was killed had acknowledged, by the bytes it wrote. */
static struct outcome replay(size_t acknowledged) {
  struct outcome outcome = {.before = {.largest = 6000, .next_id = 1},
                            .acknowledged = acknowledged};
  uint64_t state = 5;
  for (size_t i = 0; i < acknowledged; i++)
    random_transaction(NULL, &outcome.before, &state, NULL);
  outcome.after = outcome.before;
  random_transaction(NULL, &outcome.after, &state, NULL);
  return outcome;
}

static bool killed_at(struct layer *layer, const char *directory, long at, size_t *acknowledged) {
  int ends[2];
  ck_assert_int_eq(pipe(ends), 0);
  pid_t child = fork();
  ck_assert_int_ge(child, 0);
  if (child == 0) {
    struct outcome outcome = {.before = {.largest = 6000, .next_id = 1}};
    layer->fault = FAULT_KILL;
    layer->fault_at = at;
    write_all(directory, &outcome, ends[1]);
    _exit(0);
  }
  close(ends[1]);
  int status;
  ck_assert_int_eq(waitpid(child, &status, 0), child);
  char bytes[TRANSACTIONS + 1];
  ssize_t count = read(ends[0], bytes, sizeof bytes);
  close(ends[0]);
  ck_assert(count >= 0);
  *acknowledged = (size_t)count;
  ck_assert(WIFSIGNALED(status) || (WIFEXITED(status) && WEXITSTATUS(status) == 0));
  return WIFSIGNALED(status);
}

START_TEST(test_killed_at_every_operation) {
  static struct layer layer;
  char directory[200];
  make_scratch(directory, sizeof directory);
  layer_install(&layer, "faulty");
  size_t acknowledged = 0;
  long at = 1;
  for (bool killed = true; killed; at++) {
    empty_folder(directory);
    killed = killed_at(&layer, directory, at, &acknowledged);
    const struct outcome outcome = replay(acknowledged);
    check_outcome(directory, &outcome, at);
  }
  ck_assert_uint_eq(acknowledged, TRANSACTIONS);
  ck_assert_int_gt(at, 200);
  layer_remove(&layer);
  remove_scratch(directory);
}
END_TEST

UNIT_MAIN("store_faults", test_io_error_once, test_io_error_for_ever, test_full_once,
          test_full_for_ever, test_killed_at_every_operation)
