// SPDX-License-Identifier: MIT
/*
 * Facts about uplinks that change what the dispatcher costs or sees.
 *
 *   generic mode  the kernel runs the program on socket buffers, after allocating them: correct, and
 *                 several times slower (the driver has no XDP)
 *   LRO           the card hands over several packets as one, which cannot be encapsulated; the kernel
 *                 switches it off for a program in generic mode (net/core/dev.c,
 *                 dev_disable_lro()), a native driver should refuse or do so too
 *   bond, team    a program on the master runs on its ports; one on a port excludes one on the master
 *                 (drivers/net/bonding/bond_main.c, bond_xdp_set()), and misses what the other
 *                 ports receive
 *
 * Nothing here is refused: an operator may know better.  It is said, by `portslice show uplinks`.
 */
#include "agent/uplink.h"

#include <errno.h>
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "base/own.h"

static const struct ps_net_link *find(const struct ps_net_link *links, size_t n, const char *ifname)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(links[i].name, ifname) == 0)
			return &links[i];
	return NULL;
}

static const struct ps_net_link *find_index(const struct ps_net_link *links, size_t n,
					    unsigned ifindex)
{
	for (size_t i = 0; ifindex && i < n; i++)
		if (links[i].ifindex == ifindex)
			return &links[i];
	return NULL;
}

void ps_uplink_find(const struct ps_net_link *links, size_t n, const char *ifname,
		    struct ps_uplink_facts *ret)
{
	const struct ps_net_link *link = find(links, n, ifname), *master;

	*ret = (struct ps_uplink_facts){.present = link != NULL};
	if (!link)
		return;
	memcpy(ret->kind, link->kind, sizeof(ret->kind));
	memcpy(ret->master_kind, link->slave_kind, sizeof(ret->master_kind));
	master = find_index(links, n, link->master);
	if (!master)
		return;
	memcpy(ret->master, master->name, sizeof(ret->master));
	if (!ret->master_kind[0])
		memcpy(ret->master_kind, master->kind, sizeof(ret->master_kind));
}

int ps_uplink_lro(const char *ifname, bool *ret)
{
	struct ethtool_value flags = {.cmd = ETHTOOL_GFLAGS};
	struct ifreq request = {.ifr_data = (void *)&flags};
	ps_auto_fd int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", ifname);
	*ret = ioctl(fd, SIOCETHTOOL, &request) == 0 && (flags.data & ETH_FLAG_LRO);
	return 0;
}

int ps_uplink_look(struct ps_net *net, const char *ifname, struct ps_uplink_facts *ret)
{
	ps_auto_mem struct ps_net_link *links = NULL;
	struct ps_uplink_facts facts;
	size_t n;
	int r = ps_net_links(net, &links, &n);

	if (r < 0)
		return r;
	ps_uplink_find(links, n, ifname, &facts);
	r = ps_uplink_lro(ifname, &facts.lro);
	if (r < 0)
		return r;
	*ret = facts;
	return 0;
}

static bool is_bond(const char *kind)
{
	return strcmp(kind, "bond") == 0 || strcmp(kind, "team") == 0;
}

const char *ps_uplink_note(const char *ifname, const struct ps_uplink_facts *facts,
			   enum ps_dispatch_mode mode, char ret[PS_UPLINK_NOTE_MAX])
{
	ret[0] = '\0';
	if (!facts->present)
		return strcpy(ret, "no such interface on this host");
	if (is_bond(facts->master_kind))
		snprintf(
			ret, PS_UPLINK_NOTE_MAX,
			"is a port of %s %s: name %s as uplink, or what its other ports receive is "
			"missed",
			facts->master_kind, facts->master, facts->master);
	else if (facts->lro)
		snprintf(ret, PS_UPLINK_NOTE_MAX,
			 "large receive offload merges packets, which then cannot be sent on: "
			 "ethtool -K %s lro off",
			 ifname);
	else if (mode == PS_MODE_GENERIC)
		snprintf(ret, PS_UPLINK_NOTE_MAX,
			 "%s has no native XDP: packets cost several times as much",
			 facts->kind[0] ? facts->kind : "its driver");
	return ret;
}
