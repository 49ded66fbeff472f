/* Copies of a store, and what is made of them.
 *
 * A backup is one file: the database as it is after the last commit, written anew
 * (VACUUM INTO), so that nothing of the log is needed and no free page comes
 * along; garbage that was not swept does. It is a copy of what is there, damage
 * included: the check is the restore's.
 *
 * The invariant of a restore: what is checked is what is used. The file is copied
 * first, next to where it shall be; the copy is checked whole, by the same code
 * that reads a store, is synced, and then takes its name in one step. So a store
 * that was restored is sound or is not there, whatever happens on the way.
 *
 * Rejected: SQLite's online backup, which copies pages one for one, free ones
 * too; restoring over a store, because then an error of the operator would cost
 * both. */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/store_private.h"

/* ---- Backup ---- */

static bool sync_file(const char *path) {
  int descriptor = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
  if (descriptor < 0) return false;
  bool done = fsync(descriptor) == 0;
  int number = errno;
  close(descriptor);
  errno = number;
  return done && folder_sync_above(path);
}

/* What went wrong may be the copy's, which is no failure of the store. */
static enum store_status status_of_copying(struct store *store, int result) {
  errno = sqlite3_system_errno(store->db);
  switch (result & 0xff) {
  case SQLITE_OK:
    return STORE_OK;
  case SQLITE_FULL:
    return STORE_FULL;
  case SQLITE_NOMEM:
    return STORE_NO_MEMORY;
  case SQLITE_CORRUPT:
    return STORE_DAMAGED;
  default:
    return result == SQLITE_IOERR_NOMEM  ? STORE_NO_MEMORY
           : result == SQLITE_IOERR_READ ? STORE_DAMAGED
                                         : STORE_FAILED;
  }
}

enum store_status store_backup(struct store *store, const char *path) {
  if (store->writing) return STORE_FAILED;
  /* An empty file is good enough for VACUUM INTO, and this one is the owner's
   * alone and new for certain. */
  int descriptor = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (descriptor < 0) return errno == ENOSPC || errno == EDQUOT ? STORE_FULL : STORE_FAILED;
  close(descriptor);
  sqlite3_stmt *statement = statement_get(store, COPY_INTO);
  int result = sqlite3_bind_text(statement, 1, path, -1, SQLITE_STATIC);
  if (result == SQLITE_OK) result = statement_run(statement);
  sqlite3_clear_bindings(statement);
  enum store_status status = status_of_copying(store, result);
  if (status == STORE_OK && !sync_file(path)) status = STORE_FAILED;
  if (status != STORE_OK) {
    int number = errno;
    unlink(path);
    errno = number;
  }
  return status;
}

/* ---- Restore ---- */

struct sentence {
  char *text;
  size_t size;
};

static bool __attribute__((format(printf, 2, 3))) say(struct sentence to, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(to.text, to.size, format, arguments);
  va_end(arguments);
  return false;
}

static bool exists(const char *directory, const char *name) {
  char *path = path_in(directory, name);
  bool there = !path || access(path, F_OK) == 0;
  free(path);
  return there;
}

static bool holds_store(const char *directory) {
  return exists(directory, DATABASE_NAME) || exists(directory, DATABASE_NAME "-wal");
}

/* A log next to the file has commits that the file lacks. */
static bool has_log(const char *file) {
  char *log;
  if (asprintf(&log, "%s-wal", file) < 0) return true;
  struct stat status;
  bool there = stat(log, &status) == 0 && status.st_size > 0;
  free(log);
  return there;
}

static bool copy_bytes(int from, int to) {
  struct stat status;
  if (fstat(from, &status) != 0) return false;
  for (off_t left = status.st_size; left > 0;) {
    ssize_t count = sendfile(to, from, NULL, left > (1 << 24) ? 1 << 24 : (size_t)left);
    if (count < 0 && errno == EINTR) continue;
    if (count == 0) errno = EIO; /* it became shorter */
    if (count <= 0) return false;
    left -= count;
  }
  return true;
}

static bool copy_file(const char *from, const char *to, struct sentence error) {
  int source = open(from, O_RDONLY | O_CLOEXEC);
  if (source < 0) return say(error, "%s can't be read: %s", from, strerror(errno));
  int target = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
  bool done = target >= 0 && copy_bytes(source, target);
  if (!done) say(error, "%s can't be copied to %s: %s", from, to, strerror(errno));
  if (target >= 0) close(target);
  close(source);
  return done;
}

