/* From a body, of whatever form, to a memory that is not yet published.
 *
 * Before any of its rows gets a place in RAM a memory is held against the limits
 * and against what RAM is left. A JSON body has been parsed into matrices by
 * then, and is copied; a binary one goes from the socket straight to where its
 * rows will stay (lib/memory/builder.c), so that importing takes the RAM of the memory
 * and hardly more; of a large one the writer stores what has come while more
 * comes (engine/arriving.c).
 *
 * A binary body announces its rows with its first bytes and may never send them. So
 * it is refused at once where there is no room for all of them, but charged to the
 * budget for the blocks that it has: who announces much and sends nothing keeps no RAM
 * from others. Two uploads that fit one by one and not together may both begin, and the one
 * that finds the budget used up is refused then, with nothing kept of it. */
#include "api/building.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "engine/arriving.h"

/* Bytes of a memory that is worth being stored before it has come whole. */
enum { AHEAD_LEAST = 2 * ARRIVING_SLICE };

int64_t building_ttl_ms(double seconds) {
  const int64_t ms = llround(seconds * 1000);
  return seconds > 0 && ms == 0 ? 1 : ms;
}

bool building_check(const struct api *api, size_t rows, size_t key_dim, size_t value_dim,
                    struct problem *problem) {
  if (rows > api->max_rows)
    return problem_set(problem, PROBLEM_LIMIT_EXCEEDED, "/keys",
                       "%zu rows are more than the %zu that a memory may have", rows,
                       api->max_rows);
  if (key_dim > api->max_dim || value_dim > api->max_dim)
    return problem_set(problem, PROBLEM_LIMIT_EXCEEDED,
                       key_dim > api->max_dim ? "/keys" : "/values",
                       "rows of %zu numbers are longer than the %zu that are allowed",
                       key_dim > api->max_dim ? key_dim : value_dim, api->max_dim);
  return true;
}

/* Within the limits of shapes; *bytes of RAM will be taken. */
static bool measure(const struct api *api, const attn_snapshot *shape, size_t rows, size_t *bytes,
                    struct problem *problem) {
  if (!building_check(api, rows, attn_snapshot_key_dim(shape), attn_snapshot_value_dim(shape),
                      problem))
    return false;
  *bytes = attn_snapshot_bytes_of(shape, rows);
  return *bytes < SIZE_MAX || problem_set_status(problem, ATTN_TOO_LARGE, "");
}

/* Ids and times of the rows of a body. */
static bool make_tags(const struct memory_body *body, size_t rows, struct row_tags **tags) {
  const int64_t ttl = building_ttl_ms(body->ttl_seconds);
  int64_t *expiries = ttl > 0 && rows > 0 ? malloc(rows * sizeof *expiries) : NULL;
  if (ttl > 0 && rows > 0 && !expiries) return false;
  const int64_t expiry = clock_wall_ms() + ttl;
  for (size_t i = 0; expiries && i < rows; i++)
    expiries[i] = expiry;
  const struct tags_edit edit = {
      .added_count = rows, .added_ids = body->ids, .added_expiries = expiries};
  const bool made = row_tags_edit(tags, NULL, 0, &edit);
  free(expiries);
  return made;
}

static attn_status make_memory(const char *name, const struct memory_body *body,
                               attn_snapshot *snapshot, struct memory **memory) {
  struct memory parts = {.name = name,
                         .snapshot = snapshot,
                         .score = body->score,
                         .normalization = body->normalization,
                         .ttl_ms = building_ttl_ms(body->ttl_seconds)};
  *memory = NULL;
  if (make_tags(body, attn_snapshot_rows(snapshot), &parts.tags)) *memory = memory_create(&parts);
  row_tags_free(parts.tags);
  return *memory ? ATTN_OK : ATTN_NO_MEMORY;
}

struct memory *building_make(struct api *api, const char *name, const struct memory_body *body,
                             size_t *charge, struct problem *problem) {
  attn_snapshot *empty = NULL, *filled = NULL;
  struct memory *memory = NULL;
  size_t bytes;
  *charge = 0;
  attn_status status =
      attn_snapshot_create_typed(&empty, body->key_dim, body->value_dim, body->dtype);
  if (status == ATTN_OK) {
    if (!measure(api, empty, body->keys.rows, &bytes, problem) ||
        !budget_take(&api->budget, bytes, problem))
      goto done;
    *charge = bytes;
    status =
        attn_snapshot_append(&filled, empty, body->keys.data, body->values.data, body->keys.rows);
  }
  if (status == ATTN_OK) status = make_memory(name, body, filled, &memory);
  if (status != ATTN_OK) problem_set_status(problem, status, "");
done:
  if (!memory) budget_give(&api->budget, *charge);
  attn_snapshot_free(empty);
  attn_snapshot_free(filled);
  return memory;
}

/* ---- Bodies that arrive in pieces ---- */

struct import {
  struct api *api;
  struct tensor_upload *upload;
  attn_snapshot *shape;
  attn_builder *builder; /* NULL until the header is there, and without rows */
  size_t claim;          /* bytes of RAM, of all rows that were announced */
  size_t charge;         /* taken from the budget so far */
  bool ahead;
  struct arriving *arriving; /* NULL, or where blocks go as they become whole: ... */
  size_t given;              /* ... so many so far */
};

