/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * Whether the dispatcher itself answers: nobody's port, a ping, a packet too big for the underlay.
 */
#ifndef PS_DISPATCH_ANSWER_H
#define PS_DISPATCH_ANSWER_H

#include "dispatch/look.h"

/* Who sent it can be answered, and is one host that did not ask a group (RFC 1122 §3.2.2, RFC 4443
 * §2.4 e). */
PS_INLINE int ps_has_sender(struct ps_frame *frame, const struct ps_verdict *v)
{
	if (v->is_v6 ? !ps_may_answer6(v->ends.peer) : !ps_may_answer(v->ends.peer[3]))
		return 0;
	return v->came || !ps_is_multicast(ps_frame_data(frame), ps_frame_end(frame));
}

/* The answer to what came encapsulated leaves by the gateway; 0: that is not resolved. */
PS_INLINE int ps_find_way_back(struct ps_frame *frame, struct ps_verdict *v)
{
	const struct ps_dispatch_config *config = ps_look_config(frame);

	if (!v->came)
		return 1;
	ps_hop_read(v->is_v6 ? &config->gateway6 : &config->gateway, &v->hop);
	return v->hop.ifindex != 0;
}

/* PS_UNDECIDED: may be sent. */
PS_INLINE __u32 ps_afford(struct ps_frame *frame, struct ps_verdict *v, enum ps_budget_kind kind)
{
	__u64 now_ns = ps_look_clock(frame);

	if (kind == PS_BUDGET_REJECT && now_ns >= ps_look_config(frame)->fresh_until_ns)
		return PS_REASON_DROP_REJECT_STALE;
	if (!ps_find_way_back(frame, v))
		return PS_REASON_DROP_NO_HOP;
	if (ps_look_budget(frame, kind, now_ns, ps_look_config(frame)->reject_per_s))
		return PS_UNDECIDED;
	return kind == PS_BUDGET_REJECT ? PS_REASON_DROP_REJECT_LIMIT : PS_REASON_DROP_ANSWER_LIMIT;
}

/* How much of the packet an ICMP error quotes, bytes. */
PS_INLINE __u16 ps_quote_of(const struct ps_verdict *v)
{
	return (__u16)(v->is_v6 ? ps_quote_len6(v->ip_len) : v->l4_off + 8);
}

PS_INLINE __u32 ps_refuse_tcp(struct ps_frame *frame, struct ps_verdict *v)
{
	const __u8 *ip = ps_packet_of(frame, v);

	if (v->form == PS_FORM_FIRST) /* a RST would acknowledge the length of the whole segment */
		return PS_REASON_DROP_REJECT_NEVER;
	/* At most 8,232; the verifier does not remember. */
	return ps_read_reset((const void *)(ip + (v->l4_off & 0x3fff)), ps_frame_end(frame),
			     v->ip_len - v->l4_off, &v->reset);
}

/* Nobody owns the port, or its owner does not expect the packet. */
PS_STAGE(ps_refuse)
{
	int is_tcp = v->flow.protocol == PS_PROTO_TCP;
	__u32 reason;

	if (ps_address_flags(&v->address) & PS_ADDRESS_DROP)
		return PS_REASON_DROP_UNOWNED;
	if (v->came == PS_GUE_PORT)
		return PS_REASON_DROP_NO_STEPS;
	if (v->flow.is_icmp || !ps_has_sender(frame, v))
		return PS_REASON_DROP_REJECT_NEVER;
	reason = is_tcp ? ps_refuse_tcp(frame, v) : PS_UNDECIDED;
	if (reason != PS_UNDECIDED)
		return reason;
	v->quote_len = ps_quote_of(v);
	reason = ps_afford(frame, v, PS_BUDGET_REJECT);
	if (reason != PS_UNDECIDED)
		return reason;
	return is_tcp ? PS_REASON_REJECT_TCP : PS_REASON_REJECT_ICMP;
}

/* A ping is answered by the first host of the site where the address is: so it shows that the way
 * there works.  With header options an answer would have to copy some of them (RFC 1122
 * §3.2.2.6). */
PS_STAGE(ps_ping)
{
	__u32 plain = v->is_v6 ? sizeof(struct ps_ip6) : sizeof(struct iphdr), reason;

	if (v->came == PS_GUE_PORT)
		return PS_REASON_DROP_NO_STEPS;
	if (v->l4_off != plain || !ps_has_sender(frame, v))
		return PS_REASON_DROP_ECHO_REQUEST;
	reason = ps_afford(frame, v, PS_BUDGET_ECHO);
	return reason == PS_UNDECIDED ? PS_REASON_ECHO_REPLY : reason;
}

/* Two fragments, if they fit.  At another site they must be gathered. */
PS_INLINE __u32 ps_part(struct ps_frame *frame, struct ps_verdict *v, __u32 room)
{
	if (v->l4_off != sizeof(struct iphdr) || !ps_split_first(v->ip_len, room))
		return PS_REASON_DROP_TOO_BIG;
	if (v->address.site != ps_look_config(frame)->site)
		v->goes = PS_GUE_PORT - PS_GUE_STEPS_MAX;
	return PS_REASON_SPLIT;
}

/* The packet is larger than the peer takes once encapsulated.  Only what forbids fragments may draw an
 * answer (RFC 1191 §4), as all of IPv6 does (RFC 8200 §5), and never an ICMP error (RFC 1122
 * §3.2.2).  A link below 1,280 bytes is no IPv6 link. */
PS_STAGE(ps_too_big)
{
	__u32 mtu = ps_room_to(frame, v->to), reason;

	if (v->may_split)
		return ps_part(frame, v, mtu);
	/* A later fragment may be one of an ICMP error (RFC 1122 §3.2.2). */
	if (v->flow.is_icmp == PS_IS_ERROR || (!v->is_v6 && v->form == PS_FORM_LATER) ||
	    !ps_has_sender(frame, v))
		return PS_REASON_DROP_TOO_BIG;
	v->quote_len = ps_quote_of(v);
	v->answer_mtu = (__u16)(v->is_v6 && mtu < PS_MTU_MIN_V6 ? PS_MTU_MIN_V6 : mtu);
	reason = ps_afford(frame, v, PS_BUDGET_TOO_BIG);
	return reason == PS_UNDECIDED ? PS_REASON_TOO_BIG : reason;
}

#endif
