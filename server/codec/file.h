/* Files that the configuration names. */
#ifndef CODEC_FILE_H
#define CODEC_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "base/buffer.h"

/* For reading, closed on exec; NULL with "PATH: why" in `error`. */
FILE *file_open(const char *path, char *error, size_t error_size);

/* Appends the whole file; false with "PATH: why" in `error`, also where it is
 * longer than the buffer's limit. */
bool file_read(const char *path, struct buffer *out, char *error, size_t error_size);

/* Appends the next line, without its LF or CRLF; true where there was one. At
 * the end, or when something failed, false: *error is "" at the end. */
bool file_read_line(FILE *file, const char *path, struct buffer *line, char *error,
                    size_t error_size);

#endif
