/* libattention: attention pooling over a key-value memory.
 *
 * A *memory* holds m pairs (k_i in R^dk, v_i in R^dv). A *query* q in R^dq
 * meets every key through a *score* a(q, k_i); a *normalization* turns the m
 * scores into weights b_i; the answer is the *output* o = sum_i b_i v_i,
 * together with the weights, so that a caller sees why.
 *
 * How the pieces fit, in the order in which a program meets them:
 *
 *     attn_init();                                  once, before any thread
 *     attn_snapshot_create(&empty, 64, 10);         an empty memory
 *     attn_snapshot_append(&memory, empty, keys, values, rows);
 *     attn_score_create(&score, "gaussian", args, 1, &fault);
 *     attn_normalization_create(&norm, "sum", NULL, 0, &fault);
 *     attn_result_for(memory, &request);            room for the answer
 *     attn_attend(memory, &request, &result, NULL); outputs and weights
 *
 * Rules that hold for the whole library:
 *
 *  - It computes, and does nothing else: no files, no sockets, no threads of
 *    its own, no global state but what attn_init() and attn_reserve_blas() set.
 *  - Matrices are float32, row-major and dense: row r of an n x d matrix
 *    starts at data + r*d. The library copies what it keeps.
 *  - Snapshots, scores and normalizations are immutable and reference-counted:
 *    any number of threads may use one at the same time. `_ref` adds a
 *    reference, `_free` drops one and accepts NULL.
 *  - Every function that can fail returns an attn_status and then leaves its
 *    out-parameters untouched.
 *  - Accuracy, against the same formulas in float64 over the same float32
 *    inputs, for scores within +-60: |output - ref| <= 1e-5 max|v| + 1e-6 and
 *    |weight - ref| <= 1e-5. Wherever float32 arithmetic can't promise that
 *    (see lib/attend/attend.c), float64 is used instead.
 */
#ifndef ATTENTION_H
#define ATTENTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define ATTN_VERSION_STRING "0.1.0"

#if defined(__GNUC__)
#define ATTN_PUBLIC __attribute__((visibility("default")))
#else
#define ATTN_PUBLIC
#endif

/* The version of the library that runs, as opposed to that of the header. */
ATTN_PUBLIC const char *attn_version(void);

/* ---- Status -------------------------------------------------------------
 * One list: the enum, its texts and (in the server) the HTTP status of each
 * come from it. */
#define ATTN_STATUS_LIST(X)                                                                        \
  X(ATTN_OK, "ok")                                                                                 \
  X(ATTN_NO_MEMORY, "out of memory")                                                               \
  X(ATTN_BAD_ARGUMENT, "an argument breaks the documented rules")                                  \
  X(ATTN_UNKNOWN_NAME, "no score, normalization or parameter has that name")                       \
  X(ATTN_BAD_PARAMETER, "a parameter is missing, out of its range or of the wrong shape")          \
  X(ATTN_BAD_SHAPE, "shapes do not agree")                                                         \
  X(ATTN_EMPTY_MEMORY, "the memory has no rows")                                                   \
  X(ATTN_TOO_LARGE, "a size is beyond what can be addressed")                                      \
  X(ATTN_NOT_FINITE, "a number is not finite")                                                     \
  X(ATTN_OUT_OF_RANGE, "a number is beyond the range of the memory's dtype")                       \
  X(ATTN_NOT_REPRESENTABLE, "a result is beyond the range of float32")                             \
  X(ATTN_CANCELLED, "the computation was cancelled")

typedef enum attn_status {
#define ATTN_STATUS_ENUM(name, text) name,
  ATTN_STATUS_LIST(ATTN_STATUS_ENUM)
#undef ATTN_STATUS_ENUM
      ATTN_STATUS_COUNT
} attn_status;

/* A short English text; never NULL, also for a value outside the list. */
ATTN_PUBLIC const char *attn_status_text(attn_status status);

/* Where a score or a normalization could not be created, says why: the name of
 * the parameter ("" where the fault is not with one) and a sentence that tells
 * what was expected and what came. */
typedef struct attn_fault {
  char parameter[32];
  char detail[200];
} attn_fault;

