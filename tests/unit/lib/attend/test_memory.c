/* Running out of memory: every allocation of every call fails once, and each
 * time the call says so, leaves its out-parameters alone and leaks nothing.
 *
 * The functions of malloc are replaced for this whole program by ones that
 * fail when they are told to. That takes glibc's own names for the real ones,
 * and state that malloc can reach, which is why `heap` below is a variable of
 * the file (one for each thread). A limit on the address space was rejected:
 * it can't choose which allocation fails. Where a sanitizer has replaced
 * malloc already there is nothing to test. */
#include "trial.h"

#if defined(__has_feature)
#define HAS_FEATURE(feature) __has_feature(feature)
#else
#define HAS_FEATURE(feature) 0
#endif

#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) &&       \
    !HAS_FEATURE(address_sanitizer) && !HAS_FEATURE(thread_sanitizer)

#include <errno.h>

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *memory, size_t size);
extern void *__libc_memalign(size_t alignment, size_t size);
extern void __libc_free(void *memory);

static _Thread_local struct {
  bool counting;
  long allowed; /* this many succeed, then one fails, then all succeed */
  long failed;  /* how many have */
  long live;    /* given out and not given back */
} heap;

static bool refuses(void) {
  if (!heap.counting || heap.allowed-- != 0) return false;
  heap.failed++;
  errno = ENOMEM;
  return true;
}

static void *counted(void *memory) {
  if (heap.counting && memory != NULL) heap.live++;
  return memory;
}

void *malloc(size_t size) {
  return refuses() ? NULL : counted(__libc_malloc(size));
}

void *calloc(size_t count, size_t size) {
  return refuses() ? NULL : counted(__libc_calloc(count, size));
}

void *realloc(void *memory, size_t size) {
  if (refuses()) return NULL;
  void *moved = __libc_realloc(memory, size);
  return memory == NULL ? counted(moved) : moved;
}

void *aligned_alloc(size_t alignment, size_t size) {
  return refuses() ? NULL : counted(__libc_memalign(alignment, size));
}

int posix_memalign(void **memory, size_t alignment, size_t size) {
  void *made = refuses() ? NULL : counted(__libc_memalign(alignment, size));
  if (made == NULL) return ENOMEM;
  *memory = made;
  return 0;
}

void free(void *memory) {
  if (heap.counting && memory != NULL) heap.live--;
  __libc_free(memory);
}

/* ---- */

typedef struct call {
  attn_status (*make)(void *argument);
  void (*unmake)(void *argument); /* what a success has made; may be NULL */
  void *argument;
  void **out; /* what a failure has to leave untouched; may be NULL */
} call;

static char untouched;

/* Fails the first allocation, then the second, and so on, until nothing was
 * left to fail. Returns how many there were. */
static long fail_each(const call *c, const char *what) {
  for (long n = 0;; n++) {
    if (c->out != NULL) *c->out = &untouched;
    heap.allowed = n;
    heap.failed = heap.live = 0;
    heap.counting = true;
    const attn_status status = c->make(c->argument);
    heap.counting = false;
    const long live = heap.live;
    if (status == ATTN_OK && c->unmake != NULL) c->unmake(c->argument);
    if (heap.failed == 0) {
      ck_assert_msg(status == ATTN_OK, "%s: %s with all the memory", what,
                    attn_status_text(status));
      return n;
    }
    ck_assert_msg(c->out == NULL || *c->out == &untouched, "%s wrote its out-parameter", what);
    ck_assert_msg(status == ATTN_NO_MEMORY, "%s: %s where allocation %ld failed", what,
                  attn_status_text(status), n);
    ck_assert_msg(live == 0, "%s: %ld allocations leak where allocation %ld failed", what, live, n);
  }
}

/* ---- Objects ---- */

/* `argument` is a void * that the object is put into, so that fail_each() can
 * look at it whatever it is. */
static attn_status make_score(void *argument) {
  static const float w[12] = {1, 2, 3};
  const attn_argument args[] = {{.name = "w_q", .data = w, .rows = 3, .cols = 4},
                                {.name = "w_k", .data = w, .rows = 3, .cols = 2},
                                {.name = "v", .data = w, .rows = 3, .cols = 1}};
  void **place = argument;
  attn_score *score = *place;
  const attn_status status = attn_score_create(&score, "additive", args, 3, NULL);
  *place = score;
  return status;
}

static void unmake_score(void *argument) {
  attn_score_free(*(void **)argument);
}

static attn_status make_normalization(void *argument) {
  const attn_argument top_k = {.name = "top_k", .number = 2};
  void **place = argument;
  attn_normalization *norm = *place;
  const attn_status status = attn_normalization_create(&norm, "softmax", &top_k, 1, NULL);
  *place = norm;
  return status;
}

