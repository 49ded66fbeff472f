/* What the files that change a memory in the writer's hands share: tip.c and
 * tip_rows.c. */
#ifndef ENGINE_TIP_PRIVATE_H
#define ENGINE_TIP_PRIVATE_H

#include "engine/tip.h"

/* False, with the write failed. There is a memory: the writer has looked. */
bool tip_refuse(struct write *write, enum problem_code code, const char *pointer,
                const char *detail);
bool tip_check_sound(const struct tip *tip, struct write *write);

/* False, with the batch lost. */
bool tip_short_of_memory(struct tip_context *context);

size_t tip_key_dim(const struct tip *tip);
size_t tip_value_dim(const struct tip *tip);
size_t tip_row_count(const struct tip *tip); /* gathered ones included */

/* A larger change is stored as the chunks that it leads to, with a new base: to
 * write it down as a change first would be to write it twice. */
bool tip_is_large(const struct tip *tip, const struct change *change);

/* Applies the change as the next version, and stores it. False: the batch is
 * lost. */
bool tip_make_change(struct tip *tip, const struct change *change, struct tip_context *context);

/* Stores the change that leads to now.version, which is applied some other way. */
bool tip_put_change(struct tip *tip, const struct change *change, struct tip_context *context);

#endif
