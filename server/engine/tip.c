/* One memory in the writer's hands.
 *
 * A batch of writes is applied to `now`, record by record into the transaction
 * under way; when that is durable `now` becomes `published`, otherwise it is
 * forgotten and nothing has happened. Both states hold references, so there is
 * nothing to undo by hand.
 *
 * Appends are special: thirty-two clients that append a row each would copy the
 * last block thirty-two times. So appended rows are gathered, and put into the
 * memory once: before anything else is done to it, and at the end of the batch.
 * lib/edit.c promises that this gives the same blocks as doing it one by one,
 * which is what a restart does. */
#include "engine/tip.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A larger change is stored as the chunks that it leads to, with a new base: to
 * write it down as a change first would be to write it twice. */
enum { LARGE_CHANGE = 4 << 20 };

/* Ids of an append are held against those gathered so far one by one, up to
 * that many comparisons. */
enum { MOST_COMPARISONS = 1 << 20 };

struct tip *tip_create(const char *name) {
  struct tip *tip = calloc(1, sizeof *tip);
  if (!tip) return NULL;
  strncpy(tip->name, name, sizeof tip->name - 1);
  buffer_init(&tip->gathered.keys, 0);
  buffer_init(&tip->gathered.values, 0);
  buffer_init(&tip->gathered.expiries, 0);
  return tip;
}

static void state_clear(struct tip_state *state, const struct tip_state *except) {
  if (state->kept != except->kept) kept_free(state->kept);
  memory_free(state->memory);
  memory_free(state->kept_of);
  *state = (struct tip_state){.memory = NULL};
}

/* `now` as another holder of what is published. */
static void start_from_published(struct tip *tip) {
  tip->now = tip->published;
  memory_ref(tip->now.memory);
  memory_ref(tip->now.kept_of);
}

void tip_free(struct tip *tip) {
  if (!tip) return;
  state_clear(&tip->now, &tip->published);
  state_clear(&tip->published, &(struct tip_state){.kept = NULL});
  buffer_free(&tip->gathered.keys);
  buffer_free(&tip->gathered.values);
  buffer_free(&tip->gathered.expiries);
  id_list_free(tip->gathered.ids);
  receipts_clear(&tip->receipts);
  free(tip);
}

/* Lets the numbers of what is stored follow the memory. `shared` is somebody
 * else's. */
static void follow(struct tip_state *state, const struct kept *shared) {
  if (!state->kept || state->kept_of == state->memory) return;
  struct kept *followed = kept_follow(state->kept, state->memory);
  if (state->kept != shared) kept_free(state->kept);
  state->kept = followed; /* or NULL: then the next fold stores all of it */
  memory_free(state->kept_of);
  state->kept_of = followed ? memory_ref(state->memory) : NULL;
}

void tip_adopt(struct tip *tip, const struct tip_state *state, struct budget *budget) {
  tip->published = *state;
  tip->published.charged = memory_bytes(state->memory);
  budget_correct(budget, 0, tip->published.charged);
  receipts_trim(&tip->receipts);
  tip->published.receipt_count = tip->receipts.count;
  follow(&tip->published, NULL);
  start_from_published(tip);
}

/* ---- The end of a batch ---- */

static void drop_gathered(struct gathered *gathered) {
  buffer_clear(&gathered->keys);
  buffer_clear(&gathered->values);
  buffer_clear(&gathered->expiries);
  id_list_free(gathered->ids);
  gathered->ids = NULL;
  gathered->rows = 0;
  gathered->expire = false;
}

void tip_commit(struct tip *tip, struct budget *budget) {
  struct tip_state *now = &tip->now;
  if (now->kept) kept_settle(now->kept);
  now->charged = now->memory ? memory_bytes(now->memory) : 0;
  if (now->memory) follow(now, tip->published.kept);
  if (!now->memory) {
    if (now->kept != tip->published.kept) kept_free(now->kept);
    now->kept = NULL;
    memory_free(now->kept_of);
    now->kept_of = NULL;
    receipts_clear(&tip->receipts);
  }
  budget_correct(budget, tip->published.charged + tip->reserved, now->charged);
  tip->reserved = 0;
  receipts_trim(&tip->receipts);
  now->receipt_count = tip->receipts.count;
  const struct tip_state kept = *now;
  state_clear(&tip->published, &kept);
  tip->published = kept;
  start_from_published(tip);
  tip->touched = false;
}