static void unmake_normalization(void *argument) {
  attn_normalization_free(*(void **)argument);
}

START_TEST(test_objects) {
  void *made = NULL;
  const call score = {make_score, unmake_score, &made, &made};
  const call norm = {make_normalization, unmake_normalization, &made, &made};
  ck_assert_int_ge(fail_each(&score, "score"), 4);
  ck_assert_int_ge(fail_each(&norm, "normalization"), 1);
}
END_TEST

typedef struct growth {
  attn_snapshot *base;
  void *grown; /* an attn_snapshot */
  const float *keys, *values;
  size_t rows;
} growth;

static attn_status make_empty(void *argument) {
  growth *g = argument;
  attn_snapshot *empty = g->grown;
  const attn_status status = attn_snapshot_create(&empty, 8, 8);
  g->grown = empty;
  return status;
}

static attn_status make_grown(void *argument) {
  growth *g = argument;
  attn_snapshot *grown = g->grown;
  const attn_status status = attn_snapshot_append(&grown, g->base, g->keys, g->values, g->rows);
  g->grown = grown;
  return status;
}

static void unmake_grown(void *argument) {
  attn_snapshot_free(((growth *)argument)->grown);
}

START_TEST(test_snapshots) {
  enum { ROWS = 70000 };
  float *rows = floats_new((size_t)ROWS * 8);
  growth g = {.keys = rows, .values = rows, .rows = 100};
  ck_assert_int_ge(fail_each(&(call){make_empty, unmake_grown, &g, &g.grown}, "create"), 1);
  CHECK_STATUS(ATTN_OK, attn_snapshot_create(&g.base, 8, 8));
  CHECK_STATUS(ATTN_OK, make_grown(&g));
  attn_snapshot_free(g.base);
  g.base = g.grown;
  g.rows = ROWS;
  ck_assert_int_ge(fail_each(&(call){make_grown, unmake_grown, &g, &g.grown}, "append"), 3);
  ck_assert_uint_eq(attn_snapshot_rows(g.base), 100);
  attn_snapshot_free(g.base);
  floats_free(rows);
}
END_TEST

/* A builder that is given all of its rows; keys first, which are few numbers or many. */
typedef struct building {
  attn_snapshot *shape;
  void *built; /* an attn_snapshot */
  const float *rows;
  size_t count, piece;
  bool values_first;
  int attempts; /* at each step */
} building;

static attn_status give(attn_builder *builder, const building *it, bool values) {
  const size_t dim = values ? attn_snapshot_value_dim(it->shape) : attn_snapshot_key_dim(it->shape);
  attn_status status = ATTN_OK;
  for (size_t first = 0, rows; first < it->count && status == ATTN_OK; first += rows) {
    rows = it->count - first < it->piece ? it->count - first : it->piece;
    for (int attempts = it->attempts; attempts > 0; attempts--) {
      status = (values ? attn_builder_values : attn_builder_keys)(builder, first, rows,
                                                                  it->rows + first * dim);
      if (status == ATTN_OK) break;
    }
  }
  return status;
}

static attn_status make_built(void *argument) {
  building *it = argument;
  attn_builder *builder = NULL;
  attn_snapshot *built = it->built;
  attn_status status = attn_builder_create(&builder, it->shape, it->count);
  if (status == ATTN_OK) status = give(builder, it, it->values_first);
  if (status == ATTN_OK) status = give(builder, it, !it->values_first);
  if (status == ATTN_OK) status = attn_builder_finish(builder, &built);
  if (status == ATTN_NO_MEMORY && it->attempts > 1) status = attn_builder_finish(builder, &built);
  attn_builder_free(builder);
  it->built = built;
  return status;
}

static void unmake_built(void *argument) {
  attn_snapshot_free(((building *)argument)->built);
}

/* After each failure, of any of these allocations, the same step is done once more. */
static void build_in_spite_of_failures(building *it, long allocations) {
  enum { CREATION = 4 }; /* allocations before there is anything to be done again */
  const size_t dk = attn_snapshot_key_dim(it->shape), dv = attn_snapshot_value_dim(it->shape);
  float *key = floats_new(dk), *value = floats_new(dv);
  it->attempts = 2;
  for (long n = CREATION; n < allocations; n++) {
    heap.allowed = n;
    heap.failed = 0;
    heap.counting = true;
    const attn_status status = make_built(it);
    heap.counting = false;
    ck_assert(heap.failed == 1 && status == ATTN_OK);
    for (size_t row = 0; row < it->count; row += 99) {
      CHECK_STATUS(ATTN_OK, attn_snapshot_get_row(it->built, row, key, value));
      ck_assert_mem_eq(key, it->rows + row * dk, dk * sizeof *key);
      ck_assert_mem_eq(value, it->rows + row * dv, dv * sizeof *value);
    }
    unmake_built(it);
  }
  floats_free(key);
  floats_free(value);
}

