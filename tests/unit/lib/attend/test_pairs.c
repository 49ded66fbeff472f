/* Every score with every normalization, in every mode, against the oracle.
 *
 * One loop over the two tables, so that a combination can't be forgotten.
 * Shapes are small and odd: what depends on large shapes is test_shapes.c. */
#include "random_trial.h"

static shape random_shape(rng *r, const char *score) {
  static const size_t tops[] = {1, 7, 40, 300, 700};
  const size_t rows = rng_between(r, 1, tops[rng_between(r, 0, 4)]);
  return (shape){.rows = rows,
                 .key_dim = rng_between(r, 1, rng_chance(r, 0.5) ? 8 : 70),
                 .value_dim = rng_between(r, 1, rng_chance(r, 0.5) ? 4 : 40),
                 .query_count = rng_between(r, 1, rng_chance(r, 0.5) ? 3 : 20),
                 .query_dim = takes_other_query_dim(score) ? rng_between(r, 1, 40) : 0};
}

/* A score's name by way of the test's index (_i); all normalizations. */
START_TEST(test_score_with_every_normalization) {
  const char *score = score_names[_i];
  const size_t rounds = test_rounds(24);
  for (size_t n = 0; n < NORMALIZATION_COUNT; n++) {
    size_t compared = 0, asked = 0;
    for (size_t round = 0; round < rounds; round++) {
      const uint64_t index = ((uint64_t)_i * NORMALIZATION_COUNT + n) * 100000 + round;
      rng r = rng_for_case(index + 50000);
      const shape of = random_shape(&r, score);
      trial t = trial_random(index, of, score, normalization_names[n]);
      trial_prepare(&t);
      compared += trial_check_all(&t, rng_between(&r, 1, rng_chance(&r, 0.5) ? 5 : of.rows + 3));
      asked += 6 * of.query_count;
      trial_free(&t);
    }
    /* What the contract leaves open must stay the exception. */
    ck_assert_msg(compared * 10 >= asked * 7, "%s with %s: only %zu of %zu queries were comparable",
                  score, normalization_names[n], compared, asked);
  }
}
END_TEST

/* The default parameters, given as none at all. */
START_TEST(test_defaults) {
  for (size_t n = 0; n < NORMALIZATION_COUNT; n++) {
    const uint64_t index = 90000000 + (uint64_t)_i * NORMALIZATION_COUNT + n;
    if (takes_other_query_dim(score_names[_i])) continue;
    rng r = rng_for_case(index);
    trial t = trial_new(index, (shape){50, 3, 2, 5, 0}, score_names[_i], normalization_names[n]);
    fill_normal(&r, t.keys, 50 * 3, 0.4);
    fill_normal(&r, t.queries, 5 * 3, 0.4);
    fill_normal(&r, t.values, 50 * 2, 1);
    memcpy(t.queries, t.keys + 7 * 3, 3 * sizeof(float));
    trial_prepare(&t);
    trial_check_all(&t, 3);
    trial_free(&t);
  }
}
END_TEST

int main(void) {
  Suite *suite = suite_create("pairs");
  TCase *tcase = tcase_create("pairs");
  tcase_set_timeout(tcase, 0);
  tcase_add_loop_test(tcase, test_score_with_every_normalization, 0, SCORE_COUNT);
  tcase_add_loop_test(tcase, test_defaults, 0, SCORE_COUNT);
  suite_add_tcase(suite, tcase);
  return run_suite(suite);
}
