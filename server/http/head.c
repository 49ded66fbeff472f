/* Is this head what it seems to be?
 *
 * A proxy in front of the server and the server itself must never disagree on
 * where a request ends, or the bytes of one client's body become another
 * client's request. libmicrohttpd before 1.0 is lenient where that matters: it
 * takes the first of two Content-Lengths, ignores Content-Length beside
 * Transfer-Encoding, waits for ever on a transfer coding it does not know, cuts
 * a header value at a NUL, takes a line that begins with NUL for the end of the
 * head, appends a folded line to the header's *name*, and knows no header
 * called "Content-Length " (with the space). So the head is checked again
 * here, and whatever is odd is refused.
 *
 * What it cut or moved can no longer be seen in the values it hands out, but
 * it can be seen in where they lie: it parses in place, so in a sound head
 * every part follows its predecessor at a known distance (name, colon, blanks,
 * value, CR LF, next name), from the method to the last byte. Any NUL, folded
 * line or bare LF breaks that chain, but for what leaves the same zeros in its place as
 * CR LF does: NUL LF, NULs between the LFs at the end, and a last line of a colon and
 * a bare LF. They can't be told apart any more (tests/fuzz/fuzz_head.c looks that
 * there is nothing else). It takes a proxy that lets these pass as they are, which
 * those that parse heads don't, to make use of it. Two things were rejected: peeking at the
 * socket before libmicrohttpd reads it (a head may come in pieces, and TLS hides
 * it), and an own parser in front (two parsers are what smuggling lives on).
 * From 1.0 on it refuses all of these by itself and keeps another layout, so
 * there the chain is not walked. */
#include "http/head.h"

#include <inttypes.h>
#include <string.h>
#include <strings.h>

#include "base/byte_set.h"

#define LINE_END 2 /* CR LF, both overwritten with zeros */

/* RFC 9110, 5.6.2 */
static const byte_set token_bytes = {
    ['!'] = true,         ['#'] = true,         ['$'] = true,        ['%'] = true, ['&'] = true,
    ['\''] = true,        ['*'] = true,         ['+'] = true,        ['-'] = true, ['.'] = true,
    ['^'] = true,         ['_'] = true,         ['`'] = true,        ['|'] = true, ['~'] = true,
    ['0' ... '9'] = true, ['A' ... 'Z'] = true, ['a' ... 'z'] = true};

/* What one pass over the headers gathers. */
struct walk {
  struct head *head;
  struct problem *problem;
  const char *end;  /* of what was walked so far; NULL where the layout tells nothing */
  bool ok;          /* nothing was wrong so far */
  unsigned lengths; /* Content-Length headers */
  unsigned codings; /* Transfer-Encoding headers */
  unsigned hosts;
  unsigned types;
  const char *coding;
};

static bool refuse(struct problem *problem, const char *sentence) {
  return problem_set(problem, PROBLEM_INVALID_REQUEST, "", "%s", sentence);
}

/* Printable ASCII and the bytes beyond it; blanks only where they are allowed. */
static bool text_is_clean(const char *text, size_t length, bool blanks) {
  for (size_t i = 0; i < length; i++) {
    unsigned char c = (unsigned char)text[i];
    if (c == 0x7f || c < 0x20 || c == ' ') {
      if (!(blanks && (c == ' ' || c == '\t'))) return false;
    }
  }
  return true;
}

/* What runs may be newer than what was compiled against. Releases before 1.0
 * are both lenient and known to leave the parsed head where it arrived. */
bool head_parser_is_lenient(void) {
  return strncmp(MHD_get_version(), "0.9.", 4) == 0;
}

static bool name_is(const char *name, size_t length, const char *wanted) {
  return length == strlen(wanted) && strncasecmp(name, wanted, length) == 0;
}

static bool take_length(struct walk *walk, const char *value, size_t length) {
  if (walk->lengths++ > 0) return refuse(walk->problem, "there is more than one Content-Length");
  uint64_t number = 0;
  for (size_t i = 0; i < length; i++) {
    unsigned digit = (unsigned)(unsigned char)value[i] - '0';
    if (digit > 9)
      return refuse(walk->problem, "the Content-Length is not a number of plain digits");
    if (number > (UINT64_MAX - digit) / 10)
      return refuse(walk->problem, "the Content-Length is beyond 64 bits");
    number = number * 10 + digit;
  }
  if (length == 0) return refuse(walk->problem, "the Content-Length is empty");
  walk->head->content_length = number;
  return true;
}

