// SPDX-License-Identifier: MIT
/*
 * Following: the store says what the plan is, the peers say what they run.
 *
 * A store that cannot be read changes nothing: the data path stays, the trouble is said once, and
 * every tick tries again.  A plan that is refused is judged once for each revision and said once;
 * `portslice status` keeps the reason.  The dispatcher's table counts as fresh, and may answer for
 * ports nobody owns, only while the store answers, its newest plan is in force, and no host was
 * heard that runs another one.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <systemd/sd-daemon.h>
#include <time.h>

#include "agent/agent.h"
#include "agent/log.h"
#include "base/own.h"

static const char plan_key[] = "plan";

static void set_trouble(struct ps_agent *agent, char *text)
{
	bool news = text && (!agent->store_trouble || strcmp(text, agent->store_trouble) != 0);

	if (news)
		ps_events_add(agent->events, "store_trouble", NULL,
			      "store %s: %s; the data path stays as it is",
			      agent->options.store_url, text);
	else if (!text && agent->store_trouble)
		ps_events_add(agent->events, "store_back", NULL, "store %s answers again",
			      agent->options.store_url);
	free(agent->store_trouble);
	agent->store_trouble = text;
}

static int on_store(sd_event_source *source, int fd, uint32_t mask, void *arg)
{
	struct ps_agent *agent = arg;

	(void)source, (void)fd, (void)mask;
	if (agent->store)
		ps_store_watch_clear(agent->store);
	ps_agent_follow(agent);
	return 0;
}

static void close_store(struct ps_agent *agent)
{
	agent->store_source = sd_event_source_disable_unref(agent->store_source);
	ps_store_close(&agent->store);
}

static int open_store(struct ps_agent *agent)
{
	char *message = NULL;
	int fd, r = ps_store_open(agent->options.store_url, &agent->store, &message);

	if (r < 0) {
		set_trouble(agent, message ? message : strdup(strerror(-r)));
		return r;
	}
	free(message);
	fd = ps_store_watch_fd(agent->store);
	if (fd < 0)
		return 0; /* the tick polls */
	return sd_event_add_io(agent->loop, &agent->store_source, fd, EPOLLIN, on_store, agent);
}

static void set_refusal(struct ps_agent *agent, uint64_t revision, char *why)
{
	if (why)
		ps_events_add(agent->events, "plan_refused", json_pack("{s:s}", "why", why),
			      "plan of revision %" PRIu64
			      " is not applied, the old state stays: %s",
			      revision, why);
	free(agent->refusal);
	agent->refusal = why;
}

static void take_plan(struct ps_agent *agent, const struct ps_store_value *value)
{
	char *why = NULL;
	int r;

	if (agent->active && strcmp(agent->active->text, value->data) == 0) {
		agent->active->revision = value->revision;
		set_refusal(agent, value->revision, NULL);
		return;
	}
	r = ps_agent_apply(agent, value->data, value->len, value->revision, &why);
	if (r < 0 && !why)
		why = strdup(strerror(-r));
	set_refusal(agent, value->revision, r < 0 ? why : NULL);
	if (r < 0)
		return;
	free(why);
	ps_log(LOG_NOTICE, "plan of revision %" PRIu64 " is in force: %zu slices of %zu addresses",
	       value->revision, agent->active->n_slices, agent->active->n_addresses);
}

static int read_plan(struct ps_agent *agent)
{
	ps_auto(ps_store_value_clear) struct ps_store_value value = {0};
	uint64_t incarnation;
	int r = ps_store_incarnation(agent->store, &incarnation);

	if (r == 0)
		r = ps_store_get(agent->store, plan_key, &value);
	if (r == -ENOENT)
		return 0; /* no plan yet: nothing to do, and what is in force stays */
	if (r < 0)
		return r;
	if (incarnation != agent->incarnation || value.revision != agent->judged_revision) {
		take_plan(agent, &value);
		agent->incarnation = incarnation;
		agent->judged_revision = value.revision;
	}
	return 0;
}

static void tell_systemd(struct ps_agent *agent)
{
	sd_notifyf(0, "%sSTATUS=%s%s", agent->ready_sent ? "" : "READY=1\n",
		   agent->detached ? "detached"
		   : agent->active ? "plan in force"
				   : "waiting for a plan",
		   agent->refusal ? "; a newer plan was refused" : "");
	agent->ready_sent = true;
}

