/* Replies: problem documents, headers, and the two ways out.
 *
 * Headers are decided in one place, reply_headers(), for both ways. Beyond
 * what the handler asked for there are three: `X-Content-Type-Options:
 * nosniff`, because a browser that is shown a reply must not take a stored
 * string for markup; `Cache-Control`, because an answer is true of one version
 * of a memory (with an ETag a cache may keep it but has to ask, without one it
 * must not keep it); and `Connection: close` on the last reply. Date and
 * Content-Length are libmicrohttpd's business. Where a reply has two forms,
 * `Vary` says what they go by; they share one ETag, which names the version
 * and not the bytes.
 *
 * A small body is sent from the memory it was written to, which serves for another
 * reply once the request has ended: to hand it over would cost a malloc() and a free()
 * for each.
 *
 * A stream is read in blocks: libmicrohttpd asks for the next one when the one
 * before is out, so a reply of any size holds one block of memory. The stream
 * outlives the request, which libmicrohttpd ends before it frees the response;
 * so the response has a copy of it. */
#include "http/reply.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#define MOST_HEADERS  10
#define RETRY_SECONDS 1

#define STREAM_BLOCK  (256 << 10)

/* A body whose memory is not more is sent from where it is. */
#define KEPT_BODY 4096

struct header {
  const char *name, *value;
};

struct headers {
  struct header list[MOST_HEADERS];
  size_t count;
  char retry_after[12];
};

void reply_init(struct http_reply *reply) {
  *reply = (struct http_reply){.status = 200};
  buffer_init(&reply->body, 0);
}

static void release_stream(const struct http_stream *stream) {
  if (stream->read && stream->release) stream->release(stream->context);
}

void reply_free(struct http_reply *reply) {
  buffer_free(&reply->body);
  release_stream(&reply->stream);
  reply->stream = (struct http_stream){0};
}

void reply_renew(struct http_reply *reply) {
  release_stream(&reply->stream);
  buffer_renew(&reply->body, 0, KEPT_BODY);
  *reply = (struct http_reply){.status = 200, .body = reply->body};
}

uint64_t reply_length(const struct http_reply *reply) {
  return reply->stream.read ? reply->stream.length : reply->body.length;
}

const struct http_error_format http_problem_json = {"application/problem+json", problem_write};

void http_reply_problem(struct http_reply *reply, const struct problem *problem) {
  const struct http_error_format *errors = reply->errors;
  reply_renew(reply);
  reply->errors = errors;
  if (!errors) errors = &http_problem_json;
  reply->status = problem_info(problem->code)->status;
  reply->content_type = errors->content_type;
  errors->write(&reply->body, problem);
  if (reply->status == 503) reply->retry_after = RETRY_SECONDS;
}

static void add(struct headers *headers, const char *name, const char *value) {
  if (value && *value) headers->list[headers->count++] = (struct header){name, value};
}

static void reply_headers(const struct http_reply *reply, bool close, struct headers *headers) {
  headers->count = 0;
  add(headers, "Content-Type", reply->content_type);
  add(headers, "Content-Encoding", reply->content_encoding);
  add(headers, "ETag", reply->etag);
  add(headers, "Location", reply->location);
  add(headers, "Allow", reply->allow);
  if (reply->retry_after > 0) {
    snprintf(headers->retry_after, sizeof headers->retry_after, "%u", reply->retry_after);
    add(headers, "Retry-After", headers->retry_after);
  }
  add(headers, "Cache-Control", reply->etag[0] ? "no-cache" : "no-store");
  if (reply->varies) add(headers, "Vary", "Accept");
  if (reply->content_type) add(headers, "X-Content-Type-Options", "nosniff");
  if (close) add(headers, "Connection", "close");
}

static ssize_t read_stream(void *context, uint64_t at, char *bytes, size_t room) {
  const struct http_stream *stream = context;
  ssize_t count = stream->read(stream->context, at, bytes, room);
  /* Of nothing libmicrohttpd would ask again at once, for ever. */
  return count > 0 && (size_t)count <= room ? count : MHD_CONTENT_READER_END_WITH_ERROR;
}

static void end_stream(void *context) {
  struct http_stream *stream = context;
  release_stream(stream);
  free(stream);
}

static struct MHD_Response *stream_response(struct http_reply *reply) {
  struct http_stream *stream = malloc(sizeof *stream);
  if (!stream) return NULL;
  *stream = reply->stream;
  size_t block = stream->length < STREAM_BLOCK ? (size_t)stream->length : STREAM_BLOCK;
  struct MHD_Response *response = MHD_create_response_from_callback(
      stream->length, block > 0 ? block : 1, read_stream, stream, end_stream);
  if (!response) {
    free(stream);
    return NULL;
  }
  reply->stream = (struct http_stream){0};
  return response;
}

static struct MHD_Response *body_response(struct http_reply *reply) {
  if (reply->body.capacity <= KEPT_BODY)
    return MHD_create_response_from_buffer(reply->body.length, reply->body.data,
                                           MHD_RESPMEM_PERSISTENT);
  /* buffer.h's memory is malloc's, so free() is the way to end it. */
  struct MHD_Response *response = MHD_create_response_from_buffer_with_free_callback(
      reply->body.length, reply->body.data, free);
  if (response) buffer_init(&reply->body, 0);
  return response;
}

bool reply_queue(struct http_reply *reply, struct MHD_Connection *connection, bool close) {
  struct headers headers;
  reply_headers(reply, close, &headers);
  /* From here on the response owns body or stream. */
  struct MHD_Response *response =
      reply->stream.read ? stream_response(reply) : body_response(reply);
  if (!response) return false;
  bool done = true;
  for (size_t i = 0; i < headers.count && done; i++)
    done =
        MHD_add_response_header(response, headers.list[i].name, headers.list[i].value) == MHD_YES;
  if (done) done = MHD_queue_response(connection, (unsigned)reply->status, response) == MHD_YES;
  MHD_destroy_response(response);
  return done;
}

static void append_date(struct buffer *out) {
  static const char *const days[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
  static const char *const months[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                       "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
  time_t now = time(NULL);
  struct tm tm;
  if (!gmtime_r(&now, &tm)) return;
  /* Not strftime(): its names follow the locale. */
  buffer_printf(out, "Date: %s, %02d %s %04d %02d:%02d:%02d GMT\r\n", days[tm.tm_wday], tm.tm_mday,
                months[tm.tm_mon], tm.tm_year + 1900, tm.tm_hour, tm.tm_min, tm.tm_sec);
}

void reply_send_at_once(const struct http_reply *reply, int descriptor) {
  struct headers headers;
  reply_headers(reply, true, &headers);
  struct buffer out;
  buffer_init(&out, 0);
  buffer_printf(&out, "HTTP/1.1 %d %s\r\n", reply->status,
                MHD_get_reason_phrase_for((unsigned)reply->status));
  append_date(&out);
  for (size_t i = 0; i < headers.count; i++)
    buffer_printf(&out, "%s: %s\r\n", headers.list[i].name, headers.list[i].value);
  buffer_printf(&out, "Content-Length: %zu\r\n\r\n", reply->body.length);
  buffer_append(&out, reply->body.data, reply->body.length);
  if (out.status == BUFFER_OK) send(descriptor, out.data, out.length, MSG_DONTWAIT | MSG_NOSIGNAL);
  buffer_free(&out);
}
