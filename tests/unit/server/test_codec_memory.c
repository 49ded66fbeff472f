/* Running out of memory while bodies and files are read: every allocation of
 * every reader fails once, and each time the reader says so and leaks nothing.
 *
 * The functions of malloc are replaced for this whole program, glibc's own
 * names being the real ones. Where a sanitizer has replaced them already there
 * is nothing to test. */
#include "unit.h"

#if defined(__has_feature)
#define HAS_FEATURE(feature) __has_feature(feature)
#else
#define HAS_FEATURE(feature) 0
#endif

#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) &&       \
    !HAS_FEATURE(address_sanitizer) && !HAS_FEATURE(thread_sanitizer)

#include <errno.h>

#include "codec/body.h"
#include "codec/codec.h"
#include "codec/config_file.h"
#include "codec/scan.h"
#include "codec/write.h"

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *memory, size_t size);
extern void *__libc_memalign(size_t alignment, size_t size);
extern void __libc_free(void *memory);

static _Thread_local struct {
  bool counting;
  long allowed; /* this many succeed, then one fails, then all succeed */
  long failed;  /* how many have */
  long live;    /* given out and not given back */
} heap;

static bool refuses(void) {
  if (!heap.counting || heap.allowed-- != 0) return false;
  heap.failed++;
  errno = ENOMEM;
  return true;
}

static void *counted(void *memory) {
  if (heap.counting && memory) heap.live++;
  return memory;
}

/* Visible to the shared libraries too. */
#define SEEN __attribute__((visibility("default")))

SEEN void *malloc(size_t size) {
  return refuses() ? NULL : counted(__libc_malloc(size));
}

SEEN void *calloc(size_t count, size_t size) {
  return refuses() ? NULL : counted(__libc_calloc(count, size));
}

SEEN void *realloc(void *memory, size_t size) {
  if (refuses()) return NULL;
  void *moved = __libc_realloc(memory, size);
  return memory ? moved : counted(moved);
}

SEEN void *aligned_alloc(size_t alignment, size_t size) {
  return refuses() ? NULL : counted(__libc_memalign(alignment, size));
}

SEEN int posix_memalign(void **memory, size_t alignment, size_t size) {
  void *made = refuses() ? NULL : counted(__libc_memalign(alignment, size));
  if (!made) return ENOMEM;
  *memory = made;
  return 0;
}

SEEN void free(void *memory) {
  if (heap.counting && memory) heap.live--;
  __libc_free(memory);
}

/* Calls reader(input) again and again, each time with another allocation that
 * fails, until none does. The reader returns whether it succeeded and has given
 * back all that it made; one that did not has to have said "out of memory". */
struct outcome {
  bool done, said;
};

static void fail_each(struct outcome (*reader)(const char *input), const char *input, bool good) {
  codec_init();
  for (long allowed = 0;; allowed++) {
    heap.allowed = allowed;
    heap.failed = heap.live = 0;
    heap.counting = true;
    struct outcome outcome = reader(input);
    heap.counting = false;
    long failed = heap.failed, live = heap.live;
    if (live != 0) ck_abort_msg("%.80s: %ld blocks left after failure %ld", input, live, allowed);
    if (failed == 0) {
      ck_assert_msg(outcome.done == good, "%.80s", input);
      ck_assert_int_ge(allowed, 1);
      return;
    }
    /* Giving back what was too much may fail unnoticed. */
    if (!outcome.done && !outcome.said) ck_abort_msg("%.80s: failure %ld", input, allowed);
  }
}

static struct outcome judge(bool done, const struct problem *problem) {
  return (struct outcome){done, !done && problem->code == PROBLEM_OUT_OF_MEMORY};
}

static struct outcome read_memory(const char *text) {
  struct memory_body body;
  struct problem problem;
  bool done = body_parse_memory(text, strlen(text), &body, &problem);
  if (done) memory_body_free(&body);
  return judge(done, &problem);
}

static struct outcome read_attend(const char *text) {
  struct attend_body body;
  struct problem problem;
  bool done = body_parse_attend(ATTEND_AD_HOC, text, strlen(text), &body, &problem);
  if (done) attend_body_free(&body);
  return judge(done, &problem);
}

static struct outcome check_text(const char *text) {
  struct problem problem;
  return judge(scan_check(text, strlen(text), &problem), &problem);
}

START_TEST(test_bodies) {
  fail_each(read_memory,
            "{\"keys\":[[1,2],[3,4]],\"values\":[[1],[2]],\"ids\":[\"a\",\"\\u0062\"]}", true);
  fail_each(read_memory,
            "{\"key_dim\":2,\"value_dim\":3,\"normalization\":{\"type\":\"softmax\","
            "\"temperature\":2},\"score\":{\"w\":[[1,2],[3,4]],\"type\":\"bilinear\"}}",
            true);
  fail_each(read_attend,
            "{\"queries\":[[1,2,3]],\"keys\":[[1]],\"values\":[[2]],\"weights\":{\"top\":2},"
            "\"score\":{\"type\":\"additive\",\"v\":[1],\"w_k\":[[1]],\"w_q\":[[1,2,3]]},"
            "\"normalization\":\"sum\"}",
            true);
  char *text = malloc(20000), *at = stpcpy(text, "{\"queries\":[[1");
  ck_assert_ptr_nonnull(text);
  for (int i = 0; i < 5000; i++)
    at = stpcpy(at, ",7");
  strcpy(at, "]],\"keys\":[[1]],\"values\":[[1]]}");
  fail_each(read_attend, text, true);
  free(text);
}
END_TEST

