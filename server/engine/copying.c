/* Backups: SQLite copies the store in one go. That the copy can't be written is its
 * asker's affair and no failure of the store. */
#include "engine/copying.h"

#include <errno.h>
#include <string.h>

#include "engine/refusal.h"

void write_copy(struct write *write, struct store *store) {
  if (!store) {
    write->failed = true;
    problem_set(&write->problem, PROBLEM_NO_STORE, "",
                "this server keeps everything in RAM only (data_dir is empty)");
    return;
  }
  const enum store_status status = store_backup(store, write->path);
  const int error = errno;
  write->failed = status != STORE_OK;
  if (status == STORE_FAILED && !store_failure(store))
    problem_set(&write->problem, PROBLEM_INTERNAL, "", "the copy could not be written: %s",
                strerror(error));
  else if (status != STORE_OK)
    write_refuse(write, status, store_failure(store));
}
