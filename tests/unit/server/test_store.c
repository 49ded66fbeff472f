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

/* ---- One at a time ---- */

START_TEST(test_lock) {
  char directory[200], error[512] = "";
  make_scratch(directory, sizeof directory);
  struct store *store = open_good(directory);
  int said[2];
  ck_assert_int_eq(pipe(said), 0);
  pid_t child = fork();
  ck_assert_int_ge(child, 0);
  if (child == 0) {
    struct store *second = store_open(directory, error, sizeof error);
    (void)!write(said[1], error, strlen(error));
    _exit(second ? 1 : 0);
  }
  close(said[1]);
  int status;
  ck_assert_int_eq(waitpid(child, &status, 0), child);
  ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  ssize_t length = read(said[0], error, sizeof error - 1);
  close(said[0]);
  ck_assert_int_gt(length, 0);
  error[length] = '\0';
  char expected[512];
  snprintf(expected, sizeof expected,
           "the data directory %s is in use by another attentiond (process %ld)", directory,
           (long)getpid());
  ck_assert_str_eq(error, expected);
  ck_assert(!store_restore("/dev/null", directory, error, sizeof error));
  ck_assert_str_eq(error, expected);
  store_close(store);
  store_close(open_good(directory));
  remove_scratch(directory);
}
END_TEST

static mode_t mode_of(const char *directory, const char *name) {
  char path[700];
  struct stat status;
  snprintf(path, sizeof path, "%s/%s", directory, name);
  return stat(path, &status) == 0 ? status.st_mode & 07777 : 0;
}

START_TEST(test_folder) {
  char scratch[200], directory[300], error[512] = "";
  make_scratch(scratch, sizeof scratch);
  snprintf(directory, sizeof directory, "%s/none/data", scratch);
  ck_assert_ptr_null(store_open(directory, error, sizeof error));
  ck_assert(strstr(error, "can't be made: No such file") != NULL);
  snprintf(directory, sizeof directory, "%s/data", scratch);
  struct store *store = open_good(directory);
  ck_assert_str_eq(store_directory(store), directory);
  ck_assert_int_eq(mode_of(directory, ""), 0700);
  ck_assert_int_eq(mode_of(directory, DATABASE_NAME), 0600);
  ck_assert_int_eq(mode_of(directory, DATABASE_NAME "-wal"), 0600);
  ck_assert_int_eq(mode_of(directory, WITNESS_NAME), 0600);
  store_close(store);
  ck_assert_int_eq(mode_of(directory, DATABASE_NAME "-wal"), 0); /* gone */
  char file[400];
  snprintf(file, sizeof file, "%s/%s", directory, DATABASE_NAME);
  ck_assert_ptr_null(store_open(file, error, sizeof error));
  ck_assert(strstr(error, "Not a directory") != NULL);
  /* a database that went missing is not taken for a new one */
  ck_assert_int_eq(unlink(file), 0);
  ck_assert_ptr_null(store_open(directory, error, sizeof error));
  ck_assert(strstr(error, "is missing") != NULL);
  /* nor is any other file taken for a store */
  write_whole(file, "attention is all you need, and this is no database at all", 57);
  ck_assert_ptr_null(store_open(directory, error, sizeof error));
  ck_assert(strstr(error, "restore a backup") != NULL);
  empty_folder(directory);
  ask(directory, "SELECT 1");
  sqlite3 *db;
  ck_assert_int_eq(sqlite3_open(file, &db), SQLITE_OK);
  ck_assert_int_eq(sqlite3_exec(db, "CREATE TABLE t (x)", NULL, NULL, NULL), SQLITE_OK);
  sqlite3_close(db);
  ck_assert_ptr_null(store_open(directory, error, sizeof error));
  ck_assert(strstr(error, "is not a store of attentiond") != NULL);
  remove_scratch(directory);
  remove_scratch(scratch);
}
END_TEST

/* ---- Formats ---- */

START_TEST(test_formats) {
  char directory[200], error[512] = "";
  make_scratch(directory, sizeof directory);
  struct model model = {.largest = FILL_MAX, .next_id = 1};
  uint64_t state = 2;
  struct store *store = open_good(directory);
  for (int i = 0; i < 10; i++)
    ck_assert_int_eq(random_transaction(store, &model, &state, NULL), STORE_OK);
  store_close(store);

  /* an attentiond that knows two formats more; the first of its steps fails */
  struct migration steps[] = {store_migrations[0],
                              {"CREATE TABLE label (id INTEGER PRIMARY KEY, text TEXT)"},
                              {"ALTER TABLE head ADD COLUMN nonsense INTEGER; SELECT wrong"}};
  struct store_options newer = small_options();
  newer.migrations = steps;
  newer.migration_count = 3;
  ck_assert_uint_eq(store_migration_count, 1);
  ck_assert_ptr_null(store_open_with(directory, &newer, error, sizeof error));
  ck_assert(strstr(error, "can't be brought up to date") != NULL);
  ck_assert_int_eq(ask(directory, "PRAGMA user_version"), 1);
  ck_assert_int_eq(ask(directory, "SELECT count(*) FROM sqlite_schema WHERE name = 'label'"), 0);
  store = open_good(directory); /* as if nothing had been tried */
  check_equal(store, &model);
  store_close(store);

  steps[2].sql = "ALTER TABLE head ADD COLUMN label INTEGER";
  store = store_open_with(directory, &newer, error, sizeof error);
  ck_assert_msg(store != NULL, "%s", error);
  check_equal(store, &model);
  ck_assert_int_eq(random_transaction(store, &model, &state, NULL), STORE_OK);
  store_close(store);
  ck_assert_int_eq(ask(directory, "PRAGMA user_version"), 3);

  ck_assert_ptr_null(store_open(directory, error, sizeof error));
  ck_assert(strstr(error, "was written by a newer attentiond: it has format 3, this one knows up "
                          "to 1") != NULL);
  store = store_open_with(directory, &newer, error, sizeof error);
  check_equal(store, &model);
  store_close(store);
  remove_scratch(directory);
}
END_TEST

