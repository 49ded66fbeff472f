/* Any bytes as the head of a request, read by libmicrohttpd from a socket as the
 * daemon has it read, and checked by head_check(). The first byte is the length of
 * the pieces that are sent (0: all at once). What must be true, against a reader
 * of heads that is written here from RFC 9110 and 9112 and has nothing in common
 * with either:
 *
 *  - a head that is taken is one by the grammar, ends where the grammar says, and
 *    announces the body that it says: nothing can be smuggled past the check;
 *  - its texts are those of the head;
 *  - a head that the grammar allows is taken. Two liberties are left to the server,
 *    `doubtful` below;
 *  - path and query string are those of the target. */
#include <ctype.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fuzz.h"
#include "http/head.h"

enum { MOST_BYTES = 4096, MOST_FIELDS = 512 };

struct text {
  const char *start;
  size_t length;
};

/* ---- The grammar ---- */

struct field {
  struct text name, value;
};

struct expected {
  bool sound, doubtful; /* sound, and may be refused all the same */
  struct text method, target, version;
  struct field fields[MOST_FIELDS];
  size_t count;
  size_t length; /* of the head, to the end of its empty line */
  bool chunked, continues;
  uint64_t content_length;
};

static bool is_token_byte(char c) {
  return isalnum((unsigned char)c) || (c && strchr("!#$%&'*+-.^_`|~", c));
}

static bool is_token(struct text text) {
  for (size_t i = 0; i < text.length; i++)
    if (!is_token_byte(text.start[i]) || (unsigned char)text.start[i] >= 0x80) return false;
  return text.length > 0;
}

/* Of a field: tabs and blanks too. */
static bool is_clean(struct text text, bool blanks) {
  for (size_t i = 0; i < text.length; i++) {
    const unsigned char c = (unsigned char)text.start[i];
    if (blanks && (c == ' ' || c == '\t')) continue;
    if (c <= 0x20 || c == 0x7f) return false;
  }
  return true;
}

static bool text_is(struct text text, const char *wanted) {
  return text.length == strlen(wanted) && strncasecmp(text.start, wanted, text.length) == 0;
}

/* The next line without its CR LF; false where there is none. */
static bool next_line(struct text *rest, struct text *line) {
  const char *end = memmem(rest->start, rest->length, "\r\n", 2);
  if (!end) return false;
  *line = (struct text){rest->start, (size_t)(end - rest->start)};
  rest->start = end + 2;
  rest->length -= line->length + 2;
  return true;
}

static bool cut(struct text *text, char at, struct text *first) {
  const char *end = memchr(text->start, at, text->length);
  if (!end) return false;
  *first = (struct text){text->start, (size_t)(end - text->start)};
  text->start = end + 1;
  text->length -= first->length + 1;
  return true;
}

static bool read_request_line(struct text line, struct expected *expected) {
  if (!cut(&line, ' ', &expected->method) || !cut(&line, ' ', &expected->target)) return false;
  expected->version = line;
  return is_token(expected->method) && expected->target.length > 0 &&
         is_clean(expected->target, false) && line.length == 8 &&
         memcmp(line.start, "HTTP/1.", 7) == 0 && isdigit((unsigned char)line.start[7]);
}

static bool read_field(struct text line, struct expected *expected) {
  struct field *field = &expected->fields[expected->count++];
  if (!cut(&line, ':', &field->name)) return false;
  while (line.length > 0 && (*line.start == ' ' || *line.start == '\t')) {
    line.start++;
    line.length--;
  }
  field->value = line;
  return is_token(field->name) && is_clean(line, true);
}

static size_t count_of(const struct expected *expected, const char *name) {
  size_t count = 0;
  for (size_t i = 0; i < expected->count; i++)
    count += text_is(expected->fields[i].name, name);
  return count;
}

static struct text value_of(const struct expected *expected, const char *name) {
  for (size_t i = 0; i < expected->count; i++)
    if (text_is(expected->fields[i].name, name)) return expected->fields[i].value;
  return (struct text){"", 0};
}

static struct text without_end_blanks(struct text text) {
  while (text.length > 0 && strchr(" \t", text.start[text.length - 1]))
    text.length--;
  return text;
}

/* strtoull() takes signs and blanks as well, which were looked for before. */
static bool read_length(struct text value, uint64_t *length) {
  char digits[32] = "";
  while (value.length > 1 && *value.start == '0') {
    value.start++;
    value.length--;
  }
  if (value.length == 0 || value.length >= sizeof digits) return false;
  memcpy(digits, value.start, value.length);
  if (strspn(digits, "0123456789") != value.length) return false;
  errno = 0;
  *length = strtoull(digits, NULL, 10);
  return errno == 0;
}

static bool is_idempotency_key(struct text value) {
  value = without_end_blanks(value);
  for (size_t i = 0; i < value.length; i++)
    if (!isgraph((unsigned char)value.start[i]) || (unsigned char)value.start[i] >= 0x80)
      return false;
  return value.length >= 1 && value.length <= 255;
}

