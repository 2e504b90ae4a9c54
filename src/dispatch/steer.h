/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * The stages of a dispatching decision: C over kernel types, no map, no helper, no memory of its own.
 * decide.h puts the stages in order.
 */
#ifndef PS_DISPATCH_STEER_H
#define PS_DISPATCH_STEER_H

#include "dispatch/steer-answer.h"
#include "dispatch/steer-icmp.h"
#include "dispatch/steer6-answer.h"
#include "dispatch/steer6.h"
#include "dispatch/wire.h"

/* The ports of TCP and UDP; len: of the segment at l4. */
PS_INLINE __u32 ps_read_ports(const void *l4, const void *end, __u32 len, struct ps_flow *flow)
{
	const __be16 *port = l4;

	if (len < (flow->protocol == PS_PROTO_TCP ? sizeof(struct tcphdr) : 8) ||
	    (const void *)(port + 4) > end)
		return PS_REASON_DROP_TRUNCATED;
	flow->peer_port = port[0];
	flow->our_port = port[1];
	return PS_UNDECIDED;
}

/* What all packets between two addresses have in common, ports aside. */
PS_INLINE struct ps_flow ps_path(const struct iphdr *ip)
{
	return (struct ps_flow){ip->daddr, ip->saddr, 0, 0, ip->protocol, 0};
}

/* Whose conversation a packet that passed ps_check_ip() belongs to.  flow->our_port decides the
 * owner (design.md §3; RFC 7596 §8.1, RFC 5508). */
PS_INLINE __u32 ps_read_flow(const struct iphdr *ip, const void *end, struct ps_flow *flow)
{
	const __u8 *l4 = (const __u8 *)ip + ip->ihl * 4;
	__u32 len = ps_be16(ip->tot_len) - ip->ihl * 4;

	*flow = ps_path(ip);
	if (flow->protocol != PS_PROTO_ICMP)
		return flow->protocol == PS_PROTO_TCP || flow->protocol == PS_PROTO_UDP
			       ? ps_read_ports(l4, end, len, flow)
			       : PS_REASON_DROP_PROTOCOL;
	if (len < 8 || (const void *)(l4 + 8) > end)
		return PS_REASON_DROP_TRUNCATED;
	return ps_read_icmp((const void *)l4, end, len, flow);
}

/* How a packet came encapsulated. */
struct ps_outer {
	__u16 port; /* 6078 to 6080; 0: it did not */
	__u16 len;  /* of the outer headers, bytes */
	__u32 room; /* for the inner packet, which fills it exactly as every sender of ours makes it;
		     * 0: its headers contradict each other */
};

/* udp: behind an outer header of header_len, which leaves len bytes; *ret is all zeros. */
PS_INLINE void ps_read_gue(const struct udphdr *udp, const void *end, __u32 header_len, __u32 len,
			   struct ps_outer *ret)
{
	__u32 port;

	if ((const void *)(udp + 1) > end)
		return;
	port = ps_be16(udp->dest);
	if (port < PS_GUE_PORT - PS_GUE_STEPS_MAX || port > PS_GUE_PORT)
		return;
	ret->port = (__u16)port;
	ret->len = (__u16)(header_len + sizeof(*udp));
	ret->room = len > sizeof(*udp) && ps_be16(udp->len) == len ? len - sizeof(*udp) : 0;
}

/* ip's 20 fixed bytes are readable. */
PS_INLINE void ps_read_outer(const struct iphdr *ip, const void *end,
			     const struct ps_dispatch_config *config, struct ps_outer *ret)
{
	*ret = (struct ps_outer){0};
	if (ip->protocol != PS_PROTO_UDP || !ip->daddr)
		return;
	if (ip->daddr != config->underlay && ip->daddr != config->edge)
		return;
	if (ps_check_ip(ip, end) == PS_UNDECIDED)
		ps_read_gue((const void *)((const __u8 *)ip + ip->ihl * 4), end, ip->ihl * 4,
			    ps_be16(ip->tot_len) - ip->ihl * 4, ret);
}

/* The same of ip's 40 bytes; senders of ours write no extension headers. */
PS_INLINE void ps_read_outer6(const struct ps_ip6 *ip, const void *end,
			      const struct ps_dispatch_config *config, struct ps_outer *ret)
{
	*ret = (struct ps_outer){0};
	if (ip->next != PS_PROTO_UDP || !ip->dst[0])
		return;
	if (!ps_is_same6(ip->dst, config->underlay6) && !ps_is_same6(ip->dst, config->edge6))
		return;
	if (ps_check_ip6(ip, end) == PS_UNDECIDED)
		ps_read_gue((const void *)(ip + 1), end, sizeof(*ip), ps_len16(ip->payload_len),
			    ret);
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
	struct ps_address address = *block;

	address.row += (ip4 & 255) << (address.row_bits & 31);
	return address;
}

/* The element of peers that the owner byte means. */
PS_INLINE __u32 ps_peer_at(const struct ps_address *address, __u8 slot)
{
	return (__u32)address->group * PS_GROUP_SIZE | slot;
}

/* Slice in which the port lies, or -1: a port that nobody may own. */
PS_INLINE int ps_slice_of(const struct ps_address *address, __u16 port)
{
	if (port < PS_PORT_UNPRIVILEGED)
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

/* True when the next hop is resolved, as far as one look can tell. */
PS_INLINE int ps_has_hop(const struct ps_peer *peer)
{
	return *(const volatile __u32 *)&peer->hop.ifindex != 0;
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

PS_INLINE void ps_write_udp(void *at, __u32 inner_len, __u16 src_port, __u16 dst_port)
{
	__be32 *udp = at;

	udp[0] = ps_be32((__u32)src_port << 16 | dst_port);
	udp[1] = ps_be32((inner_len + sizeof(struct udphdr)) << 16); /* checksum 0 */
}

/* What of the outer header's sum does not depend on the packet: struct ps_peer.csum. */
PS_INLINE __u16 ps_outer_sum(__be32 src, __be32 dst)
{
	return (__u16)~ps_checksum(ps_ip_sum(PS_PROTO_UDP, src, dst));
}

/* Writes the PS_OVERHEAD_V4 bytes before an inner packet of inner_len bytes. */
PS_INLINE void ps_write_outer(void *at, const struct ps_peer *peer, __u32 inner_len, __u16 src_port,
			      __u16 dst_port)
{
	ps_write_ip(at, PS_PROTO_UDP, peer->src, peer->dst, inner_len + PS_OVERHEAD_V4, peer->csum);
	ps_write_udp((struct iphdr *)at + 1, inner_len, src_port, dst_port);
}

/* Writes the PS_OVERHEAD_V6 bytes; the flow is told by the label too (RFC 6438).  UDP checksum 0:
 * RFC 6935, 6936. */
PS_INLINE void ps_write_outer6(void *at, const struct ps_ends *ends, __u32 inner_len,
			       __u16 src_port, __u16 dst_port)
{
	struct ps_ip6 *ip = at;

	ps_write_ip6(ip, ends, inner_len + sizeof(struct udphdr), PS_PROTO_UDP);
	ip->word = ps_be32(0x60000000 | src_port);
	ps_write_udp(ip + 1, inner_len, src_port, dst_port);
}

#endif
