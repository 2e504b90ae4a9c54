/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * The order of a dispatching decision (design.md §3) over the stages of steer.h, and what is then
 * done to the frame.  The file that includes this says where tables and frame are by defining the
 * functions declared first: dispatch.bpf.c with maps and helpers, trace.c with struct ps_table and
 * a heap block.  So kernel, `portslice trace`, tests and fuzzer run the same lines.
 *
 *   frame --ps_decide--> verdict (frame untouched) --ps_carry_out--> frame changed, action
 */
#ifndef PS_DISPATCH_DECIDE_H
#define PS_DISPATCH_DECIDE_H

#include <linux/bpf.h>

#include "dispatch/steer.h"

struct ps_frame;

static void *ps_frame_data(struct ps_frame *frame);
static void *ps_frame_end(struct ps_frame *frame);
/* Moves the start by delta bytes (negative: room before the frame), 0 or not. */
static int ps_frame_move(struct ps_frame *frame, int delta);
/* Cuts the frame to len bytes, 0 or not. */
static int ps_frame_cut(struct ps_frame *frame, __u32 len);
/* XDP_TX or XDP_REDIRECT. */
static int ps_frame_leave(struct ps_frame *frame, __u32 ifindex);

static const struct ps_dispatch_config *ps_look_config(struct ps_frame *frame);
static const struct ps_address *ps_look_address(struct ps_frame *frame, __be32 ip4_be);
static const struct ps_owners *ps_look_owners(struct ps_frame *frame, __u32 row);
static const struct ps_group *ps_look_group(struct ps_frame *frame, __u32 group);
static const struct ps_peer *ps_look_host(struct ps_frame *frame, __u32 host);
static const struct ps_peer *ps_look_edge(struct ps_frame *frame, __u32 site);
static int ps_look_source(struct ps_frame *frame, __be32 ip4_be);
static int ps_look_service(struct ps_frame *frame, const struct ps_service_key *key);
/* True when the flow is in the ledger, or is that of a TCP socket that does not listen. */
static int ps_look_claim(struct ps_frame *frame, const struct ps_flow *flow);
static int ps_look_socket(struct ps_frame *frame, const struct ps_flow *flow);
static __u64 ps_look_clock(struct ps_frame *frame);
static int ps_look_budget(struct ps_frame *frame, __u64 now_ns, __u32 per_s);

struct ps_verdict {
	__u32 reason;     /* enum ps_dispatch_reason */
	__u32 l2_len;     /* of the frame as it came: Ethernet header and VLAN tags, bytes */
	__u32 ip_off;     /* of the packet to a shared address, bytes from the start of the frame */
	__u32 ip_len;     /* its total length */
	__u32 came;       /* UDP port by which it came encapsulated, 0: from the wire */
	__u32 goes;       /* UDP port to encapsulate it to */
	__s32 site, host; /* of its owner as far as known, -1: not */
	const struct ps_peer *peer; /* to encapsulate to */
	struct ps_hop hop;          /* to leave by */
	struct ps_flow flow;
	struct ps_reset reset;
	__u32 quote_len;
};

/* Encapsulates towards peer, if that is possible. */
PS_INLINE __u32 ps_decide_send(struct ps_verdict *v, const struct ps_peer *peer, __u32 port,
			       __u32 reason)
{
	v->peer = peer;
	v->goes = port;
	ps_hop_read(&peer->hop, &v->hop);
	if (!v->hop.ifindex)
		return PS_REASON_DROP_NO_HOP;
	if (v->ip_len + PS_OVERHEAD_V4 > peer->mtu)
		return PS_REASON_DROP_TOO_BIG;
	return reason;
}

/* Whether and how a packet that nobody here expects may be answered, but for freshness and rate. */
PS_INLINE __u32 ps_decide_answer(const void *frame, const struct iphdr *ip, const void *end,
				 struct ps_verdict *v)
{
	if (v->flow.is_icmp || !ps_may_answer(ip->saddr))
		return PS_REASON_DROP_REJECT_NEVER;
	if (!v->came && ps_is_multicast(frame, end)) /* RFC 1122 §3.2.2 */
		return PS_REASON_DROP_REJECT_NEVER;
	if (v->flow.protocol == PS_PROTO_TCP)
		return ps_read_reset(ip, end, &v->reset);
	v->quote_len = ps_quote_len(ip);
	return PS_UNDECIDED;
}

