/* Every operation of a sequence of writes that changes a file fails once: for the
 * one time or for ever after, as an I/O error, for want of room, or with the end
 * of the process. Then the store is opened again without faults, and has exactly
 * what was acknowledged; where the error left it open, it may have the write
 * under way, whole. */
#include <sys/wait.h>

#include "store_vfs.h"

enum { TRANSACTIONS = 14 };

struct outcome {
  struct model before, after; /* acknowledged; with the write under way */
  enum store_status last;     /* of the first transaction that didn't succeed */
  size_t acknowledged;
};

static struct store *open_layered(const char *directory) {
  struct store_options options = small_options();
  options.vfs = "faulty";
  options.wal_bytes = 60000;
  options.bulk_bytes = 6000;
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
    if (report >= 0 && status == STORE_OK) ck_assert_int_eq(write(report, "+", 1), 1);
    if (status == STORE_OK) {
      outcome->acknowledged++;
      outcome->after = outcome->before;
    } else if (status == STORE_FAILED) {
      ck_assert_ptr_nonnull(store_failure(store));
      ck_assert_int_eq(store_begin(store), STORE_FAILED);
      outcome->last = status;
      break;
    } else {
      ck_assert_int_eq(status, STORE_FULL);
      ck_assert_ptr_null(store_failure(store));
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
    if (!hit) ck_assert_uint_eq(outcome.acknowledged, TRANSACTIONS);
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

UNIT_MAIN("store_faults", test_io_error_once, test_io_error_for_ever, test_full_once,
          test_full_for_ever)
