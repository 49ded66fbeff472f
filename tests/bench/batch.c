/* Batches as text. The numbers are printed by the daemon's own writer, at full
 * length: eight or nine digits are what clients send. */
#include "batch.h"

#include <stdlib.h>

#include "bench.h"
#include "codec/write.h"

void batch_print(struct buffer *out, const float *values, size_t rows, size_t cols) {
  struct json_writer writer;
  json_begin(&writer, out);
  json_matrix(&writer, values, rows, cols);
}

void batch_body(struct buffer *out, const float *queries, size_t count, size_t dim) {
  struct json_writer writer;
  json_begin(&writer, out);
  json_open_object(&writer);
  json_name(&writer, "queries");
  json_matrix(&writer, queries, count, dim);
  json_name(&writer, "weights");
  json_text(&writer, "none");
  json_close_object(&writer);
}

struct buffer batch_request(const char *memory, size_t count, size_t dim) {
  struct buffer body, request;
  float *queries = new_normal(count * dim, 31);
  buffer_init(&body, 0);
  buffer_init(&request, 0);
  batch_body(&body, queries, count, dim);
  buffer_printf(&request,
                "POST /v1/memories/%s/attend HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n",
                memory, body.length);
  buffer_append(&request, body.data, body.length);
  must(request.status == BUFFER_OK ? ATTN_OK : ATTN_NO_MEMORY, "a request");
  buffer_free(&body);
  free(queries);
  return request;
}
