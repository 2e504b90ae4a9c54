/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * A packet that allows fragments and does not fit the underlay goes as two.  XDP cannot make two frames
 * of one, so the work is shared: the XDP program encapsulates the whole packet, notes before the
 * frame how to cut it, and passes it on; the tc program behind it (split.bpf.h) sends two fragments
 * (RFC 791 §3.2), each encapsulated as any other packet is.
 *
 *   note | Ethernet, outer headers | IPv4 header | first_len bytes | rest_len bytes
 *          <-------------- head_len ------------>
 */
#ifndef PS_DISPATCH_STEER_SPLIT_H
#define PS_DISPATCH_STEER_SPLIT_H

#include "dispatch/wire.h"

enum {
	PS_SPLIT_MAGIC = 0x70730001, /* changes with the layout of the note */
	PS_SPLIT_HEAD_MAX = 128,     /* bytes, a power of two */
	PS_SPLIT_REST_MAX = 2048,    /* native XDP keeps a frame in a page: half of it is more */
	PS_MORE_FRAGMENTS = 0x2000,
};

/* Metadata of a frame; only an XDP program on its interface can write that, never the wire. */
struct ps_split_note {
	__u32 magic;
	__u32 ifindex;                       /* to leave by */
	__u16 head_len, first_len, rest_len; /* bytes; together all of the frame */
	__u16 pad;
};
_Static_assert(sizeof(struct ps_split_note) == 16, "metadata is made of words of 4 bytes");

/* Bytes of payload in the first of two pieces when `room` bytes are left inside the outer packet;
 * 0: one piece is enough, or two are not.  The header has no options: some would have to be copied
 * into both. */
PS_INLINE __u32 ps_split_first(__u32 ip_len, __u32 room)
{
	__u32 first = (room - (__u32)sizeof(struct iphdr)) & ~7u;
	__u32 rest = ip_len - (__u32)sizeof(struct iphdr) - first;

	if (room < sizeof(struct iphdr) + 8 || ip_len <= room)
		return 0;
	return rest > first || rest > PS_SPLIT_REST_MAX ? 0 : first;
}

/* The checksum after one of its words became another (RFC 1624): a wrong one stays wrong. */
PS_INLINE __be16 ps_checksum_change(__be16 checksum, __be16 was, __be16 is)
{
	return ps_checksum((__u16)~checksum + (__u16)~was + is);
}

/* Makes head, that of the whole packet, that of the piece of len bytes that begins `skip` bytes
 * behind the packet's own start; more: another follows. */
PS_INLINE void ps_split_write(__u8 *head, __u32 skip, __u32 len, int more)
{
	__be16 *outer = (void *)(head + ETH_HLEN);
	int over6 = outer[-1] == ps_be16(ETH_P_IPV6);
	__be16 *udp = over6 ? outer + 20 : outer + 10, *inner = udp + 4;
	__be16 part =
		ps_be16((__u16)((ps_be16(inner[3]) + skip / 8) | (more ? PS_MORE_FRAGMENTS : 0)));
	__be16 total = ps_be16((__u16)(sizeof(struct iphdr) + len));
	__u32 sum = 0;

	inner[5] = ps_checksum_change(inner[5], inner[1], total);
	inner[5] = ps_checksum_change(inner[5], inner[3], part);
	inner[1] = total;
	inner[3] = part;
	udp[2] = ps_be16((__u16)(sizeof(struct iphdr) + len + sizeof(struct udphdr)));
	if (over6) {
		outer[2] = udp[2];
		return;
	}
	outer[1] = ps_be16((__u16)(sizeof(struct iphdr) + len + PS_OVERHEAD_V4));
	outer[5] = 0;
	for (int i = 0; i < 10; i++)
		sum += outer[i];
	outer[5] = ps_checksum(sum);
}

#endif
