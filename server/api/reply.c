/* What the resources' replies have in common: problems, ETags, preconditions,
 * META. */
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "api/api.h"
#include "base/clock.h"

void api_problem(struct http_reply *reply, enum problem_code code, const char *pointer,
                 const char *format, ...) {
  char detail[PROBLEM_DETAIL_MAX];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(detail, sizeof detail, format, arguments);
  va_end(arguments);
  struct problem problem;
  problem_set(&problem, code, pointer, "%s", detail);
  http_reply_problem(reply, &problem);
}

void api_finish(const struct api *api, struct http_reply *reply) {
  if (reply->body.status == BUFFER_FULL)
    api_problem(reply, PROBLEM_REPLY_TOO_LARGE, "",
                "the reply would be longer than the limit of %zu bytes; send fewer queries, or ask "
                "for weights \"none\" or {\"top\": K}",
                api->max_reply_bytes);
  else if (reply->body.status == BUFFER_NO_MEMORY)
    api_problem(reply, PROBLEM_OUT_OF_MEMORY, "", "there is not enough memory for the reply");
}

/* ---- Memories ---- */

struct memory *api_pin(const struct api *api, const char *name, struct http_reply *reply) {
  struct problem problem;
  struct memory *memory = registry_find(api->registry, name, &problem);
  if (!memory) http_reply_problem(reply, &problem);
  return memory;
}

/* ---- ETags and preconditions ---- */

void api_set_etag(struct http_reply *reply, int64_t version) {
  snprintf(reply->etag, sizeof reply->etag, "\"%" PRId64 "\"", version);
}

/* Whether a list of entity tags ("*", or "\"1\", W/\"2\"") names the version.
 * A weak tag never matches strongly; ours are strong. A tag may have commas and
 * stars of its own, so that it is passed over up to its closing quote. */
static bool names_version(const char *tags, int64_t version, bool weak_counts) {
  char wanted[32];
  const int length = snprintf(wanted, sizeof wanted, "\"%" PRId64 "\"", version);
  while (*tags) {
    tags += strspn(tags, " \t,");
    const bool weak = strncmp(tags, "W/", 2) == 0;
    if (weak) tags += 2;
    if (*tags == '*') return true;
    if (strncmp(tags, wanted, (size_t)length) == 0 && (!weak || weak_counts)) return true;
    if (*tags == '"') tags += 1 + strcspn(tags + 1, "\"");
    tags += strcspn(tags, ",");
  }
  return false;
}

bool api_preconditions_hold(const void *context, int64_t version) {
  const struct http_request *request = context;
  if (*request->if_match && (version == 0 || !names_version(request->if_match, version, false)))
    return false;
  return !*request->if_none_match || version == 0 ||
         !names_version(request->if_none_match, version, true);
}

bool api_is_known(const struct http_request *request, int64_t version) {
  return *request->if_none_match && names_version(request->if_none_match, version, true);
}

/* ---- META ---- */

/* Numbers in force; a tensor is described by its shape, since a memory's list
 * entry should not be as long as the memory, or left out. So is a top_k that
 * isn't set. */
static void write_argument(struct json_writer *writer, const attn_param_info *info,
                           const attn_argument *argument, bool shapes) {
  if (argument->data && !shapes) return;
  if (argument->data) {
    json_name(writer, argument->name);
    json_open_object(writer);
    json_name(writer, "shape");
    json_open_array(writer);
    json_int64(writer, (int64_t)argument->rows);
    if (info->kind == ATTN_PARAM_MATRIX) json_int64(writer, (int64_t)argument->cols);
    json_close_array(writer);
    json_close_object(writer);
  } else if (info->kind != ATTN_PARAM_COUNT || argument->number > 0) {
    json_name(writer, argument->name);
    json_double(writer, argument->number);
  }
}

void api_write_score(struct json_writer *writer, const struct memory *memory, bool shapes) {
  const attn_score_info *info = attn_score_get_info(memory->score);
  json_open_object(writer);
  json_name(writer, "type");
  json_text(writer, info->name);
  for (size_t p = 0; p < info->param_count; p++) {
    const attn_argument argument =
        attn_score_get_argument(memory->score, p, attn_snapshot_key_dim(memory->snapshot));
    write_argument(writer, &info->params[p], &argument, shapes);
  }
  json_close_object(writer);
}

void api_write_normalization(struct json_writer *writer, const struct memory *memory) {
  const attn_normalization *norm = memory->normalization;
  const attn_normalization_info *info = attn_normalization_get_info(norm);
  json_open_object(writer);
  json_name(writer, "type");
  json_text(writer, info->name);
  for (size_t p = 0; p < info->param_count; p++) {
    const attn_argument argument = attn_normalization_get_argument(norm, p);
    write_argument(writer, &info->params[p], &argument, true);
  }
  json_close_object(writer);
}

static void write_count(struct json_writer *writer, const char *name, size_t count) {
  json_name(writer, name);
  json_int64(writer, (int64_t)count);
}

void api_write_meta(struct json_writer *writer, const struct memory *memory) {
  const attn_snapshot *snapshot = memory->snapshot;
  const size_t key_dim = attn_snapshot_key_dim(snapshot);
  json_open_object(writer);
  json_name(writer, "name");
  json_text(writer, memory->name);
  json_name(writer, "version");
  json_int64(writer, memory->version);
  if (memory->damaged) {
    json_name(writer, "damaged");
    json_text(writer, memory->damaged);
    json_close_object(writer);
    return;
  }
  write_count(writer, "rows", attn_snapshot_rows(snapshot));
  write_count(writer, "query_dim", attn_score_query_dim(memory->score, key_dim));
  write_count(writer, "key_dim", key_dim);
  write_count(writer, "value_dim", attn_snapshot_value_dim(snapshot));
  json_name(writer, "dtype");
  json_text(writer, attn_dtype_info_at((size_t)attn_snapshot_dtype(snapshot))->name);
  json_name(writer, "score");
  api_write_score(writer, memory, true);
  json_name(writer, "normalization");
  api_write_normalization(writer, memory);
  if (memory->ttl_ms > 0) {
    json_name(writer, "ttl_seconds");
    json_double(writer, (double)memory->ttl_ms / 1000);
  }
  write_count(writer, "bytes", memory_bytes(memory));
  json_close_object(writer);
}
