/* A plain model of what a store holds, for its suites: arrays of memories with
 * chunks and changes, whose bytes follow from a seed and a size. A random
 * transaction is applied to the store and to the model; later the store is read
 * through its interface and the two are compared by a digest that knows nothing
 * of how the store keeps anything. */
#ifndef TESTS_UNIT_SERVER_STORE_MODEL_H
#define TESTS_UNIT_SERVER_STORE_MODEL_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "store/store_private.h"
#include "unit.h"

enum { MODEL_MEMORIES = 6, MODEL_CHUNKS = 8, MODEL_CHANGES = 12, FILL_MAX = 40000 };

struct piece {
  int64_t number; /* of a chunk, or a version */
  uint64_t seed;
  size_t size;
};

struct model_memory {
  int64_t id;
  char name[24];
  int64_t base_version, version;
  struct piece base;
  struct piece chunks[MODEL_CHUNKS];
  struct piece changes[MODEL_CHANGES];
  size_t chunk_count, change_count;
  int64_t next_chunk;
};

struct model {
  struct model_memory memories[MODEL_MEMORIES]; /* in order of ids */
  size_t count;
  int64_t floor, next_id;
  size_t largest; /* the largest piece to be made */
};

/* As ck_assert(), but without a word to Check where all is well: a child that is
 * killed while it writes one would leave it in pieces. */
