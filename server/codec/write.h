/* JSON that we write: a thin layer over struct buffer that puts the commas.
 * The bytes go straight to the reply; there is no tree in between. */
#ifndef CODEC_WRITE_H
#define CODEC_WRITE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"

struct json_writer {
  struct buffer *out;
  bool comma; /* the next value or name has something before it */
};

void json_begin(struct json_writer *writer, struct buffer *out);
void json_open_object(struct json_writer *writer);
void json_close_object(struct json_writer *writer);
void json_open_array(struct json_writer *writer);
void json_close_array(struct json_writer *writer);
void json_name(struct json_writer *writer, const char *name);
void json_chars(struct json_writer *writer, const char *text, size_t length);
void json_text(struct json_writer *writer, const char *text); /* a C string */
void json_int64(struct json_writer *writer, int64_t value);
void json_float(struct json_writer *writer, float value);
void json_double(struct json_writer *writer, double value);  /* shortest of %.15g, %.17g */
void json_raw(struct json_writer *writer, const char *json); /* a value already in JSON */

/* Members of the open object by jansson, which gets them as an object in the terms
 * of its json_pack(): "{s:s,s:{s:b}}". For what is written as a whole and has no
 * number with a fraction (jansson prints 0.1 with 17 digits). Texts are UTF-8. */
void json_members(struct json_writer *writer, const char *format, ...);

/* [v0,v1,...] and [[...],...]: the hot loops, numbers by number_print(). */
void json_floats(struct json_writer *writer, const float *values, size_t count);
void json_matrix(struct json_writer *writer, const float *values, size_t rows, size_t cols);

#endif