void tip_forget(struct tip *tip, struct budget *budget) {
  drop_gathered(&tip->gathered);
  receipts_shorten(&tip->receipts, tip->published.receipt_count);
  budget_give(budget, tip->reserved);
  tip->reserved = 0;
  state_clear(&tip->now, &tip->published);
  if (tip->published.kept) kept_forget(tip->published.kept);
  start_from_published(tip);
  tip->touched = false;
}

void tip_folded(struct tip *tip, const struct kept *kept, int64_t version, size_t change_bytes) {
  struct tip_state *state = &tip->published;
  state_clear(&tip->now, state);
  kept_free(state->kept);
  state->kept = kept_follow(kept, state->memory);
  memory_free(state->kept_of);
  state->kept_of = state->kept ? memory_ref(state->memory) : NULL;
  state->change_bytes -= change_bytes;
  state->base_version = version;
  start_from_published(tip);
}

/* ---- Helpers of the writes ---- */

static bool fail(struct write *write, enum problem_code code, const char *pointer,
                 const char *detail) {
  write->failed = true;
  return problem_set(&write->problem, code, pointer, "%s", detail);
}

static bool fail_status(struct write *write, attn_status status) {
  write->failed = true;
  return problem_set_status(&write->problem, status, "");
}

/* The store's refusal ends the batch; the write is told then. */
static bool stored(struct tip_context *context, enum store_status status) {
  if (status != STORE_OK) context->status = status;
  return status == STORE_OK;
}

static bool short_of_memory(struct tip_context *context) {
  context->status = STORE_NO_MEMORY;
  return false;
}

static bool check_allowed(const struct tip *tip, struct write *write) {
  const int64_t version = tip->now.memory ? tip->now.version : 0;
  if (!write->allowed || write->allowed(write->context, version)) return true;
  write->failed = true;
  if (version == 0)
    return problem_set(&write->problem, PROBLEM_PRECONDITION_FAILED, "",
                       "there is no memory named \"%s\", which the request asks for; nothing was "
                       "changed",
                       tip->name);
  return problem_set(&write->problem, PROBLEM_PRECONDITION_FAILED, "",
                     "the memory is at version %" PRId64
                     ", which the request does not allow; nothing was changed",
                     version);
}

static bool check_there(const struct tip *tip, struct write *write) {
  if (!tip->now.memory) {
    write->failed = true;
    return problem_set(&write->problem, PROBLEM_MEMORY_NOT_FOUND, "",
                       "there is no memory named \"%s\"", tip->name);
  }
  if (!tip->now.memory->damaged) return true;
  write->failed = true;
  return problem_set(&write->problem, PROBLEM_MEMORY_DAMAGED, "",
                     "%s; replace or delete the memory, or restore a backup",
                     tip->now.memory->damaged);
}

static size_t key_dim_of(const struct tip *tip) {
  return attn_snapshot_key_dim(tip->now.memory->snapshot);
}
static size_t value_dim_of(const struct tip *tip) {
  return attn_snapshot_value_dim(tip->now.memory->snapshot);
}
static size_t rows_of(const struct tip *tip) {
  return attn_snapshot_rows(tip->now.memory->snapshot) + tip->gathered.rows;
}

static void step_to(struct tip *tip, struct memory *after) {
  memory_free(tip->now.memory);
  tip->now.memory = after;
}

/* All as chunks, with a base of its own, in the transaction under way; what
 * `from` (NULL: nothing) says is stored already is not stored again. */