/* What the fields mean together. */
static bool read_meaning(struct expected *expected) {
  static const char *const single[] = {"Content-Type", "Content-Encoding", "If-Match",
                                       "If-None-Match", "Idempotency-Key"};
  const bool old = text_is(expected->version, "HTTP/1.0");
  const size_t lengths = count_of(expected, "Content-Length");
  const size_t codings = count_of(expected, "Transfer-Encoding");
  const size_t hosts = count_of(expected, "Host");
  if (hosts > 1 || (hosts == 0 && !old) || lengths > 1 || codings > 1 || lengths + codings > 1)
    return false;
  if (lengths == 1 && !read_length(value_of(expected, "Content-Length"), &expected->content_length))
    return false;
  expected->chunked = codings == 1;
  if (codings == 1 && (old || !text_is(value_of(expected, "Transfer-Encoding"), "chunked")))
    return false;
  for (size_t i = 0; i < expected->count; i++) {
    if (!text_is(expected->fields[i].name, "Expect")) continue;
    expected->continues = true;
    if (!text_is(expected->fields[i].value, "100-continue")) return false;
  }
  for (size_t i = 0; i < sizeof single / sizeof *single; i++) {
    /* an empty one counts for none, but for the key */
    size_t count = 0;
    for (size_t f = 0; f < expected->count; f++)
      count += text_is(expected->fields[f].name, single[i]) && expected->fields[f].value.length > 0;
    if (count > 1) return false;
    if (count < count_of(expected, single[i])) expected->doubtful = true;
  }
  const size_t keys = count_of(expected, "Idempotency-Key");
  return keys == 0 || (keys == 1 && is_idempotency_key(value_of(expected, "Idempotency-Key")));
}

/* Blanks behind a value are allowed and passed over; the server may call a length,
 * a coding or an expectation that is followed by them an unknown one. */
static bool has_end_blanks(const struct expected *expected) {
  for (size_t i = 0; i < expected->count; i++) {
    const struct text value = expected->fields[i].value;
    if (without_end_blanks(value).length < value.length) return true;
  }
  return false;
}

/* False where the head does not end. Empty lines in front of it are passed over,
 * and no part of it, also such as end with a bare LF (RFC 9112, 2.2). */
static bool read_head(struct text rest, struct expected *expected) {
  struct text line;
  *expected = (struct expected){0};
  while (rest.length > 1 && (*rest.start == '\n' || memcmp(rest.start, "\r\n", 2) == 0)) {
    rest.start++;
    rest.length--;
  }
  const char *start = rest.start;
  if (!next_line(&rest, &line)) return false;
  bool sound = read_request_line(line, expected);
  for (;;) {
    if (!next_line(&rest, &line)) return false;
    if (line.length == 0) break;
    if (expected->count == MOST_FIELDS) return false;
    sound = read_field(line, expected) && sound;
  }
  expected->length = (size_t)(rest.start - start);
  expected->sound = sound && read_meaning(expected);
  return true;
}

/* Where a lenient parser leaves nothing that would tell a NUL, or a line of a colon
 * and a bare LF, from a part of CR LF: see http/head.c. */
static bool is_blurred(const char *bytes, size_t count) {
  enum { BESIDE = 3 };
  if (!head_parser_is_lenient()) return false;
  if (memmem(bytes, count, "\n:\n", 3) || memmem(bytes, count, "\n:\r\n", 4)) return true;
  for (size_t i = 0; i < count; i++) {
    const size_t first = i < BESIDE ? 0 : i - BESIDE;
    const size_t end = i + BESIDE < count ? i + BESIDE + 1 : count;
    if (bytes[i] == '\n' && memchr(bytes + first, '\0', end - first)) return true;
  }
  return false;
}

/* ---- The server ---- */

struct seen {
  char target[MOST_BYTES + 1];
  const char *place;
  const struct expected *expected; /* NULL where the grammar sees no whole head */
  bool blurred, asked, taken;
};

static void *see_target(void *context, const char *target, struct MHD_Connection *connection) {
  struct seen *seen = context;
  (void)connection;
  snprintf(seen->target, sizeof seen->target, "%s", target);
  seen->place = target;
  return seen;
}

/* NULL where a text holds nothing. */
static void check_text(const char *text, struct text wanted) {
  REQUIRE(strlen(text) == wanted.length && memcmp(text, wanted.start, wanted.length) == 0);
}

/* What is not empty of the fields of that name, joined. */
static void check_list(const char *text, const struct expected *expected, const char *name) {
  size_t at = 0, count = 0;
  for (size_t i = 0; i < expected->count; i++) {
    const struct text value = expected->fields[i].value;
    if (!text_is(expected->fields[i].name, name)) continue;
    if (count > 0) {
      REQUIRE(strncmp(text + at, ", ", 2) == 0);
      at += 2;
    }
    REQUIRE(strncmp(text + at, value.start, value.length) == 0);
    at += value.length;
    count += count > 0 || value.length > 0;
  }
  REQUIRE(text[at] == '\0');
}

static void check_single(const char *text, const struct expected *expected, const char *name) {
  struct text wanted = {"", 0};
  for (size_t i = 0; i < expected->count; i++)
    if (text_is(expected->fields[i].name, name) && expected->fields[i].value.length > 0)
      wanted = expected->fields[i].value;
  check_text(text, wanted);
}

