// SPDX-License-Identifier: MIT
/*
 * The order in which a plan reaches the kernel, and why no step leaks a packet:
 *
 *   sysctls      no ARP for shared addresses before any exists
 *   guard        a new slice must pass it before a hook can hand it out
 *   dispatcher   what arrives for a shared address is judged before the stack can see it
 *   hooks        programs start to use the slices
 *                (when they take over from a version with other maps, before the dispatcher: it asks
 *                the record of ports in use, which is empty until then)
 *   routes       last: only now does the stack accept shared addresses at all
 *
 * Taking a plan off runs the other way round.  All of it is idempotent, so tending (after a network
 * reload removed our routes, say) is the same code run again.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "agent/agent.h"
#include "agent/hops.h"
#include "agent/log.h"
#include "base/own.h"

char *ps_agent_class_cgroup(const struct ps_agent *agent, const char *class_name)
{
	char *path = NULL;

	if (asprintf(&path, "%s/%s/%s", agent->options.cgroup_root, PS_COMPILE_CGROUPS,
		     class_name) < 0)
		return NULL;
	return path;
}

/* Depth below the root of the cgroup2 mount: what bpf_get_current_ancestor_cgroup_id() counts. */
static unsigned cgroup_level(const char *path)
{
	ps_auto_mem char *at = strdup(path);
	struct stat here, parent;
	unsigned level = 0;
	char *slash;

	while (at && stat(at, &here) == 0 && (slash = strrchr(at, '/')) && slash != at) {
		*slash = '\0';
		if (stat(at, &parent) < 0 || parent.st_dev != here.st_dev)
			break;
		level++;
	}
	return level;
}

/* The kernel's cgroup id is the inode number of the folder (64-bit kernfs). */
static int find_cgroup(struct ps_agent *agent, const char *path, struct ps_compile_cgroup *ret,
		       char **ret_why)
{
	struct stat folder;
	int r = agent->options.observe ? 0 : ps_undo_mkdir(agent->undo, path);

	if (r < 0)
		return ps_say(ret_why, r, "cannot create cgroup %s: %s", path, strerror(-r));
	*ret = (struct ps_compile_cgroup){0};
	if (stat(path, &folder) < 0)
		return 0; /* observing: a cgroup that is not there matches nothing */
	ret->id = folder.st_ino;
	ret->level = cgroup_level(path);
	return 0;
}

static int find_class(struct ps_agent *agent, struct ps_active *active, size_t class,
		      char **ret_why)
{
	const struct ps_class *wanted = &active->plan->classes[class];
	ps_auto_mem char *own = ps_agent_class_cgroup(agent, wanted->name);
	ps_auto_mem char *named = NULL;
	int r = own ? find_cgroup(agent, own, &active->own[class], ret_why) : -ENOMEM;

	if (r < 0 || !wanted->match.cgroup)
		return r;
	if (asprintf(&named, "%s%s", agent->options.cgroup_root, wanted->match.cgroup) < 0)
		return -ENOMEM;
	return find_cgroup(agent, named, &active->named[class], ret_why);
}

int ps_agent_find_cgroups(struct ps_agent *agent, struct ps_active *active, char **ret_why)
{
	size_t n = active->plan->n_classes;
	int r = 0;

	active->own = calloc(n + 1, sizeof(*active->own));
	active->named = calloc(n + 1, sizeof(*active->named));
	if (!active->own || !active->named)
		return -ENOMEM;
	for (size_t i = 0; i < n && r == 0; i++)
		r = find_class(agent, active, i, ret_why);
	return r;
}

static bool moved(const char *path, const struct ps_compile_cgroup *known)
{
	struct stat folder;

	return stat(path, &folder) < 0 ? known->id != 0 : folder.st_ino != known->id;
}

