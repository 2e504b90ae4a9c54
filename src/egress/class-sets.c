// SPDX-License-Identifier: MIT
/*
 * A firewall's rules are tried one after the other; with 1,024 classes that is too slow for
 * connect().  Here each kind of match is looked up once, and what the look-ups find are sets of
 * classes, which are put together bit by bit (Lakshman and Stiliadis, "High-speed policy-based
 * packet forwarding using efficient multi-dimensional range matching", SIGCOMM 1998).
 *
 * An entry is a value of one kind that some class names: a cgroup, a mark, an interval of uids
 * between two borders of ranges, a prefix.  Its set has the classes whose own match of that kind
 * covers the entry, and those that have no match of that kind.  Where entries lie within each other
 * (cgroups, prefixes) the innermost is looked up, so its set has what the outer ones have as well.
 *
 * A class without any match is in no set: nothing but `portslice run` leads to it.
 */
#include "egress/class-sets.h"

#include <errno.h>
#include <stdlib.h>

#include "base/own.h"

void ps_class_sets_free(struct ps_class_sets **sets)
{
	if (!*sets)
		return;
	free((*sets)->sets);
	free((*sets)->cgroups);
	free((*sets)->marks);
	free((*sets)->prefixes[0]);
	free((*sets)->prefixes[1]);
	free(*sets);
	*sets = NULL;
}

/* True when the class lets pass whatever the entry stands for; entry NULL: a call that none knows. */
typedef bool covers_fn(const struct ps_egress_config *config, const struct ps_egress_match *match,
		       const void *entry);

static bool covers_cgroup(const struct ps_egress_config *config,
			  const struct ps_egress_match *match, const void *entry)
{
	const struct ps_egress_cgroup *cgroup = entry;

	if (match->cgroup == PS_EGRESS_ANY)
		return true;
	for (int at = cgroup ? (int)(cgroup - config->cgroups) : PS_EGRESS_ANY; at >= 0;
	     at = config->cgroups[at].parent) {
		if (at == match->cgroup)
			return true;
	}
	return false;
}

static bool covers_mark(const struct ps_egress_config *config, const struct ps_egress_match *match,
			const void *entry)
{
	const struct ps_class_mark *mark = entry;

	(void)config;
	return !match->has_mark || (mark && mark->mark == match->mark);
}

static bool covers_uid(const struct ps_egress_config *config, const struct ps_egress_match *match,
		       const void *entry)
{
	const uint32_t *start = entry;

	(void)config;
	return !match->has_uid ||
	       (start && *start >= match->first_uid && *start <= match->last_uid);
}

/* ::/0 is no prefix of IPv4 addresses, although they are written within it. */
static bool is_v4(const struct ps_prefix *prefix)
{
	return prefix->bits >= 96 && ps_ip_is_v4(&prefix->ip);
}

static bool covers_prefix(const struct ps_prefix *outer, const struct ps_class_prefix *entry)
{
	return entry && outer->bits <= entry->prefix.bits &&
	       is_v4(outer) == is_v4(&entry->prefix) &&
	       ps_prefix_contains(outer, &entry->prefix.ip);
}

static bool covers_from(const struct ps_egress_config *config, const struct ps_egress_match *match,
			const void *entry)
{
	(void)config;
	return !match->has_from || covers_prefix(&match->from, entry);
}

static bool covers_to(const struct ps_egress_config *config, const struct ps_egress_match *match,
		      const void *entry)
{
	(void)config;
	return !match->has_to || covers_prefix(&match->to, entry);
}

static uint32_t add_set(struct ps_class_sets *sets, const struct ps_egress_config *config,
			covers_fn *covers, const void *entry)
{
	struct ps_class_set *set = &sets->sets[sets->n_sets];

	for (size_t i = 0; i < config->n_matches; i++) {
		const struct ps_egress_match *match = &config->matches[i];

		if (covers(config, match, entry))
			set->words[match->class / 64] |= UINT64_C(1) << match->class % 64;
	}
	return (uint32_t)sets->n_sets++;
}

static void add_others(struct ps_class_sets *sets, const struct ps_egress_config *config)
{
	static covers_fn *const kinds[PS_CLASS_KINDS] = {covers_cgroup, covers_mark, covers_uid,
							 covers_from, covers_to};

	for (size_t i = 0; i < PS_CLASS_KINDS; i++)
		add_set(sets, config, kinds[i], NULL);
}

/* What runs in a cgroup of `portslice run`, or below one, is of its class. */
static uint32_t run_of(const struct ps_egress_config *config, size_t cgroup)
{
	for (int at = (int)cgroup; at >= 0; at = config->cgroups[at].parent) {
		if (config->cgroups[at].run != PS_EGRESS_ANY)
			return (uint32_t)config->cgroups[at].run + 1;
	}
	return 0;
}

