/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * Being refused at once.  A walk that met full pages only is remembered with a stamp: how many ports
 * had been given back when it began.  As long as none was given back since, the next walk towards
 * that peer would end the same way, and need not be walked.
 *
 * Given back are counted by a hash of the peer, after the port is free, so whoever sees the old
 * count may say full: the release is not done yet.  Counted in one place for all peers is what
 * never was a claim: a permit taken in passing, for which a page may have looked full.
 */
#ifndef PS_EGRESS_FULL_BPF_H
#define PS_EGRESS_FULL_BPF_H

#include <linux/bpf.h>
#include <linux/errno.h>
#include <linux/types.h>
#include <bpf/bpf_helpers.h>

#include "egress/abi.h"
#include "egress/page.h"

/* Outlives a generation: programs of two give ports back while one replaces the other. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, PS_TURNOVER_MAX);
	__type(key, __u32);
	__type(value, struct ps_turnover);
} turnover SEC(".maps");

struct ps_refused {
	union ps_ip16 dst;
	__u32 first, n; /* the choice */
	__be16 dport;
	__u8 protocol;
	__u8 pad;
};

/* Value: the stamp.  Of one generation, since choices are. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct ps_refused);
	__type(value, __u64);
} refused SEC(".maps");

/* User space adds one after each change of map `leases`: what did not serve may serve now. */
__u64 n_lease_changes;

static __always_inline struct ps_turnover *turnover_at(__u32 i)
{
	return bpf_map_lookup_elem(&turnover, &i);
}

static __always_inline struct ps_turnover *turnover_of(const struct ps_claim_key *flow)
{
	return turnover_at(ps_peer_hash(flow) & (PS_TURNOVER_ANY - 1));
}

static __always_inline void turnover_add(struct ps_turnover *at)
{
	if (at)
		__sync_fetch_and_add(&at->n_given_back, 1);
}

static __always_inline void ps_full_given_back(const struct ps_claim_key *flow)
{
	turnover_add(turnover_of(flow));
}

static __always_inline void ps_full_undone(void)
{
	turnover_add(turnover_at(PS_TURNOVER_ANY));
}

/* Never 0. */
static __always_inline __u64 ps_full_stamp(const struct ps_turnover *peer)
{
	struct ps_turnover *any = turnover_at(PS_TURNOVER_ANY);
	__u64 changes = *(volatile __u64 *)&n_lease_changes;

	return 1 + changes + *(volatile __u64 *)&peer->n_given_back +
	       (any ? *(volatile __u64 *)&any->n_given_back : 0);
}

static __always_inline struct ps_refused refused_key(const struct ps_claim_key *flow, __u32 first,
						     __u32 n)
{
	return (struct ps_refused){.dst = flow->dst,
				   .first = first,
				   .n = n,
				   .dport = flow->dport,
				   .protocol = flow->protocol};
}

/* 1: no port of the choice [first, first + n) is free towards flow's peer.  Else 0, and
 * *ret_stamp is what to note if a walk that begins now finds that out. */
__noinline int ps_full_known(const struct ps_claim_key *flow, __u32 first, __u32 n,
			     __u64 *ret_stamp)
{
	struct ps_turnover *peer;
	struct ps_refused key;
	__u64 stamp, *noted;

	if (!flow || !ret_stamp)
		return 0;
	peer = turnover_of(flow);
	if (!peer)
		return 0;
	stamp = ps_full_stamp(peer);
	*ret_stamp = stamp;
	if (*(volatile __u64 *)&peer->full_at != stamp)
		return 0;
	key = refused_key(flow, first, n);
	noted = bpf_map_lookup_elem(&refused, &key);
	return noted && *noted == stamp;
}

/* The walk that began with this stamp met full pages only. */
__noinline int ps_full_note(const struct ps_claim_key *flow, __u32 first, __u32 n, __u64 stamp)
{
	struct ps_turnover *peer;
	struct ps_refused key;

	if (!flow)
		return -EINVAL;
	key = refused_key(flow, first, n);
	bpf_map_update_elem(&refused, &key, &stamp, BPF_ANY);
	peer = turnover_of(flow);
	if (peer)
		*(volatile __u64 *)&peer->full_at = stamp;
	return 0;
}

#endif
