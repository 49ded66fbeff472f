/* Bytes that are not what was written: one flipped anywhere in any file, files cut
 * off anywhere. The store refuses, with a sentence, or says which memory is
 * damaged and gives the others; no byte that comes out is wrong, and no memory is
 * missing in silence. */
#include "store_model.h"

struct victim {
  char whole[200], broken[200]; /* folders */
  struct model model;
  size_t refused, damaged, unharmed;
};

/* How the files look: after a close; after a kill with a log; after a kill in a
 * bulk load. */
enum moment { CLOSED, KILLED, KILLED_IN_BULK };

static void make_victim(struct victim *victim, enum moment moment) {
  *victim = (struct victim){.model = {.largest = FILL_MAX, .next_id = 1}};
  make_scratch(victim->whole, sizeof victim->whole);
  make_scratch(victim->broken, sizeof victim->broken);
  char working[200];
  make_scratch(working, sizeof working);
  struct store_options options = small_options();
  options.bulk_bytes = moment == KILLED_IN_BULK ? 1 : 1 << 30;
  options.wal_bytes = 400000;
  char error[512] = "";
  struct store *store = store_open_with(working, &options, error, sizeof error);
  ck_assert_msg(store != NULL, "%s", error);
  uint64_t state = 4;
  for (int i = 0; i < 30 || (moment == KILLED_IN_BULK && !store->direct) || victim->model.count < 4;
       i++)
    ck_assert_int_eq(random_transaction(store, &victim->model, &state, NULL), STORE_OK);
  if (moment != CLOSED) copy_folder(working, victim->whole);
  store_close(store);
  if (moment == CLOSED) copy_folder(working, victim->whole);
  remove_scratch(working);
}

static void end_victim(struct victim *victim) {
  remove_scratch(victim->whole);
  remove_scratch(victim->broken);
}

static void check_memory(struct victim *victim, struct store *store, size_t index, bool *damaged,
                         const char *what, size_t at) {
  struct store_memory memory;
  ck_assert_msg(store_memory_at(store, index, &memory), "%s at %zu: a memory less", what, at);
  const struct model_memory *expected = &victim->model.memories[index];
  ck_assert_msg(memory.id == expected->id && strcmp(memory.name, expected->name) == 0 &&
                    memory.version == expected->version,
                "%s at %zu: another memory", what, at);
  uint64_t digest;
  enum store_status status = store_memory_digest(store, &memory, &digest);
  ck_assert(status == STORE_OK || status == STORE_DAMAGED);
  if (status == STORE_DAMAGED)
    *damaged = true;
  else
    ck_assert_msg(digest == model_memory_digest(expected), "%s at %zu: wrong bytes", what, at);
}

static void check_broken(struct victim *victim, const char *what, size_t at) {
  const struct store_options options = small_options();
  char error[512] = "";
  struct store *store = store_open_with(victim->broken, &options, error, sizeof error);
  if (!store) {
    ck_assert_msg(strlen(error) > 20, "%s at %zu: no sentence", what, at);
    victim->refused++;
    return;
  }
  struct store_memory memory;
  bool damaged = false;
  for (size_t i = 0; i < victim->model.count; i++)
    check_memory(victim, store, i, &damaged, what, at);
  ck_assert(!store_memory_at(store, victim->model.count, &memory));
  ck_assert_int_eq(store_version_floor(store), victim->model.floor);
  ++*(damaged ? &victim->damaged : &victim->unharmed);
  store_close(store);
}

static const char *const files[] = {DATABASE_NAME, DATABASE_NAME "-wal", DATABASE_NAME "-journal",
                                    WITNESS_NAME};

static unsigned char *read_named(const char *directory, const char *name, size_t *size) {
  char path[300];
  snprintf(path, sizeof path, "%s/%s", directory, name);
  return read_whole(path, size);
}

static void write_named(const char *directory, const char *name, const void *bytes, size_t size) {
  char path[300];
  snprintf(path, sizeof path, "%s/%s", directory, name);
  write_whole(path, bytes, size);
}

/* Half of the places in the first pages, where a byte matters most. */
static size_t place(uint64_t *state, size_t size) {
  size_t range = next_random(state) % 2 && size > 16384 ? 16384 : size;
  return next_random(state) % range;
}

static void break_files(struct victim *victim, uint64_t seed, size_t flips, size_t cuts) {
  uint64_t state = seed;
  for (size_t f = 0; f < sizeof files / sizeof files[0]; f++) {
    size_t size;
    unsigned char *bytes = read_named(victim->whole, files[f], &size);
    const size_t rounds = size == 0 ? 0 : size < 100 ? 20 : flips + cuts;
    for (size_t i = 0; i < rounds; i++) {
      copy_folder(victim->whole, victim->broken);
      if (i < flips) {
        const size_t at = place(&state, size);
        const unsigned char old = bytes[at];
        bytes[at] ^= (unsigned char)(next_random(&state) % 2 ? 1u << next_random(&state) % 8
                                                             : 1 + next_random(&state) % 255);
        write_named(victim->broken, files[f], bytes, size);
        check_broken(victim, files[f], at);
        bytes[at] = old;
      } else {
        const size_t at = place(&state, size);
        write_named(victim->broken, files[f], bytes, at);
        check_broken(victim, "cut", at);
      }
    }
    free(bytes);
  }
}

