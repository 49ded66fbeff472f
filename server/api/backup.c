/* GET /v1/backup: a consistent copy of the store, while it serves.
 *
 * The writer has the copy made in a file beside the store, which loses its name
 * as soon as it is open: so nothing has to be cleaned up, whether the client
 * takes all of it or leaves. Where the process dies while it is made, the next
 * start removes it. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "api/changing.h"

struct copy {
  int descriptor;
};

static ssize_t read_some(void *context, uint64_t at, char *bytes, size_t room) {
  const struct copy *copy = context;
  const ssize_t count = pread(copy->descriptor, bytes, room, (off_t)at);
  return count > 0 ? count : -1;
}

static void release(void *context) {
  struct copy *copy = context;
  close(copy->descriptor);
  free(copy);
}

static void answer(struct changing *changing) {
  struct http_reply *reply = changing->reply;
  struct copy *copy = malloc(sizeof *copy);
  struct stat about;
  const int descriptor = open(changing->path, O_RDONLY | O_CLOEXEC);
  const int reason = errno;
  unlink(changing->path);
  if (!copy || descriptor < 0 || fstat(descriptor, &about) != 0) {
    api_problem(reply, PROBLEM_INTERNAL, "", "the copy of the store could not be read: %s",
                descriptor < 0 ? strerror(reason) : "there is not enough memory");
    if (descriptor >= 0) close(descriptor);
    free(copy);
    return;
  }
  copy->descriptor = descriptor;
  reply->content_type = "application/vnd.sqlite3";
  reply->stream = (struct http_stream){
      .length = (uint64_t)about.st_size, .read = read_some, .release = release, .context = copy};
}

void api_backup(void *context, const struct http_request *request, struct http_reply *reply) {
  struct api *api = context;
  struct changing *changing = changing_create(api, request, reply, WRITE_BACKUP, answer);
  if (!changing) return;
  const unsigned long number = atomic_fetch_add(&api->backups, 1);
  const int length =
      snprintf(changing->path, sizeof changing->path, "%s/" STORE_COPY_PREFIX "%ld-%lu",
               api->data_dir, (long)getpid(), number);
  if (length < 0 || (size_t)length >= sizeof changing->path) {
    struct problem problem;
    problem_set(&problem, PROBLEM_INTERNAL, "", "the name of the data folder is too long");
    changing_refuse(changing, &problem);
    return;
  }
  changing->write.path = changing->path;
  changing_submit(changing);
}