bool ps_agent_cgroups_moved(const struct ps_agent *agent)
{
	const struct ps_active *active = agent->active;

	for (size_t i = 0; i < active->plan->n_classes; i++) {
		const struct ps_class *class = &active->plan->classes[i];
		ps_auto_mem char *own = ps_agent_class_cgroup(agent, class->name);
		ps_auto_mem char *named = NULL;

		if (own && moved(own, &active->own[i]))
			return true;
		if (!class->match.cgroup ||
		    asprintf(&named, "%s%s", agent->options.cgroup_root, class->match.cgroup) < 0)
			continue;
		if (moved(named, &active->named[i]))
			return true;
	}
	return false;
}

static int say_sysctl(const char *name, int error, char **ret_why)
{
	return ps_say(ret_why, error, "cannot set sysctl %s: %s", name, strerror(-error));
}

/* arp_ignore 1: answer only for addresses of the interface itself.  arp_announce 2: never ask for a
 * gateway in a shared address's name.  Both measured necessary (design.md §4). */
static int stand_uplink_sysctls(struct ps_agent *agent, const char *uplink, char **ret_why)
{
	static const struct {
		const char *name, *value;
	} settings[] = {{"arp_ignore", "1"}, {"arp_announce", "2"}};
	int changed = 0;

	for (size_t i = 0; i < PS_N_ELEMENTS(settings); i++) {
		char name[128];
		int r;

		snprintf(name, sizeof(name), "net/ipv4/conf/%s/%s", uplink, settings[i].name);
		r = ps_undo_sysctl(agent->undo, name, settings[i].value);
		if (r < 0 && !if_nametoindex(uplink))
			break; /* the uplink is gone, which is said elsewhere */
		if (r < 0)
			return say_sysctl(name, r, ret_why);
		changed += r;
	}
	return changed;
}

static bool holds_v6(const struct ps_active *active)
{
	for (size_t i = 0; i < active->n_addresses; i++)
		if (!ps_ip_is_v4(&active->addresses[i]))
			return true;
	return false;
}

/* A local route is enough to bind an IPv4 address; IPv6 asks for one of an interface, or for this
 * (design.md §4).  Like the other stand_ functions it gives how many were missing. */
static int stand_sysctls(struct ps_agent *agent, const struct ps_active *active, char **ret_why)
{
	static const char nonlocal[] = "net/ipv6/ip_nonlocal_bind";
	int changed = holds_v6(active) ? ps_undo_sysctl(agent->undo, nonlocal, "1") : 0;

	if (changed < 0)
		return say_sysctl(nonlocal, changed, ret_why);
	for (size_t i = 0; i < active->n_uplinks; i++) {
		int r = stand_uplink_sysctls(agent, active->uplinks[i].name, ret_why);

		if (r < 0)
			return r;
		changed += r;
	}
	return changed;
}

static bool is_uplink(const struct ps_active *active, const char *name)
{
	for (size_t i = 0; i < active->n_uplinks; i++)
		if (strcmp(active->uplinks[i].name, name) == 0)
			return true;
	return false;
}

/* Journal first: a qdisc made by an agent that was killed at once must be known as ours. */
static int guard_link(struct ps_agent *agent, struct ps_active *active,
		      const struct ps_net_link *link, char **ret_why)
{
	bool uplink = is_uplink(active, link->name), qdisc_made = false;
	int r;

	if (ps_egress_guard_stands(active->egress, link->ifindex, uplink))
		return 0;
	r = ps_undo_guard(agent->undo, link->name, !ps_egress_has_qdisc(link->ifindex));
	if (r == 0)
		r = ps_egress_guard(active->egress, link->ifindex, uplink, &qdisc_made, ret_why);
	if (r < 0 && if_nametoindex(link->name) != link->ifindex)
		return 0; /* the interface went meanwhile */
	return r < 0 ? r : 1;
}

/* On every interface but loopback: a shared address must not leave by any of them. */
static int stand_guards(struct ps_agent *agent, struct ps_active *active, char **ret_why)
{
	ps_auto_mem struct ps_net_link *links = NULL;
	int put = 0, r;
	size_t n = 0;

	if (agent->options.without_guard)
		return 0;
	r = ps_net_links(agent->net, &links, &n);
	for (size_t i = 0; i < n && r >= 0; i++) {
		if (links[i].loopback)
			continue;
		r = guard_link(agent, active, &links[i], ret_why);
		put += r > 0;
	}
	return r < 0 ? r : put;
}