static void break_victim(enum moment moment, uint64_t seed) {
  struct victim victim;
  make_victim(&victim, moment);
  copy_folder(victim.whole, victim.broken);
  check_broken(&victim, "nothing", 0);
  ck_assert_uint_eq(victim.unharmed, 1);
  break_files(&victim, seed, test_rounds(300), test_rounds(120));
  ck_assert_uint_gt(victim.refused, 0);
  /* in a log, damage anywhere costs all behind it */
  ck_assert(victim.damaged > 0 || moment == KILLED);
  end_victim(&victim);
}

START_TEST(test_closed) {
  break_victim(CLOSED, 1);
}
END_TEST

START_TEST(test_killed) {
  break_victim(KILLED, 2);
}
END_TEST

START_TEST(test_killed_in_bulk) {
  break_victim(KILLED_IN_BULK, 3);
}
END_TEST

/* Pages that went back to an older state, each one valid in itself. */
START_TEST(test_stale_pages) {
  struct victim victim = {.model = {.largest = FILL_MAX, .next_id = 1}};
  make_scratch(victim.whole, sizeof victim.whole);
  make_scratch(victim.broken, sizeof victim.broken);
  uint64_t state = 8;
  size_t old_size = 0;
  unsigned char *old = NULL;
  for (int round = 0; round < 4; round++) {
    struct store *store = open_good(victim.whole);
    for (int i = 0; i < 8; i++)
      ck_assert_int_eq(random_transaction(store, &victim.model, &state, NULL), STORE_OK);
    store_close(store);
    if (round != 2) continue;
    old = read_named(victim.whole, DATABASE_NAME, &old_size);
  }
  size_t size;
  unsigned char *now = read_named(victim.whole, DATABASE_NAME, &size);
  for (size_t page = 0; (page + 1) * 4096 <= old_size && (page + 1) * 4096 <= size; page++) {
    if (memcmp(old + page * 4096, now + page * 4096, 4096) == 0) continue;
    copy_folder(victim.whole, victim.broken);
    unsigned char kept[4096];
    memcpy(kept, now + page * 4096, 4096);
    memcpy(now + page * 4096, old + page * 4096, 4096);
    write_named(victim.broken, DATABASE_NAME, now, size);
    memcpy(now + page * 4096, kept, 4096);
    check_broken(&victim, "stale page", page);
  }
  ck_assert_uint_gt(victim.refused + victim.damaged, 3);
  /* all of them: a whole that is sound and too old */
  copy_folder(victim.whole, victim.broken);
  write_named(victim.broken, DATABASE_NAME, old, old_size);
  victim.refused = 0;
  check_broken(&victim, "old file", 0);
  ck_assert_uint_eq(victim.refused, 1);
  free(old);
  free(now);
  end_victim(&victim);
}
END_TEST

/* A chunk that is sound in itself and of another time: the same number, other
 * bytes, a checksum that fits. Only the base's list knows better. */
START_TEST(test_other_chunk) {
  struct victim victim;
  make_victim(&victim, CLOSED);
  copy_folder(victim.whole, victim.broken);
  char path[300];
  snprintf(path, sizeof path, "%s/%s", victim.broken, DATABASE_NAME);
  const struct model_memory *memory = victim.model.memories;
  while (memory->chunk_count == 0)
    memory++;
  const int64_t number = memory->chunks[0].number;
  sqlite3 *db;
  ck_assert_int_eq(sqlite3_open(path, &db), SQLITE_OK);
  char *query = sqlite3_mprintf("UPDATE chunk SET data = x'6162', sum = %lld "
                                "WHERE id = %lld AND number = %lld",
                                (long long)checksum(RECORD_CHUNK, memory->id, number, "ab", 2),
                                (long long)memory->id, (long long)number);
  ck_assert_int_eq(sqlite3_exec(db, query, NULL, NULL, NULL), SQLITE_OK);
  ck_assert_int_eq(sqlite3_changes(db), 1);
  sqlite3_free(query);
  sqlite3_close(db);
  check_broken(&victim, "another chunk", 0);
  ck_assert_uint_eq(victim.damaged, 1);
  end_victim(&victim);
}
END_TEST

UNIT_MAIN("store_damage", test_closed, test_killed, test_killed_in_bulk, test_stale_pages,
          test_other_chunk)
