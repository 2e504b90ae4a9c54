/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * Fragments of packets to a shared address.  Only the first has ports, and routers that hash ports
 * send the others elsewhere, so one host of the site gathers all fragments of a packet: the one that
 * rendezvous hashing names.  Its memory of owners is filled by first fragments.  RFC 791 §3.2; tiny
 * and overlapping fragments as in RFC 1858 and RFC 3128.
 */
#ifndef PS_DISPATCH_STEER_FRAGMENT_H
#define PS_DISPATCH_STEER_FRAGMENT_H

#include "dispatch/wire.h"

/* Linux gives up reassembly then (net.ipv4.ipfrag_time), in nanoseconds. */
#define PS_FRAGMENT_LIFE_NS 30000000000ull

PS_INLINE int ps_has_ports(__u8 protocol)
{
	return protocol == PS_PROTO_TCP || protocol == PS_PROTO_UDP || protocol == PS_PROTO_ICMP;
}

/* Bytes of the packet's payload before this fragment. */
PS_INLINE __u32 ps_fragment_offset(const struct iphdr *ip)
{
	return (ps_be16(ip->frag_off) & 0x1fff) * 8;
}

/* False for a first fragment without the whole of the header that decides, one that would overwrite
 * it, one that others cannot follow, and one that ends beyond the longest packet.  ip has passed
 * ps_check_ip() but for being a fragment. */
PS_INLINE int ps_fragment_is_sound(const struct iphdr *ip)
{
	__u32 header_len = ip->ihl * 4, len = ps_be16(ip->tot_len) - header_len;
	__u32 least = ip->protocol == PS_PROTO_TCP ? sizeof(struct tcphdr) : 8;
	__u32 offset = ps_fragment_offset(ip);

	if ((ip->frag_off & ps_be16(0x2000)) && (len & 7))
		return 0;
	if (!offset)
		return len >= least;
	return len && offset >= least && header_len + offset + len <= 65535;
}

PS_INLINE struct ps_fragment_key ps_fragment_key(const struct iphdr *ip)
{
	return (struct ps_fragment_key){{ip->saddr},  {ip->daddr}, ip->id,
					ip->protocol, ip->version, 0};
}

PS_INLINE __u32 ps_fragment_hash(const struct ps_fragment_key *key)
{
	__u32 hash = ps_mix(key->id * 0x9e3779b1u + key->protocol);

	for (int i = 0; i < 4; i++)
		hash = ps_mix(ps_mix(hash + key->src[i]) + key->dst[i]);
	return hash;
}

/* The host with the highest score gathers: whoever joins or leaves takes only its own share along
 * (Thaler, Ravishankar 1998). */
PS_INLINE __u32 ps_rendezvous_score(__u32 hash, __be32 host)
{
	return ps_mix(ps_mix(hash) ^ ps_mix(host * 0x9e3779b1u));
}

/* True while the note may be about this packet and not one before it with the same number. */
PS_INLINE int ps_fragment_is_fresh(const struct ps_fragment_note *note, __u64 now_ns)
{
	return now_ns - note->seen_ns < PS_FRAGMENT_LIFE_NS;
}

#endif
