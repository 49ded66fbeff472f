/* The shapes of bodies that no table of the code knows, as JSON Schema
 * (2020-12, which OpenAPI 3.1 uses). Read by api/openapi.c alone. */
#ifndef API_OPENAPI_SCHEMAS_H
#define API_OPENAPI_SCHEMAS_H

/* JSON in string literals is laid out by what it means. */
/* clang-format off */
#define REF(name) "{\"$ref\":\"#/components/schemas/" name "\"}"
#define COUNT     "{\"type\":\"integer\",\"minimum\":0}"
#define DIM       "{\"type\":\"integer\",\"minimum\":1,\"maximum\":1048576}"
#define VECTOR    "{\"type\":\"array\",\"items\":{\"type\":\"number\"}}"
#define IDS       "{\"type\":\"array\",\"uniqueItems\":true,\"items\":{\"type\":\"string\",\"minLength\":1,\"maxLength\":256}}"
#define TTL       "{\"type\":[\"number\",\"null\"],\"exclusiveMinimum\":0,\"maximum\":3155760000}"

/* What both kinds of attend request may have. */
#define ATTEND_MEMBERS \
     "\"queries\":" REF("Matrix") ",\"score\":" REF("Score") ",\"normalization\":" \
     REF("Normalization") ",\"weights\":{\"default\":\"full\"," \
     "\"oneOf\":[{\"enum\":[\"full\",\"none\"]},{\"type\":\"object\"," \
     "\"properties\":{\"top\":{\"type\":\"integer\",\"minimum\":1}}," \
     "\"required\":[\"top\"],\"additionalProperties\":false}]}," \
     "\"timeout_ms\":{\"type\":\"integer\",\"minimum\":1,\"maximum\":86400000}"

