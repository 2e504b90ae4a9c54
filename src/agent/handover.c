// SPDX-License-Identifier: MIT
/*
 * Ownership is static in the plan, but plans change, and agents take a change up one after another.
 * In between two hosts must never use one slice, and no packet of a living connection may reach
 * anybody but its holder.  Three rules give that, from what each host knows by itself:
 *
 *  - The holder lets go before it takes the plan up: hooks are attached that draw from the leaving
 *    slices no more; after an RCU grace period (membarrier) no connect() can be under way in the
 *    old ones; if the claims then show a port in use, the old hooks return and the plan is refused.
 *  - Everybody else treats a slice as its old holder's while that holder is heard running another
 *    plan.  So the new owner does not draw from it, and nobody sends the holder's packets elsewhere
 *    should it refuse.
 *  - A hello with the new digest ends that.  A holder that has been silent for PS_PEER_HEARD_MS
 *    counts as dead; its slices are taken.
 *
 * A host that stays cut off but alive can break the last rule; leases with deadlines in the kernel
 * (design.md §5) will close that.
 */
#include "agent/handover.h"

#include <errno.h>
#include <linux/membarrier.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "agent/log.h"
#include "base/own.h"

void ps_holds_free(struct ps_hold *holds, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(holds[i].holder);
	free(holds);
}

static int add_hold(struct ps_active *fresh, const struct ps_ip *address, struct ps_range ports,
		    const char *holder)
{
	struct ps_hold *holds =
		reallocarray(fresh->holds, fresh->n_holds + 1, sizeof(*fresh->holds));
	char *name = strdup(holder);

	if (holds)
		fresh->holds = holds;
	if (!holds || !name) {
		free(name);
		return -ENOMEM;
	}
	holds[fresh->n_holds++] = (struct ps_hold){*address, ports, name};
	return 0;
}

static bool still_held(const struct ps_agent *agent, const struct ps_active *fresh,
		       const char *holder)
{
	return strcmp(holder, agent->options.host) != 0 &&
	       ps_plan_find_host(fresh->plan, holder) != PS_PLAN_NONE &&
	       ps_peers_lags(agent->peers, holder, fresh->digest, ps_agent_now_ms());
}

static int hold_moves(struct ps_agent *agent, struct ps_active *fresh)
{
	ps_auto_mem struct ps_move *moves = NULL;
	size_t n = 0;
	int r = agent->active ? ps_plan_moves(agent->active->plan, fresh->plan, &moves, &n) : 0;

	for (size_t i = 0; i < n && r == 0; i++)
		if (moves[i].from && still_held(agent, fresh, moves[i].from))
			r = add_hold(fresh, &moves[i].address, moves[i].ports, moves[i].from);
	return r;
}

/* Slices of another size than before are not held: their ports have no single holder. */
static int regrant(struct ps_plan *plan, const struct ps_hold *hold)
{
	int host = ps_plan_find_host(plan, hold->holder);
	struct ps_place place;
	unsigned shift, slice;

	if (ps_plan_locate(plan, &hold->address, &place) < 0 || host == PS_PLAN_NONE)
		return 0;
	shift = plan->pools[place.pool].shift;
	slice = shift == PS_SHIFT_WHOLE ? 0 : hold->ports.first >> shift;
	if (ps_slice_range(slice, shift).count != hold->ports.count)
		return 0;
	return ps_plan_regrant(plan, &hold->address, slice, host);
}

int ps_handover_hold(struct ps_agent *agent, struct ps_active *fresh)
{
	int r = hold_moves(agent, fresh);

	for (size_t i = 0; i < fresh->n_holds && r == 0; i++)
		r = regrant(fresh->plan, &fresh->holds[i]);
	return r;
}

bool ps_handover_due(const struct ps_agent *agent)
{
	const struct ps_active *active = agent->active;

	for (size_t i = 0; i < active->n_holds; i++)
		if (!still_held(agent, active, active->holds[i].holder))
			return true;
	return false;
}

