/* The tags of rows, in runs of at most RUN_ROWS neighbours.
 *
 * An edit walks the runs once. Runs in which no row is named are shared; the
 * others are made anew, small neighbours together. So the cost of a change is
 * that of a few runs and of the list of runs.
 *
 * To find rows by id, each run keeps 32 bits of a keyed hash per row side by
 * side, and a search goes through all of them: of a million rows that is 4 MB, which
 * take 0.2 ms of a core for one id, and 2 ms for a hundred, which are put into a
 * table of their own first so that the rows are still gone through once. Nothing
 * has to be kept up to date as rows move. A table from id to row was rejected for
 * now: it would find an id at once, but it costs more RAM than short ids do, and a
 * delete moves every row behind it; a write to the disk takes longer than the
 * search up to some millions of rows.
 *
 * The key of the hash is random and handed down from version to version, so
 * nobody can choose ids that meet. */
#include "engine/row_tags.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/keyed_hash.h"

/* JOINED_ROWS: runs that are made anew and that small are joined. */
enum { RUN_ROWS = 1024, JOINED_ROWS = RUN_ROWS / 2 };

/* One allocation: the arrays and the ids lie behind the struct. */
struct tag_run {
  atomic_size_t references;
  size_t rows, bytes;
  int64_t soonest;
  size_t id_count;   /* rows that have one */
  int64_t *expiries; /* NULL: never, for all */
  uint32_t *offsets; /* rows + 1, into `ids`; NULL without ids */
  uint32_t *hashes;  /* rows, 0 for those without an id; NULL without ids */
  char *ids;         /* each with a NUL behind it; rows without one take nothing */
};

struct row_tags {
  atomic_size_t references;
  struct hash_key key;
  size_t rows, run_count, room;
  size_t run_bytes, id_count; /* of all runs, like the following */
  int64_t soonest;
  struct tag_run **runs;
  size_t *firsts; /* the row that each run begins with */
};

/* ---- Runs ---- */

struct tag_run *tag_run_ref(struct tag_run *run) {
  if (run) atomic_fetch_add_explicit(&run->references, 1, memory_order_relaxed);
  return run;
}

void tag_run_free(struct tag_run *run) {
  if (run && atomic_fetch_sub_explicit(&run->references, 1, memory_order_acq_rel) == 1) free(run);
}

static const char *run_id(const struct tag_run *run, size_t row, size_t *length) {
  if (!run->offsets || run->offsets[row + 1] == run->offsets[row]) return NULL;
  *length = run->offsets[row + 1] - run->offsets[row] - 1;
  return run->ids + run->offsets[row];
}

static int64_t run_expiry(const struct tag_run *run, size_t row) {
  return run->expiries ? run->expiries[row] : NEVER_EXPIRES;
}

static uint32_t hash_of(struct hash_key key, const char *id, size_t length) {
  const uint32_t hash = (uint32_t)keyed_hash(key, id, length);
  return hash != 0 ? hash : 1;
}

/* A row's tags while a run is put together; the id is somebody else's. */
struct tag {
  const char *id; /* NULL: none */
  size_t length;
  uint32_t hash; /* of the id under the tags' key; 0: not known */
  int64_t expiry;
};

static struct tag_run *run_create(struct hash_key key, const struct tag *tags, size_t rows) {
  size_t text = 0, id_count = 0;
  bool expire = false;
  for (size_t i = 0; i < rows; i++) {
    if (tags[i].id) {
      text += tags[i].length + 1;
      id_count++;
    }
    expire |= tags[i].expiry != NEVER_EXPIRES;
  }
  const size_t expiries = expire ? rows * sizeof(int64_t) : 0;
  const size_t offsets = id_count > 0 ? (rows + 1) * sizeof(uint32_t) : 0;
  const size_t hashes = id_count > 0 ? rows * sizeof(uint32_t) : 0;
  const size_t bytes = sizeof(struct tag_run) + expiries + offsets + hashes + text;
  struct tag_run *run = malloc(bytes);
  if (!run) return NULL;
  char *after = (char *)(run + 1);
  *run = (struct tag_run){
      .rows = rows, .bytes = bytes, .soonest = NEVER_EXPIRES, .id_count = id_count};
  atomic_init(&run->references, 1);
  if (expire) run->expiries = (int64_t *)(void *)after;
  if (id_count > 0) {
    run->offsets = (uint32_t *)(void *)(after + expiries);
    run->hashes = (uint32_t *)(void *)(after + expiries + offsets);
    run->ids = after + expiries + offsets + hashes;
  }
  uint32_t at = 0;
  for (size_t i = 0; i < rows; i++) {
    if (run->expiries) run->expiries[i] = tags[i].expiry;
    if (tags[i].expiry < run->soonest) run->soonest = tags[i].expiry;
    if (!run->offsets) continue;
    run->offsets[i] = at;
    run->hashes[i] = 0;
    if (!tags[i].id) continue;
    run->hashes[i] = tags[i].hash ? tags[i].hash : hash_of(key, tags[i].id, tags[i].length);
    memcpy(run->ids + at, tags[i].id, tags[i].length);
    run->ids[at + tags[i].length] = '\0';
    at += (uint32_t)tags[i].length + 1;
  }
  if (run->offsets) run->offsets[rows] = at;
  return run;
}

