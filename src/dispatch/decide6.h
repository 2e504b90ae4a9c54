/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * The order of a decision about IPv6, as decide.h for IPv4: off the hot path of that.
 */
#ifndef PS_DISPATCH_DECIDE6_H
#define PS_DISPATCH_DECIDE6_H

#include "dispatch/owner.h"

/* As ps_decide_unowned(). */
PS_COLD __u32 ps_decide_unowned6(struct ps_frame *frame, const struct ps_ip6 *ip, __u32 l4_off,
				 const struct ps_address *address, struct ps_verdict *v)
{
	const struct ps_dispatch_config *config = ps_look_config(frame);
	const void *end = ps_frame_end(frame);
	const struct tcphdr *tcp = (const void *)((const __u8 *)ip + (l4_off & 0x3fff));
	__u32 reason;

	if (!config || (ps_address_flags(address) & PS_ADDRESS_DROP))
		return PS_REASON_DROP_UNOWNED;
	if (v->came == PS_GUE_PORT)
		return PS_REASON_DROP_NO_STEPS;
	if (v->flow.is_icmp || !ps_may_answer6(ip) ||
	    (!v->came && ps_is_multicast(ps_frame_data(frame), end)))
		return PS_REASON_DROP_REJECT_NEVER;
	if (v->flow.protocol == PS_PROTO_TCP) {
		reason = ps_read_reset(tcp, end, v->ip_len - l4_off, &v->reset);
		if (reason != PS_UNDECIDED)
			return reason;
	}
	v->quote_len = (__u16)ps_quote_len6(v->ip_len);
	return ps_decide_reject(frame, config, v);
}

/* A ping without extension headers is answered; see ps_decide_echo(). */
PS_COLD __u32 ps_decide_echo6(struct ps_frame *frame, const struct ps_ip6 *ip,
			      const struct ps_address *address, struct ps_verdict *v)
{
	const struct ps_dispatch_config *config = ps_look_config(frame);

	if (!config || (ps_address_flags(address) & PS_ADDRESS_SILENT))
		return PS_REASON_DROP_ECHO_REQUEST;
	if (address->site != config->site)
		return ps_decide_site(frame, (const void *)ip, address->site, PS_GUE_PORT - 1, v);
	if (v->came == PS_GUE_PORT)
		return PS_REASON_DROP_NO_STEPS;
	if (ip->next != PS_PROTO_ICMP6 || !ps_may_answer6(ip) ||
	    (!v->came && ps_is_multicast(ps_frame_data(frame), ps_frame_end(frame))))
		return PS_REASON_DROP_ECHO_REQUEST;
	if (!ps_find_way_back(config, v))
		return PS_REASON_DROP_NO_HOP;
	if (!ps_look_budget(frame, PS_BUDGET_ECHO, ps_look_clock(frame), config->reject_per_s))
		return PS_REASON_DROP_ANSWER_LIMIT;
	return PS_REASON_ECHO_REPLY;
}

/* An ICMPv6 error is expected if the conversation with the destination of its quote is. */
PS_INLINE __u32 ps_decide_expected6(struct ps_frame *frame, const struct ps_ip6 *ip, __u32 l4_off,
				    struct ps_verdict *v)
{
	const struct ps_ip6 *sent =
		(const void *)((const __u8 *)ip + (l4_off & 0x3fff) + sizeof(struct ps_icmp));

	if (v->flow.is_icmp != PS_IS_ERROR)
		return ps_look_expected6(frame, ip->dst, ip->src, &v->flow);
	if ((const void *)(sent + 1) > ps_frame_end(frame))
		return PS_REASON_DROP_TRUNCATED;
	return ps_look_expected6(frame, ip->dst, sent->dst, &v->flow);
}

