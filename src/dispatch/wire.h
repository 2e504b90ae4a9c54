/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * What packets are made of: constants of the wire, headers found, judged and written.  C over kernel
 * types, no map, no helper, no memory of its own.  Pointers into packets are compared with `end`
 * before each read in the one form (`p + n > end`) that the verifier follows and the address
 * sanitizer can check.
 */
#ifndef PS_DISPATCH_WIRE_H
#define PS_DISPATCH_WIRE_H

#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/tcp.h>
#include <linux/types.h>
#include <linux/udp.h>

#include "dispatch/abi.h"

/* linux/stddef.h gives __always_inline a weaker meaning; the verifier wants one function. */
#define PS_INLINE static inline __attribute__((always_inline))

/* Off the hot path: a function of its own keeps the callers' stacks small. */
#define PS_COLD static __attribute__((noinline, unused))

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define ps_be16(x) ((__u16)__builtin_bswap16(x))
#define ps_be32(x) ((__u32)__builtin_bswap32(x))
#else
#define ps_be16(x) ((__u16)(x))
#define ps_be32(x) ((__u32)(x))
#endif

/* Which way the hot path goes: it should be one straight line. */
#define ps_likely(condition) __builtin_expect(!!(condition), 1)
#define ps_unlikely(condition) __builtin_expect(!!(condition), 0)

/* Has the value made here, and not later from all that it is made of, which would then have to be kept
 * on the stack. */
#define ps_make_now(value) __asm__ volatile("" : "+r"(value))

/* Keeps the compiler from turning `p + 4 > end` into `p >= end - 3`, which the verifier refuses. */
#define ps_hide(pointer) __asm__ volatile("" : "+r"(pointer))

enum {
	PS_UNDECIDED = PS_REASON_MAX, /* a stage found nothing against the packet; look.h goes on */
	PS_FRAGMENT_MASK = 0x3fff,    /* more fragments, or an offset */
	PS_DONT_FRAGMENT = 0x4000,
	PS_TTL = 64,
	PS_PORT_UNPRIVILEGED = 1024,   /* ports below are never leased (facts.md SU-3) */
	PS_FLOW_PORT_FIRST = 0xc000,   /* outer source ports: 49,152 to 65,535 (RFC 6335 §6) */
	PS_RST_LEN = 40,               /* IPv4 and TCP header */
	PS_ECHO_LEN = 28,              /* IPv4 and ICMP header */
	PS_UNREACHABLE_LEN = 28,       /* IPv4 and ICMP header, before the quote */
	PS_QUOTE_MAX = 68,             /* longest IPv4 header and 8 bytes (RFC 792) */
	PS_HINTS_PER_S = 100,          /* per CPU; a path has few bottlenecks */
	PS_PAID_AHEAD_NS = 1000000000, /* a burst is what one second allows */
};

/* IP protocols and ICMP types; linux/icmp.h and linux/in.h pull in libc's. */
enum { PS_PROTO_ICMP = 1, PS_PROTO_TCP = 6, PS_PROTO_UDP = 17, PS_PROTO_ICMP6 = 58 };
enum {
	PS_ICMP_ECHO_REPLY = 0,
	PS_ICMP_UNREACHABLE = 3,
	PS_ICMP_SOURCE_QUENCH = 4,
	PS_ICMP_ECHO = 8,
	PS_ICMP_TIME_EXCEEDED = 11,
	PS_ICMP_PARAMETER = 12,
	PS_ICMP_CODE_PORT = 3,
	PS_ICMP_CODE_TOO_BIG = 4,
};

struct ps_vlan {
	__be16 tag, type;
};

/* linux/ipv6.h pulls in what libc has too. */
struct ps_ip6 {
	__be32 word; /* version, traffic class, flow label */
	__be16 payload_len;
	__u8 next, hop_limit;
	__be32 src[4], dst[4];
};

struct ps_icmp {
	__u8 type, code;
	__u16 check;
	__be16 id, seq;
};

enum { PS_IS_ECHO = 1, PS_IS_ERROR };

/* The conversation a packet belongs to, seen from the shared address.  An ICMP error belongs to
 * the conversation of the packet embedded in it; for echo our_port is the identifier. */
