/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * IPv6: headers walked, conversations read, answers written.  RFC 8200; RFC 4443 (ICMPv6); extension
 * headers at most four (RFC 7045 asks to forward others, RFC 7112 that a first fragment has them all).
 */
#ifndef PS_DISPATCH_STEER6_H
#define PS_DISPATCH_STEER6_H

#include "dispatch/steer-fragment.h"
#include "dispatch/steer-icmp.h"
#include "dispatch/wire.h"

enum {
	PS_IP6_LEN = 40,
	PS_EXTENSIONS_MAX = 4,
	PS_QUOTE6_MAX = 128, /* of a rejected packet, bytes; RFC 4443 §3 would allow 1,232 */
	PS_RST6_LEN = PS_IP6_LEN + 20,
	PS_ICMP6_LEN = PS_IP6_LEN + 8,
};

enum { PS_EXT_HOPS = 0, PS_EXT_ROUTING = 43, PS_EXT_FRAGMENT = 44, PS_EXT_DESTINATION = 60 };
enum {
	PS_ICMP6_UNREACHABLE = 1,
	PS_ICMP6_TOO_BIG = 2,
	PS_ICMP6_TIME_EXCEEDED = 3,
	PS_ICMP6_PARAMETER = 4,
	PS_ICMP6_ECHO = 128,
	PS_ICMP6_ECHO_REPLY = 129,
	PS_ICMP6_DISCOVERY_FIRST = 133, /* router solicitation */
	PS_ICMP6_DISCOVERY_LAST = 137,  /* redirect */
	PS_ICMP6_CODE_PORT = 4,
};

/* The head of any extension header; offset and id are the fragment header's. */
struct ps_extension {
	__u8 next, len; /* len: in 8 bytes, the first not counted */
	__be16 offset;
	__be32 id;
};

/* What lies between the IPv6 header and the transport's. */
struct ps_walk {
	__u16 off;        /* of the transport header, from the IPv6 header, bytes */
	__u16 data_off;   /* of what is fragmented */
	__be16 frag_off;  /* offset in 8 bytes << 3, more fragments: 1 */
	__u8 is_fragment; /* an atomic fragment is none (RFC 6946) */
	__u8 protocol;
	__be32 id;
};

PS_INLINE int ps_is_extension(__u8 next)
{
	return next == PS_EXT_HOPS || next == PS_EXT_ROUTING || next == PS_EXT_FRAGMENT ||
	       next == PS_EXT_DESTINATION;
}

/* Walks the extension headers within len bytes from ip, whose 40 fixed bytes are readable. */
PS_INLINE __u32 ps_walk6(const struct ps_ip6 *ip, const void *end, __u32 len, struct ps_walk *ret)
{
	__u32 off = PS_IP6_LEN, next = ip->next;

	*ret = (struct ps_walk){0};
	for (int i = 0; i < PS_EXTENSIONS_MAX && ps_is_extension((__u8)next); i++) {
		const struct ps_extension *ext = (const void *)((const __u8 *)ip + off);

		ps_hide(ext);
		if (off + sizeof(*ext) > len || (const void *)(ext + 1) > end)
			return PS_REASON_DROP_TRUNCATED;
		off += sizeof(*ext);
		if (next == PS_EXT_FRAGMENT) {
			ret->frag_off = ext->offset;
			ret->id = ext->id;
			ret->data_off = (__u16)off;
			ret->is_fragment = (ext->offset & ps_be16(0xfff9)) != 0;
		} else {
			off += ext->len * 8u;
		}
		next = ext->next;
		if (ret->frag_off & ps_be16(0xfff8)) /* what follows is no header */
			break;
	}
	ret->off = (__u16)off;
	ret->protocol = (__u8)next;
	if (off > len)
		return PS_REASON_DROP_TRUNCATED;
	return ps_is_extension((__u8)next) && !(ret->frag_off & ps_be16(0xfff8))
		       ? PS_REASON_DROP_HEADER
		       : PS_UNDECIDED;
}

/* As ps_fragment_is_sound(); ip_len: of the packet as this fragment has it.  A first fragment must
 * hold all headers (RFC 7112), and the walk found them. */