static void check_split(char *target, struct text wanted) {
  const char *path, *query;
  struct text path_part = wanted, before;
  head_split_target(target, &path, &query);
  if (cut(&wanted, '?', &before))
    path_part = before;
  else
    wanted = (struct text){"", 0};
  if (path_part.length >= 7 && strncasecmp(path_part.start, "http://", 7) == 0) {
    const char *slash = memchr(path_part.start + 7, '/', path_part.length - 7);
    path_part = slash ? (struct text){slash, path_part.length - (size_t)(slash - path_part.start)}
                      : (struct text){"/", 1};
  }
  check_text(path, path_part);
  check_text(query, wanted);
}

static void check_taken(struct MHD_Connection *connection, const struct head *head,
                        struct seen *seen) {
  const struct expected *expected = seen->expected;
  if (seen->blurred) return;
  REQUIRE(expected && expected->sound);
  const union MHD_ConnectionInfo *info =
      MHD_get_connection_info(connection, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE);
  REQUIRE(info && info->header_size == expected->length);
  REQUIRE(head->chunked == expected->chunked);
  REQUIRE(head->content_length == expected->content_length);
  REQUIRE(head->expects_continue == expected->continues);
  check_text(seen->target, expected->target);
  check_single(head->content_type, expected, "Content-Type");
  check_single(head->content_encoding, expected, "Content-Encoding");
  check_single(head->if_match, expected, "If-Match");
  check_single(head->if_none_match, expected, "If-None-Match");
  check_text(head->idempotency_key, without_end_blanks(value_of(expected, "Idempotency-Key")));
  check_list(head->accept, expected, "Accept");
  check_split(seen->target, expected->target);
}

static enum MHD_Result see_head(void *context, struct MHD_Connection *connection, const char *url,
                                const char *method, const char *version, const char *upload,
                                size_t *upload_length, void **request) {
  struct seen *seen = *request;
  struct head head;
  struct problem problem;
  (void)context;
  (void)url;
  (void)upload;
  (void)upload_length;
  if (!seen || seen->asked) return MHD_NO; /* of the first head alone */
  seen->asked = true;
  const struct head_line line = {method, seen->target, seen->place, version};
  head_init(&head);
  seen->taken = head_check(connection, &line, &head, &problem);
  if (seen->taken)
    check_taken(connection, &head, seen);
  else
    REQUIRE(problem.code != PROBLEM_INTERNAL && problem.detail[0] != '\0');
  head_free(&head);
  return MHD_NO;
}

static size_t leave_escaped(void *context, struct MHD_Connection *connection, char *text) {
  (void)context;
  (void)connection;
  return strlen(text);
}

static void ignore_message(void *context, const char *format, va_list arguments) {
  (void)context;
  (void)format;
  (void)arguments;
}

/* As http/server.c starts its daemons, without a thread. */
static struct MHD_Daemon *start(struct seen *seen) {
  return MHD_start_daemon(MHD_USE_EPOLL | MHD_USE_NO_LISTEN_SOCKET | MHD_USE_ERROR_LOG, 0, NULL,
                          NULL, see_head, NULL, MHD_OPTION_EXTERNAL_LOGGER, ignore_message, NULL,
                          MHD_OPTION_STRICT_FOR_CLIENT, head_parser_is_lenient() ? 0 : 1,
                          MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)24 << 10,
                          MHD_OPTION_URI_LOG_CALLBACK, see_target, seen,
                          MHD_OPTION_UNESCAPE_CALLBACK, leave_escaped, NULL, MHD_OPTION_END);
}

static void serve(const char *bytes, size_t count, size_t piece, struct seen *seen) {
  const struct sockaddr_in address = {.sin_family = AF_INET};
  int ends[2];
  REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends) == 0);
  struct MHD_Daemon *daemon = start(seen);
  REQUIRE(daemon != NULL);
  REQUIRE(MHD_add_connection(daemon, ends[1], (const struct sockaddr *)&address, sizeof address) ==
          MHD_YES);
  for (size_t at = 0; at < count && !seen->asked; at += piece) {
    const size_t length = count - at < piece ? count - at : piece;
    if (send(ends[0], bytes + at, length, MSG_NOSIGNAL) != (ssize_t)length) break; /* refused */
    MHD_run(daemon);
  }
  shutdown(ends[0], SHUT_WR);
  for (int round = 0; round < 4; round++)
    MHD_run(daemon);
  MHD_stop_daemon(daemon);
  close(ends[0]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size < 2 || size > MOST_BYTES) return 0;
  const char *bytes = (const char *)data + 1;
  const size_t count = size - 1, piece = data[0] ? data[0] : count;
  struct expected expected;
  struct seen seen = {.blurred = is_blurred(bytes, count)};
  if (read_head((struct text){bytes, count}, &expected)) seen.expected = &expected;
  serve(bytes, count, piece, &seen);
  if (seen.expected && expected.sound && !expected.doubtful && !has_end_blanks(&expected))
    REQUIRE(seen.taken);
  return 0;
}
