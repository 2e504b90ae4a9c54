/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * The stages of a dispatching decision: C over kernel types, no map, no helper, no memory of its own.
 * decide.h puts the stages in order.
 */
#ifndef PS_DISPATCH_STEER_H
#define PS_DISPATCH_STEER_H

#include "dispatch/steer-answer.h"
#include "dispatch/steer-icmp.h"
#include "dispatch/steer6.h"
#include "dispatch/wire.h"

/* Whose conversation a packet that passed ps_check_ip() belongs to.  flow->our_port decides the
 * owner (design.md §3; RFC 7596 §8.1, RFC 5508). */
PS_INLINE __u32 ps_read_flow(const struct iphdr *ip, const void *end, struct ps_flow *flow)
{
	const __u8 *l4 = (const __u8 *)ip + ip->ihl * 4;
	__u32 len = ps_be16(ip->tot_len) - ip->ihl * 4;
	__u8 protocol = ip->protocol;

	flow->ours = ip->daddr;
	flow->peer = ip->saddr;
	flow->protocol = protocol;
	if (protocol != PS_PROTO_TCP && protocol != PS_PROTO_UDP && protocol != PS_PROTO_ICMP)
		return PS_REASON_DROP_PROTOCOL;
	if (len < 8 || (const void *)(l4 + 8) > end)
		return PS_REASON_DROP_TRUNCATED;
	if (protocol == PS_PROTO_ICMP)
		return ps_read_icmp((const void *)l4, end, len, flow);
	if (protocol == PS_PROTO_TCP && len < sizeof(struct tcphdr))
		return PS_REASON_DROP_TRUNCATED;
	flow->peer_port = ((const __be16 *)(const void *)l4)[0];
	flow->our_port = ((const __be16 *)(const void *)l4)[1];
	return PS_UNDECIDED;
}

/* The UDP port of a packet encapsulated for this host, 6078 to 6080; 0: it is something else.
 * ip's 20 fixed bytes are readable.  *ret_len: bytes before the inner packet. */
PS_INLINE __u32 ps_read_outer(const struct iphdr *ip, const void *end,
			      const struct ps_dispatch_config *config, __u32 *ret_len)
{
	const struct udphdr *udp = (const void *)((const __u8 *)ip + ip->ihl * 4);
	__u32 port;

	if (ip->protocol != PS_PROTO_UDP || !ip->daddr)
		return 0;
	if (ip->daddr != config->underlay && ip->daddr != config->edge)
		return 0;
	if (ps_check_ip(ip, end) != PS_UNDECIDED || (const void *)(udp + 1) > end)
		return 0;
	port = ps_be16(udp->dest);
	if (port < PS_GUE_PORT - PS_GUE_STEPS_MAX || port > PS_GUE_PORT)
		return 0;
	*ret_len = ip->ihl * 4 + sizeof(*udp);
	return port;
}

/* True when the inner packet fills the outer one exactly, as every sender of ours makes it. */
PS_INLINE int ps_inner_fits(const struct iphdr *outer, const struct iphdr *inner)
{
	const struct udphdr *udp = (const void *)((const __u8 *)inner - sizeof(*udp));
	__u32 room = ps_be16(outer->tot_len) - outer->ihl * 4;

	return ps_be16(udp->len) == room && room == sizeof(*udp) + ps_be16(inner->tot_len);
}

PS_INLINE __u32 ps_address_shift(const struct ps_address *address)
{
	return address->bits & 31;
}

PS_INLINE __u32 ps_address_flags(const struct ps_address *address)
{
	return address->bits >> 5;
}

/* The address of a /24 whose addresses are alike. */
PS_INLINE struct ps_address ps_address_in(const struct ps_address *block, __u32 ip4)
{
	__u32 shift = ps_address_shift(block);
	/* log2 of the elements of a row: 65,536 >> shift slices, PS_ROW_SLICES in one. */
	__u32 row_bits = (11 - shift) & -(__u32)(shift < 11);
	struct ps_address address = *block;

	address.row += (ip4 & 255) << row_bits;
	return address;
}

/* Slice in which the port lies, or -1: a port that nobody may own. */
PS_INLINE int ps_slice_of(const struct ps_address *address, __u16 port)
{
	if ((ps_address_flags(address) & PS_ADDRESS_WHOLE) && port < PS_PORT_UNPRIVILEGED)
		return -1;
	return port >> ps_address_shift(address);
}

/* Copies a hop that user space may be changing.  The writer stores word 1 with ifindex 0, word 0,
 * then word 1.  Word 0 holds the whole destination MAC, so that one is never half-written; the
 * second look at word 1 finds a change of interface in between.  ret->ifindex 0: unresolved, or
 * caught in the act.  Leans on loads in program order, as on x86-64. */
PS_INLINE void ps_hop_read(const struct ps_hop *hop, struct ps_hop *ret)
{
	const volatile ps_word *from = (const void *)hop;
	ps_word *to = (void *)ret;

	to[1] = from[1];
	to[0] = from[0];
	if (to[1] != from[1])
		ret->ifindex = 0;
}

/* Outer source port: spreads conversations over paths, keeps each on one (RFC 7605, RFC 6438). */
PS_INLINE __u16 ps_flow_port(const struct ps_flow *flow)
{
	__u32 hash = flow->ours ^ flow->peer * 0x9e3779b1u;

	hash ^= ((__u32)flow->our_port << 16 | flow->peer_port) * 0x85ebca6bu + flow->protocol;
	hash ^= hash >> 15;
	hash *= 0x2c1b3c6du;
	return PS_FLOW_PORT_FIRST | hash >> 18;
}

/* Writes the PS_OVERHEAD_V4 bytes before an inner packet of inner_len bytes. */
PS_INLINE void ps_write_outer(void *at, const struct ps_peer *peer, __u32 inner_len, __u16 src_port,
			      __u16 dst_port)
{
	__be32 *udp = (void *)((struct iphdr *)at + 1);

	ps_write_ip(at, PS_PROTO_UDP, peer->src, peer->dst, inner_len + PS_OVERHEAD_V4, peer->csum);
	udp[0] = ps_be32((__u32)src_port << 16 | dst_port);
	udp[1] = ps_be32((inner_len + sizeof(struct udphdr)) << 16); /* checksum 0 */
}

#endif
