// SPDX-License-Identifier: (GPL-2.0-only OR MIT)
/*
 * The guard: the last look at a packet before the wire, at tc egress of every interface.
 *
 * A packet whose source is a shared address passes when its port (TCP and UDP: source port; ICMP
 * echo: identifier; ICMP error: the destination port of the packet it quotes) is in a slice of this
 * host or is a service published here.  A first fragment that passed lets its followers pass.
 * Everything else from a shared address is dropped and counted (RFC 7597 section 8.1).
 *
 * From other addresses everything passes, but for pings that a program of a class sends without
 * connect() to where it should be seen with a shared address; no hook sees those.
 *
 * IPv6: up to four extension headers are walked.  No neighbour discovery (RFC 4861) leaves from a
 * shared address or about one, else a router would send all its packets to this host.
 *
 * Interfaces that are not uplinks get the ingress guard too: what is for a shared address may come
 * in by an uplink only, where the dispatcher judges it.
 *
 * Passing is TC_ACT_UNSPEC, so that filters of others still have their say.  Each map belongs to
 * the generation of the program, so replacing the filter replaces both at once.
 */
#include "egress/ping.bpf.h"

#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>

#define IP_MORE_FRAGMENTS 0x2000
#define IP_OFFSET_MASK 0x1fff

enum {
	VLAN_TAGS = 2, /* in the packet; one more may be beside it, in skb->vlan_tci */
	FRAGMENTS_REMEMBERED = 4096,
	EXTENSIONS_MAX = 4,
	ICMP_ECHO_REPLY = 0,
	ICMP_UNREACHABLE = 3,
	ICMP_ECHO_REQUEST = 8,
	ICMP_TIME_EXCEEDED = 11,
	ICMP_PARAMETER = 12,
	ICMP6_UNREACHABLE = 1,
	ICMP6_PARAMETER = 4,
	ICMP6_ECHO_REQUEST = 128,
	ICMP6_ECHO_REPLY = 129,
	ICMP6_DISCOVERY_FIRST = 133, /* router solicitation */
	ICMP6_SOLICITATION = 135,
	ICMP6_ADVERTISEMENT = 136,
	ICMP6_DISCOVERY_LAST = 137, /* redirect */
	ICMP_HEADER_LEN = 8,
};

/* What all fragments of a packet have in common.  In IPv6 each may tell another protocol (RFC 8200
 * section 4.5): 0. */
struct fragment {
	union ps_ip16 src, dst;
	__be32 id;
	__u8 protocol;
	__u8 pad[3];
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, FRAGMENTS_REMEMBERED);
	__type(key, struct fragment);
	__type(value, __u8);
} fragments SEC(".maps");

/* The two ports of TCP and UDP, which come first in both. */
struct ports {
	__be16 src, dst;
};

struct icmp {
	__u8 type, code;
	__be16 sum, id, seq;
};

struct ip6 {
	__u8 version, word[3]; /* version: in the upper half */
	__be16 payload_len;
	__u8 next, hop_limit;
	union ps_ip16 src, dst;
};

/* The head of any extension header; offset and id are the fragment header's. */
struct extension {
	__u8 next, len; /* len: in 8 bytes, the first not counted */
	__be16 offset;  /* in 8 bytes << 3, more fragments: 1 */
	__be32 id;
};

/* What lies between the IPv6 header and the transport's. */
struct walk {
	__u32 at; /* of the transport header */
	__u32 protocol;
	__be32 id;
	__u16 fragment; /* host order: struct extension's offset; 0: a whole packet */
};

static __always_inline int drop(const struct ps_claim_key *flow, __u32 reason)
{
	struct ps_egress_event *event;

	count(reason);
	event = event_reserve(flow, PS_CLASS_NONE, reason);
	if (event)
		bpf_ringbuf_submit(event, 0);
	return observe ? TC_ACT_UNSPEC : TC_ACT_SHOT;
}