/* ---- Set-up ---------------------------------------------------------------
 * Chooses the kernels for this CPU and tells OpenBLAS to use the calling
 * thread only (parallelism comes from attn_pool). Call it once, before the
 * first other call and before threads are started. Without it everything
 * still works, on the portable kernels and with OpenBLAS' own threads. */
ATTN_PUBLIC void attn_init(void);

/* The same with a variant of the kernels by its name, "auto" for the best one:
 * to compare them, or to stay with one on machines that differ. What is computed
 * keeps its bounds with every variant, its last bits are another matter.
 * ATTN_UNKNOWN_NAME, and then nothing was changed, where there is no variant of
 * that name or this CPU can't run it; ATTN_BAD_ARGUMENT for NULL. */
ATTN_PUBLIC attn_status attn_init_with(const char *kernels);

/* Lets OpenBLAS multiply queries by the matrices of scores (`bilinear`, `additive`), in up
 * to `threads` threads at a time, 64 at the most, where the portable kernels are in use:
 * what it works in, 128 MiB of address space for each, of which it touches little, is taken
 * now. With other kernels, whose products are as fast, nothing is taken or changed. Call it
 * after attn_init() and before threads are started. Without it, or if it fails, our own
 * loops do it; the last bits of the answers may differ. With more threads at a time than
 * said here a call could wait for address space.
 * ATTN_NO_MEMORY if the space can't be had, ATTN_TOO_LARGE beyond 64 threads. */
ATTN_PUBLIC attn_status attn_reserve_blas(size_t threads);

/* The name of the kernels in use: "portable", "avx2", "avx512", "neon". */
ATTN_PUBLIC const char *attn_kernels_name(void);

/* The variants that this CPU can run, the best one last; NULL past the end. */
ATTN_PUBLIC const char *attn_kernels_name_at(size_t index);

/* ---- Parameters -----------------------------------------------------------
 * What a score or a normalization can be told. The tables below are the only
 * place where names, ranges and defaults stand: validation, the server's JSON,
 * its OpenAPI document and the tables of docs/ come from them or are checked
 * against them. */
typedef enum attn_param_kind {
  ATTN_PARAM_NUMBER, /* a finite number */
  ATTN_PARAM_COUNT,  /* a whole number >= 1 */
  ATTN_PARAM_VECTOR, /* a tensor of one dimension */
  ATTN_PARAM_MATRIX  /* a tensor of two dimensions */
} attn_param_kind;

typedef struct attn_param_info {
  const char *name;
  attn_param_kind kind;
  bool required;            /* tensors are, numbers have a default */
  double least;             /* the smallest number allowed ... */
  bool above_least;         /* ... or, when true, what it has to be greater than */
  double default_value;     /* NAN where `default_text` says how it is computed */
  const char *default_text; /* as documentation prints it; "" for required ones */
  const char *shape;        /* of a tensor: "dq,dk", "h,dk", "h"; "" for numbers. dq is the
                               query's dimension and dk the keys'; any other name is the
                               score's own, and one name stands for one size */
  const char *help;
} attn_param_info;

/* No score and no normalization has more. */
enum { ATTN_PARAMS_MAX = 6 };

typedef struct attn_score_info {
  const char *name;          /* "scaled_dot" */
  const char *formula;       /* "scale * q.k", for documentation */
  const char *normalization; /* the default normalization's name */
  const attn_param_info *params;
  size_t param_count;
} attn_score_info;

typedef struct attn_normalization_info {
  const char *name;
  const char *formula;
  const attn_param_info *params;
  size_t param_count;
} attn_normalization_info;

/* The tables, in the order of the documentation; NULL past the end. */
ATTN_PUBLIC const attn_score_info *attn_score_info_at(size_t index);
ATTN_PUBLIC const attn_normalization_info *attn_normalization_info_at(size_t index);

/* NULL where there is no such name. */
ATTN_PUBLIC const attn_score_info *attn_score_info_find(const char *name);
ATTN_PUBLIC const attn_normalization_info *attn_normalization_info_find(const char *name);