PS_COLD __u32 ps_decide_unowned(struct ps_frame *frame, const struct iphdr *ip, const void *end,
				const struct ps_address *address, struct ps_verdict *v)
{
	const struct ps_dispatch_config *config = ps_look_config(frame);
	__u32 reason;
	__u64 now_ns;

	if (!config || (ps_address_flags(address) & PS_ADDRESS_DROP))
		return PS_REASON_DROP_UNOWNED;
	if (v->came == PS_GUE_PORT)
		return PS_REASON_DROP_NO_STEPS;
	reason = ps_decide_answer(ps_frame_data(frame), ip, end, v);
	if (reason != PS_UNDECIDED)
		return reason;
	now_ns = ps_look_clock(frame);
	if (now_ns >= config->fresh_until_ns)
		return PS_REASON_DROP_REJECT_STALE;
	if (v->came) {
		ps_hop_read(&config->gateway, &v->hop);
		if (!v->hop.ifindex)
			return PS_REASON_DROP_NO_HOP;
	}
	if (!ps_look_budget(frame, now_ns, config->reject_per_s))
		return PS_REASON_DROP_REJECT_LIMIT;
	return v->flow.protocol == PS_PROTO_TCP ? PS_REASON_REJECT_TCP : PS_REASON_REJECT_ICMP;
}

/* DELIVER, DELIVER_SERVICE, or PS_UNDECIDED: not expected. */
PS_INLINE __u32 ps_decide_expected(struct ps_frame *frame, const struct ps_flow *flow)
{
	struct ps_service_key key = {flow->ours, flow->our_port, flow->protocol, 0};

	if (ps_look_claim(frame, flow))
		return PS_REASON_DELIVER;
	if (flow->protocol == PS_PROTO_ICMP)
		return PS_UNDECIDED;
	if (ps_look_service(frame, &key))
		return PS_REASON_DELIVER_SERVICE;
	if (flow->protocol == PS_PROTO_TCP && ps_look_socket(frame, flow))
		return PS_REASON_DELIVER;
	return PS_UNDECIDED;
}

/* The owner of the port, or NULL: nobody. */
PS_INLINE const struct ps_peer *
ps_find_owner(struct ps_frame *frame, const struct ps_address *address, struct ps_verdict *v)
{
	int slice = ps_slice_of(address, ps_be16(v->flow.our_port));
	const struct ps_owners *owners;
	const struct ps_group *group;
	__u8 slot;

	if (slice < 0)
		return (void *)0;
	owners = ps_look_owners(frame, address->row + (__u32)slice / PS_ROW_SLICES);
	group = ps_look_group(frame, address->group);
	if (!owners || !group)
		return (void *)0;
	slot = *(const volatile __u8 *)&owners->slot[slice % PS_ROW_SLICES];
	if (slot == PS_OWNER_NONE)
		return (void *)0;
	v->host = group->host[slot];
	return ps_look_host(frame, (__u32)v->host);
}

PS_INLINE __u32 ps_decide_owner(struct ps_frame *frame, const struct iphdr *ip, const void *end,
				const struct ps_address *address, struct ps_verdict *v)
{
	const struct ps_peer *owner = ps_find_owner(frame, address, v);
	__u32 reason;

	if (!owner)
		return ps_decide_unowned(frame, ip, end, address, v);
	if (owner->self) {
		reason = ps_decide_expected(frame, &v->flow);
		return reason != PS_UNDECIDED ? reason
					      : ps_decide_unowned(frame, ip, end, address, v);
	}
	if (!v->came)
		return ps_decide_send(v, owner, PS_GUE_PORT, PS_REASON_TO_HOST);
	if (v->came == PS_GUE_PORT)
		return PS_REASON_DROP_NO_STEPS;
	return ps_decide_send(v, owner, v->came + 1, PS_REASON_TO_HOST);
}

/* A packet to a shared address, as it came or decapsulated. */
PS_INLINE __u32 ps_decide_shared(struct ps_frame *frame, const struct iphdr *ip, const void *end,
				 const struct ps_address *address, struct ps_verdict *v)
{
	const struct ps_dispatch_config *config = ps_look_config(frame);
	const struct ps_peer *edge;
	__u32 reason = ps_check_ip(ip, end);

	v->site = address->site;
	if (reason == PS_UNDECIDED)
		reason = ps_read_flow(ip, end, &v->flow);
	if (reason != PS_UNDECIDED)
		return reason;
	v->ip_len = ps_be16(ip->tot_len);
	if (!config || address->site == config->site)
		return ps_decide_owner(frame, ip, end, address, v);
	if (v->came)
		return PS_REASON_DROP_OTHER_SITE;
	edge = ps_look_edge(frame, address->site);
	/* One step: any host of that site may get it, and hands it to the owner. */
	return edge ? ps_decide_send(v, edge, PS_GUE_PORT - 1, PS_REASON_TO_SITE)
		    : PS_REASON_DROP_NO_HOP;
}

