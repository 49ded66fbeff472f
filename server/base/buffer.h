/* A growable run of bytes with a limit, for bodies that arrive and replies
 * that are written. Failure is sticky: after the first append that could not
 * be done (no memory, or past the limit) every later one does nothing, so a
 * writer checks once, at its end, with buffer_status(). */
#ifndef BASE_BUFFER_H
#define BASE_BUFFER_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

enum buffer_status { BUFFER_OK, BUFFER_FULL, BUFFER_NO_MEMORY };

struct buffer {
  char *data; /* owned; not terminated by a NUL unless buffer_text() made it so */
  size_t length, capacity;
  size_t limit; /* the largest length allowed; 0 means none */
  enum buffer_status status;
};

/* Holds nothing and needs no buffer_free() until something was appended. */
void buffer_init(struct buffer *buffer, size_t limit);
void buffer_free(struct buffer *buffer);

/* Keeps the memory, forgets the bytes and the failure. */
void buffer_clear(struct buffer *buffer);

/* Makes it as new, with that limit, but keeps the memory for the next use where
 * it is at most `kept` bytes. */
void buffer_renew(struct buffer *buffer, size_t limit, size_t kept);

/* Room for `count` more bytes, at data + length; NULL after a failure. What is
 * written there counts once buffer_advance() says so. */
char *buffer_reserve(struct buffer *buffer, size_t count);
void buffer_advance(struct buffer *buffer, size_t count);

bool buffer_append(struct buffer *buffer, const void *bytes, size_t count);
bool buffer_puts(struct buffer *buffer, const char *text);
bool buffer_putc(struct buffer *buffer, char c);
bool buffer_printf(struct buffer *buffer, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* The bytes as a C string that belongs to the buffer; "" after a failure. */
const char *buffer_text(struct buffer *buffer);

#endif
