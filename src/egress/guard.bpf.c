// SPDX-License-Identifier: (GPL-2.0-only OR MIT)
/*
 * The guard: the last look at a packet before the wire, at tc egress of every interface.
 *
 * A packet whose source is a shared address passes when its port (TCP and UDP: source port; ICMP
 * echo: identifier; ICMP error: the destination port of the packet it quotes) is in a slice of this
 * host or is a service published here.  A first fragment that passed lets its followers pass.
 * Everything else from a shared address is dropped and counted (RFC 7597 section 8.1).
 *
 * Interfaces that are not uplinks get the ingress guard too: what is for a shared address may come
 * in by an uplink only, where the dispatcher judges it.
 *
 * Passing is TC_ACT_UNSPEC, so that filters of others still have their say.  Each map belongs to
 * the generation of the program, so replacing the filter replaces both at once.
 */
#include "egress/maps.bpf.h"

#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>

#define IP_MORE_FRAGMENTS 0x2000
#define IP_OFFSET_MASK 0x1fff

enum {
	VLAN_TAGS = 2, /* in the packet; one more may be beside it, in skb->vlan_tci */
	FRAGMENTS_REMEMBERED = 4096,
	ICMP_ECHO_REPLY = 0,
	ICMP_UNREACHABLE = 3,
	ICMP_ECHO_REQUEST = 8,
	ICMP_TIME_EXCEEDED = 11,
	ICMP_PARAMETER = 12,
	ICMP_HEADER_LEN = 8,
};

struct fragment {
	__be32 src, dst;
	__be16 id;
	__u8 protocol;
	__u8 pad;
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

static __always_inline int drop(const struct ps_claim_key *flow, __u32 reason)
{
	struct ps_egress_event *event;

	count(reason);
	event = event_reserve(flow, PS_CLASS_NONE, reason);
	if (event)
		bpf_ringbuf_submit(event, 0);
	return observe ? TC_ACT_UNSPEC : TC_ACT_SHOT;
}

/* Where the IPv4 header begins after an Ethernet header and its tags; negative: not IPv4. */
static __always_inline int find_ip4(struct __sk_buff *skb)
{
	__u32 at = 2 * ETH_ALEN;
	__be16 type;

	for (int i = 0; i <= VLAN_TAGS; i++) {
		if (bpf_skb_load_bytes(skb, at, &type, sizeof(type)))
			return -ENOENT;
		if (type == bpf_htons(ETH_P_IP))
			return at + sizeof(type);
		if (type != bpf_htons(ETH_P_8021Q) && type != bpf_htons(ETH_P_8021AD))
			return -ENOENT;
		at += 4;
	}
	return -ENOENT;
}

/* The port within the packet that an ICMP error quotes: ours, since the packet came to us. */
static __always_inline int quoted_port(struct __sk_buff *skb, __u32 at, struct ps_claim_key *ours)
{
	struct ports ports;
	struct icmp icmp;
	struct iphdr ip;

	if (bpf_skb_load_bytes(skb, at, &ip, sizeof(ip)) || ip.version != 4 || ip.ihl < 5)
		return -ENOENT;
	ours->protocol = ip.protocol;
	at += ip.ihl * 4;
	if (ip.protocol == IPPROTO_ICMP) {
		if (bpf_skb_load_bytes(skb, at, &icmp, sizeof(icmp)))
			return -ENOENT;
		ours->sport = icmp.id;
		return 0;
	}
	if (ip.protocol != IPPROTO_TCP && ip.protocol != IPPROTO_UDP)
		return -ENOENT;
	if (bpf_skb_load_bytes(skb, at, &ports, sizeof(ports)))
		return -ENOENT;
	ours->sport = ports.dst;
	return 0;
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

/* Fills in the packet's own ports, and in `ours` the port that decides and whose protocol it is:
 * an ICMP error's is within the packet it quotes.  -ENOENT: there is none. */
static __always_inline int flow_port(struct __sk_buff *skb, __u32 at, struct ps_claim_key *flow,
				     struct ps_claim_key *ours)
{
	struct ports ports;

	*ours = *flow;
	if (flow->protocol == IPPROTO_ICMP)
		return icmp_port(skb, at, flow, ours);
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
	return is_service(ours->src, ours->sport, ours->protocol);
}

static __always_inline int judge_follower(const struct iphdr *ip, const struct ps_claim_key *flow)
{
	struct fragment key = {ip->saddr, ip->daddr, ip->id, ip->protocol, 0};

	if (bpf_map_lookup_elem(&fragments, &key))
		return TC_ACT_UNSPEC;
	return drop(flow, PS_EGRESS_GUARD_FRAGMENT);
}

static __always_inline void remember(const struct iphdr *ip)
{
	struct fragment key = {ip->saddr, ip->daddr, ip->id, ip->protocol, 0};
	__u8 one = 1;

	bpf_map_update_elem(&fragments, &key, &one, BPF_ANY);
}

static __always_inline int judge_out(struct __sk_buff *skb, __u32 at)
{
	struct ps_claim_key flow = {0}, ours;
	struct ps_place_value *place;
	struct iphdr ip;
	__u16 fragment;

	if (bpf_skb_load_bytes(skb, at, &ip, sizeof(ip)) || ip.version != 4)
		return TC_ACT_UNSPEC;
	place = place_find(ip.saddr);
	if (!place || place->kind != PS_PLACE_SHARED)
		return TC_ACT_UNSPEC;
	flow.src = ip.saddr;
	flow.dst = ip.daddr;
	flow.protocol = ip.protocol;
	fragment = bpf_ntohs(ip.frag_off);
	if (fragment & IP_OFFSET_MASK)
		return judge_follower(&ip, &flow);
	if (ip.ihl < 5 || flow_port(skb, at + ip.ihl * 4, &flow, &ours))
		return drop(&flow, PS_EGRESS_GUARD_PROTOCOL);
	if (!is_owned(&ours, place->shift))
		return drop(&flow, PS_EGRESS_GUARD_PORT);
	if (fragment & IP_MORE_FRAGMENTS)
		remember(&ip);
	return TC_ACT_UNSPEC;
}

static __always_inline int judge_in(struct __sk_buff *skb, __u32 at)
{
	struct ps_claim_key flow = {0};
	struct iphdr ip;

	if (bpf_skb_load_bytes(skb, at, &ip, sizeof(ip)) || ip.version != 4)
		return TC_ACT_UNSPEC;
	if (place_of(ip.daddr) != PS_PLACE_SHARED)
		return TC_ACT_UNSPEC;
	flow.src = ip.saddr;
	flow.dst = ip.daddr;
	flow.protocol = ip.protocol;
	return drop(&flow, PS_EGRESS_GUARD_INGRESS);
}

SEC("tc")
int ps_guard_out(struct __sk_buff *skb)
{
	int at = find_ip4(skb);

	return at < 0 ? TC_ACT_UNSPEC : judge_out(skb, at);
}

SEC("tc")
int ps_guard_in(struct __sk_buff *skb)
{
	int at = find_ip4(skb);

	return at < 0 ? TC_ACT_UNSPEC : judge_in(skb, at);
}

/* For interfaces without an Ethernet header (tun, WireGuard): the packet begins with IP. */
SEC("tc")
int ps_guard_out_ip(struct __sk_buff *skb)
{
	return judge_out(skb, 0);
}

SEC("tc")
int ps_guard_in_ip(struct __sk_buff *skb)
{
	return judge_in(skb, 0);
}

char ps_license[] SEC("license") = "GPL";
