/* A disk that is full or not, below a writer at work. */
#ifndef WRITER_DISK_H
#define WRITER_DISK_H

#include "store_vfs.h"
#include "writer_model.h"

/* On the layer that was installed as "faulty". */
static inline struct store *open_on_layer(const char *directory,
                                          const struct store_options *options) {
  struct store_options layered = *options;
  layered.vfs = "faulty";
  char error[512] = "";
  struct store *store = store_open_with(directory, &layered, error, sizeof error);
  ck_assert_msg(store != NULL, "%s", error);
  return store;
}

/* The layer belongs to the writer's thread, which may be busy with chores: so it
 * is set there, by a write that comes to nothing. */
struct disk_change {
  struct write write; /* first */
  struct layer *layer;
  long at; /* 0: no fault */
  bool for_ever, hit;
  sem_t done;
};

static inline void change_disk(struct write *write) {
  struct disk_change *change = (struct disk_change *)(void *)write;
  struct layer *layer = change->layer;
  change->hit = layer->hit;
  layer->fault = change->at > 0 ? FAULT_FULL : FAULT_NONE;
  layer->fault_at = change->at;
  layer->for_ever = change->for_ever;
  layer->hit = false;
  sem_post(&change->done);
}

/* Whether the fault before was met. */
static inline bool fill_disk(struct world *world, struct layer *layer, long at, bool for_ever) {
  struct disk_change change = {
      .write = {.kind = WRITE_DELETE, .name = "there-is-none", .done = change_disk},
      .layer = layer,
      .at = at,
      .for_ever = for_ever};
  sem_init(&change.done, 0, 0);
  ck_assert(writer_submit(world->writer, &change.write));
  while (sem_wait(&change.done) != 0) {
  }
  sem_destroy(&change.done);
  return change.hit;
}

#endif