/* ---- The engine's mistakes, and ends of transactions ---- */

START_TEST(test_refused_writes) {
  char directory[200];
  make_scratch(directory, sizeof directory);
  struct store *store = open_good(directory);
  int64_t id = store_new_id(store), chunks[] = {1, 2};
  ck_assert_int_gt(id, 0);
  ck_assert_int_gt(store_new_id(store), id);
  /* without a transaction */
  ck_assert_int_eq(store_put_chunk(store, id, 1, "a", 1), STORE_FAILED);
  ck_assert_int_eq(store_commit(store), STORE_FAILED);
  store_rollback(store);
  ck_assert_ptr_null(store_failure(store));
  /* an empty one */
  ck_assert_int_eq(store_begin(store), STORE_OK);
  ck_assert_int_eq(store_commit(store), STORE_OK);

  struct store_base base = {.id = id,
                            .name = "m",
                            .version = 5,
                            .chunks = chunks,
                            .chunk_count = 2,
                            .data = "base",
                            .size = 4};
  ck_assert_int_eq(store_begin(store), STORE_OK);
  ck_assert_int_eq(store_put_chunk(store, id, 1, "a", 1), STORE_OK);
  /* names a chunk that isn't there: rolled back, and stays so until the next begin */
  ck_assert_int_eq(store_put_base(store, &base), STORE_DAMAGED);
  ck_assert_int_eq(store_put_chunk(store, id, 2, "b", 1), STORE_DAMAGED);
  ck_assert_int_eq(store_commit(store), STORE_DAMAGED);

  ck_assert_int_eq(store_begin(store), STORE_OK);
  ck_assert_int_eq(store_put_chunk(store, id, 1, "a", 1), STORE_OK);
  ck_assert_int_eq(store_put_chunk(store, id, 2, NULL, 0), STORE_OK);
  ck_assert_int_eq(store_put_base(store, &base), STORE_OK);
  ck_assert_int_eq(store_put_change(store, id, 6, NULL, 0), STORE_OK);
  ck_assert_int_eq(store_commit(store), STORE_OK);

  ck_assert_int_eq(store_begin(store), STORE_OK);
  ck_assert_int_eq(store_put_change(store, id, 8, "gap", 3), STORE_DAMAGED);
  ck_assert_int_eq(store_begin(store), STORE_OK);
  ck_assert_int_eq(store_put_chunk(store, id, 1, "again", 5), STORE_DAMAGED);
  ck_assert_ptr_null(store_failure(store));
  store_close(store);

  store = open_good(directory);
  struct store_memory memory;
  ck_assert(store_memory_at(store, 0, &memory));
  ck_assert_int_eq(memory.base_version, 5);
  ck_assert_int_eq(memory.version, 6);
  struct buffer bytes;
  buffer_init(&bytes, 0);
  ck_assert_int_eq(store_read_base(store, id, &bytes), STORE_OK);
  ck_assert_int_eq(store_read_chunk(store, id, 1, &bytes), STORE_OK);
  ck_assert_int_eq(store_read_chunk(store, id, 2, &bytes), STORE_OK);
  ck_assert_str_eq(buffer_text(&bytes), "basea");
  ck_assert_int_eq(store_read_chunk(store, id, 3, &bytes), STORE_DAMAGED);
  ck_assert_int_eq(store_read_base(store, id + 1, &bytes), STORE_DAMAGED);
  ck_assert_str_eq(buffer_text(&bytes), "basea");
  buffer_free(&bytes);
  store_close(store);
  remove_scratch(directory);
}
END_TEST

/* A load that was given up: its chunks go at once when it is dropped, and
 * otherwise with the next opening. */
START_TEST(test_orphans) {
  char directory[200];
  make_scratch(directory, sizeof directory);
  const struct model empty = {.next_id = 1};
  for (int dropped = 0; dropped < 2; dropped++) {
    struct store *store = open_good(directory);
    int64_t id = store_new_id(store);
    for (int64_t i = 1; i < 20; i++) {
      char bytes[9000] = {(char)i};
      ck_assert_int_eq(store_begin(store), STORE_OK);
      ck_assert_int_eq(store_put_chunk(store, id, i, bytes, sizeof bytes), STORE_OK);
      ck_assert_int_eq(store_commit(store), STORE_OK);
    }
    if (dropped) {
      ck_assert_int_eq(store_begin(store), STORE_OK);
      ck_assert_int_eq(store_drop_memory(store, id, 0), STORE_OK);
      ck_assert_int_eq(store_commit(store), STORE_OK);
      bool more = true;
      int sweeps = 0;
      for (; more; sweeps++)
        ck_assert_int_eq(store_sweep(store, 20000, &more), STORE_OK);
      ck_assert_int_gt(sweeps, 6);
    }
    store_close(store);
    ck_assert_int_eq(ask(directory, "SELECT count(*) FROM chunk"), dropped ? 0 : 19);
    store_close(open_good(directory));
    check_no_garbage(directory, &empty);
  }
  remove_scratch(directory);
}
END_TEST

UNIT_MAIN("store", test_model, test_lock, test_folder, test_formats, test_refused_writes,
          test_orphans)
