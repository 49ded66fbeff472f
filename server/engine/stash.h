/* Memory that goes from request to request. */
#ifndef ENGINE_STASH_H
#define ENGINE_STASH_H

#include <stddef.h>

struct stash;

/* NULL where there is no memory. */
struct stash *stash_create(void);
void stash_free(struct stash *stash); /* accepts NULL; when nothing is on loan */

/* `bytes` of memory, a power of two, at a multiple of 64; NULL where there is none.
 * Any thread may call these. */
void *stash_lend(struct stash *stash, size_t bytes);
void stash_take_back(struct stash *stash, void *piece, size_t bytes);

/* In bytes, of what is not on loan. */
size_t stash_kept(struct stash *stash);

#endif