/* SQLite's own check: one row "ok", or what is wrong. */
static bool check_pages(struct store *store, const char *file, struct sentence error) {
  sqlite3_stmt *statement;
  int result = sqlite3_prepare_v2(store->db, "PRAGMA integrity_check(1)", -1, &statement, NULL);
  if (result == SQLITE_OK) result = sqlite3_step(statement);
  const char *text = result == SQLITE_ROW ? (const char *)sqlite3_column_text(statement, 0) : NULL;
  bool sound = text && strcmp(text, "ok") == 0;
  if (!sound) say(error, "%s is damaged: %s", file, text ? text : sqlite3_errstr(result));
  sqlite3_finalize(statement);
  return sound;
}

static bool take_any(void *context, int64_t version, const void *data, size_t size) {
  (void)context;
  (void)version;
  (void)data;
  (void)size;
  return true;
}

static enum store_status check_chunks(struct store *store, const struct head *head,
                                      struct buffer *list, struct buffer *bytes) {
  enum store_status status = list_read(store, head, list);
  for (size_t i = 0; status == STORE_OK && i < list->length / LIST_ENTRY; i++) {
    buffer_clear(bytes);
    status = store_read_chunk(store, head->memory.id, list_chunk(list->data, i), bytes);
  }
  return status;
}

static bool check_memory(struct store *store, const struct head *head, const char *file,
                         struct sentence error) {
  struct buffer list, bytes;
  buffer_init(&list, 0);
  buffer_init(&bytes, 0);
  enum store_status status = store_read_base(store, head->memory.id, &bytes);
  if (status == STORE_OK) status = check_chunks(store, head, &list, &bytes);
  if (status == STORE_OK) status = store_read_changes(store, head->memory.id, take_any, NULL);
  buffer_free(&list);
  buffer_free(&bytes);
  if (status == STORE_OK) return true;
  return status == STORE_NO_MEMORY
             ? say(error, "memory is short")
             : say(error, "%s is damaged: the memory \"%s\" is not as it was written", file,
                   head->memory.name);
}

/* Whether it is a store at all, before an empty file would be made one. */
static bool check_whole(struct store *store, const char *file, struct sentence error) {
  char why[512];
  if (!store_load(store, why, sizeof why)) return say(error, "%s can't be restored: %s", file, why);
  if (!check_pages(store, file, error)) return false;
  for (size_t i = 0; i < store->head_count; i++)
    if (!check_memory(store, &store->heads[i], file, error)) return false;
  store_checkpoint(store);
  return !store_failure(store) || say(error, "%s", store_failure(store));
}

static bool restore_copy(const char *file, const char *directory, const char *copy,
                         const char *final, struct sentence error) {
  if (!copy_file(file, copy, error)) return false;
  struct stat status;
  if (stat(copy, &status) != 0 || status.st_size == 0)
    return say(error, "%s is no backup: it is empty", file);
  const struct store_options options = store_usual_options();
  struct store *store = store_create(directory, RESTORE_NAME, &options);
  if (!store) return say(error, "memory is short");
  if (!check_whole(store, file, error)) {
    store_abandon(store);
    return false;
  }
  store_close(store);
  if (has_log(copy) || !sync_file(copy)) return say(error, "%s can't be written", copy);
  /* of a store that was there before: what it knows is of no use here */
  char *witness = path_in(directory, WITNESS_NAME);
  if (witness) unlink(witness);
  free(witness);
  if (rename(copy, final) != 0 || !folder_sync(directory))
    return say(error, "%s can't be made: %s", final, strerror(errno));
  return true;
}

static void remove_copy(const char *copy) {
  static const char *const endings[] = {"", "-wal", "-journal"};
  for (size_t i = 0; i < sizeof endings / sizeof endings[0]; i++) {
    char *path;
    if (asprintf(&path, "%s%s", copy, endings[i]) < 0) continue;
    unlink(path);
    free(path);
  }
}

bool store_restore(const char *file, const char *directory, char *error_text, size_t error_size) {
  const struct sentence error = {error_text, error_size};
  if (!folder_make(directory, error.text, error.size)) return false;
  int lock = folder_lock(directory, error.text, error.size);
  if (lock < 0) return false;
  char *copy = path_in(directory, RESTORE_NAME), *final = path_in(directory, DATABASE_NAME);
  bool done = false;
  if (!copy || !final)
    say(error, "memory is short");
  else if (holds_store(directory))
    say(error, "the data directory %s holds a store already; name an empty one", directory);
  else if (has_log(file))
    say(error, "%s is a store's database with its log next to it and no backup", file);
  else
    done = restore_copy(file, directory, copy, final, error);
  if (copy && !done) remove_copy(copy);
  free(copy);
  free(final);
  close(lock);
  return done;
}