/* One parameter as a caller gives it. Numbers and counts use `number`; vectors
 * and matrices use `data` (rows x cols, a vector of n numbers being n x 1),
 * which is copied. */
typedef struct attn_argument {
  const char *name;
  double number;
  const float *data;
  size_t rows, cols;
} attn_argument;

/* ---- Scores ---------------------------------------------------------------
 * a(q, k): the names and formulas are in attn_score_info_at(). `dot`,
 * `scaled_dot`, `bilinear`: Luong et al. 2015, Vaswani et al. 2017;
 * `additive`: Bahdanau et al. 2015; the kernels: Nadaraya 1964, Watson 1964. */
typedef struct attn_score attn_score;

/* Parameters that are not given take their defaults. `fault` may be NULL.
 * ATTN_UNKNOWN_NAME, ATTN_BAD_PARAMETER, ATTN_NOT_FINITE, ATTN_NO_MEMORY. */
ATTN_PUBLIC attn_status attn_score_create(attn_score **score, const char *name,
                                          const attn_argument *args, size_t count,
                                          attn_fault *fault);
ATTN_PUBLIC attn_score *attn_score_ref(attn_score *score);
ATTN_PUBLIC void attn_score_free(attn_score *score);

ATTN_PUBLIC const attn_score_info *attn_score_get_info(const attn_score *score);

/* Parameter number `index` of the info's list as it is in force. A number that
 * depends on the keys (`scale` of scaled_dot) is computed for `key_dim`. */
ATTN_PUBLIC attn_argument attn_score_get_argument(const attn_score *score, size_t index,
                                                  size_t key_dim);

/* The dimension that queries need, given the keys'; 0 where the score's own
 * matrices do not fit keys of that dimension. */
ATTN_PUBLIC size_t attn_score_query_dim(const attn_score *score, size_t key_dim);

/* Whether the score's tensors fit keys of that dimension: if not, ATTN_BAD_SHAPE, and `fault`,
 * unless it is NULL, names the tensor and says how it differs. */
ATTN_PUBLIC attn_status attn_score_check_keys(const attn_score *score, size_t key_dim,
                                              attn_fault *fault);

/* True where both stand for the same function (same name, same parameters). */
ATTN_PUBLIC bool attn_score_equal(const attn_score *a, const attn_score *b);

/* ---- Normalizations -------------------------------------------------------
 * `sparsemax`: Martins & Astudillo 2016, algorithm 1; `entmax15`: Peters,
 * Niculae & Martins 2019, algorithm 2. */
typedef struct attn_normalization attn_normalization;

ATTN_PUBLIC attn_status attn_normalization_create(attn_normalization **norm, const char *name,
                                                  const attn_argument *args, size_t count,
                                                  attn_fault *fault);
ATTN_PUBLIC attn_normalization *attn_normalization_ref(attn_normalization *norm);
ATTN_PUBLIC void attn_normalization_free(attn_normalization *norm);
ATTN_PUBLIC const attn_normalization_info *
attn_normalization_get_info(const attn_normalization *norm);

/* As with scores; a `top_k` that was not given has the number 0. */
ATTN_PUBLIC attn_argument attn_normalization_get_argument(const attn_normalization *norm,
                                                          size_t index);
ATTN_PUBLIC bool attn_normalization_equal(const attn_normalization *a, const attn_normalization *b);

/* ---- Number types -----------------------------------------------------------
 * How a memory keeps its keys and values in RAM. Rows are given as float32 and
 * rounded to nearest, ties to even, on their way in. From then on the rounded
 * numbers are the memory: norms, scores, answers and attn_snapshot_get_row()
 * are those of a caller who had given them rounded, with the same bounds, and
 * rounding them again changes nothing.
 *
 * What is kept of a number x differs from x by no more than
 *
 *     relative * |x|  +  of_row * the largest |number| of its row  +  absolute
 *
 * where `absolute` matters only next to underflow. int8 has a scale for each
 * key and each value: largest/127, cut to 17 bits; a row of zeros has 0.
 *
 *   X(id, name, bytes of a number, largest |number| taken, relative, of_row,
 *     absolute, the bound in words) */
