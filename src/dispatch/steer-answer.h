/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * What the dispatcher itself says: builders of answers, and the budget that limits them.
 */
#ifndef PS_DISPATCH_STEER_ANSWER_H
#define PS_DISPATCH_STEER_ANSWER_H

#include "dispatch/wire.h"

/* What a reset says: RFC 9293 §3.10.7.1, CLOSED state. */
struct ps_reset {
	__be32 seq, ack;
	__u8 has_ack;
};

/* True when the segment may be answered: not a RST itself, and a header that can be true.
 * len: of the segment, which has passed ps_read_flow(). */
PS_INLINE __u32 ps_read_reset(const struct tcphdr *tcp, const void *end, __u32 len,
			      struct ps_reset *ret)
{
	if ((const void *)(tcp + 1) > end)
		return PS_REASON_DROP_TRUNCATED;
	if (tcp->doff < 5 || tcp->doff * 4u > len)
		return PS_REASON_DROP_HEADER;
	if (tcp->rst)
		return PS_REASON_DROP_REJECT_NEVER;
	ret->has_ack = !tcp->ack;
	ret->seq = tcp->ack ? tcp->ack_seq : 0;
	len += tcp->syn + tcp->fin - tcp->doff * 4u;
	ret->ack = tcp->ack ? 0 : ps_be32(ps_be32(tcp->seq) + len);
	return PS_UNDECIDED;
}

/* Writes a TCP header of 20 bytes: from our side of the flow to the peer's.  sum: of the pseudo
 * header. */
PS_INLINE void ps_write_rst_segment(void *at, const struct ps_flow *flow,
				    const struct ps_reset *reset, __u32 sum)
{
	__be16 *tcp = at;
	__be16 flags = ps_be16(5 << 12 | (reset->has_ack ? 0x14 : 0x04)); /* ACK 0x10, RST 0x04 */

	sum += flow->our_port + flow->peer_port + ps_sum32(reset->seq) + ps_sum32(reset->ack) +
	       flags;
	tcp[0] = flow->our_port;
	tcp[1] = flow->peer_port;
	__builtin_memcpy(tcp + 2, &reset->seq, 4);
	__builtin_memcpy(tcp + 4, &reset->ack, 4);
	tcp[6] = flags;
	tcp[7] = 0;
	tcp[8] = ps_checksum(sum);
	tcp[9] = 0;
}

/* Writes PS_RST_LEN bytes: from our side of the flow to the peer's. */
PS_INLINE void ps_write_reset(void *at, const struct ps_flow *flow, const struct ps_reset *reset)
{
	struct iphdr *ip = at;
	__u32 sum = ps_sum32(flow->ours) + ps_sum32(flow->peer) + ps_be16(PS_PROTO_TCP) +
		    ps_be16(sizeof(struct tcphdr));

	ps_write_ip(ip, PS_PROTO_TCP, flow->ours, flow->peer, PS_RST_LEN,
		    ps_ip_sum(PS_PROTO_TCP, flow->ours, flow->peer));
	ps_write_rst_segment(ip + 1, flow, reset, sum);
}

/* Adds the words of the quote to *sum; quote_len: a multiple of 4, at most max, which is a constant.
 * 0: the quote ends beyond end. */
PS_INLINE int ps_sum_quote(const void *quote, const void *end, __u32 quote_len, __u32 max,
			   __u32 *sum)
{
	const __u8 *at = quote;

	for (__u32 i = 0; i < max / 4; i++) {
		if (i * 4 >= quote_len)
			break;
		ps_hide(at);
		if ((const void *)(at + 4) > end)
			return 0;
		*sum += ps_sum32(*(const __u32 *)(const void *)at);
		at += 4;
	}
	return 1;
}

/* Writes PS_UNREACHABLE_LEN bytes before the quote, which is there already: too big for mtu bytes
 * (RFC 1191 §4), or with mtu 0 port unreachable.  0: the quote ends beyond end.  RFC 792, RFC 1122
 * §3.2.2.1. */
PS_INLINE int ps_write_unreachable(void *at, const void *end, const struct ps_flow *flow,
				   __u32 quote_len, __u16 mtu)
{
	struct iphdr *ip = at;
	struct ps_icmp *icmp = (void *)(ip + 1);
	__u8 code = mtu ? PS_ICMP_CODE_TOO_BIG : PS_ICMP_CODE_PORT;
	__u32 sum = ps_be16(PS_ICMP_UNREACHABLE << 8 | code) + ps_be16(mtu);

	if (!ps_sum_quote(icmp + 1, end, quote_len, PS_QUOTE_MAX, &sum))
		return 0;
	ps_write_ip(ip, PS_PROTO_ICMP, flow->ours, flow->peer, PS_UNREACHABLE_LEN + quote_len,
		    ps_ip_sum(PS_PROTO_ICMP, flow->ours, flow->peer));
	*icmp = (struct ps_icmp){PS_ICMP_UNREACHABLE, code, ps_checksum(sum), 0, ps_be16(mtu)};
	return 1;
}

/* Makes the request at `at`, of len bytes with a header of 20, the reply to it.  Its checksum is
 * right if the request's was: what the type loses is added to it (RFC 1624; this way round a message
 * of zeros gets 0xffff and not 0). */
PS_INLINE void ps_write_echo(void *at, __u32 len, const struct ps_flow *flow)
{
	struct iphdr *ip = at;
	struct ps_icmp *icmp = (void *)(ip + 1);
	__u32 sum = (__u32)icmp->check + ps_be16(PS_ICMP_ECHO << 8);

	ps_write_ip(ip, PS_PROTO_ICMP, flow->ours, flow->peer, len,
		    ps_ip_sum(PS_PROTO_ICMP, flow->ours, flow->peer));
	icmp->type = PS_ICMP_ECHO_REPLY;
	icmp->check = (__u16)~ps_checksum(sum);
}

/* True when an answer to this source can reach one host: not this-network, loopback, multicast,
 * reserved or broadcast (RFC 1122 §3.2.2). */
PS_INLINE int ps_may_answer(__be32 src)
{
	__u32 first = ps_be32(src) >> 24;

	return first != 0 && first != 127 && first < 224;
}

/* Takes one answer from the budget of per_s a second, bursts of one second. */
PS_INLINE int ps_budget_take(struct ps_budget *budget, __u64 now_ns, __u32 per_s)
{
	__u64 paid_ns = budget->paid_ns < now_ns ? now_ns : budget->paid_ns;
	__u32 cost_ns = per_s ? PS_PAID_AHEAD_NS / per_s : 0;

	if (!per_s || paid_ns + cost_ns > now_ns + PS_PAID_AHEAD_NS)
		return 0;
	budget->paid_ns = paid_ns + cost_ns;
	return 1;
}

#endif
