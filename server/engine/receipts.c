/* A list, gone through from its end: a retry comes soon, and 1,024 short
 * comparisons are a few microseconds next to a write to the disk. */
#include "engine/receipts.h"

#include <stdlib.h>
#include <string.h>

const struct append_receipt *receipts_find(const struct receipts *receipts, const char *key) {
  for (size_t i = receipts->count; i > receipts->ended; i--)
    if (strcmp(receipts->items[i - 1].key, key) == 0) return &receipts->items[i - 1];
  return NULL;
}

bool receipts_add(struct receipts *receipts, const struct append_receipt *receipt) {
  if (receipts->count == receipts->room) {
    const size_t room = receipts->room > 0 ? 2 * receipts->room : 16;
    struct append_receipt *items = realloc(receipts->items, room * sizeof *items);
    if (!items) return false;
    receipts->items = items;
    receipts->room = room;
  }
  struct append_receipt copy = *receipt;
  copy.key = strdup(receipt->key);
  if (!copy.key) return false;
  receipts->items[receipts->count++] = copy;
  return true;
}

void receipts_end(struct receipts *receipts) {
  receipts->ended = receipts->count;
}

void receipts_restore(struct receipts *receipts, size_t count) {
  while (receipts->count > count)
    free(receipts->items[--receipts->count].key);
  receipts->ended = 0;
}

void receipts_trim(struct receipts *receipts) {
  size_t old = receipts->ended;
  if (receipts->count - old > RECEIPTS_KEPT) old = receipts->count - RECEIPTS_KEPT;
  receipts->ended = 0;
  if (old == 0) return;
  for (size_t i = 0; i < old; i++)
    free(receipts->items[i].key);
  receipts->count -= old;
  memmove(receipts->items, receipts->items + old, receipts->count * sizeof *receipts->items);
}

void receipts_clear(struct receipts *receipts) {
  receipts_restore(receipts, 0);
  free(receipts->items);
  *receipts = (struct receipts){.count = 0};
}
