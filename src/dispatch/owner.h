/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * Who owns a port, and what becomes of packets for this host and for nobody.
 */
#ifndef PS_DISPATCH_OWNER_H
#define PS_DISPATCH_OWNER_H

#include "dispatch/send.h"

/* Whether and how a packet that nobody here expects may be answered, but for freshness and rate. */
PS_INLINE __u32 ps_decide_answer(const void *frame, const struct iphdr *ip, const void *end,
				 struct ps_verdict *v)
{
	if (v->flow.is_icmp || !ps_may_answer(ip->saddr))
		return PS_REASON_DROP_REJECT_NEVER;
	if (!v->came && ps_is_multicast(frame, end)) /* RFC 1122 §3.2.2 */
		return PS_REASON_DROP_REJECT_NEVER;
	if (v->flow.protocol == PS_PROTO_TCP)
		return ps_read_reset((const void *)((const __u8 *)ip + ip->ihl * 4), end,
				     v->ip_len - ip->ihl * 4, &v->reset);
	v->quote_len = (__u16)ps_quote_len(ip);
	return PS_UNDECIDED;
}

/* The rest of what an answer to nobody's port needs; by protocol. */
PS_INLINE __u32 ps_decide_reject(struct ps_frame *frame, const struct ps_dispatch_config *config,
				 struct ps_verdict *v)
{
	__u64 now_ns = ps_look_clock(frame);

	if (now_ns >= config->fresh_until_ns)
		return PS_REASON_DROP_REJECT_STALE;
	if (!ps_find_way_back(config, v))
		return PS_REASON_DROP_NO_HOP;
	if (!ps_look_budget(frame, PS_BUDGET_REJECT, now_ns, config->reject_per_s))
		return PS_REASON_DROP_REJECT_LIMIT;
	return v->flow.protocol == PS_PROTO_TCP ? PS_REASON_REJECT_TCP : PS_REASON_REJECT_ICMP;
}

PS_COLD __u32 ps_decide_unowned(struct ps_frame *frame, const struct iphdr *ip, const void *end,
				const struct ps_address *address, struct ps_verdict *v)
{
	const struct ps_dispatch_config *config = ps_look_config(frame);
	__u32 reason;

	if (!config || (ps_address_flags(address) & PS_ADDRESS_DROP))
		return PS_REASON_DROP_UNOWNED;
	if (v->came == PS_GUE_PORT)
		return PS_REASON_DROP_NO_STEPS;
	reason = ps_decide_answer(ps_frame_data(frame), ip, end, v);
	return reason != PS_UNDECIDED ? reason : ps_decide_reject(frame, config, v);
}

/* DELIVER, DELIVER_SERVICE, or PS_UNDECIDED: not expected. */
PS_COLD __u32 ps_decide_expected(struct ps_frame *frame, const struct ps_flow *flow)
{
	struct ps_service_key key = {flow->ours, flow->our_port, flow->protocol, 0};

	if (ps_look_claim(frame, flow))
		return PS_REASON_DELIVER;
	if (flow->protocol == PS_PROTO_ICMP)
		return PS_UNDECIDED;
	/* A published port has no known peers; an error about TCP must be about a connection. */
	if (!(flow->is_icmp && flow->protocol == PS_PROTO_TCP) && ps_look_service(frame, &key))
		return PS_REASON_DELIVER_SERVICE;
	if (flow->protocol == PS_PROTO_TCP && ps_look_socket(frame, flow))
		return PS_REASON_DELIVER;
	return PS_UNDECIDED;
}

/* The owner of the port, or NULL: nobody. */
PS_INLINE const struct ps_peer *
ps_find_owner(struct ps_frame *frame, const struct ps_address *address, struct ps_verdict *v)
{
	int slice = ps_slice_of(address, ps_be16(v->flow.our_port));
	const struct ps_owners *owners;
	const struct ps_group *group;
	__u8 slot;

	if (slice < 0)
		return (void *)0;
	owners = ps_look_owners(frame, address->row + (__u32)slice / PS_ROW_SLICES);
	group = ps_look_group(frame, address->group);
	if (!owners || !group)
		return (void *)0;
	slot = *(const volatile __u8 *)&owners->slot[slice % PS_ROW_SLICES];
	if (slot == PS_OWNER_NONE)
		return (void *)0;
	v->host = group->host[slot];
	return ps_look_host(frame, (__u32)v->host);
}

PS_INLINE __u32 ps_decide_owner(struct ps_frame *frame, const struct iphdr *ip, const void *end,
				const struct ps_address *address, struct ps_verdict *v)
{
	const struct ps_peer *owner = ps_find_owner(frame, address, v);
	__u32 reason;

	if (!owner)
		return ps_decide_unowned(frame, ip, end, address, v);
	if (owner->self) {
		reason = ps_decide_expected(frame, &v->flow);
		return reason != PS_UNDECIDED ? reason
					      : ps_decide_unowned(frame, ip, end, address, v);
	}
	if (!v->came)
		return ps_decide_send(frame, ip, v, owner, PS_GUE_PORT, PS_REASON_TO_HOST);
	if (v->came == PS_GUE_PORT)
		return PS_REASON_DROP_NO_STEPS;
	return ps_decide_send(frame, ip, v, owner, v->came + 1, PS_REASON_TO_HOST);
}

#endif
