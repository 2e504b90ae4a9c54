// SPDX-License-Identifier: MIT
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <errno.h>
#include <string.h>

#include "base/own.h"
#include "base/say.h"
#include "egress/inside.h"
#include "egress/page.h"

/* Names slices that are there, all of the family. */
static bool choice_is_sound(const struct ps_egress_config *config, const struct ps_choice *choice,
			    bool is_v4)
{
	if (choice->first + (size_t)choice->n > config->n_slices)
		return false;
	for (size_t i = choice->first; i < choice->first + (size_t)choice->n; i++) {
		if (ps_ip_is_v4(&config->slices[i].address) != is_v4)
			return false;
	}
	return true;
}

static int check_choices(const struct ps_egress_config *config, char **ret_message)
{
	for (size_t i = 0; i < config->n_choices; i++) {
		const struct ps_choices *choice = &config->choices[i];

		if (!choice_is_sound(config, &choice->v4, true) ||
		    !choice_is_sound(config, &choice->v6, false))
			return ps_say(ret_message, -EINVAL,
				      "class %zu names slices that are not there or of the "
				      "other family",
				      i);
	}
	return 0;
}

/* A longer direct prefix would hide the shared address from the guard. */
static int check_direct(const struct ps_egress_config *config, char **ret_message)
{
	char direct[PS_PREFIX_TEXT_MAX], shared[PS_PREFIX_TEXT_MAX];

	for (size_t i = 0; i < config->n_direct; i++) {
		for (size_t j = 0; j < config->n_shared; j++) {
			if (config->direct[i].bits < config->shared[j].bits ||
			    !ps_prefix_overlaps(&config->direct[i], &config->shared[j]))
				continue;
			return ps_say(ret_message, -EINVAL,
				      "direct prefix %s lies within the shared addresses %s",
				      ps_prefix_format(&config->direct[i], direct),
				      ps_prefix_format(&config->shared[j], shared));
		}
	}
	return 0;
}

int ps_egress_check(const struct ps_egress_config *config, char **ret_message)
{
	int r;

	if (config->n_choices > PS_CLASSES_MAX || config->n_slices > PS_CHOICE_SLICES_MAX)
		return ps_say(
			ret_message, -EINVAL, "%zu classes and %zu slices are more than %d and %d",
			config->n_choices, config->n_slices, PS_CLASSES_MAX, PS_CHOICE_SLICES_MAX);
	for (size_t i = 0; i < config->n_slices; i++) {
		const struct ps_egress_slice *slice = &config->slices[i];

		if (slice->shift < PS_SHIFT_MIN ||
		    (slice->shift > PS_SHIFT_MAX && slice->shift != PS_SHIFT_WHOLE) ||
		    slice->shift > PS_SHIFT_WHOLE ||
		    slice->ports.first + slice->ports.count > PS_PORT_COUNT)
			return ps_say(ret_message, -EINVAL, "slice %zu has ports %u+%u of shift %u",
				      i, slice->ports.first, slice->ports.count, slice->shift);
	}
	r = check_choices(config, ret_message);
	if (!r)
		r = ps_egress_check_classes(config, ret_message);
	return r < 0 ? r : check_direct(config, ret_message);
}

static int size_map(struct bpf_map *map, size_t n)
{
	return bpf_map__set_max_entries(map, n ? (uint32_t)n : 1);
}

int ps_egress_size_maps(struct ps_egress *egress, const struct ps_egress_config *config)
{
	size_t n_places = config->n_direct + config->n_shared + PS_ALWAYS_DIRECT;
	const struct {
		struct bpf_map *map;
		size_t n;
	} rows[] = {
		{egress->hooks->maps.class_sets, egress->sets->n_sets},
		{egress->hooks->maps.cgroups, config->n_cgroups},
		{egress->hooks->maps.marks, egress->sets->n_marks},
		{egress->hooks->maps.class_from, egress->sets->n_prefixes[0]},
		{egress->hooks->maps.class_to, egress->sets->n_prefixes[1]},
		{egress->hooks->maps.homes, config->n_homes},
		{egress->hooks->maps.choices, config->n_choices},
		{egress->hooks->maps.slices, config->n_slices},
		{egress->hooks->maps.leases, config->n_slices},
		{egress->hooks->maps.owned, config->n_slices},
		{egress->hooks->maps.places, n_places},
		{egress->hooks->maps.places6, n_places},
		{egress->hooks->maps.services, 2 * config->n_services},
		{egress->hooks->maps.limits, PS_EGRESS_MAX * (config->n_choices + 1)},
	};

	for (size_t i = 0; i < PS_N_ELEMENTS(rows); i++) {
		int r = size_map(rows[i].map, rows[i].n);

		if (r < 0)
			return r;
	}
	return 0;
}

