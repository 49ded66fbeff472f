/* The writer against a model: in RAM alone, and with a store that is closed and
 * opened again; one write at a time and in batches; its chores; its threads. */
#include "writer_model.h"

#include "base/clock.h"

enum { MOST_TICKETS = 40 };

static void run_alone(struct world *world, struct world_model *model, struct op op) {
  struct ticket *ticket = ticket_create(world, &op);
  model_apply(model, &op);
  ticket_run(world, ticket);
  ticket_check(ticket, &op);
  ticket_free(ticket);
}

/* ---- One batch: the first write holds the thread up until all are queued ---- */

struct gate {
  struct write write; /* first */
  sem_t entered, open, done;
};

static bool gate_allowed(const void *context, int64_t version) {
  struct gate *gate = (struct gate *)(uintptr_t)context;
  (void)version;
  sem_post(&gate->entered);
  while (sem_wait(&gate->open) != 0) {
  }
  return false;
}

static void gate_done(struct write *write) {
  sem_post(&((struct gate *)(void *)write)->done);
}

static void gate_close(struct world *world, struct gate *gate) {
  static const char *const name = "gate";
  *gate = (struct gate){.write = {.kind = WRITE_PUT, .name = name, .done = gate_done}};
  gate->write.allowed = gate_allowed;
  gate->write.context = gate;
  const float one = 1;
  gate->write.memory = memory_of_rows(name, 1, &one, &one, 1, 1, 1, &(struct tags_edit){0});
  sem_init(&gate->entered, 0, 0);
  sem_init(&gate->open, 0, 0);
  sem_init(&gate->done, 0, 0);
  ck_assert(writer_submit(world->writer, &gate->write));
  while (sem_wait(&gate->entered) != 0) {
  }
}

static void gate_open(struct gate *gate) {
  sem_post(&gate->open);
  while (sem_wait(&gate->done) != 0) {
  }
  ck_assert(gate->write.failed);
  ck_assert_int_eq(gate->write.problem.code, PROBLEM_PRECONDITION_FAILED);
  memory_free(gate->write.memory);
  sem_destroy(&gate->entered);
  sem_destroy(&gate->open);
  sem_destroy(&gate->done);
}

static void run_together(struct world *world, struct world_model *model, uint64_t *state,
                         size_t count) {
  struct ticket *tickets[MOST_TICKETS];
  struct op expected[MOST_TICKETS];
  struct gate gate;
  gate_close(world, &gate);
  for (size_t i = 0; i < count; i++) {
    expected[i] = op_random(model, state);
    tickets[i] = ticket_create(world, &expected[i]);
    model_apply(model, &expected[i]);
    ck_assert(writer_submit(world->writer, &tickets[i]->write));
  }
  gate_open(&gate);
  for (size_t i = 0; i < count; i++) {
    ticket_wait(tickets[i]);
    ticket_check(tickets[i], &expected[i]);
    ticket_free(tickets[i]);
  }
}

static void run_sequence(const char *directory, uint64_t seed) {
  struct world world = {.registry = NULL};
  struct world_model model;
  struct buffer before, after;
  uint64_t state = seed;
  buffer_init(&before, 0);
  buffer_init(&after, 0);
  model_init(&model);
  world_start(&world, directory ? open_good(directory) : NULL);
  for (int round = 0; round < 60; round++) {
    if (round % 2)
      run_together(&world, &model, &state, next_random(&state) % MOST_TICKETS + 1);
    else
      for (int i = 0; i < 10; i++)
        run_alone(&world, &model, op_random(&model, &state));
    check_world(&world, &model);
    if (!directory || round % 6) continue;
    encode_world(&world, &before);
    world_stop(&world);
    world_start(&world, open_good(directory));
    check_world(&world, &model);
    encode_world(&world, &after);
    ck_assert_uint_eq(before.length, after.length);
    ck_assert_mem_eq(before.data, after.data, before.length);
  }
  world_stop(&world);
  model_free(&model);
  buffer_free(&before);
  buffer_free(&after);
}

START_TEST(test_model_in_ram) {
  for (uint64_t seed = 1; seed <= 8; seed++)
    run_sequence(NULL, seed);
}
END_TEST

START_TEST(test_model_with_store) {
  char directory[200];
  make_scratch(directory, sizeof directory);
  for (uint64_t seed = 11; seed <= 16; seed++) {
    run_sequence(directory, seed);
    empty_folder(directory);
  }
  remove_scratch(directory);
}
END_TEST

