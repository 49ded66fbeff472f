/* Filling: a snapshot's rows are put into its blocks as they arrive.
 *
 * The blocks are those of a bulk append and each row goes where that would put
 * it, by the same code, so the outcome is the same to the bit. What has been
 * given is marked by a bit for each key and each value: streams may come in any
 * order, and a row that was forgotten must not be answered from.
 *
 * How many rows there will be is a claim, and no allocation follows it: a block, and its
 * entry in the table, is made when the first of its rows arrives. (Making all blocks first
 * let 300 bytes that told of 10^8 rows take 26 GB.) Mostly all keys come before the first
 * value, and a block has room for both: so it may have SMALL times the bytes that have
 * come. If it would be more, since a key has a few numbers and a value has thousands, or
 * the other way round, the rows of the small stream are staged: they wait as floats, and the
 * first row of the other stream makes the block. Where keys are just that part of a row,
 * staging them costs 6 % of the CPU time of an import. To stage the keys of every block
 * was rejected: it copies rows that may be most of the memory.
 *
 * Most of the time of filling is the kernel's, which has to find and clear the pages. All
 * pages of a block's keys are asked for with the first key, those of its values with the
 * first value: importing 500 MB took 0.84 of the CPU time of page after page.
 * Tried: all blocks in one region of huge pages, which made importing 1 GB no faster
 * (3.4 s against 3.5) and the receiving slower in three rounds of five: on a machine
 * whose hypervisor takes back what is free, whole huge pages are just those that were
 * taken.
 *
 * A block whose rows are all there can be had before the others are, by whoever
 * wants to keep it elsewhere meanwhile. Who has seen it may rely on it, on another
 * thread too: so it is sealed then, and its rows are refused afterwards. */
#include <stdlib.h>
#include <string.h>

#include "snapshot.h"

/* A stream is small whose rows are at most this part of a key and a value. */
enum { SMALL = 8 };

enum { KEYS, VALUES, STREAMS };

struct stream {
  attn_status (*put)(struct attn_block *block, size_t row, const float *rows, size_t count);
  void (*populate)(struct attn_block *block);
  size_t dim;
  bool small; /* never both of them */
};

/* Of a block. Without a block and without marks nothing of it has come. */
struct filling {
  struct attn_block *block; /* NULL: not made yet */
  float *staged;            /* rows of the small stream, until the block is made */
  uint64_t *marks; /* which were given: a bit for each key, then for each value; NULL: all */
  size_t missing;  /* keys and values that were not given yet */
  bool populated[STREAMS];
  bool sealed;
};

struct attn_filler {
  attn_snapshot *shape;
  struct attn_block_shape of;
  struct stream streams[STREAMS];
  size_t rows, capacity; /* in all; of a block */
  size_t missing;        /* of all rows */
  struct filling *fillings;
  size_t room; /* blocks that have an entry there */
  size_t bytes;
  attn_snapshot *made; /* NULL until it is finished */
};

/* A run of rows within one block. */
struct piece {
  size_t index, place, rows;
  const float *numbers;
};

/* ---- Marks ---- */

enum { MARK_BITS = 64 };

static size_t mark_words(size_t rows) {
  return (rows + MARK_BITS - 1) / MARK_BITS;
}

/* How many of the rows were not marked before. */
static size_t mark(uint64_t *marks, size_t first, size_t rows) {
  size_t count = 0;
  for (size_t row = first, taken; rows > 0; rows -= taken, row += taken) {
    const size_t place = row % MARK_BITS, room = MARK_BITS - place;
    taken = rows < room ? rows : room;
    const uint64_t ones = taken < MARK_BITS ? ((uint64_t)1 << taken) - 1 : ~(uint64_t)0;
    const uint64_t fresh = ones << place & ~marks[row / MARK_BITS];
    marks[row / MARK_BITS] |= fresh;
    count += (size_t)__builtin_popcountll(fresh);
  }
  return count;
}

/* ---- Life ---- */

static struct stream stream_of(const struct attn_block_shape *of, bool keys) {
  const size_t dim = keys ? of->key_dim : of->value_dim;
  return (struct stream){.put = keys ? attn_block_put_keys : attn_block_put_values,
                         .populate = keys ? attn_block_populate_keys : attn_block_populate_values,
                         .dim = dim,
                         .small = dim <= (of->key_dim + of->value_dim) / SMALL};
}

