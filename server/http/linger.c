/* The lingering close.
 *
 * A refusal such as 413 goes out while the client still sends its body. To
 * close the socket then makes the kernel answer the next bytes with a reset,
 * and a reset destroys what the client has not read yet: it would learn that
 * the connection broke, not why. So the writing side is closed (libmicrohttpd
 * does that), and a duplicate of the descriptor stays open here for a while and
 * swallows what still comes, until the client closes or its time is up.
 *
 * The number of such sockets, their time and the bytes read for each are
 * bounded; past the bounds the client gets the reset it asked for. A poll set
 * was rejected: a look at each socket every tick is enough, since nobody waits
 * for the end of a linger, and it needs no state.
 *
 * Threads: `mutex` guards the array. linger_tick() works on the sockets
 * outside of it, on a copy, which only the one ticking thread does. */
#include "http/linger.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define MOST_SOCKETS   256
#define MOST_MS        3000
#define BYTES_PER_TICK (4 << 20)
#define READ_SIZE      65536

struct lingering {
  int descriptor;
  int64_t until;
};

struct linger_set {
  pthread_mutex_t mutex;
  size_t count; /* guarded by mutex, as is `all` */
  struct lingering all[MOST_SOCKETS];
  struct lingering busy[MOST_SOCKETS]; /* the ticking thread's */
  char scratch[READ_SIZE];             /* the ticking thread's */
};

struct linger_set *linger_create(void) {
  struct linger_set *linger = calloc(1, sizeof *linger);
  if (!linger) return NULL;
  if (pthread_mutex_init(&linger->mutex, NULL) != 0) {
    free(linger);
    return NULL;
  }
  return linger;
}

void linger_free(struct linger_set *linger) {
  if (!linger) return;
  for (size_t i = 0; i < linger->count; i++)
    close(linger->all[i].descriptor);
  pthread_mutex_destroy(&linger->mutex);
  free(linger);
}

void linger_add(struct linger_set *linger, int descriptor, int64_t now) {
  pthread_mutex_lock(&linger->mutex);
  if (linger->count < MOST_SOCKETS) {
    int kept = fcntl(descriptor, F_DUPFD_CLOEXEC, 0);
    if (kept >= 0)
      linger->all[linger->count++] = (struct lingering){.descriptor = kept, .until = now + MOST_MS};
  }
  pthread_mutex_unlock(&linger->mutex);
}

/* True where the client may still be sending. */
static bool swallow(struct linger_set *linger, int descriptor) {
  for (size_t total = 0; total < BYTES_PER_TICK;) {
    ssize_t got = recv(descriptor, linger->scratch, sizeof linger->scratch, MSG_DONTWAIT);
    if (got < 0) return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
    if (got == 0) return false;
    total += (size_t)got;
  }
  return true;
}

bool linger_any(struct linger_set *linger) {
  pthread_mutex_lock(&linger->mutex);
  bool any = linger->count > 0;
  pthread_mutex_unlock(&linger->mutex);
  return any;
}

void linger_tick(struct linger_set *linger, int64_t now) {
  pthread_mutex_lock(&linger->mutex);
  size_t busy = linger->count;
  memcpy(linger->busy, linger->all, busy * sizeof linger->all[0]);
  pthread_mutex_unlock(&linger->mutex);
  if (busy == 0) return;

  /* Sockets that are added meanwhile go behind the first `busy` ones. */
  size_t kept = 0;
  for (size_t i = 0; i < busy; i++) {
    struct lingering one = linger->busy[i];
    if (now < one.until && swallow(linger, one.descriptor))
      linger->busy[kept++] = one;
    else
      close(one.descriptor);
  }

  pthread_mutex_lock(&linger->mutex);
  memcpy(linger->all, linger->busy, kept * sizeof linger->all[0]);
  memmove(linger->all + kept, linger->all + busy, (linger->count - busy) * sizeof linger->all[0]);
  linger->count -= busy - kept;
  pthread_mutex_unlock(&linger->mutex);
}