static bool put_base(struct tip *tip, const struct kept *from, struct tip_context *context) {
  struct tip_state *now = &tip->now;
  struct kept *kept = from ? kept_follow(from, now->memory) : kept_create(now->memory);
  if (!kept) return short_of_memory(context);
  if (now->kept != tip->published.kept) kept_free(now->kept);
  memory_free(now->kept_of);
  now->kept = kept;
  now->kept_of = memory_ref(now->memory);
  bool complete;
  if (!stored(context, kept_store(kept, &now->place, now->memory, SIZE_MAX, &complete)) ||
      !stored(context, kept_put_base(kept, &now->place, now->memory, &tip->receipts)))
    return false;
  now->change_bytes = 0;
  now->base_version = now->version;
  return true;
}

/* Writes the change down as the one that leads to now.version. */
static bool put_change(struct tip *tip, const struct change *change, struct tip_context *context) {
  tip->touched = true;
  if (!context->store) return true;
  struct buffer bytes;
  buffer_init(&bytes, 0);
  change_encode(change, key_dim_of(tip), value_dim_of(tip), &bytes);
  const enum store_status status =
      bytes.status == BUFFER_OK ? store_put_change(context->store, tip->now.place.id,
                                                   tip->now.version, bytes.data, bytes.length)
                                : STORE_NO_MEMORY;
  tip->now.change_bytes += bytes.length;
  buffer_free(&bytes);
  return stored(context, status);
}

static size_t bytes_of(const struct tip *tip, const struct change *change) {
  return (change->rows.added_count + change->rows.replaced_count) *
         (key_dim_of(tip) + value_dim_of(tip)) * sizeof(float);
}

/* Applies the change as the next version, and stores it. */
static bool make_change(struct tip *tip, const struct change *change, struct tip_context *context) {
  struct memory *after;
  if (!tip_gather_in(tip)) return short_of_memory(context);
  if (change_apply(&after, tip->now.memory, change, tip->now.version + 1) != ATTN_OK)
    return short_of_memory(context);
  tip->now.version++;
  if (context->store && bytes_of(tip, change) > LARGE_CHANGE) {
    step_to(tip, after);
    tip->touched = true;
    return put_base(tip, tip->now.kept, context);
  }
  const bool put = put_change(tip, change, context);
  step_to(tip, after);
  return put;
}

/* ---- Rows ---- */

bool tip_gather_in(struct tip *tip) {
  struct gathered *gathered = &tip->gathered;
  if (gathered->rows == 0) return true;
  struct memory *after = NULL;
  const struct change change = {
      .rows = {.added_keys = (const float *)(const void *)gathered->keys.data,
               .added_values = (const float *)(const void *)gathered->values.data,
               .added_count = gathered->rows},
      .added_ids = gathered->ids,
      .added_expiries =
          gathered->expire ? (const int64_t *)(const void *)gathered->expiries.data : NULL};
  const bool applied = change_apply(&after, tip->now.memory, &change, tip->now.version) == ATTN_OK;
  drop_gathered(gathered);
  if (applied) step_to(tip, after);
  return applied;
}

/* A write's rows expire together: the first one's time says whether they do. */
static const int64_t *times(const int64_t *expiries) {
  return expiries[0] == NEVER_EXPIRES ? NULL : expiries;
}

static bool gather(struct tip *tip, const struct write *write, const int64_t *expiries) {
  struct gathered *gathered = &tip->gathered;
  if (gathered->rows > 0 && (gathered->ids != NULL) != (write->ids != NULL) && !tip_gather_in(tip))
    return false;
  if (write->ids && !gathered->ids) gathered->ids = id_list_create();
  bool kept = !write->ids || gathered->ids;
  for (size_t i = 0; kept && write->ids && i < write->rows; i++) {
    size_t length;
    const char *id = id_list_get(write->ids, i, &length);
    kept = id_list_append(gathered->ids, id, length);
  }
  kept =
      kept &&
      buffer_append(&gathered->keys, write->keys, write->rows * write->key_dim * sizeof(float)) &&
      buffer_append(&gathered->values, write->values,
                    write->rows * write->value_dim * sizeof(float));
  for (size_t i = 0; kept && i < write->rows; i++) {
    const int64_t expiry = expiries ? expiries[i] : NEVER_EXPIRES;
    kept = buffer_append(&gathered->expiries, &expiry, sizeof expiry);
  }
  gathered->expire |= expiries != NULL;
  gathered->rows += kept ? write->rows : 0;
  return kept;
}

