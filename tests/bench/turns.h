/* Two benches of two builds that are measured in turn, a fraction of a second
 * each, so that what else the machine does meets both alike.
 *
 * A bench holds the turn while it prepares and while it measures, and passes it
 * on right before each measurement. Both sides of `make bench-compare` go
 * through the same cases in the same order, so each measurement of one stands
 * beside the same measurement of the other. A token goes to and fro through two
 * pipes; a bench that has ended closes its ends, and the other goes on alone.
 *
 * Rejected: starting each build for each case. Its memories would be made as
 * often as they are measured, which takes longer than the measurements. */
#ifndef BENCH_TURNS_H
#define BENCH_TURNS_H

#include <stdbool.h>

struct turns {
  int from, to; /* descriptors of pipes: a byte read is the turn */
};

/* Reads "FROM,TO"; the descriptors are not left to programs that the bench
 * starts, which would keep the pipes open. */
bool turns_open(struct turns *turns, const char *text);

/* Waits for the first turn. */
void turns_begin(const struct turns *turns);

/* Lets the other bench have a turn. Nothing if turns is NULL. */
void turns_pass(const struct turns *turns);

#endif
