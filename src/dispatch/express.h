/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * The common packet, in one go and without a verdict in memory: IPv4 from an untagged frame, whole,
 * without options, TCP or UDP, for another host's slice or another site, with a next hop, and not too
 * big; and what is not for us at all.  Whatever is otherwise takes the stages of decide.h, which would
 * do the same here: the packet tests and the fuzzer compare.
 */
#ifndef PS_DISPATCH_EXPRESS_H
#define PS_DISPATCH_EXPRESS_H

#include "dispatch/carry.h"

/* Could a packet to no shared address be encapsulated for this host, or ICMP about that? */
PS_INLINE int ps_is_outside(const struct iphdr *ip, const struct ps_dispatch_config *config)
{
	return ip->protocol == PS_PROTO_TCP ||
	       (ip->daddr != config->underlay && ip->daddr != config->edge);
}

/* How a packet goes on. */
struct ps_way {
	const struct ps_peer *peer;
	struct ps_envelope envelope;
};

/* What of the way the packet itself says; 0: it is for decide.h. */
PS_INLINE int ps_express_read(const struct iphdr *ip, const void *end, struct ps_flow *flow,
			      struct ps_way *way)
{
	__u32 ip_len = ps_be16(ip->tot_len);

	*flow = ps_path(ip);
	if (ps_unlikely(flow->protocol != PS_PROTO_TCP && flow->protocol != PS_PROTO_UDP) ||
	    *(const __u8 *)ip != 0x45 || ps_check_ip(ip, end) != PS_UNDECIDED ||
	    ps_read_ports(ip + 1, end, ip_len - sizeof(*ip), flow) != PS_UNDECIDED)
		return 0;
	way->envelope.ip_off = ETH_HLEN;
	way->envelope.ip_len = ip_len;
	way->envelope.from = ps_flow_port(flow);
	ps_make_now(way->envelope.from);
	return 1;
}

/* What the tables say: who takes the packet, and with which steps left.  Asked before the packet is
 * judged, so that a row that is not in the cache comes while it is. */
PS_INLINE int ps_express_find(struct ps_frame *frame, const struct ps_address *address,
			      __u16 our_port, struct ps_way *way)
{
	int slice = ps_slice_of(address, our_port);

	if (ps_unlikely(!address->group)) { /* at another site */
		way->peer = ps_look_peer(frame, address->site);
		way->envelope.to = PS_GUE_PORT - 1;
	} else if (ps_likely(slice >= 0)) {
		__u8 slot = ps_look_owner(frame, address, (__u32)slice);

		way->peer = ps_look_peer(frame, ps_peer_at(address, slot));
		way->envelope.to = PS_GUE_PORT;
	} else {
		return 0;
	}
	return 1;
}

/* Nobody is a peer without room, as this host is. */
PS_INLINE int ps_express_fits(const struct ps_way *way)
{
	return ps_likely(way->envelope.ip_len <= way->peer->room && ps_has_hop(way->peer));
}

PS_INLINE struct ps_outcome
ps_express_send(struct ps_frame *frame, const struct ps_address *address, const struct ps_way *way)
{
	int is_near = way->envelope.to == PS_GUE_PORT;
	struct ps_outcome ret = {is_near ? PS_REASON_TO_HOST : PS_REASON_TO_SITE, address->site,
				 is_near ? way->peer->host : -1, XDP_DROP};
	__u32 ifindex, lost = ps_wrap4(frame, way->peer, &way->envelope, &ifindex);

	if (ps_unlikely(lost != PS_UNDECIDED))
		ret.reason = lost;
	else
		ret.action = ps_frame_leave(frame, ifindex);
	return ret;
}

/* PS_UNDECIDED: the frame is untouched, and for decide.h. */
PS_INLINE struct ps_outcome ps_express(struct ps_frame *frame)
{
	struct ps_outcome ret = {PS_UNDECIDED, -1, -1, XDP_PASS};
	const void *end = ps_frame_end(frame);
	const struct ethhdr *eth = ps_frame_data(frame);
	const struct iphdr *ip = (const void *)(eth + 1);
	const __be16 *port = (const void *)(ip + 1);
	struct ps_address address;
	struct ps_flow flow;
	struct ps_way way;

	if ((const void *)(port + 4) > end || ps_ether_type(eth) != ps_be16(ETH_P_IP))
		return ret;
	if (ps_unlikely(!ps_look_address(frame, ip->daddr, &address))) {
		if (ps_is_outside(ip, ps_look_config(frame)))
			ret.reason = PS_REASON_NOT_OURS;
		return ret;
	}
	if (!ps_express_find(frame, &address, ps_be16(port[1]), &way) ||
	    !ps_express_read(ip, end, &flow, &way) || !ps_express_fits(&way))
		return ret;
	return ps_express_send(frame, &address, &way);
}

#endif
