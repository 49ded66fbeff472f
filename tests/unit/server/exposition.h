/* A strict reader of Prometheus' text format 0.0.4, written from the format's
 * description alone. It takes a scrape apart into samples and refuses whatever
 * the description does not allow, and also what `promtool check metrics` warns
 * of: families without HELP or TYPE, counters not named *_total, series that
 * occur twice, histograms that contradict themselves. */
#ifndef TESTS_UNIT_SERVER_EXPOSITION_H
#define TESTS_UNIT_SERVER_EXPOSITION_H

#include <ctype.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SAMPLES_MAX = 2000, FAMILIES_MAX = 100 };

struct sample {
  char series[300]; /* name and labels as they stand */
  char name[100];
  char le[32]; /* of a bucket */
  double value;
};

struct family {
  char name[100], kind[16];
  size_t first, count; /* its samples */
};

struct exposition {
  struct sample samples[SAMPLES_MAX];
  struct family families[FAMILIES_MAX];
  size_t sample_count, family_count;
  const char *fault; /* NULL where all is well */
  size_t fault_line;
};

static inline size_t name_length(const char *text, bool colon) {
  size_t length = 0;
  while (isalpha((unsigned char)text[length]) || text[length] == '_' ||
         (colon && text[length] == ':') || (length > 0 && isdigit((unsigned char)text[length])))
    length++;
  return length;
}

/* {name="value",...}: its length, 0 where it is malformed. */
static inline size_t labels_length(const char *text, char *le, size_t le_size) {
  const char *at = text + 1;
  for (;;) {
    size_t name = name_length(at, false);
    if (name == 0 || strncmp(at + name, "=\"", 2) != 0) return 0;
    bool is_le = name == 2 && strncmp(at, "le", 2) == 0;
    at += name + 2;
    const char *value = at;
    for (; *at != '"'; at++) {
      if (*at == '\0' || *at == '\n') return 0;
      if (*at == '\\' && !strchr("\\\"n", *++at)) return 0;
    }
    if (is_le) snprintf(le, le_size, "%.*s", (int)(at - value), value);
    at++;
    if (*at == '}') return (size_t)(at + 1 - text);
    if (*at++ != ',') return 0;
  }
}

static inline double sample_value(const char *text, bool *valid) {
  if (strcmp(text, "+Inf") == 0) return INFINITY;
  char *end;
  double value = strtod(text, &end);
  *valid = *valid && *end == '\0' && end != text && strspn(text, "+-.0123456789eE") == strlen(text);
  return value;
}

static inline const char *read_sample(struct exposition *e, const char *line) {
  if (e->family_count == 0) return "a sample before any family";
  if (e->sample_count == SAMPLES_MAX) return "too many samples";
  struct family *family = &e->families[e->family_count - 1];
  struct sample *sample = &e->samples[e->sample_count];
  memset(sample, 0, sizeof *sample);
  size_t length = name_length(line, true);
  snprintf(sample->name, sizeof sample->name, "%.*s", (int)length, line);
  if (line[length] == '{') {
    size_t labels = labels_length(line + length, sample->le, sizeof sample->le);
    if (labels == 0) return "malformed labels";
    length += labels;
  }
  snprintf(sample->series, sizeof sample->series, "%.*s", (int)length, line);
  bool valid = line[length] == ' ';
  sample->value = valid ? sample_value(line + length + 1, &valid) : 0;
  if (!valid) return "malformed value";
  const char *suffix = sample->name + strlen(family->name);
  if (strncmp(sample->name, family->name, strlen(family->name)) != 0)
    return "a sample outside its family";
  bool histogram = strcmp(family->kind, "histogram") == 0;
  if (histogram ? strcmp(suffix, "_bucket") && strcmp(suffix, "_sum") && strcmp(suffix, "_count")
                : *suffix != '\0')
    return "a sample outside its family";
  for (size_t i = 0; i < e->sample_count; i++)
    if (strcmp(e->samples[i].series, sample->series) == 0) return "a series that occurs twice";
  if (strcmp(family->kind, "gauge") != 0 && !(sample->value >= 0)) return "a negative count";
  e->sample_count++;
  family->count++;
  return NULL;
}

