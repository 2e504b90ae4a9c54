// SPDX-License-Identifier: MIT
/*
 * portsliced: one agent for each host, no controller.
 *
 * It owns the host's share of the port plane: reads the plan from a store, compiles what this host
 * must know, and keeps the kernel true to it.  The data path is in the kernel and pinned, so the
 * agent may stop, crash, restart or be upgraded without one connection noticing; only changes wait.
 *
 * One sd-event loop drives everything: the store's watch, netlink (routes and neighbours that the
 * dispatcher's ready-made headers copy), the hellos of other hosts, the hooks' ring buffer, the
 * control socket, and a tick each second.  Nothing in it may block, and no callback may fail the
 * loop: what goes wrong is logged once, kept for `portslice status`, and tried again.
 *
 *   start      preflight, lock, journal, store; then follow
 *   follow     a new plan: judge, prepare, stand (apply.c, stand.c); refused: old state stays
 *   tick       say hello, compare digests, confirm freshness, put back what others removed
 *   stop       leaves the data path; `portslice detach` takes it off, with or without an agent
 *
 * --observe loads the same programs with their hands tied: they count what they would do.
 *
 * Standards: sd_notify(3); file-hierarchy(7) for /run; design.md §6 for names and exit codes.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>

#include "agent/agent.h"
#include "agent/log.h"
#include "base/own.h"

enum { EXIT_USE = 1, EXIT_REFUSED = 2 };
enum { TEND_DELAY_MS = 50, TRIM_BYTES = 256 * 1024 };

static const char run_root[] = "/run/portslice";

static const char help[] =
	"usage: portsliced [OPTIONS]\n"
	"The host agent: follows the plan in the store and keeps the kernel true to it.\n"
	"\n"
	"  --host NAME        this host's name in the plan (default: the machine's host name)\n"
	"  --store URL        where the plan is (default: sqlite:/var/lib/portslice/store.db)\n"
	"  --cgroup PATH      root of the cgroups that are steered (default: the cgroup2 mount)\n"
	"  --instance NAME    name of run and pin folders (default: default)\n"
	"  --observe          count what would be done, touch no packet and no setting\n"
	"  --detach           take everything of this instance off the host, and exit\n"
	"  --without PART     lab only: leave out dispatch, guard or hook\n"
	"  -h, --help         this text\n"
	"  -V, --version      the version\n";

static const char *cgroup2_mount(void)
{
	/* Where systemd's unified and hybrid hierarchies put it. */
	return access("/sys/fs/cgroup/cgroup.procs", F_OK) == 0 ? "/sys/fs/cgroup"
								: "/sys/fs/cgroup/unified";
}

static int ensure_dir(const char *path)
{
	return mkdir(path, 0755) < 0 && errno != EEXIST ? -errno : 0;
}

static int make_dirs(struct ps_agent *agent, char **ret_why)
{
	int r;

	if (asprintf(&agent->run_dir, "%s/%s", run_root, agent->options.instance) < 0 ||
	    asprintf(&agent->pin_dir, "%s/%s", PS_PIN_ROOT, agent->options.instance) < 0)
		return -ENOMEM;
	r = ensure_dir(run_root);
	if (r == 0)
		r = ensure_dir(agent->run_dir);
	if (r < 0)
		return ps_say(ret_why, r, "cannot create %s: %s", agent->run_dir, strerror(-r));
	return ps_agent_make_pin_dir(agent, ret_why);
}

static int take_lock(struct ps_agent *agent, char **ret_why)
{
	ps_auto_mem char *path = NULL;

	if (asprintf(&path, "%s/lock", agent->run_dir) < 0)
		return -ENOMEM;
	agent->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (agent->lock_fd < 0)
		return ps_say(ret_why, -errno, "cannot open %s: %s", path, strerror(errno));
	if (flock(agent->lock_fd, LOCK_EX | LOCK_NB) < 0)
		return ps_say(
			ret_why, -errno,
			"another portsliced runs as instance `%s`: stop it, or choose another --instance",
			agent->options.instance);
	return 0;
}

static int open_journal(struct ps_agent *agent, char **ret_why)
{
	ps_auto_mem char *path = NULL;
	int r;

	if (asprintf(&path, "%s/undo.json", agent->run_dir) < 0)
		return -ENOMEM;
	r = ps_undo_open(path, &agent->undo);
	if (r < 0)
		return ps_say(ret_why, r, "%s: %s (remove it if the host was rebooted or cleaned)",
			      path, r == -EBADMSG ? "damaged" : strerror(-r));
	return 0;
}

static void publish_event(const json_t *event, void *arg)
{
	struct ps_agent *agent = arg;

	if (agent->control)
		ps_control_publish(agent->control, event);
}

static int on_tick(sd_event_source *source, uint64_t usec, void *arg)
{
	struct ps_agent *agent = arg;

	(void)usec;
	ps_agent_tick(agent);
	sd_event_source_set_time_relative(source, PS_TICK_MS * UINT64_C(1000));
	return sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
}

