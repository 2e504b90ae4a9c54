/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * What the packet says of itself: whole, ping or fragment, and whose conversation it belongs to.
 * Behind this stage nothing asks for the version of IP but what writes packets.
 */
#ifndef PS_DISPATCH_READ_H
#define PS_DISPATCH_READ_H

#include "dispatch/look.h"

/* After ps_read_flow() or ps_read_flow6() said `reason`. */
PS_INLINE __u32 ps_note_flow(struct ps_verdict *v, __u32 reason)
{
	if (reason == PS_REASON_ECHO_REPLY) {
		if (v->form == PS_FORM_FIRST) /* to answer a ping, all of it would be needed */
			return PS_REASON_DROP_ECHO_REQUEST;
		v->form = PS_FORM_PING;
		reason = PS_UNDECIDED;
	}
	if (v->form != PS_FORM_FIRST)
		v->flow_port = ps_flow_port(&v->flow);
	return reason;
}

/* All fragments of a conversation take one path. */
PS_INLINE void ps_note_fragment_of(struct ps_verdict *v, const struct ps_flow *path, __be32 id,
				   int is_first)
{
	v->form = is_first ? PS_FORM_FIRST : PS_FORM_LATER;
	v->fragment = id;
	v->flow = *path;
	v->flow_port = ps_flow_port(path);
}

PS_STAGE(ps_read4)
{
	const struct iphdr *ip = ps_packet_of(frame, v);
	const void *end = ps_frame_end(frame);
	struct ps_flow path;
	__u32 reason;

	if ((const void *)(ip + 1) > end)
		return PS_REASON_DROP_TRUNCATED;
	reason = ps_check_ip(ip, end);
	v->ip_len = ps_be16(ip->tot_len);
	v->l4_off = ip->ihl * 4;
	if (v->came && v->ip_len != v->room)
		return PS_REASON_DROP_INNER;
	v->may_split = !(ip->frag_off & ps_be16(PS_DONT_FRAGMENT));
	ps_map_v4(v->ends.ours, ip->daddr);
	ps_map_v4(v->ends.peer, ip->saddr);
	if (reason == PS_REASON_DROP_FRAGMENT) {
		if (!ps_has_ports(ip->protocol))
			return PS_REASON_DROP_PROTOCOL;
		if (!ps_fragment_is_sound(ip))
			return PS_REASON_DROP_FRAGMENT;
		path = ps_path(ip);
		ps_note_fragment_of(v, &path, ip->id, !ps_fragment_offset(ip));
		if (v->form == PS_FORM_LATER)
			return PS_UNDECIDED;
	} else if (reason != PS_UNDECIDED) {
		return reason;
	}
	reason = ps_note_flow(v, ps_read_flow(ip, end, &v->flow));
	v->ends.peer[3] = v->flow.peer; /* of an ICMP error: whom its quote was sent to */
	return reason;
}

PS_STAGE(ps_read6)
{
	const struct ps_ip6 *ip = ps_packet_of(frame, v);
	const void *end = ps_frame_end(frame);
	struct ps_flow path;
	struct ps_walk walk;
	__u32 reason;

	if ((const void *)(ip + 1) > end)
		return PS_REASON_DROP_TRUNCATED;
	reason = ps_check_ip6(ip, end);
	v->ip_len = sizeof(*ip) + ps_be16(ip->payload_len);
	if (v->came && v->ip_len != v->room)
		return PS_REASON_DROP_INNER;
	if (reason == PS_UNDECIDED)
		reason = ps_walk6(ip, end, v->ip_len, &walk);
	if (reason != PS_UNDECIDED)
		return reason;
	v->l4_off = walk.off;
	if (walk.is_fragment) {
		if (!ps_fragment_is_sound6(&walk, v->ip_len))
			return PS_REASON_DROP_FRAGMENT;
		path = ps_path6(ip, PS_EXT_FRAGMENT);
		ps_note_fragment_of(v, &path, walk.id, !(walk.frag_off & ps_be16(0xfff8)));
		if (v->form == PS_FORM_LATER)
			return PS_UNDECIDED;
	}
	reason = ps_note_flow(v, ps_read_flow6(ip, end, &walk, &v->ends, &v->flow));
	return reason == PS_REASON_NOT_OURS && v->came ? PS_REASON_DROP_ICMP_TYPE : reason;
}

#endif
