/* Sockets that were answered and closed early, kept until the client has heard. */
#ifndef HTTP_LINGER_H
#define HTTP_LINGER_H

#include <stdbool.h>
#include <stdint.h>

struct linger_set;

/* NULL where memory is short. */
struct linger_set *linger_create(void);
void linger_free(struct linger_set *linger); /* closes what is left; accepts NULL */

/* Takes a duplicate of the descriptor, or does nothing where there are too
 * many already. `now` as in deadline.h. Any thread. */
void linger_add(struct linger_set *linger, int descriptor, int64_t now);

/* Reads and drops what came, closes what is done. One thread at a time, every
 * 100 ms or so while linger_any(). */
void linger_tick(struct linger_set *linger, int64_t now);
bool linger_any(struct linger_set *linger);

#endif
