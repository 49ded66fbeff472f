/* Products of matrices in float64: our loops in every variant, and what OpenBLAS does of
 * them. The sums are right, a query alone gets the very bits that it gets in a batch, and
 * nothing waits for address space that is not there. */
#include "support.h"

#include <sys/resource.h>
#include <unistd.h>

#include "attend/project.h"
#include "kernels/kernels.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED true
#elif defined(__has_feature)
#define SANITIZED (__has_feature(address_sanitizer) || __has_feature(thread_sanitizer))
#else
#define SANITIZED false
#endif

static double *normals(rng *r, size_t count) {
  double *made = must_alloc(count, sizeof *made);
  for (size_t i = 0; i < count; i++)
    made[i] = rng_normal(r);
  return made;
}

/* How far a sum of n products may be off whose sizes add up to `sizes`: gamma_n of Higham,
 * Accuracy and Stability of Numerical Algorithms, section 3.1. */
static double gamma_of(size_t n, double sizes) {
  return (double)(n + 2) * 0x1p-53 * sizes;
}

/* ---- The loops ---- */

typedef struct product {
  size_t m, n, k, lda, ldb, ldc;
  double *a, *b, *before, *c;
} product;

static product product_new(rng *r, size_t m, size_t n, size_t k) {
  product p = {.m = m,
               .n = n,
               .k = k,
               .lda = k + rng_between(r, 0, 3),
               .ldb = n + rng_between(r, 0, 3),
               .ldc = n + rng_between(r, 0, 3)};
  p.a = normals(r, m * p.lda);
  p.b = normals(r, k * p.ldb);
  p.before = normals(r, m * p.ldc);
  p.c = must_alloc(m * p.ldc, sizeof *p.c);
  memcpy(p.c, p.before, m * p.ldc * sizeof *p.c);
  return p;
}

static void product_free(product *p) {
  free(p->a);
  free(p->b);
  free(p->before);
  free(p->c);
}

static void check_sum(const product *p, const char *name, size_t row, size_t col) {
  long double sum = p->before[row * p->ldc + col];
  double sizes = fabs((double)sum);
  for (size_t t = 0; t < p->k; t++) {
    const double term = p->a[row * p->lda + t] * p->b[t * p->ldb + col];
    sum += (long double)p->a[row * p->lda + t] * p->b[t * p->ldb + col];
    sizes += fabs(term);
  }
  const double got = p->c[row * p->ldc + col];
  ck_assert_msg(fabs(got - (double)sum) <= gamma_of(p->k, sizes),
                "%s, %zu x %zu x %zu: [%zu][%zu] is %.17g, expected %.17g", name, p->m, p->n, p->k,
                row, col, got, (double)sum);
}

static void check_product(const struct attn_kernels *kernels, product *p) {
  struct attn_gemm_f64 gemm = {.a = p->a,
                               .b = p->b,
                               .c = p->c,
                               .m = p->m,
                               .n = p->n,
                               .k = p->k,
                               .lda = p->lda,
                               .ldb = p->ldb,
                               .ldc = p->ldc};
  double *alone = must_alloc(p->ldc, sizeof *alone);
  kernels->gemm_f64(&gemm);
  for (size_t row = 0; row < p->m; row++) {
    for (size_t col = 0; col < p->n; col++)
      check_sum(p, kernels->name, row, col);
    const size_t gap = (p->ldc - p->n) * sizeof *alone;
    ck_assert(memcmp(p->c + row * p->ldc + p->n, p->before + row * p->ldc + p->n, gap) == 0);
    memcpy(alone, p->before + row * p->ldc, p->ldc * sizeof *alone);
    gemm.m = 1;
    gemm.a = p->a + row * p->lda;
    gemm.c = alone;
    kernels->gemm_f64(&gemm);
    ck_assert(memcmp(alone, p->c + row * p->ldc, p->ldc * sizeof *alone) == 0);
  }
  free(alone);
}

START_TEST(test_products) {
  static const size_t few[] = {1, 2, 3, 4, 7, 8, 9, 17, 32},
                      columns[] = {1, 2, 3, 8, 23, 24, 25, 63, 97};
  static const size_t terms[] = {1, 2, 31, 255, 256, 257, 600};
  const struct attn_kernels *kernels;
  for (size_t v = 0; (kernels = attn_kernels_at(v)) != NULL; v++)
    for (size_t i = 0; i < test_rounds(120); i++) {
      rng r = rng_for_case(i);
      product p = product_new(&r, few[rng_between(&r, 0, COUNT(few) - 1)],
                              columns[rng_between(&r, 0, COUNT(columns) - 1)],
                              terms[rng_between(&r, 0, COUNT(terms) - 1)]);
      check_product(kernels, &p);
      product_free(&p);
    }
}
END_TEST

/* ---- Queries through a matrix ---- */

typedef struct projection {
  struct attn_projection by;
  float *matrix;
  double *queries, *outputs;
  size_t count, inputs, dim;
} projection;

static projection projection_new(rng *r, size_t rows, size_t cols, bool transposed, size_t count) {
  projection p = {.count = count, .matrix = floats_new(rows * cols)};
  fill_normal(r, p.matrix, rows * cols, 1);
  p.by = (struct attn_projection){p.matrix, rows, cols, transposed};
  p.inputs = attn_projection_inputs(&p.by);
  p.dim = attn_projection_outputs(&p.by);
  p.queries = normals(r, count * p.inputs);
  p.outputs = must_alloc(count * p.dim, sizeof *p.outputs);
  return p;
}

static void projection_free(projection *p) {
  floats_free(p->matrix);
  free(p->queries);
  free(p->outputs);
}

