/* Storing what is still arriving.
 *
 * A large upload takes as long to be received as to be stored, and the two can
 * go on at the same time. So blocks that have all their rows are given to the
 * writer before the upload has ended. It stores them by the slice, as a chore,
 * under an id that no base names. Then there are two ends:
 *
 *   a write  puts the memory. What was stored is taken over by its staging, which
 *            stores what is missing, and all is checked as if nothing had been
 *            stored: limits, preconditions, the disk.
 *   no write The upload broke off or was refused. The chunks are garbage, and are
 *            swept as such, at the latest when the store is opened again.
 *
 * The invariant: this is about time and nothing else. A slice that fails, for want
 * of room or for whatever reason, is not told to anybody: its arrival is stored
 * anew when its write is there, and that fails or not on its own account.
 *
 * A client that is slow holds nobody up, since nothing is done before a slice has
 * come. What it can have on the disk is no more than what it has in RAM, which the
 * budget bounds. Keys mostly come whole before the first value does, and then no
 * block is whole before half of the body is there: the first half of an upload is
 * received and not stored. Storing keys apart from values was left for that: it
 * would be another form of chunks, for loading too. As it is, and with what
 * store/flow.c does, 1 GB takes 1.95 s where it took 4.06, and 1.6 of these pass before
 * the client has sent the last byte.
 *
 * Owners: the list, the marks of each arrival and its list of blocks by `mutex`, which is
 * the last one to be taken. Numbers of chunks are the writer's thread's alone. The
 * blocks of a slice under way, from `stored` to `busy`, are that thread's too, but the list
 * that has them may move. An arrival is freed by the writer alone, so that it may be given to by a
 * thread that knows nothing of the writer's end. */
#include "engine/arriving.h"

#include <pthread.h>
#include <stdlib.h>

struct arriving {
  struct arrivals *of;
  attn_snapshot *shape;
  struct kept_place place; /* the id is 0 until something is stored */
  attn_block **blocks;     /* references; NULL where they were let go */
  size_t room;             /* of that list */
  int64_t *chunks;         /* of the blocks that are stored */
  size_t chunk_room;
  size_t count; /* that there are to be */
  size_t given, stored, busy;
  bool cut; /* no more are taken: there was no memory for one */
  bool ended, failed;
  struct arriving *next;
};

struct arrivals {
  struct arrivals_config config;
  pthread_mutex_t mutex;
  struct arriving *first;
};

/* ---- Marks ---- */

static size_t slice_blocks(const struct arriving *arriving, size_t most) {
  const attn_block *block = arriving->blocks[arriving->stored];
  const size_t bytes = block ? attn_block_encoded_size(arriving->shape, block) : 1;
  return bytes < most ? most / bytes : 1;
}

static bool is_due(const struct arriving *arriving) {
  if (arriving->ended) return true;
  return !arriving->failed && arriving->given > arriving->stored &&
         arriving->given - arriving->stored >= slice_blocks(arriving, arriving->of->config.slice);
}

/* All but those of a slice under way. */
static void let_go(struct arriving *arriving) {
  for (size_t i = 0; i < arriving->given; i++) {
    if (i >= arriving->stored && i < arriving->busy) continue;
    attn_block_free(arriving->blocks[i]);
    arriving->blocks[i] = NULL;
  }
}

/* ---- Giving ---- */

struct arriving *arriving_create(struct arrivals *arrivals, const attn_snapshot *shape,
                                 size_t blocks) {
  struct arriving *arriving = calloc(1, sizeof *arriving);
  attn_snapshot *empty = NULL;
  if (arriving)
    attn_snapshot_create_typed(&empty, attn_snapshot_key_dim(shape), attn_snapshot_value_dim(shape),
                               attn_snapshot_dtype(shape));
  if (!empty) {
    free(arriving);
    return NULL;
  }
  arriving->of = arrivals;
  arriving->shape = empty;
  arriving->count = blocks;
  pthread_mutex_lock(&arrivals->mutex);
  arriving->next = arrivals->first;
  arrivals->first = arriving;
  pthread_mutex_unlock(&arrivals->mutex);
  return arriving;
}

/* With the mutex held: a place for one more block. Once there was none, since memory was
 * short, those that follow are left to the write: blocks are stored in their order. */
static bool has_place(struct arriving *arriving) {
  enum { FEWEST = 64 };
  if (arriving->failed || arriving->cut || arriving->given == arriving->count) return false;
  if (arriving->given < arriving->room) return true;
  const size_t room = arriving->room > 0 ? 2 * arriving->room : FEWEST;
  attn_block **blocks = realloc(arriving->blocks, room * sizeof(attn_block *));
  arriving->cut = !blocks;
  if (!blocks) return false;
  arriving->blocks = blocks;
  arriving->room = room;
  return true;
}

void arriving_give(struct arriving *arriving, attn_block *block) {
  struct arrivals *arrivals = arriving->of;
  pthread_mutex_lock(&arrivals->mutex);
  if (has_place(arriving)) arriving->blocks[arriving->given++] = attn_block_ref(block);
  const bool due = is_due(arriving);
  pthread_mutex_unlock(&arrivals->mutex);
  if (due) arrivals->config.wake(arrivals->config.context);
}

void arriving_end(struct arriving *arriving) {
  if (!arriving) return;
  struct arrivals *arrivals = arriving->of;
  pthread_mutex_lock(&arrivals->mutex);
  let_go(arriving);
  arriving->ended = true;
  pthread_mutex_unlock(&arrivals->mutex);
  arrivals->config.wake(arrivals->config.context);
}

/* ---- Storing ---- */

