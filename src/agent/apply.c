// SPDX-License-Identifier: MIT
/*
 * From a plan's text to the plan in force, whole or not at all.
 *
 * Judging comes first and touches nothing: the text must parse and check, name this host, and take
 * no slice from a host that uses it.  Our own use is read from the claims in the kernel; that of
 * others from their last hello.  The plan last in force is kept in the run directory, so that an
 * agent started anew judges against what the pinned programs still do.
 *
 * Then a new generation of programs and tables is loaded beside the running one, and stands.c puts
 * it in place step by step.  If a step fails, the old generation is put back the same way.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "agent/agent.h"
#include "agent/handover.h"
#include "agent/log.h"
#include "agent/sysctl.h"
#include "base/own.h"

uint64_t ps_agent_now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000 + 1;
}

static void clear_uplinks(struct ps_active *active)
{
	for (size_t i = 0; i < active->n_uplinks; i++)
		free(active->uplinks[i].name);
	free(active->uplinks);
}

void ps_active_free(struct ps_active **active)
{
	if (!*active)
		return;
	ps_dispatch_free(&(*active)->dispatch);
	ps_egress_free(&(*active)->egress);
	clear_uplinks(*active);
	ps_holds_free((*active)->holds, (*active)->n_holds);
	free((*active)->addresses);
	free((*active)->slices);
	free((*active)->in_use);
	free((*active)->own);
	free((*active)->named);
	ps_plan_free(&(*active)->plan);
	free((*active)->text);
	free(*active);
	*active = NULL;
}

static int explain(const struct ps_diags *diags, int error, char **ret_why)
{
	ps_auto_mem char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	if (!out)
		return -ENOMEM;
	for (size_t i = 0; i < diags->n; i++)
		fprintf(out, "%s%s:%u:%u: %s", i ? "\n" : "", diags->items[i].file,
			diags->items[i].line, diags->items[i].column, diags->items[i].text);
	fclose(out);
	return ps_say(ret_why, error, "%s", text);
}

static int parse(const char *text, size_t len, struct ps_plan **ret, char **ret_why)
{
	ps_auto(ps_diags_clear) struct ps_diags diags = {0};
	int r = ps_plan_parse(text, len, "plan", &diags, ret);

	return r < 0 ? explain(&diags, r, ret_why) : 0;
}

static struct ps_egress_slice slice_of_move(const struct ps_move *move)
{
	return (struct ps_egress_slice){.address = move->address, .ports = move->ports};
}

static int refuse(const struct ps_move *move, const char *user, uint64_t ports, char **ret_why)
{
	char address[PS_IP_HOST_MAX];
	char count[64] = "";

	if (ports)
		snprintf(count, sizeof(count), " (%llu ports)", (unsigned long long)ports);
	return ps_say(
		ret_why, -EBUSY,
		"slice %s:%u-%u is in use by %s%s and would go to %s: drain %s first, or keep the slice where it is",
		ps_ip_format_host(&move->address, address), move->ports.first,
		move->ports.first + move->ports.count - 1, user, count,
		move->to ? move->to : "nobody", user);
}

/* Slices of this host that would go elsewhere, against the claims in the kernel. */
static int judge_own(struct ps_agent *agent, const struct ps_move *moves, size_t n, char **ret_why)
{
	ps_auto_mem struct ps_egress_slice *slices = calloc(n + 1, sizeof(*slices));
	ps_auto_mem uint64_t *used = calloc(n + 1, sizeof(*used));
	int r;

	if (!slices || !used)
		return -ENOMEM;
	if (!n)
		return 0;
	for (size_t i = 0; i < n; i++)
		slices[i] = slice_of_move(&moves[i]);
	r = ps_egress_usage(agent->pin_dir, slices, n, used);
	if (r == -ESTALE)
		return ps_say(
			ret_why, r,
			"slices would move while another version's hooks still hand out their ports: apply the plan before once more, then this one");
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	for (size_t i = 0; i < n; i++)
		if (moves[i].from && strcmp(moves[i].from, agent->options.host) == 0 && used[i])
			return refuse(&moves[i], moves[i].from, used[i], ret_why);
	return 0;
}

