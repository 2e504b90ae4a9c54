/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * The order of a dispatching decision (design.md §3) over the stages of steer.h, and what is then
 * done to the frame.  The file that includes this says where tables and frame are by defining the
 * functions of look.h: dispatch.bpf.c with maps and helpers, trace.c with struct ps_table and
 * a heap block.  So kernel, `portslice trace`, tests and fuzzer run the same lines.
 *
 *   frame --ps_decide--> verdict (frame untouched) --ps_carry_out--> frame changed, action
 */
#ifndef PS_DISPATCH_DECIDE_H
#define PS_DISPATCH_DECIDE_H

#include <linux/bpf.h>

#include "dispatch/carry.h"
#include "dispatch/decide6.h"
#include "dispatch/owner.h"
#include "dispatch/rare.h"

/* A packet to a shared address, as it came or decapsulated. */
PS_INLINE __u32 ps_decide_shared(struct ps_frame *frame, const struct iphdr *ip, const void *end,
				 const struct ps_address *address, struct ps_verdict *v)
{
	const struct ps_dispatch_config *config = ps_look_config(frame);
	__u32 reason = ps_check_ip(ip, end);

	v->site = address->site;
	if (reason == PS_UNDECIDED)
		reason = ps_read_flow(ip, end, &v->flow);
	v->ip_len = ps_be16(ip->tot_len);
	if (reason != PS_UNDECIDED) {
		v->reason = reason;
		return ps_decide_rare(frame, ip, end, address, v);
	}
	if (!config || address->site == config->site)
		return ps_decide_owner(frame, ip, end, address, v);
	/* One step: any host of that site may get it, and hands it to the owner. */
	return ps_decide_site(frame, ip, address->site, PS_GUE_PORT - 1, v);
}

/* What may have been encapsulated for this host: UDP to one of its addresses. */
PS_COLD __u32 ps_decide_outer(struct ps_frame *frame, const struct iphdr *ip, const void *end,
			      struct ps_verdict *v)
{
	const struct ps_dispatch_config *config = ps_look_config(frame);
	const struct iphdr *inner;
	struct ps_address address;
	__u32 outer_len, reason;

	if (!config)
		return PS_REASON_NOT_OURS;
	v->came = ps_read_outer(ip, end, config, &outer_len);
	if (!v->came)
		return ip->protocol == PS_PROTO_ICMP && ip->daddr == config->underlay
			       ? ps_decide_hint(frame, ip, end, config)
			       : PS_REASON_NOT_OURS;
	if (!ps_look_source(frame, ip->saddr))
		return PS_REASON_DROP_STRANGER;
	inner = (const void *)((const __u8 *)ip + outer_len);
	if ((const void *)(inner + 1) > end)
		return PS_REASON_DROP_INNER;
	v->ip_off = v->l2_len + outer_len;
	if (inner->version == 6)
		return ps_decide_inner6(frame, (const void *)inner, end,
					ps_be16(ip->tot_len) - ip->ihl * 4, v);
	if (ps_look_address(frame, inner->saddr, &address)) /* nobody talks to himself: forged */
		return PS_REASON_DROP_INNER;
	if (!ps_look_address(frame, inner->daddr, &address) || !ps_inner_fits(ip, inner))
		return PS_REASON_DROP_INNER;
	reason = ps_decide_shared(frame, inner, end, &address, v);
	if (reason == PS_REASON_DROP_HEADER || reason == PS_REASON_DROP_TRUNCATED)
		return PS_REASON_DROP_INNER;
	return reason;
}

PS_INLINE void ps_verdict_clear(struct ps_verdict *v, __u32 l2_len)
{
	*v = (struct ps_verdict){.reason = PS_REASON_NOT_OURS,
				 .site = -1,
				 .host = -1,
				 .l2_len = l2_len,
				 .ip_off = l2_len};
}

/* The frame is only read.  Of *v reason, site and host are set, and the rest if not NOT_OURS: a
 * packet that is not for us should not pay for it. */
PS_INLINE void ps_decide(struct ps_frame *frame, struct ps_verdict *v)
{
	const void *data = ps_frame_data(frame), *end = ps_frame_end(frame);
	__u32 l2_len = ps_find_ip(data, end);
	const struct iphdr *ip = (const void *)((const __u8 *)data + l2_len);
	struct ps_address address;

	if (!l2_len) {
		ps_verdict_clear(v, 0);
		v->reason = ps_decide_frame6(frame, v);
		return;
	}
	v->reason = PS_REASON_NOT_OURS;
	v->site = v->host = -1;
	if ((const void *)(ip + 1) > end)
		return;
	if (ps_look_address(frame, ip->daddr, &address)) {
		ps_verdict_clear(v, l2_len);
		v->reason = ps_decide_shared(frame, ip, end, &address, v);
	} else if (ip->protocol != PS_PROTO_TCP) { /* neither encapsulated nor ICMP about that */
		ps_verdict_clear(v, l2_len);
		v->reason = ps_decide_outer(frame, ip, end, v);
	}
}

#endif
