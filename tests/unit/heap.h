/* What malloc() has given out: to see that RAM follows something. */
#ifndef TESTS_UNIT_HEAP_H
#define TESTS_UNIT_HEAP_H

#include <malloc.h>
#include <stddef.h>

/* Bytes; 0 where a sanitizer stands in for malloc(). */
static inline size_t heap_in_use(void) {
  const struct mallinfo2 info = mallinfo2();
  return info.uordblks + info.hblkhd;
}

#endif