START_TEST(test_builders) {
  static const size_t dims[][2] = {{8, 8}, {1, 300}, {300, 1}};
  enum { ROWS = 3000 };
  float *rows = floats_new((size_t)ROWS * 300);
  for (size_t i = 0; i < (size_t)ROWS * 300; i++)
    rows[i] = (float)(i % 251);
  for (size_t i = 0; i < sizeof dims / sizeof *dims * 4; i++) {
    building it = {.rows = rows, .count = ROWS, .piece = 700, .values_first = i % 2, .attempts = 1};
    const attn_dtype dtype = i / 2 % 2 ? ATTN_BF16 : ATTN_F32;
    CHECK_STATUS(ATTN_OK,
                 attn_snapshot_create_typed(&it.shape, dims[i / 4][0], dims[i / 4][1], dtype));
    const long allocations =
        fail_each(&(call){make_built, unmake_built, &it, &it.built}, "builder");
    ck_assert_int_ge(allocations, 9);
    build_in_spite_of_failures(&it, allocations);
    attn_snapshot_free(it.shape);
  }
  floats_free(rows);
}
END_TEST

/* ---- Attending ---- */

typedef struct asked {
  const trial *t;
  asking how;
  answer a;
} asked;

static attn_status make_answer(void *argument) {
  const asked *it = argument;
  return trial_attend(it->t, &it->how, &it->a);
}

static trial make_trial(uint64_t index, const char *score, const char *normalization, bool masked) {
  rng r = rng_for_case(index);
  trial t = trial_new(index, (shape){1500, 6, 40, 5, 0}, score, normalization);
  fill_normal(&r, t.keys, t.of.rows * 6, 1);
  fill_normal(&r, t.values, t.of.rows * 40, 1);
  fill_normal(&r, t.queries, 5 * 6, 1);
  if (strcmp(score, "bilinear") == 0) fill_normal(&r, trial_tensor(&t, "w", 6, 6), 36, 0.5);
  if (strcmp(score, "additive") == 0) {
    fill_normal(&r, trial_tensor(&t, "w_q", 3, 6), 18, 0.5);
    fill_normal(&r, trial_tensor(&t, "w_k", 3, 6), 18, 0.5);
    fill_normal(&r, trial_tensor(&t, "v", 3, 1), 3, 0.5);
  }
  if (masked) trial_normalization_number(&t, "top_k", 30);
  trial_prepare(&t);
  return t;
}

/* What float32 serves, what float64 serves, and what is selected from. After
 * each failure the same request is answered, and rightly. */
START_TEST(test_attending) {
  static const struct {
    const char *score, *normalization;
    bool masked;
  } cases[] = {{"dot", "softmax", false},       {"bilinear", "softmax", false},
               {"additive", "softmax", false},  {"gaussian", "sum", false},
               {"cosine", "softmax", false},    {"additive", "none", false},
               {"dot", "sum", false},           {"triangular", "sigmoid", false},
               {"dot", "hardmax", false},       {"dot", "sparsemax", false},
               {"constant", "entmax15", false}, {"gaussian", "sum", true},
               {"bilinear", "softmax", true}};
  const attn_pool pool = backwards_pool(3);
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    trial t = make_trial(i, cases[i].score, cases[i].normalization, cases[i].masked);
    for (size_t n = 0; n < 6; n++) {
      asked it = {.t = &t, .how = {(attn_weights_mode)(n % 3), 7, n < 3 ? NULL : &pool}};
      char text[512];
      it.a = answer_new(&t, &it.how);
      CHECK_STATUS(ATTN_OK, make_answer(&it)); /* OpenBLAS makes its buffers */
      ck_assert_int_ge(fail_each(&(call){make_answer, NULL, &it, NULL}, trial_describe(&t, text)),
                       3);
      trial_judge(&t, &it.a);
      answer_free(&it.a);
    }
    trial_free(&t);
  }
}
END_TEST

int main(void) {
  Suite *suite = suite_create("memory");
  add_test(suite, "objects", test_objects);
  add_test(suite, "snapshots", test_snapshots);
  add_test(suite, "builder", test_builders);
  add_test(suite, "attending", test_attending);
  return run_suite(suite);
}

#else

int main(void) {
  puts("malloc belongs to a sanitizer here: nothing to test");
  return EXIT_SUCCESS;
}

#endif
