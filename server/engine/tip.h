/* What the writer knows of one memory: the version that is published, and the
 * one that the batch under way is coming to. */
#ifndef ENGINE_TIP_H
#define ENGINE_TIP_H

#include "engine/gathered.h"
#include "engine/kept.h"
#include "engine/writer.h"

/* One state of a memory, as far as writing it is concerned. */
struct tip_state {
  struct memory *memory; /* a reference; NULL: there is none */
  int64_t version;       /* memory's, or more: rows may still be gathered */
  size_t charged;        /* bytes of the budget that are its */
  struct kept_place place;
  struct kept *kept;      /* NULL: no store, or nothing is known to be there */
  struct memory *kept_of; /* a reference: the version whose parts `kept` numbers */
  size_t change_bytes;    /* of the changes since the base ... */
  int64_t base_version;   /* ... which is this version's */
  size_t receipt_count;
};

struct tip {
  char name[STORE_NAME_MAX + 1];
  struct tip_state published, now;
  struct gathered gathered;
  struct receipts receipts;
  size_t reserved; /* taken from the budget in this batch */
  bool touched;    /* `now` differs from `published` */

  struct tip *next;                         /* tips.c: in the chain of the table */
  size_t heap_place;                        /* tips.c: 0 is none */
  bool in_batch, folds;                     /* the writer's: is in a list of its ... */
  struct tip *next_in_batch, *next_to_fold; /* ... and what follows there */
};

/* What applying a write needs besides the memory. */
struct tip_context {
  struct store *store; /* with a transaction under way; or NULL */
  struct budget *budget;
  size_t max_rows;
  int64_t wall_ms;
  enum store_status status; /* not STORE_OK: the batch is lost */
};

/* A memory on its way into the store ahead of its base. */
struct staged {
  struct kept_place place;
  struct kept *kept; /* of the memory; NULL: nothing is there yet */
};

struct tip *tip_create(const char *name);
void tip_free(struct tip *tip);

/* Each applies the write to tip->now and, where there is a store, puts what has
 * to be kept; a write that can't be is failed and changes nothing. */
void tip_put(struct tip *tip, struct write *write, int64_t version, const struct staged *staged,
             struct tip_context *context);
void tip_delete(struct tip *tip, struct tip_context *context);
void tip_rows(struct tip *tip, struct write *write, struct tip_context *context);
void tip_remove(struct tip *tip, struct write *write, struct tip_context *context);
void tip_settle(struct tip *tip, struct write *write, struct tip_context *context);
void tip_expire(struct tip *tip, struct tip_context *context);

/* Whether the write's precondition holds; it is failed where not. */
bool tip_check(const struct tip *tip, struct write *write);

/* Rows that the change appends to now.memory, and it does nothing else; and puts
 * them there. False: no memory. */
bool tip_gather(struct tip *tip, const struct change *change);
bool tip_gather_in(struct tip *tip);

/* The end of a batch: `now` is what is published, or is forgotten. */
void tip_commit(struct tip *tip, struct budget *budget);
void tip_forget(struct tip *tip, struct budget *budget);

/* A fold of what was version `version` is durable: `kept` numbers its parts, and
 * so many bytes of changes have gone. */
void tip_folded(struct tip *tip, const struct kept *kept, int64_t version, size_t change_bytes);

/* A loader's next change (or, NULL, the end of them) on top of a state that is
 * not the tip's yet; appends are gathered as in a batch. */
attn_status tip_replay(struct tip *tip, struct tip_state *state, const struct change *change,
                       int64_t version);
void tip_discard(struct tip *tip, struct tip_state *state);

/* The memory that a loader has read, as the published state. */
void tip_adopt(struct tip *tip, const struct tip_state *state, struct budget *budget);

#endif
