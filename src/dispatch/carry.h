/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * What is done to a frame once its verdict is known.
 */
#ifndef PS_DISPATCH_CARRY_H
#define PS_DISPATCH_CARRY_H

#include "dispatch/carry6.h"
#include "dispatch/room.h"

/* What stands before the packet is replaced by the hop's Ethernet header and, for a peer, the
 * outer headers.  A packet that came encapsulated without options and tags does not move. */
PS_INLINE int ps_wrap(struct ps_frame *frame, struct ps_verdict *v)
{
	int delta = (int)v->ip_off - PS_OUTER_LEN;
	__u8 *data;

	if (!v->peer || (delta && ps_frame_move(frame, delta))) /* the verifier asks about peer */
		return -1;
	data = ps_frame_data(frame);
	if ((void *)(data + PS_OUTER_LEN) > ps_frame_end(frame))
		return -1;
	ps_write_ether(data, &v->hop);
	ps_write_outer(data + ETH_HLEN, v->peer, v->ip_len, ps_flow_port(&v->flow), v->goes);
	return 0;
}

PS_INLINE int ps_encapsulate(struct ps_frame *frame, struct ps_verdict *v)
{
	if (!ps_wrap(frame, v))
		return ps_frame_leave(frame, v->hop.ifindex);
	v->reason = PS_REASON_DROP_ROOM;
	return XDP_DROP;
}

/* Encapsulated whole, with a note for the tc program that makes two of it. */
PS_COLD int ps_carry_split(struct ps_frame *frame, struct ps_verdict *v)
{
	struct ps_split_note note = {
		PS_SPLIT_MAGIC, v->hop.ifindex, PS_OUTER_LEN + sizeof(struct iphdr), 0, 0, 0};

	if (ps_wrap(frame, v)) {
		v->reason = PS_REASON_DROP_ROOM;
		return XDP_DROP;
	}
	/* The peer's mtu may have changed since the decision. */
	note.first_len = (__u16)ps_split_first(v->ip_len, v->peer->mtu - PS_OVERHEAD_V4);
	note.rest_len = (__u16)(v->ip_len - sizeof(struct iphdr) - note.first_len);
	if (note.first_len && !ps_frame_cut(frame, PS_OUTER_LEN + v->ip_len) &&
	    !ps_frame_note(frame, &note))
		return XDP_PASS;
	v->reason = PS_REASON_DROP_TOO_BIG;
	return XDP_DROP;
}

PS_COLD int ps_answer(struct ps_frame *frame, struct ps_verdict *v)
{
	__u32 reason = v->reason;
	int is_tcp = reason == PS_REASON_REJECT_TCP;
	__u8 *at = is_tcp ? ps_make_room(frame, v, PS_RST_LEN, 0)
			  : ps_make_room(frame, v, PS_UNREACHABLE_LEN, v->quote_len);

	v->reason = PS_REASON_DROP_ROOM;
	if (!at)
		return XDP_DROP;
	if (is_tcp) {
		if ((void *)(at + PS_RST_LEN) > ps_frame_end(frame))
			return XDP_DROP;
		ps_write_reset(at, &v->flow, &v->reset);
	} else {
		if ((void *)(at + PS_UNREACHABLE_LEN) > ps_frame_end(frame) ||
		    !ps_write_unreachable(at, ps_frame_end(frame), &v->flow, v->quote_len,
					  v->answer_mtu))
			return XDP_DROP;
	}
	v->reason = reason;
	return v->came ? ps_frame_leave(frame, v->hop.ifindex) : XDP_TX;
}

/* The ping itself, turned round. */
PS_COLD int ps_answer_echo(struct ps_frame *frame, struct ps_verdict *v)
{
	__u8 *at = ps_make_room(frame, v, 0, v->ip_len);

	if (!at || (void *)(at + PS_ECHO_LEN) > ps_frame_end(frame)) {
		v->reason = PS_REASON_DROP_ROOM;
		return XDP_DROP;
	}
	ps_write_echo(at, v->ip_len, &v->flow);
	return v->came ? ps_frame_leave(frame, v->hop.ifindex) : XDP_TX;
}

/* Leaves the packet behind an Ethernet header with the MACs it came with. */
PS_INLINE int ps_decapsulate(struct ps_frame *frame, struct ps_verdict *v)
{
	__u8 *data = ps_frame_data(frame);
	struct ethhdr eth;

	if ((void *)(data + sizeof(eth)) > ps_frame_end(frame))
		return XDP_DROP;
	__builtin_memcpy(&eth, data, sizeof(eth));
	eth.h_proto = v->is_v6 ? ps_be16(ETH_P_IPV6) : ps_be16(ETH_P_IP);
	if (ps_frame_move(frame, (int)v->ip_off - ETH_HLEN))
		return XDP_DROP;
	data = ps_frame_data(frame);
	if ((void *)(data + sizeof(eth)) > ps_frame_end(frame))
		return XDP_DROP;
	__builtin_memcpy(data, &eth, sizeof(eth));
	return XDP_PASS;
}

/* Returns the XDP action; v->reason becomes DROP_ROOM when the frame cannot grow. */
PS_INLINE int ps_carry_out(struct ps_frame *frame, struct ps_verdict *v)
{
	switch (v->reason) {
	case PS_REASON_NOT_OURS:
	case PS_REASON_MTU_HINT:
		return XDP_PASS;
	case PS_REASON_DELIVER:
	case PS_REASON_DELIVER_SERVICE:
		return v->came ? ps_decapsulate(frame, v) : XDP_PASS;
	case PS_REASON_TO_HOST:
	case PS_REASON_TO_SITE:
	case PS_REASON_TO_GATHERER:
		return ps_encapsulate(frame, v);
	case PS_REASON_SPLIT:
		return ps_carry_split(frame, v);
	case PS_REASON_REJECT_TCP:
	case PS_REASON_REJECT_ICMP:
	case PS_REASON_TOO_BIG:
		return v->is_v6 ? ps_finish6(frame, v, ps_answer6(frame, v)) : ps_answer(frame, v);
	case PS_REASON_ECHO_REPLY:
		return v->is_v6 ? ps_finish6(frame, v, ps_answer_echo6(frame, v))
				: ps_answer_echo(frame, v);
	default:
		return XDP_DROP;
	}
}

#endif
