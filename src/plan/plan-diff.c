// SPDX-License-Identifier: MIT
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/own.h"
#include "plan/index.h"
#include "plan/json.h"

static void json_drop(json_t **json)
{
	json_decref(*json);
}

/* The grants of one plan, walked in order; port counts from 0 to 65,536 within an address. */
struct side {
	const struct ps_plan *plan;
	size_t next;
};

struct moves {
	struct ps_move *items;
	size_t n, room;
};

static void moves_clear(struct moves *moves)
{
	free(moves->items);
}

/* The grant a side is at, if it is one of this address. */
static const struct ps_grant *side_at(const struct side *side, const struct ps_ip *address)
{
	const struct ps_grant *grant;

	if (!side->plan || side->next >= side->plan->n_grants)
		return NULL;
	grant = &side->plan->grants[side->next];
	return address && ps_ip_cmp(&grant->address, address) != 0 ? NULL : grant;
}

static struct ps_range ports_of(const struct side *side, const struct ps_grant *grant)
{
	return ps_slice_range(grant->slice, side->plan->pools[grant->pool].shift);
}

/* Who has `port` by this side, and in *until the port before which that holds. */
static const char *owner_at(struct side *side, const struct ps_ip *address, uint32_t port,
			    uint32_t *until)
{
	const struct ps_grant *grant = side_at(side, address);
	struct ps_range ports;

	while (grant) {
		ports = ports_of(side, grant);
		if (port < (uint32_t)ports.first + ports.count)
			break;
		side->next++;
		grant = side_at(side, address);
	}
	if (!grant)
		return NULL;
	if (port < ports.first) {
		*until = ports.first < *until ? ports.first : *until;
		return NULL;
	}
	if (ports.first + ports.count < *until)
		*until = ports.first + ports.count;
	return side->plan->hosts[grant->host].name;
}

static bool same_name(const char *a, const char *b)
{
	return a == b || (a && b && strcmp(a, b) == 0);
}

static int push(struct moves *moves, struct ps_move move)
{
	size_t room = 2 * moves->room + 16;
	struct ps_move *items;

	if (moves->n == moves->room) {
		items = reallocarray(moves->items, room, sizeof(*items));
		if (!items)
			return -ENOMEM;
		moves->items = items;
		moves->room = room;
	}
	moves->items[moves->n++] = move;
	return 0;
}

/* From border to border of either side's slices, which may differ in size. */
static int compare_address(struct side *old, struct side *new, const struct ps_ip *address,
			   struct moves *moves)
{
	uint32_t until;

	for (uint32_t port = 0; port < PS_PORT_COUNT; port = until) {
		const char *from, *to;

		until = PS_PORT_COUNT;
		from = owner_at(old, address, port, &until);
		to = owner_at(new, address, port, &until);
		if (!same_name(from, to) &&
		    push(moves,
			 (struct ps_move){*address, {(uint16_t)port, until - port}, from, to}) < 0)
			return -ENOMEM;
	}
	/* Past the last port both have left this address. */
	(void)owner_at(old, address, PS_PORT_COUNT, &until);
	(void)owner_at(new, address, PS_PORT_COUNT, &until);
	return 0;
}

int ps_plan_moves(const struct ps_plan *old, const struct ps_plan *new, struct ps_move **ret,
		  size_t *ret_n)
{
	ps_auto(moves_clear) struct moves moves = {0};
	struct side a = {old, 0}, b = {new, 0};

	while (side_at(&a, NULL) || side_at(&b, NULL)) {
		const struct ps_grant *x = side_at(&a, NULL), *y = side_at(&b, NULL);
		const struct ps_grant *first = x;
		struct ps_ip address;

		if (!x || (y && ps_ip_cmp(&y->address, &x->address) < 0))
			first = y;
		address = first->address;
		if (compare_address(&a, &b, &address, &moves) < 0)
			return -ENOMEM;
	}
	*ret_n = moves.n;
	*ret = ps_move(moves.items);
	return 0;
}

/* `noun` elements of one section of both plans. */
struct section {
	const char *key, *noun;
	bool ordered; /* the order of the elements has a meaning */
};

static const char *name_of(const json_t *element)
{
	return json_string_value(json_object_get(element, "name"));
}

/* Elements by name. */
static json_t *named(const json_t *elements)
{
	ps_auto(json_drop) json_t *map = json_object();
	size_t i;
	json_t *element;

	json_array_foreach(elements, i, element)
	{
		if (json_object_set(map, name_of(element), element) < 0)
			return NULL;
	}
	return ps_move(map);
}

static int print_value(FILE *f, const json_t *value)
{
	ps_auto_mem char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT | JSON_SORT_KEYS);

	if (!text)
		return -ENOMEM;
	if (json_is_string(value))
		(void)fputs(json_string_value(value), f);
	else
		(void)fputs(json_is_null(value) ? "none" : text, f);
	return 0;
}