PS_INLINE int ps_fragment_is_sound6(const struct ps_walk *walk, __u32 ip_len)
{
	__u32 offset = ps_be16(walk->frag_off) & ~7u, len = ip_len - walk->data_off;
	__u32 least = walk->protocol == PS_PROTO_TCP ? sizeof(struct tcphdr) : 8;

	if ((walk->frag_off & ps_be16(1)) && (len & 7))
		return 0;
	if (!offset)
		return ip_len >= walk->off + least;
	return len && offset >= least && offset + len <= 65535;
}

/* Judges the fixed header, whose bytes are readable. */
PS_INLINE __u32 ps_check_ip6(const struct ps_ip6 *ip, const void *end)
{
	const __u8 *behind = (const __u8 *)(ip + 1) + ps_len16(ip->payload_len);

	if ((ip->word & ps_be32(0xf0000000)) != ps_be32(0x60000000))
		return PS_REASON_DROP_HEADER;
	return (const void *)behind > end ? PS_REASON_DROP_TRUNCATED : PS_UNDECIDED;
}

PS_INLINE __u32 ps_digest6(const __be32 *ip6)
{
	return ps_mix(ip6[0] * 0x9e3779b1u ^ ip6[1] * 0x85ebca6bu ^ ip6[2] * 0xc2b2ae35u ^ ip6[3]);
}

PS_INLINE int ps_is_same6(const __be32 *a, const __be32 *b)
{
	return a[0] == b[0] && a[1] == b[1] && a[2] == b[2] && a[3] == b[3];
}

/* Where index6 has the /112 of the address: this, modulo its size. */
PS_INLINE __u32 ps_index6_hash(const __be32 *ip6)
{
	return ps_mix(ip6[0] * 0x9e3779b1u ^ ip6[1] * 0x85ebca6bu ^ ip6[2] * 0xc2b2ae35u ^
		      ps_be32(ip6[3]) >> 16);
}

PS_INLINE int ps_index6_is(const struct ps_index6 *element, const __be32 *ip6)
{
	return element->prefix[0] == ip6[0] && element->prefix[1] == ip6[1] &&
	       element->prefix[2] == ip6[2] && element->prefix_low == ps_be32(ip6[3]) >> 16;
}

/* The conversation of the packet embedded in an ICMPv6 error, of which room bytes may be read. */
PS_INLINE __u32 ps_read_embedded6(const struct ps_ip6 *ip, const void *end, __u32 room,
				  struct ps_ends *ends, struct ps_flow *flow)
{
	struct ps_walk walk;
	const __u8 *l4;
	__u32 reason;

	if (room < sizeof(*ip) || (const void *)(ip + 1) > end)
		return PS_REASON_DROP_TRUNCATED;
	if ((ip->word & ps_be32(0xf0000000)) != ps_be32(0x60000000) ||
	    !ps_is_same6(ip->src, ends->ours))
		return PS_REASON_DROP_EMBEDDED;
	reason = ps_walk6(ip, end, room, &walk);
	if (reason != PS_UNDECIDED)
		return reason;
	if (walk.frag_off & ps_be16(0xfff8))
		return PS_REASON_DROP_EMBEDDED;
	l4 = (const __u8 *)ip + walk.off;
	ps_hide(l4);
	if (room < walk.off + 8u || (const void *)(l4 + 8) > end)
		return PS_REASON_DROP_TRUNCATED;
	__builtin_memcpy(ends->peer, ip->dst, sizeof(ends->peer));
	flow->peer = ps_digest6(ip->dst);
	flow->protocol = walk.protocol;
	if (walk.protocol == PS_PROTO_TCP || walk.protocol == PS_PROTO_UDP) {
		flow->our_port = ((const __be16 *)(const void *)l4)[0];
		flow->peer_port = ((const __be16 *)(const void *)l4)[1];
		return PS_UNDECIDED;
	}
	if (walk.protocol != PS_PROTO_ICMP6 || l4[0] != PS_ICMP6_ECHO)
		return PS_REASON_DROP_EMBEDDED;
	flow->our_port = ((const struct ps_icmp *)(const void *)l4)->id;
	return PS_UNDECIDED;
}

/* What all packets between two addresses have in common, ports aside. */
PS_INLINE struct ps_flow ps_path6(const struct ps_ip6 *ip, __u8 protocol)
{
	return (struct ps_flow){ps_digest6(ip->dst), ps_digest6(ip->src), 0, 0, protocol, 0};
}

