// SPDX-License-Identifier: MIT
/*
 * Following: the store says what the plan is, the peers say what they run.
 *
 * A store that cannot be read changes nothing: the data path stays, the trouble is said once, and
 * every tick tries again.  An agent that starts without its store takes up the plan that was last
 * in force; a host that never had one waits.  A plan that is refused is judged once for each revision and said once;
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
#include "agent/handover.h"
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
	if (!agent->store || ps_store_watch_clear(agent->store))
		ps_agent_follow(agent);
	return 0;
}

static void close_store(struct ps_agent *agent)
{
	agent->store_source = sd_event_source_disable_unref(agent->store_source);
	ps_store_close(&agent->store);
}

/* The file of a store that is gone, or NULL.  Opening would make an empty one in its place; only
 * `plan apply` may do that while a plan is in force. */
static const char *lost_file(const struct ps_agent *agent)
{
	static const char scheme[] = "sqlite:";
	const char *url = agent->options.store_url, *file = url + strlen(scheme);

	if (!agent->active || strncmp(url, scheme, strlen(scheme)) != 0)
		return NULL;
	return access(file, F_OK) < 0 && errno == ENOENT ? file : NULL;
}

static int open_store(struct ps_agent *agent)
{
	const char *lost = lost_file(agent);
	char *message = NULL;
	int fd, r;

	if (lost) {
		ps_say(&message, -ENOENT,
		       "%s is gone: restore it, or write it anew with `portslice plan apply`",
		       lost);
		set_trouble(agent, message);
		return -ENOENT;
	}
	r = ps_store_open(agent->options.store_url, &agent->store, &message);
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

/* A refused plan is judged again now and then, since what it was refused for may pass: an uplink
 * or address that came late after a boot, a slice that was in use.  Each reason is said once. */
static void set_refusal(struct ps_agent *agent, uint64_t revision, char *why)
{
	bool news = !agent->refusal || agent->refused_revision != revision ||
		    (why && strcmp(why, agent->refusal) != 0);

	agent->retry_ms = ps_agent_now_ms() + PS_RETRY_MS;
	agent->refused_revision = revision;
	if (why && news)
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

/* An agent starts with what the one before it had in force: the pinned programs follow that plan,
 * whether the store can be read or not. */
static void resume(struct ps_agent *agent)
{
	char *why = NULL;
	int r;

	if (agent->active)
		return;
	r = ps_agent_resume(agent, &why);
	if (r == -ENOENT && !why)
		return;
	if (r < 0 && !agent->refusal) {
		set_refusal(agent, 0, why ? why : strdup(strerror(-r)));
		return;
	}
	free(why);
	if (r == 0)
		ps_log(LOG_NOTICE, "took up the plan that was in force");
}

/* again: what was refused is judged once more. */
static int read_plan(struct ps_agent *agent, bool again)
{
	ps_auto(ps_store_value_clear) struct ps_store_value value = {0};
	uint64_t incarnation;
	int r = ps_store_incarnation(agent->store, &incarnation);

	if (r == 0)
		r = ps_store_get(agent->store, plan_key, &value);
	if (r == -ENOENT && !agent->active)
		return 0; /* no plan yet */
	if (r < 0)
		return r;
	if (incarnation != agent->incarnation || value.revision != agent->judged_revision ||
	    (again && agent->refusal)) {
		take_plan(agent, &value);
		agent->incarnation = incarnation;
		agent->judged_revision = value.revision;
	}
	return 0;
}

static void tell_systemd(struct ps_agent *agent)
{
	sd_notifyf(0, "%sSTATUS=%s%s%s", agent->ready_sent ? "" : "READY=1\n",
		   agent->detached ? "detached"
		   : agent->active ? "plan in force"
				   : "waiting for a plan",
		   agent->refusal ? "; a newer plan was refused" : "",
		   agent->store_trouble ? "; the store cannot be read" : "");
	agent->ready_sent = true;
}

void ps_agent_forget(struct ps_agent *agent)
{
	agent->judged_revision = 0;
	agent->incarnation = 0;
}

static int read_store(struct ps_agent *agent, bool again)
{
	int r = agent->store ? 0 : open_store(agent);
	char *text = NULL;

	if (r < 0)
		return r;
	r = read_plan(agent, again);
	if (r == -ENOENT) {
		set_trouble(agent,
			    strdup("it holds no plan: apply one with `portslice plan apply`"));
		return r;
	}
	if (r < 0) {
		ps_store_error_text(r, agent->options.store_url, &text);
		set_trouble(agent, text ? text : strdup(strerror(-r)));
		if (r != -EHOSTUNREACH) /* etcd's handle knows best whom to ask next, and when */
			close_store(agent); /* opened anew at the next tick, maybe another file */
		return r;
	}
	set_trouble(agent, NULL);
	return 0;
}

void ps_agent_follow(struct ps_agent *agent)
{
	bool due = ps_agent_now_ms() >= agent->retry_ms;

	if (agent->detached)
		return;
	if (due)
		resume(agent);
	(void)read_store(agent, due); /* what is wrong is kept and said by set_trouble() */
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
	if (n && (!agent->differing || strcmp(names, agent->differing) != 0))
		ps_events_add(
			agent->events, "plan_differs", json_pack("{s:s}", "hosts", names),
			"these hosts run another plan than this one: %s; apply the same file on all",
			names);
	else if (!n && agent->differing)
		ps_events_add(agent->events, "plan_agrees", NULL,
			      "all hosts that are heard run the same plan again");
	free(agent->differing);
	agent->differing = n ? strdup(names) : NULL;
}

static int confirm_fresh(struct ps_agent *agent)
{
	bool fresh = !agent->store_trouble && !agent->refusal && !agent->differing;
	struct timespec now;
	uint64_t now_ns;

	clock_gettime(CLOCK_BOOTTIME, &now);
	now_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
	return ps_dispatch_set_fresh(agent->active->dispatch,
				     fresh ? now_ns + PS_FRESH_MS * UINT64_C(1000000) : 0);
}

static struct ps_hello_slice hello_slice(const struct ps_egress_slice *slice)
{
	unsigned index = slice->shift == PS_SHIFT_WHOLE ? 0 : slice->ports.first >> slice->shift;

	return (struct ps_hello_slice){slice->address, (uint16_t)index};
}

static int look_at_usage(struct ps_agent *agent)
{
	struct ps_active *active = agent->active;
	ps_auto_mem struct ps_hello_slice *in_use = calloc(active->n_slices + 1, sizeof(*in_use));
	ps_auto_mem uint64_t *used = calloc(active->n_slices + 1, sizeof(*used));
	uint64_t start_ms = ps_agent_now_ms();
	size_t n = 0;
	int r;

	if (!in_use || !used)
		return -ENOMEM;
	r = ps_egress_usage(agent->pin_dir, active->slices, active->n_slices, used);
	if (r < 0)
		return r;
	for (size_t i = 0; i < active->n_slices; i++)
		if (used[i])
			in_use[n++] = hello_slice(&active->slices[i]);
	free(active->in_use);
	active->in_use = ps_move(in_use);
	active->n_in_use = n;
	agent->usage_due_ms = ps_agent_now_ms() + PS_USAGE_SHARE * (ps_agent_now_ms() - start_ms);
	return 0;
}

int ps_agent_tell_peers(struct ps_agent *agent)
{
	struct ps_active *active = agent->active;
	int r = 0;

	if (!active->in_use || ps_agent_now_ms() >= agent->usage_due_ms)
		r = look_at_usage(agent);
	ps_peers_send(agent->peers, active->in_use, active->n_in_use);
	return r;
}

static void tick_active(struct ps_agent *agent)
{
	int r;

	agent->ticks++;
	r = ps_agent_tell_peers(agent);

	compare_digests(agent);
	if (r == 0)
		r = confirm_fresh(agent);
	if (r < 0)
		ps_log(LOG_ERR, "tick: %s", strerror(-r));
	if (!agent->options.observe && ps_agent_cgroups_moved(agent)) {
		ps_events_add(agent->events, "cgroup_moved", NULL,
			      "a class's cgroup was removed or made anew: hooks are loaded again");
		ps_agent_renew(agent);
	} else if (ps_handover_due(agent)) {
		ps_agent_renew(agent);
	}
	ps_agent_tend_ledger(agent);
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
