/* What a write is told that the store could not take: for whatever reason, nothing
 * of it has happened. */
#include "engine/refusal.h"

void write_reset(struct write *write) {
  memory_free(write->after);
  write->after = NULL;
  write->failed = write->created = write->existed = false;
  write->inserted = write->updated = write->deleted = 0;
}

void write_refuse(struct write *write, enum store_status status, const char *failure) {
  write_reset(write);
  write->failed = true;
  if (status == STORE_FULL)
    problem_set(&write->problem, PROBLEM_STORAGE_FULL, "",
                "the disk of the data folder is full; nothing was changed, and queries go on");
  else if (status == STORE_NO_MEMORY)
    problem_set(&write->problem, PROBLEM_OUT_OF_MEMORY, "",
                "there is not enough memory for this change; nothing was changed");
  else
    problem_set(&write->problem, PROBLEM_STORE_FAILED, "",
                "the store has failed (%s); queries go on, but nothing is written any more",
                failure ? failure : "it is damaged");
}
