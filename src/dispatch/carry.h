/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * What is done to a frame once its verdict is known.
 */
#ifndef PS_DISPATCH_CARRY_H
#define PS_DISPATCH_CARRY_H

#include "dispatch/room.h"

/* How a packet is encapsulated: where it is in the frame and how long, UDP ports. */
struct ps_envelope {
	__u32 ip_off, ip_len;
	__u16 from, to;
};

/* Makes the frame begin with an Ethernet header and `overhead` bytes before the packet.  A packet
 * that came encapsulated without options and tags does not move.  NULL: no room. */
PS_INLINE __u8 *ps_make_outer(struct ps_frame *frame, __u32 ip_off, __u32 overhead)
{
	int delta = (int)ip_off - ETH_HLEN - (int)overhead;
	__u8 *data;

	if (delta && ps_frame_move(frame, delta))
		return (void *)0;
	data = ps_frame_data(frame);
	return (void *)(data + ETH_HLEN + overhead) > ps_frame_end(frame) ? (void *)0 : data;
}

/* What stands before the packet is replaced by the hop's Ethernet header and the outer headers.
 * PS_UNDECIDED: done; or why not. */
PS_INLINE __u32 ps_wrap4(struct ps_frame *frame, const struct ps_peer *peer,
			 const struct ps_envelope *e, __u32 *ret_ifindex)
{
	__u8 *data = ps_make_outer(frame, e->ip_off, PS_OVERHEAD_V4);
	struct ps_hop hop;

	if (!data)
		return PS_REASON_DROP_ROOM;
	ps_hop_read(&peer->hop, &hop);
	if (ps_unlikely(!hop.ifindex)) /* lost meanwhile */
		return PS_REASON_DROP_NO_HOP;
	ps_write_ether(data, &hop, ETH_P_IP);
	ps_write_outer(data + ETH_HLEN, peer, e->ip_len, e->from, e->to);
	*ret_ifindex = hop.ifindex;
	return PS_UNDECIDED;
}

/* The same to an IPv6 address. */
PS_INLINE __u32 ps_wrap6(struct ps_frame *frame, const struct ps_peer *peer,
			 const struct ps_peer6 *peer6, const struct ps_envelope *e,
			 __u32 *ret_ifindex)
{
	__u8 *data = ps_make_outer(frame, e->ip_off, PS_OVERHEAD_V6);
	struct ps_ends ends;
	struct ps_hop hop;

	if (!data)
		return PS_REASON_DROP_ROOM;
	ps_hop_read(&peer->hop, &hop);
	if (!hop.ifindex)
		return PS_REASON_DROP_NO_HOP;
	__builtin_memcpy(ends.ours, ps_look_config(frame)->underlay6, sizeof(ends.ours));
	__builtin_memcpy(ends.peer, peer6->dst, sizeof(ends.peer));
	ps_write_ether(data, &hop, ETH_P_IPV6);
	ps_write_outer6(data + ETH_HLEN, &ends, e->ip_len, e->from, e->to);
	*ret_ifindex = hop.ifindex;
	return PS_UNDECIDED;
}

PS_INLINE __u32 ps_wrap(struct ps_frame *frame, const struct ps_verdict *v, __u32 *ret_ifindex)
{
	const struct ps_envelope e = {v->ip_off & 127, v->ip_len, v->flow_port, v->goes};
	const struct ps_peer *peer = ps_look_peer(frame, v->to);

	return peer->kind == PS_PEER_V6
		       ? ps_wrap6(frame, peer, ps_look_peer6(frame, v->to), &e, ret_ifindex)
		       : ps_wrap4(frame, peer, &e, ret_ifindex);
}

/* Dropped for a reason that only now came up. */
PS_INLINE __u32 ps_lose(struct ps_verdict *v, __u32 reason)
{
	v->reason = reason;
	return (__u32)-XDP_DROP;
}

PS_STAGE(ps_encapsulate)
{
	__u32 ifindex, reason = ps_wrap(frame, v, &ifindex);

	return reason == PS_UNDECIDED ? (__u32)ps_frame_leave(frame, ifindex) : ps_lose(v, reason);
}

/* Encapsulated whole, with a note for the tc program that makes two of it. */
PS_STAGE(ps_carry_split)
{
	const struct ps_peer *peer = ps_look_peer(frame, v->to);
	__u32 before = ETH_HLEN + (peer->kind == PS_PEER_V6 ? PS_OVERHEAD_V6 : PS_OVERHEAD_V4);
	struct ps_split_note note = {.magic = PS_SPLIT_MAGIC,
				     .head_len = (__u16)(before + sizeof(struct iphdr))};
	__u32 reason = ps_wrap(frame, v, &note.ifindex);

	if (reason != PS_UNDECIDED)
		return ps_lose(v, reason);
	/* The room may have changed since the decision. */
	note.first_len = (__u16)ps_split_first(v->ip_len, ps_room_to(frame, v->to));
	note.rest_len = (__u16)(v->ip_len - sizeof(struct iphdr) - note.first_len);
	if (note.first_len && !ps_frame_cut(frame, before + v->ip_len) &&
	    !ps_frame_note(frame, &note))
		return XDP_PASS;
	return ps_lose(v, PS_REASON_DROP_TOO_BIG);
}