static int print_fields(FILE *f, const char *noun, const json_t *old, const json_t *new)
{
	const char *key;
	json_t *value;
	int r = 0;

	json_object_foreach((json_t *)(uintptr_t)new, key, value)
	{
		const json_t *before = json_object_get(old, key);

		if (r < 0 || json_equal(before, value))
			continue;
		(void)fprintf(f, "~ %s %s %s ", noun, name_of(new), key);
		r = print_value(f, before);
		(void)fputs(" -> ", f);
		if (r == 0)
			r = print_value(f, value);
		(void)fputc('\n', f);
	}
	return r;
}

/* That the elements both have stand in the same order. */
static bool same_order(const json_t *old, const json_t *new, const json_t *old_names,
		       const json_t *new_names)
{
	size_t i = 0, k = 0;

	for (;;) {
		while (i < json_array_size(old) &&
		       !json_object_get(new_names, name_of(json_array_get(old, i))))
			i++;
		while (k < json_array_size(new) &&
		       !json_object_get(old_names, name_of(json_array_get(new, k))))
			k++;
		if (i == json_array_size(old) || k == json_array_size(new))
			return true;
		if (strcmp(name_of(json_array_get(old, i++)), name_of(json_array_get(new, k++))) !=
		    0)
			return false;
	}
}

static int diff_section(FILE *f, const struct section *section, const json_t *old,
			const json_t *new)
{
	ps_auto(json_drop) json_t *old_names = named(old);
	ps_auto(json_drop) json_t *new_names = named(new);
	json_t *element;
	size_t i;

	if (!old_names || !new_names)
		return -ENOMEM;
	json_array_foreach(old, i, element)
	{
		if (!json_object_get(new_names, name_of(element)))
			(void)fprintf(f, "- %s %s\n", section->noun, name_of(element));
	}
	json_array_foreach(new, i, element)
	{
		const json_t *before = json_object_get(old_names, name_of(element));

		if (!before)
			(void)fprintf(f, "+ %s %s\n", section->noun, name_of(element));
		else if (print_fields(f, section->noun, before, element) < 0)
			return -ENOMEM;
	}
	if (section->ordered && !same_order(old, new, old_names, new_names))
		(void)fprintf(f, "~ %s order of %s\n", section->noun, section->key);
	return 0;
}

/* Two sorted lists of texts. */
static void diff_direct(FILE *f, const json_t *old, const json_t *new)
{
	ps_auto(json_drop) json_t *old_set = json_object();
	ps_auto(json_drop) json_t *new_set = json_object();
	json_t *text;
	size_t i;

	json_array_foreach(old, i, text)(void)
		json_object_set_new(old_set, json_string_value(text), json_true());
	json_array_foreach(new, i, text)(void)
		json_object_set_new(new_set, json_string_value(text), json_true());
	json_array_foreach(old, i, text)
	{
		if (!json_object_get(new_set, json_string_value(text)))
			(void)fprintf(f, "- direct %s\n", json_string_value(text));
	}
	json_array_foreach(new, i, text)
	{
		if (!json_object_get(old_set, json_string_value(text)))
			(void)fprintf(f, "+ direct %s\n", json_string_value(text));
	}
}

static int diff_slices(FILE *f, const struct ps_plan *old, const struct ps_plan *new)
{
	ps_auto_mem struct ps_move *moves = NULL;
	size_t n;
	int r = ps_plan_moves(old, new, &moves, &n);

	for (size_t i = 0; r == 0 && i < n; i++) {
		const struct ps_move *move = &moves[i];
		char ip[PS_IP_HOST_MAX];
		char sign = move->from ? '~' : '+';

		(void)fprintf(f, "%c slice %s:%u-%u ", move->to ? sign : '-',
			      ps_ip_format_host(&move->address, ip), move->ports.first,
			      move->ports.first + move->ports.count - 1);
		if (move->from && move->to)
			(void)fprintf(f, "%s -> %s\n", move->from, move->to);
		else
			(void)fprintf(f, "%s\n", move->from ? move->from : move->to);
	}
	return r;
}

static int diff_all(FILE *f, const struct ps_plan *old, const struct ps_plan *new)
{
	static const struct section sections[] = {
		{"sites", "site", false},   {"hosts", "host", false},       {"pools", "pool", true},
		{"classes", "class", true}, {"services", "service", false},
	};
	ps_auto(json_drop) json_t *a = old ? ps_plan_frame_json(old) : json_object();
	ps_auto(json_drop) json_t *b = ps_plan_frame_json(new);
	int r = a && b ? 0 : -ENOMEM;

	for (size_t i = 0; r == 0 && i < PS_N_ELEMENTS(sections); i++)
		r = diff_section(f, &sections[i], json_object_get(a, sections[i].key),
				 json_object_get(b, sections[i].key));
	if (r < 0)
		return r;
	diff_direct(f, json_object_get(a, "direct"), json_object_get(b, "direct"));
	return diff_slices(f, old, new);
}

int ps_plan_diff(const struct ps_plan *old, const struct ps_plan *new, char **ret)
{
	ps_auto_mem char *text = NULL;
	size_t size;
	FILE *f = open_memstream(&text, &size);
	int r;

	if (!f)
		return -ENOMEM;
	r = diff_all(f, old, new);
	if (fclose(f) != 0 || r < 0)
		return -ENOMEM;
	*ret = ps_move(text);
	return 0;
}
