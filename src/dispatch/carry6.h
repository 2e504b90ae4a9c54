/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * Answers to IPv6 packets.
 */
#ifndef PS_DISPATCH_CARRY6_H
#define PS_DISPATCH_CARRY6_H

#include "dispatch/room.h"

/* From us to whom the packet in the frame came from. */
PS_INLINE int ps_read_ends6(struct ps_frame *frame, const struct ps_verdict *v,
			    struct ps_ends6 *ret)
{
	const __u8 *data = ps_frame_data(frame);
	const struct ps_ip6 *ip;

	ps_hide(data); /* else a later check of fewer bytes is left out, and the verifier lost */
	ip = (const void *)(data + (v->ip_off & 127));
	if ((const void *)(ip + 1) > ps_frame_end(frame))
		return -1;
	__builtin_memcpy(ret->src, ip->dst, sizeof(ret->src));
	__builtin_memcpy(ret->dst, ip->src, sizeof(ret->dst));
	return 0;
}

/* XDP_TX: the frame holds the answer; XDP_DROP: no room. */
PS_COLD int ps_answer6(struct ps_frame *frame, struct ps_verdict *v)
{
	int is_tcp = v->reason == PS_REASON_REJECT_TCP;
	struct ps_ends6 ends;
	__u8 *at;

	if (ps_read_ends6(frame, v, &ends))
		return XDP_DROP;
	at = is_tcp ? ps_make_room(frame, v, PS_RST6_LEN, 0)
		    : ps_make_room(frame, v, PS_ICMP6_LEN, v->quote_len);
	if (!at)
		return XDP_DROP;
	if (is_tcp) {
		if ((void *)(at + PS_RST6_LEN) > ps_frame_end(frame))
			return XDP_DROP;
		ps_write_reset6(at, &ends, &v->flow, &v->reset);
		return XDP_TX;
	}
	if ((void *)(at + PS_ICMP6_LEN) > ps_frame_end(frame))
		return XDP_DROP;
	return ps_write_unreachable6(at, ps_frame_end(frame), &ends, v->quote_len, v->answer_mtu)
		       ? XDP_TX
		       : XDP_DROP;
}

/* made: what the functions of this file say. */
PS_INLINE int ps_finish6(struct ps_frame *frame, struct ps_verdict *v, int made)
{
	if (made == XDP_DROP) {
		v->reason = PS_REASON_DROP_ROOM;
		return XDP_DROP;
	}
	return v->came ? ps_frame_leave(frame, v->hop.ifindex) : XDP_TX;
}

/* The ping turned round: exchanging the addresses leaves the checksum as it was. */
PS_COLD int ps_answer_echo6(struct ps_frame *frame, struct ps_verdict *v)
{
	struct ps_ends6 ends;
	struct ps_icmp *icmp;
	__u32 sum;
	__u8 *at;

	if (ps_read_ends6(frame, v, &ends))
		return XDP_DROP;
	at = ps_make_room(frame, v, 0, v->ip_len);
	if (!at || (void *)(at + PS_ICMP6_LEN) > ps_frame_end(frame))
		return XDP_DROP;
	ps_write_ip6((void *)at, &ends, v->ip_len - PS_IP6_LEN, PS_PROTO_ICMP6);
	icmp = (void *)(at + PS_IP6_LEN);
	sum = (__u16)~icmp->check + ps_be16(1 << 8); /* 128 becomes 129 */
	icmp->type = PS_ICMP6_ECHO_REPLY;
	icmp->check = ps_checksum(sum);
	return XDP_TX;
}

#endif
