// SPDX-License-Identifier: Apache-2.0
/*
 * A map from 64-bit keys (file handles, request numbers) to small records: open addressing, no
 * fixed size, deletion without tombstones.
 *
 * Decided here: nothing but that. Included by _passthrough.c, which holds its lock around every
 * call: one translation unit, so that nothing of it is visible to other libraries.
 */

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>

struct record {
	uint64_t key;
	uint64_t offset;     /* an LSEEK's */
	uint32_t opcode;     /* of a request; 0 marks a free slot, handles have 1 */
	uint32_t detail;     /* OPEN: the open(2) flags; LSEEK: the whence */
	int32_t backing_id;  /* of a handle */
	int32_t fd;          /* of a handle */
};

struct map {
	struct record *slots;
	size_t mask, used;
};

static size_t home(const struct map *map, uint64_t key)
{
	return (size_t)((key * 0x9E3779B97F4A7C15u) >> 20) & map->mask;
}

static struct record *find(const struct map *map, uint64_t key)
{
	if (map->used == 0)
		return NULL;
	for (size_t i = home(map, key); map->slots[i].opcode; i = (i + 1) & map->mask)
		if (map->slots[i].key == key)
			return &map->slots[i];
	return NULL;
}

static void place(struct map *map, const struct record *record)
{
	size_t i = home(map, record->key);

	while (map->slots[i].opcode && map->slots[i].key != record->key)
		i = (i + 1) & map->mask;
	map->used += map->slots[i].opcode == 0;
	map->slots[i] = *record;
}

static int insert(struct map *map, const struct record *record)
{
	if (map->slots == NULL || map->used * 2 > map->mask) {
		struct map larger = {.mask = map->slots ? map->mask * 2 + 1 : 63};

		larger.slots = calloc(larger.mask + 1, sizeof(struct record));
		if (larger.slots == NULL)
			return -ENOMEM;
		for (size_t i = 0; map->slots && i <= map->mask; i++)
			if (map->slots[i].opcode)
				place(&larger, &map->slots[i]);
		free(map->slots);
		*map = larger;
	}
	place(map, record);
	return 0;
}

static int take_out(struct map *map, uint64_t key, struct record *out)
{
	struct record *found = find(map, key);
	size_t hole, next;

	if (found == NULL)
		return 0;
	*out = *found;
	hole = (size_t)(found - map->slots);
	for (next = (hole + 1) & map->mask; map->slots[next].opcode; next = (next + 1) & map->mask) {
		size_t wanted = home(map, map->slots[next].key);

		if (((next - wanted) & map->mask) >= ((next - hole) & map->mask)) {
			map->slots[hole] = map->slots[next];
			hole = next;
		}
	}
	map->slots[hole].opcode = 0;
	map->used--;
	return 1;
}

static void empty(struct map *map)
{
	free(map->slots);
	*map = (struct map){0};
}