/* No number but the one that is written: jansson loses digits where there is no
 * memory for the text of so many. */
static struct outcome read_long_number(const char *text) {
  struct settings_body body;
  struct problem problem;
  if (!body_parse_settings(text, strlen(text), &body, &problem)) return judge(false, &problem);
  const bool right = attn_score_get_argument(body.score, 0, 1).number == 1.00000000000000022 &&
                     body.ttl_seconds == 123456.7890123456789;
  settings_body_free(&body);
  return (struct outcome){right, false};
}

START_TEST(test_long_numbers) {
  fail_each(read_long_number,
            "{\"score\":{\"type\":\"gaussian\",\"sigma\":1.00000000000000022204460492503},"
            "\"ttl_seconds\":123456.7890123456789}",
            true);
}
END_TEST

/* Names are what the checker keeps. */
START_TEST(test_checking) {
  fail_each(check_text, "{\"a\":{\"b\":1,\"c\":[{\"d\":1}]},\"\\u0061b\":2}", true);
  char *text = malloc(4000), *at = stpcpy(text, "{");
  ck_assert_ptr_nonnull(text);
  for (int i = 0; i < 200; i++)
    at += sprintf(at, "\"n%d\":0,", i);
  strcpy(at - 1, "}");
  fail_each(check_text, text, true);
  free(text);
}
END_TEST

/* ---- Writing ---- */

static struct outcome write_document(const char *text) {
  struct buffer out;
  struct json_writer writer;
  buffer_init(&out, 0);
  json_begin(&writer, &out);
  json_open_object(&writer);
  json_members(&writer, "{s:s,s:{s:[s,i]}}", "a", text, "b", "c", "a text longer than 16", 1);
  json_close_object(&writer);
  const bool right = strcmp(buffer_text(&out), "{\"a\":\"x\",\"b\":{\"c\":[\"a text longer "
                                               "than 16\",1]}}") == 0;
  const struct outcome outcome = {out.status == BUFFER_OK && right, out.status == BUFFER_NO_MEMORY};
  buffer_free(&out);
  return outcome;
}

START_TEST(test_writing) {
  fail_each(write_document, "x", true);
}
END_TEST

/* ---- Files ---- */

static bool take_member(void *context, const char *name, const char *value, char *error,
                        size_t error_size) {
  (void)context;
  (void)name;
  (void)value;
  (void)error;
  (void)error_size;
  return true;
}

static struct outcome judge_error(bool done, const char *error) {
  return (struct outcome){done, strcasestr(error, "out of memory") ||
                                    strcasestr(error, strerror(ENOMEM))};
}

static struct outcome read_config(const char *path) {
  char error[256] = "";
  return judge_error(config_file_read(path, take_member, NULL, error, sizeof error), error);
}

static struct outcome read_option(const char *json) {
  struct preload_list list;
  char error[256] = "";
  bool done = preload_parse(json, "folder", &list, error, sizeof error);
  if (done) preload_free(&list);
  return judge_error(done, error);
}

static struct outcome read_preload(const char *json) {
  struct preload_list list;
  struct memory_body body;
  char error[256] = "";
  bool done = preload_parse(json, "", &list, error, sizeof error);
  if (done) {
    done = preload_read(&list.items[0], &body, error, sizeof error);
    if (done) memory_body_free(&body);
    preload_free(&list);
  }
  return judge_error(done, error);
}

struct file {
  char path[256];
};

static struct file make_file(const char *ending, const char *text) {
  struct file file;
  const char *folder = getenv("TMPDIR");
  snprintf(file.path, sizeof file.path, "%s/codec-XXXXXX%s", folder && *folder ? folder : P_tmpdir,
           ending);
  int descriptor = mkstemps(file.path, (int)strlen(ending));
  ck_assert_int_ge(descriptor, 0);
  ck_assert(write(descriptor, text, strlen(text)) == (ssize_t)strlen(text));
  close(descriptor);
  return file;
}

START_TEST(test_config) {
  struct file file = make_file(".json", "{\"a\":\"text\",\"b\":[1,2],\"c\":3}");
  fail_each(read_config, file.path, true);
  unlink(file.path);
}
END_TEST

START_TEST(test_option) {
  fail_each(read_option,
            "[{\"name\":\"a\",\"file\":\"a.json\",\"score\":\"dot\"},{\"name\":\"b\",\"file\":"
            "\"b.csv\",\"keys\":{\"columns\":[0,1]},\"values\":{\"columns\":[1,2],\"scale\":2}}]",
            true);
}
END_TEST

START_TEST(test_preload) {
  char json[512];
  struct file file = make_file(".json", "{\"keys\":[[1]],\"values\":[[2]],\"ids\":[\"x\"]}");
  snprintf(json, sizeof json, "[{\"name\":\"m\",\"file\":\"%s\",\"score\":\"gaussian\"}]",
           file.path);
  fail_each(read_preload, json, true);
  unlink(file.path);

  file = make_file(".csv", "k,v,id\n1,2,x\n3,4,y\n");
  snprintf(json, sizeof json,
           "[{\"name\":\"m\",\"file\":\"%s\",\"keys\":{\"columns\":[0,1]},"
           "\"values\":{\"columns\":[1,2]},\"ids\":{\"column\":2}}]",
           file.path);
  fail_each(read_preload, json, true);
  unlink(file.path);
}
END_TEST

UNIT_MAIN("codec_memory", test_bodies, test_long_numbers, test_checking, test_writing, test_config,
          test_option, test_preload)

#else

int main(void) {
  puts("malloc belongs to a sanitizer here: nothing to test");
  return EXIT_SUCCESS;
}

#endif