static int judge_others(struct ps_agent *agent, const struct ps_plan *old,
			const struct ps_move *moves, size_t n, char **ret_why)
{
	for (size_t i = 0; i < n; i++) {
		struct ps_place place;
		unsigned shift;
		const char *user;

		if (!moves[i].from || ps_plan_locate(old, &moves[i].address, &place) < 0)
			continue;
		shift = old->pools[place.pool].shift;
		user = ps_peers_user(
			agent->peers, &moves[i].address,
			(uint16_t)(shift == PS_SHIFT_WHOLE ? 0 : moves[i].ports.first >> shift),
			ps_agent_now_ms());
		if (user && (!moves[i].to || strcmp(user, moves[i].to) != 0))
			return refuse(&moves[i], user, 0, ret_why);
	}
	return 0;
}

/* The text that an agent before us, or we, had in force; caller frees. */
static int kept_text(const struct ps_agent *agent, char **ret, size_t *ret_len)
{
	ps_auto_mem char *path = NULL;
	ps_auto_mem char *text = NULL;
	size_t size = 0;
	FILE *file;
	ssize_t n;

	if (asprintf(&path, "%s/plan.yaml", agent->run_dir) < 0)
		return -ENOMEM;
	file = fopen(path, "re");
	if (!file)
		return -errno;
	n = getdelim(&text, &size, '\0', file);
	fclose(file);
	if (n <= 0)
		return -ENOENT;
	*ret = ps_move(text);
	*ret_len = (size_t)n;
	return 0;
}

/* The plan that the kernel objects follow: in force now, or left by an agent before us. */
static const struct ps_plan *old_plan(struct ps_agent *agent, struct ps_plan **ret_loaded)
{
	ps_auto_mem char *text = NULL;
	ps_auto_mem char *why = NULL;
	size_t len;

	if (agent->active)
		return agent->active->plan;
	if (kept_text(agent, &text, &len) < 0 || parse(text, len, ret_loaded, &why) < 0)
		return NULL;
	return *ret_loaded;
}

/* What must be so on this host before anything of a plan is put into the kernel. */
static int judge_uplinks(struct ps_agent *agent, const struct ps_host *host, char **ret_why)
{
	for (size_t i = 0; i < host->n_uplinks; i++) {
		const char *name = host->uplinks[i];
		int r = 0;

		if (!if_nametoindex(name))
			return ps_say(
				ret_why, -ENODEV,
				"uplink `%s` of host `%s` does not exist here: name an interface that `ip link` shows",
				name, host->name);
		if (!agent->options.without_dispatch)
			r = ps_dispatch_may_attach(agent->pin_dir, name, ret_why);
		if (r < 0)
			return r;
	}
	return 0;
}

static bool has_v6(const struct ps_plan *plan, unsigned self)
{
	for (size_t i = 0; i < plan->n_grants; i++)
		if (plan->grants[i].host == self && !ps_ip_is_v4(&plan->grants[i].address))
			return true;
	return false;
}

/* Packets for shared IPv6 addresses would pass the dispatcher and then be dropped without a word. */
static int judge_v6(const struct ps_plan *plan, unsigned self, char **ret_why)
{
	const struct ps_host *host = &plan->hosts[self];

	for (size_t i = 0; i <= host->n_uplinks && has_v6(plan, self); i++) {
		const char *name = i < host->n_uplinks ? host->uplinks[i] : "lo";
		char setting[64], value[8] = "";

		snprintf(setting, sizeof(setting), "net/ipv6/conf/%s/disable_ipv6", name);
		if (ps_sysctl_read(setting, value, sizeof(value)) < 0 || strcmp(value, "0") != 0)
			return ps_say(
				ret_why, -EAFNOSUPPORT,
				"host `%s` has shared IPv6 addresses, but IPv6 is disabled on `%s`: sysctl net.ipv6.conf.%s.disable_ipv6=0",
				host->name, name, name);
	}
	return 0;
}