#define ATTN_DTYPE_LIST(X)                                                                         \
  X(ATTN_F32, "f32", 4, 0x1.fffffep127, 0, 0, 0, "kept as given")                                  \
  X(ATTN_F16, "f16", 2, 65504, 0x1p-11, 0, 0x1p-25, "1/2048 of the number")                        \
  X(ATTN_BF16, "bf16", 2, 0x1.fep127, 0x1p-8, 0, 0x1p-134, "1/256 of the number")                  \
  X(ATTN_INT8, "int8", 1, 0x1.fffffep127, 0, 1.0 / 254, 0x1p-127,                                  \
    "1/254 of the largest number of its key or value")

typedef enum attn_dtype {
#define ATTN_DTYPE_ENUM(id, ...) id,
  ATTN_DTYPE_LIST(ATTN_DTYPE_ENUM)
#undef ATTN_DTYPE_ENUM
} attn_dtype;

typedef struct attn_dtype_info {
  attn_dtype dtype;
  const char *name;
  size_t bytes;
  double largest; /* beyond it: ATTN_OUT_OF_RANGE */
  double relative, of_row, absolute;
  const char *bound; /* for documentation */
} attn_dtype_info;

/* The table in the order of the enum, so that a dtype is its own index; NULL
 * past the end, and where there is no such name. */
ATTN_PUBLIC const attn_dtype_info *attn_dtype_info_at(size_t index);
ATTN_PUBLIC const attn_dtype_info *attn_dtype_info_find(const char *name);

/* ---- Snapshots ------------------------------------------------------------
 * The rows of a memory at one moment. Made of blocks of rows which snapshots
 * share: appending copies the last, partly filled block at the most, and any
 * other change the blocks that it touches. */
typedef struct attn_snapshot attn_snapshot;

/* No rows. key_dim and value_dim are at least 1 and at most ATTN_MAX_DIM. The
 * short form keeps float32. */
#define ATTN_MAX_DIM ((size_t)1 << 20)
ATTN_PUBLIC attn_status attn_snapshot_create(attn_snapshot **empty, size_t key_dim,
                                             size_t value_dim);
ATTN_PUBLIC attn_status attn_snapshot_create_typed(attn_snapshot **empty, size_t key_dim,
                                                   size_t value_dim, attn_dtype dtype);

/* A new snapshot: base's rows, then `rows` new ones. base stays as it is and
 * remains the caller's. ATTN_NOT_FINITE where a number is NaN or infinite,
 * ATTN_OUT_OF_RANGE where it is more than the dtype can hold. */
ATTN_PUBLIC attn_status attn_snapshot_append(attn_snapshot **grown, const attn_snapshot *base,
                                             const float *keys, const float *values, size_t rows);
ATTN_PUBLIC attn_snapshot *attn_snapshot_ref(attn_snapshot *snapshot);
ATTN_PUBLIC void attn_snapshot_free(attn_snapshot *snapshot);

ATTN_PUBLIC size_t attn_snapshot_rows(const attn_snapshot *snapshot);
ATTN_PUBLIC size_t attn_snapshot_key_dim(const attn_snapshot *snapshot);
ATTN_PUBLIC size_t attn_snapshot_value_dim(const attn_snapshot *snapshot);
ATTN_PUBLIC attn_dtype attn_snapshot_dtype(const attn_snapshot *snapshot);

/* RAM that the snapshot holds, shared blocks counted in full. */
ATTN_PUBLIC size_t attn_snapshot_bytes(const attn_snapshot *snapshot);

/* What it would be for `rows` rows of the shape and dtype of `shape`, appended
 * to nothing; SIZE_MAX where that is beyond what can be addressed. */
ATTN_PUBLIC size_t attn_snapshot_bytes_of(const attn_snapshot *shape, size_t rows);

/* Moves rows that are here to stay into huge pages, which makes large memories faster to
 * read, if the system can (Linux since 6.1): about `bytes` bytes from block `block` on (0:
 * the first). Returns the block to go on with, attn_snapshot_block_count() when all is
 * done. Costs as much as copying the rows, or more; blocks that were promoted before, in
 * this snapshot or another that shares them, cost nothing. By any thread while others
 * read; no answer changes. */