/* As ps_read_flow(); neighbour discovery is NOT_OURS. */
PS_INLINE __u32 ps_read_flow6(const struct ps_ip6 *ip, const void *end, const struct ps_walk *walk,
			      struct ps_ends *ends, struct ps_flow *flow)
{
	/* At most 8,232; the verifier does not remember. */
	const __u8 *l4 = (const __u8 *)ip + (walk->off & 0x3fff);
	const struct ps_icmp *icmp = (const void *)l4;
	__u32 len = sizeof(*ip) + ps_be16(ip->payload_len) - walk->off;

	*flow = ps_path6(ip, walk->protocol);
	__builtin_memcpy(ends->ours, ip->dst, sizeof(ends->ours));
	__builtin_memcpy(ends->peer, ip->src, sizeof(ends->peer));
	if (walk->protocol != PS_PROTO_TCP && walk->protocol != PS_PROTO_UDP &&
	    walk->protocol != PS_PROTO_ICMP6)
		return PS_REASON_DROP_PROTOCOL;
	ps_hide(icmp);
	if (len < 8 || (const void *)(icmp + 1) > end)
		return PS_REASON_DROP_TRUNCATED;
	if (walk->protocol != PS_PROTO_ICMP6) {
		if (walk->protocol == PS_PROTO_TCP && len < sizeof(struct tcphdr))
			return PS_REASON_DROP_TRUNCATED;
		flow->peer_port = ((const __be16 *)(const void *)icmp)[0];
		flow->our_port = ((const __be16 *)(const void *)icmp)[1];
		return PS_UNDECIDED;
	}
	flow->is_icmp = PS_IS_ECHO;
	flow->our_port = icmp->id;
	if (icmp->type == PS_ICMP6_ECHO_REPLY)
		return PS_UNDECIDED;
	if (icmp->type == PS_ICMP6_ECHO)
		return PS_REASON_ECHO_REPLY;
	if (icmp->type >= PS_ICMP6_DISCOVERY_FIRST && icmp->type <= PS_ICMP6_DISCOVERY_LAST)
		return PS_REASON_NOT_OURS;
	if (icmp->type < PS_ICMP6_UNREACHABLE || icmp->type > PS_ICMP6_PARAMETER)
		return PS_REASON_DROP_ICMP_TYPE;
	flow->is_icmp = PS_IS_ERROR;
	return ps_read_embedded6((const void *)(icmp + 1), end, len - sizeof(*icmp), ends, flow);
}

/* As ps_may_answer(): not unspecified, loopback or multicast (RFC 4443 §2.4 e). */
PS_INLINE int ps_may_answer6(const __be32 *src)
{
	if (!src[0] && !src[1] && !src[2])
		return 0;
	return (src[0] & ps_be32(0xff000000)) != ps_be32(0xff000000);
}

/* Bytes of a rejected packet that an ICMPv6 error quotes, a multiple of 4. */
PS_INLINE __u32 ps_quote_len6(__u32 ip_len)
{
	return ip_len < PS_QUOTE6_MAX ? ip_len & ~3u : PS_QUOTE6_MAX;
}

/* As ps_read_hint(), of an ICMPv6 "packet too big" and ps_write_outer6(); ip's 40 bytes are readable.
 * RFC 8201 §4. */
PS_INLINE int ps_read_hint6(const struct ps_ip6 *ip, const void *end, const __be32 *underlay,
			    struct ps_mtu_hint *ret)
{
	const struct ps_icmp *icmp = (const void *)(ip + 1);
	const struct ps_ip6 *sent = (const void *)(icmp + 1);
	const __be16 *ports = (const void *)(sent + 1);
	__u32 mtu;

	if (ps_check_ip6(ip, end) != PS_UNDECIDED || (const void *)(ports + 4) > end)
		return 0;
	if (ps_be16(ip->payload_len) < sizeof(*icmp) + PS_OVERHEAD_V6 ||
	    icmp->type != PS_ICMP6_TOO_BIG)
		return 0;
	if ((sent->word & ps_be32(0xf0000000)) != ps_be32(0x60000000) ||
	    sent->next != PS_PROTO_UDP || !ps_is_same6(sent->src, underlay))
		return 0;
	mtu = (__u32)ps_be16(icmp->id) << 16 | ps_be16(icmp->seq);
	*ret = (struct ps_mtu_hint){0};
	__builtin_memcpy(ret->dst, sent->dst, sizeof(ret->dst));
	return ps_take_hint(ports, mtu, sizeof(*sent) + ps_be16(sent->payload_len), PS_MTU_MIN_V6,
			    ret);
}

#endif
