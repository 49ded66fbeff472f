/* Settling: rows that stay are moved into huge pages.
 *
 * A pass over a memory larger than the caches touches a new page of 4 KiB every
 * few hundred nanoseconds per core, and each costs a walk through the page table,
 * two of them on a virtual machine. With pages of 2 MiB a query on 10,000 x 768 took 0.84 to
 * 0.97 of the time and 8 of them 0.83 to 0.88, one on 100,000 x 128 or 500,000 x 64 0.95
 * to 0.98, and batches that are bound by arithmetic still 0.96 to 0.99 (medians, in
 * turns, Zen 4 in a virtual machine).
 *
 * The kernel moves what is there (MADV_COLLAPSE, since Linux 6.1), while others read
 * it: the addresses stay. So blocks are made in plain pages, quickly, and settled
 * when it shows that they are here to stay. Rejected: huge pages from the start
 * (MADV_HUGEPAGE), for which filling 1 GB took 2 s instead of 0.35 s on a virtual
 * machine; an allocator of our own that puts blocks side by side, because malloc does
 * that already with blocks that are made one after another; leaving it to
 * the kernel's own thread, which takes ten minutes for a gigabyte.
 *
 * Threads: a block's mark is the one thing that is written here. Two threads that
 * settle the same blocks do harm to nothing but their time. */
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "snapshot.h"

#if defined(__linux__) && !defined(MADV_COLLAPSE)
#define MADV_COLLAPSE 25 /* which glibc names since 2.37 */
#endif

/* Of the C library's own between two allocations. */
enum { LARGEST_GAP = 1 << 14 };

/* Blocks that are looked at together. Those before the first one are there because a
 * huge page may begin in them; several, because threads that decode blocks side by
 * side get them in almost the order of their rows. */
enum { MOST_TOGETHER = 64, BEFORE = 4 };

struct stretch {
  uintptr_t begin, end;
};

static struct stretch stretch_of(const struct attn_block *block) {
  const uintptr_t begin = (uintptr_t)block;
  return (struct stretch){begin, begin + attn_block_bytes(&block->shape, block->rows)};
}

static int by_address(const void *a, const void *b) {
  const struct stretch *one = a, *other = b;
  return (one->begin > other->begin) - (one->begin < other->begin);
}

/* The kernel takes the whole huge pages in it. That it has none to give, or knows
 * nothing of this, is no error: the rows stay where they are. */
static void collapse(const struct stretch *stretch) {
#ifdef MADV_COLLAPSE
  const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
  const uintptr_t begin = (stretch->begin + page - 1) / page * page,
                  end = stretch->end / page * page;
  if (begin < end) (void)madvise((void *)begin, end - begin, MADV_COLLAPSE);
#else
  (void)stretch;
#endif
}

static void collapse_all(struct stretch *stretches, size_t count) {
  qsort(stretches, count, sizeof *stretches, by_address);
  struct stretch joined = stretches[0];
  for (size_t i = 1; i < count; i++) {
    if (stretches[i].begin - joined.end > LARGEST_GAP) {
      collapse(&joined);
      joined.begin = stretches[i].begin;
    }
    joined.end = stretches[i].end;
  }
  collapse(&joined);
}

size_t attn_snapshot_settle(const attn_snapshot *snapshot, size_t block, size_t bytes) {
  if (!snapshot) return 0;
  while (block < snapshot->block_count &&
         atomic_load_explicit(&snapshot->blocks[block]->settled, memory_order_relaxed))
    block++;
  if (block >= snapshot->block_count) return snapshot->block_count;
  struct stretch together[MOST_TOGETHER];
  size_t count = 0, taken = 0;
  for (size_t b = block < BEFORE ? 0 : block - BEFORE; b < block; b++)
    together[count++] = stretch_of(snapshot->blocks[b]);
  do {
    struct attn_block *next = snapshot->blocks[block++];
    atomic_store_explicit(&next->settled, true, memory_order_relaxed);
    together[count] = stretch_of(next);
    taken += together[count].end - together[count].begin;
    count++;
  } while (block < snapshot->block_count && count < MOST_TOGETHER && taken < bytes);
  collapse_all(together, count);
  return block;
}