ATTN_PUBLIC size_t attn_snapshot_promote_huge_pages(const attn_snapshot *snapshot, size_t block,
                                                    size_t bytes);

/* Copies row `row` out as it was kept: key_dim and value_dim floats; either may
 * be NULL. */
ATTN_PUBLIC attn_status attn_snapshot_get_row(const attn_snapshot *snapshot, size_t row, float *key,
                                              float *value);

/* ---- Changing rows ----------------------------------------------------------
 * All of a change at once. Row numbers are base's. Untouched blocks are shared.
 * Removed rows close the gap, replaced ones keep their place, added ones come
 * last. What becomes of the blocks depends on base's blocks and on the rows
 * that are named, so the same changes in the same order give the same blocks,
 * and bit-equal answers. Adding rows in several edits cuts them into blocks as
 * adding them in one does. */
typedef struct attn_edit {
  const size_t *removed; /* ascending, distinct */
  size_t removed_count;
  const size_t *replaced; /* ascending, distinct, none of them removed */
  size_t replaced_count;
  const float *replaced_keys, *replaced_values; /* replaced_count x dimension */
  const float *added_keys, *added_values;       /* added_count x dimension */
  size_t added_count;
} attn_edit;

/* As attn_snapshot_append(); ATTN_BAD_ARGUMENT where row numbers are not as
 * they have to be. */
ATTN_PUBLIC attn_status attn_snapshot_edit(attn_snapshot **edited, const attn_snapshot *base,
                                           const attn_edit *edit);

/* ---- Building ---------------------------------------------------------------
 * A snapshot whose rows arrive as two streams, keys and values, in pieces of
 * any length and order. What comes of it is bit by bit what one
 * attn_snapshot_append() of all rows to an empty snapshot would make, without
 * the rows ever being in RAM twice. One thread at a time may use a builder.
 *
 * RAM is taken as rows are given, not by how many were announced. A block of the
 * snapshot ("Blocks as bytes", below: about 1 MiB, or 16 rows where those are longer) is
 * allocated, for its keys and its values, when the first of its rows is given. Where a
 * key has less than an eighth of the numbers of a key and a value together, the keys of
 * a block that come before its values are kept as floats in the meantime, and the block is
 * allocated with the first value; and so the other way round. So in the order of
 * rows, one stream after the other or both side by side, a builder never has more than about
 * eight times what was given so far, and one block. Beside a block there are some 40 bytes for
 * each block up to the farthest one that a row was given of, and until all of its rows
 * were given a bit for each of its keys and values. */
typedef struct attn_builder attn_builder;

/* For `rows` rows (>= 1). Of `shape` only the dimensions and the dtype count. Takes
 * some hundred bytes, whatever the number of rows; ATTN_TOO_LARGE where that is beyond
 * what can be addressed. */
ATTN_PUBLIC attn_status attn_builder_create(attn_builder **builder, const attn_snapshot *shape,
                                            size_t rows);
ATTN_PUBLIC void attn_builder_free(attn_builder *builder);

/* RAM that the builder holds at the moment, its blocks included; 0 for NULL. In the end
 * it is attn_snapshot_bytes() of the snapshot and the little that stands above. */
ATTN_PUBLIC size_t attn_builder_bytes(const attn_builder *builder);

/* Rows first .. first + rows - 1, as attn_snapshot_append() takes them. Each has
 * to be given at least once; the last time counts. After a failure those before
 * the row at fault may have been taken. ATTN_BAD_ARGUMENT beyond the rows that were
 * announced, and once the builder has finished; ATTN_NO_MEMORY where there is none for
 * their blocks. */
ATTN_PUBLIC attn_status attn_builder_keys(attn_builder *builder, size_t first, size_t rows,
                                          const float *keys);
ATTN_PUBLIC attn_status attn_builder_values(attn_builder *builder, size_t first, size_t rows,
                                            const float *values);

/* How many blocks the snapshot will have, and the one at an index, borrowed from the
 * builder: NULL until all of its rows were given, and past the end. A block that was
 * handed out is immutable: ATTN_BAD_ARGUMENT for its rows from then on. */
