/* Rows as a resource: a page of them, more of them, fewer of them. */
#include <stdlib.h>
#include <string.h>

#include "api/building.h"
#include "api/changing.h"
#include "base/keyed_hash.h"

/* ---- Pages ---- */

enum { LIMIT_DEFAULT = 100, LIMIT_MOST = 10000 };

struct page {
  size_t offset, limit;
};

static bool read_number(const char *text, size_t length, size_t least, size_t most,
                        size_t *number) {
  size_t value = 0;
  if (length == 0) return false;
  for (size_t i = 0; i < length; i++) {
    if (text[i] < '0' || text[i] > '9' || value > (most - (size_t)(text[i] - '0')) / 10)
      return false;
    value = 10 * value + (size_t)(text[i] - '0');
  }
  *number = value;
  return value >= least;
}

static bool read_parameter(const char *text, size_t length, struct page *page, unsigned *seen,
                           struct problem *problem) {
  static const char *const names[] = {"offset", "limit"};
  const char *equals = memchr(text, '=', length);
  const size_t name = equals ? (size_t)(equals - text) : length;
  for (unsigned i = 0; i < 2; i++) {
    if (name != strlen(names[i]) || memcmp(text, names[i], name) != 0) continue;
    if (*seen & 1u << i)
      return problem_set(problem, PROBLEM_INVALID_PARAMETER, "", "%s is given twice", names[i]);
    *seen |= 1u << i;
    const size_t least = i == 0 ? 0 : 1, most = i == 0 ? (size_t)1 << 53 : LIMIT_MOST;
    if (equals && read_number(equals + 1, length - name - 1, least, most,
                              i == 0 ? &page->offset : &page->limit))
      return true;
    return problem_set(problem, PROBLEM_INVALID_PARAMETER, "",
                       "%s has to be a whole number from %zu to %zu", names[i], least, most);
  }
  return problem_set(problem, PROBLEM_INVALID_PARAMETER, "",
                     "there is no parameter \"%.*s\"; rows are paged by offset and limit",
                     (int)(name < 64 ? name : 64), text);
}

static bool read_page(const char *query, struct page *page, struct problem *problem) {
  unsigned seen = 0;
  *page = (struct page){.limit = LIMIT_DEFAULT};
  while (*query) {
    const size_t length = strcspn(query, "&");
    if (length > 0 && !read_parameter(query, length, page, &seen, problem)) return false;
    query += length + (query[length] == '&');
  }
  return true;
}

static void write_row(struct json_writer *writer, const struct memory *memory, size_t row,
                      float *numbers) {
  const size_t key_dim = attn_snapshot_key_dim(memory->snapshot);
  const size_t value_dim = attn_snapshot_value_dim(memory->snapshot);
  size_t length;
  const char *id = row_tags_id(memory->tags, row, &length);
  attn_snapshot_get_row(memory->snapshot, row, numbers, numbers + key_dim);
  json_open_object(writer);
  json_name(writer, "row");
  json_int64(writer, (int64_t)row);
  if (id) {
    json_name(writer, "id");
    json_chars(writer, id, length);
  }
  json_name(writer, "key");
  json_floats(writer, numbers, key_dim);
  json_name(writer, "value");
  json_floats(writer, numbers + key_dim, value_dim);
  json_close_object(writer);
}

static void write_page(const struct api *api, const struct memory *memory, const struct page *page,
                       struct http_reply *reply) {
  const size_t total = attn_snapshot_rows(memory->snapshot);
  const size_t first = page->offset < total ? page->offset : total;
  const size_t count = total - first < page->limit ? total - first : page->limit;
  float *numbers =
      malloc((attn_snapshot_key_dim(memory->snapshot) + attn_snapshot_value_dim(memory->snapshot)) *
             sizeof *numbers);
  if (!numbers) {
    api_problem(reply, PROBLEM_OUT_OF_MEMORY, "", "there is not enough memory for the page");
    return;
  }
  struct json_writer writer;
  reply->body.limit = api->max_reply_bytes;
  json_begin(&writer, &reply->body);
  json_open_object(&writer);
  json_name(&writer, "rows");
  json_open_array(&writer);
  for (size_t i = 0; i < count && reply->body.status == BUFFER_OK; i++)
    write_row(&writer, memory, first + i, numbers);
  json_close_array(&writer);
  json_name(&writer, "total");
  json_int64(&writer, (int64_t)total);
  json_name(&writer, "version");
  json_int64(&writer, memory->version);
  json_close_object(&writer);
  free(numbers);
  reply->content_type = "application/json";
  api_set_etag(reply, memory->version);
  if (reply->body.status == BUFFER_FULL)
    api_problem(reply, PROBLEM_REPLY_TOO_LARGE, "",
                "the page would be longer than the limit of %zu bytes; ask for a smaller limit",
                api->max_reply_bytes);
  else
    api_finish(api, reply);
}

