/* Reading files by stream, never by their size: that may be unknown (a pipe), a
 * lie (/proc) or change meanwhile. The buffer's limit is what bounds the memory
 * that a file can ask for. */
#include "codec/file.h"

#include <errno.h>
#include <string.h>

#define CHUNK ((size_t)64 << 10)

static bool fail(const char *path, int error_number, char *error, size_t error_size) {
  snprintf(error, error_size, "%s: %s", path, strerror(error_number));
  return false;
}

static bool fail_buffer(const char *path, const struct buffer *buffer, const char *what,
                        char *error, size_t error_size) {
  if (buffer->status == BUFFER_NO_MEMORY) return fail(path, ENOMEM, error, error_size);
  snprintf(error, error_size, "%s: %s is longer than %zu bytes", path, what, buffer->limit);
  return false;
}

FILE *file_open(const char *path, char *error, size_t error_size) {
  FILE *file = fopen(path, "rbe");
  if (!file) fail(path, errno, error, error_size);
  return file;
}

bool file_read(const char *path, struct buffer *out, char *error, size_t error_size) {
  FILE *file = file_open(path, error, error_size);
  if (!file) return false;
  char chunk[CHUNK];
  size_t count;
  while ((count = fread(chunk, 1, sizeof chunk, file)) > 0 && buffer_append(out, chunk, count))
    continue;
  bool read = out->status == BUFFER_OK;
  if (!read)
    fail_buffer(path, out, "the file", error, error_size);
  else if (ferror(file))
    read = fail(path, errno, error, error_size);
  fclose(file);
  return read;
}

bool file_read_line(FILE *file, const char *path, struct buffer *line, char *error,
                    size_t error_size) {
  error[0] = '\0';
  size_t before = line->length;
  char run[256];
  int c;
  do {
    size_t count = 0;
    while (count < sizeof run && (c = getc_unlocked(file)) != EOF && c != '\n')
      run[count++] = (char)c;
    if (!buffer_append(line, run, count))
      return fail_buffer(path, line, "a line", error, error_size);
  } while (c != EOF && c != '\n');
  if (c == EOF && ferror(file)) return fail(path, errno, error, error_size);
  bool found = c == '\n' || line->length > before;
  if (line->length > before && line->data[line->length - 1] == '\r') line->length--;
  return found;
}
