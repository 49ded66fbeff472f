/* One memory in the writer's hands.
 *
 * A batch of writes is applied to `now`, record by record into the transaction
 * under way; when that is durable `now` becomes `published`, otherwise it is
 * forgotten and nothing has happened. Both states hold references, so there is
 * nothing to undo by hand.
 *
 * Appended rows are gathered (gathered.c), and put into the memory once: before
 * anything else is done to it, and at the end of the batch. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "engine/tip_private.h"

enum { LARGE_CHANGE = 4 << 20 };

struct tip *tip_create(const char *name) {
  struct tip *tip = calloc(1, sizeof *tip);
  if (!tip) return NULL;
  strncpy(tip->name, name, sizeof tip->name - 1);
  return tip;
}

static void state_clear(struct tip_state *state, const struct tip_state *except) {
  if (state->kept != except->kept) kept_free(state->kept);
  memory_free(state->memory);
  memory_free(state->kept_of);
  *state = (struct tip_state){.memory = NULL};
}

/* `now` knows of nothing that is stored. */
static void drop_kept(struct tip *tip) {
  if (tip->now.kept != tip->published.kept) kept_free(tip->now.kept);
  tip->now.kept = NULL;
  memory_free(tip->now.kept_of);
  tip->now.kept_of = NULL;
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
  gathered_clear(&tip->gathered);
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

void tip_commit(struct tip *tip, struct budget *budget) {
  struct tip_state *now = &tip->now;
  if (now->kept) kept_settle(now->kept);
  now->charged = now->memory ? memory_bytes(now->memory) : 0;
  if (now->memory) {
    follow(now, tip->published.kept);
  } else {
    drop_kept(tip);
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
  gathered_clear(&tip->gathered);
  receipts_restore(&tip->receipts, tip->published.receipt_count);
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

bool tip_refuse(struct write *write, enum problem_code code, const char *pointer,
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

bool tip_short_of_memory(struct tip_context *context) {
  context->status = STORE_NO_MEMORY;
  return false;
}

bool tip_check(const struct tip *tip, struct write *write) {
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

bool tip_check_sound(const struct tip *tip, struct write *write) {
  if (!tip->now.memory->damaged) return true;
  write->failed = true;
  return problem_set(&write->problem, PROBLEM_MEMORY_DAMAGED, "",
                     "%s; replace or delete the memory, or restore a backup",
                     tip->now.memory->damaged);
}

size_t tip_key_dim(const struct tip *tip) {
  return attn_snapshot_key_dim(tip->now.memory->snapshot);
}
size_t tip_value_dim(const struct tip *tip) {
  return attn_snapshot_value_dim(tip->now.memory->snapshot);
}
size_t tip_row_count(const struct tip *tip) {
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
  if (!kept) return tip_short_of_memory(context);
  drop_kept(tip);
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

bool tip_put_change(struct tip *tip, const struct change *change, struct tip_context *context) {
  tip->touched = true;
  if (!context->store) return true;
  struct buffer bytes;
  buffer_init(&bytes, 0);
  change_encode(change, tip_key_dim(tip), tip_value_dim(tip), &bytes);
  const enum store_status status =
      bytes.status == BUFFER_OK ? store_put_change(context->store, tip->now.place.id,
                                                   tip->now.version, bytes.data, bytes.length)
                                : STORE_NO_MEMORY;
  tip->now.change_bytes += bytes.length;
  buffer_free(&bytes);
  return stored(context, status);
}

bool tip_is_large(const struct tip *tip, const struct change *change) {
  return (change->rows.added_count + change->rows.replaced_count) *
             (tip_key_dim(tip) + tip_value_dim(tip)) * sizeof(float) >
         LARGE_CHANGE;
}

bool tip_gather(struct tip *tip, const struct change *change) {
  const struct gathered_rows rows = {.keys = change->rows.added_keys,
                                     .values = change->rows.added_values,
                                     .rows = change->rows.added_count,
                                     .key_dim = tip_key_dim(tip),
                                     .value_dim = tip_value_dim(tip),
                                     .ids = change->added_ids,
                                     .expiries = change->added_expiries};
  if (!gathered_fits(&tip->gathered, rows.ids != NULL) && !tip_gather_in(tip)) return false;
  return gathered_add(&tip->gathered, &rows);
}

bool tip_gather_in(struct tip *tip) {
  struct gathered *gathered = &tip->gathered;
  if (gathered->rows == 0) return true;
  struct memory *after = NULL;
  const struct change change = gathered_change(gathered);
  const bool applied = change_apply(&after, tip->now.memory, &change, tip->now.version) == ATTN_OK;
  gathered_clear(gathered);
  if (applied) step_to(tip, after);
  return applied;
}

bool tip_make_change(struct tip *tip, const struct change *change, struct tip_context *context) {
  struct memory *after;
  if (!tip_gather_in(tip)) return tip_short_of_memory(context);
  if (change_apply(&after, tip->now.memory, change, tip->now.version + 1) != ATTN_OK)
    return tip_short_of_memory(context);
  tip->now.version++;
  if (context->store && tip_is_large(tip, change)) {
    step_to(tip, after);
    tip->touched = true;
    return put_base(tip, tip->now.kept, context);
  }
  const bool put = tip_put_change(tip, change, context);
  step_to(tip, after);
  return put;
}

/* ---- The memory as a whole ---- */

void tip_settle(struct tip *tip, struct write *write, struct tip_context *context) {
  if (!tip_check_sound(tip, write) || !tip_check(tip, write)) return;
  if (write->score && attn_score_query_dim(write->score, tip_key_dim(tip)) == 0) {
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
    tip_short_of_memory(context);
    return;
  }
  if (changes && !tip_make_change(tip, &change, context)) return;
  write->version = tip->now.version;
  write->after = memory_ref(tip->now.memory);
}

void tip_put(struct tip *tip, struct write *write, int64_t version, const struct staged *staged,
             struct tip_context *context) {
  struct tip_state *now = &tip->now;
  gathered_clear(&tip->gathered);
  write->created = now->memory == NULL;
  write->version = version;
  if (context->store && now->memory &&
      !stored(context, store_drop_memory(context->store, now->place.id, 0)))
    return; /* no floor: the name's versions go on from there */
  tip->touched = true;
  write->memory->version = version;
  drop_kept(tip);
  memory_free(now->memory);
  *now = (struct tip_state){
      .memory = memory_ref(write->memory), .version = version, .place = staged->place};
  write->after = memory_ref(write->memory);
  if (context->store) put_base(tip, staged->kept, context);
}

void tip_delete(struct tip *tip, struct tip_context *context) {
  struct tip_state *now = &tip->now;
  gathered_clear(&tip->gathered);
  receipts_end(&tip->receipts);
  tip->touched = true;
  if (context->store)
    stored(context, store_drop_memory(context->store, now->place.id, now->version));
  drop_kept(tip);
  memory_free(now->memory);
  *now = (struct tip_state){.version = now->version};
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
    if (!tip_gather(tip, change)) status = ATTN_NO_MEMORY;
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
  gathered_clear(&tip->gathered);
  receipts_clear(&tip->receipts);
  state_clear(state, &(struct tip_state){.kept = NULL});
}
