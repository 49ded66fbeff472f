/* The members "score" and "normalization" of bodies: a name, or an object of
 * "type" and parameters. Which parameters there are comes from the library's
 * tables; ranges are the library's to check. */
#ifndef CODEC_SPEC_H
#define CODEC_SPEC_H

#include <stdbool.h>

#include "attention.h"
#include "codec/scan.h"

/* Read the value at the scan, whose pointer is that of the member; `to` is an
 * attn_score ** or attn_normalization **, as a struct scan_field has it. False
 * with the problem filled: INVALID_TYPE, MISSING_MEMBER, UNKNOWN_MEMBER,
 * UNKNOWN_SCORE or UNKNOWN_NORMALIZATION, INVALID_PARAMETER, what reading
 * numbers and tensors can say, or OUT_OF_MEMORY.
 *
 * Tensors beside the text (scan->tensors) that are named "score.PARAMETER" are
 * taken as if they stood in it, and each has to be a parameter of the score. */
bool spec_read_score(struct scan *scan, void *to);
bool spec_read_normalization(struct scan *scan, void *to);

#endif
