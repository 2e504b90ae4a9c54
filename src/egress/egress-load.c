// SPDX-License-Identifier: MIT
#include <bpf/bpf.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "base/own.h"
#include "base/say.h"
#include "egress/inside.h"

enum { TAIL_LINES = 4 };

char *ps_egress_pin_path(const char *pin_dir, const char *name)
{
	char *path;

	return asprintf(&path, "%s/%s", pin_dir, name) < 0 ? NULL : path;
}

int ps_egress_mute(enum libbpf_print_level level, const char *format, va_list args)
{
	(void)level;
	(void)format;
	(void)args;
	return 0;
}

/* Identifies the network namespace of this process; Linux 5.14. */
static int read_netns_cookie(uint64_t *ret)
{
	ps_auto_fd int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	socklen_t len = sizeof(*ret);

	if (fd < 0 || getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, ret, &len) < 0)
		return -errno;
	return 0;
}

/* net.ipv4.tcp_fin_timeout of this network namespace, s. */
static int read_fin_timeout(uint32_t *ret_s)
{
	FILE *f = fopen("/proc/sys/net/ipv4/tcp_fin_timeout", "re");
	int n = f ? fscanf(f, "%" SCNu32, ret_s) : 0;

	if (f)
		(void)fclose(f);
	return n == 1 ? 0 : -EIO;
}

static int set_constants(struct ps_egress *egress, const struct ps_egress_config *config,
			 bool observe)
{
	struct ps_egress_hooks__rodata *hooks = egress->hooks->rodata;
	struct ps_egress_guard__rodata *guard = egress->guard->rodata;
	uint32_t fin_timeout_s;
	uint64_t cookie;
	int r = read_netns_cookie(&cookie);

	if (!r)
		r = read_fin_timeout(&fin_timeout_s);
	if (r < 0)
		return r;
	hooks->netns_cookie = cookie;
	hooks->fin_timeout_ns = fin_timeout_s * 1000000000ull;
	ps_egress_set_classes(egress, config);
	hooks->mss = config->mss;
	hooks->n_classes = (uint32_t)config->n_choices;
	hooks->n_services = (uint32_t)config->n_services;
	hooks->observe = observe;
	guard->n_classes = hooks->n_classes;
	guard->n_services = hooks->n_services;
	guard->observe = observe;
	return 0;
}

/* 1: there is no such pin, or its layout is ours; 0: it is another version's. */
static int fits(struct bpf_map *map, const char *path, char **ret_message)
{
	ps_auto_fd int fd = bpf_obj_get(path);
	struct bpf_map_info info = {0};
	uint32_t len = sizeof(info);

	if (fd < 0)
		return errno == ENOENT
			       ? 1
			       : ps_say(ret_message, -errno, "%s: %s", path, strerror(errno));
	if (bpf_obj_get_info_by_fd(fd, &info, &len) < 0)
		return -errno;
	return info.type == bpf_map__type(map) && info.key_size == bpf_map__key_size(map) &&
	       info.value_size == bpf_map__value_size(map) &&
	       info.max_entries == bpf_map__max_entries(map) &&
	       info.map_flags == bpf_map__map_flags(map);
}

static int pin_map(const struct ps_egress *egress, struct bpf_map *map, const char *name,
		   char **ret_message)
{
	ps_auto_mem char *path = ps_egress_pin_path(egress->pin_dir, name);
	int r = path ? fits(map, path, ret_message) : -ENOMEM;

	if (r == 0)
		r = ps_egress_aside_move(egress->pin_dir, name);
	return r < 0 ? r : bpf_map__set_pin_path(map, path);
}

/* Before the pins are compared. */
static int bound_memory(struct ps_egress *egress, const struct ps_egress_options *options)
{
	int r = 0;

	if (options->n_pages)
		r = bpf_map__set_max_entries(egress->hooks->maps.pages, options->n_pages);
	if (!r && options->n_wide_pages)
		r = bpf_map__set_max_entries(egress->hooks->maps.wide_pages, options->n_wide_pages);
	return r;
}

static int pin_maps(struct ps_egress *egress, char **ret_message)
{
	const struct {
		struct bpf_map *map;
		const char *name;
	} rows[] = {
		{egress->hooks->maps.pages, "pages"},
		{egress->hooks->maps.wide_pages, "wide-pages"},
		{egress->hooks->maps.drafts, "drafts"},
		{egress->hooks->maps.quarantine, "quarantine"},
		{egress->hooks->maps.uses, "uses"},
		{egress->hooks->maps.turnover, "turnover"},
		{egress->hooks->maps.suspects, "suspects"},
		{egress->hooks->maps.accusing, "accusing"},
		{egress->hooks->maps.sockets, "sockets"},
		{egress->hooks->maps.replies, "replies"},
		{egress->hooks->maps.pings, "pings"},
		{egress->hooks->maps.counters, "egress-counters"},
		{egress->hooks->maps.events, "events"},
	};

	for (size_t i = 0; i < PS_N_ELEMENTS(rows); i++) {
		int r = pin_map(egress, rows[i].map, rows[i].name, ret_message);

		if (r < 0)
			return r;
	}
	egress->takes_over = ps_egress_aside_waits(egress->pin_dir);
	return 0;
}

