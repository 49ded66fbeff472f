/* A writer with all it needs, and a plain model of what it has to do: arrays of
 * rows that are changed by the book, one write after the other. A write's answer
 * and the memories as readers see them are held against the model. */
#ifndef TESTS_UNIT_SERVER_WRITER_MODEL_H
#define TESTS_UNIT_SERVER_WRITER_MODEL_H

#include <pthread.h>
#include <semaphore.h>

#include "base/bytes.h"
#include "engine/writer.h"
#include "store_model.h"

enum { KEY_DIM = 3, VALUE_DIM = 2, DIM = KEY_DIM + VALUE_DIM };
enum { NAMES = 4, ROWS_MOST = 3000, OP_ROWS_MOST = 60, OP_ID_MAX = 16 };

/* ---- The model ---- */

struct row {
  char id[OP_ID_MAX]; /* "": none */
  float numbers[DIM];
};

struct kept_rows {
  bool there;
  int64_t version;
  double scale; /* of its score */
  size_t count;
  struct row *rows;
};

struct world_model {
  struct kept_rows memories[NAMES];
  int64_t floor;
};

/* A write, and what has to come of it. */
struct op {
  enum write_kind kind;
  size_t name;
  int64_t only_version; /* -1: any */
  double scale;         /* SETTINGS, PUT */
  size_t count;
  struct row rows[OP_ROWS_MOST];
  bool ids;
  enum problem_code problem; /* where it fails */
  bool fails, created;
  int64_t version;
  size_t total, inserted, updated, deleted;
};

static inline void model_init(struct world_model *model) {
  memset(model, 0, sizeof *model);
  for (size_t i = 0; i < NAMES; i++) {
    model->memories[i].rows = calloc(ROWS_MOST, sizeof(struct row));
    ck_assert_ptr_nonnull(model->memories[i].rows);
  }
}

static inline void model_free(struct world_model *model) {
  for (size_t i = 0; i < NAMES; i++)
    free(model->memories[i].rows);
}

static inline size_t model_find(const struct kept_rows *memory, const char *id) {
  for (size_t i = 0; i < memory->count; i++)
    if (*id && strcmp(memory->rows[i].id, id) == 0) return i;
  return SIZE_MAX;
}

static inline bool op_refused(struct op *op, enum problem_code problem) {
  op->fails = true;
  op->problem = problem;
  return false;
}

static inline void model_rows(struct kept_rows *memory, struct op *op) {
  const size_t before = memory->count;
  for (size_t i = 0; i < op->count; i++) {
    size_t at = op->ids ? model_find(memory, op->rows[i].id) : SIZE_MAX;
    if (at == SIZE_MAX) at = memory->count++;
    ck_assert_uint_le(memory->count, ROWS_MOST);
    memory->rows[at] = op->rows[i];
  }
  op->inserted = memory->count - before;
  op->updated = op->count - op->inserted;
  memory->version++;
}

static inline void model_removal(struct kept_rows *memory, struct op *op) {
  for (size_t i = 0; i < op->count; i++) {
    const size_t at = model_find(memory, op->rows[i].id);
    if (at == SIZE_MAX) continue;
    memmove(memory->rows + at, memory->rows + at + 1,
            (memory->count - at - 1) * sizeof *memory->rows);
    memory->count--;
    op->deleted++;
  }
  if (op->deleted > 0) memory->version++;
}

static inline bool model_apply(struct world_model *model, struct op *op) {
  struct kept_rows *memory = &model->memories[op->name];
  const int64_t version = memory->there ? memory->version : 0;
  op->fails = op->created = false;
  op->inserted = op->updated = op->deleted = 0;
  if (op->kind != WRITE_PUT && !memory->there) return op_refused(op, PROBLEM_MEMORY_NOT_FOUND);
  if (op->only_version >= 0 && op->only_version != version)
    return op_refused(op, PROBLEM_PRECONDITION_FAILED);
  if (op->kind == WRITE_PUT) {
    op->created = !memory->there;
    memory->version = (memory->there ? memory->version : model->floor) + 1;
    memory->there = true;
    memory->scale = op->scale;
    memory->count = op->count;
    memcpy(memory->rows, op->rows, op->count * sizeof *op->rows);
  } else if (op->kind == WRITE_DELETE) {
    if (memory->version > model->floor) model->floor = memory->version;
    memory->there = false;
    memory->count = 0;
  } else if (op->kind == WRITE_ROWS) {
    model_rows(memory, op);
  } else if (op->kind == WRITE_REMOVAL) {
    model_removal(memory, op);
  } else {
    memory->scale = op->scale;
    memory->version++;
  }
  op->version = memory->version;
  op->total = memory->count;
  return true;
}