/* Journal first, as for a guard; where that stands the qdisc is there. */
static int attach_dispatcher(struct ps_agent *agent, struct ps_active *active,
			     struct ps_uplink *uplink, char **ret_why)
{
	unsigned ifindex = if_nametoindex(uplink->name);
	int r = 0;

	if (ifindex && !ps_egress_has_qdisc(ifindex))
		r = ps_undo_guard(agent->undo, uplink->name, true);
	return r < 0 ? r
		     : ps_dispatch_attach(active->dispatch, uplink->name, &uplink->mode, ret_why);
}

static int stand_dispatcher(struct ps_agent *agent, struct ps_active *active, char **ret_why)
{
	for (size_t i = 0; i < active->n_uplinks && !agent->options.without_dispatch; i++) {
		int r = attach_dispatcher(agent, active, &active->uplinks[i], ret_why);

		if (r < 0)
			return r;
	}
	return 0;
}

/* Also those that a plan named which then was refused, or an agent before us. */
static int leave_other_uplinks(const struct ps_agent *agent, const struct ps_active *active)
{
	ps_auto_mem const char **names = calloc(active->n_uplinks + 1, sizeof(*names));

	if (!names)
		return -ENOMEM;
	for (size_t i = 0; i < active->n_uplinks; i++)
		names[i] = active->uplinks[i].name;
	return ps_dispatch_keep_only(agent->pin_dir, names, active->n_uplinks);
}

static void take_event(const struct ps_egress_event *record, void *arg)
{
	struct ps_agent *agent = arg;

	if (agent->active)
		ps_events_add_egress(agent->events, agent->active->plan, agent->active->self,
				     record);
}

static int on_egress_events(sd_event_source *source, int fd, uint32_t mask, void *arg)
{
	struct ps_agent *agent = arg;

	(void)source, (void)fd, (void)mask;
	if (agent->active)
		ps_egress_events_read(agent->active->egress, take_event, agent);
	return 0;
}

static int listen_to_events(struct ps_agent *agent, struct ps_active *active)
{
	agent->egress_source = sd_event_source_disable_unref(agent->egress_source);
	return sd_event_add_io(agent->loop, &agent->egress_source,
			       ps_egress_events_fd(active->egress), EPOLLIN, on_egress_events,
			       agent);
}

static void take_hint(const struct ps_ip *dst, unsigned mtu, void *arg)
{
	struct ps_agent *agent = arg;
	char address[PS_IP_TEXT_MAX];

	if (ps_mtus_learn(agent->mtus, agent->active->dispatch, dst, mtu, ps_agent_now_ms()) > 0)
		ps_events_add(
			agent->events, "mtu_lowered", json_pack("{s:i}", "mtu", (int)mtu),
			"the path to %s takes packets of at most %u bytes, less than the plan's `mtu`: senders are told for ten minutes",
			ps_ip_format(dst, address), mtu);
}

static int on_hints(sd_event_source *source, int fd, uint32_t mask, void *arg)
{
	struct ps_agent *agent = arg;

	(void)source, (void)fd, (void)mask;
	if (agent->active)
		ps_dispatch_hints_read(agent->active->dispatch, take_hint, agent);
	return 0;
}

static int listen_to_hints(struct ps_agent *agent, struct ps_active *active)
{
	ps_mtus_apply(agent->mtus, active->dispatch);
	agent->hints_source = sd_event_source_disable_unref(agent->hints_source);
	return sd_event_add_io(agent->loop, &agent->hints_source,
			       ps_dispatch_hints_fd(active->dispatch), EPOLLIN, on_hints, agent);
}

static int on_hello(sd_event_source *source, int fd, uint32_t mask, void *arg)
{
	struct ps_agent *agent = arg;

	(void)source, (void)fd, (void)mask;
	ps_peers_receive(agent->peers, ps_agent_now_ms());
	return 0;
}

