/* Backups and what is restored from them; a disk without room. */
#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>

#include "store_model.h"

struct copies {
  char directory[200], other[300], backup[300];
  struct model model;
  uint64_t state;
};

static size_t model_bytes(const struct model *model) {
  size_t bytes = 0;
  for (size_t i = 0; i < model->count; i++)
    for (size_t j = 0; j < model->memories[i].chunk_count; j++)
      bytes += model->memories[i].chunks[j].size;
  return bytes;
}

/* Enough bytes that most of a copy matters. */
static struct store *start(struct copies *copies) {
  *copies = (struct copies){.model = {.largest = FILL_MAX, .next_id = 1}, .state = 6};
  make_scratch(copies->directory, sizeof copies->directory);
  snprintf(copies->other, sizeof copies->other, "%s/restored", copies->directory);
  snprintf(copies->backup, sizeof copies->backup, "%s/it's a \"backup\"", copies->directory);
  struct store *store = open_good(copies->directory);
  for (int i = 0; i < 25 || copies->model.count < 3 || model_bytes(&copies->model) < 150000; i++)
    ck_assert_int_eq(random_transaction(store, &copies->model, &copies->state, NULL), STORE_OK);
  for (bool more = true; more;)
    ck_assert_int_eq(store_sweep(store, SIZE_MAX, &more), STORE_OK);
  return store;
}

static void end(struct copies *copies) {
  remove_scratch(copies->other);
  remove_scratch(copies->directory);
}

static void check_folder(const char *directory, const struct model *model) {
  struct store *store = open_good(directory);
  uint64_t digest;
  ck_assert_int_eq(store_digest(store, &digest), STORE_OK);
  ck_assert(digest == model_digest(model));
  store_close(store);
}

START_TEST(test_backup_and_restore) {
  struct copies copies;
  struct store *store = start(&copies);
  ck_assert_int_eq(store_backup(store, copies.backup), STORE_OK);
  struct stat status;
  ck_assert_int_eq(stat(copies.backup, &status), 0);
  ck_assert_int_eq(status.st_mode & 07777, 0600);
  const struct model then = copies.model;
  /* what comes later is not in it */
  for (int i = 0; i < 5; i++)
    ck_assert_int_eq(random_transaction(store, &copies.model, &copies.state, NULL), STORE_OK);
  /* not over a file, not into nowhere, and the store doesn't mind */
  ck_assert_int_eq(store_backup(store, copies.backup), STORE_FAILED);
  ck_assert_int_eq(errno, EEXIST);
  ck_assert_int_eq(store_backup(store, "/nowhere/at/all"), STORE_FAILED);
  ck_assert_int_eq(errno, ENOENT);
  ck_assert_ptr_null(store_failure(store));
  ck_assert_int_eq(random_transaction(store, &copies.model, &copies.state, NULL), STORE_OK);
  store_close(store);

  char error[512] = "";
  ck_assert(!store_restore(copies.backup, copies.directory, error, sizeof error));
  ck_assert(strstr(error, "holds a store already") != NULL);
  ck_assert_msg(store_restore(copies.backup, copies.other, error, sizeof error), "%s", error);
  check_folder(copies.other, &then);
  check_folder(copies.directory, &copies.model);
  /* it goes on from there */
  store = open_good(copies.other);
  struct model again = then;
  ck_assert_int_eq(random_transaction(store, &again, &copies.state, NULL), STORE_OK);
  store_close(store);
  check_folder(copies.other, &again);
  end(&copies);
}
END_TEST

START_TEST(test_restore_refuses_damage) {
  struct copies copies;
  struct store *store = start(&copies);
  ck_assert_int_eq(store_backup(store, copies.backup), STORE_OK);
  store_close(store);
  size_t size, refused = 0;
  unsigned char *bytes = read_whole(copies.backup, &size);
  char error[512];
  const size_t rounds = test_rounds(150);
  for (size_t i = 0; i < rounds; i++) {
    size_t at = next_random(&copies.state) % size;
    bool cut = i % 4 == 0;
    bytes[at] ^= 0x10;
    write_whole(copies.backup, bytes, cut ? at : size);
    bytes[at] ^= 0x10;
    empty_folder(copies.other);
    *error = '\0';
    if (store_restore(copies.backup, copies.other, error, sizeof error)) {
      check_folder(copies.other, &copies.model); /* bytes that nothing uses */
    } else {
      ck_assert_uint_gt(strlen(error), 20);
      char path[400];
      snprintf(path, sizeof path, "%s/%s", copies.other, DATABASE_NAME);
      ck_assert_int_ne(access(path, F_OK), 0);
      refused++;
    }
  }
  ck_assert_uint_gt(refused, rounds * 3 / 4);
  free(bytes);
  empty_folder(copies.other);
  write_whole(copies.backup, "", 0);
  ck_assert(!store_restore(copies.backup, copies.other, error, sizeof error));
  ck_assert(!store_restore("/nowhere", copies.other, error, sizeof error));
  ck_assert(strstr(error, "No such file") != NULL);
  end(&copies);
}
END_TEST

/* ---- A small disk of its own, in a child with mounts of its own ---- */

enum { CHILD_GOOD = 0, CHILD_BAD = 1, CHILD_CANNOT = 2 };

#define DEMAND(condition)                                                                          \
  do {                                                                                             \
    if (!(condition)) {                                                                            \
      fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                              \
      _exit(CHILD_BAD);                                                                            \
    }                                                                                              \
  } while (0)