typedef struct attn_block attn_block;
ATTN_PUBLIC size_t attn_builder_block_count(const attn_builder *builder);
ATTN_PUBLIC attn_block *attn_builder_block(attn_builder *builder, size_t index);

/* The snapshot, which is the caller's; the builder has still to be freed.
 * ATTN_BAD_ARGUMENT where a key or a value was never given. After ATTN_NO_MEMORY it may be
 * asked again. */
ATTN_PUBLIC attn_status attn_builder_finish(attn_builder *builder, attn_snapshot **made);

/* ---- Blocks as bytes ----------------------------------------------------------
 * For keeping a memory elsewhere, block by block. Blocks are immutable and
 * counted, and the same pointer in two snapshots is the same, shared block: what
 * was kept of one snapshot need not be kept again for the next.
 *
 * A block's bytes are its numbers in the snapshot's dtype and nothing else: the
 * keys, row by row; with int8 a float32 scale for each key; the values, row by
 * row; with int8 a float32 scale for each value. They are in this machine's
 * order and can be carried between machines of the same order, which is to say
 * between all little-endian ones. */
ATTN_PUBLIC size_t attn_snapshot_block_count(const attn_snapshot *snapshot);

/* Borrowed from the snapshot; NULL past the end. */
ATTN_PUBLIC attn_block *attn_snapshot_block(const attn_snapshot *snapshot, size_t index);
ATTN_PUBLIC attn_block *attn_block_ref(attn_block *block);
ATTN_PUBLIC void attn_block_free(attn_block *block);
ATTN_PUBLIC size_t attn_block_rows(const attn_block *block);

/* `shape` is any snapshot of the dimensions and the dtype that the block has. */
ATTN_PUBLIC size_t attn_block_encoded_size(const attn_snapshot *shape, const attn_block *block);
ATTN_PUBLIC void attn_block_encode(const attn_snapshot *shape, const attn_block *block,
                                   void *bytes);

/* The block that has those bytes, which may be any. ATTN_BAD_SHAPE where they
 * are no whole number of rows, none, or more than a block takes; ATTN_NOT_FINITE;
 * ATTN_OUT_OF_RANGE where an int8 row is not as rounding makes it. */
ATTN_PUBLIC attn_status attn_block_decode(attn_block **block, const attn_snapshot *shape,
                                          const void *bytes, size_t size);

/* A snapshot of those blocks in that order; takes a reference to each. With
 * the blocks of another snapshot, decoded or not, it gives bit-equal answers.
 * ATTN_BAD_SHAPE where a block is of another shape or dtype. */
ATTN_PUBLIC attn_status attn_snapshot_assemble(attn_snapshot **made, const attn_snapshot *shape,
                                               attn_block *const *blocks, size_t count);

/* ---- Workers --------------------------------------------------------------
 * The library owns no threads. A caller that has some hands them over through this:
 * run() calls task(argument, 0) ... task(argument, count - 1), each exactly
 * once, on any threads and in any order, and returns when all are done.
 * `workers` is how many can run at the same time; it decides how the work is
 * cut. run() may be called by several threads at once. pause() may be NULL; it
 * is called by every task between two key blocks (some hundred rows), so that a
 * thread with something more urgent can do that first.
 *
 * alloc() may be NULL, then the memory of a call comes from malloc(). It returns `bytes`
 * of memory (a power of two, at least 16 KiB) that begin at a multiple of 64, or
 * NULL, and free() takes them back; both may be called by several threads at once.
 * A pool that keeps freed buffers for the next call spares it the page faults. */
typedef struct attn_pool {
  unsigned workers;
  void (*run)(void *context, size_t count, void (*task)(void *argument, size_t index),
              void *argument);
  void (*pause)(void *context);
  void *(*alloc)(void *context, size_t bytes);
  void (*free)(void *context, void *buffer, size_t bytes);
  void *context;
} attn_pool;

