/* See buffer.h. Two invariants make the rest short:
 *
 *  - length < capacity whenever there is an allocation: one byte is always
 *    spare, so buffer_text() and vsnprintf() have room for their NUL and a
 *    limit means exactly that many bytes of content.
 *  - An append is done whole or not at all; `status` remembers the first
 *    failure.
 *
 * Capacity doubles, so appending n bytes copies O(n). Chains of chunks were
 * rejected: replies are handed to the socket and bodies to the scanner as one
 * run of bytes, and the gathering would cost the copy that chunks save. */
#include "base/buffer.h"

#include <assert.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SMALLEST_CAPACITY 256

void buffer_init(struct buffer *buffer, size_t limit) {
  *buffer = (struct buffer){.limit = limit};
}

void buffer_free(struct buffer *buffer) {
  free(buffer->data);
  buffer_init(buffer, buffer->limit);
}

void buffer_clear(struct buffer *buffer) {
  buffer->length = 0;
  buffer->status = BUFFER_OK;
}

void buffer_renew(struct buffer *buffer, size_t limit, size_t kept) {
  if (buffer->capacity > kept) buffer_free(buffer);
  buffer_clear(buffer);
  buffer->limit = limit;
}

static char *fail(struct buffer *buffer, enum buffer_status status) {
  if (buffer->status == BUFFER_OK) buffer->status = status;
  return NULL;
}

/* The capacity to have when `needed` is the least that will do. */
static size_t next_capacity(const struct buffer *buffer, size_t needed) {
  size_t capacity = buffer->capacity <= SIZE_MAX / 2 ? buffer->capacity * 2 : SIZE_MAX;
  if (capacity < SMALLEST_CAPACITY) capacity = SMALLEST_CAPACITY;
  if (buffer->limit != 0 && buffer->limit < capacity) capacity = buffer->limit + 1;
  return capacity < needed ? needed : capacity;
}

char *buffer_reserve(struct buffer *buffer, size_t count) {
  if (buffer->status != BUFFER_OK) return NULL;
  if (buffer->limit != 0 && count > buffer->limit - buffer->length)
    return fail(buffer, BUFFER_FULL);
  if (count >= SIZE_MAX - buffer->length) return fail(buffer, BUFFER_NO_MEMORY);
  size_t needed = buffer->length + count + 1;
  if (needed > buffer->capacity) {
    size_t capacity = next_capacity(buffer, needed);
    char *data = realloc(buffer->data, capacity);
    if (!data) return fail(buffer, BUFFER_NO_MEMORY);
    buffer->data = data;
    buffer->capacity = capacity;
  }
  return buffer->data + buffer->length;
}

void buffer_advance(struct buffer *buffer, size_t count) {
  assert(buffer->status == BUFFER_OK);
  assert(count == 0 || count < buffer->capacity - buffer->length);
  buffer->length += count;
}

bool buffer_append(struct buffer *buffer, const void *bytes, size_t count) {
  if (count == 0) return buffer->status == BUFFER_OK;
  char *room = buffer_reserve(buffer, count);
  if (!room) return false;
  memcpy(room, bytes, count);
  buffer->length += count;
  return true;
}

bool buffer_puts(struct buffer *buffer, const char *text) {
  return buffer_append(buffer, text, strlen(text));
}

bool buffer_putc(struct buffer *buffer, char c) {
  return buffer_append(buffer, &c, 1);
}

bool buffer_printf(struct buffer *buffer, const char *format, ...) {
  if (!buffer_reserve(buffer, 0)) return false;
  va_list arguments, again;
  va_start(arguments, format);
  va_copy(again, arguments);
  /* Most texts fit in what is there; only a longer one is formatted twice. */
  size_t room = buffer->capacity - buffer->length;
  int printed = vsnprintf(buffer->data + buffer->length, room, format, arguments);
  bool done = false;
  if (printed < 0) {
    fail(buffer, BUFFER_NO_MEMORY);
  } else if (buffer_reserve(buffer, (size_t)printed)) {
    if ((size_t)printed >= room)
      vsnprintf(buffer->data + buffer->length, (size_t)printed + 1, format, again);
    buffer->length += (size_t)printed;
    done = true;
  }
  va_end(again);
  va_end(arguments);
  return done;
}

const char *buffer_text(struct buffer *buffer) {
  char *end = buffer_reserve(buffer, 0);
  if (!end) return "";
  *end = '\0';
  return buffer->data;
}