attn_status attn_filler_create(attn_filler **filler, const attn_snapshot *shape, size_t rows) {
  if (!filler || !shape || rows < 1) return ATTN_BAD_ARGUMENT;
  if (attn_snapshot_bytes_of(shape, rows) > SIZE_MAX / 4) return ATTN_TOO_LARGE;
  attn_filler *created = calloc(1, sizeof *created);
  if (!created) return ATTN_NO_MEMORY;
  created->shape = attn_snapshot_like(shape, 0);
  if (!created->shape) {
    free(created);
    return ATTN_NO_MEMORY;
  }
  created->of = attn_snapshot_shape(shape);
  created->streams[KEYS] = stream_of(&created->of, true);
  created->streams[VALUES] = stream_of(&created->of, false);
  created->rows = rows;
  created->capacity = attn_block_capacity(&created->of);
  created->missing = STREAMS * rows;
  created->bytes = sizeof *created;
  *filler = created;
  return ATTN_OK;
}

void attn_filler_free(attn_filler *filler) {
  if (!filler) return;
  for (size_t i = 0; i < filler->room; i++) {
    attn_block_free(filler->fillings[i].block);
    free(filler->fillings[i].staged);
    free(filler->fillings[i].marks);
  }
  free(filler->fillings);
  attn_snapshot_free(filler->made);
  attn_snapshot_free(filler->shape);
  free(filler);
}

size_t attn_filler_bytes(const attn_filler *filler) {
  return filler ? filler->bytes : 0;
}

/* ---- Blocks ---- */

size_t attn_filler_block_count(const attn_filler *filler) {
  if (!filler) return 0;
  return filler->rows / filler->capacity + (filler->rows % filler->capacity > 0);
}

static size_t block_rows(const attn_filler *filler, size_t index) {
  const size_t left = filler->rows - index * filler->capacity;
  return left < filler->capacity ? left : filler->capacity;
}

static size_t mark_bytes(size_t rows) {
  return STREAMS * mark_words(rows) * sizeof(uint64_t);
}

/* The one that is staged, if any is. */
static const struct stream *staged_stream(const attn_filler *filler) {
  return &filler->streams[filler->streams[KEYS].small ? KEYS : VALUES];
}

static size_t staged_bytes(const attn_filler *filler, size_t rows) {
  return rows * staged_stream(filler)->dim * sizeof(float);
}

/* The table has an entry for that block. */
static bool reach(attn_filler *filler, size_t index) {
  enum { FEWEST = 8 };
  if (index < filler->room) return true;
  size_t room = 2 * filler->room > FEWEST ? 2 * filler->room : FEWEST;
  if (room <= index) room = index + 1;
  struct filling *grown = realloc(filler->fillings, room * sizeof *grown);
  if (!grown) return false;
  memset(grown + filler->room, 0, (room - filler->room) * sizeof *grown);
  filler->bytes += (room - filler->room) * sizeof *grown;
  filler->fillings = grown;
  filler->room = room;
  return true;
}

/* Something of that block arrives. NULL: no memory. */
static struct filling *begin(attn_filler *filler, size_t index) {
  if (!reach(filler, index)) return NULL;
  struct filling *filling = &filler->fillings[index];
  if (filling->block || filling->marks) return filling;
  const size_t rows = block_rows(filler, index);
  filling->marks = calloc(1, mark_bytes(rows));
  if (!filling->marks) return NULL;
  filling->missing = STREAMS * rows;
  filler->bytes += mark_bytes(rows);
  return filling;
}

/* Rows that wait for the block. They are checked now, as the block would. */
static attn_status stage(attn_filler *filler, struct filling *filling, const struct stream *stream,
                         const struct piece *piece) {
  const size_t numbers = piece->rows * stream->dim, rows = block_rows(filler, piece->index);
  const attn_status status = attn_row_check(filler->of.dtype, piece->numbers, numbers);
  if (status != ATTN_OK) return status;
  if (!filling->staged) {
    filling->staged = calloc(rows * stream->dim, sizeof(float));
    if (!filling->staged) return ATTN_NO_MEMORY;
    filler->bytes += staged_bytes(filler, rows);
  }
  memcpy(filling->staged + piece->place * stream->dim, piece->numbers, numbers * sizeof(float));
  return ATTN_OK;
}