/* ---- Attention ------------------------------------------------------------ */
typedef enum attn_weights_mode {
  ATTN_WEIGHTS_NONE, /* outputs alone */
  ATTN_WEIGHTS_FULL, /* all of them, a queries x rows matrix */
  ATTN_WEIGHTS_TOP   /* the largest ones of each query */
} attn_weights_mode;

typedef struct attn_weight {
  size_t row;
  float weight;
} attn_weight;

/* A batch of queries and what is asked of it. All pointers are the caller's and must stay as
 * they are until attn_attend() has returned. */
typedef struct attn_request {
  const float *queries; /* query_count x query_dim */
  size_t query_count;   /* >= 1 */
  size_t query_dim;     /* = attn_score_query_dim(score, key_dim) */
  const attn_score *score;
  const attn_normalization *normalization;
  attn_weights_mode weights_mode;
  size_t top; /* ATTN_WEIGHTS_TOP: how many, >= 1 */

  bool (*cancelled)(void *context); /* NULL, or asked between tiles from any worker */
  void *cancel_context;
} attn_request;

/* An answer: arrays with so many items for each query, in the order of the queries. Arrays
 * are the caller's, of the sizes that attn_result_for() says; those whose size is 0 were not
 * asked for, and are not looked at. Either they are arrays that the caller has,
 *
 *     attn_result result = attn_result_for(memory, &request);
 *     result.outputs = outputs;
 *
 * or all of them are placed in one piece of memory, which is then all there is to free:
 *
 *     void *arrays = malloc(attn_result_bytes(&result));
 *     attn_result_place(&result, arrays);
 *
 * The struct itself is no more than sizes and pointers: it may be copied, and has nothing to
 * be freed. */
typedef struct attn_result {
  size_t query_count;
  size_t value_dim; /* of the memory */
  size_t rows;      /* ATTN_WEIGHTS_FULL: of the memory; else 0 */
  size_t top;       /* ATTN_WEIGHTS_TOP: the smaller one of top and rows; else 0 */

  float *outputs;        /* query_count x value_dim */
  float *weights;        /* query_count x rows */
  attn_weight *largest;  /* query_count x top, the largest weight first, the lower row first on a
                            tie */
  size_t *largest_count; /* query_count, with `top`: how many there are, rows of weight 0 being
                            left out */

  size_t fault_query; /* the one that was ATTN_NOT_REPRESENTABLE or ATTN_NOT_FINITE, else
                         ATTN_NO_QUERY */
} attn_result;

#define ATTN_NO_QUERY SIZE_MAX

/* The sizes of the answer to that request; without arrays. */
ATTN_PUBLIC attn_result attn_result_for(const attn_snapshot *snapshot, const attn_request *request);

/* What its arrays take; SIZE_MAX if that is beyond what can be addressed. */
ATTN_PUBLIC size_t attn_result_bytes(const attn_result *result);

/* Makes the arrays parts of `memory`, which is at least that large and aligned as malloc()
 * aligns; it remains the caller's. */
ATTN_PUBLIC void attn_result_place(attn_result *result, void *memory);

/* The part of an answer that belongs to queries first .. first + count - 1: a view of the same
 * arrays. */
ATTN_PUBLIC attn_result attn_result_slice(const attn_result *result, size_t first, size_t count);

/* Copies what is in the arrays of an answer into those of another one of the same sizes. */
ATTN_PUBLIC void attn_result_copy(attn_result *to, const attn_result *result);

/* Computes the batch. `pool` may be NULL: then the calling thread does all.
 * A query for which no row has mass (every weight 0, or `sum` over a total of
 * 0) gets an output of zeros. ATTN_EMPTY_MEMORY, ATTN_BAD_SHAPE (also of the
 * result), ATTN_BAD_ARGUMENT, ATTN_NO_MEMORY, ATTN_NOT_FINITE (a query is),
 * ATTN_NOT_REPRESENTABLE (an unnormalized weight or output beyond float32),
 * ATTN_CANCELLED. After a failure the result's arrays hold nothing of use. */
ATTN_PUBLIC attn_status attn_attend(const attn_snapshot *snapshot, const attn_request *request,
                                    attn_result *result, const attn_pool *pool);

#ifdef __cplusplus
}
#endif

#endif