#define REQUIRE(condition)                                                                         \
  do {                                                                                             \
    if (!(condition)) ck_abort_msg("%s", #condition);                                              \
  } while (0)

/* ---- Bytes ---- */

static inline void fill(unsigned char *bytes, struct piece piece) {
  uint64_t state = piece.seed;
  for (size_t i = 0; i < piece.size; i += 8) {
    uint64_t x = next_random(&state);
    memcpy(bytes + i, &x, piece.size - i < 8 ? piece.size - i : 8);
  }
}

/* FNV-1a, a word at a time. */
static inline uint64_t mix(uint64_t digest, const void *data, size_t size) {
  const unsigned char *bytes = data;
  for (; size >= 8; bytes += 8, size -= 8) {
    uint64_t word;
    memcpy(&word, bytes, 8);
    digest = (digest ^ word) * 0x100000001b3;
    digest ^= digest >> 29;
  }
  for (; size > 0; bytes++, size--)
    digest = (digest ^ *bytes) * 0x100000001b3;
  return digest;
}

static inline uint64_t mix_number(uint64_t digest, int64_t number) {
  return mix(digest, &number, sizeof number);
}

static inline uint64_t mix_piece(uint64_t digest, struct piece piece) {
  unsigned char *bytes = malloc(piece.size + 8);
  REQUIRE(bytes != NULL);
  fill(bytes, piece);
  digest = mix(mix_number(digest, (int64_t)piece.size), bytes, piece.size);
  free(bytes);
  return digest;
}

static inline uint64_t model_memory_digest(const struct model_memory *memory) {
  uint64_t digest = mix_number(0xcbf29ce484222325, memory->id);
  digest = mix(digest, memory->name, strlen(memory->name));
  digest = mix_number(mix_number(digest, memory->base_version), memory->version);
  digest = mix_piece(digest, memory->base);
  for (size_t i = 0; i < memory->chunk_count; i++)
    digest = mix_piece(mix_number(digest, memory->chunks[i].number), memory->chunks[i]);
  for (size_t i = 0; i < memory->change_count; i++)
    digest = mix_piece(mix_number(digest, memory->changes[i].number), memory->changes[i]);
  return digest;
}

static inline uint64_t model_digest(const struct model *model) {
  uint64_t digest = mix_number(0xcbf29ce484222325, model->floor);
  for (size_t i = 0; i < model->count; i++)
    digest = mix_number(digest, (int64_t)model_memory_digest(&model->memories[i]));
  return digest;
}

/* ---- The base as the engine might write it: the chunks' numbers, then bytes ---- */

static inline size_t base_bytes(const struct model_memory *memory, unsigned char *bytes) {
  int64_t head[1 + MODEL_CHUNKS] = {(int64_t)memory->chunk_count};
  for (size_t i = 0; i < memory->chunk_count; i++)
    head[1 + i] = memory->chunks[i].number;
  const size_t size = (1 + memory->chunk_count) * sizeof head[0];
  memcpy(bytes, head, size);
  fill(bytes + size, memory->base);
  return size + memory->base.size;
}

/* ---- What the store holds ---- */

struct digesting {
  uint64_t digest;
};

static inline bool digest_change(void *context, int64_t version, const void *data, size_t size) {
  struct digesting *digesting = context;
  uint64_t digest = mix_number(digesting->digest, version);
  digesting->digest = mix(mix_number(digest, (int64_t)size), data, size);
  return true;
}

static inline enum store_status digest_chunks(struct store *store, int64_t id,
                                              const struct buffer *base, uint64_t *digest) {
  int64_t count = 0;
  REQUIRE(base->length >= sizeof count);
  memcpy(&count, base->data, sizeof count);
  const size_t head = (size_t)(1 + count) * sizeof count;
  *digest = mix_number(*digest, (int64_t)(base->length - head));
  *digest = mix(*digest, base->data + head, base->length - head);
  struct buffer bytes;
  buffer_init(&bytes, 0);
  enum store_status status = STORE_OK;
  for (int64_t i = 0; i < count && status == STORE_OK; i++) {
    int64_t number;
    memcpy(&number, base->data + (size_t)(1 + i) * sizeof number, sizeof number);
    buffer_clear(&bytes);
    status = store_read_chunk(store, id, number, &bytes);
    *digest = mix_number(mix_number(*digest, number), (int64_t)bytes.length);
    *digest = mix(*digest, bytes.data, bytes.length);
  }
  buffer_free(&bytes);
  return status;
}

static inline enum store_status
store_memory_digest(struct store *store, const struct store_memory *memory, uint64_t *digest) {
  *digest = mix_number(0xcbf29ce484222325, memory->id);
  *digest = mix(*digest, memory->name, strlen(memory->name));
  *digest = mix_number(mix_number(*digest, memory->base_version), memory->version);
  struct buffer base;
  buffer_init(&base, 0);
  enum store_status status = store_read_base(store, memory->id, &base);
  if (status == STORE_OK) status = digest_chunks(store, memory->id, &base, digest);
  buffer_free(&base);
  struct digesting digesting = {*digest};
  if (status == STORE_OK) status = store_read_changes(store, memory->id, digest_change, &digesting);
  *digest = digesting.digest;
  return status;
}

/* Of a store that was just opened. */
static inline enum store_status store_digest(struct store *store, uint64_t *digest) {
  *digest = mix_number(0xcbf29ce484222325, store_version_floor(store));
  struct store_memory memory;
  for (size_t i = 0; store_memory_at(store, i, &memory); i++) {
    uint64_t of_memory;
    enum store_status status = store_memory_digest(store, &memory, &of_memory);
    if (status != STORE_OK) return status;
    *digest = mix_number(*digest, (int64_t)of_memory);
  }
  return STORE_OK;
}

/* ---- Random transactions ---- */

static inline struct piece random_piece(uint64_t *state, size_t largest, int64_t number) {
  uint64_t kind = next_random(state) % 8;
  size_t size = kind == 0 ? 0 : next_random(state) % (kind < 6 ? largest / 20 + 1 : largest + 1);
  return (struct piece){number, next_random(state), size};
}

static inline enum store_status put_piece(struct store *store, int64_t id, struct piece piece,
                                          bool change) {
  if (!store) return STORE_OK;
  unsigned char *bytes = malloc(piece.size + 8);
  REQUIRE(bytes != NULL);
  fill(bytes, piece);
  const void *data = piece.size ? bytes : NULL;
  enum store_status status = change ? store_put_change(store, id, piece.number, data, piece.size)
                                    : store_put_chunk(store, id, piece.number, data, piece.size);
  free(bytes);
  return status;
}

static inline enum store_status put_model_base(struct store *store,
                                               const struct model_memory *memory) {
  if (!store) return STORE_OK;
  unsigned char *bytes = malloc(memory->base.size + 8 + sizeof(int64_t[1 + MODEL_CHUNKS]));
  REQUIRE(bytes != NULL);
  int64_t chunks[MODEL_CHUNKS];
  for (size_t i = 0; i < memory->chunk_count; i++)
    chunks[i] = memory->chunks[i].number;
  const struct store_base base = {.id = memory->id,
                                  .name = memory->name,
                                  .version = memory->base_version,
                                  .chunks = chunks,
                                  .chunk_count = memory->chunk_count,
                                  .size = base_bytes(memory, bytes),
                                  .data = bytes};
  enum store_status status = store_put_base(store, &base);
  free(bytes);
  return status;
}

static inline enum store_status add_chunks(struct store *store, struct model_memory *memory,
                                           uint64_t *state, size_t largest) {
  enum store_status status = STORE_OK;
  for (size_t more = next_random(state) % 3;
       status == STORE_OK && more > 0 && memory->chunk_count < MODEL_CHUNKS; more--) {
    struct piece piece = random_piece(state, largest, memory->next_chunk++);
    memory->chunks[memory->chunk_count++] = piece;
    status = put_piece(store, memory->id, piece, false);
  }
  return status;
}

static inline enum store_status make_memory(struct store *store, struct model *model,
                                            const char *name, int64_t version, uint64_t *state) {
  struct model_memory *memory = &model->memories[model->count++];
  memset(memory, 0, sizeof *memory);
  memory->id = store ? store_new_id(store) : model->next_id;
  model->next_id = memory->id + 1;
  memory->next_chunk = 1;
  snprintf(memory->name, sizeof memory->name, "%s", name);
  memory->base_version = memory->version = version;
  memory->base = random_piece(state, model->largest / 4, 0);
  enum store_status status = add_chunks(store, memory, state, model->largest);
  return status == STORE_OK ? put_model_base(store, memory) : status;
}

static inline enum store_status drop(struct store *store, struct model *model, size_t index) {
  struct model_memory *memory = &model->memories[index];
  enum store_status status =
      store ? store_drop_memory(store, memory->id, memory->version) : STORE_OK;
  if (memory->version > model->floor) model->floor = memory->version;
  memmove(memory, memory + 1, (--model->count - index) * sizeof *memory);
  return status;
}

/* A new base that takes in some of the changes, leaves out a chunk, adds some. */
static inline enum store_status fold(struct store *store, struct model *model,
                                     struct model_memory *memory, uint64_t *state) {
  size_t taken = next_random(state) % (memory->change_count + 1);
  memory->base_version += (int64_t)taken;
  memory->change_count -= taken;
  memmove(memory->changes, memory->changes + taken,
          memory->change_count * sizeof memory->changes[0]);
  memory->base = random_piece(state, model->largest / 4, 0);
  if (memory->chunk_count > 0) {
    size_t out = next_random(state) % memory->chunk_count;
    memmove(&memory->chunks[out], &memory->chunks[out + 1],
            (--memory->chunk_count - out) * sizeof memory->chunks[0]);
  }
  enum store_status status = add_chunks(store, memory, state, model->largest);
  return status == STORE_OK ? put_model_base(store, memory) : status;
}

static inline enum store_status change(struct store *store, struct model *model,
                                       struct model_memory *memory, uint64_t *state) {
  struct piece piece = random_piece(state, model->largest / 8, ++memory->version);
  memory->changes[memory->change_count++] = piece;
  return put_piece(store, memory->id, piece, true);
}

static inline enum store_status random_write(struct store *store, struct model *model,
                                             uint64_t *state) {
  const uint64_t kind = next_random(state) % 16;
  size_t index = model->count ? next_random(state) % model->count : 0;
  struct model_memory *memory = &model->memories[index];
  if (model->count == 0 || (kind < 3 && model->count < MODEL_MEMORIES)) {
    char name[24];
    snprintf(name, sizeof name, "m%u", (unsigned)(next_random(state) % 10000));
    return make_memory(store, model, name, model->floor + 1, state);
  }
  if (kind == 3) return drop(store, model, index);
  if (kind == 4) { /* replaced whole */
    const struct model_memory old = *memory;
    enum store_status status = drop(store, model, index);
    return status == STORE_OK ? make_memory(store, model, old.name, old.version + 1, state)
                              : status;
  }
  if (kind < 8 || memory->change_count == MODEL_CHANGES) return fold(store, model, memory, state);
  return change(store, model, memory, state);
}

/* One transaction; `model` becomes what it made when STORE_OK is returned, and
 * stays what it was otherwise. `next`, where it isn't NULL, gets what the
 * transaction would make, before it is committed. Without a store the model alone
 * goes on, as it would with one. */
static inline enum store_status random_transaction(struct store *store, struct model *model,
                                                   uint64_t *state, struct model *next) {
  struct model after = *model;
  enum store_status status = store ? store_begin(store) : STORE_OK;
  for (size_t writes = 1 + next_random(state) % 4; status == STORE_OK && writes > 0; writes--)
    status = random_write(store, &after, state);
  if (next) *next = after;
  if (status == STORE_OK && store) status = store_commit(store);
  if (status == STORE_OK) *model = after;
  return status;
}

/* ---- Folders ---- */

static inline void make_scratch(char *path, size_t size) {
  const char *parent = getenv("TMPDIR");
  if (!parent || !*parent) parent = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
  snprintf(path, size, "%s/store-XXXXXX", parent);
  REQUIRE(mkdtemp(path) != NULL);
}

static inline void each_file(const char *directory,
                             void (*visit)(const char *path, const char *name, void *context),
                             void *context) {
  DIR *folder = opendir(directory);
  if (!folder) return;
  for (struct dirent *entry; (entry = readdir(folder));) {
    if (entry->d_name[0] == '.') continue;
    char path[600];
    snprintf(path, sizeof path, "%s/%s", directory, entry->d_name);
    visit(path, entry->d_name, context);
  }
  closedir(folder);
}

static inline void remove_visited(const char *path, const char *name, void *context) {
  (void)name;
  (void)context;
  unlink(path);
}

static inline void empty_folder(const char *directory) {
  each_file(directory, remove_visited, NULL);
}

static inline void remove_scratch(const char *directory) {
  empty_folder(directory);
  rmdir(directory);
}

/* All of a file, to be freed; `size` is 0 where there is none. */
static inline unsigned char *read_whole(const char *path, size_t *size) {
  *size = 0;
  int descriptor = open(path, O_RDONLY | O_CLOEXEC);
  struct stat status = {.st_size = 0};
  if (descriptor >= 0) REQUIRE(fstat(descriptor, &status) == 0);
  unsigned char *bytes = malloc((size_t)status.st_size + 1);
  REQUIRE(bytes != NULL);
  if (descriptor < 0) return bytes;
  while (*size < (size_t)status.st_size) {
    ssize_t count = pread(descriptor, bytes + *size, (size_t)status.st_size - *size, (off_t)*size);
    REQUIRE(count > 0);
    *size += (size_t)count;
  }
  close(descriptor);
  return bytes;
}

static inline void write_whole(const char *path, const void *bytes, size_t size) {
  int descriptor = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  REQUIRE(descriptor >= 0);
  for (size_t done = 0; done < size;) {
    ssize_t count = pwrite(descriptor, (const char *)bytes + done, size - done, (off_t)done);
    REQUIRE(count > 0);
    done += (size_t)count;
  }
  close(descriptor);
}

static inline void copy_visited(const char *path, const char *name, void *context) {
  char target[600];
  snprintf(target, sizeof target, "%s/%s", (const char *)context, name);
  size_t size;
  unsigned char *bytes = read_whole(path, &size);
  write_whole(target, bytes, size);
  free(bytes);
}

/* As a kill at this moment would leave it: what was written, synced or not. */
static inline void copy_folder(const char *from, char *to) {
  empty_folder(to);
  each_file(from, copy_visited, to);
}

/* So that little data goes through all that much data would. */
static inline struct store_options small_options(void) {
  struct store_options options = store_usual_options();
  options.page_bytes = 4096;
  options.wal_bytes = 150000;
  options.bulk_bytes = 10000;
  return options;
}

static inline struct store *open_good(const char *directory) {
  const struct store_options options = small_options();
  char error[512] = "";
  struct store *store = store_open_with(directory, &options, error, sizeof error);
  if (!store) ck_abort_msg("%s", error);
  return store;
}

/* How many rounds a suite makes: ATTN_TEST_ROUNDS in the place of the usual. */
static inline size_t test_rounds(size_t usual) {
  const char *text = getenv("ATTN_TEST_ROUNDS");
  return text && *text ? strtoull(text, NULL, 10) : usual;
}

#endif
