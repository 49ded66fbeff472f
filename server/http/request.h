/* The life of one request, as libmicrohttpd's callbacks tell it. The context of
 * all three is the connection's struct io_thread. */
#ifndef HTTP_REQUEST_H
#define HTTP_REQUEST_H

#include <microhttpd.h>
#include <stddef.h>

/* The request line was read: MHD_OPTION_URI_LOG_CALLBACK. */
void *request_begin(void *thread, const char *target, struct MHD_Connection *mhd);

/* The head was read, a piece of the body came, or all was read. */
enum MHD_Result request_step(void *thread, struct MHD_Connection *mhd, const char *url,
                             const char *method, const char *version, const char *piece,
                             size_t *piece_length, void **request);

/* The reply was sent, or the connection broke: MHD_OPTION_NOTIFY_COMPLETED. */
void request_end(void *thread, struct MHD_Connection *mhd, void **request,
                 enum MHD_RequestTerminationCode why);

/* Frees what is kept for requests to come, when all have ended. */
struct io_thread;
void requests_free_spare(struct io_thread *thread);

#endif
