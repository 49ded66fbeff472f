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
#include "engine/head.h"

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

struct head *head_create(const char *name) {
  struct head *head = calloc(1, sizeof *head);
  if (!head) return NULL;
  strncpy(head->name, name, sizeof head->name - 1);
  buffer_init(&head->gathered.keys, 0);
  buffer_init(&head->gathered.values, 0);
  buffer_init(&head->gathered.expiries, 0);
  return head;
}

static void state_clear(struct head_state *state, const struct head_state *except) {
  if (state->kept != except->kept) kept_free(state->kept);
  memory_free(state->memory);
  memory_free(state->kept_of);
  *state = (struct head_state){.memory = NULL};
}

/* `now` as another holder of what is published. */
static void start_from_published(struct head *head) {
  head->now = head->published;
  memory_ref(head->now.memory);
  memory_ref(head->now.kept_of);
}

void head_free(struct head *head) {
  if (!head) return;
  state_clear(&head->now, &head->published);
  state_clear(&head->published, &(struct head_state){.kept = NULL});
  buffer_free(&head->gathered.keys);
  buffer_free(&head->gathered.values);
  buffer_free(&head->gathered.expiries);
  id_list_free(head->gathered.ids);
  receipts_clear(&head->receipts);
  free(head);
}

/* Lets the numbers of what is stored follow the memory. `shared` is somebody
 * else's. */
static void follow(struct head_state *state, const struct kept *shared) {
  if (!state->kept || state->kept_of == state->memory) return;
  struct kept *followed = kept_follow(state->kept, state->memory);
  if (state->kept != shared) kept_free(state->kept);
  state->kept = followed; /* or NULL: then the next fold stores all of it */
  memory_free(state->kept_of);
  state->kept_of = followed ? memory_ref(state->memory) : NULL;
}

