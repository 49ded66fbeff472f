/* A cursor over a JSON text (RFC 8259, strictly): what reads bodies, value by
 * value and without a tree.
 *
 * A reader asks for what it expects and gets it or a fault. Faults of meaning
 * (a string where a number should be) fill the problem at once, with the JSON
 * Pointer of the place. Faults of syntax only make the reading fail: scan_end()
 * then has scan_check() look at the whole text, which says what is wrong with
 * it and where. So an invalid text is always reported as invalid, even when
 * something in front of the fault was not to the reader's liking, and a valid
 * one is read once. */
#ifndef CODEC_SCAN_H
#define CODEC_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/problem.h"

/* How deep arrays and objects may be nested. */
#define SCAN_DEPTH_MAX 64

/* How many names all objects that are open at one place may have together. */
#define SCAN_NAMES_MAX ((size_t)1 << 20)

struct scan {
  const char *begin, *at, *end;
  struct problem *problem;
  char pointer[PROBLEM_POINTER_MAX]; /* of the value at `at` */
};

/* `problem` is filled by whatever fails; text and problem must outlive scan. */
void scan_begin(struct scan *scan, const char *text, size_t length, struct problem *problem);

/* The end of reading, which went well or not: true where it did and nothing but
 * space follows; else false, with the problem filled. */
bool scan_end(struct scan *scan, bool read);

/* True where the text is one valid JSON value; else PROBLEM_INVALID_JSON with
 * line and column, what was expected and what came (or PROBLEM_OUT_OF_MEMORY).
 * No object may have a name twice. */
bool scan_check(const char *text, size_t length, struct problem *problem);

/* ---- Faults ---- */

/* Fills the problem, at the place of the scan; returns false. */
bool scan_fault(struct scan *scan, enum problem_code code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* "expected EXPECTED, got a string"; returns false. */
bool scan_wrong_type(struct scan *scan, const char *expected);

/* ---- Values ---- */

enum scan_kind {
  SCAN_NOTHING, /* no value starts here: a fault of syntax */
  SCAN_OBJECT,
  SCAN_ARRAY,
  SCAN_STRING,
  SCAN_NUMBER,
  SCAN_BOOLEAN,
  SCAN_NULL
};

/* Moves over space; the kind of the value there, by its first character. */
enum scan_kind scan_kind(struct scan *scan);
const char *scan_kind_name(enum scan_kind kind); /* "a string" */

/* Moves over space, then over the character if it is there. */
bool scan_take(struct scan *scan, char c);

/* Reads a string; another kind is PROBLEM_INVALID_TYPE. See json_string_read(). */
bool scan_string(struct scan *scan, char *bytes, size_t room, size_t *length);

/* Reads a number as float64; other kinds are PROBLEM_INVALID_TYPE, too large
 * ones PROBLEM_INVALID_NUMBER. */
bool scan_double(struct scan *scan, double *value);

/* The same for a number that has to be whole, and least <= number <= most <=
 * 2^53, else PROBLEM_INVALID_PARAMETER. */
bool scan_whole(struct scan *scan, double least, double most, double *value);

/* Moves over a value and says where it starts and ends. It looks at brackets
 * and quotes only: right for what is valid, and for the rest something else
 * has to read it too (or scan_check() to have been called). */
bool scan_skip(struct scan *scan, const char **start, size_t *length);

/* ---- Arrays and objects ----
 *     struct scan_object object = {.what = "an attend request", names, COUNT};
 *     if (!scan_open(&scan, '{')) ...
 *     int member;
 *     while ((member = scan_member(&scan, &object)) >= 0)
 *       read the value, whose pointer is set, or break;
 *     if (member != SCAN_CLOSED) a fault */
enum { SCAN_CLOSED = -1, SCAN_FAULT = -2 };

/* Moves behind the '[' or '{'; another kind of value is PROBLEM_INVALID_TYPE. */
bool scan_open(struct scan *scan, char bracket);

struct scan_object {
  const char *what;         /* for faults: "what takes ..." */
  const char *const *names; /* that it may have */
  size_t count;             /* at most 32 */
  bool others;              /* other names are no fault but get the index `count` */
  uint32_t seen;            /* bit i: names[i] was there */

  /* Of the member at hand; a longer name is cut. Private otherwise. */
  char name[256];
  size_t name_length; /* in all */
  size_t outer;       /* of the pointer, the object's own part */
  bool entered;
};

/* Moves to the value of the next member and returns the index of its name;
 * SCAN_CLOSED behind the '}'; SCAN_FAULT at an unknown name (which is
 * PROBLEM_UNKNOWN_MEMBER), one of `names` that comes twice, or bad syntax. */
int scan_member(struct scan *scan, struct scan_object *object);

/* PROBLEM_MISSING_MEMBER at the object's member of that index; returns false. */
bool scan_missing(struct scan *scan, const struct scan_object *object, size_t index);

/* Moves to the next element, `index` counting from 0: 1 where there is one, else
 * SCAN_CLOSED or SCAN_FAULT. The pointer is left to the reader. */
int scan_element(struct scan *scan, size_t index);

/* The pointer's length, to come back to with scan_leave(). */
size_t scan_enter_index(struct scan *scan, size_t index);
size_t scan_enter_name(struct scan *scan, const char *name);
void scan_leave(struct scan *scan, size_t outer);

#endif
