// SPDX-License-Identifier: MIT
#include "rig.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/ethtool.h>
#include <linux/if_link.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <bpf/libbpf.h>

#include "base/own.h"
#include "rows.h"

int rig_enter(int ns)
{
	return setns(ns, CLONE_NEWNET) < 0 ? -errno : 0;
}

static int say(const char *what, int r)
{
	if (r < 0)
		fprintf(stderr, "weather: %s: %s\n", what, strerror(-r));
	return r;
}

static int shell(const char *command)
{
	return say(command, run(command) == 0 ? 0 : -EIO);
}

struct ps_hop rig_hop(const struct rig *rig, unsigned host, unsigned peer, unsigned k)
{
	unsigned char b = (unsigned char)k;

	return (struct ps_hop){{2, b, b, b, b, (unsigned char)peer},
			       {2, b, b, b, b, (unsigned char)host},
			       k & 1 ? rig->hosts[host].w : rig->hosts[host].u};
}

static int set_hops(const struct rig *rig, unsigned host, struct ps_table *table)
{
	const struct ps_ip zero = under(USUAL, SELF);
	const struct ps_hop edge = rig_hop(rig, host, 4, 0);
	int r = host ? ps_table_set_host(table, 0, &zero) : 0;

	if (r < 0 || fill_world(table, USUAL) + fill_world6(table) != 0)
		return r < 0 ? r : -EINVAL;
	for (unsigned peer = 0; peer <= 2; peer++) {
		const struct ps_hop hop = rig_hop(rig, host, peer, peer == 2);

		if (peer != host)
			ps_table_set_hop(table, peer, &hop);
	}
	ps_table_set_edge_hop(table, 1, &edge);
	return 0;
}

int rig_table(const struct rig *rig, unsigned host, struct ps_table **ret)
{
	const struct ps_table_self self = {under(USUAL, SELF + host), under(USUAL, EDGE), 0, host,
					   1500};
	ps_auto(ps_table_free) struct ps_table *table = NULL;
	int r = ps_table_new(&self, &table);

	if (r >= 0)
		r = set_hops(rig, host, table);
	if (r < 0)
		return r;
	table->config.gateway = table->config.gateway6 = rig_hop(rig, host, STORM_GATEWAY, 0);
	table->config.fresh_until_ns = UINT64_MAX;
	*ret = ps_move(table);
	return 0;
}

static int add_claim(const struct claims *claims, uint8_t protocol, unsigned our_port,
		     unsigned peer_port)
{
	struct ps_claim_key key = {.src = ps_ip16_v4(htonl(A)),
				   .dst = ps_ip16_v4(htonl(PEER)),
				   .sport = htons((uint16_t)our_port),
				   .dport = htons((uint16_t)peer_port),
				   .protocol = protocol,
				   .shift = 11};

	return claims_add(claims, &key);
}

/* Conversations with PEER of a port in each host's own slice. */
static int make_claims(struct rig_host *host, unsigned our_port)
{
	int r = claims_open(&host->claims);

	if (r < 0)
		return r;
	return add_claim(&host->claims, TCP, our_port, 443) |
	       add_claim(&host->claims, UDP, our_port, 443) |
	       add_claim(&host->claims, ICMP, our_port, 0);
}

/* The two veth pairs of a host; ends in its namespace. */
static int make_links(struct rig *rig, unsigned index)
{
	struct rig_host *host = &rig->hosts[index];
	char command[512];

	if (unshare(CLONE_NEWNET) < 0)
		return -errno;
	host->ns = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	if (host->ns < 0)
		return -errno;
	snprintf(command, sizeof(command),
		 "sysctl -qw net.ipv6.conf.default.disable_ipv6=1 && ip link set lo up && "
		 "ip addr add 2001:db8::1/128 dev lo nodad && "
		 "ip route add 2001:db8:ffff::/48 dev lo && "
		 "ip link add u type veth peer name g%u netns /proc/%d/fd/%d && "
		 "ip link add w type veth peer name x%u netns /proc/%d/fd/%d && "
		 "ethtool -K u gro off && ethtool -K w gro off && "
		 "ip link set u mtu 3000 up && ip link set w mtu 3000 up",
		 index, (int)getpid(), rig->here, index, (int)getpid(), rig->here);
	if (shell(command) < 0)
		return -EIO;
	host->u = if_nametoindex("u");
	host->w = if_nametoindex("w");
	return 0;
}