void head_adopt(struct head *head, const struct head_state *state, struct budget *budget) {
  head->published = *state;
  head->published.charged = memory_bytes(state->memory);
  budget_correct(budget, 0, head->published.charged);
  receipts_trim(&head->receipts);
  head->published.receipt_count = head->receipts.count;
  follow(&head->published, NULL);
  start_from_published(head);
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

void head_commit(struct head *head, struct budget *budget) {
  struct head_state *now = &head->now;
  if (now->kept) kept_settle(now->kept);
  now->charged = now->memory ? memory_bytes(now->memory) : 0;
  if (now->memory) follow(now, head->published.kept);
  if (!now->memory) {
    if (now->kept != head->published.kept) kept_free(now->kept);
    now->kept = NULL;
    memory_free(now->kept_of);
    now->kept_of = NULL;
    receipts_clear(&head->receipts);
  }
  budget_correct(budget, head->published.charged + head->reserved, now->charged);
  head->reserved = 0;
  receipts_trim(&head->receipts);
  now->receipt_count = head->receipts.count;
  const struct head_state kept = *now;
  state_clear(&head->published, &kept);
  head->published = kept;
  start_from_published(head);
  head->touched = false;
}

void head_forget(struct head *head, struct budget *budget) {
  drop_gathered(&head->gathered);
  receipts_shorten(&head->receipts, head->published.receipt_count);
  budget_give(budget, head->reserved);
  head->reserved = 0;
  state_clear(&head->now, &head->published);
  if (head->published.kept) kept_forget(head->published.kept);
  start_from_published(head);
  head->touched = false;
}

void head_folded(struct head *head, const struct kept *kept, int64_t version, size_t change_bytes) {
  struct head_state *state = &head->published;
  state_clear(&head->now, state);
  kept_free(state->kept);
  state->kept = kept_follow(kept, state->memory);
  memory_free(state->kept_of);
  state->kept_of = state->kept ? memory_ref(state->memory) : NULL;
  state->change_bytes -= change_bytes;
  state->base_version = version;
  start_from_published(head);
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
static bool stored(struct head_context *context, enum store_status status) {
  if (status != STORE_OK) context->status = status;
  return status == STORE_OK;
}

static bool short_of_memory(struct head_context *context) {
  context->status = STORE_NO_MEMORY;
  return false;
}

static bool check_allowed(const struct head *head, struct write *write) {
  const int64_t version = head->now.memory ? head->now.version : 0;
  if (!write->allowed || write->allowed(write->context, version)) return true;
  write->failed = true;
  if (version == 0)
    return problem_set(&write->problem, PROBLEM_PRECONDITION_FAILED, "",
                       "there is no memory named \"%s\", which the request asks for; nothing was "
                       "changed",
                       head->name);
  return problem_set(&write->problem, PROBLEM_PRECONDITION_FAILED, "",
                     "the memory is at version %" PRId64
                     ", which the request does not allow; nothing was changed",
                     version);
}

static bool check_there(const struct head *head, struct write *write) {
  if (!head->now.memory) {
    write->failed = true;
    return problem_set(&write->problem, PROBLEM_MEMORY_NOT_FOUND, "",
                       "there is no memory named \"%s\"", head->name);
  }
  if (!head->now.memory->damaged) return true;
  write->failed = true;
  return problem_set(&write->problem, PROBLEM_MEMORY_DAMAGED, "",
                     "%s; replace or delete the memory, or restore a backup",
                     head->now.memory->damaged);
}

static size_t key_dim_of(const struct head *head) {
  return attn_snapshot_key_dim(head->now.memory->snapshot);
}
static size_t value_dim_of(const struct head *head) {
  return attn_snapshot_value_dim(head->now.memory->snapshot);
}
static size_t rows_of(const struct head *head) {
  return attn_snapshot_rows(head->now.memory->snapshot) + head->gathered.rows;
}

static void step_to(struct head *head, struct memory *after) {
  memory_free(head->now.memory);
  head->now.memory = after;
}

/* All as chunks, with a base of its own, in the transaction under way; what
 * `from` (NULL: nothing) says is stored already is not stored again. */
static bool put_base(struct head *head, const struct kept *from, struct head_context *context) {
  struct head_state *now = &head->now;
  struct kept *kept = from ? kept_follow(from, now->memory) : kept_create(now->memory);
  if (!kept) return short_of_memory(context);
  if (now->kept != head->published.kept) kept_free(now->kept);
  memory_free(now->kept_of);
  now->kept = kept;
  now->kept_of = memory_ref(now->memory);
  bool complete;
  if (!stored(context, kept_store(kept, &now->place, now->memory, SIZE_MAX, &complete)) ||
      !stored(context, kept_put_base(kept, &now->place, now->memory, &head->receipts)))
    return false;
  now->change_bytes = 0;
  now->base_version = now->version;
  return true;
}

/* Writes the change down as the one that leads to now.version. */
static bool put_change(struct head *head, const struct change *change,
                       struct head_context *context) {
  head->touched = true;
  if (!context->store) return true;
  struct buffer bytes;
  buffer_init(&bytes, 0);
  change_encode(change, key_dim_of(head), value_dim_of(head), &bytes);
  const enum store_status status =
      bytes.status == BUFFER_OK ? store_put_change(context->store, head->now.place.id,
                                                   head->now.version, bytes.data, bytes.length)
                                : STORE_NO_MEMORY;
  head->now.change_bytes += bytes.length;
  buffer_free(&bytes);
  return stored(context, status);
}

static size_t bytes_of(const struct head *head, const struct change *change) {
  return (change->rows.added_count + change->rows.replaced_count) *
         (key_dim_of(head) + value_dim_of(head)) * sizeof(float);
}

/* Applies the change as the next version, and stores it. */
static bool make_change(struct head *head, const struct change *change,
                        struct head_context *context) {
  struct memory *after;
  if (!head_gather_in(head)) return short_of_memory(context);
  if (change_apply(&after, head->now.memory, change, head->now.version + 1) != ATTN_OK)
    return short_of_memory(context);
  head->now.version++;
  if (context->store && bytes_of(head, change) > LARGE_CHANGE) {
    step_to(head, after);
    head->touched = true;
    return put_base(head, head->now.kept, context);
  }
  const bool put = put_change(head, change, context);
  step_to(head, after);
  return put;
}

/* ---- Rows ---- */

bool head_gather_in(struct head *head) {
  struct gathered *gathered = &head->gathered;
  if (gathered->rows == 0) return true;
  struct memory *after = NULL;
  const struct change change = {
      .rows = {.added_keys = (const float *)(const void *)gathered->keys.data,
               .added_values = (const float *)(const void *)gathered->values.data,
               .added_count = gathered->rows},
      .added_ids = gathered->ids,
      .added_expiries =
          gathered->expire ? (const int64_t *)(const void *)gathered->expiries.data : NULL};
  const bool applied =
      change_apply(&after, head->now.memory, &change, head->now.version) == ATTN_OK;
  drop_gathered(gathered);
  if (applied) step_to(head, after);
  return applied;
}

/* A write's rows expire together: the first one's time says whether they do. */
static const int64_t *times(const int64_t *expiries) {
  return expiries[0] == NEVER_EXPIRES ? NULL : expiries;
}

static bool gather(struct head *head, const struct write *write, const int64_t *expiries) {
  struct gathered *gathered = &head->gathered;
  if (gathered->rows > 0 && (gathered->ids != NULL) != (write->ids != NULL) &&
      !head_gather_in(head))
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

static bool check_rows(const struct head *head, struct write *write,
                       const struct head_context *context) {
  const size_t key_dim = key_dim_of(head), value_dim = value_dim_of(head);
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
  if (write->rows > context->max_rows || rows_of(head) > context->max_rows - write->rows) {
    snprintf(detail, sizeof detail,
             "the memory has %zu rows; %zu more would be beyond the limit of %zu", rows_of(head),
             write->rows, context->max_rows);
    return fail(write, PROBLEM_LIMIT_EXCEEDED, "", detail);
  }
  const double largest =
      attn_dtype_info_at((size_t)attn_snapshot_dtype(head->now.memory->snapshot))->largest;
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

static void answer_rows(const struct head *head, struct write *write, size_t updated) {
  write->version = head->now.version;
  write->total = rows_of(head);
  write->updated = updated;
  write->inserted = write->rows - updated;
}

/* The same append again: answered as it was. True where that is so, or where the
 * key was used for something else. */
static bool answer_again(const struct head *head, struct write *write) {
  const struct append_receipt *receipt =
      write->idempotency_key ? receipts_find(&head->receipts, write->idempotency_key) : NULL;
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
static bool keep_receipt(struct head *head, const struct write *write, size_t updated,
                         struct append_receipt *receipt) {
  *receipt = (struct append_receipt){.key = (char *)(uintptr_t)write->idempotency_key,
                                     .fingerprint = write->fingerprint,
                                     .version = head->now.version + 1,
                                     .rows = rows_of(head) + write->rows - updated,
                                     .inserted = write->rows - updated,
                                     .updated = updated};
  return !receipt->key || receipts_add(&head->receipts, receipt);
}

static bool append(struct head *head, struct write *write, const int64_t *expiries,
                   struct head_context *context) {
  struct change change = {.rows = {.added_keys = write->keys,
                                   .added_values = write->values,
                                   .added_count = write->rows},
                          .added_ids = write->ids,
                          .added_expiries = times(expiries)};
  if (!keep_receipt(head, write, 0, &change.receipt)) return short_of_memory(context);
  if (bytes_of(head, &change) > LARGE_CHANGE) return make_change(head, &change, context);
  if (!gather(head, write, times(expiries))) return short_of_memory(context);
  head->now.version++;
  return put_change(head, &change, context);
}

static bool upsert(struct head *head, struct write *write, const int64_t *expiries,
                   struct head_context *context) {
  struct upsert upsert = {.rows = malloc(write->rows * sizeof *upsert.rows)};
  if (!upsert.rows || (meets_gathered(&head->gathered, write->ids) && !head_gather_in(head)) ||
      !row_tags_find(head->now.memory->tags, write->ids, upsert.rows)) {
    free(upsert.rows);
    return short_of_memory(context);
  }
  size_t updated = 0;
  for (size_t i = 0; i < write->rows; i++)
    updated += upsert.rows[i] != SIZE_MAX;
  bool done;
  if (updated == 0)
    done = append(head, write, expiries, context);
  else
    done = (head_gather_in(head) && upsert_arrange(&upsert, write, expiries) &&
            keep_receipt(head, write, updated, &upsert.change.receipt)) ||
           short_of_memory(context);
  if (done && updated > 0) done = make_change(head, &upsert.change, context);
  upsert_free(&upsert);
  if (done) answer_rows(head, write, updated);
  return done;
}

void head_rows(struct head *head, struct write *write, struct head_context *context) {
  if (!check_there(head, write) || answer_again(head, write) || !check_allowed(head, write) ||
      !check_rows(head, write, context))
    return;
  const size_t estimate =
      write->rows * ((write->key_dim + write->value_dim) * sizeof(float) + sizeof(double));
  if (!budget_take(context->budget, estimate, &write->problem)) {
    write->failed = true;
    return;
  }
  head->reserved += estimate;
  const int64_t ttl = write->has_ttl ? write->ttl_ms : head->now.memory->ttl_ms;
  int64_t *expiries = malloc(write->rows * sizeof *expiries);
  if (!expiries) {
    short_of_memory(context);
    return;
  }
  for (size_t i = 0; i < write->rows; i++)
    expiries[i] = ttl > 0 ? context->wall_ms + ttl : NEVER_EXPIRES;
  if (write->ids)
    upsert(head, write, expiries, context);
  else if (append(head, write, expiries, context))
    answer_rows(head, write, 0);
  free(expiries);
}

static int by_size(const void *a, const void *b) {
  const size_t x = *(const size_t *)a, y = *(const size_t *)b;
  return x < y ? -1 : x > y;
}

void head_remove(struct head *head, struct write *write, struct head_context *context) {
  if (!check_there(head, write) || !check_allowed(head, write)) return;
  const size_t count = id_list_count(write->ids);
  size_t *rows = malloc(count * sizeof *rows), found = 0;
  if (!rows || !head_gather_in(head) || !row_tags_find(head->now.memory->tags, write->ids, rows)) {
    free(rows);
    short_of_memory(context);
    return;
  }
  for (size_t i = 0; i < count; i++)
    if (rows[i] != SIZE_MAX) rows[found++] = rows[i];
  qsort(rows, found, sizeof *rows, by_size);
  const struct change change = {.rows = {.removed = rows, .removed_count = found}};
  if (found == 0 || make_change(head, &change, context)) {
    write->version = head->now.version;
    write->total = rows_of(head);
    write->deleted = found;
  }
  free(rows);
}

void head_expire(struct head *head, struct head_context *context) {
  size_t count;
  if (!head_gather_in(head)) {
    short_of_memory(context);
    return;
  }
  size_t *rows = row_tags_expired(head->now.memory->tags, context->wall_ms, &count);
  const struct change change = {.rows = {.removed = rows, .removed_count = count}};
  if (!rows)
    short_of_memory(context);
  else if (count > 0)
    make_change(head, &change, context);
  free(rows);
}

/* ---- The memory as a whole ---- */

void head_settle(struct head *head, struct write *write, struct head_context *context) {
  if (!check_there(head, write) || !check_allowed(head, write)) return;
  if (write->score && attn_score_query_dim(write->score, key_dim_of(head)) == 0) {
    fail_status(write, ATTN_BAD_SHAPE);
    return;
  }
  const struct memory *memory = head->now.memory;
  const struct change change = {.settles = true,
                                .score = write->score ? write->score : memory->score,
                                .normalization = write->normalization ? write->normalization
                                                                      : memory->normalization,
                                .ttl_ms = write->has_ttl ? write->ttl_ms : memory->ttl_ms};
  const bool changes = write->score || write->normalization || write->has_ttl;
  if (!head_gather_in(head)) {
    short_of_memory(context);
    return;
  }
  if (changes && !make_change(head, &change, context)) return;
  write->version = head->now.version;
  write->after = memory_ref(head->now.memory);
}

void head_put(struct head *head, struct write *write, int64_t version, const struct staged *staged,
              struct head_context *context) {
  struct head_state *now = &head->now;
  drop_gathered(&head->gathered);
  write->created = now->memory == NULL;
  write->version = version;
  if (context->store && now->memory &&
      !stored(context, store_drop_memory(context->store, now->place.id, now->version)))
    return;
  head->touched = true;
  write->memory->version = version;
  if (now->kept != head->published.kept) kept_free(now->kept);
  memory_free(now->kept_of);
  memory_free(now->memory);
  *now = (struct head_state){
      .memory = memory_ref(write->memory), .version = version, .place = staged->place};
  write->after = memory_ref(write->memory);
  if (context->store) put_base(head, staged->kept, context);
}

void head_delete(struct head *head, struct head_context *context) {
  struct head_state *now = &head->now;
  drop_gathered(&head->gathered);
  head->touched = true;
  if (context->store)
    stored(context, store_drop_memory(context->store, now->place.id, now->version));
  if (now->kept != head->published.kept) kept_free(now->kept);
  memory_free(now->kept_of);
  memory_free(now->memory);
  *now = (struct head_state){.version = now->version};
}

bool head_check(const struct head *head, struct write *write) {
  return check_allowed(head, write);
}

/* ---- Loading ---- */

static void state_swap(struct head_state *a, struct head_state *b) {
  const struct head_state kept = *a;
  *a = *b;
  *b = kept;
}

static bool is_append(const struct change *change) {
  return change->rows.added_count > 0 && !change->settles &&
         change->rows.removed_count + change->rows.replaced_count == 0;
}

attn_status head_replay(struct head *head, struct head_state *state, const struct change *change,
                        int64_t version) {
  attn_status status = ATTN_OK;
  state_swap(&head->now, state);
  if (change && is_append(change)) {
    const struct write rows = {.keys = change->rows.added_keys,
                               .values = change->rows.added_values,
                               .rows = change->rows.added_count,
                               .key_dim = key_dim_of(head),
                               .value_dim = value_dim_of(head),
                               .ids = change->added_ids};
    if (!gather(head, &rows, change->added_expiries)) status = ATTN_NO_MEMORY;
  } else if (!head_gather_in(head)) {
    status = ATTN_NO_MEMORY;
  } else if (change) {
    struct memory *after;
    status = change_apply(&after, head->now.memory, change, version);
    if (status == ATTN_OK) step_to(head, after);
  }
  head->now.version = version;
  state_swap(&head->now, state);
  return status;
}

void head_discard(struct head *head, struct head_state *state) {
  drop_gathered(&head->gathered);
  receipts_clear(&head->receipts);
  state_clear(state, &(struct head_state){.kept = NULL});
}
