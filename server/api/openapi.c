/* GET /openapi.json: the OpenAPI 3.1 document of the route table.
 *
 * Paths, operations and summaries come from the routes; scores, normalizations
 * and their parameters from the library's tables; the codes of problems from
 * PROBLEM_LIST. What is written by hand is what no table knows: the shapes of
 * bodies (openapi_schemas.h) and which of them an operation takes and returns
 * (the table below). A test asks for an entry per route. */
#include <stdio.h>
#include <string.h>

#include "api/api.h"
#include "api/openapi_schemas.h"
#include "codec/safetensors.h"

enum { IF_MATCH = 1, IF_NONE_MATCH = 2, IDEMPOTENCY = 4, PAGING = 8 };

static const struct operation_doc {
  const char *operation;
  const char *request; /* schema of the body, "" for none */
  const char *reply;   /* schema of the reply, "" for none */
  const char *media_type;
  const char *successes; /* statuses */
  const char *failures;  /* statuses, all with a Problem */
  unsigned headers;      /* and parameters of the query */
} docs[] = {
    {"getHealth", "", "Status", "application/json", "200", "", 0},
    {"getReadiness", "", "Status", "application/json", "200", "503", 0},
    {"getMetrics", "", "Text", "text/plain", "200", "", 0},
    {"getOpenapi", "", "Document", "application/json", "200", "", 0},
    {"listMemories", "", "MemoryList", "application/json", "200", "503 507", 0},
    {"getMemory", "", "Memory", "application/json", "200 304", "400 404 500 503", IF_NONE_MATCH},
    {"putMemory", "MemoryBody", "Memory", "application/json", "200 201",
     "400 412 413 415 422 503 507", IF_MATCH | IF_NONE_MATCH},
    {"patchMemory", "SettingsBody", "Memory", "application/json", "200",
     "400 404 412 413 415 422 500 503 507", IF_MATCH},
    {"deleteMemory", "", "", "", "204", "400 404 412 503 507", IF_MATCH},
    {"listRows", "", "RowPage", "application/json", "200 304", "400 404 422 500 503 507",
     IF_NONE_MATCH | PAGING},
    {"postRows", "RowsBody", "RowsReply", "application/json", "200",
     "400 404 409 412 413 415 422 500 503 507", IF_MATCH | IDEMPOTENCY},
    {"deleteRows", "RemovalBody", "RemovalReply", "application/json", "200",
     "400 404 412 413 415 500 503 507", IF_MATCH},
    {"attend", "AttendRequest", "AttendReply", "application/json", "200",
     "400 404 413 415 422 500 503 504 507", 0},
    {"attendAdHoc", "AdHocRequest", "AttendReply", "application/json", "200",
     "400 413 415 422 503 504 507", 0},
    {"getBackup", "", "Binary", "application/vnd.sqlite3", "200", "409 503 507", 0},
};

static const struct operation_doc *find_doc(const char *operation) {
  for (size_t i = 0; i < sizeof docs / sizeof *docs; i++)
    if (strcmp(docs[i].operation, operation) == 0) return &docs[i];
  return NULL;
}

static void member(struct json_writer *writer, const char *name, const char *value) {
  json_name(writer, name);
  json_text(writer, value);
}

static void media(struct json_writer *writer, const char *type, const char *schema) {
  char path[96];
  snprintf(path, sizeof path, "#/components/schemas/%s", schema);
  json_members(writer, "{s:{s:{s:s}}}", type, "schema", "$ref", path);
}

/* In that form, and in each further one of the set, which may be NULL. */
static void content(struct json_writer *writer, const char *media_type, const char *schema,
                    const struct http_media *const *forms) {
  json_name(writer, "content");
  json_open_object(writer);
  media(writer, media_type, schema);
  for (size_t i = 1; forms && forms[i]; i++)
    media(writer, forms[i]->type, forms[i] == &http_tensors ? "Tensors" : "Binary");
  json_close_object(writer);
}

/* ---- Paths ---- */

static void write_parameter(struct json_writer *writer, const char *name, const char *in,
                            const char *description, const char *schema) {
  json_open_object(writer);
  json_members(writer, "{s:s,s:s,s:b,s:s}", "name", name, "in", in, "required",
               strcmp(in, "path") == 0, "description", description);
  json_name(writer, "schema");
  json_raw(writer, schema);
  json_close_object(writer);
}