static int on_tend(sd_event_source *source, uint64_t usec, void *arg)
{
	struct ps_agent *agent = arg;

	(void)usec;
	agent->tend_armed = false;
	agent->retry_ms = 0; /* what a plan was refused for may be there now */
	ps_agent_tend(agent);
	return sd_event_source_set_enabled(source, SD_EVENT_OFF);
}

/* A network reload comes as a burst: one look after it is enough. */
static int on_network(sd_event_source *source, int fd, uint32_t mask, void *arg)
{
	struct ps_agent *agent = arg;

	(void)source, (void)fd, (void)mask;
	if (!ps_net_monitor_drain(agent->net) || agent->tend_armed)
		return 0;
	agent->tend_armed = true;
	sd_event_source_set_time_relative(agent->tend_source, TEND_DELAY_MS * UINT64_C(1000));
	return sd_event_source_set_enabled(agent->tend_source, SD_EVENT_ONESHOT);
}

static int add_sources(struct ps_agent *agent)
{
	sigset_t stop;
	int r;

	sigemptyset(&stop);
	sigaddset(&stop, SIGTERM);
	sigaddset(&stop, SIGINT);
	sigprocmask(SIG_BLOCK, &stop, NULL);
	r = sd_event_add_signal(agent->loop, NULL, SIGTERM, NULL, NULL);
	if (r >= 0)
		r = sd_event_add_signal(agent->loop, NULL, SIGINT, NULL, NULL);
	if (r >= 0)
		r = sd_event_add_io(agent->loop, NULL, ps_net_monitor_fd(agent->net), EPOLLIN,
				    on_network, agent);
	if (r >= 0)
		r = sd_event_add_time_relative(agent->loop, NULL, CLOCK_MONOTONIC, 0, 0, on_tick,
					       agent);
	if (r >= 0)
		r = sd_event_add_time_relative(agent->loop, &agent->tend_source, CLOCK_MONOTONIC, 0,
					       0, on_tend, agent);
	if (r >= 0)
		r = sd_event_source_set_enabled(agent->tend_source, SD_EVENT_OFF);
	if (r >= 0)
		r = sd_event_set_watchdog(agent->loop, true);
	return r < 0 ? r : 0;
}

static void agent_free(struct ps_agent **agent)
{
	ps_active_free(&(*agent)->active);
	ps_control_close(&(*agent)->control);
	ps_events_free(&(*agent)->events);
	ps_peers_free(&(*agent)->peers);
	ps_mtus_free(&(*agent)->mtus);
	ps_undo_free(&(*agent)->undo);
	ps_net_close(&(*agent)->net);
	ps_store_close(&(*agent)->store);
	sd_event_source_disable_unref((*agent)->tend_source);
	sd_event_source_disable_unref((*agent)->peers_source);
	sd_event_source_disable_unref((*agent)->store_source);
	sd_event_source_disable_unref((*agent)->egress_source);
	sd_event_source_disable_unref((*agent)->hints_source);
	sd_event_unref((*agent)->loop);
	ps_fd_drop(&(*agent)->lock_fd);
	free((*agent)->run_dir);
	free((*agent)->pin_dir);
	free((*agent)->store_trouble);
	free((*agent)->differing);
	free((*agent)->refusal);
	free((*agent)->host_trouble);
	free(*agent);
}

/* A URL that no back end knows never gets better; everything else may (follow.c). */
static int check_store_url(const struct ps_agent *agent, char **ret_why)
{
	ps_auto(ps_store_close) struct ps_store *store = NULL;
	ps_auto_mem char *message = NULL;
	int r = ps_store_open(agent->options.store_url, &store, &message);

	if (r != -EINVAL)
		return 0;
	return ps_say(ret_why, r, "--store %s: %s", agent->options.store_url,
		      message ? message : strerror(-r));
}

/* What both running and detaching need. */
static int open_common(struct ps_agent *agent, bool detach, char **ret_why)
{
	int r = ps_preflight(&agent->options, ret_why);

	if (r == 0 && !detach)
		r = check_store_url(agent, ret_why);
	if (r == 0)
		r = make_dirs(agent, ret_why);
	if (r == 0)
		r = take_lock(agent, ret_why);
	if (r == 0)
		r = open_journal(agent, ret_why);
	if (r == 0)
		r = ps_net_open(&agent->net);
	return r;
}

static int open_agent(struct ps_agent *agent, char **ret_why)
{
	int r = ps_preflight_drop();

	if (r == 0)
		r = sd_event_new(&agent->loop);
	if (r >= 0)
		r = ps_peers_new(&agent->peers);
	if (r == 0)
		r = ps_events_new(publish_event, agent, &agent->events);
	if (r >= 0)
		r = ps_mtus_new(&agent->mtus);
	if (r == 0) {
		r = ps_control_open(agent, &agent->control);
		if (r < 0)
			return ps_say(ret_why, r, "cannot open the control socket in %s: %s",
				      agent->run_dir, strerror(-r));
	}
	if (r == 0)
		r = add_sources(agent);
	return r;
}

