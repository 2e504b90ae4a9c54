/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * The order of a dispatching decision (design.md §3) over the stages of steer.h, and what is then
 * done to the frame.  The file that includes this says where tables and frame are by defining the
 * functions of look.h: dispatch.bpf.c with maps and helpers, trace.c with struct ps_table and
 * a heap block.  So kernel, `portslice trace`, tests and fuzzer run the same lines.
 *
 *   frame --ps_decide--> verdict (frame untouched) --ps_carry_out--> frame changed, action
 */
#ifndef PS_DISPATCH_DECIDE_H
#define PS_DISPATCH_DECIDE_H

#include <linux/bpf.h>

#include "dispatch/carry.h"
#include "dispatch/look.h"

/* Encapsulates towards peer, if that is possible. */
PS_INLINE __u32 ps_decide_send(struct ps_verdict *v, const struct ps_peer *peer, __u32 port,
			       __u32 reason)
{
	v->peer = peer;
	v->goes = port;
	ps_hop_read(&peer->hop, &v->hop);
	if (!v->hop.ifindex)
		return PS_REASON_DROP_NO_HOP;
	if (v->ip_len + PS_OVERHEAD_V4 > peer->mtu)
		return PS_REASON_DROP_TOO_BIG;
	return reason;
}

/* The answer to what came encapsulated leaves by the gateway; 0: that is not resolved. */
PS_INLINE int ps_find_way_back(const struct ps_dispatch_config *config, struct ps_verdict *v)
{
	if (!v->came)
		return 1;
	ps_hop_read(&config->gateway, &v->hop);
	return v->hop.ifindex != 0;
}

/* Whether and how a packet that nobody here expects may be answered, but for freshness and rate. */
PS_INLINE __u32 ps_decide_answer(const void *frame, const struct iphdr *ip, const void *end,
				 struct ps_verdict *v)
{
	if (v->flow.is_icmp || !ps_may_answer(ip->saddr))
		return PS_REASON_DROP_REJECT_NEVER;
	if (!v->came && ps_is_multicast(frame, end)) /* RFC 1122 §3.2.2 */
		return PS_REASON_DROP_REJECT_NEVER;
	if (v->flow.protocol == PS_PROTO_TCP)
		return ps_read_reset(ip, end, &v->reset);
	v->quote_len = ps_quote_len(ip);
	return PS_UNDECIDED;
}

PS_COLD __u32 ps_decide_unowned(struct ps_frame *frame, const struct iphdr *ip, const void *end,
				const struct ps_address *address, struct ps_verdict *v)
{
	const struct ps_dispatch_config *config = ps_look_config(frame);
	__u32 reason;
	__u64 now_ns;

	if (!config || (ps_address_flags(address) & PS_ADDRESS_DROP))
		return PS_REASON_DROP_UNOWNED;
	if (v->came == PS_GUE_PORT)
		return PS_REASON_DROP_NO_STEPS;
	reason = ps_decide_answer(ps_frame_data(frame), ip, end, v);
	if (reason != PS_UNDECIDED)
		return reason;
	now_ns = ps_look_clock(frame);
	if (now_ns >= config->fresh_until_ns)
		return PS_REASON_DROP_REJECT_STALE;
	if (!ps_find_way_back(config, v))
		return PS_REASON_DROP_NO_HOP;
	if (!ps_look_budget(frame, PS_BUDGET_REJECT, now_ns, config->reject_per_s))
		return PS_REASON_DROP_REJECT_LIMIT;
	return v->flow.protocol == PS_PROTO_TCP ? PS_REASON_REJECT_TCP : PS_REASON_REJECT_ICMP;
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
		return ps_decide_send(v, owner, PS_GUE_PORT, PS_REASON_TO_HOST);
	if (v->came == PS_GUE_PORT)
		return PS_REASON_DROP_NO_STEPS;
	return ps_decide_send(v, owner, v->came + 1, PS_REASON_TO_HOST);
}

/* Sends to the site at which the address is, with the steps that port stands for. */
PS_INLINE __u32 ps_decide_site(struct ps_frame *frame, __u32 site, __u32 port, struct ps_verdict *v)
{
	const struct ps_peer *edge;

	if (v->came)
		return PS_REASON_DROP_OTHER_SITE;
	edge = ps_look_edge(frame, site);
	return edge ? ps_decide_send(v, edge, port, PS_REASON_TO_SITE) : PS_REASON_DROP_NO_HOP;
}

/* A ping is answered by the first host of the site where the address is: so it shows that the way
 * there works.  With header options an answer would have to copy some of them (RFC 1122
 * §3.2.2.6). */
