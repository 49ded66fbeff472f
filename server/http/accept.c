/* The Accept header, as far as it chooses between JSON and tensors.
 *
 * RFC 9110, 12.5.1: each of the two types has the weight of the most specific
 * range that covers it (the type itself, then application/ and a star, then
 * two stars), 0 where none does. The heavier one is sent. Where the weights
 * are the same, the one that was named more specifically is: a client that
 * lists safetensors and adds two stars for whatever else there may be wants
 * safetensors. What is left is JSON: two stars alone, no header at all, both
 * types named alike, neither of them acceptable. The last could be answered
 * with 406, but who asks for text/html in a browser rather sees JSON.
 *
 * Parameters other than q are passed over, since neither type has any. A
 * range that is malformed, or whose q is, counts for nothing: to refuse the
 * request for it would help nobody. Of two ranges that are equally specific
 * the heavier one counts. */
#include "http/accept.h"

#include <stddef.h>
#include <string.h>
#include <strings.h>

#include "http/http.h"

#define JSON_TYPE "application/json"

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

static void take_range(struct span range, int weight, struct cover *json, struct cover *tensors) {
  if (span_equals(range, JSON_TYPE)) {
    improve(json, 3, weight);
  } else if (span_equals(range, HTTP_TENSORS_TYPE)) {
    improve(tensors, 3, weight);
  } else {
    int specificity = span_equals(range, "application/*") ? 2 : span_equals(range, "*/*") ? 1 : 0;
    if (specificity == 0) return;
    improve(json, specificity, weight);
    improve(tensors, specificity, weight);
  }
}

bool accept_prefers_tensors(const char *accept) {
  struct cover json = {0, 0}, tensors = {0, 0};
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
    if (weight >= 0) take_range(range, weight, &json, &tensors);
    c = end;
  }
  if (tensors.weight != json.weight) return tensors.weight > json.weight;
  return tensors.weight > 0 && tensors.specificity > json.specificity;
}