/* ---- The list of runs ---- */

struct row_tags *row_tags_create(void) {
  struct row_tags *tags = calloc(1, sizeof *tags);
  if (!tags) return NULL;
  atomic_init(&tags->references, 1);
  tags->key = hash_key_random();
  tags->soonest = NEVER_EXPIRES;
  return tags;
}

struct row_tags *row_tags_ref(struct row_tags *tags) {
  if (tags) atomic_fetch_add_explicit(&tags->references, 1, memory_order_relaxed);
  return tags;
}

void row_tags_free(struct row_tags *tags) {
  if (!tags || atomic_fetch_sub_explicit(&tags->references, 1, memory_order_acq_rel) > 1) return;
  for (size_t i = 0; i < tags->run_count; i++)
    tag_run_free(tags->runs[i]);
  free(tags->runs);
  free(tags->firsts);
  free(tags);
}

/* Takes the reference over, also where it fails. */
static bool push_run(struct row_tags *tags, struct tag_run *run) {
  if (!run) return false;
  if (tags->run_count == tags->room) {
    const size_t room = tags->room > 0 ? 2 * tags->room : 8;
    struct tag_run **runs = realloc(tags->runs, room * sizeof(struct tag_run *));
    if (runs) tags->runs = runs;
    size_t *firsts = runs ? realloc(tags->firsts, room * sizeof *firsts) : NULL;
    if (firsts) tags->firsts = firsts;
    if (!firsts) {
      tag_run_free(run);
      return false;
    }
    tags->room = room;
  }
  tags->runs[tags->run_count] = run;
  tags->firsts[tags->run_count++] = tags->rows;
  tags->rows += run->rows;
  tags->run_bytes += run->bytes;
  tags->id_count += run->id_count;
  if (run->soonest < tags->soonest) tags->soonest = run->soonest;
  return true;
}

static size_t run_of(const struct row_tags *tags, size_t row) {
  size_t low = 0, high = tags->run_count;
  while (high - low > 1) {
    const size_t middle = low + (high - low) / 2;
    if (tags->firsts[middle] <= row)
      low = middle;
    else
      high = middle;
  }
  return low;
}

const char *row_tags_id(const struct row_tags *tags, size_t row, size_t *length) {
  if (!tags || row >= tags->rows) return NULL;
  const size_t at = run_of(tags, row);
  return run_id(tags->runs[at], row - tags->firsts[at], length);
}

int64_t row_tags_expiry(const struct row_tags *tags, size_t row) {
  if (!tags || row >= tags->rows) return NEVER_EXPIRES;
  const size_t at = run_of(tags, row);
  return run_expiry(tags->runs[at], row - tags->firsts[at]);
}

bool row_tags_have_ids(const struct row_tags *tags) {
  return tags && tags->id_count > 0;
}

int64_t row_tags_soonest(const struct row_tags *tags) {
  return tags ? tags->soonest : NEVER_EXPIRES;
}

size_t row_tags_bytes(const struct row_tags *tags) {
  if (!tags) return 0;
  return sizeof *tags + tags->room * (sizeof *tags->runs + sizeof *tags->firsts) + tags->run_bytes;
}

size_t row_tags_rows(const struct row_tags *tags) {
  return tags ? tags->rows : 0;
}

size_t row_tags_run_count(const struct row_tags *tags) {
  return tags ? tags->run_count : 0;
}

struct tag_run *row_tags_run(const struct row_tags *tags, size_t index) {
  return tags->runs[index];
}