/* Whether an id of the write is among those gathered; true in case of doubt. */
static bool meets_gathered(const struct gathered *gathered, const struct id_list *ids) {
  const size_t ours = id_list_count(gathered->ids), theirs = id_list_count(ids);
  if (ours == 0 || theirs == 0) return false;
  if (ours > MOST_COMPARISONS / theirs) return true;
  for (size_t i = 0; i < theirs; i++) {
    size_t length, other_length;
    const char *id = id_list_get(ids, i, &length);
    for (size_t k = 0; k < ours; k++) {
      const char *other = id_list_get(gathered->ids, k, &other_length);
      if (length == other_length && memcmp(id, other, length) == 0) return true;
    }
  }
  return false;
}

static bool check_range(const float *numbers, size_t rows, size_t dim, double largest,
                        const char *member, struct write *write) {
  for (size_t i = 0; i < rows * dim; i++)
    if (!(fabs((double)numbers[i]) <= largest)) {
      char pointer[PROBLEM_POINTER_MAX];
      snprintf(pointer, sizeof pointer, "/%s/%zu/%zu", member, i / dim, i % dim);
      write->failed = true;
      return problem_set(&write->problem, PROBLEM_INVALID_NUMBER, pointer,
                         "%g is beyond the memory's dtype, which goes to %g", (double)numbers[i],
                         largest);
    }
  return true;
}

static bool check_rows(const struct tip *tip, struct write *write,
                       const struct tip_context *context) {
  const size_t key_dim = key_dim_of(tip), value_dim = value_dim_of(tip);
  char detail[PROBLEM_DETAIL_MAX];
  if (write->key_dim != key_dim) {
    snprintf(detail, sizeof detail, "row 0 has %zu components, the memory's keys have %zu",
             write->key_dim, key_dim);
    return fail(write, PROBLEM_SHAPE_MISMATCH, "/keys/0", detail);
  }
  if (write->value_dim != value_dim) {
    snprintf(detail, sizeof detail, "row 0 has %zu components, the memory's values have %zu",
             write->value_dim, value_dim);
    return fail(write, PROBLEM_SHAPE_MISMATCH, "/values/0", detail);
  }
  if (write->rows > context->max_rows || rows_of(tip) > context->max_rows - write->rows) {
    snprintf(detail, sizeof detail,
             "the memory has %zu rows; %zu more would be beyond the limit of %zu", rows_of(tip),
             write->rows, context->max_rows);
    return fail(write, PROBLEM_LIMIT_EXCEEDED, "", detail);
  }
  const double largest =
      attn_dtype_info_at((size_t)attn_snapshot_dtype(tip->now.memory->snapshot))->largest;
  return check_range(write->keys, write->rows, key_dim, largest, "keys", write) &&
         check_range(write->values, write->rows, value_dim, largest, "values", write);
}

/* The rows of a write, told apart: those that are there already, in order of
 * rows, and the new ones, in the order of the write. */
struct upsert {
  size_t *rows;  /* of each, SIZE_MAX: none */
  size_t *order; /* the write's index of each replaced row */
  struct change change;
  float *numbers;
  size_t *replaced;
  int64_t *expiries;
};

static int by_row(const void *a, const void *b) {
  const size_t x = **(const size_t *const *)a, y = **(const size_t *const *)b;
  return x < y ? -1 : x > y;
}

static void upsert_free(struct upsert *upsert) {
  free(upsert->rows);
  free(upsert->numbers);
  free(upsert->replaced);
  id_list_free(upsert->change.added_ids);
}

/* Rows side by side as the edit wants them: replaced keys, then replaced values,
 * then added ones. */
