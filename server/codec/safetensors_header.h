/* The JSON header of safetensors: what safetensors.c has of it. */
#ifndef CODEC_SAFETENSORS_HEADER_H
#define CODEC_SAFETENSORS_HEADER_H

#include "codec/safetensors.h"

/* Tensors by where their data begin, without a hole from 0 to data_bytes. */
struct tensor_table {
  struct tensor *tensors;
  size_t count;
  size_t data_bytes;
};

/* False with the problem filled, and nothing to free. */
bool tensor_table_read(const char *text, size_t length, struct tensor_table *table,
                       struct problem *problem);
void tensor_table_free(struct tensor_table *table);

/* Appends what __metadata__ of a header, which was read, has under that name;
 * false where it has none. */
bool tensor_header_metadata(const char *text, size_t length, const char *name,
                            struct buffer *metadata);

#endif