static void write_parameters(struct json_writer *writer, const struct http_route *route,
                             const struct operation_doc *doc) {
  json_name(writer, "parameters");
  json_open_array(writer);
  const char *placeholder = route->pattern;
  while ((placeholder = strchr(placeholder, '{'))) {
    char name[32];
    placeholder++;
    snprintf(name, sizeof name, "%.*s", (int)strcspn(placeholder, "}"), placeholder);
    write_parameter(writer, name, "path",
                    strcmp(name, "name") == 0 ? "The memory's name." : "A name.",
                    "{\"type\":\"string\",\"pattern\":\"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}$\"}");
  }
  if (doc->headers & IF_MATCH)
    write_parameter(writer, "If-Match", "header",
                    "Go ahead only if the memory has this ETag; * for any.",
                    "{\"type\":\"string\"}");
  if (doc->headers & IF_NONE_MATCH)
    write_parameter(writer, "If-None-Match", "header",
                    "Go ahead only if the memory has not this ETag; * if there is none.",
                    "{\"type\":\"string\"}");
  if (doc->headers & IDEMPOTENCY)
    write_parameter(writer, "Idempotency-Key", "header",
                    "An append that comes again with the key of an earlier one is not done again.",
                    "{\"type\":\"string\",\"minLength\":1,\"maxLength\":255}");
  if (doc->headers & PAGING) {
    write_parameter(writer, "offset", "query", "The first row.",
                    "{\"type\":\"integer\",\"minimum\":0,\"default\":0}");
    write_parameter(writer, "limit", "query", "How many rows, at most.",
                    "{\"type\":\"integer\",\"minimum\":1,\"maximum\":10000,\"default\":100}");
  }
  json_close_array(writer);
}

static void write_replies(struct json_writer *writer, const char *statuses, const char *schema,
                          const char *media_type, const struct http_media *const *forms) {
  while (*statuses) {
    char status[4];
    snprintf(status, sizeof status, "%.3s", statuses);
    json_name(writer, status);
    json_open_object(writer);
    member(writer, "description", *status < '4' ? "Done." : "Not done; the body says why.");
    if (*schema && strcmp(status, "304") != 0) content(writer, media_type, schema, forms);
    json_close_object(writer);
    statuses += 3;
    statuses += strspn(statuses, " ");
  }
}

static void write_operation(struct json_writer *writer, const struct http_route *route) {
  static const char *const methods[HTTP_METHOD_COUNT] = {[HTTP_GET] = "get",
                                                         [HTTP_PUT] = "put",
                                                         [HTTP_POST] = "post",
                                                         [HTTP_PATCH] = "patch",
                                                         [HTTP_DELETE] = "delete"};
  const struct operation_doc *doc = find_doc(route->operation);
  if (!doc) return;
  json_name(writer, methods[route->method]);
  json_open_object(writer);
  json_members(writer, "{s:s,s:s}", "operationId", route->operation, "summary", route->summary);
  write_parameters(writer, route, doc);
  if (*doc->request && route->takes) {
    json_name(writer, "requestBody");
    json_open_object(writer);
    json_members(writer, "{s:b}", "required", true);
    content(writer, route->takes[0]->type, doc->request, route->takes);
    json_close_object(writer);
  }
  json_name(writer, "responses");
  json_open_object(writer);
  write_replies(writer, doc->successes, doc->reply, doc->media_type, route->sends);
  const struct http_error_format *errors = route->errors ? route->errors : &http_problem_json;
  write_replies(writer, doc->failures, "Problem", errors->content_type, NULL);
  json_close_object(writer);
  json_close_object(writer);
}

static void write_paths(struct json_writer *writer) {
  json_name(writer, "paths");
  json_open_object(writer);
  for (size_t r = 0; r < api_route_count; r++) {
    const char *pattern = api_routes[r].pattern;
    bool first = true;
    for (size_t before = 0; before < r; before++)
      first = first && strcmp(api_routes[before].pattern, pattern) != 0;
    if (!first) continue;
    json_name(writer, pattern);
    json_open_object(writer);
    for (size_t same = r; same < api_route_count; same++)
      if (strcmp(api_routes[same].pattern, pattern) == 0)
        write_operation(writer, &api_routes[same]);
    json_close_object(writer);
  }
  json_close_object(writer);
}

/* ---- Scores and normalizations ---- */

static void write_bounds(struct json_writer *writer, const attn_param_info *info) {
  if (info->kind == ATTN_PARAM_COUNT) {
    json_members(writer, "{s:i}", "minimum", 1);
  } else if (info->kind == ATTN_PARAM_NUMBER && info->least > -1e300) {
    json_name(writer, info->above_least ? "exclusiveMinimum" : "minimum");
    json_double(writer, info->least);
  }
}