/* ---- Finding ---- */

static bool has_id(const struct tag_run *run, size_t row, const char *id, size_t length) {
  size_t found;
  const char *there = run_id(run, row, &found);
  return there && found == length && memcmp(there, id, length) == 0;
}

/* The first place from `from` on; `rows` where there is none. A stretch at a time
 * without a branch, which is what compilers make vector code of. */
static size_t find_hash(const uint32_t *hashes, size_t from, size_t rows, uint32_t hash) {
  enum { STRETCH = 64 };
  for (; rows - from >= STRETCH; from += STRETCH) {
    uint32_t met = 0;
    for (size_t i = 0; i < STRETCH; i++)
      met |= hashes[from + i] == hash;
    if (met) break;
  }
  while (from < rows && hashes[from] != hash)
    from++;
  return from;
}

static size_t find_one(const struct row_tags *tags, const char *id, size_t length) {
  const uint32_t hash = hash_of(tags->key, id, length);
  for (size_t i = 0; i < tags->run_count; i++) {
    const struct tag_run *run = tags->runs[i];
    if (!run->hashes) continue;
    for (size_t row = 0; (row = find_hash(run->hashes, row, run->rows, hash)) < run->rows; row++)
      if (has_id(run, row, id, length)) return tags->firsts[i] + row;
  }
  return SIZE_MAX;
}

/* The wanted ids by hash: open addressing, linear probing. Mostly empty, since
 * nearly all rows that are looked up in it are not wanted. */
struct wanted_id {
  uint32_t hash; /* 0: nothing here */
  uint32_t index;
};
struct wanted {
  const struct id_list *ids;
  struct wanted_id *slots;
  size_t mask;
};

static bool wanted_create(struct wanted *wanted, struct hash_key key, const struct id_list *ids) {
  enum { FEWEST = 2048, SPARSE = 4 };
  const size_t count = id_list_count(ids);
  size_t size = FEWEST;
  while (size < SPARSE * count)
    size *= 2;
  *wanted = (struct wanted){.ids = ids, .mask = size - 1};
  wanted->slots = count < UINT32_MAX ? calloc(size, sizeof *wanted->slots) : NULL;
  if (!wanted->slots) return false;
  for (size_t i = 0; i < count; i++) {
    size_t length;
    const char *id = id_list_get(ids, i, &length);
    const uint32_t hash = hash_of(key, id, length);
    size_t at = hash & wanted->mask;
    while (wanted->slots[at].hash != 0)
      at = (at + 1) & wanted->mask;
    wanted->slots[at] = (struct wanted_id){.hash = hash, .index = (uint32_t)i};
  }
  return true;
}

static void wanted_look_at(const struct wanted *wanted, const struct tag_run *run, size_t row,
                           size_t number, size_t *rows) {
  const uint32_t hash = run->hashes[row];
  for (size_t at = hash & wanted->mask; wanted->slots[at].hash != 0; at = (at + 1) & wanted->mask) {
    if (wanted->slots[at].hash != hash) continue;
    size_t length;
    const char *id = id_list_get(wanted->ids, wanted->slots[at].index, &length);
    if (has_id(run, row, id, length)) rows[wanted->slots[at].index] = number;
  }
}

bool row_tags_find(const struct row_tags *tags, const struct id_list *ids, size_t *rows) {
  enum { ONE_BY_ONE = 4 };
  const size_t count = id_list_count(ids);
  for (size_t i = 0; i < count; i++)
    rows[i] = SIZE_MAX;
  if (!row_tags_have_ids(tags)) return true;
  for (size_t i = 0; count <= ONE_BY_ONE && i < count; i++) {
    size_t length;
    const char *id = id_list_get(ids, i, &length);
    rows[i] = find_one(tags, id, length);
  }
  if (count <= ONE_BY_ONE) return true;
  struct wanted wanted;
  const bool made = wanted_create(&wanted, tags->key, ids);
  for (size_t i = 0; made && i < tags->run_count; i++)
    for (size_t row = 0; tags->runs[i]->hashes && row < tags->runs[i]->rows; row++)
      wanted_look_at(&wanted, tags->runs[i], row, tags->firsts[i] + row, rows);
  free(wanted.slots);
  return made;
}