static void add_cgroups(struct ps_class_sets *sets, const struct ps_egress_config *config)
{
	for (size_t i = 0; i < config->n_cgroups; i++)
		sets->cgroups[i] = (struct ps_class_cgroup){
			add_set(sets, config, covers_cgroup, &config->cgroups[i]),
			run_of(config, i)};
	sets->n_cgroups = config->n_cgroups;
}

static int by_mark(const void *a, const void *b)
{
	const struct ps_class_mark *x = a, *y = b;

	return (x->mark > y->mark) - (x->mark < y->mark);
}

static void add_marks(struct ps_class_sets *sets, const struct ps_egress_config *config)
{
	size_t n = 0;

	for (size_t i = 0; i < config->n_matches; i++) {
		if (config->matches[i].has_mark)
			sets->marks[n++].mark = config->matches[i].mark;
	}
	qsort(sets->marks, n, sizeof(*sets->marks), by_mark);
	for (size_t i = 0; i < n; i++) {
		struct ps_class_mark *last = &sets->marks[sets->n_marks];

		if (i && sets->marks[i].mark == last[-1].mark)
			continue;
		last->mark = sets->marks[i].mark;
		last->set = add_set(sets, config, covers_mark, last);
		sets->n_marks++;
	}
}

static int by_number(const void *a, const void *b)
{
	const uint32_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

/* Between two borders all uids meet the same classes. */
static void add_uids(struct ps_class_sets *sets, const struct ps_egress_config *config)
{
	uint32_t *first = sets->uids.first;
	size_t n = 1;

	for (size_t i = 0; i < config->n_matches; i++) {
		if (!config->matches[i].has_uid)
			continue;
		first[n++] = config->matches[i].first_uid;
		first[n++] =
			config->matches[i].last_uid + 1; /* 4294967295 is nobody's (chown(2)) */
	}
	qsort(first, n, sizeof(*first), by_number);
	sets->first_uid_set = (uint32_t)sets->n_sets;
	for (size_t i = 0; i < n; i++) {
		if (i && first[i] == first[sets->n_uid_starts - 1])
			continue;
		first[sets->n_uid_starts] = first[i];
		add_set(sets, config, covers_uid, &first[sets->n_uid_starts++]);
	}
}

static int by_prefix(const void *a, const void *b)
{
	const struct ps_class_prefix *x = a, *y = b;
	int r = ps_ip_cmp(&x->prefix.ip, &y->prefix.ip);

	return r ? r : x->prefix.bits - y->prefix.bits;
}

/* way 0: from, 1: to.  The prefix of all IPv4 addresses keeps them out of ::/0. */
static void add_prefixes(struct ps_class_sets *sets, const struct ps_egress_config *config,
			 unsigned way)
{
	struct ps_class_prefix *prefixes = sets->prefixes[way];
	size_t n = 0, *n_kept = &sets->n_prefixes[way];

	for (size_t i = 0; i < config->n_matches; i++) {
		const struct ps_egress_match *match = &config->matches[i];

		if (way ? match->has_to : match->has_from)
			prefixes[n++].prefix = way ? match->to : match->from;
	}
	if (n)
		prefixes[n++].prefix = (struct ps_prefix){ps_ip_from_v4(0), 96};
	qsort(prefixes, n, sizeof(*prefixes), by_prefix);
	for (size_t i = 0; i < n; i++) {
		struct ps_class_prefix *last = &prefixes[*n_kept];

		if (i && by_prefix(&prefixes[i], last - 1) == 0)
			continue;
		last->prefix = prefixes[i].prefix;
		last->set = add_set(sets, config, way ? covers_to : covers_from, last);
		++*n_kept;
	}
}

/* Room for entries that all differ. */
static int make_room(struct ps_class_sets *sets, const struct ps_egress_config *config)
{
	size_t n = config->n_matches;

	sets->sets = calloc(PS_CLASS_KINDS + config->n_cgroups + 5 * n + 3, sizeof(*sets->sets));
	sets->cgroups = calloc(config->n_cgroups + 1, sizeof(*sets->cgroups));
	sets->marks = calloc(n + 1, sizeof(*sets->marks));
	sets->prefixes[0] = calloc(n + 1, sizeof(*sets->prefixes[0]));
	sets->prefixes[1] = calloc(n + 1, sizeof(*sets->prefixes[1]));
	return sets->sets && sets->cgroups && sets->marks && sets->prefixes[0] && sets->prefixes[1]
		       ? 0
		       : -ENOMEM;
}

int ps_class_sets_new(const struct ps_egress_config *config, struct ps_class_sets **ret)
{
	ps_auto(ps_class_sets_free) struct ps_class_sets *sets = calloc(1, sizeof(*sets));
	int r = sets ? make_room(sets, config) : -ENOMEM;

	if (r < 0)
		return r;
	add_others(sets, config);
	add_cgroups(sets, config);
	add_marks(sets, config);
	add_uids(sets, config);
	add_prefixes(sets, config, 0);
	add_prefixes(sets, config, 1);
	*ret = ps_move(sets);
	return 0;
}