PS_INLINE __u32 ps_decide_owner6(struct ps_frame *frame, const struct ps_ip6 *ip, __u32 l4_off,
				 const struct ps_address *address, struct ps_verdict *v)
{
	const struct ps_peer *owner = ps_find_owner(frame, address, v);
	__u32 reason = PS_UNDECIDED;

	if (owner && !owner->self) {
		if (v->came == PS_GUE_PORT)
			return PS_REASON_DROP_NO_STEPS;
		return ps_decide_send(frame, (const void *)ip, v, owner,
				      v->came ? v->came + 1 : PS_GUE_PORT, PS_REASON_TO_HOST);
	}
	if (owner)
		reason = ps_decide_expected6(frame, ip, l4_off, v);
	return reason != PS_UNDECIDED ? reason : ps_decide_unowned6(frame, ip, l4_off, address, v);
}

/* A packet to a shared address, as it came or decapsulated. */
PS_COLD __u32 ps_decide_shared6(struct ps_frame *frame, const struct ps_ip6 *ip, const void *end,
				const struct ps_address *address, struct ps_verdict *v)
{
	const struct ps_dispatch_config *config = ps_look_config(frame);
	__u32 reason = ps_check_ip6(ip, end);
	struct ps_walk walk;

	v->is_v6 = 1;
	v->site = address->site;
	v->ip_len = sizeof(*ip) + ps_be16(ip->payload_len);
	if (reason == PS_UNDECIDED)
		reason = ps_walk6(ip, end, v->ip_len, &walk);
	if (reason != PS_UNDECIDED)
		return reason;
	if (walk.is_fragment)
		return PS_REASON_DROP_FRAGMENT;
	reason = ps_read_flow6(ip, end, &walk, &v->flow);
	if (reason == PS_REASON_ECHO_REPLY)
		return ps_decide_echo6(frame, ip, address, v);
	if (reason == PS_REASON_NOT_OURS && v->came)
		return PS_REASON_DROP_ICMP_TYPE;
	if (reason != PS_UNDECIDED)
		return reason;
	if (config && address->site != config->site)
		return ps_decide_site(frame, (const void *)ip, address->site, PS_GUE_PORT - 1, v);
	return ps_decide_owner6(frame, ip, walk.off, address, v);
}

/* Any frame that is not IPv4. */
PS_COLD __u32 ps_decide_frame6(struct ps_frame *frame, struct ps_verdict *v)
{
	const void *data = ps_frame_data(frame), *end = ps_frame_end(frame);
	__u32 l2_len = ps_find_type(data, end, ETH_P_IPV6);
	const struct ps_ip6 *ip = (const void *)((const __u8 *)data + l2_len);
	const struct ps_address *address;

	if (!l2_len || (const void *)(ip + 1) > end)
		return PS_REASON_NOT_OURS;
	address = ps_look_address6(frame, ip->dst);
	if (!address)
		return PS_REASON_NOT_OURS;
	v->l2_len = v->ip_off = l2_len;
	return ps_decide_shared6(frame, ip, end, address, v);
}

/* The packet within an outer one of room bytes behind its own header. */
PS_COLD __u32 ps_decide_inner6(struct ps_frame *frame, const struct ps_ip6 *ip, const void *end,
			       __u32 room, struct ps_verdict *v)
{
	const struct udphdr *udp = (const void *)((const __u8 *)ip - sizeof(*udp));
	const struct ps_address *address;
	__u32 reason;

	if ((const void *)(ip + 1) > end || ps_be16(udp->len) != room ||
	    room != sizeof(*udp) + sizeof(*ip) + ps_be16(ip->payload_len))
		return PS_REASON_DROP_INNER;
	address = ps_look_address6(frame, ip->dst);
	if (!address || ps_look_address6(frame, ip->src)) /* from a shared one: forged */
		return PS_REASON_DROP_INNER;
	reason = ps_decide_shared6(frame, ip, end, address, v);
	if (reason == PS_REASON_DROP_HEADER || reason == PS_REASON_DROP_TRUNCATED)
		return PS_REASON_DROP_INNER;
	return reason;
}

#endif
