/* SPDX-License-Identifier: MIT */
/*
 * What an uplink is, as far as it bears on a program that runs before the stack: offloads that merge
 * packets, and bonds, where master and ports compete for the program.
 */
#ifndef PS_AGENT_UPLINK_H
#define PS_AGENT_UPLINK_H

#include "agent/net.h"
#include "dispatch/dispatch.h"

struct ps_uplink_facts {
	bool present, lro;
	char kind[PS_NET_KIND_MAX]; /* "bond", "team", "veth", "vlan"; empty: hardware */
	char master[IF_NAMESIZE];   /* empty: none */
	char master_kind[PS_NET_KIND_MAX];
};

enum { PS_UPLINK_NOTE_MAX = 256 };

/* From links of one namespace; lro stays false. */
void ps_uplink_find(const struct ps_net_link *links, size_t n, const char *ifname,
		    struct ps_uplink_facts *ret);
/* Does the interface merge packets in hardware (LRO)?  Asks by SIOCETHTOOL; a driver that cannot say
 * does not.  -errno when there is no socket to ask by. */
int ps_uplink_lro(const char *ifname, bool *ret);
/* Both, of this namespace. */
int ps_uplink_look(struct ps_net *net, const char *ifname, struct ps_uplink_facts *ret);
/* What an operator should know and do; empty: all is well. */
const char *ps_uplink_note(const char *ifname, const struct ps_uplink_facts *facts,
			   enum ps_dispatch_mode mode, char ret[PS_UPLINK_NOTE_MAX]);

#endif
