/* What a write is told that the store could not take. */
#ifndef ENGINE_REFUSAL_H
#define ENGINE_REFUSAL_H

#include "engine/writer.h"

/* As before it was applied. */
void write_reset(struct write *write);

/* Fails it; `failure` is store_failure(). */
void write_refuse(struct write *write, enum store_status status, const char *failure);

#endif