static int listen_to_peers(struct ps_agent *agent, struct ps_active *active, char **ret_why)
{
	char address[PS_IP_TEXT_MAX];
	int r = ps_peers_set_plan(agent->peers, active->plan, active->self, active->digest,
				  active->revision);

	if (r < 0)
		return ps_say(ret_why, r,
			      "cannot listen on underlay address %s, UDP port %d: %s (%s)",
			      ps_ip_format(&active->plan->hosts[active->self].underlay, address),
			      PS_HELLO_PORT, strerror(-r),
			      r == -EADDRINUSE ? "does another portsliced run on this host?"
					       : "is the address configured on this host?");
	agent->peers_source = sd_event_source_disable_unref(agent->peers_source);
	return sd_event_add_io(agent->loop, &agent->peers_source, ps_peers_fd(agent->peers),
			       EPOLLIN, on_hello, agent);
}

static int stand_routes(struct ps_agent *agent, const struct ps_active *active, char **ret_why)
{
	int r = ps_undo_routes(agent->undo, agent->net, active->addresses, active->n_addresses);

	if (r == -EACCES)
		return ps_say(
			ret_why, r,
			"cannot add local routes of IPv6: enable it with `sysctl net.ipv6.conf.lo.disable_ipv6=0`");
	return r < 0 ? ps_say(ret_why, r, "cannot add local routes: %s", strerror(-r)) : r;
}

static int stand_hooks(const struct ps_agent *agent, const struct ps_active *active, char **ret_why)
{
	return agent->options.without_hooks ? 0 : ps_egress_attach(active->egress, ret_why);
}

int ps_agent_stand(struct ps_agent *agent, struct ps_active *active, char **ret_why)
{
	bool touch = !agent->options.observe;
	int r = listen_to_peers(agent, active, ret_why);

	if (r >= 0 && touch)
		r = stand_sysctls(agent, active, ret_why);
	if (r >= 0)
		r = stand_guards(agent, active, ret_why);
	if (r >= 0)
		r = ps_hops_refresh(agent->net, active->plan, active->self, active->dispatch);
	if (r >= 0)
		r = listen_to_hints(agent, active);
	if (r >= 0 && ps_egress_takes_over(active->egress))
		r = stand_hooks(agent, active, ret_why);
	if (r >= 0)
		r = stand_dispatcher(agent, active, ret_why);
	if (r >= 0)
		r = stand_hooks(agent, active, ret_why);
	if (r >= 0)
		r = listen_to_events(agent, active);
	if (r >= 0 && touch)
		r = stand_routes(agent, active, ret_why);
	if (r >= 0)
		r = leave_other_uplinks(agent, active);
	return r < 0 ? r : 0;
}

/* 1: the dispatcher had to be put back. */
static int tend_uplink(struct ps_agent *agent, struct ps_active *active, struct ps_uplink *uplink,
		       char **ret_why)
{
	unsigned ifindex = if_nametoindex(uplink->name), before = uplink->ifindex;
	int r = 0;

	if (!ifindex && before)
		ps_events_add(agent->events, "uplink_gone", NULL,
			      "uplink %s is gone: this host receives nothing by it", uplink->name);
	uplink->ifindex = 0; /* until the dispatcher stands there */
	if (!ifindex)
		return 0;
	if (!agent->options.without_dispatch &&
	    !ps_dispatch_stands(active->dispatch, uplink->name)) {
		r = attach_dispatcher(agent, active, uplink, ret_why);
		if (r < 0)
			return r;
		r = before == ifindex;
	}
	if (before != ifindex)
		ps_events_add(agent->events, "uplink_back", NULL,
			      "uplink %s is back: dispatcher attached", uplink->name);
	uplink->ifindex = ifindex;
	return r;
}

static int tend_uplinks(struct ps_agent *agent, struct ps_active *active, char **ret_why)
{
	int put = 0, first = 0;

	for (size_t i = 0; i < active->n_uplinks; i++) {
		int r = tend_uplink(agent, active, &active->uplinks[i], ret_why);

		put += r > 0;
		first = r < 0 && first == 0 ? r : first;
	}
	return first < 0 ? first : put;
}