void api_list_rows(void *context, const struct http_request *request, struct http_reply *reply) {
  const struct api *api = context;
  struct problem problem;
  struct page page;
  if (!read_page(request->query_string, &page, &problem)) {
    http_reply_problem(reply, &problem);
    return;
  }
  struct memory *memory = api_pin(api, request->name, reply);
  if (!memory) return;
  if (api_is_known(request, memory->version)) {
    reply->status = 304;
    api_set_etag(reply, memory->version);
  } else {
    write_page(api, memory, &page, reply);
  }
  memory_free(memory);
}

/* ---- Changes ---- */

static void write_number(struct json_writer *writer, const char *name, size_t number) {
  json_name(writer, name);
  json_int64(writer, (int64_t)number);
}

static void answer(struct changing *changing) {
  const struct write *write = &changing->write;
  struct http_reply *reply = changing->reply;
  struct json_writer writer;
  json_begin(&writer, &reply->body);
  json_open_object(&writer);
  json_name(&writer, "version");
  json_int64(&writer, write->version);
  write_number(&writer, "rows", write->total);
  if (write->kind == WRITE_ROWS) {
    write_number(&writer, "inserted", write->inserted);
    write_number(&writer, "updated", write->updated);
  } else {
    write_number(&writer, "deleted", write->deleted);
  }
  json_close_object(&writer);
  reply->content_type = "application/json";
  api_set_etag(reply, write->version);
  api_finish(changing->api, reply);
}

/* Of what is appended, so that a key that comes again with other rows is
 * noticed. The hash's own key is fixed: fingerprints outlive the process. */
static uint64_t fingerprint(const struct rows_body *body) {
  const struct hash_key key = {.low = 0x6174746e, .high = body->keys.cols};
  uint64_t parts[4] = {0};
  parts[0] = keyed_hash(key, body->keys.data, body->keys.rows * body->keys.cols * sizeof(float));
  parts[1] =
      keyed_hash(key, body->values.data, body->values.rows * body->values.cols * sizeof(float));
  for (size_t i = 0; i < id_list_count(body->ids); i++) {
    size_t length;
    const char *id = id_list_get(body->ids, i, &length);
    const struct hash_key after = {.low = parts[2], .high = length};
    parts[2] = keyed_hash(after, id, length);
  }
  parts[3] = body->has_ttl ? (uint64_t)building_ttl_ms(body->ttl_seconds) : UINT64_MAX;
  return keyed_hash(key, parts, sizeof parts);
}

void api_post_rows(void *context, const struct http_request *request, struct http_reply *reply) {
  struct problem problem;
  struct changing *changing = changing_create(context, request, reply, WRITE_ROWS, answer);
  if (!changing) return;
  struct rows_body *body = &changing->rows;
  const bool parsed =
      request->body_media == &http_tensors
          ? tensor_body_parse_rows(request->body, request->body_length, body, &problem)
          : body_parse_rows(request->body, request->body_length, body, &problem);
  if (!parsed) {
    changing_refuse(changing, &problem);
    return;
  }
  struct write *write = &changing->write;
  write->keys = body->keys.data;
  write->values = body->values.data;
  write->rows = body->keys.rows;
  write->key_dim = body->keys.cols;
  write->value_dim = body->values.cols;
  write->ids = body->ids;
  write->has_ttl = body->has_ttl;
  write->ttl_ms = building_ttl_ms(body->ttl_seconds);
  if (*request->idempotency_key) {
    write->idempotency_key = request->idempotency_key;
    write->fingerprint = fingerprint(body);
  }
  changing_submit(changing);
}

void api_delete_rows(void *context, const struct http_request *request, struct http_reply *reply) {
  struct problem problem;
  struct changing *changing = changing_create(context, request, reply, WRITE_REMOVAL, answer);
  if (!changing) return;
  if (body_parse_removal(request->body, request->body_length, &changing->rows.ids, &problem)) {
    changing->write.ids = changing->rows.ids;
    changing_submit(changing);
  } else {
    changing_refuse(changing, &problem);
  }
}