/* ---- What one write does to a later one of the same batch ---- */

static struct op put_op(size_t name, size_t rows) {
  struct op op = {.kind = WRITE_PUT, .name = name, .only_version = -1, .scale = 1, .ids = true};
  for (; op.count < rows; op.count++)
    snprintf(op.rows[op.count].id, OP_ID_MAX, "row-%zu", op.count);
  return op;
}

static struct op append_op(size_t name, const char *id) {
  struct op op = {.kind = WRITE_ROWS, .name = name, .only_version = -1, .count = 1, .ids = *id};
  snprintf(op.rows[0].id, OP_ID_MAX, "%s", id);
  return op;
}

static struct ticket *append_with_key(struct world *world, const char *key, uint64_t fingerprint) {
  const struct op op = append_op(0, "");
  struct ticket *ticket = ticket_create(world, &op);
  ticket->write.idempotency_key = key;
  ticket->write.fingerprint = fingerprint;
  return ticket;
}

static void submit_and_wait(struct world *world, struct ticket **tickets, size_t count) {
  struct gate gate;
  gate_close(world, &gate);
  for (size_t i = 0; i < count; i++)
    ck_assert(writer_submit(world->writer, &tickets[i]->write));
  gate_open(&gate);
  for (size_t i = 0; i < count; i++)
    ticket_wait(tickets[i]);
}

START_TEST(test_idempotency_keys) {
  char directory[200];
  make_scratch(directory, sizeof directory);
  struct world world = {.registry = NULL};
  world_start(&world, open_good(directory));
  const struct op put = put_op(0, 2), delete = {.kind = WRITE_DELETE, .only_version = -1};
  struct ticket *tickets[] = {ticket_create(&world, &put), append_with_key(&world, "a", 1),
                              append_with_key(&world, "b", 1), append_with_key(&world, "a", 1),
                              append_with_key(&world, "a", 2)};
  submit_and_wait(&world, tickets, 5);
  ck_assert_int_eq(tickets[1]->write.version, 2);
  ck_assert_int_eq(tickets[2]->write.version, 3);
  ck_assert_int_eq(tickets[3]->write.version, 2);
  ck_assert_uint_eq(tickets[3]->write.total, 3);
  ck_assert(!tickets[3]->write.failed);
  ck_assert_int_eq(tickets[4]->write.problem.code, PROBLEM_KEY_REUSED);
  for (size_t i = 0; i < 5; i++)
    ticket_free(tickets[i]);

  world_stop(&world);
  world_start(&world, open_good(directory));
  struct ticket *again = append_with_key(&world, "b", 1);
  submit_and_wait(&world, &again, 1);
  ck_assert_int_eq(again->write.version, 3);
  ticket_free(again);

  /* a memory of the same name that is made in the same batch is another one */
  struct ticket *renewed[] = {append_with_key(&world, "c", 1), ticket_create(&world, &delete),
                              ticket_create(&world, &put), append_with_key(&world, "b", 1),
                              append_with_key(&world, "c", 1)};
  submit_and_wait(&world, renewed, 5);
  ck_assert_int_eq(renewed[0]->write.version, 4);
  ck_assert_int_eq(renewed[2]->write.version, 5);
  ck_assert_int_eq(renewed[3]->write.version, 6);
  ck_assert_int_eq(renewed[4]->write.version, 7);
  for (size_t i = 0; i < 5; i++)
    ticket_free(renewed[i]);
  world_stop(&world);
  world_start(&world, open_good(directory));
  again = append_with_key(&world, "b", 1);
  submit_and_wait(&world, &again, 1);
  ck_assert_int_eq(again->write.version, 6);
  ticket_free(again);
  world_stop(&world);
  remove_scratch(directory);
}
END_TEST

