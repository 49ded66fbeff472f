/* What the files of this folder share of a running server. */
#ifndef HTTP_SERVER_H
#define HTTP_SERVER_H

#include <microhttpd.h>

#include "http/connections.h"
#include "http/http.h"
#include "http/listener.h"

/* What belongs to one I/O thread. */
struct io_thread {
  struct http_server *server;
  struct MHD_Daemon *daemon;
  void *put_off;         /* see http_request.put_off */
  struct request *spare; /* ended ones, to be used again */
  unsigned spare_count;
  /* See has_company() in request.c. */
  double busy;                           /* when a request last began or ended */
  long slept;                            /* how often, when the kernel was last asked */
  const struct connection *first_of_run; /* never looked into */
  unsigned run, last_run;                /* requests in the present run, in the one before */
};

struct http_server {
  struct http_config config;
  struct http_services services;
  struct connections *connections;
  struct listener *listener;
  struct io_thread *io_threads; /* config.io_threads of them */
  unsigned started;             /* so many have their daemon */
  unsigned next_thread;         /* the accepting thread's */
};

#endif
