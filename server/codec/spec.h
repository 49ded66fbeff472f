/* The members "score" and "normalization" of bodies: a name, or an object of
 * "type" and parameters. Which parameters there are comes from the library's
 * tables; ranges are the library's to check. */
#ifndef CODEC_SPEC_H
#define CODEC_SPEC_H

#include <stdbool.h>

#include "attention.h"
#include "codec/scan.h"
#include "codec/tensor_set.h"

/* Read the value at the scan, whose pointer is that of the member. False with
 * the problem filled: INVALID_TYPE, MISSING_MEMBER, UNKNOWN_MEMBER,
 * UNKNOWN_SCORE or UNKNOWN_NORMALIZATION, INVALID_PARAMETER, what reading
 * numbers and tensors can say, or OUT_OF_MEMORY.
 *
 * `tensors` may be NULL; those named "score.PARAMETER" are taken from it as if
 * they stood in the JSON, and each has to be a parameter of the score. */
bool spec_read_score(struct scan *scan, struct tensor_set *tensors, attn_score **score);
bool spec_read_normalization(struct scan *scan, attn_normalization **normalization);

#endif
