/* Runs a fuzz target over files, or all files of folders, given as arguments:
 * what a fuzzer has found or somebody thought of stays tested where there is no
 * fuzzer. Exit code 0 where all went through, 1 where there was nothing to run
 * or a file could not be read; a target that objects aborts. */
#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>

#include "fuzz.h"

/* Each input in a block of its own length, so that a sanitizer sees a look past
 * its end. */
static bool run_file(const char *path) {
  FILE *file = fopen(path, "rb");
  struct stat status;
  uint8_t *data = NULL;
  size_t size = 0;
  bool read = file && fstat(fileno(file), &status) == 0;
  if (read) {
    size = (size_t)status.st_size;
    data = malloc(size ? size : 1);
    read = data && fread(data, 1, size, file) == size;
  }
  if (read)
    LLVMFuzzerTestOneInput(data, size);
  else
    fprintf(stderr, "%s: %s\n", path, strerror(errno));
  free(data);
  if (file) fclose(file);
  return read;
}

static bool run_folder(const char *path, size_t *count) {
  struct dirent **entries;
  int found = scandir(path, &entries, NULL, alphasort);
  if (found < 0) {
    fprintf(stderr, "%s: %s\n", path, strerror(errno));
    return false;
  }
  bool done = true;
  for (int i = 0; i < found; i++) {
    char file[4096];
    snprintf(file, sizeof file, "%s/%s", path, entries[i]->d_name);
    if (entries[i]->d_name[0] != '.') {
      done = run_file(file) && done;
      ++*count;
    }
    free(entries[i]);
  }
  free(entries);
  return done;
}

int main(int argc, char **argv) {
  size_t count = 0;
  bool done = true;
  for (int i = 1; i < argc; i++) {
    struct stat status;
    bool folder = stat(argv[i], &status) == 0 && S_ISDIR(status.st_mode);
    count += !folder;
    done = (folder ? run_folder(argv[i], &count) : run_file(argv[i])) && done;
  }
  printf("%zu inputs\n", count);
  return done && count > 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