static void write_param(struct json_writer *writer, const attn_param_info *info) {
  static const char *const types[] = {[ATTN_PARAM_NUMBER] = "number",
                                      [ATTN_PARAM_COUNT] = "integer",
                                      [ATTN_PARAM_VECTOR] = "array",
                                      [ATTN_PARAM_MATRIX] = "array"};
  char description[160];
  snprintf(description, sizeof description, "%s%s%s%s%s", info->help,
           *info->shape ? "; shape " : "", info->shape, *info->default_text ? "; default " : "",
           info->default_text);
  json_name(writer, info->name);
  json_open_object(writer);
  json_members(writer, "{s:s,s:s}", "type", types[info->kind], "description", description);
  write_bounds(writer, info);
  if (info->kind == ATTN_PARAM_VECTOR) json_members(writer, "{s:{s:s}}", "items", "type", "number");
  if (info->kind == ATTN_PARAM_MATRIX)
    json_members(writer, "{s:{s:s,s:{s:s}}}", "items", "type", "array", "items", "type", "number");
  json_close_object(writer);
}

/* One entry of either table, as an object {"type": name, parameters}. */
static void write_kind(struct json_writer *writer, const char *name, const char *formula,
                       const attn_param_info *params, size_t count) {
  json_open_object(writer);
  json_members(writer, "{s:s,s:s,s:s}", "type", "object", "title", name, "description", formula);
  json_name(writer, "properties");
  json_open_object(writer);
  json_members(writer, "{s:{s:s}}", "type", "const", name);
  for (size_t p = 0; p < count; p++)
    write_param(writer, &params[p]);
  json_close_object(writer);
  json_name(writer, "required");
  json_open_array(writer);
  json_text(writer, "type");
  for (size_t p = 0; p < count; p++)
    if (params[p].required) json_text(writer, params[p].name);
  json_close_array(writer);
  json_members(writer, "{s:b}", "additionalProperties", false);
  json_close_object(writer);
}

static bool needs_nothing(const attn_param_info *params, size_t count) {
  for (size_t p = 0; p < count; p++)
    if (params[p].required) return false;
  return true;
}

static void open_names(struct json_writer *writer) {
  json_open_object(writer);
  member(writer, "type", "string");
  json_name(writer, "enum");
  json_open_array(writer);
}

static void close_names(struct json_writer *writer) {
  json_close_array(writer);
  json_close_object(writer);
}

static void write_kinds(struct json_writer *writer) {
  json_name(writer, "Score");
  json_open_object(writer);
  json_name(writer, "oneOf");
  json_open_array(writer);
  const attn_score_info *score;
  open_names(writer);
  for (size_t i = 0; (score = attn_score_info_at(i)); i++)
    if (needs_nothing(score->params, score->param_count)) json_text(writer, score->name);
  close_names(writer);
  for (size_t i = 0; (score = attn_score_info_at(i)); i++)
    write_kind(writer, score->name, score->formula, score->params, score->param_count);
  json_close_array(writer);
  json_close_object(writer);

  json_name(writer, "Normalization");
  json_open_object(writer);
  json_name(writer, "oneOf");
  json_open_array(writer);
  const attn_normalization_info *norm;
  open_names(writer);
  for (size_t i = 0; (norm = attn_normalization_info_at(i)); i++)
    json_text(writer, norm->name);
  close_names(writer);
  for (size_t i = 0; (norm = attn_normalization_info_at(i)); i++)
    write_kind(writer, norm->name, norm->formula, norm->params, norm->param_count);
  json_close_array(writer);
  json_close_object(writer);
}

static void write_dtypes(struct json_writer *writer) {
  json_name(writer, "Dtype");
  open_names(writer);
  const attn_dtype_info *info;
  for (size_t i = 0; (info = attn_dtype_info_at(i)); i++)
    json_text(writer, info->name);
  close_names(writer);
}

static void write_problem_codes(struct json_writer *writer) {
  json_name(writer, "ProblemCode");
  open_names(writer);
  for (int code = 0; code < PROBLEM_COUNT; code++)
    json_text(writer, problem_info((enum problem_code)code)->code);
  close_names(writer);
}

void api_openapi(void *context, const struct http_request *request, struct http_reply *reply) {
  (void)request;
  struct json_writer writer;
  json_begin(&writer, &reply->body);
  json_open_object(&writer);
  json_members(&writer, "{s:s,s:{s:s,s:s,s:s}}", "openapi", "3.1.0", "info", "title", "attentiond",
               "description",
               "Named key-value memories whose query is attention: scores, weights, weighted sums.",
               "version", attn_version());
  write_paths(&writer);
  json_name(&writer, "components");
  json_open_object(&writer);
  json_name(&writer, "schemas");
  json_open_object(&writer);
  for (size_t i = 0; i < sizeof openapi_schemas / sizeof *openapi_schemas; i++) {
    json_name(&writer, openapi_schemas[i].name);
    json_raw(&writer, openapi_schemas[i].json);
  }
  write_kinds(&writer);
  write_dtypes(&writer);
  write_problem_codes(&writer);
  json_close_object(&writer);
  json_close_object(&writer);
  json_close_object(&writer);
  reply->content_type = "application/json";
  api_finish(context, reply);
}