static bool upsert_arrange(struct upsert *upsert, const struct write *write,
                           const int64_t *expiries) {
  const size_t key_dim = write->key_dim, value_dim = write->value_dim;
  attn_edit *edit = &upsert->change.rows;
  const size_t **places = malloc(write->rows * sizeof *places);
  upsert->numbers = malloc(write->rows * (key_dim + value_dim) * sizeof(float));
  upsert->replaced = malloc(write->rows * sizeof *upsert->replaced);
  upsert->change.added_ids = id_list_create();
  bool arranged = places && upsert->numbers && upsert->replaced && upsert->change.added_ids;
  for (size_t i = 0; arranged && i < write->rows; i++)
    if (upsert->rows[i] != SIZE_MAX) places[edit->replaced_count++] = &upsert->rows[i];
  edit->added_count = write->rows - edit->replaced_count;
  if (arranged) {
    qsort(places, edit->replaced_count, sizeof *places, by_row);
    float *replaced_keys = upsert->numbers;
    float *replaced_values = replaced_keys + edit->replaced_count * key_dim;
    float *added_keys = replaced_values + edit->replaced_count * value_dim;
    float *added_values = added_keys + edit->added_count * key_dim;
    for (size_t r = 0; r < edit->replaced_count; r++) {
      const size_t i = (size_t)(places[r] - upsert->rows);
      upsert->replaced[r] = *places[r];
      memcpy(replaced_keys + r * key_dim, write->keys + i * key_dim, key_dim * sizeof(float));
      memcpy(replaced_values + r * value_dim, write->values + i * value_dim,
             value_dim * sizeof(float));
    }
    size_t added = 0;
    for (size_t i = 0; i < write->rows && arranged; i++) {
      if (upsert->rows[i] != SIZE_MAX) continue;
      size_t length;
      const char *id = id_list_get(write->ids, i, &length);
      arranged = id_list_append(upsert->change.added_ids, id, length);
      memcpy(added_keys + added * key_dim, write->keys + i * key_dim, key_dim * sizeof(float));
      memcpy(added_values + added * value_dim, write->values + i * value_dim,
             value_dim * sizeof(float));
      added++;
    }
    edit->replaced = upsert->replaced;
    edit->replaced_keys = replaced_keys;
    edit->replaced_values = replaced_values;
    edit->added_keys = added_keys;
    edit->added_values = added_values;
    upsert->change.added_expiries = times(expiries);
    upsert->change.replaced_expiries = times(expiries);
  }
  free(places);
  return arranged;
}

static void answer_rows(const struct tip *tip, struct write *write, size_t updated) {
  write->version = tip->now.version;
  write->total = rows_of(tip);
  write->updated = updated;
  write->inserted = write->rows - updated;
}

/* The same append again: answered as it was. True where that is so, or where the
 * key was used for something else. */
static bool answer_again(const struct tip *tip, struct write *write) {
  const struct append_receipt *receipt =
      write->idempotency_key ? receipts_find(&tip->receipts, write->idempotency_key) : NULL;
  if (!receipt) return false;
  if (receipt->fingerprint != write->fingerprint) {
    fail(write, PROBLEM_KEY_REUSED, "",
         "an append with this Idempotency-Key has been done already, and its rows were others");
    return true;
  }
  write->version = receipt->version;
  write->total = (size_t)receipt->rows;
  write->inserted = (size_t)receipt->inserted;
  write->updated = (size_t)receipt->updated;
  return true;
}

/* What goes into the change's record is what a repetition will be told. */
static bool keep_receipt(struct tip *tip, const struct write *write, size_t updated,
                         struct append_receipt *receipt) {
  *receipt = (struct append_receipt){.key = (char *)(uintptr_t)write->idempotency_key,
                                     .fingerprint = write->fingerprint,
                                     .version = tip->now.version + 1,
                                     .rows = rows_of(tip) + write->rows - updated,
                                     .inserted = write->rows - updated,
                                     .updated = updated};
  return !receipt->key || receipts_add(&tip->receipts, receipt);
}

