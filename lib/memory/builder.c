/* The builder: a snapshot's rows are put into its blocks as they arrive.
 *
 * The blocks are those of a bulk append and each row goes where that would put
 * it, by the same code, so the outcome is the same to the bit. What has been
 * given is marked by a bit for each key and each value: streams may come in any
 * order, and a row that was forgotten must not be answered from.
 *
 * How many rows there will be is a claim, and no allocation follows it: a block, and its
 * entry in the table, is made when the first of its rows arrives. (Making all blocks first
 * let 300 bytes that told of 10^8 rows take 26 GB.) Mostly all keys come before the first
 * value, and a block has space for both: so it may have SMALL times the bytes that have
 * come. If it would be more, since a key has a few numbers and a value has thousands, or
 * the other way round, the rows of the small stream are staged: they wait as floats, and the
 * first row of the other stream makes the block. Where keys are just that part of a row,
 * staging them costs 6 % of the CPU time of an import. To stage the keys of every block
 * was rejected: it copies rows that may be most of the memory.
 * Most of the time of building is the kernel's, which has to find and clear the pages. All
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

#include "memory/snapshot.h"

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
struct block_state {
  struct attn_block *block; /* NULL: not made yet */
  float *staged;            /* rows of the small stream, until the block is made */
  uint64_t *marks; /* which were given: a bit for each key, then for each value; NULL: all */
  size_t missing;  /* keys and values that were not given yet */
  bool populated[STREAMS];
  bool sealed;
};

