/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * The stages of a dispatching decision and the builders of what leaves: C over kernel types, no
 * map, no helper, no memory of its own.  decide.h puts the stages in order.  Pointers into packets
 * are compared with `end` before each read in the one form (`p + n > end`) that the verifier
 * follows and the address sanitizer can check.
 */
#ifndef PS_DISPATCH_STEER_H
#define PS_DISPATCH_STEER_H

#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/tcp.h>
#include <linux/types.h>
#include <linux/udp.h>

#include "dispatch/abi.h"

/* linux/stddef.h gives __always_inline a weaker meaning; the verifier wants one function. */
#define PS_INLINE static inline __attribute__((always_inline))

/* Off the hot path: a function of its own keeps the hot one small. */
#define PS_COLD static __attribute__((noinline))

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define ps_be16(x) ((__u16)__builtin_bswap16(x))
#define ps_be32(x) ((__u32)__builtin_bswap32(x))
#else
#define ps_be16(x) ((__u16)(x))
#define ps_be32(x) ((__u32)(x))
#endif

/* Keeps the compiler from turning `p + 4 > end` into `p >= end - 3`, which the verifier refuses. */
#define ps_hide(pointer) __asm__ volatile("" : "+r"(pointer))

enum {
	PS_UNDECIDED = PS_REASON_MAX, /* a stage found nothing against the packet */
	PS_FRAGMENT_MASK = 0x3fff,    /* more fragments, or an offset */
	PS_DONT_FRAGMENT = 0x4000,
	PS_TTL = 64,
	PS_PORT_UNPRIVILEGED = 1024, /* ports below are never leased (facts.md SU-3) */
	PS_FLOW_PORT_FIRST = 0xc000, /* outer source ports: 49,152 to 65,535 (RFC 6335 §6) */
	PS_OUTER_LEN = ETH_HLEN + PS_OVERHEAD_V4,
	PS_RST_LEN = 40,               /* IPv4 and TCP header */
	PS_UNREACHABLE_LEN = 28,       /* IPv4 and ICMP header, before the quote */
	PS_QUOTE_MAX = 68,             /* longest IPv4 header and 8 bytes (RFC 792) */
	PS_PAID_AHEAD_NS = 1000000000, /* a burst is what one second allows */
};

/* IP protocols and ICMP types; linux/icmp.h and linux/in.h pull in libc's. */
enum { PS_PROTO_ICMP = 1, PS_PROTO_TCP = 6, PS_PROTO_UDP = 17 };
enum {
	PS_ICMP_ECHO_REPLY = 0,
	PS_ICMP_UNREACHABLE = 3,
	PS_ICMP_SOURCE_QUENCH = 4,
	PS_ICMP_ECHO = 8,
	PS_ICMP_TIME_EXCEEDED = 11,
	PS_ICMP_PARAMETER = 12,
	PS_ICMP_CODE_PORT = 3,
};

struct ps_vlan {
	__be16 tag, type;
};

struct ps_icmp {
	__u8 type, code;
	__u16 check;
	__be16 id, seq;
};

/* The conversation a packet belongs to, seen from the shared address.  An ICMP error belongs to
 * the conversation of the packet embedded in it; for echo our_port is the identifier. */
struct ps_flow {
	__be32 ours, peer;
	__be16 our_port, peer_port;
	__u8 protocol; /* of the conversation */
	__u8 is_icmp;  /* the packet itself: echo reply or error, never to be answered */
};

/* Offset of the IPv4 header behind Ethernet and up to two VLAN tags; 0: none.  The header itself
 * may lie beyond end. */
PS_INLINE __u32 ps_find_ip(const void *frame, const void *end)
{
	const struct ethhdr *eth = frame;
	const struct ps_vlan *vlan = (const void *)(eth + 1);
	__be16 type;

	if ((const void *)(eth + 1) > end)
		return 0;
	type = eth->h_proto;
	if (type == ps_be16(ETH_P_IP))
		return ETH_HLEN;
	if (type != ps_be16(ETH_P_8021Q) && type != ps_be16(ETH_P_8021AD))
		return 0;
	if ((const void *)(vlan + 1) > end)
		return 0;
	type = vlan->type;
	if (type == ps_be16(ETH_P_IP))
		return ETH_HLEN + sizeof(*vlan);
	if (type != ps_be16(ETH_P_8021Q) || (const void *)(vlan + 2) > end)
		return 0;
	return vlan[1].type == ps_be16(ETH_P_IP) ? ETH_HLEN + 2 * sizeof(*vlan) : 0;
}

