/* The store's behaviour: what was committed is what is read, through any number
 * of openings, held against a plain model; what was not committed leaves nothing;
 * garbage goes; one daemon at a time; older and newer formats. */
#include "store/store.h"

#include <sys/wait.h>

#include "store_model.h"

static void check_equal(struct store *store, const struct model *model) {
  uint64_t digest;
  ck_assert_int_eq(store_digest(store, &digest), STORE_OK);
  struct store_memory memory;
  for (size_t i = 0; i < model->count; i++) {
    ck_assert(store_memory_at(store, i, &memory));
    ck_assert_int_eq(memory.id, model->memories[i].id);
    ck_assert_str_eq(memory.name, model->memories[i].name);
    ck_assert_int_eq(memory.base_version, model->memories[i].base_version);
    ck_assert_int_eq(memory.version, model->memories[i].version);
  }
  ck_assert(!store_memory_at(store, model->count, &memory));
  ck_assert_int_eq(store_version_floor(store), model->floor);
  ck_assert(digest == model_digest(model));
}

/* What the tables hold, asked behind the store's back: garbage has to go. */
static int64_t ask(const char *directory, const char *query) {
  char path[400];
  snprintf(path, sizeof path, "%s/%s", directory, DATABASE_NAME);
  sqlite3 *db;
  ck_assert_int_eq(sqlite3_open(path, &db), SQLITE_OK);
  sqlite3_stmt *statement;
  ck_assert_int_eq(sqlite3_prepare_v2(db, query, -1, &statement, NULL), SQLITE_OK);
  ck_assert_int_eq(sqlite3_step(statement), SQLITE_ROW);
  int64_t answer = sqlite3_column_int64(statement, 0);
  sqlite3_finalize(statement);
  sqlite3_close(db);
  return answer;
}

static void check_no_garbage(const char *directory, const struct model *model) {
  int64_t chunks = 0, changes = 0;
  for (size_t i = 0; i < model->count; i++) {
    chunks += (int64_t)model->memories[i].chunk_count;
    changes += (int64_t)model->memories[i].change_count;
  }
  ck_assert_int_eq(ask(directory, "SELECT count(*) FROM chunk"), chunks);
  ck_assert_int_eq(ask(directory, "SELECT count(*) FROM change"), changes);
  ck_assert_int_eq(ask(directory, "SELECT count(*) FROM base"), (int64_t)model->count);
}

START_TEST(test_model) {
  char directory[200];
  make_scratch(directory, sizeof directory);
  struct model model = {.largest = FILL_MAX};
  uint64_t state = 11;
  for (size_t round = 0; round < test_rounds(30); round++) {
    struct store *store = open_good(directory);
    check_equal(store, &model);
    for (int i = 0; i < 12; i++) {
      if (next_random(&state) % 5 == 0) { /* begun, not committed */
        struct model lost = model;
        ck_assert_int_eq(store_begin(store), STORE_OK);
        for (int j = 0; j < 3; j++)
          ck_assert_int_eq(random_write(store, &lost, &state), STORE_OK);
        store_rollback(store);
      }
      ck_assert_int_eq(random_transaction(store, &model, &state, NULL), STORE_OK);
      bool more = false;
      if (next_random(&state) % 4 == 0) {
        ck_assert_int_eq(store_sweep(store, next_random(&state) % 60000, &more), STORE_OK);
      }
    }
    if (round % 3 == 0) { /* what opening would have to do now is done already */
      bool more = true;
      while (more)
        ck_assert_int_eq(store_sweep(store, 30000, &more), STORE_OK);
      store_close(store);
      check_no_garbage(directory, &model);
    } else {
      store_close(store);
    }
  }
  store_close(open_good(directory));
  check_no_garbage(directory, &model);
  remove_scratch(directory);
}
END_TEST

UNIT_MAIN("store", test_model)
