/* Two file systems that go wrong, for the store's suites, each a layer over
 * SQLite's usual one.
 *
 *  - Faults: operation number n of a kind fails, once or from then on, or kills
 *    the process. Its operations are the ones that change a file: write, sync,
 *    truncate, delete.
 *  - Loss of power: what was written and not synced is remembered, and at any
 *    moment a picture can be taken of what a disk might have then: everything
 *    synced, and of the rest some, in any order, the writes torn into sectors.
 *
 * One layer of each at a time, in one thread. */
#ifndef TESTS_UNIT_SERVER_STORE_VFS_H
#define TESTS_UNIT_SERVER_STORE_VFS_H

#include <signal.h>

#include "store_model.h"

enum { SECTOR = 512, DISK_FILES = 8, NAME_MAX_LENGTH = 40 };

enum fault { FAULT_NONE, FAULT_IO, FAULT_FULL, FAULT_KILL };

struct pending {
  int64_t offset;
  unsigned char *bytes; /* NULL: a truncation to `offset` */
  size_t size;
};

/* A file as the disk has it. */
struct disk_file {
  char name[NAME_MAX_LENGTH];
  bool gone;    /* deleted, and the folder not synced since */
  bool certain; /* its name is durable */
  unsigned char *durable;
  size_t size;
  struct pending *pending;
  size_t pending_count, pending_capacity;
};

struct layer {
  sqlite3_vfs vfs;
  sqlite3_vfs *below;
  /* faults */
  enum fault fault;
  long fault_at; /* counts down; the operation that makes it 0 fails */
  bool for_ever;
  bool sync_only, write_only;
  long operations; /* so far */
  bool hit;
  /* loss of power */
  bool records;
  struct disk_file files[DISK_FILES];
  size_t file_count;
  void (*moment)(void *context); /* after each operation */
  void *context;
};

struct layered_file {
  sqlite3_file base;
  struct layer *layer;
  struct disk_file *disk;
  sqlite3_file *below;
};

static inline struct layered_file *layered(sqlite3_file *file) {
  return (struct layered_file *)(void *)file;
}

static inline sqlite3_file *below(sqlite3_file *file) {
  return layered(file)->below;
}

enum operation { OPERATION_WRITE, OPERATION_SYNC, OPERATION_OTHER };

/* What the operation has to return instead of being done; SQLITE_OK: it's done. */
static inline int layer_fault(struct layer *layer, enum operation operation, int io_error) {
  layer->operations++;
  if (layer->fault == FAULT_NONE) return SQLITE_OK;
  /* only a write can find the disk full */
  if (layer->fault == FAULT_FULL && operation != OPERATION_WRITE) return SQLITE_OK;
  bool now = layer->fault_at > 0 && --layer->fault_at == 0;
  if (!now && !(layer->hit && layer->for_ever)) return SQLITE_OK;
  layer->hit = true;
  if (layer->fault == FAULT_KILL) raise(SIGKILL);
  return layer->fault == FAULT_FULL ? SQLITE_FULL : io_error;
}

/* ---- What the disk has ---- */

static inline void disk_add(struct disk_file *disk, const void *bytes, size_t size,
                            int64_t offset) {
  if (disk->pending_count == disk->pending_capacity) {
    disk->pending_capacity = disk->pending_capacity ? disk->pending_capacity * 2 : 64;
    disk->pending = realloc(disk->pending, disk->pending_capacity * sizeof *disk->pending);
    REQUIRE(disk->pending != NULL);
  }
  struct pending *pending = &disk->pending[disk->pending_count++];
  *pending = (struct pending){offset, NULL, size};
  if (!bytes) return;
  pending->bytes = malloc(size + 1);
  REQUIRE(pending->bytes != NULL);
  memcpy(pending->bytes, bytes, size);
}

struct image {
  unsigned char *bytes;
  size_t size;
};