static bool append(struct tip *tip, struct write *write, const int64_t *expiries,
                   struct tip_context *context) {
  struct change change = {.rows = {.added_keys = write->keys,
                                   .added_values = write->values,
                                   .added_count = write->rows},
                          .added_ids = write->ids,
                          .added_expiries = times(expiries)};
  if (!keep_receipt(tip, write, 0, &change.receipt)) return short_of_memory(context);
  if (bytes_of(tip, &change) > LARGE_CHANGE) return make_change(tip, &change, context);
  if (!gather(tip, write, times(expiries))) return short_of_memory(context);
  tip->now.version++;
  return put_change(tip, &change, context);
}

static bool upsert(struct tip *tip, struct write *write, const int64_t *expiries,
                   struct tip_context *context) {
  struct upsert upsert = {.rows = malloc(write->rows * sizeof *upsert.rows)};
  if (!upsert.rows || (meets_gathered(&tip->gathered, write->ids) && !tip_gather_in(tip)) ||
      !row_tags_find(tip->now.memory->tags, write->ids, upsert.rows)) {
    free(upsert.rows);
    return short_of_memory(context);
  }
  size_t updated = 0;
  for (size_t i = 0; i < write->rows; i++)
    updated += upsert.rows[i] != SIZE_MAX;
  bool done;
  if (updated == 0)
    done = append(tip, write, expiries, context);
  else
    done = (tip_gather_in(tip) && upsert_arrange(&upsert, write, expiries) &&
            keep_receipt(tip, write, updated, &upsert.change.receipt)) ||
           short_of_memory(context);
  if (done && updated > 0) done = make_change(tip, &upsert.change, context);
  upsert_free(&upsert);
  if (done) answer_rows(tip, write, updated);
  return done;
}

void tip_rows(struct tip *tip, struct write *write, struct tip_context *context) {
  if (!check_there(tip, write) || answer_again(tip, write) || !check_allowed(tip, write) ||
      !check_rows(tip, write, context))
    return;
  const size_t estimate =
      write->rows * ((write->key_dim + write->value_dim) * sizeof(float) + sizeof(double));
  if (!budget_take(context->budget, estimate, &write->problem)) {
    write->failed = true;
    return;
  }
  tip->reserved += estimate;
  const int64_t ttl = write->has_ttl ? write->ttl_ms : tip->now.memory->ttl_ms;
  int64_t *expiries = malloc(write->rows * sizeof *expiries);
  if (!expiries) {
    short_of_memory(context);
    return;
  }
  for (size_t i = 0; i < write->rows; i++)
    expiries[i] = ttl > 0 ? context->wall_ms + ttl : NEVER_EXPIRES;
  if (write->ids)
    upsert(tip, write, expiries, context);
  else if (append(tip, write, expiries, context))
    answer_rows(tip, write, 0);
  free(expiries);
}

static int by_size(const void *a, const void *b) {
  const size_t x = *(const size_t *)a, y = *(const size_t *)b;
  return x < y ? -1 : x > y;
}

void tip_remove(struct tip *tip, struct write *write, struct tip_context *context) {
  if (!check_there(tip, write) || !check_allowed(tip, write)) return;
  const size_t count = id_list_count(write->ids);
  size_t *rows = malloc(count * sizeof *rows), found = 0;
  if (!rows || !tip_gather_in(tip) || !row_tags_find(tip->now.memory->tags, write->ids, rows)) {
    free(rows);
    short_of_memory(context);
    return;
  }
  for (size_t i = 0; i < count; i++)
    if (rows[i] != SIZE_MAX) rows[found++] = rows[i];
  qsort(rows, found, sizeof *rows, by_size);
  const struct change change = {.rows = {.removed = rows, .removed_count = found}};
  if (found == 0 || make_change(tip, &change, context)) {
    write->version = tip->now.version;
    write->total = rows_of(tip);
    write->deleted = found;
  }
  free(rows);
}

void tip_expire(struct tip *tip, struct tip_context *context) {
  size_t count;
  if (!tip_gather_in(tip)) {
    short_of_memory(context);
    return;
  }
  size_t *rows = row_tags_expired(tip->now.memory->tags, context->wall_ms, &count);
  const struct change change = {.rows = {.removed = rows, .removed_count = count}};
  if (!rows)
    short_of_memory(context);
  else if (count > 0)
    make_change(tip, &change, context);
  free(rows);
}

