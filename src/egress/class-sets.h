/* SPDX-License-Identifier: MIT */
/* The sets that classes.h decides by, made of all classes' matches.  Pure: no kernel needed. */
#ifndef PS_EGRESS_CLASS_SETS_H
#define PS_EGRESS_CLASS_SETS_H

#include "egress/classes.h"
#include "egress/egress.h"

struct ps_class_mark {
	uint32_t mark, set;
};

struct ps_class_prefix {
	struct ps_prefix prefix; /* the longest around an address decides */
	uint32_t set;
};

/* Every `set` is an index into sets; the first PS_CLASS_KINDS of them are for calls that no entry of
 * their kind knows. */
struct ps_class_sets {
	struct ps_class_set *sets;
	size_t n_sets;
	struct ps_class_cgroup *cgroups; /* as config's */
	size_t n_cgroups;
	struct ps_class_mark *marks; /* differ */
	size_t n_marks;
	struct ps_uid_starts uids;
	size_t n_uid_starts;
	uint32_t first_uid_set;
	struct ps_class_prefix *prefixes[2]; /* from, to; differ */
	size_t n_prefixes[2];
};

/* Looks at matches, cgroups and n_choices of a config that was checked.  -ENOMEM.  Cost: classes
 * times entries, 20 ms at the most. */
int ps_class_sets_new(const struct ps_egress_config *config, struct ps_class_sets **ret);
void ps_class_sets_free(struct ps_class_sets **sets);

#endif