static inline void image_resize(struct image *image, size_t size) {
  image->bytes = realloc(image->bytes, size + 1);
  REQUIRE(image->bytes != NULL);
  if (size > image->size) memset(image->bytes + image->size, 0, size - image->size);
  image->size = size;
}

static inline void image_write(struct image *image, const struct pending *pending, size_t from,
                               size_t to) {
  if (from >= to) return;
  const size_t end = (size_t)pending->offset + to;
  if (end > image->size) image_resize(image, end);
  memcpy(image->bytes + pending->offset + from, pending->bytes + from, to - from);
}

static inline void image_apply(struct image *image, const struct pending *pending) {
  if (pending->bytes)
    image_write(image, pending, 0, pending->size);
  else
    image_resize(image, (size_t)pending->offset);
}

static inline void disk_forget(struct disk_file *disk) {
  for (size_t i = 0; i < disk->pending_count; i++)
    free(disk->pending[i].bytes);
  disk->pending_count = 0;
}

static inline void disk_sync(struct disk_file *disk) {
  struct image image = {disk->durable, disk->size};
  for (size_t i = 0; i < disk->pending_count; i++)
    image_apply(&image, &disk->pending[i]);
  disk_forget(disk);
  disk->durable = image.bytes;
  disk->size = image.size;
  disk->certain = true;
}

/* Some of the sectors of a write, each one whole. */
static inline void apply_torn(struct image *image, const struct pending *pending, uint64_t *state) {
  for (size_t from = 0; from < pending->size;) {
    size_t to = from + SECTOR - (size_t)(pending->offset + (int64_t)from) % SECTOR;
    if (to > pending->size) to = pending->size;
    if (next_random(state) % 2) image_write(image, pending, from, to);
    from = to;
  }
}

/* What might be left of the file. */
static inline struct image disk_image(const struct disk_file *disk, uint64_t *state) {
  struct image image = {NULL, 0};
  image_resize(&image, disk->size);
  if (disk->size > 0) memcpy(image.bytes, disk->durable, disk->size);
  const size_t count = disk->pending_count;
  size_t *order = malloc((count + 1) * sizeof *order);
  REQUIRE(order != NULL);
  for (size_t i = 0; i < count; i++)
    order[i] = i;
  const bool reordered = next_random(state) % 4 != 0;
  for (size_t i = count; reordered && i > 1; i--) {
    size_t j = next_random(state) % i, other = order[j];
    order[j] = order[i - 1];
    order[i - 1] = other;
  }
  /* none, all, some of them or all up to a moment */
  const uint64_t kept = next_random(state) % 5, upto = count ? next_random(state) % (count + 1) : 0;
  for (size_t i = 0; i < count; i++) {
    const struct pending *pending = &disk->pending[order[i]];
    if (kept == 0 || (kept == 1 && next_random(state) % 2) || (kept == 2 && i >= upto)) continue;
    if (pending->bytes && next_random(state) % 8 == 0)
      apply_torn(&image, pending, state);
    else
      image_apply(&image, pending);
  }
  free(order);
  return image;
}

/* What might be found in the folder after a loss of power now. */
static inline void layer_snapshot(const struct layer *layer, const char *to, uint64_t *state) {
  empty_folder(to);
  for (size_t i = 0; i < layer->file_count; i++) {
    const struct disk_file *disk = &layer->files[i];
    if (disk->name[0] == '\0') continue;
    if ((disk->gone || !disk->certain) && next_random(state) % 2) continue;
    struct image image = disk_image(disk, state);
    char path[600];
    snprintf(path, sizeof path, "%s/%s", to, disk->name);
    write_whole(path, image.bytes, image.size);
    free(image.bytes);
  }
}

static inline void disk_clear(struct disk_file *disk) {
  disk_forget(disk);
  free(disk->pending);
  free(disk->durable);
  memset(disk, 0, sizeof *disk);
}

static inline const char *file_name(const char *path) {
  const char *slash = strrchr(path, '/');
  return slash ? slash + 1 : path;
}