/* A packet to an address that is not shared. */
PS_INLINE __u32 ps_decide_outer(struct ps_frame *frame, const struct iphdr *ip, const void *end,
				struct ps_verdict *v)
{
	const struct ps_dispatch_config *config = ps_look_config(frame);
	const struct ps_address *address;
	const struct iphdr *inner;
	__u32 outer_len, reason;

	if (!config)
		return PS_REASON_NOT_OURS;
	v->came = ps_read_outer(ip, end, config, &outer_len);
	if (!v->came)
		return PS_REASON_NOT_OURS;
	if (!ps_look_source(frame, ip->saddr))
		return PS_REASON_DROP_STRANGER;
	inner = (const void *)((const __u8 *)ip + outer_len);
	if ((const void *)(inner + 1) > end)
		return PS_REASON_DROP_INNER;
	address = ps_look_address(frame, inner->daddr);
	if (!address || !ps_inner_fits(ip, inner))
		return PS_REASON_DROP_INNER;
	v->ip_off = v->l2_len + outer_len;
	reason = ps_decide_shared(frame, inner, end, address, v);
	if (reason == PS_REASON_DROP_HEADER || reason == PS_REASON_DROP_TRUNCATED)
		return PS_REASON_DROP_INNER;
	return reason;
}

/* The frame is only read.  *v is set whole. */
PS_INLINE void ps_decide(struct ps_frame *frame, struct ps_verdict *v)
{
	const void *data = ps_frame_data(frame), *end = ps_frame_end(frame);
	__u32 l2_len = ps_find_ip(data, end);
	const struct iphdr *ip = (const void *)((const __u8 *)data + l2_len);
	const struct ps_address *address;

	*v = (struct ps_verdict){.reason = PS_REASON_NOT_OURS, .site = -1, .host = -1};
	if (!l2_len || (const void *)(ip + 1) > end)
		return;
	v->l2_len = v->ip_off = l2_len;
	address = ps_look_address(frame, ip->daddr);
	v->reason = address ? ps_decide_shared(frame, ip, end, address, v)
			    : ps_decide_outer(frame, ip, end, v);
}

/* What stands before the packet is replaced by the hop's Ethernet header and, for a peer, the
 * outer headers.  A packet that came encapsulated without options and tags does not move. */
PS_INLINE int ps_encapsulate(struct ps_frame *frame, struct ps_verdict *v)
{
	int delta = (int)v->ip_off - PS_OUTER_LEN;
	__u8 *data;

	if (delta && ps_frame_move(frame, delta))
		goto no_room;
	data = ps_frame_data(frame);
	if ((void *)(data + PS_OUTER_LEN) > ps_frame_end(frame))
		goto no_room;
	ps_write_ether(data, &v->hop);
	ps_write_outer(data + ETH_HLEN, v->peer, v->ip_len, ps_flow_port(&v->flow), v->goes);
	return ps_frame_leave(frame, v->hop.ifindex);
no_room:
	v->reason = PS_REASON_DROP_ROOM;
	return XDP_DROP;
}

/* Ethernet header and VLAN tags of a frame. */
struct ps_l2 {
	__u8 bytes[ETH_HLEN + 2 * sizeof(struct ps_vlan)] __attribute__((aligned(8)));
	__u32 len;
};

/* For whom the answer is: back the way it came, tags included, or for the hop. */
PS_INLINE int ps_read_l2(struct ps_frame *frame, const struct ps_verdict *v, struct ps_l2 *ret)
{
	const __u8 *data = ps_frame_data(frame);

	if ((const void *)(data + sizeof(ret->bytes)) > ps_frame_end(frame))
		return -1;
	if (v->came) {
		ps_write_ether(ret->bytes, &v->hop);
		ret->len = ETH_HLEN;
		return 0;
	}
	__builtin_memcpy(ret->bytes, data + ETH_ALEN, ETH_ALEN);
	__builtin_memcpy(ret->bytes + ETH_ALEN, data, ETH_ALEN);
	__builtin_memcpy(ret->bytes + 2 * ETH_ALEN, data + 2 * ETH_ALEN,
			 sizeof(ret->bytes) - 2 * ETH_ALEN);
	ret->len = v->l2_len & 31; /* 14 to 22: the verifier does not remember */
	return 0;
}

