/* The Accept header, as far as it chooses between the forms that a route sends.
 *
 * RFC 9110, 12.5.1: each type has the weight of the most specific range that covers it (the
 * type itself, then its family and a star, then two stars), 0 where none does. The heaviest
 * one is sent. Of those that weigh the same, the one that was named more specifically is: a
 * client that lists safetensors and adds two stars for whatever else there may be wants
 * safetensors. What is left is the route's first form: two stars alone, no header at all,
 * types named alike, none of them acceptable. The last could be answered with 406, but who
 * asks for text/html in a browser rather sees JSON.
 *
 * Parameters other than q are passed over, since no type here has any. A
 * range that is malformed, or whose q is, counts for nothing: to refuse the
 * request for it would help nobody. Of two ranges that are equally specific
 * the heavier one counts.
 *
 * The header is gone through once for each form. There are two of them, and most requests
 * have a short header or none; a table of all forms' weights would need a bound on them. */
#include "http/accept.h"

#include <stddef.h>
#include <string.h>
#include <strings.h>

struct span {
  const char *start;
  size_t length;
};

/* How well a type is covered. */
struct cover {
  int specificity; /* 0: not at all; 1: by two stars; 2: by its family; 3: by its name */
  int weight;      /* thousandths */
};

static struct span trimmed(const char *start, const char *end) {
  while (start < end && (*start == ' ' || *start == '\t'))
    start++;
  while (end > start && (end[-1] == ' ' || end[-1] == '\t'))
    end--;
  return (struct span){start, (size_t)(end - start)};
}

static bool span_equals(struct span span, const char *text) {
  return span.length == strlen(text) && strncasecmp(span.start, text, span.length) == 0;
}

/* The end of what begins at `text`: the next one of `ends` that is not within
 * quotes, or the end of the header. */
static const char *end_of(const char *text, const char *ends) {
  bool quoted = false;
  for (; *text; text++) {
    if (quoted && *text == '\\' && text[1])
      text++;
    else if (*text == '"')
      quoted = !quoted;
    else if (!quoted && strchr(ends, *text))
      break;
  }
  return text;
}

/* qvalue = "0" [ "." 0*3DIGIT ] / "1" [ "." 0*3("0") ]; -1 for anything else. */
static int weight_of(struct span text) {
  if (text.length < 1 || text.length > 5 || (text.start[0] != '0' && text.start[0] != '1'))
    return -1;
  if (text.length > 1 && text.start[1] != '.') return -1;
  int weight = 1000 * (text.start[0] - '0'), place = 100;
  for (size_t i = 2; i < text.length; i++, place /= 10) {
    char digit = text.start[i];
    if (digit < '0' || digit > '9') return -1;
    weight += place * (digit - '0');
  }
  return weight <= 1000 ? weight : -1;
}

static void improve(struct cover *cover, int specificity, int weight) {
  if (specificity < cover->specificity) return;
  if (specificity == cover->specificity && weight <= cover->weight) return;
  *cover = (struct cover){specificity, weight};
}

/* How specifically a range covers the type; 0: not at all. */
static int specificity_of(struct span range, const char *type) {
  if (span_equals(range, type)) return 3;
  if (span_equals(range, "*/*")) return 1;
  const size_t family = (size_t)(strchrnul(type, '/') - type) + 1;
  const bool star = range.length == family + 1 && range.start[family] == '*';
  return star && strncasecmp(range.start, type, family) == 0 ? 2 : 0;
}

static struct cover cover_of(const char *accept, const char *type) {
  struct cover cover = {0, 0};
  for (const char *c = accept; *c; c += *c == ',') {
    const char *end = end_of(c, ",;");
    struct span range = trimmed(c, end);
    int weight = 1000;
    while (*end == ';') {
      const char *parameter = end + 1;
      end = end_of(parameter, ",;");
      struct span text = trimmed(parameter, end);
      if (text.length >= 2 && (text.start[0] == 'q' || text.start[0] == 'Q') &&
          text.start[1] == '=')
        weight = weight_of((struct span){text.start + 2, text.length - 2});
    }
    const int specificity = weight >= 0 ? specificity_of(range, type) : 0;
    if (specificity > 0) improve(&cover, specificity, weight);
    c = end;
  }
  return cover;
}

const struct http_media *accept_choose(const char *accept, const struct http_media *const *forms) {
  const struct http_media *best = forms[0];
  if (*accept == '\0') return best;
  struct cover of_best = cover_of(accept, best->type);
  for (size_t i = 1; forms[i]; i++) {
    const struct cover cover = cover_of(accept, forms[i]->type);
    const bool heavier = cover.weight > of_best.weight;
    const bool as_heavy = cover.weight > 0 && cover.weight == of_best.weight;
    if (!heavier && !(as_heavy && cover.specificity > of_best.specificity)) continue;
    best = forms[i];
    of_best = cover;
  }
  return best;
}
