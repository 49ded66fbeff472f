/* The ids of a memory's rows: an immutable, counted list of distinct strings,
 * kept in one arena (a million ids are two allocations, not a million). */
#ifndef BASE_ID_LIST_H
#define BASE_ID_LIST_H

#include <stdbool.h>
#include <stddef.h>

/* An id is 1 to 256 bytes of UTF-8. */
#define ID_LENGTH_MAX 256

struct id_list;

/* Built by appending, then shared. NULL where memory is short. */
struct id_list *id_list_create(void);
bool id_list_append(struct id_list *list, const char *id, size_t length);

/* Where two are equal, the index of the later one of the first such pair found
 * (in order of index); SIZE_MAX where all differ; SIZE_MAX - 1 where memory
 * for the check is short. */
size_t id_list_find_duplicate(const struct id_list *list);

/* Both accept NULL. */
struct id_list *id_list_ref(struct id_list *list);
void id_list_free(struct id_list *list);

size_t id_list_count(const struct id_list *list); /* 0 for NULL */
const char *id_list_get(const struct id_list *list, size_t index, size_t *length);
size_t id_list_bytes(const struct id_list *list); /* RAM; 0 for NULL */

#endif
