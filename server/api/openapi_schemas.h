/* The shapes of bodies that no table of the code knows, as JSON Schema
 * (2020-12, which OpenAPI 3.1 uses). Read by api/openapi.c alone. */
#ifndef API_OPENAPI_SCHEMAS_H
#define API_OPENAPI_SCHEMAS_H

#define SCHEMA_REF(name) "{\"$ref\":\"#/components/schemas/" name "\"}"
#define SCHEMA_COUNT     "{\"type\":\"integer\",\"minimum\":0}"
#define SCHEMA_DIM       "{\"type\":\"integer\",\"minimum\":1,\"maximum\":1048576}"

#define SCHEMA_VECTOR    "{\"type\":\"array\",\"items\":{\"type\":\"number\"}}"
#define SCHEMA_IDS                                                                                 \
  "{\"type\":\"array\",\"uniqueItems\":true,\"minItems\":1,\"items\":{\"type\":\"string\","        \
  "\"minLength\":1,\"maxLength\":256}}"
#define SCHEMA_TTL "{\"type\":[\"number\",\"null\"],\"exclusiveMinimum\":0,\"maximum\":3155760000}"

/* What both kinds of attend request may have. */
/* clang-format off */
#define SCHEMA_ATTEND_MEMBERS                                                    \
  "\"queries\":" SCHEMA_REF("Matrix")                                            \
  ",\"score\":" SCHEMA_REF("Score")                                              \
  ",\"normalization\":" SCHEMA_REF("Normalization")                              \
  ",\"weights\":{\"default\":\"full\",\"oneOf\":[{\"enum\":[\"full\",\"none\"]}," \
  "{\"type\":\"object\",\"properties\":{\"top\":{\"type\":\"integer\",\"minimum\":1}}," \
  "\"required\":[\"top\"],\"additionalProperties\":false}]}"                     \
  ",\"timeout_ms\":{\"type\":\"integer\",\"minimum\":1,\"maximum\":86400000}"
/* clang-format on */

