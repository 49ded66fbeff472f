/* Memories from bodies, not yet published, and the RAM they take. */
#ifndef API_BUILDING_H
#define API_BUILDING_H

#include "api/api.h"
#include "codec/tensor_body.h"

/* The limits of shapes; false with the problem filled. */
bool building_check(const struct api *api, size_t rows, size_t key_dim, size_t value_dim,
                    struct problem *problem);

/* Of a body's ttl_seconds. Less than a millisecond is one, since 0 stands for
 * ever. */
int64_t building_ttl_ms(double seconds);

/* From a parsed body. What it takes from the budget is *charge, the caller's to
 * give back. NULL with the problem filled. */
struct memory *building_make(struct api *api, const char *name, const struct memory_body *body,
                             size_t *charge, struct problem *problem);

/* From a binary body that comes in pieces. */
struct import;

/* `length`: of the body; UINT64_MAX where it is not known. `ahead`: the writer may store
 * what has come while more comes. NULL where memory is short. */
struct import *import_create(struct api *api, uint64_t length, bool ahead);
bool import_feed(struct import *import, const char *bytes, size_t count, struct problem *problem);
struct memory *import_finish(struct import *import, const char *name, size_t *charge,
                             struct problem *problem);
/* Of a memory that was made: what of it was given to the writer ahead, or NULL. The
 * caller's. */
struct arriving *import_arriving(struct import *import);
void import_free(struct import *import); /* accepts NULL */

#endif