/* With what was staged; rows of it that have not come yet are zeros. */
static attn_status make_block(attn_filler *filler, struct filling *filling, size_t rows) {
  struct attn_block *block = attn_block_create(&filler->of, rows);
  if (!block) return ATTN_NO_MEMORY;
  if (filling->staged) {
    const attn_status status = staged_stream(filler)->put(block, 0, filling->staged, rows);
    if (status != ATTN_OK) {
      attn_block_free(block);
      return status;
    }
    filler->bytes -= staged_bytes(filler, rows);
    free(filling->staged);
    filling->staged = NULL;
  }
  filling->block = block;
  filler->bytes += attn_block_bytes(&filler->of, rows);
  return ATTN_OK;
}

static attn_status put(attn_filler *filler, struct filling *filling, const struct stream *stream,
                       const struct piece *piece) {
  if (!filling->block && stream->small) return stage(filler, filling, stream, piece);
  if (!filling->block) {
    const attn_status status = make_block(filler, filling, block_rows(filler, piece->index));
    if (status != ATTN_OK) return status;
  }
  bool *populated = &filling->populated[stream - filler->streams];
  if (!*populated) stream->populate(filling->block);
  *populated = true;
  return stream->put(filling->block, piece->place, piece->numbers, piece->rows);
}

/* ---- Rows ---- */

/* The piece was put. */
static void note(attn_filler *filler, struct filling *filling, const struct piece *piece,
                 bool keys) {
  if (filling->missing == 0) return;
  const size_t rows = block_rows(filler, piece->index);
  uint64_t *marks = filling->marks + (keys ? 0 : mark_words(rows));
  const size_t fresh = mark(marks, piece->place, piece->rows);
  filling->missing -= fresh;
  filler->missing -= fresh;
  if (filling->missing > 0) return;
  free(filling->marks);
  filling->marks = NULL;
  filler->bytes -= mark_bytes(rows);
}

static attn_status fill(attn_filler *filler, size_t first, size_t rows, const float *numbers,
                        bool keys) {
  if (!filler || (rows > 0 && !numbers) || filler->made || first > filler->rows ||
      rows > filler->rows - first)
    return ATTN_BAD_ARGUMENT;
  const struct stream *stream = &filler->streams[keys ? KEYS : VALUES];
  struct piece piece = {.numbers = numbers};
  for (size_t row = first, left = rows; left > 0; left -= piece.rows, row += piece.rows) {
    piece.index = row / filler->capacity;
    piece.place = row % filler->capacity;
    const size_t room = filler->capacity - piece.place;
    piece.rows = left < room ? left : room;
    struct filling *filling = begin(filler, piece.index);
    if (!filling) return ATTN_NO_MEMORY;
    if (filling->sealed) return ATTN_BAD_ARGUMENT;
    const attn_status status = put(filler, filling, stream, &piece);
    if (status != ATTN_OK) return status;
    note(filler, filling, &piece, keys);
    piece.numbers += piece.rows * stream->dim;
  }
  return ATTN_OK;
}

attn_status attn_filler_keys(attn_filler *filler, size_t first, size_t rows, const float *keys) {
  return fill(filler, first, rows, keys, true);
}

attn_status attn_filler_values(attn_filler *filler, size_t first, size_t rows,
                               const float *values) {
  return fill(filler, first, rows, values, false);
}

/* ---- What comes of it ---- */

static struct attn_block *seal(attn_filler *filler, size_t index) {
  struct filling *filling = &filler->fillings[index];
  if (!filling->sealed) attn_block_seal(filling->block);
  filling->sealed = true;
  return filling->block;
}

attn_block *attn_filler_block(attn_filler *filler, size_t index) {
  if (!filler || index >= filler->room) return NULL;
  const struct filling *filling = &filler->fillings[index];
  return filling->block && filling->missing == 0 ? seal(filler, index) : NULL;
}

attn_status attn_filler_finish(attn_filler *filler, attn_snapshot **made) {
  if (!filler || !made || filler->missing > 0) return ATTN_BAD_ARGUMENT;
  const size_t count = attn_filler_block_count(filler);
  if (!filler->made) {
    filler->made = attn_snapshot_like(filler->shape, count);
    if (!filler->made) return ATTN_NO_MEMORY;
    for (size_t b = 0; b < count; b++)
      attn_snapshot_take(filler->made, attn_block_ref(seal(filler, b)));
  }
  *made = attn_snapshot_ref(filler->made);
  return ATTN_OK;
}
