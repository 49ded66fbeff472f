/* Backups. */
#ifndef ENGINE_COPYING_H
#define ENGINE_COPYING_H

#include "engine/writer.h"

/* Copies the store to write->path; between two transactions. */
void write_copy(struct write *write, struct store *store);

#endif
