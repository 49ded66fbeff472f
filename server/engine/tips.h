/* The tips of all memories: by name, and in order of what expires next. */
#ifndef ENGINE_TIPS_H
#define ENGINE_TIPS_H

#include "engine/tip.h"

struct tips;

struct tips *tips_create(void);
void tips_free(struct tips *tips); /* with the tips; accepts NULL */

/* Borrowed. The first returns NULL where there is none, the second makes it then,
 * and returns NULL where memory is short. */
struct tip *tips_find(struct tips *tips, const char *name);
struct tip *tips_get(struct tips *tips, const char *name);

/* Takes the tip out, and frees it. */
void tips_drop(struct tips *tips, struct tip *tip);

/* When the next row of all expires. */
int64_t tips_soonest(const struct tips *tips);

/* A memory of which a row expires at `now` or before, or NULL. It is not named
 * again until it has been scheduled. */
struct tip *tips_take_due(struct tips *tips, int64_t now);

/* Has to follow whenever a tip has another published version, before another
 * tip gets one. */
void tips_schedule(struct tips *tips, struct tip *tip);

#endif