/* The IP version behind an Ethernet header and its tags, and where it begins; 0: it is not IP. */
static __always_inline int find_ip(struct __sk_buff *skb, __u32 *ret_at)
{
	__u32 at = 2 * ETH_ALEN;
	__be16 type;

	for (int i = 0; i <= VLAN_TAGS; i++) {
		if (bpf_skb_load_bytes(skb, at, &type, sizeof(type)))
			return 0;
		*ret_at = at + sizeof(type);
		if (type == bpf_htons(ETH_P_IP))
			return 4;
		if (type == bpf_htons(ETH_P_IPV6))
			return 6;
		if (type != bpf_htons(ETH_P_8021Q) && type != bpf_htons(ETH_P_8021AD))
			return 0;
		at += 4;
	}
	return 0;
}

/* The same of a packet that begins with its IP header. */
static __always_inline int read_version(struct __sk_buff *skb)
{
	__u8 version;

	return bpf_skb_load_bytes(skb, 0, &version, 1) ? 0 : version >> 4;
}

/* Walks the extension headers that begin at walk->at with walk->protocol. */
static __attribute__((noinline)) int walk6(struct __sk_buff *skb, struct walk *walk)
{
	struct extension ext;

	for (int i = 0; i < EXTENSIONS_MAX; i++) {
		__u32 kind = walk->protocol;

		if (kind != IPPROTO_HOPOPTS && kind != IPPROTO_ROUTING &&
		    kind != IPPROTO_FRAGMENT && kind != IPPROTO_DSTOPTS)
			return 0;
		if (bpf_skb_load_bytes(skb, walk->at, &ext, sizeof(ext)))
			return -ENOENT;
		walk->protocol = ext.next;
		walk->at += sizeof(ext);
		if (kind == IPPROTO_FRAGMENT) {
			walk->id = ext.id;
			walk->fragment = bpf_ntohs(ext.offset) & 0xfff9;
			if (walk->fragment & 0xfff8)
				return 0; /* what follows is no header */
		} else {
			walk->at += ext.len * 8;
		}
	}
	return 0; /* a fifth one is a protocol without ports */
}

/* The packet that an ICMP error quotes came to us, so its destination port is ours; an echo's
 * identifier is its own. */
static __always_inline int quoted_end(struct __sk_buff *skb, __u32 at, struct ps_claim_key *ours)
{
	struct ports ports;
	struct icmp icmp;

	if (ours->protocol == IPPROTO_ICMP || ours->protocol == IPPROTO_ICMPV6) {
		if (bpf_skb_load_bytes(skb, at, &icmp, sizeof(icmp)))
			return -ENOENT;
		ours->sport = icmp.id;
		return 0;
	}
	if (ours->protocol != IPPROTO_TCP && ours->protocol != IPPROTO_UDP)
		return -ENOENT;
	if (bpf_skb_load_bytes(skb, at, &ports, sizeof(ports)))
		return -ENOENT;
	ours->sport = ports.dst;
	return 0;
}

static __always_inline int quoted_port(struct __sk_buff *skb, __u32 at, struct ps_claim_key *ours)
{
	struct iphdr ip;

	if (bpf_skb_load_bytes(skb, at, &ip, sizeof(ip)) || ip.version != 4 || ip.ihl < 5)
		return -ENOENT;
	ours->protocol = ip.protocol;
	return quoted_end(skb, at + ip.ihl * 4, ours);
}

static __always_inline int quoted_port6(struct __sk_buff *skb, __u32 at, struct ps_claim_key *ours)
{
	struct walk walk = {.at = at + sizeof(struct ip6)};
	__u8 version, next;

	if (bpf_skb_load_bytes(skb, at, &version, 1) || version >> 4 != 6 ||
	    bpf_skb_load_bytes(skb, at + __builtin_offsetof(struct ip6, next), &next, 1))
		return -ENOENT;
	walk.protocol = next;
	if (walk6(skb, &walk) || walk.fragment & 0xfff8)
		return -ENOENT;
	ours->protocol = walk.protocol;
	return quoted_end(skb, walk.at, ours);
}

