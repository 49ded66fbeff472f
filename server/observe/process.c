/* Read from /proc anew each time: scrapes are seconds apart, so a cache would
 * only add state. Every figure can be missing
 * (no /proc in some sandboxes) and is then left out by whoever prints it,
 * rather than shown as a zero that looks like a fact. */
#include "observe/process.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static double resident_bytes(void) {
  double bytes = -1;
  long pages;
  FILE *file = fopen("/proc/self/statm", "re");
  if (!file) return -1;
  if (fscanf(file, "%*s %ld", &pages) == 1) bytes = (double)pages * (double)sysconf(_SC_PAGESIZE);
  fclose(file);
  return bytes;
}

static double cpu_seconds(void) {
  struct timespec used;
  if (clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used) != 0) return -1;
  return (double)used.tv_sec + (double)used.tv_nsec * 1e-9;
}

static double open_descriptors(void) {
  DIR *folder = opendir("/proc/self/fd");
  if (!folder) return -1;
  int count = 0;
  for (const struct dirent *entry; (entry = readdir(folder)) != NULL;)
    count += entry->d_name[0] != '.';
  closedir(folder);
  return count - 1; /* the folder's own */
}

/* Clock ticks from the boot of the machine to the start of the process: field
 * 22 of stat. The name in field 2 may hold spaces and parentheses, so fields
 * are counted from the last ')'. */
static double ticks_at_start(void) {
  char text[1024];
  double ticks = -1;
  FILE *file = fopen("/proc/self/stat", "re");
  if (!file) return -1;
  size_t length = fread(text, 1, sizeof text - 1, file);
  fclose(file);
  text[length] = '\0';
  const char *after_name = strrchr(text, ')');
  unsigned long long value;
  if (after_name && sscanf(after_name + 1,
                           " %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s"
                           " %*s %*s %*s %*s %*s %*s %*s %*s %*s %llu",
                           &value) == 1)
    ticks = (double)value;
  return ticks;
}

static double boot_time(void) {
  char line[256];
  double seconds = -1;
  unsigned long long value;
  FILE *file = fopen("/proc/stat", "re");
  if (!file) return -1;
  while (seconds < 0 && fgets(line, sizeof line, file))
    if (sscanf(line, "btime %llu", &value) == 1) seconds = (double)value;
  fclose(file);
  return seconds;
}

static double start_time(void) {
  double ticks = ticks_at_start(), boot = boot_time();
  return ticks < 0 || boot < 0 ? -1 : boot + ticks / (double)sysconf(_SC_CLK_TCK);
}

struct process_usage process_usage_read(void) {
  return (struct process_usage){
      .resident_bytes = resident_bytes(),
      .cpu_seconds = cpu_seconds(),
      .open_descriptors = open_descriptors(),
      .start_time = start_time(),
  };
}
