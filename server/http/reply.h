/* From a struct http_reply to bytes on the wire. */
#ifndef HTTP_REPLY_H
#define HTTP_REPLY_H

#include <microhttpd.h>
#include <stdbool.h>

#include "http/http.h"

void reply_init(struct http_reply *reply);
void reply_free(struct http_reply *reply);

/* Ends what the reply holds and makes it as new; a small body's memory stays for the
 * next one. Not before libmicrohttpd is done with the body. */
void reply_renew(struct http_reply *reply);

/* Bytes of the body, however it is sent. */
uint64_t reply_length(const struct http_reply *reply);

/* Hands the reply to libmicrohttpd, which sends it after the access handler returns.
 * It takes a stream or a large body over; a small body has to stay until the request
 * is completed. `close`: this is the connection's last one. False
 * where memory is short; the reply still belongs to the caller then. */
bool reply_queue(struct http_reply *reply, struct MHD_Connection *connection, bool close);

/* Writes the reply to the socket itself, as the connection's last one, where
 * libmicrohttpd takes none: in the middle of a body. Never waits; what the socket
 * does not take at once is lost. */
void reply_send_at_once(const struct http_reply *reply, int descriptor);

#endif