static int judge(struct ps_agent *agent, const struct ps_plan *plan, char **ret_why)
{
	ps_auto(ps_plan_free) struct ps_plan *loaded = NULL;
	ps_auto_mem struct ps_move *moves = NULL;
	const struct ps_plan *old = old_plan(agent, &loaded);
	int self = ps_plan_find_host(plan, agent->options.host), r;
	size_t n;

	if (self == PS_PLAN_NONE)
		return ps_say(
			ret_why, -ENOENT,
			"the plan has no host `%s`: add it under `hosts`, or start portsliced with --host NAME",
			agent->options.host);
	r = judge_uplinks(agent, &plan->hosts[self], ret_why);
	if (r == 0)
		r = judge_v6(plan, (unsigned)self, ret_why);
	if (r < 0 || !old || agent->options.observe)
		return r;
	r = ps_plan_moves(old, plan, &moves, &n);
	if (r == 0)
		r = judge_own(agent, moves, n, ret_why);
	if (r == 0)
		r = judge_others(agent, old, moves, n, ret_why);
	return r;
}

int ps_agent_judge(struct ps_agent *agent, const char *text, size_t len, char **ret_why)
{
	ps_auto(ps_plan_free) struct ps_plan *plan = NULL;
	int r = parse(text, len, &plan, ret_why);

	return r < 0 ? r : judge(agent, plan, ret_why);
}

static int note_uplinks(struct ps_active *active, const struct ps_host *host)
{
	active->uplinks = calloc(host->n_uplinks + 1, sizeof(*active->uplinks));
	if (!active->uplinks)
		return -ENOMEM;
	for (size_t i = 0; i < host->n_uplinks; i++) {
		struct ps_uplink *uplink = &active->uplinks[active->n_uplinks++];

		uplink->name = strdup(host->uplinks[i]);
		if (!uplink->name)
			return -ENOMEM;
		uplink->ifindex = if_nametoindex(uplink->name);
	}
	return 0;
}

static int load_egress(struct ps_agent *agent, struct ps_active *active, char **ret_why)
{
	ps_auto(ps_compile_egress_free) struct ps_compile_egress *config = NULL;
	struct ps_egress_options options = {
		.pin_dir = agent->pin_dir,
		.cgroup_path = agent->options.cgroup_root,
		.observe = agent->options.observe,
	};
	int r = ps_compile_egress_new(active->plan, active->self, active->own, active->named,
				      &config);

	if (r < 0)
		return r;
	ps_compile_memory(active->plan->hosts[active->self].ledger_mib, &options);
	return ps_egress_load(&config->config, &options, &active->egress, ret_why);
}

static int load_dispatch(struct ps_agent *agent, struct ps_active *active, char **ret_why)
{
	ps_auto(ps_table_free) struct ps_table *table = NULL;
	struct ps_dispatch_options options = {
		.pin_dir = agent->pin_dir,
		.pages_fd = ps_egress_pages_fd(active->egress),
		.wide_pages_fd = ps_egress_wide_pages_fd(active->egress),
		.observe = agent->options.observe,
	};
	int r = ps_compile_table(active->plan, active->self, &table);

	if (r < 0)
		return r;
	return ps_dispatch_load(table, &options, &active->dispatch, ret_why);
}

/* Everything that can be made without changing what packets meet. */
static int prepare(struct ps_agent *agent, struct ps_active *active, char **ret_why)
{
	int r = ps_plan_digest(active->plan, active->digest);

	if (r == 0)
		r = ps_handover_hold(agent, active);
	if (r == 0)
		r = ps_compile_addresses(active->plan, active->self, &active->addresses,
					 &active->n_addresses);
	if (r == 0)
		r = ps_compile_slices(active->plan, active->self, &active->slices,
				      &active->n_slices);
	if (r == 0)
		r = note_uplinks(active, &active->plan->hosts[active->self]);
	if (r == 0)
		r = ps_agent_make_pin_dir(agent, ret_why);
	if (r == 0)
		r = ps_agent_find_cgroups(agent, active, ret_why);
	if (r == 0)
		r = load_egress(agent, active, ret_why);
	if (r == 0)
		r = load_dispatch(agent, active, ret_why);
	return r;
}