static __always_inline int icmp_port(struct __sk_buff *skb, __u32 at, struct ps_claim_key *flow,
				     struct ps_claim_key *ours)
{
	struct icmp icmp;

	if (bpf_skb_load_bytes(skb, at, &icmp, sizeof(icmp)))
		return -ENOENT;
	switch (icmp.type) {
	case ICMP_ECHO_REQUEST:
	case ICMP_ECHO_REPLY:
		flow->sport = icmp.id;
		ours->sport = icmp.id;
		return 0;
	case ICMP_UNREACHABLE:
	case ICMP_TIME_EXCEEDED:
	case ICMP_PARAMETER:
		return quoted_port(skb, at + ICMP_HEADER_LEN, ours);
	default:
		return -ENOENT;
	}
}

static __always_inline int icmp6_port(struct __sk_buff *skb, __u32 at, struct ps_claim_key *flow,
				      struct ps_claim_key *ours)
{
	struct icmp icmp;

	if (bpf_skb_load_bytes(skb, at, &icmp, sizeof(icmp)))
		return -ENOENT;
	if (icmp.type == ICMP6_ECHO_REQUEST || icmp.type == ICMP6_ECHO_REPLY) {
		flow->sport = icmp.id;
		ours->sport = icmp.id;
		return 0;
	}
	if (icmp.type < ICMP6_UNREACHABLE || icmp.type > ICMP6_PARAMETER)
		return -ENOENT;
	return quoted_port6(skb, at + ICMP_HEADER_LEN, ours);
}

/* Fills in the packet's own ports, and in `ours` the port that decides and whose protocol it is:
 * an ICMP error's is within the packet it quotes.  -ENOENT: there is none. */
static __always_inline int flow_port(struct __sk_buff *skb, __u32 at, struct ps_claim_key *flow,
				     struct ps_claim_key *ours)
{
	int is_v4 = ps_ip16_is_v4(&flow->src);
	struct ports ports;

	*ours = *flow;
	if (is_v4 && flow->protocol == IPPROTO_ICMP)
		return icmp_port(skb, at, flow, ours);
	if (!is_v4 && flow->protocol == IPPROTO_ICMPV6)
		return icmp6_port(skb, at, flow, ours);
	if (flow->protocol != IPPROTO_TCP && flow->protocol != IPPROTO_UDP)
		return -ENOENT;
	if (bpf_skb_load_bytes(skb, at, &ports, sizeof(ports)))
		return -ENOENT;
	flow->sport = ports.src;
	flow->dport = ports.dst;
	ours->sport = ports.src;
	return 0;
}

static __always_inline int is_owned(const struct ps_claim_key *ours, __u8 shift)
{
	struct ps_owned_key key = {.address = ours->src};
	__u32 port = bpf_ntohs(ours->sport);

	key.block = port >> (shift & 31);
	if (port >= 1024 && bpf_map_lookup_elem(&owned, &key))
		return 1;
	return is_service(&ours->src, ours->sport, ours->protocol);
}

static __always_inline int judge_follower(const struct fragment *key,
					  const struct ps_claim_key *flow)
{
	if (bpf_map_lookup_elem(&fragments, key))
		return TC_ACT_UNSPEC;
	return drop(flow, PS_EGRESS_GUARD_FRAGMENT);
}

/* A packet, or the first fragment of one (then key says which), whose transport header is at. */
static __always_inline int judge_port(struct __sk_buff *skb, __u32 at, struct ps_claim_key *flow,
				      __u8 shift, const struct fragment *key)
{
	struct ps_claim_key ours;
	__u8 one = 1;

	if (flow_port(skb, at, flow, &ours))
		return drop(flow, PS_EGRESS_GUARD_PROTOCOL);
	if (!is_owned(&ours, shift))
		return drop(flow, PS_EGRESS_GUARD_PORT);
	if (key)
		bpf_map_update_elem(&fragments, key, &one, BPF_ANY);
	return TC_ACT_UNSPEC;
}