static void abandon(struct arriving *arriving) {
  for (size_t i = 0; i < arriving->stored; i++)
    store_abandon_chunk(arriving->of->config.store, arriving->place.id, arriving->chunks[i]);
}

/* Of the slice under way. */
static const attn_block *block_at(struct arriving *arriving, size_t index) {
  pthread_mutex_lock(&arriving->of->mutex);
  const attn_block *block = arriving->blocks[index];
  pthread_mutex_unlock(&arriving->of->mutex);
  return block;
}

/* Places for the numbers of so many chunks. */
static bool make_places(struct arriving *arriving, size_t count) {
  if (count <= arriving->chunk_room) return true;
  const size_t room = 2 * count;
  int64_t *chunks = realloc(arriving->chunks, room * sizeof *chunks);
  if (!chunks) return false;
  arriving->chunks = chunks;
  arriving->chunk_room = room;
  return true;
}

static enum store_status put_blocks(struct arriving *arriving, size_t first, size_t end) {
  struct kept_place *place = &arriving->place;
  struct buffer bytes;
  buffer_init(&bytes, 0);
  if (!make_places(arriving, end)) return STORE_NO_MEMORY;
  enum store_status status = store_begin(place->store);
  const size_t block_bytes = attn_block_encoded_size(arriving->shape, block_at(arriving, first));
  store_expect_chunks(place->store, arriving->count * block_bytes);
  for (size_t i = first; i < end && status == STORE_OK; i++) {
    if (!kept_encode_block(arriving->shape, block_at(arriving, i), &bytes)) {
      status = STORE_NO_MEMORY;
      break;
    }
    arriving->chunks[i] = place->next_chunk++;
    status =
        store_put_chunk(place->store, place->id, arriving->chunks[i], bytes.data, bytes.length);
  }
  buffer_free(&bytes);
  if (status == STORE_OK)
    status = store_commit(place->store);
  else
    store_rollback(place->store);
  return status;
}

static void store_slice(struct arriving *arriving, size_t first, size_t end) {
  struct arrivals *arrivals = arriving->of;
  if (arriving->place.id == 0) arriving->place = kept_new_place(arrivals->config.store);
  const enum store_status status = put_blocks(arriving, first, end);
  if (status != STORE_OK) abandon(arriving);
  pthread_mutex_lock(&arrivals->mutex);
  arriving->stored = arriving->busy = status == STORE_OK ? end : 0;
  arriving->failed = status != STORE_OK;
  if (arriving->ended || arriving->failed) let_go(arriving);
  pthread_mutex_unlock(&arrivals->mutex);
}

/* ---- The writer's ---- */

struct arrivals *arrivals_create(const struct arrivals_config *config) {
  struct arrivals *arrivals = calloc(1, sizeof *arrivals);
  if (!arrivals) return NULL;
  arrivals->config = *config;
  pthread_mutex_init(&arrivals->mutex, NULL);
  return arrivals;
}

/* Out of the list. */
static void take_out(struct arriving *arriving) {
  struct arriving **at = &arriving->of->first;
  pthread_mutex_lock(&arriving->of->mutex);
  while (*at != arriving)
    at = &(*at)->next;
  *at = arriving->next;
  pthread_mutex_unlock(&arriving->of->mutex);
}

static void arriving_free(struct arriving *arriving) {
  arriving->busy = 0;
  let_go(arriving);
  attn_snapshot_free(arriving->shape);
  free(arriving->blocks);
  free(arriving->chunks);
  free(arriving);
}

void arrivals_free(struct arrivals *arrivals) {
  if (!arrivals) return;
  while (arrivals->first) {
    struct arriving *arriving = arrivals->first;
    arrivals->first = arriving->next;
    arriving_free(arriving);
  }
  pthread_mutex_destroy(&arrivals->mutex);
  free(arrivals);
}

/* With the mutex held: the last one in the list, which is the oldest one. */
static struct arriving *find_due(const struct arrivals *arrivals) {
  struct arriving *found = NULL;
  for (struct arriving *arriving = arrivals->first; arriving; arriving = arriving->next)
    if (is_due(arriving)) found = arriving;
  return found;
}

bool arrivals_are_due(struct arrivals *arrivals) {
  pthread_mutex_lock(&arrivals->mutex);
  const bool due = find_due(arrivals) != NULL;
  pthread_mutex_unlock(&arrivals->mutex);
  return due;
}

void arrivals_work(struct arrivals *arrivals, size_t most) {
  size_t first = 0, end = 0;
  pthread_mutex_lock(&arrivals->mutex);
  struct arriving *arriving = find_due(arrivals);
  const bool ended = arriving && arriving->ended;
  if (arriving && !ended) {
    first = arriving->stored;
    const size_t slice = arrivals->config.slice;
    end = arriving->busy = first + slice_blocks(arriving, most < slice ? most : slice);
  }
  pthread_mutex_unlock(&arrivals->mutex);
  if (!arriving) return;
  if (!ended) {
    store_slice(arriving, first, end);
    return;
  }
  abandon(arriving);
  take_out(arriving);
  arriving_free(arriving);
}

bool arriving_take(struct arriving *arriving, const struct memory *memory, struct staged *staged) {
  struct kept *kept = kept_create(memory);
  if (!kept) return false;
  const bool same = kept_take_stored(kept, arriving->blocks, arriving->chunks, arriving->stored);
  const bool begun = same && arriving->stored > 0;
  *staged = (struct staged){
      .place = begun ? arriving->place : kept_new_place(arriving->of->config.store), .kept = kept};
  if (!same) abandon(arriving);
  take_out(arriving);
  arriving_free(arriving);
  return true;
}