static bool take_expect(struct walk *walk, const char *value) {
  if (strcasecmp(value, "100-continue") != 0)
    return problem_set(walk->problem, PROBLEM_EXPECTATION_FAILED, "",
                       "the only expectation that can be met is 100-continue, not %.100s", value);
  walk->head->expects_continue = true;
  return true;
}

/* A header that means one thing only, so that a second one is a contradiction. */
static bool take_once(struct walk *walk, const char **slot, const char *name, const char *value) {
  if (**slot)
    return problem_set(walk->problem, PROBLEM_INVALID_REQUEST, "", "there is more than one %s",
                       name);
  *slot = value;
  return true;
}

/* Accept is a list that may be spread over several headers. */
static bool take_accept(struct walk *walk, const char *value) {
  struct head *head = walk->head;
  if (!*head->accept) {
    head->accept = value;
    return true;
  }
  struct buffer *list = &head->accept_list;
  if (list->length == 0) buffer_puts(list, head->accept);
  buffer_puts(list, ", ");
  buffer_puts(list, value);
  head->accept = buffer_text(list);
  if (list->status != BUFFER_OK)
    return problem_set(walk->problem, PROBLEM_OUT_OF_MEMORY, "", "no memory for the request head");
  return true;
}

/* A copy, because blanks may follow the value. An empty key is refused: who sends
 * one believes that a second try is safe. */
static bool take_idempotency_key(struct walk *walk, const char *value, size_t length) {
  char *key = walk->head->idempotency_key;
  while (length > 0 && (value[length - 1] == ' ' || value[length - 1] == '\t'))
    length--;
  if (*key) return refuse(walk->problem, "there is more than one Idempotency-Key");
  if (length == 0 || length > HEAD_KEY_MAX)
    return problem_set(walk->problem, PROBLEM_INVALID_REQUEST, "",
                       "an Idempotency-Key has 1 to %d bytes, but this one has %zu", HEAD_KEY_MAX,
                       length);
  for (size_t i = 0; i < length; i++) {
    unsigned char c = (unsigned char)value[i];
    if (c <= ' ' || c >= 0x7f)
      return problem_set(walk->problem, PROBLEM_INVALID_REQUEST, "",
                         "an Idempotency-Key consists of visible ASCII, but its byte %zu is 0x%02x",
                         i + 1, c);
  }
  memcpy(key, value, length);
  key[length] = '\0';
  return true;
}

static bool take_header(struct walk *walk, const char *name, size_t name_length, const char *value,
                        size_t value_length) {
  struct head *head = walk->head;
  if (name_is(name, name_length, "Content-Length")) return take_length(walk, value, value_length);
  if (name_is(name, name_length, "Transfer-Encoding")) {
    walk->codings++;
    walk->coding = value;
  } else if (name_is(name, name_length, "Host")) {
    walk->hosts++;
  } else if (name_is(name, name_length, "Expect")) {
    return take_expect(walk, value);
  } else if (name_is(name, name_length, "Accept")) {
    return take_accept(walk, value);
  } else if (name_is(name, name_length, "Content-Type")) {
    return take_once(walk, &head->content_type, "Content-Type", value);
  } else if (name_is(name, name_length, "Content-Encoding")) {
    return take_once(walk, &head->content_encoding, "Content-Encoding", value);
  } else if (name_is(name, name_length, "If-Match")) {
    return take_once(walk, &head->if_match, "If-Match", value);
  } else if (name_is(name, name_length, "If-None-Match")) {
    return take_once(walk, &head->if_none_match, "If-None-Match", value);
  } else if (name_is(name, name_length, "Idempotency-Key")) {
    return take_idempotency_key(walk, value, value_length);
  }
  return true;
}

/* True where the header lies right behind what was walked before it. */
static bool follows(const char *end, const char *name, size_t name_length, const char *value) {
  if (name != end + LINE_END) return false;
  const char *blank = name + name_length + 1;
  if (value < blank) return false;
  while (blank < value && (*blank == ' ' || *blank == '\t'))
    blank++;
  return blank == value;
}