PS_INLINE __u32 ps_leave_answer(struct ps_frame *frame, const struct ps_verdict *v)
{
	return v->came ? (__u32)ps_frame_leave(frame, v->hop.ifindex) : XDP_TX;
}

/* RST or ICMP error. */
PS_STAGE(ps_answer4)
{
	int is_tcp = v->reason == PS_REASON_REJECT_TCP;
	__u8 *at = is_tcp ? ps_make_room(frame, v, PS_RST_LEN, 0)
			  : ps_make_room(frame, v, PS_UNREACHABLE_LEN, v->quote_len);

	if (!at)
		return XDP_DROP;
	if (is_tcp) {
		if ((void *)(at + PS_RST_LEN) > ps_frame_end(frame))
			return XDP_DROP;
		ps_write_reset(at, &v->flow, &v->reset);
		return ps_leave_answer(frame, v);
	}
	if ((void *)(at + PS_UNREACHABLE_LEN) > ps_frame_end(frame) ||
	    !ps_write_unreachable(at, ps_frame_end(frame), &v->flow, v->quote_len, v->answer_mtu))
		return XDP_DROP;
	return ps_leave_answer(frame, v);
}

PS_STAGE(ps_answer6)
{
	int is_tcp = v->reason == PS_REASON_REJECT_TCP;
	__u8 *at = is_tcp ? ps_make_room(frame, v, PS_RST6_LEN, 0)
			  : ps_make_room(frame, v, PS_ICMP6_LEN, v->quote_len);

	if (!at)
		return XDP_DROP;
	if (is_tcp) {
		if ((void *)(at + PS_RST6_LEN) > ps_frame_end(frame))
			return XDP_DROP;
		ps_write_reset6(at, &v->ends, &v->flow, &v->reset);
		return ps_leave_answer(frame, v);
	}
	if ((void *)(at + PS_ICMP6_LEN) > ps_frame_end(frame) ||
	    !ps_write_unreachable6(at, ps_frame_end(frame), &v->ends, v->quote_len, v->answer_mtu))
		return XDP_DROP;
	return ps_leave_answer(frame, v);
}

/* The ping itself, turned round. */
PS_STAGE(ps_answer_ping)
{
	__u8 *at = ps_make_room(frame, v, 0, v->ip_len);

	if (!at || (void *)(at + (v->is_v6 ? PS_ICMP6_LEN : PS_ECHO_LEN)) > ps_frame_end(frame))
		return XDP_DROP;
	if (v->is_v6)
		ps_write_echo6(at, v->ip_len, &v->ends);
	else
		ps_write_echo(at, v->ip_len, &v->flow);
	return ps_leave_answer(frame, v);
}

/* Leaves the packet behind an Ethernet header with the MACs it came with. */
PS_STAGE(ps_decapsulate)
{
	__u8 *data = ps_frame_data(frame);
	struct ethhdr eth;

	if ((void *)(data + sizeof(eth)) > ps_frame_end(frame))
		return XDP_DROP;
	__builtin_memcpy(&eth, data, sizeof(eth));
	eth.h_proto = v->is_v6 ? ps_be16(ETH_P_IPV6) : ps_be16(ETH_P_IP);
	if (ps_frame_move(frame, (int)(v->ip_off & 127) - ETH_HLEN))
		return XDP_DROP;
	data = ps_frame_data(frame);
	if ((void *)(data + sizeof(eth)) > ps_frame_end(frame))
		return XDP_DROP;
	__builtin_memcpy(data, &eth, sizeof(eth));
	return XDP_PASS;
}

PS_INLINE int ps_act(struct ps_frame *frame, struct ps_verdict *v)
{
	switch (v->reason) {
	case PS_REASON_NOT_OURS:
	case PS_REASON_MTU_HINT:
		return XDP_PASS;
	case PS_REASON_DELIVER:
	case PS_REASON_DELIVER_SERVICE:
		return v->came ? (int)ps_decapsulate(frame, v) : XDP_PASS;
	case PS_REASON_TO_HOST:
	case PS_REASON_TO_SITE:
	case PS_REASON_TO_GATHERER:
		return (int)ps_encapsulate(frame, v);
	case PS_REASON_SPLIT:
		return (int)ps_carry_split(frame, v);
	case PS_REASON_REJECT_TCP:
	case PS_REASON_REJECT_ICMP:
	case PS_REASON_TOO_BIG:
		return (int)(v->is_v6 ? ps_answer6(frame, v) : ps_answer4(frame, v));
	case PS_REASON_ECHO_REPLY:
		return (int)ps_answer_ping(frame, v);
	default:
		return -XDP_DROP;
	}
}

/* Returns the XDP action; v->reason becomes DROP_ROOM when the frame cannot be changed as it should. */
PS_INLINE int ps_carry_out(struct ps_frame *frame, struct ps_verdict *v)
{
	int action = ps_act(frame, v);

	if (action == XDP_DROP)
		v->reason = PS_REASON_DROP_ROOM;
	return action < 0 ? XDP_DROP : action;
}

#endif
