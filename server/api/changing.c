/* Changes: from a handler to the writer's thread and back into a reply. */
#include "api/changing.h"

#include <stdlib.h>

#include "engine/arriving.h"

static void changing_free(struct changing *changing) {
  memory_free(changing->write.memory);
  memory_free(changing->write.after);
  rows_body_free(&changing->rows);
  settings_body_free(&changing->settings);
  free(changing);
}

static void complete(struct changing *changing) {
  struct http_reply *reply = changing->reply;
  changing_free(changing);
  http_complete(reply);
}

void changing_refuse(struct changing *changing, const struct problem *problem) {
  arriving_end(changing->write.arriving);
  budget_give(&changing->api->budget, changing->write.charge);
  http_reply_problem(changing->reply, problem);
  complete(changing);
}

static void done(struct write *write) {
  struct changing *changing = (struct changing *)write;
  if (write->failed)
    http_reply_problem(changing->reply, &write->problem);
  else
    changing->answer(changing);
  complete(changing);
}

static bool is_allowed(const void *context, int64_t version) {
  return api_preconditions_hold(context, version);
}

struct changing *changing_create(struct api *api, const struct http_request *request,
                                 struct http_reply *reply, enum write_kind kind,
                                 void (*answer)(struct changing *changing)) {
  struct changing *changing = calloc(1, sizeof *changing);
  if (!changing) {
    api_problem(reply, PROBLEM_OUT_OF_MEMORY, "", "there is not enough memory for the request");
    http_complete(reply);
    return NULL;
  }
  changing->api = api;
  changing->http = request;
  changing->reply = reply;
  changing->answer = answer;
  changing->write = (struct write){
      .kind = kind, .name = request->name, .allowed = is_allowed, .context = request, .done = done};
  return changing;
}

void changing_submit(struct changing *changing) {
  if (writer_submit(changing->api->writer, &changing->write)) return;
  struct problem problem;
  problem_set(&problem, PROBLEM_NOT_READY, "", "the server is stopping");
  changing_refuse(changing, &problem);
}