PS_INLINE __u32 ps_decide_echo(struct ps_frame *frame, const struct iphdr *ip,
			       const struct ps_address *address, struct ps_verdict *v)
{
	const struct ps_dispatch_config *config = ps_look_config(frame);
	const void *data = ps_frame_data(frame), *end = ps_frame_end(frame);

	if (!config || (ps_address_flags(address) & PS_ADDRESS_SILENT))
		return PS_REASON_DROP_ECHO_REQUEST;
	if (address->site != config->site)
		return ps_decide_site(frame, address->site, PS_GUE_PORT - 1, v);
	if (v->came == PS_GUE_PORT)
		return PS_REASON_DROP_NO_STEPS;
	if (ip->ihl != 5 || !ps_may_answer(ip->saddr) || (!v->came && ps_is_multicast(data, end)))
		return PS_REASON_DROP_ECHO_REQUEST;
	if (!ps_find_way_back(config, v))
		return PS_REASON_DROP_NO_HOP;
	if (!ps_look_budget(frame, PS_BUDGET_ECHO, ps_look_clock(frame), config->reject_per_s))
		return PS_REASON_DROP_ANSWER_LIMIT;
	return PS_REASON_ECHO_REPLY;
}

/* What has no port of an owner, by v->reason. */
PS_COLD __u32 ps_decide_rare(struct ps_frame *frame, const struct iphdr *ip, const void *end,
			     const struct ps_address *address, struct ps_verdict *v)
{
	(void)end;
	return v->reason == PS_REASON_ECHO_REPLY ? ps_decide_echo(frame, ip, address, v)
						 : v->reason;
}

/* A packet to a shared address, as it came or decapsulated. */
PS_INLINE __u32 ps_decide_shared(struct ps_frame *frame, const struct iphdr *ip, const void *end,
				 const struct ps_address *address, struct ps_verdict *v)
{
	const struct ps_dispatch_config *config = ps_look_config(frame);
	__u32 reason = ps_check_ip(ip, end);

	v->site = address->site;
	if (reason == PS_UNDECIDED)
		reason = ps_read_flow(ip, end, &v->flow);
	v->ip_len = ps_be16(ip->tot_len);
	if (reason != PS_UNDECIDED) {
		v->reason = reason;
		return ps_decide_rare(frame, ip, end, address, v);
	}
	if (!config || address->site == config->site)
		return ps_decide_owner(frame, ip, end, address, v);
	/* One step: any host of that site may get it, and hands it to the owner. */
	return ps_decide_site(frame, address->site, PS_GUE_PORT - 1, v);
}

/* What may have been encapsulated for this host: UDP to one of its addresses. */
PS_COLD __u32 ps_decide_outer(struct ps_frame *frame, const struct iphdr *ip, const void *end,
			      struct ps_verdict *v)
{
	const struct ps_dispatch_config *config = ps_look_config(frame);
	const struct iphdr *inner;
	struct ps_address address;
	__u32 outer_len, reason;

	if (!config)
		return PS_REASON_NOT_OURS;
	v->came = ps_read_outer(ip, end, config, &outer_len);
	if (!v->came)
		return PS_REASON_NOT_OURS;
	if (!ps_look_source(frame, ip->saddr))
		return PS_REASON_DROP_STRANGER;
	inner = (const void *)((const __u8 *)ip + outer_len);
	if ((const void *)(inner + 1) > end)
		return PS_REASON_DROP_INNER;
	if (!ps_look_address(frame, inner->daddr, &address) || !ps_inner_fits(ip, inner))
		return PS_REASON_DROP_INNER;
	v->ip_off = v->l2_len + outer_len;
	reason = ps_decide_shared(frame, inner, end, &address, v);
	if (reason == PS_REASON_DROP_HEADER || reason == PS_REASON_DROP_TRUNCATED)
		return PS_REASON_DROP_INNER;
	return reason;
}

PS_INLINE void ps_verdict_clear(struct ps_verdict *v, __u32 l2_len)
{
	*v = (struct ps_verdict){.reason = PS_REASON_NOT_OURS,
				 .site = -1,
				 .host = -1,
				 .l2_len = l2_len,
				 .ip_off = l2_len};
}

/* The frame is only read.  Of *v reason, site and host are set, and the rest if not NOT_OURS: a
 * packet that is not for us should not pay for it. */
PS_INLINE void ps_decide(struct ps_frame *frame, struct ps_verdict *v)
{
	const void *data = ps_frame_data(frame), *end = ps_frame_end(frame);
	__u32 l2_len = ps_find_ip(data, end);
	const struct iphdr *ip = (const void *)((const __u8 *)data + l2_len);
	struct ps_address address;

	v->reason = PS_REASON_NOT_OURS;
	v->site = v->host = -1;
	if (!l2_len || (const void *)(ip + 1) > end)
		return;
	if (ps_look_address(frame, ip->daddr, &address)) {
		ps_verdict_clear(v, l2_len);
		v->reason = ps_decide_shared(frame, ip, end, &address, v);
	} else if (ip->protocol == PS_PROTO_UDP) {
		ps_verdict_clear(v, l2_len);
		v->reason = ps_decide_outer(frame, ip, end, v);
	}
}

#endif