/* at has room for sizeof(l2->bytes); what belongs behind the header is written later. */
PS_INLINE void ps_write_l2(__u8 *at, const struct ps_l2 *l2)
{
	__builtin_memcpy(at, l2->bytes, ETH_HLEN);
	if (l2->len > ETH_HLEN)
		__builtin_memcpy(at + ETH_HLEN, l2->bytes + ETH_HLEN, 4);
	if (l2->len > ETH_HLEN + 4)
		__builtin_memcpy(at + ETH_HLEN + 4, l2->bytes + ETH_HLEN + 4, 4);
}

/* Turns the frame into a header and `room` bytes, followed by `kept` bytes from the packet's
 * start; the address of the room, or NULL. */
PS_INLINE __u8 *ps_make_room(struct ps_frame *frame, const struct ps_verdict *v, __u32 room,
			     __u32 kept)
{
	struct ps_l2 l2;
	__u8 *data;
	int delta;

	if (ps_read_l2(frame, v, &l2))
		return (void *)0;
	delta = (int)v->ip_off - (int)(l2.len + (kept ? room : 0));
	if (delta && ps_frame_move(frame, delta))
		return (void *)0;
	if (ps_frame_cut(frame, l2.len + room + kept))
		return (void *)0;
	data = ps_frame_data(frame);
	if ((void *)(data + sizeof(l2.bytes) + PS_UNREACHABLE_LEN) > ps_frame_end(frame))
		return (void *)0;
	ps_write_l2(data, &l2);
	return data + l2.len;
}

PS_COLD int ps_answer(struct ps_frame *frame, struct ps_verdict *v)
{
	int is_tcp = v->reason == PS_REASON_REJECT_TCP;
	__u8 *at = is_tcp ? ps_make_room(frame, v, PS_RST_LEN, 0)
			  : ps_make_room(frame, v, PS_UNREACHABLE_LEN, v->quote_len);

	v->reason = PS_REASON_DROP_ROOM;
	if (!at)
		return XDP_DROP;
	if (is_tcp) {
		if ((void *)(at + PS_RST_LEN) > ps_frame_end(frame))
			return XDP_DROP;
		ps_write_reset(at, &v->flow, &v->reset);
	} else {
		if ((void *)(at + PS_UNREACHABLE_LEN) > ps_frame_end(frame) ||
		    !ps_write_unreachable(at, ps_frame_end(frame), &v->flow, v->quote_len))
			return XDP_DROP;
	}
	v->reason = is_tcp ? PS_REASON_REJECT_TCP : PS_REASON_REJECT_ICMP;
	return v->came ? ps_frame_leave(frame, v->hop.ifindex) : XDP_TX;
}

/* Leaves the packet behind an Ethernet header with the MACs it came with. */
PS_INLINE int ps_decapsulate(struct ps_frame *frame, struct ps_verdict *v)
{
	__u8 *data = ps_frame_data(frame);
	struct ethhdr eth;

	if ((void *)(data + sizeof(eth)) > ps_frame_end(frame))
		return XDP_DROP;
	__builtin_memcpy(&eth, data, sizeof(eth));
	eth.h_proto = ps_be16(ETH_P_IP);
	if (ps_frame_move(frame, (int)v->ip_off - ETH_HLEN))
		return XDP_DROP;
	data = ps_frame_data(frame);
	if ((void *)(data + sizeof(eth)) > ps_frame_end(frame))
		return XDP_DROP;
	__builtin_memcpy(data, &eth, sizeof(eth));
	return XDP_PASS;
}

/* Returns the XDP action; v->reason becomes DROP_ROOM when the frame cannot grow. */
PS_INLINE int ps_carry_out(struct ps_frame *frame, struct ps_verdict *v)
{
	switch (v->reason) {
	case PS_REASON_NOT_OURS:
		return XDP_PASS;
	case PS_REASON_DELIVER:
	case PS_REASON_DELIVER_SERVICE:
		return v->came ? ps_decapsulate(frame, v) : XDP_PASS;
	case PS_REASON_TO_HOST:
	case PS_REASON_TO_SITE:
		return ps_encapsulate(frame, v);
	case PS_REASON_REJECT_TCP:
	case PS_REASON_REJECT_ICMP:
		return ps_answer(frame, v);
	default:
		return XDP_DROP;
	}
}

#endif