/* The guard reads the very maps of the hooks, found by name. */
static int share_maps(struct ps_egress *egress)
{
	struct bpf_map *map;

	bpf_object__for_each_map(map, egress->guard->obj)
	{
		const char *name = bpf_map__name(map);
		struct bpf_map *twin = bpf_object__find_map_by_name(egress->hooks->obj, name);
		int r;

		if (!twin || bpf_map__is_internal(map))
			continue;
		r = bpf_map__reuse_fd(map, bpf_map__fd(twin));
		if (r < 0)
			return r;
	}
	return 0;
}

/* The last lines of the verifier's log, where it says what it did not like. */
static const char *log_tail(const char *log)
{
	const char *at = log + strlen(log);

	for (unsigned n = 0; at > log && n <= TAIL_LINES; at--)
		n += at[-1] == '\n';
	return at > log ? at + 2 : log;
}

static int fail_load(const struct ps_egress *egress, int error, const char *what,
		     char **ret_message)
{
	if (*ret_message)
		return error;
	if (error == -EPERM)
		return ps_say(ret_message, error,
			      "loading the %s needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON", what);
	return ps_say(ret_message, error, "the kernel refused the %s: %s%s%s", what,
		      strerror(-error), *egress->log ? "; " : "", log_tail(egress->log));
}

static int open_objects(struct ps_egress *egress)
{
	LIBBPF_OPTS(bpf_object_open_opts, opts, .kernel_log_buf = egress->log,
		    .kernel_log_size = PS_EGRESS_LOG_LEN);

	egress->hooks = ps_egress_hooks__open_opts(&opts);
	egress->guard = ps_egress_guard__open_opts(&opts);
	return egress->hooks && egress->guard ? 0 : -errno;
}

static int load_objects(struct ps_egress *egress, char **ret_message)
{
	int r = pin_maps(egress, ret_message);

	if (!r)
		r = ps_egress_hooks__load(egress->hooks);
	if (r < 0)
		return fail_load(egress, r, "cgroup hooks", ret_message);
	egress->log[0] = '\0';
	r = share_maps(egress);
	if (!r)
		r = ps_egress_guard__load(egress->guard);
	return r < 0 ? fail_load(egress, r, "guard", ret_message) : 0;
}

static int on_event(void *arg, void *data, size_t len)
{
	const struct ps_egress *egress = arg;

	if (len >= sizeof(struct ps_egress_event) && egress->event_fn)
		egress->event_fn(data, egress->event_arg);
	return 0;
}

static int start(struct ps_egress *egress, const struct ps_egress_config *config,
		 const struct ps_egress_options *options, char **ret_message)
{
	int r;

	egress->log = calloc(1, PS_EGRESS_LOG_LEN);
	egress->pin_dir = strdup(options->pin_dir);
	egress->cgroup_path = strdup(options->cgroup_path ? options->cgroup_path : "");
	if (!egress->log || !egress->pin_dir || !egress->cgroup_path)
		return -ENOMEM;
	r = ps_class_sets_new(config, &egress->sets);
	if (!r)
		r = open_objects(egress);
	if (!r)
		r = set_constants(egress, config, options->observe);
	if (!r)
		r = ps_egress_size_maps(egress, config);
	if (!r)
		r = bound_memory(egress, options);
	if (!r)
		r = load_objects(egress, ret_message);
	if (!r)
		r = ps_egress_fill_maps(egress, config);
	if (r < 0)
		return *ret_message ? r : ps_say(ret_message, r, "outgoing path: %s", strerror(-r));
	ps_mem_drop(&egress->log);
	egress->log = NULL;
	ps_class_sets_free(&egress->sets);
	egress->ring =
		ring_buffer__new(bpf_map__fd(egress->hooks->maps.events), on_event, egress, NULL);
	return egress->ring ? 0 : -errno;
}

int ps_egress_load(const struct ps_egress_config *config, const struct ps_egress_options *options,
		   struct ps_egress **ret, char **ret_message)
{
	ps_auto(ps_egress_free) struct ps_egress *egress = calloc(1, sizeof(*egress));
	libbpf_print_fn_t print;
	int r;

	*ret_message = NULL;
	if (!egress)
		return -ENOMEM;
	if (access("/sys/kernel/btf/vmlinux", R_OK) < 0)
		return ps_say(ret_message, -ENOTSUP,
			      "this kernel has no BTF (/sys/kernel/btf/vmlinux): it needs "
			      "CONFIG_DEBUG_INFO_BTF");
	r = ps_egress_check(config, ret_message);
	if (r < 0)
		return r;
	print = libbpf_set_print(ps_egress_mute); /* a library does not write to stderr */
	r = start(egress, config, options, ret_message);
	libbpf_set_print(print);
	if (r < 0)
		return r;
	*ret = ps_move(egress);
	return 0;
}

void ps_egress_free(struct ps_egress **egress)
{
	struct ps_egress *e = *egress;

	if (!e)
		return;
	if (!e->attached && e->pin_dir)
		(void)ps_egress_aside_end(e->pin_dir, true);
	ring_buffer__free(e->ring);
	ps_egress_guard__destroy(e->guard);
	ps_egress_hooks__destroy(e->hooks);
	ps_class_sets_free(&e->sets);
	free(e->log);
	free(e->pin_dir);
	free(e->cgroup_path);
	free(e);
	*egress = NULL;
}