size_t *row_tags_expired(const struct row_tags *tags, int64_t now, size_t *count) {
  size_t room = 0;
  for (size_t i = 0; tags && i < tags->run_count; i++)
    if (tags->runs[i]->soonest <= now) room += tags->runs[i]->rows;
  size_t *rows = malloc((room > 0 ? room : 1) * sizeof *rows);
  *count = 0;
  for (size_t i = 0; rows && tags && i < tags->run_count; i++) {
    if (tags->runs[i]->soonest > now) continue;
    for (size_t row = 0; row < tags->runs[i]->rows; row++)
      if (run_expiry(tags->runs[i], row) <= now) rows[(*count)++] = tags->firsts[i] + row;
  }
  return rows;
}

/* ---- Editing ---- */

/* The new list while it grows. `tags` are those of rows that are not yet in a
 * run; their ids stay where they are until flush(). */
struct making {
  struct row_tags *made;
  struct tag tags[RUN_ROWS];
  size_t count;
  struct tag_run *held; /* keeps alive the run whose ids are among `tags` */
  bool failed;
};

static void flush(struct making *making) {
  if (making->count > 0 && !making->failed)
    making->failed =
        !push_run(making->made, run_create(making->made->key, making->tags, making->count));
  making->count = 0;
  tag_run_free(making->held);
  making->held = NULL;
}

static void put(struct making *making, struct tag tag) {
  if (making->count == RUN_ROWS) flush(making);
  making->tags[making->count++] = tag;
}

static struct tag tag_at(const struct tag_run *run, size_t row) {
  struct tag tag = {.hash = run->hashes ? run->hashes[row] : 0, .expiry = run_expiry(run, row)};
  tag.id = run_id(run, row, &tag.length);
  return tag;
}

/* An untouched run. Small neighbours are joined, `next` being the one behind it (or
 * NULL): so runs stay few, however rows are removed. */
static void share(struct making *making, struct tag_run *run, const struct tag_run *next) {
  const bool joins_last = making->count > 0 && making->count + run->rows <= JOINED_ROWS;
  const bool joins_next = next && run->rows + next->rows <= JOINED_ROWS;
  if (!joins_last) flush(making);
  if (joins_last || joins_next) {
    for (size_t row = 0; row < run->rows; row++)
      put(making, tag_at(run, row));
  } else if (!making->failed) {
    making->failed = !push_run(making->made, tag_run_ref(run));
  }
}

/* The base's rows; `next` counts how far the edit's two lists have been used. */
static void walk(struct making *making, const struct row_tags *base, const struct tags_edit *edit) {
  size_t removed = 0, replaced = 0;
  for (size_t i = 0; i < base->run_count && !making->failed; i++) {
    struct tag_run *run = base->runs[i];
    const size_t first = base->firsts[i], end = first + run->rows;
    const bool touched = (removed < edit->removed_count && edit->removed[removed] < end) ||
                         (replaced < edit->replaced_count && edit->replaced[replaced] < end);
    if (!touched) {
      share(making, run, i + 1 < base->run_count ? base->runs[i + 1] : NULL);
      continue;
    }
    for (size_t row = first; row < end; row++) {
      struct tag tag = tag_at(run, row - first);
      if (replaced < edit->replaced_count && edit->replaced[replaced] == row) {
        tag.expiry = edit->replaced_expiries ? edit->replaced_expiries[replaced] : NEVER_EXPIRES;
        replaced++;
      }
      if (removed < edit->removed_count && edit->removed[removed] == row)
        removed++;
      else
        put(making, tag);
    }
  }
}

/* Opens the last run again where it has room, so that rows appended one by one
 * do not make a run each. */
static void reopen_last(struct making *making) {
  struct row_tags *made = making->made;
  if (making->count > 0 || made->run_count == 0) return;
  struct tag_run *last = made->runs[made->run_count - 1];
  if (last->rows == RUN_ROWS) return;
  made->run_count--;
  made->rows -= last->rows;
  made->run_bytes -= last->bytes;
  made->id_count -= last->id_count; /* its rows are put again, so `soonest` stays */
  making->held = last;
  for (size_t row = 0; row < last->rows; row++)
    put(making, tag_at(last, row));
}

/* Tags of which no row has any come to nothing. */
static struct row_tags *without_plain(struct row_tags *tags) {
  if (tags->id_count > 0 || tags->soonest != NEVER_EXPIRES) return tags;
  row_tags_free(tags);
  return NULL;
}

