/* Changing rows: a new snapshot from an old one and a list of changes.
 *
 * First the new blocks are planned, each as a run of base's blocks and how many
 * rows it will have; then those that differ from base's are built, from rows
 * copied to the bit and rows that are new. Appending is the edit that adds only.
 *
 * The plan looks at the row counts of base's blocks and at the rows that are
 * named, at nothing else, and follows four rules:
 *
 *  1. A block that loses all rows vanishes.
 *  2. Where rows were removed, neighbours are joined as long as they have half
 *     a block's capacity together at the most. So two neighbours always have
 *     more than that, there are at most about four times as many blocks as full
 *     ones would be, and a block that was joined is far from being split or
 *     joined again by the next change.
 *  3. Added rows fill the last block, then new ones. Nothing is joined on
 *     their account: added in two edits they come to lie where one would have
 *     put them.
 *  4. Replaced rows change no counts.
 *
 * Filling the gaps of blocks with rows of the next one was rejected: removing
 * one row would copy all rows behind it. Marking rows as removed was rejected:
 * every score, normalization and block's stats would have to know, and the RAM
 * stays. */
#include <stdlib.h>

#include "memory/snapshot.h"

/* ---- The plan ---- */

struct piece {
  size_t from, to; /* base's blocks */
  size_t rows;     /* that it will have, added ones included */
  bool changed;    /* or else it is base's block as it is */
};

struct plan {
  const attn_snapshot *base;
  const attn_edit *edit;
  struct attn_block_shape shape;
  size_t capacity;
  struct piece *pieces;
  size_t count;
};

/* How many of the ascending numbers from *next on are below the end; they are
 * passed. */
static size_t pass(const size_t *numbers, size_t count, size_t end, size_t *next) {
  const size_t first = *next;
  while (*next < count && numbers[*next] < end)
    ++*next;
  return *next - first;
}

static void plan_kept(struct plan *plan) {
  const attn_snapshot *base = plan->base;
  const attn_edit *edit = plan->edit;
  size_t removed_next = 0, replaced_next = 0;
  bool gap = false; /* between the last piece and the block */
  for (size_t b = 0; b < base->block_count; b++) {
    const size_t rows = base->blocks[b]->rows, end = base->firsts[b] + rows;
    const size_t removed = pass(edit->removed, edit->removed_count, end, &removed_next);
    const size_t replaced = pass(edit->replaced, edit->replaced_count, end, &replaced_next);
    gap |= removed > 0;
    if (removed == rows) continue;
    const size_t kept = rows - removed;
    struct piece *last = plan->count > 0 ? &plan->pieces[plan->count - 1] : NULL;
    if (gap && last && last->rows + kept <= plan->capacity / 2) {
      last->to = b + 1;
      last->rows += kept;
      last->changed = true;
    } else {
      plan->pieces[plan->count++] = (struct piece){b, b + 1, kept, removed + replaced > 0};
      gap = removed > 0;
    }
  }
}

static void plan_added(struct plan *plan) {
  size_t left = plan->edit->added_count;
  while (left > 0) {
    struct piece *last = plan->count > 0 ? &plan->pieces[plan->count - 1] : NULL;
    if (!last || last->rows >= plan->capacity) {
      last = &plan->pieces[plan->count++];
      *last = (struct piece){plan->base->block_count, plan->base->block_count, 0, true};
    }
    const size_t room = plan->capacity - last->rows, taken = left < room ? left : room;
    last->rows += taken;
    last->changed = true;
    left -= taken;
  }
}

/* ---- Building ---- */

/* How far the edit's lists are used up, and the block that is being made. */
struct cursor {
  const struct plan *plan;
  size_t removed, replaced, added;
  struct attn_block *block;
  size_t filled;
};

static attn_status put(struct cursor *cursor, const float *keys, const float *values,
                       size_t count) {
  if (count == 0) return ATTN_OK;
  attn_status status = attn_block_put_keys(cursor->block, cursor->filled, keys, count);
  if (status == ATTN_OK)
    status = attn_block_put_values(cursor->block, cursor->filled, values, count);
  cursor->filled += count;
  return status;
}

/* Rows that stand in for base's rows from `row` on, as far as those follow one
 * upon the other. */
static size_t replacements(const struct cursor *cursor, size_t row, size_t end) {
  const attn_edit *edit = cursor->plan->edit;
  size_t count = 0;
  while (cursor->replaced + count < edit->replaced_count && row + count < end &&
         edit->replaced[cursor->replaced + count] == row + count)
    count++;
  return count;
}

static size_t next_of(const size_t *numbers, size_t count, size_t index, size_t end) {
  return index < count && numbers[index] < end ? numbers[index] : end;
}

