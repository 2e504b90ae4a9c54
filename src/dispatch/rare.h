/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * Packets to a shared address that have no port of an owner: pings, fragments; and ICMP about what this
 * host encapsulated.
 */
#ifndef PS_DISPATCH_RARE_H
#define PS_DISPATCH_RARE_H

#include "dispatch/owner.h"
#include "dispatch/steer-fragment.h"

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
		return ps_decide_site(frame, ip, address->site, PS_GUE_PORT - 1, v);
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

/* A first fragment tells whose its packet is. */
PS_INLINE __u32 ps_decide_first(struct ps_frame *frame, const struct iphdr *ip, const void *end,
				const struct ps_address *address, struct ps_verdict *v)
{
	__u32 reason = ps_read_flow(ip, end, &v->flow);
	const struct ps_peer *owner;

	if (reason != PS_UNDECIDED) /* to answer a ping, all of it would be needed */
		return reason == PS_REASON_ECHO_REPLY ? PS_REASON_DROP_ECHO_REQUEST : reason;
	owner = ps_find_owner(frame, address, v);
	reason = owner && owner->self ? ps_decide_expected(frame, &v->flow) : PS_UNDECIDED;
	if (reason != PS_UNDECIDED || (owner && !owner->self))
		return reason;
	/* What a RST acknowledges is the length of the whole segment. */
	return v->flow.protocol == PS_PROTO_TCP ? PS_REASON_DROP_REJECT_NEVER
						: ps_decide_unowned(frame, ip, end, address, v);
}

/* On to the owner, v->host, or to the local stack, which reassembles. */
PS_INLINE __u32 ps_decide_gathered(struct ps_frame *frame, const struct iphdr *ip,
				   struct ps_verdict *v)
{
	const struct ps_peer *owner = ps_look_host(frame, (__u32)v->host);

	if (!owner)
		return PS_REASON_DROP_STRAY;
	if (owner->self)
		return PS_REASON_DELIVER;
	if (v->came == PS_GUE_PORT)
		return PS_REASON_DROP_NO_STEPS;
	v->flow.our_port = v->flow.peer_port = 0; /* all fragments take one path */
	return ps_decide_send(frame, ip, v, owner, PS_GUE_PORT, PS_REASON_TO_HOST);
}

/* This host gathers the fragments of the packet, or owns its port. */
PS_COLD __u32 ps_decide_gather(struct ps_frame *frame, const struct iphdr *ip, const void *end,
			       const struct ps_address *address, struct ps_verdict *v)
{
	struct ps_fragment_key key = ps_fragment_key(ip);
	__u64 now_ns = ps_look_clock(frame);
	__u32 reason;

	if (ps_fragment_offset(ip)) {
		v->host = ps_look_fragment(frame, &key, now_ns);
		return v->host < 0 ? PS_REASON_DROP_STRAY : ps_decide_gathered(frame, ip, v);
	}
	reason = ps_decide_first(frame, ip, end, address, v);
	if (reason == PS_UNDECIDED)
		reason = ps_decide_gathered(frame, ip, v);
	if (reason == PS_REASON_TO_HOST || reason == PS_REASON_SPLIT ||
	    reason == PS_REASON_DELIVER || reason == PS_REASON_DELIVER_SERVICE)
		ps_note_fragment(frame, &key, (__u32)v->host, now_ns);
	return reason;
}

/* Two steps to another site: its gatherer, the owner; one to the gatherer; none to the owner. */
PS_COLD __u32 ps_decide_fragment(struct ps_frame *frame, const struct iphdr *ip, const void *end,
				 const struct ps_address *address, struct ps_verdict *v)
{
	const struct ps_dispatch_config *config = ps_look_config(frame);
	struct ps_fragment_key key = ps_fragment_key(ip);
	const struct ps_peer *gatherer;

	if (!ps_has_ports(ip->protocol))
		return PS_REASON_DROP_PROTOCOL;
	if (!config || !ps_fragment_is_sound(ip))
		return PS_REASON_DROP_FRAGMENT;
	v->flow = (struct ps_flow){ip->daddr, ip->saddr, 0, 0, ip->protocol, 0};
	if (address->site != config->site)
		return ps_decide_site(frame, ip, address->site, PS_GUE_PORT - 2, v);
	if (v->came >= PS_GUE_PORT - 1) /* whoever sent it counts on this host */
		return ps_decide_gather(frame, ip, end, address, v);
	v->host = ps_look_gatherer(frame, address->group, ps_fragment_hash(&key));
	gatherer = ps_look_host(frame, (__u32)v->host);
	if (!gatherer)
		return PS_REASON_DROP_NO_HOP;
	if (gatherer->self)
		return ps_decide_gather(frame, ip, end, address, v);
	return ps_decide_send(frame, ip, v, gatherer, PS_GUE_PORT - 1, PS_REASON_TO_GATHERER);
}

/* What has no port of an owner, by v->reason. */
PS_COLD __u32 ps_decide_rare(struct ps_frame *frame, const struct iphdr *ip, const void *end,
			     const struct ps_address *address, struct ps_verdict *v)
{
	if (v->reason == PS_REASON_ECHO_REPLY)
		return ps_decide_echo(frame, ip, address, v);
	if (v->reason == PS_REASON_DROP_FRAGMENT)
		return ps_decide_fragment(frame, ip, end, address, v);
	return v->reason;
}

/* ICMP to this host: about a packet that it encapsulated?  The kernel has no socket for those. */
PS_COLD __u32 ps_decide_hint(struct ps_frame *frame, const struct iphdr *ip, const void *end,
			     const struct ps_dispatch_config *config)
{
	struct ps_mtu_hint hint;

	if (!ps_read_hint(ip, end, config->underlay, &hint))
		return PS_REASON_NOT_OURS;
	if (ps_look_budget(frame, PS_BUDGET_HINT, ps_look_clock(frame), PS_HINTS_PER_S))
		ps_frame_hint(frame, &hint);
	return PS_REASON_MTU_HINT;
}

#endif
