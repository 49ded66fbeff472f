/* The folder of a store: made, locked, synced.
 *
 * The invariants: what is made here only its owner may read (0700, 0600), and a
 * name that was given is durable once its folder was synced, so whoever makes or
 * renames a file syncs the folder before anything rests on the name.
 *
 * The lock is flock() on a file of its own, held for the life of the store: the
 * kernel lets go of it however the process ends. SQLite's own locks were rejected
 * for this: they are POSIX locks, which any close() of the database file in the
 * same process drops, and their error can't say who has it. A file with a process
 * number alone was rejected, because it outlives its process. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/store_private.h"

char *path_in(const char *directory, const char *name) {
  char *path;
  return asprintf(&path, "%s/%s", directory, name) < 0 ? NULL : path;
}

static bool sync_named(const char *directory) {
  int descriptor = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) return false;
  bool done = fsync(descriptor) == 0;
  close(descriptor);
  return done;
}

bool folder_sync(const char *directory) {
  return sync_named(directory);
}

bool folder_sync_above(const char *path) {
  char *above = strdup(path);
  if (!above) return false;
  size_t length = strlen(above);
  while (length > 1 && above[length - 1] == '/')
    above[--length] = '\0';
  char *slash = strrchr(above, '/');
  if (slash) slash[slash == above] = '\0';
  bool done = sync_named(slash ? above : ".");
  free(above);
  return done;
}

bool folder_make(const char *directory, char *error, size_t error_size) {
  if (mkdir(directory, 0700) == 0) {
    if (folder_sync_above(directory)) return true;
  } else if (errno == EEXIST) {
    struct stat status;
    if (stat(directory, &status) == 0 && S_ISDIR(status.st_mode)) return true;
    errno = ENOTDIR;
  }
  snprintf(error, error_size, "the data directory %s can't be made: %s", directory,
           strerror(errno));
  return false;
}

bool file_make(const char *path) {
  int descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (descriptor >= 0) close(descriptor);
  return descriptor >= 0;
}

static void say_who(const char *directory, int descriptor, char *error, size_t error_size) {
  char text[32] = "";
  ssize_t length = pread(descriptor, text, sizeof text - 1, 0);
  long process = length > 0 ? strtol(text, NULL, 10) : 0;
  if (process > 0)
    snprintf(error, error_size,
             "the data directory %s is in use by another attentiond (process %ld)", directory,
             process);
  else
    snprintf(error, error_size, "the data directory %s is in use by another attentiond", directory);
}

/* For the sentence of whoever comes second; the lock is as good without it. */
static void leave_name(int descriptor) {
  char text[32];
  int length = snprintf(text, sizeof text, "%ld\n", (long)getpid());
  if (ftruncate(descriptor, 0) != 0 || pwrite(descriptor, text, (size_t)length, 0) != length)
    (void)!ftruncate(descriptor, 0);
}

int folder_lock(const char *directory, char *error, size_t error_size) {
  char *path = path_in(directory, LOCK_NAME);
  int descriptor = path ? open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600) : -1;
  if (descriptor < 0) {
    snprintf(error, error_size, "the data directory %s can't be locked: %s", directory,
             strerror(path ? errno : ENOMEM));
  } else if (flock(descriptor, LOCK_EX | LOCK_NB) != 0) {
    if (errno == EWOULDBLOCK)
      say_who(directory, descriptor, error, error_size);
    else
      snprintf(error, error_size, "the data directory %s can't be locked: %s", directory,
               strerror(errno));
    close(descriptor);
    descriptor = -1;
  } else {
    leave_name(descriptor);
  }
  free(path);
  return descriptor;
}