static bool check_header(struct walk *walk, const char *name, size_t name_length, const char *value,
                         size_t value_length) {
  if (name_length == 0 || byte_set_span(token_bytes, name) != name_length)
    return refuse(walk->problem, "the name of a header has a byte that is not allowed there");
  if (walk->end) {
    if (!follows(walk->end, name, name_length, value))
      return refuse(walk->problem, "the head has a NUL, a folded line or a line without CR LF");
    walk->end = value + value_length;
  }
  if (!text_is_clean(value, value_length, true))
    return problem_set(walk->problem, PROBLEM_INVALID_REQUEST, "",
                       "the value of the header %.40s has a control character", name);
  return take_header(walk, name, name_length, value, value_length);
}

static enum MHD_Result visit_header(void *context, enum MHD_ValueKind kind, const char *name,
                                    size_t name_length, const char *value, size_t value_length) {
  (void)kind;
  struct walk *walk = context;
  walk->ok = check_header(walk, name, name_length, value ? value : "", value_length);
  return walk->ok ? MHD_YES : MHD_NO;
}

static bool check_line(const struct head_line *line, bool layout_known, struct problem *problem) {
  size_t method_length = strlen(line->method), target_length = strlen(line->target);
  if (method_length == 0 || byte_set_span(token_bytes, line->method) != method_length)
    return refuse(problem, "the method has a byte that is not allowed there");
  if (target_length == 0 || !text_is_clean(line->target, target_length, false))
    return refuse(problem, "the request target is empty or has a blank or a control character");
  if (layout_known && (line->method + method_length + 1 != line->place ||
                       line->place + target_length + 1 != line->version))
    return refuse(problem, "the request line has a NUL or more than one blank between its parts");
  return true;
}

/* The empty line and nothing else must stand between the last header and the
 * end that libmicrohttpd saw: two line ends, each of them zeros now. */
static bool check_end(struct MHD_Connection *connection, const struct head_line *line,
                      const char *end, struct problem *problem) {
  const union MHD_ConnectionInfo *info =
      MHD_get_connection_info(connection, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE);
  static const char zeros[2 * LINE_END];
  if (!info || end + sizeof zeros != line->method + info->header_size ||
      memcmp(end, zeros, sizeof zeros) != 0)
    return refuse(problem, "the head has a NUL, a folded line or a line without CR LF");
  return true;
}

/* What only shows once every header was seen. */
static bool check_whole(const struct walk *walk, const char *version) {
  if (walk->hosts > 1) return refuse(walk->problem, "there is more than one Host");
  if (walk->hosts == 0 && strcmp(version, "HTTP/1.0") != 0)
    return refuse(walk->problem, "HTTP/1.1 needs a Host header");
  if (walk->codings == 0) return true;
  if (walk->lengths > 0)
    return refuse(walk->problem, "there are both a Content-Length and a Transfer-Encoding");
  if (walk->codings > 1 || strcasecmp(walk->coding, "chunked") != 0)
    return problem_set(walk->problem, PROBLEM_UNSUPPORTED_TRANSFER_CODING, "",
                       "the only transfer coding is chunked, once, but this one is %.100s",
                       walk->coding);
  if (strcmp(version, "HTTP/1.0") == 0)
    return refuse(walk->problem, "HTTP/1.0 has no Transfer-Encoding");
  walk->head->chunked = true;
  return true;
}

void head_init(struct head *head) {
  *head = (struct head){.content_type = "",
                        .content_encoding = "",
                        .accept = "",
                        .if_match = "",
                        .if_none_match = ""};
  buffer_init(&head->accept_list, 0);
}

bool head_check(struct MHD_Connection *connection, const struct head_line *line, struct head *head,
                struct problem *problem) {
  bool layout_known = head_parser_is_lenient();
  if (!check_line(line, layout_known, problem)) return false;
  struct walk walk = {.head = head, .problem = problem, .ok = true, .coding = ""};
  if (layout_known) walk.end = line->version + strlen(line->version);
  MHD_get_connection_values_n(connection, MHD_HEADER_KIND, visit_header, &walk);
  if (!walk.ok) return false;
  if (layout_known && !check_end(connection, line, walk.end, problem)) return false;
  return check_whole(&walk, line->version);
}

void head_free(struct head *head) {
  buffer_free(&head->accept_list);
}

void head_split_target(char *target, const char **path, const char **query_string) {
  char *question = strchr(target, '?');
  if (question) *question = '\0';
  *query_string = question ? question + 1 : "";
  *path = target;
  if (strncasecmp(target, "http://", 7) == 0) {
    const char *slash = strchr(target + 7, '/');
    *path = slash ? slash : "/";
  }
}
