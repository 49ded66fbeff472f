/* Memories from CSV: one row a line, its numbers and perhaps its id in columns.
 *
 * RFC 4180 without line breaks in fields: fields are separated by commas and
 * may stand in quotes (a quote within is doubled), lines end with LF or CRLF,
 * empty ones are skipped. Numbers are written as in JSON; space around them
 * does not count. A first line is a header where no field of the columns that are
 * read as numbers begins as a number does. */
#ifndef CODEC_CSV_H
#define CODEC_CSV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/id_list.h"
#include "codec/matrix.h"

/* [first, end) of columns, counted from 0. */
struct csv_columns {
  size_t first, end;
  double scale;   /* what numbers are multiplied with */
  size_t one_hot; /* 0, or: one column of whole numbers 0..one_hot-1, made into as
                     many components */
};

struct csv_plan {
  size_t first_row, end_row; /* [first, end) of the rows; SIZE_MAX: to the end */
  struct csv_columns keys, values;
  bool has_ids;
  size_t id_column;
};

struct csv_rows {
  struct matrix keys, values;
  struct id_list *ids; /* NULL without has_ids */
};

/* At least one row. False with a sentence in `error` that names the file and,
 * where it is one line's fault, the line (from 1) and the column; then there is
 * nothing to free. */
bool csv_read(const char *path, const struct csv_plan *plan, struct csv_rows *rows, char *error,
              size_t error_size);

#endif