static __always_inline int drop_ping(const struct ps_claim_key *flow, const struct ps_ping *ping)
{
	struct ps_egress_event *event;

	count(PS_EGRESS_REFUSED_PING);
	event = event_reserve(flow, PS_CLASS_NONE, PS_EGRESS_REFUSED_PING);
	if (event) {
		event->cgroup = ping->cgroup;
		event->pid = ping->pid;
		__builtin_memcpy(event->comm, ping->comm, sizeof(event->comm));
		bpf_ringbuf_submit(event, 0);
	}
	return observe ? TC_ACT_UNSPEC : TC_ACT_SHOT;
}

/* ICMP from an address that is not shared.  Connected to there the socket would have one. */
static __attribute__((noinline)) int judge_ping(struct __sk_buff *skb,
						const struct ps_claim_key *flow)
{
	struct bpf_sock *sk = skb->sk;
	struct ps_ping *ping;

	if (!flow || !sk || place_of(&flow->dst) != PS_PLACE_OTHER)
		return TC_ACT_UNSPEC;
	sk = bpf_sk_fullsock(sk);
	ping = sk ? bpf_sk_storage_get(&pings, sk, 0, 0) : NULL;
	return ping ? drop_ping(flow, ping) : TC_ACT_UNSPEC;
}

/* Both addresses and the protocol that the header tells; 0: it is none of that version. */
static __always_inline int read_ends4(struct __sk_buff *skb, __u32 at, struct ps_claim_key *flow)
{
	struct iphdr ip;

	if (bpf_skb_load_bytes(skb, at, &ip, sizeof(ip)) || ip.version != 4)
		return 0;
	flow->src = ps_ip16_v4(ip.saddr);
	flow->dst = ps_ip16_v4(ip.daddr);
	flow->protocol = ip.protocol;
	return 1;
}

static __always_inline int read_ends6(struct __sk_buff *skb, __u32 at, struct ps_claim_key *flow)
{
	struct ip6 ip;

	if (bpf_skb_load_bytes(skb, at, &ip, sizeof(ip)) || ip.version >> 4 != 6)
		return 0;
	flow->src = ip.src;
	flow->dst = ip.dst;
	flow->protocol = ip.next;
	return 1;
}

static __always_inline int judge_out4(struct __sk_buff *skb, __u32 at)
{
	struct ps_claim_key flow = {0};
	struct ps_place_value *place;
	struct fragment key;
	struct iphdr ip;
	__u16 fragment;

	if (bpf_skb_load_bytes(skb, at, &ip, sizeof(ip)) || ip.version != 4)
		return TC_ACT_UNSPEC;
	flow.src = ps_ip16_v4(ip.saddr);
	place = place_find(&flow.src);
	flow.dst = ps_ip16_v4(ip.daddr);
	flow.protocol = ip.protocol;
	if (!place || place->kind != PS_PLACE_SHARED)
		return ip.protocol == IPPROTO_ICMP ? judge_ping(skb, &flow) : TC_ACT_UNSPEC;
	key = (struct fragment){flow.src, flow.dst, ip.id, ip.protocol, {0}};
	fragment = bpf_ntohs(ip.frag_off);
	if (fragment & IP_OFFSET_MASK)
		return judge_follower(&key, &flow);
	if (ip.ihl < 5)
		return drop(&flow, PS_EGRESS_GUARD_PROTOCOL);
	return judge_port(skb, at + ip.ihl * 4, &flow, place->shift,
			  fragment & IP_MORE_FRAGMENTS ? &key : NULL);
}

