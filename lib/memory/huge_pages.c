/* Promotion: rows that stay are moved into huge pages.
 *
 * A pass over a memory larger than the caches touches a new page of 4 KiB every
 * few hundred nanoseconds per core, and each costs a walk through the page table,
 * two of them on a virtual machine. With pages of 2 MiB a query on 10,000 x 768 took 0.84 to
 * 0.97 of the time and 8 of them 0.83 to 0.88, one on 100,000 x 128 or 500,000 x 64 0.95
 * to 0.98, and batches that are bound by arithmetic still 0.96 to 0.99 (medians,
 * interleaved, Zen 4 in a virtual machine).
 *
 * The kernel moves what is there (MADV_COLLAPSE, since Linux 6.1), while others read
 * it: the addresses stay. So blocks are made in plain pages, quickly, and promoted
 * when it shows that they are here to stay. Rejected: huge pages from the start
 * (MADV_HUGEPAGE), for which filling 1 GB took 2 s instead of 0.35 s on a virtual
 * machine; an allocator of our own that puts blocks side by side, because malloc does
 * that already with blocks that are made one after another; leaving it to
 * the kernel's own thread, which takes ten minutes for a gigabyte.
 * Threads: `promoted` is the one thing that is written here. Two threads that
 * promote the same blocks waste time, nothing else. */
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "memory/snapshot.h"

#if defined(__linux__) && !defined(MADV_COLLAPSE)
#define MADV_COLLAPSE 25 /* which glibc names since 2.37 */
#endif

/* Bytes of the C library's own between two allocations, at most. */
enum { LARGEST_GAP = 1 << 14 };

/* Blocks of one call at most, and how many before the first one are looked at again: a
 * huge page may begin in them; several, because threads that decode blocks side by side
 * get them in almost the order of their rows. */
enum { MOST_RANGES = 64, BEFORE = 4 };

struct range {
  uintptr_t begin, end;
};

static struct range range_of(const struct attn_block *block) {
  const uintptr_t begin = (uintptr_t)block;
  return (struct range){begin, begin + attn_block_bytes(&block->shape, block->rows)};
}

static int by_address(const void *a, const void *b) {
  const struct range *one = a, *other = b;
  return (one->begin > other->begin) - (one->begin < other->begin);
}

/* The kernel takes the whole huge pages in it. That it has none to give, or knows
 * nothing of this, is no error: the rows stay where they are. */
static void collapse(const struct range *range) {
#ifdef MADV_COLLAPSE
  const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
  const uintptr_t begin = (range->begin + page - 1) / page * page, end = range->end / page * page;
  if (begin < end) (void)madvise((void *)begin, end - begin, MADV_COLLAPSE);
#else
  (void)range;
#endif
}

static void collapse_all(struct range *ranges, size_t count) {
  qsort(ranges, count, sizeof *ranges, by_address);
  struct range joined = ranges[0];
  for (size_t i = 1; i < count; i++) {
    if (ranges[i].begin - joined.end > LARGEST_GAP) {
      collapse(&joined);
      joined.begin = ranges[i].begin;
    }
    joined.end = ranges[i].end;
  }
  collapse(&joined);
}

size_t attn_snapshot_promote_huge_pages(const attn_snapshot *snapshot, size_t block, size_t bytes) {
  if (!snapshot) return 0;
  while (block < snapshot->block_count &&
         atomic_load_explicit(&snapshot->blocks[block]->promoted, memory_order_relaxed))
    block++;
  if (block >= snapshot->block_count) return snapshot->block_count;
  struct range ranges[MOST_RANGES];
  size_t count = 0, taken = 0;
  for (size_t b = block < BEFORE ? 0 : block - BEFORE; b < block; b++)
    ranges[count++] = range_of(snapshot->blocks[b]);
  do {
    struct attn_block *next = snapshot->blocks[block++];
    atomic_store_explicit(&next->promoted, true, memory_order_relaxed);
    ranges[count] = range_of(next);
    taken += ranges[count].end - ranges[count].begin;
    count++;
  } while (block < snapshot->block_count && count < MOST_RANGES && taken < bytes);
  collapse_all(ranges, count);
  return block;
}