START_TEST(test_too_many_memories) {
  struct world world = {.max_memories = 2};
  struct world_model model;
  model_init(&model);
  world_start(&world, NULL);
  run_alone(&world, &model, put_op(0, 1));
  const struct op more[] = {put_op(1, 1),
                            put_op(2, 1),
                            {.kind = WRITE_DELETE, .only_version = -1},
                            put_op(2, 1),
                            put_op(3, 1)};
  struct ticket *tickets[5];
  for (size_t i = 0; i < 5; i++)
    tickets[i] = ticket_create(&world, &more[i]);
  submit_and_wait(&world, tickets, 5);
  for (size_t i = 0; i < 5; i++) {
    ck_assert_int_eq(tickets[i]->write.failed, i == 1 || i == 4);
    if (tickets[i]->write.failed)
      ck_assert_int_eq(tickets[i]->write.problem.code, PROBLEM_TOO_MANY_MEMORIES);
    ticket_free(tickets[i]);
  }
  world_stop(&world);
  model_free(&model);
}
END_TEST

START_TEST(test_ram_budget) {
  struct world world = {.registry = NULL};
  struct world_model model;
  model_init(&model);
  world_start(&world, NULL);
  run_alone(&world, &model, put_op(0, 2));
  world.budget.limit = atomic_load(&world.budget.used) + 100;
  const struct op fits = append_op(0, "x");
  struct op large = append_op(0, "");
  large.count = 4;
  struct ticket *tickets[] = {ticket_create(&world, &large), ticket_create(&world, &fits)};
  submit_and_wait(&world, tickets, 2);
  ck_assert_int_eq(tickets[0]->write.problem.code, PROBLEM_RAM_FULL);
  ck_assert(!tickets[1]->write.failed);
  struct op done = fits;
  model_apply(&model, &done);
  check_world(&world, &model);
  for (size_t i = 0; i < 2; i++)
    ticket_free(tickets[i]);
  world_stop(&world);
  model_free(&model);
}
END_TEST

/* ---- Large memories and folds ---- */

enum { WIDE = 256 };

static struct memory *wide_memory(const char *name, size_t rows, float first) {
  float *numbers = malloc(rows * WIDE * sizeof *numbers);
  for (size_t i = 0; i < rows * WIDE; i++)
    numbers[i] = first + (float)i;
  struct memory *memory = memory_of_rows(name, 1, numbers, numbers, rows, WIDE, WIDE,
                                         &(struct tags_edit){.added_count = rows});
  free(numbers);
  return memory;
}

static struct ticket *wide_put(const char *name, size_t rows) {
  return ticket_of_memory(name, wide_memory(name, rows, 1));
}

static struct write wide_append(const char *name, const float *numbers, size_t rows,
                                void (*done)(struct write *write)) {
  return (struct write){.kind = WRITE_ROWS,
                        .name = name,
                        .keys = numbers,
                        .values = numbers,
                        .rows = rows,
                        .key_dim = WIDE,
                        .value_dim = WIDE,
                        .done = done};
}

/* A large memory is stored ahead; one that is refused in the end leaves nothing,
 * and that before the store is opened again. */
static bool once(const void *context, int64_t version) {
  atomic_int *asked = (atomic_int *)(uintptr_t)context;
  (void)version;
  return atomic_fetch_add(asked, 1) == 0;
}

/* Until the writer has had the time for its chores: it sweeps between writes. */
static void sweep_on(struct world *world) {
  for (int i = 0; i < 8; i++) {
    const struct op op = put_op(3, 1);
    struct ticket *ticket = ticket_create(world, &op);
    submit_and_wait(world, &ticket, 1);
    ticket_free(ticket);
    const struct op gone = {.kind = WRITE_DELETE, .name = 3, .only_version = -1};
    ticket = ticket_create(world, &gone);
    submit_and_wait(world, &ticket, 1);
    ticket_free(ticket);
    usleep(110000);
  }
}

START_TEST(test_large_memories) {
  char directory[200];
  make_scratch(directory, sizeof directory);
  struct world world = {.registry = NULL};
  world_start(&world, open_good(directory));
  struct ticket *kept = wide_put("kept", 3000), *refused = wide_put("refused", 3000);
  struct ticket *again = wide_put("kept", 3000);
  atomic_int asked = 0;
  refused->write.allowed = once;
  refused->write.context = &asked;
  again->write.only_if_missing = true;
  ck_assert(writer_submit(world.writer, &kept->write));
  ck_assert(writer_submit(world.writer, &refused->write));
  ticket_wait(kept);
  ticket_wait(refused);
  ticket_run(&world, again);
  ck_assert(!kept->write.failed && kept->write.created);
  ck_assert(again->write.existed);
  ck_assert_int_eq(refused->write.problem.code, PROBLEM_PRECONDITION_FAILED);
  ck_assert_int_ge(atomic_load(&asked), 2);
  sweep_on(&world);
  ck_assert_int_eq(
      world_reload(&world, directory, open_good, "SELECT count(DISTINCT id) FROM chunk"), 1);
  world_stop(&world);
  ticket_free(kept);
  ticket_free(refused);
  ticket_free(again);
  remove_scratch(directory);
}
END_TEST

