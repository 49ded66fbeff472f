/* Random trials of well-scaled data: for every score, parameters and inputs
 * that make its scores differ and stay within the +-60 of the contract,
 * whatever the dimension. Without that care most random problems are dull: in
 * 1000 dimensions all rows are equally far, and a Gaussian of width 1 sees
 * none of them. */
#ifndef TESTS_UNIT_LIB_RANDOM_TRIAL_H
#define TESTS_UNIT_LIB_RANDOM_TRIAL_H

#include "trial.h"

static const char *const score_names[] = {
    "dot",          "scaled_dot",       "cosine",    "bilinear", "additive",
    "euclidean",    "gaussian",         "laplacian", "boxcar",   "triangular",
    "epanechnikov", "inverse_distance", "constant",  "exact"};
static const char *const normalization_names[] = {"softmax",   "sum",      "none",   "hardmax",
                                                  "sparsemax", "entmax15", "sigmoid"};
enum {
  SCORE_COUNT = sizeof score_names / sizeof *score_names,
  NORMALIZATION_COUNT = sizeof normalization_names / sizeof *normalization_names
};

static inline bool name_is_one_of(const char *name, const char *const *names, size_t count) {
  for (size_t i = 0; i < count; i++)
    if (strcmp(name, names[i]) == 0) return true;
  return false;
}

static inline bool takes_other_query_dim(const char *score) {
  return strcmp(score, "bilinear") == 0 || strcmp(score, "additive") == 0;
}

static inline bool takes_top_k(const char *normalization) {
  static const char *const names[] = {"softmax", "sum", "sparsemax", "entmax15"};
  return name_is_one_of(normalization, names, 4);
}

static inline void fill_products(trial *t, rng *r, double amplitude) {
  const double dk = (double)t->of.key_dim, dq = (double)t->of.query_dim;
  double deviation = amplitude / sqrt(dk);
  if (score_is(t, "scaled_dot")) {
    const double scale = rng_chance(r, 0.5) ? 1 / sqrt(dk) : exp(rng_range(r, -4, 4));
    if (rng_chance(r, 0.7)) trial_number(t, "scale", scale);
    deviation /= trial_get(t, "scale", 1 / sqrt(dk));
  }
  fill_normal(r, t->keys, t->of.rows * t->of.key_dim, 1);
  fill_normal(r, t->queries, t->of.query_count * t->of.query_dim, deviation);
  if (score_is(t, "bilinear"))
    fill_normal(r, trial_tensor(t, "w", t->of.query_dim, t->of.key_dim),
                t->of.query_dim * t->of.key_dim, 1 / sqrt(dq));
  if (score_is(t, "cosine") && rng_chance(r, 0.7))
    trial_number(t, "scale", rng_chance(r, 0.2) ? -amplitude : 4 * amplitude);
}

static inline void fill_additive(trial *t, rng *r, double amplitude) {
  const size_t hidden = rng_between(r, 1, 24), dq = t->of.query_dim, dk = t->of.key_dim;
  fill_normal(r, t->keys, t->of.rows * dk, 1);
  fill_normal(r, t->queries, t->of.query_count * dq, 1);
  fill_normal(r, trial_tensor(t, "w_q", hidden, dq), hidden * dq, 1 / sqrt((double)dq));
  fill_normal(r, trial_tensor(t, "w_k", hidden, dk), hidden * dk, 1 / sqrt((double)dk));
  fill_normal(r, trial_tensor(t, "v", hidden, 1), hidden, amplitude / sqrt((double)hidden));
}

/* `unit` is the distance that the score's parameter stands for, when two rows
 * are sqrt(2 dk) apart. Either the parameter is given, or the data is scaled
 * so that its default fits. */
static inline void fill_distances(trial *t, rng *r, double amplitude) {
  const double dk = (double)t->of.key_dim, apart = sqrt(2 * dk);
  const char *parameter = "radius";
  double unit = apart * fmax(0.1, 1 + rng_range(r, -1, 1) / sqrt(dk));
  if (score_is(t, "euclidean")) {
    parameter = "scale";
    unit = apart / amplitude;
  } else if (score_is(t, "gaussian")) {
    parameter = "sigma";
    unit = apart * exp(rng_range(r, -2, 1));
  } else if (score_is(t, "laplacian")) {
    parameter = "sigma";
    unit = apart * exp(rng_range(r, -3, 1));
  } else if (score_is(t, "inverse_distance")) {
    static const double powers[] = {0.5, 1, 2, 3, 4};
    parameter = "power";
    unit = apart;
    if (rng_chance(r, 0.5)) trial_number(t, "epsilon", exp(rng_range(r, -14, 1)));
    if (rng_chance(r, 0.8)) trial_number(t, "power", powers[rng_between(r, 0, 4)]);
  }
  double deviation = 1 / unit;
  if (strcmp(parameter, "power") != 0 && rng_chance(r, 0.8)) {
    deviation = exp(rng_range(r, -3, 3));
    unit *= deviation;
    trial_number(t, parameter, score_is(t, "euclidean") ? 1 / unit : unit);
  }
  fill_normal(r, t->keys, t->of.rows * t->of.key_dim, deviation);
  fill_normal(r, t->queries, t->of.query_count * t->of.query_dim, deviation);
}

/* Some rows twice, some queries equal to a key: what `exact` lives on, and
 * distance 0 for the others. */
static inline void plant_equals(trial *t, rng *r) {
  const size_t dk = t->of.key_dim, bytes = dk * sizeof(float);
  for (size_t i = 1; i < t->of.rows; i++)
    if (rng_chance(r, 0.1))
      memcpy(t->keys + i * dk, t->keys + rng_between(r, 0, i - 1) * dk, bytes);
  for (size_t q = 0; q < t->of.query_count && t->of.query_dim == dk; q++)
    if (rng_chance(r, 0.3))
      memcpy(t->queries + q * dk, t->keys + rng_between(r, 0, t->of.rows - 1) * dk, bytes);
}

static inline trial trial_random(uint64_t index, shape of, const char *score,
                                 const char *normalization) {
  static const double amplitudes[] = {0.3, 1, 3, 8, 13};
  static const double value_deviations[] = {1, 1, 100, 1e-3};
  rng r = rng_for_case(index);
  trial t = trial_new(index, of, score, normalization);
  const double amplitude = amplitudes[rng_between(&r, 0, 4)];
  static const char *const products[] = {"dot", "scaled_dot", "cosine", "bilinear"};
  if (score_is(&t, "additive"))
    fill_additive(&t, &r, amplitude);
  else if (name_is_one_of(score, products, 4))
    fill_products(&t, &r, amplitude);
  else if (score_is(&t, "constant") || score_is(&t, "exact")) {
    fill_normal(&r, t.keys, of.rows * of.key_dim, 1);
    fill_normal(&r, t.queries, of.query_count * of.key_dim, 1);
  } else
    fill_distances(&t, &r, amplitude);
  /* An equal key would take a product of this size out of the +-60. */
  if (!name_is_one_of(score, products, 4) || score_is(&t, "cosine")) plant_equals(&t, &r);
  fill_normal(&r, t.values, of.rows * of.value_dim, value_deviations[rng_between(&r, 0, 3)]);

  if (strcmp(normalization, "softmax") == 0 && rng_chance(&r, 0.5))
    trial_normalization_number(&t, "temperature", exp(rng_range(&r, -0.2, 3)));
  if (takes_top_k(normalization) && rng_chance(&r, 0.5))
    trial_normalization_number(&t, "top_k", (double)rng_between(&r, 1, of.rows + 2));
  return t;
}

#endif
