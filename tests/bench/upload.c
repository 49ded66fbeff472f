/* Large memories as JSON.
 *
 * The bodies have hundreds of megabytes, so the text is never held: it is made
 * twice from the same seed, once to be counted for Content-Length and once to
 * be sent. Numbers have three decimals; what they are does not matter to what
 * is measured, and fewer bytes are sooner there. */
#include "upload.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bench.h"
#include "load.h"

enum {
  MOST = 4000, /* thousandths; fill_normal() stays below */
  TEXT = 16,   /* of a number; "-3.999" is what comes */
  CHUNK = 256 << 10,
};

struct upload {
  size_t rows, dim;
  char (*texts)[TEXT]; /* of -MOST to MOST thousandths */
  float *row;
  int descriptor; /* -1: only count */
  uint64_t total;
  size_t used;
  char chunk[CHUNK];
};

static void fail(const char *what) {
  fprintf(stderr, "bench: upload: %s\n", what);
  exit(EXIT_FAILURE);
}

static void flush(struct upload *upload) {
  upload->total += upload->used;
  for (size_t sent = 0; sent < upload->used && upload->descriptor >= 0;) {
    const ssize_t count =
        send(upload->descriptor, upload->chunk + sent, upload->used - sent, MSG_NOSIGNAL);
    if (count < 0) fail(strerror(errno));
    sent += (size_t)count;
  }
  upload->used = 0;
}

static void put(struct upload *upload, const char *text) {
  const size_t length = strlen(text);
  if (length > CHUNK - upload->used) flush(upload);
  memcpy(upload->chunk + upload->used, text, length);
  upload->used += length;
}

static void put_matrix(struct upload *upload, unsigned long long seed) {
  for (size_t r = 0; r < upload->rows; r++) {
    fill_normal(upload->row, upload->dim, seed + r * 977);
    put(upload, r > 0 ? ",[" : "[");
    for (size_t i = 0; i < upload->dim; i++) {
      if (i > 0) put(upload, ",");
      put(upload, upload->texts[lroundf(upload->row[i] * 1000) + MOST]);
    }
    put(upload, "]");
  }
}

static void put_body(struct upload *upload) {
  put(upload, "{\"keys\":[");
  put_matrix(upload, 41);
  put(upload, "],\"values\":[");
  put_matrix(upload, 43);
  put(upload, "]}");
  flush(upload);
}

/* Reads to the end, and wants 201. */
static void check_reply(struct upload *upload) {
  size_t length = 0;
  ssize_t count;
  while ((count = recv(upload->descriptor, upload->chunk + length, CHUNK - 1 - length, 0)) > 0)
    length += (size_t)count;
  upload->chunk[length] = '\0';
  if (strncmp(upload->chunk, "HTTP/1.1 201 ", 13) != 0) fail(upload->chunk);
}

void upload_memory(uint16_t port, const char *name, size_t rows, size_t dim) {
  struct upload *upload = must_alloc(sizeof *upload);
  *upload = (struct upload){.rows = rows, .dim = dim, .descriptor = -1};
  upload->texts = must_alloc((2 * MOST + 1) * sizeof *upload->texts);
  for (int i = -MOST; i <= MOST; i++)
    snprintf(upload->texts[i + MOST], TEXT, "%.4g", i / 1000.0);
  upload->row = must_alloc(dim * sizeof(float));

  put_body(upload);
  char head[256];
  snprintf(head, sizeof head,
           "PUT /v1/memories/%s HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
           "Content-Type: application/json\r\nContent-Length: %" PRIu64 "\r\n\r\n",
           name, upload->total);
  upload->descriptor = load_connect(port);
  if (upload->descriptor < 0) fail(strerror(errno));
  upload->total = 0;
  put(upload, head);
  put_body(upload);
  check_reply(upload);

  close(upload->descriptor);
  free(upload->row);
  free(upload->texts);
  free(upload);
}
