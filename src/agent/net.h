/* SPDX-License-Identifier: MIT */
/*
 * The host's links, routes and neighbours over rtnetlink, by libmnl.  MAC addresses are six bytes as
 * on the wire.
 */
#ifndef PS_AGENT_NET_H
#define PS_AGENT_NET_H

#include <net/if.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/ip.h"

struct ps_net;

enum { PS_NET_KIND_MAX = 16 };

struct ps_net_link {
	unsigned ifindex;
	char name[IF_NAMESIZE];
	uint8_t mac[6];
	bool loopback;
	unsigned master;            /* ifindex of the bond, team or bridge it is in; 0: none */
	char kind[PS_NET_KIND_MAX]; /* IFLA_INFO_KIND: "bond", "veth"; empty: hardware */
	char slave_kind[PS_NET_KIND_MAX]; /* IFLA_INFO_SLAVE_KIND: that of its master */
};

/* Where a packet would go: the interface and the neighbour (gateway, or the destination itself).
 * The gateway of an IPv4 route may be an IPv6 neighbour (RFC 8950), and link-local. */
struct ps_net_route {
	unsigned ifindex;
	struct ps_ip next;
};

int ps_net_open(struct ps_net **ret);
void ps_net_close(struct ps_net **net);

/* Readable when a link, route or neighbour of this namespace changed. */
int ps_net_monitor_fd(const struct ps_net *net);
/* Empties the monitor; true when anything was heard (or lost: then all must be read anew). */
bool ps_net_monitor_drain(struct ps_net *net);

struct nlmsghdr;
/* What a message RTM_NEWLINK says. */
void ps_net_read_link(const struct nlmsghdr *header, struct ps_net_link *ret);
/* All links; the caller frees *ret. */
int ps_net_links(struct ps_net *net, struct ps_net_link **ret, size_t *ret_n);
/* The kernel's choice for dst; oif 0: any interface.  -ENETUNREACH and its kin: no route. */
int ps_net_route(struct ps_net *net, const struct ps_ip *dst, unsigned oif,
		 struct ps_net_route *ret);
/* -ENOENT: not resolved.  1: known, but for long not confirmed. */
int ps_net_neighbour(struct ps_net *net, unsigned ifindex, const struct ps_ip *ip,
		     uint8_t ret_mac[6]);
/* Has the kernel resolve or confirm the neighbour, as traffic to it would; does not wait. */
int ps_net_solicit(struct ps_net *net, unsigned ifindex, const struct ps_ip *ip);
/* The addresses of all routes made by the next call, by whomever; the caller frees *ret. */
int ps_net_local_routes(struct ps_net *net, struct ps_ip **ret, size_t *ret_n);
/* Adds or removes `local ADDRESS dev lo`.  Adding twice and removing what is not there succeed.
 * -EACCES: IPv6 is disabled on the loopback device. */
int ps_net_local_route(struct ps_net *net, const struct ps_ip *ip, bool add);

#endif