static int keep_text(struct ps_agent *agent, const char *text)
{
	ps_auto_mem char *path = NULL;
	ps_auto_mem char *fresh = NULL;
	FILE *file;
	int failed;

	if (asprintf(&path, "%s/plan.yaml", agent->run_dir) < 0 ||
	    asprintf(&fresh, "%s/plan.yaml.new", agent->run_dir) < 0)
		return -ENOMEM;
	file = fopen(fresh, "we");
	if (!file)
		return -errno;
	failed = fputs(text, file) < 0;
	failed |= fclose(file) != 0;
	if (failed)
		return -EIO;
	return rename(fresh, path) < 0 ? -errno : 0;
}

/* Puts back what stood before a failed change.  What an agent before us left stands on as it is:
 * live connections hang on it. */
static void fall_back(struct ps_agent *agent)
{
	ps_auto_mem char *why = NULL;
	ps_auto_mem char *kept = NULL;
	size_t len;

	if (!agent->active) {
		/* Before its ring buffer goes with the failed generation. */
		agent->egress_source = sd_event_source_disable_unref(agent->egress_source);
		if (kept_text(agent, &kept, &len) == -ENOENT)
			ps_agent_detach(agent->pin_dir, agent->run_dir, agent->undo, agent->net);
	} else if (ps_agent_stand(agent, agent->active, &why) < 0) {
		ps_log(LOG_ERR, "cannot put back the plan of revision %llu: %s",
		       (unsigned long long)agent->active->revision, why ? why : "no memory");
	}
}

int ps_agent_resume(struct ps_agent *agent, char **ret_why)
{
	ps_auto_mem char *text = NULL;
	size_t len;
	int r = kept_text(agent, &text, &len);

	return r < 0 ? r : ps_agent_apply(agent, text, len, 0, ret_why);
}

int ps_agent_apply(struct ps_agent *agent, const char *text, size_t len, uint64_t revision,
		   char **ret_why)
{
	ps_auto(ps_active_free) struct ps_active *fresh = calloc(1, sizeof(*fresh));
	int r;

	if (!fresh)
		return -ENOMEM;
	fresh->text = strndup(text, len);
	fresh->revision = revision;
	if (!fresh->text)
		return -ENOMEM;
	r = parse(text, len, &fresh->plan, ret_why);
	if (r == 0)
		r = judge(agent, fresh->plan, ret_why);
	if (r < 0)
		return r;
	fresh->self = (unsigned)ps_plan_find_host(fresh->plan, agent->options.host);
	r = prepare(agent, fresh, ret_why);
	if (r == 0) {
		r = ps_handover_let_go(agent, fresh, ret_why);
		if (r == 0)
			r = ps_agent_stand(agent, fresh, ret_why);
		if (r < 0)
			fall_back(agent);
	}
	if (r < 0)
		return *ret_why ? r : ps_say(ret_why, r, "%s", strerror(-r));
	ps_active_free(&agent->active);
	agent->active = ps_move(fresh);
	r = agent->options.observe ? 0 : keep_text(agent, agent->active->text);
	if (r < 0)
		ps_log(LOG_WARNING, "cannot keep the plan in %s for a restart: %s", agent->run_dir,
		       strerror(-r));
	ps_agent_tell_peers(agent); /* somebody may wait for us to let go */
	return 0;
}

void ps_agent_renew(struct ps_agent *agent)
{
	const struct ps_active *active = agent->active;
	ps_auto_mem char *why = NULL;
	int r = ps_agent_apply(agent, active->text, strlen(active->text), active->revision, &why);

	if (r < 0)
		ps_log(LOG_ERR, "cannot renew the plan in force: %s", why ? why : strerror(-r));
}
