/* Reading arguments against a parameter table.
 *
 * The invariant: a struct attn_params that attn_params_read() filled obeys its
 * table, so nobody checks a range a second time. What ties several parameters
 * together, the dimensions that tensors share, is checked in maps.c. */
#include "params.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

attn_status attn_fault_set(attn_fault *fault, attn_status status, const char *parameter,
                           const char *format, ...) {
  if (fault) {
    snprintf(fault->parameter, sizeof fault->parameter, "%s", parameter);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(fault->detail, sizeof fault->detail, format, arguments);
    va_end(arguments);
  }
  return status;
}

static attn_status read_number(struct attn_params *params, size_t index,
                               const attn_param_info *info, double value, attn_fault *fault) {
  if (!isfinite(value))
    return attn_fault_set(fault, ATTN_BAD_PARAMETER, info->name, "%s must be a finite number",
                          info->name);
  if (info->kind == ATTN_PARAM_COUNT && (value != floor(value) || value < 1 || value > 0x1p53))
    return attn_fault_set(fault, ATTN_BAD_PARAMETER, info->name,
                          "%s must be a whole number of at least 1, but is %.9g", info->name,
                          value);
  if (info->above_least ? !(value > info->least) : !(value >= info->least))
    return attn_fault_set(fault, ATTN_BAD_PARAMETER, info->name, "%s must be %s %.9g, but is %.9g",
                          info->name, info->above_least ? "greater than" : "at least", info->least,
                          value);
  params->number[index] = value;
  return ATTN_OK;
}

static attn_status read_tensor(struct attn_params *params, size_t index,
                               const attn_param_info *info, const attn_argument *arg,
                               attn_fault *fault) {
  if (!arg->data || arg->rows == 0 || arg->cols == 0)
    return attn_fault_set(fault, ATTN_BAD_PARAMETER, info->name, "%s must be a tensor [%s]",
                          info->name, info->shape);
  if (info->kind == ATTN_PARAM_VECTOR && arg->cols != 1)
    return attn_fault_set(fault, ATTN_BAD_PARAMETER, info->name,
                          "%s must be a vector [%s], but has two dimensions", info->name,
                          info->shape);
  if (arg->rows > ATTN_MAX_DIM || arg->cols > ATTN_MAX_DIM)
    return attn_fault_set(fault, ATTN_BAD_PARAMETER, info->name,
                          "%s may have at most %zu rows and columns", info->name, ATTN_MAX_DIM);
  const size_t count = arg->rows * arg->cols;
  for (size_t i = 0; i < count; i++)
    if (!isfinite(arg->data[i]))
      return attn_fault_set(fault, ATTN_NOT_FINITE, info->name, "%s has a number that isn't finite",
                            info->name);
  float *copy = malloc(count * sizeof *copy);
  if (!copy) return attn_fault_set(fault, ATTN_NO_MEMORY, info->name, "out of memory");
  memcpy(copy, arg->data, count * sizeof *copy);
  params->tensor[index] = copy;
  params->rows[index] = arg->rows;
  params->cols[index] = arg->cols;
  return ATTN_OK;
}

static attn_status read_argument(struct attn_params *params, bool *given,
                                 const attn_param_info *infos, size_t info_count,
                                 const attn_argument *arg, attn_fault *fault) {
  for (size_t i = 0; i < info_count; i++) {
    if (strcmp(infos[i].name, arg->name) != 0) continue;
    if (given[i])
      return attn_fault_set(fault, ATTN_BAD_PARAMETER, arg->name, "%s is given twice", arg->name);
    given[i] = true;
    if (infos[i].kind == ATTN_PARAM_NUMBER || infos[i].kind == ATTN_PARAM_COUNT)
      return read_number(params, i, &infos[i], arg->number, fault);
    return read_tensor(params, i, &infos[i], arg, fault);
  }
  return attn_fault_set(fault, ATTN_UNKNOWN_NAME, arg->name, "there is no parameter of that name");
}

attn_status attn_params_read(struct attn_params *params, const attn_param_info *infos,
                             size_t info_count, const attn_argument *args, size_t arg_count,
                             attn_fault *fault) {
  *params = (struct attn_params){0};
  for (size_t i = 0; i < info_count; i++)
    params->number[i] = infos[i].default_value;

  bool given[ATTN_PARAMS_MAX] = {false};
  attn_status status = ATTN_OK;
  for (size_t i = 0; i < arg_count && status == ATTN_OK; i++)
    status = read_argument(params, given, infos, info_count, &args[i], fault);
  for (size_t i = 0; i < info_count && status == ATTN_OK; i++)
    if (infos[i].required && !given[i])
      status = attn_fault_set(fault, ATTN_BAD_PARAMETER, infos[i].name, "%s [%s] is missing",
                              infos[i].name, infos[i].shape);
  if (status != ATTN_OK) attn_params_clear(params);
  return status;
}

void attn_params_clear(struct attn_params *params) {
  for (size_t i = 0; i < ATTN_PARAMS_MAX; i++)
    free(params->tensor[i]);
  *params = (struct attn_params){0};
}

static bool same_number(double a, double b) {
  return a == b || (isnan(a) && isnan(b));
}

bool attn_params_equal(const struct attn_params *a, const struct attn_params *b) {
  for (size_t i = 0; i < ATTN_PARAMS_MAX; i++) {
    if (!same_number(a->number[i], b->number[i])) return false;
    if (a->rows[i] != b->rows[i] || a->cols[i] != b->cols[i]) return false;
    const size_t bytes = a->rows[i] * a->cols[i] * sizeof(float);
    if (bytes > 0 && memcmp(a->tensor[i], b->tensor[i], bytes) != 0) return false;
  }
  return true;
}

attn_argument attn_params_get(const struct attn_params *params, const attn_param_info *infos,
                              size_t info_count, size_t index) {
  if (index >= info_count) return (attn_argument){.name = NULL};
  return (attn_argument){.name = infos[index].name,
                         .number = params->number[index],
                         .data = params->tensor[index],
                         .rows = params->rows[index],
                         .cols = params->cols[index]};
}