static inline struct disk_file *disk_find(struct layer *layer, const char *path) {
  for (size_t i = 0; i < layer->file_count; i++)
    if (strcmp(layer->files[i].name, file_name(path)) == 0) return &layer->files[i];
  return NULL;
}

/* The place of one that was cleared, or a new one. */
static inline struct disk_file *disk_place(struct layer *layer) {
  for (size_t i = 0; i < layer->file_count; i++)
    if (layer->files[i].name[0] == '\0') return &layer->files[i];
  REQUIRE(layer->file_count < DISK_FILES);
  return &layer->files[layer->file_count++];
}

/* The file that was opened; one that was deleted before is another. */
static inline struct disk_file *disk_open(struct layer *layer, const char *path, bool durable) {
  struct disk_file *disk = disk_find(layer, path);
  if (disk && !disk->gone) return disk;
  if (disk) disk_clear(disk);
  if (!disk) disk = disk_place(layer);
  memset(disk, 0, sizeof *disk);
  snprintf(disk->name, sizeof disk->name, "%s", file_name(path));
  disk->durable = read_whole(path, &disk->size);
  disk->certain = durable;
  return disk;
}

/* The first sync of a new journal or log syncs the folder too, and with it
 * whatever was deleted before. */
static inline void folder_synced(struct layer *layer) {
  for (size_t i = 0; i < layer->file_count; i++)
    if (layer->files[i].gone) disk_clear(&layer->files[i]);
}

/* ---- SQLite's methods ---- */

static inline void moment(struct layer *layer) {
  if (layer->moment) layer->moment(layer->context);
}

static int layer_close(sqlite3_file *file) {
  return below(file)->pMethods->xClose(below(file));
}

static int layer_read(sqlite3_file *file, void *bytes, int size, sqlite3_int64 offset) {
  return below(file)->pMethods->xRead(below(file), bytes, size, offset);
}

static int layer_write(sqlite3_file *file, const void *bytes, int size, sqlite3_int64 offset) {
  struct layered_file *self = layered(file);
  int result = layer_fault(self->layer, OPERATION_WRITE, SQLITE_IOERR_WRITE);
  if (result != SQLITE_OK) {
    /* a write that fails may have done a part */
    if (size > 1) below(file)->pMethods->xWrite(below(file), bytes, size / 2, offset);
    return result;
  }
  result = below(file)->pMethods->xWrite(below(file), bytes, size, offset);
  if (self->disk) disk_add(self->disk, bytes, (size_t)size, offset);
  moment(self->layer);
  return result;
}

static int layer_truncate(sqlite3_file *file, sqlite3_int64 size) {
  struct layered_file *self = layered(file);
  int result = layer_fault(self->layer, OPERATION_OTHER, SQLITE_IOERR_TRUNCATE);
  if (result != SQLITE_OK) return result;
  result = below(file)->pMethods->xTruncate(below(file), size);
  if (self->disk) disk_add(self->disk, NULL, 0, size);
  moment(self->layer);
  return result;
}

static int layer_sync(sqlite3_file *file, int flags) {
  struct layered_file *self = layered(file);
  moment(self->layer);
  int result = layer_fault(self->layer, OPERATION_SYNC, SQLITE_IOERR_FSYNC);
  if (result != SQLITE_OK) return result;
  result = below(file)->pMethods->xSync(below(file), flags);
  if (self->disk && !self->disk->certain) folder_synced(self->layer);
  if (self->disk) disk_sync(self->disk);
  moment(self->layer);
  return result;
}

static int layer_size(sqlite3_file *file, sqlite3_int64 *size) {
  return below(file)->pMethods->xFileSize(below(file), size);
}

static int layer_lock(sqlite3_file *file, int level) {
  return below(file)->pMethods->xLock(below(file), level);
}

static int layer_unlock(sqlite3_file *file, int level) {
  return below(file)->pMethods->xUnlock(below(file), level);
}

