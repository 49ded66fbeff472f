/* Memories, from the store into RAM. */
#ifndef ENGINE_LOAD_H
#define ENGINE_LOAD_H

#include "engine/head.h"

/* Reads one memory as it was committed last, into a head that has just been
 * made. A memory that is damaged is adopted as such: it has a name, a version
 * and the reason. False: no memory. */
bool load_head(struct head *head, struct store *store, const struct store_memory *stored,
               struct budget *budget);

#endif