/* Slices of one address side by side, the lowest that serves first. */
static int compare_slices(const void *a, const void *b)
{
	const struct ps_choice_slice *x = *(struct ps_choice_slice *const *)a;
	const struct ps_choice_slice *y = *(struct ps_choice_slice *const *)b;
	int r = memcmp(&x->address, &y->address, sizeof(x->address));

	return r ? r : (x->first_port > y->first_port) - (x->first_port < y->first_port);
}

/* The first slice of an address has its exclusive block. */
static void set_exclusive(struct ps_choice_slice **sorted, size_t n)
{
	qsort(sorted, n, sizeof(*sorted), compare_slices);
	for (size_t i = 0; i < n; i++) {
		uint32_t part = sorted[i]->n_ports / PS_EXCLUSIVE_PART;

		if (i && ps_ip16_is_same(&sorted[i]->address, &sorted[i - 1]->address))
			continue;
		sorted[i]->n_exclusive = part < PS_EXCLUSIVE_MAX ? part : PS_EXCLUSIVE_MAX;
	}
}

/* As map `slices` has them; those that stand in no choice have no exclusive block. */
static int make_slices(const struct ps_egress_config *config, struct ps_choice_slice **ret)
{
	ps_auto_mem struct ps_choice_slice *slices = calloc(config->n_slices + 1, sizeof(*slices));
	ps_auto_mem struct ps_choice_slice **sorted =
		calloc(config->n_slices + 1, sizeof(struct ps_choice_slice *));
	ps_auto_mem bool *serves = calloc(config->n_slices + 1, sizeof(*serves));
	size_t n = 0;

	if (!slices || !sorted || !serves)
		return -ENOMEM;
	for (size_t i = 0; i < config->n_choices; i++) {
		const struct ps_choices *choice = &config->choices[i];

		memset(serves + choice->v4.first, 1, choice->v4.n);
		memset(serves + choice->v6.first, 1, choice->v6.n);
	}
	for (size_t i = 0; i < config->n_slices; i++) {
		const struct ps_egress_slice *slice = &config->slices[i];

		slices[i] = (struct ps_choice_slice){.address = ps_ip16(&slice->address),
						     .first_port = slice->ports.first,
						     .shift = (uint8_t)slice->shift,
						     .n_ports = slice->ports.count};
		if (serves[i])
			sorted[n++] = &slices[i];
	}
	set_exclusive(sorted, n);
	*ret = ps_move(slices);
	return 0;
}

static int fill_slice(struct ps_egress *egress, const struct ps_choice_slice *slice, uint32_t i)
{
	const struct ps_lease lease = {.state = PS_LEASE_ACTIVE};
	struct ps_owned_key key = {.address = slice->address,
				   .block = (uint16_t)(slice->first_port >> slice->shift)};
	int r = bpf_map__update_elem(egress->hooks->maps.slices, &i, sizeof(i), slice,
				     sizeof(*slice), BPF_ANY);

	if (!r)
		r = bpf_map__update_elem(egress->hooks->maps.leases, &i, sizeof(i), &lease,
					 sizeof(lease), BPF_ANY);
	if (!r)
		r = bpf_map__update_elem(egress->hooks->maps.owned, &key, sizeof(key), &i,
					 sizeof(i), BPF_ANY);
	return r;
}

static struct ps_choice count_shared(const struct ps_choice_slice *slices, struct ps_choice choice)
{
	choice.n_shared = 0;
	for (uint32_t i = 0; i < choice.n; i++)
		choice.n_shared += ps_slice_draws(&slices[choice.first + i], 0);
	return choice;
}