/* The slices that leave this host, and a copy of the plan in force in which nobody holds them. */
struct leaving {
	struct ps_plan *plan;
	struct ps_egress_slice *slices;
	size_t n;
};

static void clear_leaving(struct leaving *leaving)
{
	ps_plan_free(&leaving->plan);
	free(leaving->slices);
}

static int add_leaving(struct leaving *leaving, const struct ps_move *move)
{
	struct ps_place place;
	unsigned shift;

	leaving->slices[leaving->n++] =
		(struct ps_egress_slice){.address = move->address, .ports = move->ports};
	if (ps_plan_locate(leaving->plan, &move->address, &place) < 0)
		return 0;
	shift = leaving->plan->pools[place.pool].shift;
	return ps_plan_regrant(leaving->plan, &move->address,
			       shift == PS_SHIFT_WHOLE ? 0 : move->ports.first >> shift,
			       PS_PLAN_NONE);
}

static int find_leaving(const struct ps_agent *agent, const struct ps_active *fresh,
			struct leaving *ret)
{
	const struct ps_active *active = agent->active;
	ps_auto(ps_diags_clear) struct ps_diags diags = {0};
	ps_auto_mem struct ps_move *moves = NULL;
	size_t n;
	int r = ps_plan_moves(active->plan, fresh->plan, &moves, &n);

	if (r == 0)
		r = ps_plan_parse(active->text, strlen(active->text), "plan in force", &diags,
				  &ret->plan);
	for (size_t i = 0; i < active->n_holds && r == 0; i++)
		r = regrant(ret->plan, &active->holds[i]);
	if (r < 0)
		return r;
	ret->slices = calloc(n + 1, sizeof(*ret->slices));
	if (!ret->slices)
		return -ENOMEM;
	for (size_t i = 0; i < n && r == 0; i++)
		if (moves[i].from && strcmp(moves[i].from, agent->options.host) == 0)
			r = add_leaving(ret, &moves[i]);
	return r;
}

/* Hooks that give no port of the leaving slices any more; the guard stays as it is. */
static int attach_draining(struct ps_agent *agent, const struct ps_plan *plan,
			   struct ps_egress **ret, char **ret_why)
{
	const struct ps_active *active = agent->active;
	ps_auto(ps_compile_egress_free) struct ps_compile_egress *config = NULL;
	struct ps_egress_options options = {.pin_dir = agent->pin_dir,
					    .cgroup_path = agent->options.cgroup_root};
	int r = ps_compile_egress_new(plan, active->self, active->own, active->named, &config);

	ps_compile_memory(active->plan->hosts[active->self].ledger_mib, &options);
	if (r == 0)
		r = ps_egress_load(&config->config, &options, ret, ret_why);
	return r < 0 ? r : ps_egress_attach(*ret, ret_why);
}

static int check_idle(struct ps_agent *agent, const struct leaving *leaving, char **ret_why)
{
	ps_auto_mem uint64_t *used = calloc(leaving->n + 1, sizeof(*used));
	int r = used ? ps_egress_usage(agent->pin_dir, leaving->slices, leaving->n, used) : -ENOMEM;

	for (size_t i = 0; i < leaving->n && r == 0; i++)
		if (used[i])
			r = ps_say(
				ret_why, -EBUSY,
				"a program took a port of a slice that would leave %s: drain it first, or keep the slice where it is",
				agent->options.host);
	return r;
}

int ps_handover_let_go(struct ps_agent *agent, const struct ps_active *fresh, char **ret_why)
{
	ps_auto(ps_egress_free) struct ps_egress *draining = NULL;
	ps_auto(clear_leaving) struct leaving leaving = {0};
	int r;

	if (!agent->active || agent->options.observe || agent->options.without_hooks)
		return 0;
	r = find_leaving(agent, fresh, &leaving);
	if (r < 0 || !leaving.n)
		return r;
	r = attach_draining(agent, leaving.plan, &draining, ret_why);
	if (r == 0 && syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) < 0)
		r = -errno;
	return r < 0 ? r : check_idle(agent, &leaving, ret_why);
}
