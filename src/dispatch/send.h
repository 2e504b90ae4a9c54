/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * Sending a packet on to a host or a site, or telling its sender why not.
 */
#ifndef PS_DISPATCH_SEND_H
#define PS_DISPATCH_SEND_H

#include "dispatch/look.h"

/* The answer to what came encapsulated leaves by the gateway; 0: that is not resolved. */
PS_INLINE int ps_find_way_back(const struct ps_dispatch_config *config, struct ps_verdict *v)
{
	if (!v->came)
		return 1;
	ps_hop_read(&config->gateway, &v->hop);
	return v->hop.ifindex != 0;
}

/* IPv6 routers never fragment (RFC 8200 §5), so every sender is told; a link below 1,280 bytes is no
 * IPv6 link. */
PS_INLINE __u32 ps_decide_too_big6(struct ps_frame *frame, const struct ps_ip6 *ip, const void *end,
				   struct ps_verdict *v)
{
	const struct ps_dispatch_config *config = ps_look_config(frame);
	__u32 mtu = v->peer->mtu - PS_OVERHEAD_V4;

	if (!config || v->flow.is_icmp == PS_IS_ERROR || !ps_may_answer6(ip) ||
	    (!v->came && ps_is_multicast(ps_frame_data(frame), end)))
		return PS_REASON_DROP_TOO_BIG;
	v->quote_len = (__u16)ps_quote_len6(v->ip_len);
	v->answer_mtu = (__u16)(mtu < PS_IP6_MTU_MIN ? PS_IP6_MTU_MIN : mtu);
	if (!ps_find_way_back(config, v))
		return PS_REASON_DROP_NO_HOP;
	if (!ps_look_budget(frame, PS_BUDGET_TOO_BIG, ps_look_clock(frame), config->reject_per_s))
		return PS_REASON_DROP_ANSWER_LIMIT;
	return PS_REASON_TOO_BIG;
}

/* Two fragments, if they fit.  At another site they must be gathered. */
PS_INLINE __u32 ps_decide_split(const struct iphdr *ip, const struct ps_dispatch_config *config,
				struct ps_verdict *v)
{
	if (ip->ihl != 5 || !ps_split_first(v->ip_len, v->peer->mtu - PS_OVERHEAD_V4))
		return PS_REASON_DROP_TOO_BIG;
	if (v->site != config->site)
		v->goes = PS_GUE_PORT - PS_GUE_STEPS_MAX;
	return PS_REASON_SPLIT;
}

/* The packet in v is larger than v->peer takes.  Only what forbids fragments may draw an answer
 * (RFC 1191 §4), and never an ICMP error (RFC 1122 §3.2.2). */
PS_COLD __u32 ps_decide_too_big(struct ps_frame *frame, const struct iphdr *ip,
				struct ps_verdict *v)
{
	const struct ps_dispatch_config *config = ps_look_config(frame);
	const void *data = ps_frame_data(frame), *end = ps_frame_end(frame);

	if (v->is_v6)
		return ps_decide_too_big6(frame, (const void *)ip, end, v);
	if (!config)
		return PS_REASON_DROP_TOO_BIG;
	if (!(ip->frag_off & ps_be16(PS_DONT_FRAGMENT)))
		return ps_decide_split(ip, config, v);
	if (v->flow.is_icmp == PS_IS_ERROR)
		return PS_REASON_DROP_TOO_BIG;
	if (!ps_may_answer(ip->saddr) || (!v->came && ps_is_multicast(data, end)))
		return PS_REASON_DROP_TOO_BIG;
	v->quote_len = (__u16)ps_quote_len(ip);
	v->answer_mtu = (__u16)(v->peer->mtu - PS_OVERHEAD_V4);
	if (!ps_find_way_back(config, v))
		return PS_REASON_DROP_NO_HOP;
	if (!ps_look_budget(frame, PS_BUDGET_TOO_BIG, ps_look_clock(frame), config->reject_per_s))
		return PS_REASON_DROP_ANSWER_LIMIT;
	return PS_REASON_TOO_BIG;
}

/* Encapsulates towards peer, if that is possible. */
PS_INLINE __u32 ps_decide_send(struct ps_frame *frame, const struct iphdr *ip, struct ps_verdict *v,
			       const struct ps_peer *peer, __u32 port, __u32 reason)
{
	v->peer = peer;
	v->goes = port;
	ps_hop_read(&peer->hop, &v->hop);
	if (!v->hop.ifindex)
		return PS_REASON_DROP_NO_HOP;
	if (v->ip_len + PS_OVERHEAD_V4 > peer->mtu)
		return ps_decide_too_big(frame, ip, v);
	return reason;
}

/* Sends to the site at which the address is, with the steps that port stands for. */
PS_INLINE __u32 ps_decide_site(struct ps_frame *frame, const struct iphdr *ip, __u32 site,
			       __u32 port, struct ps_verdict *v)
{
	const struct ps_peer *edge;

	if (v->came)
		return PS_REASON_DROP_OTHER_SITE;
	edge = ps_look_edge(frame, site);
	return edge ? ps_decide_send(frame, ip, v, edge, port, PS_REASON_TO_SITE)
		    : PS_REASON_DROP_NO_HOP;
}

#endif