struct ps_flow {
	__be32 ours, peer;
	__be16 our_port, peer_port;
	__u8 protocol; /* of the conversation */
	__u8 is_icmp;  /* the packet itself, never to be rejected: PS_IS_ECHO or PS_IS_ERROR */
};

/* The two ends of a conversation, ours being the shared address.  Four words each, IPv4 as
 * ::ffff:a.b.c.d. */
struct ps_ends {
	__be32 ours[4], peer[4];
};

PS_INLINE void ps_map_v4(__be32 *ret, __be32 ip4)
{
	ret[0] = ret[1] = 0;
	ret[2] = ps_be32(0xffff);
	ret[3] = ip4;
}

/* A bijection in which every bit of the input moves about half of the output (murmur3's end). */
PS_INLINE __u32 ps_mix(__u32 v)
{
	v = (v ^ v >> 16) * 0x85ebca6bu;
	v = (v ^ v >> 13) * 0xc2b2ae35u;
	return v ^ v >> 16;
}

/* The kernel's struct is packed, which would read the type byte by byte. */
PS_INLINE __be16 ps_ether_type(const struct ethhdr *eth)
{
	return *(const __be16 *)(const void *)((const __u8 *)eth + 2 * ETH_ALEN);
}

/* Offset of the IP header behind Ethernet and up to two VLAN tags, and which of the two it should be;
 * 0: neither.  The header itself may lie beyond end. */
PS_INLINE __u32 ps_find_ip(const void *frame, const void *end, __u8 *ret_is_v6)
{
	const struct ethhdr *eth = frame;
	const struct ps_vlan *vlan = (const void *)(eth + 1);
	__u32 len = ETH_HLEN;
	__be16 type;

	if ((const void *)(eth + 1) > end)
		return 0;
	type = ps_ether_type(eth);
	if (type == ps_be16(ETH_P_8021Q) || type == ps_be16(ETH_P_8021AD)) {
		if ((const void *)(vlan + 1) > end)
			return 0;
		type = vlan->type;
		len += sizeof(*vlan);
		if (type == ps_be16(ETH_P_8021Q)) {
			if ((const void *)(vlan + 2) > end)
				return 0;
			type = vlan[1].type;
			len += sizeof(*vlan);
		}
	}
	*ret_is_v6 = type == ps_be16(ETH_P_IPV6);
	return type == ps_be16(ETH_P_IP) || *ret_is_v6 ? len : 0;
}

/* By its destination MAC; broadcast is one of them. */
PS_INLINE int ps_is_multicast(const void *frame, const void *end)
{
	const struct ethhdr *eth = frame;

	return (const void *)(eth + 1) <= end && (eth->h_dest[0] & 1);
}

/* A length in network order, for arithmetic on pointers: the verifier of Linux 6.1 forgets at a byte
 * swap what it knew of the value. */
PS_INLINE __u32 ps_len16(__be16 len_be)
{
	__u64 len = ps_be16(len_be);

#ifdef __bpf__
	asm volatile("%0 &= 0xffff" : "+r"(len));
#endif
	return (__u32)len;
}

/* Judges the IPv4 header, whose 20 fixed bytes are readable.  RFC 791 §3.1; the checksum is left
 * to the receiver. */
PS_INLINE __u32 ps_check_ip(const struct iphdr *ip, const void *end)
{
	__u32 header_len = ip->ihl * 4, len = ps_len16(ip->tot_len);

	if (ip->version != 4 || header_len < sizeof(*ip) || len < header_len)
		return PS_REASON_DROP_HEADER;
	if ((const void *)((const __u8 *)ip + len) > end)
		return PS_REASON_DROP_TRUNCATED;
	if (ip->frag_off & ps_be16(PS_FRAGMENT_MASK))
		return PS_REASON_DROP_FRAGMENT;
	return PS_UNDECIDED;
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

typedef __u64 ps_word __attribute__((may_alias));

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
PS_INLINE void ps_write_ether(__u8 *at, const struct ps_hop *hop, __u16 type)
{
	const ps_word *from = (const void *)hop;

	ps_store64(at, from[0]);
	ps_store32(at + 8, (__u32)from[1]);
	*(__be16 *)(void *)(at + 2 * ETH_ALEN) = ps_be16(type);
}

#endif
