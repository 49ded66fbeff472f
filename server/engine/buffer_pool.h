/* Buffers that go from request to request. */
#ifndef ENGINE_BUFFER_POOL_H
#define ENGINE_BUFFER_POOL_H

#include <stddef.h>

struct buffer_pool;

/* NULL where there is no memory. */
struct buffer_pool *buffer_pool_create(void);
void buffer_pool_free(struct buffer_pool *pool); /* accepts NULL; after the last release */

/* `bytes` of memory, a power of two, at a multiple of 64; NULL if there is none. Any
 * thread may call these. */
void *buffer_pool_alloc(struct buffer_pool *pool, size_t bytes);
void buffer_pool_release(struct buffer_pool *pool, void *buffer, size_t bytes);

/* Bytes of all buffers that are free. */
size_t buffer_pool_bytes(struct buffer_pool *pool);

#endif
