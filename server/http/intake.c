/* Where the bytes of a request's body go.
 *
 * Most bodies are collected, since their reader wants them whole. One that is
 * too large for that is an upload: its pieces go to the route's http_upload as
 * they come, and nothing is kept here. The limit on a body holds for both, and
 * is counted here because a chunked body does not announce its length.
 *
 * An announced length is a claim. Room for a body that is collected is made by what has
 * come of it: a long body soon has all of its room in one go, and who announces one and
 * sends nothing gets none.
 *
 * The invariant is about the upload's end: it is either handed over to the
 * handler or dropped, once. Whoever ends a request without its handler only has to
 * call intake_drop(), as often as it likes.
 *
 * Threads: as the request it belongs to (request.c). An upload is handed over
 * on the worker, and dropped on the I/O thread before or after that. */
#include "http/intake.h"

/* Room is made for so many times what has come, up to that many bytes; from there on it
 * doubles. */
enum { AHEAD = 16, AHEAD_MOST = 1 << 20 };

/* The most memory that is kept for the next body. */
#define KEPT_BODY 4096

void intake_init(struct intake *intake, uint64_t limit) {
  *intake = (struct intake){.limit = limit};
  buffer_init(&intake->collected, 0);
}

void intake_renew(struct intake *intake, uint64_t limit) {
  *intake = (struct intake){.limit = limit, .collected = intake->collected};
}

void intake_free(struct intake *intake) {
  buffer_free(&intake->collected);
}

bool intake_begin(struct intake *intake, const struct intake_source *source,
                  struct problem *problem) {
  if (source->upload) {
    void *upload = NULL;
    if (!source->upload->begin(source->api, source->request, source->length, &upload, problem))
      return false;
    if (upload) {
      intake->to = source->upload;
      intake->upload = upload;
      intake->pending = true;
      return true;
    }
  }
  intake->announced = source->length == UINT64_MAX ? 0 : source->length;
  return true;
}

/* For the piece, which has come, and for some of what is to come. */
static void make_room(struct intake *intake, size_t count) {
  struct buffer *collected = &intake->collected;
  if (count < collected->capacity - collected->length || intake->announced <= intake->taken) return;
  uint64_t ahead = intake->taken < AHEAD_MOST / AHEAD ? AHEAD * intake->taken : AHEAD_MOST;
  if (ahead > intake->announced) ahead = intake->announced;
  if (ahead > intake->taken) buffer_reserve(collected, (size_t)ahead - collected->length);
}

bool intake_piece(struct intake *intake, const char *bytes, size_t count, struct problem *problem) {
  if (count > intake->limit - intake->taken)
    return problem_set(problem, PROBLEM_BODY_TOO_LARGE, "",
                       "a body has at most %llu bytes, but this one has more",
                       (unsigned long long)intake->limit);
  intake->taken += count;
  if (intake->to) return intake->to->piece(intake->upload, bytes, count, problem);
  make_room(intake, count);
  if (!buffer_append(&intake->collected, bytes, count))
    return problem_set(problem, PROBLEM_OUT_OF_MEMORY, "", "no memory for the body");
  return true;
}

void intake_show(const struct intake *intake, struct http_request *request) {
  request->upload = intake->upload;
  request->body = intake->collected.data ? intake->collected.data : "";
  request->body_length = intake->collected.length;
}

void intake_hand_over(struct intake *intake) {
  intake->pending = false;
}

void intake_drop(struct intake *intake) {
  buffer_renew(&intake->collected, 0, KEPT_BODY);
  if (intake->pending) intake->to->drop(intake->upload);
  intake->pending = false;
  intake->upload = NULL;
}
