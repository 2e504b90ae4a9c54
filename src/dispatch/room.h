/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * Room for an answer in the frame that asked.
 */
#ifndef PS_DISPATCH_ROOM_H
#define PS_DISPATCH_ROOM_H

#include "dispatch/look.h"

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
		ps_write_ether(ret->bytes, &v->hop, v->is_v6 ? ETH_P_IPV6 : ETH_P_IP);
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

#endif