static enum store_status put(struct store *store, int64_t id, int64_t chunk, size_t size) {
  char *bytes = malloc(size);
  DEMAND(bytes != NULL);
  memset(bytes, (int)chunk, size);
  enum store_status status = store_begin(store);
  if (status == STORE_OK) status = store_put_chunk(store, id, chunk, bytes, size);
  if (status == STORE_OK) status = store_commit(store);
  free(bytes);
  return status;
}

static enum store_status name_all(struct store *store, int64_t id, int64_t count, int64_t version) {
  int64_t chunks[200];
  for (int64_t i = 0; i < count; i++)
    chunks[i] = i + 1;
  const struct store_base base = {.id = id,
                                  .name = "m",
                                  .version = version,
                                  .chunks = chunks,
                                  .chunk_count = (size_t)count,
                                  .data = "b",
                                  .size = 1};
  enum store_status status = store_begin(store);
  if (status == STORE_OK) status = store_put_base(store, &base);
  return status == STORE_OK ? store_commit(store) : status;
}

static void check_chunks(struct store *store, int64_t id, int64_t count, size_t size) {
  struct buffer bytes;
  buffer_init(&bytes, 0);
  for (int64_t i = 1; i <= count; i++) {
    buffer_clear(&bytes);
    DEMAND(store_read_chunk(store, id, i, &bytes) == STORE_OK);
    DEMAND(bytes.length == size);
    for (size_t j = 0; j < size; j++)
      DEMAND(bytes.data[j] == (char)i);
  }
  buffer_free(&bytes);
}

static enum store_status drop_named(struct store *store, int64_t id) {
  enum store_status status = store_begin(store);
  if (status == STORE_OK) status = store_drop_memory(store, id, 1);
  return status == STORE_OK ? store_commit(store) : status;
}

static void fill_disk(const char *directory, size_t bulk_bytes) {
  char folder[300], ballast[300], error[512];
  snprintf(folder, sizeof folder, "%s/data", directory);
  snprintf(ballast, sizeof ballast, "%s/ballast", directory);
  static const char weight[400000];
  write_whole(ballast, weight, sizeof weight);
  struct store_options options = small_options();
  options.bulk_bytes = bulk_bytes;
  struct store *store = store_open_with(folder, &options, error, sizeof error);
  DEMAND(store != NULL);
  const size_t size = 50000;
  const int64_t id = store_new_id(store);
  int64_t count = 0;
  enum store_status status;
  while ((status = put(store, id, count + 1, size)) == STORE_OK)
    count++;
  DEMAND(status == STORE_FULL && count > 2);
  /* the store's own reserve, given up once */
  DEMAND(store_made_room(store) && !store_made_room(store));
  while ((status = put(store, id, count + 1, size)) == STORE_OK)
    count++;
  DEMAND(status == STORE_FULL && count < 200 && !store_made_room(store));
  DEMAND(store_failure(store) == NULL);
  check_chunks(store, id, count, size);
  DEMAND(put(store, id, count + 1, size) == STORE_FULL);
  /* room, and it goes on where it was */
  DEMAND(truncate(ballast, 200000) == 0);
  DEMAND(put(store, id, count + 1, size) == STORE_OK);
  count++;
  DEMAND(name_all(store, id, count, 1) == STORE_OK);
  int64_t more = count;
  while ((status = put(store, id, more + 1, size)) == STORE_OK)
    more++;
  DEMAND(status == STORE_FULL);
  check_chunks(store, id, more, size);
  store_close(store);
  /* a full disk keeps no store from being opened */
  store = store_open_with(folder, &options, error, sizeof error);
  if (!store) fprintf(stderr, "%s\n", error);
  DEMAND(store != NULL);
  check_chunks(store, id, count, size);
  /* what is dropped makes room */
  status = drop_named(store, id);
  if (status == STORE_FULL && store_made_room(store)) status = drop_named(store, id);
  DEMAND(status == STORE_OK);
  bool left = true;
  while (left)
    DEMAND(store_sweep(store, 100000, &left) == STORE_OK);
  const int64_t next = store_new_id(store);
  for (int64_t i = 1; i <= count / 2; i++)
    DEMAND(put(store, next, i, size) == STORE_OK);
  DEMAND(store_failure(store) == NULL);
  store_close(store);
}

static int on_small_disk(size_t bulk_bytes) {
  char directory[200];
  make_scratch(directory, sizeof directory);
  pid_t child = fork();
  ck_assert_int_ge(child, 0);
  if (child == 0) {
    if (unshare(CLONE_NEWNS) != 0 && unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) _exit(CHILD_CANNOT);
    if (mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("tmpfs", directory, "tmpfs", 0, "size=3m") != 0)
      _exit(CHILD_CANNOT);
    fill_disk(directory, bulk_bytes);
    _exit(CHILD_GOOD);
  }
  int status;
  ck_assert_int_eq(waitpid(child, &status, 0), child);
  ck_assert(WIFEXITED(status));
  remove_scratch(directory);
  return WEXITSTATUS(status);
}

/* Where nobody may mount, the faults of test_store_faults.c have to do. */
START_TEST(test_full_disk) {
  ck_assert_int_ne(on_small_disk(1 << 30), CHILD_BAD);
}
END_TEST

START_TEST(test_full_disk_in_bulk) {
  ck_assert_int_ne(on_small_disk(1), CHILD_BAD);
}
END_TEST

UNIT_MAIN("store_copies", test_backup_and_restore, test_restore_refuses_damage, test_full_disk,
          test_full_disk_in_bulk)