/* No agent lives (we hold its lock), so its folder can go as well. */
static int run_detach(struct ps_agent *agent)
{
	static const char *const left[] = {"control.sock", "lock"};
	int r = ps_agent_detach(agent->pin_dir, agent->run_dir, agent->undo, agent->net);

	for (size_t i = 0; i < PS_N_ELEMENTS(left) && r == 0; i++) {
		ps_auto_mem char *path = NULL;

		if (asprintf(&path, "%s/%s", agent->run_dir, left[i]) >= 0)
			(void)unlink(path);
	}
	(void)rmdir(agent->run_dir);
	return r;
}

/* Observing programs in place of the running ones would open the host. */
static int refuse_to_replace(const struct ps_agent *agent, char **ret_why)
{
	ps_auto_mem char *path = NULL;

	if (asprintf(&path, "%s/plan.yaml", agent->run_dir) < 0)
		return -ENOMEM;
	if (access(path, F_OK) < 0)
		return 0;
	return ps_say(ret_why, -EBUSY,
		      "instance `%s` is attached: `portslice detach` it before observing",
		      agent->options.instance);
}

static int run(const struct ps_agent_options *options, bool detach, char **ret_why)
{
	ps_auto(agent_free) struct ps_agent *agent = calloc(1, sizeof(*agent));
	int r;

	if (!agent)
		return -ENOMEM;
	agent->options = *options;
	agent->lock_fd = -1;
	(void)mallopt(M_TRIM_THRESHOLD,
		      TRIM_BYTES); /* else glibc keeps what a large request took */
	r = open_common(agent, detach, ret_why);
	if (r < 0)
		return r;
	if (detach)
		return run_detach(agent);
	if (options->observe)
		r = refuse_to_replace(agent, ret_why);
	if (r == 0)
		r = open_agent(agent, ret_why);
	if (r < 0)
		return r;
	ps_log(LOG_NOTICE, "host %s, instance %s, store %s%s", options->host, options->instance,
	       options->store_url, options->observe ? ", observing only" : "");
	return sd_event_loop(agent->loop);
}

static int take_without(struct ps_agent_options *options, const char *part)
{
	if (strcmp(part, "dispatch") == 0)
		options->without_dispatch = true;
	else if (strcmp(part, "guard") == 0)
		options->without_guard = true;
	else if (strcmp(part, "hook") == 0)
		options->without_hooks = true;
	else
		return -EINVAL;
	return 0;
}

/* 0: go on; otherwise the exit code + 1. */
static int parse_options(int argc, char **argv, struct ps_agent_options *options, bool *detach)
{
	static const struct option longs[] = {
		{"host", required_argument, NULL, 'H'},
		{"store", required_argument, NULL, 's'},
		{"cgroup", required_argument, NULL, 'c'},
		{"instance", required_argument, NULL, 'i'},
		{"observe", no_argument, NULL, 'o'},
		{"detach", no_argument, NULL, 'd'},
		{"without", required_argument, NULL, 'w'},
		{"help", no_argument, NULL, 'h'},
		{"version", no_argument, NULL, 'V'},
		{NULL, 0, NULL, 0},
	};
	int option;

	while ((option = getopt_long(argc, argv, "hV", longs, NULL)) != -1) {
		switch (option) {
		case 'H':
			options->host = optarg;
			break;
		case 's':
			options->store_url = optarg;
			break;
		case 'c':
			options->cgroup_root = optarg;
			break;
		case 'i':
			options->instance = optarg;
			break;
		case 'o':
			options->observe = true;
			break;
		case 'd':
			*detach = true;
			break;
		case 'w':
			if (take_without(options, optarg) == 0)
				break;
			fprintf(stderr, "portsliced: --without takes dispatch, guard or hook\n");
			return EXIT_USE + 1;
		case 'h':
			fputs(help, stdout);
			return EXIT_SUCCESS + 1;
		case 'V':
			puts("portsliced " PS_VERSION);
			return EXIT_SUCCESS + 1;
		default:
			fprintf(stderr, "try `portsliced --help`\n");
			return EXIT_USE + 1;
		}
	}
	if (optind == argc && !strchr(options->instance, '/') && *options->instance)
		return 0;
	fprintf(stderr, "portsliced: unexpected argument; try `portsliced --help`\n");
	return EXIT_USE + 1;
}

int main(int argc, char **argv)
{
	ps_auto_mem char *why = NULL;
	char host[256] = "";
	struct ps_agent_options options = {
		.instance = "default",
		.host = host,
		.store_url = "sqlite:/var/lib/portslice/store.db",
		.cgroup_root = cgroup2_mount(),
	};
	bool detach = false;
	int r;

	(void)gethostname(host, sizeof(host) - 1);
	r = parse_options(argc, argv, &options, &detach);
	if (r > 0)
		return r - 1;
	r = run(&options, detach, &why);
	if (r >= 0)
		return EXIT_SUCCESS;
	ps_log(LOG_ERR, "%s", why ? why : strerror(-r));
	return EXIT_REFUSED;
}