/* By its destination MAC; broadcast is one of them. */
PS_INLINE int ps_is_multicast(const void *frame, const void *end)
{
	const struct ethhdr *eth = frame;

	return (const void *)(eth + 1) <= end && (eth->h_dest[0] & 1);
}

/* Judges the IPv4 header, whose 20 fixed bytes are readable.  RFC 791 §3.1; the checksum is left
 * to the receiver. */
PS_INLINE __u32 ps_check_ip(const struct iphdr *ip, const void *end)
{
	__u32 header_len = ip->ihl * 4, len = ps_be16(ip->tot_len);

	if (ip->version != 4 || header_len < sizeof(*ip) || len < header_len)
		return PS_REASON_DROP_HEADER;
	if ((const void *)((const __u8 *)ip + len) > end)
		return PS_REASON_DROP_TRUNCATED;
	if (ip->frag_off & ps_be16(PS_FRAGMENT_MASK))
		return PS_REASON_DROP_FRAGMENT;
	return PS_UNDECIDED;
}

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
PS_INLINE __u32 ps_read_icmp(const struct ps_icmp *icmp, const void *end, __u32 len,
			     struct ps_flow *flow)
{
	flow->is_icmp = 1;
	switch (icmp->type) {
	case PS_ICMP_ECHO_REPLY:
		flow->our_port = icmp->id;
		return PS_UNDECIDED;
	case PS_ICMP_UNREACHABLE:
	case PS_ICMP_SOURCE_QUENCH:
	case PS_ICMP_TIME_EXCEEDED:
	case PS_ICMP_PARAMETER:
		return ps_read_embedded((const void *)(icmp + 1), end, len - sizeof(*icmp), flow);
	case PS_ICMP_ECHO:
		return PS_REASON_DROP_ECHO_REQUEST;
	default:
		return PS_REASON_DROP_ICMP_TYPE;
	}
}

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
typedef __u64 ps_word __attribute__((may_alias));
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

/* One's complement sum to checksum (RFC 1071); for sums of at most 2^16 words. */
PS_INLINE __u16 ps_checksum(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (__u16)~sum;
}

PS_INLINE __u32 ps_sum32(__u32 word)
{
	return (word & 0xffff) + (word >> 16);
}

/* Sum of an IPv4 header without options, fragments, TOS and identification, but for its length. */
PS_INLINE __u32 ps_ip_sum(__u8 protocol, __be32 src, __be32 dst)
{
	return ps_be16(0x4500) + ps_be16(PS_DONT_FRAGMENT) + ps_be16(PS_TTL << 8 | protocol) +
	       ps_sum32(src) + ps_sum32(dst);
}

/* sum: ps_ip_sum() of the same values. */
PS_INLINE void ps_write_ip(void *at, __u8 protocol, __be32 src, __be32 dst, __u32 len, __u32 sum)
{
	__be32 *word = at;
	__be16 *half = at;

	word[0] = ps_be32(0x45000000 | len); /* version 4, 5 words, TOS 0 */
	word[1] = ps_be32(PS_DONT_FRAGMENT); /* identification 0: RFC 6864 §4.1 */
	half[4] = ps_be16(PS_TTL << 8 | protocol);
	half[5] = ps_checksum(sum + ps_be16(len));
	word[3] = src;
	word[4] = dst;
}

/* clang's BPF target would split what it does not know aligned into bytes; x86-64 and arm64 need
 * not, and the verifier knows where they do. */
PS_INLINE void ps_store64(void *at, __u64 value)
{
#ifdef __bpf__
	*(ps_word *)at = value;
#else
	__builtin_memcpy(at, &value, sizeof(value));
#endif
}

PS_INLINE void ps_store32(void *at, __u32 value)
{
#ifdef __bpf__
	*(__u32 *)at = value;
#else
	__builtin_memcpy(at, &value, sizeof(value));
#endif
}