/* ---- The memory as a whole ---- */

void tip_settle(struct tip *tip, struct write *write, struct tip_context *context) {
  if (!check_there(tip, write) || !check_allowed(tip, write)) return;
  if (write->score && attn_score_query_dim(write->score, key_dim_of(tip)) == 0) {
    fail_status(write, ATTN_BAD_SHAPE);
    return;
  }
  const struct memory *memory = tip->now.memory;
  const struct change change = {.settles = true,
                                .score = write->score ? write->score : memory->score,
                                .normalization = write->normalization ? write->normalization
                                                                      : memory->normalization,
                                .ttl_ms = write->has_ttl ? write->ttl_ms : memory->ttl_ms};
  const bool changes = write->score || write->normalization || write->has_ttl;
  if (!tip_gather_in(tip)) {
    short_of_memory(context);
    return;
  }
  if (changes && !make_change(tip, &change, context)) return;
  write->version = tip->now.version;
  write->after = memory_ref(tip->now.memory);
}

void tip_put(struct tip *tip, struct write *write, int64_t version, const struct staged *staged,
             struct tip_context *context) {
  struct tip_state *now = &tip->now;
  drop_gathered(&tip->gathered);
  write->created = now->memory == NULL;
  write->version = version;
  if (context->store && now->memory &&
      !stored(context, store_drop_memory(context->store, now->place.id, now->version)))
    return;
  tip->touched = true;
  write->memory->version = version;
  if (now->kept != tip->published.kept) kept_free(now->kept);
  memory_free(now->kept_of);
  memory_free(now->memory);
  *now = (struct tip_state){
      .memory = memory_ref(write->memory), .version = version, .place = staged->place};
  write->after = memory_ref(write->memory);
  if (context->store) put_base(tip, staged->kept, context);
}

void tip_delete(struct tip *tip, struct tip_context *context) {
  struct tip_state *now = &tip->now;
  drop_gathered(&tip->gathered);
  tip->touched = true;
  if (context->store)
    stored(context, store_drop_memory(context->store, now->place.id, now->version));
  if (now->kept != tip->published.kept) kept_free(now->kept);
  memory_free(now->kept_of);
  memory_free(now->memory);
  *now = (struct tip_state){.version = now->version};
}

bool tip_check(const struct tip *tip, struct write *write) {
  return check_allowed(tip, write);
}

/* ---- Loading ---- */

static void state_swap(struct tip_state *a, struct tip_state *b) {
  const struct tip_state kept = *a;
  *a = *b;
  *b = kept;
}

static bool is_append(const struct change *change) {
  return change->rows.added_count > 0 && !change->settles &&
         change->rows.removed_count + change->rows.replaced_count == 0;
}

attn_status tip_replay(struct tip *tip, struct tip_state *state, const struct change *change,
                       int64_t version) {
  attn_status status = ATTN_OK;
  state_swap(&tip->now, state);
  if (change && is_append(change)) {
    const struct write rows = {.keys = change->rows.added_keys,
                               .values = change->rows.added_values,
                               .rows = change->rows.added_count,
                               .key_dim = key_dim_of(tip),
                               .value_dim = value_dim_of(tip),
                               .ids = change->added_ids};
    if (!gather(tip, &rows, change->added_expiries)) status = ATTN_NO_MEMORY;
  } else if (!tip_gather_in(tip)) {
    status = ATTN_NO_MEMORY;
  } else if (change) {
    struct memory *after;
    status = change_apply(&after, tip->now.memory, change, version);
    if (status == ATTN_OK) step_to(tip, after);
  }
  tip->now.version = version;
  state_swap(&tip->now, state);
  return status;
}

void tip_discard(struct tip *tip, struct tip_state *state) {
  drop_gathered(&tip->gathered);
  receipts_clear(&tip->receipts);
  state_clear(state, &(struct tip_state){.kept = NULL});
}
