/* What the process itself uses, for the process_* metrics. */
#ifndef OBSERVE_PROCESS_H
#define OBSERVE_PROCESS_H

/* Below 0 where the system does not tell. */
struct process_usage {
  double resident_bytes;
  double cpu_seconds;
  double open_descriptors;
  double start_time; /* seconds since 1970 */
};

struct process_usage process_usage_read(void);

#endif