static int tend_hooks(struct ps_agent *agent, struct ps_active *active, char **ret_why)
{
	int r;

	if (agent->options.without_hooks || ps_egress_hooks_stand(active->egress))
		return 0;
	r = stand_hooks(agent, active, ret_why);
	return r < 0 ? r : 1;
}

static int tend_sysctls(struct ps_agent *agent, struct ps_active *active, char **ret_why)
{
	return agent->options.observe ? 0 : stand_sysctls(agent, active, ret_why);
}

static int tend_routes(struct ps_agent *agent, struct ps_active *active, char **ret_why)
{
	return agent->options.observe ? 0 : stand_routes(agent, active, ret_why);
}

/* Unresolved neighbours are no trouble: the kernel has been asked for them. */
static int tend_hops(struct ps_agent *agent, struct ps_active *active, char **ret_why)
{
	int r = ps_hops_refresh(agent->net, active->plan, active->self, active->dispatch);

	return r < 0 ? ps_say(ret_why, r, "cannot read neighbours: %s", strerror(-r)) : 0;
}

/* Trouble is said when it is new, and when it is over. */
static void set_host_trouble(struct ps_agent *agent, char *text)
{
	if (text && (!agent->host_trouble || strcmp(text, agent->host_trouble) != 0))
		ps_events_add(agent->events, "host_trouble", NULL,
			      "cannot restore what others removed: %s", text);
	else if (!text && agent->host_trouble)
		ps_events_add(agent->events, "host_well", NULL,
			      "everything of ours on this host is in place again");
	free(agent->host_trouble);
	agent->host_trouble = text;
}

/* Every step is tried, whatever became of the one before. */
void ps_agent_tend(struct ps_agent *agent)
{
	static const struct {
		const char *what;
		int (*tend)(struct ps_agent *agent, struct ps_active *active, char **ret_why);
	} steps[] = {{"sysctls", tend_sysctls},     {"guards", stand_guards},
		     {"dispatchers", tend_uplinks}, {"cgroup hooks", tend_hooks},
		     {"local routes", tend_routes}, {"next hops", tend_hops}};
	char *trouble = NULL;

	if (!agent->active || agent->detached)
		return;
	for (size_t i = 0; i < PS_N_ELEMENTS(steps); i++) {
		ps_auto_mem char *why = NULL;
		int r = steps[i].tend(agent, agent->active, &why);

		if (r > 0)
			ps_events_add(agent->events, "restored", NULL,
				      "%s: %d had been removed or changed, put back", steps[i].what,
				      r);
		if (r < 0 && !trouble)
			trouble = why ? ps_move(why) : strdup(strerror(-r));
	}
	set_host_trouble(agent, trouble);
}

static int ensure_dir(const char *path)
{
	return mkdir(path, 0755) < 0 && errno != EEXIST ? -errno : 0;
}

int ps_agent_make_pin_dir(const struct ps_agent *agent, char **ret_why)
{
	int r = ensure_dir(PS_PIN_ROOT);

	if (r == 0)
		r = ensure_dir(agent->pin_dir);
	return r < 0 ? ps_say(ret_why, r, "cannot create %s: %s", agent->pin_dir, strerror(-r)) : 0;
}

/* The splitter first: it would keep the qdisc. */
static int unguard(unsigned ifindex, bool remove_qdisc)
{
	int r = ps_split_detach(ifindex);

	return r < 0 ? r : ps_egress_unguard(ifindex, remove_qdisc);
}

int ps_agent_detach(const char *pin_dir, const char *run_dir, struct ps_undo *undo,
		    struct ps_net *net)
{
	ps_auto_mem char *plan = NULL;
	int first = ps_egress_detach_all(pin_dir);
	int r = ps_undo_all(undo, net, unguard);

	if (first == 0)
		first = r;
	r = ps_dispatch_detach_all(pin_dir);
	if (first == 0)
		first = r;
	if (asprintf(&plan, "%s/plan.yaml", run_dir) >= 0)
		(void)unlink(plan);
	(void)rmdir(pin_dir);
	(void)rmdir(PS_PIN_ROOT);
	return first;
}