/* How many writes of a row are done while a large memory is stored. */
static int done_beside_large(struct world *world) {
  enum { ROWS = 30000 }; /* 60 MB */
  const struct op first = put_op(0, 1);
  struct op op = first;
  int done_meanwhile = 0;
  struct ticket *large = wide_put("large", ROWS);
  for (bool submitted = false, done = false; !done;
       done = submitted && sem_trywait(&large->done) == 0) {
    struct ticket *small = ticket_create(world, &op);
    ticket_run(world, small);
    ck_assert(!small->write.failed);
    ticket_free(small);
    done_meanwhile += submitted;
    if (!submitted) ck_assert(writer_submit(world->writer, &large->write));
    submitted = true;
    op.kind = WRITE_ROWS;
  }
  ck_assert(!large->write.failed);
  ticket_free(large);
  return done_meanwhile;
}

/* Small writes are not held up by a large one: between slices of it they are done. On a
 * busy machine the next small one may come too late for some, so it is tried again. */
START_TEST(test_small_beside_large) {
  char directory[200];
  make_scratch(directory, sizeof directory);
  struct world world = {.registry = NULL};
  world_start(&world, open_good(directory));
  int most = 0;
  for (int i = 0; i < 10 && most < 4; i++) {
    const int done = done_beside_large(&world);
    if (done > most) most = done;
  }
  ck_assert_int_ge(most, 4);
  world_reload(&world, directory, open_good, NULL);
  world_stop(&world);
  remove_scratch(directory);
}
END_TEST

/* Appends until folds have happened: the changes are gone, the rows are not. */
START_TEST(test_folds) {
  char directory[200];
  make_scratch(directory, sizeof directory);
  struct world world = {.registry = NULL};
  world_start(&world, open_good(directory));
  struct ticket *put = wide_put("m", 2000);
  ticket_run(&world, put);
  float numbers[20 * WIDE];
  for (size_t i = 0; i < 20 * WIDE; i++)
    numbers[i] = (float)i / 7;
  struct ticket append;
  sem_init(&append.done, 0, 0);
  for (int i = 0; i < 200; i++) {
    append.write = wide_append("m", numbers, 20, ticket_done);
    ticket_run(&world, &append);
    ck_assert(!append.write.failed);
    ck_assert_int_eq(append.write.version, 2 + i);
  }
  /* 8 MB of changes to a memory of 4 MB */
  sweep_on(&world);
  ck_assert_int_lt(world_reload(&world, directory, open_good, "SELECT count(*) FROM change"), 190);
  world_stop(&world);
  ck_assert_int_gt(count_left(directory, "SELECT base_version FROM head"), 10);
  world_start(&world, open_good(directory));
  struct memory *memory = registry_pin(world.registry, "m");
  ck_assert_uint_eq(attn_snapshot_rows(memory->snapshot), 6000);
  memory_free(memory);
  world_stop(&world);
  sem_destroy(&append.done);
  ticket_free(put);
  remove_scratch(directory);
}
END_TEST

/* A fold that a crash ended has left chunks; a change that is stored as chunks
 * right after the start must not stumble over their numbers. */
START_TEST(test_chunks_left_by_a_fold) {
  char directory[200];
  make_scratch(directory, sizeof directory);
  struct world world = {.registry = NULL};
  world_start(&world, open_good(directory));
  struct ticket *put = wide_put("m", 10);
  ticket_run(&world, put);
  world_stop(&world);
  struct store *store = open_good(directory);
  struct store_memory stored;
  ck_assert(store_memory_at(store, 0, &stored));
  int64_t last;
  ck_assert_int_eq(store_last_chunk(store, stored.id, &last), STORE_OK);
  ck_assert_int_eq(store_begin(store), STORE_OK);
  for (int64_t chunk = last + 1; chunk < last + 4; chunk++)
    ck_assert_int_eq(store_put_chunk(store, stored.id, chunk, "left", 4), STORE_OK);
  ck_assert_int_eq(store_commit(store), STORE_OK);
  store_close(store);

  const size_t rows = 3000;
  float *numbers = calloc(rows * WIDE, sizeof *numbers);
  struct ticket append;
  sem_init(&append.done, 0, 0);
  append.write = wide_append("m", numbers, rows, ticket_done);
  struct world again = {.registry = NULL};
  world_start(&again, open_good(directory));
  ticket_run(&again, &append);
  ck_assert(!append.write.failed);
  ck_assert_uint_eq(append.write.total, rows + 10);
  world_reload(&again, directory, open_good, NULL);
  world_stop(&again);
  free(numbers);
  sem_destroy(&append.done);
  ticket_free(put);
  remove_scratch(directory);
}
END_TEST

