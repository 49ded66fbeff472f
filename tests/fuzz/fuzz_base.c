/* Any bytes as the record of a base. What is taken has a shape that there is, a
 * score that goes with it, chunks with numbers, and receipts with keys that can be
 * looked up. */
#include "engine/kept.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct kept_base base;
  const attn_status status = kept_base_decode(&base, data, size);
  REQUIRE(status == ATTN_OK || status == ATTN_BAD_ARGUMENT);
  if (status != ATTN_OK) return 0;
  const size_t key_dim = attn_snapshot_key_dim(base.empty);
  REQUIRE(key_dim >= 1 && key_dim <= ATTN_MAX_DIM);
  REQUIRE(attn_snapshot_rows(base.empty) == 0);
  REQUIRE(attn_score_query_dim(base.score, key_dim) > 0);
  REQUIRE(base.normalization != NULL && base.ttl_ms >= 0);
  REQUIRE(base.blocks <= base.count && base.count <= size / sizeof(int64_t));
  for (size_t i = 0; i < base.count; i++)
    REQUIRE(base.chunks[i] > 0);
  for (size_t i = 0; i < base.receipts.count; i++)
    REQUIRE(receipts_find(&base.receipts, base.receipts.items[i].key) != NULL);
  kept_base_clear(&base);
  return 0;
}