/* ETH_HLEN bytes at. */
PS_INLINE void ps_write_ether(__u8 *at, const struct ps_hop *hop)
{
	const ps_word *from = (const void *)hop;

	ps_store64(at, from[0]);
	ps_store32(at + 8, (__u32)from[1]);
	*(__be16 *)(void *)(at + 2 * ETH_ALEN) = ps_be16(ETH_P_IP);
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

/* What a reset says: RFC 9293 §3.10.7.1, CLOSED state. */
struct ps_reset {
	__be32 seq, ack;
	__u8 has_ack;
};

/* True when the segment may be answered: not a RST itself, and a header that can be true.
 * ip and the 20 bytes of the TCP header have passed ps_read_flow(). */
PS_INLINE __u32 ps_read_reset(const struct iphdr *ip, const void *end, struct ps_reset *ret)
{
	const struct tcphdr *tcp = (const void *)((const __u8 *)ip + ip->ihl * 4);
	__u32 len = ps_be16(ip->tot_len) - ip->ihl * 4;

	if ((const void *)(tcp + 1) > end)
		return PS_REASON_DROP_TRUNCATED;
	if (tcp->doff < 5 || tcp->doff * 4u > len)
		return PS_REASON_DROP_HEADER;
	if (tcp->rst)
		return PS_REASON_DROP_REJECT_NEVER;
	ret->has_ack = !tcp->ack;
	ret->seq = tcp->ack ? tcp->ack_seq : 0;
	len += tcp->syn + tcp->fin - tcp->doff * 4u;
	ret->ack = tcp->ack ? 0 : ps_be32(ps_be32(tcp->seq) + len);
	return PS_UNDECIDED;
}

/* Writes PS_RST_LEN bytes: from our side of the flow to the peer's. */
PS_INLINE void ps_write_reset(void *at, const struct ps_flow *flow, const struct ps_reset *reset)
{
	struct iphdr *ip = at;
	__be16 *tcp = (void *)(ip + 1);
	__be16 flags = ps_be16(5 << 12 | (reset->has_ack ? 0x14 : 0x04)); /* ACK 0x10, RST 0x04 */
	__u32 sum = ps_sum32(flow->ours) + ps_sum32(flow->peer) + flow->our_port + flow->peer_port +
		    ps_sum32(reset->seq) + ps_sum32(reset->ack) + flags + ps_be16(PS_PROTO_TCP) +
		    ps_be16(sizeof(struct tcphdr));

	ps_write_ip(ip, PS_PROTO_TCP, flow->ours, flow->peer, PS_RST_LEN,
		    ps_ip_sum(PS_PROTO_TCP, flow->ours, flow->peer));
	tcp[0] = flow->our_port;
	tcp[1] = flow->peer_port;
	__builtin_memcpy(tcp + 2, &reset->seq, 4);
	__builtin_memcpy(tcp + 4, &reset->ack, 4);
	tcp[6] = flags;
	tcp[7] = 0;
	tcp[8] = ps_checksum(sum);
	tcp[9] = 0;
}

/* How much of a rejected packet an ICMP error quotes, bytes; a multiple of 4. */
PS_INLINE __u32 ps_quote_len(const struct iphdr *ip)
{
	return ip->ihl * 4 + 8;
}

/* Writes PS_UNREACHABLE_LEN bytes before the quote, which is there already.  0: the quote ends
 * beyond end.  RFC 792, RFC 1122 §3.2.2.1. */
PS_INLINE int ps_write_unreachable(void *at, const void *end, const struct ps_flow *flow,
				   __u32 quote_len)
{
	struct iphdr *ip = at;
	struct ps_icmp *icmp = (void *)(ip + 1);
	const __u8 *quote = (const void *)(icmp + 1);
	__u32 sum = ps_be16(PS_ICMP_UNREACHABLE << 8 | PS_ICMP_CODE_PORT);

	for (__u32 i = 0; i < PS_QUOTE_MAX / 4; i++) {
		if (i * 4 >= quote_len)
			break;
		ps_hide(quote);
		if ((const void *)(quote + 4) > end)
			return 0;
		sum += ps_sum32(*(const __u32 *)(const void *)quote);
		quote += 4;
	}
	ps_write_ip(ip, PS_PROTO_ICMP, flow->ours, flow->peer, PS_UNREACHABLE_LEN + quote_len,
		    ps_ip_sum(PS_PROTO_ICMP, flow->ours, flow->peer));
	*icmp = (struct ps_icmp){PS_ICMP_UNREACHABLE, PS_ICMP_CODE_PORT, ps_checksum(sum), 0, 0};
	return 1;
}

/* True when an answer to this source can reach one host: not this-network, loopback, multicast,
 * reserved or broadcast (RFC 1122 §3.2.2). */
PS_INLINE int ps_may_answer(__be32 src)
{
	__u32 first = ps_be32(src) >> 24;

	return first != 0 && first != 127 && first < 224;
}

/* Takes one answer from the budget of per_s a second, bursts of one second. */
PS_INLINE int ps_budget_take(struct ps_budget *budget, __u64 now_ns, __u32 per_s)
{
	__u64 paid_ns = budget->paid_ns < now_ns ? now_ns : budget->paid_ns;
	__u32 cost_ns = per_s ? PS_PAID_AHEAD_NS / per_s : 0;

	if (!per_s || paid_ns + cost_ns > now_ns + PS_PAID_AHEAD_NS)
		return 0;
	budget->paid_ns = paid_ns + cost_ns;
	return 1;
}

#endif
