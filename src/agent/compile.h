/* SPDX-License-Identifier: MIT */
/*
 * From the plan to what one host's kernel must know: the only place that sees both the parsed plan
 * and the tables of dispatch and egress.  Pure; also used by `portslice trace`.
 */
#ifndef PS_AGENT_COMPILE_H
#define PS_AGENT_COMPILE_H

#include "dispatch/table.h"
#include "egress/egress.h"
#include "plan/plan.h"

/* The dispatcher's tables as host `self` (index into hosts) needs them; next hops unresolved. */
int ps_compile_table(const struct ps_plan *plan, unsigned self, struct ps_table **ret);

/* Below the agent's cgroup root, one folder a class, for `portslice run`. */
#define PS_COMPILE_CGROUPS "portslice"

/* A class's cgroup as found on the host. */
struct ps_compile_cgroup {
	uint64_t id;
	unsigned level;
};

/* The hooks' configuration with everything it points to. */
struct ps_compile_egress {
	struct ps_egress_config config;
	struct ps_egress_slice *slices;
	struct ps_choices *choices;
	struct ps_egress_cgroup *cgroups;
	struct ps_egress_match *matches;
	struct ps_homes *homes;
	struct ps_prefix *direct, *shared;
	unsigned *shared_shift;
	struct ps_claim_key *services;
};

/* compile-class.c: fills cgroups and matches.  -ENOMEM. */
int ps_compile_matches(struct ps_compile_egress *egress, const struct ps_plan *plan,
		       const struct ps_compile_cgroup *own, const struct ps_compile_cgroup *named);
/* The innermost class of `portslice run` around a cgroup path (as ps_match.cgroup), or PS_PLAN_NONE. */
int ps_compile_run_class(const struct ps_plan *plan, const char *cgroup);

/* own[i] is the cgroup that the agent made for class i, named[i] the one its `match` names (id 0
 * where it names none). */
int ps_compile_egress_new(const struct ps_plan *plan, unsigned self,
			  const struct ps_compile_cgroup *own,
			  const struct ps_compile_cgroup *named, struct ps_compile_egress **ret);
void ps_compile_egress_free(struct ps_compile_egress **egress);

/* Sets n_pages and n_wide_pages to what so much kernel memory holds: eight narrow pages to a wide one. */
void ps_compile_memory(unsigned mib, struct ps_egress_options *options);

/* The pool that serves `class` on host `self` towards destinations of a family: the first, in the
 * order of the file, whose tags cover the class's and of which the host holds a slice of that
 * family, of an address that the class asks for; PS_PLAN_NONE if there is none. */
int ps_compile_class_pool(const struct ps_plan *plan, unsigned class, unsigned self, bool is_v4);

/* The shared addresses of which the host holds a slice, in rising order; caller frees *ret. */
int ps_compile_addresses(const struct ps_plan *plan, unsigned self, struct ps_ip **ret,
			 size_t *ret_n);
/* The host's slices, in the order of the grants; caller frees *ret. */
int ps_compile_slices(const struct ps_plan *plan, unsigned self, struct ps_egress_slice **ret,
		      size_t *ret_n);

#endif
