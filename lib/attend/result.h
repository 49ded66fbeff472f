/* Answers as the computing files see them. */
#ifndef ATTN_RESULT_H
#define ATTN_RESULT_H

#include "attention.h"

/* Whether it has the sizes of what is asked. */
bool attn_result_has_room(const attn_result *result, const attn_result *asked);

/* Whether no array is missing that its sizes say it has. */
bool attn_result_has_arrays(const attn_result *result);

#endif
