/* A change of a memory: from one version to the next, in RAM, and as bytes, so
 * that replaying it gives the same version again, bit for bit. */
#ifndef ENGINE_CHANGE_H
#define ENGINE_CHANGE_H

#include "base/bytes.h"
#include "engine/memory.h"

/* Of an append that named a key: so that the same one again is recognised. */
struct append_receipt {
  char *key;            /* NULL: none was given */
  uint64_t fingerprint; /* of what was appended */
  int64_t version;      /* what the first one was answered */
  uint64_t rows, inserted, updated;
};

/* All that can be different from the version before. Row numbers are that
 * version's. What the pointers name is the maker's, or, where change_decode()
 * made it, change_clear()'s to free. */
struct change {
  attn_edit rows;
  struct id_list *added_ids;                         /* NULL, or one for each row added */
  const int64_t *added_expiries, *replaced_expiries; /* NULL: never */
  bool settles; /* the following three are in force from here on */
  attn_score *score;
  attn_normalization *normalization;
  int64_t ttl_ms;
  struct append_receipt receipt;
};

/* The version after, numbered `version`; `before` stays as it is. */
attn_status change_apply(struct memory **after, const struct memory *before,
                         const struct change *change, int64_t version);

void change_encode(const struct change *change, size_t key_dim, size_t value_dim,
                   struct buffer *out);

/* ATTN_NO_MEMORY; ATTN_BAD_ARGUMENT where the bytes are no change of a memory of
 * that shape; nothing has to be freed then. Checks what can be checked without
 * the memory: row numbers are left to change_apply(). */
attn_status change_decode(struct change *change, size_t key_dim, size_t value_dim, const void *data,
                          size_t size);
void change_clear(struct change *change);

/* ---- Parts that other records have as well ---- */

/* Of what a reader has come to. */
attn_status read_status(bool read, const struct byte_reader *reader);

void settings_encode(const attn_score *score, const attn_normalization *normalization,
                     int64_t ttl_ms, size_t key_dim, struct buffer *out);
bool settings_decode(struct byte_reader *reader, attn_score **score,
                     attn_normalization **normalization, int64_t *ttl_ms);
void receipt_encode(const struct append_receipt *receipt, struct buffer *out);
bool receipt_decode(struct byte_reader *reader, struct append_receipt *receipt);

#endif
