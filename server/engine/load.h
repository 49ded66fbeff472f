/* Memories, from the store into RAM. */
#ifndef ENGINE_LOAD_H
#define ENGINE_LOAD_H

#include "engine/decoders.h"
#include "engine/tip.h"

struct loader {
  struct store *store;
  struct decoders *decoders;
  struct budget *budget;
};

/* Reads one memory as it was committed last, into a tip that has just been
 * made. A memory that is damaged is adopted as such: it has a name, a version
 * and the reason. False: no memory. */
bool load_tip(struct tip *tip, const struct loader *loader, const struct store_memory *stored);

#endif