/* Counts and drops what the dispatcher lets through. */
static int cover_stack(const struct rig *rig, unsigned index, unsigned ifindex)
{
	const struct bpf_program *program =
		index ? rig->skel->progs.storm_stack1 : rig->skel->progs.storm_stack0;
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = (int)ifindex, .attach_point = BPF_TC_INGRESS);
	LIBBPF_OPTS(bpf_tc_opts, options, .prog_fd = bpf_program__fd(program));
	int r = bpf_tc_hook_create(&hook);

	return say("covering the stack", r < 0 ? r : bpf_tc_attach(&hook, &options));
}

/* In the host's namespace. */
static int attach(struct ps_dispatch *dispatch, char **ret_message)
{
	static const char *const uplinks[] = {"u", "w"};
	enum ps_dispatch_mode mode = PS_MODE_NATIVE;
	int r = 0;

	for (unsigned i = 0; r >= 0 && i < PS_N_ELEMENTS(uplinks); i++) {
		r = ps_dispatch_attach(dispatch, uplinks[i], &mode, ret_message);
		if (r >= 0 && mode != PS_MODE_NATIVE)
			r = -EOPNOTSUPP;
	}
	return r;
}

int rig_put(struct rig *rig, unsigned index, const struct ps_table *table, pthread_mutex_t *lock)
{
	struct rig_host *host = &rig->hosts[index];
	struct ps_dispatch_options options = {host->pin_dir, host->claims.pages_fd,
					      host->claims.wide_pages_fd, false};
	ps_auto(ps_dispatch_free) struct ps_dispatch *dispatch = NULL;
	ps_auto_mem char *message = NULL;
	struct ps_dispatch *old;
	int r = ps_dispatch_load(table, &options, &dispatch, &message);

	if (r >= 0)
		r = rig_enter(host->ns);
	if (r < 0)
		return say(message ? message : "dispatcher", r);
	if (lock)
		pthread_mutex_lock(lock);
	r = attach(dispatch, &message);
	if (r >= 0) {
		old = host->dispatch;
		host->dispatch = dispatch;
		dispatch = old; /* freed on the way out */
	}
	if (lock)
		pthread_mutex_unlock(lock);
	return r < 0 ? say(message ? message : "dispatcher", r) : rig_enter(rig->here);
}

static int open_host(struct rig *rig, unsigned index)
{
	struct rig_host *host = &rig->hosts[index];
	ps_auto(ps_table_free) struct ps_table *table = NULL;
	char name[32];
	int r = make_links(rig, index);

	if (r >= 0)
		r = cover_stack(rig, index, host->u);
	if (r >= 0)
		r = cover_stack(rig, index, host->w);
	snprintf(name, sizeof(name), "weather%u", index);
	if (r >= 0)
		r = make_pin_dir(name, host->pin_dir);
	if (r >= 0)
		r = make_claims(host, index ? FIRST : OWN);
	if (r >= 0)
		r = rig_table(rig, index, &table);
	return r < 0 ? r : rig_put(rig, index, table, NULL);
}

static int observe(struct rig *rig, unsigned port)
{
	char name[8], command[64];
	unsigned ifindex;
	LIBBPF_OPTS(bpf_link_create_opts, options, .flags = XDP_FLAGS_DRV_MODE);

	snprintf(name, sizeof(name), "%c%u", port & 1 ? 'x' : 'g', port / 2);
	snprintf(command, sizeof(command), "ip link set %s mtu 3000 up", name);
	ifindex = if_nametoindex(name);
	if (!ifindex || shell(command) < 0)
		return -ENODEV;
	rig->skel->bss->port_ifindex[port] = ifindex;
	/* Kept by the process until it ends, as the namespace is. */
	return bpf_link_create(bpf_program__fd(rig->skel->progs.storm_observe), (int)ifindex,
			       BPF_XDP, &options);
}

static int on_seen(void *arg, void *data, size_t len)
{
	const struct rig *rig = arg;

	(void)len;
	rig->judge(data, rig->judge_arg);
	return 0;
}

static int open_storm(struct rig *rig)
{
	size_t len = sizeof(struct storm_slot) * STORM_SLOTS;
	void *at;

	rig->skel = storm_bpf__open_and_load();
	if (!rig->skel)
		return -errno;
	at = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, bpf_map__fd(rig->skel->maps.slots),
		  0);
	if (at == MAP_FAILED)
		return -errno;
	rig->slots = at;
	rig->ring = ring_buffer__new(bpf_map__fd(rig->skel->maps.seen), on_seen, rig, NULL);
	return rig->ring ? 0 : -errno;
}

