/* The header of tensors that we write. It is all there is to writing: the
 * numbers behind it are as they lie in memory (or are streamed), so nobody needs
 * them gathered here. */
#include <stdint.h>
#include <string.h>

#include "base/bytes.h"
#include "codec/safetensors.h"
#include "codec/write.h"

#define LENGTH_BYTES 8
#define ALIGNMENT    8

static void write_notes(struct json_writer *writer, const struct tensors_outline *outline) {
  json_name(writer, "__metadata__");
  json_open_object(writer);
  for (size_t i = 0; i < outline->note_count; i++) {
    json_name(writer, outline->notes[i].name);
    json_chars(writer, outline->notes[i].text, outline->notes[i].length);
  }
  json_close_object(writer);
}

/* Sizes may be beyond int64_t, in theory; %zu says them all. */
static void write_sizes(struct json_writer *writer, const char *name, const size_t *sizes,
                        size_t count) {
  json_name(writer, name);
  json_open_array(writer);
  for (size_t i = 0; i < count; i++)
    buffer_printf(writer->out, "%s%zu", i > 0 ? "," : "", sizes[i]);
  json_close_array(writer);
}

/* Moves *offset behind the tensor. */
static bool write_tensor(struct json_writer *writer, const struct tensor_outline *tensor,
                         size_t *offset) {
  size_t bytes = sizeof(float), offsets[2] = {*offset, 0};
  for (size_t i = 0; i < tensor->dims; i++)
    if (__builtin_mul_overflow(bytes, tensor->shape[i], &bytes)) return false;
  if (__builtin_add_overflow(*offset, bytes, offset)) return false;
  offsets[1] = *offset;
  json_name(writer, tensor->name);
  json_open_object(writer);
  json_name(writer, "dtype");
  json_text(writer, "F32");
  write_sizes(writer, "shape", tensor->shape, tensor->dims);
  write_sizes(writer, "data_offsets", offsets, 2);
  json_close_object(writer);
  return true;
}

bool tensors_write_header(struct buffer *out, const struct tensors_outline *outline,
                          size_t *data_bytes) {
  static const char unknown[LENGTH_BYTES] = {0};
  const size_t start = out->length;
  size_t offset = 0;
  struct json_writer writer;
  buffer_append(out, unknown, LENGTH_BYTES);
  json_begin(&writer, out);
  json_open_object(&writer);
  if (outline->note_count > 0) write_notes(&writer, outline);
  for (size_t i = 0; i < outline->tensor_count; i++)
    if (!write_tensor(&writer, &outline->tensors[i], &offset)) return false;
  json_close_object(&writer);
  while (out->status == BUFFER_OK && (out->length - start) % ALIGNMENT != 0)
    buffer_putc(out, ' ');
  if (out->status != BUFFER_OK || out->length - start - LENGTH_BYTES > TENSORS_HEADER_MAX)
    return false;
  bytes_store_u64((unsigned char *)out->data + start, out->length - start - LENGTH_BYTES);
  if (data_bytes) *data_bytes = offset;
  return true;
}
