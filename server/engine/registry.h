/* The named memories in RAM. */
#ifndef ENGINE_REGISTRY_H
#define ENGINE_REGISTRY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "attention.h"
#include "base/problem.h"
#include "engine/memory.h"

struct registry;

struct registry *registry_create(void);
void registry_free(struct registry *registry);

/* The memory as it is now, held for the caller until memory_free(); NULL where
 * there is none. Takes no lock and never waits. */
struct memory *registry_pin(struct registry *registry, const char *name);

/* The same for those who want its rows: without those that have expired. NULL with the problem
 * filled if there is none of that name, or it can't be read. */
struct memory *registry_find(struct registry *registry, const char *name, struct problem *problem);

/* All memories in order of their names, each held, in an array that
 * registry_list_free() frees; NULL: no memory. */
struct memory **registry_list(struct registry *registry, size_t *count);
void registry_list_free(struct memory **list, size_t count);

/* Publishes a version in the place of the one of that name, if any, and takes the
 * caller's reference over; or takes a name out. False, and nothing has changed,
 * where RAM is short. */
bool registry_put(struct registry *registry, struct memory *memory);
bool registry_remove(struct registry *registry, const char *name);

#endif
