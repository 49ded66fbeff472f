/* Room that is kept for a full disk.
 *
 * What frees room takes some first: a log or a journal of the pages that it
 * changes. On a disk without a byte left a memory could not even be deleted, and
 * what was deleted could not be used again. So 2 MiB are kept in a file of their
 * own. When a transaction finds no room, they are given up, once; from then on the
 * store writes directly (see sqlite.c), and the same 2 MiB are kept as the room of
 * the journal, which SQLite leaves in place from one transaction to the next
 * (journal_mode PERSIST). A delete needs no more than the journal has, the pages
 * that it frees are there for later writes, and those have the journal too. When
 * the disk has room again and the log is back, so is the file.
 *
 * The invariant: the file holds no data, so it may be missing, empty or of any
 * size, and whatever fails here is no error. Blocks are allocated, not written,
 * where the file system can.
 *
 * What it can't help: where somebody else fills the disk while the log has more
 * than 2 MiB of new pages, they can't go into the database; then deletes work
 * through the log, for as long as the 2 MiB last.
 *
 * Rejected: a limit for the pages of the database in place of the file
 * (max_page_count), since others fill disks as well; truncating the database after
 * deletes, which takes its rewriting. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/store_private.h"

enum { RESERVE = 2 << 20, BLOCK = 512 };

void reserve_open(struct store *store) {
  char *path = path_in(store->directory, RESERVE_NAME);
  if (!path) return;
  store->reserve = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  free(path);
  struct stat status;
  store->reserved = store->reserve >= 0 && fstat(store->reserve, &status) == 0 &&
                    (int64_t)status.st_blocks * BLOCK >= RESERVE;
}

/* All or nothing: a part of it could be too little for a delete, and would be
 * missing elsewhere. */
void reserve_keep(struct store *store) {
  if (store->reserve < 0 || store->reserved || store->scarce || store->direct) return;
  if (room_left(store) < RESERVE) return;
  store->reserved = posix_fallocate(store->reserve, 0, RESERVE) == 0;
  if (!store->reserved) (void)!ftruncate(store->reserve, 0);
}

void reserve_keep_closed(struct store *store) {
  if (store_failure(store)) return;
  store->scarce = store->direct = false;
  reserve_keep(store);
}

bool reserve_give(struct store *store) {
  const bool given = store->reserved && ftruncate(store->reserve, 0) == 0;
  store->reserved = false;
  return given;
}

/* Blocks beyond the file's end; an empty journal is none to SQLite. */
void reserve_journal(struct store *store) {
  if (store->reserve < 0 || store->journal_reserved) return;
  char *path;
  if (asprintf(&path, "%s-journal", store->path) < 0) return;
  const int journal = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  free(path);
  if (journal < 0) return;
  store->journal_reserved = fallocate(journal, FALLOC_FL_KEEP_SIZE, 0, RESERVE) == 0;
  close(journal);
}

void reserve_close(struct store *store) {
  if (store->reserve >= 0) close(store->reserve);
}