struct attn_builder {
  attn_snapshot *shape;
  struct attn_block_shape of;
  struct stream streams[STREAMS];
  size_t rows, capacity; /* in all; of a block */
  size_t missing;        /* of all rows */
  struct block_state *states;
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

attn_status attn_builder_create(attn_builder **builder, const attn_snapshot *shape, size_t rows) {
  if (!builder || !shape || rows < 1) return ATTN_BAD_ARGUMENT;
  if (attn_snapshot_bytes_of(shape, rows) > SIZE_MAX / 4) return ATTN_TOO_LARGE;
  attn_builder *created = calloc(1, sizeof *created);
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
  *builder = created;
  return ATTN_OK;
}

void attn_builder_free(attn_builder *builder) {
  if (!builder) return;
  for (size_t i = 0; i < builder->room; i++) {
    attn_block_free(builder->states[i].block);
    free(builder->states[i].staged);
    free(builder->states[i].marks);
  }
  free(builder->states);
  attn_snapshot_free(builder->made);
  attn_snapshot_free(builder->shape);
  free(builder);
}

size_t attn_builder_bytes(const attn_builder *builder) {
  return builder ? builder->bytes : 0;
}

/* ---- Blocks ---- */

size_t attn_builder_block_count(const attn_builder *builder) {
  if (!builder) return 0;
  return builder->rows / builder->capacity + (builder->rows % builder->capacity > 0);
}

static size_t block_rows(const attn_builder *builder, size_t index) {
  const size_t left = builder->rows - index * builder->capacity;
  return left < builder->capacity ? left : builder->capacity;
}

static size_t mark_bytes(size_t rows) {
  return STREAMS * mark_words(rows) * sizeof(uint64_t);
}

/* The one that is staged, if any is. */
static const struct stream *staged_stream(const attn_builder *builder) {
  return &builder->streams[builder->streams[KEYS].small ? KEYS : VALUES];
}

static size_t staged_bytes(const attn_builder *builder, size_t rows) {
  return rows * staged_stream(builder)->dim * sizeof(float);
}

/* The table has an entry for that block. */
static bool reach(attn_builder *builder, size_t index) {
  enum { FEWEST = 8 };
  if (index < builder->room) return true;
  size_t room = 2 * builder->room > FEWEST ? 2 * builder->room : FEWEST;
  if (room <= index) room = index + 1;
  struct block_state *grown = realloc(builder->states, room * sizeof *grown);
  if (!grown) return false;
  memset(grown + builder->room, 0, (room - builder->room) * sizeof *grown);
  builder->bytes += (room - builder->room) * sizeof *grown;
  builder->states = grown;
  builder->room = room;
  return true;
}

/* Something of that block arrives. NULL: no memory. */
static struct block_state *begin(attn_builder *builder, size_t index) {
  if (!reach(builder, index)) return NULL;
  struct block_state *state = &builder->states[index];
  if (state->block || state->marks) return state;
  const size_t rows = block_rows(builder, index);
  state->marks = calloc(1, mark_bytes(rows));
  if (!state->marks) return NULL;
  state->missing = STREAMS * rows;
  builder->bytes += mark_bytes(rows);
  return state;
}

/* Rows that wait for the block. They are checked now, as the block would. */
static attn_status stage(attn_builder *builder, struct block_state *state,
                         const struct stream *stream, const struct piece *piece) {
  const size_t numbers = piece->rows * stream->dim, rows = block_rows(builder, piece->index);
  const attn_status status = attn_row_check(builder->of.dtype, piece->numbers, numbers);
  if (status != ATTN_OK) return status;
  if (!state->staged) {
    state->staged = calloc(rows * stream->dim, sizeof(float));
    if (!state->staged) return ATTN_NO_MEMORY;
    builder->bytes += staged_bytes(builder, rows);
  }
  memcpy(state->staged + piece->place * stream->dim, piece->numbers, numbers * sizeof(float));
  return ATTN_OK;
}

/* With what was staged; rows of it that have not come yet are zeros. */
static attn_status make_block(attn_builder *builder, struct block_state *state, size_t rows) {
  struct attn_block *block = attn_block_create(&builder->of, rows);
  if (!block) return ATTN_NO_MEMORY;
  if (state->staged) {
    const attn_status status = staged_stream(builder)->put(block, 0, state->staged, rows);
    if (status != ATTN_OK) {
      attn_block_free(block);
      return status;
    }
    builder->bytes -= staged_bytes(builder, rows);
    free(state->staged);
    state->staged = NULL;
  }
  state->block = block;
  builder->bytes += attn_block_bytes(&builder->of, rows);
  return ATTN_OK;
}

static attn_status put(attn_builder *builder, struct block_state *state,
                       const struct stream *stream, const struct piece *piece) {
  if (!state->block && stream->small) return stage(builder, state, stream, piece);
  if (!state->block) {
    const attn_status status = make_block(builder, state, block_rows(builder, piece->index));
    if (status != ATTN_OK) return status;
  }
  bool *populated = &state->populated[stream - builder->streams];
  if (!*populated) stream->populate(state->block);
  *populated = true;
  return stream->put(state->block, piece->place, piece->numbers, piece->rows);
}

/* ---- Rows ---- */

/* The piece was put. */
static void note(attn_builder *builder, struct block_state *state, const struct piece *piece,
                 bool keys) {
  if (state->missing == 0) return;
  const size_t rows = block_rows(builder, piece->index);
  uint64_t *marks = state->marks + (keys ? 0 : mark_words(rows));
  const size_t fresh = mark(marks, piece->place, piece->rows);
  state->missing -= fresh;
  builder->missing -= fresh;
  if (state->missing > 0) return;
  free(state->marks);
  state->marks = NULL;
  builder->bytes -= mark_bytes(rows);
}

static attn_status put_stream(attn_builder *builder, size_t first, size_t rows,
                              const float *numbers, bool keys) {
  if (!builder || (rows > 0 && !numbers) || builder->made || first > builder->rows ||
      rows > builder->rows - first)
    return ATTN_BAD_ARGUMENT;
  const struct stream *stream = &builder->streams[keys ? KEYS : VALUES];
  struct piece piece = {.numbers = numbers};
  for (size_t row = first, left = rows; left > 0; left -= piece.rows, row += piece.rows) {
    piece.index = row / builder->capacity;
    piece.place = row % builder->capacity;
    const size_t room = builder->capacity - piece.place;
    piece.rows = left < room ? left : room;
    struct block_state *state = begin(builder, piece.index);
    if (!state) return ATTN_NO_MEMORY;
    if (state->sealed) return ATTN_BAD_ARGUMENT;
    const attn_status status = put(builder, state, stream, &piece);
    if (status != ATTN_OK) return status;
    note(builder, state, &piece, keys);
    piece.numbers += piece.rows * stream->dim;
  }
  return ATTN_OK;
}

attn_status attn_builder_keys(attn_builder *builder, size_t first, size_t rows, const float *keys) {
  return put_stream(builder, first, rows, keys, true);
}

attn_status attn_builder_values(attn_builder *builder, size_t first, size_t rows,
                                const float *values) {
  return put_stream(builder, first, rows, values, false);
}

/* ---- What comes of it ---- */

static struct attn_block *seal(attn_builder *builder, size_t index) {
  struct block_state *state = &builder->states[index];
  if (!state->sealed) attn_block_seal(state->block);
  state->sealed = true;
  return state->block;
}

attn_block *attn_builder_block(attn_builder *builder, size_t index) {
  if (!builder || index >= builder->room) return NULL;
  const struct block_state *state = &builder->states[index];
  return state->block && state->missing == 0 ? seal(builder, index) : NULL;
}

attn_status attn_builder_finish(attn_builder *builder, attn_snapshot **made) {
  if (!builder || !made || builder->missing > 0) return ATTN_BAD_ARGUMENT;
  const size_t count = attn_builder_block_count(builder);
  if (!builder->made) {
    builder->made = attn_snapshot_like(builder->shape, count);
    if (!builder->made) return ATTN_NO_MEMORY;
    for (size_t b = 0; b < count; b++)
      attn_snapshot_take(builder->made, attn_block_ref(seal(builder, b)));
  }
  *made = attn_snapshot_ref(builder->made);
  return ATTN_OK;
}
