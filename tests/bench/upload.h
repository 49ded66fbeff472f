/* Large memories for the daemon that is measured. */
#ifndef BENCH_UPLOAD_H
#define BENCH_UPLOAD_H

#include <stddef.h>
#include <stdint.h>

/* PUTs a memory of random rows (key_dim = value_dim = dim) and ends the program
 * where the daemon does not take it. */
void upload_memory(uint16_t port, const char *name, size_t rows, size_t dim);

#endif
