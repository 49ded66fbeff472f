/* Numbers as text, both ways, for float32.
 *
 * Printing gives the shortest text that reads back as the same float32
 * (0.1, not 0.100000001; 1e10, not 10000000000). Reading gives the float32
 * nearest to the decimal, ties to even, as strtof does. Both are compared with
 * the C library over all 2^32 floats by `make test-all`. */
#ifndef CODEC_NUMBER_H
#define CODEC_NUMBER_H

#include <stdbool.h>
#include <stddef.h>

/* Room that number_print() needs. The longest text has 14 characters; what it
 * writes behind the text's end is scratch. */
#define NUMBER_TEXT_MAX 24

/* Writes a finite float at `text` (NUMBER_TEXT_MAX bytes of room, no NUL) and
 * returns the length. Valid JSON. -0 prints as "-0" and reads back as it. */
size_t number_print(float value, char *text);

/* The same for `count` of them, each with a comma behind it; `text` has room for
 * NUMBER_TEXT_MAX + 1 bytes each. Much faster than one by one. */
size_t numbers_print(const float *values, size_t count, char *text);

enum number_status { NUMBER_OK, NUMBER_MALFORMED, NUMBER_TOO_LARGE };

/* Reads the longest JSON number at `text` (never past `end`) and moves *text
 * behind it. NUMBER_MALFORMED leaves *text where the fault is;
 * NUMBER_TOO_LARGE, for what rounds to infinity, moves behind the number. */
enum number_status number_scan(const char **text, const char *end, float *value);

#endif
