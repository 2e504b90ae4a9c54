/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * Which packet it is: one to a shared address as it came from the wire, the one inside a packet that
 * another host encapsulated for this one, or neither.
 */
#ifndef PS_DISPATCH_ARRIVE_H
#define PS_DISPATCH_ARRIVE_H

#include "dispatch/look.h"

/* The packet at v->ip_off, inside another. */
PS_INLINE __u32 ps_unwrap(struct ps_frame *frame, struct ps_verdict *v)
{
	const struct iphdr *ip = ps_packet_of(frame, v);
	const struct ps_ip6 *ip6 = (const void *)ip;
	const void *end = ps_frame_end(frame);

	if ((const void *)(ip + 1) > end)
		return PS_REASON_DROP_INNER;
	v->is_v6 = ip->version == 6;
	if (!v->is_v6) /* no host talks to a shared address from one: that would be forged */
		return !ps_look_address(frame, ip->saddr, &v->address) &&
				       ps_look_address(frame, ip->daddr, &v->address)
			       ? PS_UNDECIDED
			       : PS_REASON_DROP_INNER;
	if ((const void *)(ip6 + 1) > end)
		return PS_REASON_DROP_INNER;
	return !ps_look_address6(frame, ip6->src, &v->address) &&
			       ps_look_address6(frame, ip6->dst, &v->address)
		       ? PS_UNDECIDED
		       : PS_REASON_DROP_INNER;
}

PS_INLINE __u32 ps_accept_outer(struct ps_frame *frame, const struct ps_outer *outer,
				const struct ps_source_key *source, struct ps_verdict *v)
{
	if (!ps_look_source(frame, source))
		return PS_REASON_DROP_STRANGER;
	v->came = outer->port;
	v->room = outer->room;
	v->ip_off += outer->len;
	return ps_unwrap(frame, v);
}

PS_STAGE(ps_arrive4)
{
	const struct ps_dispatch_config *config = ps_look_config(frame);
	const struct iphdr *ip = ps_packet_of(frame, v);
	const void *end = ps_frame_end(frame);
	struct ps_source_key source;
	struct ps_outer outer;

	if ((const void *)(ip + 1) > end)
		return PS_REASON_NOT_OURS;
	if (ps_look_address(frame, ip->daddr, &v->address))
		return PS_UNDECIDED;
	ps_read_outer(ip, end, config, &outer);
	if (!outer.port)
		return ip->protocol == PS_PROTO_ICMP && ip->daddr == config->underlay
			       ? PS_NEXT_HINT
			       : PS_REASON_NOT_OURS;
	ps_map_v4(source.address, ip->saddr);
	return ps_accept_outer(frame, &outer, &source, v);
}

PS_STAGE(ps_arrive6)
{
	const struct ps_dispatch_config *config = ps_look_config(frame);
	const struct ps_ip6 *ip = ps_packet_of(frame, v);
	const void *end = ps_frame_end(frame);
	struct ps_source_key source;
	struct ps_outer outer;

	if ((const void *)(ip + 1) > end)
		return PS_REASON_NOT_OURS;
	if (ps_look_address6(frame, ip->dst, &v->address))
		return PS_UNDECIDED;
	ps_read_outer6(ip, end, config, &outer);
	if (!outer.port)
		return ip->next == PS_PROTO_ICMP6 && ps_is_same6(ip->dst, config->underlay6)
			       ? PS_NEXT_HINT
			       : PS_REASON_NOT_OURS;
	__builtin_memcpy(source.address, ip->src, sizeof(source.address));
	return ps_accept_outer(frame, &outer, &source, v);
}

/* NOT_OURS, DROP_STRANGER or DROP_INNER, PS_NEXT_HINT, or undecided with where the packet is, whose
 * address it is for and how it came. */
PS_INLINE __u32 ps_arrive(struct ps_frame *frame, struct ps_verdict *v)
{
	v->l2_len = v->ip_off = ps_find_ip(ps_frame_data(frame), ps_frame_end(frame), &v->is_v6);
	if (!v->l2_len)
		return PS_REASON_NOT_OURS;
	return v->is_v6 ? ps_arrive6(frame, v) : ps_arrive4(frame, v);
}

/* ICMP to this host: about a packet that it encapsulated?  The kernel has no socket for those. */
PS_STAGE(ps_read_about)
{
	const struct ps_dispatch_config *config = ps_look_config(frame);
	const struct iphdr *ip = ps_packet_of(frame, v);
	const struct ps_ip6 *ip6 = (const void *)ip;
	const void *end = ps_frame_end(frame);
	struct ps_mtu_hint hint;
	int found;

	if (v->is_v6)
		found = (const void *)(ip6 + 1) <= end &&
			ps_read_hint6(ip6, end, config->underlay6, &hint);
	else
		found = (const void *)(ip + 1) <= end &&
			ps_read_hint(ip, end, config->underlay, &hint);
	if (!found)
		return PS_REASON_NOT_OURS;
	if (ps_look_budget(frame, PS_BUDGET_HINT, ps_look_clock(frame), PS_HINTS_PER_S))
		ps_frame_hint(frame, &hint);
	return PS_REASON_MTU_HINT;
}

#endif