static inline bool op_has(const struct op *op, const char *id) {
  for (size_t i = 0; i < op->count; i++)
    if (strcmp(op->rows[i].id, id) == 0) return true;
  return false;
}

static inline struct op op_random(const struct world_model *model, uint64_t *state) {
  static const enum write_kind kinds[] = {WRITE_ROWS, WRITE_ROWS,    WRITE_ROWS,    WRITE_ROWS,
                                          WRITE_ROWS, WRITE_REMOVAL, WRITE_REMOVAL, WRITE_SETTINGS,
                                          WRITE_PUT,  WRITE_DELETE};
  struct op op = {.kind = kinds[next_random(state) % 10], .name = next_random(state) % NAMES};
  const struct kept_rows *memory = &model->memories[op.name];
  if (!memory->there && next_random(state) % 4) op.kind = WRITE_PUT;
  if (op.kind == WRITE_DELETE && next_random(state) % 3) op.kind = WRITE_ROWS;
  if (op.kind == WRITE_PUT && memory->there && next_random(state) % 3) op.kind = WRITE_ROWS;
  op.only_version = next_random(state) % 8 ? -1 : memory->there ? memory->version : 0;
  if (next_random(state) % 32 == 0) op.only_version = memory->version + 1;
  op.scale = (double)(next_random(state) % 100 + 1);
  op.ids = op.kind == WRITE_REMOVAL || next_random(state) % 3;
  const size_t most = next_random(state) % 4 ? 3 : OP_ROWS_MOST;
  const size_t count = next_random(state) % most + 1;
  for (size_t i = 0; i < count; i++) {
    struct row row = {.id = ""};
    if (op.ids) snprintf(row.id, sizeof row.id, "id-%d", (int)(next_random(state) % 400));
    if (op.ids && op_has(&op, row.id)) continue;
    for (size_t k = 0; k < DIM; k++)
      row.numbers[k] = (float)(int32_t)next_random(state) / 65536;
    op.rows[op.count++] = row;
  }
  return op;
}

/* ---- The world ---- */

struct world {
  struct registry *registry;
  struct budget budget;
  struct writer *writer;
  struct log *log;
  size_t max_memories, arriving_slice;
};

static inline void world_start(struct world *world, struct store *store) {
  world->registry = registry_create();
  world->log = log_create(STDERR_FILENO, LOG_ERROR, LOG_JSON);
  atomic_store(&world->budget.used, 0);
  const struct writer_config config = {.registry = world->registry,
                                       .budget = &world->budget,
                                       .store = store,
                                       .log = world->log,
                                       .max_memories =
                                           world->max_memories ? world->max_memories : 1000000,
                                       .max_rows = 10000000,
                                       .arriving_slice = world->arriving_slice,
                                       .threads = 3};
  ck_assert_ptr_nonnull(world->registry);
  world->writer = writer_create(&config);
  ck_assert_ptr_nonnull(world->writer);
  ck_assert(writer_wait_loaded(world->writer));
}

static inline void world_stop(struct world *world) {
  writer_finish(world->writer);
  writer_free(world->writer);
  registry_free(world->registry);
  log_free(world->log);
}

/* ---- Writes ---- */

struct ticket {
  struct write write; /* first */
  struct op op;
  char name[24];
  float keys[OP_ROWS_MOST * KEY_DIM], values[OP_ROWS_MOST * VALUE_DIM];
  sem_t done;
};

static inline void ticket_done(struct write *write) {
  sem_post(&((struct ticket *)(void *)write)->done);
}

static inline bool ticket_allowed(const void *context, int64_t version) {
  const struct op *op = context;
  return op->only_version < 0 || op->only_version == version;
}

static inline void settings_of(double scale, attn_score **score, attn_normalization **norm) {
  const attn_argument argument = {.name = "scale", .number = scale};
  ck_assert_int_eq(attn_score_create(score, "scaled_dot", &argument, 1, NULL), ATTN_OK);
  ck_assert_int_eq(attn_normalization_create(norm, "softmax", NULL, 0, NULL), ATTN_OK);
}

