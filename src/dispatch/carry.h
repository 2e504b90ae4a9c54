/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * What is done to a frame once its verdict is known.
 */
#ifndef PS_DISPATCH_CARRY_H
#define PS_DISPATCH_CARRY_H

#include "dispatch/look.h"

/* What stands before the packet is replaced by the hop's Ethernet header and, for a peer, the
 * outer headers.  A packet that came encapsulated without options and tags does not move. */
PS_INLINE int ps_encapsulate(struct ps_frame *frame, struct ps_verdict *v)
{
	int delta = (int)v->ip_off - PS_OUTER_LEN;
	__u8 *data;

	if (!v->peer || (delta && ps_frame_move(frame, delta))) /* the verifier asks about peer */
		goto no_room;
	data = ps_frame_data(frame);
	if ((void *)(data + PS_OUTER_LEN) > ps_frame_end(frame))
		goto no_room;
	ps_write_ether(data, &v->hop);
	ps_write_outer(data + ETH_HLEN, v->peer, v->ip_len, ps_flow_port(&v->flow), v->goes);
	return ps_frame_leave(frame, v->hop.ifindex);
no_room:
	v->reason = PS_REASON_DROP_ROOM;
	return XDP_DROP;
}

/* Ethernet header and VLAN tags of a frame. */
struct ps_l2 {
	__u8 bytes[ETH_HLEN + 2 * sizeof(struct ps_vlan)] __attribute__((aligned(8)));
	__u32 len;
};

/* For whom the answer is: back the way it came, tags included, or for the hop. */
PS_INLINE int ps_read_l2(struct ps_frame *frame, const struct ps_verdict *v, struct ps_l2 *ret)
{
	const __u8 *data = ps_frame_data(frame);

	if ((const void *)(data + sizeof(ret->bytes)) > ps_frame_end(frame))
		return -1;
	if (v->came) {
		ps_write_ether(ret->bytes, &v->hop);
		ret->len = ETH_HLEN;
		return 0;
	}
	__builtin_memcpy(ret->bytes, data + ETH_ALEN, ETH_ALEN);
	__builtin_memcpy(ret->bytes + ETH_ALEN, data, ETH_ALEN);
	__builtin_memcpy(ret->bytes + 2 * ETH_ALEN, data + 2 * ETH_ALEN,
			 sizeof(ret->bytes) - 2 * ETH_ALEN);
	ret->len = v->l2_len & 31; /* 14 to 22: the verifier does not remember */
	return 0;
}

/* at has room for sizeof(l2->bytes); what belongs behind the header is written later. */
PS_INLINE void ps_write_l2(__u8 *at, const struct ps_l2 *l2)
{
	__builtin_memcpy(at, l2->bytes, ETH_HLEN);
	if (l2->len > ETH_HLEN)
		__builtin_memcpy(at + ETH_HLEN, l2->bytes + ETH_HLEN, 4);
	if (l2->len > ETH_HLEN + 4)
		__builtin_memcpy(at + ETH_HLEN + 4, l2->bytes + ETH_HLEN + 4, 4);
}

/* Turns the frame into a header and `room` bytes, followed by `kept` bytes from the packet's
 * start; the address of the room, or NULL. */
PS_INLINE __u8 *ps_make_room(struct ps_frame *frame, const struct ps_verdict *v, __u32 room,
			     __u32 kept)
{
	struct ps_l2 l2;
	__u8 *data;
	int delta;

	if (ps_read_l2(frame, v, &l2))
		return (void *)0;
	delta = (int)v->ip_off - (int)(l2.len + (kept ? room : 0));
	if (delta && ps_frame_move(frame, delta))
		return (void *)0;
	if (ps_frame_cut(frame, l2.len + room + kept))
		return (void *)0;
	data = ps_frame_data(frame);
	if ((void *)(data + sizeof(l2.bytes)) > ps_frame_end(frame))
		return (void *)0;
	ps_write_l2(data, &l2);
	return data + l2.len;
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
	eth.h_proto = ps_be16(ETH_P_IP);
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
	case PS_REASON_REJECT_TCP:
	case PS_REASON_REJECT_ICMP:
	case PS_REASON_TOO_BIG:
		return ps_answer(frame, v);
	case PS_REASON_ECHO_REPLY:
		return ps_answer_echo(frame, v);
	default:
		return XDP_DROP;
	}
}

#endif
