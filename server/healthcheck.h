/* `attentiond --healthcheck`: what a container's HEALTHCHECK runs. */
#ifndef HEALTHCHECK_H
#define HEALTHCHECK_H

#include <stdint.h>

/* Asks GET /healthz of the daemon at that address; 0 where it is alive, 1 with
 * a line on standard error where it isn't. Gives up after 5 seconds. */
int healthcheck(const char *address, uint16_t port);

#endif