static inline struct memory *memory_of_rows(const char *name, double scale, const float *keys,
                                            const float *values, size_t rows, size_t key_dim,
                                            size_t value_dim, const struct tags_edit *tags) {
  struct memory parts = {.name = name};
  attn_snapshot *empty;
  settings_of(scale, &parts.score, &parts.normalization);
  ck_assert_int_eq(attn_snapshot_create(&empty, key_dim, value_dim), ATTN_OK);
  ck_assert_int_eq(attn_snapshot_append(&parts.snapshot, empty, keys, values, rows), ATTN_OK);
  ck_assert(row_tags_edit(&parts.tags, NULL, 0, tags));
  struct memory *memory = memory_create(&parts);
  ck_assert_ptr_nonnull(memory);
  attn_snapshot_free(empty);
  attn_snapshot_free(parts.snapshot);
  row_tags_free(parts.tags);
  attn_score_free(parts.score);
  attn_normalization_free(parts.normalization);
  return memory;
}

static inline struct ticket *ticket_create(struct world *world, const struct op *op) {
  struct ticket *ticket = calloc(1, sizeof *ticket);
  ck_assert_ptr_nonnull(ticket);
  ticket->op = *op;
  sem_init(&ticket->done, 0, 0);
  snprintf(ticket->name, sizeof ticket->name, "memory-%zu", op->name);
  for (size_t i = 0; i < op->count; i++) {
    memcpy(ticket->keys + i * KEY_DIM, op->rows[i].numbers, KEY_DIM * sizeof(float));
    memcpy(ticket->values + i * VALUE_DIM, op->rows[i].numbers + KEY_DIM,
           VALUE_DIM * sizeof(float));
  }
  struct write *write = &ticket->write;
  *write = (struct write){.kind = op->kind,
                          .name = ticket->name,
                          .allowed = ticket_allowed,
                          .context = &ticket->op,
                          .keys = ticket->keys,
                          .values = ticket->values,
                          .rows = op->count,
                          .key_dim = KEY_DIM,
                          .value_dim = VALUE_DIM,
                          .done = ticket_done};
  if (op->ids) {
    write->ids = id_list_create();
    for (size_t i = 0; i < op->count; i++)
      ck_assert(id_list_append(write->ids, op->rows[i].id, strlen(op->rows[i].id)));
  }
  if (op->kind == WRITE_SETTINGS) settings_of(op->scale, &write->score, &write->normalization);
  if (op->kind == WRITE_PUT) {
    const struct tags_edit tags = {.added_count = op->count, .added_ids = write->ids};
    write->memory = memory_of_rows(ticket->name, op->scale, ticket->keys, ticket->values, op->count,
                                   KEY_DIM, VALUE_DIM, &tags);
    struct problem problem;
    write->charge = memory_bytes(write->memory);
    ck_assert(budget_take(&world->budget, write->charge, &problem));
  }
  return ticket;
}

/* A memory of any shape, to be put whatever is there; the ticket owns it. */
static inline struct ticket *ticket_of_memory(const char *name, struct memory *memory) {
  struct ticket *ticket = calloc(1, sizeof *ticket);
  ck_assert_ptr_nonnull(ticket);
  sem_init(&ticket->done, 0, 0);
  ticket->op.only_version = -1;
  snprintf(ticket->name, sizeof ticket->name, "%s", name);
  ticket->write = (struct write){.kind = WRITE_PUT,
                                 .name = ticket->name,
                                 .allowed = ticket_allowed,
                                 .context = &ticket->op,
                                 .memory = memory,
                                 .done = ticket_done};
  return ticket;
}

static inline void ticket_free(struct ticket *ticket) {
  struct write *write = &ticket->write;
  id_list_free(write->ids);
  memory_free(write->memory);
  memory_free(write->after);
  attn_score_free(write->score);
  attn_normalization_free(write->normalization);
  sem_destroy(&ticket->done);
  free(ticket);
}

static inline void ticket_wait(struct ticket *ticket) {
  while (sem_wait(&ticket->done) != 0) {
  }
}

static inline void ticket_run(struct world *world, struct ticket *ticket) {
  ck_assert(writer_submit(world->writer, &ticket->write));
  ticket_wait(ticket);
}

/* The answer of the write is that of the model. */
static inline void ticket_check(const struct ticket *ticket, const struct op *expected) {
  const struct write *write = &ticket->write;
  ck_assert_int_eq(write->failed, expected->fails);
  if (expected->fails) {
    ck_assert_int_eq(write->problem.code, expected->problem);
    return;
  }
  if (write->kind == WRITE_DELETE) return;
  ck_assert_int_eq(write->version, expected->version);
  if (write->kind == WRITE_PUT) ck_assert_int_eq(write->created, expected->created);
  if (write->kind != WRITE_ROWS && write->kind != WRITE_REMOVAL) return;
  ck_assert_uint_eq(write->total, expected->total);
  ck_assert_uint_eq(write->inserted, expected->inserted);
  ck_assert_uint_eq(write->updated, expected->updated);
  ck_assert_uint_eq(write->deleted, expected->deleted);
}

