/* Parameters of scores and normalizations: reading arguments against a table
 * of attn_param_info, with ranges, defaults and faults in one place. */
#ifndef ATTN_PARAMS_H
#define ATTN_PARAMS_H

#include "attention.h"

/* The values in force, by their index in the table. */
struct attn_params {
  double number[ATTN_PARAMS_MAX]; /* NAN: "computed", see default_text */
  float *tensor[ATTN_PARAMS_MAX]; /* owned */
  size_t rows[ATTN_PARAMS_MAX], cols[ATTN_PARAMS_MAX];
};

/* On failure nothing is left to clear. */
attn_status attn_params_read(struct attn_params *params, const attn_param_info *infos,
                             size_t info_count, const attn_argument *args, size_t arg_count,
                             attn_fault *fault);
void attn_params_clear(struct attn_params *params);
bool attn_params_equal(const struct attn_params *a, const struct attn_params *b);
attn_argument attn_params_get(const struct attn_params *params, const attn_param_info *infos,
                              size_t info_count, size_t index);

/* Fills `fault`, where there is one, and returns `status`. */
attn_status attn_fault_set(attn_fault *fault, attn_status status, const char *parameter,
                           const char *format, ...) __attribute__((format(printf, 4, 5)));

#endif
