/* What was acknowledged at least.
 *
 * SQLite takes a write-ahead log whose end is damaged or cut off for one that was
 * never finished: it drops the commits behind the damage and says nothing. They
 * may have been acknowledged. So a small file has the number of the last commit
 * that was, and a store with fewer commits than that is refused.
 *
 * The invariant: the witness is written after a commit became durable and before
 * it is acknowledged, so on the disk it is never ahead of the database. It may be
 * behind: it isn't synced, which would double the price of a commit, and a loss
 * of power can leave it old, empty or torn. Such a witness knows less; that is no
 * error, and neither is one that could not be written. */
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "store/store_private.h"

enum { WITNESS_BYTES = 16 };

int64_t witness_open(struct store *store) {
  char *path = path_in(store->directory, WITNESS_NAME);
  if (!path) return 0;
  store->witness = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  free(path);
  unsigned char bytes[WITNESS_BYTES];
  if (store->witness < 0 || pread(store->witness, bytes, sizeof bytes, 0) != WITNESS_BYTES)
    return 0;
  if (bytes_load_u64(bytes + 8) != checksum(RECORD_WITNESS, 0, 0, bytes, 8)) return 0;
  int64_t commits = (int64_t)bytes_load_u64(bytes);
  return commits > 0 ? commits : 0;
}

void witness_write(struct store *store) {
  if (store->witness < 0) return;
  unsigned char bytes[WITNESS_BYTES];
  bytes_store_u64(bytes, (uint64_t)store->root.commits);
  bytes_store_u64(bytes + 8, checksum(RECORD_WITNESS, 0, 0, bytes, 8));
  (void)!pwrite(store->witness, bytes, sizeof bytes, 0);
}
