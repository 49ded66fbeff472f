/* Ends that nobody announced: the process is killed at random moments, the power
 * fails at random moments. What was acknowledged is there afterwards, and nothing
 * is there in part. */
#include <sys/wait.h>
#include <time.h>

#include "store_vfs.h"

/* ---- kill -9 ---- */

enum { MOST_TRANSACTIONS = 400 };

static void write_until_killed(const char *directory, struct model model, uint64_t state,
                               int report) {
  struct store *store = open_good(directory);
  for (int i = 0; i < MOST_TRANSACTIONS; i++) {
    bool more;
    if (random_transaction(store, &model, &state, NULL) != STORE_OK) _exit(1);
    if (write(report, "+", 1) != 1) _exit(1);
    if (i % 7 == 6 && store_sweep(store, 50000, &more) != STORE_OK) _exit(1);
  }
}

/* Starts a child that writes, kills it some time later, and says how many
 * transactions it had acknowledged. */
static size_t kill_one(const char *directory, const struct model *model, uint64_t state,
                       long microseconds) {
  int ends[2];
  ck_assert_int_eq(pipe(ends), 0);
  pid_t child = fork();
  ck_assert_int_ge(child, 0);
  if (child == 0) {
    write_until_killed(directory, *model, state, ends[1]);
    _exit(0);
  }
  close(ends[1]);
  char byte, bytes[MOST_TRANSACTIONS + 1];
  ssize_t count = 0, more;
  /* not before it has written something, however slow the machine is */
  if (microseconds % 4 != 0) count = read(ends[0], &byte, 1);
  nanosleep(&(struct timespec){.tv_nsec = microseconds * 1000}, NULL);
  kill(child, SIGKILL);
  int status;
  ck_assert_int_eq(waitpid(child, &status, 0), child);
  ck_assert(WIFSIGNALED(status) || WEXITSTATUS(status) == 0);
  while ((more = read(ends[0], bytes, sizeof bytes)) > 0)
    count += more;
  close(ends[0]);
  return (size_t)count;
}

START_TEST(test_killed_at_random) {
  char directory[200];
  make_scratch(directory, sizeof directory);
  struct model model = {.largest = FILL_MAX, .next_id = 1};
  uint64_t random = 77, state = 3;
  size_t acknowledged = 0;
  for (size_t round = 0; round < test_rounds(220); round++) {
    size_t count = kill_one(directory, &model, state, (long)(next_random(&random) % 20000));
    acknowledged += count;
    for (size_t i = 0; i < count; i++)
      random_transaction(NULL, &model, &state, NULL);
    struct store *store = open_good(directory);
    uint64_t digest;
    ck_assert_int_eq(store_digest(store, &digest), STORE_OK);
    if (digest != model_digest(&model)) /* the one under way, whole */
      random_transaction(NULL, &model, &state, NULL);
    ck_assert_msg(digest == model_digest(&model), "round %zu: not what was acknowledged", round);
    store_close(store);
  }
  ck_assert_uint_ge(acknowledged, test_rounds(220));
  remove_scratch(directory);
}
END_TEST

/* ---- Loss of power ---- */

struct outage {
  struct layer layer;
  char directory[200], picture[200];
  struct model model, next;
  uint64_t random;
  size_t pictures, late, want; /* late: that had the write under way */
  uint64_t per;                /* one picture in so many moments */
};

/* The witness is not synced: it may be as it was at any time. */
static void add_witness(struct outage *outage) {
  char from[300], to[300];
  snprintf(from, sizeof from, "%s/%s", outage->directory, WITNESS_NAME);
  snprintf(to, sizeof to, "%s/%s", outage->picture, WITNESS_NAME);
  size_t size;
  unsigned char *bytes = read_whole(from, &size);
  uint64_t kind = next_random(&outage->random) % 4;
  if (kind < 2)
    write_whole(to, bytes, size);
  else if (kind == 2)
    write_whole(to, bytes, size ? next_random(&outage->random) % size : 0);
  free(bytes);
}

static void take_picture(void *context) {
  struct outage *outage = context;
  if (next_random(&outage->random) % outage->per != 0) return;
  layer_snapshot(&outage->layer, outage->picture, &outage->random);
  add_witness(outage);
  struct store *store = open_good(outage->picture);
  uint64_t digest;
  ck_assert_int_eq(store_digest(store, &digest), STORE_OK);
  bool late = digest == model_digest(&outage->next);
  ck_assert_msg(late || digest == model_digest(&outage->model),
                "picture %zu: not what was acknowledged", outage->pictures);
  outage->late += late && digest != model_digest(&outage->model);
  outage->pictures++;
  store_close(store);
}

static void write_some(struct outage *outage, uint64_t *state) {
  struct store_options options = small_options();
  options.vfs = "outage";
  char error[512] = "";
  struct store *store = store_open_with(outage->directory, &options, error, sizeof error);
  ck_assert_msg(store != NULL, "%s", error);
  for (int i = 0; i < 25; i++) {
    outage->next = outage->model;
    bool more;
    ck_assert_int_eq(random_transaction(store, &outage->model, state, &outage->next), STORE_OK);
    if (i % 4 == 3) ck_assert_int_eq(store_sweep(store, 20000, &more), STORE_OK);
  }
  store_close(store);
}

START_TEST(test_loss_of_power) {
  static struct outage outage;
  outage = (struct outage){.model = {.largest = 12000, .next_id = 1}, .random = 9, .per = 4};
  outage.next = outage.model;
  make_scratch(outage.directory, sizeof outage.directory);
  make_scratch(outage.picture, sizeof outage.picture);
  layer_install(&outage.layer, "outage");
  outage.layer.records = true;
  outage.layer.moment = take_picture;
  outage.layer.context = &outage;
  uint64_t state = 21;
  const size_t want = test_rounds(1100);
  while (outage.pictures < want)
    write_some(&outage, &state);
  /* the model of the disk does tear commits apart */
  ck_assert_uint_gt(outage.late, 0);
  layer_remove(&outage.layer);
  remove_scratch(outage.directory);
  remove_scratch(outage.picture);
}
END_TEST

UNIT_MAIN("store_crash", test_killed_at_random, test_loss_of_power)