void ps_agent_forget(struct ps_agent *agent)
{
	agent->judged_revision = 0;
	agent->incarnation = 0;
}

void ps_agent_follow(struct ps_agent *agent)
{
	int r;

	if (agent->detached)
		return;
	r = agent->store ? 0 : open_store(agent);
	if (r < 0)
		return;
	r = read_plan(agent);
	if (r < 0) {
		char *text = NULL;

		ps_store_error_text(r, agent->options.store_url, &text);
		set_trouble(agent, text ? text : strdup(strerror(-r)));
		close_store(agent); /* opened anew at the next tick, maybe another file */
		return;
	}
	set_trouble(agent, NULL);
	tell_systemd(agent);
}

static void compare_digests(struct ps_agent *agent)
{
	struct ps_peer_view peer;
	char names[512] = "";
	size_t n = 0;

	for (size_t i = 0; ps_peers_view(agent->peers, i, ps_agent_now_ms(), &peer); i++) {
		if (peer.state != PS_PEER_DIFFERS)
			continue;
		if (n++ && strlen(names) + 2 < sizeof(names))
			strcat(names, ", ");
		strncat(names, peer.name, sizeof(names) - strlen(names) - 1);
	}
	if (n && n != agent->n_differ)
		ps_events_add(
			agent->events, "plan_differs", json_pack("{s:s}", "hosts", names),
			"these hosts run another plan than this one: %s; apply the same file on all",
			names);
	else if (!n && agent->n_differ)
		ps_events_add(agent->events, "plan_agrees", NULL,
			      "all hosts that are heard run the same plan again");
	agent->n_differ = n;
}

static int confirm_fresh(struct ps_agent *agent)
{
	bool fresh = !agent->store_trouble && !agent->refusal && agent->n_differ == 0;
	struct timespec now;
	uint64_t now_ns;

	clock_gettime(CLOCK_BOOTTIME, &now);
	now_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
	return ps_dispatch_set_fresh(agent->active->dispatch,
				     fresh ? now_ns + PS_FRESH_MS * UINT64_C(1000000) : 0);
}

static int tell_peers(struct ps_agent *agent)
{
	const struct ps_active *active = agent->active;
	ps_auto_mem struct ps_hello_slice *in_use = calloc(active->n_slices + 1, sizeof(*in_use));
	ps_auto_mem uint64_t *used = calloc(active->n_slices + 1, sizeof(*used));
	size_t n = 0;
	int r;

	if (!in_use || !used)
		return -ENOMEM;
	r = ps_egress_usage(agent->pin_dir, active->slices, active->n_slices, used);
	for (size_t i = 0; i < active->n_slices && r == 0; i++)
		if (used[i])
			in_use[n++] = (struct ps_hello_slice){
				active->slices[i].ip4_be,
				(uint16_t)(active->slices[i].shift == PS_SHIFT_WHOLE
						   ? 0
						   : active->slices[i].ports.first >>
							     active->slices[i].shift)};
	ps_peers_send(agent->peers, in_use, n);
	return r;
}

/* Without it the table of claims would slowly fill with ports that are free again. */
static void sweep(struct ps_agent *agent)
{
	uint64_t n_freed;

	if (++agent->ticks < PS_SWEEP_TICKS)
		return;
	agent->ticks = 0;
	(void)ps_egress_sweep(agent->active->egress, &n_freed);
}

static void tick_active(struct ps_agent *agent)
{
	int r = tell_peers(agent);

	compare_digests(agent);
	if (r == 0)
		r = confirm_fresh(agent);
	if (r < 0)
		ps_log(LOG_ERR, "tick: %s", strerror(-r));
	if (!agent->options.observe && ps_agent_cgroups_moved(agent)) {
		ps_events_add(agent->events, "cgroup_moved", NULL,
			      "a class's cgroup was removed or made anew: hooks are loaded again");
		ps_agent_forget(agent);
		free(agent->active->text); /* so that the same text is applied again */
		agent->active->text = strdup("");
	}
	sweep(agent);
	(void)ps_mtus_expire(agent->mtus, agent->active->dispatch, ps_agent_now_ms());
	ps_agent_tend(agent);
}

int ps_agent_tick(struct ps_agent *agent)
{
	ps_agent_follow(agent);
	if (agent->active && !agent->detached)
		tick_active(agent);
	return 0;
}
