/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * ICMP for a shared address: whose conversation is it about?  RFC 792, RFC 5508, RFC 7596 §8.1.
 */
#ifndef PS_DISPATCH_STEER_ICMP_H
#define PS_DISPATCH_STEER_ICMP_H

#include "dispatch/wire.h"

/* The conversation of the packet embedded in an ICMP error; room is what the error's total length
 * leaves for it (RFC 792: a header and 8 bytes at least). */
PS_INLINE __u32 ps_read_embedded(const struct iphdr *ip, const void *end, __u32 room,
				 struct ps_flow *flow)
{
	const __u8 *l4;
	__u32 header_len;

	if (room < sizeof(*ip) || (const void *)(ip + 1) > end)
		return PS_REASON_DROP_TRUNCATED;
	header_len = ip->ihl * 4;
	if (ip->version != 4 || header_len < sizeof(*ip) || ip->saddr != flow->ours)
		return PS_REASON_DROP_EMBEDDED;
	if (ip->frag_off & ps_be16(0x1fff)) /* ports are in the first fragment only */
		return PS_REASON_DROP_EMBEDDED;
	l4 = (const __u8 *)ip + header_len;
	if (room < header_len + 8 || (const void *)(l4 + 8) > end)
		return PS_REASON_DROP_TRUNCATED;
	flow->peer = ip->daddr;
	flow->protocol = ip->protocol;
	if (ip->protocol == PS_PROTO_TCP || ip->protocol == PS_PROTO_UDP) {
		flow->our_port = ((const __be16 *)(const void *)l4)[0];
		flow->peer_port = ((const __be16 *)(const void *)l4)[1];
		return PS_UNDECIDED;
	}
	if (ip->protocol != PS_PROTO_ICMP || l4[0] != PS_ICMP_ECHO)
		return PS_REASON_DROP_EMBEDDED;
	flow->our_port = ((const struct ps_icmp *)(const void *)l4)->id;
	return PS_UNDECIDED;
}

/* The 8 bytes at icmp are readable; len: of the ICMP message. */
PS_COLD __u32 ps_read_icmp(const struct ps_icmp *icmp, const void *end, __u32 len,
			   struct ps_flow *flow)
{
	flow->is_icmp = PS_IS_ECHO;
	switch (icmp->type) {
	case PS_ICMP_ECHO_REPLY:
		flow->our_port = icmp->id;
		return PS_UNDECIDED;
	case PS_ICMP_UNREACHABLE:
	case PS_ICMP_SOURCE_QUENCH:
	case PS_ICMP_TIME_EXCEEDED:
	case PS_ICMP_PARAMETER:
		flow->is_icmp = PS_IS_ERROR;
		return ps_read_embedded((const void *)(icmp + 1), end, len - sizeof(*icmp), flow);
	case PS_ICMP_ECHO:
		flow->our_port = icmp->id;
		return PS_REASON_ECHO_REPLY; /* decide.h says whether */
	default:
		return PS_REASON_DROP_ICMP_TYPE;
	}
}

/* True when a router could mean a packet of ours: UDP from a flow port to 6078-6080, longer than what it
 * says may pass.  A hint is never below `least`. */
PS_INLINE int ps_take_hint(const __be16 *ports, __u32 mtu, __u32 len, __u32 least,
			   struct ps_mtu_hint *ret)
{
	if (ps_be16(ports[0]) < PS_FLOW_PORT_FIRST || ps_be16(ports[1]) > PS_GUE_PORT ||
	    ps_be16(ports[1]) < PS_GUE_PORT - PS_GUE_STEPS_MAX)
		return 0;
	if (!mtu || mtu >= len)
		return 0;
	ret->mtu = mtu < least ? least : mtu;
	return 1;
}

/* True when an IPv4 packet says "fragmentation needed" about one that this host encapsulated: the
 * quote must be what ps_write_outer() writes.  ip's 20 fixed bytes are readable.  RFC 1191 §4. */
PS_INLINE int ps_read_hint(const struct iphdr *ip, const void *end, __be32 underlay,
			   struct ps_mtu_hint *ret)
{
	const struct ps_icmp *icmp = (const void *)((const __u8 *)ip + ip->ihl * 4);
	const struct iphdr *sent = (const void *)(icmp + 1);
	const __be16 *ports = (const void *)(sent + 1);
	__u32 room;

	if (ps_check_ip(ip, end) != PS_UNDECIDED || (const void *)(ports + 4) > end)
		return 0;
	room = ps_be16(ip->tot_len) - ip->ihl * 4;
	if (room < sizeof(*icmp) + PS_OVERHEAD_V4 || icmp->type != PS_ICMP_UNREACHABLE ||
	    icmp->code != PS_ICMP_CODE_TOO_BIG)
		return 0;
	if (sent->version != 4 || sent->ihl != 5 || sent->protocol != PS_PROTO_UDP ||
	    sent->frag_off != ps_be16(PS_DONT_FRAGMENT) || sent->saddr != underlay)
		return 0;
	*ret = (struct ps_mtu_hint){.dst = {[10] = 0xff, [11] = 0xff}};
	__builtin_memcpy(ret->dst + 12, &sent->daddr, 4);
	return ps_take_hint(ports, ps_be16(icmp->seq), ps_be16(sent->tot_len), PS_MTU_MIN, ret);
}

#endif