/* Blocks that have all their rows can be stored while the others come. */
static void expect(struct import *import) {
  if (!import->ahead || import->claim < AHEAD_LEAST) return;
  import->arriving =
      writer_expect(import->api->writer, import->shape, attn_builder_block_count(import->builder));
}

static void give(struct import *import) {
  attn_block *block;
  while (import->arriving && (block = attn_builder_block(import->builder, import->given))) {
    arriving_give(import->arriving, block);
    import->given++;
  }
}

static bool import_open(void *context, size_t rows, size_t key_dim, size_t value_dim,
                        attn_dtype dtype, struct problem *problem) {
  struct import *import = context;
  attn_status status = attn_snapshot_create_typed(&import->shape, key_dim, value_dim, dtype);
  if (status == ATTN_OK) {
    if (!measure(import->api, import->shape, rows, &import->claim, problem) ||
        !budget_check(&import->api->budget, import->claim, problem))
      return false;
    if (rows > 0) status = attn_builder_create(&import->builder, import->shape, rows);
    if (status == ATTN_OK && rows > 0) expect(import);
  }
  return status == ATTN_OK || problem_set_status(problem, status, "");
}

/* What the builder holds by now is charged, but for what it has beside a memory that is
 * nearly whole: or an upload that just fits would be refused in its end. */
static bool charge(struct import *import, struct problem *problem) {
  struct budget *budget = &import->api->budget;
  const size_t held = attn_builder_bytes(import->builder);
  const size_t bytes = held < import->claim ? held : import->claim;
  if (bytes > import->charge && !budget_take(budget, bytes - import->charge, problem))
    return problem_set(problem, PROBLEM_RAM_FULL, "",
                       "this takes %zu bytes of RAM; when %zu of them had been taken, no more of "
                       "the %zu that memories may have together were left",
                       import->claim, import->charge, budget->limit);
  if (bytes < import->charge) budget_give(budget, import->charge - bytes);
  import->charge = bytes;
  return true;
}

/* Rows were put, or refused. */
static bool took(struct import *import, attn_status status, const char *pointer,
                 struct problem *problem) {
  if (status != ATTN_OK) return problem_set_status(problem, status, pointer);
  if (!charge(import, problem)) return false;
  give(import);
  return true;
}

static bool import_keys(void *context, size_t first, size_t rows, const float *numbers,
                        struct problem *problem) {
  struct import *import = context;
  return took(import, attn_builder_keys(import->builder, first, rows, numbers), "/keys", problem);
}

static bool import_values(void *context, size_t first, size_t rows, const float *numbers,
                          struct problem *problem) {
  struct import *import = context;
  return took(import, attn_builder_values(import->builder, first, rows, numbers), "/values",
              problem);
}

void import_free(struct import *import) {
  if (!import) return;
  arriving_end(import->arriving);
  budget_give(&import->api->budget, import->charge);
  tensor_upload_free(import->upload);
  attn_builder_free(import->builder);
  attn_snapshot_free(import->shape);
  free(import);
}

struct import *import_create(struct api *api, uint64_t length, bool ahead) {
  struct import *import = calloc(1, sizeof *import);
  if (!import) return NULL;
  const struct tensor_rows_sink sink = {
      .open = import_open, .keys = import_keys, .values = import_values, .context = import};
  const struct tensor_upload_options options = {.kind = BODY_MEMORY,
                                                .held_bytes = api->max_body_bytes,
                                                .body_bytes = length == UINT64_MAX ? 0 : length,
                                                .most_bytes = api->max_body_bytes,
                                                .rows = &sink};
  import->api = api;
  import->ahead = ahead;
  import->upload = tensor_upload_create(&options);
  if (import->upload) return import;
  import_free(import);
  return NULL;
}

struct arriving *import_arriving(struct import *import) {
  struct arriving *arriving = import->arriving;
  import->arriving = NULL;
  return arriving;
}

bool import_feed(struct import *import, const char *bytes, size_t count, struct problem *problem) {
  return tensor_upload_feed(import->upload, bytes, count, problem);
}

struct memory *import_finish(struct import *import, const char *name, size_t *charge,
                             struct problem *problem) {
  struct memory_body body;
  attn_snapshot *snapshot = NULL;
  struct memory *memory = NULL;
  if (!tensor_upload_finish_memory(import->upload, &body, problem)) return NULL;
  attn_status status = ATTN_OK;
  if (import->builder) {
    status = attn_builder_finish(import->builder, &snapshot);
  } else {
    if (!building_check(import->api, 0, body.key_dim, body.value_dim, problem)) {
      memory_body_free(&body);
      return NULL;
    }
    status = attn_snapshot_create_typed(&snapshot, body.key_dim, body.value_dim, body.dtype);
  }
  if (status == ATTN_OK) status = make_memory(name, &body, snapshot, &memory);
  if (status != ATTN_OK) problem_set_status(problem, status, "");
  if (memory) {
    *charge = import->charge;
    import->charge = 0;
  }
  attn_snapshot_free(snapshot);
  memory_body_free(&body);
  return memory;
}