/* What is left of one of base's blocks. */
static attn_status put_kept(struct cursor *cursor, size_t b) {
  const attn_snapshot *base = cursor->plan->base;
  const attn_edit *edit = cursor->plan->edit;
  const size_t first = base->firsts[b], end = first + base->blocks[b]->rows;
  attn_status status = ATTN_OK;
  for (size_t row = first; row < end && status == ATTN_OK;) {
    const size_t removed = next_of(edit->removed, edit->removed_count, cursor->removed, end);
    const size_t replaced = next_of(edit->replaced, edit->replaced_count, cursor->replaced, end);
    const size_t stop = removed < replaced ? removed : replaced;
    if (row < stop) {
      attn_block_copy(cursor->block, cursor->filled, base->blocks[b], row - first, stop - row);
      cursor->filled += stop - row;
      row = stop;
    } else if (row == removed) {
      cursor->removed++;
      row++;
    } else {
      const size_t count = replacements(cursor, row, end), r = cursor->replaced;
      status = put(cursor, edit->replaced_keys + r * base->key_dim,
                   edit->replaced_values + r * base->value_dim, count);
      cursor->replaced += count;
      row += count;
    }
  }
  return status;
}

static attn_status build(struct cursor *cursor, const struct piece *piece, attn_snapshot *edited) {
  const attn_snapshot *base = cursor->plan->base;
  const attn_edit *edit = cursor->plan->edit;
  cursor->block = attn_block_create(&cursor->plan->shape, piece->rows);
  cursor->filled = 0;
  if (!cursor->block) return ATTN_NO_MEMORY;
  attn_status status = ATTN_OK;
  for (size_t b = piece->from; b < piece->to && status == ATTN_OK; b++)
    status = put_kept(cursor, b);
  if (status == ATTN_OK) {
    const size_t added = piece->rows - cursor->filled, a = cursor->added;
    if (added > 0)
      status = put(cursor, edit->added_keys + a * base->key_dim,
                   edit->added_values + a * base->value_dim, added);
    cursor->added += added;
  }
  if (status == ATTN_OK) {
    attn_block_seal(cursor->block);
    attn_snapshot_take(edited, cursor->block);
  } else {
    attn_block_free(cursor->block);
  }
  return status;
}

static attn_status build_all(const struct plan *plan, attn_snapshot *edited) {
  struct cursor cursor = {.plan = plan};
  attn_status status = ATTN_OK;
  for (size_t p = 0; p < plan->count && status == ATTN_OK; p++) {
    const struct piece *piece = &plan->pieces[p];
    if (piece->changed) {
      /* rows of blocks that vanished before it */
      const size_t first = piece->from < plan->base->block_count ? plan->base->firsts[piece->from]
                                                                 : plan->base->rows;
      pass(plan->edit->removed, plan->edit->removed_count, first, &cursor.removed);
      status = build(&cursor, piece, edited);
    } else {
      attn_snapshot_take(edited, attn_block_ref(plan->base->blocks[piece->from]));
    }
  }
  return status;
}

/* ---- The edit ---- */

static bool ascends_below(const size_t *numbers, size_t count, size_t end) {
  for (size_t i = 0; i < count; i++)
    if (numbers[i] >= end || (i > 0 && numbers[i] <= numbers[i - 1])) return false;
  return true;
}

static bool disjoint(const attn_edit *edit) {
  size_t r = 0;
  for (size_t i = 0; i < edit->replaced_count; i++) {
    pass(edit->removed, edit->removed_count, edit->replaced[i], &r);
    if (r < edit->removed_count && edit->removed[r] == edit->replaced[i]) return false;
  }
  return true;
}

static bool is_sound(const attn_snapshot *base, const attn_edit *edit) {
  if (edit->removed_count > 0 && !edit->removed) return false;
  if (edit->replaced_count > 0 && !(edit->replaced && edit->replaced_keys && edit->replaced_values))
    return false;
  if (edit->added_count > 0 && !(edit->added_keys && edit->added_values)) return false;
  return ascends_below(edit->removed, edit->removed_count, base->rows) &&
         ascends_below(edit->replaced, edit->replaced_count, base->rows) && disjoint(edit);
}

attn_status attn_snapshot_edit(attn_snapshot **edited, const attn_snapshot *base,
                               const attn_edit *edit) {
  if (!edited || !base || !edit || !is_sound(base, edit)) return ATTN_BAD_ARGUMENT;
  if (!attn_snapshot_can_address(base, edit->added_count)) return ATTN_TOO_LARGE;
  struct plan plan = {.base = base, .edit = edit, .shape = attn_snapshot_shape(base)};
  plan.capacity = attn_block_capacity(&plan.shape);
  const size_t room = base->block_count + edit->added_count / plan.capacity + 1;
  attn_status status = ATTN_NO_MEMORY;
  attn_snapshot *made = NULL;
  plan.pieces = calloc(room, sizeof *plan.pieces);
  if (!plan.pieces) goto done;
  plan_kept(&plan);
  plan_added(&plan);
  made = attn_snapshot_like(base, plan.count);
  if (!made) goto done;
  status = build_all(&plan, made);
  if (status != ATTN_OK) goto done;
  *edited = made;
  made = NULL;
done:
  attn_snapshot_free(made);
  free(plan.pieces);
  return status;
}

attn_status attn_snapshot_append(attn_snapshot **grown, const attn_snapshot *base,
                                 const float *keys, const float *values, size_t rows) {
  const attn_edit edit = {.added_keys = keys, .added_values = values, .added_count = rows};
  return attn_snapshot_edit(grown, base, &edit);
}