/* ---- What readers see ---- */

static inline void check_memory(const struct memory *memory, const struct kept_rows *expected) {
  ck_assert_int_eq(memory != NULL, expected->there);
  if (!memory) return;
  ck_assert_ptr_null(memory->damaged);
  ck_assert_int_eq(memory->version, expected->version);
  ck_assert_uint_eq(attn_snapshot_rows(memory->snapshot), expected->count);
  ck_assert_double_eq(attn_score_get_argument(memory->score, 0, KEY_DIM).number, expected->scale);
  for (size_t i = 0; i < expected->count; i++) {
    float numbers[DIM];
    size_t length = 0;
    const char *id = row_tags_id(memory->tags, i, &length);
    attn_snapshot_get_row(memory->snapshot, i, numbers, numbers + KEY_DIM);
    ck_assert_mem_eq(numbers, expected->rows[i].numbers, sizeof numbers);
    ck_assert_str_eq(id ? id : "", expected->rows[i].id);
    ck_assert_uint_eq(length, strlen(expected->rows[i].id));
  }
}

/* And the budget has what is there, and nothing else. */
static inline void check_world(struct world *world, const struct world_model *model) {
  size_t bytes = 0;
  for (size_t i = 0; i < NAMES; i++) {
    char name[24];
    snprintf(name, sizeof name, "memory-%zu", i);
    struct memory *memory = registry_pin(world->registry, name);
    check_memory(memory, &model->memories[i]);
    bytes += memory ? memory_bytes(memory) : 0;
    memory_free(memory);
  }
  ck_assert_uint_eq(atomic_load(&world->budget.used), bytes);
}

/* All blocks of all memories as bytes, each behind its length: what reloading
 * must not change. */
static inline void encode_world(struct world *world, struct buffer *out) {
  size_t count;
  struct memory **list = registry_list(world->registry, &count);
  buffer_clear(out);
  for (size_t i = 0; i < count; i++) {
    const attn_snapshot *snapshot = list[i]->snapshot;
    bytes_put_text(out, list[i]->name, strlen(list[i]->name));
    for (size_t b = 0; b < attn_snapshot_block_count(snapshot); b++) {
      const attn_block *block = attn_snapshot_block(snapshot, b);
      const size_t size = attn_block_encoded_size(snapshot, block);
      bytes_put_u64(out, size);
      char *room = buffer_reserve(out, size);
      ck_assert_ptr_nonnull(room);
      attn_block_encode(snapshot, block, room);
      buffer_advance(out, size);
    }
  }
  registry_list_free(list, count);
}

/* ---- What is left on the disk ---- */

/* What the query counts in a store that nobody has open. Opening it as a store would
 * tidy up first. */
static inline int64_t count_left(const char *directory, const char *query) {
  char path[300];
  sqlite3 *db;
  sqlite3_stmt *statement;
  snprintf(path, sizeof path, "%s/store.db", directory);
  ck_assert_int_eq(sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL), SQLITE_OK);
  ck_assert_int_eq(sqlite3_prepare_v2(db, query, -1, &statement, NULL), SQLITE_OK);
  ck_assert_int_eq(sqlite3_step(statement), SQLITE_ROW);
  const int64_t count = sqlite3_column_int64(statement, 0);
  sqlite3_finalize(statement);
  sqlite3_close(db);
  return count;
}

/* Stops and starts: all blocks are what they were. What the query (or NULL) counts in
 * between. */
static inline int64_t world_reload(struct world *world, const char *directory,
                                   struct store *(*open)(const char *directory),
                                   const char *query) {
  struct buffer before, after;
  buffer_init(&before, 0);
  buffer_init(&after, 0);
  encode_world(world, &before);
  world_stop(world);
  const int64_t count = query ? count_left(directory, query) : 0;
  world_start(world, open(directory));
  encode_world(world, &after);
  ck_assert_uint_eq(before.length, after.length);
  ck_assert_mem_eq(before.data, after.data, before.length);
  buffer_free(&before);
  buffer_free(&after);
  return count;
}

#endif
