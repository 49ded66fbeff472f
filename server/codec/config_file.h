/* The configuration file, and what it says of memories to load at start. */
#ifndef CODEC_CONFIG_FILE_H
#define CODEC_CONFIG_FILE_H

#include <stdbool.h>
#include <stddef.h>

#include "codec/body.h"

/* Reads a JSON object from a file and calls `set` for each member in order:
 * strings, numbers, true and false as text ("8080", "true"), objects and
 * arrays as their JSON text. `set` returns false to stop, having written its
 * own sentence to `error`. False with a sentence in `error` (file name, line
 * and column where the JSON is at fault). */
bool config_file_read(const char *path,
                      bool (*set)(void *context, const char *name, const char *value, char *error,
                                  size_t error_size),
                      void *context, char *error, size_t error_size);

/* One memory to load at start, from one of the formats that a file's ending says:
 *   {"name":"digits","file":"digits.csv","rows":[0,1297],
 *    "keys":{"columns":[0,64],"scale":0.0625},
 *    "values":{"columns":[64,65],"one_hot":10},
 *    "ids":{"column":3},
 *    "score":{...},"normalization":"sum"}
 * or
 *   {"name":"digits","keys":"keys.npy","values":"values.npy"}
 * A .json file has the body of a PUT, a .safetensors file that of a binary one
 * (so a memory that was exported can be loaded); both take no "rows", "keys",
 * "values", "ids". Score and normalization given here win over those in the file.
 * Two .npy files are arrays of m x dk and m x dv numbers, or of m for values. A .csv
 * file has one row a line of numbers (a first line that is not numbers is a
 * header); ranges are [first, end). "one_hot": n turns one column of whole
 * numbers 0..n-1 into n components. The format goes by the file's ending. */
struct preload {
  char *name;
  char *path; /* relative ones are meant from the configuration file's folder */
  void *spec; /* the rest, private to codec */
};
struct preload_list {
  struct preload *items;
  size_t count;
};

/* `json`: the text of the option `memories`, an array of such objects; `folder`:
 * where relative paths start ("" for the working directory). Checks all that
 * can be checked without opening the files (names, members, parameters). */
bool preload_parse(const char *json, const char *folder, struct preload_list *list, char *error,
                   size_t error_size);
void preload_free(struct preload_list *list);

/* Reads the file into the body of a PUT. A fault names file, line and column
 * (CSV) or JSON Pointer. */
bool preload_read(const struct preload *preload, struct memory_body *body, char *error,
                  size_t error_size);

#endif
