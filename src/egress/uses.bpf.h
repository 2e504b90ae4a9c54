/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * How many peers each port of an exclusive block is used towards.  bind() cannot know to whom a socket
 * will be connected, so it draws ports first that are used towards nobody: connect() then never finds
 * them taken.
 *
 * The ledger alone cannot tell, since each peer has pages of its own.  Claims that are counted say so
 * in their flow, so that each is counted once and ends once.
 */
#ifndef PS_EGRESS_USES_BPF_H
#define PS_EGRESS_USES_BPF_H

#include <linux/bpf.h>
#include <linux/errno.h>
#include <linux/types.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "egress/abi.h"

/* Elements come with the first claim, and stay: 1 KiB an address and protocol. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, PS_USES_MAX);
	__type(key, struct ps_uses_key);
	__type(value, struct ps_uses);
} uses SEC(".maps");

/* A new element, since it is too large for the stack. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct ps_uses);
} no_uses SEC(".maps");

static __always_inline struct ps_uses *ps_uses_find(const struct ps_claim_key *flow, int makes)
{
	struct ps_uses_key key = {.address = flow->src,
				  .block = bpf_ntohs(flow->sport) / PS_EXCLUSIVE_MAX,
				  .protocol = flow->protocol};
	struct ps_uses *found = bpf_map_lookup_elem(&uses, &key), *none;
	__u32 zero = 0;

	if (found || !makes)
		return found;
	none = bpf_map_lookup_elem(&no_uses, &zero);
	if (!none)
		return NULL;
	bpf_map_update_elem(&uses, &key, none, BPF_NOEXIST);
	return bpf_map_lookup_elem(&uses, &key);
}

/* Before the socket's claim without a peer is given up.  -ENOMEM: it is not counted. */
__noinline int ps_uses_begin(struct ps_claim_key *flow)
{
	struct ps_uses *found = flow ? ps_uses_find(flow, 1) : NULL;

	if (!found)
		return -ENOMEM;
	__sync_fetch_and_add(&found->n[bpf_ntohs(flow->sport) % PS_EXCLUSIVE_MAX], 1);
	flow->is_counted = 1;
	return 0;
}

static __always_inline void ps_uses_end(const struct ps_claim_key *flow)
{
	struct ps_uses *found = flow->is_counted ? ps_uses_find(flow, 0) : NULL;

	if (found)
		__sync_fetch_and_sub(&found->n[bpf_ntohs(flow->sport) % PS_EXCLUSIVE_MAX], 1);
}

/* A claim without a holder has ended, of which nobody can say whether it was counted. */
static __always_inline void ps_uses_guess(const struct ps_claim_key *flow)
{
	struct ps_uses *found = ps_uses_find(flow, 0);
	__u32 *n, was;

	if (!found || ps_ip16_is_zero(&flow->dst))
		return;
	n = &found->n[bpf_ntohs(flow->sport) % PS_EXCLUSIVE_MAX];
	was = *(volatile __u32 *)n;
	if (was)
		__sync_val_compare_and_swap(n, was, was - 1);
}

/* How far the next port that is used towards nobody is, from flow's on; PS_EXCLUSIVE_MAX: there is
 * none in the block. */
__noinline int ps_uses_skip(const struct ps_claim_key *flow)
{
	struct ps_uses *found = flow ? ps_uses_find(flow, 0) : NULL;
	__u32 first;

	if (!found)
		return 0;
	first = bpf_ntohs(flow->sport) % PS_EXCLUSIVE_MAX;
	for (__u32 i = first; i < PS_EXCLUSIVE_MAX; i++) {
		__u32 at = i;

		__asm__ volatile("" : "+r"(at)); /* else the verifier loses its bound */
		if (!*(volatile __u32 *)&found->n[at % PS_EXCLUSIVE_MAX])
			return (int)(i - first);
	}
	return PS_EXCLUSIVE_MAX;
}

#endif