/* ---- Expiry ---- */

static size_t rows_of(struct world *world, const char *name) {
  struct memory *memory = registry_pin(world->registry, name);
  const size_t rows = memory ? attn_snapshot_rows(memory->snapshot) : SIZE_MAX;
  memory_free(memory);
  return rows;
}

static void check_expiry(const char *directory) {
  struct world world = {.registry = NULL};
  struct world_model model;
  model_init(&model);
  world_start(&world, directory ? open_good(directory) : NULL);
  for (size_t name = 0; name < NAMES; name++)
    run_alone(&world, &model, put_op(name, 3));
  for (size_t i = 0; i < 3 * NAMES; i++) {
    struct op op = append_op(i % NAMES, i / NAMES == 0 ? "row-1" : i / NAMES == 1 ? "x" : "y");
    struct ticket *ticket = ticket_create(&world, &op);
    ticket->write.has_ttl = true;
    ticket->write.ttl_ms = i / NAMES == 2 ? 3600000 : 60 + 40 * (int64_t)(i % NAMES);
    ticket_run(&world, ticket);
    ck_assert(!ticket->write.failed);
    ticket_free(ticket);
  }
  const double until = clock_seconds() + 300;
  for (size_t name = 0; name < NAMES; name++) {
    char text[24];
    snprintf(text, sizeof text, "memory-%zu", name);
    while (rows_of(&world, text) != 3) {
      ck_assert(clock_seconds() < until);
      usleep(2000);
    }
    struct memory *memory = registry_pin(world.registry, text);
    static const char *const left[] = {"row-0", "row-2", "y"};
    size_t length;
    for (size_t row = 0; row < 3; row++)
      ck_assert_str_eq(row_tags_id(memory->tags, row, &length), left[row]);
    ck_assert_int_gt(memory->version, 4);
    memory_free(memory);
  }
  if (directory) world_reload(&world, directory, open_good, NULL);
  world_stop(&world);
  model_free(&model);
}

START_TEST(test_expiry) {
  char directory[200];
  make_scratch(directory, sizeof directory);
  check_expiry(NULL);
  check_expiry(directory);
  remove_scratch(directory);
}
END_TEST

/* ---- Threads ---- */

enum { THREADS = 4, WRITES = 150 };

struct client {
  struct world *world;
  size_t number;
  int64_t versions[WRITES];
  struct world_model mine; /* of memory 0: the rows with this client's ids */
};

/* All of them write to memory 0, each to rows of its own. */
static void *client_run(void *argument) {
  struct client *client = argument;
  uint64_t state = client->number + 77;
  for (size_t i = 0; i < WRITES; i++) {
    struct op op = op_random(&client->mine, &state);
    if (op.kind != WRITE_REMOVAL) op.kind = WRITE_ROWS;
    op.name = 0;
    op.only_version = -1;
    op.ids = true;
    for (size_t r = 0; r < op.count; r++)
      snprintf(op.rows[r].id, OP_ID_MAX, "%d-%d-%d", (int)client->number % 10, (int)r % 100,
               (int)(next_random(&state) % 9));
    struct ticket *ticket = ticket_create(client->world, &op);
    model_apply(&client->mine, &op);
    ticket_run(client->world, ticket);
    ck_assert(!ticket->write.failed);
    ck_assert_uint_eq(ticket->write.inserted, op.inserted);
    ck_assert_uint_eq(ticket->write.deleted, op.deleted);
    client->versions[i] = op.inserted + op.updated + op.deleted > 0 ? ticket->write.version : 0;
    ticket_free(ticket);
  }
  return NULL;
}