static const struct {
  const char *name, *json;
} openapi_schemas[] = {
    {"Matrix",
     "{\"description\":\"Rows of equal length; each number fits float32.\","
     "\"type\":\"array\",\"minItems\":1,\"items\":{\"type\":\"array\",\"minItems\":1,"
     "\"items\":{\"type\":\"number\"}}}"},
    {"Memory",
     "{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\"},"
     "\"version\":{\"type\":\"integer\",\"minimum\":1},\"rows\":" COUNT ",\"query_dim\":"
     DIM ",\"key_dim\":" DIM ",\"value_dim\":" DIM ",\"dtype\":" REF("Dtype") ","
     "\"score\":{\"type\":\"object\","
     "\"description\":\"Numbers in force; tensors by shape.\"},"
     "\"normalization\":{\"type\":\"object\"},\"ttl_seconds\":{\"type\":\"number\"},"
     "\"damaged\":{\"type\":\"string\"},\"bytes\":" COUNT "},\"required\":[\"name\","
     "\"version\",\"rows\",\"query_dim\",\"key_dim\",\"value_dim\",\"dtype\",\"score\","
     "\"normalization\",\"bytes\"]}"},
    {"MemoryList",
     "{\"type\":\"object\",\"properties\":{\"memories\":{\"type\":\"array\",\"items\":"
     REF("Memory") "}},\"required\":[\"memories\"]}"},
    {"MemoryBody",
     "{\"description\":\"keys and values, or key_dim and value_dim for an empty memory.\","
     "\"type\":\"object\",\"properties\":{\"keys\":" REF("Matrix") ",\"values\":"
     REF("Matrix") ",\"ids\":" IDS ",\"key_dim\":" DIM ",\"value_dim\":" DIM ","
     "\"score\":" REF("Score") ",\"ttl_seconds\":" TTL ",\"normalization\":"
     REF("Normalization") ",\"dtype\":" REF("Dtype") "},"
     "\"oneOf\":[{\"required\":[\"keys\",\"values\"]},{\"required\":[\"key_dim\","
     "\"value_dim\"]}],\"additionalProperties\":false}"},
    {"AttendRequest",
     "{\"type\":\"object\",\"properties\":{"
     ATTEND_MEMBERS
     "},\"required\":[\"queries\"],\"additionalProperties\":false}"},
    {"AdHocRequest",
     "{\"type\":\"object\",\"properties\":{"
     ATTEND_MEMBERS
     ",\"keys\":" REF("Matrix") ",\"values\":" REF("Matrix") "},\"required\":[\"queries\","
     "\"keys\",\"values\"],\"additionalProperties\":false}"},
    {"Weight",
     "{\"type\":\"object\",\"properties\":{\"row\":" COUNT ",\"id\":{\"type\":\"string\"},"
     "\"weight\":{\"type\":\"number\"}},\"required\":[\"row\",\"weight\"]}"},
    {"AttendReply",
     "{\"type\":\"object\",\"properties\":{\"memory\":{\"type\":\"string\"},"
     "\"version\":{\"type\":\"integer\"},\"outputs\":" REF("Matrix") ","
     "\"weights\":{\"oneOf\":[" REF("Matrix") ",{\"type\":\"array\","
     "\"items\":{\"type\":\"array\",\"items\":" REF("Weight") "}}]}},"
     "\"required\":[\"outputs\"]}"},
    {"Problem",
     "{\"description\":\"RFC 9457.\",\"type\":\"object\","
     "\"properties\":{\"type\":{\"type\":\"string\"},\"title\":{\"type\":\"string\"},"
     "\"status\":{\"type\":\"integer\"},\"detail\":{\"type\":\"string\"},\"code\":"
     REF("ProblemCode") ",\"pointer\":{\"type\":\"string\",\"description\":\"RFC 6901,"
     " into the request's body.\"}},\"required\":[\"type\",\"title\",\"status\","
     "\"detail\",\"code\"]}"},
    {"Status",
     "{\"type\":\"object\",\"properties\":{\"status\":{\"type\":\"string\"}},"
     "\"required\":[\"status\"]}"},
    {"SettingsBody",
     "{\"type\":\"object\",\"properties\":{\"score\":" REF("Score") ",\"normalization\":"
     REF("Normalization") ",\"ttl_seconds\":" TTL "},\"additionalProperties\":false}"},
    {"RowsBody",
     "{\"description\":\"With ids, rows that are there already are replaced.\","
     "\"type\":\"object\",\"properties\":{\"keys\":" REF("Matrix") ",\"values\":"
     REF("Matrix") ",\"ids\":" IDS ",\"ttl_seconds\":" TTL "},\"required\":[\"keys\","
     "\"values\"],\"additionalProperties\":false}"},
    {"RowsReply",
     "{\"type\":\"object\",\"properties\":{\"version\":" COUNT ",\"rows\":" COUNT ","
     "\"inserted\":" COUNT ",\"updated\":" COUNT "},\"required\":[\"version\",\"rows\","
     "\"inserted\",\"updated\"]}"},
    {"RemovalBody",
     "{\"type\":\"object\",\"properties\":{\"ids\":" IDS "},\"required\":[\"ids\"],"
     "\"additionalProperties\":false}"},
    {"RemovalReply",
     "{\"type\":\"object\",\"properties\":{\"version\":" COUNT ",\"rows\":" COUNT ","
     "\"deleted\":" COUNT "},\"required\":[\"version\",\"rows\",\"deleted\"]}"},
    {"RowPage",
     "{\"type\":\"object\",\"properties\":{\"rows\":{\"type\":\"array\","
     "\"items\":{\"type\":\"object\",\"properties\":{\"row\":" COUNT ","
     "\"id\":{\"type\":\"string\"},\"key\":" VECTOR ",\"value\":" VECTOR "},"
     "\"required\":[\"row\",\"key\",\"value\"]}},\"total\":" COUNT ",\"version\":" COUNT
     "},\"required\":[\"rows\",\"total\",\"version\"]}"},
    {"Tensors",
     "{\"description\":\"safetensors: tensors named as the members of the JSON form,"
     " score.w and so on for those of a score; all else as JSON text in __metadata__,"
     " under request or reply.\",\"type\":\"string\",\"format\":\"binary\"}"},
    {"Binary",
     "{\"type\":\"string\",\"format\":\"binary\"}"},
    {"Text",
     "{\"type\":\"string\"}"},
    {"Document",
     "{\"type\":\"object\"}"},
};

#undef REF
#undef COUNT
#undef DIM
#undef VECTOR
#undef IDS
#undef TTL
#undef ATTEND_MEMBERS
/* clang-format on */

#endif
