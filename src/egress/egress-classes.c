// SPDX-License-Identifier: MIT
/* The maps by which the hooks find the class of a call. */
#include <bpf/bpf.h>
#include <errno.h>

#include "base/own.h"
#include "base/say.h"
#include "egress/inside.h"

static uint32_t level_mask(const struct ps_egress_config *config)
{
	uint32_t mask = 0;

	for (size_t i = 0; i < config->n_cgroups; i++)
		mask |= config->cgroups[i].id ? 1u << config->cgroups[i].level : 0;
	return mask & ~1u;
}

void ps_egress_set_classes(struct ps_egress *egress, const struct ps_egress_config *config)
{
	struct ps_egress_hooks__rodata *hooks = egress->hooks->rodata;
	const struct ps_class_sets *sets = egress->sets;

	hooks->cgroup_levels = level_mask(config);
	hooks->class_words = (uint32_t)(config->n_choices + 63) / 64;
	hooks->have_marks = sets->n_marks != 0;
	hooks->n_uid_starts = (uint32_t)sets->n_uid_starts;
	hooks->first_uid_set = sets->first_uid_set;
	hooks->have_from = sets->n_prefixes[0] != 0;
	hooks->have_to = sets->n_prefixes[1] != 0;
}

static int check_cgroups(const struct ps_egress_config *config, char **ret_message)
{
	for (size_t i = 0; i < config->n_cgroups; i++) {
		const struct ps_egress_cgroup *cgroup = &config->cgroups[i];

		if (cgroup->level > 31 || cgroup->run >= (int)config->n_choices ||
		    cgroup->parent >= (int)config->n_cgroups || cgroup->parent == (int)i)
			return ps_say(ret_message, -EINVAL,
				      "cgroup %zu: class %d of %zu, parent %d, level %u of 31", i,
				      cgroup->run, config->n_choices, cgroup->parent,
				      cgroup->level);
	}
	return 0;
}

int ps_egress_check_classes(const struct ps_egress_config *config, char **ret_message)
{
	for (size_t i = 0; i < config->n_matches; i++) {
		const struct ps_egress_match *match = &config->matches[i];

		if (match->class >= config->n_choices || match->cgroup >= (int)config->n_cgroups ||
		    match->last_uid < match->first_uid)
			return ps_say(ret_message, -EINVAL,
				      "match %zu: class %u of %zu, cgroup %d of %zu, uids %u to %u",
				      i, match->class, config->n_choices, match->cgroup,
				      config->n_cgroups, match->first_uid, match->last_uid);
	}
	if (config->n_matches > config->n_choices)
		return ps_say(ret_message, -EINVAL, "%zu matches of %zu classes", config->n_matches,
			      config->n_choices);
	for (size_t i = 0; i < config->n_choices; i++) {
		if (config->choices[i].v4.homes > config->n_homes ||
		    config->choices[i].v6.homes > config->n_homes)
			return ps_say(ret_message, -EINVAL,
				      "class %zu names homes that are not there", i);
	}
	return check_cgroups(config, ret_message);
}

static int put(struct bpf_map *map, const void *key, const void *value)
{
	return bpf_map__update_elem(map, key, bpf_map__key_size(map), value,
				    bpf_map__value_size(map), BPF_ANY);
}

static int fill_sets(struct ps_egress *egress)
{
	const struct ps_class_sets *sets = egress->sets;
	int r = 0;

	for (uint32_t i = 0; r == 0 && i < sets->n_sets; i++)
		r = put(egress->hooks->maps.class_sets, &i, &sets->sets[i]);
	return r;
}

static int fill_entries(struct ps_egress *egress, const struct ps_egress_config *config)
{
	const struct ps_class_sets *sets = egress->sets;
	const uint32_t zero = 0;
	int r = put(egress->hooks->maps.uids, &zero, &sets->uids);

	for (size_t i = 0; r == 0 && i < sets->n_cgroups; i++) {
		/* 0: it is not there, and no program is in it. */
		if (config->cgroups[i].id)
			r = put(egress->hooks->maps.cgroups, &config->cgroups[i].id,
				&sets->cgroups[i]);
	}
	for (size_t i = 0; r == 0 && i < sets->n_marks; i++)
		r = put(egress->hooks->maps.marks, &sets->marks[i].mark, &sets->marks[i].set);
	return r;
}

static int fill_prefixes(struct bpf_map *map, const struct ps_class_prefix *prefixes, size_t n)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < n; i++) {
		struct ps_place6_key key = {prefixes[i].prefix.bits,
					    ps_ip16(&prefixes[i].prefix.ip)};

		r = put(map, &key, &prefixes[i].set);
	}
	return r;
}

int ps_egress_fill_classes(struct ps_egress *egress, const struct ps_egress_config *config)
{
	const struct ps_class_sets *sets = egress->sets;
	int r = fill_sets(egress);

	if (!r)
		r = fill_entries(egress, config);
	if (!r)
		r = fill_prefixes(egress->hooks->maps.class_from, sets->prefixes[0],
				  sets->n_prefixes[0]);
	if (!r)
		r = fill_prefixes(egress->hooks->maps.class_to, sets->prefixes[1],
				  sets->n_prefixes[1]);
	for (uint32_t i = 0; r == 0 && i < config->n_homes; i++)
		r = put(egress->hooks->maps.homes, &i, &config->homes[i]);
	return r;
}