static void project(const projection *p, const double *queries, size_t count, double *outputs) {
  struct attn_arena room = attn_arena_begin(NULL, 0);
  CHECK_STATUS(ATTN_OK, attn_project(&p->by, &room, queries, count, outputs));
  attn_arena_end(&room);
}

static void check_projection(const projection *p) {
  double *alone = must_alloc(p->dim, sizeof *alone);
  project(p, p->queries, p->count, p->outputs);
  for (size_t q = 0; q < p->count; q++) {
    const double *query = p->queries + q * p->inputs, *output = p->outputs + q * p->dim;
    for (size_t i = 0; i < p->dim; i += 1 + p->dim / 61) {
      double sum = 0, sizes = 0;
      for (size_t t = 0; t < p->inputs; t++) {
        const size_t place = p->by.transposed ? i * p->by.cols + t : t * p->by.cols + i;
        sum += query[t] * (double)p->matrix[place];
        sizes += fabs(query[t] * (double)p->matrix[place]);
      }
      ck_assert_msg(fabs(output[i] - sum) <= 2 * gamma_of(p->inputs, sizes),
                    "%zu x %zu%s: [%zu][%zu] is %.17g, expected %.17g", p->by.rows, p->by.cols,
                    p->by.transposed ? " transposed" : "", q, i, output[i], sum);
    }
    project(p, query, 1, alone);
    ck_assert_msg(memcmp(alone, output, p->dim * sizeof *alone) == 0,
                  "%zu x %zu: query %zu of %zu got other bits alone", p->by.rows, p->by.cols, q,
                  p->count);
  }
  free(alone);
}

/* With the variants of the kernels that this CPU has. */
static void check_projections(void) {
  static const size_t shapes[][2] = {{1, 1},   {3, 5},       {17, 70},    {129, 64},
                                     {47, 49}, {1024, 1024}, {300, 4100}, {4100, 300}};
  for (size_t s = 0; s < COUNT(shapes); s++)
    for (int transposed = 0; transposed < 2; transposed++) {
      rng r = rng_for_case(s);
      projection p =
          projection_new(&r, shapes[s][0], shapes[s][1], transposed, rng_between(&r, 2, 14));
      check_projection(&p);
      projection_free(&p);
    }
}

START_TEST(test_projections_by_our_loops) {
  const char *name, *before = attn_kernels_name();
  for (size_t v = 0; (name = attn_kernels_name_at(v)) != NULL; v++) {
    CHECK_STATUS(ATTN_OK, attn_init_with(name));
    check_projections();
  }
  CHECK_STATUS(ATTN_OK, attn_init_with(before));
}
END_TEST

/* Bits that differ between our loops and OpenBLAS's tell that it is asked. */
START_TEST(test_projections_with_openblas) {
  const char *before = attn_kernels_name();
  rng r = rng_for_case(99);
  projection p = projection_new(&r, 1500, 700, false, 1);
  double *ours = must_alloc(p.dim, sizeof *ours);
  CHECK_STATUS(ATTN_OK, attn_init_with("portable"));
  project(&p, p.queries, 1, ours);
  CHECK_STATUS(ATTN_TOO_LARGE, attn_reserve_blas(65));
  CHECK_STATUS(ATTN_OK, attn_reserve_blas(2));
  CHECK_STATUS(ATTN_OK, attn_reserve_blas(2));
  CHECK_STATUS(ATTN_OK, attn_reserve_blas(1));
  project(&p, p.queries, 1, p.outputs);
  ck_assert_msg(memcmp(ours, p.outputs, p.dim * sizeof *ours) != 0, "OpenBLAS was not asked");
  check_projections();
  CHECK_STATUS(ATTN_OK, attn_init_with(before));
  free(ours);
  projection_free(&p);
}
END_TEST

/* ---- Address space that is not there ---- */

static size_t mapped_bytes(void) {
  unsigned long pages = 0;
  FILE *file = fopen("/proc/self/statm", "r");
  ck_assert(file && fscanf(file, "%lu", &pages) == 1);
  fclose(file);
  return pages * 4096;
}

/* A product that would wait for a buffer would never come back. */
START_TEST(test_no_address_space) {
  if (SANITIZED) return;
  const char *kernels = attn_kernels_name();
  CHECK_STATUS(ATTN_OK, attn_init_with("portable"));
  CHECK_STATUS(ATTN_OK, attn_reserve_blas(1));
  struct rlimit before, tight;
  ck_assert(getrlimit(RLIMIT_AS, &before) == 0);
  tight = before;
  tight.rlim_cur = mapped_bytes() + ((size_t)100 << 20);
  ck_assert(setrlimit(RLIMIT_AS, &tight) == 0);
  CHECK_STATUS(ATTN_NO_MEMORY, attn_reserve_blas(3));
  CHECK_STATUS(ATTN_OK, attn_reserve_blas(1));
  check_projections();
  ck_assert(setrlimit(RLIMIT_AS, &before) == 0);
  CHECK_STATUS(ATTN_OK, attn_init_with(kernels));
}
END_TEST

/* Which products OpenBLAS has for the CPU is settled when it is loaded. The ones of a CPU
 * that has no loops of ours agree with what project.c asks of them. */
static void choose_openblas(char **arguments) {
#if defined(__x86_64__)
  if (getenv("OPENBLAS_CORETYPE") != NULL) return;
  setenv("OPENBLAS_CORETYPE", "Nehalem", 1);
  execv("/proc/self/exe", arguments);
#else
  (void)arguments;
#endif
}

int main(int count, char **arguments) {
  (void)count;
  choose_openblas(arguments);
  Suite *suite = suite_create("project");
  add_test(suite, "products", test_products);
  add_test(suite, "our loops", test_projections_by_our_loops);
  add_test(suite, "openblas", test_projections_with_openblas);
  add_test(suite, "no address space", test_no_address_space);
  return run_suite(suite);
}