/* Neighbour discovery: from a shared address, or asking for or telling one. */
static __always_inline int is_about_shared(struct __sk_buff *skb, __u32 at, int from_shared)
{
	union ps_ip16 target;
	__u8 type;

	if (bpf_skb_load_bytes(skb, at, &type, sizeof(type)) || type < ICMP6_DISCOVERY_FIRST ||
	    type > ICMP6_DISCOVERY_LAST)
		return 0;
	if (from_shared)
		return 1;
	if (type != ICMP6_SOLICITATION && type != ICMP6_ADVERTISEMENT)
		return 0;
	return !bpf_skb_load_bytes(skb, at + ICMP_HEADER_LEN, &target, sizeof(target)) &&
	       place_of(&target) == PS_PLACE_SHARED;
}

static __always_inline int judge_shared6(struct __sk_buff *skb, __u32 at, struct ps_claim_key *flow,
					 __u8 shift)
{
	struct walk walk = {.at = at + sizeof(struct ip6), .protocol = flow->protocol};
	struct fragment key = {.src = flow->src, .dst = flow->dst};

	if (walk6(skb, &walk))
		return drop(flow, PS_EGRESS_GUARD_PROTOCOL);
	flow->protocol = walk.protocol;
	key.id = walk.id;
	if (walk.fragment & 0xfff8)
		return judge_follower(&key, flow);
	if (walk.protocol == IPPROTO_ICMPV6 && is_about_shared(skb, walk.at, 1))
		return drop(flow, PS_EGRESS_GUARD_NEIGHBOUR);
	return judge_port(skb, walk.at, flow, shift, walk.fragment ? &key : NULL);
}

static __always_inline int judge_out6(struct __sk_buff *skb, __u32 at)
{
	struct ps_claim_key flow = {0};
	struct ps_place_value *place;

	if (!read_ends6(skb, at, &flow))
		return TC_ACT_UNSPEC;
	place = ps_ip16_is_v4(&flow.src) ? NULL : place_find(&flow.src);
	if (place && place->kind == PS_PLACE_SHARED)
		return judge_shared6(skb, at, &flow, place->shift);
	if (flow.protocol != IPPROTO_ICMPV6)
		return TC_ACT_UNSPEC;
	if (is_about_shared(skb, at + sizeof(struct ip6), 0))
		return drop(&flow, PS_EGRESS_GUARD_NEIGHBOUR);
	return judge_ping(skb, &flow);
}

static __always_inline int judge_out(struct __sk_buff *skb, __u32 at, int version)
{
	if (version == 4)
		return judge_out4(skb, at);
	return version == 6 ? judge_out6(skb, at) : TC_ACT_UNSPEC;
}

static __always_inline int judge_in(struct __sk_buff *skb, __u32 at, int version)
{
	struct ps_claim_key flow = {0};

	if (version == 4 ? !read_ends4(skb, at, &flow)
			 : version != 6 || !read_ends6(skb, at, &flow))
		return TC_ACT_UNSPEC;
	return place_of(&flow.dst) == PS_PLACE_SHARED ? drop(&flow, PS_EGRESS_GUARD_INGRESS)
						      : TC_ACT_UNSPEC;
}

SEC("tc")
int ps_guard_out(struct __sk_buff *skb)
{
	__u32 at = 0;
	int version = find_ip(skb, &at);

	return judge_out(skb, at, version);
}

SEC("tc")
int ps_guard_in(struct __sk_buff *skb)
{
	__u32 at = 0;
	int version = find_ip(skb, &at);

	return judge_in(skb, at, version);
}

/* For interfaces without an Ethernet header (tun, WireGuard): the packet begins with IP. */
SEC("tc")
int ps_guard_out_ip(struct __sk_buff *skb)
{
	return judge_out(skb, 0, read_version(skb));
}

SEC("tc")
int ps_guard_in_ip(struct __sk_buff *skb)
{
	return judge_in(skb, 0, read_version(skb));
}

char ps_license[] SEC("license") = "GPL";
