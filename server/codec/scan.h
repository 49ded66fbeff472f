/* A cursor over a JSON text (RFC 8259, strictly): what reads bodies, value by
 * value and without a tree.
 *
 * The scanner finds the members; what each is, jansson reads: numbers that are
 * parameters, strings, words. Tensors (codec/tensor.h) and ids are read in
 * place, because there are millions of them.
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
  struct tensor_set *tensors;        /* that the body has beside the text; may be NULL */
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

/* Reads a string in place; another kind is PROBLEM_INVALID_TYPE. See
 * json_string_read(). For what is long or comes in great numbers. */
bool scan_string(struct scan *scan, char *bytes, size_t room, size_t *length);

/* The string, number or null as jansson has it, to be given back with
 * json_decref(); numbers are float64, whole ones too. NULL with the problem filled:
 * another kind is PROBLEM_INVALID_TYPE, a number beyond float64
 * PROBLEM_INVALID_NUMBER. */
struct json_t *scan_load(struct scan *scan, enum scan_kind kind);

/* Whether such a string is that word; it may have NULs in it. */
bool scan_is_word(const struct json_t *string, const char *word);

/* The number, read by scan_load(). */
bool scan_double(struct scan *scan, double *value);

/* The same for a number that has to be whole, and least <= number <= most <=
 * 2^53, else PROBLEM_INVALID_PARAMETER. */
bool scan_whole(struct scan *scan, size_t least, size_t most, size_t *value);

/* Moves over a value and says where it starts and ends. It looks at brackets
 * and quotes only: right for what is valid, and for the rest something else
 * has to read it too (or scan_check() to have been called). */
bool scan_skip(struct scan *scan, const char **start, size_t *length);

/* ---- Arrays and objects ---- */

/* Moves behind the '[' or '{'; another kind of value is PROBLEM_INVALID_TYPE. */
bool scan_open(struct scan *scan, char bracket);

/* A member that an object may have, and who reads its value: into the place that
 * is `offset` bytes into what the object is read into. */
struct scan_field {
  const char *name;
  bool (*read)(struct scan *scan, void *to);
  size_t offset;
  bool required;
};

/* An object of such members and of no others. */
struct scan_table {
  const char *what; /* for faults: "WHAT takes ..." */
  const struct scan_field *fields;
  size_t count; /* at most 32 */
};

/* Reads the object at the scan into `to`; bit i of *seen (unless NULL) says whether
 * fields[i] was there. Another name is PROBLEM_UNKNOWN_MEMBER, a required one that
 * is not there PROBLEM_MISSING_MEMBER. */
bool scan_members(struct scan *scan, const struct scan_table *table, void *to, uint32_t *seen);

/* PROBLEM_MISSING_MEMBER at that member of the object at hand; returns false. */
bool scan_missing(struct scan *scan, const char *what, const char *name);

/* Objects that may have any members; begun as {.table = NULL}, behind the '{'. */
enum { SCAN_CLOSED = -1, SCAN_FAULT = -2 };

struct scan_object {
  const struct scan_table *table; /* scan_members() has one */
  uint32_t seen;

  char name[256];     /* of the member at hand; a longer one is cut */
  size_t name_length; /* in all */
  size_t outer;       /* of the pointer, the object's own part */
  bool entered;
};

/* Moves to the value of the next member, whose pointer it sets: 0, or the index of
 * the field; SCAN_CLOSED behind the '}'; SCAN_FAULT. That a name comes twice is
 * seen if there is a table, and by scan_check(). */
int scan_member(struct scan *scan, struct scan_object *object);

/* Whether that is the name of the member at hand. */
bool scan_is_named(const struct scan_object *object, const char *name);

/* Moves to the value of the first member of that name: 0, or as scan_member(). */
int scan_find(struct scan *scan, const char *name);

/* Moves to the next element, `index` counting from 0: 1 where there is one, else
 * SCAN_CLOSED or SCAN_FAULT. The pointer is left to the reader. */
int scan_element(struct scan *scan, size_t index);

/* The pointer's length, to come back to with scan_leave(). */
size_t scan_enter_index(struct scan *scan, size_t index);
size_t scan_enter_name(struct scan *scan, const char *name);
void scan_leave(struct scan *scan, size_t outer);

#endif
