/* A JSON string literal, from its text to the bytes that it stands for. */
#ifndef CODEC_JSON_STRING_H
#define CODEC_JSON_STRING_H

#include <stddef.h>

enum json_string_fault {
  JSON_STRING_OK,
  JSON_STRING_OPEN,      /* the text ends before the closing quote */
  JSON_STRING_CONTROL,   /* a control character that is not escaped */
  JSON_STRING_ESCAPE,    /* a backslash before what it does not escape */
  JSON_STRING_SURROGATE, /* half of a \u pair without the other one */
  JSON_STRING_UTF8       /* not UTF-8 */
};

/* Reads the literal whose opening quote is at *text and moves *text behind its
 * closing quote; on a fault *text is where the fault is. The first `room` bytes
 * of what it stands for go to `bytes` (which may be NULL where room is 0), and
 * *length (unless NULL) is how many there are in all. They are valid UTF-8, but
 * NULs may be among them, and the room may end within a character. */
enum json_string_fault json_string_read(const char **text, const char *end, char *bytes,
                                        size_t room, size_t *length);

#endif