static int layer_reserved(sqlite3_file *file, int *reserved) {
  return below(file)->pMethods->xCheckReservedLock(below(file), reserved);
}

/* Nothing may go past the layer. */
static int layer_control(sqlite3_file *file, int operation, void *argument) {
  if (operation == SQLITE_FCNTL_SIZE_HINT || operation == SQLITE_FCNTL_CHUNK_SIZE)
    return SQLITE_NOTFOUND;
  return below(file)->pMethods->xFileControl(below(file), operation, argument);
}

static int layer_sector(sqlite3_file *file) {
  (void)file;
  return SECTOR;
}

static int layer_character(sqlite3_file *file) {
  return below(file)->pMethods->xDeviceCharacteristics(below(file));
}

/* Without shared memory and mapping: the store uses neither. */
static const sqlite3_io_methods layer_methods = {
    .iVersion = 1,
    .xClose = layer_close,
    .xRead = layer_read,
    .xWrite = layer_write,
    .xTruncate = layer_truncate,
    .xSync = layer_sync,
    .xFileSize = layer_size,
    .xLock = layer_lock,
    .xUnlock = layer_unlock,
    .xCheckReservedLock = layer_reserved,
    .xFileControl = layer_control,
    .xSectorSize = layer_sector,
    .xDeviceCharacteristics = layer_character,
};

static int layer_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags,
                      int *out_flags) {
  struct layer *layer = vfs->pAppData;
  struct layered_file *self = layered(file);
  memset(self, 0, sizeof *self);
  self->layer = layer;
  self->below = (sqlite3_file *)(void *)(self + 1);
  int result = layer->below->xOpen(layer->below, name, self->below, flags, out_flags);
  if (self->below->pMethods) self->base.pMethods = &layer_methods;
  if (result == SQLITE_OK && layer->records && name)
    self->disk = disk_open(layer, name, (flags & SQLITE_OPEN_MAIN_DB) != 0);
  return result;
}

static int layer_delete(sqlite3_vfs *vfs, const char *name, int sync_folder) {
  struct layer *layer = vfs->pAppData;
  int result = layer_fault(layer, OPERATION_OTHER, SQLITE_IOERR_DELETE);
  if (result != SQLITE_OK) return result;
  result = layer->below->xDelete(layer->below, name, sync_folder);
  struct disk_file *disk = layer->records ? disk_find(layer, name) : NULL;
  if (disk && sync_folder)
    disk_clear(disk);
  else if (disk)
    disk->gone = true;
  moment(layer);
  return result;
}

static int layer_access(sqlite3_vfs *vfs, const char *name, int flags, int *result) {
  struct layer *layer = vfs->pAppData;
  return layer->below->xAccess(layer->below, name, flags, result);
}

static int layer_path(sqlite3_vfs *vfs, const char *name, int size, char *out) {
  struct layer *layer = vfs->pAppData;
  return layer->below->xFullPathname(layer->below, name, size, out);
}

static inline void layer_install(struct layer *layer, const char *name) {
  sqlite3_vfs *usual = sqlite3_vfs_find(NULL);
  memset(layer, 0, sizeof *layer);
  layer->below = usual;
  layer->vfs = *usual;
  layer->vfs.iVersion = 2;
  layer->vfs.pNext = NULL;
  layer->vfs.zName = name;
  layer->vfs.pAppData = layer;
  layer->vfs.szOsFile = (int)sizeof(struct layered_file) + usual->szOsFile;
  layer->vfs.xOpen = layer_open;
  layer->vfs.xDelete = layer_delete;
  layer->vfs.xAccess = layer_access;
  layer->vfs.xFullPathname = layer_path;
  REQUIRE(sqlite3_vfs_register(&layer->vfs, 0) == SQLITE_OK);
}

static inline void layer_remove(struct layer *layer) {
  sqlite3_vfs_unregister(&layer->vfs);
  for (size_t i = 0; i < layer->file_count; i++)
    disk_clear(&layer->files[i]);
}

#endif
