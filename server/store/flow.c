/* Bulk writing and the kernel's cache.
 *
 * What is written in bulk goes through the page cache, where two things are left
 * to chance. The kernel begins to write when it likes, mostly at the fsync of the
 * commit, and the disk rests before while the processor rests then. And the pages
 * stay, a second copy in RAM of what the memory has there already, read by nobody
 * until the next start. Each has to be found and, where a hypervisor has taken
 * back what was free, be fetched from it again: that alone made half of the time
 * of an import.
 *
 * So after every FLOW_BYTES of chunks the kernel is told that nothing of the file
 * is needed. It starts to write what is dirty, without waiting, and frees what it
 * has written, which is where the next pages come from. An import of 1 GB took 3.85 s
 * without, 2.6 s with it; telling it at the commits alone made that 3.1 s, and
 * beginning to write without freeing 2.7 s. 8 or 32 MiB in place of 16 make no
 * difference.
 *
 * The price is a cold start after an import: then the file is read from the
 * disk. It was read once in the life of a process anyway.
 *
 * It is advice. Dirty pages are not lost by it, an error of writing is still told
 * by SQLite's fsync, and where the file can't be opened a second time nothing
 * happens. The descriptor has to live as long as SQLite's own: closing any one of a
 * file gives back all of the process's locks on it. O_DIRECT would save the copy
 * too, but wants a VFS of our own in SQLite's place. */
#include <fcntl.h>
#include <unistd.h>

#include "store/store_private.h"

#define FLOW_BYTES ((size_t)16 << 20)

void flow_open(struct store *store) {
  store->file = open(store->path, O_RDONLY | O_CLOEXEC);
}

void flow_close(struct store *store) {
  if (store->file >= 0) close(store->file);
  store->file = -1;
}

static void flow(struct store *store) {
  store->flowing = 0;
  if (store->file >= 0) (void)posix_fadvise(store->file, 0, 0, POSIX_FADV_DONTNEED);
}

void flow_chunk(struct store *store, size_t bytes) {
  if (!store->direct) return;
  store->flowing += bytes;
  if (store->flowing >= FLOW_BYTES) flow(store);
}

void flow_commit(struct store *store) {
  if (store->direct && store->chunk_bytes > 0) flow(store);
}