static const struct {
  const char *name, *json;
} openapi_schemas
    [] =
        {
            {"Matrix",
             "{\"description\":\"Rows of equal length; each number fits float32.\","
             "\"type\":\"array\",\"minItems\":1,\"items\":{\"type\":\"array\",\"minItems\":1,"
             "\"items\":{\"type\":\"number\"}}}"},
            {"Memory",
             "{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\"},"
             "\"version\":{\"type\":\"integer\",\"minimum\":1},"
             "\"rows\":" SCHEMA_COUNT ",\"query_dim\":" SCHEMA_DIM ",\"key_dim\":" SCHEMA_DIM
             ",\"value_dim\":" SCHEMA_DIM ",\"dtype\":" SCHEMA_REF(
                 "Dtype") ","
                          "\"score\":{\"type\":\"object\",\"description\":\"Numbers in force; "
                          "tensors "
                          "by shape.\"},"
                          "\"normalization\":{\"type\":\"object\"},\"ttl_seconds\":{\"type\":"
                          "\"number\"},\"damaged\":{\"type\":\"string\"},\"bytes\":" SCHEMA_COUNT
                          "},"
                          "\"required\":[\"name\",\"version\",\"rows\",\"query_dim\",\"key_dim\","
                          "\"value_dim\","
                          "\"dtype\",\"score\",\"normalization\",\"bytes\"]}"},
            {"MemoryList", "{\"type\":\"object\",\"properties\":{\"memories\":{\"type\":\"array\","
                           "\"items\":" SCHEMA_REF("Memory") "}},\"required\":[\"memories\"]}"},
            {"MemoryBody",
             "{\"description\":\"keys and values, or key_dim and value_dim for an empty memory.\","
             "\"type\":\"object\",\"properties\":{\"keys\":" SCHEMA_REF(
                 "Matrix") ","
                           "\"values\":" SCHEMA_REF(
                               "Matrix") ",\"ids\":{\"type\":\"array\",\"uniqueItems\":true,"
                                         "\"items\":{\"type\":\"string\",\"minLength\":1,"
                                         "\"maxLength\":"
                                         "256}"
                                         "},"
                                         "\"key_dim\":" SCHEMA_DIM ",\"value_dim\":" SCHEMA_DIM
                                         ",\"score\":" SCHEMA_REF("Score") ","
                                                                           "\"ttl_"
                                                                           "seconds\":" SCHEMA_TTL
                                                                           ",\"normalization\""
                                                                           ":" SCHEMA_REF("Normaliz"
                                                                                          "ation") ",\"dtype\":" SCHEMA_REF(
                                                                               "Dtype") ""
                                                                                        "},"
                                                                                        "\"oneOf\":"
                                                                                        "[{"
                                                                                        "\"required"
                                                                                        "\":["
                                                                                        "\"keys\","
                                                                                        "\"values\""
                                                                                        "]},{"
                                                                                        "\"required"
                                                                                        "\":[\"key_"
                                                                                        "dim\","
                                                                                        "\"value_"
                                                                                        "dim\"]}],"
                                                                                        "\"addition"
                                                                                        "alProperti"
                                                                                        "es\":"
                                                                                        "false}"},
            {"AttendRequest", "{\"type\":\"object\",\"properties\":{" SCHEMA_ATTEND_MEMBERS "},"
                              "\"required\":[\"queries\"],\"additionalProperties\":false}"},
            {"AdHocRequest", "{\"type\":\"object\",\"properties\":{" SCHEMA_ATTEND_MEMBERS ","
                             "\"keys\":" SCHEMA_REF("Matrix") ",\"values\":" SCHEMA_REF(
                                 "Matrix") "},"
                                           "\"required\":[\"queries\",\"keys\",\"values\"],"
                                           "\"additionalProperties\":false}"},
            {"Weight", "{\"type\":\"object\",\"properties\":{\"row\":" SCHEMA_COUNT ","
                       "\"id\":{\"type\":\"string\"},\"weight\":{\"type\":\"number\"}},"
                       "\"required\":[\"row\",\"weight\"]}"},
            {"AttendReply",
             "{\"type\":\"object\",\"properties\":{\"memory\":{\"type\":\"string\"},"
             "\"version\":{\"type\":\"integer\"},\"outputs\":" SCHEMA_REF(
                 "Matrix") ","
                           "\"weights\":{\"oneOf\":[" SCHEMA_REF(
                               "Matrix") ",{\"type\":\"array\",\"items\":{\"type\":"
                                         "\"array\",\"items\":" SCHEMA_REF(
                                             "Weight") "}}]}},\"required\":[\"outputs\"]}"},
            {"Problem",
             "{\"description\":\"RFC 9457.\",\"type\":\"object\",\"properties\":{"
             "\"type\":{\"type\":\"string\"},\"title\":{\"type\":\"string\"},"
             "\"status\":{\"type\":\"integer\"},\"detail\":{\"type\":\"string\"},"
             "\"code\":" SCHEMA_REF(
                 "ProblemCode") ",\"pointer\":{\"type\":\"string\","
                                "\"description\":\"RFC 6901, into the request's body.\"}},"
                                "\"required\":[\"type\",\"title\",\"status\",\"detail\",\"code\"]"
                                "}"},
            {"Status", "{\"type\":\"object\",\"properties\":{\"status\":{\"type\":\"string\"}},"
                       "\"required\":[\"status\"]}"},
            {"SettingsBody",
             "{\"type\":\"object\",\"properties\":{\"score\":" SCHEMA_REF(
                 "Score") ",\"normalization\":" SCHEMA_REF("Normalization") ","
                                                                            "\"ttl_"
                                                                            "seconds\":" SCHEMA_TTL
                                                                            "},"
                                                                            "\"additionalProperties"
                                                                            "\":false}"},
            {"RowsBody", "{\"description\":\"With ids, rows that are there already are replaced.\","
                         "\"type\":\"object\",\"properties\":{\"keys\":" SCHEMA_REF(
                             "Matrix") ","
                                       "\"values\":" SCHEMA_REF(
                                           "Matrix") ",\"ids\":" SCHEMA_IDS ","
                                                     "\"ttl_seconds\":" SCHEMA_TTL
                                                     "},\"required\":[\"keys\",\"values\"],"
                                                     "\"additionalProperties\":false}"},
            {"RowsReply", "{\"type\":\"object\",\"properties\":{\"version\":" SCHEMA_COUNT ","
                          "\"rows\":" SCHEMA_COUNT ",\"inserted\":" SCHEMA_COUNT ","
                          "\"updated\":" SCHEMA_COUNT "},\"required\":[\"version\",\"rows\","
                          "\"inserted\",\"updated\"]}"},
            {"RemovalBody", "{\"type\":\"object\",\"properties\":{\"ids\":" SCHEMA_IDS "},"
                            "\"required\":[\"ids\"],\"additionalProperties\":false}"},
            {"RemovalReply", "{\"type\":\"object\",\"properties\":{\"version\":" SCHEMA_COUNT ","
                             "\"rows\":" SCHEMA_COUNT ",\"deleted\":" SCHEMA_COUNT "},"
                             "\"required\":[\"version\",\"rows\",\"deleted\"]}"},
            {"RowPage", "{\"type\":\"object\",\"properties\":{\"rows\":{\"type\":\"array\","
                        "\"items\":{\"type\":\"object\",\"properties\":{\"row\":" SCHEMA_COUNT ","
                        "\"id\":{\"type\":\"string\"},\"key\":" SCHEMA_VECTOR
                        ",\"value\":" SCHEMA_VECTOR "},\"required\":[\"row\",\"key\",\"value\"]}},"
                        "\"total\":" SCHEMA_COUNT ",\"version\":" SCHEMA_COUNT "},"
                        "\"required\":[\"rows\",\"total\",\"version\"]}"},
            {"Tensors",
             "{\"description\":\"safetensors: tensors named as the members of the JSON form, "
             "score.w and so on for those of a score; all else as JSON text in __metadata__, "
             "under request or reply.\",\"type\":\"string\",\"format\":\"binary\"}"},
            {"Binary", "{\"type\":\"string\",\"format\":\"binary\"}"},
            {"Text", "{\"type\":\"string\"}"},
            {"Document", "{\"type\":\"object\"}"},
};

#endif