/* Tags for rows that had none: full runs are one and the same. */
static struct row_tags *plain(size_t rows) {
  struct row_tags *tags = row_tags_create();
  struct tag *none = malloc(RUN_ROWS * sizeof *none);
  bool made = tags && none;
  for (size_t i = 0; made && i < RUN_ROWS; i++)
    none[i] = (struct tag){.expiry = NEVER_EXPIRES};
  while (made && tags->rows < rows) {
    const size_t left = rows - tags->rows;
    struct tag_run *run = left >= RUN_ROWS && tags->run_count > 0
                              ? tag_run_ref(tags->runs[0])
                              : run_create(tags->key, none, left < RUN_ROWS ? left : RUN_ROWS);
    made = push_run(tags, run);
  }
  free(none);
  if (made) return tags;
  row_tags_free(tags);
  return NULL;
}

static bool brings_tags(const struct tags_edit *edit) {
  return edit->added_ids || edit->added_expiries || edit->replaced_expiries;
}

bool row_tags_edit(struct row_tags **edited, const struct row_tags *base, size_t rows,
                   const struct tags_edit *edit) {
  *edited = NULL;
  if (!base && !brings_tags(edit)) return true;
  struct row_tags *made_plain = base ? NULL : plain(rows);
  if (!base && !made_plain) return false;
  const struct row_tags *from = base ? base : made_plain;
  struct making *making = malloc(sizeof *making);
  struct row_tags *made = row_tags_create();
  bool done = making && made;
  if (done) {
    making->made = made;
    making->count = 0;
    making->held = NULL;
    making->failed = false;
    made->key = from->key;
    walk(making, from, edit);
    if (edit->added_count > 0 && !making->failed) reopen_last(making);
    for (size_t i = 0; i < edit->added_count && !making->failed; i++) {
      struct tag tag = {.expiry = edit->added_expiries ? edit->added_expiries[i] : NEVER_EXPIRES};
      if (edit->added_ids) tag.id = id_list_get(edit->added_ids, i, &tag.length);
      put(making, tag);
    }
    flush(making);
    done = !making->failed;
  }
  free(making);
  row_tags_free(made_plain);
  if (done)
    *edited = without_plain(made);
  else
    row_tags_free(made);
  return done;
}

/* ---- Bytes ----
 * rows, then per row: a flag byte (1: an id, 2: an expiry) and what it says. */

enum { HAS_ID = 1, HAS_EXPIRY = 2 };

void tag_run_encode(const struct tag_run *run, struct buffer *out) {
  bytes_put_u64(out, run->rows);
  for (size_t row = 0; row < run->rows; row++) {
    const struct tag tag = tag_at(run, row);
    const bool expires = tag.expiry != NEVER_EXPIRES;
    bytes_put_u8(out, (uint8_t)((tag.id ? HAS_ID : 0) | (expires ? HAS_EXPIRY : 0)));
    if (tag.id) bytes_put_text(out, tag.id, tag.length);
    if (expires) bytes_put_i64(out, tag.expiry);
  }
}

static bool read_tag(struct byte_reader *reader, struct tag *tag) {
  const uint8_t flags = bytes_get_u8(reader);
  *tag = (struct tag){.expiry = NEVER_EXPIRES};
  if (reader->failed || flags > (HAS_ID | HAS_EXPIRY)) return false;
  if (flags & HAS_ID) {
    tag->id = bytes_get_text(reader, &tag->length);
    if (!tag->id || tag->length == 0 || tag->length > ID_LENGTH_MAX) return false;
  }
  if (flags & HAS_EXPIRY) tag->expiry = bytes_get_i64(reader);
  return !reader->failed;
}

enum decoded row_tags_decode_run(struct row_tags *tags, const void *data, size_t size) {
  struct byte_reader reader = bytes_reader(data, size);
  const size_t rows = bytes_get_count(&reader, 1);
  if (reader.failed || rows == 0 || rows > RUN_ROWS) return NOT_A_RUN;
  struct tag *read = bytes_room(&reader, rows * sizeof *read);
  if (!read) return DECODING_SHORT_OF_MEMORY;
  bool sound = true;
  for (size_t row = 0; row < rows && sound; row++)
    sound = read_tag(&reader, &read[row]);
  enum decoded decoded = sound && bytes_ended(&reader) ? DECODED : NOT_A_RUN;
  if (decoded == DECODED && !push_run(tags, run_create(tags->key, read, rows)))
    decoded = DECODING_SHORT_OF_MEMORY;
  free(read);
  return decoded;
}