int rig_open(struct rig *rig)
{
	int r;

	*rig = (struct rig){.here = -1};
	for (unsigned i = 0; i < STORM_HOSTS; i++)
		rig->hosts[i] = (struct rig_host){.ns = -1, .claims = {-1, -1}};
	if (unshare(CLONE_NEWNET) < 0)
		return -errno;
	rig->here = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	r = rig->here < 0 ? -errno : shell("sysctl -qw net.ipv6.conf.default.disable_ipv6=1");
	if (r >= 0)
		r = say("loading the storm", open_storm(rig));
	for (unsigned i = 0; r >= 0 && i < STORM_HOSTS; i++)
		r = open_host(rig, i);
	for (unsigned i = 0; r >= 0 && i < STORM_PORTS; i++)
		r = say("observing", observe(rig, i));
	return r < 0 ? r : 0;
}

void rig_close(struct rig *rig)
{
	for (unsigned i = 0; i < STORM_HOSTS; i++) {
		struct rig_host *host = &rig->hosts[i];

		ps_dispatch_free(&host->dispatch);
		claims_close(&host->claims);
		ps_fd_drop(&host->ns);
		if (host->pin_dir[0])
			(void)ps_dispatch_detach_all(host->pin_dir);
		if (host->pin_dir[0])
			(void)rmdir(host->pin_dir);
	}
	ring_buffer__free(rig->ring);
	if (rig->slots)
		munmap(rig->slots, sizeof(struct storm_slot) * STORM_SLOTS);
	storm_bpf__destroy(rig->skel);
	ps_fd_drop(&rig->here);
}

int rig_send(const struct rig *rig, unsigned host, unsigned n)
{
	static const unsigned char blank[STORM_BYTES];
	struct xdp_md context = {.data_end = sizeof(blank),
				 .ingress_ifindex = rig->skel->bss->port_ifindex[2 * host]};
	LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = blank, .data_size_in = sizeof(blank),
		    .ctx_in = &context, .ctx_size_in = sizeof(context), .repeat = (int)n,
		    .flags = BPF_F_TEST_XDP_LIVE_FRAMES, .batch_size = 64);

	rig->skel->bss->next_slot = 0;
	return bpf_prog_test_run_opts(bpf_program__fd(rig->skel->progs.storm_source), &options);
}

int rig_look(const struct rig *rig)
{
	int r = ring_buffer__consume(rig->ring);

	return r < 0 ? r : 0;
}

int rig_traffic(int ns, const char *ifname, struct rig_traffic *ret)
{
	unsigned long long v[16];
	char line[512], name[32];
	int r = -ENODEV;
	FILE *file = rig_enter(ns) < 0 ? NULL : fopen("/proc/thread-self/net/dev", "re");

	while (file && fgets(line, sizeof(line), file)) {
		if (sscanf(line,
			   " %31[^:]: %llu %llu %llu %llu %llu %llu %llu %llu %llu %llu %llu %llu",
			   name, &v[0], &v[1], &v[2], &v[3], &v[4], &v[5], &v[6], &v[7], &v[8],
			   &v[9], &v[10], &v[11]) != 13 ||
		    strcmp(name, ifname) != 0)
			continue;
		*ret = (struct rig_traffic){v[1], v[3], v[9], v[11]};
		r = 0;
	}
	if (file)
		fclose(file);
	return r;
}

static int ask_ethtool(int fd, const char *ifname, void *what)
{
	struct ifreq request = {.ifr_data = what};

	snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", ifname);
	return ioctl(fd, SIOCETHTOOL, &request) < 0 ? -errno : 0;
}

static bool ends_with(const char *text, const char *suffix)
{
	size_t len = strlen(text), n = strlen(suffix);

	return len >= n && strcmp(text + len - n, suffix) == 0;
}

int rig_statistic(int ns, const char *ifname, const char *suffix, uint64_t *ret)
{
	enum { MOST = 4096 };
	ps_auto_mem struct ethtool_gstrings *names =
		calloc(1, sizeof(*names) + MOST * ETH_GSTRING_LEN);
	ps_auto_mem struct ethtool_stats *values =
		calloc(1, sizeof(*values) + MOST * sizeof(__u64));
	ps_auto_fd int fd = -1;
	int r = rig_enter(ns);

	*ret = 0;
	if (r < 0 || !names || !values)
		return r < 0 ? r : -ENOMEM;
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	names->cmd = ETHTOOL_GSTRINGS;
	names->string_set = ETH_SS_STATS;
	values->cmd = ETHTOOL_GSTATS;
	r = ask_ethtool(fd, ifname, names);
	values->n_stats = names->len < MOST ? names->len : MOST; /* any other gets nothing */
	if (r >= 0)
		r = ask_ethtool(fd, ifname, values);
	for (unsigned i = 0; r >= 0 && i < names->len && i < MOST; i++)
		if (ends_with((const char *)names->data + i * ETH_GSTRING_LEN, suffix))
			*ret += values->data[i];
	return r;
}
