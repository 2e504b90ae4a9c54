/* SPDX-License-Identifier: MIT */
/*
 * The dispatcher's tables in memory, exactly as the kernel's maps will hold them.  Built from plain
 * arguments, read by the loader, by `portslice trace`, by tests and the fuzzer.
 */
#ifndef PS_DISPATCH_TABLE_H
#define PS_DISPATCH_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/ip.h"
#include "dispatch/abi.h"

struct ps_table_self {
	struct ps_ip underlay, edge; /* edge: all zero at a single site */
	unsigned site, host;
	unsigned mtu; /* of the underlay path, bytes of outer packet */
};

/* All arrays have element 0 reserved as "none" where abi.h says so; n_ counts elements. */
struct ps_table {
	struct ps_dispatch_config config;
	__u32 index[65536];        /* by dst >> 16: block number, 0: none */
	struct ps_index6 *index6;  /* 1 << config.index6_bits, if that is not 0 */
	struct ps_address *blocks; /* n_blocks * 256, one for each /24 or /120; bits 0: none */
	size_t n_blocks;
	struct ps_address *addresses; /* n_address_blocks * 256; bits 0: not shared */
	size_t n_address_blocks;
	struct ps_owners *owners;
	size_t n_owners;
	struct ps_peer *peers; /* of n_groups, PS_GROUP_SIZE each */
	struct ps_peer6 *peers6;
	size_t n_peers;
	struct ps_service_key *services;
	size_t n_services;
	struct ps_ip *hosts; /* underlay addresses by number; all zero: no such host */
	size_t n_hosts;
	struct ps_table_self self; /* as given to ps_table_new() */
	__u16 group;               /* of the own site's hosts, 0: none yet */
};

struct ps_table_address {
	struct ps_ip ip;
	unsigned site;
	unsigned shift; /* PS_SHIFT_WHOLE for a whole address */
	bool drop;      /* pool policy for unowned ports */
	bool silent;    /* and for pings */
};

/* -EINVAL: host or site beyond PS_HOSTS_MAX or PS_SITES_MAX; so say the others too. */
int ps_table_new(const struct ps_table_self *self, struct ps_table **ret);
void ps_table_free(struct ps_table **table);
/* Site `site` is reached at `edge`.  Index order need not be followed. */
int ps_table_set_site(struct ps_table *table, unsigned site, const struct ps_ip *edge);
/* Before the host owns anything. */
int ps_table_set_host(struct ps_table *table, unsigned host, const struct ps_ip *underlay);
/* Makes the address shared, all its slices nobody's.  -EEXIST: it already is. */
int ps_table_add_address(struct ps_table *table, const struct ps_table_address *address);
/* -ENOENT: not shared; -ERANGE: no such slice, or one below port 1,024; -EINVAL: no such host;
 * -ENOSPC: more than 254 hosts own slices of addresses at the own site, whose hosts form a group.
 * Owners of addresses at other sites are not kept: their sites know. */
int ps_table_set_owner(struct ps_table *table, const struct ps_ip *ip, unsigned slice,
		       unsigned host);
int ps_table_add_service(struct ps_table *table, const struct ps_ip *ip, uint16_t port,
			 uint8_t protocol);
/* The next hop to a host or edge, where no kernel says it. */
void ps_table_set_hop(struct ps_table *table, unsigned host, const struct ps_hop *hop);
void ps_table_set_edge_hop(struct ps_table *table, unsigned site, const struct ps_hop *hop);

/* Longest packet that fits an outer one of mtu bytes; 0: none, or the peer is this host. */
__u16 ps_peer_room(unsigned kind, unsigned mtu);

/* True when the address is shared. */
bool ps_table_find(const struct ps_table *table, const struct ps_ip *ip, struct ps_address *ret);
/* True for the underlay of a host: encapsulated packets are believed from these only. */
bool ps_table_is_source(const struct ps_table *table, const struct ps_ip *ip);

#endif