static int fill_choice(struct ps_egress *egress, const struct ps_choice_slice *slices,
		       const struct ps_choices *choice, uint32_t i)
{
	const struct ps_choices value = {count_shared(slices, choice->v4),
					 count_shared(slices, choice->v6)};

	return bpf_map__update_elem(egress->hooks->maps.choices, &i, sizeof(i), &value,
				    sizeof(value), BPF_ANY);
}

static int fill_slices(struct ps_egress *egress, const struct ps_egress_config *config)
{
	ps_auto_mem struct ps_choice_slice *slices = NULL;
	int r = make_slices(config, &slices);

	for (uint32_t i = 0; !r && i < config->n_slices; i++)
		r = fill_slice(egress, &slices[i], i);
	for (uint32_t i = 0; !r && i < config->n_choices; i++)
		r = fill_choice(egress, slices, &config->choices[i], i);
	return r;
}

static int add_place(struct ps_egress *egress, const struct ps_prefix *prefix, uint8_t kind,
		     unsigned shift)
{
	struct ps_place_value value = {.kind = kind, .shift = (uint8_t)shift};
	struct ps_place6_key key6 = {prefix->bits, ps_ip16(&prefix->ip)};
	struct ps_place_key key = {prefix->bits - 96u, ps_ip_v4_be(&prefix->ip)};

	if (ps_ip_is_v4(&prefix->ip))
		return bpf_map__update_elem(egress->hooks->maps.places, &key, sizeof(key), &value,
					    sizeof(value), BPF_ANY);
	return bpf_map__update_elem(egress->hooks->maps.places6, &key6, sizeof(key6), &value,
				    sizeof(value), BPF_ANY);
}

static int fill_places(struct ps_egress *egress, const struct ps_egress_config *config)
{
	struct ps_prefix prefix;
	int r = 0;

	for (size_t i = 0; !r && i < PS_ALWAYS_DIRECT; i++) {
		r = ps_prefix_parse(ps_always_direct[i], &prefix);
		if (!r)
			r = add_place(egress, &prefix, PS_PLACE_DIRECT, 0);
	}
	for (size_t i = 0; !r && i < config->n_direct; i++)
		r = add_place(egress, &config->direct[i], PS_PLACE_DIRECT, 0);
	for (size_t i = 0; !r && i < config->n_shared; i++)
		r = add_place(egress, &config->shared[i], PS_PLACE_SHARED, config->shared_shift[i]);
	return r;
}

static int add_service(struct bpf_map *map, struct ps_claim_key key, union ps_ip16 address)
{
	const struct ps_service_value value = {address};

	return bpf_map__update_elem(map, &key, sizeof(key), &value, sizeof(value), BPF_ANY);
}

/* Each by its address, and by 0.0.0.0 or `::` for sockets on the wildcard. */
static int fill_services(struct ps_egress *egress, const struct ps_egress_config *config)
{
	struct bpf_map *map = egress->hooks->maps.services;
	const union ps_ip16 none = {0};

	for (size_t i = 0; i < config->n_services; i++) {
		const struct ps_claim_key *service = &config->services[i];
		struct ps_claim_key key = {.src = ps_ip16_is_v4(&service->src) ? ps_ip16_v4(0)
									       : none,
					   .sport = service->sport,
					   .protocol = service->protocol};
		struct ps_service_value other;
		bool alone = bpf_map__lookup_elem(map, &key, sizeof(key), &other, sizeof(other),
						  0) == -ENOENT;
		int r = add_service(map, key, alone ? service->src : none);

		key.src = service->src;
		if (!r)
			r = add_service(map, key, service->src);
		if (r < 0)
			return r;
	}
	return 0;
}

int ps_egress_fill_maps(struct ps_egress *egress, const struct ps_egress_config *config)
{
	int r = fill_slices(egress, config);

	if (!r)
		r = ps_egress_fill_classes(egress, config);
	if (!r)
		r = fill_places(egress, config);
	return r ? r : fill_services(egress, config);
}
