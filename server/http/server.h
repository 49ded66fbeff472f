/* What the files of this folder share of a running server. */
#ifndef HTTP_SERVER_H
#define HTTP_SERVER_H

#include <microhttpd.h>

#include "http/connections.h"
#include "http/http.h"
#include "http/listener.h"

struct http_server {
  struct http_config config;
  struct http_services services;
  struct connections *connections;
  struct listener *listener;
  struct MHD_Daemon **daemons; /* config.io_threads of them, one thread each */
  unsigned daemon_count;
  unsigned next_daemon; /* the accepting thread's */
};

#endif