static void check_versions(const struct client *clients, int64_t largest) {
  char *seen = calloc((size_t)largest + 1, 1);
  for (size_t c = 0; c < THREADS; c++) {
    int64_t before = 0;
    for (size_t i = 0; i < WRITES; i++) {
      const int64_t version = clients[c].versions[i];
      if (version == 0) continue;
      ck_assert_int_gt(version, before);
      ck_assert_int_le(version, largest);
      ck_assert_int_eq(seen[version]++, 0);
      before = version;
    }
  }
  free(seen);
}

/* The client's rows are there, in its order, among the others'. */
static void check_rows_of(const struct memory *memory, const struct client *client) {
  const struct kept_rows *mine = &client->mine.memories[0];
  size_t found = 0;
  char prefix[8];
  snprintf(prefix, sizeof prefix, "%zu-", client->number);
  for (size_t row = 0; row < attn_snapshot_rows(memory->snapshot); row++) {
    size_t length;
    float numbers[DIM];
    const char *id = row_tags_id(memory->tags, row, &length);
    if (!id || strncmp(id, prefix, strlen(prefix)) != 0) continue;
    ck_assert_uint_lt(found, mine->count);
    ck_assert_str_eq(id, mine->rows[found].id);
    attn_snapshot_get_row(memory->snapshot, row, numbers, numbers + KEY_DIM);
    ck_assert_mem_eq(numbers, mine->rows[found++].numbers, sizeof numbers);
  }
  ck_assert_uint_eq(found, mine->count);
}

START_TEST(test_many_threads) {
  char directory[200];
  make_scratch(directory, sizeof directory);
  struct world world = {.registry = NULL};
  struct world_model model;
  model_init(&model);
  world_start(&world, open_good(directory));
  run_alone(&world, &model, put_op(0, 5));
  static struct client clients[THREADS];
  pthread_t threads[THREADS];
  for (size_t i = 0; i < THREADS; i++) {
    clients[i] = (struct client){.world = &world, .number = i};
    model_init(&clients[i].mine);
    clients[i].mine.memories[0].there = true;
    ck_assert_int_eq(pthread_create(&threads[i], NULL, client_run, &clients[i]), 0);
  }
  for (size_t i = 0; i < THREADS; i++)
    pthread_join(threads[i], NULL);
  world_reload(&world, directory, open_good, NULL);
  struct memory *memory = registry_pin(world.registry, "memory-0");
  check_versions(clients, memory->version);
  size_t rows = 5;
  for (size_t i = 0; i < THREADS; i++) {
    check_rows_of(memory, &clients[i]);
    rows += clients[i].mine.memories[0].count;
    model_free(&clients[i].mine);
  }
  ck_assert_uint_eq(attn_snapshot_rows(memory->snapshot), rows);
  memory_free(memory);
  world_stop(&world);
  model_free(&model);
  remove_scratch(directory);
}
END_TEST

/* What was submitted is done, what comes later is refused. */
START_TEST(test_finish_with_a_queue) {
  struct world world = {.registry = NULL};
  struct world_model model;
  uint64_t state = 5;
  struct ticket *tickets[MOST_TICKETS];
  struct op expected[MOST_TICKETS];
  model_init(&model);
  world_start(&world, NULL);
  for (size_t i = 0; i < MOST_TICKETS; i++) {
    expected[i] = op_random(&model, &state);
    tickets[i] = ticket_create(&world, &expected[i]);
    model_apply(&model, &expected[i]);
    ck_assert(writer_submit(world.writer, &tickets[i]->write));
  }
  writer_finish(world.writer);
  for (size_t i = 0; i < MOST_TICKETS; i++) {
    ck_assert_int_eq(sem_trywait(&tickets[i]->done), 0);
    ticket_check(tickets[i], &expected[i]);
    ticket_free(tickets[i]);
  }
  check_world(&world, &model);
  const struct op late = put_op(0, 1);
  struct ticket *ticket = ticket_create(&world, &late);
  ck_assert(!writer_submit(world.writer, &ticket->write));
  ticket_free(ticket);
  world_stop(&world);
  model_free(&model);
}
END_TEST

UNIT_MAIN("writer", test_model_in_ram, test_model_with_store, test_idempotency_keys,
          test_too_many_memories, test_ram_budget, test_large_memories, test_small_beside_large,
          test_folds, test_chunks_left_by_a_fold, test_expiry, test_many_threads,
          test_finish_with_a_queue)