static inline const char *read_help(struct exposition *e, const char *text) {
  size_t length = name_length(text, true);
  if (length == 0 || text[length] != ' ' || text[length + 1] == '\0') return "malformed HELP";
  if (e->family_count == FAMILIES_MAX) return "too many families";
  if (e->family_count > 0 && e->families[e->family_count - 1].kind[0] == '\0')
    return "HELP without TYPE";
  struct family *family = &e->families[e->family_count];
  *family = (struct family){.first = e->sample_count};
  snprintf(family->name, sizeof family->name, "%.*s", (int)length, text);
  for (size_t i = 0; i < e->family_count; i++)
    if (strcmp(e->families[i].name, family->name) == 0) return "a family that occurs twice";
  e->family_count++;
  return NULL;
}

static inline const char *read_type(struct exposition *e, const char *text) {
  struct family *family = e->family_count > 0 ? &e->families[e->family_count - 1] : NULL;
  if (!family || family->kind[0] != '\0' || family->count > 0) return "TYPE without HELP before it";
  size_t length = strlen(family->name);
  if (strncmp(text, family->name, length) != 0 || text[length] != ' ')
    return "TYPE of another family";
  const char *kind = text + length + 1;
  bool counter = strcmp(kind, "counter") == 0;
  if (!counter && strcmp(kind, "gauge") != 0 && strcmp(kind, "histogram") != 0)
    return "unknown TYPE";
  bool total = length > 6 && strcmp(family->name + length - 6, "_total") == 0;
  if (counter != total) return "_total belongs to counters, and to all of them";
  snprintf(family->kind, sizeof family->kind, "%s", kind);
  return NULL;
}

/* One histogram without labels of its own: bounds rise, counts never fall, the
 * last bucket is +Inf and agrees with _count. */
static inline const char *check_histogram(const struct exposition *e, const struct family *family) {
  const struct sample *samples = e->samples + family->first;
  size_t buckets = 0;
  double bound = -INFINITY, count = 0;
  bool valid = true;
  for (; buckets < family->count && samples[buckets].le[0]; buckets++) {
    double next = sample_value(samples[buckets].le, &valid);
    if (!valid || !(next > bound) || samples[buckets].value < count) return "buckets out of order";
    bound = next;
    count = samples[buckets].value;
  }
  if (buckets == 0 || !isinf(bound)) return "no bucket +Inf";
  if (family->count != buckets + 2 || !strstr(samples[buckets].name, "_sum") ||
      !strstr(samples[buckets + 1].name, "_count"))
    return "no _sum and _count";
  return samples[buckets + 1].value == count ? NULL : "_count is not the last bucket";
}

static inline void read_exposition(struct exposition *e, const char *text) {
  memset(e, 0, sizeof *e);
  while (*text && !e->fault) {
    e->fault_line++;
    size_t length = strcspn(text, "\n");
    char line[500];
    if (text[length] == '\0' || length == 0 || length >= sizeof line) {
      e->fault = "a line that is empty, endless or too long";
      return;
    }
    memcpy(line, text, length);
    line[length] = '\0';
    text += length + 1;
    if (strncmp(line, "# HELP ", 7) == 0)
      e->fault = read_help(e, line + 7);
    else if (strncmp(line, "# TYPE ", 7) == 0)
      e->fault = read_type(e, line + 7);
    else
      e->fault = read_sample(e, line);
  }
  for (size_t i = 0; i < e->family_count && !e->fault; i++) {
    if (e->families[i].kind[0] == '\0')
      e->fault = "HELP without TYPE";
    else if (strcmp(e->families[i].kind, "histogram") == 0)
      e->fault = check_histogram(e, &e->families[i]);
  }
}

/* The value of a series, NAN where there is none. */
static inline double series_value(const struct exposition *e, const char *series) {
  for (size_t i = 0; i < e->sample_count; i++)
    if (strcmp(e->samples[i].series, series) == 0) return e->samples[i].value;
  return NAN;
}

#endif
